"""How a kernel reaches its arrays: addresses that follow the loops, loads, stores, indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainrule.compiler.arrays.arrays import Array
from chainrule.compiler.arrays.index import Affine
from chainrule.compiler.kernels.kernel import Kernel, Load, Picked, Store
from chainrule.compiler.kernels.nest import Nest
from chainrule.compiler.lanes.registers import MEMORY, Lane, Registers, vector
from chainrule.core.types import bool_, int64


def homes_of(kernel: Kernel) -> list[Array]:
    """The arrays a kernel is given, in the order it is given them."""
    found = [s.home for s in kernel.stores]
    found += [p.home for p in kernel.points if isinstance(p, (Load, Picked))]
    return list(dict.fromkeys(found))


class Access:
    """Memory as one function sees it. `indices` are those of the open loops, `mask` that of the
    lanes in a tail; `pointers` are as far as the open loops decide them."""

    def __init__(self, kernel: Kernel, nest: Nest, e: Registers) -> None:
        self.kernel = kernel
        self.nest = nest
        self.e = e
        self.slots = homes_of(kernel)
        self.indices: list[str] = []
        self.mask: str | None = None
        self.pointers: dict[tuple[int, Affine], str] = {}
        self.buffers: dict[tuple[int, Affine, str], str] = {}   # of tiles, by place and direction
        self.offset = ""                                  # where this turn's lanes stand in them
        self.block = "entry"
        self.labels = 0
        self.checks = False

    def label(self, hint: str) -> str:
        self.labels += 1
        return f"{hint}{self.labels}"

    def begin(self, label: str) -> None:
        """A block of this name begins."""
        self.e.do(f"{label}:")
        self.block = label

    def all_places(self) -> list[tuple[Array, Affine]]:
        """Each place that is stored to or read from, once."""
        found = [(s.home, s.place) for s in self.kernel.stores]
        found += [(p.home, p.place) for p in self.kernel.points if isinstance(p, (Load, Picked))]
        return list(dict.fromkeys(found))

    def _slot(self, home: Array) -> int:
        return next(i for i, s in enumerate(self.slots) if s is home)

    def extend(self, place: tuple[Array, Affine], depth: int) -> None:
        """The address of a place as far as the first `depth` loops decide it."""
        home, affine = place
        key = (home.number, affine)
        scalar = MEMORY[home.dtype]
        e = self.e
        if depth == 0:
            slot = f"%slot{self._slot(home)}"
            self.pointers[key] = slot if not affine.start else e.emit(
                f"getelementptr {scalar}, ptr {slot}, i64 {affine.start}")
            return
        step = self.nest.steps(affine)[depth - 1]
        index = self.indices[depth - 1]
        if step and index != "0":
            offset = index if step == 1 else e.emit(f"mul i64 {index}, {step}")
            self.pointers[key] = e.emit(
                f"getelementptr {scalar}, ptr {self.pointers[key]}, i64 {offset}")

    def lane_step(self, affine: Affine) -> int:
        return self.nest.steps(affine)[self.nest.vector] if self.nest.vector >= 0 else 0

    def counting(self, step: int = 1) -> str:
        inner = ", ".join(f"i64 {i * step}" for i in range(self.nest.lanes))
        return f"<{inner}>"

    def _all(self) -> str:
        return self.mask or "splat (i1 true)"

    def load(self, home: Array, pointer: str, step: int) -> Lane:
        e, lanes, dtype = self.e, self.nest.lanes, home.dtype
        scalar, size = MEMORY[dtype], dtype.itemsize
        name = e.fresh("x")
        if step == 0:
            e.do(f"{name} = load {scalar}, ptr {pointer}, align {size}")
            count = 1
        elif step in (-1, 1):
            whole, mask = vector(scalar, lanes), self.mask
            if step == -1:
                pointer = e.emit(f"getelementptr {scalar}, ptr {pointer}, i64 {1 - lanes}")
                mask = mask and self.backwards("i1", mask)
            if mask is None:
                e.do(f"{name} = load {whole}, ptr {pointer}, align {size}")
            else:
                suffix = f"v{lanes}{_suffix(scalar)}"
                load = e.declare(f"llvm.masked.load.{suffix}.p0", whole, "ptr",
                                 f"<{lanes} x i1>", whole)
                e.do(f"{name} = call {whole} {load}(ptr align {size} {pointer}, "
                     f"<{lanes} x i1> {mask}, {whole} zeroinitializer)")
            name = name if step == 1 else self.backwards(scalar, name)
            count = lanes
        else:
            e.do(self._gather(name, dtype, pointer, self.counting(step)))
            count = lanes
        if dtype == bool_:
            kind = vector(scalar, count)
            zero = "0" if count == 1 else "zeroinitializer"
            name = e.emit(f"icmp ne {kind} {name}, {zero}")
        return Lane(e, name, dtype, count)

    def backwards(self, scalar: str, name: str) -> str:
        """The lanes of a value in reverse."""
        lanes = self.nest.lanes
        order = ", ".join([f"i32 {i}" for i in reversed(range(lanes))])
        return self.e.emit(f"shufflevector <{lanes} x {scalar}> {name}, <{lanes} x {scalar}> "
                           f"poison, <{lanes} x i32> <{order}>")

    def _gather(self, name: str, dtype: np.dtype[np.generic], pointer: str, offsets: str) -> str:
        e, lanes = self.e, self.nest.lanes
        scalar = MEMORY[dtype]
        whole = vector(scalar, lanes)
        places = e.emit(f"getelementptr {scalar}, ptr {pointer}, <{lanes} x i64> {offsets}")
        gather = e.declare(f"llvm.masked.gather.v{lanes}{_suffix(scalar)}.v{lanes}p0", whole,
                           f"<{lanes} x ptr>", f"<{lanes} x i1>", whole)
        return (f"{name} = call {whole} {gather}(<{lanes} x ptr> align {dtype.itemsize} {places}, "
                f"<{lanes} x i1> {self._all()}, {whole} zeroinitializer)")

    def whole(self, home: Array, place: Affine) -> Lane:
        """The element at a place, as the loops and tiles decide it."""
        buffer = self.buffers.get((home.number, place, "load"))
        if buffer is None:
            return self.load(home, self.pointers[home.number, place], self.lane_step(place))
        mask, self.mask = self.mask, None
        value = self.load(home, self.e.emit(f"getelementptr {MEMORY[home.dtype]}, ptr {buffer}, "
                                            f"i64 {self.offset}"), 1)
        self.mask = mask
        return value

    def count(self, affine: Affine) -> Lane:
        e = self.e
        total = Lane(e, str(affine.start), int64, 1)
        for depth, step in enumerate(self.nest.steps(affine)):
            if not step:
                continue
            index = Lane(e, self.indices[depth], int64, 1)
            total = index * step + total
            if depth == self.nest.vector:
                total = total + Lane(e, self.counting(step), int64, self.nest.lanes)
        return total

    def picked(self, p: Picked, values: dict[int, Lane]) -> Lane:
        """An element at computed indices; one out of range is noted and read at 0 instead."""
        e = self.e
        step = self.lane_step(p.place)
        offset, _ = self.computed(p.axes, p.negative, values)
        pointer = self.pointers[p.home.number, p.place]
        if offset.lanes == 1:
            pointer = e.emit(f"getelementptr {MEMORY[p.home.dtype]}, ptr {pointer}, "
                             f"i64 {offset.name}")
            return self.load(p.home, pointer, step)
        if step:
            offset = offset + Lane(e, self.counting(step), int64, self.nest.lanes)
        name = e.fresh("x")
        e.do(self._gather(name, p.home.dtype, pointer, offset.name))
        if p.home.dtype == bool_:
            name = e.emit(f"icmp ne <{self.nest.lanes} x i8> {name}, zeroinitializer")
        return Lane(e, name, p.home.dtype, self.nest.lanes)

    def computed(self, axes: Sequence[tuple[int, int, int, int]], negative: bool,
                 values: dict[int, Lane]) -> tuple[Lane, Lane]:
        """The offset of computed indices, and whether one of them is out of range."""
        e = self.e
        total: Lane | None = None
        stray: Lane | None = None
        for ordinal, (point, stride, size, _) in enumerate(axes):
            given = e.cast(values[point], int64)
            index = e.select(given < 0, given + size, given) if negative else given
            wrong = (index < 0) | (index >= size)
            if self.mask is not None and wrong.lanes > 1:
                wrong = Lane(e, e.emit(f"and {wrong.type} {wrong.name}, {self.mask}"), bool_,
                             wrong.lanes)
            self._note(wrong, given, ordinal)
            stray = wrong if stray is None else stray | wrong
            safe = e.select(wrong, e.const(0, int64), index)
            part = safe * stride
            total = part if total is None else total + part
        assert total is not None and stray is not None
        return total, stray

    def _note(self, wrong: Lane, given: Lane, ordinal: int) -> None:
        """Write down which index is out of range, if one is."""
        e = self.e
        self.checks = True
        any_ = wrong.name
        if wrong.lanes > 1:
            reduce = e.declare(f"llvm.vector.reduce.or.v{wrong.lanes}i1", "i1", wrong.type)
            any_ = e.emit(f"call i1 {reduce}({wrong!r})")
            given = e.spread(given)
        bad, good = self.label("bad"), self.label("good")
        e.do(f"br i1 {any_}, label %{bad}, label %{good}")
        self.begin(bad)
        value = e.fresh("x")
        if wrong.lanes > 1:
            shown = e.fresh("x")
            e.do(f"{shown} = select {wrong!r}, {given!r}, {given.type} zeroinitializer")
            lowest = e.declare(f"llvm.vector.reduce.smin.v{wrong.lanes}i64", "i64", given.type)
            highest = e.declare(f"llvm.vector.reduce.smax.v{wrong.lanes}i64", "i64", given.type)
            low, high, under = e.fresh("x"), e.fresh("x"), e.fresh("x")
            e.do(f"{low} = call i64 {lowest}({given.type} {shown})")
            e.do(f"{high} = call i64 {highest}({given.type} {shown})")
            e.do(f"{under} = icmp slt i64 {low}, 0")
            e.do(f"{value} = select i1 {under}, i64 {low}, i64 {high}")
        else:
            e.do(f"{value} = add i64 {given.name}, 0")
        e.do(f"store i64 {ordinal + 1}, ptr %slot.error, align 8")
        second = e.fresh("x")
        e.do(f"{second} = getelementptr i64, ptr %slot.error, i64 1")
        e.do(f"store i64 {value}, ptr {second}, align 8")
        e.do(f"br label %{good}")
        self.begin(good)

    def store(self, store: Store, value: Lane, pointer: str | None = None) -> None:
        e, home = self.e, store.home
        buffer = self.buffers.get((home.number, store.place, "store"))
        mask, step = self.mask, self.lane_step(store.place)
        if buffer is not None:
            mask, step = None, 1
            pointer = e.emit(f"getelementptr {MEMORY[home.dtype]}, ptr {buffer}, "
                             f"i64 {self.offset}")
        pointer = pointer or self.pointers[home.number, store.place]
        if store.add:
            value = self.load(home, pointer, step) + value
        lanes = self.nest.lanes if step else 1
        if lanes > 1:
            value = e.spread(value)
        scalar, size = MEMORY[home.dtype], home.dtype.itemsize
        kind, name = vector(scalar, lanes), value.name
        if home.dtype == bool_:
            name = e.emit(f"zext {value!r} to {kind}")
        if step == -1 and lanes > 1:
            name, step = self.backwards(scalar, name), 1
            mask = mask and self.backwards("i1", mask)
            pointer = e.emit(f"getelementptr {scalar}, ptr {pointer}, i64 {1 - lanes}")
        if lanes == 1 or (step == 1 and mask is None):
            e.do(f"store {kind} {name}, ptr {pointer}, align {size}")
        elif step == 1:
            store_ = e.declare(f"llvm.masked.store.v{lanes}{_suffix(scalar)}.p0", "void", kind,
                               "ptr", f"<{lanes} x i1>")
            e.do(f"call void {store_}({kind} {name}, ptr align {size} {pointer}, "
                 f"<{lanes} x i1> {mask})")
        else:
            places = e.emit(f"getelementptr {scalar}, ptr {pointer}, "
                            f"<{lanes} x i64> {self.counting(step)}")
            scatter = e.declare(f"llvm.masked.scatter.v{lanes}{_suffix(scalar)}.v{lanes}p0",
                                "void", kind, f"<{lanes} x ptr>", f"<{lanes} x i1>")
            e.do(f"call void {scatter}({kind} {name}, <{lanes} x ptr> align {size} {places}, "
                 f"<{lanes} x i1> {self._all()})")

    def scatter(self, store: Store, value: Lane, values: dict[int, Lane]) -> None:
        """One element, or one row of lanes, at a computed place; out of range, nothing changes."""
        e, kernel = self.e, self.kernel
        offset, stray = self.computed(kernel.what["axes"], kernel.what["negative"], values)
        pointer = e.emit(f"getelementptr {MEMORY[store.home.dtype]}, ptr "
                         f"{self.pointers[store.home.number, store.place]}, i64 {offset.name}")
        add = kernel.what["add"]
        if kernel.what["based"]:            # else it is new memory, which nobody sees then
            kept = e.const(0, value.dtype) if add else self.load(
                store.home, pointer, self.lane_step(store.place))
            value = e.select(stray, kept, value)
        self.store(store._replace(add=add), value, pointer)


def _suffix(scalar: str) -> str:
    return {"float": "f32", "double": "f64"}.get(scalar, scalar)
