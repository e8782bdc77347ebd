"""A map that joins a kernel reads what that kernel stores by another name: from registers."""

import numpy as np
import pytest

import chainrule as cr

PROGRAMS = {
    "reshape of a cat": lambda a, b, x, s: (cr.cat([a, b]) + x).reshape(6) * s,
    "and back": lambda a, b, x, s: ((cr.cat([a, b]) + x).reshape(6) * s).view(2, 3) + 1,
    "both are results": lambda a, b, x, s: [
        e := cr.cat([a, b]) + x, (e.reshape(6) * s).view(2, 3) + 1, e.reshape(3, 2) - 1],
    "transposed too": lambda a, b, x, s: [
        e := cr.cat([a, b]) * x, e.reshape(6) + s, e.T.reshape(6) + s],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_joined_by_another_name(name):
    cr.manual_seed(0)
    given = cr.randn(1, 3), cr.randn(1, 3), cr.randn(2, 3), cr.randn(6)
    function = PROGRAMS[name]
    ours, theirs = cr.compile(function)(*given), function(*given)
    if not isinstance(ours, list):
        ours, theirs = [ours], [theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-6)
