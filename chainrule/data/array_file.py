"""Files of arrays: `.npz` archives and IDX pairs (MNIST and its family)."""

from __future__ import annotations

import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
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

# Accepted names of the arrays in an .npz: (inputs, target), then the file's own test part.
NPZ_PAIRS = (("x", "y"), ("x_train", "y_train"), ("data", "target"), ("inputs", "targets"),
             ("features", "target"), ("images", "labels"), ("train_images", "train_labels"))
NPZ_TEST_PAIRS = (("x_test", "y_test"), ("x_val", "y_val"), ("test_images", "test_labels"))

# Third byte of an IDX file: the type of its numbers, which are stored high byte first.
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def examples_from_arrays(
    source: str,
    inputs: Array,
    target: Array | None,
    *,
    input_name: str = "x",
    target_name: str = "y",
    task: str = "auto",
    known: Sequence[str] | None = None,
    same_unit: bool | None = None,
) -> Examples:
    """Check arrays of inputs (rows, ...) and targets (rows,) and describe them.

    Inputs with more than one axis per row are flattened and called pixels. `known` are the
    classes of a trained model. Raises DataFileError with the position of a number at fault.
    """
    if inputs.dtype.kind not in "buif":
        raise DataFileError(
            f"{source}: '{input_name}' holds {inputs.dtype}, not numbers. Convert it first, for "
            "example texts to 0/1 columns."
        )
    if inputs.ndim < 2:
        raise DataFileError(
            f"{source}: '{input_name}' has shape {inputs.shape}. It needs one row per example: "
            f"shape (rows, columns){_reshape_hint(inputs)}."
        )
    if not len(inputs) or not inputs[0].size:
        raise DataFileError(f"{source}: '{input_name}' is empty, shape {inputs.shape}.")
    _require_finite(source, input_name, inputs)
    sizes = inputs.shape[1:]
    if len(sizes) == 1:
        names = [f"{input_name}{index}" for index in range(sizes[0])]
    else:
        pattern = "pixel" + "_{}" * len(sizes)
        names = [pattern.format(*index) for index in np.ndindex(*sizes)]
    found = None
    if target is not None:
        found = _target(source, target_name, target, len(inputs), task, known)
    return Examples(
        source, inputs.reshape(len(inputs), -1), tuple(map(Column, names)), found,
        same_unit=len(sizes) > 1 if same_unit is None else same_unit,
    )


def _reshape_hint(inputs: Array) -> str:
    return f", so perhaps reshape(-1, 1) for ({inputs.size}, 1)" if inputs.ndim == 1 else ""


def _require_finite(source: str, name: str, values: Array) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = ~np.isfinite(values)
    place = [int(index) for index in np.argwhere(bad)[0]]
    raise DataFileError(
        f"{source}: row {place[0] + 1}: {name}{place} is {values[tuple(place)]} "
        f"({int(bad.sum()):,} of {values.size:,} numbers are not finite). One of them would turn "
        "every weight into NaN: correct or remove these rows."
    )


def _target(
    source: str, name: str, values: Array, rows: int, task: str, known: Sequence[str] | None
) -> Target:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        one_hot = values.ndim == 2 and values.dtype.kind in "buif" and (
            (values.sum(axis=1) == 1).all() and np.isin(values, (0, 1)).all()
        )
        raise DataFileError(
            f"{source}: '{name}' has shape {values.shape}; one target for each row is needed, "
            f"shape ({rows},)."
            + (f" It looks one-hot: store {name}.argmax(axis=1)." if one_hot else "")
        )
    if len(values) != rows:
        raise DataFileError(
            f"{source}: {rows:,} rows of inputs and {len(values):,} of '{name}'. Row i of both "
            "belongs together, so the counts must be equal."
        )
    if values.dtype.kind in "US":
        texts = np.char.strip(values.astype(str))
        if task == "regress":
            raise DataFileError(
                f"{source}: '{name}' holds texts such as '{texts[0]}', so it cannot be predicted "
                "as a number. Use --task classify."
            )
        classes = known or sorted(set(texts.tolist()))
        require_class_count(source, name, len(classes), rows)
        return encode_classes(source, name, texts, classes)
    if values.dtype.kind not in "buif":
        raise DataFileError(f"{source}: '{name}' holds {values.dtype}, not numbers or texts.")
    _require_finite(source, name, values)
    return target_from_numbers(source, name, values, task, known)


def read_npz(
    path: Path, task: str, classes: Sequence[str] | None = None, target_needed: bool = True
) -> Examples:
    """Read an `.npz` with arrays x and y (or X, y; x_train, y_train, x_test, y_test; …)."""
    source = path.name
    try:
        with path.open("rb") as file:
            start = file.read(6)
            if not zipfile.is_zipfile(file) and start != b"\x93NUMPY":
                raise DataFileError(
                    f"{source}: not a readable .npz archive: it is "
                    + ("cut short or damaged." if start[:2] == b"PK" else
                       f"no zip file, it begins with {start!r}.")
                    + " Save it again: np.savez(path, x=..., y=...)."
                )
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if not hasattr(archive, "files"):
                raise DataFileError(
                    f"{source}: this is a single array (.npy), not an archive. Save inputs and "
                    "target together: np.savez(path, x=..., y=...)."
                )
            arrays = {name: archive[name] for name in archive.files}
    except DataFileError:
        raise
    except Exception as error:  # zipfile and NumPy's reader raise a dozen types on damaged files
        if "Object arrays" not in str(error):
            raise DataFileError(f"{source}: not a readable .npz archive ({error}).") from error
        raise DataFileError(
            f"{source}: it holds pickled Python objects, which can run code when they are loaded, "
            "so they are refused. Store plain arrays: np.savez(path, x=x, y=y) with numeric x."
        ) from error
    by_name = {name.lower(): name for name in arrays}
    pair = _pair(by_name, NPZ_PAIRS)
    if pair is None and not target_needed:
        pair = next(((x, None) for x, _ in NPZ_PAIRS + NPZ_TEST_PAIRS if x in by_name), None)
    if pair is None:
        raise DataFileError(
            f"{source}: no inputs and target found. It holds {listing(list(arrays)) or 'nothing'}"
            "; name the arrays x and y (or x_train, y_train, x_test, y_test)."
        )
    x, y = pair
    values = None if y is None else arrays[by_name[y]]
    found = examples_from_arrays(
        source, arrays[by_name[x]], values, input_name=by_name[x],
        target_name=by_name[y] if y else "y", task=task, known=classes,
    )
    test = _pair(by_name, NPZ_TEST_PAIRS)
    if test is None or found.target is None or not target_needed:
        return found
    return with_held_out(found, examples_from_arrays(
        source, arrays[by_name[test[0]]], arrays[by_name[test[1]]], input_name=by_name[test[0]],
        target_name=by_name[test[1]], task="classify" if found.target.classes else "regress",
        known=found.target.classes or None,
    ))


def _pair(
    names: dict[str, str], pairs: Sequence[tuple[str, str]]
) -> tuple[str, str | None] | None:
    return next(((x, y) for x, y in pairs if x in names and y in names), None)


def with_held_out(training: Examples, test: Examples) -> Examples:
    """The training part, with the test part of the same file as the part to hold out."""
    if training.inputs.shape[1] != test.inputs.shape[1]:
        raise DataFileError(
            f"{training.source}: {training.inputs.shape[1]} inputs in the training part, "
            f"{test.inputs.shape[1]} in the test part."
        )
    assert test.target is not None
    return Examples(
        training.source, training.inputs, training.columns, training.target, training.same_unit,
        held_out=(test.inputs, test.target.values),
    )


def read_idx(
    path: Path, task: str, classes: Sequence[str] | None = None, target_needed: bool = True
) -> Examples:
    """Read an IDX pair, given as either of its files, or a folder with a training pair.

    A test pair in the folder (t10k-… or test-…) becomes the held-out part.
    """
    if not path.is_dir():
        return _idx_pair(path, task, classes, target_needed)
    images = sorted(
        file for file in path.iterdir() if re.search(r"images.idx\d", file.name)
    )
    if not images:
        raise DataFileError(
            f"{path.resolve()}: no IDX files in this folder. Expected are names such as "
            "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz."
        )
    test = [file for file in images if re.search(r"t10k|test", file.name)]
    training = [file for file in images if file not in test] or test
    if len(training) > 1 or len(test) > 1:
        names = listing([file.name for file in images])
        raise DataFileError(
            f"{path.resolve()}: several pairs in this folder ({names}). Name one file."
        )
    found = _idx_pair(training[0], task, classes, target_needed)
    if not test or test == training or found.target is None or not target_needed:
        return found
    return with_held_out(found, _idx_pair(test[0], task, found.target.classes or None, True))


def _idx_pair(
    path: Path, task: str, classes: Sequence[str] | None, target_needed: bool
) -> Examples:
    if re.search(r"labels.idx1", path.name):
        labels = path
        images = path.with_name(re.sub(r"labels(.)idx1", r"images\1idx3", path.name))
    elif re.search(r"images.idx\d", path.name):
        images = path
        labels = path.with_name(re.sub(r"images(.)idx\d", r"labels\1idx1", path.name))
    else:
        raise DataFileError(
            f"{path.name}: IDX files come in pairs that are found by name, such as "
            "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz."
        )
    if not images.exists() or (target_needed and not labels.exists()):
        absent = labels if images.exists() else images
        raise DataFileError(f"{path.name}: the other file of the pair, {absent.name}, is missing.")
    values = read_idx_file(labels) if labels.exists() else None
    inputs = read_idx_file(images)
    if values is not None and len(values) != len(inputs):
        raise DataFileError(
            f"{images.name} holds {len(inputs):,} images and {labels.name} {len(values):,} labels. "
            "They do not belong together."
        )
    return examples_from_arrays(images.name, inputs, values, input_name="images",
                                target_name="label", task=task, known=classes)


def read_idx_file(path: Path) -> Array:
    """One IDX file, packed with gzip or not, as an array in its own shape."""
    source = path.name
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataFileError(
                f"{source}: the gzip file is damaged or cut short ({error}). Fetch it again."
            ) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise DataFileError(
            f"{source}: not an IDX file. It begins with the bytes "
            f"{content[:4].hex(' ') or 'none'}; images begin with 00 00 08 03, labels with "
            "00 00 08 01."
        )
    dtype, axes = np.dtype(IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if axes == 0 or len(content) < start:
        raise DataFileError(f"{source}: the IDX header is cut short ({len(content)} bytes).")
    shape = struct.unpack(f">{axes}I", content[4:start])
    needed = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) != needed:
        raise DataFileError(
            f"{source}: the header announces shape {shape}, which needs {needed:,} bytes; the file "
            f"has {len(content):,}. It is damaged or cut short."
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)
