"""`DataLoader` under PyTorch's long name."""

from chainrule.data import DataLoader, default_collate

__all__ = ["DataLoader", "default_collate"]
