"""A finding: what is wrong, by which numbers, at which line, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from chainrule.core.node import Origin

Severity = Literal["error", "warning", "info"]
GRAVITY: Mapping[str, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that keeps a network from learning.

    rule       the stable id, CR101
    severity   error: it does not learn, or not what was meant; warning: it learns badly; info
    what       one sentence with the user's names and numbers
    why        what it does to training
    cure       what to write instead, as code
    place      the user's line
    subject    the parameter or module it is about, '' if none
    evidence   the measured numbers it rests on
    step       the training step at which it was seen first
    """

    rule: str
    severity: Severity
    what: str
    why: str
    cure: str
    place: Origin
    subject: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Findings with one key are the same finding, seen again."""
        return self.rule, self.subject, self.place.file, self.place.line

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the place as file, line, function and module."""
        data = asdict(self)
        data["place"] = self.place._asdict() if self.place.file else None
        data["source"] = self.place.source() if self.place.file else ""
        return data
