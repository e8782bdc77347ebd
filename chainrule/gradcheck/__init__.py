"""Derivatives held against differences; reached as `cr.autograd.gradcheck` and `gradgradcheck`."""

from .check import error_against_step, gradcheck, gradgradcheck
from .verdict import GradcheckError, Verdict

__all__ = ["GradcheckError", "Verdict", "error_against_step", "gradcheck", "gradgradcheck"]
