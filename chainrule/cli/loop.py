"""The training loop: what happens in each step and epoch, counted.

The counts are what lets a run be shown, stopped and resumed. Random numbers depend on (seed, epoch,
step) alone; a resumed run therefore repeats an uninterrupted one bit by bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule as cr
from chainrule.core.errors import ChainruleError
from chainrule.data import DataLoader

from .preparation import Part
from .step import Stepper, worth_compiling

Array = npt.NDArray[Any]

EXPLODED = 1000.0  # a loss this many times above the first one,
IN_A_ROW = 3  # in this many steps one after the other, does not come back
ROWS_AT_ONCE = 4096  # for evaluation


class DivergedError(ChainruleError, ArithmeticError):
    """The loss became infinite, NaN or a thousand times what it was."""


@dataclass
class Totals:
    """Sums over the steps of the current epoch."""

    steps: int = 0
    rows: int = 0
    loss: float = 0.0
    right: int = 0
    norms: dict[str, float] = field(default_factory=dict)


@dataclass
class Progress:
    """How far a run is: complete epochs, steps of the current one, and what was measured.

    `history` has a dict for each complete epoch, `norms` the mean gradient norm of each
    parameter over the last epoch. `seconds` has the time of each epoch of this session; it is
    not saved, so that equal runs make equal files.
    """

    epoch: int = 0
    totals: Totals = field(default_factory=Totals)
    history: list[dict[str, Any]] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    first_loss: float | None = None
    last_norm: float | None = None  # of all gradients together, one step ago
    exploded: int = 0
    schedule_from: int = 0
    seconds: list[float] = field(default_factory=list)

    def to_state(self) -> dict[str, Any]:
        """Plain numbers, for a file."""
        state = asdict(self)
        del state["seconds"]
        return state

    @staticmethod
    def from_state(state: dict[str, Any]) -> Progress:
        """The progress that `to_state` described."""
        return Progress(**{**state, "totals": Totals(**state["totals"])})


@dataclass(frozen=True)
class Job:
    """What a training run works with. `schedule` may be None, `clip` too."""

    stepper: Stepper
    model: Any
    parameters: dict[str, Any]
    loss_function: Any
    optimizer: Any
    schedule: Any
    loader: DataLoader
    training: Part
    held_out: Part | None
    seed: int
    clip: float | None

    @property
    def classifies(self) -> bool:
        """Whether the target is a class."""
        return self.training.target.dtype.kind == "i"


def train(
    job: Job, progress: Progress, epochs: int, keep_going: Callable[[Progress], bool]
) -> bool:
    """Train until `epochs` are complete; False when `keep_going`, asked after each step, is."""
    while progress.epoch < epochs:
        begun = time.perf_counter()
        if not train_epoch(job, progress, epochs, keep_going):
            return False
        finish_epoch(job, progress)
        progress.seconds.append(time.perf_counter() - begun)
        if progress.epoch < epochs and not keep_going(progress):
            return False
    return True


def train_epoch(
    job: Job, progress: Progress, epochs: int, keep_going: Callable[[Progress], bool]
) -> bool:
    """One pass over the training part, or what is left of it."""
    epoch, totals = progress.epoch + 1, progress.totals
    assert job.loader.generator is not None
    job.loader.generator.manual_seed(seed_for(job.seed, epoch))
    job.model.train()
    for x, y in islice(job.loader, totals.steps, None):
        seed = seed_for(job.seed, epoch, totals.steps + 1)
        compiled = worth_compiling(*batches_like(len(x), job, progress, epochs))
        loss, outputs, lengths = job.stepper(x, y, seed, compiled)
        norms = dict(zip(job.parameters, lengths, strict=True))
        require_sane(job, progress, loss, norms)
        if job.schedule is not None:
            job.schedule.step()

        totals.steps += 1
        totals.rows += len(x)
        totals.loss += loss * len(x)
        if job.classifies:
            totals.right += count_right(outputs, y.numpy())
        for name, norm in norms.items():
            totals.norms[name] = totals.norms.get(name, 0.0) + norm
        if not keep_going(progress):
            return False
    return True


def finish_epoch(job: Job, progress: Progress) -> None:
    """Turn the sums of the epoch into a line of its history and measure the held-out part."""
    totals = progress.totals
    line: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "loss": totals.loss / totals.rows,
        "accuracy": totals.right / totals.rows if job.classifies else None,
        "learning_rate": job.optimizer.param_groups[0]["lr"],
    }
    if job.held_out is not None:
        loss, outputs = evaluate(job.model, job.loss_function, job.held_out)
        line["held_out_loss"] = loss
        if job.classifies:
            right = count_right(outputs, job.held_out.target)
            line["held_out_accuracy"] = right / len(job.held_out)
    progress.history.append(line)
    progress.norms = {name: norm / totals.steps for name, norm in totals.norms.items()}
    progress.epoch += 1
    progress.totals = Totals()


def evaluate(model: Any, loss_function: Any, part: Part) -> tuple[float, Array]:
    """Mean loss over a part, and the outputs (rows, outputs), without dropout or recording."""
    model.eval()
    total = 0.0
    outputs = []
    with cr.no_grad():
        for start in range(0, len(part), ROWS_AT_ONCE):
            x, y = part.x[start : start + ROWS_AT_ONCE], part.y[start : start + ROWS_AT_ONCE]
            output = model(x)
            total += loss_function(output, y).item() * len(x)
            outputs.append(output.numpy())
    return total / len(part), np.concatenate(outputs)


def classes_of(outputs: Array) -> Array:
    """The class number of each row: the largest output, or the sign of a single one."""
    if outputs.shape[1] == 1:
        return np.asarray(outputs[:, 0] > 0, dtype=np.int64)
    return np.asarray(outputs.argmax(axis=1))


def count_right(outputs: Array, target: Array) -> int:
    """How many rows got their class."""
    return int(np.count_nonzero(classes_of(outputs) == target.reshape(-1)))


def seed_for(seed: int, epoch: int, step: int = 0) -> int:
    """One seed for each step of each epoch of each run, below 2**63."""
    return ((seed * 1_000_003 + epoch) * 1_000_033 + step) % 2**63


def batches_like(rows: int, job: Job, progress: Progress, epochs: int) -> tuple[int, int]:
    """How many batches of that many rows came before, and how many the whole run is to have.

    All batches of an epoch have one size, but for a smaller last one.
    """
    size = job.loader.batch_size
    assert size is not None
    if rows < size:
        return progress.epoch, epochs
    full = len(job.training) // size
    return progress.epoch * full + progress.totals.steps, epochs * full


def total_norm(norms: dict[str, float]) -> float:
    """The norm of all gradients together."""
    return math.hypot(*norms.values())


def require_sane(job: Job, progress: Progress, loss: float, norms: dict[str, float]) -> None:
    """Raise DivergedError for a loss or gradient that is not finite, or a loss that exploded."""
    if progress.first_loss is None:
        progress.first_loss = loss
    norm = total_norm(norms)
    high = loss > EXPLODED * max(progress.first_loss, 1e-3)
    progress.exploded = progress.exploded + 1 if high else 0
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and progress.exploded < IN_A_ROW:
        progress.last_norm = norm
        return
    rate = job.optimizer.param_groups[0]["lr"]
    what = f"the loss became {loss:.3g}" if not math.isfinite(loss) else (
        f"the loss rose from {progress.first_loss:.3g} to {loss:.3g}" if finite
        else f"the gradient became {norm} at a loss of {loss:.3g}"
    )
    cures = [f"a smaller rate: --lr {rate / 10:.1g}"]
    if job.clip is None:
        cures.append("clipped gradients: --clip 1")
    before = progress.last_norm
    earlier = "" if before is None else f" ({before:.3g} one step before)"
    raise DivergedError(
        f"training diverged: {what} in epoch {progress.epoch + 1}, step "
        f"{progress.totals.steps + 1} of {len(job.loader)}, at learning rate {rate:.3g} and "
        f"gradient norm {norm:.3g}{earlier}.\nTry {', or '.join(cures)}. No file was written."
    )
