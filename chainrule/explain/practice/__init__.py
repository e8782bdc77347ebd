"""Practice: a derivation of one's own checked step by step, and exercises."""

from __future__ import annotations

from .check import check
from .kinds import KINDS, exercise
from .question import Answer, Exercise
from .review import Mark, Mistake, Review

__all__ = ["KINDS", "Answer", "Exercise", "Mark", "Mistake", "Review", "check", "exercise"]
