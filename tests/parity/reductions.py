"""Sums, products, extremes and moments over no, one, several and negative dimensions."""

from typing import Any

import numpy as np

from parity.runner import Table, array

TABLE = Table("reductions")
add = TABLE.add

CUBE = array(2, 3, 4)
MATRIX = array(3, 4)
VECTOR = array(5)
POINT = array(1)[0]
EMPTY = np.zeros((0, 3))
INTEGERS = np.array([[3, 1, 2], [3, 5, 4]])
BYTES = np.array([200, 100, 50], np.uint8)
FLAGS = np.array([[True, False, True], [True, True, True]])
HOLES = np.array([[1.0, np.nan, 2.0], [np.inf, 3.0, -1.0]])
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])

ONLY_NAN = ("gradient of input 0", "the numbers beside a NaN have a gradient of 0, not of NaN")
TRUTH = ("dtype", "a truth value is bool, whatever it is asked of")

DIMS: tuple[Any, ...] = (0, 1, 2, -1, -3, (0, 1), (0, -1), (2, 1), (0, 1, 2))

for name in ("sum", "mean", "amax", "amin", "logsumexp", "var", "std", "all", "any"):
    for dim in DIMS:
        add(f"{name} over {dim}", lambda t, x, n=name, d=dim: getattr(t, n)(x, dim=d), CUBE)
    add(f"{name} keepdim", lambda t, x, n=name: getattr(t, n)(x, 1, keepdim=True), CUBE)
    add(f"{name} keepdim over two", lambda t, x, n=name: getattr(t, n)(x, (0, 2), keepdim=True),
        CUBE)
    add(f"{name} method", lambda t, x, n=name: getattr(x, n)(-1), CUBE)
    add(f"{name} of a 0-d tensor", lambda t, x, n=name: getattr(t, n)(x, 0), POINT, second=False)
    add(f"{name} out of range", lambda t, x, n=name: getattr(t, n)(x, 3), CUBE, raises=True)
    add(f"{name} over the same dim twice", lambda t, x, n=name: getattr(t, n)(x, (0, 0)),
        CUBE, raises=True)
    add(f"{name} of no numbers", lambda t, x, n=name: getattr(t, n)(x, 0), EMPTY, second=False,
        raises=None)
    add(f"{name} over another dim of nothing", lambda t, x, n=name: getattr(t, n)(x, 1), EMPTY,
        second=False)
    add(f"{name} of special values", lambda t, x, n=name: getattr(t, n)(x, 1), HOLES, second=False,
        differs=ONLY_NAN if name in ("amax", "amin") else None)
    add(f"{name} of integers", lambda t, x, n=name: getattr(t, n)(x, 0), INTEGERS, raises=None)
    add(f"{name} of bool", lambda t, x, n=name: getattr(t, n)(x, 0), FLAGS, raises=None)
    add(f"{name} of bytes", lambda t, x, n=name: getattr(t, n)(x, 0), BYTES, raises=None,
        differs=TRUTH if name in ("all", "any") else None)
    add(f"{name} with ties", lambda t, x, n=name: getattr(t, n)(x, 1), TIES, second=False)

for name in ("sum", "mean", "prod", "max", "min", "argmax", "argmin", "var", "std", "all", "any",
             "amax", "amin", "count_nonzero"):
    add(f"{name} of all", lambda t, x, n=name: getattr(t, n)(x), MATRIX)
    add(f"{name} of all as a method", lambda t, x, n=name: getattr(x, n)(), MATRIX)
    add(f"{name} of all with ties", lambda t, x, n=name: getattr(t, n)(x), TIES, second=False)
    add(f"{name} of all integers", lambda t, x, n=name: getattr(t, n)(x), INTEGERS, raises=None)
    add(f"{name} of all bytes", lambda t, x, n=name: getattr(t, n)(x), BYTES, raises=None,
        differs=TRUTH if name in ("all", "any") else None)
    add(f"{name} of all bool", lambda t, x, n=name: getattr(t, n)(x), FLAGS, raises=None,
        differs=("error", "bool counts as 0 and 1") if name in ("argmax", "argmin") else None)
    add(f"{name} of all, none there", lambda t, x, n=name: getattr(t, n)(x), EMPTY, raises=None,
        second=False)
    add(f"{name} of all with NaN", lambda t, x, n=name: getattr(t, n)(x), HOLES, second=False,
        grad=name != "prod", differs=ONLY_NAN if name in ("amax", "amin") else None)

for name in ("max", "min"):
    for dim in (0, 1, -1, 2):
        add(f"{name} over {dim}", lambda t, x, n=name, d=dim: getattr(t, n)(x, d), CUBE)
    add(f"{name} with ties takes the first", lambda t, x, n=name: getattr(t, n)(x, 1), TIES)
    add(f"{name} keepdim", lambda t, x, n=name: getattr(t, n)(x, 1, keepdim=True), CUBE)
    add(f"{name} over a dim with NaN", lambda t, x, n=name: getattr(t, n)(x, 1), HOLES)
    add(f"{name} names its results",
        lambda t, x, n=name: (getattr(x, n)(0).values, getattr(x, n)(0).indices), MATRIX)
    add(f"{name} over an empty dim", lambda t, x, n=name: getattr(t, n)(x, 0), EMPTY,
        raises=True)
    add(f"{name} of integers over 1", lambda t, x, n=name: getattr(t, n)(x, 1), INTEGERS)
    add(f"{name} over a tuple", lambda t, x, n=name: getattr(t, n)(x, (0, 1)), CUBE,
        raises=True)
    add(f"{name} of two tensors", lambda t, x, y, n=name: getattr(t, n)(x, y), CUBE, MATRIX)

for name in ("argmax", "argmin"):
    for dim in (0, 1, -1):
        add(f"{name} over {dim}", lambda t, x, n=name, d=dim: getattr(t, n)(x, d), CUBE)
    add(f"{name} keepdim", lambda t, x, n=name: getattr(t, n)(x, dim=1, keepdim=True), CUBE)
    add(f"{name} with ties over 1", lambda t, x, n=name: getattr(t, n)(x, 1), TIES)
    add(f"{name} with NaN over 1", lambda t, x, n=name: getattr(t, n)(x, 1), HOLES)
    add(f"{name} over an empty dim", lambda t, x, n=name: getattr(t, n)(x, 0), EMPTY, raises=True)

# ---- sum and mean ------------------------------------------------------------------------------

add("sum over no dims", lambda t, x: x.sum(()), CUBE)
add("sum over a list", lambda t, x: x.sum([0, 1]), CUBE)
add("sum with dims as arguments", lambda t, x: x.sum(dim=(0, 1)), CUBE)
add("sum into float64", lambda t, x: x.sum(dtype=t.float64), MATRIX.astype(np.float32))
add("sum into ints", lambda t, x: x.sum(0, dtype=t.int64), FLAGS)
add("mean of ints into float", lambda t, x: x.mean(dtype=t.float32), INTEGERS)
add("nansum", lambda t, x: t.nansum(x, 1), HOLES, second=False)
add("nanmean", lambda t, x: t.nanmean(x, 1), HOLES, second=False)
add("sum of half precision", lambda t, x: x.sum(), np.full(3000, 1.0, np.float16), second=False)
add("mean of half precision", lambda t, x: x.mean(), np.full(3000, 30.0, np.float16), second=False)
add("axis in place of dim", lambda t, x: (x.sum(axis=0), x.mean(axis=1)), MATRIX)
add("keepdims in place of keepdim", lambda t, x: x.sum(axis=0, keepdims=True), MATRIX)
add("sum of sum", lambda t, x: (x.sum(0) ** 2).sum(), MATRIX)

# ---- prod --------------------------------------------------------------------------------------

for dim in (0, 1, -1):
    add(f"prod over {dim}", lambda t, x, d=dim: x.prod(d), CUBE)
add("prod keepdim", lambda t, x: x.prod(1, keepdim=True), CUBE)
add("prod with one zero", lambda t, x: x.prod(), np.array([2.0, 0.0, 3.0]))
add("prod with two zeros", lambda t, x: x.prod(), np.array([2.0, 0.0, 0.0]))
add("prod over a dim with zeros", lambda t, x: x.prod(1), np.array([[2.0, 0.0, 3.0],
                                                                   [0.0, 0.0, 4.0],
                                                                   [1.0, 2.0, 5.0]]))
add("prod of an empty dim", lambda t, x: x.prod(0), EMPTY)
add("prod of integers over 1", lambda t, x: x.prod(1), INTEGERS)

# ---- var and std -------------------------------------------------------------------------------

for name in ("var", "std"):
    for correction in (0, 1, 2, 0.5):
        add(f"{name} correction={correction}",
            lambda t, x, n=name, c=correction: getattr(t, n)(x, 1, correction=c), MATRIX)
    add(f"{name} unbiased=False", lambda t, x, n=name: getattr(t, n)(x, 1, unbiased=False), MATRIX)
    add(f"{name} of all, correction=0", lambda t, x, n=name: getattr(x, n)(correction=0), MATRIX)
    add(f"{name} of one number", lambda t, x, n=name: getattr(t, n)(x, 1), MATRIX[:, :1],
        second=False)
    add(f"{name} of one number, correction=0",
        lambda t, x, n=name: getattr(t, n)(x, 1, correction=0), MATRIX[:, :1], second=False)
    add(f"{name}_mean", lambda t, x, n=name: getattr(t, f"{n}_mean")(x, 1), MATRIX)
    add(f"{name}, more correction than numbers",
        lambda t, x, n=name: getattr(t, n)(x, 1, correction=5), MATRIX, second=False)
add("var far from zero", lambda t, x: (x * 1e-3 + 1e4).var(), VECTOR, single=False)

# ---- norms -------------------------------------------------------------------------------------

add("norm", lambda t, x: x.norm(), MATRIX)
add("norm over a dim", lambda t, x: x.norm(dim=1), MATRIX)
add("norm 1", lambda t, x: t.norm(x, 1), VECTOR)
add("norm inf", lambda t, x: t.norm(x, float("inf")), VECTOR)
add("norm 3 keepdim", lambda t, x: t.norm(x, 3, dim=0, keepdim=True), MATRIX)
add("norm of zeros", lambda t, x: x.norm(), np.zeros(3), second=False)
add("linalg.norm", lambda t, x: t.linalg.norm(x), MATRIX)
add("linalg.vector_norm", lambda t, x: t.linalg.vector_norm(x, dim=1), MATRIX)

# ---- logsumexp ---------------------------------------------------------------------------------

add("logsumexp of large numbers", lambda t, x: t.logsumexp(x * 1e3, 1), MATRIX)
add("logsumexp of -inf", lambda t, x: t.logsumexp(x, 0), np.full(3, -np.inf), second=False)
add("logsumexp with inf", lambda t, x: t.logsumexp(x, 0), np.array([1.0, np.inf]), second=False)
add("unique", lambda t, x: t.unique(x), INTEGERS)
add("bincount", lambda t, x: t.bincount(x[0]), INTEGERS)
add("median of all", lambda t, x: t.median(x), VECTOR)
