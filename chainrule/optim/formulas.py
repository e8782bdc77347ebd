"""The update formulas: plain functions of arrays or tensors, one per optimiser.

`p` is the parameter, `g` its gradient; the arrays an optimiser keeps between steps follow. Only
operators and the helpers below are used, so the same text runs on NumPy arrays, on tensors,
and on tensors that have no value yet. `step` counts from 1; it and `lr` may be tensors too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import rows
from chainrule.functions import ops
from chainrule.tensor import Tensor


def root(x: Any) -> Any:
    """The square root of an array, a tensor or a number."""
    if isinstance(x, Tensor):
        return rows.sqrt(x)
    return np.sqrt(x) if isinstance(x, np.ndarray) else x ** 0.5


def larger(x: Any, y: Any) -> Any:
    """The larger of two arrays, tensors or numbers, element by element."""
    if isinstance(x, Tensor):
        return rows.maximum(x, y)
    return np.maximum(x, y) if isinstance(x, np.ndarray) else max(x, y)


def either(condition: Any, x: Any, y: Any) -> Any:
    """x where a number or tensor of one element is true, else y."""
    if isinstance(condition, Tensor):
        return ops.where(condition, x, y)
    return x if condition else y


def in_float32(x: Any) -> Any:
    """A number or tensor rounded to float32."""
    return x.float() if isinstance(x, Tensor) else np.float32(x)


def in_float64(x: Any) -> Any:
    """A number or tensor of double precision."""
    return x.double() if isinstance(x, Tensor) else float(x)


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


def adamax(p: Any, g: Any, m: Any, u: Any, *, step: Any, lr: Any, beta1: float = 0.9,
           beta2: float = 0.999, eps: float = 1e-8,
           weight_decay: float = 0.0) -> tuple[Any, Any, Any]:
    """AdaMax (Kingma & Ba 2015, section 7.1): Adam with the largest gradient in place of √v.

    m ← m + (1−β₁)(g − m), u ← max(β₂u, |g| + ε), p ← p − lr/(1−β₁ᵗ)·m/u.

    >>> p, m, u = adamax(1.0, 0.5, 0.0, 0.0, step=1, lr=0.1)
    >>> round(float(p), 6)
    0.9
    """
    if weight_decay:
        g = g + p * weight_decay
    m = m + (g - m) * (1 - beta1)
    u = larger(u * beta2, abs(g) + eps)
    return p - m / u * (lr / (1 - beta1 ** step)), m, u


def nadam(p: Any, g: Any, m: Any, v: Any, product: Any, *, step: Any, lr: Any,
          beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
          momentum_decay: float = 4e-3, decoupled: bool = False) -> tuple[Any, Any, Any, Any]:
    """NAdam (Dozat 2016): Adam with Nesterov's momentum, whose size μₜ changes with the step.

    μₜ = β₁(1 − ½·0.96^(tψ)) with ψ the `momentum_decay`, Πₜ = μ₁···μₜ (`product`),
    m ← m + (1−β₁)(g − m), v ← β₂v + (1−β₂)g², v̂ = v/(1−β₂ᵗ),
    p ← p − lr·[(1−μₜ)/(1−Πₜ)·g + μₜ₊₁/(1−Πₜ₊₁)·m]/(√v̂ + ε). Weight decay is applied to p itself
    when `decoupled`, else to g.

    >>> p, m, v, product = nadam(1.0, 0.5, 0.0, 0.0, 1.0, step=1, lr=0.1)
    >>> round(float(p), 6), round(float(product), 4)
    (0.894355, 0.4501)
    """
    product = nadam_product(product, step, beta1, momentum_decay)
    of_g, of_m, eps_hat = nadam_scales(product, step, lr, beta1, beta2, eps, momentum_decay)
    if weight_decay and decoupled:
        p = p * (1 - lr * weight_decay)
    elif weight_decay:
        g = g + p * weight_decay
    m = m + (g - m) * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    scale = root(v) + eps_hat
    return p - g * of_g / scale - m * of_m / scale, m, v, product


def nadam_product(product: Any, step: Any, beta1: float, momentum_decay: float) -> Any:
    """Πₜ of NAdam from the one before, in float32 as it is kept."""
    return in_float32(product) * in_float32(_momentum(step, beta1, momentum_decay))


def nadam_scales(product: Any, step: Any, lr: Any, beta1: float, beta2: float, eps: float,
                 momentum_decay: float) -> tuple[Any, Any, Any]:
    """The factors of g and m, and ε̂, of NAdam, with the correction of v folded in."""
    so_far, correction = in_float64(product), root(1 - beta2 ** step)
    now = _momentum(step, beta1, momentum_decay)
    after = _momentum(step + 1, beta1, momentum_decay)
    return (lr * (1 - now) / (1 - so_far) * correction,
            lr * after / (1 - so_far * after) * correction, eps * correction)


def _momentum(step: Any, beta1: float, momentum_decay: float) -> Any:
    return beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))


def radam(p: Any, g: Any, m: Any, v: Any, *, step: Any, lr: Any, beta1: float = 0.9,
          beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
          decoupled: bool = False) -> tuple[Any, Any, Any]:
    """RAdam (Liu et al. 2020): Adam that trusts √v only once it is an average of many steps.

    m ← m + (1−β₁)(g − m), v ← β₂v + (1−β₂)g²; ρ∞ = 2/(1−β₂) − 1, ρ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ).
    Where ρ > 5: p ← p − lr·r·√(1−β₂ᵗ)/(1−β₁ᵗ)·m/(√v + ε) with
    r² = (ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ); else p ← p − lr/(1−β₁ᵗ)·m. Weight decay is applied to p
    itself when `decoupled`, else to g.

    >>> p, m, v = radam(1.0, 0.5, 0.0, 0.0, step=1, lr=0.1)
    >>> round(float(p), 6)
    0.95
    """
    alpha, rectified = radam_scales(step, lr, beta1, beta2)
    if weight_decay and decoupled:
        p = p * (1 - lr * weight_decay)
    elif weight_decay:
        g = g + p * weight_decay
    m = m + (g - m) * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    return p - m / either(rectified, root(v) + eps, 1.0) * alpha, m, v


def radam_scales(step: Any, lr: Any, beta1: float, beta2: float) -> tuple[Any, Any]:
    """The step size of RAdam, and whether it divides by √v + ε."""
    correction = 1 - beta2 ** step
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * step * beta2 ** step / correction
    # At most 5 it is not used; so limited, no choice of β₂ divides by zero.
    far, near = larger(limit, 5.0), larger(length, 5.0)
    square = (near - 4) * (near - 2) * far / ((far - 4) * (far - 2) * near)
    rectified = length > 5
    return lr / (1 - beta1 ** step) * either(rectified, root(correction * square), 1.0), rectified
