"""Rules about errors of the engine that stop a program: the page and the line of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from chainrule.core.errors import ChainruleError
from chainrule.core.node import Origin
from chainrule.doctor.finding import Finding
from chainrule.doctor.history import Run
from chainrule.doctor.rule import rule
from chainrule.nn import Module

from .programs import CLASSES, ENTROPY, LOOP, MSE, OPTIMIZER, REGRESSION

LIBRARY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


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
        if not file.startswith((LIBRARY, "<frozen")):
            found.append(trace)
        trace = trace.tb_next
    return found


def line_of(error: ChainruleError) -> Origin:
    """The line the error is about: the one it names, else the user's line that raised it."""
    if error.places:
        place: Origin = error.places[0]
        return place
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


@rule("CR204", "nothing in the model can learn", stops=True, example=REGRESSION + """
for p in model.parameters():
    p.requires_grad = False
""" + OPTIMIZER + MSE + LOOP, cured=REGRESSION + """
for p in model[0].parameters():
    p.requires_grad = False
optimizer = cr.optim.SGD(model[2].parameters(), lr=0.05)
""" + MSE + LOOP)
def frozen(run: Run) -> Iterator[Finding]:
    """`backward()` found nothing that requires a gradient, and every parameter of every model has
    requires_grad=False.

    A frozen backbone is fine as long as a part behind it learns. The models are those that are
    watched, or those in the variables of the functions that the error went through.
    """
    error = marked(run.error, "CR308")
    if error is None or error.places:
        return
    models = models_of(run, error)
    own = [p for model in models for p in model.parameters()]
    if not own or any(p.requires_grad for p in own):
        return
    yield Finding(
        "CR204", "error",
        f"all {len(own)} parameters have requires_grad=False: nothing can learn.",
        "The loss depends on nothing that could change, so backward() has nowhere to go.",
        "model.requires_grad_(True)      # or only the part that is to learn: model.head",
        line_of(error), evidence={"frozen": len(own)}, step=max(run.count - 1, 0))


def models_of(run: Run, error: BaseException) -> list[Module]:
    """The watched models, else the modules in the variables of the functions that failed."""
    if run.models:
        return [model for _, model in run.models]
    found: dict[int, Module] = {}
    for trace in frames(error):
        frame = trace.tb_frame
        values = list(frame.f_locals.values())
        values += [frame.f_globals[name] for name in frame.f_code.co_names
                   if name in frame.f_globals]
        found.update((id(x), x) for x in values if isinstance(x, Module))
    return list(found.values())


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
    the next. The line named is the one whose result is used again.
    """
    yield from told(run, "CR306", "A graph holds numbers of one forward pass. With weights that "
                    "have changed since they would be out of date anyway.",
                    "hidden = hidden.detach()               # carried over, but not trained "
                    "through; or compute it\n"
                    "# inside the loop; or, if both passes are meant, in the first:\n"
                    "loss.backward(retain_graph=True)")


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
    `cr.gradcheck` compares the numbers with differences.
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
    `backward()`. A frozen model is CR204.
    """
    if next(frozen(run), None) is None:
        yield from told(run, "CR308", "backward() has nowhere to go from here: no weight would get "
                        "a gradient.",
                        "# compute the loss from the model's output by tensor operations alone:\n"
                        "# no .item(), .numpy(), .data, cr.tensor(...), no_grad() on the way")


@rule("CR404", "targets that are no classes", stops=True, example=CLASSES + OPTIMIZER + ENTROPY
      + "y = y + 1      # 1, 2, 3\n" + LOOP, cured=CLASSES + OPTIMIZER + ENTROPY + LOOP)
def no_classes(run: Run) -> Iterator[Finding]:
    """Cross entropy needs whole numbers from 0 to K − 1, one for each row of the K scores.

    Classes counted from 1, float classes, one-hot rows of whole numbers and a column (N, 1) are the
    usual mistakes. Checked by the loss itself at every call.
    """
    yield from told(run, "CR404", "The target of a row is the position of its class among the "
                    "scores.",
                    "target = target.long()            # float classes\n"
                    "target = target - 1               # counted from 1; or one more output\n"
                    "target = target.squeeze(1)        # a column; .argmax(1) for one-hot")


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
