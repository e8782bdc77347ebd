"""C7: differences err by their step, backpropagation by rounding alone: the V-shaped curve.

The error of a difference has two parts: the curve bends within the step (error of order h on one
side, h² on both), and the subtraction cancels digits (error of order ε/h). Their sum is smallest
near h = √ε on one side and ∛ε on both (Nocedal & Wright, Numerical Optimization, 2006, section 8.1;
Press et al., Numerical Recipes, 2007, section 5.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.autograd import no_grad
from chainrule.core.node import wrote

from .problem import Problem

SPAN = {"float32": (-7.0, 0.0), "float64": (-14.0, 0.0)}      # powers of ten of the step
PER_POWER = 3
DIRECTIONS = 8

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Curves:
    """Relative errors of directional derivatives by relative step h, medians over directions.

    exact  the error of backpropagation itself, against backpropagation in float64; None where it
           is float64 itself, or where the network could not be copied to float64
    """

    dtype: str
    epsilon: float
    steps: tuple[float, ...]
    one_sided: tuple[float, ...]
    central: tuple[float, ...]
    exact: float | None

    @property
    def best(self) -> tuple[float, float]:
        """The steps with the smallest errors: one-sided, central."""
        return (self.steps[int(np.argmin(self.one_sided))],
                self.steps[int(np.argmin(self.central))])


def measure_steps(problem: Problem, seed: int = 0) -> tuple[Curves, ...]:
    """The curves in the problem's own dtype and, where it can be copied, in float64."""
    if problem.double is None or problem.dtype == "float64":
        return (curves_of(problem, gradients(problem), None, seed),)
    twin = problem.double()
    exact = gradients(twin)
    return (curves_of(problem, exact, gradients(problem), seed),
            curves_of(twin, exact, None, seed))


def gradients(problem: Problem) -> list[Array]:
    """∂L/∂p of every parameter by backpropagation."""
    problem.zero_grad()
    problem.loss().backward()
    return [np.asarray(p.grad._value) for p in problem.parameters]


def curves_of(problem: Problem, exact: Sequence[Array], own: Sequence[Array] | None,
              seed: int) -> Curves:
    """Errors against the `exact` gradients, of differences and of the network's `own` gradients.

    A direction d is as long as all parameters together, so that h is a share of them, as in the
    rules for the best step. The derivative along it is Σ ∂L/∂p · d; an error is divided by the
    largest that a direction of this length can have.
    """
    low, high = SPAN.get(problem.dtype, SPAN["float32"])
    steps = np.logspace(low, high, round((high - low) * PER_POWER) + 1)
    rng = np.random.default_rng(seed)
    kept = [p._value.copy() for p in problem.parameters]
    whole = length(kept) or 1.0
    most = whole * length(exact) or 1.0
    one_sided, central, rounding = [], [], []
    with no_grad():
        middle = float(problem.loss()._value)
        for _ in range(DIRECTIONS):
            direction = [rng.standard_normal(value.shape) for value in kept]
            stretch = whole / length(direction)
            direction = [d * stretch for d in direction]
            truth = along(exact, direction)
            sides = [[at(problem, kept, direction, sign * h) for sign in (1, -1)] for h in steps]
            one_sided.append([abs((up - middle) / h - truth) / most
                              for h, (up, _) in zip(steps, sides, strict=True)])
            central.append([abs((up - down) / (2 * h) - truth) / most
                            for h, (up, down) in zip(steps, sides, strict=True)])
            if own is not None:
                rounding.append(abs(along(own, direction) - truth) / most)
    put(problem, kept)
    return Curves(
        problem.dtype, float(np.finfo(kept[0].dtype).eps), tuple(map(float, steps)),
        tuple(map(float, np.median(one_sided, 0))), tuple(map(float, np.median(central, 0))),
        float(np.median(rounding)) if rounding else None)


def length(arrays: Sequence[Array]) -> float:
    """The Euclidean length of all arrays together."""
    return float(np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays)))


def along(exact: Sequence[Array], direction: Sequence[Array]) -> float:
    """The derivative along a direction."""
    return float(sum(np.sum(g * d) for g, d in zip(exact, direction, strict=True)))


def at(problem: Problem, kept: Sequence[Array], direction: Sequence[Array], h: float) -> float:
    """The loss at a point h away, as the problem's own dtype computes it."""
    put(problem, [value + h * d for value, d in zip(kept, direction, strict=True)])
    return float(problem.loss()._value)


def put(problem: Problem, values: Sequence[Array]) -> None:
    """Write values into the parameters, rounded to their dtype."""
    for p, value in zip(problem.parameters, values, strict=True):
        p._value[...] = value
        wrote(p._value, "a finite difference")
