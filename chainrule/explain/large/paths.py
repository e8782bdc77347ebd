"""Why one number has its gradient: the terms it is the sum of, and the paths to the loss."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chainrule.core.node import Node
from chainrule.explain.recording import Recording

from .local import Locals, one_hot

MOST_PLACES = 200        # elements whose readers are looked up to count the paths
MOST_STEPS = 300         # elements opened in search of strong paths
WIDEST = 8               # branches of one element that are followed one by one

Place = tuple[int, ...]


class Term(NamedTuple):
    """upstream · local = product: what goes through one element that reads the number."""

    node: Node
    place: Place
    upstream: float
    local: float
    product: float


class Path(NamedTuple):
    """One path to the loss: its elements, the factor of each step, and their product."""

    elements: tuple[tuple[Node, Place], ...]
    factors: tuple[float, ...]
    product: float


@dataclass(frozen=True)
class Reasons:
    """gradient = Σ terms, and = Σ of the products along all paths.

    lead   the elements from the number to the first that is read in several places; most often
           the number alone. The local derivatives of the terms are those of the number itself
    paths  the strongest, strongest first; strong ones, where there are too many to count
    count  how many paths there are; None if there are too many to count
    rest   what the paths not listed add up to: the gradient less those listed
    """

    node: Node
    place: Place
    gradient: float
    lead: tuple[tuple[Node, Place], ...]
    terms: tuple[Term, ...]
    paths: tuple[Path, ...]
    count: int | None
    rest: float


def reasons(recording: Recording, node: Node, place: Place, most: int = 6) -> Reasons:
    """The terms of ∂L/∂node[place], strongest first, and the strongest paths."""
    locals_ = Locals(recording)
    gradient = float(np.asarray(recording.gradients[node])[place])
    opened: dict[Any, list[Term]] = {}
    lead = [(node, place)]
    factor = 1.0
    terms = _opened(locals_, node, place, opened)
    while len(terms) == 1 and terms[0].node is not recording.root:
        after = _opened(locals_, terms[0].node, terms[0].place, opened)
        if not after:
            break
        lead.append((terms[0].node, terms[0].place))
        factor *= terms[0].local
        terms = after
    terms = [term._replace(local=factor * term.local, product=factor * term.product)
             for term in terms]
    onward = _reached(locals_, node, place, opened)
    count = None if onward is None else onward[node, place][0]
    paths = _strongest(locals_, node, place, opened, onward, most)
    rest = gradient - sum(path.product for path in paths)
    if count == len(paths):
        rest = 0.0
    return Reasons(node, place, gradient, tuple(lead), tuple(terms), tuple(paths), count, rest)


def _terms(locals_: Locals, node: Node, place: Place) -> list[Term]:
    found = []
    for user, moved in locals_.reads(node, one_hot(node, place)):
        upstream = np.asarray(locals_.recording.gradients[user], np.float64).reshape(user.shape)
        for at in zip(*np.nonzero(moved), strict=True) if user.shape else [()] * bool(moved):
            where = tuple(int(i) for i in at)
            up, local = float(upstream[where]), float(moved[where])
            found.append(Term(user, where, up, local, up * local))
    found.sort(key=lambda term: (-abs(term.product), term.node.seq, term.place))
    return found


def _opened(locals_: Locals, node: Node, place: Place, opened: dict[Any, list[Term]]
            ) -> list[Term]:
    key = (node, place)
    if key not in opened:
        opened[key] = _terms(locals_, node, place)
    return opened[key]


def _reached(locals_: Locals, node: Node, place: Place, opened: dict[Any, list[Term]]
             ) -> dict[tuple[Node, Place], tuple[int, float]] | None:
    """For each element on a path to the loss, how many paths lead on from there, and the size of
    the largest product along one; None if there are too many elements."""
    root = locals_.recording.root
    reached: set[tuple[Node, Place]] = set()
    waiting = [(node, place)]
    while waiting:
        key = waiting.pop()
        if key in reached:
            continue
        reached.add(key)
        if len(reached) > MOST_PLACES:
            return None
        if key[0] is not root:
            waiting += [(term.node, term.place) for term in _opened(locals_, *key, opened)]
    onward: dict[tuple[Node, Place], tuple[int, float]] = {}
    for key in sorted(reached, key=lambda one: one[0].seq, reverse=True):
        if key[0] is root:
            onward[key] = 1, 1.0
            continue
        ends = [(onward[term.node, term.place], abs(term.local)) for term in opened[key]]
        onward[key] = (sum(count for (count, _), _ in ends),
                       max((size * local for (_, size), local in ends), default=0.0))
    return onward


def _strongest(locals_: Locals, node: Node, place: Place, opened: dict[Any, list[Term]],
               onward: dict[tuple[Node, Place], tuple[int, float]] | None, most: int
               ) -> list[Path]:
    """The paths with the largest products.

    Where all that lies on the way is known, the largest product still possible leads the search,
    and what it finds first is the strongest (best-first search with an exact bound). Else it
    follows what carries most of the gradient, and finds strong paths, not surely the strongest.
    """
    root = locals_.recording.root
    order = itertools.count()
    heap: list[Any] = [(-np.inf, next(order), 1.0, ((node, place),), ())]
    done: list[Path] = []
    while heap and len(done) < most and len(opened) < MOST_STEPS:
        _, _, product, elements, factors = heapq.heappop(heap)
        while elements[-1][0] is not root and (onward is not None or len(opened) < MOST_STEPS):
            here, at = elements[-1]
            terms = _opened(locals_, here, at, opened)
            branches = []
            for term in terms if onward is not None else terms[:WIDEST]:
                whole = product * term.local
                left = term.upstream if onward is None else onward[term.node, term.place][1]
                if whole * left == whole * left:
                    branches.append((-abs(whole * left), next(order), whole,
                                     (*elements, (term.node, term.place)),
                                     (*factors, term.local)))
            if not branches:
                break
            best = min(branches)                 # go on to the loss; the others wait
            for branch in branches:
                if branch is not best:
                    heapq.heappush(heap, branch)
            _, _, product, elements, factors = best
        if elements[-1][0] is root:
            done.append(Path(elements, factors, product))
    return sorted(done, key=lambda path: -abs(path.product))
