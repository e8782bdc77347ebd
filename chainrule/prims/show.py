"""How rows are written by explain: text with a binding strength, so brackets stand where needed.

Strengths: 1 sum, 2 product, 3 sign, 4 power and transpose, 9 atom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shown = tuple[str, int]
PRODUCTS = (" @ ", "·", " ⊙ ", "/")
SUPERSCRIPT = str.maketrans("0123456789-.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·")


def bracket(*shown: Any) -> str:
    """(text, its strength, the strength wanted): the text, in brackets if it binds less."""
    text, strength, wanted = shown
    return str(text) if strength >= wanted else f"({text})"


def infix(symbol: str, strength: int, associative: bool = True) -> Callable[..., Shown]:
    """a symbol b; the right operand of − and / needs brackets at the same strength."""
    def show(a: Shown, b: Shown, **_: Any) -> Shown:
        right = strength if associative else strength + 1
        left_text = bracket(*factor(a, symbol), strength)
        right_text = bracket(*factor(b, symbol), right)
        if right_text.startswith("−"):
            right_text = f"({right_text})"
        return f"{left_text}{symbol}{right_text}", strength
    return show


def factor(a: Shown, symbol: str) -> Shown:
    """A matrix product inside another product, or the other way round, is to be bracketed."""
    text, strength = a
    if strength != 2 or symbol not in PRODUCTS:
        return a
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if not depth and (text.startswith(" @ ", i) if symbol != " @ " else c in "·⊙"):
            return text, 1
    return a


def prefix(symbol: str) -> Callable[..., Shown]:
    def show(a: Shown, **_: Any) -> Shown:
        return f"{symbol}{bracket(*a, 3)}", 2
    return show


def function(name: str) -> Callable[..., Shown]:
    def show(*xs: Shown, **_: Any) -> Shown:
        return f"{name}({', '.join(x[0] for x in xs)})", 9
    return show


def indicator(symbol: str) -> Callable[..., Shown]:
    """[a > b], one where it holds and zero elsewhere."""
    def show(a: Shown, b: Shown, **_: Any) -> Shown:
        return f"[{a[0]} {symbol} {b[0]}]", 9
    return show


def power(a: Shown, b: Shown, **_: Any) -> Shown:
    if b[0].lstrip("-−").isdigit():
        return f"{bracket(*a, 9)}{b[0].replace('−', '-').translate(SUPERSCRIPT)}", 4
    return f"{bracket(*a, 9)}^{bracket(*b, 9)}", 4


def quotient(a: Shown, b: Shown, **_: Any) -> Shown:
    """a/b, with room around the stroke where a is a quotient too."""
    left, right = bracket(*factor(a, "/"), 2), bracket(*b, 3)
    if right.startswith("−"):
        right = f"({right})"
    return f"{left} / {right}" if "/" in left else f"{left}/{right}", 2


def limits(a: Shown, min: Any, max: Any) -> Shown:
    """clamp with the limits it has."""
    given = "".join(f", {sign} {str(limit).removesuffix('.0').replace('-', '−')}"
                    for sign, limit in (("≥", min), ("≤", max)) if limit is not None)
    return f"clamp({a[0]}{given})", 9


def same(a: Shown, **_: Any) -> Shown:
    """Operations that change the arrangement and not the numbers are not written."""
    return a
