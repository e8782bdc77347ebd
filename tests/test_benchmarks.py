"""The benchmark compares like with like: both libraries compute the same losses."""

import sys
from pathlib import Path

import pytest

import chainrule

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import eager
from workloads import WORKLOADS, Workload

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_losses_agree_before_anything_is_timed(workload: Workload) -> None:
    differences = eager.compare_losses(workload, chainrule, torch)
    assert set(differences) >= {"chainrule", "numpy"}


def test_a_different_computation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = next(w for w in WORKLOADS if w.name == "xor")
    monkeypatch.setattr(eager, "LOSS_TOLERANCE", -1.0)
    with pytest.raises(eager.LossesDiffer, match="xor: the losses of numpy differ"):
        eager.compare_losses(workload, torch, torch)


def test_the_report_shows_rows_that_lose() -> None:
    times = {"numpy": 1e-6, "chainrule": 4e-6, "torch": 2e-6, "torch fused": 8e-6}
    text = eager.report({"step": {"xor": times}}, markdown=False)
    assert "0.50x SLOWER" in text
    assert "2.00x" in text
