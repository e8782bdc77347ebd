"""`LRScheduler`, the base of the learning-rate schedules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.core.events import heard, tell
from chainrule.core.places import note_place

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
        note_place(self, "made")
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

    def step(self, epoch: Any = None) -> None:
        """Moves on by one, or to `epoch`, and sets the learning rates."""
        if "schedule" in heard:
            tell("schedule", scheduler=self)
        if self._step_count == 1 and not self.optimizer._stepped:
            warnings.warn(
                f"{type(self).__name__}.step() was called before optimizer.step(): the first "
                "learning rate is skipped. Call optimizer.step() first", UserWarning,
                stacklevel=2)
        self._advance(epoch)

    def _advance(self, epoch: Any) -> None:
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
        self._check_groups(len(rates))
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _check_groups(self, made_for: int) -> None:
        """Raises `SettingError` unless there still are as many groups as numbers for them."""
        now = len(self.optimizer.param_groups)
        if made_for == now:
            return
        groups = "group" if made_for == 1 else "groups"
        raise SettingError(
            f"{type(self).__name__}: the scheduler was made for {made_for} {groups}, the optimizer "
            f"now has {now}: it keeps numbers for each group and has none for those added later. "
            "Make it after the last add_param_group()")

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser (and functions)."""
        return {key: value for key, value in self.__dict__.items() if key not in self._unsaved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a `state_dict()`."""
        self.__dict__.update(state_dict)


def per_group(name: str, value: float | Sequence[float], groups: list[Any]) -> list[float]:
    """One number for every parameter group: `value` repeated, or its elements."""
    if isinstance(value, list | tuple):
        if len(value) != len(groups):
            raise SettingError(f"{name} has {len(value)} numbers for {len(groups)} groups")
        return list(value)
    return [value] * len(groups)  # type: ignore[list-item]
