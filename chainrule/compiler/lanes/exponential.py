"""Exponentials, logarithms, hyperbolic and logistic functions."""

from __future__ import annotations

import math
from collections.abc import Callable

from chainrule.compiler.lanes.common import (
    FRACTION,
    MAGIC,
    MAGIC_BITS,
    ONE,
    SMALLEST,
    in_float64,
    limited,
    polynomial,
    whole,
)
from chainrule.compiler.lanes.registers import Lane, Registers
from chainrule.core.types import float32, float64, int32

# ---------------------------------------------------------------- exponentials

LN2 = math.log(2.0)
# ln 2 as a sum of two numbers of the dtype, both positive: then r keeps the sign of a zero.
LN2_PARTS = {float32: (0.6931471228599548, 5.769998878690785e-08),
             float64: (0.6931471805599453, 2.3190468138462996e-17)}
# (exp(r) − 1 − r)/r² on [−ln 2/2, ln 2/2]; relative error of exp 3e-9 and 4e-18.
EXP = {float32: (0.4999999403953552, 0.16666516661643982, 0.0416681207716465,
                 0.008369196206331253, 0.0013837036676704884),
       float64: (0.5000000000000011, 0.16666666666666435, 0.04166666666652581,
                 0.008333333333475867, 0.0013888888944835049, 0.00019841269554573537,
                 2.4801491811489075e-05, 2.7557537490830103e-06, 2.7630713406859823e-07,
                 2.5017125856991532e-08)}
# The same for the least relative error of exp(r) − 1: 1.4e-8 and 4e-18.
EXPM1 = {float32: (0.4999999701976776, 0.16666539013385773, 0.041667744517326355,
                   0.008367081172764301, 0.0013838679296895862),
         float64: (0.5000000000000001, 0.1666666666666667, 0.041666666666648415,
                   0.008333333333327279, 0.0013888888897417707, 0.00019841269870360414,
                   2.4801571022645674e-05, 2.755726067006622e-06, 2.7570891745965007e-07,
                   2.5103241335470146e-08, 1.6781058405885504e-09)}
# exp is 0 below the first and ∞ above the second; the limits leave room for one doubling.
EXP_LIMITS = {float32: (-104.0, 89.0), float64: (-746.0, 710.0)}
EXP2_LIMITS = {float32: (-151.0, 128.0), float64: (-1076.0, 1024.0)}


def reduced(e: Registers, x: Lane, less: Lane | None = None) -> tuple[Lane, Lane]:
    """(t, r) with x = k·ln 2 + r, |r| ≤ ln 2/2, and the whole number k in the low bits of t.

    With `less`, a number far smaller than r, it is x − less that is reduced.
    """
    magic = MAGIC[x.dtype]
    t = e.fma(x, 1 / LN2, magic)
    k = t - magic
    high, low = LN2_PARTS[x.dtype]
    r = e.fma(k, -high, x)
    return t, e.fma(k, -low, r) if less is None else r - e.fma(k, low, less)


def two_to(e: Registers, t: Lane, shift: int = 0) -> Lane:
    """2^(k + shift), where that is a normal number or exactly one beyond them (∞)."""
    kind, fraction = whole(t.dtype), FRACTION[t.dtype]
    return e.bits((e.bits(t, kind) << fraction) + (ONE[t.dtype] + (shift << fraction)), t.dtype)


def scaled(e: Registers, p: Lane, t: Lane) -> Lane:
    """p·2^k, rounded once, for any result from 0 to ∞.

    Vectors of 64 bytes have an instruction for it; else k is halved and applied in two steps.
    """
    kind, fraction = whole(t.dtype), FRACTION[t.dtype]
    bits = e.bits(t, kind)
    if p.lanes * p.dtype.itemsize >= 64:
        k = bits - (MAGIC_BITS[t.dtype] & 0xFFFFFFFF)
        if p.dtype != float32:
            return e.ldexp(p, e.cast(k, int32))
        # The instruction takes hundreds of cycles where its result is denormal. There, and up to
        # twice the smallest normal number, the bits of the result are a whole number: p·2^(k+149).
        tiny = (k < -125) & (k > -1000)          # a NaN may have any k
        number = e.ldexp(p, e.cast(e.select(tiny, k + 149, k), int32))
        nearest = e.intrinsic("rint", number)
        rounded = e.emit(f"fptosi {nearest!r} to <{p.lanes} x i32>")
        return e.select(tiny, e.bits(Lane(e, rounded, int32, p.lanes), p.dtype), number)
    half = e.bitwise("lshr", bits, 1)
    first = e.bits(e.bits(p, kind) + (half << fraction), p.dtype)
    rest = ((bits - half) << fraction) + ONE[t.dtype]
    # An fma, which is not taken apart to be fused with what follows.
    return e.fma(first, e.bits(rest, p.dtype), -0.0)


def unscaled(e: Registers, x: Lane, shift: int) -> Lane:
    """x·2^−shift for a number x from 0 to 2^shift, rounded once (see `scaled`).

    Where that is denormal its bits are a whole number, to which a sum with 2^fraction rounds;
    elsewhere it has another exponent.
    """
    kind, fraction = whole(x.dtype), FRACTION[x.dtype]
    smallest, unit = SMALLEST[x.dtype], 2.0**fraction
    number = e.bits(x, kind) - (shift << fraction)
    sum_ = e.fma(x, unit * 2.0**-shift / smallest, unit)
    rounded = e.bits(sum_, kind) - (ONE[x.dtype] + (fraction << fraction))
    return e.bits(e.select(x < smallest * 2.0**shift, rounded, number), x.dtype)


def exp(e: Registers, x: Lane) -> Lane:
    t, r = reduced(e, limited(e, x, *EXP_LIMITS[x.dtype]))
    return scaled(e, polynomial(e, r, (1.0, 1.0, *EXP[x.dtype])), t)


def exp2(e: Registers, x: Lane) -> Lane:
    x = limited(e, x, *EXP2_LIMITS[x.dtype])
    t = x + MAGIC[x.dtype]
    r = (x - (t - MAGIC[x.dtype])) * LN2
    return scaled(e, polynomial(e, r, (1.0, 1.0, *EXP[x.dtype])), t)


def expm1_parts(e: Registers, x: Lane) -> tuple[Lane, Lane]:
    """(t, p) with exp(x) = 2^k·(1 + p); p has the relative precision of its size."""
    t, r = reduced(e, x)
    return t, e.fma(r * r, polynomial(e, r, EXPM1[x.dtype]), r)


def expm1(e: Registers, x: Lane) -> Lane:
    low, high = (-18.0, 89.0) if x.dtype == float32 else (-40.0, 710.0)
    t, p = expm1_parts(e, limited(e, x, low, high))
    half = two_to(e, t, -1)
    y = e.fma(p, half, half - 0.5)
    return e.intrinsic("copysign", e.select(e.eq(t, MAGIC[x.dtype]), p, y + y), x)


# ---------------------------------------------------------------- logarithms

# (log(1+f) − f)/f² on [√½ − 1, √2 − 1] for float32, relative error of log 4e-9; for float64
# (2·atanh(s)/s − 2)/s² in s², s = f/(2+f), relative error 1e-18.
LOG = {float32: (-0.49999988079071045, 0.33333325386047363, -0.2500159740447998,
                 0.20001913607120514, -0.16608671844005585, 0.14183580875396729,
                 -0.13248752057552338, 0.128931924700737, -0.07592104375362396),
       float64: (0.6666666666666735, 0.399999999994091, 0.2857142874379151, 0.22222198413453445,
                 0.18183573389853427, 0.15313800291850982, 0.14798628076914436)}
SQRT_HALF = {float32: 0x3F3504F3, float64: 0x3FE6A09E667F3BCD}
# ln 2 with so few digits that its product with an exponent is exact, and the rest.
LN2_SPLIT = (6.93147180369123816490e-01, 1.90821492927058770002e-10)


def log_parts(e: Registers, x: Lane) -> tuple[Lane, Lane]:
    """(k, m) with x = 2^k·m, √½ ≤ m < √2, for positive normal x; k is a whole float."""
    kind, fraction = whole(x.dtype), FRACTION[x.dtype]
    low = SQRT_HALF[x.dtype]
    moved = e.bits(x, kind) - low
    m = e.bits((moved & ((1 << fraction) - 1)) + low, x.dtype)
    k = moved >> fraction
    if x.dtype == float32:
        return e.cast(k, float32), m
    magic = e.bits(k + MAGIC_BITS[float64], float64)
    return magic - MAGIC[float64], m


def log_sum(e: Registers, k: Lane, f: Lane) -> Lane:
    """k·ln 2 + log(1 + f)."""
    if f.dtype == float32:
        return e.fma(k, LN2, e.fma(f * f, polynomial(e, f, LOG[float32]), f))
    square, product = log1p_terms(e, f)
    high, low = LN2_SPLIT
    return e.fma(k, high, f - (square - e.fma(k, low, product)))


def log1p_terms(e: Registers, f: Lane) -> tuple[Lane, Lane]:
    """(a, b) with log(1 + f) = f − (a − b), a = f²/2."""
    s = f / (f + 2)
    z = s * s
    square = f * 0.5 * f
    return square, s * e.fma(z, polynomial(e, z, LOG[float64]), square)


def log_ends(e: Registers, x: Lane, y: Lane) -> Lane:
    """The logarithm y of x, set right at 0, ∞, NaN and negative numbers."""
    y = e.select(x < math.inf, y, x)
    return e.select(x > 0, y, e.select(e.eq(x, 0), e.const(-math.inf, x), math.nan))


def normal(e: Registers, x: Lane) -> tuple[Lane, Lane]:
    """(x·2^j, −j): denormal numbers are brought among the normal ones."""
    tiny = x < SMALLEST[x.dtype]
    j = FRACTION[x.dtype] + 1
    return (e.select(tiny, x * 2.0**j, x), e.select(tiny, e.const(-j, x), 0))


def log(e: Registers, x: Lane) -> Lane:
    scaled_x, shift = normal(e, x)
    k, m = log_parts(e, scaled_x)
    return log_ends(e, x, log_sum(e, k + shift, m - 1))


def log1p(e: Registers, x: Lane) -> Lane:
    u = x + 1
    back = u - 1
    lost = (1 - (u - back)) + (x - back)
    k, m = log_parts(e, u)
    # 2^−k from the exponent; 0 where k is so large that nothing was lost.
    kind = whole(x.dtype)
    exponent = (e.bits(m, kind) - e.bits(u, kind)) + ONE[x.dtype]
    f = e.fma(lost, e.bits(e.max(exponent, 0), x.dtype), m - 1)
    y = log_ends(e, u, log_sum(e, k, f))
    return e.select(e.eq(x, 0), x, y)


def log1pexp(e: Registers, x: Lane) -> Lane:
    """log(1 + exp(x)) for x ≤ 0."""
    t = exp(e, x)
    # Where t is so small that it is the result, another number takes its place on the way: to
    # multiply denormal numbers takes hundreds of cycles.
    least = 2.0**-30 if x.dtype == float32 else 2.0**-60
    small = t < least
    far = t > 0.41421356
    f = e.select(far, e.fma(e.select(small, least, t), 0.5, -0.5), e.select(small, least, t))
    if x.dtype == float32:
        y = e.fma(f * f, polynomial(e, f, LOG[float32]), f)
    else:
        square, product = log1p_terms(e, f)
        y = f - (square - product)
    return e.select(small, t, e.select(far, e.const(LN2, x), 0) + y)


def log_scaled(base: float) -> Callable[..., Lane]:
    """The logarithm to another base: k·log_b 2 + log(m)/ln b, the products in two parts."""
    def function(e: Registers, x: Lane) -> Lane:
        scaled_x, shift = normal(e, x)
        k, m = log_parts(e, scaled_x)
        k = k + shift
        f = m - 1
        square, product = log1p_terms(e, f)
        high = f - square
        low = ((f - high) - square) + product
        scale, rest = INVERSE_LN[base]
        main = e.fma(high, scale, 0.0)
        tail = e.fma(high, rest, e.fma(high, scale, -main)) + low * scale
        if base == 2:
            y = k + main
            tail = tail + ((k - y) + main)
        else:
            big = e.fma(k, LOG10_2[0], 0.0)
            lost = e.fma(k, LOG10_2[0], -big) + k * LOG10_2[1]
            y = big + main
            tail = tail + (lost + ((big - y) + main))
        return log_ends(e, x, y + tail)
    return in_float64(function)


# 1/ln b and log10(2) as sums of two float64.
INVERSE_LN = {2.0: (1.4426950408889634, 2.0355273740931033e-17),
              10.0: (0.4342944819032518, 1.098319650216765e-17)}
LOG10_2 = (0.3010299956639812, -2.8037281277851704e-18)

# ---------------------------------------------------------------- logistic and hyperbolic


# Below the first x·exp(x) is 0; exp there times 2 to the second is a normal number.
LOGISTIC = {float32: (-110.0, 40), float64: (-753.0, 70)}


def logistic(e: Registers, x: Lane) -> tuple[Lane, Lane, int]:
    """((E − E·u)·2^shift, u, shift) with E = exp(−|x|) and u = E/(1 + E)."""
    lowest, shift = LOGISTIC[x.dtype]
    t, r = reduced(e, limited(e, -e.abs(x), lowest, None))
    p = e.fma(r * r, polynomial(e, r, EXP[x.dtype]), r)
    power = two_to(e, t, shift)
    decay = e.fma(p, power, power)
    # Neither E nor u is ever denormal; a u as small as this changes nothing.
    u = limited(e, decay, 2.0**-60, None) / (decay + 2.0**shift)
    return e.fma(-decay, u, decay), u, shift


def sigmoid(e: Registers, x: Lane) -> Lane:
    """E − E·u where x < 0, else 1 − u (see `logistic`)."""
    low, u, shift = logistic(e, x)
    return e.select(x < 0, unscaled(e, low, shift), 1 - u)


def silu(e: Registers, x: Lane) -> Lane:
    """x − x·u where x > 0, else x·(E − E·u), multiplied before the scaling (see `logistic`)."""
    low, u, shift = logistic(e, x)
    size = limited(e, e.abs(x), None, -LOGISTIC[x.dtype][0])
    below = e.intrinsic("copysign", unscaled(e, low * size, shift), x)
    above = e.fma(-limited(e, x, None, 60.0), u, x)           # NaN for −∞
    return e.select((x <= 0) & (x > -math.inf), below, above)


def softplus(e: Registers, x: Lane) -> Lane:
    return e.max(x, 0) + log1pexp(e, -e.abs(x))


def logaddexp(e: Registers, a: Lane, b: Lane) -> Lane:
    y = e.max(a, b) + log1pexp(e, -e.abs(a - b))
    return e.select(e.eq(a, b), a + LN2, y)


def tanh(e: Registers, x: Lane) -> Lane:
    """h/(h + 1) with h = (exp(2|x|) − 1)/2; where h < 1 as h − h·h/(h + 1), which rounds less."""
    a = limited(e, e.abs(x), None, 9.1 if x.dtype == float32 else 20.0)
    t, p = expm1_parts(e, a + a)
    power = two_to(e, t, -1)
    h = e.fma(p, power, power - 0.5)
    ratio = h / (h + 1)
    return e.intrinsic("copysign", e.select(h < 1, e.fma(-h, ratio, h), ratio), x)


def quarter(e: Registers, x: Lane) -> tuple[Lane, Lane, Lane]:
    """(2^(k−2), p, t) with exp(|x|)/4 = 2^(k−2)·(1 + p), finite where sinh and cosh are."""
    t, p = expm1_parts(e, limited(e, e.abs(x), None, 710.6))
    return two_to(e, t, -2), p, t


def sinh(e: Registers, x: Lane) -> Lane:
    """(E + E/(E + 1))/2 with E = exp(|x|) − 1; the second term is nothing beside a large E."""
    power, p, t = quarter(e, x)
    half = e.fma(p, power, power - 0.25) * 2
    half = e.select(e.eq(t, MAGIC[x.dtype]), p * 0.5, half)
    y = e.select(e.abs(x) > 40, half, half + half / (half + half + 1))
    return e.intrinsic("copysign", y, x)


def cosh(e: Registers, x: Lane) -> Lane:
    power, p, _ = quarter(e, x)
    y = e.fma(p, power, power) * 2
    return y + 0.25 / y


def asinh(e: Registers, x: Lane) -> Lane:
    a = e.abs(x)
    far = a > 2.0**60
    s = a * a
    u = e.select(far, a, a + s / (e.intrinsic("sqrt", s + 1) + 1))
    y = log1p(e, u) + e.select(far, e.const(LN2, x), 0)
    return e.intrinsic("copysign", y, x)


def acosh(e: Registers, x: Lane) -> Lane:
    far = x > 2.0**60
    t = x - 1
    u = e.select(far, x, t + e.intrinsic("sqrt", e.fma(t, t, t + t)))
    u = e.select(x < 1, math.nan, u)
    return log1p(e, u) + e.select(far, e.const(LN2, x), 0)


def atanh(e: Registers, x: Lane) -> Lane:
    a = e.abs(x)
    return e.intrinsic("copysign", log1p(e, (a + a) / (1 - a)) * 0.5, x)
