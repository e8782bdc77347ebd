"""Single questions: why has this parameter no gradient, why is it zero, which layer loses it?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.autograd import seed
from chainrule.core.cuts import recent_cuts
from chainrule.core.node import Node, Origin
from chainrule.tensor import Tensor

from .graph import Graph

PRIME = 2**61 - 1


@dataclass(frozen=True)
class Answer:
    """A sentence, the lines it is about, and numbers. `str()` is the text."""

    text: str
    places: tuple[Origin, ...] = ()
    numbers: dict[str, Any] | None = None

    def __str__(self) -> str:
        return "\n".join([self.text, *[f"  {place}\n      {place.source()}"
                                       for place in self.places if place.file]])

    __repr__ = __str__


def expect_tensor(what: str, value: Any) -> None:
    """Raise unless it is a tensor: a number that was read out has no history."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} must be the tensor itself, got {type(value).__name__}. Numbers "
                        "that were read out (loss.item()), names and modules have no gradient.")


def graph_of(loss: Tensor) -> Graph:
    expect_tensor("the loss", loss)
    return Graph([(loss._node, seed(loss, None, False, "the doctor's question"))])  # type: ignore[list-item]


def why_none(p: Tensor, loss: Tensor | None = None) -> Answer:
    """Why is `p.grad` None? With the loss at hand the answer names where the path ends.

    >>> import chainrule as cr
    >>> w = cr.ones(2, requires_grad=True)
    >>> print(why_none(w, (w.detach() * cr.ones(2, requires_grad=True)).sum()).text)
    the loss does not depend on it: gradients were stopped on the way
    """
    expect_tensor("the parameter", p)
    if p.grad is not None:
        return Answer(f"it has a gradient, of norm {float(p.grad.norm()):.3g}")
    if not p.requires_grad:
        return Answer("requires_grad is False: it is frozen. p.requires_grad_() makes it learn")
    if not p.is_leaf and p._node is not None:
        return Answer("it is the result of an operation, and only leaves keep a gradient: call "
                      "p.retain_grad() before backward()", (p._node.origin,))
    if loss is None:
        return Answer("no backward() has reached it yet, or zero_grad() came after it. "
                      "why_none(p, loss) says whether that loss depends on it")
    expect_tensor("the loss", loss)
    if loss._node is None:
        places = tuple(cut.origin for cut in recent_cuts())
        return Answer("the loss is connected to nothing that requires a gradient", places)
    if p._node in graph_of(loss).leaves:
        return Answer("the loss depends on it: loss.backward() has not been called since its "
                      "gradient was cleared")
    cuts = tuple(cut.origin for cut in recent_cuts())
    if cuts:
        return Answer("the loss does not depend on it: gradients were stopped on the way", cuts)
    used = any(node.freed is not None for node in graph_of(loss).order)
    return Answer("the loss does not depend on it: it took no part in computing this loss. Is the "
                  "layer called in forward(), and its result used?" + (
                      " Or it was cut off, by detach() say: which line did that is known until "
                      "backward() is called, so ask before." if used else ""))


def why_zero(p: Tensor, loss: Tensor) -> Answer:
    """Where on its way from the loss did the gradient of `p` become zero?

    >>> import chainrule as cr
    >>> w = cr.tensor([-1.0, -2.0], requires_grad=True)
    >>> print(why_zero(w, cr.relu(w).sum()).text)
    relu passes nothing back: its slope is 0 for all 2 elements
    """
    graph = graph_of(loss)
    if p._node not in graph.leaves:
        return why_none(p, loss)
    gradients = graph.gradients
    own = gradients.get(p._node)
    if own is not None and np.any(own):
        share = float(np.mean(own == 0))
        return Answer(f"it is not zero: norm {np.linalg.norm(own):.3g}, {100 * share:.0f} % of its "
                      "elements are 0")
    # Backwards from the leaf: the first readers that get something and hand on nothing.
    stack, seen, blocks = [p._node], set(), []
    while stack:
        node = stack.pop()
        for reader in graph.readers.get(node, ()):
            if reader in seen:
                continue
            seen.add(reader)
            g = gradients.get(reader)
            if g is not None and np.any(g):
                blocks.append(reader)
            else:
                stack.append(reader)
    if not blocks:
        return Answer("the loss itself sends nothing back: its gradient is 0 everywhere")
    first = max(blocks, key=lambda node: node.seq)
    slopes = graph.slopes(first) if first in graph.bends or len(first.inputs) == 1 else None
    if slopes is not None and not np.any(slopes):
        return Answer(f"{first.name} passes nothing back: its slope is 0 for all {slopes.size} "
                      "elements", (first.origin,))
    return Answer(f"{first.name} turns a gradient of norm "
                  f"{np.linalg.norm(gradients[first]):.3g} into 0: the other factor is 0, or what "
                  "arrives cancels", (first.origin,))


@dataclass(frozen=True)
class Factor:
    """How much of the gradient's size is left behind one part of the network."""

    name: str
    place: Origin
    factor: float


@dataclass(frozen=True)
class Blame:
    """Factors from the loss back to the first layer; their product is `total`."""

    factors: tuple[Factor, ...]
    start: float
    end: float

    @property
    def total(self) -> float:
        return self.end / self.start if self.start else float("nan")

    @property
    def worst(self) -> Factor:
        """The one that shrinks or inflates most."""
        return max(self.factors, key=lambda f: abs(np.log(f.factor)) if f.factor > 0 else np.inf)

    def __str__(self) -> str:
        wide = max([len(f.name) for f in self.factors], default=0)
        lines = [f"  {f.name:<{wide}}  ×{f.factor:<10.4g} "
                 f"{f'{f.place.file}:{f.place.line}' if f.place.file else ''}".rstrip()
                 for f in self.factors]
        lines.append(f"  {'together':<{wide}}  ×{self.total:.4g}: the gradient's size goes from "
                     f"{self.start:.3g} to {self.end:.3g}")
        return "\n".join(lines)

    __repr__ = __str__


def blame(loss: Tensor) -> Blame:
    """Which part of the network shrinks or inflates the gradient? Root mean squares, as a product.

    The stations are the values that everything has to pass (the dominators of the chain from the
    deepest leaf to the loss); between two of them lies one factor.

    >>> import chainrule as cr
    >>> x = cr.ones(4, 3, requires_grad=True)
    >>> print(round(blame((x * 0.1).tanh().sum()).total, 3))
    0.099
    """
    graph = graph_of(loss)
    stations = _narrow(graph)
    sizes = [(node, float(np.sqrt(np.mean(np.square(graph.gradients[node], dtype=np.float64)))))
             for node in stations]
    factors = []
    for (inner, before), (_, after) in pairwise(sizes):
        path = inner.origin.module
        name = f"{path}: {inner.name}" if path else inner.name
        factors.append(Factor(name, inner.origin, after / before if before else float("nan")))
    if not sizes:
        return Blame((), 0.0, 0.0)
    return Blame(tuple(factors), sizes[0][1], sizes[-1][1])


def _narrow(graph: Graph) -> list[Node]:
    """From the loss back: the nodes that lie on every path from the loss to the deepest leaf.

    A node does if the paths to it times the paths from it are all paths. They are counted with a
    random weight on each edge, modulo a prime, since their number itself has no bound.
    """
    root = graph.roots[0][0]
    depth: dict[Node, int] = {}
    for node in graph.order:
        depth[node] = 1 + max([depth[edge] for edge in edges_of(node)], default=0)
    deepest = root
    while edges_of(deepest):
        deepest = max(edges_of(deepest), key=lambda node: (depth[node], node.seq))
    draw = Random(0).randrange
    weights = {node: [draw(1, PRIME) for _ in edges_of(node)] for node in graph.order}
    above = {root: 1}
    for node in reversed(graph.order):
        for edge, weight in zip(edges_of(node), weights[node], strict=True):
            above[edge] = (above.get(edge, 0) + above.get(node, 0) * weight) % PRIME
    below = {deepest: 1}
    for node in graph.order:
        if node is not deepest:
            below[node] = sum(below[edge] * weight for edge, weight in zip(
                edges_of(node), weights[node], strict=True)) % PRIME
    everything = below[root]
    return [node for node in reversed(graph.order)
            if above.get(node, 0) * below[node] % PRIME == everything]
