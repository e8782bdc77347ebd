"""Pictures of graphs: what is drawn is what was computed, and nothing covers anything else."""

from __future__ import annotations

import math
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.cli.main import main
from chainrule.core.errors import NotScalarError, SettingError
from chainrule.explain.pictures.facts import norm, number
from chainrule.explain.pictures.lettering import text_width

NAME = "{http://www.w3.org/2000/svg}"


# ---------------------------------------------------------------- reading a picture


@dataclass
class Area:
    """A rectangle that was drawn, and what it is."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str = ""
    text: str = ""
    texts: list[Area] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.title.split("\n")[0].split(" = ")[0]

    def shares(self, other: Area, slack: float = 0.05) -> bool:
        return (self.x + slack < other.x + other.width and other.x + slack < self.x + self.width
                and self.y + slack < other.y + other.height
                and other.y + slack < self.y + self.height)

    def holds(self, other: Area, slack: float = 0.15) -> bool:
        return (self.x <= other.x + slack and self.y <= other.y + slack
                and other.x + other.width <= self.x + self.width + slack
                and other.y + other.height <= self.y + self.height + slack)


@dataclass
class Drawn:
    """An SVG file, read back."""

    boxes: list[Area]
    frames: list[Area]
    labels: list[Area]
    lines: list[tuple[str, str, list[tuple[float, float]], float]]
    whole: tuple[float, float]


def text_area(element: Any) -> Area:
    spans = list(element)
    width = sum(text_width(span.text or "", float(span.get("font-size")),
                           span.get("class") == "name") for span in spans)
    size = max(float(span.get("font-size")) for span in spans)
    x, base = float(element.get("x")), float(element.get("y"))
    x -= width / 2 if element.get("text-anchor") == "middle" else 0
    text = "".join(span.text or "" for span in spans)
    return Area("text", x, base - 0.78 * size, width, 0.98 * size, text=text)


def rect_area(kind: str, element: Any) -> Area:
    return Area(kind, *(float(element.get(key)) for key in ("x", "y", "width", "height")))


def points_of(path: str) -> list[tuple[float, float]]:
    """The places a path goes through, curves in small steps."""
    found: list[tuple[float, float]] = []
    for letter, rest in re.findall(r"([MLC])([^MLCZ]*)", path):
        values = [float(v) for v in rest.split()]
        if letter == "C":
            p = [found[-1], *zip(values[::2], values[1::2], strict=True)]
            for k in range(1, 13):
                t = k / 12
                w = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t * t, t ** 3)
                found.append((sum(a * q[0] for a, q in zip(w, p, strict=True)),
                              sum(a * q[1] for a, q in zip(w, p, strict=True))))
        else:
            found.append((values[0], values[1]))
    return found


def read(svg: str) -> Drawn:
    root = ElementTree.fromstring(svg)
    body = root.findall(f"{NAME}g")[0]
    drawn = Drawn([], [], [], [], (float(root.get("width", 0)), float(root.get("height", 0))))
    for element in body:
        if element.tag == f"{NAME}text":
            drawn.labels.append(text_area(element))
            continue
        kind = element.get("class", "")
        title = element.findtext(f"{NAME}title") or ""
        rects = element.findall(f"{NAME}rect")
        texts = [text_area(one) for one in element.findall(f"{NAME}text")]
        if kind.startswith("line"):
            path = element.findall(f"{NAME}path")[0]
            drawn.lines.append((kind, title, points_of(path.get("d", "")),
                                float(path.get("stroke-width", 0))))
        elif kind.startswith("box"):
            area = rect_area(kind, rects[-1])
            area.title, area.texts = title, texts
            area.text = "\n".join(one.text for one in texts)
            drawn.boxes.append(area)
        else:
            area = rect_area("frame", rects[-1])
            area.title, area.texts = title, texts
            drawn.frames.append(area)
    return drawn


def apart(areas: list[Area]) -> None:
    """No two areas share a place."""
    ordered = sorted(areas, key=lambda a: a.y)
    for i, one in enumerate(ordered):
        for other in ordered[i + 1:]:
            if other.y >= one.y + one.height:
                break
            assert not one.shares(other), (one, other)


def check(picture: Any) -> Drawn:
    """Nothing covers anything else, texts stay in their boxes, lines end where they should."""
    drawn = read(picture.svg())
    apart(drawn.boxes)
    for box in drawn.boxes:
        for text in box.texts:
            assert box.holds(text), (box, text)
        for one, two in pairwise(box.texts):
            assert not one.shares(two, 0.5), (one, two)
        for frame in drawn.frames:
            assert frame.holds(box) or not frame.shares(box), (frame.title, box)
    for i, frame in enumerate(drawn.frames):
        for other in drawn.frames[:i]:
            assert frame.holds(other) or other.holds(frame) or not frame.shares(other)
    labels = [*drawn.labels, *(text for frame in drawn.frames for text in frame.texts)]
    apart([*drawn.boxes, *labels])
    for label in labels:
        assert all(frame.holds(label) or not frame.shares(label) for frame in drawn.frames)
    corners = np.array([(a.x, a.y, a.x + a.width, a.y + a.height)
                        for a in [*drawn.boxes, *labels]]).reshape(-1, 4)
    count = len(drawn.boxes)
    for _, title, points, width in drawn.lines:
        ends = np.array(points)
        steps = int(np.abs(np.diff(ends, axis=0)).sum(1).max(initial=0) / 3) + 2
        t = np.linspace(0, 1, steps)[:, None, None]
        x, y = (ends[:-1] * (1 - t) + ends[1:] * t).reshape(-1, 2, 1).transpose(1, 0, 2)
        # of a box the line's middle stays out, of a text the whole line
        reach = np.where(np.arange(len(corners)) < count, -0.2, width / 2 - 1)
        inside = ((x > corners[:, 0] - reach) & (x < corners[:, 2] + reach)
                  & (y > corners[:, 1] - reach) & (y < corners[:, 3] + reach)).any(0)
        assert not inside.any(), (title, [*drawn.boxes, *labels][int(inside.argmax())])
    everything = [*drawn.boxes, *drawn.frames, *drawn.labels]
    assert all(a.x > -0.1 and a.y > -0.1 and a.x + a.width <= drawn.whole[0] - 30
               for a in everything)
    return drawn


def arrows(drawn: Drawn) -> set[tuple[str, str]]:
    """Pairs of names of boxes joined by a line, found by where lines begin and end (downwards)."""
    starts = {}
    for box in drawn.boxes:
        starts[(round(box.x + box.width / 2), round(box.y + box.height))] = box.name
    found = set()
    for _, _, points, _ in drawn.lines:
        x, y = points[-1]
        end = next(b.name for b in drawn.boxes
                   if b.x < x < b.x + b.width and abs(b.y - y) < 8.5)
        near = [name for (u, v), name in starts.items()
                if abs(u - points[0][0]) <= 1 and abs(v - points[0][1]) <= 1]
        found.add((near[0], end))
    return found


# ---------------------------------------------------------------- networks


def neuron() -> Any:
    x = cr.tensor(2.0)
    y = cr.tensor(0.0)
    w = cr.tensor(0.5, requires_grad=True)
    b = cr.tensor(0.0, requires_grad=True)
    z = w * x + b
    a = cr.relu(z)
    L = (a - y) ** 2
    return L, {"x": x, "y": y, "w": w, "b": b, "z": z, "a": a, "L": L}


def perceptron() -> Any:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
                          nn.Linear(8, 3))
    x = cr.randn(16, 4)
    return nn.CrossEntropyLoss()(model(x), cr.randint(0, 3, (16,))), {"x": x}, model


def convolution() -> Any:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(4 * 3 * 3, 5))
    loss = nn.functional.cross_entropy(model(cr.randn(2, 1, 8, 8)), cr.tensor([1, 4]))
    return loss, {}, model


def lstm_step() -> Any:
    x, h0, c0 = cr.randn(3, 4), cr.randn(3, 5), cr.randn(3, 5)
    W = cr.randn(4, 20, requires_grad=True)
    U = cr.randn(5, 20, requires_grad=True)
    z = x @ W + h0 @ U
    i, f, o = cr.sigmoid(z[:, :5]), cr.sigmoid(z[:, 5:10]), cr.sigmoid(z[:, 15:])
    c = f * c0 + i * cr.tanh(z[:, 10:15])
    h = o * cr.tanh(c)
    return (h ** 2).mean(), {"x": x, "W": W, "U": U, "c": c, "h": h}


class Attention(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v = [nn.Linear(size, size) for _ in range(3)]
        self.out = nn.Linear(size, size)
        self.heads = heads

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        q, k, v = [part(x).reshape(n, t, self.heads, d // self.heads).transpose(1, 2)
                   for part in (self.q, self.k, self.v)]
        weights = cr.softmax(q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, d))


class Block(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = Attention(size, heads)
        self.mlp = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 8)
        self.blocks = nn.ModuleList([Block(8, 2) for _ in range(blocks)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 20)

    def forward(self, x: Any) -> Any:
        h = self.tokens(x)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def transformer(blocks: int = 12) -> Any:
    model = Transformer(blocks)
    tokens = cr.randint(0, 20, (2, 5))
    logits = model(tokens)
    targets = cr.randint(0, 20, (10,))
    return nn.functional.cross_entropy(logits.reshape(10, 20), targets), {"tokens": tokens}, model


def attention() -> Any:
    model = Attention(8, 2)
    return (model(cr.randn(2, 5, 8)) ** 2).mean(), {}, model


def unrolled() -> Any:
    x = cr.randn(12, 3, 4)
    U, W = cr.randn(4, 6, requires_grad=True), cr.randn(6, 6, requires_grad=True)
    h = cr.zeros(3, 6)
    for t in range(12):
        h = cr.tanh(x[t] @ U + h @ W)
    return (h ** 2).sum(), {"U": U, "W": W}


def random_graph(count: int, seed: int, reach: int = 20) -> Any:
    """So many operations of one or two operands each; the loss depends on all of them."""
    rng = np.random.default_rng(seed)
    nodes = [cr.tensor(0.5, requires_grad=True), cr.tensor(1.0, requires_grad=True)]
    unread = {0, 1}
    while len(nodes) < count + 2 - len(unread):
        i = int(rng.integers(max(0, len(nodes) - reach), len(nodes)))
        j = int(rng.integers(len(nodes)))
        kind = int(rng.integers(4))
        a, b = nodes[i], nodes[j]
        unread -= {i} if kind == 2 else {i, j}
        unread.add(len(nodes))
        nodes.append([lambda a=a, b=b: a + b, lambda a=a, b=b: cr.sin(a * b),
                      lambda a=a: cr.tanh(a), lambda a=a, b=b: a - 0.5 * b][kind]())
    ends = [nodes[i] for i in sorted(unread)]
    while len(ends) > 1:
        ends = [*ends[2:], ends[0] + ends[1]]
    return ends[0] * 1.0, {}


NETWORKS: dict[str, Callable[[], Any]] = {
    f.__name__: f for f in (neuron, perceptron, convolution, lstm_step, attention, transformer,
                            unrolled)}


def drawn_of(name: str, **options: Any) -> Any:
    loss, names, *model = NETWORKS[name]()
    return cr.explain.picture(loss, names=names, model=model[0] if model else None, **options)


# ---------------------------------------------------------------- nothing covers anything


@pytest.mark.parametrize("direction", ["down", "right"])
@pytest.mark.parametrize("detail", [None, "steps", 1, "layers"])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_covers_anything_else(name: str, detail: Any, direction: str) -> None:
    if (name, detail) == ("transformer", "steps"):
        loss, names, model = transformer(3)
        picture = cr.explain.picture(loss, names=names, model=model, detail=detail,
                                     direction=direction)
    else:
        picture = drawn_of(name, detail=detail, direction=direction)
    drawn = check(picture)
    assert len(drawn.boxes) == picture.boxes
    assert (picture.width, picture.height) == pytest.approx(drawn.whole, abs=0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_detail_a_picture_fits_a_screen(name: str) -> None:
    picture = drawn_of(name)
    assert picture.width <= 1500 and picture.height <= 1100
    assert 3 <= picture.boxes <= 60


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 40), seed=st.integers(0, 2**20), reach=st.integers(1, 30),
       right=st.booleans())
def test_random_graphs(count: int, seed: int, reach: int, right: bool) -> None:
    loss, names = random_graph(count, seed, reach)
    direction = "right" if right else "down"
    check(cr.explain.picture(loss, names=names, direction=direction, detail="steps"))
    check(cr.explain.picture(loss, names=names, direction=direction))


@pytest.mark.parametrize("reach", [3, 300])
def test_three_hundred_nodes_take_less_than_two_seconds(reach: int) -> None:
    loss, names = random_graph(290, 1, reach)
    explanation = cr.explain(loss, names=names)
    for detail in (None, "steps"):
        begun = time.process_time()
        picture = explanation.picture(detail=detail)
        assert time.process_time() - begun < 2.0
    assert picture.boxes >= 290


# ---------------------------------------------------------------- it is the graph, and its numbers


def test_one_neuron() -> None:
    loss, names = neuron()
    drawn = check(cr.explain.picture(loss, names=names))
    texts = {box.name: box.text for box in drawn.boxes}
    assert texts == {
        "w": "w = 0.5\n∂L/∂w = 4", "x": "x = 2", "v1": "v1 = w·x = 1\n∂L/∂v1 = 2",
        "b": "b = 0\n∂L/∂b = 2", "z": "z = v1 + b = 1\n∂L/∂z = 2",
        "a": "a = relu(z) = 1\n∂L/∂a = 2", "y": "y = 0", "v2": "v2 = a − y = 1\n∂L/∂v2 = 2",
        "L": "L = v2² = 1\n∂L/∂L = 1"}
    assert arrows(drawn) == {("w", "v1"), ("x", "v1"), ("v1", "z"), ("b", "z"), ("z", "a"),
                             ("a", "v2"), ("y", "v2"), ("v2", "L")}
    assert sorted(label.text for label in drawn.labels) == ["×1"] * 4 + ["×2"] * 2
    kinds = {re.split(r"[→:]", title)[0].strip(): (kind, width)
             for kind, title, _, width in drawn.lines}
    assert kinds["x"][0] == kinds["y"][0] == "line plain"
    assert kinds["w"][1] == max(width for _, width in kinds.values()) == 6.0
    assert kinds["v1"][1] < 6.0
    tip = next(box.title for box in drawn.boxes if box.name == "z")
    assert "z = v1 + b = 1 + 0 = 1" in tip and "test_explain_pictures.py:" in tip
    assert "z = w * x + b" in tip


def test_edges_are_those_of_the_graph() -> None:
    """For random graphs without frames: a line for each operand that is tracked, and no other."""
    for seed in range(8):
        loss, names = random_graph(25, seed, 8)
        explanation = cr.explain(loss, names=names)
        drawn = check(explanation.picture(detail="steps"))
        expected = {(step.of, step.through) for step in explanation.backward
                    if step.operation not in ("seed", "sum")}
        assert arrows(drawn) == expected


def gradient_lines(drawn: Drawn) -> dict[str, str]:
    """What boxes say of gradients, by name."""
    found = {}
    for box in drawn.boxes:
        for line in box.text.split("\n"):
            told = re.search(r"∂\w+/∂(\S+) = (.+)", line)
            if told:
                found[told[1]] = told[2]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_gradients_are_those_of_backward(seed: int) -> None:
    rng = np.random.default_rng(seed)
    u = cr.tensor(rng.standard_normal(3), requires_grad=True)
    w = cr.tensor(rng.standard_normal((2, 3)), requires_grad=True)
    v = cr.tensor(rng.standard_normal(()), requires_grad=True)
    h = cr.tanh(w @ u + v)
    loss = (h * h).sum() * v + u.sum()
    picture = cr.explain.picture(loss, precision=None)
    loss.backward()
    found = gradient_lines(check(picture))
    assert found["v"].replace("−", "-") == str(float(v.grad))
    wide = cr.explain.picture(loss, precision=17, elements=6)
    for name, leaf in (("u", u), ("v", v)):
        text = gradient_lines(read(wide.svg())).get(name)
        if text is not None:
            values = [float(t) for t in re.findall(r"-?[\d.e-]+", text.replace("−", "-"))]
            np.testing.assert_array_equal(values, np.ravel(leaf.grad.numpy()))
    size = norm([w.grad.numpy()])
    box = next(b for b in read(wide.svg()).boxes if b.name == "w")
    assert f"‖g‖ {number(size)}" in box.text


def test_line_widths_are_the_sum_that_flows_back() -> None:
    """Where a value is read twice in a module, what enters the module's frame is the sum."""
    class Twice(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 3 - x * 2.5

    x = cr.tensor(2.0, requires_grad=True)
    s = x * 1.0
    loss = Twice()(s) * 1.0
    picture = cr.explain.picture(loss, names={"x": x, "s": s, "loss": loss})
    through = [title for _, title, _, _ in read(picture.svg()).lines if "through here" in title]
    assert any(title.endswith(": 0.5") for title in through)


def test_zero_and_lost_gradients_look_different() -> None:
    w = cr.tensor([1.0, -1.0], requires_grad=True)
    b = cr.tensor([0.0, 0.0], requires_grad=True)
    loss = cr.sqrt(b).sum() * 0 + (w * 0.0).sum()
    drawn = check(cr.explain.picture(loss, names={"w": w, "b": b}))
    kinds = {title.split(" ")[0]: kind for kind, title, _, _ in drawn.lines}
    assert kinds["w"] == "line zero" and kinds["b"] == "line lost"
    large = cr.tensor(np.zeros(100), requires_grad=True)
    text = cr.explain.picture(cr.sqrt(large).sum(), names={"x": large}).svg()
    assert "∞" in text and "nan or ∞" in text


# ---------------------------------------------------------------- folding


def test_twelve_blocks_are_drawn_once() -> None:
    picture = drawn_of("transformer")
    drawn = check(picture)
    (frame,) = [f for f in drawn.frames if "12 × " in f.texts[0].text]
    assert "blocks.0 … 11" in frame.texts[0].text and "Block" in frame.texts[0].text
    inside = [area.texts[0].text.split(" ")[0] for area in [*drawn.boxes, *drawn.frames]
              if frame.holds(area)]
    assert {"norm1", "attention", "norm2", "mlp"} <= set(inside)
    whole = drawn_of("transformer", detail="steps")
    assert whole.boxes > 12 * 20


def test_a_block_can_be_unfolded() -> None:
    drawn = check(drawn_of("transformer", detail="blocks.3.mlp"))
    titles = [frame.title.split("\n")[0] for frame in drawn.frames]
    assert any(title.startswith("blocks.3 ") for title in titles)
    assert any(title.startswith("blocks.3.mlp ") for title in titles)
    counts = sorted(box.text.split(" ×")[0] for box in drawn.boxes if " × " in box.text)
    assert counts == ["3", "8"]
    with pytest.raises(SettingError, match=r"blocks\.99.*no module of this graph.*blocks"):
        drawn_of("transformer", detail="blocks.99")


def test_parameters_of_folded_blocks_are_counted() -> None:
    loss, names, model = transformer(4)
    drawn = check(cr.explain.picture(loss, names=names, model=model, detail=1))
    (box,) = [box for box in drawn.boxes if "4 × " in box.text]
    count = sum(p.numel() for p in model.blocks.parameters())
    assert f"{count:,} parameters" in box.text
    loss.backward()
    size = norm([p.grad.numpy() for p in model.blocks.parameters()])
    assert f"‖gθ‖ {number(size)}" in box.text


def test_loops_are_folded_by_their_lines() -> None:
    drawn = check(drawn_of("unrolled"))
    counts = [text.text for frame in drawn.frames for text in frame.texts]
    counts += [box.text for box in drawn.boxes]
    assert any("11 × " in text or "10 × " in text for text in counts)


def test_different_blocks_are_not_folded_together() -> None:
    layers = [nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 4)]
    model = nn.Sequential(*layers)
    x = cr.randn(2, 4)
    loss = model(x).sum()
    drawn = check(cr.explain.picture(loss, names={"x": x}, model=model, detail=1))
    headings = [box.text.split("\n")[0] for box in drawn.boxes]
    assert sum("2 × " in heading for heading in headings) == 1
    assert sum("Linear" in heading for heading in headings) == 4


def test_heads_side_by_side_stay_apart_and_modules_nest() -> None:
    loss, names, model = attention()
    drawn = check(cr.explain.picture(loss, names=names, model=model, detail="steps"))
    by_name = {frame.texts[0].text.split(" ")[0]: frame for frame in drawn.frames}
    for part in ("q", "k", "v", "out"):
        assert by_name["Attention"].holds(by_name[part])
        boxes = [box for box in drawn.boxes if by_name[part].holds(box)]
        assert any(box.text.startswith("weight") for box in boxes)


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bytes_every_time(name: str) -> None:
    loss, names, *model = NETWORKS[name]()
    explanation = cr.explain(loss, names=names, model=model[0] if model else None)
    assert explanation.picture().svg() == explanation.picture().svg()


def test_names_are_escaped_and_long_ones_cut() -> None:
    w = cr.tensor(2.0, requires_grad=True, )
    v = cr.tensor(3.0, requires_grad=True)
    loss = w * v
    names = {'<b>&"\'\x00\n': w, "a_very_long_name_" * 12: v}
    picture = cr.explain.picture(loss, names=names)
    drawn = check(picture)
    assert any(box.text.startswith("<b>&\"'") for box in drawn.boxes)
    assert "<b>" not in picture.svg() and max(box.width for box in drawn.boxes) < 500


def test_the_file_is_accessible_and_needs_nothing_else() -> None:
    text = drawn_of("neuron").svg()
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    title, told = root.findall(f"{NAME}title")[0], root.findall(f"{NAME}desc")[0]
    assert root.get("aria-labelledby") == f"{title.get('id')} {told.get('id')}"
    assert "∂L/∂w = 4" in (told.text or "")
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|@import|url\(", text)
    selectors = re.findall(r"[\s},]([.#]?[\w-]+)[ ,{]", (root.findtext(f"{NAME}style") or ""))
    assert selectors and all(rule.strip().startswith(".crp") for rule in re.findall(
        r"(?:^|\})\s*([^{}@]+)\{", root.findtext(f"{NAME}style") or ""))


def test_saving(tmp_path: Path) -> None:
    loss, names = neuron()
    picture = cr.explain.picture(loss, names=names, width=600)
    path = picture.save(tmp_path / "graph.svg")
    assert path.read_text("utf-8") == picture.svg() == picture._repr_svg_()
    assert picture.width == 600 and 'width="600"' in picture.svg()
    with pytest.raises(SettingError, match=r"graph\.svg"):
        picture.save(tmp_path / "graph.png")
    explanation = cr.explain(loss, names=names)
    explanation.save(tmp_path / "other.svg")
    assert (tmp_path / "other.svg").read_text("utf-8") == explanation.picture().svg()


def test_options_that_make_no_sense() -> None:
    loss, names = neuron()
    for options in ({"direction": "up"}, {"width": 0}, {"width": -3}, {"detail": [3]},
                    {"detail": 1.5}, {"detail": "nowhere"}):
        with pytest.raises(SettingError, match="picture"):
            cr.explain.picture(loss, names=names, **options)
    with pytest.raises(NotScalarError):
        cr.explain.picture(cr.ones(3, requires_grad=True) * 2)


def test_forward_alone() -> None:
    loss, names = neuron()
    picture = cr.explain.picture(loss, names=names, backward=False)
    drawn = check(picture)
    assert "∂" not in picture.svg().split("<rect", 1)[1]
    assert {kind for kind, *_ in drawn.lines} == {"line plain"}


def test_after_the_step_the_explanation_still_draws_its_numbers() -> None:
    model = nn.Linear(3, 2)
    optimizer = cr.optim.SGD(model.parameters(), lr=1.0)
    loss = (model(cr.ones(4, 3)) ** 2).mean()
    explanation = cr.explain(loss, model=model)
    before = explanation.picture().svg()
    loss.backward()
    optimizer.step()
    assert explanation.picture().svg() == before


# ---------------------------------------------------------------- corners


def test_corners_do_not_fail() -> None:
    w = cr.tensor(1.5, requires_grad=True)
    assert check(cr.explain.picture(w, names={"w": w})).boxes[0].text.startswith("w = 1.5")
    empty = cr.zeros(0, 3, requires_grad=True)
    check(cr.explain.picture(empty.sum() + w, names={"empty": empty}))
    check(cr.explain.picture(w * w * w, names={"w": w}))
    nan = cr.tensor([math.nan, 1.0], requires_grad=True)
    check(cr.explain.picture((nan * nan).sum() + w, names={"nan": nan}))
    big = cr.tensor(1e300, dtype=cr.float64, requires_grad=True)
    check(cr.explain.picture(big * 1e300, names={"big": big}))
    half = cr.tensor(np.full(9, 60000.0, np.float16), requires_grad=True)
    check(cr.explain.picture(half.sum(), names={"half": half}))


def test_wrt_shows_gradients_on_the_way_only() -> None:
    loss, names = neuron()
    drawn = check(cr.explain.picture(loss, names=names, wrt=names["b"]))
    assert {"z", "b", "a"} <= set(gradient_lines(drawn)) and "w" not in gradient_lines(drawn)
    kinds = {title.split(" ")[0]: kind for kind, title, _, _ in drawn.lines}
    assert kinds["w"] == "line plain" and kinds["b"] == "line flow"


def test_deep_graphs_need_no_recursion() -> None:
    x = cr.tensor(0.5, requires_grad=True)
    y = x
    for _ in range(3000):
        y = cr.sin(y)
    drawn = check(cr.explain.picture(y, names={"x": x}))
    assert any("2998 × " in text for text in [*(b.text for b in drawn.boxes),
                                             *(f.texts[0].text for f in drawn.frames)])


def test_a_second_derivative_is_drawn() -> None:
    x = cr.tensor(2.0, requires_grad=True)
    (slope,) = cr.autograd.grad(x ** 3, x, create_graph=True)
    check(cr.explain.picture(slope * x, names={"x": x, "slope": slope}))


# ---------------------------------------------------------------- the command


def test_the_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "train.py"
    program.write_text("import chainrule as cr\nw = cr.tensor(3.0, requires_grad=True)\n"
                       "loss = w * w\n", encoding="utf-8")
    target = tmp_path / "graph.svg"
    assert main(["explain", str(program), "--picture", str(target)]) == 0
    assert "2 boxes" in capsys.readouterr().out
    assert len(read(target.read_text("utf-8")).boxes) == 2
    assert main(["explain", "e1", "--picture", str(target), "--direction", "right"]) == 0
    assert "∂L/∂w = 4" in target.read_text("utf-8")
    assert main(["explain", "cost", "--picture", str(target)]) != 0
