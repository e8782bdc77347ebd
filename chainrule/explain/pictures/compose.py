"""From the tree of a network to boxes, frames and nets: what each box says, what each line carries.

A group that is not open becomes one box. Where a line stands for several values, or one value
flows back from several readers behind it, its size is that of the sum which the backward pass
adds up there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.explain.numbers import Style

from .facts import described, norm, number, sizes, spread
from .gather import Spot
from .lettering import shortened, text_width
from .scene import SMALL, TEXT, Box, Frame, Line, Net, Part, Piece, Scene, Wire, line_width
from .tree import Group, spots_of

WIDEST = 280.0               # of a line of text in a box
TOGETHER = 240.0             # formula and result up to here stand in one line
LONGEST_NAME = 150.0
LONGEST_LABEL = 210.0        # of a module's class and options
MOST_CHARACTERS = 40         # of an array that is written out
BLANK = Piece("  ", "quiet")


@dataclass(eq=False)
class Drawing:
    """A scene, with the size of the gradient on each of its lines: None where none flows."""

    scene: Scene
    sizes: dict[Part, float | None]
    statistics: bool = False
    told: dict[Box, list[Spot]] = field(default_factory=dict, repr=False)


def compose(root: Group, opened: AbstractSet[Group], loss: str, style: Style,
            backward: bool) -> Drawing:
    """The drawing of a tree in which some groups are open."""
    return _Composer(loss, style, backward, opened).run(root)


class _Composer:
    def __init__(self, loss: str, style: Style, backward: bool, opened: AbstractSet[Group]) -> None:
        self.loss = loss
        self.style = style
        self.backward = backward
        self.opened = opened
        self.shown: dict[Spot, Box] = {}
        self.first: dict[Spot, Spot] = {}          # in a repeat, its twin in the first copy
        self.copy: dict[Spot, tuple[tuple[Group, int], ...]] = {}
        self.above: dict[Box, tuple[Frame, ...]] = {}
        self.paths: dict[Box, str] = {}
        self.statistics = False

    def run(self, root: Group) -> Drawing:
        self.number_copies(root, ())
        frame = Frame((), "")
        self.told: dict[Box, list[Spot]] = {}
        self.fill(frame, root, (), "")
        for spot, twin in self.first.items():
            if spot not in self.shown:
                while twin not in self.shown:
                    twin = self.first[twin]
                self.shown[spot] = self.shown[twin]
                self.told[self.shown[twin]].append(spot)
        time = {spot: i for i, spot in enumerate(root.spots())}
        for spots in self.told.values():
            spots.sort(key=time.__getitem__)
        nets, lines = self.nets()
        for box, spots in self.told.items():
            self.add_gradients(box, spots)
        return Drawing(Scene(frame, nets), lines, self.statistics, self.told)

    # ------------------------------------------------------------ copies of repeated blocks

    def number_copies(self, group: Group, above: tuple[tuple[Group, int], ...]) -> None:
        for k, items in enumerate(group.copies or [group.items]):
            here = (*above, (group, k)) if group.copies else above
            for item in items:
                if isinstance(item, Spot):
                    self.copy[item] = here
                else:
                    self.number_copies(item, here)
        if group.copies:
            firsts = [spot for item in group.copies[0] for spot in spots_of(item)]
            for items in group.copies[1:]:
                spots = [spot for item in items for spot in spots_of(item)]
                for twin, spot in zip(firsts, spots, strict=True):
                    self.first.setdefault(spot, twin)

    def is_inner(self, source: Spot, spot: Spot) -> bool:
        """Does a line lie in copies of blocks of which another one is drawn, or between two?"""
        for (group, k), (other, j) in zip(self.copy[source], self.copy[spot], strict=False):
            if group is not other:
                return False
            if k or j:
                return True
        return False

    # ------------------------------------------------------------ boxes and frames

    def fill(self, frame: Frame, group: Group, above: tuple[Frame, ...], path: str) -> None:
        """The items of a group, as boxes, as frames, or into the same frame."""
        copies = frame.copies
        for item in group.items:
            if isinstance(item, Spot):
                box = self.spot_box(item, copies, path)
                self.told[box] = [item]
            elif item in self.opened and (only := single(item)) is not None:
                box = self.spot_box(only, copies, path, item)
                self.told[box] = [only]
            elif item in self.opened:
                if item.kind in ("module", "repeat"):
                    inner, name = self.frame_of(item, copies, path)
                    frame.items.append(inner)
                    content = item
                    if item.module is not None and item.kind == "repeat":
                        content = item.items[0]  # type: ignore[assignment]
                    self.fill(inner, content, (*above, inner), name)
                else:
                    self.fill(frame, item, above, path)
                continue
            else:
                box = self.folded_box(item, copies, path)
                self.told[box] = list(item.spots())
            self.above[box], self.paths[box] = above, path
            frame.items.append(box)
            for spot in self.told[box]:
                self.shown[spot] = box

    def frame_of(self, group: Group, copies: int, path: str) -> tuple[Frame, str]:
        line: list[Piece] = []
        if group.count > 1:
            line.append(Piece(f"{group.count} × ", "name"))
        name = inside_of(group.name, path)
        kind = type(group.module).__name__ if group.module is not None else ""
        if not is_only_kind(name, kind, path):
            line.append(Piece(shortened(name, LONGEST_NAME, TEXT, True) + "  ", "name"))
        inner = group.name if group.count == 1 else getattr(group.items[0], "name", "")
        if group.module is not None:
            told = f"{kind}({extra(group.module)})"
            line.append(Piece(with_few_options(told.removesuffix("()")), "quiet"))
            kind = told
        tooltip = f"{group.name} {kind}".strip()
        if group.count > 1:
            tooltip += (f"\n{group.count} equal blocks, one after another; the first is drawn, the "
                        "sizes of gradients are those of the first … the last")
        return Frame(tuple(line), tooltip, copies * group.count), inner

    def folded_box(self, group: Group, copies: int, path: str) -> Box:
        spots = list(group.spots())
        steps = [s for s in spots if s.step is not None]
        kind = type(group.module).__name__ if group.module is not None else ""
        heading: list[Piece] = []
        if group.count > 1:
            heading.append(Piece(f"{group.count} × ", "name"))
        if group.kind == "line":
            text = steps[-1].step.place.source if steps[-1].step else ""
            heading.append(Piece(shortened(text or group.name, WIDEST, TEXT), "formula"))
        else:
            name = Piece(shortened(inside_of(group.name, path), LONGEST_NAME, TEXT, True), "name")
            heading += [name] if group.module is None else self.title(group, path)
            if group.kind == "stretch":
                heading.append(Piece("  " + count_text(len(steps), "step"), "quiet"))
        box = Box("folded", [tuple(heading)], "", copies * group.count)
        leaves = [s for s in spots if s.kind == "leaf"]
        if leaves:
            parameters = count_text(sum(s.type.size for s in leaves), "parameter")
            box.lines[0] = (*box.lines[0], Piece(f"  {parameters}", "quiet"))
        tip = [f"{group.name} {kind}".strip(), count_text(len(steps), "step"),
               *dict.fromkeys(place_text(s) for s in steps[-1:])]
        box.tooltip = "\n".join(part for part in tip if part)
        return box

    def spot_box(self, spot: Spot, copies: int, path: str, module: Group | None = None) -> Box:
        """The box of one step, leaf or constant; above it the module that is this one step."""
        name = Piece(shortened(inside_of(spot.name, path), LONGEST_NAME, TEXT, True), "name")
        small = self.is_written(spot) and copies == 1
        line: Line = (name,)
        if spot.step is not None:
            formula = spot.step.formula
            if formula == spot.name:
                formula = spot.step.operation
            formula = f" = {with_short_names(formula, spot, path)}"
            line = (name, Piece(shortened(formula, WIDEST - name.width, TEXT), "formula"))
        lines: list[Line] = [line]
        if small and spot.value is not None:
            value = Piece(f" = {self.style.array(spot.value)}", "value")
            if line_width(line) + value.width <= TOGETHER:
                lines = [(*line, value)]
            else:
                lines.append((Piece(value.text.strip(), "value"),))
        if module is not None:
            lines.insert(0, self.title(module, path))
        return Box(spot.kind, lines, self.spot_tip(spot), copies)

    def title(self, group: Group, path: str) -> Line:
        """The name of a module and its class."""
        name = shortened(inside_of(group.name, path), LONGEST_NAME, TEXT, True)
        kind = shortened(type(group.module).__name__, LONGEST_NAME, TEXT)
        if is_only_kind(name, kind, path):
            return (Piece(kind, "quiet"),)
        return Piece(name, "name"), Piece(f"  {kind}", "quiet")

    def is_written(self, spot: Spot) -> bool:
        """Do value and gradient stand in the box number by number?"""
        if spot.value is None or np.size(spot.value) > self.style.elements:
            return False
        longest = max(len(self.style.array(a)) for a in (spot.value, spot.gradient)
                      if a is not None)
        return longest <= MOST_CHARACTERS

    def spot_tip(self, spot: Spot) -> str:
        step = spot.step
        written_out = self.is_written(spot)
        parts = [f"{spot.name} = {step.formula}" if step else spot.name]
        if written_out:
            numbers = f" = {step.numbers}" if step and step.numbers != step.formula else ""
            parts[0] += f"{numbers} = {self.style.array(spot.value)}"
        parts.append(str(spot.type) if written_out or spot.value is None else described(spot.value))
        if spot.gradient is not None and self.backward:
            parts.append(f"∂{self.loss}/∂{spot.name} = {self.style.array(spot.gradient)}"
                         if written_out else
                         f"∂{self.loss}/∂{spot.name}: {described(spot.gradient)}")
        parts.append(place_text(spot))
        return "\n".join(part for part in parts if part)

    # ------------------------------------------------------------ gradients in boxes

    def add_gradients(self, box: Box, spots: list[Spot]) -> None:
        """The last line of a box: the gradient, or statistics of value and gradient."""
        spot = spots[0]
        if box.kind != "folded" and box.copies == 1 and self.is_written(spot):
            if self.backward and spot.gradient is not None:
                name = inside_of(spot.name, self.paths[box])
                text = f"∂{self.loss}/∂{shortened(name, LONGEST_NAME, TEXT)} = "
                box.lines.append((Piece(text + self.style.array(spot.gradient), "gradient"),))
            box.__post_init__()
            return
        outs = spots if box.kind != "folded" else self.leaving(box, spots)
        self.statistics = True
        pieces: list[Piece] = []
        if outs:
            values = [spread(s.value) for s in (outs[:1] if box.copies > 1 else outs[-1:])
                      if s.value is not None]
            pieces += [Piece(values[0], "alarm" if "nan" in values[0] else "value")
                       ] if values else []
            pieces += self.sized("‖g‖", [s.gradient for s in outs], box.copies > 1, bool(pieces))
        grads = [s.gradient for s in spots if s.kind == "leaf" and s.gradient is not None]
        if box.kind == "folded" and grads:
            pieces += self.sized("‖gθ‖", [grads], False, bool(pieces), True)
        if pieces:
            box.lines.append(tuple(pieces))
        box.__post_init__()

    def sized(self, sign: str, gradients: list[Any], ends: bool, blank: bool,
              many: bool = False) -> list[Piece]:
        """The size of a gradient; of copies, of the first … of the last."""
        if not self.backward:
            return []
        known = [g for g in gradients if g is not None]
        if not known:
            return []
        found = [norm(g if many else [g]) for g in known]
        chosen = [found[0], found[-1]] if ends and len(found) > 1 else [found[-1]]
        text = " … ".join(number(one) for one in chosen)
        role = "gradient" if np.isfinite(chosen).all() else "alarm"
        return [*([BLANK] if blank else []), Piece(f"{sign} {text}", role)]

    def leaving(self, box: Box, spots: list[Spot]) -> list[Spot]:
        """The steps in a folded box whose results are used outside, or that end it."""
        inside = set(spots)
        used = {s for s in self.read_outside if s in inside and s.step is not None}
        if not used:
            used = {s for s in spots if s.kind == "loss"}
        return [s for s in spots if s in used]

    # ------------------------------------------------------------ lines

    def nets(self) -> tuple[list[Net], dict[Part, float | None]]:
        nets: dict[Any, Net] = {}
        carried: dict[tuple[Net, Box], list[tuple[Spot, Spot]]] = {}
        squares: dict[Part, list[float]] = {}
        self.read_outside: set[Spot] = set()
        users: dict[Spot, list[Spot]] = {}
        for spot in self.shown:
            for source in spot.sources:
                users.setdefault(source, []).append(spot)
        for source in users:
            sums: dict[Part, Any] = {}
            start = self.shown[source]
            for spot in users[source]:
                end = self.shown[spot]
                if start is end:
                    if self.copy[source] != self.copy[spot]:
                        self.read_outside.add(source)
                    continue
                self.read_outside.add(source)
                if self.is_inner(source, spot):
                    continue
                key = start if start.kind == "folded" else self.twin(source)
                net = nets.setdefault(key, Net(start))
                carried.setdefault((net, end), []).append((source, spot))
                flow = spot.flows.get(source)
                for part in self.parts(net, start, end):
                    sums.setdefault(part, None)
                    if flow is not None and flow.value is not None and self.backward:
                        before = sums[part]
                        sums[part] = flow.value if before is None else before + flow.value
            for part, value in sums.items():
                squares.setdefault(part, [])
                if value is not None:
                    squares[part].append(norm([value]))
        for (net, end), pairs in carried.items():
            net.wires[end] = self.wire(net, end, pairs)
        return list(nets.values()), {part: norm([found]) if found else None
                                     for part, found in squares.items()}

    def twin(self, spot: Spot) -> Spot:
        while spot in self.first:
            spot = self.first[spot]
        return spot

    def parts(self, net: Net, start: Box, end: Box) -> list[Part]:
        """The pieces of the way from one box to another: out of frames, into frames, to the box."""
        outer, inner = self.above[start], self.above[end]
        common = 0
        while common < min(len(outer), len(inner)) and outer[common] is inner[common]:
            common += 1
        return [*(Part(net, frame, True) for frame in outer[common:]),
                *(Part(net, frame) for frame in inner[common:]), Part(net, end)]

    def wire(self, net: Net, end: Box, pairs: Sequence[tuple[Spot, Spot]]) -> Wire:
        sources = list(dict.fromkeys(source for source, _ in pairs))
        light = all(s.step is None for s in sources)
        tips = []
        for source, spot in pairs[:3]:
            flow = spot.flows.get(source)
            text = f"{source.name} → {spot.name}: {source.type}"
            if flow is not None and self.backward:
                via = f" via {spot.name}" if flow.path else ""
                text += f"\n{flow.name}{via} = {flow.formula}"
                if flow.numbers != flow.formula and np.size(flow.value) <= self.style.elements:
                    text += f" = {flow.numbers} = {flow.result}"
                elif flow.value is not None:
                    text += f"\nnorm {number(norm([flow.value]))}"
            tips.append(text)
        if len(pairs) > 3:
            tips.append(f"and {len(pairs) - 3} more")
        label: Line = ()
        factor = self.factor(net, end, pairs)
        shapes = {s.type.shape for s in sources}
        if factor:
            label = (Piece(factor, "factor"),)
        elif len(shapes) > 1:
            label = (Piece(count_text(len(sources), "array"), "shape"),)
        elif sizes(sources[0].type.shape):
            label = (Piece(sizes(sources[0].type.shape), "shape"),)
        return Wire(label, "\n".join(tips), light)

    def factor(self, net: Net, end: Box, pairs: Sequence[tuple[Spot, Spot]]) -> str:
        """×2 where one number goes to one number: the local derivative."""
        if not self.backward or len(pairs) != 1 or "folded" in (net.source.kind, end.kind):
            return ""
        source, spot = pairs[0]
        flow = spot.flows.get(source)
        if flow is None or flow.local is None or np.size(flow.local.value) != 1 or (
                source.type.size != 1 or spot.type.size != 1):
            return ""
        return f"×{self.style.number(np.ravel(flow.local.value)[0])}"


# ---------------------------------------------------------------- words


def inside_of(name: str, path: str) -> str:
    """attn for blocks.0.attn inside of blocks.0; blocks.0 … 11 for blocks.0 … blocks.11."""
    first, *last = [part.removeprefix(f"{path}.") if path else part for part in name.split(" … ")]
    parent = first.rpartition(".")[0]
    return " … ".join([first, *(one.removeprefix(f"{parent}.") if parent else one
                                for one in last)])


def with_short_names(formula: str, spot: Spot, path: str) -> str:
    """The formula of a step with the names that its operands have in their frame."""
    for source in sorted(spot.sources, key=lambda s: -len(s.name)):
        short = inside_of(source.name, path)
        if short != source.name:
            whole = rf"(?<![\w.]){re.escape(source.name)}(?!(?!ᵀ)[\w.])"
            formula = re.sub(whole, short.replace("\\", r"\\"), formula)
    return formula


def single(group: Group) -> Spot | None:
    """The one step of a module without parameters, such as an activation."""
    only = group.items[0] if group.kind == "module" and len(group.items) == 1 else None
    return only if isinstance(only, Spot) else None


def is_only_kind(name: str, kind: str, path: str) -> bool:
    """Does the name of a module say no more than its class? A loss that no variable holds."""
    return not name or name == kind or (not path and name == kind.lower())


def count_text(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def extra(module: Any) -> str:
    """What the module's own text says of its sizes."""
    return " ".join(str(module.extra_repr()).split())


def with_few_options(text: str) -> str:
    """Conv2d(1, 4, kernel_size=(3, 3), …): whole options, as many as fit."""
    while text_width(text, SMALL) > LONGEST_LABEL and ", " in text:
        text = text.removesuffix(", …)").rpartition(", ")[0] + ", …)"
    return shortened(text, LONGEST_LABEL, SMALL)


def place_text(spot: Spot) -> str:
    place = spot.place
    if place is None or not place.file:
        return ""
    text = f"{Path(place.file).name}:{place.line}  {place.source}"
    return f"{text}\nin {place.module}" if place.module else text
