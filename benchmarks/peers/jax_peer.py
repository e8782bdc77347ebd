"""JAX: the whole step under `jit`, its state donated, weights (inputs, outputs) as JAX has them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from peer import Peer
from workloads import Workload

jax: Any = import_module("jax")
jnp = jax.numpy

ACTIVATIONS: dict[str | None, Callable[[Any], Any]] = {
    "Tanh": jnp.tanh, "Sigmoid": jax.nn.sigmoid, "ReLU": jax.nn.relu, None: lambda x: x,
}


def squared_error(y: Any, target: Any) -> Any:
    return jnp.mean((y - target) ** 2)


def cross_entropy(y: Any, target: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(y), target[:, None], axis=1).mean()


LOSSES = {"MSELoss": squared_error, "CrossEntropyLoss": cross_entropy}


def make(
    workload: Workload, weights: list[Any], batches: list[Any], threads: int, inline: bool
) -> Peer:
    """`inline`: the calling thread computes, instead of a queue's; faster where steps are short."""
    if inline:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    layers = len(workload.widths) - 1
    after = [workload.activation] * (layers - 1) + [workload.last]
    loss_of = LOSSES[workload.loss]
    lr, momentum = workload.options["lr"], workload.options.get("momentum", 0.0)

    def predict(parameters: Any, x: Any) -> Any:
        pairs = zip(parameters[0::2], parameters[1::2], strict=True)
        for (weight, bias), name in zip(pairs, after, strict=True):
            x = ACTIVATIONS[name](x @ weight + bias)
        return x

    gradient = jax.value_and_grad(lambda parameters, x, y: loss_of(predict(parameters, x), y))

    def sgd(state: Any, x: Any, y: Any) -> Any:
        parameters, velocities = state
        loss, changes = gradient(parameters, x, y)
        if momentum:
            pairs = zip(velocities, changes, strict=True)
            velocities = changes = tuple(momentum * v + g for v, g in pairs)
        pairs = zip(parameters, changes, strict=True)
        return (tuple(p - lr * change for p, change in pairs), velocities), loss

    def adam(state: Any, x: Any, y: Any) -> Any:
        parameters, count, firsts, seconds = state
        loss, slopes = gradient(parameters, x, y)
        count = count + 1
        size, root = lr / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
        firsts = tuple(0.9 * m + 0.1 * g for m, g in zip(firsts, slopes, strict=True))
        seconds = tuple(0.999 * v + 0.001 * g * g for v, g in zip(seconds, slopes, strict=True))
        parameters = tuple(
            p - size * m / (jnp.sqrt(v) / root + 1e-8)
            for p, m, v in zip(parameters, firsts, seconds, strict=True)
        )
        return (parameters, count, firsts, seconds), loss

    # Arrays of JAX from arrays of NumPy: its own `zeros` would be compiled for each shape.
    values = [value.T if value.ndim == 2 else value for value in weights]

    def zeros() -> tuple[Any, ...]:
        return tuple(jnp.array(np.zeros_like(value)) for value in values)

    parameters = tuple(jnp.array(np.ascontiguousarray(value)) for value in values)
    if workload.optimizer == "Adam":
        state: Any = (parameters, jnp.array(np.float32(0)), zeros(), zeros())
        whole = jax.jit(adam, donate_argnums=0)
    else:
        state = (parameters, zeros() if momentum else ())
        whole = jax.jit(sgd, donate_argnums=0)

    def step(x: Any, y: Any) -> Any:
        nonlocal state
        state, loss = whole(state, x, y)
        return loss

    compiled = jax.jit(predict)
    data = [
        (jnp.array(x), jnp.array(y.astype(np.int32) if y.dtype.kind == "i" else y))
        for x, y in batches
    ]
    return Peer(
        step,
        lambda x, y: compiled(state[0], x),
        data,
        wait=lambda result: jax.block_until_ready((state, result)),
        call=jax.jit(lambda x, y: x),
    )
