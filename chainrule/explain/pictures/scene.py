"""What is to be drawn: boxes with text, frames around boxes, and the values between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .lettering import text_width

TEXT, SMALL = 12.0, 11.0                 # font sizes
LINE = 15.0                              # from one line of text to the next
ROOM_ACROSS, ROOM_ALONG = 10.0, 5.5      # between a text and the border of its box
LABEL = 16.0                             # height of the label of a line
BESIDE = 9.0                             # between a line and its label
ARROW = 8.0


class Piece(NamedTuple):
    """Some text in one colour: `role` is name, formula, value, gradient, quiet or label."""

    text: str
    role: str

    @property
    def size(self) -> float:
        return TEXT if self.role in ("name", "formula") else SMALL

    @property
    def width(self) -> float:
        return text_width(self.text, self.size, self.role == "name")


Line = tuple[Piece, ...]


def line_width(line: Line) -> float:
    return sum(piece.width for piece in line)


@dataclass(eq=False)
class Box:
    """One operation, one leaf, one constant, or a part of the network folded into one."""

    kind: str                            # step, leaf, constant, loss, folded
    lines: list[Line]
    tooltip: str
    copies: int = 1
    x: float = 0.0                       # left and top, without what is written at its lines
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    def __post_init__(self) -> None:
        self.width = 2 * ROOM_ACROSS + max((line_width(line) for line in self.lines), default=0)
        self.height = 2 * ROOM_ALONG + LINE * len(self.lines)


@dataclass(eq=False)
class Frame:
    """A module, drawn as a frame around what happened in it."""

    label: Line
    tooltip: str
    copies: int = 1
    items: list[Box | Frame] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    depth: int = 0

    def boxes(self) -> Iterator[Box]:
        """All boxes inside, also those in inner frames."""
        for item in self.items:
            if isinstance(item, Box):
                yield item
            else:
                yield from item.boxes()

    def frames(self) -> Iterator[Frame]:
        """All frames inside."""
        for item in self.items:
            if isinstance(item, Frame):
                yield item
                yield from item.frames()


@dataclass(eq=False)
class Wire:
    """Where a value goes: the text at its arrow, and what that stands for."""

    label: tuple[Piece, ...]
    tooltip: str
    light: bool = False                  # a leaf or constant: it follows what it goes to

    @property
    def width(self) -> float:
        return line_width(self.label)


@dataclass(eq=False)
class Net:
    """One value and the boxes it goes to."""

    source: Box
    wires: dict[Box, Wire] = field(default_factory=dict)


class Part(NamedTuple):
    """What a piece of a line belongs to: a net, and the box or frame it goes into or out of."""

    net: Net
    item: Any
    outwards: bool = False


@dataclass(eq=False)
class Stroke:
    """A drawn piece of a line: its corners, and whether it ends at a box with an arrow."""

    part: Part
    points: list[tuple[float, float]]
    arrow: bool
    note: tuple[float, float] | None = None      # left end and middle of its label


@dataclass(eq=False)
class Scene:
    """A whole drawing. `root` is a frame that is not drawn itself."""

    root: Frame
    nets: list[Net]
    strokes: list[Stroke] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
