"""Affine index maps: an index of an array as whole-number combinations of other indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple


class Affine(NamedTuple):
    """start + Σ steps[d]·i[d] over the indices i of some domain."""

    start: int
    steps: tuple[int, ...]

    @staticmethod
    def axis(d: int, rank: int) -> Affine:
        """The d-th index itself."""
        return _axis(d, rank)

    def plus(self, offset: int) -> Affine:
        return Affine(self.start + offset, self.steps) if offset else self

    def times(self, factor: int) -> Affine:
        return Affine(self.start * factor, tuple([s * factor for s in self.steps]))

    def add(self, other: Affine) -> Affine:
        return Affine(self.start + other.start,
                      tuple([a + b for a, b in zip(self.steps, other.steps, strict=True)]))

    def compose(self, indices: Sequence[Affine], rank: int) -> Affine:
        """This map after `indices`, which give each index of its domain from `rank` others."""
        start = self.start
        steps = [0] * rank
        for factor, inner in zip(self.steps, indices, strict=True):
            if factor:
                start += factor * inner.start
                for d, s in enumerate(inner.steps):
                    steps[d] += factor * s
        return Affine(start, tuple(steps))

    def bounds(self, sizes: Sequence[int]) -> tuple[int, int]:
        """The smallest and largest value over a domain of these sizes (none of them zero)."""
        low = high = self.start
        for step, n in zip(self.steps, sizes, strict=True):
            if step > 0:
                high += step * (n - 1)
            else:
                low += step * (n - 1)
        return low, high

    def divided(self, n: int, sizes: Sequence[int]) -> tuple[Affine, Affine] | None:
        """(quotient, remainder) by n as affine maps, or None where they are not affine."""
        if n == 1:
            return self, Affine(0, (0,) * len(self.steps))
        quotient = Affine(self.start // n,
                          tuple([s // n if s % n == 0 else 0 for s in self.steps]))
        rest = Affine(self.start % n, tuple([0 if s % n == 0 else s for s in self.steps]))
        low, high = rest.bounds(sizes)
        return (quotient, rest) if low >= 0 and high < n else None


Indices = tuple[Affine, ...]


@cache
def _axis(d: int, rank: int) -> Affine:
    return Affine(0, tuple([int(i == d) for i in range(rank)]))


def constant(value: int, rank: int) -> Affine:
    return Affine(value, (0,) * rank)


@cache
def identity(shape: tuple[int, ...]) -> Indices:
    return tuple([_axis(d, len(shape)) for d in range(len(shape))])


@lru_cache(1 << 12)
def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides = [1] * len(shape)
    for d in range(len(shape) - 2, -1, -1):
        strides[d] = strides[d + 1] * shape[d + 1]
    return tuple(strides)


@lru_cache(1 << 14)
def flat(indices: Indices, shape: tuple[int, ...], rank: int) -> Affine:
    """The place in row-major memory of the element at `indices` of an array of `shape`."""
    start = 0
    steps = [0] * rank
    for index, stride in zip(indices, strides_of(shape), strict=True):
        start += index.start * stride
        for d, step in enumerate(index.steps):
            if step:
                steps[d] += step * stride
    return Affine(start, tuple(steps))


def unflat(place: Affine, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Indices | None:
    """The indices into `shape` of a row-major place, if they are affine."""
    indices = []
    for stride, n in zip(strides_of(shape), shape, strict=True):
        parts = place.divided(stride, sizes)
        if parts is None:
            return None
        index, place = parts
        low, high = index.bounds(sizes)
        if low < 0 or high >= n:
            return None
        indices.append(index)
    return tuple(indices)


def flat_to_indices(old: Sequence[int], new: Sequence[int]) -> Indices | None:
    """Reading an array of shape `old` as one of shape `new`, if that is an affine view."""
    new = tuple(new)
    return unflat(flat(identity(new), new, len(new)), tuple(old), new)


def in_order(indices: Indices, shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Does a view of `shape` show all of an array of shape `whole`, one element after the other?"""
    place = flat(indices, whole, len(shape))
    return math.prod(shape) == math.prod(whole) and place.start == 0 and all(
        n == 1 or a == b for n, a, b in zip(shape, place.steps, strides_of(shape), strict=True))


def slice_indices(shape: tuple[int, ...], key: Sequence[object]) -> tuple[tuple[int, ...], Indices]:
    """Shape and index map of x[key] for whole numbers, slices, None and one ellipsis."""
    if any(k is Ellipsis for k in key):
        place = next(i for i, k in enumerate(key) if k is Ellipsis)
        named = sum(k is not None for k in key) - 1
        every = (slice(None),) * (len(shape) - named)
        key = (*key[:place], *every, *key[place + 1:])
    entries: list[tuple[int, int, int] | None] = []      # (axis length, start, step) of results
    sources: list[tuple[int, int | None, int]] = []      # (start, entry, step) of each axis of x
    axis = 0
    for k in key:
        if k is None:
            entries.append((1, 0, 0))
            continue
        n = shape[axis]
        if isinstance(k, slice):
            start, stop, step = k.indices(n)
            length = len(range(start, stop, step))
            sources.append((start, len(entries), step))
            entries.append((length, start, step))
        else:
            assert not isinstance(k, bool)
            number = int(k)  # type: ignore[call-overload]
            sources.append((number + n if number < 0 else number, None, 0))
        axis += 1
    for n in shape[axis:]:
        sources.append((0, len(entries), 1))
        entries.append((n, 0, 1))
    rank = len(entries)
    result = tuple([entry[0] for entry in entries if entry is not None])
    indices = tuple([constant(start, rank) if entry is None
                     else Affine.axis(entry, rank).times(step).plus(start)
                     for start, entry, step in sources])
    return result, indices


def diagonal_indices(shape: tuple[int, ...], offset: int,
                     axes: tuple[int, int]) -> tuple[tuple[int, ...], Indices]:
    """Shape and index map of a diagonal of two axes, which becomes the last axis."""
    first, second = axes
    others = [a for a in range(len(shape)) if a not in axes]
    rank = len(others) + 1
    length = max(min(shape[first] + min(offset, 0), shape[second] - max(offset, 0)), 0)
    last = Affine.axis(rank - 1, rank)
    begin = {first: max(-offset, 0), second: max(offset, 0)}
    indices = tuple([last.plus(begin[a]) if a in begin else Affine.axis(others.index(a), rank)
                     for a in range(len(shape))])
    return (*[shape[a] for a in others], length), indices
