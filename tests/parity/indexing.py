"""Reading and writing through an index: integers, slices, None, Ellipsis, masks, index arrays."""

from typing import Any

import numpy as np

from parity.runner import Table, array

TABLE = Table("indexing")
add = TABLE.add

CUBE = array(4, 5, 6)
VECTOR = array(6)
POINT = array(1)[0]
EMPTY = np.zeros((0, 3))
ROWS = np.array([2, 0, 2])
COLUMNS = np.array([1, 4, 1])
NEGATIVE = np.array([-1, 0, -4])
FAR = np.array([0, 9])
GRID = np.array([[0, 1], [3, 0]])
MASK = np.array([True, False, True, True])
COLUMN_MASK = np.array([False, True, True, False, True])
CUBE_MASK = CUBE > 0.5
MATRIX_MASK = CUBE[:, :, 0] > 0

# What stands between the brackets; strings name the integer and boolean tensors below.
INDEXES: dict[str, Any] = {
    "1": 1,
    "-1": -1,
    "1, 2": (1, 2),
    "1, 2, 3": (1, 2, 3),
    "1:3": slice(1, 3),
    "::2": slice(None, None, 2),
    "1::3": slice(1, None, 3),
    "-2:": slice(-2, None),
    ":-1": slice(None, -1),
    "2:2": slice(2, 2),
    "3:1": slice(3, 1),
    ":100": slice(None, 100),
    ":, 2": (slice(None), 2),
    ":, 1:4:2": (slice(None), slice(1, 4, 2)),
    ":, :, -1": (slice(None), slice(None), -1),
    "None": None,
    "None, 1": (None, 1),
    ":, None": (slice(None), None),
    "...": Ellipsis,
    "..., 0": (Ellipsis, 0),
    "..., None": (Ellipsis, None),
    "1, ..., 2": (1, Ellipsis, 2),
    "..., 1:3, :": (Ellipsis, slice(1, 3), slice(None)),
    "()": (),
    "True": True,
    "False": False,
    "[0, 2]": [0, 2],
    "[0, 2], [1, 3]": ([0, 2], [1, 3]),
    "rows": "rows",
    "grid": "grid",
    "negative": "negative",
    "rows, columns": ("rows", "columns"),
    "rows, :": ("rows", slice(None)),
    ":, rows": (slice(None), "rows"),
    ":, :, rows": (slice(None), slice(None), "rows"),
    "rows, 1": ("rows", 1),
    "1, rows": (1, "rows"),
    "1, :, rows": (1, slice(None), "rows"),
    "rows, :, columns": ("rows", slice(None), "columns"),
    ":, rows, columns": (slice(None), "rows", "columns"),
    "..., rows": (Ellipsis, "rows"),
    "rows, ..., columns": ("rows", Ellipsis, "columns"),
    "None, rows": (None, "rows"),
    "rows, None": ("rows", None),
    "rows, None, columns": ("rows", None, "columns"),
    "1:3, rows": (slice(1, 3), "rows"),
    "rows, 1:5:2": ("rows", slice(1, 5, 2)),
    "grid, columns[:2]": ("grid", "two"),
    "rows, columns, rows": ("rows", "columns", "rows"),
    "mask": "mask",
    "mask, 2": ("mask", 2),
    "mask, :, 1": ("mask", slice(None), 1),
    ":, column_mask": (slice(None), "column_mask"),
    "mask, columns": ("mask", "columns"),
    "matrix_mask": "matrix_mask",
    "matrix_mask, 1": ("matrix_mask", 1),
    "cube_mask": "cube_mask",
    "no": "no",
    "none": "none",
}
WRONG: dict[str, Any] = {
    "4": 4,
    "-5": -5,
    "0, 0, 0, 0": (0, 0, 0, 0),
    "::-1": slice(None, None, -1),
    "::0": slice(None, None, 0),
    "1.5": 1.5,
    "text": "'a'",
    "far": "far",
    "column_mask": "column_mask",
    "rows, columns[:2]": ("rows", "two"),
    "floats": "floats",
}
TENSORS = {
    "rows": ROWS,
    "columns": COLUMNS,
    "two": COLUMNS[:2],
    "negative": NEGATIVE,
    "far": FAR,
    "grid": GRID,
    "mask": MASK,
    "column_mask": COLUMN_MASK,
    "matrix_mask": MATRIX_MASK,
    "cube_mask": CUBE_MASK,
    "no": np.zeros(4, bool),
    "none": np.zeros(0, np.int64),
    "floats": np.array([0.0, 1.0]),
}


# For writing: no place twice, since PyTorch leaves open which of two numbers stays there.
DISTINCT = TENSORS | {
    "rows": np.array([2, 0, 3]),
    "columns": np.array([1, 4, 2]),
    "negative": np.array([-1, 0, -3]),
    "grid": np.array([[0, 1], [3, 2]]),
    "repeated": ROWS,
}


def resolve(t: Any, index: Any, tensors: dict[str, np.ndarray] = TENSORS) -> Any:
    """The index with its tensors, made by the library that is asked."""
    if isinstance(index, tuple):
        return tuple(resolve(t, item, tensors) for item in index)
    if isinstance(index, str) and index in tensors:
        return t.tensor(tensors[index])
    return index


def write(t: Any, x: Any, index: Any, value: Any) -> Any:
    y = x * 1
    y[resolve(t, index, DISTINCT)] = value
    return y


for text, index in INDEXES.items():
    add(f"x[{text}]", lambda t, x, i=index: x[resolve(t, i)], CUBE)
    add(f"x[{text}] = 7", lambda t, x, i=index: write(t, x, i, 7.0), CUBE)
    add(f"x[{text}] = tensor", lambda t, x, v, i=index: write(t, x, i, v), CUBE, POINT)
for text, index in WRONG.items():
    add(f"x[{text}]", lambda t, x, i=index: x[resolve(t, i)], CUBE, raises=True)
    add(f"x[{text}] = 7", lambda t, x, i=index: write(t, x, i, 7.0), CUBE, raises=True)

add("x[0-d tensor]", lambda t, x, i: x[i], VECTOR, np.array(2))
add("x[0-d bool]", lambda t, x, i: x[i], VECTOR, np.array(True))
add("x[0-d tensor, slice]", lambda t, x, i: x[i, 1:], CUBE, np.array(2))
add("x[int32 tensor]", lambda t, x, i: x[i], VECTOR, ROWS.astype(np.int32))
add("x[uint8 tensor]", lambda t, x, i: x[i], array(3), np.array([1, 0, 1], np.uint8), raises=None)
add("x[NumPy array]", lambda t, x: x[ROWS], VECTOR)
add("x[NumPy mask]", lambda t, x: x[VECTOR > 0], VECTOR)
add("x[NumPy integer]", lambda t, x: x[np.int64(2)], VECTOR)
add("x[x > 0]", lambda t, x: x[x > 0], CUBE)
add("0-d[...]", lambda t, x: x[...], POINT)
add("0-d[None]", lambda t, x: x[None], POINT)
add("0-d[0]", lambda t, x: x[0], POINT, raises=True)
add("empty[mask]", lambda t, x: x[x > 0], EMPTY)
add("empty[0]", lambda t, x: x[0], EMPTY, raises=True)
add("repeated rows add up", lambda t, x, i: x[i] ** 2, VECTOR, ROWS)
add("index of an index", lambda t, x: x[1:][::2][0] * x[2], VECTOR)
add("index of integers", lambda t, x: (x[1], x[:2], x[x > 1]), np.arange(5))
add("index of bool", lambda t, x: (x[1], x[~x]), MASK)

# ---- writing -----------------------------------------------------------------------------------

add("row = vector", lambda t, x, v: write(t, x, (slice(None), 0), v), CUBE, VECTOR)
add("rows = matrix", lambda t, x, v: write(t, x, (0, slice(1, 3)), v), CUBE, array(2, 6))
add("broadcast a column", lambda t, x, v: write(t, x, 0, v), CUBE, array(5, 1))
add("ones in front are dropped", lambda t, x, v: write(t, x, (0, 0), v), CUBE, array(1, 1, 6))
add("index array = vector", lambda t, x, v: write(t, x, "rows", v), array(4), array(3))
add("index arrays = vector", lambda t, x, v: write(t, x, ("rows", "columns", 0), v), CUBE, array(3))
add("the same place twice", lambda t, x, v: write(t, x, "repeated", v), array(4),
    array(3)[[0, 1, 0]],
    differs=("gradient of input 1", "a number that was overwritten has no influence"))
add("mask = vector", lambda t, x, v: write(t, x, "mask", v), array(4), array(3))
add("mask = rows", lambda t, x, v: write(t, x, "mask", v), CUBE, array(3, 5, 6))
add("mask = too few", lambda t, x, v: write(t, x, "mask", v), array(4), array(2), raises=True)
add("slice = too many", lambda t, x, v: write(t, x, slice(0, 2), v), VECTOR, array(3), raises=True)
add("write a NumPy array", lambda t, x: write(t, x, 0, np.ones(6)), array(4, 6), raises=True,
    differs=("error", "an array is taken as a tensor"))
add("write a list", lambda t, x: write(t, x, slice(0, 2), [1.0, 2.0]), VECTOR, raises=True,
    differs=("error", "a list is taken as a tensor"))
add("write a bool", lambda t, x: write(t, x, 0, True), VECTOR)
add("write a float into ints", lambda t, x: write(t, x, 0, 2.7), np.arange(4))
add("write float64 into float32", lambda t, x, v: write(t, x, 0, v), VECTOR.astype(np.float32),
    POINT, single=False)
add("write ints into floats", lambda t, x, v: write(t, x, 0, v), VECTOR, np.array(3))
add("write NaN where negative", lambda t, x: write(t, x, x < 0, float("nan")), VECTOR)
add("write twice", lambda t, x, v: write(t, write(t, x, 0, v), 0, v * 2), VECTOR, POINT)
add("write then read", lambda t, x, v: write(t, x, slice(0, 2), v)[1] * x[0], VECTOR, POINT)
add("write a part of itself", lambda t, x: write(t, x, slice(0, 2), x[2:4] * 2), VECTOR)
