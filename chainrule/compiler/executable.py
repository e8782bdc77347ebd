"""`compile_graph`: all stages in order, and `Executable`, what comes out of them.

    graph → arrays → kernels → memory → text → machine code → table of calls
"""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler import verify
from chainrule.compiler.arrays.arrays import Array
from chainrule.compiler.arrays.index import flat, identity, strides_of
from chainrule.compiler.arrays.lower import lower
from chainrule.compiler.kernels import group, memory
from chainrule.compiler.kernels.kernel import Apply, Kernel, Picked, home_of
from chainrule.compiler.kernels.schedule import (
    Schedule,
    batch_stride,
    product_operand,
    product_operands,
    schedule,
)
from chainrule.compiler.lanes.registers import REGISTER
from chainrule.compiler.machine import build, entrance
from chainrule.compiler.machine.driver import PRODUCT, WORDS, code
from chainrule.compiler.products import contract
from chainrule.compiler.products import image as contract_image
from chainrule.compiler.products import window as contract_window
from chainrule.compiler.text.emit import Emitted, emit
from chainrule.compiler.workers import threads
from chainrule.core.config import settings
from chainrule.core.errors import IndexingError
from chainrule.core.graph import Graph

# A region of less work than this (in nanoseconds, by estimate) stays on one thread, and no chunk
# is much smaller.
PARALLEL_FROM = 30_000
CHUNK = 12_000
CHUNKS = 64

ONE = ctypes.c_int64(1)                  # the number of threads of what is small

class Call(NamedTuple):
    """One entry of the table: a function, the arrays it is given, and how its work is divided."""

    kernel: Kernel
    function: str
    slots: list[int]                # cells; -1 is the error cell
    units: int
    nanoseconds: float              # by estimate
    checks: bool
    flops: int
    bytes: int
    turns: int = 1                  # of its loop in a unit


class Executable:
    """A compiled graph. `cells` holds the addresses of inputs, then of outputs, then of the rest.

    `run` sets them from arrays; a caller in a hurry sets the cells itself and calls `go`.
    """

    def __init__(self, graph: Graph, written: Sequence[int | None]) -> None:
        self.graph = graph
        self.written = tuple(written)
        self.seconds: dict[str, float] = {}
        begun = time.perf_counter()
        self.arrays, outputs = lower(graph)
        show("arrays", lambda: "\n".join(map(repr, self.arrays.all)))
        self.schedule: Schedule = schedule(self.arrays.all, outputs, written)
        if settings.verify:
            verify.arrays(outputs)
            verify.kernels(self.schedule)
        self.outputs = outputs
        self.seconds["schedule"] = time.perf_counter() - begun
        for name, stage in (("emit", self._emit), ("memory", self._place), ("build", self._link)):
            begun = time.perf_counter()
            stage()
            self.seconds[name] = time.perf_counter() - begun

    # ------------------------------------------------------------ text

    def _emit(self) -> None:
        """The text of every kernel; what each one is given is still said by arrays."""
        self.texts: dict[str, str] = {}
        self.drafts: list[Any] = []                # what `Call` is made of, in its order
        self.scratch: list[int] = []
        self.python: dict[int, Kernel] = {}        # drafts that are NumPy calls
        kernels = []
        self.groups: dict[int, tuple[group.Group, list[int]]] = {}      # by the first draft
        joined = group.grouped([without_nothing(k) for k in self.schedule.kernels],
                               self.schedule.targets)
        self.times: list[int] = []                 # members of a group run at one time
        for time_, item in enumerate(joined):
            self.times += [time_] * (len(item.kernels) if isinstance(item, group.Group) else 1)
            if isinstance(item, group.Group):
                members = []
                for kernel in item.kernels:
                    members.append(len(self.drafts))
                    self._plain(kernel)
                    kernels.append(kernel)
                self.groups[members[0]] = (item, members)
                continue
            kernel = item
            if kernel.kind == "call":
                self.python[len(self.drafts)] = kernel
                self._draft(kernel, "", [], 1, 0.0, False, 0, 0)
                kernels.append(kernel)
                self.scratch.append(0)
            elif kernel.kind == "contract":
                before = len(self.drafts)
                self.scratch.append(self._product(kernel))
                kernels += [kernel]
                assert len(self.drafts) >= before
            else:
                self._plain(kernel)
                kernels.append(kernel)
        self.kernels = kernels
        show("kernels", self.kernels_text)
        show("llvm", lambda: "\n".join(self.texts.values()))

    def _plain(self, kernel: Kernel) -> None:
        """The text of a map, reduction, scatter or scan."""
        self.scratch.append(0)
        made = emit(kernel)
        self._add(made)
        flops, moved = effort(kernel)
        self._draft(kernel, made.name, [None, *made.slots], made.units,
                    max(moved / 8, flops / 24), made.checks, flops, moved, made.turns)

    def _draft(self, *what: Any) -> None:
        self.drafts.append(what)

    def _add(self, made: Emitted) -> None:
        self.texts[made.name] = made.text
        self.texts.update(made.declared)

    def _product(self, kernel: Kernel) -> int:
        """The phases of a matrix product; returns the bytes of scratch."""
        finish = None
        if kernel.finish is not None:
            finish = emit(kernel.finish, finish=True)
            self._add(finish)
        target = build.target()
        spec, (base_a, start_a), (base_b, start_b) = specification(kernel)
        plan = contract_window.program if isinstance(spec, contract_image.Spec) else planned
        program = plan(spec, target.lanes, finish.name if finish else None, target.registers)
        scalar = spec.dtype
        self.texts.update(program.text)
        slots: list[Any] = [None, home_of(base_a), home_of(base_b), home_of(kernel.array),
                            "scratch"]
        if finish is not None:
            slots += [None, *finish.slots]
        extra = effort(kernel.finish)[1] if kernel.finish is not None else 0
        for phase in program.phases:
            name = f"call_{phase.name}_{start_a}_{start_b}"
            self.texts[name] = PRODUCT.format(name=name, type=scalar, a=start_a, b=start_b,
                                              phase=phase.name)
            self._draft(kernel, name, slots, phase.units,
                        phase.flops / 60 + phase.bytes / 16 + (extra / 8 if phase.flops else 0),
                        finish is not None and finish.checks, phase.flops,
                        phase.bytes + (extra if phase.flops else 0))
        return program.scratch

    # ------------------------------------------------------------ memory

    def _place(self) -> None:
        """A cell for every array in memory; the arena's are filled now."""
        given: dict[int, int] = {}
        n_in, n_out = len(self.graph.inputs), len(self.outputs)
        self.constants: list[np.ndarray[Any, Any]] = []
        for x in self.arrays.all:
            if x.kind == "input":
                given[x.number] = x.what
            elif x.kind == "target":
                given[x.number] = x.what[1] if x.what[0] == "input" else n_in + x.what[1]
        for number, (kind, position) in self.schedule.targets.items():
            given[number] = position if kind == "input" else n_in + position
        cells = n_in + n_out
        fixed: list[tuple[int, int]] = []
        for x in self.arrays.all:
            if x.kind == "const" and x.number in self.schedule.at_home:
                array = np.asarray(x.what) if x.size else np.zeros(1, x.dtype)
                self.constants.append(array)
                given[x.number] = cells
                fixed.append((cells, array.ctypes.data))
                cells += 1
        self.memory = memory.plan(self.kernels, self.times, set(given), self.scratch)
        if settings.verify:
            memory.verify(self.memory)
        self.arena = np.zeros(self.memory.size + memory.ALIGN, np.uint8)
        base = -(-self.arena.ctypes.data // memory.ALIGN) * memory.ALIGN
        for number, place in self.memory.places.items():
            given[number] = cells
            fixed.append((cells, base + place.offset))
            cells += 1
        self.cell_of = given
        self.cells = (ctypes.c_int64 * max(cells, 1))()
        for cell, address in fixed:
            self.cells[cell] = address
        show("memory", lambda: f"arena of {self.memory.size} bytes for {self.memory.total}")

    # ------------------------------------------------------------ machine code

    def _link(self) -> None:
        """Machine code for the functions that this process does not have yet; then the table."""
        wanted = [draft[1] for draft in self.drafts if draft[1]]
        if self.groups:
            wanted.append(group.NAME)
            self.texts[group.NAME] = group.TEXT
        addresses, self.code = code.addresses(wanted, self.texts)
        self.error = (ctypes.c_int64 * 2)()
        error = ctypes.addressof(self.error)
        base = ctypes.addressof(self.cells)
        rows: list[list[int]] = []
        positions = {id(kernel): i for i, kernel in enumerate(self.kernels)}
        self.calls: list[Call] = []
        for kernel, function, slots, *rest in self.drafts:
            row = []
            cells = []
            for slot in slots:
                if slot is None:
                    row.append(error)
                    cells.append(-1)
                    continue
                key = -1 - positions[id(kernel)] if slot == "scratch" else slot.number
                cell = self.cell_of.get(key, 0)
                row.append(base + 8 * cell)
                cells.append(cell)
            rows.append(row)
            self.calls.append(Call(kernel, function, cells, *rest))
        self.slots = (ctypes.c_int64 * max(sum(map(len, rows)), 1))()
        starts = []
        at = 0
        for row in rows:
            starts.append(ctypes.addressof(self.slots) + 8 * at)
            self.slots[at:at + len(row)] = row  # type: ignore[assignment]
            at += len(row)
        self._records(addresses, starts)
        self.native = not self.python
        self.large = any(self.records[i + 3] for i in range(0, len(self.records), WORDS))
        self.arguments = (ctypes.addressof(self.records), error)
        self.enter = self._entrance() if self.native else None

    def _entrance(self) -> Any:
        """The fast way in, if there is one on this interpreter."""
        return entrance.entrance(self.way(), (self.cells, self.records, self.error))

    def gate(self, what: entrance.Gate) -> Any:
        """A callable that compares the words of `what` and runs; None where there is none."""
        return entrance.gate(self.way(), what, self) if self.native else None

    def way(self) -> entrance.Way:
        """What a way in has to know."""
        pool, limit = 0, ctypes.addressof(ONE)
        if self.large:
            the_pool = threads.the_pool()
            pool, limit = the_pool.parallel, ctypes.addressof(the_pool.limit)
        work = sum(call.nanoseconds for call in self.calls)
        return entrance.Way(
            ctypes.addressof(self.cells), len(self.graph.inputs), len(self.outputs), code.address,
            ctypes.addressof(self.records), len(self.records) // WORDS if self.calls else 0,
            ctypes.addressof(self.error), pool, limit,
            int(work > entrance.RELEASE_FROM))

    def _records(self, addresses: dict[str, int], starts: list[int]) -> None:
        """The table the driver runs through: a record for each call or group of calls."""
        records: list[list[int]] = []
        self.record_calls: list[list[int]] = []       # the calls behind each record
        self.segments: list[tuple[int, int, int | None]] = []
        self.members: list[Any] = []                  # kept: the groups' tables
        begin, i = 0, 0
        while i < len(self.calls):
            call = self.calls[i]
            if i in self.python:
                self.segments.append((begin, len(records), i))
                begin = len(records)
                i += 1
                continue
            if i in self.groups:
                found, numbers = self.groups[i]
                words = [len(numbers)]
                for n in numbers:
                    c = self.calls[n]
                    words += [addresses[c.function], starts[n],
                              group.units_of_block(found, c.units, c.turns), c.units]
                table = (ctypes.c_int64 * len(words))(*words)
                self.members.append(table)
                blocks = -(-found.rows // found.block)
                time_ = sum(self.calls[n].nanoseconds for n in numbers)
                checks = any(self.calls[n].checks for n in numbers)
                records.append([addresses[group.NAME], ctypes.addressof(table), blocks,
                                grain(time_, blocks), int(checks)])
                self.record_calls.append(numbers)
                i += len(numbers)
                continue
            records.append([addresses[call.function], starts[i], call.units,
                            grain(call.nanoseconds, call.units), int(call.checks)])
            self.record_calls.append([i])
            i += 1
        self.segments.append((begin, len(records), None))
        self.records = (ctypes.c_int64 * (WORDS * len(records)))()
        for i, record in enumerate(records):
            self.records[WORDS * i:WORDS * (i + 1)] = record  # type: ignore[assignment]

    # ------------------------------------------------------------ running

    def run(self, inputs: list[Any], outputs: list[Any]) -> None:
        """Compute: contiguous inputs are read (and overwritten where `written` says so), outputs
        are filled. An output that is written into an input needs no array (None will do)."""
        if self.enter is not None:
            status = self.enter(inputs, outputs)
            if status:
                self.complain(status - 1)
            return
        for i, array in enumerate(inputs):
            self.cells[i] = array.ctypes.data
        for k, array in enumerate(outputs):
            if array is not None:
                self.cells[len(inputs) + k] = array.ctypes.data
        self.go()

    def go(self) -> None:
        """Run on the arrays whose addresses are in `cells`."""
        pool, count = self._threads()
        records, error = self.arguments
        for first, last, python in self.segments:
            status = code.run(records, first, last, error, pool, count)
            if status:
                self.complain(status - 1)
            if python is not None:
                self._call(self.calls[python].kernel)

    def profile(self, cycles: Any) -> None:
        """As `go`, adding the cycles of each record to the array `cycles`."""
        pool, count = self._threads()
        records, error = self.arguments
        for first, last, python in self.segments:
            status = code.profile(records, first, last, error, pool, count, cycles)
            if status:
                self.complain(status - 1)
            if python is not None:
                self._call(self.calls[python].kernel)

    def _threads(self) -> tuple[int, int]:
        """The pool's function and the number of threads; the pool is made when it is needed."""
        if not self.large:
            return 0, 1
        count = threads.get_num_threads()
        return (threads.the_pool().parallel, count) if count > 1 else (0, 1)

    def _call(self, kernel: Kernel) -> None:
        """The row's NumPy evaluation on the arrays in memory."""
        prim, params = kernel.array.what
        xs = [self.array_of(x) if isinstance(x, Array) else x for x in kernel.array.inputs]
        self.array_of(kernel.array)[...] = prim.eval(*xs, **params)

    def array_of(self, x: Array) -> np.ndarray[Any, Any]:
        """The numbers of an array that is in memory."""
        if x.kind == "const" and not x.shape:
            return x.what  # type: ignore[no-any-return]
        address = self.cells[self.cell_of[home_of(x).number]]
        size = x.size * x.dtype.itemsize
        buffer = (ctypes.c_char * max(size, 1)).from_address(address)
        return np.frombuffer(buffer, x.dtype, x.size).reshape(x.shape)

    def complain(self, position: int) -> None:
        """The IndexError for the index that a kernel wrote down."""
        ordinal, value = self.error
        self.error[0] = 0
        kernels = [self.calls[i].kernel for i in self.record_calls[position]]
        for part in [k for kernel in kernels for k in (kernel, kernel.finish) if k is not None]:
            if part.kind == "scatter":
                _, _, size, axis = part.what["axes"][min(ordinal, len(part.what["axes"])) - 1]
                raise out_of_range(part.array, value, size, axis)
            for p in part.points:
                if isinstance(p, Picked):
                    for _, _, size, axis in p.axes:
                        if not -size <= value < size or (value < 0 and not p.negative):
                            raise out_of_range(self.arrays.all[p.origin], value, size, axis)
        raise IndexingError(f"index {value} is out of range")

    # ------------------------------------------------------------ what was made

    def kernels_text(self) -> str:
        return "\n".join(describe(k) for k in self.kernels)


def out_of_range(x: Array, value: int, size: int, axis: int) -> IndexingError:
    name = x.what[2] if x.kind == "pick" else x.what[3]
    place = f" at {x.origin.origin}" if x.origin is not None else ""
    return IndexingError(f"{name}: index {value} is out of range for axis {axis}, which has "
                         f"{size} elements{place}")


def compile_graph(graph: Graph, written: Sequence[int | None]) -> Executable:
    """An executable for the graph; output k is written into input `written[k]` if not None."""
    collecting = gc.isenabled()
    gc.disable()                        # nothing that is made here is garbage, and it is a lot
    try:
        return Executable(graph, written)
    finally:
        if collecting:
            gc.enable()


planned = lru_cache(1024)(contract.contraction)


def specification(kernel: Kernel) -> tuple[Any, tuple[Array, int], tuple[Array, int]]:
    """What a product has to compute, and where its operands begin."""
    array, finish = kernel.array, kernel.finish is not None
    scalar = REGISTER[array.dtype]
    a, b = array.inputs
    if array.what is not None:
        (base_a, start_a, image), (base_b, start_b, other) = [
            window(x, base) for x, base in zip((a, b), product_operands(array), strict=True)]
        return (contract_image.Spec(array.what, scalar, image, other, finish),
                (base_a, start_a), (base_b, start_b))
    *batch, m, n = array.shape
    (base_a, start_a, strides_a), (base_b, start_b, strides_b) = operand(a), operand(b)
    return (contract.Contraction(scalar, math.prod(batch), m, n, a.shape[-1], strides_a, strides_b,
                                 (m * n, n, 1), finish), (base_a, start_a), (base_b, start_b))


def window(x: Array, base: Array) -> tuple[Array, int, tuple[int, ...]]:
    """Where an operand of a convolution begins in `base`, and its strides."""
    if base is x:
        return x, 0, strides_of(x.shape)
    place = flat(x.what, base.shape, len(x.shape))
    return base, place.start, place.steps


def operand(x: Array) -> tuple[Array, int, tuple[int, int, int]]:
    """The array a product reads for x, where it begins, and its strides (batch, row, column)."""
    base = product_operand(x)
    if base is x or x.kind != "view":
        place = flat(identity(x.shape), x.shape, len(x.shape))
        base = x
    else:
        place = flat(x.what, base.shape, len(x.shape))
    batch = batch_stride(place.steps[:-2], x.shape[:-2])
    assert batch is not None
    return base, place.start, (batch, place.steps[-2], place.steps[-1])


def without_nothing(kernel: Kernel) -> Kernel:
    """A reduction over no elements as the map that stores what it starts from."""
    reduced = kernel.what.get("reduced", 0)
    if kernel.kind != "reduce" or 0 not in kernel.domain[len(kernel.domain) - reduced:]:
        return kernel
    x = kernel.array
    lowest = -np.inf if x.dtype.kind == "f" else 0
    start = {"sum": 0, "any": False, "all": True, "max": lowest, "min": -lowest}.get(
        kernel.what["op"], 0)
    empty = Kernel("map", x.shape, x)
    value = empty.evaluate(x.builder.const(start, x.dtype), (), set())
    empty.store(x, value)
    return empty


def effort(kernel: Kernel) -> tuple[int, int]:
    """(operations, bytes moved) of a kernel, by estimate."""
    from_points = sum([p.what.cost for p in kernel.points if isinstance(p, Apply)])
    moved = 0
    for home, place in kernel.loads():
        turns = kernel.size
        if place is not None:
            turns = 1
            for step, n in zip(place.steps, kernel.domain, strict=True):
                turns *= n if step else 1
        moved += turns * home.dtype.itemsize
    moved += sum(kernel.array.size * s.home.dtype.itemsize for s in kernel.stores)
    return from_points * kernel.size, moved


def grain(nanoseconds: float, units: int) -> int:
    """Units of a chunk, or 0 for work that stays on one thread."""
    if nanoseconds < PARALLEL_FROM or units < 2:
        return 0
    chunks = max(2, min(int(nanoseconds / CHUNK), CHUNKS, units))
    return -(-units // chunks)


def describe(kernel: Kernel) -> str:
    names = ", ".join(f"a{s.home.number}" for s in kernel.stores) or f"a{kernel.array.number}"
    text = f"{names} = {kernel.kind} {list(kernel.domain)}"
    reads = sorted({home.number for home, _ in kernel.loads()})
    text += f" of {', '.join(f'a{n}' for n in reads)}"
    done = [p.what.name for p in kernel.points if isinstance(p, Apply)]
    if "op" in kernel.what:
        done.append(kernel.what["op"])
    if done:
        text += f": {' '.join(done)}"
    if kernel.finish is not None:
        text += f"\n    finished by {describe(kernel.finish)}"
    return text


def show(channel: str, text: Any) -> None:
    """Print what a stage made if CHAINRULE_SHOW asks for it."""
    if channel in settings.show:
        sys.stderr.write(text() + "\n")
