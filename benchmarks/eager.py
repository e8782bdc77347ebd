"""The eager training step against PyTorch's, on one thread of this machine.

    python benchmarks/eager.py                    every table
    python benchmarks/eager.py --only xor         one workload
    python benchmarks/eager.py --markdown         the tables as README shows them
    python benchmarks/eager.py --json             the same, for programs

Before anything is timed, both libraries and a step written by hand in NumPy train from the same
weights on the same batches for 20 steps, and their losses must agree. Then short runs of each
alternate in one process, so that a busy neighbour disturbs all of them alike; the table shows
medians. A step is zero_grad, forward, loss, backward, optimizer step, as a user writes it.
"""

import os

# Before NumPy and PyTorch load.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from footprint import import_times, install_sizes
from workloads import WORKLOADS, Workload, build, forward, numpy_training_step, training_step

STEPS_COMPARED = 20
LOSS_TOLERANCE = 2e-4  # relative, float32, after up to 20 updates

Job = Callable[[], object]


class LossesDiffer(Exception):
    """Two sides of the comparison do not compute the same thing, so timing them says nothing."""


def contenders(workload: Workload, library: Any, torch: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Each side's (training step, forward pass, converter from NumPy), from the same weights."""
    torch.manual_seed(0)
    reference = build(torch, workload)
    weights = {name: value.numpy().copy() for name, value in reference.state_dict().items()}

    def side(lib: Any, **extra: Any) -> tuple[Any, Any, Any]:
        model = build(lib, workload)
        model.load_state_dict({name: lib.tensor(value) for name, value in weights.items()})
        for name, value in model.state_dict().items():  # and back: nothing was lost on the way
            if not np.array_equal(value.numpy(), weights[name]):
                raise LossesDiffer(f"{workload.name}: {name} changed on its way through {lib}")
        return training_step(lib, workload, model, **extra), forward(lib, model), lib.tensor

    by_hand = numpy_training_step(workload, [value.copy() for value in weights.values()])
    sides = {
        "numpy": (*by_hand, np.asarray),
        "chainrule": side(library),
        "torch": side(torch),
    }
    if workload.optimizer == "Adam":
        sides["torch fused"] = side(torch, fused=True)
    return sides


def compare_losses(workload: Workload, library: Any, torch: Any) -> dict[str, float]:
    """The largest relative difference of each side's losses from PyTorch's, over 20 steps."""
    batches = workload.batches()
    losses = {}
    for name, (step, _, convert) in contenders(workload, library, torch).items():
        data = [(convert(x), convert(y)) for x, y in batches]
        losses[name] = np.array(
            [step(*data[i % len(data)]).item() for i in range(STEPS_COMPARED)]
        )
    differences = {
        name: float(np.max(np.abs(values - losses["torch"]) / np.abs(losses["torch"])))
        for name, values in losses.items()
        if name != "torch"
    }
    for name, difference in differences.items():
        if not difference <= LOSS_TOLERANCE:  # also when it is NaN
            raise LossesDiffer(
                f"{workload.name}: the losses of {name} differ from PyTorch's by {difference:.1e}"
                f" (relative; at most {LOSS_TOLERANCE:.0e} is allowed).\n"
                f"{name}: {losses[name]}\ntorch: {losses['torch']}"
            )
    return differences


def interleaved(jobs: dict[str, Job], rounds: int, slice_seconds: float) -> dict[str, float]:
    """The median seconds of one call of each job; in each round each job runs for one slice."""
    repeats = {}
    for name, job in jobs.items():
        for _ in range(3):
            job()
        begun = time.perf_counter()
        job()
        once = time.perf_counter() - begun
        repeats[name] = max(1, int(slice_seconds / once))
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    order = list(jobs)
    for turn in range(rounds):
        first = turn % len(order)  # nobody always runs in the wake of the same neighbour
        for name in order[first:] + order[:first]:
            job, count = jobs[name], range(repeats[name])
            begun = time.perf_counter()
            for _ in count:
                job()
            samples[name].append((time.perf_counter() - begun) / len(count))
    return {name: statistics.median(values) for name, values in samples.items()}


def time_workload(
    workload: Workload, library: Any, torch: Any, rounds: int, only_forward: bool
) -> dict[str, float]:
    """Seconds of one step (or one forward pass) of each side."""

    def job(call: Any, convert: Any) -> Job:
        data = [(convert(x), convert(y)) for x, y in workload.batches()]
        turn = 0

        def once() -> None:
            nonlocal turn
            turn = (turn + 1) % len(data)
            call(*data[turn])

        return once

    sides = contenders(workload, library, torch)
    if only_forward:
        sides.pop("torch fused", None)
    which = 1 if only_forward else 0
    jobs = {name: job(side[which], side[2]) for name, side in sides.items()}
    return interleaved(jobs, rounds, slice_seconds=0.03)


def time_operations(library: Any, torch: Any, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of one recorded `a + b` and `a + 1.0` of 4x16 tensors, beside NumPy's bare add."""
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((4, 16), dtype=np.float32) for _ in range(2))

    def adds(lib: Any) -> tuple[Job, Job]:
        if lib is np:
            a, b = x, y
        else:
            a, b = (lib.tensor(value).requires_grad_() for value in (x, y))
        return lambda: a + b, lambda: a + 1.0

    both = {"numpy": adds(np), "chainrule": adds(library), "torch": adds(torch)}
    return {
        what: interleaved({name: jobs[i] for name, jobs in both.items()}, rounds, 0.01)
        for i, what in enumerate(("a + b", "a + 1.0"))
    }


# ---- output ------------------------------------------------------------------------------------

def table(head: list[str], rows: list[list[str]], markdown: bool) -> str:
    """The rows under their head; numbers to the right."""
    if markdown:
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, ["-" * width for width in widths], *rows]
    )


def ratio(ours: float, theirs: float) -> str:
    """How many times faster we are; a row that loses says so."""
    times = theirs / ours
    return f"{times:.2f}x" + ("" if times >= 1 else " SLOWER")


def duration(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds >= 1e-4 else f"{seconds * 1e6:.1f} µs"


def time_rows(measured: dict[str, dict[str, float]]) -> list[list[str]]:
    rows = []
    for what, times in measured.items():
        ours = times["chainrule"]
        rows += [
            [
                what if rival == "torch" else f"{what}, fused Adam",
                duration(times["numpy"]),
                duration(ours),
                duration(times[rival]),
                ratio(ours, times[rival]),
                f"{ours / times['numpy']:.2f}x",
            ]
            for rival in ("torch", "torch fused")
            if rival in times
        ]
    return rows


def report(result: dict[str, Any], markdown: bool) -> str:
    """Every table of `result`, each under a line that says what it is."""
    heading = "\n### {}\n\n" if markdown else "\n{}\n"
    head = ["", "by hand in NumPy", "chainrule", "PyTorch", "against PyTorch", "over NumPy"]
    parts = []
    if "losses" in result:
        rows = [
            [workload, *(f"{differences.get(name, 0):.1e}" if name in differences else "-"
                         for name in ("numpy", "chainrule", "torch fused"))]
            for workload, differences in result["losses"].items()
        ]
        parts += [
            heading.format(f"Losses over {STEPS_COMPARED} steps: largest relative difference"
                           " from PyTorch's"),
            table(["", "by hand in NumPy", "chainrule", "PyTorch, fused Adam"], rows, markdown),
        ]
    titles = {
        "step": "One training step, one thread",
        "forward": "One forward pass without recording, one thread",
        "operation": "One recorded operation on float32 tensors of 4x16",
    }
    for key, title in titles.items():
        if key in result:
            parts += [heading.format(title), table(head, time_rows(result[key]), markdown)]
    if "import" in result:
        rows = [[name, f"{seconds * 1e3:,.0f} ms"] for name, seconds in result["import"].items()]
        parts += [
            heading.format("Import, in a fresh process (median of 15)"),
            table(["", "time"], rows, markdown),
        ]
    if "install" in result:
        rows = [
            [name, f"{sizes['all'] / 2**20:,.1f} MiB", f"{sizes['without numpy'] / 2**20:,.1f} MiB"]
            for name, sizes in result["install"].items()
        ]
        parts += [
            heading.format("Installed, with all that it needs"),
            table(["", "with NumPy", "without NumPy"], rows, markdown),
        ]
    return "\n".join(parts).replace("\n\n\n", "\n\n").strip("\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=31, help="rounds of each timing (31)")
    parser.add_argument("--only", choices=[w.name for w in WORKLOADS], help="one workload")
    parser.add_argument("--library", default="chainrule", help="torch checks the benchmark itself")
    parser.add_argument("--markdown", action="store_true", help="tables for README.md")
    parser.add_argument("--json", action="store_true", help="seconds and bytes, for programs")
    options = parser.parse_args(arguments)

    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    library = importlib.import_module(options.library)
    chosen = [w for w in WORKLOADS if options.only in (None, w.name)]

    result: dict[str, Any] = {
        "losses": {w.name: compare_losses(w, library, torch) for w in chosen},
        "step": {w.name: time_workload(w, library, torch, options.rounds, False) for w in chosen},
        "forward": {w.name: time_workload(w, library, torch, options.rounds, True) for w in chosen},
    }
    if options.only is None:
        result["operation"] = time_operations(library, torch, options.rounds)
        result["import"] = import_times(options.library)
        result["install"] = install_sizes(options.library)
    print(json.dumps(result, indent=2) if options.json else report(result, options.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
