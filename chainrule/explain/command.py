"""`chainrule explain`: worked examples, what a gradient costs, and the loss of a file of yours."""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from chainrule.core.errors import SettingError
from chainrule.tensor import Tensor

from .cost import read_layers, report_alone
from .derive import derive
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
  chainrule explain train.py           the variable `loss` of your program
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
    if args.what in EXAMPLES:
        text = tell(args.what, Page(width, colour, style))
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
    try:
        if not function:
            scope = runpy.run_path(str(path), run_name="__main__")
            return Explanation(derive(loss_in(scope, name), scope, style=style), style)
        scope = runpy.run_path(str(path), run_name=path.stem)
        loss, scope = called(scope, name, function)
    finally:
        sys.path.pop(0)
    return Explanation(derive(loss, scope, style=style), style)


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
    raise SettingError(f"explain: {name} has no variable `loss`.{seen} Name it so, or give the "
                       f"function that returns the loss: {name}:function")


def called(scope: dict[str, Any], name: str, function: str) -> tuple[Any, dict[str, Any]]:
    """What a function of the file returns, and its variables beside those of the file."""
    chosen = scope.get(function)
    code = getattr(chosen, "__code__", None)
    if not isinstance(code, CodeType) or chosen is None:
        raise SettingError(f"explain: {name} has no function {function!r}")
    variables: dict[str, Any] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            variables.update(frame.f_locals)

    sys.setprofile(watch)
    try:
        loss = chosen()
    finally:
        sys.setprofile(None)
    if not isinstance(loss, Tensor):
        raise SettingError(f"explain: {name}:{function}() returned {type(loss).__name__}; it must "
                           "return the loss, a tensor of one number")
    return loss, {**variables, **{k: v for k, v in scope.items() if k not in variables}}
