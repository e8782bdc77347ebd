"""optim: trajectories against PyTorch, the fast walk against the formula, schedules, state."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn, optim
from chainrule.optim import formulas, walk

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install -e '.[test]' brings it")

SHAPES = [(3, 4), (5,), (), (40, 500), (64, 64), (1,)]
CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True,
             "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"maximize": True, "betas": (0.5, 0.9)}),
    ("AdamW", {}),
    ("AdamW", {"maximize": True, "amsgrad": True, "weight_decay": 0.3}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("Adamax", {}),
    ("Adamax", {"maximize": True, "weight_decay": 0.1, "betas": (0.5, 0.9), "lr": 0.01}),
    ("NAdam", {}),
    ("NAdam", {"weight_decay": 0.1, "momentum_decay": 0.1, "maximize": True}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "betas": (0.5, 0.9)}),
    ("RAdam", {}),
    ("RAdam", {"weight_decay": 0.1, "betas": (0.8, 0.7)}),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True,
               "betas": (0.5, 0.6)}),
]
names = [f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})" for name, options in CASES]


def values(x):
    return x.detach().numpy()


def leaves(lib, arrays):
    return [lib.tensor(a.copy(), requires_grad=True) for a in arrays]


def set_grads(lib, params, grads):
    for p, g in zip(params, grads, strict=True):
        p.grad = None if g is None else lib.tensor(g.copy())


@pytest.mark.parametrize(("name", "options"), CASES, ids=names)
def test_200_steps_equal_pytorch_and_the_formula(name, options):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s) for s in SHAPES]
    ours, theirs, plain = leaves(cr, start), leaves(torch, start), leaves(cr, start)
    a = getattr(optim, name)(ours, **options)
    b = getattr(torch.optim, name)(theirs, **options)
    c = getattr(optim, name)(plain, **options)
    for step in range(200):
        grads = [rng.standard_normal(s) for s in SHAPES]
        if step % 7 == 3:
            grads[1] = None
        set_grads(cr, ours, grads)
        set_grads(torch, theirs, grads)
        set_grads(cr, plain, grads)
        a.step()
        b.step()
        group = c.param_groups[0]
        c._step_by_formula(group, [p for p in plain if p.grad is not None])
    for p, q, r in zip(ours, theirs, plain, strict=True):
        np.testing.assert_allclose(values(p), values(q), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(values(p), values(r), rtol=1e-9, atol=1e-11)
    assert repr(a) == repr(b)
    mine, its = a.state_dict(), b.state_dict()
    assert mine["param_groups"] == its["param_groups"]
    assert {k: set(v) for k, v in mine["state"].items()} == {
        k: set(v) for k, v in its["state"].items()}
    for key, kept in its["state"].items():
        for slot, value in kept.items():
            np.testing.assert_allclose(values(mine["state"][key][slot]), values(value),
                                       rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), CASES, ids=names)
def test_in_place_equals_the_formula_to_the_last_bit(name, options, dtype):
    rng = np.random.default_rng(1)
    p = rng.standard_normal((7, 9)).astype(dtype)
    g = rng.standard_normal((7, 9)).astype(dtype)
    optimizer = getattr(optim, name)([cr.tensor(p.copy(), requires_grad=True)], **options)
    group = optimizer.param_groups[0]
    slots = tuple(np.abs(rng.standard_normal(p.shape)).astype(dtype) + dtype(1)
                  for _ in optimizer._slots(group))
    scalars = tuple(np.float32(0.5) for _ in optimizer.scalars)
    for fresh in (False, True):
        q, kept = p.copy(), tuple(s.copy() for s in slots)
        moved = optimizer._moved(group, 3, *scalars)
        constants = [np.array(x, dtype) for x in optimizer._constants(group, 3, *moved)]
        before = g.copy()
        optimizer._in_place(group, q, g, kept, np.empty_like(p), np.empty_like(p), constants, fresh)
        assert np.array_equal(g, before)
        r, new = optimizer._formula(group, p, -g if group["maximize"] else g,
                                    slots + scalars, 3, fresh)
        np.testing.assert_array_equal(q, r)
        for x, y in zip(kept + moved, new, strict=True):
            np.testing.assert_array_equal(x, y)


@settings(max_examples=40, deadline=None)
@given(shapes=st.lists(st.sampled_from([(), (1,), (3,), (2, 5), (0,), (64, 64), (130, 130)]),
                       min_size=1, max_size=8),
       present=st.lists(st.integers(0, 255), min_size=1, max_size=6),
       which=st.sampled_from(range(len(CASES))),
       piece=st.sampled_from([16, 1000, 16384]))
def test_any_mix_of_shapes_and_missing_gradients(shapes, present, which, piece):
    name, options = CASES[which]
    rng = np.random.default_rng(2)
    start = [rng.standard_normal(s) for s in shapes]
    ours, plain = leaves(cr, start), leaves(cr, start)
    a, b = getattr(optim, name)(ours, **options), getattr(optim, name)(plain, **options)
    before, walk.PIECE = walk.PIECE, piece
    try:
        for bits in present:
            grads = [rng.standard_normal(s) if bits >> i & 1 else None
                     for i, s in enumerate(shapes)]
            set_grads(cr, ours, grads)
            set_grads(cr, plain, grads)
            a.step()
            b._step_by_formula(b.param_groups[0], [p for p in plain if p.grad is not None])
    finally:
        walk.PIECE = before
    for p, q in zip(ours, plain, strict=True):
        np.testing.assert_allclose(values(p), values(q), rtol=1e-10, atol=1e-12)


def test_parameters_that_are_not_contiguous_and_gradients_of_other_layouts():
    rng = np.random.default_rng(3)
    base = rng.standard_normal((300, 200))
    for name, options in CASES:
        p = cr.from_numpy(base.copy().T).requires_grad_()
        q = torch.tensor(base.T.copy(), requires_grad=True)
        a, b = getattr(optim, name)([p], **options), getattr(torch.optim, name)([q], **options)
        for _ in range(3):
            g = rng.standard_normal((300, 200))
            p.grad, q.grad = cr.from_numpy(g.T), torch.tensor(g.T.copy())
            a.step()
            b.step()
        np.testing.assert_allclose(values(p), values(q), rtol=1e-10)


def test_a_parameter_given_new_memory_is_followed():
    p = cr.ones(3, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1)
    for _ in range(2):
        p.grad = cr.ones(3)
        optimizer.step()
    p.data = cr.tensor([5.0, 5.0, 5.0])
    p.grad = cr.ones(3)
    optimizer.step()
    np.testing.assert_allclose(values(p), 4.9, rtol=1e-5)


def test_changed_options_take_effect_at_the_next_step():
    p, q = cr.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    a, b = optim.SGD([p], lr=0.1), torch.optim.SGD([q], lr=0.1)
    for step in range(6):
        for o in (a, b):
            o.param_groups[0]["lr"] = 0.1 * (step + 1)
            if step == 3:
                o.param_groups[0]["momentum"] = 0.9
        p.grad, q.grad = cr.ones(3), torch.ones(3)
        a.step()
        b.step()
    np.testing.assert_allclose(values(p), values(q), rtol=1e-6)


def test_state_replaced_by_hand_is_seen():
    p = cr.ones(3, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    for _ in range(2):
        p.grad = cr.ones(3)
        optimizer.step()
    optimizer.state[p]["momentum_buffer"] = cr.zeros(3)
    before = values(p).copy()
    p.grad = cr.ones(3)
    optimizer.step()
    np.testing.assert_allclose(before - values(p), 0.1, rtol=1e-5)
    optimizer.state.clear()
    p.grad = cr.ones(3)
    optimizer.step()
    np.testing.assert_allclose(values(optimizer.state[p]["momentum_buffer"]), 1.0)


def test_writes_are_noted_so_that_stale_graphs_are_refused():
    p = cr.ones(3, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)
    loss = (p * p).sum()
    loss.backward()
    loss = (p * p * p).sum()
    optimizer.step()
    with pytest.raises(RuntimeError):
        loss.backward()


def test_training_a_network_equals_pytorch():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((32, 6)).astype("f"), rng.integers(0, 3, 32)

    def make(n):
        return n.Sequential(n.Linear(6, 16), n.Tanh(), n.Linear(16, 3))
    theirs, ours = make(torch.nn), make(nn)
    ours.load_state_dict(theirs.state_dict())
    losses = {}
    for lib, model in ((cr, ours), (torch, theirs)):
        optimizer = lib.optim.AdamW(model.parameters(), lr=0.01)
        schedule = lib.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        losses[lib] = []
        for _ in range(100):
            optimizer.zero_grad()
            loss = lib.nn.functional.cross_entropy(model(lib.tensor(x)), lib.tensor(y))
            loss.backward()
            lib.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            losses[lib].append(loss.item())
    np.testing.assert_allclose(losses[cr], losses[torch], rtol=2e-3, atol=1e-5)
    assert losses[cr][-1] < 0.5 * losses[cr][0]


def test_an_optimizer_of_ones_own():
    class SignDescent(optim.Optimizer):
        def __init__(self, params, rate):
            super().__init__(params, {"rate": rate})

        def step(self):
            with cr.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        self.state[p]["count"] = self.state[p].get("count", 0) + 1
                        p.sub_(group["rate"] * p.grad.sign())

    p = cr.ones(3, requires_grad=True)
    optimizer = SignDescent([p], 0.25)
    (p * cr.tensor([1.0, -2.0, 0.0])).sum().backward()
    optimizer.step()
    assert values(p).tolist() == [0.75, 1.25, 1.0]
    assert optimizer.state_dict()["state"] == {0: {"count": 1}}


def test_named_parameters():
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    model(cr.ones(1, 3)).sum().backward()
    optimizer.step()
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


# ---------------------------------------------------------------- formulas by hand


def test_formulas_by_hand():
    assert formulas.sgd(1.0, 0.5, 0.25, lr=0.1, momentum=0.5) == (1 - 0.1 * 0.625, 0.625)
    p, m, v, _ = formulas.adam(1.0, 0.5, 0.0, 0.0, step=1, lr=0.1)
    assert (m, v) == (0.5 * (1 - 0.9), 0.25 * (1 - 0.999))
    assert abs(p - (1 - 0.1 * 0.5 / (0.5 + 1e-8))) < 1e-12


def test_the_formula_accepts_tensors_for_rate_and_step():
    p, g, zero = (cr.tensor([x, x], dtype=cr.float64) for x in (1.0, 0.5, 0.0))
    step, lr = cr.tensor(3.0, dtype=cr.float64), cr.tensor(0.1, dtype=cr.float64)
    new, *_ = formulas.adam(p, g, zero, zero, step=step, lr=lr)
    expected, *_ = formulas.adam(1.0, 0.5, 0.0, 0.0, step=3, lr=0.1)
    np.testing.assert_allclose(values(new), expected, rtol=1e-12)


# ---------------------------------------------------------------- groups, state, errors


def test_parameter_groups():
    a, b, c = (cr.ones(2, requires_grad=True) for _ in range(3))
    optimizer = optim.SGD([{"params": [a], "lr": 0.5}, {"params": b}], lr=0.1)
    optimizer.add_param_group({"params": [c], "lr": 0.0})
    for p in (a, b, c):
        p.grad = cr.ones(2)
    optimizer.step()
    assert [round(float(values(p)[0]), 6) for p in (a, b, c)] == [0.5, 0.9, 1.0]
    optimizer.zero_grad(set_to_none=False)
    assert values(a.grad).tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert a.grad is None


def test_closure_and_hooks():
    p = cr.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    remove = optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with cr.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert abs(p.item() - 1.6) < 1e-6
    remove()
    optimizer.step(closure)
    assert seen == ["before", "after", "before"]


@pytest.mark.parametrize(("call", "words"), [
    (lambda p: optim.SGD([], lr=0.1), ("no parameters", "ModuleList")),
    (lambda p: optim.SGD(p, lr=0.1), ("[tensor]",)),
    (lambda p: optim.SGD([p, p], lr=0.1), ("parameter 1 of group 0", "parameter 0 of group 0")),
    (lambda p: optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1), ("parameter 0 of group 1",)),
    (lambda p: optim.SGD([p * 2], lr=0.1), ("not a leaf", "requires_grad_()")),
    (lambda p: optim.SGD([("weight", p * 2)], lr=0.1), ("'weight'",)),
    (lambda p: optim.SGD([cr.tensor([1])], lr=0.1), ("int64",)),
    (lambda p: optim.SGD([1.0], lr=0.1), ("not a tensor",)),
    (lambda p: optim.SGD([p], lr=-0.1), ("lr=-0.1", ">= 0")),
    (lambda p: optim.SGD([p], lr=0.1, nesterov=True), ("nesterov", "momentum")),
    (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ("betas=(0.9, 1.0)",)),
    (lambda p: optim.Adam([p], eps=-1.0), ("eps=-1.0",)),
    (lambda p: optim.SGD({p}, lr=0.1), ()),
    (lambda p: optim.Adam([p], lr=math.nan), ("lr=nan",)),
])
def test_errors_teach(call, words):
    with pytest.raises((ValueError, TypeError)) as error:
        call(cr.ones(2, requires_grad=True))
    for word in words:
        assert word in str(error.value)


def test_a_generator_walked_before_is_reported():
    parameters = nn.Linear(2, 2).parameters()
    list(parameters)
    with pytest.raises(ValueError, match="call it again"):
        optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize(("name", "options"), CASES, ids=names)
def test_state_travels_to_pytorch_and_back(name, options):
    rng = np.random.default_rng(5)
    start = [rng.standard_normal(s) for s in SHAPES]
    grads = [[rng.standard_normal(s) for s in SHAPES] for _ in range(10)]
    ours, theirs = leaves(cr, start), leaves(torch, start)
    a = getattr(optim, name)(ours, **options)
    b = getattr(torch.optim, name)(theirs, **options)
    for g in grads[:5]:
        set_grads(cr, ours, g)
        a.step()
    state = a.state_dict()
    b.load_state_dict({
        "param_groups": state["param_groups"],
        "state": {k: {s: torch.tensor(values(v)) for s, v in kept.items()}
                  for k, kept in state["state"].items()}})
    for p, q in zip(ours, theirs, strict=True):
        with torch.no_grad():
            q.copy_(torch.tensor(values(p)))
    fresh = leaves(cr, [values(p) for p in ours])
    c = getattr(optim, name)(fresh, **{**options, "lr": 7.0})
    c.load_state_dict(b.state_dict())
    assert c.param_groups[0]["lr"] == a.param_groups[0]["lr"]
    for g in grads[5:]:
        for lib, params, o in ((cr, ours, a), (torch, theirs, b), (cr, fresh, c)):
            set_grads(lib, params, g)
            o.step()
    for p, q, r in zip(ours, theirs, fresh, strict=True):
        np.testing.assert_allclose(values(p), values(q), rtol=1e-9, atol=1e-11)
        np.testing.assert_array_equal(values(p), values(r))


def test_state_that_does_not_fit_is_refused_whole():
    def make(*shapes):
        params = [cr.ones(*s, requires_grad=True) for s in shapes]
        optimizer = optim.Adam(params)
        for p in params:
            p.grad = cr.ones(*p.shape)
        optimizer.step()
        return optimizer
    optimizer = make((2,), (3,))
    before = optimizer.state_dict()
    for other, words in ((make((2,)), "has 2 parameters"), (make((2,), (4,)), r"\(4,\)")):
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict(other.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["state"][0]["step"].item() == 1.0


def test_copies_do_not_share():
    p = cr.ones(3, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1)
    p.grad = cr.ones(3)
    optimizer.step()
    other = copy.deepcopy(optimizer)
    q = other.param_groups[0]["params"][0]
    q.grad = cr.ones(3)
    other.step()
    np.testing.assert_allclose(values(p), 0.9, rtol=1e-5)
    np.testing.assert_allclose(values(q), 0.8, rtol=1e-5)
    assert optimizer.state_dict()["state"][0]["step"].item() == 1.0


# ---------------------------------------------------------------- writes between steps


def move_first(lib, optimizer, params):
    first, second = optimizer.param_groups
    second["params"].append(first["params"].pop(0))


def swap(lib, optimizer, params):
    first, second = optimizer.param_groups
    first["params"], second["params"] = second["params"], first["params"]


def reverse_groups(lib, optimizer, params):
    optimizer.param_groups.reverse()
    optimizer.param_groups[0]["lr"] = 0.3


def new_step(lib, optimizer, params):
    optimizer.state[params[0]]["step"] = lib.tensor(50.0)


def all_steps(lib, optimizer, params):
    for p in params:
        optimizer.state[p]["step"].fill_(50.0)


def second_moments(lib, optimizer, params):
    for p in params:
        optimizer.state[p]["exp_avg_sq"] = lib.full_like(p.detach(), 0.5)


EDITS = [
    lambda lib, optimizer, params: None,
    lambda lib, optimizer, params: optimizer.param_groups[0]["params"].pop(),
    lambda lib, optimizer, params: optimizer.param_groups[0]["params"].reverse(),
    lambda lib, optimizer, params: optimizer.param_groups.pop(0),
    lambda lib, optimizer, params: optimizer.state[params[0]].clear(),
    lambda lib, optimizer, params: optimizer.state.clear(),
    move_first, swap, reverse_groups,
]
STATES = [new_step, all_steps, second_moments,
          lambda lib, optimizer, params: optimizer.state[params[0]]["step"].fill_(50.0)]


@pytest.mark.parametrize("kind", ["eager", "compiled"])
@pytest.mark.parametrize(("name", "edit"), [
    *[("SGD", edit) for edit in EDITS], *[("Adam", edit) for edit in EDITS + STATES]])
def test_what_is_written_between_steps_takes_effect_at_the_next(name, edit, kind):
    def run(lib):
        rng = np.random.default_rng(0)
        params = [lib.tensor(rng.normal(size=shape).astype("f4"), requires_grad=True)
                  for shape in ((3,), (4, 2), (5,))]
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(lib.optim, name)([{"params": params[:2], "lr": 0.1},
                                              {"params": params[2:], "lr": 0.01}], **options)

        def step():
            optimizer.zero_grad()
            sum((p * p).sum() for p in params).backward()
            optimizer.step()
        function = cr.compile(step) if lib is cr and kind == "compiled" else step
        for k in range(6):
            if k == 3:
                edit(lib, optimizer, params)
            function()
        return [p.detach().numpy() for p in params]
    for mine, its in zip(run(cr), run(torch), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


def test_a_number_written_as_the_step_is_taken():
    w, v = (cr.ones(2).requires_grad_() for _ in range(2))
    optimizer, other = optim.Adam([w], 0.1), optim.Adam([v], 0.1)
    for x, own in ((w, optimizer), (v, other)):
        (x * x).sum().backward()
        own.step()
    optimizer.state[w]["step"] = 9
    other.state[v]["step"].fill_(9)
    optimizer.step()
    other.step()
    np.testing.assert_array_equal(w.detach().numpy(), v.detach().numpy())


def test_the_product_that_nadam_keeps():
    p, q = cr.ones(3, requires_grad=True), cr.ones(2, requires_grad=True)
    optimizer = optim.NAdam([p, q], lr=0.1)
    for _ in range(3):
        p.grad, q.grad = cr.ones(3), cr.ones(2)
        optimizer.step()
    product = optimizer.state[p]["mu_product"].item()
    assert product == optimizer.state[q]["mu_product"].item()
    twin = copy.deepcopy(optimizer)
    with cr.no_grad():
        optimizer.state[p]["mu_product"].fill_(0.5)       # the two part
    optimizer.state[q]["mu_product"] = 0.25               # a number is taken, too
    for one in (optimizer, twin):
        for x in one.param_groups[0]["params"]:
            x.grad = cr.ones(x.shape)
        one.step()
    now = formulas.nadam_product(0.5, 4, 0.9, 4e-3)
    assert optimizer.state[p]["mu_product"].item() == now
    assert optimizer.state[q]["mu_product"].item() == now / 2
    kept = [twin.state[x]["mu_product"].item() for x in twin.param_groups[0]["params"]]
    assert kept == [formulas.nadam_product(product, 4, 0.9, 4e-3)] * 2
