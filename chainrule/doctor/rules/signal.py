"""Rules about the size of activations and gradients on their way through the layers: CR6xx."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of, reachable
from chainrule.core.node import Node, Origin
from chainrule.core.places import NOWHERE, made_at
from chainrule.doctor.finding import Finding
from chainrule.doctor.graph import PASSING, Graph, outermost
from chainrule.doctor.history import ActivationSeen, ParameterSeen, Run
from chainrule.doctor.rule import rule

from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION

# Functions between two limits, and about how steep they are at most: only these saturate.
SQUASHING = {"sigmoid": 0.25, "tanh": 1.0, "erf": 1.0, "atan": 1.0, "softsign": 1.0}
FLAT = 0.06           # of the steepest slope: tanh at 0.97 (Karpathy, makemore 3)
SHUT = 1e-3           # of it: a gate that lets nothing through, and does not learn to
FIRST = 3             # steps at which a gate is what it was set to, not what it has learned
WEIGHTED = ("linear", "matmul", "conv2d")
TURNS = 8             # of one line, from which on it counts as a recurrence
HALF_OPEN = 0.4       # a half-open gate passes 0.5 per turn; below this something is wrong
GROWN = 1e3           # times, through time: more than so many turns of a healthy one add up to

DEEP = """
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x = cr.randn(64, 8)
y = (x[:, 0] > 0).long()
layers = []
for depth in range({depth}):
    layers += [nn.Linear(32 if depth else 8, 32), nn.{activation}()]
model = nn.Sequential(*layers, nn.Linear(32, 2))
{after}
"""


def weights(run: Run) -> list[ParameterSeen]:
    """Weights (no biases) with a gradient, in the order of the model."""
    return [p for p in run.latest.parameters.values()
            if p.ndim > 1 and p.gradient is not None and p.gradient.finite]


def bent(run: Run) -> list[tuple[Node, ActivationSeen]]:
    """The activations with their nodes, in the order of the graph."""
    graph, waiting = run.latest.graph, run.latest.activations
    if graph is None:
        return []
    if len(graph.bends) == len(waiting):
        return list(zip(graph.bends, waiting, strict=True))
    found: list[tuple[Node, ActivationSeen]] = []
    for node in graph.bends:
        # Those whose slope is not known were left out there.
        if len(found) < len(waiting):
            a = waiting[len(found)]
            if a.operation == node.name and a.place == node.origin:
                found.append((node, a))
    return found


def along(run: Run) -> list[tuple[Node, ActivationSeen]]:
    """The longest way from the input to the loss, by its activations within the models.

    What lies on different branches, or behind the model, says nothing about depth.
    """
    graph, pairs = run.latest.graph, bent(run)
    if graph is None:
        return []
    models = {id(m) for _, model in run.models for m in model.modules()}
    here = {n: a for n, a in pairs if id(outermost(n)) in models} or dict(pairs)
    best: dict[Node, tuple[int, Node | None]] = {}
    before: dict[Node, Node | None] = {}
    for node in graph.order:
        count, last = max((best[edge] for edge in edges_of(node)), key=lambda b: b[0],
                          default=(0, None))
        if node in here:
            before[node] = last
            count, last = count + 1, node
        best[node] = count, last
    way: list[tuple[Node, ActivationSeen]] = []
    step = best[graph.root][1]
    while step is not None:
        way.append((step, here[step]))
        step = before[step]
    return way[::-1]


def per_element(p: ParameterSeen) -> float:
    assert p.gradient is not None
    return float(p.gradient.norm / max(p.gradient.size, 1) ** 0.5)


@rule("CR601", "vanishing gradients", after=2, example=DEEP.format(
    depth=12, activation="Sigmoid", after="") + OPTIMIZER + ENTROPY + LOOP, cured=DEEP.format(
    depth=3, activation="ReLU", after="") + OPTIMIZER + ENTROPY + LOOP)
def vanishing(run: Run) -> Iterator[Finding]:
    """The first weight's gradient is less than 10⁻³ of the last one's, element for element.

    AutoTrainer's condition (Zhang et al. 2021) also wants the first to be small by itself; here the
    decay per layer, fitted over all of them, has to be below 0.7 as well, so that one odd layer
    does not count. An error below 10⁻⁶: then early layers do not learn at all. (Bengio et al. 1994)

    A recurrence has few weights, but one line that is run at every step of time: there the gradient
    at its first turn is held against that at its last, and 10⁻⁶ over at least eight turns is a
    warning, since recent inputs may well matter more. Gates that are half open, as they are at the
    beginning, pass on one half at each turn, and learn to keep what is needed (Hochreiter &
    Schmidhuber 1997; Jozefowicz et al. 2015): there it has to be less than 0.4 per turn as well.
    """
    yield from _forgetting(run)
    found = weights(run)
    if len(found) < 4:
        return
    sizes = [per_element(p) for p in found]
    if not sizes[-1] > 0:
        return
    ratio = sizes[0] / sizes[-1]
    factor = _per_layer(sizes)
    if not (ratio < 1e-3 and factor < 0.7):
        return
    flattest = min((a for a in run.latest.activations), key=lambda a: a.steep, default=None)
    yield Finding(
        "CR601", "error" if ratio < 1e-6 else "warning",
        f"the gradient shrinks by ×{factor:.2g} per layer: {found[0].name} gets {ratio:.1e} of "
        f"what {found[-1].name} gets.",
        f"Early layers hardly move, and the network learns as if it had only its last ones."
        f"{_blamed(flattest)}",
        ("nn.init.kaiming_normal_(weight), a normalisation (nn.LayerNorm)\n"
         if flattest is not None and flattest.cornered else
         "nn.ReLU() instead of a squashing activation, with nn.init.kaiming_uniform_(weight), a\n"
         "normalisation (nn.LayerNorm) ") + "or a path around each block (x + block(x))",
        flattest.place if flattest is not None else run.latest.place("backward"),
        subject=found[0].name, evidence={"ratio": ratio, "per layer": factor},
        step=run.latest.number)


def _forgetting(run: Run) -> Iterator[Finding]:
    for turns in _recurrences(run):
        seen = [a for _, a in turns]
        sizes = [a.gradient.norm / a.gradient.size ** 0.5 for a in seen if a.gradient is not None]
        # By quarters: a gate that meets a state of 0 gets no gradient in any case.
        quarter = len(sizes) // 4
        early, late = max(sizes[:quarter]), max(sizes[-quarter:])
        if not early < 1e-6 * late:
            continue
        first, factor = seen[0], (max(early, 1e-300) / late) ** (1 / (len(sizes) - quarter))
        gated = _gated(run, [node for node, _ in turns])
        if gated and factor > HALF_OPEN:
            continue
        yield Finding(
            "CR601", "warning",
            f"the gradient shrinks by ×{factor:.2g} at each of {len(seen)} turns of "
            f"{first.operation}{_of(first)}: the first ones get {early / late:.1e} of what "
            "the last get.",
            "What happened early in a sequence cannot be learned from.",
            "# a forget gate that is open at the beginning: a bias of 1 or more" if gated else
            "nn.LSTM or nn.GRU instead of a plain recurrence, or\n"
            "nn.init.orthogonal_(weight) for the recurrent weight", first.place,
            subject=first.module, evidence={"ratio": early / late, "per layer": factor},
            step=run.latest.number)


def _recurrences(run: Run) -> Iterator[list[tuple[Node, ActivationSeen]]]:
    """Activations of one line that is run again and again."""
    turns: dict[tuple[str, str, int], list[tuple[Node, ActivationSeen]]] = {}
    for node, a in bent(run):
        if a.gradient is not None and a.gradient.finite:
            turns.setdefault((a.operation, a.place.file, a.place.line), []).append((node, a))
    for seen in turns.values():
        # Layers of one Sequential are called in one line too, but each has a name of its own.
        if len(seen) >= TURNS and len({a.module for _, a in seen}) == 1:
            yield seen


def _gate(graph: Graph, node: Node) -> bool:
    """Is it a sigmoid that something else is multiplied by?"""
    if node.name != "sigmoid":
        return False
    waiting = [node]
    while waiting:
        for reader in graph.readers.get(waiting.pop(), ()):
            # Also by an array from outside, such as a first state or the input; not by a number.
            if reader.name == "mul" and (len(edges_of(reader)) == 2 or any(
                    type(x) is np.ndarray and x.ndim for x, edge in zip(
                        graph.saved[reader], reader.inputs, strict=False) if edge is None)):
                return True
            # Also one minus the gate, and gates that were computed together.
            if reader.name in PASSING or (reader.name in ("sub", "neg", "add")
                                          and len(edges_of(reader)) == 1):
                waiting.append(reader)
    return False


def _gated(run: Run, nodes: list[Node]) -> bool:
    """Are these gates, or multiplied by gates?"""
    graph = run.latest.graph
    assert graph is not None
    for node in nodes[-2:]:
        factors = [edge for reader in graph.readers.get(node, ()) if reader.name == "mul"
                   for edge in edges_of(reader)]
        if any(_gate(graph, one) for one in (node, *factors)) or any(
                one.name in (*PASSING, "sub") and (maker := graph.maker(
                    one, (*PASSING, "sub"))) is not None and _gate(graph, maker)
                for one in factors):
            return True
    return False


def _blamed(a: ActivationSeen | None) -> str:
    return "" if a is None else f" The mean slope of {a.operation} is {a.steep:.2g}."


def _per_layer(sizes: list[float]) -> float:
    """The factor per layer, by a straight line through the logarithms."""
    # What underflowed to 0 has no logarithm: the line goes through the others.
    places = [i for i, size in enumerate(sizes) if size > 0]
    if len(places) < 2:
        return 0.0
    slope = np.polyfit(places, np.log([sizes[i] for i in places]), 1)[0]
    return float(np.exp(-slope))


@rule("CR602", "exploding gradients", example=DEEP.format(
    depth=12, activation="ReLU", after="for p in model.parameters():\n    p.data.mul_(6)")
    + OPTIMIZER + ENTROPY + LOOP, cured=DEEP.format(
    depth=3, activation="ReLU", after="") + OPTIMIZER + ENTROPY + LOOP)
def exploding(run: Run) -> Iterator[Finding]:
    """The gradient that arrives at the activations grows towards the input by more than ×1.5 per
    layer, to over 70 times that at the last.

    70 is AutoTrainer's ratio (Zhang et al. 2021); the growth per layer, fitted over all, keeps a
    single odd layer from counting. Compared are the activations that follow one another on the
    longest way through the model, not those of its branches or of the loss.

    Through time (Pascanu, Mikolov & Bengio 2013) it is the turns of one line that count, eight or
    more: growth per turn may be small and still be 10³ in all. What a loss at every step of time
    adds up to grows no faster than the number of steps. Where gradients are clipped, nothing is
    said: that is the remedy.
    """
    yield from _through_time(run)
    seen = [a for _, a in along(run) if a.gradient is not None and a.gradient.finite
            and a.gradient.norm > 0]
    lines = Counter((a.operation, a.module, a.place.file, a.place.line) for a in seen)
    if len(seen) < 4 or max(lines.values()) >= TURNS:
        return
    sizes = [a.gradient.norm / a.gradient.size ** 0.5 for a in seen if a.gradient is not None]
    ratio, factor = sizes[0] / sizes[-1], 1 / _per_layer(sizes[::-1])
    if not (ratio > 70 and factor > 1.5):
        return
    first, last = seen[0], seen[-1]
    yield Finding(
        "CR602", "error" if ratio > 1e4 else "warning",
        f"the gradient grows by ×{factor:.2g} per layer: at {first.operation}{_of(first)} it is "
        f"{ratio:.1e} times what it is at {last.operation}{_of(last)}.",
        "A learning rate that suits the last layers is far too high for the first.",
        "nn.utils.clip_grad_norm_(model.parameters(), 1.0)      # and smaller initial weights:\n"
        "nn.init.xavier_uniform_(weight) or nn.init.kaiming_uniform_(weight)",
        first.place, subject=first.module, evidence={"ratio": ratio, "per layer": factor},
        step=run.latest.number)


def _through_time(run: Run) -> Iterator[Finding]:
    if any(e.what == "clip" for e in run.latest.events):
        return
    for turns in _recurrences(run):
        seen = [a for _, a in turns]
        sizes = [a.gradient.norm / a.gradient.size ** 0.5 for a in seen if a.gradient is not None]
        if not min(sizes) > 0:
            continue
        # By a straight line through all: what one odd turn does is no growth.
        factor = 1 / _per_layer(sizes[::-1])
        ratio = factor ** (len(sizes) - 1)
        steadily = float(np.mean(np.diff(sizes) < 0)) > 0.7
        if not (ratio > GROWN and steadily):
            continue
        first = seen[0]
        yield Finding(
            "CR602", "error" if ratio > 1e6 else "warning",
            f"the gradient grows by ×{factor:.3g} at each of {len(seen)} turns of "
            f"{first.operation}{_of(first)}: the first ones get {ratio:.1e} times what the last "
            "get.",
            "One step is mostly what happened early in the sequence, and far too long.",
            "nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
            "nn.init.orthogonal_(weight)      # the one that each turn multiplies by", first.place,
            subject=first.module, evidence={"ratio": ratio, "per layer": factor},
            step=run.latest.number)


@rule("CR603", "a saturated activation", after=3, example=REGRESSION.replace(
    "model =", "x = 60 * x\nmodel =") + OPTIMIZER + MSE + LOOP,
      cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def saturated(run: Run) -> Iterator[Finding]:
    """More than half of the outputs lie where the activation is flat: its slope is below 0.06
    (tanh at 0.97, sigmoid at 0.06 or 0.94; Karpathy's threshold, the share is TheDeepChecker's and
    SageMaker's).

    Only functions between two limits saturate: sigmoid, tanh, erf, atan, softsign. Functions with
    corners (ReLU) are CR604's, and a square root is flat for large numbers without any fault.

    Gates, which are sigmoids that something is multiplied by, learn to be open or shut, and may be
    set to be so (biases up to the logarithm of the length: Tallec & Ollivier 2018). They count if
    their slope is below 10⁻³ of the steepest from the first step on. The last activation of a
    network answers, and is sure where it is right: there the slope has to be below 0.06 of the
    steepest (sigmoid at 0.015 or 0.985), and the loss above half of the first.
    """
    graph = run.latest.graph
    if graph is None:
        return
    for node, a in bent(run):
        steepest, share = SQUASHING.get(node.name), a.flat
        if steepest is None or not share > 0.5:
            continue
        if _gate(graph, node):
            share = _flatter(graph, node, SHUT * steepest)
            if run.latest.number >= FIRST:
                continue
        elif _answers(graph, node):
            share = _flatter(graph, node, FLAT * steepest)
            if run.losses and run.losses[-1] < 0.5 * run.losses[0]:
                continue
        if not share > 0.5:
            continue
        yield Finding(
            "CR603", "warning",
            f"{100 * share:.0f} % of the outputs of {a.operation}{_of(a)} lie where it is flat.",
            f"What comes from behind is multiplied by a mean slope of {a.steep:.2g}: the layers "
            "before it get next to nothing.",
            "# inputs scaled to mean 0 and deviation 1, smaller weights before it, or\n"
            "nn.LayerNorm(...) before the activation", a.place, subject=a.module,
            evidence={"share": share}, step=run.latest.number)


def _flatter(graph: Graph, node: Node, limit: float) -> float:
    """The share of the elements whose slope is smaller."""
    slopes = graph.slopes(node)
    return 0.0 if slopes is None else float(np.mean(np.abs(slopes) < limit))


def _answers(graph: Graph, node: Node) -> bool:
    """Is there no weight between this and the loss?"""
    waiting, seen = [node], {node}
    while waiting:
        for reader in graph.readers.get(waiting.pop(), ()):
            if reader.name in WEIGHTED:
                return False
            if reader not in seen:
                seen.add(reader)
                waiting.append(reader)
    return True


def _of(a: ActivationSeen) -> str:
    return f" ({a.module})" if a.module else ""


@rule("CR604", "dead units", after=1, example=CLASSES + """
model[0].bias.data.fill_(-40.0)
""" + OPTIMIZER + ENTROPY + "\n" + LOOP.replace("12", "20"), cured=CLASSES + OPTIMIZER + ENTROPY
      + LOOP.replace("12", "20"))
def dead(run: Run) -> Iterator[Finding]:
    """Units whose slope was 0 for every sample of ten sampled steps, and at least 500 samples.

    Never judged by the share of zeros, which is about one half in a healthy ReLU network (Glorot et
    al. 2011). Warned from 40 % of a layer (CS231n, "neural networks 1"), an error from 80 %.
    """
    steps = [s for s in run.sampled(10) if s.activations]
    if len(steps) < 10 or len({len(s.activations) for s in steps}) > 1:
        return
    graph, inside = run.latest.graph, bool(run.models)
    for index, a in enumerate(run.latest.activations):
        if inside and graph is not None and len(graph.bends) == len(run.latest.activations) \
                and outermost(graph.bends[index]) is None:
            continue                       # the abs() of a penalty has no units
        same = [s.activations[index] for s in steps]
        if any(b.units != a.units or not b.cornered or not b.value.finite for b in same):
            continue
        if sum(b.samples for b in same) < 500:
            continue
        share = float(np.mean(np.all([b.dead for b in same], axis=0)))
        if share < 0.4:
            continue
        yield Finding(
            "CR604", "error" if share >= 0.8 else "warning",
            f"{100 * share:.0f} % of the {a.units} units of {a.operation}{_of(a)} never passed "
            "anything.",
            "Their slope is 0 for every sample, so no gradient can bring them back.",
            "nn.LeakyReLU(0.01) instead of nn.ReLU(), a smaller learning rate, or\n"
            "nn.init.kaiming_uniform_(weight) with a bias of 0", a.place, subject=a.module,
            evidence={"share": share, "units": a.units}, step=run.latest.number)


@rule("CR605", "the signal shrinks or grows from layer to layer", example=DEEP.format(
    depth=10, activation="Tanh", after="for m in model:\n    if isinstance(m, nn.Linear):\n"
    "        m.weight.data.mul_(0.4)\n        m.bias.data.zero_()") + OPTIMIZER + ENTROPY + LOOP,
      cured=DEEP.format(depth=10, activation="ReLU", after="for m in model:\n"
      "    if isinstance(m, nn.Linear):\n"
      "        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')")
      + OPTIMIZER + ENTROPY + LOOP)
def initialisation(run: Run) -> Iterator[Finding]:
    """At the first step the activations change in size by more than ×10³ from the first to the last
    on the longest way through the model, and steadily: the initial weights have the wrong scale for
    this activation (Glorot & Bengio 2010; He et al. 2015).

    Where every layer has a name of its own, growth counts from ×30 on. Layers as they are made by
    default never grow like that; blocks of the form x + block(x) do if each adds as much as there
    is, so that the size doubles every other block (Hanin & Rolnick 2018; Zhang, Dauphin & Ma 2019).
    """
    if run.latest.number:
        return
    nodes, seen = [node for node, _ in along(run)], [a for _, a in along(run)]
    sizes = [a.value.norm / max(a.value.size, 1) ** 0.5 for a in seen]
    if len(sizes) < 4 or not all(np.isfinite(sizes)) or not min(sizes) > 0:
        return
    ratio = sizes[-1] / sizes[0]
    steps = np.diff(np.log(sizes))
    layered = len({a.module for a in seen}) == len(seen)
    steadily = max(np.mean(steps > 0), np.mean(steps < 0)) > 0.7
    if not (steadily and (max(ratio, 1 / ratio) > 1e3 or (layered and ratio > 30))):
        return
    # The layer that does most of it, not whatever bends last: that may be the loss.
    steps = steps if ratio > 1 else -steps
    worst = int(np.argmax(steps)) + 1
    last, place = seen[worst], _weight_before(run, nodes[worst])
    verb = "grow" if ratio > 1 else "shrink"
    yield Finding(
        "CR605", "warning",
        f"activations {verb} by ×{ratio ** (1 / (len(sizes) - 1)):.2g} per layer, from "
        f"{sizes[0]:.2g} to {sizes[-1]:.2g}, before training has begun.",
        "The last layers see numbers that hardly depend on the input, and gradients that change "
        "with depth in the same way.",
        "for m in model.modules():\n    if isinstance(m, nn.Linear):\n"
        "        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')"
        + ("\n# and where blocks add up, x + block(x): nn.init.zeros_(weight) for the last weight\n"
           "# of each, or a normalisation" if ratio > 1 else ""),
        place if place.file else last.place,
        subject=last.module, evidence={"ratio": ratio}, step=0)


def _weight_before(run: Run, node: Node) -> Origin:
    """The line that set, or made, the weight that this activation's operand was computed with."""
    waiting = [node]
    while waiting:
        node = waiting.pop(0)
        for edge in edges_of(node):
            if edge.prim is None and node.name in WEIGHTED:
                tensor = edge.out() if callable(edge.out) else None
                place = run.filled.get(id(tensor), NOWHERE)
                return place if place.file else made_at(edge)
            waiting.append(edge)
    return NOWHERE


@rule("CR606", "units that are all the same", after=2, example=REGRESSION + """
for p in model.parameters():
    nn.init.constant_(p, 0.1)
""" + OPTIMIZER + MSE + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def symmetric(run: Run) -> Iterator[Finding]:
    """All rows of a weight, or all filters of a convolution, are equal: its units compute the same,
    get the same gradient and stay the same for ever. The layer counts as one unit.

    Equal but for rounding, which is 10⁻⁶ of the largest weight and 10⁻³ of the largest gradient.
    """
    blank = [(name, p) for name, p in run.parameters() if p.ndim > 1 and p.grad is not None
             and not np.any(p._value) and not np.any(p.grad._value)]
    if len(blank) > 1 and run.latest.losses:
        name, p = blank[0]
        place = run.filled.get(id(p), NOWHERE)
        yield Finding(
            "CR606", "error", f"{name} and {len(blank) - 1} more weights are all 0, and so are "
            "their gradients.", "A weight of 0 passes nothing on, forward or back, so that none of "
            "them ever changes.", "nn.init.kaiming_uniform_(weight)      # one of them may be 0",
            place if place.file else made_at(p._node), subject=name,
            evidence={"weights": len(blank)}, step=run.latest.number)
        return
    for name, p in run.parameters():
        value = p._value
        if value.ndim < 2 or value.shape[0] < 2 or not p.requires_grad or p.grad is None:
            continue
        if not np.any(value) and name.rpartition(".")[2] != "weight":
            continue
        g = p.grad._value
        if _equal(value, 1e-6) and np.any(g) and _equal(g, 1e-3):
            place = run.filled.get(id(p), NOWHERE)
            what = "filters" if value.ndim > 2 else "units"
            yield Finding(
                "CR606", "error",
                f"the {value.shape[0]} {what} of {name} are equal, and so are their gradients.",
                "Equal units with equal gradients stay equal: the layer can do no more than one "
                "unit could.", f"nn.init.kaiming_uniform_(model.{name})",
                place if place.file else made_at(p._node), subject=name,
                evidence={"units": value.shape[0]}, step=run.latest.number)


def _equal(rows: np.ndarray[Any, Any], share: float) -> bool:
    """Are all rows the same, up to a share of the largest number?"""
    return bool(np.abs(rows - rows[:1]).max() <= share * np.abs(rows).max())


@rule("CR608", "the output does not depend on the input", after=5, example=CLASSES + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = model

    def forward(self, x):
        return self.layers(x * 0 + 1)

model = Net()
""" + OPTIMIZER + ENTROPY + LOOP, cured=CLASSES + OPTIMIZER + ENTROPY + LOOP)
def constant_output(run: Run) -> Iterator[Finding]:
    """Every sample of the batch gets the same prediction, five sampled steps in a row, while the
    samples differ: the network has collapsed, or its input is lost on the way.

    Named is the first operation whose rows are equal though it was computed from rows that differ;
    where there is none, the output.
    """
    graph = run.latest.graph
    if graph is None:
        return
    models = {id(model) for _, model in run.models}

    def inside(node: Node) -> bool:
        return id(outermost(node)) in models

    # What leaves a model. There may be several results, and one of them, such as a deviation that
    # is a parameter, may well be the same for all samples.
    outputs = [node for node in graph.order if node.prim is not None and inside(node)
               and (node is graph.root or not all(map(inside, graph.readers.get(node, ()))))]
    found = [(node, graph.values[node]) for node in outputs if node in graph.values]
    found = [(node, value) for node, value in found if value.ndim >= 2 and len(value) >= 4]
    if not found or any(_spread(value) > 1e-6 * max(float(np.abs(value).max()), 1e-6)
                        for _, value in found):
        return
    output, value = found[-1]
    given = [x for node in graph.order for x, edge in zip(
        graph.saved[node], node.inputs, strict=False)
        if edge is None and type(x) is np.ndarray and x.ndim and len(x) == len(value)]
    if not any((x != x[:1]).any() for x in given):
        return                                    # neither inputs nor targets differ
    spread = _spread(value)
    if not _same_rows(value):
        return                                    # not a number
    place = _lost_at(graph, len(value), output).origin
    yield Finding(
        "CR608", "error",
        f"all {len(value)} samples of the batch get the same output.",
        "The loss can only be that of the best constant.",
        "# look at the first layer whose outputs are equal: cr.doctor.check(model, x)",
        place, subject=output.origin.module, evidence={"spread": spread},
        step=run.latest.number)


def _lost_at(graph: Graph, count: int, output: Node) -> Node:
    """The first operation on the way to `output` whose rows are equal, though it was computed from
    rows that differ.
    """
    way = set(reachable([output]))
    differing: set[Node] = set()
    for node in graph.order:
        if node not in way or node.prim is None:
            continue
        given = [x for x, edge in zip(graph.saved[node], node.inputs, strict=False)
                 if edge is None and type(x) is np.ndarray and x.ndim and len(x) == count]
        if differing.isdisjoint(edges_of(node)) and not any((x != x[:1]).any() for x in given):
            continue
        value = graph.values.get(node)
        if value is not None and value.ndim > 1 and len(value) == count and _same_rows(value):
            return node
        differing.add(node)
    return output


def _same_rows(value: np.ndarray[Any, Any]) -> bool:
    return _spread(value) <= 1e-6 * max(float(np.abs(value).max()), 1e-6)


def _spread(value: np.ndarray[Any, Any]) -> float:
    return float(np.max(value.max(0) - value.min(0)))
