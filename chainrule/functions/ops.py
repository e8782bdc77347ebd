"""Functions and methods with PyTorch's signatures, made of rows of the table."""

from __future__ import annotations

import builtins
import math
from typing import Any, NamedTuple

import numpy as np

from chainrule import rows
from chainrule.core.bind import state
from chainrule.core.errors import DtypeError, ShapeError
from chainrule.core.record import new
from chainrule.core.types import int64, promote, result_dtype, type_of
from chainrule.prims.contract import check_product
from chainrule.tensor import Tensor

from .shaping import movedim, narrow
from .surface import FUNCTIONS, METHODS, axes_of, axis_of, method, numpy_names, public, row


def as_operand(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else new(np.asarray(x) if hasattr(x, "dtype") else np.asarray(
        x, result_dtype([x])))


def kept(y: Any, x: Any, axes: tuple[int, ...], keepdim: bool) -> Any:
    """y with the reduced axes back as size 1."""
    if not keepdim:
        return y
    return row("reshape", y, shape=tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


def need_float(x: Tensor, what: str) -> None:
    if x.dtype.kind != "f":
        raise DtypeError(f"{what} of {type_of(x)}: the result is not a whole number; convert "
                         "first, x.float()")


# ---------------------------------------------------------------- reductions


def _summable(x: Tensor, dtype: Any) -> Tensor:
    if dtype is not None:
        return x.to(dtype)
    return x.to(int64) if x.dtype.kind in "bui" else x


@method
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
        axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over all axes, or over `dim`; whole numbers and bools sum as int64. NumPy's
    `axis` and `keepdims` are taken for `dim` and `keepdim`, here and in the other reductions."""
    if axis is not None or keepdims:
        dim, keepdim = dim if axis is None else axis, keepdim or keepdims
    x = _summable(input, dtype)
    axes = axes_of(dim, x.ndim, "sum")
    return kept(row("sum", x, axes=axes), x, axes, keepdim)  # type: ignore[no-any-return]


@method
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
         axis: Any = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over all axes, or over `dim`."""
    if axis is not None or keepdims:
        dim, keepdim = dim if axis is None else axis, keepdim or keepdims
    x = input if dtype is None else input.to(dtype)
    need_float(x, "mean")
    axes = axes_of(dim, x.ndim, "mean")
    return kept(row("mean", x, axes=axes), x, axes, keepdim)  # type: ignore[no-any-return]


@method
@numpy_names
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *,
         dtype: Any = None) -> Tensor:
    """The product over all elements, or along `dim`; gradients are exact with zeros too."""
    x = _summable(input, dtype)
    if dim is None:
        return row("prod", x.reshape(-1), axis=0)  # type: ignore[no-any-return]
    axis = axis_of(dim, x.ndim, "prod")
    if x.ndim == 0:
        return x.clone()
    return kept(row("prod", x, axis=axis), x, (axis,), keepdim)  # type: ignore[no-any-return]


@method
@numpy_names
def var(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """The variance, divided by n − correction (1 unless given)."""
    return _spread("var", input, dim, unbiased, keepdim, correction)


def _spread(name: str, input: Tensor, dim: Any, unbiased: Any, keepdim: bool,
            correction: Any) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    need_float(input, name)
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    axes = axes_of(dim, input.ndim, name)
    y = row(name, input, axes=axes, correction=correction)
    return kept(y, input, axes, keepdim)  # type: ignore[no-any-return]


@method
@numpy_names
def std(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """The standard deviation, the square root of `var`; its derivative at 0 is taken as 0."""
    return _spread("std", input, dim, unbiased, keepdim, correction)


@public
@numpy_names
def var_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """(variance, mean)."""
    return (var(input, dim, unbiased, keepdim, correction=correction),
            mean(input, None if isinstance(dim, bool) else dim, keepdim))


@method
@numpy_names
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log Σ exp(x) over `dim`, stable for large |x|."""
    x = input if input.dtype.kind == "f" else input.float()
    axes = axes_of(dim, x.ndim, "logsumexp")
    if any_zero(x, axes):
        return kept(row("sum", x, axes=axes).log(), x, axes, keepdim)  # type: ignore[no-any-return]
    return kept(row("logsumexp", x, axes=axes), x, axes, keepdim)  # type: ignore[no-any-return]


def any_zero(x: Tensor, axes: tuple[int, ...]) -> bool:
    return builtins.any(x.shape[i] == 0 for i in axes)


@method
@numpy_names
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The maximum over `dim`; ties share the gradient equally."""
    axes = axes_of(dim, input.ndim, "amax")
    return kept(row("amax", input, axes=axes), input, axes, keepdim)  # type: ignore[no-any-return]


@method
@numpy_names
def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The minimum over `dim`; ties share the gradient equally."""
    axes = axes_of(dim, input.ndim, "amin")
    return kept(row("amin", input, axes=axes), input, axes, keepdim)  # type: ignore[no-any-return]


class Extreme(NamedTuple):
    """Values and where they were found."""

    values: Tensor
    indices: Tensor


def _extreme(name: str, input: Tensor, dim: Any, keepdim: bool) -> Any:
    if isinstance(dim, Tensor):
        return row("maximum" if name == "max" else "minimum", input, dim)
    if dim is None:
        if not input.numel():
            raise ShapeError(f"{name}: {type_of(input)} has no elements, and nothing has no "
                             f"{name}. Check for empty input first.")
        return row("a" + name, input, axes=tuple(range(input.ndim)))
    if input.ndim == 0:
        axis_of(dim, 0, name)
        return Extreme(input.clone(), new(np.asarray(0)))
    axis = axis_of(dim, input.ndim, name)
    indices = row("arg" + name, input, axis=axis)
    wide = row("reshape", indices, shape=(*input.shape[:axis], 1, *input.shape[axis + 1:]))
    values = row("gather", input, wide, axis=axis)
    if not keepdim:
        return Extreme(row("reshape", values, shape=tuple(indices.shape)), indices)
    return Extreme(values, wide)


@method
@numpy_names
def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The maximum of all elements; (values, indices) along `dim`; elementwise with a tensor."""
    return _extreme("max", input, dim, keepdim)


@method
@numpy_names
def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The minimum of all elements; (values, indices) along `dim`; elementwise with a tensor."""
    return _extreme("min", input, dim, keepdim)


def _position(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if dim is None:
        y = row(name, input.reshape(-1), axis=0)
        return row("reshape", y, shape=(1,) * input.ndim) if keepdim else y  # type: ignore[no-any-return]
    axis = axis_of(dim, input.ndim, name)
    if input.ndim == 0:
        return new(np.asarray(0))  # type: ignore[no-any-return]
    return kept(row(name, input, axis=axis), input, (axis,), keepdim)  # type: ignore[no-any-return]


@method
@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the maximum is (the first of ties); not differentiable."""
    return _position("argmax", input, dim, keepdim)


@method
@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the minimum is (the first of ties); not differentiable."""
    return _position("argmin", input, dim, keepdim)


@method
@numpy_names
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Is some element non-zero?"""
    axes = axes_of(dim, input.ndim, "any")
    return kept(row("any", input, axes=axes), input, axes, keepdim)  # type: ignore[no-any-return]


@method
@numpy_names
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Are all elements non-zero?"""
    axes = axes_of(dim, input.ndim, "all")
    return kept(row("all", input, axes=axes), input, axes, keepdim)  # type: ignore[no-any-return]


@method
@numpy_names
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are not zero."""
    return (input != 0).sum(dim)


@method
@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The running sum along `dim`."""
    x = _summable(input, dtype)
    axis = axis_of(dim, x.ndim, "cumsum")
    return x.clone() if x.ndim == 0 else row("cumsum", x, axis=axis)


@method
@numpy_names
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The running product along `dim`."""
    x = _summable(input, dtype)
    axis = axis_of(dim, x.ndim, "cumprod")
    return x.clone() if x.ndim == 0 else row("cumprod", x, axis=axis)


@method
@numpy_names
def norm(input: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The p-norm (Σ|x|^p)^(1/p); p = inf is the largest |x|. Its derivative at 0 is taken as 0."""
    need_float(input, "norm")
    if input.dtype == np.float16:              # the sum of squares does not fit into it
        return norm(input.float(), p, dim, keepdim).half()
    if p in ("fro", None):
        p = 2
    axes = axes_of(dim, input.ndim, "norm")
    if p == math.inf:
        return amax(input.abs(), axes, keepdim)
    if p == -math.inf:
        return amin(input.abs(), axes, keepdim)
    if p == 0:
        return sum((input != 0).to(input.dtype), axes, keepdim)
    if p == 1:
        return sum(input.abs(), axes, keepdim)
    if p == 2:
        total = sum(input * input, axes, keepdim)
    else:
        zero = input == 0
        powers = row("where", zero, ones_of(input), input.abs()) ** p
        total = sum(row("keep", powers, ~zero), axes, keepdim)
    safe = row("where", total == 0, ones_of(total), total)
    root = safe.sqrt() if p == 2 else safe ** (1.0 / p)
    return row("keep", root, total != 0)  # type: ignore[no-any-return]


def ones_of(x: Tensor) -> Tensor:
    return new(np.ones(tuple(x.shape), x.dtype))  # type: ignore[no-any-return]


# ---------------------------------------------------------------- matrix products


@method
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product over the last two axes; vectors count as rows and columns, leading axes
    broadcast (NumPy's and PyTorch's rules)."""
    a, b = input, other
    if not isinstance(b, Tensor) or not isinstance(a, Tensor):
        a, b = as_operand(a), as_operand(b)
    if a.ndim == 2 and b.ndim == 2:
        return row("matmul", a, b)  # type: ignore[no-any-return]
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"matmul: cannot multiply {type_of(a)} by {type_of(b)}: both need at "
                         "least one axis; use * for a single number")
    left, right = a.ndim == 1, b.ndim == 1
    if left or right:
        check_product(a, b)
    x = a.unsqueeze(0) if left else a
    y = b.unsqueeze(1) if right else b
    if x.shape[-1] == y.shape[-2] and y.ndim == 2 and x.ndim > 2:
        lead = tuple(x.shape[:-1])
        flat = row("matmul", x.reshape(math.prod(lead), x.shape[-1]), y)
        z = flat.reshape(*lead, y.shape[-1])
    else:
        try:
            lead = np.broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
        except ValueError:
            raise ShapeError(f"matmul: cannot multiply {type_of(a)} by {type_of(b)}: the leading "
                             f"axes {list(x.shape[:-2])} and {list(y.shape[:-2])} do not "
                             "broadcast") from None
        z = row("matmul", stretched(x, (*lead, *x.shape[-2:])),
                stretched(y, (*lead, *y.shape[-2:])))
    if left:
        z = z.squeeze(-2)
    return z.squeeze(-1) if right else z  # type: ignore[no-any-return]


def stretched(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape) == shape else row("broadcast", x, shape=shape)


@method
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise ShapeError(f"mm: both must be matrices, got {type_of(input)} and {type_of(mat2)}; "
                         "matmul takes other shapes")
    return row("matmul", input, mat2)  # type: ignore[no-any-return]


@method
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices."""
    if input.ndim != 3 or mat2.ndim != 3:
        raise ShapeError(f"bmm: both must have 3 axes, got {type_of(input)} and {type_of(mat2)}; "
                         "matmul takes other shapes")
    return row("matmul", input, mat2)  # type: ignore[no-any-return]


@method
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Matrix times vector."""
    if input.ndim != 2 or vec.ndim != 1:
        raise ShapeError(f"mv: a matrix and a vector, not {type_of(input)} and {type_of(vec)}; "
                         "matmul takes other shapes")
    return matmul(input, vec)


@method
def dot(input: Tensor, other: Tensor) -> Tensor:
    """The sum of the products of two vectors."""
    if input.ndim != 1 or other.ndim != 1:
        raise ShapeError(f"dot: both must be vectors, got {type_of(input)} and {type_of(other)}; "
                         "use matmul or (a * b).sum()")
    return matmul(input, other)


@method
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The products of all pairs of two vectors' elements."""
    return input.unsqueeze(1) * vec2.unsqueeze(0)


@method
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1,
          alpha: float = 1) -> Tensor:
    """beta·input + alpha·(mat1 @ mat2)."""
    product = mm(mat1, mat2)
    product = product if alpha == 1 else product * alpha
    return product + (input if beta == 1 else input * beta)


# ---------------------------------------------------------------- selection


@public
def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, else `other`. No gradient, not even NaN, reaches the
    branch that was not selected. With the condition alone: the indices where it holds."""
    if input is None or other is None:
        return nonzero(condition, as_tuple=True)
    condition = as_operand(condition)
    if condition.dtype.kind != "b":
        raise DtypeError(f"where: the condition must be bool, got {type_of(condition)}; write "
                         "condition != 0")
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        input = as_operand(input)
    return row("where", condition, input, other)


@method
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of the non-zero elements."""
    found = np.nonzero(input.numpy_now("nonzero()"))
    if as_tuple:
        return tuple(new(i) for i in found)
    return new(np.stack(found, 1) if found else np.zeros((int(bool(input)), 0), np.int64))


@method
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limited to [min, max]; the limits are numbers or tensors."""
    if min is None and max is None:
        raise ShapeError("clamp: give min, max or both")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        x = input if min is None else row("maximum", input, min)
        return x if max is None else row("minimum", x, max)
    # a number of NumPy's has a dtype, which must not become that of the result
    min, max = (m.item() if isinstance(m, np.generic) else m for m in (min, max))
    wanted = promote(input.dtype, None) if input.dtype.kind == "f" else result_dtype(
        [input, *[m for m in (min, max) if m is not None]])
    x = input.to(wanted)
    if x.dtype.kind != "f":
        min, max = (None if m is None else int(m) for m in (min, max))
    return row("clamp", x, min=min, max=max)  # type: ignore[no-any-return]


METHODS["clip"] = clamp


@method
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """y[i][j] = x[index[i][j]][j] along dim 0, and so on."""
    axis = axis_of(dim, input.ndim, "gather")
    if input.ndim == 0:
        return gather(input.reshape(1), 0, index.reshape(-1)).reshape(*index.shape)
    check_index(index, input, "gather")
    key = tuple(slice(0, n if i == axis else index.shape[i]) for i, n in enumerate(input.shape))
    if builtins.any(index.shape[i] > n for i, n in enumerate(input.shape) if i != axis):
        raise ShapeError(f"gather: the index {type_of(index)} is larger than {type_of(input)} in "
                         f"an axis other than {axis}")
    x = input if builtins.all(k.stop == n for k, n in zip(key, input.shape, strict=True)) \
        else row("slice", input, key=key)
    return row("gather", x, index, axis=axis)  # type: ignore[no-any-return]


def check_index(index: Tensor, x: Tensor, what: str) -> None:
    if index.dtype.kind not in "iu":
        raise DtypeError(f"{what}: the index must hold whole numbers, got {type_of(index)}; "
                         "write index.long()")
    if index.ndim != x.ndim:
        raise ShapeError(f"{what}: index {type_of(index)} and input {type_of(x)} must have the "
                         "same number of axes")


def one_dtype(what: str, x: Tensor, src: Tensor) -> None:
    """What is written must have the dtype of the place."""
    if src.dtype != x.dtype:
        raise DtypeError(f"{what}: the source {type_of(src)} must have the dtype of the input "
                         f"{type_of(x)}; write src.to(x.dtype)")


@method
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """x with src[i][j] added at [index[i][j]][j] along dim 0, and so on."""
    axis = axis_of(dim, input.ndim, "scatter_add")
    check_index(index, input, "scatter_add")
    one_dtype("scatter_add", input, src)
    key = tuple(slice(0, n) for n in index.shape)
    part = src if src.shape == index.shape else row("slice", src, key=key)
    added = row("scatter_add", part, index, axis=axis, size=input.shape[axis])
    if added.shape != input.shape:
        added = row("place", added, shape=tuple(input.shape),
                    key=tuple(slice(0, n) for n in added.shape))
    return input + added  # type: ignore[no-any-return]


@method
def scatter(input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """x with src[i][j] written at [index[i][j]][j] along dim 0, and so on."""
    axis = axis_of(dim, input.ndim, "scatter")
    check_index(index, input, "scatter")
    if input.ndim == 0:
        given = src.reshape(1) if isinstance(src, Tensor) else src
        return scatter(input.reshape(1), 0, index.reshape(1), given).reshape(())
    if isinstance(src, Tensor):
        one_dtype("scatter", input, src)
        values = src if src.shape == index.shape else row(
            "slice", src, key=tuple(slice(0, n) for n in index.shape))
    else:
        values = new(np.full(tuple(index.shape), src, input.dtype))
    grid = np.ogrid[tuple(slice(n) for n in index.shape)]
    points = [index if i == axis else new(np.asarray(g)) for i, g in enumerate(grid)]
    return row("index_put", input, values, *points)  # type: ignore[no-any-return]


@method
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of x along `dim` at the given positions."""
    axis = axis_of(dim, input.ndim, "index_select")
    if index.ndim > 1:
        raise ShapeError(f"index_select: the index must be a vector, not {type_of(index)}; "
                         "x[..., index] takes other shapes")
    return take_axis(input, index.reshape(-1), axis)


def take_axis(x: Tensor, index: Tensor, axis: int) -> Tensor:
    key = (*[slice(None)] * axis, index)
    return x[key]


@method
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *,
              alpha: float = 1) -> Tensor:
    """x with the slices of source added at the given positions along `dim`."""
    axis = axis_of(dim, input.ndim, "index_add")
    one_dtype("index_add", input, source)
    if index.ndim != 1 or (source.ndim and index.shape[0] != source.shape[axis]):
        raise ShapeError(f"index_add: the index {type_of(index)} must hold one position for each "
                         f"of the slices of {type_of(source)} along dim {dim}")
    moved = movedim(source if alpha == 1 else source * alpha, axis, 0)
    shape = tuple(movedim(input, axis, 0).shape)
    return input + movedim(row("index_add", moved, index, shape=shape), 0, axis)


@method
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """x at the indices along `dim`, the other axes broadcast."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    axis = axis_of(dim, input.ndim, "take_along_dim")
    lead = [builtins.max(m, n) if i != axis else 0
            for i, (m, n) in enumerate(zip(input.shape, indices.shape, strict=True))]
    x = stretched(input, tuple(n if i == axis else lead[i] for i, n in enumerate(input.shape)))
    index = stretched(indices, tuple(n if i == axis else lead[i]
                                     for i, n in enumerate(indices.shape)))
    return gather(x, axis, index)


@method
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """x with `value` where the mask holds."""
    if mask.dtype.kind != "b":
        raise DtypeError(f"masked_fill: the mask must be bool, got {type_of(mask)}")
    if isinstance(value, Tensor):
        value = value.to(input.dtype)
    else:
        traced = None if state.capture is None else state.capture.number(value, input.dtype)
        value = np.asarray(value, input.dtype) if traced is None else traced
    return row("where", mask, value, input)  # type: ignore[no-any-return]


@method
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask holds, as a vector."""
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    return stretched(input, shape)[stretched(mask, shape)]


@method
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The order that sorts along `dim`; ties keep their order."""
    if input.ndim == 0:
        return new(np.asarray(0))  # type: ignore[no-any-return]
    axis = axis_of(dim, input.ndim, "argsort")
    return row("argsort", input, axis=axis, descending=bool(descending))  # type: ignore[no-any-return]


@method
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Extreme:
    """(sorted values, their old positions) along `dim`; the gradient goes back to where each
    value came from."""
    order = argsort(input, dim, descending)
    if input.ndim == 0:
        return Extreme(input.clone(), order)
    return Extreme(gather(input, dim, order), order)


@method
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True,
         sorted: bool = True) -> Extreme:
    """The k largest (or smallest) elements along `dim`, in order."""
    axis = axis_of(dim, input.ndim, "topk")
    if not 0 <= k <= (input.shape[axis] if input.ndim else 1):
        raise ShapeError(f"topk: k = {k} is out of range for {type_of(input)} along dim {dim}")
    values, order = sort(input, dim, descending=largest)
    return Extreme(narrow(values, axis, 0, k), narrow(order, axis, 0, k))


@method
def softmax(input: Tensor, dim: int = -1, *, dtype: Any = None) -> Tensor:
    """exp(x)/Σ exp(x) along `dim`."""
    x = input if dtype is None else input.to(dtype)
    need_float(x, "softmax")
    if x.ndim == 0:
        return softmax(x.reshape(1), 0).reshape(())
    return row("softmax", x, axis=axis_of(dim, x.ndim, "softmax"))  # type: ignore[no-any-return]


@method
def log_softmax(input: Tensor, dim: int = -1, *, dtype: Any = None) -> Tensor:
    """log(exp(x)/Σ exp(x)) along `dim`."""
    x = input if dtype is None else input.to(dtype)
    need_float(x, "log_softmax")
    if x.ndim == 0:
        return log_softmax(x.reshape(1), 0).reshape(())
    return row("log_softmax", x, axis=axis_of(dim, x.ndim, "log_softmax"))  # type: ignore[no-any-return]


def alias(name: str, base: str) -> None:
    """One more name for a generated function."""
    function = getattr(rows, base)
    METHODS[name] = FUNCTIONS[name] = function


for _name, _base in {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
                     "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
                     "absolute": "abs", "negative": "neg", "multiply": "mul", "subtract": "sub",
                     "greater": "gt", "less": "lt", "not_equal": "ne", "fix": "trunc",
                     "greater_equal": "ge", "less_equal": "le"}.items():
    alias(_name, _base)
