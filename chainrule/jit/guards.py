"""What a compiled function took for fixed because Python saw it only once.

The code of the function is searched for the names it reads: variables of enclosing functions,
globals, attributes of the objects these lead to, and the same for the user's functions it calls.
Numbers, strings, flags and the identity of objects found there are guards.
"""

from __future__ import annotations

import array
import builtins
import contextvars
import dis
import functools
import os
import random
import sys
import time
import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chainrule.core.changes import watched_in
from chainrule.core.node import PACKAGE, storage_of
from chainrule.core.types import SHORT_NAMES, type_of
from chainrule.tensor import Tensor

from .slots import hooks_of

DEPTH = 10                   # how many attributes in a row are followed
LONGEST = 4096               # containers with more items are watched by their length alone
SMALL_ARRAY = 65536          # bytes of an array of the user whose numbers are compared
MISSING = object()
CONTAINERS = (list, tuple, dict, set, frozenset, bytearray, array.array, memoryview,
              types.MappingProxyType, type(os.environ))
CLOCKS = (time.time, time.time_ns, time.perf_counter, time.perf_counter_ns, time.monotonic,
          time.monotonic_ns, time.process_time, time.process_time_ns)

_OWN = ("training", "_plain", "_shapes", "_searched")       # of a module, for itself
_MAKING = ("__init__", "__new__", "__post_init__", "__repr__", "__str__", "__del__", "__eq__",
           "__hash__", "__setattr__", "__delattr__", "__reduce__", "__getstate__", "__setstate__")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.dtype, np.generic, range, slice)
_LIBRARIES = tuple({os.path.realpath(p) for p in (
    os.path.dirname(os.__file__), str(Path(np.__file__).parents[1]))})


class Watch(NamedTuple):
    """One thing that was read: where it is said to be, how to look again, what it was.

    kind  "is" (the same object), "value" (type and value equal), "items" (the same objects in a
          container), "array" (equal numbers)
    """

    kind: str
    where: str
    read: Callable[[], Any]
    found: Any
    slow: bool                   # looked at only when a module or an optimiser was written
    place: Any = None            # a cell, (a dictionary, a key) or (type, x), if that is all

    def holds(self) -> bool:
        """Is it as it was?"""
        now = self.read()
        if self.kind == "is":
            return now is self.found
        if self.kind == "value":
            return same(now, self.found)
        if self.kind == "array":
            return isinstance(now, np.ndarray) and now.dtype == self.found.dtype and bool(
                np.array_equal(now, self.found, equal_nan=now.dtype.kind == "f"))
        return same_items(now, self.found)

    def change(self) -> str:
        """What is different now, in words."""
        now = self.read()
        if self.kind == "items":
            return f"{self.where}: its items changed"
        if self.kind == "array":
            return f"{self.where}: the numbers of the array changed"
        return f"{self.where}: {told(self.found)} became {told(now)}"


def same(a: Any, b: Any) -> bool:
    """Equal and of one type, all the way down; NaN equals itself."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if not isinstance(a, _PLAIN):
        return False
    if isinstance(a, (float, complex, np.inexact)):
        return repr(a) == repr(b)                # 0.0 is not -0.0
    return bool(a == b) or (a != a and b != b)


def same_items(now: Any, found: list[Any]) -> bool:
    """Does the container hold what it held?"""
    items = listed(now)
    return items is not None and len(items) == len(found) and all(map(same, items, found))


def listed(container: Any) -> list[Any] | None:
    """The items of a container, keys first for a dictionary; long ones are known by length."""
    if isinstance(container, Mapping):
        items = [*container, *container.values()]
    elif isinstance(container, (list, tuple)):
        items = list(container)
    elif isinstance(container, (set, frozenset)):
        items = sorted(container, key=id) if not all(
            isinstance(x, _PLAIN) for x in container) else sorted(container, key=repr)
    else:
        try:
            items = list(container)
        except RuntimeError:
            return None
    return items if len(items) <= LONGEST else [len(items)]


def told(x: Any) -> str:
    """A value as a message shows it."""
    if x is MISSING:
        return "nothing"
    if isinstance(x, Tensor):
        return f"a tensor {type_of(x)}"
    if isinstance(x, np.ndarray):
        return f"an array {SHORT_NAMES.get(x.dtype, x.dtype)}{list(x.shape)}"
    if isinstance(x, _PLAIN) or type(x) is tuple:
        return f"{x!r:.60}"
    name = getattr(x, "__name__", None)
    return f"{type(x).__name__} {name}" if name else f"a {type(x).__name__}"


# ---------------------------------------------------------------- what code names


class Names(NamedTuple):
    """The names a function reads: globals, attributes, and its nested functions' too."""

    globals: frozenset[str]
    attributes: frozenset[str]
    asked: frozenset[str]        # those that may be absent: hasattr(x, "name")
    computed: bool               # are there attributes whose name is computed: getattr(x, name)?


@functools.lru_cache(maxsize=1024)
def names_of(code: types.CodeType) -> Names:
    """What the code reads, found in its instructions."""
    found: set[str] = set()
    attributes: set[str] = set()
    strings: set[str] = set()
    computed = names_are_computed(code)
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(step.argval)
        elif step.opname == "LOAD_CONST" and isinstance(step.argval, str) and \
                step.argval.isidentifier():
            strings.add(step.argval)             # getattr(x, "name")
    asked = strings if found & {"getattr", "hasattr"} else set()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_of(constant)
            found |= inner.globals
            attributes |= inner.attributes
            asked = asked | inner.asked
            computed |= inner.computed
    return Names(frozenset(found), frozenset(attributes | strings), frozenset(asked), computed)


def names_are_computed(code: types.CodeType) -> bool:
    """Does the code call getattr or hasattr with something else than a literal, or vars?"""
    steps = list(dis.get_instructions(code))
    for i, step in enumerate(steps):
        if step.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
            continue
        if step.argval == "vars":
            return True
        if step.argval in ("getattr", "hasattr"):
            depth, name = 0, step            # of the stack above the function
            for other in steps[i + 1:]:
                depth += dis.stack_effect(other.opcode, other.arg, jump=False)
                if depth <= 0:
                    break
                if depth == 2:
                    name = other             # the last that leaves two arguments there
            if name.opname != "LOAD_CONST":
                return True
    return False


_own: set[str] = set()          # installed packages whose functions are compiled: not libraries


@functools.lru_cache(maxsize=4096)
def is_library(filename: str) -> bool:
    """Is this a file of Python, of this package or of an installed one that compiles nothing?"""
    if not filename or filename.startswith("<frozen"):
        return True
    path = os.path.realpath(filename)
    if installed_part(path) in _own:
        return False
    roots = (os.path.realpath(sys.modules[PACKAGE].__path__[0]), *_LIBRARIES)
    return any(path.startswith(root + os.sep) for root in roots) or bool(installed_part(path))


def installed_part(path: str) -> str:
    """`.../site-packages/name` of an installed file, or ''."""
    before, found, after = path.rpartition(f"{os.sep}site-packages{os.sep}")
    return before + found + after.split(os.sep)[0] if found else ""


def note_own(function: Any) -> None:
    """The package of a function that is compiled is the user's, wherever it is installed."""
    while isinstance(function, functools.partial | types.MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    function = getattr(function, "__wrapped__", function)
    if is_module(function):
        function = type(function).forward
    code = getattr(function, "__code__", None)
    part = installed_part(os.path.realpath(code.co_filename)) if code is not None else ""
    if part and part not in _own and os.path.basename(part) != PACKAGE:
        _own.add(part)
        is_library.cache_clear()


def itself(x: Any) -> Any:
    return x


def file_of(cls: type) -> str:
    """The file a class was defined in, or ''."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def is_users(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and not is_library(code.co_filename)


def value_of(variable: contextvars.ContextVar[Any]) -> Any:
    """What a context variable holds here."""
    try:
        return variable.get()
    except LookupError:
        return MISSING


def wrapped(x: Any) -> Any:
    """What a wrapper was made for; looked up without running code of its own."""
    own = getattr(x, "__dict__", None)
    return own.get("__wrapped__", MISSING) if isinstance(own, dict) else MISSING


def is_module(x: Any) -> bool:
    """Is it an nn.Module (which stands above this package)?"""
    own = getattr(x, "__dict__", None)
    return isinstance(own, dict) and "_parameters" in own and "_modules" in own


def has_own_names(x: Any) -> bool:
    """Is it an object of a class of the user, whose attributes code may name as it likes?"""
    return isinstance(getattr(x, "__dict__", None), dict) and not isinstance(
        x, type | types.ModuleType | types.FunctionType) and not is_library(file_of(type(x)))


def is_optimizer(x: Any) -> bool:
    own = getattr(x, "__dict__", None)
    return isinstance(own, dict) and "param_groups" in own and "_walks" in own


# ---------------------------------------------------------------- the search


class Search:
    """Everything the code of a function leads to.

    watches   what must stay as it is
    once      what one run by Python must leave as it is, though it may change between calls
    moving    iterators, clocks and generators, which give something else each time
    draws     does the code name the random numbers of Python or NumPy?
    asks_types  does it name `type`, to which what stands for a number is none?
    computed  does it read attributes by names that are computed?
    arrays    NumPy arrays of the user: id of the owner of their memory -> where they were found
    """

    def __init__(self, function: Any, arguments: list[tuple[str, Any]]) -> None:
        self.watches: list[Watch] = []
        self.arrays: dict[int, str] = {}
        self.array_places: list[tuple[str, Callable[[], Any], Any]] = []
        self.draws = False
        self.asks_types = False
        self.computed = False
        self.once: list[Watch] = []
        self.moving: list[tuple[str, Any]] = []
        self.attributes: set[str] = set()
        self.asked: set[str] = set()
        self.functions: set[int] = set()
        self.objects: dict[int, tuple[str, Any, int, set[str]]] = {}
        self.scanned: set[int] = set()
        self.methods: set[tuple[type, str]] = set()
        self.modules: list[Any] = []
        self.alive: list[Any] = []
        note_own(function)
        self.follow(function, _name(function), 0)
        for where, x in arguments:
            self.reach(where, x, partial(itself, x), 0, False)
        self.grow()
        self.draws |= "random" in self.attributes           # np.random

    def grow(self) -> None:
        """Read the attributes named anywhere on the objects found anywhere, to the end."""
        before = (-1, -1)
        while before != (len(self.attributes), len(self.objects)):
            before = (len(self.attributes), len(self.objects))
            for where, x, depth, done in list(self.objects.values()):
                named = self.attributes
                if self.computed and has_own_names(x):
                    named = named | {name for name in (*vars(x), *vars(type(x)))
                                     if not name.startswith("__")}
                for name in sorted(named - done):
                    done.add(name)
                    self.attribute(where, x, name, depth)

    def array_watches(self) -> list[Watch]:
        """Watches on the numbers of arrays that the user's code may read by NumPy."""
        return [Watch("array", where, read, array.copy() if array.nbytes <= SMALL_ARRAY else array,
                      False) for where, read, array in self.array_places]

    def owners(self) -> list[Any]:
        """The modules and optimisers found, and their dictionaries whose writes are noticed."""
        objects = {id(x): x for _, x, _, _ in self.objects.values() if is_module(x)}
        objects.update({id(x): x for x in self.modules})
        return watched_in(objects.values())

    def optimizers(self) -> list[Any]:
        """The optimisers found."""
        return [x for _, x, _, _ in self.objects.values() if is_optimizer(x)]

    # ------------------------------------------------------------ functions

    def follow(self, function: Any, where: str, depth: int) -> None:
        """A callable: what its code reads, if it is the user's."""
        while True:
            if isinstance(function, functools.partial):
                for i, x in enumerate([*function.args, *function.keywords.values()]):
                    self.reach(f"argument {i} of {where}", x, partial(itself, x), depth + 1, False)
                function = function.func
            elif isinstance(function, types.MethodType):
                self.reach(f"{where}.__self__", function.__self__,
                           partial(getattr, function, "__self__"), depth, False)
                function = function.__func__
            elif wrapped(function) is not MISSING and not isinstance(function, type):
                self.code(function, where, depth)
                function = wrapped(function)
            else:
                break
        self.code(function, where, depth)
        if isinstance(function, types.BuiltinFunctionType):
            if not isinstance(function.__self__, types.ModuleType | None):   # such as log.append
                self.reach(f"{where}.__self__", function.__self__,
                           partial(itself, function.__self__), depth, False)
        elif getattr(function, "__code__", None) is None:
            self.reach(where, function, partial(itself, function), depth, False)
            self.called(function, where, depth)

    def called(self, x: Any, where: str, depth: int) -> None:
        """An object that may be called: what its `__call__` reads."""
        for base in type(x).__mro__:
            if is_users(vars(base).get("__call__")):
                self.code(vars(base)["__call__"], where, depth)

    def code(self, function: Any, where: str, depth: int) -> None:
        code = getattr(function, "__code__", None)
        if code is None or id(function) in self.functions:
            return
        self.functions.add(id(function))
        self.alive.append(function)
        if is_library(code.co_filename) and not function.__closure__:
            return
        users = not is_library(code.co_filename)
        if users:
            names = names_of(code)
            self.asks_types |= "type" in names.globals
            self.attributes |= names.attributes
            self.asked |= names.asked
            self.computed |= names.computed
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            def inside(cell: Any = cell) -> Any:
                try:
                    return cell.cell_contents
                except ValueError:
                    return MISSING
            self.reach(name, inside(), inside, depth + 1, True, place=cell)
        if not users:
            return
        space = function.__globals__
        read = names.globals
        if read & {"globals", "eval", "exec"}:         # any of them, by a name in a string
            read = read | {name for name in space if not name.startswith("__")}
        for name in sorted(read):
            if name in space:
                self.reach(name, space[name],
                           partial(space.get, name, MISSING), depth + 1, True,
                           place=(space, name))
            elif not hasattr(builtins, name):
                self.watch("is", name, partial(space.get, name, MISSING), MISSING,
                           place=(space, name))
        for i, x in enumerate(function.__defaults__ or ()):
            self.reach(f"default {i} of {where}", x, partial(itself, x), depth + 1, False)
        for name, x in (function.__kwdefaults__ or {}).items():
            self.reach(f"default of {name} in {where}", x, partial(itself, x), depth + 1, False)

    # ------------------------------------------------------------ values

    def watch(self, kind: str, where: str, read: Callable[[], Any], found: Any,
              slow: bool = False, place: Any = None) -> None:
        self.watches.append(Watch(kind, where, read, found, slow, place))

    def reach(self, where: str, x: Any, read: Callable[[], Any], depth: int, held: bool,
              slow: bool = False, place: Any = None) -> None:
        """A value that code can read; `held` says that its place may hold another one later."""
        if x is MISSING:
            return
        if isinstance(x, types.ModuleType):
            self.draws |= x in (random, np.random)
            if x is time:
                self.moving += [(f"time.{clock.__name__}", clock) for clock in CLOCKS
                                if clock.__name__ in self.attributes]
            elif x is os and self.attributes & {"environ", "getenv"}:
                self.reach(f"{where}.environ", os.environ, partial(itself, os.environ), depth,
                           False)
            elif not is_library(getattr(x, "__file__", "") or ""):
                self.object(where, x, depth)
            return
        if isinstance(x, _PLAIN):
            if held:
                self.watch("value", where, read, x, slow, place)
            return
        if isinstance(x, Tensor):
            if held:
                self.watch("is", where, read, x, slow, place)
            self.hooks(where, x, depth)
            return
        if isinstance(x, np.ndarray):
            if held:
                self.watch("is", where, read, x, slow, place)
            if id(storage_of(x)) not in self.arrays:
                self.arrays[id(storage_of(x))] = where
            self.array_places.append((where, read, x))
            return
        if isinstance(x, type):
            if held and not is_library(file_of(x)):
                self.watch("is", where, read, x, slow, place)
                self.object(where, x, depth)
            return
        if isinstance(x, contextvars.ContextVar):
            self.watch("is", f"{where}.get()", partial(value_of, x), value_of(x))
            self.reach(f"{where}.get()", value_of(x), partial(value_of, x), depth + 1, True)
            return
        if isinstance(x, CONTAINERS) or (
                type(x).__module__ == "collections" and hasattr(x, "__iter__")):
            self.container(where, x, read, depth, held, slow, place)
            return
        if held:
            self.watch("is", where, read, x, slow, place)
        if isinstance(x, (types.FunctionType, types.MethodType, functools.partial,
                          types.BuiltinFunctionType)):
            if x in CLOCKS:
                self.moving.append((where, x))
            if id(x) not in self.functions:
                self.follow(x, _name(x), depth)
            if is_users(x):
                self.object(where, x, depth)       # the attributes of a function
            return
        if isinstance(x, random.Random | np.random.Generator | np.random.RandomState):
            self.moving.append((where, x))
            return
        if hasattr(type(x), "__next__") or (hasattr(type(x), "__iter__") and type(
                x).__module__.startswith(f"{PACKAGE}.data")):
            self.moving.append((where, x))
            return
        if is_module(x):
            self.module(where, x, depth)
        elif wrapped(x) is not MISSING:
            self.follow(wrapped(x), where, depth)
        else:
            self.called(x, where, depth)
        self.object(where, x, depth)

    def container(self, where: str, x: Any, read: Callable[[], Any], depth: int, held: bool,
                  slow: bool, place: Any) -> None:
        if held and type(x) is tuple and all(isinstance(y, _PLAIN) for y in x):
            self.watch("value", where, read, x, slow, place)
            return
        if held:
            self.watch("is", where, read, x, slow, place)
        if id(x) in self.scanned or depth > DEPTH:
            return
        self.scanned.add(id(x))
        self.alive.append(x)
        if not isinstance(x, (tuple, frozenset)):
            self.watch("items", where, partial(itself, x), listed(x), slow)
        pairs = list(x.items()) if isinstance(x, Mapping) else list(enumerate(x))
        for key, value in pairs[:LONGEST]:
            if isinstance(value, Tensor):
                self.hooks(f"{where}[{key!r:.30}]", value, depth)
            elif not isinstance(value, _PLAIN):
                self.reach(f"{where}[{key!r:.30}]", value, partial(itself, value), depth + 1,
                           False, slow)

    def object(self, where: str, x: Any, depth: int) -> None:
        """Remember an object whose attributes may be named by code."""
        if id(x) not in self.objects and depth <= DEPTH:
            self.objects[id(x)] = (where, x, depth, set())
            self.alive.append(x)
            self.unchanged(where, x)
            self.operators(where, x, depth)
            if is_module(x) or not (isinstance(x, type | types.ModuleType | types.FunctionType)
                                    or is_library(file_of(type(x)))):
                self.watch("is", f"{where}.__class__", partial(type, x), type(x), is_module(x),
                           (type, x))
            if is_optimizer(x):
                for group in x.param_groups:
                    for p in group["params"]:
                        self.hooks(f"a parameter of {where}", p, depth)

    def operators(self, where: str, x: Any, depth: int) -> None:
        """What Python calls without its name in the code: x[i], len(x), x * y, with x."""
        if isinstance(x, type | types.ModuleType | types.FunctionType):
            return
        for base in type(x).__mro__:
            if not is_library(file_of(base)):
                for name, known in list(vars(base).items()):
                    if name.startswith("__") and name not in _MAKING and is_users(known):
                        self.code(known, f"{where}.{name}", depth + 1)
                        self.watch("is", f"{where}.{name}", partial(vars(base).get, name, MISSING),
                                   known, False, (vars(base), name))

    def hooks(self, where: str, x: Any, depth: int) -> None:
        """What the hooks of a tensor read."""
        for hook in hooks_of(x):
            self.reach(f"a hook of {where}", hook, partial(itself, hook), depth + 1, False)

    def unchanged(self, where: str, x: Any) -> None:
        """Numbers and flags of an object that one run must leave as they are.

        So a scheduler's step or a meter's update inside the function is found, whose code is not
        the user's.
        """
        own = getattr(x, "__dict__", None)
        if own is None or isinstance(x, type | types.ModuleType) or is_module(x):
            return
        for name, value in list(own.items()):
            if isinstance(value, _PLAIN) and name != "_stepped":
                self.once.append(Watch("value", f"{where}.{name}", partial(own.get, name, MISSING),
                                       value, False))
            elif isinstance(value, (list, dict)) and name not in ("state", "_walks"):
                self.once.append(Watch("items", f"{where}.{name}", partial(itself, value),
                                       listed(value) or [], False))
            elif is_optimizer(value):
                self.unchanged(f"{where}.{name}", value)
        if is_optimizer(x):
            for i, group in enumerate(x.param_groups):
                self.once.append(Watch("items", f"{where}.param_groups[{i}]", partial(
                    itself, group), listed(group) or [], False))

    def attribute(self, where: str, x: Any, name: str, depth: int) -> None:
        """One attribute, where the object has it without running code of its own."""
        own = getattr(x, "__dict__", None)
        slow = is_module(x)
        if own is not None and name in own:
            if slow and (name in x._parameters or name in x._modules or name in x._buffers):
                return                                     # watched with the module's structure
            if slow and isinstance(own[name], _PLAIN):
                return
            if is_optimizer(x) and name in ("state", "_walks"):
                return
            self.reach(f"{where}.{name}", own[name],
                       partial(own.get, name, MISSING), depth + 1, True,
                       slow and not isinstance(own[name], (list, dict, set)), (own, name))
            return
        kind = x if isinstance(x, type) else type(x)
        if name == "__dict__":
            if isinstance(own, dict) and not slow:
                self.reach(f"{where}.__dict__", own, partial(itself, own), depth, False)
            return
        found: Any = MISSING
        for base in reversed(kind.__mro__):          # all of them: a method may call super()'s
            if name in vars(base):
                known = found = vars(base)[name]
                if isinstance(known, (staticmethod, classmethod)):
                    known = known.__func__
                if is_users(known):
                    self.code(known, f"{where}.{name}", depth + 1)
                    self.method(f"{where}.{name}", base, name)
                if is_library(file_of(base)):
                    found = MISSING
        if found is MISSING:
            if name in self.asked and own is not None and not is_library(file_of(kind)):
                self.watch("is", f"{where}.{name}", partial(own.get, name, MISSING), MISSING, slow,
                           (own, name))
            return
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, (staticmethod, classmethod)):
            found = found.__func__
        if isinstance(found, types.FunctionType):
            self.code(found, f"{where}.{name}", depth + 1)
            if own is not None and x is not kind and is_users(found):     # x.name = another
                self.watch("is", f"{where}.{name}", partial(own.get, name, MISSING), MISSING,
                           slow, (own, name))
        elif isinstance(found, types.MemberDescriptorType):
            self.reach(f"{where}.{name}", getattr(x, name, MISSING),
                       partial(getattr, x, name, MISSING), depth + 1, True)
        else:
            self.reach(f"{where}.{name}", found, partial(getattr, x, name, MISSING), depth + 1,
                       True)

    def method(self, where: str, cls: type, name: str) -> None:
        """A function in a class of the user stays the one it is."""
        if (cls, name) not in self.methods:
            self.methods.add((cls, name))
            self.watch("is", where, partial(vars(cls).get, name, MISSING), vars(cls)[name],
                       False, (vars(cls), name))

    def module(self, where: str, x: Any, depth: int) -> None:
        """A module: its flags and numbers, and which parameters, buffers and modules it holds."""
        if id(x) in self.scanned:
            return
        self.scanned.add(id(x))
        self.alive.append(x)
        self.modules.append(x)
        own = x.__dict__
        self.watch("value", f"{where}.training", partial(own.get, "training"), x.training, True)
        for registry in ("_parameters", "_buffers", "_modules"):
            self.watch("items", f"{where}.{registry}", partial(own.get, registry),
                       listed(own[registry]), True)
        for registry in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
                         "_backward_pre_hooks"):
            self.watch("items", f"{where}.{registry}", partial(own.get, registry),
                       listed(own[registry]), True)
            for entry in own[registry].values():
                hook = entry[0] if isinstance(entry, tuple) else entry
                self.reach(f"a hook of {where}", hook, partial(itself, hook), depth + 1, False)
        for name, value in list(own.items()):
            if name not in _OWN and (isinstance(value, _PLAIN) or (
                    type(value) is tuple and all(isinstance(y, _PLAIN) for y in value))):
                self.watch("value", f"{where}.{name}", partial(own.get, name, MISSING), value,
                           True)
        self.reach(f"{where}.forward", own.get("forward", MISSING), partial(own.get, "forward"),
                   depth, True, True)
        if "forward" not in own:
            self.watch("is", f"{where}.forward", partial(own.get, "forward", MISSING), MISSING,
                       True)
        forward = type(x).forward
        if is_users(forward):
            self.code(forward, f"{where}.forward", depth)
            base = next(base for base in type(x).__mro__ if "forward" in vars(base))
            self.method(f"{where}.forward", base, "forward")
        for registry in ("_parameters", "_buffers"):
            for name, tensor in own[registry].items():
                if tensor is not None:
                    self.hooks(f"{where}.{name}", tensor, depth)
        for name, child in x._modules.items():
            if child is not None:
                self.module(f"{where}.{name}", child, depth)
                self.object(f"{where}.{name}", child, min(depth + 1, DEPTH))


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or getattr(
        function, "__name__", None) or type(function).__name__
