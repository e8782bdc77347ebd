"""Reductions in registers: what they start from, how two values join, how lanes come together."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.compiler.lanes.registers import REGISTER, Lane, Registers, literal
from chainrule.core.types import bool_, int64


def start_value(op: str, dtype: np.dtype[Any]) -> str:
    """What a reduction starts from: changes nothing, not even the sign of a zero."""
    if op == "sum":
        return literal(-0.0 if dtype.kind == "f" else 0, dtype)
    if op in ("any", "all"):
        return "true" if op == "all" else "false"
    low = op in ("max", "argmax")
    if dtype.kind == "f":
        return literal(-np.inf if low else np.inf, dtype)
    if dtype.kind == "b":
        return "false" if low else "true"
    info = np.iinfo(dtype)
    return literal(info.min if low else info.max, dtype)


def everywhere(e: Registers, text: str, dtype: np.dtype[Any], lanes: int) -> Lane:
    """A literal in each of some lanes."""
    return Lane(e, text if lanes == 1 else f"splat ({REGISTER[dtype]} {text})", dtype, lanes)


def starts(e: Registers, op: str, dtype: np.dtype[Any], lanes: int) -> list[Lane]:
    """What a reduction carries before its first turn."""
    first = everywhere(e, start_value(op, dtype), dtype, lanes)
    if op in ("argmax", "argmin"):
        return [first, everywhere(e, "0", int64, lanes)]
    return [first]


def joined(e: Registers, op: str, a: Lane, b: Lane) -> Lane:
    """Two values of sum, max, min, any or all as one."""
    if op == "sum":
        return e.add(a, b)
    if op in ("any", "all"):
        return e.bitwise("or" if op == "any" else "and", a, b)
    return e.max(a, b) if op == "max" else e.min(a, b)


def turn(e: Registers, op: str, carried: list[Lane], value: Lane, mask: str | None,
         index: Lane) -> list[Lane]:
    """One turn of a reduction. Lanes outside the mask change nothing."""
    total = carried[0]
    if total.lanes > 1:
        value = e.spread(value)
    if op in ("argmax", "argmin"):
        return _extreme_place(e, op, carried, value, index, mask)
    if mask is not None:
        nothing = everywhere(e, start_value(op, value.dtype), value.dtype, value.lanes)
        value = Lane(e, e.emit(f"select <{value.lanes} x i1> {mask}, {value!r}, {nothing!r}"),
                     value.dtype, value.lanes)
    return [joined(e, op, total, value)]


def _extreme_place(e: Registers, op: str, carried: list[Lane], value: Lane,
                   here: Lane, mask: str | None) -> list[Lane]:
    """The first place of the extreme; a NaN is more extreme than any number."""
    best, place = carried
    better = value > best if op == "argmax" else value < best
    if value.dtype.kind == "f":
        better = better | (e.isnan(value) & ~e.isnan(best))
    if mask is not None:
        better = better & Lane(e, mask, bool_, value.lanes)
    if value.lanes > 1:
        here = e.spread(here)
    return [e.select(better, value, best), e.select(better, here, place)]


def across(e: Registers, op: str, carried: list[Lane]) -> list[Lane]:
    """All lanes as one: the upper half joins the lower until one is left."""
    whole, lanes = e.lanes, carried[0].lanes
    while lanes > 1:
        half = lanes // 2
        lower, upper = ([_part(e, x, first, half) for x in carried] for first in (0, half))
        e.lanes = lanes = half
        if len(carried) == 1:
            carried = [joined(e, op, *lower, *upper)]
        else:
            carried = _joined_places(e, op, lower, upper)
    e.lanes = whole
    return carried


def _part(e: Registers, x: Lane, first: int, count: int) -> Lane:
    if count == 1:
        name = e.emit(f"extractelement {x.type} {x.name}, i64 {first}")
    else:
        picked = ", ".join(f"i32 {first + i}" for i in range(count))
        name = e.emit(f"shufflevector {x.type} {x.name}, {x.type} poison, "
                      f"<{count} x i32> <{picked}>")
    return Lane(e, name, x.dtype, count)


def _joined_places(e: Registers, op: str, one: list[Lane], other: list[Lane]) -> list[Lane]:
    """The more extreme of two and its place, of equal ones the first."""
    (a, at), (b, there) = one, other
    better = b > a if op == "argmax" else b < a
    same = e.eq(a, b)
    if a.dtype.kind == "f":
        better = better | (e.isnan(b) & ~e.isnan(a))
        same = same | (e.isnan(b) & e.isnan(a))
    better = better | (same & (there < at))
    return [e.select(better, b, a), e.select(better, there, at)]
