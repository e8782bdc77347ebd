"""`Tensor`: the user's handle on a value and on the node that made it."""

from __future__ import annotations

import itertools
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from . import autograd
from .core.bind import Value, state
from .core.changes import changed
from .core.config import settings
from .core.cuts import note_cut
from .core.errors import DtypeError, ForeignTensorError, GradientError, LeafError, ShapeError
from .core.node import Node, version
from .core.places import note_place
from .core.primitive import TABLE, Primitive
from .core.record import (
    INPUT,
    UNREAD,
    apply,
    binary_operator,
    extra,
    leaf_node,
    new,
    refuse_number,
    set_handle,
)
from .core.types import SHORT_NAMES, as_dtype, bool_, int64, type_of
from .device import device, refuse_cuda, require_cpu
from .rows import Methods

CPU = device("cpu")

_JOIN_DTYPES = {np.dtype(d) for d in ("f2", "f4", "f8", "u1", "i4", "i8", "?")}


class Size(tuple[int, ...]):
    """A shape: a tuple that also counts its elements."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements of an array of this shape."""
        n = 1
        for length in self:
            n *= length
        return n

    def __repr__(self) -> str:
        return f"chainrule.Size({list(self)})"


def array_from(data: Any, dtype: Any = None, copy: bool = True) -> np.ndarray[Any, Any]:
    """`data` (numbers, nested lists, arrays, tensors) as an array of a supported dtype."""
    if isinstance(data, Tensor):
        data = data.numpy_now("cr.tensor()")
    if isinstance(data, (list, tuple)) and data:
        data = _joined(data)
    given = isinstance(data, (np.ndarray, np.generic))
    try:
        value = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"cr.tensor: the nested lists do not form a box: {error}") from None
    if dtype is not None:
        wanted = as_dtype(dtype)
        if value.dtype.kind not in "fiub":
            raise _no_dtype(value)
        return value.astype(wanted, copy=copy)
    if value.dtype not in SHORT_NAMES:
        if value.dtype.kind in "iu" and not given and value.size:
            raise DtypeError(f"cr.tensor: {value.ravel()[0]} does not fit into int64")
        raise _no_dtype(value)
    if not given and value.dtype.kind == "f":
        return value.astype(settings.default_dtype)
    if not given and value.size == 0:
        return value.astype(settings.default_dtype)
    return value.copy() if copy else value


def _no_dtype(value: np.ndarray[Any, Any]) -> DtypeError:
    return DtypeError(
        f"cr.tensor: an array of dtype {value.dtype} cannot be a tensor. Convert it first, e.g. "
        "x.astype('float32'); text and objects have to be turned into numbers.")


def _joined(data: Any) -> Any:
    """Nested lists that hold tensors, with those replaced by their arrays."""
    if any(isinstance(x, Tensor) for x in data):
        return np.stack([array_from(x) for x in data])
    if isinstance(data[0], (list, tuple)) and any(_holds_tensor(x) for x in data):
        return np.stack([array_from(x) for x in data])
    if isinstance(data[0], (np.generic, np.ndarray)) and all(
            isinstance(x, (np.generic, np.ndarray)) and x.dtype == data[0].dtype
            and x.shape == data[0].shape for x in data):
        return np.array(data)
    return data


def _holds_tensor(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and any(
        isinstance(y, Tensor) or _holds_tensor(y) for y in x)


class Tensor(Methods, Value):
    """An n-dimensional array whose operations can be recorded for differentiation.

    Make one with `cr.tensor(data)`; `cr.Tensor(data)` gives the default float dtype. `grad` holds
    the gradient after `backward()`.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0, 2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.grad
    tensor([2., 4.])
    """

    __slots__ = ("__weakref__", "_extra", "_grad", "_node", "_value")

    _value: Any
    _node: Node | None
    _grad: Any
    _extra: Any

    def __init__(self, *data: Any, dtype: Any = None, requires_grad: bool = False) -> None:
        traced = None
        if state.capture is not None and len(data) == 1:
            traced = state.capture.copy_of(data[0], dtype)
        if traced is not None:
            value = None
        elif len(data) != 1 or isinstance(data[0], int):
            value = np.zeros(data, as_dtype(dtype or float))
        else:
            value = array_from(data[0], dtype or (None if isinstance(
                data[0], (np.ndarray, Tensor)) else float))
        self._value = value
        self._node = None if traced is None else traced._node
        self._grad = None
        self._extra = None
        if requires_grad:
            self.requires_grad_()

    # ------------------------------------------------------------ what it is

    @property
    def shape(self) -> Size:
        """The sizes of the axes."""
        value = self._value
        return Size(value.shape if value is not None else self._node.shape)  # type: ignore[union-attr]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The kind of number: cr.float32 and so on."""
        value = self._value
        return value.dtype if value is not None else self._node.dtype  # type: ignore[union-attr]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        value = self._value
        return value.ndim if value is not None else len(self._node.shape)  # type: ignore[union-attr]

    @property
    def requires_grad(self) -> bool:
        """Is this a leaf that asked for a gradient, or computed from one?"""
        node = self._node
        if node is None:
            return False
        if self._value is not None:
            return True
        if node.prim is None:
            return node.plan is not INPUT
        return node.plan is None and node.dtype.kind == "f"

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    @property
    def is_leaf(self) -> bool:
        """Was it made by the user rather than computed from tracked tensors?"""
        node = self._node
        return node is None or node.prim is None or (node.plan is UNREAD and self._value is None)

    @property
    def grad_fn(self) -> Node | None:
        """The node that made it, or None for a leaf."""
        return None if self.is_leaf else self._node

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by `backward()`, or None."""
        if self._grad is None and not self.is_leaf and not self.retains_grad:
            warn_of_no_grad(self)
        return self._grad  # type: ignore[no-any-return]

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise LeafError(f".grad must be a tensor or None, not {type(value).__name__}")
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ShapeError(f".grad of a {type_of(self)} tensor cannot be {type_of(value)}; "
                                 "shape and dtype must be the same")
        self._grad = value

    @property
    def data(self) -> Tensor:
        """The same memory without the history; assigning replaces the value."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if state.capture is not None:
            state.capture.replace_data(self, value)
            return
        other = value._value if isinstance(value, Tensor) else np.asarray(value, self.dtype)
        if self._node is not None and (other.shape != self.shape or other.dtype != self.dtype):
            self._node = leaf_node(self, other.shape, other.dtype) if self.is_leaf else self._node
        self._value = other
        changed(self)

    @property
    def device(self) -> device:
        """Always device('cpu')."""
        return CPU

    @property
    def is_cuda(self) -> bool:
        """Always False."""
        return False

    @property
    def name(self) -> str:
        """A name used in explanations and errors; set it freely."""
        return self._extra.name if self._extra is not None else ""

    @name.setter
    def name(self, value: str) -> None:
        extra(self).name = value

    @property
    def _version(self) -> int:
        return version(self._value)

    def is_floating_point(self) -> bool:
        """Is the dtype float16, float32 or float64?"""
        return self.dtype.kind == "f"

    def is_inference(self) -> bool:
        """Was it made under `inference_mode`?"""
        return self._extra is not None and self._extra.inference

    def is_contiguous(self) -> bool:
        """Do the elements lie in row-major order without gaps?"""
        if self._value is None:
            return state.capture is None or bool(state.capture.is_in_order(self))
        return bool(self._value.flags.c_contiguous)

    def stride(self, dim: int | None = None) -> Any:
        """Steps between neighbours along the axes, in elements."""
        if self._value is None and state.capture is not None:
            steps = state.capture.strides(self)
        else:
            value = self.numpy_now(".stride()")
            steps = tuple(s // value.itemsize for s in value.strides)
        return steps if dim is None else steps[dim]

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.shape.numel() * self.dtype.itemsize

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self.shape.numel()

    nelement = numel

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[dim]

    # ------------------------------------------------------------ its numbers

    def numpy_now(self, what: str) -> np.ndarray[Any, Any]:
        """The array behind the tensor; `what` asks for it."""
        if self._value is None:
            raise refuse_number(what)
        return self._value  # type: ignore[no-any-return]

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The array itself, not a copy. A tensor that requires a gradient must be detached first.

        >>> import chainrule as cr
        >>> cr.ones(2).numpy()
        array([1., 1.], dtype=float32)
        """
        if self.requires_grad and not force and self._value is not None:
            raise GradientError(
                f"numpy() on a tensor ({type_of(self)}) that requires a gradient: what NumPy does "
                "with it would not be recorded. Write x.detach().numpy() if that is meant.")
        return self.numpy_now(".numpy()")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        value = self.numpy()
        return np.array(value, dtype, copy=copy) if dtype is not None or copy else value

    def item(self) -> Any:
        """The one number as a Python number."""
        return self._number(".item()")

    def _number(self, what: str) -> Any:
        value = self.numpy_now(what)
        if value.size != 1:
            raise ShapeError(f"item() wants one number, this tensor is {type_of(self)}; use "
                             ".tolist(), or reduce it first")
        if self._node is not None:
            note_cut(".item()", self._node)
        return value.item()

    def tolist(self) -> Any:
        """The numbers as nested Python lists."""
        return self.numpy_now(".tolist()").tolist()

    def __bool__(self) -> bool:
        value = self.numpy_now("the truth of a tensor (if, while, and, or)")
        if value.size != 1:
            raise ShapeError(f"the truth of a tensor with {value.size} elements ({type_of(self)}) "
                             "is not defined; use .any() or .all()")
        return bool(value.item())

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __int__(self) -> int:
        return int(self._number("int()"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DtypeError(f"only a whole number can be an index, this tensor is {type_of(self)}")
        return int(self._number("an index"))

    def __format__(self, spec: str) -> str:
        if self.ndim == 0 and spec:
            return format(self.numpy_now("format()").item(), spec)
        if spec:
            raise ShapeError(f"the format {spec!r} is for one number, this tensor is "
                             f"{type_of(self)}; format its elements, x.tolist(), one by one")
        return repr(self)

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("len() of a 0-d tensor; it holds one number, .item() gives it")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise ShapeError("a 0-d tensor cannot be iterated; it holds one number")
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, item: Any) -> bool:
        return bool((self == item).any())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return describe(self)

    # ------------------------------------------------------------ gradients

    def backward(self, gradient: Any = None, retain_graph: bool | None = None,
                 create_graph: bool = False, inputs: Any = None) -> None:
        """Add d(self)/dw to w.grad of every leaf w this tensor was computed from.

        gradient      the cotangent to start from; 1 for a single number
        retain_graph  keep saved values for another pass (default: as create_graph)
        create_graph  record the pass itself, for second derivatives
        inputs        accumulate into these tensors only
        """
        autograd.backward(self, gradient, retain_graph, create_graph, inputs)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for (or no longer ask for) a gradient; returns the tensor."""
        if not requires_grad:
            if not self.is_leaf:
                raise LeafError(
                    f"requires_grad = False on a computed tensor ({type_of(self)}, "
                    f"{self._node.name} at {self._node.origin}): only a leaf can stop requiring "  # type: ignore[union-attr]
                    "its gradient. Use x.detach() for a version without history.")
            if self._node is not None:
                self._node = None
                note_place(self, "frozen")
                changed(self)
            return self
        if self.dtype.kind != "f":
            raise LeafError(f"a tensor of dtype {self.dtype} cannot require a gradient: whole "
                            "numbers and bools do not change continuously. Make it float: "
                            "x.float().requires_grad_()")
        if state.capture is not None:
            state.capture.require_grad(self)
        elif self._node is None:
            self._node = leaf_node(self, self._value.shape, self._value.dtype)
        return self

    def detach(self) -> Tensor:
        """The same memory as a tensor no gradient flows through."""
        if state.capture is not None:
            return state.capture.detach(self)  # type: ignore[no-any-return]
        if self._value is None:
            return apply(TABLE["stop_gradient"], (self,), {})  # type: ignore[no-any-return]
        if self._node is not None:
            note_cut("detach() or .data", self._node)
        return new(self._value)  # type: ignore[no-any-return]

    def detach_(self) -> Tensor:
        """Cut this tensor itself from its history."""
        if state.capture is not None:
            state.capture.cut(self)
        elif self._value is None:
            self._node = self.detach()._node
        else:
            note_cut("detach_()", self._node)
            self._node = None
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this computed tensor in `.grad` as well."""
        if self._node is None:
            raise LeafError("retain_grad() on a tensor that does not require a gradient")
        if self.is_leaf:
            return
        reference = weakref.ref(self)

        def keep(g: Tensor) -> None:
            tensor = reference()
            if tensor is not None:
                mine = g if g._node is not None or g._value is None else new(g._value.copy())
                tensor._grad = mine if tensor._grad is None else tensor._grad + mine

        _hooks(self._node)["retain"] = keep

    @property
    def retains_grad(self) -> bool:
        """Was `retain_grad()` called?"""
        return self._node is not None and bool(self._node.hooks) and "retain" in self._node.hooks

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Handle:
        """Call `hook(gradient)` when this tensor's gradient is computed; a result replaces it."""
        if self._node is None:
            raise LeafError("register_hook() on a tensor that does not require a gradient")
        hooks = _hooks(self._node)
        last = hooks.pop("retain", None)
        handle = Handle(hooks, hook)
        if last is not None:
            hooks["retain"] = last
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Handle:
        """Call `hook(tensor)` after its `.grad` was updated by a backward pass."""
        if not self.is_leaf or self._node is None:
            raise LeafError("register_post_accumulate_grad_hook() is for leaves that require a "
                            "gradient")
        mine = extra(self)
        if mine.after_grad is None:
            mine.after_grad = {}
        return Handle(mine.after_grad, hook)

    # ------------------------------------------------------------ copies and conversions

    def to(self, *args: Any, dtype: Any = None, copy: bool = False, **more: Any) -> Tensor:
        """The tensor in another dtype; a device name other than 'cpu' is refused."""
        require_cpu(more.get("device"))
        for arg in args:
            if isinstance(arg, str) and arg.split(":")[0] in ("cpu", "cuda", "mps", "xpu"):
                require_cpu(arg)
            elif isinstance(arg, Tensor):
                dtype = arg.dtype
            elif arg is not None and not isinstance(arg, bool):
                dtype = arg
        wanted = self.dtype if dtype is None else as_dtype(dtype)
        if wanted == self.dtype:
            return self.clone() if copy else self
        return apply(TABLE["cast"], (self,), {"dtype": wanted})  # type: ignore[no-any-return]

    def type(self, dtype: Any = None) -> Any:
        """The tensor in another dtype; the name of its dtype if none is given."""
        return f"chainrule.{self.dtype}" if dtype is None else self.to(dtype)

    def float(self) -> Tensor:
        """As float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(np.float64)

    def half(self) -> Tensor:
        """As float16."""
        return self.to(np.float16)

    def long(self) -> Tensor:
        """As int64."""
        return self.to(int64)

    def int(self) -> Tensor:
        """As int32."""
        return self.to(np.int32)

    def bool(self) -> Tensor:
        """As bool: is each element non-zero?"""
        return self.to(bool_)

    def cpu(self) -> Tensor:
        """The tensor itself."""
        return self

    def cuda(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: there is no device but the CPU."""
        refuse_cuda("x")

    def contiguous(self) -> Tensor:
        """The tensor itself if its elements lie in order, else a copy in order."""
        if state.capture is not None and self._value is None:
            return state.capture.in_order(self)  # type: ignore[no-any-return]
        return self if self.is_contiguous() else self.clone()

    def __deepcopy__(self, memo: Any) -> Tensor:
        if not self.is_leaf:
            raise LeafError(f"deepcopy of a computed tensor ({type_of(self)}): its history cannot "
                            "be copied. Use x.detach().clone(), or x.clone() to stay connected.")
        copied = type(self).__new__(type(self), *(() if type(self) is Tensor else (self._value,)))
        copied._value = self._value.copy()
        copied._grad = None if self._grad is None else new(self._grad._value.copy())
        copied._extra = None
        copied._node = None
        if self._node is not None:
            copied._node = leaf_node(copied, copied._value.shape, copied._value.dtype)
        memo[id(self)] = copied
        return copied

    def __copy__(self) -> Tensor:
        return self.__deepcopy__({})

    def __reduce__(self) -> NoReturn:
        raise DtypeError("tensors are not pickled; cr.save(path) writes safetensors, "
                         ".detach().numpy() gives an array")

    # ------------------------------------------------------------ operators

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """`bind` hands calls on Tensors here."""
        return apply(prim, xs, params)

    __array_ufunc__: Any = None         # set in attach.py

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> NoReturn:
        """PyTorch asks here when it is given one of these tensors; the two do not mix."""
        raise ForeignTensorError(
            f"torch's {getattr(function, '__name__', function)} got a chainrule tensor: tensors of "
            "chainrule and of torch cannot be mixed in one operation. Convert one of them: "
            "cr.tensor(t.detach().numpy()), or torch.tensor(x.detach().numpy())")


def _reflected(cls: type) -> None:
    for method, name in {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow",
                         "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and",
                         "or": "bitwise_or", "xor": "bitwise_xor"}.items():
        setattr(cls, f"__{method}__", binary_operator(TABLE[name]))
        setattr(cls, f"__r{method}__", binary_operator(TABLE[name], swapped=True))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(cls, f"__{name}__", binary_operator(TABLE[name]))


_handle_key = itertools.count().__next__


class Handle:
    """What registering a hook returns; `remove()` undoes it."""

    def __init__(self, hooks: dict[Any, Any], hook: Any) -> None:
        self._hooks = weakref.ref(hooks) if isinstance(hooks, _Hooks) else (lambda: hooks)
        self._key = _handle_key()
        hooks[self._key] = hook
        changed()

    def remove(self) -> None:
        """Take the hook away."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self._key, None)
            changed()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class _Hooks(dict[Any, Any]):
    """Hooks of one node, in the order they run."""

    __slots__ = ("__weakref__",)


def _hooks(node: Node) -> dict[Any, Any]:
    if node.hooks is None:
        node.hooks = _Hooks()
    return node.hooks  # type: ignore[no-any-return]


# How tensors print; `set_printoptions` changes it. A line width of None is NumPy's.
PRINTED: dict[str, Any] = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": None,
                           "sci_mode": None}


def _scientific(number: Any) -> str:
    return f"{number:.{PRINTED['precision']}e}"


def warn_of_no_grad(x: Tensor) -> None:
    """Said to a user who reads `.grad` where none will ever be."""
    frame = sys._getframe(2)
    if frame.f_globals.get("__name__", "").startswith("chainrule."):
        return
    warnings.warn(
        f"the .grad of a tensor that is not a leaf ({type_of(x)}, made by {x._node.name} at "  # type: ignore[union-attr]
        f"{x._node.origin}) is None: backward() fills only leaves. Call retain_grad() on it "  # type: ignore[union-attr]
        "before backward(), or read the .grad of the leaf it was computed from.", UserWarning,
        stacklevel=3)


def describe(x: Tensor) -> str:
    """How a tensor prints."""
    value = x._value
    parts = []
    if value is None and state.tracing == "compile":
        raise refuse_number("the text of a tensor (print, format, repr)")
    if value is None:
        parts.append(f"<{type_of(x)}, traced>")
    else:
        with np.errstate(all="ignore"):
            parts.append(np.array2string(
                value, separator=", ", prefix="tensor(", precision=PRINTED["precision"],
                threshold=PRINTED["threshold"], edgeitems=PRINTED["edgeitems"],
                max_line_width=PRINTED["linewidth"], suppress_small=bool(
                    value.size and _plain(value)) if PRINTED["sci_mode"] is None else True,
                formatter={"float_kind": _scientific} if PRINTED["sci_mode"] else None,
                floatmode="maxprec_equal" if value.ndim else "maxprec"))
        if (value.dtype != settings.default_dtype and value.dtype not in (int64, bool_)) or (
                not value.size):
            parts.append(f"dtype={value.dtype}")
    if x._node is not None:
        parts.append("requires_grad=True" if x.is_leaf else f"grad_fn=<{x._node.name}>")
    return f"tensor({', '.join(parts)})"


def _plain(value: np.ndarray[Any, Any]) -> bool:
    """Can the numbers be printed without exponents?"""
    if value.dtype.kind != "f":
        return True
    size = np.abs(value[np.isfinite(value) & (value != 0)].astype(np.float64))
    return bool(not size.size or (size.max() < 1e6 and size.min() >= 1e-4))


set_handle(Tensor)
_reflected(Tensor)
