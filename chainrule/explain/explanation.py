"""`explain` and what it returns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from chainrule.core.node import user_frame

from .derive import BackwardStep, Derivation, ForwardStep, Gradient, derive
from .naming import scope_of
from .numbers import Style
from .render import explanation_text

NARROWEST, WIDEST = 60, 120


class Explanation:
    """Every number of one forward and one backward pass.

    `str()` gives it as text, and so does a prompt. As data: `forward`, `backward`, `gradients`.
    """

    def __init__(self, derivation: Derivation, style: Style) -> None:
        self.derivation = derivation
        self.style = style

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
        """Value and gradient of each leaf, by name."""
        return {one.name: one for one in self.derivation.gradients}

    def text(self, width: int | None = None, colour: bool = False) -> str:
        """The explanation as lines of at most `width` characters where that is possible."""
        columns = shutil.get_terminal_size((100, 24)).columns if width is None else width
        return explanation_text(self.derivation, self.style,
                                max(NARROWEST, min(columns, WIDEST)), colour)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def explain(loss: Any, *, names: Mapping[Any, Any] | None = None, model: Any = None,
            precision: int | None = 4, elements: int = 6,
            file: TextIO | None = None) -> Explanation:
    """The chain rule with your numbers: what each step of forward and backward pass computed.

    loss       a tensor of one number that was computed from leaves with requires_grad
    names      {name: tensor}, for what has no variable; else variables and the model's names count
    model      the module whose parameters are named (modules among your variables are found)
    precision  significant digits; None for all
    elements   arrays up to this size are written out, larger ones by dtype and shape
    file       also write the text there

    The backward rules are those of `loss.backward()`, run on values that carry text and number;
    nothing is added to `.grad`. Call it before `optimizer.step()` changes the numbers, and before
    `backward()` if values have more than `cr.settings.keep_small` elements.

    >>> import chainrule as cr
    >>> w = cr.tensor(1.0, requires_grad=True)
    >>> loss = (6 - w * 3) ** 2
    >>> print(cr.explain(loss, names={"w": w}).gradients["w"].gradient)
    -18.0
    """
    scope = scope_of(user_frame(sys._getframe(1)))
    style = Style(precision, elements)
    explanation = Explanation(derive(loss, scope, names=names, model=model, style=style), style)
    if file is not None:
        file.write(explanation.text() + "\n")
    return explanation
