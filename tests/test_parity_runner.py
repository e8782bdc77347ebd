"""The parity table's own test: each kind of deliberate mistake is caught, and by its name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.runner import Mismatch, Row, check

torch = pytest.importorskip("torch")

X = np.array([0.5, -1.5, 2.0])


class Almost:
    """PyTorch with one function replaced."""

    def __init__(self, **replaced: Any) -> None:
        self.replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self.replaced.get(name) or getattr(torch, name)


class SlopeTwice(torch.autograd.Function):
    """The right value with twice the gradient."""

    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(context: Any, g: Any) -> Any:
        return 2 * g * context.saved_tensors[0].cos()


class CurvatureLost(torch.autograd.Function):
    """The right value and gradient, but the gradient's own gradient misses a term."""

    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(context: Any, g: Any) -> Any:
        return g * context.saved_tensors[0].detach().cos()


def fails(x: Any) -> Any:
    raise RuntimeError("no")


def lacks(x: Any) -> Any:
    raise AttributeError("Tensor has no sin")


MISTAKES: dict[str, Callable[[Any], Any]] = {
    "value": lambda x: x.sin() * 1.001,
    "value shape": lambda x: x.sin()[None],
    "dtype": lambda x: x.sin().float() if x.dtype == torch.float64 else x.sin().double(),
    "requires_grad": lambda x: x.sin().detach(),
    "gradient of input 0": SlopeTwice.apply,
    "second gradient of input 0": CurvatureLost.apply,
    "structure": lambda x: (x.sin(), x),
    "error": fails,
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistake_is_named(what: str) -> None:
    row = Row("sin", lambda t, x: t.sin(x), (X,))
    check(torch, torch, row)
    with pytest.raises(Mismatch) as caught:
        check(Almost(sin=MISTAKES[what]), torch, row)
    assert caught.value.what == what


def test_missing_error_is_caught() -> None:
    row = Row("add", lambda t, x: t.matmul(x, x[:2]), (X,), raises=True)
    with pytest.raises(Mismatch, match="error: none; PyTorch's is"):
        check(Almost(matmul=lambda a, b: a), torch, row)


def test_lacking_a_function_is_not_the_right_error() -> None:
    row = Row("sin", lambda t, x: t.sin(x + t.ones(2)), (X,), raises=True)
    with pytest.raises(Mismatch, match="kind of error"):
        check(Almost(ones=lacks), torch, row)


def test_stray_promotion_is_caught_by_the_run_in_float32() -> None:
    row = Row("sin", lambda t, x: t.sin(x), (X,))
    with pytest.raises(Mismatch, match="dtype: float64, PyTorch's is float32"):
        check(Almost(sin=lambda x: x.double().sin()), torch, row)


def test_row_that_is_wrong_about_pytorch_is_refused() -> None:
    with pytest.raises(ValueError, match="the row is wrong about PyTorch"):
        check(torch, torch, Row("sin", lambda t, x: t.sin(x), (X,), raises=True))


def test_stated_difference_must_be_there() -> None:
    row = Row("sin", lambda t, x: t.sin(x), (X,), differs=("value", "rounded down"))
    check(Almost(sin=lambda x: x.sin() * 0.9), torch, row)
    with pytest.raises(Mismatch, match="no longer differs"):
        check(Almost(sin=torch.sin), torch, row)
    with pytest.raises(Mismatch, match="value shape"):
        check(Almost(sin=MISTAKES["value shape"]), torch, row)
