"""An arranged drawing as SVG 1.1 text: no scripts, no fonts or files from outside, light and dark.

Colours follow what teaching texts use for computational graphs: values green, gradients red.
Widths of lines tell the size of the gradient that flows back along them, on a log scale.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from .compose import Drawing
from .facts import number
from .lettering import printable
from .scene import (
    ARROW,
    LINE,
    SMALL,
    Box,
    Frame,
    Line,
    Part,
    Piece,
    Stroke,
    Wire,
    line_width,
)

MARGIN = 16.0
THINNEST, THICKEST = 1.2, 6.0
LEAST, DECADES = 2, 6        # powers of ten from the thickest to the thinnest line
NARROWEST = 340.0            # room for the legend below a small drawing
SAMPLE = 26.0                # length of a line in the legend

FONT = ("system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'Noto Sans',"
        "'DejaVu Sans',sans-serif")
STYLE = """.crp text{font-family:FONT;fill:#1f2430;white-space:pre}
.crp .name{font-weight:600}.crp .value{fill:#0b6e4f}
.crp .gradient,.crp .factor{fill:#b3261e}.crp .quiet,.crp .shape{fill:#667085}
.crp .alarm{fill:#9c00b8;font-weight:600}
.crp .paper{fill:#ffffff}.crp .frame{fill:#4a6fae;fill-opacity:.06;stroke:#c3cddf}
.crp .box rect{fill:#ffffff;stroke:#98a2b3}.crp .leaf rect{fill:#eaf2ff;stroke:#3b76c9}
.crp .constant rect{fill:#f4f3ef;stroke:#c9c5b8}.crp .loss rect{fill:#fff4e0;stroke:#d08a1d}
.crp .folded rect{fill:#f3f5fa;stroke:#66748f}
.crp path{fill:none;stroke:#d0655b}.crp .tip{fill:#d0655b;stroke:none}
.crp .plain path{stroke:#a8b0bd}.crp .plain .tip{fill:#a8b0bd;stroke:none}
.crp .zero path{stroke:#a8b0bd;stroke-dasharray:4 3}.crp .zero .tip{fill:#a8b0bd;stroke:none}
.crp .lost path{stroke:#b400d2;stroke-dasharray:2 2}.crp .lost .tip{fill:#b400d2;stroke:none}
@media (prefers-color-scheme:dark){
.crp text{fill:#e4e7ec}.crp .value{fill:#6fd3a7}.crp .gradient,.crp .factor{fill:#ff9a8f}
.crp .quiet,.crp .shape{fill:#98a2b3}.crp .alarm{fill:#ee8cff}
.crp .paper{fill:#14171d}.crp .frame{fill:#8fb0ee;fill-opacity:.07;stroke:#3a4558}
.crp .box rect{fill:#1d222b;stroke:#5b6577}.crp .leaf rect{fill:#17263d;stroke:#5b93e0}
.crp .constant rect{fill:#23231f;stroke:#55534a}.crp .loss rect{fill:#33270f;stroke:#d39a3a}
.crp .folded rect{fill:#222833;stroke:#8592aa}
.crp path{stroke:#c0594f}.crp .tip{fill:#c0594f}
.crp .plain path,.crp .zero path{stroke:#5d6675}.crp .plain .tip,.crp .zero .tip{fill:#5d6675}
}""".replace("FONT", FONT)


class Scale(NamedTuple):
    """From the size of a gradient to the width of a line, by its logarithm."""

    least: float
    greatest: float

    @staticmethod
    def of(found: Iterable[float | None]) -> Scale:
        """The scale for these gradients; those that are zero or not finite have no width."""
        known = [size for size in found if size and math.isfinite(size)]
        if not known:
            return Scale(0.0, 0.0)
        high = math.log10(max(known))
        low = math.log10(min(known))
        return Scale(min(max(low, high - DECADES), high - LEAST), high)

    def width(self, size: float) -> float:
        place = (math.log10(size) - self.least) / (self.greatest - self.least)
        return THINNEST + (THICKEST - THINNEST) * min(1.0, max(0.0, place))


def written(drawing: Drawing, loss: str, right: bool, backward: bool, summary: str,
            width: float | None) -> tuple[str, tuple[float, float]]:
    """The SVG of a drawing that was laid out, and its width and height in pixels."""
    scene = drawing.scene
    scale = Scale.of(drawing.sizes.values())
    room = max(scene.width, NARROWEST)
    shift = (room - scene.width) / 2
    body: list[str] = []
    for frame in scene.root.frames():
        body += _frame(frame)
    # Boxes cover the ends of lines, wide lines lie below narrow ones.
    ordered = sorted(scene.strokes, key=lambda s: -(drawing.sizes[s.part] or 0.0)
                     if math.isfinite(drawing.sizes[s.part] or 0.0) else 0.0)
    for stroke in ordered:
        body += _stroke(stroke, drawing.sizes[stroke.part], scale, right, backward)
    for box in scene.root.boxes():
        body += _box(box)
    for stroke in scene.strokes:
        body += _note(stroke)
    legend, below = _legend(drawing, loss, scale, room, backward)
    whole = (room + 2 * MARGIN, scene.height + 3 * MARGIN + below)
    head = f"Computational graph of {loss}"
    lines = [
        f'<rect class="paper" width="{_n(whole[0])}" height="{_n(whole[1])}" rx="8"/>',
        f'<g transform="translate({_n(MARGIN + shift)} {_n(MARGIN)})">', *body, "</g>",
        f'<g transform="translate({_n(MARGIN)} {_n(scene.height + 2 * MARGIN)})">', *legend, "</g>",
        "</svg>", ""]
    content = "\n".join([f"<desc>{_text(summary)}</desc>", f"<style>{STYLE}</style>", *lines])
    name = "crp-" + hashlib.sha256(content.encode()).hexdigest()[:10]
    content = content.replace("<desc>", f'<desc id="{name}-d">', 1)
    shown = whole if width is None else (width, width * whole[1] / whole[0])
    text = (f'<svg xmlns="http://www.w3.org/2000/svg" class="crp" role="img" '
            f'width="{_n(shown[0])}" height="{_n(shown[1])}" '
            f'viewBox="0 0 {_n(whole[0])} {_n(whole[1])}" style="max-width:100%;height:auto" '
            f'aria-labelledby="{name}-t {name}-d">\n'
            f'<title id="{name}-t">{_text(head)}</title>\n{content}')
    return text, shown


def _n(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return "0" if text == "-0.0" else text.removesuffix(".0")


def _text(text: str) -> str:
    return "\n".join(escape(printable(line)) for line in text.split("\n"))


# ---------------------------------------------------------------- boxes and frames


def _frame(frame: Frame) -> list[str]:
    lines = [f"<g><title>{_text(frame.tooltip)}</title>"]
    lines += [f'<rect class="frame" x="{_n(frame.x + 4 * k)}" y="{_n(frame.y + 4 * k)}" '
              f'width="{_n(frame.width)}" height="{_n(frame.height)}" rx="8"/>'
              for k in ((1, 0) if frame.copies > 1 and "×" in frame.label[0].text else (0,))]
    return [*lines, _line(frame.label, frame.x + 12, frame.y + 16, SMALL), "</g>"]


def _box(box: Box) -> list[str]:
    lines = [f'<g class="box {box.kind}"><title>{_text(box.tooltip)}</title>']
    stacked = box.kind == "folded" and "×" in box.lines[0][0].text
    radius = box.height / 2 if box.kind == "constant" and len(box.lines) == 1 else 6
    lines += [f'<rect x="{_n(box.x + 3 * k)}" y="{_n(box.y + 3 * k)}" width="{_n(box.width)}" '
              f'height="{_n(box.height)}" rx="{_n(radius)}"/>'
              for k in ((1, 0) if stacked else (0,))]
    free = (box.height - LINE * len(box.lines)) / 2
    for i, line in enumerate(box.lines):
        left = box.x + (box.width - line_width(line)) / 2
        lines.append(_line(line, left, box.y + free + LINE * i + 11.5, None,
                           box.x + box.width / 2))
    return [*lines, "</g>"]


def _line(line: Line, left: float, base: float, size: float | None = None,
          middle: float | None = None) -> str:
    """A line of text; around its middle where a font is narrower than the table says."""
    anchor = f' x="{_n(left)}"' if middle is None else f' x="{_n(middle)}" text-anchor="middle"'
    spans = "".join(f'<tspan class="{piece.role}" font-size="{_n(size or piece.size)}">'
                    f"{_text(piece.text)}</tspan>" for piece in line)
    return f'<text{anchor} y="{_n(base)}">{spans}</text>'


# ---------------------------------------------------------------- lines


def _kind(size: float | None, backward: bool) -> str:
    if not backward or size is None:
        return "plain"
    if not math.isfinite(size):
        return "lost"
    return "flow" if size else "zero"


def _stroke(stroke: Stroke, size: float | None, scale: Scale, right: bool,
            backward: bool) -> list[str]:
    kind = _kind(size, backward)
    thick = scale.width(size) if kind == "flow" and size else THINNEST
    points = list(stroke.points)
    tip = ""
    if stroke.arrow:
        x, y = points[-1]
        half = 3.0 + thick / 2
        points[-1] = (x - ARROW + 1, y) if right else (x, y - ARROW + 1)
        corners = ([(x, y), (x - ARROW, y - half), (x - ARROW, y + half)] if right else
                   [(x, y), (x - half, y - ARROW), (x + half, y - ARROW)])
        tip = f'<path class="tip" d="M{" L".join(f"{_n(a)} {_n(b)}" for a, b in corners)} Z"/>'
    wire = _wire(stroke.part)
    told = "" if size is None or not backward else (
        f"\n{'gradient along this line' if stroke.arrow else 'gradient through here'}: "
        f"{number(size) if math.isfinite(size) else size}")
    return [f'<g class="line {kind}"><title>{_text((wire.tooltip if wire else "") + told)}</title>',
            f'<path d="{curve(points, right)}" stroke-width="{_n(thick)}"/>{tip}</g>']


def _wire(part: Part) -> Wire | None:
    return part.net.wires.get(part.item) if isinstance(part.item, Box) else None


def curve(points: Sequence[tuple[float, float]], right: bool) -> str:
    """Straight where two corners face each other, else a curve that leaves and arrives straight."""
    text = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for (x, y), (u, v) in pairwise(points):
        if abs(x - u) < 0.05 or abs(y - v) < 0.05:
            text.append(f"L{_n(u)} {_n(v)}")
        elif right:
            text.append(f"C{_n((x + u) / 2)} {_n(y)} {_n((x + u) / 2)} {_n(v)} {_n(u)} {_n(v)}")
        else:
            text.append(f"C{_n(x)} {_n((y + v) / 2)} {_n(u)} {_n((y + v) / 2)} {_n(u)} {_n(v)}")
    return " ".join(text)


def _note(stroke: Stroke) -> list[str]:
    wire = _wire(stroke.part)
    if stroke.note is None or wire is None:
        return []
    x, y = stroke.note
    return [_line(wire.label, x, y + 4)]


# ---------------------------------------------------------------- what it all means


def _legend(drawing: Drawing, loss: str, scale: Scale, room: float,
            backward: bool) -> tuple[list[str], float]:
    """What colours, signs and widths mean, in rows of the given width, and their height."""
    entries: list[tuple[str, float | None, Line]] = []
    kinds = {_kind(size, backward) for size in drawing.sizes.values()}
    entries.append(("", None, (Piece("value", "value"),)))
    if backward:
        entries.append(("", None, (Piece(f"gradient ∂{loss}/∂…", "gradient"),)))
        wires = [wire for net in drawing.scene.nets for wire in net.wires.values()]
        if any(piece.role == "factor" for wire in wires for piece in wire.label):
            entries.append(("", None, (Piece("×", "factor"),
                                       Piece(" local derivative", "quiet"))))
    if drawing.statistics:
        entries.append(("", None, (Piece("mean ± standard deviation", "value"),)))
        if backward:
            entries.append(("", None, (Piece("‖g‖", "gradient"),
                                       Piece(" norm of the gradient", "quiet"))))
            if any(piece.text.startswith("‖gθ‖") for box in drawing.told for line in box.lines
                   for piece in line):
                entries.append(("", None, (Piece("‖gθ‖", "gradient"),
                                           Piece(" of its parameters", "quiet"))))
    if "flow" in kinds:
        found = [size for size in drawing.sizes.values() if size and math.isfinite(size)]
        for size in sorted({max(found), min(found)}, reverse=True):
            many = "less than " if size < 0.99 * 10 ** scale.least else ""
            shown = max(size, 10 ** scale.least)
            entries.append(("flow", scale.width(shown), (
                Piece(f"{many}{number(float(f'{shown:.2g}'))} flows back", "quiet"),)))
    if "zero" in kinds:
        entries.append(("zero", THINNEST, (Piece("zero gradient", "quiet"),)))
    if "lost" in kinds:
        entries.append(("lost", THINNEST, (Piece("nan or ∞", "alarm"),)))
    if "plain" in kinds and backward:
        entries.append(("plain", THINNEST, (Piece("no gradient", "quiet"),)))
    lines: list[str] = []
    x, y = 0.0, 0.0
    for kind, thick, pieces in entries:
        long = line_width(pieces) + (SAMPLE + 6 if kind else 0)
        if x and x + long > room:
            x, y = 0.0, y + LINE
        if kind:
            lines.append(f'<g class="line {kind}"><path d="M{_n(x)} {_n(y + 6)} '
                         f'L{_n(x + SAMPLE)} {_n(y + 6)}" stroke-width="{_n(thick or 1)}"/></g>')
        lines.append(_line(pieces, x + (SAMPLE + 6 if kind else 0), y + 10))
        x += long + 16
    return lines, y + LINE

