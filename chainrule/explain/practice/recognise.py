"""Which slip explains wrong gradients: each is tried on the user's own numbers and compared.

A slip is believed if it gives the same numbers at the inputs of the user and at others of the same
shapes, and if it leaves right what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from chainrule.core.node import Node

from .slips import FAILURES, KINDS, Slip, doubtful, sizes, slips_along, times
from .tape import Edge, Pass, Tape

NEAREST = 8


@dataclass
class Observation:
    """The user's gradients on one set of inputs, by the place of their node, beside a tape."""

    tape: Tape
    mine: dict[int, Any]
    noise: dict[int, float]
    relative: float
    given: bool = True               # do the user's own numbers go on to what follows?
    flow: Pass = field(init=False)

    def __post_init__(self) -> None:
        fitting = {node: np.asarray(value, node.dtype) for place, value in self.mine.items()
                   if np.shape(value) == (node := self.tape.order[place]).shape}
        self.flow = self.tape.backward(fitting) if self.given else self.tape.true

    def expected(self, place: int) -> Any:
        return self.flow.expected.get(self.tape.order[place])

    def same_change(self, place: int, change: Any) -> bool:
        """Is a change of the true gradient too small to be seen?"""
        value = self.expected(place)
        return equal(value + change, value, self.relative, self.floor(place))

    def same(self, place: int, value: Any) -> bool:
        """Are the user's numbers at a place these, up to rounding?"""
        noise = self.floor(place)
        if np.shape(value) == np.shape(self.expected(place)):
            noise += self.relative * largest(self.expected(place))
        return equal(self.mine[place], value, self.relative, noise)

    def floor(self, place: int) -> float:
        """What is no difference: the noise, and what is left where large terms cancel."""
        return self.noise.get(place, 0.0) + 1e-4 * self.relative * self.largest_term(place)

    def largest_term(self, place: int) -> float:
        return max(map(largest, self.flow.arrived[self.tape.order[place]].values()), default=0.0)


def largest(value: Any) -> float:
    value = np.abs(value)
    return float(np.max(value, initial=0.0, where=np.isfinite(value)))


def equal(mine: Any, value: Any, relative: float, noise: float) -> bool:
    mine, value = np.asarray(mine), np.asarray(value)
    if mine.shape != value.shape:
        return False
    with np.errstate(all="ignore"):
        near = np.abs(mine - value) <= relative * largest(value) + noise
    return bool(np.all(near | (mine == value) | (np.isnan(mine) & np.isnan(value))))


class Guess(NamedTuple):
    """A slip that explains the gradients at the places in `shows`."""

    edge: Edge
    slip: Slip
    shows: frozenset[int]
    spoils: int                      # gradients that are right and would not be
    target: int

    def rank(self) -> tuple[int, ...]:
        direct = self.target not in self.shows
        return (self.spoils, -len(self.shows), self.slip.likely, KINDS.index(self.slip.kind),
                int(direct), -self.edge.place)


def recognised(seen: Observation, trials: Sequence[Observation],
               wrong: set[int]) -> list[tuple[Guess, tuple[Guess, ...]]]:
    """The fewest slips that explain the wrong gradients, each with those that do so equally well"""
    guesses = [guess for guess in all_guesses(seen, wrong) if guess.shows]
    guesses = [guess for one in guesses if (guess := confirmed(one, trials)).shows]
    found = []
    left = set(wrong)
    while left:
        useful = [g._replace(shows=g.shows & left) for g in guesses if g.shows & left]
        if not useful:
            break
        best = min(useful, key=Guess.rank)
        equals = tuple(g for g in useful if g is not best and g.shows == best.shows
                       and g.spoils == best.spoils)
        found.append((best, equals))
        left -= best.shows
    return found


def confirmed(guess: Guess, trials: Sequence[Observation]) -> Guess:
    """The guess, for the places alone where it is right on other inputs as well."""
    shows = set(guess.shows)
    for trial in trials:
        if not shows:
            break
        predicted = prediction(trial, guess.edge, guess.slip.key)
        shows = {place for place in shows if place not in trial.mine or (
            trial.same(place, predicted.get(place, trial.expected(place))))}
    return guess._replace(shows=frozenset(shows))


def prediction(seen: Observation, edge: Edge, key: str) -> dict[int, Any]:
    """The gradients that a slip gives, found again by its key on another tape."""
    for at, target, slip in all_slips(seen, [edge]):
        if slip.key == key and at == edge:
            return outcome(seen, at, target, slip) or {}
    return {}


# ---------------------------------------------------------------- trying


def all_guesses(seen: Observation, wrong: set[int]) -> Iterator[Guess]:
    right = set(seen.mine) - wrong
    for edge, target, slip in all_slips(seen, edges_above(seen, wrong)):
        predicted = outcome(seen, edge, target, slip)
        if predicted is None:
            continue
        shows = frozenset(p for p in predicted if p in wrong and seen.same(p, predicted[p]))
        spoils = sum(p in right and not seen.same(p, predicted[p]) for p in predicted)
        yield Guess(edge, slip, shows, spoils, seen.tape.place[target])


WHOLE = -1          # the slot of a slip that is made with a sum over paths, or its result


def edges_above(seen: Observation, wrong: set[int]) -> list[Edge]:
    """Every step that leads to a wrong gradient from the nearest ones that the user gave."""
    tape = seen.tape
    wanted = set(wrong)
    found = []
    for place in range(len(tape.order) - 1, -1, -1):
        node = tape.order[place]
        ways = [(edge, target) for edge, target in tape.edges(node)
                if tape.place[target] in wanted]
        found += [edge for edge, _ in ways]
        if ways and (place not in seen.mine or not seen.given):
            wanted.add(place)
        if place in wanted:
            found.append(Edge(place, WHOLE))
    return found


def all_slips(seen: Observation, edges: Sequence[Edge]) -> Iterator[tuple[Edge, Node, Slip]]:
    """The slips on some edges, each with the node whose gradient it makes wrong."""
    tape = seen.tape
    for edge in edges:
        node = tape.order[edge.place]
        if edge.slot == WHOLE:
            for slip in slips_of_sum(seen, node):
                yield edge, node, slip
            continue
        target = node.inputs[edge.slot]
        if node in seen.flow.used and target is not None:
            twin = 2 if node.inputs.count(target) > 1 else 0     # v·v: one slip in one of the two
            for slip in slips_along(tape, edge, seen.flow.used[node]):
                yield edge, target, slip._replace(likely=slip.likely + twin)


def slips_of_sum(seen: Observation, node: Node) -> Iterator[Slip]:
    """Forgotten paths, and what can happen to a gradient as a whole."""
    def same(g: Any) -> Any:
        return g

    terms: Mapping[Edge, Any] = seen.flow.arrived.get(node, {})
    if len(terms) > 1:
        for edge in terms:
            others = [term for other, term in terms.items() if other != edge]
            twice = tape_squares(seen.tape.order[edge.place])
            yield Slip("factor" if twice else "path", f"without {edge}",
                       always(sum(others[1:], others[0])), "square" if twice else f"{edge.place}")
            if len(terms) > 2:
                yield Slip("path", f"only {edge}", always(terms[edge]),
                           ",".join(str(e.place) for e in terms if e != edge))
        for above in consumers(seen.tape, node):
            local = seen.tape.carried(above, np.ones(above.shape, above.dtype), ())[node]
            yield Slip("upstream", f"ones at {seen.tape.place[above]}", always(local),
                       f"{seen.tape.place[above]}")
    yield Slip("sign", "whole negated", lambda g: -g)
    if len(node.shape) > 1:
        yield Slip("transpose", "whole turned", lambda g: np.swapaxes(g, -1, -2), "whole")
    found = {n for edge in terms for n in sizes(seen.tape, edge)}
    for n in sorted(found):
        yield Slip("mean", f"whole times {n}", times(same, n), f"times {n}", doubtful(n))
        yield Slip("mean", f"whole over {n}", times(same, 1 / n), f"over {n}", doubtful(n))
    for c in (2.0, 0.5):
        yield Slip("factor", f"whole times {c}", times(same, c), f"times {c:g}", 2)


def tape_squares(node: Node) -> bool:
    """Is it a product of one thing with itself, which is written as a square?"""
    return node.name == "mul" and node.inputs[0] is node.inputs[1]


def consumers(tape: Tape, node: Node) -> list[Node]:
    """The nearest nodes that a node acts on, directly or through others; not the loss."""
    found = {node}
    for place in range(tape.place[node] - 1, 0, -1):
        if any(target in found for _, target in tape.edges(tape.order[place])):
            found.add(tape.order[place])
            if len(found) > NEAREST:
                break
    return [one for one in found if one is not node]


def always(value: Any) -> Callable[[Any], Any]:
    return lambda g: value


def outcome(seen: Observation, edge: Edge, target: Node, slip: Slip) -> dict[int, Any] | None:
    """What the user's gradients would be with this slip, where it changes them; None if nothing."""
    tape, flow = seen.tape, seen.flow
    place = tape.place[target]
    try:
        if edge.slot == WHOLE:
            wrong = np.asarray(slip.wrong(flow.expected[target]))
            change: Any = wrong - flow.expected[target] if wrong.shape == target.shape else None
        else:
            wrong = np.asarray(slip.wrong(flow.used[tape.order[edge.place]]))
            change = wrong - flow.arrived[target][edge] if wrong.shape == target.shape else None
    except FAILURES:
        return None
    if change is None:                     # it shows here or nowhere: nothing else would run
        if place not in seen.mine:
            return None
        others = [] if edge.slot == WHOLE else [
            term for other, term in flow.arrived[target].items() if other != edge]
        try:
            return {place: sum(others, wrong)}
        except ValueError:
            return None
    if not np.any(change):
        return None
    stops = {tape.order[p] for p in seen.mine} if seen.given else set()
    carried = tape.carried(target, np.asarray(change, target.dtype), stops)
    return {p: flow.expected[tape.order[p]] + carried[tape.order[p]]
            for p in seen.mine if tape.order[p] in carried
            and not seen.same_change(p, carried[tape.order[p]])}
