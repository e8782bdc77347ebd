"""The layers and losses beyond the first ones equal PyTorch's: one row each."""

from __future__ import annotations

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


def given(x, lib):
    make = torch.tensor if lib is torch else cr.tensor
    return make(x, requires_grad=x.dtype.kind == "f")


def array(x):
    return x.detach().numpy()


def same(ours, theirs):
    assert array(ours).dtype == array(theirs).dtype
    np.testing.assert_allclose(array(ours), array(theirs), rtol=2e-5, atol=2e-5)


LAYERS = {
    "Conv1d": (lambda n: n.Conv1d(2, 3, 3), normal(2, 2, 7)),
    "Conv1d options": (lambda n: n.Conv1d(4, 6, 2, stride=2, padding=1, dilation=2, groups=2,
                                          bias=False), normal(2, 4, 9)),
    "Conv1d same": (lambda n: n.Conv1d(2, 3, 3, padding="same"), normal(2, 2, 7)),
    "Conv1d of one signal": (lambda n: n.Conv1d(2, 3, 3), normal(2, 7)),
    "ConvTranspose2d": (lambda n: n.ConvTranspose2d(2, 3, 3), normal(2, 2, 4, 5)),
    "ConvTranspose2d options": (lambda n: n.ConvTranspose2d(
        4, 6, (3, 2), stride=2, padding=1, output_padding=1, groups=2, bias=False, dilation=2),
        normal(2, 4, 4, 5)),
    "GroupNorm": (lambda n: n.GroupNorm(2, 6), normal(3, 6, 4)),
    "GroupNorm plain": (lambda n: n.GroupNorm(3, 6, eps=1e-3, affine=False), normal(3, 6, 4, 2)),
    "InstanceNorm2d": (lambda n: n.InstanceNorm2d(3), normal(2, 3, 4, 5)),
    "InstanceNorm2d affine": (lambda n: n.InstanceNorm2d(3, affine=True), normal(3, 4, 5)),
    "InstanceNorm2d tracked": (lambda n: n.InstanceNorm2d(3, affine=True,
                                                          track_running_stats=True),
                               normal(2, 3, 4, 5)),
    "RMSNorm": (lambda n: n.RMSNorm(5), normal(4, 5)),
    "RMSNorm of two axes": (lambda n: n.RMSNorm([3, 5], eps=1e-3), normal(4, 3, 5)),
    "RMSNorm plain": (lambda n: n.RMSNorm(5, elementwise_affine=False), normal(4, 5)),
    "AdaptiveAvgPool2d": (lambda n: n.AdaptiveAvgPool2d(2), normal(2, 3, 5, 7)),
    "AdaptiveAvgPool2d one size": (lambda n: n.AdaptiveAvgPool2d((3, None)), normal(2, 3, 5, 7)),
    "Upsample": (lambda n: n.Upsample(scale_factor=2), normal(2, 3, 3, 4)),
    "Upsample size": (lambda n: n.Upsample((5, 7)), normal(2, 3, 3, 4)),
    "Upsample bilinear": (lambda n: n.Upsample(scale_factor=2, mode="bilinear",
                                               align_corners=True), normal(2, 3, 3, 4)),
    "Upsample linear": (lambda n: n.Upsample(scale_factor=(2,), mode="linear"), normal(2, 3, 4)),
    "Unfold": (lambda n: n.Unfold(2), normal(2, 3, 4, 5)),
    "Unfold options": (lambda n: n.Unfold((2, 3), padding=1, stride=2), normal(2, 3, 4, 5)),
    "ZeroPad2d": (lambda n: n.ZeroPad2d(1), normal(2, 3, 4, 5)),
    "ZeroPad2d four": (lambda n: n.ZeroPad2d((1, 0, 2, 3)), normal(2, 3, 4, 5)),
    "ZeroPad1d": (lambda n: n.ZeroPad1d((1, 2)), normal(2, 3, 4)),
    "ConstantPad1d": (lambda n: n.ConstantPad1d(2, 1.5), normal(2, 3, 4)),
    "ConstantPad2d": (lambda n: n.ConstantPad2d((1, -1, 2, 0), -3), normal(2, 3, 4, 5)),
    "ReflectionPad1d": (lambda n: n.ReflectionPad1d(2), normal(2, 3, 4)),
    "ReflectionPad2d": (lambda n: n.ReflectionPad2d((1, 0, 2, 3)), normal(2, 3, 4, 5)),
    "ReflectionPad2d of one image": (lambda n: n.ReflectionPad2d(1), normal(3, 4, 5)),
    "ReplicationPad1d": (lambda n: n.ReplicationPad1d((3, 1)), normal(2, 4)),
    "ReplicationPad2d": (lambda n: n.ReplicationPad2d(2), normal(2, 3, 4, 5)),
    "CircularPad1d": (lambda n: n.CircularPad1d((2, 1)), normal(2, 3, 4)),
    "CircularPad2d": (lambda n: n.CircularPad2d((1, 2, 3, 0)), normal(2, 3, 4, 5)),
    "MaxPool1d": (lambda n: n.MaxPool1d(2), normal(2, 3, 7)),
    "MaxPool1d options": (lambda n: n.MaxPool1d(3, 2, padding=1, dilation=2, ceil_mode=True),
                          normal(3, 9)),
    "AvgPool1d": (lambda n: n.AvgPool1d(2), normal(2, 3, 7)),
    "AvgPool1d options": (lambda n: n.AvgPool1d(3, 2, 1, True, False), normal(3, 9)),
    "AdaptiveAvgPool1d": (lambda n: n.AdaptiveAvgPool1d(3), normal(2, 3, 7)),
    "AdaptiveMaxPool1d": (lambda n: n.AdaptiveMaxPool1d(3), normal(2, 3, 7)),
    "Hardtanh": (lambda n: n.Hardtanh(-0.5, 0.7), normal(4, 5)),
    "ReLU6": (lambda n: n.ReLU6(), 5 * normal(4, 5)),
    "Hardswish": (lambda n: n.Hardswish(), 3 * normal(4, 5)),
    "Hardsigmoid": (lambda n: n.Hardsigmoid(), 3 * normal(4, 5)),
    "Mish": (lambda n: n.Mish(), normal(4, 5)),
    "SELU": (lambda n: n.SELU(), normal(4, 5)),
    "CELU": (lambda n: n.CELU(0.7), normal(4, 5)),
    "PReLU": (lambda n: n.PReLU(), normal(4, 5)),
    "PReLU channels": (lambda n: n.PReLU(3, 0.1), normal(2, 3, 4)),
    "GLU": (lambda n: n.GLU(), normal(4, 6)),
    "GLU of channels": (lambda n: n.GLU(1), normal(4, 6, 2)),
    "Softsign": (lambda n: n.Softsign(), normal(4, 5)),
    "Softmin": (lambda n: n.Softmin(dim=1), normal(4, 5)),
    "Softplus": (lambda n: n.Softplus(), normal(4, 5)),
    "Tanhshrink": (lambda n: n.Tanhshrink(), normal(4, 5)),
    "Threshold": (lambda n: n.Threshold(0.1, 2.0), normal(4, 5)),
    "LogSigmoid": (lambda n: n.LogSigmoid(), normal(4, 5)),
}
LAYERS |= {f"{name} in place": (lambda n, name=name: getattr(n, name)(inplace=True), None)
           for name in ("ReLU6", "Hardswish", "Hardsigmoid", "Mish", "SELU", "CELU", "Hardtanh")}


def pair_of(make):
    torch.manual_seed(0)
    ours, theirs = make(nn), make(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [tuple(p.shape) for p in ours.parameters()] == [
        tuple(p.shape) for p in theirs.parameters()]
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_pytorch(name):
    make, x = LAYERS[name]
    ours, theirs = pair_of(make)
    if x is None:
        x = normal(3, 4)
        a, b = cr.tensor(x), torch.tensor(x)
        assert ours(a) is a
        same(a, theirs(b))
        return
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        a, b = given(x, cr), given(x, torch)
        y, z = ours(a), theirs(b)
        same(y, z)
        g = normal(*z.shape)
        y.backward(cr.tensor(g))
        z.backward(torch.tensor(g))
        same(a.grad, b.grad)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            same(p.grad, q.grad)
        for p, q in zip(ours.buffers(), theirs.buffers(), strict=True):
            same(p, q)


signs = np.sign(normal(4, 3))
one_sign = np.sign(normal(4))
shares, logs = (np.abs(normal(4, 3)) for _ in range(2))
LOSSES = {
    "KLDivLoss": ({}, normal(4, 3), shares),
    "KLDivLoss log": ({"log_target": True}, normal(4, 3), normal(4, 3)),
    "GaussianNLLLoss": ({"full": True}, normal(4, 3), normal(4, 3), np.abs(normal(4, 3))),
    "PoissonNLLLoss": ({}, normal(4, 3), np.round(3 * shares)),
    "PoissonNLLLoss rate": ({"log_input": False, "full": True}, shares, np.round(3 * logs)),
    "CosineEmbeddingLoss": ({"margin": 0.1}, normal(4, 3), normal(4, 3), one_sign),
    "MarginRankingLoss": ({"margin": 0.2}, normal(4), normal(4), one_sign),
    "TripletMarginLoss": ({"swap": True}, normal(4, 3), normal(4, 3), normal(4, 3)),
    "HingeEmbeddingLoss": ({"margin": 0.7}, normal(4, 3), signs),
    "SoftMarginLoss": ({}, normal(4, 3), signs),
    "HuberLoss": ({"delta": 0.5}, normal(4, 3), normal(4, 3)),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore:reduction")
def test_loss_equals_pytorch(name, reduction):
    options, *inputs = LOSSES[name]
    kind = name.split()[0]
    ours, theirs = (getattr(lib, kind)(reduction=reduction, **options) for lib in (nn, torch.nn))
    assert repr(ours) == repr(theirs)
    a = [given(inputs[0], cr), *(cr.tensor(x) for x in inputs[1:])]
    b = [given(inputs[0], torch), *(torch.tensor(x) for x in inputs[1:])]
    y, z = ours(*a), theirs(*b)
    same(y, z)
    y.sum().backward()
    z.sum().backward()
    same(a[0].grad, b[0].grad)


def test_kl_divergence_is_averaged_over_the_batch():
    x, t = normal(4, 3), shares
    same(nn.KLDivLoss(reduction="batchmean")(cr.tensor(x), cr.tensor(t)),
         torch.nn.KLDivLoss(reduction="batchmean")(torch.tensor(x), torch.tensor(t)))


@pytest.mark.parametrize("name", ["CosineSimilarity", "PairwiseDistance"])
def test_distance_equals_pytorch(name):
    x, y = normal(4, 3), normal(4, 3)
    ours, theirs = getattr(nn, name)(), getattr(torch.nn, name)()
    assert repr(ours) == repr(theirs)
    same(ours(cr.tensor(x), cr.tensor(y)), theirs(torch.tensor(x), torch.tensor(y)))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "padding"])
def test_attention_equals_pytorch(batch_first, mask):
    ours, theirs = pair_of(lambda n: n.MultiheadAttention(8, 2, batch_first=batch_first))
    q, k, v = normal(3, 3, 8), normal(3, 3, 8), normal(3, 3, 8)
    blocked = np.triu(np.ones((3, 3), bool), 1)
    padding = np.array([[False, False, True], [False] * 3, [False, True, True]])
    masks = {"none": {}, "bool": {"attn_mask": blocked},
             "float": {"attn_mask": normal(3, 3)}, "padding": {"key_padding_mask": padding}}[mask]
    for average in (True, False):
        results = []
        for layer, lib in ((ours, cr), (theirs, torch)):
            layer.zero_grad()
            inputs = [given(x, lib) for x in (q, k, v)]
            y, weights = layer(*inputs, average_attn_weights=average,
                               **{key: lib.tensor(m) for key, m in masks.items()})
            (y * y).sum().backward()
            results.append([y, weights, *(x.grad for x in inputs),
                            *(p.grad for p in layer.parameters())])
        for a, b in zip(*results, strict=True):
            same(a, b)


def test_attention_without_batch_and_weights():
    ours, theirs = pair_of(lambda n: n.MultiheadAttention(8, 4, bias=False))
    q, k = normal(5, 8), normal(3, 8)
    y, weights = ours(*map(cr.tensor, (q, k, k)), need_weights=False)
    z, _ = theirs(*map(torch.tensor, (q, k, k)), need_weights=False)
    assert weights is None
    same(y, z)


def test_options_that_do_not_fit_are_refused():
    for make, text in (
            (lambda: nn.GroupNorm(4, 6), "multiple of num_groups"),
            (lambda: nn.Conv1d(3, 4, 2, groups=2), "multiples of groups"),
            (lambda: nn.MultiheadAttention(6, 4), "multiple of num_heads"),
            (lambda: nn.Hardtanh(1.0, -1.0), "below max_val"),
            (lambda: nn.ZeroPad2d((1, 2)), "one number or four"),
            (lambda: nn.ReflectionPad1d((1, 2, 3)), r"one number or two \(left, right\)"),
            (lambda: nn.ReflectionPad1d(4)(cr.zeros(1, 3, 4)), "at most 3 on each side, not 4"),
            (lambda: nn.CircularPad1d(5)(cr.zeros(1, 3, 4)), "at most 4 on each side, not 5"),
            (lambda: nn.ReplicationPad2d(1)(cr.zeros(4, 4)), r"needs \(N, C, H, W\) or \(C, H"),
            (lambda: F.pad(cr.zeros(1, 3), (1, 1), "mirror"), "'reflect', 'replicate' or"),
            (lambda: F.pad(cr.zeros(1, 3), (1, 1), "reflect", 2.0), "is for mode='constant'"),
            (lambda: nn.MaxPool1d(5)(cr.zeros(1, 3, 4)), "window of 5 does not fit"),
            (lambda: nn.AvgPool1d(2, padding=2)(cr.zeros(1, 3, 4)), "at most half"),
            (lambda: nn.AvgPool1d(0)(cr.zeros(1, 3, 4)), "kernel_size=0 must be at least 1"),
            (lambda: nn.MaxPool1d((2, 2))(cr.zeros(1, 3, 4)), "must be one number"),
            (lambda: nn.AdaptiveMaxPool1d(2)(cr.zeros(4)), r"batch of signals \(N, C, L\)"),
            (lambda: nn.Conv1d(2, 3, 3)(cr.zeros(1, 5, 7)), r"needs \(N, 2, L\)"),
            (lambda: nn.InstanceNorm2d(2)(cr.zeros(1, 3, 4, 4)), r"needs \(N, 2, H, W\)"),
            (lambda: F.instance_norm(cr.zeros(2, 3)), r"needs \(N, C, ...\)")):
        with pytest.raises((ValueError, RuntimeError), match=text):
            make()


def test_where_the_maxima_are():
    x = normal(2, 3, 9)
    for make in (lambda n: n.MaxPool1d(3, 2, 1, return_indices=True),
                 lambda n: n.AdaptiveMaxPool1d(4, return_indices=True)):
        for a, b in zip(make(nn)(cr.tensor(x)), make(torch.nn)(torch.tensor(x)), strict=True):
            same(a, b)


WITHOUT_WEIGHTS = [name for name in LAYERS if name.startswith(
    ("MaxPool1d", "AvgPool1d", "Adaptive", "Reflection", "Replication", "Circular", "Constant"))]


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_compiled_and_mapped_equal_eager(name):
    make, x = LAYERS[name]
    layer = make(nn)

    def loss(x):
        return (layer(x) ** 3).sum()

    slope = cr.func.grad(loss)
    expected = slope(cr.tensor(x))
    same(cr.compile(slope)(cr.tensor(x)), expected)
    batch = cr.stack([cr.tensor(x), cr.tensor(2 * x)])
    mapped = cr.func.vmap(slope)(batch)
    same(mapped[0], expected)
    same(mapped[1], slope(batch[1]))
