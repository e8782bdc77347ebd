"""Pooling of signals: windows along one axis, each brought to one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.functions.shaping import pad
from chainrule.prims import window
from chainrule.tensor import Tensor

from .display import type_text
from .resize import averaging

Single = int | Sequence[int]


def single(value: Single, name: str = "value") -> int:
    """One whole number, given as it is or as the only one of a sequence."""
    if isinstance(value, int | np.integer):
        return int(value)
    numbers = tuple(value)
    if len(numbers) != 1:
        raise SettingError(f"{name}={value!r} must be one number")
    return int(numbers[0])


def max_pool1d(input: Tensor, kernel_size: Single, stride: Single | None = None,
               padding: Single = 0, dilation: Single = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Any:
    """The maximum of each window of (N, C, L) or (C, L); stride is the window's size.

    With `return_indices` also where in the signal each maximum is.
    """
    kernel, step, around, spread = _setting(
        "max_pool1d", input, kernel_size, stride, padding, dilation)
    # Of equal maxima the first gets the gradient, as in PyTorch: zeros after a ReLU are equal.
    seen = _windows(input, kernel, step, around, spread, ceil_mode, float("-inf"))
    largest, which = ops.max(seen, -1)
    if not return_indices:
        return largest
    starts = new(np.arange(largest.shape[-1]) * step - around)
    return largest, which * spread + starts


def avg_pool1d(input: Tensor, kernel_size: Single, stride: Single | None = None,
               padding: Single = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window of (N, C, L) or (C, L); stride is the window's size.

    Zeros of the padding count as elements unless `count_include_pad` is False.
    """
    kernel, step, around, _ = _setting("avg_pool1d", input, kernel_size, stride, padding, 1)
    means: Tensor = _windows(input, kernel, step, around, 1, ceil_mode, 0.0).mean(dim=-1)
    inside = around if count_include_pad else 0
    counted = counts(input.shape[-1], kernel, step, around, inside, means.shape[-1])
    if (counted != kernel).any():
        means = means * new((kernel / counted).astype(means.dtype))
    return means


def adaptive_avg_pool1d(input: Tensor, output_size: Single) -> Tensor:
    """Means of windows that divide (N, C, L) or (C, L) into `output_size` parts.

    Part i reaches from ⌊i·L/parts⌋ to ⌈(i+1)·L/parts⌉.
    """
    _check_signal("adaptive_avg_pool1d", input)
    matrix = averaging(input.shape[-1], _parts("adaptive_avg_pool1d", output_size))
    return ops.matmul(input, new(matrix.T.astype(input.dtype)))


def adaptive_max_pool1d(input: Tensor, output_size: Single, return_indices: bool = False) -> Any:
    """Maxima of windows that divide (N, C, L) or (C, L) into `output_size` parts.

    Part i reaches from ⌊i·L/parts⌋ to ⌈(i+1)·L/parts⌉. With `return_indices` also where in the
    signal each maximum is.
    """
    _check_signal("adaptive_max_pool1d", input)
    size, parts = input.shape[-1], _parts("adaptive_max_pool1d", output_size)
    numbers = np.arange(parts)
    starts, ends = numbers * size // max(parts, 1), -(-(numbers + 1) * size // max(parts, 1))
    # A shorter window repeats its last element, which never is the first of equal maxima.
    longest = int((ends - starts).max(initial=1))
    places = np.minimum(starts[:, None] + np.arange(longest), ends[:, None] - 1)
    largest, which = ops.max(input[..., new(places)], -1)
    return (largest, which + new(starts)) if return_indices else largest


def _setting(name: str, input: Tensor, kernel_size: Single, stride: Single | None,
             padding: Single, dilation: Single) -> tuple[int, int, int, int]:
    _check_signal(name, input)
    kernel, around = single(kernel_size, "kernel_size"), single(padding, "padding")
    step = kernel if stride is None else single(stride, "stride")
    spread = single(dilation, "dilation")
    for option, value in (("kernel_size", kernel), ("stride", step), ("dilation", spread)):
        if value < 1:
            raise SettingError(f"{name}: {option}={value} must be at least 1")
    if not 0 <= around <= kernel // 2:
        raise SettingError(f"{name}: padding={padding!r} may be at most half of "
                           f"kernel_size={kernel_size!r}")
    return kernel, step, around, spread


def _check_signal(name: str, input: Tensor) -> None:
    if input.ndim not in (2, 3):
        raise ShapeError(f"{name} got {type_text(input)}: it needs a batch of signals (N, C, L) or "
                         "one signal (C, L)")


def _parts(name: str, output_size: Single) -> int:
    parts = single(output_size, "output_size")
    if parts < 0:
        raise SettingError(f"{name}: output_size={output_size!r} must be at least 0")
    return parts


def _windows(input: Tensor, kernel: int, stride: int, padding: int, dilation: int,
             ceil_mode: bool, value: float) -> Tensor:
    """The windows of (..., L) padded with `value`: (..., number of windows, kernel)."""
    span = input.shape[-1] + 2 * padding - dilation * (kernel - 1) - 1
    if span < 0 and not (ceil_mode and -span < stride):
        raise ShapeError(f"pooling: the window of {dilation * (kernel - 1) + 1} does not fit into "
                         f"{type_text(input)}")
    extra = ceil_extra(input.shape[-1], kernel, stride, padding, dilation) if ceil_mode else 0
    x = pad(input, (padding, padding + extra), value=value) if padding or extra else input
    x = x.unsqueeze(-2)
    seen = window.windows(x if x.ndim == 4 else x.unsqueeze(0), kernel=(1, kernel),
                          stride=(1, stride), dilation=(1, dilation)).squeeze(2)
    return seen if x.ndim == 4 else seen.squeeze(0)  # type: ignore[no-any-return]


def ceil_extra(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """What to add at an axis' end so that windows that stick out count; none begins outside."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    windows = -(-span // stride) + 1
    if (windows - 1) * stride >= size + padding:
        windows -= 1
    return max(0, (windows - 1) * stride - span)


def counts(size: int, kernel: int, stride: int, padding: int, inside: int, number: int) -> Any:
    """How many elements of each of `number` windows count: `inside` of the padding do."""
    starts = np.arange(number) * stride - padding
    return np.minimum(starts + kernel, size + inside) - np.maximum(starts, -inside)
