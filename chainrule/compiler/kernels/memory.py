"""Where each array stands: in memory the caller gave, or at an offset of one arena."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from chainrule.compiler.arrays.arrays import Array
from chainrule.compiler.kernels.kernel import Kernel

ALIGN = 64
by_offset = attrgetter("offset")


class Place(NamedTuple):
    """An array's bytes in the arena, and the first and last time they are needed."""

    home: Array
    offset: int
    size: int
    first: int
    last: int


class Memory(NamedTuple):
    """The arena's plan: its size, the sum of all buffers, and the places by the arrays' numbers."""

    size: int
    total: int
    places: dict[int, Place]


def plan(kernels: Sequence[Kernel], times: Sequence[int], given: set[int],
         scratch: Sequence[int]) -> Memory:
    """Offsets such that arrays which are needed at the same time do not overlap.

    `times[i]` is when kernel i runs; kernels that take turns have one time. `given` arrays have
    memory elsewhere; `scratch[i]` bytes are needed by kernel i alone, which are planned under the
    key -1 - i.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    homes: dict[int, Array] = {}
    for time, kernel in zip(times, kernels, strict=True):
        for home in (*kernel.written(), *[x for x, _ in kernel.loads()]):
            if home.number not in given:
                homes[home.number] = home
                first.setdefault(home.number, time)
                last[home.number] = time
    wanted = [(number, homes[number], _aligned(home.size * home.dtype.itemsize), first[number],
               last[number]) for number, home in homes.items()]
    wanted += [(-1 - i, kernels[i].array, _aligned(size), times[i], times[i])
               for i, size in enumerate(scratch) if size]
    # large ones first: small ones fit into what is left between them
    wanted.sort(key=lambda w: (-w[2], w[3]))
    places: dict[int, Place] = {}
    placed: list[Place] = []
    for number, home, size, begin, end in wanted:
        offset = 0
        for other in placed:                      # by offset
            if other.last < begin or other.first > end:
                continue
            if offset + size <= other.offset:
                break
            offset = max(offset, other.offset + other.size)
        place = Place(home, offset, size, begin, end)
        places[number] = place
        insort(placed, place, key=by_offset)
    total = sum(w[2] for w in wanted)
    return Memory(max([p.offset + p.size for p in placed], default=0), total, places)


def verify(memory: Memory) -> None:
    """Raise unless no two arrays that live at the same time overlap."""
    places = sorted(memory.places.values(), key=lambda p: p.offset)
    for i, a in enumerate(places):
        if a.offset % ALIGN:
            raise AssertionError(f"{a} is not aligned")
        for b in places[i + 1:]:
            if b.offset >= a.offset + a.size:
                break
            if a.first <= b.last and b.first <= a.last:
                raise AssertionError(f"{a} and {b} overlap")


def _aligned(size: int) -> int:
    return max(-(-size // ALIGN), 1) * ALIGN
