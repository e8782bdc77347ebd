"""C2: a step ÷ a forward pass, from a thousand to ten million parameters, eager and compiled."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from chainrule.autograd import no_grad
from chainrule.core.config import settings
from chainrule.core.errors import ChainruleError
from chainrule.jit import compile  # noqa: A004
from chainrule.optim import SGD

from .problem import Problem, dense_problem, left_as_it_was

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
INPUTS, OUTPUTS = 64, 10
RATE = 1e-4
FEWEST, MOST = 4, 400


@dataclass(frozen=True)
class Ratio:
    """One size of network; seconds, the fastest of several rounds.

    Compiled times are None where nothing was compiled.

    forward, backward, step   in Python: recorded forward pass, backward(), and all of a step
    compiled_forward          the same loss compiled, without a gradient
    compiled_step             zero_grad, forward, backward and SGD compiled as one
    """

    parameters: int
    forward: float
    backward: float
    step: float
    compiled_forward: float | None = None
    compiled_step: float | None = None


def measure_ratio(parameters: int, batch: int, budget: float) -> Ratio:
    """Forward, backward and whole step of a network 64-h-h-10 with about so many parameters."""
    linear = INPUTS + OUTPUTS + 1                 # h² + 75 h + 10 parameters
    hidden = max(1, round((-linear + (linear**2 + 4 * (parameters - OUTPUTS)) ** 0.5) / 2))
    return measure_step(dense_problem((INPUTS, hidden, hidden, OUTPUTS), batch), budget)


def measure_step(problem: Problem, budget: float) -> Ratio:
    """The same of any network. Its parameters are put back."""
    with left_as_it_was(problem):
        optimizer = SGD(problem.parameters, lr=RATE)
        rows: list[tuple[float, ...]] = []
        began = time.perf_counter()
        while len(rows) < FEWEST or (time.perf_counter() - began < budget and len(rows) < MOST):
            times = [time.perf_counter()]
            optimizer.zero_grad()
            times.append(time.perf_counter())
            result = problem.loss()
            times.append(time.perf_counter())
            result.backward()
            times.append(time.perf_counter())
            optimizer.step()
            times.append(time.perf_counter())
            rows.append((times[2] - times[1], times[3] - times[2], times[4] - times[0]))
        forward, backward, step = map(min, zip(*rows[1:], strict=True))
        compiled = compiled_times(problem, optimizer, budget)
    return Ratio(problem.size, forward, backward, step, *compiled)


def compiled_times(problem: Problem, optimizer: Any, budget: float) -> tuple[float | None, ...]:
    """Seconds of the compiled forward pass and the compiled step; None where it stayed Python."""
    def forward() -> Any:
        with no_grad():
            return problem.loss()

    def step() -> Any:
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward()
        optimizer.step()
        return loss

    functions = [compile(forward), compile(step)]
    if settings.compile != "native":
        return (None, None)
    try:
        for function in functions * 2:          # the first call compiles, the second warms up
            function()
    except ChainruleError:      # a loss that reads its own numbers, say: Python alone can run it
        return (None, None)
    rows: list[tuple[float, ...]] = []
    began = time.perf_counter()
    # in turn, so that what else the machine does meets both alike
    while len(rows) < FEWEST or (time.perf_counter() - began < budget and len(rows) < MOST):
        times = [time.perf_counter()]
        for function in functions:
            function()
            times.append(time.perf_counter())
        rows.append((times[1] - times[0], times[2] - times[1]))
    return tuple(map(min, zip(*rows, strict=True)))
