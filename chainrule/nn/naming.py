"""How an error names the layer at fault: its repr and its path below the module called first."""

from __future__ import annotations

import re
from typing import Any

from chainrule.core.bind import state as recording
from chainrule.core.errors import ShapeError
from chainrule.core.node import scope_path
from chainrule.tensor import Tensor

from . import functional
from .display import type_text


def path_of(module: Any) -> str:
    """`encoder.0` for the module whose call is running, '' if it is the outermost or not known."""
    scope = recording.scope
    while scope is not None and scope[1] is not module:
        scope = scope[0]
    return scope_path(scope)


def described(module: Any) -> str:
    """`Linear(in_features=64, out_features=10, bias=True) 'encoder.0'`."""
    path = path_of(module)
    text = f"{module._get_name()}({module.extra_repr()})"
    return f"{text} {path!r}" if path else text


def refuse_tensor(module: Any, *values: Any) -> None:
    """Raises `TypeError` for a tensor where an option belongs: a call without making the layer."""
    if not any(isinstance(value, Tensor) for value in values):
        return
    name = type(module).__name__
    given = "pred, y" if name.endswith("Loss") else "x"
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removesuffix("Loss")).lower()
    stem = stem.replace("re_lu", "relu")
    known = [text for text in (stem, f"{stem}_loss", stem.replace("_", ""))
             if text in functional.__all__]
    kind = "loss" if name.endswith("Loss") else "layer"
    also = f", or F.{known[0]}({given})" if known else ""
    raise TypeError(f"nn.{name} got a tensor where its options belong; make the {kind} first: "
                    f"nn.{name}()({given}){also}")


def misfit(module: Any, input: Tensor, rule: str) -> ShapeError:
    """The error for an input that a layer cannot take."""
    return ShapeError(f"{described(module)} got {type_text(input)}: {rule}")
