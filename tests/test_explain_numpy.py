"""style="numpy": scripts of NumPy alone, run in a process of their own, find the same gradients."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli.main import main
from chainrule.core.kinds import elementwise
from chainrule.core.primitive import TABLE
from chainrule.explain.examples import EXAMPLES, run
from chainrule.explain.styles.script.script import identifier, script_and_data
from chainrule.nn import functional

SAMPLES = [pytest.param(prim, xs, params, id=f"{name}-{i}") for name, prim in TABLE.items()
           for i, (xs, params) in enumerate(prim.samples(np.random.default_rng(0)))]

# Runs every script of a folder and keeps the gradients each of them found.
RUNNER = """
import pathlib, runpy, sys
import numpy as np
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    found = runpy.run_path(str(path))["gradients"]
    np.savez(path.with_suffix(".found.npz"), **{f"g{i}": g for i, g in enumerate(found.values())},
             names=np.array(list(found)))
foreign = {name.partition(".")[0] for name in sys.modules} & {"chainrule", "torch", "scipy"}
assert not foreign, foreign
"""


def found_by(folder: Path) -> dict[str, dict[str, Any]]:
    """Run the scripts of a folder where nothing but NumPy is known; their gradients."""
    done = subprocess.run([sys.executable, "-P", "-c", RUNNER, str(folder)], cwd=folder,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    result = {}
    for path in folder.glob("*.found.npz"):
        with np.load(path) as arrays:
            result[path.name.partition(".")[0]] = {
                str(name): arrays[f"g{i}"] for i, name in enumerate(arrays["names"])}
    return result


def same(found: dict[str, Any], leaves: dict[str, Any], tolerance: float = 1e-12) -> None:
    """Equal to .grad, relative to the largest number of all gradients."""
    true = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
    assert found.keys() == true.keys()
    finite = [np.abs(g[np.isfinite(g)]) for g in true.values()]
    scale = max([1e-300, *(float(g.max()) for g in finite if g.size)])
    for name, gradient in true.items():
        assert found[name].shape == gradient.shape
        assert found[name].dtype == gradient.dtype
        np.testing.assert_allclose(found[name], gradient, rtol=tolerance, atol=tolerance * scale,
                                   err_msg=name)


def executed(loss: Any, leaves: dict[str, Any]) -> dict[str, Any]:
    """The gradients of a script, run here."""
    scope: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()):
        exec(compile(cr.explain(loss, names=leaves).numpy(), "script.py", "exec"), scope)
    return {name: np.asarray(g) for name, g in scope["gradients"].items()}


# ---------------------------------------------------------------- networks


def dense(dtype: Any) -> Any:
    model = cr.nn.Sequential(cr.nn.Linear(5, 8), cr.nn.ReLU(), cr.nn.Linear(8, 8), cr.nn.GELU(),
                             cr.nn.LayerNorm(8), cr.nn.Linear(8, 3)).to(dtype)
    x, t = cr.randn(6, 5, dtype=dtype), cr.tensor([0, 1, 2, 0, 1, 2])
    return functional.cross_entropy(model(x), t), dict(model.named_parameters())


def convolutional(dtype: Any) -> Any:
    model = cr.nn.Sequential(cr.nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
                             cr.nn.BatchNorm2d(4), cr.nn.ReLU(), cr.nn.MaxPool2d(2),
                             cr.nn.Flatten(), cr.nn.Linear(16, 2)).to(dtype)
    x, t = cr.randn(3, 2, 8, 8, dtype=dtype), cr.tensor([0, 1, 1])
    return functional.cross_entropy(model(x), t), dict(model.named_parameters())


def attention(dtype: Any) -> Any:
    x = cr.randn(4, 6, dtype=dtype)
    leaves = {name: cr.randn(6, 6, dtype=dtype).requires_grad_() for name in ("Wq", "Wk", "Wv")}
    q, k, v = (x @ w for w in leaves.values())
    later = cr.tril(cr.ones(4, 4)) == 0
    scores = (q @ k.mT / 6**0.5).masked_fill(later, float("-inf"))
    return ((functional.softmax(scores, dim=-1) @ v) ** 2).sum(), leaves


def recurrent(dtype: Any) -> Any:
    leaves = {"W": cr.randn(12, 3, dtype=dtype).requires_grad_(),
              "U": cr.randn(12, 3, dtype=dtype).requires_grad_(),
              "b": cr.zeros(12, dtype=dtype).requires_grad_()}
    h = c = cr.zeros(2, 3, dtype=dtype)
    for _ in range(3):
        i, f, g, o = (cr.randn(2, 3, dtype=dtype) @ leaves["W"].T + h @ leaves["U"].T
                      + leaves["b"]).chunk(4, dim=1)
        c = cr.sigmoid(f) * c + cr.sigmoid(i) * cr.tanh(g)
        h = cr.sigmoid(o) * cr.tanh(c)
    return (h * h).sum(), leaves


def indexed(dtype: Any) -> Any:
    w = cr.randn(3, 4, dtype=dtype).requires_grad_()
    table = cr.randn(7, 4, dtype=dtype).requires_grad_()
    z = table[cr.tensor([1, 3, 3])] * w
    y = cr.cat([z, w], dim=1).sort(dim=1)[0][:, :3].cumsum(0)
    return (y * y).sum().sqrt() + w.std() + w.abs().max() + (w * w).prod(), {"w": w, "table": table}


def dropped(dtype: Any) -> Any:
    model = cr.nn.Sequential(cr.nn.Linear(5, 8), cr.nn.Dropout(0.5), cr.nn.Tanh(),
                             cr.nn.Linear(8, 1)).to(dtype)
    return model(cr.randn(6, 5, dtype=dtype)).mean(), dict(model.named_parameters())


NETWORKS = (dense, convolutional, attention, recurrent, indexed, dropped)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    cr.manual_seed(0)


@pytest.mark.parametrize("dtype", [cr.float64, cr.float32])
def test_networks(tmp_path: Path, dtype: Any) -> None:
    leaves = {}
    for build in NETWORKS:
        loss, leaves[build.__name__] = build(dtype)
        cr.explain(loss, names=leaves[build.__name__]).save(tmp_path / f"{build.__name__}.py")
        loss.backward()
    found = found_by(tmp_path)
    assert found.keys() == leaves.keys()
    for name, gradients in found.items():
        same(gradients, leaves[name], 1e-12 if dtype == cr.float64 else 1e-5)


def test_worked_examples(tmp_path: Path) -> None:
    """Every program of e1 to e8 that ends in a loss."""
    variables = {}
    for name, example in EXAMPLES.items():
        if "\nL = " not in example.program:
            continue
        variables[name] = run(name, example.program.replace("TARGET", "0.0"))
        loss = variables[name]["L"]
        cr.explain(loss, names={key: value for key, value in variables[name].items()
                                if isinstance(value, cr.Tensor)}).save(tmp_path / f"{name}.py")
        loss.backward()
    assert len(variables) >= 4
    for name, gradients in found_by(tmp_path).items():
        same(gradients, {key: value for key, value in variables[name].items() if isinstance(
            value, cr.Tensor) and value.is_leaf and value.requires_grad})


def test_every_row(tmp_path: Path) -> None:
    """One script for each sample of each row, from the table alone; all in one process."""
    leaves: dict[str, dict[str, Any]] = {}
    for i, (prim, xs, params) in enumerate(case.values for case in SAMPLES):
        mine, operands = {}, []
        for name, x in zip("abcdefgh", xs, strict=False):
            if isinstance(x, np.ndarray) and x.dtype.kind == "f":
                x = mine[name] = cr.tensor(np.array(x), requires_grad=True)
            operands.append(x)
        y = prim(*operands, **params)
        if not isinstance(y, cr.Tensor) or y.grad_fn is None:
            continue
        weights = cr.tensor(np.random.default_rng(3).uniform(0.5, 1.5, y.shape), dtype=y.dtype)
        loss = (y * weights).sum()
        key = f"{i:03}_{prim.name}"
        cr.explain(loss, names=mine).save(tmp_path / f"{key}.py")
        loss.backward()
        leaves[key] = mine
    assert len(leaves) > 200
    found = found_by(tmp_path)
    for key, mine in leaves.items():
        first = next(iter(mine.values()))
        same(found[key], mine, 1e-12 if first.dtype == cr.float64 else 1e-6)


# ---------------------------------------------------------------- what the script looks like


def test_the_script_is_what_one_would_write() -> None:
    rng = np.random.default_rng(0)
    x = cr.tensor(rng.normal(size=(4, 3)))
    W = cr.tensor(rng.normal(size=(3, 2)), requires_grad=True)
    z = x @ W
    y = cr.sigmoid(z)
    loss = (y * y).mean()
    script = cr.explain(loss, names={"x": x, "W": W}).numpy()
    lines = script.splitlines()
    for wanted in ("import numpy as np", "z = x @ W", "#   1. z = x @ W", "d_W = x.T @ d_z",
                   "#   1. ∂loss/∂W = xᵀ @ ∂loss/∂z", "d_z = d_y * (y * (1 - y))",
                   "y = 1.0 / (np.exp(-z) + 1.0)"):
        assert wanted in lines, script
    imported = [node for node in ast.walk(ast.parse(script))
                if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imported] == ["import numpy as np"]


def test_a_function_stands_above_the_script_once() -> None:
    x = cr.randn(4, 3, dtype=cr.float64).requires_grad_()
    y = functional.softmax(functional.softmax(x, dim=1), dim=1)
    script = cr.explain((y * y).sum(), names={"x": x}).numpy()
    assert script.count("def softmax(x):\n    # exp(x)/Σ exp(x) along an axis.\n") == 1
    assert {"v1 = softmax(x)", "y = softmax(v1)"} <= set(script.splitlines())


def test_it_complains_if_the_gradients_differ(tmp_path: Path) -> None:
    w = cr.tensor([2.0, 3.0], requires_grad=True)
    path = cr.explain((w * w).sum(), names={"w": w}).save(tmp_path / "wrong.py")
    path.write_text(path.read_text("utf-8").replace("d_v1 * w", "d_v1 * 3 * w", 1), "utf-8")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode and "AssertionError: w" in done.stderr


def test_large_arrays_lie_beside_the_script(tmp_path: Path) -> None:
    x = cr.randn(80, 70, dtype=cr.float64)
    w = cr.randn(70, 60, dtype=cr.float64).requires_grad_()
    loss = (x @ w).tanh().mean()
    path = cr.explain(loss, names={"x": x, "w": w}).save(tmp_path / "large.py")
    assert (tmp_path / "large.npz").is_file() and path.stat().st_size < 5000
    loss.backward()
    same(found_by(tmp_path)["large"], {"w": w})


def test_without_a_file_large_arrays_are_drawn_and_the_script_says_so() -> None:
    x = cr.randn(80, 70, dtype=cr.float64)
    w = cr.randn(70, 60, dtype=cr.float64).requires_grad_()
    e = cr.explain((x @ w).tanh().mean(), names={"x": x, "w": w})
    assert "drawn at random" in e.numpy() and "expected" not in e.numpy()
    scope: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()) as said:
        exec(compile(e.numpy(), "script.py", "exec"), scope)
    assert scope["gradients"]["w"].shape == (70, 60)
    assert said.getvalue().startswith("w: (70, 60), norm ")
    assert script_and_data(e.derivation, e.style, "x.npz")[1].keys() == {"x", "w", "gradient_0"}


@pytest.mark.parametrize("name", ["class", "np", "0.weight", "a b", "größe", "x'", "", "len",
                                  "gradients", "W₁"])
def test_names_become_those_of_python(name: str) -> None:
    assert identifier(name).isidentifier()
    w = cr.tensor([1.0, 2.0], dtype=cr.float64, requires_grad=True)
    loss = (w * w).sum()
    found = executed(loss, {name or "w": w})
    loss.backward()
    same(found, {name or "w": w})


def test_names_that_become_the_same_are_told_apart() -> None:
    a = cr.tensor(2.0, dtype=cr.float64, requires_grad=True)
    b = cr.tensor(3.0, dtype=cr.float64, requires_grad=True)
    loss = a * a * b
    leaves = {"w.x": a, "w_x": b}
    found = executed(loss, leaves)
    loss.backward()
    same(found, leaves)


class Cube(cr.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x**2


def test_an_operation_of_the_users_own_is_taken_as_given() -> None:
    w = cr.tensor([1.0, 2.0], dtype=cr.float64, requires_grad=True)
    loss = (Cube.apply(w * 2) * w).sum()
    script = cr.explain(loss, names={"w": w}).numpy()
    assert "an operation of your own" in script
    assert "Cube.backward(∂loss/∂v2)" in str(cr.explain(loss, names={"w": w, "loss": loss}))
    found = executed(loss, {"w": w})
    loss.backward()
    same(found, {"w": w})


def test_only_the_paths_that_are_wanted() -> None:
    a = cr.tensor(2.0, dtype=cr.float64, requires_grad=True)
    b = cr.tensor(3.0, dtype=cr.float64, requires_grad=True)
    hidden = a * b
    e = cr.explain(hidden * hidden, wrt=[hidden], names={"a": a, "b": b, "hidden": hidden})
    scope: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()):
        exec(compile(e.numpy(), "script.py", "exec"), scope)
    assert {name: float(g) for name, g in scope["gradients"].items()} == {"hidden": 12.0}
    assert "d_a" not in e.numpy()


def test_infinities_are_values() -> None:
    w = cr.tensor([0.0, 1.0], dtype=cr.float64, requires_grad=True)
    loss = cr.where(w > 0, w.log(), w * 2).sum()
    found = executed(loss, {"w": w})
    loss.backward()
    same(found, {"w": w})


def random_programs(count: int) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Small random graphs of elementwise rows, products and sums, with values used repeatedly."""
    for seed in range(count):
        yield seed, lambda seed=seed: program(np.random.default_rng(seed))


def program(rng: np.random.Generator) -> Any:
    leaves = {name: cr.tensor(rng.uniform(0.3, 1.2, (3, 3)), requires_grad=True) for name in "abc"}
    pool = list(leaves.values())
    unary = (cr.tanh, cr.exp, cr.sigmoid, cr.relu, cr.sin, lambda x: x.softmax(0),
             lambda x: x.sum(0), lambda x: x.mT, lambda x: x - x.mean(1, keepdim=True),
             lambda x: x[:, :1], lambda x: x**2, lambda x: (x * x + 1).log())
    binary = (lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x - y, lambda x, y: x @ y,
              lambda x, y: x / (y * y + 1), cr.maximum)
    for _ in range(int(rng.integers(3, 9))):
        if rng.uniform() < 0.5:
            made = unary[rng.integers(len(unary))](pool[rng.integers(len(pool))])
        else:
            one, other = (pool[i] for i in rng.integers(len(pool), size=2))
            made = binary[rng.integers(len(binary))](one, other)
        if made.shape == (3,):
            made = made.reshape(1, 3)
        pool.append(made if made.shape == (3, 3) else made.expand(3, 3))
    return sum((x.sum() for x in pool[-2:]), pool[0].sum()), leaves


def test_random_programs(tmp_path: Path) -> None:
    leaves = {}
    for seed, build in random_programs(60):
        loss, mine = build()
        cr.explain(loss, names=mine).save(tmp_path / f"p{seed}.py")
        loss.backward()
        leaves[f"p{seed}"] = mine
    for name, gradients in found_by(tmp_path).items():
        same(gradients, leaves[name])


# ---------------------------------------------------------------- rows that are not in the package


def halved(x: Any) -> Any:
    """x/2 by a function of its own."""
    return x / 2


def steep(x: Any, rate: float) -> Any:
    """A step that asks about its settings, and writes into an array."""
    if x.dtype.kind != "f":
        raise TypeError("floats alone")
    y = np.exp(halved(x) * rate)
    y[y > LIMIT] = LIMIT
    return y


LIMIT = 2.5


def added_row(name: str, evaluate: Any, pull: Any) -> Any:
    return elementwise(name, eval=evaluate, pulls=pull, promote="float", public="",
                       options={"rate": 1.0}, doc="A row of this test.")


def used(prim: Any) -> Any:
    x = cr.tensor(np.linspace(-1, 2, 6).reshape(2, 3), requires_grad=True)
    return (prim(x, rate=1.5) * x).sum(), {"x": x}


def test_a_new_row_is_written_from_its_own_source() -> None:
    """Nothing of the script knows a row by its name."""
    prim = added_row("steep_row", steep,
                     lambda g, y, x, rate: TABLE["keep"](g * y * (rate / 2), y < LIMIT))
    try:
        loss, leaves = used(prim)
        script = cr.explain(loss, names=leaves).numpy()
        found = executed(loss, leaves)
        cr.explain(loss, names=leaves).html()
        assert r"\operatorname{steep\_row}(x,\ \operatorname{rate} = 1.5)" in cr.explain(
            loss, names=leaves).latex()
    finally:
        del TABLE["steep_row"]
    assert "y[y > 2.5] = 2.5" in script and "def steep_row(x, rate):" in script
    assert "def halved(x):\n    # x/2 by a function of its own." in script
    loss.backward()
    same(found, leaves)


def test_what_cannot_be_written_in_numpy_is_taken_as_given() -> None:
    class Unknown:
        def __call__(self, x: Any, rate: float) -> Any:
            return np.sin(x * rate)

    prim = added_row("unknown_row", Unknown(), lambda g, y, x, rate: g * cr.cos(x * rate) * rate)
    try:
        loss, leaves = used(prim)
        script = cr.explain(loss, names=leaves).numpy()
        found = executed(loss, leaves)
    finally:
        del TABLE["unknown_row"]
    assert "cannot be written in NumPy alone" in script
    loss.backward()
    same(found, leaves)


def test_questions_about_numbers_are_not_answered_beforehand() -> None:
    """A function that looks at its numbers is taken over whole: other numbers take other ways."""
    def bent(x: Any, rate: float) -> Any:
        return x * rate if x.max() > 0 else x - rate

    prim = added_row("bent_row", bent, lambda g, y, x, rate: g * rate)
    try:
        loss, leaves = used(prim)
        script = cr.explain(loss, names=leaves).numpy()
    finally:
        del TABLE["bent_row"]
    assert "return x * rate if x.max() > 0 else x - rate" in script


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_command_line_writes_it(name: str, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / f"{name}.py"
    assert main(["explain", name, "--save", str(target)]) == 0
    assert "is written" in capsys.readouterr().out
    found_by(tmp_path)
    assert main(["explain", name, "--style", "numpy"]) == 0
    assert capsys.readouterr().out.strip() == target.read_text("utf-8").strip()
