"""A report of measurements: sentences, tables and charts, written as text, HTML, SVG or JSON."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from html import escape
from pathlib import Path
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.explain.numbers import Style
from chainrule.explain.styles.text import paint_with, table, wrapped

from .chart import Chart
from .chart_png import figure_class, save_png
from .chart_svg import charts_svg
from .chart_text import chart_lines

NARROWEST, WIDEST = 60, 120
ENDINGS = (".txt", ".svg", ".png", ".html", ".json")
YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first row the heading; columns named in `right` end flush."""

    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; charts in `more` are left out of the text."""

    heading: str
    parts: tuple[str | Table | Chart, ...]
    more: tuple[Chart, ...] = ()


class Report:
    """What was measured: `str()` and `.text()` for reading, `.found` for computing further.

    `found` holds the measurements as dataclasses, by name. `charts` are the pictures; `.svg()`
    draws them on one page, `.html()` puts text, tables and pictures into one file, `.json()` gives
    numbers and charts, and `.save(name)` writes what the ending says: .txt, .svg, .png (needs
    matplotlib), .html or .json. In a notebook it shows itself.
    """

    def __init__(self, title: str, sections: Sequence[Section], found: dict[str, Any]) -> None:
        self.title = title
        self.sections = tuple(sections)
        self.found = found

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Every chart of the report."""
        return tuple(chart for section in self.sections for chart in
                     (*(p for p in section.parts if isinstance(p, Chart)), *section.more))

    def text(self, width: int | None = None, colour: bool = False, unicode: bool = True) -> str:
        """Lines of at most `width` characters where that is possible."""
        columns = shutil.get_terminal_size((100, 24)).columns if width is None else width
        columns = max(NARROWEST, min(columns, WIDEST))
        paint = paint_with(colour)
        lines: list[str] = []
        for section in self.sections:
            whole = len(section.heading) <= columns
            heading = [section.heading] if whole else wrapped(section.heading, columns)
            lines += ["", *(paint(line, "bold") for line in heading)]
            for before, part in zip((None, *section.parts), section.parts, strict=False):
                # sentences that follow one another belong together
                if not (isinstance(before, str) and isinstance(part, str)):
                    lines.append("")
                if isinstance(part, str):
                    lines += wrapped(part, columns)
                elif isinstance(part, Table):
                    lines += table_lines(part, columns)
                else:
                    lines += chart_lines(part, min(columns, 90), colour=colour, unicode=unicode)
        return "\n".join(lines[1:])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def svg(self) -> str:
        """All charts as one SVG document, for light and dark pages."""
        return charts_svg(self.charts)

    def html(self) -> str:
        """A page of its own, without scripts."""
        return (f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
                f"<title>{escape(self.title)}</title>\n"
                '<meta name="viewport" content="width=device-width">\n'
                f"<body>\n{self._repr_html_()}</body>\n</html>\n")

    def _repr_html_(self) -> str:
        parts = [f"<style>{PAGE}</style>", '<div class="cr-report">',
                 f"<h1>{escape(self.title)}</h1>"]
        for section in self.sections:
            parts.append(f"<h2>{escape(section.heading)}</h2>")
            for part in (*section.parts, *section.more):
                if isinstance(part, str):
                    parts.append(f"<p>{escape(part)}</p>")
                elif isinstance(part, Table):
                    parts.append(_html_table(part))
                else:
                    parts.append(charts_svg([part]))
        return "\n".join([*parts, "</div>"]) + "\n"

    def data(self) -> dict[str, Any]:
        """Title, measurements and charts as JSON's own types."""
        return {"title": self.title, "found": plain(self.found),
                "charts": [chart.to_json() for chart in self.charts]}

    def json(self) -> str:
        """`data()` as text. What is not a number (NaN, infinity) is null."""
        return json.dumps(self.data(), indent=1, ensure_ascii=False, allow_nan=False)

    def save(self, path: Any) -> None:
        """Write a file; its ending says what. SettingError for other endings."""
        place = writable(path)
        ending = place.suffix.lower()
        if ending == ".png":
            save_png(self.charts, place)
            return
        text = {".txt": self.text, ".svg": self.svg, ".html": self.html, ".json": self.json}
        place.write_text(text[ending]().rstrip("\n") + "\n", encoding="utf-8")


def writable(path: Any) -> Path:
    """The path, if its ending can be written here; to be asked before measuring for long."""
    place = Path(path)
    if place.suffix.lower() not in ENDINGS:
        raise SettingError(f"{str(path)!r}: the ending says what to write, and "
                           f"{place.suffix or 'none'!r} is not one of {', '.join(ENDINGS)}")
    if place.suffix.lower() == ".png":
        figure_class(place)
    return place


PAGE = """\
.cr-report{color-scheme:light dark;max-width:60rem;margin:1rem auto;padding:0 1rem;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.cr-report h1{font-size:1.4rem}.cr-report h2{font-size:1.05rem;margin-top:2rem}
.cr-report table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
.cr-report th,.cr-report td{padding:.15rem .7rem;text-align:left;
border-bottom:1px solid #8884}.cr-report .right{text-align:right}
.cr-report svg{max-width:100%;height:auto;margin:.5rem 0}
"""


def _html_table(part: Table) -> str:
    lines = ["<table>"]
    for number, row in enumerate(part.rows):
        kind = "td" if number else "th"
        cells = "".join(f"<{kind}{' class=right' if i in part.right else ''}>{escape(cell)}"
                        f"</{kind}>" for i, cell in enumerate(row))
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</table>"])


def table_lines(part: Table, width: int) -> list[str]:
    """The table as text; where it is a little too wide, its columns stand closer."""
    for gap in (3, 2, 1):
        widths = [max(map(len, column)) for column in zip(*part.rows, strict=True)]
        whole = sum(widths) + gap * (len(widths) - 1)
        if whole + 2 <= width:
            lines = ["  " + (" " * gap).join(
                f"{cell:>{wide}}" if i in part.right else f"{cell:<{wide}}"
                for i, (cell, wide) in enumerate(zip(row, widths, strict=True))).rstrip()
                for row in part.rows]
            return [lines[0], "  " + "─" * whole, *lines[1:]]
    return table(part.rows, width, part.right)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and numbers as JSON's own types; None for NaN and infinities."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [*(field.name for field in fields(value)),
                 *(name for name, kind in vars(type(value)).items() if isinstance(kind, property))]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


# ---------------------------------------------------------------- numbers in sentences

SHORT = Style(3)


def number(value: float | None) -> str:
    """Three digits; '–' where there is no number.

    >>> number(0.57735), number(3e-26), number(None)
    ('0.577', '3e−26', '–')
    """
    return "–" if value is None or math.isnan(value) else SHORT.number(value)


def percent(share: float | None) -> str:
    """48 %."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """1.5 ms, 12 s, 5.6 minutes, 1.1 years: three digits and a unit."""
    for unit, size in (("years", YEAR), ("days", 86400), ("hours", 3600), ("minutes", 60),
                       ("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{three(seconds / size)} {unit}"
    return f"{three(seconds * 1e6)} µs"


def three(value: float) -> str:
    """Three digits, and commas between thousands."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
