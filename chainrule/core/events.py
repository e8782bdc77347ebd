"""What a program does, told to whoever listens. As a rule nobody does: then it costs one look.

    if "backward" in heard:
        tell("backward", roots=roots)

What is told: backward (before the pass), accumulated (after it), step and stepped (around an
optimiser's update), zero_grad, clip, schedule, seed, cut (a gradient is stopped), unrecorded (a
module runs under `no_grad`), compiled (machine code has done steps). Nothing is told while a
function is being traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .bind import state

Listener = Callable[[str, dict[str, Any]], None]

EVENTS = frozenset(("backward", "accumulated", "step", "stepped", "zero_grad", "clip", "schedule",
                    "seed", "cut", "unrecorded", "compiled"))
heard: set[str] = set()            # what anybody wants to hear; always this set
listeners: list[Listener] = []     # always this list, so that it may be imported
_wanted: dict[Listener, frozenset[str]] = {}
# So many calls of compiled functions need not be told.
quiet = 0


def tell(event: str, **facts: Any) -> None:
    """Call the listeners, unless this thread traces: then nothing happens for real.

    Who listens to something else may be called too, and ignores it.
    """
    if state.capture is None:
        for listener in tuple(listeners):
            listener(event, facts)


def listen(listener: Listener, wanted: frozenset[str] = EVENTS) -> None:
    """`listener(event, facts)` is called from now on; said again, `wanted` is what counts."""
    if listener not in listeners:
        listeners.append(listener)
    _wanted[listener] = wanted
    _count()


def ignore(listener: Listener) -> None:
    """`listener` is no longer called."""
    if listener in listeners:
        listeners.remove(listener)
        del _wanted[listener]
    _count()


def _count() -> None:
    now = frozenset[str]().union(*_wanted.values())
    heard.intersection_update(now)
    heard.update(now)


@contextmanager
def silence() -> Iterator[None]:
    """Nobody hears what the block does."""
    global quiet
    before, was = dict(_wanted), quiet
    for listener in before:
        ignore(listener)
    quiet = 0
    try:
        yield
    finally:
        for listener, wanted in before.items():
            listen(listener, wanted)
        quiet = was
