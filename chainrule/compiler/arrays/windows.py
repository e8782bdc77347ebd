"""What a convolution is: which places of an image each pixel of the result meets."""

from __future__ import annotations

import math
from typing import NamedTuple


class Line(NamedTuple):
    """One axis of the pixels of the result: every `step`-th from `first` on, `length` of them.

    Pixel q of them meets `taps` of the kernel, tap t being `tap` + t * `jump` of the kernel, at
    `start` + q * `move` + t * `spread` of the image, where places outside of the image are zero.
    """

    first: int
    step: int
    length: int
    start: int
    move: int
    taps: int
    spread: int
    tap: int
    jump: int


Lines = tuple[Line, ...]


class Windows(NamedTuple):
    """What a convolution is, apart from where its operands lie.

    `kind`: "convolve" or "correlate". In each of `groups`, `inner` channels of the images meet
    `outer` channels of the other operand. `rows` and `columns` together name each pixel once.
    """

    kind: str
    images: int
    groups: int
    inner: int
    outer: int
    size: tuple[int, int]            # of the image
    pixels: tuple[int, int]          # of the result of convolve
    kernel: tuple[int, int]
    rows: Lines
    columns: Lines

    @property
    def shape(self) -> tuple[int, ...]:
        """Of C: (n, channels, pixels) or (channels, inner channels x taps)."""
        if self.kind == "convolve":
            return self.images, self.groups * self.outer, math.prod(self.pixels)
        return self.groups * self.outer, self.inner * math.prod(self.kernel)

    @property
    def flops(self) -> int:
        taps = [sum(line.length * line.taps for line in axis) for axis in (self.rows, self.columns)]
        return 2 * self.images * self.groups * self.inner * self.outer * math.prod(taps)


def straight(length: int, taps: int, stride: int, padding: int, spread: int) -> Lines:
    """One axis of a convolution, whose result has `length` pixels."""
    return (Line(0, 1, length, -padding, stride, taps, spread, 0, 1),)


def unwound(size: int, taps: int, stride: int, padding: int, spread: int) -> Lines:
    """One axis of the transposed convolution, whose result has `size` pixels: a line for each
    residue of the stride, with the taps that reach it."""
    found = []
    apart = stride // math.gcd(spread, stride)
    for first in range(min(stride, size)):
        length = -(-(size - first) // stride)
        reach = [t for t in range(min(apart, taps)) if (first + padding - t * spread) % stride == 0]
        if not reach:
            found.append(Line(first, stride, length, 0, 1, 0, 0, 0, 0))
            continue
        tap = reach[0]
        found.append(Line(first, stride, length, (first + padding - tap * spread) // stride, 1,
                          -(-(taps - tap) // apart), -(apart * spread // stride), tap, apart))
    return tuple(found)
