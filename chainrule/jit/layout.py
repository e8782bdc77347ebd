"""How the memory of a traced value would lie in eager execution, where that decides what it means.

Whether a reshape shares memory with what it was made from depends on strides, which a trace does
not have. Where a write needs to know, the rows that made the value are run on zeros that lie as
their operands do: NumPy itself says how the result lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.node import Node, storage_of

Array = np.ndarray[Any, Any]
FAILURES = (ArithmeticError, IndexError, TypeError, ValueError)


def like_eager(capture: Any, node: Node) -> Array | None:
    """Zeros that lie as the value of a node does in eager execution; None if that is not known."""
    known: dict[Node, Array | None] = capture.layouts
    waiting = [node]
    while waiting:
        found = waiting[-1]
        if found in known:
            waiting.pop()
            continue
        first = capture.memory_of.get(found)
        needed = [first] if first is not None else [
            edge for edge in found.inputs if edge is not None] if found.prim is not None else []
        missing = [edge for edge in needed if edge not in known]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        known[found] = known[first] if first is not None else _made(capture, found, known)
    return known[node]


def _made(capture: Any, node: Node, known: dict[Node, Array | None]) -> Array | None:
    if node.prim is None:
        shadow = capture.origins.get(node)
        if shadow is None:
            plain = not node.shape or any(
                key._node is node for _, key, _ in capture.keys.values())   # of random numbers
            return np.zeros(node.shape, node.dtype) if plain else None
        if shadow.left is not None:
            return None
        shadow.order_asked = True
        return zeros_like(shadow.array)
    operands = [value if edge is None else known[edge]
                for edge, value in zip(node.inputs, node.saved, strict=True)]
    if any(x is None for x in operands):
        return None
    try:
        with np.errstate(all="ignore"):
            return np.asarray(node.prim.eval(*operands, **node.params))
    except FAILURES:
        return None


def zeros_like(array: Array) -> Array | None:
    """Zeros with the strides of an array."""
    if any(step < 0 for step in array.strides):
        return None
    span = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True))
    memory = np.zeros(span // array.itemsize + 1 if array.size else 0, array.dtype)
    return np.lib.stride_tricks.as_strided(memory, array.shape, array.strides)


def is_view(capture: Any, parent: Node, prim: Any, params: dict[str, Any]) -> bool | None:
    """Would this view of the value of a node share its memory? None if that is not known."""
    array = like_eager(capture, parent)
    return None if array is None else storage_of(prim.eval(array, **params)) is storage_of(array)
