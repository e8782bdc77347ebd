"""The table of rules. A rule is one function with its id, what it needs, and two small programs.

    @rule("CR101", "gradients are never cleared", after=2, example=..., cured=...)
    def never_cleared(run: Run) -> Iterator[Finding]: ...

The function's docstring is the rule's page: what it means, how it is recognised, with the source of
each threshold. `example` is a program that has the fault, `cured` the same without; the tests run
both, and the page shows them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .finding import Finding

if TYPE_CHECKING:
    from .history import Run

Function = Callable[["Run"], Iterator[Finding]]
IDENTITY = re.compile(r"CR[1-9]\d\d")


@dataclass(frozen=True)
class Rule:
    """id, title, function; `after`: how many sampled steps in a row must show it; `stops`: it is
    about an error that stopped the program, and is asked when there was one (None: then, too)."""

    id: str
    title: str
    function: Function
    after: int
    example: str
    cured: str
    stops: bool | None = False

    @property
    def page(self) -> str:
        """The description, as text."""
        return inspect.cleandoc(self.function.__doc__ or "")


RULES: dict[str, Rule] = {}


def rule(id: str, title: str, *, example: str, cured: str, after: int = 1,
         stops: bool | None = False) -> Callable[[Function], Function]:
    """Adds a function to the table. Ids stay what they are for ever; none is used twice."""
    def added(function: Function) -> Function:
        if not IDENTITY.fullmatch(id) or id in RULES:
            raise ValueError(f"{id!r} is no new id of the form CR101")
        if not function.__doc__:
            raise ValueError(f"{id}: the docstring is the rule's page")
        RULES[id] = Rule(id, title, function, after, inspect.cleandoc(example),
                         inspect.cleandoc(cured), stops)
        return function

    return added
