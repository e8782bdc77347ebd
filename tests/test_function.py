"""Custom functions with hand-written derivatives."""

import gc

import numpy as np
import pytest

import chainrule as cr
from chainrule.function import once_differentiable


class Scale(cr.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        ctx.save_for_backward(x)
        return x * factor * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 2 * ctx.factor * x, None

    @staticmethod
    def jvp(ctx, t, _):
        (x,) = ctx.saved_tensors
        return 2 * ctx.factor * x * t


class Exp(cr.autograd.Function):
    """Saves its output."""

    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


class SumAndProduct(cr.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a + b, (a * b).sum(), (a > b)

    @staticmethod
    def backward(ctx, g_sum, g_product, g_mask):
        a, b = ctx.saved_tensors
        assert g_mask is None
        return g_sum + g_product * b, g_sum + g_product * a


def test_gradient_first_and_second():
    x = cr.tensor([1.0, 2.0], dtype=cr.float64, requires_grad=True)
    (first,) = cr.autograd.grad(Scale.apply(x, 3.0).sum(), x, create_graph=True)
    assert first.tolist() == [6.0, 12.0]
    (second,) = cr.autograd.grad(first.sum(), x)
    assert second.tolist() == [6.0, 6.0]


def test_forward_mode_and_hessian():
    x = cr.tensor([1.0, 2.0])
    _, dot = cr.func.jvp(lambda x: Scale.apply(x, 3.0), (x,), (cr.ones(2),))
    assert dot.tolist() == [6.0, 12.0]
    with pytest.raises(NotImplementedError, match="no jvp"):
        cr.func.jvp(Exp.apply, (x,), (cr.ones(2),))


def test_a_saved_output_makes_no_cycle():
    gc.collect()
    gc.disable()
    try:
        x = cr.ones(1000, requires_grad=True)
        before = len([o for o in gc.get_objects() if type(o) is cr.Tensor])
        y = Exp.apply(x)
        (g,) = cr.autograd.grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(g.detach().numpy(), np.e, rtol=1e-6)
        assert cr.autograd.grad(g.sum(), x)[0][0].item() == pytest.approx(np.e)
        del y, g
        assert len([o for o in gc.get_objects() if type(o) is cr.Tensor]) == before
    finally:
        gc.enable()


def test_several_outputs():
    a, b = (cr.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [3.0, -1.0]))
    total, product, mask = SumAndProduct.apply(a, b)
    assert not mask.requires_grad
    assert mask.tolist() == [False, True]
    (total.sum() * 10 + product).backward()
    assert a.grad.tolist() == [13.0, 9.0]
    assert b.grad.tolist() == [11.0, 12.0]


def test_second_pass_and_overwritten_values_are_errors():
    x = cr.tensor([1.0], requires_grad=True)
    y = Scale.apply(x, 1.0)
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    h = x * 1
    y = Scale.apply(h, 1.0)
    h += 1
    with pytest.raises(RuntimeError, match=r"changed in place at .*test_function\.py"):
        y.backward()


def test_wrong_gradients_are_named():
    class Wrong(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum(0)

        @staticmethod
        def backward(ctx, g):
            return cr.ones(3, 2)

    class Few(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return g

    x = cr.ones(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match=r"f32\[3,2\] as the gradient of argument 0.*transpose"):
        Wrong.apply(x).sum().backward()
    with pytest.raises(RuntimeError, match="returned 1 gradients for 2 arguments"):
        Few.apply(x, x).sum().backward()


def test_once_differentiable_and_setup_context():
    class Sine(cr.autograd.Function):
        @staticmethod
        def forward(x):
            return cr.from_numpy(np.sin(x.numpy(force=True)))

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return g * cr.from_numpy(np.cos(ctx.saved_tensors[0].numpy(force=True)))

    x = cr.tensor([0.0, 1.0], requires_grad=True)
    Sine.apply(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos([0.0, 1.0]), rtol=1e-6)


def test_no_batching_rule_is_said():
    with pytest.raises(TypeError, match="no batching rule"):
        cr.func.vmap(Exp.apply)(cr.ones(3))


def test_no_grad_and_untracked():
    assert not Exp.apply(cr.ones(2)).requires_grad
    x = cr.ones(2, requires_grad=True)
    with cr.no_grad():
        assert not Exp.apply(x).requires_grad

    class Same(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 5

    Same.apply(x).sum().backward()
    assert x.grad.tolist() == [5.0, 5.0]
