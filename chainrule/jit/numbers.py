"""Python numbers among the arguments that each call brings anew, such as an annealed weight.

In the run they are stand-ins, `Number`. Arithmetic of Python on them is written down and done by
Python in each call, so it gives what eager execution gives. Where a tensor meets one, it becomes an
input of the graph in the dtype the operation gives it. Where the code needs to know the number (a
comparison, an index, `math.exp`), the run is told it, and what it was told is a guard.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.core.bind import Value
from chainrule.core.config import settings
from chainrule.core.node import Origin
from chainrule.core.record import wrapped
from chainrule.core.types import ArrayType, result_dtype

from .guards import is_library

KINDS = (int, float, np.float64, np.float32, np.int64, np.int32)
_SIGNS = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%",
          "pow": "**", "and_": "&", "or_": "|", "xor": "^", "lshift": "<<", "rshift": ">>",
          "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_TRUTHS = ("lt", "le", "gt", "ge", "eq", "ne")
LONGEST = 60                     # characters of an expression in a message


class Guard:
    """What the run was told about a number: `text` was `found`, asked for at `place`."""

    __slots__ = ("found", "name", "place", "text")

    def __init__(self, name: str, text: str, found: Any, place: Origin) -> None:
        self.name = name
        self.text = text
        self.found = found
        self.place = place

    def __str__(self) -> str:
        source = self.place.source().strip()
        what = "" if self.text == self.name else f": {self.text}"
        return (f"argument {self.name}{what} is no longer {self.found!r:.40}, which the code "
                f"needs to know at {self.place}" + (f" ({source})" if source else ""))


class Tape:
    """What a run does with the numbers of its arguments, in order, as lines of Python.

    `reads` are the numbers of the leaves it starts from; `guards` what was asked; `scalars` what
    tensors met: (number of the line's value, dtype) -> the input of the graph.
    """

    def __init__(self, source: Callable[[Any, ArrayType], Any]) -> None:
        self.source = source
        self.open = True
        self.reads: dict[int, Number] = {}
        self.lines: list[str] = []
        self.space: dict[str, Any] = {}
        self.guards: list[Guard] = []
        self.asked: set[str] = set()
        self.scalars: dict[tuple[int, Any], Any] = {}
        self.places: dict[str, int] = {}         # where the evaluation keeps which value
        self.count = 0

    def argument(self, leaf: int, value: Any, name: str) -> Number:
        """The stand-in for an argument."""
        found = self.reads[leaf] = Number(self, f"x{leaf}", value, name, name)
        return found

    def constant(self, value: Any) -> str:
        """How a line names a Python number."""
        name = f"c{len(self.space)}"
        self.space[name] = value
        return name

    def operate(self, name: str, *operands: Any) -> Any:
        """A function of the module `operator` applied to numbers and stand-ins, in order."""
        function = getattr(operator, name)
        values = [x._value if type(x) is Number else x for x in operands]
        value = function(*values)
        mine = next(x for x in operands if type(x) is Number)
        if not self.open or type(value) not in KINDS:
            return value if not self.open else function(*[
                self.settled(x) if type(x) is Number else x for x in operands])
        given = [x._line if type(x) is Number else self.constant(x) for x in operands]
        told = [x._text if type(x) is Number else repr(x) for x in operands]
        self.count += 1
        line = f"v{self.count}"
        sign = _SIGNS.get(name)
        self.lines.append(f"{line} = {given[0]} {sign} {given[1]}" if sign else
                          f"{line} = {self.constant(function)}({', '.join(given)})")
        if name == "pow":                        # whose type depends on the values
            self.guard(mine, f"type({line}) is not {self.constant(type(value))}", "the type",
                       type(value))
        text = f"({told[0]} {sign} {told[1]})" if sign else f"{name}({', '.join(told)})"
        if len(text) > LONGEST:
            text = f"a number computed from {mine._name}"
        return Number(self, line, value, mine._name, text)

    def truth(self, name: str, *operands: Any) -> bool:
        """The truth of a comparison, or of a number itself; it is a guard."""
        function = getattr(operator, name)
        values = [x._value if type(x) is Number else x for x in operands]
        found = bool(function(*values))
        if self.open:
            mine = next(x for x in operands if type(x) is Number)
            given = [x._line if type(x) is Number else self.constant(x) for x in operands]
            told = [x._text if type(x) is Number else repr(x) for x in operands]
            sign = _SIGNS.get(name)
            look = f"({given[0]} {sign} {given[1]})" if sign else given[0]
            text = f"{told[0]} {sign} {told[1]}" if sign else f"the truth of {told[0]}"
            self.guard(mine, f"{'not ' if found else ''}{look}", text, found)
        return found

    def settled(self, number: Number) -> Any:
        """The value itself, which is a guard from now on."""
        if self.open:
            known = self.constant(number._value)
            self.guard(number, f"not same({number._line}, {known})", number._text, number._value)
        return number._value

    def guard(self, number: Number, wrong: str, text: str, found: Any) -> None:
        """A line that ends the evaluation where a condition holds."""
        key = f"{number._line} {text} {found!r}"
        if key not in self.asked:
            self.asked.add(key)
            self.lines.append(f"if {wrong}: return {len(self.guards)}")
            self.guards.append(Guard(number._name, text, found, asking()))

    # ------------------------------------------------------------ tensors and numbers

    def operands(self, prim: Any, xs: tuple[Any, ...],
                 params: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Operands and params of a row, without stand-ins: as inputs of the graph, or settled."""
        if params:
            params = {key: plain(x) for key, x in params.items()}
        if not any(type(x) is Number for x in xs):
            return xs, params
        chosen = range(len(xs)) if prim.promoted is None else prim.promoted
        if prim.kind != "elementwise" or not prim.promote:
            return tuple(map(plain, xs)), params
        others = [x for x in xs if type(x) is not Number]
        dtype = result_dtype([xs[i]._value.item() if isinstance(plain_value(xs[i]), np.generic)
                              else plain_value(xs[i]) for i in chosen])
        if dtype.kind != "f":
            if prim.promote == "float":
                dtype = settings.default_dtype
            elif prim.promote == "number" and dtype.kind == "b":
                dtype = np.dtype("int64")
        made = []
        for i, x in enumerate(xs):
            if type(x) is not Number:
                made.append(x)
            elif i not in chosen or not others or (
                    prim.name == "pow" and i == 1 and isinstance(x._value, int)):
                made.append(self.settled(x))     # x ** 2 is another computation than x ** 3
            else:
                made.append(self.scalar(x, dtype))
        return tuple(made), params

    def scalar(self, number: Number, dtype: Any) -> Any:
        """The number as a tensor without axes."""
        place = self.place(number)
        found = self.scalars.get((place, dtype))
        if found is None:
            found = self.scalars[place, dtype] = self.source(
                (place, dtype), ArrayType((), dtype))
        return found

    def place(self, number: Number) -> int:
        """Where the evaluation keeps the number for this call."""
        line = number._line
        if line not in self.places:
            self.lines.append(f"found[{len(self.places)}] = {line}")
            self.places[line] = len(self.places)
        return self.places[line]

    def close(self) -> Evaluation:
        """The run is over: what each call does."""
        self.open = False
        return Evaluation(self)


class Evaluation:
    """What each call computes from its numbers; `found` holds the results for this call."""

    def __init__(self, tape: Tape) -> None:
        self.reads = [(i, type(number._value)) for i, number in sorted(tape.reads.items())]
        self.guards = tape.guards
        self.found: list[Any] = [None] * len(tape.places)
        names = ", ".join(f"x{i}" for i, _ in self.reads)
        body = "".join(f"        {line}\n" for line in tape.lines)
        source = (f"def evaluate({names}):\n    try:\n{body}        return -1\n"
                  "    except (ArithmeticError, ValueError, TypeError):\n"
                  f"        return {len(tape.guards)}\n")
        inside = {**tape.space, "same": alike, "found": self.found}
        exec(compile(source, "<numbers of a call>", "exec"), inside)
        self.run: Callable[..., int] = inside["evaluate"]

    def change(self, leaves: Sequence[Any]) -> str:
        """Which guard does not hold for these arguments, in words, or ''."""
        number = self.run(*[leaves[i] for i, _ in self.reads])
        if number < 0:
            return ""
        return str(self.guards[number]) if number < len(self.guards) else (
            "what is computed from its numbers fails")


def asking() -> Origin:
    """The line of the user's code that is running, be it by way of a library."""
    frame: Any = sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return Origin.of(None, 0, None) if frame is None else Origin.of(
        frame.f_code, frame.f_lasti, None)


def alike(a: Any, b: Any) -> bool:
    """Equal, of one type, and of one sign; NaN equals itself."""
    return type(a) is type(b) and (repr(a) == repr(b) if a == a else b != b)


def stored(x: Any, dtype: Any) -> Any:
    """A Python number as promotion makes an operand of it."""
    return x if dtype.kind == "f" else wrapped(x, dtype)


def plain_value(x: Any) -> Any:
    return x._value if type(x) is Number else x


def plain(x: Any) -> Any:
    """Params of a row with what stands for numbers settled, all the way down."""
    kind = type(x)
    if kind is Number:
        return x._tape.settled(x)
    if kind is tuple or kind is list:
        return kind([plain(y) for y in x]) if holds_number(x) else x
    if kind is slice:
        return slice(plain(x.start), plain(x.stop), plain(x.step)) if holds_number(x) else x
    if kind is dict:
        return {key: plain(y) for key, y in x.items()} if holds_number(x) else x
    return x


def holds_number(x: Any) -> bool:
    """Is a stand-in somewhere in it?"""
    kind = type(x)
    if kind is Number:
        return True
    if kind is slice:
        return any(type(y) is Number for y in (x.start, x.stop, x.step))
    if kind is tuple or kind is list or kind is dict:
        return any(map(holds_number, x.values() if kind is dict else x))
    return False


def _arithmetic(name: str) -> Any:
    def infix(self: Number, other: Any) -> Any:
        kind = type(other)
        if kind is Number or kind in KINDS or kind is bool:
            return self._tape.operate(name, self, other)
        if isinstance(other, Value):
            return NotImplemented
        return getattr(operator, name)(self._tape.settled(self), other)
    return infix


def _swapped(name: str) -> Any:
    def infix(self: Number, other: Any) -> Any:
        kind = type(other)
        if kind in KINDS or kind is bool:
            return self._tape.operate(name, other, self)
        if isinstance(other, Value):
            return NotImplemented
        return getattr(operator, name)(other, self._tape.settled(self))
    return infix


def _comparison(name: str) -> Any:
    def infix(self: Number, other: Any) -> Any:
        kind = type(other)
        if kind is Number or kind in KINDS or kind is bool:
            return self._tape.truth(name, self, other)
        if isinstance(other, Value):
            return NotImplemented
        return getattr(operator, name)(self._tape.settled(self), other)
    return infix


def _prefix(name: str) -> Any:
    return lambda self: self._tape.operate(name, self)


def _settling(function: Callable[..., Any]) -> Any:
    return lambda self, *more: function(self._tape.settled(self), *more)


class Number:
    """What stands for a number in the run. It says it is of the class of the number."""

    __slots__ = ("_line", "_name", "_tape", "_text", "_value")

    __array_ufunc__: Any = None
    __class__ = property(lambda self: type(self._value))

    def __init__(self, tape: Tape, line: str, value: Any, name: str, text: str) -> None:
        self._tape = tape
        self._line = line
        self._value = value
        self._name = name
        self._text = text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tape.settled(self), name)

    def __bool__(self) -> bool:
        return bool(self._tape.truth("truth", self))


def _as_array(value: Any, dtype: Any = None, copy: Any = None) -> Any:
    return np.array(value, dtype)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor",
              "lshift", "rshift"):
    _own = _name.rstrip("_")
    setattr(Number, f"__{_own}__", _arithmetic(_name))
    setattr(Number, f"__r{_own}__", _swapped(_name))
for _name in _TRUTHS:
    setattr(Number, f"__{_name}__", _comparison(_name))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Number, f"__{_name}__", _prefix(_name))
_known: dict[str, Callable[..., Any]] = {
    "float": float, "int": int, "complex": complex, "index": operator.index, "hash": hash,
    "repr": repr, "str": str, "format": format, "round": round, "trunc": int, "array": _as_array}
for _name, _function in _known.items():
    setattr(Number, f"__{_name}__", _settling(_function))
