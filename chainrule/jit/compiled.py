"""`compile`: a function of tensors, modules and optimisers as one call of machine code."""

from __future__ import annotations

import copy
import functools
import inspect
import threading
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from chainrule.core import events
from chainrule.core.bind import Value, state
from chainrule.core.config import settings
from chainrule.core.errors import ChainruleError, SettingError, TracedValueError
from chainrule.core.events import listeners

from .checks import overlaps, reason, serves
from .entry import Entry, mode_now
from .numbers import KINDS
from .report import Report
from .results import LEAF, MISS, Structure, flatten, unflatten
from .tracing import StateMadeError, Traced, refuse_kept, take_back, traced
from .ways import begin

Function = Callable[..., Any]
MAKES = "an optimiser makes its state in this step"
RETRIED = (ArithmeticError, AssertionError, AttributeError, ChainruleError, LookupError,
           RuntimeError, TypeError, ValueError)      # what code may raise at an unknown number


class RecompileWarning(UserWarning):
    """A compiled function is compiled again and again."""


class CompileRecord:
    """One compilation: `why` it was needed, and how many nodes its graph has."""

    def __init__(self, why: str, entry: Entry) -> None:
        self.why = why
        self.nodes = len(entry.program.graph)

    def __repr__(self) -> str:
        return f"<compiled: {self.why}, {self.nodes} nodes>"


class Compiled:
    """A function that is run by Python once for each kind of call, and by machine code after.

    compiles   what was compiled, with the reason for each
    eager_runs calls that were run by Python, by reason: those whose arguments overlap in memory
               with what the function writes
    """

    def __init__(self, function: Any, limit: int) -> None:
        self.function = function
        self.limit = limit
        self.compiles: list[CompileRecord] = []
        self.eager_runs: dict[str, int] = {}
        self._entries: list[Entry] = []
        self._last: Entry | None = None
        self._lock = threading.RLock()
        self._warned = False
        self._missed = 0
        self._after_once = ""
        self._loose: dict[Structure, set[int]] = {}      # numbers that each call brings anew
        self._fixed: dict[Structure, set[int]] = {}      # those with which that cannot be done
        functools.update_wrapper(self, function, updated=())
        called = getattr(function, "forward", function)      # a module's arguments are those
        if isinstance(called, types.FunctionType | types.MethodType):
            self._signature = inspect.signature(called)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if listeners:
            if events.quiet <= 0:
                return self._watched(args, kwargs)
            events.quiet -= 1
        entry = self._last
        if entry is not None and not kwargs:
            with entry.lock:
                result = entry.call(args)
            if result is not MISS:
                return result
        return self._slowly(args, kwargs)

    def _watched(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call while somebody listens: by Python where every value is wanted, else as always."""
        if state.recording == 2 and state.capture is None:
            return self.function(*args, **kwargs)
        events.quiet = 1                       # for this call
        result = self(*args, **kwargs)
        if self._last is not None and self._last.program.steps:
            events.tell("compiled", steps=self._last.program.steps)
        return result

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        # What belongs to the function or module itself: model.parameters(), model.train().
        if name in ("function", "_signature"):
            raise AttributeError(name)
        return getattr(self.function, name)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", None) or type(self.function).__name__
        return f"<compiled {name}>"

    def __deepcopy__(self, memo: Any) -> Compiled:
        return Compiled(copy.deepcopy(self.function, memo), self.limit)

    def __reduce__(self) -> Any:
        return _made, (self.function, self.limit)

    # ------------------------------------------------------------ the longer path

    def _slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves, structure = flatten((args, kwargs))
        if self._inlined(leaves):
            return self.function(*args, **kwargs)
        why, loosened = "first call", []
        with self._lock:
            for entry in self._entries:
                if entry.structure == structure:
                    with entry.lock:
                        if serves(entry, leaves):
                            return self._run(entry, leaves, args, kwargs)
            if self._after_once:
                why, self._after_once = self._after_once, ""
            elif self._entries:
                why = self._closest(leaves, structure)
                loosened = self._loosen(leaves, structure)
            for _ in range(3):
                try:
                    entry = self._compiled(leaves, structure, args, kwargs, why, loosened)
                except StateMadeError:
                    if self.eager_runs.get(MAKES, 0) > 2:        # it is made in each step
                        raise
                    self.eager_runs[MAKES] = self.eager_runs.get(MAKES, 0) + 1
                    return self.function(*args, **kwargs)
                with entry.lock:
                    if entry.program.shared:
                        return self._eagerly(entry.program.shared, args, kwargs)
                    if serves(entry, leaves):
                        return self._run(entry, leaves, args, kwargs)
                    why = "it changed while being compiled: " + reason(entry, leaves, structure)
            raise TracedValueError(f"{self!r} cannot be compiled: {why}")

    def _run(self, entry: Entry, leaves: Sequence[Any], args: tuple[Any, ...],
             kwargs: dict[str, Any]) -> Any:
        if entry.once:
            self._after_once = entry.once
            if entry in self._entries:
                self._entries.remove(entry)
        else:
            self._keep(entry)
        overlap = overlaps(entry, leaves)
        if overlap:
            return self._eagerly(f"{overlap} share memory", args, kwargs)
        return entry.run(leaves)

    def _inlined(self, leaves: Sequence[Any]) -> bool:
        """Inside another transformation, or switched off, the function is simply called."""
        return (state.capture is not None or bool(state.tracing) or state.recording == 2
                or settings.compile == "off"
                or any(isinstance(x, Value) and x._value is None for x in leaves))  # type: ignore[attr-defined]

    def _eagerly(self, why: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if why not in self.eager_runs:
            warnings.warn(f"{self!r} runs without being compiled: {why}. What is written through "
                          "one must be seen through the other; pass a clone() if it need not.",
                          RecompileWarning, stacklevel=4)
        self.eager_runs[why] = self.eager_runs.get(why, 0) + 1
        return self.function(*args, **kwargs)

    def _keep(self, entry: Entry) -> None:
        """The entry is the latest; the one that was not used for longest goes."""
        entries = self._entries
        if entry in entries:
            entries.remove(entry)
        entries.insert(0, entry)
        self._last = entry
        if len(entries) <= self.limit:
            return
        entries.pop()
        self._missed += 1
        if self._missed >= self.limit and not self._warned:
            self._warned = True
            reasons = "".join(f"\n  {record.why}" for record in self.compiles[-3:])
            warnings.warn(
                f"{self!r} was compiled {len(self.compiles)} times and keeps the latest "
                f"{self.limit} (limit={self.limit}). The last reasons:{reasons}\nPass what changes "
                "as a tensor rather than a Python number, and give batches one size.",
                RecompileWarning, stacklevel=5)

    def _closest(self, leaves: Sequence[Any], structure: Structure) -> str:
        """Why the latest entry does not serve."""
        entry = self._entries[0]
        with entry.lock:
            return reason(entry, leaves, structure)

    def _loosen(self, leaves: Sequence[Any], structure: Structure) -> list[str]:
        """Let numbers that differ from those compiled for be brought by each call: their names."""
        entry = next((entry for entry in self._entries if entry.structure == structure), None)
        if entry is None:
            return []
        loose = self._loose.setdefault(structure, set())
        fixed = self._fixed.get(structure, set())
        found = [i for i, value in entry.values
                 if i not in loose and i not in fixed and type(value) in KINDS
                 and type(leaves[i]) in KINDS and leaves[i] != value]
        loose.update(found)
        return [entry.names[i] for i in found]

    # ------------------------------------------------------------ compiling

    def _compiled(self, leaves: Sequence[Any], structure: Structure, args: tuple[Any, ...],
                  kwargs: dict[str, Any], why: str, loosened: Sequence[str] = ()) -> Entry:
        names = self._names(args, kwargs)
        for x, name in zip(leaves, names, strict=True):
            if isinstance(x, np.ndarray):
                raise TracedValueError(
                    f"argument {name} of {self!r} is a NumPy array: a compiled function takes "
                    f"tensors, whose numbers change from call to call, and Python values, for each "
                    f"of which it is compiled. Pass cr.from_numpy({name}), which shares its memory")
        mode = mode_now()
        capture, program, watches, owners = self._traced(leaves, structure, names)
        simple = not kwargs and all(child is LEAF for child in structure.children[0].children)

        def again(leaves: Sequence[Any]) -> Any:
            args, kwargs = unflatten(structure, iter(leaves))
            return self.function(*args, **kwargs)

        try:
            entry = Entry(program, capture, watches, leaves, structure, simple, mode, names, again,
                          owners)
            begin(entry)
        except BaseException:
            take_back(capture.undo)
            raise
        capture.forget()
        handles, undo = capture.handles, capture.undo
        del capture, program
        refuse_kept(repr(self), handles, undo)
        if loosened:
            why += f"; from now on {', '.join(loosened)} " + (
                "may change from call to call" if entry.evaluation is not None else
                "stays fixed, as the code does not run with a stand-in for it")
        self.compiles.append(CompileRecord(why, entry))
        return entry

    def _traced(self, leaves: Sequence[Any], structure: Structure,
                names: Sequence[str]) -> Traced:
        """The run, with numbers brought by each call where that can be done."""
        loose = {i: names[i] for i in sorted(self._loose.get(structure, ()))
                 if type(leaves[i]) in KINDS}
        if loose:
            try:
                result = traced(self.function, repr(self), leaves, structure, names, loose)
            except RETRIED:      # if it is not due to the stand-ins, it is raised again below
                result = traced(self.function, repr(self), leaves, structure, names)
            if result.capture.tape is None:
                self._loose[structure] -= set(loose)
                self._fixed.setdefault(structure, set()).update(loose)
            return result
        return traced(self.function, repr(self), leaves, structure, names)

    def _names(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        """What the leaves of the arguments are called."""
        known = list(self._signature.parameters) if hasattr(self, "_signature") else []
        names: list[str] = []
        for i, x in enumerate(args):
            own = known[i] if i < len(known) else str(i)
            count = len(flatten(x)[0])
            names += [own] if flatten(x)[1] is LEAF else [f"{own}[{k}]" for k in range(count)]
        for key, x in kwargs.items():
            count = len(flatten(x)[0])
            names += [key] if flatten(x)[1] is LEAF else [f"{key}[{k}]" for k in range(count)]
        return names

    # ------------------------------------------------------------ what it did

    def report(self, runs: int = 10) -> Report:
        """What it became: the compilations and their reasons, kernels, flops, bytes, times.

        Times are means of `runs` runs, on arrays of their own.
        """
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        records = [(record.why, record.nodes) for record in self.compiles]
        return Report(name, records, list(self._entries), dict(self.eager_runs), runs)


@overload
def compile(function: Any, *, limit: int = 16) -> Compiled: ...
@overload
def compile(*, limit: int = 16) -> Callable[[Any], Compiled]: ...


def compile(function: Any = None, *, limit: int = 16) -> Any:
    """A function of tensors, modules and optimisers as one call of machine code.

    The function is run by Python once, without numbers, for each kind of call: for each type of the
    tensors among its arguments, each value of the others, and each state of the Python values its
    code reads (`model.training`, a global number). What it reads and writes outside, such as
    parameters, optimiser state, `.grad` and running statistics, is read and written by each call.
    `limit` compilations are kept, those used last.

    Raises `TracedValueError`, naming the line, for what cannot be recorded: a Python `if` on a
    value, `.item()`, printing or NumPy on a traced tensor, and changes to Python objects, which
    would happen only once.

    >>> import chainrule as cr
    >>> model = cr.nn.Linear(2, 1)
    >>> optimizer = cr.optim.SGD(model.parameters(), lr=0.1)
    >>> @cr.compile
    ... def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = ((model(x) - y) ** 2).mean()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = cr.ones(4, 2), cr.zeros(4, 1)
    >>> first = step(x, y)
    >>> bool(step(x, y) < first)
    True
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise SettingError(f"limit={limit!r} must be a whole number, at least 1")
    if function is None:
        return lambda function: compile(function, limit=limit)
    if not callable(function):
        raise TypeError(f"cr.compile wants a function or a module, not {type(function).__name__}")
    if isinstance(function, Compiled):
        return function
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise TypeError(f"cr.compile({function.__name__}): a generator or coroutine runs piece by "
                        "piece, which cannot be compiled as one call; compile the step inside it")
    return Compiled(function, limit)


def _made(function: Any, limit: int) -> Compiled:
    """What a pickled compiled function becomes: it is compiled anew."""
    return Compiled(function, limit)
