"""The slips of the pen: what a step of a derivation becomes when one thing in it is wrong.

A rule of the table is run once on values that note each operation. That makes it a small program,
and a slip is one change to it: a factor left out, a sign turned, a transposition forgotten, an
operand taken for another. No operation is known by name here other than the arithmetic in which
all rules are written, so a new row has its slips by existing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from chainrule.core.bind import Value
from chainrule.core.errors import ChainruleError
from chainrule.core.node import Node
from chainrule.core.primitive import Primitive

from .tape import Edge, Tape

# Every kind of mistake, and how much it takes to believe it: of two that explain the same numbers
# the earlier one is named.
KINDS = ("sign", "path", "mean", "slope", "upstream", "batch", "transpose", "value", "operand",
         "factor", "extra", "rule")

MOST = 12            # other values of the forward pass that are tried for each operand

FAILURES = (ChainruleError, ValueError, TypeError, IndexError, ZeroDivisionError)


class Slip(NamedTuple):
    """One wrong way to go along an edge. `key` finds the same slip on another tape.

    `likely` is 0 where the rule itself offers the slip, more where anything may have been scaled.
    """

    kind: str
    key: str
    wrong: Callable[[Any], Any]        # the gradient that arrives -> the wrong term
    detail: str = ""
    likely: int = 0


# ---------------------------------------------------------------- a rule as a program


class Operation(NamedTuple):
    """A row applied to earlier results, by number, or to constants."""

    prim: Primitive
    operands: tuple[Any, ...]
    params: dict[str, Any]


class Ref(NamedTuple):
    """A result of the program, by its number; the first ones are g, y and the operands."""

    number: int


@final
class Noted(Value):
    """A value that notes what is done with it."""

    __slots__ = ("number", "program", "value")

    def __init__(self, program: Program, number: int, value: Any) -> None:
        self.program = program
        self.number = number
        self.value = np.asarray(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Noted:
        return self.program.note(prim, xs, params)


Change = dict[int, Callable[..., Any]]


class Program:
    """What a rule does with g, y and the operands, one operation after the other."""

    def __init__(self, rule: Callable[..., Any], inputs: Sequence[Any],
                 params: dict[str, Any]) -> None:
        self.inputs = list(inputs)
        self.operations: list[Operation] = []
        self.depends: list[frozenset[int]] = [frozenset((i,)) for i in range(len(inputs))]
        noted = [Noted(self, i, x) if isinstance(x, np.ndarray) else x
                 for i, x in enumerate(inputs)]
        result = rule(*noted, **params)
        self.result: Any = Ref(result.number) if isinstance(result, Noted) else result

    def note(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Noted:
        values = [x.value if isinstance(x, Noted) else x for x in xs]
        refs = tuple(Ref(x.number) if isinstance(x, Noted) else x for x in xs)
        self.operations.append(Operation(prim, refs, params))
        self.depends.append(frozenset().union(*[self.of(ref) for ref in refs]))
        return Noted(self, len(self.depends) - 1, prim.eval(*values, **params))

    def of(self, operand: Any) -> frozenset[int]:
        """The inputs that an operand depends on."""
        return self.depends[operand.number] if isinstance(operand, Ref) else frozenset()

    def run(self, g: Any, change: Change | None = None,
            inputs: dict[int, Any] | None = None) -> Any:
        """The result for another g, with operations done otherwise or inputs exchanged."""
        values = [*self.inputs]
        values[0] = g
        for i, value in (inputs or {}).items():
            values[i] = value
        for number, (prim, operands, params) in enumerate(self.operations, len(self.inputs)):
            xs = [values[x.number] if isinstance(x, Ref) else x for x in operands]
            wrong = (change or {}).get(number)
            values.append(prim.eval(*xs, **params) if wrong is None else wrong(*xs))
        result = self.result
        return np.asarray(values[result.number] if isinstance(result, Ref) else result)


# ---------------------------------------------------------------- what can go wrong in it


def slips_along(tape: Tape, edge: Edge, g: Any) -> Iterator[Slip]:
    """Every slip on one edge; `g` is a gradient as it arrives there."""
    node = tape.order[edge.place]
    prim = node.prim
    assert prim is not None
    rule: Any = prim.pulls[edge.slot]
    y = node.out if isinstance(node.out, np.ndarray) else node
    try:
        program = Program(rule, [np.asarray(g), y, *node.saved], node.params)
    except FAILURES:
        return
    right = program.run
    yield Slip("sign", "negated", lambda g: -right(g))
    yield from upstream_slips(tape, edge, program, prim)
    yield from changed_operations(tape, node, program)
    yield from exchanged_operands(tape, edge, program, prim)
    yield from scaled(tape, edge, program)


def upstream_slips(tape: Tape, edge: Edge, program: Program, prim: Primitive) -> Iterator[Slip]:
    """The gradient that arrives left out or used twice; the local derivative likewise."""
    right = program.run
    node = tape.order[edge.place]
    target = node.inputs[edge.slot]
    assert target is not None
    yield Slip("upstream", "without g", lambda g: right(np.ones_like(g)))
    yield Slip("extra", "g squared", lambda g: right(g * g), "upstream")
    yield Slip("extra", "g again", lambda g: right(g) * g, "upstream")
    yield Slip("extra", "slope again", lambda g: right(right(g)), "slope")
    if len({after for _, after in tape.edges(node)}) > 1:
        yield Slip("path", "left out", lambda g: np.zeros(target.shape), f"{edge.place}", 1)
    if prim.kind not in ("linear", "bilinear") and target.shape == node.shape:
        yield Slip("slope", "slope as 1", lambda g: np.broadcast_to(g, target.shape))


def changed_operations(tape: Tape, node: Node, program: Program) -> Iterator[Slip]:
    """One operation of the rule left out or done otherwise."""
    divided = averages(node) | divided_by(tape, node)
    for number, (prim, operands, params) in enumerate(program.operations, len(program.inputs)):
        for kind, name, wrong, detail in other_ways(program, prim, operands, params):
            def run(g: Any, number: int = number, wrong: Callable[..., Any] = wrong) -> Any:
                return program.run(g, {number: wrong})
            if kind == "factor" and divided & {size_of(x) for x in operands}:
                kind = "mean"
            yield Slip(kind, f"{number} {name}", run, detail)


def size_of(x: Any) -> float:
    """n for the constants n and 1/n, 0 for anything else."""
    if not isinstance(x, (int, float)) or not x:
        return 0.0
    return float(x) if abs(x) > 1 else round(1 / float(x), 9)


def divided_by(tape: Tape, node: Node) -> set[int]:
    """The number of examples, where the user divides a sum by it instead of taking the mean."""
    if node.name not in ("mul", "div"):
        return set()
    others = tape.order if not node.shape else [node]
    counts = {int(np.prod(one.shape)) for one in others} | {
        one.shape[0] for one in others if one.shape}
    return counts & {round(size_of(x)) for x in node.saved} - {0, 1}


Way = tuple[str, str, Callable[..., Any], str]


def other_ways(program: Program, prim: Primitive, operands: tuple[Any, ...],
               params: dict[str, Any]) -> list[Way]:
    """Kind, name, wrong operation and detail, for one operation of a rule."""
    name = prim.name
    if name in ("mul", "keep"):
        return [*lost(program, operands, "first"), *lost(program, operands, "second")]
    if name == "div":
        return [*lost(program, operands, "first"),
                ("rule", "times", lambda a, b: a * b, "multiplied instead of divided")]
    if name == "neg":
        return [("sign", "not negated", lambda a: a, "")]
    if name in ("add", "sub"):
        outer = 0 in program.of(operands[0]) and 0 in program.of(operands[1])
        term = "path" if outer else "rule"
        turned: list[Way] = [
            ("sign", "other sign", (lambda a, b: a - b) if name == "add" else
             (lambda a, b: a + b), "inside the slope"),
            (term, "first only", lambda a, b: a, "one term of the slope is missing"),
            (term, "second only", lambda a, b: b, "one term of the slope is missing")]
        if name == "sub":
            turned.append(("sign", "turned round", lambda a, b: b - a, "inside the slope"))
        return turned
    if name == "permute":
        return [("transpose", "not transposed", lambda a: a, "")]
    if name == "matmul":
        return [("transpose", "first turned", lambda a, b: np.swapaxes(a, -1, -2) @ b, ""),
                ("transpose", "second turned", lambda a, b: a @ np.swapaxes(b, -1, -2), ""),
                ("transpose", "both turned",
                 lambda a, b: np.swapaxes(a, -1, -2) @ np.swapaxes(b, -1, -2), ""),
                ("transpose", "exchanged", lambda a, b: b @ a, "order")]
    if name == "sum" and params["axes"]:
        axes = params["axes"]
        return [("batch", "not summed", lambda a: a, ""),
                ("mean", "averaged", lambda a: np.mean(a, axis=axes), "averaged"),
                ("batch", "first only", lambda a: a[tuple(
                    0 if i in axes else slice(None) for i in range(a.ndim))], "first"),
                ("batch", "last only", lambda a: a[tuple(
                    -1 if i in axes else slice(None) for i in range(a.ndim))], "first")]
    if name == "pow":
        return [("factor", "no power", lambda a, b: a, "")]
    return []


def lost(program: Program, operands: tuple[Any, ...], which: str) -> list[Way]:
    """A factor that was left out: the upstream gradient, a slope or a constant."""
    kept, dropped = operands if which == "first" else operands[::-1]
    first = which == "first"
    if 0 in program.of(dropped):
        kind = "extra" if 0 in program.of(kept) else "upstream"
    elif program.of(dropped):
        kind = "slope" if 0 in program.of(kept) else "rule"
    else:
        kind = "factor"
    detail = "one factor of the slope is missing" if kind == "rule" else ""

    def wrong(a: Any, b: Any) -> Any:
        one, other = (a, b) if first else (b, a)
        return np.broadcast_to(one, np.broadcast_shapes(np.shape(one), np.shape(other)))

    return [(kind, f"only the {which}", wrong, detail)]


def exchanged_operands(tape: Tape, edge: Edge, program: Program,
                       prim: Primitive) -> Iterator[Slip]:
    """Another value of the forward pass in the place of one that the rule reads."""
    node = tape.order[edge.place]
    used = program.of(program.result)
    arrays = [i for i in sorted(used - {0}) if isinstance(program.inputs[i], np.ndarray)]
    operands = sum(isinstance(x, np.ndarray) for x in node.saved)
    own = "value" if prim.kind == "elementwise" and operands == 1 else "operand"
    for i in arrays:
        right = program.inputs[i]
        for name, value in candidates(tape, node, i):
            if value is right:
                continue
            for key, fitting in fits(value, right):
                def run(g: Any, i: int = i, value: Any = fitting) -> Any:
                    return program.run(g, inputs={i: value})
                kind = own if not name.startswith("after") or is_near(
                    tape, node, name) else "operand"
                yield Slip(kind, f"{i} as {name}{key}", run, name)
                yield from one_use(program, i, kind, name + key, fitting)
    if own == "value" and len(program.inputs) == 3:
        yield from taken_elsewhere(tape, node, program, prim)


def taken_elsewhere(tape: Tape, node: Node, program: Program, prim: Primitive) -> Iterator[Slip]:
    """The whole slope at another point: σ'(a) for σ'(z), computed by the right formula."""
    y, x = program.inputs[1:]
    if not isinstance(y, np.ndarray) or not isinstance(x, np.ndarray):
        return
    yield Slip("value", "2 as result, and back", lambda g: program.run(g, inputs={1: x, 2: y}),
               "result")
    for name, value in candidates(tape, node, 2):
        if value is not x and value.shape == x.shape:
            def run(g: Any, value: Any = value) -> Any:
                return program.run(g, inputs={1: prim.eval(value, **node.params), 2: value})
            kind = "operand" if name.startswith("after") and not is_near(tape, node, name) \
                else "value"
            yield Slip(kind, f"2 as {name} at all", run, name)


def is_near(tape: Tape, node: Node, name: str) -> bool:
    """Is a value, named `after 7`, before or after a node on one path, at most two steps away?"""
    other = tape.order[int(name.split()[1])]
    direct = [one for one in node.inputs if one is not None]
    around = {node, *direct, *[one for near in direct for one in near.inputs]}
    return other in around or node in other.inputs


def one_use(program: Program, i: int, kind: str, name: str, value: Any) -> Iterator[Slip]:
    """An operand that the rule reads twice, exchanged in one of the places only."""
    places = [(number, slot) for number, one in enumerate(program.operations, len(program.inputs))
              for slot, x in enumerate(one.operands) if isinstance(x, Ref) and x.number == i]
    if len(places) < 2:
        return
    for number, slot in places:
        one = program.operations[number - len(program.inputs)]

        def wrong(*xs: Any, one: Operation = one, slot: int = slot) -> Any:
            return one.prim.eval(*xs[:slot], value, *xs[slot + 1:], **one.params)

        def run(g: Any, number: int = number, wrong: Callable[..., Any] = wrong) -> Any:
            return program.run(g, {number: wrong})
        yield Slip(kind, f"{i} as {name} at {number}.{slot}", run, name)


def fits(value: Any, right: Any) -> Iterator[tuple[str, Any]]:
    """A value as it can be taken for another: as it is, or transposed."""
    if value.ndim == 2 and value.T.shape == right.shape != value.shape:
        yield " turned", value.T
    else:
        yield "", value


def candidates(tape: Tape, node: Node, i: int) -> list[tuple[str, Any]]:
    """The values near an operand with which it is confused, each with a name that stays.

    i counts as the inputs of a program do: 1 is the result, 2 and on are the operands.
    """
    found: list[tuple[str, Any]] = [("result", node.out)]
    found += [(f"operand {k}", x) for k, x in enumerate(node.saved)]
    source = node if i == 1 else node.inputs[i - 2]
    if source is not None and source is not node:
        found += [(f"before {k}", x) for k, x in enumerate(source.saved)]
        for before in source.inputs:
            if before is not None:
                found += [(f"before that {k}", x) for k, x in enumerate(before.saved)]
    for after in tape.order:
        if source in after.inputs and after is not node:
            found.append((f"after {tape.place[after]}", after.out))
    right = node.out if i == 1 else node.saved[i - 2]
    known = {id(value) for _, value in found}
    others = [(f"after {place}", other.out) for place, other in enumerate(tape.order)
              if isinstance(other.out, np.ndarray) and other.out.shape == np.shape(right)
              and id(other.out) not in known and right.ndim]
    near = tape.place[node]
    others.sort(key=lambda one: abs(int(one[0].split()[1]) - near))
    return [(name, value) for name, value in [*found, *others[:MOST]]
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"]


def scaled(tape: Tape, edge: Edge, program: Program) -> Iterator[Slip]:
    """A mean for a sum or a sum for a mean."""
    right = program.run
    averaged = averages(tape.order[edge.place])
    for n in sizes(tape, edge):
        yield Slip("mean", f"times {n}", times(right, n), f"times {n}",
                   0 if n in averaged else doubtful(n))
        yield Slip("mean", f"over {n}", times(right, 1 / n), f"over {n}", doubtful(n))


def doubtful(n: int) -> int:
    """A factor 2 is more often a 2 of some formula than a batch of two."""
    return 3 if n == 2 else 1


def times(rule: Callable[[Any], Any], factor: float) -> Callable[[Any], Any]:
    """The rule, its result scaled."""
    return lambda g: rule(g) * factor


def averages(node: Node) -> set[int]:
    """The numbers a node divides by: with each example there twice, its result is the same."""
    prim, arrays = node.prim, [x for x in node.saved if isinstance(x, np.ndarray)]
    if prim is None or not arrays or arrays[0].size <= np.prod(node.shape):
        return set()
    first = arrays[0]
    found = []
    for axis, n in enumerate(first.shape):
        doubled = [np.concatenate([x, x], axis) if isinstance(x, np.ndarray)
                   and x.shape[axis:axis + 1] == (n,) else x for x in node.saved]
        try:
            again = prim.eval(*doubled, **node.params)
        except FAILURES:
            continue
        if np.shape(again) == node.shape and np.allclose(again, node.out):
            found.append(n)
    return {*found, int(np.prod(found))} - {1}


def sizes(tape: Tape, edge: Edge) -> list[int]:
    """The numbers of examples by which one may divide: what this step takes together."""
    node = tape.order[edge.place]
    shapes = [np.shape(x) for x in (node, *node.saved) if hasattr(x, "shape")]
    if not any(shapes):
        return []
    found = averages(node) | {int(np.prod(shape)) for shape in shapes}
    found |= {shape[0] for shape in shapes if shape}
    return sorted(n for n in found if n > 1)
