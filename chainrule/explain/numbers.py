"""How numbers are written: rounded so that one sees it, arrays in full while they are small."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from chainrule.core.types import ArrayType, type_of

CLOSE = 4            # so many units in the last place are no difference: 0.30000000000000004 is 0.3


class Style(NamedTuple):
    """`precision`: significant digits, None for all. `elements`: arrays up to this are written out.

    `by_hand`: every result is rounded to so many significant digits before it is used again, as
    in a calculation on paper; None for the machine's own numbers.
    `shapes`: arrays are written as their shape, (64,10), however small they are.
    """

    precision: int | None = 4
    elements: int = 6
    by_hand: int | None = None
    shapes: bool = False

    def number(self, value: Any) -> str:
        """One number. A rounded one keeps its zeros: 0.2100 was rounded, 0.21 is exact.

        >>> Style().number(0.21), Style().number(0.2100001), Style(None).number(0.1 + 0.2)
        ('0.21', '0.2100', '0.30000000000000004')
        """
        if isinstance(value, (bool, np.bool_)):
            return "1" if value else "0"
        if isinstance(value, (int, np.integer)):
            return str(value).replace("-", "−")
        return _real(value, self.precision).replace("-", "−")

    def array(self, value: Any) -> str:
        """An array as nested lists, or as its type if it has too many elements.

        >>> Style().array(np.array([1.0, -0.5])), Style().array(np.zeros((3, 4)))
        ('[1, −0.5]', 'f64[3,4]')
        """
        if not hasattr(value, "shape"):
            return self.number(value)
        if self.shapes:
            return shape_text(value.shape)
        if value.size > self.elements:
            return self.type(type_of(value))
        if value.ndim == 0:
            return self.number(value[()])
        return f"[{', '.join(self.array(part) for part in value)}]"

    def type(self, kind: ArrayType) -> str:
        """What stands for numbers that are not written: f32[64,10], or the shape alone."""
        return shape_text(kind.shape) if self.shapes else str(kind)


def shape_text(shape: tuple[int, ...]) -> str:
    """(64,10), (10,) and (): shapes as NumPy writes them, but without spaces."""
    return f"({','.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _real(value: Any, precision: int | None) -> str:
    number = float(value)
    if number != number:
        return "nan"
    if abs(number) == np.inf:
        return "∞" if number > 0 else "-∞"
    if number == int(number) and abs(number) < 1e6:
        return str(int(number))
    if precision is None:
        return _exponent(str(value if isinstance(value, np.floating) else number))
    short = f"{number:.{precision}g}"
    kind = type(value) if isinstance(value, np.floating) else np.float64
    if abs(float(short) - number) <= CLOSE * float(np.finfo(kind).eps) * abs(number):
        return _exponent(short)
    kept, _, power = f"{number:#.{precision}g}".partition("e")
    kept = kept.rstrip(".")
    return _exponent(f"{kept}e{power}") if power else kept


def _exponent(text: str) -> str:
    """1e-05 as 1e-5."""
    mantissa, letter, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if letter else text


def rounded(value: Any, digits: int) -> Any:
    """Every element rounded to so many significant digits."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        return array
    flat = [float(f"{float(v):.{digits}g}") for v in array.ravel()]
    return np.array(flat, array.dtype).reshape(array.shape)


def strength_of(text: str) -> int:
    """A negative number binds as a product, so that it gets brackets inside a power."""
    return 2 if text.startswith("−") else 9
