"""How rows are computed in registers, where it takes more than a line: the `lower` of their record.

`e` is the emitter that the compiler passes in, operands are its lanes or Python numbers. The
results are those of the row's NumPy evaluation, also at NaN, ±∞ and −0. NotImplemented stands for
"call the NumPy evaluation": integers that may be divided by zero raise an error there.
"""

from __future__ import annotations

import math
from typing import Any


def function(name: str) -> Any:
    """The lowering to one function of the compiler's mathematics."""
    return lambda e, *xs: e.math(name, *xs)


def of_floats(name: str) -> Any:
    """The lowering to an instruction that leaves whole numbers as they are."""
    return lambda e, x: e.intrinsic(name, x) if x.dtype.kind == "f" else x


def comparison(how: str) -> Any:
    return lambda e, a, b: e.compare(how, a, b)


def truth(e: Any, x: Any) -> Any:
    """Is x non-zero (as NaN is)?"""
    return e.ne(x, 0) if hasattr(x, "dtype") and x.dtype.kind != "b" else x


def logical(how: str) -> Any:
    return lambda e, a, b: e.bitwise(how, truth(e, a), truth(e, b))


def whole(*xs: Any) -> bool:
    """Are the lanes integers or truth values?"""
    return any(hasattr(x, "dtype") and x.dtype.kind != "f" for x in xs)


def neg(e: Any, x: Any) -> Any:
    return NotImplemented if x.dtype.kind == "b" else -x


def where(e: Any, mask: Any, a: Any, b: Any) -> Any:
    if not hasattr(a, "dtype") and not hasattr(b, "dtype"):
        return NotImplemented
    return e.select(truth(e, mask), a, b)


def keep(e: Any, x: Any, mask: Any) -> Any:
    return e.select(truth(e, mask), x, 0) if hasattr(x, "dtype") else NotImplemented


def clamp(e: Any, x: Any, min: Any, max: Any) -> Any:
    if whole(x) and any(isinstance(limit, float) for limit in (min, max)):
        return NotImplemented
    y = x if min is None else e.max(x, min)
    return y if max is None else e.min(y, max)


def sign(e: Any, x: Any) -> Any:
    if x.dtype.kind == "b":
        return x
    one = e.select(x > 0, 1, e.select(x < 0, e.const(-1, x), 0))
    return e.select(e.isnan(x), x, one) if x.dtype.kind == "f" else one


def logical_not(e: Any, x: Any) -> Any:
    return ~x if x.dtype.kind == "b" else e.eq(x, 0)


def isinf(e: Any, x: Any) -> Any:
    if x.dtype.kind != "f":
        return e.const(False, "bool")
    return e.eq(e.abs(x), math.inf)


def isfinite(e: Any, x: Any) -> Any:
    if x.dtype.kind != "f":
        return e.const(True, "bool")
    return e.abs(x) < math.inf


def signbit(e: Any, x: Any) -> Any:
    return e.whole_bits(x) < 0 if x.dtype.kind == "f" else NotImplemented


def round_(e: Any, x: Any, decimals: int) -> Any:
    """Halves to even; other places than the first as NumPy does, by way of a power of ten."""
    if x.dtype.kind != "f":
        return x if decimals >= 0 else NotImplemented
    if decimals == 0:
        return e.intrinsic("rint", x)
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return e.intrinsic("rint", x * scale) / scale
    return e.intrinsic("rint", x / scale) * scale


def power(e: Any, a: Any, b: Any) -> Any:
    """Some exponents are worth their own way; they keep what C99 says of ±0 and ±∞."""
    if whole(a, b):
        return a * a if type(b) is int and b == 2 else NotImplemented
    if isinstance(b, (int, float)):
        if b == 2:
            return a * a
        if b == 1:
            return a
        if b == 3:
            return a * a * a
        if b == -1:
            return 1 / a
        if b == 4:
            return (a * a) * (a * a)
        if b == -2:
            return 1 / (a * a)
        if b == 0.5:
            return e.intrinsic("sqrt", a)
        if b == -0.5:
            return e.select(e.eq(a, -math.inf), 0, 1 / e.intrinsic("sqrt", a + 0.0))
    return e.math("pow", a, b)


def _divisor(a: Any, b: Any) -> bool:
    """May integers be divided by b at once? Not by an array, which may hold 0 (or −1, a trap)."""
    return type(b) is int and b not in (0, -1) and (b > 0 or a.dtype.kind == "i")


def _whole_division(e: Any, a: Any, b: int) -> tuple[Any, Any]:
    """The quotient rounded down, and the remainder with the sign of b."""
    quotient, rest = e.div(a, b), e.remainder(a, b)
    if a.dtype.kind == "u":
        return quotient, rest
    above = rest < 0 if b > 0 else rest > 0
    return e.select(above, quotient - 1, quotient), e.select(above, rest + b, rest)


def floor_divide(e: Any, a: Any, b: Any) -> Any:
    """(a − a mod b)/b, made whole, as NumPy does it so that a = b·⌊a/b⌋ + a mod b."""
    if whole(a, b):
        if not _divisor(a, b):
            return NotImplemented
        return _whole_division(e, a, b)[0]
    a, b = e.together(a, b)
    rest = e.math("fmod", a, b)
    exact = (a - rest) / b
    down = e.ne(rest, 0) & ((b < 0) ^ (rest < 0))
    exact = e.select(down, exact - 1, exact)
    floor = e.intrinsic("floor", exact)
    floor = e.select(exact - floor > 0.5, floor + 1, floor)
    ratio = a / b
    nothing = e.eq(exact, 0)
    floor = e.select(nothing, e.intrinsic("copysign", e.const(0, a), ratio), floor)
    return e.select(e.eq(b, 0), ratio, floor)


def remainder(e: Any, a: Any, b: Any) -> Any:
    if whole(a, b):
        if not _divisor(a, b):
            return NotImplemented
        return _whole_division(e, a, b)[1]
    a, b = e.together(a, b)
    rest = e.math("fmod", a, b)
    moved = e.select((b < 0) ^ (rest < 0), rest + b, rest)
    return e.select(e.eq(rest, 0), e.intrinsic("copysign", e.const(0, a), b), moved)


def fmod(e: Any, a: Any, b: Any) -> Any:
    if whole(a, b):
        if not _divisor(a, b):
            return NotImplemented
        return e.remainder(a, b)
    return e.math("fmod", a, b)


def logit(e: Any, x: Any) -> Any:
    return e.math("log", x / (1 - x))


def sinc(e: Any, x: Any) -> Any:
    y = e.select(e.eq(x, 0), 1e-20, x) * math.pi
    return e.math("sin", y) / y


def leaky_relu(e: Any, x: Any, negative_slope: float) -> Any:
    return e.select(x > 0, x, x * negative_slope) if x.dtype.kind == "f" else NotImplemented


def elu(e: Any, x: Any, alpha: float) -> Any:
    if x.dtype.kind != "f":
        return NotImplemented
    below = e.math("expm1", e.min(x, 0))
    return e.select(x > 0, x, below if alpha == 1 else below * alpha)


def gelu(e: Any, x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        inner = (x * x * x * 0.044715 + x) * math.sqrt(2 / math.pi)
        return x * 0.5 * (e.math("tanh", inner) + 1)
    return x * (e.math("erfc", x * -math.sqrt(0.5)) * 0.5)


def hardtanh(e: Any, x: Any, min_val: float, max_val: float) -> Any:
    return clamp(e, x, min_val, max_val)


def bce_with_logits(e: Any, x: Any, target: Any) -> Any:
    x, target = e.together(x, target)
    loss = e.select(x >= 0, (1 - target) * x, -target * x) + e.math("log1pexp", -e.abs(x))
    sure = ((e.eq(x, math.inf) & e.eq(target, 1)) | (e.eq(x, -math.inf) & e.eq(target, 0)))
    return e.select(sure, 0, loss)


def bce(e: Any, x: Any, target: Any) -> Any:
    x, target = e.together(x, target)
    yes, no = e.max(e.math("log", x), -100), e.max(e.math("log1p", -x), -100)
    return -(target * yes + (1 - target) * no)
