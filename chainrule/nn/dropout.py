"""Dropout."""

from __future__ import annotations

from chainrule.core.errors import SettingError
from chainrule.tensor import Tensor

from . import functional as F
from .module import Module


class Dropout(Module):
    """In training, zeroes elements with probability `p` and scales the rest by 1/(1−p).

    (Srivastava et al. 2014). In evaluation it returns its input.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise SettingError(f"{type(self).__name__}: p={p!r} must be between 0 and 1")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout2d(Dropout):
    """Dropout of whole channels of (N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training, self.inplace)
