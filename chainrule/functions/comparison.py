"""Comparing, counting and searching, none of it differentiable, and what dtypes can hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from chainrule import rows
from chainrule.core.config import settings
from chainrule.core.errors import DtypeError, ShapeError
from chainrule.core.record import new
from chainrule.core.types import as_dtype, float32, float64, promote, result_dtype, type_of
from chainrule.tensor import Tensor, array_from

from .shaping import reshape
from .surface import axis_of, method, public


@method
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8,
            equal_nan: bool = False) -> Tensor:
    """|input − other| <= atol + rtol·|other|, element by element."""
    if input.dtype != other.dtype:
        raise DtypeError(f"isclose: {type_of(input)} and {type_of(other)} must have one dtype")
    same: Tensor = input == other
    if input.dtype.kind == "b":
        return same
    distance = rows.abs(input - other)
    near = (distance <= atol + rtol * rows.abs(other)) & rows.isfinite(distance)
    close: Tensor = same | near
    return close | (rows.isnan(input) & rows.isnan(other)) if equal_nan else close


@method
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8,
             equal_nan: bool = False) -> bool:
    """Does `isclose` hold for all elements?

    >>> import chainrule as cr
    >>> cr.allclose(cr.ones(2), cr.ones(2) + 1e-7)
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


@method
def equal(input: Tensor, other: Tensor) -> bool:
    """Do both have one shape and equal elements?"""
    return input.shape == other.shape and bool((input == other).all())


@method
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each whole number 0, 1, 2 ... occurs in a vector, or the sum of its weights."""
    x = input.numpy_now("bincount()")
    if x.ndim != 1 or x.dtype.kind not in "iu" or (x.size and x.min() < 0):
        raise ShapeError(f"bincount: a vector of whole numbers from 0 on, not {type_of(input)}")
    if weights is None:
        return new(np.bincount(x, minlength=minlength).astype(np.int64))  # type: ignore[no-any-return]
    w = weights.numpy_now("bincount()")
    kept = w.dtype if w.dtype == float32 else float64
    return new(np.bincount(x, w, minlength).astype(kept))  # type: ignore[no-any-return]


@method
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False,
           return_counts: bool = False, dim: int | None = None) -> Any:
    """The distinct elements (or slices along `dim`) in order; on request also the place of each
    element among them and how often each occurs."""
    axis = None if dim is None else axis_of(dim, input.ndim, "unique")
    values, inverse, counts = np.unique(input.numpy_now("unique()"), return_inverse=True,
                                        return_counts=True, axis=axis)
    if axis is None:
        inverse = inverse.reshape(tuple(input.shape))
    found = [new(values)]
    if return_inverse:
        found.append(new(inverse.astype(np.int64)))
    if return_counts:
        found.append(new(counts.astype(np.int64)))
    return found[0] if len(found) == 1 else tuple(found)


@public
def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False,
                 right: bool = False, side: str | None = None) -> Tensor:
    """Where each element would be inserted to keep the last axis sorted.

    Before equal elements, or after them if `right` (side='right'). The leading axes of both must
    be equal, unless the sequence is a vector.
    """
    places = sorted_sequence.numpy_now("searchsorted()")
    values = input.numpy_now("searchsorted()") if isinstance(input, Tensor) else array_from(input)
    where_ = side or ("right" if right else "left")
    if where_ not in ("left", "right"):
        raise ShapeError(f"searchsorted: side={side!r}; write 'left' or 'right'")
    if places.ndim == 1:
        found = np.searchsorted(places, values, where_)  # type: ignore[call-overload]
    else:
        if places.shape[:-1] != values.shape[:-1]:
            raise ShapeError(f"searchsorted: the leading axes of {type_of(places)} and "
                             f"{type_of(values)} must be equal")
        rows_ = zip(places.reshape(-1, places.shape[-1]), values.reshape(-1, values.shape[-1]),
                    strict=True)
        found = np.stack([np.searchsorted(p, v, where_) for p, v in rows_])  # type: ignore[call-overload]
        found = found.reshape(values.shape)
    return new(np.asarray(found, np.int32 if out_int32 else np.int64))  # type: ignore[no-any-return]


@public
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False,
              right: bool = False) -> Tensor:
    """In which interval between the sorted boundaries each element lies."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@method
def argwhere(input: Tensor) -> Tensor:
    """The indices of the non-zero elements, one row each."""
    return input.nonzero()  # type: ignore[no-any-return]


@method
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions in the flattened tensor; the gradient goes back to them."""
    if index.dtype.kind not in "iu":
        raise DtypeError(f"take: the index must hold whole numbers, got {type_of(index)}")
    return reshape(input, -1)[index]


# ---------------------------------------------------------------- dtypes


@public
def result_type(tensor1: Any, tensor2: Any) -> np.dtype[Any]:
    """The dtype of an operation on two tensors or numbers."""
    return result_dtype([tensor1, tensor2])


@public
def promote_types(type1: Any, type2: Any) -> np.dtype[Any]:
    """The smallest dtype that stands for both."""
    dtype = promote(as_dtype(type1), as_dtype(type2))
    assert dtype is not None
    return dtype


class FloatInfo(NamedTuple):
    """What a float dtype can hold: sizes as Python floats."""

    bits: int
    eps: float
    max: float
    min: float
    tiny: float
    smallest_normal: float
    resolution: float
    dtype: str


class WholeInfo(NamedTuple):
    """What a whole-number dtype can hold."""

    bits: int
    max: int
    min: int
    dtype: str


@public
def finfo(type: Any = None) -> FloatInfo:
    """The limits of a float dtype (the default one if none is given)."""
    dtype = settings.default_dtype if type is None else as_dtype(type)
    if dtype.kind != "f":
        raise DtypeError(f"finfo is for float dtypes; iinfo({dtype}) gives the limits of {dtype}")
    i = np.finfo(dtype)
    return FloatInfo(i.bits, float(i.eps), float(i.max), float(i.min), float(i.tiny),
                     float(i.smallest_normal), float(i.resolution), str(dtype))


@public
def iinfo(type: Any) -> WholeInfo:
    """The limits of a whole-number dtype.

    >>> import chainrule as cr
    >>> cr.iinfo(cr.uint8).max
    255
    """
    dtype = as_dtype(type)
    if dtype.kind not in "iu":
        raise DtypeError(f"iinfo is for whole-number dtypes, not {dtype}")
    i = np.iinfo(dtype)
    return WholeInfo(i.bits, i.max, i.min, str(dtype))
