"""`Array`: what a row becomes before it is scheduled, and the operations all rows are made of.

    input  an array that is given              map       a function of each element alone
    const  numbers known now                   view      the same numbers under other indices
    count  the index along an axis             reduce    sum, max, min, any, all, argmax, argmin
    contract  a batch of matrix products       assemble  parts put in their places, or added there
    pick   elements at computed indices        scatter   elements put or added at computed indices
    scan   a running sum                       call      the row's own NumPy evaluation

Equal Arrays are one object. A row's `lower` is handed the Arrays of its operands and answers with
an Array; being Values, Arrays can also be given to rules and definitions written with operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.compiler.arrays.index import (
    Affine,
    Indices,
    constant,
    diagonal_indices,
    flat_to_indices,
    identity,
    in_order,
    slice_indices,
    strides_of,
)
from chainrule.compiler.arrays.windows import Lines, Windows, straight, unwound
from chainrule.core.bind import Value
from chainrule.core.primitive import Primitive
from chainrule.core.types import ArrayType, int64, result_dtype, type_of

Function = Callable[..., Any]


class Array(Value):
    """One value of the program; see the module for the kinds. Compared by identity."""

    __slots__ = ("builder", "dtype", "inputs", "kind", "number", "origin", "shape", "what")

    def __init__(self, builder: Arrays, kind: str, shape: tuple[int, ...], dtype: np.dtype[Any],
                 inputs: tuple[Any, ...], what: Any, number: int) -> None:
        self.builder = builder
        self.kind = kind
        self.shape = shape
        self.dtype = dtype
        self.inputs = inputs
        self.what = what
        self.number = number
        self.origin: Any = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def type(self) -> ArrayType:
        return ArrayType(self.shape, self.dtype)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The operands that are Arrays."""
        return tuple([x for x in self.inputs if isinstance(x, Array)])

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Any:
        return self.builder.row(prim, xs, params)

    def __repr__(self) -> str:
        return f"a{self.number}: {self.type} = {self.describe()}"

    def describe(self) -> str:
        parts = [f"a{x.number}" if isinstance(x, Array) else repr(x) for x in self.inputs]
        if self.kind == "map":
            return f"{self.what.name}({', '.join(parts)})"
        shown = self.what if not isinstance(self.what, np.ndarray) else self.what.tolist()
        return f"{self.kind}({', '.join([*parts, str(shown)])})"


class Map:
    """What a map does to each element: `write(e, *lanes)` with an emitter and its operands."""

    __slots__ = ("cost", "key", "name", "write")

    def __init__(self, name: str, key: Any, write: Function, cost: int) -> None:
        self.name = name
        self.key = key
        self.write = write
        self.cost = cost

    def __repr__(self) -> str:
        return self.name


class Arrays:
    """The builder: makes Arrays, one for each distinct value, and applies named simplifications."""

    def __init__(self) -> None:
        self.all: list[Array] = []
        self.known: dict[Any, Array] = {}
        self.origin: Any = None
        self.maps: dict[Any, Map] = {}

    def make(self, kind: str, shape: Sequence[int], dtype: np.dtype[Any],
             inputs: tuple[Any, ...] = (), what: Any = None, key: Any = None) -> Array:
        """The Array of this description; `key` stands for `what` when that cannot be compared."""
        identity_ = (kind, tuple(shape), dtype, tuple([_operand_key(x) for x in inputs]),
                     what if key is None else key)
        found = self.known.get(identity_)
        if found is None:
            found = Array(self, kind, tuple(shape), dtype, inputs, what, len(self.all))
            found.origin = self.origin
            self.known[identity_] = found
            self.all.append(found)
        return found

    # ------------------------------------------------------------ leaves

    def input(self, position: int, type_: ArrayType) -> Array:
        return self.make("input", type_.shape, type_.dtype, (), position)

    def const(self, value: Any, dtype: Any = None) -> Array:
        """Numbers known now; repeated ones are kept once and spread."""
        array = np.asarray(value, dtype)
        if array.ndim and array.size and all(s == 0 or n == 1 for s, n in
                                             zip(array.strides, array.shape, strict=True)):
            return self.broadcast(self.const(array[(0,) * array.ndim]), array.shape)
        array = np.ascontiguousarray(array).reshape(array.shape)
        return self.make("const", array.shape, array.dtype, (), array,
                         (array.tobytes(), array.dtype.str))

    def full(self, value: Any, shape: Sequence[int], dtype: Any) -> Array:
        return self.broadcast(self.const(value, dtype), tuple(shape))

    def count(self, shape: Sequence[int], axis: int) -> Array:
        """The index along `axis`, as int64."""
        return self.make("count", shape, int64, (), axis)

    # ------------------------------------------------------------ elementwise

    def row(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Array:
        """A row of the table applied to Arrays and numbers."""
        if prim.promote:
            xs = self.promoted(prim, xs)
        if prim.kind == "elementwise":
            shape = np.broadcast_shapes(*[x.shape for x in xs if isinstance(x, Array)])
            xs = tuple([self.broadcast(x, shape) if isinstance(x, Array) else x for x in xs])
        from_ = LOWER[0]
        return from_(self, prim, xs, params)  # type: ignore[no-any-return]

    def promoted(self, prim: Primitive, xs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Operands brought to one dtype, as eager evaluation does."""
        chosen = prim.promoted if prim.promoted is not None else range(len(xs))
        dtype = result_dtype([xs[i] for i in chosen])
        if prim.promote == "float" and dtype.kind != "f":
            dtype = np.dtype("float32")
        return tuple([self.cast(x, dtype) if i in chosen and isinstance(x, Array) else x
                      for i, x in enumerate(xs)])

    def map(self, name: str, write: Function, *xs: Any, dtype: np.dtype[Any], cost: int = 1,
            key: Any = None) -> Array:
        """`write(e, *lanes)` for each element. Operands have one shape, or are numbers.

        Maps of equal `name` and `key` must do the same.
        """
        shape = next(x.shape for x in xs if isinstance(x, Array))
        identity_ = (name, key)
        what = self.maps.get(identity_)
        if what is None:
            what = self.maps[identity_] = Map(name, identity_, write, cost)
        return self.make("map", shape, dtype, tuple(xs), what, identity_)

    def cast(self, x: Any, dtype: Any) -> Any:
        """x in another dtype; to its own: x."""
        dtype = np.dtype(dtype)
        if not isinstance(x, Array):
            return self.const(x, dtype)
        if x.dtype == dtype:
            return x
        if x.kind == "view":
            return self.view(self.cast(x.inputs[0], dtype), x.shape, x.what)
        if x.kind == "const" and not x.shape:
            return self.const(x.what.astype(dtype))
        return self.map("cast", lambda e, lane: e.cast(lane, dtype), x, dtype=dtype, key=dtype.str)

    # ------------------------------------------------------------ views

    def view(self, x: Array, shape: Sequence[int], indices: Indices) -> Array:
        """y[i] = x[indices(i)]; a view of a view is one view; the identity is x."""
        shape = tuple(shape)
        if shape == x.shape and indices == identity(shape):
            return x
        if x.kind == "view":
            inner = x.what
            composed = tuple([a.compose(indices, len(shape)) for a in inner])
            return self.view(x.inputs[0], shape, composed)
        return self.make("view", shape, x.dtype, (x,), indices)

    def broadcast(self, x: Array, shape: Sequence[int]) -> Array:
        """x repeated along new leading axes and axes of size 1."""
        shape = tuple(shape)
        if shape == x.shape:
            return x
        lead = len(shape) - len(x.shape)
        rank = len(shape)
        return self.view(x, shape, tuple([
            constant(0, rank) if n == 1 else Affine.axis(lead + d, rank)
            for d, n in enumerate(x.shape)]))

    def permute(self, x: Array, order: Sequence[int]) -> Array:
        """Axis d of the result is axis order[d] of x."""
        rank = len(x.shape)
        where = {axis: d for d, axis in enumerate(order)}
        return self.view(x, [x.shape[i] for i in order],
                         tuple([Affine.axis(where[a], rank) for a in range(rank)]))

    def flip(self, x: Array, axes: Sequence[int]) -> Array:
        rank = len(x.shape)
        return self.view(x, x.shape, tuple([
            Affine.axis(d, rank).times(-1).plus(n - 1) if d in axes else Affine.axis(d, rank)
            for d, n in enumerate(x.shape)]))

    def slice(self, x: Array, key: tuple[Any, ...]) -> Array:
        """x[key] for whole numbers, slices and None."""
        shape, indices = slice_indices(x.shape, key)
        return self.view(x, shape, indices)

    def axis(self, d: int, shape: Sequence[int]) -> Affine:
        """The index along axis d of an array of this shape, for `view`, `pick` and `scatter`."""
        return Affine.axis(d, len(shape))

    def diagonal(self, x: Array, offset: int, axes: tuple[int, int]) -> Array:
        return self.view(x, *diagonal_indices(x.shape, offset, axes))

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """The same numbers in row-major order; a view where the new axes divide the old ones."""
        shape = tuple(shape)
        if shape == x.shape:
            return x
        if x.kind == "reshape":
            return self.reshape(x.inputs[0], shape)
        if x.kind == "const":
            return self.const(x.what.reshape(shape))
        if x.size:
            indices = flat_to_indices(x.shape, shape)
            if indices is not None:
                return self.view(x, shape, indices)
            if x.kind == "view" and x.inputs[0].size == 1:
                return self.broadcast(self.reshape(x.inputs[0], ()), shape)
            if x.kind == "view" and in_order(x.what, x.shape, x.inputs[0].shape):
                return self.reshape(x.inputs[0], shape)
        return self.make("reshape", shape, x.dtype, (x,))

    # ------------------------------------------------------------ reductions and products

    def reduce(self, op: str, x: Array, axes: Sequence[int], dtype: Any = None) -> Array:
        """sum, max, min, any, all over axes; argmax, argmin: the place in row-major order.

        Over an axis into which a reshape took several together, it is over these.
        """
        axes = tuple(sorted(axes))
        last = len(x.shape) - 1
        if x.kind == "reshape" and axes == (last,):
            apart = x.inputs[0]
            if len(apart.shape) > last and apart.shape[:last] == x.shape[:last]:
                return self.reduce(op, apart, range(last, len(apart.shape)), dtype)
        shape = tuple([n for d, n in enumerate(x.shape) if d not in axes])
        if op in ("sum", "max", "min", "any", "all") and all(x.shape[d] == 1 for d in axes):
            rest = [d for d in range(len(x.shape)) if d not in axes]
            picked = self.slice(x, tuple([0 if d in axes else slice(None)
                                          for d in range(len(x.shape))]))
            assert len(rest) == len(picked.shape)
            return self.cast(picked, dtype or x.dtype)  # type: ignore[no-any-return]
        if len(axes) > 1 and not shape and x.size > 16384 and op not in ("argmax", "argmin"):
            # in two stages, so that the parts can be computed side by side
            return self.reduce(op, self.reduce(op, x, axes[1:], dtype), (0,), dtype)
        return self.make("reduce", shape, np.dtype(dtype or x.dtype), (x,), (op, axes))

    def contract(self, a: Array, b: Array) -> Array:
        """The matrix products of the last two axes; leading axes are equal."""
        return self.make("contract", (*a.shape[:-1], b.shape[-1]), a.dtype, (a, b))

    def convolve(self, x: Array, w: Array, rows: Lines, columns: Lines,
                 pixels: tuple[int, int]) -> Array:
        """(N, C, H', W') from images (N, groups, k, H, W) and kernels (groups, j, k, kh, kw).

        `rows` and `columns`, from `straight` or `unwound`, say which places each pixel meets.
        """
        n, groups, k = x.shape[:3]
        what = Windows("convolve", n, groups, k, w.shape[1], (x.shape[3], x.shape[4]), pixels,
                       (w.shape[3], w.shape[4]), rows, columns)
        y = self.make("contract", what.shape, x.dtype, (x, w), what)
        return self.split_last(y, pixels)

    def correlate(self, x: Array, g: Array, rows: Lines, columns: Lines,
                  kernel: tuple[int, int]) -> Array:
        """(C', k, kh, kw), the transpose of `convolve` in its kernels, from images
        (N, groups, k, H, W) and results (N, groups, j, H', W')."""
        n, groups, k = x.shape[:3]
        what = Windows("correlate", n, groups, k, g.shape[2], (x.shape[3], x.shape[4]),
                       (g.shape[3], g.shape[4]), kernel, rows, columns)
        w = self.make("contract", what.shape, x.dtype, (x, g), what)
        return self.split_last(w, (k, *kernel))

    def split_last(self, x: Array, sizes: tuple[int, ...]) -> Array:
        """The last axis as several, the last of them running fastest."""
        shape = (*x.shape[:-1], *sizes)
        rank, kept = len(shape), len(x.shape) - 1
        place = constant(0, rank)
        for d, stride in enumerate(strides_of(sizes)):
            place = place.add(Affine.axis(kept + d, rank).times(stride))
        return self.view(x, shape, (*[Affine.axis(d, rank) for d in range(kept)], place))

    def straight(self, *sizes: int) -> Lines:
        """One axis of a convolution; see windows.py."""
        return straight(*sizes)

    def unwound(self, *sizes: int) -> Lines:
        """One axis of a transposed convolution; see windows.py."""
        return unwound(*sizes)

    # ------------------------------------------------------------ assembling

    def assemble(self, shape: Sequence[int], dtype: Any,
                 parts: Sequence[tuple[Array, Indices]], fill: bool, add: bool = False) -> Array:
        """An array made of parts: part[i] goes to (or is added at) indices(i).

        `fill`: places that no part reaches are zero. No part has two elements for one place.
        """
        return self.make("assemble", shape, np.dtype(dtype), tuple([p for p, _ in parts]),
                         (tuple([i for _, i in parts]), fill or add, add))

    def place(self, x: Array, shape: Sequence[int], key: tuple[Any, ...]) -> Array:
        """Zeros with x at [key]."""
        _, indices = slice_indices(tuple(shape), key)
        return self.assemble(shape, x.dtype, [(x, indices)], fill=True)

    def concatenate(self, xs: Sequence[Array], axis: int) -> Array:
        start, parts = 0, []
        rank = len(xs[0].shape)
        for x in xs:
            parts.append((x, tuple([Affine.axis(d, rank).plus(start if d == axis else 0)
                                    for d in range(rank)])))
            start += x.shape[axis]
        shape = [start if d == axis else n for d, n in enumerate(xs[0].shape)]
        return self.assemble(shape, xs[0].dtype, parts, fill=False)

    def undiagonal(self, x: Array, shape: Sequence[int], offset: int,
                   axes: tuple[int, int]) -> Array:
        """Zeros with x on a diagonal of two axes."""
        _, indices = diagonal_indices(tuple(shape), offset, axes)
        return self.assemble(shape, x.dtype, [(x, indices)], fill=True)

    # ------------------------------------------------------------ computed indices

    def pick(self, x: Array, shape: Sequence[int], where: Sequence[Array | Affine],
             negative: bool, name: str) -> Array:
        """y[i] = x[where(i)]: for each axis of x an affine index or an integer Array of `shape`.

        An index out of range is an IndexError; from the end if `negative` allows it.
        """
        found = tuple([w for w in where if isinstance(w, Array)])
        plan = tuple([None if isinstance(w, Array) else w for w in where])
        return self.make("pick", shape, x.dtype, (x, *found), (plan, negative, name))

    def scatter(self, base: Array | None, shape: Sequence[int], source: Array,
                where: Sequence[Array | Affine], add: bool, negative: bool, name: str) -> Array:
        """`base` (or zeros) with source[i] put or added at where(i), in the order of i."""
        found = tuple([w for w in where if isinstance(w, Array)])
        plan = tuple([None if isinstance(w, Array) else w for w in where])
        inputs = (source, *found) if base is None else (source, *found, base)
        return self.make("scatter", shape, source.dtype, inputs,
                         (plan, add, negative, name, base is not None))

    def scan(self, x: Array, axis: int) -> Array:
        """The running sum along an axis."""
        return self.make("scan", x.shape, x.dtype, (x,), axis)

    def call(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any],
             type_: ArrayType) -> Array:
        """The row's own NumPy evaluation, between two stretches of native code."""
        return self.make("call", type_.shape, type_.dtype, tuple(xs), (prim, params),
                         (prim.name, param_key(params)))


# Filled by lower.py, which stands above: how a row is turned into Arrays.
LOWER: list[Function] = []


def _operand_key(x: Any) -> Any:
    if isinstance(x, Array):
        return x.number
    if isinstance(x, float):
        return ("float", x.hex())
    return (type(x).__name__, x)


def param_key(value: Any) -> Any:
    """Params as something that can be compared and hashed."""
    if isinstance(value, dict):
        return tuple([(k, param_key(v)) for k, v in sorted(value.items())])
    if isinstance(value, (list, tuple)):
        return tuple(map(param_key, value))
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, np.ndarray):
        return (value.tobytes(), value.dtype.str, value.shape)
    if isinstance(value, np.dtype):
        return value.str
    return value


def folded(prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The number, if all operands are numbers known now: by the row's own evaluation."""
    values = []
    for x in xs:
        if isinstance(x, Array):
            while x.kind == "view" and not x.inputs[0].shape:
                x = x.inputs[0]
            if x.kind != "const" or x.shape:
                return None
            values.append(x.what)
        else:
            values.append(x)
    with np.errstate(all="ignore"):
        return np.asarray(prim.eval(*values, **params))


def types(xs: Sequence[Any]) -> list[ArrayType | None]:
    return [type_of(x) if hasattr(x, "shape") else None for x in xs]
