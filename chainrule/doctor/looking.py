"""What is measured of a step that is looked at closely: activations, dropout's masks, gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np

from chainrule.core.bind import state as recording
from chainrule.core.errors import ChainruleError
from chainrule.core.node import Node
from chainrule.nn import Module
from chainrule.optim import Optimizer

from .graph import Graph, outermost
from .history import ActivationSeen, Numbers
from .variables import named

FLAT_SLOPE = 0.06         # the slope of tanh where it is 0.97 (Karpathy, makemore 3)
Root = tuple[Node, Any]
Dropped = list[tuple[Any, tuple[Any, ...], Any]]       # what State.dropped holds


def modules_of(graph: Graph, known: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The models so far, and those whose call made a part of the graph, by the names they have in
    the user's code; one alone has none.
    """
    found: dict[int, Module] = {id(model): model for _, model in known}
    for node in graph.order:
        module = outermost(node)
        if module is not None and id(module) not in found and next(
                module.parameters(), None) is not None:
            found[id(module)] = module
    if len(found) == len(known):
        return list(known)
    models = list(found.values())
    # What is a part of another one is known by it.
    inner = {id(part) for model in models for part in model.modules() if part is not model}
    models = [model for model in models if id(model) not in inner]
    if len(models) == 1:
        return [("", models[0])]
    names = [named(model)[0] or f"model{i}" for i, model in enumerate(models)]
    return [(name if names.count(name) == 1 else f"{name}{i}", model)
            for i, (name, model) in enumerate(zip(names, models, strict=True))]


def activations(graph: Graph) -> Iterator[ActivationSeen]:
    """The activation functions of a graph, with their slopes."""
    gradients = graph.gradients if graph.bends else {}
    for node in graph.bends:
        value, slopes = graph.values.get(node), graph.slopes(node)
        if value is None or slopes is None:
            continue
        # Units are channels where there are places, else the last axis.
        axis = 1 if slopes.ndim > 3 else slopes.ndim - 1
        others = tuple(i for i in range(slopes.ndim) if i != axis)
        g = gradients.get(node)
        size = np.abs(slopes)
        if not size.size:
            continue
        yield ActivationSeen(
            node.name, node.origin.module, node.origin, Numbers.of(value),
            float(size.mean()), float(np.mean(size < FLAT_SLOPE)),
            bool(np.all((size == 0) | (size == size.max()))),
            np.all(slopes == 0, axis=others), slopes.shape[axis],
            slopes.size // slopes.shape[axis], None if g is None else Numbers.of(g))


def masks(graph: Graph) -> Iterator[bytes]:
    """What was drawn for dropout: constants of a few values that multiply in a Dropout module."""
    for node in graph.order:
        scope = node.scope
        if node.name == "mul" and scope is not None and type(scope[1]).__name__.startswith("Drop"):
            for value, edge in zip(graph.saved[node], node.inputs, strict=False):
                if edge is None and type(value) is np.ndarray and value.size and (
                        value != value.flat[0]).any():             # p=1 leaves nothing to chance
                    yield blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).digest()


# ---------------------------------------------------------------- gradients that are lost


class Witnesses:
    """One small gradient of each optimiser, looked at in every step: where a number is lost on the
    way back, it is lost for all that lies before it, so that an early one tells.
    """

    def __init__(self) -> None:
        self.chosen: dict[int, Any] = {}

    def lost(self, optimizer: Optimizer) -> bool:
        witness = self.chosen.get(id(optimizer))
        if witness is None:
            witness = self.chosen[id(optimizer)] = self._choose(optimizer)
        grad = witness._grad
        if grad is None or not grad._value.size:
            return False
        array = grad._value
        ends = array.item(0) - array.item(array.size - 1)
        return bool(ends - ends != 0.0)           # NaN or infinite

    @staticmethod
    def _choose(optimizer: Optimizer) -> Any:
        early = [p for p in optimizer.param_groups[0]["params"][:4] if p._grad is not None]
        return min(early or optimizer.param_groups[0]["params"][:1],
                   key=lambda p: p._value.size)


@contextmanager
def undone(dropped: Dropped) -> Iterator[None]:
    """Backward passes have dropped what they used; inside it is there again."""
    dropped = dropped[1:]                         # without the roots
    now = [(node, node.saved, node.out, node.freed) for node, _, _ in dropped]
    try:
        for node, saved, out in dropped:
            node.saved, node.out, node.freed = saved, out, None
        yield
    finally:
        for node, saved, out, freed in now:
            node.saved, node.out, node.freed = saved, out, freed


def looked_back(dropped: Dropped) -> Graph | None:
    """The graph of a pass that is over, with its gradients.

    None if they cannot be computed again without running code of the user's, or because the
    weights were written since (L-BFGS).
    """
    keeping, recording.dropped = recording.dropped, None
    try:
        with undone(dropped):
            graph = Graph(dropped[0][0])
            if graph.foreign:
                return None
            _ = graph.gradients
    except ChainruleError:
        return None
    finally:
        recording.dropped = keeping
    return graph
