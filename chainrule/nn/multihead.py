"""Attention with several heads, as a layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.tensor import Tensor

from . import functional as F
from . import init
from .attention import shares_of
from .display import type_text
from .linear import Linear, empty_parameter, whole
from .module import Module
from .naming import misfit
from .parameter import Parameter


class NonDynamicallyQuantizableLinear(Linear):
    """`Linear`; PyTorch's name for the last layer of attention, kept so that reprs agree."""


class MultiheadAttention(Module):
    """softmax(Q Kᵀ/√d) V in `num_heads` parts of the channels (Vaswani et al. 2017).

    query (L, N, E), key and value (S, N, E); (N, L, E) and (N, S, E) with `batch_first`; or without
    the axis N. Returns the output, of the query's shape, and the weights (N, L, S), the mean over
    the heads, or None if `need_weights` is False. In a bool mask True means "not allowed"; a
    float mask is added to the scores. A query that may look nowhere gets 0 of every value, or
    NaN where its weights are asked for, as in PyTorch. Parameters have PyTorch's names and shapes.

    >>> import chainrule as cr
    >>> attention = cr.nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = cr.randn(3, 5, 8)
    >>> output, weights = attention(x, x, x)
    >>> tuple(output.shape), tuple(weights.shape)
    ((3, 5, 8), (3, 5, 5))
    """

    in_proj_weight: Parameter
    in_proj_bias: Parameter | None

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        whole(self, embed_dim=embed_dim, num_heads=num_heads)
        if not num_heads or embed_dim % num_heads:
            raise SettingError(f"MultiheadAttention: embed_dim={embed_dim} must be a multiple of "
                               f"num_heads={num_heads}")
        if add_bias_kv or add_zero_attn or {kdim, vdim} - {None, embed_dim}:
            raise SettingError("MultiheadAttention: add_bias_kv, add_zero_attn and a kdim or vdim "
                               "other than embed_dim are not supported")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.in_proj_weight = empty_parameter(3 * embed_dim, embed_dim, dtype=dtype)
        self.register_parameter("in_proj_bias", empty_parameter(3 * embed_dim, dtype=dtype)
                                if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights of the inputs anew and sets the biases to zero."""
        init.xavier_uniform_(self.in_proj_weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor,
                key_padding_mask: Tensor | None = None, need_weights: bool = True,
                attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:
            raise SettingError("MultiheadAttention: is_causal=True only says that attn_mask is "
                               "causal; give the mask, cr.ones(L, S, dtype=cr.bool).triu(1)")
        given = (query, key, value)
        for x in given:
            if x.ndim != query.ndim or x.ndim not in (2, 3) or x.shape[-1] != self.embed_dim:
                raise misfit(self, x, f"query, key and value need (L, N, {self.embed_dim}) "
                             f"or (L, {self.embed_dim})")
        batched = query.ndim == 3
        q, k, v = (x.unsqueeze(0) if not batched else x if self.batch_first else x.transpose(0, 1)
                   for x in given)
        count, length, source = q.shape[0], q.shape[1], k.shape[1]
        weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b).reshape(count, -1, self.num_heads, self.head_dim)
                   .transpose(1, 2) for x, w, b in zip((q, k, v), weights, biases, strict=True))
        scores = ops.matmul(q * (1 / math.sqrt(self.head_dim)), k.transpose(-2, -1))
        closed = None
        if attn_mask is not None:
            mask = attn_mask
            if mask.ndim == 3:
                mask = mask.reshape(-1, self.num_heads, length, source)
            elif tuple(mask.shape) != (length, source):
                raise ShapeError(f"MultiheadAttention: attn_mask {type_text(mask)} must be "
                                 f"({length}, {source}), or that for each item and head")
            scores = _masked(scores, mask)
            closed = _closed(mask)
        if key_padding_mask is not None:
            padding = key_padding_mask if key_padding_mask.ndim == 2 \
                else key_padding_mask.unsqueeze(0)
            padding = padding.reshape(count, 1, 1, source)
            scores = _masked(scores, padding)
            closed = _closed(padding) if closed is None else closed | _closed(padding)
        # Where the weights are asked for, a query that may look nowhere shows as NaN.
        shares = shares_of(scores, None if need_weights else closed)
        if self.training and self.dropout:
            shares = F.dropout(shares, self.dropout)
        y = ops.matmul(shares, v).transpose(1, 2).reshape(count, length, self.embed_dim)
        y = self.out_proj(y)
        seen = None
        if need_weights:
            seen = shares.mean(dim=1) if average_attn_weights else shares
        if not batched:
            return y.squeeze(0), None if seen is None else seen.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), seen


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype.kind == "b":
        blocked = new(np.asarray(float("-inf"), scores.dtype))
        return ops.where(mask, blocked, scores)  # type: ignore[no-any-return]
    return scores + mask


def _closed(mask: Tensor) -> Tensor:
    """Where a mask allows no attention."""
    closed: Tensor = mask if mask.dtype.kind == "b" else mask == float("-inf")
    return closed
