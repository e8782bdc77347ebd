"""The doctor: each rule's own programs, the questions, and that it leaves no trace."""

import ast
import linecache
import re
import warnings
from contextlib import suppress

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core import events
from chainrule.core.errors import ChainruleError
from chainrule.doctor import RULES, plan, watching


def seen(text, name):
    """The report on a program, run as the file `<name>.py`."""
    file = f"{name}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The report also holds what stopped a program.
        with suppress(ChainruleError), cr.doctor.watch() as found, np.errstate(all="ignore"):
            exec(compile(text, file, "exec"), {"__name__": name})
    return found.report


@pytest.mark.parametrize("id", sorted(RULES))
def test_a_rule_recognises_its_example(id):
    rule = RULES[id]
    mine = [f for f in seen(rule.example, f"{id}_faulty").findings if f.rule == id]
    assert mine, "the faulty program was not recognised"
    for finding in mine:
        assert finding.what and finding.why and finding.cure
        if finding.place.file:
            assert finding.place.file == f"{id}_faulty.py"
            assert finding.place.source() in rule.example


@pytest.mark.parametrize("id", sorted(RULES))
def test_the_cured_program_has_no_errors(id):
    findings = seen(RULES[id].cured, f"{id}_cured").findings
    assert id not in [f.rule for f in findings]
    assert not [f for f in findings if f.severity == "error"]


def test_rules_have_pages_and_stable_ids():
    assert len(RULES) >= 35
    for id, rule in RULES.items():
        assert re.fullmatch(r"CR[1-9]\d\d", id)
        assert len(rule.page) > 50
        assert rule.example != rule.cured
    with pytest.raises(ValueError, match="no new id"):
        cr.doctor.rule.rule("CR101", "x", example="", cured="")(loop)


def loop(steps=3):
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
                          nn.Linear(8, 1))
    optimizer = cr.optim.Adam(model.parameters(), lr=0.01)
    x, y = cr.randn(16, 3), cr.randn(16, 1)

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step, x, y


def everything(model, optimizer):
    values = [t.detach().numpy().copy() for t in (*model.parameters(), *model.buffers())]
    state = [v.numpy().copy() for kept in optimizer.state.values() for v in kept.values()]
    return [*values, *state, cr.get_rng_state().numpy().copy()]


@pytest.mark.parametrize("before", [0, 2])
def test_check_leaves_no_trace(before):
    model, optimizer, step, x, y = loop()
    for _ in range(before):
        step(x, y)
    was, modes = everything(model, optimizer), [m.training for m in model.modules()]
    gradients = [None if p.grad is None else p.grad.numpy().copy() for p in model.parameters()]
    report = cr.doctor.check(step, x, y)
    assert report.ok
    for a, b in zip(was, everything(model, optimizer), strict=True):
        np.testing.assert_array_equal(a, b)
    assert modes == [m.training for m in model.modules()]
    for old, p in zip(gradients, model.parameters(), strict=True):
        assert (old is None) == (p.grad is None)
        if old is not None:
            np.testing.assert_array_equal(old, p.grad.numpy())
    losses = [step(x, y).item() for _ in range(3)]
    _, _, step, x, y = loop()                     # the same without a check
    for _ in range(before):
        step(x, y)
    assert losses == [step(x, y).item() for _ in range(3)]


def test_watching_changes_no_number():
    losses = []
    for watched in (False, True):
        model, optimizer, step, x, y = loop()
        if watched:
            with cr.doctor.watch(model, optimizer) as seen:
                losses.append([step(x, y).item() for _ in range(20)])
            assert seen.report.ok
        else:
            losses.append([step(x, y).item() for _ in range(20)])
    assert losses[0] == losses[1]
    assert not events.listeners


def test_after_an_error_inside_nothing_listens_any_more():
    model, optimizer, step, x, y = loop()

    def broken():
        with cr.doctor.watch(model, optimizer):
            step(x, y)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert not events.listeners


def test_an_error_is_told_at_once_and_once():
    model = nn.Linear(2, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.01)

    def never_cleared():
        with cr.doctor.watch(model):
            for _ in range(10):
                model(cr.ones(4, 2)).pow(2).mean().backward()
                optimizer.step()

    with pytest.warns(cr.doctor.DoctorWarning, match="CR101") as told:
        never_cleared()
    assert [str(w.message)[:5] for w in told].count("CR101") == 1


def test_a_silenced_rule_is_silent():
    model = nn.Linear(2, 1)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
    with cr.doctor.watch(model, optimizer, silence=["CR101"]) as found:
        for _ in range(5):
            model(cr.ones(4, 2)).pow(2).mean().backward()
            optimizer.step()
    assert not found.report.findings
    with pytest.raises(ValueError, match="no such rules"):
        cr.doctor.watch(silence=["CR999"])


def test_the_factors_of_blame_multiply_to_the_measured_total():
    cr.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.Sigmoid())])
    x = cr.randn(16, 8, requires_grad=True)
    loss = model(x).sum()
    blamed = cr.doctor.blame(loss)
    assert len(blamed.factors) >= 12
    assert np.prod([f.factor for f in blamed.factors]) == pytest.approx(blamed.total)
    loss.backward()
    assert blamed.end == pytest.approx(float(np.sqrt(np.mean(x.grad.numpy() ** 2))), rel=1e-5)


def test_blame_sees_both_ways_around_a_block():
    x = cr.ones(4, 3, requires_grad=True)
    y = x + cr.tanh(x * 0.5)
    names = [f.name for f in cr.doctor.blame((y * 2).sum()).factors]
    assert names == ["sum", "mul", "add"]        # what lies beside the path around is no station


def test_why_none_and_why_zero():
    w = cr.tensor([-1.0, -2.0], requires_grad=True)
    frozen = cr.ones(2)
    assert "frozen" in cr.doctor.why_none(frozen).text
    loss = cr.relu(w).sum()
    assert "slope is 0" in cr.doctor.why_zero(w, loss).text
    assert "has not been called" in cr.doctor.why_none(w, loss).text
    other = cr.ones(2, requires_grad=True)
    assert "took no part" in cr.doctor.why_none(other, loss).text
    cut = (w.detach() * other).sum()
    answer = cr.doctor.why_none(w, cut)
    assert "stopped" in answer.text and answer.places[-1].source().startswith("cut =")
    loss.backward()
    assert cr.doctor.why_none(w).text.startswith("it has a gradient")


def test_a_report_is_json():
    import json
    report = seen(RULES["CR501"].example, "json_program")
    data = json.loads(report.to_json())
    assert data["findings"][0]["rule"] == "CR501"
    assert data["findings"][0]["place"]["line"] > 0
    assert "CR501 error" in str(report)


def with_a_compiled_step(program):
    """The same program with the body of its last loop as a compiled function."""
    loop = next(n for n in reversed(ast.parse(program).body) if isinstance(n, ast.For))
    lines = program.split("\n")
    head, body = "\n".join(lines[:loop.lineno - 1]), "\n".join(lines[loop.lineno:loop.end_lineno])
    name, times = ast.unparse(loop.target), ast.unparse(loop.iter)
    return (f"{head}\n@cr.compile\ndef training_step({name}):\n{body}\n\n"
            f"for {name} in {times}:\n    training_step({name})\n")


@pytest.mark.parametrize("id", [id for id, rule in sorted(RULES.items())
                                if "cr.compile" not in rule.example])
def test_a_compiled_step_is_seen_as_the_eager_one(id, monkeypatch):
    # Machine code does 400 steps before it is time for the next close look; here it always is.
    monkeypatch.setattr(plan, "RARE", 1e9)
    monkeypatch.setattr(watching, "RARE", 1e9)
    program = RULES[id].example
    eager = seen(program, f"{id}_eager")
    compiled = seen(with_a_compiled_step(program), f"{id}_compiled")
    assert id in [f.rule for f in eager.findings]
    said = [sorted((f.rule, f.place.source()) for f in report.findings)
            for report in (eager, compiled)]
    assert said[0] == said[1]


def test_compiled_steps_run_compiled_while_they_are_watched():
    model, optimizer, step, x, y = loop()
    compiled = cr.compile(step)
    with cr.doctor.watch(model, optimizer) as seen:
        for _ in range(400):
            compiled(x, y)
    assert len(compiled.compiles) == 1
    assert seen.run.count >= 400
    assert len(seen.run.losses) < 350           # the others were machine code
    assert seen.report.ok
