"""Activation functions that are made of a few others; `functional` offers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule import rows
from chainrule.core.errors import SettingError, ShapeError
from chainrule.functions import ops
from chainrule.functions.shaping import chunk
from chainrule.inplace import assign
from chainrule.tensor import Tensor

from .display import type_text

# The fixed point of Klambauer et al. 2017: activations of mean 0 and variance 1 keep both.
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def written(make: Callable[[Tensor], Tensor], input: Tensor, inplace: bool) -> Tensor:
    """make(input), written into the input's memory if `inplace`; the rules keep the old values."""
    if inplace:
        return assign(input, make, "an activation with inplace=True")  # type: ignore[no-any-return]
    return make(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0,
             inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val]; the derivative at the limits is 0."""
    if min_val > max_val:
        raise SettingError(f"hardtanh: min_val={min_val!r} must not be above max_val={max_val!r}")
    return written(
        lambda input: rows.hardtanh(input, min_val=min_val, max_val=max_val),
        input, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6) (Krizhevsky 2010)."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3)/6: a sigmoid of three straight lines."""
    return written(lambda input: relu6(input + 3.0) / 6.0, input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x·relu6(x + 3)/6 (Howard et al. 2019)."""
    return written(lambda input: input * hardsigmoid(input), input, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale·elu(x, alpha) with the constants of Klambauer et al. 2017."""
    return written(lambda input: rows.elu(input, alpha=SELU_ALPHA) * SELU_SCALE, input, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha·(exp(x/alpha) − 1) (Barron 2017)."""
    if alpha == 0:
        raise SettingError("celu: alpha=0 divides by zero")
    return written(lambda input: rows.elu(input / alpha) * alpha, input, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x·tanh(softplus(x)) (Misra 2019)."""
    return written(lambda input: input * rows.tanh(rows.softplus(input)), input, inplace)


def softsign(input: Tensor) -> Tensor:
    """x/(1 + |x|)."""
    return input / (rows.abs(input) + 1)


def tanhshrink(input: Tensor) -> Tensor:
    """x − tanh(x)."""
    return input - rows.tanh(input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`."""
    return written(lambda input: ops.where(input <= threshold, value, input), input, inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight·x, with one weight for all or one for each channel (axis 1)."""
    slope = weight
    if weight.numel() > 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if weight.numel() != channels:
            raise ShapeError(f"prelu: the weight {type_text(weight)} must hold 1 number or one for "
                             f"each of the {channels} channels of {type_text(input)}")
        slope = weight.reshape([-1 if i == 1 else 1 for i in range(input.ndim)])
    return ops.where(input > 0, input, input * slope)  # type: ignore[no-any-return]


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a·σ(b) for the two halves a and b along `dim` (Dauphin et al. 2017)."""
    if not input.ndim or input.shape[dim] % 2:
        raise ShapeError(f"glu halves axis {dim} of {type_text(input)}: its size must be even")
    a, b = chunk(input, 2, dim)
    return a * rows.sigmoid(b)


def softmin(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """softmax(−x) along `dim`."""
    return ops.softmax(-input, dim, dtype=dtype)
