"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import add, divide, multiply, sqrt, subtract

from . import formulas
from .optimizer import Group, Optimizer, require, torch_options
from .walk import effective_gradient


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011).

    See `chainrule.optim.formulas.adagrad` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.Adagrad([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 6)
    0.9
    """

    def __init__(self, params: Iterable[Any], lr: Any = 1e-2, lr_decay: float = 0,
                 weight_decay: float = 0, initial_accumulator_value: float = 0,
                 eps: float = 1e-10, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, dict(
            lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            **torch_options(foreach, maximize, differentiable, fused=fused)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        for key in ("eps", "lr_decay", "initial_accumulator_value"):
            require(group, key, group[key] >= 0, ">= 0")

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("sum",)

    def _initial(self, group: Group, slot: str) -> float:
        return float(group["initial_accumulator_value"])

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        lr = float(group["lr"]) / (1 + (step - 1) * group["lr_decay"])
        return lr, group["eps"], group["weight_decay"]

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        lr, eps, decay = c
        if group["maximize"] or group["weight_decay"]:
            g = effective_gradient(group, p, g, s, t, decay)
        total = slots[0]
        multiply(g, g, s)
        add(total, s, total)
        sqrt(total, s)
        add(s, eps, s)
        divide(g, s, s)
        multiply(s, lr, s)
        subtract(p, s, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        new, total = formulas.adagrad(
            p, g, *slots, step=step, lr=group["lr"], lr_decay=group["lr_decay"],
            eps=group["eps"], weight_decay=group["weight_decay"])
        return new, (total,)
