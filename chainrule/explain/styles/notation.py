"""Reads explain's own notation back into a tree, so that other styles can set it differently.

The rows write formulas as one line of text (`chainrule/prims/show.py`). What they write is regular
enough to be read: names are known, everything else is a number, an array, an operator or a
function. What cannot be read is kept as it is, as one piece of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻·", "0123456789-.", strict=True))
SUMS = ("+", "−", "&", "|", "and", "or")
PRODUCTS = ("·", "⊙", "@", "//", "mod", "*", "%")
COMPARED = ("=", "≠", "<", ">", "≤", "≥")
PREFIXES = ("−", "Σ", "Π", "~", "not", "√", "≥", "≤")

# A letter or digit that continues a name; ² and ᵀ count as letters in Unicode and end one here.
WORD = r"(?:(?![ᵀ⁰¹²³⁴⁵⁶⁷⁸⁹⁻])\w)"
TOKENS = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<type>(?:f16|f32|f64|u8|i32|i64|bool)\[[\d,]*\])"
    r"|(?P<number>\d+(?:\.\d*)?(?:e[-−]?\d+)?|∞|nan\b|…)"
    r"|(?P<raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
    rf"|(?P<word>(?!\d){WORD}+(?:\.(?!\d){WORD}+)*)"
    r"|(?P<sign>//|\*\*|[-+−·⊙/@~√ΣΠ=≠<>≤≥&|⌊⌋⌈⌉()\[\]{},:^ᵀ×*%'\"])")


class Term(NamedTuple):
    """A piece of a formula. `kind` says how its parts are set:

    name, number, type, text   one piece of text (`text`)
    list                       [a, b]
    call                       text(a, b)
    join                       a op b op c; `text` holds the operators, one a line
    ratio                      a over b
    prefix                     text a
    power                      a with b raised; transposed: a with ᵀ
    index, placed, as          a[key], a at [key], a as 4×3; `text` is what follows
    group, bars, floor, ceil   brackets around a
    indicator                  [a < b], `parts` a join
    row                        parts side by side
    """

    kind: str
    text: str = ""
    parts: tuple[Term, ...] = ()


class NotNotation(ValueError):
    """The text is not of the notation."""


class Notation:
    """Reads formulas in which the given names occur."""

    def __init__(self, names: Iterable[str]) -> None:
        listed = sorted({name for name in names if name}, key=lambda name: (-len(name), name))
        # what ends in a letter or digit must not go on, nor be called: exp(x) is not e·xp(x)
        ends = rf"(?!{WORD}|\()"
        self.names = re.compile("|".join(
            re.escape(name) + (ends if re.match(WORD, name[-1]) else "") for name in listed)
            or r"(?!)")
        self.cache: dict[str, Term] = {}

    def read(self, text: str) -> Term:
        """The tree of a formula; one `text` term if it cannot be read."""
        found = self.cache.get(text)
        if found is None:
            try:
                found = _Reader(self.tokens(text)).whole()
            except NotNotation:
                found = Term("text", text)
            self.cache[text] = found
        return found

    def tokens(self, text: str) -> list[tuple[str, str, bool]]:
        """(kind, text, was there a space before) of each token."""
        result = []
        position, space = 0, False
        while position < len(text):
            name = self._name_at(text, position)
            if name:
                result.append(("name", name, space))
                position, space = position + len(name), False
                continue
            match = TOKENS.match(text, position)
            if match is None:
                raise NotNotation(text)
            kind = str(match.lastgroup)
            if kind != "space":
                result.append((kind, match[0], space))
            space = kind == "space"
            position = match.end()
        return result

    def _name_at(self, text: str, position: int) -> str:
        """The longest known name, or ∂a/∂b of two, that starts here and ends as a word may."""
        if text[position] == "∂":
            above = self._name_at(text, position + 1) if position + 1 < len(text) else ""
            middle = position + 1 + len(above)
            if not above or text[middle:middle + 2] != "/∂" or middle + 2 >= len(text):
                return ""
            below = self._name_at(text, middle + 2)
            return f"∂{above}/∂{below}" if below else ""
        match = self.names.match(text, position)
        return match[0] if match else ""


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, tokens: list[tuple[str, str, bool]]) -> None:
        self.tokens = tokens
        self.at = 0

    def whole(self) -> Term:
        term = self.loose()
        if self.at < len(self.tokens):
            raise NotNotation
        return term

    def peek(self, ahead: int = 0) -> tuple[str, str, bool]:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "", False)

    def take(self, text: str = "") -> str:
        kind, found, _ = self.peek()
        if kind == "end" or (text and found != text):
            raise NotNotation
        self.at += 1
        return found

    def loose(self) -> Term:
        """sum, then `as 4×3` or `at [1:3]`."""
        term = self.chain(SUMS, self.product)
        while self.peek()[1] in ("as", "at"):
            word = self.take()
            if word == "at":
                term = Term("placed", self.key(), (term,))
                continue
            said: list[str] = []
            while self.peek()[1] == "×" or self.peek()[0] in ("number", "word"):
                said.append((" " if said and self.peek()[2] else "") + self.take())
            term = Term("as", "".join(said), (term,))
        return term

    def chain(self, signs: tuple[str, ...], part: object) -> Term:
        assert callable(part)
        parts = [part()]
        used = []
        # ⌈|x|⌉ and |a|: a stroke with no space before it closes, it does not join
        while self.peek()[1] in signs and (self.peek()[1] != "|" or self.peek()[2]):
            used.append(self.take())
            parts.append(part())
        return parts[0] if not used else Term("join", "\n".join(used), tuple(parts))

    def product(self) -> Term:
        """Factors; a/b takes its neighbours, `a·b / c` all that stands before it."""
        parts = [self.ratio()]
        used: list[str] = []
        while True:
            _, sign, space = self.peek()
            if sign in PRODUCTS:
                used.append(self.take())
                parts.append(self.ratio())
            elif sign == "/" and space:
                self.take()
                above = parts[0] if not used else Term("join", "\n".join(used), tuple(parts))
                parts, used = [Term("ratio", "", (above, self.ratio()))], []
            else:
                return parts[0] if not used else Term("join", "\n".join(used), tuple(parts))

    def ratio(self) -> Term:
        term = self.signed()
        while self.peek()[1] == "/" and not self.peek()[2]:
            self.take()
            below = self.signed()
            if term.kind == "prefix" and term.text == "−":       # −a/b is −(a/b)
                term = Term("prefix", "−", (Term("ratio", "", (term.parts[0], below)),))
            else:
                term = Term("ratio", "", (term, below))
        return term

    def signed(self) -> Term:
        sign = self.peek()[1]
        if sign in ("Σ", "Π"):
            return Term("prefix", self.take(), (self.product(),))
        if sign in PREFIXES and self.peek()[0] != "name":
            return Term("prefix", self.take(), (self.signed(),))
        return self.raised()

    def raised(self) -> Term:
        term = self.atom()
        while True:
            kind, text, space = self.peek()
            if space or kind == "end":
                break
            if kind == "raised":
                value = "".join(RAISED[c] for c in self.take())
                term = Term("power", "", (term, Term("number", value)))
            elif text == "ᵀ":
                self.take()
                term = Term("transposed", "", (term,))
            elif text in ("^", "**"):
                self.take()
                term = Term("power", "", (term, self.signed()))
            elif text == "[":
                term = Term("index", self.key(), (term,))
            else:
                break
        after, word, space = self.peek()
        if space and term.kind == "word" and after != "end" and word not in (
                *SUMS, *PRODUCTS, *COMPARED, "/", "as", "at", ")", "]", ","):
            return Term("row", "", (Term("call", term.text), self.signed()))   # log softmax(x)
        return Term("call", term.text) if term.kind == "word" else term

    def atom(self) -> Term:
        kind, text, _ = self.peek()
        if kind == "word":
            self.take()
            if self.peek()[1] == "(" and not self.peek()[2]:
                return Term("call", text, tuple(self.items("(", ")")))
            return Term("word", text)
        if kind in ("name", "number", "type"):
            return Term(kind, self.take())
        if text == "(":
            self.take()
            inner = self.comparison()
            self.take(")")
            return Term("group", "", (inner,))
        if text == "[":
            items = self.items("[", "]")
            one = len(items) == 1 and items[0].kind == "join" and items[0].text in COMPARED
            return Term("indicator", "", tuple(items)) if one else Term("list", "", tuple(items))
        for opening, closing, name in (("|", "|", "bars"), ("⌊", "⌋", "floor"),
                                       ("⌈", "⌉", "ceil")):
            if text == opening:
                self.take()
                inner = self.loose()
                self.take(closing)
                return Term(name, "", (inner,))
        raise NotNotation

    def items(self, opening: str, closing: str) -> list[Term]:
        """What stands between brackets, separated by commas."""
        self.take(opening)
        result: list[Term] = []
        while self.peek()[1] != closing:
            if result:
                self.take(",")
            result.append(self.comparison())
        self.take(closing)
        return result

    def comparison(self) -> Term:
        left = self.loose()
        if self.peek()[1] in COMPARED:
            sign = self.take()
            return Term("join", sign, (left, self.loose()))
        return left

    def key(self) -> str:
        """What stands between [ and ], as it is."""
        self.take("[")
        depth, said = 1, ""
        while depth:
            text = self.take()
            depth += (text == "[") - (text == "]")
            if depth:
                said += f"{text} " if text == "," else text
        return said
