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
