"""Dropout as functions."""

from __future__ import annotations

from chainrule import random
from chainrule.autograd import no_grad
from chainrule.core.errors import SettingError
from chainrule.tensor import Tensor

from .nonlinear import written


def dropout(input: Tensor, p: float = 0.5, training: bool = True,
            inplace: bool = False) -> Tensor:
    """Zeroes elements with probability `p` and scales the rest by 1/(1−p); off in evaluation.

    (Srivastava et al. 2014)
    """
    if not 0 <= p <= 1:
        raise SettingError(f"dropout: p={p!r} must be between 0 and 1")
    if not training or p == 0:
        return input
    return written(lambda input: input * _kept(input, tuple(input.shape), p), input, inplace)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """As `dropout`, for whole channels of (N, C, H, W)."""
    if not training or p == 0:
        return input
    shape = tuple(input.shape)
    return written(
        lambda input: input * _kept(input, (*shape[:2], *([1] * len(shape[2:]))), p),
        input, inplace)


def _kept(input: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """0 with probability p, else 1/(1−p)."""
    with no_grad():
        keep = (random.rand(*shape) >= p).to(input.dtype)
        return keep * (1 / (1 - p)) if p < 1 else keep * 0.0
