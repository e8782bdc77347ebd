"""What was written lately that compiled code took for fixed.

A compiled function compares two numbers on each call; where they moved, it asks whether something
of its own was written, and only then looks at its modules and optimisers again. What moves them are
writes to attributes and to the dictionaries and lists below.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from .node import tick

KEPT = 128                   # writes that are remembered one by one
ANYONE = id(None)


class Changes:
    """When the last such write was, on the clock of the nodes, and what the last ones were to.

    moment   to a module, to the state of an optimiser, to hooks and flags of tensors
    options  to the options of a group of an optimiser: what schedulers do all the time
    """

    __slots__ = ("moment", "options", "recent", "recent_options")

    def __init__(self) -> None:
        self.moment = 0
        self.options = 0
        self.recent: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self.recent_options: deque[tuple[int, int]] = deque(maxlen=KEPT)

    def touched(self, writes: Iterable[tuple[int, int]], owned: dict[int, Any],
                since: int) -> bool:
        """Was one of the objects, given by their ids, written since that moment?

        `writes` are the recent ones, to options or to anything else. The objects must be alive
        since then. True where there were too many writes to tell.
        """
        known = list(writes)
        for moment, owner in reversed(known):
            if moment <= since:
                return False
            if owner in owned or owner == ANYONE:
                return True
        return len(known) == KEPT


changes = Changes()


def changed(owner: Any = None) -> None:
    """Say that an object was written (None: whichever it was); no two moments are equal."""
    moment = tick()
    changes.recent.append((moment, id(owner)))
    changes.moment = moment


def option_changed(owner: Any) -> None:
    """Say that an option of an optimiser was written."""
    moment = tick()
    changes.recent_options.append((moment, id(owner)))
    changes.options = moment


class Watched(dict[Any, Any]):
    """A dictionary whose writes are noticed. It is read at the speed of a plain one."""

    __slots__ = ()

    def _written(self) -> None:
        changed(self)

    def __setitem__(self, key: Any, value: Any) -> None:
        dict.__setitem__(self, key, value)
        self._written()

    def __delitem__(self, key: Any) -> None:
        dict.__delitem__(self, key)
        self._written()

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        self.update(other)
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


class WatchedList(list[Any]):
    """A list whose writes are noticed: the parameters of a group of an optimiser."""

    __slots__ = ()


def _noticed(name: str) -> Callable[..., Any]:
    plain = getattr(list, name)

    def method(self: WatchedList, *args: Any, **kwargs: Any) -> Any:
        result = plain(self, *args, **kwargs)
        changed(self)
        return result

    method.__name__ = name
    return method


for _name in ("__setitem__", "__delitem__", "__iadd__", "__imul__", "append", "extend", "insert",
              "pop", "remove", "clear", "reverse", "sort"):
    setattr(WatchedList, _name, _noticed(_name))


class WatchedOptions(Watched):
    """A group of an optimiser; its list of parameters is watched, too."""

    __slots__ = ()

    def _written(self) -> None:
        params = self.get("params")
        if type(params) is list:
            dict.__setitem__(self, "params", WatchedList(params))
        changed(self)
        option_changed(self)

    def __setitem__(self, key: Any, value: Any) -> None:
        dict.__setitem__(self, key, value)
        if key == "params":
            self._written()
        else:
            option_changed(self)


class WatchedStates(defaultdict[Any, Any]):
    """What an optimiser keeps, by parameter; both levels are watched."""

    def __init__(self, *args: Any) -> None:
        super().__init__(Watched, *args)

    def __setitem__(self, key: Any, value: Any) -> None:
        defaultdict.__setitem__(self, key, Watched(value) if type(value) is dict else value)
        changed(self)

    def __delitem__(self, key: Any) -> None:
        defaultdict.__delitem__(self, key)
        changed(self)

    def __reduce__(self) -> Any:
        return WatchedStates, (), None, None, iter(self.items())

    def pop(self, *args: Any) -> Any:
        value = defaultdict.pop(self, *args)
        changed(self)
        return value

    def clear(self) -> None:
        defaultdict.clear(self)
        changed(self)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


def watched_in(objects: Iterable[Any]) -> list[Any]:
    """The objects and the watched dictionaries among their attributes."""
    found = []
    for x in objects:
        found.append(x)
        found += [y for y in vars(x).values() if isinstance(y, Watched)]
    return found
