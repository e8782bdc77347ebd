"""`Kernel`: one loop nest of the program, and the points it computes in each turn of the loops.

A point is what one element of the domain needs: a load, a function, an index, a number. Equal
points are one point, so a value that several stores share is computed once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.arrays.arrays import Array, Map
from chainrule.compiler.arrays.index import Affine, Indices, constant, flat, identity


class Load(NamedTuple):
    """An element of an array in memory, at a place that is affine in the loops."""

    home: Array
    place: Affine


class Apply(NamedTuple):
    """A map of other points (by number), or of Python numbers."""

    what: Map
    operands: tuple[Any, ...]
    dtype: np.dtype[Any]


class Count(NamedTuple):
    """An index, as int64."""

    value: Affine


class Constant(NamedTuple):
    """A number."""

    value: Any
    dtype: np.dtype[Any]


class Picked(NamedTuple):
    """An element at a place computed from points: `axes` gives (point, stride, size, axis)."""

    home: Array
    place: Affine
    axes: tuple[tuple[int, int, int, int], ...]
    negative: bool
    origin: int                   # number of the Array, for the error


Point = Load | Apply | Count | Constant | Picked


class Operand(NamedTuple):
    """A point as the operand of another one."""

    point: int


class Store(NamedTuple):
    """Point `value` goes to a place of an array, or is added to what stands there."""

    home: Array
    place: Affine
    value: int
    add: bool = False


class Kernel:
    """A loop nest. `kind` is one of

    map       for each index of the domain: the stores
    reduce    the domain's last `reduced` axes are taken together by `op` before the store
    scatter   stores at computed places, one after the other
    scan      a running sum along the domain's last axis
    contract  a matrix product (see contract.py), perhaps finished by a map on each block
    call      a row's own NumPy evaluation
    """

    def __init__(self, kind: str, domain: tuple[int, ...], array: Array, **what: Any) -> None:
        self.kind = kind
        self.domain = domain
        self.array = array
        self.what = what
        self.points: list[Point] = []
        self.numbers: dict[Any, int] = {}
        self.memo: dict[tuple[int, Indices], int] = {}
        self.stores: list[Store] = []
        self.arrays: list[Array] = [array]
        self.finish: Kernel | None = None
        self.single = [d for d, n in enumerate(domain) if n == 1]

    def normal(self, affine: Affine) -> Affine:
        """The same map with step 0 along axes of size 1, so that equal places compare equal."""
        if any(affine.steps[d] for d in self.single):
            return Affine(affine.start, tuple([0 if d in self.single else s
                                               for d, s in enumerate(affine.steps)]))
        return affine

    def __repr__(self) -> str:
        return f"<{self.kind} {list(self.domain)} of a{self.array.number}>"

    @property
    def size(self) -> int:
        return math.prod(self.domain)

    def point(self, point: Point, key: Any) -> int:
        """The number of a point; equal ones have one number."""
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.points)
            self.points.append(point)
        return found

    # ------------------------------------------------------------ what is computed

    def evaluate(self, x: Array, indices: Indices, at_home: set[int]) -> int:
        """The point that is x[indices]; arrays in `at_home` are in memory and are loaded."""
        if self.single:
            indices = tuple(map(self.normal, indices))
        key = (x.number, indices)
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = self._evaluate(x, indices, at_home)
        return found

    def expression(self, x: Array, indices: Indices, at_home: set[int]) -> int:
        """The same for an array that this kernel itself brings into memory."""
        indices = tuple(map(self.normal, indices))
        found = self._expression(x, indices, at_home)
        self.memo[x.number, indices] = found
        return found

    def _evaluate(self, x: Array, indices: Indices, at_home: set[int]) -> int:
        if x.number in at_home:
            place = flat(indices, x.shape, len(self.domain))
            home = home_of(x)
            return self.point(Load(home, place), ("load", home.number, place))
        return self._expression(x, indices, at_home)

    def _expression(self, x: Array, indices: Indices, at_home: set[int]) -> int:
        if x.kind == "view":
            composed = tuple([a.compose(indices, len(self.domain)) for a in x.what])
            return self.evaluate(x.inputs[0], composed, at_home)
        if x.kind == "map":
            operands = tuple([
                Operand(self.evaluate(i, indices, at_home)) if isinstance(i, Array) else i
                for i in x.inputs])
            key = ("map", x.what.key, operands, tuple(map(type, operands)), x.dtype.str)
            return self.point(Apply(x.what, operands, x.dtype), key)
        if x.kind == "count":
            return self.point(Count(indices[x.what]), ("count", indices[x.what]))
        if x.kind == "const" and not x.shape:
            return self.point(Constant(x.what[()], x.dtype), ("const", x.number))
        if x.kind == "pick":
            return self._pick(x, indices, at_home)
        raise TypeError(f"{x!r} cannot be computed inside a kernel")

    def _pick(self, x: Array, indices: Indices, at_home: set[int]) -> int:
        data, *where = x.inputs
        plan, negative, _ = x.what
        waiting = iter(where)
        place = constant(0, len(self.domain))
        axes = []
        stride = math.prod(data.shape)
        for axis, (n, affine) in enumerate(zip(data.shape, plan, strict=True)):
            stride //= max(n, 1)
            if affine is None:
                point = self.evaluate(next(waiting), indices, at_home)
                axes.append((point, stride, n, axis))
            else:
                place = place.add(affine.compose(indices, len(self.domain)).times(stride))
        home = home_of(data)
        key = ("pick", home.number, place, tuple(axes), negative)
        return self.point(Picked(home, place, tuple(axes), negative, x.number), key)

    def seen(self, domain: tuple[int, ...]) -> Kernel | None:
        """A map as one over `domain`, whose axes are several of its own taken as one; None where
        its places do not run through these evenly."""
        groups = joined_axes(self.domain, domain)
        if groups is None or self.kind != "map" or self.what.get("part"):
            return None
        made = Kernel("map", domain, self.array)
        moved = {}
        for affine in {a for a, _ in self.affines()}:
            found = self._taken_together(affine, groups)
            if found is None:
                return None
            moved[affine] = found
        for p in self.points:
            made.points.append(p._replace(value=moved[p.value]) if isinstance(p, Count)
                               else p._replace(place=moved[p.place])
                               if isinstance(p, (Load, Picked)) else p)
        made.stores = [s._replace(place=moved[s.place]) for s in self.stores]
        return made

    def affines(self) -> list[tuple[Affine, str]]:
        """Every affine map of its points and stores, and what it is for."""
        found = [(s.place, "store") for s in self.stores]
        for p in self.points:
            if isinstance(p, (Load, Picked)):
                found.append((p.place, "load"))
            elif isinstance(p, Count):
                found.append((p.value, "count"))
        return found

    def _taken_together(self, affine: Affine, groups: list[list[int]]) -> Affine | None:
        steps = []
        for group in groups:
            long = [d for d in group if self.domain[d] > 1]
            step = affine.steps[long[-1]] if long else 0
            span = step
            for d in reversed(long):
                if affine.steps[d] != span:
                    return None
                span *= self.domain[d]
            steps.append(step)
        return Affine(affine.start, tuple(steps))

    def absorb(self, other: Kernel) -> None:
        """Also compute what another map over the same domain does. What it loads of the places
        that this one stores to is the value stored."""
        own = {(s.home.number, s.place): s.value for s in self.stores if not s.add}
        number: list[int] = []
        for p in other.points:
            if isinstance(p, Load) and (p.home.number, p.place) in own:
                number.append(own[p.home.number, p.place])
                continue
            if isinstance(p, Apply):
                operands = tuple([Operand(number[x.point]) if isinstance(x, Operand) else x
                                  for x in p.operands])
                p = p._replace(operands=operands)
                key: Any = ("map", p.what.key, operands, tuple(map(type, operands)), p.dtype.str)
            elif isinstance(p, Picked):
                p = p._replace(axes=tuple([(number[at], stride, n, axis)
                                          for at, stride, n, axis in p.axes]))
                key = ("pick", p.home.number, p.place, p.axes, p.negative)
            elif isinstance(p, Load):
                key = ("load", p.home.number, p.place)
            elif isinstance(p, Count):
                key = ("count", p.value)
            else:
                key = ("number", p.value.tobytes(), p.dtype.str)
            number.append(self.point(p, key))
        for s in other.stores:
            self._keep(s._replace(value=number[s.value]))

    def store(self, x: Array, value: int, place: Affine | None = None, add: bool = False) -> None:
        if place is None:
            place = flat(identity(x.shape), x.shape, len(self.domain))
        place, home = self.normal(place), home_of(x)
        self._keep(Store(home, place, value, add))

    def _keep(self, store: Store) -> None:
        self.stores.append(store)
        if not store.add:   # whoever reads it here later has it in registers, and in memory not yet
            self.numbers["load", store.home.number, store.place] = store.value

    # ------------------------------------------------------------ what is read and written

    def loads(self) -> list[tuple[Array, Affine | None]]:
        """The arrays it reads, each with the place, or None if that is computed or of any kind."""
        found: list[tuple[Array, Affine | None]] = []
        for p in self.points:
            if isinstance(p, Load):
                found.append((p.home, p.place))
            elif isinstance(p, Picked):
                found.append((p.home, None))
        found += [(home_of(x), None) for x in self.what.get("operands", ())]
        found += [(s.home, s.place) for s in self.stores if s.add]
        if self.finish is not None:
            found += self.finish.loads()
        return found

    def written(self) -> list[Array]:
        """The arrays it brings into memory."""
        own = [s.home for s in self.stores]
        if self.kind not in ("map", "reduce", "scan"):
            own.append(home_of(self.array))
        if self.finish is not None:
            own += self.finish.written()
        return list(dict.fromkeys(own))


def joined_axes(domain: tuple[int, ...], whole: tuple[int, ...]) -> list[list[int]] | None:
    """Which neighbouring axes of `domain` make up each axis of `whole`, if they do."""
    groups: list[list[int]] = []
    d = 0
    for n in whole:
        group, size = [], 1
        while d < len(domain) and (domain[d] == 1 or (size < n and size * domain[d] <= n)):
            size *= domain[d]
            group.append(d)
            d += 1
        if size != n:
            return None
        groups.append(group)
    return groups if d == len(domain) else None


def home_of(x: Array) -> Array:
    """The array in whose memory x stands: reshapes share it."""
    while x.kind == "reshape":
        x = x.inputs[0]
    return x
