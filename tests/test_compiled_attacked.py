"""Programs on which compiled code once differed from eager execution, found by random programs.

    python -m pytest tests/test_compiled_attacked.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import chainrule as cr


@pytest.fixture(autouse=True)
def _verified() -> Iterator[None]:
    """Each stage of the compiler is checked."""
    with cr.settings.using(compile="native", verify=True):
        yield


def agree(function: Callable[..., Any], *args: Any) -> None:
    """The compiled function gives what the function gives."""
    ours, theirs = cr.compile(function)(*args), function(*args)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 9, 80])
def test_a_product_of_one_element_scaled_by_its_own_norm(depth: int) -> None:
    """As clip_grad_norm_ does with the gradient of a 1 x 1 weight: what finishes the product reads
    the scale, which it stores itself, from registers."""
    cr.manual_seed(0)

    def clipped(a: Any, b: Any, v: Any) -> Any:
        product = a.T @ b
        scale = 0.5 / (product.square().sum().sqrt() + 1e-6)
        return product * scale, v * scale, scale
    agree(clipped, cr.randn(depth, 1), cr.randn(depth, 1), cr.randn(4))


def test_clipping_the_gradient_of_a_layer_of_one_number() -> None:
    cr.manual_seed(0)
    layer, head = cr.nn.Linear(1, 1), cr.nn.Linear(16, 4)

    def gradients(x: Any, y: Any) -> Any:
        parameters = [*layer.parameters(), *head.parameters()]
        for p in parameters:
            p.grad = None
        h = layer(layer(x[..., None]).tanh()).flatten(1)
        cr.nn.functional.cross_entropy(head(h), y).backward()
        norm = cr.nn.utils.clip_grad_norm_(parameters, 0.5)
        return norm, *[p.grad for p in parameters]
    agree(gradients, cr.randn(5, 16), cr.randint(0, 4, (5,)))


def noisy(kind: str, x: Any) -> Any:
    """Something random in the memory order of x."""
    if kind == "dropout":
        return cr.nn.functional.dropout(x, 0.5)
    return x + (cr.rand(2, 3, 4) if kind == "uniform" else cr.randn_like(x))


@pytest.mark.parametrize("kind", ["dropout", "uniform", "normal"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_writing_to_a_reshape_of_random_numbers(kind: str, order: tuple[int, ...]) -> None:
    """Whether the reshape is a view is known: random numbers lie in the order they are made."""
    def written(x: Any) -> Any:
        y = noisy(kind, x).clone()
        flat = y.reshape(-1)
        flat[::2].add_(1)
        return y, flat
    cr.manual_seed(0)
    sizes = [0] * 3
    for axis, n in zip(order, (2, 3, 4), strict=True):
        sizes[axis] = n
    x = cr.randn(*sizes).permute(*order)
    assert tuple(x.shape) == (2, 3, 4)
    step, results = cr.compile(written), []
    for function in (step, written):
        cr.manual_seed(1)
        results.append(function(x))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [np.float64(0.3), np.int64(1), np.float32(0.3), 0.3, 1])
def test_a_limit_of_numpy_keeps_the_dtype(limit: Any) -> None:
    """Compiled and not, as other arithmetic with NumPy's numbers does."""
    cr.manual_seed(0)
    x = cr.randn(3)

    def limited(x: Any, limit: Any) -> Any:
        return x.clamp(max=limit), x.clamp(min=limit), cr.clamp_max(x, limit)
    step = cr.compile(limited)
    for value in (0.5, limit):
        for a, b in zip(step(x, value), limited(x, value), strict=True):
            assert a.dtype == b.dtype == cr.float32
            np.testing.assert_array_equal(a.numpy(), b.numpy())
