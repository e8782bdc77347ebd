"""Rows that reduce or order along axes and are not linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import ShapeError
from chainrule.core.kinds import composite, fronted, general, moved
from chainrule.core.types import ArrayType, bool_, int64

from . import show
from .elementwise import eq, identity, isnan, logaddexp, maximum
from .shape import concatenate, shifted, slice_, sum_, sum_type, unsum

Axes = Sequence[int | None]


def _nonempty(name: str, a: ArrayType, axes: tuple[int, ...]) -> None:
    if any(a.shape[i] == 0 for i in axes):
        raise ShapeError(f"{name}: {a} has no elements along axis {axes[0]}, and nothing has no "
                         f"{name}. Check for empty input first.")


def _extreme_type(name: str) -> Any:
    def infer(a: ArrayType, axes: tuple[int, ...]) -> ArrayType:
        _nonempty(name, a, axes)
        return sum_type(a, axes)
    return infer


def _ties(x: Any, y: Any, axes: tuple[int, ...]) -> Any:
    spread = np.expand_dims(y, axes)
    hit = ((x == spread) | ((x != x) & (spread != spread))).astype(x.dtype)
    return hit / np.maximum(np.add.reduce(hit, axes, keepdims=True), 1)


def _ties_lower(e: Any, x: Any, y: Any, axes: tuple[int, ...]) -> Any:
    spread = unsum(y, x, axes)
    hit = e.cast(eq(x, spread) | (isnan(x) & isnan(spread)), x.dtype)
    return hit / unsum(maximum(e.reduce("sum", hit, axes), 1), x, axes)


def _ties_samples(rng: Any) -> Any:
    x, tied = rng.normal(size=(2, 3)), np.array([[1.0, 2.0, 2.0], [0.5, 0.5, 0.5]])
    return [((x, x.max(1)), {"axes": (1,)}), ((tied, tied.max(1)), {"axes": (1,)}),
            ((x, x.min()), {"axes": (0, 1)})]


ties = general("ties", eval=_ties, infer=lambda x, y, axes: x, pulls=(None, None), jvp=None,
    batch=lambda xs, ax, axes: (
        ties(*fronted(xs, ax), axes=shifted(axes)), 0),
    samples=_ties_samples, arguments=("input", "extreme"),
    lower=_ties_lower, show=lambda x, y, axes: (f"ties({x[0]} = {y[0]})", 9),
    doc="1/ties at each place that attains the extreme, else 0; a NaN belongs to the NaNs.")


def _extreme(name: str, eval: Any, word: str) -> Any:
    row = general(name, eval=eval, infer=_extreme_type(name), public="",
        pulls=(lambda g, y, x, axes: unsum(g, x, axes) * ties(x, y, axes=axes),),
        jvp=lambda ts, y, x, axes: sum_(ts[0] * ties(x, y, axes=axes), axes=axes),
        batch=lambda xs, ax, axes: (
            row(moved(xs[0], ax[0] or 0), axes=shifted(axes)), 0),
        samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axes": (1,)}),
                             ((rng.normal(size=(2, 3)),), {"axes": (0, 1)}),
                             ((rng.normal(size=(2, 3, 2)),), {"axes": (1,)})],
        lower=lambda e, x, axes: e.reduce(word, x, axes),
        show=lambda a, axes: (f"{word}({a[0]})", 9),
        kinks=lambda x, axes: x == np.expand_dims(eval(x, axes), axes),
        doc=f"The {word} over the given axes; ties share the gradient equally.")
    return row


amax = _extreme("amax", lambda x, axes: np.maximum.reduce(x, axes), "max")
amin = _extreme("amin", lambda x, axes: np.minimum.reduce(x, axes), "min")


def _positions(name: str, eval: Any, word: str) -> Any:
    def infer(a: ArrayType, axis: int) -> ArrayType:
        _nonempty(name, a, (axis,))
        return ArrayType(sum_type(a, (axis,)).shape, int64)
    row = general(name, eval=eval, infer=infer, pulls=(None,), jvp=None, public="",
        batch=lambda xs, ax, axis: (row(moved(xs[0], ax[0] or 0), axis=axis + 1), 0),
        samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axis": 1}),
                             ((rng.normal(size=(2, 3)),), {"axis": 0})],
        lower=lambda e, x, axis: e.reduce(name, x, (axis,), int64),
        doc=f"The position of the first {word} along an axis; not differentiable.")
    return row


argmax = _positions("argmax", lambda x, axis: np.argmax(x, axis), "maximum")
argmin = _positions("argmin", lambda x, axis: np.argmin(x, axis), "minimum")


def _latest(name: str, accumulate: Any, word: str) -> Any:
    """Where the running extreme was last attained; a NaN stays the extreme."""
    def eval(x: Any, axis: int) -> Any:
        hit = (x == accumulate(x, axis)) | (x != x)
        place = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        return np.maximum.accumulate(np.where(hit, place, 0), axis)

    row = general(name, eval=eval, infer=lambda a, axis: ArrayType(a.shape, int64), pulls=(None,),
        jvp=None, public="",
        batch=lambda xs, ax, axis: (row(moved(xs[0], ax[0] or 0), axis=axis + 1), 0),
        samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axis": 1}),
                             ((rng.normal(size=(4, 2)),), {"axis": 0})],
        doc=f"Where the running {word} was last attained; not differentiable.")
    return row


cumargmax = _latest("cumargmax", np.maximum.accumulate, "maximum")
cumargmin = _latest("cumargmin", np.minimum.accumulate, "minimum")


def _argsort(x: Any, axis: int, descending: bool) -> Any:
    """Stable order, NaN last; for descending the order of the reversed array, reversed."""
    if not descending:
        return np.argsort(x, axis, kind="stable")
    if x.dtype.kind == "f":
        flipped = np.flip(x, axis)
        order = np.flip(np.argsort(flipped, axis, kind="stable"), axis)
        return x.shape[axis] - 1 - order
    return np.argsort(np.invert(x), axis, kind="stable")


argsort = general("argsort", eval=_argsort,
    infer=lambda a, axis, descending: ArrayType(a.shape, int64), pulls=(None,), jvp=None, public="",
    batch=lambda xs, ax, axis, descending: (
        argsort(moved(xs[0], ax[0] or 0), axis=axis + 1, descending=descending), 0),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axis": 1, "descending": False}),
                         ((rng.normal(size=(2, 3)),), {"axis": 0, "descending": True})],
    doc="The order that sorts along an axis, stable; not differentiable.")


def _truth(name: str, eval: Any, word: str) -> Any:
    row = general(name, eval=eval, infer=lambda a, axes: ArrayType(sum_type(a, axes).shape, bool_),
        pulls=(None,), jvp=None, public="",
        batch=lambda xs, ax, axes: (row(moved(xs[0], ax[0] or 0), axes=shifted(axes)), 0),
        samples=lambda rng: [((rng.uniform(size=(2, 3)) > 0.5,), {"axes": (1,)})],
        lower=lambda e, x, axes: e.reduce(name, e.cast(x, bool_), axes),
        doc=f"Are {word} elements along the axes non-zero?")
    return row


any_ = _truth("any", lambda x, axes: np.logical_or.reduce(x, axes), "any")
all_ = _truth("all", lambda x, axes: np.logical_and.reduce(x, axes), "all")


# ---------------------------------------------------------------- products


def _along(axis: int, start: int, stop: int) -> Any:
    return (*[slice(None)] * axis, slice(start, stop))


def _padded(x: Any, axis: int, start: int, stop: int) -> Any:
    key = _along(axis, start, stop)
    return slice_(x, key=key + (slice(None),) * (len(x.shape) - axis - 1))


def _prod(x: Any, axis: int) -> Any:
    """Pairs, then pairs of pairs: exact gradients of any order, with zeros among the factors."""
    n = x.shape[axis]
    if n == 0:
        return sum_(x, axes=(axis,)) + 1
    while n > 1:
        half = n // 2
        pairs = _padded(x, axis, 0, half) * _padded(x, axis, half, 2 * half)
        x = pairs if n % 2 == 0 else concatenate(pairs, _padded(x, axis, n - 1, n), axis=axis)
        n = half + n % 2
    return sum_(x, axes=(axis,))


prod = composite("prod", definition=_prod, public="_prod", options={"axis": 0},
    eval=lambda x, axis: np.multiply.reduce(x, axis, dtype=x.dtype),
    infer=lambda a, axis: sum_type(a, (axis,)),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axis": 1}),
                         ((rng.normal(size=(4, 2)),), {"axis": 0}),
                         ((np.array([2.0, 0.0, 3.0]),), {"axis": 0})],
    show=lambda a, axis: (f"Π{show.bracket(*a, 3)}", 2), doc="The product along an axis.")


def _scan(join: Any) -> Any:
    """The definition of a running operation: each element joined with those 1, 2, 4 ... before."""
    def definition(x: Any, axis: int) -> Any:
        n, shift = x.shape[axis], 1
        x = identity(x) if n < 2 else x
        while shift < n:
            later = join(_padded(x, axis, shift, n), _padded(x, axis, 0, n - shift))
            x = concatenate(_padded(x, axis, 0, shift), later, axis=axis)
            shift *= 2
        return x
    return definition


cumprod = composite("cumprod", definition=_scan(lambda a, b: a * b),
    public="_cumprod", options={"axis": 0},
    eval=lambda x, axis: np.multiply.accumulate(x, axis, dtype=x.dtype),
    infer=lambda a, axis: a,
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axis": 1}),
                         ((rng.normal(size=(5, 2)),), {"axis": 0}),
                         ((rng.normal(size=(1, 2)),), {"axis": 0})],
    doc="The running product along an axis.")
logcumsumexp = composite("logcumsumexp", definition=_scan(logaddexp),
    public="_logcumsumexp", options={"axis": 0},
    eval=lambda x, axis: np.logaddexp.accumulate(x, axis, dtype=x.dtype),
    infer=lambda a, axis: a,
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axis": 1}),
                         ((rng.normal(size=(5, 2)),), {"axis": 0})],
    doc="log of the running sum of exp(x) along an axis, stable.")
