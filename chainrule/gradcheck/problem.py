"""A function with the inputs its derivatives are checked at: evaluated, recorded, counted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule import autograd, random
from chainrule.autodiff import branches
from chainrule.autodiff.forward import keeping_everything
from chainrule.autodiff.reverse import reachable
from chainrule.core import node as clock
from chainrule.core.errors import DtypeError, GradientError
from chainrule.core.types import type_of
from chainrule.tensor import Tensor
from chainrule.tree import flatten, unflatten

from .verdict import at_line, stopped

Function = Callable[..., Any]


class Run(NamedTuple):
    """One evaluation: the float results, one after another, and the path taken."""

    outputs: tuple[Any, ...]
    values: Any
    path: branches.Path


class Problem:
    """A function with its inputs, evaluated and counted."""

    def __init__(self, func: Function, inputs: Any, title: str,
                 labels: Sequence[str] | None = None, outputs: Sequence[str] = ()) -> None:
        args = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        self.func = func
        self.leaves, self.structure = flatten(list(args))
        self.title = title
        self.labels = list(labels or names_of(func, args))
        self.output_labels = list(outputs)
        self.witnesses: list[Any] = []       # further tensors whose path belongs to an evaluation
        self.evaluations = 0
        self.checked = self._checked()

    def _checked(self) -> list[tuple[int, Any]]:
        found: dict[int, tuple[int, Any]] = {}
        for i, x in enumerate(self.leaves):
            if isinstance(x, Tensor) and x.requires_grad:
                if x.dtype != np.float64:
                    raise DtypeError(needs_float64(self.title, self.labels[i], x))
                found.setdefault(id(x), (i, x))
        if not found:
            raise GradientError(
                f"{self.title}: none of the {len(self.leaves)} inputs requires a gradient, so "
                "there is nothing to check. Make those to be checked with cr.tensor(..., "
                "dtype=cr.float64, requires_grad=True) or x.double().requires_grad_().")
        chosen = list(found.values())
        for i, x in chosen:
            if not x.is_leaf:
                below = reachable([x._node])
                for k, other in chosen:
                    if other is not x and other._node in below:
                        raise GradientError(
                            f"{self.title}: {self.labels[i]} is computed from {self.labels[k]}, so "
                            "one cannot be moved without the other. Pass a copy of its own, "
                            "x.detach().clone().requires_grad_().")
        return chosen

    def run(self) -> Run:
        """Evaluate and record, keeping every value."""
        self.evaluations += 1
        self.witnesses.clear()
        since = clock.tick()
        with autograd.enable_grad(), keeping_everything():
            result = self.func(*unflatten(self.structure, self.leaves))
        outputs = tuple(y for y in flatten(result)[0] if isinstance(y, Tensor))
        floats = tuple(y for y in outputs if y.dtype.kind == "f")
        values = [np.array(y._value, np.float64).ravel() for y in floats]
        roots = [y._node for y in (*floats, *self.witnesses) if y._node is not None]
        return Run(outputs, np.concatenate(values) if values else np.zeros(0),
                   branches.path_of(roots, since))

    def at(self, x: Any, value: Any) -> Run:
        """Evaluate with other numbers in one input, which is also seen by closures."""
        before = x._value
        x._value = value
        try:
            return self.run()
        finally:
            x._value = before


def names_of(func: Function, args: Sequence[Any]) -> list[str]:
    """"input 1 'w'" for each tensor among the arguments, the name from the signature."""
    try:
        parameters = list(inspect.signature(getattr(func, "forward", func)).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = []
    for i, x in enumerate(args):
        known = i < len(parameters) and parameters[i].kind in plain
        own = parameters[i].name if known else ""
        count = len(flatten(x)[0])
        names += [own] if count == 1 else [f"{own or f'arg{i}'}.{k}" for k in range(count)]
    return [f"input {i} '{name}'" if name else f"input {i}" for i, name in enumerate(names)]


def needs_float64(title: str, what: str, x: Any) -> str:
    info = np.finfo(x.dtype)
    return (f"{title}: {what} is {type_of(x)}, and differences need float64. Numbers of {x.dtype} "
            f"near 1 are {info.eps:.1e} apart, so a difference quotient keeps at best "
            f"{-np.log10(float(info.eps)) * 2 / 3:.0f} digits and cannot tell a right derivative "
            "from a slightly wrong one. Write x.double().requires_grad_() for the inputs (and "
            "model.double() for a module).")


def examined(problem: Problem) -> Run:
    """The recording whose derivatives are checked, once the function is known to be fit for it."""
    before = [x._value.copy() for _, x in problem.checked]
    drawn = random.default_generator.drawn
    first = problem.run()
    drew = random.default_generator.drawn != drawn
    for (i, x), value in zip(problem.checked, before, strict=True):
        if not branches.same(x._value, value):
            raise GradientError(f"{problem.title}: the function changes {problem.labels[i]} in "
                                "place, so no two evaluations see the same numbers. Let it work "
                                "on x.clone().")
    floats = [y for y in first.outputs if y.dtype.kind == "f"]
    if not floats:
        raise stopped(problem.title, "inconclusive", nothing_smooth(first), problem.evaluations)
    for k, y in enumerate(floats):
        if y.dtype != np.float64:
            raise DtypeError(needs_float64(problem.title, output_label(problem, k, floats), y)
                             + cast_note(first.path))
    second = problem.run()
    if first.values.shape != second.values.shape or not branches.same(first.values, second.values):
        raise stopped(problem.title, "inconclusive", not_repeatable(first, second, drew),
                      problem.evaluations)
    return first


def nothing_smooth(run: Run) -> str:
    shown = ", ".join(str(type_of(y)) for y in run.outputs) or "no tensor"
    return (f"The function returns {shown}, which has no derivative: positions, "
            "counts and comparisons (argmax, argsort, >) do not change continuously with the "
            "input. Return the float tensor they were taken from, or a smooth stand-in (softmax "
            "for argmax, sigmoid for a comparison).")


def not_repeatable(a: Run, b: Run, drew: bool) -> str:
    moved = branches.moved_constants(a.path, b.path)
    parted = branches.parting(a.path, b.path)
    node = moved[0][0] if moved else parted
    where = f"\nThe first operation that differs is {at_line(node)}" if node is not None else ""
    if drew:
        cause = ("It draws random numbers (dropout?). Call model.eval(), or draw them once outside "
                 "and pass them in.")
    else:
        cause = ("Something changes between calls: running statistics (call model.eval()), a "
                 "counter, the time, or random numbers from elsewhere.")
    size = np.abs(a.values - b.values).max() if a.values.shape == b.values.shape else np.inf
    return (f"Two evaluations with the same inputs differ by "
            f"{size:.3g}, so differences mean nothing. {cause}{where}")


def cast_note(path: branches.Path) -> str:
    for node in path:
        if node.dtype != np.float64:
            return f"\nIt becomes {node.dtype} in {at_line(node)}"
    return ""


def output_label(problem: Problem, k: int, floats: Sequence[Any]) -> str:
    if problem.output_labels:
        return problem.output_labels[k]
    return "the output" if len(floats) == 1 else f"output {k}"
