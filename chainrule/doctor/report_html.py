"""A report as one HTML file without scripts: findings, and charts of what was measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from html import escape
from typing import TypeVar

from chainrule.explain.measured.chart import Chart, Curve
from chainrule.explain.measured.chart_svg import charts_svg

from .history import Run, Step
from .report import Report
from .rule import RULES

Thing = TypeVar("Thing")
MOST = 6               # curves in a chart: the colours that can be told apart

STYLE = """\
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
max-width:62rem;margin:2rem auto;padding:0 1rem;color:#24292f;background:#fff}
article{border-left:.3rem solid #57606a;padding:.1rem 1rem;margin:1rem 0}
article.error{border-color:#d55e00}article.warning{border-color:#e69f00}
h2{font-size:1.05rem;margin:.5rem 0}pre{background:#f6f8fa;padding:.6rem .8rem;overflow-x:auto;
border-radius:.3rem}figure{margin:1.5rem 0}figure svg{width:100%;height:auto}
.place{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.9rem}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}}
"""


def html_of(report: Report) -> str:
    """The whole page."""
    count = report.steps
    errors = sum(f.severity == "error" for f in report.findings)
    head = (f"{len(report.findings)} finding{'s' * (len(report.findings) != 1)}, {errors} of error "
            f"level" if report.findings else "nothing found")
    parts = ['<!doctype html>', '<html lang="en"><head><meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width,initial-scale=1">',
             f"<title>chainrule doctor: {escape(head)}</title><style>{STYLE}</style></head><body>",
             f"<h1>chainrule doctor</h1><p>{escape(head)}; {count} steps.</p>"]
    for f in report.findings:
        title = RULES[f.rule].title if f.rule in RULES else ""
        parts.append(f'<article class="{f.severity}"><h2>{f.rule} {f.severity}: '
                     f"{escape(title)}</h2><p>{escape(f.what)}</p>")
        if f.place.file:
            parts.append(f'<p class="place">{escape(os.path.basename(f.place.file))}:'
                         f"{f.place.line}</p><pre>{escape(f.place.source())}</pre>")
        parts.append(f"<p>{escape(f.why)}</p><p>Cure:</p><pre>{escape(f.cure)}</pre></article>")
    drawn = [chart for chart in charts_of(report.run)
             if any(curve.points(chart) for curve in chart.curves)]
    if drawn:
        parts.append(f"<figure>{charts_svg(drawn)}</figure>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def charts_of(run: Run) -> list[Chart]:
    """The loss; and for the layers, over the steps that were looked at closely: gradients, sizes of
    steps, and how much the activations spread.
    """
    steps = [step for step in run.looked if step.parameters]
    charts = [Chart("loss", "backward pass", "loss", (
        Curve("loss", tuple(range(1, len(run.losses) + 1)), tuple(run.losses)),),
        log_y=bool(run.losses) and min(run.losses) > 0)]
    if not steps:
        return charts
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
    return charts


def _curve(name: str, steps: list[Step], read: Callable[[Step], float | None]) -> Curve:
    return Curve(name, tuple(s.number + 1 for s in steps), tuple(read(s) for s in steps))


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
