"""How a primitive is applied to Tensors: evaluate, promote, broadcast, record.

There is one general path, `apply`, and two short ones, `binary_operator` and `unary_function`, for
the operations a training step is made of: same dtype, float, no params. The short paths do what
the general one does, only without asking what cannot be.

A result is recorded when an operand is tracked. An eager node has an edge only where a gradient
can flow; a traced node (operands without numbers) has an edge for every operand it depends on.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from .bind import Value, bind, state
from .config import settings
from .cures import cure
from .cuts import note_cut
from .errors import DtypeError, ShapeError, TracedValueError
from .node import Node, Origin, storage_of, user_place
from .primitive import TABLE, Primitive, Reads
from .types import ArrayType, float32, float64, result_dtype, scalar_dtype, type_of

ndarray = np.ndarray
NO_PARAMS: dict[str, Any] = {}
TRACKED = (True,)
UNREAD = Reads((), 0)            # plan of a traced node whose results carry no gradient
INPUT = Reads((), 0)             # plan of a traced input that asks for none
LEAKED = Reads((), 0)            # plan of what is left of a traced tensor when its trace is over

tracers = 0                      # how many threads are running a function to compile it

# The class of the user's handle; set by tensor.py, which stands above this package.
HANDLE: list[Any] = []
Tensor: Any = None
_blank: Any = None


def set_handle(cls: type) -> None:
    """Say which class wraps results. It has the slots _value, _node, _grad and _extra."""
    global Tensor, _blank
    HANDLE[:] = [cls]
    Tensor = cls
    _blank = cls.__new__


def new(value: Any, node: Node | None = None) -> Any:
    """A Tensor around an array that is already right."""
    tensor = _blank(Tensor)
    if tracers and value is None and state.capture is not None:
        state.capture.fill(tensor, node)
        return tensor
    tensor._value = value
    tensor._node = node
    tensor._grad = None
    tensor._extra = None
    return tensor


class Extra:
    """What few tensors have: a name, a place in a family of views, the inference mark."""

    __slots__ = ("after_grad", "alias_of", "aliases", "children", "inference", "name", "parent",
                 "view_of")

    def __init__(self) -> None:
        self.parent: Any = None            # the tensor this one is a view of
        self.view_of: Any = None           # (prim, params) that made it from its parent
        self.children: list[Any] = []      # weak references to the views of this tensor
        self.name: str = ""
        self.inference = False
        self.alias_of: Any = None          # in a compiled function: what it shares memory with
        self.aliases: list[Any] = []       # and weak references to those it is shared with
        self.after_grad: dict[int, Any] | None = None     # post-accumulate hooks


def extra(tensor: Any) -> Extra:
    found = tensor._extra
    if found is None:
        found = tensor._extra = Extra()
    return found  # type: ignore[no-any-return]


def node_here(prim: Primitive | None, inputs: tuple[Node | None, ...], params: dict[str, Any],
              saved: tuple[Any, ...], out: Any, plan: Any,
              shape: tuple[int, ...], dtype: Any) -> Node:
    """A node that remembers the user's line that is running."""
    scope = state.scope
    code, lasti = (scope and scope[2]) or user_place(sys._getframe(1))
    return Node(prim, inputs, params, saved, out, plan, shape, dtype, code, lasti, scope)


def leaf_node(tensor: Any, shape: tuple[int, ...], dtype: Any) -> Node:
    """The node of a tensor that starts a graph; it knows its tensor weakly."""
    return node_here(None, (), NO_PARAMS, (), weakref.ref(tensor), UNREAD, shape, dtype)


def placeholder(type_: ArrayType) -> Any:
    """A tensor without numbers, an input of a trace."""
    return new(None, node_here(None, (), NO_PARAMS, (), None, UNREAD, type_.shape, type_.dtype))


def broadcast_edge(node: Node, shape: tuple[int, ...], code: Any, lasti: int) -> Node:
    """The edge of an operand that NumPy stretched to `shape`; no array is made."""
    return Node(TABLE["broadcast"], (node,), {"shape": shape}, (node,), None,
                Reads((1,), 0), shape, node.dtype, code, lasti, state.scope)


# ---------------------------------------------------------------- the general path


def apply(prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """Apply `prim` to Tensors, arrays and numbers."""
    if tracers and state.capture is not None:
        xs, params = state.capture.operands(prim, xs, params)
    if len(xs) == 1 and prim.pulls:
        dtype = xs[0].dtype
        if dtype is float32 or dtype is float64 or not prim.promote:
            return apply_one(prim, xs[0], params)
    if prim.kind == "composite" and prim.pulls == () and any(
            isinstance(x, Value) and x._node is not None for x in xs):  # type: ignore[attr-defined]
        assert prim.definition is not None
        return prim.definition(*xs, **params)
    if prim.promote:
        xs = promoted(prim, xs)
    values = []
    edges: list[Node | None] = []
    tracked = False
    for x in xs:
        if isinstance(x, Value):
            value = x._value  # type: ignore[attr-defined]
            if value is None:
                return trace(prim, xs, params)
            node = x._node  # type: ignore[attr-defined]
            if node is not None:
                tracked = True
            edges.append(node)
            values.append(value)
        else:
            edges.append(None)
            values.append(x)
    try:
        y = prim.eval(*values, **params)
    except (ValueError, TypeError, IndexError) as error:
        raise explained(prim, values, params, error) from None
    if type(y) is not ndarray:
        y = np.asarray(y)
    mode = state.recording
    if tracked and mode and y.dtype.kind == "f":
        pulls = prim.pulls
        for i, node in enumerate(edges):
            if node is not None and pulls[i] is None:
                edges[i] = None
        need = tuple([node is not None for node in edges])
        if True in need:
            result = new(y, record(prim, edges, need, xs, values, params, y, mode))
            return linked_view(prim, xs[0], params, result) if prim.view else result
    elif tracked and mode:
        note_whole_result(prim, xs, y)
    result = new(y)
    if state.inference:
        extra(result).inference = True
    return linked_view(prim, xs[0], params, result) if prim.view else result


def note_whole_result(prim: Primitive, xs: tuple[Any, ...], y: Any) -> None:
    """A tracked operand went into whole numbers or truth values, and its gradient ends there."""
    node = next((x._node for x in xs if isinstance(x, Value) and x._node is not None), None)  # type: ignore[attr-defined]
    note_cut(f".to({y.dtype})" if prim.name == "cast" else
             f"{prim.name}, whose result is {type_of(y)},", node)


def apply_one(prim: Primitive, x: Any, params: dict[str, Any]) -> Any:
    """`apply` to one Tensor that needs no promotion."""
    value = x._value
    if value is None:
        return trace(prim, (x,), params)
    try:
        y = prim.eval(value, **params)
    except (ValueError, TypeError, IndexError) as error:
        raise explained(prim, [value], params, error) from None
    if type(y) is not ndarray:
        y = np.asarray(y)
    n = x._node
    mode = state.recording
    node = None
    if n is not None and mode and y.dtype.kind == "f" and prim.pulls[0] is not None:
        reads = prim.reads(TRACKED)
        limit = settings.keep_small
        if mode == 2 or (y.size <= limit and value.size <= limit):
            saved, out = value, y
        else:
            saved = value if reads.inputs[0] == 2 else n
            out = y if reads.output == 2 else None
        scope = state.scope
        code, lasti = (scope and scope[2]) or user_place(sys._getframe(1))
        node = Node(prim, (n,), params, (saved,), out, reads, y.shape, y.dtype, code, lasti, scope)
    elif n is not None and mode:
        note_whole_result(prim, (x,), y)
    result = new(y, node)
    if state.inference:
        extra(result).inference = True
    if prim.view:
        base = y.base
        if base is not None and (base is value or base is value.base):
            return related(prim, x, params, result)
        return linked_view(prim, x, params, result)
    return result


def record(prim: Primitive, edges: list[Node | None], need: tuple[bool, ...], xs: tuple[Any, ...],
           values: list[Any], params: dict[str, Any], y: Any, mode: int) -> Node:
    """The node of an eager result, keeping what the rules read (or everything, if small)."""
    scope = state.scope
    code, lasti = (scope and scope[2]) or user_place(sys._getframe(2))
    shape = y.shape
    if prim.kind == "elementwise":
        for i, node in enumerate(edges):
            if node is not None and node.shape != shape:
                edges[i] = broadcast_edge(node, shape, code, lasti)
    reads = prim.reads(need)
    saved = list(values)
    out = y
    if mode == 1 and not is_small(values, y):
        for i in reads.unread:
            if isinstance(values[i], ndarray):
                stub = edges[i]
                saved[i] = stub if stub is not None else type_of(values[i])
        if reads.output != 2:
            out = None
    if None in edges:
        for i, x in enumerate(xs):
            if reads.inputs[i] == 2 and isinstance(x, Value):
                extra_ = x._extra  # type: ignore[attr-defined]
                if extra_ is not None and extra_.inference:
                    refuse_inference(prim)
    return Node(prim, tuple(edges), params, tuple(saved), out, reads, shape, y.dtype,
                code, lasti, scope)


def is_small(values: Any, y: Any) -> bool:
    limit = settings.keep_small
    if y.size > limit:
        return False
    for value in values:  # noqa: SIM110  (a generator would cost more than the loop)
        if type(value) is ndarray and value.size > limit:
            return False
    return True


def refuse_inference(prim: Primitive) -> None:
    from_ = Origin.now()
    raise DtypeError(
        f"{prim.name} at {from_} would save a tensor made under inference_mode() for the backward "
        "pass, but such tensors are not watched for changes. Make it under no_grad() instead, or "
        "use a clone() of it here.")


def linked_view(prim: Primitive, source: Any, params: dict[str, Any], result: Any) -> Any:
    """Remember that `result` shows memory of `source`, for in-place changes through either."""
    value = result._value
    if not isinstance(source, Value) or storage_of(value) is not storage_of(source._value):  # type: ignore[attr-defined]
        return result
    return related(prim, source, params, result)


def related(prim: Primitive, source: Any, params: dict[str, Any], result: Any) -> Any:
    """The result, noted as a view of its source."""
    mine = extra(result)
    mine.parent = source
    mine.view_of = (prim, params)
    siblings = extra(source).children
    if len(siblings) > 16 and len(siblings) & (len(siblings) - 1) == 0:
        siblings[:] = [reference for reference in siblings if reference() is not None]
    siblings.append(weakref.ref(result))
    return result


def promoted(prim: Primitive, xs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The operands with one dtype, by PyTorch's rules; Python numbers stay numbers."""
    for x in xs:
        if isinstance(x, np.generic):          # a NumPy number counts as a Python number
            xs = tuple([x.item() if isinstance(x, np.generic) else x for x in xs])
            break
    if prim.check is not None:
        prim.check(*xs)
    chosen = prim.promoted if prim.promoted is not None else range(len(xs))
    group = [xs[i] for i in chosen]
    dtype = result_dtype(group)
    if dtype.kind != "f":
        if prim.promote == "float":
            dtype = settings.default_dtype
        elif prim.promote == "number" and dtype.kind == "b":
            dtype = np.dtype("int64")
    result = list(xs)
    for i in chosen:
        x = xs[i]
        if isinstance(x, (Value, ndarray)):
            if x.dtype != dtype:
                result[i] = (TABLE["cast"](x, dtype=dtype) if isinstance(x, Value)
                             else x.astype(dtype))
        elif dtype.kind != "f" or scalar_dtype(x).kind == "b":
            result[i] = wrapped(x, dtype)
    return tuple(result)


def wrapped(x: Any, dtype: Any) -> Any:
    """A Python number as a 0-d array of `dtype`, integers wrapping around as PyTorch's do."""
    return np.asarray(x).astype(dtype)


def explained(prim: Primitive, values: list[Any], params: dict[str, Any],
              error: Exception) -> Exception:
    """The error the row's type rule gives for these operands, or NumPy's own."""
    types = [type_of(v) if hasattr(v, "shape") else None for v in values]
    if prim.kind == "elementwise":
        try:
            np.broadcast_shapes(*[t.shape for t in types if t is not None])
        except ValueError:
            return shapes_do_not_broadcast(prim, types)
        if isinstance(error, TypeError):
            shown = ", ".join(str(t) for t in types if t is not None)
            return DtypeError(f"{prim.name} is not defined for {shown}; convert the operands, e.g. "
                              "x.long() for bits, x.bool() for truth values")
    else:
        try:
            prim.infer(*[type_of(v) for v in values], **params)
        except (ValueError, TypeError, IndexError) as better:
            return better
    return error


def shapes_do_not_broadcast(prim: Primitive, types: Any) -> ShapeError:
    shown = [t for t in types if t is not None]
    a, b = shown[0], shown[-1]
    for axis in range(1, 1 + min(a.ndim, b.ndim)):
        m, n = a.shape[-axis], b.shape[-axis]
        if m != n and 1 not in (m, n):
            return ShapeError(
                f"{prim.name}: cannot broadcast {' with '.join(map(str, shown))}: axis {-axis} has "
                f"{m} elements in the one and {n} in the other. Sizes are compared from the last "
                f"axis on and must be equal or 1; reshape or unsqueeze one of them.")
    return ShapeError(f"{prim.name}: cannot broadcast {' with '.join(map(str, shown))}.")


# ---------------------------------------------------------------- tracing


def trace(prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """Record without numbers: what vmap and the compiler do."""
    if prim.kind == "elementwise":
        types = [type_of(x) for x in xs if hasattr(x, "shape")]
        try:
            shape = np.broadcast_shapes(*[t.shape for t in types])
        except ValueError:
            raise shapes_do_not_broadcast(prim, types) from None
        xs = tuple([stretched(x, shape) for x in xs])
    out = prim.infer(*[type_of(x) if hasattr(x, "shape") else None for x in xs], **params)
    edges = tuple([x._node if isinstance(x, Value) else None for x in xs])  # type: ignore[attr-defined]
    plan = None if state.recording else UNREAD
    # handles of their own: the user's may get another node by an in-place operation
    saved = tuple([new(x._value, x._node) if isinstance(x, Value) else x for x in xs])  # type: ignore[attr-defined]
    if state.capture is not None:
        plan, saved = state.capture.recorded(prim, edges, saved, out)
    else:
        refuse_leaked(edges)
    result = new(None, node_here(prim, edges, params, saved, None, plan, out.shape, out.dtype))
    return related(prim, xs[0], params, result) if prim.view else result


def stretched(x: Any, shape: tuple[int, ...]) -> Any:
    if not hasattr(x, "shape") or tuple(x.shape) == shape:
        return x
    if isinstance(x, ndarray):
        return np.broadcast_to(x, shape)
    return TABLE["broadcast"](x, shape=shape)


def refuse_number(what: str) -> TracedValueError:
    """The error for asking a traced tensor for its number."""
    where = Origin.now()
    if state.tracing == "compile":
        error = TracedValueError(
            f"{what} at {where} asks for the number in a tensor, but a compiled function is run by "
            f"Python only once, without numbers; later calls do what was recorded then.\n"
            f"    {where.source()}\n"
            f"{cure(what)}")
        capture = state.capture
        if capture is not None and capture.refused is None:
            capture.refused = error            # raised again if the function swallows it
        return error
    if not state.tracing:
        return TracedValueError(
            f"{what} at {where} asks for the number in a tensor that has none: it was kept (in a "
            f"list, an attribute or a variable) from inside a function that was run without "
            f"numbers, by cr.compile or vmap.\n    {where.source()}\n"
            "Return it from that function instead.")
    return TracedValueError(
        f"{what} at {where} asks for the number in a tensor, but "
        f"{state.tracing} runs this function once without numbers, for all "
        f"of them together.\n    {where.source()}\n"
        "Write the choice with cr.where(condition, a, b) instead of a Python `if`, and move "
        ".item(), .numpy(), print() and NumPy calls outside the function.")


def refuse_leaked(edges: Any) -> None:
    """Raise if an operand is left over from a trace that ended."""
    for edge in edges:
        if edge is not None and edge.plan is LEAKED:
            raise TracedValueError(
                f"a tensor without numbers is used at {Origin.now()}: it was made at {edge.origin} "
                f"inside a compiled function and kept (in a list, an attribute or a variable).\n"
                f"    {edge.origin.source()}\n"
                "Python runs a compiled function only once, so what it stores is not updated by "
                "later calls. Return the tensor from the function instead.")


# ---------------------------------------------------------------- the short paths


def plans_of(prim: Primitive, arity: int) -> Callable[[tuple[bool, ...]], Reads]:
    known: dict[tuple[bool, ...], Reads] = {}

    def plan(need: tuple[bool, ...]) -> Reads:
        found = known.get(need)
        if found is None:
            allowed = tuple(n and prim.pulls[i] is not None for i, n in enumerate(need))
            found = known[need] = prim.reads(allowed)
        return found

    return plan


def binary_operator(prim: Primitive, swapped: bool = False) -> Callable[[Any, Any], Any]:
    """The function behind `a + b`: the short path for floats of one dtype and Python numbers."""
    evaluate = prim.eval
    differentiable = prim.differentiable
    plan_of = plans_of(prim, 2)
    both, first, second = (True, True), (True, False), (False, True)
    getframe = sys._getframe

    def infix(self: Any, other: Any) -> Any:
        x = self._value
        n = self._node
        kind = type(other)
        if x is None:
            return NotImplemented if not is_operand(other) else bind_pair(self, other)
        dtype = x.dtype
        if kind is float or kind is int:
            if dtype is not float32 and dtype is not float64:
                return bind_pair(self, other)
            z = other
            m = None
        elif kind is Tensor:
            z = other._value
            if z is None or z.dtype is not dtype or (dtype is not float32
                                                     and dtype is not float64):
                return bind_pair(self, other)
            m = other._node
        elif is_operand(other):
            return bind_pair(self, other)
        else:
            return NotImplemented
        if swapped:
            x, z = z, x
            n, m = m, n
        try:
            y = evaluate(x, z)
        except (ValueError, TypeError) as error:
            raise explained(prim, [x, z], NO_PARAMS, error) from None
        if type(y) is not ndarray:
            y = np.asarray(y)
        result = _blank(Tensor)
        result._value = y
        result._grad = None
        result._extra = None
        result._node = None
        if n is None and m is None:
            if state.inference:
                extra(result).inference = True
            return result
        mode = state.recording
        if not mode or not differentiable:
            if mode:
                note_whole_result(prim, (self, other), y)
            if state.inference:
                extra(result).inference = True
            return result
        shape = y.shape
        scope = state.scope
        code, lasti = (scope and scope[2]) or user_place(getframe(1))
        need = both
        if n is None:
            need = second
        elif n.shape != shape:
            n = broadcast_edge(n, shape, code, lasti)
        if m is None:
            need = first
        elif m.shape != shape:
            m = broadcast_edge(m, shape, code, lasti)
        plan = plan_of(need)
        if y.size <= settings.keep_small or mode == 2:
            saved: tuple[Any, ...] = (x, z)
            out = y
        else:
            reads = plan.inputs
            saved = (x if reads[0] == 2 or type(x) is not ndarray else n,
                     z if reads[1] == 2 or type(z) is not ndarray else m)
            out = y if plan.output == 2 else None
        if need is not both and kind is Tensor and (self._extra or other._extra) is not None:
            check_inference(prim, plan, self, other, swapped)
        result._node = Node(prim, (n, m), NO_PARAMS, saved, out, plan, shape, dtype,
                            code, lasti, scope)
        return result

    def bind_pair(self: Any, other: Any) -> Any:
        return apply(prim, (other, self) if swapped else (self, other), {})

    infix.__name__ = prim.name
    return infix


def check_inference(prim: Primitive, plan: Reads, a: Any, b: Any, swapped: bool) -> None:
    for level, x in zip(plan.inputs, (b, a) if swapped else (a, b), strict=True):
        if level == 2 and x._extra is not None and x._extra.inference:
            refuse_inference(prim)


def is_operand(x: Any) -> bool:
    return isinstance(x, (Value, ndarray, bool, int, float, np.generic))


def unary_function(prim: Primitive) -> Callable[[Any], Any]:
    """The function behind `tanh(x)` on a float Tensor."""
    evaluate = prim.eval
    reads = None
    pull = prim.pulls[0]
    promotes = prim.promote
    getframe = sys._getframe

    def function(x: Any) -> Any:
        nonlocal reads
        if type(x) is not Tensor or x._value is None:
            return bind(prim, x)
        value = x._value
        dtype = value.dtype
        if dtype is not float32 and dtype is not float64 and promotes:
            return apply(prim, (x,), {})
        try:
            y = evaluate(value)
        except TypeError as error:
            raise explained(prim, [value], NO_PARAMS, error) from None
        if type(y) is not ndarray:
            y = np.asarray(y)
        result = _blank(Tensor)
        result._value = y
        result._grad = None
        result._extra = None
        n = x._node
        mode = state.recording
        if n is None or not mode or pull is None or y.dtype is not dtype:
            result._node = None
            if state.inference:
                extra(result).inference = True
            return result
        scope = state.scope
        code, lasti = (scope and scope[2]) or user_place(getframe(1))
        if reads is None:
            reads = prim.reads((True,))
        if y.size <= settings.keep_small or mode == 2:
            saved, out = value, y
        else:
            saved = value if reads.inputs[0] == 2 else n
            out = y if reads.output == 2 else None
        result._node = Node(prim, (n,), NO_PARAMS, (saved,), out, reads, y.shape, dtype,
                            code, lasti, scope)
        return result

    function.__name__ = prim.name
    return function


def direct_function(prim: Primitive) -> Callable[..., Any]:
    """The function behind a row of two or three operands without promotion, such as linear."""
    evaluate = prim.eval
    known = prim._reads
    getframe = sys._getframe

    def function(a: Any, b: Any, c: Any = None, /, **params: Any) -> Any:
        xs = (a, b) if c is None else (a, b, c)
        if params:
            return bind(prim, *xs, **params)
        try:
            edges = (a._node, b._node) if c is None else (a._node, b._node, c._node)
            values = [a._value, b._value] if c is None else [a._value, b._value, c._value]
        except AttributeError:                    # an array or a number among them
            return bind(prim, *xs)
        try:
            y = evaluate(*values)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            if any(value is None for value in values):
                return trace(prim, xs, {})
            raise explained(prim, values, params, error) from None
        if type(y) is not ndarray:
            y = np.asarray(y)
        result = _blank(Tensor)
        result._value = y
        result._node = None
        result._grad = None
        result._extra = None
        mode = state.recording
        if c is None:
            need: tuple[bool, ...] = (edges[0] is not None, edges[1] is not None)
        else:
            need = (edges[0] is not None, edges[1] is not None, c._node is not None)
        if not mode or True not in need:
            if state.inference:
                extra(result).inference = True
            return result
        plan = known.get(need)
        if plan is None:
            plan = prim.reads(need)
        out = y
        if mode == 1 and (y.size > settings.keep_small or not is_small(values, y)):
            for i in plan.unread:
                stub = edges[i]
                values[i] = stub if stub is not None else type_of(values[i])
            if plan.output != 2:
                out = None
        scope = state.scope
        code, lasti = (scope and scope[2]) or user_place(getframe(1))
        result._node = Node(prim, edges, NO_PARAMS, tuple(values), out, plan, y.shape, y.dtype,
                            code, lasti, scope)
        return result

    return function
