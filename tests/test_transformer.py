"""The transformer's layers equal PyTorch's, eager, compiled and mapped; their errors teach."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install -e '.[test]' brings it")

rng = np.random.default_rng(0)
L, N, S, E = 5, 3, 4, 8


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def same(ours, theirs, tolerance=3e-5):
    ours, theirs = ours.detach().numpy(), theirs.detach().numpy()
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def pair_of(make):
    """The module of both libraries with one set of weights, no two of them equal."""
    torch.manual_seed(0)
    ours, theirs = make(nn), make(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    state = {name: value + 0.1 * torch.randn(value.shape)
             for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict(state)
    return ours, theirs


LATER = np.triu(np.ones((L, L), bool), 1)
PADDED = np.array([[False] * 5, [False, False, False, True, True], [False, True] + [False] * 3])
MEMORY_PADDED = np.array([[False] * 4, [False, False, True, True], [True] + [False] * 3])
OPTIONS = {
    "plain": {},
    "norm first": {"norm_first": True, "activation": "gelu"},
    "batch first": {"batch_first": True, "layer_norm_eps": 1e-3},
    "without bias": {"bias": False, "activation": "relu"},
}


def encoder(lib, options, stacked):
    layer = lib.TransformerEncoderLayer(E, 2, 16, 0.0, **options)
    if not stacked:
        return layer
    return lib.TransformerEncoder(layer, 2, norm=lib.LayerNorm(E), enable_nested_tensor=False)


def decoder(lib, options, stacked):
    layer = lib.TransformerDecoderLayer(E, 2, 16, 0.0, **options)
    return lib.TransformerDecoder(layer, 2) if stacked else layer


def compare(ours, theirs, arrays, masks):
    for training in (True, False):
        results = []
        for model, lib in ((ours, cr), (theirs, torch)):
            model.train(training)
            model.zero_grad()
            inputs = [lib.tensor(x, requires_grad=True) for x in arrays]
            y = model(*inputs, **{key: lib.tensor(m) if isinstance(m, np.ndarray) else m
                                  for key, m in masks.items()})
            (y * y * y).sum().backward()
            results.append([y, *(x.grad for x in inputs), *(p.grad for p in model.parameters())])
        for a, b in zip(*results, strict=True):
            same(a, b, 1e-4)


@pytest.mark.parametrize("stacked", [False, True], ids=["layer", "stack"])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "padding", "both", "causal"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_encoder_equals_pytorch(name, mask, stacked):
    options = OPTIONS[name]
    ours, theirs = pair_of(lambda lib: encoder(lib, options, stacked))
    first = "mask" if stacked else "src_mask"
    masks = {"none": {}, "bool": {first: LATER}, "float": {first: normal(L, L)},
             "padding": {"src_key_padding_mask": PADDED},
             "both": {first: normal(2 * N, L, L), "src_key_padding_mask": PADDED},
             "causal": {first: LATER, "is_causal": True}}[mask]
    x = normal(N, L, E) if options.get("batch_first") else normal(L, N, E)
    compare(ours, theirs, [x], masks)


@pytest.mark.parametrize("stacked", [False, True], ids=["layer", "stack"])
@pytest.mark.parametrize("mask", ["none", "causal", "padding", "memory", "all"])
@pytest.mark.parametrize("name", OPTIONS)
def test_decoder_equals_pytorch(name, mask, stacked):
    options = OPTIONS[name]
    ours, theirs = pair_of(lambda lib: decoder(lib, options, stacked))
    memory_mask = np.triu(np.ones((L, S), bool), 2)
    masks = {"none": {}, "causal": {"tgt_mask": LATER, "tgt_is_causal": True},
             "padding": {"tgt_key_padding_mask": PADDED,
                         "memory_key_padding_mask": MEMORY_PADDED},
             "memory": {"memory_mask": memory_mask},
             "all": {"tgt_mask": LATER, "memory_mask": memory_mask,
                     "tgt_key_padding_mask": PADDED[:1].repeat(N, 0)}}[mask]
    shapes = ((N, L, E), (N, S, E)) if options.get("batch_first") else ((L, N, E), (S, N, E))
    compare(ours, theirs, [normal(*shape) for shape in shapes], masks)


def test_one_sequence_without_a_batch():
    ours, theirs = pair_of(lambda lib: encoder(lib, {}, True))
    compare(ours, theirs, [normal(L, E)], {"src_key_padding_mask": PADDED[1]})
    ours, theirs = pair_of(lambda lib: decoder(lib, {}, True))
    compare(ours, theirs, [normal(L, E), normal(S, E)], {})


def test_an_activation_of_ones_own():
    ours, theirs = pair_of(lambda lib: encoder(lib, {"activation": lib.SiLU()}, True))
    compare(ours, theirs, [normal(L, N, E)], {})


def test_a_sequence_of_padding_alone_spoils_no_gradient():
    padding = PADDED.copy()
    padding[1] = True
    ours, theirs = pair_of(lambda lib: encoder(lib, {}, True))
    theirs.train()
    compare(ours, theirs, [normal(L, N, E)], {"src_key_padding_mask": padding})
    minus = np.where(padding, -np.inf, 0).astype(np.float32)
    compare(ours, theirs, [normal(L, N, E)], {"src_key_padding_mask": minus})
    x = cr.tensor(normal(L, N, E))
    run = cr.compile(lambda x, padding: ours(x, src_key_padding_mask=padding))
    same(run(x, cr.tensor(padding)), ours(x, src_key_padding_mask=cr.tensor(padding)))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "norm_first": True}])
def test_the_whole_equals_pytorch(options):
    ours, theirs = pair_of(lambda lib: lib.Transformer(E, 2, 2, 1, 16, 0.0, **options))
    later = nn.Transformer.generate_square_subsequent_mask(L)
    same(later, torch.nn.Transformer.generate_square_subsequent_mask(L))
    shapes = ((N, S, E), (N, L, E)) if options else ((S, N, E), (L, N, E))
    compare(ours, theirs, [normal(*shape) for shape in shapes],
            {"tgt_mask": later.numpy(), "src_key_padding_mask": MEMORY_PADDED,
             "memory_key_padding_mask": MEMORY_PADDED, "tgt_is_causal": True})


def test_copies_start_equal_and_share_nothing():
    layer = nn.TransformerEncoderLayer(E, 2, 16)
    stack = nn.TransformerEncoder(layer, 3)
    assert stack.num_layers == len(stack.layers) == 3
    weights = [one.linear1.weight for one in (layer, *stack.layers)]
    assert len({id(w) for w in weights}) == 4
    with cr.no_grad():
        stack.layers[0].linear1.weight.zero_()
    assert weights[0].abs().sum().item() > 0
    np.testing.assert_array_equal(weights[0].detach().numpy(), weights[2].detach().numpy())
    twin = copy.deepcopy(stack).eval()
    x = cr.tensor(normal(L, N, E))
    same(twin(x), stack.eval()(x))


def test_dropout_acts_in_training_only():
    model = nn.TransformerEncoderLayer(E, 2, 16, dropout=0.5)
    x = cr.tensor(normal(L, N, E))
    assert (model(x) != model(x)).any().item()
    same(model.eval()(x), model(x))


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_training_compiled_equals_eager(kind):
    def trained(compiled):
        cr.manual_seed(0)
        model = {"encoder": encoder, "decoder": decoder}[kind](nn, {"batch_first": True}, True)
        optimizer = cr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(*inputs):
            optimizer.zero_grad()
            name = "mask" if kind == "encoder" else "tgt_mask"
            loss = ((model(*inputs, **{name: later}) - target) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = cr.compile(step) if compiled else step
        return [run(*inputs).item() for _ in range(4)]

    later, target = cr.tensor(LATER), cr.tensor(normal(N, L, E))
    inputs = [cr.tensor(normal(N, L, E))]
    if kind == "decoder":
        inputs.append(cr.tensor(normal(N, S, E)))
    np.testing.assert_allclose(trained(True), trained(False), rtol=2e-5)


def test_one_gradient_for_each_item():
    model = encoder(nn, {"batch_first": True}, False)
    parameters = dict(model.named_parameters())
    x = cr.tensor(normal(N, L, E))

    def loss(parameters, item):
        return (cr.func.functional_call(model, parameters, (item,)) ** 2).sum()

    each = cr.func.vmap(cr.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(N):
        for name, one in cr.func.grad(loss)(parameters, x[i]).items():
            same(each[name][i], one, 1e-4)


def test_errors_teach():
    layer = nn.TransformerEncoderLayer(E, 2, 16)
    for make, text in (
            (lambda: nn.TransformerEncoderLayer(E, 3), "multiple of num_heads=3"),
            (lambda: nn.TransformerEncoderLayer(E, 2, activation="tanh"), "'relu', 'gelu' or a"),
            (lambda: nn.TransformerEncoder(layer, -1), "num_layers=-1 must be"),
            (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer, 2), "make one first"),
            (lambda: layer(cr.zeros(L, N, 7)), r"needs \(L, N, 8\) or \(L, 8\)"),
            (lambda: layer(cr.zeros(L, N, E), is_causal=True), "only says that attn_mask is"),
            (lambda: nn.Transformer(E, 2, 1, 1, 16)(cr.zeros(S, N, E), cr.zeros(L, 2, E)),
             "as many sequences"),
            (lambda: nn.Transformer(E, 2, 1, 1, 16)(cr.zeros(S, N, E), cr.zeros(L, N, 5)),
             "tgt needs"),
            (lambda: nn.TransformerDecoderLayer(E, 2)(cr.zeros(L, N, E), cr.zeros(S, N, 5)),
             "memory needs")):
        with pytest.raises((ValueError, RuntimeError, TypeError), match=text):
            make()
