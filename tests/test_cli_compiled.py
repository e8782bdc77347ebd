"""`chainrule train` compiles its step: the same training, what it cost, and when it does not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli import loop, step
from chainrule.cli.main import main
from chainrule.cli.report import cost_text, duration
from chainrule.cli.step import Cost
from chainrule.compiler import compile_graph
from chainrule.core.config import settings
from chainrule.core.errors import BuildError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def rows_npz(rows: int = 100, numbers: bool = False) -> str:
    """Two noisy classes of four numbers, or a number that follows from them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    clean = x[:, 0] - 2 * x[:, 1] * x[:, 2]
    noisy = clean + rng.normal(0, 0.3, rows)
    np.savez("rows.npz", x=x, y=noisy if numbers else (noisy > 0).astype(np.int64))
    return "rows.npz"


def trained(name: str, *options: str, code: int = 0) -> dict[str, Any]:
    """The JSON of `chainrule train rows.npz`."""
    words = ["train", "rows.npz", "--quiet", "--json", f"{name}.json", *options]
    assert main([*words, "--force"]) == code
    results: dict[str, Any] = json.loads(Path(f"{name}.json").read_text())
    return results


def in_another_process(lines: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What comes of Python lines that use `main` and `step`."""
    folder = str(Path(cr.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
    program = ("import sys\nfrom chainrule.cli import step\nfrom chainrule.cli.main import main\n"
               + lines)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": path, **variables})


def compile_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile each batch size, however few of it there will be, after so many of it."""
    monkeypatch.setattr(step, "WORTH", 0)
    monkeypatch.setattr(step, "BEFORE", steps)


TIME = r"\d+(\.\d)? (ms|µs|s)"


# 80 rows to train on: two batches of 32 and one of 16, or five of 16.
@pytest.mark.parametrize("options", [
    ["--clip", "0.3"], ["--optimizer", "sgd", "--schedule", "cosine", "--dropout", "0"],
    ["--optimizer", "adamw", "--activation", "gelu"], ["--loss", "bce", "--layers", "8"],
    ["--optimizer", "rmsprop", "--momentum", "0.5", "--schedule", "step", "--batch", "16"],
    ["--layers", "0"], ["--batch", "1000"], ["--seed", "3", "--activation", "tanh"],
    ["--task", "regress"], ["--task", "regress", "--loss", "smooth_l1", "--dropout", "0.1"],
])
def test_compiled_and_eager_steps_train_alike(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_npz(numbers="regress" in options)
    compile_after(2, monkeypatch)
    options = ["--epochs", "7", "--lr", "0.01", *options]
    eager, compiled = trained("eager", "--eager", *options), trained("compiled", *options)
    assert eager["compile"]["compiled_steps"] == 0
    sizes = compiled["compile"]["sizes"]
    assert sizes == (1 if "--batch" in options else 2)
    steps = {"16": 35, "1000": 7}.get(options[options.index("--batch") + 1], 0) \
        if "--batch" in options else 21
    assert compiled["compile"]["python_steps"] == 2 * sizes
    assert compiled["compile"]["compiled_steps"] == steps - 3 * sizes  # the first one compiles
    assert len(compiled["history"]) == len(eager["history"]) == 7
    for ours, theirs in zip(compiled["history"], eager["history"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)
        assert ours["held_out_loss"] == pytest.approx(theirs["held_out_loss"], rel=2e-4)
        assert ours["learning_rate"] == theirs["learning_rate"]
    for name, norm in eager["gradient_norms"].items():
        assert compiled["gradient_norms"][name] == pytest.approx(norm, rel=2e-3, abs=1e-6)
    first, second = (cr.load(f"rows{end}.safetensors")["model"] for end in ("", "-2"))
    for name, value in first.items():
        assert np.allclose(value.numpy(), second[name].numpy(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("options", [
    [], ["--optimizer", "sgd", "--schedule", "cosine"], ["--schedule", "none", "--clip", "0.5"]])
@pytest.mark.parametrize("stop", [2, 9, 10, 14, 17])
def test_a_resumed_run_compiles_the_same_steps(
    options: list[str], stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_npz()
    compile_after(4, monkeypatch)  # full batches from step 7, the smaller from 15
    words = ["--epochs", "6", "--layers", "16", *options]
    straight = trained("straight", *words)
    count = 0

    def counting(*given: Any) -> None:
        nonlocal count
        count += 1
        if count == stop:
            signal.raise_signal(signal.SIGINT)
        require_sane(*given)

    require_sane = loop.require_sane
    monkeypatch.setattr(loop, "require_sane", counting)
    half = trained("half", *words, "--save", "half.safetensors", code=130)
    assert half["epochs"] == (stop - 1) // 3
    resumed = trained("resumed", "--resume", "half.safetensors")
    for name in ("history", "gradient_norms", "held_out", "training"):
        assert resumed[name] == straight[name]
    assert Path("half.safetensors").read_bytes() == Path("rows.safetensors").read_bytes()
    made = [result["compile"] for result in (straight, half, resumed)]
    all_steps = [sum(cost[key] for key in ("sizes", "python_steps", "compiled_steps"))
                 for cost in made]
    assert all_steps == [18, stop, 18 - stop]
    assert made[0]["python_steps"] == made[1]["python_steps"] + made[2]["python_steps"] == 8


def test_a_run_begun_eagerly_goes_on_eagerly(capsys: pytest.CaptureFixture[str]) -> None:
    rows_npz()
    with pytest.MonkeyPatch.context() as patch:
        compile_after(1, patch)
        trained("first", "--eager", "--epochs", "2", "--save", "m.safetensors")
        more = trained("more", "--resume", "m.safetensors", "--epochs", "4")
    assert more["settings"]["eager"]
    assert more["compile"]["reason"] == "--eager was given"
    assert more["compile"]["python_steps"] == 6
    trained("other", "--epochs", "2", "--save", "n.safetensors")
    capsys.readouterr()
    assert main(["train", "rows.npz", "--resume", "n.safetensors", "--eager"]) == 2
    assert "--eager was not given in the saved run" in capsys.readouterr().err


def test_a_short_run_compiles_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", rows_npz(), "--epochs", "3"]) == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert re.search("no, .* a step: it begins after 10 steps of a run of at least 500", said)


def test_the_page_says_what_compiling_cost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", rows_npz(), "--layers", "16", "--json", "o.json", "--force"]
    assert main([*words, "--epochs", "250"]) == 0
    assert re.search(rf"compiled   {TIME} a step instead of {TIME}; compiling took {TIME}[,\n]",
                     capsys.readouterr().out)
    cost = json.loads(Path("o.json").read_text())["compile"]
    assert (cost["mode"], cost["reason"], cost["sizes"]) == ("native", None, 1)
    assert cost["compiled_steps"] == 2 * 250 - 11  # a rate for each step: one compilation
    assert 0 < cost["compiled_step"] < cost["seconds"]
    compile_after(2, monkeypatch)
    assert main([*words, "--epochs", "7"]) == 0
    assert "compiling 2 batch sizes took" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_the_second_run_takes_its_code_from_the_cache() -> None:
    rows_npz()
    words = ["train", "rows.npz", "--layers", "16", "--epochs", "250", "--batch", "40"]
    for cached in (False, True):
        done = in_another_process(f"sys.exit(main({words}))", CHAINRULE_CACHE_DIR="cache")
        assert (done.returncode, done.stderr) == (0, "")
        said = re.sub(r"\s+", " ", done.stdout)
        assert re.search(rf"compiling took {TIME}(, from the cache)? confusion", said)
        assert ("from the cache" in said) is cached


@pytest.mark.parametrize("mode", ["off", "numpy"])
def test_the_setting_is_respected(
    mode: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_npz()
    compile_after(1, monkeypatch)
    with settings.using(compile=mode):
        assert main(["train", "rows.npz", "--epochs", "3", "--json", "o.json"]) == 0
    cost = json.loads(Path("o.json").read_text())["compile"]
    assert cost["mode"] == mode
    assert cost["sizes"] == (2 if mode == "numpy" else 0)
    assert not cost["cached"]
    words = "compiling 2 batch sizes for NumPy" if mode == "numpy" else "CHAINRULE_COMPILE is off"
    assert words in re.sub(r"\s+", " ", capsys.readouterr().out)


@pytest.mark.parametrize("options", [
    ["--optimizer", "sgd", "--lr", "1000", "--schedule", "none"],
    ["--optimizer", "sgd", "--lr", "30", "--momentum", "0", "--schedule", "none"],
])
def test_a_compiled_run_that_diverges_stops(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_npz(numbers=True)
    compile_after(0, monkeypatch)
    messages = []
    for more in ([], ["--eager"]):
        assert main(["train", "rows.npz", "--epochs", "9", *options, *more]) == 2
        messages.append(capsys.readouterr().err)
    assert re.search(r"error: training diverged: .* in epoch \d+, step \d+ of 3, at", messages[0])
    places = [re.search(r"epoch \d+, step \d+", message) for message in messages]
    assert places[0] is not None
    assert places[1] is not None
    assert places[0][0] == places[1][0]
    assert not list(Path().glob("*.safetensors"))


def test_a_machine_that_cannot_compile_trains_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_npz()
    compile_after(2, monkeypatch)
    eager = trained("eager", "--eager", "--epochs", "5")

    def unable(*_: Any) -> None:
        raise BuildError("no memory may be run as code here\nand more lines")

    monkeypatch.setattr("chainrule.compiler.compile_graph", unable)
    failed = trained("failed", "--epochs", "5")
    cost = failed["compile"]
    assert (cost["mode"], cost["sizes"], cost["python_steps"]) == ("off", 0, 15)
    assert cost["reason"] == "no memory may be run as code here"
    # The same random numbers were drawn again, and nothing was done twice.
    assert failed["history"] == eager["history"]

    calls: list[int] = []

    def unable_later(*given: Any) -> Any:
        calls.append(1)
        return compile_graph(*given) if len(calls) == 1 else unable()

    monkeypatch.setattr("chainrule.compiler.compile_graph", unable_later)
    cost = trained("later", "--epochs", "5")["compile"]
    assert (cost["mode"], cost["sizes"]) == ("off", 1)
    assert cost["compiled_steps"] > 0


def test_without_llvm_a_line_says_what_to_install() -> None:
    rows_npz()
    done = in_another_process(
        "sys.modules['llvmlite'] = None; step.WORTH = step.BEFORE = 1\n"
        "sys.exit(main(['train', 'rows.npz', '--epochs', '3']))", CHAINRULE_CACHE="false")
    assert (done.returncode, done.stderr) == (0, "")
    said = re.sub(r"\s+", " ", done.stdout)
    assert re.search(r"compiled no, .* a step: .*llvmlite.*pip install llvmlite", said)
    assert "saved rows.safetensors" in said


def a_cost(**given: Any) -> Cost:
    usual: dict[str, Any] = {
        "mode": "native", "reason": None, "sizes": 1, "seconds": 0.31, "cached": False,
        "python_steps": 100, "python_step": 1.1e-3, "compiled_steps": 900, "compiled_step": 62e-6}
    return Cost(**{**usual, **given})


OFF: dict[str, Any] = {"mode": "off", "sizes": 0}


@pytest.mark.parametrize(("given", "text"), [
    ({}, "62 µs a step instead of 1.1 ms; compiling took 310 ms"),
    ({"cached": True}, "62 µs a step instead of 1.1 ms; compiling took 310 ms, from the cache"),
    ({"python_step": None}, "62 µs a step; compiling took 310 ms"),
    ({"compiled_step": None}, "compiling took 310 ms"),
    ({"sizes": 2}, "62 µs a step instead of 1.1 ms; compiling 2 batch sizes took 310 ms"),
    ({"reason": "why"},
     "62 µs a step instead of 1.1 ms; compiling took 310 ms\nthen given up: why"),
    ({**OFF, "reason": "--eager was given"}, "no, 1.1 ms a step: --eager was given"),
    ({"sizes": 0}, "no, 1.1 ms a step: it begins after 10 steps of a run of at least 500"),
])
def test_the_cost_in_words(given: dict[str, Any], text: str) -> None:
    assert cost_text(a_cost(**given)) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (3.14e-6, "3.1 µs"), (62.4e-6, "62 µs"), (999.4e-6, "999 µs"), (999.6e-6, "1.0 ms"),
    (9.94e-3, "9.9 ms"), (9.96e-3, "10 ms"), (0.31, "310 ms"), (0.9996, "1.0 s"), (75, "75.0 s"),
    (130, "2 min 10 s"),
])
def test_times_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("rows", "size"), [(80, 32), (80, 16), (80, 1000), (80, 80), (80, 1)])
def test_batches_of_a_size_are_counted(rows: int, size: int) -> None:
    job: Any = SimpleNamespace(training=range(rows), loader=SimpleNamespace(batch_size=size))
    of_an_epoch = [min(size, rows - start) for start in range(0, rows, size)]
    whole = of_an_epoch * 3
    for number, batch in enumerate(whole):
        progress = loop.Progress(number // len(of_an_epoch))
        progress.totals.steps = number % len(of_an_epoch)
        found = loop.batches_like(batch, job, progress, 3)
        assert found == (whole[:number].count(batch), whole.count(batch))


@pytest.mark.parametrize(("came", "coming", "worth"), [
    (0, 10**6, False), (9, 500, False), (10, 500, True), (10, 499, False), (400, 499, False)])
def test_what_is_worth_compiling(came: int, coming: int, worth: bool) -> None:
    assert step.worth_compiling(came, coming) is worth
