"""The innermost functions of matrix products: a tile of C in registers, and copies that pack.

Each is LLVM text that knows its tile, and takes sizes and strides (in bytes) when it runs, so that
all products of a program share it. Each function here returns the name and adds the text, with what
it needs declared, to `text`, which maps names to texts.
"""

from __future__ import annotations

from functools import cache

from chainrule.compiler.products.text import Text

BYTES = {"float": 4, "double": 8}
SUFFIX = {"float": "f32", "double": "f64"}
# A vector is put together from pieces of this many bytes, in which processors shuffle cheaply.
PIECE = 16


def tile(text: dict[str, str], dtype: str, lanes: int, rows: int, vectors: int, *,
         unit: bool, masked: bool, adding: bool) -> str:
    """A tile of C: `rows` x (`vectors` * `lanes`), summed over k in order in registers.

    `void tile(ptr x, ptr y, ptr c, i64 k, i64 xr, i64 xk, i64 yk, i64 cr, i64 count, i1 add)`:
    k >= 1 terms; element (r, k) of x lies at x + r*xr + k*xk and is multiplied with all lanes of
    row k of y, which lies at y + k*yk. `unit`: xr is one element whatever is passed. `masked`: only
    the first `count` lanes of the last vector are read and written. `adding`: with `add`, C is
    added to, after the loop: its lines were asked for before.
    """
    name = f"chainrule_tile_{SUFFIX[dtype]}x{lanes}_{rows}x{vectors}"
    name += "u" * unit + "m" * masked + "a" * adding
    if name not in text:
        text.update(_tile(name, dtype, lanes, rows, vectors, unit, masked, adding))
    return name


@cache
def _tile(name: str, dtype: str, lanes: int, rows: int, vectors: int, unit: bool, masked: bool,
          adding: bool) -> dict[str, str]:
    text: dict[str, str] = {}
    vector = f"<{lanes} x {dtype}>"
    size = BYTES[dtype]
    w = Text()
    mask = lane_mask(w, lanes, "%count") if masked else ""
    bases, places = ([0], {}) if unit else _places(rows)
    starts = {base: w.at("%x", w.mul("%xr", base)) for base in bases}
    cells = [(r, v) for r in range(rows) for v in range(vectors)]
    last = vectors - 1

    def load(pointer: str, v: int) -> str:
        place = w.at(pointer, v * lanes * size)
        if masked and v == last:
            return w.set(f"call {vector} @llvm.masked.load.v{lanes}{SUFFIX[dtype]}.p0(ptr align "
                         f"{size} {place}, <{lanes} x i1> {mask}, {vector} zeroinitializer)")
        return w.set(f"load {vector}, ptr {place}, align {size}")

    if adding:
        row = "%c"
        for r in range(rows):
            for v in range(vectors):
                w.do(f"call void @llvm.prefetch.p0(ptr {w.at(row, v * lanes * size)}, i32 1, "
                     "i32 3, i32 1)")
            row = w.at(row, "%cr") if r + 1 < rows else row
    w.do("br label %sum")
    w.label("sum")

    def phi(kind: str, name: str, first: str, again: str) -> None:
        w.do(f"{name} = phi {kind} [ {first}, %entry ], [ {again}, %sum ]")

    phi("i64", "%left", "%k", "%fewer")
    phi("ptr", "%py", "%y", "%ny")
    for base in bases:
        phi("ptr", f"%qx{base}", starts[base], f"%nx{base}")
    for r, v in cells:
        phi(vector, f"%s{r}.{v}", "zeroinitializer", f"%t{r}.{v}")
    for base in bases:
        # Opaque to LLVM's rewriting of loop addresses, which would chain one addition per row.
        w.do(f"%px{base} = call ptr @llvm.launder.invariant.group.p0(ptr %qx{base})")
    right = [load("%py", v) for v in range(vectors)]
    for r in range(rows):
        if unit:
            place = w.at("%px0", r * size)
        else:
            base, scale = places[r]
            place = f"%px{base}"
            if scale:
                place = w.set(f"getelementptr i{8 * scale}, ptr {place}, i64 %xr")
        scalar = w.set(f"load {dtype}, ptr {place}, align {size}")
        single = w.set(f"insertelement {vector} poison, {dtype} {scalar}, i64 0")
        left = w.set(f"shufflevector {vector} {single}, {vector} poison, "
                     f"<{lanes} x i32> zeroinitializer")
        for v in range(vectors):
            w.do(f"%t{r}.{v} = call {vector} @llvm.fma.v{lanes}{SUFFIX[dtype]}({vector} {left}, "
                 f"{vector} {right[v]}, {vector} %s{r}.{v})")
    w.do("%ny = getelementptr i8, ptr %py, i64 %yk")
    for base in bases:
        w.do(f"%nx{base} = getelementptr i8, ptr %px{base}, i64 %xk")
    w.do("%fewer = add i64 %left, -1")
    w.do("%none = icmp eq i64 %fewer, 0")
    w.do("br i1 %none, label %done, label %sum")
    w.label("done")
    row = "%c"
    if adding:
        old = w.set("select i1 %add, ptr %c, ptr @chainrule_zeros")
        step = w.set("select i1 %add, i64 %cr, i64 0")
    for r in range(rows):
        for v in range(vectors):
            value = f"%t{r}.{v}"
            if adding:
                value = w.set(f"fadd {vector} {load(old, v)}, {value}")
            place = w.at(row, v * lanes * size)
            if masked and v == last:
                w.do(_masked_store(dtype, lanes, value, place, mask))
            else:
                w.do(f"store {vector} {value}, ptr {place}, align {size}")
        if r + 1 < rows:
            row = w.at(row, "%cr")
            old = w.at(old, step) if adding else ""
    declare(text, f"{vector} @llvm.fma.v{lanes}{SUFFIX[dtype]}({vector}, {vector}, {vector})")
    declare(text, "ptr @llvm.launder.invariant.group.p0(ptr)")
    if adding:
        declare(text, "void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        text["chainrule_zeros"] = (
            "@chainrule_zeros = internal constant [1024 x i8] zeroinitializer, align 64\n")
    if masked:
        declare_masked(text, dtype, lanes)
    text[name] = w.function(
        f"internal void @{name}(ptr noalias %x, ptr noalias %y, ptr noalias %c, i64 %k, i64 %xr, "
        "i64 %xk, i64 %yk, i64 %cr, i64 %count, i1 %add) nounwind"
    )
    return text


def _places(rows: int) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """Few base rows from which all rows are reached by an offset of 0, 1, 2, 4 or 8 strides.

    These are the offsets that x86 adds to an address for free.
    """
    bases: list[int] = []
    places: dict[int, tuple[int, int]] = {}
    for row in range(rows):
        if row not in places:
            bases.append(row)
            for scale in (0, 1, 2, 4, 8):
                if row + scale < rows:
                    places.setdefault(row + scale, (row, scale))
    return bases, places


def copy(text: dict[str, str], dtype: str, lanes: int) -> str:
    """Rows of `count` elements, whose vectors may lie apart in the target.

    `void copy(ptr from, ptr to, i64 rows, i64 count, i64 from_stride, i64 to_stride, i64 apart)`:
    vector e of row r goes to to + r*to_stride + e*apart.
    """
    name = f"chainrule_copy_{SUFFIX[dtype]}x{lanes}"
    if name in text:
        return name
    vector = f"<{lanes} x {dtype}>"
    size = BYTES[dtype]
    w = Text()
    whole = w.div("%count", lanes)
    rest = w.sub("%count", w.mul(whole, lanes))
    mask = lane_mask(w, lanes, str(rest))
    partial = w.set(f"icmp sgt i64 {rest}, 0")
    with w.loop(0, "%rows") as row:
        source = w.at("%from", w.mul(row, "%from_stride"))
        target = w.at("%to", w.mul(row, "%to_stride"))
        with w.loop(0, whole) as e:
            value = w.set(f"load {vector}, ptr {w.at(source, w.mul(e, lanes * size))}, "
                          f"align {size}")
            w.do(f"store {vector} {value}, ptr {w.at(target, w.mul(e, '%apart'))}, align {size}")
        with w.when(partial):
            here, there = w.at(source, w.mul(whole, lanes * size)), w.mul(whole, "%apart")
            value = w.set(
                f"call {vector} @llvm.masked.load.v{lanes}{SUFFIX[dtype]}.p0(ptr align {size} "
                f"{here}, <{lanes} x i1> {mask}, {vector} zeroinitializer)")
            w.do(_masked_store(dtype, lanes, value, w.at(target, there), mask))
    declare_masked(text, dtype, lanes)
    text[name] = w.function(
        f"internal void @{name}(ptr noalias %from, ptr noalias %to, i64 %rows, i64 %count, "
        "i64 %from_stride, i64 %to_stride, i64 %apart) nounwind"
    )
    return name


def transpose(text: dict[str, str], dtype: str, lanes: int, *, masked: bool) -> str:
    """Up to `lanes` rows, read along the rows, become columns.

    `void transpose(ptr from, ptr to, i64 rows, i64 columns, i64 from_stride, i64 to_stride)`:
    element (r, c) at from + r*from_stride + c goes to to + c*to_stride + r. 1 <= rows <= lanes;
    `columns` is at least the number of elements in 16 bytes. Unless `masked`, `lanes` elements are
    written always, with what lies in the last row.
    """
    name = f"chainrule_transpose_{SUFFIX[dtype]}x{lanes}" + "m" * masked
    if name in text:
        return name
    size = BYTES[dtype]
    width = PIECE // size
    pieces = lanes // width
    vector = f"<{lanes} x {dtype}>"
    w = Text()
    mask = lane_mask(w, lanes, "%rows") if masked else ""
    rows = ["%from"]
    for r in range(1, lanes):
        more = w.set(f"icmp sgt i64 %rows, {r}")
        step = w.set(f"select i1 {more}, i64 %from_stride, i64 0")
        rows.append(w.at(rows[-1], step))
    limit = w.sub("%columns", width)
    with w.loop(0, "%columns", width) as turn:
        column = w.least(turn, limit)
        offset = w.mul(column, size)
        # Vector t holds, piece by piece, rows t, t + width, t + 2 * width, ...
        parts = [_joined(w, dtype, width, [
            w.set(f"load <{width} x {dtype}>, ptr {w.at(rows[p * width + t], offset)}, "
                  f"align {size}") for p in range(pieces)]) for t in range(width)]
        half = width // 2
        for _ in range(half.bit_length()):
            parts = [_woven(w, vector, lanes, width, parts[t], parts[t + half], upper)
                     for t in range(half) for upper in (False, True)]
        target = w.at("%to", w.mul(column, "%to_stride"))
        for t in range(width):
            if masked:
                w.do(_masked_store(dtype, lanes, parts[t], target, mask))
            else:
                w.do(f"store {vector} {parts[t]}, ptr {target}, align {size}")
            target = w.at(target, "%to_stride") if t + 1 < width else target
    if masked:
        declare_masked(text, dtype, lanes)
    declare(text, "i64 @llvm.smin.i64(i64, i64)")
    text[name] = w.function(
        f"internal void @{name}(ptr noalias %from, ptr noalias %to, i64 %rows, i64 %columns, "
        "i64 %from_stride, i64 %to_stride) nounwind"
    )
    return name


def _joined(w: Text, dtype: str, width: int, pieces: list[str]) -> str:
    """One vector of equal pieces, a power of two of them."""
    while len(pieces) > 1:
        order = ", ".join(f"i32 {i}" for i in range(2 * width))
        pieces = [
            w.set(f"shufflevector <{width} x {dtype}> {a}, <{width} x {dtype}> {b}, "
                  f"<{2 * width} x i32> <{order}>")
            for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
        width *= 2
    return pieces[0]


def _woven(w: Text, vector: str, lanes: int, width: int, a: str, b: str, upper: bool) -> str:
    """Elements of a and b in turn, of the lower or of the upper half of each piece."""
    order = [lane - lane % width + lane % width // 2 + upper * width // 2 + lane % 2 * lanes
             for lane in range(lanes)]
    indices = ", ".join(f"i32 {i}" for i in order)
    return w.set(f"shufflevector {vector} {a}, {vector} {b}, <{lanes} x i32> <{indices}>")


def move(text: dict[str, str], dtype: str) -> str:
    """Any rows and columns from any strides to any strides, one element at a time.

    `void move(ptr from, ptr to, i64 rows, i64 columns, i64 from_row, i64 from_column, i64 to_row,
    i64 to_column)`
    """
    name = f"chainrule_move_{SUFFIX[dtype]}"
    if name in text:
        return name
    size = BYTES[dtype]
    w = Text()
    with w.loop(0, "%rows") as row:
        source = w.at("%from", w.mul(row, "%from_row"))
        target = w.at("%to", w.mul(row, "%to_row"))
        with w.loop(0, "%columns") as column:
            value = w.set(f"load {dtype}, ptr {w.at(source, w.mul(column, '%from_column'))}, "
                          f"align {size}")
            place = w.at(target, w.mul(column, "%to_column"))
            w.do(f"store {dtype} {value}, ptr {place}, align {size}")
    text[name] = w.function(
        f"internal void @{name}(ptr noalias %from, ptr noalias %to, i64 %rows, i64 %columns, "
        "i64 %from_row, i64 %from_column, i64 %to_row, i64 %to_column) nounwind"
    )
    return name


def lane_mask(w: Text, lanes: int, count: str) -> str:
    """Which lanes lie below `count`."""
    single = w.set(f"insertelement <{lanes} x i64> poison, i64 {count}, i64 0")
    every = w.set(f"shufflevector <{lanes} x i64> {single}, <{lanes} x i64> poison, "
                  f"<{lanes} x i32> zeroinitializer")
    steps = ", ".join(f"i64 {i}" for i in range(lanes))
    return w.set(f"icmp ult <{lanes} x i64> <{steps}>, {every}")


def _masked_store(dtype: str, lanes: int, value: str, place: str, mask: str) -> str:
    return (f"call void @llvm.masked.store.v{lanes}{SUFFIX[dtype]}.p0(<{lanes} x {dtype}> {value}, "
            f"ptr align {BYTES[dtype]} {place}, <{lanes} x i1> {mask})")


def declare_masked(text: dict[str, str], dtype: str, lanes: int) -> None:
    vector = f"<{lanes} x {dtype}>"
    kind = f"v{lanes}{SUFFIX[dtype]}.p0"
    declare(text, f"{vector} @llvm.masked.load.{kind}(ptr, <{lanes} x i1>, {vector})")
    declare(text, f"void @llvm.masked.store.{kind}({vector}, ptr, <{lanes} x i1>)")


def declare(text: dict[str, str], signature: str) -> None:
    name = signature.split("@")[1].split("(")[0]
    text[name] = f"declare {signature}\n"
