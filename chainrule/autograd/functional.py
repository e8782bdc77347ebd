"""PyTorch's `autograd.functional`: Jacobians and products with them, by `chainrule.func`.

`inputs` is a tensor or a tuple of tensors, the arguments of `func`. Results are cut from the graph
unless `create_graph` is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule import func as transforms
from chainrule.core.errors import NotScalarError
from chainrule.core.primitive import TABLE
from chainrule.core.types import type_of
from chainrule.tensor import Tensor
from chainrule.tree import tree_map

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Function = Callable[..., Any]


def jacobian(func: Function, inputs: Any, create_graph: bool = False, strict: bool = False,
             vectorize: bool = False, strategy: str = "reverse-mode") -> Any:
    """The Jacobian [*output shape, *input shape]; for tuples, a tuple per output and input.

    >>> import chainrule as cr
    >>> cr.autograd.functional.jacobian(lambda x: x**2, cr.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    make = transforms.jacfwd if strategy == "forward-mode" else transforms.jacrev
    return _result(make(func, _numbers(inputs))(*_listed(inputs)), create_graph)


def hessian(func: Function, inputs: Any, create_graph: bool = False, strict: bool = False,
            vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """Second derivatives of a function whose value is one number."""
    return _result(transforms.hessian(_one_number(func), _numbers(inputs))(*_listed(inputs)),
                   create_graph)


def vjp(func: Function, inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> Any:
    """(func(*inputs), vᵀJ); v may be left out if the value is one number."""
    y, pull = transforms.vjp(func, *_listed(inputs))
    if v is None:
        if not isinstance(y, Tensor) or y.numel() != 1:
            raise NotScalarError("vjp: the function's value is not one number "
                                 f"({type_of(y) if isinstance(y, Tensor) else 'a tuple'}): give v, "
                                 "the weight of each element")
        v = TABLE["ones_like"](y) if "ones_like" in TABLE else TABLE["zeros_like"](y) + 1
    found = pull(*v) if isinstance(v, tuple) else pull(v)
    return _result((y, _as_given(inputs, found)), create_graph)


def jvp(func: Function, inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> Any:
    """(func(*inputs), J·v); v may be left out if the input is one number."""
    xs = _listed(inputs)
    if v is None:
        if len(xs) != 1 or xs[0].numel() != 1:
            raise NotScalarError("jvp: the input is not one number: give v, the direction")
        v = TABLE["zeros_like"](xs[0]) + 1
    return _result(transforms.jvp(func, xs, _listed(v)), create_graph)


def hvp(func: Function, inputs: Any, v: Any, create_graph: bool = False,
        strict: bool = False) -> Any:
    """(func(*inputs), H·v) for a function whose value is one number, without the Hessian."""
    xs = _listed(inputs)
    own = _one_number(func)
    numbers = tuple(range(len(xs)))
    _, moved = transforms.jvp(transforms.grad(own, numbers), xs, _listed(v))
    return _result((own(*xs), _as_given(inputs, tuple(moved))), create_graph)


def vhp(func: Function, inputs: Any, v: Any, create_graph: bool = False,
        strict: bool = False) -> Any:
    """(func(*inputs), vᵀH), which is `hvp`, since a Hessian is symmetric."""
    return hvp(func, inputs, v, create_graph, strict)


def _listed(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _numbers(inputs: Any) -> Any:
    return tuple(range(len(inputs))) if isinstance(inputs, (tuple, list)) else 0


def _as_given(inputs: Any, found: tuple[Any, ...]) -> Any:
    return found if isinstance(inputs, (tuple, list)) else found[0]


def _one_number(func: Function) -> Function:
    def scalar(*xs: Any) -> Any:
        y = func(*xs)
        if not isinstance(y, Tensor) or y.numel() != 1:
            raise NotScalarError("second derivatives are of functions whose value is one number; "
                                 f"this one's is {type_of(y) if isinstance(y, Tensor) else y!r}")
        return y.reshape(())

    return scalar


def _result(tree: Any, create_graph: bool) -> Any:
    return tree if create_graph else tree_map(lambda x: x.detach(), tree)
