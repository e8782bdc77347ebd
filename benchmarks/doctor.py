"""What the doctor costs while it watches: steps watched over steps unwatched, eager and compiled.

    python benchmarks/doctor.py                  digits and mlp330k
    python benchmarks/doctor.py --only wide      other workloads
    python benchmarks/doctor.py --markdown

Watched and unwatched stretches of the same training take turns, so that a busy neighbour disturbs
both alike; the table shows medians of the ratios. The first 12 steps of a watch, which are all
looked at closely, are not part of a stretch: they cost what they cost once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from eager import duration, table
from workloads import COMPILED_WORKLOADS, Workload, build, training_step

import chainrule as cr

BEFORE = 500              # steps of a watch before its stretch, past those of the beginning
BARS = {"eager": 1.10, "compiled": 1.02}


def stretch(step: Callable[[Any, Any], Any], batches: list[Any], count: int) -> float:
    begun = time.perf_counter()
    for i in range(count):
        step(*batches[i % len(batches)])
    return (time.perf_counter() - begun) / count


def measure(workload: Workload, compiled: bool, rounds: int, seconds: float) -> list[str]:
    """A row: unwatched time and median ratio."""
    model = build(cr, workload)
    step = training_step(cr, workload, model)
    if compiled:
        step = cr.compile(step)
    batches = [(cr.tensor(x), cr.tensor(y)) for x, y in workload.batches()]
    stretch(step, batches, 20)
    count = max(20, int(seconds / stretch(step, batches, 20)))
    plain, ratios = [], []
    for _ in range(rounds):
        plain.append(stretch(step, batches, count))
        with cr.doctor.watch(model, warn=False):
            stretch(step, batches, BEFORE)
            ratios.append(stretch(step, batches, count) / plain[-1])
    kind = "compiled" if compiled else "eager"
    ratio = statistics.median(ratios)
    late = "" if ratio <= BARS[kind] else f" (bar {BARS[kind]:.2f})"
    return [f"{workload.name}, {kind}", duration(statistics.median(plain)), f"{ratio:.3f}{late}",
            f"{min(ratios):.2f} … {max(ratios):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [workload.name for workload in COMPILED_WORKLOADS]
    parser.add_argument("--only", nargs="+", choices=names, default=["digits", "mlp330k"])
    parser.add_argument("--rounds", type=int, default=11, help="of each (11)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a stretch (1)")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    cr.set_num_threads(1)
    rows = [measure(workload, compiled, options.rounds, options.seconds)
            for workload in COMPILED_WORKLOADS if workload.name in options.only
            for compiled in (False, True)]
    print(table(["", "a step", "watched ÷ unwatched", "least … most"], rows, options.markdown))


if __name__ == "__main__":
    main()
