"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import add, divide, multiply, sqrt, subtract

from . import formulas
from .optimizer import Group, Optimizer, require, torch_options
from .walk import effective_gradient


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012): steps as large as the recent ones, whatever the unit.

    See `chainrule.optim.formulas.adadelta` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.Adadelta([x])
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 4)
    0.9968
    """

    def __init__(self, params: Iterable[Any], lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0, foreach: bool | None = None, *,
                 capturable: bool = False, maximize: bool = False,
                 differentiable: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, rho=rho, eps=eps, weight_decay=weight_decay,
            **torch_options(foreach, maximize, differentiable, capturable=capturable)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        require(group, "eps", group["eps"] >= 0, ">= 0")
        require(group, "rho", 0 <= group["rho"] <= 1, "between 0 and 1")

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("square_avg", "acc_delta")

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        return float(group["lr"]), group["rho"], 1 - group["rho"], group["eps"], \
            group["weight_decay"]

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        lr, rho, rest, eps, decay = c
        if group["maximize"] or group["weight_decay"]:
            g = effective_gradient(group, p, g, s, t, decay)
        v, u = slots[0], slots[1]
        g = g + 0.0          # a copy: s and t are both needed, and one of them may hold g
        multiply(g, g, s)
        multiply(s, rest, s)
        multiply(v, rho, v)
        add(v, s, v)
        add(v, eps, s)
        sqrt(s, s)
        add(u, eps, t)
        sqrt(t, t)
        divide(t, s, s)
        multiply(s, g, s)
        multiply(s, s, t)
        multiply(t, rest, t)
        multiply(u, rho, u)
        add(u, t, u)
        multiply(s, lr, s)
        subtract(p, s, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        new, v, u = formulas.adadelta(
            p, g, *slots, lr=group["lr"], rho=group["rho"], eps=group["eps"],
            weight_decay=group["weight_decay"])
        return new, (v, u)
