"""Runs the programs and counts: found, missed, said in error, at the right line or not."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from chainrule.core.errors import ChainruleError
from chainrule.doctor.finding import Finding
from chainrule.doctor.rule import RULES
from chainrule.doctor.watching import Watch
from chainrule.random import manual_seed

from .programs import Program

# What is demanded: of error-level findings that they are none on healthy programs, of faults that
# they are found (overall, and of each rule), of findings that they name the right line.
PRECISION, RECALL, EACH, LINE = 1.0, 0.95, 0.8, 0.95
PARTS = ("", "first", "second", "third")
# What every program begins with.
BEGINNING = """
import numpy as np
import chainrule as cr
from chainrule import nn, optim
F = nn.functional
"""


@dataclass(frozen=True)
class Outcome:
    """One program under one seed, and what the doctor said of it, the gravest first."""

    program: Program
    seed: int
    findings: tuple[Finding, ...]

    @property
    def hits(self) -> list[Finding]:
        """The findings of the expected rule."""
        return [f for f in self.findings if f.rule == self.program.rule]

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.severity == "error"]

    @property
    def placed(self) -> bool | None:
        """Every hit names a marked line; None if there is no hit, or no line to be named."""
        if not self.hits or not self.program.lines:
            return None
        return all(f.place.file == self.program.file and f.place.line in self.program.lines
                   for f in self.hits)

    @property
    def column(self) -> str:
        """Of the confusion matrix."""
        return ("expected" if self.hits else "other error" if self.errors
                else "warning or info" if self.findings else "nothing")


COLUMNS = ("expected", "other error", "warning or info", "nothing")


def examine(program: Program, seed: int) -> Outcome:
    """Run a program under watch; its random numbers follow from the seed."""
    given = {"__name__": program.name, "rng": np.random.default_rng(seed)}
    exec(BEGINNING, given)
    manual_seed(seed)
    watching = Watch([], [], warn=False)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            with watching:
                exec(program.compiled(), given)  # type: ignore[arg-type]
        except ChainruleError as error:
            # Some faults end in an error of the engine, which is an answer but not a diagnosis.
            watching.run.error = error
    if watching.run.failure is not None:
        raise watching.run.failure
    return Outcome(program, seed, tuple(watching.report.findings))


@dataclass(frozen=True)
class Tally:
    """Outcomes, and the shares that follow from them."""

    outcomes: Sequence[Outcome]

    @property
    def faulty(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.program.rule]

    @property
    def healthy(self) -> list[Outcome]:
        return [o for o in self.outcomes if not o.program.rule]

    @property
    def precision(self) -> float:
        """The share of healthy runs without a finding of error level."""
        return share(not o.errors for o in self.healthy)

    @property
    def recall(self) -> float:
        return share(bool(o.hits) for o in self.faulty)

    @property
    def line(self) -> float:
        """The share of hits whose line is a marked one, where there is a line to be named."""
        return share(o.placed for o in self.faulty if o.placed is not None)

    @property
    def first(self) -> float:
        """The share of faulty runs in which the expected rule is the first thing said."""
        return share(bool(o.hits) and o.findings[0].rule == o.program.rule for o in self.faulty)

    def rules(self) -> dict[str, float]:
        """Recall of each rule that has programs."""
        return {id: share(bool(o.hits) for o in self.faulty if o.program.rule == id)
                for id in sorted({o.program.rule for o in self.faulty})}

    def only(self, chosen: Callable[[Outcome], bool]) -> Tally:
        return Tally([o for o in self.outcomes if chosen(o)])

    # ------------------------------------------------------------ as text

    def __str__(self) -> str:
        return f"{self.figures()}\n\n{self.matrix()}\n\n{self.table()}\n\n{self.failures()}"

    def figures(self) -> str:
        """Each bar, and what was measured: of all, and of the parts."""
        parts = [self, *(self.only(lambda o, part=part: o.program.part == part)  # type: ignore[misc]
                         for part in PARTS)]
        lowest = min(self.rules().items(), key=lambda item: item[1], default=("", 1.0))
        rows = [
            ("healthy runs without an error-level finding", percent(PRECISION),
             *(percent(part.precision) if part.healthy else "–" for part in parts)),
            ("faults found by the expected rule", percent(RECALL),
             *(percent(part.recall) for part in parts)),
            (f"the rule found least often ({lowest[0]})", percent(EACH),
             *(percent(min(part.rules().values(), default=1.0)) for part in parts)),
            ("the right line, where a fault has one", percent(LINE),
             *(percent(part.line) for part in parts)),
            ("the expected rule is named first", "–", *(percent(part.first) for part in parts)),
            ("programs, faulty + healthy", "",
             *(" + ".join(str(len({o.program.name for o in side}))
                          for side in (part.faulty, part.healthy)) for part in parts)),
        ]
        return grid(("measured", "demanded", "all", *(part or "early" for part in PARTS)), rows)

    def matrix(self) -> str:
        """The confusion matrix, in runs."""
        rows = []
        for name, part in (("faulty", self.faulty), ("healthy", self.healthy)):
            counts = Counter(o.column for o in part)
            rows.append((name, *(str(counts[column]) for column in COLUMNS), str(len(part))))
        return grid(("program", *COLUMNS, "runs"), rows)

    def table(self) -> str:
        """One row for each rule."""
        rows = []
        for id, found in self.rules().items():
            mine = self.only(lambda o, id=id: o.program.rule == id)  # type: ignore[misc]
            placed = [o.placed for o in mine.outcomes if o.placed is not None]
            alarms = len({o.program.name for o in self.healthy
                          if any(f.rule == id for f in o.findings)})
            rows.append((id, RULES[id].title, str(len({o.program.name for o in mine.outcomes})),
                         percent(found), percent(share(placed)) if placed else "–", str(alarms)))
        return grid(("rule", "", "programs", "found", "line", "healthy programs it speaks of"),
                    rows)

    def failures(self) -> str:
        """Misses, wrong lines and alarms by program; '' if there are none."""
        kinds: tuple[tuple[str, Callable[[Outcome], bool],
                           Callable[[Outcome], Sequence[Finding]]], ...] = (
            ("not found", lambda o: bool(o.program.rule) and not o.hits, lambda o: o.findings),
            ("wrong line", lambda o: o.placed is False, lambda o: o.hits),
            ("false alarm", lambda o: not o.program.rule and bool(o.errors), lambda o: o.errors),
            ("warning or info on a healthy program",
             lambda o: not o.program.rule and bool(o.findings) and not o.errors,
             lambda o: o.findings),
        )
        rows = []
        for kind, holds, what in kinds:
            runs: dict[str, list[Outcome]] = {}
            for o in filter(holds, self.outcomes):
                runs.setdefault(o.program.name, []).append(o)
            for name, outcomes in runs.items():
                said = sorted({f"{f.rule}:{f.place.line}" for o in outcomes for f in what(o)})
                rows.append((kind, name, outcomes[0].program.rule or "–", str(len(outcomes)),
                             ", ".join(said) or "nothing"))
        return grid(("", "program", "rule", "seeds", "said (rule:line)"), rows) if rows else ""


def measure(chosen: Iterable[Program], seeds: int) -> Tally:
    """Every program under every seed."""
    return Tally([examine(program, seed) for program in chosen for seed in range(seeds)])


def share(answers: Iterable[bool | None]) -> float:
    """How many of the answers are yes; 1 if there are none."""
    answers = list(answers)
    return sum(map(bool, answers)) / len(answers) if answers else 1.0


def percent(x: float) -> str:
    """Rounded down, so that 100 % means all.

    >>> percent(0.9999), percent(1.0)
    ('99.9 %', '100 %')
    """
    tenths = int(1000 * x + 1e-9)
    return f"{tenths // 10} %" if tenths % 10 == 0 else f"{tenths / 10} %"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
