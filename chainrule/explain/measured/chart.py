"""Charts as data: curves over one axis, linear or logarithmic, and where their ticks stand.

The writers beside this file draw the same chart with characters, as SVG and with matplotlib.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ROOM = 0.04               # of an axis, left free at each end
STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Curve:
    """Points joined by a line. A `None`, NaN or infinite value, or one that a logarithmic axis
    cannot show, is left out."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float | None]

    def points(self, chart: Chart) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in zip(self.xs, self.ys, strict=True)
                if y is not None and math.isfinite(x) and math.isfinite(y)
                and not (chart.log_x and x <= 0) and not (chart.log_y and y <= 0)]


@dataclass(frozen=True)
class Chart:
    """Curves with their axes. `lines` are upright lines with a word: (place, text)."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    log_y: bool = False
    lines: tuple[tuple[float, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The chart as JSON's own types."""
        return {"title": self.title, "x": self.x, "y": self.y, "log_x": self.log_x,
                "log_y": self.log_y, "lines": [list(line) for line in self.lines],
                "curves": [{"name": c.name, "xs": [float(x) for x in c.xs],
                            "ys": [None if y is None or not math.isfinite(y) else float(y)
                                   for y in c.ys]} for c in self.curves]}


@dataclass(frozen=True)
class Axis:
    """One axis: the ends of what it shows and the places that are labelled."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a value stands: 0 at the low end, 1 at the high one."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def axes(chart: Chart, most: tuple[int, int] = (6, 6)) -> tuple[Axis, Axis]:
    """The two axes, with at most so many labelled places on each."""
    points = [point for curve in chart.curves for point in curve.points(chart)]
    xs = [x for x, _ in points] + [x for x, _ in chart.lines if not chart.log_x or x > 0]
    across = axis(xs, chart.log_x, most[0])
    if not chart.log_x and all(float(x).is_integer() for x in xs):      # layers and steps
        across = replace(across, ticks=tuple(t for t in across.ticks if float(t).is_integer()))
    return across, axis([y for _, y in points], chart.log_y, most[1])


def axis(values: Sequence[float], log: bool, most: int) -> Axis:
    """An axis that shows all values.

    >>> axis([0.3, 4.2], False, 6).ticks
    (1.0, 2.0, 3.0, 4.0)
    >>> axis([2e-9, 0.5], True, 6).ticks
    (1e-08, 1e-06, 0.0001, 0.01, 1.0)
    """
    if not values:
        values = (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        # By logarithms, which do not overflow; the ends stay numbers.
        span = math.log10(high) - math.log10(low)
        room = 10.0 ** max(span * ROOM, math.log10(2.0) if span <= math.log10(2.0) else 0.0)
        low, high = max(low / room, sys.float_info.min), min(high * room, sys.float_info.max)
        return Axis(low, high, True, powers(low, high, most))
    if high == low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    room = (high - low) * ROOM
    low, high = low - room, high + room
    return Axis(low, high, False, rounds(low, high, most))


def powers(low: float, high: float, most: int) -> tuple[float, ...]:
    """Powers of ten between two numbers, not more than `most`; other numbers if there is none."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last < first + 1:
        found = [digit * 10.0**power for power in range(first - 1, last + 1)
                 for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
        return tuple(found) or (low, high)
    step = max(1, math.ceil((last - first + 1) / most))
    start = math.ceil(first / step) * step
    # 10.0**-8 is not the number that is written 1e-08
    return tuple(float(f"1e{power}") for power in range(start, last + 1, step))


def rounds(low: float, high: float, most: int) -> tuple[float, ...]:
    """Round numbers between two numbers, not more than `most`."""
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(size * one for one in STEPS if (high - low) / (size * one) <= most)
    return tuple(round(step * k, 12) for k in
                 range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))


def label(value: float, log: bool = False) -> str:
    """A number beside a tick.

    >>> label(0.25), label(1e-8, log=True), label(100.0, log=True), label(1e6)
    ('0.25', '10⁻⁸', '100', '10⁶')
    """
    if value == 0:
        return "0"
    power = round(math.log10(abs(value)))
    if (log or abs(value) >= 1e5 or abs(value) < 1e-3) and math.isclose(abs(value), 10.0**power):
        if -2 <= power <= 3:
            return f"{value:g}".replace("-", "−")
        return ("−" if value < 0 else "") + "10" + str(power).translate(SUPERSCRIPT)
    text = f"{value:.3g}"
    mantissa, letter, exponent = text.partition("e")
    if letter:
        return (f"{mantissa}·10{str(int(exponent)).translate(SUPERSCRIPT)}"
                .replace("-", "−"))
    return text.replace("-", "−")
