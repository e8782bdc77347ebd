"""What a program does, told to whoever listens. As a rule nobody does: then it costs one look.

    if events.listeners:
        events.tell("backward", roots=roots)

What is told: backward (before the pass), accumulated (after it), step and stepped (around an
optimiser's update), zero_grad, clip, schedule. Nothing is told while a function is being traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .bind import state

Listener = Callable[[str, dict[str, Any]], None]

listeners: list[Listener] = []          # always this list, so that it may be imported
# So many calls of compiled functions need not be told.
quiet = 0


def tell(event: str, **facts: Any) -> None:
    """Call the listeners, unless this thread traces: then nothing happens for real."""
    if state.capture is None:
        for listener in tuple(listeners):
            listener(event, facts)


def listen(listener: Listener) -> None:
    """`listener(event, facts)` is called from now on."""
    listeners.append(listener)


def ignore(listener: Listener) -> None:
    """`listener` is no longer called."""
    if listener in listeners:
        listeners.remove(listener)
