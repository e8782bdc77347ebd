"""Lines that decided something about an object long before it matters: where an optimiser was made,
a parameter frozen, a module put into evaluation mode. The doctor names them.

Kept beside the objects, so that copies, pickles and state dicts know nothing of it.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from .node import Node, Origin, here, write_record

Place = tuple[Any, int]
NOWHERE = Origin("", 0, "", "")
_known: dict[int, tuple[Any, dict[str, Place]]] = {}


def note_place(thing: Any, what: str) -> None:
    """The user's line that is running now did this to `thing`; an earlier one is forgotten."""
    key = id(thing)
    found = _known.get(key)
    if found is None:
        found = _known[key] = weakref.ref(thing, partial(_forget, key)), {}
    found[1][what] = here()


def _forget(key: int, _: Any) -> None:
    _known.pop(key, None)


def place_of(thing: Any, what: str) -> Origin:
    """Where this was done to `thing`; NOWHERE if it was not, or by no line of the user's."""
    _, places = _known.get(id(thing), (None, {}))
    return Origin.of(*places[what], None) if what in places else NOWHERE


def made_at(leaf: Node | None) -> Origin:
    """Where a tensor was made a leaf that requires its gradient."""
    return NOWHERE if leaf is None or leaf.code is None else Origin.of(leaf.code, leaf.lasti, None)


def filled_at(array: Any) -> Origin:
    """The line that last wrote into this memory by itself, not among many like an optimiser."""
    code, lasti = write_record(array).place
    return NOWHERE if code is None else Origin.of(code, lasti, None)
