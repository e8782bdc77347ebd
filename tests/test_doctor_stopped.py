"""Errors that name their cause and its line, and what the doctor says to programs they stop."""

import linecache
import os
import subprocess
import sys
import warnings
from contextlib import suppress

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core.cuts import forget_cuts, recent_cuts
from chainrule.core.errors import ChainruleError, NoGradientError, SettingError, ShapeError

F = nn.functional

START = """
import numpy as np
import chainrule as cr
from chainrule import nn, optim
F = nn.functional
cr.manual_seed(0)
x, y = cr.randn(32, 3), cr.randn(32, 1)
model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
optimizer = optim.SGD(model.parameters(), lr=0.05)
"""


def seen(text, name, start=START):
    """(id, text of the line) of what the doctor finds; `# <-` marks stay in the lines."""
    text, file = start + text, f"{name}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            with suppress(ChainruleError), cr.doctor.watch() as found:
                exec(compile(text, file, "exec"), {"__name__": name})
    finally:
        cr.set_grad_enabled(True)
        forget_cuts()
    return [(f.rule, f.place.source()) for f in found.report.findings if f.severity == "error"]


def blamed(text, name, rule, start=START):
    """Is this rule said first, at a marked line?"""
    found = seen(text, name, start)
    assert found and found[0][0] == rule, found
    assert found[0][1].endswith("# <-"), found
    return found


# ---------------------------------------------------------------- a loss without a gradient


def test_what_the_library_cuts_for_itself_is_not_the_users():
    forget_cuts()
    norm, x = nn.BatchNorm1d(3), cr.randn(4, 3)
    optimizer = cr.optim.SGD(norm.parameters(), lr=0.1)
    norm(x).sum().backward()
    norm(x)
    optimizer.step()
    nn.init.ones_(norm.weight)
    F.gaussian_nll_loss(norm(x), x, norm(x).exp())
    nn.utils.parameters_to_vector(norm.parameters())
    assert recent_cuts() == []


def test_a_custom_function_cuts_nothing():
    class Double(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    forget_cuts()
    Double.apply(cr.ones(2, requires_grad=True))
    assert recent_cuts() == []


def test_a_cut_that_is_repeated_is_the_latest():
    forget_cuts()
    w = cr.ones(1, requires_grad=True)
    for item in (False, True, False):
        if item:
            w.item()
        else:
            w.detach()
    assert [cut.what for cut in recent_cuts()] == [".item()", "detach() or .data"]
    forget_cuts()


@cr.no_grad()      # the decorator
def evaluated(w):
    return (w * 2).sum()


@cr.set_grad_enabled(False)      # the decorator
def evaluated_too(w):
    return (w * 2).sum()


@cr.inference_mode()      # the decorator
def generated(w):
    yield (w * 2).sum()


@pytest.mark.parametrize("made", [evaluated, evaluated_too, lambda w: next(generated(w))])
def test_a_decorated_function_is_named_by_its_decorator(made):
    forget_cuts()
    loss = made(cr.ones(2, requires_grad=True))
    with pytest.raises(NoGradientError) as caught:
        loss.backward()
    assert caught.value.places[0].source().endswith("# the decorator")


def test_a_mode_that_decorates_can_still_be_entered():
    forget_cuts()
    mode = cr.no_grad()
    mode(evaluated)
    with mode:
        pass
    (cut,) = recent_cuts()
    assert cut.origin.source() == "with mode:"
    forget_cuts()


def test_decorating_alone_cuts_nothing():
    forget_cuts()

    @cr.set_grad_enabled(False)
    def never_called():
        pass

    assert recent_cuts() == []
    assert cr.is_grad_enabled()


def test_recording_left_off_is_said_first():
    blamed("""
def validate():
    model.eval()
    cr.set_grad_enabled(False)  # <-
    loss = F.mse_loss(model(x), y).item()
    model.train()
    return loss

for epoch in range(3):
    for _ in range(3):
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    validate()
    with cr.no_grad():
        model(x)
""", "left_off", "CR308")


def test_backward_inside_no_grad_names_the_block_that_is_open():
    w = cr.ones(3, requires_grad=True)
    with cr.no_grad():  # the open one
        with cr.no_grad():
            pass
        loss = (w * 2).sum()
        with pytest.raises(NoGradientError, match="Recording is off here") as caught:
            loss.backward()
    assert caught.value.places[0].source().endswith("# the open one")


def test_after_a_block_recording_is_not_called_off():
    w = cr.ones(3, requires_grad=True)
    with cr.set_grad_enabled(False):
        loss = (w * 2).sum()
    with pytest.raises(NoGradientError) as caught:
        loss.backward()
    assert "Recording is off" not in str(caught.value)
    assert "set_grad_enabled(False) at" in str(caught.value)


def test_what_is_logged_after_the_loss_is_not_blamed():
    blamed("""
labels = (x[:, 0] > 0).long()
model = nn.Linear(3, 2)
for step in range(3):
    scores = model(x)
    loss = F.cross_entropy(scores.detach(), labels)  # <-
    right = (scores.argmax(1) == labels).float().mean().item()
    loss.backward()
""", "logged", "CR308")


def test_what_is_logged_before_the_loss_may_be_the_cause():
    blamed("""
for step in range(3):
    scores = model(x)
    scores = scores.detach()  # <-
    loss = F.mse_loss(scores, y)
    loss.backward()
""", "cut_before", "CR308")


def test_a_loss_of_whole_numbers_names_the_step_that_made_them():
    blamed("""
labels = (x[:, 0] > 0).long()
model = nn.Linear(3, 2)
for step in range(3):
    guess = model(x).argmax(1)  # <-
    wrong = (guess != labels).sum()
    wrong.backward()
""", "whole", "CR308")


# ---------------------------------------------------------------- nothing can learn

FROZEN = """
with cr.no_grad():
    before = F.mse_loss(model(x), y).item()
model.requires_grad_(False)  # <-
"""
STEP = """
for step in range(6):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
"""


def test_a_frozen_model_is_frozen_whatever_was_cut_before():
    blamed(FROZEN + STEP, "frozen_whole", "CR204")


def test_a_model_in_a_trainer_is_seen():
    blamed("""
class Trainer:
    def __init__(self, net):
        self.net = net

    def fit(self):
        F.mse_loss(self.net(x), y).backward()

def run(net):
    Trainer(net).fit()

net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
for p in net.parameters():
    p.requires_grad = False  # <-
del model, optimizer
run(net)
""", "frozen_in_a_trainer", "CR204")


def test_the_error_itself_says_what_is_frozen():
    def fit(net, x):
        net(x).sum().backward()

    def others():
        fit(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).requires_grad_(False), cr.ones(1, 2))

    with pytest.raises(NoGradientError, match="all 4 parameters of `net` have requires_grad=False"):
        others()


def test_what_could_learn_is_not_called_frozen():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    head = nn.Linear(2, 1)
    with pytest.raises(NoGradientError) as caught:
        head(frozen(cr.ones(1, 2))).detach().sum().backward()
    assert caught.value.rule == "CR308"


def test_weights_made_by_hand_are_not_called_frozen():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    weights = [cr.ones(2, requires_grad=True)]
    with pytest.raises(NoGradientError) as caught:
        (frozen(cr.ones(1, 2)) * weights[0].detach()).sum().backward()
    assert caught.value.rule == "CR308"


INPUT = """
for step in range(6):
    image = x.clone().requires_grad_()
    optimizer.zero_grad()
    F.mse_loss(model(image), y).backward()
    optimizer.step()
"""


def test_steps_that_change_nothing():
    assert blamed(FROZEN + INPUT, "frozen_running", "CR204")


def test_an_input_that_is_optimised_learns():
    assert seen("""
model.requires_grad_(False)
model.eval()
image = x.clone().requires_grad_()
optimizer = optim.Adam([image], lr=0.1)
for step in range(6):
    optimizer.zero_grad()
    F.mse_loss(model(image), y).backward()
    optimizer.step()
""", "input_optimised") == []


def test_taking_turns_is_not_frozen():
    found = seen("""
other = nn.Linear(1, 1)
second = optim.SGD(other.parameters(), lr=0.05)
for step in range(8):
    first = step % 2 == 0
    model.requires_grad_(first)
    other.requires_grad_(not first)
    optimizer.zero_grad()
    second.zero_grad()
    F.mse_loss(other(model(x)), y).backward()
    (optimizer if first else second).step()
""", "turns")
    assert "CR204" not in [rule for rule, _ in found]


# ---------------------------------------------------------------- two passes, wrong shapes

TWO = """
heads = nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 1)])
body = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
optimizer = optim.SGD([*heads.parameters(), *body.parameters()], lr=0.05)
"""


def test_two_losses_with_a_pass_each():
    blamed(TWO + """
for step in range(3):
    code = body(x)
    one, two = F.mse_loss(heads[0](code), y), F.l1_loss(heads[1](code), y)
    optimizer.zero_grad()
    one.backward()  # <-
    two.backward()
    optimizer.step()
""", "two_losses", "CR306")


def test_a_state_that_is_carried_names_the_state():
    blamed("""
cell = nn.RNNCell(3, 4)
optimizer = optim.SGD(cell.parameters(), lr=0.05)
state = cr.zeros(32, 4)
for step in range(3):
    optimizer.zero_grad()
    for part in range(2):
        state = cell(x, state)  # <-
        state.pow(2).mean().backward()
    optimizer.step()
""", "carried", "CR306")


def test_a_state_carried_past_another_loss_names_the_state():
    blamed(TWO + """
state = cr.zeros(32, 8)
for step in range(3):
    optimizer.zero_grad()
    F.mse_loss(heads[0](body(x)), y).backward()
    state = cr.tanh(body(x) + state)  # <-
    F.l1_loss(heads[1](state), y).backward()
    optimizer.step()
""", "carried_past", "CR306")


OWN = """
from chainrule.function import once_differentiable

class Scale(cr.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    {decorator}
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        if g is None:
            return None, None
        return {gradients}  # <-

scale = cr.ones(3, requires_grad=True)
Scale.apply(x, scale).sum().backward()
"""


@pytest.mark.parametrize("decorator", ["", "@once_differentiable"])
@pytest.mark.parametrize("gradients", ["g * scale, g * x", "g * scale"])
def test_the_return_of_a_backward_is_named(gradients, decorator):
    text = OWN.format(gradients=gradients, decorator=decorator or "#")
    blamed(text, f"own_{len(text)}", "CR307")


def test_the_message_names_the_argument_and_both_lines():
    class Shift(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x, shift):
            return x + shift

        @staticmethod
        def backward(ctx, g):
            return g, g  # returned

    y = Shift.apply(cr.ones(4, 3, requires_grad=True), cr.ones(3, requires_grad=True))  # applied
    with pytest.raises(ShapeError) as caught:
        y.sum().backward()
    text = str(caught.value)
    assert "argument 1 (shift)" in text
    assert text.splitlines()[0].endswith(".sum(0)")
    assert [place.source().rpartition("# ")[2] for place in caught.value.places] == [
        "returned", "applied"]


# ---------------------------------------------------------------- targets

SIGNS = """
signs = cr.where(x[:, :1] > 0, 1.0, -1.0)
loss_fn = nn.BCEWithLogitsLoss({weight})
for step in range(6):
    optimizer.zero_grad()
    loss = loss_fn(model(x), {target})  # <-
    loss.backward()
    optimizer.step()
"""


@pytest.mark.parametrize("weight", ["", "pos_weight=cr.tensor(2.0)"])
def test_signs_as_targets_of_logits(weight):
    blamed(SIGNS.format(target="signs", weight=weight), f"signs_{len(weight)}", "CR404")


@pytest.mark.parametrize("target", [
    "(signs + 1) / 2", "(signs + 1) / 2 * 0.8 + 0.1", "0.95 + 0.25 * signs.abs() * cr.rand(32, 1)"])
def test_probabilities_and_noisy_labels_are_targets(target):
    found = seen(SIGNS.format(target=target, weight=""), f"targets_{len(target)}")
    assert "CR404" not in [rule for rule, _ in found]


def test_binary_cross_entropy_refuses_other_targets():
    p = cr.tensor([0.2, 0.7])
    for target in (cr.tensor([-1.0, 1.0]), cr.tensor([1.0, 2.0]), cr.tensor([0.0, float("nan")])):
        with pytest.raises(SettingError, match="targets between 0 and 1") as caught:
            F.binary_cross_entropy(p, target)
        assert caught.value.rule == "CR404"
    with pytest.raises(SettingError, match="probabilities between 0 and 1"):
        F.binary_cross_entropy(p + 1, cr.tensor([0.0, 1.0]))
    compiled = cr.compile(F.binary_cross_entropy)
    target = cr.tensor([0.0, 0.5])
    np.testing.assert_allclose(compiled(p, target).item(), F.binary_cross_entropy(p, target).item(),
                               rtol=1e-6)


LIKELIHOODS = {
    "poisson": F.poisson_nll_loss, "divergence": F.kl_div, "hinge": F.hinge_embedding_loss,
    "gauss": lambda x, t: F.gaussian_nll_loss(x, t, cr.ones(*x.shape)),
    "variance": lambda x, v: F.gaussian_nll_loss(x, x, v),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_column_against_a_row_is_refused(name):
    loss = LIKELIHOODS[name]
    with pytest.raises(ShapeError, match="every prediction with every") as caught:
        loss(cr.ones(4), cr.ones(4, 1))
    assert caught.value.rule == "CR403"
    loss(cr.ones(4, 1), cr.ones(4, 1))
    loss(cr.ones(4, 3), cr.ones(1, 3))        # one for all rows is meant
    loss(cr.ones(1), cr.ones(1, 1))


def test_variances_of_rows_and_columns():
    x = cr.ones(4, 3)
    for v in (cr.ones(4), cr.ones(4, 1), cr.ones(4, 3), 1.0):
        assert F.gaussian_nll_loss(x, x, v, reduction="none").shape == (4, 3)
    assert F.gaussian_nll_loss(x[:, :1], x[:, :1], cr.ones(4), reduction="none").shape == (4, 1)


def test_a_gaussian_likelihood_can_be_compiled():
    x, t, v = cr.randn(5, 2), cr.randn(5, 2), cr.rand(5, 2) + 0.1
    compiled = cr.compile(F.gaussian_nll_loss)
    np.testing.assert_allclose(compiled(x, t, v).item(), F.gaussian_nll_loss(x, t, v).item(),
                               rtol=1e-5)
    with pytest.raises(SettingError, match="variance is negative"):
        F.gaussian_nll_loss(x, t, -v)


# ---------------------------------------------------------------- at the edges


def test_a_class_that_belongs_to_no_module():
    given = {"nn": nn}
    exec("class Half(nn.Module):\n    def forward(self, x):\n        return x / 2\n", given)
    assert given["Half"]()(cr.ones(2)).tolist() == [0.5, 0.5]


def test_a_directory_in_the_switch_of_the_cache():
    done = subprocess.run([sys.executable, "-c", "import chainrule"], capture_output=True,
                          text=True, env={**os.environ, "CHAINRULE_CACHE": "/some/dir"},
                          check=False)
    assert "CHAINRULE_CACHE: cache = '/some/dir'" in done.stderr
    assert "CHAINRULE_CACHE_DIR" in done.stderr


def test_an_autopsy_without_a_watch():
    p = cr.tensor([0.2, 0.7])
    net = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(SettingError) as targets:
        F.binary_cross_entropy(p, cr.tensor([-1.0, 1.0]))
    with pytest.raises(NoGradientError) as frozen:
        net(p).sum().backward()
    for caught, rule in ((targets, "CR404"), (frozen, "CR204")):
        assert cr.doctor.autopsy(caught.value).findings[0].rule == rule
