"""Linear layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core import lines
from chainrule.core.errors import ChainruleError, DtypeError, SettingError
from chainrule.core.record import new
from chainrule.core.types import as_dtype
from chainrule.tensor import Tensor

from . import init
from .display import type_text
from .module import Module
from .naming import described, misfit
from .parameter import Parameter


def empty_parameter(*shape: int, dtype: Any = None) -> Parameter:
    """A parameter whose values are still to be set."""
    return Parameter(new(lines.empty(shape, as_dtype(float if dtype is None else dtype))))


def whole(module: Module, **sizes: Any) -> None:
    """Raises `SettingError` unless each size is a whole number of at least 0."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
            raise SettingError(f"{type(module).__name__}: {name}={size!r} must be a whole number "
                               "of at least 0")


class Linear(Module):
    """y = x Wᵀ + b for x (..., in_features): (..., out_features).

    `weight` is (out_features, in_features) and `bias` (out_features,), both uniform in
    ±1/√in_features at first, as in PyTorch.

    >>> import chainrule as cr
    >>> layer = cr.nn.Linear(3, 2)
    >>> tuple(layer(cr.ones(5, 3)).shape)
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        whole(self, in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = empty_parameter(out_features, in_features, dtype=dtype)
        if bias:
            self.bias = empty_parameter(out_features, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        bound = 1 / self.in_features ** 0.5 if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        try:
            if self.bias is None:
                return rows.linear(input, self.weight)
            return rows.linear(input, self.weight, self.bias)
        except (ChainruleError, ValueError, TypeError, IndexError):
            self._explain(input)
            raise

    def _explain(self, input: Any) -> None:
        """Raises an error that names the layer if the input cannot go into it."""
        if not isinstance(input, Tensor):
            raise DtypeError(f"{described(self)} got {type(input).__name__}, not a Tensor: convert "
                             "with chainrule.tensor(...)") from None
        sizes = tuple(input.shape)
        if not sizes or sizes[-1] != self.in_features:
            raise misfit(self, input, f"its last size must be {self.in_features}") from None
        if input.dtype != self.weight.dtype:
            raise DtypeError(
                f"{described(self)} got {type_text(input)} and has parameters of dtype "
                f"{self.weight.dtype}: convert one of them, x.to(...) or module.to(...)") from None

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}")


class Identity(Module):
    """Returns its input; takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Flatten(Module):
    """Makes one axis of the axes `start_dim` to `end_dim`: (N, C, H, W) to (N, C·H·W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits axis `dim` into axes of the sizes `unflattened_size`."""

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        sizes = tuple(input.shape)
        axis = self.dim + len(sizes) if self.dim < 0 else self.dim
        known = [size for size in self.unflattened_size if size != -1]
        if not 0 <= axis < len(sizes) or (
                sizes[axis] != int(np.prod(known)) if len(known) == len(self.unflattened_size)
                else sizes[axis] % max(1, int(np.prod(known)))):
            raise misfit(self, input, f"axis {self.dim} cannot be split into sizes "
                         f"{self.unflattened_size}")
        return input.reshape(*sizes[:axis], *self.unflattened_size, *sizes[axis + 1:])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
