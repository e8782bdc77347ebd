"""Nested lists, tuples and dicts (and anything registered) as a flat list of leaves and a shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .core.errors import TreeError

_nodes: dict[type, tuple[Callable[[Any], tuple[list[Any], Any]],
                         Callable[[list[Any], Any], Any]]] = {}


class Structure(NamedTuple):
    """The containers of a tree without its leaves."""

    kind: Any
    data: Any
    children: tuple[Any, ...]
    leaves: int


LEAF = Structure(None, None, (), 1)


def register(kind: type, split: Callable[[Any], tuple[list[Any], Any]],
             join: Callable[[list[Any], Any], Any]) -> None:
    """Make a class a container: `split(x)` gives (children, data), `join` undoes it."""
    _nodes[kind] = (split, join)


def _split(x: Any) -> tuple[Any, list[Any], Any] | None:
    if x is None:
        return type(None), [], None
    kind = type(x)
    if kind is list or kind is tuple:
        return kind, list(x), None
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return "namedtuple", list(x), kind
    if isinstance(x, dict):
        return dict, list(x.values()), (kind, list(x))
    for base in kind.__mro__:
        if base in _nodes:
            children, data = _nodes[base][0](x)
            return base, children, data
    return None


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """(leaves, structure). Dicts keep their order of insertion.

    >>> flatten({"a": 1, "b": [2, 3]})[0]
    [1, 2, 3]
    """
    parts = _split(tree)
    if parts is None:
        return [tree], LEAF
    kind, children, data = parts
    leaves: list[Any] = []
    structures = []
    for child in children:
        own, structure = flatten(child)
        leaves.extend(own)
        structures.append(structure)
    return leaves, Structure(kind, data, tuple(structures), len(leaves))


def unflatten(structure: Structure, leaves: Any) -> Any:
    """The tree with this structure and these leaves.

    >>> unflatten(flatten({"a": 1, "b": [2, 3]})[1], [4, 5, 6])
    {'a': 4, 'b': [5, 6]}
    """
    leaves = list(leaves)
    if len(leaves) != structure.leaves:
        raise TreeError(f"the structure has {structure.leaves} leaves, {len(leaves)} were given")
    return _build(structure, iter(leaves))


def _build(structure: Structure, leaves: Any) -> Any:
    kind = structure.kind
    if structure is LEAF:
        return next(leaves)
    if kind is type(None):
        return None
    children = [_build(child, leaves) for child in structure.children]
    if kind is list:
        return children
    if kind is tuple:
        return tuple(children)
    if kind == "namedtuple":
        return structure.data(*children)
    if kind is dict:
        cls, keys = structure.data
        pairs = zip(keys, children, strict=True)
        return dict(pairs) if cls is dict else cls(pairs)
    return _nodes[kind][1](children, structure.data)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of `function(leaf, other leaves)`.

    >>> tree_map(lambda x: 2 * x, {"a": 1, "b": (2, None)})
    {'a': 2, 'b': (4, None)}
    """
    leaves, structure = flatten(tree)
    columns = [leaves]
    for other in others:
        own, its = flatten(other)
        if its.leaves != structure.leaves:
            raise TreeError(f"trees must match: one has {structure.leaves} leaves, another "
                            f"{its.leaves}")
        columns.append(own)
    return unflatten(structure, [function(*column) for column in zip(*columns, strict=True)])
