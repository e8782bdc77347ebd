"""gradcheck: right gradients pass, wrong ones are found, named and explained, kinks are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.core.bind import bind
from chainrule.core.errors import DtypeError, GradientError
from chainrule.core.primitive import TABLE, Variadic
from chainrule.gradcheck import (
    GradcheckError,
    Verdict,
    gradcheck,
    gradgradcheck,
)
from chainrule.nn import functional as F
from chainrule.testing.conformance import samples_of, varied


def leaf(*shape: int, seed: int = 0) -> cr.Tensor:
    return cr.from_numpy(np.random.default_rng(seed).normal(size=shape)).requires_grad_()


def vector(*numbers: float) -> cr.Tensor:
    return cr.tensor(list(numbers), dtype=cr.float64, requires_grad=True)


def verdict(func: Callable[..., Any], *inputs: Any, **options: Any) -> Verdict:
    return gradcheck(func, inputs, raise_exception=False, **options)


# ---------------------------------------------------------------- right

RIGHT = {
    "product": (lambda a, b: a @ b, (leaf(2, 3), leaf(3, 2, seed=1))),
    "broadcast": (lambda a, b: a * b + b, (leaf(2, 3), leaf(3, seed=1))),
    "tuple": (lambda a, b: (a * b, (a + b).exp()), (leaf(3), leaf(3, seed=1))),
    "dict and list": (lambda p: {"y": [p["w"] * 2, p["b"].sin()]}, ({"w": leaf(2), "b": leaf(2)},)),
    "softmax": (lambda x: cr.softmax(x, -1), (leaf(2, 3),)),
    "relu": (cr.relu, (vector(-1.0, 0.5, 2.0),)),
    "maximum": (lambda x: x.amax(1), (leaf(3, 4),)),
    "sort": (lambda x: x.sort()[0] * cr.arange(5), (leaf(5),)),
    "where": (lambda x: cr.where(x > 0, x * 2, x * x), (leaf(4),)),
    "norm": (lambda x: x.norm(), (leaf(4),)),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b),
                   (leaf(2, 4), leaf(4, seed=1), leaf(4, seed=2))),
    "cross entropy": (lambda x: F.cross_entropy(x, cr.tensor([0, 2, 1])), (leaf(3, 3),)),
    "scalar": (lambda x: x**3, (cr.tensor(1.5, dtype=cr.float64, requires_grad=True),)),
    "in place": (lambda x: (x * 1.0).add_(x * x).mul_(2.0), (leaf(3),)),
    "index": (lambda x: x[[0, 0, 2]] * x[1], (leaf(3, 2),)),
    "unused": (lambda a, b: a * 2, (leaf(2), leaf(3))),
    "constant": (lambda x: cr.ones(2, dtype=cr.float64), (leaf(2),)),
    "empty": (lambda x: x.sum(), (leaf(0, 3),)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name: str) -> None:
    func, inputs = RIGHT[name]
    if name == "empty":
        assert verdict(func, *inputs).word == "inconclusive"
        return
    found = gradcheck(func, inputs, check_batched_grad=True, check_batched_forward_grad=True)
    assert found and found.word == "right", found
    assert found.compared == found.numbers
    assert found.error < 1e-7
    assert "right" in str(found)


@pytest.mark.parametrize("name", [n for n in RIGHT if n not in ("constant", "empty", "in place")])
def test_right_second_derivatives_pass(name: str) -> None:
    func, inputs = RIGHT[name]
    found = gradgradcheck(func, inputs, gen_non_contig_grad_outputs=True)
    assert found, found
    assert found.word == "right"


def test_the_words_of_a_right_verdict() -> None:
    def loss(x: Any, w: Any) -> Any:
        return (x @ w).tanh().sum()

    text = str(gradcheck(loss, (leaf(2, 3), leaf(3, 2, seed=1))))
    assert text.startswith("gradcheck: right. 2 inputs (12 numbers): reverse mode and forward mode "
                           "agree with centred differences to ")
    assert "(worst: input " in text
    assert "24 evaluations of the function; 1 backward pass would do." in text


def test_it_is_found_where_pytorch_has_it() -> None:
    assert cr.autograd.gradcheck is gradcheck
    assert cr.autograd.gradgradcheck is gradgradcheck
    assert {"gradcheck", "gradgradcheck"} <= set(cr.autograd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'gradchek'"):
        _ = cr.autograd.gradchek


def test_a_closure_sees_the_moved_numbers() -> None:
    model = cr.nn.Linear(3, 2).double()
    x = leaf(4, 3).detach()
    found = gradcheck(lambda *_: model(x).tanh(), tuple(model.parameters()))
    assert found.inputs == 2 and found.numbers == 8


def test_inputs_are_left_as_they_were() -> None:
    x = leaf(3)
    before = x.detach().numpy().copy()
    gradcheck(lambda x: x.exp(), x)
    with pytest.raises(ZeroDivisionError):
        gradcheck(lambda x: x * (1 / 0), x)
    np.testing.assert_array_equal(x.detach().numpy(), before)
    assert x.grad is None


def test_inputs_without_a_gradient_are_held() -> None:
    calls = []

    def f(x: Any, c: Any, n: int, flag: Any = None) -> Any:
        calls.append(c)
        return x * c.double() * n

    found = gradcheck(f, (leaf(2), cr.tensor([1.0, 2.0]), 3))
    assert found.inputs == 1 and found.numbers == 2
    assert all(c is calls[0] for c in calls)


def test_one_tensor_given_twice_is_moved_in_both_places() -> None:
    x = leaf(3)
    found = gradcheck(lambda a, b: a * b, (x, x))
    assert found.inputs == 1


def test_it_works_under_no_grad_and_on_non_leaves() -> None:
    x = leaf(3) * 2
    with cr.no_grad():
        assert gradcheck(lambda x: x.sin(), x)


@pytest.mark.parametrize("mode", ["check_forward_ad", "check_backward_ad"])
def test_each_mode_alone(mode: str) -> None:
    found = gradcheck(lambda x: x * x, leaf(3), **{mode: False})
    assert len(found.modes) == 1
    with pytest.raises(GradientError, match="nothing to check"):
        gradcheck(lambda x: x, leaf(3), check_forward_ad=False, check_backward_ad=False)


# ---------------------------------------------------------------- counting


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_evaluations_are_counted(shape: tuple[int, ...], fast: bool) -> None:
    calls = 0

    def f(x: Any) -> Any:
        nonlocal calls
        calls += 1
        return (x * x).reshape(-1)

    found = gradcheck(f, leaf(*shape), fast_mode=fast)
    n = int(np.prod(shape))
    assert found.evaluations == calls
    assert found.difference_evaluations == (2 if fast else 2 * n)
    assert found.backward_passes == (1 if fast else n)
    assert calls == found.difference_evaluations + 2
    assert found.difference_seconds > 0 and found.reverse_seconds > 0


def test_evaluations_of_failing_checks_are_counted() -> None:
    calls = 0

    def f(x: Any) -> Any:
        nonlocal calls
        calls += 1
        return x * x.detach()

    found = verdict(f, leaf(2))
    # two to examine, the differences with refinement, two more to find the cut
    assert calls == found.difference_evaluations + 4
    assert found.difference_evaluations == 2 * 2 + 2 * 8


# ---------------------------------------------------------------- wrong


@contextmanager
def patched(name: str, **fields: Any) -> Iterator[None]:
    """A row of the table with other rules."""
    row = TABLE[name]
    fields.setdefault("fast_pulls", ())
    before = {field: getattr(row, field) for field in fields}
    for field, value in fields.items():
        object.__setattr__(row, field, value)
    for cache in ("array_pulls",):
        row.__dict__.pop(cache, None)
    reads = dict(row._reads)
    row._reads.clear()
    try:
        yield
    finally:
        for field, value in before.items():
            object.__setattr__(row, field, value)
        row.__dict__.pop("array_pulls", None)
        row._reads.clear()
        row._reads.update(reads)


def first(row: str, change: Callable[..., Any]) -> dict[str, Any]:
    """The pulls of a row with its first rule changed: change(gx, g, y, *xs)."""
    pulls = TABLE[row].pulls
    own = pulls[0]
    assert own is not None

    def wrong(g: Any, y: Any, *xs: Any, **params: Any) -> Any:
        return change(own(g, y, *xs, **params), g, y, *xs)

    return {"pulls": (wrong, *pulls[1:])}


# What is wrong, in which row, in which function, and words that must be told.
WRONG: dict[str, tuple[str, Callable[[], dict[str, Any]], Callable[..., Any], tuple[Any, ...],
                       tuple[str, ...]]] = {
    "half": ("square", lambda: first("square", lambda gx, *_: gx * 0.5),
             lambda x: x.square(), (leaf(3),), ("half the right one", "factor 2 is lost")),
    "twice": ("exp", lambda: first("exp", lambda gx, *_: gx * 2.0),
              lambda x: x.exp(), (leaf(3),), ("twice the right one",)),
    "sign": ("cos", lambda: first("cos", lambda gx, *_: -gx),
             lambda x: x.cos().sum(), (leaf(3),), ("the sign is wrong",)),
    "zero": ("tanh", lambda: first("tanh", lambda gx, *_: gx * 0.0),
             lambda x: x.tanh(), (leaf(2, 3),), ("zero everywhere",)),
    "1/N missing": ("mean", lambda: first("mean", lambda gx, *_: gx * 6.0),
                    lambda x: x.mean(), (leaf(2, 3),), ("6 times the right one", "1/N of a mean")),
    "1/N twice": ("mean", lambda: first("mean", lambda gx, *_: gx / 6.0),
                  lambda x: x.mean(), (leaf(2, 3),), ("1/6 of the right one", "once too often")),
    "transposed": ("matmul", lambda: first("matmul", lambda gx, *_: gx.swapaxes(-1, -2)
                                           if isinstance(gx, np.ndarray) else gx.mT),
                   lambda a, b: (a @ b).sin(), (leaf(3, 3), leaf(3, 3, seed=1)), ("transposed",)),
    "constant": ("sigmoid", lambda: first("sigmoid", lambda gx, *_: gx * 1.25),
                 lambda x: x.sigmoid(), (leaf(3),), ("1.25 times the right one",)),
    "x too many": ("sin", lambda: first("sin", lambda gx, g, y, x: gx * x),
                   lambda x: x.sin(), (leaf(4),), ("a factor x too many",)),
    "x missing": ("square", lambda: first("square", lambda gx, g, y, x: gx / x),
                  lambda x: x.square(), (leaf(4),), ("a factor x is missing",)),
    "reversed": ("mul", lambda: {"pulls": (lambda g, y, a, b: np.flip(g * b),
                                           TABLE["mul"].pulls[1])},
                 lambda a, b: (a * b).sum(), (leaf(4), leaf(4, seed=1)), ("reversed order",)),
    "exchanged": ("mul", lambda: {"pulls": (TABLE["mul"].pulls[1], TABLE["mul"].pulls[0])},
                  lambda a, b: (a * b).sum(), (leaf(4), leaf(4, seed=1)), ("exchanged",)),
    "part missing": ("sin", lambda: first("sin", lambda gx, g, y, x: gx * (np.arange(4) > 0)),
                     lambda x: x.sin(), (leaf(4),), ("1 of 4 numbers are missing",)),
    "averaged": ("exp", lambda: first("exp", lambda gx, *_: gx * 0 + gx.mean()),
                 lambda x: x.exp().sum(), (leaf(4),), ("averaged over axis 0",)),
    "not finite": ("log", lambda: first("log", lambda gx, *_: gx * np.nan),
                   lambda x: (x * x).log(), (leaf(3),), ("not finite",)),
    "bias": ("linear", lambda: {"pulls": (*TABLE["linear"].pulls[:2],
                                          lambda g, y, x, w, b: 0.5 * TABLE["sum"](g, axes=(0,)))},
             F.linear, (leaf(2, 3), leaf(4, 3, seed=1), leaf(4, seed=2)), ("input 2 'bias'",)),
    "a term too few": ("softmax", lambda: {"pulls": (lambda g, y, x, axis: g * y,)},
                       lambda x: cr.softmax(x, -1), (leaf(2, 3),), ("rule of softmax",)),
    "slightly": ("tanh", lambda: first("tanh", lambda gx, *_: gx * 1.002),
                 lambda x: x.tanh(), (leaf(3),), ("1.002 times", "below 1e-2")),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradients_are_found_and_named(name: str) -> None:
    row, fields, func, inputs, words = WRONG[name]
    assert verdict(func, *inputs).word == "right"
    with patched(row, **fields()):
        found = verdict(func, *inputs, check_forward_ad=False)
        assert not found
        assert found.word == "wrong"
        text = str(found)
        for word in (*words, f"The reverse rule of {row} for its operand ", "test_gradcheck.py:"):
            assert word in text, text
        with pytest.raises(GradcheckError) as raised:
            gradcheck(func, inputs, check_forward_ad=False)
        assert raised.value.verdict.word == "wrong"
        assert str(raised.value) == str(raised.value.verdict)
        assert not gradcheck(func, inputs, check_forward_ad=False, fast_mode=True,
                             raise_exception=False)


def test_a_wrong_number_is_shown_with_its_place() -> None:
    def skewed(gx: Any, *_: Any) -> Any:
        gx = gx.copy()
        gx[0, 3] *= 0.5
        return gx

    with patched("sin", **first("sin", skewed)):
        found = verdict(lambda x, w: x.sum() + w.sin().sum(), leaf(2), leaf(2, 4, seed=3),
                        check_forward_ad=False)
    (mistake,) = found.mistakes
    (where, output, got, right) = mistake.rows[0]
    assert (where.label, where.at, output.label) == ("input 1 'w'", (0, 3), "the output")
    assert got == pytest.approx(0.5 * right)
    assert mistake.wrong == 1
    text = str(found)
    assert "d the output / d input 1 'w'[0, 3]:" in text
    assert "0.5 times that (relative error 5.0e-01)" in text


def test_a_wrong_tangent_rule_is_told_from_a_wrong_pull() -> None:
    with patched("sin", jvp=lambda ts, y, x: -ts[0]):
        found = verdict(lambda x: x.sin(), leaf(3))
        assert [m.modes for m in found.mistakes] == [("forward",)]
        assert "The forward rule of sin" in str(found)
        assert verdict(lambda x: x.sin(), leaf(3), check_forward_ad=False)


def test_a_wrong_batching_rule_is_found() -> None:
    with patched("mul", batch=lambda xs, axes: (2 * bind(TABLE["add"], *xs), 0)):
        found = verdict(lambda x: x.sin(), leaf(3), check_batched_grad=True)
        assert [m.modes for m in found.mistakes] == [("batched",)]


def test_a_rule_that_is_only_wrong_where_it_is_differentiated_again() -> None:
    def pull(g: Any, y: Any, x: Any) -> Any:
        value = x.detach() if isinstance(x, cr.Tensor) else x
        return g * (value * 2)

    with patched("square", pulls=(pull,)):
        assert verdict(lambda x: x.square(), leaf(3), check_forward_ad=False)
        found = gradgradcheck(lambda x: x.square(), leaf(3), raise_exception=False,
                              check_fwd_over_rev=False)
        assert found.word == "wrong"
        assert "gradgradcheck: wrong" in str(found)
        assert "gradient of input 0 'x'" in str(found)
        assert "no gradient flows through it" in str(found)


def test_a_gradient_of_the_wrong_shape_is_told() -> None:
    with patched("sin", **first("sin", lambda gx, *_: gx.sum())):
        found = verdict(lambda x: x.sin(), leaf(3))
        assert found.word == "wrong"
        assert "shape []" in str(found)


CUTS = {
    "detach": lambda x: x * x.detach(),
    "data": lambda x: x * x.data,
    "item": lambda x: x * x.sum().item(),
    "numpy": lambda x: x * cr.from_numpy(np.sin(x.detach().numpy())),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_is_found_where_it_is_used(name: str) -> None:
    found = verdict(CUTS[name], leaf(3))
    assert found.word == "wrong"
    assert "Operand 2 of mul changes with input 0 'x', but no gradient flows" in str(found)
    assert "test_gradcheck.py:" in str(found)


def test_a_whole_output_that_is_cut() -> None:
    found = verdict(lambda x: (x * 2).detach(), leaf(3))
    assert found.word == "wrong"
    assert "zero everywhere" in str(found) and "detach()" in str(found)


def test_a_wrong_gradient_too_small_for_atol_is_found() -> None:
    """PyTorch's rule accepts anything below atol."""
    with patched("sin", **first("sin", lambda gx, *_: -gx)):
        assert not verdict(lambda x: x.sin().sum() * 1e-7, leaf(3))
    assert verdict(lambda x: x.sin().sum() * 1e-7, leaf(3))


def test_a_backward_pass_that_changes_is_found() -> None:
    noise = iter(range(1000))
    with patched("sin", **first("sin", lambda gx, *_: gx * (1 + 1e-3 * next(noise)))):
        found = verdict(lambda x: x.sin(), leaf(1))
        assert found.word == "wrong"
        assert "Two backward passes" in str(found)


# ---------------------------------------------------------------- custom functions


class Cube(cr.autograd.Function):
    """x³ with a derivative that can be told to be wrong."""

    factor = 3.0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * Cube.factor * x**2


class Bent(cr.autograd.Function):
    """relu, in NumPy."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return cr.from_numpy(np.maximum(x.detach().numpy(), 0))

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * (x > 0).double()


@pytest.mark.parametrize("fast", [False, True])
def test_custom_functions(fast: bool) -> None:
    found = gradcheck(lambda x: Cube.apply(x.sin()), leaf(3), fast_mode=fast)
    assert found.word == "right" and found.modes == ("reverse mode",)
    assert "no jvp" in str(found)
    assert gradgradcheck(Cube.apply, leaf(3))


def test_a_wrong_custom_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cube, "factor", 1.5)
    found = verdict(lambda x: Cube.apply(x.sin()).exp(), leaf(3))
    assert found.word == "wrong"
    text = str(found)
    assert "half the right one" in text
    assert "The derivative of Cube was written by hand" in text and "test_gradcheck.py:" in text


def test_a_corner_inside_a_custom_function() -> None:
    found = verdict(Bent.apply, vector(0.0, 1.0, -1.0))
    assert [e.reason for e in found.excluded] == ["corner"]
    assert found.word == "right"


# ---------------------------------------------------------------- kinks


def on_a_kink(found: Verdict, row: str) -> None:
    assert found.excluded, found
    assert all(one.node is not None and one.node.name == row for one in found.excluded), found
    assert f"lies on a kink of {row} at " in str(found)
    assert "test_gradcheck.py:" in str(found)


KINKS = {
    "relu": (cr.relu, (vector(-1.0, 2.0, 0.0),), "relu", 1),
    "leaky relu": (F.leaky_relu, (vector(0.0, 1.0),), "leaky_relu", 1),
    "elu": (lambda x: F.elu(x, 0.5), (vector(0.0, 1.0),), "elu", 1),
    "abs": (cr.abs, (vector(0.0, 1.0),), "abs", 1),
    "clamp": (lambda x: x.clamp(-1, 1), (vector(1.0, 0.3, -1.0),), "clamp", 2),
    "maximum": (cr.maximum, (vector(1.0, 2.0), vector(1.0, 3.0)), "maximum", 2),
    "amax": (lambda x: x.amax(0), (vector(1.0, 3.0, 3.0),), "amax", 2),
    "amin": (lambda x: x.amin(0), (vector(1.0, 1.0, 3.0),), "amin", 2),
    "where": (lambda x: cr.where(x > 0, x, 2 * x), (vector(0.0, 1.0),), "where", 1),
    "sort": (lambda x: x.sort()[0], (vector(2.0, 2.0, 1.0),), "gather", 2),
    "floor": (lambda x: cr.floor(x) * x, (vector(2.0, 2.5),), "floor", 1),
    "round": (lambda x: cr.round(x) + x, (vector(0.5, 0.3),), "round", 1),
    "mask": (lambda x: x * (x > 1).double(), (vector(1.0, 2.0),), "mul", 1),
    "pooling": (lambda x: F.max_pool2d(x, 2), (cr.tensor(
        [[[[1.0, 1.0], [0.5, 0.2]]]], dtype=cr.float64, requires_grad=True),), "", 2),
    "far inside": (lambda x: (x * 3 - 3).relu().exp(), (vector(1.0, 2.0),), "relu", 1),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_left_out_and_named(name: str) -> None:
    func, inputs, row, count = KINKS[name]
    found = verdict(func, *inputs)
    assert found, found
    assert len(found.excluded) == count
    assert found.compared == found.numbers - count
    assert f"{count} number{'s' if count > 1 else ''} of {found.numbers} left out" in str(found)
    if row:
        on_a_kink(found, row)


def test_a_python_if_is_a_kink() -> None:
    def f(x: Any) -> Any:
        return x.exp() if x[0] > 1 else x * 2

    found = verdict(f, vector(1.0, 5.0))
    assert [e.place.at for e in found.excluded] == [(0,)]
    assert found.word == "right"


def test_a_kink_that_the_recording_does_not_show() -> None:
    """|x| by way of a square root is smooth to the table, and has a corner nonetheless."""
    found = verdict(lambda x: (x * x + 0.0).sqrt(), vector(0.0, 1.0))
    assert [e.reason for e in found.excluded] == ["corner"]
    assert "slopes on its two sides differ" in str(found)
    assert found


def test_a_step_across_a_nearby_kink_is_made_shorter() -> None:
    found = verdict(cr.relu, vector(3e-7, 1.0))
    assert not found.excluded and found.word == "right"
    assert found.difference_evaluations == 2 * 2 + 2


def test_nothing_but_kinks_is_inconclusive_and_false() -> None:
    found = verdict(cr.relu, vector(0.0, 0.0))
    assert not found
    assert found.word == "inconclusive"
    assert "none could be compared" in str(found)
    with pytest.raises(GradcheckError, match="inconclusive"):
        gradcheck(cr.relu, vector(0.0, 0.0))


def test_a_wrong_gradient_is_found_beside_a_kink() -> None:
    with patched("relu", **first("relu", lambda gx, *_: gx * 0.5)):
        found = verdict(cr.relu, vector(0.0, 1.0), check_forward_ad=False)
        assert found.word == "wrong"
        assert len(found.excluded) == 1


def test_the_edge_of_a_domain() -> None:
    found = verdict(lambda x: x.sqrt(), vector(0.0, 1.0))
    assert [e.reason for e in found.excluded] == ["edge"]
    assert found.word == "right"


def test_kinks_of_second_derivatives() -> None:
    found = gradgradcheck(lambda x: x.relu() ** 2, vector(0.0, 1.0))
    on_a_kink(found, "relu")


def test_elu_is_smooth_once_but_not_twice() -> None:
    assert not gradcheck(F.elu, vector(0.0, 1.0)).excluded
    assert len(gradgradcheck(F.elu, vector(0.0, 1.0)).excluded) == 1


# ---------------------------------------------------------------- what cannot be checked


def test_float32_is_refused_with_what_to_write() -> None:
    x = cr.ones(3, requires_grad=True)
    with pytest.raises(DtypeError) as raised:
        gradcheck(lambda weight: weight * 2, x)
    text = str(raised.value)
    assert "input 0 'weight' is f32[3]" in text
    assert "x.double().requires_grad_()" in text and "model.double()" in text


def test_a_cast_to_float32_inside_is_refused_and_found() -> None:
    with pytest.raises(DtypeError) as raised:
        gradcheck(lambda x: x.float() * 2, leaf(3))
    assert "the output is f32[3]" in str(raised.value)
    assert "cast at " in str(raised.value)


def test_float32_in_the_middle_does_not_settle() -> None:
    found = verdict(lambda x: (x.float() * 3).double().sin(), leaf(3))
    assert found.word != "wrong"
    assert "computes in float32 in cast at " in str(found)


@pytest.mark.parametrize("func", [
    lambda x: F.dropout(x, 0.5), lambda x: x + cr.randn(20, dtype=cr.float64)])
def test_random_functions_are_recognised(func: Callable[..., Any]) -> None:
    found = verdict(func, leaf(20))
    assert found.word == "inconclusive" and not found
    text = str(found)
    assert "random numbers (dropout?)" in text and "model.eval()" in text
    assert "The first operation that differs is " in text and "test_gradcheck.py:" in text
    with pytest.raises(GradcheckError, match="Two evaluations"):
        gradcheck(func, leaf(20))


def test_a_counter_is_recognised() -> None:
    calls = iter(range(1000))
    found = verdict(lambda x: x * float(next(calls)), leaf(3))
    assert found.word == "inconclusive"
    assert "a counter" in str(found)


def test_positions_have_no_derivative() -> None:
    found = verdict(lambda x: x.argmax(), leaf(3))
    assert found.word == "inconclusive"
    assert "i64[]" in str(found) and "softmax for argmax" in str(found)


def test_whole_number_outputs_are_left_out() -> None:
    found = verdict(lambda x: tuple(x.max(1)), leaf(2, 3))
    assert found.word == "right"
    assert "output 1 is i64[2] and has no derivative" in str(found)


def test_misuse_is_explained() -> None:
    with pytest.raises(GradientError, match="none of the 2 inputs requires a gradient"):
        gradcheck(lambda a, b: a * b, (cr.ones(2), cr.ones(2)))
    with pytest.raises(GradientError, match="in place"):
        gradcheck(lambda x: x.mul_(2), leaf(3) * 1)
    with pytest.raises(GradientError, match="masked"):
        gradcheck(lambda x: x, leaf(2), masked=True)
    with pytest.raises(GradientError, match="eps"):
        gradcheck(lambda x: x, leaf(2), eps=0.0)
    with pytest.raises(GradientError, match="the Jacobian has"):
        gradcheck(lambda x: x, cr.zeros(10_000, dtype=cr.float64, requires_grad=True))
    x = leaf(2)
    with pytest.raises(GradientError, match="is computed from input 0"):
        gradcheck(lambda a, b: a * b, (x, x * 2))
    with pytest.raises(GradientError, match="no gradients to differentiate"):
        gradgradcheck(lambda x: x.detach(), leaf(2))


def test_large_inputs_in_fast_mode() -> None:
    found = gradcheck(lambda x: x.sin(), leaf(100, 100), fast_mode=True)
    assert found and found.evaluations == 4
    assert "one random direction" in str(found)


def test_a_row_without_a_tangent_rule_is_noted() -> None:
    with patched("sin", jvp=None):
        found = gradcheck(lambda x: x.sin(), leaf(3))
    assert found.modes == ("reverse mode",)
    assert "sin has no rule for tangents" in str(found)


def test_tolerances() -> None:
    with patched("sin", **first("sin", lambda gx, *_: gx * 1.002)):
        assert not verdict(lambda x: x.sin(), leaf(3))
        found = verdict(lambda x: x.sin(), leaf(3), rtol=1e-2)
        assert found and found.word == "uncomfortable"
        assert "uncomfortable" in str(found)


# ---------------------------------------------------------------- the whole table

SMOOTH = sorted(name for name, row in TABLE.items()
                if row.differentiable and name != "stop_gradient")


@settings(max_examples=120)
@given(st.sampled_from(SMOOTH), st.integers(0, 10_000), st.data())
def test_random_rows(name: str, seed: int, data: st.DataObject) -> None:
    """Each row at its own samples passes, and with its first rule scaled it is found out."""
    row = TABLE[name]
    xs, params = data.draw(st.sampled_from(samples_of(row, seed)))
    inputs = varied(row, xs)
    if not inputs or np.asarray(row.eval(*xs, **params)).dtype != np.float64:
        return
    tensors = [cr.from_numpy(np.array(x)).requires_grad_() if i in inputs else x
               for i, x in enumerate(xs)]
    found = verdict(lambda *given: bind(row, *given, **params), *tensors)
    assert found.word in ("right", "uncomfortable") or found.compared == 0, found
    i = inputs[0]
    if isinstance(row.pulls, Variadic) or row.pulls == () or found.compared < found.numbers:
        return
    own = row.pulls[i]
    assert own is not None
    pulls = (*row.pulls[:i], lambda *given, **p: own(*given, **p) * 1.5, *row.pulls[i + 1:])
    with patched(name, pulls=pulls):
        spoilt = verdict(lambda *given: bind(row, *given, **params), *tensors,
                         check_forward_ad=False)
    y = np.asarray(row.eval(*xs, **params))
    assert not spoilt or not np.any(own(np.ones_like(y), y, *xs, **params)), spoilt
