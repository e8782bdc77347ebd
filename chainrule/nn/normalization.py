"""Layers that normalise: LayerNorm, RMSNorm, BatchNorm, GroupNorm, InstanceNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.core.types import as_dtype
from chainrule.tensor import Tensor

from . import functional as F
from . import init
from .linear import empty_parameter, whole
from .module import Module
from .naming import described, misfit
from .parameter import Parameter


class LayerNorm(Module):
    """(x − mean) / √(var + eps) · weight + bias over the last axes (Ba, Kiros & Hinton 2016).

    `normalized_shape` is the sizes of those axes; weight (ones) and bias (zeros) have that shape.

    >>> import chainrule as cr
    >>> tuple(cr.nn.LayerNorm(4)(cr.randn(3, 4)).shape)
    (3, 4)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5,
                 elementwise_affine: bool = True, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) \
            else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        for name, wanted in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            self.register_parameter(
                name, empty_parameter(*self.normalized_shape, dtype=dtype) if wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight to one and bias to zero."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        shape = self.normalized_shape
        if tuple(input.shape[-len(shape):]) != shape:
            raise misfit(self, input, f"its last sizes must be {shape}")
        if len(shape) == 1 and self.weight is not None and self.bias is not None:
            return rows.layer_norm(input, self.weight, self.bias, eps=self.eps)
        return F.layer_norm(input, shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class _BatchNorm(Module):
    """Batch normalisation with running statistics; a subclass says which ranks it takes."""

    _ranks: tuple[int, ...] = ()
    _form = ""
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        whole(self, num_features=num_features)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(
                name, empty_parameter(num_features, dtype=dtype) if wanted else None)
        kept = as_dtype(float if dtype is None else dtype)
        for name, value in (("running_mean", np.zeros(num_features, kept)),
                            ("running_var", np.ones(num_features, kept)),
                            ("num_batches_tracked", np.zeros((), np.int64))):
            self.register_buffer(name, new(value) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Sets the running mean to 0 and the running variance to 1."""
        if self.running_mean is not None and self.running_var is not None \
                and self.num_batches_tracked is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Sets weight to one, bias to zero, and the running statistics to their start."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        sizes = tuple(input.shape)
        if len(sizes) not in self._ranks or sizes[1] != self.num_features:
            raise misfit(self, input, f"it needs {self._form} with {self.num_features} channels "
                         "in axis 1")
        momentum: Any = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / self.num_batches_tracked.double()    # the mean of all batches
        own = self.training or self.running_mean is None
        keep = not self.training or self.track_running_stats
        try:
            return F.batch_norm(input, self.running_mean if keep else None,
                                self.running_var if keep else None, self.weight, self.bias, own,
                                0.0 if momentum is None else momentum, self.eps)
        except ShapeError as error:
            raise ShapeError(f"{described(self)}: {error}") from None

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
                f"affine={self.affine}, bias={self.bias is not None}, "
                f"track_running_stats={self.track_running_stats}")


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) (Ioffe & Szegedy 2015)."""

    _ranks = (2, 3)
    _form = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W) (Ioffe & Szegedy 2015)."""

    _ranks = (4,)
    _form = "(N, C, H, W)"


class GroupNorm(Module):
    """(x − mean) / √(var + eps) · weight + bias over groups of channels of (N, C, ...).

    (Wu & He 2018)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
                 device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        whole(self, num_groups=num_groups, num_channels=num_channels)
        if not num_groups or num_channels % num_groups:
            raise SettingError(f"GroupNorm: num_channels={num_channels} must be a multiple of "
                               f"num_groups={num_groups}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(
                name, empty_parameter(num_channels, dtype=dtype) if wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight to one and bias to zero."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        sizes = tuple(input.shape)
        if len(sizes) < 2 or sizes[1] != self.num_channels:
            raise misfit(self, input, f"it needs (N, {self.num_channels}, ...)")
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class InstanceNorm2d(_BatchNorm):
    """Each channel of each image of (N, C, H, W) normalised by itself (Ulyanov et al. 2016).

    With `track_running_stats`, evaluation uses the mean of the statistics seen in training.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1,
                 affine: bool = False, track_running_stats: bool = False, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        sizes = tuple(input.shape)
        if len(sizes) not in (3, 4) or sizes[-3] != self.num_features:
            raise misfit(self, input, f"it needs (N, {self.num_features}, H, W) or "
                         f"({self.num_features}, H, W)")
        x = input if len(sizes) == 4 else input.unsqueeze(0)
        own = self.training or self.running_mean is None
        momentum = 0.1 if self.momentum is None else self.momentum
        try:
            y = F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                                own, momentum, self.eps)
        except ShapeError as error:
            raise ShapeError(f"{described(self)}: {error}") from None
        return y if len(sizes) == 4 else y.squeeze(0)


class RMSNorm(Module):
    """x / √(mean(x²) + eps) · weight over the last axes (Zhang & Sennrich 2019).

    eps is the dtype's rounding unit unless given.
    """

    weight: Parameter | None

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None = None,
                 elementwise_affine: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) \
            else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", empty_parameter(
            *self.normalized_shape, dtype=dtype) if elementwise_affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight to one."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        shape = self.normalized_shape
        if tuple(input.shape[-len(shape):]) != shape:
            raise misfit(self, input, f"its last sizes must be {shape}")
        return F.rms_norm(input, shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}")
