"""`autopsy`: a look back, after a program has failed, at the last steps of the last watch."""

from __future__ import annotations

import sys
from dataclasses import replace

from .history import Run
from .report import Report, Stop
from .rule import RULES

_last: list[Report] = []


def remember(report: Report) -> None:
    """Keep what a watch saw when it ended: findings and numbers, no model and no graph."""
    slim = replace(report.run, model_refs=[], optimizer_refs=[], batch=None, error=None,
                   treat=None)
    for step in slim.steps:
        step.graph = None
    _last[:] = [Report(report.findings, slim, silenced=report.silenced, stopped=report.stopped)]


def autopsy(error: BaseException | None = None) -> Report:
    """What is known about a training run that failed: the last 50 steps of the last watch, what was
    found in them, and the page about the error that ended it.

    error   what stopped the program; left out, the one that the watch saw, or else the last one
            that an interactive session printed. Its page needs no watch

    >>> import chainrule as cr
    >>> w = cr.ones(2, requires_grad=True)
    >>> loss = (w * w).sum()
    >>> loss.backward()
    >>> try:
    ...     loss.backward()
    ... except RuntimeError as error:
    ...     print(cr.doctor.autopsy(error).findings[0].rule)
    CR306
    """
    seen = _last[0] if _last else Report([], Run())
    error = error if error is not None else getattr(sys, "last_value", None)
    if not isinstance(error, Exception):
        return seen
    run = replace(seen.run, error=error)
    found = [finding for rule in RULES.values() if rule.stops is not False
             for finding in rule.function(run)]
    known = {f.key for f in found}
    return Report([*found, *[f for f in seen.findings if f.key not in known]], seen.run,
                  silenced=seen.silenced, stopped=Stop.by(error))
