"""Products of vectors, matrices and batches: every combination of shapes, and einsum."""

import itertools

import numpy as np

from parity.runner import Table, array

TABLE = Table("matmul")
add = TABLE.add

# Every operand with every other: matching and not, vectors, batches that broadcast, empty ones.
LEFT = ((3,), (2, 3), (5, 2, 3), (1, 2, 3), (4, 5, 2, 3), (4, 1, 2, 3), (0, 3), (2, 0), (5, 0, 3))
RIGHT = ((3,), (3, 4), (3, 1), (5, 3, 4), (1, 3, 4), (5, 3, 1), (4, 5, 3, 2), (3, 0), (0, 4),
         (4, 3))

for a, b in itertools.product(LEFT, RIGHT):
    add(f"{a} @ {b}", lambda t, x, y: x @ y, array(*a), array(*b, seed=1), raises=None)

A, B = array(2, 3), array(3, 4, seed=1)
U, V = array(3, seed=2), array(3, seed=3)
BATCH, OTHER = array(5, 2, 3), array(5, 3, 4, seed=1)
SQUARE = array(3, 3, seed=4)
POINT = array(1)[0]

add("matmul", lambda t, x, y: t.matmul(x, y), A, B)
add("matmul method", lambda t, x, y: x.matmul(y), A, B)
add("mm", lambda t, x, y: t.mm(x, y), A, B)
add("mm of a vector", lambda t, x, y: t.mm(x, y), A, V, raises=True)
add("mv", lambda t, x, y: t.mv(x, y), A, V)
add("mv of a matrix", lambda t, x, y: t.mv(x, y), A, B, raises=True)
add("bmm", lambda t, x, y: t.bmm(x, y), BATCH, OTHER)
add("bmm of a matrix", lambda t, x, y: t.bmm(x, y), A, B, raises=True)
add("bmm of different batches", lambda t, x, y: t.bmm(x, y), BATCH[:2], OTHER, raises=True)
add("dot", lambda t, x, y: t.dot(x, y), U, V)
add("dot of matrices", lambda t, x, y: t.dot(x, y), A, B, raises=True)
add("dot of different lengths", lambda t, x, y: t.dot(x, y), U, V[:2], raises=True)
add("inner", lambda t, x, y: t.inner(x, y), A, SQUARE)
add("outer", lambda t, x, y: t.outer(x, y), U, V[:2])
add("outer of matrices", lambda t, x, y: t.outer(x, y), A, B, raises=True)
add("0-d @ vector", lambda t, x, y: x @ y, POINT, V, raises=True)
add("matrix @ 0-d", lambda t, x, y: x @ y, A, POINT, raises=True)
add("matrix @ number", lambda t, x: x @ 2.0, A, raises=True)
add("float @ int", lambda t, x, y: x @ y, A, np.arange(12).reshape(3, 4), raises=True)
add("float64 @ float32", lambda t, x, y: x @ y, A, B.astype(np.float32), single=False, raises=True)
add("int @ int", lambda t, x, y: x @ y, np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4))
add("int32 @ int32", lambda t, x: x @ x, np.arange(9, dtype=np.int32).reshape(3, 3))
add("bool @ bool", lambda t, x: x @ x, np.eye(3, dtype=bool), raises=True,
    differs=("error", "PyTorch has no kernel for bool"))
add("half @ half", lambda t, x: x @ x, SQUARE.astype(np.float16), second=False, tolerance=3)
add("x @ x", lambda t, x: x @ x, SQUARE)
add("x @ x.T", lambda t, x: x @ x.T, A)
add("x.T @ x", lambda t, x: x.T @ x, A)
add("x @ x.mT in batches", lambda t, x: x @ x.mT, BATCH)
add("three products", lambda t, x, y, z: x @ y @ z, A, SQUARE, B)
add("addmm", lambda t, b, x, y: t.addmm(b, x, y), array(4), A, B)
add("addmm with factors", lambda t, b, x, y: t.addmm(b, x, y, beta=0.5, alpha=2), array(2, 4), A, B)
add("addmv", lambda t, b, x, y: t.addmv(b, x, y), array(2), A, V)
add("baddbmm", lambda t, b, x, y: t.baddbmm(b, x, y), array(5, 2, 4), BATCH, OTHER)
add("linear", lambda t, x, w, b: t.nn.functional.linear(x, w, b), A, array(4, 3), array(4))
add("linear without bias", lambda t, x, w: t.nn.functional.linear(x, w), A, array(4, 3))
add("linear of a vector", lambda t, x, w, b: t.nn.functional.linear(x, w, b), V, array(4, 3),
    array(4))
add("linear of a batch", lambda t, x, w, b: t.nn.functional.linear(x, w, b), BATCH, array(4, 3),
    array(4))
add("linear of the wrong width", lambda t, x, w: t.nn.functional.linear(x, w), A, array(4, 2),
    raises=True)
add("trace", lambda t, x: t.trace(x), SQUARE)
add("kron", lambda t, x, y: t.kron(x, y), A, B)
add("linalg.matrix_power", lambda t, x: t.linalg.matrix_power(x, 3), SQUARE)
add("tensordot", lambda t, x, y: t.tensordot(x, y, dims=1), A, B)
add("tensordot of named dims", lambda t, x, y: t.tensordot(x, y, dims=([1, 2], [0, 1])),
    BATCH, array(2, 3, 4, seed=1))

# ---- einsum ------------------------------------------------------------------------------------

EINSUMS = {
    "ij,jk->ik": (A, B),
    "ij,jk": (A, B),
    "ij->ji": (A,),
    "ij->": (A,),
    "ij->i": (A,),
    "ij->j": (A,),
    "ii->i": (SQUARE,),
    "ii->": (SQUARE,),
    "ii": (SQUARE,),
    "i,i->": (U, V),
    "i,j->ij": (U, V),
    "i,i->i": (U, V),
    "bij,bjk->bik": (BATCH, OTHER),
    "bij,jk->bik": (BATCH, B),
    "...ij,...jk->...ik": (BATCH, OTHER),
    "b...,b...->b": (BATCH, BATCH),
    "...i->...": (BATCH,),
    "ij,jk,kl->il": (A, B, array(4, 2)),
    "ij,ij->": (A, A),
    "ba": (A,),
    " i j , j k -> i k ": (A, B),
    "bhqd,bhkd->bhqk": (array(2, 2, 3, 4), array(2, 2, 5, 4, seed=1)),
    "ij,kl->ijkl": (A, B),
}
for equation, operands in EINSUMS.items():
    add(f"einsum {equation}", lambda t, *xs, e=equation: t.einsum(e, *xs), *operands)

add("einsum of a list", lambda t, x, y: t.einsum("ij,jk->ik", [x, y]), A, B)
add("einsum with a size that differs", lambda t, x, y: t.einsum("ij,jk->ik", x, y), A, A,
    raises=True)
add("einsum with too few operands", lambda t, x: t.einsum("ij,jk->ik", x), A, raises=True)
add("einsum with too many letters", lambda t, x: t.einsum("ijk->i", x), A, raises=True)
add("einsum with an unknown output", lambda t, x: t.einsum("ij->k", x), A, raises=True)
add("einsum with a repeated output", lambda t, x: t.einsum("ij->ii", x), A, raises=True)
add("einsum that broadcasts a one", lambda t, x, y: t.einsum("ij,ij->ij", x, y), A, A[:1])
