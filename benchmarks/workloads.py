"""The networks of the benchmarks, each written once for both libraries, and once by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Step = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Workload:
    """A network, its data and its training step.

    `widths` are the sizes of the layers, `activation` follows each hidden layer, `last` the output.
    """

    name: str
    widths: tuple[int, ...]
    activation: str
    last: str | None
    loss: str
    batch: int
    optimizer: str
    options: dict[str, float]

    def batches(self, count: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
        """`count` batches of inputs (batch, widths[0]) and targets, the same on each call."""
        random = np.random.default_rng(0)
        if self.name == "xor":
            corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
            return [(corners, np.array([[0], [1], [1], [0]], np.float32))] * count
        made = []
        for _ in range(count):
            x = random.standard_normal((self.batch, self.widths[0]), dtype=np.float32)
            if self.loss == "CrossEntropyLoss":
                y: np.ndarray = random.integers(0, self.widths[-1], self.batch)
            else:
                y = random.standard_normal((self.batch, self.widths[-1]), dtype=np.float32)
            made.append((x, y))
        return made

    def weights(self) -> list[np.ndarray]:
        """The initial weight (outputs, inputs) and bias of each layer, the same on each call.

        Uniform in ±1/√inputs, as `nn.Linear` draws them.
        """
        random = np.random.default_rng(1)
        drawn = []
        for inputs, outputs in pairwise(self.widths):
            bound = inputs**-0.5
            drawn += [
                random.uniform(-bound, bound, shape).astype(np.float32)
                for shape in ((outputs, inputs), (outputs,))
            ]
        return drawn


WORKLOADS = (
    Workload("xor", (2, 16, 1), "Tanh", "Sigmoid", "MSELoss", 4, "SGD", {"lr": 0.5}),
    Workload("digits", (64, 64, 10), "ReLU", None, "CrossEntropyLoss", 32, "SGD",
             {"lr": 0.05, "momentum": 0.9}),
    Workload("mlp330k", (784, 256, 256, 256, 10), "ReLU", None, "CrossEntropyLoss", 64, "Adam",
             {"lr": 1e-3}),
    Workload("deep50", (64,) * 51, "Tanh", "Tanh", "MSELoss", 32, "SGD", {"lr": 0.1}),
)

# For compiled steps also two whose products are large.
COMPILED_WORKLOADS = (
    *WORKLOADS,
    Workload("mlp330k-512", (784, 256, 256, 256, 10), "ReLU", None, "CrossEntropyLoss", 512,
             "Adam", {"lr": 1e-3}),
    Workload("wide", (2048, 4096, 4096, 1000), "ReLU", None, "CrossEntropyLoss", 256, "SGD",
             {"lr": 0.05}),
)


def build(lib: Any, workload: Workload) -> Any:
    """The network in the library `lib`, which is `torch` or `chainrule`: the code is the same."""
    nn = lib.nn
    layers = []
    last = len(workload.widths) - 2
    for index, (inputs, outputs) in enumerate(pairwise(workload.widths)):
        layers.append(nn.Linear(inputs, outputs))
        after = workload.last if index == last else workload.activation
        if after is not None:
            layers.append(getattr(nn, after)())
    return nn.Sequential(*layers)


def training_step(lib: Any, workload: Workload, model: Any, **extra: Any) -> Step:
    """One step as a user writes it; returns the loss, a tensor."""
    loss_of = getattr(lib.nn, workload.loss)()
    optimizer = getattr(lib.optim, workload.optimizer)(
        model.parameters(), **workload.options, **extra
    )

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def forward(lib: Any, model: Any) -> Step:
    """Only the prediction, as a service runs it."""

    def step(x: Any, y: Any) -> Any:
        with lib.no_grad():
            return model(x)

    return step


# ---- the floor: the same step by hand, in bare NumPy -------------------------------------------

def tanh_slope(y: np.ndarray) -> Any:
    return 1 - y * y


ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "Tanh": (np.tanh, tanh_slope),
    "Sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda y: y * (1 - y)),
    "ReLU": (lambda z: np.maximum(z, 0), lambda y: y > 0),
}


def squared_error(y: np.ndarray, target: np.ndarray) -> tuple[Any, np.ndarray]:
    error = y - target
    return (error * error).mean(), error * np.float32(2 / error.size)


def cross_entropy(y: np.ndarray, target: np.ndarray) -> tuple[Any, np.ndarray]:
    shifted = y - y.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    totals = exponentials.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = (np.log(totals[:, 0]) - shifted[rows, target]).mean()
    gradient = exponentials / totals
    gradient[rows, target] -= 1
    gradient *= np.float32(1 / len(y))
    return loss, gradient


LOSSES = {"MSELoss": squared_error, "CrossEntropyLoss": cross_entropy}


def sgd(parameters: list[np.ndarray], lr: float, momentum: float = 0.0) -> Callable[..., None]:
    velocities = [np.zeros_like(p) for p in parameters] if momentum else []

    def update(gradients: list[np.ndarray]) -> None:
        if momentum:
            for p, v, g in zip(parameters, velocities, gradients, strict=True):
                v *= momentum
                v += g
                p -= lr * v
        else:
            for p, g in zip(parameters, gradients, strict=True):
                p -= lr * g

    return update


def adam(parameters: list[np.ndarray], lr: float) -> Callable[..., None]:
    firsts = [np.zeros_like(p) for p in parameters]
    seconds = [np.zeros_like(p) for p in parameters]
    step = 0

    def update(gradients: list[np.ndarray]) -> None:
        nonlocal step
        step += 1
        size, root = lr / (1 - 0.9**step), (1 - 0.999**step) ** 0.5
        for p, m, v, g in zip(parameters, firsts, seconds, gradients, strict=True):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * (g * g)
            p -= size * m / (np.sqrt(v) / root + 1e-8)

    return update


def numpy_training_step(workload: Workload, parameters: list[np.ndarray]) -> tuple[Step, Step]:
    """The training step and the forward pass by hand; `parameters` are weight, bias, weight, ...

    Weights are (outputs, inputs), as in `nn.Linear`; they are updated in place.
    """
    weights, biases = parameters[0::2], parameters[1::2]
    depth = len(weights)
    after = [workload.activation] * (depth - 1) + [workload.last]
    loss_of = LOSSES[workload.loss]
    update = {"SGD": sgd, "Adam": adam}[workload.optimizer](parameters, **workload.options)

    def predict(x: np.ndarray, y: Any = None) -> np.ndarray:
        for w, b, name in zip(weights, biases, after, strict=True):
            x = x @ w.T + b
            if name:
                x = ACTIVATIONS[name][0](x)
        return x

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        inputs = [x]
        for w, b, name in zip(weights, biases, after, strict=True):
            x = x @ w.T + b
            inputs.append(ACTIVATIONS[name][0](x) if name else x)
            x = inputs[-1]
        loss, g = loss_of(x, y)
        gradients: list[np.ndarray] = []
        for i in reversed(range(depth)):
            if name := after[i]:
                g = g * ACTIVATIONS[name][1](inputs[i + 1])
            gradients += [g.sum(0), g.T @ inputs[i]]
            if i:
                g = g @ weights[i]
        update(gradients[::-1])
        return loss

    return step, predict
