"""`bind`, the one place where a primitive is applied, and `Value`, what it is applied to.

`bind` hands the call to the class of the operands: `Tensor` records, `Probe` notes what is read,
`Sym` writes the formula down. With bare NumPy arrays it only evaluates, which is how rules run
when no second derivative is asked for.
"""

from __future__ import annotations

import threading
from typing import Any

from .primitive import BIND, TABLE, Primitive


class State(threading.local):
    """What this thread is doing.

    recording  0 nothing, 1 what the backward rules read, 2 every value
    scope      the chain of modules being called: (outer scope, module, place), innermost first;
               place is the user's line as (code, offset) while only code of the package runs
    capture    the run without numbers of a compiled function, if this thread is in one
    seen       if somebody wants them: what arrives at each node in the next backward pass
    dropped    if somebody wants to look back: the roots of the last backward pass and its tensors,
               then (node, saved, out) of what it has dropped
    """

    recording: int = 1
    inference: bool = False
    scope: Any = None
    tracing: str = ""
    draws: Any = None
    capture: Any = None
    seen: dict[Any, Any] | None = None
    dropped: list[Any] | None = None


state = State()


def bind(prim: Primitive, *xs: Any, **params: Any) -> Any:
    """Apply `prim`. Operands are Values of one class, NumPy arrays and Python numbers."""
    for x in xs:
        if isinstance(x, Value):
            return x.apply(prim, xs, params)
    return prim.eval(*xs, **params)


BIND.append(bind)


class Value:
    """Anything a rule can be run on. Its operators are rows of the table, looked up by name."""

    __slots__ = ()
    __array_ufunc__: Any = None

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must say how a primitive is applied")

    shape: Any
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __add__(self, other: Any) -> Any:
        return bind(TABLE["add"], self, other)

    def __radd__(self, other: Any) -> Any:
        return bind(TABLE["add"], other, self)

    def __sub__(self, other: Any) -> Any:
        return bind(TABLE["sub"], self, other)

    def __rsub__(self, other: Any) -> Any:
        return bind(TABLE["sub"], other, self)

    def __mul__(self, other: Any) -> Any:
        return bind(TABLE["mul"], self, other)

    def __rmul__(self, other: Any) -> Any:
        return bind(TABLE["mul"], other, self)

    def __truediv__(self, other: Any) -> Any:
        return bind(TABLE["div"], self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return bind(TABLE["div"], other, self)

    def __pow__(self, other: Any) -> Any:
        return bind(TABLE["pow"], self, other)

    def __rpow__(self, other: Any) -> Any:
        return bind(TABLE["pow"], other, self)

    def __neg__(self) -> Any:
        return bind(TABLE["neg"], self)

    def __matmul__(self, other: Any) -> Any:
        return bind(TABLE["matmul"], self, other)

    def __gt__(self, other: Any) -> Any:
        return bind(TABLE["gt"], self, other)

    def __ge__(self, other: Any) -> Any:
        return bind(TABLE["ge"], self, other)

    def __lt__(self, other: Any) -> Any:
        return bind(TABLE["lt"], self, other)

    def __le__(self, other: Any) -> Any:
        return bind(TABLE["le"], self, other)

    def __invert__(self) -> Any:
        return bind(TABLE["bitwise_not"], self)

    def __and__(self, other: Any) -> Any:
        return bind(TABLE["bitwise_and"], self, other)

    def __or__(self, other: Any) -> Any:
        return bind(TABLE["bitwise_or"], self, other)

    @property
    def mT(self) -> Any:
        last = len(self.shape) - 1
        return bind(TABLE["permute"], self, order=(*range(last - 1), last, last - 1))
