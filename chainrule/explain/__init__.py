"""The chain rule with the user's own names, lines and numbers.

The module can be called: `chainrule.explain(loss)` is `chainrule.explain.explain(loss)`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .derive import BackwardStep, ForwardStep, Gradient
from .explanation import Explanation, explain
from .pictures import Picture, picture
from .practice import check, exercise

if TYPE_CHECKING:
    from .measured.cost import cost
    from .measured.depth import depth

__all__ = ["BackwardStep", "Explanation", "ForwardStep", "Gradient", "Picture", "check", "cost",
           "depth", "exercise", "explain", "picture"]

# What measures needs the compiler, which takes longer to import than most losses to explain.
_FROM = {"cost": "measured.cost", "depth": "measured.depth"}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


class _CallableModule(ModuleType):
    """The one place where a module is callable, so that `explain(loss)` and `explain.check` both
    read well."""

    def __call__(self, *args: Any, **kwargs: Any) -> Explanation:
        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
