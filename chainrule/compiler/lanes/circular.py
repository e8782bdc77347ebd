"""Trigonometric functions and their inverses."""

from __future__ import annotations

import math

from chainrule.compiler.lanes.common import MAGIC, outlined, polynomial, whole
from chainrule.compiler.lanes.registers import Lane, Registers
from chainrule.core.types import float32, float64

# π/2 as a sum of three positive numbers of the dtype: then r keeps the sign of a zero. k times the
# first is subtracted exactly, the difference being below 1; k times the rest costs half a unit.
HALF_PI = {float32: (1.570796251296997, 7.549789415861596e-08, 5.390302529957765e-15),
           float64: (1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32)}
LARGE = {float32: 1e5, float64: 1e9}
# (sin(r)/r − 1)/r² and (cos(r) − 1 + r²/2)/r⁴ in r² on [0, π/4]; relative errors 4e-9 and 1e-10,
# 4e-18 and 6e-20.
SIN = {float32: (-0.16666655242443085, 0.008332188241183758, -0.00019518070621415973),
       float64: (-0.1666666666666663, 0.00833333333332184, -0.00019841269829359083,
                 2.7557313538899126e-06, -2.5050734464132678e-08, 1.5895437543648388e-10)}
COS = {float32: (0.04166664555668831, -0.0013887309469282627, 2.4432332793367095e-05),
       float64: (0.041666666666666595, -0.0013888888888873325, 2.480158728898364e-05,
                 -2.755731421003954e-07, 2.087570426222091e-09, -1.1358682674681904e-11)}
# (atan(t)/t − 1)/t² in t² on [0, tan² π/8], relative error 1e-18, and (asin(x)/x − 1)/x² in x² on
# [0, ¼], relative error 1e-18.
ATAN = (-0.3333333333333319, 0.1999999999995218, -0.14285714280053652, 0.11111110776273565,
        -0.09090897550196175, 0.07692056510033257, -0.06663061788679532, 0.05847580679499976,
        -0.05037908675009141, 0.03802894702780459, -0.017868043139836504)
ASIN = (0.16666666666666763, 0.07499999999970088, 0.04464285717527992, 0.030381942676478806,
        0.02237221585175992, 0.017351596790237265, 0.013980999291898529, 0.011397483318217307,
        0.010788057996456903, 0.0036777353510544742, 0.021775207775714536, -0.02109214575267555,
        0.03268513737875627)
PI_LOW = 1.2246467991473532e-16        # what π has beyond float64


def quadrant(e: Registers, x: Lane) -> tuple[Lane, Lane, Lane]:
    """(k, sin r, cos r) with x = k·π/2 + r, |r| ≤ π/4; k in the low bits of an integer."""
    t = e.fma(x, 2 / math.pi, MAGIC[x.dtype])
    k = t - MAGIC[x.dtype]
    r = x
    for part in HALF_PI[x.dtype]:
        r = e.fma(k, -part, r)
    z = r * r
    sine = e.fma(r * z, polynomial(e, z, SIN[x.dtype]), r)
    sine = e.intrinsic("copysign", sine, r)               # for −0
    cosine = polynomial(e, z, (1.0, -0.5, *COS[x.dtype]))
    return e.bits(t, whole(x.dtype)), sine, cosine


def turned(e: Registers, k: Lane, sine: Lane, cosine: Lane) -> Lane:
    """sin(k·π/2 + r)."""
    y = e.select(e.eq(k & 1, 0), sine, cosine)
    last = 8 * y.dtype.itemsize - 2
    return e.bits(e.bits(y, k.dtype) ^ ((k & 2) << last), y.dtype)


def sin(e: Registers, x: Lane) -> Lane:
    def fast(e: Registers, x: Lane) -> tuple[Lane, Lane]:
        return turned(e, *quadrant(e, x)), e.abs(x) > LARGE[x.dtype]
    return outlined(e, "sin", fast, x)


def cos(e: Registers, x: Lane) -> Lane:
    def fast(e: Registers, x: Lane) -> tuple[Lane, Lane]:
        k, sine, cosine = quadrant(e, x)
        return turned(e, k + 1, sine, cosine), e.abs(x) > LARGE[x.dtype]
    return outlined(e, "cos", fast, x)


def tan(e: Registers, x: Lane) -> Lane:
    def fast(e: Registers, x: Lane) -> tuple[Lane, Lane]:
        k, sine, cosine = quadrant(e, x)
        even = e.eq(k & 1, 0)
        y = e.select(even, sine, -cosine) / e.select(even, cosine, sine)
        return y, e.abs(x) > LARGE[x.dtype]
    return outlined(e, "tan", fast, x)


def asin_parts(e: Registers, x: Lane) -> tuple[Lane, Lane]:
    """(far, v): asin|x| is v, or π/2 − 2v where |x| is far from 0, above ½."""
    a = e.abs(x)
    far = a > 0.5
    z = e.select(far, e.fma(a, -0.5, 0.5), a * a)
    s = e.select(far, e.intrinsic("sqrt", z), a)
    return far, e.fma(s * z, polynomial(e, z, ASIN), s)


def asin(e: Registers, x: Lane) -> Lane:
    far, v = asin_parts(e, x)
    y = e.select(far, math.pi / 2 - (v + v - PI_LOW / 2), v)
    return e.intrinsic("copysign", y, x)


def acos(e: Registers, x: Lane) -> Lane:
    far, v = asin_parts(e, x)
    negative = x < 0
    near = math.pi / 2 - (e.intrinsic("copysign", v, x) - PI_LOW / 2)
    twice = v + v
    return e.select(far, e.select(negative, math.pi - (twice - PI_LOW), twice), near)


def atan_of_ratio(e: Registers, n: Lane, d: Lane) -> Lane:
    """atan(n/d) for 0 ≤ n ≤ d, both finite; from the tangent of π/8 on, π/4 is taken off first."""
    steep = n > d * 0.41421356237309503
    t = e.select(steep, n - d, n) / e.select(steep, n + d, d)
    z = t * t
    y = e.fma(t * z, polynomial(e, z, ATAN), t)
    return e.select(steep, y + PI_LOW / 4 + math.pi / 4, y)


def atan(e: Registers, x: Lane) -> Lane:
    a = e.abs(x)
    swap = a > 1
    a = e.select(e.eq(a, math.inf), 2.0**1000, a)
    one = e.const(1, x)
    y = atan_of_ratio(e, e.select(swap, one, a), e.select(swap, a, one))
    y = e.select(swap, math.pi / 2 - (y - PI_LOW / 2), y)
    return e.intrinsic("copysign", y, x)


def atan2(e: Registers, y: Lane, x: Lane) -> Lane:
    a, b = e.abs(y), e.abs(x)
    swap = a > b
    n, d = e.select(swap, b, a), e.select(swap, a, b)
    # Two infinities count as equal; large sizes are quartered, since n + d must be finite.
    both = e.eq(a, math.inf) & e.eq(b, math.inf)
    n, d = e.select(both, 1, n), e.select(both, 1, d)
    huge = (d > 2.0**1000) & (d < math.inf)
    n, d = e.select(huge, n * 0.25, n), e.select(huge, d * 0.25, d)
    angle = atan_of_ratio(e, n, e.select(e.eq(d, 0), 1, d))
    angle = e.select(swap, math.pi / 2 - (angle - PI_LOW / 2), angle)
    angle = e.select(e.whole_bits(x) < 0, math.pi - (angle - PI_LOW), angle)
    return e.intrinsic("copysign", angle, y)
