"""Writes in place: what they do to values, to views, to gradients, and when they are refused."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.errors import (
    DtypeError,
    GradientError,
    InPlaceError,
    OverwrittenError,
    ShapeError,
)

# Each is run by chainrule and, where it is installed, by PyTorch: x is a leaf of shape (3, 4), w
# one of shape (4,), both float64. The gradients of the sum of (y * weights) by x and w must agree
# with centred differences and with PyTorch.
PROGRAMS = {
    "chain": "y = x * 1; y.mul_(w); y.add_(x); y.sin_()",
    "augmented": "y = x * 2; y += w; y *= x; y -= 1; y /= 3",
    "row": "y = x * 1; y[1] = w",
    "row added": "y = x * 1; y[1] += w",
    "column": "y = x * 1; y[:, 2] = w[:3]",
    "element": "y = x * 1; y[0, 0] = w[0] * w[1]",
    "number": "y = x * x; y[1:, ::2] = 3.0",
    "mask": "y = x * 1; y[x > 0] = 0.5",
    "mask with values": "y = x * 1; m = y[0] > -9; y[:, m] = w * x",
    "list": "y = x * 1; y[[0, 2]] = w",
    "list added": "y = x * 1; y[[0, 2]] += w * x[0]",
    "points": "y = x * 1; y[[0, 1, 2], [3, 1, 0]] = w[:3] ** 2",
    "write through a view": "y = x * 1; v = y[1:]; v.mul_(w); v.mul_(2)",
    "view of a view": "y = x * 1; v = y[1:]; u = v[:, ::2]; u.mul_(w[:2]); u[0] = 2",
    "view sees the base": "z = x * 1; v = z[0]; z.mul_(w); y = v * x",
    "sibling views": "z = x * 1; v = z[0]; u = z[:, 1]; v.mul_(w); y = u.reshape(3, 1) * x",
    "transposed": "z = x * 1; v = z.T; v.mul_(w.reshape(4, 1)); v[2] = 1; y = z * x",
    "reshaped": "z = x * 1; v = z.reshape(-1); v[::5] = w[:3]; y = z * x",
    "unsqueezed": "z = x * 1; v = z.unsqueeze(0); v.mul_(w); y = z + v.squeeze(0)",
    "expanded view read": "z = w * 1; v = z.expand(3, 4); z.mul_(2); y = v * x",
    "diagonal write": "z = x * 1; z[:, :3].diagonal().mul_(w[:3]); y = z * x",
    "constant becomes tracked": "y = x.detach() * 0; y[0] = w; y[1:] += x[1:]",
    "constant base, view tracked": "z = x.detach() * 0; v = z[1]; v.add_(w); y = z * x",
    "fill and zero": "y = x * 2; y[0].fill_(3); y[1].zero_(); y[2].copy_(w)",
    "no_grad": "y = x * 2; lib.set_grad_enabled(False); y.mul_(3); lib.set_grad_enabled(True)",
    "self": "y = x * 1; y.add_(y); y[0].add_(y[1])",
    "clone is apart": "z = x * 1; c = z.clone(); z.mul_(w); y = z * c",
    "detach is cut": "z = x * 1; d = z.detach().clone(); z.mul_(w); y = z * d",
    "index_add_": "y = x * 1; y.index_add_(0, lib.tensor([0, 2, 0]), x * w)",
    "scatter_add_": "y = x * 1; y.scatter_add_(1, lib.tensor([[0, 1], [2, 2], [3, 0]]), x[:, :2])",
    "scatter_": "y = x * 1; y.scatter_(1, lib.tensor([[0], [2], [3]]), w[:3].reshape(3, 1))",
    "masked_fill_": "y = x * w; y.masked_fill_(x > 0.2, 2.0)",
    "clamp_": "y = x * w; y.clamp_(-0.4, 0.5)",
    "cumsum_": "y = x * w; y.cumsum_(1)",
    "exp_ after use": "z = x * w; a = z + 1; z.exp_(); y = a * z",
    "many writes": "y = x * 1\nfor i in range(12): y[i % 3].mul_(w); y[:, i % 4].sin_()",
    "split": "z = x * 1; a, b = z[:, :2], z[:, 2:]; a.add_(b).mul_(w[:2]); y = z * x",
    "repeated points": "y = x * 1; y[[0, 0, 1]] = (w * x)",
}
REFUSED = ("y = x * 1; y.mul_(y)", "y = x * 1; y[1:].mul_(y[:1])",
           "y = x * 1; z = y.sin(); y[0] = 1; y = y + z",
           "z = x * 1; a, b = z[:, :2], z[:, 2:]; a.mul_(b); y = z * x")
X = np.linspace(-1.1, 1.3, 12).reshape(3, 4)
W = np.array([0.7, -0.4, 1.2, 0.9])
WEIGHTS = np.cos(np.arange(12.0)).reshape(3, 4)


def run(lib: Any, source: str, x: Any, w: Any) -> Any:
    env = {"lib": lib, "x": x, "w": w}
    exec(source.replace("; ", "\n") if "for " not in source else source, env)
    return env["y"]


def gradients(lib: Any, source: str) -> tuple[Any, list[np.ndarray]]:
    x, w = lib.tensor(X, requires_grad=True), lib.tensor(W, requires_grad=True)
    y = run(lib, source, x, w)
    (y * lib.tensor(WEIGHTS)).sum().backward()
    return y.detach().numpy(), [np.zeros(t.shape) if t.grad is None else t.grad.numpy()
                                for t in (x, w)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_against_differences(name: str) -> None:
    source = PROGRAMS[name]
    if name in ("no_grad", "constant becomes tracked", "constant base, view tracked",
                "detach is cut"):
        pytest.skip("differences do not see what is cut from the graph on purpose")
    _, found = gradients(cr, source)
    for k, array in enumerate((X, W)):
        wanted = np.zeros(array.shape)
        for i in range(array.size):
            sums = []
            for step in (1e-6, -1e-6):
                moved = array.copy()
                moved.flat[i] += step
                x, w = (cr.tensor(moved if k == j else other) for j, other in enumerate((X, W)))
                sums.append(float((run(cr, source, x, w).numpy() * WEIGHTS).sum()))
            wanted.flat[i] = (sums[0] - sums[1]) / 2e-6
        np.testing.assert_allclose(found[k], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("source", REFUSED)
def test_what_needs_an_overwritten_value_is_refused(source: str) -> None:
    with pytest.raises(OverwrittenError):
        gradients(cr, source)
    if importlib.util.find_spec("torch") is not None:
        with pytest.raises(RuntimeError):
            gradients(importlib.import_module("torch"), source)


# PyTorch gives the gradient to overwritten writes as well.
DIFFERENT = ("repeated points",)


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in DIFFERENT])
def test_against_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    source = PROGRAMS[name]
    if not hasattr(torch.Tensor, name.split()[0]) and name.endswith("_"):
        pytest.skip("not in PyTorch")
    y, found = gradients(cr, source)
    theirs, wanted = gradients(torch, source)
    np.testing.assert_allclose(y, theirs, rtol=1e-12)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [n for n, s in PROGRAMS.items() if not any(
    word in s for word in ("x > 0", "y[0] >", "set_grad"))])
def test_under_vmap_and_grad(name: str) -> None:
    """The same program for a batch at once gives the rows of the loop, or refuses by name."""
    source = PROGRAMS[name]

    def f(x: Any, w: Any) -> Any:
        return (run(cr, source, x, w) * cr.tensor(WEIGHTS)).sum()

    xs, ws = np.stack([X, X * 0.5, -X]), np.stack([W, W + 0.1, W * 2])
    slope = cr.func.grad(f, (0, 1))
    try:
        found = cr.func.vmap(slope)(cr.tensor(xs), cr.tensor(ws))
        values = cr.func.vmap(f)(cr.tensor(xs), cr.tensor(ws))
    except InPlaceError as error:
        if "clone()" not in str(error):
            raise
        return
    for k in range(3):
        x, w = cr.tensor(xs[k], requires_grad=True), cr.tensor(ws[k], requires_grad=True)
        loss = f(x, w)
        loss.backward()
        np.testing.assert_allclose(values[k].item(), loss.item(), rtol=1e-10)
        for g, t in zip(found, (x, w), strict=True):
            wanted = np.zeros(t.shape) if t.grad is None else t.grad.numpy()
            np.testing.assert_allclose(g[k].numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_reshape_that_may_be_a_copy_is_refused_under_vmap() -> None:
    def f(x: Any) -> Any:
        y = x.T
        y.reshape(-1)
        v = y.reshape(-1)
        v.mul_(2)
        return x + y

    with pytest.raises(InPlaceError, match=r"clone\(\)"):
        cr.func.vmap(f)(cr.ones(2, 3, 3))


def test_vmap_writes_into_its_argument() -> None:
    x = cr.ones(2, 3)
    cr.func.vmap(lambda t: t.mul_(2).sum())(x)
    assert x.tolist() == [[2, 2, 2], [2, 2, 2]]
    y = cr.ones(3, 2)
    assert cr.func.vmap(lambda t: t[:1].zero_().sum() + t.sum(), in_dims=1)(y).tolist() == [2, 2]
    assert y[0].tolist() == [0, 0]


def test_identity_and_dtype() -> None:
    x = cr.ones(3)
    assert x.add_(1) is x
    y = x
    y += 1
    assert y is x
    assert x.tolist() == [3, 3, 3]
    i = cr.arange(3)
    i += 2
    assert i.dtype == cr.int64
    with pytest.raises(DtypeError):
        i.mul_(0.5)
    with pytest.raises(ShapeError):
        cr.ones(1).add_(cr.ones(3))
    with pytest.raises(ShapeError):
        x[:2] = cr.ones(3)
    h = cr.ones(2)
    h.add_(cr.ones(2).double())
    assert h.dtype == cr.float32


def test_refusals() -> None:
    leaf = cr.ones(3, requires_grad=True)
    for act in (lambda: leaf.add_(1), lambda: leaf.__setitem__(0, 1.0), lambda: leaf[1:].zero_(),
                lambda: leaf.reshape(3, 1).mul_(2), lambda: leaf.data is None or leaf.exp_()):
        with pytest.raises(InPlaceError):
            act()
    with pytest.raises(InPlaceError, match="expanded"):
        cr.ones(1).expand(4).mul_(2)
    frozen = np.ones(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(InPlaceError, match="read-only"):
        cr.from_numpy(frozen).mul_(2)
    assert leaf.tolist() == [1, 1, 1]


def test_a_failed_write_changes_nothing() -> None:
    x = cr.ones(3, requires_grad=True) * 2
    node = x.grad_fn
    for act in (lambda: x.add_(cr.ones(5)), lambda: x.__setitem__(slice(0, 2), cr.ones(3)),
                lambda: x.__setitem__(7, 1.0), lambda: x.expand(2, 3).mul_(2)):
        with pytest.raises((ValueError, IndexError, GradientError)):
            act()
    assert x.tolist() == [2, 2, 2]
    assert x.grad_fn is node


def test_versions_count_writes_of_the_memory() -> None:
    x = cr.ones(4)
    v = x[1:]
    before = x._version
    v.add_(1)
    x[0] = 5
    assert x._version == v._version == before + 2
    assert x.clone()._version == 0


def test_a_write_between_two_backwards() -> None:
    w = cr.ones(3, requires_grad=True)
    y = w * w
    z = (y * 2).sum()
    y.add_(1)
    z.backward()
    assert w.grad.tolist() == [4, 4, 4]
    u = (w * y).sum()
    y.zero_()
    with pytest.raises(OverwrittenError):
        u.backward()
    assert w.grad.tolist() == [4, 4, 4]


def test_hooks_and_retained_gradients_follow_the_handle() -> None:
    w = cr.ones(3, requires_grad=True)
    y = w * 2
    y.mul_(3)
    y.retain_grad()
    seen: list[Any] = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y * cr.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert y.grad.tolist() == [1, 2, 3]
    assert seen == [[1, 2, 3]]
    assert w.grad.tolist() == [6, 12, 18]


def test_second_derivatives_through_writes() -> None:
    x = cr.tensor(X, requires_grad=True)
    y = x * 1
    y[1].mul_(x[0])
    y[:, 0] = x[:, 1] ** 3
    (g,) = cr.autograd.grad((y * y).sum(), x, create_graph=True)
    (h,) = cr.autograd.grad((g * cr.tensor(WEIGHTS)).sum(), x)

    def slope(at: np.ndarray) -> np.ndarray:
        t = cr.tensor(at, requires_grad=True)
        z = t * 1
        z[1].mul_(t[0])
        z[:, 0] = t[:, 1] ** 3
        (z * z).sum().backward()
        return np.asarray(t.grad.numpy())

    wanted = np.zeros(X.shape)
    for i in range(X.size):
        step = np.zeros(X.shape)
        step.flat[i] = 1e-6
        wanted.flat[i] = ((slope(X + step) - slope(X - step)) * WEIGHTS).sum() / 2e-6
    np.testing.assert_allclose(h.numpy(), wanted, rtol=1e-6, atol=1e-6)


def test_torch_is_compared_where_it_is_installed() -> None:
    assert importlib.util.find_spec("torch") is None or len(PROGRAMS) >= 35
