"""Initial values: each function fills a tensor in place and returns it.

Numbers come from the default generator (`chainrule.manual_seed`) or from `generator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import random
from chainrule.autograd import no_grad
from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.node import wrote
from chainrule.tensor import Tensor

from .display import type_text

Array = np.ndarray[Any, Any]


def _fill(tensor: Tensor, values: Any) -> Tensor:
    target = tensor._value
    target[...] = values
    wrote(target)
    return tensor


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Any) -> Array:
    values: Array = random.rand(*shape, generator=generator)._value
    return values * (high - low) + low


def _normal(shape: tuple[int, ...], mean: float, std: float, generator: Any) -> Array:
    values: Array = random.randn(*shape, generator=generator)._value
    return values * std + mean


# ---------------------------------------------------------------- fans and gains


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """(inputs, outputs) of one unit: shape[1], shape[0], each times the kernel's size."""
    sizes = tuple(tensor.shape)
    if len(sizes) < 2:
        raise ShapeError(f"fan in and fan out need at least 2 axes (out, in, ...), and got "
                         f"{type_text(tensor)}")
    kernel = math.prod(sizes[2:])
    return sizes[1] * kernel, sizes[0] * kernel


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity (He et al. 2015).

    >>> calculate_gain("relu") == 2 ** 0.5
    True
    """
    if nonlinearity in ("linear", "conv1d", "conv2d", "conv3d", "sigmoid", "identity"):
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise SettingError(f"negative_slope {slope!r} must be a number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise SettingError(f"there is no gain for the nonlinearity {nonlinearity!r}; known are linear, "
                       "conv2d, sigmoid, tanh, relu, leaky_relu and selu")


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise SettingError(f"mode={mode!r} must be 'fan_in' or 'fan_out'")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


# ---------------------------------------------------------------- plain fills


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform between a and b."""
    return _fill(tensor, _uniform(tuple(tensor.shape), a, b, generator))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return _fill(tensor, _normal(tuple(tensor.shape), mean, std, generator))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0,
                  b: float = 2.0, generator: Any = None) -> Tensor:
    """Normal, with values outside a ... b (absolute, not in deviations) drawn again."""
    if not a < b:
        raise SettingError(f"trunc_normal_: a={a!r} must be below b={b!r}")
    shape = tuple(tensor.shape)
    low, high = (a - mean) / std, (b - mean) / std
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    # Drawing again needs about 1/mass tries; from a thin tail uniform proposals need fewer.
    if mass > 0.1:
        def draw() -> tuple[Array, Array]:
            z = _normal(shape, 0.0, 1.0, generator)
            return z, (z >= low) & (z <= high)
    else:
        near = min(max(0.0, low), high)

        def draw() -> tuple[Array, Array]:
            z = _uniform(shape, low, high, generator)
            u = _uniform(shape, 0.0, 1.0, generator)
            return z, u <= np.exp((near * near - z * z) / 2)
    values, good = draw()
    while not good.all():
        more, fits = draw()
        values, good = np.where(good, values, more), good | fits
    return _fill(tensor, np.clip(values * std + mean, a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One number everywhere."""
    return _fill(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return _fill(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return _fill(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix."""
    sizes = tuple(tensor.shape)
    if len(sizes) != 2:
        raise ShapeError(f"eye_ fills a matrix, and got {type_text(tensor)}")
    return _fill(tensor, np.eye(*sizes))


# ---------------------------------------------------------------- variance-preserving fills


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in ±gain·√(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with deviation gain·√(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    std = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return normal_(tensor, 0.0, std, generator)


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in",
                     nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Uniform in ±gain·√(3 / fan) (He et al. 2015); `a` is the slope of a leaky ReLU."""
    bound = math.sqrt(3.0) * _he_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in",
                    nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Normal with deviation gain / √fan (He et al. 2015); `a` is the slope of a leaky ReLU."""
    return normal_(tensor, 0.0, _he_std(tensor, a, mode, nonlinearity), generator)


def _he_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan = _fan(tensor, mode)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A (semi-)orthogonal matrix (Saxe et al. 2014); further axes are flattened into columns."""
    if len(tensor.shape) < 2:
        raise ShapeError(f"orthogonal_ needs at least 2 axes, and got {type_text(tensor)}")
    if not tensor._value.size:
        return tensor
    rows = tensor.shape[0]
    columns = tensor._value.size // rows
    draws = _normal((rows, columns), 0.0, 1.0, generator).astype(np.float64)
    q, r = np.linalg.qr(draws.T if rows < columns else draws)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)      # makes the distribution uniform
    return _fill(tensor, (gain * (q.T if rows < columns else q)).reshape(tuple(tensor.shape)))


# ---------------------------------------------------------------- data-driven


def lsuv_(module: Any, batch: Any, tolerance: float = 0.1, max_iterations: int = 10,
          generator: Any = None) -> Any:
    """Layer-sequential unit variance (Mishkin & Matas 2016): fills a whole module, returns it.

    Every layer with a weight of two or more axes starts orthogonal; then, in the order in which
    `module(batch)` calls them, each weight is divided by the deviation of its output until the
    output's variance is within `tolerance` of 1, at most `max_iterations` times.
    """
    order: list[Any] = []
    outputs: dict[int, Array] = {}

    def watch(layer: Any, args: Any, output: Any) -> None:
        if not any(layer is seen for seen in order):
            order.append(layer)
        outputs[id(layer)] = output._value

    layers = [layer for layer in module.modules()
              if isinstance(weight := layer._parameters.get("weight"), Tensor)
              and len(weight.shape) >= 2 and not hasattr(layer, "num_embeddings")]
    for layer in layers:
        orthogonal_(layer.weight, generator=generator)
        if layer._parameters.get("bias") is not None:
            zeros_(layer.bias)
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        _run(module, batch)
        for layer in order:
            for _ in range(max_iterations):
                variance = float(np.var(outputs[id(layer)], dtype=np.float64))
                if abs(variance - 1) <= tolerance or not variance > 0:
                    break
                _fill(layer.weight, layer.weight._value / math.sqrt(variance))
                _run(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    return module


def _run(module: Callable[..., Any], batch: Any) -> None:
    with no_grad():
        module(*batch) if isinstance(batch, tuple | list) else module(batch)
