"""Layers that change the size of images, without parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.tensor import Tensor

from . import functional as F
from .functional import Pair
from .module import Module


class AdaptiveAvgPool2d(Module):
    """Means of windows that divide (N, C, H, W) into `output_size` parts; None keeps a size."""

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        size = (None, None) if self.output_size is None else self.output_size
        return F.adaptive_avg_pool2d(input, size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class Upsample(Module):
    """(N, C, L) or (N, C, H, W) at another size; mode 'nearest', 'linear' or 'bilinear'."""

    def __init__(self, size: int | Sequence[int] | None = None,
                 scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
                 align_corners: bool | None = None, recompute_scale_factor: Any = None) -> None:
        super().__init__()
        if recompute_scale_factor is not None:
            raise SettingError("Upsample: recompute_scale_factor is not supported; give size")
        self.size = size
        # PyTorch keeps factors as floats, which is what it prints.
        self.scale_factor = tuple(map(float, scale_factor)) if isinstance(
            scale_factor, Sequence) else float(scale_factor) if scale_factor else None
        self.mode = mode
        self.align_corners = align_corners

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        given = f"size={self.size!r}" if self.scale_factor is None else \
            f"scale_factor={self.scale_factor!r}"
        return f"{given}, mode={self.mode!r}"


class Unfold(Module):
    """The windows of (N, C, H, W) as columns: (N, C·kH·kW, number of windows)."""

    def __init__(self, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0,
                 stride: Pair = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, dilation={self.dilation}, "
                f"padding={self.padding}, stride={self.stride}")
