"""What the user's code calls a thing, and the line where it gets there: from the running frames."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections import deque
from collections.abc import Collection, Iterator
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import reachable
from chainrule.core.node import Node, Origin, is_internal
from chainrule.core.places import NOWHERE
from chainrule.nn import Module
from chainrule.optim import Optimizer
from chainrule.tensor import Tensor

DEPTH = 4                 # containers within containers
MOST = 20_000             # things looked at for one question
REFERENCES = 3            # to a frame's snapshot: the frame's, ours, and that of the question
GROWING = ("append", "appendleft", "extend", "insert", "add", "update", "setdefault")


def frames() -> Iterator[FrameType]:
    """The user's frames, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_internal(frame.f_code.co_filename) and "importlib" not in \
                frame.f_code.co_filename:
            yield frame
        frame = frame.f_back


def variables_of(frame: FrameType) -> dict[str, Any]:
    """The variables of a frame. Asking leaves a snapshot in a function's frame, which would keep
    alive what the function deletes: it is emptied, unless a debugger may write it back.
    """
    found = frame.f_locals
    copied = dict(found)
    # Not if it is the user's too, who has called locals().
    if frame.f_code.co_flags & inspect.CO_OPTIMIZED and type(found) is dict \
            and sys.gettrace() is None and sys.getrefcount(found) <= REFERENCES:
        found.clear()
    return copied


def named(thing: Any) -> tuple[str, Origin]:
    """The name of a variable that holds a tensor, array or module, and the line that set it.

    ('', NOWHERE) if no variable of the running functions does.
    """
    for frame in frames():
        for name, value in variables_of(frame).items():
            if _same(value, thing):
                return name, assigned(frame, name)
            for attribute, inner in _attributes(value):
                if _same(inner, thing):
                    return f"{name}.{attribute}", _grown(frame, f"{name}.{attribute}")
    return "", NOWHERE


def _same(value: Any, thing: Any) -> bool:
    if value is thing:
        return True
    if issubclass(type(value), Tensor):
        value = value._value
    if issubclass(type(thing), Tensor):
        thing = thing._value
    return type(value) is np.ndarray and type(thing) is np.ndarray and (
        value is thing or (value.size > 1 and value.size == thing.size      # or a reshape of it
                           and value.ctypes.data == thing.ctypes.data))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object of a class of the user's holds. Whatever it does when it is looked at (lazy
    objects, mocks) is its own affair: then it holds nothing.
    """
    kind = type(value)                # not isinstance, which asks the object for its __class__
    if issubclass(kind, (type, Tensor, Optimizer)):
        return
    try:
        held = list(object.__getattribute__(value, "__dict__").items())
        if issubclass(kind, Module):
            held = [*value._modules.items(), *held]
        elif is_internal(getattr(sys.modules.get(kind.__module__), "__file__", "") or ""):
            return
    except Exception:  # noqa: BLE001  (any code of the user's)
        return
    yield from ((key, inner) for key, inner in held if type(key) is str)


def keeper(nodes: Collection[Node]) -> tuple[str, Origin]:
    """The variable that keeps these nodes alive, by tensors in it, and the line that adds to it."""
    wanted = set(nodes)
    for frame in frames():
        for name, value in variables_of(frame).items():
            found = _holding(value, name, wanted)
            if found:
                return found, _grown(frame, found)
    return "", NOWHERE


def carried(frame: FrameType) -> tuple[str, Origin]:
    """The variable that is computed from itself and leads to a graph that is used up: a state that
    is carried from one step to the next; and the line that does so.
    """
    for name, value in variables_of(frame).items():
        known = [(name, value), *((f"{name}.{key}", inner) for key, inner in _attributes(value))]
        for path, inner in known:
            if _used_up(inner):
                place = _grown(frame, path)
                if place.file:
                    return path, place
    return "", NOWHERE


def _used_up(value: Any) -> bool:
    """Is it a tensor, or a few, whose graph a backward pass has been through?"""
    if type(value) in (tuple, list) and len(value) <= 4:
        return any(map(_used_up, value))
    if not issubclass(type(value), Tensor) or value._node is None or value.numel() < 2:
        return False
    return any(node.freed is not None for node in reachable([value._node]))


def _holding(start: Any, name: str, wanted: set[Node]) -> str:
    """`name`, or name.attribute, if something in there leads to one of the nodes."""
    waiting, seen = deque([(start, name, 0)]), 0
    while waiting and seen < MOST:
        value, path, depth = waiting.popleft()
        seen += 1
        if issubclass(type(value), Tensor):
            if value._node is not None and (value._node in wanted or (
                    value._node.prim is not None
                    and not wanted.isdisjoint(reachable([value._node])))):
                return path
            continue
        if depth == DEPTH:
            continue
        if issubclass(type(value), dict):
            waiting += [(inner, path, depth + 1) for inner in dict.values(value)]
        elif type(value) in (list, tuple, deque, set) or issubclass(type(value), (list, tuple)):
            # Not by its own __iter__, which may be anything.
            kind = list if issubclass(type(value), list) else (
                tuple if issubclass(type(value), tuple) else type(value))
            waiting += [(inner, path, depth + 1) for inner in kind.__iter__(value)]
        elif depth < 2:
            waiting += [(inner, f"{path}.{key}", depth + 1) for key, inner in _attributes(value)]
    return ""


# ---------------------------------------------------------------- in the source


@lru_cache(maxsize=32)
def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _statements(frame: FrameType) -> Iterator[ast.stmt]:
    tree = _parsed("".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals)))
    return iter(()) if tree is None else (
        node for node in ast.walk(tree) if isinstance(node, ast.stmt))


def assigned(frame: FrameType, name: str) -> Origin:
    """The line of the frame's function that last gave `name` its value, before the running one."""
    code = frame.f_code
    lines = [line for statement in _own(frame) for line in _sets(statement, name)]
    before = [line for line in lines if line <= frame.f_lineno]
    line = max(before or lines, default=0)
    return Origin(code.co_filename, line, code.co_name, "") if line else NOWHERE


def _own(frame: FrameType) -> Iterator[ast.stmt]:
    """The statements of the frame's function, without those of functions and classes in it."""
    code = frame.f_code
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    waiting: list[ast.AST] = []
    tree = _parsed("".join(linecache.getlines(code.co_filename, frame.f_globals)))
    if tree is not None and code.co_name == "<module>":
        waiting = list(tree.body)
    elif tree is not None:
        # A function's code begins at its first decorator.
        waiting = [statement for node in ast.walk(tree) if isinstance(node, inner[:2])
                   and node.name == code.co_name and min(
                       [node.lineno, *(d.lineno for d in node.decorator_list)]
                   ) == code.co_firstlineno for statement in node.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, inner):
            waiting += ast.iter_child_nodes(node)


def _sets(statement: ast.stmt, name: str) -> Iterator[int]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)):
        targets = [statement.target]           # a loop's head says nothing about its values
    elif isinstance(statement, (ast.With, ast.AsyncWith)):
        targets = [item.optional_vars for item in statement.items if item.optional_vars]
    for target in targets:
        if any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(target)):
            yield statement.lineno


def _grown(frame: FrameType, path: str) -> Origin:
    """The line that puts something into a variable or, anywhere in the file, into an attribute."""
    _, dot, name = path.rpartition(".")
    places = [_statements(frame)] if dot else [_own(frame)]
    if not dot and frame.f_code.co_name == "<module>":       # functions reach it, too
        places.append(_statements(frame))
    for statements in places:
        lines = sorted((not _appends(statement, name), statement.lineno)
                       for statement in statements
                       if _appends(statement, name) or (
                           statements is places[0] and _carries(statement, name)))
        if lines:
            return Origin(frame.f_code.co_filename, lines[0][1], frame.f_code.co_name, "")
    return NOWHERE


def _ends_in(expression: ast.expr, name: str) -> bool:
    """Is `name` the variable or attribute that is reached here, perhaps by an index?"""
    while isinstance(expression, ast.Subscript):
        expression = expression.value
    return (isinstance(expression, ast.Name) and expression.id == name) or (
        isinstance(expression, ast.Attribute) and expression.attr == name)


def _appends(statement: ast.stmt, name: str) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        called = statement.value.func
        return isinstance(called, ast.Attribute) and called.attr in GROWING and _ends_in(
            called.value, name)
    if isinstance(statement, ast.AugAssign):
        return _ends_in(statement.target, name)
    return isinstance(statement, ast.Assign) and any(
        isinstance(target, ast.Subscript) and _ends_in(target, name)
        for target in statement.targets)


def _carries(statement: ast.stmt, name: str) -> bool:
    """`total = total + loss`, and other values made of what was there before."""
    return isinstance(statement, ast.Assign) and any(
        isinstance(part, ast.expr) and _ends_in(part, name)
        for target in statement.targets for part in ast.walk(target)) and any(
        isinstance(part, (ast.Name, ast.Attribute)) and _ends_in(part, name)
        for part in ast.walk(statement.value))
