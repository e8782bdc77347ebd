"""Rules about the size of activations and gradients on their way through the layers: CR6xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.core.node import Node, Origin
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import ActivationSeen, ParameterSeen, Run
from chainrule.doctor.rule import rule

from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION

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
    warning, since recent inputs may well matter more.
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
        "nn.ReLU() instead of a squashing activation, with nn.init.kaiming_uniform_(weight), a\n"
        "normalisation (nn.LayerNorm) or a path around each block (x + block(x))",
        flattest.place if flattest is not None else run.latest.place("backward"),
        subject=found[0].name, evidence={"ratio": ratio, "per layer": factor},
        step=run.latest.number)


def _forgetting(run: Run) -> Iterator[Finding]:
    turns: dict[tuple[str, str, int], list[ActivationSeen]] = {}
    for a in run.latest.activations:
        if a.gradient is not None and a.gradient.finite:
            turns.setdefault((a.operation, a.place.file, a.place.line), []).append(a)
    for seen in turns.values():
        # Layers of one Sequential are called in one line too, but each has a name of its own.
        if len(seen) < 8 or len({a.module for a in seen}) > 1:
            continue
        sizes = [a.gradient.norm / a.gradient.size ** 0.5 for a in seen if a.gradient is not None]
        # By quarters: a gate that meets a state of 0 gets no gradient in any case.
        quarter = len(sizes) // 4
        early, late = max(sizes[:quarter]), max(sizes[-quarter:])
        if not early < 1e-6 * late:
            continue
        first, factor = seen[0], (max(early, 1e-300) / late) ** (1 / (len(sizes) - quarter))
        yield Finding(
            "CR601", "warning",
            f"the gradient shrinks by ×{factor:.2g} at each of {len(seen)} turns of "
            f"{first.operation}{_of(first)}: the first ones get {early / late:.1e} of what "
            "the last get.",
            "What happened early in a sequence cannot be learned from.",
            "nn.LSTM or nn.GRU instead of a plain recurrence, or\n"
            "nn.init.orthogonal_(weight) for the recurrent weight", first.place,
            subject=first.module, evidence={"ratio": early / late, "per layer": factor},
            step=run.latest.number)


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
    single odd layer from counting. For recurrent networks see Pascanu, Mikolov & Bengio (2013).
    """
    seen = [a for a in run.latest.activations if a.gradient is not None and a.gradient.finite
            and a.gradient.norm > 0]
    if len(seen) < 4:
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


@rule("CR603", "a saturated activation", after=3, example=REGRESSION.replace(
    "model =", "x = 60 * x\nmodel =") + OPTIMIZER + MSE + LOOP,
      cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def saturated(run: Run) -> Iterator[Finding]:
    """More than half of the outputs lie where the activation is flat: slope below 0.06 (tanh at
    0.97; Karpathy's threshold, the share is TheDeepChecker's and SageMaker's).

    Told by the slope, by the activation's own rule, so that it holds for every smooth function.
    Functions with corners (ReLU) are CR604's.
    """
    for a in run.latest.activations:
        if a.cornered or not a.flat > 0.5:
            continue
        yield Finding(
            "CR603", "warning",
            f"{100 * a.flat:.0f} % of the outputs of {a.operation}{_of(a)} lie where it is flat.",
            "What comes from behind is multiplied by a slope below 0.06 there: the layers before "
            "it get next to nothing.",
            "# inputs scaled to mean 0 and deviation 1, smaller weights before it, or\n"
            "nn.LayerNorm(...) before the activation", a.place, subject=a.module,
            evidence={"share": a.flat}, step=run.latest.number)


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
    for index, a in enumerate(run.latest.activations):
        same = [s.activations[index] for s in steps]
        if any(b.units != a.units or not b.cornered for b in same):
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
    """At the first step the activations' deviation changes by more than ×10³ from the first to the
    last layer, and steadily: the initial weights have the wrong scale for this activation.

    (Glorot & Bengio 2010; He et al. 2015)
    """
    if run.latest.number:
        return
    sizes = [a.value.norm / max(a.value.size, 1) ** 0.5 for a in run.latest.activations]
    if len(sizes) < 4 or not all(np.isfinite(sizes)) or not min(sizes) > 0:
        return
    ratio = sizes[-1] / sizes[0]
    steps = np.diff(np.log(sizes))
    if not (max(ratio, 1 / ratio) > 1e3 and max(np.mean(steps > 0), np.mean(steps < 0)) > 0.8):
        return
    # The layer that does most of it, not whatever bends last: that may be the loss.
    steps = steps if ratio > 1 else -steps
    last = run.latest.activations[int(np.argmax(steps)) + 1]
    verb = "grow" if ratio > 1 else "shrink"
    yield Finding(
        "CR605", "warning",
        f"activations {verb} by ×{ratio ** (1 / (len(sizes) - 1)):.2g} per layer, from "
        f"{sizes[0]:.2g} to {sizes[-1]:.2g}, before training has begun.",
        "The last layers see numbers that hardly depend on the input, and gradients that change "
        "with depth in the same way.",
        "for m in model.modules():\n    if isinstance(m, nn.Linear):\n"
        "        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')", last.place,
        subject=last.module, evidence={"ratio": ratio}, step=0)


@rule("CR606", "units that are all the same", after=2, example=REGRESSION + """
for p in model.parameters():
    nn.init.constant_(p, 0.1)
""" + OPTIMIZER + MSE + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def symmetric(run: Run) -> Iterator[Finding]:
    """All rows of a weight are equal: its units compute the same, get the same gradient and stay
    the same for ever. The layer counts as one unit.
    """
    for name, p in run.parameters():
        value = p._value
        if value.ndim != 2 or value.shape[0] < 2 or not p.requires_grad or p.grad is None:
            continue
        if not np.any(value) and name.rpartition(".")[2] != "weight":
            continue
        g = p.grad._value
        if (value == value[0]).all() and (g == g[0]).all() and np.any(g):
            yield Finding(
                "CR606", "error",
                f"the {value.shape[0]} units of {name} are equal, and so are their gradients.",
                "Equal units with equal gradients stay equal: the layer can do no more than one "
                "unit could.", f"nn.init.kaiming_uniform_(model.{name})",
                Origin("", 0, "", ""), subject=name, evidence={"units": value.shape[0]},
                step=run.latest.number)


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
    """
    graph = run.latest.graph
    if graph is None:
        return
    models = {id(model) for _, model in run.models}

    def inside(node: Node) -> bool:
        scope = node.scope
        while scope is not None and scope[0] is not None:
            scope = scope[0]
        return scope is not None and id(scope[1]) in models

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
    if not spread <= 1e-6 * max(float(np.abs(value).max()), 1e-6):
        return                                    # not a number
    yield Finding(
        "CR608", "error",
        f"all {len(value)} samples of the batch get the same output.",
        "The loss can only be that of the best constant.",
        "# look at the first layer whose outputs are equal: cr.doctor.check(model, x)",
        output.origin, subject=output.origin.module, evidence={"spread": spread},
        step=run.latest.number)


def _spread(value: np.ndarray[Any, Any]) -> float:
    return float(np.max(value.max(0) - value.min(0)))
