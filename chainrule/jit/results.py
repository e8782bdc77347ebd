"""What functions take and return: nested tuples, lists and dicts, taken apart and put together."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """The containers of a tree without its leaves; `kind` None is a leaf."""

    kind: Any
    keys: Any
    children: tuple[Any, ...]


LEAF = Structure(None, None, ())
MISS = object()                  # what a short way returns where a call is unusual


def flatten(tree: Any, whole: Container[int] = ()) -> tuple[list[Any], Structure]:
    """(leaves, structure). Unlike `tree.flatten`, modules are leaves, and so is None.

    Lists and dictionaries with an id in `whole` are leaves, too.

    >>> flatten((1, {"a": None}))[0]
    [1, None]
    """
    leaves: list[Any] = []
    return leaves, _split(tree, leaves, whole)


def _split(tree: Any, leaves: list[Any], whole: Container[int]) -> Structure:
    kind = type(tree)
    if isinstance(tree, (list, dict)) and id(tree) in whole:
        leaves.append(tree)
        return LEAF
    if kind is tuple or kind is list or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        return Structure(kind, None, tuple([_split(x, leaves, whole) for x in tree]))
    if kind is dict or (isinstance(tree, dict) and kind.__module__ == "collections"):
        return Structure(kind, tuple(tree), tuple([_split(x, leaves, whole)
                                                for x in tree.values()]))
    leaves.append(tree)
    return LEAF


def unflatten(structure: Structure, leaves: Any) -> Any:
    """The tree with these leaves, which are taken from an iterator.

    >>> unflatten(flatten([1, (2,)])[1], iter([3, 4]))
    [3, (4,)]
    """
    kind = structure.kind
    if kind is None:
        return next(leaves)
    children = [unflatten(child, leaves) for child in structure.children]
    if kind is tuple or kind is list:
        return kind(children)
    if structure.keys is None:
        return kind(*children)
    made = dict(zip(structure.keys, children, strict=True))
    return made if kind is dict else kind(made) if kind.__name__ != "defaultdict" else made
