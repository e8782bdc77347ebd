"""The derivation as data: strict JSON of a documented, versioned form (`explanation.schema.json`).

A reader needs nothing else: formulas in both notations, numbers as text and as data, places in the
user's program. Numbers that JSON cannot hold are the strings "NaN", "Infinity" and "-Infinity"
(RFC 8259 has no others). A large array is described by statistics instead of its elements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.explain.derive import BackwardStep, Derivation, ForwardStep, Local, Place
from chainrule.explain.numbers import Style

from .latex import formula_writer
from .text import symbols_used

FORMAT, VERSION = "chainrule.explanation", 1
SCHEMA = Path(__file__).with_name("explanation.schema.json")
MOST_ELEMENTS = 1024


def as_json(derivation: Derivation, style: Style, width: int = 100, *,
            most: int | None = MOST_ELEMENTS, indent: int | None = 1) -> str:
    """The derivation as JSON. Arrays of more than `most` elements are summarised; None: none is."""
    return json.dumps(as_data(derivation, style, most), ensure_ascii=False, allow_nan=False,
                      indent=indent)


def as_data(derivation: Derivation, style: Style, most: int | None = MOST_ELEMENTS
            ) -> dict[str, Any]:
    """What `as_json` writes, as dicts and lists."""
    return _Writer(derivation, most).whole(style)


class _Writer:
    def __init__(self, derivation: Derivation, most: int | None) -> None:
        self.derivation = derivation
        self.most = most
        self.latex = formula_writer(derivation)

    def whole(self, style: Style) -> dict[str, Any]:
        d = self.derivation
        return {
            "format": FORMAT,
            "version": VERSION,
            "loss": d.loss,
            "precision": style.precision,
            "given": [{"name": one.name, "latex": self.latex(one.name), "tracked": one.tracked,
                       "value": self.array(one.value)} for one in d.given],
            "forward": [self.step(step) for step in d.forward],
            "backward": [self.backward(step) for step in d.backward],
            "gradients": [{"name": one.name, "latex": self.latex(one.name),
                           "shape": list(one.shape), "value": self.array(one.value),
                           "gradient": self.array(one.gradient)} for one in d.gradients],
            "symbols": symbols_used(d),
            "notes": list(d.notes),
        }

    def step(self, step: ForwardStep | BackwardStep) -> dict[str, Any]:
        return {
            "number": step.number,
            "name": step.name,
            "operation": step.operation,
            **self.sides(step),
            "shape": list(step.shape),
            "place": place(step.place),
        }

    def sides(self, one: Any) -> dict[str, Any]:
        """Formula, numbers and result as text, formula and numbers also in LaTeX, the value."""
        return {
            "formula": one.formula,
            "numbers": one.numbers,
            "result": one.result,
            "latex": {"name": self.latex(getattr(one, "name", "")),
                      "formula": self.latex(one.formula), "numbers": self.latex(one.numbers),
                      "result": self.latex(one.result)},
            "value": self.array(one.value),
        }

    def backward(self, step: BackwardStep) -> dict[str, Any]:
        return {
            **self.step(step),
            "of": step.of,
            "through": step.through,
            "upstream": self.array(step.upstream),
            "local": None if step.local is None else self.local(step.local),
            "path": step.path,
            "terms": list(step.terms),
            "products": [{"through": list(one.through), **self.sides(one)}
                         for one in step.products],
        }

    def local(self, local: Local) -> dict[str, Any]:
        return {"name": local.name, **self.sides(local)}

    def array(self, value: Any) -> dict[str, Any] | None:
        """dtype, shape and data; statistics instead of data for a large array; null if unknown."""
        if value is None:
            return None
        array = np.asarray(value)
        described: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
        if self.most is None or array.size <= self.most:
            return {**described, "data": plain(array.tolist())}
        return {**described, "statistics": statistics_of(array)}


def place(one: Place) -> dict[str, Any]:
    return {"file": one.file, "line": one.line, "source": one.source, "module": one.module}


def plain(value: Any) -> Any:
    """Numbers as JSON has them: what is not finite becomes a string."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def statistics_of(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Least, greatest, mean, standard deviation and norm of what is finite; counts of the rest."""
    finite = array[np.isfinite(array)].astype(np.float64)
    numbers = [finite.min(), finite.max(), finite.mean(), finite.std(),
               np.linalg.norm(finite)] if finite.size else [None] * 5
    named = dict(zip(("minimum", "maximum", "mean", "standard_deviation", "norm"),
                     (None if n is None else plain(float(n)) for n in numbers), strict=True))
    return {**named, "zeros": int(np.count_nonzero(array == 0)),
            "not_finite": int(array.size - finite.size)}


# ---------------------------------------------------------------- reading it again


def array_from(described: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The array that a document describes by its data."""
    dtype = np.dtype(described["dtype"])

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(one) for one in value]
        return float(value) if isinstance(value, str) else value

    return np.array(read(described["data"]), dtype).reshape(described["shape"])


def faults(document: Any, schema: Any = None, path: str = "$") -> list[str]:
    """Where a document differs from the schema; only the keywords the schema uses are known."""
    if schema is None:
        schema = json.loads(SCHEMA.read_text("utf-8"))
    return list(_faults(document, schema, schema, path))


KINDS: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool,
                         "integer": int, "number": (int, float), "null": type(None)}


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, KINDS[kind])


def _faults(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str) -> Sequence[str]:
    if "$ref" in schema:
        return _faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, path)
    found: list[str] = []
    if "anyOf" in schema:
        each = [_faults(value, one, root, path) for one in schema["anyOf"]]
        return [] if not all(each) else min(each, key=len)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{path}: {type(value).__name__}, must be {' or '.join(kinds)}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{path}: {value!r}, must be {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: {value!r}, must be one of {schema['enum']}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{path}.{key}: missing" for key in schema.get("required", ())
                  if key not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{path}.{key}: unknown" for key in value if key not in known]
        for key, inner in known.items():
            if key in value:
                found += _faults(value[key], inner, root, f"{path}.{key}")
    if isinstance(value, list) and "items" in schema:
        for i, one in enumerate(value):
            found += _faults(one, schema["items"], root, f"{path}[{i}]")
    return found
