"""`chainrule explain depth` without a network: what depth does to standard stacks, measured now.

Claims C4 (sigmoid's slopes make deep stacks vanish), C5 (too large a start saturates, too small
shrinks) and the published behaviour they rest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .chart import Chart, Curve
from .document import Report, Section, Table, number, percent
from .stacks import (
    ACTIVATIONS,
    DEPTHS,
    EXAMPLES,
    FORMS,
    INITIALISATIONS,
    WIDTH,
    Stack,
    measure_stack,
)
from .starting import DEEP, Saturation, Start, train_deep, watch_sigmoid

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
SHOWN = 30                # the depth drawn and of which variances are told
MIDDLE = 5                # the layer whose factor is split into slopes and weights
LAST = 20                 # steps over which the loss at the end is a mean

NAMES = {"xavier": "Xavier", "he": "He", "relu": "ReLU"}


@dataclass(frozen=True)
class Study:
    """Everything that was measured; `stacks` by activation, initialisation and depth."""

    stacks: tuple[Stack, ...]
    scales: tuple[Stack, ...]
    cures: tuple[Stack, ...]
    starts: tuple[Start, ...]
    saturation: Saturation


def measure_study(quick: bool = False) -> Study:
    """All measurements; a few seconds, less than one when `quick`."""
    depths = DEPTHS[:2] if quick else DEPTHS
    steps = 150 if quick else 300
    stacks = tuple(measure_stack(activation, initialisation, depth)
                   for activation in ACTIVATIONS for initialisation in INITIALISATIONS
                   for depth in depths)
    scales = tuple(measure_stack("tanh", "xavier", 10, scale=scale) for scale in SCALES)
    cures = tuple(measure_stack(activation, initialisation, SHOWN, form)
                  for activation in ACTIVATIONS for form in FORMS
                  for initialisation in (("standard",) if quick else ("standard", "he")))
    starts = tuple(train_deep(initialisation, steps) for initialisation in ("xavier", "he"))
    return Study(stacks, scales, cures, starts, watch_sigmoid(steps))


def depth_study(quick: bool = False) -> Report:
    """The study as a report."""
    found = measure_study(quick)
    return Report("What depth does to a gradient", (
        product_section(found.stacks), scale_section(found.scales), start_section(found.starts),
        saturation_section(found.saturation), cure_section(found.cures),
    ), {"study": found})


def name_of(key: str) -> str:
    """How a key is written in tables."""
    return NAMES.get(key, key)


# ---------------------------------------------------------------- the sections


def product_section(stacks: Sequence[Stack]) -> Section:
    """C4: the factors of activation × initialisation × depth."""
    depths = sorted({stack.depth for stack in stacks})
    rows = [("f", "first weights", "slopes", "weights", "per layer",
             *(f"{depth} layers" for depth in depths))]
    for activation in ACTIVATIONS:
        for initialisation in INITIALISATIONS:
            own = {s.depth: s for s in stacks
                   if (s.activation, s.initialisation) == (activation, initialisation)}
            layer = own[depths[0]].factors.layers[MIDDLE - 1]
            rows.append((name_of(activation), name_of(initialisation), number(layer.slopes),
                         number(layer.weights), number(own[depths[-1]].factors.per_layer),
                         *(number(own[depth].factors.total) for depth in depths)))
    shown = max(depth for depth in depths if depth <= SHOWN)
    return Section("C4  depth is a product: the gradient at the first layer ÷ at the last", (
        Table(tuple(rows), tuple(range(2, 5 + len(depths)))),
        (f"Stacks h ← f(W h) of {WIDTH} units, {EXAMPLES} examples, inputs and arriving gradient "
         "drawn from N(0, 1), float64; all measured in one forward and one backward pass each. "
         f"slopes · weights: the two factors of layer {MIDDLE}. per layer: the geometric mean in "
         "the deepest stack. Its layers' factors multiply to the last columns."),
        ("Theory for comparison: n weights of variance v multiply the gradient's size by √(n·v), "
         "which is 1/√3 = 0.577 for standard (±1/√n), 1 for Xavier, √2 = 1.414 for He (Glorot & "
         "Bengio 2010, equation 6; He et al. 2015, equation 14). σ′ is at most 0.25, so a sigmoid "
         "layer at most quarters it; half of all ReLUs pass all of it and half nothing, √(1/2) = "
         "0.707; tanh′ is 1 at 0 and smaller elsewhere."),
        gradient_chart(stacks, "relu", shown),
    ), tuple(gradient_chart(stacks, one, shown) for one in ACTIVATIONS if one != "relu")
       + tuple(variance_chart(stacks, activation, shown) for activation in ACTIVATIONS))


def of_depth(stacks: Sequence[Stack], activation: str, depth: int) -> list[Stack]:
    return [s for s in stacks if s.activation == activation and s.depth == depth]


def gradient_chart(stacks: Sequence[Stack], activation: str, depth: int) -> Chart:
    """Size of the gradient by layer, a curve for each initialisation."""
    return Chart(
        f"gradient by layer, {depth} {name_of(activation)} layers", "layer",
        "‖∂L/∂h‖ ÷ ‖∂L/∂h‖ at the top",
        tuple(Curve(name_of(s.initialisation), tuple(range(1, depth + 1)),
                    tuple(layer.gradient / s.factors.top for layer in s.factors.layers))
              for s in of_depth(stacks, activation, depth)), log_y=True)


def variance_chart(stacks: Sequence[Stack], activation: str, depth: int) -> Chart:
    """Variance of the activations by layer."""
    return Chart(
        f"variance of activations, {depth} {name_of(activation)} layers", "layer", "Var h",
        tuple(Curve(name_of(s.initialisation), tuple(range(1, depth + 1)),
                    tuple(layer.variance for layer in s.factors.layers))
              for s in of_depth(stacks, activation, depth)), log_y=True)


def scale_section(stacks: Sequence[Stack]) -> Section:
    """C5: too large saturates, too small shrinks."""
    rows = [("weights", "Var h, first", "Var h, last", "flat, last",
             "(∂L/∂h)² ratio", "per layer")]
    for s in stacks:
        first, last = s.factors.layers[0], s.factors.layers[-1]
        rows.append((f"{number(s.scale)} · Xavier", number(first.variance), number(last.variance),
                     percent(last.flat),
                     number(first.gradient_variance / last.gradient_variance),
                     number(s.factors.per_layer)))
    depth = stacks[0].depth
    places = tuple(range(1, depth + 1))
    charts = tuple(
        Chart(f"{title}, {depth} tanh layers", "layer", axis, tuple(
            Curve(f"{number(s.scale)} · Xavier", places,
                  tuple(getattr(layer, field) for layer in s.factors.layers)) for s in stacks),
            log_y=True)
        for title, axis, field in (
            ("variance of activations", "Var h", "variance"),
            ("mean square of gradients", "mean (∂L/∂h)²", "gradient_variance")))
    heading = f"C5  too small a start shrinks, too large a one saturates: {depth} tanh layers"
    return Section(heading, (
        Table(tuple(rows), (1, 2, 3, 4, 5)),
        ("flat: share of the units in the last layer whose slope is below 0.01, so that almost no "
         "gradient passes. (∂L/∂h)² ratio: mean square of the gradients at "
         "the first layer ÷ at the last. per layer: the geometric mean "
         "of the factors of ‖∂L/∂h‖. Weights that are too small shrink activations and gradients "
         "in every layer; weights that are too large push tanh to ±1, and what gets through is "
         "multiplied by large weights: it is no longer steady in either direction."),
    ), charts)


def start_section(starts: Sequence[Start]) -> Section:
    """The 30-layer ReLU network."""
    steps = len(starts[0].losses)
    at = [step for step in (0, 50, 100, 200) if step < steps]
    rows = [("first weights", *(f"step {step}" for step in at), f"last {LAST}", "correct")]
    for start in starts:
        smooth = smoothed(start.losses)
        rows.append((name_of(start.initialisation), *(f"{smooth[step]:.3f}" for step in at),
                     f"{np.mean(start.losses[-LAST:]):.3f}", percent(start.correct)))
    by_name = {start.initialisation: start for start in starts}
    xavier, he = (float(np.mean(by_name[key].losses[-LAST:])) for key in ("xavier", "he"))
    chart = Chart(f"loss of a {DEEP}-layer ReLU network", "step", "cross entropy", tuple(
        Curve(name_of(start.initialisation), tuple(range(steps)), smoothed(start.losses))
        for start in starts))
    return Section(f"The {DEEP}-layer ReLU network that Xavier cannot start and He can", (
        Table(tuple(rows), tuple(range(1, len(at) + 3))), chart,
        (f"Trained now on the digits, {steps} compiled steps of plain gradient descent, the same "
         f"batches and rate for both; means of up to {LAST} steps; correct: of all digits, "
         f"at the end. After them the loss is "
         f"{xavier:.3f} from Xavier (log 10 = {np.log(10):.3f}: a guess) and {he:.3f} from He. "
         "Xavier leaves ReLU a factor of 0.707 a layer, forwards and backwards; over 30 layers "
         "neither signal nor gradient is left (He et al. 2015, section 2.2 and figure 3)."),
    ))


def smoothed(losses: Sequence[float]) -> tuple[float, ...]:
    """Each loss as the mean of itself and up to 19 before it."""
    return tuple(float(np.mean(losses[max(0, i + 1 - LAST):i + 1])) for i in range(len(losses)))


def saturation_section(found: Saturation) -> Section:
    """Glorot & Bengio's figure 2."""
    layers = len(found.means[0])
    shown = [i for i in range(len(found.steps)) if i in (0, 1, 2, 5) or i == len(found.steps) - 1]
    rows = [("step", *(f"layer {k + 1}" for k in range(layers)), "loss")]
    rows += [(str(found.steps[i]),
              *(f"{m:.3f} ± {s:.3f}" for m, s in zip(found.means[i], found.deviations[i],
                                                    strict=True)),
              f"{found.losses[i]:.3f}") for i in shown]
    chart = Chart("mean activation of four sigmoid layers", "step", "mean of h", tuple(
        Curve(f"layer {k + 1}", found.steps, tuple(m[k] for m in found.means))
        for k in range(layers)))
    return Section("Sigmoid's last hidden layer saturates as training starts", (
        Table(tuple(rows), tuple(range(layers + 2))),
        (f"Mean ± standard deviation of the activations. In {found.steps[-1]} steps the mean of "
         f"layer {layers} goes from {found.means[0][-1]:.3f} to {found.means[-1][-1]:.3f}: at "
         "first the layers below carry nothing about the input to the output, so the output learns "
         "from its bias, and the quickest way to silence the rest is h = 0, where σ′ is almost 0 "
         "(Glorot & Bengio 2010, figure 2: four hidden layers, standard start)."),
    ), (chart,))


def cure_section(stacks: Sequence[Stack]) -> Section:
    """What keeps the gradient in deep stacks."""
    depth = stacks[0].depth
    rows: list[tuple[str, ...]] = [("activation", "first weights", *FORMS)]
    for activation in ACTIVATIONS:
        for initialisation in dict.fromkeys(s.initialisation for s in stacks):
            own = {s.form: s for s in stacks
                   if (s.activation, s.initialisation) == (activation, initialisation)}
            rows.append((name_of(activation), name_of(initialisation),
                         *(number(own[form].factors.total) for form in FORMS)))
    return Section(f"What cures it: the gradient at the first of {depth} layers ÷ at the last", (
        Table(tuple(rows), tuple(range(2, 2 + len(FORMS)))),
        ("plain f(W h); residual h + f(W h); layer and batch norm f(norm(W h)). The same inputs "
         "and weights in each row, all measured. A residual path adds 1 to each layer's factor, so "
         "nothing vanishes, but large weights explode; normalisation makes the start of the "
         "weights matter little, and a batch norm over ReLU lets the gradient grow, in theory by "
         "√(π/(π − 1)) = 1.21 a layer (Yang et al. 2019)."),
    ))
