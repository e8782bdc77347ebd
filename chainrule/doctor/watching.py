"""`watch`: listens to a training loop, looks closely at some of its steps, and asks the rules."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Iterable
from hashlib import blake2b
from types import TracebackType
from typing import Any

import numpy as np

from chainrule.core import events
from chainrule.core.bind import state as recording
from chainrule.core.errors import ChainruleError
from chainrule.core.node import Node, Origin
from chainrule.nn import Module
from chainrule.optim import Optimizer

from . import rules as every_rule  # noqa: F401  (fills the table)
from .autopsy import remember
from .finding import GRAVITY, Finding
from .graph import Graph
from .history import ActivationSeen, CutSeen, Event, Numbers, ParameterSeen, Run, Step
from .report import Report
from .rule import RULES

FIRST = 12                # so many steps are looked at closely: most faults show at once
EVERY = 50                # then one in so many
EARLY = 400              # from here on only if it takes no more than a share of the time:
SHARE_EAGER = 0.02
SHARE = 0.01              # for compiled steps, which are looked at by running their Python
PAUSE = 4                 # so many times within that pause a compiled function asks again
EVENTS = ("backward", "zero_grad", "step", "clip", "schedule")
CUTS = 200                # lines that stop gradients, remembered
FLAT_SLOPE = 0.06         # the slope of tanh where it is 0.97 (Karpathy, makemore 3)
SILENCED: set[str] = set()

Array = np.ndarray[Any, Any]


class DoctorWarning(UserWarning):
    """An error-level finding, told when it is found."""


class Watch:
    """What `with cr.doctor.watch(model, optimizer) as seen:` gives: `seen.report`."""

    def __init__(self, models: Iterable[Any], optimizers: Iterable[Any], *, every: int = EVERY,
                 warn: bool = True, silence: Iterable[str] = ()) -> None:
        self.run = Run([("", model) for model in models], list(optimizers))
        self.first = FIRST
        self.every = every
        self.remembered = True                  # by autopsy(), when it ends
        self.warn = warn
        self.silenced = {*silence, *SILENCED}
        self.found: dict[tuple[Any, ...], Finding] = {}
        self.shown: dict[tuple[Any, ...], int] = {}
        self.compiled = False
        self.began = time.perf_counter()        # the step that is running now
        self.cost = 0.0                         # of the last step that was looked at closely
        self.looked = 0.0                       # when that was
        self.passes: dict[int, list[Any]] = {}  # of each leaf: itself, backward passes in .grad
        self.skipped = 0                        # compiled steps that nobody was told of
        self.asked = 0.0
        self.before: dict[int, Array] = {}
        self.closed = False
        self._mode = 1

    # ------------------------------------------------------------ on and off

    def __enter__(self) -> Watch:
        self._mode = recording.recording
        self._open()
        events.listen(self.listen)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        events.ignore(self.listen)
        self.run.count += max(0, self.skipped - events.quiet)
        events.quiet = 0
        recording.recording = self._mode
        if isinstance(error, Exception):
            self.run.error = error
        if self.run.steps and self.run.latest.events:
            self._close()
        if self.run.error is not None:
            self._ask(stopped=True)
        if self.remembered:
            remember(self.report)
        self.closed = True

    @property
    def report(self) -> Report:
        """The findings so far, the gravest first."""
        return Report(sorted(self.found.values(), key=lambda f: (GRAVITY[f.severity], f.step)),
                      self.run)

    # ------------------------------------------------------------ steps

    def _open(self) -> None:
        """A new step begins: will it be looked at closely?"""
        run = self.run
        self.began = time.perf_counter()
        since = self.began - self.looked
        if self.compiled:
            close = since > self.cost / SHARE
        else:
            close = run.count < self.first or (run.count % self.every == 0 and (
                run.count < EARLY or since > self.cost / SHARE_EAGER))
        if not close and run.steps and not run.steps[-1].sampled:
            run.steps[-1].number = run.count      # one stands for all between two close looks
            run.steps[-1].losses.clear()
        else:
            run.steps.append(Step(run.count, close))
        run.count += 1
        # On such a step the tape keeps every value, read by rules or not.
        if self._mode:
            recording.recording = 2 if close else 1

    def next(self) -> None:
        """A step without an optimiser is over."""
        self._see_parameters(self.run.latest)
        self._close()
        self._open()

    def _close(self) -> None:
        step = self.run.latest
        if step.losses:
            self.run.losses.append(step.losses[-1])
        if step.sampled:
            self._ask()
            self.looked = time.perf_counter()
            self.cost = self.looked - self.began
            self.run.keep(step)
        step.graph = None
        self.before.clear()

    def _ask(self, stopped: bool = False) -> None:
        """Every rule about the run as it is; what it says so many times in a row is a finding.

        Rules about what stopped a program are asked when it has stopped, and alone.
        """
        seen: set[tuple[Any, ...]] = set()
        for rule in RULES.values():
            if rule.id in self.silenced or rule.stops is not stopped:
                continue
            for finding in rule.function(self.run):
                key = finding.key
                seen.add(key)
                self.shown[key] = self.shown.get(key, 0) + 1
                if self.shown[key] >= rule.after and key not in self.found:
                    self.found[key] = finding
                    if self.warn and finding.severity == "error":
                        warnings.warn(f"{finding.rule}: {finding.what}", DoctorWarning,
                                      stacklevel=2)
        for key in list(self.shown):
            if key not in seen:
                del self.shown[key]

    # ------------------------------------------------------------ what happens

    def listen(self, event: str, facts: dict[str, Any]) -> None:
        step = self.run.latest
        if not step.sampled:
            self._lightly(step, event, facts)
            return
        if event in EVENTS:
            # Numbers only: what else is told would be kept alive.
            numbers = {key: value for key, value in facts.items() if isinstance(value, float)}
            step.events.append(Event(event, Origin.now(), numbers))
        handler = getattr(self, f"_on_{event}", None)
        if handler is not None:
            handler(step, **facts)
        if event == "stepped":
            self._close()
            self._open()

    def _lightly(self, step: Step, event: str, facts: dict[str, Any]) -> None:
        """Between the steps that are looked at closely: losses and counts alone."""
        if event == "accumulated":
            self._on_accumulated(step, **facts)
        elif event == "backward":
            self._count_cleared()
            step.losses.append(float(facts["tensors"][0]._value.sum()))
            self.run.roots.append(weakref.ref(facts["roots"][0][0]))
        elif event == "zero_grad":
            self._on_zero_grad(step, **facts)
        elif event == "stepped":
            self._close()
            self._open()
        elif event == "compiled":
            self._on_compiled(step, **facts)

    def _count_cleared(self, closely: bool = False) -> None:
        """Gradients that were set to None, by whatever way, hold no pass any more; nor do those
        that were set to 0, which is looked up only where numbers are looked at anyway.
        """
        for known in self.passes.values():
            grad = known[0]._grad
            if grad is None or (closely and not np.any(grad._value)):
                known[1] = 0

    def _on_backward(self, step: Step, tensors: list[Any], roots: list[tuple[Node, Any]]) -> None:
        self._meet_modules(roots)
        self._count_cleared(closely=True)
        step.losses.append(float(sum(np.sum(y._value) for y in tensors)))
        self.run.roots.append(weakref.ref(roots[0][0]))
        step.graph = Graph(roots)
        try:
            _ = step.graph.gradients          # now, while the rules can still read
        except ChainruleError:                # the pass itself will say so
            step.graph = None
            return
        step.activations = list(self._activations(step.graph))
        step.drawn = tuple(_masks(step.graph))

    def _on_accumulated(self, step: Step, leaves: list[Any]) -> None:
        passes = self.passes
        for p in leaves:
            known = passes.get(id(p))
            if known is None:
                passes[id(p)] = [p, 1]
                self.run.reached.add(id(p))
            else:
                known[1] += 1

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
            pause = self.looked + self.cost / SHARE - now
            self.skipped = events.quiet = max(0, min(10_000, int(pause / PAUSE / max(each, 1e-7))))

    def _on_cut(self, step: Step, what: str, node: Node | None) -> None:
        if node is None or len(self.run.cuts) >= CUTS:
            return
        leaves = [leaf.out() for leaf in Graph([(node, None)]).leaves if callable(leaf.out)]
        self.run.cuts.append(CutSeen(what, Origin.now(), frozenset(map(id, leaves)), node.name,
                                     step.number))

    def _on_zero_grad(self, step: Step, parameters: list[Any]) -> None:
        for p in parameters:
            known = self.passes.get(id(p))
            if known is not None:
                known[1] = 0

    def _on_step(self, step: Step, optimizer: Optimizer) -> None:
        if not any(one is optimizer for one in self.run.optimizers):
            self.run.optimizers.append(optimizer)
        step.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._see_parameters(step)

    def _see_parameters(self, step: Step) -> None:
        held = {id(p) for one in self.run.optimizers for group in one.param_groups
                for p in group["params"]}
        for name, p in self.run.parameters():
            gradient = None if p.grad is None else Numbers.of(p.grad._value)
            count = self.passes.get(id(p), (p, 0))[1] if p.grad is not None else 0
            step.parameters[name] = ParameterSeen(
                name, Numbers.of(p._value), gradient, count, None, p.ndim, id(p) in held)
            self.before[id(p)] = np.array(p._value)

    def _on_stepped(self, step: Step, optimizer: Optimizer) -> None:
        for name, p in self.run.parameters():
            old = self.before.get(id(p))
            if old is not None and name in step.parameters:
                moved = np.subtract(p._value, old, dtype=np.float64)
                step.parameters[name].update = float(np.sqrt(np.sum(moved * moved)))

    # ------------------------------------------------------------ looking closely

    def _meet_modules(self, roots: list[tuple[Node, Any]]) -> None:
        """Models that nobody named are those whose call made a part of the graph."""
        if self.run.models:
            return
        outermost: dict[int, Module] = {}
        for node in Graph(roots).order:
            scope = node.scope
            while scope is not None and scope[0] is not None:
                scope = scope[0]
            if scope is not None and next(scope[1].parameters(), None) is not None:
                outermost.setdefault(id(scope[1]), scope[1])
        names = [""] if len(outermost) == 1 else [f"model{i}" for i in range(len(outermost))]
        self.run.models = list(zip(names, outermost.values(), strict=True))

    def _activations(self, graph: Graph) -> Iterable[ActivationSeen]:
        gradients = graph.gradients if graph.bends else {}
        for node in graph.bends:
            value, slopes = graph.values.get(node), graph.slopes(node)
            if value is None or slopes is None:
                continue
            # Units are channels where there are places, else the last axis.
            axis = 1 if slopes.ndim > 3 else slopes.ndim - 1
            others = tuple(i for i in range(slopes.ndim) if i != axis)
            g = gradients.get(node)
            size = np.abs(slopes)
            yield ActivationSeen(
                node.name, node.origin.module, node.origin, Numbers.of(value),
                float(size.mean()), float(np.mean(size < FLAT_SLOPE)),
                bool(np.all((size == 0) | (size == size.max()))),
                np.all(slopes == 0, axis=others), slopes.shape[axis],
                slopes.size // slopes.shape[axis], None if g is None else Numbers.of(g))


def _masks(graph: Graph) -> Iterable[bytes]:
    """What was drawn for dropout: constants of a few values that multiply in a Dropout module."""
    for node in graph.order:
        scope = node.scope
        if node.name == "mul" and scope is not None and type(scope[1]).__name__.startswith("Drop"):
            for value, edge in zip(graph.saved[node], node.inputs, strict=False):
                if edge is None and type(value) is np.ndarray:
                    yield blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).digest()


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
