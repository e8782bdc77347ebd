"""Rules about gradients, signals and inputs: faults they understand, and what only looks alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest

import chainrule as cr
from chainrule import nn
from chainrule.doctor.finding import Finding

F = nn.functional


def found(rule: str, step: Callable[[int], None], steps: int = 14) -> list[Finding]:
    """What one rule says of so many steps."""
    with cr.doctor.watch(warn=False) as seen:
        for number in range(steps):
            step(number)
    return [f for f in seen.report.findings if f.rule == rule]


def network(*sizes: int, activation: Any = nn.Tanh) -> Any:
    cr.manual_seed(0)
    layers: list[Any] = []
    for inner, outer in pairwise(sizes):
        layers += [nn.Linear(inner, outer), activation()]
    return nn.Sequential(*layers[:-1])


def line_of(finding: Finding) -> str:
    """The text of the line that is named."""
    with open(finding.place.file, encoding="utf-8") as file:
        return file.read().split("\n")[finding.place.line - 1]


def trained(loss: Callable[[], Any], parameters: Iterable[Any], lr: float = 0.05,
            kind: Any = cr.optim.SGD) -> Callable[[int], None]:
    """One step on a loss."""
    optimizer = kind(list(parameters), lr=lr)

    def step(number: int) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


# ---------------------------------------------------------------- CR1xx


@pytest.mark.parametrize(("parts", "scale", "severity"), [
    (8, 1 / 8, "error"), (2, 1 / 2, "error"), (5, 1.0, "warning"), (2, 1.0, None)])
def test_clearing_inside_an_accumulation_loop(parts: int, scale: float,
                                              severity: str | None) -> None:
    model = network(4, 8, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.05)

    def step(number: int) -> None:
        for _ in range(parts):
            x = cr.randn(8, 4)
            optimizer.zero_grad()
            (F.mse_loss(model(x), x[:, :1]) * scale).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    said = found("CR102", step)
    assert [f.severity for f in said] == ([severity] if severity else [])
    if said:
        assert f"{parts - 1} of the {parts} backward passes" in said[0].what
        assert "optimizer.zero_grad()" in line_of(said[0])


def test_gradients_that_are_combined_by_hand_are_not_thrown_away() -> None:
    model = network(4, 8, 4)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.05)

    def step(number: int) -> None:
        x, kept = cr.randn(8, 4), []
        for task in range(4):
            optimizer.zero_grad()
            F.mse_loss(model(x)[:, task], x[:, task]).backward()
            kept.append([p.grad.clone() for p in model.parameters()])
        for parameter, gradients in zip(model.parameters(), zip(*kept, strict=True), strict=True):
            parameter.grad = sum(gradients)
        optimizer.step()

    assert not found("CR102", step)


def test_an_attack_on_the_input_is_no_accumulation() -> None:
    model = network(4, 8, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.05)

    def passed(x: Any) -> Any:
        optimizer.zero_grad()
        F.mse_loss(model(x), cr.zeros(8, 1)).backward()
        return x.grad

    def step(number: int) -> None:
        x = cr.randn(8, 4)
        for _ in range(4):
            x = x.detach().requires_grad_()
            x = x + 0.01 * passed(x).sign()
        passed(x.detach())
        optimizer.step()

    assert not found("CR102", step)


@pytest.mark.parametrize("total", [sum, lambda losses: cr.stack(losses).sum()])
def test_a_sum_of_means_over_parts_of_a_batch(total: Callable[[Any], Any]) -> None:
    model, x = network(4, 8, 1), cr.randn(32, 4)
    y = x[:, :1]

    def loss() -> Any:
        return total([F.mse_loss(model(x[k:k + 8]), y[k:k + 8]) for k in range(0, 32, 8)])

    [said] = found("CR103", trained(loss, model.parameters()))
    assert "sum of 4 losses" in said.what
    assert not found("CR103", trained(lambda: loss() / 4, model.parameters()))


def test_sums_that_may_well_be_meant() -> None:
    cell, head, many = nn.RNNCell(4, 8), nn.Linear(8, 1), [network(4, 8, 1) for _ in range(5)]
    heads = network(4, 8, 5)
    x = cr.randn(16, 6, 4)

    def through_time() -> Any:
        h, total = cr.zeros(16, 8), cr.zeros(())
        for t in range(6):
            h = cell(x[:, t], h)
            total = total + F.mse_loss(head(h), x[:, t, :1])
        return total

    def of_models() -> Any:
        return sum(F.mse_loss(model(x[:, 0]), x[:, 0, :1]) for model in many)

    def of_heads() -> Any:
        out = heads(x[:, 0])
        return sum(F.mse_loss(out[:, k], x[:, 1, 0]) for k in range(5))

    def of_times() -> Any:
        return sum(F.mse_loss(heads(x[:, t]), x[:, t, :1].expand(16, 5)) for t in range(6))

    parameters = [*cell.parameters(), *head.parameters(), *heads.parameters(),
                  *(p for model in many for p in model.parameters())]
    for loss in (through_time, of_models, of_heads, of_times):
        assert not found("CR103", trained(loss, parameters, 0.01)), loss.__name__


@pytest.mark.parametrize("clip", [nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_])
@pytest.mark.parametrize("where", ["before", "zeros", "after", "right"])
def test_clipping_that_never_sees_a_gradient(where: str, clip: Callable[..., Any]) -> None:
    model = network(4, 8, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.05)

    def step(number: int) -> None:
        x = cr.randn(8, 4)
        optimizer.zero_grad(set_to_none=where != "zeros")
        if where in ("before", "zeros"):
            clip(model.parameters(), 0.5)
        F.mse_loss(model(x), x[:, :1]).backward()
        if where == "right":
            clip(model.parameters(), 0.5)
        optimizer.step()
        if where == "after":
            clip(model.parameters(), 0.5)

    said = found("CR105", step)
    assert len(said) == (where != "right")
    if said:
        assert "never sees a gradient" in said[0].what
        assert ("there is none yet" in said[0].what) == (where != "after")
        assert "clip(model.parameters(), 0.5)" in line_of(said[0])


def test_clipping_one_model_while_another_one_waits() -> None:
    a, b = nn.Linear(4, 8), nn.Linear(8, 1)
    first = cr.optim.SGD(a.parameters(), lr=0.05)
    second = cr.optim.SGD(b.parameters(), lr=0.05)

    def step(number: int) -> None:
        x = cr.randn(8, 4)
        first.zero_grad()
        second.zero_grad()
        F.mse_loss(b(cr.tanh(a(x))), x[:, :1]).backward()
        nn.utils.clip_grad_norm_(a.parameters(), 1.0)
        first.step()
        nn.utils.clip_grad_norm_(b.parameters(), 1.0)
        second.step()

    assert not found("CR105", step, 20)


# ---------------------------------------------------------------- CR6xx


def recurrence(gain: float, turns: int = 50, clip: bool = False) -> Callable[[int], None]:
    cr.manual_seed(0)
    turn, given, answer = nn.Linear(12, 12, bias=False), nn.Linear(2, 12), nn.Linear(12, 1)
    nn.init.orthogonal_(turn.weight, gain)
    parameters = [*turn.parameters(), *given.parameters(), *answer.parameters()]
    optimizer = cr.optim.Adam(parameters, lr=1e-4)

    def step(number: int) -> None:
        x, h = cr.randn(8, turns, 2), cr.zeros(8, 12)
        for t in range(turns):
            h = F.leaky_relu(turn(h) + given(x[:, t]), 0.9)
        optimizer.zero_grad()
        F.mse_loss(answer(h), x[:, -1, :1]).backward()
        if clip:
            nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def test_explosion_through_time_by_little_at_each_turn() -> None:
    [said] = found("CR602", recurrence(1.25), 3)
    assert "at each of 50 turns" in said.what
    assert "leaky_relu" in line_of(said)
    assert not found("CR602", recurrence(1.25, clip=True), 3)
    assert not found("CR602", recurrence(1.05), 3)


def test_only_activations_that_follow_one_another_are_compared() -> None:
    """The loss of a code is tiny at each element, next to which all else looks exploded."""
    model = network(6, 16, 16, activation=nn.ReLU)
    heads = nn.Linear(16, 2), nn.Linear(16, 1)

    def loss() -> Any:
        x = cr.randn(16, 6)
        h = model(x)
        return (F.smooth_l1_loss(heads[0](h), x[:, :2]) + (heads[1](h) - x[:, :1]).abs().mean()
                + 1e-6 * h.abs().mean())

    assert not found("CR602", trained(
        loss, [*model.parameters(), *heads[0].parameters(), *heads[1].parameters()]))


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_gates_forget_by_themselves_at_the_beginning(kind: Any) -> None:
    cr.manual_seed(1)
    rnn, head = kind(2, 16, batch_first=True), nn.Linear(16, 1)

    def loss() -> Any:
        x = cr.rand(12, 40, 2)
        return F.mse_loss(head(rnn(x)[0][:, -1]), x[:, :, :1].mean(1))

    step = trained(loss, [*rnn.parameters(), *head.parameters()], 3e-3, cr.optim.Adam)
    assert not found("CR601", step, 4)


def test_only_squashing_functions_saturate() -> None:
    weight = nn.Parameter(cr.tensor([[0.5], [0.2], [0.1]]))

    def loss() -> Any:
        x = 300 * cr.rand(16, 3)
        return F.mse_loss((x @ weight).abs().sqrt(), x[:, :1].sqrt())

    assert not found("CR603", trained(loss, [weight], 1e-5))


@pytest.mark.parametrize(("bias", "closed"), [(-3.0, False), (-20.0, True)])
def test_gates_are_meant_to_be_shut_but_not_for_ever(bias: float, closed: bool) -> None:
    model, gate = network(4, 8, 1), nn.Linear(4, 8)
    gate.bias.data.fill_(bias)  # type: ignore[union-attr]

    def loss() -> Any:
        x = cr.randn(32, 4)
        g = cr.sigmoid(gate(x))
        return F.mse_loss(model[2](g * cr.tanh(model[0](x)) + (1 - g) * 0.1), x[:, :1])

    said = found("CR603", trained(loss, [*model.parameters(), *gate.parameters()]))
    assert bool(said) == closed


@pytest.mark.parametrize("solved", [True, False])
def test_an_answer_may_be_sure_where_it_is_right(solved: bool) -> None:
    model, scale = network(4, 1), 2.0 if solved else 1.0
    model[0].bias.data.zero_()
    numbers = iter(range(1000))

    def loss() -> Any:
        sign = cr.randint(0, 2, (64, 1)).float()
        x = cr.randn(64, 4) + 8 * (2 * sign - 1)
        if not solved:                     # the targets do not follow from the input
            sign = (cr.arange(64).reshape(64, 1) % 2).float()
        return F.mse_loss(cr.sigmoid(scale * min(next(numbers), 3) * model(x)), sign)

    said = found("CR603", trained(loss, model.parameters(), 0.5))
    assert bool(said) == (not solved)


@pytest.mark.parametrize("kaiming", [True, False])
def test_residual_blocks_that_double(kaiming: bool) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)
            if kaiming:
                for linear in (self.a, self.b):
                    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")

        def forward(self, x: Any) -> Any:
            return x + self.b(F.relu(self.a(x)))

    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), *[Block() for _ in range(12)], nn.Linear(32, 1))
    said = found("CR605", trained(lambda: model(cr.randn(16, 8)).pow(2).mean(),
                                  model.parameters(), 1e-6), 2)
    assert bool(said) == kaiming
    if said:
        assert "kaiming_normal_" in line_of(said[0])


def test_equal_filters() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2))
    nn.init.constant_(model[0].weight, 1 / 9)
    nn.init.zeros_(model[0].bias)
    nn.init.zeros_(model[3].weight)

    def loss() -> Any:
        return F.cross_entropy(model(cr.randn(8, 1, 6, 6)), cr.randint(0, 2, (8,)))

    said = found("CR606", trained(loss, model.parameters()))
    assert [f.subject for f in said] == ["0.weight"]
    assert "6 filters" in said[0].what
    nn.init.kaiming_uniform_(model[0].weight)
    assert not found("CR606", trained(loss, model.parameters()))


@pytest.mark.parametrize(("low", "said"), [(1e-7, True), (1e-5, False), (0.0, False)])
def test_learning_rates_of_groups(low: float, said: bool) -> None:
    model = network(6, 24, 24, 24, 3)
    optimizer = cr.optim.Adam([{"params": model[:4].parameters(), "lr": low},
                               {"params": model[4:].parameters()}], lr=1e-2)

    def step(number: int) -> None:
        x = cr.randn(32, 6)
        optimizer.zero_grad()
        F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()

    findings = found("CR607", step)
    assert bool(findings) == said
    if said:
        assert "1e-07 to 0.01" in findings[0].why
        assert "cr.optim.Adam" in line_of(findings[0])


def test_a_factor_that_starves_the_encoder() -> None:
    encoder, decoder = network(6, 24, 24), network(24, 24, 3)

    def starved(x: Any) -> Any:
        return 1e-3 * x + (1 - 1e-3) * x.detach()

    def loss(through: Callable[[Any], Any]) -> Any:
        x = cr.randn(32, 6)
        return F.cross_entropy(decoder(through(encoder(x))), x[:, :3].argmax(1))

    parameters = [*encoder.parameters(), *decoder.parameters()]
    [said] = found("CR607", trained(lambda: loss(starved), parameters))
    assert "1e-3 * x" in line_of(said)
    assert not found("CR607", trained(lambda: loss(lambda x: x), parameters))


def test_the_line_that_makes_all_rows_equal() -> None:
    cr.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.norm, self.up = nn.Linear(6, 1), nn.LayerNorm(1), nn.Linear(1, 6)

        def forward(self, x: Any) -> Any:
            z = self.norm(self.down(x))
            return self.up(z)

    class Mean(Net):
        def forward(self, x: Any) -> Any:
            z = self.down(x).mean(0, keepdim=True)
            return self.up(z.expand(len(x), 1))

    for kind, line in ((Net, "self.norm(self.down(x))"), (Mean, "z.expand(len(x), 1)")):
        model = kind()

        def loss(model: Any = model) -> Any:
            x = cr.randn(32, 6)
            return F.mse_loss(model(x), x)

        [said] = found("CR608", trained(loss, model.parameters()))
        assert line in line_of(said)


# ---------------------------------------------------------------- CR7xx


def test_pixels_that_are_nearly_always_zero_are_not_small() -> None:
    images, labels = cr.data.load_digits()
    x, y = cr.tensor(images.reshape(-1, 64) / 16).float(), cr.tensor(labels).long()
    model = network(64, 16, 10)

    def loss(scale: Any) -> Any:
        i = cr.randint(0, len(y), (64,))
        return F.cross_entropy(model(x[i] * scale), y[i])

    assert not found("CR703", trained(lambda: loss(1), model.parameters()))
    scale = cr.ones(64)
    scale[20:24] = 1000.0
    assert found("CR703", trained(lambda: loss(scale), model.parameters(), 1e-9))


def test_inputs_that_are_nothing_but_zeros() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    picture = cr.zeros(16, 1, 6, 6)
    y = cr.arange(16) % 2

    [said] = found("CR704", trained(lambda: F.cross_entropy(model(picture), y),
                                    model.parameters()))
    assert "nothing but zeros" in said.what
    picture[3, 0, 2, 2] = 1.0
    assert not found("CR704", trained(lambda: F.cross_entropy(model(picture), y),
                                      model.parameters()))


def test_a_first_state_of_zeros_is_no_input() -> None:
    cell, code, out = nn.GRUCell(4, 8), nn.Embedding(10, 8), nn.Linear(8, 4)
    target = cr.randn(16, 4)

    def loss() -> Any:
        h, y = code(cr.arange(16) % 10), cr.zeros(16, 4)
        for _ in range(3):
            h = cell(y, h)
            y = out(h)
        return F.mse_loss(y, target)

    assert not found("CR704", trained(loss, [*cell.parameters(), *code.parameters(),
                                             *out.parameters()]))
