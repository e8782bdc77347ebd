"""Forward mode: tangents pushed through a recording that kept every value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.core.bind import state
from chainrule.core.node import Node
from chainrule.core.primitive import TABLE
from chainrule.core.record import leaf_node, new

from .reverse import affected, operands, output, reachable


class keeping_everything:
    """While this runs, nodes keep all values, since tangent rules may read any of them."""

    def __enter__(self) -> None:
        self.before = state.recording
        state.recording = 2

    def __exit__(self, *exc: Any) -> None:
        state.recording = self.before


def leaf(x: Any) -> Any:
    """A fresh start of a graph with the value of x, still connected to what x depends on."""
    if x._node is not None:
        before, state.recording = state.recording, state.recording or 1
        try:
            tensor = TABLE["identity"](x)
        finally:
            state.recording = before
        if tensor._value is None:
            tensor._node.plan = None          # a start of gradients, whether x was one or not
            if state.capture is not None:
                state.capture.starts.add(tensor._node)
        return tensor
    tensor = new(x._value)
    tensor._node = leaf_node(tensor, tensor._value.shape, tensor._value.dtype)
    return tensor


def push(outputs: Sequence[Any], leaves: Sequence[Any], tangents: Sequence[Any],
         connected: bool = True) -> list[Any]:
    """Tangents of the outputs (None where there is none), given those of the leaves.

    What the rules read is `connected` to the graph, or constant where only tangents are tracked.
    """
    dots: dict[Node, Any] = {x._node: t for x, t in zip(leaves, tangents, strict=True)}
    wanted = list(dots)
    roots = [y._node for y in outputs if y._node is not None]
    order = reachable(roots, min(n.seq for n in wanted))
    on = affected(order, wanted)
    for node in reversed(order):
        if node in dots or node not in on:
            continue
        ts = [dots.get(edge) if edge is not None else None for edge in node.inputs]
        if all(t is None for t in ts):
            continue
        prim = node.prim
        assert prim is not None
        if prim.kind == "composite":
            dot = composite_tangent(prim, operands(node, connected), ts, node.params, connected)
        elif prim.jvp is None:
            continue
        else:
            dot = prim.jvp(ts, output(node, connected), *operands(node, connected), **node.params)
        if dot is not None:
            dots[node] = dot
    return [dots.get(y._node) if y._node is not None else None for y in outputs]


def composite_tangent(prim: Any, xs: Sequence[Any], ts: Sequence[Any],
                      params: dict[str, Any], connected: bool = True) -> Any:
    """The tangent of a composition: its definition, run on fresh leaves and pushed through."""
    with keeping_everything():
        varied = [leaf(x) if t is not None else x for x, t in zip(xs, ts, strict=True)]
        y = prim.definition(*varied, **params)
    moving = [(x, t) for x, t in zip(varied, ts, strict=True) if t is not None]
    return push([y], [x for x, _ in moving], [t for _, t in moving], connected)[0]



