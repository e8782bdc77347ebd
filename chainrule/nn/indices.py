"""Whether whole numbers name places that exist: rows of a table, classes, items of a bag."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.errors import DtypeError, IndexingError
from chainrule.tensor import Tensor

from .display import type_text


def check_whole(index: Tensor, what: str) -> None:
    """Raises `DtypeError` unless the tensor holds whole numbers; `what` needs them."""
    if index.dtype.kind not in "iu":
        raise DtypeError(f"{what} whole numbers, and got {type_text(index)}: convert with .long()")


def check_indices(index: Tensor, count: int, what: str, why: str) -> None:
    """Raises `IndexingError` unless all of `index` lie in 0 ... count−1."""
    array = index._value
    if not isinstance(array, np.ndarray) or not array.size:
        return
    if _within(array, count):
        return
    place = np.argwhere((array < 0) | (array >= count))[0]
    at = "".join(f"[{i}]" for i in place)
    raise IndexingError(f"{what} {array[tuple(place)]} (at {at or '[]'}) is out of range: {why}"
                        ).about("CR404" if what.endswith("class") else "")


def _within(array: Any, count: int) -> bool:
    # Read as unsigned, a negative number is very large: one pass checks both ends.
    if array.dtype.kind == "i":
        array = array.view(_UNSIGNED[array.dtype.itemsize])
    return bool(np.maximum.reduce(array, axis=None) < count)


_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
