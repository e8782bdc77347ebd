"""Steps without a slope that gradients pass, and random choices that gradients flow through."""

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.core.errors import SettingError, ShapeError

F = cr.nn.functional


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_value_forward_and_the_gradient_as_it_is(dtype, compiled):
    values = np.array([0.1, -0.5, 1e30, 3.7, -0.0, 1e-30], dtype)
    weights = cr.tensor(np.arange(6.0).astype(dtype))

    def f(x):
        y = cr.straight_through(x.round(), x)
        (y * weights).sum().backward()
        return y

    x = cr.tensor(values, requires_grad=True)
    y = (cr.compile(f) if compiled else f)(x)
    np.testing.assert_array_equal(y.detach().numpy(), np.round(values))
    np.testing.assert_array_equal(x.grad.numpy(), weights.numpy())


def test_infinities_stay_what_they_are():
    x = cr.tensor([np.inf, -np.inf, 2.5], requires_grad=True)
    y = cr.straight_through(x.sign(), x)
    assert y.tolist() == [1.0, -1.0, 1.0]
    y.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_shapes_must_agree():
    with pytest.raises(ShapeError, match="must have one shape"):
        cr.straight_through(cr.ones(3), cr.ones(2))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_hard_choices_are_one_hot_and_soft_ones_sum_to_one(dim):
    cr.manual_seed(1)
    scores = cr.randn(5, 4, requires_grad=True)
    hard = F.gumbel_softmax(scores, hard=True, dim=dim)
    assert set(hard.flatten().tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(hard.sum(dim).detach().numpy(), 1.0)
    soft = F.gumbel_softmax(scores, tau=0.5, dim=dim)
    np.testing.assert_allclose(soft.sum(dim).detach().numpy(), 1.0, rtol=1e-5)
    (hard * cr.randn(5, 4)).sum().backward()
    assert np.abs(scores.grad.numpy()).min() > 0


def test_choices_come_as_often_as_the_softmax_says():
    cr.manual_seed(2)
    torch.manual_seed(2)
    scores = [0.0, 1.0, 2.0]
    shares = F.gumbel_softmax(cr.tensor(scores).expand(20_000, 3), hard=True).mean(0).numpy()
    theirs = torch.nn.functional.gumbel_softmax(
        torch.tensor(scores).expand(20_000, 3), hard=True).mean(0).numpy()
    np.testing.assert_allclose(shares, np.exp(scores) / np.exp(scores).sum(), atol=0.015)
    np.testing.assert_allclose(shares, theirs, atol=0.02)


def test_a_temperature_must_be_positive():
    with pytest.raises(SettingError, match="larger than 0"):
        F.gumbel_softmax(cr.zeros(3), tau=0)
