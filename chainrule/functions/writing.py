"""Tensors with elements at given places replaced; each has an in-place twin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.core.errors import DtypeError, IndexingError, ShapeError
from chainrule.core.types import type_of
from chainrule.indexing import fitted, parse, put
from chainrule.tensor import Tensor

from .ops import one_dtype, stretched
from .shaping import narrow, reshape
from .surface import axis_of, method, row


def _along(axis: int, index: Tensor, what: str) -> tuple[Any, ...]:
    if index.ndim > 1 or index.dtype.kind not in "iu":
        raise ShapeError(f"{what}: the index must be a vector of whole numbers, not "
                         f"{type_of(index)}")
    return (*[slice(None)] * axis, reshape(index, -1))


@method
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """x with one number written to the slices at the given positions along `dim`."""
    axis = axis_of(dim, input.ndim, "index_fill")
    return put(input, _along(axis, index, "index_fill"), value)  # type: ignore[no-any-return]


@method
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """x with the slices of `source` written at the given positions along `dim`."""
    axis = axis_of(dim, input.ndim, "index_copy")
    one_dtype("index_copy", input, source)
    wanted = (*input.shape[:axis], index.numel(), *input.shape[axis + 1:])
    if tuple(source.shape) != wanted:
        raise ShapeError(f"index_copy: the source {type_of(source)} must be {list(wanted)}")
    return put(input, _along(axis, index, "index_copy"), source)  # type: ignore[no-any-return]


@method
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """x with `values` written (or added, if `accumulate`) at x[indices]."""
    one_dtype("index_put", input, values)
    key = tuple(indices)
    if not accumulate:
        return put(input, key, values)  # type: ignore[no-any-return]
    basic, arrays = parse(input, key)
    if list(arrays) != list(range(len(arrays))) or not all(isinstance(k, slice) for k in basic):
        raise IndexingError("index_put(accumulate=True) takes index arrays for the first axes")
    points = np.broadcast_shapes(*[tuple(a.shape) for a in arrays.values()])
    shape = tuple(input.shape)
    spread = fitted(values, (*points, *shape[len(arrays):]), input)
    return input + row("index_add", spread, *arrays.values(), shape=shape)  # type: ignore[no-any-return]


@method
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """x with the elements of `source`, in order, written where the mask holds."""
    one_dtype("masked_scatter", input, source)
    if mask.dtype.kind != "b":
        raise DtypeError(f"masked_scatter: the mask must be bool, got {type_of(mask)}")
    chosen = stretched(mask, tuple(input.shape))
    count = int(chosen.numpy_now("masked_scatter()").sum())
    if math.prod(source.shape) < count:
        raise ShapeError(f"masked_scatter: the mask holds at {count} places, the source has "
                         f"{source.numel()} elements")
    return put(input, chosen, narrow(reshape(source, -1), 0, 0, count))  # type: ignore[no-any-return]
