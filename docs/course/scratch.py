"""chainrule from scratch: reverse-mode differentiation, layers and training, in 200 lines.

A table of primitives with their local derivatives, a tape that the forward pass leaves behind,
one sweep back over it, and on top of that layers, a loss and an optimiser. Needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

# ---- the table ---------------------------------------------------------------------------------
# A row: the result y of the operands, and for each operand how the gradient g of y becomes its.


def fit(g: Any, x: Any) -> Any:
    """Sums g over what broadcasting stretched: a number used n times gets n contributions."""
    extra = g.ndim - np.ndim(x)
    g = g.sum(axis=tuple(range(extra)))
    stretched = tuple(i for i, n in enumerate(np.shape(x)) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=stretched, keepdims=True)


def swap(x: Any) -> Any:
    """The transpose of a matrix, or of each matrix in a stack."""
    return np.swapaxes(x, -1, -2)


def spread(g: Any, x: Any, axis: int | None) -> Any:
    """The gradient of a sum: every summand gets the whole of g."""
    return np.broadcast_to(g if axis is None else np.expand_dims(g, axis), x.shape)


def put(g: Any, x: Any, key: Any) -> Any:
    """The gradient of x[key]: g where x was read, added up where it was read twice."""
    result = np.zeros_like(x)
    np.add.at(result, key, g)
    return result


Row = tuple[Callable[..., Any], Sequence[Callable[..., Any]]]

TABLE: dict[str, Row] = {
    # name        value                     pulls(g, y, *operands): one for each operand
    "add":       (np.add,                 (lambda g, y, a, b: fit(g, a),
                                           lambda g, y, a, b: fit(g, b))),
    "sub":       (np.subtract,            (lambda g, y, a, b: fit(g, a),
                                           lambda g, y, a, b: fit(-g, b))),
    "mul":       (np.multiply,            (lambda g, y, a, b: fit(g * b, a),
                                           lambda g, y, a, b: fit(g * a, b))),
    "div":       (np.divide,              (lambda g, y, a, b: fit(g / b, a),
                                           lambda g, y, a, b: fit(-g * y / b, b))),
    "pow":       (np.power,               (lambda g, y, a, n: g * n * a ** (n - 1), None)),
    "exp":       (np.exp,                 (lambda g, y, a: g * y,)),
    "log":       (np.log,                 (lambda g, y, a: g / a,)),
    "tanh":      (np.tanh,                (lambda g, y, a: g * (1 - y * y),)),
    "sigmoid":   (lambda a: 1 / (1 + np.exp(-a)), (lambda g, y, a: g * y * (1 - y),)),
    "relu":      (lambda a: np.maximum(a, 0), (lambda g, y, a: g * (a > 0),)),
    "matmul":    (np.matmul,              (lambda g, y, a, b: fit(g @ swap(b), a),
                                           lambda g, y, a, b: fit(swap(a) @ g, b))),
    "transpose": (swap,                   (lambda g, y, a: swap(g),)),
    "reshape":   (np.reshape,             (lambda g, y, a, shape: g.reshape(a.shape), None)),
    "sum":       (np.sum,                 (lambda g, y, a, axis: spread(g, a, axis), None)),
    "index":     (lambda a, key: a[key],  (lambda g, y, a, key: put(g, a, key), None)),
}

# ---- the tape ----------------------------------------------------------------------------------


class Tensor:
    """An array that remembers how it was made: the row, and the operands."""

    def __init__(self, value: Any, made_by: str = "", operands: tuple[Any, ...] = ()) -> None:
        self.value = np.asarray(value, float)
        self.grad: Any = None
        self.made_by, self.operands = made_by, operands

    def backward(self) -> None:
        """Adds the gradient of this number to the `grad` of every tensor it was computed from."""
        if self.value.shape != ():
            raise ValueError(f"{self.value.shape} is not one number: take .sum() or .mean() first")
        gradients = {id(self): np.ones(())}
        for tensor in reversed(ordered(self)):
            g = gradients[id(tensor)]
            tensor.grad = g if tensor.grad is None else tensor.grad + g
            if not tensor.made_by:
                continue
            values = [x.value if isinstance(x, Tensor) else x for x in tensor.operands]
            for operand, pull in zip(tensor.operands, TABLE[tensor.made_by][1], strict=True):
                if isinstance(operand, Tensor):
                    part = pull(g, tensor.value, *values)          # the chain rule
                    before = gradients.get(id(operand))            # the sum over paths
                    gradients[id(operand)] = part if before is None else before + part

    def __add__(self, other: Any) -> Tensor: return apply("add", self, other)
    def __radd__(self, other: Any) -> Tensor: return apply("add", other, self)
    def __sub__(self, other: Any) -> Tensor: return apply("sub", self, other)
    def __rsub__(self, other: Any) -> Tensor: return apply("sub", other, self)
    def __mul__(self, other: Any) -> Tensor: return apply("mul", self, other)
    def __rmul__(self, other: Any) -> Tensor: return apply("mul", other, self)
    def __truediv__(self, other: Any) -> Tensor: return apply("div", self, other)
    def __rtruediv__(self, other: Any) -> Tensor: return apply("div", other, self)
    def __neg__(self) -> Tensor: return apply("mul", self, -1.0)
    def __pow__(self, n: float) -> Tensor: return apply("pow", self, plain=(n,))
    def __matmul__(self, other: Any) -> Tensor: return apply("matmul", self, other)
    def __getitem__(self, key: Any) -> Tensor: return apply("index", self, plain=(key,))
    def exp(self) -> Tensor: return apply("exp", self)
    def log(self) -> Tensor: return apply("log", self)
    def tanh(self) -> Tensor: return apply("tanh", self)
    def sigmoid(self) -> Tensor: return apply("sigmoid", self)
    def relu(self) -> Tensor: return apply("relu", self)
    def sum(self, axis: int | None = None) -> Tensor: return apply("sum", self, plain=(axis,))
    def mean(self) -> Tensor: return self.sum() / self.value.size
    def reshape(self, *shape: int) -> Tensor: return apply("reshape", self, plain=(shape,))

    @property
    def T(self) -> Tensor: return apply("transpose", self)


def apply(name: str, *operands: Any, plain: tuple[Any, ...] = ()) -> Tensor:
    """Computes a row and notes it down; no gradient goes to `plain` operands."""
    tensors = tuple(x if isinstance(x, Tensor) else Tensor(x) for x in operands)
    value = TABLE[name][0](*[t.value for t in tensors], *plain)
    return Tensor(value, name, (*tensors, *plain))


def ordered(last: Tensor) -> list[Tensor]:
    """All tensors that `last` was computed from, operands before results; without recursion."""
    order: list[Tensor] = []
    seen: set[int] = set()
    stack = [(last, False)]
    while stack:
        tensor, complete = stack.pop()
        if complete:
            order.append(tensor)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            stack.append((tensor, True))
            stack.extend((x, False) for x in tensor.operands if isinstance(x, Tensor))
    return order


# ---- networks ----------------------------------------------------------------------------------


class Linear:
    """y = x Wᵀ + b, uniform in ±1/√inputs at first."""

    def __init__(self, inputs: int, outputs: int, random: np.random.Generator) -> None:
        bound = inputs**-0.5
        self.weight = Tensor(random.uniform(-bound, bound, (outputs, inputs)))
        self.bias = Tensor(random.uniform(-bound, bound, outputs))

    def __call__(self, x: Any) -> Tensor:
        return apply("matmul", x, self.weight.T) + self.bias


class Network:
    """Linear layers with an activation between them."""

    def __init__(self, *widths: int, activation: str = "tanh", seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.layers = [Linear(a, b, random) for a, b in pairwise(widths)]
        self.activation = activation

    def __call__(self, x: Any) -> Tensor:
        for layer in self.layers[:-1]:
            x = apply(self.activation, layer(x))
        return self.layers[-1](x)

    def parameters(self) -> list[Tensor]:
        return [p for layer in self.layers for p in (layer.weight, layer.bias)]


def cross_entropy(scores: Tensor, classes: Any) -> Tensor:
    """Mean of −log softmax(scores)[class]. The largest score is taken away: it would cancel."""
    shifted = scores - scores.value.max(axis=1, keepdims=True)
    rows = np.arange(len(classes))
    return (shifted.exp().sum(axis=1).log() - shifted[rows, classes]).mean()


class SGD:
    """p ← p − lr·v with v ← momentum·v + ∂L/∂p."""

    def __init__(self, parameters: list[Tensor], lr: float, momentum: float = 0.0) -> None:
        self.parameters, self.lr, self.momentum = parameters, lr, momentum
        self.velocities = [np.zeros_like(p.value) for p in parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        for p, v in zip(self.parameters, self.velocities, strict=True):
            v *= self.momentum
            v += p.grad
            p.value = p.value - self.lr * v
