"""The mathematics of compiled code, and how each elementwise row is lowered to it.

Kernels of one function each are compiled and held against exact values, and each row against its
NumPy evaluation: one lane and a vector, float32 and float64, integers, and the ends of the numbers.
"""

from __future__ import annotations

import ctypes
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule  # noqa: F401  (fills the table)
from chainrule.compiler.lanes.functions import FLOAT32_ULP, FLOAT64_ULP
from chainrule.compiler.lanes.registers import (
    MATHEMATICS,
    MEMORY,
    REGISTER,
    Lane,
    Registers,
    vector,
)
from chainrule.compiler.machine import build
from chainrule.core.primitive import TABLE
from chainrule.core.types import (
    ArrayType,
    bool_,
    float32,
    float64,
    int32,
    int64,
    type_of,
    uint8,
)
from chainrule.prims import special

LANES = 16
FLOATS = (float32, float64)
BINARY = {"pow", "hypot", "atan2", "fmod", "logaddexp"}
# Functions that libm finishes in a loop where an argument is out of reach.
OUTLINED = ("sin", "cos", "tan", "fmod")

# ---------------------------------------------------------------- kernels


class Kernel:
    """`lower` of lanes as a compiled loop over arrays; `numbers` are passed to it as they are."""

    def __init__(self, lower: Callable[..., Any], operands: list[Any], lanes: int) -> None:
        e = Registers(lanes)
        lines: list[str] = []
        xs: list[Any] = []
        self.lanes = lanes
        self.dtypes = [x for x in operands if isinstance(x, np.dtype)]
        for i, x in enumerate(operands):
            if not isinstance(x, np.dtype):
                xs.append(x)
                continue
            kind = vector(MEMORY[x], lanes)
            lines.append(f"%a{i} = getelementptr inbounds {MEMORY[x]}, ptr %p{i}, i64 %i")
            lines.append(f"%m{i} = load {kind}, ptr %a{i}, align {x.itemsize}")
            if x == bool_:
                lines.append(f"%x{i} = trunc {kind} %m{i} to {vector('i1', lanes)}")
            xs.append(Lane(e, f"%{'x' if x == bool_ else 'm'}{i}", x, lanes))
        y = lower(e, *xs)
        self.supported = y is not NotImplemented
        if not self.supported:
            return
        self.dtype = y.dtype
        y = e.spread(y)
        out = vector(MEMORY[y.dtype], lanes)
        stored = repr(y)
        if y.dtype == bool_:
            e.do(f"%stored = zext {y!r} to {out}")
            stored = f"{out} %stored"
        places = "".join(f"ptr %p{i}, " for i, x in enumerate(operands) if isinstance(x, np.dtype))
        self.text = "\n".join([
            f"define void @kernel(i64 %n, {places}ptr %out) {{", "entry:", "br label %loop",
            "loop:", "%i = phi i64 [ 0, %entry ], [ %next, %loop ]", *lines, *e.lines,
            f"%o = getelementptr inbounds {MEMORY[y.dtype]}, ptr %out, i64 %i",
            f"store {stored}, ptr %o, align {y.dtype.itemsize}", f"%next = add i64 %i, {lanes}",
            "%more = icmp ult i64 %next, %n", "br i1 %more, label %loop, label %end", "end:",
            "ret void", "}", *e.declared.values()])
        self.library = build.load(self.text)
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p]
                                     * (len(self.dtypes) + 1))(self.library.address("kernel"))

    def __call__(self, *xs: Any) -> Any:
        """The result for flat arrays, which are filled up to whole vectors."""
        size = xs[0].size
        whole = -(-size // self.lanes) * self.lanes
        filled = [np.concatenate([x.ravel(), np.ones(whole - size, x.dtype)]) for x in xs]
        y = np.empty(whole, self.dtype)
        self.call(whole, *[x.ctypes.data for x in filled], y.ctypes.data)
        return y[:size].reshape(xs[0].shape)


KERNELS: dict[Any, Kernel] = {}


def mathematics(name: str, dtype: Any, lanes: int) -> Kernel:
    key = name, dtype, lanes
    if key not in KERNELS:
        KERNELS[key] = Kernel(lambda e, *xs: e.math(name, *xs), [dtype] * (1 + (name in BINARY)),
                              lanes)
    return KERNELS[key]


# ---------------------------------------------------------------- exact values


def _elementwise(function: Callable[[float], float]) -> Callable[[Any], Any]:
    return np.vectorize(function, otypes=[float])


def _erfinv(x: Any) -> Any:
    return special.erfinv(np.asarray(x, float64))


# Computed in float64 for float32, and in long double for float64. The error function is libm's,
# and its inverse that of the table, both within one unit in float64.
EXACT: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log10": np.log10, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "pow": np.power, "hypot": np.hypot, "atan2": np.arctan2, "fmod": np.fmod,
    "logaddexp": np.logaddexp, "log1pexp": lambda x: np.log1p(np.exp(x)),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x))),
    "silu": lambda x: x * np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x))),
    "erf": _elementwise(math.erf), "erfc": _elementwise(math.erfc), "erfinv": _erfinv,
}
BY_FLOAT64 = {"erf", "erfc", "erfinv"}
ENDS = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0)


def ends(dtype: Any) -> Any:
    """Where functions have corners: zeros, infinities, NaN, the least and the largest numbers."""
    info = np.finfo(dtype)
    extremes = [float(v) for v in (info.max, info.tiny, info.smallest_subnormal)]
    extremes.append(100 * extremes[2])
    return np.array([*ENDS, *extremes, *[-v for v in extremes], 88.7, 89.0, -87.4, -88.8, -103.0,
                     -104.5, 709.5, 710.2, 711.0, -708.5, -745.0, -746.5, 1e5, -1e6, 1e22, 2.5,
                     1e-3]).astype(dtype)


def draws(name: str, dtype: Any, rng: Any, size: int = 40_000) -> list[Any]:
    """Arguments of every size, dense where the functions bend."""
    info = np.finfo(dtype)

    def one() -> Any:
        n = size // 6
        near = 1 + rng.uniform(-1, 1, n) * np.exp(rng.uniform(-30, 0, n))
        spread = np.exp(rng.uniform(math.log(info.tiny), math.log(info.max), n))
        return np.concatenate([
            rng.uniform(-1, 1, n), rng.uniform(-4, 4, n), rng.uniform(-100, 100, n), near,
            np.exp(rng.uniform(-15, 15, n)) * rng.choice([-1, 1], n),
            spread * rng.choice([-1, 1], n)])

    if name not in BINARY:
        x = np.concatenate([one().astype(dtype), ends(dtype)])
        return [-np.abs(x) if name == "log1pexp" else x]
    a, b = one(), one()
    rng.shuffle(b)
    c, d = np.meshgrid(ends(dtype), ends(dtype))
    # Pairs of like size, and for pow exponents that do not overflow.
    close = rng.uniform(-40, 40, a.size) if name == "pow" else a * rng.uniform(0.5, 2, a.size)
    return [np.concatenate([x.astype(dtype), y.ravel(), z.astype(dtype)])
            for x, y, z in ((a, c, a), (b, d, close))]


def measured(name: str, dtype: Any, y: Any, exact: Any) -> Any:
    """The error in units in the last place of the exact value; of denormal numbers the least."""
    unit = np.maximum(np.spacing(np.abs(exact).astype(dtype)), np.finfo(dtype).smallest_subnormal)
    error = np.abs(y.astype(exact.dtype) - exact) / unit
    return np.where(np.isfinite(y) & np.isfinite(exact.astype(dtype)), error, 0)


def agree_at_ends(y: Any, exact: Any, xs: list[Any]) -> None:
    """The same NaNs, infinities and signs."""
    for what in (np.isnan, np.isinf, lambda v: np.signbit(v) & ~np.isnan(v)):
        wrong = np.flatnonzero(what(y) != what(exact))[:3]
        assert not wrong.size, [([x.ravel()[i] for x in xs], y.ravel()[i], exact.ravel()[i])
                                for i in wrong]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", sorted(MATHEMATICS))
def test_functions_are_within_their_bounds(name: str, dtype: Any) -> None:
    """Whether the error stated is true; and NaN, infinities and zeros are where they belong."""
    xs = draws(name, dtype, np.random.default_rng(zlib.crc32(name.encode())))
    wide: Any = float64 if dtype == float32 or name in BY_FLOAT64 else np.dtype(np.longdouble)
    if wide.itemsize == dtype.itemsize and name not in BY_FLOAT64:
        pytest.skip("this machine has no number format wider than float64")
    y = mathematics(name, dtype, LANES)(*xs)
    exact = EXACT[name](*[x.astype(wide) for x in xs])
    if name == "logaddexp":                # a sum that may be next to nothing, of either sign
        agree_at_ends(np.abs(y), np.abs(exact.astype(dtype)), xs)
    else:
        agree_at_ends(y, exact.astype(dtype), xs)
    error = measured(name, dtype, y, exact)
    bound = (FLOAT32_ULP.get(name, 2.0) if dtype == float32
             else FLOAT64_ULP.get(name, 2.0) + (name in BY_FLOAT64))
    if name == "logaddexp":
        scale = np.spacing(np.maximum(np.abs(xs[0]), np.abs(xs[1])))
        scale = np.maximum(scale, np.spacing(np.abs(exact).astype(dtype)))
        error = error * (np.spacing(np.abs(exact).astype(dtype)) / scale)
    worst = int(np.nanargmax(error))
    assert error[worst] <= bound, (error[worst], [x[worst] for x in xs], y[worst], exact[worst])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", sorted(MATHEMATICS))
def test_a_lane_computes_the_same_bits_alone(name: str, dtype: Any) -> None:
    xs = draws(name, dtype, np.random.default_rng(1), 3000)
    together, alone = (mathematics(name, dtype, lanes)(*xs) for lanes in (LANES, 1))
    different = (together != alone) & ~(np.isnan(together) & np.isnan(alone))
    assert not different.any(), [x[different][:3] for x in xs]
    assert np.array_equal(np.signbit(together[together == 0]), np.signbit(alone[together == 0]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", OUTLINED)
def test_arguments_out_of_reach_are_exact_too(name: str, dtype: Any) -> None:
    """One such argument among others, and all of them: 10^22 is a famous one for sin."""
    x = np.linspace(-3, 3, 2 * LANES).astype(dtype)
    x[5] = 1e22
    x[LANES:] *= 2.0**80
    xs = [x, np.full_like(x, 0.7)] if name in BINARY else [x]
    y = mathematics(name, dtype, LANES)(*xs)
    exact = EXACT[name](*[v.astype(float64) for v in xs])
    assert measured(name, dtype, y, exact).max() <= FLOAT64_ULP.get(name, 2.0) + 0.5


def test_vectors_narrower_than_the_widest_registers_are_exact_too() -> None:
    """Powers of two are applied in another way where there is no instruction for that."""
    for dtype in FLOATS:
        for name in ("exp", "exp2", "erfc", "pow"):
            xs = draws(name, dtype, np.random.default_rng(2), 6000)
            assert np.array_equal(mathematics(name, dtype, 4)(*xs),
                                  mathematics(name, dtype, LANES)(*xs), equal_nan=True), name


# ---------------------------------------------------------------- rows

ROWS = [*sorted(n for n, p in TABLE.items() if p.kind == "elementwise"), "cast"]
# Rows that are sums of larger terms: their error is measured by the size of the operands.
SUMS = {"gelu", "bce", "bce_with_logits", "logaddexp", "logit", "round", "floor_divide"}


def as_dtype(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def lowered(name: str, xs: tuple[Any, ...], params: dict[str, Any], lanes: int) -> Kernel:
    operands = [x.dtype if isinstance(x, np.ndarray) else x for x in xs]
    key = name, repr((operands, params)), lanes
    if key not in KERNELS:
        row = TABLE[name]
        assert row.lower is not None
        lower = row.lower
        KERNELS[key] = Kernel(lambda e, *lanes: lower(e, *lanes, **params), operands, lanes)
    return KERNELS[key]


def compare(name: str, xs: tuple[Any, ...], params: dict[str, Any], lanes: int) -> None:
    """Compiled and evaluated: one dtype, one place of NaNs and infinities, values within bounds."""
    row = TABLE[name]
    arrays = [x for x in xs if isinstance(x, np.ndarray)]
    kernel = lowered(name, xs, params, lanes)
    assert kernel.supported, f"{name} of {[x.dtype for x in arrays]} is not lowered"
    types = [ArrayType(x.shape, x.dtype) if isinstance(x, np.ndarray) else None for x in xs]
    assert kernel.dtype == row.infer(*types, **params).dtype
    y = kernel(*arrays)
    want = np.asarray(row.eval(*xs, **params)).astype(kernel.dtype)
    if kernel.dtype.kind != "f":
        assert np.array_equal(y, want), (xs, y, want)
        return
    # What float32 evaluation rounds away on the way counts as well as what it gives.
    better = row.eval(*[as_dtype(x, float64) for x in xs], **params)
    better = np.asarray(better).astype(kernel.dtype) if name != "cast" else want
    info = np.finfo(kernel.dtype)
    size = np.maximum(np.abs(want), np.abs(better))
    if name in SUMS:
        terms = [np.abs(np.nan_to_num(x, posinf=0, neginf=0)) for x in arrays]
        size = np.maximum(size, sum(terms, 1))
    allowed = 6 * float(info.eps) * size + info.tiny
    near = (np.abs(y - want) <= allowed) | (np.abs(y - better) <= allowed)
    near |= (y == want) | np.isnan(y) & np.isnan(want)
    assert near.all(), ([x[~near] for x in arrays], y[~near], want[~near])
    if name not in SUMS:
        zeros = (y == 0) & (want == 0)
        assert np.array_equal(np.signbit(y[zeros]), np.signbit(want[zeros])), (arrays, y, want)


@pytest.mark.parametrize("lanes", [1, LANES])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_rows_on_their_samples(name: str, dtype: Any, lanes: int) -> None:
    for xs, params in TABLE[name].samples(np.random.default_rng(0)):
        compare(name, tuple(as_dtype(x, dtype) for x in xs), params, lanes)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_rows_at_the_ends_of_the_numbers(name: str, dtype: Any) -> None:
    xs, _ = TABLE[name].samples(np.random.default_rng(0))[0]
    corners = ends(dtype)
    if name == "cast" or not all(isinstance(x, np.ndarray) and x.dtype.kind in "fb" for x in xs):
        return
    floats = sum(x.dtype.kind == "f" for x in xs)
    grid = iter([v.ravel() for v in np.meshgrid(*[corners] * floats)])
    size = corners.size**floats
    masks = np.random.default_rng(1).uniform(size=size) < 0.5
    given = tuple(next(grid) if x.dtype.kind == "f" else masks for x in xs)
    for params in {str(p): p for _, p in TABLE[name].samples(np.random.default_rng(0))}.values():
        compare(name, given, params, LANES)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_computes_the_same_bits_alone(name: str, dtype: Any) -> None:
    """The last elements of an array, which do not fill a vector, are computed one by one."""
    rng = np.random.default_rng(3)
    for xs, params in TABLE[name].samples(rng):
        if not all(isinstance(x, np.ndarray) and x.dtype.kind in "fb" for x in xs):
            continue
        given = tuple(rng.normal(size=3000).astype(dtype) if x.dtype.kind == "f"
                      else rng.uniform(size=3000) < 0.5 for x in xs)
        together, alone = (lowered(name, given, params, n)(*given) for n in (LANES, 1))
        assert np.array_equal(together, alone, equal_nan=together.dtype.kind == "f")


def whole_numbers(dtype: Any, rng: Any) -> Any:
    if dtype == bool_:
        return rng.uniform(size=40) < 0.5
    info = np.iinfo(dtype)
    return np.concatenate([rng.integers(0, 9, 20), rng.integers(info.min, info.max, 20),
                           [info.min, info.max, 0, 1]]).astype(dtype)


WHOLE_ROWS = ("identity", "zeros_like", "stop_gradient", "add", "mul", "abs", "maximum", "minimum",
              "fmax", "sign", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite",
              "logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and",
              "bitwise_or", "bitwise_xor", "bitwise_not", "floor", "ceil", "trunc")


@pytest.mark.parametrize("dtype", [bool_, uint8, int32, int64], ids=str)
@pytest.mark.parametrize("name", WHOLE_ROWS)
def test_rows_of_whole_numbers(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(5)
    count = len(TABLE[name].arguments)
    for lanes in (1, LANES):
        compare(name, tuple(whole_numbers(dtype, rng) for _ in range(count)), {}, lanes)


@pytest.mark.parametrize("dtype", [uint8, int32, int64], ids=str)
@pytest.mark.parametrize("name", ["sub", "neg", "square", "relu", "round"])
def test_rows_of_whole_numbers_but_truth_values(name: str, dtype: Any) -> None:
    xs = tuple(whole_numbers(dtype, np.random.default_rng(6)) for _ in TABLE[name].arguments)
    compare(name, xs, dict(TABLE[name].options), LANES)


@pytest.mark.parametrize("dtype", [uint8, int32, int64], ids=str)
@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_division_of_whole_numbers(name: str, dtype: Any) -> None:
    """By a number in the program it is compiled; by an array, which may hold 0, it is not."""
    x = whole_numbers(dtype, np.random.default_rng(7))
    for divisor in (1, 3, 7) if dtype == uint8 else (1, 3, -3, 7):
        compare(name, (x, divisor), {}, LANES)
    for divisor in (0, x):
        assert not lowered(name, (x, divisor), {}, LANES).supported


@pytest.mark.parametrize("name", ["where", "keep"])
def test_selections_of_whole_numbers(name: str) -> None:
    rng = np.random.default_rng(8)
    mask = whole_numbers(bool_, rng)
    a, b = rng.integers(-9, 9, (2, 40))
    compare(name, (mask, a, b) if name == "where" else (a, mask), {}, LANES)
    if name == "where":
        compare(name, (mask, a, 3), {}, LANES)
        compare(name, (mask, np.full(40, math.nan, "f4"), b.astype("f4")), {}, 1)


CASTS = [(a, b) for a in (float32, float64, int32, int64, uint8, bool_)
         for b in (float32, float64, int32, int64, uint8, bool_)]


@pytest.mark.parametrize(("source", "wanted"), CASTS, ids=lambda d: str(d))
def test_casts(source: Any, wanted: Any) -> None:
    rng = np.random.default_rng(9)
    if source.kind == "f":
        x = np.concatenate([rng.uniform(0, 100, 30), [0.0, 0.5, 99.5]]).astype(source)
    else:
        x = whole_numbers(source, rng)
    compare("cast", (x,), {"dtype": wanted}, LANES)


@pytest.mark.parametrize("number", [2, 1, 3, 4, -1, -2, 0.5, -0.5, 0, 1.5, 7, 1e3, math.inf])
def test_powers_of_a_number(number: float) -> None:
    for dtype in FLOATS:
        compare("pow", (ends(dtype), number), {}, LANES)
        compare("pow", (number, ends(dtype)), {}, LANES)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "fmax", "where",
                                  "floor_divide", "remainder", "fmod", "atan2", "logaddexp"])
def test_numbers_beside_arrays(name: str) -> None:
    for dtype in FLOATS:
        x = ends(dtype)
        for number in (0.0, -0.0, 1.5, -3, math.nan, math.inf):
            first = (x > 1,) if name == "where" else ()
            compare(name, (*first, x, number), {}, LANES)
            compare(name, (*first, number, x), {}, LANES)


@pytest.mark.parametrize("decimals", [0, 2, -2])
def test_round_to_decimals(decimals: int) -> None:
    x = np.random.default_rng(4).uniform(-1000, 1000, 300)
    halves = np.arange(-20, 20) / 2
    for dtype in FLOATS:
        compare("round", (np.concatenate([x, halves]).astype(dtype),), {"decimals": decimals},
                LANES)


def test_every_elementwise_row_is_lowered() -> None:
    """A row without `lower` would be computed by NumPy between stretches of compiled code."""
    assert [n for n in ROWS if TABLE[n].lower is None] == []
    left = set()
    for name in ROWS:
        for xs, params in TABLE[name].samples(np.random.default_rng(0)):
            if not lowered(name, tuple(as_dtype(x, float32) for x in xs), params, LANES).supported:
                left.add(name)
    assert left == set()


def test_a_product_that_is_added_is_rounded_once() -> None:
    """In all four forms, and by one instruction; the product itself stays what it was."""
    forms: list[Callable[..., Any]] = [lambda e, a, b, c: a * b + c, lambda e, a, b, c: c + a * b,
                                       lambda e, a, b, c: a * b - c, lambda e, a, b, c: c - a * b,
                                       lambda e, a, b, c: -(a * b) + c]
    rng = np.random.default_rng(11)
    a, b, c = rng.normal(size=(3, 4000)).astype("f4")
    c = -a * b + 1e-6 * c                  # so that the product's rounding is most of the sum
    wide = [x.astype("f8") for x in (a, b, c)]
    for i, form in enumerate(forms):
        exact = form(None, *wide).astype("f4")
        for lanes in (1, LANES):
            assert np.array_equal(Kernel(form, [float32] * 3, lanes)(a, b, c), exact), (i, lanes)
    e = Registers(1)
    x = Lane(e, "%x", float32, 1)
    product = x * x
    assert (product + 1).name != product.name and "fma" in e.lines[-1]
    e.fuses = False
    other = x * 3.0
    assert (other + 1).name and "fadd" in e.lines[-1]
    assert not any("contract" in line for line in e.lines)


def test_a_literal_is_the_exact_number() -> None:
    e = Registers(1)
    for dtype in FLOATS:
        for value in (0.1, -0.0, math.pi, 1e300, 1e-320, math.inf):
            name = e.const(value, dtype).name
            bits = np.array([int(name, 16)], "u8").view("f8")[0]
            want = float(dtype.type(value))
            assert bits == want and math.copysign(1, bits) == math.copysign(1, want)
    assert REGISTER[float32] == "float" and str(type_of(np.zeros(2, "f4"))) == "f32[2]"
