"""Tensors from nothing: cr.tensor, zeros, arange and the like."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from chainrule.core.bind import state
from chainrule.core.config import settings
from chainrule.core.errors import DtypeError, SettingError, ShapeError
from chainrule.core.record import new
from chainrule.core.types import as_dtype, float32, float64, int64
from chainrule.device import require_cpu
from chainrule.random import shape_of
from chainrule.tensor import PRINTED, Tensor, array_from

from .surface import only_method

__all__ = ["DoubleTensor", "FloatTensor", "LongTensor", "arange", "as_tensor", "asarray", "empty",
           "empty_like", "eye", "from_numpy", "full", "full_like", "get_default_dtype",
           "is_floating_point", "is_nonzero", "is_tensor", "linspace", "logspace", "numel", "ones",
           "ones_like", "set_default_dtype", "set_printoptions", "tensor", "zeros", "zeros_like"]


def _made(value: Any, requires_grad: bool) -> Tensor:
    x: Tensor = value if isinstance(value, Tensor) else new(value)
    return x.requires_grad_() if requires_grad else x


def tensor(data: Any, *, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """A copy of `data` (numbers, nested lists, arrays) as a leaf tensor.

    Python floats become the default dtype, float32; NumPy arrays keep theirs.

    >>> tensor([[1, 2], [3, 4]]).dtype
    dtype('int64')
    """
    require_cpu(device)
    if state.capture is not None and isinstance(data, Tensor):
        return _made(data.detach().clone() if dtype is None else data.detach().to(dtype, copy=True),
                     requires_grad)
    if state.capture is not None:
        traced = state.capture.copy_of(data, dtype)
        if traced is not None:
            return _made(traced, requires_grad)
    return _made(array_from(data, dtype), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where it can."""
    require_cpu(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    if state.capture is not None and dtype is not None:
        traced = state.capture.copy_of(data, dtype)
        if traced is not None:
            return traced  # type: ignore[no-any-return]
    return _made(array_from(data, dtype, copy=not isinstance(data, np.ndarray)), False)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the memory of a NumPy array."""
    if not isinstance(array, np.ndarray):
        raise DtypeError(f"from_numpy wants a NumPy array, got {type(array).__name__}; "
                         "cr.tensor(data) takes anything")
    return _made(array_from(array, copy=False), False)


asarray = as_tensor


def FloatTensor(*data: Any) -> Tensor:
    """A float32 tensor of `data`, or of the sizes given as whole numbers (then zeros)."""
    return Tensor(*data, dtype=float32)


def DoubleTensor(*data: Any) -> Tensor:
    """As `FloatTensor`, in float64."""
    return Tensor(*data, dtype=float64)


def LongTensor(*data: Any) -> Tensor:
    """As `FloatTensor`, in int64."""
    return Tensor(*data, dtype=int64)


def is_floating_point(input: Tensor) -> bool:
    """Is the dtype float16, float32 or float64?"""
    return input.is_floating_point()


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


def is_nonzero(input: Tensor) -> bool:
    """Is the one number of this tensor other than 0?"""
    return bool(input)


only_method(is_nonzero)


def set_printoptions(precision: int | None = None, threshold: int | None = None,
                     edgeitems: int | None = None, linewidth: int | None = None,
                     profile: str | None = None, sci_mode: bool | None = None) -> None:
    """How tensors print: digits, how many elements before dots stand in, how many at the edges.

    `profile` is 'default', 'short' (2 digits) or 'full' (every element); `sci_mode` forces (True)
    or forbids (False) powers of ten, None chooses.

    >>> import chainrule as cr
    >>> cr.set_printoptions(precision=2)
    >>> cr.tensor([0.12345])
    tensor([0.12])
    >>> cr.set_printoptions(profile="default")
    """
    if profile is not None:
        if profile not in PROFILES:
            raise SettingError(f"set_printoptions: profile={profile!r} must be one of "
                               f"{', '.join(map(repr, PROFILES))}")
        PRINTED.update(PROFILES[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems,
             "linewidth": linewidth}
    PRINTED.update({key: value for key, value in given.items() if value is not None})
    PRINTED["sci_mode"] = sci_mode


PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": None},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": None},
    "full": {"precision": 4, "threshold": sys.maxsize, "edgeitems": 3, "linewidth": None}}


def is_tensor(x: Any) -> bool:
    """Is x a Tensor?"""
    return isinstance(x, Tensor)


def zeros(*size: Any, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """Zeros of the given sizes."""
    require_cpu(device)
    return _made(np.zeros(shape_of(size), as_dtype(dtype or float)), requires_grad)


def ones(*size: Any, dtype: Any = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    """Ones of the given sizes."""
    require_cpu(device)
    return _made(np.ones(shape_of(size), as_dtype(dtype or float)), requires_grad)


def empty(*size: Any, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """Memory of the given sizes, its numbers undefined."""
    require_cpu(device)
    return _made(np.empty(shape_of(size), as_dtype(dtype or float)), requires_grad)


def _number_dtype(value: Any) -> Any:
    if isinstance(value, bool):
        return np.dtype(bool)
    return int64 if isinstance(value, int) else settings.default_dtype


def full(size: Any, fill_value: Any, *, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """A tensor of one repeated number."""
    require_cpu(device)
    if state.capture is not None:
        chosen = as_dtype(dtype) if dtype is not None else fill_value.dtype if isinstance(
            fill_value, Tensor) else _number_dtype(fill_value)
        traced = state.capture.number(fill_value, chosen)
        if traced is not None:
            return _made(traced.expand(shape_of((size,))).clone(), requires_grad)
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    chosen = as_dtype(dtype) if dtype is not None else _number_dtype(value)
    return _made(np.full(shape_of((size,)), value, chosen), requires_grad)


def _like(input: Tensor, dtype: Any) -> tuple[tuple[int, ...], Any]:
    return tuple(input.shape), as_dtype(dtype) if dtype is not None else input.dtype


def zeros_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """Zeros of the shape and dtype of `input`."""
    require_cpu(device)
    return _made(np.zeros(*_like(input, dtype)), requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """Ones of the shape and dtype of `input`."""
    require_cpu(device)
    return _made(np.ones(*_like(input, dtype)), requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """Memory of the shape and dtype of `input`, its numbers undefined."""
    require_cpu(device)
    return _made(np.empty(*_like(input, dtype)), requires_grad)


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None,
              requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """One number repeated in the shape and dtype of `input`."""
    require_cpu(device)
    shape, chosen = _like(input, dtype)
    return full(shape, fill_value, dtype=chosen, requires_grad=requires_grad)


@only_method
def new_zeros(input: Tensor, *size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the given sizes, in the dtype of this tensor."""
    return zeros(*size, dtype=dtype or input.dtype, requires_grad=requires_grad)


@only_method
def new_ones(input: Tensor, *size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the given sizes, in the dtype of this tensor."""
    return ones(*size, dtype=dtype or input.dtype, requires_grad=requires_grad)


@only_method
def new_empty(input: Tensor, *size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Memory of the given sizes, its numbers undefined, in the dtype of this tensor."""
    return empty(*size, dtype=dtype or input.dtype, requires_grad=requires_grad)


@only_method
def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None,
             requires_grad: bool = False) -> Tensor:
    """One number repeated, in the dtype of this tensor."""
    return full(size, fill_value, dtype=dtype or input.dtype, requires_grad=requires_grad)


@only_method
def new_tensor(input: Tensor, data: Any, *, dtype: Any = None,
               requires_grad: bool = False) -> Tensor:
    """A copy of `data` in the dtype of this tensor."""
    return tensor(data, dtype=dtype or input.dtype, requires_grad=requires_grad)


@only_method
def type_as(input: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of another."""
    return input.to(other.dtype)


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None,
           requires_grad: bool = False, device: Any = None) -> Tensor:
    """start, start + step, … below end."""
    require_cpu(device)
    if end is None:
        start, end = 0, start
    start, end, step = (x.item() if isinstance(x, Tensor) else x for x in (start, end, step))
    if step == 0 or (end - start) * step < 0:
        raise ShapeError(f"arange: no way from {start} to {end} by steps of {step}")
    whole = all(isinstance(x, (int, np.integer)) for x in (start, end, step))
    chosen = as_dtype(dtype) if dtype is not None else int64 if whole else settings.default_dtype
    return _made(np.arange(start, end, step).astype(chosen), requires_grad)


def linspace(start: float, end: float, steps: int, *, dtype: Any = None,
             requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """`steps` numbers at equal distances from start to end, both included."""
    require_cpu(device)
    return _made(np.linspace(start, end, steps).astype(as_dtype(dtype or float)), requires_grad)


def logspace(start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None,
             requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """base to the powers linspace(start, end, steps)."""
    require_cpu(device)
    return _made(np.logspace(start, end, steps, base=base).astype(as_dtype(dtype or float)),
                 requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    require_cpu(device)
    return _made(np.eye(n, m, dtype=as_dtype(dtype or float)), requires_grad)


def get_default_dtype() -> np.dtype[Any]:
    """The dtype Python floats become."""
    return settings.default_dtype  # type: ignore[no-any-return]


def set_default_dtype(dtype: Any) -> None:
    """Choose the dtype Python floats become: float32 (default), float64 or float16."""
    settings.default_dtype = as_dtype(dtype)
