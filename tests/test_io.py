"""Saving and loading: exact, atomic, never pickle."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn, optim
from chainrule.io import FileFormatError, load_metadata, write_atomically

DTYPES = ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure and every bit."""
    if hasattr(a, "numpy"):
        first, second = a.numpy(), b.numpy()
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


def arrays() -> st.SearchStrategy[Any]:
    shapes = st.lists(st.integers(0, 3), max_size=3)
    return st.builds(
        lambda shape, dtype, seed: cr.from_numpy(
            np.asarray(np.random.default_rng(seed).uniform(0, 100, shape)).astype(dtype)
        ),
        shapes, st.sampled_from(DTYPES), st.integers(0, 9),
    )


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | arrays()
)
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("ab{}\n", max_size=3) | st.integers(-3, 3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(state=st.dictionaries(st.text("xyz", min_size=1, max_size=3), STATES, max_size=3))
def test_any_nested_state_comes_back_bit_by_bit(
    state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "nested.safetensors"
    cr.save(state, path)
    assert same(cr.load(path), state)


def test_a_state_dict_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model = nn.Linear(3, 2)
    path = tmp_path / "model.safetensors"
    cr.save(model.state_dict(), path)
    theirs = load_file(path)
    assert set(theirs) == {"weight", "bias"}
    assert np.array_equal(theirs["weight"], model.weight.detach().numpy())
    assert load_metadata(path) == {}
    other = nn.Linear(3, 2)
    other.load_state_dict(cr.load(path))
    assert same(other.weight.detach(), model.weight.detach())
    save_file({"b": np.ones((2, 0), "<f4"), "a": np.array(3)}, tmp_path / "theirs.safetensors")
    assert same(
        cr.load(tmp_path / "theirs.safetensors"),
        {"a": cr.tensor(3), "b": cr.ones(2, 0)},
    )


def test_views_and_tensors_with_gradients_are_stored_by_value(tmp_path: Path) -> None:
    whole = cr.arange(6.0).reshape(2, 3).requires_grad_()
    path = tmp_path / "views.safetensors"
    cr.save({"turned": whole.T, "row": whole[1], "number": np.float64(0.1)}, path)
    back = cr.load(path)
    assert back["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert back["row"].tolist() == [3, 4, 5]
    assert back["number"] == 0.1
    assert not back["turned"].requires_grad


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    upper = np.array([1.0, -2.5], "<f4").view("<u4") >> 16
    header = json.dumps(
        {"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    ).encode()
    path = tmp_path / "b.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + upper.astype("<u2").tobytes())
    assert cr.load(path)["w"].tolist() == [1.0, -2.5]


def trained(model: Any, optimizer: Any, steps: int, seed: int) -> list[float]:
    losses = []
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        x = cr.from_numpy(rng.standard_normal((8, 4)).astype(np.float32))
        loss = ((model(x) - x[:, :2]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("make", [
    lambda parameters: optim.Adam(parameters, lr=0.01, weight_decay=0.1),
    lambda parameters: optim.AdamW(parameters, lr=0.01, amsgrad=True),
    lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True),
    lambda parameters: optim.RMSprop(parameters, lr=0.01, momentum=0.5, centered=True),
])
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, make: Any) -> None:
    def fresh(seed: int) -> tuple[Any, Any]:
        cr.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        return model, make(model.parameters())

    model, optimizer = fresh(0)
    trained(model, optimizer, 5, seed=1)
    path = tmp_path / "checkpoint.safetensors"
    cr.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    expected = trained(model, optimizer, 5, seed=2)

    model, optimizer = fresh(1)
    state = cr.load(path)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert trained(model, optimizer, 5, seed=2) == expected


def test_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    cr.save({"a": [cr.ones(1)]}, path, {"note": "étude"})
    assert load_metadata(path) == {"note": "étude"}
    for bad in ({"note": 1}, {"chainrule.tree": "x"}):
        with pytest.raises(TypeError, match="metadata maps texts to texts"):
            cr.save({"a": cr.ones(1)}, path, bad)


@pytest.mark.parametrize(("state", "error", "words"), [
    (cr.ones(2), TypeError, "Tensor"),
    (nn.Linear(1, 1), TypeError, r"cr.save\(model.state_dict\(\), path\)"),
    ({"f": print}, TypeError, "f is a builtin_function_or_method"),
    ({"a": {"b": {1, 2}}}, TypeError, "a.b is a set"),
    ({1.5: 0}, TypeError, "keys are texts or whole numbers, got 1.5"),
    ({"a.b": cr.ones(1), "a": {"b": cr.ones(1)}}, ValueError, "both be stored as 'a.b'"),
    ({"a": np.array(["x"])}, TypeError, "dtype <U1"),
    ({"a": np.array([1j])}, TypeError, "dtype complex128"),
])
def test_what_cannot_be_saved(
    tmp_path: Path, state: Any, error: type[Exception], words: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(error, match=words):
        cr.save(state, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.safetensors"]


def torch_like_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))


FOREIGN = {
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "this is a pickle"),
    "torch": (torch_like_zip, "this is a pickle .*save_file"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.ones(1)), "zip archive"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(1)), "NumPy array"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("hello, this is text"), "not a safetensors file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_named(tmp_path: Path, name: str) -> None:
    write, words = FOREIGN[name]
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(FileFormatError, match=words):
        cr.load(path)


def test_a_real_pytorch_file_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(FileFormatError, match="this is a pickle"):
        cr.load(tmp_path / "model.pt")


def test_every_truncation_and_many_damages_are_noticed_or_harmless(tmp_path: Path) -> None:
    path, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    cr.save({"n": 1, "a": cr.arange(4.0), "b": {"c": cr.ones(2, 2)}}, path)
    content = path.read_bytes()
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=r"cut short|empty|not a safetensors file"):
            cr.load(cut)
    rng = random.Random(0)
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] = rng.randrange(256)
        cut.write_bytes(damaged)
        with contextlib.suppress(FileFormatError):  # a changed number cannot be noticed
            cr.load(cut)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file no\.safetensors"):
        cr.load("no.safetensors")


# --- atomic --------------------------------------------------------------------------------------

def test_an_existing_file_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"one", replace=False)
    with pytest.raises(FileExistsError, match="exists already"):
        write_atomically(path, b"two", replace=False)
    assert path.read_bytes() == b"one"
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes and links")
def test_modes_and_links_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "f", tmp_path / "link"
    old = os.umask(0o027)
    try:
        write_atomically(path, b"one")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    link.symlink_to(path)
    write_atomically(link, b"two")
    assert link.is_symlink()
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


WRITER = """
import sys
import chainrule as cr

path, number = sys.argv[1], 0
print("ready", flush=True)
while True:
    number += 1
    cr.save({"number": number, "values": cr.full((300_000,), float(number))}, path)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    rng = random.Random(0)
    last = 0
    for attempt in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": python_path()},
        )
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"ready"
        while not path.exists() and writer.poll() is None:
            time.sleep(0.001)
        if attempt == 7:            # however slow the disk: this one replaces its own file
            seen, until = {path.stat().st_mtime_ns}, time.monotonic() + 60
            while len(seen) < 4 and time.monotonic() < until:
                seen.add(path.stat().st_mtime_ns)
                time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.05))
        writer.kill()
        writer.wait()
        writer.stdout.close()
        state = cr.load(path)
        values = state["values"].numpy()
        assert values.shape == (300_000,)
        assert (values == state["number"]).all()
        last = max(last, state["number"])
    assert last > 1
    assert math.isfinite(last)


def python_path() -> str:
    folder = str(Path(cr.__file__).resolve().parents[1])
    return os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
