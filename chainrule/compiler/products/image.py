"""What products that read images are made of: images in frames, and tiles of sums over windows.

An image, framed by its padding, stays in the cache while a tile of the result is summed in
registers: pixels are spread over the lanes, which hold channels. So any stride, dilation or size of
image costs the same, and a vector of the other operand is one load.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from chainrule.compiler.arrays.windows import Line, Windows
from chainrule.compiler.products import tile as kernel
from chainrule.compiler.products.text import Index, Text
from chainrule.compiler.products.tile import BYTES, PIECE, SUFFIX

ALIGN = 64
# Items of work that own memory: framed images and a block of the result.
UNITS = 16
# Bytes that they have together, about.
MEMORY = 16 << 20
# Bytes of a framed band of an image with the other operand's or the result's part; half of a modest
# second cache.
BAND = 512 << 10
# A convolution is cut into this many units, or fewer of WORK operations, for threads to share.
PARTS = 6
WORK = 700_000


class Spec(NamedTuple):
    """`windows` with operands of `dtype`, "float" or "double"; strides in elements.

    `image`: of (n, group, channel, row, column). `other`: the weights, of (group, j, k, row,
    column), or g of (n, group, j, row, column), whose pixels lie side by side. C is contiguous.
    """

    windows: Windows
    dtype: str
    image: tuple[int, ...]
    other: tuple[int, ...]
    finish: bool = False


class Box(NamedTuple):
    """A tile: `tall` x `wide` pixels (or channels x taps) and `vectors` vectors of channels."""

    tall: int
    wide: int
    vectors: int


class Frame(NamedTuple):
    """How channels of an image lie with the zeros around them: `plane` elements each."""

    top: int                         # place of its first row in the image, perhaps outside
    left: int
    height: int
    width: int
    plane: int
    padded: bool


# ---------------------------------------------------------------- the tile


def _tile(text: dict[str, str], dtype: str, lanes: int, vectors: int, offsets: tuple[int, ...],
          wide: int, adding: bool) -> str:
    """A tile of C, summed over a nest of three loops in registers.

    `void tile(ptr x, ptr y, ptr c, i64 n0, i64 n1, i64 n2, i64 x0, i64 x1, i64 x2, i64 y0, i64 y1,
    i64 y2, i64 down, i64 across, i1 add)`: n >= 1 turns of each loop, in which x and y move by so
    many bytes. Row r reads the number `offsets[r]` bytes behind x, and its sum goes to
    c + (r // wide) * down + (r % wide) * across. `adding`: with `add`, C is added to.
    """
    digest = hashlib.blake2b(repr((offsets, wide)).encode(), digest_size=6).hexdigest()
    name = f"chainrule_window_{SUFFIX[dtype]}x{lanes}_{len(offsets)}x{vectors}"
    name += "a" * adding + "_" + digest
    if name not in text:
        text.update(_tile_text(name, dtype, lanes, vectors, offsets, wide, adding))
    return name


@cache
def _tile_text(name: str, dtype: str, lanes: int, vectors: int, offsets: tuple[int, ...],
               wide: int, adding: bool) -> dict[str, str]:
    vector = f"<{lanes} x {dtype}>"
    kind = f"v{lanes}{SUFFIX[dtype]}"
    size = BYTES[dtype]
    cells = [(r, v) for r in range(len(offsets)) for v in range(vectors)]
    w = Text()

    def begin(level: int, outer: str, from_: str) -> None:
        """The head of a loop: what the loop outside has, at first, then what its own turn left."""
        back = "inner" if level == 2 else f"end{level}"
        w.do(f"br label %{'inner' if level == 2 else f'loop{level}'}")
        w.label("inner" if level == 2 else f"loop{level}")
        w.do(f"%i{level} = phi i64 [ %n{level}, %{from_} ], [ %j{level}, %{back} ]")
        for p in "xy":
            first = f"%{p}" if level == 0 else f"%p{p}{level - 1}"
            w.do(f"%p{p}{level} = phi ptr [ {first}, %{from_} ], [ %q{p}{level}, %{back} ]")
        for r, v in cells:
            first = "zeroinitializer" if level == 0 else f"%s{level - 1}.{r}.{v}"
            w.do(f"%s{level}.{r}.{v} = phi {vector} [ {first}, %{from_} ], [ %t.{r}.{v}, %{back} ]")

    def end(level: int, after: str) -> None:
        w.do(f"%j{level} = add i64 %i{level}, -1")
        for p in "xy":
            w.do(f"%q{p}{level} = getelementptr i8, ptr %p{p}{level}, i64 %{p}{level}")
        w.do(f"%m{level} = icmp eq i64 %j{level}, 0")
        back = "inner" if level == 2 else f"loop{level}"
        w.do(f"br i1 %m{level}, label %{after}, label %{back}")

    begin(0, "", "entry")
    begin(1, "", "loop0")
    begin(2, "", "loop1")
    right = [w.set(f"load {vector}, ptr {w.at('%py2', v * lanes * size)}, align {size}")
             for v in range(vectors)]
    for r, offset in enumerate(offsets):
        scalar = w.set(f"load {dtype}, ptr {w.at('%px2', offset)}, align {size}")
        single = w.set(f"insertelement {vector} poison, {dtype} {scalar}, i64 0")
        left = w.set(f"shufflevector {vector} {single}, {vector} poison, "
                     f"<{lanes} x i32> zeroinitializer")
        for v in range(vectors):
            w.do(f"%t.{r}.{v} = call {vector} @llvm.fma.{kind}({vector} {left}, "
                 f"{vector} {right[v]}, {vector} %s2.{r}.{v})")
    end(2, "end1")
    w.label("end1")
    end(1, "end0")
    w.label("end0")
    end(0, "done")
    w.label("done")
    if adding:
        w.do("%old = select i1 %add, ptr %c, ptr @chainrule_zeros")
        w.do("%oldd = select i1 %add, i64 %down, i64 0")
        w.do("%olda = select i1 %add, i64 %across, i64 0")
    places = {("%c", "%down", "%across"): "%c", ("%old", "%oldd", "%olda"): "%old"}
    firsts = dict(places)

    def place(of: tuple[str, str, str], r: int) -> str:
        """The address of row r, from that of the row before."""
        if r and r % wide:
            places[of] = w.at(places[of], of[2])
        elif r:
            places[of] = firsts[of] = w.at(firsts[of], of[1])
        return places[of]

    for r in range(len(offsets)):
        row = place(("%c", "%down", "%across"), r)
        old = place(("%old", "%oldd", "%olda"), r) if adding else ""
        for v in range(vectors):
            value = f"%t.{r}.{v}"
            if adding:
                before = w.set(f"load {vector}, ptr {w.at(old, v * lanes * size)}, align {size}")
                value = w.set(f"fadd {vector} {before}, {value}")
            w.do(f"store {vector} {value}, ptr {w.at(row, v * lanes * size)}, align {size}")
    text: dict[str, str] = {}
    kernel.declare(text, f"{vector} @llvm.fma.{kind}({vector}, {vector}, {vector})")
    if adding:
        text["chainrule_zeros"] = (
            "@chainrule_zeros = internal constant [1024 x i8] zeroinitializer, align 64\n")
    numbers = ", ".join(f"i64 %{p}{i}" for p in "nxy" for i in range(3))
    text[name] = w.function(
        f"internal void @{name}(ptr noalias %x, ptr noalias %y, ptr noalias %c, {numbers}, "
        "i64 %down, i64 %across, i1 %add) nounwind")
    return text


def _clear(text: dict[str, str], dtype: str, lanes: int) -> str:
    """`void clear(ptr to, i64 vectors)`: zeros."""
    name = f"chainrule_clear_{SUFFIX[dtype]}x{lanes}"
    size = lanes * BYTES[dtype]
    if name not in text:
        w = Text()
        with w.loop(0, "%vectors") as i:
            w.do(f"store <{lanes} x {dtype}> zeroinitializer, ptr {w.at('%to', w.mul(i, size))}, "
                 f"align {BYTES[dtype]}")
        text[name] = w.function(f"internal void @{name}(ptr %to, i64 %vectors) nounwind")
    return name


def ask(text: dict[str, str]) -> str:
    """`void ask(ptr c, i64 channels, i64 apart)`: have these lines near, to be written soon."""
    name = "chainrule_ask"
    if name not in text:
        w = Text()
        with w.loop(0, "%channels") as i:
            w.do(f"call void @llvm.prefetch.p0(ptr {w.at('%c', w.mul(i, '%apart'))}, i32 1, i32 2, "
                 "i32 1)")
        kernel.declare(text, "void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        text[name] = w.function(
            f"internal void @{name}(ptr %c, i64 %channels, i64 %apart) nounwind")
    return name


def boxes(registers: int, vectors: int) -> Iterable[tuple[int, int]]:
    """(rows, vectors) of tiles that fit the registers, beside a row of Y and a number of X."""
    for wide in (1, 2, 3, 4):
        if vectors % wide == 0:
            yield min(28, (registers - 1 - wide) // wide), wide


def cycles_of(box: Box, depth: float) -> float:
    """Cycles of a tile: multiplications, loads and their latency; then what follows the sum."""
    rows = box.tall * box.wide
    cells = rows * box.vectors
    return depth * max(cells / 2, (rows + box.vectors) / 2, 4.5) + 2 * cells + 40


# ---------------------------------------------------------------- what both have in common


class Writer:
    """The text of a program, and the choices all of its functions share."""

    def __init__(self, spec: Spec, lanes: int, epilogue: str | None, registers: int) -> None:
        self.spec = spec
        self.windows = spec.windows
        self.dtype = spec.dtype
        self.size = BYTES[spec.dtype]
        self.lanes = lanes
        self.epilogue = epilogue
        self.vectors = -(-spec.windows.outer // lanes)
        self.text: dict[str, str] = {}
        choices = repr((spec, lanes, epilogue, registers)).encode()
        digest = hashlib.blake2b(choices, digest_size=6).hexdigest()
        self.stem = f"{spec.windows.kind}_{SUFFIX[spec.dtype]}_{digest}"

    def define(self, suffix: str, w: Text) -> str:
        for name in ("smin", "smax"):
            kernel.declare(self.text, f"i64 @llvm.{name}.i64(i64, i64)")
        name = self.stem + suffix
        self.text[name] = w.function(
            f"void @{name}(ptr %a, ptr %b, ptr %c, ptr %scratch, ptr %context, i64 %lo, i64 %hi) "
            'nounwind "quick"')
        return name

    def finish(self, w: Text, batch: Index, rows: tuple[Index, Index],
               columns: tuple[Index, Index]) -> None:
        if self.epilogue is not None:
            numbers = ", ".join(f"i64 {index}" for index in (batch, *rows, *columns))
            w.do(f"call void @{self.epilogue}(ptr %context, {numbers})")

    def clear(self, w: Text, target: str, elements: int) -> None:
        name = _clear(self.text, self.dtype, self.lanes)
        w.do(f"call void @{name}(ptr {target}, i64 {-(-elements // self.lanes)})")

    def fill(self, w: Text, frame: Frame, item: Index, group: Index, channel: Index, count: Index,
             top: Index, target: str) -> None:
        """Bring `count` channels of an image from `channel` on into the frame, which begins at row
        `top` of the image; what lies outside of the image stays as it is."""
        size = self.size
        rows, columns = self.windows.size
        n, g, c, h, across = self.spec.image
        begin, end = largest(w, 0, top), w.least(rows, w.add(top, frame.height))
        left, right = max(0, frame.left), min(columns, frame.left + frame.width)
        if right <= left:
            return
        with w.loop(0, count) as k:
            place = w.add(w.mul(item, n), w.add(w.mul(group, g), w.add(
                w.mul(w.add(channel, k), c), w.add(w.mul(begin, h), left * across))))
            source = w.at("%a", w.mul(place, size))
            here = w.add(w.mul(k, frame.plane), w.add(
                w.mul(w.sub(begin, top), frame.width), left - frame.left))
            there = w.at(target, w.mul(here, size))
            if across == 1:
                name = kernel.copy(self.text, self.dtype, self.lanes)
                w.do(f"call void @{name}(ptr {source}, ptr {there}, i64 {w.sub(end, begin)}, "
                     f"i64 {right - left}, i64 {h * size}, i64 {frame.width * size}, "
                     f"i64 {self.lanes * size})")
            else:
                name = kernel.move(self.text, self.dtype)
                w.do(f"call void @{name}(ptr {source}, ptr {there}, i64 {w.sub(end, begin)}, "
                     f"i64 {right - left}, i64 {h * size}, i64 {across * size}, "
                     f"i64 {frame.width * size}, i64 {size})")

    def turn(self, w: Text, source: str, target: str, rows: Index, columns: Index, apart: int,
             pitch: int, least: int, *, masked: bool = False) -> None:
        """Rows that are `apart` elements apart become columns: element (r, c) goes to
        c * pitch + r, of up to `lanes` rows and at least `least` columns. Unless `masked`, whole
        vectors may be written."""
        size = self.size
        if least >= PIECE // size:
            name = kernel.transpose(self.text, self.dtype, self.lanes, masked=masked)
            w.do(f"call void @{name}(ptr {source}, ptr {target}, i64 {rows}, i64 {columns}, "
                 f"i64 {apart * size}, i64 {pitch * size})")
            return
        name = kernel.move(self.text, self.dtype)
        w.do(f"call void @{name}(ptr {source}, ptr {target}, i64 {rows}, i64 {columns}, "
             f"i64 {apart * size}, i64 {size}, i64 {size}, i64 {pitch * size})")

    def multiply(self, w: Text, offsets: list[int], wide: int, vectors: int, x: str, y: str, c: str,
                 turns: Iterable[Index], xs: Iterable[int], ys: Iterable[int], down: int,
                 across: int, add: str = "") -> None:
        """Call the tile; offsets and steps in elements."""
        size = self.size
        name = _tile(self.text, self.dtype, self.lanes, vectors,
                     tuple([offset * size for offset in offsets]), wide, bool(add))
        steps = [step * size for step in (*xs, *ys, down, across)]
        given = ", ".join(f"i64 {number}" for number in (*turns, *steps))
        w.do(f"call void @{name}(ptr {x}, ptr {y}, ptr {c}, {given}, i1 {add or 'false'})")


def largest(w: Text, a: Index, b: Index) -> Index:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return w.set(f"call i64 @llvm.smax.i64(i64 {a}, i64 {b})")


def aligned(count: int) -> int:
    return -(-count // ALIGN) * ALIGN


def reach(lines: Iterable[Line]) -> tuple[int, int]:
    """The first and last place of the image that pixels meet, also outside of it."""
    ends = [line.start + q * line.move + t * line.spread for line in lines if line.taps
            for q in (0, line.length - 1) for t in (0, line.taps - 1)]
    return min(ends, default=0), max(ends, default=0)


def frame_of(windows: Windows, low: int, height: int, size: int) -> Frame:
    """The frame of a band of `height` rows, the first of them from `low` on."""
    left, right = reach(windows.columns)
    width = right - left + 1
    # Channels that lie a power of two apart would share few sets of the caches.
    line = ALIGN // size
    plane = (-(-height * width // line) | 1) * line
    above, below = reach(windows.rows)                      # of all bands
    padded = min(above, left) < 0 or below >= windows.size[0] or right >= windows.size[1]
    return Frame(low, left, height, width, plane, padded)


def part_of(w: Text, number: Index, total: int, parts: int) -> tuple[Index, Index]:
    """The part of range(total) that is number `number` of `parts`."""
    if parts == 1:
        return 0, total
    return (w.div(w.mul(number, total), parts),
            w.div(w.mul(w.add(number, 1), total), parts))


def units_of(items: int, size: int) -> tuple[int, int]:
    """Units of work, each with `size` bytes of its own, and how many items each does."""
    together = -(-items // max(PARTS, min(UNITS, MEMORY // size)))
    return -(-items // together), together
