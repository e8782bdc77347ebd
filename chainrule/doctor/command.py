"""`chainrule doctor FILE.py [arguments]`: runs a program under watch and says what was found."""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import sys
import textwrap
import traceback
import warnings
from pathlib import Path
from types import TracebackType

from chainrule.core.errors import ChainruleError, SettingError

from .plan import EVERY
from .report_html import html_of
from .report_sarif import sarif_of
from .rule import RULES
from .watching import DoctorWarning, Watch

SICK, FAILED = 1, 2

EPILOG = """\
examples:
  chainrule doctor train.py --epochs 3        runs train.py --epochs 3 and looks at its steps
  chainrule doctor --rule CR101               what a rule means, with a program and its cure
  chainrule doctor --rules                    all rules

exit code: 0 nothing wrong, 1 findings of error level, 2 the program failed or trains nothing
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule doctor`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("file", nargs="?", metavar="FILE.py", help="a training program of yours")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...",
                        help="its arguments")
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
    width = shutil.get_terminal_size((100, 24)).columns
    if args.rules:
        print("\n".join(f"{rule.id}  {rule.title}" for _, rule in sorted(RULES.items())))
        return 0
    if args.rule is not None:
        print(page(args.rule, min(width, 100)))
        return 0
    if args.file is None:
        raise SettingError("doctor: which program? chainrule doctor FILE.py [arguments]")
    path = Path(args.file)
    if not path.is_file():
        raise SettingError(f"doctor: there is no file {args.file}")
    unknown = [name for name in args.silence if name not in RULES]
    if unknown or args.every < 1:
        raise SettingError(f"--silence {unknown[0]}: there is no such rule; --rules lists them"
                           if unknown else f"--every {args.every}: must be at least 1")
    watching = Watch([], [], every=args.every, warn=False, silence=args.silence)
    failed = examine(path, args.arguments, watching)
    report = watching.report
    sys.stdout.flush()
    if args.json:
        Path(args.json).write_text(report.to_json() + "\n", encoding="utf-8")
    if args.html:
        Path(args.html).write_text(html_of(report), encoding="utf-8")
    if args.sarif:
        Path(args.sarif).write_text(sarif_of(report), encoding="utf-8")
    print(report.text(min(width, 100)))
    nothing = not report.findings and not report.run.losses
    return SICK if not report.ok else FAILED if failed or nothing else 0


def examine(path: Path, arguments: list[str], watching: Watch) -> bool:
    """Run a program as `python FILE.py arguments` would; True if it ended in an error."""
    sys.path.insert(0, str(path.resolve().parent))
    given, sys.argv = sys.argv, [str(path), *arguments]
    try:
        with watching, warnings.catch_warnings():
            warnings.simplefilter("ignore", DoctorWarning)
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        return end.code not in (None, 0)
    except KeyboardInterrupt:
        return False
    except Exception as error:  # noqa: BLE001  (whatever the program raises is shown, and counted)
        watching.run.error = error
        if isinstance(error, ChainruleError):
            print(f"{type(error).__name__}: {error}\n", file=sys.stderr)
        else:
            traceback.print_exception(type(error), error, after(error.__traceback__, path))
        return True
    finally:
        sys.path.pop(0)
        sys.argv = given
    return False


def after(trace: TracebackType | None, path: Path) -> TracebackType | None:
    """The traceback from the program's own frame on."""
    while trace is not None and os.path.abspath(
            trace.tb_frame.f_code.co_filename) != os.path.abspath(path):
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
