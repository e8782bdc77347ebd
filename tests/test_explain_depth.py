"""`explain.depth`: factors that multiply to what was measured, and the published behaviour."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.cli.main import main
from chainrule.core.errors import GradientError, SettingError
from chainrule.explain.measured.layers import keeping_values, layer_factors
from chainrule.explain.measured.stacks import (
    ACTIVATIONS,
    FORMS,
    INITIALISATIONS,
    measure_stack,
)
from chainrule.explain.measured.starting import train_deep, watch_sigmoid
from chainrule.explain.measured.study import depth_study

PROGRAM = """
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x, y = cr.randn(16, 6), cr.randint(0, 3, (16,))
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_of():
    return nn.functional.cross_entropy(model(x), y)


def everything():
    return model, x, y


if __name__ == "__main__":
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)
    for step in range(10**9):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
"""


def dense(*sizes: int, activation: Any = nn.Tanh) -> Any:
    parts: list[Any] = []
    for inputs, outputs in pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*parts[:-1])


def batch(inputs: int, classes: int = 3, rows: int = 16) -> tuple[Any, Any]:
    cr.manual_seed(0)
    return cr.randn(rows, inputs), cr.randint(0, classes, (rows,))


# ---------------------------------------------------------------- factors


@pytest.mark.parametrize(("factor", "layers", "expected"), [
    (0.9, 50, 0.00515), (1.1, 50, 117.4), (0.25, 10, 9.5e-7),
])
def test_e8_the_factors_are_the_factor(factor: float, layers: int, expected: float) -> None:
    x = cr.tensor(0.5, dtype=cr.float64, requires_grad=True)
    h = x
    for _ in range(layers):
        h = factor * h
    found = cr.explain.depth(h, wrt=x).found["factors"]
    assert [layer.factor for layer in found.layers] == pytest.approx([factor] * layers)
    assert found.total == pytest.approx(factor**layers, rel=1e-12)
    assert found.total == pytest.approx(expected, rel=0.005)


def test_e8_sigmoid_layers_stay_below_a_quarter_each() -> None:
    x = cr.tensor(0.0, dtype=cr.float64, requires_grad=True)
    h = x
    for _ in range(50):
        h = cr.sigmoid(h)
    found = cr.explain.depth(h).found["factors"]
    factors = [layer.factor for layer in found.layers]
    assert len(factors) == 50
    assert max(factors) == 0.25                 # the first, at 0
    assert 0 < found.total <= 0.25**49
    h.backward()
    assert found.product == pytest.approx(float(x.grad), rel=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("initialisation", INITIALISATIONS)
@pytest.mark.parametrize("form", FORMS)
def test_factors_multiply_to_what_was_measured(
    activation: str, initialisation: str, form: str
) -> None:
    stack = measure_stack(activation, initialisation, 12, form, width=16)
    factors = stack.factors
    assert len(factors.layers) == 12
    assert factors.product == pytest.approx(factors.total, rel=1e-9)
    # and what was measured is the gradient that autograd gives at the input
    assert factors.bottom == pytest.approx(
        factors.layers[0].gradient * factors.layers[0].factor, rel=1e-9)


def test_the_measured_gradients_are_autograds() -> None:
    x, y = batch(6)
    model = dense(6, 8, 8, 3)
    factors = cr.explain.depth(model, (x, y)).found["factors"]
    inputs = x.clone().requires_grad_()
    first = model[1](model[0](inputs))
    second = model[3](model[2](first))
    output = model[4](second)
    loss = nn.functional.cross_entropy(output, y)
    gradients = cr.autograd.grad(loss, [inputs, first, second, output])
    sizes = [float(np.linalg.norm(g.numpy())) for g in gradients]
    assert factors.bottom == pytest.approx(sizes[0], rel=1e-5)
    assert [layer.gradient for layer in factors.layers] == pytest.approx(sizes[1:], rel=1e-5)
    assert factors.top == pytest.approx(sizes[-1], rel=1e-5)
    assert [layer.name for layer in factors.layers] == ["0 Linear", "2 Linear", "4 Linear"]
    assert [layer.slopes is None for layer in factors.layers] == [False, False, True]
    values = [first, second, output]
    assert [layer.variance for layer in factors.layers] == pytest.approx(
        [float(v.detach().numpy().var()) for v in values], rel=1e-4)


def test_weights_gradients_are_told() -> None:
    x, y = batch(6)
    model = dense(6, 8, 3)
    layers = cr.explain.depth(model, (x, y)).found["factors"].layers
    nn.functional.cross_entropy(model(x), y).backward()
    for layer, part in zip(layers, (model[0], model[2]), strict=True):
        assert layer.weight == pytest.approx(float(np.linalg.norm(part.weight.detach().numpy())))
        assert layer.weight_gradient == pytest.approx(
            float(np.linalg.norm(part.weight.grad.numpy())), rel=1e-5)


def test_flat_units_are_counted() -> None:
    model = nn.Sequential(nn.Linear(4, 50), nn.ReLU(), nn.Linear(50, 2))
    x, y = batch(4, 2)
    (first, _) = cr.explain.depth(model, (x, y)).found["factors"].layers
    dead = float((model[1](model[0](x)).detach().numpy() == 0).mean())
    assert first.flat == pytest.approx(dead)
    assert 0.2 < dead < 0.8


class Block(nn.Module):
    """A residual block with two parts, as in a transformer without attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Any) -> Any:
        h = self.norm(x)
        x = x + self.attention(h, h, h)[0]
        return x + self.down(cr.relu(self.up(x)))


def test_residual_blocks_are_layers() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(*[Block(8) for _ in range(3)], nn.Flatten(), nn.Linear(40, 3))
    x, y = cr.randn(4, 5, 8), cr.randint(0, 3, (4,))
    found = cr.explain.depth(model, (x, y)).found["factors"]
    assert [layer.name for layer in found.layers] == [
        "0.attention MultiheadAttention", "0 Block", "1.attention MultiheadAttention", "1 Block",
        "2.attention MultiheadAttention", "2 Block", "4 Linear"]
    assert found.product == pytest.approx(found.total, rel=1e-6)
    assert all(0.5 < layer.factor < 2 for layer in found.layers[:-1])


def test_steps_of_a_recurrent_network_are_layers() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(3, 5, batch_first=True)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    cr.manual_seed(0)
    found = cr.explain.depth(Reader(), (cr.randn(4, 20, 3), cr.randint(0, 2, (4,))))
    factors = found.found["factors"]
    assert len(factors.layers) >= 20
    assert factors.product == pytest.approx(factors.total, rel=1e-5)


def test_skips_and_concatenations_are_named_by_the_weights_inside() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(20, 3)

        def forward(self, x: Any) -> Any:
            h = cr.relu(self.a(x))
            return self.c(cr.cat([h, cr.relu(self.b(h)), x], 1))

    found = cr.explain.depth(Skip(), batch(4)).found["factors"]
    assert found.layers[-1].name == "c Linear"
    assert found.product == pytest.approx(found.total, rel=1e-6)

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4 * (i + 1), 4) for i in range(8)])
            self.head = nn.Linear(36, 3)

        def forward(self, x: Any) -> Any:
            seen = [x]
            for layer in self.layers:
                seen.append(cr.relu(layer(cr.cat(seen, 1))))
            return self.head(cr.cat(seen, 1))

    layers = cr.explain.depth(Dense(), batch(4)).found["factors"].layers
    assert [layer.name for layer in layers] == [
        *[f"layers.{i} Linear" for i in range(8)], "head Linear"]


def test_convolutions_and_norms() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
                          nn.Linear(16, 3))
    before = [b.numpy().copy() for b in model.buffers()]
    report = cr.explain.depth(model, (cr.randn(4, 1, 8, 8), cr.randint(0, 3, (4,))))
    factors = report.found["factors"]
    assert [layer.name for layer in factors.layers] == ["0 Conv2d", "4 Conv2d", "7 Linear"]
    assert factors.product == pytest.approx(factors.total, rel=1e-5)
    for buffer, kept in zip(model.buffers(), before, strict=True):
        np.testing.assert_array_equal(buffer.numpy(), kept)


def test_tensors_without_modules_are_named_by_their_weights() -> None:
    x, _ = batch(5)
    w1 = cr.randn(5, 7, requires_grad=True)
    w2 = cr.randn(7, 1, requires_grad=True)
    target = cr.ones(16, 1)

    def loss_of() -> Any:
        p = cr.sigmoid(cr.tanh(x @ w1) @ w2)
        return ((p - target) ** 2).mean()

    layers = cr.explain.depth(loss_of).found["factors"].layers
    assert [layer.name for layer in layers] == ["w1", "w2"]
    assert layers[1].operations == ("matmul", "sigmoid")        # the loss is no layer


def test_a_network_is_left_as_it_was() -> None:
    x, y = batch(6)
    model = dense(6, 8, 3)
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    kept = [(p, p.detach().numpy().copy(), p.grad) for p in model.parameters()]
    state = cr.get_rng_state().numpy().copy()
    small = cr.settings.keep_small
    cr.explain.depth(model, (x, y))
    for p, value, gradient in kept:
        np.testing.assert_array_equal(p.detach().numpy(), value)
        assert p.grad is gradient
    assert cr.settings.keep_small == small
    assert not x.requires_grad
    np.testing.assert_array_equal(cr.get_rng_state().numpy(), state)


def test_vanishing_is_named_with_its_cure_and_the_cure_is_measured() -> None:
    x, y = batch(20)
    model = dense(20, *[24] * 12, 3, activation=nn.ReLU)
    report = cr.explain.depth(model, (x, y))
    assert "It vanishes" in str(report)
    he, now = report.found["other_starts"]["he"], report.found["factors"]
    assert now.total < 1e-3
    assert 0.02 < he.total < 50
    steady = cr.explain.depth(dense(20, 24, 3), (x, y)).text(80)
    assert "It vanishes" not in steady


def test_exploding_is_named() -> None:
    x, y = batch(20)
    model = dense(20, *[24] * 8, 3, activation=nn.ReLU)
    with cr.no_grad():
        for p in model.parameters():
            p.mul_(15.0)
    assert "It explodes" in str(cr.explain.depth(model, (x, y)))


def test_a_dead_network_is_named() -> None:
    x, y = batch(6)
    model = dense(6, 8, 8, 3, activation=nn.ReLU)
    with cr.no_grad():
        model[2].bias.fill_(-1e3)
    report = cr.explain.depth(model, (x, y))
    assert "No gradient reaches the first layer" in str(report)
    assert report.found["factors"].total == 0


# ---------------------------------------------------------------- published facts


@pytest.mark.parametrize(("activation", "initialisation", "per_layer", "tolerance"), [
    # ‖gradient‖ per layer √(n·Var W·mean slope²): Glorot & Bengio 2010, equation 6, He et al. 2015,
    # equation 14; n·Var W is 1/3, 1 and 2, the mean squared slope of ReLU 1/2, of tanh near 0 one,
    # of sigmoid at most 1/16
    ("relu", "standard", 1 / math.sqrt(6), 0.03),
    ("relu", "xavier", 1 / math.sqrt(2), 0.03),
    ("relu", "he", 1.0, 0.03),
    ("tanh", "standard", 1 / math.sqrt(3), 0.03),
    ("sigmoid", "standard", 0.25 / math.sqrt(3), 0.05),
])
def test_gradients_shrink_as_in_theory(activation: str, initialisation: str, per_layer: float,
                                       tolerance: float) -> None:
    found = measure_stack(activation, initialisation, 50).factors
    assert found.per_layer == pytest.approx(per_layer, rel=tolerance)


def test_activations_shrink_as_in_theory() -> None:
    """Forward variance by layer: Glorot & Bengio 2010, equation 5; He et al. 2015, equation 9."""
    for activation, initialisation, expected in (
            ("relu", "standard", 1 / 6), ("relu", "xavier", 1 / 2), ("relu", "he", 1.0),
            ("tanh", "standard", 1 / 3)):
        layers = measure_stack(activation, initialisation, 50).factors.layers
        ratio = (layers[-1].variance / layers[9].variance) ** (1 / 40)
        assert ratio == pytest.approx(expected, rel=0.06), (activation, initialisation)


@pytest.mark.parametrize("depth", [10, 50])
def test_c4_sigmoid_vanishes_tanh_and_relu_do_not(depth: int) -> None:
    sigmoid, tanh, relu = (measure_stack(name, start, depth).factors for name, start in (
        ("sigmoid", "xavier"), ("tanh", "xavier"), ("relu", "he")))
    assert all(layer.slopes <= 0.25 for layer in sigmoid.layers)
    assert sigmoid.total < 0.25**depth * 1.5      # Xavier's weights neither shrink nor stretch
    assert tanh.total > 0.02
    assert 0.1 < relu.total < 10
    assert all(0.55 < layer.slopes < 0.85 for layer in relu.layers)       # √(1/2)


def test_c5_too_small_shrinks_and_too_large_saturates() -> None:
    small, good, large = (measure_stack("tanh", "xavier", 10, scale=scale).factors
                          for scale in (0.25, 1.0, 4.0))
    assert small.layers[-1].variance < 1e-9
    assert good.layers[-1].variance > 0.01
    assert large.layers[-1].variance > 0.6        # at ±1 the variance is 1
    assert small.layers[-1].flat == 0
    assert large.layers[-1].flat > 0.25
    assert small.total < 1e-4 < good.total < 1 < 10 < large.total


def test_residual_paths_and_norms_keep_the_gradient() -> None:
    forms = {form: measure_stack("relu", "standard", 30, form).factors.total for form in FORMS}
    assert forms["plain"] < 1e-10
    assert forms["residual"] > 1
    assert 0.05 < forms["layer norm"] < 20
    grown = measure_stack("relu", "he", 30, "batch norm", examples=256).factors.per_layer
    # Yang et al. 2019, A mean field theory of batch normalization
    assert grown == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=0.03)


def test_the_thirty_layer_network_starts_from_he_and_not_from_xavier() -> None:
    xavier, he = train_deep("xavier", 200), train_deep("he", 200)
    guess = math.log(10)
    assert np.mean(xavier.losses[-20:]) == pytest.approx(guess, abs=0.005)
    assert xavier.correct < 0.2
    assert np.mean(he.losses[-20:]) < guess - 0.5
    assert he.correct > 0.25


def test_sigmoids_last_layer_saturates_first() -> None:
    found = watch_sigmoid(100, every=50)
    first, last = found.means[0], found.means[-1]
    assert first == pytest.approx([0.5] * 4, abs=0.02)
    assert last[-1] < 0.1
    assert min(last[:-1]) > 0.45
    assert found.losses[-1] == pytest.approx(math.log(10), abs=0.1)       # and nothing is learned


# ---------------------------------------------------------------- reports and the command


@pytest.fixture(scope="module")
def study() -> Any:
    return depth_study(quick=True)


@pytest.mark.parametrize("width", [80, 100])
def test_the_study_fits_a_terminal(study: Any, width: int) -> None:
    text = study.text(width)
    assert max(map(len, text.split("\n"))) <= width
    assert "0.707" in text
    assert "first weights     standard" not in text       # tables, not lists
    blocks = text.split("\n\n")
    assert max(block.count("\n") for block in blocks) < 24


def test_the_study_as_data_and_pictures(study: Any, tmp_path: Path) -> None:
    study.save(tmp_path / "depth.json")
    data = json.loads((tmp_path / "depth.json").read_text())
    found = data["found"]["study"]
    assert len(found["stacks"]) == 18
    assert found["stacks"][0]["factors"]["total"] == pytest.approx(
        math.prod(layer["factor"] for layer in found["stacks"][0]["factors"]["layers"]))
    assert len(data["charts"]) == 10
    study.save(tmp_path / "depth.svg")
    assert (tmp_path / "depth.svg").read_text().count("<g transform") == 10
    study.save(tmp_path / "depth.html")
    assert "<table>" in (tmp_path / "depth.html").read_text()


@pytest.mark.parametrize("place", ["user.py", "user.py:loss_of", "user.py:everything"])
def test_depth_of_a_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(PROGRAM)
    assert main(["explain", "depth", place, "--width", "80", "--save", "found.json"]) == 0
    printed = capsys.readouterr().out
    layers = json.loads(Path("found.json").read_text())["found"]["factors"]["layers"]
    assert [layer["name"] for layer in layers] == ["0 Linear", "2 Linear", "4 Linear"]
    assert "0 Linear" in printed
    assert max(map(len, printed.split("\n"))) <= 80
    assert ("other first weights" in printed) == (place != "user.py")


@pytest.mark.parametrize(("words", "message"), [
    ("depth none.py", "no file none.py"), ("depth user.py:nothing", "no function 'nothing'"),
    ("depth user.py:model", "needs a batch"), ("depth user.txt", "not a Python file"),
    ("depth --save found.doc", ".svg"), ("depth user.py --style latex", "measurements"),
    ("e1 user.py", "second file"),
    ("depth user.py --model user.py", "one file"),
])
def test_mistakes_of_the_command(words: str, message: str, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(PROGRAM)
    assert main(["explain", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_mistakes_of_calls() -> None:
    x, y = batch(6)
    model = dense(6, 3)
    for given, message in (((model,), "needs a batch"), ((model, x), "no loss"), ((3,), "int")):
        with pytest.raises(SettingError, match=message):
            cr.explain.depth(*given)
    with pytest.raises(SettingError, match="one number"):
        cr.explain.depth(lambda: model(x))
    with pytest.raises(SettingError, match="batch="):
        cr.explain.depth(batch=(x, y))
    loss = model(x).sum()
    with pytest.raises(GradientError, match="wrt"):
        cr.explain.depth(loss, wrt=cr.ones(2, requires_grad=True))


def test_deep_graphs_need_no_recursion() -> None:
    x = cr.tensor(1.0, dtype=cr.float64, requires_grad=True)
    h = x
    for _ in range(5000):
        h = h * 0.999
    with keeping_values():
        found = layer_factors(h, x)
    assert len(found.layers) == 5000
    assert found.total == pytest.approx(0.999**5000, rel=1e-9)


def test_styles_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(PROGRAM)
    assert main(["explain", "depth", "user.py", "--style", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["found"]["factors"]["layers"]) == 3
    assert main(["explain", "depth", "user.py", "--style", "html"]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
