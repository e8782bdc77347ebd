"""Compiled functions and memory: writes to views, strides, flags of results, a tensor given twice.

    python -m pytest tests/test_jit_views.py
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.errors import FreedGraphError, InPlaceError, TracedValueError

pytestmark = pytest.mark.usefixtures("engine")


def data() -> Any:
    return cr.arange(6).reshape(2, 3).float()


def facts(x: Any) -> Any:
    """What a result shows of itself."""
    if isinstance(x, (tuple, list)):
        return [facts(y) for y in x]
    if not isinstance(x, cr.Tensor):
        return x
    return (x.is_leaf, x.requires_grad, tuple(x.shape), x.dtype,
            np.round(x.detach().double().numpy(), 4).tolist())


def agree(f: Callable[..., Any], make: Callable[[], Any], calls: int = 3) -> Any:
    g = cr.compile(f)
    for _ in range(calls):
        mine, its = make(), make()
        assert facts(g(*mine)) == facts(f(*its))
        assert facts(list(mine)) == facts(list(its))
    assert len(g.compiles) == 1 and not g.eager_runs
    return g


# ---------------------------------------------------------------- writes through views


def reshaped(x: Any) -> Any:
    y = x.clone()
    v = y.reshape(3, 2)
    v[0] = 5
    y[1, 2] = 7
    return y, v


def of_a_transpose(x: Any) -> Any:
    y = x.T * 2                     # lies in the order of x: the reshape is a copy
    v = y.reshape(-1)
    v[0] = 5
    y[1] = 3
    return y, v


def of_a_transposed_clone(x: Any) -> Any:
    y = x.T.clone()
    y.view(-1)[0] = 5
    return y


def of_an_argument(x: Any) -> Any:
    v = x.view(-1)
    v[1:3] = 0
    x[1] += 1
    return v


def of_constants(x: Any) -> Any:
    y = cr.zeros(2, 3)
    y[0] = x[0]
    y.T[0] = 1
    y.view(-1)[-1] = 9
    return y


def of_products(x: Any) -> Any:
    y = (x @ x.T).reshape(-1)
    y[0] = 1
    z = cr.nn.functional.linear(x, cr.ones(2, 3))
    z.view(4).add_(y)
    return y, z


def of_joined(x: Any) -> Any:
    y = cr.cat([x, x])
    z = y.view(2, 2, 3)
    z[0, 0] = 1
    z.view(-1)[3] = 8
    w = cr.stack([x, x]).permute(1, 0, 2)
    u = w.reshape(-1)
    u[0] = 7
    return y, z, w, u


def of_detached(x: Any) -> Any:
    y = x * 2
    z = y.detach()
    z.view(-1)[0] = 4
    return y, z


def after_a_write(x: Any) -> Any:
    y = x.T * 1
    y[0] = 2                        # the memory stays in the order of x
    z = y + 1
    v = z.reshape(-1)
    v[0] = 9
    return z, v


def of_softmax(x: Any) -> Any:
    y = (x / 8).softmax(-1).round(decimals=3)
    z = y.flatten()
    z[0] = 1
    return y, z


@pytest.mark.parametrize("f", [
    reshaped, of_a_transpose, of_a_transposed_clone, of_an_argument, of_constants, of_products,
    of_joined, of_detached, after_a_write, of_softmax])
def test_views_are_written_as_in_eager_execution(f: Callable[..., Any], engine: str) -> None:
    agree(f, lambda: (data(),))


def test_an_argument_in_another_order_is_compiled_for_again() -> None:
    def f(x: Any) -> Any:
        v = x.reshape(-1)
        v[0] = 5
        return v
    g = cr.compile(f)
    for make in (data, lambda: data().T.clone().T, lambda: data().repeat(1, 2)[:, ::2]):
        mine, its = make(), make()
        assert facts(g(mine)) == facts(f(its))
        assert facts(mine) == facts(its)
    assert len(g.compiles) == 3
    assert "contiguous" in g.compiles[1].why and "another order" in g.compiles[2].why


def test_gradients_pass_a_write_through_a_reshape() -> None:
    w = cr.ones(3).requires_grad_()

    def f(x: Any) -> Any:
        y = w * x
        y.view(-1)[1] = 4
        return cr.autograd.grad((y * y).sum(), w)[0]
    agree(f, lambda: (data(),))


def test_a_reshape_whose_memory_cannot_be_told_is_refused() -> None:
    @cr.compile
    def f(x: Any) -> Any:
        def inner(row: Any) -> Any:
            y = cr.stack([row, row])
            v = y.reshape(-1)
            v[0] = 1
            return v
        return cr.func.vmap(inner)(x)
    with pytest.raises(InPlaceError, match="both in use"):
        f(data())


# ---------------------------------------------------------------- strides


@pytest.mark.parametrize("f", [
    lambda x: x.stride(0), lambda x: x.stride(), lambda x: x.T.stride(), lambda x: (x * 2).stride(),
    lambda x: (x.T * 2).stride(), lambda x: (x @ x.T).stride(), lambda x: x[:, ::2].stride(1),
    lambda x: x.sum(0).stride(), lambda x: x.expand(4, 2, 3).stride()])
def test_strides_are_those_of_eager_execution(f: Callable[..., Any]) -> None:
    g = cr.compile(f)
    for make in (data, lambda: data().T.clone().T, lambda: data().repeat(1, 2)[:, ::2]):
        assert g(make()) == f(make()) == g(make())


def test_strides_of_what_is_nowhere_in_memory_are_refused() -> None:
    f = cr.compile(lambda x: cr.func.vmap(lambda row: row * row.stride(0))(x))
    with pytest.raises(TracedValueError, match="cannot be told"):
        f(data())


# ---------------------------------------------------------------- masks


def written_by_masks(x: Any) -> Any:
    y = x.clone()
    y[y > 3] = 0
    y[:, x[0] > 1] = x.sum()
    z = x.expand(2, 2, 3).clone()
    z[x.sum(1) > 3] = x
    z[:, 0][x > 2] = -1.0
    return y, z


def test_masked_places_are_written() -> None:
    agree(written_by_masks, lambda: (data(),))


# ---------------------------------------------------------------- what results show


def test_the_loss_of_a_step_is_computed_and_its_graph_is_used_up() -> None:
    w = cr.ones(3).requires_grad_()

    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).exp().sum()
        loss.backward()
        return loss, (loss.detach(), w.grad)
    g = agree(step, lambda: (data() / 5,), 5)
    loss = g(data())[0]
    assert loss.grad_fn is not None
    with pytest.raises(FreedGraphError):
        loss.backward()


def test_one_tensor_given_twice() -> None:
    def f(x: Any, y: Any) -> Any:
        return cr.autograd.grad((x * y).sum(), x)[0] if x.requires_grad else x if x is y else x + y
    g = cr.compile(f)
    for tracked in (False, True):
        a, b = (data().requires_grad_(tracked) for _ in range(2))
        for _ in range(3):
            for pair in ((a, b), (a, a), (b, a)):
                assert g(*pair).tolist() == f(*pair).tolist()
    assert len(g.compiles) == 4 and "now one tensor" in g.compiles[1].why


def test_an_argument_that_the_function_uses_too() -> None:
    w = data().requires_grad_()

    def f(x: Any) -> Any:
        return cr.autograd.grad((x * w).sum(), w)[0]
    g, other = cr.compile(f), data().requires_grad_()
    for x in (w, other, w, other, w):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert g(x).tolist() == f(x).tolist()
    assert len(g.compiles) == 1 and sum(g.eager_runs.values()) == 3


def test_one_kernel_that_reads_what_it_makes_in_another_shape() -> None:
    def f(x: Any, s: Any) -> Any:
        e = cr.cat([(x.cumsum(0) + 1)[:1], (x.cumsum(0) + 1)[1:] * 2]) + x
        return (e.reshape(6) * s).view(2, 3) + 1
    x, s = cr.arange(6).reshape(2, 3).float(), cr.tensor(9.0)
    assert cr.compile(f)(x, s).tolist() == f(x, s).tolist()
