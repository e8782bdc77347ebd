"""`chainrule explain`: worked examples, what a gradient costs, and the loss of a file of yours."""

from __future__ import annotations

import argparse
import importlib
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
    UnusedError,
)
from chainrule.core.node import user_frame
from chainrule.optim import Optimizer
from chainrule.tensor import Tensor

from .derive import Derivation, derive
from .examples import EXAMPLES, Page, derived, tell
from .examples import run as run_example
from .explanation import DETAILS, NARROWEST, WIDEST, Explanation
from .numbers import Style
from .pictures import SCREENS
from .styles import STYLES

ASCII = str.maketrans({
    "∂": "d", "·": "*", "−": "-", "²": "^2", "³": "^3", "ᵀ": "^T", "Σ": "sum ", "σ": "sigmoid",
    "⊙": "(*)", "√": "sqrt", "δ": "delta", "′": "'", "←": "<-", "÷": "/", "×": "x", "─": "-",
    "…": "...", "⋯": "...", "≥": ">=", "≤": "<=", "≠": "!=", "≈": "~", "∞": "inf", "µ": "u",
    "‖": "|", "∛": "cbrt", "│": "|", "┤": "|", "└": "+", "┊": "|", "–": "-",
    "±": "+-", "π": "pi",
    "ŷ": "y^", "₁": "1", "₂": "2", "₃": "3",
})

MEASURED = ("cost", "depth")

EPILOG = """\
examples:
  chainrule explain e1                 one neuron, every number
  chainrule explain cost --quick       what a gradient costs on this machine
  chainrule explain depth train.py     the gradient's size from layer to layer
  chainrule explain train.py           your program up to its first optimizer.step()
  chainrule explain train.py:loss_of   what your function loss_of() returns
  chainrule explain train.py --save why.html       a page with steps that open and close
  chainrule explain e2 --style numpy               the backward pass by hand in NumPy
  chainrule explain train.py --picture graph.svg   the graph as a picture
  chainrule explain train.py --zoom model.0.weight[3,5]   why one weight has its gradient
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chainrule explain`."""
    listed = "\n".join(f"  {name}    {example.title}" for name, example in EXAMPLES.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"worked examples:\n{listed}\n\n{EPILOG}"
    parser.add_argument("what", metavar="WHAT",
                        help="e1 to e8, cost, depth, FILE.py or FILE.py:function")
    parser.add_argument("file", nargs="?", metavar="FILE",
                        help="with cost or depth: FILE.py:function, with depth also FILE.py")
    parser.add_argument("--precision", type=int, default=4, metavar="DIGITS",
                        help="significant digits; 0 for all (default 4)")
    parser.add_argument("--elements", type=int, default=6, metavar="N",
                        help="arrays up to this size are written out (default 6)")
    parser.add_argument("--width", type=int, metavar="COLUMNS",
                        help="width of the text (default: the terminal's)")
    file = parser.add_argument_group("options of FILE.py")
    file.add_argument("--wrt", action="append", metavar="NAME",
                      help="only the paths to this tensor or layer; may be given several times")
    file.add_argument("--detail", choices=DETAILS,
                      help="every step, or layer by layer (default: steps while there are few)")
    file.add_argument("--zoom", metavar="NAME", help="a closer look at a layer (model.0), a weight "
                      "(model.0.weight[3,5]) or a line (train.py:12)")
    file.add_argument("--unit", type=int, metavar="N", help="with --zoom: one unit of that layer")
    file.add_argument("--sample", type=int, metavar="N", help="one example of the batch")
    written = parser.add_argument_group("other styles")
    written.add_argument("--style", choices=tuple(STYLES),
                         help="how e1 to e8 or a file's loss is written (default: text)")
    written.add_argument("--save", metavar="FILE",
                         help="write it to a file, .txt .md .tex .html .json .py or .svg; of cost "
                              "and depth NAME.svg, .png, .html, .json or .txt")
    picture = parser.add_argument_group("a picture")
    picture.add_argument("--picture", metavar="FILE.svg",
                         help="draw the graph with values and gradients into this file")
    picture.add_argument("--unfold", action="append", metavar="MODULE",
                         help="show the inside of this module; may be given several times")
    picture.add_argument("--direction", choices=tuple(SCREENS), default="down",
                         help="where the forward pass goes (default down)")
    measured = parser.add_argument_group("options of cost and depth")
    measured.add_argument("--quick", action="store_true",
                          help="smaller samples, networks up to 10^6 parameters, fewer layers")
    measured.add_argument("--model", metavar="FILE.py:FUNCTION",
                          help="a function of yours that returns the loss, or (network, x, y)")
    measured.add_argument("--layers", default="784-256-256-256-10", metavar="SIZES",
                          help="cost: sizes of the layers (default 784-256-256-256-10)")
    measured.add_argument("--batch", type=int, default=64, metavar="N",
                          help="cost: examples in a batch (default 64)")
    measured.add_argument("--samples", type=int, default=60, metavar="N",
                          help="cost: weights differentiated one by one (default 60)")


def run(args: argparse.Namespace) -> int:
    """Print what was asked for; returns the exit code."""
    for name in ("elements", "batch", "samples"):
        if getattr(args, name) < 1:
            raise SettingError(f"--{name} {getattr(args, name)}: must be at least 1")
    if args.file is not None and args.what not in MEASURED:
        raise SettingError(f"explain {args.what} {args.file}: a second file belongs to "
                           f"{' and '.join(MEASURED)} alone")
    if args.precision < 0:
        raise SettingError(f"--precision {args.precision}: must be at least 1, or 0 for all digits")
    refuse_unused(args)
    columns = args.width or shutil.get_terminal_size((100, 24)).columns
    width = max(NARROWEST, min(columns, WIDEST))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") \
        and os.environ.get("TERM") != "dumb"
    style = Style(args.precision or None, args.elements)
    if args.picture is not None:
        text = draw(args, style)
    elif args.what.lower() in EXAMPLES and not (args.style or args.save or closer(args)):
        text = tell(args.what.lower(), Page(width, colour, style))
    elif args.what in MEASURED:
        # Only now: the compiler that it times takes longer to import than an example to tell.
        return int(importlib.import_module("chainrule.explain.measured.command").run(args))
    else:
        explanation = explained(args, style)
        if closer(args):
            text = explanation.zoom(args.zoom, unit=args.unit,
                                    sample=args.sample).text(width, colour)
        elif args.save is not None:
            text = f"{explanation.save(args.save)} is written"
        elif args.style is not None:
            return document(explanation, args.style, width)
        else:
            text = explanation.text(width, colour)
    print(as_shown(text, getattr(sys.stdout, "encoding", None) or "utf-8"))
    return 0


def closer(args: argparse.Namespace) -> bool:
    """Whether one part is asked for rather than the whole."""
    return any(one is not None for one in (args.zoom, args.sample, args.unit))


def refuse_unused(args: argparse.Namespace) -> None:
    """Raise about options that what is asked for would not read."""
    if args.what in MEASURED:
        names = ("zoom", "sample", "unit", "wrt", "detail")
        given = [f"--{name}" for name in names if getattr(args, name) is not None]
        if given:
            raise SettingError(f"explain {args.what}: it measures, so there is no loss for "
                               f"{', '.join(given)}; these are for FILE.py")
    elif args.what.lower() in EXAMPLES and (args.wrt or args.detail):
        raise SettingError(f"explain {args.what}: --wrt and --detail are for the loss of a file; "
                           "a worked example tells every step")
    elif args.unfold and args.picture is None:
        raise SettingError("--unfold opens a module in a picture; write --picture FILE.svg, too")
    if closer(args) and (args.save or args.picture or args.style):
        raise SettingError("--zoom, --unit and --sample print a page of text; leave out --save, "
                           "--style and --picture")


def explained(args: argparse.Namespace, style: Style) -> Explanation:
    """The explanation of an example's program, or of a file's loss."""
    name = args.what.lower()
    if name not in EXAMPLES:
        return explain_file(args.what, style, args.wrt, args.detail)
    variables = run_example(name, EXAMPLES[name].program.replace("TARGET", "0.0"))
    return Explanation(derived(variables, style), style)


def document(explanation: Explanation, kind: str, width: int) -> int:
    """Print it in a style that was asked for: text as the output can show it, documents in UTF-8,
    which is what they say they are."""
    text = explanation.in_style(kind, width)
    if kind in ("text", "terminal"):
        text = as_shown(text, getattr(sys.stdout, "encoding", None) or "utf-8")
    elif hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    print(text)
    return 0


def draw(args: argparse.Namespace, style: Style) -> str:
    """Write the picture of an example or of a file's loss; returns what to say about it."""
    if args.what in MEASURED:
        raise SettingError(f"explain {args.what} has no graph to draw; --picture is for e1 to e8 "
                           "and files, and --save writes its charts")
    explanation = explained(args, style)
    picture = explanation.picture(detail=args.unfold or args.detail, direction=args.direction)
    path = picture.save(args.picture)
    return (f"{path}: {picture.boxes} boxes, {picture.width:.0f}×{picture.height:.0f} pixels. "
            "Open it in a browser; pointing at a box or a line shows more.")


def as_shown(text: str, encoding: str) -> str:
    """The text in characters that the output knows: ∂L/∂w becomes dL/dw where it must."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return text


# ---------------------------------------------------------------- a file of the user


def explain_file(what: str, style: Style, wrt: list[str] | None = None,
                 detail: str | None = None) -> Explanation:
    """The explanation of the loss in FILE.py, or of what FILE.py:function returns."""
    name, _, function = what.rpartition(":") if ".py:" in what else (what, "", "")
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        known = ", ".join([*EXAMPLES, *MEASURED])
        if path.suffix == ".py":
            raise SettingError(f"explain: there is no file {name}")
        raise SettingError(f"explain: {what!r} is not known. Write one of {known}, or the name of "
                           "a Python file, FILE.py or FILE.py:function.")
    sys.path.insert(0, str(path.resolve().parent))
    arguments, sys.argv = sys.argv, [str(path)]
    try:
        if not function:
            return Explanation(of_program(path, name, style, wrt), style, detail=detail)
        with faults_of(path, name):
            scope = runpy.run_path(str(path), run_name=path.stem)
        loss, scope = called(scope, path, name, function)
    finally:
        sys.path.pop(0)
        sys.argv = arguments
    return Explanation(derive(loss, scope, style=style, wrt=wrt), style, detail=detail)


def of_program(path: Path, name: str, style: Style, wrt: list[str] | None) -> Derivation:
    """The first loss that a training program calls backward() on; else its variable `loss`."""
    scope: dict[str, Any] = {}
    ended = False
    with first_loss(style, wrt) as seen, faults_of(path, name):
        try:
            scope = runpy.run_path(str(path), run_name="__main__")
        except _Stepped:
            ended = True
        except SystemExit:
            if not seen:
                raise
            ended = True
    if ended:
        return told(seen)
    try:
        return derive(loss_in(scope, name), scope, style=style, wrt=wrt)
    except (FreedGraphError, OverwrittenError, SettingError) as error:
        if seen:
            return told(seen)
        raise SettingError(f"{error}\n{advice(name)}") from error


def told(seen: list[Derivation | SettingError]) -> Derivation:
    """The derivation that was made, or the error about what was asked for."""
    if isinstance(seen[0], SettingError):
        raise seen[0]
    return seen[0]


def advice(name: str) -> str:
    return ("Give a function that returns the loss and needs no arguments: "
            f"chainrule explain {name}:loss_of")


class _Stepped(BaseException):
    """Ends a training program at its first step; no program of the user catches it."""


@contextmanager
def first_loss(style: Style, wrt: list[str] | None) -> Iterator[list[Derivation | SettingError]]:
    """Explain the loss of the first backward(), while its numbers are there; stop at a step."""
    seen: list[Derivation | SettingError] = []
    backward, step = Tensor.backward, Optimizer.step

    def explained(self: Any, *args: Any, **options: Any) -> Any:
        if not seen and self.numel() == 1 and not args:
            frame = user_frame(sys._getframe(1))
            scope = {**frame.f_globals, **frame.f_locals} if frame is not None else {}
            try:
                seen.append(derive(self, scope, style=style, wrt=wrt))
            except (SettingError, UnusedError) as error:     # about names that were asked for
                seen.append(SettingError(str(error)))
                raise _Stepped from error
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
    raise SettingError(f"explain: {name} has no variable `loss`.{seen} Name it so.")


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
