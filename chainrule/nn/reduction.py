"""What all losses share: how they are reduced, and that shapes must be equal."""

from __future__ import annotations

from chainrule.core.errors import SettingError, ShapeError
from chainrule.tensor import Tensor

from .display import type_text


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean, the sum or all of a loss."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    check_reduction(reduction)
    return loss


def check_reduction(reduction: str) -> None:
    """Raises `SettingError` unless it is 'mean', 'sum' or 'none'."""
    if reduction not in ("mean", "sum", "none"):
        raise SettingError(f"reduction={reduction!r} must be 'mean', 'sum' or 'none'")


def same_shape(name: str, input: Tensor, target: Tensor) -> None:
    """Raises `ShapeError` unless the shapes are equal."""
    if input.shape != target.shape:
        raise ShapeError(
            f"{name} got input {type_text(input)} and target {type_text(target)}: the shapes must "
            "be equal. Broadcasting them would compare every prediction with every target; use "
            "target.reshape(input.shape) or input.squeeze(-1)")
