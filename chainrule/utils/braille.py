"""Lines drawn with characters: two by four dots in a braille character, or one mark in ASCII."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

# The bit of each of the 2 × 4 dots of a braille character, by column and row (Unicode, U+2800).
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800
MARKS = "*o+x#@%&"       # where there are no braille characters: one for each line
DASH = 3                 # every third column of a dashed line is left out


class Canvas:
    """Columns × rows of characters; each knows which line was drawn there last.

    >>> canvas = Canvas(4, 1)
    >>> canvas.line([(0, 3), (7, 0)], 0)
    >>> canvas.row(0)
    [('⣀', 0), ('⠤', 0), ('⠒', 0), ('⠉', 0)]
    """

    def __init__(self, columns: int, rows: int, unicode: bool = True) -> None:
        self.columns = columns
        self.rows = rows
        self.unicode = unicode
        self.across, self.down = (2, 4) if unicode else (1, 1)
        self._cells: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def width(self) -> int:
        """Dots from left to right."""
        return self.columns * self.across

    @property
    def height(self) -> int:
        """Dots from top to bottom."""
        return self.rows * self.down

    def line(self, corners: Sequence[tuple[int, int]], owner: int, dashed: bool = False) -> None:
        """The line through all corners, given in dots from the upper left."""
        for x, y in path(corners):
            row, column = y // self.down, x // self.across
            if dashed and column % DASH == DASH - 1:
                continue
            bits, _ = self._cells.get((row, column), (0, 0))
            bit = DOTS[x % 2][y % 4] if self.unicode else 1
            self._cells[row, column] = bits | bit, owner

    def row(self, row: int) -> list[tuple[str, int | None]]:
        """The characters of a row, each with the line it belongs to."""
        return [self._character(row, column) for column in range(self.columns)]

    def _character(self, row: int, column: int) -> tuple[str, int | None]:
        cell = self._cells.get((row, column))
        if cell is None:
            return " ", None
        bits, owner = cell
        return chr(BLANK + bits) if self.unicode else MARKS[owner % len(MARKS)], owner


def path(corners: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """All dots from corner to corner."""
    yield from corners[:1]
    for (x0, y0), (x1, y1) in pairwise(corners):
        count = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(1, count + 1):
            yield round(x0 + (x1 - x0) * step / count), round(y0 + (y1 - y0) * step / count)
