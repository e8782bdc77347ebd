"""How the doctor watches: what it hears between close looks, what rouses it, whom it names."""

import gc
import linecache
import math
import threading
import time
import warnings
import weakref

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core import events
from chainrule.core.bind import state
from chainrule.core.places import made_at, place_of
from chainrule.doctor.graph import Graph
from chainrule.doctor.plan import Plan
from chainrule.doctor.rule import RULES, Rule
from chainrule.doctor.watching import DoctorWarning, Watch

alive = []


def watched(text, name):
    """Run a program under watch; the lines of its findings can be read."""
    file = f"{name}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    given = {"__name__": name, "cr": cr, "nn": nn, "F": nn.functional, "np": np,
             "rng": np.random.default_rng(0)}
    cr.manual_seed(0)
    with warnings.catch_warnings(), np.errstate(all="ignore"), Watch([], [], warn=False) as seen:
        warnings.simplefilter("ignore")
        exec(compile(text, file, "exec"), given)
    if seen.run.failure is not None:
        raise seen.run.failure
    alive.append(given)          # the watch holds models weakly
    return seen


def found(seen, rule):
    return [f for f in seen.report.findings if f.rule == rule]


# ---------------------------------------------------------------- the plan


def looks(plan, count, step=0.001, cost=0.0, look=0.0):
    """What each of `count` steps of so many seconds gets, if close looks cost as much."""
    moment, kinds = 0.0, []
    for number in range(count):
        kinds.append(plan.look(number, moment))
        moment += step
        if kinds[-1] == "close":
            moment += cost
            plan.looked, plan.cost = moment, cost + step
    return kinds


def test_the_first_steps_are_close_and_then_one_in_so_many():
    kinds = looks(Plan(50), 301)
    close = [i for i, kind in enumerate(kinds) if kind == "close"]
    assert close == [*range(12), 25, 50, 75, 100, 150, 200, 250, 300]
    # Passes are counted shortly before each of them, and not in between.
    assert kinds[142:150] == ["counting"] * 8 and kinds[140] == "light"


def test_late_looks_take_no_more_than_their_share():
    kinds = looks(Plan(50), 20_000, step=0.0001, cost=0.01)
    late = sum(kind == "close" for kind in kinds[400:])
    assert 0 < late * 0.0101 <= 0.012 * (20_000 - 400) * 0.0001


def test_nothing_is_asked_before_the_step_at_which_the_answer_changes():
    plain, lazy = Plan(50), Plan(50)
    kinds = looks(plain, 400)
    now = []
    for number in range(400):
        if number >= lazy.wake:
            now.append(lazy.look(number, number * 0.001))
        else:
            now.append(now[-1])
    assert now == kinds


def test_what_happens_rouses_it_but_not_for_ever():
    plan = Plan(50)
    looks(plan, 20)
    assert plan.rouse() and looks(plan, 6) == ["close"] * 6
    for _ in range(20):
        plan.rouse()
    assert not plan.rouse()
    assert Plan(10**9, first=0, soon=10**9, left=0).look(0, 0.0) == "close"


# ---------------------------------------------------------------- it harms nobody


def broken(run):
    """A rule that fails."""
    if run.count > 3:
        raise ZeroDivisionError("in the rule itself")
    yield from ()


@pytest.fixture
def faulty_rule():
    RULES["CR999"] = Rule("CR999", "broken", broken, 1, "", "")
    yield
    del RULES["CR999"]


def steps_of(model, count, warn):
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)
    x = cr.ones(4, 3)
    with cr.doctor.watch(model, optimizer, warn=warn) as seen:
        for _ in range(count):
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            optimizer.step()
        if seen.run.failure is not None:
            assert not events.heard and state.recording == 1
    return seen


def test_a_fault_of_the_doctors_own_ends_the_watch_and_not_the_training(faulty_rule):
    cr.manual_seed(0)
    model = nn.Linear(3, 1)
    with pytest.warns(DoctorWarning, match="training goes on.*ZeroDivisionError"):
        seen = steps_of(model, 10, True)
    assert isinstance(seen.run.failure, ZeroDivisionError)
    assert "the doctor itself failed" in str(seen.report)
    cr.manual_seed(0)
    alone = nn.Linear(3, 1)
    assert steps_of(alone, 10, False).run.failure is not None       # and is silent if it should be
    np.testing.assert_array_equal(model.weight.detach(), alone.weight.detach())


def test_watched_and_unwatched_training_are_equal_to_the_bit():
    def trained(watch):
        cr.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
        optimizer = cr.optim.Adam(model.parameters(), lr=0.01)
        x = cr.randn(32, 4)

        def loop():
            for _ in range(130):
                optimizer.zero_grad()
                model(x).pow(2).mean().backward()
                optimizer.step()

        if watch:
            with cr.doctor.watch(warn=False):
                loop()
        else:
            loop()
        return [p.detach().numpy().copy() for p in model.parameters()]

    for a, b in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_stay_off_where_they_are_off():
    model = nn.Linear(3, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)
    x = cr.ones(4, 3)
    with cr.doctor.watch(model, optimizer) as seen:
        for _ in range(40):
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            with cr.no_grad():
                optimizer.step()
                assert not model(x).requires_grad
            assert model(x).requires_grad
        cr.set_grad_enabled(False)
    assert not cr.is_grad_enabled()              # the user's own setting is left as it is
    cr.set_grad_enabled(True)
    assert seen.report.ok and state.recording == 1


def test_one_thread_is_watched_and_others_train_undisturbed():
    def train(steps, wrong):
        cr.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            model(cr.ones(4, 3)).pow(2).mean().backward()
            if wrong:
                optimizer.zero_grad()
            optimizer.step()
            turn.wait(10)
            turn.wait(10)

    turn = threading.Barrier(2)
    with cr.doctor.watch() as seen:
        threads = [threading.Thread(target=train, args=(30, wrong)) for wrong in (False, True)]
        threads[0].start()
        while seen.thread is None:
            time.sleep(0.001)
        threads[1].start()
        for thread in threads:
            thread.join()
    assert seen.run.failure is None
    assert not seen.report.findings and seen.report.steps == 30


def test_light_steps_keep_nothing_for_long():
    model = nn.Linear(3, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)
    with cr.doctor.watch(model, optimizer, every=10**9) as seen:
        for step in range(40):
            optimizer.zero_grad()
            model(cr.ones(4, 3)).mean().backward()
            if step > 30:
                assert len(state.dropped) > 1 # until the optimiser has looked at the gradients
            optimizer.step()
            if step > 30:
                assert state.dropped == []
        for _ in range(3):                    # and never more than one pass
            model(cr.ones(4, 3)).mean().backward()
            kept = len(state.dropped)
            assert kept < 8
    assert state.dropped is None and not events.heard and seen.report.steps == 40


def trained_with(prepare, watch, steps=40):
    """The weights after some steps of a model that `prepare` has hung something on."""
    cr.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    change = prepare(model)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)

    def loop():
        for _ in range(steps):
            optimizer.zero_grad()
            change(model(cr.randn(8, 3))).pow(2).mean().backward()
            optimizer.step()

    if watch:
        with cr.doctor.watch(warn=False) as seen:
            loop()
        assert seen.run.failure is None
    else:
        loop()
    return [p.detach().numpy().copy() for p in model.parameters()]


class Forgetful(cr.autograd.Function):
    """A function whose backward pass can run once, and draws random numbers."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x * 2

    @staticmethod
    def backward(ctx, g):
        x = ctx.x
        del ctx.x
        return g * 2 + 0.01 * cr.randn_like(x)


def noisy_hooks(model):
    for p in model.parameters():
        p.register_hook(lambda g: g + 0.01 * cr.randn_like(g))
    return lambda y: y


def a_hook_that_goes(model):
    handle = []
    p = model[0].weight
    handle.append(p.register_hook(lambda g: (handle[0].remove(), g * 2)[1]))
    return lambda y: y


def module_hooks(model):
    kept = []
    model[1].register_forward_hook(lambda m, x, y: kept.append(y.detach()))
    model[1].register_full_backward_hook(lambda m, i, o: kept.pop() and None)
    return lambda y: y


def keeps_its_gradient(model):
    def change(y):
        y.retain_grad()
        change.seen = y
        return y

    return change


@pytest.mark.parametrize("prepare", [
    noisy_hooks, a_hook_that_goes, lambda model: Forgetful.apply, keeps_its_gradient,
], ids=["hooks that draw", "a hook that removes itself", "a Function", "retain_grad"])
def test_code_of_the_users_runs_as_often_as_without_a_watch(prepare):
    for a, b in zip(trained_with(prepare, True), trained_with(prepare, False), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_retained_gradient_is_that_of_one_pass():
    model = nn.Linear(3, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.0)
    with cr.doctor.watch(warn=False):
        y = model(cr.ones(4, 3))
        y.retain_grad()
        y.sum().backward()
        optimizer.step()
    np.testing.assert_array_equal(y.grad, np.ones((4, 1)))
    h = model(cr.ones(4, 3))
    h.retain_grad()
    cr.doctor.blame(h.sum())
    assert h.grad is None


def test_a_function_that_is_called_like_an_operation_is_still_the_users():
    class exp(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise AssertionError("this is the user's to run")

    loss = exp.apply(cr.ones(2, requires_grad=True)).sum()
    assert Graph([(loss._node, None)]).foreign
    assert not Graph([(cr.ones(2, requires_grad=True).exp().sum()._node, None)]).foreign


def test_a_checkpoint_may_go_back_within_a_pass():
    class Checkpoint(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x * x).detach()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with cr.enable_grad():
                again = x.detach().requires_grad_()
                (again * again).backward(g)
            return again.grad

    for a, b in zip(trained_with(lambda model: Checkpoint.apply, True),
                    trained_with(lambda model: Checkpoint.apply, False), strict=True):
        np.testing.assert_array_equal(a, b)


def test_masked_targets_without_numbers_are_no_fault():
    text = """
model = nn.Linear(3, 1)
optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
for step in range(20):
    x = cr.randn(16, 3)
    y = x[:, :1].clone()
    y[3] = float("nan")
    optimizer.zero_grad()
    cr.where(y == y, (model(x) - y) ** 2, 0).mean().backward()
    optimizer.step()
"""
    assert not watched(text, "masked").report.findings


def test_passes_for_some_inputs_accuse_nobody():
    text = """
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
for step in range(20):
    optimizer.zero_grad()
    loss = model(cr.randn(8, 3)).pow(2).mean()
    loss.item()
    loss.backward(inputs=list(model[1].parameters()))
    optimizer.step()
"""
    assert not [f for f in watched(text, "blocks").report.findings if f.severity == "error"]


@pytest.mark.parametrize("odd", ["raises", "lies", "lazy"])
def test_odd_objects_among_the_users_variables(odd):
    class Odd:
        def __getattribute__(self, name):
            if odd == "raises" or name == "__class__":
                raise RuntimeError("do not look at me")
            return object.__getattribute__(self, name)

    class Values(dict):
        def values(self):
            raise RuntimeError("nor at me")

    strange = Odd() if odd != "lies" else Values(a=1)
    history = []
    model = nn.Linear(3, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
    with cr.doctor.watch(warn=False) as seen:
        for _ in range(15):
            optimizer.zero_grad()
            loss = model(cr.randn(8, 3)).pow(2).mean()
            loss.backward()
            history.append(loss)
            optimizer.step()
    assert seen.run.failure is None and strange is not None
    assert [f.subject for f in found(seen, "CR304")] == ["history"]


def test_looking_at_variables_keeps_nothing_alive():
    def train():
        critic, painter = nn.Linear(2, 1), nn.Linear(3, 2)
        optimizer = cr.optim.SGD([*critic.parameters(), *painter.parameters()], lr=0.01)
        mine = locals()
        with cr.doctor.watch(warn=False):
            for _ in range(3):
                optimizer.zero_grad()
                critic(painter(cr.randn(8, 3)).detach()).mean().backward()
                optimizer.step()
        assert mine["critic"] is critic              # the user's own snapshot is left alone
        mine.clear()
        gone = weakref.ref(critic)
        del critic, painter, optimizer
        gc.collect()
        return gone

    assert train()() is None


# ---------------------------------------------------------------- what rouses it


LATE = """
model = nn.Linear(3, 1)
optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
for step in range(40):
    optimizer.zero_grad()
    y = model(cr.randn(8, 3))
    if step == 31:
        y = y - y.detach(){inner}
    loss = (y.abs() + {small}).sqrt().mean()
    loss.backward()
    optimizer.step()
"""


def test_a_gradient_that_is_lost_between_close_looks_is_explained():
    seen = watched(LATE.format(inner="", small="0.0"), "lost_late")
    [finding] = found(seen, "CR503")
    assert finding.place.line == 9 and finding.step == 31
    assert "sqrt" in finding.what
    assert not found(seen, "CR501")
    assert not watched(LATE.format(inner=" + 1", small="0.1"), "kept_late").report.findings


def test_a_gradient_that_is_lost_in_an_earlier_of_several_passes():
    text = """
model = nn.Linear(3, 1)
optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
for step in range(40):
    optimizer.zero_grad()
    for part in range(3):
        y = model(cr.randn(8, 3))
        if step == 20 and part == 1:
            y = y - y.detach()
        (y.abs().sqrt() if step == 20 else y.abs()).mean().backward()
    optimizer.step()
"""
    [finding] = found(watched(text, "lost_part"), "CR503")
    assert finding.step == 20 and finding.place.line == 10


def test_an_explosion_between_close_looks():
    text = """
model = nn.Linear(3, 1)
optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
schedule = cr.optim.lr_scheduler.StepLR(optimizer, 30, gamma=300.0)
for step in range(45):
    optimizer.zero_grad()
    x = cr.ones(8, 3)
    loss = ((model(x) - 1) ** 2).mean()
    loss.backward()
    optimizer.step()
    schedule.step()
"""
    [finding] = found(watched(text, "explodes_late"), "CR504")
    assert finding.place.line == 4                          # the schedule has set the rate
    assert finding.step < 45


def test_evaluation_mode_that_is_left_on_later():
    text = """
model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(3):
    for step in range(14):
        optimizer.zero_grad()
        model(cr.randn(8, 3)).pow(2).mean().backward()
        optimizer.step()
    model.eval()
"""
    [finding] = found(watched(text, "left_on"), "CR701")
    assert finding.place.line == 9


def test_descent_by_hand_has_steps_too():
    text = """
w = cr.randn(3, 1).requires_grad_()
for step in range(30):
    x = cr.randn(16, 3)
    loss = ((x @ w - x[:, :1]) ** 2).mean()
    loss.backward()
    with cr.no_grad():
        w += 0.5 * w.grad
    w.grad = None
"""
    seen = watched(text, "uphill")
    assert seen.run.count >= 30
    [finding] = found(seen, "CR504")
    assert finding.place.line == 8


# ---------------------------------------------------------------- names and lines


@pytest.mark.parametrize(("keep", "name", "line"), [
    ("history.append(loss)", "history", 9),
    ("history.append((step, {'loss': loss}))", "history", 9),
    ("total = total + loss", "total", 9),
    ("total += loss", "total", 9),
    ("log['loss'] = [*log.get('loss', []), loss]", "log", 9),
    ("box.losses.append(loss)", "box.losses", 9),
])
def test_who_keeps_the_losses(keep, name, line):
    text = f"""
from types import SimpleNamespace
model, history, total, log, box = nn.Linear(3, 1), [], 0.0, {{}}, SimpleNamespace(losses=[])
optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
for step in range(20):
    optimizer.zero_grad()
    loss = model(cr.randn(8, 3)).pow(2).mean()
    loss.backward()
    {keep}
    optimizer.step()
"""
    [finding] = found(watched(text, "keeper"), "CR304")
    assert (finding.subject, finding.place.line) == (name, line)


def test_models_are_called_as_in_the_users_code():
    text = """
critic, painter = nn.Linear(2, 1), nn.Linear(3, 2)
a = cr.optim.SGD(critic.parameters(), lr=0.01)
b = cr.optim.SGD(painter.parameters(), lr=0.01)
for step in range(6):
    a.zero_grad()
    critic(painter(cr.randn(8, 3)).detach()).mean().backward()
    a.step()
    b.zero_grad()
    critic(painter(cr.randn(8, 3))).mean().backward()
    b.step()
"""
    seen = watched(text, "two_models")
    assert sorted(name for name, _ in seen.run.models) == ["critic", "painter"]
    assert "painter.weight" in dict(seen.run.parameters())


def test_a_module_under_no_grad_is_named_with_its_line():
    text = """
encoder, decoder = nn.Linear(4, 2), nn.Linear(2, 4)
optimizer = cr.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.01)
for step in range(10):
    x = cr.randn(8, 4)
    optimizer.zero_grad()
    with cr.set_grad_enabled(False):
        code = encoder(x)
    (decoder(code) - x).pow(2).mean().backward()
    optimizer.step()
"""
    [finding] = found(watched(text, "unrecorded"), "CR301")
    assert finding.place.line == 8 and finding.evidence["parameters"] == 2


def test_lines_that_decided_something_are_remembered():
    model = nn.Linear(2, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)
    line = place_of(optimizer, "made").line
    assert linecache.getline(__file__, line).strip().startswith("optimizer = cr.optim.SGD(")
    assert made_at(model.weight._node).line == line - 1
    model.eval()
    model.weight.requires_grad_(False)
    assert place_of(model, "put into evaluation mode").line == line + 4
    assert place_of(model.weight, "frozen").line == line + 5
    assert not place_of(cr.ones(2), "frozen").file
    # They belong to the object: another one at the same address knows nothing of them.
    key = id(optimizer)
    del optimizer
    again = [cr.optim.SGD(model.parameters(), lr=0.1) for _ in range(3)]
    assert all(place_of(one, "made").line > line for one in again if id(one) == key)


def test_losses_that_are_no_numbers_from_the_start_do_not_rouse_it_for_ever():
    model = nn.Linear(3, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
    with cr.doctor.watch(model, optimizer, warn=False) as seen:
        for _ in range(300):
            optimizer.zero_grad()
            loss = model(cr.ones(4, 3)).mean() * math.nan
            loss.backward()
            optimizer.step()
    assert sum(step.sampled for step in seen.run.looked) < 100
