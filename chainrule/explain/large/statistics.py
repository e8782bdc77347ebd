"""What is said about an array that is too large to be written out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from chainrule.explain.numbers import Style


class Statistics(NamedTuple):
    """norm: √Σx². mean: of |x|. zeros: their share. least and most: the range."""

    norm: float
    mean: float
    zeros: float
    least: float
    most: float

    @staticmethod
    def of(value: Any) -> Statistics:
        """NaN for an empty array, except that its norm is 0.

        >>> Statistics.of(np.array([3.0, -4.0, 0.0, 0.0]))
        Statistics(norm=5.0, mean=1.75, zeros=0.5, least=-4.0, most=3.0)
        """
        array = np.asarray(value)
        if not array.size:
            return Statistics(0.0, np.nan, np.nan, np.nan, np.nan)
        return Statistics(norm(array), float(np.mean(np.abs(array), dtype=np.float64)),
                          float(np.mean(array == 0)), float(np.min(array)), float(np.max(array)))

    def text(self, style: Style) -> str:
        """mean |·| 0.31 · −1.2 … 3.1 · 51 % zeros"""
        parts = [f"mean |·| {style.number(self.mean)}",
                 f"{style.number(self.least)} … {style.number(self.most)}"]
        if self.zeros:
            parts.append(f"{percent(self.zeros)} zeros")
        return " · ".join(parts)


def norm(value: Any) -> float:
    """√Σx² in float64, of any size without overflow."""
    array = np.asarray(value, dtype=np.float64)
    if not array.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        largest = float(np.max(np.abs(array)))
        if largest == 0 or not np.isfinite(largest):
            return largest
        return largest * float(np.sqrt(np.sum(np.square(array / largest))))


def percent(share: float) -> str:
    """0 % and 100 % are exact; what is rounded to them says so.

    >>> percent(0.5), percent(0.0004), percent(0.9999)
    ('50 %', '< 1 %', '> 99 %')
    """
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 < share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"
