"""Graphs: the verifier finds what is wrong, text round-trips, evaluation is the meaning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule.core.config import settings
from chainrule.core.errors import GraphError
from chainrule.core.graph import Graph, letters, trace
from chainrule.core.types import ArrayType


def network(x, w, b):
    hidden = cr.nn.functional.linear(x, w, b).tanh()
    chosen = hidden[:, 1:3].sum(1) * cr.tensor([1.0, 2.0]) + cr.where(hidden[:, 0] > 0.5, x[:, 0],
                                                                     -1.0)
    return chosen.softmax(0), cr.func.grad(lambda w: (x @ w.mT).square().mean())(w)


TYPES = (ArrayType((2, 3)), ArrayType((4, 3)), ArrayType((4,)))


def arrays(types=TYPES, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=t.shape).astype(t.dtype) for t in types]


def test_a_traced_network_evaluates_as_it_runs():
    graph = trace(network, *TYPES)
    graph.verify()
    given = arrays()
    expected = network(*map(cr.from_numpy, given))
    for got, want in zip(graph.evaluate(*given), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-6)


def test_text_round_trips():
    graph = trace(network, *TYPES)
    text = graph.to_text()
    again = Graph.from_text(text)
    again.verify()
    assert again.to_text() == text
    for got, want in zip(again.evaluate(*arrays()), graph.evaluate(*arrays()), strict=True):
        np.testing.assert_array_equal(got, want)


STEPS = [
    lambda x: x.sin(), lambda x: x.exp() / 3, lambda x: 2 - x, lambda x: x.reshape(-1),
    lambda x: x.flip(0) if x.ndim else x, lambda x: x.cumsum(0), lambda x: x.sum(-1, True),
    lambda x: x[None], lambda x: x.clamp(-0.5, 1e-3), lambda x: cr.cat([x.reshape(-1)] * 2),
    lambda x: x.to(cr.float64), lambda x: x.argmax().float() + x.mean(), lambda x: x ** 3,
    lambda x: x.masked_fill(x > 0, float("inf")), lambda x: x.softmax(-1), lambda x: -x,
]


@given(st.lists(st.sampled_from(range(len(STEPS))), min_size=1, max_size=8))
def test_random_programs_round_trip(choice):
    def program(x):
        for step in choice:
            x = STEPS[step](x)
        return x

    kind = ArrayType((3, 2))
    with settings.using(verify=True):
        graph = trace(program, kind)
        again = Graph.from_text(graph.to_text())
    assert again.to_text() == graph.to_text()
    given_ = arrays((kind,))
    np.testing.assert_array_equal(again.evaluate(*given_)[0],
                                  program(cr.from_numpy(given_[0])).numpy())


def test_the_verifier_names_the_fault_and_shows_the_neighbourhood():
    graph = trace(lambda x: x.tanh().exp().sum(), ArrayType((3,)))
    tanh, exp, total = graph.nodes
    with pytest.raises(GraphError, match=r"operand 0 is used before it is defined"):
        Graph(graph.inputs, [exp, tanh, total], graph.outputs).verify()
    with pytest.raises(GraphError, match="defined twice"):
        Graph(graph.inputs, [tanh, tanh, exp, total], graph.outputs).verify()
    with pytest.raises(GraphError, match="output 0 of the graph is not defined"):
        Graph(graph.inputs, [tanh, exp], graph.outputs).verify()
    exp.shape = (4,)
    with pytest.raises(GraphError, match=r"said to be f32\[4\], its row infers f32\[3\]") as error:
        graph.verify()
    assert "> c: f32[4] = exp(b)" in str(error.value)
    assert "  b: f32[3] = tanh(a)" in str(error.value)


@pytest.mark.parametrize(("text", "message"), [
    ("hello", "starts with graph"),
    ("graph(a: f32[2]):\n b: f32[2] = nonsense(a)\n return b", "not a row"),
    ("graph(a: f32[2]):\n b: f32[3] = tanh(a)\n return b", r"said to be f32\[3\]"),
    ("graph(a: f32[2]):\n b: f32[2] = tanh(c)\n return b", "cannot read 'c'"),
    ("graph(a: f32[2]):\n b = tanh(a)\n return b", "cannot read the line"),
    ("graph(a: f32[2]):\n b: f32[2] = tanh(open('x'))\n return b", "cannot read"),
    ("graph(a: f32[2]):\n b: f32[2] = tanh(a)\n b", "must return"),
])
def test_bad_text_is_refused(text, message):
    with pytest.raises(GraphError, match=message):
        Graph.from_text(text)


def test_inputs_are_checked():
    graph = trace(lambda x: x * 2, ArrayType((3,)))
    with pytest.raises(GraphError, match="has 1 inputs, 2 were given"):
        graph.evaluate(np.ones(3, "f4"), np.ones(3, "f4"))
    with pytest.raises(GraphError, match=r"input 0 of the graph is f32\[3\], f32\[2\]"):
        graph.evaluate(np.ones(2, "f4"))


def test_what_cannot_be_traced_names_the_line_and_the_cure():
    with pytest.raises(TypeError, match=r"test_graph\.py:\d+ asks for the number(.|\n)*cr\.where"):
        trace(lambda x: x if x.sum() > 0 else -x, ArrayType((3,)))


def test_letters():
    assert [letters(i) for i in (0, 25, 26, 27, 8 * 26 + 26 + 13)] == ["a", "z", "aa", "ab", "in_"]
