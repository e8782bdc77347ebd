"""`chainrule explain`: worked examples, what a gradient costs, and the loss of a file of yours."""

from __future__ import annotations

import argparse
import inspect
import os
import runpy
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

from chainrule.core.errors import (
    ChainruleError,
    FreedGraphError,
    OverwrittenError,
    SettingError,
)
from chainrule.core.node import user_frame
from chainrule.optim import Optimizer
from chainrule.tensor import Tensor

from .cost import read_layers, report_alone
from .derive import Derivation, derive
from .examples import EXAMPLES, Page, tell
from .explanation import NARROWEST, WIDEST, Explanation
from .numbers import Style

ASCII = str.maketrans({
    "∂": "d", "·": "*", "−": "-", "²": "^2", "³": "^3", "ᵀ": "^T", "Σ": "sum ", "σ": "sigmoid",
    "⊙": "(*)", "√": "sqrt", "δ": "delta", "′": "'", "←": "<-", "÷": "/", "×": "x", "─": "-",
    "…": "...", "⋯": "...", "≥": ">=", "≤": "<=", "≠": "!=", "≈": "~", "∞": "inf", "µ": "u",
    "ŷ": "y^", "₁": "1", "₂": "2", "₃": "3",
})

EPILOG = """\
examples:
  chainrule explain e1                 one neuron, every number
  chainrule explain cost --quick       what a gradient costs on this machine
  chainrule explain train.py           your program up to its first optimizer.step()
  chainrule explain train.py:loss_of   what your function loss_of() returns
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule explain`."""
    listed = "\n".join(f"  {name}    {example.title}" for name, example in EXAMPLES.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"worked examples:\n{listed}\n\n{EPILOG}"
    parser.add_argument("what", metavar="WHAT",
                        help="e1 to e8, cost, FILE.py or FILE.py:function")
    parser.add_argument("--precision", type=int, default=4, metavar="DIGITS",
                        help="significant digits; 0 for all (default 4)")
    parser.add_argument("--elements", type=int, default=6, metavar="N",
                        help="arrays up to this size are written out (default 6)")
    parser.add_argument("--width", type=int, metavar="COLUMNS",
                        help="width of the text (default: the terminal's)")
    cost = parser.add_argument_group("options of cost")
    cost.add_argument("--layers", default="784-256-256-256-10", metavar="SIZES",
                      help="sizes of the layers (default 784-256-256-256-10)")
    cost.add_argument("--batch", type=int, default=64, metavar="N",
                      help="examples in a batch (default 64)")
    cost.add_argument("--samples", type=int, default=60, metavar="N",
                      help="weights differentiated by finite differences (default 60)")
    cost.add_argument("--quick", action="store_true", help="smaller samples, up to 10^6 parameters")


def run(args: argparse.Namespace) -> int:
    """Print what was asked for; returns the exit code."""
    for name in ("elements", "batch", "samples"):
        if getattr(args, name) < 1:
            raise SettingError(f"--{name} {getattr(args, name)}: must be at least 1")
    if args.precision < 0:
        raise SettingError(f"--precision {args.precision}: must be at least 1, or 0 for all digits")
    columns = args.width or shutil.get_terminal_size((100, 24)).columns
    width = max(NARROWEST, min(columns, WIDEST))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") \
        and os.environ.get("TERM") != "dumb"
    style = Style(args.precision or None, args.elements)
    if args.what.lower() in EXAMPLES:
        text = tell(args.what.lower(), Page(width, colour, style))
    elif args.what == "cost":
        read_layers(args.layers)
        text = report_alone(args.layers, args.batch, args.samples, args.quick, width, colour)
    else:
        text = explain_file(args.what, style).text(width, colour)
    print(as_shown(text, getattr(sys.stdout, "encoding", None) or "utf-8"))
    return 0


def as_shown(text: str, encoding: str) -> str:
    """The text in characters that the output knows: ∂L/∂w becomes dL/dw where it must."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return text


# ---------------------------------------------------------------- a file of the user


def explain_file(what: str, style: Style) -> Explanation:
    """The explanation of the loss in FILE.py, or of what FILE.py:function returns."""
    name, _, function = what.rpartition(":") if ".py:" in what else (what, "", "")
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        known = f"{', '.join(EXAMPLES)}, cost"
        if path.suffix == ".py":
            raise SettingError(f"explain: there is no file {name}")
        raise SettingError(f"explain: {what!r} is not known. Write one of {known}, or the name of "
                           "a Python file, FILE.py or FILE.py:function.")
    sys.path.insert(0, str(path.resolve().parent))
    arguments, sys.argv = sys.argv, [str(path)]
    try:
        if not function:
            return Explanation(of_program(path, name, style), style)
        with faults_of(path, name):
            scope = runpy.run_path(str(path), run_name=path.stem)
        loss, scope = called(scope, path, name, function)
    finally:
        sys.path.pop(0)
        sys.argv = arguments
    return Explanation(derive(loss, scope, style=style), style)


def of_program(path: Path, name: str, style: Style) -> Derivation:
    """The first loss that a training program calls backward() on; else its variable `loss`."""
    scope: dict[str, Any] = {}
    with first_loss(style) as seen, faults_of(path, name):
        try:
            scope = runpy.run_path(str(path), run_name="__main__")
        except _Stepped:
            return seen[0]
        except SystemExit:
            if not seen:
                raise
            return seen[0]
    try:
        return derive(loss_in(scope, name), scope, style=style)
    except (FreedGraphError, OverwrittenError, SettingError) as error:
        if seen:
            return seen[0]
        raise SettingError(f"{error}\n{advice(name)}") from error


def advice(name: str) -> str:
    return ("Give a function that returns the loss and needs no arguments: "
            f"chainrule explain {name}:loss_of")


class _Stepped(BaseException):
    """Ends a training program at its first step; no program of the user catches it."""


@contextmanager
def first_loss(style: Style) -> Iterator[list[Derivation]]:
    """Explain the loss of the first backward(), while its numbers are there; stop at a step."""
    seen: list[Derivation] = []
    backward, step = Tensor.backward, Optimizer.step

    def explained(self: Any, *args: Any, **options: Any) -> Any:
        if not seen and self.numel() == 1 and not args:
            frame = user_frame(sys._getframe(1))
            scope = {**frame.f_globals, **frame.f_locals} if frame is not None else {}
            try:
                seen.append(derive(self, scope, style=style))
            except ChainruleError:
                return backward(self, *args, **options)      # raises the same, at the user's line
        return backward(self, *args, **options)

    def stopped(self: Any, *args: Any, **options: Any) -> Any:
        if seen:
            raise _Stepped
        return step(self, *args, **options)

    replaced: tuple[tuple[Any, str, Callable[..., Any], Callable[..., Any]], ...] = (
        (Tensor, "backward", explained, backward), (Optimizer, "step", stopped, step))
    for owner, attribute, new, _ in replaced:
        setattr(owner, attribute, new)
    try:
        yield seen
    finally:
        for owner, attribute, _, old in replaced:
            setattr(owner, attribute, old)


@contextmanager
def faults_of(path: Path, name: str) -> Iterator[None]:
    """An error of the user's program, told with the program's own lines only."""
    try:
        yield
    except SystemExit as error:
        raise SettingError(f"{name} ended by sys.exit({error.code!r}) before there was a loss. "
                           f"{advice(name)}") from error
    except Exception as error:       # whatever a program of the user may raise
        raise SettingError(f"{name} failed:\n{own_traceback(error, path)}") from error


def own_traceback(error: BaseException, path: Path) -> str:
    """The lines of the file that led to the error, and the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if Path(frame.filename).resolve() == path.resolve()]
    told = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    return "".join(told).rstrip()


def loss_in(scope: dict[str, Any], name: str) -> Any:
    """The variable loss, or L, or the only tensor of one number that has a history."""
    for known in ("loss", "L"):
        if isinstance(scope.get(known), Tensor):
            return scope[known]
    single = {key: value for key, value in scope.items() if isinstance(value, Tensor)
              and value.numel() == 1 and value.grad_fn is not None}
    if len(single) == 1:
        return next(iter(single.values()))
    seen = f" It has these tensors of one number: {', '.join(single)}." if single else ""
    raise SettingError(f"explain: {name} has no variable `loss`.{seen} Name it so, or give a "
                       f"function that returns the loss: chainrule explain {name}:loss_of")


def called(
    scope: dict[str, Any], path: Path, name: str, function: str
) -> tuple[Any, dict[str, Any]]:
    """What a function of the file returns, and its variables beside those of the file."""
    chosen = scope.get(function)
    code = getattr(chosen, "__code__", None)
    if not isinstance(code, CodeType) or chosen is None:
        raise SettingError(f"explain: {name} has no function {function!r}")
    wanted = [p.name for p in inspect.signature(chosen).parameters.values()
              if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if wanted:
        raise SettingError(
            f"explain: {function}() takes {len(wanted)} argument{'s' if len(wanted) > 1 else ''} "
            f"({', '.join(map(repr, wanted))}); name a function that can be called without any")
    variables: dict[str, Any] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            variables.update(frame.f_locals)

    sys.setprofile(watch)
    try:
        with faults_of(path, name):
            loss = chosen()
    finally:
        sys.setprofile(None)
    if not isinstance(loss, Tensor):
        raise SettingError(f"explain: {name}:{function}() returned {type(loss).__name__}; it must "
                           "return the loss, a tensor of one number")
    return loss, {**variables, **{k: v for k, v in scope.items() if k not in variables}}
