"""Rules about what goes in, and about the mode of the layers: CR7xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.core.types import type_of
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import Run
from chainrule.doctor.rule import rule

from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION


@rule("CR701", "training in evaluation mode", after=5, example=CLASSES.replace(
    "nn.ReLU()", "nn.ReLU(), nn.Dropout(0.3)") + "model.eval()\n" + OPTIMIZER + ENTROPY + LOOP,
      cured=CLASSES.replace("nn.ReLU()", "nn.ReLU(), nn.Dropout(0.3)") + OPTIMIZER + ENTROPY + LOOP)
def evaluating(run: Run) -> Iterator[Finding]:
    """The whole model is in eval mode while it is trained: dropout does nothing and batch norm uses
    statistics that never change.

    Only if every dropout and batch norm layer of the model is; freezing some of them is a choice.
    """
    for name, model in run.models:
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
            run.latest.place("backward"), subject=name, evidence={"layers": len(layers)},
            step=run.latest.number)


@rule("CR703", "inputs that are not scaled", after=2, example=REGRESSION.replace(
    "model =", "x = x * cr.tensor([1.0, 3000.0, 1.0]) + cr.tensor([0.0, 5000.0, 0.0])\nmodel =")
    + OPTIMIZER.replace("0.05", "1e-8") + MSE + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def unscaled(run: Run) -> Iterator[Finding]:
    """The columns of the input differ in size by more than ×100, or are far from mean 0 and
    deviation 1 (beyond 30).

    The slopes of the loss then differ between columns by the square of that, and no learning rate
    suits all (LeCun et al. 1998, "Efficient BackProp"). Looked at where a constant array meets a
    weight for the first time; whole numbers and 0/1 columns are left out.
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
        sizes = np.sqrt(np.mean(flat * flat, axis=0))
        moving = flat.std(axis=0) > 0
        sizes = sizes[moving]
        if sizes.size == 0:
            return
        spread = float(sizes.max() / max(sizes.min(), 1e-12)) if sizes.size < 200 else 1.0
        if not (spread > 100 or sizes.max() > 30):
            return
        yield Finding(
            "CR703", "warning",
            f"the input {type_of(x)} has columns of size {sizes.min():.2g} to {sizes.max():.2g}.",
            "The loss is steep along the large columns and flat along the small ones: no learning "
            "rate suits both.", "x = (x - x.mean(0)) / x.std(0)", node.origin,
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

    Then the same units are left out for ever, which is a smaller network without dropout.
    """
    seen = [s.drawn for s in run.sampled(3)]
    if len(seen) < 3 or not seen[-1] or any(d != seen[-1] for d in seen):
        return
    yield Finding(
        "CR705", "error", "dropout leaves out the same units at every step.",
        "The seed is set again and again, so that its masks never change.",
        "cr.manual_seed(0)      # once, before the loop", run.latest.place("backward"),
        subject="dropout", step=run.latest.number)

