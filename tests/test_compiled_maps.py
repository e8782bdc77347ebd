"""Maps and reductions that read or write an array in another order than it stands in memory."""

from __future__ import annotations

import time

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.compiler import compile_graph, executable, num_threads
from chainrule.core.graph import trace
from chainrule.core.types import ArrayType

F = nn.functional
SIZES = ((1, 1), (2, 3), (3, 17), (16, 16), (33, 7), (40, 50), (100, 2), (100, 3), (70, 4),
         (100, 10), (5, 64), (1, 40), (40, 1), (20, 100), (19, 36))


def compiled(function, *arrays):
    """The executable of a function, and its result."""
    graph = trace(function, *[ArrayType(a.shape, a.dtype) for a in arrays])
    exe = compile_graph(graph, [None])
    out = graph.outputs[0].type
    y = np.full(out.shape, 7).astype(out.dtype)
    exe.run([np.ascontiguousarray(a) for a in arrays], [y])
    return exe, y, graph.evaluate(*arrays)[0]


def agree(function, *arrays):
    exe, y, want = compiled(function, *arrays)
    single = y.dtype == np.float32
    np.testing.assert_allclose(y, want, rtol=2e-5 if single else 1e-12,
                               atol=2e-5 if single else 1e-12)
    return exe


def text_of(exe):
    return "\n".join(exe.texts.values())


READ = {
    "transposed": lambda x: x.T + 1,
    "both ways": lambda x: x.T * 2 + x.T.exp(),
    "beside a column": lambda x: x.T + x[0].reshape(-1, 1),
    "summed": lambda x: (x.T + 1).sum(-1),
    "largest": lambda x: cr.amax(x, -1),
    "largest of the transpose": lambda x: cr.amax(x.T * 2, -1),
    "its place": lambda x: x.argmax(-1),
    "its place, of the transpose": lambda x: x.T.argmin(-1),
    "softmax": lambda x: F.softmax(x, -1),
    "softmax along columns": lambda x: F.softmax(x, 0),
    "log softmax of the transpose": lambda x: F.log_softmax(x.T, -1),
    "running sum": lambda x: x.cumsum(-1),
    "running sum of the transpose": lambda x: x.T.cumsum(-1),
    "chosen": lambda x: cr.where((x > 0).T, x.T, 1),
    "truth values": lambda x: (x > 0).T,
    "written in two orders": lambda x: cr.cat([x.T.reshape(-1), x.reshape(-1)]),
    "backwards": lambda x: x.flip((1,)) * 2,
    "backwards twice": lambda x: x.flip((0, 1)) > 0,
    "backwards and transposed": lambda x: x.T.flip((1,)) + x.flip((0,)).T,
    "backwards, summed": lambda x: (x.flip((1,)) * x).sum(1),
    "written backwards": cr.func.grad(lambda x: (x.flip((1,)).exp() * x).sum()),
    "deviation of columns": lambda x: x.var(0, correction=0),
}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", READ)
def test_orders_of_a_matrix(name, dtype):
    rng = np.random.default_rng(0)
    for shape in SIZES:
        agree(READ[name], rng.normal(size=shape).astype(dtype))


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 3, 2),
                                   (0, 1, 3, 2), (2, 3, 0, 1)])
def test_orders_of_four_axes(order):
    rng = np.random.default_rng(1)
    for shape in ((2, 3, 4, 5), (4, 3, 20, 21), (2, 20, 8, 8), (1, 17, 3, 33)):
        x = rng.normal(size=shape).astype("f4")
        agree(lambda x: x.permute(*order) * 2, x)
        agree(lambda x: x.permute(*order).sum(-1), x)
        agree(lambda x: cr.amax(x.permute(*order), (1, 3)), x)
        agree(lambda x: F.softmax(x.permute(*order), 2), x)
        agree(lambda x: x.permute(*order) + 1, rng.integers(0, 9, shape))


@pytest.mark.parametrize("function", [
    lambda x: x.T + 1, lambda x: x + x.T, lambda x: F.softmax(x, 0), lambda x: x.cumsum(1),
    lambda x: x.argmax(1), lambda x: x.reshape(-1).argmax(), lambda x: cr.amax(x[:, :10], 1),
    lambda x: x.flip((1,)) + 1, lambda x: x.var(0),
    lambda x: cr.func.grad(lambda x: F.max_pool2d(x[None, None], 2).sum())(x),
], ids=["transposed", "both", "softmax", "cumsum", "argmax", "argmax of all", "short", "backwards",
        "variance", "pooled"])
def test_what_runs_along_memory_is_not_gathered(function):
    exe = agree(function, np.random.default_rng(2).normal(size=(64, 64)).astype("f4"))
    assert "gather" not in text_of(exe)
    assert "masked.scatter" not in text_of(exe)


def test_a_column_beside_a_matrix_does_not_turn_it_over():
    """What is computed before the innermost loop does not decide over what lanes run."""
    exe = agree(lambda x: F.layer_norm(x, (256,)),
                np.random.default_rng(3).normal(size=(256, 256)).astype("f4"))
    assert "transpose" not in text_of(exe)


@pytest.mark.parametrize("name", READ)
def test_bits_do_not_depend_on_threads(name, monkeypatch):
    monkeypatch.setattr(executable, "PARALLEL_FROM", 0)
    monkeypatch.setattr(executable, "CHUNK", 1e-9)
    x = np.random.default_rng(4).normal(size=(83, 45)).astype("f4")
    found = []
    for threads in (1, 2, 4, 7):
        with num_threads(threads):
            found.append(compiled(READ[name], x)[1].tobytes())
    assert len(set(found)) == 1


# ---------------------------------------------------------------- pooling

POOLS = ((2, 2, 0, 1), (3, 2, 0, 1), (3, 1, 1, 1), (2, 2, 1, 1), ((3, 2), (2, 1), 0, 1),
         ((2, 4), (2, 4), 0, 1), (2, 1, 0, 2), (3, 3, 0, 1), (1, 1, 0, 1))


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_pooling(pool):
    """Ties, whose gradient goes to the first of them, NaN, and every derivative."""
    rng = np.random.default_rng(5)

    def largest(x):
        return F.max_pool2d(x, *pool)

    for shape in ((2, 3, 8, 8), (1, 1, 9, 7), (3, 5, 13, 21)):
        x = rng.normal(size=shape)
        for values in (x, np.round(x)):
            agree(largest, values)
            agree(cr.func.grad(lambda x: (largest(x) ** 2).sum()), values)
        agree(cr.func.grad(lambda x: (cr.func.grad(lambda x: (largest(x) ** 3).sum())(x) ** 2)
                           .sum()), x)
        agree(cr.func.vmap(lambda x: largest(x[None])[0]), x)
        x[0, 0, 1, 1], x[0, 0, 2, 3] = np.nan, np.inf
        agree(largest, x)
        if pool[3] == 1:
            agree(cr.func.grad(lambda x: (F.avg_pool2d(x, *pool[:3]) ** 2).sum()), x * 0 + 1)


def test_pooling_keeps_no_windows_in_memory():
    x = np.random.default_rng(6).normal(size=(2, 3, 12, 12)).astype("f4")
    for pool in ((2, 2), (3, 2)):
        for function in (lambda x: F.max_pool2d(x, *pool),  # noqa: B023
                         lambda x: F.avg_pool2d(x, *pool),  # noqa: B023
                         cr.func.grad(lambda x: F.max_pool2d(x, *pool).sum())):  # noqa: B023
            exe = agree(function, x)
            assert len(exe.calls) <= 3
            assert max(home.size for k in exe.kernels for home in k.written()) <= x.size


def test_overlapping_windows_add_up_the_same_for_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(executable, "PARALLEL_FROM", 0)
    monkeypatch.setattr(executable, "CHUNK", 1e-9)
    x = np.random.default_rng(7).normal(size=(3, 5, 21, 17)).astype("f4")
    grad = cr.func.grad(lambda x: (F.max_pool2d(x, 3, 1) * 0.3).sum())
    found = []
    for threads in (1, 2, 4, 7):
        with num_threads(threads):
            exe, y, want = compiled(grad, x)
        found.append(y.tobytes())
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    assert len(set(found)) == 1
    scatter = next(call for call in exe.calls if call.kernel.kind == "scatter")
    assert scatter.units == 15                       # images and channels do not meet


def test_a_scatter_whose_turns_meet_is_not_divided():
    rng = np.random.default_rng(8)
    exe = agree(lambda x, i: cr.zeros(4, 6).scatter_add(0, i, x),
                rng.normal(size=(50, 6)).astype("f4"), rng.integers(0, 4, (50, 6)))
    assert [call.units for call in exe.calls if call.kernel.kind == "scatter"] == [1]


def test_places_of_an_extreme_count_over_several_axes():
    x = np.round(np.random.default_rng(9).normal(size=(3, 4, 6, 5)))
    agree(lambda x: x.permute(0, 2, 1, 3).reshape(3, 6, 20).argmax(-1), x)
    agree(lambda x: x.permute(0, 2, 1, 3).reshape(3, 6, 20).max(-1)[0], x)
    agree(lambda x: x.permute(3, 0, 2, 1).argmin(), x)
    agree(lambda x: x.permute(2, 0, 1).argmax(),
          np.random.default_rng(9).normal(size=(30, 41, 37)))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1"])
def test_the_first_of_equal_extremes_is_found(dtype):
    """Lanes that run along what is reduced are joined by value, then by place."""
    rng = np.random.default_rng(12)
    for n in (1, 2, 15, 16, 63, 64, 65, 130, 1000, 5000):
        x = rng.integers(0, 4 if dtype == "u1" else 40, (3, n)).astype(dtype)
        kinds = [x, np.zeros_like(x)]
        if dtype[0] == "f":
            odd = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf], (3, n), p=[.3, .3, .1, .1, .2])
            kinds += [odd.astype(dtype), np.where(np.isnan(odd), 1, odd).astype(dtype),
                      np.full((3, n), -np.inf, dtype)]
        for values in kinds:
            for function in (lambda x: x.argmax(1), lambda x: x.argmin(1),
                             lambda x: x[1].argmax(), lambda x: x.T.argmin(0)):
                _, y, want = compiled(function, values)
                np.testing.assert_array_equal(y, want)


def test_a_window_index_out_of_range_is_an_error():
    image = np.random.default_rng(10).normal(size=(1, 1, 4, 4)).astype("f4")

    @cr.compile
    def pick(x, i):
        windows = F.unfold(x, 2).mT.reshape(1, 9, 4)
        return cr.gather(windows, 2, i)

    inside = cr.tensor(np.full((1, 9, 1), 3))
    windows = np.lib.stride_tricks.sliding_window_view(image[0, 0], (2, 2)).reshape(9, 4)
    np.testing.assert_array_equal(pick(cr.tensor(image), inside).numpy()[0, :, 0], windows[:, 3])
    with pytest.raises(IndexError, match="4"):
        pick(cr.tensor(image), inside + 1)


# ---------------------------------------------------------------- denormal numbers


def test_functions_of_very_negative_numbers_are_as_fast_as_of_others():
    """A processor takes hundreds of cycles for an instruction whose result is denormal."""
    def seconds(function, x):
        function(x)
        times = []
        for _ in range(9):
            begun = time.thread_time()
            for _ in range(20):
                function(x)
            times.append(time.thread_time() - begun)
        return min(times)

    rng = np.random.default_rng(11)
    for function in (cr.exp, cr.sigmoid, F.softplus, F.silu, F.logsigmoid):
        made = cr.compile(function)
        for low in (-95.0, -87.8):
            usual, deep = (cr.tensor((at + rng.uniform(0, 0.5, 20_000)).astype("f4"))
                           for at in (-1.0, low))
            assert seconds(made, deep) < 6 * seconds(made, usual), (function, low)
