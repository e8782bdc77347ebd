"""`explain`: what it prints is what was computed, and what `backward()` gives."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
import chainrule.explain
from chainrule.cli.main import main
from chainrule.core.errors import (
    FreedGraphError,
    NoGradientError,
    NotScalarError,
    OverwrittenError,
    SettingError,
)
from chainrule.core.primitive import TABLE, Variadic
from chainrule.explain import Explanation
from chainrule.explain.command import as_shown
from chainrule.explain.examples import EXAMPLES, found, tell
from chainrule.explain.numbers import Style
from chainrule.explain.symbol import Sym, evaluated, written

SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
FUNCTIONS = {"tanh": math.tanh, "exp": math.exp, "sin": math.sin, "cos": math.cos,
             "σ": lambda x: 1 / (1 + math.exp(-x)), "relu": lambda x: max(x, 0.0),
             "max": max, "min": min, "log1p": math.log1p, "sqrt": math.sqrt,
             "where": lambda c, a, b: a if c else b, "zeros_like": lambda x: 0.0, "Σ": float}


def calculated(text: str) -> float:
    """A printed scalar calculation, worked out: `2·(1 − 0.5²)` gives 1.5."""
    text = re.sub(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda m: f"**({m[1].translate(SUPERSCRIPT)})", text)
    text = re.sub(r"√(\([^()]*\)|[\d.e−]+)", r"sqrt(\1)", text)
    text = text.replace("·", "*").replace("⊙", "*").replace("−", "-").replace("^", "**")
    return float(eval(text, {"__builtins__": {}}, FUNCTIONS))


def scalar(value: float, **options: Any) -> cr.Tensor:
    return cr.tensor(value, dtype=cr.float64, requires_grad=True, **options)


# ---------------------------------------------------------------- every row of the table

SAMPLES = [pytest.param(prim, xs, params, id=f"{name}-{i}") for name, prim in TABLE.items()
           for i, (xs, params) in enumerate(prim.samples(np.random.default_rng(0)))]


@pytest.mark.parametrize(("prim", "xs", "params"), SAMPLES)
def test_every_row_written_is_the_row_computed(prim: Any, xs: Any, params: Any) -> None:
    """Rules run on text and numbers give the numbers they give on bare arrays."""
    style = Style()
    syms = tuple(Sym((name, 9), x, style) if hasattr(x, "shape") else x
                 for name, x in zip("abcdefgh", xs, strict=False))
    names, _ = written(prim, syms, params, style)
    assert names[0]
    assert "<" not in names[0].replace("[a < b]", "")        # no repr of an object
    value, kind = evaluated(prim, syms, params, style)
    plain = np.asarray(prim.eval(*xs, **params))
    np.testing.assert_array_equal(value, plain)
    assert kind == (plain.shape, plain.dtype)
    count = len(xs) if isinstance(prim.pulls, Variadic) else len(prim.pulls)
    for i in range(min(count, len(xs))):
        pull = prim.pulls[i]
        if pull is None or plain.dtype.kind != "f":
            continue
        g = np.random.default_rng(1).standard_normal(plain.shape)
        explained = pull(Sym(("∂L/∂y", 4), g, style), Sym(("y", 9), plain, style), *syms, **params)
        np.testing.assert_array_equal(explained.value, pull(g, plain, *xs, **params))
        assert explained.result == style.array(np.asarray(explained.value))


# ---------------------------------------------------------------- random graphs

UNARY = {"tanh": cr.tanh, "sigmoid": cr.sigmoid, "exp": cr.exp, "sin": cr.sin, "relu": cr.relu,
         "square": lambda x: x ** 2, "cube": lambda x: x ** 3, "neg": lambda x: -x,
         "half": lambda x: 0.5 * x, "above": lambda x: 2 - x, "over": lambda x: x / 3}
BINARY = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
          "div": lambda a, b: a / (b * b + 1), "max": cr.maximum}

programs = st.lists(st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 99),
                              st.integers(0, 99)), min_size=1, max_size=8)
numbers = st.floats(-1.5, 1.5, width=16).filter(lambda x: x == 0 or abs(x) > 1e-3)


def run_program(program: Any, leaves: list[cr.Tensor]) -> list[cr.Tensor]:
    made = list(leaves)
    for operation, i, j in program:
        a, b = made[i % len(made)], made[j % len(made)]
        made.append(UNARY[operation](a) if operation in UNARY else BINARY[operation](a, b))
    return made


@settings(max_examples=80, deadline=None)
@given(programs, st.lists(numbers, min_size=2, max_size=3))
def test_random_scalar_graphs(program: Any, values: list[float]) -> None:
    """Each gradient equals autograd's; each printed calculation gives the printed result."""
    made = run_program(program, [scalar(v) for v in values])
    loss = made[-1] * 1.25
    named = {f"t{i}": t for i, t in enumerate(made)}
    explanation = cr.explain(loss, names={**named, "loss": loss}, precision=None)
    for step in (*explanation.forward, *explanation.backward):
        assert step.result == Style(None).array(step.value)
        if step.numbers and "seed" not in step.formula:
            assert calculated(step.numbers) == pytest.approx(float(step.value), rel=1e-9, abs=1e-12)
    check_against_autograd(explanation, loss, named)
    for step in explanation.backward:
        if step.local is not None and np.all(np.isfinite(step.value)):
            assert float(step.upstream * step.local.value) == pytest.approx(
                float(step.value), rel=1e-12, abs=1e-300)
            if step.local.numbers:
                assert calculated(step.local.numbers) == pytest.approx(
                    float(step.local.value), rel=1e-9, abs=1e-12)


shapes = st.sampled_from([(), (3,), (2, 3), (1, 3), (2, 1)])


@settings(max_examples=60, deadline=None)
@given(programs, st.lists(shapes, min_size=2, max_size=3), st.integers(0, 1000))
def test_random_array_graphs(program: Any, sizes: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = [cr.tensor(rng.uniform(-1, 1, shape), requires_grad=True) for shape in sizes]
    made = run_program(program, leaves)
    loss = (made[-1] * made[-1]).mean() + (made[-1] @ cr.ones(3, dtype=cr.float64)).sum() \
        if made[-1].ndim and made[-1].shape[-1] == 3 else made[-1].sum()
    named = {f"t{i}": t for i, t in enumerate(made)}
    explanation = cr.explain(loss, names={**named, "loss": loss})
    check_against_autograd(explanation, loss, named)
    for step in (*explanation.forward, *explanation.backward):
        assert np.shape(step.value) == step.shape
    assert explanation.text(width=80)


def check_against_autograd(explanation: Explanation, loss: cr.Tensor,
                           named: dict[str, cr.Tensor]) -> None:
    values = found(explanation.derivation)
    known = {name: t for name, t in named.items() if f"∂loss/∂{name}" in values}
    assert known or loss.is_leaf
    gradients = cr.autograd.grad(loss, list(known.values()), retain_graph=True)
    for name, gradient in zip(known, gradients, strict=True):
        np.testing.assert_allclose(values[f"∂loss/∂{name}"], gradient.numpy(), rtol=1e-12,
                                   atol=1e-300)


# ---------------------------------------------------------------- the same as backward()


def test_gradients_are_those_of_backward_and_nothing_is_touched() -> None:
    cr.manual_seed(0)
    model = cr.nn.Sequential(cr.nn.Linear(3, 4), cr.nn.Tanh(), cr.nn.Linear(4, 2))
    x, y = cr.randn(5, 3), cr.tensor([0, 1, 1, 0, 1])
    hidden = model[0](x)
    hidden.retain_grad()
    loss = cr.nn.functional.cross_entropy(model[2](cr.tanh(hidden)), y)
    explanation = cr.explain(loss)
    assert hidden.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert list(explanation.gradients) == [f"model.{n}" for n, _ in model.named_parameters()]
    loss.backward()
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(explanation.gradients[f"model.{name}"].gradient,
                                      p.grad.numpy())


def test_nan_guard_of_selections_is_that_of_backward() -> None:
    x = cr.tensor([0.0, 4.0], dtype=cr.float64, requires_grad=True)
    loss = cr.where(x > 1, cr.sqrt(x), x).sum()
    explanation = cr.explain(loss)
    loss.backward()
    np.testing.assert_array_equal(explanation.gradients["x"].gradient, x.grad.numpy())


def test_after_backward_small_values_are_still_there() -> None:
    w = scalar(3.0)
    loss = cr.tanh(w * 0.5)
    before = str(cr.explain(loss))
    loss.backward()
    assert str(cr.explain(loss)) == before


def test_large_values_show_types_and_after_backward_say_what_to_do() -> None:
    w = cr.randn(20, 10, requires_grad=True)
    x = cr.randn(30, 20)
    loss = cr.tanh(x @ w).mean()
    text = str(cr.explain(loss))
    assert "f32[30,20] @ f32[20,10]" in text
    assert "f32[20,10], norm" in text
    gradient = cr.explain(loss).gradients["w"].gradient
    loss.backward()
    np.testing.assert_array_equal(gradient, w.grad.numpy())
    with pytest.raises(FreedGraphError, match=r"before loss\.backward\(\)"):
        cr.explain(loss)


def test_changed_numbers_are_refused() -> None:
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    loss = (w * w).sum()
    optimizer = cr.optim.SGD([w], lr=0.1)
    loss.backward()
    optimizer.step()
    with pytest.raises(OverwrittenError, match=r"before optimizer\.step\(\)|optimizer\.step"):
        cr.explain(loss)


def test_what_cannot_be_explained() -> None:
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(NotScalarError):
        cr.explain(w * 2)
    with pytest.raises(NoGradientError):
        cr.explain(cr.tensor(1.0))
    with pytest.raises(SettingError):
        cr.explain(w.sum(), names={"w": 3})


def test_a_leaf_and_a_second_derivative() -> None:
    w = scalar(0.7)
    assert "nothing was computed" in str(cr.explain(w))
    (slope,) = cr.autograd.grad(cr.tanh(w), w, create_graph=True)
    bend = cr.explain(slope).gradients["w"].gradient
    y = math.tanh(0.7)
    assert float(bend) == pytest.approx(-2 * y * (1 - y * y), rel=1e-14)


def test_hooks_are_mentioned_not_run() -> None:
    w = scalar(2.0)
    z = w * 3
    ran = []
    z.register_hook(ran.append)
    text = str(cr.explain(z * z))
    assert not ran
    assert "z has a hook" in text


# ---------------------------------------------------------------- reading


def test_classes_and_ties_are_written_as_such() -> None:
    w = cr.tensor([[0.1, 0.2], [0.3, 0.3]], requires_grad=True)
    t = cr.tensor([0, 1])
    loss = cr.nn.functional.cross_entropy(w, t)
    text = str(cr.explain(loss))
    assert "(softmax(w) − onehot(t))·∂loss/∂loss / 2" in text
    assert "onehot([0, 1])" in text
    assert "onehot(t) is 1 at the class t" in text
    assert "is 1 where that holds" not in text
    top = w.amax(dim=1).sum()
    explanation = cr.explain(top)
    assert "ties(w = v1)" in str(explanation)
    assert "ties share it equally" in str(explanation)
    assert explanation.gradients["w"].gradient.tolist() == [[0, 1], [0.5, 0.5]]


def test_reshapes_of_the_user_are_written() -> None:
    v = cr.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    x = cr.tensor([[1.0, 0.0], [0.0, 2.0]])
    loss = (v.reshape(2, 2) @ x).sum()
    explanation = cr.explain(loss)
    assert explanation.forward[0].formula == "(v as 2×2) @ x"
    assert explanation.forward[0].numbers == "[[1, 2], [3, 4]] @ [[1, 0], [0, 2]]"
    assert explanation.backward[-1].formula.endswith("as 4 numbers")
    assert explanation.gradients["v"].gradient.tolist() == [1, 2, 1, 2]
    named = v.reshape(2, 2)
    step = cr.explain((named * named).sum()).forward[0]
    assert (step.name, step.formula) == ("named", "v as 2×2")


def test_a_module_that_reshapes_is_written() -> None:
    cr.manual_seed(0)
    net = cr.nn.Sequential(cr.nn.Linear(2, 4), cr.nn.Unflatten(1, (2, 2)), cr.nn.Tanh())
    out = net(cr.ones(1, 2)).sum()
    assert cr.explain(out).forward[1].formula == "tanh(v1 as 1×2×2)"


def test_conditions_are_written_as_they_stand_in_the_line() -> None:
    w = scalar(2.0)
    loss = cr.where(w > 1, w * 3, w)
    formulas = [s.formula for s in (*cr.explain(loss).forward, *cr.explain(loss).backward)]
    assert "where([w > 1], v1, w)" in formulas
    assert "∂loss/∂loss·[w > 1]" in formulas
    assert "∂loss/∂loss·not [w > 1]" in formulas
    both = cr.where((w > 1) & ~(w >= 5), w, 0.0)
    assert cr.explain(both).forward[0].formula == "where(([w > 1] and (not [w ≥ 5])), w, 0)"
    scaled = w * (w > 1)
    assert cr.explain(scaled).forward[0].formula == "w·[w > 1]"
    assert cr.explain(w.clamp(min=0.0)).forward[0].formula == "clamp(w, ≥ 0)"
    mask = w > 1
    known = cr.where(mask, w, 0.0)
    assert cr.explain(known).forward[0].formula == "where(mask, w, 0)"
    for text in ("where(c, a, b) is a where c holds, else b", "[a > b] is 1 where that holds"):
        assert text in str(cr.explain(loss))


def test_a_constant_without_a_name_is_explained_and_a_vector_is_refused() -> None:
    w = cr.ones(8, requires_grad=True)
    assert "c1: an array of the program without a name" in str(cr.explain((w * cr.ones(8)).sum()))
    with pytest.raises(NotScalarError, match=r"explain\(y\.sum\(\)\)"):
        cr.explain(w * 2)


# ---------------------------------------------------------------- names


def build(values: list[float]) -> cr.Tensor:
    weights = [scalar(v) for v in values]
    inner = weights[0] * weights[1]
    return cr.tanh(inner)


def test_names_of_a_function_that_has_returned_come_from_its_assignments() -> None:
    loss = build([0.5, 2.0])
    names = [step.name for step in cr.explain(loss).forward]
    assert names == ["inner", "loss"]


def test_modules_of_a_function_that_has_returned_are_known_from_their_calls() -> None:
    def loss_of(parts: Any) -> cr.Tensor:
        out = cr.ones(2, 3)
        for part in parts():
            out = part(out)
        return out.sum()

    def one() -> Any:
        yield cr.nn.Sequential(cr.nn.Linear(3, 4), cr.nn.Tanh())

    def two() -> Any:
        yield cr.nn.Linear(3, 4)
        yield cr.nn.Linear(4, 2)

    assert list(cr.explain(loss_of(one)).gradients) == ["model.0.weight", "model.0.bias"]
    explanation = cr.explain(loss_of(two))
    assert list(explanation.gradients) == ["linear1.weight", "linear1.bias", "linear2.weight",
                                           "linear2.bias"]
    assert [step.place.module for step in explanation.forward[:2]] == ["linear1", "linear2"]


def test_constants_that_no_rule_reads_keep_their_names() -> None:
    y, t = cr.randn(30, 5, requires_grad=True), cr.randn(30, 5)
    shift = {"by": cr.randn(5)}
    loss = ((y - t + shift["by"]) ** 2).sum()
    formulas = [step.formula for step in cr.explain(loss).forward]
    assert formulas[:2] == ["y − t", "v1 + shift['by']"]


def test_names_of_variables_lists_and_given_names() -> None:
    pair = [scalar(1.0), scalar(2.0)]
    own = scalar(3.0)
    own.name = "slope"
    constant = cr.tensor([1.0, 2.0], dtype=cr.float64)
    out = ((pair[0] * pair[1] + own) * constant).sum()
    explanation = cr.explain(out)
    assert list(explanation.gradients) == ["pair[0]", "pair[1]", "slope"]
    assert "constant = [1, 2]" in str(explanation)
    assert "first" in cr.explain(out, names={"first": pair[0]}).gradients
    assert "second" in cr.explain(out, names={pair[1]: "second"}).gradients


def test_a_name_used_in_a_loop_gets_numbers() -> None:
    h = x = scalar(0.3)
    for _ in range(3):
        h = cr.tanh(h)
    names = [step.name for step in cr.explain(h, names={"x": x}).forward]
    assert names == ["h₁", "h₂", "h₃"]


def test_names_of_a_module_and_where_it_ran() -> None:
    class Net(cr.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = cr.nn.Linear(2, 2)
            self.out = cr.nn.Linear(2, 1)

        def forward(self, x: cr.Tensor) -> cr.Tensor:
            return self.out(self.hidden(x).relu())

    net = Net()
    x = cr.ones(1, 2)
    explanation = cr.explain(net(x).sum())
    assert list(explanation.gradients) == ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]
    assert explanation.forward[0].place.module == "hidden"
    assert explanation.forward[0].formula == "x @ hidden.weightᵀ + hidden.bias"

    def apart() -> Explanation:
        inner = net
        return cr.explain(inner(x).sum(), model=inner)

    assert "hidden.weight" in apart().gradients


def test_products_of_vectors_read_as_such() -> None:
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    x = cr.tensor([3.0, 4.0])
    z = w @ x
    loss = z * z
    explanation = cr.explain(loss)
    assert [(s.name, s.formula, s.shape) for s in explanation.forward] == [
        ("z", "w @ x", ()), ("loss", "z²", ())]
    assert explanation.gradients["w"].gradient.tolist() == [66, 88]


def test_the_lines_are_the_users() -> None:
    w = scalar(1.0)
    loss = w * 2
    step = cr.explain(loss).forward[0]
    assert Path(step.place.file).name == "test_explain.py"
    assert step.place.source == "loss = w * 2"


# ---------------------------------------------------------------- paths, text, options


def test_several_paths_are_added() -> None:
    x = scalar(2.0)
    loss = x * x + x
    steps = [(s.name, s.path, s.result) for s in cr.explain(loss).backward if s.of == "x"]
    assert steps == [("∂loss/∂x", "via loss", "1"), ("∂loss/∂x", "via v1", "4"),
                     ("∂loss/∂x", "", "5")]
    text = cr.explain(loss).text(width=100)
    assert re.search(r"sum over the paths +│? *= 1 \+ 4", text)


def test_module_is_callable_and_repr_is_the_text() -> None:
    w = scalar(1.0)
    loss = cr.exp(w)
    explanation = chainrule.explain(loss)
    assert isinstance(explanation, Explanation)
    assert repr(explanation) == str(explanation) == explanation.text()
    buffer = io.StringIO()
    cr.explain(loss, file=buffer)
    assert buffer.getvalue() == explanation.text() + "\n"


def test_precision_and_elements() -> None:
    w = cr.tensor([1 / 3, 0.5], dtype=cr.float64, requires_grad=True)
    loss = w.sum()
    assert "[0.3333, 0.5]" in str(cr.explain(loss))
    assert "[0.3333333333333333, 0.5]" in str(cr.explain(loss, precision=None))
    assert "f64[2]" in str(cr.explain(loss, elements=1))


@pytest.mark.parametrize(("value", "text"), [
    (0.21, "0.21"), (0.2100001, "0.2100"), (0.1 + 0.2, "0.3"), (-18.0, "−18"), (0.0, "0"),
    (123456.0, "123456"), (1234567.0, "1.235e6"), (1e-5, "1e−5"), (9.5367e-7, "9.537e−7"),
    (12345.6, "1.235e4"), (1234.56, "1235"), (float("inf"), "∞"), (float("-inf"), "−∞"),
    (float("nan"), "nan"), (True, "1"), (np.float32(0.1), "0.1"), (-7, "−7"),
])
def test_numbers(value: Any, text: str) -> None:
    assert Style().number(value) == text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_width_and_colour(width: int) -> None:
    w, b = scalar(0.5), scalar(0.1)
    loss = (cr.sigmoid(w * 2 + b) - 1) ** 2
    plain = cr.explain(loss).text(width=width)
    assert max(map(len, plain.split("\n"))) <= width
    coloured = cr.explain(loss).text(width=width, colour=True)
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_deep_graphs_need_no_recursion() -> None:
    h = x = scalar(0.5)
    for _ in range(3000):
        h = h * 0.999
    explanation = cr.explain(h, names={"x": x})
    assert float(explanation.gradients["x"].gradient) == pytest.approx(0.999 ** 3000)


# ---------------------------------------------------------------- the command

USER = """
import chainrule as cr

def loss_of():
    w = cr.tensor(2.0, requires_grad=True)
    offset = cr.tensor(1.0)
    return w * w + offset

w = cr.tensor(3.0, requires_grad=True)
loss = w * 2
text = "no loss"
"""


def test_a_file_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(USER)
    assert main(["explain", str(path)]) == 0
    assert "mine.py:10  loss = w * 2" in capsys.readouterr().out
    assert main(["explain", f"{path}:loss_of"]) == 0
    printed = capsys.readouterr().out
    assert "v1 + offset" in printed
    assert "w   2       4" in printed


@pytest.mark.parametrize(("what", "message"), [
    ("e9", "e1, e2"), ("absent.py", "no file absent.py"), ("mine.py:text", "no function 'text'"),
    ("mine.py:nothing", "no function 'nothing'"), ("mine.py:number", "returned int"),
    ("empty.py", "no variable `loss`"), ("e1 --precision -1", "--precision -1"),
    ("cost --layers 3x4", "3x4"), ("cost --batch 0", "--batch 0"),
])
def test_mistakes_of_the_command(what: str, message: str, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(USER + "\ndef number():\n    return 3\n")
    Path("empty.py").write_text("x = 1\n")
    assert main(["explain", *what.split()]) == 2
    assert message in capsys.readouterr().err


TRAINING = """
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x, y = cr.randn(64, 20), cr.randint(0, 3, (64,))
model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
optimizer = cr.optim.SGD(model.parameters(), lr=0.1)

def fit():
    for epoch in range(3):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        print("stepped")

fit()
"""


def test_a_training_program_is_explained_up_to_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.py"
    path.write_text(TRAINING)
    backward, step = cr.Tensor.backward, cr.optim.Optimizer.step
    assert main(["explain", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "stepped" not in printed
    assert "onehot(y)" in printed
    assert "model.2.bias" in printed
    assert (cr.Tensor.backward, cr.optim.Optimizer.step) == (backward, step)
    path.write_text(TRAINING.replace("optimizer.step()", "with cr.no_grad():\n"
                                     "            model[0].weight.mul_(0.5)\n        break"))
    assert main(["explain", str(path)]) == 0
    assert "model.2.bias" in capsys.readouterr().out


FAULTY = """
def g(a):
    return a

def h():
    return 1 / 0

def keywords(*, b, c=1):
    return b
"""


@pytest.mark.parametrize(("text", "function", "lines"), [
    (FAULTY, ":g", ["g() takes 1 argument ('a')", "without any"]),
    (FAULTY, ":keywords", ["takes 1 argument ('b')"]),
    (FAULTY, ":h", ["ZeroDivisionError", "return 1 / 0", "line 6, in h"]),
    (FAULTY + "h()\n", "", ["ZeroDivisionError", "line 10, in <module>", "line 6, in h"]),
    ("def f(:\n", "", ["SyntaxError", "line 1"]),
    ("import sys\nsys.exit(3)\n", "", ["sys.exit(3)", "user.py:loss_of"]),
])
def test_faults_of_the_users_program(text: str, function: str, lines: list[str], tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(text)
    assert main(["explain", f"user.py{function}"]) == 2
    printed = capsys.readouterr().err
    assert [line for line in lines if line not in printed] == []
    assert "runpy" not in printed
    assert "command.py" not in printed


def test_examples_are_found_in_capitals_and_show_their_lines(
    capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "E1"]) == 0
    assert "\n   8  z = w * x + b\n" in capsys.readouterr().out


# ---------------------------------------------------------------- terminals


def test_terminals_without_unicode() -> None:
    assert as_shown("∂L/∂w = −2·x²", "utf-8") == "∂L/∂w = −2·x²"
    assert as_shown("∂L/∂w = −2·x² 木", "ascii") == "dL/dw = -2*x^2 ?"
    for name in EXAMPLES:
        assert "?" not in as_shown(tell(name), "ascii")
