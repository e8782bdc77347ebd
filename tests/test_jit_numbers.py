"""Python numbers among the arguments of a compiled function, which may change in each call.

    python -m pytest tests/test_jit_numbers.py
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim

VALUES = np.linspace(0.1, 0.9, 7).tolist()


pytestmark = pytest.mark.usefixtures("engine")


def data() -> Any:
    return cr.arange(12).reshape(3, 4).float() / 7


def agree(f: Callable[..., Any], values: Any, compiles: int) -> Any:
    """As eager, and bit for bit as when compiled for that value alone."""
    g, x = cr.compile(f), data()
    for value in values:
        found, wanted, alone = g(x, value), f(x, value), cr.compile(f)(x, value)
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=2e-6, atol=1e-6)
        np.testing.assert_array_equal(found.numpy(), alone.numpy())
    assert len(g.compiles) == compiles, [record.why for record in g.compiles]
    return g


@pytest.mark.parametrize("f", [
    lambda x, b: x * b, lambda x, b: (1 - b) * x + b * x * x, lambda x, b: x / b,
    lambda x, b: x.long() * b, lambda x, b: x.add(x, alpha=b), lambda x, b: cr.where(x > b, x, b),
    lambda x, b: x + cr.ones(4) * b, lambda x, b: x.double() * b, lambda x, b: x.half() * b,
    lambda x, b: x.softmax(-1) * abs(-b) // 0.25, lambda x, b: x.masked_fill(x > 0.5, b),
    lambda x, b: x + cr.full((3, 4), b), lambda x, b: x * cr.tensor(b), lambda x, b: (x > 1) * b,
])
def test_a_number_that_changes_is_compiled_for_twice(f: Callable[..., Any]) -> None:
    agree(f, VALUES, 2)
    agree(f, np.linspace(0.1, 0.9, 5), 2)                      # NumPy's numbers


def test_powers() -> None:
    x = data()
    g = cr.compile(lambda x, b: x ** b + b ** x)
    for value in VALUES:
        np.testing.assert_allclose(g(x, value).numpy(), (x ** value + value ** x).numpy(),
                                   rtol=1e-6)
    assert len(g.compiles) == 2
    agree(lambda x, k: x ** k, [1, 2, 3], 3)                   # each its own formula


def test_whole_numbers() -> None:
    agree(lambda x, k: x * k, range(1, 6), 2)
    agree(lambda x, k: x.long() // k + k, range(1, 6), 2)
    agree(lambda x, k: x[k], range(3), 3)
    agree(lambda x, k: x.reshape(k, -1), (1, 2, 3), 3)
    agree(lambda x, k: sum((x * i for i in range(k)), x), (1, 2, 3), 3)


def test_a_decision_is_a_guard_that_names_its_line() -> None:
    g = agree(lambda x, b: x * b if b > 0.5 else -x, VALUES, 3)
    assert "b > 0.5 is no longer False" in g.compiles[2].why
    assert "test_jit_numbers.py" in g.compiles[2].why
    assert "from now on b may change" in g.compiles[1].why
    agree(lambda x, b: x * min(1.0, b / 0.5), VALUES, 3)
    agree(lambda x, b: x * (1 / b) if b != 0 else x, [1.0, 0.5, 0.0, 0.25, 0.0], 3)


def test_what_needs_the_number_itself_is_compiled_for_each() -> None:
    g = agree(lambda x, b: x * math.exp(-b), VALUES, len(VALUES))
    assert "is no longer" in g.compiles[-1].why and "math.exp(-b)" in g.compiles[-1].why
    agree(lambda x, b: x * {0.1: 1, 0.5: 2}.get(b, 3), VALUES, len(VALUES))
    g = agree(lambda x, b: x * b if type(b) is float else x, VALUES, len(VALUES))
    assert "stays fixed" in g.compiles[1].why
    agree(lambda x, b: x * float.__add__(b, 1.0), VALUES, len(VALUES))
    agree(lambda x, b: x * b if isinstance(b, float) else x, VALUES, 2)


def test_kinds_of_numbers_are_told_apart() -> None:
    g = agree(lambda x, b: x.long() * b, [1, 2, 0.5, 3, 0.25], 3)
    assert "a int became 0.5" in g.compiles[2].why
    agree(lambda x, b: x * b, [1.0, math.nan, math.inf, -0.0, 0.0], 2)
    g = cr.compile(lambda x, b: x * b)
    assert g(data(), True).dtype == cr.float32
    assert g(data(), False).sum().item() == 0


def test_a_number_that_makes_python_fail_fails_at_the_users_line() -> None:
    g = cr.compile(lambda x, b: x * (1 / b))
    g(data(), 1.0), g(data(), 2.0)
    with pytest.raises(ZeroDivisionError):
        g(data(), 0.0)
    assert g(data(), 4.0).sum() == data().sum() / 4


def test_numbers_in_containers_keywords_and_results() -> None:
    g = cr.compile(lambda x, options, scale=1.0: (x * options["beta"], options["beta"] * scale))
    for beta in VALUES:
        y, returned = g(data(), {"beta": beta}, scale=beta)
        assert type(returned) is float and returned == beta * beta
        np.testing.assert_array_equal(y.numpy(), (data() * beta).numpy())
    assert len(g.compiles) == 2


@pytest.mark.parametrize("keyword", [False, True])
def test_annealing_in_a_training_step(keyword: bool) -> None:
    def run(compiled: bool) -> Any:
        cr.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = optim.Adam(model.parameters(), 0.01)

        def step(x: Any, beta: float) -> Any:
            optimizer.zero_grad()
            y = model(x)
            loss = (1 - beta) * (y ** 2).mean() + beta * (y - 1).abs().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1 + beta)
            optimizer.step()
            return loss
        function = cr.compile(step) if compiled else step
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            losses = [(function(data(), beta=k / 40) if keyword else function(
                data(), k / 40)).item() for k in range(40)]
        if compiled:
            assert len(function.compiles) == 2  # type: ignore[attr-defined]
        return losses
    np.testing.assert_allclose(run(True), run(False), rtol=1e-4)


def test_gradients_flow_out_of_a_function_of_a_number() -> None:
    g = cr.compile(lambda x, b: (x * x * b).sum())
    for beta in VALUES:
        x = data().requires_grad_()
        g(x, beta).backward()
        np.testing.assert_allclose(x.grad.numpy(), (2 * beta * x.detach()).numpy(), rtol=1e-6)
    assert len(g.compiles) == 2


def test_writing_to_one_model_costs_the_functions_of_others_nothing(
        monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    watch = type(cr.compile(lambda x: x)).__module__.replace("compiled", "checks")
    checks = __import__(watch, fromlist=["group_change"])
    known = checks.group_change
    monkeypatch.setattr(checks, "group_change", lambda entry: looked.append("") or known(entry))
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer, second = (optim.Adam(m.parameters(), 0.1) for m in (model, other))

    @cr.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss
    x = cr.ones(1, 2)
    for _ in range(3):
        step(x)
    looked.clear()
    for _ in range(3):
        other.note = "written"                   # type: ignore[assignment]
        second.param_groups[0]["lr"] = 0.2
        other(x).sum().backward()
        second.step()
        optimizer.param_groups[0]["lr"] = 0.05
        step(x)
    assert not looked and len(step.compiles) == 1
    model.note = "written"                       # type: ignore[assignment]
    step(x)
    assert looked and len(step.compiles) == 1
    for _ in range(200):                         # more than are remembered one by one
        other.note = "written"                   # type: ignore[assignment]
    model.eval()
    step(x)
    assert len(step.compiles) == 2
