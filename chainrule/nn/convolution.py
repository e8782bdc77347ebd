"""Convolution and pooling in two dimensions."""

from __future__ import annotations

from typing import Any

from chainrule.core.errors import ChainruleError, SettingError
from chainrule.tensor import Tensor

from . import functional as F
from . import init
from .functional import Pair, pair
from .linear import empty_parameter, whole
from .module import Module
from .naming import misfit
from .parameter import Parameter


class Conv2d(Module):
    """Cross-correlation of (N, in, H, W) or (in, H, W) with learned kernels.

    `weight` is (out, in/groups, kH, kW), `bias` (out,), both uniform in ±1/√(in/groups·kH·kW) at
    first, as in PyTorch. Each output size is ⌊(n + 2·padding − dilation·(k−1) − 1)/stride⌋ + 1.

    >>> import chainrule as cr
    >>> tuple(cr.nn.Conv2d(1, 8, 3, padding=1)(cr.zeros(2, 1, 8, 8)).shape)
    (2, 8, 8, 8)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1,
                 padding: str | Pair = 0, dilation: Pair = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        whole(self, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise SettingError(f"Conv2d: in_channels={in_channels} and out_channels={out_channels} "
                               f"must both be multiples of groups={groups}")
        if padding_mode != "zeros":
            raise SettingError(f"Conv2d: padding_mode={padding_mode!r} is not supported, only "
                               "'zeros': pad the input yourself and give padding=0")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding")
        self.dilation = pair(dilation, "dilation")
        self.groups = groups
        self.padding_mode = padding_mode
        if padding == "same" and self.stride != (1, 1):
            raise SettingError(f"Conv2d: padding='same' needs stride=1, not {stride!r}")
        self.weight = empty_parameter(out_channels, in_channels // groups, *self.kernel_size,
                                      dtype=dtype)
        self.register_parameter("bias", empty_parameter(out_channels, dtype=dtype) if bias
                                else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        fan_in = self.weight._value[0].size if self.out_channels else 0
        bound = 1 / fan_in ** 0.5 if fan_in else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        sizes = tuple(input.shape)
        if len(sizes) not in (3, 4) or sizes[-3] != self.in_channels:
            raise misfit(self, input, f"it needs (N, {self.in_channels}, H, W) or "
                         f"({self.in_channels}, H, W)")
        try:
            return F.conv2d(input, self.weight, self.bias, self.stride, self.padding,
                            self.dilation, self.groups)
        except ChainruleError as error:
            raise type(error)(misfit(self, input, str(error)).args[0]) from None

    def extra_repr(self) -> str:
        text = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}")
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text + ("" if self.bias is not None else ", bias=False")


class MaxPool2d(Module):
    """The maximum of each window of (N, C, H, W); `stride` is the window's size by default."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
                 dilation: Pair = 1, return_indices: bool = False,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        if return_indices:
            raise SettingError("MaxPool2d: return_indices=True is not supported")
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation,
                            self.ceil_mode)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class AvgPool2d(Module):
    """The mean of each window of (N, C, H, W); `stride` is the window's size by default."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
