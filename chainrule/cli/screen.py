"""What is known about the terminal: width, colours, characters; and the live progress bar."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34",
         "magenta": "35", "cyan": "36"}
NARROWEST, WIDEST = 40, 100

# Used when the output's encoding has no such characters.
PLAIN = str.maketrans({"→": ">", "·": ".", "█": "#", "▌": "#", "─": "-", "│": "|", "┤": "|",
                       "└": "+", "×": "x", "²": "2", "…": "~", "−": "-", "µ": "u"})


@dataclass(frozen=True)
class Screen:
    """Where output goes and how it may look. `live` allows lines that are redrawn."""

    out: TextIO
    width: int
    colour: bool
    live: bool
    unicode: bool

    def style(self, text: str, *styles: str) -> str:
        """`text` in colours or bold, where the terminal shows them."""
        if not self.colour or not styles:
            return text
        return f"\x1b[{';'.join(CODES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Print one line, in ASCII where nothing else can be shown."""
        print(text if self.unicode else text.translate(PLAIN), file=self.out)

    def field(self, name: str, text: str) -> None:
        """Print 'name   text', wrapped at the terminal's width with the text kept in its column."""
        room = self.width - FIELD
        lines = wrap(text, room)
        self.line(self.style(f"{name:<{FIELD}}", "bold") + lines[0])
        for line in lines[1:]:
            self.line(" " * FIELD + line)


FIELD = 11  # width of the names at the left


def visible(text: str) -> int:
    """The width of a text on the screen: colours take no room."""
    return len(re.sub(r"\x1b\[[0-9;]*m", "", text))


def wrap(text: str, width: int) -> list[str]:
    """Cut a text at spaces. Parts between two line breaks are wrapped on their own."""
    lines = []
    for part in text.split("\n"):
        line = ""
        for word in part.split(" "):
            if line and visible(f"{line} {word}") > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines


def screen_for(out: TextIO) -> Screen:
    """Look at a stream once: is it a terminal, how wide, which characters?"""
    terminal = out.isatty() and os.environ.get("TERM") != "dumb"
    encoding = (getattr(out, "encoding", None) or "ascii").lower().replace("-", "")
    width = shutil.get_terminal_size((80, 24)).columns
    return Screen(
        out=out,
        width=max(NARROWEST, min(width, WIDEST)),
        colour=terminal and not os.environ.get("NO_COLOR"),
        live=terminal,
        unicode=encoding.startswith("utf"),
    )


def standard_screen() -> Screen:
    """The screen of standard output, which never fails on a character it cannot encode."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return screen_for(sys.stdout)


class Bar:
    """A progress bar that can be told how far it is and what to say beside it."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: int, text: str) -> None:
        """Show `done` steps and `text`."""
        self._progress.update(self._task, completed=done, text=text)


@contextmanager
def progress_bar(screen: Screen, done: int, total: int) -> Iterator[Bar]:
    """A live bar, beginning at `done` of `total`, that disappears at the end."""
    # Only here: rich takes longer to import than a small network to train.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(file=screen.out, width=screen.width, no_color=not screen.colour)
    columns = [BarColumn(bar_width=20 if screen.width >= 90 else 10),
               TextColumn("{task.fields[text]}", markup=False)]
    if screen.width >= 80:
        columns.append(TimeRemainingColumn(compact=True))
    # The terminal is left to the signals of the command itself: no redirection of its streams.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False,
                  redirect_stderr=False) as progress:
        yield Bar(progress, progress.add_task("", completed=done, total=total, text="starting"))
