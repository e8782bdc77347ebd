"""What was found, as text and as data."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chainrule.core.errors import SettingError

from .finding import Finding

if TYPE_CHECKING:
    from .history import Run


class Report:
    """Findings, the gravest first. `ok`: none of error level. `str()` is the text."""

    def __init__(self, findings: Sequence[Finding], run: Run) -> None:
        self.findings = list(findings)
        self.run = run

    @property
    def ok(self) -> bool:
        return not any(f.severity == "error" for f in self.findings)

    @property
    def steps(self) -> int:
        """How many steps were seen, without one that had only been opened."""
        return self.run.count - (not self.run.latest.events if self.run.steps else 0)

    def text(self, width: int = 100) -> str:
        """One block for each finding: what, where, why, and what to write instead."""
        steps = self.steps
        seen = f"{steps} step{'' if steps == 1 else 's'} seen{self._failed()}"
        if not self.findings:
            if not steps and not self.run.losses and self.run.failure is None:
                return "nothing to look at: backward() was not called while the doctor watched"
            return f"nothing found: {seen}"
        blocks = []
        for f in self.findings:
            where = ""
            if f.place.file:
                where = f"  {os.path.basename(f.place.file)}:{f.place.line}  {f.place.source()}"
            lines = textwrap.wrap(f"{f.rule} {f.severity}: {f.what}", width)
            lines += [where] if where else []
            lines += textwrap.wrap(f.why, width, initial_indent="  ", subsequent_indent="  ")
            lines += ["  cure:", *[f"      {line}" for line in f.cure.split("\n")]]
            blocks.append("\n".join(lines))
        return "\n\n".join([*blocks, seen])

    def _failed(self) -> str:
        """What to say if the doctor itself has failed."""
        fault = self.run.failure
        return "" if fault is None else (
            f"; then the doctor itself failed and stopped watching, please report this: {fault!r}")

    def prove(self, finding: Finding | None = None, **options: Any) -> Any:
        """Tries the cure for the gravest finding on a copy: `cr.doctor.treat` on what `check` was
        given; takes its `optimizer=`, `steps=` and `seed=`.
        """
        if self.run.treat is None:
            raise SettingError("prove(): only a report of cr.doctor.check(model, x, y, loss=...) "
                               "or check(step, ...) knows how to do a step; "
                               "cr.doctor.treat(model, (x, y), loss=..., optimizer=...) is told")
        return self.run.treat(finding=finding, **options)

    def to_json(self) -> str:
        return json.dumps({"findings": [f.to_dict() for f in self.findings],
                           "steps": self.steps}, indent=1, default=_plain)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
