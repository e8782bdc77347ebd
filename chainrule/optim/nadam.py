"""NAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import add, divide, multiply, sqrt, subtract

from . import formulas
from .optimizer import Group, Optimizer, require, require_betas, torch_options
from .walk import effective_gradient


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016), which grows towards β₁ with the steps.

    See `chainrule.optim.formulas.nadam` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.NAdam([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 4)
    0.8944
    """

    scalars = ("mu_product",)

    def __init__(self, params: Iterable[Any], lr: Any = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, momentum_decay: float = 4e-3,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            **torch_options(foreach, maximize, differentiable, capturable=capturable)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        for key in ("eps", "momentum_decay"):
            require(group, key, group[key] >= 0, ">= 0")
        require_betas(group)

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _initial(self, group: Group, slot: str) -> float:
        return float(slot == "mu_product")

    def _moved(self, group: Group, step: int, *scalars: Any) -> tuple[Any, ...]:
        return (formulas.nadam_product(scalars[0], step, group["betas"][0],
                                       group["momentum_decay"]),)

    def _constants(self, group: Group, step: int, product: float = 1.0) -> tuple[float, ...]:
        (beta1, beta2), lr, decay = group["betas"], float(group["lr"]), group["weight_decay"]
        scales = formulas.nadam_scales(product, step, lr, beta1, beta2, group["eps"],
                                       group["momentum_decay"])
        if group["decoupled_weight_decay"]:
            decay = 1 - lr * decay
        return (*map(float, scales), 1 - beta1, beta2, 1 - beta2, decay)

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        of_g, of_m, eps_hat, rest1, beta2, rest2, decay = c
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
        sqrt(v, s)
        add(s, eps_hat, s)
        multiply(g, of_g, t)
        divide(t, s, t)
        subtract(p, t, p)
        multiply(m, of_m, t)
        divide(t, s, t)
        subtract(p, t, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        beta1, beta2 = group["betas"]
        new, *kept = formulas.nadam(
            p, g, *slots, step=step, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], momentum_decay=group["momentum_decay"],
            decoupled=group["decoupled_weight_decay"])
        return new, tuple(kept)
