"""PyTorch's place for the data tools: `chainrule.utils.data`."""

from . import data

__all__ = ["data"]
