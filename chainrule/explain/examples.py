"""The worked examples e1 to e8: small programs, run and explained by the same machinery as yours.

The programs are text because they are shown as well as run; nothing of their numbers stands here.
"""

from __future__ import annotations

import io
import linecache
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.core.config import settings

from .derive import Derivation, derive
from .numbers import Style
from .styles.text import explanation_text, paint_with, table, wrapped

Row = Sequence[str]
DEFAULT = Style()


@dataclass(frozen=True)
class Page:
    """How wide and how coloured an example is written, and with what numbers."""

    width: int = 100
    colour: bool = False
    style: Style = DEFAULT

    def heading(self, text: str) -> str:
        return paint_with(self.colour)(text, "bold")

    def steps(self, derivation: Derivation) -> list[str]:
        return explanation_text(derivation, self.style, self.width, self.colour).split("\n")

    def code(self, text: str) -> list[str]:
        return [f"    {line}" if line else "" for line in text.strip().split("\n")]

    def program(self, file: str, text: str) -> list[str]:
        """The program with the numbers of its lines, to which the steps refer."""
        lines = [self.heading(file)]
        for number, line in enumerate(text.strip().split("\n"), 1):
            margin = len(line) - len(line.lstrip())
            first, *more = wrapped(line, self.width - 6 - margin) or [""]
            lines.append(f"  {number:>2}  {' ' * margin}{first}".rstrip())
            lines += [" " * (10 + margin) + part for part in more]
        return lines

    def prose(self, text: str) -> list[str]:
        return wrapped(text, self.width)

    def table(self, rows: Sequence[Row], right: Sequence[int] = ()) -> list[str]:
        return table(rows, self.width, right)

    def number(self, value: Any) -> str:
        return self.style.array(np.asarray(value))


@dataclass(frozen=True)
class Example:
    """A program, what it is about, and how it is told."""

    title: str
    about: str
    program: str
    tell: Callable[[Example, str, Page], list[str]]


def run(name: str, program: str, dtype: str = "float64", **start: Any) -> dict[str, Any]:
    """Run a program as the file `<name>.py`; returns its variables."""
    text = program.strip() + "\n"
    file = f"{name}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    variables: dict[str, Any] = {"__name__": name, **start}
    with settings.using(default_dtype=dtype):
        exec(compile(text, file, "exec"), variables)
    return variables


def derived(variables: dict[str, Any], style: Style, loss: str = "L") -> Derivation:
    return derive(variables[loss], variables, names={loss: variables[loss]}, style=style)


def found(d: Derivation) -> dict[str, Any]:
    """Every value of a derivation by its name: z, ∂L/∂z, ∂a/∂z."""
    values = {step.name: step.value for step in d.forward}
    for step in d.backward:
        if not step.path:
            values[step.name] = step.value
        if step.local is not None:
            values[step.local.name] = step.local.value
    return values


def tell(name: str, page: Page | None = None) -> str:
    """One example as text. Names: e1 to e8."""
    page = page or Page()
    example = EXAMPLES[name]
    lines = [page.heading(f"{name.upper()}  {example.title}"), ""]
    lines += [*page.prose(example.about), "", *page.program(f"{name}.py", example.program), ""]
    return "\n".join([*lines, *example.tell(example, name, page)])


# ---------------------------------------------------------------- e1: one neuron


def _tell_neuron(example: Example, name: str, page: Page) -> list[str]:
    lines = []
    for target, remark in ((1.0, "The neuron is right: the loss is 0, and so is every gradient."),
                           (0.0, "The neuron is 1 too high: every factor of the chain counts.")):
        variables = run(name, example.program.replace("TARGET", str(target)))
        lines += [page.heading(f"target y = {page.number(target)}"), *page.prose(remark), "",
                  *page.steps(derived(variables, page.style)), ""]
    values = found(derived(variables, page.style))
    factors = ("∂L/∂a", "∂a/∂z", "∂v1/∂w")
    numbers = [page.number(values[f]) for f in factors]
    lines += page.prose(f"In one line, with z = v1 + b: ∂L/∂w = {' · '.join(factors)} = "
                        f"{' · '.join(numbers)} = {page.number(values['∂L/∂w'])}.")
    return lines


# ---------------------------------------------------------------- e2: sigmoid output, by hand


def _tell_by_hand(example: Example, name: str, page: Page, rate: float = 0.1) -> list[str]:
    variables = run(name, example.program)
    exact = derived(variables, page.style)
    paper = derived(variables, page.style._replace(by_hand=3, precision=3))
    whole, short = found(exact), found(paper)
    rows = [("", "by hand, 3 digits", "exact")]
    rows += [(key, with_zeros(short[key], 3), Style(7).array(whole[key]))
             for key in ("z", "p", "∂L/∂p", "∂p/∂z", "∂L/∂z", "∂L/∂W", "∂L/∂b")]
    for key in ("W", "b"):
        start = variables[key].detach().numpy()
        after = [start - rate * v[f"∂L/∂{key}"] for v in (short, whole)]
        rows.append((f"{key} − {page.number(rate)}·∂L/∂{key}",
                     Style(6).array(after[0]), Style(7).array(after[1])))
    return [*page.steps(exact), "", page.heading("by hand, beside the exact numbers"),
            *page.prose("On paper one rounds after every step. The same rules, run on numbers that "
                        "are rounded to three digits each time, give the left column."), "",
            *page.table(rows)]


def with_zeros(value: Any, digits: int) -> str:
    """Numbers with all their rounded digits: 0.670."""
    flat = [f"{float(v):#.{digits}g}".replace("-", "−") for v in np.ravel(value)]
    return f"[{', '.join(flat)}]" if np.ndim(value) else flat[0]


# ---------------------------------------------------------------- e3: the steps of descent


def _tell_descent(example: Example, name: str, page: Page, steps: int = 6) -> list[str]:
    variables = run(name, example.program)
    lines = page.steps(derived(variables, page.style))
    best, rate = 2.0, 0.1
    rows: list[Row] = [("step", "w", "ŷ", "L", "∂L/∂w", "w − 2", "÷ the one before")]
    w, before = 1.0, None
    long = page.style._replace(precision=7)
    for step in range(steps):
        variables = run(name, example.program.replace("tensor(1.0", f"tensor({w!r}"))
        values = found(derived(variables, page.style))
        error = w - best
        rows.append((str(step), *[long.number(float(v)) for v in (
            w, values["ŷ"], values["L"], values["∂L/∂w"], error)],
            "" if before is None else page.number(error / before)))
        before = error
        w = w - rate * float(values["∂L/∂w"])
    return [*lines, "", page.heading("the following steps, w ← w − 0.1·∂L/∂w"), "",
            *page.table(rows, right=(0,)), "",
            *page.prose("The curve's second derivative is 2·x² = 18, so each step multiplies the "
                        "distance to the best w by 1 − 0.1·18 = −0.8: w jumps from one side of 2 "
                        "to the other and comes closer. Above a rate of 2/18 ≈ 0.111 it would "
                        "leave for good.")]


# ---------------------------------------------------------------- e4, e5: the textbook's formulas


def _compared(page: Page, rows: Sequence[tuple[str, str, Any, Any]]) -> list[str]:
    """Formula by formula: the textbook's, computed in NumPy, beside what was explained."""
    lines: list[Row] = [("", "textbook's formula", "its value in NumPy", "difference")]
    for key, formula, by_formula, explained in rows:
        gap = float(np.max(np.abs(np.asarray(by_formula) - explained)))
        lines.append((key, formula, page.number(by_formula), Style(2).number(gap)))
    return page.table(lines)


def _tell_two_scalars(example: Example, name: str, page: Page) -> list[str]:
    variables = run(name, example.program)
    d = derived(variables, page.style)
    v = found(d)
    x, w2, y, a1, a2 = [float(variables[k].detach()) for k in ("x", "w2", "y", "a1", "a2")]
    delta2 = 2 * (a2 - y) * a2 * (1 - a2)
    delta1 = delta2 * w2 * (1 - a1 * a1)
    rows = [("∂L/∂z2", "δ₂ = ∂L/∂a₂ · f₂′(z₂)", delta2, v["∂L/∂z2"]),
            ("∂L/∂w2", "δ₂ · a₁", delta2 * a1, v["∂L/∂w2"]),
            ("∂L/∂b2", "δ₂", delta2, v["∂L/∂b2"]),
            ("∂L/∂z1", "δ₁ = δ₂ · w₂ · f₁′(z₁)", delta1, v["∂L/∂z1"]),
            ("∂L/∂w1", "δ₁ · x", delta1 * x, v["∂L/∂w1"]),
            ("∂L/∂b1", "δ₁", delta1, v["∂L/∂b1"])]
    return [*page.steps(d), "", page.heading("the same as the textbook writes it"), "",
            *_compared(page, rows)]


def _tell_two_layers(example: Example, name: str, page: Page) -> list[str]:
    variables = run(name, example.program)
    d = derived(variables, page.style)
    v = found(d)
    x, y, h, p, w2 = [variables[k].detach().numpy() for k in ("x", "y", "h", "p", "W2")]
    delta2 = -2 * (y - p) * p * (1 - p)
    delta1 = w2.T @ delta2 * h * (1 - h)
    rows = [("∂L/∂z2", "δ₂ = −2(y − ŷ) ⊙ σ′(z₂)", delta2, v["∂L/∂z2"]),
            ("∂L/∂W2", "δ₂ hᵀ", delta2 @ h.T, v["∂L/∂W2"]),
            ("∂L/∂z1", "δ₁ = W₂ᵀ δ₂ ⊙ σ′(z₁)", delta1, v["∂L/∂z1"]),
            ("∂L/∂W1", "δ₁ xᵀ", delta1 @ x.T, v["∂L/∂W1"])]
    return [*page.steps(d), "", page.heading("the same as the textbook writes it"), "",
            *_compared(page, rows)]


# ---------------------------------------------------------------- e6: NumPy by hand, then a loop

BY_HAND = """
z1 = x @ W1 + b1
a1 = np.maximum(z1, 0)
z2 = a1 @ W2 + b2
L = np.mean((z2 - y) ** 2)

dz2 = 2 * (z2 - y) / y.size
dW2 = a1.T @ dz2
db2 = dz2.sum(axis=0)
dz1 = (dz2 @ W2.T) * (z1 > 0)
dW1 = x.T @ dz1
db1 = dz1.sum(axis=0)
"""

TRAINING_LOOP = """
import chainrule as torch
import chainrule.nn as nn

torch.manual_seed(0)
x = torch.tensor([[1.0, 2.0]])
y = torch.tensor([[1.0]])
model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
loss_function = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

optimizer.zero_grad()
loss = loss_function(model(x), y)
loss.backward()
optimizer.step()
for name, parameter in model.named_parameters():
    print(name, parameter.grad)
"""


def _tell_numpy(example: Example, name: str, page: Page) -> list[str]:
    variables = run(name, example.program)
    page = Page(page.width, page.colour, page.style._replace(elements=8))
    d = derived(variables, page.style)
    names = ("W1", "b1", "W2", "b2")
    arrays = {k: variables[k].detach().numpy() for k in ("x", "y", *names)}
    hand = run(f"{name}_numpy", BY_HAND, np=np, **arrays)
    variables["L"].backward()
    rows: list[Row] = [("", ".grad", "NumPy's, bit by bit")]
    for key in names:
        gradient = variables[key].grad.numpy()
        same = np.array_equal(gradient, hand[f"d{key}"])
        rows.append((f"{key}.grad", page.number(gradient), "equal" if same else "different"))
    printed = io.StringIO()
    with redirect_stdout(printed):
        run(f"{name}_loop", TRAINING_LOOP, dtype="float32")
    return [*page.steps(d), "", page.heading("the backward pass written by hand in NumPy"), "",
            *page.code(BY_HAND), "",
            *page.table(rows), "",
            page.heading("the same network as a PyTorch training loop, in float32"), "",
            *page.code(TRAINING_LOOP), "",
            page.heading("what it prints"), "", *page.code(printed.getvalue())]


# ---------------------------------------------------------------- e7: a batch, and its shapes


def _tell_batch(example: Example, name: str, page: Page) -> list[str]:
    variables = run(name, example.program)
    page = Page(page.width, page.colour, page.style._replace(elements=4))
    d = derived(variables, page.style)
    rows: list[Row] = [("pass", "step", "", "shape")]
    rows += [("forward", step.name, step.formula, shape_text(step.shape)) for step in d.forward]
    rows += [("backward", step.name, step.formula, shape_text(step.shape)) for step in d.backward]
    v = found(d)
    x, w = [variables[k].detach().numpy() for k in ("X", "W")]
    delta = v["∂L/∂Z"]
    one_by_one = [run(name, f"{example.program}\nL = (one[{i}:{i + 1}] ** 2).sum() / 3".replace(
        "one", "(A - Y)")) for i in range(len(x))]
    alone = sum(found(derived(u, page.style))["∂L/∂W"] for u in one_by_one)
    checks = [("∂L/∂b", "Σ over the batch of δ", delta.sum(0), v["∂L/∂b"]),
              ("∂L/∂X", "Wᵀδ for each example", np.stack([w @ row for row in delta]), v["∂L/∂X"]),
              ("∂L/∂W", "Σ of x δᵀ over examples",
               sum(np.outer(a, b) for a, b in zip(x, delta, strict=True)), v["∂L/∂W"]),
              ("∂L/∂W", "Σ of examples run alone", alone, v["∂L/∂W"])]
    return [*page.steps(d), "", page.heading("the shapes beside each step"), "",
            *page.table(rows), "",
            *page.prose("A gradient has the shape of what it belongs to: ∂L/∂W is as large as W, "
                        "whatever the batch. That settles which factor is transposed."), "",
            page.heading("what the batch does, checked"), "", *_compared(page, checks)]


def shape_text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "one number"


# ---------------------------------------------------------------- e8: depth is a product

STACK = """
import chainrule as cr

x = cr.tensor(1.0, requires_grad=True)
h = x
for layer in range(LAYERS):
    h = FACTOR * h
L = h
"""


def _tell_depth(example: Example, name: str, page: Page) -> list[str]:
    rows: list[Row] = [("each layer multiplies by", "layers", "∂L/∂x, measured", "power")]
    for factor, layers in ((0.9, 50), (1.1, 50), (0.25, 10)):
        gradient = stack_gradient(factor, layers)
        rows.append((f"{factor}", str(layers), page.number(gradient),
                     page.number(factor ** layers)))
    variables = run(name, example.program)
    d = derived(variables, page.style)
    factors = sigmoid_factors(d)
    layers = len(factors)
    product = np.cumprod(factors)
    bound = 0.25 ** (layers - 1)
    table_rows: list[Row] = [("back through", "σ′ of that layer", "gradient so far",
                              "0.25 to that")]
    table_rows += [(f"{n} layers" if n > 1 else "1 layer", page.number(factors[n - 1]),
                    page.number(product[n - 1]), page.number(0.25 ** n))
                   for n in (1, 2, 3, 5, 10, 20, 30, 40, 49, 50) if n <= layers]
    final = found(d)["∂L/∂x"]
    return [page.heading("the same factor at every layer"), "", *page.table(rows, right=(1,)), "",
            page.heading(f"{layers} sigmoid layers, one unit each, weight 1"), "",
            *page.table(table_rows), "",
            *page.prose(f"σ′(z) = σ(z)(1 − σ(z)) is at most 0.25. So the gradient that has come "
                        f"through {layers - 1} of these layers is at most 0.25^{layers - 1} = "
                        f"{page.number(bound)}, whatever the inputs; here the {layers} measured "
                        f"factors multiply to {page.number(product[-1])}, and backpropagation "
                        f"gives ∂L/∂x = {page.number(final)}."),
            *page.prose("The same for whole networks, with initialisations and cures, measured: "
                        "chainrule explain depth.")]


def stack_gradient(factor: float, layers: int) -> float:
    """The gradient at the input of layers that each multiply by `factor`."""
    program = STACK.replace("LAYERS", str(layers)).replace("FACTOR", str(factor))
    variables = run("stack", program)
    variables["L"].backward()
    return float(variables["x"].grad)


def sigmoid_factors(d: Derivation) -> list[float]:
    """The local factor of each sigmoid, from the loss backwards."""
    return [float(step.local.value) for step in d.backward
            if step.operation == "sigmoid" and step.local is not None]


# ---------------------------------------------------------------- the programs

EXAMPLES: dict[str, Example] = {
    "e1": Example(
        "One neuron with ReLU",
        "A weight, a bias, an activation, a squared error. The chain rule multiplies what each "
        "step does to the number that goes through it.",
        """
import chainrule as cr

x = cr.tensor(2.0)
y = cr.tensor(TARGET)
w = cr.tensor(0.5, requires_grad=True)
b = cr.tensor(0.0, requires_grad=True)

z = w * x + b
a = cr.relu(z)
L = (a - y) ** 2
""", _tell_neuron),
    "e2": Example(
        "A sigmoid output, by hand",
        "An output unit with two inputs from a hidden layer. ∂L/∂z, called δ, is the upstream "
        "gradient times the slope of the sigmoid; each weight gets δ times its own input.",
        """
import chainrule as cr

h = cr.tensor([0.6, 0.14])
y = cr.tensor(1.0)
W = cr.tensor([1.2, -0.8], requires_grad=True)
b = cr.tensor(0.1, requires_grad=True)

z = W @ h + b
p = cr.sigmoid(z)
L = (y - p) ** 2
""", _tell_by_hand),
    "e3": Example(
        "One weight, several steps",
        "No hidden layer: ŷ = w·x. One gradient by hand, and then what gradient descent does with "
        "it, step after step.",
        """
import chainrule as cr

x = cr.tensor(3.0)
y = cr.tensor(6.0)
w = cr.tensor(1.0, requires_grad=True)

ŷ = w * x
L = (y - ŷ) ** 2
""", _tell_descent),
    "e4": Example(
        "Two layers of one unit",
        "The smallest network with a hidden layer. The δ of the first layer is made from the δ of "
        "the second: that is backpropagation.",
        """
import chainrule as cr

x = cr.tensor(0.5)
y = cr.tensor(0.25)
w1 = cr.tensor(0.8, requires_grad=True)
b1 = cr.tensor(0.1, requires_grad=True)
w2 = cr.tensor(-1.5, requires_grad=True)
b2 = cr.tensor(0.3, requires_grad=True)

z1 = w1 * x + b1
a1 = cr.tanh(z1)
z2 = w2 * a1 + b2
a2 = cr.sigmoid(z2)
L = (a2 - y) ** 2
""", _tell_two_scalars),
    "e5": Example(
        "Two dense layers in matrices",
        "The same with vectors and matrices, written with columns: weights times input. Products "
        "of numbers become matrix products, and slopes multiply element by element.",
        """
import chainrule as cr

x = cr.tensor([[0.5], [-1.0]])
y = cr.tensor([[1.0], [0.0]])
W1 = cr.tensor([[0.2, -0.4], [0.7, 0.1]], requires_grad=True)
b1 = cr.tensor([[0.1], [-0.2]], requires_grad=True)
W2 = cr.tensor([[0.6, -0.3], [-0.5, 0.9]], requires_grad=True)
b2 = cr.tensor([[0.0], [0.3]], requires_grad=True)

z1 = W1 @ x + b1
h = cr.sigmoid(z1)
z2 = W2 @ h + b2
p = cr.sigmoid(z2)
L = ((y - p) ** 2).sum()
""", _tell_two_layers),
    "e6": Example(
        "NumPy by hand, then the training loop",
        "Two dense layers with ReLU and the mean squared error, rows as examples. First the "
        "explanation, then the same backward pass written by hand in NumPy, compared bit by bit, "
        "then the network as a PyTorch user writes it.",
        """
import numpy as np
import chainrule as cr

np.random.seed(0)
x = cr.tensor([[1.0, 2.0]])
y = cr.tensor([[1.0]])
W1 = cr.tensor(np.random.randn(2, 4), requires_grad=True)
b1 = cr.zeros(4, requires_grad=True)
W2 = cr.tensor(np.random.randn(4, 1), requires_grad=True)
b2 = cr.zeros(1, requires_grad=True)

z1 = x @ W1 + b1
a1 = cr.relu(z1)
z2 = a1 @ W2 + b2
L = ((z2 - y) ** 2).mean()
""", _tell_numpy),
    "e7": Example(
        "A batch, and the shape of every step",
        "Three examples go through one layer together, one in each row. Weights and bias are "
        "shared by all of them, so their gradients are sums over the batch.",
        """
import chainrule as cr

X = cr.tensor([[1.0, 2.0], [0.0, -1.0], [0.5, 0.5]], requires_grad=True)
Y = cr.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
W = cr.tensor([[0.3, -0.2], [0.1, 0.4]], requires_grad=True)
b = cr.tensor([0.05, -0.1], requires_grad=True)

Z = X @ W + b
A = cr.tanh(Z)
L = ((A - Y) ** 2).sum() / 3
""", _tell_batch),
    "e8": Example(
        "Depth is a product",
        "The gradient at the first layer is a product with one factor for each layer. Factors "
        "below 1 make it vanish, factors above 1 make it explode.",
        """
import chainrule as cr

x = cr.tensor(0.0, requires_grad=True)
h = x
for layer in range(50):
    h = cr.sigmoid(h)
L = h
""", _tell_depth),
}
