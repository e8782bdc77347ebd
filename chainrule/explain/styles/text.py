"""Explanations as text, for terminals of any width and for files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.core.types import type_of
from chainrule.explain.derive import BackwardStep, Derivation, ForwardStep, Place
from chainrule.explain.numbers import Style

CODES = {"bold": "1", "dim": "2", "cyan": "36", "green": "32"}
Paint = Callable[..., str]

SYMBOLS = {
    " @ ": "@ is the matrix product",
    "⊙": "⊙ multiplies element by element",
    "ᵀ": "ᵀ transposes",
    "Σ": "Σ sums over the batch or over what was stretched",
    "where(": "where(c, a, b) is a where c holds, else b",
    "onehot(": "onehot(t) is 1 at the class t, else 0",
    "gather(": "gather(x, i) takes the elements of x at the places i",
    "scatter_add(": "scatter_add(g, i) adds each element of g at its place i, from 0",
    "ties(": "ties(x = m) is 1 where x is m; ties share it equally",
    " as ": "y as 4×3 is y with its numbers, in row-major order, in that shape",
    " at [": "y at [k] has y at the places k and 0 elsewhere",
    "~": "~ flips every bit",
    " & ": "& keeps the bits set in both",
    " | ": "| keeps the bits set in one of them",
}
CONDITION = re.compile(r"\[[^\[\]]* ([<>≤≥=≠]) [^\[\]]*(\[[^\[\]]*\][^\[\]]*)*\]")


def paint_with(colour: bool) -> Paint:
    """A function that colours text, or leaves it as it is."""
    def paint(text: str, *styles: str) -> str:
        if not colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(CODES[s] for s in styles)}m{text}\x1b[0m"
    return paint


def explanation_text(d: Derivation, style: Style, width: int, colour: bool) -> str:
    """Forward and backward pass step by step, and the gradients."""
    paint = paint_with(colour)
    lines = []
    if d.given:
        lines += [paint("given", "bold"), *givens(d, style, width), ""]
    lines += [paint("forward", "bold"), *steps(d.forward, width, paint), ""]
    meaning = f"∂{d.loss}/∂x: how much {d.loss} grows for each unit that x grows"
    if len(meaning) + 11 <= width:
        lines.append(paint("backward", "bold") + "   " + paint(meaning, "dim"))
    else:
        lines.append(paint("backward", "bold"))
        lines += [paint(line, "dim") for line in wrapped(meaning, width, "  ")]
    lines += [*steps(d.backward, width, paint), ""]
    lines += [paint("gradients", "bold"), *gradients(d, style, width)]
    legend = symbols_used(d)
    if legend or d.notes:
        lines.append("")
        lines += [paint(line, "dim") for line in beside(legend, width)]
        lines += [paint(line, "dim") for text in d.notes for line in wrapped(text, width, "  ")]
    return "\n".join(lines)


def symbols_used(d: Derivation) -> list[str]:
    """One line about the notation, for the symbols that occur."""
    text = "\n".join([s.formula for s in d.forward] + [s.formula for s in d.backward])
    used = [meaning for symbol, meaning in SYMBOLS.items() if symbol in text]
    condition = CONDITION.search(text)
    if condition:
        used.append(f"[a {condition[1]} b] is 1 where that holds, else 0")
    constants = [one.name for one in d.given if not one.tracked and re.fullmatch(r"c\d+", one.name)]
    if constants:
        used.append(f"{', '.join(constants)}: {'arrays' if len(constants) > 1 else 'an array'} of "
                    "the program without a name")
    return used


def beside(texts: Sequence[str], width: int) -> list[str]:
    """Remarks one beside the other, as many on a line as fit whole."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 3 + len(text) <= width:
            lines[-1] += f" · {text}"
        else:
            lines.append(f"  {text}")
    return [part for line in lines for part in wrapped(line, width, "  ")]


def givens(d: Derivation, style: Style, width: int) -> list[str]:
    """x = 2   w = 0.5   ..., as many on a line as fit."""
    texts = [f"{one.name} = {'?' if one.value is None else style.array(one.value)}"
             for one in d.given]
    lines: list[str] = []
    line = ""
    for text in texts:
        if line and len(line) + 3 + len(text) > width:
            lines.append(line)
            line = ""
        line = f"{line}   {text}" if line else f"  {text}"
    return [part for one in (*lines, line) for part in
            ([one] if len(one) <= width else hanging(one, width))]


def hanging(line: str, width: int) -> list[str]:
    """One long line over several, those after the first indented more."""
    first, *more = wrapped(line, width - 2, "  ")
    return [first, *[f"    {part}" for text in more for part in wrapped(text, width - 4)]]


# ---------------------------------------------------------------- steps


def heading(place: Place, before: Place | None, width: int, paint: Paint) -> str:
    """The user's line: file, number, text, module."""
    where = f"{os.path.basename(place.file)}:{place.line}" if place.file else "unknown line"
    again = before is not None and place[:2] == before[:2] and place.module
    text = f"  {where}  {'⋯' if again else place.source}".rstrip()
    module = f"   in {place.module}" if place.module else ""
    if len(text) + len(module) > width:
        text = f"{text[:max(width - len(module) - 1, 20)].rstrip()}…"
    return paint(text + module, "cyan")


Row = tuple[str, str, list[str], str]      # number, name, right-hand sides, remark


def steps(all_steps: Sequence[ForwardStep | BackwardStep], width: int, paint: Paint) -> list[str]:
    """Steps under the user's lines, in columns as far as they fit."""
    if not all_steps:
        return ["  nothing was computed: this is a leaf"]
    rows = [row(step) for step in all_steps]
    name_width = max(len(r[1]) for r in rows)
    columns = [column for r in rows for column in [parts_width(r)] if column]
    lead = 6 + name_width
    room = width - lead
    widths = [0, 0, 0]
    for parts in columns:
        if sum(parts) + 3 * sum(p > 0 for p in parts) <= room:
            widths = [max(a, b) for a, b in zip(widths, parts, strict=True)]
    taken = sum(widths) + 3 * sum(w > 0 for w in widths)
    aligned = taken <= room
    for_remark = room - taken - 3
    lines: list[str] = []
    place: Place | None = None
    for step, one in zip(all_steps, rows, strict=True):
        if step.place != place:
            lines.append(heading(step.place, place, width, paint))
            place = step.place
        lines += laid_out(one, name_width, widths if aligned else None,
                          for_remark, room, paint)
        lines += [paint(line, "dim") for line in along_paths(step, width)]
    return lines


def along_paths(step: ForwardStep | BackwardStep, width: int) -> list[str]:
    """The product along each path from the loss, where paths meet: together they are the sum."""
    products = step.products if isinstance(step, BackwardStep) else ()
    trails = [" → ".join(one.through) for one in products]
    wide = max(map(len, trails), default=0)
    lines = []
    for trail, one in zip(trails, products, strict=True):
        line = f"        {trail:<{wide}}   {one.numbers} = {one.result}"
        lines += [line] if len(line) <= width else [
            *wrapped(trail, width, " " * 8), *wrapped(f"{one.numbers} = {one.result}", width,
                                                      " " * 12)]
    return lines


def sides_of(step: ForwardStep | BackwardStep) -> list[str]:
    """Formula, numbers and result; a side that repeats the one before it is left out."""
    if isinstance(step, BackwardStep) and not step.number and not step.terms:
        return [step.result]
    sides = [step.formula]
    for side in (step.numbers, step.result):
        if side != sides[-1]:
            sides.append(side)
    return sides


def row(step: ForwardStep | BackwardStep) -> Row:
    """What is printed of a step: its number, its name, the sides of the equation, a remark."""
    name, remark = step.name, ""
    if isinstance(step, BackwardStep):
        if step.path:
            name = f"{name} {step.path}"
        if step.local is not None:
            remark = f"{step.local.name} = {step.local.result}"
        if not step.number and not step.terms:
            remark = "the start"
    number = str(step.number) if step.number and not getattr(step, "terms", ()) else ""
    return number, name, sides_of(step), remark


def parts_width(one: Row) -> list[int]:
    """Widths of formula, numbers and result; the result stands in the last column."""
    sides = one[2]
    middle = [len(s) for s in sides[:-1]]
    return [*middle, *[0] * (2 - len(middle)), len(sides[-1])]


def laid_out(one: Row, name_width: int, widths: list[int] | None, for_remark: int, room: int,
             paint: Paint) -> list[str]:
    number, name, sides, remark = one
    lead = f"  {number:>3} {name:<{name_width}}"
    parts = parts_width(one)
    fits = sum(parts) + 3 * sum(p > 0 for p in parts) <= room
    if not fits:
        blank = " " * len(lead)
        lines = []
        for i, side in enumerate(sides):
            styles = ["bold"] if i == len(sides) - 1 else []
            first, *more = wrapped(side, max(room - 3, 24))
            lines.append(f"{blank if i else lead} = {paint(first, *styles)}")
            lines += [f"{blank}   {paint(part, *styles)}" for part in more]
        return lines
    if widths is None:
        *middle, last = sides
        return [f"{lead} = " + " = ".join([*middle, paint(last, "bold")])]
    line = lead
    for i, wide in enumerate(widths[:2]):
        if wide:
            line += f" = {sides[i]:<{wide}}" if i < len(sides) - 1 else " " * (3 + wide)
    line += f" = {paint(sides[-1], 'bold')}"
    if remark and len(remark) <= for_remark:
        line += " " * (widths[2] - len(sides[-1]) + 3) + paint(remark, "dim")
    return [line.rstrip()]


# ---------------------------------------------------------------- the table at the end


def gradients(d: Derivation, style: Style, width: int) -> list[str]:
    """Each leaf with its value and its gradient; big ones with their size."""
    return table([("", "value", "gradient"),
                  *[(one.name, summary(one.value, style), summary(one.gradient, style))
                    for one in d.gradients]], width)


def summary(value: Any, style: Style) -> str:
    """An array in full if it is small, else its type and length."""
    if value is None:
        return "?"
    if value.size <= style.elements:
        return style.array(value)
    norm = float(np.sqrt(np.sum(np.square(value, dtype=np.float64))))
    return f"{type_of(value)}, norm {style.number(norm)}"


def table(rows: Sequence[Sequence[str]], width: int, right: Sequence[int] = ()) -> list[str]:
    """Rows in columns, the first row above a rule; columns named in `right` end flush.

    Where the columns do not fit, each row becomes a few lines with the headings in front.
    """
    count = max(len(r) for r in rows)
    widths = [max(len(r[i]) for r in rows if i < len(r)) for i in range(count)]
    whole = sum(widths) + 3 * (count - 1)
    if whole + 2 > width:
        return stacked(rows, width)
    lines = []
    for number, r in enumerate(rows):
        cells = [f"{cell:>{widths[i]}}" if i in right else f"{cell:<{widths[i]}}"
                 for i, cell in enumerate(r)]
        lines.append(("  " + "   ".join(cells)).rstrip())
        if number == 0:
            lines.append("  " + "─" * whole)
    return lines


def stacked(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Each row as lines `heading  cell` under its first cell."""
    heads, *others = rows
    wide = max(len(head) for head in heads[1:])
    lines = []
    for r in others:
        lines.append(f"  {r[0]}")
        for head, cell in zip(heads[1:], r[1:], strict=True):
            lead = f"    {head:<{wide}}  "
            first, *more = wrapped(cell, max(width - len(lead), 20)) or [""]
            lines.append(lead + first)
            lines += [" " * len(lead) + line for line in more]
    return lines


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Text cut at spaces."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(indent) + len(line) + 1 + len(word) > width:
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, indent + line] if line else lines
