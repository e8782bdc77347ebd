"""From examples to tensors: the split, and the scale that the training part fixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule as cr
from chainrule.data import Examples

from .settings import UsageError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scale:
    """Standardisation: `(x - mean) / std`, in float64."""

    mean: Array
    std: Array

    def apply(self, values: Array) -> Array:
        """`values` (rows, columns) standardised, as float32."""
        return ((values - self.mean) / self.std).astype(np.float32)

    def undo(self, values: Array) -> Array:
        """Standardised `values` in their own unit, in float64."""
        return values.astype(np.float64) * self.std + self.mean

    @staticmethod
    def of(values: Array, same_unit: bool = False) -> Scale:
        """The scale of `values` (rows, columns), one column at a time.

        Inputs in the same unit (pixels) share one deviation, so that a pixel that is almost
        always empty is not blown up. A column that never changes is only shifted.
        """
        mean = values.mean(axis=0, dtype=np.float64)
        std = values.std(axis=0, dtype=np.float64)
        # Rounding leaves a constant column a deviation far below its values.
        std[std <= 1e-9 * np.abs(mean)] = 0.0
        if same_unit and std.any():
            std[:] = std.max()
        return Scale(mean, np.where(std > 0, std, 1.0))


def split_rows(
    labels: Array | None, rows: int, share: float, seed: int
) -> tuple[Array, Array]:
    """Row numbers to train on and to hold out, both in order; the seed fixes the choice.

    With `labels` (class numbers) each class gives its share, to within one row.
    """
    generator = cr.Generator().manual_seed(seed)
    order = cr.randperm(rows, generator=generator).numpy()
    count = round(rows * share)
    if labels is None:
        chosen = order[:count]
    else:
        # Every row is placed by its rank within its class, so a cut takes the same share of each.
        rank = np.empty(rows)
        for label in np.unique(labels):
            members = order[labels[order] == label]
            rank[members] = (np.arange(len(members)) + 0.5) / len(members)
        chosen = order[np.argsort(rank[order], kind="stable")][:count]
    held_out = np.zeros(rows, dtype=bool)
    held_out[chosen] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


@dataclass(frozen=True)
class Part:
    """Rows as the network sees them: standardised `x`, and `y` as its loss wants it.

    `target` keeps class numbers or numbers in their own unit.
    """

    x: Any
    y: Any
    target: Array

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Prepared:
    """The parts of a data set and the scales that were found on the training part alone."""

    training: Part
    held_out: Part | None
    inputs: Scale
    target: Scale | None


def held_out_share(examples: Examples, validation: float | None) -> float:
    """The share of the rows to hold out: none when the file brings its own test part."""
    if validation is not None:
        return validation
    return 0.2 if examples.held_out is None else 0.0


def count_training_rows(examples: Examples, validation: float | None) -> int:
    """How many rows `prepare` will train on."""
    rows = len(examples.inputs)
    return rows - round(rows * held_out_share(examples, validation))


def prepare(examples: Examples, loss: str, validation: float | None, seed: int) -> Prepared:
    """Split and standardise. `validation` None means the file's own test part, or a fifth."""
    assert examples.target is not None
    values, classes = examples.target.values, examples.target.classes
    inputs = examples.inputs
    if validation is None and examples.held_out is not None:
        held_inputs, held_values = examples.held_out
    else:
        share = held_out_share(examples, validation)
        kept, held = split_rows(values if classes else None, len(values), share, seed)
        if len(kept) < 2 or (share > 0 and not len(held)):
            raise UsageError(
                f"{examples.source}: {counted_rows(len(values))} too few to train on "
                f"{1 - share:.0%} of them"
                + (f" and hold {share:.0%} out." if share else ".")
                + " More rows are needed, or another --validation."
            )
        held_inputs, held_values = inputs[held], values[held]
        inputs, values = inputs[kept], values[kept]
    input_scale = Scale.of(inputs, examples.same_unit)
    target_scale = None if classes else Scale.of(values[:, np.newaxis])

    def part(x: Array, target: Array) -> Part:
        return Part(cr.from_numpy(input_scale.apply(x)), loss_target(target, target_scale, loss),
                    target)

    return Prepared(
        part(inputs, values),
        part(held_inputs, held_values) if len(held_values) else None,
        input_scale,
        target_scale,
    )


def counted_rows(rows: int) -> str:
    """'1 row is', '2 rows are'."""
    return "1 row is" if rows == 1 else f"{rows:,} rows are"


def loss_target(target: Array, scale: Scale | None, loss: str) -> Any:
    """The target as the loss compares it: class numbers, or a column of float32."""
    if scale is not None:
        return cr.from_numpy(scale.apply(target[:, np.newaxis]))
    if loss == "bce":
        return cr.from_numpy(target[:, np.newaxis].astype(np.float32))
    return cr.from_numpy(target.astype(np.int64))
