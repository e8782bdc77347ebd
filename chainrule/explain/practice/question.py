"""An exercise: a question, three hints, an answer that is checked, and the whole derivation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from chainrule.core.errors import SettingError

from .problem import STYLE, Problem, Wrong, near

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?:/\d+(?:\.\d+)?)?"


@dataclass(frozen=True)
class Part:
    """One thing that is asked: its name, the right answer, typical wrong ones."""

    name: str
    value: Any
    wrong: tuple[Wrong, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What became of an answer. `mistake` is the kind of mistake, '' if none is recognised."""

    right: bool
    text: str
    mistake: str = ""

    def __bool__(self) -> bool:
        return self.right


@dataclass(frozen=True)
class Exercise:
    """A problem with its question and its hints.

    kind, level, seed  what `exercise` was asked for; the same three make the same exercise
    question           the problem as text
    hints              three, from where to begin to the last step but one
    parts              what is asked, with the right answers; they are `.answer`
    """

    kind: str
    level: int
    seed: int
    question: str
    hints: tuple[str, str, str]
    parts: tuple[Part, ...]
    told: Callable[[int], str]
    judged: Callable[[str], Answer] | None = None
    problem: Problem | None = None

    @property
    def answer(self) -> Any:
        """The right answer: a number, an array, a word, or a tuple where several are asked."""
        values = tuple(part.value.item() if np.ndim(part.value) == 0 and not isinstance(
            part.value, str) else part.value for part in self.parts)
        return values[0] if len(values) == 1 else values

    def check(self, answer: Any) -> Answer:
        """Is the answer right? Numbers as numbers, arrays, lists or text, to 0.5 %.

        >>> one = cr.explain.exercise("step", level=1, seed=3)
        >>> one.check(one.answer).right
        True
        """
        if self.judged is not None:
            return self.judged(str(answer))
        if isinstance(self.parts[0].value, str):
            return self.check_word(str(answer))
        given = numbers_in(answer, sum(np.size(part.value) for part in self.parts))
        if isinstance(given, Answer):
            return given
        found = []
        for part in self.parts:
            size = np.size(part.value)
            found.append(check_part(part, np.reshape(given[:size], np.shape(part.value))))
            given = given[size:]
        first = next((one for one in found if not one.right), None)
        if first is None:
            return Answer(True, "Right.")
        if len(found) == 1:
            return first
        right = [p.name for p, one in zip(self.parts, found, strict=True) if one.right]
        lead = f"{', '.join(right)}: right. " if right else ""
        return Answer(False, lead + first.text, first.mistake)

    def check_word(self, given: str) -> Answer:
        part = self.parts[0]
        word = given.strip().lower().rstrip(".")
        stem = str(part.value)
        if len(word) >= 3 and (stem.startswith(word) or word.startswith(stem[:6])):
            return Answer(True, "Right.")
        named = next((w for w in part.wrong if len(word) >= 3 and (
            str(w.value).startswith(word) or word.startswith(str(w.value)[:6]))), None)
        if named is not None:
            return Answer(False, named.sentence, named.kind)
        words = ", ".join(sorted({stem, *(str(w.value) for w in part.wrong)}))
        return Answer(False, f"Answer with one of these words: {words}.")

    def solution(self, width: int = 90) -> str:
        """The whole derivation, as explain tells it."""
        return self.told(width)

    def __str__(self) -> str:
        return self.question

    __repr__ = __str__


def check_part(part: Part, given: Any) -> Answer:
    if near(given, part.value):
        return Answer(True, "Right.")
    for one in part.wrong:
        if near(given, one.value):
            return Answer(False, f"Not right: {shown(given)} for {part.name}. It is what this "
                          f"slip gives: {one.sentence}", one.kind)
    return Answer(False, f"Not right: {shown(given)} for {part.name}, and no usual slip gives it.")


def shown(value: Any) -> str:
    return STYLE.array(np.asarray(value))


def numbers_in(answer: Any, count: int) -> Any:
    """The numbers of an answer, in row-major order; an Answer if they cannot be read."""
    if isinstance(answer, str):
        text = answer.replace("−", "-").replace("⁄", "/")
        if count == 1 and re.fullmatch(r"\s*[-+]?\d+,\d+\s*", text):
            text = text.replace(",", ".")           # a decimal comma
        left = re.sub(NUMBER, "", text)
        if re.search(r"[^\s,;:\[\]()=a-zA-Z_∂/']", left) or not re.search(r"\d", text):
            return Answer(False, f"{answer!r} is not a number. Write it as 0.5, 1/2 or -3"
                          + (f"; {count} numbers with spaces between them." if count > 1 else "."))
        found = [float(Fraction(one.split("/")[0]) / Fraction(one.split("/")[1])) if "/" in one
                 and Fraction(one.split("/")[1]) else float(one.split("/")[0])
                 for one in re.findall(NUMBER, text.split("=")[-1])]
    else:
        listed = answer if isinstance(answer, (tuple, list)) else [answer]
        try:
            found = [float(v) for one in listed for v in np.ravel(np.asarray(one))]
        except (TypeError, ValueError):
            return Answer(False, f"{answer!r:.60} is not a number.")
    if len(found) != count:
        return Answer(False, f"{len(found)} number{'s' if len(found) != 1 else ''} given, "
                      f"{count} asked for.")
    return np.array(found)


def labels(count: int) -> str:
    return "abcdefghijklmnop"[:count]


def letters_in(text: str, count: int) -> str | Answer:
    """The letters of an answer such as `b, a c`."""
    found = "".join(re.findall(r"[a-p]", text.lower()))
    if sorted(found) != sorted(labels(count)):
        return Answer(False, f"Answer with the letters {', '.join(labels(count))}, each once.")
    return found


def one_of(name: str, value: Any, known: Sequence[Any], what: str) -> None:
    if value not in known:
        raise SettingError(f"exercise({name}={value!r}): {what} {', '.join(map(str, known))}")
