"""Gradients that flow out of a compiled function: its results as one node of the eager tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import autograd
from chainrule.autodiff.reverse import overwritten
from chainrule.core.bind import Value, bind, state
from chainrule.core.errors import GradientError
from chainrule.core.node import Node, tick, written_after
from chainrule.core.primitive import TABLE, Primitive, Reads, Variadic
from chainrule.core.record import NO_PARAMS, new, node_here
from chainrule.core.types import ArrayType, type_of

from .interpret import executable

Array = np.ndarray[Any, Any]


class Saved:
    """What one call keeps for its backward pass: arrays, and when they were saved."""

    __slots__ = ("arrays", "entry", "last", "leaves", "seq", "shapes", "sources")

    def __init__(self, entry: Any, leaves: Sequence[Any], sources: list[Any],
                 outputs: Sequence[Any]) -> None:
        program = entry.program.differentiable
        self.entry = entry
        self.leaves = leaves                 # the arguments of the call
        self.sources = sources               # the tensors the gradients go to
        self.arrays = []
        for is_input, number in program.saved:
            if is_input:
                array = entry.buffers[number]
                kind = entry.program.inputs[number].kind
                kept = kind in ("state", "argument", "gradient") and number not in entry.copied
                self.arrays.append(array if kept else array.copy())
            else:
                self.arrays.append(outputs[number])
        self.seq = 0
        self.last: tuple[Any, Any] = (None, None)

    def parts(self, g: Any, split: Any) -> list[Any]:
        """The cotangent of each result from that of the packed vector."""
        types = [self.entry.program.graph.outputs[k].type
                 for k in self.entry.program.differentiable.results]
        if len(types) == 1:
            return [g]
        found, start = [], 0
        for kind in types:
            found.append(split(g, start, start + kind.size, kind.shape))
            start += kind.size
        return found

    def pull(self, i: int, g: Any, y: Any) -> Any:
        """The cotangent of source i; all are computed together, at the first."""
        given, answers = self.last
        if given is not g:
            if isinstance(g, Value):
                answers = self.again(g) if state.recording or g._value is None else [  # type: ignore[attr-defined]
                    new(x) for x in self.numbers(g._value, y)]  # type: ignore[attr-defined]
            else:
                answers = self.numbers(g, y)
            self.last = (g, answers)
        return answers[i]

    def numbers(self, g: Array, y: Any) -> list[Array]:
        """The cotangents by the compiled backward graph."""
        entry = self.entry
        node = y if isinstance(y, Node) else y._node
        for array in self.arrays:
            write = written_after(array, self.seq)
            if write is not None:
                raise overwritten(node, f"value ({type_of(array)}) saved by a compiled function",
                                  write)
        program = entry.program.differentiable
        with entry.lock:
            if entry.backward is None:
                entry.backward = executable(program.graph, [None] * len(program.graph.outputs))
        parts = self.parts(g, lambda g, a, b, shape: g[a:b].reshape(shape))
        inputs = [np.array(x, order="C", copy=None) for x in (*parts, *self.arrays)]
        outputs = [np.empty(out.shape, out.dtype) for out in program.graph.outputs]
        with entry.lock:
            entry.backward.run(inputs, outputs)
        return outputs

    def again(self, g: Any) -> list[Any]:
        """The cotangents as tensors that can be differentiated: by running the function itself."""
        entry = self.entry
        program = entry.program
        if any(i is not None for i in program.written) or program.grads or entry.draws or (
                program.moved):
            raise GradientError(
                "a second derivative is taken through a compiled function that changes tensors or "
                "draws random numbers, and so cannot be run a second time. Call the function "
                "without cr.compile where it is differentiated twice, or take the first derivative "
                "inside it.")
        with autograd.enable_grad():
            result = entry.call_again(self.leaves)
            parts = self.parts(g, lambda g, a, b, shape: bind(
                TABLE["reshape"], g[a:b], shape=tuple(shape)))
            pairs = [(y, part) for y, part in zip(result, parts, strict=True)
                     if isinstance(y, Value) and y.requires_grad]  # type: ignore[attr-defined]
            found = autograd.grad([y for y, _ in pairs], self.sources, [p for _, p in pairs],
                                  create_graph=True, allow_unused=True)
        return [TABLE["zeros_like"](x) if d is None else d
                for x, d in zip(self.sources, found, strict=True)]


def attach_history(entry: Any, leaves: Sequence[Any], made: list[Any],
                   outputs: Sequence[Any]) -> None:
    """Make the results of a call nodes of the tape."""
    program = entry.program.differentiable
    if not state.recording:
        return
    sources = [entry.tensor_of(shadow, leaves) for shadow in program.leaves]
    edges = tuple([x._node for x in sources])
    saved = Saved(entry, leaves, sources, outputs)
    results = [made[entry.made_by[k]] for k in program.results]
    prim = Primitive("compiled", "general", _evaluated, _typed, Variadic(
        lambda i, g, y, kept, *rest: kept.pull(i, g, y)), None, None, lambda rng: [])
    plan = Reads((2, *[0] * (len(edges) - 1)), 0)
    if len(results) == 1:
        shape, dtype = results[0]._value.shape, results[0]._value.dtype
    else:
        shape = (sum(y._value.size for y in results),)
        dtype = np.result_type(*[y._value.dtype for y in results])
    node = node_here(prim, edges, NO_PARAMS, (saved, *[None] * (len(edges) - 1)), None, plan,
                     shape, dtype)
    saved.seq = tick()
    if len(results) == 1:
        results[0]._node = node
        return
    start = 0
    packed = new(np.empty(shape, dtype), node)
    for y in results:
        stop = start + y._value.size
        part = bind(TABLE["slice"], packed, key=(slice(start, stop, 1),))
        part = bind(TABLE["reshape"], part, shape=tuple(y._value.shape))
        if part.dtype != y._value.dtype:
            part = bind(TABLE["cast"], part, dtype=y._value.dtype)
        y._node = part._node
        start = stop


def _evaluated(*xs: Any, **params: Any) -> Any:
    raise GradientError("a compiled function is evaluated by its machine code")


def _typed(*types: Any, **params: Any) -> ArrayType:
    raise GradientError("a compiled function has no type rule")
