"""What gradcheck found, as data and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from chainrule.core.errors import GradientError
from chainrule.core.node import Node

MODES = {"reverse": "reverse mode", "forward": "forward mode", "batched": "batched reverse mode",
         "batched forward": "batched forward mode"}

# Relative errors and what to think of them (Stanford's course CS231n, "Gradient checks").
UNCOMFORTABLE = 1e-4
REASONS = {
    "corner": "the slopes on its two sides differ however small the step: a kink or a jump that "
              "the recording does not show",
    "edge": "the function is not finite on one side of it",
    "unsettled": "differences with steps from eps to 1000·eps do not settle on a number",
}


class Place(NamedTuple):
    """One number of an input or output."""

    label: str
    at: tuple[int, ...]

    def __str__(self) -> str:
        return self.label + (str(list(self.at)) if self.at else "")


class Excluded(NamedTuple):
    """A number that was not compared, and why: kink, corner, edge or unsettled."""

    place: Place
    reason: str
    node: Node | None

    def __str__(self) -> str:
        if self.node is not None:
            return (f"{self.place} lies on a kink of {at_line(self.node)}\n    The two sides take "
                    "different branches, so the numeric derivative there means nothing")
        return f"{self.place}: {REASONS[self.reason]}"


class Mistake(NamedTuple):
    """One input whose derivative is wrong in one mode. Rows: (input, output, got, right)."""

    mode: str
    modes: tuple[str, ...]
    label: str
    type: Any
    wrong: int
    compared: int
    rows: tuple[tuple[Place, Place, float, float], ...]
    cause: str

    def __str__(self) -> str:
        lines = [(f"  {self.label} ({self.type}): {self.wrong} of {self.compared} derivatives by "
                  f"{self.mode} are wrong")]
        for where, output, got, right in self.rows:
            lines.append(f"    d {output} / d {where}: {got:.7g}, differences give {right:.7g}"
                         + compared(got, right))
        if self.wrong > len(self.rows):
            lines.append(f"    ... and {self.wrong - len(self.rows)} more")
        if self.cause:
            lines.append(f"    Looks like: {self.cause}.")
        return "\n".join(lines)


def compared(got: float, right: float) -> str:
    """", 0.5 times that (relative error 5.0e-01)"."""
    if not math.isfinite(got):
        return ""
    ratio = f", {got / right:.4g} times that" if right else ""
    return f"{ratio} (relative error {relative_error(got, right):.1e})"


def relative_error(a: float, b: float) -> float:
    """|a − b| / max(|a|, |b|)."""
    return abs(a - b) / (max(abs(a), abs(b)) or 1.0)


def at_line(node: Node) -> str:
    """`relu at file:line`, and the text of the line below."""
    origin = node.origin
    line = origin.source() if origin.file else ""
    return f"{node.name} at {origin}" + (f"\n        {line}" if line else "")


def plural(n: int, word: str) -> str:
    return f"{n:,} {word}" + ("" if n == 1 else "s")


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found. True if something was compared and all of it is right.

    `inputs` tensors with `numbers` elements were moved, `compared` of them counted; the others are
    in `excluded`. `error` is the largest deviation and `relative` the same relative to the largest
    derivative of its block, without what rounding explains; it is at `worst`. `evaluations` counts
    all calls of the function, `difference_evaluations` those for differences, `backward_passes`
    those that gave the same numbers. `stopped` says why the check could not be run to its end.
    """

    title: str
    inputs: int
    numbers: int
    compared: int
    modes: tuple[str, ...]
    error: float
    relative: float
    worst: Place | None
    mistakes: tuple[Mistake, ...]
    excluded: tuple[Excluded, ...]
    suspects: tuple[str, ...]
    notes: tuple[str, ...]
    evaluations: int
    difference_evaluations: int
    backward_passes: int
    difference_seconds: float
    reverse_seconds: float
    stopped: str = ""

    @property
    def word(self) -> str:
        """right, uncomfortable (within the tolerances, but not close), wrong or inconclusive."""
        if self.stopped:
            return self.stopped.partition(": ")[2].partition(".")[0]
        if self.mistakes:
            return "wrong"
        if not self.compared:
            return "inconclusive"
        return "right" if self.relative <= UNCOMFORTABLE else "uncomfortable"

    def __bool__(self) -> bool:
        return self.word in ("right", "uncomfortable")

    @property
    def cost(self) -> str:
        """What differences cost, against backpropagation."""
        calls = plural(self.difference_evaluations, "evaluation")
        text = f"The differences took {calls} of the function"
        if self.backward_passes:
            n = self.backward_passes
            text += f"; {n:,} backward pass{'' if n == 1 else 'es'} would do"
        return text + "."

    def __repr__(self) -> str:
        if self.stopped:
            return self.stopped
        scope = f"{plural(self.inputs, 'input')} ({plural(self.numbers, 'number')})"
        modes = " and ".join(self.modes)
        agree = "agrees" if len(self.modes) == 1 else "agree"
        if self.word == "wrong":
            lines = [f"{self.title}: wrong. {scope}", *map(str, self.mistakes),
                     *(f"  {text}" for text in self.suspects)]
            if self.relative > 1e-2 or any(
                    not relative_error(got, right) <= 1e-2 for m in self.mistakes
                    for _, _, got, right in m.rows):
                lines.append("  A relative error above 1e-2 usually means a wrong gradient.")
            else:
                lines.append("  Relative errors below 1e-2 may also be rounding: look at the "
                             "scale of the numbers before the rule.")
        elif self.word == "inconclusive":
            lines = [f"{self.title}: inconclusive. {scope}, and none could be compared"]
        else:
            where = f" (worst: {self.worst})" if self.worst is not None else ""
            lines = [(f"{self.title}: {self.word}. {scope}: {modes} {agree} with centred "
                      f"differences to {self.error:.1e}{where}")]
            if self.word == "uncomfortable":
                lines.append(f"  The relative error {self.relative:.1e} is within the tolerances, "
                             "but a right gradient of a smooth function is below 1e-7; near kinks "
                             "and in long sums 1e-4 is common")
        if self.excluded:
            lines.append(f"  {plural(len(self.excluded), 'number')} of {self.numbers:,} left out:")
            lines += [f"    {one}" for one in self.excluded[:5]]
            if len(self.excluded) > 5:
                lines.append(f"    ... and {len(self.excluded) - 5} more")
        lines += [f"  Note: {note}" for note in self.notes]
        lines.append(f"  {self.cost}")
        return "\n".join(lines)


class GradcheckError(GradientError):
    """A gradient that is wrong, or that could not be checked; `verdict` holds what was found."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


def stopped(title: str, word: str, reason: str, evaluations: int = 0) -> GradcheckError:
    """The error that ends a check early."""
    return GradcheckError(Verdict(title, 0, 0, 0, (), 0.0, 0.0, None, (), (), (), (), evaluations,
                                  0, 0, 0.0, 0.0, f"{title}: {word}. {reason}"))
