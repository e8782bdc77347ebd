"""Faults of the doctor that were found by attacking it: each keeps its test."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core.errors import ShapeError

F = nn.functional


def network() -> Any:
    cr.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def test_a_step_that_fails_is_not_called_healthy() -> None:
    model, x = network(), cr.randn(8, 3)
    wide = cr.randn(8, 5)
    with pytest.raises(ShapeError, match="Linear"):
        cr.doctor.check(model, wide, cr.randn(8, 1), loss=nn.MSELoss())
    [finding] = cr.doctor.check(model, x, cr.randn(8), loss=nn.MSELoss()).findings
    assert finding.rule == "CR403"            # this failure has a page
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()

    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ShapeError, match="Linear"):
        cr.doctor.check(step, wide, cr.randn(8, 1))
    assert all(bool((a == b).all()) for a, b in zip(before, model.parameters(), strict=True))
    assert cr.doctor.check(step, x, cr.randn(8, 1)).ok


@pytest.mark.parametrize("every", [0, -1, 2.5])
def test_every_is_a_whole_number_of_steps(every: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cr.doctor.watch(network(), every=every)


def test_questions_are_about_tensors() -> None:
    model = network()
    loss = model(cr.randn(8, 3)).sum()
    weight = model[0].weight
    questions = [lambda: cr.doctor.why_none("0.weight", loss),
                 lambda: cr.doctor.why_none(weight, loss.item()),
                 lambda: cr.doctor.why_zero(weight, loss.item()),
                 lambda: cr.doctor.blame(loss.item())]
    for question in questions:
        with pytest.raises(TypeError, match=r"the tensor itself, got (str|float)"):
            question()


def healthy(activation: Any, loss: Any, targets: Any, out: int, optimizer: Any) -> Any:
    """What is found in 40 steps on a task that the network learns."""
    cr.manual_seed(0)
    x = cr.randn(512, 10)
    y = targets(x)
    model = nn.Sequential(nn.Linear(10, 32), activation(), nn.Linear(32, 32), activation(),
                          nn.Linear(32, out))
    steps = optimizer(model.parameters())
    with cr.doctor.watch(model, steps, warn=False) as seen:
        for step in range(40):
            part = slice(64 * (step % 8), 64 * (step % 8) + 64)
            steps.zero_grad()
            loss(model(x[part]), y[part]).backward()
            steps.step()
    return seen.report.findings


@pytest.mark.parametrize(("activation", "loss", "targets", "out", "optimizer"), [
    (nn.ReLU, nn.CrossEntropyLoss(), lambda x: (x[:, 0] * x[:, 1] > 0).long(), 2,
     lambda p: cr.optim.Adam(p, lr=0.01)),
    (nn.Tanh, nn.CrossEntropyLoss(), lambda x: (x[:, 0] * x[:, 1] > 0).long(), 2,
     lambda p: cr.optim.SGD(p, lr=0.1, momentum=0.9)),
    (nn.GELU, nn.MSELoss(), lambda x: (2 * x[:, :1] + x[:, 1:2]).tanh(), 1,
     lambda p: cr.optim.AdamW(p, lr=0.003)),
    (nn.ReLU, nn.BCEWithLogitsLoss(), lambda x: (x[:, :1] > 0).float(), 1,
     lambda p: cr.optim.RMSprop(p, lr=0.003)),
])
def test_nothing_is_found_in_healthy_runs(activation: Any, loss: Any, targets: Any, out: int,
                                          optimizer: Any) -> None:
    assert healthy(activation, loss, targets, out, optimizer) == []
