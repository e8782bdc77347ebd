"""Matrix products as LLVM text, generated for their exact shape.

`contraction` plans a product (`contract_plan.py`), then writes functions that walk over blocks of
C and call the shared kernels of `contract_kernel.py`: a tile of C stays in registers while k runs.
Each element of C is one sum in the order of k (in blocks that depend on the shape alone), so that
no split of the work over threads changes a bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from chainrule.compiler.products import dot as contract_dot
from chainrule.compiler.products import tile as kernel
from chainrule.compiler.products.plan import Plan, Product, choose, cycles
from chainrule.compiler.products.text import Index, Text
from chainrule.compiler.products.tile import BYTES, PIECE, SUFFIX

ALIGN = 64
# Units of work of a phase, at most.
MOST = 256
# Multiplications of vectors in a tile from which on its kernel runs long (1 microsecond).
LONG = 4000


class Contraction(NamedTuple):
    """C[b, i, j] = sum_k A[b, i, k] * B[b, k, j].

    `dtype` is "float" or "double". Strides are in elements: `a` of (batch, i, k), `b` of
    (batch, k, j), any, also 0; `c` of (batch, i, j), where j or i is 1. With `finish` the epilogue
    is called on each finished block of C.
    """

    dtype: str
    batch: int
    m: int
    n: int
    k: int
    a: tuple[int, int, int]
    b: tuple[int, int, int]
    c: tuple[int, int, int]
    finish: bool = False


class Phase(NamedTuple):
    """`void @name(ptr a, ptr b, ptr c, ptr scratch, ptr context, i64 lo, i64 hi)`.

    Does units lo..hi of `units`; any split of them over threads gives the same bits. A barrier
    lies between phases. `flops` and `bytes` are those of the whole phase.
    """

    name: str
    units: int
    flops: int
    bytes: int


class Program(NamedTuple):
    """Phases to be called in order, `text` by symbol name, and bytes of scratch (64-aligned)."""

    text: dict[str, str]
    phases: list[Phase]
    scratch: int


def contraction(
    spec: Contraction, lanes: int = 16, epilogue: str | None = None, registers: int = 32
) -> Program:
    """A program for `spec`. `lanes` is the number of float32 in a vector register.

    `epilogue`, with `spec.finish`: `void @epilogue(ptr context, i64 b, i64 i0, i64 i1, i64 j0,
    i64 j1)`, called once for each block of C when its numbers are final.
    """
    if spec.batch * spec.m * spec.n == 0:
        return Program({}, [], 0)
    if not spec.finish:
        epilogue = None
    lanes = lanes * BYTES["float"] // BYTES[spec.dtype]
    products = [_product(spec, False), _product(spec, True)]
    for product in products:
        if contract_dot.suits(product, lanes):
            return _dots(product, lanes, epilogue)
    plans = [choose(product, lanes, registers, epilogue is not None) for product in products]
    # Where both ways look alike, the one that is written is the one that was asked for.
    swap = cycles(plans[1]) < 0.97 * cycles(plans[0])
    return write(plans[swap], epilogue)


def _product(spec: Contraction, swapped: bool) -> Product:
    """`spec` with vectors along j, or along i if `swapped`."""
    # The stride of an axis of length 1 says nothing; as 1 it disturbs no choice.
    batch, m, n, k = spec.batch, spec.m, spec.n, spec.k
    a = (spec.a[0] if batch > 1 else 0, spec.a[1] if m > 1 else 1, spec.a[2] if k > 1 else 1)
    b = (spec.b[0] if batch > 1 else 0, spec.b[1] if k > 1 else 1, spec.b[2] if n > 1 else 1)
    c = (spec.c[0] if batch > 1 else 0, spec.c[1] if m > 1 else 1, spec.c[2] if n > 1 else 1)
    if swapped:
        return Product(spec.dtype, batch, n, m, k, (b[0], b[2], b[1]), (a[0], a[2], a[1]),
                       (c[0], c[2], c[1]), True)
    return Product(spec.dtype, batch, m, n, k, a, b, c, False)


class _Layout(NamedTuple):
    """Where the parts of the scratch begin, and how long they are, in bytes.

    Packed X of the phase comes first, then a slot for each unit: a tile of X, packed Y, a block
    of C. A call that does units lo..hi uses the slot of unit lo, which is nobody else's.
    """

    x_batch: int
    x_tile: int
    slots: int
    slot: int
    slot_y: int
    slot_c: int
    y_panel: int
    scratch: int


def _layout(plan: Plan) -> _Layout:
    product = plan.product
    size = BYTES[product.dtype]
    x_tile = (plan.block if plan.pack_x == "unit" else product.depth) * plan.height * size
    x_batch = plan.tiles * x_tile
    slots = slot_y = 0
    if plan.pack_x == "phase":
        slots = _aligned(x_batch * (product.batch if product.x[0] else 1))
    elif plan.pack_x == "unit":
        slot_y = _aligned(x_tile)
    y_panel = plan.block * plan.width * size
    panels = -(-plan.panels // plan.column_blocks)
    slot_c = slot_y + (_aligned(y_panel * panels) if plan.pack_y else 0)
    slot = slot_c
    if plan.through:
        tiles = -(-plan.tiles // plan.row_blocks)
        slot += _aligned(tiles * plan.height * _pitch(plan) * size)
    return _Layout(x_batch, x_tile, slots, slot, slot_y, slot_c, y_panel,
                   slots + _units(plan)[0] * slot)


def _units(plan: Plan) -> tuple[int, int]:
    """Units of work, each with a slot of its own, and how many blocks of C are one unit."""
    blocks = plan.product.batch * plan.row_blocks * plan.column_blocks
    together = -(-blocks // MOST)
    return -(-blocks // together), together


def _pitch(plan: Plan) -> int:
    """Elements between rows of a block that is stored transposed later; no power of two."""
    return -(-plan.panels // plan.column_blocks) * plan.width + plan.lanes


def _aligned(count: int) -> int:
    return -(-count // ALIGN) * ALIGN


def write(plan: Plan, epilogue: str | None) -> Program:
    """The program of a plan."""
    product = plan.product
    stem = _stem(product, (plan, epilogue))
    layout = _layout(plan)
    # Where kernels run long, how the loops around them are compiled is no matter; LLVM's effort is.
    quick = plan.block * plan.height * plan.vectors > LONG
    text: dict[str, str] = {}
    phases = []
    if product.depth and plan.pack_x == "phase":
        copies = product.batch if product.x[0] else 1
        body = _pack_x(text, plan, layout)
        _define(text, f"{stem}_x", body, quick)
        moved = copies * product.rows * product.depth * BYTES[product.dtype]
        phases.append(Phase(f"{stem}_x", copies * plan.tiles, 0, 2 * moved))
    _define(text, stem, _compute(text, plan, layout, epilogue), quick)
    phases.append(_phase(stem, product, _units(plan)[0]))
    return Program(text, phases, layout.scratch if product.depth else 0)


def _dots(product: Product, lanes: int, epilogue: str | None) -> Program:
    """The program of few rows or columns of dots."""
    stem = _stem(product, (product, lanes, epilogue))
    text: dict[str, str] = {}
    w = Text()
    with w.loop("%lo", "%hi") as unit:
        contract_dot.blocks(w, text, product, lanes, unit, lambda batch, rows, columns: _finish(
            w, product, epilogue, batch, rows, columns))
    _define(text, stem, w, quick=False)
    return Program(text, [_phase(stem, product, product.batch * contract_dot.units(product))], 0)


def _stem(product: Product, choices: object) -> str:
    digest = hashlib.blake2b(repr(choices).encode(), digest_size=6).hexdigest()
    return (f"contract_{SUFFIX[product.dtype]}_{product.rows}x{product.columns}x{product.depth}_"
            f"{digest}")


def _phase(stem: str, product: Product, units: int) -> Phase:
    """The phase that computes C: it reads the operands and writes C."""
    area = product.rows * product.columns
    read = (product.rows + product.columns) * product.depth
    return Phase(stem, units, 2 * product.batch * area * product.depth,
                 product.batch * (area + read) * BYTES[product.dtype])


def _define(text: dict[str, str], name: str, w: Text, quick: bool) -> None:
    text["llvm.smin.i64"] = "declare i64 @llvm.smin.i64(i64, i64)\n"
    effort = ' "quick"' if quick else ""
    text[name] = w.function(
        f"void @{name}(ptr %a, ptr %b, ptr %c, ptr %scratch, ptr %context, i64 %lo, i64 %hi) "
        f"nounwind{effort}")


def _operands(plan: Plan) -> tuple[str, str]:
    return ("%b", "%a") if plan.product.swapped else ("%a", "%b")


def _start(w: Text, number: Index, step: int, total: int, overlap: bool) -> Index:
    """Where tile or panel `number` begins; an overlapping last one ends with the matrix."""
    begin = w.mul(number, step)
    return w.least(begin, total - step) if overlap else begin


def _pack_x(text: dict[str, str], plan: Plan, layout: _Layout) -> Text:
    """The function that packs all of X."""
    w = Text()
    with w.loop("%lo", "%hi") as unit:
        batch, number = w.split(unit, plan.tiles)
        target = w.at("%scratch", w.add(w.mul(batch, layout.x_batch),
                                        w.mul(number, layout.x_tile)))
        _tile_of_x(w, text, plan, batch, number, 0, plan.product.depth, target)
    return w


def _tile_of_x(w: Text, text: dict[str, str], plan: Plan, batch: Index, number: Index,
               first: Index, depth: Index, target: str) -> None:
    """Pack a tile of X as [k][row], so that the kernel reads one stream."""
    product = plan.product
    size = BYTES[product.dtype]
    row = _start(w, number, plan.height, product.rows, plan.overlap_rows)
    source = w.at(_operands(plan)[0], w.add(
        w.mul(batch, product.x[0] * size), w.add(
            w.mul(row, product.x[1] * size), w.mul(first, product.x[2] * size))))
    count: Index = plan.height
    if product.rows % plan.height and not plan.overlap_rows:
        count = w.least(plan.height, w.sub(product.rows, row))
    _gather(w, text, plan, source, target, count, depth, product.x[1], product.x[2],
            plan.height * size, plan.lanes * size)


def _panels_of_y(w: Text, text: dict[str, str], plan: Plan, layout: _Layout, batch: Index,
                 panels: tuple[Index, Index], first: Index, depth: Index, target: str) -> None:
    """Pack panels of Y as [panel][k][column]."""
    product = plan.product
    size = BYTES[product.dtype]
    apart = layout.y_panel if plan.vectors == 1 else plan.lanes * size

    def pack(number: Index, stop: Index, to: str) -> None:
        column = _start(w, number, plan.width, product.columns, plan.overlap_columns)
        end = w.least(product.columns, w.mul(stop, plan.width))
        count = plan.width if plan.overlap_columns else w.sub(end, column)
        source = w.at(_operands(plan)[1], w.add(
            w.mul(batch, product.y[0] * size), w.add(
                w.mul(first, product.y[1] * size), w.mul(column, product.y[2] * size))))
        _gather(w, text, plan, source, to, count, depth, product.y[2], product.y[1],
                plan.width * size, apart)

    if plan.overlap_columns or plan.vectors > 1:
        with w.loop(*panels) as panel:
            pack(panel, w.add(panel, 1),
                 w.at(target, w.mul(w.sub(panel, panels[0]), layout.y_panel)))
    else:
        pack(*panels, target)


def _gather(w: Text, text: dict[str, str], plan: Plan, source: str, target: str, count: Index,
            depth: Index, across: int, along: int, pitch: int, apart: int) -> None:
    """Bring elements that are `across` apart side by side, for `depth` steps of `along` elements.

    Element e of step k goes to target + k * pitch + (e // lanes) * apart + (e % lanes) elements.
    """
    dtype = plan.product.dtype
    size = BYTES[dtype]
    lanes = plan.lanes
    if across == 1:
        name = kernel.copy(text, dtype, lanes)
        w.do(f"call void @{name}(ptr {source}, ptr {target}, i64 {depth}, i64 {count}, "
             f"i64 {along * size}, i64 {pitch}, i64 {apart})")
        return
    fast = along == 1 and plan.product.depth >= PIECE // size
    with w.loop(0, count, lanes) as e:
        rest = w.least(lanes, w.sub(count, e))
        here = w.at(source, w.mul(e, across * size))
        there = w.at(target, w.mul(w.div(e, lanes), apart))
        if fast:
            # Whole vectors may be written where the rest of the row is written later or unused.
            name = kernel.transpose(text, dtype, lanes, masked=pitch % (lanes * size) != 0)
            w.do(f"call void @{name}(ptr {here}, ptr {there}, i64 {rest}, i64 {depth}, "
                 f"i64 {across * size}, i64 {pitch})")
        else:
            name = kernel.move(text, dtype)
            w.do(f"call void @{name}(ptr {here}, ptr {there}, i64 {depth}, i64 {rest}, "
                 f"i64 {along * size}, i64 {across * size}, i64 {pitch}, i64 {size})")


def _compute(text: dict[str, str], plan: Plan, layout: _Layout, epilogue: str | None) -> Text:
    """The function that computes blocks of C."""
    product = plan.product
    size = BYTES[product.dtype]
    w = Text()
    slot = w.at("%scratch", w.add(layout.slots, w.mul("%lo", layout.slot)))
    together = _units(plan)[1]
    blocks = product.batch * plan.row_blocks * plan.column_blocks
    end = w.mul("%hi", together)
    if together > 1:
        end = w.least(blocks, end)
    with w.loop(w.mul("%lo", together), end) as number:
        rest, column_block = w.split(number, plan.column_blocks)
        batch, row_block = w.split(rest, plan.row_blocks)
        tiles = _share(w, row_block, plan.tiles, plan.row_blocks)
        panels = _share(w, column_block, plan.panels, plan.column_blocks)
        rows = (w.mul(tiles[0], plan.height),
                w.least(product.rows, w.mul(tiles[1], plan.height)))
        columns = (w.mul(panels[0], plan.width),
                   w.least(product.columns, w.mul(panels[1], plan.width)))
        c = w.at("%c", w.mul(batch, product.c[0] * size))
        if not product.depth:
            _zero(w, plan, c, rows, columns)
        elif plan.through:
            pitch = _pitch(plan)
            block = w.at(slot, layout.slot_c)
            origin = w.sub(0, w.mul(w.add(w.mul(rows[0], pitch), columns[0]), size))
            _block(w, text, plan, layout, batch, tiles, panels, w.at(block, origin), pitch, slot,
                   None)
            _scatter(w, text, plan, block, c, rows, columns, pitch)
        else:
            _block(w, text, plan, layout, batch, tiles, panels, c, product.c[1], slot, epilogue)
        if not (plan.strips and product.depth and not plan.through):
            _finish(w, product, epilogue, batch, rows, columns)
    return w


def _share(w: Text, number: Index, total: int, shares: int) -> tuple[Index, Index]:
    """The part of range(total) that share `number` of `shares` gets; sizes differ by at most 1."""
    if shares == 1:
        return 0, total
    return (w.div(w.mul(number, total), shares),
            w.div(w.mul(w.add(number, 1), total), shares))


def _finish(w: Text, product: Product, epilogue: str | None, batch: Index,
            rows: tuple[Index, Index], columns: tuple[Index, Index]) -> None:
    """Tell the epilogue that a block of C is final."""
    if epilogue is not None:
        sides = [*columns, *rows] if product.swapped else [*rows, *columns]
        numbers = ", ".join(f"i64 {index}" for index in [batch, *sides])
        w.do(f"call void @{epilogue}(ptr %context, {numbers})")


def _block(w: Text, text: dict[str, str], plan: Plan, layout: _Layout, batch: Index,
           tiles: tuple[Index, Index], panels: tuple[Index, Index], target: str, pitch: int,
           slot: str, epilogue: str | None) -> None:
    """A block of C: for each block of k, all tiles meet all panels."""
    product = plan.product
    size = BYTES[product.dtype]
    blocks = -(-product.depth // plan.block)
    edge_rows = product.rows % plan.height if not plan.overlap_rows else 0
    edge_columns = product.columns % plan.width if not plan.overlap_columns else 0
    whole_rows = product.rows // plan.height if edge_rows else plan.tiles
    whole_columns = product.columns // plan.width if edge_columns else plan.panels
    columns = (w.mul(panels[0], plan.width), w.least(product.columns, w.mul(panels[1], plan.width)))

    def all_panels(inner: Callable[[Index, int], None]) -> None:
        _each(w, panels, whole_columns, plan.width, edge_columns, inner)

    def all_tiles(inner: Callable[[Index, int], None]) -> None:
        _each(w, tiles, whole_rows, plan.height, edge_rows, inner)

    with w.loop(0, blocks) as number:
        first = w.mul(number, plan.block)
        depth = w.least(plan.block, w.sub(product.depth, first))
        add = w.set(f"icmp sgt i64 {first}, 0") if blocks > 1 else ""
        packed_y = w.at(slot, layout.slot_y)
        if plan.pack_y:
            _panels_of_y(w, text, plan, layout, batch, panels, first, depth, packed_y)

        def locate_x(tile: Index) -> tuple[str, int, int]:
            return _x(w, plan, layout, batch, tile, first, slot)

        def locate_y(panel: Index) -> tuple[str, int]:
            if plan.pack_y:
                place = w.mul(w.sub(panel, panels[0]), layout.y_panel)
                return w.at(packed_y, place), plan.width * size
            column = _start(w, panel, plan.width, product.columns, plan.overlap_columns)
            place = w.add(w.mul(batch, product.y[0] * size), w.add(
                w.mul(first, product.y[1] * size), w.mul(column, size)))
            return w.at(_operands(plan)[1], place), product.y[1] * size

        def multiply(tile: Index, height: int, x: tuple[str, int, int], panel: Index, width: int,
                     y: tuple[str, int]) -> None:
            row = _start(w, tile, plan.height, product.rows, plan.overlap_rows)
            column = _start(w, panel, plan.width, product.columns, plan.overlap_columns)
            c = w.at(target, w.mul(w.add(w.mul(row, pitch), column), size))
            masked = width % plan.lanes
            name = kernel.tile(text, product.dtype, plan.lanes, height, -(-width // plan.lanes),
                               unit=plan.unit, masked=bool(masked), adding=blocks > 1)
            w.do(f"call void @{name}(ptr {x[0]}, ptr {y[0]}, ptr {c}, i64 {depth}, i64 {x[1]}, "
                 f"i64 {x[2]}, i64 {y[1]}, i64 {pitch * size}, i64 {masked}, i1 {add or 'false'})")

        if plan.strips:
            def strip(tile: Index, height: int) -> None:
                if plan.pack_x == "unit":
                    _tile_of_x(w, text, plan, batch, tile, first, depth, slot)
                x = locate_x(tile)
                all_panels(lambda panel, width: multiply(tile, height, x, panel, width,
                                                         locate_y(panel)))
                if epilogue is None:
                    return
                begin = w.mul(tile, plan.height)
                end = w.least(product.rows, w.add(begin, plan.height))
                if blocks == 1:
                    _finish(w, product, epilogue, batch, (begin, end), columns)
                else:
                    with w.when(w.set(f"icmp eq i64 {number}, {blocks - 1}")):
                        _finish(w, product, epilogue, batch, (begin, end), columns)

            all_tiles(strip)
        else:
            def column(panel: Index, width: int) -> None:
                y = locate_y(panel)
                all_tiles(lambda tile, height: multiply(tile, height, locate_x(tile), panel, width,
                                                        y))

            all_panels(column)


def _x(w: Text, plan: Plan, layout: _Layout, batch: Index, tile: Index, first: Index,
       slot: str) -> tuple[str, int, int]:
    """Where a tile of X begins, and its strides of r and of k in bytes."""
    product = plan.product
    size = BYTES[product.dtype]
    if plan.pack_x == "unit":
        return slot, size, plan.height * size
    if plan.pack_x:
        place = w.add(w.mul(first, plan.height * size), w.add(
            w.mul(batch, layout.x_batch if product.x[0] else 0), w.mul(tile, layout.x_tile)))
        return w.at("%scratch", place), size, plan.height * size
    row = _start(w, tile, plan.height, product.rows, plan.overlap_rows)
    place = w.add(w.mul(batch, product.x[0] * size), w.add(
        w.mul(first, product.x[2] * size), w.mul(row, product.x[1] * size)))
    return w.at(_operands(plan)[0], place), product.x[1] * size, product.x[2] * size


def _each(w: Text, numbers: tuple[Index, Index], whole: int, step: int, edge: int,
          inner: Callable[[Index, int], None]) -> None:
    """`inner` on tiles (panels) of `step`, of which there are `whole`, and a last one of `edge`."""
    if whole:
        stop = w.least(numbers[1], whole) if edge else numbers[1]
        with w.loop(numbers[0], stop) as number:
            inner(number, step)
    if edge and isinstance(numbers[1], int):
        inner(whole, edge)
    elif edge:
        with w.when(w.set(f"icmp sgt i64 {numbers[1]}, {whole}")):
            inner(whole, edge)


def _scatter(w: Text, text: dict[str, str], plan: Plan, block: str, c: str,
             rows: tuple[Index, Index], columns: tuple[Index, Index], pitch: int) -> None:
    """Store a block, computed with vectors along v, where C is contiguous along r."""
    product = plan.product
    size = BYTES[product.dtype]
    lanes = plan.lanes
    width = w.sub(columns[1], columns[0])
    if product.columns < PIECE // size:
        place = w.add(w.mul(rows[0], product.c[1]), w.mul(columns[0], product.c[2]))
        name = kernel.move(text, product.dtype)
        w.do(f"call void @{name}(ptr {block}, ptr {w.at(c, w.mul(place, size))}, "
             f"i64 {w.sub(rows[1], rows[0])}, i64 {width}, i64 {pitch * size}, i64 {size}, "
             f"i64 {product.c[1] * size}, i64 {product.c[2] * size})")
        return
    few = product.rows < lanes
    name = kernel.transpose(text, product.dtype, lanes, masked=few)
    last = 0 if few else w.sub(rows[1], lanes)
    with w.loop(rows[0], rows[1], lanes) as turn:
        row = w.least(turn, last)
        source = w.at(block, w.mul(w.sub(row, rows[0]), pitch * size))
        place = w.add(row, w.mul(columns[0], product.c[2]))
        w.do(f"call void @{name}(ptr {source}, ptr {w.at(c, w.mul(place, size))}, "
             f"i64 {min(lanes, product.rows)}, i64 {width}, i64 {pitch * size}, "
             f"i64 {product.c[2] * size})")


def _zero(w: Text, plan: Plan, c: str, rows: tuple[Index, Index],
          columns: tuple[Index, Index]) -> None:
    """The empty sum."""
    product = plan.product
    size = BYTES[product.dtype]
    with w.loop(*rows) as row:
        line = w.at(c, w.mul(row, product.c[1] * size))
        with w.loop(*columns) as column:
            place = w.at(line, w.mul(column, product.c[2] * size))
            w.do(f"store {product.dtype} 0x0000000000000000, ptr {place}, align {size}")
