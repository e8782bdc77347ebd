"""`picture(loss)`: the graph of one forward and backward pass as a drawing."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.core.node import user_frame
from chainrule.explain.derive import Derivation, derive
from chainrule.explain.naming import scope_of
from chainrule.explain.numbers import Style

from .compose import Drawing, compose
from .gather import Spot, gather
from .nested import lay_out
from .svg import written
from .tree import Group, build, leads_to

SCREENS = {"down": (1400.0, 1000.0), "right": (2000.0, 900.0)}    # seen without much scrolling
MOST_BOXES = 60
MOST_MISSES = 5                  # groups in a row that did not fit: what is left would not either

Draw = Callable[[Group, AbstractSet[Group]], Drawing]


class Picture:
    """A drawing of a computational graph, as SVG.

    A notebook shows it by itself. `svg()` is the text, `save("graph.svg")` a file that browsers,
    word processors and LaTeX (through Inkscape) can read; `width` and `height` are in pixels.
    """

    def __init__(self, svg: str, width: float, height: float, boxes: int) -> None:
        self._svg = svg
        self.width = width
        self.height = height
        self.boxes = boxes

    def svg(self) -> str:
        """The drawing as the text of an SVG file."""
        return self._svg

    def _repr_svg_(self) -> str:
        return self._svg

    def __repr__(self) -> str:
        return (f"<Picture of {self.boxes} boxes, {self.width:.0f} by {self.height:.0f} pixels: "
                'save("graph.svg") writes it>')

    def save(self, path: str | Path) -> Path:
        """Write the drawing to a file whose name ends in .svg; returns its path."""
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise SettingError(f"Picture.save({str(path)!r}): a picture is saved as SVG; write "
                               f"save({str(target.with_suffix('.svg'))!r})")
        target.write_text(self._svg, encoding="utf-8", newline="\n")
        return target


def picture(loss: Any, *, names: Mapping[Any, Any] | None = None, model: Any = None,
            wrt: Any = None, detail: str | int | Sequence[str] | None = None,
            direction: str = "down", backward: bool = True, width: float | None = None,
            precision: int | None = 4, elements: int = 6) -> Picture:
    """The graph of `loss` as a picture: each step with its value and its gradient.

    loss       a tensor of one number that was computed from leaves with requires_grad
    names      {name: tensor}, for what has no variable; else variables and the model's names count
    model      the module whose parameters are named (modules among your variables are found)
    wrt        tensors, parameters or their names: only gradients on the way to these
    detail     None draws as much as one screen holds: equal blocks once, with their number, and
               modules and lines of the program as one box. "steps" draws every step; a number, so
               many levels of modules; a module's path such as "encoder.0" (or a list), that module
    direction  "down" or "right": where the forward pass goes
    backward   False leaves the gradients out
    width      in pixels; None for the natural size
    precision  significant digits; None for all
    elements   arrays up to this size are written out; of larger ones the mean ± the standard
               deviation, and the norm of the gradient

    The width of a line is the size of the gradient that flows back along it: the Euclidean norm,
    on a log scale; where lines meet, of the sum. A number at an arrow, such as ×2, is the local
    derivative: the products along all paths from a leaf to the loss add up to its gradient. Other
    arrows tell the shape of what is passed on. Pointing at a box or line shows the user's line.

    >>> import chainrule as cr
    >>> w = cr.tensor(1.0, requires_grad=True)
    >>> loss = (6 - w * 3) ** 2
    >>> cr.explain.picture(loss, names={"w": w})
    <Picture of 4 boxes, 372 by 338 pixels: save("graph.svg") writes it>
    """
    scope = scope_of(user_frame(sys._getframe(1)))
    style = Style(precision, elements)
    derivation = derive(loss, scope, names=names, model=model, style=style, wrt=wrt)
    return drawn(derivation, style, detail=detail, direction=direction, backward=backward,
                 width=width)


def drawn(derivation: Derivation, style: Style, *, detail: str | int | Sequence[str] | None = None,
          direction: str = "down", backward: bool = True, width: float | None = None) -> Picture:
    """The picture of a derivation, with the options of `picture`."""
    if direction not in ("down", "right"):
        raise SettingError(f"picture(direction={direction!r}): write \"down\" or \"right\"")
    if width is not None and not width > 0:
        raise SettingError(f"picture(width={width!r}): a width in pixels must be above 0; None is "
                           "the natural size")
    recording = derivation.recording
    if recording is None:
        raise SettingError("picture: this derivation has no recording of its graph. Draw it with "
                           "cr.explain.picture(loss).")
    spots = gather(derivation, recording)
    right = direction == "right"

    def draw(root: Group, opened: AbstractSet[Group]) -> Drawing:
        drawing = compose(root, opened, derivation.loss, style, backward)
        lay_out(drawing.scene, right)
        return drawing

    drawing = chosen(spots, recording.names.modules, detail, draw, SCREENS[direction])
    text, size = written(drawing, derivation.loss, right, backward,
                         summary(derivation, backward), width)
    return Picture(text, *size, len(drawing.told))


def chosen(spots: Sequence[Spot], names: Mapping[int, str], detail: Any, draw: Draw,
           screen: tuple[float, float]) -> Drawing:
    """The drawing with as many groups open as `detail` says, or as one screen can hold."""
    if detail == "steps" or (detail is None and len(spots) <= MOST_BOXES):
        root = build(spots, names, repeats=False)
        drawing = draw(root, set(root.groups()))
        if detail == "steps" or readable(drawing, screen):
            return drawing
    if isinstance(detail, int) and not isinstance(detail, bool):
        root = build(spots, names)
        return draw(root, set(to_depth(root, detail)))
    paths = [] if detail in (None, "layers") else [detail] if isinstance(detail, str) else detail
    if not isinstance(paths, Sequence) or not all(isinstance(path, str) for path in paths):
        raise SettingError(f"picture(detail={detail!r}): write \"steps\", \"layers\", a number of "
                           "levels, a module's path or a list of paths")
    root = build(spots, names, kept=paths)
    opened: set[Group] = set()
    for path in paths:
        found = {group for group in root.groups()
                 if any(leads_to(name, path) for name in group.name.split(" … "))}
        if not any(group.name == path for group in found):
            raise unknown_path(path, spots)
        opened |= found | {group for group in root.groups() if not group.name}
    return unfolded(root, opened, draw, screen)


def unknown_path(path: str, spots: Sequence[Spot]) -> SettingError:
    known = sorted({spot.place.module for spot in spots if spot.place and spot.place.module})
    close = difflib.get_close_matches(path, known, 6, 0.3) or known[:6]
    told = f"its modules are called {', '.join(close)}" if close else "there are none"
    return SettingError(f"picture(detail={path!r}): no module of this graph has that path; {told}. "
                        'Or write "steps", "layers", or a number of levels.')


def unfolded(root: Group, opened: AbstractSet[Group], draw: Draw,
             screen: tuple[float, float]) -> Drawing:
    """Open one group after another, those with most in them first, while all can be read."""
    drawing = draw(root, opened)
    waiting = [item for item in root.items if isinstance(item, Group)]
    misses = 0
    while waiting and misses < MOST_MISSES:
        group = max(waiting, key=lambda g: len(list(g.spots())))
        waiting.remove(group)
        if group not in opened:
            if len(drawing.told) + len(group.items) > MOST_BOXES:
                continue
            larger = draw(root, opened | {group})
            if not readable(larger, screen):
                misses += 1
                continue
            opened, misses = opened | {group}, 0
            drawing = larger
        inner = group.items
        if group.kind == "repeat" and group.module is not None and isinstance(inner[0], Group):
            inner = inner[0].items
        waiting += [item for item in inner if isinstance(item, Group)]
    return drawing


def to_depth(group: Group, depth: int) -> list[Group]:
    """The groups of so many levels."""
    if depth <= 0:
        return []
    return [inner for item in group.items if isinstance(item, Group)
            for inner in (item, *to_depth(item, depth - 1))]


def readable(drawing: Drawing, screen: tuple[float, float]) -> bool:
    """Does it fit a screen, and are there not too many boxes to take in?"""
    scene = drawing.scene
    return (scene.width <= screen[0] and scene.height <= screen[1]
            and len(drawing.told) <= MOST_BOXES)


def summary(derivation: Derivation, backward: bool) -> str:
    """What the picture shows, for those who cannot see it."""
    steps = len(derivation.forward)
    text = f"{steps} step{'' if steps == 1 else 's'} of the forward pass"
    if not backward:
        return text + "."
    told = [f"∂{derivation.loss}/∂{one.name} = {Style().array(one.gradient)}"
            for one in derivation.gradients[:12]]
    more = len(derivation.gradients) - len(told)
    return (f"{text}, and the gradients of the backward pass: {'; '.join(told)}"
            + (f"; and {more} more" if more > 0 else "") + ".")
