"""`Registers` writes LLVM instructions as text; a `Lane` is a value in a register.

A kernel works on `lanes` elements at once. A value that is the same for all of them stays a scalar
until it meets one that is not. How a row is computed (`lower` in its record) and the vector
mathematics in `math.py` are written with these two, and never see LLVM.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from chainrule.core.types import bool_, float32, float64, int32, int64, uint8

# How a dtype is held in registers; a bool is one byte in memory.
REGISTER = {float32: "float", float64: "double", int64: "i64", int32: "i32", uint8: "i8",
            bool_: "i1", np.dtype("uint32"): "i32", np.dtype("uint64"): "i64"}
# Half precision is moved, not computed with; NumPy does that.
REGISTER[np.dtype("float16")] = "i16"
MEMORY = {**REGISTER, bool_: "i8"}
COMPUTED = frozenset(REGISTER) - {np.dtype("float16")}
SUFFIX = {"float": "f32", "double": "f64", "i64": "i64", "i32": "i32", "i8": "i8", "i1": "i1",
          "i16": "i16"}
UNSIGNED = "bu"

Number = int | float | bool


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """A number as LLVM writes it; floats as the bits of a double, which is exact."""
    # 0.0 and −0.0 are equal, and must not stand for one another in the cache.
    return _literal(value, dtype) if value else _literal.__wrapped__(value, dtype)


@lru_cache(4096, typed=True)
def _literal(value: Any, dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        exact = float(dtype.type(value))
        return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
    if dtype.kind == "b":
        return "true" if value else "false"
    bits = 8 * dtype.itemsize
    wrapped = int(value) & ((1 << bits) - 1)
    return str(wrapped - (1 << bits) if wrapped >= 1 << (bits - 1) else wrapped)


class Lane:
    """A value in a register: its name or literal, its dtype, and one or all lanes."""

    __array_ufunc__ = None
    __slots__ = ("dtype", "e", "lanes", "name")

    def __init__(self, e: Registers, name: str, dtype: np.dtype[Any], lanes: int) -> None:
        self.e = e
        self.name = name
        self.dtype = dtype
        self.lanes = lanes

    @property
    def type(self) -> str:
        """The LLVM type."""
        return register_type(self.dtype, self.lanes)

    def __repr__(self) -> str:
        return f"{self.type} {self.name}"

    def __add__(self, other: Any) -> Lane:
        return self.e.add(self, other)

    def __radd__(self, other: Any) -> Lane:
        return self.e.add(other, self)

    def __sub__(self, other: Any) -> Lane:
        return self.e.sub(self, other)

    def __rsub__(self, other: Any) -> Lane:
        return self.e.sub(other, self)

    def __mul__(self, other: Any) -> Lane:
        return self.e.mul(self, other)

    def __rmul__(self, other: Any) -> Lane:
        return self.e.mul(other, self)

    def __truediv__(self, other: Any) -> Lane:
        return self.e.div(self, other)

    def __rtruediv__(self, other: Any) -> Lane:
        return self.e.div(other, self)

    def __neg__(self) -> Lane:
        return self.e.neg(self)

    def __lt__(self, other: Any) -> Lane:
        return self.e.compare("lt", self, other)

    def __le__(self, other: Any) -> Lane:
        return self.e.compare("le", self, other)

    def __gt__(self, other: Any) -> Lane:
        return self.e.compare("gt", self, other)

    def __ge__(self, other: Any) -> Lane:
        return self.e.compare("ge", self, other)

    def __and__(self, other: Any) -> Lane:
        return self.e.bitwise("and", self, other)

    def __or__(self, other: Any) -> Lane:
        return self.e.bitwise("or", self, other)

    def __xor__(self, other: Any) -> Lane:
        return self.e.bitwise("xor", self, other)

    def __invert__(self) -> Lane:
        return self.e.bitwise("xor", self, True if self.dtype.kind == "b" else -1)

    def __lshift__(self, other: Any) -> Lane:
        return self.e.bitwise("shl", self, other)

    def __rshift__(self, other: Any) -> Lane:
        """Arithmetic for signed integers, logical for unsigned ones."""
        return self.e.bitwise("lshr" if self.dtype.kind in UNSIGNED else "ashr", self, other)


def ordered(x: Lane) -> bool:
    """Is x a literal other than NaN? Then one comparison decides, and what it meets may be NaN."""
    start = x.name.rfind("0x")
    return start >= 0 and int(x.name[start + 2:start + 18], 16) & (1 << 63) - 1 <= 0x7FF << 52


def vector(scalar: str, lanes: int) -> str:
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


@lru_cache(256)
def register_type(dtype: np.dtype[Any], lanes: int) -> str:
    return vector(REGISTER[dtype], lanes)


@lru_cache(1024)
def intrinsic_name(name: str, dtype: np.dtype[Any], lanes: int) -> str:
    suffix = SUFFIX[REGISTER[dtype]]
    return f"llvm.{name}.{suffix}" if lanes == 1 else f"llvm.{name}.v{lanes}{suffix}"


class Registers:
    """Instructions of one function, in order, and what they need declared.

    Arithmetic takes Lanes of one dtype; a Python number takes the dtype of the other operand.
    Equal instructions are written once, except across a `forget()`.

    A product that is added is written as one fma, here and not by LLVM's `contract`: that depends
    on the instructions around and on the number of lanes, and the last bits with it.
    """

    fuses = True              # on a machine without the instruction, fma is a call for each lane

    def __init__(self, lanes: int, first: int = 0) -> None:
        self.lanes = lanes
        self.lines: list[str] = []
        self.declared: dict[str, str] = {}
        self.count = first
        self.known: dict[str, str] = {}
        self.products: dict[str, tuple[Lane, Lane]] = {}

    # ------------------------------------------------------------ writing

    def fresh(self, hint: str = "v") -> str:
        self.count += 1
        return f"%{hint}{self.count}"

    def emit(self, text: str) -> str:
        """An instruction that gives a value; returns its register."""
        found = self.known.get(text)
        if found is None:
            found = self.known[text] = self.fresh()
            self.lines.append(f"{found} = {text}")
        return found

    def do(self, text: str) -> None:
        """An instruction without a value, or one that must not be shared."""
        self.lines.append(text)

    def forget(self) -> None:
        """What was computed so far is not visible from here on: another block begins."""
        self.known = {}

    def declare(self, name: str, result: str, *operands: str) -> str:
        """An intrinsic or external function; returns its name with @."""
        self.declared[name] = f"declare {result} @{name}({', '.join(operands)})"
        return f"@{name}"

    # ------------------------------------------------------------ operands

    def const(self, value: Number, like: Any) -> Lane:
        """A number of the dtype of `like` (a Lane or a dtype)."""
        dtype = like.dtype if isinstance(like, Lane) else np.dtype(like)
        return Lane(self, literal(value, dtype), dtype, 1)

    def lane(self, x: Any, like: Any) -> Lane:
        return x if isinstance(x, Lane) else self.const(x, like)

    def together(self, *xs: Any) -> list[Lane]:
        """The operands as Lanes of one dtype and one number of lanes."""
        dtype = next(x.dtype for x in xs if isinstance(x, Lane))
        found = [x if isinstance(x, Lane) else self.const(x, dtype) for x in xs]
        for x in found:
            if x.dtype is not dtype and x.dtype != dtype:
                raise TypeError(f"operands of {dtype} and {x.dtype} meet in one instruction")
        return self.level(found)

    def level(self, xs: list[Lane]) -> list[Lane]:
        """The same lanes for all: scalars are spread where one operand is a vector."""
        lanes = xs[0].lanes
        for x in xs:
            if x.lanes != lanes:
                return [self.spread(x) for x in xs]
        return xs

    def spread(self, x: Lane) -> Lane:
        """A scalar in every lane."""
        if x.lanes == self.lanes:
            return x
        scalar = REGISTER[x.dtype]
        if not x.name.startswith("%"):
            return Lane(self, f"splat ({scalar} {x.name})", x.dtype, self.lanes)
        whole = vector(scalar, self.lanes)
        first = self.emit(f"insertelement {whole} poison, {scalar} {x.name}, i64 0")
        name = self.emit(f"shufflevector {whole} {first}, {whole} poison, "
                         f"<{self.lanes} x i32> zeroinitializer")
        return Lane(self, name, x.dtype, self.lanes)

    # ------------------------------------------------------------ arithmetic

    def _pair(self, op: str, x: Lane, y: Lane) -> Lane:
        return Lane(self, self.emit(f"{op} {x.type} {x.name}, {y.name}"), x.dtype, x.lanes)

    def add(self, a: Any, b: Any) -> Lane:
        x, y = self.together(a, b)
        if x.dtype.kind != "f":
            return self._pair("or" if x.dtype.kind == "b" else "add", x, y)
        if x.name in self.products:
            return self.fma(*self.products[x.name], y)
        if y.name in self.products:
            return self.fma(*self.products[y.name], x)
        return self._pair("fadd", x, y)

    def sub(self, a: Any, b: Any) -> Lane:
        x, y = self.together(a, b)
        if x.dtype.kind != "f":
            return self._pair("sub", x, y)
        if x.name in self.products:
            return self.fma(*self.products[x.name], -y)
        if y.name in self.products:
            one, other = self.products[y.name]
            return self.fma(-one, other, x)
        return self._pair("fsub", x, y)

    def mul(self, a: Any, b: Any) -> Lane:
        x, y = self.together(a, b)
        if x.dtype.kind != "f":
            return self._pair("and" if x.dtype.kind == "b" else "mul", x, y)
        product = self._pair("fmul", x, y)
        if self.fuses:
            self.products[product.name] = x, y
        return product

    def div(self, a: Any, b: Any) -> Lane:
        """a / b of floats; of integers the quotient towards zero, b being a number but 0 and −1."""
        x, y = self.together(a, b)
        kind = x.dtype.kind
        return self._pair("fdiv" if kind == "f" else "udiv" if kind in UNSIGNED else "sdiv", x, y)

    def remainder(self, a: Any, b: Any) -> Lane:
        """What `div` of integers leaves, with the sign of a."""
        x, y = self.together(a, b)
        return self._pair("urem" if x.dtype.kind in UNSIGNED else "srem", x, y)

    def fma(self, a: Any, b: Any, c: Any) -> Lane:
        """a·b + c, rounded once."""
        return self.intrinsic("fma", a, b, c)

    def neg(self, x: Lane) -> Lane:
        if x.dtype.kind == "f":
            y = Lane(self, self.emit(f"fneg {x.type} {x.name}"), x.dtype, x.lanes)
            if x.name in self.products:
                one, other = self.products[x.name]
                self.products[y.name] = -one, other
            return y
        return self.sub(self.const(0, x), x)

    def intrinsic(self, name: str, *xs: Any) -> Lane:
        """llvm.<name> of operands of one dtype: sqrt, fabs, floor, ceil, trunc, rint, roundeven,
        fma, copysign, ctpop..."""
        lanes = self.together(*xs)
        first = lanes[0]
        kind = first.type
        function = intrinsic_name(name, first.dtype, first.lanes)
        if function not in self.declared:
            self.declare(function, kind, *[kind] * len(lanes))
        operands = ", ".join([f"{kind} {x.name}" for x in lanes])
        return Lane(self, self.emit(f"call {kind} @{function}({operands})"), first.dtype,
                    first.lanes)

    def ldexp(self, x: Lane, k: Lane) -> Lane:
        """x·2^k, rounded once, for int32 k."""
        suffix = SUFFIX[REGISTER[x.dtype]]
        kinds = f"v{x.lanes}{suffix}.v{x.lanes}i32" if x.lanes > 1 else f"{suffix}.i32"
        function = self.declare(f"llvm.ldexp.{kinds}", x.type, x.type, k.type)
        return Lane(self, self.emit(f"call {x.type} {function}({x!r}, {k!r})"), x.dtype, x.lanes)

    def abs(self, x: Lane) -> Lane:
        if x.dtype.kind == "f":
            return self.intrinsic("fabs", x)
        return self.select(x < 0, -x, x) if x.dtype.kind == "i" else x

    def max(self, a: Any, b: Any) -> Lane:
        """The larger; NaN if one is NaN, as NumPy's maximum."""
        x, y = self.together(a, b)
        if x.dtype.kind == "b":
            return x | y
        if ordered(y):
            return self.select(x <= y, y, x)
        larger = x > y
        return self.select(larger | self.isnan(x) if x.dtype.kind == "f" else larger, x, y)

    def min(self, a: Any, b: Any) -> Lane:
        """The smaller; NaN if one is NaN, as NumPy's minimum."""
        x, y = self.together(a, b)
        if x.dtype.kind == "b":
            return x & y
        if ordered(y):
            return self.select(x >= y, y, x)
        smaller = x < y
        return self.select(smaller | self.isnan(x) if x.dtype.kind == "f" else smaller, x, y)

    # ------------------------------------------------------------ comparison and selection

    def compare(self, how: str, a: Any, b: Any) -> Lane:
        """lt, le, gt, ge, eq (false with NaN) or ne (true with NaN)."""
        x, y = self.together(a, b)
        if x.dtype.kind == "f":
            op = f"fcmp {'u' if how == 'ne' else 'o'}{how}"
        elif how in ("eq", "ne"):
            op = f"icmp {how}"
        else:
            op = f"icmp {'u' if x.dtype.kind in UNSIGNED else 's'}{how}"
        return Lane(self, self.emit(f"{op} {x.type} {x.name}, {y.name}"), bool_, x.lanes)

    def eq(self, a: Any, b: Any) -> Lane:
        return self.compare("eq", a, b)

    def ne(self, a: Any, b: Any) -> Lane:
        return self.compare("ne", a, b)

    def isnan(self, x: Any) -> Lane:
        if not isinstance(x, Lane):
            return self.const(x != x, bool_)
        if x.dtype.kind != "f":
            return self.const(False, bool_)
        return Lane(self, self.emit(f"fcmp uno {x.type} {x.name}, {x.name}"), bool_, x.lanes)

    def select(self, mask: Any, a: Any, b: Any) -> Lane:
        """a where the mask holds, else b."""
        if not isinstance(mask, Lane):
            mask = self.const(mask, bool_)
        x, y = self.together(a, b) if isinstance(a, Lane) or isinstance(b, Lane) else (a, b)
        if mask.lanes > 1 or x.lanes > 1:
            x, y, mask = self.spread(x), self.spread(y), self.spread(mask)
        return Lane(self, self.emit(f"select {mask!r}, {x!r}, {y!r}"), x.dtype, x.lanes)

    def bitwise(self, how: str, a: Any, b: Any) -> Lane:
        """and, or, xor, shl, ashr or lshr of integers or truth values."""
        x, y = self.together(a, b)
        return Lane(self, self.emit(f"{how} {x.type} {x.name}, {y.name}"), x.dtype, x.lanes)

    # ------------------------------------------------------------ conversion

    def cast(self, x: Lane, dtype: np.dtype[Any]) -> Lane:
        """The number in another dtype, as NumPy's astype (NaN to an integer gives 0)."""
        source, wanted = REGISTER[x.dtype], REGISTER[dtype]
        if x.dtype == dtype:
            return x
        if dtype.kind == "b":
            return self.ne(x, 0)
        to = vector(wanted, x.lanes)
        if x.dtype.kind == "f" and dtype.kind == "f":
            op = "fpext" if dtype.itemsize > x.dtype.itemsize else "fptrunc"
        elif x.dtype.kind == "f":
            return self._to_whole(x, dtype)
        elif dtype.kind == "f":
            op = "uitofp" if x.dtype.kind in UNSIGNED else "sitofp"
        elif SIZE[source] == SIZE[wanted]:
            return Lane(self, x.name, dtype, x.lanes)
        elif SIZE[source] > SIZE[wanted]:
            op = "trunc"
        else:
            op = "zext" if x.dtype.kind in UNSIGNED else "sext"
        return Lane(self, self.emit(f"{op} {x!r} to {to}"), dtype, x.lanes)

    def _to_whole(self, x: Lane, dtype: np.dtype[Any]) -> Lane:
        """Towards zero, through int64 as NumPy does, the far ends saturated."""
        wide = int64
        to = vector("i64", x.lanes)
        suffix = SUFFIX[REGISTER[x.dtype]]
        ends = f"v{x.lanes}i64.v{x.lanes}{suffix}" if x.lanes > 1 else f"i64.{suffix}"
        function = self.declare(f"llvm.fptosi.sat.{ends}", to, x.type)
        found = Lane(self, self.emit(f"call {to} {function}({x!r})"), wide, x.lanes)
        return self.cast(found, dtype)

    def bits(self, x: Lane, dtype: np.dtype[Any]) -> Lane:
        """The same bits read as another dtype of the same size."""
        to = vector(REGISTER[dtype], x.lanes)
        return Lane(self, self.emit(f"bitcast {x!r} to {to}"), dtype, x.lanes)

    def whole_bits(self, x: Lane) -> Lane:
        """The bits of a float as a signed integer."""
        return self.bits(x, int32 if x.dtype.itemsize == 4 else int64)

    # ------------------------------------------------------------ mathematics

    def math(self, name: str, *xs: Any) -> Lane:
        """A function of `math.py` by its name: exp, log, tanh..."""
        return MATHEMATICS[name](self, *self.together(*xs))


SIZE = {"i1": 1, "i8": 8, "i32": 32, "i64": 64, "float": 32, "double": 64}

# Filled by math.py: how transcendental functions are computed.
MATHEMATICS: dict[str, Callable[..., Lane]] = {}
