"""Pooling of signals as layers; see the function of each in `chainrule.nn.functional`."""

from __future__ import annotations

from typing import Any

from chainrule.tensor import Tensor

from . import functional as F
from .module import Module
from .pooling import Single


class MaxPool1d(Module):
    """The maximum of each window of (N, C, L) or (C, L); `stride` is the window's size by default.

    The size becomes ⌊(L + 2·padding − dilation·(k − 1) − 1)/stride⌋ + 1, rounded up with
    `ceil_mode`. The padding never is the maximum. With `return_indices` the result is a pair: the
    maxima, and where in the signal they are.

    >>> import chainrule as cr
    >>> cr.nn.MaxPool1d(2)(cr.tensor([[3.0, 1.0, 2.0, 5.0, 9.0]]))
    tensor([[3., 5.]])
    """

    def __init__(self, kernel_size: Single, stride: Single | None = None, padding: Single = 0,
                 dilation: Single = 1, return_indices: bool = False,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return F.max_pool1d(input, self.kernel_size, self.stride, self.padding, self.dilation,
                            self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class AvgPool1d(Module):
    """The mean of each window of (N, C, L) or (C, L); `stride` is the window's size by default.

    The size becomes ⌊(L + 2·padding − k)/stride⌋ + 1, rounded up with `ceil_mode`. Zeros of the
    padding count as elements unless `count_include_pad` is False.

    >>> import chainrule as cr
    >>> cr.nn.AvgPool1d(2)(cr.tensor([[3.0, 1.0, 2.0, 5.0, 9.0]]))
    tensor([[2.0, 3.5]])
    """

    def __init__(self, kernel_size: Single, stride: Single | None = None, padding: Single = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True) -> None:
        super().__init__()
        # PyTorch keeps these as tuples, which is what it prints.
        self.kernel_size = _tuple(kernel_size)
        self.stride = self.kernel_size if stride is None else _tuple(stride)
        self.padding = _tuple(padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool1d(Module):
    """Means of windows that divide (N, C, L) or (C, L) into `output_size` parts.

    Part i reaches from ⌊i·L/parts⌋ to ⌈(i+1)·L/parts⌉.

    >>> import chainrule as cr
    >>> cr.nn.AdaptiveAvgPool1d(2)(cr.tensor([[3.0, 1.0, 2.0]]))
    tensor([[2.0, 1.5]])
    """

    def __init__(self, output_size: Single) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(Module):
    """Maxima of windows that divide (N, C, L) or (C, L) into `output_size` parts.

    Part i reaches from ⌊i·L/parts⌋ to ⌈(i+1)·L/parts⌉. With `return_indices` the result is a
    pair: the maxima, and where in the signal they are.

    >>> import chainrule as cr
    >>> cr.nn.AdaptiveMaxPool1d(2)(cr.tensor([[3.0, 1.0, 2.0]]))
    tensor([[3., 2.]])
    """

    def __init__(self, output_size: Single, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


def _tuple(value: Single) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
