"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import add, divide, multiply, sqrt, subtract

from . import formulas
from .optimizer import Group, Optimizer, require, torch_options
from .walk import effective_gradient


class RMSprop(Optimizer):
    """RMSprop (Hinton, lecture 6e), centred (Graves 2013) and with momentum on request.

    See `chainrule.optim.formulas.rmsprop` for the update.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.RMSprop([x], lr=0.01)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> round(x.item(), 6)
    0.9
    """

    def __init__(self, params: Iterable[Any], lr: Any = 1e-2, alpha: float = 0.99,
                 eps: float = 1e-8, weight_decay: float = 0, momentum: float = 0,
                 centered: bool = False, capturable: bool = False, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, momentum=momentum, alpha=alpha, eps=eps, centered=centered,
            weight_decay=weight_decay,
            **torch_options(foreach, maximize, differentiable, capturable=capturable)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        for key in ("eps", "momentum", "alpha"):
            require(group, key, group[key] >= 0, ">= 0")

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("square_avg", *(("momentum_buffer",) if group["momentum"] else ()),
                *(("grad_avg",) if group["centered"] else ()))

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        alpha = group["alpha"]
        return (float(group["lr"]), alpha, 1 - alpha, group["eps"], group["momentum"],
                group["weight_decay"])

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        lr, alpha, rest, eps, momentum, decay = c
        if group["maximize"] or group["weight_decay"]:
            g = effective_gradient(group, p, g, s, t, decay)
        v = slots[0]
        multiply(g, g, s)
        multiply(s, rest, s)
        multiply(v, alpha, v)
        add(v, s, v)
        if group["centered"]:
            mean = slots[-1]
            subtract(g, mean, s)
            multiply(s, rest, s)
            add(mean, s, mean)
            multiply(mean, mean, s)
            subtract(v, s, s)
            sqrt(s, s)
        else:
            sqrt(v, s)
        add(s, eps, s)
        divide(g, s, s)
        if group["momentum"]:
            buffer = slots[1]
            multiply(buffer, momentum, buffer)
            add(buffer, s, buffer)
            multiply(buffer, lr, s)
        else:
            multiply(s, lr, s)
        subtract(p, s, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        kept = dict(zip(self._slots(group), slots, strict=True))
        new, v, buffer, mean = formulas.rmsprop(
            p, g, kept["square_avg"], kept.get("momentum_buffer"), kept.get("grad_avg"),
            lr=group["lr"], alpha=group["alpha"], eps=group["eps"],
            weight_decay=group["weight_decay"], momentum=group["momentum"])
        return new, tuple(x for x in (v, buffer, mean) if x is not None)
