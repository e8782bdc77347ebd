"""Proof by treatment: published cases cured by the doctor's own proposal, and nothing changed."""

import copy
import linecache
import math
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core import events
from chainrule.core.errors import SettingError
from chainrule.doctor import RULES
from chainrule.doctor.cures import CURES


def stack(depth, activation, width=16):
    layers = []
    for number in range(depth):
        layers += [nn.Linear(width if number else 8, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 2))


def classes():
    x = cr.randn(32, 8)
    return x, (x[:, 0] > 0).long()


def sgd(model, rate=0.05):
    return cr.optim.SGD(model.parameters(), lr=rate)


def step_of(id, tag):
    """The loop's body of a rule's faulty program as one step, and its variables."""
    head, _, body = RULES[id].example.partition("\nfor step in range(")
    text = f"{head}\ndef step():\n{body.partition('):')[2]}\n"
    file = f"{id}_{tag}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    names = {"__name__": "program"}
    exec(compile(text, file, "exec"), names)
    return names


# ---------------------------------------------------------------- published cases


def test_thirty_rectified_layers_of_xavier_stall_and_start_with_he():
    """He et al. 2015, figure 3: 30 layers with ReLU."""
    cr.manual_seed(0)
    model = stack(30, nn.ReLU)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    done = cr.doctor.treat(model, classes(), loss=nn.CrossEntropyLoss(), optimizer=sgd(model),
                           steps=120)
    assert done.finding.rule == "CR605" and "shrink" in done.finding.what
    assert done.helped and "kaiming_normal_" in done.best.what
    assert done.untreated.end > 0.6 > 0.4 > done.best.end      # ln 2 = 0.69 is guessing
    assert done.best.gradient > 1000 * done.untreated.gradient
    assert "CR605" not in done.best.found


def test_fifty_sigmoid_layers():
    cr.manual_seed(0)
    model = stack(50, nn.Sigmoid)
    done = cr.doctor.treat(model, classes(), loss=nn.CrossEntropyLoss(), optimizer=sgd(model),
                           steps=60)
    assert done.finding.rule == "CR601" and done.finding.severity == "error"
    assert done.helped and "relu" in done.best.what.lower()
    assert done.untreated.gradient < 1e-20 and done.best.gradient > 1e-3
    assert done.best.end < 0.9 * done.untreated.end
    assert "CR601" not in done.best.found


def test_the_top_sigmoid_layer_saturates_and_is_cured():
    """Glorot & Bengio 2010, figure 2: the last hidden layer of sigmoids goes to 0 and stays."""
    cr.manual_seed(0)
    images, labels = cr.data.load_digits()
    x = cr.tensor((images.reshape(-1, 64) / 8 - 1).astype("float32"))
    y = cr.tensor(labels.astype("int64"))
    layers = []
    for number in range(4):
        layers += [nn.Linear(100 if number else 64, 100), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(100, 10))
    optimizer = cr.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    with cr.doctor.watch(model, optimizer, warn=False) as seen:
        for _ in range(160):
            rows = cr.randint(0, len(labels), (10,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    [finding] = [f for f in seen.report.findings if f.rule == "CR603"]
    assert finding.subject == "7"                               # the topmost of the four
    assert float(model[:8](x).mean()) < 0.015
    rows = cr.randint(0, len(labels), (100,))
    done = cr.doctor.treat(model, (x[rows], y[rows]), loss=nn.CrossEntropyLoss(),
                           optimizer=optimizer, finding=finding, steps=120)
    assert done.helped and "ReLU" in done.best.what and "CR603" not in done.best.found
    assert done.best.end < 0.2 < 2 < done.untreated.end


class Recurrent(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.rnn = nn.RNN(2, 16, batch_first=True, nonlinearity="relu")
        self.out = nn.Linear(16, 1)
        nn.init.orthogonal_(self.rnn.weight_hh_l0)
        self.rnn.weight_hh_l0.data.mul_(scale)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def test_a_recurrent_network_without_clipping():
    """Pascanu, Mikolov & Bengio 2013: the gradient explodes through time, clipping trains it."""
    cr.manual_seed(0)
    model = Recurrent(2.5)
    x = cr.rand(16, 20, 2)
    done = cr.doctor.treat(model, (x, x[:, :, :1].mean(1)), loss=nn.MSELoss(),
                           optimizer=sgd(model), steps=150)
    assert done.finding.rule == "CR602"
    assert "clip_grad_norm_" in done.finding.cure
    assert done.helped and done.best.what.startswith("nn.utils.clip_grad_norm_")
    assert math.isinf(done.untreated.end) and done.best.end < 0.2
    assert "not finite → " in str(done)


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize("id", ["CR101", "CR102", "CR207", "CR208", "CR209", "CR504"])
def test_a_fault_in_the_loop_is_cured_from_outside(id):
    names = step_of(id, "loop")
    before = [p.detach().numpy().copy() for p in names["model"].parameters()]
    done = cr.doctor.treat(names["step"], (), steps=60)
    assert done.finding.rule == id
    assert done.helped and id in done.untreated.found and id not in done.best.found
    assert done.best.end < 0.9 * done.control.end
    for was, p in zip(before, names["model"].parameters(), strict=True):
        np.testing.assert_array_equal(was, p.detach().numpy())
    assert "zero_grad" not in vars(names["optimizer"]) and "zero_grad" not in vars(names["model"])


def test_a_cut_gradient_is_attached_again():
    names, detach = step_of("CR301", "cut"), cr.Tensor.detach
    done = cr.doctor.treat(names["step"], (), steps=60)
    assert done.finding.rule == "CR301" and done.helped
    assert done.untreated.gradient is None and done.best.gradient > 0
    assert cr.Tensor.detach is detach


# ---------------------------------------------------------------- honesty


def test_a_cure_that_does_not_help_is_told():
    """Equal units are enough for a line: the cure is right and gains nothing."""
    names = step_of("CR606", "honest")
    done = cr.doctor.treat(names["model"], (names["x"], names["y"]), loss=nn.MSELoss(),
                           optimizer=names["optimizer"], steps=60)
    assert done.finding.rule == "CR606" and not done.helped
    assert "It did not help" in str(done) and "best tried" in str(done)


def test_a_healthy_network_needs_no_treatment():
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    done = cr.doctor.treat(model, classes(), loss=nn.CrossEntropyLoss(), optimizer=sgd(model),
                           steps=30)
    assert done.finding is None and not done.helped
    assert str(done).startswith("nothing to treat: nothing was found")


def test_a_finding_that_a_copy_does_not_show_is_not_claimed():
    names = step_of("CR101", "elsewhere")
    finding = cr.doctor.check(names["step"]).findings[0]
    done = cr.doctor.treat(names["model"], (names["x"], names["y"]), loss=nn.MSELoss(),
                           finding=finding, steps=20)
    assert not done.helped and "does not show it" in str(done)


def test_the_same_learning_rate_search_is_granted_to_the_untreated_copy():
    """With a rate that is far too small everything else would look like a cure, too."""
    cr.manual_seed(0)
    model = stack(12, nn.Sigmoid)
    done = cr.doctor.treat(model, classes(), loss=nn.CrossEntropyLoss(),
                           optimizer=sgd(model, 0.002), steps=60)
    assert done.finding.rule == "CR601" and done.helped
    assert done.control.end <= done.untreated.end
    assert done.best.end < 0.9 * done.control.end


def test_the_numbers_are_those_of_a_run_by_hand():
    names = step_of("CR402", "by_hand")
    x, y, model = names["x"], names["y"], names["model"]
    loss = nn.BCEWithLogitsLoss()
    done = cr.doctor.treat(model, (x, y), loss=loss, optimizer=names["optimizer"], steps=30)
    for course, layers in ((done.untreated, 4), (done.best, 3)):
        own = copy.deepcopy(model)[:layers]
        optimizer = sgd(own)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            value = loss(own(x), y)
            value.backward()
            losses.append(value.item())
            if len(losses) == 1:
                assert course.gradient == pytest.approx(float(own[0].weight.grad.norm()), rel=1e-5)
            optimizer.step()
        assert course.losses == pytest.approx(losses, rel=1e-6)


# ---------------------------------------------------------------- nothing of the user's changes


def everything(model, optimizer):
    found = [t.detach().numpy().copy() for t in (*model.parameters(), *model.buffers())]
    found += [v.numpy().copy() for kept in optimizer.state.values() for v in kept.values()]
    found += [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]
    found += [np.array([g["lr"] for g in optimizer.param_groups]), cr.get_rng_state().numpy()]
    return found


def test_treating_leaves_no_trace():
    cr.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.1), *layers, nn.Linear(8, 2))
    optimizer = cr.optim.Adam(model.parameters(), lr=1e-3)
    loss = nn.CrossEntropyLoss()
    x, y = classes()

    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    step()
    was, modules = everything(model, optimizer), list(model.modules())
    modes, kept = [m.training for m in modules], (x.numpy().copy(), y.numpy().copy())
    told = []

    def listener(event, facts):
        told.append(event)

    events.listen(listener)
    try:
        first = cr.doctor.treat(model, (x, y), loss=loss, optimizer=optimizer, steps=30)
        second = cr.doctor.treat(model, (x, y), loss=loss, optimizer=optimizer, steps=30)
        cr.doctor.treat(step, (), steps=20)
    finally:
        events.ignore(listener)
    assert not told and not list(events.listeners)
    assert str(first) == str(second)
    assert first.tried                                       # something was done at all
    now = everything(model, optimizer)
    assert len(was) == len(now)
    for a, b in zip(was, now, strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(model.modules()) == modules and [m.training for m in modules] == modes
    np.testing.assert_array_equal(kept[0], x.numpy())
    np.testing.assert_array_equal(kept[1], y.numpy())


def test_a_loss_that_holds_the_model_does_not_reach_the_user():
    cr.manual_seed(0)
    model = stack(8, nn.Sigmoid, 8)

    class Penalised(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, y, target):
            return nn.functional.cross_entropy(y, target) + 1e-4 * self.model[0].weight.pow(2).sum()

    cr.doctor.treat(model, classes(), loss=Penalised(model), optimizer=sgd(model), steps=20)
    weight = model[0].weight
    cr.doctor.treat(model, classes(), steps=20, loss=lambda y, t: nn.functional.cross_entropy(y, t)
                    + 1e-4 * weight.pow(2).sum(), optimizer=sgd(model))
    assert all(p.grad is None for p in model.parameters())


# ---------------------------------------------------------------- ways in


def test_a_report_of_check_proves_its_findings():
    cr.manual_seed(0)
    model = stack(12, nn.Sigmoid)
    x, y = classes()
    report = cr.doctor.check(model, x, y, loss=nn.CrossEntropyLoss())
    done = report.prove(optimizer=sgd(model, 0.1), steps=60)
    assert done.finding.rule == "CR601" and done.helped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with cr.doctor.watch(model) as seen:
            nn.functional.cross_entropy(model(x), y).backward()
    with pytest.raises(SettingError, match="is told"):
        seen.report.prove()


@pytest.mark.parametrize(("arguments", "match"), [
    ({}, "needs the loss"),
    ({"loss": nn.MSELoss(), "steps": 0}, "at least 1"),
])
def test_mistakes(arguments, match):
    with pytest.raises(SettingError, match=match):
        cr.doctor.treat(nn.Linear(2, 1), (cr.ones(4, 2), cr.ones(4, 1)), **arguments)


def test_every_cure_is_for_a_rule_that_exists():
    assert set(CURES) <= set(RULES) and all(CURES.values())


def test_why_not_learning_answers_with_the_cure_and_its_effect():
    cr.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (cr.nn.Linear(8, 8), cr.nn.Sigmoid())]
    model = cr.nn.Sequential(*layers, cr.nn.Linear(8, 1))
    x = cr.randn(32, 8)
    before = [p.detach().numpy().copy() for p in model.parameters()]
    answer = cr.doctor.why_not_learning(model, x, x[:, :1], loss=cr.nn.MSELoss())
    assert answer.finding.rule == "CR601" and answer.helped
    for old, p in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(old, p.detach().numpy())
        assert p.grad is None
