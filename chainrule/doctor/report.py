"""What was found, as text and as data."""

from __future__ import annotations

import json
import os
import sysconfig
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainrule.core.errors import SettingError
from chainrule.core.node import Origin

from .finding import Finding
from .rules.stopped import frames, raised_at

if TYPE_CHECKING:
    from .history import Run

INSTALLED = tuple({os.path.join(sysconfig.get_paths()[name], "")
                   for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass(frozen=True)
class Stop:
    """The error that stopped a program, as words: the exception itself would keep frames alive."""

    type: str
    message: str
    place: Origin

    @staticmethod
    def by(error: BaseException) -> Stop:
        """The words of an error, and the user's line that it came out of."""
        message = str(error)
        if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
            # It names its line itself, and no frame of that file has ever run.
            place = Origin(error.filename, error.lineno or 0, "", "")
            message = error.msg
        else:
            place = raised_at(error)
            # Rather the line that called a library than the line of the library that gave up.
            for trace in reversed(frames(error)):
                code = trace.tb_frame.f_code
                if not code.co_filename.startswith(INSTALLED):
                    place = Origin(code.co_filename, trace.tb_lineno, code.co_name, "")
                    break
        return Stop(type(error).__name__, message, place)

    @property
    def first_line(self) -> str:
        return self.message.strip().partition("\n")[0]

    def sentence(self, message: bool = True) -> str:
        """One sentence without the user's line; the `message` may have been said before."""
        where = (f" at {os.path.basename(self.place.file)}:{self.place.line}"
                 if self.place.file else "")
        said = f": {self.first_line}" if message and self.first_line else ""
        return f"stopped by {self.type}{where}{said}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `file` and `line` are null where no line of the user's is known."""
        known = bool(self.place.file)
        return {"type": self.type, "message": self.message,
                "file": self.place.file if known else None,
                "line": self.place.line if known else None}


class Report:
    """Findings, the gravest first. `ok`: none of error level. `str()` is the text.

    `silenced` are the rules that were not applied; `stopped` is the error that ended the program,
    if there was one. What only the command knows is '' or 0 elsewhere: the `program` with its
    arguments, its `exit_code` with the `exit_message`, and `foreign`, another library that it
    imported in place of this one.
    """

    def __init__(self, findings: Sequence[Finding], run: Run, *, silenced: Iterable[str] = (),
                 stopped: Stop | None = None) -> None:
        self.findings = list(findings)
        self.run = run
        self.silenced = sorted(silenced)
        self._stopped = stopped
        self.program = ""
        self.exit_code = 0
        self.exit_message = ""
        self.foreign = ""

    @property
    def ok(self) -> bool:
        return not any(f.severity == "error" for f in self.findings)

    @property
    def stopped(self) -> Stop | None:
        """The error that stopped the program."""
        if self._stopped is None and self.run.error is not None:
            self._stopped = Stop.by(self.run.error)
        return self._stopped

    @property
    def explained(self) -> bool:
        """Does a finding say what the error says?"""
        return self.stopped is not None and self.stopped.first_line in [
            f.what for f in self.findings]

    @property
    def idle(self) -> bool:
        """Was there nothing to look at?"""
        return not (self.findings or self.steps or self.run.losses or self.run.failure)

    @property
    def steps(self) -> int:
        """How many steps were seen, without one that had only been opened."""
        return self.run.count - (not self.run.latest.events if self.run.steps else 0)

    def text(self, width: int = 100) -> str:
        """One block for each finding: what, where, why, and what to write instead. Then what
        stopped the program, how many steps were seen, and which rules were silenced.
        """
        blocks = []
        for f in self.findings:
            lines = textwrap.wrap(f"{f.rule} {f.severity}: {f.what}", width)
            lines += _line(f.place)
            lines += [f"  {first_seen(f)}"] if first_seen(f) else []
            lines += textwrap.wrap(f.why, width, initial_indent="  ", subsequent_indent="  ")
            lines += ["  cure:", *[f"      {line}" for line in f.cure.split("\n")]]
            blocks.append("\n".join(lines))
        if self.stopped is not None:
            blocks.append("\n".join([
                *textwrap.wrap(self.stopped.sentence(not self.explained), width),
                *_line(self.stopped.place)]))
        blocks += ["\n".join(textwrap.wrap(sentence, width)) for sentence in self.closing()]
        return "\n\n".join(blocks)

    def closing(self) -> list[str]:
        """The sentences at the end."""
        seen = f"{counted(self.steps, 'step')} seen{self._failed()}"
        if self.idle:
            seen = "backward() was not called while the doctor watched"
        if not self.findings and self.stopped is None:
            seen = f"nothing to look at: {seen}" if self.idle else f"nothing found: {seen}"
        if self.exit_code:
            said = f": {self.exit_message}" if self.exit_message else ""
            seen += f"; the program ended with exit code {self.exit_code}{said}"
        sentences = [seen]
        if self.idle and self.foreign:
            sentences.append(f"The program imports {self.foreign}, and the doctor watches "
                             'chainrule programs: write "import chainrule as cr" in place of '
                             f'"import {self.foreign}".')
        if self.silenced:
            sentences.append(f"silenced: {', '.join(self.silenced)}")
        return sentences

    def _failed(self) -> str:
        """What to say if the doctor itself has failed."""
        fault = self.run.failure
        return "" if fault is None else (
            f"; then the doctor itself failed and stopped watching, please report this: {fault!r}")

    def prove(self, finding: Finding | None = None, **options: Any) -> Any:
        """Tries the cure for the gravest finding on a copy: `cr.doctor.treat` on what `check` was
        given; takes its `optimizer=`, `steps=` and `seed=`.
        """
        if self.run.treat is None:
            raise SettingError("prove(): only a report of cr.doctor.check(model, x, y, loss=...) "
                               "or check(step, ...) knows how to do a step; "
                               "cr.doctor.treat(model, (x, y), loss=..., optimizer=...) is told")
        return self.run.treat(finding=finding, **options)

    def to_json(self) -> str:
        stopped = self.stopped
        return json.dumps({"findings": [f.to_dict() for f in self.findings],
                           "steps": self.steps,
                           "error": None if stopped is None else stopped.to_dict(),
                           "program": self.program, "exit_code": self.exit_code,
                           "exit_message": self.exit_message, "silenced": self.silenced},
                          indent=1, default=_plain)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def first_seen(f: Finding) -> str:
    """Nothing for the first step. Steps are counted from 0, as in `for step in range(...)`."""
    return f"first seen at step {f.step}" if f.step else ""


def counted(number: int, what: str) -> str:
    """
    >>> counted(1, "step"), counted(2, "step")
    ('1 step', '2 steps')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def _line(place: Origin) -> list[str]:
    """The user's line with its place, if it is known."""
    if not place.file:
        return []
    return [f"  {os.path.basename(place.file)}:{place.line}  {place.source()}".rstrip()]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
