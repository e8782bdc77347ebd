"""PyTorch eager, and torch.compile with the whole step as one graph.

Compiled, the step is written with `torch.func` and updates parameters and optimiser state in place:
of the ways to write it, the fastest here. Around a user's own step (`loss.backward()`,
`optimizer.step()`) torch.compile breaks the graph, which cost 3 to 5 times as much on xor.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

from peer import Peer, Unavailable
from workloads import Workload, build, forward, training_step

torch: Any = import_module("torch")


def functional_step(workload: Workload, model: Any, **compiled: Any) -> Callable[..., Any]:
    """The compiled step, a function of (x, y) that returns the loss."""
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss_of = getattr(torch.nn, workload.loss)()

    def loss_at(values: dict[str, Any], x: Any, y: Any) -> Any:
        return loss_of(torch.func.functional_call(model, values, (x,)), y)

    gradient = torch.func.grad_and_value(loss_at)
    lr, momentum = workload.options["lr"], workload.options.get("momentum", 0.0)

    def zeros() -> dict[str, Any]:
        return {name: torch.zeros_like(value) for name, value in parameters.items()}

    def sgd(values: dict[str, Any], velocities: Any, x: Any, y: Any) -> Any:
        slopes, loss = gradient(values, x, y)
        for name, value in values.items():
            change = slopes[name]
            if momentum:
                change = velocities[name].mul_(momentum).add_(change)
            value.sub_(change, alpha=lr)
        return loss

    def adam(values: dict[str, Any], state: Any, x: Any, y: Any) -> Any:
        size, root, firsts, seconds = state
        slopes, loss = gradient(values, x, y)
        for name, value in values.items():
            slope, first, second = slopes[name], firsts[name], seconds[name]
            first.lerp_(slope, 0.1)
            second.mul_(0.999).addcmul_(slope, slope, value=0.001)
            value.sub_(size * first / (second.sqrt() * root + 1e-8))
        return loss

    if workload.optimizer == "SGD":
        velocities = zeros() if momentum else {}
        whole_sgd = torch.compile(sgd, **compiled)
        return lambda x, y: whole_sgd(parameters, velocities, x, y)

    whole_adam = torch.compile(adam, **compiled)
    size, root = torch.zeros(()), torch.zeros(())
    state, count = (size, root, zeros(), zeros()), 0

    def step(x: Any, y: Any) -> Any:
        nonlocal count
        count += 1
        # Inside the graph they would be computed again for each element of each parameter.
        size.fill_(lr / (1 - 0.9**count))
        root.fill_((1 - 0.999**count) ** -0.5)
        return whole_adam(parameters, state, x, y)

    return step


def make(
    workload: Workload,
    weights: list[Any],
    batches: list[Any],
    threads: int,
    fused: bool = False,
    compiled: dict[str, Any] | None = None,
) -> Peer:
    torch.set_num_threads(threads)
    model = build(torch, workload)
    names = model.state_dict()
    model.load_state_dict(
        {name: torch.tensor(value) for name, value in zip(names, weights, strict=True)}
    )
    data = [(torch.tensor(x), torch.tensor(y)) for x, y in batches]
    if compiled is None:
        extra = {"fused": True} if fused else {}
        step = training_step(torch, workload, model, **extra)
        return Peer(step, forward(torch, model), data, number=lambda loss: loss.item())

    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise Unavailable("torch.compile needs a C++ compiler, and there is none here")
    torch.set_grad_enabled(False)  # torch.func differentiates by itself; saves the autograd wrapper
    compiled |= {"fullgraph": True, "dynamic": False}
    predict = torch.compile(model, **compiled)
    return Peer(
        functional_step(workload, model, **compiled),
        lambda x, y: predict(x),
        data,
        number=lambda loss: loss.item(),
        call=torch.compile(lambda x, y: x, **compiled),
    )
