"""The command line: training, stopping, resuming, predicting, and every way to go wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli import loop, report
from chainrule.cli.loop import Progress
from chainrule.cli.main import main
from chainrule.cli.model_file import load_model
from chainrule.cli.preparation import split_rows
from chainrule.cli.settings import Settings
from chainrule.cli.train import set_up
from chainrule.data import load_digits, read_examples
from chainrule.io import load_metadata


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def classes_csv(rows: int = 120, name: str = "flowers.csv") -> str:
    """Three classes that two numbers and a category tell apart."""
    rng = np.random.default_rng(0)
    lines = ["long,wide,place,kind"]
    for row in range(rows):
        kind = row % 3
        long, wide = rng.normal((kind, -kind), 0.4)
        lines.append(f"{long:.4f},{wide:.4f},{'north' if row % 2 else 'south'},{'abc'[kind]}")
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def numbers_csv(rows: int = 120, name: str = "prices.csv") -> str:
    """A price that follows from two numbers, in thousands."""
    rng = np.random.default_rng(1)
    lines = ["area,age,price"]
    for area, age in rng.uniform(0, 1, (rows, 2)):
        lines.append(f"{area:.5f},{age:.5f},{200_000 + 80_000 * area - 30_000 * age**2:.2f}")
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def chainrule(*words: str) -> int:
    return main([*words])


def environment(**more: str) -> dict[str, str]:
    folder = str(Path(cr.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **more}


COMMAND = [sys.executable, "-m", "chainrule"]


# --- training ------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(10))
def test_digits_with_defaults_reach_97_percent(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chainrule("train", "digits", "--seed", str(seed), "--quiet", "--json", "out.json") == 0
    results = json.loads(Path("out.json").read_text())
    assert results["held_out"]["rows"] == 359
    assert results["held_out"]["accuracy"] >= 0.97
    assert sum(results["seconds"]) < 60
    assert re.fullmatch(
        r"accuracy 9[789]\.\d % on 359 held-out rows, saved digits\.safetensors\n",
        capsys.readouterr().out,
    )


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert chainrule("train", classes_csv(), "--epochs", "12", "--lr", "0.02") == 0
    shown = capsys.readouterr().out
    for piece in (
        "flowers.csv: 120 rows, 3 columns as 4 inputs",
        "target 'kind': 3 classes (a, b, c)",
        "96 rows to train on, 24 held out",
        "4 → 64 → 64 → 3, relu, dropout 0.2: 4,675 parameters",
        "adam at rate 0.02, one cycle, cross_entropy loss",
        "12 epochs of 3 steps of 32 rows, seed 0",
        "epoch  1/12", "epoch 12/12", "── training", "─ ─ held out", "of 24 held-out rows",
        "rows: true class, columns: predicted", "per epoch",
        "0.weight  64 × 4", "6.bias    3", "verdict    ", "saved      flowers.safetensors (",
        "chainrule predict flowers.safetensors flowers.csv", "chainrule explain e1",
    ):
        assert piece in shown
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_regression(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", numbers_csv(), "--layers", "32", "--json", "out.json"]
    assert chainrule(*arguments, "--activation", "tanh") == 0
    shown = capsys.readouterr().out
    assert "target 'price': numbers" in shown
    assert "confusion" not in shown
    results = json.loads(Path("out.json").read_text())
    assert results["held_out"]["r2"] > 0.98
    assert 0 < results["held_out"]["rmse"] < 4000  # in the price's own unit
    assert chainrule("predict", "prices.safetensors", "prices.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["row", "price"]
    assert 150_000 < float(lines[1].split()[1]) < 300_000
    assert re.match(r"RMSE \d+, R² 0\.9\d+ on 120 rows", lines[-1])


@pytest.mark.parametrize("options", [
    ["--optimizer", "sgd"], ["--optimizer", "rmsprop", "--momentum", "0.5"],
    ["--optimizer", "adamw", "--weight-decay", "0.1"], ["--schedule", "none"],
    ["--schedule", "cosine"], ["--schedule", "step"], ["--activation", "gelu"],
    ["--activation", "silu"], ["--activation", "leaky_relu"], ["--activation", "sigmoid"],
    ["--layers", "0"], ["--layers", "8,8,8"], ["--dropout", "0.5"], ["--clip", "0.1"],
    ["--batch", "1"], ["--batch", "1000"], ["--validation", "0"], ["--validation", "0.5"],
    ["--target", "place"], ["--target", "place", "--loss", "bce"], ["--ignore", "place,wide"],
    ["--target", "long", "--loss", "l1"], ["--target", "long", "--loss", "smooth_l1"],
])
def test_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data = classes_csv(40)
    assert chainrule("train", data, "--epochs", "3", "--save", "m.safetensors", *options) == 0
    assert chainrule("predict", "m.safetensors", data) == 0
    assert capsys.readouterr().err == ""


def test_bce_and_cross_entropy_agree_on_two_classes() -> None:
    data = classes_csv(600)
    rows = Path(data).read_text().replace(",c\n", ",b\n")
    Path(data).write_text(rows)
    for loss in ("bce", "cross_entropy"):
        chainrule("train", data, "--loss", loss, "--quiet", "--json", f"{loss}.json")
        # The clusters overlap: 1 - Φ(0.707 / 0.4) = 3.9 % cannot be told apart.
        assert json.loads(Path(f"{loss}.json").read_text())["held_out"]["accuracy"] > 0.92


def test_arrays_and_images(shared_data: Path) -> None:
    images, labels = load_digits()
    np.savez("some.npz", x_train=images[:400], y_train=labels[:400], x_test=images[400:500],
             y_test=labels[400:500])
    assert chainrule("train", "some.npz", "--epochs", "8", "--json", "o.json", "--quiet") == 0
    results = json.loads(Path("o.json").read_text())
    assert results["held_out"]["rows"] == 100
    assert results["held_out"]["accuracy"] > 0.7
    pair = str(shared_data / "mnist" / "t10k-labels-idx1-ubyte.gz")
    options = ["--epochs", "2", "--batch", "128", "--quiet", "--json", "m.json"]
    assert chainrule("train", pair, *options) == 0
    assert json.loads(Path("m.json").read_text())["held_out"]["accuracy"] > 0.9


def test_many_classes_are_shown_as_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["x,y"] + [f"{row % 30 + row / 1e4},class {row % 30:02}" for row in range(300)]
    Path("many.csv").write_text("\n".join(lines) + "\n")
    assert chainrule("train", "many.csv", "--epochs", "2") == 0
    shown = capsys.readouterr().out
    assert re.search(r"confusion +\d+ × class \d\d taken for class \d\d", shown)


# --- honesty of the held-out part ----------------------------------------------------------------

def test_held_out_rows_have_no_influence_on_the_model() -> None:
    data = numbers_csv(60)
    lines = Path(data).read_text().splitlines()
    held = split_rows(None, 60, 0.2, 3)[1]
    for row in held:
        area, age, price = (float(cell) for cell in lines[row + 1].split(","))
        lines[row + 1] = f"{area * 1000},{age - 50},{price * 7}"
    Path("changed.csv").write_text("\n".join(lines) + "\n")
    for name in (data, "changed.csv"):
        assert chainrule("train", name, "--seed", "3", "--epochs", "4", "--quiet") == 0
    first, second = cr.load("prices.safetensors"), cr.load("changed.safetensors")
    for part in ("model", "inputs", "target"):
        for key, value in first[part].items():
            assert value.tolist() == second[part][key].tolist()


# --- the same again ------------------------------------------------------------------------------

def test_the_same_command_makes_the_same_file_and_replaces_none() -> None:
    data = classes_csv()
    for _ in range(3):
        assert chainrule("train", data, "--epochs", "3", "--quiet") == 0
    first, *others = sorted(Path().glob("*.safetensors"))
    assert [path.name for path in (first, *others)] == [
        "flowers-2.safetensors", "flowers-3.safetensors", "flowers.safetensors",
    ]
    assert {path.read_bytes() for path in others} == {first.read_bytes()}


def test_seeds_differ() -> None:
    data = classes_csv()
    for seed in "12":
        assert chainrule("train", data, "--epochs", "1", "--seed", seed, "--quiet") == 0
    assert Path("flowers.safetensors").read_bytes() != Path("flowers-2.safetensors").read_bytes()


@pytest.mark.parametrize("option", ["--save", "--json"])
def test_a_file_is_replaced_only_by_force(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = classes_csv()
    Path("mine").write_text("precious")
    assert chainrule("train", data, "--epochs", "1", option, "mine") == 2
    assert Path("mine").read_text() == "precious"
    assert "the file exists. Give --force to replace it" in capsys.readouterr().err
    assert chainrule("train", data, "--epochs", "1", option, "mine", "--force", "--quiet") == 0
    assert Path("mine").read_bytes()[:8] != b"precious"
    assert chainrule("train", data, "--epochs", "1", option, data, "--force") == 2
    assert "read by the same command" in capsys.readouterr().err


# --- stopping and resuming -----------------------------------------------------------------------

STRAIGHT = ["--epochs", "6", "--layers", "16", "--batch", "16"]


def history(path: str) -> Any:
    results = json.loads(Path(path).read_text())
    return results["history"], results["gradient_norms"], results["held_out"]


@pytest.mark.parametrize("options", [
    [], ["--optimizer", "sgd", "--schedule", "cosine"], ["--schedule", "none", "--clip", "0.5"],
    ["--optimizer", "rmsprop", "--momentum", "0.3", "--schedule", "step"],
    ["--optimizer", "adamw", "--dropout", "0"],
])
@pytest.mark.parametrize("stop", [1, 6, 13, 23])
def test_a_resumed_run_equals_an_uninterrupted_one(options: list[str], stop: int) -> None:
    data = classes_csv()
    words = ["train", data, *STRAIGHT, *options, "--quiet"]
    assert chainrule(*words, "--json", "straight.json") == 0
    count = 0

    def handler(number: int) -> None:
        nonlocal count
        count += 1
        if count == stop:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        real = loop.count_right
        patch.setattr(loop, "count_right", lambda *a: (handler(0), real(*a))[1])
        assert chainrule(*words, "--save", "half.safetensors") == 130
    steps = load_model(Path("half.safetensors")).progress
    assert steps.epoch < 6
    command = ["train", data, "--resume", "half.safetensors", "--quiet", "--json", "resumed.json"]
    assert chainrule(*command) == 0
    assert history("resumed.json") == history("straight.json")
    straight, resumed = cr.load("flowers.safetensors"), cr.load("half.safetensors")
    for name, value in straight["model"].items():
        assert value.tolist() == resumed["model"][name].tolist()
    assert Path("half.safetensors").read_bytes() == Path("flowers.safetensors").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_saves_reports_and_can_be_resumed(sent: signal.Signals, code: int) -> None:
    data = classes_csv(300)
    words = ["train", data, "--epochs", "400", "--layers", "32"]
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )
    shown = []
    assert process.stdout is not None
    for line in process.stdout:
        shown.append(line)
        if line.startswith("epoch"):
            process.send_signal(sent)
            break
    rest, errors = process.communicate(timeout=60)
    whole = "".join(shown) + rest
    assert errors == ""
    assert process.returncode == code
    assert re.search(r"stopped    by .* in epoch \d+ of 400, step \d+ of 8", whole)
    assert "saved      flowers.safetensors" in whole
    assert "chainrule train flowers.csv --resume flowers.safetensors" in whole
    assert chainrule("train", data, "--resume", "flowers.safetensors", "--quiet",
                     "--json", "resumed.json") == 0
    assert chainrule(*words, "--quiet", "--json", "straight.json") == 0
    assert history("resumed.json") == history("straight.json")


def test_a_finished_run_goes_on_with_more_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    data = classes_csv()
    steady = ["--schedule", "none", "--quiet"]
    assert chainrule("train", data, "--epochs", "6", *steady, "--json", "six.json") == 0
    assert chainrule("train", data, "--epochs", "2", *steady, "--save", "two.safetensors") == 0
    before = Path("two.safetensors").read_bytes()
    capsys.readouterr()
    assert chainrule("train", data, "--resume", "two.safetensors") == 0
    assert "has its 2 epochs already; give a larger --epochs" in capsys.readouterr().out
    assert Path("two.safetensors").read_bytes() == before
    resumed = ["train", data, "--resume", "two.safetensors", "--epochs", "6", "--quiet"]
    assert chainrule(*resumed, "--json", "more.json") == 0
    assert history("more.json") == history("six.json")


def test_more_epochs_begin_a_new_schedule() -> None:
    data = classes_csv()
    assert chainrule("train", data, "--epochs", "3", "--quiet") == 0
    model = "flowers.safetensors"
    command = ["train", data, "--resume", model, "--epochs", "7", "--json", "o.json", "--force"]
    assert chainrule(*command) == 0
    rates = [line["learning_rate"] for line in json.loads(Path("o.json").read_text())["history"]]
    assert len(rates) == 7
    assert rates[2] < 0.1 * max(rates[3:])
    assert rates[6] < 0.1 * max(rates[3:])


@pytest.mark.parametrize(("options", "words"), [
    (["--layers", "8"], "--layers was 64,64 in the saved run"),
    (["--seed", "5"], "--seed was 0"),
    (["--clip", "1"], "--clip was not given"),
    (["--resume", "no.safetensors"], "there is no file no.safetensors"),
])
def test_resuming_with_other_settings(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = classes_csv()
    chainrule("train", data, "--epochs", "1", "--quiet")
    model = "flowers.safetensors"
    before = Path(model).read_bytes()
    assert chainrule("train", data, "--resume", model, "--epochs", "2", *options) == 2
    assert words in capsys.readouterr().err
    assert Path(model).read_bytes() == before


def test_resuming_on_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    chainrule("train", classes_csv(), "--epochs", "1", "--quiet")
    other = classes_csv(121, "more.csv")
    assert chainrule("train", other, "--resume", "flowers.safetensors", "--epochs", "2") == 2
    message = capsys.readouterr().err
    assert "more.csv (121 rows) is not the data" in message
    assert "flowers.csv, 120 rows" in message


# --- going wrong ---------------------------------------------------------------------------------

BAD = {
    "absent": (None, [], "there is no file bad.csv"),
    "ragged": ("a,b\n1,2\n3\n", [], "bad.csv: row 2 (line 3) has 1 cells"),
    "missing": ("a,b\n1,2\n,3\n", [], "bad.csv: row 2 (line 3), column 'a': the cell is empty"),
    "text": ("a,b\n1,2\n2,3\nx,3\n", [], "row 3 (line 4), column 'a': 'x' is not a number"),
    "infinite": ("a,b\n1,2\ninf,3\n", [], "row 2 (line 3), column 'a': 'inf' is not a finite"),
    "no column": ("a,b\n1,2\n", ["--target", "c"], "there is no column 'c'"),
    "one class": ("a,b\n1,x\n2,x\n", [], "'b' is the same in all 2 rows"),
    "few rows": ("a,b\n1,x\n2,y\n", [], "2 rows are too few"),
    "mse on classes": ("a,b\n1,x\n2,y\n", ["--loss", "mse"], "--loss mse compares numbers"),
    "bce on three": ("a,b\n1,x\n2,y\n3,z\n", ["--loss", "bce"], "the target has 3"),
    "cross entropy on numbers": ("a,b\n1,.5\n2,.1\n", ["--loss", "cross_entropy"],
                                 "--loss cross_entropy is for classes"),
    "momentum": ("a,b\n" + "1,x\n2,y\n" * 5, ["--momentum", "0.9"], "adam has no --momentum"),
    "no folder": ("a,b\n1,x\n2,y\n", ["--save", "no/m"], "--save no/m: there is no folder no"),
    "folder": ("a,b\n1,x\n2,y\n", ["--save", "."], "this is a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_and_options_end_with_2_and_write_nothing(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, options, words = BAD[name]
    if content is not None:
        Path("bad.csv").write_text(content)
    before = sorted(os.listdir())
    assert chainrule("train", "bad.csv", *options) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(("words", "message"), [
    (["train", "digits", "--layers", "a"], "write 64,32 for two hidden layers"),
    (["train", "digits", "--epochs", "0"], "not a whole number at least 1"),
    (["train", "digits", "--lr", "-1"], "not a number above 0"),
    (["train", "digits", "--dropout", "nan"], "'nan' is not a number"),
    (["train", "digits", "--validation", "1"], "at least 0 and at most 0.9"),
    (["train"], "DATA"), ([], "COMMAND"), (["fly"], "fly"),
    (["trian", "digits"], "Did you mean train?"),
    (["train", "digits", "--optimiser", "adam"], "Did you mean --optimizer?"),
    (["predict", "m", "digits", "--outt=x"], "Did you mean --out?"),
    (["explain", "e1", "--widht", "3"], "chainrule explain: error"),
    (["train", "digits", "more"], "unknown: more. chainrule train --help"),
    (["train", "digits", "--seed", "9999999999"], "at most 2,147,483,647"),
])
def test_wrong_words(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        chainrule(*words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [
    ["--optimizer", "sgd", "--lr", "1000", "--schedule", "none"],
    ["--optimizer", "sgd", "--lr", "30", "--momentum", "0", "--schedule", "none"],
])
def test_a_diverging_loss_stops_and_leaves_the_model(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = numbers_csv()
    Path("model.safetensors").write_text("the good one")
    words = ["train", data, *options, "--save", "model.safetensors", "--force"]
    assert chainrule(*words) == 2
    message = capsys.readouterr().err
    assert re.search(
        r"error: training diverged: .* in epoch \d+, step \d+ of 3, at learning rate "
        r"(1e\+03|30) and gradient norm \S+", message,
    )
    assert "--lr" in message
    assert "--clip 1" in message
    assert Path("model.safetensors").read_text() == "the good one"


def test_a_full_disk_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert chainrule("train", classes_csv(), "--epochs", "1", "--quiet") == 2
    assert "No space left" in capsys.readouterr().err
    assert os.listdir() == ["flowers.csv"]


# --- predicting ----------------------------------------------------------------------------------

def test_predictions_are_the_models_own(capsys: pytest.CaptureFixture[str]) -> None:
    data = classes_csv()
    chainrule("train", data, "--epochs", "5", "--quiet")
    # New rows, columns in another order, one more, without the target.
    Path("new.csv").write_text("place,note,wide,long\nnorth,x,0.1,0.2\nsouth,y,-2,1.9\n")
    assert chainrule("predict", "flowers.safetensors", "new.csv", "--out", "out.csv") == 0
    shown = capsys.readouterr().out
    assert "2 rows written to out.csv" in shown
    assert "not used: 'note'" in shown
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))

    # The same by hand: the file's numbers and plain layers.
    state = cr.load("flowers.safetensors")
    raw = np.array([[0.2, 0.1, 1, 0], [1.9, -2, 0, 1]])  # long, wide, north, south
    mean, std = state["inputs"]["mean"].numpy(), state["inputs"]["std"].numpy()
    value = cr.from_numpy(((raw - mean) / std).astype(np.float32))
    weights = state["model"]
    for layer in (0, 3, 6):
        value = value @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        value = cr.relu(value) if layer < 6 else cr.softmax(value, dim=1)
    for row, expected in zip(rows, value.tolist(), strict=True):
        given = [float(row[f"probability of {name}"]) for name in "abc"]
        assert np.allclose(given, expected, atol=2e-6)
        assert row["kind"] == "abc"[int(np.argmax(expected))]
        assert float(row["probability"]) == max(given)


def test_digits_can_be_predicted_and_scored(capsys: pytest.CaptureFixture[str]) -> None:
    chainrule("train", "digits", "--epochs", "3", "--quiet")
    capsys.readouterr()
    assert chainrule("predict", "digits.safetensors", "digits") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["row", "digit", "probability"]
    assert len(lines) == 1 + 20 + 1 + 5 + 1
    assert float(re.match(r"accuracy (\S+) % of 1,797 rows", lines[-1])[1]) > 90  # type: ignore[index]
    images, _ = load_digits()
    np.savez("new.npz", x=images[:3])
    assert chainrule("predict", "digits.safetensors", "new.npz") == 0
    few = capsys.readouterr().out.splitlines()
    assert [line.split() for line in few] == [line.split() for line in lines[:4]]


@pytest.mark.parametrize(("content", "words"), [
    ("long,place\n1,north\n", "1 column that the model needs is missing: 'wide'"),
    ("long,wide,place\n1,2,west\n", "row 1 (line 2), column 'place': 'west' did not occur"),
    ("long,wide,place,kind\n1,2,north,z\n", "column 'kind': the class 'z' is unknown"),
])
def test_rows_that_the_model_cannot_take(
    content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chainrule("train", classes_csv(), "--epochs", "1", "--quiet")
    Path("new.csv").write_text(content)
    assert chainrule("predict", "flowers.safetensors", "new.csv", "--out", "out.csv") == 2
    assert words in capsys.readouterr().err
    assert not Path("out.csv").exists()


def test_files_that_are_no_models(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.pt").write_bytes(b"\x80\x02}q\x00.")
    cr.save({"w": cr.ones(2)}, "plain.safetensors")
    chainrule("train", classes_csv(), "--epochs", "1", "--quiet")
    whole = Path("flowers.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-7])
    state = cr.load("flowers.safetensors")
    state["model"]["0.weight"] = cr.ones(3, 3)
    described = load_metadata("flowers.safetensors")
    cr.save(state, "other.safetensors", described)
    for name, words in [
        ("a.pt", "this is a pickle"), ("plain.safetensors", "do not say which network"),
        ("cut.safetensors", "cut short"), ("other.safetensors", "does not fit its tensors"),
        ("digits", "there is no file digits"),
    ]:
        capsys.readouterr()
        assert chainrule("predict", name, "flowers.csv") == 2
        assert words in capsys.readouterr().err


def test_predict_never_writes_over_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    data = classes_csv()
    chainrule("train", data, "--epochs", "1", "--quiet")
    before = Path(data).read_bytes()
    for out in (data, "flowers.safetensors"):
        assert chainrule("predict", "flowers.safetensors", data, "--out", out, "--force") == 2
        assert "read by the same command" in capsys.readouterr().err
    Path("out.csv").write_text("old")
    assert chainrule("predict", "flowers.safetensors", data, "--out", "out.csv") == 2
    assert Path("out.csv").read_text() == "old"
    assert chainrule("predict", "flowers.safetensors", data, "--out", "out.csv", "--force") == 0
    assert Path(data).read_bytes() == before


def test_the_loop_is_usable_from_python() -> None:
    run = set_up(read_examples(classes_csv()), Settings(epochs=3, layers=(8,)), None)
    seen: list[int] = []

    def keep_going(progress: Progress) -> bool:
        seen.append(progress.epoch)
        return True

    assert loop.train(run.job, run.progress, run.epochs, keep_going)
    assert run.progress.epoch == 3
    assert run.progress.history[2]["loss"] < run.progress.history[0]["loss"]
    assert report.percent(0.981) == "98.1 %"


# --- the program itself --------------------------------------------------------------------------

def test_many_predictions_show_the_first_and_the_last(
    capsys: pytest.CaptureFixture[str]
) -> None:
    data = classes_csv(100)
    chainrule("train", data, "--epochs", "1", "--quiet", "--optimizer", "Adam", "--save",
              "m.safetensors")
    capsys.readouterr()
    assert chainrule("predict", "m.safetensors", data) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:21]] == [str(n) for n in range(1, 21)]
    assert lines[21] == "… 75 rows between: --out FILE.csv writes all of them"
    assert [line.split()[0] for line in lines[22:27]] == ["96", "97", "98", "99", "100"]


def test_version_and_help() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True,
                          env=environment(), check=True)
    assert done.stdout == f"chainrule {cr.__version__}\n"
    done = subprocess.run([*COMMAND, "train", "--help"], capture_output=True, text=True,
                          env=environment(COLUMNS="60"), check=True)
    assert "--resume" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60


def test_ctrl_c_while_the_command_loads_ends_it_in_one_line() -> None:
    interrupted = ("import importlib, sys\nimport chainrule.cli\n"
                   "def stop(name): raise KeyboardInterrupt\n"
                   "importlib.import_module = stop\nsys.exit(chainrule.cli.start())")
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True,
                          env=environment(), check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: stopped\n")


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_has_seen_enough() -> None:
    chainrule("train", "digits", "--epochs", "1", "--quiet")
    process = subprocess.Popen([*COMMAND, "predict", "digits.safetensors", "digits"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0


def on_a_terminal(width: int, *words: str, **variables: str) -> str:
    """What a command writes to a terminal of that width."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=theirs, stderr=theirs, stdin=theirs,
        env=environment(TERM="xterm-256color", COLUMNS=str(width), **variables),
    )
    os.close(theirs)
    pieces = []
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            pieces.append(piece)
        elif process.poll() is not None:
            break
    os.close(ours)
    assert process.wait(10) == 0
    return b"".join(pieces).decode()


@pytest.mark.parametrize("width", [100, 60, 44])
def test_a_terminal_gets_a_bar_and_colours_within_its_width(width: int) -> None:
    shown = on_a_terminal(width, "train", "digits", "--epochs", "20", "--save", "m.safetensors")
    assert "━" in shown
    assert "\x1b[32m" in shown
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    widths = [len(line) for part in visible.split("\n") for line in part.split("\r")]
    assert max(widths) <= width
    report_part = visible[visible.index("accuracy"):]
    assert "verdict" in report_part


def test_no_color_is_respected() -> None:
    shown = on_a_terminal(80, "train", classes_csv(), "--epochs", "2", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", shown.replace("\x1b[0m", ""))
