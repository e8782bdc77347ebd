"""A standalone NumPy script that does the forward and the backward pass by hand."""

from __future__ import annotations

from .script import numpy_script, save_script

__all__ = ["numpy_script", "save_script"]
