"""Python functions as syntax trees: where their source stands, and what their names mean.

What a row's `eval` does is said once, in its source. The script is made of that source, so these
functions find it: the text of a function or lambda, its globals and closure, and how a value is
written down as an expression.
"""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import math
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

OPERATORS: dict[Any, type[ast.operator]] = {
    np.add: ast.Add, np.subtract: ast.Sub, np.multiply: ast.Mult, np.divide: ast.Div,
    np.floor_divide: ast.FloorDiv, np.remainder: ast.Mod, np.power: ast.Pow,
    np.matmul: ast.MatMult, np.bitwise_and: ast.BitAnd, np.bitwise_or: ast.BitOr,
    np.bitwise_xor: ast.BitXor,
}
COMPARISONS: dict[Any, type[ast.cmpop]] = {
    np.equal: ast.Eq, np.not_equal: ast.NotEq, np.less: ast.Lt, np.less_equal: ast.LtE,
    np.greater: ast.Gt, np.greater_equal: ast.GtE,
}
MOST_WRITTEN = 24            # elements of an array that are written inside an expression


class Unwritable(Exception):
    """Something that cannot be said in a script of NumPy alone."""


def name_of(text: str) -> ast.Name:
    return ast.Name(text, ast.Load())


def numpy_name(text: str) -> ast.expr:
    """np.<text>, where the text may have dots."""
    found: ast.expr = name_of("np")
    for part in text.split("."):
        found = ast.Attribute(found, part, ast.Load())
    return found


def called(function: ast.expr, *args: ast.expr, **options: ast.expr) -> ast.Call:
    return ast.Call(function, list(args), [ast.keyword(k, v) for k, v in options.items()])


def literal(value: Any) -> ast.expr:
    """An expression for a value: numbers, strings, tuples, slices, dtypes, small arrays."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is Ellipsis or isinstance(value, (bool, str)):
        return ast.Constant(value)
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, tuple):
        return ast.Tuple([literal(one) for one in value], ast.Load())
    if isinstance(value, list):
        return ast.List([literal(one) for one in value], ast.Load())
    if isinstance(value, slice):
        return called(name_of("slice"), *map(literal, (value.start, value.stop, value.step)))
    if isinstance(value, np.dtype):
        return numpy_name("bool" if value.kind == "b" else value.name)
    if isinstance(value, type) and issubclass(value, np.generic):
        return literal(np.dtype(value))
    if isinstance(value, np.ndarray) and value.size <= MOST_WRITTEN:
        return array_literal(value)
    found = numpy_path(value)
    if found:
        return numpy_name(found)
    raise Unwritable(f"{type(value).__name__} {value!r:.60}")


def number(value: float) -> ast.expr:
    if isinstance(value, float) and not math.isfinite(value):
        name = numpy_name("nan" if value != value else "inf")
        return ast.UnaryOp(ast.USub(), name) if value < 0 else name
    if value < 0 or (value == 0 and math.copysign(1, value) < 0):
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)


def array_literal(value: Any) -> ast.expr:
    """np.array([...]), with its dtype where NumPy would guess another."""
    if value.ndim == 0:                  # a Python number takes the dtype of what it meets
        return literal(value[()])
    listed = literal(value.tolist())
    if value.size and np.array(value.tolist()).dtype == value.dtype:
        return called(numpy_name("array"), listed)
    made = called(numpy_name("array"), listed, dtype=literal(value.dtype))
    if value.size:
        return made
    return called(ast.Attribute(made, "reshape", ast.Load()), literal(value.shape))


def numpy_path(value: Any) -> str:
    """`add` for np.add, `lib.stride_tricks.sliding_window_view`; '' for what is not NumPy's."""
    name = getattr(value, "__name__", "")
    if not name:
        return ""
    if getattr(np, name, None) is value:
        return str(name)
    module = getattr(value, "__module__", "") or ""
    if module.startswith("numpy.lib") and getattr(
            np.lib.stride_tricks, name, None) is value:
        return f"lib.stride_tricks.{name}"
    if module.startswith("numpy.linalg") and getattr(np.linalg, name, None) is value:
        return f"linalg.{name}"
    return ""


def index_expression(key: Any) -> ast.expr:
    """What stands between [ and ]: slices are written with colons there."""
    if isinstance(key, tuple) and len(key) == 1 and not isinstance(key[0], tuple):
        return index_expression(key[0])
    if isinstance(key, tuple):
        return ast.Tuple([index_expression(one) for one in key], ast.Load())
    if isinstance(key, slice):
        lower, upper, step = (None if one is None else literal(one)
                              for one in (key.start, key.stop, key.step))
        return ast.Slice(lower, upper, step)
    return literal(key)


# ---------------------------------------------------------------- where a function stands


@lru_cache(maxsize=64)
def module_tree(file: str) -> ast.Module:
    with open(file, encoding="utf-8") as opened:
        return ast.parse(opened.read())


def tree_of(function: FunctionType) -> ast.FunctionDef:
    """The definition of a function; a lambda as one that returns its expression. Not to change."""
    return tree_of_code(function.__code__)


@lru_cache(maxsize=1024)
def tree_of_code(code: CodeType) -> ast.FunctionDef:
    try:
        tree = module_tree(code.co_filename)
    except OSError as error:
        raise Unwritable(f"{code.co_name}: its source {code.co_filename} is not here") from error
    wanted = ast.Lambda if code.co_name == "<lambda>" else ast.FunctionDef
    found = [node for node in ast.walk(tree) if isinstance(node, wanted)
             and first_line(node) == code.co_firstlineno]
    if len(found) > 1:
        found = [node for node in found if holds(node, code)]
    if not found:
        raise Unwritable(f"{code.co_name}: its source is not where its code says")
    node = found[-1]
    if isinstance(node, ast.Lambda):
        body: list[ast.stmt] = [ast.Return(node.body)]
        made = ast.FunctionDef(name="function", args=node.args, body=body, decorator_list=[],
                               returns=None)
        made.type_params = []  # type: ignore[attr-defined,unused-ignore]
        return made
    assert isinstance(node, ast.FunctionDef)
    return node


def first_line(node: Any) -> int:
    decorators = getattr(node, "decorator_list", ())
    return int(decorators[0].lineno if decorators else node.lineno)


def holds(node: Any, code: CodeType) -> bool:
    """Do the places of the code's instructions lie in this lambda, and in its body?"""
    body = node.body if isinstance(node, ast.Lambda) else node.body[0]
    places = [(line, column) for line, _, column, _ in code.co_positions()
              if line is not None and column is not None and (line, column) != (
                  code.co_firstlineno, 0)]
    start = (body.lineno, body.col_offset)
    last = body if isinstance(node, ast.Lambda) else node.body[-1]
    end = (last.end_lineno, last.end_col_offset)
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    count = code.co_argcount + code.co_kwonlyargcount
    return names == list(code.co_varnames[:count]) and all(
        start <= place <= end for place in places)


def surroundings(function: FunctionType) -> dict[str, Any]:
    """What the free names of a function mean: its globals, then its closure."""
    scope = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        scope[name] = cell.cell_contents
    return scope


def without_annotations(tree: ast.FunctionDef) -> ast.FunctionDef:
    tree = copy.deepcopy(tree)
    tree.returns = None
    tree.decorator_list = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        for field, old in ast.iter_fields(node):
            if isinstance(old, list):
                setattr(node, field, [
                    ast.Assign([one.target], one.value) if isinstance(one, ast.AnnAssign)
                    and one.value is not None else one for one in old])
    return tree


def parameters(function: FunctionType, args: list[Any], options: dict[str, Any]
               ) -> dict[str, Any]:
    """Arguments by name, defaults filled in."""
    try:
        bound = inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        raise Unwritable(f"{function.__name__}: {error}") from error
    bound.apply_defaults()
    return dict(bound.arguments)


def local_names(tree: ast.FunctionDef) -> set[str]:
    """Names that a function binds."""
    found = {a.arg for node in ast.walk(tree) if isinstance(node, ast.arguments)
             for a in (*node.posonlyargs, *node.args, *node.kwonlyargs,
                       *filter(None, (node.vararg, node.kwarg)))}
    found |= {node.id for node in ast.walk(tree)
              if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return found


def only_checks(function: FunctionType) -> bool:
    """Does it return nothing and write nothing, so that all it can do is raise?"""
    tree = tree_of(function)
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None:
            return False
        if isinstance(node, (ast.Global, ast.Nonlocal, ast.Delete)):
            return False
        if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(
                node.ctx, ast.Load):
            return False
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def builtin_error(value: Any) -> str:
    """The builtin exception that an error class of this package also is."""
    if isinstance(value, type) and issubclass(value, Exception):
        for base in value.__mro__:
            if base.__module__ == "builtins" and base is not Exception:
                return base.__name__
    return ""


def is_builtin(name: str) -> bool:
    return hasattr(builtins, name)


def is_numpy(value: Any) -> bool:
    return isinstance(value, ModuleType) and value is np
