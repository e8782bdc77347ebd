"""Optimisers: each is one update formula, a plain function, beside a fast in-place walk over it."""

from chainrule.functions.surface import unknown_name

from . import lr_scheduler
from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .lbfgs import LBFGS
from .nadam import NAdam
from .optimizer import Optimizer
from .radam import RAdam
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = ["LBFGS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer",
           "RAdam", "RMSprop", "lr_scheduler"]

# Set so that a type checker does not see it: it would believe in every name.
globals()["__getattr__"] = unknown_name("chainrule.optim", __all__)
