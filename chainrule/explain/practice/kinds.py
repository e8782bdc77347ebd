"""The kinds of exercises. Each makes one from (level, rng): numbers are drawn until every step of
its derivation can be worked out on paper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

import chainrule.rows as rows
from chainrule.core.errors import SettingError
from chainrule.core.primitive import TABLE, Primitive
from chainrule.explain.styles.text import wrapped
from chainrule.prims.show import same

from .problem import Problem, Wrong, is_nice, near
from .question import Answer, Exercise, Part, labels, letters_in, one_of, shown

TRIES = 400


class Draft(NamedTuple):
    """What a kind gives to `exercise`."""

    question: str
    hints: tuple[str, str, str]
    parts: tuple[Part, ...]
    told: Callable[[int], str]
    judged: Callable[[str], Answer] | None = None
    problem: Problem | None = None


def drawn(make: Callable[[], Problem | None]) -> Problem:
    """The first problem with numbers for paper and no gradient that is zero."""
    for _ in range(TRIES):
        problem = make()
        if problem is not None and problem.nice and all(
                np.any(problem.gradient(name)) for name in problem.asked):
            return problem
    raise AssertionError("no problem with few digits was found")


def whole(rng: Any, low: int = -3, high: int = 4, step: float = 1.0) -> float:
    """A number other than 0."""
    while True:
        value = float(rng.integers(low, high)) * step
        if value:
            return value


def given_text(problem: Problem) -> str:
    return "   ".join(f"{name} = {shown(value)}" for name, value in problem.values.items())


def asked_gradients(problem: Problem, intro: str, lines: str, question: str) -> Draft:
    """A draft that asks for gradients of the problem."""
    parts = tuple(Part(f"∂{problem.loss}/∂{name}", problem.gradient(name),
                       tuple(problem.wrong(name))) for name in problem.asked)
    text = f"{intro}\n\n{indented(lines)}\n\n    with {given_text(problem)}\n\n{question}"
    return Draft(text, problem.hints(*problem.asked), parts, problem.solution, None, problem)


def indented(lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines.split("\n"))


def formulas(problem: Problem) -> str:
    """The forward pass as mathematics."""
    wide = max(len(step.name) for step in problem.derivation.forward)
    return "\n".join(f"{step.name:<{wide}} = {step.formula}"
                     for step in problem.derivation.forward)


# ---------------------------------------------------------------- local derivative


def public_rows() -> list[Primitive]:
    """Rows of one input with a derivative, under a public name, that are not mere arrangement."""
    return [prim for prim in TABLE.values()
            if prim.kind == "elementwise" and len(prim.pulls) == 1 and prim.pulls[0] is not None
            and not prim.options and hasattr(rows, prim.public) and prim.show is not same]


@lru_cache(maxsize=1)
def nice_points() -> list[tuple[str, float]]:
    """Row and point, where value and slope have few digits and the slope is not 0 or 1."""
    found = []
    for prim in public_rows():
        pull: Any = prim.pulls[0]
        for x in np.array([-3, -2, -1, -0.5, 0.25, 0.5, 1, 2, 3, 4, 5, 9]):
            with np.errstate(all="ignore"):
                y = np.asarray(prim.eval(np.asarray(x)))
                slope = pull(np.ones(()), y, np.asarray(x)) if y.dtype.kind == "f" else np.nan
            if is_nice(y) and is_nice(slope) and float(slope) not in (0.0, 1.0):
                found.append((prim.public, float(x)))
    return found


@lru_cache(maxsize=1)
def output_points() -> list[tuple[str, float, float]]:
    """Rows whose derivative is computed from the output, each with an output of few digits."""
    found = []
    for prim in public_rows():
        reads = prim.reads((True,))
        pull: Any = prim.pulls[0]
        if reads.output != 2 or reads.inputs[0] == 2:
            continue
        for y in (-0.8, -0.6, -0.5, 0.2, 0.25, 0.4, 0.5, 0.6, 0.8, 0.9, 2.0, 3.0):
            x = solved(prim, y)
            if x is None:
                continue
            slope = pull(np.ones(()), np.asarray(y), np.asarray(x))
            if is_nice(slope) and not is_nice(x) and float(slope):
                found.append((prim.public, x, y))
    return found


def solved(prim: Primitive, y: float) -> float | None:
    """Where a row has the value y, found by halving an interval; None if nowhere."""
    low, high = -6.0, 6.0
    with np.errstate(all="ignore"):
        def off(x: float) -> float:
            return float(prim.eval(np.asarray(x))) - y
        if not off(low) * off(high) < 0:
            return None
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if off(low) * off(middle) > 0 else (low, middle)
    return low if abs(off(low)) < 1e-9 else None


def local(level: int, rng: Any) -> Draft:
    """One local derivative: of a row at a point, of a product or quotient, from the output."""
    if level == 1:
        chosen = str(rng.choice(sorted({one[0] for one in nice_points()})))
        x = float(rng.choice([p for r, p in nice_points() if r == chosen]))
        problem = Problem({"x": x}, f"y = cr.{chosen}(x)", ("x",), loss="y")
        draft = asked_gradients(problem, "One step of a forward pass:", formulas(problem),
                                "What is the local derivative ∂y/∂x there?")
        return described_row(draft, chosen)
    if level == 2:
        def make() -> Problem:
            form = str(rng.choice(["a * b", "a / b", "a ** 2 * b", "a * b ** 2", "a ** 3 / b"]))
            return Problem({"a": whole(rng), "b": whole(rng, -4, 6)}, f"y = {form}",
                           (str(rng.choice(["a", "b"])),), loss="y")
        problem = drawn(make)
        name = problem.asked[0]
        return asked_gradients(problem, "Two numbers are combined:", formulas(problem),
                               f"What is ∂y/∂{name}?")
    outputs = output_points()
    row = str(rng.choice(sorted({one[0] for one in outputs})))
    _, z, a = [one for one in outputs if one[0] == row][
        rng.integers(sum(one[0] == row for one in outputs))]
    problem = Problem({"z": z}, f"a = cr.{row}(z)", ("z",), loss="a")
    part = Part("∂a/∂z", problem.gradient("z"), tuple(problem.wrong("z")))
    text = (f"A forward pass has computed\n\n{indented(formulas(problem))}\n\n    with the result "
            f"a = {shown(np.asarray(a))}\n\nWhat is ∂a/∂z there? (It can be computed from a "
            "alone.)")
    draft = Draft(text, problem.hints("z"), (part,), problem.solution, None, problem)
    return described_row(draft, row)


def described_row(draft: Draft, public: str) -> Draft:
    """The hints of a single step: what the operation is, its derivative, the numbers."""
    prim = next(p for p in TABLE.values() if p.public == public)
    assert draft.problem is not None
    local = next(s.local for s in draft.problem.derivation.backward if s.local is not None)
    return draft._replace(hints=(f"{prim.name}: {prim.doc} Differentiate that.",
                                 f"{local.name} = {local.formula}",
                                 f"{local.name} = {local.numbers}"))


# ---------------------------------------------------------------- numbers through a network


def step(level: int, rng: Any) -> Draft:
    """Forward, backward, update of one neuron."""
    def make() -> Problem:
        values = {"x": whole(rng, 1, 5), "t": whole(rng, -3, 6), "w": whole(rng, -3, 4, 0.5)}
        body = "z = w * x\n"
        if level > 1:
            values["b"] = whole(rng, -3, 4, 0.5)
            body = "z = w * x + b\n"
        out = "z"
        if level > 2:
            body += "a = cr.relu(z)\n"
            out = "a"
        return Problem(values, f"{body}e = {out} - t\nL = e ** 2",
                       ("w",) if level == 1 else ("w", "b"), fixed=("x", "t"))

    problem = drawn(make)
    rate = float(rng.choice([0.1, 0.01, 0.5]))
    parts = [Part("L", problem.value("L"))]
    slips = {name: problem.wrong(name) for name in problem.asked}
    parts += [Part(f"∂L/∂{name}", problem.gradient(name), tuple(slips[name]))
              for name in problem.asked]
    for name in problem.asked:
        value, g = problem.value(name), problem.gradient(name)
        parts += [Part(f"the new {name}", value - rate * g,
                       tuple(updates(value, g, rate, name, slips[name])))]
    listed = ", ".join(part.name for part in parts)
    text = (f"One neuron, one example:\n\n{indented(formulas(problem))}\n\n    with "
            f"{given_text(problem)}\n\nGo forward, backward, and take one step of gradient "
            f"descent with rate {rate:g}. Give {listed}.")
    first, second, third = problem.hints(*problem.asked)
    rule = f"Then {problem.asked[0]} ← {problem.asked[0]} − {rate:g}·∂L/∂{problem.asked[0]}."
    hints = (f"Begin with the forward pass: its last number is L. {first}", f"{second}\n{rule}",
             f"{third}\n{rule}")
    return Draft(text, hints, tuple(parts), problem.solution, None, problem)


def updates(value: Any, g: Any, rate: float, name: str, slips: list[Wrong]) -> list[Wrong]:
    """What goes wrong in the step itself, and with a wrong gradient."""
    right = value - rate * g
    found = [
        Wrong(value + rate * g, "sign", f"The step goes against the gradient: {name} − rate·∂L/∂"
              f"{name}, not plus."),
        Wrong(value - g, "factor", "The rate is forgotten."),
        Wrong(rate * g, "update", f"That is the step alone; it is taken from {name}."),
        *[Wrong(value - rate * one.value, one.kind, one.sentence) for one in slips]]
    return [one for one in found if not near(one.value, right)]


def layers(level: int, rng: Any) -> Draft:
    """Two layers: of one unit, of two units, and in matrices."""
    def make() -> Problem:
        act = str(rng.choice(["cr.relu(z)", "z ** 2"]))
        if level == 1:
            values: dict[str, Any] = {"x": whole(rng, 1, 4), "t": whole(rng),
                                      "w1": whole(rng), "w2": whole(rng, -3, 4, 0.5)}
            body = f"z = w1 * x\nh = {act}\ny = w2 * h\ne = y - t\nL = e ** 2 / 2"
            asked = ("w1",)
        elif level == 2:
            values = {"x": whole(rng, 1, 4), "t": whole(rng), "W1": vector(rng, 2),
                      "W2": vector(rng, 2)}
            body = f"z = W1 * x\nh = {act}\ny = W2 @ h\ne = y - t\nL = e ** 2 / 2"
            asked = ("W1",)
        else:
            values = {"x": vector(rng, 2), "t": whole(rng), "W1": [vector(rng, 2), vector(rng, 2)],
                      "W2": vector(rng, 2)}
            body = f"z = W1 @ x\nh = {act}\ny = W2 @ h\ne = y - t\nL = e ** 2 / 2"
            asked = ("W1",)
        return Problem(values, body, asked, fixed=("x", "t"))

    problem = drawn(make)
    name = problem.asked[0]
    count = np.size(problem.gradient(name))
    return asked_gradients(problem, "Two layers, one example:", formulas(problem),
                           f"What is ∂L/∂{name}?" + (
                               f" ({count} numbers, row by row)" if count > 1 else ""))


def vector(rng: Any, count: int) -> list[float]:
    return [whole(rng) for _ in range(count)]


def batch(level: int, rng: Any) -> Draft:
    """The gradient of a mean over several examples."""
    def make() -> Problem:
        n = int(rng.choice([2, 4, 5]))
        values: dict[str, Any] = {"x": vector(rng, n), "t": vector(rng, n)}
        if level == 3:
            values["x"] = [vector(rng, 2) for _ in range(n)]
            values |= {"w": vector(rng, 2), "b": whole(rng)}
            body, asked = "y = x @ w + b\n", ["w", "b"]
        elif level == 2:
            values |= {"w": whole(rng), "b": whole(rng)}
            body, asked = "y = w * x + b\n", ["w", "b"]
        else:
            values["w"] = whole(rng)
            body, asked = "y = w * x\n", ["w"]
        return Problem(values, f"{body}e = y - t\nL = (e ** 2).mean()", tuple(asked),
                       fixed=("x", "t"))

    problem = drawn(make)
    names = " and ".join(f"∂L/∂{name}" for name in problem.asked)
    count = len(problem.values["t"])
    return asked_gradients(problem, f"A batch of {count} examples, the mean squared error:",
                           formulas(problem), f"What {'is' if level == 1 else 'are'} {names}?")


FORKS = {
    1: ("u = a * x\nv = x ** 2\nL = u * v", "u = a * x\nv = b * x\nL = u * v",
        "u = x ** 2\nv = a * x\nL = u + v", "u = a * x\nL = u * x"),
    2: ("u = a * x\nv = u * x\nL = v + b * u", "u = a * x\nv = u + b\nL = u * v + x",
        "u = x ** 2\nv = a * x\nL = u * v + b * x", "u = a + x\nv = b * x\nL = (u - v) ** 2 + x"),
    3: ("h = a * x\nk = a * h + x\nL = a * k + h", "u = a * x\nv = u * x + b\nL = u * v + x ** 2",
        "u = a * x\nv = b * u\nq = u * v\nL = q + v * x",
        "h = x * a + b\nk = x * h + b\nL = x * k"),
}


def paths(level: int, rng: Any) -> Draft:
    """A variable that is used more than once: the gradients of its paths are added."""
    def make() -> Problem:
        body = str(rng.choice(FORKS[level]))
        values = {name: whole(rng) for name in ("x", "a", "b") if name in body}
        return Problem(values, body, ("a" if body.startswith("h = a") else "x",))

    problem = drawn(make)
    return asked_gradients(problem, "A variable that is used several times:", formulas(problem),
                           f"What is ∂L/∂{problem.asked[0]}?")


# ---------------------------------------------------------------- formulas and order


def small_network(level: int, rng: Any) -> Problem:
    """A network of some steps, of which each has a name."""
    bodies = {
        1: ("z = w * x\na = cr.sigmoid(z)\ne = a - t\nL = e ** 2",
            "z = w + b\na = cr.tanh(z)\nL = a * t", "u = w * x\nv = cr.exp(u)\nL = v / t"),
        2: ("z = w * x\nh = cr.tanh(z)\ny = v * h\ne = y - t\nL = e ** 2",
            "u = w * x\ns = u + b\na = cr.sigmoid(s)\ne = a - t\nL = e ** 2",
            "u = w * x\nv = cr.exp(u)\nq = v + b\nL = cr.log(q)"),
        3: ("z = w * x\nh = cr.tanh(z)\ny = v * h\np = cr.sigmoid(y)\ne = p - t\nL = e ** 2",
            "u = w * x\na = cr.sigmoid(u)\nc = cr.tanh(w)\nh = a * c\ne = h - t\nL = e ** 2",
            "u = w * x\nh = cr.relu(u)\nq = h * u\ny = q + b\nL = y * y"),
    }
    body = str(rng.choice(bodies[level]))
    words = set(body.replace("(", " ").replace(")", " ").split())
    values: dict[str, Any] = {name: whole(rng, 1, 4) / 2 for name in ("w", "x", "b", "t", "v")
              if name in words and f"{name} =" not in body}
    return Problem(values, body, ("w",), fixed=tuple(n for n in ("x", "t") if n in values))


def match(level: int, rng: Any) -> Draft:
    """Formulas of a backward pass, to be given back to the gradients they belong to."""
    problem = small_network(level, rng)
    steps = [s for s in problem.derivation.backward if s.number and not s.path and not s.terms]
    unique = {s.formula: s for s in steps}
    steps = [s for s in steps if unique[s.formula] is s]
    order = [int(i) for i in rng.permutation(len(steps))]
    marks = labels(len(steps))
    places = {order[k]: marks[k] for k in range(len(steps))}
    right = "".join(places[i] for i in range(len(steps)))
    offered = "\n".join(f"({marks[k]})  {steps[i].formula}" for k, i in enumerate(order))
    wanted = "\n".join(f"{i + 1}.  {s.name} = ?" for i, s in enumerate(steps))
    text = (f"A forward pass:\n\n{indented(formulas(problem))}\n\nIts gradients:\n\n"
            f"{indented(wanted)}\n\nand, in another order, their formulas:\n\n{indented(offered)}"
            f"\n\nWhich formula belongs to each? Answer with {len(steps)} letters.")
    half = (len(steps) + 1) // 2
    used = ("Each formula begins with an upstream gradient: that of the step which used the "
            "variable.")
    hints = (used,
             "\n".join(f"{s.of} is used in {s.through} = "
                       f"{formula_of(problem, s.through)}" for s in steps),
             "The first are " + ", ".join(f"{i + 1}{places[i]}" for i in range(half)) + ".")

    def judged(answer: str) -> Answer:
        found = letters_in(answer, len(steps))
        if isinstance(found, Answer):
            return found
        if found == right:
            return Answer(True, "Right.")
        i = next(k for k in range(len(steps)) if found[k] != right[k])
        taken = steps[order[marks.index(found[i])]]
        return Answer(False, f"{steps[i].name} is not {taken.formula}: that is {taken.name}. "
                      f"{steps[i].of} is used in {steps[i].through}, so its gradient begins with "
                      f"∂{problem.loss}/∂{steps[i].through}.", "operand")

    return Draft(text, hints, (Part("the letters", right),), problem.solution, judged, problem)


def formula_of(problem: Problem, name: str) -> str:
    return next((s.formula for s in problem.derivation.forward if s.name == name), name)


def order(level: int, rng: Any) -> Draft:
    """The steps of a backward pass in an order in which they can be computed."""
    problem = small_network(level, rng)
    d = problem.derivation
    users: dict[str, set[str]] = {}
    for s in d.backward:
        if s.number and not s.terms:
            users[s.of] = users.pop(s.of, set()) | {s.through}     # known at its last term
    names = [name for name in users if name != d.loss]
    shuffled = [names[int(i)] for i in rng.permutation(len(names))]
    marks = labels(len(names))
    mark = dict(zip(shuffled, marks, strict=True))
    right = "".join(mark[name] for name in names)
    listed = "\n".join(f"({mark[name]})  ∂{d.loss}/∂{name}" for name in shuffled)
    text = (f"A forward pass:\n\n{indented(formulas(problem))}\n\nIts gradients, shuffled:\n\n"
            f"{indented(listed)}\n\nIn which order can they be computed, starting from "
            f"∂{d.loss}/∂{d.loss} = 1? Answer with {len(names)} letters.")
    half = right[:max(1, len(right) // 2)]
    hints = ("The backward pass goes through the forward pass from its last line to its first.",
             "\n".join(f"∂{d.loss}/∂{name} needs "
                       + " and ".join(f"∂{d.loss}/∂{u}" for u in sorted(users[name]))
                       for name in names),
             f"One order begins with {', '.join(half)}.")

    def judged(answer: str) -> Answer:
        found = letters_in(answer, len(names))
        if isinstance(found, Answer):
            return found
        known = {d.loss}
        for letter in found:
            name = shuffled[marks.index(letter)]
            missing = sorted(users[name] - known)
            if missing:
                return Answer(False, f"({letter}) ∂{d.loss}/∂{name} comes too early: {name} is "
                              f"used in {missing[0]}, so ∂{d.loss}/∂{missing[0]} must be known.",
                              "order")
            known.add(name)
        return Answer(True, "Right.")

    return Draft(text, hints, (Part("the order", right),), problem.solution, judged, problem)


# ---------------------------------------------------------------- vanish or explode


CHAINS = (      # each keeps its value from layer to layer, so that every factor is the same
    ("h = w * h", 1.0, (0.5, 0.8, 0.9, 1.1, 1.5, 2.0, 3.0)),
    ("h = cr.relu(w * h)", 1.0, (0.5, 0.8, 1.2, 1.5, 2.0)),
    ("h = cr.tanh(w * h)", 0.0, (0.5, 0.7, 0.9, 1.2, 1.5, 2.0)),
    ("h = cr.sigmoid(w * (h - 0.5))", 0.5, (1.0, 2.0, 3.0, 5.0, 6.0, 8.0)),
)
SLOPES = ("1, since w·h is a straight line", "1, since w·h is positive",
          "1, since tanh′(0) = 1", "0.25, since σ′(0) = 0.25")
WORDS = {True: "vanishes", False: "explodes"}


def depth(level: int, rng: Any) -> Draft:
    """The gradient through n equal layers: a word, a number, a number of layers."""
    i = int(rng.integers(len(CHAINS)))
    line, start, weights = CHAINS[i]
    w = float(rng.choice(weights))
    n = int(rng.choice([10, 20, 30] if level == 1 else [3, 4, 5, 6, 8]))
    body = f"h = x\nfor layer in range({n}):\n    {line}\nL = h * 1"
    problem = Problem({"x": start, "w": w}, body, ("x",), fixed=("w",))
    single = Problem({"x": start, "w": w}, f"h = x\n{line}\nL = h * 1", ("x",), fixed=("w",))
    factor = float(single.gradient("x"))
    total = float(problem.gradient("x"))
    setup = (f"{n} equal layers, one after the other, begin with h = x = {start:g}. "
             f"Each does\n\n    {line.replace('cr.', '')}\n\nwith w = {w:g}.")
    each = f"{w:g}·{float(factor / w):g}"
    hints = ["∂h_n/∂x is a product with one factor for each layer, w times the slope there.",
             f"The slope is {SLOPES[i]}, so each layer multiplies the gradient by {each}.",
             f"Each layer multiplies by {factor:g}, and {n} layers by {factor:g}^{n}."]
    if level == 1:
        right = WORDS[factor < 1]
        other = Wrong(WORDS[factor >= 1], "factor", f"Each layer multiplies the gradient by "
                      f"{factor:g}, which is {'below' if factor < 1 else 'above'} 1.")
        part = Part("the gradient", right, (other,))
        question = "Does the gradient of the first layer vanish or explode?"
    elif level == 2:
        part = Part(f"∂h_{n}/∂x", np.asarray(total), tuple(wrong_powers(factor, w, n)))
        question = f"By what is ∂L/∂x multiplied on its way through the {n} layers? (3 digits)"
    else:
        small = factor < 1
        limit = 1e-3 if small else 1e3
        count = next(k for k in range(1, 10000) if (factor ** k < limit) == small
                     and factor ** k != limit)
        setup = (f"Equal layers, one after the other, begin with h = x = {start:g}. "
                 f"Each does\n\n    {line.replace('cr.', '')}\n\nwith w = {w:g}.")
        part = Part("the number of layers", np.asarray(float(count)), tuple(
            Wrong(np.asarray(float(count + k)), "count", f"{factor:g}^{count + k} is "
                  f"{factor ** (count + k):.3g}.") for k in (-2, -1, 1, 2) if count + k > 0))
        bound = "below 0.001" if small else "above 1000"
        question = (f"After how many layers is the gradient {bound} times what it was, for the "
                    "first time?")
        hints[2] = (f"Each layer multiplies by {factor:g}: look for the smallest n with "
                    f"{factor:g}^n {bound}, "
                    f"n·log {factor:g} = log {limit:g}.")
    end = f"That is n = {int(part.value)}." if level == 3 else f"That is {factor ** n:.4g}."
    return Draft(f"{setup}\n\n{question}", (hints[0], hints[1], hints[2]), (part,),
                 lambda width: "\n".join([single.solution(width), "", *wrapped(
                     f"{hints[1]} {hints[2]} {end}", width)]), None, problem)


def wrong_powers(factor: float, w: float, n: int) -> list[Wrong]:
    found = [
        Wrong(np.asarray(w ** n), "slope", "The slope of each layer is missing."),
        Wrong(np.asarray(factor * n), "rule", "The factors of the layers are multiplied, not "
              "added."),
        Wrong(np.asarray(factor), "path", "That is one layer alone."),
        Wrong(np.asarray(factor ** (n - 1)), "count", f"That is one layer too few: there are {n}."),
        Wrong(np.asarray(factor ** (n + 1)), "count", f"That is one layer too many: there are "
              f"{n}.")]
    return [one for one in found if not near(one.value, factor ** n)]


KINDS: dict[str, tuple[Callable[[int, Any], Draft], str]] = {
    "local": (local, "one local derivative"),
    "step": (step, "one step by hand: forward, backward, update"),
    "layers": (layers, "two layers"),
    "batch": (batch, "the gradient of a mean over a batch"),
    "paths": (paths, "a sum over paths"),
    "match": (match, "which formula belongs to which gradient"),
    "order": (order, "the order of a backward pass"),
    "depth": (depth, "does the gradient vanish or explode?"),
}
LEVELS = (1, 2, 3)


def exercise(kind: str = "", level: int = 1, seed: int | None = None) -> Exercise:
    """A problem from a small random graph, with numbers that can be worked out on paper.

    kind   local, step, layers, batch, paths, match, order or depth; '' draws one
    level  1 to 3
    seed   the same kind, level and seed make the same exercise; None draws one

    It has `.question`, three `.hints`, `.check(answer)`, which names the mistake where the answer
    is what a usual slip gives, `.answer`, and `.solution()`, explain's own derivation.

    >>> one = cr.explain.exercise("depth", level=1, seed=1)
    >>> one.check("it explodes").right, one.check("vanishes").right
    (False, True)

    Raises SettingError for a kind or level that does not exist.
    """
    if seed is not None and (not hasattr(seed, "__index__") or seed < 0):
        raise SettingError(f"exercise(seed={seed!r}): a seed is a whole number of at least 0")
    if seed is None:
        seed = int(np.random.default_rng().integers(1_000_000))
    if not kind:
        kind = str(np.random.default_rng(seed).choice(list(KINDS)))
    one_of("kind", kind, tuple(KINDS), "kinds are")
    one_of("level", level, LEVELS, "levels are")
    rng = np.random.default_rng((seed, level, sum(kind.encode())))
    draft = KINDS[kind][0](level, rng)
    return Exercise(kind, level, seed, draft.question, draft.hints, draft.parts, draft.told,
                    draft.judged, draft.problem)
