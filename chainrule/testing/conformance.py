"""The test every row of the table must pass: each rule compared with what it has to agree with.

`check(row)` runs all of `CHECKS` on a row's own samples and raises `RuleError` naming the check
that failed. A new row is tested by this file as it stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chainrule import autograd
from chainrule.autodiff.batch import batch_definition
from chainrule.autodiff.forward import composite_tangent
from chainrule.core.bind import bind
from chainrule.core.config import settings
from chainrule.core.errors import BatchingError, RuleError
from chainrule.core.primitive import Primitive, Variadic
from chainrule.core.record import new, placeholder
from chainrule.core.types import SHORT_NAMES, ArrayType, type_of
from chainrule.func import vmap
from chainrule.tensor import Tensor

Arrays = tuple[Any, ...]
STEP = 1e-6
FLOATS = tuple(np.dtype(d) for d in ("f8", "f4", "f2"))
WHOLE = tuple(np.dtype(d) for d in ("i8", "i4", "u1", "?"))
TOLERANCE = {np.dtype("f8"): 1e-9, np.dtype("f4"): 2e-4, np.dtype("f2"): 6e-2}

# The one row whose derivative is meant to differ from its slope.
CUTS = ("stop_gradient",)


class Failed(Exception):
    """What a check found; `check` adds the row's and the check's name."""


# ---------------------------------------------------------------- samples


def is_array(x: Any) -> bool:
    return hasattr(x, "shape")


def is_float(x: Any) -> bool:
    return is_array(x) and x.dtype.kind == "f"


def samples_of(prim: Primitive, seed: int = 0) -> list[tuple[Arrays, dict[str, Any]]]:
    """The row's samples, with all floats in float64."""
    rng = np.random.default_rng(seed)
    found = []
    for xs, params in prim.samples(rng):
        arrays = [np.asarray(x) if is_array(x) else x for x in xs]
        found.append((in_dtype(tuple(arrays), FLOATS[0]), dict(params)))
    return found


def in_dtype(xs: Arrays, dtype: Any) -> Arrays:
    return tuple(x.astype(dtype) if is_float(x) else x for x in xs)


def types_of(xs: Arrays) -> list[ArrayType | None]:
    return [type_of(x) if is_array(x) else None for x in xs]


def has_rule(prim: Primitive, i: int) -> bool:
    """Does input i have a derivative? That of a composite without pulls comes from its parts."""
    return prim.pulls == () or isinstance(prim.pulls, Variadic) or prim.pulls[i] is not None


def varied(prim: Primitive, xs: Arrays) -> list[int]:
    """The inputs a gradient can flow to."""
    return [i for i, x in enumerate(xs) if is_float(x) and has_rule(prim, i)]


def value(prim: Primitive, xs: Arrays, params: dict[str, Any]) -> Any:
    return np.asarray(prim.eval(*xs, **params))


def smooth_samples(prim: Primitive) -> Iterator[tuple[Arrays, dict[str, Any], Any, list[int]]]:
    """(xs, params, y, inputs with a derivative) where there is something to differentiate."""
    for xs, params in samples_of(prim):
        y = value(prim, xs, params)
        inputs = varied(prim, xs)
        if y.dtype == FLOATS[0] and inputs:
            yield xs, params, y, inputs


def draw(rng: Any, shape: Any) -> Any:
    """Random numbers away from 0, so that a lost factor shows."""
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def replaced(xs: Arrays, i: int, x: Any) -> Arrays:
    return (*xs[:i], x, *xs[i + 1:])


def close(got: Any, wanted: Any, what: str, tolerance: float = 1e-5) -> None:
    """Equal up to `tolerance` of the largest number (and of 1)."""
    a, b = np.asarray(got), np.asarray(wanted)
    if a.shape != b.shape:
        raise Failed(f"{what}: shape {a.shape}, expected {b.shape}")
    if a.dtype.kind == "b" or b.dtype.kind == "b":
        if not np.array_equal(a, b):
            raise Failed(f"{what}: {a.tolist()}, expected {b.tolist()}")
        return
    a, b = a.astype(FLOATS[0]), b.astype(FLOATS[0])
    finite = b[np.isfinite(b)]
    scale = max(1.0, float(np.abs(finite).max())) if finite.size else 1.0
    if not np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        raise Failed(f"{what}: {np.array2string(a, threshold=12)}, "
                     f"expected {np.array2string(b, threshold=12)}")


def slope(function: Callable[[float], Any]) -> Any:
    """The derivative of function(s) at s = 0 by a centred difference."""
    return (np.asarray(function(STEP)) - np.asarray(function(-STEP))) / (2 * STEP)


# ---------------------------------------------------------------- the rules, run by hand


def tangent(prim: Primitive, ts: Sequence[Any], y: Any, xs: Arrays, params: dict[str, Any]) -> Any:
    """J·t by the row's forward rule."""
    if prim.kind == "composite":
        tensors = [new(x) if is_array(x) else x for x in xs]
        dot = composite_tangent(prim, tensors, [None if t is None else new(t) for t in ts], params)
        return np.zeros(y.shape) if dot is None else dot._value
    if prim.jvp is None:
        raise Failed("there are pulls but no jvp")
    dot = prim.jvp(ts, y, *xs, **params)
    return np.zeros(y.shape) if dot is None else np.asarray(dot)


def pulled(prim: Primitive, i: int, g: Any, y: Any, xs: Arrays, params: dict[str, Any],
           fast: bool = False) -> Any:
    """The cotangent of input i by the row's own rule, on bare arrays."""
    if prim.pulls == ():
        leaves = [new(x) if is_array(x) else x for x in xs]
        leaves[i].requires_grad_()
        assert prim.definition is not None
        return taken(prim.definition(*leaves, **params), [leaves[i]], g)[0]._value
    rule = (prim.array_pulls if fast else prim.pulls)[i]
    assert rule is not None
    return rule(g, y, *xs, **params)


def taken(y: Tensor, leaves: list[Any], g: Any, create_graph: bool = False) -> tuple[Any, ...]:
    """Gradients through the tape."""
    start = g if isinstance(g, Tensor) else new(np.asarray(g))
    if y._node is None:
        raise Failed("the result does not require a gradient")
    return autograd.grad(y, leaves, start, create_graph=create_graph, retain_graph=True,
                         materialize_grads=True)


def on_tape(prim: Primitive, xs: Arrays, params: dict[str, Any],
            inputs: Sequence[int]) -> tuple[Any, list[Any]]:
    """(the row applied to Tensors, its leaves)."""
    operands = [new(x.copy()) if is_array(x) else x for x in xs]
    leaves = [operands[i].requires_grad_() for i in inputs]
    return bind(prim, *operands, **params), leaves


# ---------------------------------------------------------------- types


def check_types(prim: Primitive, rng: Any) -> None:
    for sample, params in samples_of(prim):
        for dtype in FLOATS if any(map(is_float, sample)) else FLOATS[:1]:
            xs = in_dtype(sample, dtype)
            y = prim.eval(*xs, **params)
            said = prim.infer(*types_of(xs), **params)
            found = type_of(y) if is_array(y) else f"a {type(y).__name__}"
            if said != found:
                shown = ", ".join(str(t) for t in types_of(xs))
                raise Failed(f"for {shown} the rule says {said}, the value is {found}")


def check_dtypes(prim: Primitive, rng: Any) -> None:
    """Every mixture of dtypes and numbers, of rows that users call: traced as evaluated."""
    if not prim.promote or not takes_numbers(prim):
        return
    for sample, params in samples_of(prim)[:3]:
        places = [i for i, x in enumerate(sample) if is_array(x)]
        kinds: list[Any] = [*FLOATS, *WHOLE, float, int]
        for chosen in itertools.product(kinds, repeat=len(places)):
            xs = list(sample)
            for i, dtype in zip(places, chosen, strict=True):
                if isinstance(dtype, type):
                    xs[i] = dtype(2)
                else:
                    xs[i] = np.maximum(np.abs(xs[i]), dtype.kind != "f").astype(dtype)
            if any(map(is_array, xs)):
                compare_trace(prim, xs, params)


def takes_numbers(prim: Primitive) -> bool:
    """Is the row itself a public function? Others get their operands from functions that check."""
    return bool(prim.public) and not prim.public.startswith("_")


def compare_trace(prim: Primitive, xs: list[Any], params: dict[str, Any]) -> None:
    shown = ", ".join(str(type_of(x)) if is_array(x) else type(x).__name__ for x in xs)
    try:
        y: Any = type_of(bind(prim, *[new(x) if is_array(x) else x for x in xs], **params))
    except (TypeError, ValueError):
        return
    try:
        traced = type_of(bind(prim, *[placeholder(type_of(x)) if is_array(x) else x for x in xs],
                              **params))
    except (TypeError, ValueError, AttributeError) as error:
        raise Failed(f"({shown}) has the value {y}, traced it raises {error}") from error
    if traced != y:
        raise Failed(f"({shown}) has the value {y}, traced it is {traced}")
    if y.dtype not in SHORT_NAMES:
        raise Failed(f"({shown}) has the dtype {y.dtype}, which no tensor has")


# ---------------------------------------------------------------- first derivatives


def check_jvp(prim: Primitive, rng: Any) -> None:
    for xs, params, y, inputs in smooth_samples(prim):
        for chosen in (*[[i] for i in inputs], inputs):
            ts = [draw(rng, x.shape) if i in chosen else None for i, x in enumerate(xs)]
            moved = slope(lambda s, xs=xs, ts=ts, params=params: value(prim, tuple(  # type: ignore[misc]
                x if t is None else x + s * t for x, t in zip(xs, ts, strict=True)), params))
            close(tangent(prim, ts, y, xs, params), moved, f"along input {chosen}")


def check_silent(prim: Primitive, rng: Any) -> None:
    """A float input that has no rule must not move the result."""
    if prim.name in CUTS:
        return
    for xs, params in samples_of(prim):
        if value(prim, xs, params).dtype.kind != "f":
            continue
        for i, x in enumerate(xs):
            if is_float(x) and not has_rule(prim, i):
                t = draw(rng, x.shape)
                moved = slope(lambda s, xs=xs, i=i, x=x, t=t, params=params: value(  # type: ignore[misc]
                    prim, replaced(xs, i, x + s * t), params))
                close(np.zeros(moved.shape), moved, f"input {i} has no rule, but the result moves")


def check_pulls(prim: Primitive, rng: Any) -> None:
    for xs, params, y, inputs in smooth_samples(prim):
        g = draw(rng, y.shape)
        for i in inputs:
            t = draw(rng, xs[i].shape)
            gx = np.asarray(pulled(prim, i, g, y, xs, params))
            if gx.shape != xs[i].shape:
                raise Failed(f"the cotangent of input {i} has shape {gx.shape}, "
                             f"the input {xs[i].shape}")
            ts = [t if k == i else None for k in range(len(xs))]
            left = np.sum(g * tangent(prim, ts, y, xs, params))
            close(np.sum(gx * t), left, f"input {i}: ⟨Jᵀg, t⟩ against ⟨g, Jt⟩", 1e-9)


def check_fast_pulls(prim: Primitive, rng: Any) -> None:
    if not prim.fast_pulls:
        return
    for sample, params, out, inputs in smooth_samples(prim):
        weights = draw(rng, out.shape)
        for dtype in FLOATS:
            xs, y, g = in_dtype(sample, dtype), out.astype(dtype), weights.astype(dtype)
            for i in inputs:
                slow = np.asarray(pulled(prim, i, g, y, xs, params))
                fast = np.asarray(pulled(prim, i, g, y, xs, params, fast=True))
                close(fast, slow, f"input {i} in {dtype}", TOLERANCE[dtype])
                if fast.dtype != slow.dtype:
                    raise Failed(f"input {i}: {fast.dtype}, expected {slow.dtype}")


def check_tape(prim: Primitive, rng: Any) -> None:
    """Recorded on Tensors in each float dtype, keeping only what the rules read."""
    for sample, params, out, inputs in smooth_samples(prim):
        g = draw(rng, out.shape)
        wanted = [pulled(prim, i, g, out, sample, params) for i in inputs]
        for dtype in FLOATS:
            xs = in_dtype(sample, dtype)
            if value(prim, xs, params).dtype.kind != "f":
                continue
            with settings.using(keep_small=0):
                y, leaves = on_tape(prim, xs, params, inputs)
                found = taken(y, leaves, g.astype(y.dtype))
            for gx, leaf, right in zip(found, leaves, wanted, strict=True):
                if gx.dtype != leaf.dtype:
                    raise Failed(f"the gradient of a {leaf.dtype} input is {gx.dtype}")
                lowest = min(dtype, y.dtype, key=lambda d: d.itemsize)
                close(gx._value, right, f"in {dtype}", TOLERANCE[lowest])


# ---------------------------------------------------------------- second derivatives


def check_second(prim: Primitive, rng: Any) -> None:
    for xs, params, y, inputs in smooth_samples(prim):
        g = draw(rng, y.shape)
        weights = [draw(rng, xs[i].shape) for i in inputs]
        ways = [draw(rng, xs[i].shape) for i in inputs]
        way_of_g = draw(rng, y.shape)

        def weighted(s: float, xs: Arrays = xs, params: Any = params, inputs: Any = inputs,
                     g: Any = g, weights: Any = weights, ways: Any = ways,
                     way_of_g: Any = way_of_g) -> float:
            here = list(xs)
            for i, way in zip(inputs, ways, strict=True):
                here[i] = xs[i] + s * way
            at = value(prim, tuple(here), params)
            return float(sum(np.sum(w * pulled(prim, i, g + s * way_of_g, at, tuple(here), params))
                             for i, w in zip(inputs, weights, strict=True)))

        for limit in (0, 64):
            with settings.using(keep_small=limit):
                out, leaves = on_tape(prim, xs, params, inputs)
                start = new(g.copy()).requires_grad_()
                first = taken(out, leaves, start, create_graph=True)
                total = sum(((new(w) * gx).sum() for w, gx in zip(weights, first, strict=True)),
                            new(np.zeros(())))
                found = 0.0
                if total._node is not None:
                    second = taken(total, [*leaves, start], np.ones(()))
                    found = sum(np.sum(gx._value * way) for gx, way in zip(
                        second, [*ways, way_of_g], strict=True))
            close(found, slope(weighted), "along a random direction")


# ---------------------------------------------------------------- batching


def check_batch(prim: Primitive, rng: Any) -> None:
    draws = [samples_of(prim, seed) for seed in range(3)]
    for group in zip(*draws, strict=True):
        params = group[0][1]
        operands = [xs for xs, _ in group]
        arrays = [i for i, x in enumerate(operands[0]) if is_array(x)]
        for chosen in itertools.product((None, 0, -1), repeat=len(arrays)):
            if all(place is None for place in chosen):
                continue
            axes: list[int | None] = [None] * len(operands[0])
            xs = list(operands[0])
            for i, place in zip(arrays, chosen, strict=True):
                if place is not None:
                    xs[i] = np.stack([each[i] for each in operands], place)
                    axes[i] = place % xs[i].ndim
            loop = np.stack([value(prim, tuple(
                x if axes[i] is None else operands[k][i] for i, x in enumerate(xs)), params)
                for k in range(len(operands))])
            try:
                compare_batch(prim, xs, axes, params, loop)
            except BatchingError:
                if prim.differentiable:
                    raise
                return                         # a row may refuse to be batched, in so many words


def compare_batch(prim: Primitive, xs: list[Any], axes: list[int | None], params: dict[str, Any],
                  loop: Any) -> None:
    what = f"batch axes {axes}"
    if prim.kind == "composite":
        y, axis = batch_definition(prim, xs, axes, params)
    else:
        if prim.batch is None:
            raise Failed("there is no batch rule")
        y, axis = prim.batch(xs, axes, **params)
    if axis is None:
        raise Failed(f"{what}: the result has no batch axis")
    y = np.asarray(y._value if isinstance(y, Tensor) else y)
    close(np.moveaxis(y, axis, 0), loop, what, 1e-9)
    if y.dtype != loop.dtype:
        raise Failed(f"{what}: {y.dtype}, expected {loop.dtype}")
    given = [new(x) if is_array(x) else x for x in xs]
    z = vmap(lambda *items: bind(prim, *items, **params), in_dims=tuple(axes))(*given)
    close(z._value, loop, f"vmap, {what}", 1e-9)


# ---------------------------------------------------------------- composites


def check_definition(prim: Primitive, rng: Any) -> None:
    if prim.definition is None:
        return
    for sample, params in samples_of(prim):
        for dtype in FLOATS:
            xs = in_dtype(sample, dtype)
            inputs = varied(prim, xs)
            operands = [new(x) if is_array(x) else x for x in xs]
            leaves = [operands[i].requires_grad_() for i in inputs]
            meant = prim.definition(*operands, **params)
            y = value(prim, xs, params)
            close(y, meant._value, f"value in {dtype}", TOLERANCE[dtype])
            if y.dtype != meant.dtype:
                raise Failed(f"the value is {y.dtype}, by the definition {meant.dtype}")
            if prim.pulls == () or meant._node is None:
                continue
            g = draw(rng, y.shape).astype(dtype)
            for i, wanted in zip(inputs, taken(meant, leaves, g), strict=True):
                close(pulled(prim, i, g, y, xs, params), wanted._value,
                      f"pull of input {i} in {dtype}", TOLERANCE[dtype])


# ---------------------------------------------------------------- special values


def check_special_values(prim: Primitive, rng: Any) -> None:
    options = samples_of(prim)[0][1]
    for x, wanted in prim.at.items():
        given = x if isinstance(x, tuple) else (x,)
        for dtype in FLOATS[:2]:
            y = prim.eval(*[np.asarray(v, dtype) for v in given], **options)
            if not np.allclose(y, wanted, rtol=1e-6, atol=1e-12, equal_nan=True):
                raise Failed(f"{prim.name}({x}) is {y}, expected {wanted}")


# ---------------------------------------------------------------- what is kept


def stubbed(x: Any, level: int, needed: bool) -> Any:
    """What the tape keeps of an operand that the rules do not read."""
    if not is_array(x) or level == 2:
        return x
    return type_of(x) if needed or level else None


def check_saved(prim: Primitive, rng: Any) -> None:
    """Rules run without the values they are said not to read."""
    for xs, params, y, inputs in smooth_samples(prim):
        if prim.pulls == ():
            continue
        g = draw(rng, y.shape)
        for chosen in (*[[i] for i in inputs], inputs):
            need = tuple(i in chosen for i in range(len(xs)))
            reads = prim.reads(need)
            kept = tuple(stubbed(x, level, n) for x, level, n in zip(
                xs, reads.inputs, need, strict=True))
            out = y if reads.output == 2 else type_of(y)
            for i in chosen:
                for fast in (False, True):
                    try:
                        found = pulled(prim, i, g, out, kept, params, fast)
                    except (AttributeError, TypeError, ValueError) as error:
                        raise Failed(f"the rule of input {i} reads a value that is not kept "
                                     f"({reads}): {error}") from error
                    close(found, pulled(prim, i, g, y, xs, params), f"input {i}", 1e-9)


# ---------------------------------------------------------------- broadcasting and numbers


def check_broadcasting(prim: Primitive, rng: Any) -> None:
    """Operands of different shapes, and Python numbers, through the tape."""
    if prim.kind != "elementwise":
        return
    for sample, params in samples_of(prim):
        arrays = [i for i, x in enumerate(sample) if is_array(x)]
        if len(arrays) < 2 or sample[arrays[0]].shape != (2, 3):
            continue
        cuts: list[Any] = [np.s_[:, :1], np.s_[:1, :], np.s_[1, 2], np.s_[:, :], np.s_[0, :]]
        for chosen in itertools.product(cuts, repeat=len(arrays)):
            xs = list(sample)
            for i, cut in zip(arrays, chosen, strict=True):
                xs[i] = np.asarray(sample[i][cut])
            against_slopes(prim, tuple(xs), params, rng)
        for i in arrays:
            if is_float(sample[i]) and takes_numbers(prim):
                against_slopes(prim, replaced(sample, i, float(sample[i].flat[0])), params, rng)


def against_slopes(prim: Primitive, xs: Arrays, params: dict[str, Any], rng: Any) -> None:
    y = value(prim, xs, params)
    inputs = varied(prim, xs)
    if y.dtype.kind != "f" or not inputs:
        return
    shapes = [x.shape if is_array(x) else "number" for x in xs]
    for limit in (0, 64):
        with settings.using(keep_small=limit):
            out, leaves = on_tape(prim, xs, params, inputs)
            g = draw(rng, y.shape)
            found = taken(out, leaves, g)
        for i, gx in zip(inputs, found, strict=True):
            if tuple(gx.shape) != xs[i].shape:
                raise Failed(f"shapes {shapes}: the gradient of input {i} is {type_of(gx)}")
            t = draw(rng, xs[i].shape)
            moved = slope(lambda s, i=i, t=t, g=g: np.sum(  # type: ignore[misc]
                g * value(prim, replaced(xs, i, xs[i] + s * t), params)))
            close(np.sum(gx._value * t), moved, f"shapes {shapes}, input {i}")


# ---------------------------------------------------------------- odd arrays


def check_empty(prim: Primitive, rng: Any) -> None:
    if prim.kind != "elementwise":
        return
    for sample, params in samples_of(prim):
        if not any(is_array(x) and x.shape == (2, 3) for x in sample):
            continue
        xs = tuple(x[:0] if is_array(x) else x for x in sample)
        inputs = varied(prim, xs)
        y, leaves = on_tape(prim, xs, params, inputs)
        if tuple(y.shape) != (0, 3):
            raise Failed(f"of (0, 3) operands the result is {type_of(y)}")
        if inputs and y.dtype.kind == "f":
            for gx in taken(y, leaves, np.zeros((0, 3))):
                close(gx._value, np.zeros((0, 3)), "gradient")


def strided(x: Any) -> Any:
    """The same numbers in reversed axis order and with gaps in memory."""
    if not is_array(x) or not x.ndim:
        return x
    wide = np.zeros(tuple(2 * n for n in x.shape[::-1]), x.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)].transpose()
    view[...] = x
    return view


def check_strides(prim: Primitive, rng: Any) -> None:
    for sample, params in samples_of(prim):
        for dtype in FLOATS[:2]:
            xs = in_dtype(sample, dtype)
            odd = tuple(strided(x) for x in xs)
            y = value(prim, xs, params)
            close(value(prim, odd, params), y, "value of non-contiguous operands",
                  TOLERANCE[dtype])
            if y.dtype.kind != "f":
                continue
            g = draw(rng, y.shape).astype(y.dtype)
            for i in varied(prim, xs):
                for fast in (False, True):
                    close(pulled(prim, i, strided(g), strided(y), odd, params, fast),
                          pulled(prim, i, g, y, xs, params),
                          f"pull of input {i} on non-contiguous arrays", TOLERANCE[dtype])
                    still = np.broadcast_to(y.dtype.type(0.75), y.shape)
                    close(pulled(prim, i, still, y, xs, params, fast),
                          pulled(prim, i, still.copy(), y, xs, params),
                          f"pull of input {i}, read-only g", TOLERANCE[dtype])


def check_nonfinite(prim: Primitive, rng: Any) -> None:
    """NaN and infinities are values: they may come out, but nothing may be raised."""
    for sample, params in samples_of(prim):
        for bad in (np.nan, np.inf, -np.inf):
            xs = tuple(x.copy() if is_array(x) else x for x in sample)
            for x in xs:
                if is_float(x):
                    x.flat[-1] = bad
            try:
                y = value(prim, xs, params)
                for i in varied(prim, xs) if y.dtype.kind == "f" else ():
                    pulled(prim, i, np.ones(y.shape), y, xs, params)
                    pulled(prim, i, np.full(y.shape, bad), y, xs, params, fast=True)
            except (ArithmeticError, ValueError, TypeError, IndexError) as error:
                raise Failed(f"with {bad}: {type(error).__name__}: {error}") from error


def check_untouched(prim: Primitive, rng: Any) -> None:
    """Evaluation and rules change none of their operands."""
    for sample, params in samples_of(prim):
        xs = tuple(x.copy() if is_array(x) else x for x in sample)
        y = value(prim, xs, params)
        unchanged(xs, sample, "evaluation")
        if y.dtype.kind != "f":
            continue
        g = draw(rng, y.shape)
        given, out = g.copy(), y.copy()
        for i in varied(prim, xs):
            for fast in (False, True):
                pulled(prim, i, given, out, xs, params, fast)
                unchanged((*xs, given, out), (*sample, g, y), f"the rule of input {i}")
            t = [np.ones(x.shape) if k == i else None for k, x in enumerate(xs)]
            tangent(prim, t, out, xs, params)
            unchanged((*xs, out), (*sample, y), "the jvp")


def unchanged(now: Arrays, before: Arrays, what: str) -> None:
    for i, (x, old) in enumerate(zip(now, before, strict=True)):
        if is_array(x) and not np.array_equal(x, old, equal_nan=x.dtype.kind == "f"):
            raise Failed(f"{what} changed operand {i}")


def check_aliases(prim: Primitive, rng: Any) -> None:
    """A result shows the memory of an operand only if the row says it is a view."""
    for xs, params in samples_of(prim):
        y = prim.eval(*xs, **params)
        for i, x in enumerate(xs):
            if is_array(x) and not prim.view and np.shares_memory(x, y):
                raise Failed(f"the result shares memory with operand {i}, but view is False")
        inputs = varied(prim, xs)
        result, leaves = on_tape(prim, xs, params, inputs)
        for i, leaf in zip(inputs, leaves, strict=True):
            if result is leaf or (not prim.view and np.shares_memory(leaf._value, result._value)):
                raise Failed(f"recorded, the result shares memory with operand {i}")


def check_description(prim: Primitive, rng: Any) -> None:
    """The row has samples for every rule, a sentence of documentation and unique argument names."""
    if not prim.doc.endswith((".", "?")):
        raise Failed("doc must be a sentence")
    found = samples_of(prim)
    if not found:
        raise Failed("there are no samples")
    if not isinstance(prim.pulls, Variadic):
        for i, rule in enumerate(prim.pulls):
            if rule is not None and not any(i < len(xs) and is_float(xs[i]) for xs, _ in found):
                raise Failed(f"no sample reaches the rule of input {i}")
    for options in (params for _, params in found):
        if missing := set(prim.options) - set(options):
            raise Failed(f"a sample lacks the options {sorted(missing)}")


CHECKS: dict[str, Callable[[Primitive, Any], None]] = {
    "description": check_description,
    "type rule against value": check_types,
    "traced type against value": check_dtypes,
    "special values": check_special_values,
    "inputs unchanged": check_untouched,
    "aliasing": check_aliases,
    "jvp against finite differences": check_jvp,
    "inputs without a rule": check_silent,
    "pull against jvp": check_pulls,
    "fast pull against pull": check_fast_pulls,
    "composite against its definition": check_definition,
    "saved values": check_saved,
    "gradient through the tape": check_tape,
    "second derivatives": check_second,
    "batch rule against a loop": check_batch,
    "broadcasting": check_broadcasting,
    "empty arrays": check_empty,
    "non-contiguous arrays": check_strides,
    "NaN and infinity": check_nonfinite,
}


def check(prim: Primitive, only: str = "") -> None:
    """Run all checks (or one, by name) on a row; RuleError names the first that fails.

    >>> from chainrule.core.primitive import TABLE
    >>> check(TABLE["tanh"])
    """
    for name, test in CHECKS.items():
        if only in ("", name):
            try:
                with np.errstate(all="ignore"):
                    test(prim, np.random.default_rng(1))
            except Exception as error:
                what = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
                raise RuleError(f"{prim.name}: {name}: {what}{error}") from error
