"""`chainrule doctor FILE.py [arguments]`: runs a program under watch and says what was found."""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

from chainrule.core.errors import ChainruleError, SettingError

from .plan import EVERY
from .report import Report
from .report_html import html_of
from .report_sarif import sarif_of
from .rule import RULES
from .watching import DoctorWarning, Watch

SICK, FAILED = 1, 2
FOREIGN = ("torch", "jax", "tensorflow")     # what the doctor does not watch

# What a terminal without these characters gets instead.
PLAIN = {"−": "-", "–": "-", "×": "x", "·": "*", "∞": "inf", "→": "->", "…": "...", "≥": ">=",
         "≤": "<=", "≈": "about ", "′": "'", "’": "'", "σ": "sigma", "²": "^2", "‖": "|"}

EPILOG = """\
examples:
  chainrule doctor train.py --epochs 3        runs train.py --epochs 3 and looks at its steps
  chainrule doctor -m package.train --epochs 3    the same for a module, as python -m has it
  chainrule doctor --rule CR101               what a rule means, with a program and its cure
  chainrule doctor --rules                    all rules

exit code: 0 nothing wrong, 1 findings of error level, 2 the program failed or trains nothing
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule doctor`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.usage = ("chainrule doctor [options] FILE.py [arguments]\n"
                    "       chainrule doctor [options] -m MODULE [arguments]")
    parser.add_argument("file", nargs="?", metavar="FILE.py", help="a training program of yours")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...",
                        help="its arguments")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE ...",
                        help="run a module instead, with the arguments after it")
    parser.add_argument("--json", metavar="REPORT", help="also write the findings as JSON")
    parser.add_argument("--html", metavar="REPORT",
                        help="also write a page with the findings and charts of the run")
    parser.add_argument("--sarif", metavar="REPORT",
                        help="also write the findings as SARIF 2.1.0, for editors and code hosts")
    parser.add_argument("--every", type=int, default=EVERY, metavar="N",
                        help=f"look closely at one step in N after the first (default {EVERY})")
    parser.add_argument("--silence", action="append", default=[], metavar="ID",
                        help="do not apply this rule; may be given several times")
    parser.add_argument("--rules", action="store_true", help="list the rules")
    parser.add_argument("--rule", metavar="ID", help="explain one rule")


def run(args: argparse.Namespace) -> int:
    """Print what was asked for; returns the exit code."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    if args.rules:
        say("\n".join(f"{rule.id}  {rule.title}" for _, rule in sorted(RULES.items())))
        return 0
    if args.rule is not None:
        say(page(args.rule, width))
        return 0
    words = [args.file, *args.arguments] if args.module is None else args.module
    if not words or words[0] is None:
        raise SettingError("doctor: which program? chainrule doctor FILE.py [arguments], or "
                           "chainrule doctor -m MODULE [arguments]")
    if args.module is None and not Path(args.file).is_file():
        raise SettingError(f"doctor: there is no file {args.file}")
    silenced = [name.upper() for name in args.silence]
    unknown = [name for name in args.silence if name.upper() not in RULES]
    if unknown or args.every < 1:
        raise SettingError(f"--silence {unknown[0]}: there is no such rule; --rules lists them"
                           if unknown else f"--every {args.every}: must be at least 1")
    writers: tuple[tuple[str, str | None, Callable[[Report], str]], ...] = (
        ("--json", args.json, lambda report: report.to_json() + "\n"),
        ("--html", args.html, html_of), ("--sarif", args.sarif, sarif_of))
    outputs = [(writable(option, file), content) for option, file, content in writers
               if file is not None]
    watching = Watch([], [], every=args.every, warn=False, silence=silenced)
    report = examine(words, args.module is not None, watching)
    try:
        say(report.text(width))
    finally:                # also where the reader of the text has seen enough
        written = [write(report, path, content) for path, content in outputs]
    failed = report.exit_code or report.stopped is not None or not all(written)
    nothing = not report.findings and not report.run.losses
    return SICK if not report.ok else FAILED if failed or nothing else 0


def writable(option: str, file: str) -> Path:
    """The whole path of a file that can be written, asked before hours of training. It is the
    whole path, since the program may go to another folder.
    """
    path = Path(file).absolute()
    why = ("is a folder" if path.is_dir()
           else f"there is no folder {path.parent}" if not path.parent.is_dir()
           else "" if os.access(path if path.exists() else path.parent, os.W_OK)
           else "may not be written")
    if why:
        raise SettingError(f"{option} {file}: {why}")
    return path


def write(report: Report, path: Path, content: Callable[[Report], str]) -> bool:
    """Write one file; what goes wrong is told, and the other files are written all the same."""
    try:
        path.write_text(content(report), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        print(f"{path} could not be written: {error}", file=sys.stderr)
        return False
    return True


def say(text: str, stream: TextIO | None = None) -> None:
    """Print, with plain characters in place of those that the stream cannot show."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(shown(character, encoding) for character in text)
    print(text, file=stream)


def shown(character: str, encoding: str) -> str:
    """
    >>> shown("−", "cp1252"), shown("×", "cp1252"), shown("×", "ascii"), shown("é", "ascii")
    ('-', '×', 'x', '\\\\xe9')
    """
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return PLAIN.get(character, character.encode("ascii", "backslashreplace").decode())
    return character


def examine(words: list[str], module: bool, watching: Watch) -> Report:
    """Run a program as `python FILE.py arguments` or `python -m MODULE arguments` would."""
    program, *arguments = words
    argv, path, output, folder = sys.argv, list(sys.path), sys.stdout, os.getcwd()
    loaded = set(sys.modules)
    sys.path.insert(0, folder if module else str(Path(program).resolve().parent))
    sys.argv = [program, *arguments]
    code: object = None
    try:
        with watching, warnings.catch_warnings():
            warnings.simplefilter("ignore", DoctorWarning)
            if module:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
            else:
                # As Python itself does: __file__ holds where it is, wherever the program goes.
                runpy.run_path(os.path.abspath(program), run_name="__main__")
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        pass
    except Exception as error:  # noqa: BLE001  (whatever the program raises is shown, and counted)
        if module and isinstance(error, ImportError) and after(error.__traceback__) is None:
            raise SettingError(f"doctor: -m {program}: {error}") from None   # it never began
        watching.run.error = error
        if isinstance(error, ChainruleError):
            print(f"{type(error).__name__}: {error}\n", file=sys.stderr)
        else:
            traceback.print_exception(type(error), error, after(error.__traceback__))
    finally:
        # A program may leave another folder or another stream behind, and the report must not
        # land there; lines of the program are read by a path that may be relative.
        sys.argv, sys.path[:] = argv, path
        with suppress(AttributeError, ValueError):       # closed, or no real stream
            sys.stdout.flush()
        sys.stdout = sys.stderr if output.closed else output
        if os.path.isdir(folder):
            os.chdir(folder)
    report = watching.report
    report.program = shlex.join(["-m", *words] if module else words)
    report.silenced = sorted(watching.silenced)
    report.foreign = imported(loaded, watching.run.error)
    if isinstance(code, int):
        report.exit_code = int(code)
    elif code is not None:                   # as Python does: a message, and exit code 1
        say(str(code), sys.stderr)
        report.exit_code, report.exit_message = 1, str(code)
    return report


def imported(loaded: set[str], error: Exception | None) -> str:
    """The library that the program has imported, or tried to, in place of this one."""
    wanted = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    return next((name for name in FOREIGN if name == wanted
                 or (name in sys.modules and name not in loaded)), "")


def after(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the program's own frame on."""
    while trace is not None and (trace.tb_frame.f_code.co_filename == __file__
                                 or trace.tb_frame.f_code.co_filename.startswith("<frozen")):
        trace = trace.tb_next
    return trace


def page(id: str, width: int) -> str:
    """What a rule means: its description, the faulty program, the cured one."""
    rule = RULES.get(id.upper())
    if rule is None:
        raise SettingError(f"--rule {id}: there is no such rule; --rules lists them")
    paragraphs = [textwrap.fill(part, width) for part in rule.page.split("\n\n")]
    indented = [textwrap.indent(program, "    ") for program in (rule.example, rule.cured)]
    return "\n\n".join([f"{rule.id}  {rule.title}", *paragraphs, "for example", indented[0],
                        "cured", indented[1], f"to silence it: cr.doctor.silence(\"{rule.id}\")"])
