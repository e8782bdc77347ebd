"""Losses that are negative log-likelihoods or divergences of distributions."""

from __future__ import annotations

import math

from chainrule import rows
from chainrule.core.errors import SettingError
from chainrule.functions import ops
from chainrule.tensor import Tensor

from .reduction import reduced


def kl_div(input: Tensor, target: Tensor, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """t·(log t − x) for log-probabilities x (Kullback & Leibler 1951).

    reduction 'batchmean' divides the sum by the first size, which is the divergence proper; 'mean'
    divides by the number of elements.
    """
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
    if bool((var.detach() < 0).any()):
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
    loss = rows.exp(input) - target * input if log_input else \
        input - target * rows.log(input + eps)
    if full:
        t = ops.where(target > 1, target, 1.0)
        stirling = t * rows.log(t) - t + 0.5 * rows.log(2 * math.pi * t)
        loss = loss + ops.where(target > 1, stirling, 0.0)
    return reduced(loss, reduction)
