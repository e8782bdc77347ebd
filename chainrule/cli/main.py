"""The command `chainrule`: its subcommands, its errors and its exit codes."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import chainrule as cr
from chainrule.core.errors import ChainruleError

from . import predict, train
from .screen import screen_for, wrap
from .settings import add_train_arguments

FAILED = 2  # what argparse uses for wrong options, and here for wrong data too
INTERRUPTED = 130

COMMANDS = ("train", "predict", "explain", "practice", "doctor")

EXAMPLES = """\
examples:
  chainrule train digits
  chainrule train flowers.csv --target species --layers 32
  chainrule predict digits.safetensors digits
"""


def make_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; `command` is the one that was asked for, if it is known."""
    parser = argparse.ArgumentParser(
        prog="chainrule",
        description="Train networks by backpropagation, use them, and see every number of it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"chainrule {cr.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train_parser = commands.add_parser(
        "train", help="train a network on a data set", usage="chainrule train DATA [options]",
        description="Train a network on a data set, show how it went, and save it.",
    )
    add_train_arguments(train_parser)
    train_parser.set_defaults(run=train.run, parser=train_parser)
    predict_parser = commands.add_parser(
        "predict", help="apply a saved network to new rows",
        usage="chainrule predict MODEL DATA [options]",
        description="Apply a saved network to new rows.",
    )
    predict.add_predict_arguments(predict_parser)
    predict_parser.set_defaults(run=predict.run, parser=predict_parser)
    explain_parser = commands.add_parser(
        "explain", help="show a worked example, every number of it",
        description="Show forward and backward pass of a worked example, every number of it.",
    )
    if command == "explain":
        # Only now: the other commands start faster without it.
        explain = importlib.import_module("chainrule.explain.command")
        explain.add_arguments(explain_parser)
        explain_parser.set_defaults(run=explain.run, parser=explain_parser)
    practice_parser = commands.add_parser(
        "practice", help="exercises on backpropagation, with hints and a score",
        usage="chainrule practice [KIND] [options]",
        description="Exercises on backpropagation, one after the other, with hints and a score.",
    )
    if command == "practice":
        practice = importlib.import_module("chainrule.cli.practice")
        practice.add_arguments(practice_parser)
        practice_parser.set_defaults(run=practice.run, parser=practice_parser)
    doctor_parser = commands.add_parser(
        "doctor", help="run a training program and say what keeps it from learning",
        usage="chainrule doctor [options] FILE.py [arguments]",
        description="Run a training program and say what keeps it from learning: line and cure.",
    )
    if command == "doctor":
        doctor = importlib.import_module("chainrule.doctor.command")
        doctor.add_arguments(doctor_parser)
        doctor_parser.set_defaults(run=doctor.run, parser=doctor_parser)
    return parser


def parsed(words: list[str]) -> argparse.Namespace:
    """The command line as options; a word that is not known gets the nearest known one."""
    command = words[0] if words else None
    parser = make_parser(command)
    if command and not command.startswith("-") and command not in COMMANDS:
        near = difflib.get_close_matches(command.lower(), COMMANDS, 1)
        parser.error(f"there is no command {command!r}."
                     + (f" Did you mean {near[0]}?" if near else "")
                     + f" Commands: {', '.join(COMMANDS)}")
    args, unknown = parser.parse_known_args(words)
    if unknown:
        own: argparse.ArgumentParser = args.parser
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        near = difflib.get_close_matches(options[0], own._option_string_actions, 1) \
            if options else []
        own.error(f"unknown: {' '.join(unknown)}." + (f" Did you mean {near[0]}?" if near else
                                                      f" {own.prog} --help lists the options."))
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        args = parsed(words)
        code = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        fail("stopped")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ChainruleError, OSError) as error:
        fail(str(error))
        return FAILED
    return int(code)


def fail(message: str) -> None:
    """One message on standard error."""
    screen = screen_for(sys.stderr)
    text = f"{screen.style('error', 'red', 'bold')}: {message}"
    for line in wrap(text, screen.width) if screen.live else [text]:
        screen.line(line)


if __name__ == "__main__":
    sys.exit(main())
