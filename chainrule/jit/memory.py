"""Memory inside a trace: what shares it, and what a write does to all that do.

A tensor, its views and its detached twins are one group. A write through one of them gives all of
them new values. Where the eager engine would not tell the graph of gradients (under no_grad, or
through .data), a *bound* node stands where the old one stood, and has the new value.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from chainrule.core.bind import Value, bind, state
from chainrule.core.cuts import note_cut
from chainrule.core.errors import InPlaceError, ShapeError
from chainrule.core.node import Node, Origin, storage_of, wrote
from chainrule.core.primitive import TABLE
from chainrule.core.record import INPUT, NO_PARAMS, Extra, extra, new
from chainrule.core.types import type_of
from chainrule.inplace import (
    check,
    connect,
    fitting,
    living_views,
    parent_of,
    path_to,
    put_back,
    refresh,
    refuse_ambiguous,
    root_of,
)

from . import slots
from .layout import is_view

Array = np.ndarray[Any, Any]


def is_tracked(node: Node) -> bool:
    """Can a gradient be wanted of this node?"""
    return node.plan is not INPUT if node.prim is None else node.plan is None


def copied(known: Extra) -> Extra:
    """A copy of what a tensor from outside has, for its shadow to change."""
    found = Extra()
    for name in ("parent", "view_of", "name", "inference"):
        setattr(found, name, getattr(known, name))
    found.children = list(known.children)
    if known.after_grad is not None:
        found.after_grad = dict(known.after_grad)
    return found


def shares_memory(parent: Any, array: Array) -> bool:
    value = slots.value_of(parent)
    return value is not None and storage_of(value) is storage_of(array)


def same_memory(a: Array, b: Array) -> bool:
    return (a.dtype == b.dtype and a.shape == b.shape and a.strides == b.strides
            and a.__array_interface__["data"] == b.__array_interface__["data"])


def alias_of(x: Any) -> Any:
    return x._extra.alias_of if x._extra is not None else None


def twins(x: Any) -> list[Any]:
    """The living tensors that were linked to x as showing the same memory."""
    if x._extra is None:
        return []
    return [twin for twin in (r() for r in x._extra.aliases) if twin is not None]


def memory_root(x: Any) -> Any:
    """The tensor whose memory x shows, by way of views and detached twins."""
    while True:
        found = parent_of(x)
        if found is None:
            found = alias_of(x)
        if found is None:
            return x
        x = found


def view_steps(x: Any) -> list[tuple[Any, Any]]:
    """The view operations from the memory's root to x."""
    steps: list[tuple[Any, Any]] = []
    while True:
        steps = path_to(x) + steps
        x = alias_of(root_of(x))
        if x is None:
            return steps


def memory_path(x: Any) -> list[Any]:
    return [(prim.name, repr(params)) for prim, params in view_steps(x)]


def members(root: Any) -> list[Any]:
    """A tensor and all living views of it."""
    found, waiting = [], [root]
    while waiting:
        tensor = waiting.pop()
        found.append(tensor)
        waiting += living_views(tensor)
    return found


# ---------------------------------------------------------------- writes and twins


def detach(capture: Any, tensor: Any) -> Any:
    """A twin on the same memory through which no gradient flows."""
    if tensor._value is not None:
        twin = new(tensor._value)
    else:
        if tensor.requires_grad:
            note_cut("detach() or .data")
        twin = new(None, capture.untracked(tensor._node))
    link(capture, twin, tensor)
    return twin


def link(capture: Any, twin: Any, tensor: Any) -> None:
    """Note that the two show the same memory."""
    extra(twin).alias_of = tensor
    extra(tensor).aliases.append(weakref.ref(twin))


def in_order(capture: Any, x: Any) -> Any:
    """`x.contiguous()`: x itself or a copy, which the memory of numbers decides.

    Where that is not known, there is a copy, and writing to one of the two while both are in use
    is refused.
    """
    shadow = capture.shadows.get(id(x))
    if shadow is not None and shadow.left is None:
        shadow.order_asked = True
        known: bool | None = bool(shadow.array.flags.c_contiguous)
    else:
        known = lies_in_order(capture, x._node)
    if known:
        return x
    result = bind(TABLE["identity"], x)
    if known is None:
        capture.copies.append((weakref.ref(x), weakref.ref(result)))
    return result


def lies_in_order(capture: Any, node: Node) -> bool | None:
    """Would the elements lie in row-major order? None if that cannot be told.

    NumPy gives the results of elementwise operations the order of their operands.
    """
    seen, waiting = {node}, [node]
    while waiting:
        found = waiting.pop()
        while found in capture.bound and isinstance(capture.bound[found], Node):
            found = capture.bound[found]
        if found.prim is None:
            shadow = capture.origins.get(found)
            if shadow is None:
                return None
            shadow.order_asked = True
            if not shadow.array.flags.c_contiguous:
                return False if found is node else None
        elif found.prim.kind == "elementwise" or found.prim.name in ("reshape", "cast"):
            fresh = [edge for edge in found.inputs if edge is not None and edge not in seen]
            seen.update(fresh)
            waiting += fresh
        elif found.prim.name == "broadcast" and found is not node:
            continue                        # stretched, and so without an order to hand on
        elif found.prim.name not in ("matmul", "linear"):
            return None
    return True


def refuse_order(capture: Any, x: Any, what: str) -> None:
    """What may be a contiguous() of x or x itself must not be written while both are used."""
    if not capture.copies:
        return
    top = memory_root(x)
    for pair in capture.copies:
        both = [reference() for reference in pair]
        if None not in both and any(memory_root(tensor) is top for tensor in both):
            raise InPlaceError(
                f"{what} at {Origin.now()} inside a compiled function, while a tensor "
                f"({type_of(both[0])}) and its contiguous() are both in use: whether these "
                "share memory is not known there. Use clone() in place of contiguous().")


def replace_data(capture: Any, tensor: Any, value: Any) -> None:
    """`tensor.data = value`: the tensor shows other memory from now on."""
    what = ".data ="
    if not isinstance(value, Value):
        value = new(np.asarray(value, tensor.dtype))
    target, source = memory_root(tensor), memory_root(value)
    if target is source and memory_path(tensor) == memory_path(value):
        return                                # p.data -= g: the write was done already
    if value.shape != tensor.shape or value.dtype != tensor.dtype:
        raise ShapeError(f"{what} at {Origin.now()} gives a {type_of(tensor)} tensor "
                         f"{type_of(value)} inside a compiled function; shape and dtype must "
                         "stay. Change them outside.")
    if capture.shadow_of(value) is not None or source is not value or memory_root(
            tensor) is not tensor or living_views(tensor) or twins(tensor):
        raise InPlaceError(
            f"{what} at {Origin.now()} would let two tensors share memory, or part those that "
            "do, inside a compiled function. Write tensor.data.copy_(value) instead.")
    shadow = capture.shadow_of(tensor)
    if value._value is not None:
        capture.turn_abstract(value, capture.constant(value._value))
    if shadow is None and tensor._value is not None:
        capture.turn_abstract(tensor, capture.constant(tensor._value))
    if shadow is not None and shadow.left is None:
        shadow.left = shadow.node
    other = capture.memory_of.get(value._node, value._node)
    rebind(capture, tensor, capture.untracked(value._node))
    capture.memory_of[tensor._node] = other
    link(capture, value, tensor)


def assign(capture: Any, x: Any, make: Callable[[Any], Any], what: str) -> Any:
    """Write make(x) into the memory of x and into its history; returns x."""
    refuse_order(capture, x, what)
    if state.tracing == "vmap":
        refuse_ambiguous(root_of(x), what)
    else:
        part_copies(capture, x, what)
    root = root_of(x)
    if x._value is not None:
        check(x, root, what)
        result = fitting(make(x), x, what)
        if result._value is not None:
            if result._value is not x._value:
                np.copyto(x._value, result._value)
            wrote(x._value, what)
            return x
        group_abstract(capture, x, what)
    else:
        check_write(capture, x, root, what)
        result = fitting(make(x), x, what)
    if result._value is not None:
        result = new(None, capture.constant(result._value))
    recording = bool(state.recording)
    if state.tracing == "vmap":
        check_batched(capture, root, result, what)
        connect(x, root, new(None, root._node), result)
        refresh(root)
        return x
    history = recording and any(is_tracked(t._node) for t in (root, x, result))
    top = memory_root(x)
    others = top is not root or any(t is not root for t in members(root) if twins(t))
    if not history or others:
        with capture.recorded_as(False):
            value = new(None, capture.untracked(result._node))
            value = put_back(new(None, top._node), view_steps(x), value)
            values = list(spread(capture, top, capture.untracked(value._node)))
    if history:
        own = members(root)
        connect(x, root, new(None, root._node), result)
        refresh(root)
        if others:
            for tensor, node in values:
                if not any(tensor is t for t in own):
                    rebind(capture, tensor, node)
    else:
        for tensor, node in values:
            rebind(capture, tensor, node)
    return x


def part_copies(capture: Any, x: Any, what: str) -> None:
    """Before a write: a reshape that eager execution makes as a copy is no view any more."""
    waiting = [memory_root(x)]
    while waiting:
        parent = waiting.pop()
        waiting += twins(parent)
        for child in living_views(parent):
            prim, params = child._extra.view_of
            if prim.name == "reshape" and parent.ndim > 1 and parent._value is None and (
                    capture.is_made(child)
                    and [n for n in parent.shape if n != 1] != [n for n in child.shape if n != 1]):
                shared = is_view(capture, parent._node, prim, params)
                if shared is None:
                    raise InPlaceError(
                        f"{what} at {Origin.now()} inside a compiled function, while "
                        f"{type_of(parent)} and its reshape {type_of(child)} are both in use: "
                        "whether these share memory is not known there. Write the change as a new "
                        "tensor, or reshape a clone().")
                if not shared:
                    child._extra.parent = child._extra.view_of = None
                    parent._extra.children[:] = [
                        reference for reference in parent._extra.children
                        if reference() is not child]
            waiting.append(child)


def check_write(capture: Any, x: Any, root: Any, what: str) -> None:
    """As the eager engine refuses it: a leaf that is recorded must not be written."""
    shadow = capture.shadows.get(id(memory_root(x)))
    if shadow is not None:
        flags = shadow.array.flags
        if not flags.writeable or (shadow.array.size > 1 and 0 in shadow.array.strides):
            raise InPlaceError(
                f"{what} at {Origin.now()} on a tensor ({type_of(shadow.array)}) whose memory "
                "is read-only, or whose elements are one place in memory. Use a clone().")
    if not state.recording or state.tracing == "vmap":
        return
    for tensor, kind in ((x, "a leaf"), (root, "a view of a leaf")):
        node = tensor._node
        if node.prim is None and node.plan is not INPUT:
            raise InPlaceError(
                f"{what} on {kind} ({type_of(tensor)}) that requires a gradient: its gradient "
                "would belong to the value before the change. Update it inside `with "
                "cr.no_grad():`, or work on x.clone().")


def check_batched(capture: Any, root: Any, result: Any, what: str) -> None:
    """Inside vmap, what is outside of it has no axis of the batch to take the values."""
    if capture.shadow_of(root) is not None or (
            has_items(capture, result._node) and not has_items(capture, root._node)):
        raise InPlaceError(f"{what} inside vmap writes into a tensor ({type_of(root)}) from "
                           "outside the mapped function; return the value instead")


def has_items(capture: Any, node: Node) -> bool:
    """Does the node depend on an item of a vmapped batch?"""
    known = {entry.node for entry in capture.inputs}
    seen, stack = {node}, [node]
    while stack:
        found = stack.pop()
        if found.prim is None and found not in known and found not in capture.bound:
            return True
        for edge in found.inputs:
            if edge is not None and edge not in seen:
                seen.add(edge)
                stack.append(edge)
    return False


def spread(capture: Any, top: Any, node: Node) -> Iterator[tuple[Any, Node]]:
    """(tensor, value) of all that shares the memory of `top`, when that gets a value.

    Views from outside that nobody touched are left out: they show the memory itcapture.
    """
    waiting = [(top, node)]
    while waiting:
        tensor, value = waiting.pop()
        yield tensor, value
        waiting += [(twin, value) for twin in twins(tensor)]
        for child in living_views(tensor):
            if capture.is_made(child) or id(child) in capture.shadows:
                prim, params = child._extra.view_of
                waiting.append((child, bind(prim, new(None, value), **params)._node))


def rebind(capture: Any, tensor: Any, value: Node) -> None:
    """The tensor has another value; its place in the graph of gradients stays."""
    old = tensor._node
    if not is_tracked(old):
        tensor._node = value
    elif old.prim is None:
        leaf = capture.node(None, (), NO_PARAMS, (), old.out, old.plan, old.shape, old.dtype)
        leaf.hooks = old.hooks
        if old in capture.history:
            capture.history.add(leaf)
        if old in capture.leaves:
            capture.leaves[leaf] = capture.leaves[old]
        tensor._node = capture.stand_in(value, leaf)
    else:
        passed = capture.node(TABLE["identity"], (old,), NO_PARAMS, (new(None, old),), None, None,
                           old.shape, old.dtype)
        tensor._node = capture.stand_in(value, passed)


def group_abstract(capture: Any, x: Any, what: str) -> None:
    """All that shares the memory of a constant becomes traced values."""
    top = memory_root(x)
    owner = storage_of(slots.value_of(top))
    group = list(spread_constants(capture, top))
    inside = {id(tensor) for tensor, _ in group}
    for key, reference in list(capture.made.items()):
        tensor = reference()
        if tensor is not None and key not in inside and storage_of(
                slots.value_of(tensor)) is owner:
            raise InPlaceError(
                f"{what} at {Origin.now()} writes a traced value into memory that two tensors "
                f"({type_of(top)} and {type_of(tensor)}) share by way of NumPy. Use a clone().")
    for tensor, node in group:
        capture.turn_abstract(tensor, node)


def spread_constants(capture: Any, top: Any) -> Iterator[tuple[Any, Node]]:
    waiting = [top]
    while waiting:
        tensor = waiting.pop()
        yield tensor, capture.constant(tensor._value)
        waiting += [*twins(tensor), *living_views(tensor)]
