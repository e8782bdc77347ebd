"""`chainrule predict`: a saved network applied to new rows."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chainrule.data import Examples, read_for_model
from chainrule.io import write_atomically

from .model_file import Description, load_model, predictions
from .report import counted, number_fields, percent
from .results import number_score
from .screen import Screen, standard_screen
from .settings import UsageError

MOST_ROWS = 40                 # more are shown by the first and the last ones
FIRST_ROWS, LAST_ROWS = 20, 5
ROWS_AT_ONCE = 4096
Array = npt.NDArray[Any]


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule predict`."""
    parser.add_argument("model", metavar="MODEL", help="a file that `chainrule train` saved")
    parser.add_argument("data", metavar="DATA",
                        help="rows like those of the training: same kinds of file, same columns "
                             "by name; the target may be left out")
    parser.add_argument("--out", metavar="FILE.csv", help="write the predictions to a CSV file")
    parser.add_argument("--force", action="store_true", help="let --out replace a file")


def run(args: argparse.Namespace) -> int:
    """The command. Returns the exit code."""
    screen = standard_screen()
    if args.out:
        require_free(args)
    saved = load_model(Path(args.model))
    description = saved.description
    classes = description.classes or None
    examples = read_for_model(args.data, description.columns, description.target, classes)
    with np.errstate(all="ignore"):
        parts = [
            predictions(saved, examples.inputs[start : start + ROWS_AT_ONCE])
            for start in range(0, len(examples.inputs), ROWS_AT_ONCE)
        ]
    predicted = np.concatenate(parts)
    if args.out:
        write_atomically(args.out, as_csv(description, predicted).encode(), args.force)
        screen.line(f"{counted(len(predicted), 'row')} written to {args.out}")
    else:
        show(screen, description, predicted)
    for note in examples.notes:
        screen.line(screen.style(note, "dim"))
    if examples.target is not None:
        trained_on = examples.fingerprint() == description.fingerprint
        screen.line(summary(examples, predicted)
                    + (", most of them used in training" if trained_on else ""))
    return 0


def require_free(args: argparse.Namespace) -> None:
    """Nothing is replaced without --force, and never the files that are read."""
    path = Path(args.out)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--out {args.out}: this is a folder, or its folder is not there.")
    if path.exists():
        if path.resolve() in {Path(args.data).resolve(), Path(args.model).resolve()}:
            raise UsageError(f"--out {args.out}: this file is read by the same command.")
        if not args.force:
            raise UsageError(f"--out {args.out}: the file exists. Give --force to replace it.")


def header(description: Description) -> list[str]:
    """The names of the columns of the predictions."""
    return ["row", description.target, *(["probability"] if description.classes else [])]


def rows(description: Description, predicted: Array, digits: int) -> Iterator[list[str]]:
    """The predictions as texts; rows are counted from 1, the first after the header."""
    if description.classes:
        chosen = predicted.argmax(axis=1)
        for index, label in enumerate(chosen):
            probability = f"{predicted[index, label]:.{digits}f}"
            yield [str(index + 1), description.classes[label], probability]
        return
    for index, value in enumerate(predicted):
        yield [str(index + 1), f"{value:.6g}"]


def as_csv(description: Description, predicted: Array) -> str:
    """The predictions as CSV, for classes with the probability of each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"probability of {name}" for name in description.classes]
    writer.writerow([*header(description), *names])
    for index, row in enumerate(rows(description, predicted, 6)):
        every = [f"{value:.6f}" for value in predicted[index]] if names else []
        writer.writerow([*row, *every])
    return text.getvalue()


def show(screen: Screen, description: Description, predicted: Array) -> None:
    """A table of the rows: all of them, or the first and the last ones."""
    count = len(predicted)
    first = count if count <= MOST_ROWS else FIRST_ROWS
    last = count if count <= MOST_ROWS else count - LAST_ROWS
    lines = [row for index, row in enumerate(rows(description, predicted, 4))
             if index < first or index >= last]
    widths = [max(map(len, column)) for column in zip(header(description), *lines, strict=True)]
    screen.line(screen.style(aligned(header(description), widths), "bold"))
    for index, line in enumerate(lines):
        if index == first:
            between = f"… {last - first:,} rows between: --out FILE.csv writes all of them"
            screen.line(screen.style(between, "dim"))
        screen.line(aligned(line, widths))


def aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    """One line of the table."""
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def summary(examples: Examples, predicted: Array) -> str:
    """How good the predictions are, when the rows have their target."""
    assert examples.target is not None
    target = examples.target.values
    if not examples.target.classes:
        score = number_score(target, predicted)
        return f"{number_fields(score)} on {counted(score.rows, 'row')}"
    right = int((predicted.argmax(axis=1) == target).sum())
    return f"accuracy {percent(right / len(target))} of {counted(len(target), 'row')}"
