"""The programs of the clinic, read from Markdown.

A heading names the program, the rule that should find its fault (none: it is healthy), and to which
set it belongs. The `first`, `second` and `third` set were written by authors who knew the rules by
their titles only, and measured before a rule was changed for them. Lines marked `# fault` are those
that may be named; without a mark the fault has no line.
"""

from __future__ import annotations

import linecache
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

HEADING = re.compile(
    r"## (?P<name>\w+)(?: (?P<rule>CR\d{3}))?(?: (?P<part>first|second|third))?\s*")
MARK = "# fault"


@dataclass(frozen=True)
class Program:
    """name, text, the expected rule ('' where healthy), part ('first' to 'third', or '')."""

    name: str
    text: str
    rule: str
    part: str

    @property
    def file(self) -> str:
        """The name it runs under."""
        return f"{self.name}.py"

    @property
    def lines(self) -> frozenset[int]:
        """The numbers of the marked lines."""
        return frozenset(number for number, line in enumerate(self.text.split("\n"), 1)
                         if line.rstrip().endswith(MARK))

    def compiled(self) -> object:
        """The code; its lines are known to whoever asks for the source of a line."""
        linecache.cache[self.file] = (len(self.text), None, self.text.splitlines(True), self.file)
        return compile(self.text, self.file, "exec", dont_inherit=True)


@cache
def programs() -> tuple[Program, ...]:
    """All programs, those with a fault first, in the order of their rules."""
    found: list[Program] = []
    for page in sorted(files(__package__).joinpath("programs").iterdir(), key=lambda p: p.name):
        found += read(page.read_text(encoding="utf-8"))
    return tuple(sorted(found, key=lambda p: (not p.rule, p.rule)))


def read(page: str) -> list[Program]:
    """The programs of one page.

    >>> [one] = read("## a_name CR101 second\\n```python\\nx = 1\\ny = 2  # fault\\n```\\n")
    >>> one.name, one.rule, one.part, sorted(one.lines)
    ('a_name', 'CR101', 'second', [2])
    """
    found = []
    for part in re.split(r"(?m)^(?=## )", page)[1:]:
        heading, _, rest = part.partition("\n")
        said = HEADING.fullmatch(heading)
        code = re.search(r"(?ms)^```python\n(.*?)^```$", rest)
        if said is None or code is None:
            raise ValueError(f"{heading!r}: a program needs a heading '## name [CR101] [part]' "
                             "and a block of Python")
        found.append(Program(said["name"], code[1], said["rule"] or "", said["part"] or ""))
    return found
