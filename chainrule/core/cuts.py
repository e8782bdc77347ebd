"""Where gradients were stopped lately, so that «no gradient» can name the line that did it."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any, NamedTuple

from .events import heard, tell
from .node import PACKAGE, Node, Origin, is_internal


class Cut(NamedTuple):
    what: str
    code: Any
    lasti: int

    @property
    def origin(self) -> Origin:
        return Origin.of(self.code, self.lasti, None)


class _Memory(threading.local):
    """The last cuts, and the one that turned recording off, while it is off."""

    def __init__(self) -> None:
        self.recent: deque[Cut] = deque(maxlen=8)
        self.off: Cut | None = None


memory = _Memory()

# Parts that are written as a user's program is: what these cut, they cut for their own ends, such
# as running statistics, initial values or the inside of a custom function.
_CLIENTS = ("nn", "optim", "data", "utils", "function", "func", "gradcheck", "explain", "doctor",
            "cli", "testing")
_kinds: dict[str, int] = {}        # of files: 0 the user's, 1 the package's, 2 of those parts


def _kind(file: str) -> int:
    if not is_internal(file):
        return 0
    root = sys.modules[PACKAGE].__path__[0]
    part = file[len(root) + 1:].replace("\\", "/").partition("/")[0].removesuffix(".py")
    return 2 if part in _CLIENTS else 1


def _users_line() -> tuple[Any, int] | None:
    """(code, instruction offset) of the user's line that is running now, None if that line only
    calls a part of the package that does what follows by itself.
    """
    frame: Any = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        kind = _kinds.get(code.co_filename)
        if kind is None:
            kind = _kinds[code.co_filename] = _kind(code.co_filename)
        if not kind:
            return code, frame.f_lasti
        if kind == 2:
            return None
        frame = frame.f_back
    return None, 0


def note_cut(what: str, node: Node | None = None, place: tuple[Any, int] | None = None
             ) -> Cut | None:
    """Remember that the user's line that is running now, or the one at `place`, stopped a gradient
    (at `node`). None if it was not the user who did.
    """
    found = place or _users_line()
    if found is None:
        return None
    if "cut" in heard:
        tell("cut", what=what, node=node)
    recent, (code, lasti) = memory.recent, found
    if recent:
        last = recent[-1]
        if last.code is code and last.lasti == lasti and last.what == what:
            return last
    cut = Cut(what, code, lasti)
    if cut in recent:
        recent.remove(cut)
    recent.append(cut)
    return cut


def recent_cuts() -> list[Cut]:
    """The remembered cuts, latest last."""
    return list(memory.recent)


def forget_cuts() -> None:
    """A backward pass went through: what was cut before it did no harm."""
    if memory.recent:
        memory.recent.clear()
