"""`cr.compile`: arguments, results, shared memory, gradients to the outside, threads.

    python -m pytest tests/test_jit_memory.py
"""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.core.errors import (
    FreedGraphError,
    GradientError,
    InPlaceError,
    OverwrittenError,
)
from chainrule.jit import RecompileWarning
from chainrule.nn import functional as F

pytestmark = pytest.mark.usefixtures("engine")


def ones(*shape: int) -> Any:
    return cr.ones(*(shape or (1,)))


def trained(model: Any, optimizer: Any) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss
    return step


# ---------------------------------------------------------------- arguments and results


def test_trees_go_in_and_come_out() -> None:
    @cr.compile
    def f(given: Any, *rest: Any, k: Any = None) -> Any:
        return {"a": given["x"] + rest[0], "b": [None, 3, "s", (given["x"],)], "c": k}
    x = ones(2)
    result = f({"x": x}, x, k=cr.zeros(1))
    assert result["a"].tolist() == [2, 2]
    assert result["b"][3][0] is x
    assert result["b"][:3] == [None, 3, "s"]
    assert result["c"].item() == 0
    assert f({"x": x}, x)["c"] is None


def test_arguments_need_not_lie_in_order() -> None:
    f = cr.compile(lambda x: x.t() * 2)
    x = cr.arange(6).float().reshape(2, 3)
    y = cr.arange(6).float().reshape(3, 2).t()
    for z in (x, y, x):
        assert (f(z) == z.t() * 2).all().item()
    assert len(f.compiles) == 1


def test_results_that_are_state_or_views_of_it_stay_connected() -> None:
    w = cr.zeros(3)

    @cr.compile
    def f(x: Any) -> Any:
        w.add_(x)
        y = x * 2
        return w, w.detach(), w[1:], y, y[1:]
    same, twin, view, y, part = f(ones(3))
    assert same is w
    w.fill_(9)
    assert twin.tolist() == [9, 9, 9]
    assert view.tolist() == [9, 9]
    y.fill_(7)
    assert part.tolist() == [7, 7]


def test_functional_calls_take_parameters_as_arguments() -> None:
    model = nn.Linear(2, 2)
    f = cr.compile(lambda p, x: cr.func.functional_call(model, p, (x,)))
    for k in (1, 2):
        given = {"weight": cr.eye(2) * k, "bias": cr.ones(2) * (k - 1)}
        assert f(given, ones(1, 2)).tolist() == [[2 * k - 1] * 2]
    assert len(f.compiles) == 1


# ---------------------------------------------------------------- shared memory


def test_arguments_that_share_memory_with_what_is_written() -> None:
    w = cr.ones(3)

    @cr.compile
    def f(x: Any) -> Any:
        w.add_(1)
        return x + w
    with pytest.warns(RecompileWarning, match="share memory"):
        assert f(w).tolist() == [4, 4, 4]
    assert f(cr.zeros(3)).tolist() == [3, 3, 3]
    with pytest.warns(RecompileWarning, match="share memory"):
        assert f(w[:]).tolist() == [8, 8, 8]
    assert f(w.detach()).tolist() == [10, 10, 10]

    @cr.compile
    def g(x: Any, y: Any) -> Any:
        x.add_(1)
        return y * 2
    a = cr.zeros(2)
    assert g(cr.zeros(2), a).tolist() == [0, 0]
    assert g(a, a).tolist() == [2, 2]
    with pytest.warns(RecompileWarning, match="share memory"):
        assert g(a, a[:]).tolist() == [4, 4]
    assert g(cr.zeros(2), a).tolist() == [4, 4]


def test_state_that_shares_memory_is_one_value() -> None:
    w = cr.ones(3)
    twin, view = w.detach(), w[1:]

    @cr.compile
    def f(x: Any) -> Any:
        w.add_(x)
        first = twin * 1
        twin.mul_(2)
        second = view * 1
        view.sub_(1)
        return first, second, w * 1
    assert [t.tolist() for t in f(ones(3))] == [[2, 2, 2], [4, 4], [4, 3, 3]]
    assert w.tolist() == twin.tolist() == [4, 3, 3]
    base = np.zeros(6, np.float32)
    a, b = cr.from_numpy(base[:4]), cr.from_numpy(base[2:])

    @cr.compile
    def g(x: Any) -> Any:
        a.add_(x)
        return b * 1
    with pytest.warns(RecompileWarning, match="share memory"):
        assert g(ones(4)).tolist() == [1, 1, 0, 0]


def test_writes_that_cannot_be_told_are_refused() -> None:
    @cr.compile
    def f(x: Any) -> Any:
        y = x.t() * 2
        part = y.sum(0)
        z = part.contiguous()
        z[0] = 5
        return part, z
    with pytest.raises(InPlaceError, match="contiguous"):
        f(ones(2, 3))
    w = cr.ones(2, requires_grad=True)
    with pytest.raises(InPlaceError, match="leaf"):
        cr.compile(lambda x: w.add_(x))(ones(2))


def test_states_that_swap_and_parameters_out_of_order() -> None:
    a, b = cr.zeros(2), cr.ones(2)

    @cr.compile
    def swap() -> None:
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)
    swap()
    assert (a.tolist(), b.tolist()) == ([1, 1], [0, 0])
    swap()
    assert (a.tolist(), b.tolist()) == ([0, 0], [1, 1])

    def trained_out_of_order(compiled: bool) -> list[Any]:
        cr.manual_seed(0)
        w = nn.Parameter(cr.randn(3, 2).t())
        optimizer, sums = optim.Adam([w], 0.1), cr.zeros(4)[::2]

        def step(x: Any) -> None:
            optimizer.zero_grad()
            ((x @ w) ** 2).mean().backward()
            optimizer.step()
            sums.add_(w.sum(1).detach())
        function = cr.compile(step) if compiled else step
        for _ in range(3):
            function(cr.randn(4, 2))
        return [w.tolist(), sums.tolist()]
    for x, y in zip(trained_out_of_order(False), trained_out_of_order(True), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-5)


def test_read_only_and_stretched_arguments() -> None:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    f = cr.compile(lambda x: x * 2)
    assert f(cr.from_numpy(array)).tolist() == f(ones(3)).tolist() == [2, 2, 2]
    assert f(ones(3).expand(2, 3)).sum().item() == 12
    g = cr.compile(lambda x: x.add_(1))
    g(ones(3))
    with pytest.warns(RecompileWarning, match="read-only"), pytest.raises(
            InPlaceError, match="read-only"):
        g(cr.from_numpy(array))


def test_memory_that_is_exchanged_between_calls_is_followed() -> None:
    def results(compiled: bool) -> list[Any]:
        cr.manual_seed(0)
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        step = trained(model, optimizer)
        function = cr.compile(step) if compiled else step
        for i in range(6):
            if i == 2:
                model.weight.data = cr.ones(2, 2)
            elif i == 3:
                optimizer.zero_grad()
            elif i == 4:
                model.weight.grad = cr.ones(2, 2)
            function(cr.ones(3, 2) * i)
        if compiled:
            assert len(function.compiles) == 1
        return [p.tolist() for p in model.parameters()]
    np.testing.assert_allclose(results(True)[0], results(False)[0], rtol=1e-5)


# ---------------------------------------------------------------- gradients


def test_a_gradient_that_is_kept_does_not_change() -> None:
    w = cr.ones(2, requires_grad=True)

    @cr.compile
    def f(x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()
    f(cr.tensor([1.0, 2.0]))
    kept, array = w.grad, w.grad.numpy()
    f(cr.tensor([3.0, 4.0]))
    assert kept.tolist() == array.tolist() == [1, 2]
    assert w.grad.tolist() == [3, 4]
    f(cr.tensor([5.0, 6.0]))
    view, same = w.grad[0:1], id(w.grad)
    f(cr.tensor([7.0, 8.0]))
    assert view.item() == 5
    assert id(w.grad) != same
    same = id(w.grad)
    f(cr.tensor([9.0, 8.0]))
    assert id(w.grad) == same
    w.grad = None
    f(cr.tensor([1.0, 8.0]))
    assert w.grad.tolist() == [1, 8]


def test_gradients_of_arguments() -> None:
    @cr.compile
    def f(x: Any, y: Any) -> None:
        (x * y).sum().backward()
    x, y = cr.ones(2, requires_grad=True), cr.tensor([2.0, 3.0])
    f(x, y)
    assert x.grad.tolist() == [2, 3]
    f(x, y)
    assert x.grad.tolist() == [4, 6]
    z = cr.ones(2, requires_grad=True)
    f(z, y)
    assert z.grad.tolist() == [2, 3]
    w = cr.ones(2, requires_grad=True)
    f(w, w)
    assert w.grad.tolist() == [2, 2]


def test_a_grad_set_to_none_inside_is_none_after_each_call() -> None:
    w = cr.ones(2, requires_grad=True)

    @cr.compile
    def f(x: Any) -> Any:
        w.grad = None
        return x * 2
    f(ones(2))
    w.grad = cr.ones(2)
    f(ones(2))
    assert w.grad is None


def test_backward_outside_goes_through_a_compiled_function() -> None:
    def results(make: Callable[[Any], Any]) -> list[Any]:
        cr.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2))
        call, optimizer = make(model), optim.SGD(model.parameters(), 0.1)
        x = cr.randn(5, 3, requires_grad=True)
        for _ in range(3):
            optimizer.zero_grad()
            loss = (call(x * 2) ** 2).mean()
            loss.backward()
            optimizer.step()
        return [t.detach().numpy().copy() for t in (loss, x.grad, *model.parameters())]
    for a, b in zip(results(lambda f: f), results(cr.compile), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_several_results_carry_gradients() -> None:
    def results(make: Callable[[Any], Any]) -> list[Any]:
        cr.manual_seed(0)
        w = cr.randn(3, requires_grad=True)
        f = make(lambda x, y: ((x * w).sum(), (x * y).exp(), {"z": y * 2}))
        x = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
        a, b, c = f(x, cr.tensor([0.1, 0.2, 0.3]))
        (a + b.sum() * 2 + c["z"].sum()).backward()
        return [x.grad.tolist(), w.grad.tolist(), c["z"].requires_grad]
    for a, b in zip(results(lambda f: f), results(cr.compile), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6)


def test_transforms_over_and_under() -> None:
    def cube(x: Any) -> Any:
        return (x**3).sum()
    f, x = cr.compile(cube), cr.tensor([1.0, 2.0])
    f(x)
    assert cr.func.grad(f)(x).tolist() == [3, 12]
    assert cr.func.vmap(f)(cr.ones(3, 2)).tolist() == [2, 2, 2]
    np.testing.assert_allclose(cr.func.hessian(f)(x), np.diag([6, 12]))
    assert cr.func.jvp(f, (x,), (cr.ones(2),))[1].item() == 15
    assert cr.func.grad(cr.func.grad(lambda t: f(t[None])))(cr.tensor(2.0)).item() == 12
    leaf = cr.tensor([1.0, 2.0], requires_grad=True)
    (slope,) = cr.autograd.grad(f(leaf), leaf, create_graph=True)
    slope.sum().backward()
    assert leaf.grad.tolist() == [6, 12]
    assert cr.compile(cr.func.grad(f))(x).tolist() == [3, 12]
    np.testing.assert_allclose(cr.compile(cr.func.hessian(cube))(x), np.diag([6, 12]))
    np.testing.assert_allclose(cr.compile(cr.func.jacrev(lambda x: x * x))(x), np.diag([2, 4]))
    assert cr.compile(lambda x: cr.func.vjp(cube, x)[1](cr.tensor(2.0))[0])(x).tolist() == [6, 24]


def test_second_derivatives_of_what_changes_state_are_refused() -> None:
    model = nn.Dropout(0.5)
    f, x = cr.compile(model), cr.ones(4, requires_grad=True)
    with pytest.raises(GradientError, match="second derivative"):
        cr.autograd.grad(f(x).sum(), x, create_graph=True)


def test_values_overwritten_before_backward_are_noticed() -> None:
    w = cr.ones(2, requires_grad=True)
    f = cr.compile(lambda x: (w * w * x).sum())
    y = f(ones(2))
    with cr.no_grad():
        w.add_(1)
    with pytest.raises(OverwrittenError):
        y.backward()
    y = (w * w).sum()

    @cr.compile
    def g() -> None:
        with cr.no_grad():
            w.mul_(2)
    g()
    with pytest.raises(OverwrittenError, match="a compiled function"):
        y.backward()


def test_backward_is_refused_where_the_eager_engine_refuses_it() -> None:
    w = cr.ones(2, requires_grad=True)
    outside = w * 2

    @cr.compile
    def twice(x: Any) -> None:
        loss = (w * x).exp().sum()
        loss.backward()
        loss.backward()
    with pytest.raises(FreedGraphError):
        twice(ones(2))
    with pytest.raises(GradientError, match="computed outside"):
        cr.compile(lambda x: (outside * x).sum().backward())(ones(2))
    with pytest.raises(GradientError, match="not connected"):
        cr.compile(lambda x: x.sum().backward())(ones(2))
    buffer = cr.zeros(2)
    with pytest.raises(GradientError, match="part of a graph"):
        cr.compile(lambda x: buffer.add_(w * x))(ones(2))


# ---------------------------------------------------------------- random numbers, mixing, threads


def test_random_numbers_follow_the_seed() -> None:
    f, x = cr.compile(lambda x: F.dropout(x, 0.5)), ones(50)
    cr.manual_seed(1)
    a, b = f(x), f(x)
    cr.manual_seed(1)
    assert (a == F.dropout(x, 0.5)).all().item()
    assert (b == F.dropout(x, 0.5)).all().item()
    assert not (a == b).all().item()
    cr.manual_seed(2)
    assert not (f(x) == a).all().item()
    assert len(f.compiles) == 1


def test_compiled_and_eager_steps_may_be_mixed() -> None:
    def results(compiled: bool) -> list[Any]:
        cr.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        optimizer = optim.Adam(model.parameters(), 0.1, amsgrad=True)
        step = trained(model, optimizer)
        short = cr.compile(step) if compiled else step
        for i in range(9):
            (short if i % 3 else step)(cr.randn(2, 3))
            if i == 5:
                optimizer.load_state_dict(optimizer.state_dict())
                model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})
        return [p.detach().numpy().copy() for p in model.parameters()]
    for a, b in zip(results(False), results(True), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_two_threads_take_turns_and_others_see_no_trace() -> None:
    w, seen = cr.zeros(1), []

    @cr.compile
    def f(x: Any) -> Any:
        w.add_(x)
        return w * 1
    f(ones())
    threads = [threading.Thread(target=lambda: [f(ones()) for _ in range(50)]) for _ in range(2)]
    state = cr.ones(3)

    def watch() -> None:
        while any(t.is_alive() for t in threads):
            seen.append(float(state.sum()))
    watcher = threading.Thread(target=watch)
    for thread in (*threads, watcher):
        thread.start()
    for _ in range(3):
        cr.compile(lambda x: (state * x).exp().sum())(ones(3))
    for thread in (*threads, watcher):
        thread.join()
    assert w.item() == 101
    assert set(seen) <= {3.0}


def test_threads_compile_and_run_functions_of_their_own() -> None:
    def step() -> Any:
        model = nn.Linear(8, 8)
        return cr.compile(trained(model, optim.Adam(model.parameters(), 0.01)))
    losses: dict[int, list[float]] = {}

    def train(number: int, function: Any) -> None:
        losses[number] = [function(cr.ones(4, 8)).item() for _ in range(30)]
    threads = [threading.Thread(target=train, args=(i, step())) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(losses) == 4
    assert all(found[-1] < found[0] for found in losses.values())


def test_nothing_is_kept_from_call_to_call() -> None:
    model = nn.Linear(3, 3)
    optimizer = optim.Adam(model.parameters())
    step, x = cr.compile(trained(model, optimizer)), cr.randn(2, 3)
    step(x)
    step(x)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(300):
        step(x)
    gc.collect()
    assert len(gc.get_objects()) - before < 30
    weak = [weakref.ref(model.weight), weakref.ref(x)]
    del x
    gc.collect()
    assert weak[1]() is None
    del model, optimizer, step
    gc.collect()
    assert weak[0]() is None


def test_the_first_arguments_are_not_kept() -> None:
    array = np.ones(3, np.float32)
    weak = weakref.ref(array)
    f = cr.compile(lambda x: x * 2)
    f(cr.from_numpy(array))
    del array
    gc.collect()
    assert weak() is None
    assert f(ones(3)).tolist() == [2, 2, 2]


def test_a_compiled_module_is_like_the_module() -> None:
    model = nn.Linear(2, 2)
    f = cr.compile(model)
    assert cr.compile(f) is f
    assert [p is q for p, q in zip(f.parameters(), model.parameters(), strict=True)] == [True] * 2
    other = copy.deepcopy(f)
    assert other.weight is not model.weight
    assert other(ones(1, 2)).shape == (1, 2)
    with pytest.raises(Exception, match="pickle"):
        pickle.dumps(f)
    with cr.settings.using(compile="off"):
        assert cr.compile(lambda x: x.sum().item())(ones(3)) == 3


# ---------------------------------------------------------------- NumPy arrays from outside

NUMBERS = np.ones(3, "f4")


@pytest.mark.parametrize("f", [
    lambda x: x + cr.tensor(NUMBERS) + cr.from_numpy(NUMBERS), lambda x: x * cr.tensor(NUMBERS),
    lambda x: x + cr.as_tensor(NUMBERS, dtype=cr.float64) + NUMBERS,
    lambda x: x + cr.Tensor(NUMBERS) + cr.as_tensor(NUMBERS),
    lambda x: cr.tensor(NUMBERS[:2]).sum() + cr.from_numpy(NUMBERS[1:]).sum() * x])
def test_an_array_is_read_anew_by_each_call_in_whatever_way(f: Callable[..., Any]) -> None:
    g = cr.compile(f)
    for k in range(4):
        NUMBERS[:] = k + np.arange(3)
        assert g(cr.ones(3)).tolist() == f(cr.ones(3)).tolist()
    assert len(g.compiles) == 1 and not g.eager_runs
    h = cr.compile(lambda x: cr.tensor([NUMBERS, NUMBERS]).sum() + cr.from_numpy(NUMBERS) + x)
    for k in range(3):
        NUMBERS[:] = k
        assert h(cr.ones(3)).tolist() == [7 * k + 1] * 3


def test_an_array_that_is_only_read_is_not_written() -> None:
    array = np.ones(3, "f4")
    array.flags.writeable = False
    g = cr.compile(lambda x: x + cr.from_numpy(array))
    assert g(cr.ones(3)).tolist() == [2, 2, 2] == g(cr.ones(3)).tolist()
