"""An array in a few words: what a box says where the numbers themselves would not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from chainrule.core.types import type_of
from chainrule.explain.numbers import Style

BRIEF = 3            # significant digits of statistics
NOTHING = 1e-6       # of the deviation: a smaller mean is written as 0


def sizes(shape: tuple[int, ...]) -> str:
    """2×3; nothing for one number."""
    return "×".join(map(str, shape))


def number(value: float) -> str:
    """A statistic, short.

    >>> number(0.0123456), number(-1e-12), number(3.0)
    ('0.0123', '−1e−12', '3')
    """
    return Style(BRIEF).number(float(f"{value:.{BRIEF}g}"))


def norm(values: Iterable[Any]) -> float:
    """The Euclidean norm of all elements of all arrays; of numbers too large to square too."""
    total, scale = 0.0, 0.0
    for value in values:
        flat = np.asarray(value, np.float64).ravel()
        if not flat.size:
            continue
        largest = float(np.max(np.abs(flat)))
        if not math.isfinite(largest):
            return largest
        if largest > scale:
            total, scale = total * (scale / largest) ** 2, largest
        if scale:
            scaled = flat / scale
            total += float(scaled @ scaled)
    return scale * math.sqrt(total)


def spread(value: Any) -> str:
    """Mean ± standard deviation; least … greatest of whole numbers; what is not finite, counted."""
    array = np.asarray(value)
    if not array.size:
        return "empty"
    if array.dtype.kind == "b":
        return f"{int(array.sum())} of {array.size} true"
    if array.dtype.kind in "iu":
        return f"{array.min()} … {array.max()}".replace("-", "−")
    lost = int(array.size - np.isfinite(array).sum())
    if lost:
        return f"{lost} of {array.size} nan or ∞"
    if array.size == 1:
        return number(float(array.reshape(())))
    exact = array.astype(np.float64)
    mean, deviation = float(exact.mean()), float(exact.std())
    if exact.min() == exact.max():
        return f"all {number(mean)}"
    if abs(mean) < NOTHING * deviation:        # what is left of a mean that was subtracted
        mean = 0.0
    return f"{number(mean)} ± {number(deviation)}"


def described(value: Any) -> str:
    """One line for a tooltip: type, statistics, extremes, how many zeros."""
    array = np.asarray(value)
    text = f"{type_of(array)}: {spread(array)}"
    if array.size and array.dtype.kind == "f" and np.isfinite(array).all():
        zeros = int(array.size - np.count_nonzero(array))
        text += f", {number(float(array.min()))} … {number(float(array.max()))}"
        text += f", norm {number(norm([array]))}"
        text += f", {100 * zeros // array.size} % zeros" if zeros else ""
    return text
