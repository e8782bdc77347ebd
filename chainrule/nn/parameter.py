"""`Parameter`: a tensor that a module registers as its own."""

from __future__ import annotations

from typing import Any

from chainrule.tensor import Tensor, array_from


class Parameter(Tensor):
    """A leaf tensor that a module collects when it is assigned as an attribute.

    It shares memory with `data` and is cut from its graph.

    >>> import chainrule as cr
    >>> weight = cr.nn.Parameter(cr.zeros(2, 3))
    >>> weight.requires_grad, weight.is_leaf
    (True, True)
    """

    __slots__ = ()

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        self = super().__new__(cls)
        self._value = data._value if isinstance(data, Tensor) else array_from(
            [] if data is None else data)
        self._node = self._grad = self._extra = None
        if requires_grad:
            self.requires_grad_()
        return self

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        """Everything is done in `__new__`."""

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()
