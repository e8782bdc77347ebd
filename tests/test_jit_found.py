"""Programs in which a compiled function once differed from the same function run by Python."""

from __future__ import annotations

import array
import contextvars
import importlib
import os
import threading
from collections import ChainMap, UserDict
from collections.abc import Callable, Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.core.errors import TracedValueError

Change = Callable[[], Any]


def compare(function: Callable[[Any], Any], *changes: Change) -> None:
    """Compiled and by Python, the function gives the same, also after each of the changes."""
    compiled = cr.compile(function)
    x = cr.ones(3)
    for change in (lambda: None, *changes):
        change()
        for _ in range(2):
            np.testing.assert_allclose(compiled(x).detach().numpy(),
                                       function(x).detach().numpy(), rtol=1e-6)


class Thing:
    """An object with attributes."""

    scale: Any

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


# ---------------------------------------------------------------- what code reads


def test_numbers_far_from_the_function_are_guards() -> None:
    nested: Any = [[[[[[[[1.0]]]]]]]]
    inner = nested
    while isinstance(inner[0], list):
        inner = inner[0]

    def first(x: Any) -> Any:
        found = nested
        while isinstance(found, list):
            found = found[0]
        return x * found

    compare(first, lambda: inner.__setitem__(0, 5.0))
    last = Thing(v=2.0)
    root: Any = last
    for _ in range(8):
        root = Thing(n=root)
    compare(lambda x: x * root.n.n.n.n.n.n.n.n.v, lambda: setattr(last, "v", 5.0))


def test_the_sign_of_zero_is_a_guard() -> None:
    numbers = [0.0]
    compare(lambda x: x / numbers[0], lambda: numbers.__setitem__(0, -0.0))
    divided = cr.compile(lambda x, k: x / k)
    assert divided(cr.ones(1), 0.0).item() == float("inf")
    assert divided(cr.ones(1), -0.0).item() == -float("inf")


@pytest.mark.parametrize(("held", "change"), [
    (bytearray(b"ab"), lambda x: x.__setitem__(0, 5)),
    (array.array("f", [1.0]), lambda x: x.__setitem__(0, 5.0)),
    (memoryview(bytearray(b"ab")), lambda x: x.__setitem__(0, 5)),
])
def test_numbers_in_buffers_are_guards(held: Any, change: Callable[[Any], None]) -> None:
    compare(lambda x: x * held[0], lambda: change(held))


def test_numbers_in_mappings_are_guards() -> None:
    plain = {"a": 1.0}
    proxy, chain, user = MappingProxyType(plain), ChainMap({}, plain), UserDict(a=1.0)
    compare(lambda x: x * proxy["a"], lambda: plain.update(a=5.0))
    compare(lambda x: x * chain["a"], lambda: plain.update(a=7.0), lambda: chain.update(a=2.0))
    compare(lambda x: x * user["a"], lambda: user.update(a=5.0))
    space = SimpleNamespace(a=1.0)
    compare(lambda x: x * sum(space.__dict__.values()), lambda: setattr(space, "a", 5.0))


def test_context_variables_and_the_environment_are_guards(
        monkeypatch: pytest.MonkeyPatch) -> None:
    variable = contextvars.ContextVar("variable", default=1.0)
    compare(lambda x: x * variable.get(), lambda: variable.set(5.0))
    monkeypatch.setenv("CHAINRULE_TEST_SCALE", "2")
    compare(lambda x: x * float(os.environ["CHAINRULE_TEST_SCALE"]),
            lambda: monkeypatch.setenv("CHAINRULE_TEST_SCALE", "3"))


def test_what_is_absent_may_appear() -> None:
    thing = Thing()
    compare(lambda x: x * getattr(thing, "scale", 1.0), lambda: setattr(thing, "scale", 5.0),
            lambda: delattr(thing, "scale"))
    compare(lambda x: x * (2 if hasattr(thing, "flag") else 1),
            lambda: setattr(thing, "flag", True))

    def scaled(x: Any) -> Any:
        try:
            return x * APPEARS  # type: ignore[name-defined]
        except NameError:
            return x

    try:
        compare(scaled, lambda: globals().update(APPEARS=4.0))
    finally:
        globals().pop("APPEARS", None)


class Operators:
    """Everything Python calls without naming it."""

    def __init__(self) -> None:
        self.d = {"a": 1.0}

    def __getitem__(self, key: str) -> float:
        return self.d[key]

    def __len__(self) -> int:
        return len(self.d)

    def __iter__(self) -> Iterator[float]:
        return iter(self.d.values())

    def __contains__(self, key: str) -> bool:
        return key in self.d

    def __mul__(self, x: Any) -> Any:
        return x * self.d["a"]

    def __bool__(self) -> bool:
        return self.d["a"] > 3

    def __enter__(self) -> float:
        return self.d["a"]

    def __exit__(self, *error: object) -> None:
        return None


@pytest.mark.parametrize("use", [
    lambda c, x: x * c["a"], lambda c, x: x * len(c), lambda c, x: x * sum(c), lambda c, x: c * x,
    lambda c, x: x * 2 if "b" in c else x, lambda c, x: x * 5 if c else x])
def test_operators_of_the_users_classes_are_followed(use: Callable[[Any, Any], Any]) -> None:
    c = Operators()
    compare(lambda x: use(c, x), lambda: c.d.update(a=4.0), lambda: c.d.update(b=2.0))

    def within(x: Any) -> Any:
        with c as k:
            return x * k

    compare(within, lambda: c.d.update(a=6.0))


def test_an_object_that_answers_every_name_can_be_used() -> None:
    class Answers:
        def __init__(self) -> None:
            self.__dict__["known"] = {"k": 2.0}

        def __getattr__(self, name: str) -> Any:
            return self.__dict__["known"][name]

    c = Answers()
    compare(lambda x: x * c.k, lambda: c.__dict__["known"].update(k=5.0))


def test_functions_of_classes_and_modules_may_be_replaced() -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2

        def other(self, x: Any) -> Any:
            return x * 3

    model: Any = Model()
    compare(lambda x: model(x), lambda: setattr(Model, "forward", lambda self, x: x * 5),
            lambda: setattr(model, "forward", lambda x: x * 7),
            lambda: setattr(model, "forward", lambda x: x * 9), lambda: delattr(model, "forward"))
    compare(lambda x: model.other(x), lambda: setattr(Model, "other", lambda self, x: x * 5),
            lambda: setattr(model, "other", lambda x: x * 7))


def test_a_function_that_counts_in_itself_is_refused() -> None:
    def counting(x: Any) -> Any:
        counting.n += 1  # type: ignore[attr-defined]
        return x * counting.n  # type: ignore[attr-defined]

    counting.n = 0  # type: ignore[attr-defined]
    with pytest.raises(cr.core.errors.TracedValueError, match="changes"):
        cr.compile(counting)(cr.ones(3))


# ---------------------------------------------------------------- hooks and optimisers


@pytest.mark.parametrize("register", [
    lambda w, k: w.register_hook(lambda g: g * k[0]),
    lambda w, k: w.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(k[0]))])
def test_what_hooks_of_tensors_read_is_a_guard(register: Callable[[Any, Any], Any]) -> None:
    w: Any = nn.Parameter(cr.ones(3))
    k = [2.0]
    register(w, k)

    def gradient(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad.clone()

    compare(gradient, lambda: k.__setitem__(0, 5.0))


def test_a_hook_that_counts_is_refused() -> None:
    w, seen = nn.Parameter(cr.ones(3)), []
    w.register_hook(lambda g: seen.append(1))

    @cr.compile
    def step(x: Any) -> None:
        (w * x).sum().backward()

    with pytest.raises(cr.core.errors.TracedValueError, match="seen"):
        step(cr.ones(3))


def test_a_rate_in_an_array_may_be_written_in_place() -> None:
    w = nn.Parameter(cr.zeros(1))
    optimizer = cr.optim.SGD([w], lr=0.5)

    @cr.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    rate = np.array(0.25)
    changes: list[tuple[float, Change]] = [
        (0.5, lambda: None), (0.25, lambda: optimizer.param_groups[0].update(lr=rate)),
        (0.125, lambda: rate.fill(0.125))]
    for expected, change in changes:
        change()
        for _ in range(3):
            before = w.item()
            step(cr.ones(1))
            assert before - w.item() == pytest.approx(expected)


def test_a_parameter_taken_from_a_group_is_not_stepped() -> None:
    a, b = nn.Parameter(cr.zeros(1)), nn.Parameter(cr.zeros(1))
    optimizer = cr.optim.SGD([a, b], lr=1.0)

    @cr.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        ((a + b) * x).sum().backward()
        optimizer.step()

    for _ in range(4):
        step(cr.ones(1))
    optimizer.param_groups[0]["params"].pop()
    for _ in range(2):
        step(cr.ones(1))
    assert (a.item(), b.item()) == (-6.0, -4.0)


# ---------------------------------------------------------------- memory, indices, size


def test_the_order_of_a_tensor_from_outside_is_a_guard() -> None:
    w = cr.ones(3, 3)
    compare(lambda x: x * (2 if w.is_contiguous() else 3),
            lambda: setattr(w, "data", cr.ones(3, 3).t()))
    asked = cr.compile(lambda x: x * (2 if x.is_contiguous() else 3))
    for x in (cr.ones(2, 3), cr.ones(2, 3).t(), cr.ones(2, 3)):
        assert asked(x).max().item() == (2 if x.is_contiguous() else 3)


def test_a_write_out_of_range_changes_nothing() -> None:
    memory, place = cr.zeros(4, 3), cr.zeros((), dtype=cr.int64)

    @cr.compile
    def write(x: Any) -> Any:
        memory[place] = x
        return memory.sum()

    write(cr.ones(3))
    place.fill_(4)
    before = memory.numpy().copy()
    with pytest.raises(IndexError):
        write(cr.full((3,), 9.0))
    np.testing.assert_array_equal(memory.numpy(), before)


def test_an_addition_out_of_range_changes_nothing_either() -> None:
    # the second function is like the first, but for memory that is there already
    fresh = cr.compile(lambda g, i: cr.zeros(4, 3).index_add(0, i, g))
    memory, good, bad = cr.ones(4, 3), cr.tensor([0, 3]), cr.tensor([0, 4])

    @cr.compile
    def add(g: Any, i: Any) -> None:
        memory.index_add_(0, i, g)

    assert fresh(cr.ones(2, 3), good).sum().item() == 6
    add(cr.zeros(2, 3), good)
    with pytest.raises(IndexError):
        add(cr.tensor([[0.0] * 3, [9.0] * 3]), bad)
    np.testing.assert_array_equal(memory.numpy(), np.ones((4, 3)))


def test_long_chains_compile_from_a_deep_stack() -> None:
    def chain(x: Any) -> Any:
        for i in range(1500):
            x = x * 1.0001 + 0.001 if i % 3 else x.sin()
        return x

    compare(chain)

    def below(depth: int) -> Any:
        return below(depth - 1) if depth else cr.compile(lambda x: chain(x) + 1)(cr.ones(2))

    assert below(200).shape == (2,)


@pytest.mark.parametrize("change", [lambda: cr.set_num_threads(1),
                                    lambda: cr.set_default_dtype(cr.float64)])
def test_settings_are_not_changed_inside(change: Change) -> None:
    before = cr.get_num_threads(), cr.get_default_dtype()

    @cr.compile
    def function(x: Any) -> Any:
        change()
        return x * 2

    with pytest.raises(cr.core.errors.TracedValueError, match="only once"):
        function(cr.ones(3))
    assert (cr.get_num_threads(), cr.get_default_dtype()) == before


def test_threads_with_different_shapes_share_a_function() -> None:
    model = nn.Linear(4, 4)
    compiled = cr.compile(lambda x: model(x).tanh().sum(1))
    wrong: list[Any] = []

    def work(n: int) -> None:
        for k in range(30):
            x = cr.full((n + k % 2, 4), 0.1 * n)
            with cr.no_grad():
                if not np.allclose(compiled(x).numpy(), model(x).tanh().sum(1).numpy(), atol=1e-5):
                    wrong.append((n, k))

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_refusal_that_the_function_swallows_is_still_one():
    @cr.compile
    def guarded(x):
        try:
            extra = float(x.sum())
        except RuntimeError:
            extra = 0.0
        return x + extra

    with pytest.raises(TracedValueError, match="asks for the number"):
        guarded(cr.ones(3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1)])
def test_a_constant_is_an_operand_of_a_product(shape):
    for function in (lambda x: cr.full((1, 1), 7.0) @ x[:1],
                     lambda x: x @ cr.full((x.shape[1], 1), 3.0),
                     lambda x: x @ cr.full((x.shape[1], 4), 3.0)):
        x = cr.ones(*shape)
        assert cr.compile(function)(x).tolist() == function(x).tolist()


def test_a_gradient_that_is_constant_reaches_a_layer():
    layer = cr.nn.Linear(2, 1)

    @cr.compile
    def step(x):
        layer.zero_grad()
        layer(x).sum().backward()

    step(cr.tensor([[1.0, 2.0]]))
    assert layer.weight.grad.tolist() == [[1.0, 2.0]]


def test_exp_of_very_negative_numbers_is_exact():
    ends = [-np.inf, -200, np.nan, 89, 0]
    x = np.concatenate([np.linspace(-104.5, -86, 20001), ends]).astype("f4")
    got = cr.compile(cr.exp)(cr.from_numpy(x)).numpy()
    want = np.exp(x.astype("f8"))
    ulp = np.spacing(np.maximum(want.astype("f4"), np.float32(1e-45)))
    near = np.isfinite(want) & (want < 3e38)
    assert np.max(np.abs(got[near] - want[near]) / ulp[near]) < 1
    assert got[-5] == 0 and got[-4] == 0 and np.isnan(got[-3]) and got[-2] == np.inf


def test_float16_is_copied_and_updated_in_place():
    state = cr.zeros(4, dtype=cr.float16)

    @cr.compile
    def step(x):
        state.add_(x)
        return state * 2, state

    for turn in range(1, 4):
        doubled, same = step(cr.ones(4, dtype=cr.float16))
        assert state.tolist() == [turn] * 4
        assert doubled.tolist() == [2 * turn] * 4
        assert same is state


@pytest.mark.parametrize(("ignored", "options"), [(-100, {}), (-1, {"ignore_index": -1})])
def test_cross_entropy_ignores_in_compiled_functions_what_it_ignores(ignored, options):
    def gradient(x, t):
        return cr.func.grad_and_value(
            lambda x: cr.nn.functional.cross_entropy(x, t, **options))(x)

    x, t = cr.randn(5, 3), cr.tensor([0, ignored, 2, 1, ignored])
    for got, want in zip(cr.compile(gradient)(x, t), gradient(x, t), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(IndexError, match="out of range"):
        cr.compile(gradient)(x, cr.tensor([0, 1, 3, 1, 0]))
    with pytest.raises(IndexError, match="out of range"):
        cr.compile(gradient)(x, cr.tensor([0, 1, -7, 1, 0]))


# ---------------------------------------------------------------- what code reads by computed names


class Options:
    """Numbers that code reads by computed names."""

    def __init__(self) -> None:
        self.k0, self.k1 = 2.0, 3.0

    def scaled(self, x: Any) -> Any:
        return x * 2


class OtherOptions(Options):
    """Options that scale differently."""

    def scaled(self, x: Any) -> Any:
        return x * 3


FACTOR = 2.0


def test_attributes_by_computed_names_classes_and_globals_are_guards() -> None:
    global FACTOR
    options, which = Options(), 0
    f = cr.compile(lambda x: x * getattr(options, f"k{which}"))
    assert f(cr.ones(1)).item() == f(cr.ones(1)).item() == 2
    options.k0 = 5.0
    assert f(cr.ones(1)).item() == 5
    which = 1
    options.k1 = 7.0
    assert f(cr.ones(1)).item() == 7
    g = cr.compile(lambda x: options.scaled(x))
    assert g(cr.ones(1)).item() == g(cr.ones(1)).item() == 2
    options.__class__ = OtherOptions
    assert g(cr.ones(1)).item() == 3 and "__class__: type Options" in g.compiles[1].why
    h = cr.compile(lambda x: x * globals()["FACTOR"])
    assert h(cr.ones(1)).item() == 2
    FACTOR = 4.0
    assert h(cr.ones(1)).item() == 4


def test_names_that_are_written_out_are_told_from_computed_ones() -> None:
    found = importlib.import_module("chainrule.jit.guards").names_are_computed
    assert all(found(f.__code__) for f in (
        lambda x, n: getattr(x, n), lambda x, n: getattr(x, "a" + n, "b"),
        lambda x, n: getattr(getattr(x, "a"), n), lambda x: vars(x)["a"]))  # noqa: B009
    assert not any(found(f.__code__) for f in (
        lambda x: getattr(x, "a", None), lambda x: getattr(x.b(1, 2)[3], "a")(1, "c"),  # noqa: B009
        lambda x, n: hasattr(x, "a") and n))


KEPT = [cr.ones(2), 1]


def test_a_list_from_outside_is_returned_itself() -> None:
    table = {"a": cr.ones(2)}
    f, g = cr.compile(lambda x: KEPT), cr.compile(lambda x: (x * 2, table))
    for _ in range(3):
        assert f(cr.ones(1)) is KEPT
        assert g(cr.ones(1))[1] is table


def print_it(x: Any) -> None:
    print(x)  # noqa: T201


@pytest.mark.parametrize(("f", "cure"), [
    (lambda x: x[x > 0], "cr.where(mask, x, 0)"), (lambda x: x.nonzero(), "x * condition"),
    (lambda x: cr.masked_select(x, x > 0), "cr.where(mask, x, 0)"),
    (lambda x: cr.multinomial(x, 1), "Gumbel"), (lambda x: x.sum().item(), "leave .item() out"),
    (lambda x: float(x.sum()), "leave float() out"), (print_it, "print it after the call"),
    (lambda x: f"{x.sum():.1f}", "print it after the call"), (lambda x: int(x.sum()), "x.long()"),
    (lambda x: x[:x.sum().long()], "cr.arange(n) < stop"), (lambda x: x.numpy(), "use NumPy after"),
    (lambda x: x if x.sum() > 0 else -x, "cr.where(condition, a, b)"),
    (lambda x: x.unique(), "outside the compiled function"),
    (lambda x: nn.Linear(1, 1).load_state_dict({}), "sees the new numbers")])
def test_each_number_asked_for_has_its_own_cure(f: Callable[..., Any], cure: str) -> None:
    with pytest.raises(TracedValueError, match=r"test_jit_found\.py") as caught:
        cr.compile(f)(cr.ones(3))
    assert cure in str(caught.value)
    step = optim.SGD([cr.ones(1).requires_grad_()], 0.1)
    with pytest.raises(TracedValueError, match=r"load_state_dict\(\) outside"):
        cr.compile(lambda x: step.load_state_dict(step.state_dict()))(cr.ones(1))
