"""What the modules of public functions share: how a function becomes public, and axes."""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from chainrule.core.bind import bind
from chainrule.core.errors import IndexingError, ShapeError
from chainrule.core.primitive import TABLE

Function = TypeVar("Function", bound=Callable[..., Any])

FUNCTIONS: dict[str, Any] = {}
METHODS: dict[str, Any] = {}
ALL_AXES = [tuple(range(rank)) for rank in range(65)]      # NumPy's arrays have at most 64 axes


def public(function: Function) -> Function:
    """A function of the package."""
    FUNCTIONS[function.__name__] = function
    return function


def method(function: Function) -> Function:
    """A function of the package that is a method of Tensor too."""
    METHODS[function.__name__] = function
    return public(function)


def only_method(function: Function) -> Function:
    """A method of Tensor that is not a function."""
    METHODS[function.__name__] = function
    return function


def numpy_names(function: Function) -> Function:
    """Lets a function take NumPy's `axis` and `keepdims` for `dim` and `keepdim`."""
    @wraps(function)
    def renamed(*args: Any, **params: Any) -> Any:
        if "axis" in params:
            params["dim"] = params.pop("axis")
        if "keepdims" in params:
            params["keepdim"] = params.pop("keepdims")
        return function(*args, **params)

    return renamed  # type: ignore[return-value]


def row(name: str, *xs: Any, **params: Any) -> Any:
    return bind(TABLE[name], *xs, **params)


def axis_of(dim: int, rank: int, what: str) -> int:
    """dim counted from the front; out of range is an error."""
    size = max(rank, 1)
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)):
        raise IndexingError(f"{what}: dim must be a whole number, got {dim!r}")
    if not -size <= dim < size:
        raise IndexingError(f"{what}: dim {dim} is out of range for a tensor of {rank} axes "
                            f"(allowed: {-size} to {size - 1})")
    return int(dim) % size


def axes_of(dim: Any, rank: int, what: str) -> tuple[int, ...]:
    """dim (None, a number, several) as sorted distinct axes."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return ALL_AXES[rank]
    if type(dim) is int and -rank <= dim < rank:
        return (dim % rank,)
    dims = [dim] if not isinstance(dim, (tuple, list)) else dim
    axes = [axis_of(d, rank, what) for d in dims]
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{what}: axis {axes[0]} appears twice in dim={dim}")
    return () if rank == 0 else tuple(builtins.sorted(axes))


def unknown_name(module: str, names: list[str]) -> Callable[[str], Any]:
    """A module's `__getattr__`: the error for a name it lacks says which one may be meant."""
    def missing(name: str) -> Any:
        hint = ""
        if not name.startswith("__"):
            close = difflib.get_close_matches(name, names, 3, 0.6)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}")

    return missing
