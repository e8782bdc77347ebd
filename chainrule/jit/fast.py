"""The short way of a call that is like the one before: guards compared as words, then machine code.

`fast` looks at an entry that has just served a call and, if nothing about it needs Python, makes a
`Fast`: whatever the entry would check in loops (arrays, nodes, gradients and their reference
counts) becomes a table that the executable's gate compares. A call that differs in anything goes
the longer way, which knows what to do. What is left for Python is written out in call.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from chainrule.compiler.machine.entrance import MOST_AXES, Gate
from chainrule.core.record import new
from chainrule.tensor import Tensor

from .entry import Entry

# References to a gradient that nobody holds but its tensor's owner and the pool of the entry, and
# to its array: by the tensor and the list of outputs.
HELD = 2


class Fast(NamedTuple):
    """A gate, and the arrays that follow the arguments when it is called: (output, shape, dtype).

    The gate returns 0 when it ran, −1 when something differs (nothing was done), and else 1 + the
    number of the kernel that found an index out of range.
    """

    gate: Callable[..., int]
    outputs: list[tuple[int, tuple[int, ...], Any]]


def fast(entry: Entry) -> Fast | None:
    """A short way for calls like the one that `entry` has just served; None if there is none."""
    offsets = tensor_offsets()
    program, exe = entry.program, entry.executable
    if (offsets is None or getattr(exe, "gate", None) is None or not entry.simple or entry.once
            or entry.copied or entry.gradients or entry.draws or entry.equal or entry.mode[1]
            or entry.writes_arguments or program.moved or program.shared
            or program.differentiable is not None
            or any(argument.order is not None for argument in entry.arguments)):
        return None
    made_by = {number: data for number, (kind, data) in enumerate(program.recipes)
               if kind == "output"}
    if len(made_by) != len(program.recipes):
        return None
    structure = program.structure
    returned = [x for is_tensor, x in program.leaves if is_tensor]
    flat = structure is not None and all(child.kind is None for child in structure.children)
    if (not flat or len(returned) != len(program.leaves)
            or (structure.kind not in (None, tuple, list))  # type: ignore[union-attr]
            or len(set(returned)) != len(returned)):
        return None
    fresh = [(k, shape, dtype) for k, shape, dtype in entry.fresh if k not in entry.pooled]
    if {made_by[r] for r in returned} != {k for k, _, _ in fresh}:
        return None                       # e.g. a gradient that is returned, too
    words, counts = _held(entry, offsets)
    if words is None or any(held != HELD for _, held in counts):
        return None
    arguments: list[Any] = []
    rows = {a.number: a for a in entry.arguments}
    for number in range(entry.count):
        argument = rows.get(number)
        if argument is None:
            arguments.append(dict(entry.values).get(number))       # None for a number of a call
        elif argument.tracked or argument.kind is not Tensor or len(argument.shape) > MOST_AXES:
            return None
        else:
            arguments.append((argument.slot, argument.dtype, argument.shape))
    # What a written array shares memory with may not be an argument.
    first = len(program.inputs)
    gate = exe.gate(Gate(offsets["_value"], offsets["_node"], id(Tensor), arguments,
                         [first + k for k, _, _ in fresh], words, counts, list(entry.owners)))
    if gate is None:
        return None
    return Fast(gate, fresh)


def _held(entry: Entry, offsets: dict[str, int]) -> tuple[Any, Any]:
    """The words and reference counts that are as they were after the last call, or (None, None).

    Also writes the addresses of the arrays into the executable's cells, once for all calls.
    """
    words: list[tuple[int, int]] = []
    counts: list[tuple[int, int]] = []
    exe, program = entry.executable, entry.program
    value, node, grad, more = (offsets[n] for n in ("_value", "_node", "_grad", "_extra"))
    none = id(None)
    buffers = entry.buffers
    for tensor, array, leaf, slot in entry.states:
        words += [(id(tensor) + value, id(array)), (id(tensor) + node, id(leaf))]
        if slot >= 0:
            exe.cells[slot] = array.ctypes.data
    for slot, array in enumerate(buffers):
        if array is not None and program.inputs[slot].kind in ("number", "key", "scalar"):
            exe.cells[slot] = array.ctypes.data
    by_shadow = {id(shadow): (k, recipe) for k, (shadow, recipe) in entry.pooled.items()}
    for shadow, recipe in program.grads:
        if shadow.input is not None and shadow.input.kind != "state":
            return None, None
        tensor = shadow.tensor
        if recipe is None:
            if tensor._grad is not None:
                return None, None
            words.append((id(tensor) + grad, none))
            continue
        if id(shadow) not in by_shadow:
            return None, None
        k = by_shadow[id(shadow)][0]
        made = entry.pool.get(k)
        array = entry.outputs[k]
        if made is None or tensor._grad is not made or made._value is not array:
            return None, None
        words += [(id(tensor) + grad, id(made)), (id(made) + value, id(array)),
                  (id(made) + node, none), (id(made) + more, none)]
        exe.cells[len(program.inputs) + k] = array.ctypes.data
        # 1: this variable or list below; the rest is what entry and tensor hold
        counts += [(id(made), ctypes.c_int32.from_address(id(made)).value - 1),
                   (id(array), ctypes.c_int32.from_address(id(array)).value - 1)]
    written = {id(shadow) for shadow, _ in program.grads}
    for shadow, found in entry.grad_guards:
        if id(shadow) in written:
            continue
        if found is True or shadow.input is None or shadow.input.kind != "state":
            return None, None
        now = shadow.tensor._grad
        words.append((id(shadow.tensor) + grad, id(now)))
    for k, i in entry.targets:
        if program.inputs[i].kind != "state":
            return None, None
        del k
    return words, counts


@cache
def tensor_offsets() -> dict[str, int] | None:
    """Where a Tensor keeps what its slots hold, in bytes from its beginning."""
    marks = {name: object() for name in ("_value", "_node", "_grad", "_extra")}
    tensor = new(None)
    for name, mark in marks.items():
        setattr(tensor, name, mark)
    size = Tensor.__basicsize__
    found = {}
    for offset in range(16, size, 8):
        word = ctypes.c_int64.from_address(id(tensor) + offset).value
        for name, mark in marks.items():
            if word == id(mark):
                found[name] = offset
    for name in marks:
        setattr(tensor, name, None)
    return found if len(found) == len(marks) else None


