"""The error of a backward pass that has nowhere to go: recording is off, all is frozen, or the
gradient was stopped on the way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from chainrule.core.bind import Value, state
from chainrule.core.changes import Watched
from chainrule.core.cuts import Cut, forget_cuts, memory, recent_cuts
from chainrule.core.errors import NoGradientError
from chainrule.core.node import is_internal
from chainrule.core.places import place_of
from chainrule.core.types import type_of

MOST = 1000               # elements of a list or dictionary that are looked at


def no_graph(y: Any, what: str) -> NoGradientError:
    """The error for a tensor no gradient can flow from, with the likeliest reason first."""
    if y.dtype.kind != "f":
        whole = [cut for cut in recent_cuts() if cut.what.endswith(",") or ".to(" in cut.what][-1:]
        forget_cuts()
        where = "".join(f"\nThe last such step:\n  {_line(cut)}" for cut in whole)
        return NoGradientError(
            f"{what}: a tensor of dtype {y.dtype} has no gradient: whole numbers and bools do not "
            "change continuously. Positions and comparisons (argmax, round to int, >) have "
            "derivative 0 almost everywhere; use a smooth stand-in such as softmax or sigmoid, or "
            f"make the tensor float.{where}").about("CR308", *[cut.origin for cut in whole])
    off = None if state.recording else memory.off
    cuts = [cut for cut in recent_cuts() if cut != off][-3:]
    forget_cuts()
    begin = (f"{what}: this tensor ({type_of(y)}) is not connected to anything that requires a "
             "gradient.")
    if off is not None:
        return NoGradientError(f"{begin} {_switched_off(off)}").about(
            "CR308", off.origin, *[cut.origin for cut in reversed(cuts)])
    names, parameters = _frozen()
    if parameters:
        place = place_of(parameters[0], "frozen")
        where = f" They were frozen\n  at {place}\n      {place.source()}\n" if place.file else " "
        return NoGradientError(
            f"{what}: all {len(parameters)} parameters of {names} have requires_grad=False, and so "
            f"nothing that this tensor ({type_of(y)}) was computed from can learn.{where}Call "
            "requires_grad_(True) on the part that is to learn, and make sure that an optimiser "
            "has its parameters.").about("CR204", *([place] if place.file else []))
    if cuts:
        places = "".join(f"\n  {_line(cut)}" for cut in cuts)
        hint = ("The program stopped gradients at these places; the last is the likeliest:"
                f"{places}"
                "\nLet the loss be computed from the parameters by tensor operations alone, and "
                "make sure they were made with requires_grad=True (nn.Module does).")
    else:
        hint = ("No operation on the way to it involved a tensor with requires_grad=True. Create "
                "the parameters with requires_grad=True (nn.Module does), and do not copy them "
                "with cr.tensor(...).")
    return NoGradientError(f"{begin} {hint}").about(
        "CR308", *[cut.origin for cut in reversed(cuts)])


def _line(cut: Cut) -> str:
    return f"{cut.what} at {cut.origin}\n      {cut.origin.source()}"


def _switched_off(off: Cut) -> str:
    """What to say where recording is off at this very moment."""
    if off.what.startswith("set_grad_enabled"):
        better = ("Without `with` it stays off until it is switched on again. Write "
                  "`with cr.no_grad():` around what is not to be recorded: that ends by itself, "
                  "also after an error.")
    else:
        better = ("Compute the loss outside of it; inside belongs only what is not to be "
                  "trained, such as an evaluation.")
    return f"Recording is off here, since\n  {_line(off)}\n{better}"


# ---------------------------------------------------------------- what the user's variables hold


def _frozen() -> tuple[str, list[Any]]:
    """The modules in the user's variables and their parameters, if none of these, and nothing else
    in the variables, requires a gradient; else nothing.
    """
    modules: dict[int, tuple[str, Any]] = {}
    for name, value in _variables():
        if _is_module(value):
            modules.setdefault(id(value), (name, value))
        elif any(x.requires_grad for x in _tensors(value)):
            return "", []
    inner = {id(part) for _, module in modules.values() for part in module.modules()
             if part is not module}
    outer = [(name, module) for name, module in modules.values()
             if id(module) not in inner and next(module.parameters(), None) is not None]
    found = {id(p): p for _, module in outer for p in module.parameters()}
    if any(p.requires_grad for p in found.values()):
        return "", []
    return " and ".join(f"`{name}`" for name, _ in outer), list(found.values())


def _variables() -> Iterator[tuple[str, Any]]:
    """What the running functions of the user name: variables, and what their objects hold."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not is_internal(code.co_filename):
            held = dict(frame.f_locals)
            held.update((name, frame.f_globals[name]) for name in code.co_names
                        if name in frame.f_globals and name not in held)
            for name, value in held.items():
                yield (type(value).__name__ if name == "self" else name), value
                if name == "self" and not _is_module(value):
                    for attribute, inner in _attributes(value).items():
                        yield f"self.{attribute}", inner
            if code.co_name == "<module>":           # who runs this program is another one
                return
        frame = frame.f_back


def _attributes(value: Any) -> dict[str, Any]:
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return dict(found) if type(found) is dict else {}


def _is_module(value: Any) -> bool:
    """`nn` stands above this package, so its modules are known by what they keep."""
    return isinstance(_attributes(value).get("_parameters"), Watched)


def _tensors(value: Any) -> Iterator[Any]:
    """A tensor, those in a container, or those an optimiser holds."""
    if isinstance(value, Value):
        yield value
    elif isinstance(value, (list, tuple)) and len(value) <= MOST:
        yield from (x for x in value if isinstance(x, Value))
    elif isinstance(value, dict) and len(value) <= MOST:
        yield from (x for x in value.values() if isinstance(x, Value))
    else:
        groups = _attributes(value).get("param_groups")
        if isinstance(groups, list):
            for group in groups:
                yield from (x for x in group.get("params", ()) if isinstance(x, Value))
