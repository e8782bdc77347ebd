"""Parameters and optimiser state begin on a cache line."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.core import lines


@pytest.mark.parametrize("shape", [(), (0,), (3,), (255,), (256,), (64, 64), (0, 1000), (7, 33, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_empty_is_writable_and_aligned_from_one_kibibyte_on(shape, dtype):
    for _ in range(5):
        made = lines.empty(shape, dtype)
        assert made.shape == shape and made.dtype == dtype and made.flags.c_contiguous
        made[...] = 1
        assert (made == 1).all()
        if made.nbytes >= lines.LEAST:
            assert made.ctypes.data % lines.LINE == 0


def test_parameters_and_optimiser_state_are_aligned_and_apart():
    layers = [cr.nn.Linear(333, 170) for _ in range(4)]
    parameters = [p for layer in layers for p in layer.parameters()]
    optimizer = cr.optim.Adam(parameters, 0.1)
    x = cr.ones(2, 333)
    sum(layer(x).sum() for layer in layers).backward()
    optimizer.step()
    arrays = [layer.weight.detach().numpy() for layer in layers]
    arrays += [optimizer.state[layer.weight][name].numpy() for layer in layers
               for name in ("exp_avg", "exp_avg_sq")]
    assert all(array.ctypes.data % lines.LINE == 0 for array in arrays)
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[i + 1:])
