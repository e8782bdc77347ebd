"""Jacobians by every mode, and by differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import autograd
from chainrule.autodiff import branches, numeric
from chainrule.autodiff.forward import push
from chainrule.core.node import Node
from chainrule.core.record import new
from chainrule.core.types import type_of
from chainrule.func import vmap

from .problem import Problem, Run
from .verdict import Excluded, Place, stopped

CLOSER = 64                      # how much nearer a step is tried when the first crosses a kink


class Block:
    """One input: the right Jacobian, its uncertainty, what each mode gives, what is excluded."""

    def __init__(self, number: int, label: str, x: Any, rows: int) -> None:
        self.number = number
        self.label = label
        self.x = x
        shape = (rows, x.numel())
        self.right = np.zeros(shape)
        self.unsure = np.zeros(shape)
        self.noise = np.zeros(shape)
        self.got: dict[str, Any] = {}
        self.excluded: dict[int, Excluded] = {}
        self.steps: dict[int, float] = {}

    def place(self, column: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(column, self.x.shape))

    @property
    def compared(self) -> Any:
        """Which columns are compared."""
        chosen = np.ones(self.right.shape[1], bool)
        chosen[list(self.excluded)] = False
        return chosen


def reverse_jacobians(floats: Sequence[Any], blocks: Sequence[Block]) -> int:
    """One backward pass for each number of the outputs; how many that were."""
    xs = [block.x for block in blocks]
    for block in blocks:
        block.got["reverse"] = np.zeros_like(block.right)
    row = 0
    passes = 0
    for y in floats:
        for k in range(y.numel()):
            if y._node is not None:
                for block, g in zip(blocks, one_pass(y, xs, k), strict=True):
                    if g is not None:
                        block.got["reverse"][row] = g.ravel()
                passes += 1
            row += 1
    return passes


def one_pass(y: Any, xs: Sequence[Any], k: int) -> list[Any]:
    seed = np.zeros(y.numel())
    seed[k] = 1.0
    grads = autograd.grad(y, xs, new(seed.reshape(y.shape)), retain_graph=True, allow_unused=True)
    for x, g in zip(xs, grads, strict=True):
        if g is not None and g.shape != x.shape:
            raise stopped("gradcheck", "wrong", f"The gradient of a {type_of(x)} input has the "
                          f"shape {list(g.shape)}; it must have the shape of the input.")
    return [None if g is None else g._value for g in grads]


def forward_column(floats: Sequence[Any], x: Any, direction: Any) -> Any:
    dots = push(floats, [x], [new(direction)], connected=False)
    return np.concatenate([np.zeros(y.numel()) if dot is None else np.ravel(dot._value)
                           for y, dot in zip(floats, dots, strict=True)])


def forward_jacobian(floats: Sequence[Any], block: Block) -> None:
    found = block.got["forward"] = np.zeros_like(block.right)
    for j in range(block.x.numel()):
        direction = numeric.unit(block.x.shape, block.place(j))
        found[:, j] = forward_column(floats, block.x, direction)


def batched_jacobian(floats: Sequence[Any], block: Block) -> None:
    """All backward passes of an output at once, through vmap."""
    parts = []
    for y in floats:
        basis = new(np.eye(y.numel()).reshape(y.numel(), *y.shape))
        if y._node is None:
            parts.append(np.zeros((y.numel(), block.x.numel())))
            continue
        rows = vmap(lambda g, y=y: autograd.grad(y, block.x, g, retain_graph=True,
                                                 materialize_grads=True)[0])(basis)
        parts.append(rows._value.reshape(y.numel(), -1))
    block.got["batched"] = np.concatenate(parts)


def batched_forward_jacobian(floats: Sequence[Any], block: Block) -> None:
    """All forward passes of an input at once, through vmap."""
    n = block.x.numel()
    basis = new(np.eye(n).reshape(n, *block.x.shape))

    def pushed(t: Any) -> list[Any]:
        dots = push(floats, [block.x], [t], connected=False)
        return [0 * y.detach() if dot is None else dot for y, dot in zip(floats, dots, strict=True)]

    columns = vmap(pushed)(basis)
    block.got["batched forward"] = np.concatenate(
        [c._value.reshape(n, -1).T for c in columns])


def no_forward(run: Run, floats: Sequence[Any], block: Block) -> str:
    """Why forward mode cannot be checked: a node without a rule for tangents; '' if it can."""
    for n in run.path:
        if (n.prim is not None and n.prim.jvp is None and n.prim.kind != "composite"
                and n.prim.differentiable):
            return f"{n.name} has no rule for tangents"
    try:
        forward_column(floats, block.x, np.zeros(block.x.shape))
    except NotImplementedError as error:          # a custom function without jvp
        return str(error)
    return ""


class Probe:
    """The function of one input's array, for differences; remembers the paths it took."""

    def __init__(self, problem: Problem, x: Any, epsilon: float = numeric.EPSILON) -> None:
        self.problem = problem
        self.epsilon = epsilon
        self.x = x
        self.paths: list[branches.Path] = []

    def __call__(self, value: Any) -> Any:
        run = self.problem.at(self.x, value)
        self.paths.append(run.path)
        return run.values

    def stencil(self, direction: Any, step: float) -> tuple[numeric.Stencil, Node | None]:
        """Values on both sides, and the node at which the sides part, if they do."""
        self.paths.clear()
        found = numeric.stencil(self, self.x._value, direction, step, self.epsilon)
        behind, ahead = self.paths[1], self.paths[0]
        return found, branches.parting(behind, ahead)


def differences(problem: Problem, block: Block, here: Run, eps: float) -> None:
    """The right Jacobian column by column; columns on a kink are excluded."""
    probe = Probe(problem, block.x)
    for j in range(block.x.numel()):
        direction = numeric.unit(block.x.shape, block.place(j))
        step = eps
        found, parted = probe.stencil(direction, step)
        if parted is not None:
            step = eps / CLOSER
            found, parted = probe.stencil(direction, step)
        if parted is not None:
            block.excluded[j] = Excluded(Place(block.label, block.place(j)), "kink", parted)
        elif not (np.isfinite(found.ahead) & np.isfinite(found.behind)).all() and np.isfinite(
                here.values).all():
            block.excluded[j] = Excluded(Place(block.label, block.place(j)), "edge", None)
        block.right[:, j] = found.slope
        block.noise[:, j] = found.noise
        block.steps[j] = step


def refine(problem: Problem, block: Block, here: Run, j: int) -> None:
    """More steps for a column that disagrees: the best of them, or why none will do."""
    probe = Probe(problem, block.x, branches.coarsest(here.path))
    direction = numeric.unit(block.x.shape, block.place(j))
    step = block.steps[j]
    stencils = []
    parted = None
    for factor in (1.0, *reversed(numeric.COARSER)):
        found, parted_here = probe.stencil(direction, step * factor)
        beside = branches.parting(here.path, probe.paths[0])
        if factor == 1.0:
            parted = beside
        if (parted_here or beside) is not None:
            break
        stencils.append(found)
    where = Place(block.label, block.place(j))
    if parted is not None:                 # the point itself is on a branch of its own
        block.excluded[j] = Excluded(where, "kink", parted)
        return
    value, unsure = numeric.settled(stencils)
    if numeric.corners(stencils, here.values).any():
        block.excluded[j] = Excluded(where, "corner", None)
    block.right[:, j], block.unsure[:, j] = value, unsure
