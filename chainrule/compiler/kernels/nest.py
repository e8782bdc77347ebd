"""The loops of a kernel: which axes are taken together, which runs over lanes, in which order."""

from __future__ import annotations

from typing import NamedTuple

from chainrule.compiler.arrays.index import Affine
from chainrule.compiler.kernels.kernel import Apply, Constant, Count, Kernel, Load, Picked, Store

# Rows of no more elements than this that follow each other are taken apart by choosing lanes.
DENSE = 4
# Lanes are the same on every machine (LLVM splits them), so that results are, too.
LANES_BYTES = 64
# A cheap reduction uses several registers for one sum, to hide the latency of an addition.
SUMS = 4
CHEAP = 8
# A maximum along memory over no more elements than this, and its place, have their lanes across: to
# bring lanes together at the end costs more than to turn tiles over. A sum has where there are no
# gaps between rows.
SHORT = {"max": 16, "min": 16, "argmax": 128, "argmin": 128}


class Loop(NamedTuple):
    """One loop: its size, and whether its values are taken together."""

    size: int
    reduced: bool


class Nest:
    """The loops of a kernel in order. `vector` is the position of the one over lanes, or -1.

    `tile` is the position of the innermost loop if what `tiled` says runs along memory there and
    not over the lanes: it is turned over block by block (see `tiles.py`); else -1.
    `steps(affine)` are the coefficients of an affine map of the kernel for these loops.
    """

    def __init__(self, kernel: Kernel, fixed: bool = False, rows: int = 0) -> None:
        self.kernel = kernel
        rows = rows or kernel.what.get("rows", 0)      # so many axes stay apart from the others
        reduced = kernel.what.get("reduced", 1 if kernel.kind == "scan" else 0)
        rank = len(kernel.domain)
        groups = [[d] for d in range(rank)]
        affines = kernel.affines()
        if not fixed:
            groups = [[d] for d in range(rank) if kernel.domain[d] != 1]
            groups = collapsed(groups, kernel, affines, rank - reduced, rows)
        self.groups = groups
        loops = [Loop(_size(kernel, g), g[-1] >= rank - reduced) for g in groups]
        self.lanes = 1
        vector = tile = -1
        if fixed:
            vector = len(loops) - 1
        elif loops:
            vector, tile = self._best(loops, affines, rows)
        if vector >= 0:
            self.lanes = self._lanes(loops[vector], tile >= 0 or bool(rows and not vector))
            if self.lanes == 1:
                vector = tile = -1
        order = [i for i in range(len(loops)) if i not in (vector, tile)]
        if vector >= 0:
            if kernel.kind in ("reduce", "scan") and not loops[vector].reduced:
                first = sum(not loops[i].reduced for i in order)
                order.insert(first, vector)
            else:
                order.append(vector)
        if tile >= 0:
            order.append(tile)
        self.order = order
        self.loops = [loops[i] for i in order]
        self.vector = order.index(vector) if vector >= 0 else -1
        self.tile = len(order) - 1 if tile >= 0 else -1
        self.parallel = sum(not loop.reduced for loop in self.loops)

    def steps(self, affine: Affine) -> tuple[int, ...]:
        """Coefficients for the loops in order."""
        return tuple([affine.steps[self.groups[i][-1]] for i in self.order])

    def tiled(self, what: Load | Store) -> bool:
        """Is this turned over in tiles?"""
        return self.tile >= 0 and turns_over(what) and self._turned(
            what.place, self.order[self.vector], self.order[self.tile])

    def _turned(self, affine: Affine, vector: int, tile: int) -> bool:
        """Does a map run along memory in one loop, and with other steps over the lanes?"""
        step = affine.steps[self.groups[vector][-1]]
        size = _size(self.kernel, self.groups[tile])
        return (affine.steps[self.groups[tile][-1]] == 1 and step not in (-1, 0, 1)
                and (size >= 4 or step == size <= DENSE))

    def _best(self, loops: list[Loop], affines: list[tuple[Affine, str]],
              rows: int) -> tuple[int, int]:
        """The loop whose lanes are neighbours in memory most often, the last one if none is; and
        the loop of tiles."""
        kernel = self.kernel
        extreme = kernel.what.get("op") in ("argmax", "argmin")
        best, score = (-1, -1), -1e9
        for i, loop in enumerate(loops):
            if kernel.kind == "scan" and loop.reduced:
                continue
            if kernel.kind == "scatter" and not self._scatters_rows(self.groups[i]):
                continue
            if extreme and loop.reduced and (i != len(loops) - 1 or loop.size <= SHORT["argmax"]):
                continue                                # the first place counts
            outer = self.groups[i][-1] < rows and len(loops) > 1
            for tile in (-1, *range(len(loops))):
                if tile >= 0 and not self._tiles(loops, affines, i, tile):
                    continue
                others = [d for d in range(len(loops)) if d not in (i, tile)]
                if outer and (tile < 0 or any(not loops[d].reduced for d in others)):
                    continue
                if tile >= 0 and self.groups[tile][-1] < rows:
                    continue
                points = self._points(loop, affines, i, tile)
                if points > score:
                    best, score = (i, tile), points
        return best

    def _points(self, loop: Loop, affines: list[tuple[Affine, str]], i: int, tile: int) -> float:
        """How good it is to have lanes along loop i, and these tiles."""
        points = 0.0
        lanes = self.groups[i][-1]
        short = tile >= 0 and self.kernel.kind == "reduce"
        for affine, use in affines:
            step = affine.steps[lanes]
            if tile >= 0:
                along = affine.steps[self.groups[tile][-1]]
                if use in ("load", "store") and self._turned(affine, i, tile):
                    # rows without gaps are almost as good as neighbours
                    points += 3.5 if step == _size(self.kernel, self.groups[tile]) <= DENSE else 1
                    continue
                if not along:                          # computed before the innermost loop
                    continue
            if use in ("store", "write") and step not in (-1, 1) and not loop.reduced:
                points -= 8
            elif step == 1:
                points += 4
            elif step == -1:                           # read backwards
                points += 3
            elif step:
                points -= 4
        return points + (6 if short else 0) + min(loop.size, 16) / 4 + i / 16

    def _tiles(self, loops: list[Loop], affines: list[tuple[Affine, str]], vector: int,
               tile: int) -> bool:
        """Can these two loops have tiles, and is there something to turn over?"""
        kernel = self.kernel
        if (kernel.kind not in ("map", "reduce", "scan") or tile == vector
                or loops[vector].reduced or loops[vector].size < 4):
            return False
        if loops[tile].reduced != (kernel.kind != "map"):
            return False
        extreme = kernel.what.get("op") in ("argmax", "argmin")
        if extreme and tile != len(loops) - 1:
            return False
        along = [affine for affine, use in affines if use in ("load", "store")
                 and self._turned(affine, vector, tile)]
        along_tile = [affine.steps[self.groups[tile][-1]] for affine, _ in affines]
        dense = loops[tile].size <= DENSE
        if kernel.kind == "reduce":
            short = dense or loops[tile].size <= SHORT.get(kernel.what["op"], 0)
            if set(along_tile) <= {0, 1} and not (short and loops[vector].size >= LANES_BYTES // 4):
                return False
        if kernel.kind == "scan" and not dense and loops[tile].size < 8:
            return False
        return bool(along)

    def _scatters_rows(self, group: list[int]) -> bool:
        """Is this axis the last one of the stores, and are the computed places free of it?"""
        kernel = self.kernel
        if kernel.stores[0].place.steps[group[-1]] != 1:
            return False
        free = depends(kernel, [group[-1]])
        return not any(free[point] for point, *_ in kernel.what["axes"])

    def _lanes(self, loop: Loop, once: bool) -> int:
        sizes = [p.dtype.itemsize for p in self.kernel.points if isinstance(p, (Apply, Constant))
                 and p.dtype.kind == "f"]
        sizes += [p.home.dtype.itemsize for p in self.kernel.points
                  if isinstance(p, (Load, Picked)) and p.home.dtype.kind == "f"]
        most = LANES_BYTES // max(sizes, default=8)
        if self.kernel.kind == "reduce" and cost_of(self.kernel) <= CHEAP and not once:
            most *= SUMS
        lanes = 1
        while lanes < most and lanes < loop.size:
            lanes *= 2
        return lanes


def cost_of(kernel: Kernel) -> int:
    return sum(p.what.cost for p in kernel.points if isinstance(p, Apply))


def turns_over(what: Load | Picked | Store) -> bool:
    """Can tiles stand between this and memory?"""
    return what.home.dtype.itemsize in (4, 8) and not isinstance(what, Picked) and not (
        isinstance(what, Store) and what.add)


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
