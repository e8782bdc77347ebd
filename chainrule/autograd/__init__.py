"""Backpropagation on the recorded tape: `backward`, `grad`, and whether operations are recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import reverse
from chainrule.core.bind import Value, state
from chainrule.core.cuts import forget_cuts, memory, note_cut
from chainrule.core.errors import (
    GradientError,
    LeafError,
    NotScalarError,
    ShapeError,
    UnusedError,
)
from chainrule.core.events import heard, tell
from chainrule.core.node import Node, is_internal, wrote
from chainrule.core.primitive import TABLE
from chainrule.core.record import new
from chainrule.core.types import type_of

from .unconnected import no_graph

__all__ = ["Variable", "backward", "enable_grad", "grad", "inference_mode", "is_grad_enabled",
           "is_inference_mode_enabled", "no_grad", "set_grad_enabled"]


# ---------------------------------------------------------------- recording on and off


class _Mode:
    """A context manager and decorator that sets what is recorded."""

    recording: int = 1
    inference: bool = False
    _name: str = ""
    _place: Any = None               # the line of the decorator, where it is one

    def __new__(cls, mode: Any = None) -> Any:
        """A mode; a function in its place is decorated: `@no_grad` without brackets."""
        if callable(mode) and cls is not set_grad_enabled:
            return cls()(mode)
        if callable(mode):
            raise TypeError(f"set_grad_enabled({mode!r}): write @set_grad_enabled(False) above a "
                            "function, or with set_grad_enabled(False):")
        if mode is not None and cls.__init__ is object.__init__:
            raise TypeError(f"{cls.__name__}({mode!r}) takes nothing: with {cls.__name__}():")
        return super().__new__(cls)

    def __enter__(self) -> None:
        self._before = (*getattr(self, "_before", ()),
                        (state.recording, state.inference, memory.off))
        memory.off = None if self.recording else note_cut(self._name, None, self._place)
        state.recording = self.recording and max(state.recording, 1)
        state.inference = self.inference or (state.inference and not self.recording)

    def __exit__(self, *exc: object) -> None:
        *rest, (state.recording, state.inference, memory.off) = self._before
        self._before = tuple(rest)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return decorated(function, self)

    def _again(self, place: Any) -> Any:
        """A mode like this one, for one call of a function that was decorated at `place`."""
        new = type(self)()
        new._place = place
        return new


def decorated(function: Callable[..., Any], mode: _Mode) -> Callable[..., Any]:
    """`function` in a mode; a generator is in it while its own code runs, not its caller's."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    # Before its first instruction: the line of the decorator.
    place = None if code is None or is_internal(code.co_filename) else (code, -1)
    inside = partial(mode._again, place)
    if inspect.isgeneratorfunction(function):
        @wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Any:
            with inside():
                run = function(*args, **kwargs)
            return _resumed(run, inside)

        return generator

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with inside():
            return function(*args, **kwargs)

    return wrapped


def _resumed(run: Any, mode: Callable[[], Any]) -> Any:
    """The values of a generator, each made in a mode of its own."""
    try:
        with mode():
            value = next(run)
        while True:
            try:
                sent = yield value
            except GeneratorExit:
                with mode():
                    run.close()
                raise
            except BaseException as error:  # noqa: BLE001  (it is handed to the generator)
                with mode():
                    value = run.throw(error)
            else:
                with mode():
                    value = run.send(sent)
    except StopIteration as end:
        return end.value


class no_grad(_Mode):
    """Nothing is recorded inside; results do not require a gradient.

    >>> import chainrule as cr
    >>> w = cr.ones(2, requires_grad=True)
    >>> with cr.no_grad():
    ...     (2 * w).requires_grad
    False
    """

    recording = 0
    _name = "no_grad()"


class enable_grad(_Mode):
    """Recording is on inside, also within `no_grad`."""

    recording = 1


class inference_mode(_Mode):
    """`no_grad` whose results must never take part in a recorded operation."""

    recording = 0
    inference = True
    _name = "inference_mode()"

    def __init__(self, mode: bool = True) -> None:
        if not mode:
            self.recording, self.inference = 1, False

    def _again(self, place: Any) -> Any:
        new = inference_mode(self.inference)
        new._place = place
        return new


class set_grad_enabled(_Mode):
    """Recording on or off, at once and until the end of a `with` block if used as one."""

    _name = "set_grad_enabled(False)"

    def __init__(self, mode: bool) -> None:
        self.recording = int(bool(mode))
        self._outer = (state.recording, state.inference, memory.off)
        memory.off = self._off = self._noted()
        state.recording = self.recording and max(state.recording, 1)

    def __enter__(self) -> None:
        self._before = (self._outer,)
        memory.off = self._off
        state.recording = self.recording and max(state.recording, 1)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        state.recording, state.inference, memory.off = self._outer
        if self._off in memory.recent:           # nothing has run yet
            memory.recent.remove(self._off)
        return decorated(function, self)

    def _again(self, place: Any) -> Any:
        new: Any = object.__new__(set_grad_enabled)
        new.recording, new._place = self.recording, place
        new._outer = (state.recording, state.inference, memory.off)
        new._off = new._noted()
        return new

    def _noted(self) -> Any:
        return None if self.recording else note_cut(self._name, None, self._place)


def is_grad_enabled() -> bool:
    """Are operations being recorded?"""
    return state.recording > 0


def is_inference_mode_enabled() -> bool:
    """Is this inside `inference_mode`?"""
    return state.inference


def Variable(data: Any, requires_grad: bool = False) -> Any:
    """The tensor itself, cut from its history: what old programs wrap their tensors in."""
    if not isinstance(data, Value):
        raise TypeError(f"Variable wants a tensor, got {type(data).__name__}: tensors need no "
                        "wrapping, write cr.tensor(data, requires_grad=True)")
    x: Any = data
    x = x.detach()
    return x.requires_grad_() if requires_grad else x


# ---------------------------------------------------------------- backward


def _listed(x: Any) -> list[Any]:
    return [x] if isinstance(x, Value) else list(x)


def seed(y: Any, g: Any, on_tensors: bool, what: str) -> Any:
    """The cotangent to start from at `y`: given, or one for a single number."""
    if y._node is None or (state.capture is not None and not state.capture.depends(y)):
        raise no_graph(y, what)
    if g is None:
        if y.numel() != 1:
            raise NotScalarError(
                f"{what} needs one number to start from, but this tensor is {type_of(y)}, made by "
                f"{y._node.name} at {y._node.origin}. Reduce it first, y.sum() or y.mean(), or "
                f"give the weight of each element: backward(gradient=cr.ones_like(y)).")
        g = np.ones(y.shape, y.dtype)
        return new(g) if on_tensors else g
    if not isinstance(g, Value):
        g = new(np.asarray(g, y.dtype))
    if g.shape != y.shape:
        raise ShapeError(f"{what}: gradient= is {type_of(g)}, the tensor is {type_of(y)}; the two "
                         "must have one shape")
    if g.dtype != y.dtype:
        g = g.to(y.dtype)
    if on_tensors:
        return g
    return g._value.copy() if y.is_leaf else g._value


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False, inputs: Any = None) -> None:
    """Add the gradients of `tensors` to the `.grad` of the leaves below them (or of `inputs`).

    dL/dw of every leaf w comes from one walk over the recorded nodes, last to first (reverse-mode
    accumulation; Rumelhart, Hinton and Williams 1986, Griewank and Walther 2008).
    """
    ys = _listed(tensors)
    gs = [None] * len(ys) if grad_tensors is None else _listed(grad_tensors)
    if len(gs) != len(ys):
        raise GradientError(f"backward: {len(ys)} tensors but {len(gs)} gradients")
    if state.tracing == "vmap" and any(y._value is None for y in ys):
        raise GradientError("backward() inside vmap: the gradients of a batch cannot be added to "
                            "one .grad. Write vmap(func.grad(f)) instead.")
    retain = create_graph if retain_graph is None else retain_graph
    on_tensors = create_graph or any(y._value is None for y in ys)
    roots = [(y._node, seed(y, g, on_tensors, "backward()")) for y, g in zip(ys, gs, strict=True)]
    wanted: list[Node] | None = None
    targets: dict[Node, Any] = {}
    if inputs is not None:
        chosen = _listed(inputs)
        if not chosen:
            raise GradientError("backward(inputs=[]): name a tensor, or leave inputs out")
        for x in chosen:
            require_grad(x, "backward(inputs=...)")
            targets[x._node] = x
        wanted = list(targets)
    if "backward" in heard:
        tell("backward", tensors=ys, roots=roots, partial=inputs is not None)
    mode = state.recording
    capture = state.capture
    if capture is not None:
        wanted = capture.before_backward(ys, wanted, retain)
        state.recording = max(mode, 1) if create_graph else 0
    else:
        state.recording = mode if create_graph or (on_tensors and mode) else 0
    try:
        if create_graph and not state.recording:
            state.recording = 1
        found = reverse(roots, wanted, retain_graph=retain, on_tensors=on_tensors)
    finally:
        state.recording = mode
    if state.dropped and capture is None:
        state.dropped[0] = (roots, ys, None)
    for node, g in found.items():
        tensor = targets.get(node) if targets else (node.out() if node.out is not None else None)
        if tensor is None:
            if capture is not None:
                capture.refuse_history(node)
            continue
        if capture is not None:
            capture.accumulate(tensor, g, create_graph)
        elif (tensor._grad is None and tensor._extra is None and not on_tensors
                and type(g) is np.ndarray and g.dtype is node.dtype):
            tensor._grad = new(g)
        else:
            accumulate(tensor, node, g, on_tensors)
    if "accumulated" in heard:
        reached = [targets.get(node) if targets else node.out and node.out() for node in found]
        tell("accumulated", leaves=[x for x in reached if x is not None])
    forget_cuts()


def accumulate(tensor: Any, node: Node, g: Any, on_tensors: bool) -> None:
    """tensor.grad += g."""
    before = tensor._grad
    if on_tensors:
        with enable_grad():       # a copy, since another leaf may have got the same tensor
            tensor._grad = TABLE["identity"](g) if before is None else before + g
    else:
        if type(g) is not np.ndarray:
            g = np.asarray(g)
        if g.dtype is not node.dtype and g.dtype != node.dtype:
            g = g.astype(node.dtype)
        if before is None:
            tensor._grad = new(g)
        elif before._node is not None:
            tensor._grad = before + new(g)
        else:
            if before._value.shape != g.shape:
                raise ShapeError(f"the gradient of a {type_of(tensor)} tensor is {type_of(g)}, but "
                                 f"its .grad holds {type_of(before)} from before its data was "
                                 "replaced; set .grad = None first")
            np.add(before._value, g, out=before._value)
            wrote(before._value, "gradient accumulation")
    extra = tensor._extra
    if extra is not None and extra.after_grad:
        for hook in list(extra.after_grad.values()):
            hook(tensor)


def require_grad(x: Any, what: str) -> None:
    if not isinstance(x, Value):
        raise LeafError(f"{what}: expected tensors, got {type(x).__name__}")
    if not x.requires_grad:  # type: ignore[attr-defined]
        raise LeafError(f"{what}: a tensor ({type_of(x)}) does not require a gradient. Call "
                        "x.requires_grad_() before it is used.")


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Any, ...]:
    """The gradients of the sum of `outputs` with respect to `inputs`, without touching `.grad`.

    >>> import chainrule as cr
    >>> x = cr.tensor(3.0, requires_grad=True)
    >>> cr.autograd.grad(x * x, x)
    (tensor(6.),)
    """
    ys, xs = _listed(outputs), _listed(inputs)
    if allow_unused is False and materialize_grads:
        raise GradientError("grad: materialize_grads=True fills unused inputs with zeros, so "
                            "allow_unused=False contradicts it")
    allowed = materialize_grads if allow_unused is None else allow_unused
    gs = [None] * len(ys) if grad_outputs is None else _listed(grad_outputs)
    if len(gs) != len(ys):
        raise GradientError(f"grad: {len(ys)} outputs but {len(gs)} grad_outputs")
    for x in xs:
        require_grad(x, "autograd.grad(inputs=...)")
    if is_grads_batched:
        return _batched(ys, xs, gs, retain_graph, create_graph, allowed, materialize_grads)
    on_tensors = (create_graph or any(y._value is None for y in ys)
                  or any(g is not None and isinstance(g, Value) and g._value is None  # type: ignore[attr-defined]
                         for g in gs))
    roots = [(y._node, seed(y, g, on_tensors, "autograd.grad()"))
             for y, g in zip(ys, gs, strict=True)]
    mode = state.recording
    if state.capture is not None:
        state.capture.before_backward(ys, [x._node for x in xs],
                                      create_graph if retain_graph is None else retain_graph)
    state.recording = max(mode, 1) if create_graph else 0
    try:
        found = reverse(roots, [x._node for x in xs], on_tensors=on_tensors,
                        retain_graph=create_graph if retain_graph is None else retain_graph)
    finally:
        state.recording = mode
    return tuple(_one(x, found.get(x._node), i, on_tensors, allowed, materialize_grads)
                 for i, x in enumerate(xs))


def _one(x: Any, g: Any, i: int, on_tensors: bool, allowed: bool, fill: bool) -> Any:
    if g is not None:
        return g if on_tensors else new(np.array(g, x.dtype, copy=None))
    if fill:
        return new(np.zeros(x.shape, x.dtype))
    if allowed:
        return None
    raise UnusedError(
        f"autograd.grad: input {i} ({type_of(x)}, {x._node.name} at {x._node.origin}) does not "
        "take part in the output. Pass allow_unused=True to get None for it, or "
        "materialize_grads=True to get zeros.")


def _batched(ys: list[Any], xs: list[Any], gs: list[Any], retain_graph: bool | None,
             create_graph: bool, allowed: bool, fill: bool) -> tuple[Any, ...]:
    """One pass for each row of the given gradients, stacked."""
    count = len(gs[0])
    rows = [grad(ys, xs, [g[i] for g in gs], retain_graph=True if i < count - 1 else retain_graph,
                 create_graph=create_graph, allow_unused=allowed, materialize_grads=fill)
            for i in range(count)]
    return tuple(None if column[0] is None else new(np.stack([g._value for g in column]))
                 for column in zip(*rows, strict=True))
