"""A report as one HTML file without scripts: findings, and charts of what was measured."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html import escape
from typing import TypeVar

from chainrule.core.node import Origin
from chainrule.explain.measured.chart import Chart, Curve
from chainrule.explain.measured.chart_svg import charts_svg

from .history import Run, Step
from .report import Report, counted, first_seen
from .rule import RULES

Thing = TypeVar("Thing")
MOST = 6               # curves in a chart: the colours that can be told apart
TITLE = 50             # characters of a title that fit over a chart

STYLE = """\
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
max-width:62rem;margin:2rem auto;padding:0 1rem;color:#24292f;background:#fff}
article{border-left:.3rem solid #57606a;padding:.1rem 1rem;margin:1rem 0}
article.error{border-color:#d55e00}article.warning{border-color:#e69f00}
h2{font-size:1.05rem;margin:.5rem 0}pre{background:#f6f8fa;padding:.6rem .8rem;overflow-x:auto;
border-radius:.3rem}figure{margin:1.5rem 0;display:grid;gap:.5rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
figure svg{width:100%;height:auto}p,h2{overflow-wrap:anywhere}.message{white-space:pre-wrap}
.place{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.9rem}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}}
"""


def html_of(report: Report) -> str:
    """The whole page."""
    stopped = report.stopped
    errors = sum(f.severity == "error" for f in report.findings)
    head = (f"{counted(len(report.findings), 'finding')}, {errors} of error level"
            if report.findings else "stopped by an error" if stopped is not None
            else "nothing to look at" if report.idle else "nothing found")
    about = f"chainrule doctor {report.program}".strip()
    parts = ['<!doctype html>', '<html lang="en"><head><meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width,initial-scale=1">',
             f"<title>{escape(about)}: {escape(head)}</title><style>{STYLE}</style></head><body>",
             "<h1>chainrule doctor</h1>"]
    if report.program:
        parts.append(f'<p class="place">{escape(report.program)}</p>')
    if report.findings or stopped is not None:      # else the next sentence says it
        parts.append(f"<p>{escape(head)}</p>")
    parts += [f"<p>{escape(sentence)}</p>" for sentence in report.closing()]
    if stopped is not None:
        parts.append(f'<article class="error"><h2>{escape(stopped.sentence(False))}</h2>')
        if stopped.message.strip():
            parts.append(f'<p class="message">{escape(stopped.message.strip())}</p>')
        if stopped.place.file:
            parts.append(_place(stopped.place))
        parts.append("</article>")
    for f in report.findings:
        title = RULES[f.rule].title if f.rule in RULES else ""
        parts.append(f'<article class="{f.severity}"><h2>{f.rule} {f.severity}: '
                     f"{escape(title)}</h2><p>{escape(f.what)}</p>")
        if f.place.file:
            parts.append(_place(f.place, first_seen(f)))
        elif f.step:
            parts.append(f"<p>{first_seen(f)}</p>")
        parts.append(f"<p>{escape(f.why)}</p><p>Cure:</p><pre>{escape(f.cure)}</pre></article>")
    charts = charts_of(report.run)
    drawn = [chart for chart in charts if any(curve.points(chart) for curve in chart.curves)]
    parts += [f"<p>{escape(chart.title)}: {escape(chart.lines[0][1])}</p>" for chart in charts
              if chart.lines and chart not in drawn]
    if drawn:                # each by itself, so that a narrow page puts them below each other
        pictures = "".join(charts_svg([chart]) for chart in drawn)
        parts.append(f"<figure>{pictures}</figure>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _place(place: Origin, seen: str = "") -> str:
    where = f"{os.path.basename(place.file)}:{place.line}" + (f", {seen}" if seen else "")
    source = place.source()
    return f'<p class="place">{escape(where)}</p>' + (
        f"<pre>{escape(source)}</pre>" if source else "")


def charts_of(run: Run) -> list[Chart]:
    """The loss; and for the layers, over the steps that were looked at closely: gradients, sizes of
    steps, and how much the activations spread. Steps are counted from 0, as in a finding.
    """
    steps = [step for step in run.looked if step.parameters]
    finite = [loss for loss in run.losses if math.isfinite(loss)]
    charts = [Chart("loss", "step", "loss", (
        Curve("loss", tuple(range(len(run.losses))), tuple(run.losses)),),
        log_y=bool(finite) and min(finite) > 0)]
    if not steps:
        return [_told(chart) for chart in charts]
    latest = max(steps, key=lambda step: len(step.parameters))
    weights = _spread([name for name, p in latest.parameters.items() if p.ndim > 1])
    charts.append(Chart("gradient norm", "step", "norm", tuple(
        _curve(name, steps, partial(_gradient, name)) for name in weights), log_y=True))
    charts.append(Chart("size of the step over size of the weight", "step", "ratio", tuple(
        _curve(name, steps, partial(_ratio, name)) for name in weights), log_y=True))
    places = _spread(list(range(max(len(s.activations) for s in steps))))
    charts.append(Chart("deviation of the activations", "step", "deviation", tuple(
        _curve(_activation(steps, i), steps, partial(_deviation, i)) for i in places),
        log_y=True))
    return [_told(chart) for chart in charts]


def _told(chart: Chart) -> Chart:
    """The chart with the name of its only curve, and with a word where a curve breaks off."""
    if len(chart.curves) == 1 and chart.curves[0].name != chart.title:
        name, room = chart.curves[0].name, TITLE - len(chart.title)
        chart = replace(chart, title=f"{chart.title}: "
                        + (name if len(name) <= room else f"…{name[-max(room, 9):]}"))
    ends = [(x, what, curve.name) for curve in chart.curves for x, what in _broken_off(curve)]
    if ends:
        x, what, name = min(ends)
        own = f"{name}: " if len(ends) < len(chart.curves) else ""
        chart = replace(chart, lines=((x, f"{own}{what} from step {x:g} on"),))
    return chart


def _broken_off(curve: Curve) -> list[tuple[float, str]]:
    """From which step on are there no finite values to the end, and what is there instead?"""
    known = [(x, y) for x, y in zip(curve.xs, curve.ys, strict=True) if y is not None]
    count = len(known)
    while count and not math.isfinite(known[count - 1][1]):
        count -= 1
    if count == len(known):
        return []
    x, y = known[count]
    return [(x, "not a number" if math.isnan(y) else "infinite")]


def _curve(name: str, steps: list[Step], read: Callable[[Step], float | None]) -> Curve:
    return Curve(name, tuple(s.number for s in steps), tuple(read(s) for s in steps))


def _spread(things: list[Thing]) -> list[Thing]:
    """So many of them that can be drawn: the first, the last and some between."""
    if len(things) <= MOST:
        return things
    return [things[round(i * (len(things) - 1) / (MOST - 1))] for i in range(MOST)]


def _gradient(name: str, step: Step) -> float | None:
    seen = step.parameters.get(name)
    return None if seen is None or seen.gradient is None else seen.gradient.norm


def _ratio(name: str, step: Step) -> float | None:
    seen = step.parameters.get(name)
    if seen is None or seen.update is None or not seen.weight.norm > 0:
        return None
    return seen.update / seen.weight.norm


def _activation(steps: list[Step], index: int) -> str:
    seen = next(s.activations[index] for s in steps if index < len(s.activations))
    return f"{seen.operation} {seen.module}".strip()


def _deviation(index: int, step: Step) -> float | None:
    return step.activations[index].value.deviation if index < len(step.activations) else None
