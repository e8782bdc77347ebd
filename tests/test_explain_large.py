"""Large networks are told layer by layer, on about a screen, with true shapes and statistics."""

from __future__ import annotations

import itertools
import re
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core.errors import SettingError
from chainrule.explain.large.statistics import Statistics, norm, percent
from chainrule.explain.large.tree import call_tree, rows_of

SCREEN = 60


def seeded() -> None:
    cr.manual_seed(0)


def perceptron(*sizes: int, batch: int = 16) -> tuple[Any, Any]:
    seeded()
    layers: list[Any] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    x, y = cr.randn(batch, sizes[0]), cr.randint(0, sizes[-1], (batch,))
    return model, nn.functional.cross_entropy(model(x), y)


class Block(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = nn.MultiheadAttention(size, heads, batch_first=True)
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: Any) -> Any:
        n = self.norm1(x)
        x = x + self.attention(n, n, n)[0]
        return x + self.down(cr.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, depth: int, size: int = 16, tokens: int = 20) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, size)
        self.blocks = nn.ModuleList([Block(size, 2) for _ in range(depth)])
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, tokens)

    def forward(self, t: Any) -> Any:
        x = self.embed(t)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def transformer(depth: int) -> tuple[Any, Any]:
    seeded()
    net = Transformer(depth)
    t = cr.randint(0, 20, (3, 5))
    return net, nn.functional.cross_entropy(net(t).reshape(-1, 20), t.reshape(-1))


def lstm_steps(count: int, size: int = 6) -> tuple[dict[str, Any], Any]:
    """An LSTM written by hand (Hochreiter & Schmidhuber 1997), `count` steps of one cell."""
    seeded()
    weights = {name: (cr.randn(*shape) * 0.4).requires_grad_() for name, shape in {
        "Wx": (4, 4 * size), "Wh": (size, 4 * size), "b": (4 * size,)}.items()}
    xs = cr.randn(count, 3, 4)
    h = c = cr.zeros(3, size)
    for k in range(count):
        gates = xs[k] @ weights["Wx"] + h @ weights["Wh"] + weights["b"]
        i, f, o, u = gates.chunk(4, dim=1)
        c = cr.sigmoid(f) * c + cr.sigmoid(i) * cr.tanh(u)
        h = cr.sigmoid(o) * cr.tanh(c)
    return weights, (h * h).mean()


def convolution() -> tuple[Any, Any]:
    seeded()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Flatten(), nn.Linear(36, 10))
    return model, nn.functional.cross_entropy(model(cr.randn(6, 1, 8, 8)), cr.arange(6))


# ---------------------------------------------------------------- what is chosen


def test_small_graphs_are_told_by_steps_large_ones_by_layers() -> None:
    _, small = perceptron(3, 4, 2)
    assert cr.explain(small).detail == "steps"
    _, large = perceptron(100, 120, 10)
    assert cr.explain(large).detail == "layers"
    assert cr.explain(large, detail="steps").text().startswith("given")
    assert cr.explain(small, detail="layers").text().startswith("small = ")
    with pytest.raises(SettingError, match="detail='words'"):
        cr.explain(small, detail="words")


def test_matrix_form_with_shapes() -> None:
    _, loss = perceptron(5, 7, 3)
    page = cr.explain(loss, detail="layers").layers
    forward = {one[0]: one[1] for layer in page.data["layers"] for one in layer["forward"]}
    backward = {one[0]: one[1] for layer in page.data["layers"] for one in layer["backward"]}
    assert forward["a⁽¹⁾ = tanh(z⁽¹⁾)"] == "(16,7) = tanh((16,7))"
    assert forward["z⁽²⁾ = a⁽¹⁾ @ W⁽²⁾ᵀ + b⁽²⁾"] == "(16,3) = (16,7) @ (3,7)ᵀ + (3,)"
    assert backward["δ⁽¹⁾ = (δ⁽²⁾ @ W⁽²⁾) ⊙ (1 − a⁽¹⁾²)"] == (
        "(16,7) = ((16,3) @ (3,7)) ⊙ (1 − (16,7)²)")
    assert backward["∂loss/∂W⁽²⁾ = (δ⁽²⁾)ᵀ @ a⁽¹⁾"] == "(3,7) = (16,3)ᵀ @ (16,7)"


def test_formulas_of_layers_give_the_gradients() -> None:
    """The matrix form, worked out with NumPy, is what backward() computes."""
    model, loss = perceptron(5, 7, 3)
    explanation = cr.explain(loss, detail="layers")
    recording = explanation.derivation.recording
    assert recording is not None
    by_text = {recording.texts[n]: n for n in recording.texts}
    z2, v2 = by_text["v3"], by_text["v2"]
    delta2, a1 = recording.gradients[z2], recording.values[v2]
    delta1 = delta2 @ model[2].weight.detach().numpy() * (1 - a1 ** 2)
    np.testing.assert_allclose(delta1, recording.gradients[by_text["v1"]], rtol=1e-5)
    loss.backward()
    np.testing.assert_allclose(delta2.T @ a1, model[2].weight.grad.numpy(), rtol=1e-5)


def test_lines_without_modules_are_layers_under_the_users_names() -> None:
    seeded()
    W1, b1, W2 = (cr.randn(*s, requires_grad=True) for s in ((20, 30), (30,), (30, 3)))
    x, t = cr.randn(64, 20), cr.randn(64, 3)
    z1 = x @ W1 + b1
    a1 = cr.sigmoid(z1)
    y = a1 @ W2
    loss = ((y - t) ** 2).mean()
    text = cr.explain(loss, detail="layers").text(100)
    for line in ("z1 = x @ W1 + b1", "a1 = σ(z1)", "y = a1 @ W2", "loss = mean((y − t)²)",
                 "δ⁽²⁾ = δ⁽³⁾ @ W2ᵀ", "∂loss/∂W1 = xᵀ @ δ⁽¹⁾"):
        assert line in text


# ---------------------------------------------------------------- statistics


def test_factors_multiply_to_the_whole() -> None:
    _, loss = perceptron(20, 30, 30, 30, 5)
    explanation = cr.explain(loss, detail="layers")
    layers = [one for one in explanation.layers.data["layers"] if one["number"]]
    sizes = [one["gradient"]["norm"] for one in layers]
    text = explanation.text(100)
    shown = re.search(r"‖δ⁽¹⁾‖ = ‖δ⁽⁴⁾‖ × ([\d.]+) × ([\d.]+) × ([\d.]+)", text)
    assert shown is not None
    assert np.prod([float(f) for f in shown.groups()]) == pytest.approx(sizes[0] / sizes[-1], 1e-3)


def test_dead_units_are_counted() -> None:
    seeded()
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with cr.no_grad():
        model[0].bias[:4] = -1000.0
    loss = model(cr.randn(32, 4)).sum()
    text = cr.explain(loss, detail="layers").text(100)
    dead = np.mean(cr.relu(model[0](cr.randn(32, 4))).detach().numpy()[:, :4] == 0)
    assert dead == 1
    share = re.search(r"slope 0 at (\d+) %", text)
    assert share is not None
    assert 50 <= int(share[1]) <= 85


def test_statistics() -> None:
    assert Statistics.of(np.array([3.0, -4.0, 0.0, 0.0])) == (5.0, 1.75, 0.5, -4.0, 3.0)
    assert Statistics.of(np.zeros((0, 3))).norm == 0
    assert norm(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert norm(np.array([np.inf, 1.0])) == np.inf
    assert [percent(s) for s in (0, 0.001, 0.5, 0.999, 1)] == [
        "0 %", "< 1 %", "50 %", "> 99 %", "100 %"]


# ---------------------------------------------------------------- folding, screens


def test_repeated_blocks_are_one_row() -> None:
    _, loss = transformer(12)
    explanation = cr.explain(loss)
    text = explanation.text(100)
    assert "12 × blocks.0 Block" in text
    assert "δ⁽²⁾ = δ⁽³⁾ · ∂h⁽³⁾/∂h⁽²⁾" in text
    assert len(text.split("\n")) <= SCREEN
    inside = explanation.zoom("blocks.3").text(100)
    assert "attention" in inside
    assert len(inside.split("\n")) <= 2 * SCREEN


def test_deep_stacks_and_loops_are_folded() -> None:
    _, loss = perceptron(8, *[16] * 30, 1)
    deep = cr.explain((loss * 1.0), detail="layers").text(100)
    assert re.search(r"29 × model\.2 Linear", deep)
    assert len(deep.split("\n")) <= SCREEN
    _, loss = lstm_steps(10)
    text = cr.explain(loss, detail="layers").text(100)
    assert "10 × test_explain_large.py" in text
    assert "(9 more like it)" in text
    assert len(text.split("\n")) <= SCREEN


@pytest.mark.parametrize("make", [
    lambda: perceptron(100, 200, 200, 10), convolution, lambda: transformer(2),
    lambda: lstm_steps(1), lambda: lstm_steps(7)])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_pages_fit_the_screen(make: Any, width: int) -> None:
    loss = make()[1]
    text = cr.explain(loss, detail="layers").text(width)
    assert max(map(len, text.split("\n"))) <= width
    assert "f32[" not in text
    if width >= 100:
        assert len(text.split("\n")) <= SCREEN
    assert ".zoom(" in text


@pytest.mark.parametrize("make", [convolution, lambda: transformer(1)])
@pytest.mark.parametrize("detail", ["steps", "layers"])
def test_modules_are_explained_without_special_code(make: Any, detail: str) -> None:
    model, loss = make()
    explanation = cr.explain(loss, model=model, detail=detail)
    assert explanation.text(100)
    gradients = list(explanation.gradients.values())
    loss.backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(parameters)
    for one, parameter in zip(gradients, sorted(parameters, key=lambda p: p._node.seq),
                              strict=True):
        bound = 1e-5 * np.max(np.abs(parameter.grad.numpy()))
        np.testing.assert_allclose(one.gradient, parameter.grad.numpy(), atol=bound, rtol=1e-5)


def test_an_lstm_step_by_hand() -> None:
    weights, loss = lstm_steps(1)
    explanation = cr.explain(loss, names=weights, detail="steps")
    formulas = [step.formula for step in explanation.forward]
    assert any("σ(" in f for f in formulas)
    loss.backward()
    for name in ("Wx", "b"):
        np.testing.assert_allclose(explanation.gradients[name].gradient,
                                   weights[name].grad.numpy(), rtol=1e-5, atol=1e-8)


def test_rows_hold_every_step_once() -> None:
    for make in (convolution, lambda: transformer(3), lambda: lstm_steps(4)):
        recording = cr.explain(make()[1]).derivation.recording
        assert recording is not None
        rows = rows_of(call_tree(recording), recording)
        told = [node for row in rows for group in row.groups for node in group.nodes]
        assert len(told) == len(set(told))
        assert set(told) == {node for node in recording.order if node.prim is not None}
        assert all(len(row.groups) == row.count * row.period for row in rows)


# ---------------------------------------------------------------- a million parameters


def test_a_million_parameters_take_seconds_and_little_memory() -> None:
    seeded()
    model = nn.Sequential(nn.Linear(784, 784), nn.ReLU(), nn.Linear(784, 512), nn.ReLU(),
                          nn.Linear(512, 10))
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters > 1_000_000
    loss = nn.functional.cross_entropy(model(cr.randn(64, 784)), cr.randint(0, 10, (64,)))
    start = time.perf_counter()
    tracemalloc.start()
    try:
        explanation = cr.explain(loss)
        kept, _ = tracemalloc.get_traced_memory()
        pages = [explanation.text(100), explanation.zoom("model.0.weight", 3, 5).text(100),
                 explanation.zoom("model.0", unit=3).text(100),
                 explanation.zoom(sample=2).text(100), explanation.zoom("model.2").text(100)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 20          # about one second where nothing else runs
    assert kept < 5 * 4 * parameters                 # parameters, gradients, and activations
    assert peak < 12 * 4 * parameters
    assert all(len(page.split("\n")) <= SCREEN for page in pages)


# ---------------------------------------------------------------- afterwards, other styles


def test_what_was_explained_stays_after_backward_and_step() -> None:
    model, loss = perceptron(100, 120, 10)
    explanation = cr.explain(loss)
    before = explanation.text(100)
    loss.backward()
    cr.optim.SGD(model.parameters(), lr=0.5).step()
    assert explanation.text(100) == before
    page = explanation.zoom("model.0.weight", 3, 5)
    assert page.data["gradient"] == pytest.approx(float(model[0].weight.grad[3, 5]), rel=1e-5)


def test_layers_in_other_styles() -> None:
    _, loss = perceptron(100, 120, 10)
    explanation = cr.explain(loss)
    assert explanation.markdown().startswith("```text\nloss")
    html = explanation.html()
    assert html.startswith("<!DOCTYPE html>")
    assert "<pre>" in html
    assert "[a" not in explanation.text(100, colour=False)
    assert "\x1b[" in explanation.text(100, colour=True)


def test_styles_are_chosen_and_saved(tmp_path: Any) -> None:
    _, loss = perceptron(3, 4, 2)
    explanation = cr.explain(loss, style="markdown")
    assert str(explanation) == explanation.markdown() + ""
    for ending in (".txt", ".md", ".html", ".json"):
        path = explanation.save(tmp_path / f"why{ending}")
        assert path.read_text(encoding="utf-8").strip()
    with pytest.raises(SettingError, match="ending"):
        explanation.save(tmp_path / "why.docx")
    with pytest.raises(SettingError, match="no style"):
        cr.explain(loss, style="poem")
