"""The stubs say what the package offers, and a type checker believes them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from chainrule.testing.stubs import texts

ROOT = Path(__file__).resolve().parents[1]

GOOD = """
import numpy as np

import chainrule as cr
from chainrule import nn

x = cr.tensor([1.0, 2.0], requires_grad=True)
x.tanh().sum().backward()
y: cr.Tensor = cr.tanh(x) + 1.0
z: cr.Tensor = cr.matmul(x, y) * 2 - x.exp().mean()
(2.0 * z - z / 3).backward()
model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
loss = cr.nn.functional.mse_loss(model(x), cr.zeros(3))
loss.backward()
optimiser = cr.optim.SGD(model.parameters(), lr=0.1)
optimiser.step()
with cr.no_grad():
    x.mul_(2.0).add_(cr.ones(2), alpha=0.5)
slope = cr.func.grad(lambda t: (t * t).sum())(x)
a: cr.Tensor = x[0] @ x.T if x.ndim == 2 else cr.stack([x, x]).reshape(-1)[1:]
b: cr.Tensor = cr.where(x > 0, x, 0.0).to(cr.float64)
c: cr.Tensor = cr.concat([x, x]).swapaxes(0, 0) + cr.arcsin(x).clip(0.0, 1.0)
values = x.detach().numpy() + np.ones(2)
"""

BAD = """
import chainrule as cr

x = cr.tensor([1.0])
x.tanhh()
cr.matmull(x, x)
x.sum(dimension=0)
cr.tanh(x, x)
x + "one"
"""


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.name)
def test_committed_stubs_are_what_is_generated(path: Path) -> None:
    assert path.read_text("utf-8") == texts()[path], "run python -m chainrule.testing.stubs"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")
def test_a_type_checker_knows_right_from_wrong(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=",
         f"--cache-dir={tmp_path / 'cache'}", "good.py", "bad.py"],
        cwd=tmp_path, env={"MYPYPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True,
        check=False)
    assert "good.py" not in done.stdout, done.stdout + done.stderr
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert lines == {5, 6, 7, 8, 9}, done.stdout + done.stderr
