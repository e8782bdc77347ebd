"""Functions without branches: what is left of a function when shapes and settings are known.

A row's `eval` asks about shapes, dtypes and its settings before it computes. In one script all of
these are known, so its questions are answered here and only what is computed remains: most rows
become one expression. A function that asks about the numbers themselves, loops or writes into
arrays is not straight; it is taken into the script as it stands (`helpers.py`).
"""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from chainrule.core.primitive import Primitive

from .outline import Read, ShapesOfNumpy, is_outline, kind_of, outline
from .source import (
    COMPARISONS,
    OPERATORS,
    Unwritable,
    called,
    index_expression,
    literal,
    name_of,
    numpy_name,
    numpy_path,
    only_checks,
    parameters,
    surroundings,
    tree_of,
)

LONGEST = 64         # characters of an expression that is written inside another one


class NotStraight(Exception):
    """The function decides by numbers, loops, or writes into arrays."""


@dataclass(frozen=True)
class Piece:
    """An operand: how it is written, and an array of its shape and dtype or its known value."""

    expr: ast.expr
    value: Any
    known: bool = False


@dataclass(frozen=True)
class Several(Piece):
    """The operands that a function takes as *args."""

    pieces: tuple[Piece, ...] = ()

    def __init__(self, pieces: tuple[Piece, ...]) -> None:
        written = [literal(one.value) if one.known else one.expr for one in pieces]
        super().__init__(ast.Tuple(written, ast.Load()), tuple(one.value for one in pieces))
        object.__setattr__(self, "pieces", pieces)


def known(value: Any) -> Piece:
    """A value that is the same in every run: a number, a shape, a setting."""
    return Piece(name_of("?"), value, True)


# (row, operands, settings) -> expression; (function, operands) -> call of a function of the script
ApplyRow = Callable[[Primitive, list[Piece], dict[str, Any]], Piece]
Borrow = Callable[[FunctionType, dict[str, Piece]], ast.expr]


class Straight:
    """One function on known shapes: the values it computes one after the other, and its result."""

    def __init__(self, function: FunctionType, operands: dict[str, Piece], row: ApplyRow,
                 borrow: Borrow, depth: int = 0) -> None:
        self.function = function
        self.scope = {**surroundings(function), "type": kind_of, "np": ShapesOfNumpy()}
        self.scope = {name: value if value is not np else ShapesOfNumpy()
                      for name, value in self.scope.items()}
        self.local: dict[str, Piece] = dict(operands)
        self.row = row
        self.borrow = borrow
        self.depth = depth
        self.steps: list[tuple[str, ast.expr]] = []
        self.count = 0
        self.result: Piece | None = None
        self.block(tree_of(function).body)
        if self.result is None:
            raise NotStraight
        self.expression: tuple[list[tuple[str, ast.expr]], ast.expr] = self.folded()

    # ------------------------------------------------------------ statements

    def block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if self.result is not None:
                return
            self.statement(statement)

    def statement(self, one: ast.stmt) -> None:
        if isinstance(one, ast.Return) and one.value is not None:
            self.result = self.reduce(without_out(one.value))
        elif isinstance(one, ast.If):
            self.block(one.body if self.decide(one.test) else one.orelse)
        elif isinstance(one, ast.Assign) and len(one.targets) == 1:
            self.assign(one.targets[0], one.value)
        elif isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name):
            left = name_of(one.target.id)
            self.assign(one.target, ast.BinOp(left, one.op, one.value))
        elif isinstance(one, ast.Expr):
            self.effect(one.value)
        elif not isinstance(one, (ast.Pass, ast.Assert)):
            raise NotStraight

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.keep(target.id, self.reduce(value))
            return
        piece = self.reduce(value)
        if not (isinstance(target, ast.Tuple) and piece.known):
            raise NotStraight
        for one, part in zip(target.elts, piece.value, strict=True):
            if not isinstance(one, ast.Name):
                raise NotStraight
            self.local[one.id] = known(part)

    def keep(self, name: str, piece: Piece) -> None:
        if piece.known or isinstance(piece.expr, ast.Name):
            self.local[name] = piece
            return
        self.count += 1
        unique = f"{name}·{self.count}"
        self.steps.append((unique, piece.expr))
        self.local[name] = Piece(name_of(unique), piece.value)

    def effect(self, value: ast.expr) -> None:
        """np.exp(t, out=t) is t = np.exp(t); a call that can only raise did not."""
        if isinstance(value, ast.Constant):
            return
        if isinstance(value, ast.Call):
            target = out_of(value)
            if target is not None:
                self.assign(target, without_out(value))
                return
            function = self.static(value.func)
            if isinstance(function, FunctionType) and only_checks(function):
                return
        raise NotStraight

    def decide(self, test: ast.expr) -> bool:
        try:
            return bool(self.evaluate(test))
        except Read:
            raise NotStraight from None

    # ------------------------------------------------------------ expressions

    def environment(self) -> dict[str, Any]:
        return {**self.scope, **{name: piece.value if piece.known else outline(piece.value)
                                 for name, piece in self.local.items()}}

    def evaluate(self, node: ast.expr) -> Any:
        """The value of an expression that asks for shapes and settings only."""
        code = compile(ast.fix_missing_locations(ast.Expression(node)), "<eval>", "eval")
        try:
            return eval(code, self.environment())
        except Read:
            raise
        except Exception as error:       # an outline where NumPy wants numbers: not decided here
            raise Read from error

    def static(self, node: ast.expr) -> Any:
        """The value if it is known and no array; else None."""
        try:
            value = self.evaluate(node)
        except Read:
            return None
        if is_outline(value) or (isinstance(value, np.ndarray) and value.ndim):
            return None
        return value

    def stand_in(self, expr: ast.expr) -> Any:
        """An array of the expression's shape and dtype: it is computed on stand-ins."""
        scope = {**surroundings(self.function),
                 **{name: piece.value for name, piece in self.local.items()}}
        code = compile(ast.fix_missing_locations(ast.Expression(expr)), "<eval>", "eval")
        try:
            with np.errstate(all="ignore"):
                return eval(code, scope)
        except Exception as error:       # stand-ins are not numbers this function accepts
            raise NotStraight from error

    def reduce(self, node: ast.expr) -> Piece:
        """The expression with everything known written as a literal."""
        if isinstance(node, ast.Name) and node.id in self.local:
            return self.local[node.id]
        value = self.static(node)
        if value is not None or (isinstance(node, ast.Constant) and node.value is None):
            return known(value)
        if isinstance(node, ast.IfExp):
            return self.reduce(node.body if self.decide(node.test) else node.orelse)
        return Piece(self.rewritten(node), self.stand_in(node))

    def written(self, node: ast.expr) -> ast.expr:
        piece = self.reduce(node)
        return literal(piece.value) if piece.known else piece.expr

    def rewritten(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.Subscript):
            return ast.Subscript(self.written(node.value), self.index(node.slice), ast.Load())
        if isinstance(node, ast.Attribute):
            return ast.Attribute(self.written(node.value), node.attr, ast.Load())
        if isinstance(node, ast.BinOp):
            return ast.BinOp(self.written(node.left), node.op, self.written(node.right))
        if isinstance(node, ast.UnaryOp):
            return ast.UnaryOp(node.op, self.written(node.operand))
        if isinstance(node, ast.Compare):
            return ast.Compare(self.written(node.left), node.ops,
                               [self.written(one) for one in node.comparators])
        if isinstance(node, ast.Tuple | ast.List):
            return type(node)([self.written(one) for one in node.elts], ast.Load())
        raise NotStraight

    def index(self, key: ast.expr) -> ast.expr:
        value = self.static(key) if not isinstance(key, ast.Slice) else None
        if value is not None:
            return index_expression(value)
        if isinstance(key, ast.Constant):
            return key
        if isinstance(key, ast.Tuple):
            return ast.Tuple([self.index(one) for one in key.elts], ast.Load())
        if isinstance(key, ast.Slice):
            return ast.Slice(*[None if one is None else self.written(one)
                               for one in (key.lower, key.upper, key.step)])
        return self.written(key)

    def call(self, node: ast.Call) -> ast.expr:
        function = self.static(node.func)
        if function is ShapesOfNumpy.asarray and isinstance(node.func, ast.Attribute):
            function = getattr(np, node.func.attr)
        args = self.arguments(node.args)
        options = {str(one.arg): self.reduce(one.value) for one in node.keywords}
        if isinstance(function, Primitive):
            settings = {key: one.value for key, one in options.items()}
            if not all(one.known for one in options.values()):
                raise NotStraight
            return self.row(function, args, settings).expr
        if isinstance(function, FunctionType) and not numpy_path(function):
            named = {key: gathered(one) for key, one in
                     parameters(function, args, options).items()}
            return inlined(function, named, self.row, self.borrow, self.depth + 1)
        plain = [literal(one.value) if one.known else one.expr for one in args]
        extra = {key: literal(one.value) if one.known else one.expr
                 for key, one in options.items()}
        path = "" if function is None else numpy_path(function)
        if function is np.asarray and len(plain) == 1 and not extra and not args[0].known:
            return plain[0]
        if path:
            return as_operator(function, plain, extra) or called(numpy_name(path), *plain, **extra)
        own = getattr(function, "__name__", "")
        if own and getattr(builtins, own, None) is function:
            return called(name_of(own), *plain, **extra)
        if isinstance(node.func, ast.Attribute):
            return self.method(node.func, args, plain, extra)
        raise NotStraight

    def method(self, function: ast.Attribute, args: list[Piece], plain: list[ast.expr],
               extra: dict[str, ast.expr]) -> ast.expr:
        """x.astype(...), np.add.reduce(x, ...): as one writes them by hand."""
        owner = self.static(function.value)
        if owner is not None and numpy_path(owner):
            name = REDUCTIONS.get(owner) if function.attr == "reduce" else None
            if name and not args[0].known and np.ndim(args[0].value):
                return reduction(name, args, plain, extra)
            base = numpy_name(numpy_path(owner))
            return called(ast.Attribute(base, function.attr, ast.Load()), *plain, **extra)
        base_piece = self.reduce(function.value)
        base = literal(base_piece.value) if base_piece.known else base_piece.expr
        if function.attr == "dot" and np.ndim(base_piece.value) < 3 and np.ndim(args[0].value) < 3:
            return ast.BinOp(base, ast.MatMult(), plain[0])
        if function.attr == "transpose" and args and all(one.known for one in args):
            order = args[0].value if isinstance(args[0].value, tuple) else tuple(
                one.value for one in args)
            if order == tuple(range(np.ndim(base_piece.value)))[::-1]:
                return ast.Attribute(base, "T", ast.Load())
        if function.attr == "astype" and args[0].known and np.dtype(args[0].value) == getattr(
                base_piece.value, "dtype", None):
            return base
        return called(ast.Attribute(base, function.attr, ast.Load()), *plain, **extra)

    def arguments(self, nodes: list[ast.expr]) -> list[Piece]:
        found: list[Piece] = []
        for one in nodes:
            if not isinstance(one, ast.Starred):
                found.append(self.reduce(one))
                continue
            piece = self.reduce(one.value)
            if isinstance(piece, Several):
                found += piece.pieces
            elif piece.known and isinstance(piece.value, (tuple, list)):
                found += map(known, piece.value)
            else:
                raise NotStraight
        return found

    # ------------------------------------------------------------ the result

    def folded(self) -> tuple[list[tuple[str, ast.expr]], ast.expr]:
        """Short values that are used once are written where they are; the others in order."""
        assert self.result is not None
        last = literal(self.result.value) if self.result.known else self.result.expr
        uses: Counter[str] = Counter(
            node.id for tree in (*[e for _, e in self.steps], last)
            for node in ast.walk(tree) if isinstance(node, ast.Name))
        inner: dict[str, ast.expr] = {}
        kept: list[tuple[str, ast.expr]] = []
        for name, expr in self.steps:
            expr = substituted(expr, inner)
            if uses[name] == 1 and len(ast.unparse(expr)) <= LONGEST:
                inner[name] = expr
            elif uses[name]:
                kept.append((name, expr))
        return renamed(kept, substituted(last, inner))


class _Substitute(ast.NodeTransformer):
    def __init__(self, by_name: dict[str, ast.expr]) -> None:
        self.by_name = by_name

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.by_name.get(node.id, node)


def substituted(tree: ast.expr, by_name: dict[str, ast.expr]) -> ast.expr:
    if isinstance(tree, ast.Name):
        return by_name.get(tree.id, tree)
    found: ast.expr = _Substitute(by_name).visit(clone(tree)) if by_name else tree
    return found


def clone(tree: Any) -> Any:
    """A copy, so that an operand that is written twice is two trees."""
    if isinstance(tree, list):
        return [clone(one) for one in tree]
    if isinstance(tree, ast.AST):
        return type(tree)(**{field: clone(value) for field, value in ast.iter_fields(tree)})
    return tree


def renamed(steps: list[tuple[str, ast.expr]], last: ast.expr
            ) -> tuple[list[tuple[str, ast.expr]], ast.expr]:
    """Values under the names they had in the function, with a number where there are several."""
    new: dict[str, ast.expr] = {}
    seen: Counter[str] = Counter()
    made = []
    for unique, expr in steps:
        plain = unique.partition("·")[0]
        seen[plain] += 1
        name = plain if seen[plain] == 1 else f"{plain}{seen[plain]}"
        made.append((name, substituted(expr, dict(new))))
        new[unique] = name_of(name)
    return made, substituted(last, new)


def gathered(value: Any) -> Piece:
    """An argument as bound by its name: *args and **settings are several at once."""
    if isinstance(value, Piece):
        return value
    if isinstance(value, tuple) and any(isinstance(one, Piece) for one in value):
        return Several(tuple(one if isinstance(one, Piece) else known(one) for one in value))
    if isinstance(value, dict):
        if not all(not isinstance(one, Piece) or one.known for one in value.values()):
            raise NotStraight
        return known({key: one.value if isinstance(one, Piece) else one
                      for key, one in value.items()})
    return known(value)


def inlined(function: FunctionType, operands: dict[str, Piece], row: ApplyRow, borrow: Borrow,
            depth: int = 0) -> ast.expr:
    """A call of a function, written as the expression it computes or as a call of a helper."""
    if depth > 12:
        raise Unwritable(f"{function.__name__} calls itself")
    real: dict[str, ast.expr] = {}

    def placed(name: str, one: Piece) -> Piece:
        if one.known:
            return one
        if isinstance(one, Several):
            return Several(tuple(placed(f"{name}{i}", part) for i, part in enumerate(one.pieces)))
        real[f"{name}°{depth}"] = one.expr
        return Piece(name_of(f"{name}°{depth}"), one.value)

    inner = {name: placed(name, one) for name, one in operands.items()}
    try:
        steps, last = Straight(function, inner, row, borrow, depth).expression
    except NotStraight:
        return borrow(function, operands)
    uses = Counter(node.id for node in ast.walk(last) if isinstance(node, ast.Name))
    short = not steps and len(ast.unparse(last)) <= LONGEST
    if not short or not all(uses[name] <= 1 or is_short(expr) for name, expr in real.items()):
        return borrow(function, operands)
    return substituted(last, real)


def is_short(expr: ast.expr) -> bool:
    """May it be written twice? A name, a constant, a transposition."""
    if isinstance(expr, ast.UnaryOp):
        return is_short(expr.operand)
    if isinstance(expr, ast.Attribute):
        return is_short(expr.value)
    return isinstance(expr, (ast.Name, ast.Constant))


# ---------------------------------------------------------------- calls as one writes them


REDUCTIONS: dict[Any, str] = {np.add: "sum", np.multiply: "prod", np.maximum: "max",
                              np.minimum: "min"}


def reduction(name: str, args: list[Piece], plain: list[ast.expr], extra: dict[str, ast.expr]
              ) -> ast.expr:
    """x.sum(axis=0) for np.add.reduce(x, (0,)); a sum of floats has their dtype anyway."""
    value = args[0].value
    options = dict(extra)
    if value.dtype.kind == "f" and "dtype" in options:
        del options["dtype"]
    axis = args[1] if len(args) > 1 else known(0)
    if not axis.known or len(args) > 2:
        return called(ast.Attribute(plain[0], name, ast.Load()), *plain[1:], **options)
    axes = axis.value if isinstance(axis.value, tuple) else (axis.value,)
    if len(axes) == value.ndim and "keepdims" not in options:
        return called(ast.Attribute(plain[0], name, ast.Load()), **options)
    chosen = literal(axes[0] if len(axes) == 1 else axes)
    return called(ast.Attribute(plain[0], name, ast.Load()), axis=chosen, **options)


def as_operator(function: Any, args: list[ast.expr], options: dict[str, ast.expr]
                ) -> ast.expr | None:
    """a + b for np.add(a, b)."""
    if options:
        return None
    if function in OPERATORS and len(args) == 2:
        return ast.BinOp(args[0], OPERATORS[function](), args[1])
    if function in COMPARISONS and len(args) == 2:
        return ast.Compare(args[0], [COMPARISONS[function]()], [args[1]])
    if len(args) == 1 and function is np.square:
        return ast.BinOp(args[0], ast.Pow(), ast.Constant(2))
    if len(args) == 1 and function is np.negative:
        return ast.UnaryOp(ast.USub(), args[0])
    if len(args) == 1 and function is np.invert:
        return ast.UnaryOp(ast.Invert(), args[0])
    return None


def out_of(node: ast.Call) -> ast.Name | None:
    """The array that np.exp(t, out=t) or np.add(a, b, t) writes."""
    for one in node.keywords:
        if one.arg == "out" and isinstance(one.value, ast.Name):
            return one.value
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        function = getattr(np, node.func.attr, None) if node.func.value.id == "np" else None
        if isinstance(function, np.ufunc) and len(node.args) == function.nin + 1:
            last = node.args[-1]
            return last if isinstance(last, ast.Name) else None
    return None


def without_out(node: ast.expr) -> ast.expr:
    if not isinstance(node, ast.Call) or out_of(node) is None:
        return node
    if any(one.arg == "out" for one in node.keywords):
        return ast.Call(node.func, node.args, [k for k in node.keywords if k.arg != "out"])
    return ast.Call(node.func, node.args[:-1], node.keywords)
