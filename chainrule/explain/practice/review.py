"""What marking a derivation found: each step with its mark, the mistakes by name, as text and data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.explain.numbers import Style
from chainrule.explain.styles.text import wrapped

RIGHT, WRONG, FOLLOWS = "right", "wrong", "follows"
SIGNS = {RIGHT: "✓", WRONG: "✗", FOLLOWS: "↳"}
WORDS = {RIGHT: "right", WRONG: "wrong", FOLLOWS: "follows from the mistake above; the step itself "
         "is right"}

TITLES = {
    "sign": "sign",
    "path": "forgotten path",
    "slope": "missing slope",
    "upstream": "missing upstream gradient",
    "extra": "one factor too many",
    "transpose": "transposition",
    "operand": "wrong operand",
    "value": "derivative taken at the wrong value",
    "mean": "sum and mean confused",
    "batch": "missing sum over the batch",
    "factor": "missing constant factor",
    "rule": "wrong derivative",
    "shape": "wrong shape",
    "unknown": "not recognised",
}


@dataclass(frozen=True)
class Mistake:
    """One mistake by its name.

    kind      one of the keys of `TITLES`
    name      the first gradient it shows in, as ∂L/∂W1
    sentence  what is wrong and what to write instead
    formula   the true step; '' where it has no one formula
    line      the user's line of the forward pass it belongs to
    shows     all gradients that this one mistake made wrong
    others    kinds of mistake that would give the same numbers
    """

    kind: str
    name: str
    sentence: str
    formula: str = ""
    line: str = ""
    shows: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return TITLES[self.kind]

    def data(self) -> dict[str, Any]:
        return {"kind": self.kind, "title": self.title, "name": self.name,
                "sentence": self.sentence, "formula": self.formula, "line": self.line,
                "shows": list(self.shows), "others": list(self.others)}


@dataclass(frozen=True)
class Mark:
    """One gradient of the hand-written backward pass: yours, the true one, and the mark."""

    name: str
    mark: str
    yours: Any
    true: Any
    mistake: Mistake | None = None
    remark: str = ""

    def data(self) -> dict[str, Any]:
        return {"name": self.name, "mark": self.mark, "yours": np.asarray(self.yours).tolist(),
                "true": np.asarray(self.true).tolist(), "remark": self.remark,
                "mistake": None if self.mistake is None else self.mistake.kind}


@dataclass(frozen=True)
class Review:
    """A marked derivation. `str()` tells it; `.ok`, `.steps` and `.mistakes` are the data."""

    steps: tuple[Mark, ...]
    mistakes: tuple[Mistake, ...]
    remarks: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Is every gradient that was given right?"""
        return not self.mistakes and all(step.mark == RIGHT for step in self.steps)

    def __bool__(self) -> bool:
        return self.ok

    def data(self) -> dict[str, Any]:
        """Everything as dicts, lists, numbers and text."""
        return {"ok": self.ok, "steps": [step.data() for step in self.steps],
                "mistakes": [one.data() for one in self.mistakes], "remarks": list(self.remarks)}

    def json(self) -> str:
        """The data as JSON; numbers that are not finite become text."""
        return json.dumps(finite(self.data()), ensure_ascii=False, indent=2)

    def text(self, width: int = 90, style: Style | None = None) -> str:
        """The marks step by step, in the order in which a backward pass computes them."""
        style = style or Style()
        lines = [*wrapped(self.headline(), width), ""] if self.steps else []
        wide = max((len(step.name) for step in self.steps), default=0)
        told: set[int] = set()
        for step in self.steps:
            words = WORDS[step.mark]
            if step.mistake is not None:
                words = step.mistake.title if id(step.mistake) not in told else (
                    f"{step.mistake.title}, as above")
            words += f" ({step.remark})" if step.remark else ""
            first, *more = wrapped(words, max(width - wide - 6, 20))
            lines.append(f"  {SIGNS[step.mark]} {step.name:<{wide}}  {first}")
            lines += [" " * (wide + 6) + line for line in more]
            if step.mistake is not None and id(step.mistake) not in told:
                told.add(id(step.mistake))
                lines += mistake_lines(step.mistake, width)
                lines += numbers(step, style, width)
        for one in self.mistakes:
            if id(one) not in told:
                lines += ["the backward pass did not run", "", f"  ✗ {one.title}",
                          *mistake_lines(one, width)]
        for text in self.remarks:
            lines += ["", *wrapped(text, width, "  ")]
        return "\n".join(lines)

    def headline(self) -> str:
        count, wrong = len(self.steps), len(self.mistakes)
        what = f"{count} gradient{'s' if count > 1 else ''}"
        if not wrong:
            return f"{what}: all right" if count > 1 else f"{what}: right"
        right = sum(step.mark == RIGHT for step in self.steps)
        follows = sum(step.mark == FOLLOWS for step in self.steps)
        parts = [f"{wrong} mistake{'s' if wrong > 1 else ''}", f"{right} right"]
        if follows:
            parts.append(f"{follows} wrong only because of an earlier one")
        return f"{what}: {', '.join(parts)}"

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__


def mistake_lines(one: Mistake, width: int) -> list[str]:
    lines = wrapped(one.sentence, width, "      ")
    if one.others:
        same = " or ".join(TITLES[kind] for kind in one.others)
        lines += wrapped(f"(The same numbers would come of: {same}.)", width, "      ")
    if one.formula:
        lines += labelled("rule", one.formula, width)
    if one.line:
        lines += labelled("line", one.line, width)
    return lines


def numbers(step: Mark, style: Style, width: int) -> list[str]:
    """Yours beside the true numbers; of large arrays the place where they differ most."""
    yours, true = np.asarray(step.yours), np.asarray(step.true)
    if true.size <= style.elements or yours.shape != true.shape:
        return [*labelled("yours", style.array(yours), width),
                *labelled("true", style.array(true), width)]
    gap = np.abs(yours - true)
    place = np.unravel_index(int(np.argmax(np.where(np.isnan(gap), np.inf, gap))), gap.shape)
    where = f"at [{', '.join(map(str, place))}]"
    return [*labelled("yours", f"{style.number(yours[place])} {where}", width),
            *labelled("true", f"{style.number(true[place])} {where}", width)]


def labelled(label: str, text: str, width: int) -> list[str]:
    first, *more = wrapped(text, max(width - 13, 20)) or [""]
    return [f"      {label:<6} {first}", *[" " * 13 + line for line in more]]


def finite(value: Any) -> Any:
    """NaN and infinity as text, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
