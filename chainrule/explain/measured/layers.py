"""The gradient's size from layer to layer of a recorded graph, as a product of measured factors.

A layer reaches from one tensor through which everything flows to the next: the graph's own
bottlenecks, found in the recording. With the gradients g at these tensors, the factor of a layer is
‖g below‖ ÷ ‖g above‖, so the factors multiply to what all layers together do, whatever is in them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import affected, edges_of, reachable, reverse
from chainrule.autograd import seed
from chainrule.core.config import settings
from chainrule.core.errors import GradientError
from chainrule.core.node import Node, scope_path
from chainrule.explain.naming import Names
from chainrule.explain.recording import kept_values
from chainrule.prims.show import same

EVERYTHING = 2**40        # elements: with keep_small at this, the tape keeps every value
FLAT = 0.01               # below such a slope a unit hardly passes anything back
SHARED = 3                # with so many times more layers on it, the longest path says more

Array = np.ndarray[Any, Any]


@contextmanager
def keeping_values() -> Iterator[None]:
    """While this runs, what is recorded keeps its values, before and after the backward pass."""
    with settings.using(keep_small=EVERYTHING):
        yield


@dataclass(frozen=True)
class Layer:
    """One layer of a network and what it did to one gradient; None where there is no such number.

    mean, variance      of the layer's result, over units and examples
    gradient            ‖∂L/∂result‖
    gradient_variance   mean square of its elements
    weights, slopes     factors of the part with the weights and of the rest (the activation, a
                        normalisation); their product is `factor`
    flat                share of elements where the activation's slope is below 0.01
    weight_gradient     ‖∂L/∂W‖ of its weights together, `weight` is ‖W‖
    """

    name: str
    operations: tuple[str, ...]
    shape: tuple[int, ...]
    mean: float
    variance: float
    gradient: float
    gradient_variance: float
    weights: float | None
    slopes: float | None
    factor: float | None
    flat: float | None
    weight: float | None
    weight_gradient: float | None


@dataclass(frozen=True)
class Factors:
    """The layers of one network, the first first.

    top      ‖∂L/∂y‖ of the last layer's result y, where the loss begins
    bottom   ‖∂L/∂h‖ of the deepest tensor h that the gradient reached
    """

    layers: tuple[Layer, ...]
    top: float
    bottom: float

    @property
    def total(self) -> float:
        """What all layers together do to the gradient's size."""
        return self.bottom / self.top if self.top else math.nan

    @property
    def product(self) -> float:
        """The factors multiplied: equal to `total` up to rounding."""
        return math.prod(layer.factor for layer in self.layers if layer.factor is not None)

    @property
    def per_layer(self) -> float:
        """The geometric mean of the factors."""
        count = sum(layer.factor is not None for layer in self.layers)
        return self.total ** (1 / count) if count and self.total >= 0 else math.nan


def layer_factors(loss: Any, wrt: Any = None, scope: Mapping[str, Any] | None = None,
                  model: Any = None, gradient: Any = None) -> Factors:
    """The layers between a loss and what it was computed from, each with its measured factor.

    `loss` was recorded under `keeping_values()`. `wrt`, a tensor with requires_grad, is where the
    layers begin; without it, at the deepest result of an operation. `scope` gives names. With a
    `gradient` the tensor in place of the loss may have any shape: it is ∂L/∂ that tensor.
    """
    start_with = seed(loss, gradient, False, "explain.depth()")
    root: Node = loss._node
    names = Names(None, model, scope or {})
    order = reachable([root])
    names.settle(order[::-1])
    chain = _chain(root, order, None if wrt is None else wrt._node)
    if len(chain) < 2:
        raise GradientError("explain.depth(): between this loss and its leaves there is no chain "
                            "of layers; give it the loss of a network")
    start_node = None if wrt is None else wrt._node
    parts = [_Part.between(below, above, start_node) for above, below in pairwise(chain)]
    parts.append(_Part.between(None, chain[-1], start_node))
    leaves = {leaf for part in parts for leaf in part.leaves}
    bars = reverse([(root, start_with)], [*dict.fromkeys([*chain, *leaves])], retain_graph=True)
    norms = {node: norm(bars.get(node)) for node in {*chain, *leaves}}
    groups, start = _grouped(parts, chain)
    values = kept_values(order)
    layers = [_layer(group, norms, bars, values, names) for group in groups]
    return Factors(numbered(layers), norms[start], norms[chain[-1]])


def norm(gradient: Any) -> float:
    """The Euclidean norm over all elements, without overflow inside; 0 where nothing arrived."""
    if gradient is None:
        return 0.0
    array = np.asarray(gradient, np.float64)
    largest = float(np.abs(array).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.sum((array / largest) ** 2)))


# ---------------------------------------------------------------- the chain of bottlenecks


def edges(node: Node) -> list[Node]:
    """The nodes a gradient flows on to."""
    if node.prim is None or not edges_of(node):
        return []
    pulls = node.prim.pulls
    return [edge for i, edge in enumerate(node.inputs) if edge is not None and pulls[i] is not None]


def rearranges(node: Node) -> bool:
    """A broadcast, a reshape or a cast: the same numbers in another form."""
    return node.prim is not None and node.prim.show is same


def _chain(root: Node, order: Sequence[Node], end: Node | None) -> list[Node]:
    """Tensors through which every path from the loss to the deepest one leads, the loss first.

    Where states or skips run beside each other so that there are hardly any such tensors, the
    longest path itself.
    """
    longest = _longest_path(root, order, end)
    through = _shared_by_all_paths(root, order, longest[-1])
    weighty = [sum(_Part.between(below, above, end).has_weights for above, below in pairwise(chain))
               for chain in (through, longest)]
    return longest if weighty[0] * SHARED < weighty[1] else through


def _longest_path(root: Node, order: Sequence[Node], end: Node | None) -> list[Node]:
    """From the root to `end`, else to the operation that most operations lie above."""
    live = affected(order, [end]) if end is not None else None
    depth: dict[Node, int] = {root: 0}
    above: dict[Node, Node] = {}
    for node in order:
        if node not in depth:
            continue
        for edge in edges(node):
            if live is not None and edge not in live:
                continue
            further = depth[node] + (not rearranges(edge))
            if further > depth.get(edge, -1):
                depth[edge] = further
                above[edge] = node
    last = end
    if last is None:
        ends = [n for n in depth if n.prim is not None and not rearranges(n)]
        last = max(ends or [root], key=lambda n: (depth[n], n.seq))
        # an operation on one tracked operand alone, such as sigmoid(x), starts at that tensor
        if len(last.inputs) == 1:
            last = edges(last)[0]
            above.setdefault(last, next(n for n in order if last in edges(n)))
    if last not in depth:
        raise GradientError("explain.depth(): the loss does not depend on the tensor in wrt=")
    path = [last]
    while path[-1] is not root:
        path.append(above[path[-1]])
    return path[::-1]


def _shared_by_all_paths(root: Node, order: Sequence[Node], end: Node) -> list[Node]:
    """Nodes are visited latest first; one that waits alone is on every path that is still open."""
    live = affected(order, [end])
    waiting = [(-root.seq, root)]
    seen = {root}
    found = []
    while waiting:
        node = heappop(waiting)[1]
        if not waiting:
            found.append(node)
        if node is end:
            break
        for edge in edges(node):
            if edge in live and edge not in seen:
                seen.add(edge)
                heappush(waiting, (-edge.seq, edge))
    return found


@dataclass(frozen=True)
class _Part:
    """What lies between two neighbours of the chain."""

    below: Node | None
    above: Node
    nodes: tuple[Node, ...]
    leaves: tuple[Node, ...]

    @staticmethod
    def between(below: Node | None, above: Node, data: Node | None) -> _Part:
        """Everything `above` was made of after `below`, and the leaves read there but `data`."""
        nodes, leaves = [], []
        seen = {above}
        stack = [above]
        while stack:
            node = stack.pop()
            if node.prim is None:
                if node is not above and node is not data:
                    leaves.append(node)
                continue
            nodes.append(node)
            for edge in edges(node):
                # what was recorded before `below` belongs to an earlier part
                old = below is not None and edge.prim is not None and edge.seq <= below.seq
                if edge is not below and edge not in seen and not old:
                    seen.add(edge)
                    stack.append(edge)
        return _Part(below, above, tuple(sorted(nodes, key=lambda n: n.seq)), tuple(leaves))

    @property
    def has_weights(self) -> bool:
        """Does it read a matrix or a kernel, rather than biases and scales alone?"""
        return any(leaf.ndim > 1 for leaf in self.leaves)


def _grouped(parts: Sequence[_Part], chain: Sequence[Node]) -> tuple[list[list[_Part]], Node]:
    """The parts of each layer, first layer first, and the node where the loss begins.

    A layer starts where weights are read and takes what follows up to the next weights. Without
    any weights every part is a layer.
    """
    upwards = [part for part in reversed(parts) if part.nodes]
    weighty = [i for i, part in enumerate(upwards) if part.has_weights]
    end = len(upwards)
    last = weighty[-1] if weighty else 0
    inside = outermost(upwards[last].above.scope) if weighty else None
    end = next((i for i in range(last + 1, end) if _is_loss(upwards[i], inside)), end)
    groups: list[list[_Part]] = []
    for i, part in enumerate(upwards[:end]):
        if not groups or not weighty or (part.has_weights and i > weighty[0]):
            groups.append([])
        groups[-1].append(part)
    return groups, upwards[end - 1].above


def _is_loss(part: _Part, inside: int | None) -> bool:
    """Does the loss begin with a part without weights, rather than being an activation?

    In a network of modules, with what runs outside the module of the last weights; else with what
    reads other arrays, the targets, or makes one number of many.
    """
    node = part.above
    if inside is not None:
        return outermost(node.scope) != inside
    data = any(edge is None and getattr(value, "shape", ()) != ()
               for edge, value in zip(node.inputs, node.saved, strict=True))
    return data or (node.shape == () and part.below is not None and part.below.shape != ())


def outermost(scope: Any) -> int | None:
    """The module whose call the user wrote; None outside all modules."""
    if scope is None or len(scope) < 2 or scope[1] is None:
        return None
    while scope[0] is not None:
        scope = scope[0]
    return id(scope[1])


# ---------------------------------------------------------------- one layer


def _layer(group: Sequence[_Part], norms: Mapping[Node, float], bars: Mapping[Node, Any],
           values: Mapping[Node, Any], names: Names) -> Layer:
    top = group[-1].above
    value = np.asarray(values[top], np.float64) if top in values else None
    gradient = np.asarray(bars.get(top, 0.0), np.float64)
    weights = _product(group, norms, True)
    slopes = _product(group, norms, False)
    known = [factor for factor in (weights, slopes) if factor is not None]
    leaves = [leaf for part in group for leaf in part.leaves if leaf.ndim > 1]
    flats = [flat for part in group if (flat := _flat(part)) is not None]
    return Layer(
        name=_name(group, names),
        operations=tuple(dict.fromkeys(part.above.name for part in group
                                       if not rearranges(part.above))),
        shape=tuple(top.shape),
        mean=math.nan if value is None else float(value.mean()),
        variance=math.nan if value is None else float(value.var()),
        gradient=norms[top],
        gradient_variance=float(np.mean(gradient * gradient)),
        weights=weights, slopes=slopes, factor=math.prod(known) if known else None,
        flat=flats[-1] if flats else None,
        weight=_together([values[leaf] for leaf in leaves if leaf in values]),
        weight_gradient=math.hypot(*(norms[leaf] for leaf in leaves)) if leaves else None)


def _product(group: Sequence[_Part], norms: Mapping[Node, float], weights: bool) -> float | None:
    found = [_ratio(norms[part.below], norms[part.above]) for part in group
             if part.below is not None and part.has_weights == weights]
    return math.prod(found) if found else None


def _ratio(below: float, above: float) -> float:
    return below / above if above else 0.0


def _together(values: Sequence[Array]) -> float | None:
    return math.hypot(*map(norm, values)) if values else None


def _flat(part: _Part) -> float | None:
    """The share of elements whose slope is below 0.01, where a part is one activation.

    The slope is what the row's own rule makes of a gradient of ones.
    """
    node = part.above
    if part.has_weights or node.prim is None or node.prim.kind != "elementwise":
        return None
    tracked = [i for i, edge in enumerate(node.inputs) if edge is not None]
    if len(tracked) != 1 or len(node.inputs) != 1 or not isinstance(node.out, np.ndarray):
        return None
    pull = node.prim.pulls[tracked[0]]
    if pull is None:
        return None
    slope = np.asarray(pull(np.ones(node.shape, node.dtype), node.out, *node.saved, **node.params))
    return float(np.mean(np.abs(slope) < FLAT))


def _name(group: Sequence[_Part], names: Names) -> str:
    """The module's path and class where there is one, else the weights' names, else the line."""
    reading = [part for part in group if part.has_weights] or list(group)
    direct = [node for part in reading for node in part.nodes
              if any(edge in part.leaves and edge.ndim > 1 for edge in edges(node))]
    scopes = {scope_path(node.scope): node.scope for node in direct or [reading[-1].above]
              if node.scope is not None and node.scope[1] is not None}
    if scopes:
        split = [path.split(".") for path in sorted(scopes)]
        shared = ".".join(words[0] for words in zip(*split, strict=False) if len(set(words)) == 1)
        scope = scopes[max(scopes, key=len)]
        while scope[0] is not None and scope_path(scope) != shared:
            scope = scope[0]
        return f"{shared} {type(scope[1]).__name__}".strip()
    known = [names.of_node[leaf] for part in reading for leaf in part.leaves
             if leaf in names.of_node and leaf.ndim > 1]
    if known:
        return ", ".join(dict.fromkeys(known))
    node = reading[-1].above
    return names.of_node.get(node) or f"line {node.origin.line}"


def numbered(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Layers of one name, such as the steps of a recurrent one, get a number each."""
    count = Counter(layer.name for layer in layers)
    seen: Counter[str] = Counter()
    result = []
    for layer in layers:
        seen[layer.name] += 1
        again = f" #{seen[layer.name]}" if count[layer.name] > 1 else ""
        result.append(replace(layer, name=layer.name + again))
    return tuple(result)
