"""`Entry`: what one run of a function was compiled to, and how it is run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.bind import Value, bind, state
from chainrule.core.changes import Watched, WatchedList, changes
from chainrule.core.config import settings
from chainrule.core.node import (
    Write,
    here,
    share_record,
    storage_of,
    write_record,
    wrote_all,
)
from chainrule.core.record import extra, new
from chainrule.core.types import ArrayType

from .capture import Capture
from .guards import Watch
from .interpret import executable
from .numbers import stored
from .outside import attach_history
from .program import Program
from .results import Structure, flatten, unflatten
from .slots import Shadow, hooks_of

Array = np.ndarray[Any, Any]
count = sys.getrefcount


class Argument:
    """What a tensor among the arguments must be: its class, type, and whether it is tracked."""

    __slots__ = ("dtype", "kind", "number", "order", "shape", "slot", "strides", "tracked")

    def __init__(self, number: int, x: Any) -> None:
        self.number = number
        self.kind = type(x)
        self.shape = tuple(x.shape)
        self.dtype = x.dtype
        self.tracked = history_of(x)
        self.order: bool | None = None      # must its elements (not) lie in row-major order?
        self.strides: tuple[int, ...] = ()  # and if they must not, in which
        self.slot = -1                      # which input it is; -1 where its numbers are not read

    def __str__(self) -> str:
        mark = ("", ", a leaf that requires a gradient", ", computed with a history")
        return f"{ArrayType(self.shape, self.dtype)}{mark[self.tracked]}"


def strides_of(array: Array) -> Any:
    """How the elements lie; None for row-major order, which a shape has but one."""
    return None if array.flags.c_contiguous else array.strides


def history_of(x: Any) -> int:
    """0 for a tensor without gradient, 1 for a leaf that wants one, 2 for a computed one."""
    node = x._node
    return 0 if node is None else 1 if node.prim is None else 2


class Entry:
    """A compiled run. Its lock is held while it checks and runs."""

    def __init__(self, program: Program, capture: Capture, watches: list[Watch],
                 leaves: Sequence[Any], structure: Structure, simple: bool,
                 mode: tuple[Any, ...], names: list[str], function: Any,
                 owners: Sequence[Any] = ()) -> None:
        self.function = function             # of the leaves, run by Python
        self.lock = threading.Lock()
        self.program = program
        self.structure = structure
        self.simple = simple
        self.names = names
        self.mode = mode
        self.once = capture.once
        self.general: Any = None             # how it is called: see ways.py
        self.call: Any = None
        self.count = len(leaves)
        self.arguments = [Argument(i, x) for i, x in enumerate(leaves) if isinstance(x, Value)]
        tape = capture.tape
        self.evaluation = None if tape is None else tape.close()     # of the numbers of a call
        loose = set() if tape is None else set(tape.reads)
        self.values = [(i, x) for i, x in enumerate(leaves)
                       if not isinstance(x, Value) and i not in loose]
        first: dict[int, int] = {}
        self.equal = [(first[id(x)], i) for i, x in enumerate(leaves) if isinstance(x, Value)
                      and first.setdefault(id(x), i) != i]
        # Different tensors of one type: code may ask for it, and gradients tell them apart.
        self.pairs = [(a.number, b.number) for k, b in enumerate(self.arguments)
                      for a in self.arguments[:k] if (a.shape, a.dtype) == (b.shape, b.dtype)
                      and leaves[a.number] is not leaves[b.number]]
        # What `slow` watches look at; each says when it was written.
        self.structure_owners = {id(x): x for x in owners}
        self.watches = [w for w in watches if not w.slow]
        self.slow = [w for w in watches if w.slow]
        self.optimizers = list(capture.optimizers.values())
        self.groups = [(optimizer, i, group, list(group["params"]), constants_of(group))
                       for optimizer in self.optimizers
                       for i, group in enumerate(optimizer.param_groups)]
        # Groups that the user put in the place of the optimiser's own are read on each call.
        self.unwatched = in_arrays(self.groups)
        self.holders = [(optimizer, optimizer.param_groups, list(optimizer.param_groups),
                         optimizer.state) for optimizer in self.optimizers]
        self.kept = [(optimizer, optimizer.state, p, dict(optimizer.state[p]))
                     for optimizer, _, _, params, _ in self.groups for p in params
                     if p in optimizer.state]
        self.kept += [(optimizer, optimizer.state, p, dict(held)) for optimizer in capture.others
                      for p, held in optimizer.state.items()]
        self.truths: list[tuple[Any, Any, bool]] = capture.truths
        self.draws = [(generator, sum(offsets)) for generator, _, offsets in capture.keys.values()]
        self.backward: Any = None            # built when first asked for
        self._place_inputs(capture)
        self.executable: Any = executable(program.graph, program.written)
        self.moment, self.options_moment = changes.moment, changes.options
        self._note_owners()
        self.refresh()
        self.gates = 8                       # how often the gate may be made anew

    # ------------------------------------------------------------ building

    def _place_inputs(self, capture: Capture) -> None:
        program = self.program
        self.buffers: list[Any] = [None] * len(program.inputs)
        self.numbers: list[tuple[Array, Any, tuple[Any, ...]]] = []
        self.gradients: list[tuple[int, Shadow, tuple[int, ...], Any]] = []
        self.scalars: list[tuple[Array, int, Any]] = []
        self.keys: list[tuple[Array, Any]] = []
        self.drawn: list[tuple[int, Any, int, Any]] = []
        slots: dict[int, int] = {}
        for slot, entry in enumerate(program.inputs):
            if entry.kind == "argument":
                for argument in self.arguments:
                    if argument.number == entry.place:
                        argument.slot = slot
            elif entry.kind == "state":
                slots[id(entry.shadow)] = slot
            elif entry.kind == "gradient":
                self.gradients.append((slot, entry.place, entry.node.shape, entry.node.dtype))
            elif entry.kind == "number":
                self.buffers[slot] = np.zeros((), np.float64)
                self.numbers.append((self.buffers[slot], *entry.place))
            elif entry.kind == "scalar":
                place, dtype = entry.place
                self.buffers[slot] = np.zeros((), dtype)
                self.scalars.append((self.buffers[slot], place, dtype))
            elif entry.kind == "key":
                self.buffers[slot] = np.zeros(2, np.int64)
                self.keys.append((self.buffers[slot], entry.place))
            else:
                self.drawn.append((slot, *entry.place))
        # Tensors from outside: their array and node, and the input their numbers are, if any.
        self.states: list[list[Any]] = []
        self.ordered: dict[int, Any] = {}        # the strides of those where they were asked for
        self.grad_guards: list[tuple[Shadow, Any]] = []
        self.hooks: list[tuple[Any, list[Any]]] = []
        for shadow in capture.shadows.values():
            kind = shadow.input.kind if shadow.input is not None else "state"
            if kind == "argument" and shadow.order_asked:
                argument = next(a for a in self.arguments if a.number == shadow.input.place)
                argument.order = bool(shadow.array.flags.c_contiguous)
                argument.strides = shadow.array.strides
            if kind == "state":
                if shadow.order_asked:
                    self.ordered[len(self.states)] = strides_of(shadow.array)
                self.states.append([shadow.tensor, shadow.array, shadow.leaf,
                                    slots.get(id(shadow), -1)])
                self.hooks.append((shadow.tensor, hooks_of(shadow.tensor)))
            if shadow.grad_read:
                first = shadow.first_grad
                known = first is not None and id(first) in capture.shadows and capture.shadows[
                    id(first)].input is not None and capture.shadows[
                    id(first)].input.kind == "state"
                self.grad_guards.append((shadow, first if known else first is not None))
        self.used = {id(held[0]) for held in self.states}
        self.copied: set[int] = set()
        self.targets = [(k, i) for k, i in enumerate(program.written) if i is not None]
        self.outputs: list[Any] = [None] * len(program.written)
        self.space: dict[str, Any] = {}          # the names of the shortcut
        for number in range(len(self.states)):
            self._bind(number)
        self.fresh = [(k, out.shape, out.dtype) for k, (i, out) in enumerate(zip(
            program.written, program.graph.outputs, strict=True)) if i is None]
        read = {id(entry.place) for entry in program.inputs if entry.kind == "gradient"}
        self.pooled: dict[int, tuple[Shadow, int]] = {}
        self.pool: dict[int, Any] = {}
        for shadow, recipe in program.grads:
            if recipe is not None and program.recipes[recipe][0] == "output" and (
                    id(shadow) not in read):
                self.pooled[program.recipes[recipe][1]] = (shadow, recipe)
        self.made_by = {data: number for number, (kind, data) in enumerate(program.recipes)
                        if kind == "output"}
        self.writes_arguments = any(program.inputs[i].kind == "argument" for _, i in self.targets)
        self.plain = (len(program.recipes) == 1 and program.recipes[0] == ("output", 0)
                      and not self.structure_of_result() and not self.targets
                      and not program.grads and not program.moved and len(self.outputs) == 1)
        self.grads_of_arguments = any(s.input is not None and s.input.kind == "argument"
                                      for s, _ in program.grads)
        self.owners: dict[int, Any] = {}
        self.records: list[Write] = []
        self.written = Write()               # one record for all that a call writes
        self._find_owners()

    def structure_of_result(self) -> bool:
        assert self.program.structure is not None
        return self.program.structure.kind is not None

    def _bind(self, number: int) -> None:
        """Let an input be the array that a tensor has now."""
        held = self.states[number]
        tensor, _, _, slot = held
        held[1], held[2] = tensor._value, tensor._node
        if self.space:
            self.space[f"array{number}"], self.space[f"leaf{number}"] = held[1], held[2]
        if slot >= 0:
            array = held[1]
            good = array.flags.carray
            self.buffers[slot] = array if good else np.array(array, order="C")
            if good:
                self.copied.discard(slot)
            else:
                self.copied.add(slot)
                self.call = self.general     # until a shorter way is chosen again
            for k, i in self.targets:
                if i == slot:
                    self.outputs[k] = self.buffers[i]

    def _find_owners(self) -> None:
        """The memory this entry writes, by the ids of its owners, and the records of writes."""
        program = self.program
        arrays = []
        by_slot = {held[3]: held[1] for held in self.states if held[3] >= 0}
        for _, i in self.targets:
            if i in by_slot:
                arrays.append(by_slot[i])
        for shadow, _ in program.moved:
            arrays.append(shadow.tensor._value)
        self.owners.clear()
        self.owners.update({id(storage_of(array)): array for array in arrays})
        for array in arrays:
            share_record(array, self.written)
        self.records[:] = [self.written] if arrays else []

    def _note_owners(self) -> None:
        """Everything whose write can matter: modules, optimisers, their dictionaries, tensors."""
        owned = self.structure_owners
        for optimizer, _, group, _, _ in self.groups:
            for x in (optimizer, optimizer.state, group, group["params"]):
                owned[id(x)] = x
        for _, states, p, _ in self.kept:
            owned[id(states)], owned[id(states[p])] = states, states[p]
        for tensor, _ in self.hooks:
            owned[id(tensor)] = tensor

    def evaluate(self, leaves: Sequence[Any]) -> bool:
        """Compute what tensors meet from the numbers of this call; False where a guard fails."""
        evaluation = self.evaluation
        assert evaluation is not None
        for i, kind in evaluation.reads:
            if type(leaves[i]) is not kind:
                return False
        if evaluation.run(*[leaves[i] for i, _ in evaluation.reads]) >= 0:
            return False
        found = evaluation.found
        for array, place, dtype in self.scalars:
            array[()] = stored(found[place], dtype)
        return True

    def refresh(self) -> None:
        """Read the numbers of the optimisers."""
        for array, holder, path in self.numbers:
            array[()] = read_option(holder, path)

    def tensor_of(self, shadow: Shadow | None, leaves: Sequence[Any]) -> Any:
        """The tensor that a shadow stood for, in this call."""
        assert shadow is not None
        entry = shadow.input
        if entry is None or entry.kind == "state":
            return shadow.tensor
        if entry.kind == "argument":
            return leaves[entry.place]
        return self.tensor_of(entry.place, leaves)._grad

    def call_again(self, leaves: Sequence[Any]) -> list[Any]:
        """The results that carry gradients, computed by Python."""
        program = self.program
        assert program.differentiable is not None
        found, _ = flatten(self.function(leaves))
        places = {recipe: i for i, (is_tensor, recipe) in enumerate(program.leaves) if is_tensor}
        return [found[places[self.made_by[k]]] for k in program.differentiable.results]

    # ------------------------------------------------------------ running

    def run(self, leaves: Sequence[Any]) -> Any:
        """Run on arguments it serves; returns what the function returns."""
        buffers, outputs = self.buffers, self.outputs
        if self.draws:
            self.draw()
        if self.plain:
            _, shape, dtype = self.fresh[0]
            outputs[0] = array = np.empty(shape, dtype)
            self.executable.run(buffers, outputs)
            result = new(array, self.program.spent.get(0))
            if self.mode[1]:
                state_inference(result)
            if self.program.differentiable is not None:
                attach_history(self, leaves, [result], outputs)
            outputs[0] = None
            self.let_go()
            return result
        for slot in self.copied:
            np.copyto(buffers[slot], self.array_of(slot))
        for k, i in self.targets:
            outputs[k] = buffers[i]
        for k, shape, dtype in self.fresh:
            if k not in self.pooled or not self.reusable(k, leaves):
                outputs[k] = np.empty(shape, dtype)
        self.executable.run(buffers, outputs)
        return self.finish(leaves)

    def array_of(self, slot: int) -> Any:
        return next(held[1] for held in self.states if held[3] == slot)

    def reusable(self, k: int, leaves: Sequence[Any]) -> bool:
        """Is the gradient of the last call held by nobody but its tensor and this entry?"""
        tensor = self.pool.get(k)
        if tensor is None:
            return False
        shadow = self.pooled[k][0]
        attached = self.tensor_of(shadow, leaves)._grad is tensor
        if count(tensor) != 3 + attached or tensor._extra is not None or tensor._node is not None:
            return False
        array = tensor._value
        return array is self.outputs[k] and count(array) == 4

    def draw(self) -> None:
        """Take the random numbers of this call, and let the generators move on."""
        for generator, total in self.draws:
            with generator._lock:
                seed, drawn = generator._seed, generator.drawn
                generator.drawn = drawn + total
            for array, source in self.keys:
                if source is generator:
                    array.view(np.uint64)[:] = (seed, drawn)
            for slot, source, offset, numbers in self.drawn:
                if source is generator:
                    key = np.array([seed, drawn + offset], np.uint64).view(np.int64)
                    self.buffers[slot] = np.array(numbers(key), order="C", copy=None)

    def finish(self, leaves: Sequence[Any]) -> Any:
        """Put the outputs where they belong, and make the results."""
        program, outputs = self.program, self.outputs
        for k, i in self.targets:
            entry = program.inputs[i]
            if entry.kind == "state":
                if i in self.copied:
                    np.copyto(self.array_of(i), outputs[k])
            else:
                assert entry.shadow is not None
                array = self.tensor_of(entry.shadow, leaves)._value
                if array is not outputs[k]:
                    np.copyto(array, outputs[k])
        if self.targets:
            place = here()
            others = [write_record(self.tensor_of(program.inputs[i].shadow, leaves)._value)
                      for _, i in self.targets if program.inputs[i].kind != "state"]
            wrote_all([*self.records, *others], "a compiled function", place)
        for shadow, k in program.moved:
            tensor = self.tensor_of(shadow, leaves)
            tensor._value = outputs[k]
            outputs[k] = None
        for optimizer in self.optimizers:
            optimizer._stepped = True
        made = self.tensors(leaves)
        for shadow, recipe in program.grads:
            tensor = self.tensor_of(shadow, leaves)
            grad = None if recipe is None else made[recipe]
            if tensor._grad is not grad:
                tensor._grad = grad
        if program.differentiable is not None:
            attach_history(self, leaves, made, outputs)
        for k, _, _ in self.fresh:
            if k not in self.pooled:
                outputs[k] = None
        for k, (_, recipe) in self.pooled.items():
            self.pool[k] = made[recipe]
        self.let_go()
        found = iter([made[x] if is_tensor else x for is_tensor, x in program.leaves])
        assert program.structure is not None
        return unflatten(program.structure, found)

    def let_go(self) -> None:
        """Keep no array of the arguments."""
        for argument in self.arguments:
            if argument.slot >= 0:
                self.buffers[argument.slot] = None
        for slot, *_ in self.gradients:
            self.buffers[slot] = None
        for slot, *_ in self.drawn:
            self.buffers[slot] = None

    def tensors(self, leaves: Sequence[Any]) -> list[Any]:
        """The tensors of the recipes, in order."""
        made: list[Any] = []
        outputs = self.outputs
        inference = self.mode[1]
        for number, (kind, data) in enumerate(self.program.recipes):
            if kind == "output":
                pooled = self.pool.get(data) if data in self.pooled else None
                if pooled is not None and pooled._value is outputs[data]:
                    made.append(pooled)
                else:
                    made.append(new(outputs[data], self.program.spent.get(number)))
            elif kind == "argument":
                made.append(leaves[data])
            elif kind == "object":
                made.append(data)
            elif kind == "constant":
                made.append(new(data.copy()))
            elif kind == "scalar":
                made.append(self.evaluation.found[data])  # type: ignore[union-attr]
            elif kind == "gradient":
                made.append(self.tensor_of(data, leaves)._grad)
            elif kind == "attach":
                made[data[0]]._grad = made[data[1]]
                made.append(None)
            else:
                made.append(seen_as(made[data[0]], data[1], data[2]))
            if inference and kind in ("output", "constant") and made[number] is not None:
                state_inference(made[number])
        return made


def state_inference(tensor: Any) -> None:
    """Results of a function that was called under inference_mode carry its mark."""
    extra(tensor).inference = True


def seen_as(tensor: Any, steps: list[Any], tracked: bool) -> Any:
    """A view or detached twin of a tensor, made as the function made it."""
    before = state.recording
    state.recording = (before or 1) if tracked else 0
    try:
        for step in steps:
            tensor = tensor.detach() if step is None else bind(step[0], tensor, **step[1])
    finally:
        state.recording = before
    return tensor


def in_arrays(groups: Any) -> bool:
    """May options change unseen: in a dictionary or list of the user's, or in arrays?"""
    return any(not isinstance(group, Watched) or not isinstance(group["params"], WatchedList)
               or any(isinstance(value, np.ndarray) for value in group.values())
               for _, _, group, _, _ in groups)


def constants_of(group: Any) -> dict[str, Any]:
    """The options of a group that are not numbers: flags, names, None."""
    found = {}
    for key, value in group.items():
        if key in ("params", "initial_lr") or type(value) in (int, float) or isinstance(
                value, np.ndarray | np.number):
            continue
        if isinstance(value, (tuple, list)):
            found[key] = tuple([None if type(x) in (int, float) else x for x in value])
        else:
            found[key] = value
    return found


def read_option(holder: Any, path: tuple[Any, ...]) -> float:
    """A number of an optimiser's group, now."""
    for key in path:
        holder = holder[key]
    return float(holder)


def mode_now() -> tuple[Any, ...]:
    """What is set for all functions and decides what is recorded."""
    return (state.recording, state.inference, settings.default_dtype, settings.compile)

