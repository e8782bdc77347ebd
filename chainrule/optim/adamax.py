"""Adamax."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import absolute, add, divide, maximum, multiply, subtract

from . import formulas
from .optimizer import Group, Optimizer, require, require_betas, torch_options
from .walk import effective_gradient


class Adamax(Optimizer):
    """AdaMax (Kingma & Ba 2015, section 7.1): steps bounded by the largest recent gradient.

    See `chainrule.optim.formulas.adamax` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.Adamax([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 6)
    0.9
    """

    def __init__(self, params: Iterable[Any], lr: Any = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            **torch_options(foreach, maximize, differentiable, capturable=capturable)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        require(group, "eps", group["eps"] >= 0, ">= 0")
        require_betas(group)

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_inf")

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return (float(group["lr"]) / (1 - beta1 ** step), 1 - beta1, beta2, group["eps"],
                group["weight_decay"])

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        alpha, rest1, beta2, eps, decay = c
        if group["maximize"] or group["weight_decay"]:
            g = effective_gradient(group, p, g, s, t, decay)
        m, u = slots[0], slots[1]
        subtract(g, m, s)
        multiply(s, rest1, s)
        add(m, s, m)
        absolute(g, s)
        add(s, eps, s)
        multiply(u, beta2, u)
        maximum(u, s, out=u)
        divide(m, u, s)
        multiply(s, alpha, s)
        subtract(p, s, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        beta1, beta2 = group["betas"]
        new, m, u = formulas.adamax(
            p, g, *slots, step=step, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"])
        return new, (m, u)
