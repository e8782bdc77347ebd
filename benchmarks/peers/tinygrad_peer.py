"""tinygrad: the whole step under TinyJit, with its own layers' formulas and optimisers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from peer import Peer
from workloads import Workload

tinygrad: Any = import_module("tinygrad")
Tensor = tinygrad.Tensor

ACTIVATIONS = {"Tanh": Tensor.tanh, "Sigmoid": Tensor.sigmoid, "ReLU": Tensor.relu}


def make(workload: Workload, weights: list[Any], batches: list[Any], threads: int) -> Peer:
    tinygrad.helpers.TRAINING.value = 1
    parameters = [Tensor(value).realize() for value in weights]
    layers = len(parameters) // 2
    after = [workload.activation] * (layers - 1) + [workload.last]
    optimizers = import_module("tinygrad.nn.optim")
    optimizer = getattr(optimizers, workload.optimizer)(parameters, **workload.options)

    def predict(x: Any) -> Any:
        for weight, bias, name in zip(parameters[0::2], parameters[1::2], after, strict=True):
            x = x.linear(weight.T, bias)
            if name is not None:
                x = ACTIVATIONS[name](x)
        return x

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        prediction = predict(x)
        if workload.loss == "MSELoss":
            loss = ((prediction - y) ** 2).mean()
        else:
            loss = prediction.sparse_categorical_crossentropy(y)
        loss.backward()
        return loss.realize(*optimizer.schedule_step())

    def forward(x: Any, y: Any) -> Any:
        return predict(x).realize()

    data = [
        (Tensor(x).realize(), Tensor(y.astype(np.int32) if y.dtype.kind == "i" else y).realize())
        for x, y in batches
    ]
    device = tinygrad.Device[tinygrad.Device.DEFAULT]
    return Peer(
        tinygrad.TinyJit(step), tinygrad.TinyJit(forward), data,
        wait=lambda result: device.synchronize(),
        number=lambda loss: float(loss.item()),
    )
