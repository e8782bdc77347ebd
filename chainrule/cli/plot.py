"""Loss curves and bars drawn with characters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chainrule.utils.braille import Canvas

from .screen import Screen

LOGARITHMIC_FROM = 10.0  # largest over smallest value from which the axis is logarithmic


@dataclass(frozen=True)
class Series:
    """One curve: a value for each epoch."""

    name: str
    values: Sequence[float]
    colour: str


def number(value: float) -> str:
    """A number in at most seven characters and three digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(digits, 4)}f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def curves(series: Sequence[Series], screen: Screen, height: int = 8) -> list[str]:
    """Lines of text that show the curves over one axis of epochs.

    The second curve is dashed, so that it can be told apart without colours. The axis is
    logarithmic when the values span a factor of ten or more.
    """
    values = [value for one in series for value in one.values if math.isfinite(value)]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low >= LOGARITHMIC_FROM
    scale = math.log if logarithmic else float
    bottom, top = scale(low), scale(high)
    labels = {0: number(high), height - 1: number(low)}
    if height >= 5:
        middle = (bottom + top) / 2
        labels[height // 2] = number(math.exp(middle) if logarithmic else middle)
    margin = max(map(len, labels.values()))
    columns = screen.width - margin - 3
    canvas = Canvas(columns, height, screen.unicode)
    for index, one in enumerate(series):
        corners = _corners(one.values, scale, bottom, top, canvas.width, canvas.height)
        canvas.line(corners, index, dashed=index > 0)
    lines = []
    for row in range(height):
        tick = "┤" if row in labels else "│"
        drawn = "".join(mark if index is None else screen.style(mark, series[index].colour)
                        for mark, index in canvas.row(row))
        lines.append(f" {labels.get(row, ''):>{margin}} {tick}" + drawn.rstrip())
    last = len(series[0].values)
    axis = f"epoch {last}" + (", log scale" if logarithmic else "")
    lines.append(f" {'':>{margin}} └" + "─" * columns)
    lines.append(f" {'':>{margin}}  1{axis:>{columns - 1}}")
    return lines


def legend(series: Sequence[Series], screen: Screen) -> str:
    """What each curve is and where it ends."""
    marks = ("──", "─ ─")
    return "   ".join(
        f"{screen.style(mark, one.colour)} {one.name} {number(one.values[-1])}"
        for mark, one in zip(marks, series, strict=False)
    )


def _corners(
    values: Sequence[float], scale: Callable[[float], float], bottom: float, top: float,
    width: int, height: int,
) -> list[tuple[int, int]]:
    """The dot of each value, from left to right."""
    span = (top - bottom) or 1.0
    steps = max(1, len(values) - 1)
    return [(round(index / steps * (width - 1)),
             round((1 - (scale(value) - bottom) / span) * (height - 1)))
            for index, value in enumerate(values) if math.isfinite(value)]


def bar(share: float, width: int) -> str:
    """A bar of blocks, `share` of `width` long, never empty for a share above zero."""
    halves = max(1 if share > 0 else 0, round(share * width * 2))
    return "█" * (halves // 2) + "▌" * (halves % 2)
