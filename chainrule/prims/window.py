"""Convolution and windows over the last two axes of (N, C, H, W) arrays.

The three convolution rows are each other's transposes, so any derivative of one is made of them.
Evaluation gathers windows into a matrix (im2col) and multiplies; no Python loop runs over pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.errors import ShapeError
from chainrule.core.kinds import bilinear, front, linear, moved
from chainrule.core.types import ArrayType

from .index import at_argmax, split_index
from .shape import concatenate, reshape, slice_

Pair = tuple[int, int]
Axes = Sequence[int | None]


def out_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _windows_view(x: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Any:
    """(N, C, H', W', kh, kw), a view."""
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, span, (2, 3))
    return view[:, :, ::stride[0], ::stride[1], ::dilation[0], ::dilation[1]]


def _padded(x: Any, padding: Pair) -> Any:
    if padding == (0, 0):
        return x
    n, c, h, w = x.shape
    y = np.zeros((n, c, h + 2 * padding[0], w + 2 * padding[1]), x.dtype)
    y[:, :, padding[0]:padding[0] + h, padding[1]:padding[1] + w] = x
    return y


def _scatter_windows(cols: Any, shape: Any, stride: Pair, dilation: Pair) -> Any:
    """The transpose of _windows_view: (N, C, H', W', kh, kw) added up where they came from."""
    y = np.zeros(shape, cols.dtype)
    height, width, kh, kw = cols.shape[2:]
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation[0], j * dilation[1]
            y[:, :, top:top + height * stride[0]:stride[0],
              left:left + width * stride[1]:stride[1]] += cols[..., i, j]
    return y


# ---------------------------------------------------------------- convolution


def _conv_type(x: ArrayType, w: ArrayType, stride: Pair, padding: Pair, dilation: Pair,
               groups: int) -> ArrayType:
    if x.ndim != 4 or w.ndim != 4:
        raise ShapeError(f"conv2d: input must be (N, C, H, W) and weight (O, C/groups, kh, kw), "
                         f"got {x} and {w}")
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(f"conv2d: input {x} has {x.shape[1]} channels, weight {w} with groups="
                         f"{groups} takes {w.shape[1] * groups}")
    height = out_size(x.shape[2], w.shape[2], stride[0], padding[0], dilation[0])
    width = out_size(x.shape[3], w.shape[3], stride[1], padding[1], dilation[1])
    if height <= 0 or width <= 0:
        raise ShapeError(f"conv2d: the kernel {list(w.shape[2:])} with padding {list(padding)} "
                         f"does not fit into {x}")
    return ArrayType((x.shape[0], w.shape[0], height, width), x.dtype)


def _columns(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
             groups: int) -> Any:
    """(groups, C/groups·kh·kw, N·H'·W')."""
    view = _windows_view(_padded(x, padding), kernel, stride, dilation)
    n, c, height, width = view.shape[:4]
    cols = view.transpose(1, 4, 5, 0, 2, 3)
    return cols.reshape(groups, c // groups * kernel[0] * kernel[1], n * height * width)


def _by_group(g: Any, groups: int) -> Any:
    """(N, O, H', W') as (groups, O/groups, N·H'·W')."""
    n, o, height, width = g.shape
    return g.transpose(1, 0, 2, 3).reshape(groups, o // groups, n * height * width)


def _conv(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
    kernel = (w.shape[2], w.shape[3])
    y_type = _conv_type(ArrayType(x.shape, x.dtype), ArrayType(w.shape, w.dtype), stride, padding,
                        dilation, groups)
    cols = _columns(x, kernel, stride, padding, dilation, groups)
    y = np.matmul(w.reshape(groups, w.shape[0] // groups, -1), cols)
    n, o, height, width = y_type.shape
    return np.ascontiguousarray(y.reshape(o, n, height, width).transpose(1, 0, 2, 3))


def _conv_input(g: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int,
                size: Pair) -> Any:
    n, o, height, width = g.shape
    kh, kw = w.shape[2:]
    channels = w.shape[1] * groups
    rows = w.reshape(groups, o // groups, -1)
    cols = np.matmul(rows.transpose(0, 2, 1), _by_group(g, groups))
    cols = cols.reshape(channels, kh, kw, n, height, width).transpose(3, 0, 4, 5, 1, 2)
    shape = (n, channels, size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    full = _scatter_windows(cols, shape, stride, dilation)
    return np.ascontiguousarray(full[:, :, padding[0]:padding[0] + size[0],
                                     padding[1]:padding[1] + size[1]])


def _conv_weight(x: Any, g: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int,
                 kernel: Pair) -> Any:
    height, width = g.shape[2:]
    span = [(k - 1) * d + (n - 1) * s + 1
            for k, d, n, s in zip(kernel, dilation, (height, width), stride, strict=True)]
    padded = _padded(x, padding)[:, :, :span[0], :span[1]]
    cols = _columns(padded, kernel, stride, (0, 0), dilation, groups)
    w = np.matmul(_by_group(g, groups), cols.transpose(0, 2, 1))
    return w.reshape(g.shape[1], x.shape[1] // groups, *kernel)


def _fold_batch(row: Any, which: int) -> Any:
    """Batching: a batch of images is a larger N; a batch of kernels is done one by one."""
    def batch(xs: Sequence[Any], ax: Axes, **params: Any) -> Any:
        size = next(x.shape[a] for x, a in zip(xs, ax, strict=True) if a is not None)
        other = 1 - which
        if which < 2 and ax[other] is None:
            x = moved(xs[which], ax[which] or 0)
            folded = reshape(x, shape=(size * x.shape[1], *x.shape[2:]))
            operands = (folded, xs[1]) if which == 0 else (xs[0], folded)
            y = row()(*operands, **params)
            return reshape(y, shape=(size, x.shape[1], *y.shape[1:])), 0
        from_each = [row()(*[x if a is None else pick(x, a, i)
                             for x, a in zip(xs, ax, strict=True)], **params)
                     for i in range(size)]
        return stacked(from_each), 0
    return batch


def pick(x: Any, axis: int, i: int) -> Any:
    x = moved(x, axis)
    return slice_(x, key=(i, *[slice(None)] * (len(x.shape) - 1)))


def stacked(xs: Sequence[Any]) -> Any:
    return concatenate(*[front(x, None, 1) for x in xs], axis=0)


def _settings(rng: Any) -> Any:
    return [{"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
            {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}]


def _conv_samples(rng: Any) -> Any:
    return [((rng.normal(size=(2, 4, 5, 7)), rng.normal(size=(6, 4 // p["groups"], 3, 2))), p)
            for p in _settings(rng)]


def _conv_input_samples(rng: Any) -> Any:
    return [((rng.normal(size=conv2d.infer(ArrayType((2, 4, 5, 7)), ArrayType(w.shape), **p).shape),
              w), {**p, "size": (5, 7)})
            for p in _settings(rng) for w in [rng.normal(size=(6, 4 // p["groups"], 3, 2))]]


def _conv_weight_samples(rng: Any) -> Any:
    return [((rng.normal(size=(2, 4, 5, 7)), rng.normal(size=conv2d.infer(
        ArrayType((2, 4, 5, 7)), ArrayType((6, 4 // p["groups"], 3, 2)), **p).shape)),
        {**p, "kernel": (3, 2)}) for p in _settings(rng)]


# ---------------------------------------------------------------- compiled: the same by products


def _window_view(e: Any, x: Any, kernel: Pair, stride: Pair, dilation: Pair, height: int,
                 width: int) -> Any:
    """(N, C, H', W', kh, kw), a view of x."""
    shape = (*x.shape[:2], height, width, *kernel)
    h = e.axis(2, shape).times(stride[0]).add(e.axis(4, shape).times(dilation[0]))
    w = e.axis(3, shape).times(stride[1]).add(e.axis(5, shape).times(dilation[1]))
    return e.view(x, shape, (e.axis(0, shape), e.axis(1, shape), h, w))


def _pad_lower(e: Any, x: Any, padding: Pair) -> Any:
    if padding == (0, 0):
        return x
    shape = (*x.shape[:2], x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1])
    return e.place(x, shape, (slice(None), slice(None), slice(padding[0], padding[0] + x.shape[2]),
                              slice(padding[1], padding[1] + x.shape[3])))


def _group(e: Any, x: Any, axis: int, groups: int) -> Any:
    """Axis `axis` as (groups, rest), the groups in front."""
    split = (*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1:])
    order = (axis, *[d for d in range(len(split)) if d != axis])
    return e.permute(e.reshape(x, split), order)


def _columns_lower(e: Any, x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
                   groups: int, height: int, width: int) -> Any:
    """(groups, N·H'·W', C/groups·kh·kw)."""
    view = _window_view(e, _pad_lower(e, x, padding), kernel, stride, dilation, height, width)
    split = _group(e, view, 1, groups)                       # (g, N, C/g, H', W', kh, kw)
    rows = e.permute(split, (0, 1, 3, 4, 2, 5, 6))
    n, c = x.shape[:2]
    return e.reshape(rows, (groups, n * height * width, c // groups * kernel[0] * kernel[1]))


def _kernel_rows(e: Any, w: Any, groups: int) -> Any:
    """(groups, O/groups, C/groups·kh·kw)."""
    return e.reshape(w, (groups, w.shape[0] // groups, w.shape[1] * w.shape[2] * w.shape[3]))


def _image_rows(e: Any, g: Any, groups: int) -> Any:
    """(N, O, H', W') as (groups, O/groups, N·H'·W')."""
    n, o, height, width = g.shape
    split = _group(e, g, 1, groups)                          # (g, N, O/g, H', W')
    return e.reshape(e.permute(split, (0, 2, 1, 3, 4)), (groups, o // groups, n * height * width))


# A convolution that reads the images themselves has channels side by side; of fewer than this,
# too little of a vector is used.
CHANNELS = 3
# Fewer channels of a group have pixels side by side, if no more terms than this are added.
TERMS = 64


def _direct(dtype: Any, channels: int, *shapes: tuple[int, ...]) -> bool:
    return dtype.kind == "f" and dtype.itemsize > 2 and channels >= CHANNELS and all(
        0 not in shape for shape in shapes)


def _thin(dtype: Any, channels: int, terms: int, *shapes: tuple[int, ...]) -> bool:
    """Does each group, as of a depthwise convolution, have few channels and terms?"""
    return dtype.kind == "f" and channels < CHANNELS and 0 < terms <= TERMS and all(
        0 not in shape for shape in shapes)


def _thin_views(e: Any, x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
                groups: int, pixels: Pair) -> list[tuple[tuple[int, int, int], Any]]:
    """For each channel of a group and place of the window, (N, groups, H', W') of the image."""
    whole = _group(e, _pad_lower(e, x, padding), 1, groups)         # (g, N, C/g, H, W)
    shape = (x.shape[0], groups, *pixels)
    found = []
    for k in range(whole.shape[2]):
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                h = e.axis(2, shape).times(stride[0]).plus(i * dilation[0])
                w = e.axis(3, shape).times(stride[1]).plus(j * dilation[1])
                zero = e.axis(0, shape).times(0)
                found.append(((k, i, j), e.view(whole, shape, (
                    e.axis(1, shape), e.axis(0, shape), zero.plus(k), h, w))))
    return found


def _thin_conv(e: Any, x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair,
               pixels: Pair) -> Any:
    """One term after the other is added, each for all pixels; `w` is (groups, j, k, kh, kw)."""
    groups, outer = w.shape[:2]
    views = _thin_views(e, x, w.shape[3:], stride, padding, dilation, groups, pixels)
    parts = []
    for o in range(outer):
        total = None
        for (k, i, j), view in views:
            weight = e.slice(w, (None, slice(None), o, k, i, j, None, None))
            term = view * e.broadcast(weight, view.shape)
            total = term if total is None else total + term
        parts.append(total)
    if outer == 1:
        return parts[0]
    n = x.shape[0]
    whole = e.concatenate([e.reshape(p, (n, groups, 1, *pixels)) for p in parts], 2)
    return e.reshape(whole, (n, groups * outer, *pixels))


def _thin_weight(e: Any, x: Any, g: Any, kernel: Pair, stride: Pair, padding: Pair,
                 dilation: Pair, groups: int) -> Any:
    """(O, C/groups, kh, kw): for each place of the window a sum over images and pixels."""
    n, o, height, width = g.shape
    inner = x.shape[1] // groups
    whole = _pad_lower(e, x, padding)
    shape = (groups, o // groups, inner, *kernel, n, height, width)
    channel = e.axis(0, shape).times(inner).add(e.axis(2, shape))
    h = e.axis(6, shape).times(stride[0]).add(e.axis(3, shape).times(dilation[0]))
    w = e.axis(7, shape).times(stride[1]).add(e.axis(4, shape).times(dilation[1]))
    seen = e.view(whole, shape, (e.axis(5, shape), channel, h, w))
    out = e.axis(0, shape).times(o // groups).add(e.axis(1, shape))
    given = e.view(g, shape, (e.axis(5, shape), out, e.axis(6, shape), e.axis(7, shape)))
    return e.reshape(e.reduce("sum", seen * given, (5, 6, 7)), (o, inner, *kernel))


def _grouped(e: Any, x: Any, groups: int) -> Any:
    """(N, C, H, W) as (N, groups, C/groups, H, W)."""
    return e.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))


def _kernels(e: Any, w: Any, groups: int) -> Any:
    """(O, C/groups, kh, kw) as (groups, O/groups, C/groups, kh, kw)."""
    return e.reshape(w, (groups, w.shape[0] // groups, *w.shape[1:]))


def _conv_lower(e: Any, x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair,
                groups: int) -> Any:
    n, o, height, width = _conv_type(x.type, w.type, stride, padding, dilation, groups).shape
    if _direct(x.dtype, o // groups, x.shape, w.shape):
        axes = [e.straight(*sizes) for sizes in zip((height, width), w.shape[2:], stride, padding,
                                                    dilation, strict=True)]
        return e.convolve(_grouped(e, x, groups), _kernels(e, w, groups), *axes, (height, width))
    if _thin(x.dtype, o // groups, w.shape[1] * w.shape[2] * w.shape[3], x.shape, w.shape):
        return _thin_conv(e, x, _kernels(e, w, groups), stride, padding, dilation, (height, width))
    columns = _columns_lower(e, x, w.shape[2:], stride, padding, dilation, groups, height, width)
    last = (0, 2, 1)
    y = e.contract(_kernel_rows(e, w, groups), e.permute(columns, last))
    split = e.reshape(y, (groups, o // groups, n, height, width))
    return e.reshape(e.permute(split, (2, 0, 1, 3, 4)), (n, o, height, width))


def _conv_input_lower(e: Any, g: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair,
                      groups: int, size: Pair) -> Any:
    n, _, height, width = g.shape
    kh, kw = w.shape[2:]
    channels = w.shape[1] * groups
    if _direct(g.dtype, w.shape[1], g.shape, w.shape, size):
        axes = [e.unwound(*sizes) for sizes in zip(size, (kh, kw), stride, padding, dilation,
                                                   strict=True)]
        turned = e.permute(_kernels(e, w, groups), (0, 2, 1, 3, 4))
        return e.convolve(_grouped(e, g, groups), turned, *axes, size)
    around = (dilation[0] * (kh - 1) - padding[0], dilation[1] * (kw - 1) - padding[1])
    if stride == (1, 1) and min(around) >= 0 and _thin(
            g.dtype, w.shape[1], g.shape[1] // groups * kh * kw, g.shape, w.shape, size):
        turned = e.flip(e.permute(_kernels(e, w, groups), (0, 2, 1, 3, 4)), (3, 4))
        return _thin_conv(e, g, turned, stride, around, dilation, size)
    columns = e.contract(e.permute(_kernel_rows(e, w, groups), (0, 2, 1)),
                         _image_rows(e, g, groups))
    parts = e.permute(e.reshape(columns, (channels, kh, kw, n, height, width)),
                      (3, 0, 4, 5, 1, 2))
    whole = (n, channels, size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    full = _unwindows_lower(e, parts, (kh, kw), stride, dilation, whole)
    return e.slice(full, (slice(None), slice(None), slice(padding[0], padding[0] + size[0]),
                          slice(padding[1], padding[1] + size[1])))


def _conv_weight_lower(e: Any, x: Any, g: Any, stride: Pair, padding: Pair, dilation: Pair,
                       groups: int, kernel: Pair) -> Any:
    height, width = g.shape[2:]
    if _direct(x.dtype, g.shape[1] // groups, x.shape, g.shape, kernel):
        axes = [e.straight(*sizes) for sizes in zip((height, width), kernel, stride, padding,
                                                    dilation, strict=True)]
        return e.correlate(_grouped(e, x, groups), _grouped(e, g, groups), *axes, kernel)
    if _thin(x.dtype, g.shape[1] // groups, x.shape[1] // groups * kernel[0] * kernel[1], x.shape,
             g.shape, kernel):
        return _thin_weight(e, x, g, kernel, stride, padding, dilation, groups)
    columns = _columns_lower(e, x, kernel, stride, padding, dilation, groups, height, width)
    w = e.contract(_image_rows(e, g, groups), columns)
    return e.reshape(w, (g.shape[1], x.shape[1] // groups, *kernel))


def _unwindows_lower(e: Any, parts: Any, kernel: Pair, stride: Pair, dilation: Pair,
                     shape: tuple[int, ...]) -> Any:
    """(N, C, H', W', kh, kw) added up where they came from, one place of the window at a time."""
    every = slice(None)
    pieces = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            part = e.slice(parts, (every, every, every, every, i, j))
            h = e.axis(2, part.shape).times(stride[0]).plus(i * dilation[0])
            w = e.axis(3, part.shape).times(stride[1]).plus(j * dilation[1])
            pieces.append((part, (e.axis(0, part.shape), e.axis(1, part.shape), h, w)))
    return e.assemble(shape, parts.dtype, pieces, fill=True, add=True)


def _unpooled(e: Any, x: Any, kernel: Pair, stride: Pair, dilation: Pair,
              shape: tuple[int, ...]) -> Any:
    """(N, C, H', W', kh·kw) added up where they came from. Where they are zeros but for one number
    in each window, at an argmax, these alone are added."""
    if not _one_in_each(x):
        parts = e.reshape(x, (*x.shape[:4], *kernel))
        return _unwindows_lower(e, parts, kernel, stride, dilation, shape)
    source, where = x.inputs
    height, width = x.shape[2:4]
    if stride == kernel and dilation == (1, 1) and shape[2:] == (height * kernel[0],
                                                                 width * kernel[1]):
        # Windows side by side: each place of the image looks whether it is the one.
        apart = (*shape[:2], height, kernel[0], width, kernel[1])
        here = tuple([e.axis(d, apart) for d in (0, 1, 2, 4)])
        spread = [e.view(one, apart, (*here, here[0].times(0))) for one in (where, source)]

        def chosen(f: Any, i: Any, g: Any, row: Any, column: Any) -> Any:
            return f.select(f.eq(i, row * kernel[1] + column), g, f.const(0, g))

        y = e.map("at_argmax", chosen, *spread, e.count(apart, 3), e.count(apart, 5),
                  dtype=source.dtype, cost=4, key=kernel)
        return e.reshape(y, shape)
    places = []
    for axis in (0, 1):
        # the place in the image: where the window begins, and how far in it the argmax is
        def place(f: Any, i: Any, n: Any, axis: int = axis) -> Any:
            return n * stride[axis] + split_index(f, i, kernel)[axis] * dilation[axis]

        places.append(e.map("place_in_image", place, where, e.count(where.shape, 2 + axis),
                            dtype=where.dtype, cost=6, key=(axis, kernel, stride, dilation)))
    return e.scatter(None, shape, source, [e.axis(0, where.shape), e.axis(1, where.shape), *places],
                     True, False, "max_pool2d")


def _one_in_each(x: Any) -> bool:
    """Are these zeros with one number put along the last axis, at an argmax of as many places?"""
    return bool(x.kind == "scatter" and not x.what[-1] and x.inputs[0].shape[-1] == 1
                and [affine is None for affine in x.what[0]] == [False] * 4 + [True]
                and at_argmax(x.inputs[1], x.shape[-1]))


def _windows_lower(e: Any, x: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Any:
    shape = _windows_type(x.type, kernel, stride, dilation).shape
    view = _window_view(e, x, kernel, stride, dilation, *shape[2:4])
    return e.reshape(view, shape)


conv2d = bilinear("conv2d", eval=_conv, infer=_conv_type,
    slots=(lambda g, x, w, **p: conv2d_input(g, w, size=tuple(x.shape[2:]), **p),
           lambda g, x, w, **p: conv2d_weight(x, g, kernel=tuple(w.shape[2:]), **p)),
    batch=_fold_batch(lambda: conv2d, 0), samples=_conv_samples, public="_conv2d",
    lower=_conv_lower,
    doc="Cross-correlation of (N, C, H, W) images with (O, C/groups, kh, kw) kernels.")
conv2d_input = bilinear("conv2d_input", eval=_conv_input,
    infer=lambda g, w, size, groups, **p: ArrayType((g.shape[0], w.shape[1] * groups, *size),
                                                    g.dtype),
    slots=(lambda h, g, w, size, **p: conv2d(h, w, **p),
           lambda h, g, w, size, **p: conv2d_weight(h, g, kernel=tuple(w.shape[2:]), **p)),
    batch=_fold_batch(lambda: conv2d_input, 0), samples=_conv_input_samples,
    lower=_conv_input_lower,
    doc="The transpose of conv2d in its image: the transposed convolution.")
conv2d_weight = bilinear("conv2d_weight", eval=_conv_weight,
    infer=lambda x, g, kernel, groups, **p: ArrayType(
        (g.shape[1], x.shape[1] // groups, *kernel), x.dtype),
    slots=(lambda h, x, g, kernel, **p: conv2d_input(g, h, size=tuple(x.shape[2:]), **p),
           lambda h, x, g, kernel, **p: conv2d(x, h, **p)),
    batch=_fold_batch(lambda: conv2d_weight, 2), samples=_conv_weight_samples,
    lower=_conv_weight_lower,
    doc="The transpose of conv2d in its kernel.")

# ---------------------------------------------------------------- windows for pooling


def _windows_type(a: ArrayType, kernel: Pair, stride: Pair, dilation: Pair) -> ArrayType:
    height = out_size(a.shape[2], kernel[0], stride[0], 0, dilation[0])
    width = out_size(a.shape[3], kernel[1], stride[1], 0, dilation[1])
    if height <= 0 or width <= 0:
        raise ShapeError(f"pooling: the window {list(kernel)} does not fit into {a}")
    return ArrayType((*a.shape[:2], height, width, kernel[0] * kernel[1]), a.dtype)


def _windows(x: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Any:
    view = _windows_view(x, kernel, stride, dilation)
    return np.ascontiguousarray(view).reshape(*view.shape[:4], -1)


def _unwindows(x: Any, kernel: Pair, stride: Pair, dilation: Pair, size: Pair) -> Any:
    return _scatter_windows(x.reshape(*x.shape[:4], *kernel), (*x.shape[:2], *size), stride,
                            dilation)


def _channel_batch(row: Any) -> Any:
    def batch(xs: Sequence[Any], ax: Axes, **params: Any) -> Any:
        x = moved(xs[0], ax[0] or 0)
        y = row()(reshape(x, shape=(x.shape[0] * x.shape[1], *x.shape[2:])), **params)
        return reshape(y, shape=(x.shape[0], x.shape[1], *y.shape[1:])), 0
    return batch


windows = linear("windows", eval=_windows, infer=_windows_type,
    transpose=lambda g, x, **p: unwindows(g, size=tuple(x.shape[2:]), **p),
    batch=_channel_batch(lambda: windows),
    samples=lambda rng: [((rng.normal(size=(1, 2, 5, 6)),),
                          {"kernel": (2, 3), "stride": (2, 1), "dilation": (1, 2)})],
    lower=_windows_lower, doc="The windows of an image: (N, C, H, W) to (N, C, H', W', kh·kw).")
unwindows = linear("unwindows", eval=_unwindows,
    infer=lambda a, size, **p: ArrayType((*a.shape[:2], *size), a.dtype),
    transpose=lambda g, x, size, **p: windows(g, **p), batch=_channel_batch(lambda: unwindows),
    samples=lambda rng: [((rng.normal(size=(1, 2, 2, 2, 6)),),
                          {"kernel": (2, 3), "stride": (2, 1), "dilation": (1, 2),
                           "size": (5, 6)})],
    lower=lambda e, x, kernel, stride, dilation, size: _unpooled(
        e, x, kernel, stride, dilation, (*x.shape[:2], *size)),
    doc="Windows added up where they came from.")
