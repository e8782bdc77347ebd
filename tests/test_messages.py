"""What a newcomer writes by mistake is answered with what to write instead."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import functional as F

MODEL = nn.Linear(3, 2)
X = cr.ones(4, 3)
CLASSES = cr.zeros(4, dtype=cr.int64)
W = cr.ones(2, requires_grad=True)

MISTAKES = {
    "model for parameters": (lambda: cr.optim.Adam(MODEL), "pass model.parameters\\(\\)"),
    "method for parameters": (lambda: cr.optim.Adam(MODEL.parameters),
                              "pass model.parameters\\(\\)"),
    "lr as text": (lambda: cr.optim.Adam(MODEL.parameters(), lr="0.1"),
                   "lr='0.1' must be a number"),
    "one beta": (lambda: cr.optim.Adam(MODEL.parameters(), betas=0.9),
                 "betas=0.9 must be two numbers"),
    "loss called at once": (lambda: nn.CrossEntropyLoss(X, CLASSES),
                            r"nn.CrossEntropyLoss\(\)\(pred, y\), or F.cross_entropy\(pred, y\)"),
    "loss with reduction": (lambda: nn.HuberLoss(X, X), r"F.huber_loss\(pred, y\)"),
    "layer called at once": (lambda: nn.ReLU(X), r"nn.ReLU\(\)\(x\), or F.relu\(x\)"),
    "layer without options": (lambda: nn.Tanh(X), r"nn.Tanh\(\)\(x\), or F.tanh\(x\)"),
    "layer with a slope": (lambda: nn.LeakyReLU(X), r"F.leaky_relu\(x\)"),
    "class in Sequential": (lambda: nn.Sequential(nn.ReLU), r"write nn.ReLU\(\)"),
    "path for a state dict": (lambda: MODEL.load_state_dict("m.pt"),
                              r"got a str: cr.load\(path\) first"),
    "module for a state dict": (lambda: MODEL.load_state_dict(MODEL), r"model.state_dict\(\)"),
    "save arguments swapped": (lambda: cr.save("x.pt", MODEL.state_dict()),
                               r"arguments swapped: cr.save\(obj, path\)"),
    "one-hot classes": (lambda: F.cross_entropy(X, cr.ones(4, 3).long()),
                        r"use .argmax\(1\) or .float\(\)"),
    "matrix and vector": (lambda: cr.zeros(3, 2) @ cr.zeros(3), r"f32\[3,2\] by f32\[3\]: the inn"),
    "vector and matrix": (lambda: cr.zeros(3) @ cr.zeros(2, 3), r"f32\[3\] by f32\[2,3\]: the inn"),
    "dtypes of a product": (lambda: cr.zeros(3) @ cr.zeros(3, dtype=cr.float64),
                            r"f32\[3\] by f64\[3\]: the dtypes"),
    "too few targets": (lambda: F.binary_cross_entropy_with_logits(cr.zeros(8, 3), cr.zeros(8)),
                        "one target for each prediction"),
    "target without axis": (lambda: F.mse_loss(cr.zeros(8, 1), cr.zeros(8)), r"target.reshape\("),
    "lists in a loss": (lambda: F.mse_loss([1.0], [1.0]), r"convert with cr.tensor\("),
    "lists in cross_entropy": (lambda: F.cross_entropy(X, [0, 1]), r"convert with cr.tensor\("),
    "NumPy's function": (lambda: np.cbrt(W), r"NumPy would not record it.*w.detach\(\).numpy\(\)"),
    "NumPy's sum in place": (lambda: np.add(np.ones(2), W, out=np.ones(2)), "a new tensor"),
    "device of a tensor": (X.cuda, "CPU only"),
    "device of a module": (MODEL.cuda, "CPU only"),
    "to another device": (lambda: X.to("cuda"), "CPU only"),
    "to another device by name": (lambda: X.to(device="cuda"), "CPU only"),
    "module to another device": (lambda: MODEL.to("cuda"), "CPU only"),
    "pickles": (lambda: cr.load("x.pt", weights_only=False), "never unpickles"),
    "files of another device": (lambda: cr.load("x.pt", map_location="cuda"), "CPU only"),
    "mode of a function": (lambda: cr.set_grad_enabled(print), r"@set_grad_enabled\(False\)"),
    "mode of a number": (lambda: cr.no_grad(3), r"with no_grad\(\):"),
    "a number as Variable": (lambda: cr.autograd.Variable(1.0), "cr.tensor"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_answered(name):
    mistake, answer = MISTAKES[name]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=f"(?s){answer}"):
        mistake()


@pytest.mark.parametrize(("module", "name", "answer"), [
    (nn, "Liner", "did you mean Linear"), (F, "reluu", "did you mean relu"),
    (cr.optim, "Adamm", "did you mean Adam"), (cr, "arrange", "did you mean arange"),
    (nn, "LSTN", "did you mean LSTM"),
    (nn, "TransformerEncode", "did you mean TransformerEncoder")])
def test_unknown_name_is_answered(module, name, answer):
    assert not hasattr(module, name)
    with pytest.raises(AttributeError, match=answer):
        getattr(module, name)


def test_gradient_of_an_inner_tensor_is_explained():
    w = cr.ones(2, requires_grad=True)
    y = w * 2
    y.sum().backward()
    with pytest.warns(UserWarning, match="not a leaf.*retain_grad"):
        assert y.grad is None
    z = w * 2
    z.retain_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert z.grad is None and w.grad is not None
        assert copy.copy(w).grad is not None
        repr(y)


def test_numpy_functions_are_rows():
    w = cr.tensor([0.5, 1.5], requires_grad=True)
    y = np.sin(w) * np.float32(2) + np.ones(2)
    assert isinstance(y, cr.Tensor) and y.dtype == cr.float64
    y.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * np.cos([0.5, 1.5]), rtol=1e-6)
    x = w.detach()
    a = np.ones(2, np.float32)
    for ours, theirs in ((a - x, a - x.numpy()), (a / x, a / x.numpy()), (a @ x, a @ x.numpy()),
                         (a < x, a < x.numpy()), (a**x, a**x.numpy()), (np.cbrt(x),
                                                                       np.cbrt(x.numpy())),
                         (np.maximum(a, x), np.maximum(a, x.numpy()))):
        assert isinstance(ours, cr.Tensor)
        np.testing.assert_array_equal(ours.numpy(), theirs)
    a += x
    assert type(a) is np.ndarray and a.tolist() == [1.5, 2.5]
    assert np.add(a, 1, out=x) is x
    assert x.tolist() == [2.5, 3.5]


# ---------------------------------------------------------------- modes


def test_mode_without_brackets():
    @cr.no_grad
    def double(x):
        return x * 2

    assert not double(W).requires_grad and double.__name__ == "double"
    assert cr.is_grad_enabled()

    @cr.inference_mode
    def thrice(x):
        return x * 3

    assert thrice(W).is_inference()


def test_mode_of_a_generator_is_that_of_its_own_code():
    seen = []

    @cr.no_grad()
    def numbers():
        try:
            sent = yield cr.is_grad_enabled()
            seen.append(sent)
            try:
                yield cr.is_grad_enabled()
            except KeyError:
                yield cr.is_grad_enabled()
            return "end"
        finally:
            seen.append(cr.is_grad_enabled())

    run = numbers()
    assert next(run) is False and cr.is_grad_enabled()
    assert run.send(5) is False and cr.is_grad_enabled()
    assert run.throw(KeyError) is False and cr.is_grad_enabled()
    with pytest.raises(StopIteration) as end:
        next(run)
    assert end.value.value == "end" and seen == [5, False] and cr.is_grad_enabled()
    other = numbers()
    next(other)
    other.close()
    assert seen == [5, False, False]

    @cr.set_grad_enabled(False)
    def one():
        yield cr.is_grad_enabled()

    assert cr.is_grad_enabled() and list(one()) == [False]


# ---------------------------------------------------------------- names


def test_printing_follows_its_options():
    x = cr.tensor([1.23456, 1000.0])
    try:
        cr.set_printoptions(precision=2)
        assert repr(cr.tensor(1.23456)) == "tensor(1.23)"
        cr.set_printoptions(sci_mode=True)
        assert "1.23e+00" in repr(x)
        cr.set_printoptions(threshold=2, edgeitems=1)
        assert "..." in repr(cr.arange(9))
        cr.set_printoptions(profile="full")
        assert "..." not in repr(cr.arange(2000))
    finally:
        cr.set_printoptions(profile="default")
    assert repr(x) == "tensor([   1.2346, 1000.0000])"


def test_load_ignores_the_cpu(tmp_path):
    cr.save({"a": cr.ones(2)}, tmp_path / "a")
    for place in ("cpu", cr.device("cpu"), None):
        found = cr.load(tmp_path / "a", map_location=place, weights_only=True)
        assert found["a"].tolist() == [1, 1]
