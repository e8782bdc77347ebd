"""Running a function once without numbers, and refusing what would happen only once."""

from __future__ import annotations

import gc
import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from chainrule.core.bind import Value, state
from chainrule.core.config import settings
from chainrule.core.errors import TracedValueError
from chainrule.core.node import Origin, is_internal, storage_of
from chainrule.core.types import type_of
from chainrule.tensor import Tensor

from .capture import Capture
from .guards import SMALL_ARRAY, Search, Watch, is_library, told
from .options import States
from .program import Program, close, poison
from .results import Structure, flatten, unflatten
from .slots import watched


class StateMadeError(TracedValueError):
    """An optimiser of the user's makes its state in the step, which Python must do first."""


class Traced(NamedTuple):
    """What a run gave: its capture, the closed program, and what must stay as it is."""

    capture: Capture
    program: Program
    watches: list[Watch]
    owners: list[Any]            # whose writes are noticed, and may change what is watched


def traced(function: Callable[..., Any], name: str, leaves: Sequence[Any], structure: Structure,
           names: Sequence[str], loose: Mapping[int, str] = MappingProxyType({})) -> Traced:
    """Run `function` without numbers on arguments with these leaves.

    Those in `loose`, by place and name, are Python numbers that each call brings anew.

    A run that only prepared something (a mask kept for later) is done again, with that in place.
    """
    objects = [(f"argument {own}", x) for own, x in zip(names, leaves, strict=True)
               if not isinstance(x, Value)]
    last = None
    for _ in range(2):
        search = Search(function, objects)
        refuse_moving(search, name)
        if loose and search.asks_types:
            loose = {}
        arrays = search.array_watches()
        states = States(search.optimizers())
        try:
            capture, program = once(function, name, leaves, structure, search, loose)
        except BaseException:
            states.put_back(None)
            raise
        made, changed = states.put_back(capture)
        if made or changed:
            take_back(capture.undo)
            raise StateMadeError(
                f"{name} makes {made}: Python runs it only once, so it would be made only once, "
                "too. Run one step without cr.compile first, so that it exists.") if made else (
                TracedValueError(
                    f"{name} changes {changed}: Python runs it only once, so later calls would "
                    "not. Keep it in a tensor and write into that: add_(), copy_()."))
        lifted = {id(storage_of(array)) for array in capture.arrays} - capture.frozen
        kept = [w for w in arrays if id(storage_of(w.read())) not in lifted]
        large = next((w for w in kept if w.found.nbytes > SMALL_ARRAY), None)
        if large is not None:
            take_back(capture.undo)
            raise TracedValueError(
                f"{name} reads {large.where}, {told(large.found)}, with NumPy: what it computed "
                "from it would stay what it was at the first call. Pass it as a tensor, or make a "
                "tensor of it outside: cr.from_numpy(array)")
        last = next((w for w in (*search.watches, *search.once, *arrays) if not w.holds()), None)
        if last is None:
            return Traced(capture, program, [*search.watches, *kept], search.owners())
        take_back(capture.undo)
        if is_leaked(last.read()):
            raise TracedValueError(
                f"{name} stores a tensor it computes in {last.where}: Python runs it only once, so "
                "later calls would not store theirs. Return the tensor, or write into one that "
                "exists: x.copy_(value).")
    assert last is not None
    raise TracedValueError(
        f"{name} changes {last.change()}. Python runs it only once, so later calls would not "
        "change it. Do that outside the function, or keep the number in a tensor: "
        "n = cr.zeros(()) before, n.add_(1) inside.")


def take_back(undo: list[Callable[[], Any]]) -> None:
    """Undo what a run changed outside: states it made for optimisers."""
    while undo:
        undo.pop()()


def once(function: Callable[..., Any], name: str, leaves: Sequence[Any], structure: Structure,
         search: Search, loose: Mapping[int, str]) -> tuple[Capture, Program]:
    """One run, with nothing left behind if it fails."""
    stand_ins: dict[int, Any] = {}
    given = [stand_ins.setdefault(id(x), stand_in(x)) if isinstance(x, Value) else x
             for x in leaves]
    outer = state.recording, state.inference, state.tracing, state.capture, state.scope
    numbers = random_states()
    settled = settings.default_dtype
    capture = Capture(given, search.arrays, loose)
    for i, own in loose.items():
        given[i] = capture.tape.argument(i, leaves[i], own)  # type: ignore[union-attr]
    args, kwargs = unflatten(structure, iter(given))
    with watched():
        state.tracing, state.capture = "compile", capture
        try:
            result = function(*args, **kwargs)
            if capture.refused is not None:
                raise capture.refused
            if (state.recording, state.inference) != outer[:2]:
                raise TracedValueError(
                    f"{name} leaves recording switched {'on' if state.recording else 'off'}: "
                    "Python runs it only once, so later calls would not. Use `with cr.no_grad():`, "
                    "or call set_grad_enabled outside.")
            if settings.default_dtype is not settled:
                settings.default_dtype = settled
                raise TracedValueError(
                    f"{name} changes the default dtype: Python runs it only once, so "
                    "later calls would not. Do that outside.")
            after, its_structure = flatten((args, kwargs))
            if its_structure != structure or any(a is not b for a, b in zip(
                    after, given, strict=True)):
                raise TracedValueError(
                    f"{name} changes a list or dictionary it was given: Python runs it only once, "
                    "so later calls would not. Return what is new.")
            program = close(capture, result, search.scanned)
            del result
            poison(capture.handles)
        except BaseException as error:
            state.recording, state.inference, state.tracing, state.capture, state.scope = outer
            take_back(capture.undo)
            poison(capture.handles)
            if isinstance(error, (AttributeError, TypeError)) and asked_for_numbers(error):
                raise no_numbers(error) from error
            raise
        finally:
            state.recording, state.inference, state.tracing, state.capture, state.scope = outer
    if search.draws and random_states() != numbers:      # else it was another thread
        take_back(capture.undo)
        raise TracedValueError(
            f"{name} draws random numbers with Python or NumPy: they would be those of the first "
            "call for ever. Draw them with cr.rand and the like, or outside the function.")
    return capture, program


def stand_in(x: Any) -> Any:
    """Another handle on an argument.

    The function may reach the tensor itself in another way too, and which of the two it means must
    be told apart, since the argument is another in each call.
    """
    cls: Any = type(x)
    handle = cls.__new__(cls)
    handle._value, handle._node, handle._grad, handle._extra = x._value, x._node, x._grad, x._extra
    return handle


def random_states() -> tuple[Any, ...]:
    """Where the generators of Python and NumPy stand."""
    numpy: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    return random.getstate(), numpy[1].tobytes(), numpy[2:]


def refuse_moving(search: Search, name: str) -> None:
    """Clocks and iterators give something else each time they are asked."""
    for where, x in search.moving:
        raise TracedValueError(
            f"{name} reads {where} ({told(x)}), which gives something else each time: Python runs "
            "the function only once, so later calls would have what the first one got. Read it "
            "outside, and pass what it gives as an argument.")


def is_leaked(x: Any) -> bool:
    """Is it, or does it hold, a tensor of a run that ended?"""
    items = x if isinstance(x, (list, tuple)) else x.values() if isinstance(x, dict) else [x]
    return any(isinstance(y, Tensor) and y._value is None for y in items)


def refuse_kept(name: str, handles: list[Any], undo: list[Callable[[], Any]]) -> None:
    """Raise if a tensor of a run that is over is still held by somebody."""
    for pause in (0.0, 0.0, 0.02):
        if not any(reference() is not None for reference in handles):
            return
        time.sleep(pause)                        # another thread may be collecting just now
        gc.collect()                             # a cycle that nobody reaches is nobody's
    for reference in handles:
        tensor = reference()
        if tensor is not None:
            take_back(undo)
            where = tensor._node.origin
            raise TracedValueError(
                f"{name} keeps a tensor it computes ({type_of(tensor)}, made at {where}) in an "
                f"attribute, a list or a variable from outside.\n    {where.source()}\n"
                "Python runs it only once, so later calls would not store theirs. Return the "
                "tensor, or write into one that exists: x.copy_(value).")


def asked_for_numbers(error: BaseException) -> bool:
    """Did code of the package look for the array of a tensor that has none?"""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames or "NoneType" not in str(error):
        return False
    filename = frames[-1][0].f_code.co_filename
    return is_internal(filename) and Path(filename).parent != Path(__file__).parent


def no_numbers(error: BaseException) -> TracedValueError:
    """The error for a function of the package that needs numbers."""
    place = Origin("", 0, "", "")
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if not is_library(code.co_filename):
            place = Origin(code.co_filename, line, code.co_name, "")
    return TracedValueError(
        f"what is called at {place} needs the numbers in a tensor, but a compiled function is run "
        f"by Python only once, without numbers.\n    {place.source()}\n"
        "Do that outside the function, and pass its result as an argument.")
