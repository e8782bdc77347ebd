"""Rules about training that runs without an error and moves nothing: a loss that is a leaf, early
layers that stand still, inputs that are all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.node import Node, Origin
from chainrule.core.places import NOWHERE, made_at, place_of
from chainrule.core.types import type_of
from chainrule.doctor.finding import Finding
from chainrule.doctor.graph import Graph
from chainrule.doctor.history import ParameterSeen, Run
from chainrule.doctor.rule import rule
from chainrule.doctor.variables import named

from .parameters import held_by_optimizers, parameters_of, stepping
from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION
from .signal import DEEP

STILL = 1e-5          # of its own size: a hundred thousand steps to move a weight by what it is
APART = 300           # times as much, by which healthy layers do not differ
TUNING = 1e3          # times the learning rate, by which groups do not differ on purpose
KNOWN = 10            # times as fast is slow enough, where the cause is seen
NARROW = 0.01         # the share of a gradient that a bottleneck lets through
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
    place = made_at(graph.root)
    yield Finding(
        "CR303", "error",
        "backward() is called on a leaf: the loss was not computed from anything.",
        "Its own .grad becomes 1 and nothing else happens: no weight gets a gradient. "
        "requires_grad=True on a loss only hides the error that says so.",
        "loss = loss_fn(model(x), y)      # as it is: no .item(), no cr.tensor(...), no "
        "requires_grad_()\nloss.backward()", place if place.file else
        run.latest.place("backward"), evidence={"nodes": len(graph.order)},
        step=run.latest.number)


@rule("CR607", "early layers that barely move", after=10, example=DEEP.format(
    depth=9, activation="Sigmoid", after="") + OPTIMIZER + ENTROPY + LOOP, cured=DEEP.format(
    depth=9, activation="ReLU", after="for m in model:\n    if isinstance(m, nn.Linear):\n"
    "        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')")
    + OPTIMIZER + ENTROPY + LOOP)
def barely_moving(run: Run) -> Iterator[Finding]:
    """Each step changes the first weight by less than 10⁻⁵ of its size, and the last one by more
    than 300 times as much; ten sampled steps in a row.

    Around 10⁻³ is usual (Karpathy; CS231n, "neural networks 3"); between the layers of a network
    that trains well, a factor of 200 has been seen (AlexNet: You, Gitman & Ginsburg 2017). Measured
    on what the optimiser really changed, so that Adam, which evens out the sizes of gradients,
    counts right. If a single operation lets less than a hundredth of the gradient through, its line
    is named, and less than 10⁻⁴ of its size is slow enough.

    Groups with learning rates of their own may well be meant to be slow: fine-tuning divides by
    about 2.6 per layer (Howard & Ruder 2018), so that something is said from a factor of 10³ on. A
    rate of 0 is a freeze. Where a gradient is mostly zeros (a table of words), nothing is said.
    """
    step = run.latest
    rates = [rate for rate in step.rates if rate > 0]
    if not rates or not (max(rates) == min(rates) or max(rates) >= TUNING * min(rates)):
        return
    frozen = len(rates) < len(step.rates)
    moving = [p for p in step.parameters.values() if _counts(p) and (p.update or not frozen)]
    dense = [p for p in moving if p.gradient is not None and p.gradient.zeros < 0.5]
    if len(moving) < 4 or len(dense) < 2:
        return
    first, last = dense[0], dense[-1]
    slow, quick = (p.update / p.weight.norm for p in (first, last))  # type: ignore[operator]
    if not (slow < STILL * KNOWN and APART * slow < quick):
        return
    narrow = _bottleneck(run, first.name) if max(rates) == min(rates) else None
    if narrow is None and slow >= STILL:
        return
    place, why, cure = step.place("step"), "", (
        "nn.ReLU() with nn.init.kaiming_normal_(weight), a normalisation (nn.LayerNorm), or a\n"
        "path around each block (x + block(x))")
    if max(rates) > min(rates):
        made = place_of(stepping(run), "made")
        place = made if made.file else place
        why = f" The learning rates of the groups go from {min(rates):.2g} to {max(rates):.2g}."
        cure = ("{'params': ..., 'lr': ...}      # rates that differ by no more than ×2.6 per "
                "layer, or by ×100 in all")
    elif narrow is not None:
        node, share = narrow
        place = node.origin
        why = f" {node.name} in line {place.line} lets {share:.1g} of the gradient through."
        cure = f"# without the factor of {share:.1g} on the way back, in line {place.line}"
    yield Finding(
        "CR607", "warning",
        f"{first.name} changes by {slow:.1e} of its size in a step, {last.name} by {quick:.1e}.",
        f"The first layers stay what they were at random; only the last ones learn.{why}",
        cure, place, subject=first.name, evidence={"first": slow, "last": quick},
        step=step.number)


def _counts(p: ParameterSeen) -> bool:
    g = p.gradient
    return (p.held and p.ndim > 1 and p.update is not None and p.weight.finite
            and p.weight.norm > 0 and g is not None and g.finite and g.norm > 0)


def _bottleneck(run: Run, name: str) -> tuple[Node, float] | None:
    """The elementwise operation behind a parameter that lets least of the gradient through."""
    graph = run.latest.graph
    wanted = dict(run.parameters()).get(name)
    if graph is None or wanted is None:
        return None
    behind: set[Node] = {leaf for leaf in graph.leaves
                         if callable(leaf.out) and leaf.out() is wanted}
    found: tuple[Node, float] | None = None
    for node in graph.order:
        edges = edges_of(node)
        if behind.isdisjoint(edges):
            continue
        behind.add(node)
        if node.prim is None or node.prim.kind != "elementwise" or node not in graph.gradients:
            continue
        whole = float(np.linalg.norm(graph.gradients[node]))
        # A second reader may add to what arrives at an operand: then it is no bottleneck.
        shares = [float(np.linalg.norm(graph.gradients[edge])) / whole for edge in edges
                  if edge.shape == node.shape and edge in graph.gradients] if whole > 0 else []
        if shares and max(shares) < min(NARROW, found[1] if found else NARROW):
            found = node, max(shares)
    return found


@rule("CR704", "inputs that are all the same", after=3, example=CLASSES.replace(
    "model =", "x = x[0].expand(64, 4)\nmodel =") + OPTIMIZER + ENTROPY + LOOP,
      cured=CLASSES + OPTIMIZER + ENTROPY + LOOP)
def equal_rows(run: Run) -> Iterator[Finding]:
    """Every sample of the batch is the same, at three sampled steps in a row.

    Looked at wherever an array of at least 8 rows from outside meets the network; if any has
    different rows, or the input itself is learned, all is well. Zeros count where they are all that
    is given (pixels divided as whole numbers); in a recurrent network they are its first state, and
    say nothing.
    """
    graph = run.latest.graph
    if graph is None:
        return
    known = {**held_by_optimizers(run), **parameters_of(run)}
    if not known or any(callable(leaf.out) and id(leaf.out()) not in known
                        for leaf in graph.leaves):
        return
    found: tuple[Any, Origin] | None = None
    blank: list[tuple[Any, Node]] = []
    for node, x in _given(graph):
        if len(x) < 8 or x.ndim == 3 or not np.isfinite(x).all() or (x != x[:1]).any():
            return                  # of three axes, the first may be time
        if node.name not in WEIGHTED or x.dtype.kind != "f" or x.ndim < 2:
            continue
        if not np.any(x):
            blank.append((x, node))
        elif found is None:
            _, place = named(x)
            found = x, place if place.file else node.called_at
    if found is None and len(blank) == 1 and _feeds_forward(graph, blank[0][1]):
        _, place = named(blank[0][0])
        found = blank[0][0], place if place.file else blank[0][1].called_at
    if found is None:
        return
    x, place = found
    zero = not np.any(x)
    yield Finding(
        "CR704", "warning", f"all {len(x)} rows of the input {type_of(x)} are "
        + ("nothing but zeros." if zero else "the same."),
        "The network cannot tell the samples apart: the best it can do is to answer with the mean "
        "of the targets.",
        "x = cr.tensor(x / 255).float()      # // on whole numbers gives 0; or is a buffer never "
        "filled?" if zero else
        "print(x[:3])      # where do the rows become equal? (an index that stays 0, expand, a "
        "column overwritten)", place, evidence={"rows": len(x)}, step=run.latest.number)


def _feeds_forward(graph: Graph, node: Node) -> bool:
    """Is the weight of this operation read there alone? That of a recurrence is read each turn."""
    return all(len(graph.readers.get(edge, ())) == 1 for edge in edges_of(node))


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


@rule("CR505", "NaN or ∞ in the weights before the first step", example=REGRESSION + OPTIMIZER
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
        seen = run.latest.parameters.get(name)       # as it was when the optimiser came
        if seen is not None and not seen.weight.finite:
            place = run.filled.get(id(p), NOWHERE)
            yield Finding(
                "CR505", "error",
                f"{name}, {type_of(p)}, holds NaN or ∞ before the first step.",
                "Every loss and every gradient computed with it is NaN, for ever.",
                "model = Net()      # start anew, or load a state from before the first NaN",
                place if place.file else made_at(p._node), subject=name, step=0)
            return
