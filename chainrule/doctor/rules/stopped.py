"""Rules about errors of the engine that stop a program: the page and the line of each.

Two of them are also asked while it runs, where the same fault stops nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from chainrule.core.errors import ChainruleError
from chainrule.core.node import Origin, is_internal
from chainrule.core.places import NOWHERE, place_of
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import Run
from chainrule.doctor.rule import rule
from chainrule.doctor.variables import assigned, carried

from .parameters import held_by_optimizers
from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION


def marked(error: BaseException | None, id: str) -> ChainruleError | None:
    """The error, or one that it was raised from, if it is about this rule."""
    while error is not None:
        if isinstance(error, ChainruleError) and error.rule == id:
            return error
        error = error.__cause__ or error.__context__
    return None


def frames(error: BaseException) -> list[Any]:
    """The user's frames that the error went through, the innermost last."""
    found = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not is_internal(file) and not file.startswith("<frozen"):
            found.append(trace)
        trace = trace.tb_next
    return found


def line_of(error: ChainruleError) -> Origin:
    """The line the error is about: the one it names, else the user's line that raised it."""
    if error.places:
        place: Origin = error.places[0]
        return place
    return raised_at(error)


def raised_at(error: BaseException) -> Origin:
    """The user's line that the error came out of."""
    passed = frames(error)
    if not passed:
        return Origin("", 0, "", "")
    code = passed[-1].tb_frame.f_code
    return Origin(code.co_filename, passed[-1].tb_lineno, code.co_name, "")


def first_line(error: ChainruleError) -> str:
    return str(error).partition("\n")[0]


def told(run: Run, id: str, why: str, cure: str) -> Iterator[Finding]:
    """The finding for an error that carries this rule's id."""
    error = marked(run.error, id)
    if error is not None:
        outer = run.error if isinstance(run.error, ChainruleError) else error
        place = line_of(error if error.places or frames(error) else outer)
        yield Finding(id, "error", first_line(outer), why, cure, place,
                      evidence={"error": type(outer).__name__}, step=max(run.count - 1, 0))


@rule("CR204", "nothing in the model can learn", stops=None, example=REGRESSION + """
for p in model.parameters():
    p.requires_grad = False
""" + OPTIMIZER + MSE + LOOP, cured=REGRESSION + """
for p in model[0].parameters():
    p.requires_grad = False
optimizer = cr.optim.SGD(model[2].parameters(), lr=0.05)
""" + MSE + LOOP)
def frozen(run: Run) -> Iterator[Finding]:
    """Every parameter has requires_grad=False: then no update changes anything.

    As a rule `backward()` says so itself: it found nothing that requires a gradient, and all
    parameters of the modules in the variables of the program (or of the models that are watched)
    are frozen, and so is what the optimisers hold. Where something else requires a gradient, an
    input say, the pass works, and only the optimiser's steps do nothing: told from the third step
    on, if no optimiser of the program holds a parameter that requires a gradient.

    A frozen backbone is fine as long as a part behind it learns; so is a frozen network whose
    input is what is optimised: then the optimiser holds the input. The line named is the one that
    froze the first of the parameters, where it is known.
    """
    held = list(held_by_optimizers(run).values())
    if run.error is None:
        if len(run.steps) < 3 or run.latest.loss is None or not held or any(
                p.requires_grad for p in held) or run.latest.optimizer is None:
            return                             # or none of them made this step
        yield Finding(
            "CR204", "error", f"all {len(held)} parameters of the optimisers have "
            "requires_grad=False: their steps change nothing.",
            "backward() works, since something else requires a gradient, but no parameter gets "
            "one, and an optimiser leaves out what has none.", UNFREEZE,
            place_of(held[0], "frozen") if place_of(held[0], "frozen").file
            else run.latest.place("step"), evidence={"frozen": len(held)}, step=run.latest.number)
        return
    yield from told(run, "CR204", NOWHERE_TO_GO, UNFREEZE)
    error = marked(run.error, "CR308")
    own = [p for _, model in run.models for p in model.parameters()]
    if error is None or not own or any(p.requires_grad for p in (*own, *held)):
        return
    place = place_of(own[0], "frozen")
    yield Finding(
        "CR204", "error", f"all {len(own)} parameters have requires_grad=False: nothing can learn.",
        NOWHERE_TO_GO, UNFREEZE, place if place.file else raised_at(error),
        evidence={"frozen": len(own)}, step=max(run.count - 1, 0))


NOWHERE_TO_GO = ("The loss depends on nothing that could change, so backward() has nowhere to go.")
UNFREEZE = "model.requires_grad_(True)      # or only the part that is to learn: model.head"


@rule("CR305", "a value that the backward pass needs is overwritten", stops=True,
      example=REGRESSION + OPTIMIZER + MSE + """
for step in range(12):
    optimizer.zero_grad()
    hidden = model[0](x).exp()
    loss = loss_fn(model[2](hidden), y)
    hidden -= 1
    loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + """
for step in range(12):
    optimizer.zero_grad()
    hidden = model[0](x).tanh()
    loss = loss_fn(model[2](hidden), y)
    smaller = hidden - 1
    loss.backward()
    optimizer.step()
""")
def overwritten(run: Run) -> Iterator[Finding]:
    """`x += 1`, `x.mul_(2)`, `x[0] = 1` write into memory that an operation keeps for its slope.

    The engine counts the writes to every array that it keeps; the line named is the one that wrote.
    Where the operation does not need the value (an addition, say), writing is allowed.
    """
    yield from told(run, "CR305", "The derivative would be computed from the new numbers: a wrong "
                    "gradient. So the engine stops.",
                    "x = x + 1            # a new tensor, instead of x += 1\n"
                    "x = x.clone()        # or write into a copy")


@rule("CR306", "a second backward pass through one graph", stops=True,
      example=REGRESSION + OPTIMIZER + MSE + """
features = model[0](x).tanh()
for step in range(12):
    optimizer.zero_grad()
    loss = loss_fn(model[2](features), y)
    loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + """
for step in range(12):
    optimizer.zero_grad()
    features = model[0](x).tanh()
    loss = loss_fn(model[2](features), y)
    loss.backward()
    optimizer.step()
""")
def second_pass(run: Run) -> Iterator[Finding]:
    """The first backward pass drops what it has used; a second one through the same part fails.

    Most often a part was computed before the loop, or a hidden state is carried from one step to
    the next: then the line named is the one that hands it on, else the one whose result is used
    again. Where two losses share a part and each has its own `backward()` within one step, it is
    that of the first: the two passes can be one, or the first can keep the graph.
    """
    error = marked(run.error, "CR306")
    first = None if error is None else earlier_pass(run, error)
    if error is not None and first is not None:
        shared = error.places[0] if error.places else raised_at(error)
        yield Finding(
            "CR306", "error", first_line(error),
            f"Two losses share what line {shared.line} computes. The first pass drops what it has "
            "used there, and the second needs it again.",
            "(first_loss + second_loss).backward()       # one pass for both, or\n"
            "first_loss.backward(retain_graph=True)      # the first keeps the graph",
            first, evidence={"error": type(error).__name__, "shared": shared.line},
            step=run.latest.number)
        return
    name, place = "", NOWHERE
    for trace in reversed(frames(error)) if error is not None else ():
        name, place = carried(trace.tb_frame)
        if place.file:
            break
    if error is not None and place.file:
        yield Finding(
            "CR306", "error", first_line(error),
            f"{name} carries the graph of this step into the next one, whose pass would go through "
            "it again.", f"{name} = {name}.detach()      # after optimizer.step(): the numbers go "
            "on, the graph ends", place, subject=name,
            evidence={"error": type(error).__name__}, step=run.latest.number)
        return
    yield from told(run, "CR306", "A graph holds numbers of one forward pass. With weights that "
                    "have changed since they would be out of date anyway.",
                    "hidden = hidden.detach()               # carried over, but not trained "
                    "through; or compute it\n"
                    "# inside the loop; or, if both passes are meant, in the first:\n"
                    "loss.backward(retain_graph=True)")


def earlier_pass(run: Run, error: ChainruleError) -> Origin | None:
    """The line of another backward pass of this step, if it is the one that dropped the values."""
    events = run.latest.events if run.steps else []
    passes = [event.place for event in events if event.what == "backward"]
    return next((place for place in passes[:-1] if place.line != passes[-1].line
                 and place in error.places[1:]), None)


FUNCTION = """
import chainrule as cr
from chainrule import nn

class Scale(cr.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale, {gradient}

cr.manual_seed(0)
x, y = cr.randn(32, 3), cr.randn(32, 1)
model = nn.Linear(3, 1)
scale = nn.Parameter(cr.ones(3))
optimizer = cr.optim.SGD([*model.parameters(), scale], lr=0.05)
loss_fn = nn.MSELoss()
for step in range(12):
    optimizer.zero_grad()
    loss = loss_fn(model(Scale.apply(x, scale)), y)
    loss.backward()
    optimizer.step()
"""


@rule("CR307", "a gradient of the wrong shape from a function of your own", stops=True,
      example=FUNCTION.format(gradient="g * x"), cured=FUNCTION.format(gradient="(g * x).sum(0)"))
def wrong_shape(run: Run) -> Iterator[Finding]:
    """`backward` of a custom `Function` returns one gradient for each argument, in its shape.

    An argument that was broadcast needs the sum over the axes along which it was repeated;
    `cr.gradcheck` compares the numbers with differences. The line named is the last `return` of
    that `backward`.
    """
    yield from told(run, "CR307", "A gradient says how much each number of the argument counts, so "
                    "it has the argument's shape.",
                    "return g * scale, (g * x).sum(0)      # summed over what was broadcast\n"
                    "# then: cr.autograd.gradcheck(YourFunction.apply, inputs in float64)")


@rule("CR308", "a loss without a gradient", stops=True, example=REGRESSION + OPTIMIZER + MSE + """
for step in range(12):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y).detach()
    loss.backward()
    optimizer.step()
""", cured=REGRESSION + OPTIMIZER + MSE + LOOP)
def no_gradient(run: Run) -> Iterator[Finding]:
    """`backward()` on a tensor that is connected to nothing that requires a gradient.

    The engine remembers where gradients were stopped lately (`detach()`, `.data`, `.item()`,
    `no_grad()`, a cast to whole numbers, NumPy); the line named is the last of these, or that of
    `backward()`. What stands between the line that sets the loss and `backward()`, such as an
    accuracy that is logged, came too late to be the cause. Where recording is off at the moment of
    the pass, the line named is the one that turned it off. A frozen model is CR204.
    """
    if next(frozen(run), None) is None:
        too_late(run.error)
        yield from told(run, "CR308", "backward() has nowhere to go from here: no weight would get "
                        "a gradient.",
                        "# compute the loss from the model's output by tensor operations alone:\n"
                        "# no .item(), .numpy(), .data, cr.tensor(...), no_grad() on the way")


def too_late(error: BaseException | None) -> None:
    """Places of the error that lie between the line that sets the loss and the backward pass go to
    the end of its list.
    """
    marks = marked(error, "CR308")
    passed = frames(marks) if marks is not None else []
    if marks is None or not passed:
        return
    frame, line = passed[-1].tb_frame, passed[-1].tb_lineno
    raised = Origin(frame.f_code.co_filename, line, frame.f_code.co_name, "")
    try:
        calls = [x for x in ast.walk(ast.parse(raised.source())) if isinstance(x, ast.Attribute)]
    except SyntaxError:                # a line of several
        return
    names = [x.value.id for x in calls if x.attr == "backward" and isinstance(x.value, ast.Name)]
    begin = assigned(frame, names[0]) if names else raised
    late = [place for place in marks.places if place.file == raised.file
            and place.function == raised.function and begin.line < place.line < line]
    if begin.file and len(late) < len(marks.places):
        marks.places = (*[place for place in marks.places if place not in late], *late)


@rule("CR404", "targets that are no classes", stops=None, example=CLASSES + OPTIMIZER + ENTROPY
      + "y = y + 1      # 1, 2, 3\n" + LOOP, cured=CLASSES + OPTIMIZER + ENTROPY + LOOP)
def no_classes(run: Run) -> Iterator[Finding]:
    """Cross entropy needs whole numbers from 0 to K − 1, one for each row of the K scores; binary
    cross entropy needs numbers from 0 to 1.

    Classes counted from 1, float classes, one-hot rows of whole numbers, a column (N, 1), and −1
    and +1 are the usual mistakes. Most losses check it at every call. Binary cross entropy of
    logits does not, as in PyTorch, and is looked up in the graph: its slope is sigmoid(x) − t,
    which for t < 0 or t > 1 is never 0, so that the loss falls without end. It is linear in t, so a
    little more or less does no harm where the mean stays inside: labels of a GAN drawn from 0.7 to
    1.2 (Chintala et al. 2016, "How to train a GAN?") and rounding are let pass, up to 0.25.
    """
    if run.error is not None:
        yield from told(run, "CR404", "The target of a row is the position of its class among the "
                        "scores; of a yes-or-no question it is 0 or 1.",
                        "target = target.long()            # float classes\n"
                        "target = target - 1               # counted from 1; or one more output\n"
                        "target = (target + 1) / 2         # -1 and 1\n"
                        "target = target.squeeze(1)        # a column; .argmax(1) for one-hot")
        return
    graph = run.latest.graph
    for node in () if graph is None else graph.named("bce_with_logits"):
        target = graph.saved[node][1] if graph is not None and len(graph.saved[node]) > 1 else None
        if type(target) is not np.ndarray or not target.size:
            continue
        least, most = float(target.min()), float(target.max())
        if (least >= -BEYOND and most <= 1 + BEYOND) or least != least:
            continue
        signs = bool(np.all(np.abs(target) == 1))
        yield Finding(
            "CR404", "error",
            f"the targets of a binary cross entropy go from {least:g} to {most:g}, and must lie "
            "between 0 and 1.",
            "The slope at a score x is sigmoid(x) - target, which is never 0 for such a target: "
            "the scores grow without limit, and the loss falls below 0.",
            "target = (target + 1) / 2                    # -1 and 1 become 0 and 1, or\n"
            "F.soft_margin_loss(scores, target)           # the same loss, for -1 and 1" if signs
            else "target = (target - target.min()) / (target.max() - target.min())",
            node.origin, evidence={"least": least, "most": most}, step=run.latest.number)
        return


BEYOND = 0.25             # so far outside of 0 to 1 are noisy labels, but not -1 or 2


NORMED = CLASSES.replace("nn.ReLU()", "nn.BatchNorm1d(32), nn.ReLU()")
PARTS = """
for start in range(0, 64, {size}):
    optimizer.zero_grad()
    loss = loss_fn(model(x[start:start + {size}]), y[start:start + {size}])
    loss.backward()
    optimizer.step()
"""


@rule("CR702", "batch normalisation of a single sample", stops=True, example=NORMED + OPTIMIZER
      + ENTROPY + PARTS.format(size=21), cured=NORMED + OPTIMIZER + ENTROPY + PARTS.format(size=16))
def single_sample(run: Run) -> Iterator[Finding]:
    """In training, batch norm divides by the deviation over the batch; one sample has none.

    Often it is the rest at the end of the data: 64 = 3 · 21 + 1.
    """
    yield from told(run, "CR702", "With one value per channel, the value minus the mean is 0 "
                    "whatever the input.",
                    "DataLoader(data, batch_size=..., drop_last=True)\n"
                    "nn.GroupNorm(8, channels)      # or a normalisation within each sample\n"
                    "model.eval()                   # if this is no training step")
