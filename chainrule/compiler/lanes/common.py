"""What the functions of `math.py` share: polynomials, formats, float32 by way of float64, libm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.compiler.lanes.registers import REGISTER, Lane, Registers
from chainrule.core.types import float32, float64, int32, int64

# The bits of 1, how many of them are fraction, and 1.5·2^fraction: what is added to it is rounded
# to a whole number, which then stands in its low bits.
ONE = {float32: 0x3F800000, float64: 0x3FF0000000000000}
FRACTION = {float32: 23, float64: 52}
MAGIC = {float32: 1.5 * 2.0**23, float64: 1.5 * 2.0**52}
MAGIC_BITS = {float32: 0x4B400000, float64: 0x4338000000000000}
SMALLEST = {float32: 2.0**-126, float64: 2.0**-1022}

def polynomial(e: Registers, x: Lane, coefficients: Sequence[float]) -> Lane:
    """Σ cᵢ·xⁱ by Horner's rule; the far end of a long one in two or four chains side by side.

    A chain of 20 dependent steps would keep the processor waiting for most of its time.
    """
    chains = 1 if len(coefficients) < 10 else 2 if len(coefficients) < 16 else 4
    if chains == 1:
        return horner(e, x, coefficients)
    square = x * x
    ends = [horner(e, square if chains == 2 else square * square, coefficients[3 + i::chains])
            for i in range(chains)]
    pairs = [e.fma(odd, x, even) for even, odd in zip(ends[::2], ends[1::2], strict=True)]
    return horner(e, x, (*coefficients[:3],
                         pairs[0] if chains == 2 else e.fma(pairs[1], square, pairs[0])))


def horner(e: Registers, x: Lane, coefficients: Sequence[Any]) -> Lane:
    y = e.fma(coefficients[-1], x, coefficients[-2])
    for c in coefficients[-3::-1]:
        y = e.fma(y, x, c)
    return y


def in_float64(function: Callable[..., Lane]) -> Callable[..., Lane]:
    """The same for float32 by way of float64, for functions that are rarely hot."""
    def lowered(e: Registers, *xs: Lane) -> Lane:
        if xs[0].dtype != float32:
            return function(e, *xs)
        return e.cast(function(e, *[e.cast(x, float64) for x in xs]), float32)
    return lowered


def whole(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The integer of the same size."""
    return int32 if dtype == float32 else int64


def limited(e: Registers, x: Lane, low: float | None, high: float | None) -> Lane:
    """x within [low, high]; NaN stays. Each is one instruction."""
    if high is not None:
        x = e.select(x > high, high, x)
    return x if low is None else e.select(x < low, low, x)


def outlined(e: Registers, name: str, fast: Callable[..., tuple[Lane, Lane]], *xs: Lane) -> Lane:
    """A call of a function that computes `fast`, and asks libm's `name` where that is not enough.

    `fast(e, *lanes)` gives the result and a mask of the lanes where it is of no use. These are so
    rare that they may cost a loop over the lanes; it is a function since it branches.
    """
    x = xs[0]
    inner = Registers(x.lanes)
    kind = x.type
    operands = [Lane(inner, f"%x{i}", x.dtype, x.lanes) for i in range(len(xs))]
    y, rare = fast(inner, *operands)
    scalar = REGISTER[x.dtype]
    libm = inner.declare(name, "double", *["double"] * len(xs))
    full = f"chainrule.{name}.{'' if x.lanes == 1 else f'v{x.lanes}'}{x.dtype.name}"
    given = ", ".join(map(repr, operands))
    head = [f"define internal {kind} @{full}({given}) noinline nounwind {{", "begin:",
            *inner.lines]

    def call(values: list[str], result: str) -> list[str]:
        lines = []
        if scalar == "float":
            lines = [f"{v}.wide = fpext float {v} to double" for v in values]
            values = [f"{v}.wide" for v in values]
        given = ", ".join(f"double {v}" for v in values)
        wide = f"{result}.wide" if scalar == "float" else result
        lines.append(f"{wide} = call double {libm}({given})")
        if scalar == "float":
            lines.append(f"{result} = fptrunc double {wide} to float")
        return lines

    if x.lanes == 1:
        body = [f"br i1 {rare.name}, label %rare, label %end", "rare:",
                *call([v.name for v in operands], "%exact"), "br label %end", "end:",
                f"%y = phi {kind} [ {y.name}, %begin ], [ %exact, %rare ]"]
    else:
        some = inner.declare(f"llvm.vector.reduce.or.v{x.lanes}i1", "i1", f"<{x.lanes} x i1>")
        body = [f"%some = call i1 {some}({rare!r})", "br i1 %some, label %rare, label %end",
                "rare:",
                "%i = phi i64 [ 0, %begin ], [ %next, %rare ]",
                f"%sofar = phi {kind} [ {y.name}, %begin ], [ %better, %rare ]",
                *[f"%one{k} = extractelement {v!r}, i64 %i" for k, v in enumerate(operands)],
                *call([f"%one{k}" for k in range(len(xs))], "%exact"),
                f"%changed = insertelement {kind} %sofar, {scalar} %exact, i64 %i",
                f"%needed = extractelement {rare!r}, i64 %i",
                f"%better = select i1 %needed, {kind} %changed, {kind} %sofar",
                "%next = add i64 %i, 1",
                f"%more = icmp ult i64 %next, {x.lanes}",
                "br i1 %more, label %rare, label %end",
                "end:", f"%y = phi {kind} [ {y.name}, %begin ], [ %better, %rare ]"]
    e.declared.update(inner.declared)
    e.declared[full] = "\n".join([*head, *body, f"ret {kind} %y", "}"])
    return Lane(e, e.emit(f"call {kind} @{full}({', '.join(map(repr, xs))})"), x.dtype, x.lanes)
