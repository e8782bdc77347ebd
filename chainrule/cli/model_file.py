"""A trained model in one safetensors file: weights, its own description, and how to go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from chainrule.data import Column
from chainrule.io import FileFormatError, load, load_metadata, save

from .loop import Progress
from .network import build_network
from .preparation import Scale
from .settings import Settings

ENTRY = "chainrule.model"  # the description's name in the file's metadata
VERSION = 1


@dataclass(frozen=True)
class Description:
    """What is needed to build the network, feed it and read its outputs."""

    task: str
    target: str
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    layers: tuple[int, ...]
    activation: str
    dropout: float
    loss: str
    source: str
    rows: int
    fingerprint: str

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for a row."""
        return len(self.classes) if self.loss == "cross_entropy" else 1

    @property
    def inputs(self) -> int:
        """How many numbers the network takes for a row."""
        return sum(column.width for column in self.columns)

    def build(self) -> Any:
        """The network, with fresh weights."""
        return build_network(self.inputs, self.layers, self.outputs, self.activation, self.dropout)

    def to_json(self) -> str:
        """The text that goes into the file."""
        return json.dumps({"version": VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> Description:
        """What `to_json` wrote."""
        values = json.loads(text)
        if values.pop("version") != VERSION:
            raise ValueError("written by a newer chainrule")
        columns = tuple(
            Column(column["name"], tuple(column["categories"])) for column in values["columns"]
        )
        return Description(**{
            **values, "columns": columns, "classes": tuple(values["classes"]),
            "layers": tuple(values["layers"]),
        })


@dataclass(frozen=True)
class Saved:
    """A model file in memory."""

    description: Description
    model: Any
    inputs: Scale
    target: Scale | None
    state: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """How it was trained."""
        return Settings.from_json(self.state["settings"])

    @property
    def progress(self) -> Progress:
        """How far it was trained."""
        return Progress.from_state(self.state["progress"])


def save_model(
    path: Path,
    description: Description,
    settings: Settings,
    inputs: Scale,
    target: Scale | None,
    model: Any,
    optimizer: Any,
    schedule: Any,
    progress: Progress,
    replace: bool,
) -> None:
    """Write all of it in one step; FileExistsError when the name is taken and not `replace`."""
    state = {
        "model": model.state_dict(),
        "inputs": _scale_state(inputs),
        "target": None if target is None else _scale_state(target),
        "settings": settings.to_json(),
        "optimizer": optimizer.state_dict(),
        "schedule": None if schedule is None else schedule.state_dict(),
        "progress": progress.to_state(),
    }
    save(state, path, {ENTRY: description.to_json()}, replace=replace)


def _scale_state(scale: Scale) -> dict[str, Any]:
    return {"mean": cr.from_numpy(scale.mean), "std": cr.from_numpy(scale.std)}


def _scale(state: dict[str, Any]) -> Scale:
    return Scale(state["mean"].numpy(), state["std"].numpy())


def load_model(path: Path) -> Saved:
    """Read a model file; FileFormatError when `chainrule train` did not write it."""
    metadata = load_metadata(path)
    if ENTRY not in metadata:
        raise FileFormatError(
            f"{path}: these tensors do not say which network they belong to. A file that "
            "`chainrule train` saved is needed."
        )
    state = load(path)
    try:
        description = Description.from_json(metadata[ENTRY])
        model = description.build()
        model.load_state_dict(state["model"])
        inputs = _scale(state["inputs"])
        if inputs.mean.shape != (description.inputs,):
            raise ValueError(f"{inputs.mean.size} means for {description.inputs} inputs")
        target = None if state["target"] is None else _scale(state["target"])
        Progress.from_state(state["progress"])
        Settings.from_json(state["settings"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FileFormatError(
            f"{path}: the description in the file does not fit its tensors ({error})."
        ) from error
    model.eval()
    return Saved(description, model, inputs, target, state)


def free_name(stem: str) -> Path:
    """STEM.safetensors in the current folder, or STEM-2.safetensors, … if that is taken."""
    path, count = Path(f"{stem}.safetensors"), 1
    while path.exists():
        count += 1
        path = Path(f"{stem}-{count}.safetensors")
    return path


def predictions(saved: Saved, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """For raw inputs (rows, inputs): probabilities (rows, classes), or numbers (rows,)."""
    with cr.no_grad():
        outputs = saved.model(cr.from_numpy(saved.inputs.apply(inputs)))
        if saved.target is not None:
            return saved.target.undo(outputs.numpy())[:, 0]
        return probabilities(outputs)


def probabilities(outputs: Any) -> np.ndarray[Any, Any]:
    """Class probabilities (rows, classes) from the network's outputs."""
    if outputs.shape[1] == 1:
        second = cr.sigmoid(outputs).numpy()
        return np.concatenate([1 - second, second], axis=1)
    result: np.ndarray[Any, Any] = cr.softmax(outputs, dim=1).numpy()
    return result
