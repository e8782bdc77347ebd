"""`einsum`: sums of products by axis names, as batched matrix products."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

from chainrule.core.errors import ShapeError
from chainrule.core.types import type_of
from chainrule.tensor import Tensor

from .ops import matmul, stretched
from .shaping import diagonal
from .surface import public, row


@public
def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products by axis names: `einsum("ik,kj->ij", a, b)` is a @ b.

    Made of permute, reshape, broadcast, multiply and sum; pairs without repeated names inside one
    operand become matrix products.
    """
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(
        operands[0], (list, tuple)) else list(operands)
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ShapeError(f"einsum: {equation!r} names {len(terms)} operands, {len(tensors)} given")
    terms = [_dotted(t, x, equation) for t, x in zip(terms, tensors, strict=True)]
    if not arrow:
        names = "".join(terms)
        right = "".join(builtins.sorted(n for n in set(names)
                                        if names.count(n) == 1 or not n.isalpha()))
    elif "..." in right:
        dots = builtins.max((t for t in map(_upper, terms)), key=len)
        right = right.replace("...", dots)
    sizes: dict[str, int] = {}
    for term, x in zip(terms, tensors, strict=True):
        for name, n in zip(term, x.shape, strict=True):
            if sizes.get(name, n) not in (n, 1) and n != 1:
                raise ShapeError(f"einsum: axis {name!r} has {sizes[name]} and {n} elements")
            sizes[name] = n if n != 1 else sizes.get(name, n)
    unknown = set(right) - set(sizes)
    if unknown:
        raise ShapeError(f"einsum: the output names {sorted_text(unknown)}, no operand does")
    work = [_diagonal(term, x) for term, x in zip(terms, tensors, strict=True)]
    term, x = work[0]
    for i, (other_term, other) in enumerate(work[1:], 2):
        rest = right + "".join(t for t, _ in work[i:])
        term, x = _pair(term, x, other_term, other, rest, sizes)
    gone = tuple(i for i, n in enumerate(term) if n not in right)
    if gone:
        x = row("sum", x, axes=gone)
        term = "".join(n for n in term if n in right)
    return x.permute(*[term.index(n) for n in right]) if term != right else x  # type: ignore[no-any-return]


def sorted_text(names: set[str]) -> str:
    return ", ".join(builtins.sorted(names))


def _upper(term: str) -> str:
    return "".join(n for n in term if not n.isalpha())


def _dotted(term: str, x: Any, equation: str) -> str:
    """The term with ... written as one name (a digit) for each axis it stands for."""
    if "..." in term:
        count = x.ndim - (len(term) - 3)
        term = term.replace("...", "".join(chr(ord("0") + i) for i in range(9 - count, 9)))
    if len(term) != x.ndim:
        raise ShapeError(f"einsum: {term!r} in {equation!r} names {len(term)} axes, its operand "
                         f"is {type_of(x)}")
    return term


def _diagonal(term: str, x: Any) -> tuple[str, Any]:
    for name in dict.fromkeys(term):
        while term.count(name) > 1:
            first = term.index(name)
            second = term.index(name, first + 1)
            x = diagonal(x, 0, first, second)
            term = term[:first] + term[first + 1:second] + term[second + 1:] + name
    return term, x


def _pair(a_term: str, a: Any, b_term: str, b: Any, rest: str,
          sizes: dict[str, int]) -> tuple[str, Any]:
    """Two operands as one batched matrix product."""
    batch = [n for n in a_term if n in b_term and n in rest]
    inner = [n for n in a_term if n in b_term and n not in rest]
    rows_ = [n for n in a_term if n not in b_term]
    columns = [n for n in b_term if n not in a_term]
    a = _arranged(a, a_term, [*batch, *rows_, *inner], sizes)
    b = _arranged(b, b_term, [*batch, *inner, *columns], sizes)
    lead = [sizes[n] for n in batch]
    m, k, n = (math.prod(sizes[i] for i in names) for names in (rows_, inner, columns))
    product = matmul(a.reshape(*lead, m, k), b.reshape(*lead, k, n))
    shape = [*lead, *(sizes[i] for i in rows_), *(sizes[i] for i in columns)]
    return "".join([*batch, *rows_, *columns]), product.reshape(*shape)


def _arranged(x: Any, term: str, order: Sequence[str], sizes: dict[str, int]) -> Any:
    moved = x.permute(*[term.index(n) for n in order]) if list(term) != list(order) else x
    return stretched(moved, tuple(sizes[n] for n in order))
