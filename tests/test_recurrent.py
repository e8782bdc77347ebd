"""RNN, LSTM, GRU and their cells against PyTorch: values, gradients, names, eager and compiled."""

import itertools

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.core.errors import SettingError, ShapeError

LIBRARIES = (cr, torch)


def pair(make):
    """The layer in both libraries with the same parameters, after comparing names and repr."""
    torch.manual_seed(0)
    ours, theirs = make(cr.nn), make(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def flat(result):
    if isinstance(result, tuple):
        return [x for part in result for x in flat(part)]
    return [result]


def compare(ours, theirs, call):
    """Values and all gradients of call(layer, library) -> (outputs, leaves)."""
    seen = []
    for layer, lib in ((ours, cr), (theirs, torch)):
        outputs, leaves = call(layer, lib)
        total = sum((y * y * (i + 1)).sum() + y.sum() for i, y in enumerate(outputs))
        total.backward()
        found = [*outputs, *(x.grad for x in leaves), *(p.grad for p in layer.parameters())]
        seen.append([x.detach().numpy() for x in found])
    for a, b in zip(*seen, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def leaf(lib, shape, seed):
    return lib.tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32),
                      requires_grad=True)


OPTIONS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "bias": False},
    {"batch_first": True},
    {"batch_first": True, "num_layers": 2, "bidirectional": True},
]


# PyTorch says once that one of its own libraries has no LSTM with projections.
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("given", ["nothing", "states"])
@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("name", ["RNN", "relu", "LSTM", "short LSTM", "GRU"])
def test_layer_equals_pytorch(name, options, batch, given):
    extra = {"relu": {"nonlinearity": "relu"}, "short LSTM": {"proj_size": 2}}.get(name, {})
    kind = {"relu": "RNN", "short LSTM": "LSTM"}.get(name, name)
    ours, theirs = pair(lambda nn: getattr(nn, kind)(4, 5, **options, **extra))
    first = options.get("batch_first")
    shape = (6, 4) if batch is None else (batch, 6, 4) if first else (6, batch, 4)
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    middle = () if batch is None else (batch,)
    sizes = [2 if name == "short LSTM" else 5, 5][:1 + (kind == "LSTM")]

    def call(layer, lib):
        x = leaf(lib, shape, 1)
        states = [leaf(lib, (count, *middle, size), 2 + i) for i, size in enumerate(sizes)]
        if given == "nothing":
            return flat(layer(x)), [x]
        return flat(layer(x, tuple(states) if kind == "LSTM" else states[0])), [x, *states]

    compare(ours, theirs, call)


@pytest.mark.parametrize("given", ["nothing", "states"])
@pytest.mark.parametrize("shape", [(4,), (3, 4)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cell_equals_pytorch(name, bias, shape, given):
    ours, theirs = pair(lambda nn: getattr(nn, name)(4, 5, bias=bias))

    def call(layer, lib):
        x = leaf(lib, shape, 1)
        states = [leaf(lib, (*shape[:-1], 5), 2 + i) for i in range(1 + (name == "LSTMCell"))]
        if given == "nothing":
            return flat(layer(x)), [x]
        return flat(layer(x, tuple(states) if len(states) == 2 else states[0])), [x, *states]

    compare(ours, theirs, call)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_compiled_step_trains_as_the_eager_one(name):
    runs = []
    for compiled in (False, True):
        cr.manual_seed(0)
        layer, head = getattr(cr.nn, name)(3, 8, batch_first=True), cr.nn.Linear(8, 1)
        parameters = [*layer.parameters(), *head.parameters()]
        optimizer = cr.optim.Adam(parameters, 0.01)

        def step(x, y, layer=layer, head=head, parameters=parameters, optimizer=optimizer):
            optimizer.zero_grad()
            output, _ = layer(x)
            loss = cr.nn.functional.mse_loss(head(output[:, -1]), y)
            loss.backward()
            cr.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            return loss

        if compiled:
            step = cr.compile(step)
        x = cr.randn(16, 5, 3)
        y = x.sum(1).sum(1, keepdim=True)
        runs.append([step(x, y).item() for _ in range(30)])
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-4)
    assert runs[0][-1] < runs[0][0]


def test_dropout_acts_between_layers_only_while_training():
    layer = cr.nn.GRU(3, 8, num_layers=2, dropout=0.5)
    x = cr.randn(4, 2, 3)
    assert not cr.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert cr.equal(layer(x)[0], layer(x)[0])
    single = cr.nn.GRU(3, 8, dropout=0.5)
    assert cr.equal(single(x)[0], single(x)[0])


def test_gradcheck_in_float64():
    for name, shape in itertools.product(("RNN", "LSTM", "GRU"), ((3, 2, 2),)):
        layer = getattr(cr.nn, name)(2, 3, bidirectional=True, dtype=cr.float64)
        x = cr.randn(*shape, dtype=cr.float64, requires_grad=True)
        assert cr.autograd.gradcheck(lambda x, layer=layer: layer(x)[0], (x,))


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda: cr.nn.RNN(3, 4, nonlinearity="gelu"), SettingError, "'tanh' or 'relu'"),
    (lambda: cr.nn.GRU(3, 0), SettingError, "at least 1"),
    (lambda: cr.nn.LSTM(3, 4, proj_size=4), SettingError, "smaller than hidden_size"),
    (lambda: cr.nn.LSTM(3, 4, dropout=2), SettingError, "probability"),
    (lambda: cr.nn.LSTM(3, 4)(cr.ones(2, 5, 6)), ShapeError, r"needs \(L, N, 3\)"),
    (lambda: cr.nn.LSTM(3, 4)(cr.ones(0, 5, 3)), ShapeError, "at least one time step"),
    (lambda: cr.nn.LSTM(3, 4)(cr.ones(2, 5, 3), cr.ones(1, 5, 4)), TypeError, r"pair \(h_0, c_0\)"),
    (lambda: cr.nn.GRU(3, 4)(cr.ones(2, 5, 3), cr.ones(2, 5, 4)), ShapeError, "h_0"),
    (lambda: cr.nn.LSTMCell(3, 4)(cr.ones(5, 3), cr.ones(5, 4)), TypeError, r"pair \(h, c\)"),
    (lambda: cr.nn.GRUCell(3, 4)(cr.ones(5, 3), cr.ones(4, 4)), ShapeError, "as many rows"),
])
def test_mistakes_are_named(make, error, text):
    with pytest.raises(error, match=text):
        make()
