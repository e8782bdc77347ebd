"""What all losses share: how they are reduced, and that shapes must be equal."""

from __future__ import annotations

from chainrule.core.errors import DtypeError, SettingError, ShapeError
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
    for role, x in (("input", input), ("target", target)):
        if not isinstance(x, Tensor):
            raise DtypeError(f"{name}: the {role} is a {type(x).__name__}, not a Tensor; convert "
                             f"with cr.tensor({role})")
    if input.shape != target.shape:
        better = "give one target for each prediction"
        if input.numel() == target.numel():
            better = "use target.reshape(input.shape) or input.squeeze(-1)"
        raise ShapeError(
            f"{name} got input {type_text(input)} and target {type_text(target)}: the shapes must "
            f"be equal. Broadcasting them would compare every prediction with every target; "
            f"{better}").about("CR403")


def no_column(name: str, input: Tensor, other: Tensor, role: str = "target") -> None:
    """Raises `ShapeError` for a column (N, 1) against (N,), which broadcasts to (N, N).

    For losses that broadcast: PyTorch's are silent about this, too, but nobody means it.
    """
    short, long = sorted((tuple(input.shape), tuple(getattr(other, "shape", ()))), key=len)
    if short and long == (*short, 1) and short[-1] > 1:
        raise ShapeError(
            f"{name} got input {type_text(input)} and {role} {type_text(other)}: broadcasting them "
            f"would compare every prediction with every {role}; use {role}.reshape(input.shape) or "
            "input.squeeze(-1)").about("CR403")
