"""Layers and losses as plain functions, with PyTorch's names, arguments and defaults.

Activations and losses are rows of their own where speed asks for it (`chainrule.rows`), and
compositions of the public functions otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.autograd import no_grad
from chainrule.core.errors import DtypeError, IndexingError, SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.functions.shaping import one_hot, pad
from chainrule.functions.surface import unknown_name
from chainrule.prims import window
from chainrule.prims.shape import place
from chainrule.tensor import Tensor

from .alignment import ctc_loss
from .attention import scaled_dot_product_attention
from .bags import embedding_bag
from .choice import gumbel_softmax
from .display import type_text
from .distance import (
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    margin_ranking_loss,
    normalize,
    pairwise_distance,
    soft_margin_loss,
    triplet_margin_loss,
)
from .indices import check_indices, check_whole
from .instance import instance_norm
from .likelihood import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    gaussian_nll_loss,
    kl_div,
    poisson_nll_loss,
)
from .margins import (
    multi_margin_loss,
    multilabel_margin_loss,
    triplet_margin_with_distance_loss,
)
from .noise import dropout, dropout2d
from .nonlinear import (
    celu,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    mish,
    prelu,
    relu6,
    selu,
    softmin,
    softsign,
    tanhshrink,
    threshold,
    written,
)
from .pooling import (
    adaptive_avg_pool1d,
    adaptive_max_pool1d,
    avg_pool1d,
    ceil_extra,
    counts,
    max_pool1d,
)
from .reduction import reduced, same_shape
from .resize import adaptive_avg_pool2d, interpolate

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "avg_pool1d", "avg_pool2d",
    "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu", "conv1d",
    "conv2d", "conv_transpose2d", "cosine_embedding_loss", "cosine_similarity", "cross_entropy",
    "ctc_loss", "dropout", "dropout2d", "elu", "embedding", "embedding_bag", "gaussian_nll_loss",
    "gelu", "glu", "group_norm", "gumbel_softmax", "hardsigmoid", "hardswish", "hardtanh",
    "hinge_embedding_loss", "huber_loss", "instance_norm", "interpolate", "kl_div", "l1_loss",
    "layer_norm", "leaky_relu", "linear", "log_softmax", "logsigmoid", "margin_ranking_loss",
    "max_pool1d", "max_pool2d", "mish", "mse_loss", "multi_margin_loss", "multilabel_margin_loss",
    "nll_loss", "normalize", "one_hot", "pad", "pairwise_distance", "poisson_nll_loss", "prelu",
    "relu", "relu6", "rms_norm", "scaled_dot_product_attention", "selu", "sigmoid", "silu",
    "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin", "softplus", "softsign", "tanh",
    "tanhshrink", "threshold", "triplet_margin_loss", "triplet_margin_with_distance_loss", "unfold",
]

# Set so that a type checker does not see it: it would believe in every name.
globals()["__getattr__"] = unknown_name("chainrule.nn.functional", __all__)

Pair = int | Sequence[int]


def pair(value: Pair, name: str = "value") -> tuple[int, int]:
    """Two whole numbers from one or two."""
    if isinstance(value, int):
        return value, value
    numbers = tuple(value)
    if len(numbers) == 1:
        return numbers[0], numbers[0]
    if len(numbers) != 2:
        raise SettingError(f"{name}={value!r} must be one number or two (height, width)")
    return numbers[0], numbers[1]


# ---------------------------------------------------------------- activations


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x), element by element; the derivative at 0 is 0."""
    return written(lambda input: rows.relu(input), input, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope·x."""
    return written(
        lambda input: rows.leaky_relu(input, negative_slope=negative_slope),
        input, inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha·(eˣ − 1) (Clevert et al. 2016)."""
    return written(lambda input: rows.elu(input, alpha=alpha), input, inplace)


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return rows.tanh(input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ)."""
    return rows.sigmoid(input)


def logsigmoid(input: Tensor) -> Tensor:
    """log(1 / (1 + e⁻ˣ)), stable for large |x|."""
    return -rows.softplus(-input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x·Φ(x) with the normal distribution's Φ, or its tanh form (Hendrycks & Gimpel 2016)."""
    if approximate not in ("none", "tanh"):
        raise SettingError(f"approximate={approximate!r} must be 'none' or 'tanh'")
    return rows.gelu(input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x·sigmoid(x), also called swish."""
    return written(lambda input: rows.silu(input), input, inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta·x)) / beta; x itself where beta·x > threshold."""
    if beta == 1.0 and threshold == 20.0:
        return rows.softplus(input)
    scaled = input * beta
    return ops.where(scaled > threshold, input, rows.softplus(scaled) / beta)  # type: ignore[no-any-return]


def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """eˣ / Σ eˣ along `dim`."""
    return ops.softmax(input, _class_dim("softmax", input, dim), dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """log(eˣ / Σ eˣ) along `dim`, stable."""
    return ops.log_softmax(input, _class_dim("log_softmax", input, dim),
                           dtype=dtype)


def _class_dim(name: str, input: Tensor, dim: int | None) -> int:
    if dim is None:
        raise SettingError(f"{name} of {type_text(input)} needs dim=: the axis of the classes "
                           "(dim=1 for batches of scores, dim=-1 for the last)")
    return dim


# ---------------------------------------------------------------- linear, embedding


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b for x (..., in), W (out, in), b (out,)."""
    return rows.linear(input, weight) if bias is None else rows.linear(input, weight, bias)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None,
              max_norm: float | None = None, norm_type: float = 2.0,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of `weight` (n, d) at the integers of `input`: (..., d).

    The row `padding_idx` gets no gradient. Raises `IndexingError` for an index outside 0 ... n−1.
    """
    for name, value in (("max_norm", max_norm), ("scale_grad_by_freq", scale_grad_by_freq),
                        ("sparse", sparse)):
        if value:
            raise SettingError(f"embedding: {name}={value!r} is not supported; leave it out")
    check_whole(input, "an embedding looks up")
    count = weight.shape[0]
    check_indices(input, count, "embedding: index", f"the table has {count} rows, 0 to {count - 1}")
    found: Tensor = weight[input]
    if padding_idx is None:
        return found
    if padding_idx < 0:
        padding_idx += count
    return ops.where((input == padding_idx).unsqueeze(-1), found.detach(), found)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- normalization


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias over the last axes (Ba, Kiros & Hinton 2016)."""
    shape = tuple(normalized_shape)
    count = len(shape)
    if tuple(input.shape[len(input.shape) - count:]) != shape:
        raise ShapeError(f"layer_norm got {type_text(input)}: its last sizes must be {shape}")
    if count == 1 and weight is not None and bias is not None:
        return rows.layer_norm(input, weight, bias, eps=eps)
    axes = tuple(range(-count, 0))
    centered = input - input.mean(dim=axes, keepdim=True)
    scale = rows.rsqrt((centered * centered).mean(dim=axes, keepdim=True) + eps)
    result = centered * scale
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x − mean) / √(var + eps) over groups of channels of (N, C, ...) (Wu & He 2018)."""
    sizes = tuple(input.shape)
    if len(sizes) < 2 or num_groups < 1 or sizes[1] % num_groups:
        raise ShapeError(f"group_norm got {type_text(input)}: num_groups={num_groups} must divide "
                         "the channels, axis 1")
    grouped = input.reshape(sizes[0], num_groups, -1)
    centered = grouped - grouped.mean(dim=-1, keepdim=True)
    scale = rows.rsqrt((centered * centered).mean(dim=-1, keepdim=True) + eps)
    result = (centered * scale).reshape(*sizes)
    channel = (1, -1, *([1] * (len(sizes) - 2)))
    if weight is not None:
        result = result * weight.reshape(channel)
    return result if bias is None else result + bias.reshape(channel)


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """x / √(mean(x²) + eps) · weight over the last axes (Zhang & Sennrich 2019)."""
    count = len(tuple(normalized_shape))
    if tuple(input.shape[len(input.shape) - count:]) != tuple(normalized_shape):
        raise ShapeError(f"rms_norm got {type_text(input)}: its last sizes must be "
                         f"{tuple(normalized_shape)}")
    least = float(np.finfo(input.dtype).eps) if eps is None else eps
    axes = tuple(range(-count, 0))
    result = input * rows.rsqrt((input * input).mean(dim=axes, keepdim=True) + least)
    return result if weight is None else result * weight


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias for each channel (Ioffe & Szegedy 2015).

    Input (N, C, ...). In training, statistics are the batch's and move the running ones by
    `momentum` (the running variance takes the unbiased one); otherwise they are the running ones.
    """
    sizes = tuple(input.shape)
    axes = (0, *range(2, len(sizes)))
    count = int(np.prod([sizes[axis] for axis in axes]))
    channel = (1, -1, *([1] * (len(sizes) - 2)))
    if training:
        if count <= 1:
            raise ShapeError(f"batch_norm in training got {type_text(input)}: one value per "
                             "channel has no variance. Use a larger batch, or eval()"
                             ).about("CR702")
        mean = input.mean(dim=axes, keepdim=True)
        centered = input - mean
        var = (centered * centered).mean(dim=axes, keepdim=True)
        if running_mean is not None and running_var is not None:
            with no_grad():
                unbiased = var.detach().reshape(-1) * (count / (count - 1))
                _move(running_mean, mean.detach().reshape(-1), momentum)
                _move(running_var, unbiased, momentum)
    else:
        if running_mean is None or running_var is None:
            raise SettingError("batch_norm outside training needs running_mean and running_var")
        centered = input - running_mean.reshape(channel)
        var = running_var.reshape(channel)
    scale = rows.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight.reshape(channel)
    result = centered * scale
    return result if bias is None else result + bias.reshape(channel)


def _move(running: Tensor, value: Tensor, momentum: float) -> None:
    running.copy_(running * (1 - momentum) + value * momentum)


# ---------------------------------------------------------------- convolution and pooling


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1,
           padding: str | Pair = 0, dilation: Pair = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, H, W) or (C, H, W) with weight (out, C/groups, kH, kW)."""
    steps, spread = pair(stride, "stride"), pair(dilation, "dilation")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise SettingError(f"padding={padding!r} must be 'same', 'valid' or numbers")
        if padding == "same" and steps != (1, 1):
            raise SettingError(f"padding='same' needs stride=1, not {stride!r}")
        total = [d * (k - 1) if padding == "same" else 0
                 for d, k in zip(spread, weight.shape[2:], strict=True)]
        if any(size % 2 for size in total):
            # An even kernel needs one more at the end than at the start, as PyTorch pads.
            input = _framed(input, (total[0] // 2, total[0] - total[0] // 2),
                            (total[1] // 2, total[1] - total[1] // 2))
            total = [0, 0]
        around = (total[0] // 2, total[1] // 2)
    else:
        around = pair(padding, "padding")
    x, batched = _batched("conv2d", input)
    result: Tensor = window.conv2d(x, weight, stride=steps, padding=around, dilation=spread,
                                   groups=groups)
    if bias is not None:
        result = result + bias.reshape(1, -1, 1, 1)
    return result if batched else result.squeeze(0)


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1,
           padding: str | int = 0, dilation: int = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, L) or (C, L) with weight (out, C/groups, k)."""
    if len(input.shape) not in (2, 3):
        raise ShapeError(f"conv1d got {type_text(input)}: it needs a batch of signals (N, C, L) or "
                         "one signal (C, L)")
    step, spread = (n if isinstance(n, int) else n[0] for n in (stride, dilation))
    around = padding if isinstance(padding, str) else (
        0, padding if isinstance(padding, int) else padding[0])
    return conv2d(input.unsqueeze(-2), weight.unsqueeze(-2), bias, (1, step), around, (1, spread),
                  groups).squeeze(-2)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1,
                     padding: Pair = 0, output_padding: Pair = 0, groups: int = 1,
                     dilation: Pair = 1) -> Tensor:
    """The transpose of `conv2d` as a map of images: weight is (C, out/groups, kH, kW).

    `output_padding` (below stride) chooses among the sizes that conv2d maps to the input's.
    """
    steps, spread = pair(stride, "stride"), pair(dilation, "dilation")
    around, more = pair(padding, "padding"), pair(output_padding, "output_padding")
    x, batched = _batched("conv_transpose2d", input)
    if x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise ShapeError(f"conv_transpose2d got {type_text(input)} with {x.shape[1]} channels and "
                         f"weight {type_text(weight)}, which takes {weight.shape[0]}")
    if any(e >= max(s, d) for e, s, d in zip(more, steps, spread, strict=True)):
        raise SettingError(f"output_padding={output_padding!r} must be below stride={stride!r} or "
                           f"dilation={dilation!r}")
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in zip(
        x.shape[2:], steps, around, spread, weight.shape[2:], more, strict=True))
    if min(size) <= 0:
        raise ShapeError(f"conv_transpose2d of {type_text(input)}: the result would be {size}")
    result: Tensor = window.conv2d_input(x, weight, stride=steps, padding=around, dilation=spread,
                                         groups=groups, size=size)
    if bias is not None:
        result = result + bias.reshape(1, -1, 1, 1)
    return result if batched else result.squeeze(0)


def unfold(input: Tensor, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0,
           stride: Pair = 1) -> Tensor:
    """The windows of (N, C, H, W) as columns: (N, C·kH·kW, number of windows)."""
    kernel, around = pair(kernel_size, "kernel_size"), pair(padding, "padding")
    x, batched = _batched("unfold", input)
    x = _framed(x, (around[0], around[0]), (around[1], around[1]))
    seen = window.windows(x, kernel=kernel, stride=pair(stride, "stride"),
                          dilation=pair(dilation, "dilation"))
    n, channels, height, width, area = seen.shape
    columns = seen.permute(0, 1, 4, 2, 3).reshape(n, channels * area, height * width)
    return columns if batched else columns.squeeze(0)  # type: ignore[no-any-return]


def _batched(name: str, input: Tensor) -> tuple[Tensor, bool]:
    rank = len(input.shape)
    if rank not in (3, 4):
        raise ShapeError(f"{name} got {type_text(input)}: it needs a batch of images (N, C, H, W) "
                         "or one image (C, H, W)")
    return (input, True) if rank == 4 else (input.unsqueeze(0), False)


def _check_padding(name: str, kernel_size: Pair, padding: Pair) -> None:
    for size, edge in zip(pair(kernel_size), pair(padding), strict=True):
        if edge > size // 2:
            raise SettingError(f"{name}: padding={padding!r} may be at most half of "
                               f"kernel_size={kernel_size!r}")


def max_pool2d(input: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
               dilation: Pair = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Tensor:
    """The maximum of each window of (N, C, H, W) or (C, H, W); stride is the window's size."""
    if return_indices:
        raise SettingError("max_pool2d: return_indices=True is not supported")
    kernel, spread = pair(kernel_size, "kernel_size"), pair(dilation, "dilation")
    steps = kernel if stride is None else pair(stride, "stride")
    around = pair(padding, "padding")
    _check_padding("max_pool2d", kernel_size, padding)
    x, batched = _batched("max_pool2d", input)
    extra = _ceil(x.shape[2:], kernel, steps, around, spread) if ceil_mode else (0, 0)
    x = _framed(x, (around[0], around[0] + extra[0]), (around[1], around[1] + extra[1]),
                float("-inf"))
    # Of equal maxima the first gets the gradient, as in PyTorch: zeros after a ReLU are equal.
    seen = window.windows(x, kernel=kernel, stride=steps, dilation=spread)
    result: Tensor = ops.max(seen, -1)[0]
    return result if batched else result.squeeze(0)


def avg_pool2d(input: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window of (N, C, H, W) or (C, H, W); stride is the window's size."""
    kernel, around = pair(kernel_size, "kernel_size"), pair(padding, "padding")
    steps = kernel if stride is None else pair(stride, "stride")
    _check_padding("avg_pool2d", kernel_size, padding)
    x, batched = _batched("avg_pool2d", input)
    area = kernel[0] * kernel[1]
    sizes = tuple(x.shape[2:])
    extra = _ceil(sizes, kernel, steps, around, (1, 1)) if ceil_mode else (0, 0)
    x = _framed(x, (around[0], around[0] + extra[0]), (around[1], around[1] + extra[1]))
    result = window.windows(x, kernel=kernel, stride=steps, dilation=(1, 1)).mean(dim=-1)
    if divisor_override is not None:
        result = result * (area / divisor_override)
    elif any(extra) or (any(around) and not count_include_pad):
        inside = around if count_include_pad else (0, 0)
        counted = np.outer(*(counts(*one) for one in zip(
            sizes, kernel, steps, around, inside, result.shape[2:], strict=True)))
        result = result * new((area / counted).astype(result.dtype))
    return result if batched else result.squeeze(0)  # type: ignore[no-any-return]


def _framed(x: Tensor, rows_: tuple[int, int], columns: tuple[int, int],
            value: float = 0.0) -> Tensor:
    """x (..., H, W) with rows and columns of `value` before and after."""
    if not any(rows_) and not any(columns):
        return x
    *outer, height, width = x.shape
    shape = (height + sum(rows_), width + sum(columns))
    inner = (slice(rows_[0], rows_[0] + height), slice(columns[0], columns[0] + width))
    placed: Tensor = place(x, shape=(*outer, *shape), key=(*[slice(None)] * len(outer), *inner))
    if not value:
        return placed
    inside = np.zeros(shape, bool)
    inside[inner] = True
    framed: Tensor = ops.where(new(inside), placed, value)
    return framed


def _ceil(*axes: Sequence[int]) -> tuple[int, ...]:
    """`ceil_extra` of each axis, given its sizes, kernels, strides, paddings and dilations."""
    return tuple(ceil_extra(*one) for one in zip(*axes, strict=True))


# ---------------------------------------------------------------- losses


def mse_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input − target)²; shapes must be equal."""
    if weight is None and reduction == "mean" and isinstance(input, Tensor):
        try:
            return rows.mse_mean(input, target)
        except (ShapeError, DtypeError):     # other dtypes, or shapes that are explained below
            pass
    same_shape("mse_loss", input, target)
    return _weighted((input - target) ** 2, weight, reduction)


def l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
            reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """|input − target|; shapes must be equal."""
    same_shape("l1_loss", input, target)
    return _weighted((input - target).abs(), weight, reduction)


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return reduced(loss, reduction)
    if reduction == "mean":
        return (loss * weight).sum() / weight.sum()
    return reduced(loss * weight, reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d²/(2·beta) where |d| < beta, else |d| − beta/2, for d = input − target."""
    same_shape("smooth_l1_loss", input, target)
    if beta < 0:
        raise SettingError(f"smooth_l1_loss: beta={beta!r} must be >= 0")
    distance = (input - target).abs()
    if beta == 0:
        return reduced(distance, reduction)
    square = distance * distance * (0.5 / beta)
    return reduced(ops.where(distance < beta, square, distance - 0.5 * beta), reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """d²/2 where |d| <= delta, else delta·(|d| − delta/2) (Huber 1964)."""
    same_shape("huber_loss", input, target)
    if delta <= 0:
        raise SettingError(f"huber_loss: delta={delta!r} must be > 0")
    distance = (input - target).abs()
    outside = (distance - 0.5 * delta) * delta
    return _weighted(ops.where(distance <= delta, distance * distance * 0.5, outside), weight,
                     reduction)


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """−log softmax(input)[target], for scores (N, C), (N, C, ...) or (C,).

    `target` holds classes (integers, without the axis C) or probabilities (of input's shape).
    Targets equal to `ignore_index` count for nothing; `weight` (C,) weighs the classes, and the
    mean is over the weights. `label_smoothing` mixes the target with 1/C.
    """
    if not isinstance(target, Tensor) or not isinstance(input, Tensor):
        raise DtypeError(f"cross_entropy got {type(input).__name__} and {type(target).__name__}, "
                         "not two Tensors; convert with cr.tensor(...)")
    if target.dtype.kind == "f":
        return _cross_entropy_of_probabilities(input, target, weight, reduction, label_smoothing)
    shape = input.shape
    if weight is None and reduction == "mean" and not label_smoothing and ignore_index < 0 \
            and len(shape) == 2 and target.shape == shape[:1]:
        if input._value is None or target._value is None:        # which targets, nobody knows yet
            return rows.cross_entropy_ignoring(input, target, ignore=ignore_index)
        try:
            return rows.cross_entropy_mean(input, target)
        except IndexingError:       # a target to ignore, or one that is explained below
            pass
    _check_smoothing(label_smoothing)
    axis = _class_axis("cross_entropy", input, target)
    logs = ops.log_softmax(input, axis)
    if not label_smoothing:
        return nll_loss(logs, target, weight, ignore_index=ignore_index, reduction=reduction)
    losses, weights = _picked("cross_entropy", logs, target, weight, ignore_index, axis)
    spread = logs if weight is None else logs * _along(weight, axis, len(shape))
    valid = target != ignore_index
    smooth = ops.where(valid, -spread.sum(dim=axis), 0.0)
    mixed = losses * (1 - label_smoothing) + smooth * (label_smoothing / shape[axis])
    if reduction == "mean":
        return mixed.sum() / weights.sum()  # type: ignore[no-any-return]
    return reduced(mixed, reduction)


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise SettingError(f"label_smoothing={label_smoothing!r} must be between 0 and 1")


def _cross_entropy_of_probabilities(input: Tensor, target: Tensor, weight: Tensor | None,
                                    reduction: str, label_smoothing: float) -> Tensor:
    if input.shape != target.shape:
        raise ShapeError(
            f"cross_entropy got scores {type_text(input)} and a floating-point target "
            f"{type_text(target)}: probabilities must have the shape of the scores. If they are "
            "classes, convert them with .long()").about("CR404")
    _check_smoothing(label_smoothing)
    axis = 0 if len(input.shape) == 1 else 1
    classes = input.shape[axis]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    logs = ops.log_softmax(input, axis)
    if weight is not None:
        logs = logs * _along(weight, axis, len(input.shape))
    losses = -(logs * target).sum(dim=axis)
    if reduction == "mean":
        return losses.sum() / (max(1, int(np.prod(input.shape))) / classes)
    return reduced(losses, reduction)


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
             size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
             reduction: str = "mean") -> Tensor:
    """−input[target] for log-probabilities (N, C), (N, C, ...) or (C,) and integer classes."""
    axis = _class_axis("nll_loss", input, target)
    losses, weights = _picked("nll_loss", input, target, weight, ignore_index, axis)
    if reduction == "mean":
        return losses.sum() / weights.sum()
    return reduced(losses, reduction)


def _class_axis(name: str, input: Tensor, target: Tensor) -> int:
    sizes = tuple(input.shape)
    if target.dtype.kind not in "iu":
        raise DtypeError(f"{name} needs classes as whole numbers, and got {type_text(target)}: "
                         "convert with .long()").about("CR404")
    axis = 0 if len(sizes) == 1 else 1
    if not sizes or tuple(target.shape) != sizes[:axis] + sizes[axis + 1:]:
        want = sizes[:axis] + sizes[axis + 1:]
        if tuple(target.shape) == sizes:
            raise ShapeError(
                f"{name} got scores {type_text(input)} and whole numbers {type_text(target)} of "
                f"the same shape: classes need shape {want}. If these are one-hot: use .argmax(1) "
                "or .float()").about("CR404")
        raise ShapeError(
            f"{name} got scores {type_text(input)} and classes {type_text(target)}: the classes "
            f"need shape {want}, one for each row of scores").about("CR404")
    return axis


def _along(weight: Tensor, axis: int, rank: int) -> Tensor:
    return weight.reshape(*[-1 if i == axis else 1 for i in range(rank)])


def _picked(name: str, logs: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int,
            axis: int) -> tuple[Tensor, Tensor]:
    """−w·log p of the target class, and w, both 0 where the target is to be ignored."""
    classes = logs.shape[axis]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(f"{name}: weight {type_text(weight)} needs one number for each of the "
                         f"{classes} classes")
    valid = target != ignore_index
    safe = ops.where(valid, target, 0).long()
    check_indices(safe, classes, f"{name}: class",
                  f"there are {classes} scores in a row, so classes go from 0 to {classes - 1}")
    losses = -ops.gather(logs, axis, safe.unsqueeze(axis)).squeeze(axis)
    if weight is None:
        weights = valid.to(logs.dtype)
    else:
        weights = ops.where(valid, weight[safe], 0.0)
        losses = losses * weights
    return ops.where(valid, losses, 0.0), weights
