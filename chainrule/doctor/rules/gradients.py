"""Rules about what stands in `.grad` when the optimiser reads it: CR1xx."""

from __future__ import annotations

from collections.abc import Iterator

from chainrule.core.node import Origin
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import Event, Run, Step
from chainrule.doctor.rule import rule

from .programs import LOOP, MSE, OPTIMIZER, REGRESSION


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
        f".grad of {len(grown)} parameter{'s' * (len(grown) > 1)} holds {most} backward passes: "
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
    """
    step = run.latest
    order = [e.what for e in step.events if e.what in ("backward", "zero_grad", "step")]
    if order[-3:] != ["backward", "zero_grad", "step"] or not step.parameters:
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
    """
    step = run.latest
    lines: list[Origin] = []
    for e in step.events:
        if e.what == "zero_grad":
            lines.clear()
        elif e.what == "backward":
            lines.append(e.place)
    count = len(lines)
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


@rule("CR105", "clipping never acts", after=12,
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
    """
    clips = [e for e in run.latest.events if e.what == "clip"]
    if not clips or not 0 < 1000 * clips[-1].facts["norm"] < clips[-1].facts["most"] < 1e30:
        return
    norm, most = clips[-1].facts["norm"], clips[-1].facts["most"]
    yield Finding(
        "CR105", "info", f"clipping to {most:.3g} never acts: {_what(clips[-1])} is {norm:.3g}.",
        "A step a hundred times too long would still pass it.",
        f"nn.utils.{_function(clips[-1])}(parameters, {_round(10 * norm):g})", clips[-1].place,
        evidence={"norm": norm, "limit": most}, step=run.latest.number)


def _what(clip: Event) -> str:
    return "its largest element" if "elements" in clip.facts else "the gradient's norm"


def _function(clip: Event) -> str:
    return "clip_grad_value_" if "elements" in clip.facts else "clip_grad_norm_"


def _round(value: float) -> float:
    return float(f"{value:.1g}")
