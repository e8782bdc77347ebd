"""`cr.explain.cost`: what a gradient costs on this machine, claims C1 to C3 and C7, measured.

C1  finite differences need one or two forward passes per weight, backpropagation one backward pass
C2  backward costs about two forward passes, a step about three, however many parameters there are
C3  every intermediate is computed once and used again
C7  gradients are exact up to rounding; differences are approximations
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.nn import Tanh

from .applications import Applications, count_applications, shared_chain
from .chart import Chart, Curve
from .document import Report, Section, Table, duration, number, three
from .passes import Passes, measure_passes
from .problem import Problem, dense_problem, left_as_it_was, problem_of, read_layers, steady
from .ratios import SIZES, Ratio, measure_ratio, measure_step
from .steps import Curves, measure_steps

LAYERS = "784-256-256-256-10"
SMOOTH = (16, 32, 32, 4)  # tanh layers: without corners the curves of C7 are those of the theory
SMOOTH_BATCH = 32
UPDATES = 100_000
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
           "VECLIB_MAXIMUM_THREADS")


def cost(model: Any = None, batch: Any = None, *, loss: Any = None, samples: int = 60,
         quick: bool = False, layers: str = LAYERS, examples: int = 64) -> Report:
    """What a gradient costs: differences, forward mode and backpropagation, counted and timed.

    model     nothing: dense layers of the sizes in `layers` with `examples` random examples, and
              networks from 10³ to 10⁷ parameters. Or a network with batch=(x, y); or a function
              without arguments that returns the loss
    loss      (output, y) to one number; by default cross entropy for classes, else mean squared
              error
    samples   parameters that are differentiated one by one
    quick     fewer of them, and networks up to 10⁶ parameters

    Times are the fastest of several, on this machine now; what is extrapolated is said. Parameters,
    gradients and random numbers are left as they were. Returns a `Report`.
    """
    if samples < 1 or examples < 1:
        raise SettingError(f"explain.cost(samples={samples}, examples={examples}): both must be at "
                           "least 1")
    budget = 0.1 if quick else 1.0
    samples = min(samples, 10) if quick else samples
    if model is None:
        problem = dense_problem(read_layers(layers), examples)
        ratios = [measure_ratio(size, examples, budget) for size in SIZES[:-1 if quick else None]]
        smooth = dense_problem(SMOOTH, SMOOTH_BATCH, Tanh)
        about = ("-".join(map(str, SMOOTH)) + f" with tanh, {SMOOTH_BATCH} examples")
    else:
        problem = problem_of(model, batch, loss, "cost")
        with left_as_it_was(problem):
            steady(problem, "cost")
        ratios = [measure_step(problem, budget)]
        smooth, about = problem, problem.name
    with left_as_it_was(problem):
        passes = measure_passes(problem, samples)
        counted = count_applications(problem.loss())
    with left_as_it_was(smooth):
        curves = measure_steps(smooth)
    chain = count_applications(shared_chain(20))
    title = f"What a gradient costs: {problem.name}"
    note = f" A batch of {examples}," if model is None else ""
    return Report(title, (
        passes_section(passes, problem, note), ratios_section(ratios, examples, model is None),
        counts_section(counted, chain, problem), steps_section(curves, about),
    ), {"passes": passes, "ratios": ratios, "applications": counted, "curves": curves})


# ---------------------------------------------------------------- the sections


def passes_section(p: Passes, problem: Problem, note: str) -> Section:
    """C1."""
    seconds = p.seconds
    rows = [("", "forward", "backward", "tangents", "one gradient", ""),
            ("differences, one side", f"{p.one_sided:,}", "0", "0",
             duration(seconds["one side"]), "extrapolated"),
            ("differences, both sides", f"{p.central:,}", "0", "0",
             duration(seconds["both sides"]), "extrapolated"),
            ("forward mode", "1", "0", f"{p.parameters:,}",
             duration(seconds["forward mode"]), "extrapolated"),
            ("backpropagation", "1", "1", "0", duration(seconds["backpropagation"]), "measured")]
    textbook = p.one_sided * 1e-3
    vectors = "biases" if note else "biases, scales and other vectors"
    chart = passes_chart(p)
    return Section("C1  every weight's gradient, by differences or by backpropagation", (
        (f"{problem.name} has {p.weights:,} weights and {p.biases:,} {vectors}.{note} "
         f"{problem.dtype}, {threads()}. Passes needed for the whole gradient:"),
        Table(tuple(rows), (1, 2, 3, 4)),
        (f"Measured: {p.sampled} parameters drawn at random. Two forward passes for each took "
         f"{duration(p.sample)} in all, {duration(p.one_pass)} a pass; pushing one tangent forward "
         f"takes {duration(p.push)}; backpropagation {duration(p.forward)} forward and "
         f"{duration(p.backward)} backward (the fastest of several). Extrapolated: the passes for "
         f"all {p.parameters:,} parameters at that speed. Backpropagation is "
         f"{three(seconds['both sides'] / seconds['backpropagation'])} times as fast as "
         f"differences on both sides and "
         f"{three(seconds['forward mode'] / seconds['backpropagation'])} times as fast as "
         "forward mode, which is as exact but gives one number a pass."),
        (f"On the sample, differences were off by up to {number(100 * p.worst)} % of the largest "
         f"gradient (step {p.step:g}), forward mode by {number(100 * p.worst_push)} %."),
        (f"Computed: were a forward pass to take 1 ms, one-sided differences would take "
         f"{duration(textbook)} for one update, and {duration(textbook * UPDATES)} for "
         f"{UPDATES:,} updates."),
    ), (chart,))


def passes_chart(p: Passes) -> Chart:
    """Seconds for one gradient by the number of parameters, at the measured speeds."""
    xs = tuple(10.0**k for k in range(8))
    return Chart("time for one gradient, at the speeds measured here", "parameters", "seconds", (
        Curve("differences", xs, tuple(2 * x * p.one_pass for x in xs)),
        Curve("forward mode", xs, tuple(p.forward + x * p.push for x in xs)),
        Curve("backpropagation", xs, (p.forward + p.backward,) * len(xs)),
    ), log_x=True, log_y=True, lines=((float(p.parameters), "this network"),))


def ratios_section(ratios: Sequence[Ratio], examples: int, grown: bool) -> Section:
    """C2."""
    rows: list[tuple[str, ...]] = [(
        "parameters", "forward", "backward", "step", "ratio", "compiled forward", "step",
        "ratio")]
    for r in ratios:
        compiled = [duration(s) if s is not None else "–"
                    for s in (r.compiled_forward, r.compiled_step)]
        rows.append((f"{r.parameters:,}", duration(r.forward), duration(r.backward),
                     duration(r.step), f"{r.step / r.forward:.2f}", *compiled,
                     compiled_ratio(r)))
    parts: list[Any] = [Table(tuple(rows), tuple(range(8)))]
    low, high = (f(r.step / r.forward for r in ratios) for f in (min, max))
    theory = (
        "In theory backward is two forward passes, since each layer's matrix product has two "
        "products in its derivative, one for the weights and one for the inputs; the first layer "
        "needs only one (Baur & Strassen 1983: a gradient costs at most a small constant times the "
        "function, whatever the number of inputs).")
    if grown:
        growth = ratios[-1].parameters / ratios[0].parameters
        parts += [
            (f"Networks 64-h-h-10, a batch of {examples}, float32; the fastest of several rounds; "
             "ratio: step ÷ forward; a step is zero_grad, forward, backward and SGD, eager and as "
             "one compiled call; the compiled forward pass keeps nothing for a gradient. All "
             "measured, nothing extrapolated."),
            (f"The parameters grow {three(growth)}-fold, an eager step stays between {low:.1f} and "
             f"{high:.1f} forward passes. {theory} In small networks the bookkeeping per operation "
             "counts, not the arithmetic; in large ones with small batches, reading and writing "
             "the weights.")]
    else:
        parts.append("The fastest of several rounds; ratio: step ÷ forward; a step is zero_grad, "
                     f"forward, backward and SGD. {theory}")
    if all(r.compiled_step is None for r in ratios):
        parts.append("The step was not compiled here, or cannot be.")
    charts = ratio_charts(ratios) if grown else ()
    return Section("C2  what a backward pass costs, by the number of parameters",
                   (*parts, *charts[:1]), charts[1:])


def compiled_ratio(r: Ratio) -> str:
    if r.compiled_forward is None or r.compiled_step is None:
        return "–"
    return f"{r.compiled_step / r.compiled_forward:.2f}"


def ratio_charts(ratios: Sequence[Ratio]) -> tuple[Chart, ...]:
    """Step ÷ forward, and the times themselves."""
    xs = tuple(float(r.parameters) for r in ratios)
    compiled = tuple(None if r.compiled_step is None or r.compiled_forward is None
                     else r.compiled_step / r.compiled_forward for r in ratios)
    return (
        Chart("step ÷ forward pass", "parameters", "step ÷ forward", (
            Curve("eager", xs, tuple(r.step / r.forward for r in ratios)),
            Curve("compiled", xs, compiled)), log_x=True),
        Chart("time of a forward pass and of a step", "parameters", "seconds", (
            Curve("eager forward", xs, tuple(r.forward for r in ratios)),
            Curve("eager step", xs, tuple(r.step for r in ratios)),
            Curve("compiled forward", xs, tuple(r.compiled_forward for r in ratios)),
            Curve("compiled step", xs, tuple(r.compiled_step for r in ratios)),
        ), log_x=True, log_y=True))


def counts_section(c: Applications, chain: Applications, problem: Problem) -> Section:
    """C3."""
    names = sorted({*c.forward, *c.backward}, key=lambda n: (-c.forward[n], n))
    rows = [("primitive", "forward", "backward")]
    rows += [(n, str(c.forward[n]), str(c.backward[n])) for n in names]
    rows.append(("together", str(c.forward.total()), str(c.backward.total())))
    fused = (" The softmax in it is cross-entropy's derivative, which the fused forward evaluation "
             "has no need to keep." if c.backward["softmax"] > c.forward["softmax"] else "")
    return Section("C3  every intermediate computed once", (
        f"{problem.name}, primitives applied in one forward and one backward pass, counted:",
        Table(tuple(rows), (1, 2)),
        (f"{c.repeated} of the {c.backward.total()} backward applications repeat one of the "
         f"forward pass (same primitive, same operands): backward reads what forward kept.{fused}"),
        (f"Where results are shared, computing each once matters more. x is squared "
         f"{chain.forward.total()} times in a row: backpropagation runs {chain.rules} rules, one "
         f"for each use of a result. Following every path from the loss to x on its own would run "
         f"{chain.walked:,} (counted, not run).")))


def steps_section(curves: Sequence[Curves], about: str) -> Section:
    """C7."""
    rows = [("", "best h, one side", "√ε", "error", "both sides", "∛ε", "error")]
    for c in curves:
        one, both = c.best
        rows.append((c.dtype, number(one), number(c.epsilon ** (1 / 2)), number(min(c.one_sided)),
                     number(both), number(c.epsilon ** (1 / 3)), number(min(c.central))))
    rounding = [f"In {c.dtype}, backpropagation itself is off by {number(c.exact)} by the same "
                "measure (held against float64), which no "
                "step reaches." for c in curves if c.exact is not None]
    charts = tuple(steps_chart(c) for c in curves)
    return Section("C7  gradients are exact, differences are not: the error against the step", (
        (f"{about}: the derivative along random directions, median error. h is relative to the "
         "length of all parameters, the error to the largest derivative."),
        Table(tuple(rows), (1, 2, 3, 4, 5, 6)), charts[-1],
        ("To the right the curve of the loss bends within the step, to the left the subtraction "
         "cancels digits: error h + ε/h on one side, h² + ε/h on both, smallest near √ε and ∛ε "
         "(Nocedal & Wright 2006, section 8.1; Press et al. 2007, section 5.7). The places depend "
         "on how much the loss bends, a few times more or less is usual."), *rounding), charts[:-1])


def steps_chart(c: Curves) -> Chart:
    """The V of one dtype."""
    return Chart(f"error of differences, {c.dtype}", "step h, relative", "relative error", (
        Curve("one side", c.steps, c.one_sided), Curve("both sides", c.steps, c.central),
    ), log_x=True, log_y=True, lines=((c.epsilon ** (1 / 2), "√ε"), (c.epsilon ** (1 / 3), "∛ε")))


def threads() -> str:
    """How many threads NumPy was told to use."""
    told = next((os.environ[name] for name in THREADS if name in os.environ), None)
    if told is None:
        return "as many threads as NumPy likes"
    return "one thread" if told == "1" else f"{told} threads"
