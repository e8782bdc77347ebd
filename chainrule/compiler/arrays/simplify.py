"""Simplifications made while Arrays are built. Each function's docstring is its equation.

None of them removes a NaN, an infinity or the sign of a zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.compiler.arrays.arrays import Array, Arrays
from chainrule.core.primitive import TABLE, Primitive


def number_of(x: Any) -> Any:
    """The one number an operand consists of, if it is known now; else None."""
    if not isinstance(x, Array):
        return x
    while x.kind == "view" and not x.inputs[0].shape:
        x = x.inputs[0]
    return x.what.item() if x.kind == "const" and not x.shape else None


def is_map(x: Any, name: str) -> bool:
    return isinstance(x, Array) and x.kind == "map" and x.what.name == name


def same(builder: Arrays, x: Any) -> Any:
    """identity(x) = x, stop_gradient(x) = x: there are no gradients any more."""
    return x


def zeros(builder: Arrays, x: Any) -> Any:
    """zeros_like(x) = 0."""
    return builder.full(0, x.shape, x.dtype)


def product(builder: Arrays, a: Any, b: Any) -> Any:
    """x·1 = x, 1·x = x, x·(−1) = −x."""
    for x, other in ((a, b), (b, a)):
        if isinstance(x, Array) and x.dtype.kind == "f":
            number = number_of(other)
            if number == 1:
                return x
            if number == -1:
                return negation(builder, x) or builder.row(TABLE["neg"], (x,), {})
    return None


def quotient(builder: Arrays, a: Any, b: Any) -> Any:
    """x/1 = x."""
    return a if isinstance(a, Array) and number_of(b) == 1 and a.dtype.kind == "f" else None


def difference(builder: Arrays, a: Any, b: Any) -> Any:
    """x − 0 = x (also −0 − 0 = −0)."""
    number = number_of(b)
    positive = number is not None and number == 0 and not np.signbit(number)
    return a if isinstance(a, Array) and positive else None


def addition(builder: Arrays, a: Any, b: Any) -> Any:
    """x + (−0.0) = x; of integers x + 0 = x."""
    for x, other in ((a, b), (b, a)):
        number = number_of(other)
        if isinstance(x, Array) and number is not None and number == 0 and (
                x.dtype.kind in "iu" or (isinstance(number, float) and np.signbit(number))):
            return x
    return None


def negation(builder: Arrays, x: Any) -> Any:
    """−(−x) = x."""
    return x.inputs[0] if is_map(x, "neg") else None


def power(builder: Arrays, a: Any, b: Any) -> Any:
    """x¹ = x."""
    return a if isinstance(a, Array) and type(b) in (int, float) and b == 1 else None


def selection(builder: Arrays, condition: Any, a: Any, b: Any) -> Any:
    """where(c, x, x) = x, where(true, x, y) = x, where(false, x, y) = y."""
    if isinstance(a, Array) and a is b:
        return a
    known = number_of(condition)
    chosen = None if known is None else a if known else b
    return chosen if isinstance(chosen, Array) else None


def kept(builder: Arrays, x: Any, mask: Any) -> Any:
    """keep(0, c) = 0, keep(x, true) = x, keep(keep(x, c), c) = keep(x, c)."""
    if not isinstance(x, Array):
        return None
    known, number = number_of(mask), number_of(x)
    if known is True or (is_map(x, "keep") and x.inputs[1] is mask):
        return x
    return x if number is not None and number == 0 and not np.signbit(number) else None


RULES: dict[str, Callable[..., Any]] = {
    "identity": same, "stop_gradient": same, "zeros_like": zeros, "mul": product, "div": quotient,
    "sub": difference, "add": addition, "neg": negation, "pow": power, "where": selection,
    "keep": kept,
}


def simpler(builder: Arrays, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """What the row comes to by one of the rules, or None."""
    rule = RULES.get(prim.name)
    return rule(builder, *xs) if rule is not None and not params else None
