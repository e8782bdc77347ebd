"""The update formulas: plain functions of arrays or tensors, one per optimiser.

`p` is the parameter, `g` its gradient; the arrays an optimiser keeps between steps follow. Only
operators and the two helpers below are used, so the same text runs on NumPy arrays, on tensors,
and on tensors that have no value yet. `step` counts from 1; it and `lr` may be tensors too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import rows
from chainrule.tensor import Tensor


def root(x: Any) -> Any:
    """The square root of an array, a tensor or a number."""
    if isinstance(x, Tensor):
        return rows.sqrt(x)
    return np.sqrt(x) if isinstance(x, np.ndarray) else x ** 0.5


def larger(x: Any, y: Any) -> Any:
    """The larger of two arrays or tensors, element by element."""
    return rows.maximum(x, y) if isinstance(x, Tensor) else np.maximum(x, y)


def sgd(p: Any, g: Any, buffer: Any = None, *, lr: Any, momentum: float = 0.0,
        dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
        fresh: bool = False) -> tuple[Any, Any]:
    """Gradient descent: g ← g + λp, b ← μb + (1−τ)g, p ← p − lr·b (Nesterov: p − lr·(g + μb)).

    The first step, `fresh`, starts the buffer at g itself.

    >>> sgd(1.0, 0.5, lr=0.1)
    (0.95, None)
    """
    if weight_decay:
        g = g + p * weight_decay
    if momentum:
        if fresh:
            buffer = g
        elif dampening:
            buffer = buffer * momentum + g * (1 - dampening)
        else:
            buffer = buffer * momentum + g
        g = g + buffer * momentum if nesterov else buffer
    return p - g * lr, buffer


def adam(p: Any, g: Any, m: Any, v: Any, largest: Any = None, *, step: Any, lr: Any,
         beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
         decoupled: bool = False) -> tuple[Any, Any, Any, Any]:
    """Adam in the form of Kingma & Ba (2015), end of section 2; AdamW when `decoupled`.

    m ← m + (1−β₁)(g − m), v ← β₂v + (1−β₂)g², p ← p − α·m / (√v + ε̂) with
    α = lr·√(1−β₂ᵗ)/(1−β₁ᵗ) and ε̂ = ε·√(1−β₂ᵗ). With `largest` (AMSGrad, Reddi et al. 2018)
    the largest v so far takes the place of v.

    >>> p, m, v, _ = adam(1.0, 0.5, 0.0, 0.0, step=1, lr=0.1)
    >>> round(float(p), 6)
    0.9
    """
    alpha, eps_hat = adam_scales(step, lr, beta1, beta2, eps)
    if weight_decay and decoupled:
        p = p * (1 - lr * weight_decay)
    elif weight_decay:
        g = g + p * weight_decay
    m = m + (g - m) * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    if largest is not None:
        largest = larger(largest, v)
    p = p - m / (root(v if largest is None else largest) + eps_hat) * alpha
    return p, m, v, largest


def adam_scales(step: Any, lr: Any, beta1: float, beta2: float, eps: float) -> tuple[Any, Any]:
    """(α, ε̂) of Adam: the step size and epsilon with both bias corrections folded in."""
    correction = root(1 - beta2 ** step)
    return lr * correction / (1 - beta1 ** step), eps * correction


def rmsprop(p: Any, g: Any, v: Any, buffer: Any = None, mean: Any = None, *, lr: Any,
            alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
            momentum: float = 0.0) -> tuple[Any, Any, Any, Any]:
    """RMSprop (Hinton, lecture 6e): v ← αv + (1−α)g², p ← p − lr·g/(√v + ε).

    Centred (Graves 2013) when `mean` is given: √(v − mean²) takes the place of √v. With momentum
    b ← μb + g/(√v + ε) and p ← p − lr·b.

    >>> p, v, _, _ = rmsprop(1.0, 0.5, 0.0, lr=0.1)
    >>> round(float(p), 6)
    0.0
    """
    if weight_decay:
        g = g + p * weight_decay
    v = v * alpha + g * g * (1 - alpha)
    if mean is None:
        scale = root(v) + eps
    else:
        mean = mean + (g - mean) * (1 - alpha)
        scale = root(v - mean * mean) + eps
    if momentum:
        buffer = buffer * momentum + g / scale
        return p - buffer * lr, v, buffer, mean
    return p - g / scale * lr, v, buffer, mean


def adagrad(p: Any, g: Any, total: Any, *, step: Any, lr: Any, lr_decay: float = 0.0,
            eps: float = 1e-10, weight_decay: float = 0.0) -> tuple[Any, Any]:
    """Adagrad (Duchi, Hazan & Singer 2011): s ← s + g², p ← p − lrₜ·g/(√s + ε).

    lrₜ = lr / (1 + (t−1)·lr_decay).

    >>> p, total = adagrad(1.0, 0.5, 0.0, step=1, lr=0.1)
    >>> round(float(p), 6), total
    (0.9, 0.25)
    """
    if weight_decay:
        g = g + p * weight_decay
    total = total + g * g
    return p - g / (root(total) + eps) * (lr / (1 + (step - 1) * lr_decay)), total


def adadelta(p: Any, g: Any, v: Any, u: Any, *, lr: Any, rho: float = 0.9, eps: float = 1e-6,
             weight_decay: float = 0.0) -> tuple[Any, Any, Any]:
    """Adadelta (Zeiler 2012): v ← ρv + (1−ρ)g², d = √(u+ε)/√(v+ε)·g, u ← ρu + (1−ρ)d².

    p ← p − lr·d.

    >>> p, v, u = adadelta(1.0, 0.5, 0.0, 0.0, lr=1.0)
    >>> round(float(p), 6)
    0.996838
    """
    if weight_decay:
        g = g + p * weight_decay
    v = v * rho + g * g * (1 - rho)
    d = root(u + eps) / root(v + eps) * g
    u = u * rho + d * d * (1 - rho)
    return p - d * lr, v, u
