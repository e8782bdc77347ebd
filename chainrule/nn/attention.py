"""Attention as a function."""

from __future__ import annotations

import math

import numpy as np

from chainrule.core.errors import SettingError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.tensor import Tensor

from .noise import dropout


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor,
                                 attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None) -> Tensor:
    """softmax(Q Kᵀ·scale + mask) V (Vaswani et al. 2017).

    query (..., m, d), key (..., n, d), value (..., n, e): (..., m, e). scale is 1/√d unless given.
    A bool mask holds where attention is allowed; a float mask is added to the scores. A query that
    may look nowhere gets zeros.
    """
    if is_causal and attn_mask is not None:
        raise SettingError("scaled_dot_product_attention: give attn_mask or is_causal=True, not "
                           "both")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = ops.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        attn_mask = new(np.tril(np.ones(tuple(scores.shape[-2:]), bool)))
    closed = None
    if attn_mask is not None and attn_mask.dtype.kind == "b":
        closed = attn_mask.logical_not()
        scores = ops.where(attn_mask, scores, float("-inf"))
    elif attn_mask is not None:
        closed = attn_mask == float("-inf")
        scores = scores + attn_mask
    weights = shares_of(scores, closed)
    return ops.matmul(dropout(weights, dropout_p) if dropout_p else weights, value)


def shares_of(scores: Tensor, closed: Tensor | None) -> Tensor:
    """softmax of the last axis; a row that is closed all along gives zeros, where it gives NaN.

    `closed` holds where a score is −∞ by a mask.
    """
    if closed is None:
        return ops.softmax(scores, -1)
    empty = closed.all(-1, keepdim=True)
    known = empty._value
    if isinstance(known, np.ndarray) and not known.any():
        return ops.softmax(scores, -1)
    shares = ops.softmax(ops.where(empty, 0.0, scores), -1)
    return ops.where(empty, 0.0, shares)  # type: ignore[no-any-return]
