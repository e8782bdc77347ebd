"""The short way through a compiled function: its checks and moves as one generated function.

Looping over lists of guards costs more than a small step itself takes. So the checks of
`checks.serves` and the moves of `Entry.run`, for a call in which nothing is unusual, are written
out as Python source without loops. It returns `MISS` where something is unusual; then the general
way is gone, which also says why. Once a call has gone this way, the checks of tensors move into
the machine code (fast.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.core import node as clock
from chainrule.core.bind import state
from chainrule.core.changes import changes
from chainrule.core.config import settings
from chainrule.core.node import storage_of, tick
from chainrule.tensor import Tensor

from .checks import recheck, recheck_options
from .entry import Entry
from .fast import Fast
from .guards import MISSING, same
from .numbers import stored
from .results import MISS, Structure

LONGEST_SOURCE = 4000          # lines; an entry with more goes the general way


def ordered(array: Any) -> Any:
    """A copy whose elements lie in order."""
    return np.array(array, order="C")


def shortcut(entry: Entry) -> Any:
    """The generated function of an entry, or None where its calls are never usual."""
    program = entry.program
    kinds = {kind for kind, _ in program.recipes}
    if (not entry.simple or entry.once or program.moved or entry.copied or entry.drawn
            or entry.mode[1] or program.differentiable is not None or entry.writes_arguments
            or entry.grads_of_arguments or not kinds <= {"output", "object", "argument"}
            or any(program.inputs[i].kind != "state" for _, i in entry.targets)
            or any(recipe is not None and program.recipes[recipe][0] != "output"
                   for _, recipe in program.grads)):
        return None
    made = {program.recipes[recipe][1] for _, recipe in program.grads if recipe is not None}
    if made != set(entry.pooled) or len(made) != sum(
            recipe is not None for _, recipe in program.grads):
        return None
    writer = _Writer(entry)
    writer.checks()
    writer.moves()
    if len(writer.lines) > LONGEST_SOURCE:
        return None
    entry.space = writer.space
    return writer.function()


def gated(entry: Entry, way: Fast, missed: Callable[..., Any]) -> Any:
    """As `shortcut`, with all that a table can say left to the gate of the machine code."""
    writer = _Writer(entry)
    writer.mode()
    given = ["*args"]
    if entry.evaluation is not None:         # the gate knows a number by its identity
        writer.leaves()
        writer.numbers()
        loose = {i for i, _ in entry.evaluation.reads}
        given = [writer.name("fixed", None) if i in loose else f"x{i}"
                 for i in range(entry.count)]
    for i, k in entry.pairs:
        writer.unless(f"args[{i}] is args[{k}]")
    writer.guards()
    arrays = []
    for k, shape, dtype in way.outputs:
        arrays.append(f"r{k}")
        writer.line(f"r{k} = empty({shape!r}, {writer.name('dtype', dtype)})")
    writer.space.update(gate=way.gate, missed=missed)
    writer.line(f"status = gate({', '.join([*given, *arrays])})")
    writer.line("if status: return missed(args, status)")
    writer.finish()
    return writer.function()


class _Writer:
    """The lines of the function and the names they use."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.lines: list[str] = []
        self.space: dict[str, Any] = {
            "MISS": MISS, "MISSING": MISSING, "state": state, "settings": settings,
            "changes": changes, "entry": entry, "same": same, "ordered": ordered,
            "recheck": recheck, "recheck_options": recheck_options,
            "storage_of": storage_of, "owners": entry.owners, "buffers": entry.buffers,
            "outputs": entry.outputs, "pool": entry.pool, "count": sys.getrefcount,
            "empty": np.empty, "run": entry.executable.run, "Tensor": Tensor,
            "blank": Tensor.__new__, "tick": tick, "clock": clock, "getframe": sys._getframe}

    def name(self, kind: str, value: Any) -> str:
        """A name for a value."""
        name = f"{kind}{len(self.space)}"
        self.space[name] = value
        return name

    def line(self, text: str) -> None:
        self.lines.append(text)

    def unless(self, condition: str) -> None:
        self.line(f"if {condition}: return MISS")

    def function(self) -> Any:
        """The function of the lines."""
        source = "def call(args):\n" + "\n".join(f"    {line}" for line in self.lines) + "\n"
        exec(compile(source, "<compiled call>", "exec"), self.space)
        return self.space["call"]

    # ------------------------------------------------------------ checks

    def mode(self) -> None:
        """What is set for all functions, and the number of arguments."""
        entry = self.entry
        recording, inference, dtype, mode = entry.mode
        self.unless(f"len(args) != {entry.count}")
        self.unless(f"state.tracing or state.recording != {recording!r} "
                    f"or state.inference is not {inference!r} "
                    f"or settings.default_dtype is not {self.name('dtype', dtype)} "
                    f"or settings.compile != {mode!r}")

    def numbers(self) -> None:
        """What is computed from the numbers of this call."""
        evaluation = self.entry.evaluation
        if evaluation is None:
            return
        for i, kind in evaluation.reads:
            self.unless(f"type(x{i}) is not {self.name('kind', kind)}")
        given = ", ".join(f"x{i}" for i, _ in evaluation.reads)
        self.unless(f"{self.name('evaluate', evaluation.run)}({given}) >= 0")
        found = self.name("found", evaluation.found)
        for array, place, dtype in self.entry.scalars:
            value = f"{found}[{place}]"
            if dtype.kind != "f":
                value = f"{self.name('stored', stored)}({value}, {self.name('dtype', dtype)})"
            self.line(f"{self.name('scalar', array)}[()] = {value}")

    def leaves(self) -> None:
        """Names for the arguments."""
        if self.entry.count:
            self.line(", ".join(f"x{i}" for i in range(self.entry.count)) + ", = args")

    def guards(self) -> None:
        """What was written since, and the values that code of the user reads."""
        self.unless("changes.moment != entry.moment and not recheck(entry)")
        if self.entry.groups:
            moved = "" if self.entry.unwatched else "changes.options != entry.options_moment and "
            self.unless(f"{moved}not recheck_options(entry)")
        for optimizer, groups, held, states in self.entry.holders:
            owner, known = self.name("optimizer", optimizer), self.name("groups", groups)
            self.unless(f"{owner}.param_groups is not {known} or len({known}) != {len(held)} "
                        f"or {owner}.state is not {self.name('states', states)}")
            for i, group in enumerate(held):
                self.unless(f"{known}[{i}] is not {self.name('group', group)}")
        for watch in self.entry.watches:
            self.watch(watch)

    def checks(self) -> None:
        """Everything `serves` and `overlaps` look at."""
        entry = self.entry
        self.mode()
        self.leaves()
        for argument in entry.arguments:
            self.argument(argument)
        for i, value in entry.values:
            name = self.name("value", value)
            self.unless(f"x{i} is not {name} and not same(x{i}, {name})")
        for i, k in entry.equal:
            self.unless(f"x{i} is not x{k}")
        for i, k in entry.pairs:
            self.unless(f"x{i} is x{k}")
        self.numbers()
        self.guards()
        for number, held in enumerate(entry.states):
            tensor = self.space[f"tensor{number}"] = held[0]
            assert tensor is held[0]
            self.space[f"array{number}"], self.space[f"leaf{number}"] = held[1], held[2]
            self.unless(f"tensor{number}._value is not array{number} "
                        f"or tensor{number}._node is not leaf{number}")
        for shadow, found in entry.grad_guards:
            owner = self.tensor(shadow)
            if isinstance(found, bool):
                self.unless(f"{owner}._grad is {'' if found else 'not '}None")
            else:
                self.unless(f"{owner}._grad is not {self.name('grad', found)}")
        for slot, shadow, shape, dtype in entry.gradients:
            self.line(f"g = {self.tensor(shadow)}._grad")
            self.unless("g is None or g._node is not None")
            self.line("g = g._value")
            self.unless(f"g.shape != {shape!r} or g.dtype is not {self.name('dtype', dtype)} "
                        "or not g.flags.carray")
            self.line(f"buffers[{slot}] = g")

    def argument(self, argument: Any) -> None:
        i = argument.number
        kind = "Tensor" if argument.kind is Tensor else self.name("kind", argument.kind)
        self.unless(f"type(x{i}) is not {kind}")
        self.line(f"a{i} = x{i}._value")
        self.unless(f"a{i} is None or a{i}.shape != {argument.shape!r} "
                    f"or a{i}.dtype is not {self.name('dtype', argument.dtype)}")
        if argument.tracked == 0:
            self.unless(f"x{i}._node is not None")
        else:
            self.unless(f"id(x{i}) in {self.name('used', self.entry.used)}")
            self.line(f"n = x{i}._node")
            self.unless(f"n is None or n.prim is {'not ' if argument.tracked == 1 else ''}None")
        if self.entry.owners:
            self.unless(f"id(a{i}) in owners or "
                        f"(a{i}.base is not None and id(storage_of(a{i})) in owners)")
        if argument.order is not None:
            self.unless(f"a{i}.flags.c_contiguous is not {argument.order!r}")
            if not argument.order:
                self.unless(f"a{i}.strides != {argument.strides!r}")
        if argument.slot >= 0:
            self.line(f"if not a{i}.flags.carray: a{i} = ordered(a{i})")

    def watch(self, watch: Any) -> None:
        place = watch.place
        if place is None or watch.kind not in ("is", "value"):
            self.unless(f"not {self.name('holds', watch.holds)}()")
            return
        found = self.name("found", watch.found)
        if isinstance(place, tuple) and place[0] is type:
            look = f"type({self.name('object', place[1])})"
        elif isinstance(place, tuple):
            look = f"{self.name('space', place[0])}.get({place[1]!r}, MISSING)"
        else:
            look = f"{self.name('cell', place)}.cell_contents"
        if watch.kind == "is":
            self.unless(f"{look} is not {found}")
        else:
            self.line(f"w = {look}")
            self.unless(f"w is not {found} and not same(w, {found})")

    def tensor(self, shadow: Any) -> str:
        """An expression for the tensor a shadow stands for."""
        entry = shadow.input
        if entry is None or entry.kind == "state":
            return self.name("owner", shadow.tensor)
        if entry.kind == "argument":
            return f"x{entry.place}"
        return f"{self.tensor(entry.place)}._grad"

    # ------------------------------------------------------------ moves

    def moves(self) -> None:
        """What `Entry.run` does."""
        entry, program = self.entry, self.entry.program
        for argument in entry.arguments:
            if argument.slot >= 0:
                self.line(f"buffers[{argument.slot}] = a{argument.number}")
        self.pooled()
        if entry.draws:
            self.line("entry.draw()")
        for k, shape, dtype in entry.fresh:
            if k not in entry.pooled:
                self.line(f"r{k} = outputs[{k}] = empty({shape!r}, {self.name('dtype', dtype)})")
        self.line("run(buffers, outputs)")
        for argument in entry.arguments:
            if argument.slot >= 0:
                self.line(f"buffers[{argument.slot}] = None")
        for slot, *_ in entry.gradients:
            self.line(f"buffers[{slot}] = None")
        for k, _, _ in entry.fresh:
            if k not in entry.pooled:
                self.line(f"outputs[{k}] = None")
        for shadow, recipe in program.grads:
            if recipe is None:
                self.line(f"{self.tensor(shadow)}._grad = None")
        self.finish()

    def finish(self) -> None:
        """What follows the run: the note of the write, and the results."""
        entry, program = self.entry, self.entry.program
        if entry.records:
            self.space["records"] = entry.records
            self.line("f = getframe(2)")
            self.line("place = (f.f_code, f.f_lasti)")
            self.line("clock.last_write = seq = tick()")
            for i in range(len(entry.records)):
                self.line(f"record = records[{i}]")
                self.line("record.seq = seq; record.count += 1; record.place = place; "
                          "record.what = 'a compiled function'")
        for optimizer in entry.optimizers:
            self.line(f"{self.name('optimizer', optimizer)}._stepped = True")
        for number, (kind, data) in enumerate(program.recipes):
            if kind == "output" and data not in entry.pooled:
                self.line(f"y{number} = blank(Tensor); y{number}._value = r{data}; "
                          f"y{number}._node = y{number}._grad = y{number}._extra = None")
                if number in program.spent:
                    self.line(f"y{number}._node = {self.name('node', program.spent[number])}")
        leaves = iter(program.leaves)
        assert program.structure is not None
        self.line(f"return {self.expression(program.structure, leaves)}")

    def pooled(self) -> None:
        """Gradients go into the tensors of the last call, if nobody else holds them.

        Counted are: for the tensor the pool, its owner's slot, the name p and the question itself;
        for its array the tensor, the list of outputs and the question.
        """
        for k, (shadow, _) in self.entry.pooled.items():
            self.line(f"p = pool.get({k})")
            self.line(f"if p is None or {self.tensor(shadow)}._grad is not p or count(p) != 4 "
                      "or p._node is not None or p._extra is not None "
                      f"or outputs[{k}] is not p._value or count(p._value) != 3: "
                      "return entry.run(args)")
        if self.entry.pooled:
            self.line("p = None")

    def expression(self, structure: Structure, leaves: Any) -> str:
        """Source that builds what the function returns."""
        kind = structure.kind
        if kind is None:
            is_tensor, data = next(leaves)
            if not is_tensor:
                return self.name("constant", data)
            what, place = self.entry.program.recipes[data]
            if what == "output":
                return f"y{data}" if place not in self.entry.pooled else f"pool[{place}]"
            return f"x{place}" if what == "argument" else self.name("object", place)
        parts = [self.expression(child, leaves) for child in structure.children]
        if kind is tuple:
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        if kind is list:
            return f"[{', '.join(parts)}]"
        if structure.keys is None:
            return f"{self.name('kind', kind)}({', '.join(parts)})"
        pairs = ", ".join(f"{self.name('key', key)}: {part}"
                          for key, part in zip(structure.keys, parts, strict=True))
        built = f"{{{pairs}}}"
        if kind is dict or kind.__name__ == "defaultdict":
            return built
        return f"{self.name('kind', kind)}({built})"
