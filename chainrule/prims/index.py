"""Rows that pick elements by whole-number arrays, in adjoint pairs.

gather ⇄ scatter_add (one index for each result, along an axis) · index ⇄ index_add (points).
Indices are checked: one out of range is an IndexError, never a stray read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import IndexingError, ShapeError
from chainrule.core.kinds import aligned, batch_size, front, fronted, general, moved
from chainrule.core.types import ArrayType, int32, int64

from .elementwise import eq, keep, zeros_like
from .shape import broadcast, reshape, sum_to

Axes = Sequence[int | None]
NO_RULES = (None,) * 64               # NumPy's arrays have at most 64 axes


def check_range(name: str, index: Any, size: int, axis: int, negative: bool = False) -> None:
    """Every index must lie in [0, size), or in [-size, size) if `negative`."""
    if index.size == 0:
        return
    low, high = int(index.min()), int(index.max())
    if high >= size or low < (-size if negative else 0):
        wrong = high if high >= size else low
        place = [int(i) for i in np.argwhere(index == wrong)[0]]
        raise IndexingError(f"{name}: index {wrong} (at position {place} of the index) is out of "
                            f"range for axis {axis}, which has {size} elements")


# ---------------------------------------------------------------- gather and scatter_add


def _gather_type(a: ArrayType, index: ArrayType, axis: int) -> ArrayType:
    if a.ndim != index.ndim or any(m != n for k, (m, n) in enumerate(
            zip(a.shape, index.shape, strict=True)) if k != axis):
        raise ShapeError(f"gather: input {a} and index {index} must agree in all axes but {axis}")
    return ArrayType(index.shape, a.dtype)


def _gather(x: Any, index: Any, axis: int) -> Any:
    check_range("gather", index, x.shape[axis], axis)
    return np.take_along_axis(x, index, axis)


def _along_axis(e: Any, shape: tuple[int, ...], index: Any, axis: int) -> list[Any]:
    """For each axis the index of a gather: its own, and on `axis` the given one."""
    return [index if d == axis else e.axis(d, shape) for d in range(len(shape))]


def at_argmax(index: Any, size: int) -> bool:
    """Is an Array of indices an argmax of as many places? Then none is out of range."""
    while index.kind in ("view", "reshape"):
        index = index.inputs[0]
    return bool(index.kind == "reduce" and index.what[0] in ("argmax", "argmin") and size
                == math.prod([index.inputs[0].shape[axis] for axis in index.what[1]]))


def split_index(e: Any, index: Any, sizes: Sequence[int]) -> list[Any]:
    """Row-major positions below prod(sizes) as one index for each of the sizes, in registers."""
    rest, found = e.cast(index, int32), []
    for n in reversed(sizes[1:]):
        quotient = e.div(rest, n)
        found.append(rest - quotient * n)
        rest = quotient
    return [e.cast(one, int64) for one in (rest, *reversed(found))]


def _gather_lower(e: Any, x: Any, index: Any, axis: int) -> Any:
    """y[i] = x[.., index[i]]. Where x shows windows, which a copy would have to bring into memory,
    and the index is an argmax over them, what it points to is taken from under them."""
    windows = x.inputs[0] if x.kind == "reshape" else x
    if not (windows.kind == "view" and axis == len(x.shape) - 1 and at_argmax(index, x.shape[-1])
            and windows.shape[:axis] == x.shape[:axis] and index.shape[axis] == 1):
        return e.pick(x, index.shape, _along_axis(e, index.shape, index, axis), False, "gather")
    sizes, outer = windows.shape[axis:], [e.axis(d, index.shape) for d in range(axis)]
    where = []
    for affine in windows.what:
        own, inner = affine.steps[:axis], affine.steps[axis:]
        begin = affine._replace(steps=own).compose(outer, len(index.shape))
        if not any(inner):
            where.append(begin)
            continue
        counted = [d for d in range(axis) if own[d]]

        def place(f: Any, i: Any, *counts: Any, affine: Any = affine,
                  counted: Any = counted) -> Any:
            total = counts[0] * affine.steps[counted[0]] + affine.start if counts else affine.start
            for d, n in zip(counted[1:], counts[1:], strict=True):
                total = total + n * affine.steps[d]
            for step, one in zip(affine.steps[axis:], split_index(f, i, sizes), strict=True):
                total = one * step + total
            return total

        where.append(e.map("place_in_window", place, index,
                           *[e.count(index.shape, d) for d in counted], dtype=int64, cost=6,
                           key=(affine, axis, sizes)))
    return e.pick(windows.inputs[0], index.shape, where, False, "gather")


def _along_batch(row: Any, xs: Sequence[Any], ax: Axes, axis: int, **params: Any) -> Any:
    return row(*fronted(xs, ax), axis=axis + 1, **params), 0


def _gather_samples(rng: Any) -> Any:
    return [((rng.normal(size=(4, 3)), rng.integers(0, 4, (2, 3))), {"axis": 0}),
            ((rng.normal(size=(2, 3)), rng.integers(0, 3, (2, 5))), {"axis": 1})]


gather = general("gather", eval=_gather, infer=_gather_type,
    pulls=(lambda g, y, x, i, axis: scatter_add(g, i, axis=axis, size=x.shape[axis]), None),
    jvp=lambda ts, y, x, i, axis: gather(ts[0], i, axis=axis),
    batch=lambda xs, ax, axis: _along_batch(gather, xs, ax, axis),
    samples=_gather_samples, arguments=("input", "index"),
    lower=_gather_lower, doc="y[i][j] = x[index[i][j]][j] along axis 0, and so on for other axes.")


def _scatter_add(x: Any, index: Any, axis: int, size: int) -> Any:
    check_range("scatter_add", index, size, axis)
    y = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1:]), x.dtype)
    places = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    places[axis] = index
    np.add.at(y, tuple(places), x)
    return y


scatter_add = general("scatter_add", eval=_scatter_add,
    infer=lambda a, index, axis, size: ArrayType(
        (*a.shape[:axis], size, *a.shape[axis + 1:]), a.dtype),
    pulls=(lambda g, y, x, i, axis, size: gather(g, i, axis=axis), None),
    jvp=lambda ts, y, x, i, axis, size: scatter_add(ts[0], i, axis=axis, size=size),
    batch=lambda xs, ax, axis, size: _along_batch(scatter_add, xs, ax, axis, size=size),
    samples=lambda rng: [((rng.normal(size=(2, 3)), rng.integers(0, 4, (2, 3))),
                          {"axis": 0, "size": 4}),
                         ((rng.normal(size=(2, 5)), rng.integers(0, 3, (2, 5))),
                          {"axis": 1, "size": 3})],
    arguments=("input", "index"), public="",
    lower=lambda e, x, i, axis, size: e.scatter(
        None, (*x.shape[:axis], size, *x.shape[axis + 1:]), x, _along_axis(e, x.shape, i, axis),
        True, False, "scatter_add"),
    doc="Zeros to which every x[i][j] is added at [index[i][j]][j] along the axis.")

# ---------------------------------------------------------------- points: index and index_add


def _index_type(a: ArrayType, *indices: ArrayType) -> ArrayType:
    points = np.broadcast_shapes(*[i.shape for i in indices])
    return ArrayType((*points, *a.shape[len(indices):]), a.dtype)


def _check_points(x_shape: Any, indices: Sequence[Any]) -> None:
    for axis, index in enumerate(indices):
        check_range("indexing", index, x_shape[axis], axis, negative=True)


def _index(x: Any, *indices: Any) -> Any:
    try:
        return x[indices]
    except IndexError:
        _check_points(x.shape, indices)
        raise


def _at_points(e: Any, shape: tuple[int, ...], indices: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The shape of x[indices] and, for each axis of x, its index there."""
    points = np.broadcast_shapes(*[i.shape for i in indices])
    whole = (*points, *shape[len(indices):])
    lined = []
    for i in indices:
        i = e.reshape(i, (*i.shape, *[1] * (len(shape) - len(indices))))
        lined.append(e.broadcast(i, whole))
    return whole, [*lined, *[e.axis(len(points) + d, whole)
                             for d in range(len(shape) - len(indices))]]


def _index_lower(e: Any, x: Any, *indices: Any) -> Any:
    whole, where = _at_points(e, x.shape, indices)
    return e.pick(x, whole, where, True, "indexing")


def _index_add_lower(e: Any, x: Any, *indices: Any, shape: tuple[int, ...]) -> Any:
    whole, where = _at_points(e, shape, indices)
    return e.scatter(None, shape, e.broadcast(x, whole), where, True, True, "indexing")


def _index_put_lower(e: Any, x: Any, values: Any, *indices: Any) -> Any:
    whole, where = _at_points(e, x.shape, indices)
    return e.scatter(x, x.shape, e.broadcast(e.cast(values, x.dtype), whole), where, False, True,
                     "indexing")


def _numbered(size: int, indices: Sequence[Any], index_axes: Axes) -> list[Any]:
    """The points of a batch: the batch's own number becomes the first index."""
    lined = aligned(indices, index_axes) if any(a is not None for a in index_axes) else indices
    rank = max(len(i.shape) - (a is not None) for i, a in zip(indices, index_axes, strict=True))
    return [np.arange(size).reshape((size,) + (1,) * rank), *lined]


def _index_batch(xs: Sequence[Any], ax: Axes) -> Any:
    if ax[0] is None:                      # only the points differ: index() takes any shape
        lined = aligned(xs[1:], ax[1:])
        return index(xs[0], *lined), 0
    x = moved(xs[0], ax[0])
    return index(x, *_numbered(x.shape[0], xs[1:], ax[1:])), 0


index = general("index", eval=_index, infer=_index_type,
    pulls=(lambda g, y, x, *i: index_add(g, *i, shape=tuple(x.shape)), *NO_RULES),
    jvp=lambda ts, y, x, *i: index(ts[0], *i), batch=_index_batch,
    samples=lambda rng: [((rng.normal(size=(4, 3)), rng.integers(0, 4, 5)), {}),
                         ((rng.normal(size=(4, 3, 2)), rng.integers(0, 4, (2, 2)),
                           rng.integers(-3, 3, 2)), {})],
    arguments=("input", "index"), public="", lower=_index_lower,
    doc="x at points: the i-th index array counts along axis i; repeats are allowed.")


def _index_add(x: Any, *indices: Any, shape: tuple[int, ...]) -> Any:
    _check_points(shape, indices)
    lead, rest = shape[:len(indices)], shape[len(indices):]
    points = np.broadcast_shapes(*[i.shape for i in indices])
    x = np.broadcast_to(x, (*points, *rest))
    if x.size < 4096 or not rest:
        y = np.zeros(shape, x.dtype)
        np.add.at(y, indices, x)
        return y
    flat = np.zeros(points, np.int64)
    for index_, n in zip(indices, lead, strict=True):
        flat = flat * n + np.where(index_ < 0, index_ + n, index_)
    y = np.zeros((math.prod(lead), math.prod(rest)), x.dtype)
    add_rows(y, flat.ravel(), x.reshape(flat.size, -1))
    return y.reshape(shape)


def add_rows(y: Any, index: Any, x: Any) -> None:
    """y[index[k]] += x[k] in the order of k: rows sorted by their place, then added run by run,
    which is many times faster than np.add.at."""
    if not index.size:
        return
    order = np.argsort(index, kind="stable")
    places = index[order]
    starts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
    y[places[starts]] = np.add.reduceat(x[order], starts, axis=0)


def _index_add_batch(xs: Sequence[Any], ax: Axes, shape: tuple[int, ...]) -> Any:
    size = batch_size(xs, ax)
    points = np.broadcast_shapes(*[_without(i, a) for i, a in zip(xs[1:], ax[1:], strict=True)])
    x = broadcast(aligned([xs[0]], ax[:1])[0] if ax[0] is not None else xs[0],
                  shape=(size, *points, *shape[len(xs) - 1:]))
    return index_add(x, *_numbered(size, xs[1:], ax[1:]), shape=(size, *shape)), 0


def _without(x: Any, axis: int | None) -> tuple[int, ...]:
    """The shape of one item of the batch."""
    return tuple(n for i, n in enumerate(x.shape) if i != axis)


index_add = general("index_add", eval=_index_add,
    infer=lambda a, *i, shape: ArrayType(tuple(shape), a.dtype),
    pulls=(lambda g, y, x, *i, shape: index(g, *i), *NO_RULES),
    jvp=lambda ts, y, x, *i, shape: index_add(ts[0], *i, shape=shape), batch=_index_add_batch,
    samples=lambda rng: [((rng.normal(size=(5, 3)), rng.integers(0, 4, 5)), {"shape": (4, 3)}),
                         ((rng.normal(size=(2, 2)), rng.integers(0, 4, (2, 2)),
                           rng.integers(0, 3, 2)), {"shape": (4, 3)})],
    arguments=("input", "index"), public="", lower=_index_add_lower,
    doc="Zeros of the given shape to which x is added at points.")


def _index_put(x: Any, values: Any, *indices: Any) -> Any:
    _check_points(x.shape, indices)
    y = np.array(x)
    y[indices] = values
    return y


def _index_put_batch(xs: Sequence[Any], ax: Axes) -> Any:
    size = batch_size(xs, ax)
    x, values = (front(x, a, size) for x, a in zip(xs[:2], ax[:2], strict=True))
    return index_put(x, values, *_numbered(size, xs[2:], ax[2:])), 0


def _put_values(g: Any, y: Any, x: Any, v: Any, *i: Any) -> Any:
    """g at the points, for those writes that were not written over by a later one."""
    points = np.broadcast_shapes(*[tuple(k.shape) for k in i])
    number = np.arange(math.prod(points)).reshape(points)
    last = index(index_put(np.zeros(tuple(x.shape[:len(i)]), np.int64), number, *i), *i)
    mask = reshape(eq(last, number), shape=(*points, *[1] * (len(g.shape) - len(i))))
    return sum_to(keep(index(g, *i), mask), tuple(v.shape))


index_put = general("index_put", eval=_index_put, infer=lambda a, v, *i: a,
    pulls=(lambda g, y, x, v, *i: index_put(g, zeros_like(index(g, *i)), *i), _put_values,
           *NO_RULES),
    jvp=lambda ts, y, x, v, *i: index_put(
        zeros_like(x) if ts[0] is None else ts[0],
        zeros_like(v) if ts[1] is None else ts[1], *i),
    batch=_index_put_batch,
    samples=lambda rng: [((rng.normal(size=(4, 3)), rng.normal(size=(2, 3)),
                           rng.permutation(4)[:2]), {}),
                         ((rng.normal(size=(4, 3)), rng.normal(size=2),
                           rng.permutation(4)[:2], rng.integers(0, 3, 2)), {})],
    arguments=("input", "values", "index"), public="", lower=_index_put_lower,
    doc="x with the values written at points; of several writes to one place the last stays.")
