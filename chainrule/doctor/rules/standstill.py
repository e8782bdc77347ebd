"""Rules about training that runs without an error and moves nothing: a loss that is a leaf, early
layers that stand still, inputs that are all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.core.node import Origin
from chainrule.core.types import type_of
from chainrule.doctor.finding import Finding
from chainrule.doctor.graph import Graph
from chainrule.doctor.history import ParameterSeen, Run
from chainrule.doctor.rule import rule

from .parameters import held_by_optimizers, parameters_of
from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION
from .signal import DEEP

STILL = 1e-6          # of its own size: a million steps to move a weight by as much as it is
WEIGHTED = ("linear", "matmul", "conv2d")


@rule("CR303", "requires_grad set on a loss that was cut off", after=2,
      example=REGRESSION + OPTIMIZER + MSE + """
for step in range(12):
    optimizer.zero_grad()
    loss = cr.tensor(loss_fn(model(x), y).item(), requires_grad=True)
    loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def leaf_loss(run: Run) -> Iterator[Finding]:
    """`backward()` is called on a leaf: a tensor that was made with requires_grad=True, or got it
    afterwards, and was computed from nothing.

    That silences the error about a loss without a gradient, and trains nothing. Told with
    certainty: the graph of the loss is that one tensor, and it is no parameter.
    """
    graph = run.latest.graph
    if graph is None or graph.root.prim is not None or len(graph.order) > 1:
        return
    tensor = graph.root.out() if callable(graph.root.out) else None
    if tensor is None or id(tensor) in {**held_by_optimizers(run), **parameters_of(run)}:
        return
    place = run.latest.place("backward")
    yield Finding(
        "CR303", "error",
        "backward() is called on a leaf: the loss was not computed from anything.",
        "Its own .grad becomes 1 and nothing else happens: no weight gets a gradient. "
        "requires_grad=True on a loss only hides the error that says so.",
        "loss = loss_fn(model(x), y)      # as it is: no .item(), no cr.tensor(...), no "
        "requires_grad_()\nloss.backward()", place, evidence={"nodes": len(graph.order)},
        step=run.latest.number)


@rule("CR607", "early layers that barely move", after=10, example=DEEP.format(
    depth=9, activation="Sigmoid", after="") + OPTIMIZER + ENTROPY + LOOP, cured=DEEP.format(
    depth=9, activation="ReLU", after="for m in model:\n    if isinstance(m, nn.Linear):\n"
    "        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')")
    + OPTIMIZER + ENTROPY + LOOP)
def barely_moving(run: Run) -> Iterator[Finding]:
    """Each step changes the first weight by less than 10⁻⁶ of its size, and the last one by more
    than a thousand times as much; ten sampled steps in a row.

    Around 10⁻³ is usual (Karpathy; CS231n, "neural networks 3"). Measured on what the optimiser
    really changed, so that Adam, which evens out the sizes of gradients, counts right. Where groups
    have different learning rates, or a gradient is mostly zeros (a table of words), slowness may be
    meant, and nothing is said.
    """
    step = run.latest
    if len(set(step.rates)) != 1 or not step.rates[0]:
        return
    moving = [p for p in step.parameters.values() if _counts(p)]
    if len(moving) < 4:
        return
    first, last = moving[0], moving[-1]
    slow, quick = (p.update / p.weight.norm for p in (first, last))  # type: ignore[operator]
    if not (slow < STILL and slow < 1e-3 * quick):
        return
    yield Finding(
        "CR607", "warning",
        f"{first.name} changes by {slow:.1e} of its size in a step, {last.name} by {quick:.1e}.",
        "The first layers stay what they were at random; only the last ones learn.",
        "nn.ReLU() with nn.init.kaiming_normal_(weight), a normalisation (nn.LayerNorm), or a\n"
        "path around each block (x + block(x))", step.place("step"), subject=first.name,
        evidence={"first": slow, "last": quick}, step=step.number)


def _counts(p: ParameterSeen) -> bool:
    g = p.gradient
    return (p.held and p.ndim > 1 and p.update is not None and p.weight.finite
            and p.weight.norm > 0 and g is not None and g.finite and g.norm > 0 and g.zeros < 0.5)


@rule("CR704", "inputs that are all the same", after=3, example=CLASSES.replace(
    "model =", "x = x[0].expand(64, 4)\nmodel =") + OPTIMIZER + ENTROPY + LOOP,
      cured=CLASSES + OPTIMIZER + ENTROPY + LOOP)
def equal_rows(run: Run) -> Iterator[Finding]:
    """Every sample of the batch is the same, at three sampled steps in a row.

    Looked at wherever an array of at least 8 rows from outside meets the network; if any has
    different rows, or the input itself is learned, all is well. Rows of zeros (the first state of a
    recurrent network) say nothing.
    """
    graph = run.latest.graph
    if graph is None:
        return
    known = {**held_by_optimizers(run), **parameters_of(run)}
    if not known or any(callable(leaf.out) and id(leaf.out()) not in known
                        for leaf in graph.leaves):
        return
    found: tuple[Any, Origin] | None = None
    for node, x in _given(graph):
        if len(x) < 8 or x.ndim == 3 or not np.isfinite(x).all() or (x != x[:1]).any():
            return                  # of three axes, the first may be time
        if found is None and node.name in WEIGHTED and x.dtype.kind == "f" and x.ndim > 1 \
                and np.any(x):
            found = x, node.origin
    if found is None:
        return
    x, place = found
    yield Finding(
        "CR704", "warning", f"all {len(x)} rows of the input {type_of(x)} are the same.",
        "The network cannot tell the samples apart: the best it can do is to answer with the mean "
        "of the targets.",
        "print(x[:3])      # where do the rows become equal? (an index that stays 0, expand, a "
        "column overwritten)", place, evidence={"rows": len(x)}, step=run.latest.number)


def _given(graph: Graph) -> Iterator[tuple[Any, Any]]:
    """(node, array): what came from outside, with rows, except what a loss is compared with.

    A target is what only a node behind the last weight reads.
    """
    last = max((i for i, node in enumerate(graph.order) if node.name in WEIGHTED), default=-1)
    for i, node in enumerate(graph.order):
        if i > last:
            return
        for value, edge in zip(graph.saved[node], node.inputs, strict=False):
            if edge is None and type(value) is np.ndarray and (
                    value.ndim > 1 or (value.ndim == 1 and value.dtype.kind in "iu")):
                yield node, value


@rule("CR505", "weights that are no numbers before the first step", example=REGRESSION + OPTIMIZER
      + MSE + """
model[0].weight.data[2, 1] = float("nan")      # as from a file saved too late
""" + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def lost_weights(run: Run) -> Iterator[Finding]:
    """A parameter holds NaN or ∞ at the first step that is seen: it was loaded or set like that.

    Training cannot bring it back: NaN minus anything is NaN. Where weights are lost during
    training, the first operation that made a NaN is named instead (CR501, CR503).
    """
    if run.latest.number or not run.latest.losses:
        return
    for name, p in run.parameters():
        value = p._value
        if type(value) is np.ndarray and value.dtype.kind == "f":
            lost = int((~np.isfinite(value)).sum())
            if lost:
                yield Finding(
                    "CR505", "error",
                    f"{lost} of the {value.size} numbers of {name} are NaN or ∞ before the first "
                    "step.", "Every loss and every gradient computed with it is NaN, for ever.",
                    "model = Net()      # start anew, or load a state from before the first NaN",
                    Origin("", 0, "", ""), subject=name, evidence={"lost": lost}, step=0)
                return
