"""Zoom: terms and paths add up to the gradient; units and examples are what NumPy says they are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.cli.main import main
from chainrule.core.errors import IndexingError, SettingError, UnusedError
from chainrule.explain.large.paths import reasons
from chainrule.explain.large.sample import contributions
from chainrule.explain.large.tree import call_tree
from chainrule.explain.large.unit import layer_of, terms_of
from chainrule.explain.large.zoom import parts_of, resolve


def network(dtype: Any = cr.float64) -> tuple[Any, Any, Any, Any]:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    x, y = cr.randn(6, 4, dtype=dtype), cr.tensor([0, 2, 1, 1, 0, 2])
    return model, x, y, nn.functional.cross_entropy(model(x), y)


# ---------------------------------------------------------------- one weight


def test_terms_of_a_weight_are_upstream_times_input() -> None:
    model, x, _, loss = network()
    explanation = cr.explain(loss)
    page = explanation.zoom("model.0.weight", 3, 1)
    recording = explanation.derivation.recording
    assert recording is not None
    z = next(n for n, text in recording.texts.items() if text == "v1")
    delta = recording.gradients[z]
    expected = {f"v1[{n},3]": (delta[n, 3], x.numpy()[n, 1]) for n in range(6)}
    found = {t["through"]: (t["upstream"], t["local"]) for t in page.data["terms"]}
    assert found.keys() == expected.keys()
    for key, pair in expected.items():
        assert found[key] == pytest.approx(pair, rel=1e-12)
    products = [abs(t["product"]) for t in page.data["terms"]]
    assert products == sorted(products, reverse=True)
    loss.backward()
    assert sum(t["product"] for t in page.data["terms"]) == pytest.approx(
        float(model[0].weight.grad[3, 1]), rel=1e-12)
    assert "x[" in page.text(100)


def test_paths_are_all_products_along_the_network() -> None:
    """Each path by hand: input, slope, weight, softmax less target."""
    model, x, y, loss = network()
    page = cr.explain(loss).zoom("model.0.weight", 3, 1)
    z = model[0](x)
    a = np.tanh(z.detach().numpy())
    p = cr.softmax(model(x), dim=1).detach().numpy()
    p[np.arange(6), y.numpy()] -= 1
    w = model[2].weight.detach().numpy()
    products = [x.numpy()[n, 1] * (1 - a[n, 3] ** 2) * w[k, 3] * p[n, k] / 6
                for n, k in itertools.product(range(6), range(3))]
    assert page.data["count"] == len(products)
    strongest = sorted(products, key=abs, reverse=True)
    found = [path["product"] for path in page.data["paths"]]
    np.testing.assert_allclose(found, strongest[:len(found)], rtol=1e-12)
    assert page.data["rest"] == pytest.approx(sum(strongest[len(found):]), rel=1e-9)
    text = page.text(100)
    assert "18 paths to the loss, strongest first" in text
    assert "and 12 further paths" in text


def test_the_same_number_by_tensor_name_and_text() -> None:
    model, _, _, loss = network()
    explanation = cr.explain(loss)
    pages = [explanation.zoom("model.0.weight", 3, 1), explanation.zoom(model[0].weight, 3, 1),
             explanation.zoom("model.0.weight[3,1]"), explanation.zoom("model.0.weight[-2, -3]")]
    assert len({page.text(100) for page in pages}) == 1
    strongest = explanation.zoom("model.0.weight")
    assert abs(strongest.data["gradient"]) == np.max(np.abs(
        explanation.gradients["model.0.weight"].gradient))


def test_intermediate_values_and_shared_weights() -> None:
    w = cr.tensor([0.5, -1.5], dtype=cr.float64, requires_grad=True)
    h = cr.tanh(w * w)
    loss = (h * w).sum()
    explanation = cr.explain(loss)
    page = explanation.zoom(w, 1)
    value = np.tanh(2.25)
    parts = [value, -1.5 * (1 - value ** 2) * 2 * -1.5]
    assert sorted(p["product"] for p in page.data["paths"]) == pytest.approx(sorted(parts))
    assert page.data["count"] == 2
    assert explanation.zoom("h", 0).data["gradient"] == 0.5


def test_a_number_without_effect() -> None:
    w = cr.tensor([-1.0, 2.0], requires_grad=True)
    loss = cr.relu(w).sum()
    page = cr.explain(loss).zoom("w", 0)
    assert page.data["gradient"] == 0
    assert "every local derivative that it meets is 0" in " ".join(page.text(80).split())


@pytest.mark.parametrize("make", ["convolution", "attention", "embedding", "batch_norm"])
def test_zoom_into_other_layers(make: str) -> None:
    cr.manual_seed(1)
    if make == "convolution":
        model: Any = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                   nn.Linear(12, 4)).to(cr.float64)
        out = model(cr.randn(3, 2, 6, 6, dtype=cr.float64))
    elif make == "attention":
        model = nn.MultiheadAttention(8, 2, batch_first=True).to(cr.float64)
        x = cr.randn(2, 4, 8, dtype=cr.float64)
        out = model(x, x, x)[0]
    elif make == "embedding":
        model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)).to(cr.float64)
        out = model(cr.tensor([[0, 1, 1], [4, 1, 0]]))
    else:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()).to(cr.float64)
        out = model(cr.randn(5, 3, dtype=cr.float64))
    loss = (out ** 2).mean()
    explanation = cr.explain(loss, model=model)
    pages = {name: explanation.zoom(name) for name in explanation.gradients}
    loss.backward()
    true = {id(p): p.grad.numpy() for p in model.parameters()}
    assert len(true) == len(pages)
    for name, page in pages.items():
        gradient = page.data["gradient"]
        assert any(np.max(np.abs(g)) == pytest.approx(abs(gradient), rel=1e-12)
                   for g in true.values())
        size = sum(abs(t["product"]) for t in page.data["terms"])
        assert sum(t["product"] for t in page.data["terms"]) == pytest.approx(
            gradient, abs=1e-12 * size)
        whole = sum(p["product"] for p in page.data["paths"]) + page.data["rest"]
        assert whole == pytest.approx(gradient, abs=1e-12 * size)
        assert len(page.text(100).split("\n")) < 60, name


def test_strong_paths_where_there_are_too_many_to_count() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(),
                          nn.Linear(40, 5))
    loss = (model(cr.randn(20, 30)) ** 2).mean()
    page = cr.explain(loss).zoom("model.0.weight", 0, 0)
    assert page.data["count"] is None
    assert page.data["paths"]
    text = page.text(100)
    assert "too many to count" in text
    assert "and all further paths" in text


# ---------------------------------------------------------------- units, layers, examples


def test_a_unit_adds_up_its_inputs() -> None:
    model, x, _, loss = network()
    explanation = cr.explain(loss)
    recording = explanation.derivation.recording
    assert recording is not None
    part = resolve(recording, "model.0")
    found = terms_of(recording, layer_of(recording, part), (2, 3))
    assert found is not None
    terms, constant, whole = found
    w, b = (p.detach().numpy() for p in model[0].parameters())
    assert constant == pytest.approx(b[3])
    assert whole == pytest.approx(float(model[0](x)[2, 3]))
    assert sorted(t[1] * t[2] for t in terms) == pytest.approx(sorted(w[3] * x.numpy()[2]))
    page = explanation.zoom("model.0", unit=3)
    assert "the sum it computes" in page.text(100)
    assert page.title.startswith("unit 3 of model.0")
    assert explanation.zoom("model.0", unit=-2).text(100) == page.text(100)


def test_a_layer_lists_its_units() -> None:
    model, _, _, loss = network()
    explanation = cr.explain(loss)
    for target in ("model.0", model[0]):
        page = explanation.zoom(target).text(100)
        assert "the units with the largest gradients, of 5" in page
        assert '.zoom("model.0", unit=' in page
    channel = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU())
    page = cr.explain(channel(cr.randn(2, 1, 4, 4)).sum(), model=channel).zoom("channel.0", unit=2)
    assert "unit 2 of channel.0 Conv2d" in page.text(100)
    assert "the sum it computes" in page.text(100)


@pytest.mark.parametrize("kind", ["linear", "sequence", "convolution"])
def test_examples_add_up_to_the_gradients(kind: str) -> None:
    cr.manual_seed(2)
    if kind == "linear":
        model: Any = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        out = model.to(cr.float64)(cr.randn(6, 4, dtype=cr.float64))
    elif kind == "sequence":
        model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))
        out = model.to(cr.float64)(cr.randn(6, 7, 4, dtype=cr.float64))
    else:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
        out = model.to(cr.float64)(cr.randn(6, 1, 6, 6, dtype=cr.float64))
    loss = (out * out).mean()
    explanation = cr.explain(loss)
    recording = explanation.derivation.recording
    assert recording is not None
    parts = [contributions(recording, sample, 6) for sample in range(6)]
    assert len(parts[0]) == len(list(model.parameters()))
    for leaf, first in parts[0].items():
        whole = sum(part[leaf] for part in parts)
        assert first.shape == leaf.shape
        np.testing.assert_allclose(whole, recording.gradients[leaf], rtol=1e-9, atol=1e-12)
    page = explanation.zoom(sample=2).text(100)
    assert "example 2 of the batch of 6" in page
    assert "what it adds to the gradients" in page


# ---------------------------------------------------------------- mistakes, wrt, the command


def test_mistakes_of_zoom() -> None:
    _, _, _, loss = network()
    explanation = cr.explain(loss)
    with pytest.raises(SettingError, match=r"Near it: .*model\.0\.weight"):
        explanation.zoom("model.0.wieght")
    with pytest.raises(IndexingError, match="axis 1 has 4 elements"):
        explanation.zoom("model.0.weight", 3, 9)
    with pytest.raises(IndexingError, match="2 numbers, not 1"):
        explanation.zoom("model.0.weight", 3)
    with pytest.raises(IndexingError, match="5 units"):
        explanation.zoom("model.0", unit=5)
    with pytest.raises(IndexingError, match="6 examples"):
        explanation.zoom(sample=6)
    with pytest.raises(SettingError, match="zoom what"):
        explanation.zoom()
    with pytest.raises(SettingError, match="wants a layer"):
        explanation.zoom("model.0.weight", unit=1)
    with pytest.raises(SettingError, match="unit=3"):
        explanation.zoom("model.0", 3)
    with pytest.raises(SettingError, match="whole network"):
        explanation.zoom("model.0", sample=1)
    with pytest.raises(UnusedError):
        explanation.zoom(cr.ones(2, requires_grad=True))
    with pytest.raises(SettingError, match="was not called"):
        explanation.zoom(nn.Linear(2, 2))


def test_wrt_shows_only_the_paths_to_it() -> None:
    model, _, _, loss = network()
    one = cr.explain(loss, wrt=model[2].bias)
    assert list(one.gradients) == ["model.2.bias"]
    assert {step.of for step in one.backward} == {"loss", "v3", "model.2.bias"}
    assert list(cr.explain(loss, wrt="model.2").gradients) == ["model.2.weight", "model.2.bias"]
    assert list(cr.explain(loss, wrt=model[2]).gradients) == ["model.2.weight", "model.2.bias"]
    both = cr.explain(loss, wrt=["model.0.bias", model[2].weight]).gradients
    whole = cr.explain(loss).gradients
    assert set(both) == {"model.0.bias", "model.2.weight"}
    for name, gradient in both.items():
        np.testing.assert_array_equal(gradient.gradient, whole[name].gradient)


def test_wrt_of_intermediate_values() -> None:
    w, u = (cr.tensor(v, dtype=cr.float64, requires_grad=True) for v in (3.0, 2.0))
    z = w * u
    a = cr.tanh(z * 0.1)
    loss = (a * w + z) ** 2
    explanation = cr.explain(loss, wrt=[z, "a"])
    expected = cr.autograd.grad(loss, [z, a], retain_graph=True)
    assert list(explanation.gradients) == ["z", "a"]
    for name, gradient in zip(("z", "a"), expected, strict=True):
        assert float(explanation.gradients[name].gradient) == float(gradient)
    assert not any(step.of in ("w", "u") for step in explanation.backward)
    row = z.reshape(1)
    again = cr.explain((row * row).sum(), wrt=row)
    assert float(again.gradients["row"].gradient[0]) == 12


def test_mistakes_of_wrt() -> None:
    w, other = cr.ones(2, requires_grad=True), cr.ones(2, requires_grad=True)
    loss = (w * 3).sum()
    with pytest.raises(UnusedError, match="'other'"):
        cr.explain(loss, wrt=other)
    with pytest.raises(UnusedError, match="constant"):
        cr.explain(loss, wrt=cr.ones(2))
    with pytest.raises(SettingError, match="Near it: w"):
        cr.explain(loss, wrt="ww")
    with pytest.raises(SettingError, match="empty list"):
        cr.explain(loss, wrt=[])
    with pytest.raises(SettingError, match="got 3"):
        cr.explain(loss, wrt=3)


def test_several_uses_in_one_step_are_one_line() -> None:
    w = cr.tensor(3.0, dtype=cr.float64, requires_grad=True)
    loss = w * w
    (step,) = [s for s in cr.explain(loss).backward if s.of == "w"]
    assert (step.formula, step.numbers, step.result) == (
        "∂loss/∂loss·w + ∂loss/∂loss·w", "1·3 + 1·3", "6")
    assert step.local is not None
    assert (step.local.name, step.local.formula, step.local.result) == ("∂loss/∂w", "w + w", "6")


def test_products_of_paths_are_written_where_they_meet() -> None:
    w = cr.tensor(3.0, dtype=cr.float64, requires_grad=True)
    z = w * w
    a = cr.tanh(z * 0.1)
    loss = (a * w + z) ** 2
    explanation = cr.explain(loss, wrt=w)
    end = explanation.backward[-1]
    assert [one.through for one in end.products] == [
        ("loss", "v3", "v2", "w"), ("loss", "v3", "z", "w"),
        ("loss", "v3", "v2", "a", "v1", "z", "w")]
    assert end.products[0].formula == "∂loss/∂v3·∂v3/∂v2·∂v2/∂w"
    assert sum(float(one.value) for one in end.products) == pytest.approx(float(end.value))
    assert "loss → v3 → v2 → w" in explanation.text(100)


TRAINING = """
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x, y = cr.randn(64, 20), cr.randint(0, 3, (64,))
model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
loss = nn.functional.cross_entropy(model(x), y)
loss.backward()
"""


@pytest.mark.parametrize(("options", "texts"), [
    ("--zoom model.0.weight[3,5]", ["why is ∂loss/∂model.0.weight[3,5]", "further terms"]),
    ("--zoom model.0 --unit 3", ["unit 3 of model.0", "the sum it computes"]),
    ("--sample 4", ["example 4 of the batch of 64"]),
    ("--zoom model.2", ["the units with the largest gradients, of 3"]),
    ("--detail layers", ["δ⁽¹⁾ = (δ⁽²⁾ @ W⁽²⁾) ⊙ [a⁽¹⁾ > 0]"]),
    ("--wrt model.2.bias --wrt model.0.bias", ["∂loss/∂model.2.bias", "∂loss/∂model.0.bias"]),
])
def test_the_command(options: str, texts: list[str], tmp_path: Path,
                     capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.py"
    path.write_text(TRAINING)
    assert main(["explain", str(path), "--width", "100", *options.split()]) == 0
    printed = capsys.readouterr().out
    assert [text for text in texts if text not in printed] == []


@pytest.mark.parametrize(("options", "message"), [
    ("--zoom modle.0", "Near it: model.0"), ("--wrt model.3", "wrt names 'model.3'"),
    ("--zoom model.0 --unit 99", "30 units"), ("--sample 64", "64 examples"),
])
def test_mistakes_of_the_command(options: str, message: str, tmp_path: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.py"
    path.write_text(TRAINING)
    assert main(["explain", str(path), *options.split()]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_every_part_can_be_asked_for() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                          nn.Linear(64, 3))
    loss = nn.functional.cross_entropy(model(cr.randn(5, 1, 6, 6)), cr.arange(5) % 3)
    explanation = cr.explain(loss)
    recording = explanation.derivation.recording
    assert recording is not None
    for part in parts_of(call_tree(recording)):
        name = part.path if part.module is not None else part.place
        assert explanation.zoom(name).text(100)
    for node, text in recording.texts.items():
        if node in recording.gradients and np.size(recording.gradients[node]):
            why = reasons(recording, node, tuple(0 for _ in node.shape))
            total = sum(term.product for term in why.terms)
            if node is not recording.root:
                size = sum(abs(term.product) for term in why.terms)
                assert total == pytest.approx(why.gradient, abs=1e-5 * size + 1e-12), text
