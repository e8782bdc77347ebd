"""`wrt=`: which nodes are meant by a tensor, a parameter's name, a module, or a list of these."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chainrule.core.errors import SettingError, UnusedError
from chainrule.core.node import Node
from chainrule.core.types import type_of
from chainrule.nn.module import Module
from chainrule.tensor import Tensor

from .naming import Names


def wanted_nodes(wrt: Any, names: Names, latest: Sequence[Node]) -> frozenset[Node] | None:
    """The nodes of `wrt`; None means every leaf."""
    if wrt is None or isinstance(wrt, frozenset):
        return wrt
    several = isinstance(wrt, Iterable) and not isinstance(wrt, (str, Tensor, Mapping))
    items = list(wrt) if several else [wrt]
    if not items:
        raise SettingError("explain(wrt=[]): an empty list has no gradients to explain. Leave wrt "
                           "out for all of them.")
    on = set(latest)
    found: set[Node] = set()
    for item in items:
        if isinstance(item, Module):
            found.update(tensor._node for tensor in item.parameters() if tensor._node in on)
        elif isinstance(item, str):
            found.update(named_nodes(item, names, latest))
        elif isinstance(item, Tensor):
            if item._node is None or item._node not in on:
                raise unreached(item, names)
            found.add(item._node)
        else:
            raise SettingError(f"explain(wrt=...) wants a tensor, a name, a module or a list of "
                               f"these, got {item!r:.60}")
    if not found:
        raise UnusedError("explain(wrt=...): no parameter of that module is on a path to the "
                              "loss; was its output used?")
    return frozenset(found)


def named_nodes(name: str, names: Names, latest: Iterable[Node]) -> list[Node]:
    """The nodes with that name, or whose name is a path below it (`model.0`)."""
    known = {node: names.of_node[node] for node in latest if node in names.of_node}
    exact = [node for node, text in known.items() if text == name]
    below = exact or [node for node, text in known.items()
                      if text.startswith(f"{name}.") and node.prim is None]
    if below:
        return below
    raise unknown_name(name, known.values())


def unknown_name(name: str, known: Iterable[str], where: str = "wrt") -> SettingError:
    """The error for a name that is not in the graph, with those that are near."""
    texts = sorted(set(known))
    near = difflib.get_close_matches(name, texts, 4, 0.5) or texts[:6]
    said = f"Near it: {', '.join(near)}." if near else "Nothing in this graph has a name."
    return SettingError(f"explain: {where} names {name!r}, which is not on a path to the loss. "
                        f"{said}")


def unreached(item: Tensor, names: Names) -> UnusedError:
    name = names.of_node.get(item._node) if item._node is not None else None
    if item._node is None:
        why = ("it is a constant: it was made without requires_grad=True, or was cut off by "
               "detach(), no_grad() or an integer result")
    else:
        why = "the loss was computed without it (or from a copy of it)"
    called = f" {name!r}" if name else ""
    return UnusedError(f"explain(wrt=...): no path leads from the loss to the tensor{called} "
                           f"{type_of(item._value)}: {why}.")
