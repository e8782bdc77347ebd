"""In-place operations: the new value is written into the memory, and the handle gets a new node.

Views share memory, so a write through one changes its whole family: the root's node becomes the
old root with the part replaced, and every living view is recomputed from the new root. PyTorch
calls this rebasing the history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .core.bind import bind, state
from .core.errors import DtypeError, InPlaceError, ShapeError
from .core.node import wrote
from .core.primitive import TABLE
from .core.record import new
from .core.types import type_of
from .indexing import replaced


def parent_of(x: Any) -> Any:
    return x._extra.parent if x._extra is not None else None


def root_of(x: Any) -> Any:
    """The tensor whose memory x shows."""
    parent = parent_of(x)
    while parent is not None:
        x, parent = parent, parent_of(parent)
    return x


def assign(x: Any, make: Callable[[Any], Any], what: str) -> Any:
    """Write make(x) into x's memory and history; returns x."""
    if state.capture is not None:
        return state.capture.assign(x, make, what)
    root = root_of(x)
    if x._value is None:
        refuse_ambiguous(root, what)
        result = fitting(make(x), x, what)
        if result._value is not None:
            result = bind(TABLE["add"], bind(TABLE["zeros_like"], x), result)
        connect(x, root, new(None, root._node), result)
        refresh(root)
        return x
    recording = state.recording
    check(x, root, what)
    if not recording or (root._node is None and x._node is None):
        result = fitting(make(x), x, what)
        if result._value is None:
            raise InPlaceError(f"{what} writes a traced value into a tensor from outside the "
                               "traced function; return the value instead")
        if result._node is None or not recording:
            if result._value is not x._value:
                np.copyto(x._value, result._value)
            wrote(x._value, what)
            return x
    old_root = new(root._value.copy(), root._node)       # what the rules save is not overwritten
    steps = path_to(x)
    old = along(old_root, steps) if steps else old_root
    result = fitting(make(old), x, what)
    connect(x, root, old_root, result)
    np.copyto(x._value, result._value)
    wrote(x._value, what)
    refresh(root)
    return x


def refuse_ambiguous(x: Any, what: str) -> None:
    """A traced reshape may be a view or a copy, which only the memory of a real array decides."""
    waiting = [x]
    while waiting:
        parent = waiting.pop()
        for child in living_views(parent):
            if child._extra.view_of[0].name == "reshape" and parent.ndim > 1 and (
                    [n for n in parent.shape if n != 1] != [n for n in child.shape if n != 1]):
                raise InPlaceError(
                    f"{what} inside a traced function, while {type_of(parent)} and its reshape "
                    f"{type_of(child)} are both in use: whether these share memory is not known "
                    "there. Write the change as a new tensor, or reshape a clone().")
            waiting.append(child)


def check(x: Any, root: Any, what: str) -> None:
    """Leaves that require a gradient, and stretched memory, cannot be written while recording."""
    if state.recording:
        for tensor, kind in ((x, "a leaf"), (root, "a view of a leaf")):
            node = tensor._node
            if node is not None and node.prim is None:
                raise InPlaceError(
                    f"{what} on {kind} ({type_of(tensor)}) that requires a gradient: its gradient "
                    "would belong to the value before the change. Update it inside `with "
                    "cr.no_grad():`, or work on x.clone().")
    if x._value.size and 0 in x._value.strides and any(
            step == 0 and n > 1 for step, n in zip(x._value.strides, x._value.shape, strict=True)):
        raise InPlaceError(f"{what} on an expanded tensor ({type_of(x)}): several of its elements "
                           "are one place in memory. Use .clone() first.")
    if not x._value.flags.writeable:
        raise InPlaceError(f"{what} on a tensor ({type_of(x)}) whose memory is read-only. Use "
                           ".clone() first.")


def fitting(result: Any, x: Any, what: str) -> Any:
    """The result in x's dtype; another shape, or a loss of category, is an error."""
    if tuple(result.shape) != tuple(x.shape):
        raise ShapeError(f"{what}: the result {type_of(result)} does not fit into {type_of(x)}; an "
                         "in-place operation cannot change the shape")
    if result.dtype == x.dtype:
        return result
    order = "biuf"
    mine, its = order.index(x.dtype.kind), order.index(result.dtype.kind)
    if its > mine and not (mine in (1, 2) and its in (1, 2)):
        raise DtypeError(f"{what}: a {result.dtype} result cannot be written into {type_of(x)}; "
                         "convert the tensor first with .to(dtype)")
    return bind(TABLE["cast"], result, dtype=x.dtype)


def path_to(x: Any) -> list[tuple[Any, Any]]:
    """The view operations from the root to x."""
    steps = []
    while parent_of(x) is not None:
        steps.append(x._extra.view_of)
        x = parent_of(x)
    return steps[::-1]


def along(x: Any, steps: list[tuple[Any, Any]]) -> Any:
    for prim, params in steps:
        x = bind(prim, x, **params)
    return x


def connect(x: Any, root: Any, old_root: Any, result: Any) -> None:
    """The root's history: as it was, with the part that x shows replaced by the result."""
    root._node = put_back(old_root, path_to(x), result)._node


def put_back(x: Any, steps: list[tuple[Any, Any]], value: Any) -> Any:
    """x with the part that the view operations `steps` show replaced by value."""
    parents = [x]
    for prim, params in steps[:-1]:
        parents.append(bind(prim, parents[-1], **params))
    for (prim, params), parent in zip(reversed(steps), reversed(parents), strict=False):
        value = put_one(parent, prim, params, value)
    return value


def put_one(x: Any, prim: Any, params: dict[str, Any], part: Any) -> Any:
    if prim.name == "reshape":
        return bind(prim, part, shape=tuple(x.shape))
    if prim.name == "permute":
        order = params["order"]
        return bind(prim, part, order=tuple(int(i) for i in np.argsort(order)))
    if prim.name == "slice":
        return replaced(x, params["key"], part)
    if prim.name == "diagonal":
        outside = np.ones(x.shape, bool)
        prim.eval(outside, **params)[...] = False
        placed = bind(TABLE["undiagonal"], part, shape=tuple(x.shape), **params)
        return bind(TABLE["keep"], x, outside) + placed
    raise InPlaceError(f"an in-place write through {prim.name} is not defined: use .clone() first")


def refresh(x: Any) -> None:
    """Views get nodes that start from their parent's new node."""
    waiting = [x]
    while waiting:
        parent = waiting.pop()
        for child in living_views(parent):
            prim, params = child._extra.view_of
            child._node = bind(prim, new(parent._value, parent._node), **params)._node
            waiting.append(child)


def living_views(x: Any) -> list[Any]:
    if x._extra is None:
        return []
    return [child for child in (r() for r in x._extra.children) if child is not None]
