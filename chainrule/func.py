"""Function transforms: grad, vjp, jvp, jacobians, hessian, vmap. They nest in any order.

Arguments may be tensors, modules, and nested lists, tuples and dicts of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from .autodiff.batch import Draws, replay
from .autodiff.forward import keeping_everything, leaf, push
from .autodiff.reverse import affected, reachable, reverse
from .core.bind import Value, state
from .core.errors import BatchingError, GradientError, NotScalarError, ShapeError
from .core.primitive import TABLE
from .core.record import new, placeholder
from .core.types import ArrayType, type_of
from .inplace import assign
from .tensor import Tensor
from .tree import flatten, tree_map, unflatten

__all__ = ["functional_call", "grad", "grad_and_value", "hessian", "hvp", "jacfwd", "jacrev",
           "jvp", "linearize", "value_and_grad", "vjp", "vmap"]

Function = Callable[..., Any]


class _recording:
    """Recording on while a transformed function runs, whatever is set outside."""

    def __enter__(self) -> None:
        self.before = state.recording
        state.recording = max(self.before, 1)

    def __exit__(self, *exc: object) -> None:
        state.recording = self.before


def _as_tensor(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (float, int, np.ndarray, np.generic)) and not isinstance(x, bool):
        return Tensor(np.asarray(x)) if hasattr(x, "dtype") else Tensor(float(x)) if isinstance(
            x, float) else new(np.asarray(x))
    raise GradientError(f"expected tensors (or nested lists, tuples, dicts of them), got "
                        f"{type(x).__name__}: {x!r:.60}")


def _chosen(args: tuple[Any, ...], argnums: Any) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise GradientError(f"argnums={argnums}: the function was called with {len(args)} "
                                "positional arguments")
    return tuple(n % len(args) for n in numbers)


def _float_leaf(x: Any) -> Any:
    x = _as_tensor(x)
    if x.dtype.kind != "f":
        raise GradientError(f"an argument to differentiate by must be float, got {type_of(x)}; "
                            "write x.float()")
    return leaf(x)


def _varied(args: tuple[Any, ...], argnums: Any) -> tuple[list[Any], list[Any], Any]:
    """(arguments with fresh leaves, the leaves, structure of the chosen arguments)."""
    numbers = _chosen(args, argnums)
    flat, structure = flatten([args[n] for n in numbers])
    leaves = [_float_leaf(x) for x in flat]
    replaced = list(args)
    for n, value in zip(numbers, unflatten(structure, handles(leaves)), strict=True):
        replaced[n] = value
    return replaced, leaves, structure


def handles(leaves: list[Any]) -> list[Any]:
    """What the function is given: it may change these in place, not the transform's own leaves."""
    return [new(x._value, x._node) for x in leaves]


def _pull(outputs: list[Any], cotangents: list[Any], leaves: list[Any]) -> list[Any]:
    """Cotangents of the leaves as Tensors; recorded only if something outside can see them."""
    roots = []
    for y, g in zip(outputs, cotangents, strict=True):
        if isinstance(y, Value) and y._node is not None:  # type: ignore[attr-defined]
            roots.append((y._node, g))  # type: ignore[attr-defined]
    wanted = [x._node for x in leaves]
    connected = seen_from_outside([n for n, _ in roots], wanted)
    outer = connected or any(g._value is None or g._node is not None for _, g in roots)
    seeds = roots if outer else [(n, g._value) for n, g in roots]
    before = state.recording
    state.recording = max(before, 1) if outer else 0
    try:
        found = reverse(seeds, wanted, on_tensors=outer, retain_graph=True,
                        connected=connected)
    finally:
        state.recording = before
    return [_cut(_cotangent(found.get(x._node), x, outer), leaves) for x in leaves]


def _cotangent(g: Any, x: Any, outer: bool) -> Any:
    if g is None:
        if x._value is None:
            return TABLE["zeros_like"](x)
        return new(np.zeros(x.shape, x.dtype))
    return g if outer else new(np.asarray(g, x.dtype))


def seen_from_outside(roots: list[Any], wanted: list[Any]) -> bool:
    """Does the recording depend on tracked or abstract tensors other than `wanted`?"""
    if not roots:
        return False
    if state.capture is not None:
        return True
    if any(node.inputs or node.out is None for node in wanted):
        return True                                # a leaf on top of an outer graph, or abstract
    order = reachable(roots, min(n.seq for n in wanted))
    on = affected(order, wanted)
    return any(edge is not None and edge not in on for node in order if node in on
               for edge in node.inputs)


def value_and_grad(f: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """A function that returns (f(...), gradient of f by the arguments `argnums`).

    f returns one number (with has_aux: that and anything else).
    """
    @wraps(f)
    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        with _recording():
            replaced, leaves, structure = _varied(args, argnums)
            result = f(*replaced, **kwargs)
            y, aux = result if has_aux else (result, None)
            if not isinstance(y, Tensor) or y.numel() != 1:
                what = type_of(y) if isinstance(y, Tensor) else type(y).__name__
                raise NotScalarError(f"grad: the function must return one number, it returned "
                                     f"{what}. Reduce it with .sum() or .mean(), or use jacrev.")
            seed = new(np.ones(tuple(y.shape), y.dtype))
            gradients = unflatten(structure, _pull([y], [seed], leaves))
        value = _outside(y, leaves)
        answer = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        return ((value, _outside_tree(aux, leaves)) if has_aux else value), answer

    return value_and_gradient


def _outside(y: Any, leaves: list[Any]) -> Any:
    """A result cut from the transform's own leaves, kept connected to what is outside."""
    if not isinstance(y, Tensor) or y._node is None or y._value is None:
        return _cut(y, leaves)
    own = [x._node for x in leaves]
    if seen_from_outside([y._node], own):
        return y
    order = reachable([y._node], min(n.seq for n in own)) if own else []
    return new(y._value) if y._node in affected(order, own) else y


def _cut(y: Any, leaves: list[Any]) -> Any:
    """In a compiled function: y, cut from the transform's leaves if nothing else is below it."""
    if state.capture is None or not isinstance(y, Tensor):
        return y
    return state.capture.released(y, [x._node for x in leaves])


def _outside_tree(tree: Any, leaves: list[Any]) -> Any:
    return tree_map(lambda y: _outside(y, leaves), tree)


def grad(f: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """A function that returns the gradient of f by the arguments `argnums`.

    >>> import chainrule as cr
    >>> cr.func.grad(lambda x: x**3)(cr.tensor(2.0))
    tensor(12.)
    """
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, answer = both(*args, **kwargs)
        return (answer, value[1]) if has_aux else answer

    return gradient


def grad_and_value(f: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """As value_and_grad, with the gradient first."""
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def gradient_and_value(*args: Any, **kwargs: Any) -> Any:
        value, answer = both(*args, **kwargs)
        return answer, value

    return gradient_and_value


def vjp(f: Function, *primals: Any, has_aux: bool = False) -> Any:
    """(f(*primals), pullback): pullback(g) is the tuple of cotangents Jᵀg of the primals."""
    with _recording():
        flat, structure = flatten(list(primals))
        leaves = [_float_leaf(x) for x in flat]
        result = f(*unflatten(structure, handles(leaves)))
    y, aux = result if has_aux else (result, None)
    outputs, out_structure = flatten(y)

    def pullback(*cotangents: Any) -> tuple[Any, ...]:
        given = cotangents[0] if len(cotangents) == 1 and not (
            out_structure.kind is tuple and len(outputs) > 1 and isinstance(
                cotangents[0], Value)) else cotangents
        gs = [_as_tensor(g) for g in flatten(given)[0]]
        if len(gs) != len(outputs):
            raise ShapeError(f"vjp: {len(outputs)} outputs, {len(gs)} cotangents")
        for g, out in zip(gs, outputs, strict=True):
            if g.shape != out.shape:
                raise ShapeError(f"vjp: the cotangent is {type_of(g)}, the output {type_of(out)}")
        with _recording():
            return tuple(unflatten(structure, _pull(outputs, gs, leaves)))

    value = _outside_tree(y, leaves)
    return (value, pullback, _outside_tree(aux, leaves)) if has_aux else (value, pullback)


def jvp(f: Function, primals: Any, tangents: Any, *, has_aux: bool = False) -> Any:
    """(f(*primals), J·tangents): values and directional derivatives in one forward pass."""
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise GradientError("jvp: primals and tangents are tuples: jvp(f, (x,), (t,))")
    flat, structure = flatten(list(primals))
    directions = [_as_tensor(t) for t in flatten(list(tangents))[0]]
    if len(flat) != len(directions):
        raise ShapeError(f"jvp: {len(flat)} primals, {len(directions)} tangents")
    with _recording(), keeping_everything():
        leaves = [_float_leaf(x) for x in flat]
        for x, t in zip(leaves, directions, strict=True):
            if x.shape != t.shape:
                raise ShapeError(f"jvp: the primal is {type_of(x)}, its tangent {type_of(t)}")
        result = f(*unflatten(structure, handles(leaves)))
    y, aux = result if has_aux else (result, None)
    outputs, out_structure = flatten(y)
    with _recording():
        tensors = [o for o in outputs if isinstance(o, Value)]
        connected = seen_from_outside([o._node for o in tensors if o._node is not None],  # type: ignore[attr-defined]
                                      [x._node for x in leaves])
        dots = push(tensors, leaves, directions, connected)
    found = iter(dots)
    moved = [next(found) if isinstance(o, Value) else None for o in outputs]
    filled = [_cut(d, leaves) if d is not None else zeros_for(o)
              for d, o in zip(moved, outputs, strict=True)]
    answer = (_outside_tree(y, leaves),
              unflatten(out_structure, filled))
    return (*answer, _outside_tree(aux, leaves)) if has_aux else answer


def zeros_for(y: Any) -> Any:
    return new(np.zeros(tuple(y.shape), y.dtype)) if isinstance(y, Value) else 0.0


def linearize(f: Function, *primals: Any) -> tuple[Any, Function]:
    """(f(*primals), the linear map t ↦ J·t)."""
    value = f(*primals)
    return value, lambda *tangents: jvp(f, primals, tangents)[1]


# ---------------------------------------------------------------- jacobians


def _basis(x: Any) -> Any:
    n = x.numel()
    return new(np.eye(n, dtype=x.dtype).reshape(n, *x.shape))


def _rows_to_leading(matrix: Any, y: Any) -> Any:
    """[numel(y), *rest] as [*y.shape, *rest]."""
    return TABLE["reshape"](matrix, shape=(*y.shape, *matrix.shape[1:]))


def jacrev(f: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """The Jacobian by reverse mode, one batched pullback: [*output shape, *input shape].

    For functions with fewer outputs than inputs.
    """
    @wraps(f)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums)

        def part(*chosen: Any) -> Any:
            replaced = list(args)
            for n, value in zip(numbers, chosen, strict=True):
                replaced[n] = value
            return f(*replaced, **kwargs)

        result = vjp(part, *[args[n] for n in numbers], has_aux=has_aux)
        y, pullback = result[0], result[1]
        outputs, structure = flatten(y)
        blocks = []
        for i, out in enumerate(outputs):
            def pull_one(g: Any, i: int = i) -> Any:
                gs = [g if k == i else TABLE["zeros_like"](o) for k, o in enumerate(outputs)]
                return pullback(unflatten(structure, gs))
            rows = vmap(pull_one)(_basis(out))
            rows = tree_map(lambda m, out=out: _rows_to_leading(m, out), rows)
            blocks.append(rows[0] if isinstance(argnums, int) else rows)
        answer = unflatten(structure, blocks)
        return (answer, result[2]) if has_aux else answer

    return jacobian


def jacfwd(f: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """The Jacobian by forward mode, one batched push: [*output shape, *input shape].

    For functions with fewer inputs than outputs.
    """
    @wraps(f)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums)
        aux: list[Any] = []

        def part(*chosen: Any) -> Any:
            replaced = list(args)
            for n, value in zip(numbers, chosen, strict=True):
                replaced[n] = value
            return f(*replaced, **kwargs)

        chosen = [args[n] for n in numbers]
        flat, structure = flatten(chosen)
        flat = [_as_tensor(x) for x in flat]
        columns = []
        for i, x in enumerate(flat):
            def push_one(t: Any, i: int = i) -> Any:
                ts = [t if k == i else TABLE["zeros_like"](o) for k, o in enumerate(flat)]
                result = jvp(part, tuple(unflatten(structure, flat)),
                             tuple(unflatten(structure, ts)), has_aux=has_aux)
                aux[:] = result[2:]
                return result[1]
            columns.append(tree_map(lambda m, x=x: _split_last(m, x),
                                    vmap(push_one, out_dims=-1)(_basis(x))))
        outs = [flatten(c) for c in columns]
        blocks = [unflatten(structure, [o[0][k] for o in outs])
                  for k in range(len(outs[0][0]))]
        answer = unflatten(outs[0][1], [b[0] if isinstance(argnums, int) else tuple(b)
                                        for b in blocks])
        return (answer, aux[0]) if has_aux else answer

    return jacobian


def _split_last(matrix: Any, x: Any) -> Any:
    return TABLE["reshape"](matrix, shape=(*matrix.shape[:-1], *x.shape))


def hessian(f: Function, argnums: Any = 0) -> Function:
    """Second derivatives, forward over reverse: [*input shape, *input shape].

    >>> import chainrule as cr
    >>> cr.func.hessian(lambda x: (x**3).sum())(cr.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(f, argnums), argnums)


def hvp(f: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """(gradient, Hessian · tangents) of a function of one argument, without the Hessian."""
    return jvp(grad(f, tuple(range(len(primals))) if len(primals) > 1 else 0), primals, tangents)


# ---------------------------------------------------------------- vmap


def vmap(f: Function, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error",
         chunk_size: int | None = None) -> Function:
    """f for one item made a function of a batch, along `in_dims` of each argument.

    f is run once without numbers; each operation is then done for all items together. in_dims:
    a number, None (not batched), or a tuple or tree of these. randomness: 'error', 'same' or
    'different'.

    >>> import chainrule as cr
    >>> cr.func.vmap(lambda a, b: a @ b)(cr.ones(3, 2), cr.ones(3, 2))
    tensor([2., 2., 2.])
    """
    @wraps(f)
    def batched(*args: Any, **kwargs: Any) -> Any:
        flat, structure = flatten(list(args))
        dims = _dims_for(in_dims, args, structure)
        flat = [_as_tensor(x) if d is not None else x for x, d in zip(flat, dims, strict=True)]
        dims = [None if d is None else _place(d, x) for d, x in zip(dims, flat, strict=True)]
        sizes = {x.shape[d] for x, d in zip(flat, dims, strict=True) if d is not None}
        if len(sizes) != 1:
            raise BatchingError(
                "vmap: no argument has a batch axis (in_dims is None for all)" if not sizes else
                f"vmap: the batch axes have different sizes: {sorted(sizes)}")
        size = sizes.pop()
        if chunk_size is not None and size > chunk_size:
            def part(own: list[Any], count: int) -> Any:
                return batched_part(own, dims, structure, count, kwargs)
            return _in_chunks(part, flat, dims, size, chunk_size, out_dims)
        return batched_part(flat, dims, structure, size, kwargs)

    def batched_part(flat: list[Any], dims: list[Any], structure: Any, size: int,
                     kwargs: dict[str, Any]) -> Any:
        items = [x if d is None else placeholder(_item(x, d))
                 for x, d in zip(flat, dims, strict=True)]
        nodes: list[Any] = [None if d is None else item._node
                            for item, d in zip(items, dims, strict=True)]
        env: dict[Any, Any] = {
            node: (x, d) for node, x, d in zip(nodes, flat, dims, strict=True) if d is not None}
        before = state.draws, state.tracing
        draws = state.draws = Draws(randomness, size, before[0])
        state.tracing = "vmap"
        try:
            y = f(*unflatten(structure, items), **kwargs)
        finally:
            state.draws, state.tracing = before
        written = [(item, x, d) for item, x, d, node in zip(items, flat, dims, nodes, strict=True)
                   if d is not None and item._node is not node]
        env.update(draws.env)
        outputs, out_structure = flatten(y)
        for out in outputs:
            if not isinstance(out, Tensor):
                raise BatchingError(f"vmap: the function must return tensors, it returned "
                                    f"{type(out).__name__}: {out!r:.60}")
        places = _dims_for(out_dims, y, out_structure) if not isinstance(out_dims, int) else [
            out_dims] * len(outputs)
        found = replay([*outputs, *[item for item, _, _ in written]], env)
        values = [_with_axis(value, axis, place, size)
                  for (value, axis), place in zip(found, places, strict=False)]
        for (_, x, d), (new_value, axis) in zip(written, found[len(outputs):], strict=True):
            back = _with_axis(new_value, axis, d, size)
            assign(x, partial(_given, back), "a function inside vmap")
        return unflatten(out_structure, values)

    return batched


def _given(value: Any, _: Any) -> Any:
    return value


def _item(x: Any, d: int) -> ArrayType:
    return ArrayType(tuple(n for i, n in enumerate(x.shape) if i != d), x.dtype)


def _place(d: int, x: Any) -> int:
    if not -x.ndim <= d < x.ndim:
        raise BatchingError(f"vmap: in_dims says axis {d}, the argument is {type_of(x)}")
    return d % x.ndim  # type: ignore[no-any-return]


def _dims_for(dims: Any, args: Any, structure: Any) -> list[Any]:
    """One axis (or None) for each leaf of the arguments, from a number or a tree prefix."""
    if dims is None or isinstance(dims, int):
        return [dims] * int(structure.leaves)
    result: list[Any] = []
    parts = list(dims.values()) if isinstance(dims, dict) else list(dims)
    if len(parts) != len(structure.children):
        raise BatchingError(f"vmap: {len(parts)} axes given for {len(structure.children)} "
                            "arguments")
    for part, child in zip(parts, structure.children, strict=True):
        result.extend(_dims_for(part, None, child))
    return result


def _with_axis(value: Any, axis: int | None, place: int, size: int) -> Any:
    if axis is None:
        value = TABLE["broadcast"](value, shape=(size, *value.shape))
        axis = 0
    rank = len(value.shape)
    place = place % rank
    if axis == place:
        return value
    order = [i for i in range(rank) if i != axis]
    order.insert(place, axis)
    return TABLE["permute"](value, order=tuple(order))


def _in_chunks(part: Any, flat: list[Any], dims: list[Any], size: int, chunk: int,
               out_dims: Any) -> Any:
    if chunk <= 0:
        raise BatchingError(f"vmap: chunk_size must be positive, got {chunk}")
    pieces = []
    for start in range(0, size, chunk):
        stop = min(start + chunk, size)
        own = [x if d is None else x[(*[slice(None)] * d, slice(start, stop))]
               for x, d in zip(flat, dims, strict=True)]
        pieces.append(flatten(part(own, stop - start)))
    structure = pieces[0][1]
    columns = zip(*[p[0] for p in pieces], strict=True)
    joined = [TABLE["concatenate"](*column, axis=place % column[0].ndim)
              for column, place in zip(columns, _dims_for(out_dims, None, structure), strict=True)]
    return unflatten(structure, joined)


def functional_call(module: Any, parameters: Any, args: Any = (), kwargs: Any = None) -> Any:
    """module(*args) with its parameters and buffers replaced by those in a dict of names."""
    given = {}
    for part in parameters if isinstance(parameters, (list, tuple)) else [parameters]:
        given.update(part)
    return module._call_with(given, args if isinstance(args, tuple) else (args,), kwargs or {})
