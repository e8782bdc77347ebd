"""May an entry be run on these arguments, with everything as it is now? If not, why not?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.core.bind import Value
from chainrule.core.changes import changes
from chainrule.core.node import storage_of
from chainrule.core.types import type_of

from .entry import (
    Argument,
    Entry,
    constants_of,
    in_arrays,
    mode_now,
    read_option,
    strides_of,
)
from .guards import same, told
from .results import Structure
from .slots import hooks_of


def serves(entry: Entry, leaves: Sequence[Any]) -> bool:
    """May this entry be run on these arguments, with everything as it is now?"""
    if mode_now() != entry.mode or len(leaves) != entry.count:
        return False
    buffers = entry.buffers
    for argument in entry.arguments:
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
        if argument.order is not None and (
                array.flags.c_contiguous is not argument.order
                or (not argument.order and array.strides != argument.strides)):
            return False
        if argument.slot >= 0:
            buffers[argument.slot] = array if array.flags.carray else np.array(array, order="C")
    for i, value in entry.values:
        x = leaves[i]
        if x is not value and not same(x, value):
            return False
    if entry.evaluation is not None and not entry.evaluate(leaves):
        return False
    for i, k in entry.equal:
        if leaves[i] is not leaves[k]:
            return False
    for i, k in entry.pairs:
        if leaves[i] is leaves[k]:
            return False
    if changes.moment != entry.moment and not recheck(entry):
        return False
    if (changes.options != entry.options_moment or entry.unwatched) and (
            not recheck_options(entry)):
        return False
    for optimizer, groups, held, states in entry.holders:
        now = optimizer.param_groups
        if now is not groups or len(now) != len(held) or optimizer.state is not states:
            return False
        for a, b in zip(now, held, strict=True):
            if a is not b:
                return False
    for watch in entry.watches:
        if not watch.holds():
            return False
    for number, held in enumerate(entry.states):
        tensor = held[0]
        if (tensor._value is not held[1] or tensor._node is not held[2]) and not moved(
                entry, number):
            return False
    for shadow, found in entry.grad_guards:
        grad = entry.tensor_of(shadow, leaves)._grad
        if grad is not found and (grad is not None) is not found:
            return False
    for slot, shadow, shape, dtype in entry.gradients:
        grad = entry.tensor_of(shadow, leaves)._grad
        if grad is None or grad._node is not None:
            return False
        array = grad._value
        if array.shape != shape or array.dtype != dtype:
            return False
        buffers[slot] = array if array.flags.carray else np.array(array, order="C")
    return True


def moved(entry: Entry, number: int) -> bool:
    """A tensor got other memory or another node: does the entry still serve?"""
    tensor, array, leaf, _ = entry.states[number]
    now, node = tensor._value, tensor._node
    if now is None or now.shape != array.shape or now.dtype != array.dtype:
        return False
    if (node is None) != (leaf is None) or (
            node is not None and ((node.prim is None) != (leaf.prim is None))):
        return False
    if node is not None and node is not leaf and node.hooks:
        return False
    if storage_of(now) is not storage_of(array) and entry.program.shared:
        return False
    if number in entry.ordered and entry.ordered[number] != strides_of(now):
        return False
    entry._bind(number)
    entry._find_owners()
    return True


def recheck(entry: Entry) -> bool:
    """Look at modules, optimisers and hooks, after something was written."""
    moment = changes.moment
    if not changes.touched(changes.recent, entry.structure_owners, entry.moment):
        entry.moment = moment
        return True
    for watch in entry.slow:
        if not watch.holds():
            return False
    if group_change(entry) or any(hooks_of(tensor) != found for tensor, found in entry.hooks):
        return False
    entry.moment = moment
    return True


def recheck_options(entry: Entry) -> bool:
    """Look at the options of the optimisers, and take over their numbers."""
    moment = changes.options
    if not entry.unwatched and not changes.touched(
            changes.recent_options, entry.structure_owners, entry.options_moment):
        entry.options_moment = moment
        return True
    if (entry.unwatched and group_change(entry)) or option_change(entry):
        return False
    if entry.unwatched is not in_arrays(entry.groups):
        return False
    entry.refresh()
    entry.options_moment = moment
    return True


def group_change(entry: Entry) -> str:
    """What is different about the optimisers, or ''."""
    for optimizer, i, group, params, _ in entry.groups:
        name = type(optimizer).__name__
        if len(optimizer.param_groups) <= i or optimizer.param_groups[i] is not group:
            return f"{name}: its groups changed"
        now = group["params"]
        if len(now) != len(params) or any(a is not b for a, b in zip(now, params, strict=True)):
            return f"{name}: the parameters of group {i} changed"
    for optimizer, states, p, held in entry.kept:
        if optimizer.state is not states or p not in states:
            return f"{type(optimizer).__name__}: its state was replaced"
        kept = states[p]
        if len(kept) != len(held) or any(kept.get(slot) is not x for slot, x in held.items()):
            return f"{type(optimizer).__name__}: its state was replaced"
    return ""


def option_change(entry: Entry) -> str:
    """What is different about the options of optimisers, except for their numbers, or ''."""
    for optimizer, i, group, _, constants in entry.groups:
        name = type(optimizer).__name__
        current = constants_of(group)
        if current.keys() != constants.keys():
            return f"{name}: the options of group {i} changed"
        for key, value in constants.items():
            if not same(current[key], value):
                return (f"{name}, group {i}: {key}={told(value)} became "
                        f"{told(current[key])}")
    for holder, path, truth in entry.truths:
        if bool(read_option(holder, path)) is not truth:
            return f"an optimiser's {path[0]} became {read_option(holder, path)!r}"
    return ""


def reason(entry: Entry, leaves: Sequence[Any], structure: Structure) -> str:
    """Why this entry does not serve, in words."""
    if mode_now() != entry.mode:
        return "what is recorded (no_grad, inference_mode) or the default dtype changed"
    if structure != entry.structure:
        return "the arguments have another structure"
    for argument in entry.arguments:
        x = leaves[argument.number]
        name = entry.names[argument.number]
        if not isinstance(x, Value):
            return f"argument {name}: {argument} became {told(x)}"
        if type(x) is not argument.kind:
            return f"argument {name}: {argument.kind.__name__} became {type(x).__name__}"
        order = x._value.flags.c_contiguous  # type: ignore[attr-defined]
        if argument.order is not None and order is not argument.order:
            return f"argument {name}: contiguous={argument.order} became {order}"
        if argument.order is False and x._value.strides != argument.strides:  # type: ignore[attr-defined]
            return f"argument {name}: its elements lie in another order in memory"
        now = Argument(argument.number, x)
        if str(now) != str(argument):
            return f"argument {name}: {argument} became {now}"
    for i, k in entry.pairs:
        if leaves[i] is leaves[k]:
            return f"arguments {entry.names[i]} and {entry.names[k]} are now one tensor"
    for i, k in entry.equal:
        if leaves[i] is not leaves[k]:
            return f"arguments {entry.names[i]} and {entry.names[k]} are no longer one tensor"
    for i, value in entry.values:
        if leaves[i] is not value and not same(leaves[i], value):
            return f"argument {entry.names[i]}: {told(value)} became {told(leaves[i])}"
    if entry.evaluation is not None:
        for i, kind in entry.evaluation.reads:
            if type(leaves[i]) is not kind:
                return f"argument {entry.names[i]}: a {kind.__name__} became {told(leaves[i])}"
        change = entry.evaluation.change(leaves)
        if change:
            return change
    for watch in (*entry.slow, *entry.watches):
        if not watch.holds():
            return watch.change()
    change = group_change(entry) or option_change(entry)
    if change:
        return change
    for optimizer, groups, held, states in entry.holders:
        if (optimizer.param_groups is not groups or len(groups) != len(held)
                or optimizer.state is not states):
            return f"{type(optimizer).__name__}: its groups or its state were replaced"
    if any(hooks_of(tensor) != found for tensor, found in entry.hooks):
        return "hooks of a tensor changed"
    for tensor, array, leaf, _ in entry.states:
        if type_of(tensor) != type_of(array):
            return f"a tensor {type_of(array)} became {type_of(tensor)}"
        if (tensor._node is None) != (leaf is None):
            return (f"requires_grad of a tensor {type_of(array)} became "
                    f"{tensor._node is not None}")
    for shadow, found in entry.grad_guards:
        grad = entry.tensor_of(shadow, leaves)._grad
        if grad is not found and (grad is not None) is not found:
            return f"the .grad of a tensor {type_of(entry.tensor_of(shadow, leaves))} " + (
                "is now there" if grad is not None else "is now None")
    return "something it was compiled for changed"


def overlaps(entry: Entry, leaves: Sequence[Any]) -> str:
    """Do arguments share memory with what is written, or with one another? In words, or ''."""
    owners = entry.owners
    if owners:
        for argument in entry.arguments:
            array = leaves[argument.number]._value
            base = array.base
            written = owners.get(id(array) if base is None else id(storage_of(array)))
            if written is not None and np.may_share_memory(array, written):
                return f"argument {entry.names[argument.number]} and a tensor that is written"
    for argument in entry.arguments:
        if argument.tracked and id(leaves[argument.number]) in entry.used:
            return f"argument {entry.names[argument.number]} and a tensor the function uses"
    if entry.writes_arguments or entry.grads_of_arguments:
        arrays = [leaves[a.number]._value for a in entry.arguments]
        for i, a in enumerate(arrays):
            if entry.writes_arguments and (not a.flags.writeable or 0 in a.strides):
                return f"argument {entry.names[entry.arguments[i].number]}, which is read-only,"
            for k in range(i):
                if (entry.arguments[k].number, entry.arguments[i].number) in entry.equal:
                    continue
                if np.may_share_memory(a, arrays[k]):
                    return (f"arguments {entry.names[entry.arguments[k].number]} and "
                            f"{entry.names[entry.arguments[i].number]}")
        for held in entry.states:
            for a, argument in zip(arrays, entry.arguments, strict=True):
                if np.may_share_memory(a, held[1]):
                    return (f"argument {entry.names[argument.number]} and a tensor the "
                            "function uses")
    return ""
