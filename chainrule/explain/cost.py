"""What a gradient costs on this machine: the claims C1 to C3, measured.

C1  finite differences need one or two forward passes per weight, backpropagation one backward pass
C2  backward costs about two forward passes, a step about three, however many parameters there are
C3  every intermediate is computed once and used again
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np

from chainrule.autodiff.reverse import reachable
from chainrule.autograd import no_grad
from chainrule.core.bind import Value
from chainrule.core.errors import SettingError
from chainrule.core.node import Node, wrote
from chainrule.core.primitive import Primitive
from chainrule.core.record import new
from chainrule.nn import Linear, ReLU, Sequential
from chainrule.nn.functional import cross_entropy
from chainrule.optim import SGD

from .derive import edges_of
from .numbers import Style
from .render import paint_with, table, wrapped

STEP = 1e-2                       # of the finite differences, in float32
YEAR = 365 * 24 * 3600
UPDATES = 100_000
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
           "VECLIB_MAXIMUM_THREADS")
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)


def network(layers: Sequence[int]) -> Any:
    """Dense layers with ReLU between them."""
    parts: list[Any] = []
    for inputs, outputs in pairwise(layers):
        parts += [Linear(inputs, outputs), ReLU()]
    return Sequential(*parts[:-1])


def problem(layers: Sequence[int], batch: int) -> tuple[Any, Callable[[], Any]]:
    """A network and a function that runs it forward to its loss on fixed random examples."""
    rng = np.random.default_rng(0)
    x = new(rng.standard_normal((batch, layers[0])).astype(np.float32))
    y = new(rng.integers(0, layers[-1], batch))
    model = network(layers)
    return model, lambda: cross_entropy(model(x), y)


def read_layers(text: str) -> tuple[int, ...]:
    """784-256-10 as numbers."""
    parts = text.split("-")
    if len(parts) < 2 or not all(part.isdigit() and int(part) for part in parts):
        raise SettingError(f"--layers {text!r}: write the sizes of the layers with - between them, "
                           "inputs first, for example 784-256-256-256-10")
    return tuple(map(int, parts))


# ---------------------------------------------------------------- C1


@dataclass(frozen=True)
class Differences:
    """C1: what was counted and measured, in seconds, and what follows from it."""

    weights: int
    biases: int
    sampled: int
    one_pass: float
    sample: float
    forward: float
    backward: float
    worst: float

    @property
    def parameters(self) -> int:
        return self.weights + self.biases

    @property
    def one_sided(self) -> int:
        """Forward passes of one-sided differences: one for each parameter and one in the middle."""
        return self.parameters + 1

    @property
    def central(self) -> int:
        return 2 * self.parameters


def measure_differences(layers: Sequence[int], batch: int, samples: int) -> Differences:
    """Differentiate a sample of single weights by central differences, and all by backward()."""
    model, loss = problem(layers, batch)
    parameters = list(model.parameters())
    forward, backward = forward_and_backward(model, loss, rounds=15)
    model.zero_grad()
    loss().backward()
    sizes = [p.numel() for p in parameters]
    rng = np.random.default_rng(1)
    chosen = rng.choice(sum(sizes), size=min(samples, sum(sizes)), replace=False)
    starts = np.cumsum([0, *sizes])
    scale = max(float(np.abs(p.grad._value).max()) for p in parameters)
    worst = 0.0
    times = []
    with no_grad():
        for place in chosen:
            begun = time.perf_counter()
            which = int(np.searchsorted(starts, place, side="right")) - 1
            value = parameters[which]._value.reshape(-1)
            at = int(place - starts[which])
            difference = central_difference(loss, value, at)
            times.append(time.perf_counter() - begun)
            exact = float(parameters[which].grad._value.reshape(-1)[at])
            worst = max(worst, abs(difference - exact))
    return Differences(
        sum(p.numel() for p in parameters if p.ndim > 1),
        sum(p.numel() for p in parameters if p.ndim == 1),
        len(times), statistics.median(times) / 2, sum(times), forward, backward, worst / scale)


def central_difference(loss: Callable[[], Any], value: Any, at: int) -> float:
    """(L(w + s) − L(w − s))/2s for one weight; two forward passes."""
    kept = value[at]
    results = []
    for moved in (kept + np.float32(STEP), kept - np.float32(STEP)):
        value[at] = moved
        results.append(float(loss()._value))
    value[at] = kept
    wrote(value, "a finite difference")
    return (results[0] - results[1]) / (2 * STEP)


# ---------------------------------------------------------------- C2


def forward_and_backward(model: Any, loss: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of a recorded forward pass and of backward()."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        model.zero_grad()
        begun = time.perf_counter()
        result = loss()
        between = time.perf_counter()
        result.backward()
        times.append((between - begun, time.perf_counter() - between))
    return (statistics.median(t[0] for t in times[1:]), statistics.median(t[1] for t in times[1:]))


@dataclass(frozen=True)
class Ratio:
    """C2: one size of network; seconds."""

    parameters: int
    forward: float
    backward: float
    step: float


def measure_ratio(parameters: int, batch: int, budget: float) -> Ratio:
    """Forward, backward and whole step of a network 64-h-h-10 with about so many parameters."""
    hidden = max(1, round((-75 + (75 * 75 + 4 * (parameters - 10)) ** 0.5) / 2))
    model, loss = problem((64, hidden, hidden, 10), batch)
    optimizer = SGD(model.parameters(), lr=1e-4)
    forwards: list[float] = []
    backwards: list[float] = []
    steps: list[float] = []
    began = time.perf_counter()
    while len(steps) < 4 or (time.perf_counter() - began < budget and len(steps) < 400):
        times = [time.perf_counter()]
        optimizer.zero_grad()
        times.append(time.perf_counter())
        result = loss()
        times.append(time.perf_counter())
        result.backward()
        times.append(time.perf_counter())
        optimizer.step()
        times.append(time.perf_counter())
        forwards.append(times[2] - times[1])
        backwards.append(times[3] - times[2])
        steps.append(times[4] - times[0])
    count = sum(p.numel() for p in model.parameters())
    return Ratio(count, statistics.median(forwards[1:]), statistics.median(backwards[1:]),
                 statistics.median(steps[1:]))


# ---------------------------------------------------------------- C3


@final
class Counted(Value):
    """An array that notes every primitive applied to it: counting costs nothing elsewhere."""

    __slots__ = ("log", "value")

    def __init__(self, value: Any, log: list[tuple[str, tuple[int, ...]]]) -> None:
        self.value = np.asarray(value)
        self.log = log

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Counted:
        values = [x.value if isinstance(x, Counted) else x for x in xs]
        self.log.append((prim.name, tuple(map(id, values))))
        return Counted(prim.eval(*values, **params), self.log)


@dataclass(frozen=True)
class Applications:
    """C3: how often each primitive was applied, and what would be without reuse.

    repeated  backward applications with a primitive and operands that forward had already
    walked    rules run by following each path from the loss on its own
    """

    forward: Counter[str]
    backward: Counter[str]
    rules: int
    repeated: int
    walked: int


def count_applications(loss: Any) -> Applications:
    """Run the backward rules of a recorded loss on values that count."""
    latest = reachable([loss._node])
    done = [n for n in latest if n.prim is not None and edges_of(n)]
    forward = Counter(n.name for n in done if n.name != "broadcast")
    known = {(n.name, tuple(map(id, n.saved))) for n in done}
    log: list[tuple[str, tuple[int, ...]]] = []
    bars: dict[Node, Any] = {loss._node: Counted(np.ones(loss.shape, loss.dtype), log)}
    kept = []
    rules = 0
    for node in done:
        g = bars.pop(node)
        y = node if node.out is None else Counted(node.out, log)
        xs = [Counted(s, log) if isinstance(s, np.ndarray) else s for s in node.saved]
        kept.append((g, xs))              # an id is only a name while its array lives
        assert node.prim is not None
        for i, edge in enumerate(node.inputs):
            pull = node.prim.pulls[i]
            if edge is None or pull is None:
                continue
            rules += 1
            term = pull(g, y, *xs, **node.params)
            bars[edge] = term if edge not in bars else bars[edge] + term
    return Applications(forward, Counter(name for name, _ in log), rules,
                        sum(entry in known for entry in log), paths_walked(loss))


def paths_walked(loss: Any) -> int:
    """Rules that run if no result is shared: one for each edge of each path from the loss."""
    arrivals: Counter[Node] = Counter({loss._node: 1})
    walked = 0
    for node in reachable([loss._node]):
        for edge in edges_of(node):
            arrivals[edge] += arrivals[node]
            walked += arrivals[node]
    return walked


def shared_chain(length: int) -> Any:
    """x, x·x, (x·x)·(x·x), ...: every result is used twice."""
    x = new(np.array(1.0)).requires_grad_()
    y = x
    for _ in range(length):
        y = y * y
    return y


# ---------------------------------------------------------------- the report


def report_alone(*options: Any) -> str:
    """`report` in a process of its own, with one thread for matrix products.

    Several threads on cores that other programs use as well wait for one another, and the medians
    would tell about those programs. Threads that the user has set stay as they are.
    """
    environment = dict(os.environ)
    if not any(name in environment for name in THREADS):
        environment.update(dict.fromkeys(THREADS, "1"))
    paths = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment["PYTHONIOENCODING"] = "utf-8"
    done = subprocess.run([sys.executable, "-m", __name__, json.dumps(options)], env=environment,
                          stdout=subprocess.PIPE, check=True, encoding="utf-8")
    return done.stdout.rstrip("\n")


def report(layers: str = "784-256-256-256-10", batch: int = 64, samples: int = 60,
           quick: bool = False, width: int = 100, colour: bool = False) -> str:
    """C1 to C3, measured now, as text."""
    paint = paint_with(colour)
    style = Style(3)
    sizes = read_layers(layers)
    found = measure_differences(sizes, batch, 10 if quick else samples)
    ratios = [measure_ratio(n, batch, 0.1 if quick else 1.0)
              for n in (SIZES[:-1] if quick else SIZES)]
    _, loss = problem(sizes, batch)
    counted = count_applications(loss())
    chain = count_applications(shared_chain(20))
    lines = [paint("C1  every weight's gradient, by differences or by backpropagation", "bold")]
    lines += ["", *_differences_text(found, layers, batch, style, width), ""]
    lines += [paint("C2  what a backward pass costs, by the number of parameters", "bold")]
    lines += ["", *_ratios_text(ratios, batch, style, width), ""]
    lines += [paint("C3  every intermediate computed once", "bold")]
    return "\n".join([*lines, "", *_counts_text(counted, chain, layers, width)])


def duration(seconds: float) -> str:
    """1.5 ms, 12 s, 5.6 minutes, 1.1 years: three digits and a unit."""
    for unit, size in (("years", YEAR), ("days", 86400), ("hours", 3600), ("minutes", 60),
                       ("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds * 1e6)} µs"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _differences_text(d: Differences, layers: str, batch: int, style: Style,
                      width: int) -> list[str]:
    both = d.forward + d.backward
    rows = [("", "forward passes", "backward passes", "time for one gradient", ""),
            ("differences, one side", f"{d.one_sided:,}", "0",
             duration(d.one_sided * d.one_pass), "extrapolated"),
            ("differences, both sides", f"{d.central:,}", "0",
             duration(d.central * d.one_pass), "extrapolated"),
            ("backpropagation", "1", "1", duration(both), "measured")]
    textbook = d.one_sided * 1e-3
    return [
        *wrapped(f"The network {layers} has {d.weights:,} weights and {d.biases:,} biases. A batch "
                 f"of {batch}, float32, {threads()}.", width), "",
        *table(rows, width, right=(1, 2)), "",
        *wrapped(f"Measured: {d.sampled} parameters drawn at random, two forward passes for each, "
                 f"took {duration(d.sample)} in all and {duration(d.one_pass)} a pass. "
                 f"Backpropagation: {duration(d.forward)} forward and {duration(d.backward)} "
                 "backward (all medians). "
                 f"Extrapolated: the passes for all {d.parameters:,} parameters at that speed. "
                 f"Backpropagation is {_three(d.central * d.one_pass / both)} times as fast as "
                 "differences on both sides.", width),
        *wrapped("On the sample the differences were off by up to "
                 f"{style.number(100 * d.worst)} % of the largest gradient (step {STEP}, float32): "
                 "they are approximations, worse where a ReLU switches within the step. "
                 "Backpropagation is exact up to rounding.", width),
        *wrapped(f"Computed: were a forward pass to take 1 ms, one-sided differences would take "
                 f"{duration(textbook)} for one update, and {duration(textbook * UPDATES)} for "
                 f"{UPDATES:,} updates.", width)]


def _ratios_text(ratios: Sequence[Ratio], batch: int, style: Style, width: int) -> list[str]:
    rows = [("parameters", "forward", "backward", "step", "backward ÷ forward",
             "step ÷ forward")]
    rows += [(f"{r.parameters:,}", duration(r.forward), duration(r.backward), duration(r.step),
              f"{r.backward / r.forward:.2f}", f"{r.step / r.forward:.2f}") for r in ratios]
    low = min(r.step / r.forward for r in ratios)
    high = max(r.step / r.forward for r in ratios)
    growth = ratios[-1].parameters / ratios[0].parameters
    return [
        *table(rows, width, right=(0, 1, 2, 3, 4, 5)), "",
        *wrapped(f"Networks 64-h-h-10, a batch of {batch}, float32; medians; a step is zero_grad, "
                 "forward, backward and SGD. All measured, nothing extrapolated.", width),
        *wrapped(f"The parameters grow {_three(growth)}-fold, a step stays between "
                 f"{low:.1f} and {high:.1f} forward passes. In theory backward is two forward "
                 "passes, since each layer's matrix product has two products in its derivative, "
                 "one for the weights and one for the inputs; the first layer needs only one. "
                 "In small networks the bookkeeping per operation counts, not the arithmetic; in "
                 "large ones with small batches, reading and writing the weights.", width)]


def _counts_text(c: Applications, chain: Applications, layers: str, width: int) -> list[str]:
    names = sorted({*c.forward, *c.backward}, key=lambda n: (-c.forward[n], n))
    rows: list[tuple[str, str, str]] = [("primitive", "forward", "backward")]
    rows += [(n, str(c.forward[n]), str(c.backward[n])) for n in names]
    rows.append(("together", str(c.forward.total()), str(c.backward.total())))
    return [
        *wrapped(f"The network {layers}, primitives applied in one forward and one backward pass, "
                 "counted:", width), "",
        *table(rows, width, right=(1, 2)), "",
        *wrapped(f"{c.repeated} of the {c.backward.total()} backward applications repeat one of "
                 "the forward pass (same primitive, same operands): backward reads what forward "
                 "kept. The softmax in it is cross-entropy's derivative, which the fused forward "
                 "evaluation has no need to keep.", width),
        *wrapped(f"Where results are shared, computing each once matters more. x is squared "
                 f"{chain.forward.total()} times in a row: backpropagation runs {chain.rules} "
                 f"rules, one for each use of a result. Following every path from the loss to x on "
                 f"its own would run {chain.walked:,} (counted, not run).", width)]


def threads() -> str:
    """How many threads NumPy was told to use."""
    told = next((os.environ[name] for name in THREADS if name in os.environ), None)
    if told is None:
        return "as many threads as NumPy likes"
    return "one thread" if told == "1" else f"{told} threads"


if __name__ == "__main__":
    print(report(*json.loads(sys.argv[1])))
