"""Kernels that go through the same rows are run block by block, so that what one leaves in the
cache the next finds there: a softmax or a layer norm passes over memory once, whatever its sweeps.

A group is a stretch of maps and reductions over the same number of rows in which no kernel reads
another row than its own of what the group makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from chainrule.compiler.arrays.arrays import Array
from chainrule.compiler.arrays.index import Affine
from chainrule.compiler.kernels.kernel import Kernel, Picked
from chainrule.compiler.kernels.nest import Nest

# What a group makes must be more than this, or it stays in the cache anyway.
FROM = 192 << 10
# Bytes that a block of rows of all its arrays should take.
BLOCK = 96 << 10
# Rows in a block are a multiple of this, the lanes of maps over rows alone.
ROWS = 16


class Group(NamedTuple):
    """Kernels to run block by block: `rows` in all, `block` rows at a time."""

    kernels: list[Kernel]
    rows: int
    block: int


def grouped(kernels: Sequence[Kernel], targets: dict[int, tuple[str, int]]) -> list[Group | Kernel]:
    """The kernels in order, stretches of them as groups where that saves memory traffic."""
    result: list[Group | Kernel] = []
    stretch: list[Kernel] = []
    rows = 0

    def close() -> None:
        made = as_group(stretch, rows) if len(stretch) > 1 else None
        if made is None:
            result.extend(stretch)
        else:
            result.append(made)
        stretch.clear()

    for kernel in kernels:
        if stretch and not joins(stretch, kernel, rows, targets):
            close()
        if not stretch:
            rows = rows_of(kernel)
            if not rows:
                result.append(kernel)
                continue
        stretch.append(kernel)
    close()
    return result


def rows_of(kernel: Kernel) -> int:
    """The rows a kernel that begins a group goes through: its outer axes; 0 if it cannot."""
    if kernel.kind == "reduce" and kernel.what["op"] in ("sum", "max", "min"):
        parallel = len(kernel.domain) - kernel.what["reduced"]
        rows = math.prod(kernel.domain[:parallel])
    elif kernel.kind == "map" and len(kernel.domain) > 1 and not kernel.what.get("part"):
        rows = math.prod(kernel.domain[:-1])
    else:
        return 0
    return rows if rows >= 4 * ROWS and prefix(kernel, rows) else 0


def prefix(kernel: Kernel, rows: int) -> int:
    """How many of the leading axes make up the rows and run as one loop; 0 if they do not."""
    reduced = kernel.what.get("reduced", 0)
    size = 1
    for count, n in enumerate(kernel.domain[:len(kernel.domain) - reduced], 1):
        size *= n
        if size == rows:
            if any(_in_columns(kernel, place, count) for place, _ in kernel.affines()):
                return 0
            nest = Nest(kernel, rows=count)
            single = nest.loops and nest.loops[0].size == rows and not nest.loops[0].reduced
            return count if single else 0
        if size > rows:
            return 0
    return 0


def _in_columns(kernel: Kernel, place: Affine, rows: int) -> bool:
    """Are neighbours in memory in different rows? Then blocks of rows are blocks of columns."""
    steps = [s if n > 1 else 0 for s, n in zip(place.steps, kernel.domain, strict=True)]
    return 1 in steps[:rows] and any(abs(s) > 1 for s in steps[rows:])


def joins(stretch: Sequence[Kernel], kernel: Kernel, rows: int,
          targets: dict[int, tuple[str, int]]) -> bool:
    """May `kernel` follow the stretch row by row?"""
    if kernel.kind not in ("map", "reduce") or kernel.what.get("part") or kernel.what.get(
            "op") in ("argmax", "argmin") or not prefix(kernel, rows):
        return False
    made = {home.number for k in stretch for home in k.written()}
    for k in (*stretch, kernel):
        for home in k.written():
            if home.kind == "target" or targets.get(home.number, ("", 0))[0] == "input":
                return False
        if any(isinstance(p, Picked) and p.home.number in made for p in k.points):
            return False
    for k in (*stretch, kernel):
        for home, place in k.loads():
            if home.number in made and (place is None or not row_local(k, home, place, rows)):
                return False
    return all(row_local(k, s.home, s.place, rows) for k in (*stretch, kernel) for s in k.stores)


def row_local(kernel: Kernel, home: Array, place: object, rows: int) -> bool:
    """Does row r of the kernel touch row r of the array alone?"""
    if home.size % rows:
        return False
    size = home.size // rows
    outer = prefix(kernel, rows)
    if not outer:
        return False
    stride = size
    low = high = place.start  # type: ignore[attr-defined]
    for d in range(len(kernel.domain) - 1, -1, -1):
        step, n = place.steps[d], kernel.domain[d]  # type: ignore[attr-defined]
        if d < outer:
            if n > 1 and step != stride:
                return False
            stride *= n
        else:
            low, high = low + min(step, 0) * (n - 1), high + max(step, 0) * (n - 1)
    return bool(low >= 0 and high < size)


def as_group(stretch: Sequence[Kernel], rows: int) -> Group | None:
    """A group of the stretch, if it moves enough bytes; its kernels keep rows apart."""
    homes = {home.number: home for k in stretch for home in
             (*k.written(), *[x for x, _ in k.loads()])}
    size = sum(home.size * home.dtype.itemsize for home in homes.values())
    if size < FROM:
        return None
    block = max(ROWS, BLOCK * rows // size // ROWS * ROWS)
    if block >= rows:
        return None
    for kernel in stretch:
        kernel.what["rows"] = prefix(kernel, rows)
    return Group(list(stretch), rows, block)


TEXT = """define void @chainrule_group(ptr %members, i64 %lo, i64 %hi) {
entry:
  %count = load i64, ptr %members, align 8
  br label %block
block:
  %b = phi i64 [ %lo, %entry ], [ %b1, %ended ]
  br label %member
member:
  %m = phi i64 [ 0, %block ], [ %m1, %member ]
  %at = mul i64 %m, 4
  %first = getelementptr i64, ptr %members, i64 %at
  %w1 = getelementptr i64, ptr %first, i64 1
  %w2 = getelementptr i64, ptr %first, i64 2
  %w3 = getelementptr i64, ptr %first, i64 3
  %w4 = getelementptr i64, ptr %first, i64 4
  %function = load ptr, ptr %w1, align 8
  %arrays = load ptr, ptr %w2, align 8
  %units = load i64, ptr %w3, align 8
  %total = load i64, ptr %w4, align 8
  %low = mul i64 %b, %units
  %end = add i64 %low, %units
  %less = icmp ult i64 %end, %total
  %high = select i1 %less, i64 %end, i64 %total
  call void %function(ptr %arrays, i64 %low, i64 %high)
  %m1 = add i64 %m, 1
  %more = icmp ult i64 %m1, %count
  br i1 %more, label %member, label %ended
ended:
  %b1 = add i64 %b, 1
  %again = icmp ult i64 %b1, %hi
  br i1 %again, label %block, label %done
done:
  ret void
}
"""
NAME = "chainrule_group"


def units_of_block(group: Group, units: int, turns: int) -> int:
    """Units of a member that belong to one block of rows; a unit is some turns of its loop."""
    if turns > 1:
        assert group.block % turns == 0 and units == -(-group.rows // turns)
        return group.block // turns
    assert units == group.rows
    return group.block
