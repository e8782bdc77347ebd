"""Generated matrix products against NumPy's BLAS, on one thread of this machine.

    python benchmarks/matmul.py                   every table
    python benchmarks/matmul.py --only networks   one of: small, square, odd, large, networks
    python benchmarks/matmul.py --markdown        the tables as the documentation shows them
    python benchmarks/matmul.py --json            the same, for programs

Each product is checked against NumPy's before it is timed. Then short runs of both alternate, so
that a busy neighbour disturbs both alike; a row shows medians of the processor time of this thread.
Both write into memory that is there already. NumPy is called from Python, as a program calls it;
the generated code is called by native code, as a compiled step does.
"""

import os

# Before NumPy loads.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import ctypes
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.machine import build
from chainrule.compiler.products.contract import Contraction, Program, contraction

SECONDS = 4e-4  # of a run, and at least one product
ROUNDS = 25
FEWEST_ROUNDS = 5
ROW_SECONDS = 3.0  # for the rounds of one row
TOLERANCE = 1e-5


class Product(NamedTuple):
    """C[m, n] = A[m, k] @ B[k, n]; a letter of `turned` names an operand stored transposed."""

    m: int
    n: int
    k: int
    turned: str = ""

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k


class Row(NamedTuple):
    """What was measured: seconds of a product."""

    product: Product
    generated: float
    numpy: float
    ratio: float  # median over the rounds of NumPy's time / generated


def squares(*sizes: int) -> list[Product]:
    return [Product(size, size, size, turned) for size in sizes for turned in ("", "B", "A", "AB")]


def layers(batch: int, *widths: int) -> list[Product]:
    """Forward, gradient of the input and gradient of the weight of each linear layer."""
    products = []
    for number, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        products.append(Product(batch, narrow, wide, "B"))
        if number:
            products.append(Product(batch, wide, narrow))
        products.append(Product(narrow, wide, batch, "A"))
    return products


TABLES = {
    "small": squares(16, 24, 32, 48, 64, 96),
    "odd": squares(17, 31, 63, 65, 100, 127, 129, 200, 255, 300, 511, 1000, 1025),
    "square": squares(128, 256, 384, 512, 768, 1024),
    "large": squares(2048),
    "networks": [
        *layers(4, 2, 16, 1), *layers(32, 64, 64, 10), *layers(64, 784, 256, 256, 10),
        *layers(512, 784, 256, 256, 10), *layers(256, 2048, 4096, 4096, 1000)],
}


def operand(rng: np.random.Generator, rows: int, columns: int, turned: bool) -> Any:
    shape = (columns, rows) if turned else (rows, columns)
    stored = rng.standard_normal(shape).astype(np.float32)
    return stored.T if turned else stored


def strides(array: Any) -> tuple[int, int, int]:
    first, second = (step // array.itemsize for step in array.strides)
    return 0, first, second


def repeating(program: Program) -> str:
    """A function that runs all phases `times` times: what a step pays, without Python."""
    calls = "\n".join(
        f"  call void @{phase.name}(ptr %a, ptr %b, ptr %c, ptr %scratch, ptr null, i64 0, "
        f"i64 {phase.units})"
        for phase in program.phases
    )
    return f"""define void @repeat(i64 %times, ptr %a, ptr %b, ptr %c, ptr %scratch) {{
entry:
  br label %again
again:
  %left = phi i64 [ %times, %entry ], [ %fewer, %again ]
{calls}
  %fewer = add i64 %left, -1
  %done = icmp eq i64 %fewer, 0
  br i1 %done, label %end, label %again
end:
  ret void
}}
"""


def contenders(product: Product) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """Functions that compute the product so many times: generated, NumPy's."""
    rng = np.random.default_rng(0)
    a = operand(rng, product.m, product.k, "A" in product.turned)
    b = operand(rng, product.k, product.n, "B" in product.turned)
    ours, theirs = (np.empty((product.m, product.n), np.float32) for _ in range(2))
    machine = build.target()
    program = contraction(
        Contraction("float", 1, product.m, product.n, product.k, strides(a), strides(b),
                    strides(ours)),
        lanes=machine.lanes, registers=machine.registers)
    library = build.load("\n".join([*program.text.values(), repeating(program)]))
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 4)(
        library.address("repeat"))
    memory = np.zeros(program.scratch + 64, np.uint8)
    scratch = memory.ctypes.data + -memory.ctypes.data % 64

    def generated(times: int) -> None:
        function(times, a.ctypes.data, b.ctypes.data, ours.ctypes.data, scratch)

    def numpy(times: int) -> None:
        for _ in range(times):
            np.matmul(a, b, out=theirs)

    generated.keep = library, memory  # type: ignore[attr-defined]
    generated(1)
    numpy(1)
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not error <= TOLERANCE:
        raise SystemExit(f"{product}: the products differ by {error:.1e}; timing them says nothing")
    return generated, numpy


def timed(job: Callable[[int], None], times: int) -> float:
    start = time.thread_time()
    job(times)
    return (time.thread_time() - start) / times


def repetitions(job: Callable[[int], None]) -> int:
    """How many times make a run of SECONDS."""
    times = 1
    while timed(job, times) * times < SECONDS:
        times *= 2
    return times


def measure(product: Product) -> Row:
    generated, numpy = contenders(product)
    enough = [repetitions(job) for job in (generated, numpy)]
    once = sum(times * timed(job, times) for job, times in
               zip((generated, numpy), enough, strict=True))
    rounds = max(FEWEST_ROUNDS, min(ROUNDS, int(ROW_SECONDS / once)))
    pairs = [(timed(generated, enough[0]), timed(numpy, enough[1])) for _ in range(rounds)]
    ratio = statistics.median(theirs / max(ours, 1e-9) for ours, theirs in pairs)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(product, ours, theirs, ratio)


def line(row: Row, separator: str) -> str:
    product = row.product
    cells = [
        f"{product.m}x{product.n}x{product.k}".ljust(16), (product.turned or "-").ljust(6),
        f"{row.generated * 1e6:10.2f}", f"{product.flops / max(row.generated, 1e-9) / 1e9:7.1f}",
        f"{product.flops / max(row.numpy, 1e-9) / 1e9:7.1f}", f"{row.ratio:6.2f}",
        "slower" if row.ratio < 1 else ""]
    return separator.join(cells)


HEADINGS = ("m x n x k", "turned", "us", "GFLOP/s", "NumPy", "times", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=TABLES, help="one table")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true")
    form.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    everything: dict[str, list[dict[str, Any]]] = {}
    for name in [arguments.only] if arguments.only else TABLES:
        if not arguments.json:
            print(f"\n{name}: the generated product is `times` as fast as NumPy {np.__version__}\n")
            print(" | ".join(HEADINGS))
            if arguments.markdown:
                print("|".join("---" for _ in HEADINGS))
        rows = []
        for product in TABLES[name]:
            rows.append(measure(product))
            if not arguments.json:
                print(line(rows[-1], " | " if arguments.markdown else "  "), flush=True)
        everything[name] = [{**row.product._asdict(), **row._asdict(), "product": None}
                            for row in rows]
        if not arguments.json:
            worst = min(rows, key=lambda row: row.ratio)
            print(f"\nslowest against NumPy: {worst.ratio:.2f}; median "
                  f"{statistics.median(row.ratio for row in rows):.2f}; "
                  f"slower in {sum(row.ratio < 1 for row in rows)} of {len(rows)} rows")
    if arguments.json:
        json.dump(everything, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
