"""Rows that act on each element alone.

Numerical choices, as PyTorch's unless stated: relu'(0) = 0, abs'(0) = 0, sqrt'(0) = ∞, maximum and
minimum share a tie equally, clamp passes the gradient at its limits. A zero cotangent that `where`
or `keep` sent into an unselected branch stays zero there, even where a derivative is infinite
(PyTorch gives NaN).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.core.errors import DtypeError
from chainrule.core.kinds import draws, elementwise, linear
from chainrule.core.types import ArrayType, type_of

from . import lowering, show, special

inf = math.inf
LOG2, LOG10 = math.log(2.0), math.log(10.0)

# ---------------------------------------------------------------- bookkeeping rows

identity = elementwise("identity", eval=lambda x: x.copy(), partials=1, public="clone",
    show=show.same,
    lower=lambda e, x: x, doc="A copy that stays connected: the gradient passes unchanged.")
zeros_like = elementwise("zeros_like", eval=np.zeros_like, partials=None, public="_zeros_like",
    promote="", show=lambda a: ("0", 9),
    lower=lambda e, x: e.const(0, x), doc="Zeros of the same shape and dtype.")
stop_gradient = elementwise("stop_gradient", eval=np.copy, partials=None, public="_stop",
    promote="", show=show.function("stop"),
    lower=lambda e, x: x, doc="The same value, through which no gradient flows.")


def _cast_samples(rng: Any) -> Any:
    return [((rng.normal(size=(2, 3)).astype("f4"),), {"dtype": np.dtype("f8")}),
            ((rng.normal(size=3),), {"dtype": np.dtype("f4")})]


cast = linear("cast", eval=lambda x, dtype: x.astype(dtype),
    infer=lambda a, dtype: ArrayType(a.shape, np.dtype(dtype)),
    transpose=lambda g, x, dtype: cast(g, dtype=x.dtype),
    batch=lambda xs, axes, dtype: (cast(xs[0], dtype=dtype), axes[0]),
    samples=_cast_samples, show=show.same,
    lower=lambda e, x, dtype: e.cast(x, np.dtype(dtype)), doc="The same numbers in another dtype.")

# ---------------------------------------------------------------- arithmetic

def _refuse_bool(a: Any, b: Any) -> None:
    for x in (a, b):
        if isinstance(x, bool) or getattr(x, "dtype", None) == np.bool_:
            raise DtypeError(f"a − b with a bool ({x if isinstance(x, bool) else type_of(x)}): "
                             "subtraction of truth values has no one meaning. Write ~x for "
                             "1 − x, a ^ b for a difference, or x.float()")


add = elementwise("add", eval=np.add, partials=(1, 1), show=show.infix(" + ", 1),
    lower=lambda e, a, b: e.add(a, b), doc="a + b.")
sub = elementwise("sub", eval=np.subtract, partials=(1, -1), check=_refuse_bool,
    show=show.infix(" − ", 1, associative=False),
    lower=lambda e, a, b: e.sub(a, b), doc="a − b.")
mul = elementwise("mul", eval=np.multiply, partials=(lambda y, a, b: b, lambda y, a, b: a),
    show=show.infix("·", 2),
    lower=lambda e, a, b: e.mul(a, b), doc="a · b.")
div = elementwise("div", eval=np.divide, promote="float", domain=(0.5, 2.0),
    pulls=(lambda g, y, a, b: g / b, lambda g, y, a, b: -g * (a / b) / b),
    show=show.quotient,
    lower=lambda e, a, b: e.div(a, b), doc="a / b; integers give floats.")
neg = elementwise("neg", eval=np.negative, partials=-1, show=show.prefix("−"),
    lower=lowering.neg, doc="−a.")
abs_ = elementwise("abs", eval=np.abs, partials=lambda y, x: sign(x), at={0.0: 0.0, -inf: inf},
    show=lambda a: (f"|{a[0]}|", 9),
    lower=lambda e, x: e.abs(x), doc="The absolute value |x|.",
    kinks=lambda x: x > 0)
square = elementwise("square", eval=np.square, promote="number", partials=lambda y, x: 2 * x,
    show=lambda a: (f"{show.bracket(*a, 9)}²", 4),
    lower=lambda e, x: x * x, doc="x².")


def _pow_eval(a: Any, b: Any) -> Any:
    if type(b) in (int, float) and isinstance(a, np.ndarray) and a.dtype.kind == "f":
        if b == 2:
            return np.square(a)
        if b == 1:
            return a.copy()
        if b == 3:                       # np.power takes hundreds of times as long
            return a * a * a
        if b == -1:
            return 1 / a
        if b == 0.5:
            return np.sqrt(a)
    if np.asarray(a).dtype.kind in "iub" and np.asarray(b).dtype.kind in "iub":
        return _integer_pow(np.asarray(a), np.asarray(b))
    return np.power(a, b)


def _integer_pow(a: Any, b: Any) -> Any:
    """Integer powers as PyTorch's: 1/a truncated to an integer when the exponent is negative."""
    y = np.power(a, np.where(b < 0, 0, b))
    sign = np.where(b % 2 == 0, 1, -1)
    inverse = np.where(a == 1, 1, np.where(a == -1, sign, 0))
    return np.where(b >= 0, y, inverse).astype(y.dtype)


def _pow_base(g: Any, y: Any, a: Any, b: Any) -> Any:
    if isinstance(b, (int, float)):
        if b == 2:
            return g * (2 * a)
        if b == 0:
            return zeros_like(g)
        if b == 1:
            return g
        return g * (b * a ** (b - 1))
    return where(eq(b, 0), zeros_like(g), g * (b * a ** (b - 1)))


def _pow_exponent(g: Any, y: Any, a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)):
        if a == 0:
            return where(b >= 0, zeros_like(g), g * (y * -inf))
        return g * (y * (math.log(a) if a > 0 else math.nan))
    return where(eq(a, 0) & (b >= 0), zeros_like(g), g * (y * log(a)))


def _pow_samples(rng: Any) -> Any:
    base: Any = [((rng.uniform(0.5, 2, s), rng.uniform(-2, 2, s)), {}) for s in ((), (3,), (2, 3))]
    return [*base, ((rng.uniform(0.5, 2, 3), 2), {}), ((rng.uniform(0.5, 2, 3), 3.5), {}),
            ((1.5, rng.uniform(0.5, 2, 3)), {}), ((0.0, rng.uniform(0.5, 2, 3)), {})]


def _refuse_fraction(a: Any, b: Any) -> None:
    if type(b) is int and b < 0 and getattr(a, "dtype", np.dtype(float)).kind in "iub":
        raise DtypeError(f"{type_of(a)} to the power {b}: the result is not a whole number; "
                         "convert first, x.float()")


pow_ = elementwise("pow", promote="number", eval=_pow_eval, check=_refuse_fraction,
    pulls=(_pow_base, _pow_exponent), samples=_pow_samples,
    show=show.power,
    lower=lowering.power, doc="a to the power b.")


def _floor_divide(a: Any, b: Any) -> Any:
    if np.result_type(a, b).kind != "f" and not np.all(b):
        raise ZeroDivisionError("floor_divide: an integer was divided by zero. Integers have no "
                                "infinity; divide floats, or mask the zeros out first.")
    return np.floor_divide(a, b)


def _remainder(a: Any, b: Any) -> Any:
    if np.result_type(a, b).kind != "f" and not np.all(b):
        raise ZeroDivisionError("remainder: an integer was divided by zero. Integers have no NaN; "
                                "use floats, or mask the zeros out first.")
    return np.remainder(a, b)


floor_divide = elementwise("floor_divide", promote="number", eval=_floor_divide,
    partials=(None, None), domain=(0.5, 3.0), show=show.infix(" // ", 2, associative=False),
    lower=lowering.floor_divide, doc="a divided by b, rounded towards −∞; not differentiable.")
remainder = elementwise("remainder", promote="number", eval=_remainder, domain=(0.6, 0.9),
    pulls=(lambda g, y, a, b: g, lambda g, y, a, b: -g * floor(a / b)),
    show=show.infix(" mod ", 2, associative=False),
    kinks=lambda a, b: np.floor(a / b),
    lower=lowering.remainder, doc="a − b·⌊a/b⌋, with the sign of b as in Python.")
fmod = elementwise("fmod", promote="number", eval=np.fmod, domain=(0.6, 0.9),
    pulls=(lambda g, y, a, b: g, lambda g, y, a, b: -g * trunc(a / b)),
    kinks=lambda a, b: np.trunc(a / b),
    lower=lowering.fmod, doc="a − b·trunc(a/b), with the sign of a as in C.")
maximum = elementwise("maximum", eval=np.maximum, show=show.function("max"),
    pulls=(lambda g, y, a, b: share(g, a > b, b > a), lambda g, y, a, b: share(g, b > a, a > b)),
    kinks=lambda a, b: a > b,
    lower=lambda e, a, b: e.max(a, b),
    doc="The larger of a and b; a tie shares the gradient equally.")
minimum = elementwise("minimum", eval=np.minimum, show=show.function("min"),
    pulls=(lambda g, y, a, b: share(g, a < b, b < a), lambda g, y, a, b: share(g, b < a, a < b)),
    kinks=lambda a, b: a > b,
    lower=lambda e, a, b: e.min(a, b),
    doc="The smaller of a and b; a tie shares the gradient equally.")
fmax = elementwise("fmax", eval=np.fmax, domain=(-2.0, 2.0),
    pulls=(lambda g, y, a, b: keep(g, (a >= b) | isnan(b)),
           lambda g, y, a, b: keep(g, ~((a >= b) | isnan(b)))),
    kinks=lambda a, b: a > b,
    lower=lambda e, a, b: e.select(e.compare("gt", a, b) | e.isnan(b), a, b),
    doc="The larger of a and b; a NaN gives way to the other.")


def share(g: Any, mine: Any, others: Any) -> Any:
    """g where the element is mine, half of it where neither owns it (a tie)."""
    return where(mine, g, where(others, zeros_like(g), 0.5 * g))


# ---------------------------------------------------------------- selection


def _select_samples(rng: Any) -> Any:
    return [((rng.uniform(size=s) > 0.5, rng.normal(size=s), rng.normal(size=s)), {})
            for s in ((), (3,), (2, 3))]


def _where(mask: Any, a: Any, b: Any) -> Any:
    dtype = next((x.dtype for x in (a, b) if hasattr(x, "dtype")), None)
    y = np.where(mask, a, b)
    return y if dtype is None else y.astype(dtype, copy=False)


where = elementwise("where", eval=_where, selects=True, promoted=(1, 2), samples=_select_samples,
    pulls=(None, lambda g, y, c, a, b: keep(g, c), lambda g, y, c, a, b: keep(g, ~c)),
    arguments=("condition", "input", "other"), public="_where",
    show=lambda c, a, b: (f"where({c[0]}, {a[0]}, {b[0]})", 9),
    lower=lowering.where, doc="a where the condition holds, else b.")
keep = elementwise("keep", eval=special.keep, selects=True, promoted=(0,),
    samples=lambda rng: [((rng.normal(size=s), rng.uniform(size=s) > 0.5), {})
                         for s in ((3,), (2, 3), (40, 40))],
    pulls=(lambda g, y, x, c: keep(g, c), None), arguments=("input", "mask"), public="_keep",
    show=show.infix("·", 2),
    lower=lowering.keep, doc="x where the mask holds, else 0, even where x is infinite or NaN.")


def _clamp(x: Any, min: Any, max: Any) -> Any:
    y = x
    if min is not None:
        y = np.maximum(y, min)
    return y if max is None else np.minimum(y, max)


def _inside(x: Any, min: Any, max: Any) -> Any:
    if min is None:
        return x <= max
    return x >= min if max is None else (x >= min) & (x <= max)


clamp = elementwise("clamp", eval=_clamp, options={"min": None, "max": None},
    pulls=lambda g, y, x, min, max: keep(g, _inside(x, min, max)), public="_clamp",
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {"min": -0.5, "max": 0.5}),
                         ((rng.normal(size=3),), {"min": 0.1, "max": None}),
                         ((rng.normal(size=()),), {"min": None, "max": 0.2})],
    show=show.limits, kinks=_inside,
    lower=lowering.clamp, doc="x limited to [min, max]; the gradient passes at the limits.")

# ---------------------------------------------------------------- steps: derivative zero

sign = elementwise("sign", partials=0,
    eval=lambda x: np.copy(x) if x.dtype.kind == "b" else np.sign(x), at={0.0: 0.0, -inf: -1.0},
    domain=(0.1, 2.0), kinks=np.sign,
    lower=lowering.sign, doc="−1, 0 or 1; derivative 0.")
floor = elementwise("floor", eval=np.floor, partials=0, domain=(0.1, 0.9),
    at={0.0: 0.0, -0.5: -1.0}, show=lambda a: (f"⌊{a[0]}⌋", 9),
    kinks=np.floor,
    lower=lowering.of_floats("floor"), doc="The largest integer not above x; derivative 0.")
ceil = elementwise("ceil", eval=np.ceil, partials=0, domain=(0.1, 0.9), at={0.5: 1.0},
    show=lambda a: (f"⌈{a[0]}⌉", 9), kinks=np.ceil,
    lower=lowering.of_floats("ceil"), doc="The smallest integer not below x; derivative 0.")
trunc = elementwise("trunc", eval=np.trunc, partials=0, domain=(0.1, 0.9), at={-1.5: -1.0},
    kinks=np.trunc,
    lower=lowering.of_floats("trunc"), doc="x without its fraction; derivative 0.")
def _refuse_whole(x: Any) -> None:
    if x.dtype.kind != "f":
        raise DtypeError(f"frac of {type_of(x)}: whole numbers have no fraction; x.float() has")


frac = elementwise("frac", check=_refuse_whole, partials=1,
    eval=lambda x: np.subtract(x, np.trunc(x)), domain=(0.1, 0.9), at={-1.5: -0.5}, kinks=np.trunc,
    lower=lambda e, x: x - e.intrinsic("trunc", x),
    doc="The fraction of x, with the sign of x; derivative 1.")
round_ = elementwise("round", promote="number", partials=0,
    eval=lambda x, decimals: np.round(x, decimals), options={"decimals": 0}, domain=(0.1, 0.4),
    at={0.5: 0.0, 1.5: 2.0, 2.5: 2.0},
    kinks=np.round,
    lower=lowering.round_,
    doc="The nearest integer (or multiple of 10^−decimals), halves to even; derivative 0.")

# ---------------------------------------------------------------- powers, exponentials, logarithms

sqrt = elementwise("sqrt", eval=np.sqrt, pulls=lambda g, y, x: g / (2 * y), promote="float",
    domain=(0.5, 2.0), at={0.0: 0.0, inf: inf}, show=lambda a: (f"√{show.bracket(*a, 9)}", 4),
    lower=lambda e, x: e.intrinsic("sqrt", x), doc="The square root; its derivative at 0 is ∞.")
rsqrt = elementwise("rsqrt", eval=lambda x: 1 / np.sqrt(x), promote="float", domain=(0.5, 2.0),
    partials=lambda y, x: -0.5 * y * y * y, at={inf: 0.0, 0.0: inf},
    lower=lambda e, x: 1 / e.intrinsic("sqrt", x), doc="1/√x.")
reciprocal = elementwise("reciprocal", eval=lambda x: 1 / x, promote="float", domain=(0.5, 2.0),
    partials=lambda y, x: -y * y, at={inf: 0.0},
    lower=lambda e, x: 1 / x, doc="1/x.")
exp = elementwise("exp", eval=np.exp, partials=lambda y, x: y, promote="float",
    at={0.0: 1.0, -inf: 0.0, inf: inf},
    lower=lowering.function("exp"), doc="e to the power x.")
exp2 = elementwise("exp2", eval=np.exp2, partials=lambda y, x: y * LOG2, promote="float",
    at={0.0: 1.0, 3.0: 8.0},
    lower=lowering.function("exp2"), doc="2 to the power x.")
expm1 = elementwise("expm1", eval=np.expm1, partials=lambda y, x: y + 1, promote="float",
    at={0.0: 0.0, -inf: -1.0},
    lower=lowering.function("expm1"), doc="exp(x) − 1, accurate near 0.")
log = elementwise("log", eval=np.log, pulls=lambda g, y, x: g / x, promote="float",
    domain=(0.5, 2.0), at={1.0: 0.0, 0.0: -inf, inf: inf},
    lower=lowering.function("log"), doc="The natural logarithm.")
log2 = elementwise("log2", eval=np.log2, pulls=lambda g, y, x: g / (x * LOG2), promote="float",
    domain=(0.5, 2.0), at={8.0: 3.0},
    lower=lowering.function("log2"), doc="The logarithm to base 2.")
log10 = elementwise("log10", eval=np.log10, pulls=lambda g, y, x: g / (x * LOG10),
    promote="float", domain=(0.5, 2.0), at={1000.0: 3.0},
    lower=lowering.function("log10"), doc="The logarithm to base 10.")
log1p = elementwise("log1p", eval=np.log1p, pulls=lambda g, y, x: g / (1 + x), promote="float",
    domain=(-0.5, 2.0), at={0.0: 0.0, -1.0: -inf},
    lower=lowering.function("log1p"), doc="log(1 + x), accurate near 0.")

logaddexp = elementwise("logaddexp", eval=np.logaddexp, promote="float",
    pulls=(lambda g, y, a, b: g * sigmoid(a - b), lambda g, y, a, b: g * sigmoid(b - a)),
    lower=lowering.function("logaddexp"),
    doc="log(exp(a) + exp(b)), stable for large |a| and |b|.")
logit = elementwise("logit", eval=lambda x: np.log(x / (1 - x)), promote="float",
    pulls=lambda g, y, x: where((x > 0) & (x < 1), g / (x * (1 - x)), _logit_edge(g, x)),
    domain=(0.1, 0.9), public="_logit",
    at={0.5: 0.0, 1.0: inf, 0.0: -inf},
    lower=lowering.logit, doc="log(x/(1 − x)), the inverse of the sigmoid.")


def _logit_edge(g: Any, x: Any) -> Any:
    """∞ at 0 and 1, and no slope outside."""
    return where(eq(x, 0) | eq(x, 1), g * inf, g * math.nan)


# ---------------------------------------------------------------- trigonometric and hyperbolic

hypot = elementwise("hypot", eval=np.hypot, promote="float", domain=(0.5, 2.0),
    pulls=(lambda g, y, a, b: g * (a / y), lambda g, y, a, b: g * (b / y)),
    lower=lowering.function("hypot"), doc="√(a² + b²) without overflow on the way.")
deg2rad = elementwise("deg2rad", eval=lambda x: x * _like(x, math.pi / 180), promote="float",
    partials=math.pi / 180, at={180.0: math.pi},
    lower=lambda e, x: x * (math.pi / 180), doc="Degrees as radians, x·π/180.")
rad2deg = elementwise("rad2deg", eval=lambda x: x * _like(x, 180 / math.pi), promote="float",
    partials=180 / math.pi, at={math.pi: 180.0},
    lower=lambda e, x: x * (180 / math.pi), doc="Radians as degrees, x·180/π.")
sinc = elementwise("sinc", eval=np.sinc, promote="float", at={0.0: 1.0},
    pulls=lambda g, y, x: where(eq(x, 0), zeros_like(g), g * _sinc_slope(y, x)),
    lower=lowering.sinc, doc="sin(πx)/(πx), and 1 at 0.")


def _sinc_slope(y: Any, x: Any) -> Any:
    return (cos(x * math.pi) - y) / where(eq(x, 0), zeros_like(x) + 1, x)


def _like(x: Any, number: float) -> Any:
    return x.dtype.type(number)



sin = elementwise("sin", eval=np.sin, partials=lambda y, x: cos(x), promote="float",
    at={0.0: 0.0},
    lower=lowering.function("sin"), doc="The sine, x in radians.")
cos = elementwise("cos", eval=np.cos, partials=lambda y, x: -sin(x), promote="float",
    at={0.0: 1.0},
    lower=lowering.function("cos"), doc="The cosine, x in radians.")
tan = elementwise("tan", eval=np.tan, partials=lambda y, x: 1 + y * y, promote="float",
    domain=(-1.0, 1.0), at={0.0: 0.0},
    lower=lowering.function("tan"), doc="The tangent, x in radians.")
asin = elementwise("asin", eval=np.arcsin, pulls=lambda g, y, x: g / sqrt(1 - x * x),
    promote="float", domain=(-0.8, 0.8), at={0.0: 0.0},
    lower=lowering.function("asin"), doc="The inverse sine, in radians.")
acos = elementwise("acos", eval=np.arccos, pulls=lambda g, y, x: -g / sqrt(1 - x * x),
    promote="float", domain=(-0.8, 0.8), at={1.0: 0.0},
    lower=lowering.function("acos"), doc="The inverse cosine, in radians.")
atan = elementwise("atan", eval=np.arctan, pulls=lambda g, y, x: g / (1 + x * x),
    promote="float", at={0.0: 0.0, inf: math.pi / 2},
    lower=lowering.function("atan"), doc="The inverse tangent, in radians.")
atan2 = elementwise("atan2", eval=np.arctan2, promote="float", domain=(0.5, 2.0),
    pulls=(lambda g, y, a, b: g * _over(b, a * a + b * b),
           lambda g, y, a, b: g * _over(-a, a * a + b * b)),
    lower=lowering.function("atan2"),
    doc="The angle of the point (b, a), in (−π, π]; derivative 0 at the origin.")


def _over(a: Any, b: Any) -> Any:
    """a/b, and 0 where b is 0."""
    return keep(a / b, ne(b, 0))



sinh = elementwise("sinh", eval=np.sinh, partials=lambda y, x: cosh(x), promote="float",
    at={0.0: 0.0, -inf: -inf},
    lower=lowering.function("sinh"), doc="The hyperbolic sine.")
cosh = elementwise("cosh", eval=np.cosh, partials=lambda y, x: sinh(x), promote="float",
    at={0.0: 1.0, -inf: inf},
    lower=lowering.function("cosh"), doc="The hyperbolic cosine.")
tanh = elementwise("tanh", eval=np.tanh, partials=lambda y, x: 1 - y * y, promote="float",
    fast_pulls=(special.tanh_pull,),
    at={0.0: 0.0, inf: 1.0, -inf: -1.0},
    lower=lowering.function("tanh"), doc="The hyperbolic tangent.")
asinh = elementwise("asinh", eval=np.arcsinh, pulls=lambda g, y, x: g / sqrt(x * x + 1),
    promote="float", at={0.0: 0.0},
    lower=lowering.function("asinh"), doc="The inverse hyperbolic sine.")
acosh = elementwise("acosh", eval=np.arccosh, pulls=lambda g, y, x: g / sqrt(x * x - 1),
    promote="float", domain=(1.5, 3.0), at={1.0: 0.0},
    lower=lowering.function("acosh"), doc="The inverse hyperbolic cosine.")
atanh = elementwise("atanh", eval=np.arctanh, pulls=lambda g, y, x: g / (1 - x * x),
    promote="float", domain=(-0.8, 0.8), at={0.0: 0.0, 1.0: inf},
    lower=lowering.function("atanh"), doc="The inverse hyperbolic tangent.")
erf = elementwise("erf", eval=special.erf, promote="float", at={0.0: 0.0, inf: 1.0, -inf: -1.0},
    partials=lambda y, x: exp(-x * x) * (2 / math.sqrt(math.pi)),
    lower=lowering.function("erf"), doc="The error function 2/√π ∫₀ˣ exp(−t²) dt.")
erfc = elementwise("erfc", eval=special.erfc, promote="float", at={0.0: 1.0, inf: 0.0, -inf: 2.0},
    partials=lambda y, x: exp(-x * x) * (-2 / math.sqrt(math.pi)),
    lower=lowering.function("erfc"), doc="1 − erf(x), accurate where erf(x) is close to 1.")
erfinv = elementwise("erfinv", eval=special.erfinv, promote="float", domain=(-0.8, 0.8),
    at={0.0: 0.0, 1.0: inf, -1.0: -inf},
    partials=lambda y, x: exp(y * y) * (math.sqrt(math.pi) / 2),
    lower=lowering.function("erfinv"), doc="The inverse of the error function.")

# ---------------------------------------------------------------- activations

sigmoid = elementwise("sigmoid", eval=special.sigmoid, partials=lambda y, x: y * (1 - y),
    promote="float", at={0.0: 0.5, inf: 1.0, -inf: 0.0}, show=show.function("σ"),
    fast_pulls=(special.sigmoid_pull,),
    lower=lowering.function("sigmoid"), doc="1/(1 + exp(−x)).")
relu = elementwise("relu", promote="number", eval=lambda x: np.maximum(x, 0),
    pulls=lambda g, y, x: keep(g, y > 0), kinks=lambda x: x > 0,
    at={-1.0: 0.0, 0.0: 0.0, 2.0: 2.0, inf: inf},
    lower=lambda e, x: e.max(x, 0), doc="max(x, 0); derivative 0 at 0.")
leaky_relu = elementwise("leaky_relu", options={"negative_slope": 0.01},
    eval=lambda x, negative_slope: np.where(x > 0, x, x * x.dtype.type(negative_slope)),
    pulls=lambda g, y, x, negative_slope: where(x > 0, g, g * negative_slope),
    at={0.0: 0.0, 2.0: 2.0}, kinks=lambda x, negative_slope: x > 0,
    lower=lowering.leaky_relu, doc="x where positive, else negative_slope·x.")
elu = elementwise("elu", options={"alpha": 1.0},
    eval=lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))).astype(x.dtype),
    pulls=lambda g, y, x, alpha: where(x > 0, g, g * (y + alpha)),
    at={0.0: 0.0, -inf: -1.0}, kinks=lambda x, alpha: (x > 0) & (alpha != 1),
    lower=lowering.elu, doc="x where positive, else alpha·(exp(x) − 1).")
softplus = elementwise("softplus", promote="float",
    eval=lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    pulls=lambda g, y, x: g * sigmoid(x), at={inf: inf, -inf: 0.0},
    public="_softplus",
    lower=lowering.function("softplus"), doc="log(1 + exp(x)), stable for large |x|.")
silu = elementwise("silu", promote="float", eval=lambda x: x * special.sigmoid(x),
    pulls=lambda g, y, x: g * silu_slope(x, sigmoid(x)), at={0.0: 0.0, 40.0: 40.0},
    lower=lowering.function("silu"), doc="x·σ(x), also called swish.")


def silu_slope(x: Any, s: Any) -> Any:
    return s * (1 + x * (1 - s))


def _gelu(x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(special.GELU * (x + 0.044715 * x * x * x)))
    return x * special.normal_distribution(x)


def _gelu_pull(g: Any, y: Any, x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        t = tanh(special.GELU * (x + 0.044715 * x * x * x))
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (special.GELU * (1 + 0.134145 * x * x))
    else:
        slope = 0.5 * erfc(x * -math.sqrt(0.5)) + x * exp(-0.5 * x * x) * special.DENSITY
    return g * slope


gelu = elementwise("gelu", promote="float", eval=_gelu, pulls=_gelu_pull,
    fast_pulls=(special.gelu_pull,),
    options={"approximate": "none"}, at={0.0: 0.0},
    samples=draws(1, -2.0, 2.0, ({"approximate": "none"}, {"approximate": "tanh"})),
    lower=lowering.gelu,
    doc="x·Φ(x), Φ the normal distribution function (Hendrycks and Gimpel 2016).")
hardtanh = elementwise("hardtanh", options={"min_val": -1.0, "max_val": 1.0},
    eval=lambda x, min_val, max_val: _clamp(x, min_val, max_val).astype(x.dtype, copy=False),
    pulls=lambda g, y, x, min_val, max_val: keep(g, ~((x <= min_val) | (x >= max_val))),
    at={0.5: 0.5, 3.0: 1.0, -inf: -1.0}, public="_hardtanh",
    kinks=lambda x, min_val, max_val: _inside(x, min_val, max_val),
    lower=lowering.hardtanh, doc="x limited to [min_val, max_val]; derivative 0 at the limits.")
bce_with_logits = elementwise("bce_with_logits", promote="float", domain=(0.1, 0.9),
    eval=lambda x, y: _stable_bce(x, y), arguments=("input", "target"), public="_bce_with_logits",
    pulls=(lambda g, y, x, target: g * (sigmoid(x) - target), lambda g, y, x, target: g * -x),
    lower=lowering.bce_with_logits,
    doc="−(t·log σ(x) + (1 − t)·log(1 − σ(x))), stable for large |x|.")


def _bce(x: Any, target: Any) -> Any:
    return -(target * np.maximum(np.log(x), -100) + (1 - target) * np.maximum(np.log1p(-x), -100))


def _bce_input(g: Any, y: Any, x: Any, target: Any) -> Any:
    return g * ((x - target) / clamp(x * (1 - x), min=1e-12, max=None))


def _bce_target(g: Any, y: Any, x: Any, target: Any) -> Any:
    return g * (clamp(log1p(-x), min=-100.0, max=None) - clamp(log(x), min=-100.0, max=None))


bce = elementwise("bce", promote="float", domain=(0.1, 0.9), eval=_bce,
    pulls=(_bce_input, _bce_target), arguments=("input", "target"), public="_bce",
    lower=lowering.bce,
    doc="−(t·log x + (1 − t)·log(1 − x)), the logarithms at least −100 and the slope at most 10¹².")


def _stable_bce(x: Any, target: Any) -> Any:
    """max(x, 0) − x·t + log(1 + exp(−|x|)); a certain and right logit of ±∞ costs 0, not NaN."""
    loss = np.where(x >= 0, (1 - target) * x, -target * x) + np.log1p(np.exp(-np.abs(x)))
    sure = ((x == inf) & (target == 1)) | ((x == -inf) & (target == 0))
    return np.where(sure, 0, loss).astype(np.asarray(x).dtype)


# ---------------------------------------------------------------- comparisons and logic

eq = elementwise("eq", eval=np.equal, partials=(None, None), result="bool",
    show=show.indicator("="),
    lower=lowering.comparison("eq"), doc="a = b.")
ne = elementwise("ne", eval=np.not_equal, partials=(None, None), result="bool",
    show=show.indicator("≠"),
    lower=lowering.comparison("ne"), doc="a ≠ b.")
lt = elementwise("lt", eval=np.less, partials=(None, None), result="bool",
    show=show.indicator("<"),
    lower=lowering.comparison("lt"), doc="a < b.")
le = elementwise("le", eval=np.less_equal, partials=(None, None), result="bool",
    show=show.indicator("≤"),
    lower=lowering.comparison("le"), doc="a ≤ b.")
gt = elementwise("gt", eval=np.greater, partials=(None, None), result="bool",
    show=show.indicator(">"),
    lower=lowering.comparison("gt"), doc="a > b.")
ge = elementwise("ge", eval=np.greater_equal, partials=(None, None), result="bool",
    show=show.indicator("≥"),
    lower=lowering.comparison("ge"), doc="a ≥ b.")
isnan = elementwise("isnan", eval=np.isnan, partials=None, result="bool", promote="",
    lower=lambda e, x: e.isnan(x), doc="Is x NaN?")
isinf = elementwise("isinf", eval=np.isinf, partials=None, result="bool", promote="",
    lower=lowering.isinf, doc="Is x +∞ or −∞?")
signbit = elementwise("signbit", eval=np.signbit, partials=None, result="bool", promote="",
    lower=lowering.signbit, doc="Is the sign bit set? True for −0 too.")
isfinite = elementwise("isfinite", eval=np.isfinite, partials=None, result="bool",
    promote="",
    lower=lowering.isfinite, doc="Is x neither infinite nor NaN?")
logical_and = elementwise("logical_and", eval=np.logical_and, partials=(None, None), result="bool",
    lower=lowering.logical("and"), doc="Are both non-zero?")
logical_or = elementwise("logical_or", eval=np.logical_or, partials=(None, None), result="bool",
    lower=lowering.logical("or"), doc="Is one of them non-zero?")
logical_xor = elementwise("logical_xor", eval=np.logical_xor, partials=(None, None), result="bool",
    lower=lowering.logical("xor"), doc="Is exactly one of them non-zero?")
logical_not = elementwise("logical_not", eval=np.logical_not, partials=None,
    result="bool", promote="",
    lower=lowering.logical_not, doc="Is x zero?")


def _bit_samples(arity: int) -> Any:
    return lambda rng: [(tuple(rng.integers(0, 9, s) for _ in range(arity)), {})
                        for s in ((), (3,), (2, 3))]


bitwise_and = elementwise("bitwise_and", eval=np.bitwise_and, partials=(None, None),
    samples=_bit_samples(2), show=show.infix(" & ", 1),
    lower=lambda e, a, b: e.bitwise("and", a, b), doc="Bits set in both.")
bitwise_or = elementwise("bitwise_or", eval=np.bitwise_or, partials=(None, None),
    samples=_bit_samples(2), show=show.infix(" | ", 1),
    lower=lambda e, a, b: e.bitwise("or", a, b), doc="Bits set in one of them.")
bitwise_xor = elementwise("bitwise_xor", eval=np.bitwise_xor, partials=(None, None),
    samples=_bit_samples(2),
    lower=lambda e, a, b: e.bitwise("xor", a, b), doc="Bits set in exactly one of them.")
bitwise_not = elementwise("bitwise_not", eval=np.invert, partials=None,
    samples=_bit_samples(1), show=show.prefix("~"),
    lower=lambda e, x: ~x, doc="All bits flipped; logical not of bools.")
