"""`autograd.Function`: an operation whose forward and backward the user writes."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from . import autograd
from .core.bind import Value, state
from .core.errors import GradientError, OverwrittenError, ShapeError, TracedValueError
from .core.node import Node, Origin, is_internal, written_after
from .core.primitive import Primitive, Reads, Variadic
from .core.record import NO_PARAMS, new, node_here
from .core.types import ArrayType, type_of
from .functions.shaping import cat, flatten

__all__ = ["Function", "once_differentiable"]


class Context:
    """What forward leaves for backward: `save_for_backward(...)`, and any attribute."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._given: tuple[Any, ...] = ()
        self._kept: list[tuple[Any, Any]] = []        # (array, node); node None for an output
        self._outputs: set[int] = set()
        self._constant: tuple[Any, ...] = ()
        self._fill = True
        self._node: Node | None = None                # only while backward runs
        self._made_at = 0
        self._last: tuple[Any, Any] = (None, None)

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep inputs, outputs or other tensors; changing them in place is then noticed."""
        self._given = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept."""
        if self._node is None and not self._kept:
            return self._given
        result = []
        for i, (array, node) in enumerate(self._kept):
            if isinstance(array, Value):
                own = self._node if i in self._outputs and self._node is not None and (
                    self._node.shape == tuple(array.shape)) else node
                result.append(new(array._value, own))  # type: ignore[attr-defined]
                continue
            write = None if array is None else written_after(array, self._made_at)
            if write is not None:
                raise OverwrittenError(
                    f"saved tensor {i} of a custom function was changed in place at {write.origin} "
                    f"by {write.what} before the backward pass could read it.\n"
                    f"    {write.origin.source()}\nChange a clone() instead."
                    ).about("CR305", write.origin)
            result.append(None if array is None else
                          new(array, self._node if i in self._outputs else node))
        return tuple(result)

    def mark_non_differentiable(self, *outputs: Any) -> None:
        """Outputs no gradient flows through."""
        self._constant = outputs

    def set_materialize_grads(self, value: bool) -> None:
        """Should missing gradients of outputs arrive as zeros (the default)? None otherwise."""
        self._fill = value

    def mark_dirty(self, *inputs: Any) -> None:
        """Refused: return a new tensor instead of writing into an input."""
        raise GradientError("mark_dirty: a Function that writes into its inputs is not supported; "
                            "return a new tensor")

    def _close(self, outputs: Sequence[Any], made_at: int) -> None:
        """Keep arrays and nodes rather than tensors, so that the graph holds no cycle."""
        self._made_at = made_at
        for i, x in enumerate(self._given):
            if any(x is out for out in outputs):
                self._outputs.add(i)
            self._kept.append((None, None) if x is None else (
                x._value if state.capture is None else new(x._value, x._node), x._node))
        self._given = ()


class Function:
    """An operation with hand-written derivatives. Define two static methods and call `apply`.

    `forward(ctx, *args)` computes; `backward(ctx, *gradients)` returns one gradient (or None) for
    each argument. `jvp(ctx, *tangents)` adds forward mode.

    >>> import chainrule as cr
    >>> class Cube(cr.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x**2
    >>> x = cr.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """(ctx, *args) -> output or tuple of outputs; without ctx if `setup_context` is defined."""
        raise NotImplementedError("a Function defines forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """(ctx, *gradients of the outputs) -> gradient of each argument."""
        raise NotImplementedError("a Function defines backward(ctx, *gradients) to be trained "
                                  "through")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """(ctx, *tangents of the arguments) -> tangent of the output."""
        raise NotImplementedError("this Function has no jvp(ctx, *tangents), so forward mode "
                                  "cannot go through it")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The operation on these arguments, recorded."""
        tensors = [x for x in args if isinstance(x, Value)]
        traced = state.capture is not None and state.tracing == "compile"
        if not traced and any(x._value is None for x in tensors):  # type: ignore[attr-defined]
            raise TracedValueError(
                f"{cls.__name__}.apply at {Origin.now()} inside {state.tracing or 'a trace'}: a "
                "custom function has no batching rule. Write it with tensor operations, whose "
                "derivatives and batching are known.")
        needs = tuple(isinstance(x, Value) and x.requires_grad for x in args)  # type: ignore[attr-defined]
        ctx = Context(needs)
        with autograd.no_grad():
            if "setup_context" in {n for c in cls.__mro__ for n in vars(c)}:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)  # type: ignore[attr-defined]
            else:
                result = cls.forward(ctx, *args)
        outputs = list(result) if isinstance(result, tuple) else [result]
        for i, out in enumerate(outputs):
            if not isinstance(out, Value):
                raise GradientError(f"{cls.__name__}.forward returned {type(out).__name__} as "
                                    f"output {i}; it must return tensors")
        # An input returned as it is becomes an output of its own.
        outputs = [out.detach() if any(out is x for x in args) else out for out in outputs]
        constant = [any(out is c for c in ctx._constant) or out.dtype.kind != "f"
                    for out in outputs]
        if state.recording and any(needs) and not all(constant):
            outputs = _recorded(cls, ctx, args, outputs, constant)
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]


def _recorded(cls: Any, ctx: Context, args: Sequence[Any], outputs: list[Any],
              constant: list[bool]) -> list[Any]:
    """Outputs with a history. Several outputs are parts of one vector, which is the node."""
    live = [out for out, fixed in zip(outputs, constant, strict=True) if not fixed]
    if len(live) == 1:
        shape, dtype = tuple(live[0].shape), live[0].dtype
    else:
        shape, dtype = (sum(out.numel() for out in live),), live[0].dtype
    edges = tuple(x._node if isinstance(x, Value) else None for x in args)  # type: ignore[attr-defined]
    rule = _Rule(cls, [ArrayType(tuple(o.shape), o.dtype) for o in live], constant, edges)
    prim = Primitive(cls.__name__, "general", _no_evaluation, _no_type, Variadic(rule.pull),
                     rule.push, None, lambda rng: [])
    plan = Reads((2, *[0] * (len(args) - 1)), 0) if state.capture is None else None
    node = node_here(prim, edges, NO_PARAMS, (ctx, *[None] * (len(args) - 1)), None, plan, shape,
                     dtype)
    ctx._close(outputs, node.seq)
    if len(live) == 1:
        give(live[0], node)
        return outputs
    with autograd.no_grad():
        packed = cat([flatten(o).to(dtype) for o in live])
    give(packed, node)
    start, result = 0, []
    for out, fixed in zip(outputs, constant, strict=True):
        if fixed:
            result.append(out)
            continue
        stop = start + out.numel()
        result.append(packed[start:stop].reshape(*out.shape))
        start = stop
    return result


def give(tensor: Any, node: Node) -> None:
    """Let a result be that of `node`."""
    if state.capture is not None:
        state.capture.replaced(tensor, node)
    else:
        tensor._node = node


class _Rule:
    """The user's backward as the rules of a node's inputs; it runs once for all of them."""

    def __init__(self, cls: Any, types: list[ArrayType], constant: list[bool],
                 edges: tuple[Node | None, ...]) -> None:
        self.cls = cls
        self.types = types
        self.constant = constant
        self.edges = edges

    def split(self, g: Any) -> list[Any]:
        if len(self.types) == 1:
            return [g]
        parts, start = [], 0
        for kind in self.types:
            parts.append(g[start:start + kind.size].reshape(*kind.shape))
            start += kind.size
        return parts

    def pull(self, i: int, g: Any, y: Any, ctx: Context, *rest: Any) -> Any:
        given, answers = ctx._last
        if given is not g:
            tensor = isinstance(g, Value)
            parts = iter(self.split(g if tensor else new(np.asarray(g))))
            gradients = [None if fixed else next(parts) for fixed in self.constant]
            ctx._node = y if isinstance(y, Node) else y._node
            try:
                answers = self.cls.backward(ctx, *gradients)
            finally:
                ctx._node = None
            answers = answers if isinstance(answers, tuple) else (answers,)
            if len(answers) < len(self.edges) or any(a is not None
                                                     for a in answers[len(self.edges):]):
                raise GradientError(f"{self.cls.__name__}.backward returned {len(answers)} "
                                    f"gradients for {len(self.edges)} arguments; return one for "
                                    "each, None where there is none"
                                    ).about("CR307", *self.places(y).values())
            ctx._last = (g, answers)
        return self.checked(i, answers[i], isinstance(g, Value), y)

    def places(self, y: Any) -> dict[str, Origin]:
        """Where backward returned what is wrong, and where the function was applied."""
        node = y if isinstance(y, Node) else y._node
        found = {"returned": last_return(self.cls.backward), "applied": node.origin}
        return {what: place for what, place in found.items() if place.file}

    def checked(self, i: int, answer: Any, on_tensors: bool, y: Any) -> Any:
        edge = self.edges[i]
        assert edge is not None
        if answer is None:
            zeros = np.zeros(edge.shape, edge.dtype)
            return new(zeros) if on_tensors else zeros
        if not isinstance(answer, Value):
            answer = new(np.asarray(answer))
        if tuple(answer.shape) != edge.shape:
            name = argument_name(self.cls, i)
            places = self.places(y)
            lines = "".join(f"\n  {what} at {place}\n      {place.source()}"
                            for what, place in places.items())
            raise ShapeError(
                f"{self.cls.__name__}.backward returned {type_of(answer)} as the gradient of "
                f"argument {i}{name and f' ({name})'}, which is {edge.type}"
                f"{fitting(tuple(answer.shape), edge.shape)}{lines}"
                ).about("CR307", *places.values())
        return answer if on_tensors else answer._value.astype(edge.dtype)

    def push(self, ts: Sequence[Any], y: Any, ctx: Context, *rest: Any) -> Any:
        dots = self.cls.jvp(ctx, *ts)
        dots = dots if isinstance(dots, tuple) else (dots,)
        live = [d for d, fixed in zip(dots, self.constant, strict=True) if not fixed]
        return live[0] if len(live) == 1 else cat([flatten(d) for d in live])


def fitting(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What would give a gradient the shape of its argument, if that is plain to see."""
    if given[::-1] == wanted:
        return "; its transpose would fit"
    extra = len(given) - len(wanted)
    if extra < 0 or any(w not in (1, n) for n, w in zip(given[extra:], wanted, strict=True)):
        return ""
    # The argument was repeated along these axes, so its gradient is the sum over them.
    ones = [extra + i for i, (n, w) in enumerate(zip(given[extra:], wanted, strict=True)) if n != w]
    calls = [f".sum({_axes(list(range(extra)))})"] if extra else []
    if ones:
        calls.insert(0, f".sum({_axes(ones)}, keepdim=True)")
    return f"; the argument was broadcast, so sum over what was repeated: {''.join(calls)}"


def _axes(axes: list[int]) -> str:
    return str(axes[0]) if len(axes) == 1 else f"({', '.join(map(str, axes))})"


def argument_name(cls: Any, i: int) -> str:
    """The name of argument `i` in the user's forward, '' if it is one of *args."""
    given = list(inspect.signature(cls.forward).parameters.values())
    if "setup_context" not in {n for c in cls.__mro__ for n in vars(c)}:
        given = given[1:]
    plain = [x.name for x in given if x.kind in (x.POSITIONAL_ONLY, x.POSITIONAL_OR_KEYWORD)]
    return plain[i] if i < len(plain) else ""


def last_return(function: Any) -> Origin:
    """The line of the last `return` of a function of the user's; none if it cannot be seen."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or is_internal(code.co_filename):
        return Origin("", 0, "", "")
    lines = [x.positions.lineno for x in dis.get_instructions(code)
             if x.opname.startswith("RETURN_") and x.opname != "RETURN_GENERATOR"
             and x.positions is not None and x.positions.lineno is not None]
    return Origin(code.co_filename, max(lines, default=code.co_firstlineno), code.co_name, "")


def _no_evaluation(*xs: Any, **params: Any) -> Any:
    raise GradientError("a custom function is evaluated by its forward")


def _no_type(*types: Any, **params: Any) -> ArrayType:
    raise GradientError("a custom function has no type rule")


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For a backward written in NumPy: its results are constants for second derivatives."""
    @wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        with autograd.no_grad():
            return backward(ctx, *gradients)
    return wrapped


autograd.Function = Function  # type: ignore[attr-defined]
autograd.__all__.append("Function")
