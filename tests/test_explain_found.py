"""Faults of explain that were found by attacking it: each keeps its test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.cli.main import main
from chainrule.core.errors import OverwrittenError, SettingError

F = nn.functional
SCREENS = 120


def tracked(values: Any) -> cr.Tensor:
    return cr.tensor(values, requires_grad=True)


# ---------------------------------------------------------------- zoom into one number


def test_a_local_derivative_is_named_after_the_operand_that_decides_it() -> None:
    """1/b[0] = 0.5 is not b[1], which happens to be 0.5."""
    a, b = tracked([3.0, 5.0]), tracked([2.0, 0.5])
    loss = ((a / b) * (a / b)).sum()
    page = cr.explain(loss).zoom("a", 0).text(100)
    assert "0.5" in page
    assert "b[1]" not in page
    x, w = cr.tensor([[2.0, 0.5]]), tracked([[3.0], [4.0]])
    page = cr.explain((x @ w + x @ w).sum()).zoom("w", 1, 0).text(100)
    assert "0.5  x[0,1]" in page


def test_the_loss_itself_is_not_said_to_move_nothing() -> None:
    w = tracked([1.0, 2.0])
    loss = (w * 3).sum()
    page = cr.explain(loss).zoom("loss").text(100)
    assert "∂loss/∂loss = 1" in page
    assert "every local derivative" not in page


def test_nan_elsewhere_does_not_reach_the_terms_of_a_finite_gradient() -> None:
    """A rule multiplies zeros with everything, and 0·nan is nan; the terms are still right."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = cr.randn(5, 3)
    x[1, 1] = float("nan")
    loss = F.cross_entropy(model(x), cr.tensor([0, 1, 0, 1, 1]))
    explanation = cr.explain(loss)
    data = explanation.zoom("model.0.weight", 0, 0).data
    assert np.isfinite(data["gradient"])
    assert len(data["terms"]) == 5                   # one for each example, none for other units
    assert sum(t["product"] for t in data["terms"]) == pytest.approx(data["gradient"], rel=1e-5)
    assert {t["through"].rpartition(",")[2] for t in data["terms"]} == {"0]"}
    poisoned = explanation.zoom("model.0.weight", 0, 1).data
    assert np.isnan(poisoned["gradient"])
    assert np.isnan(sum(t["product"] for t in poisoned["terms"]))


def test_a_unit_is_not_given_the_weights_of_other_units_where_an_input_is_nan() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = cr.randn(5, 3)
    x[1, 1] = float("nan")
    loss = F.cross_entropy(model(x), cr.tensor([0, 1, 0, 1, 1]))
    page = cr.explain(loss).zoom("model.0", unit=1).text(100)
    assert "model.0.weight[0,1]" not in page
    assert "model.0.weight[2,1]" not in page


class Columns(nn.Module):
    """A square weight whose units are its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(cr.randn(4, 4))

    def forward(self, x: Any) -> Any:
        return x @ self.weight


def test_the_weights_of_a_unit_are_those_it_depends_on() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(Columns(), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    explanation = cr.explain(model(cr.randn(5, 4)).pow(2).mean())
    assert "model.0.weight[…,1]" in explanation.zoom("model.0", unit=1).text(100)
    assert "model.2.weight[1,…]" in explanation.zoom("model.2", unit=1).text(100)


def test_the_units_of_a_convolution_over_time_are_its_channels() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 1))
    explanation = cr.explain(model(cr.randn(5, 2, 8)).pow(2).mean())
    unit = explanation.zoom("model.0", unit=2)
    assert "model.0.weight[2,…,…]" in unit.text(100)
    assert unit.data["gradient"].shape == (5, 6)


@pytest.mark.parametrize("options", [
    {"index": (1.5,)}, {"index": (True,)}, {"unit": "1"}, {"sample": 0.0}])
def test_places_are_whole_numbers(options: dict[str, Any]) -> None:
    w = tracked([1.0, 2.0])
    explanation = cr.explain((w * 3).sum())
    index = options.pop("index", ())
    with pytest.raises(SettingError, match="whole number"):
        explanation.zoom("w" if index else None, *index, **options)


# ---------------------------------------------------------------- one example of the batch


def own_gradients(model: nn.Module, losses: cr.Tensor, sample: int) -> dict[str, Any]:
    """The gradient of one example's own part of the loss."""
    names, leaves = zip(*model.named_parameters(), strict=True)
    found = cr.autograd.grad(losses[sample], leaves, retain_graph=True, allow_unused=True)
    return dict(zip(names, found, strict=True))


def compared(model: nn.Module, loss: cr.Tensor, losses: cr.Tensor) -> set[str]:
    """Holds what zoom(sample=) says against each example's own gradient; returns what is told."""
    explanation = cr.explain(loss, model=model)
    told: set[str] = set()
    for sample in range(len(losses)):
        parts = explanation.zoom(sample=sample).data["contributions"]
        own = own_gradients(model, losses, sample)
        for name, part in parts.items():
            path = name.removeprefix("model.")
            told.add(path)
            np.testing.assert_allclose(part, own[path].numpy(), rtol=1e-3, atol=1e-5, err_msg=name)
    return told


def test_rows_of_a_weight_are_not_taken_for_examples() -> None:
    """As many units as examples, and a penalty that reads the weight alone."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5))
    x, y = cr.randn(5, 3), cr.tensor([0, 1, 2, 3, 4])
    losses = F.cross_entropy(model(x), y, reduction="none") / 5
    assert compared(model, losses.sum(), losses) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    loss = losses.sum() + (model[0].weight ** 2).sum()
    told = compared(model, loss, losses)
    assert told == {"0.bias", "2.weight", "2.bias"}
    page = cr.explain(loss, model=model).zoom(sample=1).text(100)
    assert "not told: model.0.weight" in page


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        return self.head(self.attention(x, x, x)[0])


@pytest.mark.parametrize("batch", [4, 8])
def test_slices_of_a_packed_weight_are_no_examples(batch: int) -> None:
    cr.manual_seed(0)
    model = Attention()
    tokens = cr.randint(0, 10, (batch, 6))
    losses = F.cross_entropy(model(tokens).reshape(-1, 10), tokens.reshape(-1), reduction="none")
    losses = losses.reshape(batch, 6).sum(1)
    told = compared(model, losses.sum(), losses)
    assert {"embed.weight", "head.weight", "head.bias", "attention.out_proj.weight"} <= told


@pytest.mark.parametrize("steps", [4, 6])
def test_time_is_not_taken_for_the_batch(steps: int) -> None:
    """LSTM computes with time first, even with batch_first=True; there may be as many of both."""
    cr.manual_seed(0)
    model = nn.LSTM(3, 4, batch_first=True)
    losses = (model(cr.randn(4, steps, 3))[0] ** 2).mean((1, 2))
    assert "weight_hh_l0" in compared(model, losses.sum(), losses)


def test_a_network_with_time_first_says_so() -> None:
    model = nn.GRU(3, 4)
    loss = (model(cr.randn(7, 5, 3))[0] ** 2).mean()
    with pytest.raises(SettingError, match="batch_first=False"):
        cr.explain(loss).zoom(sample=1)


# ---------------------------------------------------------------- what was written since


def test_numbers_that_were_overwritten_and_no_rule_reads_are_not_shown() -> None:
    x, w = tracked([1.0, 2.0, 3.0]), tracked([1.0, 2.0, 3.0])
    loss = ((x + w) ** 2).sum()
    with cr.no_grad():
        x.add_(100.0)
    explanation = cr.explain(loss)
    text = explanation.text(100)
    assert "101" not in text
    assert "x + w = f32[3] + [1, 2, 3] = [2, 4, 6]" in text
    np.testing.assert_array_equal(explanation.gradients["x"].gradient, [4.0, 8.0, 12.0])


def test_writes_through_views_show_the_numbers_of_their_time() -> None:
    x = tracked([1.0, 2.0, 3.0])
    y = x * 2
    y += 1
    y[0] = y[1] * 5
    y[1:].mul_(3)
    loss = y.sum() * y[0]
    explanation = cr.explain(loss)
    text = explanation.text(110)
    assert "= [2, 4, 6] + 1" in text
    assert "= [25, 0, 0] + [0, 15, 21] = [25, 15, 21]" in " ".join(text.split())
    loss.backward()
    np.testing.assert_array_equal(explanation.gradients["x"].gradient, x.grad.numpy())


def test_numbers_that_a_rule_reads_and_were_overwritten_are_an_error() -> None:
    w = tracked([1.0, 2.0])
    loss = (w * w).sum()
    with cr.no_grad():
        w.zero_()
    with pytest.raises(OverwrittenError, match=r"before that line"):
        cr.explain(loss)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize("loss", [3.0, None, np.ones(())])
def test_what_is_no_tensor_is_told_so(loss: Any) -> None:
    with pytest.raises(SettingError, match="give the tensor itself"):
        cr.explain(loss)


@pytest.mark.parametrize(("options", "said"), [
    ({"names": ["w"]}, "dict of name and tensor"), ({"model": 3}, "nn.Module"),
    ({"precision": -1}, "precision"), ({"precision": "4"}, "precision"),
    ({"elements": -1}, "elements"), ({"elements": 2.5}, "elements")])
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        cr.explain(tracked(1.0) * 2, **options)


def test_a_name_with_line_breaks_stays_in_its_line(tmp_path: Path) -> None:
    w = tracked([0.5])
    explanation = cr.explain((w * 2).sum(), names={"it's \"q\" <b>&amp; λ\n{x}": w})
    assert list(explanation.gradients) == ["it's \"q\" <b>&amp; λ {x}"]
    assert "<b>&amp" not in explanation.html()
    script = explanation.save(tmp_path / "by_hand.py")
    subprocess.run([sys.executable, script], check=True, capture_output=True, cwd=tmp_path)


def test_an_explanation_nobody_asked_details_of_is_two_screens_at_most() -> None:
    cr.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5), nn.Dropout(0.5))
    loss = F.cross_entropy(model(cr.randn(2, 3, 8, 8)), cr.tensor([1, 2]))
    assert str(cr.explain(loss)).count("\n") <= SCREENS
    assert str(cr.explain(loss, detail="steps")).count("\n") > SCREENS


# ---------------------------------------------------------------- names


class Trainer:
    """Not a module: its parts are in a dict and a list."""

    def __init__(self) -> None:
        self.nets = {"first": nn.Linear(3, 2), "second": nn.Linear(2, 3)}
        self.scales = [cr.ones(3, requires_grad=True)]

    def names(self) -> list[str]:
        loss = (self.nets["second"](self.nets["first"](cr.ones(2, 3))) * self.scales[0]).sum()
        return list(cr.explain(loss).gradients)


def test_modules_in_lists_and_dicts_have_the_names_of_their_places() -> None:
    assert Trainer().names() == [
        "self.nets['first'].weight", "self.nets['first'].bias", "self.nets['second'].weight",
        "self.nets['second'].bias", "self.scales[0]"]
    nets = [nn.Linear(3, 3), nn.Linear(3, 3)]
    explanation = cr.explain(nets[1](nets[0](cr.ones(1, 3))).sum())
    assert list(explanation.gradients) == [
        "nets[0].weight", "nets[0].bias", "nets[1].weight", "nets[1].bias"]
    assert explanation.zoom("nets[0]").title.startswith("nets[0] ")
    assert "nets[0].weight[1,2]" in explanation.zoom("nets[0].weight[1,2]").title
    layers = [nn.Linear(3, 3), nn.Tanh()]
    model = nn.Sequential(*layers)                   # the model's own names come first
    assert list(cr.explain(model(cr.ones(1, 3)).sum()).gradients) == [
        "model.0.weight", "model.0.bias"]


# ---------------------------------------------------------------- practice


def test_a_backward_pass_without_gradients_is_not_marked_as_right() -> None:
    with pytest.raises(SettingError, match="nothing to mark"):
        cr.explain.check(lambda w: {}, lambda w: w * w, 2.0)


@pytest.mark.parametrize("seed", [-1, "a", 1.5])
def test_seeds_of_exercises_are_whole_numbers(seed: Any) -> None:
    with pytest.raises(SettingError, match="seed"):
        cr.explain.exercise("local", 1, seed)


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(("words", "said"), [
    ("e1 --wrt w", "--wrt"), ("e1 --detail layers", "--detail"), ("cost --zoom w", "--zoom"),
    ("depth --unit 3", "--unit"), ("e1 --unfold model", "--picture"),
    ("e1 --zoom w --save a.md", "--save")])
def test_options_that_would_be_ignored_are_refused(
        words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_worked_example_can_be_zoomed_into(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "e2", "--zoom", "W[1]"]) == 0
    assert capsys.readouterr().out.startswith("why is ∂L/∂W[1]")
