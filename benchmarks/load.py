"""Two threads while another process keeps one of the cores busy, against one thread.

    python benchmarks/load.py                        the compiled step and its peers
    python benchmarks/load.py --only wide            one workload
    python benchmarks/load.py --peers compiled JAX   some of them
    python benchmarks/load.py --json                 every figure, for programs

A pool that waits for a thread whose core is taken waits for the scheduler's whole slice, in each
parallel region of the step. Every contender runs with one and with two threads, on the same two
cores, beside nothing and beside a process that computes on one of these cores; the four take turns,
and the table shows medians.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER / "peers")]

from eager import duration, table
from process import CONTENDERS, Contender, Failed, Process
from workloads import COMPILED_WORKLOADS

SLICE = 0.2  # seconds at one thread's pace: many turns of the scheduler
PAUSE = 0.05
SPEED_UP = 1.7  # two threads against one, beside nothing; what we ask of ourselves
UNDER_LOAD = 1.3  # two threads beside a busy process over one thread beside nothing, at most

# Ends also when this process is killed: then another one becomes its parent.
BUSY = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10000):
        pass
"""


@contextmanager
def busy_process(core: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes on one core while it is not stopped; it begins stopped."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(core)])
    try:
        time.sleep(0.5)  # it has bound itself to its core by then
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait()


def measure(contender: Contender, workload: str, rounds: int, cores: set[int]) -> dict[str, Any]:
    """Median seconds of a step: "1 quiet", "1 busy", "2 quiet", "2 busy"."""
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        other = stack.enter_context(busy_process(max(cores)))
        processes = {}
        for threads in (1, 2):
            process = stack.enter_context(Process(contender, workload, threads, cores))
            process.start()
            process.ask("run", what="step", count=3)
            processes[threads] = process
        once = processes[1].ask("run", what="step", count=1)["seconds"]
        trial = max(1, int(SLICE / 8 / once))
        once = processes[1].ask("run", what="step", count=trial)["seconds"] / trial
        count = max(1, int(SLICE / once))
        for _ in range(rounds):
            for situation in ("quiet", "busy"):
                if situation == "busy":
                    other.send_signal(signal.SIGCONT)
                for threads, process in processes.items():
                    time.sleep(PAUSE)
                    seconds = process.ask("run", what="step", count=count)["seconds"]
                    samples.setdefault(f"{threads} {situation}", []).append(seconds / count)
                other.send_signal(signal.SIGSTOP)
    return {key: statistics.median(values) for key, values in samples.items()}


def report(result: dict[str, dict[str, Any]], markdown: bool) -> str:
    parts = []
    for workload, found in result.items():
        rows = []
        for name, times in found.items():
            if "failed" in times:
                rows.append([name, *["-"] * 5, times["failed"]])
                continue
            faster = times["1 quiet"] / times["2 quiet"]
            slower = times["2 busy"] / times["1 quiet"]
            remarks = []
            if name == "compiled" and faster < SPEED_UP:
                remarks.append(f"speed-up below {SPEED_UP}")
            if name == "compiled" and slower > UNDER_LOAD:
                remarks.append(f"under load above {UNDER_LOAD}")
            keys = ("1 quiet", "1 busy", "2 quiet", "2 busy")
            rows.append([
                name, *(duration(times[key]) for key in keys),
                f"{faster:.2f}x", f"{slower:.2f}x " + ", ".join(remarks),
            ])
        head = [workload, "1 thread", "1, one core taken", "2 threads", "2, one core taken",
                "speed-up of 2", "2, one core taken ÷ 1"]
        parts.append(table(head, rows, markdown))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    names = [workload.name for workload in COMPILED_WORKLOADS]
    known = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", nargs="+", choices=names,
                        default=["mlp330k", "mlp330k-512", "wide"], help="workloads")
    parser.add_argument("--peers", nargs="+", choices=known, help="contenders",
                        default=["compiled", "numpy", "torch fused", "torch.compile", "jax"])
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each (9)")
    parser.add_argument("--markdown", action="store_true", help="tables for README.md")
    parser.add_argument("--json", action="store_true", help="every figure, for programs")
    options = parser.parse_args(arguments)

    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("needs two cores, and a system that can bind a process to one of them")
    cores = set(sorted(os.sched_getaffinity(0))[-2:])
    result: dict[str, dict[str, Any]] = {}
    for workload in options.only:
        found = result.setdefault(workload, {})
        for contender in CONTENDERS:
            if contender.name not in options.peers:
                continue
            print(f"{workload}: {contender.name}", file=sys.stderr, flush=True)
            try:
                found[contender.name] = measure(contender, workload, options.rounds, cores)
            except Failed as reason:
                found[contender.name] = {"failed": str(reason)}
    print(json.dumps(result, indent=1) if options.json else report(result, options.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
