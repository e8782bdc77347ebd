"""The benchmark compares like with like: both libraries compute the same losses."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import chainrule

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import compiled
import eager
import load
from process import CONTENDERS, Contender, Failed, Process
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


def contender(name: str) -> Contender:
    return next(one for one in CONTENDERS if one.name == name)


def losses(of: Contender, workload: str, count: int = 6) -> list[float]:
    with Process(of, workload, threads=1) as process:
        process.start()
        return list(process.ask("losses", count=count)["losses"])


@pytest.mark.parametrize("name", ["chainrule eager", "compiled"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_contenders_in_their_own_processes_compute_the_same(workload: Workload, name: str) -> None:
    by_hand = losses(contender("numpy"), workload.name)
    ours = {"losses": losses(contender(name), workload.name)}
    assert compiled.losses_agree(ours, by_hand) is None
    assert by_hand[0] != by_hand[-1]  # it trains


@pytest.mark.parametrize("wrong", [0.501, float("nan")])
def test_a_contender_with_other_losses_is_refused(wrong: float) -> None:
    complaint = compiled.losses_agree({"losses": [0.6, wrong]}, [0.6, 0.5])
    assert complaint is not None and "its losses differ by" in complaint


def test_a_contender_that_is_not_there_says_why() -> None:
    absent = Contender("absent", "JAX", "numpy_peer", "no_such_library", {})
    with (
        Process(absent, "xor", threads=1) as process,
        pytest.raises(Failed, match="No module named 'no_such_library'"),
    ):
        process.start()


def test_a_contender_that_breaks_says_how() -> None:
    broken = Contender("broken", "JAX", "numpy_peer", "numpy", {"colour": "blue"})
    with Process(broken, "xor", threads=1) as process:
        process.start()
        with pytest.raises(Failed, match=r"unexpected keyword argument 'colour' \(exit code 1\)"):
            process.ask("first")


def test_everything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--only", "xor", "--peers", "NumPy", "eager", "--rounds", "2", "--first", "1"]
    assert compiled.main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    for name in ("numpy", "chainrule eager", "compiled"):
        first, steady = document["first"]["xor"][name], document["steady"]["xor"][name]
        assert first["cold"] > 0 and first["warm"] > 0 and first["import"] >= 0
        assert first["peak"] >= 0
        assert steady["forward"] > 0 and 0 < steady["step"] < 0.1
        assert steady["difference"] <= eager.LOSS_TOLERANCE
    assert document["steady"]["xor"]["compiled"]["call"] > 0
    assert compiled.report(document, markdown=True).count("| xor |") == 6


def compiled_document(ours: float) -> dict[str, Any]:
    times = {"compiled": ours, "torch": 3e-6, "torch fused": 2e-6, "jax": 4e-6}
    steady = {name: {"step": seconds, "forward": seconds / 2} for name, seconds in times.items()}
    first = {name: {"cold": 1.0, "warm": 0.5, "peak": 2**20} for name in times}
    steady["tinygrad"] = first["tinygrad"] = {"failed": "it has no compiler"}
    return {"threads": 1, "steady": {"xor": steady}, "first": {"xor": first}}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(0.2e-6, "0.10"), (1e-6, "0.50 (bar 0.15)"), (3e-6, "1.50 SLOWER (bar 0.15)")],
)
def test_the_best_peer_is_the_measure(ours: float, verdict: str) -> None:
    lines = compiled.report(compiled_document(ours), markdown=False).splitlines()
    row = next(line for line in lines if line.startswith("xor"))
    assert row.endswith(verdict) and "torch fused" in row
    assert "- tinygrad in xor: it has no compiler" in lines


def test_a_contender_nobody_knows_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no contender is called 'Theano'"):
        compiled.chosen_contenders(["Theano"])


def test_the_load_table_shows_what_misses_its_bar() -> None:
    good = {"1 quiet": 1.0, "1 busy": 1.0, "2 quiet": 0.5, "2 busy": 1.2}
    bad = {"1 quiet": 1.0, "1 busy": 1.0, "2 quiet": 0.9, "2 busy": 5.0}
    assert "below" not in load.report({"wide": {"compiled": good}}, markdown=False)
    text = load.report({"wide": {"compiled": bad, "jax": {"failed": "absent"}}}, markdown=False)
    assert "speed-up below 1.7, under load above 1.3" in text and "absent" in text
