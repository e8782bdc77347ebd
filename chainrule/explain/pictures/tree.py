"""The network as a tree: modules in modules, lines of the program, repeated blocks, long stretches.

Everything in a group happened at one stretch of time, so a group drawn as one box never lies on a
circle. Blocks that are equal, one after another (the same operations on the same shapes, each fed
by the one before) become one group that counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chainrule.core.node import scope_path

from .gather import Spot

LONGEST_PERIOD = 24          # items of one repeated block
MANY, CHUNKS = 24, 12        # a group with more items is cut into so many stretches


@dataclass(eq=False)
class Group:
    """A part of the network: root, module, line, repeat or stretch.

    `items` are in the order of time; of a repeat they are those of the first copy.
    """

    kind: str
    name: str = ""
    module: Any = None
    items: list[Group | Spot] = field(default_factory=list)
    copies: list[list[Group | Spot]] = field(default_factory=list, repr=False)

    @property
    def count(self) -> int:
        return len(self.copies) or 1

    def spots(self) -> Iterator[Spot]:
        """All in it, those of every copy too."""
        for items in self.copies or [self.items]:
            for item in items:
                if isinstance(item, Spot):
                    yield item
                else:
                    yield from item.spots()

    def groups(self) -> Iterator[Group]:
        """All groups in it that can be opened, outer ones first."""
        for item in self.items:
            if isinstance(item, Group):
                yield item
                yield from item.groups()


def build(spots: Sequence[Spot], names: Mapping[int, str], *, repeats: bool = True,
          kept: Sequence[str] = ()) -> Group:
    """The tree of all spots. Modules on the way to the paths `kept` are never folded together."""
    root = nested(spots, names)
    by_lines(root)
    attach(root, [s for s in spots if s.step is None], spots)
    dissolve(root)
    if repeats:
        fold_repeats(root, kept)
        stretch(root)
    return root


def nested(spots: Sequence[Spot], names: Mapping[int, str]) -> Group:
    """Calls of modules as groups. A call that was left is not entered again."""
    root = Group("root")
    open_: list[tuple[Any, Group]] = [(None, root)]
    for spot in spots:
        if spot.step is None:
            continue
        depth = 1
        while (depth < len(open_) and depth <= len(spot.calls)
               and open_[depth][0] is spot.calls[depth - 1]):
            depth += 1
        del open_[depth:]
        for call in spot.calls[depth - 1:]:
            module = call[1]
            name = names.get(id(module)) or scope_path(call)
            group = Group("module", name, module)
            open_[-1][1].items.append(group)
            open_.append((call, group))
        open_[-1][1].items.append(spot)
    return root


def by_lines(group: Group) -> None:
    """Steps of one execution of one line become a group."""
    items: list[Group | Spot] = []
    run: Group | None = None
    for item in group.items:
        if isinstance(item, Group):
            by_lines(item)
            items.append(item)
            run = None
            continue
        before = run.items[-1] if run is not None else None
        if run is None or not isinstance(before, Spot) or not same_execution(run, before, item):
            run = Group("line", item.name)
            items.append(run)
        run.items.append(item)
        run.name = item.name
    group.items = items


def same_execution(run: Group, before: Spot, spot: Spot) -> bool:
    """Does a step belong to the execution of a line that is under way?"""
    if before.line != spot.line or spot.line[0] is None or spot.at < before.at:
        return False
    here = [s.operation for s in run.items if isinstance(s, Spot) and s.at == spot.at]
    return here != [spot.operation]


def attach(root: Group, loose: Sequence[Spot], spots: Sequence[Spot]) -> None:
    """Put leaves and constants into the innermost group that holds all who read them.

    What the user has a name for and no module owns, such as an input, stays outside of modules.
    """
    path: dict[Spot, list[Group]] = {}
    stack: list[tuple[Group, list[Group]]] = [(root, [root])]
    while stack:
        group, above = stack.pop()
        for item in group.items:
            if isinstance(item, Spot):
                path[item] = above
            else:
                stack.append((item, [*above, item]))
    readers: dict[Spot, list[Spot]] = {}
    for spot in spots:
        for source in spot.sources:
            readers.setdefault(source, []).append(spot)
    for leaf in loose:
        paths = [path[reader] for reader in readers.get(leaf, ()) if reader in path]
        if not paths:
            root.items.insert(0, leaf)
            continue
        depth = 1
        while all(len(p) > depth and p[depth] is paths[0][depth] for p in paths):
            depth += 1
        if leaf.named:
            foreign = [i for i, group in enumerate(paths[0][:depth])
                       if group.kind == "module" and not owns(group, leaf.name)]
            depth = min([depth, *foreign])
        home = paths[0][depth - 1]
        inside: set[Group | Spot] = {p[depth] for p in paths if len(p) > depth}
        inside |= {r for r, p in zip(readers[leaf], paths, strict=True) if len(p) == depth}
        first = next(i for i, item in enumerate(home.items) if item in inside)
        home.items.insert(first, leaf)


def owns(group: Group, name: str) -> bool:
    """Is this the name of a parameter or buffer of the module?"""
    inner = name.removeprefix(f"{group.name}.")
    parts = inner.split(".")
    module = group.module
    for part in parts[:-1]:
        module = dict(module.named_children()).get(part)
        if module is None:
            return False
    held = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return any(parts[-1] == own for own, _ in held)


def dissolve(group: Group) -> None:
    """A line of one step, or the only line of a module, is no group of its own."""
    only = len(group.items) == 1 and group.kind in ("module", "root")
    items: list[Group | Spot] = []
    for item in group.items:
        if isinstance(item, Group):
            dissolve(item)
            if item.kind == "line" and (only or len(item.items) == 1):
                items += item.items
                continue
        items.append(item)
    group.items = items


# ---------------------------------------------------------------- repeated blocks


def fold_repeats(group: Group, kept: Sequence[str]) -> None:
    for item in group.items:
        if isinstance(item, Group):
            fold_repeats(item, kept)
    known: dict[Any, int] = {}
    signs = [signature(item, known, kept) for item in group.items]
    items: list[Group | Spot] = []
    i = 0
    while i < len(group.items):
        period, count = repetition(group.items, signs, i)
        if count < 2:
            items.append(group.items[i])
            i += 1
            continue
        copies = [group.items[i + k * period:i + (k + 1) * period] for k in range(count)]
        items.append(repeated(copies))
        i += period * count
    group.items = items


def repeated(copies: list[list[Group | Spot]]) -> Group:
    """Equal blocks as one group; if each is one module, the group stands for that module."""
    first, last = copies[0][0], copies[-1][-1]
    found = Group("repeat", f"{first.name} … {last.name}", None, copies[0], copies)
    if len(copies[0]) == 1 and isinstance(first, Group):
        found.module = first.module
    return found


def signature(item: Group | Spot, known: dict[Any, int], kept: Sequence[str]) -> int:
    """A number that two items share if they are equal, but for numbers and names."""
    key: Any
    if isinstance(item, Spot):
        key = (item.kind, item.operation, item.type, item.params)
    else:
        flat = list(item.spots())
        at = {spot: i for i, spot in enumerate(flat)}
        inner = tuple(tuple(at.get(source, -1) for source in spot.sources) for spot in flat)
        own = tuple((s.kind, s.operation, s.type, s.params) for s in flat)
        here = [item.name, *(g.name for g in item.groups())]
        salt = id(item) if any(leads_to(name, path) for name in here for path in kept) else 0
        key = (item.kind, type(item.module), own, inner, salt)
    return known.setdefault(key, len(known))


def leads_to(name: str, path: str) -> bool:
    return bool(name) and (path == name or path.startswith(f"{name}."))


def repetition(items: Sequence[Group | Spot], signs: Sequence[int], start: int) -> tuple[int, int]:
    """(length of the block, how many equal ones follow each other) from `start` on."""
    best = (1, 1)
    for period in range(1, min(LONGEST_PERIOD, (len(signs) - start) // 2) + 1):
        block = signs[start:start + period]
        count = 1
        while signs[start + count * period:start + (count + 1) * period] == block:
            count += 1
        if count > 1:
            count, chain = alike(items, start, period, count)
        else:
            chain = False
        module = period == 1 and isinstance(items[start], Group)
        if count >= (4 if not chain else 2 if module else 3) and count * period > best[0] * best[1]:
            best = (period, count)
    return best


def alike(items: Sequence[Group | Spot], start: int, period: int,
          count: int) -> tuple[int, bool]:
    """How many of the blocks are fed in the same way, and whether each by the one before it."""
    blocks = [[spot for item in items[start + k * period:start + (k + 1) * period]
               for spot in spots_of(item)] for k in range(count)]
    at = {spot: (k, i) for k, block in enumerate(blocks) for i, spot in enumerate(block)}
    pattern: list[Any] = []
    for k, block in enumerate(blocks):
        fed = []
        for spot in block:
            for source in spot.sources:
                block_of, index = at.get(source, (-1, id(source)))
                fed.append((k - block_of if block_of >= 0 else -1, index))
        if k == 1:
            pattern = fed
        if k > 1 and fed != pattern:
            count = k
            break
    return count, any(distance == 1 for distance, _ in pattern)


def spots_of(item: Group | Spot) -> list[Spot]:
    return [item] if isinstance(item, Spot) else list(item.spots())


# ---------------------------------------------------------------- long stretches


def stretch(group: Group) -> None:
    """Cut what has too many parts into stretches of time."""
    for item in group.items:
        if isinstance(item, Group):
            stretch(item)
    steps = [item for item in group.items if isinstance(item, Group) or item.step is not None]
    if len(steps) <= MANY:
        return
    size = -(-len(steps) // CHUNKS)
    chunk_of: dict[Spot, int] = {}
    for i, item in enumerate(steps):
        chunk_of.update(dict.fromkeys(spots_of(item), i // size))
    wanted: dict[Spot, set[int]] = {}
    for spot, chunk in chunk_of.items():
        for source in spot.sources:
            wanted.setdefault(source, set()).add(chunk)
    chunks = [Group("stretch") for _ in range(-(-len(steps) // size))]
    outside: list[Group | Spot] = []
    for item in group.items:
        if isinstance(item, Spot) and item.step is None:
            users = wanted.get(item, set())
            (chunks[next(iter(users))].items if len(users) == 1 else outside).append(item)
        else:
            chunks[chunk_of[spots_of(item)[0]]].items.append(item)
    for part in chunks:
        named = [s for s in part.spots() if s.step is not None]
        part.name = f"{named[0].name} … {named[-1].name}"
        stretch(part)
    group.items = [*outside, *chunks]
