"""`chainrule practice`: exercises on backpropagation, one after the other, with a score."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from chainrule.core.errors import SettingError
from chainrule.explain.command import as_shown
from chainrule.explain.practice import KINDS, Exercise, exercise

from .screen import Screen, screen_for, wrap

# Beside the characters of explain's text, those of questions and marks.
PLAIN = str.maketrans({"→": "->", "½": "1/2", "∫": "integral ", "₀": "0", "⌊": "floor(", "⌋": ")",
                       "⌈": "ceil(", "⌉": ")", "′": "'", "ˣ": "^x", "π": "pi", "Φ": "Phi",
                       "⁻": "^-", "¹": "1", "–": "-"})
KEYS = "?  a hint      s  skip, with the solution      q  quit"

EPILOG = """\
Answers are numbers (0.5, 1/2, -3), several with spaces between them, letters, or a word.
?  gives a hint, three for each exercise; s  skips and shows the solution; q  quits.

examples:
  chainrule practice                     all kinds, one after the other
  chainrule practice paths --level 2     sums over paths
  chainrule practice --count 10 --seed 1 the same ten exercises each time
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule practice`."""
    wide = max(map(len, KINDS))
    listed = "\n".join(f"  {name:<{wide}}  {about}" for name, (_, about) in KINDS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"kinds:\n{listed}\n\n{EPILOG}"
    parser.add_argument("kind", nargs="?", default="", metavar="KIND",
                        help=f"{', '.join(KINDS)} (default: all of them in turn)")
    parser.add_argument("--level", type=int, default=1, metavar="N", help="1 to 3 (default 1)")
    parser.add_argument("--seed", type=int, metavar="N",
                        help="the same seed gives the same exercises (default: drawn)")
    parser.add_argument("--count", type=int, default=0, metavar="N",
                        help="stop after so many exercises (default: until q)")


@dataclass
class Score:
    """How a session of exercises went."""

    right: int = 0
    unaided: int = 0
    skipped: int = 0

    @property
    def done(self) -> int:
        return self.right + self.skipped

    def __str__(self) -> str:
        if not self.done:
            return "No exercise was finished."
        text = f"{self.right} of {self.done} right"
        if self.right:
            text += f", {self.unaided} of them at once and without a hint"
        return f"{text}."


def run(args: argparse.Namespace) -> int:
    """Exercises until `q`, the end of the input, or --count of them; returns the exit code."""
    if args.count < 0:
        raise SettingError(f"--count {args.count}: must be 0 or more")
    if args.seed is not None and args.seed < 0:
        raise SettingError(f"--seed {args.seed}: must be 0 or more")
    first = int(np.random.default_rng().integers(1_000_000)) if args.seed is None else args.seed
    kinds = [args.kind] if args.kind else list(KINDS)
    exercise(kinds[0], args.level, first)              # a wrong kind or level ends it here
    session = Session(screen_for(sys.stdout), sys.stdin)
    session.say(session.screen.style(KEYS, "dim"))
    number = 0
    while not args.count or number < args.count:
        one = exercise(kinds[number % len(kinds)], args.level, first + number)
        number += 1
        if not session.ask(one, number):
            break
    session.say("")
    session.say(session.screen.style(str(session.score), "bold"))
    return 0


class Session:
    """Questions go to a screen, answers come from a stream."""

    def __init__(self, screen: Screen, source: TextIO) -> None:
        self.screen = screen
        self.source = source
        self.score = Score()
        self.encoding = getattr(screen.out, "encoding", None) or "utf-8"

    def say(self, text: str, indent: str = "") -> None:
        """Lines in the width and the characters of the screen; formulas keep their indentation."""
        if not self.screen.unicode:
            text = as_shown(text.translate(PLAIN), self.encoding)
        for line in text.split("\n"):
            own = indent + line[:len(line) - len(line.lstrip())]
            parts = wrap(line.strip(), max(self.screen.width - len(own) - 2, 20)) if (
                len(indent + line) > self.screen.width) else [line.lstrip()]
            for k, part in enumerate(parts):
                self.screen.line(f"{own}{'  ' if k else ''}{part}".rstrip())

    def read(self) -> str | None:
        """One line of input; None at its end."""
        prompt = "> " if self.screen.unicode else as_shown("> ", self.encoding)
        self.screen.out.write(prompt)
        self.screen.out.flush()
        try:
            line = self.source.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            self.screen.out.write("\n")
            return None
        if not self.source.isatty():                  # piped: show what was answered
            self.screen.out.write(as_shown(line, self.encoding))
        return line.strip()

    def ask(self, one: Exercise, number: int) -> bool:
        """One exercise until it is answered or skipped; False if the user wants to stop."""
        again = f"{one.kind} --level {one.level} --seed {one.seed}"
        about = KINDS[one.kind][1]
        self.say("")
        self.say(self.screen.style(f"{number}. {about}", "bold")
                 + self.screen.style(f"   ({again})", "dim"))
        self.say("")
        self.say(one.question)
        hints, tries = 0, 0
        while True:
            self.say("")
            given = self.read()
            word = "q" if given is None else given.lower()
            if word in ("q", "quit", "exit"):
                return False
            if word in ("s", "skip"):
                self.score.skipped += 1
                self.say("")
                self.say(one.solution(max(60, min(self.screen.width, 120))))
                return True
            if word == "?":
                self.hint(one, hints)
                hints += 1
                continue
            if not word:
                self.say(KEYS)
                continue
            answer = one.check(given)
            self.say(self.screen.style(answer.text, "green" if answer.right else "yellow"))
            if answer.right:
                self.score.right += 1
                self.score.unaided += not hints and not tries
                return True
            tries += 1

    def hint(self, one: Exercise, number: int) -> None:
        if number < len(one.hints):
            self.say(f"hint {number + 1} of {len(one.hints)}:")
            self.say(one.hints[number], "    ")
        else:
            self.say("There are no more hints; s shows the solution.")

