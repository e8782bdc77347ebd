"""Makes Tensor complete: methods from the table and ops, in-place twins, indexing, operators."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import autograd, random
from chainrule.core.bind import Value, bind, state
from chainrule.core.errors import DtypeError, GradientError, ShapeError
from chainrule.core.node import wrote
from chainrule.core.primitive import TABLE
from chainrule.core.record import direct_function, is_operand, new
from chainrule.core.types import SHORT_NAMES, result_dtype, type_of
from chainrule.indexing import fitted, get, masked, parse, put, traced_mask
from chainrule.inplace import assign
from chainrule.rows import Methods, public_rows
from chainrule.tensor import Tensor

from . import arithmetic, comparison, creation, ops, shaping, statistics, writing
from .einsum import einsum
from .surface import FUNCTIONS, METHODS

ALIASES = {"concat": "cat", "concatenate": "cat", "swapaxes": "transpose", "swapdims": "transpose",
           "moveaxis": "movedim", "clip": "clamp", "true_divide": "div", "divide": "div"}
IN_PLACE = ("clamp", "masked_fill", "scatter", "scatter_add", "index_add", "cumsum", "addmm",
            "tril", "triu", "clamp_min", "clamp_max", "addcmul", "addcdiv", "lerp", "nan_to_num",
           "logit", "index_fill", "index_copy", "index_put", "masked_scatter", "addmv", "baddbmm")


def in_place(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The twin `name_` of a function: the same values written into the first argument."""
    def method(self: Tensor, *args: Any, **params: Any) -> Tensor:
        return assign(self, lambda x: function(x, *args, **params), name)  # type: ignore[no-any-return]
    method.__name__ = name
    method.__doc__ = f"`{name[:-1]}` in place."
    return method


def add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input + alpha·other."""
    return bind(TABLE["add"], input, other if alpha == 1 else scaled(input, other, alpha))


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input − alpha·other."""
    return bind(TABLE["sub"], input, other if alpha == 1 else scaled(input, other, alpha))


def scaled(input: Any, other: Any, alpha: Any) -> Any:
    """alpha·other; whole numbers are scaled by whole numbers only."""
    if isinstance(alpha, float) and result_dtype([input, other]).kind != "f":
        raise DtypeError(f"alpha={alpha} with whole numbers ({type_of(input)}): the result would "
                         "not be whole; convert first, x.float()")
    return other * alpha


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """input / other; rounding_mode None, 'trunc' (towards 0) or 'floor' (towards −∞)."""
    if rounding_mode is None:
        return bind(TABLE["div"], input, other)
    if rounding_mode == "floor":
        return bind(TABLE["floor_divide"], input, other)
    if rounding_mode != "trunc":
        raise ShapeError(f"div: rounding_mode {rounding_mode!r}; write None, 'trunc' or 'floor'")
    quotient = bind(TABLE["trunc"], bind(TABLE["div"], input, other))
    whole = all((not hasattr(x, "dtype") and isinstance(x, int)) or x.dtype.kind in "iu"
                for x in (input, other))
    return quotient.long() if whole else quotient


def add_inplace_value(self: Tensor, value: Any, what: str) -> Tensor:
    """The value written over all of self, which stays connected: its old gradient becomes 0."""
    def make(x: Any) -> Any:
        y = fitted(value, tuple(x.shape), x)
        if state.capture is not None:
            replaces = y.requires_grad or not (state.recording and x.requires_grad)
        else:
            replaces = y._node is not None
        if replaces:
            return bind(TABLE["identity"], y)      # a node of its own, not that of the source
        if x._node is None:
            return y
        return bind(TABLE["keep"], x, np.zeros(tuple(x.shape), bool)) + y

    return assign(self, make, what)  # type: ignore[no-any-return]


def fill_(self: Tensor, value: Any) -> Tensor:
    """Every element replaced by one number."""
    return add_inplace_value(self, value, "fill_()")


def zero_(self: Tensor) -> Tensor:
    """Every element replaced by 0."""
    return add_inplace_value(self, 0, "zero_()")


def copy_(self: Tensor, src: Tensor) -> Tensor:
    """The numbers of `src` (broadcast, converted) written into this tensor."""
    return add_inplace_value(self, src, "copy_()")


def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Tensor:
    """Replaced by numbers uniform in [a, b)."""
    return add_inplace_value(self, random.rand_like(self, generator=generator) * (b - a) + a,
                             "uniform_()")


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Replaced by normal numbers."""
    return add_inplace_value(self, random.randn_like(self, generator=generator) * std + mean,
                             "normal_()")


def bernoulli_(self: Tensor, p: float = 0.5, *, generator: Any = None) -> Tensor:
    """Replaced by 1 with probability p, else 0."""
    return add_inplace_value(self, random.rand_like(self, generator=generator) < p, "bernoulli_()")


def getitem(self: Tensor, key: Any) -> Tensor:
    return get(self, key)  # type: ignore[no-any-return]


def setitem(self: Tensor, key: Any, value: Any) -> None:
    """x[key] = value: through the view for basic keys, by points for arrays and masks."""
    if not is_operand(value) and not isinstance(value, Value):
        value = np.asarray(value)
    mask = traced_mask(key)
    if mask is not None:
        assign(self, lambda x: masked(x, *mask, value), "x[mask] = value")
        return
    basic, arrays = parse(self, key)
    if not arrays:
        part = bind(TABLE["slice"], self, key=basic)
        assign(part, lambda x: fitted(value, tuple(x.shape), x), "x[...] = value")
        return
    if arrays and any(not isinstance(k, slice) for k in basic):
        part = bind(TABLE["slice"], self, key=basic)
        rest = tuple(arrays.get(i, slice(None)) for i in range(part.ndim))
        assign(part, lambda x: put(x, rest, value), "x[...] = value")
        return
    assign(self, lambda x: put(x, key, value), "x[...] = value")


def mT(self: Tensor) -> Tensor:
    """The last two axes exchanged."""
    if self.ndim < 2:
        raise ShapeError(f".mT needs two axes, this tensor is {type_of(self)}")
    return shaping.transpose(self, -2, -1)


def T(self: Tensor) -> Tensor:
    """All axes in reversed order."""
    return shaping.permute(self, *reversed(range(self.ndim)))


_matrix_product = direct_function(TABLE["matmul"])


def operator_matmul(self: Tensor, other: Any) -> Any:
    if isinstance(other, Tensor) and self.ndim == 2 and other.ndim == 2:
        return _matrix_product(self, other)
    return ops.matmul(self, other) if is_operand(other) else NotImplemented


def operator_rmatmul(self: Tensor, other: Any) -> Any:
    return ops.matmul(ops.as_operand(other), self) if is_operand(other) else NotImplemented


def augmented(name: str) -> Callable[[Tensor, Any], Any]:
    prim = TABLE[name]

    def operator(self: Tensor, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        return assign(self, lambda x: bind(prim, x, other), f"{name} in place")

    return operator


UFUNCS = {prim.eval: prim for prim in TABLE.values() if isinstance(prim.eval, np.ufunc)}
UFUNCS |= {np.power: TABLE["pow"], np.remainder: TABLE["remainder"], np.matmul: TABLE["matmul"],
           np.floor_divide: TABLE["floor_divide"], np.reciprocal: TABLE["reciprocal"],
           np.sign: TABLE["sign"], np.rint: TABLE["round"], np.degrees: TABLE["rad2deg"],
           np.radians: TABLE["deg2rad"], np.rad2deg: TABLE["rad2deg"],
           np.deg2rad: TABLE["deg2rad"]}


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NumPy's functions on a Tensor: `np.sin(x)` and `array + x` are rows of the table.

    What has no row is computed by NumPy where no gradient is lost by it.
    """
    prim = UFUNCS.get(ufunc)
    if method == "__call__" and not kwargs and prim is not None and all(map(is_operand, inputs)):
        return ops.matmul(*map(ops.as_operand, inputs)) if ufunc is np.matmul else bind(
            prim, *inputs)
    given = [*inputs, *kwargs.get("out", ()), kwargs.get("where")]
    if any(isinstance(x, Tensor) and x.requires_grad for x in given):
        what = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        better = "it with functions of chainrule"
        if prim is not None and method == "__call__":
            better = f"w.{prim.name}()" if ufunc.nin == 1 else f"cr.{prim.name}(a, b)"
        if "out" in kwargs:
            what += "(out=array), as in `array += w`,"
            better += ", which gives a new tensor"
        raise GradientError(f"{what} on a tensor ({type_of(self)}) that requires a gradient: NumPy "
                            f"would not record it. Write {better}, or give NumPy "
                            "w.detach().numpy()")
    out = kwargs.pop("out", None)
    if out is not None:
        kwargs["out"] = tuple([x.numpy() if isinstance(x, Tensor) else x for x in out])
    found = getattr(ufunc, method)(*[
        x.numpy() if isinstance(x, Tensor) else x for x in inputs], **kwargs)
    for x in out or ():
        if isinstance(x, Tensor):
            wrote(x._value)
    if out is not None:
        return out[0] if len(out) == 1 else out
    return new(np.asarray(found)) if type_known(found) else found


def type_known(x: Any) -> bool:
    """Is it an array or number whose dtype a tensor can have?"""
    return isinstance(x, (np.ndarray, np.generic)) and x.dtype in SHORT_NAMES


LATER = ("gradcheck", "gradgradcheck")


def autograd_later(name: str) -> Any:
    """The names of `autograd` that are imported when first used."""
    if name in LATER:
        return getattr(importlib.import_module("chainrule.gradcheck"), name)
    if name == "functional":
        return importlib.import_module("chainrule.autograd.functional")
    raise AttributeError(f"module 'chainrule.autograd' has no attribute {name!r}")


def complete() -> None:
    """Attach everything to Tensor."""
    FUNCTIONS.update(add=add, sub=sub, div=div, subtract=sub)
    METHODS.update(add=add, sub=sub, div=div, subtract=sub)
    METHODS.update({new_: METHODS[old] for new_, old in ALIASES.items() if old in METHODS})
    FUNCTIONS.update({new_: FUNCTIONS[old] for new_, old in ALIASES.items() if old in FUNCTIONS})
    for name, function in METHODS.items():
        setattr(Methods, name, function)
    for name in (*(n for n in public_rows() if not n.startswith("_")), *IN_PLACE, *ALIASES):
        function = METHODS.get(name) or getattr(Methods, name, None)
        if function is not None:
            setattr(Methods, f"{name}_", in_place(function, f"{name}_"))
    for function in (fill_, zero_, copy_, uniform_, normal_, bernoulli_):
        setattr(Methods, function.__name__, function)
    special: dict[str, Any] = {
        "__array_ufunc__": array_ufunc, "__getitem__": getitem, "__setitem__": setitem,
        "mT": property(mT), "T": property(T),
        "__matmul__": operator_matmul, "__rmatmul__": operator_rmatmul,
        "__neg__": Methods.neg, "__abs__": Methods.abs,
        "__invert__": Methods.bitwise_not, "__pos__": lambda x: x}
    for method, name in {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div",
                         "ipow": "pow", "ifloordiv": "floor_divide", "imod": "remainder",
                         "iand": "bitwise_and", "ior": "bitwise_or", "ixor": "bitwise_xor"}.items():
        special[f"__{method}__"] = augmented(name)
    for name, function in special.items():
        setattr(Tensor, name, function)
    vars(autograd)["__getattr__"] = autograd_later
    autograd.__all__ += [*LATER, "functional"]


complete()
# Imported for the functions they register.
assert all((arithmetic, comparison, creation, einsum, statistics, writing))
