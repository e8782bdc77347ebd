"""The reverse pass. `.backward()`, `func.grad` and a compiled step all run this one function.

Nodes are visited from the last recorded to the first (each has a number from one clock), so no
recursion is needed and the depth of a graph is bounded by memory alone. Rules run on bare arrays;
only when the result must itself be differentiable, or has no numbers, do they run on Tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..core import node as clock
from ..core.bind import state
from ..core.config import settings
from ..core.errors import FreedGraphError, OverwrittenError
from ..core.node import Node, Origin, Write, written_after
from ..core.primitive import TABLE
from ..core.record import UNREAD, new
from ..core.types import type_of

ndarray = np.ndarray
by_time = attrgetter("seq")


def reachable(roots: Iterable[Node], earliest: int = 0) -> list[Node]:
    """All nodes from which a gradient path starts at the roots, latest first."""
    seen = set(roots)
    stack = list(seen)
    push, pop, add = stack.append, stack.pop, seen.add
    while stack:
        node = pop()
        if node.plan is UNREAD:
            continue
        for edge in node.inputs:
            if edge is not None and edge not in seen and edge.seq >= earliest:
                add(edge)
                push(edge)
    return sorted(seen, key=by_time, reverse=True)


def affected(order: Sequence[Node], wanted: Iterable[Node]) -> set[Node]:
    """Those of `order` (latest first) that depend on one of `wanted`."""
    on = set(wanted)
    for node in reversed(order):
        if node in on or node.plan is UNREAD:
            continue
        for edge in node.inputs:
            if edge in on:
                on.add(node)
                break
    return on


def reverse(roots: Sequence[tuple[Node, Any]], wanted: Sequence[Node] | None = None, *,
            retain_graph: bool = False, on_tensors: bool = False) -> dict[Node, Any]:
    """Cotangents of the leaves below the roots, or of the `wanted` nodes.

    `roots` are pairs of a node and its cotangent: arrays, or Tensors if `on_tensors`.
    """
    bars: dict[Node, Any] = {}
    for node, g in roots:
        bars[node] = g if node not in bars else bars[node] + g
    earliest = 0 if wanted is None else min([n.seq for n in wanted], default=0)
    order = reachable(bars, earliest)
    live = None if wanted is None else affected(order, wanted)
    stop = frozenset() if wanted is None else frozenset(wanted)
    results: dict[Node, Any] = {}
    guarded: set[Node] = set()
    freed_at: Origin | None = None
    for node in order:
        g = bars.pop(node, None)
        if g is None:
            continue
        if node.hooks is not None:
            g = run_hooks(node, g, on_tensors)
        if node in stop or node.prim is None:
            results[node] = g
            if node.prim is None or all(edge not in live for edge in node.inputs):  # type: ignore[operator]
                continue
        if node.plan is UNREAD:
            continue
        if node.freed is not None:
            raise second_pass(node)
        prim = node.prim
        if clock.last_write > node.seq:
            check_saved(node)
        params = node.params
        pulls = prim.pulls
        edges = node.inputs
        if on_tensors:
            saved: Any = operands(node)
            y = output(node)
        else:
            saved = node.saved
            y = node.out if node.out is not None else node
        guard = bool(guarded) and node in guarded
        for i, edge in enumerate(edges):
            if edge is None or (live is not None and edge not in live):
                continue
            pull = pulls[i]
            if pull is None:
                continue
            gx = pull(g, y, *saved, **params) if params else pull(g, y, *saved)
            if prim.selects:
                guarded.add(edge)
            elif guard:
                guarded.add(edge)
                if prim.kind == "elementwise":
                    gx = TABLE["keep"](gx, TABLE["ne"](g, 0))
            before = bars.get(edge)
            if before is not None:
                bars[edge] = before + gx
            elif edge.prim is None and not on_tensors and (gx is g or gx.base is not None):
                bars[edge] = gx.copy()        # a leaf keeps its gradient: it must not be shared
            else:
                bars[edge] = gx
        if not retain_graph and node.plan is not None and node.plan.any:
            if freed_at is None:
                freed_at = Origin.now()
            free(node, freed_at)
    return results


def free(node: Node, where: Origin) -> None:
    """Drop what was saved, except for small values, which explain may still want to show."""
    node.freed = where
    limit = settings.keep_small
    out = node.out
    if out is None or out.size > limit:
        node.saved, node.out = (), None
    elif any(type(s) is ndarray and s.size > limit for s in node.saved):
        node.saved = ()


def operands(node: Node) -> list[Any]:
    """The operands of a node as Tensors that are connected to the graph."""
    result = []
    for value, edge in zip(node.saved, node.inputs, strict=True):
        if type(value) is ndarray:
            if edge is not None and value.shape != edge.shape:
                value = np.broadcast_to(value, edge.shape)
            result.append(new(value, edge))
        else:
            result.append(value)
    return result


def output(node: Node) -> Any:
    """The result of a node as a Tensor, or the node itself where only its type is known."""
    if type(node.out) is ndarray:
        return new(node.out, node)
    return new(None, node) if node.plan is None else node


def run_hooks(node: Node, g: Any, on_tensors: bool) -> Any:
    """Tensor hooks in the order they were registered; each may replace the gradient."""
    given = g if on_tensors else new(np.asarray(g))
    for hook in list(node.hooks.values()):
        answer = hook(given)
        if answer is not None:
            given = answer
    return given if on_tensors else given._value


# ---------------------------------------------------------------- what can go wrong


def second_pass(node: Node) -> FreedGraphError:
    return FreedGraphError(
        f"the backward pass reached {node.name} ({node.type}) at {node.origin} a second time. Its "
        f"saved values were dropped by the first pass, at {node.freed}.\n"
        f"    {node.origin.source()}\n"
        "Most often this part was computed once, before the loop, and is used in every step: move "
        "it into the loop, or detach() what should not be trained through. If two backward passes "
        "through one graph are meant, write backward(retain_graph=True) in the first.")


def check_saved(node: Node) -> None:
    """Raise if a value the rules of `node` read was changed in place after it was saved."""
    plan = node.plan
    if plan is None:
        return
    for i, (level, value) in enumerate(zip(plan.inputs, node.saved, strict=False)):
        if level == 2 and type(value) is ndarray:
            write = written_after(value, node.seq)
            if write is not None:
                what = f"operand {i + 1} ({type_of(value)})"
                raise overwritten(node, what, write)
    if plan.output == 2 and type(node.out) is ndarray:
        write = written_after(node.out, node.seq)
        if write is not None:
            raise overwritten(node, f"result ({node.type})", write)


def overwritten(node: Node, what: str, write: Write) -> OverwrittenError:
    saved, wrote = node.origin, write.origin
    return OverwrittenError(
        f"the {what} of {node.name} was changed in place before the backward pass could read it.\n"
        f"  saved at       {saved}\n      {saved.source()}\n"
        f"  overwritten at {wrote} by {write.what}\n      {wrote.source()}\n"
        "Write the change as a new tensor (x = x + 1 instead of x += 1), or change a clone().")


def recording_off() -> Any:
    """For rules run on Tensors without recording them."""
    return _Recording(0)


class _Recording:
    def __init__(self, mode: int) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        self.before = state.recording
        state.recording = self.mode

    def __exit__(self, *exc: Any) -> None:
        state.recording = self.before
