"""A `Graph`: recorded nodes, closed. It can be checked, evaluated, printed and read back.

    graph(a: f32[2,3], b: f32[3]):
      c: f32[2,3] = broadcast(b, shape=(2, 3))
      d: f32[2,3] = add(a, c)
      return d
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .bind import Value, state
from .config import settings
from .errors import GraphError
from .node import Node
from .primitive import TABLE
from .record import new, placeholder
from .types import BY_SHORT_NAME, SHORT_NAMES, ArrayType, parse_type, type_of


class Graph:
    """Nodes in the order they were recorded, from `inputs` (placeholders) to `outputs`.

    Operands are nodes of the graph, constant arrays or Python numbers.
    """

    def __init__(self, inputs: Sequence[Node], nodes: Sequence[Node],
                 outputs: Sequence[Any]) -> None:
        self.inputs = tuple(inputs)
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        if settings.verify:
            self.verify()
        if "graph" in settings.show:
            sys.stderr.write(self.to_text())

    @staticmethod
    def of(outputs: Sequence[Any], inputs: Sequence[Any]) -> Graph:
        """The graph between traced tensors."""
        starts = [x._node for x in inputs]
        roots = [y._node for y in outputs if y._node is not None]
        seen, stack = set(roots), list(roots)
        while stack:
            for edge in stack.pop().inputs:
                if edge is not None and edge not in seen:
                    seen.add(edge)
                    stack.append(edge)
        nodes = sorted((n for n in seen if n.prim is not None), key=lambda n: n.seq)
        return Graph(starts, nodes,
                     [y._node if y._node is not None else y._value for y in outputs])

    # ------------------------------------------------------------ checking

    def verify(self) -> None:
        """Raise GraphError unless every node uses what was defined before it, has the type its
        row infers, and is what the outputs name."""
        defined: set[Node] = set(self.inputs)
        if len(defined) != len(self.inputs):
            raise GraphError("two inputs of the graph are one node")
        for position, node in enumerate(self.nodes):
            if node.prim is None:
                raise self._fault(position, "a leaf that is not an input")
            if TABLE.get(node.prim.name) is not node.prim:
                raise self._fault(position, f"{node.prim.name} is not a row of the table")
            if node in defined:
                raise self._fault(position, "it is defined twice")
            if len(node.saved) != len(node.inputs):
                raise self._fault(position, f"{len(node.inputs)} edges for {len(node.saved)} "
                                  "operands")
            for i, edge in enumerate(node.inputs):
                if edge is not None and edge not in defined:
                    raise self._fault(position, f"operand {i} is used before it is defined")
            try:
                inferred = node.prim.infer(*map(_operand_type, operands_of(node)), **node.params)
            except (TypeError, ValueError, IndexError) as error:
                raise self._fault(position, f"its row refuses the operands: {error}") from error
            if inferred != node.type:
                raise self._fault(position, f"it is said to be {node.type}, its row infers "
                                  f"{inferred}")
            defined.add(node)
        for i, out in enumerate(self.outputs):
            if isinstance(out, Node) and out not in defined:
                raise GraphError(f"output {i} of the graph is not defined in it\n{self.to_text()}")

    def _fault(self, position: int, what: str) -> GraphError:
        lines = list(self._lines())
        first = max(0, position - 5)
        shown = [f"{'>' if i == position else ' '} {line}"
                 for i, line in enumerate(lines[first:position + 5], first)]
        return GraphError(f"node {position} of the graph is wrong: {what}\n" + "\n".join(shown))

    # ------------------------------------------------------------ meaning

    def evaluate(self, *arrays: Any) -> list[Any]:
        """The outputs for these inputs, each row by its NumPy evaluation: the meaning."""
        if len(arrays) != len(self.inputs):
            raise GraphError(f"the graph has {len(self.inputs)} inputs, {len(arrays)} were given")
        env: dict[Node, Any] = {}
        for i, (node, array) in enumerate(zip(self.inputs, arrays, strict=True)):
            if type_of(array) != node.type:
                raise GraphError(f"input {i} of the graph is {node.type}, {type_of(array)} was "
                                 "given")
            env[node] = np.asarray(array)
        for node in self.nodes:
            assert node.prim is not None
            xs = [env[x] if isinstance(x, Node) else x for x in operands_of(node)]
            env[node] = np.asarray(node.prim.eval(*xs, **node.params))
        return [env[out] if isinstance(out, Node) else out for out in self.outputs]

    # ------------------------------------------------------------ text

    def _names(self) -> dict[Node, str]:
        return {node: letters(i) for i, node in enumerate((*self.inputs, *self.nodes))}

    def _lines(self) -> Iterator[str]:
        names = self._names()
        for node in self.nodes:
            parts = [operand_text(x, names) for x in operands_of(node)]
            parts += [f"{key}={param_text(value)}" for key, value in node.params.items()]
            yield f"{names[node]}: {node.type} = {node.name}({', '.join(parts)})"

    def to_text(self) -> str:
        """The graph as text that `from_text` reads back."""
        names = self._names()
        heads = ", ".join(f"{names[node]}: {node.type}" for node in self.inputs)
        outs = ", ".join(operand_text(out, names) for out in self.outputs)
        body = "".join(f"  {line}\n" for line in self._lines())
        return f"graph({heads}):\n{body}  return {outs}\n"

    __str__ = to_text

    def __len__(self) -> int:
        return len(self.nodes)

    @staticmethod
    def from_text(text: str) -> Graph:
        """The graph a text stands for.

        >>> text = "graph(a: f32[2]):\\n  b: f32[2] = tanh(a)\\n  return b\\n"
        >>> Graph.from_text(text).to_text() == text
        True
        """
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].startswith("graph(") or not lines[0].endswith("):"):
            raise GraphError("the text of a graph starts with graph(name: type, ...):")
        env: dict[str, Any] = {}
        inputs = []
        for head in _split(lines[0][len("graph("):-2]):
            name, _, kind = head.partition(":")
            env[name.strip()] = placeholder(parse_type(kind))
            inputs.append(env[name.strip()])
        before, state.recording = state.recording, 1
        try:
            for line in lines[1:-1]:
                _read_line(line, env)
        finally:
            state.recording = before
        if not lines[-1].startswith("return "):
            raise GraphError(f"the last line must return something: {lines[-1]!r}")
        outputs = [_value(ast.parse(out, mode="eval").body, env)
                   for out in _split(lines[-1][len("return "):])]
        nodes = sorted({x._node for x in env.values()} - {x._node for x in inputs},
                       key=lambda n: n.seq)
        return Graph([x._node for x in inputs], nodes,
                     [y._node if isinstance(y, Value) else y for y in outputs])  # type: ignore[attr-defined]


def trace(function: Callable[..., Any], *types: ArrayType) -> Graph:
    """The graph of a function of tensors, run once without numbers.

    >>> import chainrule as cr
    >>> print(trace(lambda x: x.tanh() * 2, ArrayType((3,))))
    graph(a: f32[3]):
      b: f32[3] = tanh(a)
      c: f32[3] = mul(b, 2)
      return c
    <BLANKLINE>
    """
    inputs = [placeholder(t) for t in types]
    before = state.tracing, state.recording
    state.tracing, state.recording = "trace", 1
    try:
        result = function(*inputs)
    finally:
        state.tracing, state.recording = before
    return Graph.of(result if isinstance(result, (tuple, list)) else [result], inputs)


def operands_of(node: Node) -> list[Any]:
    """The operands: nodes, constant arrays and numbers."""
    return [edge if edge is not None else saved._value if isinstance(saved, Value) else saved  # type: ignore[attr-defined]
            for edge, saved in zip(node.inputs, node.saved, strict=True)]


def _operand_type(x: Any) -> ArrayType | None:
    return type_of(x) if hasattr(x, "shape") else None


def letters(i: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    name = ""
    i += 1
    while i:
        i, rest = divmod(i - 1, 26)
        name = chr(ord("a") + rest) + name
    return f"{name}_" if name in ("in", "is", "if", "or", "as", "inf", "nan", "not", "and", "for") \
        else name


def operand_text(x: Any, names: dict[Node, str]) -> str:
    if isinstance(x, Node):
        return names.get(x, "?")
    if isinstance(x, np.ndarray):
        return f"{SHORT_NAMES[x.dtype]}({param_text(x.tolist())}, {list(x.shape)})"
    return param_text(x)


def param_text(value: Any) -> str:
    """A parameter as text; floats round-trip."""
    if isinstance(value, np.dtype):
        return SHORT_NAMES[value]
    if isinstance(value, tuple):
        inner = ", ".join(map(param_text, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, list):
        return f"[{', '.join(map(param_text, value))}]"
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    return repr(value)


def _split(text: str) -> list[str]:
    """Parts between commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and not depth:
            parts.append(text[start:i])
            start = i + 1
    return [p.strip() for p in (*parts, text[start:]) if p.strip()]


def _read_line(line: str, env: dict[str, Any]) -> None:
    head, equals, call = line.partition(" = ")
    name, colon, kind = head.partition(":")
    if not equals or not colon:
        raise GraphError(f"cannot read the line {line!r}: write name: type = row(operands)")
    tree = ast.parse(call, mode="eval").body
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise GraphError(f"cannot read the line {line!r}: write name: type = row(operands)")
    prim = TABLE.get(tree.func.id)
    if prim is None:
        raise GraphError(f"{tree.func.id!r} is not a row of the table")
    xs = [_value(a, env) for a in tree.args]
    params = {str(k.arg): _value(k.value, env) for k in tree.keywords}
    result = prim(*xs, **params)
    wanted = parse_type(kind)
    if type_of(result) != wanted:
        raise GraphError(f"{name.strip()} is said to be {wanted}, {prim.name} gives "
                         f"{type_of(result)}")
    env[name.strip()] = result


def _value(tree: ast.expr, env: dict[str, Any]) -> Any:
    """An operand or parameter; only literals, slices, dtypes, arrays and names are read."""
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.Name):
        if tree.id in env:
            return env[tree.id]
        words = {**BY_SHORT_NAME, "inf": float("inf"), "nan": float("nan")}
        if tree.id in words:
            return words[tree.id]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_value(tree.operand, env)
    if isinstance(tree, ast.Tuple):
        return tuple(_value(x, env) for x in tree.elts)
    if isinstance(tree, ast.List):
        return [_value(x, env) for x in tree.elts]
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        args = [_value(a, env) for a in tree.args]
        if tree.func.id == "slice":
            return slice(*args)
        if tree.func.id in BY_SHORT_NAME:
            return new(np.array(args[0], BY_SHORT_NAME[tree.func.id]).reshape(args[1]))
    raise GraphError(f"cannot read {ast.unparse(tree)!r} in the text of a graph")
