"""Faults that were found by attacking the library, each kept as a test."""

import numpy as np
import pytest

import chainrule as cr


def test_contiguous_puts_the_elements_in_order():
    x = cr.rand(2, 5, 4, 3, requires_grad=True)
    y = x.transpose(1, 2).contiguous().view(2, 4, 15)
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_copy_does_not_share_the_history_of_its_source():
    p = cr.ones(3, requires_grad=True)
    q = p * 2
    buffer = cr.zeros(3)
    buffer.copy_(q)
    buffer.register_hook(lambda g: g * 100)
    q.sum().backward()
    assert p.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("layer", [
    lambda: cr.nn.LeakyReLU(0.2, inplace=True), lambda: cr.nn.ELU(inplace=True),
    lambda: cr.nn.ReLU(inplace=True), lambda: cr.nn.SiLU(inplace=True),
    lambda: cr.nn.Hardtanh(inplace=True)], ids=["leaky", "elu", "relu", "silu", "hardtanh"])
def test_activations_in_place_train(layer):
    start = np.linspace(-2, 2, 100)
    x = cr.tensor(start, requires_grad=True)
    y = x * 1
    layer()(y).sum().backward()
    expected = cr.tensor(start, requires_grad=True)
    plain = layer()
    plain.inplace = False
    plain(expected).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy())


def test_memory_is_in_order_after_repeat_stack_and_indexing():
    x = cr.ones(2, 3)
    for made, numbers in ((x.repeat(2, 1, 1), 12), (cr.stack([x.t(), x.t()]), 12),
                          (x[:, [0, 1]], 4)):
        made.view(-1).add_(1)
        assert made.sum().item() == 2 * numbers


def test_long_chains_of_views():
    view = base = cr.zeros(3)
    for _ in range(3000):
        view = view[:]
    view += 1
    assert base.tolist() == [1.0, 1.0, 1.0]
    w = cr.ones(3, requires_grad=True)
    root = view = w * 1
    kept = [view := view[:] for _ in range(2000)]
    root.mul_(2)
    kept[-1].sum().backward()
    assert w.grad.tolist() == [2.0, 2.0, 2.0]


def test_joining_thousands():
    xs = [cr.tensor(float(i), requires_grad=True) for i in range(1000)]
    (cr.stack(xs) * cr.arange(1000.0)).sum().backward()
    assert [x.grad.item() for x in xs] == list(range(1000))


@pytest.mark.parametrize("p", [0.5, 1.5, 2, 3, float("inf")])
def test_norm_at_zero_has_derivative_zero(p):
    x = cr.zeros(3, requires_grad=True)
    x.norm(p).backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    assert not cr.func.hessian(lambda y: y.norm(2))(cr.zeros(2)).any()


def test_a_filled_tensor_stays_connected():
    p = cr.ones(2, requires_grad=True)
    x = p * 1
    x.zero_()
    x.sum().backward()
    assert p.grad.tolist() == [0.0, 0.0]


def test_no_axes_at_all():
    x = cr.tensor(2.0, requires_grad=True)
    assert x.movedim(0, 0).item() == x.flip(0).item() == 2.0
    x.scatter(0, x.argsort(0), x * 2).backward()
    assert x.grad.item() == 2.0


@pytest.mark.parametrize(("cut", "words"), [
    (lambda out: out.argmax(1).float().mean(), r"argmax, whose result is i64\[4\]"),
    (lambda out: (out > 0).float().mean(), r"gt, whose result is bool\[4,3\]"),
    (lambda out: out.long().float().sum(), r"\.to\(int64\)"),
], ids=["argmax", "comparison", "cast"])
def test_whole_numbers_on_the_only_path_are_named(cut, words):
    net = cr.nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match=words + r",? at .*test_found\.py"):
        cut(net(cr.ones(4, 2))).backward()


def test_linear_on_three_axes_is_the_same_as_on_two():
    layer = cr.nn.Linear(5, 7)
    x = cr.rand(3, 4, 5, requires_grad=True)
    layer(x).square().sum().backward()
    wide = {name: p.grad.clone() for name, p in layer.named_parameters()}
    given = x.grad.clone()
    layer.zero_grad()
    flat = x.detach().reshape(12, 5).requires_grad_()
    layer(flat).square().sum().backward()
    np.testing.assert_allclose(given.reshape(12, 5).numpy(), flat.grad.numpy(), rtol=1e-5)
    for name, p in layer.named_parameters():
        np.testing.assert_allclose(wide[name].numpy(), p.grad.numpy(), rtol=1e-4)


def test_a_hook_must_return_a_tensor_and_backward_not_run_inside_vmap():
    x = cr.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: 3.0)
    with pytest.raises(RuntimeError, match="returned float; return a tensor"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="inside vmap"):
        cr.func.vmap(lambda a: (a * 2).sum().backward())(cr.ones(3, 2))
