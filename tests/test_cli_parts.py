"""The parts of the command line: split, scale, verdict, numbers, curves."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.cli import plot
from chainrule.cli.preparation import Scale, split_rows
from chainrule.cli.screen import Screen, wrap
from chainrule.cli.verdict import Facts, examined, judge


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    share=st.floats(0, 0.9), seed=st.integers(0, 99),
)
def test_the_split_is_disjoint_stratified_and_repeatable(
    counts: list[int], share: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    kept, held = split_rows(labels, len(labels), share, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(held) == round(share * len(labels))
    for label, count in enumerate(counts):
        assert abs((labels[held] == label).sum() - share * count) <= 1 + 1e-9
    again = split_rows(labels, len(labels), share, seed)
    assert held.tolist() == again[1].tolist()


def test_the_scale_standardises_and_goes_back() -> None:
    values = np.random.default_rng(0).normal(5, 3, (50, 3))
    values[:, 1] = 1e8 + 0.1
    scale = Scale.of(values)
    standard = scale.apply(values)
    assert np.allclose(standard.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(standard.std(axis=0), [1, 0, 1], atol=1e-5)
    assert np.allclose(scale.undo(standard), values)
    assert len(set(Scale.of(values[:, [0, 2]], same_unit=True).std)) == 1


def lost_network() -> nn.Linear:
    model = nn.Linear(2, 1)
    model.weight.data[0, 1] = float("nan")
    return model


GOOD_FACTS: dict[str, Any] = {
    "first_loss": 2.3, "losses": [1.0, 0.5, 0.4, 0.39, 0.39, 0.39],
    "norms": {"0.weight": 0.5, "0.bias": 0.1, "2.weight": 0.4, "2.bias": 0.1},
    "silent": {"1": 0.02}, "units": 50, "training_score": 0.99, "held_out_score": 0.98,
    "held_out_losses": [1.0, 0.5, 0.4, 0.4, 0.4, 0.4],
}


FINDINGS = examined(lost_network(), nn.MSELoss(), cr.ones(8, 2), cr.ones(8, 1))


@pytest.mark.parametrize(("change", "level", "words"), [
    ({}, "healthy", "loss 2.3 → 0.39, gradient of the first layer 1.2 × the last one's, 1 silent"),
    ({"losses": []}, "watch", "too early to judge after 0"),
    ({"losses": [2.3, 2.29, 2.28]}, "unwell", "not learning"),
    ({"norms": {"0.weight": 1e-5, "2.weight": 1.0}}, "unwell", "vanishing gradients"),
    ({"silent": {"1": 0.1, "4": 0.7}}, "unwell", "70 % of layer 4"),
    ({"held_out_score": 0.8}, "watch", "learned by heart"),
    ({"held_out_losses": [1.0, 0.5, 0.4, 0.3]}, "watch", "the held-out loss still fell by 25 %"),
    ({"losses": [1.0, 0.5, 0.4, 0.2], "held_out_losses": []}, "watch", "the loss still fell by 50"),
    ({"held_out_losses": [1.0, 0.04, 0.03, 0.02]}, "healthy", "loss 2.3"),
    ({"held_out_losses": [1.0, 0.4, 0.2, 0.5]}, "watch", "was 0.2 in epoch 3 and is 0.5 now"),
    ({"held_out_score": None}, "healthy", "loss 2.3"),
    ({"norms": {"0.weight": 0.5}, "silent": {}}, "healthy", "0.010 better on training rows"),
    ({"findings": FINDINGS}, "unwell", "CR505: weight, f32[1,2], holds NaN"),
    ({"findings": FINDINGS, "silent": {"4": 0.7}}, "unwell", "70 % of layer 4"),
])
def test_the_verdict_follows_from_the_facts(
    change: dict[str, Any], level: str, words: str
) -> None:
    verdict = judge(Facts(**{**GOOD_FACTS, **change}))
    assert verdict.level == level
    assert words in verdict.text


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (1.0, "1.00"), (2.3456, "2.35"), (123.4, "123"), (99999.0, "99999"),
    (0.01234, "0.0123"), (0.001234, "0.0012"), (0.0001234, "1.2e-4"), (1234567.0, "1.2e6"),
    (-0.5, "-0.500"), (float("inf"), "inf"), (float("nan"), "nan"),
])
def test_numbers_are_short(value: float, text: str) -> None:
    assert plot.number(value) == text


def a_screen(width: int = 60, unicode: bool = True) -> Screen:
    return Screen(sys.stdout, width, colour=False, live=False, unicode=unicode)


@given(
    values=st.lists(st.floats(0, 1e6), min_size=2, max_size=300),
    width=st.integers(40, 100), unicode=st.booleans(),
)
def test_curves_of_any_values_fit(values: list[float], width: int, unicode: bool) -> None:
    series = [plot.Series("training", values, "blue"), plot.Series("held out", values, "yellow")]
    lines = plot.curves(series, a_screen(width, unicode))
    assert len(lines) == 10
    assert max(map(len, lines)) <= width


def test_a_falling_curve_falls() -> None:
    lines = plot.curves([plot.Series("x", [3.0, 2.0, 1.0], "blue")], a_screen(50, unicode=False))
    rows = [line.split("┤" if "┤" in line else "│")[1] for line in lines[:8]]
    assert rows[0].index("*") == 0
    assert rows[-1].rindex("*") == max(row.rindex("*") for row in rows)
    assert "3.00" in lines[0]
    assert "1.00" in lines[7]


@given(st.text("ab \n", max_size=80), st.integers(5, 30))
def test_wrapping_keeps_words(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(len(line) <= width or " " not in line.strip() for line in lines)
