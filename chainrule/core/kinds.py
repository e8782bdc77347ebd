"""The kinds of rows: from the one rule written by hand, each derives the others.

elementwise   the pull of each input: its cotangent from g. The Jacobian is diagonal, so the same
              function carries a tangent forward. `partials` may give dy/dx instead.
linear        the transpose; forward mode is the row itself.
bilinear      its two slots; forward mode is the row itself, once for each input.
composite     a definition in terms of other rows; a faster evaluation and pulls may be added.
general       all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .bind import bind
from .config import settings
from .errors import DtypeError, ShapeError
from .primitive import TABLE, Primitive, Rule, Sample, Variadic, register
from .record import placeholder
from .types import ArrayType, bool_

Samples = Callable[[Any], list[Sample]]


def total(terms: Any) -> Any:
    """The sum of the terms that are not None; None if there is none."""
    present = [t for t in terms if t is not None]
    if not present:
        return None
    result = present[0]
    for term in present[1:]:
        result = result + term
    return result


def draws(arity: int, low: float, high: float,
          params: tuple[dict[str, Any], ...] = ({},)) -> Samples:
    """Samples for elementwise rows: a scalar, a vector and a matrix from an interval."""
    def samples(rng: Any) -> list[Sample]:
        return [(tuple(rng.uniform(low, high, shape) for _ in range(arity)), dict(chosen))
                for shape in ((), (3,), (2, 3)) for chosen in params]
    return samples


# ---------------------------------------------------------------- batching


def front(x: Any, axis: int | None, size: int) -> Any:
    """`x` with its batch axis first; an operand without one is repeated."""
    if axis is None:
        return bind(TABLE["broadcast"], x, shape=(size, *x.shape))
    return moved(x, axis)


def moved(x: Any, axis: int) -> Any:
    """`x` with axis `axis` moved to the front."""
    if axis == 0:
        return x
    return bind(TABLE["permute"], x, order=(axis, *[i for i in range(len(x.shape)) if i != axis]))


def batch_size(xs: Sequence[Any], axes: Sequence[int | None]) -> int:
    return next(int(x.shape[a]) for x, a in zip(xs, axes, strict=True) if a is not None)


def fronted(xs: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """All operands with a batch axis in front."""
    size = batch_size(xs, axes)
    return [front(x, a, size) for x, a in zip(xs, axes, strict=True)]


def aligned(xs: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """Operands that broadcast: batch axis in front, then room so that the other axes line up."""
    rank = max(len(x.shape) - (a is not None) for x, a in zip(xs, axes, strict=True)
               if hasattr(x, "shape"))
    result = []
    for x, axis in zip(xs, axes, strict=True):
        if axis is not None:
            x = moved(x, axis)
            missing = rank - (len(x.shape) - 1)
            if missing:
                x = bind(TABLE["reshape"], x,
                         shape=(x.shape[0], *[1] * missing, *x.shape[1:]))
        result.append(x)
    return result


# ---------------------------------------------------------------- elementwise


def elementwise(name: str, *, eval: Callable[..., Any], partials: Any = None, pulls: Any = None,
                arity: int = 0, domain: tuple[float, float] = (-2.0, 2.0),
                samples: Samples | None = None, result: str = "same", promote: str = "same",
                promoted: tuple[int, ...] | None = None, options: dict[str, Any] | None = None,
                arguments: tuple[str, ...] | None = None, at: dict[Any, Any] | None = None,
                show: Any = None, public: str = "", kinks: Any = None, selects: bool = False,
                fast_pulls: tuple[Rule | None, ...] = (),
                check: Callable[..., None] | None = None, lower: Rule | None = None,
                doc: str) -> Primitive:
    """A row that acts on each element alone.

    Give `partials`, the derivatives dy/dx as functions of (y, *xs) or as numbers, or `pulls`, the
    cotangents as functions of (g, y, *xs). None stands for an input without a derivative.
    """
    if pulls is None:
        given = partials if isinstance(partials, tuple) else (partials,) * max(arity, 1)
        rules = tuple(pull_from_partial(d) for d in given)
    else:
        rules = pulls if isinstance(pulls, tuple) else (pulls,)
    count = arity or len(rules)
    chosen = promoted if promoted is not None else tuple(range(count))

    def infer(*types: ArrayType | None, **params: Any) -> ArrayType:
        given = [t for t in types if t is not None]
        shape = given[0].shape
        if any(t.shape != shape for t in given):
            raise ShapeError(f"{name}: shapes must be equal, got {', '.join(map(str, given))}")
        operands = [types[i] for i in chosen]
        dtypes = {t.dtype for t in operands if t is not None}
        if len(dtypes) > 1:
            raise DtypeError(f"{name}: dtypes must be equal, got {', '.join(map(str, given))}")
        dtype = dtypes.pop() if dtypes else given[0].dtype
        if result == "bool":
            dtype = bool_
        elif promote == "float" and dtype.kind != "f":
            dtype = settings.default_dtype
        return ArrayType(shape, dtype)

    def jvp(ts: Sequence[Any], y: Any, *xs: Any, **params: Any) -> Any:
        return total(rule(t, y, *xs, **params) for t, rule in zip(ts, rules, strict=True)
                     if t is not None and rule is not None)

    def batch(xs: Sequence[Any], axes: Sequence[int | None], **params: Any) -> Any:
        return bind(TABLE[name], *aligned(xs, axes), **params), 0

    return register(Primitive(
        name, "elementwise", eval, infer, rules, jvp, batch,
        samples or draws(count, *domain, params=(options or {},)), show, at or {}, False,
        promote, promoted, options or {}, arguments or argument_names(count), public or name, None,
        kinks, selects, fast_pulls, doc, check, lower))


def argument_names(count: int) -> tuple[str, ...]:
    return ("input", "other", "third")[:count]


def pull_from_partial(partial: Any) -> Rule | None:
    """g times the partial derivative; the factors 1 and -1 cost nothing."""
    if partial is None:
        return None
    if callable(partial):
        return lambda g, y, *xs, **params: g * partial(y, *xs, **params)
    if partial == 1:
        return lambda g, y, *xs, **params: g
    if partial == -1:
        return lambda g, y, *xs, **params: -g
    if partial == 0:
        return lambda g, y, *xs, **params: bind(TABLE["zeros_like"], g)
    return lambda g, y, *xs, **params: g * partial


# ---------------------------------------------------------------- linear and bilinear


def linear(name: str, *, eval: Callable[..., Any], infer: Callable[..., ArrayType],
           transpose: Rule, batch: Rule, samples: Samples, view: bool = False,
           variadic: bool = False, show: Any = None, public: str = "", lower: Rule | None = None,
           doc: str) -> Primitive:
    """A row that is linear in its input (in all of them together, if variadic).

    `transpose(g, x, **params)` is the cotangent of x; of a variadic row
    `transpose(i, g, *xs, **params)` is that of input i.
    """
    pulls: Any
    if variadic:
        pulls = Variadic(lambda i, g, y, *xs, **params: transpose(i, g, *xs, **params))
    else:
        pulls = (lambda g, y, x, **params: transpose(g, x, **params),)

    def jvp(ts: Sequence[Any], y: Any, *xs: Any, **params: Any) -> Any:
        filled = [bind(TABLE["zeros_like"], x) if t is None else t
                  for t, x in zip(ts, xs, strict=True)]
        return bind(TABLE[name], *filled, **params)

    return register(Primitive(name, "linear", eval, infer, pulls, jvp, batch, samples, show,
                              {}, view, "", None, {}, ("input",), public, None, None, False, (),
                              doc, None, lower))


def bilinear(name: str, *, eval: Callable[..., Any], infer: Callable[..., ArrayType],
             slots: tuple[Rule, Rule], batch: Rule, samples: Samples, show: Any = None,
             public: str = "", lower: Rule | None = None, doc: str) -> Primitive:
    """A row linear in each of two inputs; `slots[i](g, a, b)` is the cotangent of input i."""
    def pull(slot: Rule) -> Rule:
        return lambda g, y, a, b, **params: slot(g, a, b, **params)

    def jvp(ts: Sequence[Any], y: Any, a: Any, b: Any, **params: Any) -> Any:
        return total([None if ts[0] is None else bind(TABLE[name], ts[0], b, **params),
                      None if ts[1] is None else bind(TABLE[name], a, ts[1], **params)])

    return register(Primitive(name, "bilinear", eval, infer, tuple(map(pull, slots)), jvp, batch,
                              samples, show, {}, False, "", None, {}, ("input", "other"), public,
                              None, None, False, (), doc, None, lower))


# ---------------------------------------------------------------- composite and general


def composite(name: str, *, definition: Rule, samples: Samples,
              eval: Callable[..., Any] | None = None, pulls: Any = (),
              infer: Callable[..., ArrayType] | None = None,
              options: dict[str, Any] | None = None, arguments: tuple[str, ...] = ("input",),
              promote: str = "", show: Any = None, at: dict[Any, Any] | None = None,
              public: str = "", kinks: Any = None, fast_pulls: tuple[Rule | None, ...] = (),
              lower: Rule | None = None, doc: str) -> Primitive:
    """A function made of other rows; `definition` is its meaning, its tangent and its batching.

    With `pulls` it is one node on the tape, evaluated by `eval`; without, its parts are recorded.
    """
    def derived_infer(*types: ArrayType | None, **params: Any) -> ArrayType:
        y = definition(*[None if t is None else placeholder(t) for t in types], **params)
        return ArrayType(tuple(y.shape), y.dtype)

    return register(Primitive(
        name, "composite", eval or definition, infer or derived_infer, pulls, None, None, samples,
        show, at or {}, False, promote, None, options or {}, arguments, public or name, definition,
        kinks, False, fast_pulls, doc, None, lower))


def general(name: str, *, eval: Callable[..., Any], infer: Callable[..., ArrayType], pulls: Any,
            jvp: Rule | None, batch: Rule, samples: Samples, view: bool = False,
            promote: str = "", show: Any = None, arguments: tuple[str, ...] = ("input",),
            options: dict[str, Any] | None = None, public: str = "", kinks: Any = None,
            at: dict[Any, Any] | None = None, lower: Rule | None = None,
            doc: str) -> Primitive:
    """A row whose rules are all written by hand."""
    return register(Primitive(name, "general", eval, infer, pulls, jvp, batch, samples, show,
                              at or {}, view, promote, None, options or {}, arguments, public, None,
                              kinks, False, (), doc, None, lower))
