"""Optimisers inside a trace. `Option`: a number such as lr that each call brings anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.errors import TracedValueError
from chainrule.core.node import PACKAGE, Origin
from chainrule.core.types import ArrayType
from chainrule.tensor import Tensor

from .guards import told


class Option(Tensor):
    """A traced number whose truth (is there momentum, weight decay?) is known and guarded."""

    __slots__ = ("source", "truths", "value")

    truths: list[Any]
    source: Any
    value: float

    def __new__(cls, tensor: Any, truths: list[Any], source: Any, value: float) -> Option:
        self = super().__new__(cls)
        self._value = None
        self._node = tensor._node
        self._grad = self._extra = None
        self.truths = truths
        self.source = source
        self.value = value
        return self

    def __init__(self, *_: Any) -> None:
        """Everything is done in `__new__`."""

    def __bool__(self) -> bool:
        truth = bool(self.value)
        self.truths.append((*self.source, truth))
        return truth


def option(capture: Any, holder: Any, path: tuple[Any, ...], value: float) -> Any:
    """A number of an optimiser's group as a traced one, so that it may change between calls."""
    key = (id(holder), path)
    found = capture.numbers.get(key)
    if found is None:
        tensor = capture.source("number", (holder, path), ArrayType((), np.dtype(np.float64)))
        found = capture.numbers[key] = Option(tensor, capture.truths, (holder, path), value)
    return found


def optimizer_step(capture: Any, optimizer: Any, closure: Any) -> Any:
    """One step by the formula; numbers of the groups are brought by each call."""
    if optimizer._pre_hooks or optimizer._post_hooks:
        where = Origin.now()
        raise TracedValueError(
            f"{type(optimizer).__name__}.step() at {where} has step hooks: Python functions "
            f"that would run once and not in each call.\n    {where.source()}\nRemove them, or "
            "call what they do after the compiled function.")
    loss = None
    if closure is not None:
        with capture.recorded_as(True):
            loss = closure()
    capture.optimizers[id(optimizer)] = optimizer
    for group in optimizer.param_groups:
        params = [p for p in group["params"] if p.grad is not None]
        prepare_states(capture, optimizer, group, params)
        optimizer._step_by_formula(options_of(capture, group), params)
    optimizer._stepped = True                 # what schedulers ask
    return loss


class States:
    """What optimisers keep for their parameters before a run, which must not change it unseen."""

    def __init__(self, optimizers: list[Any]) -> None:
        self.held = [(optimizer, {p: dict(kept) for p, kept in optimizer.state.items()})
                     for optimizer in optimizers]

    def put_back(self, capture: Any) -> tuple[str, str]:
        """Undo what code that is not this library's did: (what it made, what it changed)."""
        made = changed = ""
        for optimizer, before in self.held:
            if capture is not None and id(optimizer) in capture.optimizers:
                continue
            name = type(optimizer).__name__
            # The library's own read their state in step() alone, and that was not run.
            if capture is not None and not type(optimizer).__module__.startswith(f"{PACKAGE}."):
                capture.others.append(optimizer)
            for p, kept in list(optimizer.state.items()):
                known = before.get(p)
                for slot in list(kept):
                    if known is None or slot not in known:
                        made = made or f"the state {slot!r} of {name}"
                        del kept[slot]
                    elif kept[slot] is not known[slot]:
                        changed = changed or (f"state[p][{slot!r}] of {name}, "
                                              f"{told(known[slot])}, to {told(kept[slot])}")
                        kept[slot] = known[slot]
                if known is None and not kept:
                    optimizer.state.pop(p)
        return made, changed


def prepare_states(capture: Any, optimizer: Any, group: Any, params: list[Any]) -> None:
    """States that this run makes are states from outside, from the next moment on."""
    names = optimizer._slots(group)
    if not names and not optimizer.counts_steps:
        return
    for p in params:
        had = dict(optimizer.state[p]) if p in optimizer.state else None
        held, fresh = optimizer._state_of(group, p, names)
        if not fresh:
            continue
        capture.undo.append(lambda p=p, had=had: _restore(optimizer.state, p, had))
        for slot, tensor in held.items():
            if had is None or had.get(slot) is not tensor:
                capture.adopt(tensor)
        if not optimizer._starts_at_zero(group):
            capture.once = "the first step of an optimiser starts differently from the later ones"
            capture.fresh.add(id(p))


def options_of(capture: Any, group: Any) -> dict[str, Any]:
    """The group with its numbers traced; everything else is as it is, and guarded."""
    traced = dict(group)
    for key, value in group.items():
        if key == "params":
            continue
        if type(value) in (int, float):
            traced[key] = option(capture, group, (key,), value)
        elif isinstance(value, (tuple, list)) and value and all(
                type(x) in (int, float) for x in value):
            traced[key] = type(value)(
                option(capture, group, (key, i), x) for i, x in enumerate(value))
        elif isinstance(value, np.ndarray | np.number):
            traced[key] = option(capture, group, (key,), float(value))
    return traced


def _restore(states: Any, p: Any, had: dict[str, Any] | None) -> None:
    if had is None:
        states.pop(p, None)
    else:
        states[p].clear()
        states[p].update(had)
