"""The clinic: programs with and without a known fault, and how often the doctor is right.

    python -m chainrule.doctor.clinic

The programs stand in `programs/*.md`, as their authors would write them. Each is run under
`cr.doctor.watch`; what it says is held against the rule and the line that the program names.
"""

from __future__ import annotations

from .measure import Tally, examine, measure
from .programs import Program, programs

__all__ = ["Program", "Tally", "examine", "measure", "programs"]
