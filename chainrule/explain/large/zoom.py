"""Zoom: why one number has its gradient, one unit, one example of the batch, one layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from chainrule.core.errors import IndexingError, SettingError
from chainrule.core.node import Node
from chainrule.explain.derive import Derivation
from chainrule.explain.naming import Names
from chainrule.explain.numbers import Style
from chainrule.explain.recording import Recording
from chainrule.explain.wanted import unknown_name, unreached
from chainrule.nn.module import Module
from chainrule.tensor import Tensor

from .layers import overview
from .local import Locals, one_hot
from .paths import Path, Reasons, Term, reasons
from .sample import sample_page
from .tree import Part, call_tree
from .unit import layer_page, unit_page
from .view import Block, Formula, Heading, Prose, Table, View

MOST_TERMS = 8
ELEMENT = re.compile(r"(?P<name>.+?)\[(?P<place>-?\d+(?:\s*,\s*-?\d+)*)\]")


def zoom(derivation: Derivation, style: Style, target: Any = None, index: Sequence[int] = (), *,
         unit: int | None = None, sample: int | None = None) -> View:
    """The page about one number, one unit of a layer, one example, or one layer."""
    recording = derivation.recording
    if recording is None:
        raise SettingError("explain: this explanation was made without its numbers; zoom needs "
                           "one that cr.explain(loss) returned")
    whole_numbers(index, unit, sample)
    if sample is not None:
        if target is not None or index or unit is not None:
            raise SettingError("explain: zoom(sample=...) is about the whole network; give no "
                               "name and no unit with it")
        return sample_page(recording, style, sample)
    if target is None:
        raise SettingError('explain: zoom what? .zoom("model.0"), .zoom("model.0", unit=3), '
                           '.zoom("model.0.weight", 3, 5) or .zoom(sample=2)')
    found = resolve(recording, target)
    if isinstance(found, Part):
        if index:
            raise SettingError(f"explain: {found.name} is a layer; a unit of it "
                               f"is .zoom({target!r}, unit={index[0]})")
        if unit is not None:
            return unit_page(recording, style, found, unit)
        return layer_page(derivation, style, found) if found.is_leaf else overview(
            recording, style, found)
    if unit is not None:
        raise SettingError("explain: unit= wants a layer, not a tensor; an element of a tensor is "
                           ".zoom(name, 3, 5)")
    node, place = found
    return number_page(derivation, style, node, checked(recording, node, index or place))


def whole_numbers(index: Sequence[Any], unit: Any, sample: Any) -> None:
    """Raise unless all that counts something is a whole number."""
    for name, value in (*(("an index", i) for i in index), ("unit", unit), ("sample", sample)):
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__")):
            raise SettingError(f"explain: {name} of zoom must be a whole number, got "
                               f"{value!r:.40}")


# ---------------------------------------------------------------- what is meant


def resolve(recording: Recording, target: Any) -> Part | tuple[Node, tuple[int, ...]]:
    """The part or the tensor that a name, a tensor or a module means."""
    if isinstance(target, Module):
        for part in parts_of(call_tree(recording)):
            if part.module is target:
                return part
        raise SettingError(f"explain: {type(target).__name__} was not called on the way to the "
                           "loss")
    if isinstance(target, Tensor):
        if target._node not in recording.gradients:
            raise unreached(target, recording.names)
        return inner(recording, target._node), ()
    if not isinstance(target, str):
        raise SettingError(f"explain: zoom wants a name, a tensor or a module, got {target!r:.60}")
    name = target.strip()
    place: tuple[int, ...] = ()
    element = ELEMENT.fullmatch(name)
    nodes = named(recording)
    if name in nodes:
        return nodes[name], place
    tree = call_tree(recording)
    parts: dict[str, Part] = {}
    for part in sorted(parts_of(tree), key=lambda one: one.module is None):
        parts.setdefault(part.name, part)
    if name not in parts and element:                 # nets[0] is a module, w[0] an element
        name = element["name"]
        place = tuple(int(i) for i in element["place"].split(","))
        if name in nodes:
            return nodes[name], place
    if name in parts:
        return parts[name]
    if name in ("model", "net", "network", ""):
        return tree
    raise unknown_name(name, [*nodes, *[p for p in parts if p]], "zoom")


def named(recording: Recording) -> dict[str, Node]:
    """The tensors one can ask about, by the names under which they are written."""
    return {text: node for node, text in recording.texts.items() if node in recording.gradients}


def parts_of(part: Part) -> list[Part]:
    found = []
    waiting = [part]
    while waiting:
        here = waiting.pop()
        found.append(here)
        waiting += here.parts[::-1]
    return found[1:]


def inner(recording: Recording, node: Node | None) -> Node:
    """The node that is written for this one, where a reshape ends an operation."""
    assert node is not None
    return next((one for one, face in recording.face.items() if face is node), node)


def checked(recording: Recording, node: Node, index: Sequence[int]) -> tuple[int, ...]:
    """The place in the node's own shape; without an index, where the gradient is largest."""
    shape = recording.face.get(node, node).shape
    name = recording.texts.get(node, "this tensor")
    if not np.prod(shape):
        raise IndexingError(f"explain: {name} has shape {shape}, so there is no element to zoom to")
    if not index:
        flat = int(np.argmax(np.abs(np.asarray(recording.gradients[node]))))
    else:
        if len(index) != len(shape):
            raise IndexingError(f"explain: {name} has shape {shape}, so an element of it has "
                                f"{len(shape)} numbers, not {len(index)}: {tuple(index)}")
        for axis, (i, size) in enumerate(zip(index, shape, strict=True)):
            if not -size <= i < size:
                raise IndexingError(f"explain: {name}[{', '.join(map(str, index))}]: axis {axis} "
                                    f"has {size} elements, so its last is {size - 1}")
        place = tuple(i % size for i, size in zip(index, shape, strict=True))
        flat = int(np.ravel_multi_index(place, shape)) if shape else 0
    return tuple(int(i) for i in np.unravel_index(flat, node.shape)) if node.shape else ()


def element_text(recording: Recording, node: Node, place: tuple[int, ...]) -> str:
    """model.0.weight[3,5]"""
    text = recording.texts.get(node) or node.name
    shape = recording.face.get(node, node).shape
    if not shape or not node.shape:
        return text
    flat = int(np.ravel_multi_index(place, node.shape))
    return f"{text}[{','.join(str(int(i)) for i in np.unravel_index(flat, shape))}]"


# ---------------------------------------------------------------- one number


def number_page(derivation: Derivation, style: Style, node: Node, place: tuple[int, ...]) -> View:
    """Why ∂L/∂w[i,j] is what it is: its terms, and the strongest paths to the loss."""
    recording = derivation.recording
    assert recording is not None
    why = reasons(recording, node, place)
    loss = recording.loss
    name = element_text(recording, node, place)
    value = recording.values.get(node)
    blocks: list[Block] = []
    if value is not None:
        blocks.append(Prose(f"{name} = {style.number(np.asarray(value)[place])}"))
    blocks += _uses(derivation, why, style)
    if node is recording.root:
        blocks.append(Prose("It is the loss itself: what grows by 1 grows by 1. The backward pass "
                            "starts here."))
    elif not why.terms:
        blocks.append(Prose(f"Nothing on the way to the loss moves when {name} moves a little: "
                            "every local derivative that it meets is 0."))
    else:
        blocks += [_term_table(recording, why, style), *_path_blocks(recording, why, style)]
    title = f"why is ∂{loss}/∂{name} = {style.number(why.gradient)}?"
    return View(title, blocks, {
        "name": name, "gradient": why.gradient, "value": None if value is None
        else float(np.asarray(value)[place]),
        "terms": [{"through": element_text(recording, t.node, t.place), "upstream": t.upstream,
                   "local": t.local, "product": t.product} for t in why.terms],
        "paths": [{"through": [element_text(recording, n, p) for n, p in path.elements],
                   "factors": list(path.factors), "product": path.product}
                  for path in why.paths],
        "count": why.count, "rest": why.rest})


def _uses(derivation: Derivation, why: Reasons, style: Style) -> list[Block]:
    """The user's lines that read the number, with their formulas."""
    recording = derivation.recording
    assert recording is not None
    blocks: list[Block] = []
    readers = [recording.texts.get(node, "") for node, _ in why.lead[1:]]
    readers = list(dict.fromkeys([*readers, *(recording.texts.get(term.node, "")
                                              for term in why.terms)]))
    steps = {step.name: step for step in derivation.forward}
    for text in readers[:3]:
        step = steps.get(text)
        if step is not None:
            where = f"{step.place.file.rpartition('/')[2]}:{step.place.line}"
            blocks.append(Prose(f"read by {text} = {step.formula}   {where}"
                                + (f" in {step.place.module}" if step.place.module else ""),
                                dim=True))
    if len(readers) > 3:
        blocks.append(Prose(f"and by {len(readers) - 3} further steps", dim=True))
    return blocks


def _term_table(recording: Recording, why: Reasons, style: Style) -> Table:
    loss = recording.loss
    name = element_text(recording, why.node, why.place)
    rows = [("through", f"∂{loss}/∂·", "", "local derivative", "", "product")]
    listed = why.terms if len(why.terms) <= MOST_TERMS + 1 else why.terms[:MOST_TERMS]
    for term in listed:
        local = style.number(term.local)
        known = source_of(recording, why, term) if len(why.lead) == 1 else ""
        rows.append((element_text(recording, term.node, term.place), style.number(term.upstream),
                     "×", f"{local}{known and f'  {known}'}", "=", style.number(term.product)))
    rest = why.terms[len(listed):]
    if rest:
        rows.append((f"and {len(rest):,} further terms", "", "", "", "",
                     style.number(float(sum(term.product for term in rest)))))
    rows.append((f"sum: ∂{loss}/∂{name}", "", "", "", "=", style.number(
        float(sum(term.product for term in why.terms)))))
    return Table(tuple(rows), (1, 5))


def source_of(recording: Recording, why: Reasons, term: Term) -> str:
    """`x[17,5]`, if the local derivative is one element of another operand of the step."""
    if term.local in (0.0, 1.0, -1.0):
        return ""
    node = why.node
    saved, _ = recording.saved[term.node]
    names: Names = recording.names
    for i, (value, edge) in enumerate(zip(saved, term.node.inputs, strict=True)):
        if type(value) is not np.ndarray or value.dtype.kind != "f":
            continue
        base = edge
        while base is not None and base in recording.hidden:
            base = next((e for e in base.inputs if e is not None), None)
        if base is node:
            continue
        places = np.argwhere(value == np.asarray(term.local, value.dtype))
        if len(places) != 1 or not decided_by(recording, why, term, i, tuple(places[0])):
            continue
        at = ",".join(str(int(i)) for i in places[0])
        if edge is not None and edge is base and edge in recording.texts:
            return element_text(recording, edge, tuple(int(i) for i in places[0]))
        text = names.constant(value)[0] if edge is None else None
        if text and not text.endswith("ᵀ"):
            return f"{text}[{at}]" if at else text
    return ""


def decided_by(recording: Recording, why: Reasons, term: Term, i: int,
               place: tuple[int, ...]) -> bool:
    """Whether a local derivative doubles with one element of operand i, so that it is that element
    and not another number that happens to be equal."""
    operands, out = recording.saved[term.node]
    changed = np.array(operands[i])
    changed[place] *= 2
    saved = {**recording.saved,
             term.node: ((*operands[:i], changed, *operands[i + 1:]), out)}
    again = Locals(replace(recording, saved=saved))
    moved = dict(again.reads(why.node, one_hot(why.node, why.place))).get(term.node)
    return moved is not None and float(moved[term.place]) == 2 * term.local


def _path_blocks(recording: Recording, why: Reasons, style: Style) -> list[Block]:
    if len(why.paths) < 1 or all(len(path.factors) < 2 for path in why.paths):
        return []
    heading = "the one path to the loss" if why.count == 1 else (
        "strong paths to the loss; there are too many to count them" if why.count is None
        else f"{why.count:,} paths to the loss, strongest first")
    blocks: list[Block] = [Heading(heading)]
    blocks += [Formula(_trail(recording, path),
                       f"{_factors(path, style)} = {style.number(path.product)}")
               for path in why.paths]
    others = None if why.count is None else why.count - len(why.paths)
    if others is None:
        blocks.append(Prose(f"  and all further paths: {signed(why.rest, style)}"))
    elif others:
        blocks.append(Prose(f"  and {others:,} further path{'s' if others > 1 else ''}: "
                            f"{signed(why.rest, style)}"))
    if why.count != 1:
        blocks.append(Prose(f"  together {style.number(why.gradient)}"))
    return blocks


def signed(value: float, style: Style) -> str:
    return style.number(value) if value < 0 else f"+{style.number(value)}"


def _trail(recording: Recording, path: Path) -> str:
    """The elements of a path; those behind a factor 1 (sums, rearrangements) are left out."""
    first, *others = path.elements
    telling = [element for element, factor in zip(others, path.factors, strict=True)
               if factor != 1 or element is others[-1]]
    return " → ".join(element_text(recording, node, place) for node, place in (first, *telling))


def _factors(path: Path, style: Style) -> str:
    texts = [style.number(f) for f in path.factors if f != 1]
    shown = texts or ["1"]
    return " · ".join(f"({t})" if i and t.startswith("−") else t for i, t in enumerate(shown))

