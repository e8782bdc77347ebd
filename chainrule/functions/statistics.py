"""Order statistics, running extremes and sums that skip NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.core.types import type_of
from chainrule.tensor import Tensor

from . import ops
from .ops import Extreme, argmax, argsort, gather, mean, std, where
from .shaping import narrow, reshape
from .surface import METHODS, axis_of, method, numpy_names, only_method, public, row


@public
@numpy_names
def std_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean)."""
    return (std(input, dim, unbiased, keepdim, correction=correction),
            mean(input, None if isinstance(dim, bool) else dim, keepdim))


@method
@numpy_names
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum of the elements that are not NaN."""
    return ops.sum(where(rows.isnan(input), 0, input), dim, keepdim, dtype=dtype)


@method
@numpy_names
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean of the elements that are not NaN."""
    return nansum(input, dim, keepdim, dtype=dtype) / ops.sum(~rows.isnan(input), dim, keepdim)


@method
@numpy_names
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Extreme:
    """(values, indices) of the k-th smallest element along `dim`, k counted from 1."""
    axis = axis_of(dim, input.ndim, "kthvalue")
    x = reshape(input, 1) if input.ndim == 0 else input
    if not 1 <= k <= x.shape[axis]:
        raise ShapeError(f"kthvalue: k = {k} is out of range for axis {axis} of {type_of(input)}")
    return _picked(x, narrow(argsort(x, axis), axis, k - 1, 1), axis, keepdim or not input.ndim,
                   input)


def _picked(x: Tensor, index: Tensor, axis: int, keepdim: bool, input: Tensor) -> Extreme:
    values = gather(x, axis, index)
    if keepdim and input.ndim:
        return Extreme(values, index)
    shape = tuple(n for i, n in enumerate(x.shape) if i != axis)
    return Extreme(reshape(values, shape), reshape(index, shape))


@method
@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element of all, or (values, indices) along `dim`; of two the lower.

    A NaN is the median of what holds it; `nanmedian` passes over NaN. The gradient goes to the one
    element that was chosen.
    """
    if dim is None:
        return median(reshape(input, -1), 0).values if input.numel() else new(
            np.asarray(np.nan, input.dtype))
    axis, middle = _middle(input, dim, "median")
    x = reshape(input, 1) if input.ndim == 0 else input
    if x.dtype.kind == "f":
        holes = rows.isnan(x)
        first = argmax(holes.long(), axis, keepdim=True)
        middle = where(holes.any(axis, keepdim=True), first, middle)
    return _picked(x, middle, axis, keepdim, input)


def _middle(input: Tensor, dim: int, what: str) -> tuple[int, Tensor]:
    axis = axis_of(dim, input.ndim, what)
    x = reshape(input, 1) if input.ndim == 0 else input
    if not x.shape[axis]:
        raise ShapeError(f"{what}: axis {axis} of {type_of(input)} has no elements")
    return axis, narrow(argsort(x, axis), axis, (x.shape[axis] - 1) // 2, 1)


@method
@numpy_names
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """`median` of the elements that are not NaN."""
    if dim is None:
        return nanmedian(reshape(input, -1), 0).values if input.numel() else median(input)
    axis, middle = _middle(input, dim, "nanmedian")
    x = reshape(input, 1) if input.ndim == 0 else input
    if x.dtype.kind == "f":
        count = ops.sum(~rows.isnan(x), axis, True)
        place = rows.maximum(count - 1, 0) // 2
        middle = gather(argsort(x, axis), axis, place)
    return _picked(x, middle, axis, keepdim, input)


def _running(name: str, input: Tensor, dim: int) -> Extreme:
    axis = axis_of(dim, input.ndim, name)
    if input.ndim == 0:
        return Extreme(input.clone(), new(np.asarray(0)))
    index = row(f"cumarg{name[3:]}", input, axis=axis)
    return Extreme(gather(input, axis, index), index)


@method
@numpy_names
def cummax(input: Tensor, dim: int) -> Extreme:
    """(values, indices) of the largest element so far along `dim`; of ties the last."""
    return _running("cummax", input, dim)


@method
@numpy_names
def cummin(input: Tensor, dim: int) -> Extreme:
    """(values, indices) of the smallest element so far along `dim`; of ties the last."""
    return _running("cummin", input, dim)


@method
@numpy_names
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sum of exp(x) along `dim`, stable."""
    axis = axis_of(dim, input.ndim, "logcumsumexp")
    return input.clone() if input.ndim == 0 else row("logcumsumexp", input, axis=axis)


@method
@numpy_names
def diff(input: Tensor, n: int = 1, dim: int = -1) -> Tensor:
    """The differences of neighbours along `dim`, taken n times."""
    axis = axis_of(dim, input.ndim, "diff")
    if input.ndim == 0 or n < 0:
        raise ShapeError(f"diff: n = {n} times along axis {axis} of {type_of(input)}")
    x = input
    for _ in range(min(n, x.shape[axis])):
        length = x.shape[axis] - 1
        later, earlier = narrow(x, axis, 1, length), narrow(x, axis, 0, length)
        x = later != earlier if x.dtype.kind == "b" else later - earlier
    return x


@method
@numpy_names
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The q-quantiles along `dim` (of all elements if None), the axis of several q first.

    Between two elements `interpolation` is 'linear', 'lower', 'higher', 'nearest' or 'midpoint'
    (Hyndman and Fan 1996, type 7). NaN in a row makes its quantiles NaN.
    """
    ops.need_float(input, "quantile")
    ways: dict[str, Any] = {
        "linear": np.copy, "lower": np.zeros_like, "higher": np.ceil, "nearest": np.round,
        "midpoint": lambda t: np.where(t == 0, 0.0, 0.5)}
    if interpolation not in ways:
        raise SettingError(f"quantile: interpolation={interpolation!r} must be one of "
                           f"{', '.join(map(repr, ways))}")
    shares = np.asarray(q.detach().numpy() if isinstance(q, Tensor) else q, np.float64)
    if shares.ndim > 1 or not ((shares >= 0) & (shares <= 1)).all():
        raise SettingError(f"quantile: q={q!r} must be numbers between 0 and 1")
    x = reshape(input, -1) if dim is None or input.ndim == 0 else input
    axis = 0 if dim is None else axis_of(dim, input.ndim, "quantile")
    count = x.shape[axis]
    if not count:
        raise ShapeError(f"quantile: axis {axis} of {type_of(input)} has no elements")
    places = shares.reshape(-1) * (count - 1)
    low = np.floor(places)
    if interpolation == "nearest":
        low, rest = np.round(places), np.zeros_like(places)
    else:
        rest = ways[interpolation](places - low)
    ordered = ops.sort(x, axis)[0].movedim(axis, 0)
    first = ordered[new(low.astype(np.int64))]
    second = ordered[new(np.minimum(low + 1, count - 1).astype(np.int64))]
    weight = new(rest.astype(input.dtype).reshape(-1, *[1] * (ordered.ndim - 1)))
    found = where(weight == 0, first, first + (second - first) * weight)
    found = where(rows.isnan(ordered).any(0, keepdim=True), float("nan"), found)
    if keepdim:
        found = found.unsqueeze(axis + 1) if dim is not None else reshape(
            found, -1, *[1] * input.ndim)
    return found if shares.ndim else found[0]  # type: ignore[no-any-return]


@method
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
        aweights: Tensor | None = None) -> Tensor:
    """The covariances of variables (rows) over observations (columns), divided by n − correction.

    `fweights` counts how often each observation was made; `aweights` weighs them.
    """
    if input.ndim > 2:
        raise ShapeError(f"cov: {type_of(input)} must have at most two axes")
    x = reshape(input, 1, -1) if input.ndim < 2 else input
    x = x if x.dtype.kind == "f" else x.float()
    weights = None
    for given in (fweights, aweights):
        if given is not None:
            w = given.to(x.dtype)
            weights = w if weights is None else weights * w
    if weights is None:
        centered = x - mean(x, 1, True)
        found = ops.matmul(centered, centered.t()) / max(x.shape[1] - correction, 0)
    else:
        total = weights.sum()
        centered = x - (x * weights).sum(1, keepdim=True) / total
        lost = correction * (weights * aweights.to(x.dtype)).sum() / total \
            if aweights is not None and correction else correction
        found = ops.matmul(centered * weights, centered.t()) / (total - lost)
    return found if input.ndim == 2 else reshape(found, ())


@only_method
def where_method(input: Tensor, condition: Tensor, other: Any) -> Tensor:
    """The tensor where the condition holds, else `other`."""
    return where(condition, input, other)  # type: ignore[no-any-return]


METHODS["where"] = METHODS.pop("where_method")
