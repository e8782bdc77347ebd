"""One training step: forward, loss, backward, clipping, optimiser; by Python, then compiled.

Compiling costs as much as some hundred steps by Python. So a batch size is compiled if the whole
run is to have `WORTH` batches of it, after the first `BEFORE` of them. The smaller last batch,
which comes once in an epoch, is a size of its own. Both are counted from the beginning of the run,
resumed or not: which steps are compiled decides their rounding, and a resumed run is to repeat an
uninterrupted one bit by bit.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

import chainrule as cr
from chainrule import nn
from chainrule.core.config import settings
from chainrule.core.errors import BuildError, MissingPackageError

Array = npt.NDArray[Any]

WORTH = 500  # a small network gains on so many what compiling costs when nothing is cached
BEFORE = 10  # their time is what the compiled ones are compared with
TIMED = 1000  # the latest steps of each way, whose median is shown

# What makes compiling impossible on a machine, whatever is compiled.
UNABLE = (MissingPackageError, BuildError, OSError)


class Outcome(NamedTuple):
    """Of one step: mean loss, outputs (rows, outputs), norm of each parameter's gradient."""

    loss: float
    outputs: Array
    norms: list[float]


def worth_compiling(came: int, coming: int) -> bool:
    """For a batch of a size that came so often before, and is to come so often in the whole run."""
    return coming >= WORTH and came >= BEFORE


@dataclass(frozen=True)
class Cost:
    """What compiling cost and what it brought in this session; all times in seconds.

    `mode` is how compiled steps run: 'native' as machine code, 'numpy' row by row, 'off' not at
    all; `reason` says why not. `cached` is whether the machine code was there from an earlier run.
    `python_step` and `compiled_step` are typical times of one, None if no step ran that way.
    """

    mode: str
    reason: str | None
    sizes: int
    seconds: float
    cached: bool
    python_steps: int
    python_step: float | None
    compiled_steps: int
    compiled_step: float | None


class Stepper:
    """Makes the steps of a run, and keeps what they cost.

    With `eager` all are made by Python. `parameters` are those whose gradient norms are measured,
    before `clip`, the largest norm of all together, if it is not None.
    """

    def __init__(self, model: Any, loss_function: Any, optimizer: Any, parameters: list[Any],
                 clip: float | None, eager: bool) -> None:
        def step(x: Any, y: Any) -> tuple[Any, Any, list[Any]]:
            optimizer.zero_grad()
            outputs = model(x)
            loss = loss_function(outputs, y)
            loss.backward()
            squares = [(p.grad * p.grad).sum() for p in parameters]
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            return loss.detach(), outputs.detach(), squares

        self._by_python = step
        self._compiled = cr.compile(step)
        self._mode = "off" if eager else settings.compile
        self._reason = None
        if self._mode == "off":
            self._reason = "--eager was given" if eager else "CHAINRULE_COMPILE is off"
        self._seconds = 0.0
        self._hits = self._misses = 0  # of the cache of machine code, while compiling
        self._steps = {False: 0, True: 0}
        self._times: dict[bool, deque[float]] = {
            False: deque(maxlen=TIMED), True: deque(maxlen=TIMED)}

    def __call__(self, x: Any, y: Any, seed: int, compiled: bool) -> Outcome:
        """One step on inputs and targets, with random numbers from `seed`; `compiled` if it can."""
        if compiled and self._mode != "off":
            try:
                return self._run(x, y, seed, True)
            except UNABLE as error:
                self._mode, self._reason = "off", str(error).partition("\n")[0]
        return self._run(x, y, seed, False)

    def _run(self, x: Any, y: Any, seed: int, compiled: bool) -> Outcome:
        cr.manual_seed(seed)  # for dropout
        step: Any = self._compiled if compiled else self._by_python
        known, cache = len(self._compiled.compiles), _cache_counts()
        begun = time.perf_counter()
        loss, outputs, squares = step(x, y)
        taken = time.perf_counter() - begun
        if len(self._compiled.compiles) > known:
            self._seconds += taken
            self._hits += _cache_counts()[0] - cache[0]
            self._misses += _cache_counts()[1] - cache[1]
        else:
            self._steps[compiled] += 1
            self._times[compiled].append(taken)
        norms = [math.sqrt(square.item()) for square in squares]
        return Outcome(loss.item(), outputs.numpy(), norms)

    @property
    def cost(self) -> Cost:
        """What it cost so far."""
        return Cost(
            mode=self._mode,
            reason=self._reason,
            sizes=len(self._compiled.compiles),
            seconds=self._seconds,
            cached=self._hits > 0 and self._misses == 0,
            python_steps=self._steps[False],
            python_step=_typical(self._times[False]),
            compiled_steps=self._steps[True],
            compiled_step=_typical(self._times[True]),
        )


def _typical(times: deque[float]) -> float | None:
    return statistics.median(times) if times else None


def _cache_counts() -> tuple[int, int]:
    """(hits, misses) of the cache of machine code. It is imported by the first compilation."""
    cache: Any = sys.modules.get("chainrule.compiler.machine.cache")
    return (cache.report.hits, cache.report.misses) if cache else (0, 0)
