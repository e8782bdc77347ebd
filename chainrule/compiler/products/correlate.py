"""The gradient of a convolution's kernels: images times gradients, summed over all pixels.

Images are divided into parts that depend on the shape alone; the sums of the parts are added in
their order.
"""

from __future__ import annotations

import math

from chainrule.compiler.arrays.windows import Windows
from chainrule.compiler.products import tile as kernel
from chainrule.compiler.products.contract import Phase, Program
from chainrule.compiler.products.image import (
    BAND,
    WORK,
    Box,
    Frame,
    Spec,
    Writer,
    aligned,
    boxes,
    cycles_of,
    frame_of,
    part_of,
    reach,
    units_of,
)
from chainrule.compiler.products.text import Index, Text

# Bytes of the sums that a unit of `correlate` goes through for each image.
SUMS = 512 << 10
# Bytes of all the partial sums of `correlate`.
PARTIAL = 4 << 20
# Terms that one pass of `correlate` adds: their vectors stay in the first cache.
DEPTH = 320


def correlate(spec: Spec, lanes: int, epilogue: str | None, registers: int) -> Program:
    """First each unit sums over a part of the images; then the parts are added up."""
    writer = Writer(spec, lanes, epilogue, registers)
    windows, size, vectors = spec.windows, writer.size, writer.vectors
    row, column = windows.rows[0], windows.columns[0]
    taps = math.prod(windows.kernel)
    area = row.length * column.length
    box, channels = _box_of_taps(windows, vectors, registers)
    rounds = -(-windows.inner // channels)
    pitch = vectors * lanes
    sums = rounds * channels * taps * pitch                      # of one group, in elements
    # The channels of a unit, so that its sums stay near; the images of a unit, for threads.
    shares = min(rounds, max(1, round(sums * size / SUMS)))
    whole = windows.groups * sums * size
    parts = max(1, min(8, windows.images, PARTIAL // whole, 1 + windows.flops // WORK))
    most = -(-rounds // shares) * channels
    # So many images at a time that a pass over the sums is worth it.
    at_once = max(1, min(-(-windows.images // parts), DEPTH // area))
    tall = row.length if at_once > 1 else max(1, min(row.length, round(DEPTH / column.length)))
    panels = vectors // box.vectors
    width = box.vectors * lanes
    # A large image is taken in bands of rows.
    bands = _bands(windows, tall, most, vectors * lanes, size) if at_once == 1 else 1
    high = -(-row.length // bands)
    low, end = reach([row._replace(length=high)])
    frame = frame_of(windows, low, end - low + 1, size)
    framed = aligned(at_once * most * frame.plane * size)
    panel = at_once * high * column.length * width
    packed = aligned(panels * panel * size)
    blocks = windows.groups * parts * shares
    units, together = units_of(blocks, framed + packed)
    partial = aligned(parts * whole)

    w = Text()
    slot = w.at("%scratch", w.add(partial, w.mul("%lo", framed + packed)))
    other = w.at(slot, framed)
    clear = frame.padded or windows.inner % channels != 0
    if clear and bands == 1:
        writer.clear(w, slot, at_once * most * frame.plane)
    stop = w.mul("%hi", together)
    with w.loop(w.mul("%lo", together), w.least(blocks, stop) if together > 1 else stop) as number:
        rest, share = w.split(number, shares)
        group, part = w.split(rest, parts)
        turns = part_of(w, share, rounds, shares)
        first = w.mul(turns[0], channels)
        count = w.sub(w.least(windows.inner, w.mul(turns[1], channels)), first)
        images = part_of(w, part, windows.images, parts)
        target = w.at("%scratch", w.mul(
            w.add(w.mul(w.add(w.mul(part, windows.groups), group), sums),
                  w.mul(first, taps * pitch)), size))
        with w.loop(*images, at_once) as item, w.loop(0, bands) as band:
            some = w.least(at_once, w.sub(images[1], item)) if at_once > 1 else 1
            begin, last = part_of(w, band, row.length, bands)
            if clear and bands > 1:
                writer.clear(w, slot, most * frame.plane)
            with w.loop(0, some) as i:
                writer.fill(w, frame, w.add(item, i), group, first, count,
                            w.add(low, w.mul(begin, row.move)),
                            w.at(slot, w.mul(i, most * frame.plane * size)))
                _pack_other(w, writer, w.add(item, i), group, (begin, last),
                            row.length // bands,
                            w.at(other, w.mul(i, area * width * size)), box.vectors, panel)
            with w.loop(0, w.sub(last, begin), tall) as top:
                few = w.least(tall, w.sub(w.sub(last, begin), top))
                before = w.add(w.add(w.sub(item, images[0]), band), top)
                add = w.set(f"icmp ne i64 {before}, 0")
                x = w.at(slot, w.mul(w.add(w.mul(top, row.move * frame.width), _origin(
                    windows, frame)), size))
                y = w.at(other, w.mul(top, column.length * width * size))
                _taps(w, writer, box, channels, frame, w.sub(turns[1], turns[0]), x, y, target,
                      (some, few, column.length), panel, most * frame.plane, pitch, add)
    compute = writer.define("", w)
    moved = windows.images * windows.groups * (windows.inner * math.prod(windows.size)
                                               + windows.outer * area) * size
    total = Phase(writer.define("_c", _total(writer, parts, sums, pitch)),
                  windows.groups * vectors, 0, (parts + 1) * whole)
    return Program(writer.text, [Phase(compute, units, windows.flops, moved), total],
                   partial + units * (framed + packed))


def _bands(windows: Windows, tall: int, channels: int, outer: int, size: int) -> int:
    """Into how many bands of rows an image is divided, that it stays near with its g."""
    row, column = windows.rows[0], windows.columns[0]
    left, right = reach(windows.columns)
    each = (channels * row.move * (right - left + 1) + outer * column.length) * size
    bands = max(1, round(row.length * each / BAND))
    shared = abs((row.taps - 1) * row.spread) // row.move
    return max(1, min(bands, row.length // max(tall, 2 * shared)))


def _origin(windows: Windows, frame: Frame) -> int:
    """The place in the frame that the first pixel meets with the first tap, in elements."""
    row, column = windows.rows[0], windows.columns[0]
    return (row.start - frame.top) * frame.width + column.start - frame.left


def _box_of_taps(windows: Windows, vectors: int, registers: int) -> tuple[Box, int]:
    """The tile of taps that needs the least work, and of how many channels it holds all taps.

    Its rows are neighbours in C: all taps of some channels, some rows of taps, or part of one.
    """
    high, wide = windows.kernel
    best: tuple[float, Box, int] | None = None
    for most, several in boxes(registers, vectors):
        found = [(Box(high, wide, several), channels)
                 for channels in range(1, most // (high * wide) + 1)]
        found += [(Box(down, wide, several), 1) for down in range(1, high)
                  if high % down == 0 and down * wide <= most]
        found += [(Box(1, across, several), 1) for across in range(1, wide)
                  if wide % across == 0 and across <= most]
        for box, channels in found:
            turns = -(-windows.inner // channels) * (high // box.tall) * (wide // box.wide)
            tile = Box(box.tall * channels, box.wide, several)
            cost = turns * (vectors // several) * cycles_of(tile, DEPTH)
            if best is None or cost < 0.99 * best[0]:
                best = cost, box, channels
    assert best is not None
    return best[1], best[2]


def _pack_other(w: Text, writer: Writer, item: Index, group: Index, rows: tuple[Index, Index],
                least: int, target: str, vectors: int, panel: int) -> None:
    """Some rows, `least` or more, of g of one image as [panel][pixel][channel]."""
    windows, size, lanes = writer.windows, writer.size, writer.lanes
    n, g, j, down, across = writer.spec.other
    if windows.columns[0].length == 1:
        across = down
    wide = windows.columns[0].length
    area = w.mul(w.sub(rows[1], rows[0]), wide)
    source = w.at("%b", w.mul(w.add(w.add(w.mul(item, n), w.mul(group, g)),
                                    w.mul(rows[0], wide * across)), size))
    width = vectors * lanes
    with w.loop(0, writer.vectors) as vector:
        number, v = w.split(vector, vectors)
        first = w.mul(vector, lanes)
        count = w.least(lanes, w.sub(windows.outer, first))
        here = w.at(source, w.mul(first, j * size))
        there = w.at(target, w.mul(w.add(w.mul(number, panel), w.mul(v, lanes)), size))
        if across == 1 or area == 1:
            writer.turn(w, here, there, count, area, j, width, least * wide)
        else:
            name = kernel.move(writer.text, writer.dtype)
            w.do(f"call void @{name}(ptr {here}, ptr {there}, i64 {area}, i64 {count}, "
                 f"i64 {across * size}, i64 {j * size}, i64 {width * size}, i64 {size})")


def _taps(w: Text, writer: Writer, box: Box, channels: int, frame: Frame, rounds: Index, x: str,
          y: str, target: str, turns: tuple[Index, ...], panel: int, image: int, pitch: int,
          add: str) -> None:
    """All tiles of taps over some pixels."""
    windows, size = writer.windows, writer.size
    row, column = windows.rows[0], windows.columns[0]
    high, wide = windows.kernel
    width = box.vectors * writer.lanes
    offsets = [c * frame.plane + a * row.spread * frame.width + b * column.spread
               for c in range(channels) for a in range(box.tall) for b in range(box.wide)]
    xs = (image, row.move * frame.width, column.move)
    area = row.length * column.length
    ys = (area * width, column.length * width, width)
    with w.loop(0, rounds) as turn:
        for a in range(0, high, box.tall):
            for b in range(0, wide, box.wide):
                offset = a * row.spread * frame.width + b * column.spread
                place = w.add(w.mul(turn, channels * frame.plane), offset)
                rows = w.add(w.mul(turn, channels * high * wide), a * wide + b)
                here = w.at(x, w.mul(place, size))
                c = w.at(target, w.mul(rows, pitch * size))
                with w.loop(0, writer.vectors // box.vectors) as number:
                    writer.multiply(w, offsets, len(offsets), box.vectors, here,
                                    w.at(y, w.mul(number, panel * size)),
                                    w.at(c, w.mul(number, width * size)), turns, xs, ys, pitch,
                                    pitch, add)


def _total(writer: Writer, parts: int, sums: int, pitch: int) -> Text:
    """The sum of all parts, in their order, stored as C is."""
    windows, size, lanes = writer.windows, writer.size, writer.lanes
    rows = windows.inner * math.prod(windows.kernel)
    vector = f"<{lanes} x {writer.dtype}>"
    w = Text()
    with w.loop("%lo", "%hi") as unit:
        group, number = w.split(unit, writer.vectors)
        first = w.mul(number, lanes)
        count = w.least(lanes, w.sub(windows.outer, first))
        source = w.at("%scratch", w.mul(w.add(w.mul(group, sums), first), size))
        if parts > 1:
            with w.loop(0, rows) as row:
                place = w.at(source, w.mul(row, pitch * size))
                total = w.set(f"load {vector}, ptr {place}, align {size}")
                for part in range(1, parts):
                    there = w.at(place, part * windows.groups * sums * size)
                    more = w.set(f"load {vector}, ptr {there}, align {size}")
                    total = w.set(f"fadd {vector} {total}, {more}")
                w.do(f"store {vector} {total}, ptr {place}, align {size}")
        j = w.add(w.mul(group, windows.outer), first)
        c = w.at("%c", w.mul(j, rows * size))
        few = rows < lanes
        with w.loop(0, rows, lanes) as turn:
            row = turn if few else w.least(turn, rows - lanes)
            writer.turn(w, w.at(source, w.mul(row, pitch * size)), w.at(c, w.mul(row, size)),
                        min(lanes, rows), count, pitch, rows, (windows.outer - 1) % lanes + 1,
                        masked=few)
        writer.finish(w, 0, (j, w.add(j, count)), (0, rows))
    return w
