"""Graph → Arrays: each node by its row's `lower`, else by its definition, else as a NumPy call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.compiler.arrays.arrays import LOWER, Array, Arrays, folded, param_key, types
from chainrule.compiler.arrays.simplify import simpler
from chainrule.compiler.lanes.registers import COMPUTED, Lane, Registers
from chainrule.core.graph import Graph, operands_of
from chainrule.core.node import Node
from chainrule.core.primitive import Primitive
from chainrule.core.types import ArrayType

# Lanes of the trial that asks a row whether, and at what cost, it can be written for some dtypes.
TRIAL = 4


def lower(graph: Graph) -> tuple[Arrays, list[Array]]:
    """The Arrays of a graph, and its outputs among them."""
    builder = Arrays()
    env: dict[Node, Array] = {}
    for position, node in enumerate(graph.inputs):
        env[node] = builder.input(position, node.type)
    for node in graph.nodes:
        builder.origin = node
        assert node.prim is not None
        xs = []
        for x in operands_of(node):
            if isinstance(x, Node):
                xs.append(env[x])
            elif isinstance(x, (np.ndarray, np.generic)):
                xs.append(builder.const(x))
            else:
                xs.append(x)
        made = lower_row(builder, node.prim, tuple(xs), node.params)
        if made.type != node.type:
            raise TypeError(f"{node.name} was lowered to {made.type} instead of {node.type}")
        env[node] = made
    outputs = [env[out] if isinstance(out, Node) else builder.const(out) for out in graph.outputs]
    return builder, outputs


def lower_row(builder: Arrays, prim: Primitive, xs: tuple[Any, ...],
              params: dict[str, Any]) -> Array:
    """One row applied to Arrays and numbers that are already of one dtype and shape."""
    if prim.kind == "elementwise":
        return lower_elementwise(builder, prim, xs, params)
    native = all(x.dtype in COMPUTED for x in xs if isinstance(x, Array))
    if prim.lower is not None and native:
        made = prim.lower(builder, *xs, **params)
        if made is not NotImplemented and made.dtype in COMPUTED:
            return made  # type: ignore[no-any-return]
    if prim.definition is not None and native:
        return prim.definition(*xs, **params)  # type: ignore[no-any-return]
    return builder.call(prim, xs, params, prim.infer(*types(xs), **params))


def lower_elementwise(builder: Arrays, prim: Primitive, xs: tuple[Any, ...],
                      params: dict[str, Any]) -> Array:
    found = simpler(builder, prim, xs, params)
    if found is not None:
        return found  # type: ignore[no-any-return]
    out: ArrayType = prim.infer(*types(xs), **params)
    number = folded(prim, xs, params)
    if number is not None:
        return builder.broadcast(builder.const(number.astype(out.dtype)), out.shape)
    chosen = prim.promoted if prim.promoted is not None else range(len(xs))
    if not any(isinstance(xs[i], Array) for i in chosen):
        xs = tuple([builder.full(x, out.shape, out.dtype) if i in chosen else x
                    for i, x in enumerate(xs)])
    cost = written_cost(prim, xs, params, out)
    if cost is None:
        return builder.call(prim, xs, params, out)
    lower_ = prim.lower
    assert lower_ is not None
    write = (lambda e, *lanes: lower_(e, *lanes, **params)) if params else lower_
    made = builder.map(prim.name, write, *xs, dtype=out.dtype, cost=cost,
                       key=param_key(params) if params else None)
    assert made.shape == out.shape
    return made


_costs: dict[Any, int | None] = {}


def written_cost(prim: Primitive, xs: Sequence[Any], params: dict[str, Any],
                 out: ArrayType) -> int | None:
    """How many instructions the row takes for these dtypes; None if it cannot be written."""
    if prim.lower is None or out.dtype not in COMPUTED:
        return None
    key = (prim.name, tuple([x.dtype.str if isinstance(x, Array) else x for x in xs]),
           param_key(params))
    if key not in _costs:
        _costs[key] = _trial(prim.lower, xs, params, out)
    return _costs[key]


def _trial(lower_: Callable[..., Any], xs: Sequence[Any], params: dict[str, Any],
           out: ArrayType) -> int | None:
    if any(isinstance(x, Array) and x.dtype not in COMPUTED for x in xs):
        return None
    e = Registers(TRIAL)
    lanes = [Lane(e, f"%x{i}", x.dtype, TRIAL) if isinstance(x, Array) else x
             for i, x in enumerate(xs)]
    made = lower_(e, *lanes, **params)
    if made is NotImplemented or made.dtype != out.dtype:
        return None
    return len(e.lines)


LOWER.append(lower_row)
