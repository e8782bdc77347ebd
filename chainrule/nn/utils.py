"""Helpers around parameters: gradient clipping, and one flat vector of all."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.autograd import no_grad
from chainrule.core.errors import GradientError, SettingError, ShapeError
from chainrule.core.events import heard, tell
from chainrule.core.node import wrote
from chainrule.core.record import new
from chainrule.core.types import as_dtype
from chainrule.functions.shaping import cat
from chainrule.tensor import Tensor


def _gradients(parameters: Any) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    return [p.grad for p in parameters if p.grad is not None]


def _plain(tensors: list[Tensor]) -> bool:
    return all(isinstance(t._value, np.ndarray) for t in tensors)


def clip_grad_norm_(parameters: Any, max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """Scales all gradients by min(1, max_norm / norm), norm being that of them all together.

    Returns the norm before. (Pascanu, Mikolov & Bengio 2013)

    >>> import chainrule as cr
    >>> x = cr.zeros(2, requires_grad=True)
    >>> (x * cr.tensor([3.0, 4.0])).sum().backward()
    >>> clip_grad_norm_([x], 1.0).item()
    5.0
    >>> round(x.grad.norm().item(), 4)
    1.0
    """
    gradients = _gradients(parameters)
    norm_type = float(norm_type)
    if not gradients:
        if "clip" in heard:
            tell("clip", norm=0.0, most=float(max_norm))
        return new(np.zeros((), as_dtype(float)))  # type: ignore[no-any-return]
    if not _plain(gradients):
        return _clip_tensors(gradients, max_norm, norm_type)
    arrays = [g._value for g in gradients]
    norms = [_norm(array, norm_type) for array in arrays]
    if norm_type == math.inf:
        total = float(np.max(norms))
    elif norm_type == 2.0:
        total = math.sqrt(sum(n * n for n in norms))
    else:
        total = _norm(np.array(norms), norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise GradientError(
            f"the norm of the gradients is {total}, so they cannot be clipped. Look for the "
            "layer that produced it, or pass error_if_nonfinite=False to scale anyway")
    if "clip" in heard:
        tell("clip", norm=total, most=float(max_norm))
    scale = max_norm / (total + 1e-6)
    if not scale >= 1:                              # also where it is NaN, which must be seen
        for array in arrays:
            np.multiply(array, scale, array)
            wrote(array)
    return new(np.array(total, arrays[0].dtype))  # type: ignore[no-any-return]


def _norm(array: Any, kind: float) -> float:
    flat = array.reshape(-1)
    if kind == 2.0:
        square = float(np.dot(flat, flat))
        if not 1e-30 < square < 1e30:               # may have under- or overflowed
            wide = flat.astype(np.float64)
            square = float(np.dot(wide, wide))
        return math.sqrt(square)
    if kind == math.inf:
        return float(np.abs(flat).max(initial=0.0))
    return float((np.abs(flat.astype(np.float64)) ** kind).sum() ** (1 / kind))


def _clip_tensors(gradients: list[Tensor], max_norm: float, kind: float) -> Tensor:
    """The same on tensors, for a trace to record."""
    with no_grad():
        if kind == math.inf:
            total = gradients[0].abs().max()
            for g in gradients[1:]:
                total = rows.maximum(total, g.abs().max())
        else:
            power = sum(((g * g).sum() if kind == 2.0 else (g.abs() ** kind).sum()
                         for g in gradients[1:]),
                        (gradients[0].abs() ** kind).sum())
            total = rows.sqrt(power) if kind == 2.0 else power ** (1 / kind)
        scale = (max_norm / (total + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(scale)
        return total  # type: ignore[no-any-return]


def clip_grad_value_(parameters: Any, clip_value: float, foreach: bool | None = None) -> None:
    """Limits every element of the gradients to ±clip_value."""
    limit = float(clip_value)
    if not limit >= 0:
        raise SettingError(f"clip_value={clip_value!r} must be >= 0")
    gradients = _gradients(parameters)
    if "clip" in heard and _plain(gradients):
        largest = max((_norm(g._value, math.inf) for g in gradients), default=0.0)
        tell("clip", norm=largest, most=limit, elements=1.0)
    for grad in gradients:
        array = grad._value
        if isinstance(array, np.ndarray):
            np.clip(array, -limit, limit, out=array)
            wrote(array)
        else:
            with no_grad():
                grad.clamp_(-limit, limit)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one vector, in order; gradients flow through it."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copies the parts of a vector into the parameters, in order."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters needs a Tensor, not {type(vec).__name__}")
    found = list(parameters)
    sizes = [p._value.size for p in found]
    if tuple(vec.shape) != (sum(sizes),):
        raise ShapeError(f"the vector has shape {tuple(vec.shape)} and the parameters have "
                         f"{sum(sizes)} elements together")
    start = 0
    for p, size in zip(found, sizes, strict=True):
        with no_grad():
            p.copy_(vec[start:start + size].reshape(tuple(p.shape)))
        start += size
