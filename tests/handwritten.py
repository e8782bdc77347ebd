"""Hand-written backward passes with known mistakes, for the tests of `explain.check`.

Networks are written as text: the forward pass in chainrule, the backward pass in NumPy, each line
beside wrong ways to write it. Expressions are drawn from the table and run backwards by a walk of
their own. Nothing here knows how mistakes are recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import chainrule as cr
from chainrule.core.primitive import TABLE


@dataclass
class Case:
    """A forward pass, its inputs, a backward pass and what is wrong in it ('' if nothing)."""

    f: Callable[..., Any]
    inputs: tuple[Any, ...]
    backward: Callable[..., Any]
    kind: str
    text: str
    names: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    result: str = ""


@dataclass
class Line:
    """One line of a backward pass, target = right, and its wrong versions as (kind, text)."""

    target: str
    right: str
    wrong: list[tuple[str, str]] = field(default_factory=list)


ACTIVATIONS = {     # forward, NumPy, slope from the output, wrong slopes
    "tanh": ("cr.tanh({z})", "np.tanh({z})", "(1 - {a} ** 2)",
             [("value", "(1 - {z} ** 2)"), ("sign", "(1 + {a} ** 2)")]),
    "sigmoid": ("cr.sigmoid({z})", "1 / (1 + np.exp(-{z}))", "{a} * (1 - {a})",
                [("value", "{z} * (1 - {z})"), ("sign", "{a} * (1 + {a})")]),
    "relu": ("cr.relu({z})", "np.maximum({z}, 0)", "({z} > 0)", []),
    "softplus": ("cr.nn.functional.softplus({z})", "np.logaddexp({z}, 0)",
                 "(1 / (1 + np.exp(-{z})))", [("value", "(1 / (1 + np.exp(-{a})))")]),
    "square": ("{z} ** 2", "{z} ** 2", "2 * {z}", [("value", "2 * {a}"), ("factor", "{z}")]),
}


def compiled(parameters: list[str], lines: list[str], result: str) -> Callable[..., Any]:
    body = "".join(f"    {line}\n" for line in [*lines, f"return {result}"])
    scope: dict[str, Any] = {"cr": cr, "np": np}
    exec(f"def f({', '.join(parameters)}):\n{body}", scope)
    return scope["f"]


def rewritten(case: Case, patterns: list[tuple[str, str]], rng: Any) -> Case:
    """The same case, its backward pass written in other ways where the patterns apply."""
    lines = []
    for line in case.lines:
        for pattern, other in patterns:
            if rng.random() < 0.5:
                line = re.sub(pattern, other, line)
        lines.append(line)
    backward = compiled(case.names, [*case.plain, *lines], case.result)
    return replace(case, backward=backward, lines=lines, text="\n".join(lines))


def losses(z: str, rng: Any) -> tuple[list[str], list[str], Line, Callable[..., Any]]:
    """Forward lines, NumPy lines, the first line backwards, and how targets are drawn."""
    def real(shape: tuple[int, ...]) -> Any:
        return rng.normal(size=shape)

    def classes(shape: tuple[int, ...]) -> Any:
        return rng.integers(0, shape[1], shape[0])

    def chances(shape: tuple[int, ...]) -> Any:
        return rng.integers(0, 2, shape).astype(float)

    softmax = [f"p = np.exp({z} - {z}.max(1, keepdims=True))", "p = p / p.sum(1, keepdims=True)",
               "y = np.eye(p.shape[1])[t]"]
    d = f"d{z}"
    return [
        ([f"loss = (({z} - t) ** 2).mean()"], [], Line(d, f"2 * ({z} - t) / {z}.size", [
            ("mean", f"2 * ({z} - t)"), ("sign", f"2 * (t - {z}) / {z}.size"),
            ("factor", f"({z} - t) / {z}.size")]), real),
        ([f"loss = (({z} - t) ** 2).sum() / len(t)"], [], Line(d, f"2 * ({z} - t) / len(t)", [
            ("mean", f"2 * ({z} - t)"), ("sign", f"2 * (t - {z}) / len(t)"),
            ("factor", f"({z} - t) / len(t)")]), real),
        ([f"e = {z} - t", "loss = (e * e).sum() / 2"], [], Line(d, f"({z} - t)", [
            ("sign", f"(t - {z})")]), real),
        ([f"loss = cr.nn.functional.mse_loss({z}, t)"], [], Line(d, f"2 * ({z} - t) / {z}.size", [
            ("mean", f"2 * ({z} - t)"), ("sign", f"-2 * ({z} - t) / {z}.size")]), real),
        ([f"loss = cr.nn.functional.cross_entropy({z}, t)"], softmax, Line(d, "(p - y) / len(t)", [
            ("mean", "p - y"), ("sign", "(y - p) / len(t)")]), classes),
        ([f"p = cr.sigmoid({z})", "loss = -(t * cr.log(p) + (1 - t) * cr.log(1 - p)).mean()"],
         [f"p = 1 / (1 + np.exp(-{z}))"], Line(d, f"(p - t) / {z}.size", [
             ("mean", "p - t"), ("sign", f"(t - p) / {z}.size")]), chances),
    ][rng.integers(6)]


def network(rng: Any, kinds: tuple[str, ...] | None = None, report: str = "") -> Case:
    """A random dense network, sometimes with a path around a layer, and its backward pass."""
    batch, depth = int(rng.integers(3, 6)), int(rng.integers(1, 4))
    sizes = [int(n) for n in rng.integers(2, 5, depth + 1)]
    skip = depth > 1 and rng.random() < 0.4
    if skip:
        sizes[1] = sizes[2]
    last = depth
    forward: list[str] = []
    plain: list[str] = []
    back: list[Line] = []
    names = ["x", "t"]
    inputs: list[Any] = [rng.normal(size=(batch, sizes[0]))]
    parameters: list[Any] = []
    chosen = []
    for i in range(1, depth + 1):
        forward.append(f"z{i} = a{i - 1} @ W{i} + b{i}")
        plain.append(f"z{i} = a{i - 1} @ W{i} + b{i}")
        names += [f"W{i}", f"b{i}"]
        parameters += [rng.normal(size=(sizes[i - 1], sizes[i])) / 2, rng.normal(size=sizes[i])]
        if i < depth:
            kind = str(rng.choice(list(ACTIVATIONS)))
            chosen.append(kind)
            given, numpy_, *_ = ACTIVATIONS[kind]
            around = f" + a{i - 1}" if skip and i == 2 and depth > 2 else ""
            forward.append(f"a{i} = " + given.format(z=f"z{i}") + around)
            plain.append(f"a{i} = " + numpy_.format(z=f"z{i}"))
            if around:
                forward[-1] = f"h{i} = {given.format(z=f'z{i}')}"
                plain[-1] = f"h{i} = {numpy_.format(z=f'z{i}')}"
                forward.append(f"a{i} = h{i}{around}")
                plain.append(f"a{i} = h{i}{around}")
    out = f"z{last}"
    if skip and depth == 2:
        out = "o"
        forward.append("o = z2 + a1")
        plain.append("o = z2 + a1")
    told, numpy_lines, first, draw = losses(out, rng)
    inputs.append(draw((batch, sizes[-1])))
    forward = ["a0 = x * 1.0", *forward, *told]
    plain = ["a0 = x", *plain, *numpy_lines]
    back.append(first)
    if out == "o":
        back.append(Line("dz2", "do", []))
    for i in range(depth, 0, -1):
        before = "x" if i == 1 else f"z{i - 1}"
        wrong_w = [("sign", f"-(a{i - 1}.T @ dz{i})"), ("transpose", f"(a{i - 1}.T @ dz{i}).T"),
                   ("upstream", f"a{i - 1}.T @ np.ones_like(dz{i})"),
                   ("mean", f"a{i - 1}.T @ dz{i} / len(x)")]
        if i > 1:
            wrong_w.append(("operand", f"{before}.T @ dz{i}"))
        back.append(Line(f"dW{i}", f"a{i - 1}.T @ dz{i}", wrong_w))
        back.append(Line(f"db{i}", f"dz{i}.sum(0)", [
            ("batch", f"dz{i}"), ("batch", f"dz{i}[0]"), ("mean", f"dz{i}.mean(0)"),
            ("sign", f"-dz{i}.sum(0)")]))
        if i == 1:
            break
        wrong_a = [("upstream", f"np.ones_like(dz{i}) @ W{i}.T")]
        if sizes[i] == sizes[i - 1]:
            wrong_a.append(("transpose", f"dz{i} @ W{i}"))
        right = f"dz{i} @ W{i}.T"
        if skip and i == 2:
            around = "do" if depth == 2 else "da2"
            wrong_a = [("path", right), ("path", around)]
            right += f" + {around}"
        back.append(Line(f"da{i - 1}", right, wrong_a))
        slope, wrong_slopes = ACTIVATIONS[chosen[i - 2]][2:]
        z, a = f"z{i - 1}", f"a{i - 1}"
        da = f"da{i - 1}"
        if skip and i == 3:
            back.append(Line("dh2", "da2"))
            a, da = "h2", "dh2"
        s = slope.format(z=z, a=a)
        wrong_z = [("slope", da), ("upstream", f"{s} * 1.0"), ("extra", f"{da} * {s} * {s}"),
                   ("extra", f"{da} * {da} * {s}"), ("sign", f"-{da} * {s}")]
        wrong_z += [(k, f"{da} * {w.format(z=z, a=a)}") for k, w in wrong_slopes]
        back.append(Line(f"dz{i - 1}", f"{da} * {s}", wrong_z))
    kind, lines, damaged = damage(back, rng, kinds)
    targets = [line.target for line in back]
    mode = report or str(rng.choice(["all", "some", "leaves"]))
    leaves = [f"d{n}" for n in names[2:]]
    if mode == "leaves":
        result = f"(None, None, {', '.join(leaves)})"
    else:
        shown = [n for n in targets if mode == "all" or n in leaves or n == damaged
                 or rng.random() < 0.5]
        result = "{" + ", ".join(f'"{n}": {n}' for n in shown) + "}"
    f = compiled(names, forward, "loss")
    backward = compiled(names, [*plain, *lines], result)
    return Case(f, (*inputs, *parameters), backward, kind, "\n".join([*forward, "--", *lines]),
                names, plain, lines, result)


def damage(back: list[Line], rng: Any, kinds: tuple[str, ...] | None
           ) -> tuple[str, list[str], str]:
    """The lines with one of them wrong; kinds=() leaves all right."""
    options = [(i, kind, text) for i, line in enumerate(back) for kind, text in line.wrong
               if kinds is None or kind in kinds]
    lines = [f"{line.target} = {line.right}" for line in back]
    if not options:
        return "", lines, ""
    wanted = rng.choice(sorted({kind for _, kind, _ in options}))    # each kind as often
    options = [one for one in options if one[1] == wanted]
    i, kind, text = options[rng.integers(len(options))]
    lines[i] = f"{back[i].target} = {text}"
    return kind, lines, back[i].target


# ---------------------------------------------------------------- expressions from the table


def unary_rows() -> list[str]:
    found = []
    for name, prim in TABLE.items():
        if prim.kind == "elementwise" and len(prim.pulls) == 1 and prim.pulls[0] is not None \
                and not prim.options and len(prim.arguments) == 1:
            found.append(name)
    return sorted(found)


BINARY = ("mul", "add", "sub", "div", "maximum", "hypot", "logaddexp")


@dataclass
class Step:
    name: str
    operands: tuple[int, ...]


def forward_of(steps: list[Step], leaves: list[Any]) -> list[Any]:
    values = [np.asarray(x) for x in leaves]
    for step in steps:
        xs = [values[i] for i in step.operands]
        values.append(np.asarray(TABLE[step.name].eval(*xs)))
    return values


def expression(rng: Any, kind: str | None) -> Case | None:
    """A random expression of rows of the table; `kind` is what goes wrong, None for nothing."""
    shape = (int(rng.integers(2, 5)), int(rng.integers(2, 4)))
    leaves = [rng.uniform(0.2, 1.4, shape) * rng.choice([-1, 1]),
              rng.uniform(0.2, 1.4, shape), rng.uniform(0.2, 1.4, shape[1:])]
    steps: list[Step] = []
    rows = unary_rows()
    for _ in range(int(rng.integers(3, 7))):
        count = len(leaves) + len(steps)
        recent = int(rng.integers(max(0, count - 3), count))
        if rng.random() < 0.55:
            steps.append(Step(str(rng.choice(rows)), (recent,)))
        else:
            steps.append(Step(str(rng.choice(BINARY)), (recent, int(rng.integers(0, count)))))
    averaged = bool(rng.random() < 0.5)
    with np.errstate(all="ignore"):
        values = forward_of(steps, leaves)
    if not all(np.all(np.isfinite(v)) and np.max(np.abs(v)) < 20 and np.min(np.abs(v)) > 1e-3
               for v in values) or values[-1].shape != shape:
        return None
    names = [f"x{i}" for i in range(len(leaves))] + [f"v{i}" for i in range(len(steps))]
    lines = [f"{names[len(leaves) + k]} = row[{s.name!r}]("
             + ", ".join(names[i] for i in s.operands) + ")" for k, s in enumerate(steps)]
    scope: dict[str, Any] = {"row": TABLE, "cr": cr}
    end = f"return {names[-1]}.{'mean' if averaged else 'sum'}()"
    text = "def f(x0, x1, x2):\n" + "".join(f"    {line}\n" for line in [*lines, end])
    exec(text, scope)
    place = place_of_mistake(steps, len(leaves), kind, rng)
    if kind and place is None:
        return None
    if kind == "upstream":          # the factor −1 or 1/N alone: a mistake of sign, of the mean
        g = walk(steps, values, len(leaves), averaged, "", None).get(len(leaves) + place[0])
        if g is None or constant(g):
            return None
    if kind in ("slope", "extra", "value"):      # so is the slope of a linear row
        y, x = values[len(leaves) + place[0]], values[steps[place[0]].operands[0]]
        if constant(TABLE[steps[place[0]].name].pulls[0](np.ones_like(y), y, x)):
            return None
    shown = [n for n in names if n[0] == "x" or rng.random() < 0.7]

    def backward(*given: Any) -> dict[str, Any]:
        forwards = forward_of(steps, list(given))
        gradients = walk(steps, forwards, len(leaves), averaged, kind or "", place)
        return {f"d{n}": gradients[i] for i, n in enumerate(names)
                if i in gradients and n in shown}

    return Case(scope["f"], tuple(leaves), backward, kind or "", f"{text}{kind} at {place}")


def constant(x: Any) -> bool:
    return bool(np.ptp(x) <= 1e-6 * np.max(np.abs(x)))


def place_of_mistake(steps: list[Step], leaves: int, kind: str | None, rng: Any) -> Any:
    if kind in (None, "mean"):
        return (-1, 0)
    options = []
    for k, step in enumerate(steps):
        for slot, i in enumerate(step.operands):
            curved = len(step.operands) == 1 and TABLE[step.name].kind == "elementwise"
            if kind == "path":
                uses = sum(s.operands.count(i) for s in steps)
                if uses > 1 and step.operands.count(i) == 1:       # v·v: that is a factor 2
                    options.append((k, slot))
            elif kind == "operand":
                if step.name == "mul" and step.operands[0] != step.operands[1]:
                    options.append((k, slot))
            elif kind == "batch":
                if i == 2:
                    options.append((k, slot))
            elif curved or kind == "sign":
                options.append((k, slot))
    return options[rng.integers(len(options))] if options else None


def walk(steps: list[Step], values: list[Any], leaves: int, averaged: bool, kind: str,
         place: Any) -> dict[int, Any]:
    """The backward pass, with one thing wrong at `place`."""
    last = len(values) - 1
    size = values[last].size if averaged and kind != "mean" else 1
    gradients: dict[int, Any] = {last: np.full(values[last].shape, 1 / size)}
    for k in range(len(steps) - 1, -1, -1):
        g = gradients.get(leaves + k)
        if g is None:
            continue
        step, y = steps[k], values[leaves + k]
        xs = [values[i] for i in step.operands]
        for slot, i in enumerate(step.operands):
            pull: Any = TABLE[step.name].pulls[slot]
            wrong = kind if (k, slot) == place else ""
            if wrong == "path":
                continue
            if wrong == "sign":
                term = -pull(g, y, *xs)
            elif wrong == "slope":
                term = g
            elif wrong == "upstream":
                term = pull(np.ones_like(g), y, *xs)
            elif wrong == "extra":
                term = pull(pull(g, y, *xs), y, *xs)
            elif wrong == "value":
                again = TABLE[step.name].eval(y)
                term = pull(g, xs[0], y) if k % 2 else pull(g, again, y)
            elif wrong == "operand":
                term = pull(g, y, *xs[::-1])
            else:
                term = pull(g, y, *xs)
            term = np.broadcast_to(term, np.broadcast_shapes(np.shape(term), y.shape))
            while term.ndim > values[i].ndim and wrong != "batch":
                term = term.sum(0)
            before = gradients.get(i)
            gradients[i] = term if before is None else before + term
    return gradients
