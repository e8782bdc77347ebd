"""Powers, remainders, and the error function with its relatives."""

from __future__ import annotations

import math

from chainrule.compiler.lanes.common import limited, outlined, polynomial
from chainrule.compiler.lanes.exponential import (
    EXP,
    EXP_LIMITS,
    LN2_SPLIT,
    exp,
    log,
    log_parts,
    normal,
    reduced,
    scaled,
    two_to,
)
from chainrule.compiler.lanes.registers import Lane, Registers
from chainrule.core.types import float32, float64

# ---------------------------------------------------------------- remainder, hypot, pow


def fmod(e: Registers, a: Lane, b: Lane) -> Lane:
    """a − b·trunc(a/b), exact: the quotient is below 2^24 (2^53), else libm is asked."""
    def fast(e: Registers, a: Lane, b: Lane) -> tuple[Lane, Lane]:
        x, y = e.abs(a), e.abs(b)
        quotient = e.intrinsic("trunc", x / y)
        rest = e.fma(-quotient, y, x)
        # The rounded quotient may have been one too large.
        rest = e.select(rest < 0, rest + y, rest)
        rest = e.select(x < y, x, rest)
        enough = quotient < (2.0**23 if a.dtype == float32 else 2.0**52)
        return e.intrinsic("copysign", rest, a), ~enough
    return outlined(e, "fmod", fast, a, b)


def hypot(e: Registers, x: Lane, y: Lane) -> Lane:
    x, y = e.abs(x), e.abs(y)
    a, b = e.max(x, y), e.min(x, y)
    scale = e.select(a > 2.0**500, 2.0**-600, e.select(a < 2.0**-400, e.const(2.0**600, x), 1))
    back = e.select(a > 2.0**500, 2.0**600, e.select(a < 2.0**-400, e.const(2.0**-600, x), 1))
    a, b = a * scale, b * scale
    length = e.intrinsic("sqrt", e.fma(a, a, b * b)) * back
    return e.select(e.eq(x, math.inf) | e.eq(y, math.inf), math.inf, length)


def power(e: Registers, a: Lane, b: Lane) -> Lane:
    if a.dtype == float32:
        a, b = e.cast(a, float64), e.cast(b, float64)
        return e.cast(signed_power(e, a, b, exp(e, b * log(e, e.abs(a)))), float32)
    return signed_power(e, a, b, positive_power(e, e.abs(a), b))


def signed_power(e: Registers, a: Lane, b: Lane, y: Lane) -> Lane:
    """a^b from y = |a|^b: its sign, and the cases of C99."""
    half = b * 0.5
    entire = e.eq(e.intrinsic("trunc", b), b)
    odd = entire & e.ne(e.intrinsic("trunc", half), half)
    endless = e.eq(e.abs(b), math.inf)
    one = e.eq(b, 0) | e.eq(a, 1) | (e.eq(a, -1) & endless)
    y = e.select(one, 1, y)
    wrong = (a < 0) & ~(entire | e.eq(a, -math.inf))
    y = e.select(wrong, math.nan, y)
    return e.select(odd, e.intrinsic("copysign", y, a), y)


# (2·atanh(s)/s − 2 − ⅔s²)/s⁴ in s² on [0, 0.0295], relative error of the logarithm 1e-20.
POWER_LOG = (0.4000000000000229, 0.285714285700828, 0.22222222523053392, 0.18181784082436572,
             0.15386770887469012, 0.132564929539753, 0.13199418273840266)
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def product(e: Registers, a: Lane, b: Lane) -> tuple[Lane, Lane]:
    """a·b as the sum of two numbers. Written as fma, since the first must be rounded once."""
    high = e.fma(a, b, -0.0)
    return high, e.fma(a, b, -high)


def positive_power(e: Registers, a: Lane, b: Lane) -> Lane:
    """exp(b·log a) of float64, the logarithm as a sum of two numbers with about 65 bits.

    log a = k·ln 2 + 2s + s³·(⅔ + ...) with s = f/(2 + f), each of these in two parts.
    """
    moved, shift = normal(e, a)
    k, m = log_parts(e, moved)
    k, f = k + shift, m - 1
    d = f + 2
    s = f / d
    s_low = e.fma(-s, f - (d - 2), e.fma(-s, d, f)) / d
    z, z_low = product(e, s, s)
    z_low = e.fma(s + s, s_low, z_low)
    rest = e.fma(z, polynomial(e, z, POWER_LOG), 0.0)
    c = rest + TWO_THIRDS[0]
    c_low = (TWO_THIRDS[0] - c) + rest + TWO_THIRDS[1]
    u, u_low = product(e, s, z)
    u_low = u_low + e.fma(s, z_low, s_low * z)
    v, v_low = product(e, u, c)
    v_low = v_low + e.fma(u, c_low, u_low * c)
    twice = s + s
    h = twice + v
    h_low = ((twice - h) + v) + (s_low + s_low + v_low)
    base = e.fma(k, LN2_SPLIT[0], 0.0)
    high = base + h
    low = ((base - high) + h) + e.fma(k, LN2_SPLIT[1], h_low)
    y, y_low = product(e, b, high)
    y_low = e.fma(b, low, y_low)
    # A logarithm of ±∞ or too large a product decides alone.
    fine = (e.abs(y) < 1000) & (a > 0) & (a < math.inf)
    y = e.select((a > 0) & (a < math.inf), y, e.select(a < 1, -math.inf, a) * b)
    return exp_sum(e, y, e.select(fine, y_low, 0))


def exp_sum(e: Registers, x: Lane, low: Lane) -> Lane:
    """exp(x + low) for a small low."""
    t, r = reduced(e, limited(e, x, *EXP_LIMITS[x.dtype]), -low)
    return scaled(e, polynomial(e, r, (1.0, 1.0, *EXP[x.dtype])), t)


# ---------------------------------------------------------------- error function

# erf(x)/x − 1 in x² on [0, 0.86²], relative error of erf 8e-9 and 2e-17.
ERF = {float32: (0.12837916612625122, -0.37612584233283997, 0.11282776296138763,
                 -0.026803214102983475, 0.005050384905189276,
                 -0.0006303529953584075),
       float64: (0.12837916709551256, -0.3761263890318322, 0.11283791670926308,
                 -0.026866170639069445, 0.005223977560039271,
                 -0.0008548322899745194, 0.00012055170450386966,
                 -1.4921519623686205e-05, 1.6394224393362042e-06,
                 -1.5664139548197835e-07, 1.058153907314142e-08)}
# a·exp(a²)·erfc(a), which is between 0.37 and 0.57, in q = (a − c)/(a + c), from a = 0.79 to where
# erfc is 0; relative error 2e-8 and 1.3e-17. c makes the first coefficient nearly exact.
ERFC_CENTRE = {float32: 1.5, float64: 3.078125}
ERFC = {float32: (0.48237812519073486, 0.22845296561717987, -0.21611420810222626,
                 0.06170162931084633, 0.01982416957616806, -0.008864683099091053,
                 -0.005103414878249168, 0.0007684915908612311,
                 0.0011771764839068055),
        float64: (0.5382045465327839, 0.0915914158057415, -0.14241344261770586,
                 0.13862701714230466, -0.09773960923575073, 0.05012392707834054,
                 -0.016981173937521483, 0.0022244334406368257,
                 0.0010481102627985864, -0.000538300661587068,
                 -1.897089018933939e-05, 7.586969809844995e-05,
                 -5.792394572898171e-06, -1.1154940979897543e-05,
                 1.2789056570008649e-06, 1.8830822601983125e-06,
                 -1.732591683247804e-07, -3.560868733986003e-07,
                 2.998003641189112e-08, 5.950033048834873e-08,
                 -1.3846331911140743e-08)}
# erfinv(x)/x in w − 3.125 for w < 6.25, and in √w − 3.25 and √w − 5 for √w < 4 and above, where
# w = −log(1 − x²); relative errors 2e-17, 7e-17 and 6e-17.
ERFINV_NEAR = (1.6536545626831027, 0.24015818242558834, -0.006033670871426996,
               -0.0007407025341545599, 0.00018673420802052803,
               -1.3882523394181157e-05, -1.3654691772596164e-06,
               4.234788170986322e-07, -2.9070389901858263e-08,
               -4.112660626495843e-09, 1.0512225717673213e-09,
               -5.414295372574587e-11, -1.2978506435395014e-11,
               2.63050562762769e-12, -8.079224613988405e-14,
               -4.0016309755314404e-14, 6.5332127109135765e-15,
               -3.982733992379325e-17, -1.2343264777885948e-16,
               1.5541307962750458e-17, 6.944176711360109e-19,
               -3.485951949191325e-19, 1.659403859148226e-20,
               3.216164850058526e-21, -3.0119983164107414e-22)
ERFINV_MIDDLE = (3.0838856104922208, 1.005258967694166, 0.005370914553575016,
                 -0.0037512085082752195, 0.002491442096804789,
                 -0.001688275533898533, 0.0009532893673078354,
                 -0.000355037835416664, 2.4031221462453906e-05,
                 6.828728082880692e-05, -4.7318786779281614e-05,
                 1.2464302996340789e-05, 2.925090765982493e-06,
                 -3.983761132169717e-06, 1.4999089273704364e-06,
                 -3.0716421728268466e-08, -2.725463182187035e-07,
                 1.3428763626719982e-07, 1.1972670110767892e-09,
                 -1.629654527067269e-08)
ERFINV_FAR = (4.849906401408584, 1.0103004648645455, -0.0001387193183790076,
              -0.00021503011984102388, 7.599527806139217e-05,
              -1.9681770507818142e-05, 4.52605293090433e-06,
              -9.930306466319468e-07, 2.2905056574574344e-07,
              -6.755180766551863e-08, 2.9025538890250156e-08,
              -1.5263709535761836e-08, 7.80924302621574e-09,
              -3.461675637165287e-09, 1.3284279504169082e-09,
              -4.432561046048288e-10, 6.278598741719707e-11, 4.424453359441625e-11,
              -1.8859875363145474e-11)


def erf_near(e: Registers, x: Lane) -> Lane:
    """p with erf(x) = x + x·p where |x| < 0.86."""
    return polynomial(e, x * x, ERF[x.dtype])


def erfcx_parts(e: Registers, a: Lane) -> tuple[Lane, Lane, Lane]:
    """(q, slope, rest) with a·exp(a²)·erfc(a) = rest = first + q·slope."""
    centre = ERFC_CENTRE[a.dtype]
    first, *others = ERFC[a.dtype]
    q = (a - centre) / (a + centre)
    slope = polynomial(e, q, others)
    return q, slope, e.fma(q, slope, first)


def erf(e: Registers, x: Lane) -> Lane:
    """x + x·p near 0, else 1 − erfc|x|, which need not be exact in its last digits."""
    a = limited(e, e.abs(x), None, 4.0 if x.dtype == float32 else 6.0)
    _, _, rest = erfcx_parts(e, a)
    t, r = reduced(e, -(a * a))
    rise = e.fma(r * r, polynomial(e, r, EXP[x.dtype]), r)
    y = 1 - e.fma(rise, rest, rest) * two_to(e, t) / a
    return e.intrinsic("copysign", e.select(a < 0.8, e.fma(a, erf_near(e, x), a), y), x)


def erfc(e: Registers, x: Lane) -> Lane:
    a = limited(e, e.abs(x), None, 10.1 if x.dtype == float32 else 27.3)
    q, slope, rest = erfcx_parts(e, a)
    square, low = product(e, a, a)
    t, r = reduced(e, -square, low)
    rise = e.fma(r * r, polynomial(e, r, EXP[x.dtype]), r)
    top = e.fma(rise, rest, rest)
    # What the last roundings lost goes into one step of improvement.
    lost = e.fma(rise, rest, rest - top) + e.fma(q, slope, ERFC[x.dtype][0] - rest)
    inverse = 1 / a
    tail = top * inverse
    tail = scaled(e, e.fma(e.fma(-tail, a, top) + lost, inverse, tail), t)
    # ½ − (x − ½ + x·p): exact but for p where the result is small.
    near = 0.5 - e.fma(x, erf_near(e, x), x - 0.5)
    return e.select(a < 0.8, near, e.select(x < 0, 2 - tail, tail))


def erfinv(e: Registers, x: Lane) -> Lane:
    """Polynomials in w = −log(1 − x²) or its root. Source: M. Giles, "Approximating the erfinv
    function", GPU Computing Gems (2010); the coefficients are this file's own."""
    w = -log(e, e.fma(-x, x, 1.0))
    s = e.intrinsic("sqrt", w)
    middle, far = polynomial(e, s - 3.25, ERFINV_MIDDLE), polynomial(e, s - 5, ERFINV_FAR)
    y = e.select(w < 6.25, polynomial(e, w - 3.125, ERFINV_NEAR), e.select(s < 4, middle, far))
    return x * e.select(e.eq(e.abs(x), 1), math.inf, y)
