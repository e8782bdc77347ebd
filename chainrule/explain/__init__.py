"""The chain rule with the user's own names, lines and numbers.

The module can be called: `chainrule.explain(loss)` is `chainrule.explain.explain(loss)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .derive import BackwardStep, ForwardStep, Gradient
from .explanation import Explanation, explain

__all__ = ["BackwardStep", "Explanation", "ForwardStep", "Gradient", "explain"]


class _CallableModule(ModuleType):
    """The one place where a module is callable, so that `explain(loss)` and `explain.check` both
    read well."""

    def __call__(self, *args: Any, **kwargs: Any) -> Explanation:
        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
