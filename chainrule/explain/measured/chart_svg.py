"""Charts as SVG, for light and dark pages, readable without colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .chart import Chart, axes, label

# Okabe & Ito, "Color universal design" (2008): told apart by readers with any kind of colour
# vision. Yellow is left out, it is too faint on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "1 2")
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 50, 44
ROW = 14                  # of the legend
LETTER = 6.1              # points a character of the legend needs, measured for 11 px sans-serif
MARKED = 24               # curves with more points get no circles

STYLE = """\
.cr-chart{color-scheme:light dark;font:11px system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
.cr-chart .page{fill:#fff}.cr-chart text{fill:#24292f}.cr-chart .title{font-size:13px;
font-weight:600}.cr-chart .grid{stroke:#d8dee4;stroke-width:1}.cr-chart .frame{stroke:#57606a;
stroke-width:1;fill:none}.cr-chart .mark{stroke:#57606a;stroke-dasharray:3 3}
.cr-chart .curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
@media(prefers-color-scheme:dark){.cr-chart .page{fill:#0d1117}.cr-chart text{fill:#e6edf3}
.cr-chart .grid{stroke:#30363d}.cr-chart .frame{stroke:#8b949e}.cr-chart .mark{stroke:#8b949e}}
"""


def charts_svg(charts: Sequence[Chart], columns: int = 2) -> str:
    """All charts on one page, so many beside each other, as a complete SVG document."""
    columns = min(columns, max(1, len(charts)))
    rows = -(-len(charts) // columns)
    width, height = columns * WIDTH, rows * HEIGHT
    parts = [(f'<svg xmlns="http://www.w3.org/2000/svg" class="cr-chart" role="img" '
             f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'),
             f"<title>{escape('; '.join(chart.title for chart in charts))}</title>",
             f"<style>{STYLE}</style>", f'<rect class="page" width="{width}" height="{height}"/>']
    for number, chart in enumerate(charts):
        row, column = divmod(number, columns)
        parts += [f'<g transform="translate({column * WIDTH} {row * HEIGHT})">', *_panel(chart),
                  "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(chart: Chart) -> list[str]:
    across, up = axes(chart)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    legend, rows = _legend(chart, right)
    top = TOP + ROW * max(0, rows - 1)
    wide, high = right - LEFT, bottom - top

    def x_of(value: float) -> float:
        return round(LEFT + across.share(value) * wide, 1)

    def y_of(value: float) -> float:
        return round(bottom - up.share(value) * high, 1)

    parts = [f'<text class="title" x="{LEFT}" y="20">{escape(chart.title)}</text>',
             *legend]
    for tick in up.ticks:
        y = y_of(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>'
                     f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">'
                     f"{label(tick, up.log)}</text>")
    for tick in across.ticks:
        x = x_of(tick)
        parts.append(f'<path class="grid" d="M{x} {top}V{bottom}"/>'
                     f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">'
                     f"{label(tick, across.log)}</text>")
    parts.append(f'<path class="frame" d="M{LEFT} {top}V{bottom}H{right}"/>')
    for number, (place, text) in enumerate(chart.lines):
        x = x_of(place)
        left = x > LEFT + wide / 2
        anchor, beside = ("end", x - 4) if left else ("start", x + 4)
        parts.append(f'<path class="mark" d="M{x} {top}V{bottom}"/>'
                     f'<text x="{beside:.1f}" y="{top + 12 + ROW * (number % 2)}" '
                     f'text-anchor="{anchor}">{escape(text)}</text>')
    for number, curve in enumerate(chart.curves):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x_of(x), y_of(y)) for x, y in curve.points(chart)]
        if not places:
            continue
        line = "L".join(f"{x} {y}" for x, y in places)
        dash = DASHES[number % len(DASHES)]
        parts.append(f'<path class="curve" stroke="{colour}"'
                     + (f' stroke-dasharray="{dash}"' if dash else "")
                     + f' d="M{line}"><title>{escape(curve.name)}</title></path>')
        if len(places) <= MARKED:
            parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
    parts.append(f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">'
                 f"{escape(chart.x)}</text>")
    middle = (top + bottom) / 2
    parts.append(f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">'
                 f"{escape(chart.y)}</text>")
    return parts


def _legend(chart: Chart, right: int) -> tuple[list[str], int]:
    """A piece of each line and its name, under the title, in as many rows as are needed."""
    if len(chart.curves) < 2:
        return [], 0
    parts = []
    x, row = float(LEFT), 0
    for number, curve in enumerate(chart.curves):
        needed = 30 + LETTER * len(curve.name) + 12
        if x > LEFT and x + needed > right + 12:
            x, row = float(LEFT), row + 1
        y = 34 + ROW * row
        dash = DASHES[number % len(DASHES)]
        parts.append(f'<path class="curve" stroke="{COLOURS[number % len(COLOURS)]}"'
                     + (f' stroke-dasharray="{dash}"' if dash else "")
                     + f' d="M{x:.1f} {y}h24"/><text x="{x + 29:.1f}" y="{y + 4}">'
                     f"{escape(curve.name)}</text>")
        x += needed
    return parts, row + 1
