"""`save` and `load`: nested state in one safetensors file, never pickle."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chainrule.core.errors import ChainruleError, SettingError
from chainrule.device import require_cpu
from chainrule.functions.creation import from_numpy
from chainrule.tensor import Tensor

from .atomic import write_atomically

TREE = "chainrule.tree"  # the metadata entry that says how tensors and numbers are nested

# How safetensors calls the dtypes that chainrule has.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1",
          "BOOL": "|b1"}


class FileFormatError(ChainruleError, ValueError):
    """A file that is not what it should be: another format, cut short, or inconsistent."""


def save(
    state: Any,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    replace: bool = True,
) -> None:
    """Store tensors, and the dicts, lists, tuples, numbers and texts around them, in a file.

    A flat dict of tensors, such as `model.state_dict()`, becomes a plain safetensors file that
    other programs read. Deeper state is flattened: `{"model": {"0.weight": w}}` stores
    `model.0.weight`, and its structure as JSON in the file's metadata, so that `load` returns
    it unchanged. Tensors are stored without their graph. The file is written in one step: a
    process that is killed leaves the old file or the new one. With `replace=False` an existing
    file raises FileExistsError.

    Raises TypeError for a value that is neither of these, ValueError for two tensors that would
    get the same name.

    >>> import chainrule as cr, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
    >>> cr.save({"step": 3, "model": {"w": cr.tensor([1.0, 2.0])}}, path)
    >>> cr.load(path)
    {'step': 3, 'model': {'w': tensor([1., 2.])}}
    """
    if not isinstance(state, Mapping | list | tuple):
        hint = (
            "save its numbers: cr.save(model.state_dict(), path)"
            if hasattr(state, "state_dict")
            else 'save a dict: cr.save({"name": value}, path)'
        )
        if isinstance(state, str | os.PathLike):
            raise TypeError(f"cr.save: arguments swapped: cr.save(obj, path), and got the path "
                            f"{os.fspath(state)!r} first.")
        raise TypeError(
            f"cr.save stores tensors and numbers, not code, and got {type(state).__name__}. "
            f"Instead {hint}."
        )
    tensors: dict[str, npt.NDArray[Any]] = {}
    tree = _flatten(state, (), tensors)
    if "__metadata__" in tensors:
        raise SettingError("save: a tensor cannot be named '__metadata__': safetensors files keep "
                           "their description under that name. Choose another.")
    notes: dict[Any, Any] = dict(metadata or {})
    for key, value in notes.items():
        if not isinstance(key, str) or not isinstance(value, str) or key == TREE:
            raise TypeError(
                f"cr.save: metadata maps texts to texts (and {TREE!r} is taken), got "
                f"{key!r}: {value!r}. Use json.dumps for anything else."
            )
    if not _is_flat(state):
        notes[TREE] = json.dumps(tree, separators=(",", ":"))
    content = _safetensors().numpy.save(tensors, notes or None)
    write_atomically(path, _with_sorted_metadata(content), replace=replace)


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same file with its metadata in order: the package shuffles it, so equal state differs."""
    header = _header(content)
    if "__metadata__" not in header:
        return content
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    length = struct.unpack("<Q", content[:8])[0]
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _safetensors() -> Any:
    """The package, imported when the first file is written or read."""
    import safetensors.numpy  # noqa: PLC0415

    return safetensors


def _is_flat(state: Any) -> bool:
    return isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor | np.ndarray)
        for key, value in state.items()
    )


def _flatten(
    value: Any, where: tuple[Any, ...], tensors: dict[str, npt.NDArray[Any]]
) -> dict[str, Any]:
    """Describe `value` in JSON's types; its tensors go into `tensors` under dotted names."""
    name = ".".join(map(str, where))
    if isinstance(value, Tensor | np.ndarray):
        if name in tensors:
            raise ValueError(
                f"cr.save: two tensors would both be stored as {name!r}, because a key with dots "
                "reads like nested keys. Rename one of them."
            )
        tensors[name] = _plain_array(value, name)
        return {"tensor": name}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise TypeError(
                    f"cr.save: keys are texts or whole numbers, got {key!r} in {name or 'state'}."
                )
        return {"dict": [[key, _flatten(value[key], (*where, key), tensors)] for key in value]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(one, (*where, at), tensors) for at, one in enumerate(value)]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(
        f"cr.save: {name or 'state'} is a {type(value).__name__}. Tensors, arrays, dicts, lists, "
        "tuples, numbers, texts and None can be stored; code and other objects cannot."
    )


def _plain_array(value: Tensor | npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    array = value if isinstance(value, np.ndarray) else value.detach().numpy()
    little = array.dtype.newbyteorder("<")
    if little.str not in DTYPES.values():
        raise TypeError(
            f"cr.save: {name!r} has dtype {array.dtype}. chainrule's dtypes can be stored: "
            "float64, float32, float16, int64, int32, uint8 and bool."
        )
    return np.asarray(array, dtype=little, order="C")


def load(path: str | os.PathLike[str], map_location: Any = None, *,
         weights_only: bool = True) -> Any:
    """Read what `save` wrote, or any safetensors file (then a dict from name to tensor).

    Tensors come back with `requires_grad=False`. Raises FileNotFoundError, or FileFormatError
    that says what is wrong with the file: a pickle, cut short, inconsistent. Nothing in a file
    can make `load` run code, so `weights_only=False` is refused. `map_location` may name the
    CPU, which is where everything goes.
    """
    if not weights_only:
        raise SettingError("cr.load(weights_only=False): chainrule never unpickles, since a pickle "
                           "can run any code. Leave it out; files of cr.save need no pickle.")
    require_cpu(map_location)
    tensors, metadata = _read(Path(path))
    if TREE not in metadata:
        return tensors
    try:
        return _unflatten(json.loads(metadata[TREE]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path}: its entry {TREE!r} does not fit its tensors ({error!r})."
        ) from error


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that were stored beside the tensors with `save(..., metadata=...)`."""
    _, metadata = _read(Path(path))
    return {key: value for key, value in metadata.items() if key != TREE}


def _unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unflatten(one, tensors) for key, one in value}
    if kind == "list":
        return [_unflatten(one, tensors) for one in value]
    if kind == "tuple":
        return tuple(_unflatten(one, tensors) for one in value)
    if kind == "value":
        return value
    raise ValueError(f"unknown kind {kind!r}")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}.") from None
    except IsADirectoryError:
        raise FileFormatError(f"{path} is a folder, not a safetensors file.") from None
    foreign = _other_format(content)
    if foreign:
        raise FileFormatError(f"{path}: {foreign}")
    package = _safetensors()
    try:
        entries = package.deserialize(content)
    except package.SafetensorError as error:
        raise FileFormatError(f"{path}: {_what_is_wrong(content, str(error))}") from error
    tensors = {
        name: from_numpy(_array(path, name, entry)) for name, entry in sorted(entries, key=_name)
    }
    return tensors, _header(content).get("__metadata__", {})


def _name(entry: tuple[str, Any]) -> str:
    return entry[0]


def _header(content: bytes) -> dict[str, Any]:
    """The JSON at the start of the file; the first eight bytes are its length."""
    header: dict[str, Any] = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    return header


def _array(path: Path, name: str, entry: Any) -> npt.NDArray[Any]:
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if kind == "BF16":  # the upper half of a float32
        upper = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    if kind not in DTYPES:
        raise FileFormatError(
            f"{path}: {name!r} has dtype {kind}. chainrule reads {', '.join(DTYPES)} and BF16."
        )
    stored = np.frombuffer(entry["data"], DTYPES[kind]).reshape(shape)
    return stored.astype(stored.dtype.newbyteorder("="))


def _what_is_wrong(content: bytes, told: str) -> str:
    """The package's verdict in words that say what to do."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if content[8:9] != b"{":
        return (
            f"not a safetensors file ({len(content):,} bytes, beginning with "
            f"{content[:8].hex(' ')})."
        )
    needed = 8 + length
    if needed <= len(content):
        try:
            entries = _header(content)
        except ValueError:
            return f"the header is not JSON, so the file is damaged ({told})."
        places = [one["data_offsets"][1] for name, one in entries.items()
                  if name != "__metadata__" and "data_offsets" in one]
        needed += max(places, default=0)
    if needed > len(content):
        return (
            f"the file is cut short: {needed:,} bytes are announced, {len(content):,} are there. "
            "Copy or fetch it again."
        )
    return f"the shapes in the header do not fit the bytes, so the file is damaged ({told})."


def _other_format(content: bytes) -> str | None:
    """What a file is that is often taken for a model file."""
    if content.startswith(b"PK\x03\x04") and b".pkl" in content[:4096]:
        return (
            "this is a pickle (a PyTorch file). Loading a pickle can run any code, so chainrule "
            "does not. Convert it where you trust it: "
            "safetensors.torch.save_file(torch.load(path), 'model.safetensors')."
        )
    if content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return (
            "this is a pickle. Loading a pickle can run any code, so chainrule does not. Convert "
            "it where you trust it, for example with safetensors.torch.save_file."
        )
    if content.startswith(b"PK\x03\x04"):
        return "this is a zip archive (perhaps .npz), not a safetensors file."
    if content.startswith(b"\x93NUMPY"):
        return "this is a NumPy array (.npy), not a safetensors file: use np.load."
    if content.startswith(b"\x89HDF"):
        return "this is an HDF5 file (Keras stores models so), not a safetensors file."
    return "the file is empty." if not content else None
