"""`gradcheck` and `gradgradcheck`: derivatives held against differences, with a verdict in words.

They are reached as `cr.autograd.gradcheck`. Besides right and wrong they tell which number of which
input is wrong, the likely cause, and the line whose rule is at fault; they know a kink when they
stand on one; and they count what the differences cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule import autograd
from chainrule.autodiff import numeric
from chainrule.core.errors import GradientError
from chainrule.core.record import new
from chainrule.core.types import type_of
from chainrule.tensor import Tensor
from chainrule.tree import flatten, unflatten

from .compare import Options, judge, mistakes_of, suspects, worst_of
from .jacobians import (
    Block,
    Probe,
    batched_forward_jacobian,
    batched_jacobian,
    differences,
    forward_column,
    forward_jacobian,
    no_forward,
    one_pass,
    reverse_jacobians,
)
from .problem import Problem, Run, examined, output_label
from .verdict import MODES, GradcheckError, Place, Verdict, at_line, stopped

Function = Callable[..., Any]
LARGEST_JACOBIAN = 50_000_000


def check(problem: Problem, options: Options, fast: bool, raise_exception: bool) -> Verdict:
    """Derivatives of all modes against differences; a false verdict is raised if wanted."""
    try:
        verdict = run_check(problem, options, fast)
        if not verdict:
            raise GradcheckError(verdict)
    except GradcheckError as error:
        if raise_exception:
            raise
        verdict = error.verdict
    return verdict


def run_check(problem: Problem, options: Options, fast: bool) -> Verdict:
    """Derivatives of all modes against differences."""
    here = examined(problem)
    floats = [y for y in here.outputs if y.dtype.kind == "f"]
    starts = [0, *np.cumsum([y.numel() for y in floats]).tolist()]
    blocks = [Block(i, problem.labels[i], x, 1 if fast else starts[-1])
              for i, x in problem.checked]
    size = starts[-1] * sum(b.x.numel() for b in blocks)
    if not fast and size > LARGEST_JACOBIAN:
        raise GradientError(f"{problem.title}: the Jacobian has {size:,} numbers. Check a smaller "
                            "input, a reduced output (y.sum()), or pass fast_mode=True.")
    notes = [f"{output_label(problem, k, here.outputs)} is {type_of(y)} and has no derivative; it "
             "was left out" for k, y in enumerate(here.outputs) if y.dtype.kind != "f"]
    notes += [f"it computes in {node.dtype} in {at_line(node)}, so differences resolve little"
              for node in here.path if node.dtype != np.float64][:1]
    modes = list(options.modes)
    lacking = no_forward(here, floats, blocks[0]) if any("forward" in m for m in modes) else ""
    if lacking:
        modes = [m for m in modes if "forward" not in m]
        notes.append(f"forward mode was not checked: {lacking}")
    if fast:
        quick = fast_check(problem, options, here, floats, blocks, modes, notes)
        return quick if quick is not None else run_check(problem, options, False)
    timed = time.perf_counter()
    passes = reverse_jacobians(floats, blocks) if "reverse" in modes else 0
    reverse_seconds = time.perf_counter() - timed
    if "reverse" in modes:
        repeat(problem, floats, blocks, options.nondet_tol)
    before = problem.evaluations
    timed = time.perf_counter()
    for block in blocks:
        differences(problem, block, here, options.eps)
    seconds = time.perf_counter() - timed
    for block in blocks:
        for mode, fill in (("forward", forward_jacobian), ("batched", batched_jacobian),
                           ("batched forward", batched_forward_jacobian)):
            if mode in modes:
                fill(floats, block)
    mistakes = []
    for block in blocks:
        tolerance = judge(problem, block, here, starts, options)
        mistakes += mistakes_of(problem, block, blocks, tolerance, floats, starts)
    spent = problem.evaluations - before
    counted = sum(int(b.compared.sum()) for b in blocks)
    error, relative, where = worst_of(blocks, starts)
    return Verdict(
        problem.title, len(blocks), sum(b.x.numel() for b in blocks), counted,
        tuple(MODES[m] for m in modes), error, relative, where, tuple(mistakes),
        tuple(e for b in blocks for e in b.excluded.values()),
        tuple(suspects(problem, mistakes, blocks, here) if mistakes else ()), tuple(notes),
        problem.evaluations, spent, passes, seconds, reverse_seconds)


def repeat(problem: Problem, floats: Sequence[Any], blocks: Sequence[Block], tol: float) -> None:
    """The backward pass must give the same numbers twice."""
    y = next((y for y in floats if y._node is not None and y.numel()), None)
    if y is None:
        return
    row = sum(z.numel() for z in floats[:[z is y for z in floats].index(True)])
    for block, g in zip(blocks, one_pass(y, [b.x for b in blocks], 0), strict=True):
        again = np.zeros(block.right.shape[1]) if g is None else g.ravel()
        error = np.abs(again - block.got["reverse"][row])
        if (error > tol).any():
            raise stopped(problem.title, "wrong", "Two backward passes through one graph differ by "
                          f"{error.max():.3g} in {block.label}; nondet_tol={tol:g} allows less. A "
                          "rule depends on something that changes.", problem.evaluations)


def fast_check(problem: Problem, options: Options, here: Run, floats: Sequence[Any],
               blocks: Sequence[Block], modes: Sequence[str], notes: list[str]) -> Verdict | None:
    """vᵀJu along a random direction u of each input and v of the outputs; None if in doubt."""
    rng = np.random.default_rng(0)
    v = rng.normal(size=here.values.size)
    tracked = [y for y in floats if y._node is not None]
    seeds = [new(part.reshape(y.shape)) for y, part in zip(floats, np.split(
        v, np.cumsum([y.numel() for y in floats])[:-1]), strict=True) if y._node is not None]
    before, timed = problem.evaluations, time.perf_counter()
    grads = autograd.grad(tracked, [b.x for b in blocks], seeds, retain_graph=True,
                          materialize_grads=True) if tracked else [
        new(np.zeros(b.x.shape)) for b in blocks]
    reverse_seconds, timed = time.perf_counter() - timed, time.perf_counter()
    largest, relative, where = 0.0, 0.0, None
    for block, g in zip(blocks, grads, strict=True):
        u = rng.normal(size=block.x.shape)
        u /= np.linalg.norm(u) or 1.0
        found, parted = Probe(problem, block.x).stencil(u, options.eps)
        right, noise = float(v @ found.slope), float(np.abs(v) @ found.noise)
        limit = min(options.atol, max(0.01 * abs(right), noise)) + options.rtol * abs(right)
        sides = {"reverse": float((g._value * u).sum())}
        if "forward" in modes:
            sides["forward"] = float(v @ forward_column(floats, block.x, u))
        error = max(abs(side - right) for mode, side in sides.items() if mode in modes)
        if parted is not None or not error <= limit:
            return None
        relative = max(relative, max(error - noise, 0.0) / (abs(right) or 1.0))
        if where is None or error > largest:
            largest, where = error, Place(block.label, ())
    numbers = sum(b.x.numel() for b in blocks)
    return Verdict(
        problem.title, len(blocks), numbers, numbers,
        tuple(MODES[m] for m in modes if m in ("reverse", "forward")), largest, relative, where, (),
        (), (), (*notes, "fast_mode: one random direction for each input"), problem.evaluations,
        problem.evaluations - before, 1, time.perf_counter() - timed, reverse_seconds)


def options_of(title: str, eps: float, atol: float, rtol: float, nondet_tol: float,
               asked: dict[str, bool], masked: Any) -> Options:
    if masked:
        raise GradientError(f"{title}(masked=True): there are no sparse tensors to mask")
    if not 0 < eps < 1:
        raise GradientError(f"{title}: eps={eps} is the step of the differences; write one "
                            "between 1e-8 and 1e-3 (1e-6 suits float64)")
    modes = tuple(mode for mode, wanted in asked.items() if wanted)
    if "reverse" not in modes and "forward" not in modes:
        raise GradientError(f"{title}: check_backward_ad and check_forward_ad are both False, so "
                            "there is nothing to check")
    return Options(title, eps, atol, rtol, nondet_tol, modes)


def gradcheck(func: Function, inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5,
              rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0,
              check_undefined_grad: bool = True, check_grad_dtypes: bool = False,
              check_batched_grad: bool = False, check_batched_forward_grad: bool = False,
              check_forward_ad: bool = True, check_backward_ad: bool = True,
              fast_mode: bool = False, masked: bool | None = None) -> Verdict:
    """Do the derivatives of `func` agree with centred differences (f(x + h) − f(x − h))/2h?

    `func(*inputs)` returns float64 tensors (also nested); every input that requires a gradient is
    moved, number by number, by h = `eps`. A derivative d is right if it is within
    atol + rtol·|n| of the difference n; where all derivatives of an output are small, a hundredth
    of the largest takes the place of atol. What disagrees is tried with further steps first.

    The `Verdict` is true if everything compared is right, and prints why. It is false, and with
    `raise_exception` a GradcheckError is raised, if something is wrong and also if nothing could
    be compared. Numbers on a kink (relu at 0, ties of a maximum) are left out and counted.

    Forward mode is checked too. Outputs without a gradient (`check_undefined_grad`) and dtypes are
    always part of the check. `fast_mode` looks along one random direction and falls back to all
    numbers if in doubt.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0, 2.0], dtype=cr.float64, requires_grad=True)
    >>> cr.autograd.gradcheck(lambda x: (x * x).sum(), x)
    gradcheck: right. 1 input (2 numbers): reverse mode and forward mode agree with ...
    """
    options = options_of("gradcheck", eps, atol, rtol, nondet_tol, {
        "reverse": check_backward_ad, "forward": check_forward_ad, "batched": check_batched_grad,
        "batched forward": check_batched_forward_grad}, masked)
    return check(Problem(func, inputs, "gradcheck"), options, fast_mode, raise_exception)


def gradgradcheck(func: Function, inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6,
                  atol: float = 1e-5, rtol: float = 1e-3,
                  gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
                  nondet_tol: float = 0.0, check_undefined_grad: bool = True,
                  check_grad_dtypes: bool = False, check_batched_grad: bool = False,
                  check_fwd_over_rev: bool = True, check_rev_over_rev: bool = True,
                  fast_mode: bool = False, masked: bool | None = None) -> Verdict:
    """`gradcheck` of the gradients of `func`: are the second derivatives right?

    The function checked is (inputs, grad_outputs) ↦ the gradients of the inputs. `grad_outputs`
    are random if not given.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0, 2.0], dtype=cr.float64, requires_grad=True)
    >>> bool(cr.autograd.gradgradcheck(cr.tanh, x))
    True
    """
    options = options_of("gradgradcheck", eps, atol, rtol, nondet_tol, {
        "reverse": check_rev_over_rev, "forward": check_fwd_over_rev,
        "batched": check_batched_grad}, masked)
    first = Problem(func, inputs, "gradgradcheck")
    outputs = [y for y in examined(first).outputs if y.dtype.kind == "f" and y._node is not None]
    if not outputs:
        raise GradientError("gradgradcheck: no output depends on an input that requires a "
                            "gradient, so there are no gradients to differentiate")
    gs = flatten(grad_outputs)[0] if grad_outputs is not None else [
        random_cotangent(tuple(y.shape), k, gen_non_contig_grad_outputs)
        for k, y in enumerate(outputs)]
    xs = [x for _, x in first.checked]
    count = len(first.leaves)

    def gradients(*given: Any) -> Any:
        result = func(*unflatten(first.structure, given[:count]))
        found = [y for y in flatten(result)[0] if isinstance(y, Tensor) and y.dtype.kind == "f"
                 and y._node is not None]
        problem.witnesses += found
        return autograd.grad(found, xs, given[count:], create_graph=True, materialize_grads=True)

    problem = Problem(gradients, (*first.leaves, *gs), "gradgradcheck",
                      [*first.labels, *(f"grad_output {k}" for k in range(len(gs)))],
                      [f"gradient of {first.labels[i]}" for i, _ in first.checked])
    problem.evaluations = first.evaluations
    return check(problem, options, fast_mode, raise_exception)


def random_cotangent(shape: tuple[int, ...], seed: int, strided: bool) -> Any:
    """Random normal numbers that require a gradient."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(*shape, 2))[..., 0] if strided else rng.normal(size=shape)
    return new(np.asarray(value)).requires_grad_()


def error_against_step(func: Function, x: Any, *, dtypes: Sequence[Any] = ("float32", "float64"),
                       steps: Sequence[float] = numeric.STEPS) -> list[numeric.StepCurve]:
    """How far differences of `func`, which returns one number, are from backpropagation.

    For each dtype a `StepCurve`: the relative error for each step h, first falling (truncation),
    then rising (rounding). The truth is the derivative by reverse mode in float64, along the
    direction that moves all elements of x together.

    >>> import chainrule as cr
    >>> curves = error_against_step(lambda x: x.sin().sum(), cr.tensor([0.5, 1.0]))
    >>> [c.best[1] < 1e-3 for c in curves]
    [True, True]
    """
    start = new(np.array(x._value if isinstance(x, Tensor) else x, np.float64)).requires_grad_()
    with autograd.enable_grad():
        truth = float(autograd.grad(func(start), start)[0]._value.sum())

    def value(array: Any) -> Any:
        with autograd.no_grad():
            return func(new(array))._value

    return numeric.error_curves(value, start._value, truth, None, dtypes, steps)
