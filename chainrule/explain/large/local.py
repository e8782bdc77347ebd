"""Local derivatives by element, of any row, from its backward rule alone.

A rule is linear in the gradient it is given: it maps g to Jᵀg. Differentiated once more, in g, it
gives J·t for any t. So whatever the tape kept for the backward pass is also enough to follow one
number forward, and no row needs to say anything for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from chainrule.autodiff.forward import leaf
from chainrule.autodiff.reverse import reverse
from chainrule.autograd import enable_grad
from chainrule.core.node import Node
from chainrule.core.record import UNREAD, new
from chainrule.explain.recording import Recording

STAND_INS = 1.25, 0.75       # whatever they are: positive, so that a logarithm takes them


class Locals:
    """The local derivatives of one recording; rules are run once and kept."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._rules: dict[tuple[Node, int, float | None], tuple[Any, Any] | None] = {}

    def push(self, node: Node, i: int, tangent: Any) -> Any:
        """J·t: how the result of `node` moves when its operand i moves along `tangent`.

        The rule multiplies the zeros of t, too, and 0·nan is nan. What comes out the same whatever
        finite numbers stand in the place of nan and ∞ does not depend on them, so it is that.
        """
        moved = self._pushed(node, i, tangent, None)
        if np.all(np.isfinite(moved)):
            return moved
        one, other = (self._pushed(node, i, tangent, finite) for finite in STAND_INS)
        return np.where(one == other, one, moved)

    def _pushed(self, node: Node, i: int, tangent: Any, finite: float | None) -> Any:
        key = (node, i, finite)
        if key not in self._rules:
            self._rules[key] = self._rule(node, i, finite)
        rule = self._rules[key]
        if rule is None:
            return np.zeros(node.shape, node.dtype)
        term, g = rule
        seed = np.asarray(tangent, term.dtype).reshape(term.shape)
        found = reverse([(term._node, seed)], [g], retain_graph=True).get(g)
        return np.zeros(node.shape, node.dtype) if found is None else found

    def _rule(self, node: Node, i: int, finite: float | None) -> tuple[Any, Any] | None:
        prim = node.prim
        pull = prim.pulls[i] if prim is not None else None
        if pull is None:
            return None
        with enable_grad():
            g = np.asarray(self.recording.gradients[node]).reshape(node.shape)
            g = leaf(new(g if finite is None else np.ones_like(g)))
            result, operands = self._result(node), self._operands(node)
            if finite is not None:
                result, *operands = (filled(one, finite) for one in (result, *operands))
            term = pull(g, result, *operands, **node.params)
        if getattr(term, "_node", None) is None:
            return None
        return term, g._node

    def pull(self, node: Node, i: int, g: Any) -> Any:
        """Jᵀg: what a gradient of the result of `node` is in its operand i."""
        prim = node.prim
        pull = prim.array_pulls[i] if prim is not None else None
        if pull is None:
            return None
        saved, out = self.recording.saved[node]
        return pull(np.asarray(g, node.dtype), node if out is None else out, *saved,
                    **node.params)

    def _operands(self, node: Node) -> list[Any]:
        result = []
        for value, edge in zip(self.recording.saved[node][0], node.inputs, strict=True):
            if type(value) is np.ndarray:
                if edge is not None and value.shape != edge.shape:
                    value = np.broadcast_to(value, edge.shape)
                value = new(value)
            result.append(value)
        return result

    def _result(self, node: Node) -> Any:
        out = self.recording.saved[node][1]
        return new(out) if type(out) is np.ndarray else node

    def reads(self, node: Node, tangent: Any) -> list[tuple[Node, Any]]:
        """How each step that reads `node` moves along: the visible ones, with their tangents.

        Rearrangements that are not written as steps are gone through.
        """
        recording = self.recording
        found: dict[Node, Any] = {}
        waiting = [(node, tangent)]
        while waiting:
            here, t = waiting.pop()
            for user, i in recording.users(here):
                if user not in recording.gradients:
                    continue
                moved = self.push(user, i, t)
                if user in recording.hidden:
                    waiting.append((user, moved))
                else:
                    found[user] = found[user] + moved if user in found else moved
        return sorted(found.items(), key=lambda pair: pair[0].seq)

    def back(self, start: Node, g: Any, inside: Iterable[Node]) -> dict[Node, Any]:
        """∂(g·start)/∂node for the nodes that the steps `inside` read, from `start` down."""
        within = set(inside)
        bars: dict[Node, Any] = {start: np.asarray(g, start.dtype).reshape(start.shape)}
        for node in sorted(within, key=lambda n: n.seq, reverse=True):
            if node not in bars or node.plan is UNREAD:
                continue
            for i, edge in enumerate(node.inputs):
                term = None if edge is None else self.pull(node, i, bars[node])
                if edge is not None and term is not None:
                    bars[edge] = bars[edge] + term if edge in bars else term
        return bars


def filled(value: Any, finite: float) -> Any:
    """An operand with a finite number in the place of nan and ∞."""
    array = getattr(value, "_value", None)
    if array is None or array.dtype.kind != "f" or np.all(np.isfinite(array)):
        return value
    return new(np.where(np.isfinite(array), array, np.asarray(finite, array.dtype)))


def one_hot(node: Node, place: tuple[int, ...]) -> Any:
    """1 at one element of a node, 0 elsewhere."""
    tangent = np.zeros(node.shape, node.dtype)
    tangent[place] = 1
    return tangent
