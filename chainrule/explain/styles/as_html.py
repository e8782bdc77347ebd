"""The derivation as one HTML page: no script, nothing from outside, readable in a notebook.

Steps fold (`<details>`); forward and backward stand side by side where there is room. Pointing at
a step marks what belongs to the same step in the other column, pointing at a name marks it
everywhere: both are rules of CSS (`:has`, Selectors Level 4), so no script needs to run. Colours
follow the reader's light or dark scheme; on paper every step is open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from chainrule.explain.derive import BackwardStep, Derivation, ForwardStep, Place
from chainrule.explain.numbers import Style

from .latex import names_in
from .notation import Notation, NotNotation
from .text import sides_of, summary, symbols_used

OPEN_AT_MOST = 24            # so many steps are unfolded when the page opens
MOST_MARKED = 400            # rules for pointing are written for so many steps and names
SHORT = 30                   # characters of a result that stand in the line of a folded step

SHEET = Path(__file__).with_name("explanation.css")


def as_html(derivation: Derivation, style: Style, width: int = 100, *,
            fragment: bool = False) -> str:
    """The derivation as a page, or as a `fragment` (style sheet and one element) for a notebook."""
    body = _Writer(derivation).body(style)
    return body if fragment else page(f"The chain rule for {derivation.loss}", body)


def page(title: str, body: str) -> str:
    """A whole document around a fragment."""
    return ("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
            "<meta name=\"color-scheme\" content=\"light dark\">\n"
            f"<title>{escape(title)}</title>\n</head>\n"
            f"<body style=\"margin:0\">\n{body}</body>\n</html>\n")


def preformatted(text: str) -> str:
    """Lines of text as a fragment in the colours of the page."""
    return (f'{sheet()}<section class="cr-explanation"><pre>{escape(text)}</pre></section>\n')


def sheet(more: str = "") -> str:
    return f"<style>\n{SHEET.read_text('utf-8')}{more}</style>\n"


class _Writer:
    def __init__(self, derivation: Derivation) -> None:
        self.d = derivation
        names = names_in(derivation)
        self.notation = Notation(names)
        self.number = {name: i for i, name in enumerate(sorted(names))}

    def body(self, style: Style) -> str:
        d = self.d
        count = len(d.forward) + len(d.backward)
        unfolded = count <= 2 * OPEN_AT_MOST
        given = "".join(self.pair(one.name, "?" if one.value is None else style.array(one.value))
                        for one in d.given)
        legend = "".join(f"<li>{escape(text)}</li>" for text in (*symbols_used(d), *d.notes))
        meaning = (f"{self.formula(f'∂{d.loss}/∂x')}: how much {self.formula(d.loss)} grows for "
                   "each unit that <i>x</i> grows")
        return "".join([
            sheet(self.pointing()),
            '<section class="cr-explanation">\n',
            f"<h1>The chain rule for {self.formula(d.loss)}</h1>\n",
            f'<details class="cr-given" open><summary>Given</summary>\n<dl>{given}</dl>\n'
            "</details>\n" if given else "",
            '<div class="cr-passes">\n',
            f'<div class="cr-pass"><h2>Forward</h2>\n{self.steps(d.forward, unfolded)}</div>\n',
            f'<div class="cr-pass"><h2>Backward</h2>\n<p class="cr-note">{meaning}</p>\n',
            f"{self.steps(d.backward, unfolded)}</div>\n",
            "</div>\n",
            self.gradients(style),
            f'<ul class="cr-note">{legend}</ul>\n' if legend else "",
            "</section>\n",
        ])

    def pointing(self) -> str:
        """What is pointed at marks its fellows, by step and by name."""
        marked = [("s", step.number) for step in self.d.forward][:MOST_MARKED]
        named = [("n", i) for i in self.number.values()][:MOST_MARKED]
        return "".join(
            f".cr-explanation:has([data-{kind}=\"{i}\"]:hover) [data-{kind}=\"{i}\"]"
            f"{{background:var(--cr-{'step' if kind == 's' else 'name'})}}\n"
            for kind, i in (*marked, *named))

    def formula(self, text: str) -> str:
        """A formula with its names marked, so that pointing at one shows it everywhere."""
        try:
            tokens = self.notation.tokens(text)
        except NotNotation:
            return f"<code>{escape(text)}</code>"
        said = []
        for kind, part, space in tokens:
            if space:
                said.append(" ")
            if kind != "name":
                said.append(escape(part))
            else:
                number = self.number.get(part.rpartition("/∂")[2] if part[0] == "∂" else part)
                said.append(f'<var data-n="{number}">{escape(part)}</var>')
        return f"<code>{''.join(said)}</code>"

    def pair(self, name: str, value: str) -> str:
        return f"<div><dt>{self.formula(name)}</dt><dd>{self.formula(value)}</dd></div>\n"

    def steps(self, steps: Sequence[ForwardStep | BackwardStep], unfolded: bool) -> str:
        if not steps:
            return "<p>Nothing was computed: this is a leaf.</p>\n"
        parts = []
        place: Place | None = None
        for step in steps:
            if step.place != place:
                parts.append(heading(step.place))
                place = step.place
            parts.append(self.step(step, unfolded))
        return "".join(parts)

    def step(self, step: ForwardStep | BackwardStep, unfolded: bool) -> str:
        *before, result = sides_of(step)
        added = bool(getattr(step, "terms", ()))
        number = step.number if step.number and not added else ""
        short = result if len(result) <= SHORT else f"{'×'.join(map(str, step.shape))} numbers"
        path = getattr(step, "path", "")
        mark = f' <small>{escape(path)}</small>' if path else ""
        lines = [f'<div class="cr-side">= {self.formula(side)}</div>\n' for side in before]
        lines.append(f'<div class="cr-side cr-result">= {self.formula(result)}</div>\n')
        if isinstance(step, BackwardStep):
            lines += self.factors(step)
        data = f' data-s="{step.number}"' if step.number else ""
        return (f'<details class="cr-step"{data}{" open" if unfolded else ""}><summary>'
                f"<b>{number}</b>{self.formula(step.name)}{mark}"
                f'<span class="cr-short">= {escape(short)}</span></summary>\n'
                f'<div class="cr-sides">\n{"".join(lines)}</div></details>\n')

    def factors(self, step: BackwardStep) -> list[str]:
        """Upstream and local factor; where paths meet, the product along each."""
        said = []
        if step.local is not None and step.through:
            local = step.local
            chain = [f"∂{self.d.loss}/∂{step.through}"]
            values = "" if local.formula == "1" else "".join(
                f" = {self.formula(side)}" for side in dict.fromkeys(
                    (local.formula, local.numbers, local.result)))
            said.append(f'<div class="cr-factor">upstream {self.formula(chain[0])} times '
                        f"{self.formula(local.name)}{values or ' = <code>1</code>'}</div>\n")
        said += [f'<div class="cr-factor">path {" = ".join(map(self.formula, sides))}</div>\n'
                 for one in step.products
                 for sides in [list(dict.fromkeys((one.formula, one.numbers, one.result)))]]
        return said

    def gradients(self, style: Style) -> str:
        rows = "".join(
            f"<tr><th scope=\"row\">{self.formula(one.name)}</th>"
            f"<td>{self.formula(summary(one.value, style))}</td>"
            f"<td>{self.formula(summary(one.gradient, style))}</td></tr>\n"
            for one in self.d.gradients)
        return ('<h2>Gradients</h2>\n<table><thead><tr><th></th><th scope="col">value</th>'
                f'<th scope="col">gradient</th></tr></thead>\n<tbody>\n{rows}</tbody></table>\n')


def heading(place: Place) -> str:
    where = f"{os.path.basename(place.file)}:{place.line}" if place.file else "unknown line"
    module = f" <small>in {escape(place.module)}</small>" if place.module else ""
    return (f'<h3 title="{escape(place.file)}">{escape(where)}{module} '
            f"<code>{escape(place.source)}</code></h3>\n")
