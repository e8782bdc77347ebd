"""The layers of the transformer (Vaswani et al. 2017), and stacks of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.functions.creation import full
from chainrule.functions.shaping import triu
from chainrule.tensor import Tensor

from . import functional as F
from . import init
from .containers import ModuleList
from .display import type_text
from .dropout import Dropout
from .linear import Linear, whole
from .module import Module
from .multihead import MultiheadAttention
from .naming import misfit
from .normalization import LayerNorm

Activation = str | Callable[[Tensor], Tensor]


class TransformerEncoderLayer(Module):
    """Self-attention and two linear layers, each added to its input and normalised.

    x ← norm₁(x + attention(x)), x ← norm₂(x + W₂·activation(W₁x)) (Vaswani et al. 2017); with
    `norm_first` x ← x + attention(norm₁(x)), x ← x + W₂·activation(W₁·norm₂(x)) (Xiong et al.
    2020). Dropout acts on both sums and on the activation.

    src (L, N, E), or (N, L, E) with `batch_first`, or (L, E): the result has its shape.
    `src_mask` (L, L) or (N·nhead, L, L) and `src_key_padding_mask` (N, L) are those of
    `MultiheadAttention`: True means "not seen", floats are added to the scores. `is_causal` only
    says that `src_mask` is causal. `activation` is "relu", "gelu" or a function.

    >>> import chainrule as cr
    >>> layer = cr.nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    >>> later = cr.ones(5, 5, dtype=cr.bool).triu(1)
    >>> tuple(layer(cr.randn(3, 5, 8), later).shape)
    (3, 5, 8)
    """

    activation: Callable[[Tensor], Tensor]

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = F.relu, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias,
                                            batch_first=batch_first, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation(self, activation)

    def forward(self, src: Tensor, src_mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        _check_width(self, src)

        def attended(x: Tensor) -> Any:
            return self.dropout1(_seen(self.self_attn, x, x, src_mask, src_key_padding_mask,
                                       is_causal))

        def fed_forward(x: Tensor) -> Any:
            x = self.linear2(self.dropout(self.activation(self.linear1(x))))
            return self.dropout2(x)

        x = _added(src, attended, self.norm1, self.norm_first)
        return _added(x, fed_forward, self.norm2, self.norm_first)


class TransformerDecoderLayer(Module):
    """Self-attention, attention to `memory` and two linear layers, each added and normalised.

    x ← norm₁(x + attention(x)), x ← norm₂(x + attention(x, memory)),
    x ← norm₃(x + W₂·activation(W₁x)) (Vaswani et al. 2017); with `norm_first` the norms come
    before what is added, as in `TransformerEncoderLayer`.

    tgt (L, N, E) and memory (S, N, E), or (N, L, E) and (N, S, E) with `batch_first`, or without
    the axis N: the result has the shape of tgt. `tgt_mask` (L, L), `memory_mask` (L, S),
    `tgt_key_padding_mask` (N, L) and `memory_key_padding_mask` (N, S) are those of
    `MultiheadAttention`: True means "not seen", floats are added to the scores.

    >>> import chainrule as cr
    >>> layer = cr.nn.TransformerDecoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    >>> tuple(layer(cr.randn(3, 5, 8), cr.randn(3, 7, 8)).shape)
    (3, 5, 8)
    """

    activation: Callable[[Tensor], Tensor]

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = F.relu, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias,
                                            batch_first=batch_first, dtype=dtype)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias,
                                                 batch_first=batch_first, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation(self, activation)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> Tensor:
        _check_width(self, tgt)
        _check_width(self, memory, "memory")

        def attended(x: Tensor) -> Any:
            return self.dropout1(_seen(self.self_attn, x, x, tgt_mask, tgt_key_padding_mask,
                                       tgt_is_causal))

        def remembered(x: Tensor) -> Any:
            return self.dropout2(_seen(self.multihead_attn, x, memory, memory_mask,
                                       memory_key_padding_mask, memory_is_causal))

        def fed_forward(x: Tensor) -> Any:
            x = self.linear2(self.dropout(self.activation(self.linear1(x))))
            return self.dropout3(x)

        x = _added(tgt, attended, self.norm1, self.norm_first)
        x = _added(x, remembered, self.norm2, self.norm_first)
        return _added(x, fed_forward, self.norm3, self.norm_first)


class TransformerEncoder(Module):
    """`num_layers` copies of an encoder layer, one after the other, and `norm` after the last.

    The copies start with equal weights, as in PyTorch; draw them anew where that matters.
    `mask`, `src_key_padding_mask` and `is_causal` go to every layer. `enable_nested_tensor` and
    `mask_check` choose among PyTorch's own ways to compute the same and have no effect.

    >>> import chainrule as cr
    >>> layer = cr.nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    >>> encoder = cr.nn.TransformerEncoder(layer, 2)
    >>> padding = cr.tensor([[False, False, True], [False, False, False]])
    >>> tuple(encoder(cr.randn(2, 3, 8), src_key_padding_mask=padding).shape)
    (2, 3, 8)
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
                 enable_nested_tensor: bool = True, mask_check: bool = True) -> None:
        super().__init__()
        self.layers = _copies(self, encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def forward(self, src: Tensor, mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None,
                is_causal: bool | None = None) -> Tensor:
        output = src
        for layer in self.layers:
            output = layer(output, src_mask=mask, src_key_padding_mask=src_key_padding_mask,
                           is_causal=bool(is_causal))
        return output if self.norm is None else self.norm(output)


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after the other, and `norm` after the last.

    The copies start with equal weights, as in PyTorch; draw them anew where that matters. The
    masks go to every layer.

    >>> import chainrule as cr
    >>> layer = cr.nn.TransformerDecoderLayer(8, 2, dim_feedforward=16)
    >>> decoder = cr.nn.TransformerDecoder(layer, 2, norm=cr.nn.LayerNorm(8))
    >>> tuple(decoder(cr.randn(5, 3, 8), cr.randn(7, 3, 8)).shape)
    (5, 3, 8)
    """

    def __init__(self, decoder_layer: Module, num_layers: int,
                 norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(self, decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> Tensor:
        output = tgt
        for layer in self.layers:
            output = layer(output, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                           tgt_key_padding_mask=tgt_key_padding_mask,
                           memory_key_padding_mask=memory_key_padding_mask,
                           tgt_is_causal=bool(tgt_is_causal), memory_is_causal=memory_is_causal)
        return output if self.norm is None else self.norm(output)


class Transformer(Module):
    """An encoder of `src` and a decoder of `tgt` that looks at what it gives (Vaswani et al. 2017).

    src (S, N, E) and tgt (L, N, E), or (N, S, E) and (N, L, E) with `batch_first`, or without the
    axis N: the result has the shape of tgt. Embeddings, positions and the last linear layer are
    the caller's. Masks are those of `TransformerEncoder` and `TransformerDecoder`, which
    `custom_encoder` and `custom_decoder` replace. Matrices start as `init.xavier_uniform_` draws
    them.

    >>> import chainrule as cr
    >>> model = cr.nn.Transformer(8, 2, 1, 1, dim_feedforward=16, batch_first=True)
    >>> later = cr.nn.Transformer.generate_square_subsequent_mask(4)
    >>> tuple(model(cr.randn(3, 5, 8), cr.randn(3, 4, 8), tgt_mask=later).shape)
    (3, 4, 8)
    """

    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
                 num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = F.relu, custom_encoder: Module | None = None,
                 custom_decoder: Module | None = None, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        options = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps,
                   batch_first, norm_first, bias, device, dtype)
        if custom_encoder is None:
            custom_encoder = TransformerEncoder(
                TransformerEncoderLayer(*options), num_encoder_layers,
                LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype))
        self.encoder = custom_encoder
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(
                TransformerDecoderLayer(*options), num_decoder_layers,
                LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype))
        self.decoder = custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None,
                tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None, src_is_causal: bool | None = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> Any:
        for x, role in ((src, "src"), (tgt, "tgt")):
            if x.ndim not in (2, 3) or x.shape[-1] != self.d_model:
                order = "N, L" if self.batch_first else "L, N"
                raise misfit(self, x, f"{role} needs ({order}, {self.d_model}) or "
                             f"(L, {self.d_model})")
        axis = 0 if self.batch_first else 1
        if src.ndim != tgt.ndim or (src.ndim == 3 and src.shape[axis] != tgt.shape[axis]):
            raise misfit(self, src, f"tgt {type_text(tgt)} must be as many sequences")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask,
                              is_causal=src_is_causal)
        return self.decoder(tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                            tgt_key_padding_mask=tgt_key_padding_mask,
                            memory_key_padding_mask=memory_key_padding_mask,
                            tgt_is_causal=tgt_is_causal, memory_is_causal=memory_is_causal)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """The float mask (sz, sz) that hides what comes later: −∞ above the diagonal, else 0."""
        return triu(full((sz, sz), float("-inf"), dtype=dtype), 1)


def _added(x: Tensor, block: Callable[[Tensor], Tensor], norm: Module, first: bool) -> Tensor:
    """x + block(norm(x)) if the norm comes first, else norm(x + block(x))."""
    if first:
        return x + block(norm(x))
    result: Tensor = norm(x + block(x))
    return result


def _seen(attention: Module, x: Tensor, source: Tensor, mask: Tensor | None,
          padding: Tensor | None, is_causal: bool) -> Tensor:
    result: Tensor = attention(x, source, source, key_padding_mask=padding, need_weights=False,
                               attn_mask=mask, is_causal=is_causal)[0]
    return result


def _activation(layer: Module, activation: Activation) -> Callable[[Tensor], Tensor]:
    if not isinstance(activation, str):
        return activation
    known: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
    if activation not in known:
        raise SettingError(f"{type(layer).__name__}: activation={activation!r} must be 'relu', "
                           "'gelu' or a function of a tensor, such as F.silu")
    return known[activation]


def _check_width(layer: Any, x: Tensor, role: str = "") -> None:
    width = layer.linear2.out_features
    if x.ndim not in (2, 3) or x.shape[-1] != width:
        order = "N, L" if layer.self_attn.batch_first else "L, N"
        raise misfit(layer, x, f"{role or 'it'} needs ({order}, {width}) or (L, {width})")


def _copies(stack: Module, layer: Module, count: int) -> ModuleList:
    whole(stack, num_layers=count)
    if not isinstance(layer, Module):
        raise TypeError(f"{type(stack).__name__} needs a layer to copy, not "
                        f"{getattr(layer, '__name__', type(layer).__name__)!r}: make one first")
    return ModuleList([copy.deepcopy(layer) for _ in range(count)])
