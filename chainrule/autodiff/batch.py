"""Batching: a function traced once without numbers, its rows replayed with one more axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core import node as clock
from chainrule.core.bind import state
from chainrule.core.errors import BatchingError
from chainrule.core.node import Node, written_after
from chainrule.core.record import UNREAD, placeholder
from chainrule.core.types import ArrayType, type_of

from .reverse import overwritten


def by_edges(roots: Sequence[Node], earliest: int) -> list[Node]:
    """All nodes the roots depend on, gradient or not, first recorded first."""
    seen = set(roots)
    stack = list(seen)
    while stack:
        for edge in stack.pop().inputs:
            if edge is not None and edge not in seen and edge.seq >= earliest:
                seen.add(edge)
                stack.append(edge)
    return sorted(seen, key=lambda n: n.seq)


def replay(outputs: Sequence[Any], env: dict[Node, tuple[Any, int | None]]) -> list[Any]:
    """(value, batch axis) of each output, given those of the placeholders in `env`."""
    earliest = min(n.seq for n in env)
    roots = [y._node for y in outputs if y._node is not None]
    for node in by_edges(roots, earliest):
        if node in env or not any(edge in env for edge in node.inputs):
            continue
        xs: list[Any] = []
        axes: list[int | None] = []
        for saved, edge in zip(node.saved, node.inputs, strict=True):
            x, axis = env[edge] if edge in env else (unwritten(saved, node), None)
            xs.append(x)
            axes.append(axis)
        before = state.recording
        if node.plan is UNREAD:             # traced under no_grad: replayed under it
            state.recording = 0
        try:
            env[node] = one(node, xs, axes)
        finally:
            state.recording = before
    return [env.get(y._node, (y, None)) if y._node is not None else (y, None) for y in outputs]


def unwritten(x: Any, node: Node) -> Any:
    """A value from outside the traced function, which must still be what it was when recorded."""
    value = getattr(x, "_value", x)
    if clock.last_write > node.seq and isinstance(value, np.ndarray):
        write = written_after(value, node.seq)
        if write is not None:
            raise overwritten(node, f"operand ({type_of(value)})", write)
    return x


def one(node: Node, xs: list[Any], axes: list[int | None]) -> tuple[Any, int | None]:
    prim = node.prim
    assert prim is not None
    if all(axis is None for axis in axes):
        return prim(*xs, **node.params), None
    if prim.kind == "composite":
        return batch_definition(prim, xs, axes, node.params)
    assert prim.batch is not None
    y: tuple[Any, int | None] = prim.batch(xs, axes, **node.params)
    return y


def item_type(x: Any, axis: int) -> ArrayType:
    """The type of one item of a batch."""
    return ArrayType(tuple(n for i, n in enumerate(x.shape) if i != axis), x.dtype)


def batch_definition(prim: Any, xs: Sequence[Any], axes: Sequence[int | None],
                     params: dict[str, Any]) -> tuple[Any, int | None]:
    """A composition is batched by batching its definition."""
    items = [x if axis is None else placeholder(item_type(x, axis))
             for x, axis in zip(xs, axes, strict=True)]
    y = prim.definition(*items, **params)
    env: dict[Node, tuple[Any, int | None]] = {
        item._node: (x, axis) for item, x, axis in zip(items, xs, axes, strict=True)
           if axis is not None}
    result: tuple[Any, int | None] = replay([y], env)[0]
    return result


class Draws:
    """What random numbers do inside vmap: refuse, be the same for all, or differ."""

    def __init__(self, randomness: str, size: int, outer: Any) -> None:
        if randomness not in ("error", "same", "different"):
            raise BatchingError(f"vmap(randomness={randomness!r}): write 'error', 'same' or "
                                "'different'")
        self.randomness = randomness
        self.size = size
        self.outer = outer
        self.env: dict[Node, tuple[Any, int | None]] = {}

    def draw(self, make: Any, shape: tuple[int, ...]) -> Any:
        """`make(shape)` as the mode says; one item of the batch is returned."""
        if self.randomness == "error":
            raise BatchingError(
                "random numbers were drawn inside vmap. Say what is meant: vmap(f, "
                "randomness='same') draws once for all items, randomness='different' once for "
                "each.")
        if self.randomness == "same":
            return self.outer.draw(make, shape) if self.outer is not None else make(shape)
        full = (self.size, *shape)
        batched = self.outer.draw(make, full) if self.outer is not None else make(full)
        item = placeholder(item_type(batched, 0))
        self.env[item._node] = (batched, 0)
        return item


