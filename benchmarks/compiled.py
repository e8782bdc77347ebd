"""The compiled training step against every peer's best, each in a process of its own.

    python benchmarks/compiled.py                        every table, one thread
    python benchmarks/compiled.py --threads 2            two threads
    python benchmarks/compiled.py --only xor             one workload
    python benchmarks/compiled.py --peers JAX NumPy      ours and these families
    python benchmarks/compiled.py --measure step         only the steps' times
    python benchmarks/compiled.py --markdown             the tables as README shows them
    python benchmarks/compiled.py --json                 every figure, for programs

A step is zero_grad, forward, loss, backward, optimizer step. All contenders train from the same
weights on the same batches, and before one is timed its losses over 20 steps must agree with
PyTorch's. Then they run in turn, one short slice each a round, in an order that rotates, while the
others' processes wait; tables show medians. With one thread every process is held on the same core.
A slice during which another program had the core is repeated, for whoever it happens to.

A family (PyTorch: default and fused optimisers) shows its fastest member. Losing rows say so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER / "peers")]

from eager import LOSS_TOLERANCE, STEPS_COMPARED, duration, table
from process import CONTENDERS, OURS, Contender, Failed, Process
from workloads import COMPILED_WORKLOADS

SLICE = 0.05  # seconds of work in one round
SPENT = 60.0  # about how many seconds the slices of one workload may take; at least 7 rounds
PAUSE = 0.01  # between slices, so that threads that spin after work have gone to sleep
DISTURBED = 0.95  # share of the clock's time on the processor below which a slice is repeated
MEASURES = ("first", "step", "forward", "call")
PEERS = ("NumPy", "PyTorch", "torch.compile", "JAX", "tinygrad")
FAMILIES = (*PEERS, *OURS)

# What we ask of ourselves: our step's time over the best peer's, our first step's over theirs.
STEP_BARS = {
    "xor": 0.15, "digits": 0.25, "deep50": 0.40, "mlp330k": 0.80, "mlp330k-512": 0.92, "wide": 0.95,
}
FIRST_BARS = {"JAX": 1.0, "torch.compile": 0.1}

Figures = dict[str, Any]


def cores_for(threads: int) -> set[int] | None:
    """The cores a contender may use: as many as threads, the last ones; None where unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return set(sorted(os.sched_getaffinity(0))[-threads:])


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def cache_folder(folder: Path, contender: Contender, turn: int) -> Path:
    return folder / f"{contender.name}-{turn}".replace(" ", "-")


# ---- first steps -------------------------------------------------------------------------------

def first_step(
    contender: Contender, workload: str, threads: int, caches: Path
) -> tuple[float, float, dict[str, int]]:
    """Seconds of the first step and of the import in a fresh process; bytes it came to hold."""
    with Process(contender, workload, threads, cores_for(threads), caches) as process:
        process.start()
        found = process.ask("first")
        process.ask("run", what="step", count=STEPS_COMPARED)
        return found["seconds"], found["import"], process.ask("memory")


def measure_first(
    contenders: list[Contender], workload: str, threads: int, folder: Path, repeats: int
) -> Figures:
    """Cold and warm first steps, in turn; a slow contender is not asked again after 20 seconds."""
    found: Figures = {}
    spent = dict.fromkeys((contender.name for contender in contenders), 0.0)
    for turn in range(repeats):
        for contender in contenders:
            of = found.setdefault(contender.name, {"cold": [], "warm": [], "import": []})
            if "failed" in of or spent[contender.name] > 20:
                continue
            begun = time.perf_counter()
            caches = cache_folder(folder, contender, turn)
            try:
                for which in ("cold", "warm"):
                    seconds, imported, held = first_step(contender, workload, threads, caches)
                    of[which].append(seconds)
                    of["import"].append(imported)
                    if which == "cold":
                        of["peak"] = held["peak"] - held["imported"]
                        of["held"] = held["now"] - held["imported"]
            except Failed as reason:
                of["failed"] = str(reason)
                note(f"{workload}: {contender.name}: {reason}")
            spent[contender.name] += time.perf_counter() - begun
    for of in found.values():
        for which in ("cold", "warm", "import"):
            of[which] = statistics.median(of[which]) if of[which] else None
    return found


# ---- steps and forward passes ------------------------------------------------------------------

def losses_agree(found: Figures, reference: list[float]) -> str | None:
    """None, or why the losses are not those of the reference; notes the difference."""
    losses, expected = np.array(found["losses"]), np.array(reference)
    difference = float(np.max(np.abs(losses - expected) / np.abs(expected)))
    found["difference"] = difference
    if difference <= LOSS_TOLERANCE:  # false also when it is NaN
        return None
    return f"its losses differ by {difference:.1e} (at most {LOSS_TOLERANCE:.0e} is allowed)"


def sample(process: Process, what: str, count: int, alone: bool) -> float:
    """Seconds of one call, from one slice; of up to four the one that was least disturbed."""
    before = max(1, count // 20) if count > 1 else 0
    best, share = 0.0, -1.0
    for _ in range(4):
        time.sleep(PAUSE)
        run = process.ask("run", what=what, count=count, before=before)
        on = run["processor"] / run["seconds"]
        if on > share:
            best, share = run["seconds"] / count, on
        if not alone or share >= DISTURBED:
            break
    return best


def measure_slices(running: dict[str, Process], what: str, rounds: int, threads: int) -> Figures:
    """Samples of each process, in seconds of one call; in each round each runs for one slice."""
    counts, once = {}, {}
    for name, process in running.items():
        process.ask("run", what=what, count=3)
        once[name] = process.ask("run", what=what, count=1)["seconds"]
        trial = max(1, int(SLICE / 4 / once[name]))
        once[name] = process.ask("run", what=what, count=trial)["seconds"] / trial
        counts[name] = max(1, int(SLICE / once[name]))
    fastest = min(once.values())
    samples: Figures = {name: [] for name in running}
    order = list(running)
    a_round = sum(counts[name] * once[name] for name in order)
    rounds = min(rounds, max(7, int(SPENT / a_round)))
    for turn in range(rounds):
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            if turn >= 5 and once[name] > max(10 * fastest, 0.5):
                continue  # it has lost, and the others would wait for it
            samples[name].append(sample(running[name], what, counts[name], threads == 1))
    return samples


def measure_steady(
    contenders: list[Contender], workload: str, options: argparse.Namespace, folder: Path
) -> Figures:
    """Losses, step times and forward times of each contender."""
    found: Figures = {contender.name: {} for contender in contenders}
    with ExitStack() as stack:
        running = {}
        for contender in contenders:
            of = found[contender.name]
            # What first steps left is used again, but not JAX's: by default it compiles anew.
            caches = None if contender.family == "JAX" else cache_folder(folder, contender, 0)
            process = stack.enter_context(
                Process(contender, workload, options.threads, cores_for(options.threads), caches)
            )
            try:
                process.start()
                of |= process.ask("losses", count=STEPS_COMPARED)
                running[contender.name] = process
            except Failed as reason:
                of["failed"] = str(reason)
        reference = "torch" if "torch" in running else "numpy"
        if reference not in running:
            raise SystemExit(f"no reference: {found['numpy']['failed']}")
        expected = found[reference]["losses"]
        for name in list(running):
            if complaint := losses_agree(found[name], expected):
                found[name]["failed"] = complaint
                running.pop(name)
        for what in ("step", "forward", "call"):
            timed = {
                name: process for name, process in running.items()
                if what != "call" or (found[name]["calls"] and workload == options.only[0])
            }
            if what in options.measure and timed:
                try:
                    samples = measure_slices(timed, what, options.rounds, options.threads)
                except Failed as reason:
                    # Its losses were right, so nobody expected it: no half of a table.
                    note(f"{workload}: {what} was not measured: {reason}")
                    break
                for name, values in samples.items():
                    found[name][what] = statistics.median(values)
                    found[name][f"{what} samples"] = values
    for name, of in found.items():
        if "failed" in of:
            note(f"{workload}: {name}: {of['failed']}")
    return found


# ---- output ------------------------------------------------------------------------------------

def family_best(figures: Figures, key: str) -> dict[str, tuple[float, str]]:
    """The smallest value of each family under `key`, and whose it is."""
    best: dict[str, tuple[float, str]] = {}
    for contender in CONTENDERS:
        value = figures.get(contender.name, {}).get(key)
        if value is not None and value < best.get(contender.family, (float("inf"), ""))[0]:
            best[contender.family] = value, contender.name
    return best


def best_peer(best: dict[str, tuple[float, str]]) -> tuple[float, str] | None:
    return min((best[family] for family in PEERS if family in best), default=None)


def against(ours: float, theirs: float, bar: float | None) -> str:
    """Our share of their time, and whether it is a loss or over the bar."""
    share = ours / theirs
    verdict = " SLOWER" if share > 1 else ""
    if bar is not None and share > bar:
        verdict += f" (bar {bar:.2f})"
    return f"{share:.2f}{verdict}"


def time_rows(result: Figures, key: str, bars: dict[str, float]) -> list[list[str]]:
    rows = []
    for workload, figures in result.items():
        best = family_best(figures, key)
        row = [workload, *(duration(best[f][0]) if f in best else "-" for f in FAMILIES)]
        peer = best_peer(best)
        row.append(peer[1] if peer else "-")
        row.append(
            against(best["compiled"][0], peer[0], bars.get(workload))
            if peer and "compiled" in best else "-"
        )
        if key == "forward":
            step, ours = figures.get("compiled", {}).get("step"), best.get("compiled")
            row.append(f"{step / ours[0]:.2f}" if step and ours else "-")
        rows.append(row)
    return rows


def first_rows(result: Figures, key: str) -> list[list[str]]:
    rows = []
    for workload, figures in result.items():
        best = family_best(figures, key)
        row = [workload, *(f"{best[f][0]:.3f} s" if f in best else "-" for f in FAMILIES)]
        for rival, bar in FIRST_BARS.items():
            both = rival in best and "compiled" in best
            row.append(against(best["compiled"][0], best[rival][0], bar) if both else "-")
        rows.append(row)
    return rows


def memory_rows(result: Figures) -> list[list[str]]:
    rows = []
    for workload, figures in result.items():
        best = family_best(figures, "peak")
        row = [workload, *(f"{best[f][0] / 2**20:.1f} MiB" if f in best else "-" for f in FAMILIES)]
        peer = best_peer(best)
        row.append(
            against(best["compiled"][0], peer[0], None) if peer and "compiled" in best else "-"
        )
        rows.append(row)
    return rows


def report(document: Figures, markdown: bool) -> str:
    """Every table, each under a line that says what it is, and why a place is empty."""
    heading = "\n### {}\n\n" if markdown else "\n{}\n"
    steady, first = document.get("steady", {}), document.get("first", {})
    threads = f"{document['threads']} thread" + "s" * (document["threads"] > 1)
    shown = ["", *PEERS, "chainrule eager", "compiled"]
    parts = []

    def add(title: str, head: list[str], rows: list[list[str]]) -> None:
        rows = [row for row in rows if set(row[1:]) != {"-"}]
        keep = [i for i in range(len(head)) if i == 0 or any(row[i] != "-" for row in rows)]
        parts.extend([
            heading.format(title),
            table([head[i] for i in keep], [[row[i] for i in keep] for row in rows], markdown),
            "",
        ])

    def measured(key: str) -> bool:
        return any(key in of for figures in steady.values() for of in figures.values())

    if measured("step"):
        add(f"One training step, {threads}", [*shown, "best peer", "compiled ÷ best"],
            time_rows(steady, "step", STEP_BARS))
    if measured("forward"):
        add(f"One forward pass without recording, {threads}",
            [*shown, "best peer", "compiled ÷ best", "compiled step ÷ forward"],
            time_rows(steady, "forward", {}))
    if measured("call"):
        add(f"One call of a compiled function that returns its argument, {threads}",
            [*shown, "best peer", "compiled ÷ best"], time_rows(steady, "call", {}))
    if first:
        head = [*shown, *(f"compiled ÷ {rival}" for rival in FIRST_BARS)]
        add(f"First step after the import, nothing cached, {threads}", head,
            first_rows(first, "cold"))
        add(f"First step after the import, machine code cached, {threads}", head,
            first_rows(first, "warm"))
        add("Most memory held in the first 21 steps, beyond the import and the data",
            [*shown, "compiled ÷ best"], memory_rows(first))
    reasons = {
        f"{contender.name} in {workload}: {figures[contender.name]['failed']}": None
        for part in (steady, first)
        for workload, figures in part.items()
        for contender in CONTENDERS
        if "failed" in figures.get(contender.name, {})
    }
    parts += [f"- {reason}" for reason in reasons]
    return "\n".join(parts).replace("\n\n\n", "\n\n").strip("\n")


def chosen_contenders(wanted: list[str] | None) -> list[Contender]:
    """Those of the families or names in `wanted`, and always NumPy, the reference without torch."""
    if wanted is None:
        return list(CONTENDERS)
    known = {c.name for c in CONTENDERS} | {c.family for c in CONTENDERS}
    if unknown := sorted(set(wanted) - known):
        raise SystemExit(f"no contender is called {unknown[0]!r}; there are: {sorted(known)}")
    return [
        c for c in CONTENDERS
        if c.name in wanted or c.family in wanted or c.name in ("compiled", "numpy")
    ]


def measure(document: Figures, contenders: list[Contender], options: argparse.Namespace) -> None:
    """Adds to the document, workload by workload."""
    for workload in options.only:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if "first" in options.measure:
                note(f"{workload}: first steps")
                document.setdefault("first", {})[workload] = measure_first(
                    contenders, workload, options.threads, folder, options.first
                )
            if set(options.measure) != {"first"}:
                note(f"{workload}: steps")
                document.setdefault("steady", {})[workload] = measure_steady(
                    contenders, workload, options, folder
                )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    names = [workload.name for workload in COMPILED_WORKLOADS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="workloads")
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of each (1)")
    parser.add_argument("--rounds", type=int, default=31, help="rounds of each timing (31)")
    parser.add_argument("--first", type=int, default=5, help="fresh processes for first steps (5)")
    parser.add_argument("--peers", nargs="+", help="families or names, besides ours and NumPy")
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--markdown", action="store_true", help="tables for README.md")
    parser.add_argument("--json", action="store_true", help="every figure, for programs")
    options = parser.parse_args(arguments)

    contenders = chosen_contenders(options.peers)
    document: Figures = {"threads": options.threads, "load before": os.getloadavg()[0]}
    try:
        measure(document, contenders, options)
    except KeyboardInterrupt:
        note("interrupted; what was measured:")
    print(json.dumps(document, indent=1) if options.json else report(document, options.markdown))
    wrong = [
        of for figures in document.get("steady", {}).values() for of in figures.values()
        if of.get("difference", 0.0) > LOSS_TOLERANCE
    ]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
