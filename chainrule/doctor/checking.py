"""`check`: one look before training, on one batch, that changes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from chainrule.core.errors import ChainruleError
from chainrule.nn import Module
from chainrule.optim import Optimizer
from chainrule.tensor import Tensor

from .keeping import kept, reached
from .report import Report
from .treatment import Treatment, treat
from .watching import Watch

STEPS = 4           # enough for rules that compare one step with the next
CLOSE = 12          # so many of them are looked at closely: dead units show in ten
TRIED = 30          # enough for those that watch what an optimiser does


def check(what: Callable[..., Any], *batch: Any, loss: Callable[..., Any] | None = None,
          optimizer: Optimizer | None = None, steps: int | None = None,
          silence: Iterable[str] = ()) -> Report:
    """Looks at a training step or a model on one batch; nothing of yours is changed.

    what   a function that does one training step, step(*batch); or a module
    batch  what it is called with. With a module and a `loss`, the last one is the target:
           loss(module(*batch[:-1]), batch[-1]). Without a `loss`, the mean of the output counts
    optimizer   for a module: what it is trained with, so that its steps are looked at, too
    steps  how many steps are tried: 4, with an optimiser 30; weights, gradients, optimiser,
           schedulers, modes, buffers and random numbers are put back afterwards

    >>> import chainrule as cr
    >>> model = cr.nn.Sequential(cr.nn.Linear(3, 8), cr.nn.ReLU(), cr.nn.Linear(8, 1))
    >>> x, y = cr.randn(16, 3), cr.randn(16, 1)
    >>> cr.doctor.check(model, x, y, loss=cr.nn.MSELoss()).ok
    True
    """
    if len(batch) == 1 and isinstance(batch[0], (tuple, list)):
        batch = tuple(batch[0])
    others: list[Any] = []
    if isinstance(what, Module):
        run = _step_of(what, batch, loss, optimizer)
        modules: list[Module] = [what]
        optimizers: list[Optimizer] = [] if optimizer is None else [optimizer]
    else:
        if optimizer is not None:
            raise TypeError("check(step, ..., optimizer=...): the step uses its own optimiser; "
                            "optimizer= belongs to a module")
        if loss is not None:
            raise TypeError("check(step, ..., loss=...): the step computes its own loss; loss= "
                            "belongs to a module")
        run = what
        modules, optimizers, others = reached(what)
    if steps is None:
        steps = STEPS if optimizer is None else TRIED
    if isinstance(loss, Module):
        modules = [*modules, loss]
    watching = Watch(modules[:1] if isinstance(what, Module) else modules, optimizers, every=1,
                     warn=False, silence=silence)
    watching.run.batch = batch
    watching.remembered = False
    if modules and (loss is not None or not isinstance(what, Module)):
        watching.run.treat = partial(treat, what, batch, loss=loss)
    inputs = [(x, x._grad) for x in batch if isinstance(x, Tensor)]
    with kept(modules, optimizers, others), warnings.catch_warnings(), watching:
        warnings.simplefilter("ignore")
        for _ in range(steps):
            try:
                run(*batch)
            except ChainruleError as error:
                watching.run.error = error
                break
            if isinstance(what, Module) and optimizer is None:
                watching.next()
    for x, gradient in inputs:
        x._grad = gradient
    report = watching.report
    if watching.run.error is not None and report.ok:
        raise watching.run.error         # a step that fails is not healthy, whoever finds no cause
    return report


def _step_of(model: Module, batch: tuple[Any, ...], loss: Callable[..., Any] | None,
             optimizer: Optimizer | None) -> Callable[..., None]:
    def step(*batch: Any) -> None:
        model.zero_grad()
        if optimizer is not None:
            optimizer.zero_grad()
        if loss is None:
            y = model(*batch)
            y = y[0] if isinstance(y, tuple) else y
            value = y.mean() if isinstance(y, Tensor) else y
        else:
            value = loss(model(*batch[:-1]), batch[-1])
        value.backward()
        if optimizer is not None:
            optimizer.step()

    return step


def why_not_learning(model: Module, *batch: Any, loss: Callable[..., Any],
                     optimizer: Optimizer | None = None) -> Report | Treatment:
    """One answer: what keeps `model` from learning this batch, and what became of the cure.

    batch      x, ..., target: loss(model(x, ...), target)
    optimizer  the one it is trained with; plain gradient descent if left out

    A `check`; where it finds an error or a warning, the treatment of the gravest (`treat`), else
    the report. Print it. Nothing of yours changes.

    >>> import chainrule as cr
    >>> _ = cr.manual_seed(0)
    >>> model = cr.nn.Sequential(cr.nn.Linear(3, 8), cr.nn.Tanh(), cr.nn.Linear(8, 1))
    >>> x, y = cr.randn(16, 3), cr.randn(16, 1)
    >>> print(why_not_learning(model, x, y, loss=cr.nn.MSELoss()))
    nothing found: 12 steps seen
    """
    if len(batch) == 1 and isinstance(batch[0], tuple | list):
        batch = tuple(batch[0])
    report = check(model, *batch, loss=loss, optimizer=optimizer,
                   steps=TRIED if optimizer is not None else CLOSE)
    if all(finding.severity == "info" for finding in report.findings):
        return report
    return treat(model, batch, loss=loss, optimizer=optimizer)
