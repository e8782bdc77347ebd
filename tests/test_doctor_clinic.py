"""The clinic: one seed of every program, and that its counting can tell right from wrong."""

import pytest

from chainrule.core import events
from chainrule.core.node import Origin
from chainrule.doctor import RULES
from chainrule.doctor.clinic import Program, Tally, examine, programs
from chainrule.doctor.clinic.measure import EACH, LINE, PARTS, RECALL, Outcome, grid, percent
from chainrule.doctor.clinic.programs import read
from chainrule.doctor.finding import Finding

HEALTHY = [p for p in programs() if not p.rule]
FAULTY = [p for p in programs() if p.rule]


@pytest.fixture(scope="module")
def tally():
    return Tally([examine(program, seed=0) for program in FAULTY])


@pytest.mark.parametrize("program", HEALTHY, ids=lambda p: p.name)
def test_no_error_is_found_in_a_healthy_program(program):
    outcome = examine(program, seed=0)
    assert not outcome.errors
    assert not events.listeners


def test_faults_are_found_by_their_rule_at_their_line(tally):
    assert tally.recall >= RECALL, tally.failures()
    assert tally.line >= LINE, tally.failures()
    seldom = {id: found for id, found in tally.rules().items() if found < EACH}
    assert not seldom, tally.failures()


def test_the_set_is_as_large_as_it_says():
    assert len(FAULTY) >= 60
    assert len(HEALTHY) >= 40
    names = [p.name for p in programs()]
    assert len(set(names)) == len(names)
    assert {p.rule for p in FAULTY} <= set(RULES)
    for part in PARTS:
        assert len([p for p in FAULTY if p.part == part]) >= 40
        assert len([p for p in HEALTHY if p.part == part]) >= 40
    assert not any(p.lines for p in HEALTHY)


def test_a_program_gives_the_same_findings_for_the_same_seed():
    program = next(p for p in FAULTY if p.name == "column_against_row")
    first, second = examine(program, seed=3), examine(program, seed=3)
    assert [f.key for f in first.findings] == [f.key for f in second.findings]
    assert first.findings[0].evidence == second.findings[0].evidence


# ---------------------------------------------------------------- the counting


def found(rule, line, severity="error"):
    return Finding(rule, severity, "", "", "", Origin("a.py", line, "", ""))


SICK = Program("a", "x = 1\nx = 2  # fault\n", "CR101", "")
WELL = Program("b", "x = 1\n", "", "third")


def test_hits_misses_lines_and_alarms_are_counted():
    tally = Tally([
        Outcome(SICK, 0, (found("CR101", 2),)),
        Outcome(SICK, 1, (found("CR102", 2), found("CR101", 1))),
        Outcome(SICK, 2, (found("CR102", 2),)),
        Outcome(SICK, 3, ()),
        Outcome(WELL, 0, (found("CR101", 1),)),
        Outcome(WELL, 1, (found("CR101", 1, "warning"),)),
    ])
    assert tally.recall == 0.5
    assert tally.line == 0.5
    assert tally.first == 0.25
    assert tally.precision == 0.5
    assert tally.rules() == {"CR101": 0.5}
    assert "| faulty | 2 | 1 | 0 | 1 | 4 |" in tally.matrix()
    assert "| healthy | 0 | 1 | 1 | 0 | 2 |" in tally.matrix()
    for line in ("| not found | a | CR101 | 2 | CR102:2 |",
                 "| wrong line | a | CR101 | 1 | CR101:1 |",
                 "| false alarm | b | – | 1 | CR101:1 |",
                 "| warning or info on a healthy program | b | – | 1 | CR101:1 |"):
        assert line in tally.failures()


def test_a_program_without_marks_has_no_line_to_be_missed():
    outcome = Outcome(Program("a", "x = 1\n", "CR101", ""), 0, (found("CR101", 7),))
    assert outcome.placed is None
    assert Tally([outcome]).line == 1.0


def test_all_is_said_of_all_alone():
    assert percent(0.9999) == "99.9 %"
    assert percent(1.0) == "100 %"
    assert grid(("a",), [("1",)]) == "| a |\n| --- |\n| 1 |"


@pytest.mark.parametrize("page", ["## no program here\n", "## Title CR1\n```python\nx\n```\n",
                                  "## a CR101\nno code\n"])
def test_a_page_that_is_none_is_refused(page):
    with pytest.raises(ValueError, match="a program needs a heading"):
        read(page)
