"""Loss curves and bars drawn with characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .screen import Screen

# The bit of each of the 2 × 4 dots of a braille character, by column and row.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800
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
    across, down = (2, 4) if screen.unicode else (1, 1)
    cells: dict[tuple[int, int], tuple[int, int]] = {}
    for index, one in enumerate(series):
        for x, y in _path(one.values, scale, bottom, top, columns * across, height * down):
            if index and x // across % 3 == 2:  # dashes
                continue
            row, column = y // down, x // across
            bits, _ = cells.get((row, column), (0, 0))
            bit = DOTS[x % 2][y % 4] if screen.unicode else 1
            cells[row, column] = bits | bit, index
    lines = []
    for row in range(height):
        tick = "┤" if row in labels else "│"
        drawn = [_cell(cells.get((row, column)), series, screen) for column in range(columns)]
        lines.append(f" {labels.get(row, ''):>{margin}} {tick}" + "".join(drawn).rstrip())
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


def _path(
    values: Sequence[float], scale: object, bottom: float, top: float, width: int, height: int
) -> list[tuple[int, int]]:
    """The dots of the line through all values, from left to right."""
    assert callable(scale)
    span = (top - bottom) or 1.0
    steps = max(1, len(values) - 1)
    corners = []
    for index, value in enumerate(values):
        if math.isfinite(value):
            share = (scale(value) - bottom) / span
            corners.append((
                round(index / steps * (width - 1)), round((1 - share) * (height - 1))
            ))
    dots = corners[:1]
    for (x0, y0), (x1, y1) in pairwise(corners):
        count = max(abs(x1 - x0), abs(y1 - y0), 1)
        dots += [
            (round(x0 + (x1 - x0) * step / count), round(y0 + (y1 - y0) * step / count))
            for step in range(1, count + 1)
        ]
    return dots


def _cell(cell: tuple[int, int] | None, series: Sequence[Series], screen: Screen) -> str:
    if cell is None:
        return " "
    bits, index = cell
    mark = chr(BLANK + bits) if screen.unicode else "*o"[index]
    return screen.style(mark, series[index].colour)


def bar(share: float, width: int) -> str:
    """A bar of blocks, `share` of `width` long, never empty for a share above zero."""
    halves = max(1 if share > 0 else 0, round(share * width * 2))
    return "█" * (halves // 2) + "▌" * (halves % 2)
