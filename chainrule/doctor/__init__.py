"""Why does my network not learn? The line, the cause, the numbers, the cure.

    with cr.doctor.watch(model, optimizer) as seen:
        ...                                   # the training loop
    print(seen.report)
"""

from __future__ import annotations

from .asking import Answer, Blame, blame, why_none, why_zero
from .autopsy import autopsy
from .checking import check, why_not_learning
from .finding import Finding
from .report import Report
from .rule import RULES, Rule
from .treatment import Course, Treatment, treat
from .watching import SILENCED, DoctorWarning, Watch, watch

__all__ = [
    "Answer", "Blame", "Course", "DoctorWarning", "Finding", "Report", "Rule", "Treatment", "Watch",
    "autopsy", "blame", "check", "rules", "silence", "treat", "watch", "why_none",
    "why_not_learning", "why_zero",
]


def rules() -> dict[str, Rule]:
    """All rules by id."""
    return dict(RULES)


def silence(*ids: str) -> None:
    """These rules are not applied any more in this process."""
    unknown = [name for name in ids if name not in RULES]
    if unknown:
        raise ValueError(f"{unknown!r}: there are no such rules; cr.doctor.rules() lists them")
    SILENCED.update(ids)
