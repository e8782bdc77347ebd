"""Which way a call goes: the general one, or a shorter one for calls like those before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from chainrule.core.bind import state

from .call import gated, shortcut
from .checks import overlaps, serves
from .entry import Entry
from .fast import fast
from .results import MISS


def begin(entry: Entry) -> None:
    """Let the entry be called: `entry.call(arguments)` gives the result, or MISS."""
    entry.general = partial(general, entry)
    entry.call = partial(settle, entry) if entry.simple and not entry.once else entry.general


def general(entry: Entry, leaves: Sequence[Any]) -> Any:
    """Run, if it serves; else MISS. What the shortcut does, in all cases."""
    if (entry.simple and not state.tracing and serves(entry, leaves)
            and not overlaps(entry, leaves)):
        return entry.run(leaves)
    return MISS


def settle(entry: Entry, args: tuple[Any, ...]) -> Any:
    """A call the general way, after which a shorter one is chosen for those that follow."""
    result = general(entry, args)
    if result is not MISS:
        way = fast(entry) if entry.gates > 0 else None
        entry.call = gated(entry, way, partial(missed, entry)) if way is not None else (
            shortcut(entry) or partial(general, entry))
    return result


def missed(entry: Entry, args: tuple[Any, ...], status: int) -> Any:
    """The gate found an index out of range, or something that differs from the last call."""
    if status > 0:
        entry.executable.complain(status - 1)
    entry.gates -= 1
    entry.call = partial(settle, entry)
    return general(entry, args)
