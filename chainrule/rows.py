"""Public functions and Tensor methods generated from the table.

Every elementwise row, and every composite that names its arguments, becomes a function
`name(input, other, *, params)` and, if it is public, a method and (for floats of one shape) an
in-place method. Functions with PyTorch signatures of their own stand in ops.py. The types of all
of it are in rows.pyi, which `python -m chainrule.testing.stubs` writes and a test compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import prims
from .core.bind import bind
from .core.primitive import TABLE, Primitive
from .core.record import direct_function, unary_function


class Methods:
    """The methods of Tensor that come from the table and from ops.py; `attach` adds them."""

    __slots__ = ()


def attach(name: str, function: Callable[..., Any]) -> None:
    """Make `function(input, ...)` a method of Tensor."""
    setattr(Methods, name, function)


def function_of(prim: Primitive) -> Callable[..., Any]:
    """The public function of a row."""
    if prim.kind == "elementwise" and len(prim.arguments) == 1 and not prim.options:
        function: Callable[..., Any] = unary_function(prim)
    elif prim.pulls and not prim.options and not prim.promote:
        function = direct_function(prim)
    else:
        function = _with_params(prim)
    function.__name__ = function.__qualname__ = prim.public
    function.__module__ = "chainrule"
    function.__doc__ = prim.doc
    return function


def _with_params(prim: Primitive) -> Callable[..., Any]:
    most = len(prim.arguments)
    options = prim.options
    names = list(options)

    def function(*xs: Any, **params: Any) -> Any:
        if len(xs) > most:                         # params may also be given by position
            params.update(zip(names, xs[most:], strict=False))
            if len(xs) > most + len(names):
                raise TypeError(f"{prim.name}() takes {', '.join((*prim.arguments, *names))}; "
                                f"got {len(xs)} positional arguments")
            xs = xs[:most]
        unknown = set(params) - set(names) - set(prim.arguments)
        if unknown:
            raise TypeError(f"{prim.name}() has no option {', '.join(sorted(unknown))}; it takes "
                            f"{', '.join((*prim.arguments, *names))}")
        for argument in prim.arguments[len(xs):]:
            if argument in params:
                xs = (*xs, params.pop(argument))
        return bind(prim, *xs, **{**options, **params})

    return function


def public_rows() -> dict[str, Primitive]:
    """Rows whose public function is generated, by public name."""
    return {p.public: p for p in TABLE.values()
            if p.public and p.kind in ("elementwise", "composite")}


_functions = {name: function_of(prim) for name, prim in public_rows().items()}
globals().update({name.lstrip("_"): f for name, f in _functions.items()})
for _name, _function in _functions.items():
    if not _name.startswith("_"):
        attach(_name, _function)

__all__ = [name for name in _functions if not name.startswith("_")]
assert prims is not None
