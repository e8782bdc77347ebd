"""`Entry`: what one run of a function was compiled to, when it serves, and how it is called."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.bind import Value, bind, state
from chainrule.core.changes import Watched, changes
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
from chainrule.core.types import ArrayType, type_of

from .call import MISS, gated, shortcut
from .capture import Capture
from .fast import fast
from .guards import Watch, same, told
from .interpret import executable
from .outside import attach_history
from .program import Program
from .results import Structure, flatten, unflatten
from .slots import Shadow, hooks_of

Array = np.ndarray[Any, Any]
count = sys.getrefcount


class Argument:
    """What a tensor among the arguments must be: its class, type, and whether it is tracked."""

    __slots__ = ("dtype", "kind", "number", "order", "shape", "slot", "tracked")

    def __init__(self, number: int, x: Any) -> None:
        self.number = number
        self.kind = type(x)
        self.shape = tuple(x.shape)
        self.dtype = x.dtype
        self.tracked = history_of(x)
        self.order: bool | None = None      # must its elements (not) lie in row-major order?
        self.slot = -1                      # which input it is; -1 where its numbers are not read

    def __str__(self) -> str:
        mark = ("", ", a leaf that requires a gradient", ", computed with a history")
        return f"{ArrayType(self.shape, self.dtype)}{mark[self.tracked]}"


def history_of(x: Any) -> int:
    """0 for a tensor without gradient, 1 for a leaf that wants one, 2 for a computed one."""
    node = x._node
    return 0 if node is None else 1 if node.prim is None else 2


class Entry:
    """A compiled run. Its lock is held while it checks and runs."""

    def __init__(self, program: Program, capture: Capture, watches: list[Watch],
                 leaves: Sequence[Any], structure: Structure, simple: bool,
                 mode: tuple[Any, ...], names: list[str], function: Any) -> None:
        self.function = function             # of the leaves, run by Python
        self.lock = threading.Lock()
        self.program = program
        self.structure = structure
        self.simple = simple
        self.names = names
        self.mode = mode
        self.once = capture.once
        self.count = len(leaves)
        self.arguments = [Argument(i, x) for i, x in enumerate(leaves) if isinstance(x, Value)]
        self.values = [(i, x) for i, x in enumerate(leaves) if not isinstance(x, Value)]
        first: dict[int, int] = {}
        self.equal = [(first[id(x)], i) for i, x in enumerate(leaves) if isinstance(x, Value)
                      and first.setdefault(id(x), i) != i]
        self.distinct = len(first)
        self.watches = [w for w in watches if not w.slow]
        self.slow = [w for w in watches if w.slow]
        self.optimizers = list(capture.optimizers.values())
        self.groups = [(optimizer, i, group, list(group["params"]), constants_of(group))
                       for optimizer in self.optimizers
                       for i, group in enumerate(optimizer.param_groups)]
        # Groups that the user put in the place of the optimiser's own are read on each call.
        self.unwatched = self.in_arrays()
        self.holders = [(optimizer, optimizer.param_groups, list(optimizer.param_groups),
                         optimizer.state) for optimizer in self.optimizers]
        self.kept = [(optimizer, optimizer.state, p, dict(optimizer.state[p]))
                     for optimizer, _, _, params, _ in self.groups for p in params
                     if p in optimizer.state]
        self.truths: list[tuple[Any, Any, bool]] = capture.truths
        self.draws = [(generator, sum(offsets)) for generator, _, offsets in capture.keys.values()]
        self.backward: Any = None            # built when first asked for
        self._place_inputs(capture)
        self.executable: Any = executable(program.graph, program.written)
        self.moment, self.options_moment = changes.moment, changes.options
        self.refresh()
        self.gates = 8                       # how often the gate may be made anew
        self.call: Any = self.settle if simple and not self.once else self.general

    # ------------------------------------------------------------ building

    def _place_inputs(self, capture: Capture) -> None:
        program = self.program
        self.buffers: list[Any] = [None] * len(program.inputs)
        self.numbers: list[tuple[Array, Any, tuple[Any, ...]]] = []
        self.gradients: list[tuple[int, Shadow, tuple[int, ...], Any]] = []
        self.keys: list[tuple[Array, Any]] = []
        self.drawn: list[tuple[int, Any, int, Any]] = []
        slots: dict[int, int] = {}
        for slot, entry in enumerate(program.inputs):
            if entry.kind == "argument":
                for argument in self.arguments:
                    if argument.number == entry.place:
                        argument.slot = slot
                        if entry.shadow is not None and entry.shadow.order_asked:
                            argument.order = bool(entry.shadow.array.flags.c_contiguous)
            elif entry.kind == "state":
                slots[id(entry.shadow)] = slot
            elif entry.kind == "gradient":
                self.gradients.append((slot, entry.place, entry.node.shape, entry.node.dtype))
            elif entry.kind == "number":
                self.buffers[slot] = np.zeros((), np.float64)
                self.numbers.append((self.buffers[slot], *entry.place))
            elif entry.kind == "key":
                self.buffers[slot] = np.zeros(2, np.int64)
                self.keys.append((self.buffers[slot], entry.place))
            else:
                self.drawn.append((slot, *entry.place))
        # Tensors from outside: their array and node, and the input their numbers are, if any.
        self.states: list[list[Any]] = []
        self.ordered: dict[int, bool] = {}       # of those whose order of elements was asked for
        self.grad_guards: list[tuple[Shadow, Any]] = []
        self.hooks: list[tuple[Any, list[Any]]] = []
        for shadow in capture.shadows.values():
            kind = shadow.input.kind if shadow.input is not None else "state"
            if kind == "state":
                if shadow.order_asked:
                    self.ordered[len(self.states)] = bool(shadow.array.flags.c_contiguous)
                self.states.append([shadow.tensor, shadow.array, shadow.leaf,
                                    slots.get(id(shadow), -1)])
                self.hooks.append((shadow.tensor, hooks_of(shadow.tensor)))
            if shadow.grad_read:
                first = shadow.first_grad
                known = first is not None and id(first) in capture.shadows and capture.shadows[
                    id(first)].input is not None and capture.shadows[
                    id(first)].input.kind == "state"
                self.grad_guards.append((shadow, first if known else first is not None))
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
                self.call = self.general
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

    # ------------------------------------------------------------ does it serve?

    def serves(self, leaves: Sequence[Any]) -> bool:
        """May this entry be run on these arguments, with everything as it is now?"""
        if mode_now() != self.mode or len(leaves) != self.count:
            return False
        buffers = self.buffers
        for argument in self.arguments:
            x = leaves[argument.number]
            if type(x) is not argument.kind:
                return False
            array = x._value
            if array is None or array.shape != argument.shape or array.dtype != argument.dtype:
                return False
            node = x._node
            if (argument.tracked != 0 if node is None else
                    argument.tracked != (1 if node.prim is None else 2)):
                return False
            if argument.order is not None and array.flags.c_contiguous is not argument.order:
                return False
            if argument.slot >= 0:
                buffers[argument.slot] = array if array.flags.carray else np.array(array, order="C")
        for i, value in self.values:
            x = leaves[i]
            if x is not value and not same(x, value):
                return False
        for i, k in self.equal:
            if leaves[i] is not leaves[k]:
                return False
        if (self.writes_arguments or self.grads_of_arguments) and self.distinct != len(
                {id(leaves[argument.number]) for argument in self.arguments}):
            return False
        if changes.moment != self.moment and not self.recheck():
            return False
        if (changes.options != self.options_moment or self.unwatched) and (
                not self.recheck_options()):
            return False
        for _, _, group, params, _ in self.groups:
            if len(group["params"]) != len(params):
                return False
        for optimizer, groups, held, states in self.holders:
            now = optimizer.param_groups
            if now is not groups or len(now) != len(held) or optimizer.state is not states:
                return False
            for a, b in zip(now, held, strict=True):
                if a is not b:
                    return False
        for watch in self.watches:
            if not watch.holds():
                return False
        for number, held in enumerate(self.states):
            tensor = held[0]
            if (tensor._value is not held[1] or tensor._node is not held[2]) and not self.moved(
                    number):
                return False
        for shadow, found in self.grad_guards:
            grad = self.tensor_of(shadow, leaves)._grad
            if grad is not found and (grad is not None) is not found:
                return False
        for slot, shadow, shape, dtype in self.gradients:
            grad = self.tensor_of(shadow, leaves)._grad
            if grad is None or grad._node is not None:
                return False
            array = grad._value
            if array.shape != shape or array.dtype != dtype:
                return False
            buffers[slot] = array if array.flags.carray else np.array(array, order="C")
        return True

    def tensor_of(self, shadow: Shadow | None, leaves: Sequence[Any]) -> Any:
        """The tensor that a shadow stood for, in this call."""
        assert shadow is not None
        entry = shadow.input
        if entry is None or entry.kind == "state":
            return shadow.tensor
        if entry.kind == "argument":
            return leaves[entry.place]
        return self.tensor_of(entry.place, leaves)._grad

    def moved(self, number: int) -> bool:
        """A tensor got other memory or another node: does the entry still serve?"""
        tensor, array, leaf, _ = self.states[number]
        now, node = tensor._value, tensor._node
        if now is None or now.shape != array.shape or now.dtype != array.dtype:
            return False
        if (node is None) != (leaf is None) or (
                node is not None and ((node.prim is None) != (leaf.prim is None))):
            return False
        if node is not None and node is not leaf and node.hooks:
            return False
        if storage_of(now) is not storage_of(array) and self.program.shared:
            return False
        if self.ordered.get(number, now.flags.c_contiguous) != now.flags.c_contiguous:
            return False
        self._bind(number)
        self._find_owners()
        return True

    def recheck(self) -> bool:
        """Look at modules, optimisers and hooks, after something was written."""
        moment = changes.moment
        for watch in self.slow:
            if not watch.holds():
                return False
        if self.group_change() or any(hooks_of(tensor) != found for tensor, found in self.hooks):
            return False
        self.moment = moment
        return True

    def recheck_options(self) -> bool:
        """Look at the options of the optimisers, and take over their numbers."""
        moment = changes.options
        if self.option_change() or self.unwatched is not self.in_arrays():
            return False
        self.refresh()
        self.options_moment = moment
        return True

    def group_change(self) -> str:
        """What is different about the optimisers, or ''."""
        for optimizer, i, group, params, _ in self.groups:
            name = type(optimizer).__name__
            if len(optimizer.param_groups) <= i or optimizer.param_groups[i] is not group:
                return f"{name}: its groups changed"
            now = group["params"]
            if len(now) != len(params) or any(a is not b for a, b in zip(now, params, strict=True)):
                return f"{name}: the parameters of group {i} changed"
        for optimizer, states, p, held in self.kept:
            if optimizer.state is not states or p not in states:
                return f"{type(optimizer).__name__}: its state was replaced"
            kept = states[p]
            if len(kept) != len(held) or any(kept.get(slot) is not x for slot, x in held.items()):
                return f"{type(optimizer).__name__}: its state was replaced"
        return ""

    def option_change(self) -> str:
        """What is different about the options of optimisers, except for their numbers, or ''."""
        for optimizer, i, group, _, constants in self.groups:
            name = type(optimizer).__name__
            current = constants_of(group)
            if current.keys() != constants.keys():
                return f"{name}: the options of group {i} changed"
            for key, value in constants.items():
                if not same(current[key], value):
                    return (f"{name}, group {i}: {key}={told(value)} became "
                            f"{told(current[key])}")
        for holder, path, truth in self.truths:
            if bool(read_option(holder, path)) is not truth:
                return f"an optimiser's {path[0]} became {read_option(holder, path)!r}"
        return ""

    def in_arrays(self) -> bool:
        """May options change unseen: in a dictionary of the user's, or in arrays?"""
        return any(not isinstance(group, Watched) or any(
            isinstance(value, np.ndarray) for value in group.values())
            for _, _, group, _, _ in self.groups)

    def refresh(self) -> None:
        """Read the numbers of the optimisers."""
        for array, holder, path in self.numbers:
            array[()] = read_option(holder, path)

    def reason(self, leaves: Sequence[Any], structure: Structure) -> str:
        """Why this entry does not serve, in words."""
        if mode_now() != self.mode:
            return "what is recorded (no_grad, inference_mode) or the default dtype changed"
        if structure != self.structure:
            return "the arguments have another structure"
        for argument in self.arguments:
            x = leaves[argument.number]
            name = self.names[argument.number]
            if not isinstance(x, Value):
                return f"argument {name}: {argument} became {told(x)}"
            if type(x) is not argument.kind:
                return f"argument {name}: {argument.kind.__name__} became {type(x).__name__}"
            order = x._value.flags.c_contiguous  # type: ignore[attr-defined]
            if argument.order is not None and order is not argument.order:
                return f"argument {name}: contiguous={argument.order} became {order}"
            now = Argument(argument.number, x)
            if str(now) != str(argument):
                return f"argument {name}: {argument} became {now}"
        for i, argument in enumerate(self.arguments):
            for other in self.arguments[:i]:
                pair = (other.number, argument.number)
                if leaves[pair[0]] is leaves[pair[1]] and pair not in self.equal:
                    return (f"arguments {self.names[pair[0]]} and {self.names[pair[1]]} are now "
                            "one tensor")
        for i, k in self.equal:
            if leaves[i] is not leaves[k]:
                return f"arguments {self.names[i]} and {self.names[k]} are no longer one tensor"
        for i, value in self.values:
            if leaves[i] is not value and not same(leaves[i], value):
                return f"argument {self.names[i]}: {told(value)} became {told(leaves[i])}"
        for watch in (*self.slow, *self.watches):
            if not watch.holds():
                return watch.change()
        change = self.group_change() or self.option_change()
        if change:
            return change
        for optimizer, groups, held, states in self.holders:
            if (optimizer.param_groups is not groups or len(groups) != len(held)
                    or optimizer.state is not states):
                return f"{type(optimizer).__name__}: its groups or its state were replaced"
        if any(hooks_of(tensor) != found for tensor, found in self.hooks):
            return "hooks of a tensor changed"
        for tensor, array, leaf, _ in self.states:
            if type_of(tensor) != type_of(array):
                return f"a tensor {type_of(array)} became {type_of(tensor)}"
            if (tensor._node is None) != (leaf is None):
                return (f"requires_grad of a tensor {type_of(array)} became "
                        f"{tensor._node is not None}")
        for shadow, found in self.grad_guards:
            grad = self.tensor_of(shadow, leaves)._grad
            if grad is not found and (grad is not None) is not found:
                return f"the .grad of a tensor {type_of(self.tensor_of(shadow, leaves))} " + (
                    "is now there" if grad is not None else "is now None")
        return "something it was compiled for changed"

    def overlaps(self, leaves: Sequence[Any]) -> str:
        """Do arguments share memory with what is written, or with one another? In words, or ''."""
        owners = self.owners
        if owners:
            for argument in self.arguments:
                array = leaves[argument.number]._value
                base = array.base
                written = owners.get(id(array) if base is None else id(storage_of(array)))
                if written is not None and np.may_share_memory(array, written):
                    return f"argument {self.names[argument.number]} and a tensor that is written"
        if self.writes_arguments or self.grads_of_arguments:
            arrays = [leaves[a.number]._value for a in self.arguments]
            for i, a in enumerate(arrays):
                if self.writes_arguments and (not a.flags.writeable or 0 in a.strides):
                    return f"argument {self.names[self.arguments[i].number]}, which is read-only,"
                for k in range(i):
                    if (self.arguments[k].number, self.arguments[i].number) in self.equal:
                        continue
                    if np.may_share_memory(a, arrays[k]):
                        return (f"arguments {self.names[self.arguments[k].number]} and "
                                f"{self.names[self.arguments[i].number]}")
            for held in self.states:
                for a, argument in zip(arrays, self.arguments, strict=True):
                    if np.may_share_memory(a, held[1]):
                        return (f"argument {self.names[argument.number]} and a tensor the "
                                "function uses")
        return ""

    def general(self, leaves: Sequence[Any]) -> Any:
        """Run, if it serves; else MISS. What the shortcut does, in all cases."""
        if (self.simple and not state.tracing and self.serves(leaves)
                and not self.overlaps(leaves)):
            return self.run(leaves)
        return MISS

    def settle(self, args: tuple[Any, ...]) -> Any:
        """A call the general way, after which a shorter one is chosen for those that follow."""
        result = self.general(args)
        if result is not MISS:
            way = fast(self) if self.gates > 0 else None
            self.call = gated(self, way) if way is not None else shortcut(self) or self.general
        return result

    def missed(self, args: tuple[Any, ...], status: int) -> Any:
        """The gate found an index out of range, or something that differs from the last call."""
        if status > 0:
            self.executable.complain(status - 1)
        self.gates -= 1
        self.call = self.settle
        return self.general(args)

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
            result = new(array)
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
                    made.append(new(outputs[data]))
            elif kind == "argument":
                made.append(leaves[data])
            elif kind == "object":
                made.append(data)
            elif kind == "constant":
                made.append(new(data.copy()))
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

