"""Choices that gradients flow through."""

from __future__ import annotations

import numpy as np

from chainrule import random
from chainrule.core.errors import SettingError
from chainrule.functions import ops
from chainrule.functions.arithmetic import straight_through
from chainrule.functions.shaping import one_hot
from chainrule.tensor import Tensor


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                   dim: int = -1) -> Tensor:
    """A random choice along `dim` that gradients flow through (Jang et al. 2017).

    softmax((logits + g)/tau) with g drawn from Gumbel(0, 1); with `hard` the one-hot of its largest
    in the forward pass, and the gradient of the soft one. `eps` has no effect, as in PyTorch.
    """
    if not tau > 0:
        raise SettingError(f"gumbel_softmax: tau={tau!r} must be larger than 0")
    least = 1e-7 if logits.dtype == np.float16 else 1e-20
    uniform = random.rand_like(logits.detach()).clamp(min=least)
    soft = ops.softmax((logits - (-uniform.log()).log()) / tau, dim)
    if not hard:
        return soft
    chosen = one_hot(soft.argmax(dim), logits.shape[dim]).movedim(-1, dim)
    return straight_through(chosen.to(soft.dtype), soft)
