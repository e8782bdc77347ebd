"""What explain says of every row of the table, and of random programs, is what backward() gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.errors import SettingError
from chainrule.core.primitive import TABLE
from chainrule.explain.large.local import Locals
from chainrule.explain.large.tree import call_tree
from chainrule.explain.large.zoom import parts_of

SAMPLES = [pytest.param(prim, xs, params, id=f"{name}-{i}") for name, prim in TABLE.items()
           for i, (xs, params) in enumerate(prim.samples(np.random.default_rng(0)))
           if prim.differentiable]
# Rules written for NumPy alone (`fast_pulls`) add in another order than the rows' own rules, which
# explain runs. The bound counts units in the last place of the largest number of the gradient.
LAST_PLACES = 8


def applied(prim: Any, xs: Any, params: Any) -> tuple[Any, dict[str, Any]]:
    """A loss that depends on every element of the row's result, and its leaves."""
    leaves = {}
    operands = []
    for name, x in zip("abcdefgh", xs, strict=False):
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            x = leaves[name] = cr.tensor(np.array(x), requires_grad=True)
        operands.append(x)
    y = prim(*operands, **params)
    if not isinstance(y, cr.Tensor) or y.grad_fn is None or not y.numel():
        return None, {}
    weights = cr.tensor(np.random.default_rng(3).uniform(0.5, 1.5, y.shape), dtype=y.dtype)
    return (y * weights).sum(), leaves


@pytest.mark.parametrize(("prim", "xs", "params"), SAMPLES)
def test_explained_gradients_are_those_of_backward(prim: Any, xs: Any, params: Any) -> None:
    loss, leaves = applied(prim, xs, params)
    if loss is None:
        pytest.skip("no gradient flows through this row")
    explained = cr.explain(loss, names=leaves).gradients
    loss.backward()
    for name, leaf in leaves.items():
        if leaf.grad is None:
            assert name not in explained
            continue
        true = leaf.grad.numpy()
        if any(prim.fast_pulls):
            bound = LAST_PLACES * np.finfo(true.dtype).eps * np.max(np.abs(true), initial=0.0)
            np.testing.assert_allclose(explained[name].gradient, true, rtol=0, atol=bound)
        else:
            np.testing.assert_array_equal(explained[name].gradient, true)


@pytest.mark.parametrize(("prim", "xs", "params"), SAMPLES)
def test_zoom_terms_of_every_row_add_up_to_the_gradient(prim: Any, xs: Any, params: Any) -> None:
    """Local derivatives come from the backward rules alone, whatever the row."""
    loss, leaves = applied(prim, xs, params)
    if loss is None:
        pytest.skip("no gradient flows through this row")
    explanation = cr.explain(loss, names=leaves)
    for name, leaf in leaves.items():
        if name not in explanation.gradients or not leaf.numel():
            continue
        page = explanation.zoom(name)
        gradient = page.data["gradient"]
        if not np.isfinite(gradient):
            continue
        terms = [term["product"] for term in page.data["terms"]]
        size = sum(map(abs, terms)) or 1.0
        close = 64 * float(np.finfo(leaf.numpy(force=True).dtype).eps) * size
        assert sum(terms) == pytest.approx(gradient, abs=close)
        paths = sum(path["product"] for path in page.data["paths"])
        assert paths + page.data["rest"] == pytest.approx(gradient, abs=close)


def test_local_derivatives_are_the_columns_of_the_jacobian() -> None:
    x = cr.tensor([0.3, -1.2, 0.7], dtype=cr.float64, requires_grad=True)
    s = cr.softmax(x, dim=0)
    loss = (s * cr.tensor([1.0, 2.0, -1.0], dtype=cr.float64)).sum()
    recording = cr.explain(loss).derivation.recording
    assert recording is not None
    node = next(n for n in recording.order if n.name == "softmax")
    y = s.detach().numpy()
    for j in range(3):
        column = Locals(recording).push(node, 0, np.eye(3)[j])
        np.testing.assert_allclose(column, y * (np.eye(3)[j] - y[j]), rtol=1e-13)


# ---------------------------------------------------------------- random programs

UNARY = [cr.tanh, cr.sigmoid, cr.sin, cr.relu, lambda x: x ** 2, lambda x: -x, lambda x: 0.5 * x,
         lambda x: 2 - x, lambda x: cr.exp(x * 0.3), lambda x: x * x, lambda x: x.sum(),
         lambda x: cr.softmax(x.reshape(-1), dim=0), lambda x: x.mean() * x, lambda x: x.abs(),
         lambda x: x.reshape(-1)[:1], lambda x: cr.logsumexp(x.reshape(-1), dim=0)]
BINARY = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b,
          lambda a, b: a / (b * b + 1), cr.maximum, lambda a, b: cr.where(a > b, a, b * 2)]
SHAPES = [(), (3,), (2, 3), (1, 3), (2, 1)]


def fits(shape: tuple[int, ...]) -> bool:
    """Is it broadcast to (2, 3)?"""
    return len(shape) <= 2 and all(n in (1, whole) for n, whole in zip(
        shape[::-1], (3, 2), strict=False))


def random_program(seed: int) -> tuple[Any, list[Any]]:
    """A loss of a few leaves, by operations in random order; values are read several times."""
    rng = np.random.default_rng(seed)
    leaves = [cr.tensor(rng.uniform(-1, 1, SHAPES[rng.integers(len(SHAPES))]), requires_grad=True)
              for _ in range(rng.integers(1, 4))]
    made = list(leaves)
    for _ in range(rng.integers(1, 12)):
        a, b = (made[i] for i in rng.integers(len(made), size=2))
        if rng.random() < 0.5:
            made.append(UNARY[rng.integers(len(UNARY))](a))
        elif fits(a.shape) and fits(b.shape):
            made.append(BINARY[rng.integers(len(BINARY))](a, b))
    loss = made[-1].sum()
    for value in made[-3:-1]:
        loss = loss + 0.5 * value.sum()
    return loss, leaves


FAST = {name for name, prim in TABLE.items() if any(prim.fast_pulls)}


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_programs(block: int) -> None:
    """Equal to the last bit; to a few of the last place where a row has rules for NumPy alone."""
    exact = 0
    for seed in range(100 * block, 100 * (block + 1)):
        loss, leaves = random_program(seed)
        named = {f"x{i}": leaf for i, leaf in enumerate(leaves)}
        explanation = cr.explain(loss, names=named, detail="steps")
        recording = explanation.derivation.recording
        assert recording is not None
        fast = any(node.name in FAST for node in recording.order)
        loss.backward()
        for name, leaf in named.items():
            if leaf.grad is None:
                assert name not in explanation.gradients
                continue
            found, true = explanation.gradients[name].gradient, leaf.grad.numpy()
            if fast:
                scale = np.max(np.abs(true), initial=1.0)
                np.testing.assert_allclose(found, true, rtol=1e-13, atol=1e-14 * scale)
            else:
                np.testing.assert_array_equal(found, true)
                exact += 1
    assert exact > 20


@pytest.mark.parametrize("seed", range(40))
def test_paths_of_random_programs_add_up(seed: int) -> None:
    """Terms and paths of the element with the largest gradient, and the products of the steps."""
    loss, leaves = random_program(1000 + seed)
    named = {f"x{i}": leaf for i, leaf in enumerate(leaves)}
    explanation = cr.explain(loss, names=named)
    for name in explanation.gradients:
        page = explanation.zoom(name)
        data = page.data
        size = sum(abs(term["product"]) for term in data["terms"]) or 1.0
        assert sum(t["product"] for t in data["terms"]) == pytest.approx(
            data["gradient"], abs=1e-10 * size)
        whole = sum(path["product"] for path in data["paths"]) + data["rest"]
        assert whole == pytest.approx(data["gradient"], abs=1e-10 * size)
        for path in data["paths"]:
            assert np.prod(path["factors"]) == pytest.approx(path["product"])
        sizes = [abs(path["product"]) for path in data["paths"]]
        assert sizes == sorted(sizes, reverse=True)
    for step in explanation.backward:
        if step.products:
            assert sum(float(one.value) for one in step.products) == pytest.approx(
                float(step.value), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_every_page_of_random_programs_can_be_written(seed: int) -> None:
    loss, leaves = random_program(2000 + seed)
    explanation = cr.explain(loss, names={f"x{i}": leaf for i, leaf in enumerate(leaves)})
    recording = explanation.derivation.recording
    assert recording is not None
    text = explanation.layers.text(80)
    assert max(map(len, text.split("\n"))) <= 80
    for part in parts_of(call_tree(recording)):
        assert explanation.zoom(part.name).text(80)
        try:
            assert "norm of its δ" in explanation.zoom(part.name, unit=0).text(200)
        except SettingError as error:
            assert "has no units" in str(error)         # noqa: PT017
