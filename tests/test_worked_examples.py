"""The worked examples e1 to e8: the numbers of the field's texts, from our own forward and backward
pass. Every expected number here was computed by hand or is a power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli.main import main
from chainrule.explain import examples
from chainrule.explain.examples import EXAMPLES, Page, derived, found, run, tell
from chainrule.explain.numbers import Style

EXACT = Style(None)


def values_of(name: str, **changes: str) -> dict[str, Any]:
    """Every value of an example's derivation, by its name in the explanation."""
    program = EXAMPLES[name].program
    for old, new in changes.items():
        assert old in program
        program = program.replace(old, new)
    return found(derived(run(name, program), EXACT))


# ---------------------------------------------------------------- e1 to e3


@pytest.mark.parametrize(("target", "expected"), [
    ("1.0", {"z": 1, "a": 1, "L": 0, "∂L/∂w": 0}),
    ("0.0", {"z": 1, "a": 1, "L": 1, "∂L/∂a": 2, "∂a/∂z": 1, "∂v1/∂w": 2, "∂z/∂v1": 1,
             "∂L/∂w": 4, "∂L/∂b": 2}),
])
def test_e1(target: str, expected: dict[str, float]) -> None:
    values = values_of("e1", TARGET=target)
    assert {key: float(values[key]) for key in expected} == expected


def test_e2_exact_and_by_hand() -> None:
    variables = run("e2", EXAMPLES["e2"].program)
    exact = found(derived(variables, EXACT))
    paper = found(derived(variables, Style(3, by_hand=3)))
    by_hand = {"z": 0.708, "p": 0.670, "∂L/∂p": -0.660, "∂p/∂z": 0.221, "∂L/∂z": -0.146,
               "∂L/∂W": [-0.0876, -0.0204]}
    for key, expected in by_hand.items():
        np.testing.assert_allclose(paper[key], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(exact[key], expected, rtol=3e-3)
    updated = variables["W"].detach().numpy() - 0.1 * paper["∂L/∂W"]
    np.testing.assert_allclose(updated, [1.20876, -0.79796], rtol=0, atol=1e-12)
    sigmoid = 1 / (1 + np.exp(-0.708))
    delta = -2 * (1 - sigmoid) * sigmoid * (1 - sigmoid)
    np.testing.assert_allclose(exact["∂L/∂W"], delta * np.array([0.6, 0.14]), rtol=1e-14)


def test_e3_and_the_following_steps() -> None:
    values = values_of("e3")
    expected = {"ŷ": 3, "L": 9, "∂L/∂ŷ": -6, "∂ŷ/∂w": 3, "∂L/∂w": -18}
    assert {key: float(values[key]) for key in expected} == expected
    w, losses, errors = 1.0, [], []
    for _ in range(4):
        values = values_of("e3", **{"tensor(1.0": f"tensor({w!r}"})
        losses.append(float(values["L"]))
        errors.append(w - 2)
        w -= 0.1 * float(values["∂L/∂w"])
    np.testing.assert_allclose(losses, [9, 5.76, 3.6864, 2.359296], rtol=1e-13)
    np.testing.assert_allclose(np.array(errors) + 2, [1, 2.8, 1.36, 2.512], rtol=1e-13)
    np.testing.assert_allclose(np.divide(errors[1:], errors[:-1]), [-0.8] * 3, rtol=1e-13)


# ---------------------------------------------------------------- e4 and e5: formulas


def test_e4_deltas() -> None:
    v = values_of("e4")
    a2 = 1 / (1 + np.exp(-(-1.5 * np.tanh(0.5) + 0.3)))
    delta2 = 2 * (a2 - 0.25) * a2 * (1 - a2)
    delta1 = delta2 * -1.5 * (1 - np.tanh(0.5) ** 2)
    expected = {"∂L/∂z2": delta2, "∂L/∂w2": delta2 * np.tanh(0.5), "∂L/∂b2": delta2,
                "∂L/∂z1": delta1, "∂L/∂w1": delta1 * 0.5, "∂L/∂b1": delta1}
    for key, value in expected.items():
        np.testing.assert_allclose(v[key], value, rtol=1e-14)


def test_e5_matrices() -> None:
    v = values_of("e5")
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    x, y = np.array([[0.5], [-1.0]]), np.array([[1.0], [0.0]])
    w1, b1 = np.array([[0.2, -0.4], [0.7, 0.1]]), np.array([[0.1], [-0.2]])
    w2, b2 = np.array([[0.6, -0.3], [-0.5, 0.9]]), np.array([[0.0], [0.3]])
    h = sigmoid(w1 @ x + b1)
    p = sigmoid(w2 @ h + b2)
    delta2 = -2 * (y - p) * p * (1 - p)
    delta1 = w2.T @ delta2 * h * (1 - h)
    for key, value in {"∂L/∂z2": delta2, "∂L/∂W2": delta2 @ h.T, "∂L/∂z1": delta1,
                       "∂L/∂W1": delta1 @ x.T, "∂L/∂b1": delta1, "∂L/∂b2": delta2}.items():
        np.testing.assert_allclose(v[key], value, rtol=1e-13)


# ---------------------------------------------------------------- e6: NumPy to the last bit


def test_e6_numpy_backward_equals_grad_to_the_last_bit() -> None:
    variables = run("e6", EXAMPLES["e6"].program)
    names = ("W1", "b1", "W2", "b2")
    arrays = {k: variables[k].detach().numpy() for k in ("x", "y", *names)}
    hand = run("e6_numpy", examples.BY_HAND, np=np, **arrays)
    explained = found(derived(variables, EXACT))
    variables["L"].backward()
    for key in names:
        gradient = variables[key].grad.numpy()
        assert gradient.dtype == np.float64
        np.testing.assert_array_equal(gradient, hand[f"d{key}"])
        np.testing.assert_array_equal(gradient, explained[f"∂L/∂{key}"])


def test_e6_textbook_loop_unchanged() -> None:
    """`import chainrule as torch`, twenty steps of SGD, against the same in NumPy, bit by bit."""
    import chainrule as torch
    import chainrule.nn as nn

    torch.manual_seed(0)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[1.0]], dtype=torch.float64)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).to(torch.float64)
    w1, b1, w2, b2 = [p.detach().numpy().copy() for p in model.parameters()]
    xn, yn = x.numpy(), y.numpy()
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        output = model(x)
        loss = criterion(output, y)
        loss.backward()
        optimizer.step()

        z1 = xn @ w1.T + b1
        a1 = np.maximum(z1, 0)
        z2 = a1 @ w2.T + b2
        assert loss.item() == np.mean((z2 - yn) ** 2)
        dz2 = (z2 - yn) * (2 / yn.size)
        dz1 = (dz2 @ w2) * (z1 > 0)
        gradients = [dz1.T @ xn, dz1.sum(0), dz2.T @ a1, dz2.sum(0)]
        for p, g in zip(model.parameters(), gradients, strict=True):
            np.testing.assert_array_equal(p.grad.numpy(), g)
        w1, b1, w2, b2 = [w - 0.01 * g for w, g in zip((w1, b1, w2, b2), gradients, strict=True)]
        for p, w in zip(model.parameters(), (w1, b1, w2, b2), strict=True):
            np.testing.assert_array_equal(p.detach().numpy(), w)


# ---------------------------------------------------------------- e7 and e8


def test_e7_sums_over_the_batch_and_shapes() -> None:
    variables = run("e7", EXAMPLES["e7"].program)
    d = derived(variables, EXACT)
    v = found(d)
    x, w = variables["X"].detach().numpy(), variables["W"].detach().numpy()
    delta = v["∂L/∂Z"]
    np.testing.assert_allclose(v["∂L/∂b"], delta.sum(0), rtol=1e-15)
    np.testing.assert_allclose(v["∂L/∂X"], [w @ row for row in delta], rtol=1e-14)
    np.testing.assert_allclose(
        v["∂L/∂W"], sum(np.outer(a, b) for a, b in zip(x, delta, strict=True)), rtol=1e-14)
    forward = {step.name: step.shape for step in d.forward}
    for step in d.backward:
        if step.of in forward:
            assert step.shape == forward[step.of]
            assert np.shape(step.value) == step.shape


def test_e8_depth() -> None:
    assert examples.stack_gradient(0.9, 50) == pytest.approx(0.00515, rel=1e-3)
    assert examples.stack_gradient(1.1, 50) == pytest.approx(117.4, rel=1e-3)
    assert examples.stack_gradient(0.25, 10) == pytest.approx(9.5e-7, rel=5e-3)
    d = derived(run("e8", EXAMPLES["e8"].program), EXACT)
    factors = examples.sigmoid_factors(d)
    assert len(factors) == 50
    assert max(factors) <= 0.25
    gradient = float(found(d)["∂L/∂x"])
    assert np.prod(factors) == pytest.approx(gradient, rel=1e-12)
    assert 0 < gradient <= 0.25 ** 49


# ---------------------------------------------------------------- as told

E1_GOLDEN = """\
given
  w = 0.5   b = 0   x = 2   y = 0

forward
  e1.py:8  z = w * x + b
    1 v1 = w·x     = 0.5·2   = 1
    2 z  = v1 + b  = 1 + 0   = 1
  e1.py:9  a = cr.relu(z)
    3 a  = relu(z) = relu(1) = 1
  e1.py:10  L = (a - y) ** 2
    4 v2 = a − y   = 1 − 0   = 1
    5 L  = v2²     = 1²      = 1

backward   ∂L/∂x: how much L grows for each unit that x grows
  e1.py:10  L = (a - y) ** 2
      ∂L/∂L                          = 1   the start
    5 ∂L/∂v2 = ∂L/∂L·2·v2    = 1·2·1 = 2   ∂L/∂v2 = 2
    4 ∂L/∂a  = ∂L/∂v2                = 2   ∂v2/∂a = 1
  e1.py:9  a = cr.relu(z)
    3 ∂L/∂z  = ∂L/∂a·[a > 0] = 2·1   = 2   ∂a/∂z = 1
  e1.py:8  z = w * x + b
    2 ∂L/∂v1 = ∂L/∂z                 = 2   ∂z/∂v1 = 1
    2 ∂L/∂b  = ∂L/∂z                 = 2   ∂z/∂b = 1
    1 ∂L/∂w  = ∂L/∂v1·x      = 2·2   = 4   ∂v1/∂w = 2

gradients
      value   gradient
  ────────────────────
  w   0.5     4
  b   0       2
"""


def test_e1_golden() -> None:
    told = tell("e1")
    assert E1_GOLDEN in told
    assert told.startswith("E1  One neuron with ReLU\n")
    assert told.endswith("∂L/∂w = ∂L/∂a · ∂a/∂z · ∂v1/∂w = 2 · 1 · 2 = 4.")


@pytest.mark.parametrize(("name", "numbers"), [
    ("e1", ["∂L/∂w  = ∂L/∂v1·x      = 2·2   = 4"]),
    ("e2", ["0.708", "0.670", "−0.660", "0.221", "−0.146", "[−0.0876, −0.0204]",
            "[1.20876, −0.79796]", "[−0.08757197, −0.02043346]"]),
    ("e3", ["−18", "2.8", "5.76", "1.36", "3.6864", "2.512", "2.359296", "−0.8"]),
    ("e4", ["δ₂ · a₁"]),
    ("e5", ["W₂ᵀ δ₂ ⊙ σ′(z₁)"]),
    ("e6", ["W1.grad", "equal", "2.bias"]),
    ("e7", ["3×2", "Σ of examples run alone"]),
    ("e8", ["0.005154", "117.4", "9.537e−7", "3.155e−30"]),
])
def test_examples_print_their_numbers(name: str, numbers: list[str],
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name, "--width", "100"]) == 0
    printed = capsys.readouterr().out
    for number in numbers:
        assert number in printed
    assert "different" not in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("width", [70, 100])
def test_examples_fit_the_terminal(name: str, width: int) -> None:
    assert max(map(len, tell(name, Page(width)).split("\n"))) <= width


def test_examples_leave_settings_and_generators_alone() -> None:
    before = cr.settings.default_dtype
    for name in EXAMPLES:
        tell(name)
    assert cr.settings.default_dtype == before
