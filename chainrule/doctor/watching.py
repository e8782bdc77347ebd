"""`watch`: listens to a training loop, looks closely at some of its steps, and asks the rules."""

from __future__ import annotations

import math
import time
import warnings
import weakref
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import Any

import numpy as np

from chainrule.core import events
from chainrule.core.bind import state as recording
from chainrule.core.node import Node, Origin, tick, write_record
from chainrule.core.places import filled_at
from chainrule.nn import Module
from chainrule.optim import Optimizer
from chainrule.random import default_generator

from . import rules as every_rule  # noqa: F401  (fills the table)
from .autopsy import remember
from .finding import GRAVITY, Finding
from .graph import Graph
from .history import CutSeen, Event, Numbers, ParameterSeen, Run, Step
from .looking import Dropped, Root, Witnesses, activations, looked_back, masks, modules_of
from .plan import EVERY, RARE, Look, Plan
from .report import Report
from .rule import RULES
from .variables import named

REMEMBERED = ("backward", "zero_grad", "step", "clip", "schedule", "seed")
# What is heard between close looks, and shortly before the next.
HEARD = {"close": events.EVENTS,
         "light": frozenset(("step", "compiled")),
         "counting": frozenset(("step", "compiled", "backward", "accumulated", "zero_grad"))}
PAUSE = 4                 # so many times within a pause a compiled function asks again
LONGEST = 60             # events of one step that are remembered
CUTS = 200                # lines that stop gradients, remembered
SILENCED: set[str] = set()

Array = np.ndarray[Any, Any]


class DoctorWarning(UserWarning):
    """An error-level finding, told when it is found."""


class Watch:
    """What `with cr.doctor.watch(model, optimizer) as seen:` gives: `seen.report`."""

    def __init__(self, models: Iterable[Any], optimizers: Iterable[Any], *, every: int = EVERY,
                 warn: bool = True, silence: Iterable[str] = ()) -> None:
        self.run = Run()
        self.run.models = [("", model) for model in models]
        for optimizer in optimizers:
            self.run.meet(optimizer)
        self.given = bool(self.run.models)      # else they are found
        self.plan = Plan(every)
        self.remembered = True                  # by autopsy(), when it ends
        self.warn = warn
        self.silenced = {*silence, *SILENCED}
        self.found: dict[tuple[Any, ...], Finding] = {}
        self.shown: dict[tuple[Any, ...], int] = {}
        self.began = time.perf_counter()        # the step that is running now
        self.passes: dict[int, list[Any]] = {}  # of a leaf: it, weakly, and the passes in .grad
        self.limit = math.inf                   # a loss beyond it is looked at at once
        self.modes: list[tuple[Any, bool]] = []
        self.witnesses = Witnesses()
        self.known: dict[int, Any] = {}         # weakly, the optimisers that have made a step
        self.unset = False                      # the tape's level: the last step ended in no_grad
        self.several = False                    # backward passes in a step
        self.passed = 0                         # when the last pass was over, on the nodes' clock
        self.compiled = False
        self.skipped = 0                        # compiled steps that nobody was told of
        self.asked = 0.0
        self.before: dict[int, Array] = {}
        self.seen: dict[Node, Any] = {}         # by the backward pass that is running
        self.closed = False
        self.thread: int | None = None          # the one that trains: the first that is heard

    # ------------------------------------------------------------ on and off

    def __enter__(self) -> Watch:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.run.count += max(0, self.skipped - events.quiet)
        self._off()
        if isinstance(error, Exception):
            self.run.error = error
        try:
            if self.run.failure is None and self.run.steps and self.run.latest.events:
                self._close()
            elif self.run.failure is None and self.compiled:
                self._look_last()
            if self.run.failure is None and self.run.error is not None:
                self._ask(stopped=True)
        except DoctorWarning:
            raise
        except Exception as fault:  # noqa: BLE001  (told, and kept in the report)
            self._fail(fault)
        if self.remembered:
            remember(self.report)
        self.closed = True

    def _look_last(self) -> None:
        """Where machine code had the last word: are the weights still numbers?"""
        step = Step(self.run.count, True)
        self.run.steps.append(step)
        self._see_parameters(step)
        self._ask()

    def _off(self) -> None:
        events.ignore(self.listen)
        events.quiet = 0
        if recording.recording:
            recording.recording = 1
        recording.dropped = recording.seen = None

    @property
    def report(self) -> Report:
        """The findings so far, the gravest first."""
        return Report(sorted(self.found.values(), key=lambda f: (GRAVITY[f.severity], f.step)),
                      self.run, silenced={*self.silenced, *SILENCED})

    # ------------------------------------------------------------ steps

    def _open(self) -> None:
        """A new step begins: how closely will it be looked at?"""
        run = self.run
        self.began = time.perf_counter()
        look = self.plan.look(run.count, self.began, self.compiled)
        close = look == "close"
        if not close and run.steps and not run.steps[-1].sampled:
            run.steps[-1].number = run.count      # one stands for all between two close looks
            run.steps[-1].losses.clear()
        else:
            run.steps.append(Step(run.count, close))
        run.count += 1
        self._hear(look)

    def _hear(self, look: Look) -> None:
        wanted = HEARD[look]
        self.unset = not recording.recording      # here; the next pass will be outside of this
        if look == "light" and (self.several or self.unset or not self.run.optimizers):
            wanted = wanted | {"backward"}
        events.listen(self.listen, wanted)
        # On a close step the tape keeps every value, read by rules or not; on others the last
        # pass is kept until the optimiser has made its step. What is off stays off: the optimiser's
        # step may stand in a no_grad() block.
        if recording.recording:
            recording.recording = 2 if look == "close" else 1
        recording.dropped = None if look == "close" or self.compiled else []

    def next(self) -> None:
        """A step without an optimiser is over."""
        self._see_parameters(self.run.latest)
        self._close()
        self._open()

    def _close(self) -> None:
        step, run = self.run.latest, self.run
        if step.losses:
            run.losses.append(step.losses[-1])
            if len(run.losses) == 3:
                self.limit = 1000 * max(map(abs, run.losses)) or math.inf
        if step.sampled:
            self._ask()
            self.plan.looked = time.perf_counter()
            self.plan.cost = self.plan.looked - self.began
            before, self.modes = self.modes, [(weakref.ref(model), model.training)
                                              for _, model in run.models]
            if before and before != self.modes and len(before) == len(self.modes):
                self.plan.rouse()
            run.keep(step)
        step.graph = None
        self.before.clear()

    def _ask(self, stopped: bool = False) -> None:
        """Every rule about the run as it is; what it says so many times in a row is a finding.

        Rules about what stopped a program are asked when it has stopped, and alone.
        """
        seen: set[tuple[Any, ...]] = set()
        for rule in RULES.values():
            if rule.id in self.silenced or rule.id in SILENCED or rule.stops not in (None, stopped):
                continue
            for finding in rule.function(self.run):
                key = finding.key
                seen.add(key)
                self.shown[key] = self.shown.get(key, 0) + 1
                if self.shown[key] >= rule.after and key not in self.found:
                    self.found[key] = finding
                    if self.warn and finding.severity == "error":
                        # At the user's line, and again in another watch.
                        warnings.warn_explicit(
                            f"{finding.rule}: {finding.what}", DoctorWarning,
                            finding.place.file or "<doctor>", finding.place.line, registry={})
        for key in list(self.shown):
            if key not in seen:
                del self.shown[key]

    # ------------------------------------------------------------ what happens

    def listen(self, event: str, facts: dict[str, Any]) -> None:
        me = get_ident()
        if self.thread != me:
            if self.thread is not None:
                return
            if event in ("backward", "step", "compiled"):      # others may be a loader's
                self.thread = me
        try:
            step = self.run.steps[-1]
            if step.sampled:
                with np.errstate(all="ignore"):
                    self._closely(step, event, facts)
            else:
                self._lightly(step, event, facts)
        except DoctorWarning:            # made an error by a filter
            raise
        except Exception as fault:  # noqa: BLE001  (told, and kept in the report)
            self._fail(fault)

    def _fail(self, fault: Exception) -> None:
        """The doctor itself has failed: the user's training goes on without it."""
        self._off()
        self.run.failure = fault
        if self.warn:
            with suppress(DoctorWarning):         # not even where warnings are errors
                warnings.warn(f"the doctor failed and no longer watches; training goes on. Please "
                              f"report this: {fault!r}", DoctorWarning, stacklevel=4)

    def _closely(self, step: Step, event: str, facts: dict[str, Any]) -> None:
        if event == "backward" and self._stepped_by_hand():
            self._on_stepped(step, None)
            self._close()
            self._open()
            step = self.run.latest
            if not step.sampled:
                self._lightly(step, event, facts)
                return
        if event in REMEMBERED:
            # Numbers only: what else is told would be kept alive.
            numbers = {key: float(value) for key, value in facts.items()
                       if isinstance(value, (int, float))}
            step.events.append(Event(event, Origin.now(), numbers))
        handler = getattr(self, f"_on_{event}", None)
        if handler is not None:
            handler(step, **facts)
        if event == "stepped":
            self._close()
            self._open()
        elif event == "accumulated" and len(step.events) >= LONGEST:
            self._close()                         # no optimiser ends it, and memory has one
            self._open()

    def _lightly(self, step: Step, event: str, facts: dict[str, Any]) -> None:
        """Between the steps that are looked at closely: losses, counts, and whether all is well."""
        if event == "step":
            self._pass_by(step, facts["optimizer"])
        elif event == "stepped":
            self._close()
            self._open()
        elif event == "backward":
            self._pass_begins(step, facts)
        elif event == "zero_grad":
            self._forget(facts["owner"])
        elif event == "accumulated":
            self._on_accumulated(step, **facts)
        elif event == "compiled":
            self._on_compiled(step, **facts)

    def _pass_by(self, step: Step, optimizer: Optimizer) -> None:
        """The only look at an ordinary step: before the optimiser writes, while what the backward
        pass has dropped is still there.
        """
        run, plan = self.run, self.plan
        if id(optimizer) not in self.known:
            self._meet(optimizer)
        dropped = recording.dropped
        if dropped:
            recording.dropped = []
            roots, tensors, _ = dropped[0]
            if tensors:
                run.roots.append(weakref.ref(roots[0][0]))
                value = tensors[0]._value
                loss = value.item() if value.size == 1 else float(value.sum())
                step.losses.append(loss)
                if not -self.limit < loss < self.limit or self.witnesses.lost(optimizer):
                    self._look_back(dropped, optimizer)
                    if run.steps[-1].sampled:     # it will be closed as such
                        return
        for ref, mode in self.modes:
            model = ref()
            if model is not None and model.training is not mode:
                plan.rouse()
                plan.wake = 0
        if run.count < plan.wake:                 # nothing changes: the next step, in short
            if step.losses:
                run.losses.append(step.losses[-1])
                step.losses.clear()
            step.number = run.count
            run.count += 1
        elif not run.steps[-1].sampled:
            events.listen(self.listen, HEARD[plan.now] | {"stepped"})

    def _pass_begins(self, step: Step, facts: dict[str, Any]) -> None:
        """Heard while passes are counted, where there are several in a step, or no optimiser."""
        if self.unset and recording.recording:
            self._hear(self.plan.now)
        if self.plan.now == "counting":
            self._count_cleared()
        if self._stepped_by_hand():
            self._close()
            self._open()
            if self.run.latest.sampled:
                self._closely(self.run.latest, "backward", facts)
                return
            step = self.run.latest
        dropped = recording.dropped
        if dropped:                               # of another pass within this step
            recording.dropped = []
            for optimizer in self.run.optimizers:
                if self.witnesses.lost(optimizer):
                    self._look_back(dropped, None)
                    break
        if not self.run.optimizers:
            value = facts["tensors"][0]._value
            loss = value.item() if value.size == 1 else float(value.sum())
            step.losses.append(loss)
            if not -self.limit < loss < self.limit and self.plan.rouse():
                step.losses.pop()
                self._closely(self._promote(), "backward", facts)

    def _promote(self) -> Step:
        """The step that is running becomes one that is looked at closely."""
        step = Step(self.run.latest.number, True, losses=list(self.run.latest.losses))
        self.run.steps.append(step)
        self.plan.now = "close"
        self._hear("close")
        return step

    def _look_back(self, dropped: Dropped, optimizer: Optimizer | None) -> None:
        """The loss or a gradient is no number, or the loss has exploded: the graph of the pass that
        is over, which was kept until now, is looked at after all.
        """
        if not self.plan.rouse():
            return
        graph = looked_back(dropped)
        if graph is None:
            return
        step = self._promote()
        step.graph = graph
        if optimizer is None:                     # another pass of this step has begun
            step.losses += [float(np.sum(y._value)) for y in dropped[0][1]]
            self._see_parameters(step)
            self._ask()
        else:
            step.events.append(Event("step", Origin.now()))
            self._on_step(step, optimizer)

    def _stepped_by_hand(self) -> bool:
        """Without an optimiser a step is over when a parameter was written since the last pass."""
        if self.run.optimizers or not self.passes:
            return False
        leaf = next(iter(self.passes.values()))[0]()
        over = leaf is not None and write_record(leaf._value).seq > self.passed
        self.passed = tick()
        return over

    def _count_cleared(self, closely: bool = False) -> None:
        """Gradients that were set to None, by whatever way, hold no pass any more; nor do those
        that were set to 0, which is looked up only where numbers are looked at anyway.
        """
        for known in self.passes.values():
            leaf = known[0]()
            grad = None if leaf is None else leaf._grad
            if grad is None or (closely and not np.any(grad._value)):
                known[1] = 0

    def _on_backward(self, step: Step, tensors: list[Any], roots: list[Root],
                     partial: bool = False) -> None:
        self.run.partial = self.run.partial or partial
        if step.graph is not None and not step.graph.sound:      # of another pass in this step
            self._see_parameters(step)
            self._ask()
        self.several = self.several or bool(step.losses)
        self._count_cleared(closely=True)
        step.losses.append(float(sum(np.sum(y._value) for y in tensors)))
        self.run.roots.append(weakref.ref(roots[0][0]))
        # The gradients are those of the user's own pass: another one would run hooks twice.
        recording.seen = self.seen = {}
        step.graph = Graph(roots, {})
        if not self.given:
            self.run.models = modules_of(step.graph, self.run.models)
        if not self.run.optimizers:
            self._meet_bare(step.graph)
        step.drawn = tuple(masks(step.graph))

    def _meet_bare(self, graph: Graph) -> None:
        """Leaves that no model and no optimiser knows: what is learned by hand."""
        run = self.run
        known = {id(p) for _, p in run.parameters()}
        for leaf in graph.leaves:
            tensor = leaf.out() if callable(leaf.out) else None
            if tensor is not None and id(tensor) not in known:
                name = named(tensor)[0] or f"leaf{len(run.bare)}"
                run.bare[id(tensor)] = name, weakref.ref(tensor)

    def _on_accumulated(self, step: Step, leaves: list[Any]) -> None:
        if step.sampled and step.graph is not None and self.seen:
            step.graph.went_by(self.seen)
            self.seen = {}
            step.activations = list(activations(step.graph))
        passes = self.passes
        for p in leaves:
            known = passes.get(id(p))
            if known is None:
                key = id(p)
                passes[key] = [weakref.ref(p, partial(self._gone, key)), 1]
                self.run.reached.add(key)
                self.run.writes[key] = write_record(p._value).count
            else:
                known[1] += 1
        self.passed = tick()
        if step.sampled:
            step.reached.update(map(id, leaves))
        if step.sampled and not self.run.optimizers:     # weights may be moved by hand
            self._see_parameters(step)

    def _gone(self, key: int, _: Any) -> None:
        """A leaf is no more; another one may get its place in memory."""
        run = self.run
        run.reached.discard(key)
        for known in (self.passes, self.before, run.filled, run.unrecorded, run.bare):
            known.pop(key, None)

    def _on_compiled(self, step: Step, steps: int) -> None:
        """Machine code has done steps, of which nothing was seen. How long until the next look?"""
        skipped, self.skipped = self.skipped - max(events.quiet, 0), 0
        self.run.count += (skipped + 1) * steps - 1
        step.number = self.run.count
        self.passes.clear()
        now = time.perf_counter()
        each = (now - self.asked) / (skipped + 1) if self.compiled else 1.0
        self.compiled, self.asked = True, now
        self._open()
        if not self.run.latest.sampled:
            pause = self.plan.looked + self.plan.cost / RARE - now
            self.skipped = events.quiet = max(0, min(10_000, int(pause / PAUSE / max(each, 1e-7))))

    def _on_cut(self, step: Step, what: str, node: Node | None) -> None:
        if node is None or len(self.run.cuts) >= CUTS:
            return
        leaves = [leaf.out() for leaf in Graph([(node, None)]).leaves if callable(leaf.out)]
        self.run.cuts.append(CutSeen(what, Origin.now(), frozenset(map(id, leaves)), node.name,
                                     step.number))

    def _on_unrecorded(self, step: Step, module: Module) -> None:
        place = Origin.now()
        for p in module.parameters():
            self.run.unrecorded.setdefault(id(p), place)

    def _on_zero_grad(self, step: Step, owner: Any) -> None:
        if isinstance(owner, Optimizer) and id(owner) not in self.known:
            self.run.idle.setdefault(id(owner), [owner, 0])[1] += 1
        self._forget(owner)

    def _forget(self, owner: Any) -> None:
        """The parameters of an optimiser or module have been cleared."""
        parameters = (p for group in owner.param_groups for p in group["params"]) if isinstance(
            owner, Optimizer) else owner.parameters()
        for p in parameters:
            known = self.passes.get(id(p))
            if known is not None:
                known[1] = 0

    def _on_schedule(self, step: Step, scheduler: Any) -> None:
        self.run.schedulers[scheduler.optimizer] = scheduler

    def _meet(self, optimizer: Optimizer) -> None:
        """A new optimiser begins another training: its first steps are looked at closely."""
        key = id(optimizer)
        self.run.idle.pop(key, None)
        self.known[key] = weakref.ref(optimizer, partial(self._given_up, key))
        self.run.phase = len(self.run.losses)
        self.run.meet(optimizer)
        if self.plan.now != "close":
            self.plan.rouse()
            self.plan.wake = 0

    def _given_up(self, key: int, _: Any) -> None:
        self.known.pop(key, None)
        self.witnesses.chosen.pop(key, None)

    def _on_step(self, step: Step, optimizer: Optimizer) -> None:
        if id(optimizer) not in self.known:
            self._meet(optimizer)
        step.optimizer = weakref.ref(optimizer)
        step.random = default_generator.drawn
        step.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._see_parameters(step)

    def _see_parameters(self, step: Step) -> None:
        held = {id(p) for one in self.run.optimizers for group in one.param_groups
                for p in group["params"]}
        for name, p in self.run.parameters():
            if id(p) not in self.run.filled:
                self.run.filled[id(p)] = filled_at(p._value)
            gradient = None if p.grad is None else Numbers.of(p.grad._value)
            count = self.passes.get(id(p), (p, 0))[1] if p.grad is not None else 0
            step.parameters[name] = ParameterSeen(
                name, Numbers.of(p._value), gradient, count, None, p.ndim,
                id(p) in held or not self.run.optimizers)
            self.before[id(p)] = np.array(p._value)

    def _on_stepped(self, step: Step, optimizer: Optimizer | None) -> None:
        for name, p in self.run.parameters():
            old = self.before.get(id(p))
            if old is not None and name in step.parameters:
                moved = np.subtract(p._value, old, dtype=np.float64)
                step.parameters[name].update = float(np.sqrt(np.sum(moved * moved)))


def watch(*what: Any, every: int = EVERY, warn: bool = True,
          silence: Iterable[str] = ()) -> Watch:
    """Watches a training loop while the `with` block runs.

    what     the model and the optimiser, in any order, several if there are; both are found by
             themselves when left out
    every    after the first steps, one in so many is looked at closely
    warn     tell an error-level finding at once, as a `DoctorWarning`
    silence  ids of rules not to apply

    >>> import chainrule as cr
    >>> model = cr.nn.Linear(2, 1)
    >>> optimizer = cr.optim.SGD(model.parameters(), lr=0.1)
    >>> with cr.doctor.watch(model, optimizer) as seen:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         model(cr.ones(4, 2)).pow(2).mean().backward()
    ...         optimizer.step()
    >>> seen.report.ok
    True
    """
    silence = [silence] if isinstance(silence, str) else list(silence)
    models, optimizers = [], []
    for one in what:
        if isinstance(one, Module):
            models.append(one)
        elif isinstance(one, Optimizer):
            optimizers.append(one)
        else:
            raise TypeError(f"watch() takes modules and optimisers, not {type(one).__name__}")
    unknown = [name for name in silence if name not in RULES]
    if unknown:
        raise ValueError(f"silence={unknown!r}: there are no such rules; cr.doctor.rules() lists "
                         "them")
    if not hasattr(every, "__index__") or every < 1:
        raise ValueError(f"every={every!r}: one step in so many is looked at closely, so it must "
                         "be a whole number of at least 1")
    return Watch(models, optimizers, every=every, warn=warn, silence=silence)
