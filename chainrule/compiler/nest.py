"""The loops of a kernel: which axes are taken together, which runs over lanes, in which order."""

from __future__ import annotations

from typing import NamedTuple

from .index import Affine
from .kernel import Apply, Constant, Count, Kernel, Load, Picked

# Lanes are the same on every machine (LLVM splits them), so that results are, too.
LANES_BYTES = 64
# A cheap reduction uses several registers for one sum, to hide the latency of an addition.
SUMS = 4
CHEAP = 8


class Loop(NamedTuple):
    """One loop: its size, and whether its values are taken together."""

    size: int
    reduced: bool


class Nest:
    """The loops of a kernel in order. `vector` is the position of the one over lanes, or -1.

    `steps(affine)` are the coefficients of an affine map of the kernel for these loops.
    """

    def __init__(self, kernel: Kernel, fixed: bool = False, rows: int = 0) -> None:
        self.kernel = kernel
        rows = rows or kernel.what.get("rows", 0)      # so many axes stay apart from the others
        reduced = kernel.what.get("reduced", 1 if kernel.kind == "scan" else 0)
        rank = len(kernel.domain)
        groups = [[d] for d in range(rank)]
        affines = [*places(kernel)]
        if not fixed:
            groups = [[d] for d in range(rank) if kernel.domain[d] != 1]
            groups = collapsed(groups, kernel, affines, rank - reduced, rows)
        self.groups = groups
        loops = [Loop(_size(kernel, g), g[-1] >= rank - reduced) for g in groups]
        self.lanes = 1
        vector = -1
        inner = [i for i, g in enumerate(groups) if g[-1] >= rows]
        if fixed:
            vector = len(loops) - 1
        elif loops and kernel.what.get("op") not in ("argmax", "argmin"):
            vector = self._best(loops, affines, inner if rows and inner else None)
        elif loops:
            vector = self._best(loops, affines, parallel=True)
        if vector >= 0:
            self.lanes = self._lanes(loops[vector])
            if self.lanes == 1:
                vector = -1
        order = [i for i in range(len(loops)) if i != vector]
        if vector >= 0:
            if kernel.kind in ("reduce", "scan") and not loops[vector].reduced:
                first = sum(not loops[i].reduced for i in order)
                order.insert(first, vector)
            else:
                order.append(vector)
        self.order = order
        self.loops = [loops[i] for i in order]
        self.vector = order.index(vector) if vector >= 0 else -1
        self.parallel = sum(not loop.reduced for loop in self.loops)

    def steps(self, affine: Affine) -> tuple[int, ...]:
        """Coefficients for the loops in order."""
        return tuple([affine.steps[self.groups[i][-1]] for i in self.order])

    def _best(self, loops: list[Loop], affines: list[tuple[Affine, str]],
              among: list[int] | None = None, parallel: bool = False) -> int:
        """The loop whose lanes are neighbours in memory most often; the last one if none is."""
        kernel = self.kernel
        best, score = -1, -1e9
        for i, loop in enumerate(loops):
            if kernel.kind == "scan" and loop.reduced:
                continue
            if kernel.kind == "scatter" and not self._scatters_rows(self.groups[i]):
                continue
            if (parallel and loop.reduced) or (among is not None and i not in among):
                continue
            points = 0.0
            for affine, use in affines:
                step = affine.steps[self.groups[i][-1]]
                if use == "store" and step != 1 and not loop.reduced:
                    points -= 8
                elif step == 1:
                    points += 4
                elif step:
                    points -= 4
            points += min(loop.size, 16) / 4 + i / 16
            if points > score:
                best, score = i, points
        return best

    def _scatters_rows(self, group: list[int]) -> bool:
        """Is this axis the last one of the stores, and are the computed places free of it?"""
        kernel = self.kernel
        if kernel.stores[0].place.steps[group[-1]] != 1:
            return False
        free = depends(kernel, [group[-1]])
        return not any(free[point] for point, *_ in kernel.what["axes"])

    def _lanes(self, loop: Loop) -> int:
        sizes = [p.dtype.itemsize for p in self.kernel.points if isinstance(p, (Apply, Constant))
                 and p.dtype.kind == "f"]
        sizes += [p.home.dtype.itemsize for p in self.kernel.points
                  if isinstance(p, (Load, Picked)) and p.home.dtype.kind == "f"]
        most = LANES_BYTES // max(sizes, default=8)
        if self.kernel.kind == "reduce" and cost_of(self.kernel) <= CHEAP:
            most *= SUMS
        lanes = 1
        while lanes < most and lanes < loop.size:
            lanes *= 2
        return lanes


def cost_of(kernel: Kernel) -> int:
    return sum(p.what.cost for p in kernel.points if isinstance(p, Apply))


def places(kernel: Kernel) -> list[tuple[Affine, str]]:
    """Every affine map of a kernel, and what it is for."""
    found = [(s.place, "store") for s in kernel.stores]
    for p in kernel.points:
        if isinstance(p, (Load, Picked)):
            found.append((p.place, "load"))
        elif isinstance(p, Count):
            found.append((p.value, "count"))
    return found


def collapsed(groups: list[list[int]], kernel: Kernel, affines: list[tuple[Affine, str]],
              parallel: int, rows: int = 0) -> list[list[int]]:
    """Neighbouring axes taken as one wherever all maps run through them evenly; the first `rows`
    axes are not taken together with others."""
    result: list[list[int]] = []
    for group in groups:
        if result:
            left, right = result[-1][-1], group[0]
            size = _size(kernel, group)
            same_side = ((left < parallel) == (right < parallel)
                         and (left < rows) == (right < rows))
            if same_side and all(a.steps[left] == a.steps[group[-1]] * size for a, _ in affines):
                result[-1] = [*result[-1], *group]
                continue
        result.append(group)
    return result


def _size(kernel: Kernel, group: list[int]) -> int:
    size = 1
    for d in group:
        size *= kernel.domain[d]
    return size


def depends(kernel: Kernel, axes: list[int]) -> list[bool]:
    """For each point: does it change along one of these axes of the domain?"""
    found: list[bool] = []
    for p in kernel.points:
        if isinstance(p, Load):
            found.append(any(p.place.steps[d] for d in axes))
        elif isinstance(p, Count):
            found.append(any(p.value.steps[d] for d in axes))
        elif isinstance(p, Picked):
            found.append(any(p.place.steps[d] for d in axes)
                         or any(found[point] for point, *_ in p.axes))
        elif isinstance(p, Apply):
            found.append(any(found[x.point] for x in p.operands if hasattr(x, "point")))
        else:
            found.append(False)
    return found
