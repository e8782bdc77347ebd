"""Where gradients were stopped lately, so that «no gradient» can name the line that did it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple

from . import events
from .node import Node, Origin, here


class Cut(NamedTuple):
    what: str
    code: Any
    lasti: int

    @property
    def origin(self) -> Origin:
        return Origin.of(self.code, self.lasti, None)


class _Memory(threading.local):
    def __init__(self) -> None:
        self.recent: deque[Cut] = deque(maxlen=8)


_memory = _Memory()


def note_cut(what: str, node: Node | None = None) -> None:
    """Remember that the user's line that is running now stopped a gradient (at `node`)."""
    code, lasti = here()
    if events.listeners:
        events.tell("cut", what=what, node=node)
    recent = _memory.recent
    cut = Cut(what, code, lasti)
    if cut not in recent:
        recent.append(cut)


def recent_cuts() -> list[Cut]:
    """The remembered cuts, latest last."""
    return list(_memory.recent)


def forget_cuts() -> None:
    """A backward pass went through: what was cut before it did no harm."""
    if _memory.recent:
        _memory.recent.clear()
