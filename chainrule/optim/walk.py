"""`Walk`: one pass over all parameters of a group, in place, in pieces that stay in the cache.

A large parameter is cut into slices, so that the handful of passes an update needs find their
data in the cache. Small parameters that are at the same step are gathered into one flat piece, so
that a hundred biases cost the calls of one. The kept arrays of gathered parameters are views into
one flat array from then on; nobody outside can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule.core.node import here, wrote
from chainrule.core.record import new
from chainrule.tensor import Tensor

if TYPE_CHECKING:
    from .optimizer import Group, Optimizer

# Elements in a piece: measured best between 8 and 32 Ki, where five float32 arrays fit in L2.
PIECE = 16384

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
    """A parameter of the walk with its array, state and first slot as they were at planning."""

    p: Tensor
    array: Array
    state: dict[str, Any] | None
    slot: str
    kept: Any


class Piece(NamedTuple):
    """Arrays of one shape that `_in_place` is run on.

    `source` is the index of the one parameter; `cut` its slice when it is cut up. A gathered piece
    has `members`: (index, flat view of the parameter, view of its part of `p`).
    """

    p: Array
    slots: tuple[Array, ...]
    s: Array
    t: Array
    source: int
    cut: slice | None
    g: Array | None
    members: tuple[tuple[int, Array, Array], ...]


class Cohort:
    """Parameters of one dtype that are at the same step, hence with the same constants."""

    __slots__ = ("constants", "fresh", "last", "pieces", "steps")

    def __init__(self, steps: Array | None, fresh: bool) -> None:
        self.steps = steps
        self.fresh = fresh
        self.pieces: list[Piece] = []
        self.last: tuple[float, ...] = ()
        self.constants: tuple[Array, ...] = ()


class Walk:
    """The plan of one group: valid while the same parameters, with the same arrays, have
    gradients and their state is the one it was made for."""

    def __init__(self, optimizer: Optimizer, group: Group, params: list[Tensor]) -> None:
        self.optimizer_state = optimizer.state
        self.names = optimizer._slots(group)
        self.entries: list[Entry] = []
        self.in_place: Callable[..., None] = optimizer._in_place
        self.constants_of = optimizer._constants
        self.absent = [p for p in group["params"] if not any(p is q for q in params)] \
            if len(params) < len(group["params"]) else []
        self.cohorts: list[Cohort] = []
        states = [optimizer._state_of(group, p, self.names) for p in params]
        cohorts: dict[tuple[str, float, bool], list[int]] = {}
        for index, (p, (state, fresh)) in enumerate(zip(params, states, strict=True)):
            count = float(state["step"]._value) if optimizer.counts_steps else 0.0
            key = (p._value.dtype.str, count, fresh)
            cohorts.setdefault(key, []).append(index)
        merge = optimizer._merge_below(group)
        for (_, _, fresh), members in cohorts.items():
            self._plan(params, states, members, fresh, merge, optimizer.counts_steps)
        first = self.names[0] if self.names else ""
        for p, (state, _) in zip(params, states, strict=True):
            self.entries.append(Entry(p, p._value, state if self.names else None, first,
                                      state.get(first)))

    def _plan(self, params: list[Tensor], states: list[Any], members: list[int], fresh: bool,
              merge: int, counts: bool) -> None:
        steps = None
        if counts:
            steps = np.array([states[i][0]["step"]._value for i in members], np.float32)
            for place, i in enumerate(members):
                states[i][0]["step"] = new(steps[place:place + 1].reshape(()))
        cohort = Cohort(steps, fresh)
        dtype = params[members[0]]._value.dtype
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
            batch, size = [], 0
            while small and (not batch or size + params[small[0]]._value.size <= PIECE):
                batch.append(small.pop(0))
                size += params[batch[-1]]._value.size
            cohort.pieces.append(self._gathered(params, states, batch, size, s, t))
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
                    cohort.pieces.append(Piece(array[cut], tuple(kept[cut] for kept in slots),
                                               s[:n], t[:n], i, cut, None, ()))
            else:
                n, shape = array.size, array.shape
                cohort.pieces.append(Piece(array, slots, s[:n].reshape(shape),
                                           t[:n].reshape(shape), i, None, None, ()))
        self.cohorts.append(cohort)

    def _gathered(self, params: list[Tensor], states: list[Any], batch: list[int], size: int,
                  s: Array, t: Array) -> Piece:
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
        return Piece(p, slots, s[:size], t[:size], -1, None, g, tuple(members))

    def gradients(self, state: dict[Tensor, Any],
                  names: tuple[str, ...]) -> list[Array] | None:
        """The gradients as arrays, or None if the plan no longer fits."""
        if state is not self.optimizer_state or names != self.names:
            return None
        grads = []
        for p, array, kept_state, slot, kept in self.entries:
            grad = p._grad
            if grad is None or p._value is not array:
                return None
            if kept_state is not None and (state.get(p) is not kept_state
                                           or kept_state.get(slot) is not kept):
                return None
            value = grad._value
            if type(value) is not np.ndarray:
                return None
            grads.append(value)
        for p in self.absent:
            if p._grad is not None:
                return None
        return grads

    def run(self, group: Group, grads: list[Array]) -> None:
        """One step of every parameter of the walk."""
        in_place = self.in_place
        for cohort in self.cohorts:
            step = 0
            if cohort.steps is not None:
                step = int(cohort.steps[0]) + 1
                cohort.steps += 1
            constants = self._constants(cohort, group, step)
            fresh, flat, source = cohort.fresh, None, -1
            cohort.fresh = False
            for p, slots, s, t, i, cut, g, members in cohort.pieces:
                if members:
                    np.concatenate([grads[k].reshape(-1) for k, _, _ in members], out=g)
                    np.concatenate([array.reshape(-1) for _, array, _ in members], out=p)
                    in_place(group, p, g, slots, s, t, constants, fresh)
                    for _, array, view in members:
                        array[...] = view
                elif cut is None:
                    in_place(group, p, grads[i], slots, s, t, constants, fresh)
                else:
                    if i != source:
                        flat, source = grads[i].reshape(-1), i
                    in_place(group, p, flat[cut], slots, s, t, constants, fresh)  # type: ignore
        place = here()
        for entry in self.entries:
            wrote(entry.array, "optimizer.step()", place)

    def _constants(self, cohort: Cohort, group: Group, step: int) -> tuple[Array, ...]:
        """The constants as arrays of shape (), which NumPy takes faster than Python's floats."""
        numbers = self.constants_of(group, step)
        if numbers != cohort.last:
            if not cohort.constants:
                dtype = cohort.pieces[0].p.dtype
                cohort.constants = tuple(np.empty((), dtype) for _ in numbers)
            for array, number in zip(cohort.constants, numbers, strict=True):
                array[()] = number
            cohort.last = numbers
        return cohort.constants
