"""Jacobians held against differences: what is wrong, by how much, and why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from chainrule.autodiff import branches, numeric
from chainrule.core.cuts import forget_cuts, recent_cuts
from chainrule.core.types import type_of

from .jacobians import Block, refine
from .problem import Problem, Run, output_label
from .verdict import MODES, Excluded, Mistake, Place, at_line

MOST_REFINED = 64                # of the columns that disagree; the others keep their first step


class Options(NamedTuple):
    """What was asked for."""

    title: str
    eps: float
    atol: float
    rtol: float
    nondet_tol: float
    modes: tuple[str, ...]


def allowed(block: Block, starts: Sequence[int], options: Options) -> Any:
    """How far each number may be off: PyTorch's atol + rtol·|n|, with an atol that knows the scale.

    Where all derivatives of an output are small, atol would accept anything; there it is at most a
    hundredth of the largest, or what rounding can do.
    """
    size = np.abs(np.where(np.isfinite(block.right), block.right, 0.0))
    size[:, ~block.compared] = 0.0
    atol = np.empty_like(size)
    for start, stop in pairwise(starts):
        scale = size[start:stop].max(initial=0.0)
        atol[start:stop] = np.minimum(options.atol, np.maximum(0.01 * scale,
                                                               block.noise[start:stop]))
    return atol + options.rtol * size


def off(block: Block, mode: str, tolerance: Any) -> Any:
    """Which numbers of a mode are not right."""
    wrong = ~(np.abs(block.got[mode] - block.right) <= tolerance)
    both = (block.got[mode] == block.right) | (np.isnan(block.got[mode]) & np.isnan(block.right))
    # 0·∞ of a number that is left out, such as √0, spreads over the outputs it reaches.
    spread = ~np.isfinite(block.got[mode][:, ~block.compared]).all(axis=1, keepdims=True)
    return wrong & ~both & block.compared & ~(np.isnan(block.got[mode]) & spread)


def judge(problem: Problem, block: Block, here: Run, starts: Sequence[int],
          options: Options) -> Any:
    """Refine what disagrees; what still does is wrong, if the differences settle."""
    tolerance = allowed(block, starts, options)
    doubtful = np.zeros(block.right.shape, bool)
    for mode in block.got:
        doubtful |= off(block, mode, tolerance)
    columns = np.flatnonzero(doubtful.any(axis=0))
    chosen = np.linspace(0, len(columns) - 1, min(len(columns), MOST_REFINED)).astype(int)
    for j in columns[np.unique(chosen)]:
        refine(problem, block, here, int(j))
    tolerance = allowed(block, starts, options)
    for mode in block.got:
        wrong = off(block, mode, tolerance)
        vague = wrong & (np.abs(block.got[mode] - block.right) <= 3 * block.unsure)
        for j in np.flatnonzero(vague.any(axis=0) & ~(wrong & ~vague).any(axis=0)):
            block.excluded[int(j)] = Excluded(
                Place(block.label, block.place(int(j))), "unsettled", None)
    return tolerance


def mistakes_of(problem: Problem, block: Block, blocks: Sequence[Block], tolerance: Any,
                floats: Sequence[Any], starts: Sequence[int]) -> list[Mistake]:
    """What is wrong with one input, mode by mode, the worst numbers first."""
    found = []
    told: set[str] = set()
    for mode, got in block.got.items():
        wrong = off(block, mode, tolerance)
        if mode in told or not wrong.any():
            continue
        together = [m for m, other in block.got.items() if m not in told and np.allclose(
            other, got, rtol=1e-6, atol=1e-12, equal_nan=True)]
        told.update(together)
        error = np.where(wrong, np.abs(got - block.right), -1.0)
        error[wrong & ~np.isfinite(error)] = np.inf
        order = np.argsort(-error, axis=None, kind="stable")[:min(5, int(wrong.sum()))]
        rows = []
        for r, j in (np.unravel_index(k, error.shape) for k in order):
            k = int(np.searchsorted(starts, r, "right")) - 1
            index = tuple(int(i) for i in np.unravel_index(r - starts[k], floats[k].shape))
            rows.append((Place(block.label, block.place(int(j))),
                         Place(output_label(problem, k, floats), index),
                         float(got[r, j]), float(block.right[r, j])))
        found.append(Mistake(" and ".join(MODES[m] for m in together), tuple(together),
                             block.label, type_of(block.x), int(wrong.sum()),
                             int(block.compared.sum()) * len(got), tuple(rows),
                             cause_of(block, mode, blocks, floats)))
    return found


def cause_of(block: Block, mode: str, blocks: Sequence[Block], floats: Sequence[Any]) -> str:
    def boxed(jacobian: Any) -> Any:
        return np.where(block.compared, jacobian, 0.0).reshape(-1, *block.x.shape)

    counts: dict[str, int] = {}
    for name, n in ((f"the size of {block.label}", block.x.numel()),
                    *((f"axis {a} of {block.label}", n) for a, n in enumerate(block.x.shape)),
                    *(("the size of the output", y.numel()) for y in floats[:1])):
        counts.setdefault(name, int(n))
    others = [(b.label, b.right.reshape(-1, *b.x.shape)) for b in blocks
              if b is not block and b.x.shape == block.x.shape]
    return numeric.likely_cause(boxed(block.got[mode]), boxed(block.right), block.x._value, counts,
                                others)


def suspects(problem: Problem, mistakes: Sequence[Mistake], blocks: Sequence[Block],
             here: Run) -> list[str]:
    """Sentences naming the lines at fault: rules wrong by themselves, and gradients cut."""
    told = []
    seen: set[tuple[Any, int]] = set()
    for mode in ("reverse", "forward"):
        if any(mode in m.modes for m in mistakes):
            for fault in branches.faulty_rules(here.path, mode):
                key = (fault.node.prim, fault.operand)
                if key not in seen:
                    seen.add(key)
                    told.append(f"The {mode} rule of {fault.node.name} for its operand "
                                f"{fault.operand + 1} is at fault: alone it gives {fault.got:.6g} "
                                f"where its differences give {fault.right:.6g}.\n      "
                                f"{at_line(fault.node)}")
    told = told or [f"The derivative of {n.name} was written by hand; all rules of the library on "
                    f"the path agree with their differences.\n      {at_line(n)}"
                    for n in {n.name: n for n in here.path if branches.is_custom(n)}.values()]
    if told:
        return told
    wrong = {m.label for m in mistakes}
    for block in blocks:
        if block.label in wrong:
            told += cuts_below(problem, block)
    return list(dict.fromkeys(told)) or places_of_cuts(problem, blocks, wrong)


def places_of_cuts(problem: Problem, blocks: Sequence[Block], wrong: set[str]) -> list[str]:
    """Where the function stops gradients, for inputs that get none."""
    if not any(b.label in wrong and all(not got.any() for got in b.got.values()) for b in blocks):
        return []
    forget_cuts()
    problem.run()
    return [f"The gradient is cut: {cut.what} at {cut.origin}\n        {cut.origin.source()}"
            for cut in recent_cuts()[-3:]]


def cuts_below(problem: Problem, block: Block) -> list[str]:
    """Operands that move with the input though no gradient flows to them."""
    rng = np.random.default_rng(0)
    moved = block.x._value + 1e-4 * rng.normal(size=block.x.shape)
    here, there = problem.run(), problem.at(block.x, moved)
    return [f"Operand {i + 1} of {n.name} changes with {block.label}, but no gradient flows "
            "through it: detach(), .data, .item(), no_grad() or NumPy cut it.\n      "
            f"{at_line(n)}" for n, i in branches.moved_constants(here.path, there.path)[:3]]


def worst_of(blocks: Sequence[Block], starts: Sequence[int]) -> tuple[float, float, Place | None]:
    """(largest error, the same relative and beyond rounding, where): over all compared numbers."""
    largest, relative, where = 0.0, 0.0, None
    for block in blocks:
        chosen = block.compared
        if not chosen.any():
            continue
        for start, stop in pairwise(starts):
            right = np.where(chosen, block.right, 0.0)[start:stop]
            scale = np.abs(right).max(initial=0.0)
            for got in block.got.values():
                error = np.where(chosen, np.abs(got[start:stop] - right), 0.0)
                if not error.size or not np.isfinite(error).all():
                    continue
                beyond = np.maximum(error - block.noise[start:stop], 0.0).max() / (scale or 1.0)
                relative = max(relative, float(beyond))
                if where is None or error.max() > largest:
                    largest = float(error.max())
                    column = int(np.unravel_index(int(error.argmax()), error.shape)[1])
                    where = Place(block.label, block.place(column))
    return largest, relative, where
