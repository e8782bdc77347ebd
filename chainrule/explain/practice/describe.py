"""Mistakes in words: what is wrong, with the names of the program, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.core.node import Node
from chainrule.explain.derive import BackwardStep

from .recognise import WHOLE, Guess, Observation
from .review import Mistake


def described(seen: Observation, best: Guess, equals: Sequence[Guess], names: Mapping[Node, str],
              shows: tuple[str, ...], steps: Sequence[BackwardStep], loss: str) -> Mistake:
    """The mistake that a slip is."""
    tape = seen.tape
    node = tape.order[best.edge.place]
    target = tape.order[best.target]
    step = None if best.edge.slot == WHOLE else step_at(seen, best, node, names, steps)
    own = [step] if step is not None else [
        s for s in steps if s.of == names.get(target) and not s.terms and s.number]
    formula, line = rule_text(own), ""
    if own and len({s.place for s in own}) == 1 and own[0].place.source:
        line = f"{own[0].place.line}: {own[0].place.source}"
    sentence = SENTENCES[best.slip.kind](_Words(seen, best, node, target, names, step, loss))
    if best.target not in best.shows:
        sentence += " The step is one of those you did not show."
    others = dict.fromkeys(g.slip.kind for g in sorted(equals, key=Guess.rank)
                           if g.slip.kind not in (best.slip.kind, "rule")
                           and g.slip.likely <= best.slip.likely)
    return Mistake(best.slip.kind, shows[0], sentence, formula, line, shows, tuple(others))


def rule_text(steps: Sequence[BackwardStep]) -> str:
    """∂L/∂w = the formulas of all paths, added."""
    terms = list(dict.fromkeys(step.formula for step in steps))
    return f"{steps[0].name} = {' + '.join(terms)}" if steps else ""


def step_at(seen: Observation, best: Guess, node: Node, names: Mapping[Node, str],
            steps: Sequence[BackwardStep]) -> BackwardStep | None:
    """explain's step for an edge: the same operation with the same numbers."""
    true = seen.tape.true
    target = seen.tape.order[best.target]
    term = true.arrived[target].get(best.edge)
    if term is None:
        return None
    same = [step for step in steps if step.operation == node.name
            and np.size(step.value) == term.size
            and np.array_equal(np.ravel(step.value), np.ravel(term))
            and names.get(node) in (None, step.through)
            and (target not in names or names[target] == step.of)]
    return next(iter(same), None)


class _Words:
    """The names that the sentences need."""

    def __init__(self, seen: Observation, best: Guess, node: Node, target: Node,
                 names: Mapping[Node, str], step: BackwardStep | None, loss: str) -> None:
        self.seen, self.slip, self.node, self.names = seen, best.slip, node, names
        self.of = names.get(target) or (step.of if step else "this value")
        self.through = names.get(node) or (step.through if step else node.name)
        self.gradient = f"∂{loss}/∂{self.of}"
        self.upstream = f"∂{loss}/∂{self.through}"
        self.alone = len(seen.flow.arrived.get(target, ())) < 2
        self.loss = loss
        self.local = step.local.formula if step is not None and step.local is not None else ""
        self.slope = sum(isinstance(x, np.ndarray) for x in node.saved) == 1
        self.operation = node.name.replace("_", " ")

    def name_at(self, place: str) -> str:
        node = self.seen.tape.order[int(place)]
        return self.names.get(node) or f"the {node.name.replace('_', ' ')}"

    def taken(self) -> tuple[str, str]:
        """The name of the operand that was exchanged, and of what stands in its place."""
        number, _, other = self.slip.key.partition(" as ")
        right = self.operand(int(number) - 2)
        name = other.split(" at ")[0].split(",")[0].removesuffix(" turned")
        return right, self.of_candidate(name, int(number))

    def operand(self, i: int) -> str:
        if i < 0:
            return self.through
        edge = self.node.inputs[i]
        return self.named(edge) or ("the other operand" if i else "the first operand")

    def of_candidate(self, name: str, number: int) -> str:
        word, _, rest = name.rpartition(" ")
        if name == "result":
            return self.through
        if word == "operand":
            return self.operand(int(rest))
        if word == "after":
            return self.name_at(rest)
        source = self.node if number == 1 else self.node.inputs[number - 2]
        if word == "before" and source is not None:
            return self.named(source.inputs[int(rest)]) or "a value one step earlier"
        return "a value of an earlier step"

    def named(self, node: Node | None) -> str:
        while node is not None and node not in self.names and node.name in (
                "broadcast", "reshape", "permute", "cast"):
            node = node.inputs[0]
        return self.names.get(node, "") if node is not None else ""


def _sign(w: _Words) -> str:
    if w.slip.detail:
        return (f"A sign inside the derivative of {w.operation} is turned: "
                f"∂{w.through}/∂{w.of}" + (f" is {w.local}." if w.local else "."))
    return f"The sign of {w.gradient} is turned: yours is −1 times what it must be."


def _path(w: _Words) -> str:
    if not w.slip.detail:
        return f"One term of the sum in {w.gradient} is missing."
    if w.slip.key == "left out" and w.alone:
        return (f"The gradient that goes from {w.through} back to {w.of} is missing: "
                f"{w.through} depends on {w.of} too.")
    lost = " and ".join(dict.fromkeys(w.name_at(p) for p in w.slip.detail.split(",")))
    return (f"{w.of} reaches {w.loss} on several paths and their gradients are added. The path "
            f"through {lost} is missing.")


def _slope(w: _Words) -> str:
    local = f", {w.local}," if w.local else ""
    what = "slope" if w.slope else "local derivative"
    return (f"The {what} of {w.operation}{local} is missing: {w.gradient} is {w.upstream} times "
            f"∂{w.through}/∂{w.of}, not {w.upstream} alone.")


def _upstream(w: _Words) -> str:
    if w.slip.detail:
        return (f"The upstream gradient ∂{w.loss}/∂{w.name_at(w.slip.detail)} is missing in every "
                f"term of {w.gradient}.")
    return (f"The upstream gradient {w.upstream} is missing: what you have is the local "
            "derivative alone, and the chain rule multiplies the two.")


def _extra(w: _Words) -> str:
    what = f"the slope of {w.operation}" if w.slip.detail == "slope" else (
        f"the upstream gradient {w.upstream}")
    return f"There is one factor too many: {what} stands in {w.gradient} twice."


def _transpose(w: _Words) -> str:
    if w.slip.detail == "whole":
        return f"{w.gradient} is transposed: rows and columns are exchanged."
    if w.slip.detail == "order":
        return f"The factors of the product in {w.gradient} stand in the wrong order."
    return f"A transposition in {w.gradient} is missing, or stands at the wrong factor."


def _value(w: _Words) -> str:
    right, taken = w.taken()
    return (f"The derivative of {w.operation} is taken at the wrong value: it must be computed "
            f"from {right}, not from {taken}.")


def _operand(w: _Words) -> str:
    right, taken = w.taken()
    if right == taken:
        return f"One factor of {w.gradient} is the wrong value: {right} belongs there."
    return f"A wrong operand: in {w.gradient}, {taken} stands where {right} belongs."


def _mean(w: _Words) -> str:
    if w.slip.detail == "averaged":
        return (f"{w.of} is used by every example, so its gradient is the sum over the batch. "
                "Yours is the mean: it is divided once more than the loss asks for.")
    times, _, n = w.slip.detail.partition(" ")
    if times == "over":
        return f"{w.gradient} is divided by {n} once too often."
    by = f"1/{n}" if n else "1/N"
    return f"The factor {by} of the mean is forgotten: yours is the gradient of the sum."


def _batch(w: _Words) -> str:
    if w.slip.detail == "first":
        return (f"Yours is the gradient of one example alone; {w.of} is used by all of them, so "
                "their gradients are added.")
    return (f"The sum over the batch is missing: {w.of} was used once for each example, and "
            f"{w.gradient} adds what comes back from all of them.")


def _factor(w: _Words) -> str:
    if w.slip.detail == "square":
        return (f"{w.of} is multiplied by itself, so both factors give a gradient: the derivative "
                f"of {w.of}² is 2·{w.of}. The 2 is missing.")
    if w.slip.detail.startswith("times"):
        return f"{w.gradient} is {w.slip.detail.removeprefix('times ')} times what it must be."
    local = f": ∂{w.through}/∂{w.of} is {w.local}" if w.local else ""
    return f"A constant factor of the derivative of {w.operation} is missing{local}."


def _rule(w: _Words) -> str:
    local = f": it is {w.local}" if w.local else ""
    detail = f" ({w.slip.detail})" if w.slip.detail else ""
    return f"The derivative of {w.operation} is not right{detail}{local}."


SENTENCES: dict[str, Any] = {
    "sign": _sign, "path": _path, "slope": _slope, "upstream": _upstream, "extra": _extra,
    "transpose": _transpose, "value": _value, "operand": _operand, "mean": _mean, "batch": _batch,
    "factor": _factor, "rule": _rule,
}
