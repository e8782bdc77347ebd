"""Module: registration, state dicts, hooks, printing, containers; Parameter and nn.utils."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import functional as F

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install -e '.[test]' brings it")

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def array(x):
    return x.detach().numpy()


def same(ours, theirs, tolerance=2e-5):
    ours, theirs = array(ours), array(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_a_shape_error_names_the_layer_by_its_path():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, 8), nn.ReLU())
            self.heads = nn.ModuleList([nn.Linear(8, 1), nn.Linear(9, 1)])

        def forward(self, x):
            return self.heads[1](self.encoder(x))

    net = Net()
    with pytest.raises(RuntimeError) as error:
        net(cr.zeros(32, 63))
    assert str(error.value) == (
        "Linear(in_features=64, out_features=8, bias=True) 'encoder.0' got f32[32,63]: "
        "its last size must be 64")
    with pytest.raises(RuntimeError, match=r"'heads\.1' got f32\[32,8\]"):
        net(cr.zeros(32, 64))


# ---------------------------------------------------------------- Module


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(3, 4)
        self.scale = nn.Parameter(cr.ones(4))
        self.register_buffer("mean", cr.zeros(4))
        self.register_buffer("cache", cr.zeros(2), persistent=False)
        self.out = nn.Linear(4, 1)

    def forward(self, x):
        return self.out((self.hidden(x) * self.scale).tanh())


def test_registration_order_and_names():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "scale", "hidden.weight", "hidden.bias", "out.weight", "out.bias"]
    assert [n for n, _ in net.named_buffers()] == ["mean", "cache"]
    assert list(net.state_dict()) == ["scale", "mean", "hidden.weight", "hidden.bias",
                                      "out.weight", "out.bias"]
    assert [n for n, _ in net.named_modules()] == ["", "hidden", "out"]
    assert [n for n, _ in net.named_children()] == ["hidden", "out"]
    assert net.get_submodule("out") is net.out
    assert net.get_parameter("out.bias") is net.out.bias
    with pytest.raises(AttributeError, match="has no submodule 'inner'"):
        net.get_submodule("hidden.inner")


def test_attributes_and_registries_stay_one():
    net = Net()
    new = nn.Parameter(cr.zeros(4))
    net.scale = new
    assert net._parameters["scale"] is new
    assert vars(net)["scale"] is new
    net.scale = None
    assert net.scale is None
    assert "scale" not in net.state_dict()
    net.mean = cr.ones(4)
    assert net._buffers["mean"] is net.mean
    net.out = nn.Identity()
    assert net._modules["out"] is net.out
    del net.out
    assert "out" not in net._modules
    assert not hasattr(net, "out")
    net.hidden = nn.Parameter(cr.zeros(1))
    assert "hidden" not in net._modules
    assert net._parameters["hidden"] is net.hidden
    for name, value in (("hidden", 3), ("mean", [1.0])):
        with pytest.raises(TypeError, match=name):
            setattr(net, name, value)

    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Early()
    with pytest.raises(KeyError, match="contain"):
        net.add_module("a.b", nn.ReLU())
    with pytest.raises(KeyError, match="already"):
        net.register_buffer("forward", cr.zeros(1))
    with pytest.raises(TypeError):
        net.register_parameter("w", cr.zeros(1))


def test_a_plain_list_of_modules_is_reported():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = []
            for _ in range(3):
                self.layers.append(nn.Linear(2, 2))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    with pytest.warns(nn.HiddenModuleWarning, match=r"Careless.layers is a plain list with 3.*"
                      r"self.layers = nn.ModuleList"):
        list(Careless().parameters())
    with pytest.warns(nn.HiddenModuleWarning):
        Careless()(cr.zeros(1, 2))

    class Fine(nn.Module):
        def __init__(self):
            super().__init__()
            self.order = [nn.Linear(2, 2), nn.Linear(2, 2)]
            self.layers = nn.Sequential(*self.order)
            self.frozen = [nn.Linear(2, 2).requires_grad_(False), nn.ReLU()]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(Fine().parameters())


def test_shared_parameters_come_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert len(net.state_dict()) == 4


def test_state_dict_round_trip_through_pytorch():
    def make(n):
        return n.Sequential(n.Conv2d(1, 2, 3), n.BatchNorm2d(2), n.Flatten(), n.Linear(72, 4),
                            n.LayerNorm(4), n.Sequential(n.Linear(4, 2)))
    ours, theirs, again = make(nn), make(torch.nn), make(nn)
    x = normal(3, 1, 8, 8)
    ours(cr.tensor(x))
    theirs.load_state_dict({key: torch.tensor(value.numpy())
                            for key, value in ours.state_dict().items()})
    same(ours.eval()(cr.tensor(x)), theirs.eval()(torch.tensor(x)))
    again.load_state_dict(theirs.state_dict())
    for key, value in again.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), ours.state_dict()[key].numpy())
        assert value.dtype == ours.state_dict()[key].dtype


def test_state_dict_shares_memory_and_is_detached():
    net = Net()
    state = net.state_dict()
    assert not state["scale"].requires_grad
    assert np.shares_memory(state["scale"].numpy(), net.scale.detach().numpy())
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    assert next(iter(net.state_dict(prefix="net."))) == "net.scale"


def test_load_state_dict_says_what_does_not_fit_and_changes_nothing():
    net, before = Net(), {k: v.numpy().copy() for k, v in Net().state_dict().items()}
    net.load_state_dict(before)
    state = {k: v + 1 for k, v in before.items()}
    del state["scale"]
    state["extra.weight"] = np.zeros(3, np.float32)
    state["out.weight"] = np.zeros((2, 4), np.float32)
    with pytest.raises(nn.StateDictError) as error:
        net.load_state_dict(state)
    text = str(error.value)
    assert "missing:\n    scale" in text
    assert "unexpected:\n    extra.weight" in text
    assert "out.weight: (2, 4) given, (1, 4) needed" in text
    assert isinstance(error.value, RuntimeError)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    del state["out.weight"]
    found = net.load_state_dict(state, strict=False)
    assert found.missing_keys == ["scale", "out.weight"]
    assert found.unexpected_keys == ["extra.weight"]
    with pytest.raises(nn.StateDictError, match=r"prefix 'module\.'"):
        net.load_state_dict({f"module.{k}": v for k, v in before.items()})


def test_load_state_dict_keeps_dtype_and_identity():
    net = Net()
    weight = net.out.weight
    net.load_state_dict({k: v.numpy().astype(np.float64) for k, v in net.state_dict().items()})
    assert net.out.weight is weight
    assert weight.dtype == cr.float32
    net.load_state_dict({**net.state_dict(), "scale": cr.zeros(4)}, assign=True)
    assert isinstance(net.scale, nn.Parameter)
    assert net.scale.requires_grad


def test_modes_dtypes_and_gradients():
    net = Net()
    assert net.training
    assert net.hidden.training
    assert net.eval() is net
    assert not net.hidden.training
    weight = net.out.weight
    net(cr.tensor(normal(2, 3))).sum().backward()
    net.double()
    assert net.out.weight is weight
    assert {p.dtype for p in net.parameters()} == {np.dtype("float64")}
    assert net.mean.dtype == np.dtype("float64")
    assert net.mean is net._buffers["mean"]
    assert weight.grad.dtype == np.dtype("float64")
    assert net(cr.tensor(np.zeros((2, 3)))).dtype == np.dtype("float64")
    net.to(cr.float32).to("cpu").half().float()
    assert net.out.weight.dtype == np.dtype("float32")
    with pytest.raises(TypeError, match="CPU"):
        net.to("cuda")
    with pytest.raises(ValueError, match="floating"):
        net.to(cr.int64)
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert sorted(seen[:-1]) == ["Linear", "Linear"]
    assert seen[-1] == "Net"


def test_integer_buffers_keep_their_dtype():
    layer = nn.BatchNorm1d(3).half()
    assert layer.num_batches_tracked.dtype == np.dtype("int64")


def test_deep_copies_share_nothing():
    net = Net()
    other = copy.deepcopy(net)
    assert other.scale is other._parameters["scale"]
    assert other.scale is not net.scale
    assert isinstance(other.scale, nn.Parameter)
    assert other.scale.requires_grad
    same(other(cr.ones(2, 3)), net(cr.ones(2, 3)))
    other(cr.ones(2, 3)).sum().backward()
    assert other.scale.grad is not None
    assert net.scale.grad is None


def test_missing_forward_says_so():
    class Empty(nn.Module):
        pass
    with pytest.raises(NotImplementedError, match="Empty has no forward"):
        Empty()(1)


# ---------------------------------------------------------------- hooks


def test_forward_hooks_see_and_replace():
    layer = nn.Linear(2, 2)
    seen = []
    pre = layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    post = layer.register_forward_hook(lambda m, args, out: seen.append(args[0]) or out + 1)
    x = cr.ones(1, 2)
    y = array(layer(x))
    np.testing.assert_allclose(y, array(layer.forward(x * 2)) + 1, rtol=1e-6)
    assert array(seen[0]).tolist() == [[2.0, 2.0]]
    pre.remove()
    post.remove()
    np.testing.assert_allclose(array(layer(x)), array(layer.forward(x)))
    assert len(seen) == 1
    with layer.register_forward_hook(lambda *_: seen.append(1)):
        layer(x)
    layer(x)
    assert len(seen) == 2


def test_forward_hooks_with_keywords_order_and_failure():
    class Add(nn.Module):
        def forward(self, x, *, y):
            if y is None:
                raise ValueError("no y")
            return x + y
    layer, seen = Add(), []
    layer.register_forward_hook(lambda m, a, out: seen.append("second"))
    layer.register_forward_hook(lambda m, a, out: seen.append("first"), prepend=True)
    layer.register_forward_pre_hook(lambda m, a, k: (a, {"y": k["y"] and k["y"] + 1}),
                                    with_kwargs=True)
    layer.register_forward_hook(lambda m, a, k, out: seen.append(k["y"]), with_kwargs=True,
                                always_call=True)
    assert layer(1, y=2) == 4
    assert seen == ["first", "second", 3]
    with pytest.raises(ValueError):
        layer(1, y=None)
    assert seen[3:] == [None]


def test_full_backward_hooks_equal_pytorch():
    found = {}
    w, x = normal(2, 3), normal(4, 3)
    for lib in (cr, torch):
        layer = lib.nn.Linear(3, 2, bias=False)
        with lib.no_grad():
            layer.weight.copy_(lib.tensor(w))
        log = []
        layer.register_full_backward_pre_hook(lambda m, go: (go[0] * 3,))
        layer.register_full_backward_hook(
            lambda m, gi, go, log=log: log.append((array(gi[0]), array(go[0]))) or (gi[0] * 2,))
        a = lib.tensor(x, requires_grad=True)
        (layer(a) + a.sum()).sum().backward()      # `a` is used elsewhere too
        found[lib] = (*log[0], array(a.grad), array(layer.weight.grad), len(log))
    for ours, theirs in zip(found[cr], found[torch], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_backward_hook_of_an_input_without_gradient():
    log = []
    layer = nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda m, gi, go: log.append((gi, go)))
    for _ in range(2):
        layer(cr.zeros(4, 3)).sum().backward()
    assert len(log) == 2
    assert log[0][0] == (None,)
    assert log[0][1][0].shape == (4, 2)


# ---------------------------------------------------------------- printing


def test_repr_is_pytorchs_until_the_first_forward_adds_shapes():
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()), nn.Dropout())
    assert repr(net) == repr(torch.nn.Sequential(
        torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.ReLU()), torch.nn.Dropout()))
    net(cr.zeros(4, 2))
    lines = repr(net).splitlines()
    assert lines[1] == ("  (0): Linear(in_features=2, out_features=3, bias=True)  "
                        "# f32[4,2] → f32[4,3]")
    assert len({line.index("#") for line in lines if "#" in line}) == 1
    table = net.summary()
    assert "9 parameters, 9 of them trained" in table
    assert "f32[4,3]" in table


def test_repr_folds_equal_neighbours_of_a_list():
    def make(n):
        return n.ModuleList([n.Linear(2, 2), n.Linear(2, 2), n.ReLU(), n.ModuleList([n.Tanh()])])
    assert repr(make(nn)) == repr(make(torch.nn))


# ---------------------------------------------------------------- containers


def test_sequential_is_a_list():
    a, b, c = nn.Linear(2, 2), nn.ReLU(), nn.Tanh()
    net = nn.Sequential({"first": a, "act": b})
    assert net.first is a
    assert net[1] is b
    assert net[-1] is b
    assert len(net) == 2
    assert list(net[:1]._modules) == ["first"]
    net = nn.Sequential(a, b)
    net.append(c).insert(0, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Identity", "Linear", "ReLU", "Tanh"]
    assert list(net._modules) == ["0", "1", "2", "3"]
    del net[0]
    assert list(net._modules) == ["0", "1", "2"]
    assert net[0] is a
    net[1] = c
    assert net[1] is c
    assert net.pop() is c
    assert len(net) == 2
    assert len(net + nn.Sequential(b)) == 3
    with pytest.raises(IndexError, match="has 2 entries"):
        net[5]


def test_module_list_and_dict():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    layers += [nn.ReLU()]
    assert len(layers) == 4
    assert len(layers[1:3]) == 2
    assert len(list(layers.parameters())) == 6
    with pytest.raises(NotImplementedError, match="loop"):
        layers(1)
    named = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ReLU()})
    named["c"] = nn.Tanh()
    named["a"] = nn.Identity()
    assert list(named) == ["a", "b", "c"]
    assert "a" in named
    assert len(named) == 3
    assert isinstance(named.pop("a"), nn.Identity)
    assert "a" not in named
    with pytest.raises(KeyError):
        del named["zzz"]
    with pytest.raises(KeyError, match="already"):
        named["keys"] = nn.ReLU()


def test_parameter_list_and_dict():
    values = nn.ParameterList([nn.Parameter(cr.ones(2)), cr.zeros(3)])
    values.append(nn.Parameter(cr.ones(1)))
    assert len(list(values.parameters())) == 3
    assert values[-1].shape == (1,)
    assert list(values.state_dict()) == ["0", "1", "2"]
    named = nn.ParameterDict({"a": cr.ones(2)})
    named["b"] = nn.Parameter(cr.ones(1))
    assert list(named.state_dict()) == ["a", "b"]
    assert "a" in named


# ---------------------------------------------------------------- Parameter and utils


def test_parameter_is_a_leaf_of_its_own():
    source = cr.ones(3, requires_grad=True) * 2
    weight = nn.Parameter(source)
    assert weight.is_leaf
    assert weight.requires_grad
    assert isinstance(weight, cr.Tensor)
    assert np.shares_memory(weight.detach().numpy(), source.detach().numpy())
    assert not nn.Parameter(cr.ones(2), requires_grad=False).requires_grad
    assert repr(nn.Parameter(cr.ones(2))).startswith("Parameter containing:\n")
    assert type(weight + 1) is cr.Tensor


@pytest.mark.parametrize("kind", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clip_grad_norm_equals_pytorch(kind, limit):
    grads = [normal(3, 4), normal(5)]
    params = {lib: [lib.zeros(*g.shape, requires_grad=True) for g in grads] for lib in (cr, torch)}
    totals = []
    for lib in (cr, torch):
        for p, g in zip(params[lib], grads, strict=True):
            p.grad = lib.tensor(g.copy())
        params[lib].append(lib.zeros(2, requires_grad=True))
        totals.append(lib.nn.utils.clip_grad_norm_(params[lib], limit, kind))
    same(*totals)
    for p, q in zip(params[cr][:2], params[torch][:2], strict=True):
        same(p.grad, q.grad)


def test_clip_grad_norm_of_extreme_and_broken_gradients():
    p = cr.zeros(2, requires_grad=True)
    p.grad = cr.tensor([3e30, 4e30])
    assert abs(nn.utils.clip_grad_norm_(p, 1.0).item() / 5e30 - 1) < 1e-6
    np.testing.assert_allclose(array(p.grad), [0.6, 0.8], rtol=1e-6)
    p.grad = cr.tensor([math.nan, 1.0])
    with pytest.raises(RuntimeError, match="nan"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    nn.utils.clip_grad_norm_(p, 1.0)
    assert np.isnan(array(p.grad)).all()


def test_clip_grad_value():
    p = cr.zeros(3, requires_grad=True)
    p.grad = cr.tensor([-3.0, 0.25, 9.0])
    nn.utils.clip_grad_value_([p], 0.5)
    assert array(p.grad).tolist() == [-0.5, 0.25, 0.5]


def test_parameters_as_one_vector():
    net = Net()
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (4 + 12 + 4 + 4 + 1,)
    nn.utils.vector_to_parameters(cr.zeros(25), net.parameters())
    assert not any(array(p).any() for p in net.parameters())
    with pytest.raises(ValueError, match="25"):
        nn.utils.vector_to_parameters(cr.zeros(3), net.parameters())


def test_functional_call_uses_other_values_and_restores():
    net = Net()
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    values = {k: cr.zeros(*v.shape, requires_grad=True) for k, v in net.named_parameters()}
    y = cr.func.functional_call(net, values, cr.ones(2, 3))
    assert not array(y).any()
    y.sum().backward()
    assert array(values["out.bias"].grad).tolist() == [2.0]
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    assert net.out.weight is net.out._parameters["weight"]
    with pytest.raises(ValueError, match="nowhere"):
        cr.func.functional_call(net, {"nowhere": cr.ones(1)}, cr.ones(2, 3))


def test_one_hot():
    same(F.one_hot(cr.tensor([[0, 2]])), torch.nn.functional.one_hot(torch.tensor([[0, 2]])))
    with pytest.raises(ValueError, match="class 3"):
        F.one_hot(cr.tensor([3]), 3)


def test_a_module_is_a_tree_of_its_parameters():
    net = Net()
    x = cr.tensor(normal(5, 3))
    gradients = cr.func.grad(lambda model: (model(x) ** 2).mean())(net)
    assert isinstance(gradients, Net)
    assert gradients.out is not net.out
    (net(x) ** 2).mean().backward()
    for (name, p), (other, g) in zip(net.named_parameters(), gradients._named(
            "_parameters", "", True, True), strict=True):
        assert name == other
        same(p.grad, g)


def test_the_scope_of_recorded_nodes_is_the_module_path():
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))
    y = net(cr.ones(1, 2))
    assert y._node.origin.module == "1.0"
