"""Tiles: a square block of an array that is read or written along memory and turned over, so that
what runs over lanes need not be neighbours there.

A kernel keeps it in a buffer on its stack: element c of row r at c·lanes + r, rows being what runs
over lanes. Both ways are the one `transpose` of matrix products, which moves bits.
"""

from __future__ import annotations

from chainrule.compiler.kernels.nest import DENSE
from chainrule.compiler.lanes.registers import SIZE, Registers, vector
from chainrule.compiler.products.tile import BYTES, PIECE, transpose


def carrier(scalar: str) -> str:
    """The type as which bits are moved."""
    return "float" if SIZE[scalar] == 32 else "double"


def least(scalar: str) -> int:
    """A tile has at least so many rows and columns, unless it is dense."""
    return PIECE // BYTES[carrier(scalar)]


def inward(e: Registers, scalar: str, lanes: int, rows: int, columns: int, stride: int,
           at: str, buffer: str) -> str:
    """The call that reads a tile: element c of row r stands at `at` + r·stride + c. There, the
    last row stands also in the lanes of those that are missing."""
    if stride == columns <= DENSE:
        return f"call void @{_apart(e, carrier(scalar), lanes, columns)}(ptr {at}, ptr {buffer})"
    size = BYTES[carrier(scalar)]
    name = transpose(e.declared, carrier(scalar), lanes, masked=False)
    return (f"call void @{name}(ptr {at}, ptr {buffer}, i64 {rows}, i64 {columns}, "
            f"i64 {stride * size}, i64 {lanes * size})")


def outward(e: Registers, scalar: str, lanes: int, rows: int, columns: int, stride: int,
            at: str, buffer: str) -> str:
    """The call that writes a tile."""
    if stride == columns <= DENSE:
        return f"call void @{_together(e, carrier(scalar), lanes, columns)}(ptr {buffer}, ptr {at})"
    size = BYTES[carrier(scalar)]
    name = transpose(e.declared, carrier(scalar), lanes, masked=columns < lanes)
    return (f"call void @{name}(ptr {buffer}, ptr {at}, i64 {columns}, i64 {rows}, "
            f"i64 {lanes * size}, i64 {stride * size})")


def fits(scalar: str, lanes: int, rows: int, columns: int, stride: int) -> bool:
    """Is there a function for this part of an array?"""
    if stride == columns <= DENSE:
        return rows == lanes
    return min(rows, columns) >= least(scalar)


def _apart(e: Registers, scalar: str, lanes: int, columns: int) -> str:
    """`void (ptr from, ptr to)`: `lanes` rows without gaps, to columns."""
    name = f"chainrule_apart_{columns}x{lanes}{scalar}"
    if name not in e.declared:
        picks = [[(r * columns + c) for r in range(lanes)] for c in range(columns)]
        e.declared[name] = _chosen(name, scalar, lanes, picks)
    return name


def _together(e: Registers, scalar: str, lanes: int, columns: int) -> str:
    """`void (ptr from, ptr to)`: the way back."""
    name = f"chainrule_together_{columns}x{lanes}{scalar}"
    if name not in e.declared:
        places = [[divmod(i * lanes + lane, columns) for lane in range(lanes)]
                  for i in range(columns)]
        e.declared[name] = _chosen(name, scalar, lanes, [[c * lanes + r for r, c in one]
                                                         for one in places])
    return name


def _chosen(name: str, scalar: str, lanes: int, picks: list[list[int]]) -> str:
    """A function that makes vectors of chosen elements of as many others."""
    whole, size = vector(scalar, lanes), BYTES[scalar]
    lines = [f"define internal void @{name}(ptr %from, ptr %to) noinline nounwind {{"]
    for i in range(len(picks)):
        lines.append(f"%from{i} = getelementptr {scalar}, ptr %from, i64 {i * lanes}")
        lines.append(f"%x{i} = load {whole}, ptr %from{i}, align {size}")
    for i, wanted in enumerate(picks):
        made = "%x0"
        for k in range(1, len(picks)):
            order = ", ".join([f"i32 {place - (k - 1) * lanes if place // lanes == k else at}"
                               if k > 1 else f"i32 {place if place < 2 * lanes else 0}"
                               for at, place in enumerate(wanted)])
            lines.append(f"%y{i}.{k} = shufflevector {whole} {made}, {whole} %x{k}, "
                         f"<{lanes} x i32> <{order}>")
            made = f"%y{i}.{k}"
        lines.append(f"%to{i} = getelementptr {scalar}, ptr %to, i64 {i * lanes}")
        lines.append(f"store {whole} {made}, ptr %to{i}, align {size}")
    return "\n".join([*lines, "ret void", "}"])
