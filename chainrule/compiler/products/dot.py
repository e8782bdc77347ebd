"""Products of few rows or few columns whose operands both run along k: dots, with vectors along k.

Such a product reads a long operand once. Packing it for the kernels of `contract_kernel.py` would
cost more than the product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from chainrule.compiler.products.plan import Product
from chainrule.compiler.products.text import Index, Text
from chainrule.compiler.products.tile import (
    BYTES,
    SUFFIX,
    declare,
    declare_masked,
    lane_mask,
)

FEW = 4
ROWS = 8  # of the long operand, side by side
CHAINS = 8  # sums that are independent of each other hide how long an addition takes
UNIT = 1 << 17  # bytes of the long operand that a unit of work reads


def suits(product: Product, lanes: int) -> bool:
    """Are dots the way? `product` has its few rows or columns along v."""
    return (product.columns <= FEW and product.x[2] == 1 and product.y[1] == 1
            and product.depth >= lanes)


def units(product: Product) -> int:
    """Units of work of one batch item."""
    rows = max(ROWS, UNIT // (product.depth * BYTES[product.dtype]) // ROWS * ROWS)
    return -(-product.rows // rows)


def blocks(w: Text, text: dict[str, str], product: Product, lanes: int, unit: Index,
           finish: Callable[[Index, tuple[Index, Index], tuple[Index, Index]], None]) -> None:
    """Write what a unit does; `finish` is called with its batch item, rows and columns."""
    size = BYTES[product.dtype]
    x, y = ("%b", "%a") if product.swapped else ("%a", "%b")
    batch, block = w.split(unit, units(product))
    step = max(ROWS, UNIT // (product.depth * size) // ROWS * ROWS)
    begin = w.mul(block, step)
    end = w.least(product.rows, w.add(begin, step))
    few = w.at(y, w.mul(batch, product.y[0] * size))
    if product.rows >= ROWS:
        last = w.sub(end, ROWS - 1)
        with w.loop(begin, last, ROWS) as row:
            _call(w, text, product, lanes, ROWS, batch, row, x, few)
        count = w.sub(end, begin)
        begin_rest = w.add(begin, w.mul(w.div(count, ROWS), ROWS))
    else:
        begin_rest = begin
    with w.loop(begin_rest, end) as row:
        _call(w, text, product, lanes, 1, batch, row, x, few)
    finish(batch, (begin, end), (0, product.columns))


def _call(w: Text, text: dict[str, str], product: Product, lanes: int, rows: int, batch: Index,
          row: Index, x: str, few: str) -> None:
    size = BYTES[product.dtype]
    name = f"chainrule_dot_{SUFFIX[product.dtype]}x{lanes}_{rows}x{product.columns}"
    if name not in text:
        text.update(_kernel(name, product.dtype, lanes, rows, product.columns))
    source = w.at(x, w.mul(w.add(w.mul(batch, product.x[0]), w.mul(row, product.x[1])), size))
    target = w.at("%c", w.mul(w.add(w.mul(batch, product.c[0]), w.mul(row, product.c[1])), size))
    w.do(f"call void @{name}(ptr {source}, ptr {few}, ptr {target}, i64 {product.depth}, "
         f"i64 {product.x[1] * size}, i64 {product.y[2] * size}, i64 {product.c[1] * size}, "
         f"i64 {product.c[2] * size})")


@cache
def _kernel(name: str, dtype: str, lanes: int, rows: int, columns: int) -> dict[str, str]:
    """`void dot(ptr x, ptr y, ptr c, i64 k, i64 xr, i64 yc, i64 cr, i64 cc)`: strides in bytes.

    Element (r, v) of c is the dot of row r of x and row v of y, of k >= 1 elements. A sum goes in
    `chains` parts of `lanes` lanes, which are added in pairs at the end.
    """
    text: dict[str, str] = {}
    vector = f"<{lanes} x {dtype}>"
    size = BYTES[dtype]
    chains = max(1, CHAINS // (rows * columns))
    step = chains * lanes
    cells = [(r, v) for r in range(rows) for v in range(columns)]
    w = Text()
    x, y = ["%x"], ["%y"]
    for _ in range(rows - 1):
        x.append(w.at(x[-1], "%xr"))
    for _ in range(columns - 1):
        y.append(w.at(y[-1], "%yc"))
    whole = w.mul(w.div("%k", step), step)
    w.do("br label %many")

    # Whole steps.
    w.label("many")
    w.do("%i = phi i64 [ 0, %entry ], [ %i.next, %many.body ]")
    for r, v in cells:
        for chain in range(chains):
            w.do(f"%s{r}.{v}.{chain} = phi {vector} [ zeroinitializer, %entry ], "
                 f"[ %t{r}.{v}.{chain}, %many.body ]")
    w.do(f"%i.more = icmp slt i64 %i, {whole}")
    w.do("br i1 %i.more, label %many.body, label %rest")
    w.label("many.body")
    for chain in range(chains):
        offset = w.mul(w.add("%i", chain * lanes), size)
        left = [w.set(f"load {vector}, ptr {w.at(p, offset)}, align {size}") for p in x]
        right = [w.set(f"load {vector}, ptr {w.at(p, offset)}, align {size}") for p in y]
        for r, v in cells:
            w.do(f"%t{r}.{v}.{chain} = call {vector} @llvm.fma.v{lanes}{SUFFIX[dtype]}("
                 f"{vector} {left[r]}, {vector} {right[v]}, {vector} %s{r}.{v}.{chain})")
    w.do(f"%i.next = add i64 %i, {step}")
    w.do("br label %many")

    # Vectors that are left, the last one of them perhaps in part.
    w.label("rest")
    w.do("%j = phi i64 [ %i, %many ], [ %j.next, %rest.body ]")
    for r, v in cells:
        w.do(f"%u{r}.{v} = phi {vector} [ %s{r}.{v}.0, %many ], [ %v{r}.{v}, %rest.body ]")
    w.do("%j.more = icmp slt i64 %j, %k")
    w.do("br i1 %j.more, label %rest.body, label %end")
    w.label("rest.body")
    mask = lane_mask(w, lanes, str(w.sub("%k", "%j")))
    offset = w.mul("%j", size)

    def load(pointer: str) -> str:
        return w.set(f"call {vector} @llvm.masked.load.v{lanes}{SUFFIX[dtype]}.p0(ptr align {size} "
                     f"{w.at(pointer, offset)}, <{lanes} x i1> {mask}, {vector} zeroinitializer)")

    left, right = [load(p) for p in x], [load(p) for p in y]
    for r, v in cells:
        w.do(f"%v{r}.{v} = call {vector} @llvm.fma.v{lanes}{SUFFIX[dtype]}({vector} {left[r]}, "
             f"{vector} {right[v]}, {vector} %u{r}.{v})")
    w.do(f"%j.next = add i64 %j, {lanes}")
    w.do("br label %rest")

    w.label("end")
    row = "%c"
    for r in range(rows):
        place = row
        for v in range(columns):
            parts = [f"%u{r}.{v}", *(f"%s{r}.{v}.{chain}" for chain in range(1, chains))]
            while len(parts) > 1:
                pairs = zip(parts[::2], parts[1::2], strict=False)
                odd = parts[-1:] if len(parts) % 2 else []
                parts = [w.set(f"fadd {vector} {one}, {other}") for one, other in pairs] + odd
            total = _across(w, dtype, lanes, parts[0])
            w.do(f"store {dtype} {total}, ptr {place}, align {size}")
            place = w.at(place, "%cc") if v + 1 < columns else place
        row = w.at(row, "%cr") if r + 1 < rows else row
    declare(text, f"{vector} @llvm.fma.v{lanes}{SUFFIX[dtype]}({vector}, {vector}, {vector})")
    declare_masked(text, dtype, lanes)
    text[name] = w.function(
        f"internal void @{name}(ptr noalias %x, ptr noalias %y, ptr noalias %c, i64 %k, i64 %xr, "
        "i64 %yc, i64 %cr, i64 %cc) nounwind")
    return text


def _across(w: Text, dtype: str, lanes: int, value: str) -> str:
    """The sum of all lanes, halves added to halves."""
    while lanes > 1:
        half = lanes // 2
        kind = f"<{lanes} x {dtype}>"
        low, high = (
            w.set(f"shufflevector {kind} {value}, {kind} poison, <{half} x i32> <"
                  + ", ".join(f"i32 {lane}" for lane in range(start, start + half)) + ">")
            for start in (0, half))
        value = w.set(f"fadd <{half} x {dtype}> {low}, {high}")
        lanes = half
    return w.set(f"extractelement <1 x {dtype}> {value}, i64 0")
