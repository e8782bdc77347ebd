"""One derivation, written in many ways: `STYLES[name](derivation, style, width)` is its text.

Each style is a function of the same data, so that none can tell another story.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from chainrule.core.errors import SettingError
from chainrule.explain.derive import Derivation
from chainrule.explain.numbers import Style

from .as_html import as_html
from .as_json import as_json
from .latex import latex
from .markdown import markdown
from .script import numpy_script
from .text import explanation_text


def text(derivation: Derivation, style: Style, width: int = 100) -> str:
    """Lines of at most `width` characters where that is possible, without colours."""
    return explanation_text(derivation, style, width, False)


def terminal(derivation: Derivation, style: Style, width: int = 100) -> str:
    """The same with the escape sequences of a terminal's colours (ECMA-48), if it wants any.

    A variable NO_COLOR that is not empty asks for none (https://no-color.org), TERM=dumb too.
    """
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return explanation_text(derivation, style, width, wanted)


Writer = Callable[[Derivation, Style, int], str]
STYLES: dict[str, Writer] = {
    "text": text,
    "terminal": terminal,
    "markdown": markdown,
    "latex": latex,
    "html": as_html,
    "json": as_json,
    "numpy": numpy_script,
}
# What `save` writes, by the ending of the file's name.
ENDINGS = {".txt": "text", ".md": "markdown", ".tex": "latex", ".html": "html", ".htm": "html",
           ".json": "json", ".py": "numpy"}


def writer(name: str) -> Writer:
    """The style of that name; an error that lists them if there is none."""
    if name not in STYLES:
        raise SettingError(f"explain: there is no style {name!r}. Write one of "
                           f"{', '.join(STYLES)}.")
    return STYLES[name]
