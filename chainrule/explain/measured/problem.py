"""What is measured: a loss that can be computed again and again, and its parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import reachable
from chainrule.autograd import seed
from chainrule.core.errors import SettingError
from chainrule.core.node import wrote
from chainrule.core.record import new
from chainrule.core.types import type_of
from chainrule.explain.naming import modules_in
from chainrule.nn import Linear, Module, ReLU, Sequential
from chainrule.nn.functional import cross_entropy, mse_loss
from chainrule.random import get_rng_state, set_rng_state
from chainrule.tensor import Tensor

CALLED = "cr.explain.{what}(model, (x, y))"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Problem:
    """A loss and its parameters.

    name       what the reader knows it by
    loss       without arguments: the recorded loss, a tensor of one number
    parameters the leaves that a gradient reaches
    modules    the networks in it, whose buffers are put back after measuring
    scope      variables, for names
    inputs     the batch's inputs, tracked, where they are known
    double     the same in float64, where that could be made
    """

    name: str
    loss: Callable[[], Any]
    parameters: tuple[Any, ...]
    modules: tuple[Any, ...] = ()
    scope: Mapping[str, Any] | None = None
    inputs: Any = None
    double: Callable[[], Problem] | None = None

    @property
    def size(self) -> int:
        """How many numbers the gradient has."""
        return sum(p.numel() for p in self.parameters)

    @property
    def dtype(self) -> str:
        return str(self.parameters[0].dtype)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None


def problem_of(model: Any, batch: Any = None, loss: Any = None, what: str = "cost") -> Problem:
    """What the user gave, as a Problem.

    model  a Module, with batch=(x, y), or with batch=x and loss=; or a function without arguments
           that returns the loss
    loss   (output, y) to one number, or (output) without y; by default the cross entropy for whole
           numbers y, and the mean squared error for others
    """
    if isinstance(model, Problem):
        return model
    if isinstance(model, Module):
        if batch is None:
            raise SettingError(f"explain.{what}(model): measuring needs a batch. Write "
                               f"cr.explain.{what}(model, (x, y)), with the inputs and targets of "
                               "some examples.")
        x, y = batch if isinstance(batch, (tuple, list)) else (batch, None)
        return of_model(model, x, y, loss, what)
    if isinstance(model, Tensor):
        raise SettingError(f"explain.{what} got {type_of(model._value)}, a loss that was computed "
                           "already, but must compute it again and again. Give the function that "
                           f"computes it: cr.explain.{what}(lambda: loss_of(model, x, y))")
    if not callable(model):
        raise SettingError(f"explain.{what} got {type(model).__name__}; give it a network and a "
                           f"batch, {CALLED.format(what=what)}, or a function without arguments "
                           "that returns the loss")
    return of_function(model, what)


def of_model(model: Any, x: Any, y: Any, loss: Any, what: str) -> Problem:
    """A network with a batch."""
    criterion: Callable[..., Any] = loss if loss is not None else usual_loss(y, what)
    targets = () if y is None else (y,)
    # only depth asks for the gradient of the inputs, which a training step does not compute
    track = what == "depth" and isinstance(x, Tensor) and x.dtype.kind == "f"
    inputs = x.detach().requires_grad_() if track else x

    def compute() -> Any:
        return criterion(model(inputs), *targets)

    def in_double() -> Problem:
        twin = copy.deepcopy(model).double()
        return of_model(twin, _double(x), _double(y), loss, what)

    parameters = tuple(p for p in model.parameters() if p.requires_grad)
    if not parameters:
        raise SettingError(f"explain.{what}: no parameter of this {type(model).__name__} has "
                           "requires_grad, so there is no gradient to measure")
    problem = Problem(type(model).__name__, compute, parameters, (model,), {"model": model},
                      inputs if track else None, in_double)
    with left_as_it_was(problem):
        _one_number(compute(), problem.name, what)
    return problem


def of_function(function: Callable[[], Any], what: str) -> Problem:
    """A function that returns the loss; the parameters are the leaves it reaches."""
    name = getattr(function, "__name__", "the function")
    name = "the loss" if name == "<lambda>" else f"{name}()"
    scope = {**getattr(function, "__globals__", {}), **_closure(function)}
    modules = tuple(module for _, module in modules_in(None, scope))
    problem = Problem(name, function, (), modules, scope)
    with left_as_it_was(problem):
        first = function()
    _one_number(first, name, what)
    seed(first, None, False, f"explain.{what}()")
    leaves = [node.out() for node in reversed(reachable([first._node])) if node.prim is None]
    return replace(problem, parameters=tuple(leaf for leaf in leaves if leaf is not None))


def _closure(function: Any) -> dict[str, Any]:
    cells = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=False)}


def usual_loss(y: Any, what: str) -> Callable[[Any, Any], Any]:
    """Cross entropy for classes, mean squared error for numbers."""
    if y is None:
        raise SettingError(f"explain.{what}(model, x): without targets there is no loss. Write "
                           f"{CALLED.format(what=what)}, or give loss=, a function of the output.")
    return mse_loss if y.dtype.kind == "f" else cross_entropy


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype.kind == "f" else value


def _one_number(value: Any, name: str, what: str) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        shown = type_of(value._value) if isinstance(value, Tensor) else type(value).__name__
        raise SettingError(f"explain.{what}: {name} gave {shown}; the loss must be a tensor of one "
                           "number. Give loss=, or take the mean of what it returns.")


@contextmanager
def left_as_it_was(problem: Problem) -> Iterator[None]:
    """Put gradients, buffers, parameters and random numbers back after measuring."""
    buffers = [(b, b._value.copy()) for m in problem.modules for b in m.buffers()
               if b._value is not None]
    values = [(p, p._value.copy()) for p in problem.parameters]
    gradients = [(p, p.grad) for p in problem.parameters]
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
        for tensor, kept in (*values, *buffers):
            if not np.array_equal(tensor._value, kept, equal_nan=True):
                tensor._value[...] = kept
                wrote(tensor._value, "a measurement")
        for p, gradient in gradients:
            p.grad = gradient


def steady(problem: Problem, what: str) -> float:
    """The loss, and an error if it is another one when computed again."""
    first, second = (float(problem.loss()._value) for _ in range(2))
    if first != second and not (np.isnan(first) and np.isnan(second)):
        raise SettingError(
            f"explain.{what}: {problem.name} gave the losses {first:.6g} and {second:.6g} for the "
            "same weights, so differences between losses say nothing about a weight. Something in "
            "it draws random numbers: call model.eval(), or cr.manual_seed(0) in the function.")
    return first


# ---------------------------------------------------------------- networks made here


def read_layers(text: str) -> tuple[int, ...]:
    """784-256-10 as numbers."""
    parts = text.split("-")
    if len(parts) < 2 or not all(part.isdigit() and int(part) for part in parts):
        raise SettingError(f"--layers {text!r}: write the sizes of the layers with - between them, "
                           "inputs first, for example 784-256-256-256-10")
    return tuple(map(int, parts))


def network(layers: Sequence[int], activation: Callable[[], Any] = ReLU) -> Any:
    """Dense layers with an activation, ReLU, between them."""
    parts: list[Any] = []
    for inputs, outputs in pairwise(layers):
        parts += [Linear(inputs, outputs), activation()]
    return Sequential(*parts[:-1])


def dense_problem(layers: Sequence[int], batch: int,
                  activation: Callable[[], Any] = ReLU) -> Problem:
    """Dense layers and fixed random examples with random classes, in float32."""
    rng = np.random.default_rng(0)
    x = new(rng.standard_normal((batch, layers[0])).astype(np.float32))
    y = new(rng.integers(0, layers[-1], batch))
    state = get_rng_state()
    model = network(layers, activation)
    set_rng_state(state)
    return replace(of_model(model, x, y, None, "cost"), name="-".join(map(str, layers)))
