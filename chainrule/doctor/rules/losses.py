"""Rules about the loss: what goes into it, and what its value says: CR4xx."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import edges_of
from chainrule.core.node import Node
from chainrule.doctor.finding import Finding
from chainrule.doctor.graph import Graph
from chainrule.doctor.history import Run
from chainrule.doctor.rule import rule

from .parameters import ratios_of
from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION
from .stopped import told

ENTROPIES = ("cross_entropy_mean", "cross_entropy_ignoring")


def scores_of(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """(a cross entropy, the scores it was given), as rows or composed by hand."""
    for node in graph.order:
        if node.name in (*ENTROPIES, "log_softmax") and edges_of(node):
            yield node, edges_of(node)[0]


@rule("CR401", "softmax before a loss that contains softmax",
      example=CLASSES.replace("nn.Linear(32, 3))", "nn.Linear(32, 3), nn.Softmax(1))")
      + OPTIMIZER + ENTROPY + LOOP, cured=CLASSES + OPTIMIZER + ENTROPY + LOOP)
def double_softmax(run: Run) -> Iterator[Finding]:
    """Cross entropy takes raw scores and applies log-softmax itself: softmax squashes them twice.

    Seen in the graph, through reshapes and slices. The loss then cannot fall below
    ln(1 + (K − 1)/e), 0.55 for three classes, and gradients are a fraction of what they should be.
    """
    graph = run.latest.graph
    if graph is None:
        return
    for node, scores in scores_of(graph):
        maker = graph.maker(scores)
        if maker is None or maker.name != "softmax":
            continue
        classes = graph.saved[node][0].shape[-1] if hasattr(graph.saved[node][0], "shape") else 0
        least = math.log(1 + (classes - 1) / math.e) if classes > 1 else 0.0
        yield Finding(
            "CR401", "error",
            f"softmax{_in(maker)} is applied before a cross entropy, which applies it again.",
            f"The loss cannot fall below {least:.2f}, and its gradients are a fraction of what "
            "they should be.", "loss = cross_entropy(scores, target)      # raw scores",
            maker.origin, subject=maker.origin.module, evidence={"least": least},
            step=run.latest.number)


@rule("CR402", "sigmoid before a loss that contains sigmoid", example=REGRESSION.replace(
    "nn.Linear(16, 1))", "nn.Linear(16, 1), nn.Sigmoid())").replace(
    "0.1 * cr.randn(64, 1)", "0.1 * cr.randn(64, 1)\ny = (y > 0).float()") + OPTIMIZER
    + "loss_fn = nn.BCEWithLogitsLoss()\n" + LOOP, cured=REGRESSION.replace(
    "0.1 * cr.randn(64, 1)", "0.1 * cr.randn(64, 1)\ny = (y > 0).float()") + OPTIMIZER
    + "loss_fn = nn.BCEWithLogitsLoss()\n" + LOOP)
def double_sigmoid(run: Run) -> Iterator[Finding]:
    """`BCEWithLogitsLoss` and cross entropy take raw scores; sigmoid before them squashes them into
    (0, 1), so that no probability below ½ (for two classes) can be expressed.
    """
    graph = run.latest.graph
    if graph is None:
        return
    found = [(n, edges_of(n)[0]) for n in graph.named("bce_with_logits") if edges_of(n)]
    found += list(scores_of(graph))
    for node, scores in found:
        maker = graph.maker(scores)
        if maker is None or maker.name != "sigmoid":
            continue
        yield Finding(
            "CR402", "error", f"sigmoid{_in(maker)} is applied before "
            f"{node.name.replace('_', ' ')}, which expects raw scores.",
            "Scores in (0, 1) mean probabilities between 0.5 and 0.73: the loss cannot become "
            "small.", "loss = loss_fn(scores, target)      # raw scores, or BCELoss after sigmoid",
            maker.origin, subject=maker.origin.module, step=run.latest.number)


def _in(node: Node) -> str:
    return f" (layer {node.origin.module})" if node.origin.module else ""


@rule("CR403", "every prediction is compared with every target", stops=None,
      example=REGRESSION + OPTIMIZER + "y = y.squeeze(1)\n" + """
for step in range(12):
    optimizer.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + """
for step in range(12):
    optimizer.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    optimizer.step()
""")
def broadcast_in_loss(run: Run) -> Iterator[Finding]:
    """(N, 1) against (N,) broadcasts to (N, N).

    Seen in the graph: a difference or product of a tracked (N, 1) and an untracked (N,), or the
    other way round, that is reduced to the loss within a few steps. The library's own losses
    refuse such shapes, with this page.
    """
    why = "The best the model can do is to predict the mean of all targets."
    if run.error is not None:
        yield from told(run, "CR403", why, "prediction.squeeze(1)      # or target.unsqueeze(1)")
        return
    graph = run.latest.graph
    if graph is None:
        return
    for node in graph.order:
        if node.name not in ("sub", "mul", "add") or len(node.shape) != 2:
            continue
        n, m = node.shape
        if n != m or n < 2 or len(edges_of(node)) != 1:
            continue
        tracked = graph.maker(edges_of(node)[0], ("broadcast",))
        constant = next((x for x, edge in zip(graph.saved[node], node.inputs, strict=False)
                         if edge is None and hasattr(x, "shape")), None)
        if tracked is None or constant is None:
            continue
        shapes = {tuple(tracked.shape), tuple(constant.shape)}
        if shapes not in ({(n, 1), (n,)}, {(n, 1), (1, n)}):
            continue
        if not _close_to_the_loss(graph, node):
            continue
        yield Finding(
            "CR403", "error",
            f"{tracked.type} {_sign(node)} {constant.dtype.name}{list(constant.shape)} gives "
            f"{n}×{n} numbers: every prediction is compared with every target.",
            why,
            f"prediction.squeeze(1)      # or target.reshape({n}, 1)", node.origin,
            evidence={"shape": [n, n]}, step=run.latest.number)


def _sign(node: Node) -> str:
    return {"sub": "−", "mul": "·", "add": "+"}[node.name]


def _close_to_the_loss(graph: Graph, node: Node) -> bool:
    for _ in range(5):
        readers = graph.readers.get(node, [])
        if not readers:
            return node is graph.root
        node = readers[0]
    return False


@rule("CR405", "the first loss is far from that of guessing", example=CLASSES + """
for p in model.parameters():
    p.data.mul_(20)
""" + OPTIMIZER + ENTROPY + LOOP, cured=CLASSES + OPTIMIZER + ENTROPY + LOOP)
def first_loss(run: Run) -> Iterator[Finding]:
    """Before training, K classes are equally likely: the loss should be about ln K.

    More than twice that means scores that are large and wrong: weights or inputs are too large
    (CS231n, "neural networks 3"; the threshold is TheDeepChecker's, arXiv 2204.00694).
    """
    step = run.latest
    graph = step.graph
    if step.number or graph is None or not step.losses:
        return
    node = next((n for n in graph.order if n.name in ENTROPIES), None)
    if node is None or not hasattr(graph.saved[node][0], "shape") or node is not graph.root:
        return
    classes = graph.saved[node][0].shape[1 if len(graph.saved[node][0].shape) > 1 else 0]
    guess = math.log(classes) if classes > 1 else 0.0
    loss = step.losses[0]
    if not (guess and loss > 2 * guess and math.isfinite(loss)):
        return
    yield Finding(
        "CR405", "warning",
        f"the first loss is {loss:.3g}; guessing among {classes} classes costs ln {classes} = "
        f"{guess:.3g}.",
        "The untrained network is sure of wrong answers: its scores are too large, and the first "
        "steps go into unlearning them.",
        "# smaller initial weights in the last layer, or inputs scaled to mean 0 and deviation 1",
        node.origin, evidence={"loss": loss, "guessing": guess}, step=0)


@rule("CR406", "the loss is a sum over the batch", after=3, example=REGRESSION + OPTIMIZER.replace(
    "0.05", "0.0005") + 'loss_fn = nn.MSELoss(reduction="sum")\n' + LOOP,
      cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def summed(run: Run) -> Iterator[Finding]:
    """`reduction="sum"`: gradients and so the steps grow with the batch.

    Only a remark: it is right where the learning rate was chosen for it. Recognised where the last
    operation of the loss, but for its sign, is a sum over at least 8 numbers.
    """
    graph = run.latest.graph
    if graph is None:
        return
    root = graph.maker(graph.root, ("neg", "identity"))
    if root is None or root.name != "sum" or not hasattr(graph.saved[root][0], "shape"):
        return
    count = int(np.prod(graph.saved[root][0].shape))
    if count < 8:
        return
    yield Finding(
        "CR406", "info", f"the loss is a sum of {count} numbers, not their mean.",
        "The learning rate then means something else for each size of batch.",
        'reduction="mean", or loss / len(x)', root.origin, evidence={"terms": count},
        step=run.latest.number)


@rule("CR407", "the loss stays where guessing puts it", after=1, example="""
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
loss_fn = nn.CrossEntropyLoss()
for step in range(400):
    x = cr.randn(64, 4)
    y = cr.randint(0, 3, (64,))           # labels that have nothing to do with x
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
""", cured="""
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
loss_fn = nn.CrossEntropyLoss()
for step in range(400):
    x = cr.randn(64, 4)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
""")
def no_better_than_guessing(run: Run) -> Iterator[Finding]:
    """After 50 steps the mean loss is still that of always answering with the classes' shares.

    With gradients that are neither tiny nor cut, and weights that have moved by a tenth of their
    size, that means there is nothing to learn: labels that were shuffled against the inputs, or
    inputs that do not hold the answer. Compared with the entropy of the targets in the batch, by
    the mean of the last 25 losses, within 3 %; and these are no lower than the 25 before them.
    Where the loss is more than this cross entropy, nothing is said.
    """
    step = run.latest
    graph = step.graph
    losses = run.losses[run.phase:]
    if len(losses) < 50 or graph is None:
        return
    node, target = _classes(graph)
    if node is None or target is None or target.size < 16:      # too few to know the shares
        return
    if not _is_the_loss(graph, node):
        return
    shares = np.unique(target, return_counts=True)[1] / target.size
    entropy = float(-(shares * np.log(shares)).sum())
    before, recent = float(np.mean(losses[-50:-25])), float(np.mean(losses[-25:]))
    gradients = [p.gradient.norm for p in step.parameters.values() if p.gradient is not None]
    if entropy < 0.1 or not recent > 0.97 * entropy or not max(gradients, default=0.0) > 1e-4:
        return
    if before > 1.03 * recent or abs(recent) > 3 * entropy:      # it is on its way, or another loss
        return
    if max(ratios_of(step).values(), default=0.0) * len(losses) < 0.1:
        return
    yield Finding(
        "CR407", "warning",
        f"after {len(losses)} steps the loss is {recent:.3g}; answering by the classes' "
        f"shares alone costs {entropy:.3g}.",
        "Gradients arrive, and still nothing is learned: the labels may not belong to the inputs "
        "(shuffled separately, wrong column), or the inputs do not hold the answer.",
        "# print a few inputs with their labels; try to learn 20 of them by heart", node.origin,
        evidence={"loss": recent, "entropy": entropy}, step=step.number)


def _is_the_loss(graph: Graph, node: Node) -> bool:
    """Nothing is added to it on its way to the root."""
    while node is not graph.root:
        readers = graph.readers.get(node, [])
        if len(readers) != 1 or len(edges_of(readers[0])) != 1 or readers[0].name in ("add", "sub"):
            return False
        node = readers[0]
    return True


def _classes(graph: Graph) -> tuple[Node | None, np.ndarray[Any, Any] | None]:
    """A cross entropy, as one operation or as log-softmax and a choice, and its classes."""
    for node in graph.order:
        asked = [node] if node.name in ENTROPIES else (
            graph.readers.get(node, []) if node.name == "log_softmax" else [])
        for reader in asked:
            for value, edge in zip(graph.saved[reader], reader.inputs, strict=False):
                if edge is None and type(value) is np.ndarray and value.dtype.kind in "iu" \
                        and value.size > 1:
                    return reader, value
    return None, None
