"""Transforms in all orders to depth three, against centred differences one level below.

A sequence of operators turns F: R³ → arrays into another such function. Each is compared with what
finite differences of the function one operator shorter give, which is itself one of the cases.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
import chainrule.nn.functional as F
from chainrule.core.errors import (
    BatchingError,
    GradientError,
    NotScalarError,
    OverwrittenError,
    ShapeError,
    TracedValueError,
)
from chainrule.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    hvp,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    value_and_grad,
    vjp,
    vmap,
)

Function = Callable[[Any], Any]
X = np.array([0.4, -0.7, 0.9])
STEP = 1e-5


def f64(x: Any, requires_grad: bool = False) -> cr.Tensor:
    return cr.tensor(np.asarray(x, np.float64), requires_grad=requires_grad)


def number(x: Any) -> np.ndarray:
    return x.detach().numpy()


def weights(shape: Any) -> np.ndarray:
    return np.cos(np.arange(np.prod(shape, dtype=int)) + 1.0).reshape(shape)


def differences(f: Function, x: np.ndarray) -> np.ndarray:
    """The Jacobian [*output, 3] by centred differences."""
    columns = []
    for i in range(x.size):
        e = np.zeros(x.shape)
        e.flat[i] = STEP
        columns.append((number(f(f64(x + e))) - number(f(f64(x - e)))) / (2 * STEP))
    return np.stack(columns, -1)


# ---------------------------------------------------------------- functions R³ → arrays

M = f64(np.sin(np.arange(12.0)).reshape(4, 3))
N = f64(np.cos(np.arange(8.0)).reshape(2, 4))
KERNEL = f64(np.sin(np.arange(4.0) + 1).reshape(2, 1, 1, 2))
GAIN, BIAS = f64([1.0, 0.5, -2.0]), f64([0.1, 0.2, 0.3])
PICK = cr.tensor([0, 2, 0, 1])


def in_place(x: Any) -> Any:
    y = x * 2
    y.mul_(x).add_(1)
    y += x.sin()
    return y.exp_()


def pooled(x: Any) -> Any:
    image = (x.unsqueeze(0) * x.unsqueeze(1)).reshape(1, 1, 3, 3)
    return F.max_pool2d(image, 2, 1).reshape(-1) + F.avg_pool2d(image, 2, 1).reshape(-1)


FUNCTIONS: dict[str, Function] = {
    "matmul chain": lambda x: (N @ (M @ x).tanh()).sin(),
    "outer products": lambda x: (x.unsqueeze(1) @ x.unsqueeze(0)) @ x.exp(),
    "softmax": lambda x: cr.softmax(x * 2, 0) * cr.log_softmax(x, 0),
    "indexing": lambda x: x[PICK] * x[1:2] + x[[2, 1, 0, 0]] ** 3 * x[-1],
    "where": lambda x: cr.where(x > 0.1, x**3, x.sin() * x),
    "where with a bad branch": lambda x: cr.where(x > 0, (x * x).log() * x.sqrt(), x**2),
    "cumsum and prod": lambda x: x.cumsum(0) * x.prod() + x.cumprod(0),
    "convolution": lambda x: F.conv2d(x.reshape(1, 1, 1, 3).sin(), KERNEL * x[0]).reshape(-1),
    "pooling": pooled,
    "layer norm": lambda x: F.layer_norm(x, (3,), GAIN, BIAS) * x,
    "batched kernels": lambda x: F.conv2d(x.reshape(1, 1, 1, 3), (x[:2] ** 2).reshape(1, 1, 1, 2)),
    "linear": lambda x: F.linear(x.sin().reshape(1, 3), M, x.cos().sum() * cr.ones(4).double()),
    "statistics": lambda x: cr.stack([x.var(), x.std(), x.mean(), cr.logsumexp(x, 0), x.norm()]),
    "extremes": lambda x: cr.cat([x.sort()[0] ** 2, x.max().reshape(1), x.amin().reshape(1)]) ** 2,
    "losses": lambda x: cr.stack([F.mse_loss(x.sin(), x.cos()), F.cross_entropy(
        x.reshape(1, 3) * 2, cr.tensor([1])), F.binary_cross_entropy_with_logits(x, x.sigmoid())]),
    "gather and scatter": lambda x: x.sin().gather(0, PICK) * cr.zeros(4).double().scatter_add(
        0, PICK, x[PICK].exp()) + cr.zeros(4).double().index_add(0, PICK[:3], x * x),
    "joining": lambda x: F.pad(cr.stack([x, x.flip(0) * x]), (1, 0)) @ cr.cat([x, x[:1]]),
    "einsum": lambda x: cr.einsum("i,j,ji->j", x.sin(), x, M[:3]),
    "powers": lambda x: (x.abs() + 1) ** x + 2.0**x + (x * x + 1) ** -1.5,
    "activations": lambda x: F.gelu(x) * F.silu(x) + F.softplus(x) * F.elu(x) - F.relu(x) ** 3,
    "in place": in_place,
    "a number": lambda x: (x * x.sin()).sum() * x[0],
    "constant in part": lambda x: cr.stack([x[0] ** 3, f64(2.0), x[1] * x[2]]),
}

# ---------------------------------------------------------------- operators

SCALES = f64([0.5, 1.0, 1.5])
T = f64([0.3, -1.1, 0.6])


def op_grad(f: Function) -> Function:
    return grad(lambda x: (lambda y: (y * f64(weights(y.shape))).sum())(f(x)))


def op_vjp(f: Function) -> Function:
    def pulled(x: Any) -> Any:
        y, pullback = vjp(f, x)
        return pullback(f64(weights(y.shape)))[0]
    return pulled


def op_jvp(f: Function) -> Function:
    return lambda x: jvp(f, (x,), (T,))[1]


def op_vmap(f: Function) -> Function:
    return lambda x: vmap(f)(SCALES.unsqueeze(1) * x)


def op_closure(f: Function) -> Function:
    """vmap over another argument, x reached from outside."""
    return lambda x: vmap(lambda s: f(x * s))(SCALES)


OPERATORS: dict[str, Callable[[Function], Function]] = {
    "grad": op_grad, "vjp": op_vjp, "jvp": op_jvp, "jacrev": jacrev, "jacfwd": jacfwd,
    "vmap": op_vmap, "closure": op_closure,
}


def expected(name: str, f: Function, x: np.ndarray) -> np.ndarray:
    """What an operator must give, from values of f alone."""
    if name in ("vmap", "closure"):
        return np.stack([number(f(f64(x * s))) for s in number(SCALES)])
    jacobian = differences(f, x)
    if name in ("jacrev", "jacfwd"):
        return jacobian
    if name == "jvp":
        return jacobian @ number(T)
    w = weights(jacobian.shape[:-1])
    return np.tensordot(w, jacobian, w.ndim) if w.ndim else w * jacobian


def applied(names: tuple[str, ...], f: Function) -> Function:
    for name in names:
        f = OPERATORS[name](f)
    return f


def compare(names: tuple[str, ...], f: Function, x: np.ndarray = X) -> None:
    found = applied(names, f)(f64(x))
    assert not found.requires_grad, "nothing outside is tracked, so the result must not be"
    wanted = expected(names[-1], applied(names[:-1], f), x)
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(number(found), wanted, rtol=2e-6, atol=2e-6 * scale)


@pytest.mark.parametrize("first", OPERATORS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_depth_two(function: str, first: str) -> None:
    compare((first,), FUNCTIONS[function])
    for second in OPERATORS:
        compare((first, second), FUNCTIONS[function])


DEEP = ("matmul chain", "indexing", "where with a bad branch", "layer norm")


@pytest.mark.parametrize("names", list(itertools.product(OPERATORS, repeat=2)), ids="-".join)
def test_depth_three(names: tuple[str, str]) -> None:
    for i, last in enumerate(OPERATORS):
        for k, function in enumerate(DEEP):
            if (i + k + len(names[0]) + len(names[1])) % 2:
                compare((*names, last), FUNCTIONS[function])


# ---------------------------------------------------------------- Hessians


def by_backward(f: Function, x: Any) -> Any:
    leaf = f64(number(x), requires_grad=True)
    (first,) = cr.autograd.grad(f(leaf), leaf, create_graph=True)
    rows = []
    for g in first:
        leaf.grad = None
        g.backward(retain_graph=True)
        rows.append(leaf.grad)
    return cr.stack(rows)


def by_hvp(f: Function, x: Any) -> Any:
    return vmap(lambda t: hvp(f, (x,), (t,))[1])(cr.eye(3).double())


HESSIANS: dict[str, Callable[[Function, Any], Any]] = {
    "hessian": lambda f, x: hessian(f)(x),
    "forward over reverse": lambda f, x: jacfwd(jacrev(f))(x),
    "reverse over forward": lambda f, x: jacrev(jacfwd(f))(x),
    "reverse over reverse": lambda f, x: jacrev(jacrev(f))(x),
    "forward over forward": lambda f, x: jacfwd(jacfwd(f))(x),
    "jacobian of grad": lambda f, x: jacrev(grad(f))(x),
    "backward over backward": by_backward,
    "batched hvp": by_hvp,
    "looped jvp of grad": lambda f, x: cr.stack(
        [jvp(grad(f), (x,), (e,))[1] for e in cr.eye(3).double()]),
    "looped vjp of grad": lambda f, x: cr.stack(
        [vjp(grad(f), x)[1](e)[0] for e in cr.eye(3).double()]),
    "grad of jvp": lambda f, x: vmap(lambda t: grad(lambda z: jvp(f, (z,), (t,))[1])(x))(
        cr.eye(3).double()),
}


@pytest.mark.parametrize("way", HESSIANS)
@pytest.mark.parametrize("function", ["matmul chain", "where with a bad branch", "statistics",
                                      "cumsum and prod", "gather and scatter", "powers", "losses"])
def test_hessian(function: str, way: str) -> None:
    def f(x: Any) -> Any:
        y = FUNCTIONS[function](x)
        return (y * f64(weights(y.shape))).sum()

    wanted = differences(grad(f), X)
    np.testing.assert_allclose(number(HESSIANS[way](f, f64(X))), wanted, rtol=1e-6, atol=1e-6)


def test_five_derivatives_of_one_number() -> None:
    f: Function = lambda x: x**5 * 2.0
    for k, wanted in enumerate((10 * 1.5**4, 40 * 1.5**3, 120 * 1.5**2, 240 * 1.5, 240.0)):
        f = grad(f) if k % 2 else op_scalar_jvp(f)
        assert f(f64(1.5)).item() == pytest.approx(wanted)


def op_scalar_jvp(f: Function) -> Function:
    return lambda x: jvp(f, (x,), (f64(1.0),))[1]


# ---------------------------------------------------------------- perturbation confusion


@pytest.mark.parametrize("inner", ["grad", "jvp", "vjp", "jacrev", "jacfwd"])
@pytest.mark.parametrize("outer", ["grad", "jvp", "vjp", "jacrev", "jacfwd"])
def test_perturbations_are_not_confused(outer: str, inner: str) -> None:
    """d/dx (x · d/dy (x + y)) = 1, not 2 (Siskind and Pearlmutter 2005)."""
    ways: dict[str, Callable[[Function], Function]] = {
        "grad": grad, "jacrev": jacrev, "jacfwd": jacfwd, "jvp": op_scalar_jvp,
        "vjp": lambda f: lambda x: vjp(f, x)[1](f64(1.0))[0]}
    one = f64(1.0)
    assert ways[outer](lambda x: x * ways[inner](lambda y: x + y)(one))(one).item() == 1
    assert ways[outer](lambda x: x * ways[inner](lambda y: x * y)(one))(f64(3.0)).item() == 6
    assert ways[outer](lambda x: ways[inner](lambda y: x * y * y)(x))(f64(3.0)).item() == 12
    assert ways[outer](lambda x: ways[inner](lambda y: y.detach() * y)(x) + x)(
        f64(3.0)).item() == 1


def test_an_inner_function_that_ignores_its_argument() -> None:
    assert grad(lambda x: grad(lambda y: x * x)(x) + x)(f64(2.0)).item() == 1
    assert jvp(lambda x: jvp(lambda y: x, (x,), (x,))[1], (f64(2.0),), (f64(1.0),))[1].item() == 0
    assert number(vmap(lambda x: grad(lambda y: x * 1.0)(x))(f64(X))).tolist() == [0, 0, 0]


def test_outer_values_in_an_inner_tangent() -> None:
    """The tangent itself is a function of x: d/dx (2x · t(x)) with t = x² is 6x²."""
    f = lambda x: jvp(lambda z: z * z, (x,), (x * x,))[1]
    for way in (grad, jacrev, jacfwd, op_scalar_jvp):
        assert way(f)(f64(2.0)).item() == pytest.approx(24)
    g = lambda x: vjp(lambda z: z * z, x)[1](x * x)[0]
    for way in (grad, jacrev, jacfwd, op_scalar_jvp):
        assert way(g)(f64(2.0)).item() == pytest.approx(24)


def test_a_pullback_is_linear_and_differentiable_in_its_cotangent() -> None:
    _, pullback = vjp(lambda x: x.sin(), f64(X))
    jacobian = jacrev(lambda g: pullback(g)[0])(f64([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(number(jacobian), np.diag(np.cos(X)))
    direction = jvp(lambda g: pullback(g)[0], (f64(X),), (f64([1.0, 0.0, 2.0]),))[1]
    np.testing.assert_allclose(number(direction), np.cos(X) * [1, 0, 2])
    value, push = linearize(lambda x: x.sin(), f64(X))
    np.testing.assert_allclose(number(push(f64([1.0, 0.0, 2.0]))), np.cos(X) * [1, 0, 2])
    np.testing.assert_allclose(number(value), np.sin(X))


# ---------------------------------------------------------------- tensors tracked outside


def test_a_parameter_reached_by_closure() -> None:
    w = f64([2.0, -1.0, 0.5], requires_grad=True)
    inner = grad(lambda x: (w * x**3).sum())(f64(X))
    assert inner.requires_grad
    inner.sum().backward()
    np.testing.assert_allclose(number(w.grad), 3 * X**2)

    w.grad = None
    y, dot = jvp(lambda x: (w * x).sin(), (f64(X),), (T,))
    (dot.sum() + y.sum()).backward()
    z = number(w) * X
    np.testing.assert_allclose(
        number(w.grad), X * np.cos(z) + number(T) * (np.cos(z) - z * np.sin(z)))

    w.grad = None
    vmap(lambda x: (w * x).prod())(SCALES).sum().backward()
    wanted = differences(lambda v: vmap(lambda x: (v * x).prod())(SCALES).sum(), number(w))
    np.testing.assert_allclose(number(w.grad), wanted, rtol=1e-8)

    w.grad = None
    jacrev(lambda x: (w * x).exp())(f64(X)).sum().backward()
    np.testing.assert_allclose(number(w.grad), np.exp(z) * (1 + z))


def test_a_leaf_given_as_argument() -> None:
    x = f64(X, requires_grad=True)
    value, slope = value_and_grad(lambda z: (z**3).sum())(x)
    (value + slope.sum()).backward()
    np.testing.assert_allclose(number(x.grad), 3 * X**2 + 6 * X)
    x.grad = None
    out, pullback = vjp(lambda z: z.sin(), x)
    pullback(out)[0].sum().backward()
    np.testing.assert_allclose(number(x.grad), np.cos(X) ** 2 - np.sin(X) ** 2)


def test_grad_does_not_touch_dot_grad() -> None:
    w = f64(X, requires_grad=True)
    grad(lambda x: (x * w).sum())(w)
    jacrev(lambda x: x * w)(w)
    assert w.grad is None


def test_backward_inside_a_transformed_function() -> None:
    w = f64(2.0, requires_grad=True)

    def f(x: Any) -> Any:
        loss = (w * w * 3).sum()
        loss.backward()
        return x * w.grad.detach()

    assert grad(f)(f64(1.0)).item() == 12


def test_python_control_flow() -> None:
    def f(x: Any) -> Any:
        y = x
        while y.norm() < 3:
            y = y * 2 if y.sum() > 0 else y * 3
        return (y * y).sum()

    for at in (X, -X):
        wanted = differences(f, at)
        np.testing.assert_allclose(number(grad(f)(f64(at))), wanted, rtol=1e-6)
        np.testing.assert_allclose(
            jvp(f, (f64(at),), (T,))[1].item(), wanted @ number(T), rtol=1e-6)
        np.testing.assert_allclose(number(hessian_by_grad(f)(f64(at))), differences(
            grad(f), at), rtol=1e-6, atol=1e-6)
    with pytest.raises(TracedValueError, match=r"cr\.where"):
        vmap(f)(f64(np.ones((2, 3))))


def hessian_by_grad(f: Function) -> Function:
    return lambda x: cr.stack([grad(lambda z, i=i: grad(f)(z)[i])(x) for i in range(3)])


def test_arguments_changed_in_place() -> None:
    """An inner function may write into its argument: the derivative is by what it was given."""
    def f(z: Any) -> Any:
        z.mul_(2)
        return (z * z).sum()

    wanted = 8 * X
    np.testing.assert_allclose(number(vmap(grad(f))(f64(X))), wanted)
    tangents = vmap(lambda x: jvp(f, (x,), (x * 0 + 1,))[1])(f64(X))
    np.testing.assert_allclose(number(tangents), wanted)
    np.testing.assert_allclose(number(vmap(lambda x: vjp(f, x)[1](f64(1.0))[0])(f64(X))), wanted)
    x = f64(X, requires_grad=True)
    inner = grad(f)(x)
    np.testing.assert_allclose(number(inner), wanted)
    inner.sum().backward()
    np.testing.assert_allclose(number(x.grad), [8, 8, 8])
    np.testing.assert_array_equal(number(x), X)


def test_outside_values_changed_while_tracing() -> None:
    counter = f64(X)

    def f(x: Any) -> Any:
        y = x * counter
        counter.add_(1)
        return y

    with pytest.raises(OverwrittenError, match=r"counter\.add_"):
        vmap(f)(f64(np.ones((2, 3))))


# ---------------------------------------------------------------- no_grad, detach


def test_no_grad_inside() -> None:
    def f(x: Any) -> Any:
        with cr.no_grad():
            c = x * x
        return (c * x).sum()

    np.testing.assert_allclose(number(grad(f)(f64(X))), X**2)
    np.testing.assert_allclose(number(jvp(f, (f64(X),), (T,))[1]), (X**2 * number(T)).sum())
    per_item = vmap(grad(lambda x: f(x.reshape(1))))(f64(X))
    np.testing.assert_allclose(number(per_item), X**2)
    np.testing.assert_allclose(number(grad(lambda x: vmap(
        lambda s: f(x * s))(SCALES).sum())(f64(X))), X**2 * (number(SCALES) ** 3).sum())


def test_detach_inside() -> None:
    f = lambda x: (x.detach() ** 2 * x).sum()
    np.testing.assert_allclose(number(grad(f)(f64(X))), X**2)
    np.testing.assert_allclose(number(hessian(f)(f64(X))), np.zeros((3, 3)))
    np.testing.assert_allclose(number(vmap(grad(lambda x: x.detach() * x * x))(f64(X))), 2 * X**2)


def test_transforms_under_no_grad() -> None:
    with cr.no_grad():
        np.testing.assert_allclose(number(grad(lambda x: (x**3).sum())(f64(X))), 3 * X**2)
        np.testing.assert_allclose(number(hessian(lambda x: (x**3).sum())(f64(X))), np.diag(6 * X))
        np.testing.assert_allclose(number(jvp(lambda x: x**3, (f64(X),), (T,))[1]),
                                   3 * X**2 * number(T))
        np.testing.assert_allclose(number(vmap(grad(lambda x: x**3))(f64(X))), 3 * X**2)
        assert not cr.is_grad_enabled()


# ---------------------------------------------------------------- arguments and results


def test_argnums() -> None:
    f = lambda a, b, c: (a * b.sin() * c**2).sum()
    a, b, c = (f64(X + k) for k in range(3))
    x, y, z = X, X + 1, X + 2
    assert isinstance(grad(f, (0,))(a, b, c), tuple)
    np.testing.assert_allclose(number(grad(f, 1)(a, b, c)), x * np.cos(y) * z**2)
    ga, gc = grad(f, (0, -1))(a, b, c)
    np.testing.assert_allclose(number(ga), np.sin(y) * z**2)
    np.testing.assert_allclose(number(gc), 2 * x * np.sin(y) * z)
    gc, ga = grad(f, argnums=(2, 0))(a, b, c)
    np.testing.assert_allclose(number(ga), np.sin(y) * z**2)
    blocks = hessian(f, (0, 2))(a, b, c)
    np.testing.assert_allclose(number(blocks[0][0]), np.zeros((3, 3)))
    np.testing.assert_allclose(number(blocks[0][1]), np.diag(2 * np.sin(y) * z))
    np.testing.assert_allclose(number(blocks[1][1]), np.diag(2 * x * np.sin(y)))
    for jacobian in (jacrev, jacfwd):
        ja, jb = jacobian(lambda a, b: a * b * b, (0, 1))(a, b)
        np.testing.assert_allclose(number(ja), np.diag(y**2))
        np.testing.assert_allclose(number(jb), np.diag(2 * x * y))
    with pytest.raises(GradientError, match="3 positional"):
        grad(f, 3)(a, b, c)


def test_aux() -> None:
    f = lambda x: ((x**2).sum(), {"twice": x * 2, "parts": [x.sin(), 7]})
    for answer in (grad(f, has_aux=True)(f64(X)), jacrev(lambda x: (x**2, f(x)[1]),
                   has_aux=True)(f64(X)), jacfwd(lambda x: (x**2, f(x)[1]), has_aux=True)(f64(X))):
        derivative, aux = answer
        np.testing.assert_allclose(number(derivative).sum(), 2 * X.sum())
        np.testing.assert_allclose(number(aux["twice"]), 2 * X)
        assert not aux["twice"].requires_grad
        assert aux["parts"][1] == 7
    (value, aux), derivative = value_and_grad(f, has_aux=True)(f64(X))
    assert value.item() == pytest.approx((X**2).sum())
    derivative, (value, aux) = grad_and_value(f, has_aux=True)(f64(X))
    np.testing.assert_allclose(number(derivative), 2 * X)
    _, pullback, aux = vjp(f, f64(X), has_aux=True)
    np.testing.assert_allclose(number(pullback(f64(1.0))[0]), 2 * X)
    _, dot, aux = jvp(f, (f64(X),), (T,), has_aux=True)
    np.testing.assert_allclose(number(dot), (2 * X * number(T)).sum())
    assert not aux["twice"].requires_grad


def test_trees() -> None:
    tree = {"w": [f64(X), (f64(X + 1), f64(2.0))], "b": f64(3.0)}

    def f(p: Any) -> Any:
        return (p["w"][0] * p["w"][1][0]).sum() * p["w"][1][1] + p["b"] ** 2

    g = grad(f)(tree)
    np.testing.assert_allclose(number(g["w"][0]), (X + 1) * 2)
    np.testing.assert_allclose(number(g["w"][1][1]), (X * (X + 1)).sum())
    assert g["b"].item() == 6
    dot = jvp(f, (tree,), (g,))[1]
    square = sum((number(leaf) ** 2).sum() for leaf in (g["w"][0], *g["w"][1], g["b"]))
    assert dot.item() == pytest.approx(square)
    out = jacrev(lambda p: {"y": p["a"] * p["b"], "z": [p["a"].sum()]})(
        {"a": f64(X), "b": f64(X + 1)})
    np.testing.assert_allclose(number(out["y"]["a"]), np.diag(X + 1))
    np.testing.assert_allclose(number(out["z"][0]["a"]), np.ones(3))
    np.testing.assert_allclose(number(out["z"][0]["b"]), np.zeros(3))
    out = jacfwd(lambda p: {"y": p["a"] * p["b"], "z": [p["a"].sum()]})(
        {"a": f64(X), "b": f64(X + 1)})
    np.testing.assert_allclose(number(out["y"]["b"]), np.diag(X))
    batched = vmap(lambda p: {"s": p["a"] * 2, "t": (p["b"], p["a"] + p["b"])})(
        {"a": f64(X), "b": f64(X + 1)})
    np.testing.assert_allclose(number(batched["t"][1]), 2 * X + 1)


def test_vjp_with_several_outputs() -> None:
    (a, b), pullback = vjp(lambda x: (x.sin(), x * x), f64(X))
    np.testing.assert_allclose(number(pullback((a, b))[0]), np.sin(X) * np.cos(X) + 2 * X**3)
    np.testing.assert_allclose(number(pullback(a, b)[0]), np.sin(X) * np.cos(X) + 2 * X**3)
    with pytest.raises(ShapeError):
        pullback((a,))
    with pytest.raises(ShapeError):
        vjp(lambda x: x, f64(X))[1](f64([1.0, 2.0]))
    with pytest.raises(NotScalarError, match="jacrev"):
        grad(lambda x: x)(f64(X))


# ---------------------------------------------------------------- vmap's own options

A = np.sin(np.arange(24.0)).reshape(2, 3, 4)
B = np.cos(np.arange(24.0)).reshape(3, 4, 2)


def test_in_dims_and_out_dims() -> None:
    f = lambda a, b: a @ b + a.sum()
    for da, db in itertools.product((0, 1, 2, -1), (0, 1, 2, -3, None)):
        a = np.moveaxis(A, 1, da)
        b = B[1] if db is None else np.moveaxis(B, 0, db)
        items = [(A[:, k], B[1] if db is None else B[k]) for k in range(3)]
        loop = np.stack([x @ y + x.sum() for x, y in items])
        for out in (0, 1, -1):
            found = vmap(f, in_dims=(da, db), out_dims=out)(f64(a), f64(b))
            np.testing.assert_allclose(number(found), np.moveaxis(loop, 0, out))
    two = vmap(lambda x: (x, x.sum()), in_dims=1, out_dims=(2, 0))(f64(A))
    np.testing.assert_allclose(number(two[0]), np.moveaxis(A, 1, 2))
    np.testing.assert_allclose(number(two[1]), A.sum((0, 2)))
    tree = vmap(lambda p, s: p["x"] * p["y"] * s, in_dims=({"x": 0, "y": None}, None))(
        {"x": f64(X), "y": f64(2.0)}, 3.0)
    np.testing.assert_allclose(number(tree), 6 * X)
    with pytest.raises(BatchingError, match="different sizes"):
        vmap(lambda a, b: a + b)(f64(X), f64([1.0, 2.0]))
    with pytest.raises(BatchingError, match="in_dims"):
        vmap(lambda a: a, in_dims=None)(f64(X))
    with pytest.raises(BatchingError):
        vmap(lambda a: a, in_dims=2)(f64(X))
    with pytest.raises(BatchingError, match="return tensors"):
        vmap(lambda a: 3)(f64(X))


def test_results_that_do_not_depend_on_the_batch() -> None:
    found = vmap(lambda x: (f64([1.0, 2.0]), x * 0 + 1))(f64(X))
    assert tuple(found[0].shape) == (3, 2)
    w = f64([1.0, 2.0], requires_grad=True)
    vmap(lambda x: w * 3)(f64(X)).sum().backward()
    assert number(w.grad).tolist() == [9, 9]


def test_chunks_give_the_same() -> None:
    f = lambda x: (x.sin().sum(), x * 2)
    whole = vmap(f, out_dims=(0, 1))(f64(A))
    for size in (1, 2, 5):
        parts = vmap(f, out_dims=(0, 1), chunk_size=size)(f64(A))
        for a, b in zip(parts, whole, strict=True):
            np.testing.assert_allclose(number(a), number(b))
    kwargs = vmap(lambda x, *, scale: x * scale, chunk_size=2)(f64(X), scale=2.0)
    np.testing.assert_allclose(number(kwargs), 2 * X)


def test_nested_vmap() -> None:
    found = vmap(vmap(lambda a, b: a * b, in_dims=(0, None)), in_dims=(None, 0))(f64(X), f64(X))
    np.testing.assert_allclose(number(found), np.outer(X, X))
    found = vmap(vmap(lambda a: a.sum(), in_dims=1), in_dims=2)(f64(A))
    np.testing.assert_allclose(number(found), A.sum(0).T)
    found = vmap(lambda row: vmap(lambda x: x * row.sum())(row))(f64(A[0]))
    np.testing.assert_allclose(number(found), A[0] * A[0].sum(1, keepdims=True))


def test_randomness() -> None:
    with pytest.raises(BatchingError, match="randomness"):
        vmap(lambda x: x + cr.rand(2))(f64(X))
    same = vmap(lambda x: x * 0 + cr.rand(2), randomness="same")(f64(X))
    assert len({tuple(row) for row in number(same).tolist()}) == 1
    different = vmap(lambda x: x * 0 + cr.rand(2), randomness="different")(f64(X))
    assert len({tuple(row) for row in number(different).tolist()}) == 3
    drop = vmap(lambda x: F.dropout(x * 0 + 1, 0.5), randomness="different")(cr.ones(64, 16))
    assert len({tuple(row) for row in number(drop).tolist()}) > 32
    assert set(np.unique(number(drop)).tolist()) == {0, 2}
    nested = vmap(lambda x: vmap(lambda y: y * 0 + cr.rand(()), randomness="different")(x),
                  randomness="same")(cr.ones(2, 3))
    rows = number(nested).tolist()
    assert rows[0] == rows[1]
    assert len(set(rows[0])) == 3


def test_mixed_dtypes_inside_vmap() -> None:
    """Promotion goes by the ranks of one item, as the function sees them."""
    a = cr.tensor(np.arange(3.0))                      # float64; one item has no axes
    b = cr.ones(3, 2)
    f = lambda x, y: y * x
    assert vmap(f)(a, b).dtype == f(a[0], b[0]).dtype == cr.float32
    assert vmap(lambda i: i / 2)(cr.arange(3)).dtype == cr.float32


# ---------------------------------------------------------------- modules


def network() -> cr.nn.Module:
    cr.manual_seed(3)
    return cr.nn.Sequential(cr.nn.Linear(3, 5), cr.nn.Tanh(), cr.nn.Linear(5, 2))


def test_per_sample_gradients_equal_the_loop() -> None:
    model = network()
    x, y = cr.randn(4, 3), cr.randn(4, 2)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(p: Any, one: Any, target: Any) -> Any:
        out = functional_call(model, p, (one.unsqueeze(0),))
        return F.mse_loss(out, target.unsqueeze(0))

    batched = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(4):
        for p in model.parameters():
            p.grad = None
        F.mse_loss(model(x[i:i + 1]), y[i:i + 1]).backward()
        for name, p in model.named_parameters():
            np.testing.assert_allclose(number(batched[name][i]), number(p.grad), atol=1e-6)


def test_functional_call_and_back() -> None:
    model = network()
    x = cr.randn(4, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    shifted = {name: p * 2 for name, p in before.items()}
    moved = functional_call(model, shifted, (x,))
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(number(p), number(before[name]))
    with cr.no_grad():
        for p in model.parameters():
            p.mul_(2)
    np.testing.assert_allclose(number(model(x)), number(moved), atol=1e-6)
    slopes = grad(lambda p: functional_call(model, p, (x,)).sum())(shifted)
    model(x).sum().backward()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(number(slopes[name]), number(p.grad), atol=1e-6)


def test_an_ensemble_of_models() -> None:
    models = [network() for _ in range(3)]
    for k, model in enumerate(models):
        with cr.no_grad():
            for p in model.parameters():
                p.add_(0.1 * k)
    names = [name for name, _ in models[0].named_parameters()]
    stacked = {n: cr.stack([dict(m.named_parameters())[n].detach() for m in models])
               for n in names}
    x = cr.randn(4, 3)
    found = vmap(lambda p: functional_call(models[0], p, (x,)))(stacked)
    for k, model in enumerate(models):
        np.testing.assert_allclose(number(found[k]), number(model(x)), atol=1e-6)
