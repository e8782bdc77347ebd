"""chainrule: backpropagation as a product.

PyTorch's surface on NumPy. `Tensor`, `.backward()` and `.grad`; `nn`, `optim` and `func`;
`explain` shows the chain rule with your numbers.
"""

from __future__ import annotations

import warnings as _warnings

# Infinities and NaN are values here, as in PyTorch. NumPy's warnings about them are silenced for
# operations of this package alone; NumPy code of the user warns as before.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"chainrule\.")

from . import attach, autograd, func, rows  # noqa: E402
from .autograd import (  # noqa: E402
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .core.config import settings  # noqa: E402
from .core.types import (  # noqa: E402
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint8,
)
from .creation import *  # noqa: E402,F403
from .random import *  # noqa: E402,F403
from .rows import *  # noqa: E402,F403
from .surface import FUNCTIONS as _FUNCTIONS  # noqa: E402
from .tensor import Size, Tensor  # noqa: E402

__version__ = "0.1.0"

globals().update(_FUNCTIONS)
bool = bool_  # noqa: A001
float, double, half = float32, float64, float16  # noqa: A001
long, int = int64, int32  # noqa: A001
inf, nan, pi, e = 1e400, 1e400 - 1e400, 3.141592653589793, 2.718281828459045
FloatTensor = Tensor

from . import nn, optim, utils  # noqa: E402
