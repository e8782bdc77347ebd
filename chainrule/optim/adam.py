"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import add, divide, maximum, multiply, sqrt, subtract

from . import formulas
from .optimizer import Group, Optimizer, require, require_betas, torch_options
from .walk import effective_gradient


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), with AMSGrad (Reddi et al. 2018) on request.

    See `chainrule.optim.formulas.adam` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.Adam([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 6)
    0.9
    """

    def __init__(self, params: Iterable[Any], lr: Any = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            **torch_options(foreach, maximize, differentiable, capturable=capturable, fused=fused,
                            decoupled_weight_decay=decoupled_weight_decay)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        require(group, "eps", group["eps"] >= 0, ">= 0")
        require_betas(group)

    def _slots(self, group: Group) -> tuple[str, ...]:
        slots = ("exp_avg", "exp_avg_sq")
        return (*slots, "max_exp_avg_sq") if group["amsgrad"] else slots

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        (beta1, beta2), lr, decay = group["betas"], float(group["lr"]), group["weight_decay"]
        alpha, eps_hat = formulas.adam_scales(step, lr, beta1, beta2, group["eps"])
        if group["decoupled_weight_decay"]:
            decay = 1 - lr * decay
        return float(alpha), float(eps_hat), 1 - beta1, beta2, 1 - beta2, decay

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        alpha, eps_hat, rest1, beta2, rest2, decay = c
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
        if len(slots) == 3:
            v = maximum(slots[2], v, out=slots[2])
        sqrt(v, s)
        add(s, eps_hat, s)
        divide(m, s, s)
        multiply(s, alpha, s)
        subtract(p, s, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        beta1, beta2 = group["betas"]
        new, m, v, largest = formulas.adam(
            p, g, *slots, step=step, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"])
        return new, (m, v) if largest is None else (m, v, largest)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    See `chainrule.optim.formulas.adam` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.AdamW([x], lr=0.1, weight_decay=0.5)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 6)
    0.85
    """

    def __init__(self, params: Iterable[Any], lr: Any = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach,
                         maximize=maximize, capturable=capturable, differentiable=differentiable,
                         fused=fused, decoupled_weight_decay=True)
