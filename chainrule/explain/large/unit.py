"""One layer with a few of its units, and one unit: its weighted sum, its values, its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.errors import IndexingError, SettingError
from chainrule.core.node import Node
from chainrule.explain.derive import Derivation
from chainrule.explain.numbers import Style, shape_text
from chainrule.explain.recording import Recording

from .layers import Layer, described, formulas_of, raised, slope_text
from .local import Locals, one_hot
from .statistics import Statistics, norm, percent
from .tree import Part, call_tree, rows_of
from .view import Block, Formula, Heading, Prose, Table, View

MOST_UNITS = 5
MOST_PLACES = 5
MOST_TERMS = 5
MOST_INSIDE = 16


def layer_of(recording: Recording, part: Part) -> Layer:
    """The layer that a part is, or to which it belongs, among those around it; with formulas."""
    around: Part | None = call_tree(recording)
    while around is not None:
        layers = formulas_of(recording, rows_of(around, recording))
        for layer in layers:
            if any(one.nodes == part.nodes for one in layer.group.parts):
                return layer
        inside = set(part.nodes)
        around = next((one for one in around.parts
                       if inside <= set(one.nodes) and len(one.nodes) > len(inside)), None)
    return formulas_of(recording, rows_of(Part(None, "", None, part.nodes, [part]), recording))[0]


def unit_axis(shape: tuple[int, ...], part: Part) -> int:
    """Channels are before the axes that a convolution moves along, axis 1 of images (N,C,H,W);
    else units are along the last axis."""
    moved = getattr(part.module, "kernel_size", None)
    if isinstance(moved, tuple) and len(shape) > len(moved):
        return len(shape) - 1 - len(moved)
    return 1 if len(shape) == 4 else len(shape) - 1


def shape_of(recording: Recording, node: Node) -> tuple[int, ...]:
    """The shape under which the user knows a node."""
    return recording.face.get(node, node).shape


def place_in(recording: Recording, node: Node, place: tuple[int, ...]) -> tuple[int, ...]:
    """A place in the user's shape of a node as one in the node's own."""
    flat = int(np.ravel_multi_index(place, shape_of(recording, node)))
    return tuple(int(i) for i in np.unravel_index(flat, node.shape))


def layer_page(derivation: Derivation, style: Style, part: Part) -> View:
    """A layer: formulas with shapes, statistics, and its units with the largest gradients."""
    recording = derivation.recording
    assert recording is not None
    layer = layer_of(recording, part)
    name = part.name
    blocks: list[Block] = [Heading("forward"), *layer.forward]
    if layer.backward:
        blocks += [Heading("backward"), *layer.backward]
    blocks += _inside(derivation, layer)
    value = recording.values.get(layer.after)
    blocks.append(Heading("numbers"))
    if value is not None:
        blocks.append(Formula("result", size_text(value, style), slope_text(layer.slope)))
    if layer.gradient is not None:
        blocks.append(Formula(layer.name or f"∂{recording.loss}/∂{recording.loss}",
                              size_text(layer.gradient, style)))
    for weight in layer.weights:
        gradient = recording.gradients[weight]
        blocks.append(Formula(f"∂{recording.loss}/∂{recording.texts[weight]}",
                              size_text(gradient, style)))
    if shape_of(recording, layer.before) and layer.gradient is not None:
        blocks += _units(recording, style, layer, name)
    return View(f"{name}  {', '.join(described(one) for one in layer.group.parts)}", blocks)


def _inside(derivation: Derivation, layer: Layer) -> list[Block]:
    """The single steps of a layer that is more than a formula."""
    recording = derivation.recording
    assert recording is not None
    names = {recording.texts.get(node) for node in layer.group.nodes}
    steps = [step for step in derivation.forward if step.name in names]
    if len(steps) <= len(layer.forward) or len(steps) < 3:
        return []
    blocks: list[Block] = [Heading(f"its {len(steps)} steps")]
    blocks += [Formula(f"{step.name} = {step.formula}", shape_text(step.shape))
               for step in steps[:MOST_INSIDE]]
    if len(steps) > MOST_INSIDE:
        blocks.append(Prose(f"and {len(steps) - MOST_INSIDE} further steps", dim=True))
    back = [step for step in derivation.backward if step.through in names]
    blocks.append(Heading("and back"))
    blocks += [Formula(f"{step.name}{step.path and f' {step.path}'} = {step.formula}",
                       shape_text(step.shape)) for step in back[:MOST_INSIDE]]
    if len(back) > MOST_INSIDE:
        blocks.append(Prose(f"and {len(back) - MOST_INSIDE} further steps", dim=True))
    return blocks


def size_text(value: Any, style: Style) -> str:
    """A number, or the norm and the range of many."""
    if np.size(value) == 1:
        return style.number(np.asarray(value).reshape(())[()])
    return f"norm {style.number(norm(value))} · {Statistics.of(value).text(style)}"


def _units(recording: Recording, style: Style, layer: Layer, name: str) -> list[Block]:
    shape = shape_of(recording, layer.before)
    axis = unit_axis(shape, layer.group.parts[0])
    gradient = np.moveaxis(np.asarray(layer.gradient, np.float64).reshape(shape), axis, 0)
    sizes = np.sqrt(np.sum(gradient.reshape(len(gradient), -1) ** 2, axis=1))
    value = recording.values.get(layer.after)
    same = value is not None and shape_of(recording, layer.after) == shape
    known = np.asarray(value).reshape(shape) if same else None
    rows = [("unit", "‖δ‖", "mean |result|", "slope 0", "")]
    for unit in np.argsort(-sizes, kind="stable")[:MOST_UNITS]:
        mean = None if known is None else np.mean(np.abs(np.take(known, unit, axis)))
        slope = None if layer.slope is None or not same else np.take(
            np.reshape(layer.slope, shape), unit, axis)
        rows.append((str(unit), style.number(sizes[unit]),
                     "" if mean is None else style.number(float(mean)),
                     "" if slope is None else percent(float(np.mean(slope == 0))),
                     f'.zoom("{name}", unit={unit})'))
    return [Heading(f"the units with the largest gradients, of {len(sizes)}"),
            Table(tuple(rows), (0, 1, 2, 3))]


def unit_page(recording: Recording, style: Style, part: Part, unit: int) -> View:
    """One unit: at the places where its gradient is largest, the sum it computes, its value, the
    slope, and what flows back; and how its weights would change."""
    layer = layer_of(recording, part)
    before = layer.before
    shape = shape_of(recording, before)
    if recording.gradients.get(before) is None or not shape:
        raise SettingError(f"explain: {part.name} has no units: its result is one number, or no "
                           "gradient reaches it")
    axis = unit_axis(shape, layer.group.parts[0])
    size = shape[axis]
    name = part.name
    if not -size <= unit < size:
        raise IndexingError(f"explain: {name} has {size} units, so unit={unit} is not one of "
                            f"them: the last is {size - 1}")
    unit %= size
    gradient = np.asarray(recording.gradients[before]).reshape(shape)
    here = np.take(gradient, unit, axis)
    blocks: list[Block] = []
    order = np.argsort(-np.abs(here), axis=None, kind="stable")[:MOST_PLACES]
    places = []
    for flat in order:
        place = [int(i) for i in np.unravel_index(int(flat), here.shape)]
        place.insert(axis, unit)
        places.append(tuple(place))
    blocks += [Prose(f"norm of its δ {style.number(norm(here))}, of the layer's "
                     f"{style.number(norm(gradient))}; {percent(float(np.mean(here == 0)))} of "
                     f"its {here.size} places get no gradient")]
    blocks.append(_places(recording, style, layer, places))
    if places:
        blocks += _sum(recording, style, layer, places[0])
    blocks += _weights(recording, style, layer, unit)
    return View(f"unit {unit} of {name}  {described(part)}", blocks,
                {"unit": unit, "gradient": here})


def _places(recording: Recording, style: Style, layer: Layer,
            places: list[tuple[int, ...]]) -> Table:
    before, after = layer.before, layer.after
    number = layer.group.number
    shape = shape_of(recording, before)
    apart = before is not after and shape == shape_of(recording, after)
    head = ["at", raised("z", number)]
    head += [raised("a", number), "slope", f"∂{recording.loss}/∂a"] if apart else []
    rows = [(*head, raised("δ", number))]
    for place in places:
        row = [f"[{','.join(map(str, place))}]"]
        for node in (before, after) if apart else (before,):
            value = recording.values.get(node)
            row.append("?" if value is None else style.number(np.reshape(value, shape)[place]))
        if apart:
            slope = layer.slope
            row.append("" if slope is None else style.number(np.reshape(slope, shape)[place]))
            upstream = recording.gradients.get(after)
            row.append("" if upstream is None else style.number(np.reshape(upstream, shape)[place]))
        row.append(style.number(np.reshape(recording.gradients[before], shape)[place]))
        rows.append(tuple(row))
    return Table(tuple(rows), tuple(range(1, len(rows[0]))))


def terms_of(recording: Recording, layer: Layer, place: tuple[int, ...]
             ) -> tuple[list[tuple[str, float, float]], float | None, float] | None:
    """The products weight × input that a unit adds up, its bias if it has one, and the sum.

    Found by the derivative of the unit in its weights: where the unit is linear in them, each
    weight times its derivative is one term. None where they do not add up to the unit's value.
    """
    value = recording.values.get(layer.before)
    inside = set(layer.group.parts[0].nodes)
    reads = {edge for node in inside for edge in edges_of(node)} - inside
    leaves = [node for node in reads if node.prim is None
              and recording.values.get(node) is not None]
    if value is None or not leaves:
        return None
    own = place_in(recording, layer.before, place)
    bars = Locals(recording).back(layer.before, one_hot(layer.before, own), inside)
    leaves = sorted((leaf for leaf in leaves if leaf in bars), key=lambda leaf: -len(leaf.shape))
    if not leaves:
        return None
    from_weights = []
    main = leaves[0]
    slope, weight = (np.asarray(a, np.float64) for a in (bars[main], recording.values[main]))
    for at in map(tuple, np.argwhere(slope)):
        where = ",".join(str(int(i)) for i in at)
        text = f"{recording.texts[main]}{where and f'[{where}]'}"
        from_weights.append((text, float(weight[at]), float(slope[at])))
    others = [float(np.sum(np.asarray(bars[leaf], np.float64) * recording.values[leaf]))
              for leaf in leaves[1:]]
    constant = sum(others) if others else None
    whole = float(np.asarray(value)[own])
    total = sum(w * s for _, w, s in from_weights) + (constant or 0.0)
    scale = sum(abs(w * s) for _, w, s in from_weights) + abs(constant or 0.0)
    if not abs(total - whole) <= 1e-4 * max(scale, 1e-30):         # nan is no sum either
        return None
    return sorted(from_weights, key=lambda t: -abs(t[1] * t[2])), constant, whole


def _sum(recording: Recording, style: Style, layer: Layer, place: tuple[int, ...]) -> list[Block]:
    found = terms_of(recording, layer, place)
    if found is None:
        return []
    terms, constant, whole = found
    where = f"[{','.join(map(str, place))}]"
    rows = [("weight", "", "", "input", "", "product")]
    rows += [(text, style.number(w), "×", style.number(s), "=", style.number(w * s))
             for text, w, s in terms[:MOST_TERMS]]
    rest = terms[MOST_TERMS:]
    if rest:
        rows.append((f"and {len(rest):,} further terms", "", "", "", "",
                     style.number(sum(w * s for _, w, s in rest))))
    if constant is not None:
        rows.append(("bias", "", "", "", "", style.number(constant)))
    rows.append((f"sum: {raised('z', layer.group.number)}{where}", "", "", "", "=",
                 style.number(whole)))
    return [Heading(f"the sum it computes at {where}, strongest terms first"),
            Table(tuple(rows), (1, 3, 5))]


def _weights(recording: Recording, style: Style, layer: Layer, unit: int) -> list[Block]:
    """The gradients of the unit's own row of each weight: of all that the unit depends on."""
    rows = [("gradient of", "norm", "strongest", "", "")]
    shape = shape_of(recording, layer.before)
    along = unit_axis(shape, layer.group.parts[0])
    own = np.zeros(shape, layer.before.dtype)
    np.moveaxis(own, along, 0)[unit] = 1
    bars = Locals(recording).back(layer.before, own, layer.group.parts[0].nodes)
    for weight in layer.weights:
        axes = [axis for axis, length in enumerate(weight.shape) if length == shape[along]
                and weight in bars and np.any(bars[weight])
                and not np.any(np.delete(bars[weight], unit, axis))]
        if not axes:
            continue
        gradient = np.asarray(recording.gradients[weight])
        axis = axes[0]
        row = np.take(gradient, unit, axis)
        at = [int(i) for i in np.unravel_index(int(np.argmax(np.abs(row))), row.shape)]
        at.insert(axis, unit)
        name = recording.texts[weight]
        index = ["…" if other != axis else str(unit) for other in range(len(weight.shape))]
        rows.append((f"{name}[{','.join(index)}]", style.number(norm(row)),
                     f"[{','.join(map(str, at))}]", style.number(gradient[tuple(at)]),
                     f'.zoom("{name}", {", ".join(map(str, at))})'))
    return [Heading("its weights"), Table(tuple(rows), (1, 3))] if len(rows) > 1 else []

