"""Generated matrix products against NumPy in float64, and what their programs promise.

    python -m pytest tests/test_compiler_contract.py
"""

from __future__ import annotations

import ctypes
import itertools
import random
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from chainrule.compiler.machine import build
from chainrule.compiler.products.contract import Contraction, Program, contraction

Array = np.ndarray[Any, Any]

SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 200, 300)
# float32 lanes and registers: AVX-512, AVX2, and vectors of 128 bits with 32 and 16 registers.
MACHINES = ((16, 32), (8, 16), (4, 32), (4, 16))
GUARD = 4096  # bytes before and behind the scratch
MARK = 0xA5

PHASE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, ctypes.c_int64, ctypes.c_int64)
EPILOGUE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 5)


class Case(NamedTuple):
    """A product of arrays: sizes, which of A, B, C are stored transposed, elements between rows."""

    m: int
    n: int
    k: int
    transposed: tuple[bool, bool, bool] = (False, False, False)
    batch: int = 1
    gap: int = 0
    dtype: str = "float32"
    machine: tuple[int, int] = MACHINES[0]

    def stored(self, rng: np.random.Generator, which: int, rows: int, columns: int) -> Array:
        """A random operand; the memory around it can be reached through `base`."""
        turned = self.transposed[which]
        shape = (columns, rows) if turned else (rows, columns)
        whole = rng.standard_normal((self.batch, shape[0] + self.gap, shape[1] + self.gap))
        view = whole.astype(self.dtype)[:, : shape[0], : shape[1]]
        return view.swapaxes(1, 2) if turned else view

    def operands(self) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng(self.m * 7919 + self.n * 104729 + self.k)
        return (self.stored(rng, 0, self.m, self.k), self.stored(rng, 1, self.k, self.n),
                self.stored(rng, 2, self.m, self.n))


def root(array: Array) -> Array:
    """All the memory that `array` is a view of."""
    while array.base is not None:
        array = array.base
    return array


def strides(array: Array) -> tuple[int, int, int]:
    batch, first, second = (step // array.itemsize for step in array.strides)
    return batch, first, second


def specification(a: Array, b: Array, c: Array, *, finish: bool = False) -> Contraction:
    batch, m, n = c.shape
    scalar = {"float32": "float", "float64": "double"}[a.dtype.name]
    return Contraction(scalar, batch, m, n, a.shape[2], strides(a), strides(b), strides(c), finish)


def loaded(program: Program, **symbols: int) -> list[tuple[Callable[..., None], int]]:
    """The phases as callables, with their numbers of units. Keeps the code alive by the closure."""
    if not program.phases:
        return []
    library = build.load("\n".join(program.text.values()), symbols=symbols)
    phases: list[tuple[Callable[..., None], int]] = []
    for phase in program.phases:
        function = PHASE(library.address(phase.name))
        function.library = library  # type: ignore[attr-defined]
        phases.append((function, phase.units))
    return phases


def splits(units: int, seed: int | None) -> list[tuple[int, int]]:
    """Ranges that cover `units` once: all in one, or in random parts and order."""
    if seed is None:
        return [(0, units)]
    rng = random.Random(seed)
    cuts = sorted({0, units, *(rng.randrange(units + 1) for _ in range(4))})
    ranges = list(itertools.pairwise(cuts))
    rng.shuffle(ranges)
    return ranges


def run(program: Program, phases: list[tuple[Callable[..., None], int]], a: Array, b: Array,
        c: Array, seed: int | None = None) -> None:
    """Write the product into `c`; nothing around the scratch may change."""
    memory = np.full(program.scratch + 2 * GUARD + 64, MARK, np.uint8)
    start = GUARD + -(memory.ctypes.data + GUARD) % 64
    scratch = memory.ctypes.data + start
    for function, units in phases:
        for low, high in splits(units, seed):
            function(a.ctypes.data, b.ctypes.data, c.ctypes.data, scratch, None, low, high)
    assert (memory[:start] == MARK).all()
    assert (memory[start + program.scratch :] == MARK).all()


def check(case: Case) -> None:
    """The product is right and nothing around C was touched, for any split of the work."""
    a, b, c = case.operands()
    lanes, registers = case.machine
    program = contraction(specification(a, b, c), lanes=lanes, registers=registers)
    phases = loaded(program)
    around = root(c).copy()
    run(program, phases, a, b, c)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = (case.k + 1) * np.finfo(case.dtype).eps * (
        np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    assert c.shape == exact.shape
    wrong = np.abs(c - exact) > bound
    assert not wrong.any(), f"{case}: {np.argwhere(wrong)[:5].tolist()} of {wrong.sum()} are wrong"
    result = c.copy()
    c[...] = np.nan
    run(program, phases, a, b, c, seed=case.m + case.n)
    assert c.tobytes() == result.tobytes(), f"{case}: another split, other bits"
    c[...] = 0
    kept = np.lib.stride_tricks.as_strided(around, c.shape, c.strides)
    kept[...] = 0
    assert root(c).tobytes() == around.tobytes(), f"{case}: wrote beside C"


def sampled(count: int, seed: int) -> Iterator[Case]:
    rng = random.Random(seed)
    for _ in range(count):
        m, n, k = (rng.choice(SIZES) for _ in range(3))
        yield Case(
            m, n, k, (rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5),
            rng.choice((1, 1, 1, 3)), rng.choice((0, 0, 3)),
            rng.choice(("float32", "float32", "float64")), rng.choice((*MACHINES, MACHINES[0])))


@pytest.mark.parametrize("seed", range(8))
def test_against_numpy(seed: int) -> None:
    for case in sampled(16, seed):
        check(case)


TRANSPOSITIONS = [
    (left, right, out) for left in (False, True) for right in (False, True)
    for out in (False, True)
]


@pytest.mark.parametrize("transposed", TRANSPOSITIONS)
def test_transpositions(transposed: tuple[bool, bool, bool]) -> None:
    for m, n, k in ((16, 16, 16), (33, 65, 17), (1, 100, 64), (64, 1, 100), (70, 130, 40)):
        check(Case(m, n, k, transposed))


@pytest.mark.parametrize("transposed", TRANSPOSITIONS)
def test_many_blocks(transposed: tuple[bool, bool, bool]) -> None:
    """Sizes at which k is summed in blocks, operands are packed, and C has many units."""
    check(Case(150, 530, 2000, transposed, gap=1))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_machine(machine: tuple[int, int], dtype: str) -> None:
    check(Case(67, 300, 1500, (False, True, False), dtype=dtype, machine=machine))
    check(Case(300, 67, 80, (True, False, False), dtype=dtype, machine=machine))


def test_shapes_that_networks_have() -> None:
    for rows, wide, narrow in ((4, 2, 16), (32, 64, 10), (64, 256, 64), (512, 64, 10)):
        check(Case(rows, narrow, wide, (False, True, False)))
        check(Case(rows, wide, narrow))
        check(Case(narrow, wide, rows, (True, False, False)))


def test_nothing_to_do() -> None:
    for batch, m, n in ((0, 3, 3), (1, 0, 3), (1, 3, 0)):
        empty = Contraction("float", batch, m, n, 5, (15, 5, 1), (15, 3, 1), (9, 3, 1))
        assert contraction(empty) == Program({}, [], 0)


@pytest.mark.parametrize("transposed", TRANSPOSITIONS)
def test_an_empty_sum_is_zero(transposed: tuple[bool, bool, bool]) -> None:
    for m, n in ((1, 1), (5, 40), (100, 17)):
        check(Case(m, n, 0, transposed, gap=1, batch=2))


def test_any_strides() -> None:
    """Steps over every other element, backwards, and operands that are one number for all."""
    rng = np.random.default_rng(3)
    big = rng.standard_normal((2, 90, 90)).astype(np.float32)
    views = {
        "steps": big[:, ::2, ::3], "both ways": big[:, ::2, ::3].swapaxes(1, 2),
        "backwards": big[:, 40::-1, 35::-1], "one row": np.broadcast_to(big[:, :1], (2, 50, 90)),
        "one column": np.broadcast_to(big[:, :, :1], (2, 90, 50)),
        "one matrix": np.broadcast_to(big[:1, :40, :40], (2, 40, 40)),
    }
    for one, a in views.items():
        for other, whole in views.items():
            k = min(a.shape[2], whole.shape[1])
            a, b = a[:, :, :k], whole[:, :k]
            c = np.empty((2, a.shape[1], b.shape[2]), np.float32)
            program = contraction(specification(a, b, c))
            run(program, loaded(program), a, b, c)
            exact = a.astype(np.float64) @ b.astype(np.float64)
            bound = (k + 1) * 1.2e-7 * (np.abs(a).astype(np.float64) @ np.abs(b))
            assert (np.abs(c - exact) <= bound).all(), f"{one} @ {other}"


def test_special_numbers_stay_where_they_belong() -> None:
    """An infinity or NaN of one row reaches no other; what fills packed edges reaches nothing."""
    for m, n, k in ((37, 53, 29), (20, 70, 600)):
        for transposed in TRANSPOSITIONS:
            a, b, c = Case(m, n, k, transposed).operands()
            a[0, 3, 5], a[0, 7, 0], b[0, 2, 11] = np.inf, np.nan, -np.inf
            program = contraction(specification(a, b, c))
            run(program, loaded(program), a, b, c)
            expected = a.astype(np.float64) @ b.astype(np.float64)
            assert np.array_equal(np.isnan(c), np.isnan(expected))
            assert np.array_equal(np.isposinf(c), np.isposinf(expected))
            assert np.array_equal(np.isneginf(c), np.isneginf(expected))


@pytest.mark.parametrize("transposed", TRANSPOSITIONS)
def test_the_epilogue_sees_each_element_once_and_final(
    transposed: tuple[bool, bool, bool],
) -> None:
    for shape in ((2, 4, 16, 2), (1, 1, 40, 30), (3, 65, 33, 17), (1, 300, 200, 100),
                  (1, 130, 500, 2000)):
        batch, m, n, k = shape
        a, b, c = Case(m, n, k, transposed, batch).operands()
        seen = np.zeros(c.shape, np.int64)
        expected = a.astype(np.float64) @ b.astype(np.float64)
        tolerance = (k + 1) * 1.2e-7 * (np.abs(a).astype(np.float64) @ np.abs(b))
        faults: list[Any] = []

        def finish(_: Any, item: int, i0: int, i1: int, j0: int, j1: int,
                   c: Array = c, seen: Array = seen, expected: Array = expected,
                   tolerance: Array = tolerance, faults: list[Any] = faults) -> None:
            block = np.s_[item, i0:i1, j0:j1]
            seen[block] += 1
            if not (np.abs(c[block] - expected[block]) <= tolerance[block]).all():
                faults.append((item, i0, i1, j0, j1))
            c[block] = 3.0  # what the epilogue stores must stay

        callback = EPILOGUE(finish)
        address = ctypes.cast(callback, ctypes.c_void_p).value
        program = contraction(specification(a, b, c, finish=True), epilogue="finished")
        program.text["finished"] = "declare void @finished(ptr, i64, i64, i64, i64, i64)\n"
        run(program, loaded(program, finished=address or 0), a, b, c, seed=1)
        assert (seen == 1).all(), shape
        assert not faults, shape
        assert (c == 3.0).all(), shape


def test_without_finish_no_epilogue_is_called() -> None:
    a, b, c = Case(20, 20, 20).operands()
    program = contraction(specification(a, b, c), epilogue="finished")
    assert "finished" not in "".join(program.text.values())


def test_threads_share_a_phase() -> None:
    """Two threads that take units at the same time write the bits that one writes."""
    a, b, c = Case(260, 400, 700, (False, True, False)).operands()
    program = contraction(specification(a, b, c))
    phases = loaded(program)
    run(program, phases, a, b, c)
    alone = c.copy()
    memory = np.full(program.scratch + 64, MARK, np.uint8)
    scratch = memory.ctypes.data + -memory.ctypes.data % 64
    for _ in range(5):
        c[...] = np.nan
        for function, units in phases:
            assert units > 1
            parts = [
                threading.Thread(target=function, args=(
                    a.ctypes.data, b.ctypes.data, c.ctypes.data, scratch, None, low, high))
                for low, high in ((0, units // 2), (units // 2, units))]
            for part in parts:
                part.start()
            for part in parts:
                part.join()
        assert c.tobytes() == alone.tobytes()


def test_products_of_a_program_share_their_kernels() -> None:
    """Layers of a network have the same kernels; an entry of one name is one text."""
    text: dict[str, str] = {}
    written = 0
    for wide, narrow in ((784, 256), (256, 256), (256, 10)):
        for spec in (
            Contraction("float", 1, 64, narrow, wide, (0, wide, 1), (0, 1, wide), (0, narrow, 1)),
            Contraction("float", 1, 64, wide, narrow, (0, narrow, 1), (0, wide, 1), (0, wide, 1)),
            Contraction("float", 1, narrow, wide, 64, (0, 1, narrow), (0, wide, 1), (0, wide, 1)),
        ):
            program = contraction(spec)
            assert all(text.get(name, entry) == entry for name, entry in program.text.items())
            assert not text.keys() & {phase.name for phase in program.phases}
            text.update(program.text)
            written += sum("_tile_" in name for name in program.text)
    assert sum("_tile_" in name for name in text) < 0.8 * written


def test_the_text_allows_no_reordering() -> None:
    """No flag lets LLVM change what is added first, and each symbol is what its entry defines."""
    for case in sampled(12, 99):
        a, b, c = case.operands()
        program = contraction(specification(a, b, c))
        for name, text in program.text.items():
            assert not re.search(r"\b(fast|reassoc|nnan|ninf)\b", text)
            assert f"@{name}" in text.splitlines()[0]
        assert program.scratch % 64 == 0
        work = sum(phase.flops for phase in program.phases)
        assert work == 2 * case.batch * case.m * case.n * case.k


def test_a_large_product_moves_little() -> None:
    """A big operand that is read once is not copied as a whole before."""
    wide = Contraction("float", 1, 256, 4096, 4096, (0, 4096, 1), (0, 1, 4096), (0, 4096, 1))
    assert contraction(wide).scratch < 4 * 4096 * 4096
