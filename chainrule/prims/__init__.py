"""The table: one row per operation. Files follow the kinds of operation; each row is complete."""

from . import contract, elementwise, fused, index, reduce, shape, window
from .random import bits

__all__ = ["bits", "contract", "elementwise", "fused", "index", "reduce", "shape", "window"]
