"""How wide a text is, without a font: so that every text fits its box wherever it is shown.

The widths are upper bounds. They are the advance widths of DejaVu Sans, in hundredths of the font
size, which with Verdana is the widest of the sans serif fonts in general use; where Arial's twin
Liberation Sans is wider, its width counts. In a narrower font a text has a little more air.
"""

from __future__ import annotations

import unicodedata

# From space to ~, then what formulas are written with.
_PRINTABLE = (
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 34, 34, 84, 84, 84, 56, 102, 68, 69, 72, 77, 67, 61, 78, 75, 29, 50, 67, 56, 86, 75, 79,
    67, 79, 72, 67, 61, 73, 68, 99, 69, 67, 69, 39, 34, 39, 84, 56, 50, 61, 63, 55, 63, 62, 35, 63,
    63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59, 82, 59, 59, 52, 64, 34, 64, 84)
WIDTHS = {chr(32 + i): width for i, width in enumerate(_PRINTABLE)}
WIDTHS.update({
    "∂": 52, "·": 33, "−": 84, "ᵀ": 40, "Σ": 63, "σ": 63, "⊙": 84, "√": 64, "δ": 61, "′": 23,
    "⁻": 53, "÷": 84, "×": 84, "±": 84, "…": 100, "⋯": 100, "≥": 84, "≤": 84, "≠": 84, "≈": 84,
    "∞": 83, "µ": 64, "‖": 50, "–": 56, "—": 100, "→": 100, "←": 100,
    **dict.fromkeys("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", 40)})
LETTER, SIGN, WIDE, BOLD = 90, 104, 130, 1.22


def text_width(text: str, size: float, bold: bool = False) -> float:
    """An upper bound for the width of a line of text, in the unit of `size`."""
    total = sum(WIDTHS[c] if c in WIDTHS else _other(c) for c in text)
    return total * size / 100 * (BOLD if bold else 1)


def _other(character: str) -> float:
    """A bound for what is not in the table: Chinese and emoji are wide, accents have no width."""
    kind = unicodedata.category(character)
    if kind in ("Mn", "Me", "Cf"):
        return 0
    if unicodedata.east_asian_width(character) in "WF":
        return WIDE
    base = unicodedata.normalize("NFD", character)[0]
    if base in WIDTHS:
        return WIDTHS[base]
    return LETTER if kind[0] == "L" else SIGN


def shortened(text: str, width: float, size: float, bold: bool = False) -> str:
    """The text, or so much of it, with … at the end, as fits.

    >>> shortened("transformer", 40, 10)
    'transf…'
    """
    if text_width(text, size, bold) <= width:
        return text
    room = width - text_width("…", size, bold)
    kept = 0
    for count in range(1, len(text)):
        if text_width(text[:count], size, bold) > room:
            break
        kept = count
    return text[:kept].rstrip() + "…"


def printable(text: str) -> str:
    """The text as XML may contain it: one line, no control characters, no lone surrogates."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)
