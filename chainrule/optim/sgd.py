"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy import add, multiply, subtract

from chainrule.core.errors import SettingError

from . import formulas
from .optimizer import Group, Optimizer, require, torch_options
from .walk import effective_gradient


class SGD(Optimizer):
    """Gradient descent with momentum (Polyak 1964; Nesterov 1983; Sutskever et al. 2013).

    See `chainrule.optim.formulas.sgd` for the update. `lr` is the step size.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = cr.optim.SGD([x], lr=0.1)
    >>> (x * x).sum().backward()
    >>> optimizer.step()
    >>> x.tolist() == [0.800000011920929, 1.600000023841858]
    True
    """

    counts_steps = False

    def __init__(self, params: Iterable[Any], lr: Any = 1e-3, momentum: float = 0,
                 dampening: float = 0, weight_decay: float = 0, nesterov: bool = False, *,
                 maximize: bool = False, foreach: bool | None = None,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, dict(
            lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=nesterov, **torch_options(foreach, maximize, differentiable, fused=fused)))

    def _check_options(self, group: Group) -> None:
        super()._check_options(group)
        require(group, "momentum", group["momentum"] >= 0, ">= 0")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise SettingError(
                "nesterov=True needs momentum > 0 and dampening=0, not momentum="
                f"{group['momentum']!r} and dampening={group['dampening']!r}")

    def _slots(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _merge_below(self, group: Group) -> int:
        return 256 if group["momentum"] else 0

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        return (float(group["lr"]), group["weight_decay"], group["momentum"],
                1 - group["dampening"])

    def _kernel(self, group: Group) -> Any:
        if group["momentum"] or group["weight_decay"] or group["maximize"]:
            return self._in_place
        return _plain

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        lr, decay, momentum, undampened = c
        if group["maximize"] or group["weight_decay"]:
            g = effective_gradient(group, p, g, s, t, decay)
        if slots:
            buffer = slots[0]
            if fresh:
                buffer[...] = g
            else:
                multiply(buffer, momentum, buffer)
                if group["dampening"]:
                    multiply(g, undampened, s)
                    add(buffer, s, buffer)
                else:
                    add(buffer, g, buffer)
            if group["nesterov"]:
                multiply(buffer, momentum, s)
                g = add(g, s, s)
            else:
                g = buffer
        multiply(g, lr, s)
        subtract(p, s, p)

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        new, buffer = formulas.sgd(
            p, g, *slots, lr=group["lr"], momentum=group["momentum"],
            dampening=group["dampening"], weight_decay=group["weight_decay"],
            nesterov=group["nesterov"], fresh=fresh)
        return new, (buffer,) if slots else ()


def _plain(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any, fresh: bool) -> None:
    multiply(g, c[0], s)
    subtract(p, s, p)
