"""One sentence on the health of a training run, from measured facts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import chainrule as cr
from chainrule import nn
from chainrule.doctor import Finding

BARELY_MOVED = 0.95  # of the first loss: above it nothing was learned
UNEVEN = 1e-3  # first weight's gradient over the last one's: below it the gradient vanished
MANY_SILENT = 0.4  # share of a layer's units that never activate
GAP = 0.1  # training score above held-out score (accuracy, or R²): learned by heart
TURNED = 1.5  # held-out loss over its own minimum: it has been rising since
STILL_FALLING = 0.1  # share of its value that the loss lost over the last fifth of the epochs,
WORTH_A_LOOK = 0.05  # which matters only above this share of the first loss
FEWEST_EPOCHS = 3
EXAMINED = 256  # rows that the doctor looks at, a few milliseconds


@dataclass(frozen=True)
class Facts:
    """What was measured: losses per epoch, gradient norms, silent units, scores.

    `norms` has the mean gradient norm of each parameter in the order of the network; `silent`
    maps a ReLU layer's name to the share of its units that are zero on every training row.
    Scores are accuracies, or R² for numbers; the held-out one is None without a held-out part.
    """

    first_loss: float | None
    losses: Sequence[float]
    norms: Mapping[str, float]
    silent: Mapping[str, float]
    units: int
    training_score: float
    held_out_score: float | None
    held_out_losses: Sequence[float]
    findings: Sequence[Finding] = ()        # of the doctor, on the trained network


@dataclass(frozen=True)
class Verdict:
    """`level` says how it looks, `text` why, and what to try."""

    level: Literal["healthy", "watch", "unwell"]
    text: str


def judge(facts: Facts) -> Verdict:
    """The gravest finding, or that all is well with the numbers that say so."""
    if len(facts.losses) < FEWEST_EPOCHS or facts.first_loss is None:
        return Verdict("watch", f"too early to judge after {len(facts.losses)} complete epochs")
    first, last = facts.first_loss, facts.losses[-1]
    ratio = depth_ratio(facts.norms)
    if last > BARELY_MOVED * first:
        return Verdict(
            "unwell",
            f"not learning: the loss was {first:.3g} at the first step and is {last:.3g} now; "
            "try another learning rate",
        )
    if ratio is not None and ratio < UNEVEN:
        return Verdict(
            "unwell",
            f"vanishing gradients: the first layer gets {ratio:.1g} of the last layer's; try "
            "--activation relu or fewer layers",
        )
    layer = max(facts.silent, key=lambda name: facts.silent[name], default=None)
    if layer is not None and facts.silent[layer] > MANY_SILENT:
        return Verdict(
            "unwell",
            f"silent units: {100 * facts.silent[layer]:.0f} % of layer {layer} is zero on every "
            "training row; try a smaller --lr or --activation leaky_relu",
        )
    grave = next((f for f in facts.findings if f.severity == "error"), None)
    if grave is not None:
        return Verdict(
            "unwell",
            f"{grave.rule}: {grave.what} chainrule doctor --rule {grave.rule} explains it",
        )
    if facts.held_out_score is not None and facts.training_score - facts.held_out_score > GAP:
        return Verdict(
            "watch",
            f"learned by heart: {facts.training_score:.3f} on the training part, "
            f"{facts.held_out_score:.3f} on held-out rows; try --dropout 0.3, --weight-decay or "
            "more rows",
        )
    seen = facts.held_out_losses
    if seen and seen[-1] > TURNED * min(seen):
        best = seen.index(min(seen)) + 1
        return Verdict(
            "watch",
            f"past its best: the held-out loss was {min(seen):.3g} in epoch {best} and is "
            f"{seen[-1]:.3g} now; try --epochs {best}, --dropout or --weight-decay",
        )
    which = "held-out loss" if seen else "loss"
    fall = recent_fall(seen or facts.losses)
    if fall > STILL_FALLING and (seen or facts.losses)[-1] > WORTH_A_LOOK * first:
        return Verdict(
            "watch",
            f"not finished: the {which} still fell by {100 * fall:.0f} % over the last fifth of "
            "the epochs; try more --epochs",
        )
    return Verdict("healthy", f"loss {first:.3g} → {last:.3g}" + _evidence(facts, ratio))


def _evidence(facts: Facts, ratio: float | None) -> str:
    text = ""
    if ratio is not None:
        text += f", gradient of the first layer {ratio:.2g} × the last one's"
    if facts.silent:
        count = round(sum(facts.silent.values()) / len(facts.silent) * facts.units)
        text += f", {count or 'no'} silent {'unit' if count == 1 else 'units'}"
    if facts.held_out_score is not None:
        gap = facts.training_score - facts.held_out_score
        text += f", {gap:.3f} better on training rows" if gap > 0 else ", no gap to held-out rows"
    return text


def depth_ratio(norms: Mapping[str, float]) -> float | None:
    """First weight's gradient norm over the last one's; None without two layers."""
    weights = [norm for name, norm in norms.items() if name.endswith("weight")]
    if len(weights) < 2 or weights[-1] == 0:
        return None
    return weights[0] / weights[-1]


def recent_fall(losses: Sequence[float]) -> float:
    """How much of its value the loss lost over the last fifth of the epochs."""
    before = losses[-1 - max(1, len(losses) // 5)]
    return (before - losses[-1]) / before if before > 0 else 0.0


def silent_units(model: Any, x: Any, rows_at_once: int = 4096) -> tuple[dict[str, float], int]:
    """The share of each ReLU layer's units that stay zero on all rows, and the number of units."""
    model.eval()
    ever: dict[str, Any] = {}
    with cr.no_grad():
        for start in range(0, len(x), rows_at_once):
            values = x[start : start + rows_at_once]
            for name, layer in model.named_children():
                values = layer(values)
                if isinstance(layer, nn.ReLU):
                    active = (values.numpy() > 0).any(axis=0)
                    ever[name] = ever.get(name, False) | active
    return (
        {name: 1.0 - float(active.mean()) for name, active in ever.items()},
        sum(active.size for active in ever.values()),
    )


def examined(model: Any, loss_function: Any, x: Any, y: Any) -> Sequence[Finding]:
    """What the doctor's rules say about the network on a few rows; nothing is changed."""
    batch = x[:EXAMINED], y[:EXAMINED]
    return cr.doctor.check(model, *batch, loss=loss_function, steps=2).findings
