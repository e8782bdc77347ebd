"""`treat`: the cure for a finding tried on a copy, and measured against the untreated copy."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from chainrule import random
from chainrule.core import events
from chainrule.core.errors import ChainruleError, SettingError
from chainrule.nn import Module
from chainrule.optim import SGD, Optimizer

from .cures import CURES, FAR, SEARCHED, TAMING, Cure, Patient
from .finding import Finding
from .keeping import kept, reached
from .plan import Plan
from .watching import Watch

STEPS = 200
RATE = 0.01               # of plain gradient descent, where no optimiser is given
FACTORS = (1e-2, 0.1, 0.3, 3.0, 10.0)                 # on the learning rate, searched
WIDE = (1e-3, 1e-2, 0.1, 0.3, 3.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)      # where it may be far off
BETTER = 0.9              # a treated copy ends below this share of what the untreated one reached
STILL = 4                 # steps with a learning rate of 0, to see what is wrong before the first
CONSEQUENCES = frozenset(("CR501", "CR504"))      # an explosion has a cause, perhaps one to be seen
STANDING = frozenset(("CR207", "CR208"))          # what such a copy has by being held still
LAST = 0.05               # share of the losses whose median is the loss at the end


@dataclass(frozen=True)
class Course:
    """How one copy fared: `what` was done to it, its losses, and what the rules said.

    gradient   norm of the gradient at the first weight, at the first step; None if it had none
    found      the ids of the rules that found something
    stopped    the error that ended it, '' if none did
    rate       the largest learning rate
    """

    what: str
    losses: tuple[float, ...]
    weight: str
    gradient: float | None
    found: frozenset[str]
    stopped: str
    rate: float

    @property
    def end(self) -> float:
        """The median of the last losses, ∞ where they are no numbers or the copy stopped early."""
        if not self.losses or self.stopped:
            return math.inf
        last = self.losses[-max(1, round(LAST * len(self.losses))):]
        return float(np.median(last)) if np.isfinite(last).all() else math.inf


@dataclass(frozen=True)
class Treatment:
    """A finding, the untreated copy, and the copies on which cures were tried, in that order.

    `helped`: the last of them ends with a clearly lower loss than the untreated one (below 0.9 of
    it, and below where it began). A cure that helps but leaves the finding standing does not end
    the search. `str()` is the text.
    """

    finding: Finding | None
    untreated: Course
    tried: tuple[Course, ...]
    controls: tuple[Course, ...]
    helped: bool
    why: str = ""

    @property
    def best(self) -> Course | None:
        """The copy that helped; else the one with the lowest loss at the end."""
        if self.helped:
            return self.tried[-1]
        return min(self.tried, key=lambda course: course.end, default=None)

    def _enough(self, course: Course) -> bool:
        return course.end < BETTER * self.untreated.end

    @property
    def control(self) -> Course:
        """What the best copy is compared with: untreated, with a searched rate if it has one."""
        return self.controls[-1] if self.helped else self.untreated

    def __str__(self) -> str:
        f, best = self.finding, self.best
        if f is None:
            return (f"nothing to treat: {self.why}; loss {_number(_first(self.untreated))} → "
                    f"{_number(self.untreated.end)} in {len(self.untreated.losses)} steps")
        head = f"{f.rule} {f.severity}: {f.what}"
        if best is None:
            return f"{head}\n  not treated: {self.why}"
        word = "best tried" if not self.helped else (
            "helped by" if f.rule in best.found else "cured by")
        lines = [head, f"  {word}: {best.what}"]
        before = self.control
        rows = [(f"gradient at {best.weight}, first step", _gradient(before), _gradient(best)),
                (f"loss after {max(len(best.losses), len(before.losses))} steps",
                 _outcome(before), _outcome(best)),
                (f.rule, *["found" if f.rule in c.found else "not found" for c in (before, best)])]
        wide = max(len(row[0]) for row in rows)
        lines += [f"    {name:<{wide}}  {was} → {now}" for name, was, now in rows]
        if before is not self.untreated:
            lines.append(f"    both with a searched learning rate: {before.rate:g} → "
                         f"{best.rate:g}; without, the loss ended at {_outcome(self.untreated)}")
        lines += [f"  tried before: {c.what}: loss {_outcome(c)}, " + (
            f"{f.rule} still found" if self._enough(c) else "not enough")
                  for c in self.tried if c is not best and self.helped]
        if not self.helped:
            lines.append("  It did not help: " + (self.why or "no cure that can be tried by itself "
                         "brought the loss clearly below that of the untreated copy."))
            lines += [f"  tried: {c.what}: loss {_outcome(c)}" for c in self.tried
                      if c is not best]
        return "\n".join(lines)

    __repr__ = __str__


def _first(course: Course) -> float:
    return course.losses[0] if course.losses else math.nan


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"


def _outcome(course: Course) -> str:
    return f"stopped by {course.stopped}" if course.stopped else _number(course.end)


def _gradient(course: Course) -> str:
    return "none" if course.gradient is None else _number(course.gradient)


def treat(what: Module | Callable[..., Any], batch: Any, *, loss: Callable[..., Any] | None = None,
          optimizer: Optimizer | None = None, finding: Finding | None = None,
          steps: int = STEPS, seed: int = 0) -> Treatment:
    """Tries the cure for the leading finding on a copy and says what it did, in numbers.

    what       a module, which is copied and trained on one batch; or a function that does one
               training step, step(*batch), whose modules and optimisers are put back afterwards
    batch      (x, ..., target) for a module: loss(module(x, ...), target)
    optimizer  of the module, copied with it; plain gradient descent with lr=0.01 if left out
    finding    which one to treat, from any report; left out, the gravest that has a cure
    steps      how long each copy is trained, from the same seed, untreated and treated

    Where the cure alone does not help, it is tried once more with a learning rate found by a short
    search, and then compared with an untreated copy whose rate was searched too. Nothing of yours
    changes.

    >>> import chainrule as cr
    >>> _ = cr.manual_seed(0)
    >>> layers = [layer for _ in range(8) for layer in (cr.nn.Linear(8, 8), cr.nn.Sigmoid())]
    >>> model = cr.nn.Sequential(*layers, cr.nn.Linear(8, 1))
    >>> x = cr.randn(32, 8)
    >>> done = cr.doctor.treat(model, (x, x[:, :1]), loss=cr.nn.MSELoss(),
    ...                        optimizer=cr.optim.SGD(model.parameters(), lr=0.1))
    >>> done.finding.rule, done.helped
    ('CR601', True)
    """
    if not isinstance(batch, tuple | list):
        batch = (batch,)
    others: list[Any] = []
    if isinstance(what, Module):
        if loss is None or len(batch) < 2:
            raise SettingError("treat(model, batch, loss=...): with a module it needs the loss, "
                               "and a batch (x, ..., target)")
        models = [what]
        optimizers = [] if optimizer is None else [optimizer]
        own = {id(p) for p in what.parameters()}
        if optimizer is not None and not any(
                id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise SettingError("treat(..., optimizer=...): this optimiser holds no parameter of "
                               "the model: make it with model.parameters()")
        prepare = partial(_copied, what, tuple(batch), loss, optimizer)
    else:
        if loss is not None or optimizer is not None:
            raise TypeError("treat(step, batch): the step has its own loss and optimiser")
        models, optimizers, others = reached(what)
        prepare = partial(_own, what, tuple(batch), models, optimizers)
    if steps < 1:
        raise SettingError(f"treat(steps={steps}): must be at least 1")
    with _alone(models, optimizers, others):
        return _Trial(prepare, (models, optimizers), steps, seed, others).treated(finding)


@contextmanager
def _alone(models: list[Module], optimizers: list[Optimizer], others: list[Any]
           ) -> Iterator[None]:
    """Nobody else listens, and what is the user's stays as it was."""
    generator = random.get_rng_state()
    try:
        with (events.silence(), kept(models, optimizers, others), warnings.catch_warnings(),
              np.errstate(all="ignore")):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.set_rng_state(generator)


def _copied(model: Module, batch: tuple[Any, ...], loss: Callable[..., Any],
            optimizer: Optimizer | None) -> Patient:
    """A patient of its own memory. A loss that holds the model, or parts of it, gets the copies."""
    model, optimizer, loss, batch = copy.deepcopy((model, optimizer, loss, batch))
    if optimizer is None:
        optimizer = SGD(model.parameters(), lr=RATE)

    def step(patient: Patient) -> None:
        patient.optimizers[0].zero_grad()
        assert patient.loss is not None
        patient.loss(patient.models[0](*patient.inputs), patient.target).backward()
        patient.optimizers[0].step()

    return Patient([model], [optimizer], step, inputs=batch[:-1], target=batch[-1], loss=loss)


def _own(step: Callable[..., Any], batch: tuple[Any, ...], models: list[Module],
         optimizers: list[Optimizer]) -> Patient:
    return Patient(models, optimizers, lambda _: step(*batch), own=True)


@dataclass
class _Trial:
    """Runs copies. `own` are the user's objects, put back after each run."""

    prepare: Callable[[], Patient]
    own: tuple[list[Module], list[Optimizer]]
    steps: int
    seed: int
    others: list[Any]

    def run(self, cure: Cure | None, finding: Finding | None, steps: int, factor: float = 1.0,
            closely: bool = True) -> tuple[Course, Watch] | None:
        """One copy from the same seed; None if the cure cannot be applied to it. Not `closely`:
        for its losses alone, and no further than to the first that is no number.
        """
        with kept(*self.own, self.others), ExitStack() as stack:
            random.manual_seed(self.seed)
            patient = self.prepare()
            for optimizer in patient.optimizers:
                optimizer.zero_grad()
            words: str | None = "untreated"
            if cure is not None and finding is not None:
                words = cure(patient, finding)
            if words is None:
                return None
            if factor != 1.0 or cure in SEARCHED:
                patient.scale_rates(factor)
                words = f"lr={patient.rate:g}" if cure in SEARCHED else (
                    f"{words}, and lr={patient.rate:g}")
            rate = patient.rate
            random.manual_seed(self.seed)
            for context in patient.contexts:
                stack.enter_context(context())
            watching = Watch(patient.models, patient.optimizers, every=max(1, steps // 4),
                             warn=False)
            watching.remembered = False
            if not closely:
                watching.plan = Plan(sys.maxsize, first=0, soon=sys.maxsize, left=0)
            first = None
            with watching:
                for _ in range(steps):
                    try:
                        for call in patient.before:
                            call()
                        patient.step(patient)
                    except (ChainruleError, FloatingPointError) as error:
                        watching.run.error = error
                        break
                    if not closely and not math.isfinite(sum(watching.run.losses[-1:])):
                        break
                    if first is None:
                        first = dict(watching.run.steps[0].parameters)
            weight, gradient = _at_the_first_weight(first or {})
            stopped = watching.run.error
            return Course(words, tuple(watching.run.losses), weight, gradient,
                          frozenset(f.rule for f in watching.report.findings),
                          type(stopped).__name__ if stopped is not None else "", rate), watching

    def searched(self, cure: Cure | None, finding: Finding, far: bool) -> Course | None:
        """The copy with the learning rate that is best after a fifth of the steps."""
        short = max(20, self.steps // 5)
        ends: list[tuple[float, float]] = []
        for factor in WIDE if far else FACTORS:
            done = self.run(cure, finding, short, factor, closely=False)
            if done is not None and math.isfinite(done[0].end):
                ends.append((done[0].end, factor))
        for _, factor in sorted(ends)[:2]:      # what is best at first may explode later
            done = self.run(cure, finding, self.steps, factor)
            if done is not None and math.isfinite(done[0].end):
                return done[0]
        return None

    def treated(self, finding: Finding | None) -> Treatment:
        done = self.run(None, None, self.steps)
        assert done is not None
        untreated, watching = done
        if finding is None:
            found = watching.report.findings
            finding = next((f for f in found if f.rule in CURES), None)
            if finding is not None and finding.rule in CONSEQUENCES:
                earlier = self.cause()
                if earlier is not None:
                    finding = earlier
                    untreated = replace(untreated, found=untreated.found | {earlier.rule})
            if finding is None:
                why = (f"{found[0].rule} has no cure that can be tried by itself" if found
                       else "nothing was found")
                return Treatment(found[0] if found else None, untreated, (), (), False, why)
        elif finding.rule not in untreated.found:
            return Treatment(finding, untreated, (), (), False,
                             "the untreated copy does not show it; where it lies in the loop, "
                             "give treat() a function that does one step of yours")
        if finding.rule not in CURES:
            return Treatment(finding, untreated, (), (), False,
                             f"{finding.rule} has no cure that can be tried by itself")
        tried: list[Course] = []
        helped: list[tuple[Course, Course]] = []       # a cure, and what it is compared with
        control: Course | None = None
        tamed = False
        for cure in CURES[finding.rule]:
            if helped and (finding.rule not in helped[-1][0].found or tamed):
                break                          # nothing is left to cure
            tamed = cure in TAMING
            done = None if cure in SEARCHED else self.run(cure, finding, self.steps)
            if done is None and cure not in SEARCHED:
                continue                       # it does not fit this model
            if done is not None:
                tried.append(done[0])
                if self.better(done[0], untreated):
                    helped.append((done[0], untreated))
                    continue
                if control is None:
                    control = self.searched(None, finding, cure in FAR)
                    if control is None or control.end > untreated.end:
                        control = untreated
            course = self.searched(cure, finding, cure in FAR)
            if course is not None:
                tried.append(course)
                than = untreated if control is None or cure in SEARCHED else control
                if self.better(course, than):
                    helped.append((course, than))
        if helped:
            # One that leaves nothing to be found, else the one that helped most.
            best, than = min(helped, key=lambda pair: (finding.rule in pair[0].found, pair[0].end))
            others = (course for course in tried if course is not best)
            return Treatment(finding, untreated, (*others, best), (than,), True)
        why = "" if tried else "its cures do not fit this model"
        if control is not None and control.end < BETTER * untreated.end:
            why = (f"the untreated copy itself ends at {_number(control.end)} with "
                   f"lr={control.rate:g}, and no cure did better than that.")
        return Treatment(finding, untreated, tuple(tried), (), False, why)

    def cause(self) -> Finding | None:
        """What a copy whose weights stand still shows, where that is more than a consequence."""
        done = self.run(None, None, STILL, 0.0)
        found = [] if done is None else done[1].report.findings
        if any(f.rule in CONSEQUENCES for f in found):
            return None
        return next((f for f in found if f.rule in CURES and f.rule not in STANDING), None)

    @staticmethod
    def better(course: Course, than: Course) -> bool:
        """A lower loss, clearly, that has fallen; or one that is a number where there was none."""
        if not math.isfinite(course.end) or not course.losses:
            return False
        fallen = course.end < _first(course) or not math.isfinite(_first(course))
        bound = BETTER * than.end if than.end > 0 else than.end - (1 - BETTER) * abs(than.end)
        return fallen and course.end < bound


def _at_the_first_weight(seen: dict[str, Any]) -> tuple[str, float | None]:
    for name, p in seen.items():
        if p.ndim > 1:
            return name, None if p.gradient is None else p.gradient.norm
    return "the first weight", None
