"""Stacks of equal layers, to see what depth, activation and initialisation do to a gradient.

Inputs and the gradient that arrives at the top are drawn from the normal distribution N(0, 1), so
that what is measured in between belongs to the layers alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import chainrule.rows as rows
from chainrule.core.errors import SettingError
from chainrule.core.record import new
from chainrule.nn import functional

from .layers import Factors, keeping_values, layer_factors

WIDTH, EXAMPLES = 128, 16      # small enough that NumPy multiplies with one thread
DEPTHS = (10, 30, 50)

ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "sigmoid": rows.sigmoid, "tanh": rows.tanh, "relu": rows.relu,
}
Array = np.ndarray[Any, Any]


def standard(rng: Any, inputs: int, outputs: int) -> Array:
    """Uniform in ±1/√inputs: usual before Glorot & Bengio (2010), their equation 1."""
    bound = 1 / math.sqrt(inputs)
    values: Array = rng.uniform(-bound, bound, (outputs, inputs))
    return values


def xavier(rng: Any, inputs: int, outputs: int) -> Array:
    """Uniform in ±√(6/(inputs + outputs)): Glorot & Bengio (2010), equation 16."""
    bound = math.sqrt(6 / (inputs + outputs))
    values: Array = rng.uniform(-bound, bound, (outputs, inputs))
    return values


def he(rng: Any, inputs: int, outputs: int) -> Array:
    """Normal with variance 2/inputs: He et al. (2015), equation 10."""
    values: Array = rng.standard_normal((outputs, inputs)) * math.sqrt(2 / inputs)
    return values


INITIALISATIONS: Mapping[str, Callable[[Any, int, int], Array]] = {
    "standard": standard, "xavier": xavier, "he": he,
}
FORMS = ("plain", "residual", "layer norm", "batch norm")


@dataclass(frozen=True)
class Stack:
    """A stack that was measured: `factors` has one layer for each of its layers."""

    activation: str
    initialisation: str
    depth: int
    form: str
    scale: float
    factors: Factors


def measure_stack(activation: str, initialisation: str, depth: int, form: str = "plain",
                  scale: float = 1.0, width: int = WIDTH, examples: int = EXAMPLES,
                  seed: int = 0) -> Stack:
    """Push one batch forward and one gradient back through `depth` layers of `width` units.

    form   plain: f(W h); residual: h + f(W h) (He et al. 2016, equation 1, one layer a block);
           layer norm and batch norm: f(norm(W h)) (Ba et al. 2016; Ioffe & Szegedy 2015)
    scale  multiplies the weights of the initialisation
    """
    for value, known, what in ((activation, ACTIVATIONS, "activation"),
                               (initialisation, INITIALISATIONS, "initialisation"),
                               (form, FORMS, "form")):
        if value not in known:
            raise SettingError(f"{what} {value!r} is not known. Write one of {', '.join(known)}.")
    rng = np.random.default_rng(seed)
    x = new(rng.standard_normal((examples, width))).requires_grad_()
    upstream = new(rng.standard_normal((examples, width)))
    draw = INITIALISATIONS[initialisation]
    h: Any = x
    with keeping_values():
        for _ in range(depth):
            w = new(scale * draw(rng, width, width)).requires_grad_()
            h = block(h, w, ACTIVATIONS[activation], form)
        factors = layer_factors(h, x, gradient=upstream)
    return Stack(activation, initialisation, depth, form, scale, factors)


def block(h: Any, w: Any, activation: Callable[[Any], Any], form: str) -> Any:
    """One layer without biases: h (examples, units), w (units, units)."""
    z = functional.linear(h, w)
    if form == "layer norm":
        z = functional.layer_norm(z, (z.shape[-1],))
    elif form == "batch norm":
        z = functional.batch_norm(z, None, None, training=True)
    a = activation(z)
    return h + a if form == "residual" else a
