"""What a trained network can do, measured: scores, confusion, silent units."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .loop import Job, Progress, classes_of, evaluate
from .preparation import Part, Scale
from .verdict import Facts, Verdict, examined, judge, silent_units

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Score:
    """How well a part is predicted: accuracy for classes; error and R² for numbers.

    `rmse` is the root of the mean squared error in the target's own unit; `r2` is 1 minus that
    error's share of the target's variance, None when the target does not vary.
    """

    rows: int
    loss: float
    right: int | None = None
    accuracy: float | None = None
    rmse: float | None = None
    r2: float | None = None


@dataclass(frozen=True)
class Results:
    """Everything that the report shows. `confusion[true, predicted]` counts rows."""

    training: Score
    held_out: Score | None
    confusion: Array | None
    norms: dict[str, float]
    silent: dict[str, float]
    verdict: Verdict

    @property
    def shown(self) -> Score:
        """The score that counts: held-out rows if there are any."""
        return self.held_out or self.training


def measure(job: Job, target: Scale | None, classes: int, progress: Progress) -> Results:
    """Evaluate the network as it is now on both parts."""
    training, outputs = _score(job, job.training, target)
    held_out = None
    counted = job.training
    if job.held_out is not None:
        held_out, outputs = _score(job, job.held_out, target)
        counted = job.held_out
    confusion = None
    if classes:
        confusion = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(confusion, (counted.target, classes_of(outputs)), 1)
    silent, units = silent_units(job.model, job.training.x)
    norms = progress.norms
    if not norms and progress.totals.steps:
        norms = {name: norm / progress.totals.steps for name, norm in progress.totals.norms.items()}
    verdict = judge(Facts(
        first_loss=progress.first_loss,
        losses=[line["loss"] for line in progress.history],
        norms=norms,
        silent=silent,
        units=units,
        training_score=_one_number(training),
        held_out_score=None if held_out is None else _one_number(held_out),
        held_out_losses=[line["held_out_loss"] for line in progress.history] if held_out else [],
        findings=examined(job.model, job.loss_function, job.training.x, job.training.y),
    ))
    return Results(training, held_out, confusion, norms, silent, verdict)


def _score(job: Job, part: Part, scale: Scale | None) -> tuple[Score, Array]:
    loss, outputs = evaluate(job.model, job.loss_function, part)
    if scale is None:
        right = int((classes_of(outputs) == part.target).sum())
        return Score(len(part), loss, right=right, accuracy=right / len(part)), outputs
    return number_score(part.target, scale.undo(outputs)[:, 0], loss), outputs


def number_score(target: Array, predicted: Array, loss: float = math.nan) -> Score:
    """The score of predicted numbers."""
    squared = float(np.mean((predicted - target) ** 2))
    variance = float(np.var(target))
    return Score(len(target), loss, rmse=math.sqrt(squared),
                 r2=1 - squared / variance if variance else None)


def _one_number(score: Score) -> float:
    if score.accuracy is not None:
        return score.accuracy
    return score.r2 if score.r2 is not None else 0.0


def as_json(
    results: Results, progress: Progress, extra: dict[str, Any]
) -> dict[str, Any]:
    """All results in plain types, in a fixed order."""
    return {
        **extra,
        "epochs": progress.epoch,
        "history": progress.history,
        "seconds": progress.seconds,
        "training": asdict(results.training),
        "held_out": None if results.held_out is None else asdict(results.held_out),
        "confusion": None if results.confusion is None else results.confusion.tolist(),
        "gradient_norms": results.norms,
        "silent_units": results.silent,
        "verdict": asdict(results.verdict),
    }
