"""chainrule: backpropagation as a product.

PyTorch's surface on NumPy. `Tensor`, `.backward()` and `.grad`; `nn`, `optim` and `func`;
`explain` shows the chain rule with your numbers. Subpackages are imported when first used.
"""

from __future__ import annotations

import importlib as _importlib
import warnings as _warnings
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# Infinities and NaN are values here, as in PyTorch. NumPy's warnings about them are silenced for
# operations of this package alone; NumPy code of the user warns as before.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"chainrule\.")

from . import autograd, function, random, rows  # noqa: E402
from .autograd import (  # noqa: E402
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .core.config import settings  # noqa: E402
from .core.types import bool_, float16, float32, float64, int32, int64, uint8  # noqa: E402
from .device import accelerator, backends, cuda, device  # noqa: E402
from .functions import attach, creation  # noqa: E402
from .functions.creation import *  # noqa: E402,F403
from .functions.surface import FUNCTIONS as _FUNCTIONS  # noqa: E402
from .functions.surface import unknown_name as _unknown_name  # noqa: E402
from .random import *  # noqa: E402,F403
from .rows import *  # noqa: E402,F403
from .tensor import Size, Tensor  # noqa: E402

if _TYPE_CHECKING:
    from . import data, explain, func, io, nn, optim, testing, utils
    from .io import load, save
    from .jit import compile, get_num_threads, num_threads, set_num_threads

__version__ = "0.1.0"

globals().update(_FUNCTIONS)
bool = bool_
float, double, half = float32, float64, float16
long, int = int64, int32
inf, pi, e = 1e400, 3.141592653589793, 2.718281828459045
nan = inf - inf

_SUBPACKAGES = ("data", "doctor", "explain", "func", "io", "nn", "optim", "testing", "utils")
_FROM = {"compile": "jit", "get_num_threads": "jit", "load": "io", "num_threads": "jit",
         "save": "io", "set_num_threads": "jit", "vmap": "func"}

__all__ = sorted({  # noqa: PLE0605
    *creation.__all__, *random.__all__, *rows.__all__, *_FUNCTIONS, *_SUBPACKAGES, *_FROM,
    "Size", "Tensor", "accelerator", "autograd", "backends", "bool", "cuda", "device",
    "double", "e", "enable_grad", "float", "float16",
    "float32", "float64", "half", "inf", "inference_mode", "int", "int32", "int64",
    "is_grad_enabled", "is_inference_mode_enabled", "long", "nan", "no_grad", "pi",
    "set_grad_enabled", "settings", "uint8"})


def __getattr__(name: str) -> _Any:
    if name in _SUBPACKAGES:
        return _importlib.import_module(f".{name}", __name__)
    if name in _FROM:
        return getattr(_importlib.import_module(f".{_FROM[name]}", __name__), name)
    return _unknown_name("chainrule", __all__)(name)


def __dir__() -> list[str]:
    return __all__
