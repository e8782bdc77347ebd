"""`chainrule.data` under PyTorch's name."""

from chainrule.data import *  # noqa: F403
from chainrule.data import __all__ as __all__
