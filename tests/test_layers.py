"""Layers and losses: outputs, gradients, buffers and reprs equal PyTorch's; errors teach."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import functional as F

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install -e '.[test]' brings it")

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def given(array, lib, requires_grad=True):
    if not isinstance(array, np.ndarray):
        return array
    make = torch.tensor if lib is torch else cr.tensor
    return make(array, requires_grad=requires_grad and array.dtype.kind == "f")


def array(x):
    return x.detach().numpy()


def same(ours, theirs, tolerance=2e-5):
    ours, theirs = array(ours), array(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def printed(module):
    """The repr without what PyTorch began to print in 2.12."""
    return re.sub(r"(affine=\w+), bias=\w+", r"\1", repr(module))


def compare(make, *inputs, tolerance=2e-5, modes=(True, False)):
    """Output, input gradients, parameter gradients, buffers and repr equal PyTorch's."""
    ours, theirs = make(cr.nn), make(torch.nn)
    assert printed(ours) == printed(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for training in modes:
        ours.train(training)
        theirs.train(training)
        a = [given(x, cr) for x in inputs]
        b = [given(x, torch) for x in inputs]
        y, z = ours(*a), theirs(*b)
        same(y, z, tolerance)
        if not z.requires_grad:
            continue
        g = normal(*z.shape)
        y.backward(cr.tensor(g))
        z.backward(torch.tensor(g))
        for p, q in zip(a, b, strict=True):
            if isinstance(q, torch.Tensor) and q.grad is not None:
                same(p.grad, q.grad, tolerance)
        for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(),
                                         strict=True):
            assert name == other
            same(p.grad, q.grad, tolerance)
        for p, q in zip(ours.buffers(), theirs.buffers(), strict=True):
            same(p, q, tolerance)


LAYERS = {
    "linear": (lambda n: n.Linear(5, 3), normal(4, 5)),
    "linear no bias": (lambda n: n.Linear(5, 3, bias=False), normal(4, 5)),
    "linear of a vector": (lambda n: n.Linear(5, 3), normal(5)),
    "linear of a batch of matrices": (lambda n: n.Linear(5, 3), normal(2, 4, 5)),
    "identity": (lambda n: n.Identity(), normal(4, 5)),
    "relu": (lambda n: n.ReLU(), normal(4, 5)),
    "leaky": (lambda n: n.LeakyReLU(0.2), normal(4, 5)),
    "elu": (lambda n: n.ELU(0.7), normal(4, 5)),
    "tanh": (lambda n: n.Tanh(), normal(4, 5)),
    "sigmoid": (lambda n: n.Sigmoid(), normal(4, 5)),
    "logsigmoid": (lambda n: n.LogSigmoid(), normal(4, 5)),
    "gelu": (lambda n: n.GELU(), normal(4, 5)),
    "gelu tanh": (lambda n: n.GELU("tanh"), normal(4, 5)),
    "silu": (lambda n: n.SiLU(), normal(4, 5)),
    "softplus": (lambda n: n.Softplus(), 20 * normal(4, 5)),
    "softplus beta": (lambda n: n.Softplus(2.0, 5.0), 5 * normal(4, 5)),
    "softmax": (lambda n: n.Softmax(dim=1), normal(4, 5)),
    "log softmax": (lambda n: n.LogSoftmax(dim=-1), normal(4, 5, 2)),
    "flatten": (lambda n: n.Flatten(), normal(2, 3, 4)),
    "unflatten": (lambda n: n.Unflatten(1, (2, -1)), normal(2, 6, 4)),
    "layer norm": (lambda n: n.LayerNorm(5), normal(4, 5)),
    "layer norm of two axes": (lambda n: n.LayerNorm([3, 5]), normal(4, 3, 5)),
    "layer norm without bias": (lambda n: n.LayerNorm(5, bias=False), normal(4, 5)),
    "layer norm plain": (lambda n: n.LayerNorm(5, elementwise_affine=False), normal(4, 5)),
    "batch norm": (lambda n: n.BatchNorm1d(5), normal(6, 5)),
    "batch norm of sequences": (lambda n: n.BatchNorm1d(5, eps=1e-2), normal(6, 5, 3)),
    "batch norm cumulative": (lambda n: n.BatchNorm1d(5, momentum=None), normal(6, 5)),
    "batch norm plain": (lambda n: n.BatchNorm1d(5, affine=False), normal(6, 5)),
    "batch norm untracked": (lambda n: n.BatchNorm2d(3, track_running_stats=False),
                             normal(2, 3, 4, 4)),
    "batch norm 2d": (lambda n: n.BatchNorm2d(3), normal(2, 3, 4, 4)),
    "conv": (lambda n: n.Conv2d(2, 3, 3), normal(2, 2, 6, 5)),
    "conv strided": (lambda n: n.Conv2d(2, 4, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2)),
                     normal(2, 2, 7, 6)),
    "conv groups": (lambda n: n.Conv2d(4, 6, 3, groups=2, bias=False), normal(2, 4, 5, 5)),
    "conv same": (lambda n: n.Conv2d(2, 3, 3, padding="same"), normal(2, 2, 5, 5)),
    "conv same even": (lambda n: n.Conv2d(2, 3, 4, padding="same"), normal(2, 2, 5, 5)),
    "conv of one image": (lambda n: n.Conv2d(2, 3, 3), normal(2, 6, 5)),
    "max pool": (lambda n: n.MaxPool2d(2), normal(2, 3, 6, 6)),
    "max pool overlapping": (lambda n: n.MaxPool2d(3, stride=2, padding=1), normal(2, 3, 7, 6)),
    "max pool ceil": (lambda n: n.MaxPool2d(3, stride=2, ceil_mode=True), normal(2, 3, 8, 6)),
    "max pool dilated": (lambda n: n.MaxPool2d(2, stride=1, dilation=2), normal(3, 6, 6)),
    "avg pool": (lambda n: n.AvgPool2d(2), normal(2, 3, 6, 6)),
    "avg pool padded": (lambda n: n.AvgPool2d(3, 2, 1), normal(2, 3, 7, 6)),
    "avg pool without padding": (lambda n: n.AvgPool2d(3, 2, 1, count_include_pad=False),
                                 normal(2, 3, 7, 6)),
    "avg pool ceil": (lambda n: n.AvgPool2d(3, 2, 1, ceil_mode=True), normal(2, 3, 8, 6)),
    "avg pool divisor": (lambda n: n.AvgPool2d(2, divisor_override=3), normal(2, 3, 6, 6)),
    "embedding": (lambda n: n.Embedding(7, 3), rng.integers(0, 7, (4, 5))),
    "embedding padding": (lambda n: n.Embedding(7, 3, padding_idx=2), rng.integers(0, 4, (4, 5))),
    "sequential": (lambda n: n.Sequential(n.Linear(5, 8), n.BatchNorm1d(8), n.Tanh(),
                                          n.Sequential(n.Linear(8, 4), n.GELU())), normal(6, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_pytorch(name):
    make, x = LAYERS[name]
    torch.manual_seed(0)
    compare(make, x)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "silu"])
def test_inplace_activation_writes_into_its_input(name):
    x = normal(3, 4)
    ours, theirs = cr.tensor(x.copy()), torch.tensor(x.copy())
    y = getattr(F, name)(ours, inplace=True)
    getattr(torch.nn.functional, name)(theirs, inplace=True)
    same(ours, theirs)
    assert y is ours


# ---------------------------------------------------------------- losses

classes = rng.integers(0, 5, 6)
ignored = classes.copy()
ignored[[1, 4]] = -100
weights = rng.uniform(0.5, 2, 5).astype(np.float32)
probabilities = rng.dirichlet(np.ones(5), 6).astype(np.float32)
inside = rng.uniform(0.01, 0.99, (4, 3)).astype(np.float32)
zero_one = rng.integers(0, 2, (4, 3)).astype(np.float32)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "options", "inputs"), [
    ("MSELoss", {}, (normal(4, 3), normal(4, 3))),
    ("L1Loss", {}, (normal(4, 3), normal(4, 3))),
    ("SmoothL1Loss", {}, (2 * normal(4, 3), normal(4, 3))),
    ("SmoothL1Loss", {"beta": 0.3}, (normal(4, 3), normal(4, 3))),
    ("HuberLoss", {"delta": 0.6}, (normal(4, 3), normal(4, 3))),
    ("CrossEntropyLoss", {}, (normal(6, 5), classes)),
    ("CrossEntropyLoss", {}, (normal(6, 5), ignored)),
    ("CrossEntropyLoss", {"ignore_index": 2}, (normal(6, 5), classes)),
    ("CrossEntropyLoss", {"weight": weights}, (normal(6, 5), ignored)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, (normal(6, 5), ignored)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": weights}, (normal(6, 5), ignored)),
    ("CrossEntropyLoss", {}, (normal(6, 5), probabilities)),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "weight": weights},
     (normal(6, 5), probabilities)),
    ("CrossEntropyLoss", {}, (normal(2, 5, 3, 4), rng.integers(0, 5, (2, 3, 4)))),
    ("CrossEntropyLoss", {"weight": weights, "label_smoothing": 0.1},
     (normal(2, 5, 3), rng.integers(0, 5, (2, 3)))),
    ("CrossEntropyLoss", {}, (normal(5), np.array(3))),
    ("NLLLoss", {}, (normal(6, 5), classes)),
    ("NLLLoss", {"weight": weights, "ignore_index": 1},
     (normal(2, 5, 3), rng.integers(0, 5, (2, 3)))),
    ("BCELoss", {}, (inside, zero_one)),
    ("BCELoss", {"weight": inside}, (inside, zero_one)),
    ("BCEWithLogitsLoss", {}, (3 * normal(4, 3), zero_one)),
    ("BCEWithLogitsLoss", {"pos_weight": weights[:3]}, (3 * normal(4, 3), inside)),
    ("BCEWithLogitsLoss", {"weight": weights[:3]}, (3 * normal(4, 3), inside)),
])
def test_loss_equals_pytorch(name, options, inputs, reduction):
    def make(lib):
        kept = {key: given(value, lib, False) for key, value in options.items()}
        return getattr(lib.nn, name)(reduction=reduction, **kept)
    ours, theirs = make(cr), make(torch)
    assert repr(ours) == repr(theirs)
    targets = inputs[1]
    a, b = given(inputs[0], cr), given(inputs[0], torch)
    y = ours(a, given(targets, cr, False))
    z = theirs(b, given(targets, torch, False))
    same(y, z)
    y.sum().backward()
    z.sum().backward()
    same(a.grad, b.grad)


def test_bce_at_zero_and_one_equals_pytorch():
    x = np.array([0.0, 0.0, 1.0, 1.0, 0.5], np.float32)
    t = np.array([0.0, 1.0, 0.0, 1.0, 1.0], np.float32)
    a, b = given(x, cr), given(x, torch)
    y = F.binary_cross_entropy(a, cr.tensor(t), reduction="none")
    z = torch.nn.functional.binary_cross_entropy(b, torch.tensor(t), reduction="none")
    same(y, z)
    y.sum().backward()
    z.sum().backward()
    same(a.grad, b.grad)


@pytest.mark.parametrize("pos_weight", [None, 2.0])
def test_bce_with_logits_is_stable_for_any_score(pos_weight):
    scores = [math.inf, math.inf, -math.inf, -math.inf, 300.0, -300.0, 300.0, -300.0]
    x, t = np.array(scores, np.float32), np.array([1, 0, 0, 1, 1, 0, 0, 1], np.float32)
    a, b = given(x, cr), given(x, torch)
    options = [{} if pos_weight is None else {"pos_weight": lib.tensor(pos_weight)}
               for lib in (cr, torch)]
    y = F.binary_cross_entropy_with_logits(a, cr.tensor(t), reduction="none", **options[0])
    z = torch.nn.functional.binary_cross_entropy_with_logits(
        b, torch.tensor(t), reduction="none", **options[1])
    factor = pos_weight or 1.0
    # Where PyTorch has NaN (a certain and right score), the limit is 0.
    assert array(y).tolist() == [0, math.inf, 0, math.inf, 0, 0, 300, 300 * factor]
    known = ~np.isnan(array(z))
    np.testing.assert_array_equal(array(y)[known], array(z)[known])
    y.sum().backward()
    z.sum().backward()
    same(a.grad, b.grad)


def test_cross_entropy_of_certain_scores():
    x = cr.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    loss = F.cross_entropy(x, cr.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 5000.0
    assert np.isfinite(array(x.grad)).all()


def test_all_targets_ignored_is_nan_as_in_pytorch():
    loss = F.cross_entropy(cr.tensor(normal(2, 3)), cr.tensor([-100, -100]))
    assert math.isnan(loss.item())


@pytest.mark.parametrize(("call", "words"), [
    (lambda: F.mse_loss(cr.zeros(4, 1), cr.zeros(4)), ("f32[4,1]", "f32[4]", "reshape")),
    (lambda: F.cross_entropy(cr.zeros(4, 3), cr.tensor([0, 1, 2, 3])),
     ("class 3", "[3]", "0 to 2")),
    (lambda: F.cross_entropy(cr.zeros(4, 3), cr.tensor([0, -1, 2, 2])), ("class -1", "[1]")),
    (lambda: F.cross_entropy(cr.zeros(4, 3), cr.tensor([0, 1])), ("f32[4,3]", "(4,)")),
    (lambda: F.cross_entropy(cr.zeros(4, 3), cr.zeros(4)), ("probabilities", ".long()")),
    (lambda: F.nll_loss(cr.zeros(4, 3), cr.zeros(4)), (".long()",)),
    (lambda: F.binary_cross_entropy(cr.tensor([2.0]), cr.tensor([1.0])), ("2", "with_logits")),
    (lambda: F.mse_loss(cr.zeros(2), cr.zeros(2), reduction="avg"), ("'avg'", "mean")),
    (lambda: F.softmax(cr.zeros(2, 3)), ("dim=",)),
    (lambda: F.embedding(cr.tensor([1.5]), cr.zeros(3, 2)), (".long()",)),
    (lambda: nn.Embedding(3, 2)(cr.tensor([[0, 1], [2, 3]])), ("Embedding(3, 2)", "3", "[1][1]")),
    (lambda: nn.Embedding(3, 2)(cr.tensor([-1])), ("-1",)),
    (lambda: nn.Dropout(1.5), ("1.5", "between 0 and 1")),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ("in_channels=3", "groups=2")),
    (lambda: nn.Conv2d(3, 4, 3)(cr.zeros(2, 1, 8, 8)), ("Conv2d(3, 4", "f32[2,1,8,8]")),
    (lambda: nn.BatchNorm1d(3)(cr.zeros(1, 3)), ("BatchNorm1d(3", "larger batch")),
    (lambda: nn.BatchNorm2d(3)(cr.zeros(2, 3)), ("(N, C, H, W)", "f32[2,3]")),
    (lambda: nn.LayerNorm(3)(cr.zeros(2, 4)), ("LayerNorm((3,)", "f32[2,4]")),
    (lambda: nn.Linear(3, 2)(cr.zeros(2, 3, dtype=cr.float64)), ("f64[2,3]", "float32")),
    (lambda: nn.Linear(3, -2), ("out_features=-2",)),
    (lambda: nn.Sequential([nn.ReLU()]), ("*layers",)),
])
def test_errors_teach(call, words):
    with pytest.raises((ValueError, TypeError, IndexError, RuntimeError)) as error:
        call()
    for word in words:
        assert word in str(error.value)


# ---------------------------------------------------------------- dropout


def test_dropout_keeps_the_mean_and_the_gradient_of_what_it_keeps():
    cr.manual_seed(3)
    layer = nn.Dropout(0.25)
    x = cr.ones(200, 500, requires_grad=True)
    y = layer(x)
    kept = array(y) != 0
    assert abs(kept.mean() - 0.75) < 0.01
    np.testing.assert_allclose(array(y)[kept], 1 / 0.75, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(array(x.grad), array(y))
    assert not np.array_equal(array(layer(x)), array(y))
    cr.manual_seed(3)
    np.testing.assert_array_equal(array(layer(x)), array(y))
    assert layer.eval()(x) is x
    assert not array(nn.Dropout(1.0)(x)).any()


def test_dropout2d_drops_whole_channels():
    y = array(nn.Dropout2d(0.5)(cr.ones(8, 16, 3, 3)))
    assert set(np.unique(y.reshape(128, 9).sum(1))) == {0.0, 18.0}


@pytest.mark.parametrize("make", [
    lambda **o: nn.Linear(2, 3, **o), lambda **o: nn.Conv2d(1, 2, 3, **o),
    lambda **o: nn.BatchNorm1d(3, **o), lambda **o: nn.LayerNorm(3, **o),
    lambda **o: nn.Embedding(3, 2, **o), lambda **o: nn.LSTM(2, 3, **o),
    lambda **o: nn.MultiheadAttention(4, 2, **o), lambda **o: nn.PReLU(**o)])
def test_layers_are_made_in_the_default_dtype(make):
    def dtypes(layer):
        kept = [*layer.parameters(), *layer.buffers()]
        return {x.dtype for x in kept if x.dtype.kind == "f"}
    with cr.settings.using(default_dtype=cr.float64):
        assert dtypes(make()) == {cr.float64}
        assert dtypes(make(dtype=cr.float32)) == {cr.float32}
    assert dtypes(make()) == {cr.float32}


def test_batch_norm_without_momentum_keeps_the_mean_of_all_batches():
    def run(lib, compiled):
        norm = lib.nn.BatchNorm1d(3, momentum=None)
        function = cr.compile(lambda x: norm(x)) if compiled else norm
        for k in range(4):
            function(lib.tensor(np.random.default_rng(k).normal(size=(6, 3)).astype("f4")))
        return [array(norm.running_mean), array(norm.running_var)]
    for its, mine, compiled in zip(run(torch, False), run(cr, False), run(cr, True), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5)
        np.testing.assert_allclose(compiled, its, rtol=1e-5)
