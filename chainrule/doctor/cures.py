"""What the doctor can do about a finding by itself: a table from rules to cures.

A cure is one function that changes a `Patient`, a copy of what is trained, and returns the words
for what it did; or None where it cannot be applied to this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from chainrule import nn
from chainrule.core import events
from chainrule.core.node import Origin
from chainrule.nn import Module
from chainrule.optim import SGD, Optimizer
from chainrule.tensor import Tensor

from .finding import Finding

LIMIT = 1.0           # of the gradient's norm when it is clipped (Pascanu, Mikolov & Bengio 2013)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
SQUASHING = (nn.Sigmoid, nn.Tanh, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid)
RECURRENT = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
CORNERED = (nn.ReLU, nn.ReLU6)


@dataclass
class Patient:
    """What is trained and treated: copies, or (`own`) the user's objects, put back afterwards.

    step      does one training step; what it reads can be changed: `inputs`, `loss`
    context   is entered around all steps
    before    is called before each
    """

    models: list[Module]
    optimizers: list[Optimizer]
    step: Callable[[Patient], None]
    own: bool = False
    inputs: tuple[Any, ...] = ()
    target: Any = None
    loss: Callable[..., Any] | None = None
    contexts: list[Callable[[], Any]] = field(default_factory=list)
    before: list[Callable[[], None]] = field(default_factory=list)

    def modules(self) -> Iterator[tuple[Module, str, Module]]:
        """(parent, name, child) of everything below the models."""
        for model in self.models:
            for parent in list(model.modules()):
                for name, child in list(parent.named_children()):
                    yield parent, name, child

    def replace(self, kind: tuple[type, ...], make: Callable[[Module], Module]) -> int:
        """Puts another module in the place of each of a kind; returns how many there were."""
        if self.own:
            return 0
        found = [(parent, name, child) for parent, name, child in self.modules()
                 if isinstance(child, kind)]
        for parent, name, child in found:
            setattr(parent, name, make(child))
        return len(found)

    def weighted(self) -> list[Any]:
        return [m for model in self.models for m in model.modules() if isinstance(m, WEIGHTED)]

    def holds(self, *kinds: type) -> bool:
        return any(isinstance(m, kinds) for model in self.models for m in model.modules())

    def extend(self) -> None:
        """Gives the optimiser the parameters that it does not have yet."""
        if not self.optimizers:
            return
        held = {id(p) for o in self.optimizers for g in o.param_groups for p in g["params"]}
        new = [p for model in self.models for p in model.parameters() if id(p) not in held]
        if new:
            self.optimizers[0].add_param_group({"params": new})

    def scale_rates(self, factor: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= factor

    @property
    def rate(self) -> float:
        return max((float(g["lr"]) for o in self.optimizers for g in o.param_groups), default=0.0)


Cure = Callable[[Patient, Finding], str | None]


# ---------------------------------------------------------------- weights and activations


def he(patient: Patient, finding: Finding) -> str | None:
    """Weights for rectifiers: deviation √(2 / inputs) (He et al. 2015). Biases 0."""
    layers = patient.weighted()
    if not layers or patient.holds(*SQUASHING, *RECURRENT):
        return None
    _draw(layers, "relu")
    return "weights drawn anew by nn.init.kaiming_normal_(weight, nonlinearity='relu'), biases 0"


def glorot(patient: Patient, finding: Finding) -> str | None:
    """Weights for tanh: Glorot & Bengio (2010), with tanh's gain."""
    layers = patient.weighted()
    if not layers or not patient.holds(nn.Tanh):
        return None
    for layer in layers:
        nn.init.xavier_normal_(layer.weight, gain=nn.init.calculate_gain("tanh"))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return "weights drawn anew by nn.init.xavier_normal_(weight, gain=5/3), biases 0"


def _draw(layers: list[Any], nonlinearity: str) -> None:
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def rectify(patient: Patient, finding: Finding) -> str | None:
    """ReLU in place of what squashes, with weights that fit it."""
    kinds = sorted({type(c).__name__ for _, _, c in patient.modules() if isinstance(c, SQUASHING)})
    if not patient.replace(SQUASHING, lambda _: nn.ReLU()):
        return None
    _draw(patient.weighted(), "relu")
    return (f"nn.ReLU() in place of nn.{', nn.'.join(kinds)}, weights drawn by "
            "nn.init.kaiming_normal_(weight, nonlinearity='relu')")


def leak(patient: Patient, finding: Finding) -> str | None:
    """A rectifier that is never quite dead, and weights drawn anew."""
    if not patient.replace(CORNERED, lambda _: nn.LeakyReLU(0.01)):
        return None
    _draw(patient.weighted(), "relu")
    return ("nn.LeakyReLU(0.01) in place of nn.ReLU, weights drawn by nn.init.kaiming_normal_, "
            "biases 0")


def redraw(patient: Patient, finding: Finding) -> str | None:
    """Every layer draws its parameters as it does when it is made."""
    able = [m for model in patient.models for m in model.modules()
            if hasattr(m, "reset_parameters")]
    for module in able:
        module.reset_parameters()
    return "every layer's parameters drawn anew, by its reset_parameters()" if able else None


def normalise(patient: Patient, finding: Finding) -> str | None:
    """A layer normalisation (Ba et al. 2016) behind each linear layer but the last."""
    layers = [(parent, name, child) for parent, name, child in patient.modules()
              if isinstance(child, nn.Linear)]
    if patient.own or len(layers) < 2:
        return None
    for parent, name, layer in layers[:-1]:
        setattr(parent, name, nn.Sequential(layer, nn.LayerNorm(layer.out_features)))
    patient.extend()
    return "nn.LayerNorm behind each linear layer but the last"


class _Around(nn.Module):
    """x + block(x) (He et al. 2016)."""

    def __init__(self, *parts: Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)  # type: ignore[no-any-return]


def bridge(patient: Patient, finding: Finding) -> str | None:
    """A path around each pair of a square linear layer and its activation in a Sequential; in the
    block a normalisation, and ReLU for what squashes.
    """
    if patient.own:
        return None
    count = 0
    for model in patient.models:
        for parent in [m for m in model.modules() if type(m) is nn.Sequential]:
            parts: list[tuple[str, Any]] = list(parent.named_children())
            for (name, layer), (after, act) in pairwise(parts):
                square = isinstance(layer, nn.Linear) and layer.in_features == layer.out_features
                if square and isinstance(act, (*SQUASHING, *CORNERED)):
                    setattr(parent, name, _Around(layer, nn.LayerNorm(layer.out_features),
                                                  nn.ReLU()))
                    setattr(parent, after, nn.Identity())
                    count += 1
    patient.extend()
    return "a path around each block: x + relu(layer_norm(linear(x)))" if count else None


# ---------------------------------------------------------------- the loop


def clip(patient: Patient, finding: Finding) -> str | None:
    """Before each update the gradient is cut to norm 1."""
    def limited(event: str, facts: dict[str, Any]) -> None:
        if event == "step":
            nn.utils.clip_grad_norm_([p for group in facts["optimizer"].param_groups
                                      for p in group["params"] if p.grad is not None], LIMIT)

    patient.contexts.append(lambda: _heard(limited))
    return f"nn.utils.clip_grad_norm_(model.parameters(), {LIMIT}) before optimizer.step()"


def clip_through_time(patient: Patient, finding: Finding) -> str | None:
    """Clipping first where a gradient goes back through time (Pascanu, Mikolov & Bengio 2013)."""
    return clip(patient, finding) if patient.holds(*RECURRENT) else None


@contextmanager
def _heard(listener: events.Listener) -> Iterator[None]:
    events.listen(listener)
    try:
        yield
    finally:
        events.ignore(listener)


def clear(patient: Patient, finding: Finding) -> str | None:
    """Gradients are cleared before each step, and at no other time."""
    if not patient.optimizers:
        return None

    def clear_all() -> None:
        for optimizer in patient.optimizers:
            type(optimizer).zero_grad(optimizer)
        for model in patient.models:
            type(model).zero_grad(model)

    patient.before.append(clear_all)
    if finding.rule == "CR102":
        patient.contexts.append(lambda: _deaf([*patient.optimizers, *patient.models]))
        return "optimizer.zero_grad() at the beginning of each step, and not before its update"
    return "optimizer.zero_grad() at the beginning of each step"


@contextmanager
def _deaf(things: list[Any]) -> Iterator[None]:
    """Their own calls of zero_grad() do nothing."""
    for thing in things:
        thing.__dict__["zero_grad"] = lambda *_, **__: None
    try:
        yield
    finally:
        for thing in things:
            thing.__dict__.pop("zero_grad", None)


def attach(patient: Patient, finding: Finding) -> str | None:
    """detach() and .data in the line at fault hand on the tensor itself."""
    file, line = finding.place.file, finding.place.line
    if not file:
        return None
    patient.contexts.append(lambda: _attached(file, line))
    return f"without the detach() or .data in line {line}"


@contextmanager
def _attached(file: str, line: int) -> Iterator[None]:
    plain = Tensor.detach

    def detach(self: Tensor) -> Tensor:
        place = Origin.now()
        return self if (place.file, place.line) == (file, line) else plain(self)

    Tensor.detach = detach  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.detach = plain  # type: ignore[method-assign]


def hold_all(patient: Patient, finding: Finding) -> str | None:
    """An optimiser for all parameters."""
    if patient.own or not patient.optimizers:
        return None
    patient.extend()
    return "an optimiser that has model.parameters()"


def unfreeze(patient: Patient, finding: Finding) -> str | None:
    if patient.own:
        return None
    for model in patient.models:
        model.requires_grad_(True)
    patient.extend()
    return "model.requires_grad_(True)"


# ---------------------------------------------------------------- inputs and loss


def standardise(patient: Patient, finding: Finding) -> str | None:
    """Columns of the inputs with mean 0 and deviation 1, by this batch."""
    changed, scaled = False, []
    for x in patient.inputs:
        value = x._value if isinstance(x, Tensor) else None
        if value is None or value.dtype.kind != "f" or value.ndim != 2 or len(value) < 2:
            scaled.append(x)
            continue
        spread = value.std(axis=0)
        flat = (value - value.mean(axis=0)) / np.where(spread > 0, spread, 1)
        scaled.append(type(x)(flat.astype(value.dtype)))
        changed = True
    patient.inputs = tuple(scaled)
    return "x = (x - x.mean(0)) / x.std(0)" if changed else None


def raw_scores(patient: Patient, finding: Finding) -> str | None:
    """Without the softmax or sigmoid before a loss that has its own."""
    kind: type = nn.Softmax if finding.rule == "CR401" else nn.Sigmoid
    for parent, name, child in patient.modules():
        path = next((p for m in patient.models for p, one in m.named_modules() if one is child), "")
        if isinstance(child, kind) and path == finding.subject and not patient.own:
            setattr(parent, name, nn.Identity())
            return f"without the nn.{kind.__name__}() {path}"
    return None


def match_shapes(patient: Patient, finding: Finding) -> str | None:
    """The prediction in the shape of the target."""
    given, target = patient.loss, patient.target
    if given is None or not isinstance(target, Tensor):
        return None
    patient.loss = lambda y, t: given(y.reshape(t.shape) if y.numel() == t.numel() else y, t)
    return "loss(prediction.reshape(target.shape), target)"


def set_rate(patient: Patient, finding: Finding) -> str | None:
    """A place for the learning rate that a search finds; a rate of 0 gets one to start from."""
    if not patient.optimizers:
        return None
    if not patient.rate:
        for optimizer in patient.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.01 if isinstance(optimizer, SGD) else 1e-3
    return "another learning rate"


SIGNAL = (he, glorot, rectify, bridge, normalise)

CURES: dict[str, tuple[Cure, ...]] = {
    "CR101": (clear,),
    "CR102": (clear,),
    "CR201": (hold_all,),
    "CR204": (unfreeze,),
    "CR207": (set_rate,),
    "CR208": (set_rate,),
    "CR209": (set_rate,),
    "CR301": (attach,),
    "CR401": (raw_scores,),
    "CR402": (raw_scores,),
    "CR403": (match_shapes,),
    "CR405": (redraw, standardise),
    "CR501": (set_rate, clip),
    "CR504": (clip, set_rate),
    "CR601": SIGNAL,
    "CR602": (clip_through_time, he, redraw, clip, normalise),
    "CR603": (standardise, rectify, redraw, normalise),
    "CR604": (leak, redraw),
    "CR605": (clip_through_time, *SIGNAL),
    "CR606": (redraw,),
    "CR607": SIGNAL,
    "CR703": (standardise,),
}
SEARCHED = frozenset((set_rate,))     # cures whose learning rate is searched at once
TAMING = frozenset((clip, clip_through_time))      # what they are for is still there, and harmless
FAR = frozenset((set_rate, standardise))      # and in a wide range: it may be off by any factor
