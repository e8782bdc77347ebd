"""Trying something on the user's own objects and leaving no trace of it."""

from __future__ import annotations

import copy
import inspect
import random as python_random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from chainrule import random
from chainrule.core.node import write_record
from chainrule.nn import Module
from chainrule.optim import Optimizer
from chainrule.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from chainrule.tensor import Tensor


@contextmanager
def kept(modules: list[Module], optimizers: list[Optimizer],
         others: Iterable[Any] = ()) -> Iterator[None]:
    """What the block does to parameters, buffers, gradients, modes, optimisers and random numbers
    is taken back when it ends, in place: views and other holders of the same memory see it too.

    others   schedulers and NumPy's generators, which are put back as well; the random numbers of
             chainrule, of NumPy and of Python's `random` always are
    """
    schedules = [(one, copy.deepcopy(one.state_dict())) for one in others
                 if isinstance(one, LRScheduler | ReduceLROnPlateau)]
    generators = [(one, one.bit_generator.state) for one in others
                  if isinstance(one, np.random.Generator)]
    # The legacy generator is what np.random.rand() and its like draw from.
    numpys, pythons = np.random.get_state(), python_random.getstate()  # noqa: NPY002
    tensors: dict[int, Tensor] = {}
    parts = [part for module in modules for part in module.modules()]
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            tensors[id(tensor)] = tensor
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                tensors[id(tensor)] = tensor
    values = [(t, np.array(t._value), t._grad,
               None if t._grad is None else np.array(t._grad._value)) for t in tensors.values()]
    written = [(r, r.seq, r.count, r.place, r.what) for r in {
        id(one): one for t in tensors.values()
        for own in (write_record(t._value),) for one in (own, *own.shared)}.values()]
    buffers = [(part, dict(part._buffers)) for part in parts]
    modes = [(part, part.training) for part in parts]
    states = [(o, o.state_dict(), _copied(o.state_dict()), dict(o.state)) for o in optimizers]
    seeds = random.get_rng_state()
    try:
        yield
    finally:
        random.set_rng_state(seeds)
        np.random.set_state(numpys)  # noqa: NPY002
        python_random.setstate(pythons)
        for generator, position in generators:
            generator.bit_generator.state = position
        for schedule, where in schedules:
            schedule.load_state_dict(where)
        for tensor, value, gradient, numbers in values:
            if tensor._value.shape == value.shape and tensor._value.flags.writeable:
                tensor._value[...] = value
            tensor._grad = gradient
            if gradient is not None and gradient._value.flags.writeable:
                gradient._value[...] = numbers
        for record, seq, count, place, what in written:      # a graph that waits is still good
            record.seq, record.count, record.place, record.what = seq, count, place, what
        for part, own in buffers:
            for name, buffer in own.items():
                if part._buffers.get(name) is not buffer:
                    setattr(part, name, buffer)
        for part, mode in modes:
            if part.training is not mode:
                part.training = mode
        for optimizer, _, saved, had in states:
            optimizer.load_state_dict(saved)
            if not had:
                optimizer.state.clear()


def _copied(state: Any) -> Any:
    """A state dict with tensors of its own."""
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state.detach().clone() if isinstance(state, Tensor) else state


def reached(function: Callable[..., Any]) -> tuple[list[Module], list[Optimizer], list[Any]]:
    """The modules, the optimisers, and the schedulers and generators that a function reaches: its
    own, its closure's, its globals'.
    """
    things: list[Any] = [function, getattr(function, "__self__", None)]
    inner = inspect.unwrap(function)
    inner = getattr(inner, "function", inner)          # of a compiled function
    if inspect.ismethod(inner):
        things.append(inner.__self__)
        inner = inner.__func__
    if inspect.isfunction(inner):
        found = inspect.getclosurevars(inner)
        things += [*found.nonlocals.values(), *found.globals.values()]
        things += [*(inner.__defaults__ or ()), *(inner.__kwdefaults__ or {}).values()]
    for thing in list(things):
        if isinstance(thing, (list, tuple)):
            things += thing
        elif isinstance(thing, dict):
            things += thing.values()
        elif hasattr(thing, "__dict__") and not isinstance(thing, (Module, type)) and not (
                inspect.ismodule(thing) or inspect.isroutine(thing)):
            things += vars(thing).values()
    modules = {id(x): x for x in things if isinstance(x, Module)}
    optimizers = {id(x): x for x in things if isinstance(x, Optimizer)}
    others = {id(x): x for x in things
              if isinstance(x, LRScheduler | ReduceLROnPlateau | np.random.Generator)}
    return list(modules.values()), list(optimizers.values()), list(others.values())
