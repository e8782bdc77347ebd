"""Kernels → LLVM functions, as text. A function knows sizes, but no addresses: equal kernels of
one program are one function.

    void @k(ptr %arrays, i64 %lo, i64 %hi)      units lo ... hi of the outermost loop
    void @f(ptr %arrays, i64 %item, i64 %top, i64 %bottom, i64 %left, i64 %right)   on a product

`arrays` points to cells that hold the addresses of the kernel's arrays, in the order of
`Emitted.slots`. Before them stands the address of two int64: the number of an index that is out of
range, and its value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.arrays.arrays import Array
from chainrule.compiler.arrays.index import Affine
from chainrule.compiler.kernels.kernel import (
    Apply,
    Constant,
    Count,
    Kernel,
    Load,
    Operand,
    Picked,
    Point,
    Store,
)
from chainrule.compiler.kernels.nest import Nest
from chainrule.compiler.lanes.registers import MEMORY, Lane, Registers
from chainrule.compiler.machine import build
from chainrule.compiler.text import tiles
from chainrule.compiler.text.access import Access, homes_of
from chainrule.compiler.text.reduction import across, starts, turn
from chainrule.core.types import int64


class Emitted(NamedTuple):
    """A function: its name, text, the arrays it is given, and how its work can be divided."""

    name: str
    text: str
    declared: dict[str, str]
    slots: list[Array]
    units: int
    turns: int                # of the outermost loop in a unit
    checks: bool


def emit(kernel: Kernel, finish: bool = False) -> Emitted:
    """The function of a map, reduce, scatter or scan kernel; `finish`: of the map on a block."""
    homes, key = signature(kernel, finish)
    found = _written.get(key)
    if found is None:
        if len(_written) > 4096:
            _written.clear()
        found = Function(kernel, finish).emitted()
        _written[key] = found._replace(slots=[])
        return found
    return found._replace(slots=homes)


# Functions that were written before, by what they do: a deep network has many equal layers.
_written: dict[object, Emitted] = {}


def signature(kernel: Kernel, finish: bool) -> tuple[list[Array], object]:
    """The arrays of a kernel, and what is left of it when they are but numbers."""
    homes = homes_of(kernel)
    number = {home: i for i, home in enumerate(homes)}
    points: list[object] = []
    for p in kernel.points:
        if isinstance(p, Load):
            points.append((number[p.home], p.place))
        elif isinstance(p, Apply):
            operands = tuple([x if isinstance(x, Operand) else (type(x), repr(x))
                              for x in p.operands])
            points.append((p.what.key, operands, p.dtype))
        elif isinstance(p, Picked):
            points.append((number[p.home], p.place, p.axes, p.negative))
        elif isinstance(p, Count):
            points.append(p.value)
        else:
            points.append((p.value.tobytes(), p.dtype))
    stores = tuple([(number[s.home], *s[1:]) for s in kernel.stores])
    what = kernel.what
    rest = (what.get("op"), what.get("reduced"), what.get("negative"), what.get("add"),
            what.get("based"), what.get("rows"), tuple(what.get("axes", ())))
    dtypes = tuple([home.dtype for home in homes])
    return homes, (kernel.kind, kernel.domain, finish, tuple(points), stores, rest, dtypes)


class Function:
    """Writes one kernel. Points are computed in the outermost loop they depend on."""

    def __init__(self, kernel: Kernel, finish: bool) -> None:
        self.kernel = kernel
        self.finish = finish
        self.nest = Nest(kernel, fixed=finish)
        self.e = Registers(self.nest.lanes)
        self.e.fuses = build.target().fuses
        self.access = Access(kernel, self.nest, self.e)
        self.values: dict[int, Lane] = {}
        self.depth: list[int] = []             # how many loops each point needs to be open
        for p in kernel.points:
            self.depth.append(self._depth(p))

    def _depth(self, p: Point) -> int:
        if isinstance(p, (Load, Count)):
            return self._deepest(p.value if isinstance(p, Count) else p.place)
        if isinstance(p, Picked):
            return max([self._deepest(p.place), *[self.depth[x] for x, *_ in p.axes]])
        if isinstance(p, Apply):
            return max([self.depth[x.point] for x in p.operands if isinstance(x, Operand)],
                       default=0)
        return 0

    def _deepest(self, affine: Affine) -> int:
        steps = self.nest.steps(affine)
        return max([i + 1 for i, s in enumerate(steps) if s], default=0)

    # ------------------------------------------------------------ the whole function

    def emitted(self) -> Emitted:
        e = self.e
        kernel, nest = self.kernel, self.nest
        e.do("%slot.error = load ptr, ptr %arrays, align 8")
        for i in range(len(self.access.slots)):
            e.do(f"%at{i} = getelementptr ptr, ptr %arrays, i64 {i + 1}")
            e.do(f"%cell{i} = load ptr, ptr %at{i}, align 8")
            e.do(f"%slot{i} = load ptr, ptr %cell{i}, align 8")
        self._buffers()
        if self.finish:
            self._finish_loops()
        elif all(loop.size for loop in nest.loops):
            self._level(0, [])
        elif kernel.kind == "reduce" and all(
                loop.size for loop in nest.loops if not loop.reduced):
            raise ValueError("a reduction of nothing is a map")
        e.do("ret void")
        lines = "\n".join(line if line.endswith(":") else f"  {line}" for line in e.lines)
        head = "ptr %arrays, i64 %lo, i64 %hi"
        if self.finish:
            head = "ptr %arrays, i64 %item, i64 %top, i64 %bottom, i64 %left, i64 %right"
        body = f"({head}) {{\nentry:\n{lines}\n}}\n"
        kind = "finish" if self.finish else kernel.kind
        name = f"{kind}_{hashlib.sha256(body.encode()).hexdigest()[:16]}"
        return Emitted(name, f"define void @{name}{body}", e.declared, self.access.slots,
                       self.units(), self.nest.lanes if self.nest.vector == 0 else 1,
                       self.access.checks)

    def units(self) -> int:
        """Into how many parts the outermost loop can be divided."""
        nest = self.nest
        if not self._divisible():
            return 1
        if nest.vector == 0:
            return -(-nest.loops[0].size // nest.lanes)
        return nest.loops[0].size

    def _divisible(self) -> bool:
        """Can the outermost loop be divided? A scatter may meet one place twice; it can if its
        turns reach into parts of memory that do not overlap."""
        kernel, loops = self.kernel, self.nest.loops
        if not loops or loops[0].reduced:
            return False
        if kernel.kind != "scatter":
            return True
        apart, *steps = self.nest.steps(kernel.stores[0].place)
        reach = sum([abs(step) * (loop.size - 1)
                     for step, loop in zip(steps, loops[1:], strict=True)])
        reach += sum([stride * (n - 1) for _, stride, n, _ in kernel.what["axes"]])
        return bool(abs(apart) > reach)

    def _buffers(self) -> None:
        """Room for the tiles on the stack."""
        found: list[tuple[Load | Store, str]] = [(s, "store") for s in self.kernel.stores]
        found += [(p, "load") for p in self.kernel.points if isinstance(p, Load)]
        for one, use in found:
            if self.nest.tiled(one):
                buffer = self.e.fresh("tile")
                self.access.buffers[one.home.number, one.place, use] = buffer
                self.e.do(f"{buffer} = alloca [{self.nest.lanes ** 2} x {MEMORY[one.home.dtype]}]"
                          ", align 64")

    # ------------------------------------------------------------ loops

    def _level(self, depth: int, carried: list[Lane]) -> list[Lane]:
        """What happens with `depth` loops open; returns what reductions carry on."""
        nest = self.nest
        for place in self.access.all_places():
            self.access.extend(place, depth)
        for number, p in enumerate(self.kernel.points):
            if self.depth[number] == depth:
                self.values[number] = self._point(p)
        kernel = self.kernel
        outside = carried
        if kernel.kind in ("reduce", "scan") and depth == nest.parallel:
            carried = self._starts()
        if depth == len(nest.loops):
            carried = self._innermost(carried)
        elif depth == nest.tile:
            carried = self._tile_loop(depth, carried)
        elif depth == nest.vector:
            carried = self._vector_loop(depth, carried)
        elif depth == 0 and self._divisible():
            carried = self._loop(depth, "%lo", "%hi", carried)
        else:
            carried = self._loop(depth, "0", str(nest.loops[depth].size), carried)
        if kernel.kind == "reduce" and depth == nest.parallel:
            self._finish_reduction(carried)
        return outside if depth == nest.parallel else carried

    def _scoped(self, depth: int, carried: list[Lane]) -> list[Lane]:
        """The next level; what it computed is forgotten afterwards."""
        e = self.e
        before = dict(e.known), dict(self.values), dict(self.access.pointers)
        result = self._level(depth + 1, carried)
        e.known, self.values, self.access.pointers = before
        return result

    def _turn(self, depth: int, index: str, carried: list[Lane]) -> list[Lane]:
        """One turn of a loop."""
        self.access.indices.append(index)
        result = self._scoped(depth, carried)
        self.access.indices.pop()
        return result

    def _loop(self, depth: int, start: str, end: str, carried: list[Lane], step: int = 1,
              turn: Callable[[int, str, list[Lane]], list[Lane]] | None = None) -> list[Lane]:
        """for i in start ... end by step; at least once."""
        e = self.e
        turn = turn or self._turn
        if start == "0" and end == str(step):
            return turn(depth, "0", carried)
        head, done = self.access.label("loop"), self.access.label("done")
        before = self.access.block
        e.do(f"br label %{head}")
        self.access.begin(head)
        index, following = e.fresh("i"), e.fresh("i")
        place = len(e.lines)
        inside = [Lane(e, e.fresh("c"), c.dtype, c.lanes) for c in carried]
        result = turn(depth, index, inside)
        phis = [f"{index} = phi i64 [ {start}, %{before} ], [ {following}, %{self.access.block} ]"]
        for c, i, r in zip(carried, inside, result, strict=True):
            phis.append(f"{i.name} = phi {c.type} [ {c.name}, %{before} ], "
                        f"[ {r.name}, %{self.access.block} ]")
        e.lines[place:place] = phis
        e.do(f"{following} = add i64 {index}, {step}")
        more = e.fresh("m")
        e.do(f"{more} = icmp ult i64 {following}, {end}")
        e.do(f"br i1 {more}, label %{head}, label %{done}")
        self.access.begin(done)
        return result

    def _vector_loop(self, depth: int, carried: list[Lane]) -> list[Lane]:
        """Whole blocks of lanes, then the rest under a mask."""
        e, lanes = self.e, self.nest.lanes
        size = self.nest.loops[depth].size
        full, rest = divmod(size, lanes)
        if depth or not self._divisible():
            if full:
                carried = self._loop(depth, "0", str(full * lanes), carried, lanes)
            if rest:
                carried = self._tail(depth, str(full * lanes), static_mask(rest, lanes), carried)
            return carried
        assert not carried
        if not rest:
            low, high = e.emit(f"mul i64 %lo, {lanes}"), e.emit(f"mul i64 %hi, {lanes}")
            return self._loop(depth, low, high, carried, lanes)
        if full:
            last = e.emit(f"call i64 {e.declare('llvm.umin.i64', 'i64', 'i64', 'i64')}"
                          f"(i64 %hi, i64 {full})")
            low, high = e.emit(f"mul i64 %lo, {lanes}"), e.emit(f"mul i64 {last}, {lanes}")
            self._if(f"icmp ult i64 %lo, {last}",
                     lambda: self._loop(depth, low, high, carried, lanes))
            self._if(f"icmp ugt i64 %hi, {full}", lambda: self._tail(
                depth, str(full * lanes), static_mask(rest, lanes), carried))
            return carried
        return self._tail(depth, "0", static_mask(rest, lanes), carried)

    def _tail(self, depth: int, start: str, mask: str, carried: list[Lane]) -> list[Lane]:
        self.access.mask = mask
        result = self._turn(depth, start, carried)
        self.access.mask = None
        return result

    def _tile_loop(self, depth: int, carried: list[Lane]) -> list[Lane]:
        """Blocks of as many turns as there are lanes, then the rest."""
        size, lanes = self.nest.loops[depth].size, self.nest.lanes
        full, rest = divmod(size, lanes)
        turn = partial(self._tile, lanes)
        if full:
            carried = self._loop(depth, "0", str(full * lanes), carried, lanes, turn)
        return self._tile(rest, depth, str(full * lanes), carried) if rest else carried

    def _if(self, condition: str, write: Callable[[], object]) -> None:
        """What `write` writes happens where the condition holds."""
        e = self.e
        some, after = self.access.label("some"), self.access.label("after")
        holds = e.emit(condition)
        e.do(f"br i1 {holds}, label %{some}, label %{after}")
        self.access.begin(some)
        write()
        e.do(f"br label %{after}")
        self.access.begin(after)

    def _tile(self, count: int, depth: int, start: str, carried: list[Lane]) -> list[Lane]:
        """`count` turns of the innermost loop: tiles are read before and written after them."""
        e, access, lanes = self.e, self.access, self.nest.lanes
        known, pointers, buffers = dict(e.known), dict(access.pointers), access.buffers
        size = self.nest.loops[self.nest.vector].size
        rows = size % lanes if access.mask else lanes
        before, after = [], []
        access.buffers = {}
        for (number, place, use), buffer in buffers.items():
            scalar = MEMORY[next(x for x in access.slots if x.number == number).dtype]
            stride = access.lane_step(place)
            if not tiles.fits(scalar, lanes, rows, count, stride):
                continue
            access.buffers[number, place, use] = buffer
            at = e.emit(f"getelementptr {scalar}, ptr {access.pointers[number, place]}, "
                        f"i64 {start}")
            if use == "load":
                before.append(tiles.inward(e, scalar, lanes, rows, count, stride, at, buffer))
            else:
                after.append(tiles.outward(e, scalar, lanes, rows, count, stride, at, buffer))
        e.lines += before
        end = str(int(start) + count) if start.isdigit() else e.emit(f"add i64 {start}, {count}")
        carried = self._loop(depth, start, end, carried, turn=partial(self._tile_turn, start))
        e.lines += after
        access.buffers = buffers
        e.known, access.pointers = known, pointers
        return carried

    def _tile_turn(self, start: str, depth: int, index: str, carried: list[Lane]) -> list[Lane]:
        e = self.e
        known = dict(e.known)
        turn = index if start == "0" else e.emit(f"sub i64 {index}, {start}")
        self.access.offset = e.emit(f"mul i64 {turn}, {self.nest.lanes}")
        carried = self._turn(depth, index, carried)
        e.known = known
        return carried

    def _finish_loops(self) -> None:
        """Rows i0 ... i1 and columns j0 ... j1 of item b of a product."""
        e, lanes = self.e, self.nest.lanes
        rank = len(self.kernel.domain)
        number = "%item"
        batch = []
        for d in reversed(range(rank - 2)):
            n = self.kernel.domain[d]
            batch.append(e.emit(f"urem i64 {number}, {n}"))
            number = e.emit(f"udiv i64 {number}, {n}")
        self._open(0, list(reversed(batch)))
        depth = rank - 2
        head, done = self.access.label("loop"), self.access.label("done")
        e.do(f"br label %{head}")
        before = self.access.block
        self.access.begin(head)
        row, following = e.fresh("i"), e.fresh("i")
        place = len(e.lines)
        self.access.indices.append(row)
        saved = dict(e.known), dict(self.values), dict(self.access.pointers)
        self._open(depth + 1, [])
        if lanes == 1:
            self._columns("%left", "%right", 1, rank)
        else:
            width = e.emit("sub i64 %right, %left")
            whole = e.emit(f"and i64 {width}, -{lanes}")
            end = e.emit(f"add i64 %left, {whole}")
            some, after = self.access.label("some"), self.access.label("after")
            any_ = e.emit(f"icmp ne i64 {whole}, 0")
            e.do(f"br i1 {any_}, label %{some}, label %{after}")
            self.access.begin(some)
            self._columns("%left", end, lanes, rank)
            e.do(f"br label %{after}")
            self.access.begin(after)
            if self.kernel.domain[-1]:
                rest = e.emit(f"sub i64 {width}, {whole}")
                tail, out = self.access.label("tail"), self.access.label("out")
                left = e.emit(f"icmp ne i64 {rest}, 0")
                e.do(f"br i1 {left}, label %{tail}, label %{out}")
                self.access.begin(tail)
                counted = self.access.counting()
                spread = e.spread(Lane(e, rest, int64, 1))
                mask = e.emit(f"icmp ult <{lanes} x i64> {counted}, {spread.name}")
                self.access.mask = mask
                self.access.indices.append(end)
                inner = dict(e.known), dict(self.values), dict(self.access.pointers)
                self._level(rank, [])
                e.known, self.values, self.access.pointers = inner
                self.access.indices.pop()
                self.access.mask = None
                e.do(f"br label %{out}")
                self.access.begin(out)
        e.known, self.values, self.access.pointers = saved
        self.access.indices.pop()
        e.lines.insert(place, f"{row} = phi i64 [ %top, %{before} ], [ {following}, "
                              f"%{self.access.block} ]")
        e.do(f"{following} = add i64 {row}, 1")
        more = e.fresh("m")
        e.do(f"{more} = icmp ult i64 {following}, %bottom")
        e.do(f"br i1 {more}, label %{head}, label %{done}")
        self.access.begin(done)

    def _open(self, first: int, indices: list[str]) -> None:
        """Points of the levels from `first` on, as the loops' indices become known."""
        for depth in range(first, first + len(indices) + 1):
            for place in self.access.all_places():
                self.access.extend(place, depth)
            for number, p in enumerate(self.kernel.points):
                if self.depth[number] == depth:
                    self.values[number] = self._point(p)
            if depth - first < len(indices):
                self.access.indices.append(indices[depth - first])

    def _columns(self, start: str, end: str, step: int, rank: int) -> None:
        assert self.nest.vector in (-1, rank - 1)
        self._loop(rank - 1, start, end, [], step)

    # ------------------------------------------------------------ points

    def _point(self, p: Point) -> Lane:
        e, access = self.e, self.access
        if isinstance(p, Constant):
            return e.const(p.value, p.dtype)
        if isinstance(p, Load):
            return access.whole(p.home, p.place)
        if isinstance(p, Count):
            return access.count(p.value)
        if isinstance(p, Picked):
            return access.picked(p, self.values)
        operands = [self.values[x.point] if isinstance(x, Operand) else x for x in p.operands]
        made = p.what.write(e, *operands)
        if not isinstance(made, Lane):
            made = e.const(made, p.dtype)
        if made.dtype != p.dtype:
            raise TypeError(f"{p.what.name} was written as {made.dtype}, it is {p.dtype}")
        return made

    # ------------------------------------------------------------ stores and reductions

    def _innermost(self, carried: list[Lane]) -> list[Lane]:
        kernel = self.kernel
        access = self.access
        if kernel.kind == "reduce":
            loops, vector = self.nest.loops, self.nest.vector
            masked = access.mask if vector >= 0 and loops[vector].reduced else None
            index = Lane(self.e, "0", int64, 1)
            for depth, (loop, one) in enumerate(zip(loops, access.indices, strict=True)):
                if loop.reduced and kernel.what["op"] in ("argmax", "argmin"):
                    here = Lane(self.e, one, int64, 1)
                    if depth == vector:
                        here = here + Lane(self.e, access.counting(), int64, self.nest.lanes)
                    index = here if index.name == "0" else index * loop.size + here
            return turn(self.e, kernel.what["op"], carried, self.values[kernel.stores[0].value],
                        masked, index)
        if kernel.kind == "scan":
            total = carried[0] + self.values[kernel.stores[0].value]
            access.store(kernel.stores[0], total)
            return [total]
        for store in kernel.stores:
            value = self.values[store.value]
            if kernel.kind == "scatter":
                access.scatter(store, value, self.values)
            else:
                access.store(store, value)
        return carried

    def _starts(self) -> list[Lane]:
        """What a reduction or a running sum carries before its first turn."""
        kernel = self.kernel
        lanes = self.nest.lanes if self.nest.vector >= 0 else 1
        return starts(self.e, kernel.what.get("op", "sum"), self._source_dtype(), lanes)

    def _source_dtype(self) -> np.dtype[Any]:
        p = self.kernel.points[self.kernel.stores[0].value]
        if isinstance(p, (Load, Picked)):
            return p.home.dtype  # type: ignore[no-any-return]
        return int64 if isinstance(p, Count) else p.dtype

    def _finish_reduction(self, carried: list[Lane]) -> None:
        """Lanes come together, then the result is stored."""
        e, kernel = self.e, self.kernel
        if self.nest.vector >= 0 and self.nest.loops[self.nest.vector].reduced:
            carried = across(e, kernel.what["op"], carried)
        result = carried[-1]
        store = kernel.stores[0]
        if result.dtype != store.home.dtype:
            result = e.cast(result, store.home.dtype)
        self.access.store(store, result)


def static_mask(count: int, lanes: int) -> str:
    """The first `count` lanes."""
    return "<" + ", ".join(f"i1 {'true' if i < count else 'false'}" for i in range(lanes)) + ">"
