"""Learning-rate schedules, stepping as PyTorch's do: most follow from the rate before.

A schedule multiplies or moves the rate it finds in the group, so several can act on one optimiser.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chainrule.core.errors import SettingError

from .cycles import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from .optimizer import Optimizer
from .schedule import LRScheduler, per_group

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
    "CyclicLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
    "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR",
    "StepLR",
]

Rule = Callable[[int], float]


class LambdaLR(LRScheduler):
    """lr = initial lr · λ(epoch), with one function for all groups or one for each."""

    _unsaved = ("optimizer", "lr_lambdas")

    def __init__(self, optimizer: Optimizer, lr_lambda: Rule | list[Rule],
                 last_epoch: int = -1) -> None:
        self.lr_lambdas = _rules(self, optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * rule(self.last_epoch)
                for base, rule in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class MultiplicativeLR(LRScheduler):
    """Every epoch the rate is multiplied by λ(epoch), one function for all groups or one for each.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.ones(1, requires_grad=True)], lr=1.0)
    >>> schedule = cr.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 1 / epoch)
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     schedule.step()
    >>> [round(rate, 6) for rate in schedule.get_last_lr()]
    [0.166667]
    """

    _unsaved = ("optimizer", "lr_lambdas")

    def __init__(self, optimizer: Optimizer, lr_lambda: Rule | list[Rule],
                 last_epoch: int = -1) -> None:
        self.lr_lambdas = _rules(self, optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self._step_count == 1:
            return self._rates()
        self._check_groups(len(self.lr_lambdas))
        return [rate * rule(self.last_epoch)
                for rate, rule in zip(self._rates(), self.lr_lambdas, strict=True)]


def _rules(schedule: LRScheduler, optimizer: Optimizer, given: Rule | list[Rule]) -> list[Rule]:
    """One function for each parameter group."""
    name = type(schedule).__name__
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name} needs an optimizer, not {type(optimizer).__name__}")
    groups = len(optimizer.param_groups)
    rules = list(given) if isinstance(given, list | tuple) else [given] * groups
    if len(rules) != groups:
        raise SettingError(f"{name} got {len(rules)} functions for {groups} groups")
    for rule in rules:
        if not callable(rule):
            raise TypeError(f"{name}: lr_lambda must be a function of the epoch, not {rule!r}")
    return rules


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


class ConstantLR(LRScheduler):
    """The rate is `factor` times the initial one until epoch `total_iters`, then the initial one.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.ones(1, requires_grad=True)], lr=1.0)
    >>> schedule = cr.optim.lr_scheduler.ConstantLR(optimizer, factor=0.25, total_iters=2)
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5,
                 last_epoch: int = -1) -> None:
        if not 0 <= factor <= 1:
            raise SettingError(f"factor={factor!r} must be between 0 and 1")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [rate * self.factor for rate in self._rates()]
        if self.last_epoch != self.total_iters:
            return self._rates()
        return [rate * (1.0 / self.factor) for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        now = 1.0 if self.last_epoch >= self.total_iters else self.factor
        return [base * now for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """η = η₀·(1 − t/total_iters)^power until epoch `total_iters`, and 0 from there on.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.ones(1, requires_grad=True)], lr=1.0)
    >>> schedule = cr.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=4, power=2.0)
    >>> for _ in range(2):
    ...     optimizer.step()
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0,
                 last_epoch: int = -1) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, total = self.last_epoch, self.total_iters
        if self._step_count == 1 or t > total:
            return self._rates()
        change = ((1.0 - t / total) / (1.0 - (t - 1) / total)) ** self.power
        return [rate * change for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        left = (1.0 - min(self.total_iters, self.last_epoch) / self.total_iters) ** self.power
        return [base * left for base in self.base_lrs]


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
            self._check_groups(len(self.base_lrs))
            rise = (1 - math.cos(math.pi / period)) / 2
            return [rate + (base - low) * rise
                    for base, rate in zip(self.base_lrs, self._rates(), strict=True)]
        ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
        return [ratio * (rate - low) + low for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        part = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * part for base in self.base_lrs]


class _Several(LRScheduler):
    """Made of other schedules, whose states are saved with its own."""

    _schedulers: Sequence[Any]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(),
                "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        for schedule, saved in zip(self._schedulers, own.pop("_schedulers"), strict=True):
            schedule.load_state_dict(saved)
        super().load_state_dict(own)


class SequentialLR(_Several):
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
        schedulers[0]._step_count = 0
        schedulers[0]._advance(None)
        self._last_lr = schedulers[0].get_last_lr()

    def step(self, epoch: Any = None) -> None:
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        schedule = self._schedulers[index]
        if index and self._milestones[index - 1] == self.last_epoch:
            schedule._advance(0)
        else:
            schedule.step()
        self._last_lr = schedule.get_last_lr()


class ChainedScheduler(_Several):
    """Several schedules of one optimiser that all act in each step.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.ones(1, requires_grad=True)], lr=1.0)
    >>> schedules = cr.optim.lr_scheduler
    >>> both = schedules.ChainedScheduler([schedules.ConstantLR(optimizer, 0.5),
    ...                                    schedules.ExponentialLR(optimizer, 0.5)])
    >>> optimizer.step()
    >>> both.step()
    >>> both.get_last_lr()
    [0.25]
    """

    _unsaved = ("optimizer", "_schedulers")

    def __init__(self, schedulers: Sequence[LRScheduler],
                 optimizer: Optimizer | None = None) -> None:
        if not isinstance(schedulers, list | tuple) or not schedulers:
            raise SettingError("ChainedScheduler needs a list of at least one schedule")
        for index, schedule in enumerate(schedulers):
            if not isinstance(schedule, LRScheduler):
                raise TypeError(f"schedule {index} of ChainedScheduler is "
                                f"{type(schedule).__name__}, not a schedule")
            if isinstance(schedule, ReduceLROnPlateau):
                raise SettingError(f"schedule {index} of ChainedScheduler is ReduceLROnPlateau, "
                                   "whose step() needs a metric: call that one by itself")
            if schedule.optimizer is not (optimizer or schedulers[0].optimizer):
                raise SettingError(f"schedule {index} of ChainedScheduler belongs to another "
                                   "optimizer")
        self._schedulers = schedulers
        self.optimizer = optimizer or schedulers[0].optimizer
        self._last_lr = self._rates()

    def step(self, epoch: Any = None) -> None:
        """Moves all the schedules on by one, in their order."""
        if epoch is not None:
            raise SettingError("ChainedScheduler.step() takes no epoch: each of its schedules "
                               "counts for itself")
        for schedule in self._schedulers:
            schedule.step()
        self._last_lr = self._rates()


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
        self.default_min_lr = None if isinstance(min_lr, list | tuple) else min_lr
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
            if self.default_min_lr is not None:      # one limit holds for groups added later, too
                self.min_lrs = per_group("min_lr", self.default_min_lr,
                                         self.optimizer.param_groups)
            self._check_groups(len(self.min_lrs))
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
