"""`cr.explain.depth`: the gradient's size from layer to layer, of a network or of stacks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule.core.errors import SettingError
from chainrule.core.node import user_frame, wrote
from chainrule.explain.naming import scope_of
from chainrule.tensor import Tensor

from .chart import Chart, Curve
from .document import Report, Section, Table, number, percent
from .layers import Factors, keeping_values, layer_factors
from .problem import Problem, left_as_it_was, problem_of
from .stacks import INITIALISATIONS
from .study import depth_study

MOST_ROWS = 24            # layers in a table; of more, the first and the last are shown
LONGEST = 24              # characters of a layer's name
DRAWN = 5                 # from so many layers on the text has a picture
VANISHING, EXPLODING = 1e-3, 1e3
STEADY = (0.8, 1.25)      # factors of one layer that need no cure


def depth(model: Any = None, batch: Any = None, *, loss: Any = None, wrt: Any = None,
          quick: bool = False) -> Report:
    """What each layer does to the gradient's size: factors that multiply to the measured whole.

    model  nothing: stacks of sigmoid, tanh and ReLU layers, with three initialisations and three
           depths, and two published starts of training, measured now. Or a loss that was computed;
           a network with batch=(x, y); a function without arguments that returns the loss
    loss   (output, y) to one number; by default cross entropy for classes, else mean squared error
    wrt    with a computed loss, the tensor where the layers begin; else its deepest operation
    quick  fewer and shallower stacks

    A layer reaches from one bottleneck of the recorded graph to the next, weights first. Its factor
    is ‖∂L/∂h‖ below ÷ ‖∂L/∂h‖ above it, Euclidean norms over the whole batch. Parameters, gradients
    and random numbers are left as they were. Returns a `Report`.

    >>> import chainrule as cr
    >>> x = cr.tensor(0.0, requires_grad=True)
    >>> h = x
    >>> for layer in range(50):
    ...     h = 0.9 * h
    >>> found = cr.explain.depth(h, wrt=x).found["factors"]
    >>> len(found.layers), round(found.total, 5), round(found.product, 5)
    (50, 0.00515, 0.00515)
    """
    if model is None:
        if batch is not None or wrt is not None:
            raise SettingError("explain.depth(): batch= and wrt= belong to a network or a loss; "
                               "without one, standard stacks are measured")
        return depth_study(quick)
    if isinstance(model, Tensor):
        scope = scope_of(user_frame(sys._getframe(1)))
        return factors_report("this loss", layer_factors(model, wrt, scope))
    problem = problem_of(model, batch, loss, "depth")
    with left_as_it_was(problem):
        factors = measured(problem)
        others = other_starts(problem)
    return factors_report(problem.name, factors, others)


def measured(problem: Problem) -> Factors:
    """The factors of the problem's network, now."""
    with keeping_values():
        return layer_factors(problem.loss(), problem.inputs, problem.scope)


def other_starts(problem: Problem, seed: int = 0) -> dict[str, Factors]:
    """The factors of the same network on the same batch, its weights drawn anew.

    Matrices and kernels alone, by fan in and fan out; the rest stays. The weights are left changed.
    """
    found = {}
    for name, draw in INITIALISATIONS.items():
        rng = np.random.default_rng(seed)
        for p in problem.parameters:
            if p.ndim > 1:
                value = p._value
                inputs = int(np.prod(p.shape[1:]))
                outputs = int(p.shape[0] * np.prod(p.shape[2:]))
                value[...] = _drawn(draw, rng, inputs, outputs, value.shape)
                wrote(value, "an initialisation")
        found[name] = measured(problem)
    return found


def _drawn(draw: Any, rng: Any, inputs: int, outputs: int, shape: tuple[int, ...]) -> Any:
    # the rules know matrices; a kernel takes as many of the numbers as it has
    return draw(rng, inputs, outputs).reshape(-1)[:int(np.prod(shape))].reshape(shape)


# ---------------------------------------------------------------- the report of one network


def factors_report(name: str, factors: Factors,
                   others: Mapping[str, Factors] | None = None) -> Report:
    """Table, sentences and charts about one network."""
    parts: list[Any] = [
        ("Read upwards, as the gradient flows: ‖∂L/∂h‖ is its size at the layer's result h, and on "
         "the way through the layer it is multiplied by weights · slopes = factor: what the "
         "weights do, and what the rest (activation, normalisation) does. flat: share of units "
         "with a slope below 0.01. ∂W ÷ W: ‖∂L/∂W‖ ÷ ‖W‖ of the layer's weights."),
        _table(factors), whole(factors), *advice(factors)]
    charts = [size_chart(name, {"now": factors, **(others or {})}), spread_chart(name, factors)]
    drawn = len(factors.layers) >= DRAWN
    sections = [Section(f"The gradient's size through {name}",
                        (*parts, *charts[:drawn]), tuple(charts[drawn:]))]
    if others:
        sections.append(Section("The same network and batch, other first weights", (
            _others_table(factors, others),
            ("Measured, not estimated: weights drawn anew (standard: ±1/√fan-in; Xavier: Glorot & "
             "Bengio 2010; He: He et al. 2015), one forward and one backward pass for each; then "
             "the network got its own weights back."))))
    return Report(f"Depth: the gradient's size through {name}", sections,
                  {"factors": factors, "other_starts": dict(others or {})})


def _table(factors: Factors) -> Table:
    rows = [("layer", "Var h", "flat", "‖∂L/∂h‖", "weights", "slopes", "factor", "∂W ÷ W")]
    layers = list(enumerate(factors.layers, 1))
    cut = len(layers) > MOST_ROWS
    for place, layer in layers:
        if cut and MOST_ROWS // 2 < place <= len(layers) - MOST_ROWS // 2:
            if place == MOST_ROWS // 2 + 1:
                between = layers[MOST_ROWS // 2:-MOST_ROWS // 2]
                together = [one.factor for _, one in between if one.factor is not None]
                rows.append((f"… {len(between)} more", "", "", "", "", "",
                             number(float(np.prod(together))), ""))
            continue
        share = (None if layer.weight_gradient is None or not layer.weight
                 else layer.weight_gradient / layer.weight)
        name = layer.name if len(layer.name) <= LONGEST else layer.name[:LONGEST - 1] + "…"
        rows.append((name, number(layer.variance), percent(layer.flat), number(layer.gradient),
                     number(layer.weights), number(layer.slopes), number(layer.factor),
                     number(share)))
    return Table(tuple(rows), (1, 2, 3, 4, 5, 6, 7))


def whole(factors: Factors) -> str:
    """The product in a sentence."""
    count = sum(layer.factor is not None for layer in factors.layers)
    return (f"From ‖∂L/∂y‖ = {number(factors.top)} at the output, {count} factors with the product "
            f"{number(factors.product)} lead to {number(factors.bottom)} at the first layer; "
            f"measured there ÷ measured at the output: {number(factors.total)}. On average a layer "
            f"multiplies by {number(factors.per_layer)}.")


def advice(factors: Factors) -> list[str]:
    """What the numbers mean and what would cure it."""
    total, each = factors.total, factors.per_layer
    if np.isnan(total) or not np.isfinite(total):
        return [("The gradient is not finite. Look for the first layer whose numbers are not, and "
                 "train with a smaller learning rate, clipping or a normalisation.")]
    if total == 0:
        dead = [layer.name for layer in factors.layers if layer.gradient == 0]
        where = f" It is 0 from layer {dead[-1]} downwards." if dead else ""
        return [(f"No gradient reaches the first layer.{where} Either every unit there is on the "
                 "flat side of its activation, or a function without slope (round, argmax, a "
                 "comparison) is on the way.")]
    low, high = STEADY
    slopes = [layer.slopes for layer in factors.layers if layer.slopes is not None]
    weights = [layer.weights for layer in factors.layers if layer.weights is not None]
    of_weights, of_slopes = (float(np.median(f)) if f else 1.0 for f in (weights, slopes))
    blame = (f"the typical layer multiplies by weights · slopes = {number(of_weights)} · "
             f"{number(of_slopes)}")
    if total < VANISHING and each < low:
        return [(f"It vanishes: the first layer gets {number(total)} of the gradient's size; "
                 f"{blame}. Cures: weights drawn for the activation (He for ReLU), an activation "
                 "with slope 1, a residual path around each layer, a normalisation in each layer.")]
    if total > EXPLODING and each > high:
        return [(f"It explodes: the first layer gets {number(total)} times the gradient's size. "
                 "Cures: smaller first weights (Xavier, He), a normalisation in each layer, "
                 "clipping (nn.utils.clip_grad_norm_).")]
    return ["The gradient keeps its size: nothing to cure."
            if low <= each <= high else
            "The gradient's size changes from layer to layer, but over these few it stays usable."]


def _others_table(factors: Factors, others: Mapping[str, Factors]) -> Table:
    rows = [("first weights", "per layer", "first ÷ last", "Var h, first", "Var h, last")]
    for name, one in {"as they are": factors, **others}.items():
        rows.append((name, number(one.per_layer), number(one.total),
                     number(one.layers[0].variance), number(one.layers[-1].variance)))
    return Table(tuple(rows), (1, 2, 3, 4))


def size_chart(name: str, found: Mapping[str, Factors]) -> Chart:
    """‖∂L/∂h‖ by layer, relative to the output's, one curve for each network."""
    curves = tuple(
        Curve(key, tuple(range(1, len(one.layers) + 1)),
              tuple(layer.gradient / one.top if one.top else None for layer in one.layers))
        for key, one in found.items())
    return Chart(f"gradient by layer, {name}", "layer", "‖∂L/∂h‖ ÷ ‖∂L/∂y‖", curves, log_y=True)


def spread_chart(name: str, factors: Factors) -> Chart:
    """Variance of activations and mean square of gradients by layer."""
    places = tuple(range(1, len(factors.layers) + 1))
    return Chart(f"variance by layer, {name}", "layer", "variance", (
        Curve("activations", places, tuple(layer.variance for layer in factors.layers)),
        Curve("gradients", places, tuple(layer.gradient_variance for layer in factors.layers)),
    ), log_y=True)
