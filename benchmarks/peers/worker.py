"""One contender in a process of its own, told over a pipe what to run.

    python benchmarks/peers/worker.py '{"module": "numpy_peer", "library": "numpy", ...}'

So no library's threads, allocator or settings disturb another's. It reads one JSON object a line
and answers each with one; what libraries print goes to the standard error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peer import Peer, Unavailable
from workloads import COMPILED_WORKLOADS


def memory() -> dict[str, int]:
    """Bytes this process holds now, and the most it ever held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: only the peak is known, and macOS counts it in bytes
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"now": peak, "peak": peak}
    # The peak of getrusage would begin with that of the process that started this one.
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "now": int(values["VmRSS"].split()[0]) * 1024,
        "peak": int(values["VmHWM"].split()[0]) * 1024,
    }


def forget_peak() -> None:
    """Lets the peak begin again from what is held now, where the kernel allows it."""
    with suppress(OSError):  # the peak then includes the import's
        Path("/proc/self/clear_refs").write_text("5")


class Worker:
    """What the commands act on."""

    def __init__(self, job: dict[str, Any]) -> None:
        if job["cores"]:
            os.sched_setaffinity(0, job["cores"])
        self.job = job
        self.workload = next(w for w in COMPILED_WORKLOADS if w.name == job["workload"])
        self.weights, self.batches = self.workload.weights(), self.workload.batches()
        begun = time.perf_counter()
        import_module(job["library"])
        self.import_seconds = time.perf_counter() - begun
        forget_peak()
        self.imported = memory()["now"]
        self.peer: Peer | None = None

    def ready(self) -> Peer:
        if self.peer is None:
            make: Callable[..., Peer] = import_module(self.job["module"]).make
            self.peer = make(
                self.workload, self.weights, self.batches, self.job["threads"],
                **self.job["options"],
            )
        return self.peer

    def first(self) -> dict[str, Any]:
        """From after the import to the end of the first step: building, compiling, one step."""
        begun = time.perf_counter()
        peer = self.ready()
        loss = peer.step(*peer.batches[0])
        peer.wait(loss)
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "import": self.import_seconds, "loss": peer.number(loss)}

    def losses(self, count: int) -> dict[str, Any]:
        peer = self.ready()
        batches = islice(cycle(peer.batches), count)
        losses = [peer.number(peer.step(x, y)) for x, y in batches]
        return {"losses": losses, "calls": peer.call is not None}

    def run(self, what: str, count: int, before: int = 0) -> dict[str, Any]:
        """Seconds by the clock and of the processor for `count` calls, after `before` others."""
        peer = self.ready()
        call = {"step": peer.step, "forward": peer.forward, "call": peer.call}[what]
        assert call is not None
        result = None
        for x, y in islice(cycle(peer.batches), before):
            result = call(x, y)
        peer.wait(result)
        batches = islice(cycle(peer.batches), count)
        used, begun = time.process_time(), time.perf_counter()
        for x, y in batches:
            result = call(x, y)
        peer.wait(result)
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "processor": time.process_time() - used}

    def memory(self) -> dict[str, Any]:
        return {"imported": self.imported, **memory()}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        worker = Worker(json.loads(sys.argv[1]))
        answer(ready=True)
        commands: dict[str, Callable[..., dict[str, Any]]] = {
            "first": worker.first, "losses": worker.losses, "run": worker.run,
            "memory": worker.memory,
        }
        for line in sys.stdin:
            command = json.loads(line)
            answer(**commands[command.pop("do")](**command))
    except (Unavailable, ImportError) as reason:
        answer(unavailable=str(reason))


if __name__ == "__main__":
    main()
