"""From the name that a user gives to checked examples."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from .array_file import examples_from_arrays, read_idx, read_npz
from .csv_file import examples_from_csv, inputs_for_model, read_cells
from .table import Array, Column, DataFileError, Examples, listing

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".data")
KINDS = (
    "digits (built in), a CSV file with a header (.csv, .tsv), NumPy arrays x and y (.npz), or an "
    "IDX pair (train-images-idx3-ubyte.gz, or its folder)"
)


def load_digits() -> tuple[Array, Array]:
    """The 1,797 handwritten digits of the UCI repository: images and labels.

    Returns uint8 arrays of shape (1797, 8, 8), with 0 for white to 16 for black, and (1797,).
    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998, CC BY 4.0,
    https://doi.org/10.24432/C50P49.

    >>> images, labels = load_digits()
    >>> images.shape, labels[:5].tolist()
    ((1797, 8, 8), [0, 1, 2, 3, 4])
    """
    with (
        resources.files("chainrule.data").joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        return archive["images"], archive["labels"]


def read_examples(
    data: str, target: str | None = None, task: str = "auto", ignore: Sequence[str] = ()
) -> Examples:
    """Read the data set `data` for training.

    `data` is 'digits', or the path of a CSV, `.npz` or IDX file or of a folder with IDX files.
    `target` and `ignore` name columns of a CSV; the default target is the last one. `task` is
    auto, classify or regress. Raises DataFileError with row and column for what is not usable.

    >>> examples = read_examples("digits")
    >>> examples.inputs.shape, examples.target.classes[:3]
    ((1797, 64), ('0', '1', '2'))
    """
    kind, path = _find(data)
    if kind == "csv":
        return examples_from_csv(read_cells(path), target, task, ignore)
    for option, given in (("--target", target), ("--ignore", ignore)):
        if given:
            raise DataFileError(f"{data}: {option} names a column of a CSV file; this has none.")
    if kind == "digits":
        return _digits(task)
    return read_npz(path, task) if kind == "npz" else read_idx(path, task)


def read_for_model(
    data: str, columns: Sequence[Column], target: str, classes: Sequence[str] | None
) -> Examples:
    """Read `data` for a trained model that has these input columns and classes.

    Columns of a CSV are matched by name, those of arrays by position. `classes` is None for a
    regression. The target is read when the file has it.
    """
    kind, path = _find(data)
    task = "regress" if classes is None else "classify"
    if kind == "csv":
        return inputs_for_model(read_cells(path), columns, target, classes)
    if kind == "digits":
        examples = _digits(task, classes)
    elif kind == "npz":
        examples = read_npz(path, task, classes, target_needed=False)
    else:
        examples = read_idx(path, task, classes, target_needed=False)
    if examples.inputs.shape[1] != len(columns):
        raise DataFileError(
            f"{examples.source}: {examples.inputs.shape[1]} inputs in each row; the model was "
            f"trained on {len(columns)} ({listing([column.name for column in columns], 3)})."
        )
    return examples


def _digits(task: str, classes: Sequence[str] | None = None) -> Examples:
    images, labels = load_digits()
    return examples_from_arrays("digits", images, labels, target_name="digit", task=task,
                                known=classes)


def _find(data: str) -> tuple[str, Path]:
    """The kind of a data set and its path; raises DataFileError if it is neither."""
    path = Path(data)
    if data == "digits":
        return "digits", path
    if path.is_dir():
        return "idx", path
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path()
        near = difflib.get_close_matches(
            path.name, ["digits", *(entry.name for entry in folder.iterdir())], 1
        )
        raise DataFileError(
            f"there is no file {data}." + (f" Did you mean {near[0]}?" if near else "")
        )
    name = path.name.lower()
    if name.endswith(CSV_ENDINGS):
        return "csv", path
    if name.endswith(".npz"):
        return "npz", path
    if ".idx" in name or "-idx" in name:
        return "idx", path
    raise DataFileError(f"{path.name}: unknown kind of file. Data can be {KINDS}.")
