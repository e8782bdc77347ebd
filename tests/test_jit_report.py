"""`step.report()` and CHAINRULE_SHOW: what a compiled function became, and nothing disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import chainrule as cr


def network():
    cr.manual_seed(0)
    model = cr.nn.Sequential(cr.nn.Linear(5, 7), cr.nn.Tanh(), cr.nn.Linear(7, 3))
    optimizer = cr.optim.Adam(model.parameters(), lr=0.1)

    @cr.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = cr.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def test_the_report_names_kernels_lines_and_reasons():
    _, step = network()
    step(cr.randn(6, 5), cr.arange(6) % 3)
    step(cr.randn(4, 5), cr.arange(4) % 3)
    text = str(step.report())
    assert "2 compiled" in text and "f32[6,5] became f32[4,5]" in text
    assert "test_jit_report.py:" in text and "tanh" in text and "GFLOP/s" in text
    assert "without sharing" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_report_as_data():
    _, step = network()
    step(cr.randn(6, 5), cr.arange(6) % 3)
    report = step.report()
    found = json.loads(report.json())
    entry = found["entries"][0]
    assert found["compiles"][0]["why"] == "first call"
    assert entry["native"] and entry["arena"] <= entry["buffers"]
    assert sum(k["flops"] for k in entry["kernels"]) == entry["flops"] > 0
    assert all(k["nanoseconds"] > 0 for k in entry["kernels"])
    assert "graph(" in report.graph() and "tanh(" in report.arrays()
    assert "contract" in report.kernels()
    assert "define " in report.llvm() and "ret" in report.assembly()


def test_measuring_changes_nothing():
    model, step = network()
    x, y = cr.randn(6, 5), cr.arange(6) % 3
    step(x, y)
    step(x, y)
    before = [p.detach().numpy().copy() for p in model.parameters()]
    grads = [p.grad.numpy().copy() for p in model.parameters()]
    str(step.report())
    for p, old, grad in zip(model.parameters(), before, grads, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), old)
        np.testing.assert_array_equal(p.grad.numpy(), grad)
    other, plain = network()
    for _ in range(2):
        plain(x, y)
    assert step(x, y).item() == plain(x, y).item()
    assert len(list(other.parameters())) == 4


def test_a_report_before_the_first_call_says_so():
    _, step = network()
    report = step.report()
    assert "0 compiled" in str(report)
    with pytest.raises(LookupError, match="not been called"):
        report.llvm()


@pytest.mark.parametrize(("channel", "seen"), [
    ("graph", "graph("), ("arrays", "a0: f32[3] = input"), ("kernels", "= map [3]"),
    ("memory", "arena of"), ("llvm", "define void"),
])
def test_each_stage_prints_its_result(channel, seen):
    code = "import chainrule as cr\nf = cr.compile(lambda x: x.tanh() * 2)\nf(cr.ones(3))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "CHAINRULE_SHOW": channel}, timeout=120,
                          check=True)
    assert seen in done.stderr
