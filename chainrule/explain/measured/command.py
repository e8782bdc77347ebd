"""`chainrule explain cost` and `chainrule explain depth`."""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.core.node import user_frame
from chainrule.explain.command import as_shown, faults_of, loss_in
from chainrule.nn import Module
from chainrule.tensor import Tensor

from .cost import THREADS, cost
from .depth import depth, factors_report
from .document import NARROWEST, WIDEST, Report, writable
from .layers import keeping_values, layer_factors
from .problem import Problem, problem_of, read_layers

STYLES = ("text", "terminal", "html", "json")


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for, print it and save it; returns the exit code."""
    place = args.model or args.file
    if args.model and args.file:
        raise SettingError(f"explain {args.what}: give one file, {args.file} or --model "
                           f"{args.model}")
    if args.save is not None:
        writable(args.save)
    if args.style not in (None, *STYLES):
        raise SettingError(f"explain {args.what}: --style is one of {', '.join(STYLES)}; "
                           f"{args.style} has formulas to write, and here are measurements")
    read_layers(args.layers)
    if args.what == "cost" and not any(name in os.environ for name in THREADS):
        if place is not None:
            parted(place, "cost")            # a name that cannot be is told here, in one line
        return alone(args)
    report = (measured_depth(place, args.quick) if args.what == "depth"
              else measured_cost(args, place))
    if args.save is not None:
        report.save(args.save)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") \
        and os.environ.get("TERM") != "dumb"
    unicode = encoding.lower().replace("-", "").startswith("utf")
    if args.style in ("json", "html"):
        print(report.json() if args.style == "json" else report.html().rstrip("\n"))
        return 0
    colour = colour or args.style == "terminal"
    print(as_shown(report.text(width_of(args), colour, unicode), encoding))
    if args.save is not None:
        print(f"\nsaved {args.save}")
    return 0


def width_of(args: argparse.Namespace) -> int:
    columns = args.width or shutil.get_terminal_size((100, 24)).columns
    return max(NARROWEST, min(columns, WIDEST))


def alone(args: argparse.Namespace) -> int:
    """The same command in a process of its own, with one thread for matrix products.

    Several threads on cores that other programs use as well wait for one another, and the medians
    would tell about those programs. Threads that the user has set stay as they are.
    """
    words = ["explain", args.what, *([args.file] if args.file else []),
             "--layers", args.layers, "--batch", str(args.batch), "--samples", str(args.samples),
             "--width", str(width_of(args)), *(["--style", args.style] if args.style else []),
             *(["--quick"] if args.quick else []),
             *(["--model", args.model] if args.model else []),
             *(["--save", args.save] if args.save else [])]
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"),
                   "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                   "PYTHONIOENCODING": f"{encoding}:replace"}
    environment.setdefault("CHAINRULE_NUM_THREADS", "1")
    terminal = sys.stdout.isatty()
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "chainrule", *words], env=environment,
                          stdout=None if terminal else subprocess.PIPE, check=False)
    if not terminal:
        print(done.stdout.decode(encoding).rstrip("\n"))
    return done.returncode


# ---------------------------------------------------------------- a file of the user


def measured_cost(args: argparse.Namespace, place: str | None) -> Report:
    """The cost of the built-in network, or of the loss in FILE.py:function."""
    if place is None:
        return cost(samples=args.samples, quick=args.quick, layers=args.layers,
                    examples=args.batch)
    path, function = parted(place, "cost")
    if not function:
        raise SettingError(f"explain cost measures the loss many times, so it needs a function "
                           f"that computes it: chainrule explain cost {place}:loss_of")
    with running(path):
        return cost(problem_in(path, place, function, "cost"), samples=args.samples,
                    quick=args.quick)


def measured_depth(place: str | None, quick: bool) -> Report:
    """Standard stacks, the network in FILE.py:function, or that of a program's first backward()."""
    if place is None:
        return depth(quick=quick)
    path, function = parted(place, "depth")
    with running(path):
        if function:
            return depth(problem_in(path, place, function, "depth"))
        return of_program(path, place)


def parted(place: str, what: str) -> tuple[Path, str]:
    """FILE.py and the function after the colon, '' if there is none."""
    name, _, function = place.rpartition(":") if ".py:" in place else (place, "", "")
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise SettingError(f"explain {what}: there is no file {name}" if path.suffix == ".py" else
                           f"explain {what}: {place!r} is not a Python file; write "
                           "FILE.py:function")
    return path, function


@contextmanager
def running(path: Path) -> Iterator[None]:
    """The file's folder is where it imports from, and its name is the only argument."""
    sys.path.insert(0, str(path.resolve().parent))
    arguments, sys.argv = sys.argv, [str(path)]
    try:
        yield
    finally:
        sys.path.pop(0)
        sys.argv = arguments


def problem_in(path: Path, name: str, function: str, what: str) -> Problem:
    """What FILE.py:function gives: a loss, or a network and its batch."""
    with faults_of(path, name):
        chosen = runpy.run_path(str(path), run_name=path.stem).get(function)
    if not callable(chosen):
        raise SettingError(f"explain {what}: {path} has no function {function!r}")
    if isinstance(chosen, Module):
        raise SettingError(f"explain {what}: {function} is a network, and measuring needs a batch "
                           f"too. Write a function that returns the loss, or ({function}, x, y)")
    with faults_of(path, name):
        given = chosen()
    if isinstance(given, tuple) and given and isinstance(given[0], Module):
        batch = given[1] if len(given) == 2 else tuple(given[1:])
        return problem_of(given[0], batch or None, None, what)
    return problem_of(chosen, None, None, what)


class _Done(BaseException):
    """Ends a training program at its first backward(); no program of the user catches it."""


def of_program(path: Path, name: str) -> Report:
    """The layers under the first loss that a program calls backward() on; else under `loss`."""
    found: list[Report] = []
    scope: dict[str, Any] = {}
    with keeping_values(), first_backward(found), faults_of(path, name), suppress(_Done):
        scope = runpy.run_path(str(path), run_name="__main__")
    if found:
        return found[0]
    loss = loss_in(scope, name)
    return factors_report(path.name, layer_factors(loss, None, scope))


@contextmanager
def first_backward(found: list[Report]) -> Iterator[None]:
    """Measure at the first backward() of a loss, before it runs, and end the program there."""
    backward: Callable[..., Any] = Tensor.backward

    def measured(self: Any, *args: Any, **options: Any) -> Any:
        if self.numel() != 1 or self._node is None:
            return backward(self, *args, **options)      # raises its own error where it must
        frame = user_frame(sys._getframe(1))
        scope = {**frame.f_globals, **frame.f_locals} if frame is not None else {}
        name = "the program" if frame is None else Path(frame.f_code.co_filename).name
        found.append(factors_report(name, layer_factors(self, None, scope)))
        raise _Done

    Tensor.backward = measured  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.backward = backward  # type: ignore[method-assign]
