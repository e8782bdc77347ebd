"""Elementwise functions and matrix products that are compositions of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core.errors import DtypeError, ShapeError
from chainrule.core.types import float64, type_of
from chainrule.tensor import Tensor

from .ops import as_operand, clamp, matmul, norm, one_dtype, where
from .shaping import movedim
from .surface import axis_of, method, public, row


@public
def straight_through(value: Tensor, input: Tensor) -> Tensor:
    """`value` in the forward pass; in the backward pass its gradient goes to `input` as it is.

    For steps whose slope is 0 almost everywhere: rounding, signs, one-hot choices (the
    straight-through estimator of Hinton 2012; Bengio, Léonard & Courville 2013). `value` has the
    shape of `input` and usually is computed from it. The gradient is an estimate, not the slope.

    >>> import chainrule as cr
    >>> x = cr.tensor([0.2, 0.7], requires_grad=True)
    >>> y = cr.straight_through(x.round(), x)
    >>> (y * cr.tensor([3.0, 5.0])).sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 1.0], [3.0, 5.0])
    """
    if tuple(value.shape) != tuple(input.shape):
        raise ShapeError(f"straight_through(value, input): {type_of(value)} and {type_of(input)} "
                         "must have one shape")
    # Exactly 0 is added, where x + (value - x) would round; infinities are left out of it.
    nothing = where(rows.isfinite(input), input - input.detach(), 0.0)
    return value.detach().to(input.dtype) + nothing  # type: ignore[no-any-return]


@method
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Each element, or `min` (a number or a tensor) where that is larger."""
    return clamp(input, min=min)


@method
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Each element, or `max` (a number or a tensor) where that is smaller."""
    return clamp(input, max=max)


@method
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """input + value·tensor1·tensor2."""
    product = tensor1 * tensor2
    return input + (product if value == 1 else product * value)


@method
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """input + value·tensor1/tensor2."""
    quotient = tensor1 / tensor2
    return input + (quotient if value == 1 else quotient * value)


@method
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight·(end − input): `input` at weight 0, `end` at weight 1.

    >>> import chainrule as cr
    >>> cr.lerp(cr.zeros(2), cr.ones(2), 0.25)
    tensor([0.25, 0.25])
    """
    one_dtype("lerp", input, end)
    distance = end - input
    if isinstance(weight, Tensor) or weight < 0.5:
        return input + distance * weight  # type: ignore[no-any-return]
    return end - distance * (1 - weight)  # type: ignore[no-any-return]


@method
def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN and ±∞ replaced by numbers (±∞ by the largest of the dtype); no gradient there."""
    if input.dtype.kind != "f":
        return input.clone()
    limits = np.finfo(input.dtype)
    x = where(rows.isnan(input), nan, input)
    x = where(x == math.inf, float(limits.max) if posinf is None else posinf, x)
    return where(x == -math.inf, float(limits.min) if neginf is None else neginf, x)  # type: ignore[no-any-return]


@method
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x/(1 − x)); with eps, x is first limited to [eps, 1 − eps]."""
    return row("logit", input if eps is None else clamp(input, eps, 1 - eps))  # type: ignore[no-any-return]


@method
def float_power(input: Tensor, exponent: Any) -> Tensor:
    """The power computed in float64."""
    power = exponent.to(float64) if isinstance(exponent, Tensor) else float(exponent)
    return input.to(float64) ** power


@public
def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """other − alpha·input."""
    return other - (input if alpha == 1 else input * alpha)  # type: ignore[no-any-return]


@method
def positive(input: Tensor) -> Tensor:
    """The tensor itself, +x; bools have no sign."""
    if input.dtype.kind == "b":
        raise DtypeError(f"positive of {type_of(input)}: truth values have no sign")
    return input


# ---------------------------------------------------------------- matrix products


@method
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1,
          alpha: float = 1) -> Tensor:
    """beta·input + alpha·(mat @ vec)."""
    return _added(input, mat.mv(vec), beta, alpha)


@method
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1,
            alpha: float = 1) -> Tensor:
    """beta·input + alpha·(batch1 @ batch2) for each matrix of the batches."""
    return _added(input, batch1.bmm(batch2), beta, alpha)


def _added(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (input if beta == 1 else input * beta)


@method
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Σ x·y over the last axis of both, for all pairs of the other axes."""
    if input.ndim == 0 or other.ndim == 0:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise ShapeError(f"inner: the last axes of {type_of(input)} and {type_of(other)} must be "
                         "equal")
    return tensordot(input, other, ([-1], [-1]))


@public
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Σ a·b over the last `dims` axes of a and the first of b, or over pairs of named axes.

    >>> import chainrule as cr
    >>> cr.tensordot(cr.ones(2, 3), cr.ones(3, 4), dims=1).shape
    chainrule.Size([2, 4])
    """
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: dims={dims} of {type_of(a)} and {type_of(b)}")
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    left = [axis_of(d, a.ndim, "tensordot") for d in _listed(dims[0])]
    right = [axis_of(d, b.ndim, "tensordot") for d in _listed(dims[1])]
    if [a.shape[i] for i in left] != [b.shape[i] for i in right]:
        raise ShapeError(f"tensordot: axes {left} of {type_of(a)} and {right} of {type_of(b)} "
                         "must have equal sizes")
    inside = math.prod(a.shape[i] for i in left)
    x = movedim(a, left, list(range(a.ndim - len(left), a.ndim)))
    y = movedim(b, right, list(range(len(right))))
    lead, rest = tuple(x.shape[:a.ndim - len(left)]), tuple(y.shape[len(right):])
    product = matmul(x.reshape(math.prod(lead), inside), y.reshape(inside, math.prod(rest)))
    return product.reshape(*lead, *rest) if lead or rest else product.reshape(())


def _listed(dims: Any) -> Sequence[int]:
    return [dims] if isinstance(dims, int) else list(dims)


@method
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Kronecker's product: each element of `input` times the whole of `other`."""
    rank = max(input.ndim, other.ndim)
    a, b = ((*[1] * (rank - x.ndim), *x.shape) for x in (input, other))
    left = input.reshape([n for size in a for n in (size, 1)])
    right = other.reshape([n for size in b for n in (1, size)])
    return (left * right).reshape([m * n for m, n in zip(a, b, strict=True)])


@method
def xlogy(input: Any, other: Any) -> Tensor:
    """input·log(other), and 0 where input is 0, also for other = 0; NaN where other is NaN."""
    if not isinstance(input, Tensor):
        input = as_operand(input)
    zero = (input == 0) & ~rows.isnan(other) if isinstance(other, Tensor) else input == 0
    # The logarithm of 1 where input is 0: the other branch then has no infinite derivative.
    safe = where(zero, 1.0, other)
    return input * rows.log(safe)  # type: ignore[no-any-return]


@public
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """The p-norm distances of all rows of x1 (..., m, d) and x2 (..., n, d): (..., m, n).

    They are sums of differences, exact for near rows, whichever `compute_mode` is named.
    """
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(f"cdist: {type_of(x1)} and {type_of(x2)} must be rows of one length")
    return norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)
