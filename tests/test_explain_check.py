"""`explain.check`: right derivations are never called wrong, wrong ones are named."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from handwritten import BINARY, Case, expression, network, rewritten, unary_rows
from handwritten_others import OTHERS

import chainrule as cr
from chainrule.core.errors import GradientError, SettingError
from chainrule.core.primitive import TABLE
from chainrule.explain.practice.review import TITLES

check = cr.explain.check
EXPRESSION_KINDS = ("sign", "slope", "upstream", "extra", "value", "path", "mean", "operand",
                    "batch")


# ---------------------------------------------------------------- the bar


def wrong_cases(seed: int, count: int, families: str) -> list[Case]:
    """Mistakes that show: those without effect on these numbers are drawn again."""
    rng = np.random.default_rng(seed)
    found: list[Case] = []
    while len(found) < count:
        turn = len(found) % 2
        if families == "others":
            case = OTHERS[len(found) % len(OTHERS)](rng)
        elif turn:
            drawn = expression(rng, EXPRESSION_KINDS[rng.integers(len(EXPRESSION_KINDS))])
            if drawn is None:
                continue
            case = drawn
        else:
            case = network(rng)
        if shows(case):
            found.append(case)
    return found


def shows(case: Case) -> bool:
    """Does the mistake change any of the gradients it reports? By `.grad`, not by check."""
    tensors = [cr.tensor(x, requires_grad=x.dtype.kind == "f") for x in case.inputs]
    case.f(*tensors).backward()
    answer = case.backward(*case.inputs)
    names = case.f.__code__.co_varnames[:len(tensors)]
    if isinstance(answer, dict):
        answer = [answer.get(f"d{name}") for name in names]
    for tensor, mine in zip(tensors, answer, strict=True):
        if mine is None or tensor.grad is None:
            continue
        true = tensor.grad.numpy()
        if not np.all(np.isfinite(mine)):
            return False
        if np.shape(mine) != true.shape or np.max(np.abs(mine - true)) > 1e-3 * np.max(
                np.abs(true)):
            return True
    return False


def named(cases: list[Case]) -> tuple[float, Counter[tuple[str, str]]]:
    """The share of mistakes named rightly, and which were taken for which."""
    confused: Counter[tuple[str, str]] = Counter()
    for case in cases:
        review = check(case.backward, case.f, *case.inputs)
        assert not review.ok, case.text
        got = "+".join(mistake.kind for mistake in review.mistakes)
        if got != case.kind:
            confused[case.kind, got] += 1
    return 1 - confused.total() / len(cases), confused


@pytest.mark.slow
def test_two_hundred_mistakes_are_named() -> None:
    cases = wrong_cases(2024, 200, "tuned")
    assert len({case.kind for case in cases}) >= 10
    share, confused = named(cases)
    assert share >= 0.95, confused


@pytest.mark.slow
def test_mistakes_in_other_families() -> None:
    share, confused = named(wrong_cases(4711, 100, "others"))
    assert share >= 0.95, confused


REWRITTEN = [       # the same mathematics, other rounding
    (r"(\w+)\.T @ (dz\w*)", r"sum(np.outer(\1[n], \2[n]) for n in range(len(\1)))"),
    (r"(\w+)\.sum\(0\)", r"np.einsum('ij->j', \1[::-1])"),
    (r"(\w+) @ (W\d)\.T", r"np.einsum('kj,ij->ik', \2, \1)"),
    (r"\(1 - (\w+) \*\* 2\)", r"(1 - \1) * (1 + \1)"),
    (r"(\w+) \* \((\w+) > 0\)", r"np.where(\2 > 0, \1, 0)"),
    (r"2 \* \((\w+) - t\) / (.*)", r"(\1 - t) * (1 / \2) + (\1 - t) / \2"),
]


def test_right_derivations_are_never_called_wrong() -> None:
    rng = np.random.default_rng(99)
    for trial in range(300):
        case = OTHERS[trial % 5](rng, ()) if trial % 4 == 0 else network(rng, kinds=())
        if trial % 2:
            case = rewritten(case, REWRITTEN, rng)
        inputs = case.inputs
        if trial % 3 == 0:
            inputs = tuple(x.astype("f4") if x.dtype.kind == "f" else x for x in inputs)
        review = check(case.backward, case.f, *inputs)
        assert review.ok, f"{case.text}\n{review}"
        assert not review.remarks, f"{case.text}\n{review}"


def test_right_expressions_are_never_called_wrong() -> None:
    rng = np.random.default_rng(5)
    done = 0
    while done < 200:
        case = expression(rng, None)
        if case is None:
            continue
        dtype = "f4" if done % 2 else "f8"
        review = check(case.backward, case.f, *[x.astype(dtype) for x in case.inputs])
        assert review.ok, f"{case.text}\n{review}"
        done += 1


def test_the_generator_reaches_the_table() -> None:
    assert len(unary_rows()) >= 30
    assert set(BINARY) <= set(TABLE)


# ---------------------------------------------------------------- what a user sees


def neuron(w: Any, x: Any) -> Any:
    z = w * x
    a = cr.sigmoid(z)
    return (a - 1) ** 2


def by_hand(w: float, x: float, wrong: str = "") -> dict[str, Any]:
    a = 1 / (1 + np.exp(-w * x))
    da = 2 * (a - 1)
    dz = da if wrong == "slope" else da * a * (1 - a)
    return {"da": da, "dz": dz, "dw": dz * x}


def test_a_right_one() -> None:
    review = check(by_hand, neuron, 0.5, 2.0)
    assert review.ok and bool(review)
    assert [(step.name, step.mark) for step in review.steps] == [
        ("∂L/∂a", "right"), ("∂L/∂z", "right"), ("∂L/∂w", "right")]
    assert "3 gradients: all right" in str(review)


def test_what_follows_is_not_a_mistake() -> None:
    review = check(lambda w, x: by_hand(w, x, "slope"), neuron, 0.5, 2.0)
    assert not review.ok
    assert [step.mark for step in review.steps] == ["right", "wrong", "follows"]
    (mistake,) = review.mistakes
    assert (mistake.kind, mistake.name) == ("slope", "∂L/∂z")
    assert mistake.formula == "∂L/∂z = ∂L/∂a·a·(1 − a)"
    assert mistake.line.endswith("a = cr.sigmoid(z)")
    text = review.text(60)
    assert "The slope of sigmoid" in text and "follows from the mistake above" in text
    assert max(map(len, text.split("\n"))) <= 60


def test_one_mistake_behind_several_gradients_of_a_tuple() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))

    def f(W: Any, b: Any) -> Any:
        z = cr.tensor(x) @ W + b
        return ((cr.tanh(z) - cr.tensor(t)) ** 2).mean()

    def back(W: Any, b: Any) -> Any:
        a = np.tanh(x @ W + b)
        dz = 2 * (a - t) * (1 - a ** 2)                 # 1/12 is forgotten
        return x.T @ dz, dz.sum(0)

    review = check(back, f, rng.normal(size=(2, 3)), np.zeros(3))
    (mistake,) = review.mistakes
    assert mistake.kind == "mean"
    assert set(mistake.shows) == {"∂L/∂W", "∂L/∂b"}


def test_two_mistakes_are_told_apart() -> None:
    def f(w: Any, b: Any, x: Any) -> Any:
        z = w * x + b
        a = cr.tanh(z)
        return (a ** 2).sum()

    def back(w: Any, b: Any, x: Any) -> Any:
        a = np.tanh(w * x + b)
        da = a                                          # 2 is forgotten
        dz = da * (1 - a ** 2)
        return {"da": da, "dz": dz, "dw": (dz * x).sum(), "db": dz.mean()}

    review = check(back, f, np.array(0.5), np.array(0.1), np.array([1.0, 2.0, 3.0]))
    assert [(m.kind, m.name) for m in review.mistakes] == [
        ("factor", "∂L/∂a"), ("mean", "∂L/∂b")]
    assert {step.name: step.mark for step in review.steps} == {
        "∂L/∂a": "wrong", "∂L/∂z": "follows", "∂L/∂w": "follows", "∂L/∂b": "wrong"}


@pytest.mark.parametrize(("wrong", "kind", "words"), [
    ("dz.T @ h", "operand", "x belongs"), ("(x.T @ dz).T", "transpose", "transposed"),
    ("dz", "shape", "(4, 3)"), ("x.T @ dz * 1.37", "unknown", "no single slip"),
    ("-x.T @ dz", "sign", "−1"), ("x.T @ np.ones_like(dz)", "upstream", "∂L/∂z"),
])
def test_the_mistake_in_words(wrong: str, kind: str, words: str) -> None:
    rng = np.random.default_rng(3)
    x, W = rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    scope = {"np": np}
    exec("def back(x, W):\n    z = x @ W\n    h = z[:, :2]\n    dz = np.exp(z)\n"
         f"    return {{'dz': dz, 'dW': {wrong}}}", scope)

    def f(x: Any, W: Any) -> Any:
        z = x @ W
        return cr.exp(z).sum()

    (mistake,) = check(scope["back"], f, x, W).mistakes
    if kind == "operand":                               # an operand that f does not have
        kind, words = "shape", "(3, 2)"
    assert mistake.kind == kind
    assert words in mistake.sentence
    assert mistake.title == TITLES[kind]


def test_a_product_that_does_not_fit() -> None:
    def f(x: Any, W: Any) -> Any:
        h = x @ W
        return (h * h).sum()

    def back(x: Any, W: Any) -> Any:
        dh = 2 * (x @ W)
        dx = dh @ W
        return dx, x.T @ dh

    review = check(back, f, np.ones((4, 2)), np.ones((2, 3)))
    (mistake,) = review.mistakes
    assert not review.ok and mistake.kind == "transpose"
    assert "dh @ W cannot be multiplied: (4, 3) @ (2, 3)" in mistake.sentence
    assert "dh @ W.T gives (4, 2), the shape of x" in mistake.sentence
    assert "did not run" in str(review)
    with pytest.raises(ZeroDivisionError):
        check(lambda x, W: 1 / 0, f, np.ones((4, 2)), np.ones((2, 3)))


def test_numbers_from_paper() -> None:
    def f(w: Any) -> Any:
        z = w * 3
        return (z - 6) ** 2

    assert check({"dz": -6.0, "dw": -18.0}, f, 1.0).ok
    assert check(-18.1, f, 1.0, tolerance=0.01).ok
    assert not check(-18.1, f, 1.0).ok
    assert check({"dL/dw": 18.0}, f, 1.0).mistakes[0].kind == "sign"
    for key in ("dw", "grad_w", "w.grad", "∂L/∂w", "dL_dw", "w"):
        assert check({key: -18.0}, f, 1.0).ok


def test_all_variables_of_a_backward_pass_may_be_returned() -> None:
    def back(w: Any, x: Any) -> Any:
        z = w * x
        a = 1 / (1 + np.exp(-z))
        p = 1 - a
        da = -2 * p
        dz = da * a * p
        dw = dz * x
        return locals()

    review = check(back, neuron, 0.5, 2.0)
    assert review.ok
    assert [step.name for step in review.steps] == ["∂L/∂a", "∂L/∂z", "∂L/∂w"]
    assert review.remarks == ("Not marked, since f has no step of that name: p.",)


def test_a_backward_pass_may_write_into_its_inputs() -> None:
    def back(w: Any, x: Any) -> Any:
        x *= w
        x[:] = 2 * x
        return (x * np.array([1.0, 2.0])).sum(), None

    x = np.array([1.0, 2.0])
    assert check(back, lambda w, x: ((w * x) ** 2).sum(), 0.5, x).ok
    assert x.tolist() == [1, 2]


def test_tensors_upstream_and_kept_axes() -> None:
    def f(x: Any, W: Any) -> Any:
        z = x @ W
        return cr.tanh(z)

    def back(x: Any, W: Any, g: Any) -> Any:
        a = cr.tanh(x @ W)
        dz = g * (1 - a * a)
        return dz @ W.T, x.T @ dz

    g = np.arange(12.0).reshape(3, 4)
    assert check(back, f, cr.randn(3, 2), cr.randn(2, 4), upstream=g).ok

    def layer(x: Any, b: Any) -> Any:
        z = x + b
        return (z * z).sum()

    review = check(lambda x, b: {"db": (2 * (x + b)).sum(0, keepdims=True)}, layer,
                   np.ones((3, 2)), np.ones(2))
    assert review.ok
    assert review.steps[0].remark == "as (1, 2); what it belongs to is (2,)"


def test_a_network_of_modules() -> None:
    cr.manual_seed(0)
    net = cr.nn.Sequential(cr.nn.Linear(2, 3), cr.nn.ReLU(), cr.nn.Linear(3, 1))
    x, y = cr.randn(4, 2), cr.randn(4, 1)

    def loss(x: Any) -> Any:
        return cr.nn.functional.mse_loss(net(x), y)

    def back(x: Any) -> dict[str, Any]:
        W1, b1, W2, b2 = [p.detach().numpy() for p in net.parameters()]
        z = x.numpy() @ W1.T + b1
        do = 2 * (np.maximum(z, 0) @ W2.T + b2 - y.numpy()) / 4
        dz = (do @ W2) * (z > 0)
        return {"net.2.weight": do.T @ np.maximum(z, 0), "net.0.weight": dz.T @ x.numpy(),
                "dnet.0.bias": dz}

    review = check(back, loss, x)
    assert [step.mark for step in review.steps] == ["right", "wrong", "right"]
    assert review.mistakes[0].kind == "batch"


def convolution(x: Any, w: Any, b: Any, v: Any) -> Any:
    h = cr.relu(cr.nn.functional.conv2d(x, w, b))
    p = cr.nn.functional.max_pool2d(h, 2)
    y = p.reshape(2, -1) @ v
    return cr.nn.functional.cross_entropy(y, cr.tensor([0, 1]))


def attending(i: Any, E: Any, g: Any, b: Any) -> Any:
    e = cr.nn.functional.embedding(i, E)
    n = cr.nn.functional.layer_norm(e, (4,), g, b)
    s = cr.softmax(n @ n.mT / 2, dim=-1)
    return ((s @ n).mean(1) ** 2).sum()


@pytest.mark.parametrize("f", [convolution, attending])
@pytest.mark.parametrize(("spoil", "kind"), [
    (lambda g: g, ""), (lambda g: -g, "sign"), (lambda g: 1.234 * g, "unknown"),
    (lambda g: g + 0.1, "unknown"),
])
def test_any_row_is_marked_and_nothing_is_guessed(f: Any, spoil: Any, kind: str) -> None:
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(2, 1, 6, 6), (2, 1, 3, 3), (2,), (8, 3)]
    if f is attending:
        shapes = [(5, 4), (4,), (4,)]
    inputs = [rng.normal(size=shape) for shape in shapes]
    if f is attending:
        inputs.insert(0, rng.integers(0, 5, (2, 3)))

    def back(*given: Any) -> Any:
        tensors = [cr.tensor(x, requires_grad=x.dtype.kind == "f") for x in given]
        f(*tensors).backward()
        found = [None if t.grad is None else t.grad.numpy() for t in tensors]
        return [*found[:1], spoil(found[1]), *found[2:]]

    review = check(back, f, *inputs)
    assert [one.kind for one in review.mistakes] == ([kind] if kind else []), review


def test_right_only_at_these_numbers() -> None:
    def f(x: Any) -> Any:
        z = cr.relu(x)
        return (z * z).sum()

    x = np.array([1.0, 2.0])
    assert not check(lambda x: 2 * x, f, x).remarks      # all inputs tried are positive too
    review = check(lambda x: np.array([2.0, 4.0]), f, x)
    assert review.ok
    assert "Right at these inputs, but not in general" in review.remarks[0]
    assert "∂L/∂x" in str(review)


def test_as_json() -> None:
    data = json.loads(check(lambda w, x: by_hand(w, x, "slope"), neuron, 0.5, 2.0).json())
    assert data["ok"] is False
    assert [one["mark"] for one in data["steps"]] == ["right", "wrong", "follows"]
    assert data["mistakes"][0]["kind"] == "slope"
    infinite = check(lambda w: np.array(np.inf), lambda w: w * 2, 1.0)
    assert json.loads(infinite.json())["steps"][0]["yours"] == "inf"


@pytest.mark.parametrize(("mine", "f", "error", "message"), [
    ({"dq": 1}, neuron, SettingError, "no step 'dq'"),
    ({"daa": 1}, neuron, SettingError, "Did you mean 'da'"),
    ((1, 2, 3), neuron, SettingError, "3 gradients for 2 inputs (w, x)"),
    ({"dw": "much"}, neuron, SettingError, "an array of numbers"),
    (1.0, lambda w, x: 3, GradientError, "must return the loss"),
    (1.0, lambda w, x: cr.tensor(1.0), GradientError, "does not depend"),
    (1.0, lambda w, x: cr.stack([w, x]), GradientError, "upstream=g"),
])
def test_mistakes_of_the_call(mine: Any, f: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        check(mine, f, 0.5, 2.0)


def test_nothing_is_left_behind() -> None:
    w = cr.tensor(0.5, requires_grad=True)
    keep = cr.settings.keep_small
    check(lambda w, x: by_hand(float(w), float(x)), neuron, w, cr.tensor(2.0))
    assert w.grad is None
    assert cr.settings.keep_small == keep
