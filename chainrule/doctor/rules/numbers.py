"""Rules about numbers that are none: CR5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.node import Node, storage_of
from chainrule.core.types import type_of
from chainrule.doctor.finding import Finding
from chainrule.doctor.graph import Graph
from chainrule.doctor.history import Run
from chainrule.doctor.rule import rule
from chainrule.doctor.variables import named

from .parameters import rate_set, ratios_of, stepping
from .programs import LOOP, MSE, OPTIMIZER, REGRESSION

CURES = {
    "log": "cr.log(x.clamp(min=1e-6))            # or log_softmax, logsigmoid, log1p",
    "div": "a / (b + 1e-6)                       # or (a / b) only where b is not 0",
    "sqrt": "(x + 1e-8).sqrt()                    # the slope of √ at 0 is infinite",
    "exp": "cr.exp(x.clamp(max=60))              # or logsumexp, softmax, sigmoid",
    "pow": "x.clamp(-1e6, 1e6) ** p              # too large; or, if p is no whole number:\n"
           "(x.abs() + 1e-8) ** p",
    "softmax": "mask[:, 0] = False      # a row that is −∞ throughout has no softmax: leave one "
               "place\n                        # open, or those rows out",
    "acos": "cr.acos(x.clamp(-1 + 1e-6, 1 - 1e-6))      # its slope is infinite at ±1",
    "asin": "cr.asin(x.clamp(-1 + 1e-6, 1 - 1e-6))      # its slope is infinite at ±1",
}


def _range(x: Any) -> str:
    finite = x[np.isfinite(x)]
    text = f"{type_of(x)} in [{finite.min():.3g}, {finite.max():.3g}]" if finite.size else str(
        type_of(x))
    bad = int(x.size - finite.size)
    return f"{text}, {bad} of {x.size} not finite" if bad else text


def _bad(x: Any) -> bool:
    return type(x) is np.ndarray and x.dtype.kind == "f" and not np.isfinite(x).all()


@rule("CR501", "NaN or ∞ in the forward pass", example=REGRESSION + OPTIMIZER + """
for step in range(3):
    optimizer.zero_grad()
    loss = (cr.log(model(x)) ** 2).mean()
    loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + """
for step in range(3):
    optimizer.zero_grad()
    loss = (cr.log(nn.functional.softplus(model(x)) + 1e-6) ** 2).mean()
    loss.backward()
    optimizer.step()
""")
def first_in_forward(run: Run) -> Iterator[Finding]:
    """NaN or ∞: the first operation whose result has one while its operands have none.

    Everything computed from it is NaN too, so only the first is of interest. Looked for where the
    loss or a gradient is not finite: an ∞ that is divided away again may leave a finite loss.
    """
    found = overflow(run)
    if found is not None:
        yield found


def overflow(run: Run) -> Finding | None:
    graph = run.latest.graph
    if graph is None or run.latest.loss is None or (
            np.isfinite(run.latest.loss) and _gradients_finite(run)):
        return None
    lost = {id(p) for name, p in run.parameters() if name in run.latest.parameters
            and not run.latest.parameters[name].weight.finite}
    if any(callable(leaf.out) and id(leaf.out()) in lost for leaf in graph.leaves):
        return None                               # in a step before this one
    written = {id(storage_of(p._value)) for _, p in run.parameters()}
    for node in graph.order:
        value = graph.values.get(node)
        if value is None or not _bad(value) or node.prim is None:
            continue
        if id(storage_of(value)) in written:
            continue                              # a view of a weight, which was finite then
        bad = [x for x in _operands(run, graph, node) if _bad(x)]
        if bad and all(map(_masking, bad)):
            if _masking(value):
                continue                          # −∞ is what masks are made of
        elif bad:
            return None                           # it came from outside: CR502
        given = ", ".join(map(_range, _operands(run, graph, node)))
        kind = "NaN" if np.isnan(value).any() else "∞"
        return Finding(
            "CR501", "error",
            f"{node.name} makes the first {kind}: {int((~np.isfinite(value)).sum())} of "
            f"{value.size} results, of {given or 'operands that were not kept'}.",
            "Every number computed from it is lost, and after one step so are the weights.",
            CURES.get(node.name, f"# print what goes into {node.name}: it is too large, or outside "
                      "of where it is defined"), node.origin,
            subject=node.origin.module, evidence={"operation": node.name},
            step=run.latest.number)
    return None


def _operands(run: Run, graph: Graph, node: Node) -> list[Any]:
    """The arrays an operation read, but for parameters that were finite then: when rules run, the
    optimiser has already written into those.
    """
    sound = {id(p) for name, p in run.parameters()
             if name in run.latest.parameters and run.latest.parameters[name].weight.finite}
    arrays = []
    saved = graph.saved[node] or (None,) * len(node.inputs)
    for x, edge in zip(saved, node.inputs, strict=False):
        tensor = edge.out() if edge is not None and edge.prim is None and callable(edge.out) \
            else None
        if tensor is not None and id(tensor) in sound:
            continue
        if type(x) is not np.ndarray and edge is not None:
            x = graph.values.get(edge)
        if type(x) is np.ndarray:
            arrays.append(x)
    return arrays


def _gradients_finite(run: Run) -> bool:
    return all(p.gradient is None or p.gradient.finite for p in run.latest.parameters.values())


def _masking(x: Any) -> bool:
    """Are the elements that are not finite all −∞?"""
    return not np.isnan(x).any() and not np.isposinf(x).any()


@rule("CR502", "NaN or ∞ in the data", example=REGRESSION + """
x[3, 1] = float("nan")
""" + OPTIMIZER + MSE + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def in_the_data(run: Run) -> Iterator[Finding]:
    """An input or target that was given has NaN or ∞ in it, and the loss or a gradient is none
    either: what is masked before it gets there does no harm.
    """
    graph = run.latest.graph
    if graph is None or run.latest.loss is None or (
            np.isfinite(run.latest.loss) and _gradients_finite(run)):
        return
    for node in graph.order:
        for value, edge in zip(graph.saved[node], node.inputs, strict=False):
            if edge is None and _bad(value):
                # −∞ is what masks are made of
                if _masking(value):
                    continue
                name, place = named(value)
                count = int((~np.isfinite(value)).sum())
                first = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(~np.isfinite(value))))
                yield Finding(
                    "CR502", "error",
                    f"{name or 'an array'} given to {node.name}, {type_of(value)}, has {count} "
                    f"numbers that are NaN or ∞, the first at {list(first)}.",
                    "One of them makes the loss and every gradient NaN.",
                    f"{name or 'x'} = cr.nan_to_num({name or 'x'})      # or leave those rows out",
                    place if place.file else node.called_at, subject=name,
                    evidence={"count": count, "first": list(first)}, step=run.latest.number)
                return


@rule("CR503", "NaN or ∞ in the backward pass", example="""
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x = cr.randn(16, 3)
model = nn.Linear(3, 3)
optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
for step in range(2):
    optimizer.zero_grad()
    y = model(x)
    distance = ((y - y) ** 2).sum(1).sqrt()
    loss = (distance + y.pow(2).sum(1)).mean()
    loss.backward()
    optimizer.step()
""", cured="""
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x = cr.randn(16, 3)
model = nn.Linear(3, 3)
optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
for step in range(2):
    optimizer.zero_grad()
    y = model(x)
    distance = (((y - y) ** 2).sum(1) + 1e-8).sqrt()
    loss = (distance + y.pow(2).sum(1)).mean()
    loss.backward()
    optimizer.step()
""")
def first_in_backward(run: Run) -> Iterator[Finding]:
    """The loss is finite, a gradient is not: the operation where it stopped being finite.

    Found by one more backward pass that looks at every node: the last one whose own gradient is
    finite while an operand's is not.
    """
    step = run.latest
    graph = step.graph
    if graph is None or step.loss is None or not np.isfinite(step.loss):
        return
    if _gradients_finite(run) or overflow(run) is not None:      # CR501 names where it began
        return
    gradients = graph.gradients
    worst: Node | None = None
    for node in reversed(graph.order):
        g = gradients.get(node)
        if g is None or _bad(g):
            continue
        if any(_bad(gradients.get(edge)) for edge in edges_of(node)):
            worst = node
            break
    if worst is None:
        return
    given = ", ".join(map(_range, _operands(run, graph, worst)))
    yield Finding(
        "CR503", "error",
        f"the gradient stops being finite at {worst.name}: what arrives is finite, what it hands "
        f"on is not (operands {given or 'not kept'}).",
        "After the next step the weights are NaN.",
        CURES.get(worst.name, "# keep its operands away from where its slope is infinite"),
        worst.origin, subject=worst.origin.module, evidence={"operation": worst.name},
        step=step.number)


@rule("CR504", "the loss explodes", example=REGRESSION + """
optimizer = cr.optim.SGD(model.parameters(), lr=30.0)
""" + MSE + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def exploded(run: Run) -> Iterator[Finding]:
    """The loss is more than 1,000 times those at the start, and the one before it more than 100
    times (or it is 100,000 times at once), and a step changes the weights by more than a tenth of
    their size: the steps are too long.

    Losses below 0 have no such start (a critic's, a policy's), and a loss that begins near 0 may
    grow without harm, so that all have to hold. The line is the one that sets the rate: the
    schedule's, if one has moved it, else the optimiser's. Where a single operation makes a NaN,
    CR501 says so.
    """
    losses = [x for x in run.losses[run.phase:] if np.isfinite(x)]
    start = max(map(abs, losses[:3 if len(losses) >= 6 else 1]), default=0.0)
    # A task that changes after a perfect fit is no explosion.
    start = max(start, 1e-8, 3e-3 * max(map(abs, run.losses[:run.phase]), default=0.0))
    if len(losses) < 3 or not (losses[-1] > 1000 * start and (
            losses[-2] > 100 * start or losses[-1] > 1e5 * start)):
        return
    ratios = ratios_of(run.latest)
    if ratios and not max(ratios.values()) > 0.1:
        return
    rate = max(run.latest.rates, default=0.0)
    cure = (f"lr={float(f'{rate / 30:.1g}'):g}      # a thirtieth, or clip_grad_norm_" if rate else
            "w -= rate * w.grad      # against the gradient, and with a smaller rate")
    if any(group.get("maximize") for group in getattr(stepping(run), "param_groups", ())):
        cure = "maximize=False      # it is told to make the loss as large as it can\n" + cure
    yield Finding(
        "CR504", "error",
        f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g} in {len(run.losses)} steps.",
        "Each step goes further past the valley than the one before.",
        cure, rate_set(run), subject="learning rate",
        evidence={"first": losses[0], "last": losses[-1]}, step=run.latest.number)


@rule("CR506", "the weights were lost between two looks", example=REGRESSION + OPTIMIZER + MSE + """
@cr.compile
def training_step(x, y):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

for step in range(4_000):
    training_step(x, y if step != 2_000 else y * float("nan"))
""", cured=REGRESSION + OPTIMIZER + MSE + """
@cr.compile
def training_step(x, y):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss

for step in range(4_000):
    training_step(x, y)
""")
def lost_between(run: Run) -> Iterator[Finding]:
    """The weights are NaN or ∞, and at the last close look they were not.

    Compiled steps are looked at now and then; what happened in between was not seen. (Of eager
    steps every one is guarded, and the operation is named: CR501, CR503.)
    """
    steps = run.sampled(2)
    if len(steps) < 2 or steps[1].number <= steps[0].number + 1:
        return
    before, now = steps
    lost = [name for name, p in now.parameters.items() if not p.weight.finite]
    if not lost or any(name in before.parameters and not (
            before.parameters[name].weight.finite and before.parameters[name].update is not None
            and np.isfinite(before.parameters[name].update or 0.0)) for name in lost):
        return
    yield Finding(
        "CR506", "error",
        f"{lost[0]} and {len(lost) - 1} more are NaN or ∞ since some step between {before.number} "
        f"and {now.number}, of which nothing was seen.",
        "Every loss and every gradient from then on is NaN.",
        "# leave out @cr.compile for once, or cr.doctor.watch(every=1): then the operation is "
        "named", before.place("backward"), subject=lost[0], evidence={"lost": len(lost)},
        step=now.number)
