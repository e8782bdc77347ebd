"""What path an evaluation took, by its recording: kinks, cuts, and the row whose rule is at fault.

Two recordings of one function are compared node by node. They need all values, so they are made
under `keeping_everything`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from chainrule.core.node import Node
from chainrule.core.primitive import TABLE

from .reverse import reachable

ndarray = np.ndarray
Path = tuple[Node, ...]

# Rows whose derivative is meant to differ from their slope.
CUTS = ("stop_gradient",)


def path_of(roots: Sequence[Node], since: int) -> Path:
    """The nodes recorded after moment `since` that the roots depend on, first recorded first."""
    order = reachable(roots, since)
    return tuple([n for n in reversed(order) if n.seq > since and n.prim is not None])


def constants(node: Node) -> Iterator[tuple[int, Any]]:
    """The operands of a node that no gradient flows to, by number."""
    for i, (value, edge) in enumerate(zip(node.saved, node.inputs, strict=True)):
        if edge is None and isinstance(value, (ndarray, float, int)):
            yield i, np.asarray(value)


def same(a: Any, b: Any) -> bool:
    return a is b or (a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def is_choice(a: Any) -> bool:
    """Whole numbers and bools cannot move smoothly; floats that are all whole are masks."""
    return a.dtype.kind != "f" or bool((a == np.rint(a)).all())


def branches(node: Node) -> Any:
    """The branch each element took, for rows with a corner; None for others."""
    prim = node.prim
    if prim is None or prim.kinks is None or any(isinstance(x, Node) for x in node.saved):
        return None
    return np.asarray(prim.kinks(*node.saved, **node.params))


def coarsest(path: Path) -> float:
    """The spacing of numbers near 1 in the coarsest dtype on a path."""
    return max([float(np.finfo(n.dtype).eps) for n in path if n.dtype.kind == "f"],
               default=float(np.finfo(np.float64).eps))


def alike(n: Node, m: Node) -> bool:
    """Did two nodes apply the same row to operands of one shape? Custom functions go by name."""
    mine, other = n.prim, m.prim
    return n.shape == m.shape and (mine is other or (
        mine is not None and other is not None and mine.name == other.name))


def is_custom(node: Node) -> bool:
    """Was the rule of this node written by the user?"""
    return node.prim is not None and TABLE.get(node.prim.name) is not node.prim


def parting(a: Path, b: Path) -> Node | None:
    """The first node at which two recordings of one function take different branches."""
    for n, m in zip_longest(a, b):
        if n is None or m is None or not alike(n, m):
            return n or m                    # a Python `if` led another way
        mine, others = branches(n), branches(m)
        if mine is not None and others is not None and not same(mine, others):
            return n
        for (_, x), (_, y) in zip(constants(n), constants(m), strict=False):
            if not same(x, y) and is_choice(x) and is_choice(y):
                return n
    return None


def moved_constants(a: Path, b: Path) -> list[tuple[Node, int]]:
    """Operands that differ between two recordings though no gradient flows to them."""
    found = []
    for n, m in zip(a, b, strict=False):
        if not alike(n, m):
            break
        for (i, x), (_, y) in zip(constants(n), constants(m), strict=False):
            if not same(x, y):
                found.append((n, i))
    return found


# ---------------------------------------------------------------- the rule at fault


class Fault(NamedTuple):
    """One rule that does not agree with differences of its own row."""

    node: Node
    operand: int
    mode: str
    got: float
    right: float


STEP = 1e-5


def faulty_rules(path: Path, mode: str) -> list[Fault]:
    """The rules on a path that are wrong by themselves: one per row and operand."""
    found: dict[tuple[Any, int], Fault] = {}
    for node in path:
        for i, edge in enumerate(node.inputs):
            key = (node.prim, i)
            if edge is not None and key not in found:
                fault = fault_of(node, i, mode)
                if fault is not None:
                    found[key] = fault
    return list(found.values())


def fault_of(node: Node, i: int, mode: str) -> Fault | None:
    """Is the rule of operand i wrong at this node? Wrong along three directions, it is."""
    prim = node.prim
    assert prim is not None
    if is_custom(node) or prim.name in CUTS or (mode == "forward" and prim.jvp is None):
        return None
    rng = np.random.default_rng(node.seq)
    xs = [_value(x, edge, rng) for x, edge in zip(node.saved, node.inputs, strict=True)]
    if xs[i].dtype != np.float64 or node.dtype != np.float64:
        return None
    fault = None
    for _ in range(3):
        t, g = rng.normal(size=xs[i].shape), rng.normal(size=node.shape)
        ends = [(*xs[:i], xs[i] + s * t, *xs[i + 1:]) for s in (STEP, -STEP)]
        if prim.kinks is not None and not same(
                *[np.asarray(prim.kinks(*end, **node.params)) for end in ends]):
            return None
        up, down = (np.asarray(prim.eval(*end, **node.params)) for end in ends)
        right = float((g * (up - down)).sum() / (2 * STEP))
        got = _ruled(node, i, mode, xs, t, g)
        if abs(got - right) <= 1e-4 * max(abs(got), abs(right)) + 1e-7:
            return None
        fault = Fault(node, i, mode, got, right)
    return fault


def _value(x: Any, edge: Node | None, rng: Any) -> Any:
    if isinstance(x, Node):                  # an operand of which only the shape was kept
        return rng.normal(size=x.shape)
    if edge is not None and isinstance(x, ndarray) and x.shape != edge.shape:
        return np.broadcast_to(x, edge.shape)
    return x


def _ruled(node: Node, i: int, mode: str, xs: list[Any], t: Any, g: Any) -> float:
    """⟨g, J·t⟩ by the row's own rule."""
    prim = node.prim
    assert prim is not None
    y = np.asarray(prim.eval(*xs, **node.params))
    if mode == "forward":
        assert prim.jvp is not None
        ts = [t if k == i else None for k in range(len(xs))]
        return float((g * np.asarray(prim.jvp(ts, y, *xs, **node.params))).sum())
    pull = prim.array_pulls[i]
    assert pull is not None
    return float((np.asarray(pull(g, y, *xs, **node.params)) * t).sum())
