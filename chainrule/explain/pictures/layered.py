"""A directed graph drawn in ranks: which rank, in which order, at which place.

The method of Sugiyama, Tagawa and Toda (1981), "Methods for visual understanding of hierarchical
system structures", with the order's sweeps and the weights of straight lines as in Gansner,
Koutsofios, North and Vo (1993), "A technique for drawing directed graphs". Places within a rank
come from isotonic regression (pooling adjacent violators; Barlow et al. 1972) rather than from
their linear program: each sweep moves every vertex as near to its neighbours as order and
distances allow, which is the least-squares solution for one rank.

All is told in two directions: ranks follow each other `along`, and lie `across`.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SPACE, THIN = 18.0, 9.0          # between boxes; where a line passes
LINE_ROOM = 7.0                  # what a passing line takes up of its rank
GAP, STEEP, WIDEST_GAP = 16.0, 0.07, 60.0
EDGE = 8.0                       # between the border of a frame and its first or last rank
STRAIGHT = (1.0, 2.0, 8.0)       # how strongly lines pull: at both ends, at one, at neither
BEND = 24.0                      # bends up to here are taken out
SWEEPS, SETTLING = 12, 6
MANY = 1500                      # vertices from which on fewer sweeps are made


@dataclass(eq=False)
class Vertex:
    """What stands in a rank. `pin` keeps it in the first or the last one, or there at the left."""

    across: float
    along: float
    pin: str = ""
    rank: int = 0
    x: float = 0.0                       # its middle, across
    top: float = 0.0                     # where it begins, along
    passing: bool = False                # a line on its way through the rank
    ups: list[tuple[Vertex, float, float]] = field(default_factory=list, repr=False)
    downs: list[tuple[Vertex, float, float]] = field(default_factory=list, repr=False)
    place: float = 0.0                   # in its rank's order

    @property
    def left(self) -> float:
        return self.x - self.across / 2

    @property
    def right(self) -> float:
        return self.x + self.across / 2


@dataclass(eq=False)
class Link:
    """A line between two vertices, which leaves and arrives so far from their middles."""

    source: Vertex
    target: Vertex
    leaves: float = 0.0
    arrives: float = 0.0
    weight: float = 1.0
    through: list[Vertex] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Level:
    """The vertices in order, where the ranks begin and end, along, and the extent across."""

    order: list[list[Vertex]]
    ranks: tuple[tuple[float, float], ...]
    left: float
    right: float

    @property
    def length(self) -> float:
        return self.ranks[-1][1] if self.ranks else 0.0


def arrange(vertices: Sequence[Vertex], links: Sequence[Link]) -> Level:
    """Give every vertex its rank, `x` and `top`, and every link the vertices it goes through."""
    assign_ranks(vertices, links)
    ranks = into_ranks(vertices, links)
    tie(links)
    reduce_crossings(ranks)
    return placed(ranks)


def placed(ranks: list[list[Vertex]]) -> Level:
    """Places for ranks whose order is settled."""
    place(ranks)
    straighten(ranks)
    extents = spread(ranks)
    drawn = [v for rank in ranks for v in rank]
    return Level(ranks, extents, min((v.left for v in drawn), default=0.0),
                 max((v.right for v in drawn), default=0.0))


def rearrange(level: Level, links: Sequence[Link]) -> Level:
    """New places in the same order, after the ends of links were moved."""
    tie(links)
    return placed(level.order)


# ---------------------------------------------------------------- which rank


def assign_ranks(vertices: Sequence[Vertex], links: Sequence[Link]) -> None:
    """As early as possible, then towards the side with more lines: short lines, few of them long.

    Vertices must be given in an order in which lines go forwards.
    """
    place_of = {v: i for i, v in enumerate(vertices)}
    incoming: dict[Vertex, list[Link]] = {v: [] for v in vertices}
    outgoing: dict[Vertex, list[Link]] = {v: [] for v in vertices}
    for link in links:
        assert place_of[link.source] < place_of[link.target], "lines go forwards"
        incoming[link.target].append(link)
        outgoing[link.source].append(link)
    start = 1 if any(v.pin in ("first", "label") for v in vertices) else 0
    for v in vertices:
        v.rank = 0 if v.pin in ("first", "label") else max(
            [start, *(link.source.rank + 1 for link in incoming[v])])
    for _ in range(3):
        for v in reversed(vertices):
            if v.pin or not outgoing[v]:
                continue
            limit = min(link.target.rank for link in outgoing[v]) - 1
            if limit > v.rank and len(outgoing[v]) >= len(incoming[v]):
                v.rank = limit
    last = max((v.rank for v in vertices if v.pin != "last"), default=0)
    for v in vertices:
        if v.pin == "last":
            v.rank = last + 1


def into_ranks(vertices: Sequence[Vertex], links: Sequence[Link]) -> list[list[Vertex]]:
    """The ranks, with a vertex in each rank that a line passes."""
    count = max((v.rank for v in vertices), default=-1) + 1
    ranks: list[list[Vertex]] = [[] for _ in range(count)]
    for v in vertices:
        ranks[v.rank].append(v)
    for link in links:
        link.through = [Vertex(LINE_ROOM, 0.0, rank=r, passing=True)
                        for r in range(link.source.rank + 1, link.target.rank)]
        for v in link.through:
            ranks[v.rank].append(v)
    for rank in ranks:
        rank.sort(key=lambda v: v.pin != "label")
        for i, v in enumerate(rank):
            v.place = float(i)
    return ranks


def tie(links: Sequence[Link]) -> None:
    """Tell each vertex its neighbours in the ranks before and after, and how strongly they pull."""
    for link in links:
        for v in (link.source, *link.through, link.target):
            v.ups, v.downs = [], []
    for link in links:
        chain = [link.source, *link.through, link.target]
        for i, (a, b) in enumerate(pairwise(chain)):
            weight = link.weight * STRAIGHT[a.passing + b.passing]
            shift = (link.leaves if i == 0 else 0.0) - (link.arrives if b is chain[-1] else 0.0)
            a.downs.append((b, weight, -shift))
            b.ups.append((a, weight, shift))


# ---------------------------------------------------------------- in which order


def reduce_crossings(ranks: list[list[Vertex]]) -> None:
    """Sweep down and up, sorting each rank by the mean place of its neighbours; keep the best."""
    total = sum(map(len, ranks))
    best = [list(rank) for rank in ranks]
    fewest = crossings(ranks)
    for sweep in range(SWEEPS if total < MANY else 5):
        if not fewest:
            break
        down = sweep % 2 == 0
        for rank in ranks[1:] if down else ranks[-2::-1]:
            sort_rank(rank, down)
        if total < MANY // 4:
            for rank in ranks:
                swap_neighbours(rank)
        count = crossings(ranks)
        if count < fewest:
            fewest, best = count, [list(rank) for rank in ranks]
    for rank, kept in zip(ranks, best, strict=True):
        rank[:] = kept
        for i, v in enumerate(rank):
            v.place = float(i)


def sort_rank(rank: list[Vertex], down: bool) -> None:
    keys: dict[Vertex, float] = {}
    for v in rank:
        near = v.ups if down else v.downs
        if v.pin == "label":
            keys[v] = -1.0
        elif near:
            keys[v] = sum(seen_at(u, v, down) for u, _, _ in near) / len(near)
        else:
            keys[v] = v.place
    rank.sort(key=keys.__getitem__)
    for i, v in enumerate(rank):
        v.place = float(i)


def seen_at(u: Vertex, v: Vertex, down: bool) -> float:
    """The place of a neighbour, and where on it the line begins."""
    shift = next(s for w, _, s in (v.ups if down else v.downs) if w is u)
    return u.place + shift / (2 * u.across + 2 * v.across + 1)


def swap_neighbours(rank: list[Vertex]) -> None:
    """Exchange neighbours in a rank where fewer lines cross then."""
    for _ in range(4):
        changed = False
        for i in range(len(rank) - 1):
            a, b = rank[i], rank[i + 1]
            if a.pin == "label":
                continue
            if crossed(a, b) > crossed(b, a):
                rank[i], rank[i + 1] = b, a
                a.place, b.place = b.place, a.place
                changed = True
        if not changed:
            return


def crossed(a: Vertex, b: Vertex) -> int:
    """How many lines of two neighbours cross while a stands left of b."""
    return (sum(u.place > w.place for u, _, _ in a.ups for w, _, _ in b.ups)
            + sum(u.place > w.place for u, _, _ in a.downs for w, _, _ in b.downs))


def crossings(ranks: list[list[Vertex]]) -> int:
    """How many pairs of lines between neighbouring ranks cross."""
    total = 0
    for rank in ranks:
        seen: list[float] = []
        for v in rank:
            ends = sorted(u.place for u, _, _ in v.downs)
            for end in ends:
                total += len(seen) - bisect_right(seen, end)
            for end in ends:
                insort(seen, end)
    return total


# ---------------------------------------------------------------- at which place


def place(ranks: list[list[Vertex]]) -> None:
    """The places across: near to the neighbours, in order, with room between them."""
    for rank in ranks:
        at = 0.0
        for i, v in enumerate(rank):
            at += room(rank[i - 1], v) if i else 0.0
            v.x = at
        for v in rank:
            v.x -= at / 2
    total = sum(map(len, ranks))
    for _ in range(SWEEPS if total < MANY else 4):
        for rank in ranks[1:]:
            pull(rank, True, False)
        for rank in ranks[-2::-1]:
            pull(rank, False, True)
    for _ in range(SETTLING):
        for rank in ranks:
            pull(rank, True, True)


def room(a: Vertex, b: Vertex) -> float:
    """The least distance of the middles of two neighbours."""
    return (a.across + b.across) / 2 + (THIN if a.passing or b.passing else SPACE)


def pull(rank: list[Vertex], up: bool, down: bool) -> None:
    """Least squares for one rank: each vertex at the mean of its neighbours, as far as it may."""
    blocks: list[tuple[float, float, int]] = []      # wanted place, weight, how many
    offsets: list[float] = []                        # places if all were as close as they may
    at = 0.0
    for i, v in enumerate(rank):
        at += room(rank[i - 1], v) if i else 0.0
        offsets.append(at)
        weight = total = 0.0
        for near in (v.ups if up else (), v.downs if down else ()):
            for u, w, shift in near:
                weight += w
                total += w * (u.x + shift)
        wanted, count = (total / weight if weight else v.x) - at, 1
        weight = weight or 0.01
        while blocks and blocks[-1][0] > wanted:
            other, other_weight, several = blocks.pop()
            wanted = (other * other_weight + wanted * weight) / (other_weight + weight)
            weight += other_weight
            count += several
        blocks.append((wanted, weight, count))
    settled = iter([wanted for wanted, _, count in blocks for _ in range(count)])
    for v, offset in zip(rank, offsets, strict=True):
        v.x = next(settled) + offset


def straighten(ranks: list[list[Vertex]]) -> None:
    """Take small bends out: of boxes in a row, then of lines that pass several ranks."""
    for down in (True, False, True):
        for rank in ranks if down else ranks[::-1]:
            for i, v in enumerate(rank):
                near = [one for one in (v.ups if down else v.downs) if one[1] >= 1]
                if len(near) == 1 and not v.passing:
                    u, _, shift = near[0]
                    if 0 < abs(u.x + shift - v.x) <= BEND:
                        low, high = freedom(rank, i)
                        v.x = min(max(u.x + shift, low), high)
    done: set[Vertex] = set()
    for rank in ranks:
        for v in rank:
            if v.passing and v not in done:
                done.update(straight_line(v, ranks))


def straight_line(first: Vertex, ranks: list[list[Vertex]]) -> list[Vertex]:
    """Give all that a line passes one place, if there is one; near to an end of the line."""
    chain = [first]
    while chain[-1].downs[0][0].passing:
        chain.append(chain[-1].downs[0][0])
    low, high = -math.inf, math.inf
    for v in chain:
        least, most = freedom(ranks[v.rank], int(v.place))
        low, high = max(low, least), min(high, most)
    if low > high:
        return chain
    (above, _, shift), (below, _, back) = first.ups[0], chain[-1].downs[0]
    ends = [below.x + back, above.x + shift]
    inside = [x for x in ends if low <= x <= high]
    middle = sorted(v.x for v in chain)[len(chain) // 2]
    for v in chain:
        v.x = inside[0] if inside else min(max(middle, low), high)
    return chain


def freedom(rank: list[Vertex], i: int) -> tuple[float, float]:
    """How far a vertex can be moved between its neighbours."""
    low = rank[i - 1].x + room(rank[i - 1], rank[i]) if i else -math.inf
    high = rank[i + 1].x - room(rank[i], rank[i + 1]) if i + 1 < len(rank) else math.inf
    return low, high


def spread(ranks: list[list[Vertex]]) -> tuple[tuple[float, float], ...]:
    """The ranks one after another, further apart where lines go far across."""
    extents = []
    at = 0.0
    for r, rank in enumerate(ranks):
        length = max((v.along for v in rank), default=0.0)
        for v in rank:
            free = length - v.along
            v.top = at + (free if not v.ups else 0.0 if not v.downs else free / 2)
            if v.passing or v.pin in ("first", "last"):
                v.top, v.along = at, length
        extents.append((at, at + length))
        far = max((abs(u.x - v.x - shift) for v in rank for u, _, shift in v.downs), default=0.0)
        least = EDGE if all(v.pin for v in rank) or (
            r + 1 < len(ranks) and all(v.pin for v in ranks[r + 1])) else GAP
        at += length + min(WIDEST_GAP, max(least, STEEP * far))
    return tuple(extents)


def route(link: Link, level: Level) -> list[tuple[float, float]]:
    """The corners of a line as (across, along): straight in the ranks, free between them."""
    start = (link.source.x + link.leaves, link.source.top + link.source.along)
    points = [start]
    bottom = level.ranks[link.source.rank][1]
    if bottom > start[1]:
        points.append((start[0], bottom))
    for v in link.through:
        first, last = level.ranks[v.rank]
        points.append((v.x, first))
        if last > first:
            points.append((v.x, last))
    end = (link.target.x + link.arrives, link.target.top)
    top = level.ranks[link.target.rank][0]
    if top < end[1]:
        points.append((end[0], top))
    points.append(end)
    return points
