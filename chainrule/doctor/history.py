"""What was seen of a training run: its events, and at sampled steps its numbers."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.core.node import Origin

from .graph import Graph

MOST = 512                # steps with numbers that are kept for charts
KEPT = 50                 # closely seen steps that an autopsy can look back on


@dataclass(frozen=True)
class Numbers:
    """An array in a few numbers. `finite`: no NaN and no infinity in it."""

    norm: float
    mean: float
    deviation: float
    largest: float
    zeros: float
    finite: bool
    size: int

    @staticmethod
    def of(array: Any) -> Numbers:
        flat = np.asarray(array, np.float64).ravel()
        if not flat.size:
            return Numbers(0.0, 0.0, 0.0, 0.0, 1.0, True, 0)
        with np.errstate(all="ignore"):
            largest = float(np.abs(flat).max())
            return Numbers(float(np.sqrt(flat @ flat)), float(flat.mean()), float(flat.std()),
                           largest, float(np.mean(flat == 0)), bool(np.isfinite(largest)),
                           flat.size)


@dataclass(frozen=True)
class Event:
    """zero_grad, backward, step, clip or schedule, and the user's line that did it."""

    what: str
    place: Origin
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class ParameterSeen:
    """A parameter at one step. `passes`: backward passes in its `.grad` since it was cleared."""

    name: str
    weight: Numbers
    gradient: Numbers | None = None
    passes: int = 0
    update: float | None = None        # norm of what the optimiser's step changed
    ndim: int = 0
    held: bool = False                 # does an optimiser have it?


@dataclass
class ActivationSeen:
    """The result of one activation function at one step.

    By its local derivatives: `steep` is their mean size, `flat` the share below 0.06, `cornered`
    whether they are all equal but for zeros (ReLU); `dead`: the units (along the last axis, or the
    channels) whose slope is 0 for each of the `samples`; `units`: how many there are.
    """

    operation: str
    module: str
    place: Origin
    value: Numbers
    steep: float
    flat: float
    cornered: bool
    dead: Any
    units: int
    samples: int
    gradient: Numbers | None = None


@dataclass
class Step:
    """From one update to the next. Numbers only where `sampled`."""

    number: int
    sampled: bool
    events: list[Event] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    parameters: dict[str, ParameterSeen] = field(default_factory=dict)
    activations: list[ActivationSeen] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    drawn: tuple[bytes, ...] = ()      # what dropout drew, as digests
    reached: set[int] = field(default_factory=set)       # ids of the leaves that got a gradient
    random: int = 0                    # numbers drawn since the seed was set
    graph: Graph | None = None         # of the last backward pass, until the rules have run
    optimizer: Any = None              # weakly, the one whose update ended it

    @property
    def loss(self) -> float | None:
        return self.losses[-1] if self.losses else None

    def place(self, what: str) -> Origin:
        """The line of the last event of this kind."""
        return next((e.place for e in reversed(self.events) if e.what == what),
                    Origin("", 0, "", ""))


@dataclass(frozen=True)
class CutSeen:
    """A line that stopped a gradient, and the leaves (ids of tensors) it would have gone to."""

    what: str
    place: Origin
    leaves: frozenset[int]
    made_by: str
    step: int


@dataclass
class Run:
    """Everything rules look at. Models, optimisers and leaves are the user's: held weakly, so that
    what the program gives up is gone.

    `bare` are the leaves of a program without models and optimisers, by id: their names and
    themselves, weakly; `names` are those of parameters that no module knows, by id; `reached` the
    ids of the leaves that any backward pass reached; `unrecorded` where modules with a parameter,
    by its id, ran under no_grad; `filled` the lines that wrote parameters before training;
    `schedulers` by their optimiser; `idle` optimisers that clear gradients and have not stepped, by
    id, and how often they cleared; `writes` how often a leaf had been written when it was first
    reached; `error` what stopped the program; `failure` what stopped the doctor; `treat` tries
    cures, where it is known how a step is done.
    """

    model_refs: list[tuple[str, Any]] = field(default_factory=list)
    optimizer_refs: list[Any] = field(default_factory=list)
    bare: dict[int, tuple[str, Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    steps: deque[Step] = field(default_factory=lambda: deque(maxlen=KEPT))
    losses: list[float] = field(default_factory=list)
    partial: bool = False                          # backward(inputs=...): some leaves wait
    phase: int = 0                                 # so many of them before the last new optimiser
    batch: Any = None
    count: int = 0
    reached: set[int] = field(default_factory=set)
    cuts: list[CutSeen] = field(default_factory=list)
    unrecorded: dict[int, Origin] = field(default_factory=dict)
    filled: dict[int, Origin] = field(default_factory=dict)
    schedulers: Any = field(default_factory=weakref.WeakKeyDictionary)
    roots: deque[Any] = field(default_factory=lambda: deque(maxlen=8))    # weakly, of each loss
    writes: dict[int, int] = field(default_factory=dict)
    idle: dict[int, list[Any]] = field(default_factory=dict)
    error: Exception | None = None
    failure: Exception | None = None
    treat: Callable[..., Any] | None = None        # tries a cure on what was checked
    looked: list[Step] = field(default_factory=list)     # at closely, thinned out: for charts

    def keep(self, step: Step) -> None:
        """Remember a step that was looked at closely; of very many, every other one goes."""
        self.looked.append(step)
        if len(self.looked) > MOST:
            del self.looked[1:-1:2]

    @property
    def models(self) -> list[tuple[str, Any]]:
        """The models that are known and still exist, with their names."""
        found = [(name, ref()) for name, ref in self.model_refs]
        return [(name, model) for name, model in found if model is not None]

    @models.setter
    def models(self, models: list[tuple[str, Any]]) -> None:
        self.model_refs = [(name, weakref.ref(model)) for name, model in models]

    @property
    def optimizers(self) -> list[Any]:
        """The optimisers that are known and still exist."""
        found = [ref() for ref in self.optimizer_refs]
        return [optimizer for optimizer in found if optimizer is not None]

    def meet(self, optimizer: Any) -> None:
        """Another optimiser."""
        self.optimizer_refs = [ref for ref in self.optimizer_refs if ref() is not None]
        if not any(ref() is optimizer for ref in self.optimizer_refs):
            self.optimizer_refs.append(weakref.ref(optimizer))

    @property
    def latest(self) -> Step:
        return self.steps[-1]

    def sampled(self, count: int) -> list[Step]:
        """The last `count` sampled steps, latest last."""
        return [step for step in self.steps if step.sampled][-count:]

    def parameters(self) -> list[tuple[str, Any]]:
        """The parameters of the models by name, then those that only an optimiser holds."""
        found: dict[int, tuple[str, Any]] = {}
        for prefix, model in self.models:
            for name, p in model.named_parameters():
                found.setdefault(id(p), (f"{prefix}.{name}" if prefix else name, p))
        for optimizer in self.optimizers:
            for g, group in enumerate(optimizer.param_groups):
                for i, p in enumerate(group["params"]):
                    found.setdefault(id(p), (self.names.get(
                        id(p), f"param_groups[{g}]['params'][{i}]"), p))
        for key, (name, ref) in self.bare.items():
            tensor = ref()
            if tensor is not None:
                found.setdefault(key, (name, tensor))
        return list(found.values())
