"""Which dtype and value two operands give: every dtype with every dtype, 0-d tensor and scalar."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from parity.runner import Table

TABLE = Table("promotion")

FLOATS = ("float64", "float32", "float16")
DTYPES = (*FLOATS, "int64", "int32", "uint8", "bool")
SCALARS = {"Python int": 2, "Python float": 2.5, "Python bool": True}

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "//": operator.floordiv,
    "%": operator.mod,
    "<": operator.lt,
    "==": operator.eq,
}


def left(dtype: str) -> np.ndarray:
    if dtype == "bool":
        return np.array([True, False, True])
    return np.array([7, 3, 5] if dtype == "uint8" else [7, -3, 5]).astype(dtype)


def right(dtype: str, symbol: str) -> np.ndarray:
    if dtype == "bool":
        return np.array([True, symbol in ("//", "%"), True])  # no division of integers by zero
    signed = dtype != "uint8" and symbol != "**"
    return np.array([2, 3, -4] if signed else [2, 3, 4]).astype(dtype)


def matrix() -> None:
    """Tensor with tensor, with 0-d tensor, with scalar; scalar with tensor; 0-d with scalar."""
    for symbol, apply in OPERATORS.items():
        # PyTorch has no derivative for `//`; its values and dtypes are compared all the same.
        options = {"second": False, "single": False, "raises": None, "grad": symbol != "//"}
        for one in DTYPES:
            for other in DTYPES:
                a, b = left(one), right(other, symbol)
                options["differs"] = None
                if one == other == "bool" and symbol in ("**", "//", "%"):
                    options["differs"] = ("error", "PyTorch has no kernel for two bools")
                if one in FLOATS and other == "bool" and symbol == "**":
                    options["differs"] = ("error", "PyTorch's derivative computes mask - 1")
                call = lambda t, x, y, apply=apply: apply(x, y)
                TABLE.add(f"{one} {symbol} {other}", call, a, b, **options)
                TABLE.add(f"{one} {symbol} 0-d {other}", call, a, b[0], **options)
                TABLE.add(f"0-d {one} {symbol} 0-d {other}", call, a[0], b[0], **options)
            for kind, scalar in SCALARS.items():
                options["differs"] = None
                if one == "bool" and kind == "Python bool" and symbol in ("**", "//", "%"):
                    power = ("dtype", "a power of bools is an integer, also of a Python bool")
                    refused = ("error", "PyTorch has no kernel for two bools")
                    options["differs"] = power if symbol == "**" else refused
                call = lambda t, x, s=scalar, apply=apply: apply(x, s)
                TABLE.add(f"{one} {symbol} {kind}", call, left(one), **options)
                TABLE.add(f"0-d {one} {symbol} {kind}", call, left(one)[0], **options)
                if symbol == "%" and one in FLOATS:
                    reason = "PyTorch lacks the derivative of a number % tensor"
                    options["differs"] = ("error", reason)
                if symbol == "**" and kind == "Python bool" and one in (*FLOATS, "bool"):
                    options["differs"] = ("error", "True ** tensor fails inside PyTorch")
                call = lambda t, x, s=scalar, apply=apply: apply(s, x)
                divisor = np.abs(left(one)) if one != "bool" else np.array([True, True])
                TABLE.add(f"{kind} {symbol} {one}", call, divisor, **options)


matrix()


def functions() -> None:
    """The functions that take two tensors, or a condition and two."""
    options = {"second": False, "single": False, "raises": None}
    condition = np.array([True, False, True])
    for one in DTYPES:
        for other in DTYPES:
            a, b = left(one), right(other, "+")
            TABLE.add(f"maximum({one}, {other})", lambda t, x, y: t.maximum(x, y), a, b, **options)
            TABLE.add(f"where(c, {one}, {other})", lambda t, c, x, y: t.where(c, x, y),
                      condition, a, b, **options)
            TABLE.add(f"cat({one}, {other})", lambda t, x, y: t.cat([x, y]), a, b, **options)
        for kind, scalar in SCALARS.items():
            TABLE.add(f"where(c, {one}, {kind})", lambda t, c, x, s=scalar: t.where(c, x, s),
                      condition, left(one), **options)
            TABLE.add(f"where(c, {kind}, {one})", lambda t, c, x, s=scalar: t.where(c, s, x),
                      condition, left(one), **options)
    for symbol, apply in {"&": operator.and_, "|": operator.or_, "^": operator.xor}.items():
        for one in ("int64", "uint8", "bool", "float32"):
            for other in ("int64", "int32", "bool"):
                TABLE.add(f"{one} {symbol} {other}", lambda t, x, y, apply=apply: apply(x, y),
                          left(one), right(other, "+"), **options)


functions()

F64, F32, F16 = (np.array([1.5, -2.0, 3.0], dtype) for dtype in FLOATS)
I64, U8, BOOL = np.array([7, -3, 5]), np.array([7, 3, 5], np.uint8), np.array([True, False, True])
MASK = np.array([[True], [False]])


def add(name: str, call: Callable[..., Any], *inputs: np.ndarray, **options: Any) -> None:
    TABLE.add(name, call, *inputs, single=False, **options)


for name in ("float64", "float32", "float16", "int64", "int32", "uint8", "bool"):
    for source in DTYPES:
        add(f"{source}.to({name})", lambda t, x, name=name: x.to(getattr(t, name)), left(source))
add("float()", lambda t, x: x.float(), F64)
add("double()", lambda t, x: x.double(), F32)
add("half()", lambda t, x: x.half(), F32)
add("long()", lambda t, x: x.long(), F32)
add("int()", lambda t, x: x.int(), F32)
add("bool()", lambda t, x: x.bool(), F32)
add("type_as", lambda t, x, y: x.type_as(y), F32, F64)
add("to other tensor", lambda t, x, y: x.to(y), F32, F64)
add("to the same dtype is the tensor itself", lambda t, x: x.to(t.float32) is x, F32)
add("gradient arrives in the leaf's dtype", lambda t, x: (x.double() * 3).float(), F16)
add("add of nothing", lambda t, x: x + None, F32, raises=True)
add("add of text", lambda t, x: x + "1", F32, raises=True)
add("int ** negative int", lambda t, x: x**-1, I64, raises=True)
add("int tensor // 0", lambda t, x: x // 0, I64, raises=True)
add("float tensor // 0", lambda t, x: x // 0, F32, grad=False)
add("float tensor / 0", lambda t, x: x / 0, F32, second=False)
add("int tensor / 0", lambda t, x: x / 0, I64)
add("remainder takes the divisor's sign", lambda t, x: (x % 2, x % -2), F64)
add("fmod takes the dividend's sign", lambda t, x: (t.fmod(x, 2), t.fmod(x, -2)), F64)
add("remainder of ints", lambda t, x: (x % 4, x % -4), I64)
add("floor division of negatives", lambda t, x: (x // 2, x // -2), I64)
add("div rounding_mode floor", lambda t, x: t.div(x, 2, rounding_mode="floor"), F64,
    differs=("requires_grad", "a step function passes no gradient on"))
add("div rounding_mode trunc", lambda t, x: t.div(x, 2, rounding_mode="trunc"), F64)
add("uint8 wraps around", lambda t, x: x - 10, U8)
add("not of bool", lambda t, x: ~x, BOOL)
add("not of ints", lambda t, x: ~x, I64)
add("not of floats", lambda t, x: ~x, F32, raises=True)
add("minus of bool", lambda t, x: -x, BOOL, raises=True)
add("minus of uint8", lambda t, x: -x, U8)
add("plus", lambda t, x: +x, F32)
add("shapes that broadcast", lambda t, x, y: x * y, F64[:, None], F64[None, :])
add("0-d broadcasts", lambda t, x, y: x + y, F64[:, None], F64[0])
add("an axis of zero broadcasts", lambda t, x, y: x + y, F64[:0, None], F64)
add("shapes that do not broadcast", lambda t, x, y: x + y, F64, F64[:2], raises=True)
add("1-d and matrix", lambda t, x, y: x - y, np.outer(F64, F64), F64)
add("broadcast_tensors", lambda t, x, y: t.broadcast_tensors(x, y), F64[:, None], F64)
add("broadcast_to", lambda t, x: t.broadcast_to(x, (2, 3)), F64)
add("where broadcasts", lambda t, c, x, y: t.where(c, x, y), MASK, F64, F64[:1])
add("where keeps NaN from the other branch",
    lambda t, x: t.where(x > 0, t.sqrt(t.where(x > 0, x, t.ones_like(x))), x), F64)
add("where with numbers only", lambda t, c: t.where(c, 1.0, 0.0), BOOL)
add("where with one argument", lambda t, c: t.where(c), BOOL)
add("where with a float condition", lambda t, x: t.where(x, x, x), F64, raises=True)
add("pow of tensors", lambda t, x, y: x**y, np.abs(F64), F64)
add("pow of negatives", lambda t, x: x**3, F64)
add("pow 0.5 of negatives", lambda t, x: x**0.5, F64, second=False)
add("pow 0", lambda t, x: x**0, F64)
add("pow 0 at zero", lambda t, x: x**0, np.zeros(2))
add("pow 2 at zero", lambda t, x: x**2, np.zeros(2))
add("pow tensor exponent at zero", lambda t, x, y: x**y, np.zeros(3), F64[[0, 2, 0]], second=False)
add("scalar ** tensor", lambda t, x: 2.0**x, F64)
add("zero ** tensor", lambda t, x: 0.0**x, np.abs(F64), second=False)
add("float_power", lambda t, x: t.float_power(x, 2), F32, second=False)
add("true_divide", lambda t, x, y: t.true_divide(x, y), I64, U8)
add("add with alpha", lambda t, x, y: t.add(x, y, alpha=2), F64, F64)
add("sub with alpha", lambda t, x, y: x.sub(y, alpha=0.5), F64, F64)
add("int add with float alpha", lambda t, x: t.add(x, x, alpha=0.5), I64, raises=True)
add("rsub", lambda t, x: t.rsub(x, 1.0), F64)
add("addcmul", lambda t, x, y: t.addcmul(x, x, y, value=0.5), F64, F64)
add("addcdiv", lambda t, x, y: t.addcdiv(x, x, y, value=0.5), F64, F64)
add("lerp", lambda t, x, y: t.lerp(x, y, 0.25), F64, F32.astype(np.float64))
add("maximum ties share the gradient", lambda t, x, y: t.maximum(x, y), F64, F64.copy())
add("minimum ties share the gradient", lambda t, x, y: t.minimum(x, y), F64, F64.copy())
add("maximum with NaN", lambda t, x, y: t.maximum(x, y), F64, F64 * np.nan, second=False,
    differs=("gradient of input 0", "the gradient is not counted twice"))
add("atan2", lambda t, x, y: t.atan2(x, y), F64, F64[::-1].copy())
add("hypot", lambda t, x, y: t.hypot(x, y), F64, F64[::-1].copy())
add("logaddexp", lambda t, x, y: t.logaddexp(x, y), F64, F64[::-1].copy())
add("comparison functions",
    lambda t, x, y: [f(x, y) for f in (t.eq, t.ne, t.lt, t.le, t.gt, t.ge)], F64, F64[::-1].copy())
add("comparison with NaN", lambda t, x: (x == x, x != x, x < 1, x >= 1), F64 * np.nan)
add("logical functions", lambda t, x, y: (t.logical_and(x, y), t.logical_or(x, y),
                                         t.logical_xor(x, y), t.logical_not(x)), BOOL, ~BOOL)
add("logical functions of floats", lambda t, x, y: t.logical_and(x, y), F64, F64 * 0)
add("isclose", lambda t, x, y: t.isclose(x, y), F64, F64 + 1e-9)
add("allclose", lambda t, x, y: t.allclose(x, y), F64, F64 + 1e-9)
add("equal", lambda t, x, y: (t.equal(x, y), t.equal(x, x)), F64, F64 + 1)
add("result_type", lambda t, x, y: t.result_type(x, y), F64, I64)
add("promote_types", lambda t: t.promote_types(t.int32, t.float16))
add("is_floating_point", lambda t, x, y: (x.is_floating_point(), y.is_floating_point()), F64, I64)
add("default dtype", lambda t: t.get_default_dtype())
