"""Two published starts of training, on the digits that come with the package.

The 30-layer ReLU network that starts from He's initialisation and not from Xavier's (He et al.
2015, section 2.2 and figure 3), and the sigmoid network whose last hidden layer saturates within
few steps (Glorot & Bengio 2010, figure 2). Both run through `cr.compile`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from chainrule.autograd import no_grad
from chainrule.core.record import new
from chainrule.data import load_digits
from chainrule.jit import compile  # noqa: A004
from chainrule.nn import Linear, Module, ReLU, Sequential, Sigmoid
from chainrule.nn.functional import cross_entropy
from chainrule.optim import SGD
from chainrule.random import get_rng_state, set_rng_state

from .stacks import INITIALISATIONS

Array = np.ndarray[Any, Any]

PIXELS, CLASSES = 64, 10
DEEP, DEEP_WIDTH, DEEP_BATCH, DEEP_RATE = 30, 64, 64, 0.01
HIDDEN, HIDDEN_WIDTH, HIDDEN_BATCH, HIDDEN_RATE = 4, 256, 10, 0.5
WATCHED = 300             # examples on which activations are looked at, as in the paper


@dataclass(frozen=True)
class Start:
    """The loss of each step; `correct` is the share of all digits told rightly at the end."""

    initialisation: str
    depth: int
    losses: tuple[float, ...]
    correct: float


@dataclass(frozen=True)
class Saturation:
    """Mean and standard deviation of each hidden layer's activations, at some of the steps."""

    steps: tuple[int, ...]
    means: tuple[tuple[float, ...], ...]
    deviations: tuple[tuple[float, ...], ...]
    losses: tuple[float, ...]


def dense(sizes: Sequence[int], activation: Callable[[], Module], initialisation: str,
          rng: Any) -> Any:
    """Dense layers with an activation between them and biases of zero, in float32."""
    parts: list[Any] = []
    state = get_rng_state()              # Linear draws weights too, which no one will see
    for inputs, outputs in pairwise(sizes):
        layer = Linear(inputs, outputs)
        weights = INITIALISATIONS[initialisation](rng, inputs, outputs)
        layer.load_state_dict({"weight": new(weights.astype(np.float32)),
                               "bias": new(np.zeros(outputs, np.float32))})
        parts += [layer, activation()]
    set_rng_state(state)
    return Sequential(*parts[:-1])


def digits() -> tuple[Array, Array]:
    """The digits, each pixel with mean 0 and standard deviation 1: (1797, 64) and (1797,)."""
    images, labels = load_digits()
    x = np.asarray(images, np.float32).reshape(len(labels), -1)
    return (x - x.mean(0)) / (x.std(0) + 1e-3), np.asarray(labels)


def compiled_step(model: Any, rate: float) -> Callable[[Any, Any], Any]:
    """One step of plain gradient descent as machine code: (x, y) to the loss before it."""
    optimizer = SGD(model.parameters(), lr=rate)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return compile(step)


def train_deep(initialisation: str, steps: int = 300, depth: int = DEEP, seed: int = 0) -> Start:
    """Train `depth` dense layers, ReLU between them, from the given initialisation."""
    x, y = digits()
    rng = np.random.default_rng(seed)
    sizes = (PIXELS, *[DEEP_WIDTH] * (depth - 1), CLASSES)
    model = dense(sizes, ReLU, initialisation, rng)
    step = compiled_step(model, DEEP_RATE)
    losses = []
    for _ in range(steps):
        chosen = rng.integers(0, len(y), DEEP_BATCH)
        losses.append(float(step(new(x[chosen]), new(y[chosen]))))
    with no_grad():
        answers = model(new(x))._value.argmax(1)
    return Start(initialisation, depth, tuple(losses), float(np.mean(answers == y)))


def watch_sigmoid(steps: int = 300, every: int = 20, seed: int = 0) -> Saturation:
    """Train four hidden sigmoid layers from the standard initialisation and watch their means."""
    images, labels = load_digits()
    x = np.asarray(images, np.float32).reshape(len(labels), -1) / 16
    y = np.asarray(labels)
    rng = np.random.default_rng(seed)
    sizes = (PIXELS, *[HIDDEN_WIDTH] * HIDDEN, CLASSES)
    model = dense(sizes, Sigmoid, "standard", rng)
    step = compiled_step(model, HIDDEN_RATE)
    seen: list[tuple[int, tuple[float, ...], tuple[float, ...], float]] = []
    for number in range(steps + 1):
        if number % every == 0:
            hidden, loss = activations(model, x[:WATCHED], y[:WATCHED])
            seen.append((number, tuple(float(h.mean()) for h in hidden),
                         tuple(float(h.std()) for h in hidden), loss))
        chosen = rng.integers(0, len(y), HIDDEN_BATCH)
        step(new(x[chosen]), new(y[chosen]))
    steps_seen, means, deviations, losses = zip(*seen, strict=True)
    return Saturation(steps_seen, means, deviations, losses)


def activations(model: Any, x: Array, y: Array) -> tuple[list[Array], float]:
    """What each sigmoid puts out, and the loss."""
    found = []
    h = new(x)
    with no_grad():
        for part in model:
            h = part(h)
            if isinstance(part, Sigmoid):
                found.append(h._value)
        return found, float(cross_entropy(h, new(y)))
