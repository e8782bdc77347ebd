"""One example of the batch: how it goes through the network, and what it adds to each gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.errors import IndexingError, SettingError
from chainrule.core.node import Node
from chainrule.explain.numbers import Style, shape_text
from chainrule.explain.recording import Recording
from chainrule.nn.parameter import Parameter

from .layers import Layer, formulas_of, short_label
from .local import Locals
from .statistics import norm, percent
from .tree import call_tree, rows_of, scopes_of
from .view import Block, Heading, Prose, Table, View

MOST_NAMES = 6           # names listed of what is not told
MOST_NUMBERS = 10        # results with at most so many numbers per example are written out


def batch_of(recording: Recording, layers: Sequence[Layer]) -> int:
    """The size of the batch: the length of the first axis that most layers share."""
    for layer in layers:
        for node in layer.group.nodes:
            for _, module, *_ in scopes_of(node):
                if getattr(module, "batch_first", True) is False:
                    raise SettingError(
                        f"explain: zoom(sample=...) reads examples along the first axis, but "
                        f"{type(module).__name__} has batch_first=False, where that axis is time")
    sizes = Counter(layer.before.shape[0] for layer in layers
                    if len(layer.before.shape) > 1 and layer.gradient is not None)
    if not sizes:
        raise SettingError("explain: zoom(sample=...) wants a network whose results have the "
                           "examples of a batch along their first axis")
    return sizes.most_common(1)[0][0]


def sample_page(recording: Recording, style: Style, sample: int) -> View:
    """One example: sizes of its values and gradients by layer, and its share of each gradient."""
    rows = rows_of(call_tree(recording), recording)
    layers = [one for one in formulas_of(recording, rows, False) if one.group.number]
    size = batch_of(recording, layers)
    if not -size <= sample < size:
        raise IndexingError(f"explain: the batch has {size} examples, so sample={sample} is not "
                            f"one of them: the last is {size - 1}")
    sample %= size
    blocks: list[Block] = [Heading("on its way up, and its gradient on its way down")]
    table = [("l", "layer", "its values", "‖value‖", "‖δ‖", "of the batch's ‖δ‖²")]
    for layer in layers:
        if layer.gradient is None or not _has(layer.before, size):
            continue
        value, g = recording.values.get(layer.after), np.asarray(layer.gradient)[sample]
        own = None if value is None or not _has(layer.after, size) else np.asarray(value)[sample]
        share = (norm(g) / norm(layer.gradient)) ** 2 if norm(layer.gradient) else np.nan
        table.append((str(layer.group.number), short_label([layer], rows[0]),
                      shape_text(layer.before.shape[1:]),
                      "" if own is None else style.number(norm(own)), style.number(norm(g)),
                      percent(share) if share == share else "–"))
    if len(table) > 2 * MOST_NUMBERS:
        cut = len(table) - 2 * MOST_NUMBERS
        table[MOST_NUMBERS:MOST_NUMBERS + cut] = [("", f"… {cut} more", "", "", "", "")]
    blocks.append(Table(tuple(table), (0, 3, 4, 5)))
    blocks += _last(recording, style, layers, sample, size)
    shares = contributions(recording, sample, size)
    blocks += _shares(recording, style, shares)
    return View(f"example {sample} of the batch of {size}", blocks, {
        "sample": sample, "contributions": {recording.texts[leaf]: value
                                            for leaf, value in shares.items()}})


def _has(node: Node, size: int) -> bool:
    return bool(node.shape) and node.shape[0] == size


def _last(recording: Recording, style: Style, layers: Sequence[Layer], sample: int,
          size: int) -> list[Block]:
    """The numbers of the last layers, if they are few: what the network answers."""
    written = style._replace(elements=MOST_NUMBERS)
    blocks: list[Block] = []
    for layer in layers[::-1]:
        value = recording.values.get(layer.after)
        if value is None or not _has(layer.after, size):
            continue
        own, g = np.asarray(value)[sample], np.asarray(recording.gradients[layer.after])[sample]
        if own.size > MOST_NUMBERS:
            break
        blocks += [Heading("what comes out at the end"),
                   Prose(f"result {written.array(own)}"),
                   Prose(f"its gradient {written.array(g)}")]
        break
    return blocks


def contributions(recording: Recording, sample: int, size: int) -> dict[Node, Any]:
    """What one example adds to the gradient of each leaf.

    Each step that reads a leaf gets only the example's own part of the gradient that arrives
    there. Rules are linear in it, so over all examples this adds up to the leaf's gradient. A leaf
    is left out where the examples of a step that reads it are not surely found: no axis or, as
    with as many positions as examples, more than one has their number. Where
    an operation couples examples (batch normalisation), an example's part is its own row of the
    result of that step.
    """
    locals_ = Locals(recording)
    data = of_data(recording, size)
    found: dict[Node, Any] = {}
    for leaf in recording.order:
        if leaf.prim is not None or leaf not in recording.gradients:
            continue
        total: Any = None
        for user, chain in _visible_users(recording, leaf):
            if user not in data or user.shape[1:-1] == (size,) or not (
                    _has(user, size) or _is_rows(recording, user, size)):
                total = None
                break
            g = np.zeros(user.shape, user.dtype)
            rows = user.shape[0] // size if not _has(user, size) else 1
            own = slice(sample * rows, (sample + 1) * rows)
            g[own] = np.asarray(recording.gradients[user]).reshape(user.shape)[own]
            for node, i in chain:
                g = locals_.pull(node, i, g)
            total = g if total is None else total + g
        if total is not None:
            found[leaf] = total
    return found


def of_data(recording: Recording, size: int) -> set[Node]:
    """The nodes that depend on the batch, and not on parameters alone.

    A slice of a weight or its square may have as many rows as the batch has examples; those rows
    are no examples. The batch comes in as a constant, or as a leaf that is no parameter.
    """
    leaves = {leaf: leaf.out() for leaf in recording.order
              if leaf.prim is None and leaf.out is not None}
    learned = {leaf for leaf, tensor in leaves.items() if isinstance(tensor, Parameter)}
    data = {leaf for leaf, tensor in leaves.items()
            if learned and tensor is not None and leaf not in learned and _has(leaf, size)}
    for node in recording.order:
        shapes = [getattr(value, "shape", None) for value, edge
                  in zip(recording.saved[node][0], node.inputs, strict=True) if edge is None]
        if not data.isdisjoint(edges_of(node)) or any(
                shape[0] % size == 0 for shape in shapes if shape and size):
            data.add(node)
    return data


def _is_rows(recording: Recording, node: Node, size: int) -> bool:
    """Examples and positions in one axis, as after reshape(-1, d) of what has the examples first.

    The length of the axis alone says nothing: positions may come first, or it may be something
    else. So the reshape must be there, before the step or after it.
    """
    if not node.shape or node.shape[0] <= size or node.shape[0] % size:
        return False
    before = [edge for edge in edges_of(node) if edge.name == "reshape"
              and edge.shape[:1] == node.shape[:1]]
    whole = [inner for edge in before for inner in edges_of(edge)]
    waiting = [node]
    while waiting:
        here = waiting.pop()
        for user, _ in recording.users(here):
            if user.name == "reshape":
                whole.append(user)
            elif user in recording.hidden:
                waiting.append(user)
    return any(_has(one, size) for one in whole)


def _visible_users(recording: Recording, leaf: Node
                   ) -> list[tuple[Node, list[tuple[Node, int]]]]:
    """The steps that read a leaf, each with the rules that lead from its result to the leaf."""
    found = []
    waiting: list[tuple[Node, list[tuple[Node, int]]]] = [(leaf, [])]
    while waiting:
        here, chain = waiting.pop()
        for user, i in recording.users(here):
            if user not in recording.gradients:
                continue
            longer = [(user, i), *chain]
            if user in recording.hidden and user in edges_on(recording, user):
                waiting.append((user, longer))
            else:
                found.append((user, longer))
    return found


def edges_on(recording: Recording, node: Node) -> set[Node]:
    """The node itself, if something reads it."""
    return {node} if any(node in edges_of(user) for user, _ in recording.users(node)) else set()


def _shares(recording: Recording, style: Style, shares: dict[Node, Any]) -> list[Block]:
    others = [recording.texts[leaf] for leaf in recording.order if leaf.prim is None
              and leaf in recording.gradients and leaf not in shares]
    untold: list[Block] = []
    if others:
        more = f" and {len(others) - MOST_NAMES} more" if len(others) > MOST_NAMES else ""
        untold = [Prose(f"not told: {', '.join(others[:MOST_NAMES])}{more}. A step that reads "
                        "them does not show which of its rows belong to which example.", dim=True)]
    if not shares:
        return untold
    rows = [("", "‖what it adds‖", "‖gradient‖", "share")]
    leaves = sorted(shares, key=lambda leaf: -norm(shares[leaf]))
    for leaf in leaves[:MOST_NUMBERS]:
        gradient = np.asarray(recording.gradients[leaf], np.float64)
        size = float(np.sum(gradient ** 2))
        along = float(np.sum(gradient * shares[leaf])) / size if size else np.nan
        rows.append((recording.texts[leaf], style.number(norm(shares[leaf])),
                     style.number(norm(gradient)),
                     f"{100 * along:.1f} %".replace("-", "−") if along == along else "–"))
    blocks: list[Block] = [
        Heading("what it adds to the gradients"), Table(tuple(rows), (1, 2, 3)),
        Prose("share: how much of the gradient, along its own direction, comes from this example; "
              "over the batch the shares add up to 100 %", dim=True)]
    if len(leaves) > MOST_NUMBERS:
        blocks.append(Prose(f"and {len(leaves) - MOST_NUMBERS} further leaves", dim=True))
    return [*blocks, *untold]
