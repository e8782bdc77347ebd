"""Functions, data tools and an optimiser that PyTorch programs use now and then."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule.data import DataLoader, TensorDataset

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install -e '.[test]' brings it")

A = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
HOLED = A.copy()
HOLED[1, 2] = np.nan
WEIGHTS = np.array([1, 2, 0, 3, 1])

CALLS = {
    "quantile": lambda t, x: t.quantile(x, 0.3),
    "quantile of rows": lambda t, x: t.quantile(x, t.tensor([0.0, 0.25, 0.9, 1.0]), dim=1),
    "quantile kept": lambda t, x: x.quantile(0.5, 0, True),
    "quantile of all kept": lambda t, x: t.quantile(x, t.tensor([0.2, 0.4]), keepdim=True),
    **{f"quantile {way}": lambda t, x, way=way: t.quantile(x, 0.4, dim=1, interpolation=way)
       for way in ("linear", "lower", "higher", "nearest", "midpoint")},
    "quantile with NaN": lambda t, x: t.quantile(t.tensor(HOLED), 0.5, dim=1),
    "cdist": lambda t, x: t.cdist(x, x[:2] + 1),
    "cdist of batches": lambda t, x: t.cdist(x.reshape(3, 1, 5), x.reshape(3, 5, 1).mT, p=1.0),
    "cov": lambda t, x: t.cov(x),
    "cov of one": lambda t, x: x[0].cov(correction=0),
    "cov weighed": lambda t, x: t.cov(x, fweights=t.tensor(WEIGHTS),
                                      aweights=t.tensor(np.abs(A[0]))),
    "xlogy": lambda t, x: t.xlogy(x.abs(), x.abs() + 0.5),
    "xlogy of zeros": lambda t, x: t.xlogy(x * 0, t.tensor([0.0, 1.0, 2.0, np.nan, np.inf])),
    "xlogy of numbers": lambda t, x: x.xlogy(2.0),
    "where": lambda t, x: x.where(x > 0, x * 2),
    "where with a number": lambda t, x: x.where(x > 0, 0.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_function_equals_pytorch(name):
    results = []
    for lib in (cr, torch):
        x = lib.tensor(A, requires_grad=True)
        y = CALLS[name](lib, x)
        if y.requires_grad:
            (y * y).sum().backward()
        results.append((y.detach().numpy(), None if x.grad is None else x.grad.numpy()))
    (y, g), (z, h) = results
    assert y.dtype == z.dtype and y.shape == z.shape
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)
    if g is not None and h is not None:
        np.testing.assert_allclose(g, h, rtol=1e-4, atol=1e-5)


def test_small_questions():
    x = cr.tensor(A)
    assert cr.is_floating_point(x) and not cr.is_floating_point(cr.arange(2))
    assert cr.numel(x) == x.nelement() == 15
    assert cr.is_nonzero(x[0, 0]) and not cr.tensor(0).is_nonzero()
    assert cr.FloatTensor([1, 2]).dtype == cr.float32
    assert cr.DoubleTensor([1, 2]).dtype == cr.float64
    assert cr.LongTensor(2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
    drawn = cr.randint_like(x, 3, 5)
    assert drawn.dtype == x.dtype and drawn.shape == x.shape
    assert set(drawn.flatten().tolist()) <= {3.0, 4.0}
    old = cr.autograd.Variable(x, requires_grad=True)
    assert old.requires_grad and old.is_leaf and not x.requires_grad


@pytest.mark.parametrize("mix", [
    lambda x, t: x + t, lambda x, t: t + x, lambda x, t: x @ t, lambda x, t: t / x,
    lambda x, t: torch.sin(x), lambda x, t: torch.nn.functional.mse_loss(x, t)])
def test_tensors_of_both_packages_do_not_mix(mix):
    with pytest.raises(RuntimeError, match="chainrule and of torch"):
        mix(cr.ones(2), torch.ones(2))
    assert torch.tensor(cr.ones(2).numpy()).tolist() == [1, 1]


PRODUCTS = {
    "jacobian": lambda f, x, y: f.jacobian(lambda a: a**2, x),
    "jacobian of two": lambda f, x, y: f.jacobian(lambda a, b: a * b, (x, y)),
    "jacobian of two outputs": lambda f, x, y: f.jacobian(lambda a, b: (a * b, b.sum()), (x, y)),
    "hessian": lambda f, x, y: f.hessian(lambda a: (a**3).sum(), x),
    "hessian of two": lambda f, x, y: f.hessian(lambda a, b: (a**2 * b).sum(), (x, y)),
    "vjp": lambda f, x, y: f.vjp(lambda a: a**2, x, y),
    "vjp of a number": lambda f, x, y: f.vjp(lambda a: (a**2).sum(), x),
    "vjp of two": lambda f, x, y: f.vjp(lambda a, b: a * b, (x, y), x),
    "jvp": lambda f, x, y: f.jvp(lambda a: a**2, x, y),
    "jvp of two": lambda f, x, y: f.jvp(lambda a, b: a * b, (x, y), (y, x)),
    "hvp": lambda f, x, y: f.hvp(lambda a: (a**3).sum(), x, y),
    "vhp of two": lambda f, x, y: f.vhp(lambda a, b: (a**2 * b).sum(), (x, y), (y, x)),
}


def leaves(tree):
    return [one for part in tree for one in leaves(part)] if isinstance(tree, tuple) else [tree]


@pytest.mark.parametrize("name", PRODUCTS)
def test_autograd_functional_equals_pytorch(name):
    ours, theirs = (leaves(PRODUCTS[name](lib.autograd.functional, lib.tensor(A[0]),
                                          lib.tensor(A[1]))) for lib in (cr, torch))
    for a, b in zip(ours, theirs, strict=True):
        assert not a.requires_grad
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5)


def test_autograd_functional_says_what_is_missing():
    f = cr.autograd.functional
    for call in (lambda: f.vjp(lambda a: a * 2, cr.ones(2)),
                 lambda: f.jvp(lambda a: a * 2, cr.ones(2)),
                 lambda: f.hessian(lambda a: a * 2, cr.ones(2))):
        with pytest.raises(RuntimeError, match="one number"):
            call()
    x = cr.ones(2, requires_grad=True)
    assert f.jacobian(lambda a: a**3, x, create_graph=True).requires_grad


# ---------------------------------------------------------------- data


class Stream(cr.data.IterableDataset):
    """Five rows without numbers."""

    def __iter__(self):
        return iter(range(5))


def test_samplers():
    rows = range(6)
    assert list(cr.data.SequentialSampler(rows)) == list(rows)
    assert sorted(cr.data.RandomSampler(rows)) == list(rows)
    many = cr.data.RandomSampler(rows, num_samples=14)
    assert len(list(many)) == len(many) == 14 and sorted(list(many)[:6]) == list(rows)
    again = list(cr.data.RandomSampler(rows, replacement=True, num_samples=40))
    assert len(again) == 40 and set(again) <= set(rows)
    assert sorted(cr.data.SubsetRandomSampler([7, 9, 11])) == [7, 9, 11]
    assert list(cr.data.BatchSampler(rows, 4, True)) == [[0, 1, 2, 3]]
    generator = cr.Generator().manual_seed(0)
    drawn = list(cr.data.WeightedRandomSampler([1, 0, 3], 4000, generator=generator))
    assert set(drawn) == {0, 2} and 0.7 < drawn.count(2) / 4000 < 0.8
    once = list(cr.data.WeightedRandomSampler(cr.tensor([1.0, 0, 3, 2]), 3, replacement=False))
    assert sorted(once) == [0, 2, 3]
    for wrong in (lambda: cr.data.WeightedRandomSampler([1, -1], 2),
                  lambda: cr.data.WeightedRandomSampler([1, 0], 2, replacement=False),
                  lambda: cr.data.RandomSampler([], num_samples=2),
                  lambda: cr.data.BatchSampler(rows, 0, True)):
        with pytest.raises(ValueError, match="Sampler"):
            wrong()
    data = TensorDataset(cr.arange(6))
    batches = [x.tolist() for (x,) in DataLoader(data, 4, sampler=cr.data.RandomSampler(data))]
    assert sorted(n for b in batches for n in b) == list(rows)
    assert [len(b) for b in batches] == [4, 2]
    own = DataLoader(data, batch_sampler=cr.data.BatchSampler([5, 3, 1], 2, False))
    assert [x.tolist() for (x,) in own] == [[5, 3], [1]]


def test_data_sets_one_after_the_other():
    joined = cr.data.ConcatDataset([TensorDataset(cr.arange(2)), TensorDataset(cr.arange(5, 8))])
    assert [x.item() for (x,) in joined] == [0, 1, 5, 6, 7]
    assert len(joined) == 5 and joined[-1][0].item() == 7
    assert [x.tolist() for (x,) in DataLoader(joined, 3)] == [[0, 1, 5], [6, 7]]
    with pytest.raises(IndexError):
        joined[5]


def test_rows_without_numbers():
    assert [b.tolist() for b in DataLoader(Stream(), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Stream(), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Stream(), None)) == list(range(5))
    with pytest.raises(ValueError, match="their own order"):
        DataLoader(Stream(), 2, shuffle=True)
    with pytest.raises(TypeError, match="no length"):
        len(DataLoader(Stream(), 2))


def test_pytorchs_names_of_the_modules():
    from chainrule.utils.data import DataLoader as A
    from chainrule.utils.data.dataloader import DataLoader as B
    from chainrule.utils.data.dataset import TensorDataset as C

    assert A is B is DataLoader and C is TensorDataset


# ---------------------------------------------------------------- Adadelta


@pytest.mark.parametrize("options", [{}, {"lr": 0.5, "rho": 0.8, "eps": 1e-4},
                                     {"weight_decay": 0.1}, {"maximize": True}])
def test_adadelta_equals_pytorch(options):
    ours = cr.tensor(A, requires_grad=True)
    theirs = torch.tensor(A, requires_grad=True)
    steps = (cr.optim.Adadelta([ours], **options), torch.optim.Adadelta([theirs], **options))
    for _ in range(5):
        for x, optimizer in zip((ours, theirs), steps, strict=True):
            optimizer.zero_grad()
            (x**3).sum().backward()
            optimizer.step()
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-5)
    mine, state = steps[0].state[ours], steps[1].state[theirs]
    assert list(mine) == list(state)
    for key in ("square_avg", "acc_delta"):
        np.testing.assert_allclose(mine[key].numpy(), state[key].numpy(), rtol=1e-4)
