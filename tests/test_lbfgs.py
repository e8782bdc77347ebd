"""L-BFGS against PyTorch, on its own, and what it says."""

import copy
import itertools

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.core.errors import SettingError, TracedValueError


def problem(lib, kind, dtype="float64"):
    """Leaves and a loss of them, the same in both libraries."""
    random = np.random.default_rng(5)
    if kind == "rosenbrock":
        x = lib.tensor([0.5, 2.0, 0.5, 1.5], dtype=getattr(lib, dtype), requires_grad=True)
        return [x], lambda: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    if kind == "quadratic":
        a = random.normal(size=(6, 6))
        a = lib.tensor(a @ a.T + np.eye(6), dtype=getattr(lib, dtype))
        x = lib.tensor(random.normal(size=6), dtype=getattr(lib, dtype), requires_grad=True)
        return [x], lambda: (x @ a @ x) / 2
    data = lib.tensor(random.normal(size=(40, 5)), dtype=getattr(lib, dtype))
    target = lib.tensor(random.integers(0, 3, 40))
    w = lib.tensor(random.normal(size=(5, 3)), dtype=getattr(lib, dtype), requires_grad=True)
    b = lib.tensor(np.zeros(3), dtype=getattr(lib, dtype), requires_grad=True)
    return [w, b], lambda: lib.nn.functional.cross_entropy(data @ w + b, target)


def run(lib, kind, steps, **options):
    leaves, loss_of = problem(lib, kind)
    optimizer = lib.optim.LBFGS(leaves, **options)

    def closure():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(steps)]
    return losses, [x.detach().numpy() for x in leaves], loss_of().item()


@pytest.mark.parametrize("options", [
    {}, {"lr": 0.3}, {"max_iter": 4}, {"history_size": 2, "lr": 0.5}, {"max_eval": 3},
], ids=str)
@pytest.mark.parametrize("kind", ["quadratic", "classes"])
def test_the_same_steps_as_pytorch(kind, options):
    ours, theirs = (run(lib, kind, 4, **options) for lib in (cr, torch))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-8)
    for a, b in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("kind", "least"), [
    ("rosenbrock", 0.0), ("quadratic", 0.0), ("classes", None)])
def test_the_line_search_finds_the_minimum(kind, least):
    options = {"line_search_fn": "strong_wolfe", "max_iter": 200, "max_eval": 1000}
    _, values, loss = run(cr, kind, 3, **options)
    if least is None:
        least = run(torch, kind, 3, **options)[2]
    assert loss == pytest.approx(least, abs=1e-9)
    if kind == "rosenbrock":
        np.testing.assert_allclose(values[0], 1.0, atol=1e-4)


def test_every_accepted_step_of_the_line_search_decreases_the_loss():
    losses = run(cr, "rosenbrock", 25, line_search_fn="strong_wolfe", max_iter=1)[0]
    assert all(after <= before for before, after in itertools.pairwise(losses))


def test_a_compiled_closure_does_the_same():
    results = []
    for compiled in (False, True):
        leaves, loss_of = problem(cr, "classes")
        optimizer = cr.optim.LBFGS(leaves)

        def closure(optimizer=optimizer, loss_of=loss_of):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            return loss

        closure = cr.compile(closure) if compiled else closure
        results.append([optimizer.step(closure).item() for _ in range(5)])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-9)


def test_saved_and_loaded_it_goes_on_as_before():
    def made():
        leaves, loss_of = problem(cr, "rosenbrock")
        optimizer = cr.optim.LBFGS(leaves, max_iter=3, lr=0.001)

        def closure():
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            return loss
        return leaves, optimizer, closure

    leaves, optimizer, closure = made()
    for _ in range(3):
        optimizer.step(closure)
    others, second, again = made()
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with cr.no_grad():
        others[0].copy_(leaves[0])
    assert [optimizer.step(closure).item() for _ in range(3)] == [
        second.step(again).item() for _ in range(3)]


def test_not_a_number_stops_it_and_changes_nothing():
    x = cr.tensor([1.0, -1.0], requires_grad=True)
    optimizer = cr.optim.LBFGS([x])

    def closure():
        optimizer.zero_grad()
        loss = cr.log(x).sum()
        loss.backward()
        return loss * float("nan")

    x.grad = None
    with np.errstate(all="ignore"):
        optimizer.step(lambda: (closure(), x.grad.fill_(float("nan")))[0])
    assert x.tolist() == [1.0, -1.0]


def test_what_it_says():
    x, y = (cr.ones(2, requires_grad=True) for _ in range(2))
    with pytest.raises(SettingError, match="one group"):
        cr.optim.LBFGS([{"params": [x]}, {"params": [y]}])
    with pytest.raises(SettingError, match="strong_wolfe"):
        cr.optim.LBFGS([x], line_search_fn="wolfe")
    optimizer = cr.optim.LBFGS([x])
    with pytest.raises(TypeError, match="needs a closure"):
        optimizer.step()
    with pytest.raises(TracedValueError, match="Compile the closure instead"):
        cr.compile(lambda: optimizer.step(lambda: (x * x).sum()))()


def test_a_state_saved_by_pytorch_is_taken_over():
    states = []
    for lib in (torch, cr):
        leaves, loss_of = problem(lib, "quadratic")
        optimizer = lib.optim.LBFGS(leaves, max_iter=3, lr=0.5)

        def closure(optimizer=optimizer, loss_of=loss_of):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            return loss

        optimizer.step(closure)
        states.append((leaves, optimizer, closure))
    (_, theirs, their_closure), (_, ours, our_closure) = states
    ours.load_state_dict(theirs.state_dict())
    for _ in range(2):
        assert ours.step(our_closure).item() == pytest.approx(theirs.step(their_closure).item())
