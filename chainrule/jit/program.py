"""What a capture recorded, closed: a graph, where its inputs come from, where its outputs go.

Nodes of the capture are copied on the way, with the values of bound nodes in their place.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import reachable, reverse
from chainrule.core.bind import Value, state
from chainrule.core.errors import GradientError, TracedValueError
from chainrule.core.graph import Graph
from chainrule.core.node import Node, tick
from chainrule.core.primitive import TABLE, Reads
from chainrule.core.record import INPUT, LEAKED, NO_PARAMS, UNREAD, new
from chainrule.core.types import type_of
from chainrule.device import device
from chainrule.inplace import parent_of

from . import slots
from .capture import Capture, Input
from .memory import alias_of, is_tracked, memory_root
from .numbers import Number
from .results import Structure, flatten
from .slots import Shadow

Array = np.ndarray[Any, Any]
CONSTANT = (bool, int, float, complex, str, bytes, type(None), np.dtype, np.generic, range, slice,
            tuple, type, device, FunctionType)


class Differentiable:
    """The second graph of a function whose results carry gradients to the outside.

    Its inputs are the cotangents of the `results` (numbers of outputs of the first graph) and the
    values `saved` by it: (True, number of an input) or (False, number of an output). Its outputs
    are the cotangents of the `leaves`.
    """

    def __init__(self, graph: Graph, results: list[int], saved: list[tuple[bool, int]],
                 leaves: list[Shadow]) -> None:
        self.graph = graph
        self.results = results
        self.saved = saved
        self.leaves = leaves


class Program:
    """A closed capture.

    inputs    those the graph reads, in its order
    written   for each output the number of the input it overwrites, or None
    recipes   how each call makes its tensors, in order: (kind, data)
    grads     (shadow, number of a recipe or None): what .grad is set to
    moved     (shadow, output): tensors whose .data is other memory afterwards
    spent     recipe -> its node, for results whose backward pass the function itself has made
    leaves    what the function returns, flat: (True, recipe) or (False, constant)
    """

    def __init__(self) -> None:
        self.graph: Any = None
        self.inputs: list[Input] = []
        self.written: list[int | None] = []
        self.recipes: list[tuple[str, Any]] = []
        self.grads: list[tuple[Shadow, int | None]] = []
        self.moved: list[tuple[Shadow, int]] = []
        self.leaves: list[tuple[bool, Any]] = []
        self.structure: Structure | None = None
        self.spent: dict[int, Node] = {}  # recipes of results that were gone through backwards
        self.differentiable: Differentiable | None = None
        self.shared = ""                  # why tensors overlap in a way the graph does not say
        self.steps = 0                    # steps of optimisers in it


def close(capture: Capture, result: Any, whole: Container[int] = ()) -> Program:
    """The program of a capture whose function returned `result`.

    Lists and dictionaries with an id in `whole` are from outside, and returned as they are.
    """
    return _Closing(capture).run(result, whole)


class _Closing:
    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.program = Program()
        self.program.shared = capture.shared
        self.program.steps = capture.steps
        self.nodes: list[Any] = []                   # of the outputs
        self.targets: list[Shadow | None] = []       # what each output overwrites
        self.number: dict[int, int] = {}             # id of a tensor -> its recipe
        self.kept: list[Any] = []                    # so that ids stay valid
        self.tracked: list[tuple[int, Any]] = []     # outputs with a gradient, and their tensors

    def run(self, result: Any, whole: Container[int]) -> Program:
        capture, program = self.capture, self.program
        leaves, program.structure = flatten(result, whole)
        self.check_history()
        for shadow in list(capture.shadows.values()):
            if shadow.input is None:
                continue
            value = resolve(capture, shadow.node)
            if shadow.left is not None:
                program.moved.append((shadow, self.output(value)))
                value = resolve(capture, shadow.left)
            if value is not resolve(capture, shadow.start):
                self.targets.append(shadow)
                self.nodes.append(value)
        self.check_overlap()
        for shadow in list(capture.shadows.values()):
            if shadow.grad_written and not (
                    shadow.grad_read and shadow.grad is shadow.first_grad):
                recipe = None if shadow.grad is None else self.recipe(shadow.grad)
                program.grads.append((shadow, recipe))
        for leaf in leaves:
            if id(leaf) not in whole:
                refuse_result(leaf)
            if type(leaf) is Number:
                program.recipes.append(("scalar", leaf._tape.place(leaf)))
                program.leaves.append((True, len(program.recipes) - 1))
                continue
            is_tensor = isinstance(leaf, Value)
            program.leaves.append((is_tensor, self.recipe(leaf) if is_tensor else leaf))
        self.differentiate()
        self.build()
        return program

    # ------------------------------------------------------------ what may not be

    def check_history(self) -> None:
        for shadow in self.capture.shadows.values():
            if hooks_now(shadow) != shadow.hooks:
                raise GradientError(
                    f"a compiled function registers or removes a hook of a tensor "
                    f"({type_of(shadow.array)}) from outside: Python runs it only once, so later "
                    "calls would not. Register it before the call.")
            before, after = is_tracked(shadow.start), is_tracked(shadow.node)
            if before != after:
                change = ("no longer requires a gradient" if before else
                          "has become part of a graph of gradients, which would grow with each "
                          "call")
                raise GradientError(
                    f"a tensor ({type_of(shadow.array)}) from outside a compiled function {change} "
                    f"(at {shadow.node.origin}).\n    {shadow.node.origin.source()}\n"
                    + ("Change that before the call." if before else
                       "Write into it under no_grad(), or write what is detached: "
                       "x.copy_(value.detach())."))

    def check_overlap(self) -> None:
        """Two tensors that share memory in a way the graph does not know, one of them written."""
        written = {id(shadow) for shadow in self.targets}
        for shadows in self.capture.owners.values():
            if len(shadows) < 2:
                continue
            for shadow in shadows:
                if id(shadow) not in written:
                    continue
                for other in shadows:
                    if other is not shadow and memory_root(other.tensor) is not memory_root(
                            shadow.tensor) and np.may_share_memory(shadow.array, other.array):
                        self.program.shared = (
                            f"{type_of(other.array)} and {type_of(shadow.array)}, which is written,"
                            " share memory")

    # ------------------------------------------------------------ recipes

    def output(self, value: Any) -> int:
        self.nodes.append(value)
        self.targets.append(None)
        return len(self.nodes) - 1

    def add(self, tensor: Any, kind: str, data: Any) -> int:
        self.program.recipes.append((kind, data))
        self.kept.append(tensor)
        number = self.number[id(tensor)] = len(self.program.recipes) - 1
        return number

    def recipe(self, tensor: Any) -> int:
        """The number of the recipe for a tensor that leaves the function."""
        found = self.number.get(id(tensor))
        if found is not None:
            return found
        capture = self.capture
        shadow = capture.shadow_of(tensor)
        if shadow is not None:
            entry = shadow.input
            if entry is not None and entry.kind == "argument":
                return self.add(tensor, "argument", entry.place)
            if entry is not None and entry.kind == "gradient":
                return self.add(tensor, "gradient", entry.place)
            return self.add(tensor, "object", tensor)
        top = memory_root(tensor)
        if top is not tensor and capture.shadow_of(top) is not None:
            under = self.recipe(top)
            return self.add(tensor, "view", (under, route(tensor), is_tracked(tensor._node)
                                             if tensor._node is not None else False))
        if tensor._value is not None:
            return self.add(tensor, "constant", tensor._value.copy())
        tracked = is_tracked(tensor._node)
        if top is not tensor and not tracked and not is_tracked(top._node):
            under = self.recipe(top)
            return self.add(tensor, "view", (under, route(tensor), False))
        if tensor._node.prim is None and tracked:
            raise TracedValueError(
                f"a compiled function returns a tensor ({type_of(tensor)}, {tensor._node.origin}) "
                "that asked for a gradient inside it. Return x.detach(), and call "
                "requires_grad_() on that outside.")
        value = resolve(capture, tensor._node)
        if not isinstance(value, Node):
            return self.add(tensor, "constant", value.copy())
        place = self.output(value)
        number = self.add(tensor, "output", place)
        if tracked and capture.depends(tensor):
            self.tracked.append((place, tensor))
        if tensor._grad is not None:
            self.program.recipes.append(("attach", (number, self.recipe(tensor._grad))))
        return number

    # ------------------------------------------------------------ gradients to the outside

    def differentiate(self) -> None:
        """The cotangents of what is outside, given those of the results."""
        capture = self.capture
        self.pulled: list[Any] = []
        live = []
        for place, y in self.tracked:
            gone = next((n for n in reachable([y._node]) if n in capture.consumed), None)
            if gone is None:
                live.append((place, y))
            else:
                self.program.spent[self.number[id(y)]] = spent(y._node, capture.consumed[gone])
        self.tracked = live
        if not live or not state.recording:
            self.tracked = []
            return
        self.mark = tick()
        self.cotangents = []
        roots = []
        for _, y in live:
            node = y._node
            cotangent = capture.node(None, (), NO_PARAMS, (), None, INPUT, node.shape, node.dtype)
            self.cotangents.append(cotangent)
            roots.append((node, new(None, cotangent)))
        starts = [n for n in capture.starts_below([y._node for _, y in live])
                  if n in capture.leaves]
        with capture.recorded_as(False):
            found = reverse(roots, starts, on_tensors=True, retain_graph=True)
            sums: dict[int, tuple[Shadow, Any]] = {}
            for start in starts:
                if start in found:
                    shadow = capture.leaves[start]
                    g = found[start]
                    before = sums.get(id(shadow))
                    sums[id(shadow)] = (shadow, g if before is None else before[1] + g)
        self.pulled = list(sums.values())

    # ------------------------------------------------------------ the graphs

    def build(self) -> None:
        capture, program = self.capture, self.program
        saved_nodes: list[Node] = []
        backward: Any = None
        if self.pulled:
            backward = Copier(capture, self.mark)
            for node in self.cotangents:
                backward.start(node)
            gradients = backward.values([g._node if g._value is None else g._value
                                         for _, g in self.pulled])
            saved_nodes = backward.saved
        sources = {entry.node: entry for entry in capture.inputs}
        places: dict[Node, int] = {}
        for node in saved_nodes:
            written = any(t is not None and t.input.node is node for t in self.targets)
            if node not in sources or written:
                places[node] = self.output(node)
        forward = Copier(capture, None)
        outputs = forward.values([
            *self.nodes, *[node for node in saved_nodes if node not in places],
            *[shadow.input.node for shadow in self.targets if shadow is not None]])
        outputs = outputs[:len(self.nodes)]
        for node in forward.starts:
            if node not in sources:
                raise TracedValueError(
                    f"a traced value ({node.type}) from {node.origin} is used in a compiled "
                    "function that did not make it. Return it from the function that did.")
        program.inputs = [entry for entry in capture.inputs if entry.node in forward.starts]
        heads = [forward.starts[entry.node] for entry in program.inputs]
        index = {entry.node: i for i, entry in enumerate(program.inputs)}
        program.written = [None if shadow is None else index[shadow.input.node]
                           for shadow in self.targets]
        program.graph = Graph(heads, *forward.finish(outputs))
        if backward is None:
            return
        saved = [(True, index[node]) if node not in places else (False, places[node])
                 for node in saved_nodes]
        heads = [backward.starts[n] for n in [*self.cotangents, *saved_nodes]]
        graph = Graph(heads, *backward.finish(gradients))
        program.differentiable = Differentiable(
            graph, [place for place, _ in self.tracked], saved,
            [shadow for shadow, _ in self.pulled])


def spent(node: Node, freed: Any) -> Node:
    """What is left of a node whose history a backward pass inside has used up."""
    left = Node(node.prim, (), NO_PARAMS, (), None, Reads((), 0), node.shape, node.dtype, node.code,
                node.lasti, None)
    left.freed = freed
    return left


def poison(handles: Sequence[Any]) -> None:
    """What the user kept of a run cannot be used any more, and says so."""
    dead: dict[Node, Node] = {}
    for reference in handles:
        tensor = reference()
        if tensor is None or slots.value_of(tensor) is not None:
            continue
        node = slots.node_of(tensor)
        if node is not None:
            if node not in dead:
                dead[node] = Node(None, (), NO_PARAMS, (), None, LEAKED, node.shape, node.dtype,
                                  node.code, node.lasti, None)
            slots.set_node(tensor, dead[node])


def refuse_result(x: Any) -> None:
    """Only tensors, and what cannot change, leave a compiled function."""
    if not isinstance(x, (Value, *CONSTANT)) and not hasattr(x, "_parameters"):
        raise TracedValueError(
            f"a compiled function returns a {type(x).__name__}, which would be the same object in "
            "each call. Return tensors, numbers, strings and tuples, lists, dictionaries of them.")


def route(tensor: Any) -> list[Any]:
    """How a tensor is seen from its memory's root: (prim, params), or None for a detached twin."""
    found: list[Any] = []
    while True:
        parent = parent_of(tensor)
        if parent is not None:
            found.append(tensor._extra.view_of)
            tensor = parent
            continue
        parent = alias_of(tensor)
        if parent is None:
            return found[::-1]
        found.append(None)
        tensor = parent


def hooks_now(shadow: Shadow) -> list[Any]:
    """The hooks of a lifted tensor as the run has left them."""
    node = shadow.node if shadow.node.prim is None else shadow.start
    hooks = list(node.hooks.values()) if node.hooks else []
    more = shadow.extra
    return hooks + (list(more.after_grad.values()) if more is not None and more.after_grad else [])


def resolve(capture: Capture, node: Any) -> Any:
    """The node (or array) whose value a node has."""
    bound = capture.bound
    while isinstance(node, Node) and node in bound:
        node = bound[node]
    return node


class Copier:
    """Copies nodes into a graph of their own. With a `mark`, nodes made before it are inputs."""

    def __init__(self, capture: Capture, mark: int | None) -> None:
        self.capture = capture
        self.mark = mark
        self.starts: dict[Node, Node] = {}
        self.saved: list[Node] = []
        self.copies: dict[Node, Node] = {}
        self.scopes: dict[int, tuple[Any, Any]] = {}

    def start(self, node: Node) -> Node:
        copy = self.starts.get(node)
        if copy is None:
            copy = self.starts[node] = self.copies[node] = Node(
                None, (), NO_PARAMS, (), None, UNREAD, node.shape, node.dtype, node.code,
                node.lasti, self.lasting(node.scope))
        return copy

    def is_start(self, node: Node) -> bool:
        return node.prim is None or (self.mark is not None and node.seq < self.mark)

    def values(self, nodes: Sequence[Any]) -> list[Any]:
        """The copies of nodes with all they depend on, made in the order of recording."""
        nodes = [resolve(self.capture, node) for node in nodes]
        stack = [node for node in nodes if isinstance(node, Node)]
        seen = set(stack)
        while stack:
            for edge in self.edges(stack.pop()):
                if isinstance(edge, Node) and edge not in seen:
                    seen.add(edge)
                    stack.append(edge)
        for found in sorted(seen, key=lambda n: n.seq):
            if found not in self.copies:
                self.copy(found)
        return [self.copies[node] if isinstance(node, Node) else node for node in nodes]

    def edges(self, node: Node) -> Sequence[Any]:
        if self.is_start(node):
            return ()
        return [resolve(self.capture, edge) for edge in node.inputs]

    def copy(self, node: Node) -> None:
        if self.is_start(node):
            if self.mark is not None and node not in self.starts:
                self.saved.append(node)
            self.start(node)
            return
        inputs: list[Any] = []
        saved: list[Any] = []
        for edge, value in zip(self.edges(node), node.saved, strict=True):
            if isinstance(edge, Node):
                inputs.append(self.copies[edge])
                saved.append(inputs[-1])
            else:
                inputs.append(None)
                saved.append(value if edge is None else edge)
        self.copies[node] = Node(node.prim, tuple(inputs), node.params, tuple(saved), None, UNREAD,
                                 node.shape, node.dtype, node.code, node.lasti,
                                 self.lasting(node.scope))

    def lasting(self, scope: Any) -> Any:
        """The chain of modules without those made in the run, which hold its tensors."""
        if scope is None:
            return None
        if id(scope) not in self.scopes:
            outer, module, *rest = scope
            outer = self.lasting(outer)
            passing = module is not None and any(p is not None and slots.value_of(p) is None
                                                 for p in module._parameters.values())
            self.scopes[id(scope)] = (scope, outer if passing else (outer, module, *rest))
        return self.scopes[id(scope)][1]

    def finish(self, outputs: list[Any]) -> tuple[list[Node], list[Any]]:
        """(nodes, outputs) of the graph; each output is a node that is not an input."""
        made: list[Any] = []
        extra: list[Node] = []
        heads = set(self.starts.values())
        for out in outputs:
            if isinstance(out, Node) and out not in heads:
                made.append(out)
                continue
            edge = out if isinstance(out, Node) else None
            node = Node(TABLE["identity"], (edge,), NO_PARAMS, (out,), None, UNREAD, out.shape,
                        out.dtype, None, 0, None)
            extra.append(node)
            made.append(node)
        body = [node for node in self.copies.values() if node not in heads]
        return [*sorted(body, key=lambda n: n.seq), *extra], made
