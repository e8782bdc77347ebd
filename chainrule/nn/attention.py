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
    A bool mask holds where attention is allowed; a float mask is added to the scores.
    """
    if is_causal and attn_mask is not None:
        raise SettingError("scaled_dot_product_attention: give attn_mask or is_causal=True, not "
                           "both")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = ops.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        attn_mask = new(np.tril(np.ones(tuple(scores.shape[-2:]), bool)))
    if attn_mask is not None:
        scores = ops.where(attn_mask, scores, float("-inf")) if attn_mask.dtype.kind == "b" \
            else scores + attn_mask
    weights = ops.softmax(scores, -1)
    return ops.matmul(dropout(weights, dropout_p) if dropout_p else weights, value)
