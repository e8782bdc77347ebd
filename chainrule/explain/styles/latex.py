r"""The derivation as LaTeX: aligned equations, with partial derivatives as fractions.

The formulas are those of the text, read by `notation.py`. The document needs amsmath and amssymb
alone and compiles with pdfLaTeX, XeLaTeX and LuaLaTeX.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chainrule.explain.derive import BackwardStep, Derivation, ForwardStep, Place
from chainrule.explain.numbers import Style

from .notation import WORD, Notation, Term
from .text import summary, symbols_used

GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda",
         "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega")
GREEK_LETTERS = dict(zip("αβγδεζηθκλμνξπρστφχψω", GREEK, strict=True)) | {
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma",
    "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"}
FUNCTIONS = ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "max", "min")
SIGNS = {
    "·": r"\cdot", "⊙": r"\odot", "@": r"\,", "−": "-", "+": "+", "*": r"\cdot", "%": r"\bmod",
    "//": r"\mathbin{/\!/}", "mod": r"\bmod", "&": r"\mathbin{\&}", "|": r"\mathbin{|}",
    "and": r"\land", "or": r"\lor", "=": "=", "≠": r"\ne", "<": "<", ">": ">", "≤": r"\le",
    "≥": r"\ge",
}
PREFIXED = {"Σ": r"\sum ", "Π": r"\prod ", "−": "-", "~": r"{\sim}", "not": r"\lnot ",
            "≥": r"\ge ", "≤": r"\le "}
ESCAPES = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "#": r"\#", "$": r"\$",
           "%": r"\%", "&": r"\&", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
           "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}",
           "`": r"\textasciigrave{}"}
# Signs of the notation inside running text
IN_TEXT = {"∂": r"$\partial$", "·": r"$\cdot$", "⊙": r"$\odot$", "−": "$-$", "Σ": r"$\sum$",
           "ᵀ": r"$^\top$", "≥": r"$\ge$", "≤": r"$\le$", "≠": r"$\ne$", "×": r"$\times$",
           "∞": r"$\infty$", "σ": r"$\sigma$", "…": r"\ldots{}", "⋯": r"$\cdots$", "√": r"$\surd$",
           "²": "$^2$", "Π": r"$\prod$", "→": r"$\to$", "–": "--", "—": "---"}
WIDEST_LINE = 64          # characters of a formula, as text, that one line of the page holds
WIDEST_MATRIX = 10        # amsmath's own limit on columns

PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{amsmath,amssymb}
\usepackage[margin=22mm]{geometry}
\allowdisplaybreaks
\setlength{\parindent}{0pt}
"""


def latex(derivation: Derivation, style: Style, width: int = 100, *,
          fragment: bool = False) -> str:
    r"""The derivation as a document, or as a fragment for one that uses amsmath and amssymb."""
    page = _Page(derivation)
    body = page.body(derivation, style)
    if fragment:
        return body
    return f"{PREAMBLE}\\begin{{document}}\n{body}\\end{{document}}\n"


def formula(text: str, names: Iterable[str] = ()) -> str:
    r"""One formula of the notation in LaTeX's mathematics.

    >>> print(formula("∂L/∂a ⊙ (1 − a²)", ["L", "a"]))
    \frac{\partial L}{\partial a} \odot (1 - a^{2})
    """
    known = set(names)
    return _Setter(known).whole(Notation(known).read(text))


def formula_writer(derivation: Derivation) -> Callable[[str], str]:
    """A function that sets formulas of this derivation in LaTeX's mathematics."""
    return _Page(derivation).math


class _Page:
    """One document: the names it knows and how each piece is set."""

    def __init__(self, d: Derivation) -> None:
        names = names_in(d)
        self.notation = Notation(names)
        self.setter = _Setter(names)

    def math(self, text: str) -> str:
        return "" if not text else self.setter.whole(self.notation.read(text))

    def body(self, d: Derivation, style: Style) -> str:
        loss = self.setter.name(d.loss)
        parts = [rf"\section*{{The chain rule for ${loss}$}}"]
        if d.given:
            parts.append(r"\subsection*{Given}")
            parts.append(self.aligned([
                [self.math(one.name), [r"\text{?}"] if one.value is None else
                 self.lines(style.array(one.value))] for one in d.given]))
        parts += [r"\subsection*{Forward}", *self.steps(d.forward)]
        slope = rf"\frac{{\partial {loss}}}{{\partial x}}"
        meaning = f"${slope}$: how much ${loss}$ grows for each unit that $x$ grows."
        parts += [r"\subsection*{Backward}", meaning, *self.steps(d.backward)]
        parts += [r"\subsection*{Gradients}", self.aligned([
            [self.math(f"∂{d.loss}/∂{one.name}"), self.lines(summary(one.gradient, style))]
            for one in d.gradients])]
        parts += [plain(text) + r"\par" for text in (*symbols_used(d), *d.notes)]
        return "\n".join(part for part in parts if part) + "\n"

    def steps(self, steps: Sequence[ForwardStep | BackwardStep]) -> list[str]:
        """Steps under the user's lines, each line's in one aligned display."""
        if not steps:
            return ["Nothing was computed: this is a leaf."]
        parts: list[str] = []
        rows: list[list[Any]] = []
        place: Place | None = None
        for step in steps:
            if step.place != place:
                parts += [self.aligned(rows), heading(step.place)]
                rows, place = [], step.place
            name = self.math(step.name) + said(step)
            rows.append([name, *self.equal(sides(step), step.name + getattr(step, "path", ""))])
            rows += [[r"\text{path}", *self.equal((one.formula, one.numbers, one.result))]
                     for one in getattr(step, "products", ())]
        return [*parts, self.aligned(rows)]

    def equal(self, texts: Sequence[str], name: str = "") -> list[list[str]]:
        """Sides of an equation: on one line of the page if they fit, else each on its own."""
        terms = list(map(self.notation.read, dict.fromkeys(texts)))
        taken = length(self.notation.read(name)) if name else 4
        if taken + sum(map(length, terms)) + 3 * len(terms) <= WIDEST_LINE:
            return [[" = ".join(map(self.setter.whole, terms))]]
        return list(map(self.lines, dict.fromkeys(texts)))

    def lines(self, text: str) -> list[str]:
        """A side of an equation, cut between its terms where it is too long for the page."""
        term = self.notation.read(text)
        if length(term) <= WIDEST_LINE or term.kind not in ("join", "ratio"):
            return [self.setter.whole(term)]
        if term.kind == "ratio" and term.parts[0].kind in ("join", "group"):
            above, below = term.parts
            inner = above.parts[0] if above.kind == "group" else above
            lines = self.cut(inner)
            return [rf"\Bigl({lines[0]}", *lines[1:-1],
                    rf"{lines[-1]}\Bigr) / {self.setter.tight(below)}"] if len(lines) > 1 else [
                    self.setter.whole(term)]
        return self.cut(term)

    def cut(self, term: Term) -> list[str]:
        if term.kind != "join":
            return [self.setter.whole(term)]
        lines, line, room = [], "", WIDEST_LINE
        signs = ["", *[SIGNS[s] for s in term.text.split("\n")]]
        for sign, part in zip(signs, term.parts, strict=True):
            piece = self.setter.one(part)
            size = length(part) + 3
            if line and size > room:
                lines.append(line)
                line, room = "", WIDEST_LINE - 4
            line = f"{line} {sign} {piece}".strip()
            room -= size
        return [*lines, line]

    def aligned(self, rows: Sequence[Sequence[Any]]) -> str:
        r"""Rows of name and sides in an align*: `name &= side \\ &= side`."""
        lines = []
        for name, *all_sides in rows:
            for i, side in enumerate(all_sides):

                first, *more = side
                lines.append(f"{name if i == 0 else ''} &= {first}")
                lines += [rf"&\qquad {part}" for part in more]
        if not lines:
            return ""
        joined = " \\\\\n  ".join(line.strip() for line in lines)
        return f"\\begin{{align*}}\n  {joined}\n\\end{{align*}}"


def names_in(d: Derivation) -> set[str]:
    """Everything in a derivation's formulas that is a name."""
    return {d.loss, *(one.name for one in d.given), *(step.name for step in d.forward),
            *(one.name for one in d.gradients), *(step.of for step in d.backward)}


def sides(step: ForwardStep | BackwardStep) -> list[str]:
    """Formula, numbers and result; a side that repeats the one before it is left out."""
    if isinstance(step, BackwardStep) and not step.number and not step.terms:
        return [step.result]
    found = [] if getattr(step, "terms", ()) else [step.formula]
    for side in (step.numbers, step.result):
        if not found or side != found[-1]:
            found.append(side)
    return found


def said(step: ForwardStep | BackwardStep) -> str:
    """Which path a gradient came by, beside its name."""
    path = getattr(step, "path", "")
    return rf"\ \text{{({plain(path)})}}" if path else ""


def heading(place: Place) -> str:
    where = f"{os.path.basename(place.file)}:{place.line}" if place.file else "unknown line"
    module = f" in {place.module}" if place.module else ""
    text = place.source if len(place.source) <= WIDEST_LINE - len(where + module) else (
        f"{place.source[:max(WIDEST_LINE - len(where + module), 20)]}…")
    source = rf"\quad\texttt{{{plain(text)}}}" if text else ""
    return rf"\par\medskip\textbf{{{plain(where + module)}}}{source}\nopagebreak"


def plain(text: str) -> str:
    """Running text, with what TeX would read as a command escaped."""
    return "".join(IN_TEXT.get(c) or ESCAPES.get(c) or (c if c.isascii() else letter(c))
                   for c in text)


def letter(c: str) -> str:
    """A letter outside ASCII: accents as commands, Greek as mathematics, others by their code."""
    if c in GREEK_LETTERS:
        return rf"$\{GREEK_LETTERS[c]}$"
    if c in "₀₁₂₃₄₅₆₇₈₉":
        return f"$_{'₀₁₂₃₄₅₆₇₈₉'.index(c)}$"
    base = unicodedata.normalize("NFKD", c)
    if base[0].isascii() and base[0].isalnum():
        return base[0]
    return f"[U+{ord(c):04X}]"


def length(term: Term) -> int:
    """About how many characters a term takes when it is set."""
    own = len(term.text) if term.kind != "join" else 3 * len(term.parts)
    inner = [length(part) for part in term.parts]
    matrix = term.kind == "list" and term.parts and all(
        row.kind == "list" and not any(cell.kind == "list" for cell in row.parts)
        for row in term.parts)
    if matrix:
        return max(inner) + 1                          # rows stand one below the other
    if term.kind == "ratio":
        return max(inner) + 1
    if term.kind == "name" and term.text.startswith("∂"):
        return (own + 1) // 2
    return own + sum(inner) + 2 * len(inner)


class _Setter:
    """Sets terms in LaTeX's mathematics."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)

    def whole(self, term: Term) -> str:
        return self.one(term)

    def tight(self, term: Term) -> str:
        """A term that stands for one thing: set in brackets if it is made of several."""
        text = self.one(term)
        return f"({text})" if term.kind in ("join", "prefix", "as", "placed") else text

    def one(self, term: Term) -> str:
        kind, text, parts = term
        if kind == "name":
            return self.name(text)
        if kind in ("number", "type", "text"):
            return self.atom(kind, text)
        if kind == "call":
            return self.call(text, parts)
        if kind == "list":
            return self.array(term)
        if kind == "join":
            signs = ["", *[SIGNS[s] for s in text.split("\n")]]
            return " ".join(f"{sign} {self.one(part)}".strip()
                            for sign, part in zip(signs, parts, strict=True))
        if kind == "prefix":
            (inner,) = parts
            if text == "√":
                bare = inner.parts[0] if inner.kind == "group" else inner
                return rf"\sqrt{{{self.one(bare)}}}"
            return f"{PREFIXED[text]}{self.one(inner)}"
        return self.structure(kind, text, [self.one(part) for part in parts], parts)

    def structure(self, kind: str, text: str, said: list[str], parts: tuple[Term, ...]) -> str:
        first = said[0] if said else ""
        if kind == "ratio":
            above, below = (self.one(p.parts[0]) if p.kind == "group" else self.one(p)
                            for p in parts)
            if parts[0].kind == "name" and r"\frac" in above:
                return f"{above} / {self.tight(parts[1])}"
            return rf"\frac{{{above}}}{{{below}}}"
        if kind == "power":
            raised = parts[1].parts[0] if parts[1].kind == "group" else parts[1]
            return f"{self.base(parts[0])}^{{{self.one(raised)}}}"
        if kind == "transposed":
            return rf"{self.base(parts[0])}^\top"
        if kind == "index":
            return rf"{first}[\mathtt{{{plain_key(text)}}}]"
        if kind == "placed":
            return rf"{self.tight(parts[0])}\ \text{{at}}\ [\mathtt{{{plain_key(text)}}}]"
        if kind == "as":
            sizes = text.replace("×", r" \times ") if "×" in text else rf"\text{{{text}}}"
            return rf"{first}\ \text{{as}}\ {sizes}"
        if kind == "group":
            tall = r"\frac" in first or "matrix" in first
            return rf"\left({first}\right)" if tall else f"({first})"
        if kind == "indicator":
            return f"[{first}]"
        if kind == "row":
            return r"\,".join(said)
        left, right = {"bars": (r"\left|", r"\right|"),
                       "floor": (r"\left\lfloor ", r"\right\rfloor"),
                       "ceil": (r"\left\lceil ", r"\right\rceil")}[kind]
        return f"{left}{first}{right}"

    def base(self, term: Term) -> str:
        """What a power stands on: a name that has a power or fraction of its own is bracketed."""
        text = self.one(term)
        if term.kind == "group" and term.parts[0].kind == "name" and text.startswith(r"\left("):
            return text
        if term.kind in ("power", "transposed", "prefix", "ratio", "join") or (
                term.kind == "name" and r"\frac" in text):
            return rf"\left({text}\right)"
        return f"{{{text}}}" if "^" in text else text

    def call(self, name: str, parts: tuple[Term, ...]) -> str:
        if name == "σ":
            said = r"\sigma"
        elif name in FUNCTIONS:
            said = rf"\{name}"
        else:
            said = rf"\operatorname{{{operator(name)}}}"
        if not parts:
            return said
        inner = r",\ ".join(self.one(part) for part in parts)
        tall = r"\frac" in inner or "matrix" in inner
        return rf"{said}\left({inner}\right)" if tall else f"{said}({inner})"

    def array(self, term: Term) -> str:
        """A vector or a matrix; anything else as a list."""
        rows = [part.parts if part.kind == "list" else None for part in term.parts]
        flat = not any(part.kind == "list" for part in term.parts)
        if term.parts and flat:
            cells = [self.one(part) for part in term.parts]
            if len(cells) > WIDEST_MATRIX:
                return rf"[{', '.join(cells)}]"
            return rf"\begin{{bmatrix}} {' & '.join(cells)} \end{{bmatrix}}"
        widths = {len(row) for row in rows if row is not None}
        deep = any(cell.kind == "list" for row in rows if row is not None for cell in row)
        if None not in rows and len(widths) == 1 and not deep and 0 < max(widths) <= WIDEST_MATRIX:
            lines = r" \\ ".join(" & ".join(self.one(cell) for cell in row)
                                 for row in rows if row is not None)
            return rf"\begin{{bmatrix}} {lines} \end{{bmatrix}}"
        return rf"\left[{', '.join(self.one(part) for part in term.parts)}\right]"

    def atom(self, kind: str, text: str) -> str:
        if kind == "number":
            if text == "∞":
                return r"\infty"
            if text in ("nan", "…"):
                return r"\mathrm{nan}" if text == "nan" else r"\ldots"
            mantissa, letter_, power = text.partition("e")
            power = power.replace("−", "-")
            return rf"{mantissa} \cdot 10^{{{power}}}" if letter_ else mantissa
        if kind == "type":
            return rf"\mathrm{{{text.replace('[', '}[')}"
        return rf"\text{{{plain(text)}}}"

    def name(self, text: str) -> str:
        """A name of the user; ∂a/∂b is a fraction of two."""
        if text.startswith("∂") and "/∂" in text:
            above, below = self.halves(text)
            return rf"\frac{{\partial {self.name(above)}}}{{\partial {self.name(below)}}}"
        if text.endswith("ᵀ"):
            return rf"{self.name(text[:-1])}^\top"
        match = re.fullmatch(rf"((?:(?!\d|[₀-₉]|_\d){WORD})+?)_?(\d+|[₀-₉]+)?([₀-₉]+)?", text)
        if match is None:
            return rf"\text{{{plain(text)}}}"
        word, digits, more = match.groups()
        index = "".join(c if c.isascii() else str("₀₁₂₃₄₅₆₇₈₉".index(c)) for c in digits or "")
        if more:
            again = "".join(str("₀₁₂₃₄₅₆₇₈₉".index(c)) for c in more)
            index = f"{index},{again}" if index else again
        said = self.letters(word)
        return f"{said}_{{{index}}}" if index else said

    def halves(self, text: str) -> tuple[str, str]:
        """a and b of ∂a/∂b; a name may hold a stroke itself, so known names decide."""
        cuts = [m.start() for m in re.finditer("/∂", text)]
        for cut in cuts:
            if text[1:cut] in self.names and text[cut + 2:] in self.names:
                return text[1:cut], text[cut + 2:]
        return text[1:cuts[0]], text[cuts[0] + 2:]

    def letters(self, word: str) -> str:
        if word in GREEK:
            return rf"\{word}"
        if word in GREEK_LETTERS:
            return rf"\{GREEK_LETTERS[word]}"
        base = unicodedata.normalize("NFD", word)
        if len(base) == 2 and base[1] == "\u0302":
            return rf"\hat{{{base[0]}}}"
        if len(word) == 1 and word.isascii():
            return word
        return rf"\mathrm{{{operator(word)}}}" if word.isascii() else rf"\text{{{plain(word)}}}"


def operator(name: str) -> str:
    """A name inside \\mathrm: its underscores escaped, nothing else of TeX's in it."""
    return "".join(c if c.isascii() and (c.isalnum() or c == ".") else r"\_" if c == "_" else
                   plain(c) if not c.isascii() else "" for c in name)


def plain_key(key: str) -> str:
    """The key of an index inside \\mathtt."""
    return "".join({":": "{:}", " ": r"\,", "_": r"\_", "−": "-", "^": r"\hat{\ }", "\\": "",
                    "{": r"\{", "}": r"\}", "#": r"\#", "$": r"\$", "%": r"\%", "&": r"\&",
                    "~": r"{\sim}", "'": r"\text{'}"}.get(c) or (c if c.isascii() else
                                                                 rf"\text{{{letter(c)}}}")
                   for c in key)
