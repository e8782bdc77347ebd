"""Compiled graphs give the same bits for any number of threads, however their work is divided."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from test_compiled_graphs import program, some_inputs

import chainrule as cr
from chainrule.compiler import compile_graph, executable, num_threads
from chainrule.core.errors import ChainruleError
from chainrule.core.graph import trace
from chainrule.core.types import ArrayType


@pytest.fixture
def divided(monkeypatch):
    """Every kernel that can be divided is, into as many chunks as it has units."""
    monkeypatch.setattr(executable, "PARALLEL_FROM", 0)
    monkeypatch.setattr(executable, "CHUNK", 1e-9)


def traced(seed):
    rng = np.random.default_rng(seed)
    arrays = some_inputs(rng, np.float32 if seed % 2 else np.float64)
    choices = int(rng.integers(1 << 30))
    graph = trace(lambda *xs: program(np.random.default_rng(choices), xs),
                  *[ArrayType(a.shape, a.dtype) for a in arrays])
    return graph, arrays


def results(graph, arrays, threads):
    exe = compile_graph(graph, [None] * len(graph.outputs))
    outputs = [np.zeros(np.shape(w), w.dtype) for w in map(np.asarray, graph.evaluate(*arrays))]
    with num_threads(threads):
        exe.run([np.array(a, order="C") for a in arrays], outputs)
    return outputs


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("seed", range(60))
def test_bits_do_not_depend_on_threads(seed):
    with np.errstate(all="ignore"):
        try:
            graph, arrays = traced(seed)
        except (ChainruleError, ZeroDivisionError):
            return
        first = results(graph, arrays, 1)
        for threads in (2, 4, 7):
            for a, b in zip(first, results(graph, arrays, threads), strict=True):
                assert a.tobytes() == b.tobytes()


@pytest.mark.usefixtures("divided")
def test_adding_at_repeated_places_is_not_divided():
    graph = trace(lambda x, i: cr.zeros(3, 5).index_add(0, i, x), ArrayType((4000, 5)),
                  ArrayType((4000,), np.dtype("int64")))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(4000, 5)).astype("f4"), rng.integers(0, 3, 4000)]
    first = results(graph, arrays, 1)[0]
    np.testing.assert_allclose(first, graph.evaluate(*arrays)[0], rtol=1e-4, atol=1e-4)
    for _ in range(20):
        assert results(graph, arrays, 7)[0].tobytes() == first.tobytes()


@pytest.mark.usefixtures("divided")
def test_a_training_step_is_the_same_for_any_number_of_threads():
    def trained(threads):
        cr.manual_seed(3)
        model = cr.nn.Sequential(cr.nn.Linear(50, 70), cr.nn.Tanh(), cr.nn.Dropout(0.2),
                                 cr.nn.LayerNorm(70), cr.nn.Linear(70, 9))
        optimizer = cr.optim.Adam(model.parameters(), lr=0.01)

        @cr.compile
        def step(x, y):
            optimizer.zero_grad()
            loss = cr.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            cr.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        x, y = cr.randn(33, 50), cr.randint(0, 9, (33,))
        with num_threads(threads):
            losses = [step(x, y).item() for _ in range(10)]
        return losses, [p.detach().numpy().tobytes() for p in model.parameters()]

    first = trained(1)
    for threads in (2, 4, 7):
        assert trained(threads) == first


def test_two_python_threads_run_two_functions_and_share_one():
    @cr.compile
    def double(x):
        return x * 2 + 1

    @cr.compile
    def squares(x):
        return (x @ x.mT).tanh()

    x = cr.randn(60, 60)
    want = double(x).numpy(), squares(x).numpy()
    wrong: list[str] = []

    def work(function, expected):
        if not all(np.array_equal(function(x).numpy(), expected) for _ in range(300)):
            wrong.append("another result")

    workers = [threading.Thread(target=work, args=pair) for pair in
               ((double, want[0]), (squares, want[1]), (double, want[0]), (squares, want[1]))]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_runs_compiled_code():
    code = """
import os, chainrule as cr
f = cr.compile(lambda x: (x @ x.mT).sum())
x = cr.ones(700, 700)
with cr.num_threads(2):
    a = f(x).item()
    child = os.fork()
    if not child:
        os._exit(0 if f(x).item() == a else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert f(x).item() == a
print("fine")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.stdout.strip() == "fine", done.stderr
