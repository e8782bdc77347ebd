"""Charts as PNG, drawn by matplotlib where it is installed: chainrule itself does not need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chainrule.core.errors import MissingPackageError

from .chart import Chart
from .chart_svg import COLOURS, MARKED

LINES = ("-", "--", ":", "-.")


def figure_class(path: Path) -> Any:
    """Matplotlib's Figure; MissingPackageError where it is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError(
            f"{path}: PNG needs matplotlib, which is not installed. Write pip install matplotlib, "
            f"or save {path.with_suffix('.svg').name}, which needs nothing.") from error
    return Figure


def save_png(charts: Sequence[Chart], path: Path, columns: int = 2) -> None:
    """Write all charts into one picture."""
    figure_of = figure_class(path)
    columns = min(columns, max(1, len(charts)))
    rows = -(-len(charts) // columns)
    figure = figure_of(figsize=(4.6 * columns, 3.2 * rows), dpi=150, layout="constrained")
    for number, chart in enumerate(charts):
        _draw(figure.add_subplot(rows, columns, number + 1), chart)
    figure.savefig(path, format="png")


def _draw(plot: Any, chart: Chart) -> None:
    for number, curve in enumerate(chart.curves):
        points = curve.points(chart)
        plot.plot([x for x, _ in points], [y for _, y in points], label=curve.name,
                  color=COLOURS[number % len(COLOURS)], linestyle=LINES[number % len(LINES)],
                  marker="o" if len(points) <= MARKED else "", markersize=3)
    for place, text in chart.lines:
        plot.axvline(place, color="0.5", linestyle=":", linewidth=1)
        plot.annotate(text, (place, 0.98), xycoords=("data", "axes fraction"), fontsize=7,
                      rotation=90, ha="right", va="top")
    plot.set_title(chart.title, fontsize=10)
    plot.set_xlabel(chart.x, fontsize=8)
    plot.set_ylabel(chart.y, fontsize=8)
    plot.tick_params(which="both", labelsize=7)
    if chart.log_x:
        plot.set_xscale("log")
    if chart.log_y:
        plot.set_yscale("log")
    plot.grid(alpha=0.3)
    if len(chart.curves) > 1:
        plot.legend(fontsize=7)
