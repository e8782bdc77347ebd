"""The parts of which pictures are made: widths of texts, statistics, ranks and places."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.core.primitive import TABLE
from chainrule.explain.pictures.facts import norm, spread
from chainrule.explain.pictures.layered import Link, Vertex, arrange
from chainrule.explain.pictures.lettering import printable, shortened, text_width


def test_widths_are_bounds_and_cuts_fit() -> None:
    assert text_width("", 12) == 0
    assert text_width("WWW", 10) > text_width("iii", 10)
    assert text_width("日本", 10) >= 20
    for width in (10.0, 33.0, 80.0):
        assert text_width(shortened("transformer.blocks", width, 11), 11) <= max(width, 11)
    assert text_width("e\u0301", 10) == text_width("e", 10)
    assert printable("a\nb\x00\ud800") == "a b��"


def test_facts() -> None:
    assert spread(np.zeros(0)) == "empty"
    assert spread(np.array([True, False])) == "1 of 2 true"
    assert spread(np.array([-3, 4])) == "−3 … 4"
    assert spread(np.array([1.0, np.nan, np.inf])) == "2 of 3 nan or ∞"
    assert spread(np.array([1.0, 3.0])) == "2 ± 1"
    assert spread(np.full(5, 2.5)) == "all 2.5"
    assert norm([np.array([3.0]), np.array([4.0])]) == 5.0
    assert norm([np.full(4, 1e200)]) == pytest.approx(2e200)
    assert norm([]) == 0 and math.isnan(norm([np.array([math.nan])]))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(0, 2**20))
def test_ranks_and_places(count: int, seed: int) -> None:
    """Lines go forwards, neighbours keep their distance, and order is kept within a rank."""
    rng = np.random.default_rng(seed)
    vertices = [Vertex(float(rng.integers(10, 200)), float(rng.integers(10, 60)))
                for _ in range(count)]
    links = [Link(vertices[a], vertices[b]) for b in range(1, count)
             for a in {int(rng.integers(b)) for _ in range(int(rng.integers(0, 3)))}]
    level = arrange(vertices, links)
    for link in links:
        assert link.source.rank < link.target.rank
        assert link.source.top + link.source.along < link.target.top
        assert [v.rank for v in link.through] == list(range(link.source.rank + 1,
                                                            link.target.rank))
    for rank in level.order:
        for a, b in pairwise(rank):
            assert b.left - a.right >= 8.99
    assert level.left <= min(v.left for v in vertices)
    assert level.right >= max(v.right for v in vertices)


SAMPLES = [pytest.param(prim, xs, params, id=f"{name}-{i}") for name, prim in TABLE.items()
           for i, (xs, params) in enumerate(prim.samples(np.random.default_rng(0))[:1])]


@pytest.mark.parametrize(("prim", "xs", "params"), SAMPLES)
def test_every_row_is_drawn(prim: Any, xs: Any, params: Any) -> None:
    """No row needs anything of its own: each has a box with its formula, lines and gradient."""
    inputs = [cr.tensor(x, requires_grad=x.dtype.kind == "f") if hasattr(x, "shape") else x
              for x in xs]
    result = prim(*inputs, **params)
    if result.dtype.kind != "f" or not result.requires_grad:
        pytest.skip("nothing flows back through it")
    loss = (result * 1.5).sum()
    names = {f"x{i}": x for i, x in enumerate(inputs) if isinstance(x, cr.Tensor)}
    explanation = cr.explain(loss, names=names)
    picture = explanation.picture(detail="steps")
    root = ElementTree.fromstring(picture.svg())
    titles = [box.findtext("{http://www.w3.org/2000/svg}title") or "" for box in root.iter()
              if box.get("class", "").startswith("box")]
    shown = {title.split("\n")[0].split(" = ")[0] for title in titles}
    assert {step.name for step in explanation.forward} <= shown
    assert set(explanation.gradients) <= shown
    assert len(titles) == picture.boxes
