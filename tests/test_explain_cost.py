"""`explain.cost` and the charts: what is counted is counted, what is measured obeys the theory."""

from __future__ import annotations

import importlib.util
import json
import math
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.cli.main import main
from chainrule.core.errors import MissingPackageError, SettingError
from chainrule.explain.measured.applications import count_applications, shared_chain
from chainrule.explain.measured.chart import Chart, Curve, axes, label
from chainrule.explain.measured.chart_svg import charts_svg
from chainrule.explain.measured.chart_text import chart_lines
from chainrule.explain.measured.cost import SMOOTH, SMOOTH_BATCH
from chainrule.explain.measured.document import duration, number, plain
from chainrule.explain.measured.passes import central_difference, measure_passes
from chainrule.explain.measured.problem import dense_problem, network, problem_of
from chainrule.explain.measured.ratios import measure_ratio, measure_step
from chainrule.explain.measured.steps import Curves, measure_steps

PROGRAM = """
import chainrule as cr
from chainrule import nn

x, y = cr.randn(8, 4), cr.randint(0, 3, (8,))
model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def loss_of():
    return nn.functional.cross_entropy(model(x), y)


def noisy():
    return loss_of() + cr.rand(1).sum()
"""


# ---------------------------------------------------------------- C1


def test_passes_are_counted() -> None:
    model = network((784, 256, 256, 256, 10))
    sizes = [p.numel() for p in model.parameters()]
    assert (sum(sizes[::2]), sum(sizes[1::2])) == (334_336, 778)
    measured = measure_passes(dense_problem((4, 3, 2), 8), samples=12)
    assert (measured.weights, measured.biases) == (18, 5)
    assert (measured.one_sided, measured.central) == (24, 46)
    assert measured.sampled == 12
    assert measured.worst < 0.5             # a ReLU may switch within the step
    assert measured.worst_push < 1e-6       # forward mode is exact up to rounding
    assert min(measured.one_pass, measured.push, measured.forward, measured.backward) > 0
    seconds = measured.seconds
    assert seconds["both sides"] == pytest.approx(46 * measured.one_pass)
    assert seconds["forward mode"] == pytest.approx(measured.forward + 23 * measured.push)


def test_backpropagation_wins_by_the_number_of_parameters() -> None:
    seconds = measure_passes(dense_problem((64, 64, 64, 10), 16), samples=10).seconds
    assert min(seconds["one side"], seconds["forward mode"]) > 50 * seconds["backpropagation"]


def test_differences_leave_the_network_as_it_was() -> None:
    problem = dense_problem((4, 3, 2), 8)
    weight = problem.parameters[0]._value
    before = weight.copy()
    with cr.no_grad():
        central_difference(problem.loss, weight, 5, 0.01)
    np.testing.assert_array_equal(weight, before)


# ---------------------------------------------------------------- C2


@pytest.mark.parametrize("parameters", [10**3, 10**4, 10**5])
def test_ratio_has_about_so_many_parameters(parameters: int) -> None:
    ratio = measure_ratio(parameters, batch=4, budget=0.0)
    assert ratio.parameters == pytest.approx(parameters, rel=0.05)
    assert ratio.step > ratio.forward > 0
    assert ratio.compiled_step is not None
    assert ratio.compiled_step > ratio.compiled_forward > 0


def test_a_loss_that_cannot_be_compiled_is_measured_in_python() -> None:
    w = cr.ones(3, requires_grad=True)

    def loss_of() -> Any:
        y = (w * w).sum()
        return y * 2 if y.item() > 0 else y

    ratio = measure_step(problem_of(loss_of), 0.0)
    assert (ratio.compiled_forward, ratio.compiled_step) == (None, None)
    assert ratio.step > 0
    assert w.tolist() == [1.0, 1.0, 1.0]


# ---------------------------------------------------------------- C3


def test_nothing_is_computed_twice() -> None:
    counted = count_applications(dense_problem((6, 5, 4, 3), 8).loss())
    assert counted.forward == {"linear": 3, "relu": 2, "cross_entropy_mean": 1}
    assert counted.repeated == 0
    assert counted.backward["matmul"] == 5          # the first layer needs no gradient of its input
    x = cr.tensor(0.5, dtype=cr.float64, requires_grad=True)
    recomputed = cr.gelu(x) + cr.tanh(x)
    assert count_applications(recomputed).repeated == 0


def test_a_rule_that_computed_again_would_be_noticed() -> None:
    x = cr.tensor(0.5, dtype=cr.float64, requires_grad=True)
    s = cr.sigmoid(x)
    assert count_applications(s * nn.functional.softplus(x)).repeated == 1


def test_paths_without_sharing() -> None:
    chain = count_applications(shared_chain(20))
    assert chain.forward == {"mul": 20}
    assert chain.rules == 40
    assert chain.walked == 2**21 - 2


# ---------------------------------------------------------------- C7


@pytest.fixture(scope="module")
def curves() -> dict[str, Curves]:
    smooth = dense_problem(SMOOTH, SMOOTH_BATCH, nn.Tanh)
    return {c.dtype: c for c in measure_steps(smooth)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_differences_are_best_near_the_roots_of_epsilon(curves: dict[str, Curves],
                                                        dtype: str) -> None:
    """Nocedal & Wright 2006, section 8.1: √ε on one side, ∛ε on both."""
    found = curves[dtype]
    one, both = found.best
    assert abs(math.log10(one / found.epsilon ** (1 / 2))) < 1
    assert abs(math.log10(both / found.epsilon ** (1 / 3))) < 1
    # and the error there is of the order √ε and ∛ε²
    assert min(found.one_sided) < 10 * found.epsilon ** (1 / 2)
    assert min(found.central) < 10 * found.epsilon ** (2 / 3)


def test_the_arms_of_the_v_have_the_slopes_of_the_theory(curves: dict[str, Curves]) -> None:
    found = curves["float64"]
    steps = np.array(found.steps)

    def slope(errors: tuple[float, ...], low: float, high: float) -> float:
        chosen = (steps > low) & (steps < high)
        return float(np.polyfit(np.log(steps[chosen]), np.log(np.array(errors)[chosen]), 1)[0])

    assert slope(found.one_sided, 1e-6, 1e-2) == pytest.approx(1, abs=0.1)
    assert slope(found.central, 1e-4, 1e-2) == pytest.approx(2, abs=0.1)
    assert slope(found.one_sided, 1e-14, 1e-9) == pytest.approx(-1, abs=0.25)
    assert slope(found.central, 1e-14, 1e-7) == pytest.approx(-1, abs=0.25)


def test_backpropagation_is_better_than_every_difference(curves: dict[str, Curves]) -> None:
    found = curves["float32"]
    assert found.exact is not None
    assert found.exact < 1e-7
    assert found.exact < min(found.one_sided) / 100
    assert curves["float64"].exact is None


# ---------------------------------------------------------------- networks of the user


def test_cost_of_a_network() -> None:
    cr.manual_seed(0)
    x, y = cr.randn(8, 4), cr.randint(0, 3, (8,))
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    nn.functional.cross_entropy(model(x), y).backward()
    kept = [(t, t.detach().numpy().copy()) for t in (*model.parameters(), *model.buffers())]
    gradients = [p.grad for p in model.parameters()]
    report = cr.explain.cost(model, (x, y), quick=True)
    for tensor, value in kept:
        np.testing.assert_array_equal(tensor.detach().numpy(), value)
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert report.found["passes"].parameters == sum(p.numel() for p in model.parameters())
    assert [c.dtype for c in report.found["curves"]] == ["float32", "float64"]
    assert max(map(len, report.text(80).split("\n"))) <= 80
    json.loads(report.json())


def test_cost_of_a_convolution_and_an_own_loss() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    report = cr.explain.cost(model, cr.randn(2, 1, 4, 4), loss=lambda out: (out * out).mean(),
                             quick=True)
    assert report.found["applications"].repeated == 0
    assert report.found["passes"].worst_push < 1e-5


def test_mistakes_of_calls() -> None:
    x, y = cr.randn(4, 3), cr.randn(4, 2)
    model = nn.Linear(3, 2)
    loss = nn.functional.mse_loss(model(x), y)
    for arguments, message in (((model,), "needs a batch"), ((model, x), "no loss"),
                           ((loss,), "already"), (("model",), "str")):
        with pytest.raises(SettingError, match=message):
            cr.explain.cost(*arguments)
    with pytest.raises(SettingError, match="samples=0"):
        cr.explain.cost(model, (x, y), samples=0)
    frozen = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(SettingError, match="requires_grad"):
        cr.explain.cost(frozen, (x, y))
    with pytest.raises(SettingError, match="random numbers"):
        cr.explain.cost(nn.Sequential(model, nn.Dropout(0.5)), (x, y))


# ---------------------------------------------------------------- the command


def test_cost_report(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "cost", "--quick", "--layers", "784-256-256-256-10", "--batch", "4",
                 "--width", "90", "--save", "cost.svg"]) == 0
    printed = capsys.readouterr().out
    for text in ("334,336 weights and 778 biases", "670,228", "5.59 minutes", "1.06 years",
                 "2,097,150", "extrapolated", "measured", "0 of the 26", "forward mode",
                 "one thread", "saved cost.svg"):
        assert text in printed
    assert max(map(len, printed.split("\n"))) <= 90
    assert ET.fromstring(Path("cost.svg").read_text()).tag.endswith("svg")


def test_cost_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")      # in this process
    Path("user.py").write_text(PROGRAM)
    assert main(["explain", "cost", "--model", "user.py:loss_of", "--quick"]) == 0
    assert "loss_of() has 42 weights and 9 biases" in capsys.readouterr().out
    for place, message in (("user.py", "user.py:loss_of"), ("user.py:noisy", "random numbers"),
                           ("none.py:f", "no file"), ("user.py:f", "no function 'f'")):
        assert main(["explain", "cost", place, "--quick"]) == 2
        assert message in capsys.readouterr().err


# ---------------------------------------------------------------- charts


LINE = Curve("a line", (0, 1, 2, 3), (0.0, 1.0, 2.0, 3.0))
POWERS = Curve("powers", (1, 10, 100, 1000), (1e-8, 1e-4, math.nan, 1.0))


def test_ticks_are_round_and_inside() -> None:
    across, up = axes(Chart("", "x", "y", (POWERS,), log_x=True, log_y=True))
    assert across.ticks == (1.0, 10.0, 100.0, 1000.0)
    assert up.ticks == (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
    assert [across.share(v) for v in across.ticks] == sorted(across.share(v) for v in across.ticks)
    assert label(1e-8, log=True) == "10⁻⁸"


@given(
    values=st.lists(st.one_of(st.floats(-1e300, 1e300), st.none(), st.just(math.inf)),
                    min_size=1, max_size=40),
    log=st.booleans(), width=st.integers(40, 120), unicode=st.booleans(),
)
def test_charts_of_any_values(values: list[float | None], log: bool, width: int,
                              unicode: bool) -> None:
    xs = tuple(range(1, len(values) + 1))
    chart = Chart("any <values> & more", "x", "y", (Curve("one", xs, values),
                                                   Curve("two", xs, values[::-1])), log_y=log)
    lines = chart_lines(chart, width, unicode=unicode)
    assert max(map(len, lines)) <= width
    page = ET.fromstring(charts_svg([chart, chart]))
    assert len(page.findall("{http://www.w3.org/2000/svg}g")) == 2
    assert "nan" not in charts_svg([chart])


def test_a_rising_line_rises_in_every_drawing() -> None:
    lines = chart_lines(Chart("y = x", "x", "y", (LINE,)), 40, 6, unicode=False)[2:8]
    stars = [line.index("*") for line in lines if "*" in line]
    assert stars == sorted(stars, reverse=True)
    page = ET.fromstring(charts_svg([Chart("y = x", "x", "y", (LINE,))]))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in page.iter() if
               c.tag.endswith("circle")]
    assert len(circles) == 4
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(circles)]
    assert slopes == pytest.approx([slopes[0]] * 3, rel=0.01)
    assert slopes[0] < 0                         # SVG's y axis points down


def test_curves_are_told_apart_without_colours() -> None:
    chart = Chart("two", "x", "y", (LINE, Curve("flat", (0, 3), (1.0, 1.0))))
    text = "\n".join(chart_lines(chart, 60, unicode=False))
    assert "* a line" in text
    assert "o flat" in text
    svg = charts_svg([chart])
    assert "stroke-dasharray" in svg
    assert "prefers-color-scheme:dark" in svg


def test_png_or_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    report = cr.explain.depth(model, (cr.randn(4, 3), cr.randint(0, 2, (4,))))
    place = tmp_path / "depth.png"
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(MissingPackageError, match="pip install matplotlib") as caught:
            report.save(place)
        assert "depth.svg" in str(caught.value)
    else:
        report.save(place)
        assert place.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SettingError, match=r"\.svg"):
        report.save(tmp_path / "depth.gif")


def test_numbers_in_words() -> None:
    assert [duration(s) for s in (2e-6, 0.0015, 12, 335.115, 33_511_500)] == [
        "2 µs", "1.5 ms", "12 s", "5.59 minutes", "1.06 years"]
    assert [number(v) for v in (0.57735, None, math.nan)] == ["0.577", "–", "–"]
    assert plain({"a": (1.0, math.inf), "b": Curves("f", 1.0, (1.0,), (2.0,), (3.0,), None)}) == {
        "a": [1.0, None], "b": {"dtype": "f", "epsilon": 1.0, "steps": [1.0], "one_sided": [2.0],
                                "central": [3.0], "exact": None, "best": [1.0, 1.0]}}
