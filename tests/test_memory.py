"""Depth, memory, and errors that name lines: what long training runs and mistakes meet."""

from __future__ import annotations

import gc
import inspect
import re
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.cuts import forget_cuts
from chainrule.core.errors import (
    FreedGraphError,
    GradientError,
    InPlaceError,
    LeafError,
    NoGradientError,
    NotScalarError,
    OverwrittenError,
    UnusedError,
)
from chainrule.core.node import Node, writes


@contextmanager
def without_collector() -> Iterator[None]:
    """Memory must be given back by reference counts alone."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def living(kind: type) -> int:
    return sum(type(x) is kind for x in gc.get_objects())


# ---------------------------------------------------------------- depth


def test_a_chain_of_100_000_nodes() -> None:
    x = cr.tensor(0.5, requires_grad=True)
    with without_collector():
        y = x
        for _ in range(50_000):
            y = y * 1.0
            y = y + 1e-5
        y.backward()
        assert x.grad.item() == 1
        assert float(y.detach()) == pytest.approx(1.0, rel=1e-3)
        before = living(Node)
        del y
        assert before - living(Node) >= 100_000


def test_a_long_chain_of_views_and_writes() -> None:
    x = cr.ones(4, requires_grad=True)
    y = x * 1
    for i in range(2_000):
        y[i % 4].mul_(1.0)
        y = y.reshape(2, 2).T.T.reshape(4) if i % 500 == 0 else y
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1]


def test_transforms_of_a_long_chain() -> None:
    def f(x: Any) -> Any:
        for _ in range(5_000):
            x = x * 1.0
        return x

    x = cr.tensor(0.5)
    assert cr.func.grad(f)(x).item() == 1
    assert cr.func.jvp(f, (x,), (x,))[1].item() == 0.5
    assert cr.func.vmap(f)(cr.ones(3)).tolist() == [1, 1, 1]
    assert cr.func.grad(cr.func.grad(f))(x).item() == 0


# ---------------------------------------------------------------- memory


def training(steps: int, model: Any, optimiser: Any, x: Any, y: Any) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        loss = cr.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimiser.step()


def test_memory_is_flat_over_10_000_steps() -> None:
    model = cr.nn.Sequential(cr.nn.Linear(2, 4), cr.nn.Tanh(), cr.nn.Linear(4, 1))
    optimiser = cr.optim.Adam(model.parameters(), lr=1e-3)
    x, y = cr.randn(4, 2), cr.randn(4, 1)
    with without_collector():
        training(100, model, optimiser, x, y)
        tracemalloc.start()
        training(100, model, optimiser, x, y)
        nodes, kept, written = living(Node), tracemalloc.get_traced_memory()[0], len(writes)
        tracemalloc.stop()
        training(9_700, model, optimiser, x, y)
        tracemalloc.start()
        training(100, model, optimiser, x, y)
        later = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert living(Node) == nodes
        assert len(writes) == written
        assert later - kept < 20_000


def step_with(what: str) -> Callable[[], None]:
    """One training-like step using a feature that could keep its graph alive."""
    w = cr.randn(5, requires_grad=True)
    model = cr.nn.Sequential(cr.nn.Linear(3, 3), cr.nn.LayerNorm(3), cr.nn.Dropout(0.1))

    def step() -> None:
        if what == "views and writes":
            y = w * 2
            v = y[1:4]
            v.mul_(3)
            y[0] = 7.0
            y.sum().backward()
        elif what == "hooks":
            y = w * 2
            y.register_hook(lambda g: g * 2)
            y.retain_grad()
            y.sum().backward()
        elif what == "second derivatives":
            (g,) = cr.autograd.grad((w**3).sum(), w, create_graph=True)
            (g * g).sum().backward()
            w.grad = None
        elif what == "transforms":
            cr.func.hessian(lambda z: (z**3 * w.detach()).sum())(w.detach())
            slopes = cr.func.vmap(cr.func.grad(lambda z: (z * w).sin().sum()))(cr.randn(2, 5))
            slopes.sum().backward()
        elif what == "an abandoned graph":
            (w * 2).sin().sum()
        elif what == "an error":
            y = (w * 2).sin().sum()
            y.backward()
            with pytest.raises(FreedGraphError):
                y.backward()
        elif what == "modules":
            model(cr.randn(2, 3)).sum().backward()
        elif what == "per-sample gradients":
            p = {k: v.detach() for k, v in model.named_parameters()}
            cr.func.vmap(cr.func.grad(lambda q, z: cr.func.functional_call(
                model, q, (z,)).sum()), in_dims=(None, 0), randomness="different")(
                    p, cr.randn(2, 3))

    return step


@pytest.mark.parametrize("what", [
    "views and writes", "hooks", "second derivatives", "transforms", "an abandoned graph",
    "an error", "modules", "per-sample gradients"])
def test_no_cycles(what: str) -> None:
    step = step_with(what)
    with without_collector():
        for _ in range(3):
            step()
        before, written = living(Node), len(writes)
        for _ in range(20):
            step()
        assert living(Node) - before <= (20 if what == "second derivatives" else 0)
        assert len(writes) <= written + 1


def test_a_freed_graph_keeps_no_large_arrays() -> None:
    x = cr.randn(300, 300, requires_grad=True)
    y = (x.sin() * x.exp()).tanh().matmul(x)
    loss = y.sum()
    references = [weakref.ref(a) for node in nodes_below(loss) for a in (*node.saved, node.out)
                  if isinstance(a, np.ndarray) and a.size > 64 and a is not x._value
                  and a is not y._value]
    assert len(references) >= 3
    loss.backward()
    assert not [r for r in references if r() is not None]
    assert loss.grad_fn is not None


def nodes_below(y: Any) -> list[Node]:
    found, stack = [], [y.grad_fn]
    while stack:
        node = stack.pop()
        found.append(node)
        stack.extend(n for n in node.inputs if n is not None)
    return found


KEPT: dict[str, tuple[Callable[[Any], Any], int]] = {
    "add": (lambda x: x + 1.0, 0), "mul by a number": (lambda x: x * 2.0, 0),
    "sum": (lambda x: x.sum(), 0), "reshape": (lambda x: x.reshape(-1), 0),
    "permute": (lambda x: x.T, 0), "cat": (lambda x: cr.cat([x, x]), 0),
    "tanh": (lambda x: x.tanh(), 1), "exp": (lambda x: x.exp(), 1), "sin": (lambda x: x.sin(), 1),
    "relu": (lambda x: x.relu(), 1), "softmax": (lambda x: cr.softmax(x, 1), 1),
    "mean": (lambda x: x.mean(), 0), "slice": (lambda x: x[1:], 0), "neg": (lambda x: -x, 0),
    "cumsum": (lambda x: x.cumsum(0), 0), "div by a number": (lambda x: x / 3.0, 0),
}


@pytest.mark.parametrize("name", KEPT)
def test_the_tape_keeps_no_more_than_the_rules_read(name: str) -> None:
    f, count = KEPT[name]
    x = cr.randn(200, 200, requires_grad=True)
    y = f(x)
    own = {id(a) for node in nodes_below(y) for a in (*node.saved, node.out)
           if isinstance(a, np.ndarray) and a.size > 64}
    assert len(own) <= count
    y.sum().backward()


def test_an_intermediate_that_no_rule_reads_is_given_back() -> None:
    x = cr.randn(400, 400, requires_grad=True)
    y = x + 1.0
    reference = weakref.ref(y._value)
    z = y * 2.0
    del y
    assert reference() is None
    z.sum().backward()
    assert x.grad[0, 0].item() == 2


def test_gradients_do_not_share_memory() -> None:
    a, b = cr.ones(3, requires_grad=True), cr.ones(3, requires_grad=True)
    for create_graph in (False, True):
        start = cr.ones(3)
        (a + b).backward(start, create_graph=create_graph)
        a.grad.detach().add_(10)
        start.add_(100)
        assert b.grad.tolist() == [1, 1, 1]
        a.grad = b.grad = None
    a.backward(start)
    start.zero_()
    assert a.grad.tolist() == [101, 101, 101]
    c = cr.tensor(2.0, requires_grad=True)
    (c * 3).backward(create_graph=True)
    (c * 3).backward()
    assert c.grad.item() == 6


def test_results_do_not_share_memory_with_inputs() -> None:
    for shape in ((), (1,), (1, 1), (0, 1), (2, 3)):
        x = cr.ones(*shape) if shape else cr.tensor(1.0)
        for f in (lambda x: x.sum(), lambda x: x.mean(), lambda x: x.clone(), lambda x: x.cumsum(0),
                  lambda x: x.cumprod(0), lambda x: x.prod(), lambda x: x.flip(0),
                  lambda x: x.roll(1, 0), lambda x: x.repeat(1, 1), lambda x: cr.cat([x]),
                  lambda x: cr.stack([x]), lambda x: x.clamp(min=0.0), lambda x: x + 0,
                  lambda x: x.sort(0)[0], lambda x: x[cr.tensor([0])], lambda x: x.tril(),
                  lambda x: x.masked_fill(x > 2, 1.0), lambda x: cr.softmax(x, 0)):
            for tracked in (False, True):
                leaf = x.clone().requires_grad_(tracked)
                try:
                    y = f(leaf)
                except (ValueError, IndexError, TypeError):
                    continue
                assert y is not leaf
                assert not np.shares_memory(y._value, leaf._value)


# ---------------------------------------------------------------- errors that name lines


def line_of(text: str) -> int:
    """The line of this file that holds `text` followed by the mark # <-."""
    lines = inspect.getsource(inspect.getmodule(line_of)).splitlines()  # type: ignore[arg-type]
    (found,) = [i for i, line in enumerate(lines, 1) if f"{text}  # <-" in line]
    return found


def test_second_backward_names_both_lines() -> None:
    x = cr.randn(100, requires_grad=True)
    hidden = x.tanh()  # <-
    hidden.sum().backward()  # <-
    with pytest.raises(FreedGraphError) as caught:
        hidden.sum().backward()
    message = str(caught.value)
    assert f"test_memory.py:{line_of('hidden = x.tanh()')}" in message
    assert f"test_memory.py:{line_of('hidden.sum().backward()')}" in message
    assert "tanh (f32[100])" in message
    assert "retain_graph=True" in message


def test_retained_graphs_can_be_used_again() -> None:
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([1, 2]), rtol=1e-6)


def test_an_overwritten_value_names_both_lines() -> None:
    x = cr.randn(100, requires_grad=True)
    y = x.exp()  # <-
    y.mul_(2)  # <-
    with pytest.raises(OverwrittenError) as caught:
        y.sum().backward()
    message = str(caught.value)
    assert f"test_memory.py:{line_of('y = x.exp()')}" in message
    assert f"test_memory.py:{line_of('y.mul_(2)')}" in message
    assert "result (f32[100]) of exp" in message
    assert "clone()" in message


def overwrite(what: str) -> Any:
    x = cr.ones(4, requires_grad=True)
    w = cr.ones(4)
    y = x * 2
    if what == "operand":
        z = x * w
        w.add_(1)
        return z
    if what == "through a view":
        z = y.sin()
        y[1:].zero_()
        return z
    if what == "through the base":
        z = y[1:].sin()
        y.zero_()
        return z
    if what == "through numpy-less copy_":
        z = y.sin()
        y.copy_(w)
        return z
    if what == "through detach":
        z = y.sin()
        y.detach().add_(1)
        return z
    if what == "under no_grad":
        z = y.sin()
        with cr.no_grad():
            y.add_(1)
        return z
    if what == "leaf by an optimiser":
        z = x * x
        x.grad = cr.ones(4)
        cr.optim.SGD([x], lr=0.1).step()
        return z
    z = y.sin()
    y += 1
    return z


@pytest.mark.parametrize("what", [
    "operand", "through a view", "through the base", "through numpy-less copy_", "through detach",
    "under no_grad", "leaf by an optimiser", "augmented assignment"])
def test_overwriting_is_noticed(what: str) -> None:
    z = overwrite(what)
    with pytest.raises(OverwrittenError):
        z.sum().backward()


def test_overwriting_what_no_rule_reads_is_allowed() -> None:
    x = cr.ones(4, requires_grad=True)
    y = x * 2
    z = y + 1
    y.zero_()
    z.sum().backward()
    assert x.grad.tolist() == [2, 2, 2, 2]


# ---------------------------------------------------------------- cut graphs

CUTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "detach": (lambda w: (w * 2).detach().sum(), r"detach\(\)"),
    "no_grad": (lambda w: under(cr.no_grad(), w), "no_grad"),
    "inference_mode": (lambda w: under(cr.inference_mode(), w), "inference_mode"),
    "data": (lambda w: (w.data * 2).sum(), r"\.data"),
    "item": (lambda w: cr.tensor((w * 2).sum().item()), "item"),
    "argmax": (lambda w: (w * 2).argmax(), "argmax"),
    "comparison": (lambda w: (w > 0).sum(), "int64"),
    "whole numbers": (lambda w: (w * 2).long().sum(), "whole numbers"),
    "never required": (lambda w: cr.ones(3).sum(), "requires_grad"),
    "numpy": (lambda w: cr.tensor(w.detach().numpy() * 2).sum(), "detach"),
    "tolist": (lambda w: cr.tensor([float(x) for x in w]).sum(), "item"),
    "set_grad_enabled": (lambda w: under(cr.set_grad_enabled(False), w), "set_grad_enabled"),
}


def under(mode: Any, w: Any) -> Any:
    with mode:
        return (w * 2).sum()


@pytest.mark.parametrize("how", CUTS)
def test_a_cut_graph_says_where(how: str) -> None:
    f, says = CUTS[how]
    forget_cuts()
    w = cr.ones(3, requires_grad=True)
    loss = f(w)
    with pytest.raises(NoGradientError) as caught:
        loss.backward()
    assert re.search(says, str(caught.value)), str(caught.value)


def test_the_line_of_the_cut_is_named() -> None:
    w = cr.ones(3, requires_grad=True)
    hidden = (w * 2).detach()  # <-
    with pytest.raises(NoGradientError) as caught:
        hidden.sum().backward()
    assert f"test_memory.py:{line_of('hidden = (w * 2).detach()')}" in str(caught.value)


def test_other_mistakes() -> None:
    w = cr.ones(3, requires_grad=True)
    with pytest.raises(NotScalarError, match=r"f32\[3\].*\n?.*mul.*sum\(\)"):
        (w * 2).backward()
    with pytest.raises(LeafError, match="float"):
        cr.arange(3).requires_grad_()
    with pytest.raises(LeafError, match="float"):
        cr.tensor([1, 2], requires_grad=True)
    with pytest.raises(InPlaceError, match="no_grad"):
        w.add_(1)
    with pytest.raises(InPlaceError, match="view of a leaf"):
        w[0].add_(1)
    with pytest.raises(InPlaceError, match="expanded"):
        cr.ones(1).expand(3).add_(1)
    with pytest.raises(UnusedError, match="allow_unused"):
        cr.autograd.grad(w.sum(), cr.ones(2, requires_grad=True))
    with pytest.raises(LeafError):
        cr.autograd.grad(w.sum(), cr.ones(2))
    with pytest.raises(GradientError):
        (w * 2).numpy()
    with pytest.raises(ValueError, match=r"\[2\]"):
        (w * 2).backward(cr.ones(2))


# ---------------------------------------------------------------- threads


def test_threads_do_not_disturb_each_other() -> None:
    answers: dict[int, list[float]] = {}
    start = threading.Barrier(4)

    def work(k: int) -> None:
        start.wait()
        found = []
        for i in range(200):
            x = cr.tensor(np.arange(100.0) / 100 + k, requires_grad=True)
            if k == 3:
                with cr.no_grad():
                    assert not (x * 2).requires_grad
            y = (x * (k + 1)).sin()
            y.mul_(1.0) if k == 1 else None
            (y * y).sum().backward()
            found.append(float(x.grad.sum()) + i * 0)
        answers[k] = found

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        x = np.arange(100.0) / 100 + k
        wanted = ((k + 1) * np.sin(2 * (k + 1) * x)).sum()
        assert np.allclose(answers[k], wanted)
