"""Initial values: moments, shapes, gains and what layers start from."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import init

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install -e '.[test]' brings it")


@pytest.fixture(autouse=True)
def seed():
    cr.manual_seed(0)


def values(x):
    return x.detach().numpy()


def moments(x):
    a = values(x).astype(np.float64)
    return a.mean(), a.std(), a.min(), a.max()


@pytest.mark.parametrize(("name", "options", "mean", "std"), [
    ("uniform_", {"a": -1.0, "b": 3.0}, 1.0, 4 / math.sqrt(12)),
    ("normal_", {"mean": 2.0, "std": 0.5}, 2.0, 0.5),
    ("xavier_uniform_", {"gain": 2.0}, 0.0, 2 * math.sqrt(2 / 500)),
    ("xavier_normal_", {}, 0.0, math.sqrt(2 / 500)),
    ("kaiming_uniform_", {"nonlinearity": "relu"}, 0.0, math.sqrt(2 / 300)),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}, 0.0, math.sqrt(2 / 200)),
    ("kaiming_normal_", {"a": 0.5}, 0.0, math.sqrt(2 / 1.25 / 300)),
])
def test_moments(name, options, mean, std):
    x = cr.zeros(200, 300)
    assert getattr(init, name)(x, **options) is x
    found = moments(x)
    assert abs(found[0] - mean) < 6 * std / math.sqrt(x.numel())
    assert abs(found[1] / std - 1) < 0.02


def test_uniform_stays_inside_and_fills_the_range():
    x = init.uniform_(cr.zeros(100, 1000), -0.5, 0.25)
    _, _, low, high = moments(x)
    assert -0.5 <= low < -0.4999
    assert 0.2499 < high <= 0.25


@pytest.mark.parametrize(
    ("a", "b"), [(-2.0, 2.0), (-0.1, 0.2), (1.0, 5.0), (3.0, 4.0), (-9.0, -3.5)])
def test_trunc_normal_has_the_moments_of_the_truncated_distribution(a, b):
    x = values(init.trunc_normal_(cr.zeros(300, 300), a=a, b=b)).astype(np.float64)
    assert x.min() >= a
    assert x.max() <= b
    grid = np.linspace(a, b, 100001)
    density = np.exp(-grid**2 / 2 + min(grid**2) / 2)
    mean = (grid * density).sum() / density.sum()
    std = math.sqrt(((grid - mean) ** 2 * density).sum() / density.sum())
    assert abs(x.mean() - mean) < 6 * std / 300
    assert abs(x.std() / std - 1) < 0.03


def test_constants():
    assert values(init.constant_(cr.zeros(2, 2), 3.5)).tolist() == [[3.5, 3.5], [3.5, 3.5]]
    assert values(init.ones_(cr.zeros(2))).tolist() == [1, 1]
    assert values(init.zeros_(cr.ones(2))).tolist() == [0, 0]
    assert values(init.eye_(cr.ones(2, 3))).tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="matrix"):
        init.eye_(cr.ones(3))


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40), (8, 3, 3, 3)])
def test_orthogonal(shape):
    x = values(init.orthogonal_(cr.zeros(*shape), gain=2.0)).reshape(shape[0], -1)
    if x.shape[0] > x.shape[1]:
        x = x.T
    np.testing.assert_allclose(x @ x.T, 4 * np.eye(len(x)), atol=2e-5)


@pytest.mark.parametrize("name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "selu"])
def test_gains_equal_pytorch(name):
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)


def test_errors():
    with pytest.raises(ValueError, match="2 axes"):
        init.kaiming_normal_(cr.zeros(3))
    with pytest.raises(ValueError, match="fan_in"):
        init.kaiming_normal_(cr.zeros(3, 3), mode="sideways")
    with pytest.raises(ValueError, match="swish"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="below"):
        init.trunc_normal_(cr.zeros(3), a=2.0, b=1.0)


@pytest.mark.parametrize("make", [
    lambda n: n.Linear(400, 300), lambda n: n.Conv2d(16, 128, (3, 5), groups=2),
    lambda n: n.Embedding(300, 200), lambda n: n.LayerNorm(10), lambda n: n.BatchNorm1d(10)])
def test_layers_start_from_the_distribution_pytorch_starts_from(make):
    ours, theirs = make(nn), make(torch.nn)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        a, b = moments(p), moments(q)
        size = values(p).size
        assert abs(a[0] - b[0]) <= 8 * (b[1] + 1e-12) / math.sqrt(size), name
        assert abs(a[1] - b[1]) <= 8 * (b[1] + 1e-12) / math.sqrt(size), name
        if name == "weight" and not isinstance(ours, nn.Embedding):
            assert abs(a[3] - b[3]) <= 0.01 * b[3], name


def test_seed_and_generator_decide():
    a = values(nn.Linear(4, 4).weight).copy()
    cr.manual_seed(0)
    b = values(nn.Linear(4, 4).weight).copy()
    c = values(nn.Linear(4, 4).weight).copy()
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(b, c)
    x, y = (init.normal_(cr.zeros(5), generator=cr.Generator().manual_seed(7)) for _ in range(2))
    np.testing.assert_array_equal(values(x), values(y))


def test_float64_and_parameters_that_require_grad():
    layer = nn.Linear(3, 3, dtype=cr.float64)
    assert layer.weight.dtype == cr.float64
    init.normal_(layer.weight)
    assert layer.weight.requires_grad
    assert layer.weight.is_leaf


def test_lsuv_gives_every_layer_unit_variance():
    net = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(),
                        nn.Sequential(nn.Linear(50, 50), nn.Tanh()), nn.Linear(50, 10))
    batch = cr.randn(256, 20) * 7
    assert init.lsuv_(net, batch, tolerance=0.02) is net
    seen = []
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda m, a, out: seen.append(values(out).var()))
    net(batch)
    assert len(seen) == 4
    assert all(abs(v - 1) < 0.03 for v in seen)
