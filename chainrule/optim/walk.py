"""`Walk`: one pass over all parameters of a group, in place, in pieces that stay in the cache.

A large parameter is cut into slices, so that the handful of passes an update needs find their
data in the cache. Small parameters that are at the same step are gathered into one flat piece, so
that a hundred biases cost the calls of one. The kept arrays of gathered parameters are views into
one flat array from then on; nobody outside can tell.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule.core.node import here, write_record, wrote_all
from chainrule.core.record import new
from chainrule.tensor import Tensor

if TYPE_CHECKING:
    from .optimizer import Group, Optimizer

# Elements in a piece. Six float32 arrays of this length fit in an L2 cache of 1 MiB; shorter pieces
# pay more calls (measured: 8 Ki 10 % slower, 64 Ki equal).
PIECE = 32768

Array = np.ndarray[Any, Any]


def effective_gradient(group: Group, p: Array, g: Array, s: Array, t: Array,
                       decay: Array | None) -> Array:
    """The gradient with `maximize` and L2 weight decay applied, in scratch `t`."""
    if group["maximize"]:
        g = np.negative(g, t)
    if decay is not None and group["weight_decay"]:
        np.multiply(p, decay, s)
        g = np.add(g, s, t)
    return g


class Entry(NamedTuple):
    """A parameter of the walk with its array and state as they were at planning: `kept` holds
    (slot, tensor, array), the count of steps among them."""

    p: Tensor
    array: Array
    state: dict[str, Any] | None
    kept: tuple[tuple[str, Any, Any], ...]


class Whole(NamedTuple):
    """A parameter taken as it is, with its slots and scratch of its shape; `source` numbers it."""

    p: Array
    slots: tuple[Array, ...]
    s: Array
    t: Array
    source: int


class Cut(NamedTuple):
    """A slice of a large parameter, flat."""

    p: Array
    slots: tuple[Array, ...]
    s: Array
    t: Array
    source: int
    part: slice


class Gathered(NamedTuple):
    """Small parameters in one flat piece; `members` holds (number, array, its part of `p`)."""

    p: Array
    g: Array
    slots: tuple[Array, ...]
    s: Array
    t: Array
    members: tuple[tuple[int, Array, Array], ...]


class Cohort:
    """Parameters of one dtype that are at the same step, hence with the same constants."""

    __slots__ = ("constants", "cut", "dtype", "fresh", "gathered", "last", "scalars", "steps",
                 "whole")

    def __init__(self, dtype: Any, steps: Array | None, scalars: tuple[Array, ...],
                 fresh: bool) -> None:
        self.dtype = dtype
        self.steps = steps
        self.scalars = scalars
        self.fresh = fresh
        self.whole: list[Whole] = []
        self.cut: list[Cut] = []
        self.gathered: list[Gathered] = []
        self.last: tuple[float, ...] = ()
        self.constants: tuple[Array, ...] = ()


class Walk:
    """The plan of one group: valid while the same parameters, in the same order and with the same
    arrays, have gradients and their state is the one it was made for."""

    def __init__(self, optimizer: Optimizer, group: Group, params: list[Tensor]) -> None:
        self.group = group
        self.params = list(group["params"])
        self.optimizer_state = optimizer.state
        self.names = optimizer._slots(group)
        self.entries: list[Entry] = []
        self.absent = [p for p in group["params"] if not any(p is q for q in params)] \
            if len(params) < len(group["params"]) else []
        self.cohorts: list[Cohort] = []
        states = [optimizer._state_of(group, p, self.names) for p in params]
        cohorts: dict[tuple[Any, ...], list[int]] = {}
        for index, (p, (state, fresh)) in enumerate(zip(params, states, strict=True)):
            count = float(state["step"]._value) if optimizer.counts_steps else 0.0
            scalars = [float(state[name]._value) for name in optimizer.scalars]
            key = (fresh, p._value.dtype.str, count, *scalars)
            cohorts.setdefault(key, []).append(index)
        merge = optimizer._merge_below(group)
        for (fresh, *_), members in cohorts.items():
            self._plan(params, states, members, fresh, merge, optimizer)
        self.records = [write_record(p._value) for p in params]
        slots = (*self.names, *optimizer.scalars, *(["step"] if optimizer.counts_steps else []))
        for p, (state, _) in zip(params, states, strict=True):
            self.entries.append(Entry(p, p._value, state if slots else None, tuple(
                [(slot, state[slot], state[slot]._value) for slot in slots])))

    def _plan(self, params: list[Tensor], states: list[Any], members: list[int], fresh: bool,
              merge: int, optimizer: Optimizer) -> None:
        def in_one(name: str) -> Array:
            """The members' numbers of this name as one array, of which each then keeps a view."""
            numbers = np.array([states[i][0][name]._value for i in members], np.float32)
            for place, i in enumerate(members):
                states[i][0][name] = new(numbers[place:place + 1].reshape(()))
            return numbers

        steps = in_one("step") if optimizer.counts_steps else None
        dtype = params[members[0]]._value.dtype
        cohort = Cohort(dtype, steps, tuple(map(in_one, optimizer.scalars)), fresh)
        small = [i for i in members if params[i]._value.size <= min(merge, PIECE)]
        if len(small) < 2:
            small = []
        gathered = set(small)
        room = PIECE
        for i in members:
            array = params[i]._value
            slots = tuple(states[i][0][name]._value for name in self.names)
            flat = array.flags.c_contiguous and all(k.flags.c_contiguous for k in slots)
            if i not in gathered and not (flat and array.size > PIECE):
                room = max(room, array.size)
        s, t = np.empty(room, dtype), np.empty(room, dtype)
        while small:
            batch: list[int] = []
            size = 0
            while small and (not batch or size + params[small[0]]._value.size <= PIECE):
                batch.append(small.pop(0))
                size += params[batch[-1]]._value.size
            cohort.gathered.append(self._gathered(params, states, batch, size, s, t))
        for i in members:
            if i in gathered:
                continue
            array = params[i]._value
            slots = tuple(states[i][0][name]._value for name in self.names)
            if array.size > PIECE and array.flags.c_contiguous and all(
                    kept.flags.c_contiguous for kept in slots):
                array, slots = array.reshape(-1), tuple(kept.reshape(-1) for kept in slots)
                for start in range(0, array.size, PIECE):
                    cut = slice(start, min(start + PIECE, array.size))
                    n = cut.stop - start
                    cohort.cut.append(Cut(array[cut], tuple(kept[cut] for kept in slots),
                                          s[:n], t[:n], i, cut))
            else:
                n, shape = array.size, array.shape
                cohort.whole.append(Whole(array, slots, s[:n].reshape(shape),
                                          t[:n].reshape(shape), i))
        self.cohorts.append(cohort)

    def _gathered(self, params: list[Tensor], states: list[Any], batch: list[int], size: int,
                  s: Array, t: Array) -> Gathered:
        dtype = params[batch[0]]._value.dtype
        p, g = np.empty(size, dtype), np.empty(size, dtype)
        slots = tuple(np.empty(size, dtype) for _ in self.names)
        members, start = [], 0
        for i in batch:
            array, state = params[i]._value, states[i][0]
            stop = start + array.size
            for name, flat in zip(self.names, slots, strict=True):
                view = flat[start:stop].reshape(array.shape)
                view[...] = state[name]._value
                state[name] = new(view)
            members.append((i, array, p[start:stop].reshape(array.shape)))
            start = stop
        return Gathered(p, g, slots, s[:size], t[:size], tuple(members))

    def gradients(self, group: Group, state: dict[Tensor, Any],
                  names: tuple[str, ...]) -> list[Array] | None:
        """The gradients as arrays, or None if the plan no longer fits."""
        params = group["params"]
        if (group is not self.group or state is not self.optimizer_state or names != self.names
                or len(params) != len(self.params)
                or not all(map(operator.is_, params, self.params))):
            return None
        for cohort in self.cohorts:          # a step that the user wrote parts the cohort
            steps = cohort.steps
            if steps is not None and (len(steps) > 1 and (steps != steps[0]).any()):
                return None
            for numbers in cohort.scalars:
                if (numbers != numbers[0]).any():
                    return None
        grads = []
        for p, array, kept_state, kept in self.entries:
            grad = p._grad
            if grad is None or p._value is not array:
                return None
            if kept_state is not None and state.get(p) is not kept_state:
                return None
            for slot, tensor, numbers in kept:
                if state[p].get(slot) is not tensor or tensor._value is not numbers:
                    return None
            value = grad._value
            if type(value) is not np.ndarray:
                return None
            grads.append(value)
        for p in self.absent:
            if p._grad is not None:
                return None
        return grads

    def run(self, optimizer: Optimizer, group: Group, grads: list[Array]) -> None:
        """One step of every parameter of the walk."""
        in_place: Callable[..., None] = optimizer._kernel(group)
        for cohort in self.cohorts:
            step = 0
            if cohort.steps is not None:
                step = int(cohort.steps[0]) + 1
                cohort.steps += 1
            scalars = optimizer._moved(group, step, *[numbers[0] for numbers in cohort.scalars])
            for numbers, moved in zip(cohort.scalars, scalars, strict=True):
                numbers[...] = moved
            c = constants_of(cohort, optimizer._constants(group, step, *scalars))
            fresh = cohort.fresh
            cohort.fresh = False
            for p, slots, s, t, i in cohort.whole:
                in_place(group, p, grads[i], slots, s, t, c, fresh)
            for p, g, slots, s, t, members in cohort.gathered:
                np.concatenate([grads[i].reshape(-1) for i, _, _ in members], out=g)
                np.concatenate([array.reshape(-1) for _, array, _ in members], out=p)
                in_place(group, p, g, slots, s, t, c, fresh)
                for _, array, view in members:
                    array[...] = view
            source, flat = -1, grads[0]
            for p, slots, s, t, i, part in cohort.cut:
                if i != source:
                    flat, source = grads[i].reshape(-1), i
                in_place(group, p, flat[part], slots, s, t, c, fresh)
        wrote_all(self.records, "optimizer.step()", here())


def constants_of(cohort: Cohort, numbers: tuple[float, ...]) -> tuple[Array, ...]:
    """The numbers as arrays of shape (), which NumPy takes faster than Python's floats."""
    if numbers != cohort.last:
        if not cohort.constants:
            cohort.constants = tuple(np.empty((), cohort.dtype) for _ in numbers)
        for array, number in zip(cohort.constants, numbers, strict=True):
            array[()] = number
        cohort.last = numbers
    return cohort.constants
