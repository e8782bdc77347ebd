"""The course's pages print what they show, and its engine of 200 lines is right."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr

COURSE = Path(__file__).resolve().parents[1] / "docs" / "course"


def load(name):
    spec = importlib.util.spec_from_file_location(f"course_{name}", COURSE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


scratch, runner = load("scratch"), load("run")


@pytest.mark.parametrize("page", runner.pages(), ids=lambda page: page.stem)
def test_a_page_prints_what_it_shows(page):
    assert runner.run(page) == page.read_text(encoding="utf-8"), (
        "if the new output is right: python docs/course/run.py --write")


def test_every_page_leads_to_the_next():
    pages = runner.pages()
    assert len(pages) == 10
    for page, following in itertools.pairwise(pages):
        assert f"]({following.name})" in page.read_text(encoding="utf-8")


def test_the_engine_has_at_most_200_lines():
    assert len((COURSE / "scratch.py").read_text(encoding="utf-8").splitlines()) <= 200


# name: what it is made of, and the operands' shapes
PROGRAMS = {
    "add": (lambda a, b: a + b, (3, 4), (4,)),
    "sub": (lambda a, b: a - b, (3, 1), (3, 4)),
    "rsub": (lambda a: 2.0 - a, (3,)),
    "mul": (lambda a, b: a * b, (2, 3, 4), (3, 1)),
    "div": (lambda a, b: a / (b * b + 1.0), (3, 4), (1, 4)),
    "rdiv": (lambda a: 1.0 / (a * a + 1.0), (3,)),
    "neg": (lambda a: -a, ()),
    "pow": (lambda a: a ** 3, (3,)),
    "exp log": (lambda a: (a.exp() + 1.0).log(), (3, 2)),
    "tanh": (lambda a: a.tanh(), (3, 2)),
    "sigmoid": (lambda a: a.sigmoid(), (3, 2)),
    "relu": (lambda a: a.relu(), (30,)),
    "matmul": (lambda a, b: a @ b, (3, 4), (4, 2)),
    "stacked matmul": (lambda a, b: a @ b, (5, 3, 4), (4, 2)),
    "transpose": (lambda a, b: a.T @ b, (4, 3), (4, 2)),
    "reshape": (lambda a, b: a.reshape(4, 3) @ b, (3, 4), (3, 2)),
    "sum": (lambda a: a.sum() * a.sum(axis=0) + a.sum(axis=1).sum(), (3, 3)),
    "mean": (lambda a: a.mean() * a, (3, 3)),
    "index": (lambda a: a[np.array([0, 2, 0])] * a[1], (3, 4)),
    "used twice": (lambda a: a * a.tanh() + a, (3,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_of_the_engine_agree_with_differences(name):
    function, *shapes = PROGRAMS[name]
    random = np.random.default_rng(7)
    values = [random.normal(size=shape) for shape in shapes]
    weights = random.normal(size=function(*map(scratch.Tensor, values)).value.shape)

    def loss(*arrays):
        tensors = [scratch.Tensor(array) for array in arrays]
        return tensors, (function(*tensors) * weights).sum()

    tensors, total = loss(*values)
    total.backward()
    for position, tensor in enumerate(tensors):
        assert tensor.grad.shape == values[position].shape
        for place in np.ndindex(values[position].shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [array.copy() for array in values]
                moved[position][place] += step
                ends.append(loss(*moved)[1].value)
            assert tensor.grad[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_the_engine_trains_as_the_library_does(activation):
    random = np.random.default_rng(3)
    x, classes = random.normal(size=(20, 5)), random.integers(0, 3, 20)
    small = scratch.Network(5, 7, 6, 3, activation=activation)
    layer = {"tanh": cr.nn.Tanh, "sigmoid": cr.nn.Sigmoid, "relu": cr.nn.ReLU}[activation]
    big = cr.nn.Sequential(cr.nn.Linear(5, 7), layer(), cr.nn.Linear(7, 6), layer(),
                           cr.nn.Linear(6, 3)).double()
    with cr.no_grad():
        for p, q in zip(big.parameters(), small.parameters(), strict=True):
            p.copy_(cr.tensor(q.value))
    first, second = scratch.SGD(small.parameters(), 0.1, 0.9), cr.optim.SGD(
        big.parameters(), 0.1, momentum=0.9)
    for _ in range(20):
        first.zero_grad()
        second.zero_grad()
        mine = scratch.cross_entropy(small(x), classes)
        theirs = cr.nn.functional.cross_entropy(big(cr.tensor(x)), cr.tensor(classes))
        mine.backward()
        theirs.backward()
        first.step()
        second.step()
        assert float(mine.value) == pytest.approx(theirs.item(), rel=1e-12)
    for p, q in zip(big.parameters(), small.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.value, rtol=1e-10, atol=1e-12)


def test_the_engine_is_not_bounded_by_the_stack():
    x = scratch.Tensor(1.0)
    y = x
    for _ in range(20_000):
        y = y * 1.0
    y.backward()
    assert x.grad == 1.0


def test_the_engine_says_what_backward_needs():
    with pytest.raises(ValueError, match=r"\(3,\) is not one number"):
        scratch.Tensor([1.0, 2.0, 3.0]).backward()
