"""Functions that the script needs besides NumPy's, taken from the table's own source.

A function comes without its annotations, with its settings filled in where it is straight, else as
it stands, together with the functions and numbers it uses. An error class of this package becomes
the builtin exception that it also is.
"""

from __future__ import annotations

import ast
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from chainrule.core.primitive import Primitive

from .source import (
    Unwritable,
    builtin_error,
    called,
    is_builtin,
    literal,
    local_names,
    name_of,
    numpy_name,
    numpy_path,
    only_checks,
    surroundings,
    tree_of,
    without_annotations,
)
from .straight import ApplyRow, NotStraight, Piece, Several, Straight, known


class Helpers:
    """The functions and numbers above the script, each once, those that are used first."""

    def __init__(self, row: ApplyRow, taken: set[str]) -> None:
        self.row = row
        self.taken = taken
        self.texts: dict[str, str] = {}               # name -> its definition
        self.by_text: dict[str, str] = {}
        self.by_object: dict[int, tuple[Any, str]] = {}
        self.imports: set[str] = set()

    def state(self) -> tuple[Any, ...]:
        """What was written so far, to come back to with `restore` when a way leads nowhere."""
        return (set(self.taken), dict(self.texts), dict(self.by_text), dict(self.by_object),
                set(self.imports))

    def restore(self, state: tuple[Any, ...]) -> None:
        self.taken.clear()
        self.taken.update(state[0])
        self.texts, self.by_text, self.by_object, self.imports = state[1:]

    def fresh(self, wanted: str) -> str:
        """A name like the wanted one that nothing else has."""
        base = wanted.strip("_") or "function"
        name, number = base, 2
        while name in self.taken or is_builtin(name) or name == "np":
            name, number = f"{base}_{number}", number + 1
        self.taken.add(name)
        return name

    def borrow(self, function: FunctionType, operands: dict[str, Piece], called_as: str = "",
               doc: str = "") -> ast.expr:
        """A call of the function on operands; it is defined above."""
        wanted = called_as or function.__name__
        self.taken |= local_names(tree_of(function))
        real: dict[str, ast.expr] = {}

        def placed(name: str, one: Piece) -> Piece:
            if one.known:
                return one
            if isinstance(one, Several):
                return Several(tuple(placed(f"{name}{i}", p) for i, p in enumerate(one.pieces)))
            real[name] = one.expr
            return Piece(name_of(name), one.value)

        inner = {name: placed(name, one) for name, one in operands.items()}
        try:
            steps, last = Straight(function, inner, self.row, self.borrow).expression
        except NotStraight:
            return self.whole_call(function, operands, called_as, doc)
        inside = {*real, *(name for name, _ in steps)} & self.texts.keys()
        if inside:                         # a variable may not hide a function that is called
            return self.whole_call(function, operands, called_as, doc)
        lines = [f"    {name} = {ast.unparse(fixed(expr))}" for name, expr in steps]
        lines.append(f"    return {ast.unparse(fixed(last))}")
        name = self.defined(wanted, list(real), lines, doc or documentation(function))
        return called(name_of(name), *real.values())

    def defined(self, wanted: str, arguments: list[str], lines: list[str], doc: str) -> str:
        """The name of a function with this text, which is written if there is none yet."""
        said = [f"    # {doc}"] if doc else []
        body = "\n".join([*said, *lines])
        text = f"({', '.join(arguments)}):\n{body}"
        if text not in self.by_text:
            name = self.by_text[text] = self.fresh(wanted)
            self.texts[name] = f"def {name}{text}"
        return self.by_text[text]

    def whole_call(self, function: FunctionType, operands: dict[str, Piece], called_as: str,
                   doc: str) -> ast.expr:
        name = self.whole(function, called_as, doc)
        tree = tree_of(function)
        if tree.args.vararg or tree.args.kwarg:
            return self.starred(name, tree, operands)
        args = [literal(one.value) if one.known else one.expr for one in operands.values()]
        positional = len(tree.args.posonlyargs) + len(tree.args.args)
        keywords = dict(zip(list(operands)[positional:], args[positional:], strict=True))
        return called(name_of(name), *args[:positional], **keywords)

    def starred(self, name: str, tree: ast.FunctionDef, operands: dict[str, Piece]) -> ast.expr:
        """A call that spreads what *args and **settings took."""
        args: list[ast.expr] = []
        keywords: dict[str, ast.expr] = {}
        only = {a.arg for a in tree.args.kwonlyargs}
        for key, one in operands.items():
            if tree.args.vararg and key == tree.args.vararg.arg:
                parts = one.pieces if isinstance(one, Several) else map(known, one.value)
                args += [literal(part.value) if part.known else part.expr for part in parts]
            elif tree.args.kwarg and key == tree.args.kwarg.arg:
                keywords |= {k: literal(part) for k, part in one.value.items()}
            elif key in only:
                keywords[key] = literal(one.value) if one.known else one.expr
            else:
                args.append(literal(one.value) if one.known else one.expr)
        return called(name_of(name), *args, **keywords)

    def whole(self, function: FunctionType, called_as: str = "", doc: str = "") -> str:
        """A function as it stands, under its own name."""
        found = self.by_object.get(id(function))
        if found is not None:
            return found[1]
        name = self.fresh(called_as or function.__name__)
        self.by_object[id(function)] = (function, name)
        tree = without_annotations(tree_of(function))
        said = doc or documentation(function)
        if tree.body and isinstance(tree.body[0], ast.Expr) and isinstance(
                tree.body[0].value, ast.Constant):
            tree.body = tree.body[1:] or [ast.Pass()]
        scope = surroundings(function)
        hiding = {name: name_of(f"{name}_") for name in local_names(tree) & self.texts.keys()}
        tree = _Rename(hiding).visit(tree)
        bound = local_names(tree)
        self.taken |= bound                # a variable may not hide a function that is called
        tree = _Resolve(self, scope, bound).visit(tree)
        tree.name = name
        for holder in ast.walk(tree):
            inner = getattr(holder, "body", None)
            if isinstance(inner, list) and len(inner) > 1:
                holder.body = [one for one in inner  # type: ignore[attr-defined]
                               if not isinstance(one, ast.Pass)]
        head, _, body = ast.unparse(fixed(tree)).partition("\n")
        self.texts.pop(name, None)
        self.texts[name] = f"{head}\n" + (f"    # {said}\n" if said else "") + body
        return name

    def meaning(self, name: str, value: Any) -> ast.expr:
        """What a free name of a borrowed function is in the script."""
        if isinstance(value, ModuleType):
            if value is np:
                return name_of("np")
            self.imports.add(value.__name__)
            return name_of(value.__name__)
        if isinstance(value, Primitive):
            value = value.eval
        path = numpy_path(value)
        if path:
            return numpy_name(path)
        if isinstance(value, FunctionType):
            return name_of(self.whole(value))
        error = builtin_error(value)
        if error:
            return name_of(error)
        found = self.by_object.get(id(value))
        if found is None:
            expr = literal(value)
            if isinstance(expr, ast.Constant):
                return expr
            own = self.fresh(name.strip("_").upper())
            self.by_object[id(value)] = found = (value, own)
            self.texts[own] = f"{own} = {ast.unparse(fixed(expr))}"
        return name_of(found[1])


def documentation(function: FunctionType) -> str:
    """The first sentence of what the function says of itself."""
    first, _, _ = (function.__doc__ or "").strip().partition("\n")
    return first


class _Rename(ast.NodeTransformer):
    """Variables and arguments of a function under other names."""

    def __init__(self, names: dict[str, ast.Name]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self.names[node.id].id, node.ctx) if node.id in self.names else node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.names[node.arg].id) if node.arg in self.names else node


class _Resolve(ast.NodeTransformer):
    """Free names replaced by what they are in the script."""

    def __init__(self, helpers: Helpers, scope: dict[str, Any], bound: set[str]) -> None:
        self.helpers = helpers
        self.scope = scope
        self.bound = bound

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.bound or not isinstance(node.ctx, ast.Load):
            return node
        if node.id in self.scope:
            return self.helpers.meaning(node.id, self.scope[node.id])
        if is_builtin(node.id):
            return node
        raise Unwritable(f"the name {node.id}")

    def visit_Expr(self, node: ast.Expr) -> Any:
        """A call that can only raise did not, for the numbers of this script."""
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            function = self.scope.get(node.value.func.id)
            if isinstance(function, FunctionType) and only_checks(function):
                return ast.Pass()
        self.generic_visit(node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        base = node.value
        if isinstance(base, ast.Name) and base.id not in self.bound:
            owner = self.scope.get(base.id)
            if isinstance(owner, ModuleType) and owner.__name__.startswith("chainrule"):
                return self.helpers.meaning(node.attr, getattr(owner, node.attr))
        self.generic_visit(node)
        return node


def fixed(tree: Any) -> Any:
    return ast.fix_missing_locations(tree)
