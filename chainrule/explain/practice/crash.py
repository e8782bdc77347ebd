"""A backward pass that NumPy refused to run: which operand to transpose."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule.core.node import Node, is_internal
from chainrule.explain.naming import expression_at

from .review import Mistake
from .tape import Tape


def mistake_in_crash(error: BaseException, tape: Tape, names: Mapping[Node, str]
                     ) -> Mistake | None:
    """The product that does not fit, and the transposition that would; None for other faults."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not is_internal(frame.f_code.co_filename):
            found = frame, last_offset(error, frame)
    if found is None:
        return None
    frame, offset = found
    product = expression_at(frame.f_code, offset)
    if not isinstance(product, ast.BinOp) or not isinstance(product.op, ast.MatMult):
        return None
    scope = {**frame.f_globals, **frame.f_locals}
    left, right = shape_in(product.left, scope), shape_in(product.right, scope)
    if left is None or right is None or len(left) != 2 or len(right) != 2:
        return None
    text = ast.unparse(product)
    ways = [(turned(product.left), ast.unparse(product.right), left[::-1], right),
            (ast.unparse(product.left), turned(product.right), left, right[::-1]),
            (turned(product.right), ast.unparse(product.left), right[::-1], left),
            (ast.unparse(product.right), turned(product.left), right, left[::-1])]
    known = {node.shape: name for node, name in names.items() if node in tape.place}
    fitting = [(f"{a} @ {b}", (m[0], n[1])) for a, b, m, n in ways if m[1] == n[0]]
    told = [f"{way} gives {shape}, the shape of {known[shape]}" for way, shape in fitting
            if shape in known] or [f"{way} gives {shape}" for way, shape in fitting]
    if not told:
        return None
    return Mistake("transpose", "", (
        f"{text} cannot be multiplied: {left} @ {right}, the inner sizes {left[1]} and {right[0]} "
        f"differ. {'; '.join(told)}."), "", f"{frame.f_lineno}: {text}", ())


def last_offset(error: BaseException, frame: Any) -> int:
    """The instruction that was running in a frame of the traceback."""
    step = error.__traceback__
    offset = -1
    while step is not None:
        if step.tb_frame is frame:
            offset = step.tb_lasti
        step = step.tb_next
    return offset


def shape_in(part: ast.expr, scope: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of a name, an item or an attribute, or of such a one transposed."""
    if isinstance(part, ast.Name):
        return tuple(np.shape(scope[part.id])) if part.id in scope else None
    if isinstance(part, ast.Attribute) and part.attr in ("T", "mT"):
        inner = shape_in(part.value, scope)
        return None if inner is None else inner[::-1]
    if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) and isinstance(
            part.slice, ast.Constant):
        try:
            return tuple(np.shape(scope[part.value.id][part.slice.value]))
        except (KeyError, IndexError, TypeError):
            return None
    return None


def turned(part: ast.expr) -> str:
    """The expression transposed: W.T for W, and W for W.T."""
    if isinstance(part, ast.Attribute) and part.attr in ("T", "mT"):
        return ast.unparse(part.value)
    return f"{ast.unparse(part)}.T"
