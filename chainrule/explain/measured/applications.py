"""C3: every intermediate is computed once and used again, counted primitive by primitive."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from chainrule.autodiff.reverse import edges_of, reachable
from chainrule.core.bind import Value
from chainrule.core.node import Node
from chainrule.core.primitive import Primitive
from chainrule.core.record import new


@final
class Counted(Value):
    """An array that notes every primitive applied to it: counting costs nothing elsewhere."""

    __slots__ = ("log", "value")

    def __init__(self, value: Any, log: list[tuple[str, tuple[int, ...]]]) -> None:
        self.value = np.asarray(value)
        self.log = log

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Counted:
        values = [x.value if isinstance(x, Counted) else x for x in xs]
        self.log.append((prim.name, tuple(map(id, values))))
        return Counted(prim.eval(*values, **params), self.log)


@dataclass(frozen=True)
class Applications:
    """C3: how often each primitive was applied, and what would be without reuse.

    repeated  backward applications with a primitive and operands that forward had already
    walked    rules run by following each path from the loss on its own
    """

    forward: Counter[str]
    backward: Counter[str]
    rules: int
    repeated: int
    walked: int


def count_applications(loss: Any) -> Applications:
    """Run the backward rules of a recorded loss on values that count."""
    latest = reachable([loss._node])
    done = [n for n in latest if n.prim is not None and edges_of(n)]
    forward = Counter(n.name for n in done if n.name != "broadcast")
    known = {(n.name, tuple(map(id, n.saved))) for n in done}
    log: list[tuple[str, tuple[int, ...]]] = []
    bars: dict[Node, Any] = {loss._node: Counted(np.ones(loss.shape, loss.dtype), log)}
    kept = []
    rules = 0
    for node in done:
        g = bars.pop(node)
        y = node if node.out is None else Counted(node.out, log)
        xs = [Counted(s, log) if isinstance(s, np.ndarray) else s for s in node.saved]
        kept.append((g, xs))              # an id is only a name while its array lives
        assert node.prim is not None
        for i, edge in enumerate(node.inputs):
            pull = node.prim.pulls[i]
            if edge is None or pull is None:
                continue
            rules += 1
            term = pull(g, y, *xs, **node.params)
            bars[edge] = term if edge not in bars else bars[edge] + term
    return Applications(forward, Counter(name for name, _ in log), rules,
                        sum(entry in known for entry in log), paths_walked(loss))


def paths_walked(loss: Any) -> int:
    """Rules that run if no result is shared: one for each edge of each path from the loss."""
    arrivals: Counter[Node] = Counter({loss._node: 1})
    walked = 0
    for node in reachable([loss._node]):
        for edge in edges_of(node):
            arrivals[edge] += arrivals[node]
            walked += arrivals[node]
    return walked


def shared_chain(length: int) -> Any:
    """x, x·x, (x·x)·(x·x), ...: every result is used twice."""
    x = new(np.array(1.0)).requires_grad_()
    y = x
    for _ in range(length):
        y = y * y
    return y
