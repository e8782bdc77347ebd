"""The derivation as Markdown: tables under the user's lines, formulas as code.

Written for GitHub's dialect (tables, https://github.github.com/gfm/#tables-extension-), readable as
plain text too, and without LaTeX, which not every reader of Markdown sets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from chainrule.explain.derive import BackwardStep, Derivation, ForwardStep, Place
from chainrule.explain.numbers import Style

from .text import sides_of, summary, symbols_used

# A stroke ends a cell, even inside code.
UNESCAPED_STROKE, STROKE = re.compile(r"(?<!\\)\|"), r"\\|"
COLUMNS = ("step", "", "formula", "numbers", "result")


def markdown(derivation: Derivation, style: Style, width: int = 100) -> str:
    """Headings, a table of steps for each line of the program, a table of gradients."""
    return "\n".join(_lines(derivation, style)) + "\n"


def _lines(d: Derivation, style: Style) -> Iterator[str]:
    yield f"# The chain rule for {code(d.loss)}"
    if d.given:
        yield from ("", "## Given", "")
        yield from table(("", "value"), [
            (code(one.name), "?" if one.value is None else code(style.array(one.value)))
            for one in d.given])
    yield from ("", "## Forward")
    yield from steps(d.forward)
    slope = code(f"∂{d.loss}/∂x")
    meaning = f"{slope}: how much {code(d.loss)} grows for each unit that `x` grows."
    yield from ("", "## Backward", "", meaning)
    yield from steps(d.backward)
    yield from ("", "## Gradients", "")
    yield from table(("", "value", "gradient"), [
        (code(one.name), code(summary(one.value, style)), code(summary(one.gradient, style)))
        for one in d.gradients])
    legend = symbols_used(d)
    if legend or d.notes:
        yield ""
        yield from (f"- {escaped(text)}" for text in (*legend, *d.notes))


def steps(all_steps: Sequence[ForwardStep | BackwardStep]) -> Iterator[str]:
    """A table for each line of the program."""
    if not all_steps:
        yield from ("", "Nothing was computed: this is a leaf.")
    rows: list[tuple[str, ...]] = []
    place: Place | None = None
    for step in all_steps:
        if step.place != place:
            yield from table(COLUMNS, rows)
            yield from ("", heading(step.place), "")
            rows, place = [], step.place
        rows += row(step)
    yield from table(COLUMNS, rows)


def row(step: ForwardStep | BackwardStep) -> list[tuple[str, ...]]:
    """A step; below it the factor by which it multiplies, and the product along each path."""
    *before, result = sides_of(step)
    formula, numbers = [*before, "", ""][:2]
    name = code(step.name)
    if isinstance(step, BackwardStep) and step.path:
        name += f" {escaped(step.path)}"
    number = str(step.number) if step.number and not getattr(step, "terms", ()) else ""
    rows: list[tuple[str, ...]] = [
        (number, name, code(formula), code(numbers), f"**{code(result)}**")]
    if isinstance(step, BackwardStep):
        if step.local is not None:
            local = step.local
            numbers = local.numbers if local.numbers != local.formula else ""
            rows.append(("", f"factor {code(local.name)}", code(local.formula), code(numbers),
                         code(local.result)) if local.formula != "1" else
                        ("", f"factor {code(local.name)}", code("1"), "", ""))
        rows += [("", "path", code(one.formula), code(one.numbers), code(one.result))
                 for one in step.products]
    return rows


def heading(place: Place) -> str:
    where = f"{os.path.basename(place.file)}:{place.line}" if place.file else "unknown line"
    module = f" in {code(place.module)}" if place.module else ""
    return f"**{escaped(where)}** {code(place.source)}{module}".rstrip()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table; columns that are empty in every row are left out."""
    if not rows:
        return
    used = [i for i in range(len(heads)) if any(one[i] for one in rows)]
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(re.sub(UNESCAPED_STROKE, STROKE, cells[i]) for i in used)} |"


def code(text: str) -> str:
    """Text as a code span, whatever backquotes are in it."""
    if not text:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    room = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{room}{text}{room}{fence}".replace("\n", " ")


def escaped(text: str) -> str:
    """Running text with what Markdown would read as markup escaped."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)
