"""C1: what one gradient costs by differences, by forward mode and by backpropagation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from chainrule.autodiff.forward import keeping_everything, push
from chainrule.autograd import no_grad
from chainrule.core.node import wrote
from chainrule.core.record import new

from .problem import Problem

STEPS = {"float16": 1e-1, "float32": 1e-2, "float64": 1e-6}      # of the differences
ROUNDS = 15
LEAST = 3                 # rounds, however long they take


@dataclass(frozen=True)
class Passes:
    """Counts, and seconds; `one_pass`, `push`, `forward` and `backward` are the fastest of several.

    Other work on the machine only ever adds to a time, so the fastest says most about the program
    (as Python's timeit advises).

    sampled      parameters that were differentiated by differences and by forward mode
    one_pass     a forward pass without recording, as differences need it
    push         pushing one tangent through a recorded forward pass
    worst        largest error of a difference, as a share of the largest gradient
    worst_push   the same for forward mode
    """

    weights: int
    biases: int
    sampled: int
    one_pass: float
    sample: float
    push: float
    forward: float
    backward: float
    step: float
    worst: float
    worst_push: float

    @property
    def parameters(self) -> int:
        return self.weights + self.biases

    @property
    def one_sided(self) -> int:
        """Forward passes of one-sided differences: one for each parameter and one in the middle."""
        return self.parameters + 1

    @property
    def central(self) -> int:
        return 2 * self.parameters

    @property
    def seconds(self) -> dict[str, float]:
        """One whole gradient by each way; all but backpropagation extrapolated from the sample."""
        return {"one side": self.one_sided * self.one_pass,
                "both sides": self.central * self.one_pass,
                "forward mode": self.forward + self.parameters * self.push,
                "backpropagation": self.forward + self.backward}


def measure_passes(problem: Problem, samples: int, budget: float = 3.0) -> Passes:
    """Differentiate single parameters by differences and by tangents, and all by backward().

    Parameters are drawn at random, at most `samples`, and fewer where `budget` seconds are over.
    """
    parameters = list(problem.parameters)
    forward, backward = forward_and_backward(problem, ROUNDS, budget / 3)
    problem.zero_grad()
    problem.loss().backward()
    gradients = [np.asarray(p.grad._value) for p in parameters]
    sizes = [p.numel() for p in parameters]
    rng = np.random.default_rng(1)
    chosen = rng.choice(sum(sizes), size=min(samples, sum(sizes)), replace=False)
    starts = np.cumsum([0, *sizes])
    scale = max(float(np.abs(g).max(initial=0.0)) for g in gradients) or 1.0
    step = STEPS.get(problem.dtype.removeprefix("chainrule."), STEPS["float32"])
    with keeping_everything():
        recorded = problem.loss()
    places = [located(starts, place) for place in chosen]
    exact = [float(gradients[which].reshape(-1)[at]) for which, at in places]
    with no_grad():
        found, times = timed([partial(central_difference, problem.loss, parameters[which]._value,
                                      at, step) for which, at in places], budget / 2)
    # apart from the differences: what fills the cache for one slows the other
    tangents, pushes = timed([partial(one_tangent, recorded, parameters, which, at)
                              for which, at in places], budget / 2)
    worst = max(abs(a - b) for a, b in zip(found, exact, strict=False))
    worst_push = max(abs(a - b) for a, b in zip(tangents, exact, strict=False))
    return Passes(
        sum(p.numel() for p in parameters if p.ndim > 1),
        sum(p.numel() for p in parameters if p.ndim <= 1),
        len(times), min(times) / 2, sum(times), min(pushes),
        forward, backward, step, worst / scale, worst_push / scale)


def located(starts: Any, place: int) -> tuple[int, int]:
    """Which parameter, and where in it, for a number counted through all of them."""
    which = int(np.searchsorted(starts, place, side="right")) - 1
    return which, int(place - starts[which])


def timed(works: Sequence[Callable[[], float]], budget: float) -> tuple[list[float], list[float]]:
    """What each gives and how long it takes, until the budget is over."""
    results: list[float] = []
    times: list[float] = []
    works[0]()                               # the first call of anything is slower
    began = time.perf_counter()
    for work in works:
        if len(times) >= LEAST and time.perf_counter() - began > budget:
            break
        begun = time.perf_counter()
        results.append(work())
        times.append(time.perf_counter() - begun)
    return results, times


def central_difference(loss: Callable[[], Any], value: Any, at: int, step: float) -> float:
    """(L(w + s) − L(w − s))/2s for one number of an array; two forward passes."""
    place = np.unravel_index(at, value.shape)
    kept = value[place]
    results = []
    for moved in (kept + value.dtype.type(step), kept - value.dtype.type(step)):
        value[place] = moved
        results.append(float(loss()._value))
    value[place] = kept
    wrote(value, "a finite difference")
    return (results[0] - results[1]) / (2 * step)


def one_tangent(recorded: Any, parameters: Sequence[Any], which: int, at: int) -> float:
    """∂L/∂w of one parameter by forward mode: the tangent that is 1 there, pushed to the loss."""
    p = parameters[which]
    tangent = np.zeros(p.shape, p.dtype)
    tangent.reshape(-1)[at] = 1
    with no_grad():
        (dot,) = push([recorded], [p], [new(tangent)], connected=False)
    return 0.0 if dot is None else float(np.asarray(getattr(dot, "_value", dot)))


def forward_and_backward(problem: Problem, rounds: int, budget: float) -> tuple[float, float]:
    """Seconds of a recorded forward pass and of backward(), the fastest of each."""
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(times) <= rounds:
        if len(times) > LEAST and time.perf_counter() - began > budget:
            break
        problem.zero_grad()
        begun = time.perf_counter()
        result = problem.loss()
        between = time.perf_counter()
        result.backward()
        times.append((between - begun, time.perf_counter() - between))
    return min(t[0] for t in times[1:]), min(t[1] for t in times[1:])
