"""The test of the table, tested: each wrong row must be caught by the check that names it.

A wrong row is a copy of a right one with one thing changed; the table itself is not touched.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.core.bind import bind
from chainrule.core.errors import RuleError
from chainrule.core.primitive import TABLE, Primitive
from chainrule.core.types import ArrayType, float32, int64
from chainrule.testing.conformance import CHECKS, check


def changed(name: str, **parts: Any) -> Primitive:
    """A copy of a row with other parts; a new eval or rule is read anew by the probes."""
    return replace(TABLE[name], _reads={}, **parts)


def rule(name: str, i: int, wrong: Callable[..., Any]) -> Primitive:
    """A copy of a row with another rule for input i, used forward as well if elementwise."""
    row = TABLE[name]
    pulls = list(row.pulls)
    pulls[i] = wrong
    parts: dict[str, Any] = {"pulls": tuple(pulls), "fast_pulls": ()}
    if row.kind == "elementwise":
        parts["jvp"] = lambda ts, y, *xs, **params: sum(
            (p(t, y, *xs, **params) for p, t in zip(pulls, ts, strict=True)
             if t is not None and p is not None), np.zeros(np.shape(y)))
    return changed(name, **parts)


def spoiling(x: Any) -> Any:
    np.multiply(x, 1.5, out=x) if isinstance(x, np.ndarray) and x.ndim else None
    return np.exp(x)


def spoiling_rule(g: Any, y: Any, x: Any) -> Any:
    if isinstance(g, np.ndarray) and g.ndim:
        g *= y
        return g
    return g * y


def fail() -> Any:
    raise ValueError("not this")


def forgets_the_unbatched(xs: Any, axes: Any) -> Any:
    """Takes every operand to be batched along its first axis."""
    return np.matmul(*xs), 0


MUL, MATMUL, SUM, CAT = TABLE["mul"], TABLE["matmul"], TABLE["sum"], TABLE["concatenate"]

WRONG: dict[str, tuple[Primitive, str]] = {
    "wrong partial": (
        rule("tanh", 0, lambda g, y, x: g * (1 - y)), "jvp against finite differences"),
    "sign": (
        rule("cos", 0, lambda g, y, x: g * TABLE["sin"](x)), "jvp against finite differences"),
    "factor 2.001": (
        rule("square", 0, lambda g, y, x: g * (2.001 * x)), "jvp against finite differences"),
    "swapped partials": (
        changed("div", pulls=TABLE["div"].pulls[::-1], jvp=lambda ts, y, a, b: sum(
            p(t, y, a, b) for p, t in zip(TABLE["div"].pulls[::-1], ts, strict=True)
            if t is not None)), "jvp against finite differences"),
    "forward right, backward wrong": (
        changed("exp", pulls=(lambda g, y, x: g * x,)), "pull against jvp"),
    "transposed slot": (
        changed("matmul", pulls=(lambda g, y, a, b: g @ b.mT if hasattr(b, "level") else g @ b,
                                 MATMUL.pulls[1]),
                samples=lambda rng: [((rng.normal(size=(3, 3)), rng.normal(size=(3, 3))), {})]),
        "pull against jvp"),
    "slot of the other input": (
        changed("matmul", pulls=MATMUL.pulls[::-1],
                samples=lambda rng: [((rng.normal(size=(3, 3)), rng.normal(size=(3, 3))), {})]),
        "pull against jvp"),
    "forgotten input": (
        rule("atan2", 1, None), "inputs without a rule"),  # type: ignore[arg-type]
    "shape rule": (
        changed("sum", infer=lambda a, axes: a), "type rule against value"),
    "dtype rule": (
        changed("argmax", infer=lambda a, axis: ArrayType(
            TABLE["argmax"].infer(a, axis=axis).shape, float32)), "type rule against value"),
    "value in another dtype": (
        changed("sin", eval=lambda x: np.sin(x).astype("f8")), "type rule against value"),
    "promotion the trace does not know": (
        changed("mul", eval=lambda a, b: np.multiply(a, np.asarray(b))),
        "traced type against value"),
    "wrong special value": (
        changed("sigmoid", at={0.0: 0.5, np.inf: 0.0}), "special values"),
    "batch axis": (
        changed("cumsum", batch=lambda xs, ax, axis: (
            TABLE["cumsum"](np.moveaxis(xs[0], ax[0], 0), axis=axis), 0)),
        "batch rule against a loop"),
    "batch axis reported wrongly": (
        changed("flip", batch=lambda xs, ax, axes: (TABLE["flip"].batch(xs, ax, axes=axes)[0], 1)),  # type: ignore[misc]
        "batch rule against a loop"),
    "forgotten unbatched operand": (
        changed("matmul", batch=forgets_the_unbatched), "batch rule against a loop"),
    "reads an unsaved value": (
        replace(TABLE["exp"], fast_pulls=(lambda g, y, x: g * np.exp(x),)), "saved values"),
    "fast pull differs": (
        changed("tanh", fast_pulls=(lambda g, y, x: g * (1 - 0.999 * y * y),)),
        "fast pull against pull"),
    "composite evaluates something else": (
        changed("mean", eval=lambda x, axes: np.median(x, axes)),
        "jvp against finite differences"),
    "composite value off its definition": (
        changed("mean", eval=lambda x, axes: TABLE["mean"].eval(x, axes=axes) + 0.01),
        "composite against its definition"),
    "composite pull off its definition": (
        changed("softmax", pulls=(lambda g, y, x, axis: y * g,)), "pull against jvp"),
    "changes its input": (
        changed("exp", eval=spoiling), "inputs unchanged"),
    "rule changes the cotangent": (
        rule("exp", 0, spoiling_rule), "inputs unchanged"),
    "result shares memory": (
        changed("identity", eval=lambda x: x), "aliasing"),
    "rule cut from the graph": (
        changed("sin", pulls=(lambda g, y, x: g * np.cos(getattr(x, "_value", x)) if not hasattr(
            x, "probe_type") else g * TABLE["cos"](x),)), "second derivatives"),
    "no broadcasting": (
        changed("mul", pulls=(lambda g, y, a, b: g * b * (1.0 if a.shape == g.shape else 2.0),
                              MUL.pulls[1])), "broadcasting"),
    "order in memory": (
        changed("neg", eval=lambda x: -np.ndarray(x.shape, x.dtype, x.base if x.base is not None
                                                  else x)), "non-contiguous arrays"),
    "raises on NaN": (
        changed("sign", at={}, eval=lambda x: np.sign(x) if np.isfinite(x).all() else fail()),
        "NaN and infinity"),
    "empty arrays": (
        changed("exp", eval=lambda x: np.exp(x) + 0 * np.min(x, where=np.isfinite(x), initial=9.0)
                if x.size else fail()), "empty arrays"),
    "no sample for a rule": (
        changed("pow", samples=lambda rng: [((rng.uniform(0.5, 2, 3), 2), {})]), "description"),
}


@pytest.mark.parametrize("fault", sorted(WRONG))
def test_a_wrong_row_is_caught(fault: str) -> None:
    row, by = WRONG[fault]
    with pytest.raises(RuleError, match=f"^{row.name}: {by}: "):
        check(row)


def test_the_faults_reach_most_checks() -> None:
    """A check that catches nothing would be believed for no reason."""
    caught = {by for _, by in WRONG.values()}
    assert set(CHECKS) - caught <= {"gradient through the tape"}


def test_right_rows_pass_as_copies() -> None:
    for name in ("tanh", "matmul", "sum", "concatenate", "softmax", "where"):
        check(changed(name))


def test_a_wrong_gradient_on_the_tape_alone_is_caught() -> None:
    """float16 gradients that come back in another dtype."""
    row = changed("exp", fast_pulls=(lambda g, y, x: (g * y).astype("f8") if hasattr(
        g, "astype") else g * y,))
    with pytest.raises(RuleError, match=r"^exp: (fast pull against pull|gradient through)"):
        check(row)


def test_the_table_is_untouched() -> None:
    assert bind(TABLE["argmax"], np.ones((2, 3)), axis=1).dtype == int64
    assert TABLE["mul"] is MUL
    assert TABLE["sum"] is SUM
    assert TABLE["concatenate"] is CAT
