"""Arrays without numbers, on which a function's questions about shapes and dtypes are answered."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np


class Read(Exception):
    """A number of an array was asked for where only its shape may be."""


# What may be asked of an outline, and what gives another one; everything else would compute.
ASKED = {"shape", "dtype", "ndim", "size", "flags", "itemsize", "nbytes"}
MOVED = {"T", "mT"}
MOVING = {"reshape", "ravel", "flatten", "transpose", "swapaxes", "squeeze", "astype", "copy",
          "view"}


class Outline:
    """Shape and dtype of an array; whoever asks for its numbers gets `Read`.

    It says that it is an ndarray, since functions ask, but NumPy cannot turn it into one.
    """

    def __init__(self, array: Any, scalar: bool = False) -> None:
        self._array = array
        self.scalar = scalar

    __class__ = property(lambda self: np.ndarray)

    def __getattr__(self, name: str) -> Any:
        if name in ASKED:
            return getattr(self._array, name)
        if name in MOVED:
            return Outline(getattr(self._array, name))
        if name in MOVING:
            return partial(self._moved, name)
        raise Read

    def _moved(self, name: str, *args: Any, **options: Any) -> Outline:
        return Outline(getattr(self._array, name)(*args, **options))

    def __getitem__(self, key: Any) -> Outline:
        found = self._array[key]
        return Outline(np.asarray(found), isinstance(found, np.generic))

    def __len__(self) -> int:
        return len(self._array)


def _refuse(self: Any, *args: Any, **options: Any) -> Any:
    raise Read


for _name in ("array", "array_ufunc", "array_function", "bool", "float", "int", "index", "iter",
              "contains", "eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert",
              *(f"{side}{name}" for side in ("", "r") for name in (
                  "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or",
                  "xor", "lshift", "rshift"))):
    setattr(Outline, f"__{_name}__", _refuse)


def outline(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(outline, value))
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    return Outline(np.asarray(value), isinstance(value, np.generic))


def is_outline(value: Any) -> bool:
    return type(value) is Outline


class ShapesOfNumpy:
    """np, whose asarray leaves an outline an outline."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def asarray(value: Any, dtype: Any = None) -> Any:
        if is_outline(value):
            if dtype is not None and value.dtype != dtype:
                raise Read
            return value
        return np.asarray(value, dtype)

    array = ascontiguousarray = asanyarray = asarray


def kind_of(value: Any, *more: Any) -> Any:
    if is_outline(value):
        return value.dtype.type if value.scalar else np.ndarray
    return type(value, *more)
