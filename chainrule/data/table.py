"""What a data file becomes: rows of numbers, a description of the columns, a target."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chainrule.core.errors import ChainruleError

Array = npt.NDArray[Any]

MOST_CLASSES = 1000  # more different target values than this are not classes
MOST_GUESSED_CLASSES = 20  # whole numbers: `task="auto"` takes at most this many for classes


class DataFileError(ChainruleError, ValueError):
    """A data file that cannot be used as it is; the message says where, why and what to do."""


@dataclass(frozen=True)
class Column:
    """A column of the file: numbers, or texts out of `categories` (then one input for each)."""

    name: str
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many inputs of the network the column becomes."""
        return len(self.categories) or 1


@dataclass(frozen=True)
class Target:
    """What is to be predicted: class numbers (int64) with their names, or numbers (float64)."""

    name: str
    values: Array
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """A data file, read and checked.

    `inputs` has shape (rows, inputs) and any real dtype, `target` is None if the file has none.
    `held_out` is the test part that comes with some files (MNIST's 10,000). `same_unit` says
    that all inputs are measured alike, as pixels are. `notes` are remarks for the user.
    """

    source: str
    inputs: Array
    columns: tuple[Column, ...]
    target: Target | None
    same_unit: bool = False
    held_out: tuple[Array, Array] | None = None
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """A hash of the numbers: two files with the same content have the same."""
        digest = hashlib.sha256(repr((self.inputs.shape, self.columns)).encode())
        digest.update(np.ascontiguousarray(self.inputs).data)
        if self.target is not None:
            digest.update(repr(self.target.classes).encode())
            digest.update(np.ascontiguousarray(self.target.values).data)
        return digest.hexdigest()[:16]


def plain_number(value: float) -> str:
    """3.0 as '3', 3.5 as '3.5': how a class that is a number is written."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def target_from_numbers(
    source: str, name: str, values: Array, task: str, known: Sequence[str] | None = None
) -> Target:
    """Decide whether numbers are classes or quantities and encode them.

    `task` is auto, classify or regress. `known` are the classes of a trained model; a class
    outside of them raises DataFileError with its row.
    """
    numbers = np.asarray(values)
    if task == "auto":
        task = guess_task(numbers)
    if task == "regress":
        return Target(name, numbers.astype(np.float64))
    distinct = np.unique(numbers)
    require_class_count(source, name, len(distinct), len(numbers), numeric=True)
    texts = np.array([plain_number(value) for value in distinct])
    return encode_classes(source, name, texts[np.searchsorted(distinct, numbers)],
                          known or texts.tolist())


def guess_task(numbers: Array) -> str:
    """Whole numbers with few different values are classes, everything else is a quantity."""
    if not np.array_equal(numbers, np.floor(numbers)):
        return "regress"
    distinct = len(np.unique(numbers))
    few = distinct <= MOST_GUESSED_CLASSES and distinct <= max(2, len(numbers) // 5)
    return "classify" if few else "regress"


def require_class_count(
    source: str, name: str, distinct: int, rows: int, numeric: bool = False
) -> None:
    """Raise DataFileError when there are too few or too many different values to be classes."""
    if distinct < 2:
        raise DataFileError(
            f"{source}: the target '{name}' is the same in all {rows:,} rows, so there is "
            "nothing to learn. Choose another target column with --target."
        )
    if distinct > MOST_CLASSES or (distinct > MOST_GUESSED_CLASSES and distinct > rows // 2):
        raise DataFileError(
            f"{source}: the target '{name}' has {distinct:,} different values in {rows:,} rows: "
            "too many for classes. Choose another column with --target"
            + (", or predict the number itself with --task regress." if numeric else ".")
        )


def encode_classes(
    source: str, name: str, texts: Sequence[str] | Array, classes: Sequence[str]
) -> Target:
    """Class names to class numbers; a name outside `classes` raises DataFileError."""
    number = {text: index for index, text in enumerate(classes)}
    values = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        index = number.get(str(text))
        if index is None:
            raise DataFileError(
                f"{source}: row {row + 1}, column '{name}': the class '{text}' is unknown. "
                f"The model was trained on {listing(classes)}."
            )
        values[row] = index
    return Target(name, values, tuple(classes))


def listing(names: Sequence[str], most: int = 8) -> str:
    """'a', 'b', 'c' and 4 more: names in a message, not too many of them."""
    shown = [f"'{name}'" for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
