"""Rules about what stands in `.grad` when the optimiser reads it: CR1xx."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chainrule.autodiff.reverse import edges_of, reachable
from chainrule.core.node import Node, Origin
from chainrule.doctor.finding import Finding
from chainrule.doctor.graph import Graph
from chainrule.doctor.history import Event, Run, Step
from chainrule.doctor.rule import rule

from .programs import LOOP, MSE, OPTIMIZER, REGRESSION

PARTS = 4             # so many losses of one line: fewer are often two views or two data sets
IN_A_ROW = 12         # sampled steps at which clipping does nothing


@rule("CR101", "gradients are never cleared", after=2,
      example=REGRESSION + OPTIMIZER + MSE + """
for step in range(5):
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def never_cleared(run: Run) -> Iterator[Finding]:
    """`backward()` adds to `.grad`. Without `zero_grad()` every step also repeats all earlier ones.

    Counted, not guessed: the engine knows how many backward passes are in each `.grad`. A loop that
    accumulates on purpose clears between its steps, so that the count falls back; here it grows
    over three steps that moved the parameter. Each parameter by itself, since of two optimisers one
    may be cleared and the other not.
    """
    now: Step | None = None
    grown: dict[str, int] = {}
    for name in run.latest.parameters:
        moved = [step for step in run.sampled(12)
                 if name in step.parameters and step.parameters[name].update][-3:]
        passes = [step.parameters[name].passes for step in moved]
        if len(moved) < 3 or not 0 < passes[0] < passes[1] < passes[2]:
            continue
        # More than this step's own: else it was cleared, and the batch merely grows.
        if passes[2] > sum(e.what == "backward" for e in moved[2].events):
            now, grown[name] = moved[-1], passes[-1]
    if now is None:
        return
    most = max(grown.values())
    backward = now.place("backward")
    yield Finding(
        "CR101", "error",
        f".grad of {len(grown)} parameter{'s' * (len(grown) > 1)} holds at least {most} backward "
        "passes: "
        "it is never cleared.",
        "Each update repeats the gradients of all steps before, at weights they no longer belong "
        "to: the steps grow and the loss swings or explodes.",
        f"optimizer.zero_grad()      # before line {backward.line}",
        backward, subject=next(iter(grown)), evidence={"passes": most, "parameters": len(grown)},
        step=now.number)


@rule("CR102", "gradients are cleared before they are used", after=2,
      example=REGRESSION + OPTIMIZER + MSE + """
for step in range(5):
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def cleared_too_late(run: Run) -> Iterator[Finding]:
    """`zero_grad()` between `backward()` and `step()`: the optimiser finds nothing to do.

    Told by the order of events and by parameters without a gradient when the optimiser reads them.

    Or `zero_grad()` inside the loop that accumulates over parts of a batch: of all backward passes
    of one line before a step, only the last is left. Reported where three or more are lost, or
    where the loss is divided by just so many as there are. Nothing is said if the gradients were
    read in between: then what the optimiser finds is not the last pass's gradient (gradients that
    are combined by hand), or a pass also reached something that is no parameter (an adversarial
    input).
    """
    step = run.latest
    events = [e for e in step.events if e.what in ("backward", "zero_grad", "step")]
    order = [e.what for e in events]
    if order[-3:] != ["backward", "zero_grad", "step"] or not step.parameters:
        yield from _thrown_away(run, events)
        return
    held = [p for p in step.parameters.values()
            if p.gradient is not None and p.gradient.largest > 0]
    if held:
        return
    place = step.place("zero_grad")
    yield Finding(
        "CR102", "error",
        "zero_grad() comes between backward() and step(): no parameter has a gradient when the "
        "optimiser looks.",
        "The weights never change.",
        f"optimizer.zero_grad()      # before backward() in line {step.place('backward').line}, "
        f"not in line {place.line}", place, step=step.number)


def _thrown_away(run: Run, events: list[Event]) -> Iterator[Finding]:
    """Backward passes of one line that are cleared one after the other, all but the last."""
    step, graph = run.latest, run.latest.graph
    if graph is None or [e.what for e in events[-2:]] != ["backward", "step"]:
        return
    backward = events[-2].place
    lost = waiting = 0
    cleared = backward
    for e in events[:-1]:
        if e.what == "zero_grad" and waiting:
            lost, waiting, cleared = lost + waiting, 0, e.place
        elif (e.place.file, e.place.line) == (backward.file, backward.line):
            waiting += e.what == "backward"
    passes, parts = lost + waiting, _divisor(graph)
    if waiting != 1 or not (lost >= 3 or (lost and parts == passes)) or _read(run, graph):
        return
    yield Finding(
        "CR102", "error" if parts == passes else "warning",
        f"{lost} of the {passes} backward passes before each step are thrown away: zero_grad() "
        "stands between them.",
        "The optimiser sees the gradient of the last part alone"
        + (f", divided by {passes}" if parts == passes else "")
        + "; the others were computed for nothing.",
        f"optimizer.zero_grad()      # after optimizer.step() in line {step.place('step').line}, "
        f"not in line {cleared.line}", cleared, evidence={"passes": passes, "lost": lost},
        step=step.number)


def _divisor(graph: Graph) -> float:
    """By what the loss is divided at last; 1 if by nothing."""
    root = graph.root
    if root.name not in ("div", "mul"):
        return 1.0
    given = [x for x, edge in zip(graph.saved[root], root.inputs, strict=False) if edge is None]
    if len(given) != 1 or not isinstance(given[0], (int, float, np.ndarray, np.generic)) \
            or np.size(given[0]) != 1:
        return 1.0
    number = float(np.asarray(given[0]).item())
    return number if root.name == "div" else 1 / number if number else 1.0


def _read(run: Run, graph: Graph) -> bool:
    """Did somebody else use the gradients of earlier passes, as far as can be seen?"""
    names = {id(p): name for name, p in run.parameters()}
    if any(leaf not in names for leaf in run.latest.reached):
        return True
    factors = []
    for leaf in graph.leaves:
        name = names.get(id(leaf.out()) if callable(leaf.out) else 0)
        seen = run.latest.parameters.get(name) if name is not None else None
        if seen is None or leaf not in graph.gradients:
            continue
        norm = float(np.linalg.norm(graph.gradients[leaf]))
        if norm > 0:
            factors.append(0.0 if seen.gradient is None else seen.gradient.norm / norm)
    # Clipping multiplies all by one number; what was put together by hand does not fit.
    return not factors or not max(factors) <= 1.001 * min(factors)


@rule("CR103", "a sum of losses where the mean was meant", after=3,
      example=REGRESSION + OPTIMIZER + MSE + """
for step in range(10):
    optimizer.zero_grad()
    for part in range(4):
        rows = slice(16 * part, 16 * part + 16)
        loss = loss_fn(model(x[rows]), y[rows])
        loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + """
for step in range(10):
    optimizer.zero_grad()
    for part in range(4):
        rows = slice(16 * part, 16 * part + 16)
        loss = loss_fn(model(x[rows]), y[rows]) / 4
        loss.backward()
    optimizer.step()
""")
def accumulated_without_dividing(run: Run) -> Iterator[Finding]:
    """Several backward passes of a mean loss before each step: their gradients add up.

    A mean over n examples, added k times, is k times the mean over k·n examples, so that the
    learning rate acts k times as strongly. Recognised by several backward passes from the same
    line since gradients were cleared, within a step whose losses end in a mean that nothing divides
    afterwards.

    Or the losses are added first: four or more means that one line computed, of parts that have
    nothing in common but the parameters. A loss for each step of a recurrent network shares its
    state with the others, and that of several heads their trunk: such sums may well be meant.
    """
    yield from _summed(run)
    step = run.latest
    lines: list[Origin] = []
    for e in step.events:
        if e.what == "zero_grad":
            lines.clear()
        elif e.what == "backward":
            lines.append(e.place)
    count = len(lines)
    if count > max((p.passes for p in step.parameters.values()), default=0):
        return                                    # of several models, each has its own
    if count < 2 or len({(p.file, p.line) for p in lines}) > 1 or step.graph is None:
        return
    root = step.graph.root
    if "mean" not in root.name:
        return
    yield Finding(
        "CR103", "warning",
        f"{count} backward passes are added before each step, and each loss is a mean by itself.",
        f"The gradient is {count} times that of the whole batch: the learning rate acts "
        f"{count} times as strongly, and changes its meaning with the number of parts.",
        f"(loss / {count}).backward()      # line {lines[-1].line}", lines[-1],
        evidence={"passes": count}, step=step.number)


def _summed(run: Run) -> Iterator[Finding]:
    graph = run.latest.graph
    if graph is None or graph.root.name not in ("add", "sum"):
        return
    lines: dict[tuple[str, str, int], list[tuple[Node, Node]]] = {}
    for term, adder in _terms(graph):
        if "mean" in term.name:
            place = term.origin
            lines.setdefault((term.name, place.file, place.line), []).append((term, adder))
    for found in lines.values():
        count = len(found)
        if count < PARTS or not _apart(graph, [term for term, _ in found]):
            continue
        place = found[-1][1].origin
        yield Finding(
            "CR103", "warning",
            f"the loss is the sum of {count} losses, each of which is a mean by itself.",
            f"The gradient is {count} times that of the whole batch: the learning rate acts "
            f"{count} times as strongly, and changes its meaning with the number of parts.",
            f"(total / {count}).backward()      # the sum of line {place.line}", place,
            evidence={"terms": count}, step=run.latest.number)


def _terms(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """(term, what adds it): the numbers whose sum the loss is."""
    waiting = [graph.root]
    while waiting:
        adder = waiting.pop()
        inner = edges_of(adder)
        if adder.name == "sum":                # of a list that was stacked
            stacked = graph.maker(inner[0])
            if stacked is None or stacked.name not in ("stack", "concatenate"):
                continue
            inner = edges_of(stacked)
        for one in inner:
            term = graph.maker(one)
            if term is None:
                continue
            if term.name == "add" and not term.shape:
                waiting.append(term)
            else:
                yield term, adder


def _apart(graph: Graph, terms: list[Node]) -> bool:
    """Do these terms share their leaves and nothing else, as parts of one batch do?"""
    inner: set[Node] = set()
    leaves: set[Node] | None = None
    weighted = set(graph.named("linear", "matmul", "conv2d"))
    for term in terms:
        below = reachable([term])
        own = {node for node in below if node.prim is not None}
        ends = {node for node in below if node.prim is None}
        if not inner.isdisjoint(own) or (leaves is not None and ends != leaves):
            return False
        # Columns of a larger array are steps of time more often than examples.
        for node in own & weighted:
            for x, edge in zip(graph.saved[node], node.inputs, strict=False):
                if edge is None and type(x) is np.ndarray and not x.flags.c_contiguous:
                    return False
        inner |= own
        leaves = ends
    return bool(leaves)


@rule("CR104", "clipping acts at every step", after=10,
      example=REGRESSION + OPTIMIZER + MSE + """
for step in range(14):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.001)
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + """
for step in range(14):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
""")
def clips_always(run: Run) -> Iterator[Finding]:
    """The norm of the gradient is far above the limit at every step: direction is all that is left.

    Clipping is meant for the rare step that would go too far (Pascanu, Mikolov & Bengio 2013).
    Reported where the norm was more than 10 times the limit in ten sampled steps in a row.
    """
    clips = [e for e in run.latest.events if e.what == "clip"]
    if not clips or not clips[-1].facts["norm"] > 10 * clips[-1].facts["most"] > 0:
        return
    norm, most = clips[-1].facts["norm"], clips[-1].facts["most"]
    yield Finding(
        "CR104", "warning",
        f"clipping to {most:.3g} acts at every step: {_what(clips[-1])} is {norm:.3g}.",
        "Every step has the same length whatever the slope, so the loss neither settles nor does "
        "the learning rate mean what it says.",
        f"nn.utils.{_function(clips[-1])}(parameters, {_round(norm):g})", clips[-1].place,
        evidence={"norm": norm, "limit": most}, step=run.latest.number)


@rule("CR105", "clipping never acts", after=2,
      example=REGRESSION + OPTIMIZER + MSE + """
for step in range(14):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e6)
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + """
for step in range(14):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
""")
def clips_never(run: Run) -> Iterator[Finding]:
    """The limit is more than 1,000 times the gradient's norm, 12 sampled steps in a row.

    That is no protection: a step a hundred times too long would still pass.

    Or clipping stands where there is nothing to clip: before `backward()`, when gradients have
    just been cleared, or behind `step()`, when they have been used. Told by the order of events at
    two sampled steps in a row.
    """
    step = run.latest
    yield from _misplaced(step)
    before = run.sampled(IN_A_ROW - 1)         # `after` adds one
    if len(before) < IN_A_ROW - 1 or not all(map(_far_below, before)):
        return
    clip = _clip(step)
    assert clip is not None
    norm, most = clip.facts["norm"], clip.facts["most"]
    yield Finding(
        "CR105", "info", f"clipping to {most:.3g} never acts: {_what(clip)} is {norm:.3g}.",
        "A step a hundred times too long would still pass it.",
        f"nn.utils.{_function(clip)}(parameters, {_round(10 * norm):g})", clip.place,
        evidence={"norm": norm, "limit": most}, step=step.number)


def _clip(step: Step) -> Event | None:
    return next((e for e in reversed(step.events) if e.what == "clip"), None)


def _far_below(step: Step) -> bool:
    clip = _clip(step)
    return clip is not None and 0 < 1000 * clip.facts["norm"] < clip.facts["most"] < 1e30


def _misplaced(step: Step) -> Iterator[Finding]:
    """Clipping before the only backward passes of the step, and none after them."""
    events = [e for e in step.events if e.what in ("clip", "zero_grad", "backward", "step")]
    order = [e.what for e in events]
    if "clip" not in order or order[-1] != "step":
        return
    at = len(order) - 1 - order[::-1].index("clip")
    if "backward" in order[:at] or "backward" not in order[at:]:
        return
    clip = events[at]
    empty = not clip.facts["norm"]
    if not empty and "zero_grad" not in order[at:order.index("backward")]:
        return
    backward = step.place("backward")
    name = _function(clip)
    yield Finding(
        "CR105", "warning",
        f"{name}() never sees a gradient that is used: it stands "
        + ("before backward(), where there is none yet." if empty else
           "where the optimiser has already used them, and they are cleared next."),
        f"Nothing is clipped: each step is as long as backward() in line {backward.line} makes it.",
        f"nn.utils.{name}(parameters, {clip.facts['most']:g})      # between backward() in line "
        f"{backward.line} and step() in line {step.place('step').line}", clip.place,
        evidence={"limit": clip.facts["most"]}, step=step.number)


def _what(clip: Event) -> str:
    return "its largest element" if "elements" in clip.facts else "the gradient's norm"


def _function(clip: Event) -> str:
    return "clip_grad_value_" if "elements" in clip.facts else "clip_grad_norm_"


def _round(value: float) -> float:
    return float(f"{value:.1g}")
