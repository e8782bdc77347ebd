"""The graph of one forward pass with every number of it, run backwards as often as one likes.

The same walk as `autodiff.reverse`, with two additions that marking a derivation needs: gradients
that somebody else computed can take the place of the true ones, and a change made to one term is
carried on to what depends on it (every rule is linear in the gradient that arrives).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from chainrule.autodiff.reverse import edges_of, reachable
from chainrule.core.config import settings
from chainrule.core.errors import GradientError
from chainrule.core.node import Node
from chainrule.core.primitive import TABLE
from chainrule.tensor import Tensor

EVERYTHING = 2**40       # elements: no value is too large to be kept


class Edge(NamedTuple):
    """One way of a gradient: through the node at `place` of the order to its input `slot`."""

    place: int
    slot: int


class Tape:
    """One forward pass. `order` has its nodes, the latest first; `inputs` those of the leaves."""

    def __init__(self, loss: Any, tensors: tuple[Any, ...]) -> None:
        self.root: Node = loss._node
        self.loss = loss
        self.tensors = tensors               # a graph reaches its leaves weakly
        self.inputs: tuple[Node | None, ...] = tuple(
            t._node if isinstance(t, Tensor) else None for t in tensors)
        self.order = reachable([self.root])
        self.place = {node: i for i, node in enumerate(self.order)}
        self.leaves = {node: tensor._value for node in self.order if node.prim is None
                       and node.out is not None and (tensor := node.out()) is not None}
        self.start = np.ones(self.root.shape, self.root.dtype)

    def edges(self, node: Node) -> list[tuple[Edge, Node]]:
        """The ways a gradient goes on from a node."""
        prim = node.prim
        if prim is None or not edges_of(node):
            return []
        return [(Edge(self.place[node], i), edge) for i, edge in enumerate(node.inputs)
                if edge is not None and prim.pulls[i] is not None]

    def value(self, node: Node) -> Any:
        """The number a node computed; None for a leaf that is gone and for what was stretched."""
        return self.leaves.get(node) if node.prim is None else node.out

    def pull(self, edge: Edge, g: Any) -> Any:
        """What goes on along an edge, by the rule of the table."""
        node = self.order[edge.place]
        rule: Any = node.prim and node.prim.pulls[edge.slot]
        term = rule(g, node.out, *node.saved, **node.params)
        if node.prim is not None and node.prim.kind == "elementwise" and not np.all(
                np.isfinite(term)):
            term = TABLE["keep"].eval(term, np.not_equal(g, 0))
        return np.asarray(term)

    @cached_property
    def true(self) -> Pass:
        """The true reverse pass."""
        return self.backward()

    def backward(self, given: Mapping[Node, Any] | None = None,
                 rounding: Callable[[Any], Any] | None = None) -> Pass:
        """The reverse pass; from the nodes in `given` it goes on with the gradient given there.

        `rounding` is done to every term, to see how far rounding errors reach.
        """
        arrived: dict[Node, dict[Edge, Any]] = {node: {} for node in self.order}
        expected: dict[Node, Any] = {}
        used: dict[Node, Any] = {}
        for node in self.order:
            terms = list(arrived[node].values())
            if node is self.root:
                terms.append(self.start)
            if not terms:
                continue
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            expected[node] = np.asarray(total)
            used[node] = (given or {}).get(node, total)
            for edge, target in self.edges(node):
                term = self.pull(edge, used[node])
                arrived[target][edge] = term if rounding is None else rounding(term)
        return Pass(expected, used, arrived)

    def carried(self, target: Node, change: Any, cut: Iterable[Node]) -> dict[Node, Any]:
        """By how much gradients below differ if that at `target` does; it stops at the `cut`."""
        stops = set(cut)
        differences: dict[Node, Any] = {target: change}
        for node in self.order[self.place[target]:]:
            if node not in differences or node in stops:
                continue
            for edge, after in self.edges(node):
                term = self.pull(edge, differences[node])
                differences[after] = differences[after] + term if after in differences else term
        return differences


class Pass(NamedTuple):
    """`expected`: the gradient that follows from what arrives. `used`: that with which the pass
    went on. `arrived`: the terms of each sum over paths."""

    expected: dict[Node, Any]
    used: dict[Node, Any]
    arrived: dict[Node, dict[Edge, Any]]


def record(f: Callable[..., Any], inputs: tuple[Any, ...], upstream: Any = None) -> Tape:
    """Run f on tensors that track gradients, keeping every number."""
    tensors = tuple(Tensor(x, dtype=x.dtype, requires_grad=is_float(x))
                    if isinstance(x, np.ndarray) else x for x in inputs)
    with settings.using(keep_small=EVERYTHING):
        loss = f(*tensors)
        if upstream is not None and isinstance(loss, Tensor):
            loss = (loss * Tensor(np.asarray(upstream, loss._value.dtype))).sum()
    if not isinstance(loss, Tensor):
        raise GradientError(
            f"check(): f returned {type(loss).__name__}; it gets tensors and must return the loss, "
            "a tensor of one number, computed from them")
    if loss._node is None:
        raise GradientError("check(): what f returned does not depend on any of the inputs with "
                            "floating point numbers, so there is nothing to differentiate")
    if loss.numel() != 1:
        raise GradientError(
            f"check(): f returned a tensor of shape {tuple(loss.shape)}. A derivation starts at "
            "one number: let f return the loss, or give the gradient that arrives at its result, "
            "check(my_backward, f, ..., upstream=g)")
    return Tape(loss, tensors)


def is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"
