"""Random programs over the public operations, as source text that chainrule and PyTorch both run.

Each program makes values v0, v1, ... from leaves; its loss weighs all of them. The gradient is
compared with centred differences, with forward mode, with PyTorch; the gradient's own gradient
with differences of the gradient; vmap with a loop. A failure prints the program.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.core.errors import ChainruleError, GradientError, InPlaceError
from chainrule.func import grad, jvp, vmap

torch: Any = None
if importlib.util.find_spec("torch") is not None:
    import torch



def examples(count: int) -> int:
    """More under `--hypothesis-profile=search`."""
    return max(count, settings.default.max_examples)


SIZES = (0, 1, 1, 2, 3, 3)
STEP = 1e-6

UNARY = ("{a}.sin()", "{a}.cos()", "{a}.tanh()", "({a} * 0.3).exp()", "{a}.sigmoid()",
         "{a}.square()", "{a} * {c}", "{a} + {c}", "{c} - {a}", "{a} / 2.0",
         "{c} / ({a}.square() + 1)",
         "-{a}", "({a} * {a} + 0.5).sqrt()", "({a} * {a} + 0.5).log()", "{a} ** 2", "{a} ** 3",
         "({a}.abs() + 0.5) ** -1.5", "{a}.relu()", "{a}.abs()", "{a}.clamp(-0.8, 0.6)",
         "lib.where({a} > 0.1, {a} * {a}, {a}.sin())", "2.0 ** {a}", "{a}.clone()", "{a}.erf()",
         "lib.nn.functional.gelu({a})", "lib.nn.functional.softplus({a})", "{a}.expm1()",
         "lib.nn.functional.leaky_relu({a}, 0.1)", "{a}.round() + {a}", "{a} % 0.7")
BINARY = ("{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / ({b} * {b} + 1)", "lib.maximum({a}, {b})",
          "lib.minimum({a}, {b})", "lib.where({a} > {b}, {a}, {b} * 2)",
          "lib.atan2({a}, {b}.abs() + 1)", "({a} * {a} + 0.5) ** {b}.tanh()",
          "lib.addcmul({a}, {a}, {b})")
REDUCE = ("{a}.sum({d})", "{a}.mean({d})", "{a}.sum({d}, keepdim=True)",
          "{a}.mean({d}, keepdim=True)",
          "{a}.amax({d})", "{a}.amin({d}, keepdim=True)", "{a}.prod({d})", "{a}.logsumexp({d})",
          "{a}.cumsum({d})", "{a}.cumprod({d})", "lib.softmax({a}, {d})",
          "lib.log_softmax({a}, {d})",
          "{a}.sum()", "{a}.max({d})[0]", "{a}.sort({d})[0]", "{a}.norm(2, {d}) * 0.5",
          "{a}.var({d}, correction=0)", "{a}.std({d})")
NEEDS_ELEMENTS = ("amax", "amin", "max", "var", "std", "mean", "norm", "logsumexp", "sort",
                  "softmax")
MOVE = ("{a}.reshape(-1)", "{a}.unsqueeze({u})", "{a}.squeeze()", "{a}.flip({d})",
        "{a}.transpose(0, {d})", "{a}[..., None]", "{a}.flatten()",
        "lib.stack([{a}, {a}.sin()], {u})",
        "lib.cat([{a}, {a} * 2], {d})", "{a}.roll(1, {d})",
        "lib.tril({a}.reshape(-1, 1) @ {a}.reshape(1, -1))",
        "{a}.unsqueeze(0).expand(2, {star})", "{a}.repeat({ones}2)",
        "lib.nn.functional.pad({a}, (1, 2))", "{a}.movedim({d}, 0)", "{a}.T")
IN_PLACE = ("{a}.mul_({c})", "{a}.add_({a})", "{a}.sin_()", "{a}.tanh_()", "{a}.clamp_(-0.9, 0.9)",
            "{a}.fill_({c})", "{a}.zero_()", "{a}.square_()")
IN_PLACE_TWO = ("{a}.add_({b})", "{a}.mul_({b})", "{a}.copy_({b})", "{a}.sub_({b})",
                "{a}[...] = {b}", "{a} += {b}", "{a} *= {b}", "{a}.div_({b} * {b} + 1)")


class Writer:
    """Draws a program; every line is run as it is written, so that shapes are known."""

    def __init__(self, data: Any, mutating: bool) -> None:
        self.draw = data.draw
        self.lines: list[str] = []
        self.mutating = mutating
        self.leaves: dict[str, np.ndarray] = {}
        self.env: dict[str, Any] = {"lib": cr}
        self.made: list[str] = []

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def leaf(self) -> None:
        shape = tuple(self.pick(SIZES) for _ in range(self.draw(st.integers(0, 3))))
        rng = np.random.default_rng(self.draw(st.integers(0, 99)))
        name = f"x{len(self.leaves)}"
        self.leaves[name] = rng.uniform(-1.2, 1.2, shape)
        self.env[name] = cr.tensor(self.leaves[name])
        self.made.append(name)

    def write(self, line: str) -> None:
        exec(line, self.env)
        self.lines.append(line)

    def value(self, text: str) -> None:
        name = f"v{len(self.lines)}"
        self.write(f"{name} = {text}")
        self.made.append(name)
        array = self.env[name].numpy()
        assume(np.isfinite(array).all() and (not array.size or np.abs(array).max() < 1e3))
        assume(array.size <= 200)

    def partner(self, a: str, same: bool = False) -> str:
        """A value that broadcasts with a (to a's shape, if `same`)."""
        shape = self.env[a].shape
        found = []
        for name in self.made:
            try:
                common = np.broadcast_shapes(shape, self.env[name].shape)
            except ValueError:
                continue
            if not same or common == tuple(shape):
                found.append(name)
        return self.pick(found)

    def step(self) -> None:
        a = self.pick(self.made[-6:])
        x = self.env[a]
        rank = x.ndim
        fill = {"a": a, "c": self.pick((0.5, -1.3, 2.0)), "u": self.draw(st.integers(-1, rank)),
                "d": self.draw(st.integers(-rank, rank - 1)) if rank else 0,
                "star": ", ".join(["-1"] * rank), "ones": "1, " * max(rank - 1, 0)}
        kind = self.pick(("unary", "binary", "binary", "reduce", "move", "index", "matmul")
                         + ("write", "write", "write") * self.mutating)
        if kind == "unary":
            self.value(self.pick(UNARY).format(**fill))
        elif kind == "binary":
            self.value(self.pick(BINARY).format(b=self.partner(a), **fill))
        elif kind == "reduce" and rank:
            text = self.pick(REDUCE)
            short = x.shape[fill["d"]] < (2 if "std" in text else 1)
            if not (short and any(f".{n}" in text or f"{n}(" in text for n in NEEDS_ELEMENTS)):
                self.value(text.format(**fill))
        elif kind == "move" and rank:
            text = self.pick(MOVE)
            if not ("reshape(-1, 1)" in text and x.numel() == 0) and not (
                    "roll" in text and x.numel() == 0) and not (".T" in text and rank != 2):
                self.value(text.format(**fill))
        elif kind == "index" and rank:
            self.value(f"{a}[{self.key(x)}]")
        elif kind == "matmul":
            pairs = [n for n in self.made if fits_matmul(x.shape, self.env[n].shape)]
            if pairs:
                self.value(f"{a} @ {self.pick(pairs)} * 0.5")
        elif kind == "write" and a.startswith("v"):
            self.mutate(a, x, fill)

    def key(self, x: Any) -> str:
        parts = []
        for n in x.shape[: self.draw(st.integers(1, x.ndim))]:
            options = ["{s}:{e}", "::2", ":", "[0, -1, 0]" if n else ":", "None, :",
                       f"lib.tensor({[i % 2 == 0 for i in range(n)]})" if n else ":"]
            if n:
                options += [str(self.draw(st.integers(-n, n - 1))), "0"]
            text = self.pick(options)
            start, stop = self.draw(st.integers(0, n)), self.draw(st.integers(0, n))
            parts.append(text.format(s=start, e=stop))
        lists = sum(p.startswith(("[", "lib")) for p in parts)
        return ", ".join(parts if lists < 2 else [":" if p.startswith(("[", "lib")) else p
                                                   for p in parts])

    def mutate(self, a: str, x: Any, fill: dict[str, Any]) -> None:
        kind = self.pick(("one", "two", "item", "number"))
        try:
            if kind == "one":
                self.write(self.pick(IN_PLACE).format(**fill))
            elif kind == "two":
                self.write(self.pick(IN_PLACE_TWO).format(b=self.partner(a, same=True), **fill))
            elif x.ndim:
                key = self.key(x)
                if kind == "number":
                    self.write(f"{a}[{key}] = {fill['c']}")
                    return
                part = eval(f"x[{key}]", {"x": x, "lib": cr})
                names = [n for n in self.made if tuple(self.env[n].shape) in (
                    tuple(part.shape), ())]
                if names:
                    self.write(f"{a}[{key}] = {self.pick(names)}")
        except InPlaceError:
            pass                                   # an expanded tensor, for example
        assume(np.isfinite(self.env[a].numpy()).all())
        assume(not x.numel() or abs(self.env[a].numpy()).max() < 1e3)


def fits_matmul(m: Any, n: Any) -> bool:
    if not m or not n or m[-1] != (n[-2] if len(n) > 1 else n[0]):
        return False
    try:
        np.broadcast_shapes(m[:-2], n[:-2])
    except ValueError:
        return False
    return True


class Program:
    def __init__(self, data: Any, mutating: bool = False, steps: int = 8) -> None:
        writer = Writer(data, mutating)
        for _ in range(data.draw(st.integers(1, 3))):
            writer.leaf()
        for _ in range(data.draw(st.integers(1, steps))):
            writer.step()
        self.lines, self.leaves = writer.lines, writer.leaves
        self.names = [n for n in writer.made if n.startswith("v")]
        assume(self.names)
        note("\n".join([*(f"{n} = {x.tolist()}  # {x.shape}" for n, x in self.leaves.items()),
                        *self.lines]))

    def loss(self, lib: Any, tensors: Any) -> Any:
        env = {"lib": lib, **dict(zip(self.leaves, tensors, strict=True))}
        for line in self.lines:
            exec(line, env)
        total = tensors[0].sum() * 0
        for k, name in enumerate(self.names):
            total = total + (env[name] * (0.3 + 0.1 * k)).sin().sum()
        return total

    def at(self, s: float, ways: Any) -> float:
        tensors = [cr.tensor(x + s * t) for x, t in zip(self.leaves.values(), ways, strict=True)]
        return float(self.loss(cr, tensors).item())

    def ways(self, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [rng.normal(size=x.shape) for x in self.leaves.values()]

    def gradient(self, lib: Any = cr, shift: float = 0.0, ways: Any = None) -> list[np.ndarray]:
        arrays = [x if ways is None else x + shift * t
                  for x, t in zip(self.leaves.values(), ways or self.leaves.values(), strict=True)]
        tensors = [lib.tensor(x, requires_grad=True) for x in arrays]
        self.loss(lib, tensors).backward()
        return [np.zeros(x.shape) if t.grad is None else t.grad.numpy()
                for x, t in zip(arrays, tensors, strict=True)]

    def smooth(self, ways: Any) -> bool:
        """Do the slopes to the left and to the right agree?"""
        left, here, right = self.at(-STEP, ways), self.at(0, ways), self.at(STEP, ways)
        a, b = (here - left) / STEP, (right - here) / STEP
        return abs(a - b) <= 1e-3 * max(1.0, abs(a), abs(b))

    def slope(self, ways: Any) -> float:
        return (self.at(STEP, ways) - self.at(-STEP, ways)) / (2 * STEP)


def along(gradients: Any, ways: Any) -> float:
    return float(sum((g * t).sum() for g, t in zip(gradients, ways, strict=True)))


def near(a: float, b: float, what: str, tolerance: float = 1e-5) -> None:
    assert abs(a - b) <= tolerance * max(1.0, abs(a), abs(b)), f"{what}: {a} against {b}"


@settings(max_examples=examples(200))
@given(st.data())
def test_gradient_against_differences_and_forward_mode(data: Any) -> None:
    program = Program(data)
    ways = program.ways()
    found = along(program.gradient(), ways)
    with cr.settings.using(keep_small=0):
        near(along(program.gradient(), ways), found, "keeping only what is read", 1e-10)
    tensors = tuple(cr.tensor(x) for x in program.leaves.values())
    _, dot = jvp(lambda *xs: program.loss(cr, xs), tensors, tuple(map(cr.tensor, ways)))
    near(dot.item(), found, "forward against reverse", 1e-8)
    if program.smooth(ways):
        near(found, program.slope(ways), "reverse against differences")


@settings(max_examples=examples(200))
@given(st.data())
def test_in_place_programs(data: Any) -> None:
    program = Program(data, mutating=True, steps=10)
    ways = program.ways()
    try:
        found = along(program.gradient(), ways)
    except GradientError as error:
        note(str(error))
        agrees_that_it_fails(program)
        return
    if program.smooth(ways):
        near(found, program.slope(ways), "reverse against differences")


def agrees_that_it_fails(program: Program) -> None:
    """What chainrule refuses, PyTorch refuses too."""
    if torch is None or not all(x.size for x in program.leaves.values()):
        return
    with pytest.raises(RuntimeError):
        program.gradient(torch)


@pytest.mark.skipif(torch is None, reason="compares with PyTorch")
@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=examples(200))
@given(st.data(), st.booleans())
def test_against_torch(data: Any, mutating: bool) -> None:
    program = Program(data, mutating=mutating, steps=10)
    try:
        theirs = program.gradient(torch)
    except RuntimeError:
        assume(False)
    ways = program.ways()
    assume(program.smooth(ways))
    try:
        ours = program.gradient()
    except GradientError as error:
        assume(all(x.size for x in program.leaves.values()))
        pytest.fail(f"PyTorch computes this, chainrule refuses: {error}")
    for a, b in zip(ours, theirs, strict=True):
        if np.isfinite(b).all():
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@settings(max_examples=examples(100))
@given(st.data())
def test_second_derivatives(data: Any) -> None:
    program = Program(data, steps=5)
    ways, weights = program.ways(), program.ways(1)
    assume(program.smooth(ways))
    assume(program.smooth(weights))
    left = along(program.gradient(shift=-STEP, ways=ways), weights)
    right = along(program.gradient(shift=STEP, ways=ways), weights)
    here = along(program.gradient(), weights)
    a, b = (here - left) / STEP, (right - here) / STEP
    assume(abs(a - b) <= 1e-2 * max(1.0, abs(a), abs(b)))
    leaves = tuple(cr.tensor(x) for x in program.leaves.values())
    numbers = tuple(range(len(leaves)))
    first = grad(lambda *xs: program.loss(cr, xs), numbers)

    def weighted(*xs: Any) -> Any:
        return sum(((g * cr.tensor(w)).sum() for g, w in zip(first(*xs), weights, strict=True)),
                   cr.tensor(0.0).double())

    second = grad(weighted, numbers)(*leaves)
    wanted = (right - left) / (2 * STEP)
    near(along([g.numpy() for g in second], ways), wanted, "reverse over reverse", 1e-4)
    dots = jvp(first, leaves, tuple(map(cr.tensor, ways)))[1]
    near(along([d.numpy() for d in dots], weights), wanted, "forward over reverse", 1e-4)


@settings(max_examples=examples(150))
@given(st.data(), st.booleans())
def test_vmap_against_a_loop(data: Any, differentiate: bool) -> None:
    program = Program(data, mutating=data.draw(st.booleans()), steps=6)
    numbers = tuple(range(len(program.leaves)))

    def one(*xs: Any) -> Any:
        xs = tuple(x * 1 for x in xs)
        return program.loss(cr, xs)

    f = grad(one, numbers) if differentiate else lambda *xs: (one(*xs),)
    shifts = (0.0, 0.1, -0.2)
    loop = []
    for s in shifts:
        try:
            loop.append(f(*[cr.tensor(x + s) for x in program.leaves.values()]))
        except GradientError:
            assume(False)
    batch = [cr.tensor(np.stack([x + s for s in shifts])) for x in program.leaves.values()]
    try:
        found = vmap(f)(*batch)
    except (ChainruleError, ValueError) as error:
        note(str(error))
        assume(False)
    for k in range(len(shifts)):
        for a, b in zip(found, loop[k], strict=True):
            b = b.numpy()
            if np.isfinite(b).all():
                np.testing.assert_allclose(a[k].numpy(), b, rtol=1e-8, atol=1e-8)
