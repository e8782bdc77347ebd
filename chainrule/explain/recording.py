"""What a recorded graph still knows: the values the tape kept, and all that explain found in them.

A `Recording` outlives the backward pass, which drops the tape's values, and the optimiser's step,
which writes parameters in place: it holds what was saved, and copies of what a step would change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.config import settings
from chainrule.core.errors import FreedGraphError, OverwrittenError
from chainrule.core.node import Node, Origin, storage_of, written_after
from chainrule.core.record import UNREAD
from chainrule.core.types import type_of

if TYPE_CHECKING:
    from .naming import Names


@dataclass(eq=False, repr=False)
class Recording:
    """Nodes, what they are called, their values and gradients, and what their rules read.

    order      the nodes from the leaves to the loss
    texts      how each of them is written; hidden rearrangements have none
    values     by node, where the tape kept them or they could be computed again
    gradients  ∂L/∂node by node, in the node's own shape
    saved      by node, the operands its backward rules read, and its result
    wanted     the nodes of `wrt`, None for all leaves
    face       by node, the reshape that ends its operation and has its name and shape
    """

    root: Node
    order: Sequence[Node]
    names: Names
    texts: dict[Node, str]
    values: dict[Node, Any]
    gradients: dict[Node, Any]
    saved: dict[Node, tuple[tuple[Any, ...], Any]]
    wanted: frozenset[Node] | None = None
    hidden: set[Node] = field(default_factory=set)
    face: dict[Node, Node] = field(default_factory=dict)

    @property
    def loss(self) -> str:
        return self.texts[self.root]

    def users(self, node: Node) -> list[tuple[Node, int]]:
        """Who reads a node, and as which operand, earliest first."""
        found = self.__dict__.get("_users")
        if found is None:
            found = self.__dict__["_users"] = {}
            for user in self.order:
                if user.plan is UNREAD:
                    continue
                for i, edge in enumerate(user.inputs):
                    if edge is not None:
                        found.setdefault(edge, []).append((user, i))
        return list(found.get(node, ()))


def kept_values(latest: Iterable[Node]) -> dict[Node, Any]:
    """The values of nodes, from what they or those who used them saved, and from live leaves."""
    latest = list(latest)
    values: dict[Node, Any] = {}
    read: dict[Node, int] = {}                   # when each was first read
    for node in latest:
        if type(node.out) is np.ndarray and written_after(node.out, node.seq) is None:
            values[node] = node.out
        for value, edge in zip(node.saved, node.inputs, strict=True):
            if edge is not None:
                read[edge] = min(node.seq, read.get(edge, node.seq))
            if edge is None or type(value) is not np.ndarray or written_after(value, node.seq):
                continue
            if edge.name == "broadcast" and value.shape != edge.shape:
                edge = edges_of(edge)[0]
            values.setdefault(edge, value)
    for node in latest:
        if node.prim is None and node not in values and node.out is not None:
            tensor = node.out()
            if tensor is not None and tensor._node is node and not (
                    type(tensor._value) is np.ndarray
                    and written_after(tensor._value, read.get(node, node.seq))):
                values[node] = tensor._value
    return values


def as_saved(node: Node) -> tuple[tuple[Any, ...], Any]:
    """Operands and result that the tape has. What was written since, and no rule reads, counts as
    not kept: its memory holds other numbers now."""
    operands = tuple(
        value if type(value) is not np.ndarray or written_after(value, node.seq) is None
        else edge if edge is not None else type_of(value)
        for value, edge in zip(node.saved, node.inputs, strict=True))
    out = node.out
    if type(out) is np.ndarray and written_after(out, node.seq) is not None:
        out = None
    return operands, out


def saved_values(latest: Iterable[Node], values: dict[Node, Any]
                 ) -> dict[Node, tuple[tuple[Any, ...], Any]]:
    """What the rules of each node read. Leaves, which a step writes in place, are copied once."""
    owners = {id(storage_of(value)) for node, value in values.items()
              if node.prim is None and type(value) is np.ndarray}
    copies: dict[int, Any] = {}

    def held(value: Any) -> Any:
        if type(value) is not np.ndarray or id(storage_of(value)) not in owners:
            return value
        if id(value) not in copies:
            copies[id(value)] = (value, np.array(value))       # the first keeps its id its own
        return copies[id(value)][1]

    for node, value in values.items():
        values[node] = held(value)
    result = {}
    for node in latest:
        operands, out = as_saved(node)
        result[node] = (tuple(value if edge is None else held(value) for value, edge
                              in zip(operands, node.inputs, strict=True)),
                        held(out) if node.prim is not None else None)
    return result


class Kept:
    """Arrays to keep: a copy where the program can still write to the memory, else as they are."""

    def __init__(self, saved: dict[Node, tuple[tuple[Any, ...], Any]],
                 values: dict[Node, Any]) -> None:
        known = [value for operands, out in saved.values() for value in (*operands, out)]
        own = {id(storage_of(value)) for node, value in values.items()
               if node.prim is None and type(value) is np.ndarray}
        self._foreign = {id(storage_of(value)) for value in (*known, *values.values())
                         if type(value) is np.ndarray} - own
        self._kept: dict[int, tuple[Any, Any]] = {}

    def __call__(self, value: Any) -> Any:
        if value is None:
            return None
        found = self._kept.get(id(value))
        if found is None:
            array = np.asarray(value)
            if array.size <= settings.keep_small or id(storage_of(array)) in self._foreign:
                array = np.array(value)
            found = self._kept[id(value)] = (value, array)
        return found[1]


def check_kept(node: Node) -> None:
    """Raise if numbers the rules need were dropped, or were overwritten since."""
    if node.plan is None or node.plan is UNREAD:
        return
    if node.freed is not None and (len(node.saved) < len(node.inputs) or (
            node.plan.output == 2 and node.out is None)):
        raise FreedGraphError(
            f"explain(): the numbers of {node.name} ({node.type}) at {node.origin} are gone: the "
            f"backward pass at {Origin.of(*node.freed, None)} dropped them.\n"
            f"    {node.origin.source()}\n"
            "Call cr.explain(loss) before loss.backward(), or write backward(retain_graph=True). "
            "Values of at most cr.settings.keep_small elements stay in any case, so one example "
            "instead of a whole batch can also be explained afterwards.")
    read = [*zip(node.plan.inputs, node.saved, strict=False), (node.plan.output, node.out)]
    for level, value in read:
        if level == 2 and type(value) is np.ndarray:
            write = written_after(value, node.seq)
            if write is not None:
                raise OverwrittenError(
                    f"explain(): {type_of(value)}, which {node.name} used at {node.origin}, was "
                    f"changed since by {write.what} at {write.origin}.\n"
                    f"    {write.origin.source()}\nThe numbers of that forward pass no longer "
                    "exist. Call cr.explain(loss) before that line (most often: before "
                    "optimizer.step()).")
