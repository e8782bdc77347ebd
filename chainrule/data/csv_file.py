"""CSV files with a header: numbers stay numbers, texts become categories."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .table import (
    Array,
    Column,
    DataFileError,
    Examples,
    Target,
    encode_classes,
    listing,
    require_class_count,
    target_from_numbers,
)

SEPARATORS = (",", ";", "\t", "|")
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "missing"})
MOST_CATEGORIES = 100

# 1,5   1.234,56   1,234.50   5 %   €3   but not a date or a version: 2020.01.02, 1.2.3
FOREIGN = re.compile(r"[€$£]?\s?[+-]?(\d+|\d{1,3}([., '\u00a0\u202f]\d{3})+)([.,]\d+)?\s?[€$£%]?")


@dataclass(frozen=True)
class Cells:
    """A CSV file as text: `columns[name][row]`; `lines[row]` is the row's line in the file."""

    source: str
    columns: dict[str, list[str]]
    lines: list[int]

    def at(self, row: int, name: str) -> str:
        """Where a cell is, for a message."""
        return f"{self.source}: row {row + 1} (line {self.lines[row]}), column '{name}'"


def read_cells(path: Path) -> Cells:
    """Read and check the shape of a CSV file; nothing is converted yet."""
    source = path.name
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return _parse(source, file)
    except UnicodeDecodeError as error:
        raise DataFileError(
            f"{source}: byte {error.object[error.start]:#04x} at position {error.start} is not "
            "UTF-8 text. Save the file as UTF-8 (spreadsheets call it 'CSV UTF-8')."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataFileError(
            f"{source}: the gzip file is damaged or cut short ({error})."
        ) from error


def _parse(source: str, file: Iterable[str]) -> Cells:
    lines = iter(file)
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise DataFileError(f"{source}: the file is empty. It needs a header and rows.")
    separator = max(SEPARATORS, key=first.count)

    def with_first() -> Iterable[str]:
        yield first
        yield from lines

    reader = csv.reader(with_first(), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        header = [name.strip() for name in next(reader)]
        _check_header(source, header)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataFileError(_ragged(source, len(rows), reader.line_num, cells, header))
            if [cell.strip() for cell in cells] == header:
                raise DataFileError(
                    f"{source}: row {len(rows) + 1} (line {reader.line_num}) repeats the header, "
                    "as files do that were put together. Remove that line."
                )
            rows.append(cells)
            numbers.append(reader.line_num)
    except csv.Error as error:
        hint = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
        raise DataFileError(
            f"{source}: row {len(rows) + 1} (line {reader.line_num}) is not CSV: {hint}."
        ) from error
    if not rows:
        raise DataFileError(f"{source}: the file has a header and no rows.")
    columns = {
        name: [cell.strip() for cell in column]
        for name, column in zip(header, zip(*rows, strict=True), strict=True)
    }
    return Cells(source, columns, numbers)


def _check_header(source: str, header: list[str]) -> None:
    if all(_is_number(name) for name in header):
        raise DataFileError(
            f"{source}: the first line ({', '.join(header[:4])}{', …' if len(header) > 4 else ''}) "
            "holds numbers only. It must be a header with the names of the columns."
        )
    seen: dict[str, int] = {}
    for position, name in enumerate(header, 1):
        if not name:
            raise DataFileError(
                f"{source}: column {position} of {len(header)} has no name in the header. Name "
                "it, or remove it (pandas leaves its index out with to_csv(..., index=False))."
            )
        if name in seen:
            raise DataFileError(
                f"{source}: the header has '{name}' twice, as columns {seen[name]} and {position}. "
                "Columns are found by name, so each needs its own."
            )
        seen[name] = position


def _ragged(source: str, row: int, line: int, cells: list[str], header: list[str]) -> str:
    place = f"{source}: row {row + 1} (line {line}) has {len(cells)} cells"
    if len(cells) < len(header):
        return (
            f"{place}, the header has {len(header)} columns: '{header[len(cells)]}' and what "
            "follows is missing."
        )
    return (
        f"{place}, the header has {len(header)} columns: '{cells[len(header)].strip()}' is one too "
        "many. A text that holds the separator must stand in double quotes."
    )


def examples_from_csv(
    cells: Cells, target: str | None, task: str, ignore: Sequence[str]
) -> Examples:
    """Inputs and target for training; the kind of each column is found from its cells.

    A column is numeric when at least half of its cells are numbers; then a cell that is not a
    number is an error, not a category. Raises DataFileError with row and column.
    """
    require_columns(cells, [*ignore, *([target] if target else [])])
    names = [name for name in cells.columns if name not in ignore]
    target = target or (names[-1] if names else "")
    if target in ignore:
        raise DataFileError(f"{cells.source}: '{target}' cannot be the target and be ignored.")
    columns = tuple(_describe(cells, name) for name in names if name != target)
    if not columns:
        raise DataFileError(
            f"{cells.source}: '{target}' is the only column left, and it is the target. "
            "At least one other column is needed to predict it from."
        )
    inputs = encode_columns(cells, columns)
    return Examples(cells.source, inputs, columns, _target(cells, target, task, None))


def inputs_for_model(
    cells: Cells, columns: Sequence[Column], target: str, classes: Sequence[str] | None
) -> Examples:
    """Inputs for a trained model: its columns, found by name in any order.

    Columns that the model does not know are left out and named in the notes. The target is
    read if the file has it. `classes` is None for a regression.
    """
    missing = [column.name for column in columns if column.name not in cells.columns]
    known = {column.name for column in columns} | {target}
    extra = [name for name in cells.columns if name not in known]
    if missing:
        raise DataFileError(
            f"{cells.source}: {_count(missing, 'column')} that the model needs "
            f"{'is' if len(missing) == 1 else 'are'} missing: {listing(missing)}."
            + (f" Not known to the model: {listing(extra)}." if extra else "")
        )
    notes = (f"not used: {listing(extra)}",) if extra else ()
    values = cells.columns.get(target)
    has_target = values is not None and any(not is_missing(cell) for cell in values)
    task = "regress" if classes is None else "classify"
    found = _target(cells, target, task, classes) if has_target else None
    return Examples(cells.source, encode_columns(cells, columns), tuple(columns), found,
                    notes=notes)


def require_columns(cells: Cells, names: Iterable[str]) -> None:
    """Raise DataFileError for a name that is not a column of the file."""
    for name in names:
        if name not in cells.columns:
            raise DataFileError(
                f"{cells.source}: there is no column '{name}'. The file has "
                f"{listing(list(cells.columns), 20)}."
            )


def _describe(cells: Cells, name: str) -> Column:
    texts = cells.columns[name]
    if _mostly_numbers(texts):
        return Column(name)
    _require_no_foreign_numbers(cells, name)
    present = Counter(text for text in texts if not is_missing(text))
    if len(present) > MOST_CATEGORIES or (len(present) > 20 and len(present) > len(texts) // 2):
        raise DataFileError(
            f"{cells.source}: column '{name}' holds {len(present):,} different texts in "
            f"{len(texts):,} rows. That is a name or a free text, not a category: leave it out "
            f"with --ignore {name}."
        )
    return Column(name, tuple(sorted(present)))


def _mostly_numbers(texts: Sequence[str]) -> bool:
    present = [text for text in texts if not is_missing(text)]
    numbers = sum(map(_is_number, present))
    return 2 * numbers >= len(present)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python reads 1_000; no other program does


def _foreign(text: str) -> str:
    """Why a text is only almost a number, and how to write it; '' where it is none."""
    if _is_number(text) or not FOREIGN.fullmatch(text):
        return ""
    bare = re.sub(r"[€$£%\s']", "", text)
    decimal = max(bare.rfind(","), bare.rfind("."))
    grouped = re.fullmatch(r"[+-]?\d{1,3}([.,])\d{3}(\1\d{3})*", bare)
    whole, fraction = (bare, "") if decimal < 0 or grouped else (bare[:decimal], bare[decimal + 1:])
    plain = re.sub(r"[.,]", "", whole) + (f".{fraction}" if fraction else "")
    if grouped and bare.count(grouped[1]) == 1:
        plain += f" or {bare.replace(',', '.')}"
    kind = "a unit" if re.search(r"[€$£%]", text) else (
        "a decimal comma" if re.fullmatch(r"[+-]?\d+,\d+", bare) and not grouped
        else "thousands signs")
    return (f"'{text}' looks like a number with {kind}: write {plain}, with a decimal point and "
            "without thousands signs or units")


def _require_no_foreign_numbers(cells: Cells, name: str) -> None:
    """Numbers written for people must not become categories in silence."""
    told = [_is_number(text) or is_missing(text) or _foreign(text)
            for text in cells.columns[name]]
    if all(told):
        row = next(i for i, one in enumerate(told) if isinstance(one, str))
        raise DataFileError(f"{cells.at(row, name)}: {told[row]}.")


def is_missing(text: str) -> bool:
    """Whether a cell says that its value is not known."""
    return text.lower() in MISSING


def encode_columns(cells: Cells, columns: Sequence[Column]) -> Array:
    """The inputs (rows, inputs) in float64: a number each, or one 0/1 input per category."""
    parts: list[Array] = []
    for column in columns:
        texts = cells.columns[column.name]
        if not column.categories:
            parts.append(_numbers(cells, column.name)[:, np.newaxis])
            continue
        number = {text: index for index, text in enumerate(column.categories)}
        block = np.zeros((len(texts), len(number)))
        for row, text in enumerate(texts):
            if text not in number:
                _require_present(cells, row, column.name, text)
                raise DataFileError(
                    f"{cells.at(row, column.name)}: '{text}' did not occur in training. The model "
                    f"knows {listing(column.categories)}."
                )
            block[row, number[text]] = 1.0
        parts.append(block)
    return np.concatenate(parts, axis=1)


def _numbers(cells: Cells, name: str, target: bool = False) -> Array:
    texts = cells.columns[name]
    values = np.empty(len(texts))
    for row, text in enumerate(texts):
        if not _is_number(text):
            _require_present(cells, row, name, text, target)
            why = _foreign(text) or f"'{text}' is not a number"
            raise DataFileError(f"{cells.at(row, name)}: {why}.")
        values[row] = float(text)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        _require_present(cells, row, name, texts[row], target)
        raise DataFileError(
            f"{cells.at(row, name)}: '{texts[row]}' is not a finite number. One such cell would "
            "turn every weight into NaN: correct or remove the row."
        )
    return values


def _require_present(
    cells: Cells, row: int, name: str, text: str, target: bool = False
) -> None:
    if is_missing(text):
        missing = sum(map(is_missing, cells.columns[name]))
        cell = f"the cell says '{text}'" if text else "the cell is empty"
        share = f"{missing} of {len(cells.lines):,} cells in this column"
        advice = "Fill it in, or remove the row: what is to be predicted must be known." \
            if target else ("Fill it in, remove the row, or leave the column out with --ignore "
                            f"{name}.")
        raise DataFileError(f"{cells.at(row, name)}: {cell}, a missing value ({share}). {advice}")


def _target(cells: Cells, name: str, task: str, classes: Sequence[str] | None) -> Target:
    texts = cells.columns[name]
    if classes is None and task != "classify" and not _mostly_numbers(texts):
        _require_no_foreign_numbers(cells, name)
    if task == "regress" or _mostly_numbers(texts):
        if task == "regress" and not _mostly_numbers(texts):
            raise DataFileError(
                f"{cells.source}: the target '{name}' holds texts such as '{texts[0]}', so it "
                "cannot be predicted as a number. Use --task classify, or choose another --target."
            )
        if classes is None or all(map(_is_number, classes)):
            return target_from_numbers(cells.source, name, _numbers(cells, name, True), task,
                                       classes)
    for row, text in enumerate(texts):
        _require_present(cells, row, name, text, True)
    if classes is None:
        present = sorted(set(texts))
        require_class_count(cells.source, name, len(present), len(texts))
        return encode_classes(cells.source, name, texts, present)
    return encode_classes(cells.source, name, texts, classes)


def _count(names: Sequence[str], word: str) -> str:
    return f"{len(names)} {word}" + ("s" if len(names) != 1 else "")
