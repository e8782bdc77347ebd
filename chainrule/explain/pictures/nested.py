"""Places for a drawing with frames in frames: each frame is arranged by itself, innermost first.

A value that enters a frame does so at one point of its border, however many inside read it, and
leaves it at one point. So a frame is to the outside like a box with such points, no line crosses a
box or a text, and each level is an ordinary graph for `layered`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .layered import Level, Link, Vertex, arrange, rearrange, route
from .scene import (
    ARROW,
    BESIDE,
    LABEL,
    Box,
    Frame,
    Net,
    Part,
    Scene,
    Stroke,
    Wire,
    line_width,
)

INSIDE = 12.0                # between a frame and what is in it
HEADING, TOP = 24.0, 4.0     # height of a frame's label, and of the border above it
SLOT = 16.0                  # between two lines that arrive at one box
UNDER = 8.0                  # from the label of a line that goes right to the box side below
LIGHT = 0.3                  # how strongly the line of a leaf pulls


@dataclass(eq=False)
class _Inside:
    """An arranged frame: its vertices and links, and where values enter and leave."""

    level: Level
    vertices: dict[Box | Frame, Vertex]
    links: list[tuple[Link, Part]]
    enters: dict[Net, Vertex] = field(default_factory=dict)
    exits: dict[Net, Vertex] = field(default_factory=dict)
    label: Vertex | None = None


def lay_out(scene: Scene, right: bool = False) -> None:
    """Give every box, frame and line of the scene its place."""
    _Layout(scene, right).run()


class _Layout:
    def __init__(self, scene: Scene, right: bool) -> None:
        self.scene = scene
        self.right = right
        self.parent: dict[Box | Frame, Frame] = {}
        for frame in [scene.root, *scene.root.frames()]:
            for item in frame.items:
                self.parent[item] = frame
        self.arriving: dict[Box, list[tuple[Net, Wire]]] = {}
        for net in scene.nets:
            for box, wire in net.wires.items():
                self.arriving.setdefault(box, []).append((net, wire))
        self.inner: dict[Frame, _Inside] = {}
        self.within: dict[Frame, list[Net]] = {scene.root: list(scene.nets)}
        for net in scene.nets:
            for frame in dict.fromkeys(f for box in (net.source, *net.wires)
                                       for f in self.above(box)):
                self.within.setdefault(frame, []).append(net)

    def above(self, item: Box | Frame) -> Iterator[Frame]:
        """The frames around an item, the innermost first, without the root."""
        frame = self.parent[item]
        while frame is not self.scene.root:
            yield frame
            frame = self.parent[frame]

    def child(self, frame: Frame, box: Box) -> Box | Frame | None:
        """Which item of `frame` is or contains the box; None if it is outside."""
        item: Box | Frame = box
        while item in self.parent:
            if self.parent[item] is frame:
                return item
            item = self.parent[item]
        return None

    def run(self) -> None:
        root = self.scene.root
        for frame in [*reversed([*root.frames()]), root]:       # inner frames come after outer ones
            self.inner[frame] = self.arranged(frame)
            frame.width, frame.height = self.size(frame)
        self.settle(root, 0.0, 0.0)
        self.scene.width, self.scene.height = root.width, root.height

    # ------------------------------------------------------------ sizes, along and across

    def turned(self, across: float, along: float) -> tuple[float, float]:
        """(x, y) of a place, or width and height of a size; its own inverse."""
        return (along, across) if self.right else (across, along)

    def slot(self, wire: Wire) -> float:
        """How much of its box's side a line takes up, with its label."""
        if not wire.label:
            return SLOT
        return LABEL + UNDER if self.right else wire.width + 2 * BESIDE

    def head(self, box: Box) -> float:
        """The room before a box for arrows and the labels of lines."""
        wires = [wire for _, wire in self.arriving.get(box, ())]
        widest = max((wire.width for wire in wires if wire.label), default=0.0)
        if not widest:
            return 0.0
        return widest + ARROW + BESIDE if self.right else LABEL

    def sides(self, box: Box) -> tuple[float, float]:
        """Across and along of a box with its head."""
        across, along = self.turned(box.width, box.height)
        wires = [wire for _, wire in self.arriving.get(box, ())]
        needed = sum(map(self.slot, wires))
        if main_wire(wires) is not None:
            needed *= 2                      # that line arrives in the middle
        return max(across, needed + 4), along + self.head(box)

    # ------------------------------------------------------------ one frame

    def arranged(self, frame: Frame) -> _Inside:
        vertices: dict[Box | Frame, Vertex] = {}
        for item in frame.items:
            across, along = (self.sides(item) if isinstance(item, Box)
                             else self.turned(item.width, item.height))
            vertices[item] = Vertex(across, along)
        found = _Inside(Level([], (), 0.0, 0.0), vertices, [])
        for net in self.within.get(frame, ()):
            source = self.child(frame, net.source)
            targets: dict[Box | Frame, bool] = {}
            outside = False
            for box, wire in net.wires.items():
                target = self.child(frame, box)
                if target is None:
                    outside = True
                elif target is not source:
                    targets[target] = targets.get(target, True) and wire.light
            if source is None and targets:
                start = found.enters[net] = Vertex(SLOT, 0.0, "first")
            elif source is not None:
                start = vertices[source]
            for target, light in targets.items():
                link = Link(start, vertices[target], self.leaving(source, net),
                            self.entering(target, net), LIGHT if light else 1.0)
                found.links.append((link, Part(net, target)))
            if source is not None and outside and frame is not self.scene.root:
                end = found.exits[net] = Vertex(SLOT, 0.0, "last")
                link = Link(start, end, self.leaving(source, net))
                found.links.append((link, Part(net, frame, True)))
        if frame is not self.scene.root and not self.right:
            found.label = Vertex(line_width(frame.label) + 8, HEADING - TOP, "label")
        ordered = [*([found.label] if found.label else []), *found.enters.values(),
                   *vertices.values(), *found.exits.values()]
        found.level = arrange(ordered, [link for link, _ in found.links])
        self.take_slots(found)
        found.level = rearrange(found.level, [link for link, _ in found.links])
        return found

    def leaving(self, item: Box | Frame | None, net: Net) -> float:
        if isinstance(item, Frame):
            return self.shift(item, self.inner[item].exits[net])
        return 0.0

    def entering(self, item: Box | Frame, net: Net) -> float:
        if isinstance(item, Frame):
            return self.shift(item, self.inner[item].enters[net])
        return 0.0

    def shift(self, frame: Frame, port: Vertex) -> float:
        """How far across a point of a frame's border is from the frame's middle."""
        across, _ = self.turned(frame.width, frame.height)
        return port.x - self.inner[frame].level.left + self.before(frame)[0] - across / 2

    def take_slots(self, found: _Inside) -> None:
        """The lines that arrive at a box share its side, in the order in which they come."""
        of_box: dict[Box, list[tuple[Link, Part]]] = {}
        for link, part in found.links:
            if isinstance(part.item, Box):
                of_box.setdefault(part.item, []).append((link, part))
        for box, arriving in of_box.items():
            arriving.sort(key=lambda one: (one[0].through[-1].x if one[0].through
                                           else one[0].source.x + one[0].leaves))
            wires = [part.net.wires[box] for _, part in arriving]
            main = main_wire(wires)
            at = -sum(map(self.slot, wires)) / 2
            if main is not None:
                before = wires[:wires.index(main)]
                at = -sum(map(self.slot, before)) - self.foot(main)
            for (link, _), wire in zip(arriving, wires, strict=True):
                link.arrives = at + self.foot(wire)
                at += self.slot(wire)

    def foot(self, wire: Wire) -> float:
        """Where in its slot a line lies: its label is to the right of it, or above."""
        if not wire.label:
            return SLOT / 2
        return LABEL + UNDER / 2 if self.right else BESIDE

    # ------------------------------------------------------------ putting things together

    def before(self, frame: Frame) -> tuple[float, float]:
        """Across and along, what lies between the border of a frame and its content."""
        if frame is self.scene.root:
            return 0.0, 0.0
        return (INSIDE + (HEADING - TOP if self.right else 0), INSIDE if self.right else TOP)

    def size(self, frame: Frame) -> tuple[float, float]:
        level = self.inner[frame].level
        if frame is self.scene.root:
            return self.turned(level.right - level.left, level.length)
        across, along = self.before(frame)
        long = along + level.length + INSIDE
        if self.right:
            long = max(long, line_width(frame.label) + 2 * INSIDE)
        return self.turned(level.right - level.left + across + INSIDE, long)

    def settle(self, frame: Frame, across: float, along: float) -> None:
        """Places for all in a frame whose border begins here."""
        inside = self.inner[frame]
        level = inside.level
        frame.x, frame.y = self.turned(across, along)
        border = self.before(frame)
        left, top = across + border[0] - level.left, along + border[1]
        for item, vertex in inside.vertices.items():
            if isinstance(item, Frame):
                item.depth = frame.depth + 1
                self.settle(item, left + vertex.left, top + vertex.top)
                continue
            head = self.head(item)
            item.x, item.y = self.turned(left + vertex.left, top + vertex.top + head)
            item.width, item.height = self.turned(vertex.across, vertex.along - head)
        _, whole = self.turned(frame.width, frame.height)
        for link, part in inside.links:
            points = [(left + x, top + y) for x, y in route(link, level)]
            arrow = isinstance(part.item, Box)
            if link.source.pin == "first":
                points[0] = (points[0][0], along)
            if link.target.pin == "last":
                points[-1] = (points[-1][0], along + whole)
            note = None
            if arrow:
                head = self.head(part.item)
                points[-1] = (points[-1][0], points[-1][1] + head)
                if head and len(points) > 1 and points[-2][1] < points[-1][1] - head:
                    points.insert(-1, (points[-1][0], points[-1][1] - head))
                note = self.note(part, points[-1], head)
            turned = [self.turned(*point) for point in points]
            self.scene.strokes.append(Stroke(part, turned, arrow, note))

    def note(self, part: Part, end: tuple[float, float], head: float
             ) -> tuple[float, float] | None:
        """Where the label of a line begins, and the middle of its height."""
        wire = part.net.wires[part.item]
        if not wire.label:
            return None
        if self.right:
            return end[1] - ARROW - wire.width - 2, end[0] - LABEL / 2 - UNDER / 2
        return end[0] + BESIDE - 1, end[1] - head / 2 - 1


def main_wire(wires: Sequence[Wire]) -> Wire | None:
    """The one line to a box that is not from a leaf or constant, if there is just one."""
    heavy = [wire for wire in wires if not wire.light]
    return heavy[0] if len(heavy) == 1 else None
