"""Layers that pad: what is added to the ends of signals and images."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.core.errors import SettingError
from chainrule.tensor import Tensor

from . import functional as F
from .module import Module
from .naming import misfit

Padding = int | Sequence[int]


class _Pad(Module):
    """Padding of the last `_axes` axes of (N, C, ...) or (C, ...) in the mode `_mode`."""

    _axes = 1
    _mode = "constant"
    value: float | None = None

    def __init__(self, padding: Padding) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self._axes) if isinstance(padding, int) \
            else tuple(padding)
        if len(self.padding) != 2 * self._axes:
            number, sides = ("two", "left, right") if self._axes == 1 else \
                ("four", "left, right, top, bottom")
            raise SettingError(f"{type(self).__name__}: padding={padding!r} must be one number or "
                               f"{number} ({sides})")

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (self._axes + 1, self._axes + 2) and self._mode != "constant":
            rest = "L" if self._axes == 1 else "H, W"
            raise misfit(self, input, f"it needs (N, C, {rest}) or (C, {rest})")
        return F.pad(input, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ReflectionPad1d(_Pad):
    """(N, C, L) or (C, L) mirrored at its ends, which are not repeated.

    padding: one number or (left, right), each below L.

    >>> import chainrule as cr
    >>> cr.nn.ReflectionPad1d(2)(cr.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 2., 1., 2., 3., 2., 1.]])
    """

    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """(N, C, H, W) or (C, H, W) mirrored at its edges, which are not repeated.

    padding: one number or (left, right, top, bottom), each below the size of its axis.

    >>> import chainrule as cr
    >>> tuple(cr.nn.ReflectionPad2d((1, 2, 0, 1))(cr.zeros(3, 4, 5)).shape)
    (3, 5, 8)
    """

    _axes = 2
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """(N, C, L) or (C, L) whose first and last elements are repeated.

    padding: one number or (left, right).

    >>> import chainrule as cr
    >>> cr.nn.ReplicationPad1d(2)(cr.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 1., 1., 2., 3., 3., 3.]])
    """

    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """(N, C, H, W) or (C, H, W) whose edges are repeated.

    padding: one number or (left, right, top, bottom).

    >>> import chainrule as cr
    >>> tuple(cr.nn.ReplicationPad2d(1)(cr.zeros(3, 4, 5)).shape)
    (3, 6, 7)
    """

    _axes = 2
    _mode = "replicate"


class CircularPad1d(_Pad):
    """(N, C, L) or (C, L) that goes on at its other end.

    padding: one number or (left, right), each at most L.

    >>> import chainrule as cr
    >>> cr.nn.CircularPad1d(1)(cr.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 1., 2., 3., 1.]])
    """

    _mode = "circular"


class CircularPad2d(_Pad):
    """(N, C, H, W) or (C, H, W) that goes on at its other edge.

    padding: one number or (left, right, top, bottom), each at most the size of its axis.

    >>> import chainrule as cr
    >>> tuple(cr.nn.CircularPad2d(1)(cr.zeros(3, 4, 5)).shape)
    (3, 6, 7)
    """

    _axes = 2
    _mode = "circular"


class _ConstantPad(_Pad):
    """`_Pad` with a number of the user's."""

    def __init__(self, padding: Padding, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """`value` before and after the last axis; negative padding cuts away.

    padding: one number or (left, right).

    >>> import chainrule as cr
    >>> cr.nn.ConstantPad1d((1, 2), 9.0)(cr.tensor([[1.0, 2.0]]))
    tensor([[9., 1., 2., 9., 9.]])
    """


class ConstantPad2d(_ConstantPad):
    """`value` around the last two axes; negative padding cuts away.

    padding: one number or (left, right, top, bottom).

    >>> import chainrule as cr
    >>> tuple(cr.nn.ConstantPad2d((1, 1, 0, -1), 9.0)(cr.zeros(3, 4, 5)).shape)
    (3, 3, 7)
    """

    _axes = 2


class ZeroPad1d(_Pad):
    """Zeros before and after the last axis; negative padding cuts away.

    padding: one number or (left, right).

    >>> import chainrule as cr
    >>> cr.nn.ZeroPad1d(1)(cr.tensor([[1.0, 2.0]]))
    tensor([[0., 1., 2., 0.]])
    """


class ZeroPad2d(_Pad):
    """Zeros around (N, C, H, W); negative padding cuts away.

    padding: one number or (left, right, top, bottom).

    >>> import chainrule as cr
    >>> tuple(cr.nn.ZeroPad2d(1)(cr.zeros(3, 4, 5)).shape)
    (3, 6, 7)
    """

    _axes = 2
