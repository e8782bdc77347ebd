"""Every row of the table, compiled against its NumPy evaluation."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import compile_graph
from chainrule.core.errors import IndexingError
from chainrule.core.graph import trace
from chainrule.core.primitive import TABLE
from chainrule.core.types import ArrayType

# Rows that are computed by NumPy between stretches of native code: orders and running places.
BY_NUMPY = {"argsort", "cumargmax", "cumargmin"}
# Rows whose compiled value may differ more than rounding: sums in another order.
TOLERANCE = {"f4": 3e-6, "f8": 2e-13}


def compiled(prim, xs, params):
    """(result, executable) of one row on arrays and numbers."""
    arrays = [x for x in xs if isinstance(x, np.ndarray)]

    def function(*tensors):
        waiting = iter(tensors)
        return prim(*[next(waiting) if isinstance(x, np.ndarray) else x for x in xs], **params)

    graph = trace(function, *[ArrayType(a.shape, a.dtype) for a in arrays])
    exe = compile_graph(graph, [None])
    out = graph.outputs[0]
    result = np.full(out.shape, 77).astype(out.dtype)
    exe.run([np.array(a, order="C") for a in arrays], [result])
    return result, exe


def samples(name, dtype):
    for xs, params in TABLE[name].samples(np.random.default_rng(3)):
        yield tuple([x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
                     for x in xs]), params


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", sorted(TABLE))
def test_row(name, dtype):
    prim = TABLE[name]
    for xs, params in samples(name, dtype):
        want = np.asarray(prim.eval(*xs, **params))
        got, exe = compiled(prim, xs, params)
        assert got.shape == want.shape
        if want.dtype.kind in "biu":
            np.testing.assert_array_equal(got, want)
        else:
            bound = TOLERANCE[want.dtype.str[1:]]
            np.testing.assert_allclose(got, want, rtol=bound, atol=bound)
        assert bool(exe.python) == (name in BY_NUMPY), "which rows NumPy computes is stated here"


ELEMENTWISE = sorted(name for name, p in TABLE.items() if p.kind == "elementwise")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_shapes_of_elementwise_rows(name, dtype):
    """Nothing, one, odd and large numbers of elements."""
    prim = TABLE[name]
    xs, params = next(samples(name, dtype))
    rng = np.random.default_rng(5)
    for shape in ((0,), (1,), (7,), (3, 5), (33, 0), (67, 31), (5000,)):
        stretched = tuple([
            np.resize(np.concatenate([np.ravel(s[0][i]) for s in samples(name, dtype)]), shape)
            if isinstance(x, np.ndarray) else x for i, x in enumerate(xs)])
        stretched = tuple([rng.permutation(x.ravel()).reshape(shape)
                           if isinstance(x, np.ndarray) else x for x in stretched])
        want = np.asarray(prim.eval(*stretched, **params))
        got, _ = compiled(prim, stretched, params)
        bound = 3e-6 if dtype == "f4" else 2e-13
        np.testing.assert_allclose(got, want, rtol=bound, atol=bound)


def takes_floats_alone(name):
    xs, _ = next(samples(name, "f4"))
    return all(isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in xs)


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if takes_floats_alone(n)])
def test_nan_and_infinity_pass_through(name):
    prim = TABLE[name]
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-40, 3e38, -3e38, 0.5],
                       np.float32)
    if "target" in prim.arguments:            # huge ones cancel in another order
        special = special[np.abs(special) != np.float32(3e38)]
    xs, params = next(samples(name, "f4"))
    grids = [g.ravel() for g in np.meshgrid(*[special] * len(xs))]
    with np.errstate(all="ignore"):
        want = np.asarray(prim.eval(*grids, **params))
    got, _ = compiled(prim, tuple(grids), params)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    finite = np.isfinite(want)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("bad", [5, -6, 1 << 40, -(1 << 40)])
def test_an_index_out_of_range_is_an_error(bad):
    def look(x, i):
        return x[i]

    graph = trace(look, ArrayType((5, 3)), ArrayType((4,), np.dtype("int64")))
    exe = compile_graph(graph, [None])
    x, out = np.zeros((5, 3), np.float32), np.zeros((4, 3), np.float32)
    exe.run([x, np.array([0, 4, -5, -1])], [out])
    with pytest.raises(IndexingError, match=f"index {bad} is out of range for axis 0.*5"):
        exe.run([x, np.array([0, bad, 1, 2])], [out])
    exe.run([x, np.array([0, 4, -5, -1])], [out])


def test_gather_and_scatter_check_their_indices():
    for function in (lambda x, i: x.gather(1, i),
                     lambda x, i: cr.zeros(2, 3).scatter_add(1, i, x),
                     lambda x, i: cr.nn.functional.cross_entropy(x, i[:, 0])):
        graph = trace(function, ArrayType((2, 3)), ArrayType((2, 2), np.dtype("int64")))
        exe = compile_graph(graph, [None])
        out = np.zeros(graph.outputs[0].shape, np.float32)
        with pytest.raises(IndexError, match="out of range"):
            exe.run([np.zeros((2, 3), np.float32), np.array([[3, 1], [0, 1]])], [out])


def test_one_place_is_read_directly_and_by_an_index():
    """Both have one address; it must follow the loops once."""
    graph = trace(lambda e, i: e.gather(2, i) * e, ArrayType((17, 1, 1)),
                  ArrayType((17, 1, 2), np.dtype("int64")))
    exe = compile_graph(graph, [None])
    e, out = np.arange(17, dtype="f4").reshape(17, 1, 1), np.zeros((17, 1, 2), "f4")
    exe.run([e, np.zeros((17, 1, 2), "i8")], [out])
    np.testing.assert_array_equal(out, np.repeat(e * e, 2, axis=2))
