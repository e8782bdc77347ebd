"""The matrix product, bilinear over the last two axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.errors import DtypeError, ShapeError
from chainrule.core.kinds import bilinear, front, fronted, moved
from chainrule.core.types import ArrayType, type_of

from . import show
from .shape import reshape


def matmul_type(a: ArrayType, b: ArrayType) -> ArrayType:
    if a.dtype != b.dtype:
        raise DtypeError(f"matmul: cannot multiply {a} by {b}: the dtypes must be equal; convert "
                         "one with .to(dtype)")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ShapeError(inner_sizes("matmul", a, b, a.shape[-1:], b.shape[-2:-1]))
    if a.shape[:-2] != b.shape[:-2]:
        raise ShapeError(f"matmul: cannot multiply {a} by {b}: the leading axes "
                         f"{list(a.shape[:-2])} and {list(b.shape[:-2])} must be equal")
    return ArrayType((*a.shape[:-1], b.shape[-1]), a.dtype)


def inner_sizes(name: str, a: Any, b: Any, m: Any, n: Any) -> str:
    """The message for a product whose inner sizes differ, with the transposition that would fit."""
    text = (f"{name}: cannot multiply {a} by {b}: the inner sizes "
            f"{m[0] if m else 'none'} and {n[0] if n else 'none'} must be equal")
    if b.ndim >= 2 and m and m[0] == b.shape[-1]:
        return text + "; the second operand transposed (.mT) would fit"
    if a.ndim >= 2 and n and n[0] == a.shape[-2]:
        return text + "; the first operand transposed (.mT) would fit"
    return text


def check_product(a: Any, b: Any) -> None:
    """Raises unless a @ b, one of them a vector, has equal dtypes and inner sizes."""
    x, y = type_of(a), type_of(b)
    if x.dtype != y.dtype:
        raise DtypeError(f"matmul: cannot multiply {x} by {y}: the dtypes must be equal; convert "
                         "one with .to(dtype)")
    m, n = x.shape[-1:], y.shape[-2:-1] if y.ndim > 1 else y.shape
    if m != n:
        raise ShapeError(inner_sizes("matmul", x, y, m, n))


def matmul_eval(a: Any, b: Any) -> Any:
    if a.dtype is not b.dtype and a.dtype != b.dtype:
        raise TypeError("dtypes differ")
    # dot has half of matmul's overhead on small matrices and the same BLAS call behind it
    return a.dot(b) if a.ndim == 2 and b.ndim == 2 else np.matmul(a, b)


def _batch(xs: Any, axes: Any) -> Any:
    a, b = xs
    if axes[1] is None and len(b.shape) == 2:        # one matrix for all: fold the batch into rows
        a = moved(a, axes[0])
        if len(a.shape) == 3:
            rows = reshape(a, shape=(a.shape[0] * a.shape[1], a.shape[2]))
            return reshape(matmul(rows, b), shape=(*a.shape[:2], b.shape[1])), 0
        return matmul(a, front(b, None, a.shape[0])), 0
    return matmul(*fronted(xs, axes)), 0


matmul = bilinear("matmul", eval=matmul_eval, infer=matmul_type,
    slots=(lambda g, a, b: g @ b.mT,            # Ā = Ȳ Bᵀ
           lambda g, a, b: a.mT @ g),           # B̄ = Aᵀ Ȳ
    batch=_batch,
    samples=lambda rng: [((rng.normal(size=(2, 3)), rng.normal(size=(3, 4))), {}),
                         ((rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 3, 4))), {})],
    show=show.infix(" @ ", 2), lower=lambda e, a, b: e.contract(a, b),
    doc="The matrix product over the last two axes.")
