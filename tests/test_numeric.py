"""Finite differences of arrays: extrapolation, corners, the V of errors, guesses at a cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule.autodiff import numeric
from chainrule.gradcheck import error_against_step


def test_the_error_against_the_step_is_a_v() -> None:
    x = cr.from_numpy(np.random.default_rng(0).normal(size=4))
    single, double = error_against_step(lambda x: (x.sin() * x.exp()).sum(), x)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert len(double.steps) == len(double.centred) == len(double.forward) == 12
    for curve in (single, double):
        k = int(np.argmin(curve.centred))
        assert 0 < k < 11
        assert curve.centred[0] > 10 * curve.centred[k] < curve.centred[-1]
        assert curve.best_forward[0] <= curve.best[0]
        assert curve.best[1] < curve.best_forward[1]
    assert single.best[0] > double.best[0]
    assert single.best[1] > 1e-6 > 1e-9 > double.best[1]
    falling = np.diff(np.log10(double.centred[:4]))
    np.testing.assert_allclose(falling, -2, atol=0.2)        # the error of the method is h²/6 f'''
    falling = np.diff(np.log10(double.forward[:4]))
    np.testing.assert_allclose(falling, -1, atol=0.2)        # h/2 f''


@given(st.floats(-3, 3), st.sampled_from([np.sin, np.exp, np.tanh, np.cosh]))
def test_extrapolation_is_better_than_its_first_step(x: float, f: Any) -> None:
    truth = {np.sin: np.cos, np.exp: np.exp, np.tanh: lambda x: 1 - np.tanh(x) ** 2,
             np.cosh: np.sinh}[f](x)
    point, direction = np.array([x]), np.array([1.0])
    stencils = [numeric.stencil(f, point, direction, s) for s in (1e-3, 1e-4, 1e-5, 1e-6)]
    value, error = numeric.settled(stencils)
    assert abs(value[0] - truth) < 1e-9
    assert abs(value[0] - truth) <= error[0] + 1e-10
    assert not numeric.corners(stencils, f(point)).any()


@pytest.mark.parametrize("f", [np.abs, lambda x: np.maximum(x, 0), np.sign,
                               lambda x: np.sqrt(np.abs(x))])
def test_corners_and_jumps_are_found(f: Any) -> None:
    stencils = [numeric.stencil(f, np.zeros(1), np.ones(1), s) for s in (1e-3, 1e-6)]
    found = numeric.corners(stencils, f(np.zeros(1)))
    assert bool(found.all()) == (f is not np.sign)     # sign is odd: its slopes agree, and grow


def test_causes_in_words() -> None:
    right = np.random.default_rng(0).normal(size=(3, 2, 2))
    x = np.random.default_rng(1).normal(size=(2, 2))
    assert "transposed" in numeric.likely_cause(right.swapaxes(1, 2), right, x, {})
    assert "exchanged" in numeric.likely_cause(right + 1, right, x, {}, [("b", right + 1)])
    assert "7 times" in numeric.likely_cause(7 * right, right, x, {"the batch": 7})
    assert "and the sign" in numeric.likely_cause(-right / 2, right, x, {})
    assert numeric.likely_cause(right + x, right, x, {}) == ""
