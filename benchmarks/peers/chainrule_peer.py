"""chainrule, eager and compiled, with the code a user writes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from peer import Peer
from workloads import Workload, build, forward, training_step

chainrule: Any = import_module("chainrule")


def make(
    workload: Workload, weights: list[Any], batches: list[Any], threads: int, compiled: bool
) -> Peer:
    model = build(chainrule, workload)
    names = model.state_dict()
    model.load_state_dict(
        {name: chainrule.tensor(value) for name, value in zip(names, weights, strict=True)}
    )
    step, predict = training_step(chainrule, workload, model), forward(chainrule, model)
    call = None
    if compiled:
        step, predict = chainrule.compile(step), chainrule.compile(predict)
        call = chainrule.compile(lambda x, y: x)
    data = [(chainrule.tensor(x), chainrule.tensor(y)) for x, y in batches]
    return Peer(step, predict, data, number=lambda loss: loss.item(), call=call)
