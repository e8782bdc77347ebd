"""The way from Python into an executable: what it checks, what it leaves behind, who may run."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import compile_graph
from chainrule.compiler.machine import entrance
from chainrule.core.graph import trace
from chainrule.core.types import ArrayType


@pytest.fixture(params=["builtin", "ctypes"])
def way(request, monkeypatch):
    if request.param == "ctypes":
        monkeypatch.setattr(entrance, "_entry", lambda: None)
    return request.param


def doubled(shape=(4,)):
    graph = trace(lambda x, y: (x * 2 + y, x.sum()), ArrayType(shape), ArrayType(shape))
    return compile_graph(graph, [None, None])


def test_both_ways_compute_the_same(way):
    exe = doubled()
    assert (exe.enter is None) == (way == "ctypes")
    x, y = np.arange(4, dtype="f4"), np.ones(4, "f4")
    outputs = [np.zeros(4, "f4"), np.zeros((), "f4")]
    exe.run([x, y], outputs)
    assert outputs[0].tolist() == [1, 3, 5, 7] and outputs[1] == 6


def test_an_output_in_an_input_needs_no_array(way):
    graph = trace(lambda x: (x + 1, x * 2), ArrayType((3,)))
    exe = compile_graph(graph, [0, None])
    x, out = np.ones(3, "f4"), np.zeros(3, "f4")
    exe.run([x], [None, out])
    assert x.tolist() == [2, 2, 2] and out.tolist() == [2, 2, 2]


def test_what_is_no_list_of_arrays_is_refused():
    exe = doubled()
    x = np.zeros(4, "f4")
    for wrong in (([x], [x, x]), ([x, x, x], [x, x]), ([x, x], [x]), ((x, x), [x, x]),
                  ([x, 3], [x, x]), ([x, [1]], [x, x]), ([x, x], [x, "y"])):
        with pytest.raises(TypeError, match="list of its inputs"):
            exe.enter(*wrong)
    with pytest.raises(TypeError, match="list of its inputs"):
        exe.enter([x, x])


def test_reference_counts_stay():
    exe = doubled()
    x, y, out, total = (np.zeros(4, "f4"), np.zeros(4, "f4"), np.zeros(4, "f4"),
                        np.zeros((), "f4"))
    inputs, outputs = [x, y], [out, total]
    before = [sys.getrefcount(a) for a in (x, y, out, total, inputs, outputs)]
    for _ in range(2000):
        exe.run(inputs, outputs)
    assert [sys.getrefcount(a) for a in (x, y, out, total, inputs, outputs)] == before


def test_other_python_threads_run_meanwhile(way):
    graph = trace(lambda x: (x @ x).sum(), ArrayType((600, 600)))
    exe = compile_graph(graph, [None])
    x, out = np.ones((600, 600), "f4"), np.zeros((), "f4")
    turns, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0.001)

    other = threading.Thread(target=count)
    other.start()
    before = turns[0]
    for _ in range(60):
        exe.run([x], [out])
    found = turns[0] - before
    stop.set()
    other.join()
    assert found > 5, "the interpreter's lock was kept"


def test_executables_go_when_nobody_holds_them():
    exe = doubled((5,))
    gone = weakref.ref(exe)
    del exe
    gc.collect()
    assert gone() is None


def test_a_hundred_thousand_calls_leave_nothing_behind():
    resource = pytest.importorskip("resource", reason="memory is measured by POSIX's getrusage")

    @cr.compile
    def step(x):
        return (x * 2).tanh().sum()

    x = cr.ones(8)
    for _ in range(2000):
        step(x)
    gc.collect()
    before, objects = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(gc.get_objects())
    for _ in range(100_000):
        step(x)
    gc.collect()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2000, f"{grown} KiB more after 100,000 calls"
    assert len(gc.get_objects()) - objects < 100
