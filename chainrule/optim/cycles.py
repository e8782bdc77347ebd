"""Learning-rate schedules that rise and fall, or start again, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from chainrule.core.errors import SettingError

from .optimizer import Optimizer
from .schedule import LRScheduler, per_group


class OneCycleLR(LRScheduler):
    """One rise and one fall of the rate over the whole run (Smith & Topin 2018), step by batch.

    The rate goes from `max_lr / div_factor` to `max_lr` in the first `pct_start` of the steps and
    then to `initial / final_div_factor`; momentum (or β₁) moves the other way.
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | list[float],
                 total_steps: int | None = None, epochs: int | None = None,
                 steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: float | list[float] = 0.85,
                 max_momentum: float | list[float] = 0.95, div_factor: float = 25.0,
                 final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise SettingError("OneCycleLR needs total_steps, or both epochs and "
                                   "steps_per_epoch, to know how long the cycle is")
            total_steps = epochs * steps_per_epoch
        if total_steps != int(total_steps) or total_steps <= 0:
            raise SettingError(f"total_steps={total_steps!r} must be a whole number above 0")
        if not 0 <= pct_start <= 1:
            raise SettingError(f"pct_start={pct_start!r} must be between 0 and 1")
        if anneal_strategy not in ("cos", "linear"):
            raise SettingError(f"anneal_strategy={anneal_strategy!r} must be 'cos' or 'linear'")
        self.total_steps = total_steps
        self._anneal_func_type = anneal_strategy
        top = float(pct_start * total_steps) - 1
        if three_phase:
            self._schedule_phases = [
                (top, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
                (2 * top, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
        else:
            self._schedule_phases = [
                (top, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
                (total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        groups = optimizer.param_groups
        if last_epoch == -1:
            for group, peak in zip(groups, per_group("max_lr", max_lr, groups), strict=True):
                group["initial_lr"] = peak / div_factor
                group["max_lr"] = peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            require_momentum(optimizer)
            if last_epoch == -1:
                highs = per_group("max_momentum", max_momentum, groups)
                lows = per_group("base_momentum", base_momentum, groups)
                for group, high, low in zip(groups, highs, lows, strict=True):
                    set_momentum(group, high)
                    group["max_momentum"] = high
                    group["base_momentum"] = low
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, part: float) -> float:
        if self._anneal_func_type == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
        return start + (end - start) * part

    def get_lr(self) -> list[float]:
        self._check_groups(len(self.base_lrs))
        t = self.last_epoch
        if t > self.total_steps:
            raise SettingError(
                f"OneCycleLR was made for {self.total_steps} steps and step {t} was asked for: "
                "give the real number of steps, epochs times batches per epoch")
        rates, begin = [], 0.0
        for phase in self._schedule_phases[:-1]:
            if t <= phase[0]:
                break
            begin = phase[0]
        else:
            phase = self._schedule_phases[-1]
        end, low, high, first, last = phase
        part = (t - begin) / (end - begin)
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[low], group[high], part))
            if self.cycle_momentum:
                set_momentum(group, self._between(group[first], group[last], part))
        return rates


class CyclicLR(LRScheduler):
    """The rate rises from `base_lr` to `max_lr` and falls back, again and again (Smith 2017).

    It rises in `step_size_up` steps and falls in `step_size_down` (as many unless given); call
    `step()` after each batch. mode 'triangular' keeps the height, 'triangular2' halves it in each
    cycle, 'exp_range' multiplies it by `gamma` in each step. `scale_fn`, a function of the cycle
    (from 1) or, with scale_mode='iterations', of the step, takes the place of these. Momentum (or
    β₁) moves the other way, from `max_momentum` to `base_momentum`, if `cycle_momentum`.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.ones(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> schedule = cr.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 0.5, step_size_up=2)
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     schedule.step()
    ...     print([round(rate, 6) for rate in schedule.get_last_lr()])
    [0.3]
    [0.5]
    [0.3]
    [0.1]
    """

    _unsaved = ("optimizer", "_scale_fn_custom")

    def __init__(self, optimizer: Optimizer, base_lr: float | list[float],
                 max_lr: float | list[float], step_size_up: int = 2000,
                 step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
                 scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: float | list[float] = 0.8,
                 max_momentum: float | list[float] = 0.9, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"CyclicLR needs an optimizer, not {type(optimizer).__name__}")
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise SettingError(f"mode={mode!r} must be 'triangular', 'triangular2' or 'exp_range'")
        if scale_mode not in ("cycle", "iterations"):
            raise SettingError(f"scale_mode={scale_mode!r} must be 'cycle' or 'iterations'")
        down = step_size_up if step_size_down is None else step_size_down
        for name, size in (("step_size_up", step_size_up), ("step_size_down", down)):
            if not size > 0:
                raise SettingError(f"{name}={size!r} must be above 0: it is how many steps the "
                                   "rate takes from one end to the other")
        groups = optimizer.param_groups
        base_lrs = per_group("base_lr", base_lr, groups)
        self.max_lrs = per_group("max_lr", max_lr, groups)
        if last_epoch == -1:
            for group, low in zip(groups, base_lrs, strict=True):
                group["lr"] = low
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            require_momentum(optimizer)
            self.base_momentums = per_group("base_momentum", base_momentum, groups)
            self.max_momentums = per_group("max_momentum", max_momentum, groups)
            if last_epoch == -1:
                for group, low, high in zip(groups, self.base_momentums, self.max_momentums,
                                            strict=True):
                    set_momentum(group, high)
                    group["max_momentum"] = high
                    group["base_momentum"] = low
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """What the height of cycle (or step) number `x` is multiplied by."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular2":
            return float(0.5 ** (x - 1))
        return float(self.gamma ** x) if self.mode == "exp_range" else 1.0

    def get_lr(self) -> list[float]:
        self._check_groups(len(self.max_lrs))
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        place = 1.0 + self.last_epoch / self.total_size - cycle
        up = self.step_ratio
        height = place / up if place <= up else (place - 1) / (up - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(self.optimizer.param_groups, self.base_momentums,
                                        self.max_momentums, strict=True):
                set_momentum(group, high - (high - low) * height * scale)
        return [low + (high - low) * height * scale
                for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]


class CosineAnnealingWarmRestarts(LRScheduler):
    """SGDR (Loshchilov & Hutter 2017): the rate falls along a cosine, jumps back, falls again.

    η = η_min + (η₀ − η_min)(1 + cos(π T_cur / T_i)) / 2, where T_cur counts from the last restart;
    the first fall takes T_0 epochs, each later one `T_mult` times the one before. `step()` may be
    given part of an epoch: `step(epoch + batch / batches)`.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.ones(1, requires_grad=True)], lr=1.0)
    >>> schedule = cr.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2)
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     schedule.step()
    ...     print([round(rate, 6) for rate in schedule.get_last_lr()])
    [0.5]
    [1.0]
    [0.5]
    [1.0]
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if not isinstance(value, int) or value < 1:
                raise SettingError(f"{name}={value!r} must be a whole number of at least 1")
        if not isinstance(eta_min, int | float):
            raise SettingError(f"eta_min={eta_min!r} must be a number")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        part = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * part for base in self.base_lrs]

    def _advance(self, epoch: float | None) -> None:
        self._step_count += 1
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self._go_to(epoch)
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def _go_to(self, epoch: float) -> None:
        if epoch < 0:
            raise SettingError(f"CosineAnnealingWarmRestarts: epoch={epoch!r} must be at least 0")
        times = 0
        if epoch >= self.T_0 and self.T_mult > 1:
            times = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            epoch -= self.T_0 * (self.T_mult ** times - 1) / (self.T_mult - 1)
        elif epoch >= self.T_0:
            epoch %= self.T_0
        self.T_cur = epoch
        self.T_i = self.T_0 * self.T_mult ** times


def require_momentum(optimizer: Optimizer) -> None:
    """Raises `SettingError` for an optimiser without momentum or betas."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise SettingError(f"{type(optimizer).__name__} has no momentum to cycle: pass "
                           "cycle_momentum=False")


def set_momentum(group: dict[str, Any], momentum: float) -> None:
    """Sets the momentum of a group, or its β₁."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum
