"""Rules about what goes in, and about the mode of the layers: CR7xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.core.node import Origin
from chainrule.core.places import place_of
from chainrule.core.types import type_of
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import Run
from chainrule.doctor.rule import rule
from chainrule.doctor.variables import named

from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION


@rule("CR701", "training in evaluation mode", after=5, example=CLASSES.replace(
    "nn.ReLU()", "nn.ReLU(), nn.Dropout(0.3)") + "model.eval()\n" + OPTIMIZER + ENTROPY + LOOP,
      cured=CLASSES.replace("nn.ReLU()", "nn.ReLU(), nn.Dropout(0.3)") + OPTIMIZER + ENTROPY + LOOP)
def evaluating(run: Run) -> Iterator[Finding]:
    """The whole model is in eval mode while it is trained: dropout does nothing and batch norm uses
    statistics that never change.

    Only if every dropout and batch norm layer of the model is; freezing some of them is a choice.
    """
    graph = run.latest.graph
    for name, model in run.models:
        if graph is None or id(model) not in graph.modules:
            continue
        layers = [m for m in model.modules() if hasattr(m, "running_mean")
                  or (type(m).__name__.startswith("Dropout") and getattr(m, "p", 0) > 0)]
        if not layers or model.training or any(m.training for m in layers):
            continue
        if not any(p.grad is not None for p in model.parameters()):
            continue
        what = sorted({type(m).__name__ for m in layers})
        yield Finding(
            "CR701", "warning",
            f"the model{' ' + name if name else ''} is in eval mode while it is trained "
            f"({', '.join(what)}).",
            "Dropout does nothing, and batch norm neither uses the batch nor updates its "
            "statistics.", "model.train()      # before the training loop, after each evaluation",
            _evaluated(model, run), subject=name, evidence={"layers": len(layers)},
            step=run.latest.number)


def _evaluated(model: Any, run: Run) -> Origin:
    """The line that called eval(), on the model or on what holds it."""
    place = place_of(model, "put into evaluation mode")
    return place if place.file else run.latest.place("backward")


@rule("CR703", "inputs that are not scaled", after=2, example=REGRESSION.replace(
    "model =", "x = x * cr.tensor([1.0, 3000.0, 1.0]) + cr.tensor([0.0, 5000.0, 0.0])\nmodel =")
    + OPTIMIZER.replace("0.05", "1e-8") + MSE + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def unscaled(run: Run) -> Iterator[Finding]:
    """The columns of the input differ in size by more than ×100, or are far from mean 0 and
    deviation 1 (beyond 30).

    The slopes of the loss then differ between columns by the square of that, and no learning rate
    suits all (LeCun et al. 1998, "Efficient BackProp"). Looked at where a constant array meets a
    weight for the first time; whole numbers and 0/1 columns are left out. Zeros do not count for
    the size of a column: one that is nearly always 0, such as a pixel near the edge or a word of a
    vocabulary, is sparse and not small.
    """
    graph = run.latest.graph
    if graph is None:
        return
    for node in graph.order:
        if node.name not in ("linear", "matmul"):
            continue
        x: Any = next((v for v, e in zip(graph.saved[node], node.inputs, strict=False)
                       if e is None and type(v) is np.ndarray and v.ndim == 2
                       and v.dtype.kind == "f" and len(v) >= 8), None)
        if x is None or not np.isfinite(x).all():
            return
        flat = x.reshape(len(x), -1).astype(np.float64)
        sizes = np.sqrt((flat * flat).sum(axis=0) / np.maximum((flat != 0).sum(axis=0), 1))
        moving = flat.std(axis=0) > 0
        sizes = sizes[moving]
        if sizes.size == 0:
            return
        spread = float(sizes.max() / max(sizes.min(), 1e-12)) if sizes.size < 200 else 1.0
        if not (spread > 100 or sizes.max() > 30):
            return
        name, place = named(x)
        name = name or "x"
        yield Finding(
            "CR703", "warning",
            f"the input {name}, {type_of(x)}, has columns of size {sizes.min():.2g} to "
            f"{sizes.max():.2g}.",
            "The loss is steep along the large columns and flat along the small ones: no learning "
            "rate suits both.", f"{name} = ({name} - {name}.mean(0)) / {name}.std(0)",
            place if place.file else node.called_at,
            evidence={"largest": float(sizes.max()), "smallest": float(sizes.min())},
            step=run.latest.number)
        return


@rule("CR705", "the same random numbers at every step", after=4, example=CLASSES.replace(
    "nn.ReLU()", "nn.ReLU(), nn.Dropout(0.3)") + OPTIMIZER + ENTROPY + """
for step in range(12):
    cr.manual_seed(0)
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
""", cured=CLASSES.replace("nn.ReLU()", "nn.ReLU(), nn.Dropout(0.3)") + OPTIMIZER + ENTROPY + LOOP)
def same_seed(run: Run) -> Iterator[Finding]:
    """Dropout draws the same mask at every step: the seed is set inside the loop.

    Then the same units are left out for ever, which is a smaller network without dropout. Where the
    same seed is set in every step, at the same line, and other random numbers are drawn (the noise
    of an autoencoder, say), that is a warning: equal noise may be meant, to compare steps. Seen are
    `cr.manual_seed` and dropout; what NumPy draws is not.
    """
    seeded, steps = run.latest.place("seed"), run.sampled(4)
    seen = [s.drawn for s in steps[-3:]]
    if len(seen) < 3 or not seen[-1] or any(d != seen[-1] for d in seen):
        seeds = [[(e.facts.get("seed"), e.place) for e in s.events if e.what == "seed"]
                 for s in steps]
        if len(steps) == 4 and seeds[0] and all(s == seeds[0] for s in seeds) \
                and run.latest.random:
            yield Finding(
                "CR705", "warning", f"the seed {seeds[0][0][0]:.0f} is set in every step, and then "
                "random numbers are drawn: they are the same each time.",
                "What is random for the sake of variety, noise or a sample, does not vary.",
                "cr.manual_seed(0)      # once, before the loop", seeded, subject="seed",
                step=run.latest.number)
        return
    yield Finding(
        "CR705", "error", "dropout leaves out the same units at every step.",
        "The seed is set again and again, so that its masks never change.",
        "cr.manual_seed(0)      # once, before the loop", seeded if seeded.file else
        run.latest.place("backward"),
        subject="dropout", step=run.latest.number)

