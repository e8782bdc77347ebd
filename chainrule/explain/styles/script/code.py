"""`Code`: a value that will be written as NumPy. The rules of the table run on it as on numbers."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any, final

import numpy as np

from chainrule.core.bind import Value
from chainrule.core.primitive import Primitive
from chainrule.core.types import ArrayType, type_of
from chainrule.explain.symbol import inferred


@final
class Code(Value):
    """A name of the script (`expr`), or a row applied to other Codes; with its value if known.

    `missing` marks what the script cannot compute, since the tape did not keep an operand.
    """

    __slots__ = ("expr", "missing", "params", "prim", "type", "value", "xs")

    def __init__(self, value: Any, *, expr: ast.expr | None = None, type: ArrayType | None = None,
                 prim: Primitive | None = None, xs: tuple[Any, ...] = (),
                 params: dict[str, Any] | None = None, missing: bool = False) -> None:
        self.value = None if value is None else np.asarray(value)
        self.type = type_of(self.value) if type is None else type
        self.expr = expr
        self.prim = prim
        self.xs = xs
        self.params = params or {}
        self.missing = missing

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> Any:
        return self.type.dtype

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Code:
        """The row, remembered; it is written where it is needed."""
        missing = any(isinstance(x, Code) and x.missing for x in xs)
        if any(isinstance(x, Code) and x.value is None for x in xs):
            return Code(None, type=inferred(prim, xs, params), prim=prim, xs=xs, params=params,
                        missing=missing)
        value = prim.eval(*[x.value if isinstance(x, Code) else x for x in xs], **params)
        return Code(value, prim=prim, xs=xs, params=params, missing=missing)

    @property
    def stand_in(self) -> Any:
        """An array of this shape and dtype."""
        return np.ones(self.shape, self.dtype) if self.value is None else self.value


def parts(root: Code) -> Counter[int]:
    """How often each Code is read below `root`, by id."""
    uses: Counter[int] = Counter()
    stack = [root]
    while stack:
        here = stack.pop()
        if here.expr is not None:
            continue
        for x in here.xs:
            if isinstance(x, Code):
                uses[id(x)] += 1
                if uses[id(x)] == 1:
                    stack.append(x)
    return uses
