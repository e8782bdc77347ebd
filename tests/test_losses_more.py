"""Margin losses, CTC and bags of embeddings as layers: eager, compiled, mapped; errors teach."""

from __future__ import annotations

import copy
import itertools

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
    if not isinstance(x, np.ndarray):
        return x
    make = torch.tensor if lib is torch else cr.tensor
    return make(x, requires_grad=x.dtype.kind == "f")


def same(ours, theirs, tolerance=2e-5):
    ours, theirs = ours.detach().numpy(), theirs.detach().numpy()
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


classes = np.array([1, 0, 4, 2])
labels = np.array([[3, 0, -1, 1, 4], [-1, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 2, 1, -1, -1]])
targets = np.array([[1, 2, 2], [4, 1, 3], [3, 3, 3]])
LAYERS = {
    "MultiMarginLoss": (lambda lib: lib.nn.MultiMarginLoss(), normal(4, 5), classes),
    "MultiMarginLoss options": (
        lambda lib: lib.nn.MultiMarginLoss(2, 0.7, lib.tensor([1.0, 2.0, 0.5, 1.5, 3.0]),
                                           reduction="sum"), normal(4, 5), classes),
    "MultiLabelMarginLoss": (lambda lib: lib.nn.MultiLabelMarginLoss(), normal(4, 5), labels),
    "TripletMarginWithDistanceLoss": (
        lambda lib: lib.nn.TripletMarginWithDistanceLoss(swap=True), normal(4, 5), normal(4, 5),
        normal(4, 5)),
    "TripletMarginWithDistanceLoss of cosines": (
        lambda lib: lib.nn.TripletMarginWithDistanceLoss(
            distance_function=lib.nn.CosineSimilarity(), margin=0.2), normal(4, 5), normal(4, 5),
        normal(4, 5)),
    "CTCLoss": (lambda lib: lib.nn.Sequential(lib.nn.LogSoftmax(-1), Ctc(lib)), normal(7, 3, 5)),
    "CTCLoss short": (
        lambda lib: lib.nn.Sequential(lib.nn.LogSoftmax(-1),
                                      Ctc(lib, (7, 2, 5), zero_infinity=True)), normal(7, 3, 5)),
    "EmbeddingBag": (lambda lib: lib.nn.EmbeddingBag(6, 3), targets),
    "EmbeddingBag padded": (lambda lib: lib.nn.EmbeddingBag(6, 3, mode="sum", padding_idx=2),
                            targets),
    "EmbeddingBag largest": (lambda lib: lib.nn.EmbeddingBag(6, 3, mode="max", padding_idx=-3),
                             targets),
    "EmbeddingBag with offsets": (
        lambda lib: lib.nn.EmbeddingBag(6, 3), np.array([1, 2, 4, 5, 4, 3, 2]),
        np.array([0, 3, 3])),
    "EmbeddingBag largest, offsets": (
        lambda lib: lib.nn.EmbeddingBag(6, 3, mode="max", include_last_offset=True),
        np.array([1, 2, 4, 5, 4, 3, 2]), np.array([0, 3, 3, 7])),
    "EmbeddingBag weighed": (
        lambda lib: lib.nn.EmbeddingBag(6, 3, mode="sum"), np.array([1, 2, 4, 5, 4, 3, 2]),
        np.array([0, 3, 3]), normal(7)),
}


def Ctc(lib, lengths=(7, 6, 7), **options):
    """The loss as a layer of one input: fixed targets and lengths."""

    class Ctc(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.loss = lib.nn.CTCLoss(**options)

        def forward(self, x):
            return self.loss(x, lib.tensor(targets), lengths, (3, 2, 3))

    return Ctc()


def pair_of(make):
    torch.manual_seed(0)
    ours, theirs = make(cr), make(torch)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_pytorch_eager_copied_and_compiled(name):
    make, *arrays = LAYERS[name]
    ours, theirs = pair_of(make)

    def run(layer, lib, call):
        inputs = [given(x, lib) for x in arrays]
        layer.zero_grad()
        y = call(*inputs)
        (y * y).sum().backward()
        leaves = [x for x in [*inputs, *layer.parameters()] if x.requires_grad]
        return [y, *(x.grad for x in leaves)]

    def step(*inputs):
        y = ours(*inputs)
        (y * y).sum().backward()
        return y

    expected = run(theirs, torch, theirs)
    twin = copy.deepcopy(ours)
    for got in (run(ours, cr, ours), run(twin, cr, twin)):
        for a, b in zip(got, expected, strict=True):
            same(a, b)
    ours.zero_grad()
    inputs = [given(x, cr) for x in arrays]
    compiled = cr.compile(step)(*inputs)
    leaves = [x for x in [*inputs, *ours.parameters()] if x.requires_grad]
    for a, b in zip([compiled, *(x.grad for x in leaves)], expected, strict=True):
        same(a, b)


@pytest.mark.parametrize("name", ["MultiMarginLoss", "MultiLabelMarginLoss", "CTCLoss",
                                  "TripletMarginWithDistanceLoss"])
def test_mapped_equals_one_by_one(name):
    make, x, *rest = LAYERS[name]
    layer = make(cr)
    rest = [cr.tensor(y) for y in rest]
    batch = cr.tensor(np.stack([x, 2 * x, -x]))
    slope = cr.func.grad(lambda x: layer(x, *rest))
    for got, one in zip(cr.func.vmap(slope)(batch), batch, strict=True):
        same(got, slope(one))


def test_bags_mapped_equal_one_by_one():
    layer = nn.EmbeddingBag(6, 3, padding_idx=2)
    batch = cr.tensor(np.stack([targets, targets[::-1]]))
    for got, one in zip(cr.func.vmap(layer)(batch), batch, strict=True):
        same(got, layer(one))


def test_ctc_is_the_sum_over_all_alignments():
    times, count = 5, 3
    logs = F.log_softmax(cr.tensor(normal(times, count)), -1)
    p = np.exp(logs.numpy())
    target = (1, 2)
    total = 0.0
    for path in itertools.product(range(count), repeat=times):
        read = [c for c, _ in itertools.groupby(path) if c]
        if tuple(read) == target:
            total += np.prod([p[t, c] for t, c in enumerate(path)])
    loss = F.ctc_loss(logs, cr.tensor([target]), (times,), (2,), reduction="sum")
    assert loss.item() == pytest.approx(-np.log(total), rel=1e-5)


def test_ctc_agrees_with_differences():
    logs = cr.tensor(rng.standard_normal((4, 2, 3)), requires_grad=True)
    y = cr.tensor([[1, 1], [2, 1]])

    def loss(x):
        return F.ctc_loss(F.log_softmax(x, -1), y, (4, 3), (2, 2), reduction="none")

    assert cr.autograd.gradcheck(loss, (logs,))
    assert cr.autograd.gradgradcheck(loss, (logs,))


def test_ctc_compiled_with_lengths_as_inputs():
    x, y = cr.tensor(normal(7, 3, 5)), cr.tensor(targets)

    def loss(x, y, long, short):
        return F.ctc_loss(F.log_softmax(x, -1), y, long, short)

    fast = cr.compile(loss)
    for long, short in (((7, 7, 7), (3, 3, 3)), ((7, 5, 6), (3, 0, 2))):
        lengths = cr.tensor(long), cr.tensor(short)
        same(fast(x, y, *lengths), loss(x, y, *lengths))
    joined = cr.compile(loss)
    with pytest.raises(TypeError, match="one after the other"):
        joined(x, cr.tensor([1, 2, 2, 4]), cr.tensor([7, 7, 7]), cr.tensor([2, 1, 1]))


def test_what_cannot_be_aligned_gives_no_gradient():
    x = cr.tensor(normal(2, 1, 3), requires_grad=True)
    loss = nn.CTCLoss()(F.log_softmax(x, -1), cr.tensor([[1, 1]]), (2,), (2,))
    loss.backward()
    assert loss.item() == np.inf
    assert x.grad.tolist() == [[[0.0] * 3]] * 2


def test_bags_of_given_rows():
    rows = cr.tensor(normal(4, 2))
    bags = nn.EmbeddingBag.from_pretrained(rows, mode="sum")
    assert not bags.weight.requires_grad
    same(bags(cr.tensor([[0, 3]])), (rows[0] + rows[3]).unsqueeze(0))
    assert nn.EmbeddingBag(4, 2, padding_idx=1).weight[1].abs().sum().item() == 0


def test_errors_teach():
    x, y = cr.tensor(normal(4, 5)), cr.tensor(classes)
    logs, words = F.log_softmax(cr.tensor(normal(7, 3, 5)), -1), cr.tensor(targets)
    bags = nn.EmbeddingBag(6, 3)
    flat = cr.tensor([1, 2, 3])
    for make, text in (
            (lambda: nn.MultiMarginLoss(p=3), "p=3 must be 1 or 2"),
            (lambda: nn.MultiMarginLoss(weight=cr.ones(2, 2)), "one number for each class"),
            (lambda: F.multi_margin_loss(x, y + 1), r"class 5 \(at \[2\]\) is out of range"),
            (lambda: F.multi_margin_loss(x, y[:2]), r"needs \(N, C\) and \(N,\)"),
            (lambda: F.multi_margin_loss(x, x[:, 0]), r"convert with .long\(\)"),
            (lambda: F.multilabel_margin_loss(x, cr.tensor(labels + 1)), "-1 ends a row"),
            (lambda: nn.TripletMarginWithDistanceLoss(margin=0), "margin=0 must be > 0"),
            (lambda: F.triplet_margin_with_distance_loss(x, x[0], x), "same number of axes"),
            (lambda: nn.CTCLoss(reduction="max"), "'mean', 'sum' or 'none'"),
            (lambda: F.ctc_loss(logs, words, (8, 7, 7), (3, 3, 3)), "holds 8, more than there are"),
            (lambda: F.ctc_loss(logs, words, (7, 7, 7), (3, 3, 4)), "3 classes in a row"),
            (lambda: F.ctc_loss(logs, words, (7, 7), (3, 3, 3)), "2 numbers for 3 items"),
            (lambda: F.ctc_loss(logs, words, (7, 7, 7), (3, 3, -1)), "below 0"),
            (lambda: F.ctc_loss(logs, words, (7, 7, 7), (3, 3, 3), blank=5), "one of the 5"),
            (lambda: F.ctc_loss(logs, words + 1, (7, 7, 7), (3, 3, 3)), "class 5"),
            (lambda: F.ctc_loss(logs, words[0], (7, 7, 7), (3, 3, 3)), "add up to 9"),
            (lambda: F.ctc_loss(logs, words[:2], (7, 7, 7), (3, 3, 3)), r"needs \(3, S\)"),
            (lambda: F.ctc_loss(logs, logs, (7, 7, 7), (3, 3, 3)), "whole numbers"),
            (lambda: nn.EmbeddingBag(6, 3, mode="min"), "'mean', 'sum' or 'max'"),
            (lambda: nn.EmbeddingBag(6, 3, sparse=True), "not supported"),
            (lambda: nn.EmbeddingBag(6, 3, padding_idx=6), "within its 6 rows"),
            (lambda: bags(flat), "without offsets"),
            (lambda: bags(words, flat), "and offsets"),
            (lambda: bags(flat * 2, cr.tensor([0])), "EmbeddingBag.*index 6"),
            (lambda: bags(flat, flat), r"offsets\[0\] is 1"),
            (lambda: bags(flat, cr.tensor([0, 2, 1])), "must not go down"),
            (lambda: bags(flat, cr.tensor([0]), cr.ones(3)), "mode='sum'"),
            (lambda: bags(flat.float(), cr.tensor([0])), "looks up whole numbers")):
        with pytest.raises((ValueError, IndexError, TypeError), match=text):
            make()
