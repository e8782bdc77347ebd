"""`Sym`: a value that carries its formula. Running a rule of the table on Syms writes it down.

The formula with names, the formula with numbers and the result come from one evaluation, so what
is printed is what was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np

from chainrule.core.bind import Value
from chainrule.core.primitive import Primitive
from chainrule.core.types import ArrayType, type_of
from chainrule.prims import show
from chainrule.prims.show import Shown

from .numbers import Style, rounded, strength_of

GRADIENT = 4         # how strongly ∂L/∂w binds: stays whole in a product, gets brackets before ᵀ

# Where arrays are multiplied element by element, the field writes ⊙ rather than ·
FACTORS = ("mul", "keep", "div")        # where a factor 1 is not written
BETWEEN_ARRAYS = {"mul": show.infix(" ⊙ ", 2), "keep": show.infix(" ⊙ ", 2)}

OF_CONDITIONS = {"bitwise_not": show.prefix("not "), "bitwise_and": show.infix(" and ", 1),
                 "bitwise_or": show.infix(" or ", 1)}


@final
class Sym(Value):
    """Names, numbers and value of an expression; `value` is None where only its type is known.

    `unit` marks the factor 1 that stands in for the upstream gradient when a local derivative is
    written down; products leave it out.
    """

    __slots__ = ("names", "numbers", "style", "type", "unit", "value")

    def __init__(self, names: Shown, value: Any, style: Style, *, numbers: Shown | None = None,
                 type: ArrayType | None = None, unit: bool = False) -> None:
        self.names = names
        self.value = None if value is None else np.asarray(value)
        self.type = type_of(self.value) if type is None else type
        self.style = style
        self.unit = unit
        if numbers is None:
            text = str(self.type) if value is None else style.array(self.value)
            numbers = (text, strength_of(text))
        self.numbers = numbers

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> Any:
        return self.type.dtype

    @property
    def result(self) -> str:
        """The value as text."""
        return str(self.type) if self.value is None else self.style.array(self.value)

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Sym:
        """Evaluate the row and write it down."""
        value, kind = evaluated(prim, xs, params, self.style)
        if prim.name == "sum" and not params["axes"] and isinstance(xs[0], Sym):
            return xs[0]
        names, formula = written(prim, xs, params, self.style)
        answer = kind.dtype.kind == "b" and value is not None
        numbers = None if answer else formula          # of a condition, 1 or 0
        unit = prim.name in ("reshape", "broadcast") and xs[0].unit
        return Sym(names, value, self.style, numbers=numbers, type=kind, unit=unit)


def evaluated(prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any],
              style: Style) -> tuple[Any, ArrayType]:
    """The row's value on the operands and its type; no value if an operand has none."""
    if any(isinstance(x, Sym) and x.value is None for x in xs):
        return None, inferred(prim, xs, params)
    value = np.asarray(prim.eval(*[x.value if isinstance(x, Sym) else x for x in xs], **params))
    if style.by_hand is not None:
        value = rounded(value, style.by_hand)
    return value, type_of(value)


def inferred(prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> ArrayType:
    types = [type_of(x) if hasattr(x, "shape") else None for x in xs]
    if prim.kind == "elementwise":
        shape = np.broadcast_shapes(*[t.shape for t in types if t is not None])
        types = [None if t is None else ArrayType(shape, t.dtype) for t in types]
    return prim.infer(*types, **params)


def written(prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any],
            style: Style) -> tuple[Shown, Shown]:
    """The row on the operands, once with names and once with numbers."""
    if prim.name in FACTORS:
        for one, other in (xs[::-1], xs) if prim.name != "div" else (xs[::-1],):
            neutral = one.unit if isinstance(one, Sym) else type(one) in (int, float) and one == 1
            if neutral and isinstance(other, Sym):
                return other.names, other.numbers
    form = form_of(prim, xs)
    if form is squared:
        xs = xs[:1]
    names, numbers = [], []
    for x in xs:
        if isinstance(x, Sym):
            names.append(x.names)
            numbers.append(x.numbers)
        elif x is not None:
            text = style.array(x)
            names.append((text, strength_of(text)))
            numbers.append(names[-1])
    return form(*names, **params), form(*numbers, **params)


def squared(a: Shown, **_: Any) -> Shown:
    """A product of one thing with itself."""
    return f"{show.bracket(*a, 9)}²", 4


def form_of(prim: Primitive, xs: tuple[Any, ...]) -> Callable[..., Shown]:
    """How this application is written."""
    if prim.name == "mul" and xs[0] is xs[1]:
        return squared
    if prim.name in OF_CONDITIONS and getattr(xs[0], "dtype", None) == np.bool_:
        return OF_CONDITIONS[prim.name]
    if prim.name in BETWEEN_ARRAYS and all(len(getattr(x, "shape", ())) for x in xs):
        return BETWEEN_ARRAYS[prim.name]
    if prim.show is not None:
        return prim.show

    def plain(*texts: Shown, **params: Any) -> Shown:
        chosen = [f"{key}={value}" for key, value in params.items()
                  if key in prim.options and value != prim.options[key]]
        return f"{prim.name}({', '.join([*[t[0] for t in texts], *chosen])})", 9

    return plain
