"""What the tensors of a graph are called: as the user calls them, wherever that can be found out.

In this order: names given to `explain`, the parameters of a model, `tensor.name`, the variables of
the caller, and the variable to which the recorded line assigned its result.
"""

from __future__ import annotations

import ast
import dis
import itertools
import linecache
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np

from chainrule.core.errors import SettingError
from chainrule.core.node import Node, storage_of
from chainrule.nn.module import Module
from chainrule.prims.show import same
from chainrule.tensor import Tensor

SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
MOST_ITEMS = 64          # longer lists of a caller's variables are not searched


class Names:
    """The names of tracked tensors (by node) and of constants (by memory)."""

    def __init__(self, given: Mapping[Any, Any] | None, model: Any,
                 scope: Mapping[str, Any]) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise SettingError(f"explain(names=...) wants a dict of name and tensor, got "
                               f"{given!r:.60}")
        if model is not None and not isinstance(model, Module):
            raise SettingError(f"explain(model=...) wants an nn.Module, got {model!r:.60}")
        self.of_node: dict[Node, str] = {}
        self.modules: dict[int, str] = {}
        self.places: dict[Any, Any] = {}         # places by instruction and call, as found so far
        self._constants: list[tuple[Any, str]] = []
        for name, tensor in named(given, model, scope):
            self._add(name, tensor)
        for name, value in modules_in(model, scope):
            for path, part in value.named_modules():
                self.modules.setdefault(id(part), joined(name, path))

    def _add(self, name: str, tensor: Any) -> None:
        name = " ".join(name.split())        # a name stands inside lines and comments
        if not name:
            return
        if isinstance(tensor, Tensor) and tensor._node is not None:
            self.of_node.setdefault(tensor._node, name)
            return
        value = tensor._value if isinstance(tensor, Tensor) else tensor
        if isinstance(value, np.ndarray):
            self._constants.append((value, name))

    def constant(self, value: Any) -> tuple[str | None, Any]:
        """The name of the variable with this memory, reshaped or transposed, and its array."""
        for known, name in self._constants:
            if known is value:
                return name, known
        for known, name in self._constants:
            if known.size != value.size or storage_of(known) is not storage_of(value):
                continue
            if known.ctypes.data != value.ctypes.data:
                continue
            if known.ndim > 1 and (known.T.shape, known.T.strides) == (value.shape, value.strides):
                return f"{name}ᵀ", known
            if known.flags.c_contiguous and value.flags.c_contiguous:
                return name, known
        return None, None

    def settle(self, nodes: Iterable[Node]) -> None:
        """Name what has none yet, from the assignments; tell apart what shares a name."""
        ordered = list(nodes)
        self._called(ordered)
        place: Any = None
        parts: list[Node] = []            # what one execution of one instruction recorded
        for node in ordered:
            if node.name == "broadcast":
                continue
            here = (node.code, node.lasti, outermost(node.scope))
            again = [n.name for n in parts if n.prim is None or n.prim.show is not same] == [
                node.name]
            if here != place or again:
                self._assigned(parts)
                parts = []
            parts.append(node)
            place = here
        self._assigned(parts)
        shared = Counter(self.of_node[n] for n in ordered if n in self.of_node)
        seen: Counter[str] = Counter()
        for node in ordered:
            name = self.of_node.get(node)
            if name is not None and shared[name] > 1:
                seen[name] += 1
                self.of_node[node] = name + str(seen[name]).translate(SUBSCRIPT)

    def _called(self, nodes: Iterable[Node]) -> None:
        """Modules that no variable holds (those of a function that has returned): they are known
        from the calls that were recorded. One is `model`, others have the names of their types."""
        found: dict[int, Any] = {}
        for node in nodes:
            scope = node.scope
            while scope is not None and scope[0] is not None:
                scope = scope[0]
            if scope is not None and scope[1] is not None and id(scope[1]) not in self.modules:
                found.setdefault(id(scope[1]), scope[1])
        kinds = Counter(type(module).__name__ for module in found.values())
        seen: Counter[str] = Counter()
        for module in found.values():
            kind = type(module).__name__
            seen[kind] += 1
            prefix = kind.lower() + (str(seen[kind]) if kinds[kind] > 1 else "")
            if len(found) == 1 and any(True for _ in module.parameters()):
                plain = not any(path[:1].isdigit() for path, _ in module.named_children())
                prefix = "" if plain and any(True for _ in module.children()) else "model"
            for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
                self._add(joined(prefix, path), tensor)
            for path, part in module.named_modules():
                self.modules.setdefault(id(part), joined(prefix, path))

    def _assigned(self, parts: list[Node]) -> None:
        """Name the last of `parts` after the variable that got it."""
        if parts and parts[-1] not in self.of_node and parts[-1].code is not None:
            name = assigned_name(parts[-1].code, parts[-1].lasti)
            if name:
                self.of_node[parts[-1]] = name

    def unnamed(self, letter: str) -> Iterator[str]:
        """v1, v2, ... as far as the user has not taken them."""
        used = {*self.of_node.values(), *(name for _, name in self._constants)}
        return (name for name in map(f"{letter}{{}}".format, itertools.count(1))
                if name not in used)


def outermost(scope: Any) -> int:
    """Which call of a module, of those the user wrote, was running."""
    while scope is not None and scope[0] is not None:
        scope = scope[0]
    return id(scope)


# ---------------------------------------------------------------- where names come from


def named(given: Mapping[Any, Any] | None, model: Any,
          scope: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Pairs of name and tensor, those that count most first."""
    for key, value in (given or {}).items():
        name, tensor = (key, value) if isinstance(key, str) else (value, key)
        if not isinstance(name, str) or not isinstance(tensor, (Tensor, np.ndarray)):
            raise SettingError(f"explain(names=...) wants a dict of name and tensor, got "
                               f"{key!r:.40}: {value!r:.40}")
        yield name, tensor
    for prefix, module in modules_in(model, scope):
        for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
            yield joined(prefix, path), tensor
    for _, tensor in tensors_in(scope):
        if isinstance(tensor, Tensor) and tensor.name:
            yield tensor.name, tensor
    yield from tensors_in(scope)


def modules_in(model: Any, scope: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The modules whose parameters are named, each with the prefix its paths get.

    One module needs no prefix, unless its paths start with a number as those of Sequential do.
    """
    found = [(name, value) for name, value in scope.items()
             if isinstance(value, Module) and not name.startswith("_")]
    known = {id(value) for _, value in found}
    for name, value in modules_held(scope):
        if id(value) not in known:
            known.add(id(value))
            found.append((name, value))
    if model is not None:
        own = [name for name, value in found if value is model]
        found = [((own or ["model"])[0], model), *[f for f in found if f[1] is not model]]
    inner = {id(part) for _, value in found for part in value.modules() if part is not value}
    outer = [(name, value) for name, value in found if id(value) not in inner]
    if len(outer) == 1 and not any(path[:1].isdigit() for path, _ in outer[0][1].named_children()):
        return [("", outer[0][1])]
    return outer


def modules_held(scope: Mapping[str, Any]) -> Iterator[tuple[str, Module]]:
    """Modules in the lists and dicts of a caller, `nets[0]`, and on a `self` that is no module."""
    variables = [(name, value) for name, value in scope.items() if not name.startswith("_")]
    own = scope.get("self")
    if own is not None and not isinstance(own, Module) and hasattr(own, "__dict__"):
        variables += [(f"self.{name}", value) for name, value in vars(own).items()]
    for name, value in variables:
        if isinstance(value, Module) and name.startswith("self."):
            yield name, value
        elif type(value) in (list, tuple, dict) and len(value) <= MOST_ITEMS:
            items = value.items() if type(value) is dict else enumerate(value)
            for key, item in items:
                if isinstance(item, Module):
                    yield f"{name}[{key!r}]", item


def joined(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path


def tensors_in(scope: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors and arrays among variables, in their lists and dicts, and on `self`."""
    held: list[tuple[str, Any]] = []
    for name, value in scope.items():
        if name.startswith("_"):
            continue
        if isinstance(value, (Tensor, np.ndarray)):
            yield name, value
        elif isinstance(value, (list, tuple)) and len(value) <= MOST_ITEMS:
            held += [(f"{name}[{i}]", item) for i, item in enumerate(value)]
        elif type(value) is dict and len(value) <= MOST_ITEMS:
            held += [(key if isinstance(key, str) else f"{name}[{key!r}]", item)
                     for key, item in value.items()]
        elif name == "self" and hasattr(value, "__dict__") and not isinstance(value, Module):
            held += [(f"self.{key}", item) for key, item in vars(value).items()]
    for name, value in held:
        if isinstance(value, (Tensor, np.ndarray)):
            yield name, value
        elif isinstance(value, (list, tuple)) and len(value) <= MOST_ITEMS:      # [[w1, b1], ...]
            for i, item in enumerate(value):
                if isinstance(item, (Tensor, np.ndarray)):
                    yield f"{name}[{i}]", item


def scope_of(frame: Any) -> dict[str, Any]:
    """The variables of the function that is running in `frame`, then those of its module."""
    if frame is None:
        return {}
    return {**frame.f_locals, **{k: v for k, v in frame.f_globals.items()
                                 if k not in frame.f_locals}}


# ---------------------------------------------------------------- what a line assigned


@lru_cache(maxsize=256)
def assignments(code: CodeType) -> dict[int, str]:
    """For each instruction the variable in which the next one stores its result."""
    listed = list(dis.get_instructions(code))
    result = {}
    for this, following in itertools.pairwise(listed):
        operation, name = following.opname, following.argval
        if operation.startswith("STORE_") and any(
                kind in operation for kind in ("FAST", "NAME", "GLOBAL", "DEREF")):
            # while a call runs, the caller's offset is that of the last cache entry of its CALL
            for offset in range(this.offset, following.offset, 2):
                result[offset] = name[0] if isinstance(name, tuple) else name
    return result


def assigned_name(code: CodeType, offset: int) -> str:
    """`z` for the instruction that computes the value of the statement `z = w * x + b`."""
    name = assignments(code).get(offset, "")
    return "" if name.startswith("_") else name


# ---------------------------------------------------------------- conditions in the user's line

COMPARED = {ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥", ast.Eq: "=", ast.NotEq: "≠"}
SELECTING = ("where", "masked_fill", "masked_fill_", "mul", "multiply")
JOINED = {ast.BitAnd: "and", ast.BitOr: "or"}


def condition_text(code: CodeType | None, offset: int) -> str:
    """`[w > 1]` for the instruction of `where(w > 1, a, b)`; '' if there is no one condition."""
    expression = expression_at(code, offset)
    if isinstance(expression, ast.Call) and _called(expression) in SELECTING:
        parts = [*expression.args, *[k.value for k in expression.keywords]]
        if isinstance(expression.func, ast.Attribute):
            parts.append(expression.func.value)
    elif isinstance(expression, ast.BinOp):
        parts = [expression.left, expression.right]
    else:
        return ""
    found = [text for text in map(_condition, parts) if text]
    return found[0] if len(found) == 1 else ""


def operand_text(code: CodeType | None, offset: int, i: int) -> str:
    """`t`, the second operand of the instruction of `y - t`, if it is a name or an element."""
    expression = expression_at(code, offset)
    if not isinstance(expression, ast.BinOp):
        return ""
    part = (expression.left, expression.right)[i] if i < 2 else None
    simple = isinstance(part, (ast.Name, ast.Attribute, ast.Subscript))
    return ast.unparse(part) if simple and part is not None else ""


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _condition(part: ast.expr) -> str:
    """A comparison, or several joined by ~, & and |; '' for anything else."""
    if isinstance(part, ast.Compare) and len(part.ops) == 1 and type(part.ops[0]) in COMPARED:
        left, right = ast.unparse(part.left), ast.unparse(part.comparators[0])
        return f"[{left} {COMPARED[type(part.ops[0])]} {right}]"
    if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.Invert):
        inner = _condition(part.operand)
        return f"(not {inner})" if inner else ""
    if isinstance(part, ast.BinOp) and type(part.op) in JOINED:
        left, right = _condition(part.left), _condition(part.right)
        return f"({left} {JOINED[type(part.op)]} {right})" if left and right else ""
    return ""


@lru_cache(maxsize=256)
def expression_at(code: CodeType | None, offset: int) -> ast.expr | None:
    """The expression that an instruction computes, read from the source file."""
    if code is None or offset < 0:
        return None
    places = list(code.co_positions())
    if offset // 2 >= len(places):
        return None
    first, last, start, end = places[offset // 2]
    lines = linecache.getlines(code.co_filename)
    if first is None or last is None or start is None or end is None or last > len(lines):
        return None
    texts = [line.encode() for line in lines[first - 1:last]]
    texts[-1] = texts[-1][:end]
    texts[0] = texts[0][start:]
    try:
        return ast.parse(b"(" + b"".join(texts) + b"\n)", mode="eval").body
    except SyntaxError:
        return None
