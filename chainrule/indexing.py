"""x[key] and x[key] = value, as PyTorch does it.

Whole numbers, slices, None and ... come first (a view); then arrays and masks pick points. Arrays
separated by a slice put their axes first, as in NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .core.bind import Value, bind
from .core.errors import IndexingError, ShapeError
from .core.primitive import TABLE
from .core.record import apply_one, new, refuse_number
from .core.types import type_of


def parse(x: Any, key: Any) -> tuple[tuple[Any, ...], dict[int, Any]]:
    """(basic key, {axis of the basic result: index array})."""
    items = list(key) if isinstance(key, tuple) else [key]
    items = [_plain(x, item) for item in items]
    used = sum(_axes_of(item) for item in items)
    rank = len(x.shape)
    if used > rank:
        raise IndexingError(f"too many indices: {used} for a tensor of {rank} axes ({type_of(x)})")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise IndexingError("an index can hold only one '...'")
    fill = [slice(None)] * (rank - used)
    if dots:
        items[dots[0]:dots[0] + 1] = fill
    else:
        items += fill
    basic: list[Any] = []
    arrays: dict[int, Any] = {}
    axis = 0            # of x
    place = 0           # of the basic result
    for item in items:
        if item is None:
            basic.append(None)
            place += 1
        elif isinstance(item, int):
            size = x.shape[axis]
            if not -size <= item < size:
                raise IndexingError(f"index {item} is out of range for axis {axis}, which has "
                                    f"{size} elements ({type_of(x)})")
            basic.append(item if item >= 0 else item + size)
            axis += 1
        elif isinstance(item, slice):
            basic.append(_forward(item, axis, x))
            axis += 1
            place += 1
        else:
            count = _axes_of(item)
            if item.dtype == np.bool_ and not item.ndim:      # a new axis with 1 place or none
                arrays[place] = np.arange(int(item))
                basic.append(None)
                place += 1
            elif item.dtype == np.bool_:
                _check_mask(item, x, axis)
                for column in np.nonzero(item):
                    arrays[place] = column
                    basic.append(slice(None))
                    place += 1
            else:
                arrays[place] = item
                basic.append(slice(None))
                place += 1
            axis += count
    return tuple(basic), arrays


def _plain(x: Any, item: Any) -> Any:
    """One item as an int, slice, None, Ellipsis, or an array (of a Tensor or a list)."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, bool):
        return np.asarray(item)
    if isinstance(item, (int, np.integer)):
        return int(item)
    if isinstance(item, Value):
        if item._value is None:                             # type: ignore[attr-defined]
            if item.dtype == np.bool_:
                raise refuse_number("indexing with a mask")
            return item
        item = item._value                                  # type: ignore[attr-defined]
    if isinstance(item, (list, tuple, range)):
        item = np.asarray([i._value if isinstance(i, Value) else i for i in item])  # type: ignore[attr-defined]
        if item.size == 0:
            item = item.astype(np.int64)
    if isinstance(item, (np.ndarray, np.generic)):
        array = np.asarray(item)
        if array.dtype == np.bool_:
            return array
        if array.dtype == np.uint8 and array.ndim:
            return array.astype(bool)
        if array.dtype.kind in "iu":
            return array.astype(np.int64) if array.ndim else int(array)
    kind = f"{item.dtype} array" if hasattr(item, "dtype") else type(item).__name__
    raise IndexingError(f"a {kind} cannot index a tensor ({type_of(x)}); use whole numbers, "
                        "slices, None, ..., bool masks or integer arrays (x.long())")


def _axes_of(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, (int, slice)):
        return 1
    return item.ndim if item.dtype == np.bool_ else 1


def _forward(item: slice, axis: int, x: Any) -> slice:
    for part in (item.start, item.stop, item.step):
        if isinstance(part, Value) and part._value is None:  # type: ignore[attr-defined]
            raise refuse_number("slicing")
    step = 1 if item.step is None else int(item.step)
    if step <= 0:
        raise IndexingError(f"a slice with step {step}: steps must be positive; use "
                            f".flip({axis}) to reverse an axis")
    start, stop, _ = slice(item.start, item.stop, step).indices(x.shape[axis])
    return slice(start, max(start, stop), step)


def _check_mask(mask: Any, x: Any, axis: int) -> None:
    for i, n in enumerate(mask.shape):
        if n != x.shape[axis + i]:
            raise IndexingError(f"the mask {list(mask.shape)} does not fit {type_of(x)}: axis "
                                f"{axis + i} has {x.shape[axis + i]} elements, the mask {n}")


def basic_step(x: Any, key: tuple[Any, ...]) -> Any:
    """The view x[key], or x itself if the key keeps everything."""
    if all((isinstance(k, slice) and k.step == 1 and k.start == 0 and k.stop == n)
           or k == slice(None) for k, n in zip(key, x.shape, strict=False)) and len(key) == x.ndim:
        return x
    return bind(TABLE["slice"], x, key=key)


def points_order(rank: int, places: list[int]) -> tuple[tuple[int, ...], int]:
    """(order that brings the indexed axes in front, place of the result's point axes)."""
    rest = [i for i in range(rank) if i not in places]
    adjacent = places == list(range(places[0], places[0] + len(places)))
    return (*places, *rest), places[0] if adjacent else 0


def get(x: Any, key: Any) -> Any:
    """x[key]."""
    quick = key if type(key) is tuple else (key,)
    if all(map(is_plain, quick)):
        try:
            return apply_one(TABLE["slice"], x, {"key": quick})
        except IndexError:
            pass                                # parse() says what is wrong
    elif (isinstance(key, Value) and key.dtype == np.int64 and key.ndim and x.ndim
            and key._value is not None and x._value is not None):  # type: ignore[attr-defined]
        return bind(TABLE["index"], x, key)
    basic, arrays = parse(x, key)
    view = bind(TABLE["slice"], x, key=basic) if not arrays else basic_step(x, basic)
    if not arrays:
        return view
    places = list(arrays)
    order, target = points_order(view.ndim, places)
    front = view if order == tuple(range(view.ndim)) else bind(TABLE["permute"], view, order=order)
    picked = bind(TABLE["index"], front, *_broadcast(list(arrays.values())))
    if target == 0:
        return picked
    count = picked.ndim - (view.ndim - len(places))
    rest = list(range(count, picked.ndim))
    final = (*rest[:target], *range(count), *rest[target:])
    return bind(TABLE["identity"], bind(TABLE["permute"], picked, order=final))     # in order


def is_plain(item: Any) -> bool:
    """A whole number, a forward slice, None or ...: what NumPy takes as it stands."""
    kind = type(item)
    if kind is slice:
        return ((item.start is None or type(item.start) is int)
                and (item.stop is None or type(item.stop) is int)
                and (item.step is None or (type(item.step) is int and item.step > 0)))
    return kind is int or item is None or item is Ellipsis


def _broadcast(arrays: list[Any]) -> list[Any]:
    try:
        np.broadcast_shapes(*[a.shape for a in arrays])
    except ValueError:
        shapes = ", ".join(str(list(a.shape)) for a in arrays)
        raise IndexingError(f"index arrays of shapes {shapes} do not broadcast together") from None
    return arrays


def put(x: Any, key: Any, value: Any) -> Any:
    """x with x[key] replaced by value, as a new tensor; for keys that hold arrays."""
    basic, arrays = parse(x, key)
    if any(not isinstance(k, slice) for k in basic):
        raise IndexingError("split this assignment: v = x[whole numbers and None]; v[arrays] = "
                            "value (v is a view of x)")
    view = basic_step(x, basic)
    places = list(arrays)
    order, target = points_order(view.ndim, places)
    back = TABLE["permute"]
    front = bind(back, view, order=order)
    points = np.broadcast_shapes(*[a.shape for a in _broadcast(list(arrays.values()))])
    rest = front.shape[len(places):]
    wanted = (*rest[:target], *points, *rest[target:])
    value = fitted(value, wanted, x)
    if target:
        value = bind(back, value, order=(*range(target, target + len(points)), *range(target),
                                         *range(target + len(points), len(wanted))))
    written = bind(TABLE["index_put"], front, value, *arrays.values())
    inverse = [0] * len(order)
    for position, axis in enumerate(order):
        inverse[axis] = position
    written = bind(back, written, order=tuple(inverse))
    return written if view is x else replaced(x, basic, written)


def traced_mask(key: Any) -> tuple[int, Any] | None:
    """(first axis, mask) of a key that is a mask without numbers, perhaps after some `:`."""
    items = key if type(key) is tuple else (key,)
    if not items:
        return None
    *before, mask = items
    if isinstance(mask, Value) and mask.dtype == np.bool_ and mask._value is None and all(  # type: ignore[attr-defined]
            type(item) is slice and item == slice(None) for item in before):
        return len(before), mask
    return None


def masked(x: Any, axis: int, mask: Any, value: Any) -> Any:
    """x with `value` where a mask over the axes from `axis` on holds, each place with the same."""
    _check_mask(mask, x, axis)
    rest = tuple(x.shape[axis + len(mask.shape):])
    if not isinstance(value, Value):
        value = new(np.asarray(value).astype(x.dtype))
    if len(value.shape) > len(rest) and any(n != 1 for n in value.shape):
        raise refuse_number("indexing with a mask")
    mask = bind(TABLE["reshape"], mask, shape=(*[1] * axis, *mask.shape, *[1] * len(rest)))
    mask = bind(TABLE["broadcast"], mask, shape=tuple(x.shape))
    return bind(TABLE["where"], mask, fitted(value, tuple(x.shape), x), x)


def replaced(x: Any, key: tuple[Any, ...], value: Any) -> Any:
    """x with the part x[key] of a basic key replaced by value (of that part's shape)."""
    outside = np.ones(x.shape, bool)
    outside[key] = False
    placed = bind(TABLE["place"], value, shape=tuple(x.shape), key=key)
    return bind(TABLE["keep"], x, outside) + placed


def fitted(value: Any, shape: tuple[int, ...], x: Any) -> Any:
    """value as a tensor of x's dtype, stretched to shape."""
    if not isinstance(value, Value):
        value = new(np.asarray(value).astype(x.dtype))
    if value.dtype != x.dtype:
        value = bind(TABLE["cast"], value, dtype=x.dtype)
    if tuple(value.shape) == tuple(shape):
        return value
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = bind(TABLE["reshape"], value, shape=tuple(value.shape[1:]))
    try:
        return bind(TABLE["broadcast"], value, shape=tuple(shape))
    except (ShapeError, ValueError):
        raise ShapeError(f"cannot write {type_of(value)} into a place of shape {list(shape)} of "
                         f"{type_of(x)}") from None
