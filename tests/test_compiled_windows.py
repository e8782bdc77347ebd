"""Compiled convolutions: against eager ones, for any machine, split of the work and thread count.

    python -m pytest tests/test_compiled_windows.py
"""

from __future__ import annotations

import ctypes
import itertools
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import executable
from chainrule.compiler.arrays.arrays import Arrays
from chainrule.compiler.arrays.index import in_order, strides_of
from chainrule.compiler.arrays.windows import Windows, straight, unwound
from chainrule.compiler.machine import build
from chainrule.compiler.products import window as contract_window
from chainrule.compiler.products.image import Spec
from chainrule.nn import functional as F
from chainrule.prims import window

Array = np.ndarray[Any, Any]
# float32 lanes and registers: AVX-512, AVX2, and vectors of 128 bits with 32 and 16 registers.
MACHINES = ((16, 32), (8, 16), (4, 32), (4, 16))
PHASE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, ctypes.c_int64, ctypes.c_int64)
MARK = 0xA5
GUARD = 4096


class Case(NamedTuple):
    """A convolution; `channels` and `out` are those of one group."""

    images: int = 2
    channels: int = 3
    size: tuple[int, int] = (9, 11)
    out: int = 6
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    dtype: str = "float32"

    @property
    def settings(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation,
                "groups": self.groups}

    def operands(self) -> tuple[Array, Array, Array, Array]:
        """Images, kernels, bias, and a cotangent."""
        rng = np.random.default_rng(len(repr(self)) + sum(self.size) * 31 + self.out)
        x = rng.standard_normal((self.images, self.channels * self.groups, *self.size))
        w = rng.standard_normal((self.out * self.groups, self.channels, *self.kernel))
        bias = rng.standard_normal(self.out * self.groups)
        g = rng.standard_normal(window._conv(x, w, **self.settings).shape)
        return tuple([a.astype(self.dtype) for a in (x, w, bias, g)])  # type: ignore[return-value]


CASES = [
    Case(),
    Case(dtype="float64", out=17),
    Case(images=1, size=(13, 7), out=64, channels=5),
    Case(images=0),
    Case(size=(1, 1), padding=(1, 1)),
    Case(size=(28, 28), channels=1, out=6, kernel=(5, 5), padding=(2, 2), images=5),
    Case(size=(7, 7), channels=33, out=32, images=20),
    Case(size=(32, 32), channels=16, out=48, images=3),
    Case(size=(32, 32), channels=40, out=16, images=1, kernel=(5, 3), padding=(2, 1)),
    Case(stride=(2, 2), size=(15, 14), out=24),
    Case(stride=(3, 2), kernel=(2, 5), padding=(0, 3), size=(14, 13)),
    Case(stride=(4, 3), kernel=(2, 2), padding=(0, 0), size=(17, 14)),       # taps miss pixels
    Case(dilation=(2, 3), padding=(2, 1), size=(12, 16), out=20),
    Case(stride=(2, 3), dilation=(2, 2), padding=(3, 2), size=(16, 17)),
    Case(stride=(4, 2), dilation=(2, 4), padding=(1, 4), size=(16, 17), out=5),
    Case(kernel=(1, 1), padding=(0, 0), out=32),
    Case(kernel=(1, 1), padding=(0, 0), stride=(2, 2), out=32),
    Case(kernel=(1, 1), padding=(2, 1), out=16),
    Case(kernel=(1, 4), padding=(0, 0), size=(1, 40), out=16, images=4),
    Case(kernel=(7, 7), padding=(3, 3), size=(20, 20), out=16, stride=(2, 2)),
    Case(kernel=(3, 3), padding=(4, 4), size=(5, 6)),                        # wider than the kernel
    Case(images=3, channels=24, size=(90, 61), out=64, kernel=(5, 5), stride=(3, 3),
         padding=(2, 2)),                                                     # bands of rows
    Case(images=1, channels=33, size=(70, 66), out=32, stride=(2, 1), padding=(0, 2)),
    Case(groups=3, out=8),
    Case(groups=2, channels=16, out=16, size=(12, 12)),
    Case(groups=5, channels=1, out=1, dtype="float64"),                      # depthwise
    Case(groups=8, channels=1, out=2, size=(14, 14), padding=(0, 1)),
    Case(groups=4, channels=2, out=1, stride=(2, 2), size=(14, 15)),
    Case(out=1, channels=20),
    Case(out=2, channels=1, kernel=(2, 2), padding=(0, 0), dtype="float64"),
]


def names(case: Any) -> str:
    return "-".join(str(x).replace(" ", "") for x in case)


def close(got: Any, want: Any, dtype: str, terms: int = 1) -> None:
    got, want = np.asarray(got.numpy()), np.asarray(want.numpy())
    assert got.shape == want.shape
    scale = max(float(np.abs(want).max(initial=0)), 1.0)
    bound = (4e-6 if dtype == "float32" else 1e-14) * math.sqrt(terms + 16) * scale
    assert np.abs(got - want).max(initial=0) <= bound


def step(case: Case, activation: str) -> Callable[..., Any]:
    """The convolution with what follows it, and all its gradients."""
    def run(x: Any, w: Any, bias: Any, g: Any) -> Any:
        y = F.conv2d(x, w, bias, **case.settings)
        if activation == "relu":
            y = y.relu()
        elif activation == "residual":
            y = y * g + y
        return (y, *cr.autograd.grad((y * g).sum(), [x, w, bias]))
    return run


FOLLOWED = ("none", "relu", "residual")


@pytest.mark.parametrize(("case", "activation"),
                         list(zip(CASES, itertools.cycle(FOLLOWED))), ids=names)
def test_like_eager(case: Case, activation: str) -> None:
    tensors = [cr.tensor(a).requires_grad_(i < 3) for i, a in enumerate(case.operands())]
    run = step(case, activation)
    for got, want in zip(cr.compile(run)(*tensors), run(*tensors), strict=True):
        close(got.detach(), want.detach(), case.dtype, tensors[1].numel() // max(case.out, 1))


@pytest.mark.parametrize("seed", range(25))
def test_random_convolutions_like_eager(seed: int) -> None:
    r = random.Random(seed)
    while True:
        case = Case(r.choice([1, 2, 3, 9, 20]), r.choice([1, 2, 3, 5, 16, 17]),
                    (r.randint(1, 20), r.randint(1, 36)), r.choice([1, 2, 3, 5, 8, 17, 32, 48]),
                    (r.randint(1, 5), r.randint(1, 5)), (r.randint(1, 3), r.randint(1, 3)),
                    (r.randint(0, 3), r.randint(0, 3)), (r.randint(1, 3), r.randint(1, 2)),
                    r.choice([1, 1, 1, 2, 3]), r.choice(["float32", "float64"]))
        if all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(
                case.size, case.padding, case.dilation, case.kernel, strict=True)):
            break
    test_like_eager(case, r.choice(FOLLOWED))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transposed_and_one_dimensional(dtype: str) -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((3, 6, 5, 7)), rng.standard_normal((6, 8, 3, 2))
    line, taps = rng.standard_normal((3, 6, 50)), rng.standard_normal((16, 6, 5))
    given = [cr.tensor(a.astype(dtype)).requires_grad_() for a in (x, w, line, taps)]

    def run(x: Any, w: Any, line: Any, taps: Any) -> Any:
        y = F.conv_transpose2d(x, w, stride=(2, 3), padding=(1, 0), output_padding=(1, 1))
        z = F.conv1d(line, taps, stride=2, padding=2).relu()
        loss = (y * y).sum() + (z * z).sum()
        return (y, z, *cr.autograd.grad(loss, [x, w, line, taps]))

    for got, want in zip(cr.compile(run)(*given), run(*given), strict=True):
        close(got.detach(), want.detach(), dtype, 100)


def test_operands_that_are_views() -> None:
    """Channels last, every second column, one image for all: read where they lie, or copied."""
    rng = np.random.default_rng(4)
    x = cr.tensor(rng.standard_normal((3, 10, 18, 4)))
    w = cr.tensor(rng.standard_normal((3, 3, 4, 8)))

    def run(x: Any, w: Any) -> Any:
        kernels = w.permute(3, 2, 0, 1)
        last = F.conv2d(x.permute(0, 3, 1, 2), kernels, padding=1)
        some = F.conv2d(x.permute(0, 3, 1, 2)[:, :, :, ::2], kernels.flip(2))
        one = F.conv2d(x[:1].permute(0, 3, 1, 2).expand(3, 4, 10, 18), kernels)
        return last, some, one

    for got, want in zip(cr.compile(run)(x, w), run(x, w), strict=True):
        close(got, want, "float64", 40)


def test_second_derivatives() -> None:
    rng = np.random.default_rng(5)
    x = cr.tensor(rng.standard_normal((2, 5, 6, 7))).requires_grad_()
    w = cr.tensor(rng.standard_normal((6, 5, 3, 3))).requires_grad_()

    def run(x: Any, w: Any) -> Any:
        y = F.conv2d(x, w, stride=2, padding=1)
        gx, gw = cr.autograd.grad((y * y * y).sum(), [x, w], create_graph=True)
        return cr.autograd.grad((gx * gx).sum() + (gw * gw).sum(), [x, w])

    for got, want in zip(cr.compile(run)(x, w), run(x, w), strict=True):
        scale = float(np.abs(want.numpy()).max())
        assert np.abs(got.numpy() - want.numpy()).max() < 1e-12 * scale


# ---------------------------------------------------------------- threads, fusion, memory


def network(dtype: Any = None) -> tuple[Any, Callable[..., Any]]:
    cr.manual_seed(0)
    model = cr.nn.Sequential(
        cr.nn.Conv2d(3, 16, 3, padding=1), cr.nn.ReLU(), cr.nn.Conv2d(16, 40, 3, stride=2),
        cr.nn.ReLU(), cr.nn.Conv2d(40, 40, 3, padding=1, groups=40), cr.nn.Conv2d(40, 24, 1),
        cr.nn.Flatten(), cr.nn.Linear(24 * 13 * 13, 10))
    optimizer = cr.optim.SGD(model.parameters(), lr=0.01)

    def train(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, train


def test_bits_are_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable, "PARALLEL_FROM", 0)
    monkeypatch.setattr(executable, "CHUNK", 1e-9)
    rng = np.random.default_rng(6)
    x = cr.tensor(rng.standard_normal((20, 3, 28, 28)).astype(np.float32))
    y = cr.tensor(rng.integers(0, 10, 20))
    found = []
    for count in (1, 2, 4, 7):
        model, train = network()
        compiled = cr.compile(train)
        with cr.num_threads(count):
            for _ in range(2):
                loss = compiled(x, y)
        found.append([loss.detach().numpy().tobytes(), *[p.detach().numpy().tobytes() for p in
                                                model.state_dict().values()]])
    assert all(one == found[0] for one in found)


def test_training_like_eager() -> None:
    rng = np.random.default_rng(7)
    x = cr.tensor(rng.standard_normal((6, 3, 28, 28)).astype(np.float32))
    y = cr.tensor(rng.integers(0, 10, 6))
    ways = []
    for compiled in (False, True):
        model, train = network()
        run = cr.compile(train) if compiled else train
        losses = [float(run(x, y).detach()) for _ in range(3)]
        ways.append((losses, list(model.state_dict().values())))
    assert np.allclose(ways[0][0], ways[1][0], rtol=1e-5)
    for a, b in zip(ways[0][1], ways[1][1], strict=True):
        assert np.allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-6)


def kernels_of(compiled: Any) -> list[dict[str, Any]]:
    return compiled.report().to_dict()["entries"][0]["kernels"]  # type: ignore[no-any-return]


def test_bias_activation_and_update_are_part_of_the_product() -> None:
    """No matrix of windows is made, nothing is copied, and nothing passes over C again."""
    model = cr.nn.Sequential(cr.nn.Conv2d(8, 16, 3, padding=1), cr.nn.ReLU(),
                             cr.nn.Conv2d(16, 16, 3, padding=1), cr.nn.ReLU())
    optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
    x = cr.randn(4, 8, 20, 20)

    @cr.compile
    def forward(x: Any) -> Any:
        with cr.no_grad():
            return model(x)

    @cr.compile
    def train(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    forward(x)
    kernels = kernels_of(forward)
    assert {tuple(k["does"]) for k in kernels} == {("contract", "add", "relu")}
    train(x)
    kernels = kernels_of(train)
    assert all("copy" not in k["does"] for k in kernels)
    updates = [k for k in kernels if k["kernel"] == "contract" and "sub" in k["does"]]
    assert {tuple(k["shape"]) for k in updates} == {(16, 72), (16, 144)}


# ---------------------------------------------------------------- the programs themselves


def brute(size: int, taps: int, stride: int, padding: int, spread: int) -> set[Any]:
    """(pixel of the result, place of the image, tap) of a transposed convolution."""
    found = set()
    for place in range(-50, 50):
        for tap in range(taps):
            pixel = place * stride - padding + tap * spread
            if 0 <= pixel < size:
                found.add((pixel, place, tap))
    return found


@pytest.mark.parametrize(("taps", "stride", "padding", "spread"), [
    *itertools.product((1, 2, 3, 5), (1, 2, 3, 4), (0, 1, 3), (1, 2, 3))])
def test_residues_of_a_transposed_convolution(taps: int, stride: int, padding: int,
                                              spread: int) -> None:
    size = 11
    found = set()
    for line in unwound(size, taps, stride, padding, spread):
        for q in range(line.length):
            for t in range(line.taps):
                one = (line.first + q * line.step, line.start + q * line.move + t * line.spread,
                       line.tap + t * line.jump)
                assert one not in found
                found.add(one)
    assert found == brute(size, taps, stride, padding, spread)


def programs(case: Case) -> list[tuple[Windows, tuple[Array, Array], Array]]:
    """The three products of a convolution, their operands and what they come to."""
    x, w, _, g = case.operands()
    n, groups, sizes, pixels = case.images, case.groups, case.size, g.shape[2:]
    image = x.reshape(n, groups, case.channels, *sizes)
    kernels = w.reshape(groups, case.out, case.channels, *case.kernel)
    given = g.reshape(n, groups, case.out, *pixels)
    axes = list(zip(pixels, case.kernel, case.stride, case.padding, case.dilation, strict=True))
    rows, columns = (straight(*one) for one in axes)
    back = [unwound(size, *rest) for size, (_, *rest) in zip(sizes, axes, strict=True)]
    wide = [a.astype(np.float64) for a in (x, w, g)]
    return [
        (Windows("convolve", n, groups, case.channels, case.out, sizes, pixels, case.kernel, rows,
                 columns), (image, kernels), window._conv(wide[0], wide[1], **case.settings)),
        (Windows("convolve", n, groups, case.out, case.channels, pixels, sizes, case.kernel,
                 *back), (given, np.ascontiguousarray(kernels.swapaxes(1, 2))),
         window._conv_input(wide[2], wide[1], **case.settings, size=sizes)),
        (Windows("correlate", n, groups, case.channels, case.out, sizes, pixels, case.kernel, rows,
                 columns), (image, given),
         window._conv_weight(wide[0], wide[2], **case.settings, kernel=case.kernel)),
    ]


def run(spec: Spec, operands: tuple[Array, Array], machine: tuple[int, int],
        seed: int | None) -> Array:
    """The product by its program, in any order of parts; nothing around the scratch may change."""
    made = contract_window.program(spec, machine[0], None, machine[1])
    library = build.load("\n".join(made.text.values()))
    c = np.full(spec.windows.shape, np.nan, operands[0].dtype)
    memory = np.full(made.scratch + 2 * GUARD + 64, MARK, np.uint8)
    start = GUARD + -(memory.ctypes.data + GUARD) % 64
    for phase in made.phases:
        function = PHASE(library.address(phase.name))
        cuts = [0, phase.units]
        r = random.Random(seed)
        if seed is not None:
            cuts = sorted({0, phase.units, *[r.randrange(phase.units + 1) for _ in range(4)]})
        ranges = list(itertools.pairwise(cuts))
        r.shuffle(ranges)
        for low, high in ranges:
            function(operands[0].ctypes.data, operands[1].ctypes.data, c.ctypes.data,
                     memory.ctypes.data + start, None, low, high)
    assert (memory[:start] == MARK).all()
    assert (memory[start + made.scratch:] == MARK).all()
    return c


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("case", [
    Case(), Case(out=40, channels=20, size=(12, 33), images=5), Case(groups=2, out=9, images=3),
    Case(stride=(2, 3), size=(14, 17), out=32, channels=8, dtype="float64"),
    Case(stride=(4, 3), kernel=(2, 2), padding=(0, 0), size=(17, 14)),
    Case(kernel=(7, 9), padding=(3, 0), size=(12, 20), out=18),
    Case(channels=150, out=150, size=(4, 4), images=9),
    Case(channels=8, out=16, size=(60, 60), images=1)], ids=names)
def test_any_machine_and_split(case: Case, machine: tuple[int, int]) -> None:
    for windows, operands, want in programs(case):
        spec = Spec(windows, "float" if case.dtype == "float32" else "double",
                    strides_of(operands[0].shape), strides_of(operands[1].shape))
        whole = run(spec, operands, machine, None)
        got = whole.reshape(want.shape).astype(np.float64)
        terms = windows.flops / max(want.size, 1)
        bound = (2e-6 if case.dtype == "float32" else 5e-15) * math.sqrt(terms + 16)
        assert np.abs(got - want).max() <= bound * max(float(np.abs(want).max()), 1)
        for seed in range(2):
            assert run(spec, operands, machine, seed).tobytes() == whole.tobytes()


def test_a_view_in_order_is_its_array() -> None:
    builder = Arrays()
    x = builder.input(0, cr.core.types.ArrayType((2, 3, 20)))
    whole = builder.split_last(x, (4, 5))
    assert whole.shape == (2, 3, 4, 5)
    assert in_order(whole.what, whole.shape, x.shape)
    assert builder.reshape(whole, (2, 3, 20)) is x
    turned = builder.permute(whole, (0, 1, 3, 2))
    assert not in_order(turned.what, turned.shape, x.shape)
