"""How a matrix product is computed: orientation, tile, blocks and what is packed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from chainrule.compiler.products.tile import BYTES, PIECE

Strides = tuple[int, int, int]

# An operand of more bytes comes from memory each time it is read.
FAR = 1 << 22
LEVEL1 = 1 << 15
# A modest second cache, and what one way of a cache holds, in bytes.
LEVEL2 = 1 << 20
LEVEL2_WAY = 1 << 16
LEVEL1_WAY = 1 << 12
# A product is cut into this many units of work, or fewer of WORK operations, for threads to share.
UNITS = 6
WORK = 700_000
# A last tile overlaps the one before where that repeats at most this part of the work.
WASTE = 0.05
# Bytes of packed Y that a unit holds in the second cache.
GROUP = 3 << 18
# Terms of k that one pass over a block of C adds, at most about this many.
DEPTH = 640


class Product(NamedTuple):
    """C[b, r, v] = sum_k X[b, r, k] * Y[b, k, v]; vectors run along v. Strides in elements.

    `swapped`: X is the caller's B transposed, Y the caller's A transposed.
    """

    dtype: str
    batch: int
    rows: int
    columns: int
    depth: int
    x: Strides
    y: Strides
    c: Strides
    swapped: bool


class Plan(NamedTuple):
    """Choices for a Product.

    Tiles of `height` rows and panels of `vectors` vectors cover C; a last one that does not fit
    overlaps the one before (`overlap_rows`, `overlap_columns`) or has a kernel of its own. `block`
    is how many terms of k are added at a time. `row_blocks` x `column_blocks` units of work per
    batch item. `pack_x`: "", "unit" (by each unit, a tile at a time) or "phase" (before all units).
    `pack_y`: each unit packs its panels. `through`: C is contiguous along the rows, a block is
    stored transposed.
    """

    product: Product
    lanes: int
    height: int
    vectors: int
    overlap_rows: bool
    overlap_columns: bool
    block: int
    row_blocks: int
    column_blocks: int
    pack_x: str
    pack_y: bool
    through: bool

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors

    @property
    def tiles(self) -> int:
        return -(-self.product.rows // self.height)

    @property
    def panels(self) -> int:
        return -(-self.product.columns // self.width)

    @property
    def strips(self) -> bool:
        """Do all panels of a unit meet a tile before the next tile comes, or the other way?"""
        return _strips(self.product, self.vectors, bool(self.pack_x), self.pack_y)

    @property
    def unit(self) -> bool:
        """Does the kernel rely on it that neighbouring rows of X lie side by side?"""
        return self.vectors == 1 and (bool(self.pack_x) or self.product.x[1] == 1)


def _strips(product: Product, vectors: int, pack_x: bool, pack_y: bool) -> bool:
    # All of a small Y is near; then it is C that should be walked along its rows.
    small = product.depth * product.columns * BYTES[product.dtype] <= 1 << 15
    return pack_x or pack_y or vectors == 1 or small or product.rows <= 2


def choose(product: Product, lanes: int, registers: int, finish: bool) -> Plan:
    """The plan of least estimated time for one orientation."""
    least = PIECE // BYTES[product.dtype]
    while lanes > least and lanes // 2 >= product.columns:
        lanes //= 2
    best: tuple[float, Plan] | None = None
    for plan in _plans(product, lanes, registers, finish):
        estimate = cycles(plan)
        # A plan that comes later must earn it.
        if best is None or estimate < 0.97 * best[0]:
            best = estimate, plan
    assert best is not None
    return best[1]


def _plans(product: Product, lanes: int, registers: int, finish: bool) -> Iterator[Plan]:
    rows, columns = product.rows, product.columns
    size = BYTES[product.dtype]
    packings = [False]
    if product.y[2] != 1 and columns > 1:
        packings = [True]
    elif rows > 8 and strain(product.y[1] * size, product.depth, 4):
        packings = [False, True]
    for pack_x in (False, True):
        if pack_x and (rows == 1 or columns <= lanes):
            continue
        seen = set()
        broadcast = (pack_x or product.x[1] == 1) and lanes * size == 64
        for height, vectors in shapes(rows, registers, broadcast):
            tall, wide = min(height, rows), min(vectors, -(-columns // lanes))
            if (tall, wide) in seen:
                continue
            seen.add((tall, wide))
            for pack_y in packings:
                yield plan(product, lanes, tall, wide, pack_x, pack_y, finish)


def shapes(rows: int, registers: int, broadcast: bool) -> list[tuple[int, int]]:
    """Shapes of tiles, in rows and vectors, that fit the registers; the preferred ones first.

    `broadcast`: a multiplication can spread a number of X over the lanes, as it can in AVX-512
    where the address is simple. Then a product is one instruction, and one vector with many rows
    needs the fewest others.
    """
    if registers < 32:
        found = [(6, 2), (4, 3), (4, 2), (8, 1), (4, 1)]
    else:
        found = [(6, 4), (8, 3), (12, 2), (14, 2), (8, 2), (4, 4), (16, 1), (8, 1)]
        if broadcast:
            found = [(24, 1), (28, 1), *found]
    # As many rows as fit beside a row of Y and a number of X, dealt out evenly.
    for vectors in (1, 2, 3, 4, 5, 8):
        most = (registers - 1 - vectors) // vectors
        if most and (vectors > 1 or broadcast or rows < most) and (vectors < 8 or rows < 4):
            most = min(most, 28)
            found.append((-(-rows // -(-rows // most)), vectors))
    return found


def plan(product: Product, lanes: int, height: int, vectors: int, pack_x: bool, pack_y: bool,
         finish: bool, waste: float = WASTE) -> Plan:
    """The plan for a shape of tile: blocks that fit the caches."""
    size = BYTES[product.dtype]
    width = lanes * vectors
    rows, columns, depth = product.rows, product.columns, product.depth
    blocks = max(1, round(depth * size / (4 * DEPTH)))
    if rows <= 2 and not pack_y and columns * depth * size > LEVEL2 // 2:
        # Few rows read a large Y once: along its rows, which is how it lies in memory.
        blocks = -(-depth // 16)
    # Blocks of equal depth, so that none is short.
    block = max(1, -(-depth // blocks))
    tiles, panels = -(-rows // height), -(-columns // width)
    overlap_columns = (columns % width != 0 and panels > 1 and blocks == 1
                       and panels * width <= (1 + waste) * columns)

    through = product.c[2] != 1 and columns > 1
    strips = _strips(product, vectors, pack_x, pack_y)
    # An epilogue that follows each strip must not see its rows computed again.
    overlap_rows = (rows % height != 0 and tiles > 1 and tiles * height <= (1 + waste) * rows
                    and blocks == 1 and not (finish and strips))
    row_blocks = column_blocks = 1
    if strips:
        # The group of panels that meets one tile after another stays in the second cache.
        column_blocks = max(1, round(panels * block * width * size / GROUP))
    else:
        # C of a unit is read again by the epilogue.
        area = (64 if finish else 256) * 1024 // size
        tall = max(2, min(tiles, 256 // height))
        row_blocks = max(1, tiles // tall)
        column_blocks = max(1, panels // max(2, area // (min(tall, tiles) * height * width)))
    column_blocks = min(column_blocks, max(1, panels // 2))
    units = min(UNITS, 2 * rows * columns * depth * product.batch // WORK) if rows > 2 else 0
    while row_blocks * column_blocks * product.batch < units:
        slim = panels < 2 * (column_blocks + 1) or columns < 64 * (column_blocks + 1)
        short = tiles < 2 * (row_blocks + 1)
        # Every block of rows packs Y again, every block of columns reads X again.
        tall = rows >= 240 * (row_blocks + 1) and columns < 256 * (column_blocks + 1)
        if slim and short:
            break
        if slim or (not short and (tall or (not strips and column_blocks > row_blocks))):
            row_blocks += 1
        else:
            column_blocks += 1
    while through and row_blocks > 1 and (tiles // row_blocks - 1) * height < lanes:
        row_blocks -= 1
    way = "" if not pack_x else "unit" if column_blocks == 1 else "phase"
    return Plan(product, lanes, height, vectors, overlap_rows, overlap_columns, block, row_blocks,
                column_blocks, way, pack_y, through)


def strain(stride: int, count: int, lines: int) -> float:
    """Cycles that reading `lines` lines side by side costs more than it should.

    `count` such reads follow each other, `stride` bytes apart. They lie on many pages, do not fit
    the first or the second cache, or fall on few of its sets.
    """
    stride = abs(stride)
    if stride <= 64 * lines:
        return 0
    even = stride & -stride
    first = 8 * min(64, lines * (LEVEL1_WAY // min(LEVEL1_WAY, max(64, even))))
    extra = 0.25 * lines if count * lines > first else 0
    sets = LEVEL2_WAY // max(64, min(LEVEL2_WAY, even))
    if count * stride > LEVEL2:
        return extra + 6
    if stride >= 1024 and count > 8 * sets:
        return extra + 4
    return extra + (0.5 + 2.5 / lines if count * stride > LEVEL2 // 4 else 0)


def cycles(plan: Plan) -> float:
    """Estimated time on one core, for comparing plans of the same product."""
    product = plan.product
    rows, columns, depth = product.rows, product.columns, product.depth

    # Y is read again from the second cache where it does not fit the first.
    size = BYTES[product.dtype]
    near = plan.panels * plan.width // plan.column_blocks if plan.strips else plan.width
    far = near * plan.block * size > LEVEL1

    def tile(height: int, vectors: int) -> float:
        cells = height * vectors
        work = max(cells / 2, (height + vectors) / 2, 4)
        if far:
            work = max(work, vectors * plan.lanes * size / 28)
        # Instructions beside the multiplications share the core with another thread's.
        beside = vectors + 4.0 + (0 if plan.unit and vectors == 1 else height)
        beside += 0 if plan.unit else height / 3
        turns = depth * (work + 0.08 * max(0.0, beside - 0.2 * cells))
        return turns + (cells + 1.5 * height) * -(-depth // plan.block) + 25

    height, vectors = plan.height, plan.vectors
    full_tiles, edge_rows = divmod(rows, height)
    full_panels, edge_columns = divmod(columns, plan.width)
    if edge_rows and plan.overlap_rows:
        full_tiles, edge_rows = full_tiles + 1, 0
    if edge_columns and plan.overlap_columns:
        full_panels, edge_columns = full_panels + 1, 0
    edge_vectors = -(-edge_columns // plan.lanes)
    total = full_tiles * full_panels * tile(height, vectors)
    kernels = 1
    if edge_rows:
        total += full_panels * tile(edge_rows, vectors)
        kernels += 1
    if edge_vectors:
        total += full_tiles * tile(height, edge_vectors)
        kernels += 1
    if edge_rows and edge_vectors:
        total += tile(edge_rows, edge_vectors)
        kernels += 1
    total += _reading_x(plan) + _reading_y(plan)
    if plan.through:
        # A large block leaves the second cache between one block of k and the next.
        large = rows * columns // plan.column_blocks * size > LEVEL2 // 4
        each = 6 + (10 * -(-depth // plan.block) if large else 0)
        total += each * max(rows, plan.lanes) * -(-columns // plan.lanes) + 40
    # Each kernel of its own takes LLVM some milliseconds.
    return product.batch * total * (1 + 0.015 * (kernels - 1))


def _reading_x(plan: Plan) -> float:
    """Cycles that packing X takes, or that reading it where it lies takes too long."""
    product, height = plan.product, plan.height
    size = BYTES[product.dtype]
    rows, depth = product.rows, product.depth
    _, row, along = product.x
    if plan.pack_x:
        each = 4.0 if row == 1 else 5.0 if along == 1 else 2.0 * plan.lanes
        total = each * depth * plan.tiles * -(-height // plan.lanes) + 40 * plan.tiles
        if plan.pack_x == "phase":
            written = rows * depth * size
            far = 30 if written > FAR else 8 if written > LEVEL2 else 0
            total += 300 + far * rows * depth / plan.lanes
        # A packed tile is one stream, which the processor fetches ahead.
        return total + _far(rows * depth * size, plan.column_blocks) / 4
    total = _far(rows * depth * size, plan.column_blocks)
    if rows > 1 and row == 1:
        lines = 1 + (height * size + 32) // 64
        total += strain(along * size, depth, lines) * plan.panels * depth * plan.tiles
    elif rows > 1 and height > 8 and abs(row) * size % LEVEL1_WAY == 0:
        total += 0.2 * plan.panels * depth * rows
    return total


def _reading_y(plan: Plan) -> float:
    """The same for Y."""
    product = plan.product
    size = BYTES[product.dtype]
    columns, depth = product.columns, product.depth
    _, along, column = product.y
    total = _far(columns * depth * size, plan.row_blocks)
    if plan.pack_y:
        each = 2.5 if column == 1 else 3.5 if along == 1 else 2.0 * plan.lanes
        vectors = -(-columns // plan.lanes)
        return total + plan.row_blocks * (each * depth * vectors + 30 * plan.panels)
    lines = max(1, plan.width * size // 64)
    return total + strain(along * size, depth, lines) * plan.panels * depth * plan.tiles


def _far(count: int, times: int) -> float:
    """Cycles that reading so many bytes takes longer because no second cache holds them."""
    return (8 if count > FAR else 6 if count > LEVEL2 else 0) * count / 64 * times
