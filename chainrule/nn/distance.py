"""Distances and similarities of vectors, and the losses made of them."""

from __future__ import annotations

from chainrule import rows
from chainrule.core.errors import SettingError
from chainrule.functions import ops
from chainrule.tensor import Tensor

from .reduction import no_column, reduced, same_shape


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖ₚ, eps) along `dim`."""
    return input / ops.clamp(ops.norm(input, p, dim, keepdim=True), min=eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x·y / (max(‖x‖, eps)·max(‖y‖, eps)) along `dim`."""
    a, b = (x / ops.clamp(ops.norm(x, 2, dim, keepdim=True), min=eps) for x in (x1, x2))
    return (a * b).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False) -> Tensor:
    """‖x − y + eps‖ₚ along the last axis."""
    return ops.norm(x1 - x2 + eps, p, -1, keepdim)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          reduction: str = "mean") -> Tensor:
    """1 − cos where the target is 1, max(0, cos − margin) where it is −1."""
    least = 1e-12
    dot = (input1 * input2).sum(-1)
    squares = ((input1 * input1).sum(-1) + least) * ((input2 * input2).sum(-1) + least)
    cosine = dot / rows.sqrt(squares)
    apart = ops.clamp(cosine - margin, min=0.0)
    loss = ops.where(target == 1, 1 - cosine, ops.where(target == -1, apart, 0.0))
    return reduced(loss, reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        reduction: str = "mean") -> Tensor:
    """max(0, margin − y·(x₁ − x₂)): x₁ should be above x₂ where y = 1, below where y = −1."""
    return reduced(ops.clamp(-target * (input1 - input2) + margin, min=0.0), reduction)


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                        reduction: str = "mean") -> Tensor:
    """max(0, margin + ‖a − p‖ − ‖a − n‖) (Schroff et al. 2015).

    With `swap`, ‖p − n‖ takes the place of ‖a − n‖ where it is smaller.
    """
    if margin <= 0:
        raise SettingError(f"triplet_margin_loss: margin={margin!r} must be > 0")
    same_shape("triplet_margin_loss", anchor, positive)
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = rows.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(ops.clamp(near - far + margin, min=0.0), reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         reduction: str = "mean") -> Tensor:
    """x where the target is 1, max(0, margin − x) where it is −1."""
    no_column("hinge_embedding_loss", input, target)
    apart = ops.where(target == -1, ops.clamp(margin - input, min=0.0), 0.0)
    near = ops.where(target == 1, input, 0.0)
    return reduced(near + apart, reduction)


def soft_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(−y·x)) for targets y of 1 and −1, stable for scores of any size."""
    same_shape("soft_margin_loss", input, target)
    return reduced(rows.softplus(-target * input), reduction)
