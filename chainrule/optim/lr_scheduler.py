"""Learning-rate schedules, stepping as PyTorch's do: most follow from the rate before.

A schedule multiplies or moves the rate it finds in the group, so several can act on one optimiser.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chainrule.core import events
from chainrule.core.errors import SettingError

from .optimizer import Optimizer


class LRScheduler:
    """Base of the schedules: `get_lr` returns the rates of all groups at `last_epoch`.

    Call `step()` once per epoch (or batch, for OneCycleLR), after `optimizer.step()`.
    """

    _unsaved: tuple[str, ...] = ("optimizer",)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__} needs an optimizer, not "
                            f"{type(optimizer).__name__}")
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise SettingError(
                    f"group {number} has no 'initial_lr', which last_epoch={last_epoch} needs: "
                    "load the optimizer's state_dict first, or leave last_epoch out")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[float] = []
        self._advance(None)

    def get_lr(self) -> list[float]:
        """The learning rate of each group at `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr")

    def get_last_lr(self) -> list[float]:
        """The learning rates last set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Moves on by one, or to `epoch`, and sets the learning rates."""
        if events.listeners:
            events.tell("schedule", scheduler=self)
        if self._step_count == 1 and not self.optimizer._stepped:
            warnings.warn(
                f"{type(self).__name__}.step() was called before optimizer.step(): the first "
                "learning rate is skipped. Call optimizer.step() first", UserWarning,
                stacklevel=2)
        self._advance(epoch)

    def _advance(self, epoch: int | None) -> None:
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_get_closed_form_lr", self.get_lr)
            rates = closed()
        self._set(rates)

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser (and functions)."""
        return {key: value for key, value in self.__dict__.items() if key not in self._unsaved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a `state_dict()`."""
        self.__dict__.update(state_dict)


class LambdaLR(LRScheduler):
    """lr = initial lr · λ(epoch), with one function for all groups or one for each."""

    _unsaved = ("optimizer", "lr_lambdas")

    def __init__(self, optimizer: Optimizer,
                 lr_lambda: Callable[[int], float] | list[Callable[[int], float]],
                 last_epoch: int = -1) -> None:
        groups = len(optimizer.param_groups)
        if isinstance(lr_lambda, list | tuple):
            if len(lr_lambda) != groups:
                raise SettingError(f"LambdaLR got {len(lr_lambda)} functions for {groups} groups")
            self.lr_lambdas = list(lr_lambda)
        else:
            self.lr_lambdas = [lr_lambda] * groups
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * rule(self.last_epoch)
                for base, rule in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler):
    """Every `step_size` epochs the rate is multiplied by `gamma`."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0 or self.last_epoch % self.step_size:
            return self._rates()
        return [rate * self.gamma for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma ** (self.last_epoch // self.step_size)
                for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """At each of the `milestones` the rate is multiplied by `gamma`."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        times = self.milestones.get(self.last_epoch, 0)
        return [rate * self.gamma ** times for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma ** passed for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """Every epoch the rate is multiplied by `gamma`."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._rates()
        return [rate * self.gamma for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma ** self.last_epoch for base in self.base_lrs]


class LinearLR(LRScheduler):
    """The factor of the initial rate goes from `start_factor` to `end_factor` in `total_iters`."""

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3,
                 end_factor: float = 1.0, total_iters: int = 5, last_epoch: int = -1) -> None:
        if not 0 < start_factor <= 1:
            raise SettingError(f"start_factor={start_factor!r} must be above 0 and at most 1")
        if not 0 <= end_factor <= 1:
            raise SettingError(f"end_factor={end_factor!r} must be between 0 and 1")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        part = min(epoch, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * part

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._rates()]
        if self.last_epoch > self.total_iters:
            return self._rates()
        change = self._factor(self.last_epoch) / self._factor(self.last_epoch - 1)
        return [rate * change for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self._factor(self.last_epoch) for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """η = η_min + (η₀ − η_min)(1 + cos(π t / T_max)) / 2 (Loshchilov & Hutter 2017)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, period, low = self.last_epoch, self.T_max, self.eta_min
        if t == 0:
            return self._rates()
        if self._step_count == 1 and t > 0:
            return self._get_closed_form_lr()
        if (t - 1 - period) % (2 * period) == 0:
            rise = (1 - math.cos(math.pi / period)) / 2
            return [rate + (base - low) * rise
                    for base, rate in zip(self.base_lrs, self._rates(), strict=True)]
        ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
        return [ratio * (rate - low) + low for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        part = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * part for base in self.base_lrs]


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
            if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
                raise SettingError(f"{type(optimizer).__name__} has no momentum to cycle: pass "
                                   "cycle_momentum=False")
            self.use_beta1 = "betas" in optimizer.defaults
            if last_epoch == -1:
                highs = per_group("max_momentum", max_momentum, groups)
                lows = per_group("base_momentum", base_momentum, groups)
                for group, high, low in zip(groups, highs, lows, strict=True):
                    self._set_momentum(group, high)
                    group["max_momentum"] = high
                    group["base_momentum"] = low
        super().__init__(optimizer, last_epoch)

    def _set_momentum(self, group: dict[str, Any], momentum: float) -> None:
        if self.use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum

    def _between(self, start: float, end: float, part: float) -> float:
        if self._anneal_func_type == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
        return start + (end - start) * part

    def get_lr(self) -> list[float]:
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
                self._set_momentum(group, self._between(group[first], group[last], part))
        return rates


class SequentialLR(LRScheduler):
    """Runs one schedule after the other; `milestones` are the epochs at which the next begins."""

    _unsaved = ("optimizer", "_schedulers")

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler],
                 milestones: list[int], last_epoch: int = -1) -> None:
        if not schedulers:
            raise SettingError("SequentialLR needs at least one schedule")
        if len(milestones) != len(schedulers) - 1:
            raise SettingError(f"SequentialLR got {len(schedulers)} schedules and "
                               f"{len(milestones)} milestones: it needs one between each two")
        for index, schedule in enumerate(schedulers):
            if schedule.optimizer is not optimizer:
                raise SettingError(f"schedule {index} of SequentialLR belongs to another optimizer")
        self.optimizer = optimizer
        self._schedulers = schedulers
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # Each schedule set its first rate when it was made: go back and let only the first do so.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for schedule in schedulers:
            schedule.last_epoch -= 1
        schedulers[0]._advance(None)
        self._last_lr = schedulers[0].get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        schedule = self._schedulers[index]
        if index and self._milestones[index - 1] == self.last_epoch:
            schedule._advance(0)
        else:
            schedule.step()
        self._last_lr = schedule.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(),
                "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        for schedule, saved in zip(self._schedulers, own.pop("_schedulers"), strict=True):
            schedule.load_state_dict(saved)
        super().load_state_dict(own)


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rate by `factor` when `metric` has not improved for `patience` epochs.

    `step(metric)` takes a number or a tensor of one element.
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1,
                 patience: int = 10, threshold: float = 1e-4, threshold_mode: str = "rel",
                 cooldown: int = 0, min_lr: float | list[float] = 0, eps: float = 1e-8) -> None:
        if factor >= 1.0:
            raise SettingError(f"factor={factor!r} must be below 1: it is what the learning rate "
                               "is multiplied by")
        if mode not in ("min", "max"):
            raise SettingError(f"mode={mode!r} must be 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise SettingError(f"threshold_mode={threshold_mode!r} must be 'rel' or 'abs'")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"ReduceLROnPlateau needs an optimizer, not {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.factor = factor
        self.min_lrs = per_group("min_lr", min_lr, optimizer.param_groups)
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.last_epoch = 0
        self._last_lr = self._rates()
        self._reset()

    def _reset(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Looks at the metric of this epoch and lowers the rates if it is time."""
        metric = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(metric, self.best):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, low in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = float(group["lr"])
                lower = max(rate * self.factor, low)
                if rate - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._rates()

    def is_better(self, a: float, best: float) -> bool:
        """Is metric `a` better than `best` by more than the threshold?"""
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            bar = best * (1 + sign * self.threshold)
        else:
            bar = best + sign * self.threshold
        return a < bar if self.mode == "min" else a > bar


def per_group(name: str, value: float | Sequence[float], groups: list[Any]) -> list[float]:
    """One number for every parameter group: `value` repeated, or its elements."""
    if isinstance(value, list | tuple):
        if len(value) != len(groups):
            raise SettingError(f"{name} has {len(value)} numbers for {len(groups)} groups")
        return list(value)
    return [value] * len(groups)  # type: ignore[list-item]
