"""The graph of one loss as rules ask about it: who made this, who reads it, how steep it is.

Nothing here knows an operation by name; rules that do say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of, reachable, reverse
from chainrule.core import events
from chainrule.core.node import Node
from chainrule.core.primitive import TABLE

Array = np.ndarray[Any, Any]


def outermost(node: Node) -> Any:
    """The module whose call by the user made this node, None if it was made outside of all."""
    scope = node.scope
    while scope is not None and scope[0] is not None:
        scope = scope[0]
    return None if scope is None else scope[1]


# Rearrangements, through which one looks for what was computed.
PASSING = frozenset(("reshape", "transpose", "broadcast", "cast", "identity", "slice", "squeeze",
                     "unsqueeze", "flip", "index"))


class Graph:
    """What a backward pass is about to walk over, and what the tape keeps until then.

    `order` are all nodes, operands before results; `saved` and `outs` their operands and results as
    the tape kept them: the pass drops these from the nodes.
    """

    def __init__(self, roots: list[tuple[Node, Any]], gradients: dict[Node, Array] | None = None
                 ) -> None:
        self.roots = roots
        self._gradients = gradients
        self.order: list[Node] = reachable([node for node, _ in roots])[::-1]
        self.saved: dict[Node, tuple[Any, ...]] = {node: node.saved for node in self.order}
        self.outs: dict[Node, Any] = {node: node.out for node in self.order
                                      if node.prim is not None}

    @property
    def root(self) -> Node:
        return self.roots[0][0]

    @cached_property
    def modules(self) -> set[int]:
        """The ids of the models that took part."""
        return {id(outermost(node)) for node in self.order}

    @cached_property
    def leaves(self) -> list[Node]:
        return [node for node in self.order if node.prim is None]

    @cached_property
    def values(self) -> dict[Node, Array]:
        """The value of each node, where it or one of its readers kept it."""
        found: dict[Node, Array] = {}
        for node in self.order:
            if type(self.outs.get(node)) is np.ndarray:
                found[node] = self.outs[node]
            for value, edge in zip(self.saved[node], node.inputs, strict=False):
                if edge is not None and type(value) is np.ndarray and value.shape == edge.shape:
                    found.setdefault(edge, value)
        return found

    @cached_property
    def readers(self) -> dict[Node, list[Node]]:
        found: dict[Node, list[Node]] = {}
        for node in self.order:
            for edge in edges_of(node):
                found.setdefault(edge, []).append(node)
        return found

    def named(self, *names: str) -> Iterator[Node]:
        """The applications of rows with these names."""
        return (node for node in self.order if node.name in names)

    def maker(self, node: Node | None, passing: Iterable[str] = PASSING) -> Node | None:
        """What computed a node, seen through rearrangements."""
        while node is not None and node.name in passing:
            inner = edges_of(node)
            node = inner[0] if inner else None
        return node

    @property
    def gradients(self) -> dict[Node, Array]:
        """∂L/∂node of every node: as the user's own pass had them, else by one more pass, without
        hooks and on seeds of its own, so that it touches nothing.
        """
        if self._gradients is None:
            hooks = [(node, node.hooks) for node in self.order if node.hooks is not None]
            try:
                for node, _ in hooks:
                    node.hooks = None
                with events.silence():
                    found = reverse([(node, np.array(g)) for node, g in self.roots], self.order,
                                    retain_graph=True)
            finally:
                for node, own in hooks:
                    node.hooks = own
            self._gradients = {node: np.asarray(g) for node, g in found.items()}
        return self._gradients

    def went_by(self, seen: dict[Node, Any]) -> None:
        """The user's backward pass is over; this is what arrived where."""
        self._gradients = {node: np.asarray(getattr(g, "_value", g)) for node, g in seen.items()}

    @property
    def foreign(self) -> bool:
        """Would another pass run code of the user's: hooks, or the backward of a `Function`?"""
        # By the row itself: a `Function` may be called like one.
        return any(node.hooks is not None or (node.prim is not None
                                              and TABLE.get(node.prim.name) is not node.prim)
                   for node in self.order)

    @property
    def sound(self) -> bool:
        """Are the loss and what the leaves get numbers?"""
        found = [self.outs.get(self.root), *(self.gradients.get(leaf) for leaf in self.leaves)]
        return all(np.isfinite(x).all() for x in found if type(x) is np.ndarray)

    @cached_property
    def bends(self) -> list[Node]:
        """The activations: elementwise, of one tracked array, with a slope that is not constant."""
        return [node for node in self.order if self._bends(node)]

    def _bends(self, node: Node) -> bool:
        prim = node.prim
        if (prim is None or prim.kind not in ("elementwise", "composite")
                or len(edges_of(node)) != 1 or "axis" in node.params):
            return False
        arrays = [x for x in self.saved[node] if hasattr(x, "shape")]
        reads = node.plan is not None and (2 in node.plan.inputs or node.plan.output == 2)
        return (reads and len(arrays) == 1 and node.shape == edges_of(node)[0].shape
                and len(node.shape) > 1)

    def slopes(self, node: Node) -> Array | None:
        """The local derivative of an elementwise node at each element, by its own rule.

        None if the tape did not keep what the rule reads.
        """
        number = next((i for i, edge in enumerate(node.inputs) if edge is not None), None)
        pull = None if node.prim is None or number is None else node.prim.array_pulls[number]
        if pull is None or node.plan is None:
            return None
        y, saved = self.outs.get(node), self.saved[node]
        read = [x for level, x in zip(node.plan.inputs, saved, strict=False) if level == 2]
        if any(isinstance(x, Node) for x in read) or len(saved) < len(node.inputs):
            return None
        with np.errstate(all="ignore"):
            return np.asarray(pull(np.ones(node.shape, node.dtype), node if y is None else y,
                                   *saved, **node.params))
