"""Finite differences of functions of arrays: the model-free truth that derivatives are held to.

The centred difference (f(x + h·d) − f(x − h·d)) / 2h is off by h²/6 · f''' (truncation) and by
about ε·|f|/h (rounding), so its error falls, then rises, as h shrinks: a V with its lowest point
near h = ε^(1/3), 6e-6 in float64 and 5e-3 in float32 (Press et al., Numerical Recipes, section
5.7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Array = Any
Function = Callable[[Array], Array]

EPSILON = float(np.finfo(np.float64).eps)
ROUNDINGS = 20                     # how many roundings of the size of f a value of f may carry
COARSER = (1000.0, 100.0, 10.0)    # further steps, as multiples of the first


class Stencil(NamedTuple):
    """f on both sides of a point, `step` away along one direction."""

    step: float
    ahead: Array
    behind: Array
    epsilon: float = EPSILON           # of the coarsest dtype f computes in

    @property
    def slope(self) -> Array:
        """The centred difference."""
        return (self.ahead - self.behind) / (2 * self.step)

    @property
    def noise(self) -> Array:
        """How far rounding alone may move the slope."""
        size = np.maximum(np.abs(self.ahead), np.abs(self.behind))
        return ROUNDINGS * self.epsilon * size / self.step

    def gap(self, here: Array) -> Array:
        """Slope ahead minus slope behind: about h·f'' where f is smooth, constant at a corner."""
        return np.abs(self.ahead - 2 * here + self.behind) / self.step


def stencil(f: Function, x: Array, direction: Array, step: float,
            epsilon: float = EPSILON) -> Stencil:
    """f(x ± step·direction) in float64."""
    ahead = np.asarray(f(x + step * direction), np.float64)
    behind = np.asarray(f(x - step * direction), np.float64)
    return Stencil(step, ahead, behind, epsilon)


def unit(shape: tuple[int, ...], index: tuple[int, ...]) -> Array:
    """1 at one place, 0 elsewhere."""
    direction = np.zeros(shape)
    direction[index] = 1.0
    return direction


def settled(stencils: Sequence[Stencil]) -> tuple[Array, Array]:
    """(slope, its uncertainty): of all pairs of steps the one that agrees best.

    Each pair is extrapolated to step 0, (r²·D(s) − D(r·s))/(r² − 1) (Richardson 1911).
    """
    order = sorted(stencils, key=lambda one: -one.step)
    best = order[-1].slope
    error = order[-1].noise if len(order) == 1 else np.full_like(best, np.inf)
    for wide, narrow in pairwise(order):
        ratio = (wide.step / narrow.step) ** 2
        a, b = wide.slope, narrow.slope
        value = (ratio * b - a) / (ratio - 1)
        own = np.abs(value - b) + narrow.noise
        better = own < error
        best, error = np.where(better, value, best), np.where(better, own, error)
    return best, error


def corners(stencils: Sequence[Stencil], here: Array) -> Array:
    """Where the two one-sided slopes stay apart however small the step: a corner or a jump."""
    order = sorted(stencils, key=lambda one: -one.step)
    if len(order) < 2:
        return np.zeros(np.shape(here), bool)
    wide, narrow = order[0], order[-1]
    gap = narrow.gap(here)
    return (gap > 0.2 * wide.gap(here)) & (gap > 10 * narrow.noise)


# ---------------------------------------------------------------- the error against the step


@dataclass(frozen=True)
class StepCurve:
    """Relative errors of difference quotients for each step, in one dtype.

    `forward` is (f(x + h) − f(x))/h, `centred` (f(x + h) − f(x − h))/2h.
    """

    dtype: np.dtype[Any]
    steps: tuple[float, ...]
    forward: tuple[float, ...]
    centred: tuple[float, ...]

    @property
    def best(self) -> tuple[float, float]:
        """(step, error) where the centred difference is nearest to the truth."""
        k = int(np.nanargmin(self.centred))
        return self.steps[k], self.centred[k]

    @property
    def best_forward(self) -> tuple[float, float]:
        """(step, error) where the forward difference is nearest to the truth."""
        k = int(np.nanargmin(self.forward))
        return self.steps[k], self.forward[k]


STEPS = tuple(10.0**-k for k in range(1, 13))


def error_curves(f: Function, x: Array, truth: float, direction: Array | None = None,
                 dtypes: Sequence[Any] = ("float32", "float64"),
                 steps: Sequence[float] = STEPS) -> list[StepCurve]:
    """For each dtype the errors of differences of f, a function with one number, around x.

    `truth` is the derivative along `direction` (all elements of x together if None).

    >>> import numpy as np
    >>> single, double = error_curves(np.sin, np.array(1.0), np.cos(1.0))
    >>> single.best[0] > 1e-4 > double.best[0]
    True
    """
    scale = abs(truth) or 1.0
    curves = []
    for dtype in map(np.dtype, dtypes):
        here = np.asarray(x, dtype)
        d = np.ones(here.shape, dtype) if direction is None else np.asarray(direction, dtype)
        middle = np.asarray(f(here), dtype)
        forward, centred = [], []
        for step in steps:
            h = dtype.type(step)
            ahead, behind = (np.asarray(f(here + s * d), dtype) for s in (h, -h))
            forward.append(abs(float((ahead - middle) / h) - truth) / scale)
            centred.append(abs(float((ahead - behind) / (h + h)) - truth) / scale)
        curves.append(StepCurve(dtype, tuple(steps), tuple(forward), tuple(centred)))
    return curves


# ---------------------------------------------------------------- what a wrong Jacobian looks like

CLOSE = 1e-4


def alike(a: Array, b: Array) -> bool:
    """Equal up to CLOSE of the largest number."""
    return a.shape == b.shape and bool(
        np.abs(a - b).max(initial=0.0) <= CLOSE * np.abs(b).max(initial=0.0))


def likely_cause(got: Array, right: Array, x: Array, counts: dict[str, int],
                 others: Sequence[tuple[str, Array]] = ()) -> str:
    """A guess in words at why the Jacobian `got` is not `right`; '' if none of the guesses fits.

    Both are [numbers of the output, *x.shape] with the excluded places set to 0. `counts` names
    numbers that a mean might be taken over, `others` the right Jacobians of other inputs.
    """
    if not np.isfinite(got).all():
        return ("it is not finite where the function is: look for 0/0, log(0), 0·∞ or √0 in the "
                "derivative, and guard it with where() on both sides")
    if not got.any():
        return ("it is zero everywhere: the graph is cut (detach(), .data, no_grad(), NumPy) or "
                "the rule gives nothing back")
    return (_scaled(got, right, counts) or _rearranged(got, right, x.ndim, others)
            or _times_operand(got, right, x) or _partly_zero(got, right))


def _scaled(got: Array, right: Array, counts: dict[str, int]) -> str:
    ratio = float((got * right).sum() / ((right * right).sum() or 1.0))
    if ratio == 0 or not alike(got, ratio * right):
        return ""
    if abs(ratio + 1) < CLOSE:
        return "the sign is wrong: every number is −1 times the right one"
    sign = " and the sign is wrong" if ratio < 0 else ""
    size = abs(ratio)
    for name, n in counts.items():
        if n > 2 and abs(size * n - 1) < CLOSE:
            return f"it is 1/{n} of the right one{sign}, and {name} is {n}: divided once too often"
        if n > 2 and abs(size / n - 1) < CLOSE:
            return (f"it is {n} times the right one{sign}, and {name} is {n}: the 1/N of a mean is "
                    "missing")
    if abs(size - 0.5) < CLOSE:
        return f"it is half the right one{sign}: a factor 2 is lost, as in d(x²)/dx = 2x"
    if abs(size - 2) < CLOSE:
        return f"it is twice the right one{sign}: one path is counted twice, or d(x²/2)/dx is not x"
    return f"every number is {ratio:.6g} times the right one: a constant factor"


def _rearranged(got: Array, right: Array, ndim: int,
                others: Sequence[tuple[str, Array]]) -> str:
    if ndim >= 2:
        turned = right.swapaxes(-1, -2)
        if alike(got, turned) or alike(got, turned.reshape(right.shape)):
            return "it is the transposed of the right one: exchange the operands or use .mT"
    for axis in range(1, ndim + 1):
        if alike(got, np.flip(right, axis)):
            return f"it is the right one in reversed order along axis {axis - 1}"
        mean = right.mean(axis, keepdims=True)
        if right.shape[axis] > 1 and alike(got, np.broadcast_to(mean, right.shape)):
            return f"it is the right one averaged over axis {axis - 1}: a sum or mean too many"
    for name, other in others:
        if alike(got, other):
            return f"it is the gradient of {name}: the two are exchanged"
    return ""


def _times_operand(got: Array, right: Array, x: Array) -> str:
    if np.ptp(x) == 0:
        return ""                        # a constant factor, and that was no match
    if alike(got, right * x):
        return "every number is the right one times its own input: a factor x too many"
    if alike(got * x, right):
        return "every number is the right one divided by its own input: a factor x is missing"
    return ""


def _partly_zero(got: Array, right: Array) -> str:
    missing = (got == 0) & (np.abs(right) > CLOSE * np.abs(right).max(initial=0.0))
    if missing.any() and alike(got, np.where(missing, 0.0, right)):
        return (f"{int(missing.sum())} of {int((right != 0).sum())} numbers are missing (zero), "
                "the others are right: part of the operand gets no gradient")
    return ""
