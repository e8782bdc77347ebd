"""Tools that test the table itself: `conformance.check` for every row, `stubs` for type stubs."""

from .conformance import CHECKS, check

__all__ = ["CHECKS", "check"]
