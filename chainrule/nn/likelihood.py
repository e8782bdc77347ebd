"""Losses that are negative log-likelihoods or divergences of distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core.errors import SettingError
from chainrule.functions import ops
from chainrule.tensor import Tensor

from .reduction import no_column, reduced, same_shape


def kl_div(input: Tensor, target: Tensor, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """t·(log t − x) for log-probabilities x (Kullback & Leibler 1951).

    reduction 'batchmean' divides the sum by the first size, which is the divergence proper; 'mean'
    divides by the number of elements.
    """
    no_column("kl_div", input, target)
    if log_target:
        loss = rows.exp(target) * (target - input)
    else:
        none = target == 0
        loss = target * (rows.log(ops.where(none, 1.0, target)) - input)
        loss = ops.where(none, -(target * input), loss)
    if reduction == "batchmean":
        return loss.sum() / (input.shape[0] if input.ndim else 1)
    return reduced(loss, reduction)


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor | float, full: bool = False,
                      eps: float = 1e-6, reduction: str = "mean") -> Tensor:
    """½·(log v + (x − t)²/v) for a variance v of at least eps (Nix & Weigend 1994)."""
    if not isinstance(var, Tensor):
        var = ops.ones_of(input) * var
    if var.ndim == input.ndim - 1 and tuple(var.shape) == tuple(input.shape[:-1]):
        var = var.unsqueeze(-1)
    no_column("gaussian_nll_loss", input, target)
    no_column("gaussian_nll_loss", input, var, "var")
    array = var._value                       # none while a function is traced
    if isinstance(array, np.ndarray) and array.size and array.min() < 0:
        raise SettingError("gaussian_nll_loss: a variance is negative; use its exp or softplus")
    # The limit changes the value and lets the gradient pass.
    v = ops.where(var < eps, var - var.detach() + eps, var)
    difference = input - target
    loss = 0.5 * (rows.log(v) + difference * difference / v)
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     eps: float = 1e-8, reduction: str = "mean") -> Tensor:
    """exp(x) − t·x for the logarithm x of a rate, or x − t·log(x + eps) for the rate itself.

    `full` adds Stirling's approximation of log t! where t > 1.
    """
    no_column("poisson_nll_loss", input, target)
    loss = rows.exp(input) - target * input if log_input else \
        input - target * rows.log(input + eps)
    if full:
        t = ops.where(target > 1, target, 1.0)
        stirling = t * rows.log(t) - t + 0.5 * rows.log(2 * math.pi * t)
        loss = loss + ops.where(target > 1, stirling, 0.0)
    return reduced(loss, reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: Any = None, reduce: Any = None,
                         reduction: str = "mean") -> Tensor:
    """−(y·log p + (1−y)·log(1−p)) for probabilities p; the logarithms are at least −100."""
    same_shape("binary_cross_entropy", input, target)
    _check_interval(input, "binary_cross_entropy needs probabilities", "put a sigmoid before it, "
                    "or give the scores to binary_cross_entropy_with_logits, which is stable")
    _check_interval(target, "binary_cross_entropy needs targets",
                    "0 is no and 1 is yes. Of -1 and 1, take (target + 1) / 2", "CR404")
    losses = rows.bce(input, target)
    return reduced(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: Any = None, reduce: Any = None,
                                     reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), stable for scores of any size.

    `pos_weight` multiplies the term of the positive class.
    """
    same_shape("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        losses = rows.bce_with_logits(input, target)
    else:
        # At a score of −∞ with target 0 the extra term is 0·∞, and must be 0.
        extra = (pos_weight - 1) * target * rows.softplus(-input)
        losses = rows.bce_with_logits(input, target) + ops.where(target == 0, 0.0, extra)
    return reduced(losses if weight is None else losses * weight, reduction)


def _check_interval(x: Tensor, needs: str, better: str, rule: str = "") -> None:
    """Raises `SettingError` if a tensor that has numbers holds others than from 0 to 1."""
    array = x._value
    if isinstance(array, np.ndarray) and array.size and not (array.min() >= 0
                                                             and array.max() <= 1):
        raise SettingError(f"{needs} between 0 and 1, and got values from {array.min():g} to "
                           f"{array.max():g}: {better}").about(rule)
