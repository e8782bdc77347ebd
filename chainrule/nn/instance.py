"""Instance normalisation as a function."""

from __future__ import annotations

from chainrule import rows
from chainrule.autograd import no_grad
from chainrule.core.errors import SettingError, ShapeError
from chainrule.tensor import Tensor

from .display import type_text


def instance_norm(input: Tensor, running_mean: Tensor | None = None,
                  running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias for each channel of each item (N, C, ...).

    (Ulyanov et al. 2016.) Running statistics move by `momentum` to the batch's mean of them, and
    take the place of the item's own where `use_input_stats` is False.
    """
    sizes = tuple(input.shape)
    if len(sizes) < 3:
        raise ShapeError(f"instance_norm got {type_text(input)}: it needs (N, C, ...)")
    axes = tuple(range(2, len(sizes)))
    channel = (1, -1, *([1] * len(axes)))
    if use_input_stats:
        count = input[0, 0].numel()
        if count <= 1:
            raise ShapeError(f"instance_norm got {type_text(input)}: one value per channel has no "
                             "variance")
        centered = input - input.mean(dim=axes, keepdim=True)
        var = (centered * centered).mean(dim=axes, keepdim=True)
        if running_mean is not None and running_var is not None:
            with no_grad():
                mean = (input - centered).mean(dim=(0, *axes))
                unbiased = var.mean(dim=(0, *axes)) * (count / (count - 1))
                running_mean.copy_(running_mean * (1 - momentum) + mean * momentum)
                running_var.copy_(running_var * (1 - momentum) + unbiased * momentum)
    else:
        if running_mean is None or running_var is None:
            raise SettingError("instance_norm with use_input_stats=False needs running_mean and "
                               "running_var")
        centered = input - running_mean.reshape(channel)
        var = running_var.reshape(channel)
    result = centered * rows.rsqrt(var + eps)
    if weight is not None:
        result = result * weight.reshape(channel)
    return result if bias is None else result + bias.reshape(channel)
