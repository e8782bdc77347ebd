"""The doctor's reports as HTML and SARIF, the errors' pages, and the look back after a failure."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core.errors import ChainruleError
from chainrule.doctor import RULES
from chainrule.doctor.history import Run, Step
from chainrule.doctor.report_html import charts_of, html_of
from chainrule.doctor.report_sarif import sarif_of


def trained(steps=20, learning_rate=0.05, clears=True):
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = cr.optim.SGD(model.parameters(), lr=learning_rate)
    x, y = cr.randn(16, 3), cr.randn(16, 1)
    with cr.doctor.watch(model, optimizer, warn=False) as seen:
        for _ in range(steps):
            if clears:
                optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
    return seen.report


def test_the_charts_hold_what_was_measured():
    report = trained()
    loss, gradient, ratio, spread = charts_of(report.run)
    assert loss.curves[0].ys == tuple(report.run.losses) and len(loss.curves[0].ys) == 20
    assert [c.name for c in gradient.curves] == ["0.weight", "2.weight"]
    steps = [s for s in report.run.steps if s.sampled and s.parameters]
    assert gradient.curves[0].ys == tuple(s.parameters["0.weight"].gradient.norm for s in steps)
    # a step of plain gradient descent is the rate times the gradient
    for r, g, s in zip(ratio.curves[0].ys, gradient.curves[0].ys, steps, strict=True):
        assert r == pytest.approx(0.05 * g / s.parameters["0.weight"].weight.norm, rel=1e-3)
    assert len(spread.curves) == 1 and all(y > 0 for y in spread.curves[0].ys)


def test_a_page_is_one_file_and_tells_the_findings():
    report = trained(clears=False)
    page = html_of(report)
    assert "CR101" in page and report.findings[0].cure.split("(")[0] in page
    assert "<script" not in page and not re.search(r'(?:src|href)\s*=', page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert [drawing.count('class="title"') for drawing in drawings] == [1, 1, 1, 1]
    for drawing in drawings:
        ElementTree.fromstring(drawing)             # well formed
    assert ", first seen at step" in page and "20 steps seen" in page
    assert "nothing found" in html_of(trained())


def test_a_page_of_a_run_that_exploded_can_be_drawn():
    assert "<svg" in html_of(trained(learning_rate=1e6))
    assert "<html" in html_of(cr.doctor.Report([], trained(steps=1).run))


def lost(steps, at):
    """A run whose data are NaN from one step on."""
    cr.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
    x, y = cr.randn(16, 3), cr.randn(16, 1)
    with cr.doctor.watch(model, optimizer, warn=False) as seen:
        for step in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x * float("nan") if step == at else x), y).backward()
            optimizer.step()
    return seen.report


def test_a_chart_says_where_its_curve_breaks_off_and_whose_it_is():
    loss, gradient, *_ = charts_of(lost(8, 5).run)
    assert loss.x == "step" and loss.lines == ((5, "not a number from step 5 on"),)
    assert loss.log_y
    assert gradient.title == "gradient norm: weight"
    assert loss.title == "loss" and not charts_of(trained().run)[0].lines
    page = html_of(lost(4, 0))                      # no point that could be drawn
    assert "<p>loss: not a number from step 0 on</p>" in page
    assert "1 step seen" in html_of(trained(steps=1))


def test_the_step_and_the_silenced_rules_are_named():
    report = lost(8, 5)
    late = next(f for f in report.findings if f.step == 5)
    assert "\n  first seen at step 5\n" in cr.doctor.Report([late], report.run).text()
    assert "first seen" not in cr.doctor.Report([replace(late, step=0)], report.run).text()
    silenced = cr.doctor.Report([], report.run, silenced=["CR403", "CR101"])
    assert silenced.text().endswith("\n\nsilenced: CR101, CR403")
    assert json.loads(silenced.to_json())["silenced"] == ["CR101", "CR403"]


@pytest.mark.parametrize("clears", [True, False])
def test_a_run_that_an_error_stopped_is_never_called_clean(clears):
    def failing():
        with cr.doctor.watch(warn=False) as seen:
            model = nn.Linear(3, 1)
            optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
            x, y = cr.randn(16, 3), cr.randn(16, 1)
            for _ in range(4):
                if clears:
                    optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
            watched.append(seen)
            json.loads("<b>")                       # raises in a library

    watched = []
    with pytest.raises(ValueError):
        failing()
    report = watched[0].report
    line = failing.__code__.co_firstlineno + 11
    text, page = str(report), html_of(report)
    assert f"stopped by JSONDecodeError at test_doctor_report.py:{line}: Expecting value" in text
    assert 'json.loads("<b>")' in text and ("CR101" in text) is not clears
    assert f"stopped by JSONDecodeError at test_doctor_report.py:{line}" in page
    assert "nothing found" not in text + page
    told = json.loads(report.to_json())["error"]
    assert (told["type"], told["file"], told["line"]) == ("JSONDecodeError", __file__, line)
    (run,) = json.loads(sarif_of(report))["runs"]
    (invocation,) = run["invocations"]
    (notification,) = invocation["toolExecutionNotifications"]
    assert invocation["executionSuccessful"] is False and notification["level"] == "error"
    assert notification["locations"][0]["physicalLocation"]["region"]["startLine"] == line
    (healthy,) = json.loads(sarif_of(trained()))["runs"][0]["invocations"]
    assert healthy == {"executionSuccessful": True}


def test_sarif_has_what_the_schema_requires():
    report = trained(clears=False)
    log = json.loads(sarif_of(report))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    assert len(run["results"]) == len(report.findings) > 0
    for result, finding in zip(run["results"], report.findings, strict=True):
        assert result["message"]["text"].startswith(finding.what)
        assert ids[result["ruleIndex"]] == result["ruleId"] == finding.rule
        assert result["level"] in ("none", "note", "warning", "error")
        physical = result["locations"][0]["physicalLocation"]
        assert physical["region"]["startLine"] == finding.place.line >= 1
        uri = physical["artifactLocation"]["uri"]
        assert " " not in uri and uri.endswith("test_doctor_report.py")
    assert json.loads(sarif_of(trained()))["runs"][0]["results"] == []


def test_the_command_writes_both(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(RULES["CR404"].example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "chainrule", "doctor", "--html", "page.html", "--sarif",
         "log.sarif", "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=120)
    assert done.returncode == 1, done.stderr
    assert "CR404 error" in done.stdout and "IndexingError" in done.stderr
    (result,) = json.loads((tmp_path / "log.sarif").read_text("utf-8"))["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "program.py"
    line = file.read_text("utf-8").splitlines()[place["region"]["startLine"] - 1]
    assert "loss_fn(model(x), y)" in line
    assert "CR404" in (tmp_path / "page.html").read_text("utf-8")


# ---------------------------------------------------------------- errors and the look back


def fails(id, watched):
    """The error of a rule's faulty program, with or without a watch around it."""
    def run():
        exec(compile(RULES[id].example, f"{id}_fails.py", "exec"), {"__name__": "program"})

    def under_watch():
        with cr.doctor.watch(warn=False):
            run()

    with pytest.raises(ChainruleError) as caught:
        (under_watch if watched else run)()
    return caught.value


STOPPING = sorted(id for id, rule in RULES.items() if rule.stops)


@pytest.mark.parametrize("id", STOPPING)
def test_an_error_has_its_page_without_a_watch(id):
    finding = cr.doctor.autopsy(fails(id, watched=False)).findings[0]
    assert finding.rule == id and finding.place.file == f"{id}_fails.py"


@pytest.mark.parametrize(("id", "line"), [
    ("CR305", "hidden -= 1"),
    ("CR306", "features = model[0](x).tanh()"),
    ("CR308", "loss = loss_fn(model(x), y).detach()"),
    ("CR702", "loss = loss_fn(model(x[start:start + 21]), y[start:start + 21])"),
])
def test_the_line_is_that_of_the_cause(id, line):
    finding = cr.doctor.autopsy(fails(id, watched=False)).findings[0]
    assert RULES[id].example.splitlines()[finding.place.line - 1].strip() == line


def test_the_look_back_shows_the_last_watch():
    error = fails("CR702", watched=True)
    report = cr.doctor.autopsy(error)
    assert next(f.rule for f in report.findings) == "CR702"
    assert report.run.count >= 3 and len(report.run.losses) == 3
    assert not report.run.models and report.run.error is None      # numbers alone are kept
    assert cr.doctor.autopsy().findings == report.findings


def test_the_ring_buffer_is_bounded():
    trained(steps=3000)
    run = cr.doctor.autopsy().run
    assert len(run.steps) <= 50 and run.steps[-1].number >= 2999
    assert len(run.losses) == 3000                      # of the steps between there is the loss
    assert charts_of(run)[1].curves[0].xs[0] == 0       # charts begin at the first step


def test_very_many_steps_are_thinned_out_from_the_first_to_the_last():
    kept = Run()
    for number in range(3000):
        kept.keep(Step(number, True))
    assert 200 < len(kept.looked) <= 512
    assert kept.looked[0].number == 0 and kept.looked[-1].number == 2999


def test_a_check_does_not_become_the_last_watch():
    trained(clears=False)
    cr.doctor.check(nn.Linear(2, 1), cr.randn(4, 2), cr.randn(4, 1), loss=nn.MSELoss())
    assert next(f.rule for f in cr.doctor.autopsy().findings) == "CR101"


def test_an_error_of_another_kind_has_no_page():
    assert not [f for f in cr.doctor.autopsy(ValueError("x")).findings if RULES[f.rule].stops]


def test_a_frozen_model_is_told_from_a_cut_loss():
    def step(model, x):
        model(x).sum().backward()

    def blame(model):
        with pytest.raises(RuntimeError) as caught:
            step(model, cr.randn(4, 2))
        return cr.doctor.autopsy(caught.value).findings[0].rule

    assert blame(nn.Linear(2, 2).requires_grad_(False)) == "CR204"

    class Cut(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    assert blame(Cut(2, 2)) == "CR308"


@pytest.mark.parametrize(("rows", "found"), [(16, True), (4, False)])
def test_equal_rows(rows, found):
    model = nn.Linear(2, 1)
    x = cr.ones(rows, 2)
    rules = [f.rule for f in cr.doctor.check(
        model, x, cr.randn(rows, 1), loss=nn.MSELoss()).findings]
    assert ("CR704" in rules) is found


def test_a_recurrent_network_with_a_first_state_of_zeros_has_no_equal_rows():
    rnn, x = nn.RNN(3, 8), cr.randn(5, 16, 3)
    report = cr.doctor.check(lambda: rnn(x)[0].pow(2).mean().backward())
    assert "CR704" not in [f.rule for f in report.findings]


def test_groups_with_their_own_rates_may_stand_still():
    layers = [layer for _ in range(9) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    found = {}
    for rates in (0.05, 0.05), (0.001, 0.05):
        cr.manual_seed(0)
        model = nn.Sequential(*layers, nn.Linear(8, 1))
        optimizer = cr.optim.SGD([
            {"params": model[:4].parameters(), "lr": rates[0]},
            {"params": model[4:].parameters(), "lr": rates[1]}])
        x, y = cr.randn(16, 8), cr.randn(16, 1)
        with cr.doctor.watch(model, optimizer, warn=False) as seen:
            for _ in range(12):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
        found[rates] = "CR607" in [f.rule for f in seen.report.findings]
    assert found == {(0.05, 0.05): True, (0.001, 0.05): False}
