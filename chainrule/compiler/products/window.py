"""Convolutions as matrix products that read the images themselves: no matrix of windows is made.

    convolve   C[n, j, p] = sum over k and taps of image[n, k, window of p] * weight[j, k, tap],
               which is also the transposed convolution, one residue of the stride at a time;
    correlate  C[j, k, tap] = sum over n and p of image[n, k, window of p] * g[n, j, p]
               (contract_correlate.py).

Each element of C is one sum in an order that depends on the shape alone.
"""

from __future__ import annotations

import math
from functools import lru_cache

from chainrule.compiler.arrays.windows import Line, Windows
from chainrule.compiler.products import tile as kernel
from chainrule.compiler.products.contract import Phase, Program
from chainrule.compiler.products.correlate import correlate
from chainrule.compiler.products.image import (
    BAND,
    PARTS,
    WORK,
    Box,
    Frame,
    Spec,
    Writer,
    aligned,
    ask,
    boxes,
    cycles_of,
    frame_of,
    part_of,
    reach,
    units_of,
)
from chainrule.compiler.products.text import Index, Text
from chainrule.compiler.products.tile import BYTES, PIECE

# Pixels of small images for which the weights are read once, about.
PIXELS = 256


@lru_cache(1024)
def program(spec: Spec, lanes: int = 16, epilogue: str | None = None,
            registers: int = 32) -> Program:
    """A program for `spec`; `lanes` and `epilogue` as for `contract.contraction`."""
    lanes = lanes * BYTES["float"] // BYTES[spec.dtype]
    least = PIECE // BYTES[spec.dtype]
    while lanes > least and lanes // 2 >= spec.windows.outer:
        lanes //= 2
    if not spec.finish:
        epilogue = None
    write = convolve if spec.windows.kind == "convolve" else correlate
    return write(spec, lanes, epilogue, registers)


def convolve(spec: Spec, lanes: int, epilogue: str | None, registers: int) -> Program:
    """First the weights are packed; then each unit frames images, or bands of them, and sums."""
    writer = Writer(spec, lanes, epilogue, registers)
    windows, size, vectors = spec.windows, writer.size, writer.vectors
    taps = math.prod(windows.kernel)
    box = _box_of_pixels(windows, vectors, registers)
    width = box.vectors * lanes
    panel = windows.inner * taps * width
    panels = vectors // box.vectors
    packed = aligned(windows.groups * panels * panel * size)
    pitch = (box.vectors | 1) * lanes                   # no power of two
    bands = _bands(windows, box, pitch, size)
    # So many small images at a time that reading large weights is worth it. Threads then share
    # the panels.
    at_once = shares = 1
    if bands == 1 and packed > BAND // 2:
        at_once = max(1, min(windows.images, PIXELS // math.prod(windows.pixels)))
        several = -(-windows.images // at_once) * windows.groups
        shares = min(panels, -(-min(PARTS, windows.flops // WORK) // several)) or 1
    step, move = windows.rows[0].step, windows.rows[0].move
    tall = -(-windows.rows[0].length // bands)          # times `step` rows of pixels
    low, high = reach([line._replace(length=tall) for line in windows.rows])
    frame = frame_of(windows, low, high - low + 1, size)
    each = windows.inner * frame.plane
    framed = aligned(at_once * each * size)
    down, wide = windows.pixels
    block = aligned(tall * step * wide * pitch * size)
    items = -(-windows.images // at_once) * windows.groups * bands * shares
    units, together = units_of(items, framed + block)

    least = ((windows.rows[0].length // bands - 1) * step + 1) * wide

    w = Text()
    slot = w.at("%scratch", w.add(packed, w.mul("%lo", framed + block)))
    target = w.at(slot, framed)
    if bands == 1 and frame.padded:
        writer.clear(w, slot, at_once * each)
    if any(not line.taps for line in (*windows.rows, *windows.columns)):
        writer.clear(w, target, tall * step * wide * pitch)
    end = w.mul("%hi", together)
    with w.loop(w.mul("%lo", together), w.least(items, end) if together > 1 else end) as number:
        rest, share = w.split(number, shares)
        rest, band = w.split(rest, bands)
        chunk, group = w.split(rest, windows.groups)
        item = w.mul(chunk, at_once)
        some = w.least(at_once, w.sub(windows.images, item)) if at_once > 1 else 1
        first, last = part_of(w, band, windows.rows[0].length, bands)
        if bands > 1 and frame.padded:
            writer.clear(w, slot, each)
        top = w.add(low, w.mul(first, move))
        with w.loop(0, some) as i:
            writer.fill(w, frame, w.add(item, i), group, 0, windows.inner, top,
                        w.at(slot, w.mul(i, each * size)))
        pixels = (w.mul(first, step * wide), w.mul(w.least(down, w.mul(last, step)), wide))
        with w.loop(*part_of(w, share, panels, shares)) as turn:
            weights = w.at("%scratch", w.mul(w.add(w.mul(group, panels), turn), panel * size))
            with w.loop(0, some) as i:
                image = w.at(slot, w.mul(i, each * size))
                channel = w.mul(turn, width)
                c = _place(w, writer, w.add(item, i), group, channel, pixels[0])
                channels = w.least(width, w.sub(windows.outer, channel))
                for row in windows.rows:
                    for column in windows.columns:
                        if row.taps and column.taps:
                            count = w.sub(w.least(row.length, last), first)
                            _pixels(w, writer, box, frame, row, column, count, image, weights,
                                    target, pitch, c, channels)
                _hand_out(w, writer, w.add(item, i), group, channel, channels, pixels, target,
                          pitch, least)
    pack = writer.define("_x", _pack_weights(writer, box.vectors, panel))
    compute = writer.define("", w)
    weights_size = windows.groups * windows.outer * windows.inner * taps * size
    moved = windows.images * windows.groups * windows.inner * math.prod(windows.size) * size
    moved += math.prod(windows.shape) * size + weights_size
    return Program(writer.text, [
        Phase(pack, windows.groups * panels, 0, 2 * weights_size),
        Phase(compute, units, windows.flops, moved),
    ], packed + units * (framed + block))


def _box_of_pixels(windows: Windows, vectors: int, registers: int) -> Box:
    """The tile that covers the pixels with the least work."""
    tall = min([line.length for line in windows.rows if line.taps], default=1)
    wide = min([line.length for line in windows.columns if line.taps], default=1)
    depth = windows.inner * math.prod(windows.kernel) / (len(windows.rows) * len(windows.columns))
    best: tuple[float, Box] | None = None
    for most, several in boxes(registers, vectors):
        # Pixels of one row lie side by side, so a wide tile touches fewer lines of the cache.
        for across in range(min(most, wide), 0, -1):
            for down in range(1, min(most // across, tall) + 1):
                box = Box(down, across, several)
                turns = sum(-(-line.length // down) for line in windows.rows)
                turns *= sum(-(-line.length // across) for line in windows.columns)
                cost = turns * (vectors // several) * cycles_of(box, depth)
                if best is None or cost < 0.99 * best[0]:
                    best = cost, box
    assert best is not None
    return best[1]


def _bands(windows: Windows, box: Box, pitch: int, size: int) -> int:
    """Into how many bands of rows an image is divided: for the cache, and for threads."""
    line = windows.rows[0]
    low, high = reach(windows.columns)
    each = windows.inner * line.move * (high - low + 1) + line.step * windows.pixels[1] * pitch
    bands = max(1, round(line.length * each * size / BAND))
    items = windows.images * windows.groups
    bands = max(bands, min(PARTS, windows.flops // WORK) // items)
    # A band must hold a tile of each residue, and the rows that bands share must be few.
    shared = max(abs((line.taps - 1) * line.spread) for line in windows.rows) // line.move
    return max(1, min(bands, line.length // max(box.tall + 1, 2 * shared)))


def _pixels(w: Text, writer: Writer, box: Box, frame: Frame, row: Line, column: Line,
            count: Index, image: str, weights: str, target: str, pitch: int, c: str,
            channels: Index) -> None:
    """All tiles of a panel of channels, for one residue of the stride along each axis. Their place
    in C, from `c` on, is asked for meanwhile."""
    windows, size = writer.windows, writer.size
    width = box.vectors * writer.lanes
    taps = windows.kernel
    offsets = [a * row.move * frame.width + b * column.move
               for a in range(box.tall) for b in range(box.wide)]
    wide = windows.pixels[1]
    turns = (windows.inner, row.taps, column.taps)
    xs = (frame.plane, row.spread * frame.width, column.spread)
    ys = (taps[0] * taps[1] * width, row.jump * taps[1] * width, column.jump * width)
    y = w.at(weights, (row.tap * taps[1] + column.tap) * width * size)
    with w.loop(0, count, box.tall) as i:
        a = w.least(i, w.sub(count, box.tall))
        with w.loop(0, column.length, box.wide) as j:
            b = w.least(j, column.length - box.wide)
            place = w.add((row.start - frame.top) * frame.width + column.start - frame.left, w.add(
                w.mul(a, row.move * frame.width), w.mul(b, column.move)))
            pixel = w.add(w.mul(w.add(row.first, w.mul(a, row.step)), wide),
                          w.add(column.first, w.mul(b, column.step)))
            for line in range(box.tall):
                here = w.add(pixel, line * row.step * wide)
                w.do(f"call void @{ask(writer.text)}(ptr {w.at(c, w.mul(here, size))}, "
                     f"i64 {channels}, i64 {math.prod(windows.pixels) * size})")
            writer.multiply(w, offsets, box.wide, box.vectors, w.at(image, w.mul(place, size)), y,
                            w.at(target, w.mul(pixel, pitch * size)), turns, xs, ys,
                            row.step * wide * pitch, column.step * pitch)


def _pack_weights(writer: Writer, vectors: int, panel: int) -> Text:
    """Weights as [group][panel][k][tap][channel], so that a vector of channels is one load."""
    windows, size, lanes = writer.windows, writer.size, writer.lanes
    g, j, k, down, across = writer.spec.other
    high, wide = windows.kernel
    taps = high * wide
    flat = (across == 1 or wide == 1) and (down == wide * across or high == 1)
    flat = flat and (wide > 1 or high == 1 or down == 1)
    width = vectors * lanes
    w = Text()
    with w.loop("%lo", "%hi") as unit:
        group, number = w.split(unit, writer.vectors // vectors)
        target = w.at("%scratch", w.mul(unit, panel * size))
        for v in range(vectors):
            first = w.add(w.mul(number, width), v * lanes)
            count = w.least(lanes, w.sub(windows.outer, first))
            source = w.at("%b", w.mul(w.add(w.mul(group, g), w.mul(first, j)), size))
            there = w.at(target, v * lanes * size)
            if flat and k == taps:
                writer.turn(w, source, there, count, windows.inner * taps, j, width,
                            windows.inner * taps)
                continue
            with w.loop(0, windows.inner) as c:
                here = w.at(source, w.mul(c, k * size))
                to = w.at(there, w.mul(c, taps * width * size))
                if flat:
                    writer.turn(w, here, to, count, taps, j, width, taps)
                    continue
                name = kernel.move(writer.text, writer.dtype)
                with w.loop(0, high) as y:
                    w.do(f"call void @{name}(ptr {w.at(here, w.mul(y, down * size))}, "
                         f"ptr {w.at(to, w.mul(y, wide * width * size))}, i64 {wide}, i64 {count}, "
                         f"i64 {across * size}, i64 {j * size}, i64 {width * size}, i64 {size})")
    return w


def _hand_out(w: Text, writer: Writer, item: Index, group: Index, channel: Index, end: Index,
              pixels: tuple[Index, Index], block: str, pitch: int, least: int) -> None:
    """Store a block [pixel][channel] as C is, [channel][pixel]: `end` channels from `channel` on,
    of `least` pixels or more. Some channels at a time, so that few places of C are written."""
    windows, size, lanes = writer.windows, writer.size, writer.lanes
    total = math.prod(windows.pixels)
    count = w.sub(pixels[1], pixels[0])
    few = least < lanes
    with w.loop(0, end, lanes) as part:
        many = lanes if windows.outer % lanes == 0 else w.least(lanes, w.sub(end, part))
        c = _place(w, writer, item, group, w.add(channel, part), pixels[0])
        source = w.at(block, w.mul(part, size))
        with w.loop(0, count, lanes) as turn:
            pixel = turn if few else w.least(turn, w.sub(count, lanes))
            rows = w.least(lanes, w.sub(count, pixel)) if few else lanes
            writer.turn(w, w.at(source, w.mul(pixel, pitch * size)), w.at(c, w.mul(pixel, size)),
                        rows, many, pitch, total, (windows.outer - 1) % lanes + 1, masked=few)
        first = w.add(w.mul(group, windows.outer), w.add(channel, part))
        writer.finish(w, item, (first, w.add(first, many)), pixels)


def _place(w: Text, writer: Writer, item: Index, group: Index, channel: Index,
           pixel: Index) -> str:
    """Where a channel of an image begins in C, from a pixel on."""
    windows = writer.windows
    number = w.add(w.mul(w.add(w.mul(item, windows.groups), group), windows.outer), channel)
    return w.at("%c", w.mul(w.add(w.mul(number, math.prod(windows.pixels)), pixel), writer.size))
