"""Every row of the table against what it must agree with. A new row is tested by standing there."""

import importlib
import importlib.util
from typing import Any

import numpy as np
import pytest

from chainrule.core.primitive import TABLE
from chainrule.testing.conformance import CHECKS, check, pulled, samples_of, value, varied

ROWS = sorted(TABLE)


@pytest.mark.parametrize("name", ROWS)
def test_conformance(name: str) -> None:
    check(TABLE[name])


def test_there_are_enough_rows_and_checks() -> None:
    assert len(TABLE) >= 70
    assert len(CHECKS) >= 15


@pytest.mark.skipif(importlib.util.find_spec("chainrule.explain.symbol") is None,
                    reason="explain is not built yet")
@pytest.mark.parametrize("name", ROWS)
def test_explain_writes_what_is_computed(name: str) -> None:
    """Rows and rules run on text-and-number values give the numbers they give on arrays."""
    symbol = importlib.import_module("chainrule.explain.symbol")
    style = importlib.import_module("chainrule.explain.numbers").Style()

    def named(x: Any, text: str) -> Any:
        return symbol.Sym((text, 9), x, style) if hasattr(x, "shape") else x

    prim = TABLE[name]
    for xs, params in samples_of(prim):
        syms = [named(x, f"x{i}") for i, x in enumerate(xs)]
        y = value(prim, xs, params)
        written = prim(*syms, **params)
        np.testing.assert_array_equal(written.value, y)
        assert written.names[0]
        assert written.numbers[0]
        if y.dtype.kind != "f" or prim.pulls == ():
            continue
        g = np.linspace(0.5, 1.5, y.size).reshape(y.shape)
        for i in varied(prim, xs):
            gx = prim.pulls[i](named(g, "g"), named(y, "y"), *syms, **params)
            wanted = pulled(prim, i, g, y, xs, params)
            np.testing.assert_allclose(gx.value, wanted, rtol=1e-12)
            assert gx.names[0]
