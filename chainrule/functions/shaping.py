"""Functions that rearrange: views where PyTorch gives views, copies elsewhere."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import DtypeError, ShapeError
from chainrule.core.record import new
from chainrule.core.types import result_dtype, type_of
from chainrule.indexing import get
from chainrule.tensor import Tensor

from .surface import axes_of, axis_of, method, numpy_names, only_method, public, row


def _known(shape: tuple[int, ...], numel: int, x: Tensor) -> tuple[int, ...]:
    """The shape with one -1 replaced by what is left."""
    if shape.count(-1) > 1 or builtins.any(n < -1 for n in shape):
        raise ShapeError(f"reshape: {list(shape)}: sizes cannot be negative, and only one may be "
                         "-1 (it is worked out)")
    if -1 in shape:
        rest = math.prod(n for n in shape if n != -1)
        if rest == 0 or numel % rest:
            raise ShapeError(f"reshape: {type_of(x)} has {numel} elements, which "
                             f"{list(shape)} cannot hold: {numel} is not a multiple of {rest}")
        shape = tuple(numel // rest if n == -1 else n for n in shape)
    if math.prod(shape) != numel:
        raise ShapeError(f"reshape: {type_of(x)} has {numel} elements, the shape {list(shape)} "
                         f"holds {math.prod(shape)}")
    return shape


def _sizes(size: tuple[Any, ...]) -> tuple[int, ...]:
    given = size[0] if len(size) == 1 and not isinstance(size[0], (int, np.integer)) else size
    return tuple(int(n) for n in given)


@method
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same numbers in row-major order under another shape; one size may be -1."""
    return row("reshape", input, shape=_known(_sizes(shape), input.numel(), input))  # type: ignore[no-any-return]


@only_method
def view(input: Tensor, *shape: Any) -> Tensor:
    """`reshape` that must not copy; a dtype argument is not supported."""
    if len(shape) == 1 and isinstance(shape[0], (type, np.dtype)):
        raise DtypeError("view(dtype): reading memory as another dtype is not supported; "
                         ".to(dtype) converts the numbers")
    y = reshape(input, *shape)
    if input._value is not None and input.numel() and not np.shares_memory(y._value, input._value):
        raise ShapeError(f"view: {type_of(input)} does not lie in order in memory, so "
                         f"{list(y.shape)} would be a copy. Use .reshape(...), or .contiguous() "
                         "first.")
    return y


@only_method
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` with the shape of `other`."""
    return view(input, *other.shape)


@only_method
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` with the shape of `other`."""
    return reshape(input, *other.shape)


@method
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from start_dim to end_dim as one."""
    if input.ndim == 0:
        return reshape(input, 1)
    first = axis_of(start_dim, input.ndim, "flatten")
    last = axis_of(end_dim, input.ndim, "flatten")
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    if first == last:
        return input
    middle = math.prod(input.shape[first:last + 1])
    return reshape(input, (*input.shape[:first], middle, *input.shape[last + 1:]))


@method
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Axis `dim` split into several."""
    axis = axis_of(dim, input.ndim, "unflatten")
    inner = _known(tuple(sizes), input.shape[axis], input)
    return reshape(input, (*input.shape[:axis], *inner, *input.shape[axis + 1:]))


@method
def ravel(input: Tensor) -> Tensor:
    """All elements as a vector."""
    return reshape(input, -1)


@method
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without the axes of size 1 (all, or those in `dim`)."""
    if dim is None:
        axes = tuple(range(input.ndim))
    else:
        axes = axes_of(dim, input.ndim, "squeeze") if not isinstance(dim, (tuple, list)) or dim \
            else ()
    return reshape(input, tuple(n for i, n in enumerate(input.shape) if i not in axes or n != 1))


@method
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new axis of size 1 at `dim`."""
    axis = axis_of(dim, input.ndim + 1, "unsqueeze")
    return reshape(input, (*input.shape[:axis], 1, *input.shape[axis:]))


@method
def permute(input: Tensor, *dims: Any) -> Tensor:
    """The axes in another order."""
    order = tuple(axis_of(d, input.ndim, "permute") for d in _sizes(dims))
    if builtins.sorted(order) != list(range(input.ndim)):
        raise ShapeError(f"permute: {list(_sizes(dims))} does not name each of the {input.ndim} "
                         f"axes of {type_of(input)} once")
    return row("permute", input, order=order)  # type: ignore[no-any-return]


@method
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    a, b = (axis_of(d, input.ndim, "transpose") for d in (dim0, dim1))
    order = list(range(input.ndim))
    if order:
        order[a], order[b] = b, a
    return row("permute", input, order=tuple(order))  # type: ignore[no-any-return]



@method
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; a vector stays as it is."""
    if input.ndim > 2:
        raise ShapeError(f"t() is for matrices, this tensor is {type_of(input)}; use .mT")
    return input if input.ndim < 2 else transpose(input, 0, 1)


@method
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Axes moved to other places, the others keeping their order."""
    given = [source] if isinstance(source, int) else list(source)
    wanted = [destination] if isinstance(destination, int) else list(destination)
    sources = [axis_of(d, input.ndim, "movedim") for d in given]
    places = [axis_of(d, input.ndim, "movedim") for d in wanted]
    if len(set(sources)) != len(sources) or len(set(places)) != len(places) or (
            len(sources) != len(places)):
        raise ShapeError(f"movedim: {source} to {destination} does not name distinct axes in pairs")
    if input.ndim == 0:
        return input
    order = [i for i in range(input.ndim) if i not in sources]
    for place, axis in builtins.sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return row("permute", input, order=tuple(order))  # type: ignore[no-any-return]





@only_method
def expand(input: Tensor, *size: Any) -> Tensor:
    """Axes of size 1 stretched without copying; -1 keeps a size."""
    wanted = _sizes(size)
    lead = len(wanted) - input.ndim
    if lead < 0:
        raise ShapeError(f"expand: {list(wanted)} has fewer axes than {type_of(input)}")
    shape = tuple(input.shape[i - lead] if n == -1 and i >= lead else n
                  for i, n in enumerate(wanted))
    if -1 in shape:
        raise ShapeError("expand: a new axis needs a size, not -1")
    return row("broadcast", input, shape=shape)  # type: ignore[no-any-return]


@only_method
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`."""
    return expand(input, *other.shape)


@method
def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Stretched to a shape, new axes in front."""
    return expand(input, *shape)


@public
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors stretched to their common shape."""
    try:
        shape = np.broadcast_shapes(*[tuple(x.shape) for x in tensors])
    except ValueError:
        shapes = ", ".join(str(type_of(x)) for x in tensors)
        raise ShapeError(f"broadcast_tensors: {shapes} do not broadcast together") from None
    return tuple(expand(x, *shape) for x in tensors)


@only_method
def repeat(input: Tensor, *sizes: Any) -> Tensor:
    """The whole tensor repeated along each axis."""
    counts = _sizes(sizes)
    lead = len(counts) - input.ndim
    if lead < 0:
        raise ShapeError(f"repeat: {list(counts)} has fewer axes than {type_of(input)}")
    shape = (*[1] * lead, *input.shape)
    doubled = [m for n in shape for m in (1, n)]
    wide = [m for c, n in zip(counts, shape, strict=True) for m in (c, n)]
    copy = row("identity", row("broadcast", reshape(input, *doubled), shape=tuple(wide)))
    return reshape(copy, *[c * n for c, n in zip(counts, shape, strict=True)])


@method
def tile(input: Tensor, dims: Sequence[int]) -> Tensor:
    """`repeat` with missing counts taken as 1."""
    return repeat(input, *[1] * (input.ndim - len(dims)), *dims)


@method
def repeat_interleave(input: Tensor, repeats: Any, dim: int | None = None) -> Tensor:
    """Each element (or slice along `dim`) repeated."""
    x = reshape(input, -1) if dim is None else input
    axis = axis_of(0 if dim is None else dim, x.ndim, "repeat_interleave")
    counts = repeats.numpy_now("repeats") if isinstance(repeats, Tensor) else repeats
    index = np.repeat(np.arange(x.shape[axis]), counts)
    return get(x, (*[slice(None)] * axis, index))  # type: ignore[no-any-return]


@method
def flip(input: Tensor, *dims: Any) -> Tensor:
    """The order along the given axes reversed."""
    axes = tuple(axis_of(d, input.ndim, "flip") for d in _sizes(dims))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"flip: an axis appears twice in {list(_sizes(dims))}")
    if input.ndim == 0:
        return input.clone()
    return row("flip", input, axes=axes)  # type: ignore[no-any-return]


@method
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved along axes, those that fall off coming back at the other end."""
    if dims is None:
        return reshape(roll(reshape(input, -1), shifts, 0), *input.shape)
    pairs = zip([shifts] if isinstance(shifts, int) else shifts,
                [dims] if isinstance(dims, int) else dims, strict=True)
    x = input
    for shift, dim in pairs:
        axis = axis_of(dim, x.ndim, "roll")
        n = x.shape[axis]
        cut = -shift % n if n else 0
        if cut:
            x = cat([narrow(x, axis, cut, n - cut), narrow(x, axis, 0, cut)], axis)
    return x if x is not input else input.clone()


@method
def fliplr(input: Tensor) -> Tensor:
    """The columns in reversed order."""
    return flip(input, 1)


@method
def flipud(input: Tensor) -> Tensor:
    """The rows in reversed order."""
    return flip(input, 0)


@method
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by k quarters in the plane of two axes, from the first to the second."""
    first, second = (axis_of(d, input.ndim, "rot90") for d in dims)
    if first == second:
        raise ShapeError("rot90: the two axes must differ")
    if k % 4 == 2:
        return flip(input, first, second)
    if k % 2:
        turned = transpose(input, first, second)
        return flip(turned, first if k % 4 == 1 else second)
    return input.clone()


def _at_least(rank: int, tensors: tuple[Any, ...]) -> Any:
    listed = len(tensors) == 1 and isinstance(tensors[0], (list, tuple))
    items = tensors[0] if listed else tensors
    grown = tuple(reshape(x, _grown(tuple(x.shape), rank)) if x.ndim < rank else x for x in items)
    return grown[0] if len(grown) == 1 and not listed else grown


def _grown(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """(n,) to (1, n) or (1, n, 1), (m, n) to (m, n, 1)."""
    if not shape:
        return (1,) * rank
    front = shape if len(shape) == 2 else (1, *shape)
    return (*front, *[1] * (rank - len(front)))


@public
def atleast_1d(*tensors: Any) -> Any:
    """Numbers as vectors of one element, all else as it is."""
    return _at_least(1, tensors)


@public
def atleast_2d(*tensors: Any) -> Any:
    """Numbers and vectors as matrices of one row, all else as it is."""
    return _at_least(2, tensors)


@public
def atleast_3d(*tensors: Any) -> Any:
    """With at least three axes: a vector becomes (1, n, 1), a matrix (m, n, 1)."""
    return _at_least(3, tensors)


@method
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of nearly equal size, or those between the given positions."""
    axis = axis_of(dim, input.ndim, "tensor_split")
    n, given = input.shape[axis], indices_or_sections
    if isinstance(given, int):
        if given <= 0:
            raise ShapeError(f"tensor_split: the number of pieces must be positive, got {given}")
        size, longer = divmod(n, given)
        cuts = [i * size + builtins.min(i, longer) for i in range(1, given)]
    else:
        cuts = [slice(0, int(i)).indices(n)[1] for i in given]
    starts = [0, *cuts]
    ends = [*cuts, n]
    return tuple(narrow(input, axis, a, builtins.max(b - a, 0))
                 for a, b in zip(starts, ends, strict=True))


@only_method
def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows along an axis, as a new last axis (a copy)."""
    axis = axis_of(dimension, input.ndim, "unfold")
    n = input.shape[axis] if input.ndim else 1
    if not 0 <= size <= n or step <= 0:
        raise ShapeError(f"unfold: windows of {size} by steps of {step} do not fit axis {axis} of "
                         f"{type_of(input)}")
    places = np.arange(0, n - size + 1, step)[:, None] + np.arange(size)
    x = input if input.ndim else reshape(input, 1)
    windows = get(x, (*[slice(None)] * axis, places))
    return movedim(windows, axis + 1, -1) if input.ndim else reshape(windows, size)


@method
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` positions along `dim` from `start`."""
    axis = axis_of(dim, input.ndim, "narrow")
    n = input.shape[axis]
    first = start + n if start < 0 else start
    if not 0 <= first <= n or length < 0 or first + length > n:
        raise ShapeError(f"narrow: positions {start} to {start + length} are out of range for axis "
                         f"{axis} of {type_of(input)}")
    return get(input, (*[slice(None)] * axis, slice(first, first + length)))  # type: ignore[no-any-return]


@method
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at `index` along `dim`, without that axis."""
    axis = axis_of(dim, input.ndim, "select")
    return get(input, (*[slice(None)] * axis, int(index)))  # type: ignore[no-any-return]


@method
def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of a given size (the last may be smaller), or of given sizes."""
    axis = axis_of(dim, input.ndim, "split")
    n = input.shape[axis]
    given = split_size_or_sections
    if isinstance(given, int):
        if given <= 0 and n:
            raise ShapeError(f"split: the size of the pieces must be positive, got {given}")
        sizes = [given] * (n // given) + ([n % given] if n % given else []) if n else [0]
    else:
        sizes = [int(s) for s in given]
        if builtins.sum(sizes) != n:
            raise ShapeError(f"split: the sizes {sizes} add up to {builtins.sum(sizes)}, axis "
                             f"{axis} of {type_of(input)} has {n}")
    starts = [builtins.sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(narrow(input, axis, s, size) for s, size in zip(starts, sizes, strict=True))


@method
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size, the last perhaps smaller."""
    if chunks <= 0:
        raise ShapeError(f"chunk: the number of pieces must be positive, got {chunks}")
    n = input.shape[axis_of(dim, input.ndim, "chunk")]
    return split(input, builtins.max(-(-n // chunks), 1), dim)


@method
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices along `dim`."""
    axis = axis_of(dim, input.ndim, "unbind")
    return tuple(select(input, axis, i) for i in range(input.shape[axis]))


def _one_dtype(tensors: Sequence[Any], what: str) -> list[Tensor]:
    items = list(tensors)
    if not items:
        raise ShapeError(f"{what}: give at least one tensor")
    for i, x in enumerate(items):
        if not isinstance(x, Tensor):
            raise ShapeError(f"{what}: item {i} is {type(x).__name__}, not a tensor")
    first = items[0].dtype
    if all(x.dtype is first for x in items):
        return items
    dtype = result_dtype(items)
    return [x.to(dtype) for x in items]


@public
@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing axis."""
    items = _one_dtype(tensors, "cat")
    items = [x for x in items if tuple(x.shape) != (0,)] or items[:1]
    if items[0].ndim == 0:
        raise ShapeError("cat: 0-d tensors cannot be joined; use stack")
    return joined(items, axis_of(dim, items[0].ndim, "cat"))


def joined(items: list[Tensor], axis: int) -> Tensor:
    """Many tensors are joined in groups: the rule of each input looks at all of its row."""
    while len(items) > 64:
        items = [row("concatenate", *items[i:i + 64], axis=axis) for i in range(0, len(items), 64)]
    return row("concatenate", *items, axis=axis)  # type: ignore[no-any-return]


@public
@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    items = _one_dtype(tensors, "stack")
    for i, x in enumerate(items):
        if x.shape != items[0].shape:
            raise ShapeError(f"stack: item {i} is {type_of(x)}, item 0 is {type_of(items[0])}; all "
                             "must have one shape")
    axis = axis_of(dim, items[0].ndim + 1, "stack")
    return joined([unsqueeze(x, axis) for x in items], axis)


@public
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along axis 1 (vectors along axis 0)."""
    items = [reshape(x, 1) if x.ndim == 0 else x for x in tensors]
    return cat(items, 0 if items[0].ndim == 1 else 1)


@public
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along axis 0, vectors as rows."""
    return cat([reshape(x, 1, -1) if x.ndim < 2 else x for x in tensors], 0)


@method
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements on a diagonal of two axes, which become the last axis; a view."""
    a, b = (axis_of(d, input.ndim, "diagonal") for d in (dim1, dim2))
    if a == b:
        raise ShapeError("diagonal: dim1 and dim2 must differ")
    return row("diagonal", input, offset=int(offset), axes=(a, b))  # type: ignore[no-any-return]


@method
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix with a vector as its diagonal."""
    if input.ndim == 2:
        return row("diagonal", input, offset=diagonal, axes=(0, 1)).clone()  # type: ignore[no-any-return]
    if input.ndim != 1:
        raise ShapeError(f"diag: a vector or a matrix, not {type_of(input)}")
    n = input.shape[0] + abs(diagonal)
    return row("undiagonal", input, shape=(n, n), offset=diagonal, axes=(0, 1))  # type: ignore[no-any-return]


@method
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last axis as their diagonal; their axes are dim1 and dim2."""
    a, b = (axis_of(d, input.ndim + 1, "diag_embed") for d in (dim1, dim2))
    if a == b:
        raise ShapeError("diag_embed: dim1 and dim2 must differ")
    n = input.shape[-1] + abs(offset)
    shape = list(input.shape[:-1])
    for axis in builtins.sorted((a, b)):
        shape.insert(axis, n)
    return row("undiagonal", input, shape=tuple(shape), offset=offset, axes=(a, b))  # type: ignore[no-any-return]


@public
def tril_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """(2, n): the rows and columns of the lower triangle of a matrix."""
    return new(np.stack(np.tril_indices(row, offset, col)))  # type: ignore[no-any-return]


@public
def triu_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """(2, n): the rows and columns of the upper triangle of a matrix."""
    return new(np.stack(np.triu_indices(row, offset, col)))  # type: ignore[no-any-return]


@method
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input.ndim != 2:
        raise ShapeError(f"trace: a matrix, not {type_of(input)}")
    return diagonal(input).sum()


@method
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two axes, zeros above it."""
    mask = np.tril(np.ones(tuple(input.shape[-2:]), bool), diagonal)
    return row("keep", input, np.broadcast_to(mask, tuple(input.shape)))  # type: ignore[no-any-return]


@method
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two axes, zeros below it."""
    mask = np.triu(np.ones(tuple(input.shape[-2:]), bool), diagonal)
    return row("keep", input, np.broadcast_to(mask, tuple(input.shape)))  # type: ignore[no-any-return]


@public
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids from vectors; indexing 'ij' (rows first) or 'xy'."""
    items = list(tensors[0]) if len(tensors) == 1 and isinstance(
        tensors[0], (list, tuple)) else list(tensors)
    if indexing == "xy" and len(items) > 1:
        swapped = meshgrid(items[1], items[0], *items[2:])
        grids = [transpose(g, 0, 1) for g in swapped]
        return (transpose(grids[1], 0, 1), transpose(grids[0], 0, 1), *(
            transpose(g, 0, 1) for g in grids[2:]))
    shape = tuple(x.numel() for x in items)
    return tuple(expand(reshape(x, *[-1 if i == k else 1 for k in range(len(items))]), *shape)
                 for i, x in enumerate(items))


@public
def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the class of each element, 0 elsewhere, along a new last axis."""
    classes = num_classes if num_classes >= 0 else int(input.max().item()) + 1
    if input.numel() and num_classes >= 0 and input._value is not None:
        low, high = int(input._value.min()), int(input._value.max())
        if low < 0 or high >= classes:
            raise ShapeError(f"one_hot: class {high if high >= classes else low} is out of range "
                             f"for {classes} classes")
    return row("cast", unsqueeze(input, -1) == new(np.arange(classes)), dtype=np.dtype("int64"))  # type: ignore[no-any-return]


@public
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant",
        value: float | None = None) -> Tensor:
    """More at the ends of axes; `pad` counts from the last axis: (left, right, top, bottom, ...).

    mode 'constant' adds `value` (0 unless given), 'replicate' repeats the element at the end,
    'reflect' mirrors at it without repeating it, 'circular' goes on at the other end. Negative
    padding cuts away. Raises `ShapeError` where an axis is too short to be mirrored or repeated.
    """
    if mode not in ("constant", *_AROUND):
        raise ShapeError(f"pad: mode {mode!r} must be 'constant', 'reflect', 'replicate' or "
                         "'circular'")
    if len(pad) % 2 or len(pad) // 2 > input.ndim:
        raise ShapeError(f"pad: {list(pad)} must hold two numbers for each of at most "
                         f"{input.ndim} axes")
    if mode == "constant":
        return _pad_constant(input, pad, 0.0 if value is None else value)
    if value:
        raise ShapeError(f"pad: value={value!r} is for mode='constant'; mode={mode!r} adds what "
                         "is there")
    x = input
    for i in range(len(pad) // 2):
        axis, before, after = input.ndim - 1 - i, int(pad[2 * i]), int(pad[2 * i + 1])
        n = x.shape[axis]
        if before + after + n < 1 or n == 0:
            raise ShapeError(f"pad: {list(pad)} leaves nothing of axis {axis} of {type_of(input)}")
        if before or after:
            x = _AROUND[mode](x, axis, before, after)
    return x


def _pad_constant(input: Tensor, pad: Sequence[int], value: float) -> Tensor:
    before = [0] * input.ndim
    after = [0] * input.ndim
    for i in range(len(pad) // 2):
        before[-1 - i], after[-1 - i] = pad[2 * i], pad[2 * i + 1]
    cut = tuple(slice(builtins.max(-b, 0), n - builtins.max(-a, 0))
                for b, a, n in zip(before, after, input.shape, strict=True))
    x = get(input, cut) if builtins.any(p < 0 for p in pad) else input
    grow = [(builtins.max(b, 0), builtins.max(a, 0)) for b, a in zip(before, after, strict=True)]
    shape = tuple(n + b + a for n, (b, a) in zip(x.shape, grow, strict=True))
    key = tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, grow, strict=True))
    placed = row("place", x, shape=shape, key=key)
    if value == 0:
        return placed  # type: ignore[no-any-return]
    inside = np.zeros(shape, bool)
    inside[key] = True
    return row("where", inside, placed, np.asarray(value, x.dtype))  # type: ignore[no-any-return]




def _part(x: Tensor, axis: int, first: int, last: int) -> Tensor:
    return get(x, (*[slice(None)] * axis, slice(first, last)))  # type: ignore[no-any-return]


def _around(before: Tensor | None, x: Tensor, after: Tensor | None, axis: int) -> Tensor:
    items = [item for item in (before, x, after) if item is not None]
    return joined(items, axis) if len(items) > 1 else x


def _pad_replicate(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    n = x.shape[axis]
    sizes = list(x.shape)

    def repeated(place: int, count: int) -> Tensor | None:
        if count <= 0:
            return None
        return expand(_part(x, axis, place, place + 1), *sizes[:axis], count, *sizes[axis + 1:])

    longer = _around(repeated(0, before), x, repeated(n - 1, after), axis)
    return _cut(longer, axis, before, after)


def _pad_reflect(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    n = x.shape[axis]
    if builtins.max(before, after) >= n:
        raise ShapeError(f"pad: mode 'reflect' mirrors axis {axis} of {type_of(x)} at its ends, "
                         f"which are left out: at most {n - 1} on each side, not "
                         f"{builtins.max(before, after)}")
    first = flip(_part(x, axis, 1, 1 + before), axis) if before > 0 else None
    last = flip(_part(x, axis, n - 1 - after, n - 1), axis) if after > 0 else None
    return _cut(_around(first, x, last, axis), axis, before, after)


def _pad_circular(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    x = _cut(x, axis, before, after)
    n = x.shape[axis]
    if builtins.max(before, after) > n:
        raise ShapeError(f"pad: mode 'circular' goes once around axis {axis} of {type_of(x)}: at "
                         f"most {n} on each side, not {builtins.max(before, after)}")
    first = _part(x, axis, n - before, n) if before > 0 else None
    last = _part(x, axis, 0, after) if after > 0 else None
    return _around(first, x, last, axis)


def _cut(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """x without what negative padding takes away."""
    if before >= 0 and after >= 0:
        return x
    return _part(x, axis, builtins.max(-before, 0), x.shape[axis] - builtins.max(-after, 0))


_AROUND = {"reflect": _pad_reflect, "replicate": _pad_replicate, "circular": _pad_circular}
