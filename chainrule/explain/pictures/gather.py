"""The steps, leaves and constants of a derivation as a graph: what there is to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.node import Node
from chainrule.core.record import UNREAD
from chainrule.core.types import ArrayType, type_of
from chainrule.explain.derive import BackwardStep, Derivation, ForwardStep, Given, Place
from chainrule.explain.recording import Recording


@dataclass(eq=False)
class Spot:
    """One step, leaf or constant.

    sources  what it was computed from, each once
    flows    by source, the backward step that sends a gradient there
    calls    the calls of modules in which it was made, the outermost first
    line     the user's line, as code object and line number; `at` is the instruction
    named    whether the user has a name for it
    """

    kind: str
    name: str
    type: ArrayType
    value: Any = None
    gradient: Any = None
    step: ForwardStep | None = None
    params: str = ""
    sources: list[Spot] = field(default_factory=list, repr=False)
    flows: dict[Spot, BackwardStep] = field(default_factory=dict, repr=False)
    calls: tuple[Any, ...] = ()
    line: tuple[Any, int] = (None, 0)
    at: int = 0
    named: bool = True

    @property
    def operation(self) -> str:
        return self.step.operation if self.step else self.kind

    @property
    def place(self) -> Place | None:
        return self.step.place if self.step else None


def gather(derivation: Derivation, recording: Recording) -> list[Spot]:
    """Everything to be drawn, in an order in which sources come first."""
    steps = {step.name: step for step in derivation.forward}
    sent = {(step.through, step.of): step for step in derivation.backward if step.through}
    constants = _Constants(recording, [one for one in derivation.given if not one.tracked])
    spots: dict[Node, Spot] = {}
    result: list[Spot] = []
    for node in recording.order:
        if node in recording.hidden:
            continue
        spot = spots[node] = _spot(node, recording, steps)
        for source in _sources(node, recording, spots, constants):
            if source not in spot.sources:
                spot.sources.append(source)
                if source.kind == "constant" and source not in result:
                    result.append(source)
        for source in spot.sources:
            flow = sent.get((spot.name, source.name))
            if flow is not None and source.kind != "constant":
                spot.flows[source] = flow
        result.append(spot)
    return result


def _spot(node: Node, recording: Recording, steps: dict[str, ForwardStep]) -> Spot:
    name = recording.texts[node]
    step = steps.get(name) if node.prim is not None and node.plan is not UNREAD else None
    kind = "leaf" if step is None else "loss" if node is recording.root else "step"
    face = recording.face.get(node, node)
    value = recording.values.get(node) if step is None else step.value
    spot = Spot(kind, name, face.type, value, recording.gradients.get(node), step)
    spot.named = node in recording.names.of_node
    if step is not None:
        spot.params = repr(sorted(node.params.items(), key=lambda item: item[0]))
        spot.calls = tuple(_calls(node.scope))
        spot.line, spot.at = (node.code, step.place.line), node.lasti
    return spot


def _calls(scope: Any) -> Iterator[Any]:
    chain: list[Any] = []
    while scope is not None:
        if scope[1] is not None:             # nodes of a backward pass outside of any module
            chain.append(scope)
        scope = scope[0]
    return iter(chain[::-1])


def _sources(node: Node, recording: Recording, spots: dict[Node, Spot],
             constants: _Constants) -> Iterator[Spot]:
    """What a step reads, in the order of its operands."""
    if node.prim is None or node.plan is UNREAD:
        return
    saved = recording.saved[node][0] or (None,) * len(node.inputs)
    for value, edge in zip(saved, node.inputs, strict=True):
        if edge is None:
            found = constants.spot(value) if type(value) is np.ndarray else None
            if found is not None:
                yield found
            continue
        while edge in recording.hidden:
            (edge,) = edges_of(edge)
        if edge in spots:
            yield spots[edge]


class _Constants:
    """Arrays that no gradient goes to, under the names that the derivation gave them."""

    def __init__(self, recording: Recording, given: list[Given]) -> None:
        self.recording = recording
        self.given = given
        self.known: dict[str, Spot] = {}

    def spot(self, value: Any) -> Spot | None:
        name, named = self.name(value)
        if not name:
            return None
        return self.known.setdefault(name, Spot("constant", name, type_of(value), value,
                                                named=named))

    def name(self, value: Any) -> tuple[str, bool]:
        """What a constant is called, '' if it has no box, and whether the user calls it so."""
        name, _ = self.recording.names.constant(value)
        if name is not None:
            name = name.removesuffix("ᵀ")
            return (name if any(one.name == name for one in self.given) else ""), True
        for one in self.given:
            if (type(one.value) is np.ndarray and one.value.shape == value.shape
                    and one.value.dtype == value.dtype
                    and np.array_equal(one.value, value, equal_nan=value.dtype.kind == "f")):
                return one.name, False
        return "", False
