"""`explain` and what it returns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from chainrule.core.errors import SettingError
from chainrule.core.node import user_frame
from chainrule.tensor import Tensor

from .derive import BackwardStep, Derivation, ForwardStep, Gradient, derive
from .large.layers import overview
from .large.view import View, as_document
from .large.zoom import zoom
from .naming import scope_of
from .numbers import Style
from .pictures import Picture, drawn
from .styles import ENDINGS, STYLES, writer
from .styles.as_html import as_html, preformatted
from .styles.as_json import MOST_ELEMENTS, as_json
from .styles.latex import latex
from .styles.script import save_script

NARROWEST, WIDEST = 60, 120
DETAILS = ("steps", "layers")
MOST_STEPS = 24          # forward steps that are told one by one
MOST_NUMBERS = 10_000    # numbers in the leaves of a network that is told step by step
MOST_LINES = 120         # about two screens of steps
WHOLE = ("numpy", "json", "latex")   # styles of the steps, whatever the detail


class Explanation:
    """Every number of one forward and one backward pass.

    `str()` gives it as text, and so does a prompt. As data: `forward`, `backward`, `gradients`.
    Further: `zoom` into a layer, a unit, an example or a weight; `markdown()`, `latex()`,
    `html()`, `json()`, `numpy()`; `save("why.html")`.
    """

    def __init__(self, derivation: Derivation, style: Style, *, kind: str = "text",
                 detail: str | None = None) -> None:
        if detail is not None and detail not in DETAILS:
            raise SettingError(f"explain(detail={detail!r}): write 'steps', 'layers', or leave it "
                               "out")
        writer(kind)
        self.derivation = derivation
        self.style = style
        self.kind = kind
        self.detail = detail or chosen_detail(derivation, style)

    @property
    def forward(self) -> tuple[ForwardStep, ...]:
        """The steps from the leaves to the loss."""
        return self.derivation.forward

    @property
    def backward(self) -> tuple[BackwardStep, ...]:
        """The steps from the loss to the leaves."""
        return self.derivation.backward

    @property
    def gradients(self) -> dict[str, Gradient]:
        """Value and gradient of each leaf, or of what `wrt` names, by name."""
        return {one.name: one for one in self.derivation.gradients}

    @property
    def layers(self) -> View:
        """The network layer by layer: formulas with shapes, statistics, the gradient's size."""
        if self.derivation.recording is None:
            raise SettingError("explain: this explanation was made without its numbers")
        return overview(self.derivation.recording, self.style)

    def zoom(self, target: Any = None, *index: int, unit: int | None = None,
             sample: int | None = None) -> View:
        """A closer look, a page of text with the numbers in its `.data`.

        zoom("model.0.weight", 3, 5)  why one number has its gradient: the terms it is the sum of,
                                      and the products along the paths to the loss. Also
                                      zoom(model[0].weight, 3, 5) and zoom("model.0.weight[3,5]");
                                      without an index, the element with the largest gradient
        zoom("model.0")               a layer or block, also as module, or a line, "train.py:12"
        zoom("model.0", unit=3)       one unit: the sum it computes, its values, what flows back
        zoom(sample=2)                one example of the batch, and what it adds to each gradient

        >>> import chainrule as cr
        >>> w = cr.tensor([1.0, -2.0], requires_grad=True)
        >>> loss = (w * w).sum()
        >>> page = cr.explain(loss, names={"w": w}).zoom("w", 1)
        >>> page.title
        'why is ∂loss/∂w[1] = −4?'
        """
        return zoom(self.derivation, self.style, target, index, unit=unit, sample=sample)

    def in_style(self, kind: str, width: int | None = None) -> str:
        """The explanation in one of the styles: text, terminal, markdown, latex, html, json,
        numpy. Of a network told layer by layer, the last three tell every step."""
        columns = shutil.get_terminal_size((100, 24)).columns if width is None else width
        columns = max(NARROWEST, min(columns, WIDEST))
        write = writer(kind)
        if self.detail == "steps" or kind in WHOLE or self.derivation.recording is None:
            return write(self.derivation, self.style, columns)
        text = self.layers.text(columns, kind == "terminal")
        return text if kind in ("text", "terminal") else as_document(kind, "explain", text)

    def text(self, width: int | None = None, colour: bool = False) -> str:
        """The explanation as lines of at most `width` characters where that is possible."""
        return self.in_style("terminal" if colour else "text", width)

    def markdown(self) -> str:
        """The explanation for a README or an issue: Markdown as GitHub renders it."""
        return self.in_style("markdown", WIDEST)

    def latex(self, *, fragment: bool = False) -> str:
        """A LaTeX document with every step, aligned; a fragment for a document of your own, which
        needs amsmath and amssymb."""
        return latex(self.derivation, self.style, fragment=fragment)

    def html(self) -> str:
        """One HTML file without outside resources, steps that open and close."""
        return self.in_style("html", WIDEST)

    def json(self, *, most: int | None = MOST_ELEMENTS) -> str:
        """Every step as strict JSON, by the schema in `chainrule/explain/styles`.

        Arrays of more than `most` elements are given by statistics; None: none is.
        """
        return as_json(self.derivation, self.style, most=most)

    def numpy(self) -> str:
        """A program of NumPy alone that does the forward and the backward pass by hand."""
        return self.in_style("numpy")

    def picture(self, **options: Any) -> Picture:
        """The graph with values and gradients, as SVG; a notebook shows it by itself.

        Options are those of `cr.explain.picture`: detail, direction, backward, width.
        """
        return drawn(self.derivation, self.style, **options)

    def save(self, path: str | Path) -> Path:
        """Write it to a file; its ending says how: .txt .md .tex .html .json .py, .svg a picture.

        A .py gets an .npz beside it where its arrays are too large to be written as text.
        """
        target = Path(path)
        if target.suffix == ".svg":
            return self.picture().save(target)
        if target.suffix not in ENDINGS or ENDINGS[target.suffix] not in STYLES:
            raise SettingError(f"explain: save({str(path)!r}): the ending says how it is written; "
                               f"give one of {', '.join([*ENDINGS, '.svg'])}")
        if target.suffix == ".py":
            return save_script(self.derivation, self.style, target)
        target.write_text(self.in_style(ENDINGS[target.suffix], WIDEST) + "\n", encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        if self.detail == "steps":
            return as_html(self.derivation, self.style, fragment=True)
        return preformatted(self.layers.text(WIDEST))

    def __str__(self) -> str:
        return self.in_style(self.kind)

    def __repr__(self) -> str:
        return str(self)


def chosen_detail(derivation: Derivation, style: Style) -> str:
    """Step by step, while a reader can take that in; else layer by layer."""
    recording = derivation.recording
    if recording is None:
        return "steps"
    size = sum(one.value.size for one in derivation.gradients if one.value is not None)
    few = len(derivation.forward) <= MOST_STEPS and size <= MOST_NUMBERS
    short = few and writer("text")(derivation, style, 100).count("\n") < MOST_LINES
    return "steps" if short else "layers"


def explain(loss: Any, *, wrt: Any = None, style: str | None = None,
            names: Mapping[Any, Any] | None = None, model: Any = None,
            precision: int | None = 4, elements: int = 6, detail: str | None = None,
            file: TextIO | None = None) -> Explanation:
    """The chain rule with your numbers: what each step of forward and backward pass computed.

    loss       a tensor of one number that was computed from leaves with requires_grad
    wrt        only the paths to these: a tensor, a parameter, a name ("model.0.weight", or
               "model.0" for all of that layer), a module, or a list of them
    style      how str() and print write it: text, terminal, markdown, latex, html, json, numpy
    names      {name: tensor}, for what has no variable; else variables and the model's names count
    model      the module whose parameters are named (modules among your variables are found)
    precision  significant digits; None for all
    elements   arrays up to this size are written out, larger ones by dtype and shape
    detail     "steps": every step; "layers": layer by layer with formulas, shapes and statistics;
               None: steps while there are few
    file       also write the text there

    The backward rules are those of `loss.backward()`, run on values that carry text and number;
    nothing is added to `.grad`. Call it before `optimizer.step()` changes the numbers, and before
    `backward()` if values have more than `cr.settings.keep_small` elements. What it returns keeps
    its numbers: `.zoom(...)` works after both.

    >>> import chainrule as cr
    >>> w = cr.tensor(1.0, requires_grad=True)
    >>> loss = (6 - w * 3) ** 2
    >>> print(cr.explain(loss, names={"w": w}).gradients["w"].gradient)
    -18.0
    """
    if not isinstance(loss, Tensor):
        raise SettingError(
            f"explain() wants the loss, a tensor that was computed from parameters, got "
            f"{type(loss).__name__}. A number that was read out (loss.item(), float(loss), "
            "loss.numpy()) no longer knows where it came from; give the tensor itself.")
    for setting, value, least in (("precision", precision, 1), ("elements", elements, 0)):
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not right and not (value is None and setting == "precision"):
            raise SettingError(f"explain({setting}={value!r:.40}): must be a whole number of at "
                               f"least {least}" + (", or None for all digits"
                                                   if setting == "precision" else ""))
    scope = scope_of(user_frame(sys._getframe(1)))
    numbers = Style(precision, elements)
    derivation = derive(loss, scope, names=names, model=model, style=numbers, wrt=wrt)
    explanation = Explanation(derivation, numbers, kind=style or "text", detail=detail)
    if file is not None:
        file.write(str(explanation) + "\n")
    return explanation
