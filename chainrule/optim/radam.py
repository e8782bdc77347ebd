"""RAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import add, divide, multiply, sqrt, subtract

from . import formulas
from .optimizer import Group, Optimizer, require, require_betas, torch_options
from .walk import effective_gradient


class RAdam(Optimizer):
    """Rectified Adam (Liu et al. 2020), which needs no warm-up of the learning rate.

    See `chainrule.optim.formulas.radam` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.RAdam([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 6)
    0.8
    """

    def __init__(self, params: Iterable[Any], lr: Any = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            **torch_options(foreach, maximize, differentiable, capturable=capturable)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        require(group, "eps", group["eps"] >= 0, ">= 0")
        require_betas(group)

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        (beta1, beta2), lr, decay = group["betas"], float(group["lr"]), group["weight_decay"]
        alpha, rectified = formulas.radam_scales(step, lr, beta1, beta2)
        if group["decoupled_weight_decay"]:
            decay = 1 - lr * decay
        return (float(alpha), float(rectified), 1 - beta1, beta2, 1 - beta2, group["eps"], decay)

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        alpha, rectified, rest1, beta2, rest2, eps, decay = c
        decoupled = group["decoupled_weight_decay"]
        if group["maximize"] or (group["weight_decay"] and not decoupled):
            g = effective_gradient(group, p, g, s, t, None if decoupled else decay)
        if decoupled and group["weight_decay"]:
            multiply(p, decay, p)
        m, v = slots[0], slots[1]
        subtract(g, m, s)
        multiply(s, rest1, s)
        add(m, s, m)
        multiply(g, g, s)
        multiply(s, rest2, s)
        multiply(v, beta2, v)
        add(v, s, v)
        if rectified:
            sqrt(v, s)
            add(s, eps, s)
            divide(m, s, s)
            multiply(s, alpha, s)
        else:
            multiply(m, alpha, s)
        subtract(p, s, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        beta1, beta2 = group["betas"]
        new, m, v = formulas.radam(
            p, g, *slots, step=step, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"])
        return new, (m, v)
