"""Random graphs, compiled against their NumPy evaluation: the meaning."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import compile_graph
from chainrule.compiler.kernels import group
from chainrule.core.errors import ChainruleError
from chainrule.core.graph import Graph, trace
from chainrule.core.types import ArrayType

SIZES = (0, 1, 1, 2, 3, 5, 8, 17, 33, 64)

UNARY = [
    lambda x: x.tanh(), lambda x: x.sin(), lambda x: (x * 0.3).exp(), lambda x: x.relu(),
    lambda x: x * 2 - 1, lambda x: -x, lambda x: x.abs(), lambda x: x.square(),
    lambda x: 1 / (x.square() + 1), lambda x: (x.abs() + 0.5).log(), lambda x: x.sigmoid(),
    lambda x: cr.where(x > 0.1, x, x * 0.5), lambda x: x.clamp(-0.7, 0.9),
    lambda x: (x * 1.37 + 0.21).floor() + x,
    lambda x: (x > 0).to(x.dtype) * x, lambda x: x ** 3, lambda x: (x * x + 0.3).sqrt(),
    lambda x: cr.nn.functional.gelu(x), lambda x: cr.nn.functional.softplus(x),
]
BINARY = [
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / (y * y + 1),
    lambda x, y: cr.maximum(x, y), lambda x, y: cr.minimum(x, y),
    lambda x, y: cr.where(x > y, x, y * 0.5), lambda x, y: cr.atan2(x, y.abs() + 1),
]


def axis(rng, x):
    return int(rng.integers(-x.ndim, x.ndim))


def reduced(rng, x):
    d, keep = axis(rng, x), bool(rng.integers(2))
    which = rng.integers(9)
    if which == 0:
        return x.sum()
    if which == 1:
        return x.mean(d, keepdim=keep)
    if which == 2:
        return x.amax(d, keepdim=keep)
    if which == 3:
        return x.amin(d)
    if which == 4:
        return x.logsumexp(d)
    if which == 5:
        return x.argmax(d).to(x.dtype)
    if which == 6:
        return (x > 0).any(d).to(x.dtype)
    if which == 7:
        return x.var(d, correction=0)
    return x.sum(d, keepdim=keep)


def along(rng, x):
    d = axis(rng, x)
    which = rng.integers(5)
    if which == 0:
        return cr.softmax(x, d)
    if which == 1:
        return cr.log_softmax(x, d)
    if which == 2:
        return x.cumsum(d)
    if which == 3:
        return x.sort(d)[0]
    return x.flip(d)


def moved(rng, x):
    which = rng.integers(9)
    if which == 0 or not x.numel():
        return x.reshape(-1)
    if which == 1:
        return x.unsqueeze(int(rng.integers(0, x.ndim + 1)))
    if which == 2 and x.ndim:
        return x.permute(*[int(i) for i in rng.permutation(x.ndim)])
    if which == 3 and x.ndim:
        start = int(rng.integers(0, x.shape[0]))
        return x[start:]
    if which == 4 and x.ndim:
        return x[..., ::2]
    if which == 5 and x.ndim:
        return cr.cat([x, x * 2], axis(rng, x))
    if which == 6 and x.ndim:
        index = cr.tensor(rng.integers(-x.shape[0], x.shape[0], size=3))
        return x[index]
    if which == 7 and x.ndim > 1:
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    if which == 8 and x.ndim:
        index = cr.tensor(rng.integers(0, x.shape[-1], size=(*x.shape[:-1], 2)))
        return x.gather(-1, index)
    return x.unsqueeze(0).expand(3, *x.shape)


def changed(rng, x):
    y = x * 1.5
    if y.numel() and y.ndim:
        y[int(rng.integers(0, y.shape[0]))] = 0.25
        y[..., -1:] += 1
    return y


def differentiated(rng, x):
    f = UNARY[rng.integers(len(UNARY))]
    return cr.func.grad(lambda t: (f(t) * t).sum())(x)


def program(rng, inputs):
    values = list(inputs)
    for _ in range(int(rng.integers(2, 10))):
        x = values[int(rng.integers(max(0, len(values) - 4), len(values)))]
        which = rng.integers(10)
        if which < 3 or not x.ndim:
            made = UNARY[rng.integers(len(UNARY))](x)
        elif which == 3:
            made = reduced(rng, x)
        elif which == 4:
            made = along(rng, x)
        elif which == 5:
            made = moved(rng, x)
        elif which == 6 and x.ndim >= 2:
            made = x @ x.mT if rng.integers(2) else x.mT @ x
            made = made / max(x.shape[-2:])
        elif which == 7:
            made = changed(rng, x)
        elif which == 8:
            made = differentiated(rng, x)
        else:
            fits = [v for v in values if broadcasts(v, x)]
            made = BINARY[rng.integers(len(BINARY))](x, fits[int(rng.integers(len(fits)))])
        if made.numel() <= 4000 and made.ndim <= 5:
            values.append(made)
    outputs = [values[-1]]
    outputs += [values[int(i)] for i in rng.integers(0, len(values), size=2)]
    return outputs


def broadcasts(x, y):
    try:
        np.broadcast_shapes(tuple(x.shape), tuple(y.shape))
    except ValueError:
        return False
    return True


def some_inputs(rng, dtype):
    made = []
    for _ in range(int(rng.integers(1, 4))):
        shape = tuple(int(n) for n in rng.choice(SIZES, size=int(rng.integers(0, 4))))
        made.append(np.asarray(rng.normal(size=shape), dtype))
    return made


def written_into(rng, graph: Graph) -> list[int | None]:
    """For some outputs an input of their type, whose memory they overwrite."""
    free = list(range(len(graph.inputs)))
    written: list[int | None] = []
    for out in graph.outputs:
        fits = [i for i in free if hasattr(out, "type") and graph.inputs[i].type == out.type]
        if fits and rng.integers(2):
            free.remove(fits[0])
            written.append(fits[0])
        else:
            written.append(None)
    return written


def compare(graph: Graph, arrays, written, tolerance) -> None:
    want = graph.evaluate(*arrays)
    exe = compile_graph(graph, written)
    given = [np.array(a, order="C") for a in arrays]
    outputs = [np.full(w.shape, -77, w.dtype) for w in map(np.asarray, want)]
    exe.run(given, outputs)
    for k, w in enumerate(want):
        got = outputs[k] if written[k] is None else given[written[k]]
        scale = 1 + np.max(np.abs(w[np.isfinite(w)]), initial=0)
        np.testing.assert_allclose(got, w, rtol=tolerance, atol=tolerance * scale)
    kept = [i for i in range(len(given)) if i not in written]
    for i in kept:
        np.testing.assert_array_equal(given[i], arrays[i])


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtype = np.float32 if seed % 2 else np.float64
    arrays = some_inputs(rng, dtype)
    choices = int(rng.integers(1 << 30))
    with np.errstate(all="ignore"):
        try:
            graph = trace(lambda *xs: program(np.random.default_rng(choices), xs),
                          *[ArrayType(a.shape, a.dtype) for a in arrays])
        except (ChainruleError, ZeroDivisionError):
            return                        # a program that eager refuses, too
        tolerance = 2e-4 if dtype == np.float32 else 1e-11
        compare(graph, arrays, written_into(rng, graph), tolerance)


@pytest.mark.parametrize("block", range(12))
def test_random_graphs(block):
    for seed in range(25 * block, 25 * block + 25):
        check(seed)


@pytest.mark.parametrize("block", range(4))
def test_random_graphs_in_blocks_of_rows(block, monkeypatch):
    """Kernels take turns wherever they can, as they do on arrays that leave the cache."""
    monkeypatch.setattr(group, "FROM", 1)
    monkeypatch.setattr(group, "BLOCK", 1)
    for seed in range(1000 + 25 * block, 1025 + 25 * block):
        check(seed)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_kernels_over_many_rows_take_turns(dtype):
    """A softmax that leaves the cache; row counts that are no multiple of the block."""
    def function(x):
        return cr.softmax(x, 1), cr.log_softmax(x, 1).sum(1), x.var(1, correction=0)

    def loss(x):
        return (cr.nn.functional.cross_entropy(x, cr.arange(x.shape[0]) % x.shape[1]),)

    x = np.random.default_rng(1).normal(size=(256, 1000)).astype(dtype)
    compare(trace(loss, ArrayType(x.shape, x.dtype)), [x], [None], 1e-5)
    for rows in (64, 2112, 2113, 5000):
        x = np.random.default_rng(rows).normal(size=(rows, 67)).astype(dtype)
        graph = trace(function, ArrayType(x.shape, x.dtype))
        compare(graph, [x], [None] * 3, 1e-5 if dtype == "f4" else 1e-12)
        if rows > 2000:
            assert compile_graph(graph, [None] * 3).groups
