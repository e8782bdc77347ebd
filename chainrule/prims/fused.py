"""Compositions that are one node on the tape, for speed and for short explanations.

Each row's `definition` is its meaning; evaluation and pulls are checked against it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.errors import DtypeError, ShapeError
from chainrule.core.kinds import composite, general, moved
from chainrule.core.types import ArrayType, int64

from . import show, special
from .contract import matmul
from .elementwise import cast, eq, exp, isinf, keep, log, ne, sqrt, stop_gradient, where, zeros_like
from .index import check_range, gather
from .reduce import amax
from .shape import broadcast, permute, reshape, sum_, sum_to, sum_type, unsum

# ---------------------------------------------------------------- mean, variance, log-sum-exp


def count(shape: Any, axes: tuple[int, ...]) -> int:
    """How many elements a reduction over `axes` takes together."""
    n = 1
    for axis in axes:
        n *= shape[axis]
    return n


def _mean(x: Any, axes: tuple[int, ...]) -> Any:
    n = count(x.shape, axes)
    return sum_(x, axes=axes) / n if n else sum_(x, axes=axes) + float("nan")


def _mean_eval(x: Any, axes: tuple[int, ...]) -> Any:
    dtype = x.dtype
    if dtype.itemsize == 2:                    # a sum of float16 would overflow at 65504
        return np.add.reduce(x, axes, dtype="f4").__truediv__(count(x.shape, axes)).astype(dtype)
    total = np.add.reduce(x, axes, dtype=dtype) if axes else x
    return np.divide(total, dtype.type(count(x.shape, axes)))


mean = composite("mean", definition=_mean, public="", eval=_mean_eval,
    infer=sum_type, pulls=(lambda g, y, x, axes: unsum(g / count(x.shape, axes), x, axes),),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axes": (0,)}),
                         ((rng.normal(size=(2, 3)),), {"axes": (0, 1)})],
    show=lambda a, axes: (f"mean({a[0]})", 9), doc="The arithmetic mean over the given axes.")


def _centred(x: Any, axes: tuple[int, ...]) -> Any:
    return x - unsum(mean(x, axes=axes), x, axes)


def _divisor(x: Any, axes: tuple[int, ...], correction: float) -> float:
    return max(count(x.shape, axes) - correction, 0.0)


def _var(x: Any, axes: tuple[int, ...], correction: float) -> Any:
    c = _centred(x, axes)
    n = _divisor(x, axes, correction)
    return sum_(c * c, axes=axes) / n


def _var_pull(g: Any, y: Any, x: Any, axes: tuple[int, ...], correction: float) -> Any:
    return unsum(g, x, axes) * (_centred(x, axes) * (2 * _inverse(x, axes, correction)))


def _inverse(x: Any, axes: tuple[int, ...], correction: float) -> float:
    n = count(x.shape, axes) - correction
    return 1 / n if n else float("inf")


var = composite("var", definition=_var, pulls=(_var_pull,), public="",
    infer=lambda a, axes, correction: sum_type(a, axes),
    eval=lambda x, axes, correction: np.asarray(_var(x, axes, correction), x.dtype),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axes": (1,), "correction": 1}),
                         ((rng.normal(size=(2, 3)),), {"axes": (0, 1), "correction": 0})],
    show=lambda a, axes, correction: (f"var({a[0]})", 9),
    doc="The mean squared distance from the mean, divided by n − correction.")


def _std(x: Any, axes: tuple[int, ...], correction: float) -> Any:
    v = var(x, axes=axes, correction=correction)
    still = eq(v, 0)
    return where(still, zeros_like(v), sqrt(where(still, zeros_like(v) + 1.0, v)))


def _std_pull(g: Any, y: Any, x: Any, axes: tuple[int, ...], correction: float) -> Any:
    still = eq(y, 0)
    slope = where(still, zeros_like(y), g / where(still, zeros_like(y) + 1.0, y))
    return unsum(slope, x, axes) * (_centred(x, axes) * _inverse(x, axes, correction))


std = composite("std", definition=_std, pulls=(_std_pull,), public="",
    infer=lambda a, axes, correction: sum_type(a, axes),
    eval=lambda x, axes, correction: np.sqrt(np.asarray(_var(x, axes, correction), x.dtype)),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axes": (1,), "correction": 1}),
                         ((rng.normal(size=(2, 3)),), {"axes": (0, 1), "correction": 0})],
    show=lambda a, axes, correction: (f"std({a[0]})", 9),
    doc="The square root of the variance; its derivative where it is 0 is taken as 0.")


def _safe_top(x: Any, axes: tuple[int, ...]) -> Any:
    """The maximum as a constant, with 0 in place of ±∞ so that x − top is never ∞ − ∞."""
    top = stop_gradient(amax(x, axes=axes))
    return where(isinf(top), zeros_like(top), top)


def _logsumexp(x: Any, axes: tuple[int, ...]) -> Any:
    top = _safe_top(x, axes)
    return log(sum_(exp(x - unsum(top, x, axes)), axes=axes)) + top


logsumexp = composite("logsumexp", definition=_logsumexp, public="", infer=sum_type,
    pulls=(lambda g, y, x, axes: unsum(g, x, axes) * exp(x - unsum(y, x, axes)),),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axes": (1,)}),
                         ((rng.normal(size=(2, 3)),), {"axes": (0, 1)})],
    show=lambda a, axes: (f"log Σ exp({a[0]})", 9), doc="log Σ exp(x), stable for large |x|.")

# ---------------------------------------------------------------- softmax


def _softmax(x: Any, axis: int) -> Any:
    e = exp(x - unsum(_safe_top(x, (axis,)), x, (axis,)))
    return e / unsum(sum_(e, axes=(axis,)), x, (axis,))


def softmax_eval(x: Any, axis: int) -> Any:
    e = x - np.maximum.reduce(x, axis, keepdims=True, initial=-np.inf)
    np.exp(e, out=e)
    e /= np.add.reduce(e, axis, keepdims=True)
    return e


def _softmax_pull(g: Any, y: Any, x: Any, axis: int) -> Any:
    inner = sum_(g * y, axes=(axis,))
    return y * (g - unsum(inner, y, (axis,)))


def along_rows(rng: Any) -> Any:
    return [((rng.normal(size=(2, 3)),), {"axis": 1}), ((rng.normal(size=(2, 3, 2)),), {"axis": 0})]


softmax = composite("softmax", definition=_softmax, eval=softmax_eval, pulls=(_softmax_pull,),
    infer=lambda a, axis: a, samples=along_rows,
    show=lambda a, axis: (f"softmax({a[0]})", 9), doc="exp(x)/Σ exp(x) along an axis.")


def _log_softmax_eval(x: Any, axis: int) -> Any:
    y = x - np.maximum.reduce(x, axis, keepdims=True, initial=-np.inf)
    y -= np.log(np.add.reduce(np.exp(y), axis, keepdims=True))
    return y


log_softmax = composite("log_softmax", eval=_log_softmax_eval, infer=lambda a, axis: a,
    definition=lambda x, axis: x - unsum(logsumexp(x, axes=(axis,)), x, (axis,)),
    pulls=(lambda g, y, x, axis: g - exp(y) * unsum(sum_(g, axes=(axis,)), y, (axis,)),),
    samples=along_rows,
    show=lambda a, axis: (f"log softmax({a[0]})", 9), doc="log(exp(x)/Σ exp(x)) along an axis.")

# ---------------------------------------------------------------- linear


def rows(x: Any) -> Any:
    """x as a matrix: all leading axes taken together."""
    if len(x.shape) == 2:
        return x
    return reshape(x, shape=(count(x.shape, tuple(range(len(x.shape) - 1))), x.shape[-1]))


def _linear_type(x: ArrayType, w: ArrayType, b: ArrayType | None = None) -> ArrayType:
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"linear: the input is {x} and the weight {w}: the input's last size must "
                         f"be the weight's last size {w.shape[-1] if w.shape else 'none'}")
    if x.dtype != w.dtype or (b is not None and b.dtype != x.dtype):
        shown = ", ".join(str(t) for t in (x, w, b) if t is not None)
        raise DtypeError(f"linear: input, weight and bias must have one dtype, got {shown}; "
                         "convert the input with .to(dtype)")
    if b is not None and b.shape not in ((w.shape[0],), (1,), ()):
        raise ShapeError(f"linear: the bias {b} does not fit the weight {w}: it must have "
                         f"{w.shape[0]} elements")
    return ArrayType((*x.shape[:-1], w.shape[0]), x.dtype)


def _linear(x: Any, w: Any, b: Any = None) -> Any:
    y = matmul(rows(x), permute(w, order=(1, 0)))
    if len(x.shape) != 2:
        y = reshape(y, shape=(*x.shape[:-1], w.shape[0]))
    return y if b is None else y + broadcast(b, shape=tuple(y.shape))


def _linear_eval(x: Any, w: Any, b: Any = None) -> Any:
    if x.dtype is not w.dtype and x.dtype != w.dtype:
        raise TypeError("dtypes differ")
    # dot of more than two axes does not reach the BLAS; a small transposed copy beats its wᵀ.
    flat = x if x.ndim <= 2 else x.reshape(-1, x.shape[-1])
    y = flat.dot(w.T.copy() if 1024 <= w.size <= 8192 else w.T)
    if x.ndim > 2:
        y = y.reshape(*x.shape[:-1], w.shape[0])
    if b is not None:
        if (b.dtype is not y.dtype and b.dtype != y.dtype) or b.ndim > 1:
            raise TypeError("dtypes or shapes differ")
        y += b
    return y


def _linear_bias(g: Any, y: Any, x: Any, w: Any, b: Any = None) -> Any:
    if b.shape == g.shape[-1:] and g.ndim > 1:
        return special.sum_rows(g if g.ndim == 2 else rows(g))
    return sum_to(g, tuple(b.shape))


def _linear_input_fast(g: Any, y: Any, x: Any, w: Any, b: Any = None) -> Any:
    if g.ndim == 2:
        return g.dot(w)
    return rows(g).dot(w).reshape(*g.shape[:-1], w.shape[1])


def _linear_input(g: Any, y: Any, x: Any, w: Any, b: Any = None) -> Any:
    flat = matmul(rows(g), w)
    return flat if len(g.shape) == 2 else reshape(flat, shape=(*g.shape[:-1], w.shape[1]))


linear = composite("linear", definition=_linear, eval=_linear_eval, infer=_linear_type,
    pulls=(_linear_input,
           lambda g, y, x, w, b=None: rows(g).mT @ rows(x),
           lambda g, y, x, w, b: sum_to(g, tuple(b.shape))),
    fast_pulls=(_linear_input_fast,
                lambda g, y, x, w, b=None: g.T.dot(x) if g.ndim == 2 else rows(g).T.dot(rows(x)),
                _linear_bias),
    samples=lambda rng: [
        ((rng.normal(size=(2, 3)), rng.normal(size=(4, 3)), rng.normal(size=4)), {}),
        ((rng.normal(size=(2, 5, 3)), rng.normal(size=(4, 3)), rng.normal(size=4)), {}),
        ((rng.normal(size=3), rng.normal(size=(4, 3)), rng.normal(size=4)), {}),
        ((rng.normal(size=(2, 3)), rng.normal(size=(4, 3))), {}),
        ((rng.normal(size=(2, 5, 3)), rng.normal(size=(4, 3))), {})],
    arguments=("input", "weight", "bias"), public="_linear",
    show=lambda x, w, b=None, **_: (
        f"{show.bracket(*x, 2)} @ {show.bracket(*w, 9)}ᵀ" + (f" + {b[0]}" if b else ""),
        1 if b else 2),
    doc="x Wᵀ + b over the last axis of x.")

# ---------------------------------------------------------------- losses


def _mse(x: Any, t: Any) -> Any:
    d = x - t
    return mean(d * d, axes=tuple(range(len(x.shape))))


def _mse_eval(x: Any, t: Any) -> Any:
    if x.shape != t.shape or x.dtype != t.dtype:
        raise ValueError("shapes or dtypes differ")
    d = np.subtract(x, t).ravel()
    return np.asarray(d.dot(d) / d.dtype.type(d.size))


def _mse_type(x: ArrayType, t: ArrayType) -> ArrayType:
    if x != t:
        raise ShapeError(f"mse_mean: input {x} and target {t} must have one shape and dtype")
    return ArrayType((), x.dtype)


def _mse_pull(g: Any, y: Any, x: Any, t: Any) -> Any:
    n = count(x.shape, tuple(range(len(x.shape))))
    return (x - t) * (g * (2 / n if n else float("nan")))


def _mse_fast(g: Any, y: Any, x: Any, t: Any) -> Any:
    d = np.subtract(x, t)
    return np.multiply(d, g * d.dtype.type(2 / max(d.size, 1)), d) if d.ndim else d * (g * 2)


mse_mean = composite("mse_mean", definition=_mse, eval=_mse_eval, infer=_mse_type,
    fast_pulls=(_mse_fast, None),
    pulls=(_mse_pull, lambda g, y, x, t: _mse_pull(-g, y, x, t)),
    samples=lambda rng: [((rng.normal(size=s), rng.normal(size=s)), {}) for s in ((3,), (2, 3))],
    arguments=("input", "target"), public="_mse_mean",
    show=lambda a, b: (f"mean(({a[0]} − {show.bracket(*b, 2)})²)", 9),
    doc="The mean of (input − target)².")


def _one_hot_lower(e: Any, t: Any, classes: int, dtype: Any) -> Any:
    shape = (*t.shape, classes)
    here = e.broadcast(e.reshape(t, (*t.shape, 1)), shape)
    return e.cast(eq(e.cast(here, int64), e.count(shape, len(shape) - 1)), dtype)


one_hot = general("one_hot", pulls=(None,), jvp=None, public="",
    eval=lambda t, classes, dtype: (t[..., None] == np.arange(classes)).astype(dtype),
    infer=lambda t, classes, dtype: ArrayType((*t.shape, classes), np.dtype(dtype)),
    batch=lambda xs, ax, classes, dtype: (
        one_hot(moved(xs[0], ax[0] or 0), classes=classes, dtype=dtype), 0),
    samples=lambda rng: [((rng.integers(0, 3, 4),), {"classes": 3, "dtype": np.dtype("f8")}),
                         ((rng.integers(0, 2, (2, 3)),), {"classes": 2, "dtype": np.dtype("f4")})],
    lower=_one_hot_lower, show=lambda t, classes, dtype: (f"onehot({t[0]})", 9),
    doc="1 at the class that t names, else 0, along a new last axis.")


def _cross_entropy(x: Any, t: Any) -> Any:
    n = x.shape[0]
    picked = gather(log_softmax(x, axis=1), reshape(t, shape=(n, 1)), axis=1)
    return -mean(reshape(picked, shape=(n,)), axes=(0,))


def _cross_entropy_eval(x: Any, t: Any) -> Any:
    if t.shape != x.shape[:1] or t.dtype.kind not in "iu":
        raise ValueError("shapes or dtypes do not fit")
    n, classes = x.shape
    # As unsigned numbers negative classes are huge, so that one look finds both ends.
    if t.dtype != np.int64 or (n and t.view(np.uint64).max() >= classes):
        check_range("cross_entropy", t, classes, 1)
    shifted = x - np.maximum.reduce(x, 1)[:, None] if n else x.copy()
    own = shifted[special.counting(n), t]
    np.exp(shifted, shifted)
    losses = np.log(np.add.reduce(shifted, 1))
    losses -= own
    return np.asarray(np.add.reduce(losses) / x.dtype.type(n))


def _cross_entropy_type(x: ArrayType, t: ArrayType) -> ArrayType:
    if x.ndim != 2 or t.shape != x.shape[:1] or t.dtype.kind not in "iu":
        raise ShapeError(f"cross_entropy: the input must be (N, C) scores and the target N class "
                         f"numbers as int64, got {x} and {t}")
    return ArrayType((), x.dtype)


def _cross_entropy_pull(g: Any, y: Any, x: Any, t: Any) -> Any:
    return (softmax(x, axis=1) - one_hot(t, classes=x.shape[1], dtype=x.dtype)) * (g / x.shape[0])


def _cross_entropy_fast(g: Any, y: Any, x: Any, t: Any) -> Any:
    n = x.shape[0]
    p = x - np.maximum.reduce(x, 1)[:, None] if n else x.copy()
    np.exp(p, p)
    p /= np.add.reduce(p, 1)[:, None]
    p[special.counting(n), t] -= p.dtype.type(1)
    return np.multiply(p, g / p.dtype.type(n), p)


cross_entropy_mean = composite("cross_entropy_mean", definition=_cross_entropy,
    fast_pulls=(_cross_entropy_fast, None),
    eval=_cross_entropy_eval, infer=_cross_entropy_type, pulls=(_cross_entropy_pull, None),
    samples=lambda rng: [((rng.normal(size=(4, 3)), rng.integers(0, 3, 4)), {})],
    arguments=("input", "target"), public="_cross_entropy_mean",
    show=lambda a, b: (f"cross_entropy({a[0]}, {b[0]})", 9),
    doc="The mean over N of −log softmax(x)[target].")



def _counted(x: Any, t: Any, ignore: int) -> Any:
    """Which targets count, and how many they are."""
    valid = ne(t, ignore)
    return valid, sum_(cast(valid, dtype=x.dtype), axes=(0,))


def _ignoring(x: Any, t: Any, ignore: int) -> Any:
    n = x.shape[0]
    valid, count_ = _counted(x, t, ignore)
    place = reshape(where(valid, t, zeros_like(t)), shape=(n, 1))
    picked = reshape(gather(log_softmax(x, axis=1), place, axis=1), shape=(n,))
    return -(sum_(keep(picked, valid), axes=(0,)) / count_)


def _ignoring_pull(g: Any, y: Any, x: Any, t: Any, ignore: int) -> Any:
    valid, count_ = _counted(x, t, ignore)
    shape = tuple(x.shape)
    slope = softmax(x, axis=1) - one_hot(t, classes=shape[1], dtype=x.dtype)
    mask = broadcast(reshape(valid, shape=(shape[0], 1)), shape=shape)
    return keep(slope, mask) * (g / count_)


cross_entropy_ignoring = composite("cross_entropy_ignoring", definition=_ignoring,
    infer=lambda x, t, ignore: _cross_entropy_type(x, t), pulls=(_ignoring_pull, None),
    samples=lambda rng: [((rng.normal(size=(4, 3)), np.array([2, -100, 0, 1])), {"ignore": -100})],
    arguments=("input", "target"), public="_cross_entropy_ignoring", options={"ignore": -100},
    show=lambda a, b, ignore: (f"cross_entropy({a[0]}, {b[0]})", 9),
    doc="The mean of −log softmax(x)[target] over the targets that are not `ignore`.")

# ---------------------------------------------------------------- layer normalisation


def _normalised(x: Any, eps: float) -> Any:
    last = (len(x.shape) - 1,)
    spread = var(x, axes=last, correction=0)
    return _centred(x, last) / unsum(sqrt(spread + eps), x, last)


def _layer_norm(x: Any, w: Any, b: Any, eps: float) -> Any:
    shape = tuple(x.shape)
    return _normalised(x, eps) * broadcast(w, shape=shape) + broadcast(b, shape=shape)


def _layer_norm_eval(x: Any, w: Any, b: Any, eps: float) -> Any:
    n = x.dtype.type(x.shape[-1])
    c = x - np.add.reduce(x, -1, keepdims=True) / n
    c /= np.sqrt(np.add.reduce(c * c, -1, keepdims=True) / n + x.dtype.type(eps))
    c *= w
    c += b
    return c


def _layer_norm_type(x: ArrayType, w: ArrayType, b: ArrayType, eps: float) -> ArrayType:
    if w.shape != x.shape[-1:] or b.shape != x.shape[-1:]:
        raise ShapeError(f"layer_norm: the input is {x}, so weight and bias must be "
                         f"[{x.shape[-1] if x.shape else ''}], got {w} and {b}")
    return x


def _layer_norm_input(g: Any, y: Any, x: Any, w: Any, b: Any, eps: float) -> Any:
    """(gw − mean(gw) − x̂·mean(gw·x̂))/σ with gw = g·w."""
    last = (len(x.shape) - 1,)
    scale = sqrt(var(x, axes=last, correction=0) + eps)
    hat = _centred(x, last) / unsum(scale, x, last)
    gw = g * broadcast(w, shape=tuple(x.shape))
    inner = unsum(mean(gw * hat, axes=last), x, last)
    return (gw - unsum(mean(gw, axes=last), x, last) - hat * inner) / unsum(scale, x, last)


layer_norm = composite("layer_norm", definition=_layer_norm, eval=_layer_norm_eval,
    infer=_layer_norm_type, options={"eps": 1e-5},
    pulls=(_layer_norm_input,
           lambda g, y, x, w, b, eps: sum_to(g * _normalised(x, eps), tuple(w.shape)),
           lambda g, y, x, w, b, eps: sum_to(g, tuple(b.shape))),
    samples=lambda rng: [((rng.normal(size=(2, 4)), rng.normal(size=4), rng.normal(size=4)),
                          {"eps": 1e-5}),
                         ((rng.normal(size=(2, 3, 4)), rng.normal(size=4), rng.normal(size=4)),
                          {"eps": 1e-3})],
    arguments=("input", "weight", "bias"), public="_layer_norm",
    show=lambda x, w, b, eps: (f"layer_norm({x[0]})", 9),
    doc="(x − mean)/√(var + eps)·w + b over the last axis.")
