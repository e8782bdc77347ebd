"""The calls of modules and the user's lines that made a graph, as a tree, and its repeats.

A leaf of the tree is the work of one call of a module without parts, or of one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chainrule.autodiff.reverse import edges_of
from chainrule.core.node import Node
from chainrule.explain.derive import Place, place_of
from chainrule.explain.recording import Recording

MOST_ROWS = 10           # as long as no more rows come of it, modules are opened
LONGEST_PERIOD = 16      # lines or layers that a loop repeats


@dataclass(eq=False)
class Part:
    """One call of a module, or one line outside of the modules that are called.

    `call` identifies the call; `nodes` are all that it recorded, `parts` what it called.
    """

    module: Any
    path: str
    call: Any
    nodes: list[Node] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    lines: list[Place] = field(default_factory=list)
    signature: tuple[Any, ...] = ()

    @property
    def place(self) -> str:
        """train.py:12, of its last line."""
        last = self.lines[-1] if self.lines else None
        return f"{os.path.basename(last.file)}:{last.line}" if last and last.file else ""

    @property
    def name(self) -> str:
        """How one asks for it: blocks.0, train.py:12, or blocks.0:train.py:12 for its own line."""
        if self.module is not None:
            return self.path
        return f"{self.path}:{self.place}" if self.path else self.place

    @property
    def source(self) -> str:
        """The text of its first line."""
        return self.lines[0].source if self.lines else ""

    @property
    def is_leaf(self) -> bool:
        return not any(part.module is not None for part in self.parts)


def call_tree(recording: Recording) -> Part:
    """All calls, in the order in which they were made."""
    whole = Part(None, "", None)
    for node in recording.order:
        if node.prim is None:
            continue
        here = whole
        here.nodes.append(node)
        for scope in scopes_of(node):
            if not here.parts or here.parts[-1].call is not scope:
                path = recording.names.modules.get(id(scope[1]), type(scope[1]).__name__)
                here.parts.append(Part(scope[1], path, scope))
            here = here.parts[-1]
            here.nodes.append(node)
        line = place_of(node, recording.names)
        place = (node.code, line.line)
        if not here.parts or here.parts[-1].call != place:
            here.parts.append(Part(None, here.path, place))
        here.parts[-1].nodes.append(node)
        here.parts[-1].lines.append(line)
    sign(whole)
    return whole


def scopes_of(node: Node) -> list[Any]:
    """The calls of modules that were running, the outermost first."""
    scopes = []
    scope = node.scope
    while scope is not None:
        if scope[1] is not None:
            scopes.append(scope)
        scope = scope[0]
    return scopes[::-1]


def sign(part: Part) -> tuple[Any, ...]:
    """What two parts have in common if they are the same layer with other numbers."""
    inner = tuple(map(sign, part.parts)) or tuple(
        (node.name, node.shape) for node in part.nodes)
    own: Any = part.call if part.module is None else (
        type(part.module).__name__, part.module.extra_repr())
    part.signature = (own, inner)
    return part.signature


@dataclass(eq=False)
class Group:
    """What one row of the overview tells about: a part, or a layer with its activation."""

    parts: list[Part]
    number: int = 0

    @property
    def nodes(self) -> list[Node]:
        return [node for part in self.parts for node in part.nodes]

    @property
    def signature(self) -> tuple[Any, ...]:
        return tuple(part.signature for part in self.parts)

    @property
    def path(self) -> str:
        return self.parts[0].path

    @property
    def is_leaf(self) -> bool:
        return all(part.is_leaf for part in self.parts)

    def leaves(self) -> list[Node]:
        """The parameters and other leaves that it reads, each once."""
        return list(dict.fromkeys(edge for node in self.nodes for edge in edges_of(node)
                                  if edge.prim is None))


@dataclass(eq=False)
class Row:
    """`count` times the same groups, one after the other; most often one group, once."""

    groups: list[Group]
    count: int = 1

    @property
    def period(self) -> int:
        return len(self.groups) // self.count


def rows_of(whole: Part, recording: Recording, most: int = MOST_ROWS) -> list[Row]:
    """The parts of a tree as rows: opened as long as few rows come of it, repeats folded."""
    parts = whole.parts
    while len(parts) == 1 and not parts[0].is_leaf:
        parts = parts[0].parts
    rows = folded_rows(parts, recording)
    while True:
        for row in rows:
            inner = row.groups[0].parts[0]
            if row.count > 1 or row.period > 1 or len(row.groups[0].parts) > 1 or inner.is_leaf:
                continue
            place = next(i for i, part in enumerate(parts) if part is inner)
            opened = [*parts[:place], *inner.parts, *parts[place + 1:]]
            more = folded_rows(opened, recording)
            if len(more) <= most:
                parts, rows = opened, more
                break
        else:
            return numbered(rows, recording)


def numbered(rows: list[Row], recording: Recording) -> list[Row]:
    """The layers get their numbers, l of δ⁽ˡ⁾; the group that ends in the loss has none."""
    number = 0
    for row in rows:
        for group in row.groups:
            if group.nodes[-1] is not recording.root:
                number += 1
                group.number = number
    return rows


def folded_rows(parts: Sequence[Part], recording: Recording) -> list[Row]:
    return list(repeats(layers(parts, recording)))


def layers(parts: Sequence[Part], recording: Recording) -> list[Group]:
    """Parts as groups: what only transforms the result of a layer with parameters joins it."""
    groups: list[Group] = []
    for part in parts:
        before = groups[-1] if groups else None
        if before is not None and joins(part, before, recording):
            before.parts.append(part)
        else:
            groups.append(Group([part]))
    return groups


def joins(part: Part, before: Group, recording: Recording) -> bool:
    """An activation, dropout or reshape after a layer: z and a of one layer."""
    if not part.is_leaf or not before.is_leaf or not before.leaves():
        return False
    if before.parts[0].module is None or len(part.nodes) > 4 or recording.root in part.nodes:
        return False
    inside = {*part.nodes, *before.nodes}
    reads = {edge for node in part.nodes for edge in edges_of(node)}
    return reads <= inside and all(
        user in inside for node in before.nodes for user, _ in recording.users(node))


def repeats(groups: Sequence[Group]) -> Iterator[Row]:
    """Groups as rows, where a sequence that comes again and again is one row."""
    signatures = [group.signature for group in groups]
    start = 0
    while start < len(groups):
        best, period = 1, 1
        for length in range(1, min(LONGEST_PERIOD, (len(groups) - start) // 2) + 1):
            pattern = signatures[start:start + length]
            count = 1
            while signatures[start + count * length:start + (count + 1) * length] == pattern:
                count += 1
            least = 2 if not groups[start].is_leaf or length > 2 else 3
            if count >= least and count * length > best * period:
                best, period = count, length
        yield Row(list(groups[start:start + best * period]), best)
        start += best * period
