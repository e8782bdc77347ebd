"""Rules about parameters and the optimiser that should move them: CR2xx."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from chainrule.core.node import Origin, write_record
from chainrule.core.places import filled_at, made_at, place_of
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import Run, Step
from chainrule.doctor.rule import rule
from chainrule.nn import Parameter

from .programs import LOOP, MSE, OPTIMIZER, REGRESSION

SEEN = 8            # steps after which every optimiser of the loop has had its turn


def held_by_optimizers(run: Run) -> dict[int, Any]:
    """By id: also of those that have only cleared gradients so far."""
    known = (*run.optimizers, *(optimizer for optimizer, _ in run.idle.values()))
    return {id(p): p for optimizer in known for group in optimizer.param_groups
            for p in group["params"]}


def stepping(run: Run) -> Any:
    """The optimiser that made the last step."""
    return next((step.optimizer() for step in reversed(run.steps) if step.optimizer is not None),
                None)


def made(run: Run, optimizer: Any = None) -> Origin:
    """Where the optimiser was made (the one that stepped last), else where it steps."""
    optimizer = stepping(run) if optimizer is None else optimizer
    place = place_of(optimizer, "made")
    if optimizer is None and run.latest.graph is not None:    # by hand: where weights are written
        tensors = [leaf.out() for leaf in run.latest.graph.leaves if callable(leaf.out)]
        place = next((place for place in (filled_at(t._value) for t in tensors if t is not None)
                      if place.file), place)
    return place if place.file else run.latest.place("step")


def rate_set(run: Run) -> Origin:
    """Where the rate of the last step comes from: the schedule if one has moved it, else where the
    optimiser was made.
    """
    optimizer = stepping(run)
    scheduler = run.schedulers.get(optimizer) if optimizer is not None else None
    if scheduler is not None and any(group["lr"] != group.get("initial_lr", group["lr"])
                                     for group in optimizer.param_groups):
        place = place_of(scheduler, "made")
        if place.file:
            return place
    return made(run)


def parameters_of(run: Run) -> dict[int, tuple[str, Any]]:
    return {id(p): (f"{prefix}.{name}" if prefix else name, p) for prefix, model in run.models
            for name, p in model.named_parameters()}


@rule("CR201", "a parameter that no optimiser has", after=SEEN,
      example=REGRESSION + MSE + """
optimizer = cr.optim.SGD([model[0].weight, model[2].weight, model[2].bias], lr=0.05)
""" + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def not_in_the_optimizer(run: Run) -> Iterator[Finding]:
    """It gets gradients, and nobody uses them: it stays what it was at the start.

    An error where the optimiser has other parameters of the same module; a warning where it has
    none of them, since a part of a network is often trained on purpose. What has
    requires_grad=False is left out.
    """
    if not run.optimizers:
        return
    held = held_by_optimizers(run)
    own = list(parameters_of(run).values())
    missing = [name for name, p in own
               if id(p) not in held and p.requires_grad and id(p) in run.latest.reached]
    kept = {name.rpartition(".")[0] for name, p in own if id(p) in held}
    halves = [name for name in missing if name.rpartition(".")[0] in kept]
    for severity, names in (("error", halves),
                            ("warning", [name for name in missing if name not in halves])):
        if not names or not kept:        # nothing of this model at all: CR202
            continue
        rest = f" and {len(names) - 1} more get" if len(names) > 1 else " gets"
        yield Finding(
            "CR201", severity,  # type: ignore[arg-type]
            f"{names[0]}{rest} a gradient at every step, but no optimiser has "
            f"{'them' if len(names) > 1 else 'it'}.",
            "What no optimiser has keeps its initial values. If that is meant, "
            "requires_grad_(False) saves the work.",
            "optimizer = cr.optim.SGD(model.parameters(), lr=...)", made(run, _holder(run, kept)),
            subject=names[0], evidence={"missing": len(names)}, step=run.latest.number)


def _holder(run: Run, kept: set[str]) -> Any:
    """The optimiser that has other parameters of these modules."""
    own = {id(p) for name, p in parameters_of(run).values() if name.rpartition(".")[0] in kept}
    return next((optimizer for optimizer in run.optimizers for group in optimizer.param_groups
                 for p in group["params"] if id(p) in own), None)


@rule("CR202", "an optimiser that holds parameters of another model", after=3,
      example=REGRESSION + OPTIMIZER + MSE + """
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
""" + LOOP, cured=REGRESSION + """
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
""" + OPTIMIZER + MSE + LOOP)
def stale(run: Run) -> Iterator[Finding]:
    """The model, or a layer of it, was made anew after the optimiser: it moves the old weights.

    Recognised by parameters in the optimiser that belong to no model that is trained, never got a
    gradient, and have the shape of one that gets gradients and is in no optimiser.
    """
    own, held = parameters_of(run), held_by_optimizers(run)
    if not own:
        return
    orphans = [p for p in held.values() if id(p) not in own and p.grad is None]
    waiting = {name: p for name, p in own.values() if id(p) not in held and p.grad is not None}
    pairs = [(name, p) for name, p in waiting.items()
             if any(tuple(o.shape) == tuple(p.shape) for o in orphans)]
    if not pairs or len(orphans) < len(pairs):
        return
    name = pairs[0][0]
    yield Finding(
        "CR202", "error",
        f"the optimiser holds {len(orphans)} parameters that take no part in the loss, and "
        f"{name} of the same shape is in no optimiser.",
        "The optimiser was made for weights that were replaced since: those that compute the loss "
        "never change.",
        "model = ...                                  # first\n"
        "optimizer = cr.optim.SGD(model.parameters())  # then", made(run, next(
            (o for o in run.optimizers for g in o.param_groups
             if any(p is orphans[0] for p in g["params"])), None)),
        subject=name, evidence={"held": len(orphans), "waiting": len(waiting)},
        step=run.latest.number)


@rule("CR203", "a layer that is not registered", after=2, example="""
import chainrule as cr
from chainrule import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = {"hidden": [nn.Linear(3, 8)]}
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.parts["hidden"][0](x).tanh())

cr.manual_seed(0)
x, y = cr.randn(32, 3), cr.randn(32, 1)
model = Net()
""" + OPTIMIZER + MSE + LOOP, cured="""
import chainrule as cr
from chainrule import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(3, 8)])
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.hidden[0](x).tanh())

cr.manual_seed(0)
x, y = cr.randn(32, 3), cr.randn(32, 1)
model = Net()
""" + OPTIMIZER + MSE + LOOP)
def unregistered(run: Run) -> Iterator[Finding]:
    """A `Parameter` takes part in the loss, but `model.parameters()` does not know it.

    A module in a plain list or dict of an attribute is not registered; nor is one made inside
    `forward`. Recognised in the graph: a leaf that is an `nn.Parameter`, in no model and in no
    optimiser.
    """
    graph = run.latest.graph
    if graph is None or not run.models or not run.optimizers:
        return
    known = {*parameters_of(run), *held_by_optimizers(run)}
    for leaf in graph.leaves:
        tensor = leaf.out() if callable(leaf.out) else None
        if not isinstance(tensor, Parameter) or id(tensor) in known:
            continue
        reader = graph.readers[leaf][0]
        shape = "×".join(map(str, tensor.shape))
        yield Finding(
            "CR203", "error",
            f"a parameter ({shape}) computes the loss, but model.parameters() does not list it.",
            "No optimiser moves it, state_dict() does not save it.",
            "self.layers = nn.ModuleList([...])      # instead of a plain list or dict",
            made_at(leaf), subject=f"parameter of {reader.name} {shape}", step=run.latest.number)


@rule("CR205", "a parameter that the loss does not depend on", after=SEEN, example="""
import chainrule as cr
from chainrule import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        x = self.first(x).tanh()
        y = self.second(x).tanh()
        return self.last(x)

cr.manual_seed(0)
x, y = cr.randn(32, 3), cr.randn(32, 1)
model = Net()
""" + OPTIMIZER + MSE + LOOP, cured="""
import chainrule as cr
from chainrule import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        x = self.first(x).tanh()
        x = self.second(x).tanh()
        return self.last(x)

cr.manual_seed(0)
x, y = cr.randn(32, 3), cr.randn(32, 1)
model = Net()
""" + OPTIMIZER + MSE + LOOP)
def not_reached(run: Run) -> Iterator[Finding]:
    """The optimiser has it, but no backward pass ever reached it: `.grad` stays None.

    A warning: a network may have a head that this training does not use. Where a cut is the
    reason, CR301 says so, and is an error.
    """
    step = run.latest
    if not step.losses or not run.optimizers or run.partial:
        return
    held, own = held_by_optimizers(run), parameters_of(run)
    # Where a model has parameters that wait for an optimiser, it holds those of another: CR202.
    waiting = any(key not in held and p.grad is not None for key, (_, p) in own.items())
    missed: dict[str, list[tuple[str, Any]]] = {}          # by layer
    for name, p in own.values() if waiting else run.parameters():
        if id(p) in held and p.requires_grad and p.grad is None and id(p) not in run.reached \
                and id(p) not in run.unrecorded \
                and not any(id(p) in cut.leaves for cut in run.cuts):
            missed.setdefault(name.rpartition(".")[0], []).append((name, p))
    for (name, p), *others in missed.values():
        rest = f" and {len(others)} more of its layer have" if others else " has"
        yield Finding(
            "CR205", "warning",
            f"{name}{rest} never got a gradient: the loss does not depend on "
            f"{'them' if others else 'it'}.",
            "What gets none stays as it was initialised. Most often a layer is called and its "
            "result not used, or another name was meant.",
            "# is the layer called, and its result used? cr.doctor.why_none(p, loss) asks",
            made_at(p._node), subject=name, evidence={"parameters": 1 + len(others)},
            step=step.number)


@rule("CR206", "the scheduler comes before the optimiser", after=3,
      example=REGRESSION + OPTIMIZER + MSE + """
scheduler = cr.optim.lr_scheduler.StepLR(optimizer, 5)
for step in range(8):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    scheduler.step()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + """
scheduler = cr.optim.lr_scheduler.StepLR(optimizer, 5)
for step in range(8):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    scheduler.step()
""")
def scheduler_first(run: Run) -> Iterator[Finding]:
    """`scheduler.step()` between `backward()` and `optimizer.step()`, or before the very first
    `optimizer.step()`: the first rate is skipped.
    """
    step = run.latest
    order = [e.what for e in step.events if e.what in ("backward", "schedule", "step")]
    if order[-3:] != ["backward", "schedule", "step"]:
        step = run.steps[0]
        if step.number or not any(e.what == "schedule" for e in step.events):
            return
    place = step.place("schedule")
    yield Finding(
        "CR206", "warning", "scheduler.step() is called before optimizer.step().",
        "The first learning rate is never used, and every change comes one step early.",
        f"optimizer.step()\nscheduler.step()      # after it, not in line {place.line}", place,
        step=step.number)


@rule("CR207", "the learning rate is zero", after=2,
      example=REGRESSION + MSE + """
optimizer = cr.optim.SGD(model.parameters(), lr=0.0)
""" + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def rate_zero(run: Run) -> Iterator[Finding]:
    """Every group's learning rate is 0, two steps in a row, so that nothing can change.

    A warm-up may begin with 0 for one step.
    """
    steps = run.sampled(2)
    if len(steps) < 2 or not all(step.rates and not any(step.rates) for step in steps):
        return
    yield Finding(
        "CR207", "error", "the learning rate is 0.", "No weight changes.",
        "optimizer.param_groups[0]['lr'] = 0.01      # or the schedule that set it to 0",
        rate_set(run), evidence={"lr": 0.0}, step=run.latest.number)


@rule("CR208", "steps too small to matter", after=10,
      example=REGRESSION + MSE + """
optimizer = cr.optim.SGD(model.parameters(), lr=1e-7)
""" + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def steps_too_small(run: Run) -> Iterator[Finding]:
    """Each step changes the weights by less than 10⁻⁵ of their size, ten sampled steps in a row.

    Around 10⁻³ is usual (Karpathy; CS231n, "neural networks 3"); warned where the gradients are
    not themselves tiny. Measured on what really changed, so that Adam counts right.
    """
    ratios = ratios_of(run.latest)
    if not ratios or (run.latest.rates and not any(run.latest.rates)):
        return
    largest = max(ratios.values())
    gradient = max((p.gradient.largest for p in run.latest.parameters.values()
                    if p.gradient is not None), default=0.0)
    if largest >= 1e-5 or gradient < 1e-6:
        return
    yield Finding(
        "CR208", "warning",
        f"each step changes the weights by at most {largest:.1e} of their size."
        if largest else "the steps change nothing: they are lost to rounding.",
        "At that pace it takes a million steps to move a weight by its own size, or more; about "
        "1e-3 is usual.", f"lr={_round(max(run.latest.rates) * 1e-3 / max(largest, 1e-8)):g}"
        if run.latest.rates and max(run.latest.rates) > 1e-12 else
        "# the schedule has brought the rate to next to nothing: step it once per epoch"
        if run.latest.rates else f"# a rate {_round(1e-3 / max(largest, 1e-8)):g} times larger",
        rate_set(run), subject="learning rate", evidence={"ratio": largest},
        step=run.latest.number)


@rule("CR209", "steps too large", after=3,
      example=REGRESSION + MSE + """
optimizer = cr.optim.Adam(model.parameters(), lr=2.0)
""" + LOOP, cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def steps_too_large(run: Run) -> Iterator[Finding]:
    """The median step changes the weights by more than a tenth of their size, and the loss is half
    as large again as at the start, after at least six steps. A warning where the steps are above
    0.3 and the loss is merely no better after twelve: it may be noise, or a start in odd units.

    Around 10⁻³ is usual, above 10⁻¹ is rarely good (Karpathy; TheDeepChecker, arXiv 2204.00694).
    """
    steps = [s for s in run.sampled(12) if s.parameters]
    losses = run.losses[run.phase:]               # each optimiser begins anew
    if len(steps) < 6 or len(losses) < 6:
        return
    first, recent = losses[0], median(losses[-5:])
    largest = median(max(ratios.values(), default=0.0) for ratios in map(ratios_of, steps))
    # Below 0 a loss says nothing about better or worse: a policy's, a critic's.
    worse = largest > 0.1 and not recent <= 1.5 * first and min(losses) >= 0
    if not worse and not (largest > 0.3 and len(losses) >= 12 and not recent <= 0.9 * first):
        return
    name = max(ratios_of(steps[-1]), key=ratios_of(steps[-1]).get, default="")  # type: ignore[arg-type]
    yield Finding(
        "CR209", "error" if worse else "warning",
        f"a step changes the weights by {largest:.2g} times their size, and the loss went from "
        f"{first:.3g} to {recent:.3g}.",
        "The steps jump over every valley: the loss swings or explodes.",
        f"lr={_round(max(run.latest.rates) * 1e-2 / largest):g}" if run.latest.rates else
        f"# a rate {_round(largest / 1e-2):g} times smaller", rate_set(run),
        subject="learning rate", evidence={"ratio": largest, "parameter": name},
        step=run.latest.number)


@rule("CR210", "an optimiser that never makes a step", example=REGRESSION + OPTIMIZER + MSE + """
for step in range(12):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step              # without brackets it is not called
""", cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def never_steps(run: Run) -> Iterator[Finding]:
    """An optimiser clears the gradients again and again, and its `step()` is never called.

    Told from the eighth time on, if nobody has written into its parameters either.
    """
    for optimizer, cleared in run.idle.values():
        own = [p for group in optimizer.param_groups for p in group["params"]]
        if cleared < SEEN or not run.latest.losses or any(
                write_record(p._value).count > run.writes.get(id(p), 0) for p in own):
            continue
        if not any(id(p) in run.reached for p in own):
            continue
        yield Finding(
            "CR210", "error",
            f"the optimiser made here has cleared the gradients {cleared} times and never made a "
            "step.", "Its weights stay what they were.",
            "optimizer.step()      # after backward(), with brackets", made(run, optimizer),
            evidence={"cleared": cleared}, step=run.latest.number)


def ratios_of(step: Step) -> dict[str, float]:
    """Size of the step of each weight that an optimiser has (no biases) over the weight's; where
    there are only vectors and numbers, of these.
    """
    least = 2 if any(p.ndim > 1 for p in step.parameters.values()) else 0
    return {name: p.update / p.weight.norm for name, p in step.parameters.items()
            if p.update is not None and p.held and p.ndim >= least and p.weight.norm > 0
            and p.weight.finite and p.gradient is not None}


def _round(value: float) -> float:
    return float(f"{value:.1g}")
