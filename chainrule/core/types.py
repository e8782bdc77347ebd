"""What an array is without its numbers: `ArrayType`, the dtypes, and how dtypes combine."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from .config import settings
from .errors import DtypeError

float16 = np.dtype("float16")
float32 = np.dtype("float32")
float64 = np.dtype("float64")
uint8 = np.dtype("uint8")
int32 = np.dtype("int32")
int64 = np.dtype("int64")
bool_ = np.dtype("bool")

SHORT_NAMES: dict[np.dtype[Any], str] = {
    float16: "f16", float32: "f32", float64: "f64",
    uint8: "u8", int32: "i32", int64: "i64", bool_: "bool",
}
BY_SHORT_NAME = {short: dtype for dtype, short in SHORT_NAMES.items()}

Shape = tuple[int, ...]


class ArrayType(NamedTuple):
    """Shape and dtype of an array; prints as `f32[3,4]`."""

    shape: Shape
    dtype: np.dtype[Any] = float32

    def __str__(self) -> str:
        return f"{SHORT_NAMES.get(self.dtype, str(self.dtype))}[{','.join(map(str, self.shape))}]"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size


def type_of(x: Any) -> ArrayType:
    """The type of an array, a Tensor, a node or a Python number.

    >>> str(type_of(2.5)), str(type_of(np.zeros((3, 4), "int64")))
    ('f32[]', 'i64[3,4]')
    """
    shape = getattr(x, "shape", None)
    if shape is None:
        return ArrayType((), scalar_dtype(x))
    return ArrayType(tuple(shape), x.dtype)


def parse_type(text: str) -> ArrayType:
    """The inverse of `str(ArrayType)`.

    >>> parse_type("f32[3,4]").shape
    (3, 4)
    """
    found = re.fullmatch(r"(\w+)\[([\d,]*)\]", text.strip())
    if found is None or found[1] not in BY_SHORT_NAME:
        raise ValueError(f"cannot read the type {text!r}: write it like f32[3,4]; "
                         f"dtypes are {', '.join(BY_SHORT_NAME)}")
    return ArrayType(tuple(int(n) for n in found[2].split(",") if n), BY_SHORT_NAME[found[1]])


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """`dtype` as one of the seven supported dtypes; Python's float is the default dtype."""
    if dtype is float:
        return settings.default_dtype  # type: ignore[no-any-return]
    try:
        result = np.dtype(dtype)
    except TypeError:
        result = None
    if result is None or result not in SHORT_NAMES:
        raise DtypeError(f"{dtype!r} is not a chainrule dtype. Use one of cr.float32 (default), "
                         "cr.float64, cr.float16, cr.int64, cr.int32, cr.uint8, cr.bool.")
    return result  # type: ignore[no-any-return]


def scalar_dtype(x: Any) -> np.dtype[Any]:
    """The dtype a Python number stands for when nothing else decides."""
    if isinstance(x, bool):
        return bool_
    if isinstance(x, int):
        return int64
    if isinstance(x, float):
        return settings.default_dtype  # type: ignore[no-any-return]
    raise DtypeError(f"expected a tensor or a number, got {type(x).__name__}: {x!r:.80}")


def promote(a: np.dtype[Any] | None, b: np.dtype[Any] | None) -> np.dtype[Any] | None:
    """The common dtype of two dtypes of one rank (as PyTorch: int64 with float16 is float16)."""
    if a is None or a is b:
        return b
    if b is None:
        return a
    if a.kind == "f" and b.kind != "f":
        return a
    if b.kind == "f" and a.kind != "f":
        return b
    return np.promote_types(a, b)


def _combine(higher: np.dtype[Any] | None, lower: np.dtype[Any] | None) -> np.dtype[Any] | None:
    """A rank may lift a lower one to its category but not widen it inside the category."""
    if higher is not None and higher.kind == "f":
        return higher
    if higher is bool_ or (lower is not None and lower.kind == "f"):
        return promote(higher, lower)
    return higher if higher is not None else lower


def result_dtype(operands: Any) -> np.dtype[Any]:
    """PyTorch's promotion: arrays with axes outrank 0-d arrays, which outrank Python numbers.

    A lower rank decides only when its category (bool < int < float) is higher.

    >>> str(result_dtype([np.zeros(3, "int64"), 2.5])), str(result_dtype([np.zeros(3, "f4"), 2]))
    ('float32', 'float32')
    """
    arrays: np.dtype[Any] | None = None
    zero_d: np.dtype[Any] | None = None
    numbers: np.dtype[Any] | None = None
    for x in operands:
        shape = getattr(x, "shape", None)
        if shape is None:
            numbers = promote(numbers, scalar_dtype(x))
        elif shape:
            arrays = promote(arrays, x.dtype)
        else:
            zero_d = promote(zero_d, x.dtype)
    combined = _combine(arrays, _combine(zero_d, numbers))
    assert combined is not None
    return combined
