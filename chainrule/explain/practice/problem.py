"""A problem with numbers: a small program, what is asked of it, and what one gets wrong.

The answer is the engine's; the wrong answers are the slips of `slips.py`, made on this very graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from chainrule.core.node import Node
from chainrule.explain.derive import BackwardStep, Derivation, derive
from chainrule.explain.examples import run
from chainrule.explain.numbers import Style
from chainrule.explain.styles.text import explanation_text

from .describe import described
from .recognise import Guess, Observation, all_slips, edges_above, outcome
from .tape import Tape

STYLE = Style(6, 12)
SMALLEST, LARGEST, DIGITS = 1e-3, 500.0, 4


@dataclass(frozen=True)
class Wrong:
    """A typical wrong answer: its numbers, the kind of mistake and what to say about it."""

    value: Any
    kind: str
    sentence: str


@dataclass(frozen=True)
class Problem:
    """`values` are the leaves by name, `body` computes `loss` from them, `asked` are names."""

    values: dict[str, Any]
    body: str
    asked: tuple[str, ...]
    loss: str = "L"
    fixed: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The whole program, as the solution shows it."""
        lines = ["import chainrule as cr", ""]
        for name, value in self.values.items():
            tracked = "" if name in self.fixed else ", requires_grad=True"
            lines.append(f"{name} = cr.tensor({value!r}{tracked})")
        return "\n".join([*lines, self.body])

    @cached_property
    def ran(self) -> tuple[dict[str, Any], Derivation]:
        """The variables of the program and its derivation, which reads its lines."""
        variables = run("exercise", self.program)
        loss = variables[self.loss]
        return variables, derive(loss, variables, names={self.loss: loss}, style=STYLE)

    @property
    def variables(self) -> dict[str, Any]:
        return self.ran[0]

    @property
    def derivation(self) -> Derivation:
        return self.ran[1]

    @cached_property
    def tape(self) -> Tape:
        return Tape(self.variables[self.loss],
                    tuple(self.variables[name] for name in self.values))

    def node(self, name: str) -> Node:
        found: Node = self.variables[name]._node
        return found

    def value(self, name: str) -> Any:
        """The number of a variable in the forward pass."""
        return self.variables[name].detach().numpy()

    def gradient(self, name: str) -> Any:
        return self.tape.true.expected[self.node(name)]

    @cached_property
    def nice(self) -> bool:
        """Can every step be worked out on paper?"""
        d = self.derivation
        seen = [*[step.value for step in d.forward], *[step.value for step in d.backward]]
        return all(is_nice(value) for value in seen) and not any(
            on_kink(node) for node in self.tape.order)

    # ------------------------------------------------------------ wrong answers

    def wrong(self, name: str) -> list[Wrong]:
        """What the usual slips give for one gradient, the likeliest first."""
        tape, right = self.tape, self.gradient(name)
        place = tape.place[self.node(name)]
        seen = Observation(tape, {place: right}, {}, 1e-9, given=False)
        names = {self.variables[key]._node: key for key in self.variables
                 if getattr(self.variables[key], "_node", None) in tape.place}
        label = f"∂{self.loss}/∂{name}"
        found: list[tuple[tuple[int, ...], Wrong]] = []
        for edge, target, slip in all_slips(seen, edges_above(seen, {place})):
            predicted = (outcome(seen, edge, target, slip) or {}).get(place)
            if predicted is None or predicted.shape != right.shape or not np.all(
                    np.isfinite(predicted)) or near(predicted, right):
                continue
            guess = Guess(edge, slip, frozenset((place,)), 0, tape.place[target])
            if any(near(predicted, other.value) and guess.rank() >= rank for rank, other in found):
                continue
            told = described(seen, guess, (), names, (label,), self.derivation.backward, self.loss)
            sentence = told.sentence.removesuffix(" The step is one of those you did not show.")
            found.append((guess.rank(), Wrong(predicted, slip.kind, sentence)))
        return [one for _, one in sorted(found, key=lambda pair: pair[0])]

    # ------------------------------------------------------------ hints and solution

    def steps_to(self, *names: str) -> list[BackwardStep]:
        """The backward steps that lead from the loss to some gradients, in their order."""
        steps = [s for s in self.derivation.backward if s.number or s.terms]
        wanted, chosen = set(names), []
        for step in reversed(steps):
            if step.of in wanted:
                chosen.append(step)
                wanted.add(step.through)
        return chosen[::-1]

    def paths_from(self, name: str) -> list[list[str]]:
        """The names on each path from a variable to the loss."""
        after: dict[str, list[str]] = {}
        for step in self.derivation.backward:
            if step.through and step.of != step.through and not step.terms:
                after.setdefault(step.of, []).append(step.through)
        return list(walks(name, self.derivation.loss, after))

    def hints(self, *names: str) -> tuple[str, str, str]:
        """Where to go, by which formulas, and with which numbers up to the last operation."""
        first = []
        for name in names:
            paths = [" → ".join(path) for path in self.paths_from(name)]
            if len(paths) == 1:
                first.append(f"{name} acts on {self.loss} on one path, {paths[0]}. Multiply the "
                             "local derivatives along it.")
            else:
                first.append(f"{name} acts on {self.loss} on {len(paths)} paths: "
                             f"{', '.join(paths)}. Multiply along each, then add.")
        steps = self.steps_to(*names)
        second = [f"{labelled(s)} = {s.formula or s.numbers}" for s in steps if not s.terms]
        third = [f"{labelled(s)} = {s.numbers}" + (
            "" if s.of in names or s.numbers == s.result else f" = {s.result}") for s in steps]
        return " ".join(first), "\n".join(second), "\n".join(third)

    def solution(self, width: int = 90) -> str:
        """explain's own derivation."""
        return explanation_text(self.derivation, STYLE, width, False)


def labelled(step: BackwardStep) -> str:
    return f"{step.name} {step.path}" if step.path else step.name


def walks(name: str, end: str, after: dict[str, list[str]]) -> Iterator[list[str]]:
    """Every path from a name to the end, one after the other."""
    waiting = [[name]]
    while waiting:
        path = waiting.pop(0)
        if path[-1] == end:
            yield path
            continue
        waiting += [[*path, following] for following in after.get(path[-1], ())]


def on_kink(node: Node) -> bool:
    """Does the row have a corner just there, so that there is no one derivative?"""
    if node.prim is None or node.prim.kinks is None:
        return False
    sides = [node.prim.kinks(*[x + step if isinstance(x, np.ndarray) else x for x in node.saved],
                             **node.params) for step in (1e-6, -1e-6)]
    return not np.array_equal(sides[0], sides[1])


def is_nice(value: Any) -> bool:
    """Few digits, and not too large."""
    for number in np.ravel(value):
        if not np.isfinite(number) or abs(number) > LARGEST or 0 < abs(number) < SMALLEST:
            return False
        short = float(f"{number:.{DIGITS}g}")
        if abs(short - number) > 1e-9 * max(abs(number), 1e-3) or abs(
                round(number, 4) - number) > 1e-9:
            return False
    return True


def near(a: Any, b: Any, relative: float = 5e-3) -> bool:
    """Equal to the precision of an answer from paper."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= relative * np.abs(b) + 1e-9))
