"""Charts drawn with characters. Each curve's name stands where the curve ends."""

from __future__ import annotations

from collections.abc import Callable

from chainrule.utils.braille import MARKS, Canvas

from .chart import Axis, Chart, axes, label

COLOURS = (36, 33, 32, 35, 34, 31)      # cyan, yellow, green, magenta, blue, red (ECMA-48, SGR)
BOLD, DIM = 1, 2
HEIGHT = 12
NAMES = 22                # characters of a name beside a curve at most


def chart_lines(chart: Chart, width: int = 80, height: int = HEIGHT, colour: bool = False,
                unicode: bool = True) -> list[str]:
    """The chart as lines of at most `width` characters.

    >>> from chainrule.explain.measured.chart import Curve
    >>> line = Curve("line", (0, 1, 2), (0, 1, 2))
    >>> print("\\n".join(chart_lines(Chart("y = x", "x", "y", (line,)), 40, 5)))
    y = x
       y
     2 ┤                             ⣀⡠⠤⠔⠂
       │                     ⢀⣀⡠⠤⠔⠒⠉⠉
       │              ⢀⣀⡠⠤⠒⠒⠉⠁
       │      ⢀⣀⡠⠤⠔⠒⠊⠉⠁
     0 ┤ ⠠⠔⠒⠊⠉⠁
       └───────────────────────────────────
         0                               2
        x
    """

    def paint(text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colour and text.strip() else text

    def name(tick: float, log: bool = False) -> str:
        return label(tick, log) if unicode else f"{tick:g}"

    across, up = axes(chart, (max(2, width // 14), max(2, height // 3)))
    ticks = {round((1 - up.share(tick)) * (height - 1)): name(tick, up.log) for tick in up.ticks}
    margin = max(map(len, ticks.values()), default=1)
    names = [curve.name[:NAMES] for curve in chart.curves]
    beside = max(map(len, names)) + (2 if unicode else 4) if len(names) > 1 else 0
    columns = max(16, width - margin - beside - 4)
    canvas = Canvas(columns, height, unicode)
    ends: dict[int, tuple[int, float]] = {}
    upright = {round(across.share(place) * (columns - 1)) for place, _ in chart.lines}
    for index, curve in enumerate(chart.curves):
        corners = [(round(across.share(x) * (canvas.width - 1)),
                    round((1 - up.share(y)) * (canvas.height - 1))) for x, y in curve.points(chart)]
        canvas.line(corners, index)
        if corners and beside:
            # where curves end together, their order on the way tells which is which
            middle = sum(y for _, y in corners) / len(corners)
            ends[index] = max(corners)[1] // canvas.down, middle
    rows = apart(ends, height)
    lines = [paint(chart.title, BOLD), f"{'':>{margin}}  {chart.y}"]
    for row in range(height):
        drawn = ""
        for column, (mark, owner) in enumerate(canvas.row(row)):
            if owner is not None:
                drawn += paint(mark, COLOURS[owner % len(COLOURS)])
            else:
                drawn += paint("┊" if unicode else "|", DIM) if column in upright else " "
        line = f" {ticks.get(row, ''):>{margin}} {'┤' if row in ticks else '│'}{drawn}"
        if row in rows:
            mark = "" if unicode else f"{MARKS[rows[row] % len(MARKS)]} "
            line += " " + paint(mark + names[rows[row]], COLOURS[rows[row] % len(COLOURS)])
        lines.append(line.rstrip())
    lines.append(f" {'':>{margin}} └" + "─" * columns)
    lines.append(f" {'':>{margin}}  " + below(across, columns, name))
    words = [f"┊ {text}" for _, text in chart.lines]
    lines.append(f" {'':>{margin}}  " + "   ".join([chart.x, *words]))
    return lines


def below(across: Axis, columns: int, name: Callable[[float, bool], str]) -> str:
    """The labels under the axis, each centred under its place, those that fit."""
    line = ""
    for tick in across.ticks:
        text = name(tick, across.log)
        place = round(across.share(tick) * (columns - 1)) - len(text) // 2
        place = min(max(place, 0), columns - len(text))
        if not line or place > len(line):
            line = line.ljust(place) + text
    return line


def apart(ends: dict[int, tuple[int, float]], height: int) -> dict[int, int]:
    """A row of its own for each name, in their order, near to where each curve ends."""
    ordered = sorted(ends.items(), key=lambda item: item[1])
    rows: list[int] = []
    for _, (wanted, _) in ordered:
        rows.append(max(wanted, rows[-1] + 1 if rows else 0))
    for place in reversed(range(len(rows))):             # what ran over the lower edge moves up
        limit = rows[place + 1] - 1 if place + 1 < len(rows) else height - 1
        rows[place] = min(rows[place], limit)
    return {row: index for row, (index, _) in zip(rows, ordered, strict=True) if row >= 0}
