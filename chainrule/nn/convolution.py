"""Convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence
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

Single = int | Sequence[int]


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
        _check_channels(self, in_channels, out_channels, groups, padding_mode)
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
        _draw(self.weight, self.bias)

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
        return _text(self)


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


class Conv1d(Module):
    """Cross-correlation of (N, in, L) or (in, L) with learned kernels (out, in/groups, k).

    Otherwise as `Conv2d`, whose options it has.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Single,
                 stride: Single = 1, padding: str | Single = 0, dilation: Single = 1,
                 groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        _check_channels(self, in_channels, out_channels, groups, padding_mode)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _single(kernel_size)
        self.stride = _single(stride)
        self.padding = padding if isinstance(padding, str) else _single(padding)
        self.dilation = _single(dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        if padding == "same" and self.stride != (1,):
            raise SettingError(f"Conv1d: padding='same' needs stride=1, not {stride!r}")
        self.weight = empty_parameter(out_channels, in_channels // groups, *self.kernel_size,
                                      dtype=dtype)
        self.register_parameter("bias", empty_parameter(out_channels, dtype=dtype) if bias
                                else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        _draw(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        sizes = tuple(input.shape)
        if len(sizes) not in (2, 3) or sizes[-2] != self.in_channels:
            raise misfit(self, input, f"it needs (N, {self.in_channels}, L) or "
                         f"({self.in_channels}, L)")
        padding = self.padding if isinstance(self.padding, str) else self.padding[0]
        try:
            return F.conv1d(input, self.weight, self.bias, self.stride[0], padding,
                            self.dilation[0], self.groups)
        except ChainruleError as error:
            raise type(error)(misfit(self, input, str(error)).args[0]) from None

    def extra_repr(self) -> str:
        return _text(self)


class ConvTranspose2d(Module):
    """The transpose of `Conv2d` as a map of images: (N, in, H, W) becomes larger by the stride.

    `weight` is (in, out/groups, kH, kW). Each output size is (n − 1)·stride − 2·padding
    + dilation·(k − 1) + output_padding + 1.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1,
                 padding: Pair = 0, output_padding: Pair = 0, groups: int = 1, bias: bool = True,
                 dilation: Pair = 1, padding_mode: str = "zeros", device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        _check_channels(self, in_channels, out_channels, groups, padding_mode)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = pair(padding, "padding")
        self.output_padding = pair(output_padding, "output_padding")
        self.dilation = pair(dilation, "dilation")
        self.groups = groups
        self.padding_mode = padding_mode
        self.weight = empty_parameter(in_channels, out_channels // groups, *self.kernel_size,
                                      dtype=dtype)
        self.register_parameter("bias", empty_parameter(out_channels, dtype=dtype) if bias
                                else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, in PyTorch's range for this layout."""
        _draw(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        sizes = tuple(input.shape)
        if len(sizes) not in (3, 4) or sizes[-3] != self.in_channels:
            raise misfit(self, input, f"it needs (N, {self.in_channels}, H, W) or "
                         f"({self.in_channels}, H, W)")
        try:
            return F.conv_transpose2d(input, self.weight, self.bias, self.stride, self.padding,
                                      self.output_padding, self.groups, self.dilation)
        except ChainruleError as error:
            raise type(error)(misfit(self, input, str(error)).args[0]) from None

    def extra_repr(self) -> str:
        return _text(self)


def _single(value: Single) -> tuple[int]:
    return (value,) if isinstance(value, int) else (next(iter(value)),)


def _check_channels(layer: Module, in_channels: int, out_channels: int, groups: int,
                    padding_mode: str) -> None:
    name = type(layer).__name__
    whole(layer, in_channels=in_channels, out_channels=out_channels, groups=groups)
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise SettingError(f"{name}: in_channels={in_channels} and out_channels={out_channels} "
                           f"must both be multiples of groups={groups}")
    if padding_mode != "zeros":
        raise SettingError(f"{name}: padding_mode={padding_mode!r} is not supported, only "
                           "'zeros': pad the input yourself and give padding=0")


def _draw(weight: Parameter, bias: Parameter | None) -> None:
    """Uniform in ±1/√(elements of one kernel), weight and bias."""
    fan_in = weight._value[0].size if weight.shape[0] else 0
    bound = 1 / fan_in ** 0.5 if fan_in else 0.0
    init.uniform_(weight, -bound, bound)
    if bias is not None:
        init.uniform_(bias, -bound, bound)


def _text(layer: Any) -> str:
    """What a convolution prints: the options that are not the defaults."""
    text = (f"{layer.in_channels}, {layer.out_channels}, kernel_size={layer.kernel_size}, "
            f"stride={layer.stride}")
    for name, default in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
        value = getattr(layer, name, None)
        if value is not None and value != (default,) * len(layer.kernel_size):
            text += f", {name}={value}"
    if layer.groups != 1:
        text += f", groups={layer.groups}"
    return text + ("" if layer.bias is not None else ", bias=False")
