"""Images brought to another size, each axis by a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.tensor import Tensor

from .display import type_text


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """Means of windows that divide (N, C, H, W) or (C, H, W) into `output_size` parts.

    None keeps a size.
    """
    if input.ndim not in (3, 4):
        raise ShapeError(f"adaptive_avg_pool2d got {type_text(input)}: it needs (N, C, H, W) or "
                         "(C, H, W)")
    wanted = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    return _by_matrices(input, [averaging(n, n if size is None else size) for n, size in zip(
        input.shape[-2:], wanted, strict=True)])


def _by_matrices(input: Tensor, matrices: list[Any]) -> Tensor:
    """The last axes, each multiplied by its matrix."""
    result = input
    for i, matrix in enumerate(reversed(matrices)):
        weights = new(matrix.astype(input.dtype))
        if i == 0:
            result = ops.matmul(result, weights.transpose(0, 1))
        else:
            result = ops.matmul(weights, result)
    return result


def averaging(size: int, parts: int) -> Any:
    """The (parts, size) matrix whose row i averages ⌊i·size/parts⌋ to ⌈(i+1)·size/parts⌉."""
    matrix = np.zeros((parts, size))
    for i in range(parts):
        first, last = i * size // parts, -(-(i + 1) * size // parts)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def interpolate(input: Tensor, size: int | Sequence[int] | None = None,
                scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
                align_corners: bool | None = None) -> Tensor:
    """Signals (N, C, L) or images (N, C, H, W) at another size.

    mode 'nearest' repeats elements; 'linear' (signals) and 'bilinear' (images) blend neighbours,
    the corners held fast if `align_corners`.
    """
    rank = input.ndim - 2
    if rank not in (1, 2):
        raise ShapeError(f"interpolate got {type_text(input)}: it needs (N, C, L) or (N, C, H, W)")
    blend = {1: "linear", 2: "bilinear"}[rank]
    if mode not in ("nearest", blend):
        raise SettingError(f"interpolate: mode={mode!r} of {type_text(input)}; write 'nearest' or "
                           f"{blend!r}")
    if (size is None) == (scale_factor is None):
        raise SettingError("interpolate: give either size or scale_factor")
    if mode == "nearest" and align_corners is not None:
        raise SettingError("interpolate: align_corners is for blending, not for mode='nearest'")
    sizes = tuple(input.shape[2:])
    wanted: list[int] = []
    scales: list[float] = []
    for i, n in enumerate(sizes):
        if size is not None:
            wanted.append(size if isinstance(size, int) else size[i])
            scales.append(n / wanted[-1])
        else:
            factor = scale_factor if isinstance(scale_factor, (int, float)) else scale_factor[i]  # type: ignore[index]
            wanted.append(int(n * factor))
            scales.append(1 / factor)
    if mode == "nearest":
        key: list[Any] = [slice(None), slice(None)]
        places = [np.minimum((np.arange(m) * s).astype(np.int64), n - 1)
                  for m, n, s in zip(wanted, sizes, scales, strict=True)]
        found: Tensor = input[(*key, *np.ix_(*places))]
        return found
    return _by_matrices(input, [_blending(n, m, s, bool(align_corners)) for n, m, s in zip(
        sizes, wanted, scales, strict=True)])


def _blending(size: int, count: int, scale: float, corners: bool) -> Any:
    """The (count, size) matrix of linear interpolation between neighbours."""
    if corners:
        places = np.linspace(0, size - 1, count) if count > 1 else np.zeros(1)
    else:
        places = np.maximum((np.arange(count) + 0.5) * scale - 0.5, 0)
    low = np.minimum(places.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((count, size))
    numbers = np.arange(count)
    np.add.at(matrix, (numbers, low), 1 - (places - low))
    np.add.at(matrix, (numbers, high), places - low)
    return matrix
