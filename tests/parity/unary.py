"""Functions of one tensor, element by element: values, special values, dtypes, methods."""

import numpy as np

from parity.runner import Table, array

TABLE = Table("unary")

ANY = array(3, 4)
POSITIVE = array(3, 4, low=0.1, high=3.0)
UNIT = array(3, 4, low=-0.95, high=0.95)
ABOVE_ONE = array(3, 4, low=1.05, high=4.0)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 100.0, -100.0, np.inf, -np.inf, np.nan])

# name: where the function is smooth
SMOOTH = {
    "abs": ANY, "neg": ANY, "exp": ANY, "exp2": ANY, "expm1": ANY, "square": ANY, "sin": ANY,
    "cos": ANY, "tan": UNIT, "atan": ANY, "sinh": ANY, "cosh": ANY, "tanh": ANY, "asinh": ANY,
    "erf": ANY, "erfc": ANY, "sigmoid": ANY, "relu": ANY, "sign": ANY, "floor": ANY, "ceil": ANY,
    "round": ANY, "trunc": ANY, "frac": ANY, "log": POSITIVE, "log2": POSITIVE, "log10": POSITIVE,
    "log1p": POSITIVE, "sqrt": POSITIVE, "rsqrt": POSITIVE, "reciprocal": POSITIVE, "asin": UNIT,
    "acos": UNIT, "atanh": UNIT, "acosh": ABOVE_ONE, "erfinv": UNIT, "logit": (UNIT + 1) / 2,
    "positive": ANY, "isnan": ANY, "isinf": ANY, "isfinite": ANY, "logical_not": ANY,
    "deg2rad": ANY, "rad2deg": ANY, "sinc": ANY, "signbit": ANY,
}

# Where the derivative at a special point is a convention, or its own derivative is not finite.
FIRST_ONLY = {"second": False}

# Functions that PyTorch refuses for bool.
NOT_OF_BOOL = ("abs", "floor", "ceil", "round", "trunc", "relu")

AT_SPECIAL = {
    "sign": ("value", "the sign of NaN is NaN"),
    "abs": ("gradient of input 0", "the slope of abs at NaN is NaN"),
    "relu": ("gradient of input 0", "the slope of relu is 1 where x > 0, and NaN is not"),
}

for name, domain in SMOOTH.items():
    TABLE.add(f"{name}", lambda t, x, name=name: getattr(t, name)(x), domain)
    TABLE.add(f"{name} as a method", lambda t, x, name=name: getattr(x, name)(), domain)
    TABLE.add(f"{name} of special values", lambda t, x, name=name: getattr(t, name)(x),
              SPECIAL, differs=AT_SPECIAL.get(name), **FIRST_ONLY)
    TABLE.add(f"{name} of integers", lambda t, x, name=name: getattr(t, name)(x),
              np.array([3, 1, 2]), raises=None)
    TABLE.add(f"{name} of bool", lambda t, x, name=name: getattr(t, name)(x),
              np.array([True, False]), raises=None, differs=("error", "bool counts as 0 and 1")
              if name in NOT_OF_BOOL else None)
    TABLE.add(f"{name} in half precision", lambda t, x, name=name: getattr(t, name)(x),
              domain.astype(np.float16), second=False)
    TABLE.add(f"{name} of nothing", lambda t, x, name=name: getattr(t, name)(x), ANY[:0])

for alias in ("absolute", "negative", "arcsin", "arccos", "arctan", "arcsinh", "arccosh",
              "arctanh", "fix"):
    domain = ABOVE_ONE if alias == "arccosh" else UNIT
    TABLE.add(f"alias {alias}", lambda t, x, name=alias: getattr(t, name)(x), domain)

add = TABLE.add
INTEGERS = np.array([-3, 0, 5, 9])

add("abs operator", lambda t, x: abs(x), ANY)
add("round to even", lambda t, x: t.round(x), np.array([0.5, 1.5, 2.5, -0.5, -1.5]))
add("round to decimals", lambda t, x: t.round(x, decimals=2), ANY)
add("sign of integers with zero", lambda t, x: t.sign(x), INTEGERS)
add("abs of negative integers", lambda t, x: abs(x), INTEGERS)
add("relu of negative integers", lambda t, x: t.relu(x), INTEGERS)
add("sigmoid far out", lambda t, x: t.sigmoid(x), np.array([-1000.0, -50.0, 50.0, 1000.0]))
add("log1p near zero", lambda t, x: t.log1p(x), np.array([1e-12, -1e-12]))
add("expm1 near zero", lambda t, x: t.expm1(x), np.array([1e-12, -1e-12]))
add("erfc far out", lambda t, x: t.erfc(x), np.array([3.0, 4.0, 5.0]))
add("nan_to_num", lambda t, x: t.nan_to_num(x), SPECIAL, **FIRST_ONLY)
add("nan_to_num with numbers", lambda t, x: t.nan_to_num(x, 1.0, 2.0, 3.0), SPECIAL, **FIRST_ONLY)

# ---- clamp -------------------------------------------------------------------------------------

add("clamp both", lambda t, x: t.clamp(x, -0.5, 0.5), ANY)
add("clamp min", lambda t, x: t.clamp(x, min=0.25), ANY)
add("clamp max", lambda t, x: x.clamp(max=0.25), ANY)
add("clamp min and max swapped", lambda t, x: t.clamp(x, 0.5, -0.5), ANY)
add("clamp without limits", lambda t, x: t.clamp(x), ANY, raises=True)
add("clamp by tensors", lambda t, x, y: t.clamp(x, y, y + 0.5), ANY, array(4, seed=1))
add("clamp at its limits", lambda t, x: t.clamp(x, -1.0, 1.0), SPECIAL, **FIRST_ONLY)
add("clamp integers by ints", lambda t, x: t.clamp(x, 0, 5), INTEGERS)
add("clamp integers by floats", lambda t, x: t.clamp(x, 0.5, 5.5), INTEGERS)
add("clip", lambda t, x: t.clip(x, -0.5, 0.5), ANY)
add("clamp_min", lambda t, x: t.clamp_min(x, 0.5), ANY)
add("clamp_max", lambda t, x: t.clamp_max(x, 0.5), ANY)

# ---- softmax and its relatives -----------------------------------------------------------------

add("softmax last", lambda t, x: t.softmax(x, dim=-1), ANY)
add("softmax first", lambda t, x: t.softmax(x, 0), ANY)
add("softmax method", lambda t, x: x.softmax(1), ANY)
add("softmax of large numbers", lambda t, x: t.softmax(x * 1e4, 1), ANY)
add("softmax with -inf", lambda t, x: t.softmax(x, 0), np.array([1.0, -np.inf, 2.0]), second=False)
add("softmax of only -inf", lambda t, x: t.softmax(x, 0), np.full(2, -np.inf), second=False)
add("softmax of a 0-d tensor", lambda t, x: t.softmax(x, 0), ANY[0, 0])
add("softmax with dtype", lambda t, x: t.softmax(x, 0, dtype=t.float64), ANY)
add("softmax of integers", lambda t, x: t.softmax(x, 0), INTEGERS, raises=True)
add("softmax out of range", lambda t, x: t.softmax(x, 2), ANY, raises=True)
add("softmax of nothing", lambda t, x: t.softmax(x, 1), ANY[:0])
add("log_softmax", lambda t, x: t.log_softmax(x, dim=1), ANY)
add("log_softmax of large numbers", lambda t, x: t.log_softmax(x * 1e4, 1), ANY)
add("log_softmax with -inf", lambda t, x: t.log_softmax(x, 0), np.array([1.0, -np.inf, 2.0]),
    second=False)
add("log_softmax method", lambda t, x: x.log_softmax(0), ANY)
