"""A page of an explanation that is not a list of steps: headings, formulas with shapes, tables."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chainrule.explain.styles.as_html import page, preformatted
from chainrule.explain.styles.text import Paint, paint_with, table, wrapped

NARROWEST, WIDEST = 60, 120


class Heading(NamedTuple):
    """A line that starts something; `zoom` is what to type to see more of it."""

    text: str
    zoom: str = ""
    strong: bool = True


class Formula(NamedTuple):
    """name = formula, the same with shapes or numbers, and a remark."""

    formula: str
    shapes: str = ""
    remark: str = ""


class Table(NamedTuple):
    """Rows in columns, the first of them the headings; `right` names columns that end flush."""

    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()


class Prose(NamedTuple):
    text: str
    dim: bool = False


Block = Heading | Formula | Table | Prose


@dataclass(eq=False, repr=False)
class View:
    """One page. `str()` is its text; `data` are the numbers behind it."""

    title: str
    blocks: Sequence[Block]
    data: dict[str, Any] = field(default_factory=dict)

    def text(self, width: int | None = None, colour: bool = False) -> str:
        """The page as lines of at most `width` characters where that is possible."""
        columns = shutil.get_terminal_size((100, 24)).columns if width is None else width
        columns = max(NARROWEST, min(columns, WIDEST))
        paint = paint_with(colour)
        lines = [paint(line, "bold") for line in wrapped(self.title, columns)]
        for block in self.blocks:
            lines += written(block, columns, paint)
        return "\n".join(line.rstrip() for line in lines)

    def markdown(self) -> str:
        """The page as a block of preformatted text."""
        return as_document("markdown", self.title, self.text(WIDEST))

    def html(self) -> str:
        """The page as one HTML file."""
        return as_document("html", self.title, self.text(WIDEST))

    def _repr_html_(self) -> str:
        return self.html()

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def as_document(kind: str, title: str, text: str) -> str:
    """Lines of text in a document of another kind: "markdown" or "html"."""
    if kind == "markdown":
        return f"```text\n{text}\n```"
    return page(title, preformatted(text))


def written(block: Block, width: int, paint: Paint) -> list[str]:
    """One block as lines."""
    if isinstance(block, Heading):
        return heading(block, width, paint)
    if isinstance(block, Formula):
        return formula(block, width, paint)
    if isinstance(block, Table):
        return ["", *table(block.rows, width, block.right)]
    lines = wrapped(block.text, width - 2, "  ")
    return [paint(line, "dim") for line in lines] if block.dim else lines


def heading(block: Heading, width: int, paint: Paint) -> list[str]:
    style = "bold" if block.strong else "cyan"
    before = [""] if block.strong else []
    text, zoom = block.text, block.zoom
    if not zoom:
        text = text if len(text) <= width else f"{text[:width - 1]}…"
        return [*before, paint(text, style)]
    room = width - len(zoom) - 3
    if len(text) > room and room < 30:
        first = [paint(line, style) for line in wrapped(text, width)]
        return [*before, *first, " " * max(width - len(zoom), 0) + paint(zoom, "dim")]
    short = text if len(text) <= room else f"{text[:room - 1]}…"
    return [*before, paint(short, style) + " " * (width - len(short) - len(zoom))
            + paint(zoom, "dim")]


def formula(block: Formula, width: int, paint: Paint) -> list[str]:
    """The formula, beside it or below it its shapes, and below them the remark."""
    room = width - 5
    lines = []
    half = room // 2
    if block.shapes and len(block.formula) <= half and len(block.shapes) <= half - 2:
        lines.append(f"     {block.formula:<{half}}{paint(block.shapes, 'dim')}")
    else:
        first, *more = wrapped(block.formula, room)
        lines += [f"     {first}", *[f"       {line}" for line in more]]
        lines += [f"     {paint(line, 'dim')}" for line in wrapped(block.shapes, room)]
    lines += [f"     {paint(line, 'green')}" for line in wrapped(block.remark, room)]
    return lines
