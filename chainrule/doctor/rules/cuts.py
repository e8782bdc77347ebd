"""Rules about gradients that are stopped on their way: CR3xx."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chainrule.core.node import Origin
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import Run
from chainrule.doctor.rule import rule
from chainrule.doctor.variables import keeper

from .parameters import held_by_optimizers
from .programs import LOOP, MSE, OPTIMIZER, REGRESSION

STEPLIKE = ("round", "floor", "ceil", "trunc", "sign")

CUT = """
import chainrule as cr
from chainrule import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.first(x).tanh(){cut}
        return self.last(hidden)

cr.manual_seed(0)
x, y = cr.randn(32, 3), cr.randn(32, 1)
model = Net()
"""


@rule("CR301", "the gradient is cut on its way", after=3,
      example=CUT.format(cut=".detach()") + OPTIMIZER + MSE + LOOP,
      cured=CUT.format(cut="") + OPTIMIZER + MSE + LOOP)
def cut(run: Run) -> Iterator[Finding]:
    """`detach()`, `.data`, `.item()`, a cast to whole numbers or a round trip through NumPy lies on
    the way from the loss to a parameter, and there is no other way.

    Told with certainty: the parameter is in an optimiser, no backward pass ever reached it, and it
    is among what that line was computed from; or its module was called, but only under `no_grad()`.
    """
    if run.partial:
        return
    held = held_by_optimizers(run)
    # Also those that only the optimiser knows: a module before the cut is not in the loss's graph.
    own = {id(p): (name, p) for name, p in run.parameters()}
    blamed: dict[tuple[str, int], list[str]] = {}
    unseen: dict[Origin, list[str]] = {}
    for key, (name, p) in own.items():
        if key not in held or key in run.reached or not p.requires_grad or p.grad is not None:
            continue
        cuts = [c for c in run.cuts if key in c.leaves]
        if cuts:
            place = cuts[-1].place
            blamed.setdefault((place.file, place.line), []).append(name)
        elif key in run.unrecorded:
            unseen.setdefault(run.unrecorded[key], []).append(name)
    for place, names in unseen.items():
        yield Finding(
            "CR301", "error",
            f"{names[0]}{_more(names)} never gets a gradient: its module is called under no_grad() "
            "only.",
            "What is computed there is not recorded, so that it cannot learn.",
            "# call it outside of no_grad(), set_grad_enabled(False) and inference_mode(); or, if "
            "it\n# is not to learn: requires_grad_(False), and leave it out of the optimiser",
            place, subject=names[0], evidence={"parameters": len(names)}, step=run.latest.number)
    for c in reversed(run.cuts):
        names = blamed.pop((c.place.file, c.place.line), [])
        if not names:
            continue
        if "whose result is" in c.what or ".to(" in c.what:
            continue                           # CR302 says it better
        yield Finding(
            "CR301", "error",
            f"{names[0]}{_more(names)} never gets a gradient: {c.what} cuts the only way to the "
            "loss.",
            "What lies before the cut cannot learn.",
            "# compute the loss from the tensor itself; detach only what is logged or is a target",
            c.place, subject=names[0], evidence={"parameters": len(names)},
            step=run.latest.number)


@rule("CR302", "an operation without a derivative on the only way", after=3, example=CUT.format(
    cut=".round()") + OPTIMIZER + MSE + LOOP, cured=CUT.format(cut="") + OPTIMIZER + MSE + LOOP)
def no_derivative(run: Run) -> Iterator[Finding]:
    """argmax, a comparison or a cast to whole numbers, whose result is no float; or round, floor,
    sign, whose slope is 0 almost everywhere. The gradient of what lies before is None or all 0.
    """
    held, graph = held_by_optimizers(run), run.latest.graph
    own = {id(p): (name, p) for name, p in run.parameters()}
    unreached = {key: name for key, (name, p) in own.items()
                 if key in held and p.requires_grad and key not in run.reached and p.grad is None}
    for c in run.cuts:
        names = [name for key, name in unreached.items() if key in c.leaves]
        if names and ("whose result is" in c.what or ".to(" in c.what):
            yield _steps(run, names, c.what.split(",")[0], c.place)
            return
    if graph is None:
        return
    for node in graph.order:
        if node.name not in STEPLIKE:
            continue
        inside = {node}
        for other in reversed(graph.order):
            if other in inside:
                inside.update(e for e in other.inputs if e is not None)
        names = []
        for leaf in inside:
            tensor = leaf.out() if leaf.prim is None and callable(leaf.out) else None
            if tensor is not None and id(tensor) in held and id(tensor) in own \
                    and tensor.grad is not None and not np.any(tensor.grad._value):
                names.append(own[id(tensor)][0])
        if names:
            yield _steps(run, sorted(names), node.name, node.origin)
            return


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _steps(run: Run, names: list[str], what: str, place: object) -> Finding:
    return Finding(
        "CR302", "error", f"{names[0]}{_more(names)} cannot learn: {what} lies on the only way to "
        "the loss and has no slope.",
        "A small change of the weights changes nothing behind it, so the gradient is 0.",
        "cr.softmax(scores, -1)             # instead of argmax or a comparison, or\n"
        "x + (x.round() - x).detach()       # straight through: rounds forward, passes back",
        place, subject=names[0], evidence={"parameters": len(names)},  # type: ignore[arg-type]
        step=run.latest.number)


@rule("CR304", "a list of losses keeps every graph alive", after=4, example=REGRESSION + OPTIMIZER
      + MSE + """
history = []
for step in range(12):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    history.append(loss)
""", cured=REGRESSION + OPTIMIZER + MSE + """
history = []
for step in range(12):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    history.append(loss.item())
""")
def kept_alive(run: Run) -> Iterator[Finding]:
    """The losses of many steps still exist, each with its graph.

    After `backward()` the large values are gone, but nodes and small values stay: memory grows
    step by step. Told by weak references to the last losses' nodes; who keeps them is looked up in
    the variables of the running functions, and the line is the one that adds to it.
    """
    alive = [node for node in run.roots if node() is not None]
    if len(run.roots) < 8 or len(alive) < len(run.roots):
        return
    name, place = keeper([node for node in (root() for root in alive[:4]) if node is not None])
    keeps = f"{name} keeps" if name else "something keeps"
    yield Finding(
        "CR304", "warning",
        f"the graphs of the last {len(alive)} losses are all still in memory: {keeps} them.",
        "Each loss tensor holds its whole graph: memory grows without end.",
        f"{name or 'history'}.append(loss.item())      # or loss.detach(); total += loss.item()",
        place if place.file else run.latest.place("backward"), subject=name,
        evidence={"graphs": len(alive)}, step=run.latest.number)


