"""The reverse pass. `.backward()`, `func.grad` and a compiled step all run this one function.

Nodes are visited from the last recorded to the first (each has a number from one clock), so no
recursion is needed and the depth of a graph is bounded by memory alone. Rules run on bare arrays;
only when the result must itself be differentiable, or has no numbers, do they run on Tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any

import numpy as np

from chainrule.core import node as clock
from chainrule.core.bind import Value, state
from chainrule.core.config import settings
from chainrule.core.errors import (
    FreedGraphError,
    GradientError,
    OverwrittenError,
    ShapeError,
)
from chainrule.core.events import heard
from chainrule.core.node import Node, Origin, Write, here, written_after
from chainrule.core.primitive import TABLE
from chainrule.core.record import UNREAD, new
from chainrule.core.types import type_of

ndarray = np.ndarray
by_time = attrgetter("seq")


def edges_of(node: Node) -> list[Node]:
    """The nodes a gradient goes to from this one."""
    return [] if node.plan is UNREAD else [edge for edge in node.inputs if edge is not None]


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
            retain_graph: bool = False, on_tensors: bool = False,
            connected: bool = True) -> dict[Node, Any]:
    """Cotangents of the leaves below the roots, or of the `wanted` nodes.

    `roots` are pairs of a node and its cotangent: arrays, or Tensors if `on_tensors`. What rules
    read is then `connected` to the graph, or constant where only the cotangents may be tracked.
    What the rules record has the place and module of the node they belong to.
    """
    scope = state.scope
    try:
        return _reverse(roots, wanted, retain_graph, on_tensors, connected)
    finally:
        state.scope = scope


def _reverse(roots: Sequence[tuple[Node, Any]], wanted: Sequence[Node] | None, retain_graph: bool,
             on_tensors: bool, connected: bool) -> dict[Node, Any]:
    live: set[Node] | None = None
    stop: frozenset[Node] = frozenset()
    if wanted is not None:
        stop = frozenset(wanted)
        order = reachable([node for node, _ in roots], min([n.seq for n in wanted], default=0))
        live = affected(order, wanted)
    bars: dict[Node, Any] = {}
    waiting: list[tuple[int, Node]] = []          # latest first: all uses of a node come before it
    for node, g in roots:
        if node in bars:
            bars[node] = bars[node] + g
        else:
            bars[node] = g
            heappush(waiting, (-node.seq, node))
    results: dict[Node, Any] = {}
    guarded: set[Node] = set()
    freed_at: Any = None
    limit = settings.keep_small
    seen, state.seen = state.seen, None           # of this pass, not of one within it
    dropped = state.dropped if state.capture is None else None
    if dropped is not None and not heard:         # nobody listens any more
        dropped = state.dropped = None
    if dropped is not None:                       # of the last pass only
        dropped.clear()
        dropped.append((roots, (), None))
    last_write = clock.last_write
    while waiting:
        node = heappop(waiting)[1]
        g = bars.pop(node)
        if node.hooks is not None:
            g = run_hooks(node, g, on_tensors)
        if seen is not None:
            seen[node] = g
        prim = node.prim
        if prim is None or node in stop:
            results[node] = g
            if prim is None or all(edge not in live for edge in node.inputs):  # type: ignore[operator]
                continue
        plan = node.plan
        if plan is UNREAD:
            continue
        if node.freed is not None:
            raise second_pass(node)
        if last_write > node.seq:
            check_saved(node)
        params = node.params
        if on_tensors:
            pulls = prim.pulls
            saved: Any = operands(node, connected)
            y = output(node, connected)
            outer = node.scope
            place = (node.code, node.lasti) if node.code is not None else None
            state.scope = (None, None, place) if outer is None else (*outer[:2], place)
        else:
            pulls = prim.array_pulls
            saved = node.saved
            y = node.out
            if y is None:
                y = node
        guard = prim.selects or (guarded and node in guarded)
        i = -1
        for edge in node.inputs:
            i += 1
            if edge is None or (live is not None and edge not in live):
                continue
            pull = pulls[i]
            if pull is None:
                continue
            gx = pull(g, y, *saved, **params) if params else pull(g, y, *saved)
            if guard:
                guarded.add(edge)
                if not prim.selects and prim.kind == "elementwise":
                    gx = TABLE["keep"](gx, TABLE["ne"](g, 0) | TABLE["isfinite"](gx))
            if edge.prim is None and live is None and edge.hooks is None:
                before = results.get(edge)
                if before is not None:
                    results[edge] = before + gx
                elif not on_tensors and (gx is g or gx.base is not None):
                    results[edge] = gx.copy()     # a leaf keeps its gradient: it is not shared
                else:
                    results[edge] = gx
            elif edge in bars:
                bars[edge] = bars[edge] + gx
            else:
                bars[edge] = gx
                heappush(waiting, (-edge.seq, edge))
        if not retain_graph and plan is not None and plan.any:
            if freed_at is None:
                freed_at = here()
            node.freed = freed_at
            out = node.out
            if dropped is not None:
                dropped.append((node, node.saved, out))
            if out is None or out.size > limit:
                node.saved = ()
                node.out = None
            else:
                free(node, limit)
    if seen is not None:
        for node, g in results.items():           # a leaf's becomes .grad, into which one may write
            seen[node] = g.copy() if type(g) is ndarray else g
    if not on_tensors:
        for node in stop:                         # seeds and shared arrays, as for leaves
            if node in results:
                results[node] = results[node].copy()
    return results


def free(node: Node, limit: int) -> None:
    """Drop the large values of a node whose result is small; small ones stay for explain."""
    for value in node.saved:
        if type(value) is ndarray and value.size > limit:
            node.saved = ()
            return


def operands(node: Node, connected: bool = True) -> list[Any]:
    """The operands of a node as Tensors, connected to the graph or not."""
    result = []
    for value, edge in zip(node.saved, node.inputs, strict=True):
        if type(value) is ndarray:
            if edge is not None and value.shape != edge.shape:
                value = np.broadcast_to(value, edge.shape)
            result.append(new(value, edge if connected else None))
        else:
            result.append(value)
    return result


def output(node: Node, connected: bool = True) -> Any:
    """The result of a node as a Tensor, or the node itself where only its type is known."""
    if type(node.out) is ndarray:
        return new(node.out, node if connected else None)
    return new(None, node) if node.plan is None else node


def run_hooks(node: Node, g: Any, on_tensors: bool) -> Any:
    """Tensor hooks in the order they were registered; each may replace the gradient."""
    given = g if on_tensors else new(np.asarray(g))
    for hook in list(node.hooks.values()):
        answer = hook(given)
        if answer is not None:
            if not isinstance(answer, Value):
                raise GradientError(f"a hook on the gradient of {node.name} ({node.type}) at "
                                    f"{node.origin} returned {type(answer).__name__}; return a "
                                    "tensor, or None to leave the gradient as it is")
            if tuple(answer.shape) != tuple(given.shape):
                raise ShapeError(
                    f"a hook on {node.name} at {node.origin} returned {type_of(answer)} for the "
                    f"gradient {type_of(given)}: a hook may change the numbers, not the shape")
            given = answer
    return given if on_tensors else given._value


# ---------------------------------------------------------------- what can go wrong


def second_pass(node: Node) -> FreedGraphError:
    freed_at = Origin.of(node.freed[0], node.freed[1], None) if node.freed else None
    return FreedGraphError(
        f"the backward pass reached {node.name} ({node.type}) at {node.origin} a second time. Its "
        f"saved values were dropped by the first pass, at {freed_at}.\n"
        f"    {node.origin.source()}\n"
        "Most often this part was computed once, before the loop, and is used in every step: move "
        "it into the loop, or detach() what should not be trained through. If two backward passes "
        "through one graph are meant, write backward(retain_graph=True) in the first."
        ).about("CR306", node.origin, *([freed_at] if freed_at else ()))


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
        "Write the change as a new tensor (x = x + 1 instead of x += 1), or change a clone()."
        ).about("CR305", wrote)
