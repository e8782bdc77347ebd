"""Rows that move numbers without changing them, in adjoint pairs, and the sum.

broadcast ⇄ sum · reshape ⇄ reshape · permute ⇄ permute · flip ⇄ flip · slice ⇄ place ·
concatenate ⇄ slices · cumsum ⇄ reversed cumsum. Each is the other's transpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import ShapeError
from chainrule.core.kinds import fronted, linear, moved
from chainrule.core.types import ArrayType

from . import show

Axes = Sequence[int | None]


def normal(*shape: int) -> Any:
    """One sample of normal numbers, for rows of one input."""
    return lambda rng: rng.normal(size=shape)


# ---------------------------------------------------------------- broadcast and sum


def _broadcast_type(a: ArrayType, shape: tuple[int, ...]) -> ArrayType:
    lead = len(shape) - a.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(a.shape, shape[lead:], strict=True)):
        raise ShapeError(f"expand: {a} cannot be stretched to {list(shape)}: only axes of size 1 "
                         "can grow, and new axes go in front")
    return ArrayType(tuple(shape), a.dtype)


def sum_to(g: Any, shape: tuple[int, ...]) -> Any:
    """g summed over the axes along which `shape` was stretched to g's shape."""
    lead = len(g.shape) - len(shape)
    grown = [lead + i for i, n in enumerate(shape) if n == 1 and g.shape[lead + i] != 1]
    summed = sum_(g, axes=(*range(lead), *grown))
    return reshape(summed, shape=tuple(shape)) if grown else summed


def _broadcast_batch(xs: Sequence[Any], axes: Axes, shape: tuple[int, ...]) -> Any:
    x = moved(xs[0], axes[0] or 0)
    missing = len(shape) - (len(x.shape) - 1)
    if missing:
        x = reshape(x, shape=(x.shape[0], *[1] * missing, *x.shape[1:]))
    return broadcast(x, shape=(x.shape[0], *shape)), 0


broadcast = linear("broadcast", view=True, show=show.same,
    eval=lambda x, shape: np.broadcast_to(x, shape), infer=_broadcast_type,
    transpose=lambda g, x, shape: sum_to(g, tuple(x.shape)), batch=_broadcast_batch,
    samples=lambda rng: [((rng.normal(size=3),), {"shape": (2, 3)}),
                         ((rng.normal(size=()),), {"shape": (2, 3)}),
                         ((rng.normal(size=(3, 1)),), {"shape": (2, 3, 4)})],
    lower=lambda e, x, shape: e.broadcast(x, shape),
    doc="The array repeated along new leading axes and axes of size 1.")


def sum_type(a: ArrayType, axes: tuple[int, ...]) -> ArrayType:
    return ArrayType(tuple(n for i, n in enumerate(a.shape) if i not in axes), a.dtype)


def unsum(g: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """g spread over the summed axes of x."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    if axes != tuple(range(len(axes))):
        g = reshape(g, shape=kept)
    return broadcast(g, shape=tuple(x.shape))


def shifted(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of an array that got a batch axis in front."""
    return tuple(a + 1 for a in axes)


sum_ = linear("sum",
    eval=lambda x, axes: np.add.reduce(x, axes, dtype=x.dtype) if axes else x.copy(),
    infer=sum_type, transpose=lambda g, x, axes: unsum(g, x, axes),
    batch=lambda xs, ax, axes: (sum_(moved(xs[0], ax[0] or 0), axes=shifted(axes)), 0),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axes": (0,)}),
                         ((rng.normal(size=(2, 3)),), {"axes": (0, 1)}),
                         ((rng.normal(size=(2, 3, 4)),), {"axes": (0, 2)}),
                         ((rng.normal(size=(2, 3)),), {"axes": ()})],
    show=lambda a, axes: (f"Σ {show.bracket(*a, 2)}", 2), public="",
    lower=lambda e, x, axes: e.reduce("sum", x, axes), doc="The sum over the given axes.")

# ---------------------------------------------------------------- rearranging


def _reshape_type(a: ArrayType, shape: tuple[int, ...]) -> ArrayType:
    if math.prod(shape) != a.size:
        raise ShapeError(f"reshape: {a} has {a.size} elements, the shape {list(shape)} holds "
                         f"{math.prod(shape)}")
    return ArrayType(tuple(shape), a.dtype)


reshape = linear("reshape", eval=lambda x, shape: x.reshape(shape), view=True, show=show.same,
    infer=_reshape_type, transpose=lambda g, x, shape: reshape(g, shape=tuple(x.shape)),
    batch=lambda xs, ax, shape: (
        reshape(moved(xs[0], ax[0] or 0), shape=(xs[0].shape[ax[0] or 0], *shape)), 0),
    samples=lambda rng: [((rng.normal(size=(2, 6)),), {"shape": (3, 4)}),
                         ((rng.normal(size=(1,)),), {"shape": ()})],
    lower=lambda e, x, shape: e.reshape(x, shape),
    doc="The same numbers in row-major order under another shape.")


def _permute_batch(xs: Sequence[Any], ax: Axes, order: tuple[int, ...]) -> Any:
    return permute(moved(xs[0], ax[0] or 0), order=(0, *shifted(order))), 0


permute = linear("permute", eval=lambda x, order: x.transpose(order), view=True,
    infer=lambda a, order: ArrayType(tuple(a.shape[i] for i in order), a.dtype),
    transpose=lambda g, x, order: permute(g, order=inverse(order)), batch=_permute_batch,
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"order": (1, 0)}),
                         ((rng.normal(size=(2, 3, 4)),), {"order": (2, 0, 1)})],
    show=lambda a, order: (f"{show.bracket(*a, 9)}ᵀ", 4),
    lower=lambda e, x, order: e.permute(x, order), doc="The axes in another order.")


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `order`."""
    result = [0] * len(order)
    for position, axis in enumerate(order):
        result[axis] = position
    return tuple(result)


flip = linear("flip", eval=lambda x, axes: np.flip(x, axes).copy(), infer=lambda a, axes: a,
    transpose=lambda g, x, axes: flip(g, axes=axes),
    batch=lambda xs, ax, axes: (flip(moved(xs[0], ax[0] or 0), axes=shifted(axes)), 0),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axes": (1,)}),
                         ((rng.normal(size=(2, 3)),), {"axes": (0, 1)})],
    lower=lambda e, x, axes: e.flip(x, axes), doc="The order along the given axes reversed.")

# ---------------------------------------------------------------- slice and place

Key = tuple[Any, ...]


def slice_type(a: ArrayType, key: Key) -> ArrayType:
    """The type of x[key] for whole numbers, slices and None, found without any numbers."""
    return ArrayType(np.broadcast_to(np.empty(()), a.shape)[key].shape, a.dtype)


def _slice(x: Any, key: Key) -> Any:
    """x[key], a view in every case: with whole numbers alone NumPy would give a copied number."""
    y = x[key]
    return y if type(y) is np.ndarray else x[(*key, ...)]


slice_ = linear("slice", eval=_slice, view=True, infer=slice_type,
    transpose=lambda g, x, key: place(g, shape=tuple(x.shape), key=key),
    batch=lambda xs, ax, key: (slice_(moved(xs[0], ax[0] or 0), key=(slice(None), *key)), 0),
    samples=lambda rng: [((rng.normal(size=(4, 5)),), {"key": (slice(1, 3), slice(None, None, 2))}),
                         ((rng.normal(size=(4, 5)),), {"key": (2,)}),
                         ((rng.normal(size=(4, 5)),), {"key": (slice(None), None, 3)})],
    show=lambda a, key: (f"{show.bracket(*a, 9)}[{key_text(key)}]", 9),
    lower=lambda e, x, key: e.slice(x, key), doc="x[key] for whole numbers, slices and None.")


def key_text(key: Key) -> str:
    """A key as the user wrote it: `1:3, ::2`."""
    def one(k: Any) -> str:
        if not isinstance(k, slice):
            return str(k)
        text = f"{'' if k.start is None else k.start}:{'' if k.stop is None else k.stop}"
        return text if k.step in (None, 1) else f"{text}:{k.step}"
    return ", ".join(one(k) for k in key)


def _place(x: Any, shape: tuple[int, ...], key: Key) -> Any:
    y = np.zeros(shape, x.dtype)
    y[key] = x
    return y


def _place_batch(xs: Sequence[Any], ax: Axes, shape: tuple[int, ...], key: Key) -> Any:
    x = moved(xs[0], ax[0] or 0)
    return place(x, shape=(x.shape[0], *shape), key=(slice(None), *key)), 0


place = linear("place", eval=_place, batch=_place_batch,
    infer=lambda a, shape, key: ArrayType(tuple(shape), a.dtype),
    transpose=lambda g, x, shape, key: slice_(g, key=key),
    samples=lambda rng: [((rng.normal(size=(2, 3)),),
                          {"shape": (4, 5), "key": (slice(1, 3), slice(None, None, 2))}),
                         ((rng.normal(size=5),), {"shape": (4, 5), "key": (2,)})],
    show=lambda a, shape, key: (f"{show.bracket(*a, 9)} at [{key_text(key)}]", 1),
    lower=lambda e, x, shape, key: e.place(x, shape, key),
    doc="Zeros of the given shape with x at [key]; zero padding is a case of it.")

# ---------------------------------------------------------------- diagonals


def _diagonal(x: Any, offset: int, axes: tuple[int, int]) -> Any:
    y = np.diagonal(x, offset, *axes)
    y.flags.writeable = x.flags.writeable      # NumPy gives a view that is read-only
    return y


def diagonal_type(a: ArrayType, offset: int, axes: tuple[int, int]) -> ArrayType:
    """The other axes, then the diagonal of the two."""
    height, width = (a.shape[i] for i in axes)
    length = min(height + min(offset, 0), width - max(offset, 0))
    rest = tuple(n for i, n in enumerate(a.shape) if i not in axes)
    return ArrayType((*rest, max(length, 0)), a.dtype)


def _undiagonal(x: Any, shape: tuple[int, ...], offset: int, axes: tuple[int, int]) -> Any:
    y = np.zeros(shape, x.dtype)
    _diagonal(y, offset, axes)[...] = x
    return y


def _ahead(axes: tuple[int, int]) -> tuple[int, int]:
    return axes[0] + 1, axes[1] + 1


diagonal = linear("diagonal", eval=_diagonal, view=True, infer=diagonal_type,
    transpose=lambda g, x, offset, axes: undiagonal(g, shape=tuple(x.shape), offset=offset,
                                                    axes=axes),
    batch=lambda xs, ax, offset, axes: (
        diagonal(moved(xs[0], ax[0] or 0), offset=offset, axes=_ahead(axes)), 0),
    samples=lambda rng: [((rng.normal(size=(3, 4)),), {"offset": 1, "axes": (0, 1)}),
                         ((rng.normal(size=(3, 2, 4)),), {"offset": -1, "axes": (2, 0)})],
    lower=lambda e, x, offset, axes: e.diagonal(x, offset, axes),
    doc="The elements on a diagonal of two axes, as the last axis.")
undiagonal = linear("undiagonal", eval=_undiagonal,
    infer=lambda a, shape, offset, axes: ArrayType(tuple(shape), a.dtype),
    transpose=lambda g, x, shape, offset, axes: diagonal(g, offset=offset, axes=axes),
    batch=lambda xs, ax, shape, offset, axes: (
        undiagonal(moved(xs[0], ax[0] or 0), shape=(xs[0].shape[ax[0] or 0], *shape),
                   offset=offset, axes=_ahead(axes)), 0),
    samples=lambda rng: [((rng.normal(size=3),),
                          {"shape": (3, 4), "offset": 1, "axes": (0, 1)}),
                         ((rng.normal(size=(2, 3)),),
                          {"shape": (3, 2, 4), "offset": -1, "axes": (2, 0)})],
    lower=lambda e, x, shape, offset, axes: e.undiagonal(x, shape, offset, axes),
    doc="Zeros of the given shape with x on a diagonal of two axes.")

# ---------------------------------------------------------------- joining


def _concatenate_type(*types: ArrayType, axis: int) -> ArrayType:
    first = types[0]
    for i, t in enumerate(types):
        if t.ndim != first.ndim or any(t.shape[k] != n for k, n in enumerate(first.shape)
                                       if k != axis):
            raise ShapeError(f"cat: item {i} is {t}, item 0 is {first}: all axes but axis {axis} "
                             "must have equal sizes")
    size = sum(t.shape[axis] for t in types)
    return ArrayType((*first.shape[:axis], size, *first.shape[axis + 1:]), first.dtype)


def _concatenate_transpose(i: int, g: Any, *xs: Any, axis: int) -> Any:
    start = sum(x.shape[axis] for x in xs[:i])
    key = (*[slice(None)] * axis, slice(start, start + xs[i].shape[axis]))
    return slice_(g, key=key + (slice(None),) * (len(g.shape) - axis - 1))


concatenate = linear("concatenate", variadic=True,
    eval=lambda *xs, axis: np.ascontiguousarray(np.concatenate(xs, axis)), infer=_concatenate_type,
    transpose=_concatenate_transpose,
    batch=lambda xs, ax, axis: (concatenate(*fronted(xs, ax), axis=axis + 1), 0),
    samples=lambda rng: [((rng.normal(size=(2, 3)), rng.normal(size=(2, 1)),
                           rng.normal(size=(2, 2))), {"axis": 1})],
    lower=lambda e, *xs, axis: e.concatenate(xs, axis), doc="Arrays joined along an axis.")

# ---------------------------------------------------------------- running sum

cumsum = linear("cumsum", eval=lambda x, axis: np.add.accumulate(x, axis, dtype=x.dtype),
    infer=lambda a, axis: a,
    transpose=lambda g, x, axis: flip(cumsum(flip(g, axes=(axis,)), axis=axis), axes=(axis,)),
    batch=lambda xs, ax, axis: (cumsum(moved(xs[0], ax[0] or 0), axis=axis + 1), 0),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"axis": 1}),
                         ((rng.normal(size=(2, 3)),), {"axis": 0})],
    lower=lambda e, x, axis: e.scan(x, axis), doc="The running sum along an axis.")
