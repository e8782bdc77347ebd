"""Numbers that move when something is written that compiled code took for fixed.

A compiled function compares them on each call and looks at modules and optimisers only when they
moved. What moves them are writes to attributes and to the dictionaries below.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from .node import tick


class Changes:
    """When the last such write was, on the clock of the nodes.

    moment   to a module, to the state of an optimiser, to hooks and flags of tensors
    options  to the options of a group of an optimiser: what schedulers do all the time
    """

    __slots__ = ("moment", "options")

    def __init__(self) -> None:
        self.moment = 0
        self.options = 0


changes = Changes()


def changed() -> None:
    """Say that something was written; the moment is never one that was seen before."""
    changes.moment = tick()


def option_changed() -> None:
    """Say that an option of an optimiser was written."""
    changes.options = tick()


class Watched(dict[Any, Any]):
    """A dictionary whose writes are noticed. It is read at the speed of a plain one."""

    __slots__ = ()

    _written = staticmethod(changed)

    def __setitem__(self, key: Any, value: Any) -> None:
        dict.__setitem__(self, key, value)
        self._written()

    def __delitem__(self, key: Any) -> None:
        dict.__delitem__(self, key)
        self._written()

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        dict.update(self, other)
        self._written()
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        dict.update(self, *args, **kwargs)
        self._written()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, *args: Any) -> Any:
        value = dict.pop(self, *args)
        self._written()
        return value

    def popitem(self) -> Any:
        item = dict.popitem(self)
        self._written()
        return item

    def clear(self) -> None:
        dict.clear(self)
        self._written()

    def copy(self) -> Any:
        return dict(self)


class WatchedOptions(Watched):
    """A group of an optimiser."""

    __slots__ = ()

    _written = staticmethod(option_changed)


class WatchedStates(defaultdict[Any, Any]):
    """What an optimiser keeps, by parameter; both levels are watched."""

    def __init__(self, *args: Any) -> None:
        super().__init__(Watched, *args)

    def __setitem__(self, key: Any, value: Any) -> None:
        defaultdict.__setitem__(self, key, Watched(value) if type(value) is dict else value)
        changed()

    def __delitem__(self, key: Any) -> None:
        defaultdict.__delitem__(self, key)
        changed()

    def __reduce__(self) -> Any:
        return WatchedStates, (), None, None, iter(self.items())

    def pop(self, *args: Any) -> Any:
        value = defaultdict.pop(self, *args)
        changed()
        return value

    def clear(self) -> None:
        defaultdict.clear(self)
        changed()
