"""A network layer by layer: forward and backward pass in matrix form, with shapes and statistics.

The formulas are those of the rows' own rules, run once more with the names of the layers
(`derive.folded`); what is too long for a line is written with its Jacobian, and is opened by
zoom. δ⁽ˡ⁾ is the gradient of the loss in the result of layer l before its activation, as in
Nielsen, Neural Networks and Deep Learning (2015), chapter 2.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isfinite, prod
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.node import Node
from chainrule.explain.derive import BackwardStep, Derivation, Fold, ForwardStep, folded
from chainrule.explain.numbers import Style, shape_text
from chainrule.explain.recording import Recording
from chainrule.prims.show import SUPERSCRIPT

from .statistics import Statistics, norm, percent
from .tree import Group, Part, Row, call_tree, rows_of
from .view import Block, Formula, Heading, Prose, Table, View

MOST_CARDS = 5           # so many layers are told in full: forward, backward, statistics
MOST_SHORT = 10          # so many with two formulas each; more than that in a table alone
LONGEST_FORMULA = 100
SYMBOLS = {"weight": "W", "bias": "b"}
MOST_WEIGHTS = 2         # of a layer without a formula, more are one line
MOST_USERS = 3           # uses of one weight that are written one by one
FLAT = 0.05              # a slope below this share of the layer's largest is called flat


def raised(name: str, number: int) -> str:
    """`W⁽²⁾`: a name with the number of its layer."""
    return f"{name}⁽{str(number).translate(SUPERSCRIPT)}⁾"


@dataclass(eq=False)
class Layer:
    """One group with what was found about it.

    before  the result before the activation, z; after  that after it, a; the same if there is none
    slope   the activation's derivative by element, where it has one
    """

    group: Group
    before: Node
    after: Node
    forward: tuple[Formula, ...] = ()
    backward: tuple[Formula, ...] = ()
    gradient: Any = None
    slope: Any = None
    weights: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        return raised("δ", self.group.number) if self.group.number else ""


def overview(recording: Recording, style: Style, part: Part | None = None) -> View:
    """The page of a network, or of one of its parts."""
    rows = rows_of(part or call_tree(recording), recording)
    layers = [[_layer(group, recording) for group in row.groups] for row in rows]
    every = [layer for row in layers for layer in row]
    shown = [row[:len(row) // rows[i].count] for i, row in enumerate(layers)]
    count = sum(map(len, shown))
    cards = count <= MOST_CARDS
    short = not cards and count <= MOST_SHORT
    if cards or short:
        _Formulas(recording, every, style).fill()
    blocks: list[Block] = []
    chain = [layer for layer in every if layer.group.number]
    if short:
        blocks.append(Prose(legend(every, recording), dim=True))
        for row, ones in zip(rows, shown, strict=True):
            for layer in ones:
                blocks += [Heading(label(layer, row, recording), zoom_text(layer), strong=False),
                           *layer.forward, *[one for one in layer.backward
                                             if one.formula.startswith(layer.name or "∂")][:1]]
    if cards:
        blocks += [Prose(legend(every, recording), dim=True), Heading("forward")]
        for row, ones in zip(rows, shown, strict=True):
            blocks += _cards(row, ones, recording, style)
        blocks.append(Heading("backward"))
        for row, ones in zip(rows[::-1], shown[::-1], strict=True):
            for layer in ones[::-1]:
                blocks += [Heading(label(layer, row, recording), strong=False), *layer.backward]
    blocks.append(_table(rows, layers, recording, style, ("result",) if cards or short else ()))
    blocks += _closing(chain, recording, style)
    numbers = sum(leaf_size(n) for n in recording.order if n.prim is None)
    title = (f"{recording.loss} = {style.array(recording.values[recording.root])} · "
             f"{layers_text(len(chain))} · {numbers:,} numbers in leaves")
    if part is not None:
        title = f"{part.path} {described(part)} · {layers_text(len(chain))} inside"
    return View(title, blocks, {"layers": [_data(layer, recording) for layer in every]})


def formulas_of(recording: Recording, rows: Sequence[Row], written: bool = True) -> list[Layer]:
    """All layers of some rows; with their formulas, if they are to be written."""
    layers = [_layer(group, recording) for row in rows for group in row.groups]
    if written:
        _Formulas(recording, layers, Style()).fill()
    return layers


def layers_text(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def described(part: Part) -> str:
    """Linear(in_features=3, out_features=4, bias=True), or the user's line."""
    if part.module is not None:
        return f"{type(part.module).__name__}({part.module.extra_repr()})"
    return part.source


def label(layer: Layer, row: Row, recording: Recording) -> str:
    """1  model.0 Linear(…), model.1 ReLU()"""
    parts = layer.group.parts
    number = f"{layer.group.number:>2}" if layer.group.number else "  "
    said = [f"{part.path} {described(part)}" if part.module is not None else
            f"{part.name}  {described(part)}" for part in parts]
    text = f"{number}  {', '.join(said)}"
    if row.count > 1:
        last = row.groups[-1].parts[0]
        until = f"  to {last.path}" if last.module is not None else ""
        text = f"{number}  {row.count} × {text[4:]}{until}"
    return text


def zoom_text(layer: Layer) -> str:
    name = layer.group.parts[0].name
    return f'.zoom("{name}")' if name else ""


def legend(layers: Sequence[Layer], recording: Recording) -> str:
    """What W⁽ˡ⁾ and δ⁽ˡ⁾ stand for here."""
    raised_ = any("." in recording.names.of_node.get(leaf, "") for one in layers
                  for leaf in one.weights)
    weights = "W⁽ˡ⁾ and b⁽ˡ⁾: weight and bias of layer l; " if raised_ else ""
    apart = " before its activation" if any(one.before is not one.after for one in layers) else ""
    return f"{weights}δ⁽ˡ⁾: gradient of {recording.loss} in the result of layer l{apart}"


# ---------------------------------------------------------------- what a layer is


def _layer(group: Group, recording: Recording) -> Layer:
    visible = [node for node in group.nodes if node in recording.texts]
    first = [node for node in group.parts[0].nodes if node in recording.texts]
    after = (visible or group.nodes)[-1]
    before = first[-1] if first and len(group.parts) > 1 else after
    weights = tuple(node for node in group.leaves() if node in recording.gradients)
    layer = Layer(group, before, after, gradient=recording.gradients.get(before), weights=weights)
    layer.slope = _slope(layer, visible, recording)
    return layer


def _slope(layer: Layer, visible: Sequence[Node], recording: Recording) -> Any:
    """The derivative of an activation of one elementwise step, by element."""
    node = layer.after
    if node.prim is None or node.prim.kind != "elementwise" or len(edges_of(node)) != 1:
        return None
    if len(layer.group.parts) > 1 and visible[-2:-1] != [layer.before]:
        return None
    saved, out = recording.saved[node]
    place = next(i for i, edge in enumerate(node.inputs) if edge is not None)
    rule = node.prim.array_pulls[place]
    ones = np.ones(node.shape, node.dtype)
    return None if rule is None else rule(ones, node if out is None else out, *saved,
                                          **node.params)


class _Formulas:
    """Writes the formulas of some layers, each in terms of the others' results and gradients."""

    def __init__(self, recording: Recording, layers: Sequence[Layer], style: Style) -> None:
        self.recording = recording
        self.layers = layers
        self.style = style._replace(shapes=True, elements=0)
        self.layer_of = {node: layer for layer in layers for node in layer.group.nodes}
        self.owner: dict[Node, Layer] = {}       # the first layer that reads a leaf
        for layer in layers:
            for leaf in layer.weights:
                self.owner.setdefault(leaf, layer)
        self.names = self._names()
        self.readers: dict[Node, list[Node]] = defaultdict(list)
        for node in recording.order:
            if node in recording.texts:
                for edge in edges_of(node):
                    self.readers[self._visible(edge)].append(node)

    def _visible(self, node: Node) -> Node:
        while node in self.recording.hidden:
            (node,) = edges_of(node)
        return node

    def _names(self) -> dict[Node, str]:
        names: dict[Node, str] = {}
        own = self.recording.names.of_node
        readers = Counter(leaf for layer in self.layers for leaf in layer.group.leaves())
        for layer in self.layers:
            number = layer.group.number
            for leaf in layer.weights:
                last = own.get(leaf, "").rpartition(".")[2]
                if number and readers[leaf] == 1 and "." in own.get(leaf, ""):
                    names[leaf] = raised(SYMBOLS.get(last, last), number)
            apart = layer.before is not layer.after
            kind = "z" if layer.group.is_leaf and layer.weights else "h"
            if number:
                names[layer.before] = own.get(layer.before) or raised(kind, number)
            if apart and number:
                names[layer.after] = own.get(layer.after) or raised("a", number)
        return names

    def fill(self) -> None:
        fold = Fold(self.names, {})
        opaque = self._opaque(*folded(self.recording, fold, self.style))
        gradients = {}
        loss = self.recording.loss
        for layer in self.layers:
            if layer in opaque:
                self._plain_names(layer)
            for leaf in layer.weights:
                gradients[leaf] = f"∂{loss}/∂{self._text(leaf)}"
            users = {self.layer_of.get(user) for user in self.readers[layer.after]}
            if layer.before is not layer.after and (
                    len(users) > 1 or layer in opaque or users & opaque):
                gradients[layer.after] = f"∂{loss}/∂{self._text(layer.after)}"
            if layer.group.number:
                gradients[layer.before] = layer.name
        derivation, texts = folded(self.recording, Fold(self.names, gradients), self.style)
        forward = {step.name: step for step in derivation.forward}
        backward: dict[str, list[BackwardStep]] = defaultdict(list)
        for step in derivation.backward:
            backward[step.name].append(step)
        for layer in self.layers:
            self._fill(layer, forward, backward, gradients, opaque, texts)

    def _plain_names(self, layer: Layer) -> None:
        """Where several weights are one line, none of them needs a letter."""
        if len(layer.weights) > MOST_WEIGHTS:
            for leaf in layer.weights:
                self.names.pop(leaf, None)

    def _text(self, node: Node) -> str:
        return self.names.get(node) or self.recording.texts.get(node, "")

    def _opaque(self, derivation: Derivation, texts: dict[Node, str]) -> set[Layer]:
        """The layers whose formulas are too long: some step in them needs a name of its own."""
        steps = {step.name: step for step in derivation.forward}
        found = set()
        for layer in self.layers:
            known = {layer.before, layer.after, self.recording.root}
            for node in layer.group.nodes:
                own = self.recording.names.of_node.get(node)
                if node in texts and node not in known and (not own or layer.group.parts[0].module):
                    found.add(layer)
            if any(len(steps[texts[node]].formula) > LONGEST_FORMULA
                   for node in known & set(layer.group.nodes) if texts.get(node) in steps):
                found.add(layer)
        return found

    def _fill(self, layer: Layer, forward: dict[str, ForwardStep],
              backward: dict[str, list[BackwardStep]], gradients: dict[Node, str],
              opaque: set[Layer], texts: dict[Node, str]) -> None:
        lines = []
        for node in dict.fromkeys((layer.before, layer.after)):
            step = forward.get(texts.get(node, ""))
            if layer in opaque or step is None:
                lines.append(self._whole(layer))
                break
            lines.append(Formula(f"{step.name} = {step.formula}",
                                 f"{shape_text(step.shape)} = {step.numbers}"))
        layer.forward = tuple(lines)
        lines = []
        weights = tuple(leaf for leaf in layer.weights if self.owner[leaf] is layer)
        if layer in opaque and len(weights) > MOST_WEIGHTS:
            weights = ()
            size = sum(leaf_size(leaf) for leaf in layer.weights)
            theta = raised("θ", layer.group.number)
            lines.append(Formula(
                f"∂{self.recording.loss}/∂{theta} = {layer.name} · ∂{self._text(layer.before)}/"
                f"∂{theta}", f"{theta}: {len(layer.weights)} parameters, {size:,} numbers"))
        for node in dict.fromkeys((layer.after, layer.before, *weights)):
            if node not in gradients or node not in self.recording.gradients:
                continue
            lines.append(self._gradient(node, gradients[node], backward, opaque))
        layer.backward = tuple(lines)

    def _whole(self, layer: Layer) -> Formula:
        """h⁽²⁾ = Block(h⁽¹⁾): a layer whose steps are another page."""
        inside = set(layer.group.nodes)
        reads = dict.fromkeys(self._visible(edge) for node in layer.group.nodes
                              for edge in edges_of(node))
        inputs = [node for node in reads if node not in inside and node.prim is not None]
        part = layer.group.parts[0]
        kind = type(part.module).__name__ if part.module is not None else "f"
        texts = ", ".join(map(self._text, inputs)) or "…"
        shapes = ", ".join(shape_text(self._shape(node)) for node in inputs) or "…"
        return Formula(f"{self._text(layer.after)} = {kind}({texts})",
                       f"{shape_text(self._shape(layer.after))} = {kind}({shapes})")

    def _shape(self, node: Node) -> tuple[int, ...]:
        return self.recording.face.get(node, node).shape

    def _gradient(self, node: Node, name: str, backward: dict[str, list[BackwardStep]],
                  opaque: set[Layer]) -> Formula:
        """δ = what comes from each layer that reads the node."""
        shape = shape_text(self._shape(node))
        steps = backward.get(name, [])
        own = self.layer_of.get(node)
        users = list(dict.fromkeys(self.layer_of[user] for user in self.readers[node]
                                   if user in self.layer_of))
        if own is not None and node is own.before is not own.after:
            users = [own]
        whole = next((step for step in steps if step.terms), steps[0] if len(steps) == 1 else None)
        if whole is not None and not opaque.intersection(users):
            formula, numbers = whole.formula, whole.numbers
            if whole.terms and len(users) > MOST_USERS:
                last = steps[0]
                formula = f"{last.formula} + … ({len(users) - 1} more like it)"
                numbers = f"{last.numbers} + …"
            if len(formula) <= LONGEST_FORMULA:
                return Formula(f"{name} = {formula}", f"{shape} = {numbers}")
        terms, shapes = [], []
        more = f" + … ({len(users) - 1} more like it)" if len(users) > MOST_USERS else ""
        for user in users[-1:] if more else users:
            upstream = user.name or "1"
            top = self._text(user.before if user.name else self.recording.root)
            if user is own:
                top, upstream = self._text(own.after), self._gradient_text(own.after)
            terms.append(f"{upstream} · ∂{top}/∂{self._text(node)}")
            shapes.append(f"{shape_text(self._shape(user.before))} · Jacobian")
        if not users:                            # read outside of what this page is about
            outside = list(dict.fromkeys(self.readers[node]))
            more = f" + … ({len(outside) - 1} more like it)" if len(outside) > MOST_USERS else ""
            for reader in outside[-1:] if more else outside:
                terms.append(f"{self._gradient_text(reader)} · "
                             f"∂{self._text(reader)}/∂{self._text(node)}")
                shapes.append(f"{shape_text(self._shape(reader))} · Jacobian")
        return Formula(f"{name} = {' + '.join(terms) or '…'}{more}",
                       f"{shape} = {' + '.join(shapes)}" if shapes else shape)

    def _gradient_text(self, node: Node) -> str:
        return f"∂{self.recording.loss}/∂{self._text(node)}"


# ---------------------------------------------------------------- what is written


def _cards(row: Row, ones: Sequence[Layer], recording: Recording, style: Style) -> list[Block]:
    blocks: list[Block] = []
    for layer in ones:
        blocks.append(Heading(label(layer, row, recording), zoom_text(layer), strong=False))
        *most, last = layer.forward or (Formula(""),)
        blocks += most
        value = recording.values.get(layer.after)
        remark = Statistics.of(value).text(style) if value is not None and value.size > 1 else ""
        slope = slope_text(layer.slope)
        blocks.append(last._replace(remark=" · ".join(t for t in (remark, slope) if t)))
    return blocks


def leaf_size(node: Node) -> int:
    return prod(node.shape)


def slope_text(slope: Any) -> str:
    """Which share of an activation lets no gradient, or little of it, through."""
    if slope is None or not np.size(slope):
        return ""
    size = np.abs(slope)
    zero = float(np.mean(size == 0))
    flat = float(np.mean(size < FLAT * np.max(size))) - zero
    parts = [f"slope 0 at {percent(zero)}"] if zero else []
    parts += [f"nearly flat at {percent(flat)}"] if flat > 0 else []
    return " · ".join(parts)


def _table(rows: Sequence[Row], layers: Sequence[Sequence[Layer]], recording: Recording,
           style: Style, without: Sequence[str] = ()) -> Table:
    chain = [layer for row in layers for layer in row if layer.group.number]
    factors = factors_of(chain)
    heads = ("l", "layer", "result", "mean |·|", "slope 0", "‖δ‖", "factor", "‖∂W‖")
    others: list[tuple[str, ...]] = []
    for row, ones in zip(rows, layers, strict=True):
        for place in range(row.period):
            same = ones[place::row.period]
            if not same[0].group.number:
                continue
            others.append((str(same[0].group.number), short_label(same, row),
                          shape_text(recording.face.get(same[0].after, same[0].after).shape),
                          *_columns(same, factors, recording, style)))
    keep = [i for i, head in enumerate(heads) if head not in without
            and any(line[i] for line in others)]
    right = tuple(keep.index(i) for i in (0, 3, 4, 5, 6, 7) if i in keep)
    return Table(tuple(tuple(line[i] for i in keep) for line in (heads, *others)), right)


def _columns(same: Sequence[Layer], factors: dict[Layer, float], recording: Recording,
             style: Style) -> list[str]:
    means = [Statistics.of(recording.values[layer.after]).mean for layer in same
             if recording.values.get(layer.after) is not None]
    zeros = [float(np.mean(np.equal(layer.slope, 0))) for layer in same
             if layer.slope is not None and np.size(layer.slope)]
    norms = [norm(layer.gradient) for layer in same if layer.gradient is not None]
    weights = [norm(np.array([norm(recording.gradients[w]) for w in layer.weights]))
               for layer in same if layer.weights]
    passed = [factors[layer] for layer in same if layer in factors]
    return [spread(means, style), percent(float(np.mean(zeros))) if zeros else "",
            spread(norms, style), _factor_text(passed, style), spread(weights, style)]


def spread(values: Sequence[float], style: Style) -> str:
    """One number, or the range of several."""
    if not values:
        return ""
    texts = [style._replace(precision=3).number(v) for v in (min(values), max(values))]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]}…{texts[1]}"


def _factor_text(passed: Sequence[float], style: Style) -> str:
    """0.71, or 0.98^12 for twelve layers, by their geometric mean."""
    if not passed:
        return ""
    short = style._replace(precision=3)
    if len(passed) == 1:
        return f"× {short.number(passed[0])}"
    whole = prod(passed)
    mean = whole ** (1 / len(passed)) if whole >= 0 and isfinite(whole) else np.nan
    return f"× {short.number(mean)}{str(len(passed)).translate(SUPERSCRIPT)}"


def factors_of(chain: Sequence[Layer]) -> dict[Layer, float]:
    """‖δ⁽ˡ⁾‖ / ‖δ⁽ˡ⁺¹⁾‖ for each layer below the last: their product is the total."""
    result = {}
    for layer, above in itertools.pairwise(chain):
        if layer.gradient is None or above.gradient is None:
            continue
        size = norm(above.gradient)
        result[layer] = norm(layer.gradient) / size if size else np.nan
    return result


def short_label(same: Sequence[Layer], row: Row) -> str:
    part = same[0].group.parts[0]
    if part.module is None:
        text = f"{part.name} {described(part)}"
    else:
        kinds = [type(p.module).__name__ for p in same[0].group.parts if p.module is not None]
        text = f"{part.path} {', '.join(kinds)}"
    if row.count > 1:
        text = f"{row.count} × {text}"
    return text if len(text) <= 30 else f"{text[:29]}…"


def _closing(chain: Sequence[Layer], recording: Recording, style: Style) -> list[Block]:
    """The product of the factors, and where to look next."""
    blocks: list[Block] = []
    known = [layer for layer in chain if layer.gradient is not None]
    factors = [f for f in factors_of(known).values() if isfinite(f)]
    if len(known) > 1 and factors and all(isfinite(norm(one.gradient)) for one in known):
        first, last = norm(known[0].gradient), norm(known[-1].gradient)
        texts = [style.number(f) for f in factors[::-1]]
        if len(texts) > 6:
            texts = [*texts[:2], f"… ({len(texts) - 4} more)", *texts[-2:]]
        total = reduce(lambda a, b: a * b, factors)
        blocks += [Heading("size of the gradient on its way down", strong=True), Formula(
            f"‖{known[0].name}‖ = ‖{known[-1].name}‖ × {' × '.join(texts)}",
            "", f"{style.number(first)} = {style.number(last)} × {style.number(total)}")]
    zooms = suggestions(chain, recording)
    if zooms:
        blocks += [Heading("zoom"), *[Formula(text, what) for text, what in zooms]]
    return blocks


def suggestions(chain: Sequence[Layer], recording: Recording) -> Iterable[tuple[str, str]]:
    """What could be typed next, with names and places of this network."""
    modules = [layer for layer in chain if layer.group.parts[0].module is not None]
    if modules:
        opened = next((one for one in modules if not one.group.is_leaf), modules[0])
        yield zoom_text(opened), "one layer: its steps and a few units"
        leaf = next((one for one in modules if one.group.is_leaf), None)
        if leaf is not None:
            yield zoom_text(leaf)[:-1] + ", unit=0)", "one unit: its inputs, values, gradients"
    for layer in chain:
        for weight in layer.weights:
            gradient = recording.gradients[weight]
            if gradient.size and weight in recording.names.of_node:
                place = np.unravel_index(int(np.argmax(np.abs(gradient))), gradient.shape)
                where = "".join(f", {int(i)}" for i in place)
                yield (f'.zoom("{recording.names.of_node[weight]}"{where})',
                       "one weight: why its gradient is this")
                break
        else:
            continue
        break
    if any(len(layer.before.shape) > 1 and layer.gradient is not None for layer in chain):
        yield ".zoom(sample=0)", "one example of the batch"


def _data(layer: Layer, recording: Recording) -> dict[str, Any]:
    value = recording.values.get(layer.after)
    return {
        "number": layer.group.number, "path": layer.group.path,
        "modules": [described(part) for part in layer.group.parts],
        "forward": [(one.formula, one.shapes) for one in layer.forward],
        "backward": [(one.formula, one.shapes) for one in layer.backward],
        "value": None if value is None else Statistics.of(value)._asdict(),
        "gradient": (None if layer.gradient is None
                     else Statistics.of(layer.gradient)._asdict()),
    }
