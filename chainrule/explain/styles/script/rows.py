"""How a row of the table is written in NumPy: what its `eval` computes, or what defines it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from chainrule.core.primitive import TABLE, Primitive

from .code import Code, parts
from .helpers import Helpers, fixed
from .source import Unwritable, called, literal, name_of, numpy_name, numpy_path, parameters
from .straight import Piece, as_operator, gathered, inlined, is_short, known

Keep = Callable[[str, ast.expr], ast.expr]      # (wanted name, expression) -> the name it got


class Rows:
    """Writes Codes as expressions."""

    def __init__(self, taken: set[str]) -> None:
        self.helpers = Helpers(self.row, taken)
        self.stretched: dict[int, tuple[ast.expr, Piece]] = {}
        self.doing: list[Primitive] = []

    def express(self, root: Code, keep: Keep) -> ast.expr:
        """The expression of a Code; what is read several times is kept under a name first."""
        uses = parts(root)
        done: dict[int, Piece] = {}

        def piece(x: Any) -> Piece:
            if not isinstance(x, Code):
                return known(x)
            if x.expr is not None:
                return Piece(x.expr, x.stand_in)
            found = done.get(id(x))
            if found is None:
                assert x.prim is not None
                found = self.row(x.prim, [piece(one) for one in x.xs], x.params)
                found = Piece(found.expr, x.stand_in)
                if uses[id(x)] > 1 and not is_short(found.expr):
                    found = Piece(keep("t", found.expr), found.value)
                done[id(x)] = found
            return found

        result = piece(root)
        return literal(result.value) if result.known else result.expr

    def row(self, prim: Primitive, pieces: list[Piece], params: dict[str, Any]) -> Piece:
        """A row on operands."""
        pieces = self.unstretched(prim, pieces)
        if prim.kind == "elementwise":
            pieces = bare_numbers(pieces)
        with np.errstate(all="ignore"):
            value = np.asarray(prim.eval(*[one.value for one in pieces], **params))
        expr = self.expression(prim, pieces, params)
        if prim is TABLE["broadcast"]:
            self.stretched[id(expr)] = (expr, pieces[0])
        return Piece(expr, value)

    def expression(self, prim: Primitive, pieces: list[Piece], params: dict[str, Any]) -> ast.expr:
        function = prim.eval
        if prim.definition is function:
            return self.by_definition(prim, pieces, params)
        if numpy_path(function):
            plain = [literal(one.value) if one.known else one.expr for one in pieces]
            operator = as_operator(function, plain, {}) if not params else None
            return operator or called(numpy_name(numpy_path(function)), *plain,
                                      **{key: literal(one) for key, one in params.items()})
        if not isinstance(function, FunctionType):
            raise Unwritable(f"{prim.name}: {function!r:.60}")

        def borrow(inner: FunctionType, operands: dict[str, Piece]) -> ast.expr:
            own = inner is function
            return self.helpers.borrow(inner, operands, prim.name if own else "",
                                       prim.doc if own else "")

        operands = {key: gathered(one)
                    for key, one in parameters(function, pieces, params).items()}
        state = self.helpers.state()
        try:
            return inlined(function, operands, self.row, borrow)
        except Unwritable:
            if prim.definition is None or prim in self.doing:
                raise
            self.helpers.restore(state)
            return self.by_definition(prim, pieces, params)

    def by_definition(self, prim: Primitive, pieces: list[Piece], params: dict[str, Any]
                      ) -> ast.expr:
        """A function of the script that computes the row by the other rows that define it."""
        assert prim.definition is not None
        self.doing.append(prim)
        names = [f"{'abcdefgh'[i]}" for i in range(len(pieces))]
        leaves = [one.value if one.known else Code(one.value, expr=name_of(name))
                  for name, one in zip(names, pieces, strict=True)]
        lines: list[str] = []

        def keep(wanted: str, expr: ast.expr) -> ast.expr:
            name = f"{wanted}{len(lines) + 1}"
            lines.append(f"    {name} = {ast.unparse(fixed(expr))}")
            return name_of(name)

        last = self.express(prim.definition(*leaves, **params), keep)
        self.doing.pop()
        lines.append(f"    return {ast.unparse(fixed(last))}")
        used = [(name, one) for name, one in zip(names, pieces, strict=True) if not one.known]
        name = self.helpers.defined(prim.name, [name for name, _ in used], lines, prim.doc)
        return called(name_of(name), *[one.expr for _, one in used])

    def unstretched(self, prim: Primitive, pieces: list[Piece]) -> list[Piece]:
        """Operands of an elementwise row without a broadcast that NumPy does by itself."""
        if prim.kind != "elementwise" or len(pieces) < 2:
            return pieces
        inner = [self.stretched[id(one.expr)][1] if id(one.expr) in self.stretched else one
                 for one in pieces]
        if all(a is b for a, b in zip(inner, pieces, strict=True)):
            return pieces
        whole = np.broadcast_shapes(*[np.shape(one.value) for one in pieces])
        same = np.broadcast_shapes(*[np.shape(one.value) for one in inner]) == whole
        return inner if same else pieces


def bare_numbers(pieces: list[Piece]) -> list[Piece]:
    """`np.array(2.0)` as 2.0 beside an array, whose dtype it takes."""
    bare = [isinstance(one.expr, ast.Call) and ast.unparse(one.expr.func) == "np.array"
            and isinstance(one.expr.args[0], (ast.Constant, ast.UnaryOp)) for one in pieces]
    if all(bare):
        return pieces
    return [Piece(one.expr.args[0], one.value) if is_bare else one  # type: ignore[attr-defined]
            for is_bare, one in zip(bare, pieces, strict=True)]
