"""Gathering, scattering, sorting and running sums: what moves numbers by computed positions."""

import numpy as np

from parity.runner import Table, array

TABLE = Table("gather")
add = TABLE.add

MATRIX = array(3, 4)
CUBE = array(2, 3, 4)
VECTOR = array(5)
POINT = array(1)[0]
EMPTY = np.zeros((0, 3))
TIES = np.array([[1.0, 3.0, 3.0, 2.0], [2.0, 2.0, 2.0, 2.0], [0.0, -1.0, 0.0, -1.0]])
HOLES = np.array([[1.0, np.nan, 2.0], [np.inf, 3.0, -np.inf]])
INTEGERS = np.array([3, 1, 2, 1])
INDEX = np.array([[0, 2, 1, 0], [1, 1, 0, 2]])
ACROSS = np.array([[3, 0], [1, 1], [0, 2]])
ROWS = np.array([2, 0, 2])
MASK = MATRIX > 0

# ---- gather, take ------------------------------------------------------------------------------

add("gather along 0", lambda t, x, i: t.gather(x, 0, i), MATRIX, INDEX)
add("gather along 1", lambda t, x, i: x.gather(1, i), MATRIX, ACROSS)
add("gather along -1", lambda t, x, i: x.gather(-1, i), MATRIX, ACROSS)
add("gather of a cube", lambda t, x, i: x.gather(2, i), CUBE, np.zeros((2, 3, 1), np.int64))
add("gather out of range", lambda t, x, i: t.gather(x, 0, i), MATRIX, INDEX + 2, raises=True)
add("gather negative", lambda t, x, i: t.gather(x, 0, i), MATRIX, INDEX - 3, raises=True)
add("gather with float index", lambda t, x, i: t.gather(x, 0, i), MATRIX, INDEX.astype(float),
    raises=True)
add("gather with another ndim", lambda t, x, i: t.gather(x, 0, i), MATRIX, ROWS, raises=True)
add("gather with a wider index", lambda t, x, i: t.gather(x, 0, i), MATRIX,
    np.zeros((1, 5), np.int64), raises=True)
add("gather of integers", lambda t, x, i: t.gather(x, 0, i), INTEGERS, ROWS)
add("take_along_dim", lambda t, x, i: t.take_along_dim(x, i, dim=1), MATRIX, ACROSS)
add("take_along_dim of all", lambda t, x, i: t.take_along_dim(x, i), MATRIX, np.array([0, 11, 5]))
add("take_along_dim of argsort", lambda t, x: t.take_along_dim(x, x.argsort(1), 1), MATRIX)
add("take", lambda t, x, i: t.take(x, i), MATRIX, INDEX)
add("index_select", lambda t, x, i: t.index_select(x, 0, i), MATRIX, ROWS)
add("index_select along 1", lambda t, x, i: x.index_select(1, i), MATRIX, ROWS)
add("index_select out of range", lambda t, x, i: x.index_select(0, i), MATRIX, ROWS + 1,
    raises=True)
add("index_select with a matrix", lambda t, x, i: x.index_select(0, i), MATRIX, INDEX, raises=True)
add("masked_select", lambda t, x, m: t.masked_select(x, m), MATRIX, MASK)
add("masked_select broadcast", lambda t, x, m: t.masked_select(x, m), MATRIX, MASK[0])
add("nonzero", lambda t, x: t.nonzero(x > 0), MATRIX)
add("nonzero as tuple", lambda t, x: t.nonzero(x > 0, as_tuple=True), MATRIX)
add("argwhere", lambda t, x: t.argwhere(x > 0), MATRIX)

# ---- scatter -----------------------------------------------------------------------------------

add("scatter", lambda t, x, i, v: t.scatter(x, 0, i, v), MATRIX, INDEX[:1], array(1, 4))
add("scatter a number", lambda t, x, i: x.scatter(1, i, 7.0), MATRIX, ACROSS)
add("scatter along 1", lambda t, x, i, v: x.scatter(1, i, v), MATRIX, ACROSS[[0, 2]], array(2, 2))
add("scatter add reduce", lambda t, x, i, v: x.scatter(0, i, v, reduce="add"), MATRIX, INDEX,
    array(2, 4), grad=False, differs=("error", "scatter_add is the one spelling"))
add("scatter out of range", lambda t, x, i, v: t.scatter(x, 0, i, v), MATRIX, INDEX + 2,
    array(2, 4), raises=True)
add("scatter_add", lambda t, x, i, v: t.scatter_add(x, 0, i, v), MATRIX, INDEX, array(2, 4))
add("scatter_add along 1", lambda t, x, i, v: x.scatter_add(1, i, v), MATRIX, ACROSS, array(3, 2))
add("scatter_add with more values", lambda t, x, i, v: x.scatter_add(1, i, v), MATRIX, ACROSS,
    array(3, 4), grad=False)
add("scatter_add of repeats", lambda t, x, i, v: x.scatter_add(0, i, v), VECTOR, ROWS, array(3))
add("scatter_add of another dtype", lambda t, x, i, v: x.scatter_add(0, i, v), VECTOR, ROWS,
    array(3).astype(np.float16), raises=True)
add("scatter_add of integers", lambda t, x, i: x.scatter_add(0, i, x[:3]), INTEGERS, ROWS)
add("index_add", lambda t, x, i, v: t.index_add(x, 0, i, v), MATRIX, ROWS, array(3, 4))
add("index_add along 1", lambda t, x, i, v: x.index_add(1, i, v), MATRIX, ROWS, array(3, 3))
add("index_add with alpha", lambda t, x, i, v: x.index_add(0, i, v, alpha=-2), MATRIX, ROWS,
    array(3, 4))
add("index_add of wrong length", lambda t, x, i, v: x.index_add(0, i, v), MATRIX, ROWS,
    array(2, 4), raises=True)
add("index_fill", lambda t, x, i: x.index_fill(0, i, 3.0), MATRIX, ROWS)
add("index_copy", lambda t, x, i, v: x.index_copy(0, i, v), MATRIX, ROWS[:2], array(2, 4))
add("masked_fill", lambda t, x, m: t.masked_fill(x, m, 9.0), MATRIX, MASK)
add("masked_fill with -inf", lambda t, x, m: x.masked_fill(m, float("-inf")), MATRIX, MASK)
add("masked_fill broadcast", lambda t, x, m: x.masked_fill(m, 0.0), MATRIX, MASK[0])
add("masked_fill with a tensor", lambda t, x, m, v: x.masked_fill(m, v), MATRIX, MASK, POINT)
add("masked_fill with a float mask", lambda t, x: x.masked_fill(x, 0.0), MATRIX, raises=True)
add("masked_scatter", lambda t, x, m, v: x.masked_scatter(m, v), MATRIX, MASK, array(12))
add("index_put", lambda t, x, i, v: x.index_put((i,), v), VECTOR, ROWS[:2], array(2))
add("one_hot", lambda t, i: t.nn.functional.one_hot(i, 4), ROWS)
add("one_hot counts classes itself", lambda t, i: t.nn.functional.one_hot(i), ROWS)
add("one_hot too many", lambda t, i: t.nn.functional.one_hot(i, 2), ROWS, raises=True)
add("embedding", lambda t, w, i: t.nn.functional.embedding(i, w), MATRIX, INDEX)
add("embedding with a padding row", lambda t, w, i: t.nn.functional.embedding(i, w, padding_idx=0),
    MATRIX, INDEX)
add("embedding out of range", lambda t, w, i: t.nn.functional.embedding(i, w), MATRIX, INDEX + 3,
    raises=True)

# ---- sort --------------------------------------------------------------------------------------

for dim in (0, 1, -1):
    add(f"sort along {dim}", lambda t, x, d=dim: t.sort(x, dim=d), MATRIX)
    add(f"sort descending along {dim}", lambda t, x, d=dim: x.sort(d, descending=True), MATRIX)
    add(f"argsort along {dim}", lambda t, x, d=dim: t.argsort(x, dim=d), MATRIX)
    add(f"topk along {dim}", lambda t, x, d=dim: t.topk(x, 2, dim=d), MATRIX)
add("sort default", lambda t, x: x.sort(), CUBE)
add("sort of ties", lambda t, x: t.sort(x, dim=1, stable=True), TIES)
add("sort of ties descending", lambda t, x: t.sort(x, dim=1, stable=True, descending=True), TIES)
add("sort with NaN", lambda t, x: t.sort(x, dim=1), HOLES, second=False)
add("sort with NaN descending", lambda t, x: t.sort(x, dim=1, descending=True), HOLES,
    second=False)
add("sort of 0-d", lambda t, x: t.sort(x), POINT)
add("sort of nothing", lambda t, x: t.sort(x, 0), EMPTY)
add("sort of integers", lambda t, x: t.sort(x, stable=True), INTEGERS)
add("sort names its results", lambda t, x: (x.sort(0).values, x.sort(0).indices), MATRIX)
add("argsort descending", lambda t, x: x.argsort(descending=True), MATRIX)
add("argsort of ties", lambda t, x: t.argsort(x, dim=1, stable=True), TIES)
add("topk", lambda t, x: x.topk(3), MATRIX)
add("topk smallest", lambda t, x: x.topk(2, largest=False), MATRIX)
add("topk of all", lambda t, x: x.topk(4), MATRIX)
add("topk names its results", lambda t, x: (x.topk(1).values, x.topk(1).indices), MATRIX)
add("topk of too many", lambda t, x: x.topk(5), MATRIX, raises=True)
add("topk values of ties", lambda t, x: t.topk(x, 2).values, TIES, grad=False)
add("kthvalue", lambda t, x: t.kthvalue(x, 2).values, MATRIX)
add("median over a dim", lambda t, x: t.median(x, 1).values, MATRIX)
add("searchsorted", lambda t, x, y: t.searchsorted(x.sort().values, y), VECTOR, MATRIX, grad=False)

# ---- running sums ------------------------------------------------------------------------------

for dim in (0, 1, -1):
    add(f"cumsum along {dim}", lambda t, x, d=dim: t.cumsum(x, d), CUBE)
    add(f"cumprod along {dim}", lambda t, x, d=dim: x.cumprod(d), CUBE)
    add(f"logcumsumexp along {dim}", lambda t, x, d=dim: t.logcumsumexp(x, d), CUBE)
    add(f"cummax along {dim}", lambda t, x, d=dim: t.cummax(x, d), CUBE)
add("cummin along 0", lambda t, x: t.cummin(x, 0), CUBE)
add("cumsum of 0-d", lambda t, x: t.cumsum(x, 0), POINT)
add("cumsum of nothing", lambda t, x: t.cumsum(x, 0), EMPTY)
add("cumsum out of range", lambda t, x: t.cumsum(x, 2), MATRIX, raises=True)
add("cumsum of integers", lambda t, x: x.cumsum(0), INTEGERS.astype(np.int32))
add("cumsum of bool", lambda t, x: x.cumsum(0), MASK)
add("cumsum into float64", lambda t, x: x.cumsum(0, dtype=t.float64), MATRIX)
add("cumprod with a zero", lambda t, x: x.cumprod(0), np.array([2.0, 0.0, 3.0, 4.0]))
add("cumprod with two zeros", lambda t, x: x.cumprod(0), np.array([2.0, 0.0, 3.0, 0.0, 5.0]))
add("cumprod of integers", lambda t, x: x.cumprod(0), INTEGERS)
add("diff", lambda t, x: t.diff(x), MATRIX)
add("diff along 0", lambda t, x: t.diff(x, dim=0), MATRIX)
