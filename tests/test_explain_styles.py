"""Every style tells the same derivation: all of it read, all of it escaped, all in one file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.core.errors import SettingError
from chainrule.core.primitive import TABLE
from chainrule.explain import Explanation
from chainrule.explain.styles import ENDINGS, STYLES, writer
from chainrule.explain.styles.as_html import as_html
from chainrule.explain.styles.as_json import SCHEMA, array_from, as_data, as_json, faults
from chainrule.explain.styles.latex import formula, latex, names_in
from chainrule.explain.styles.notation import Notation, Term

SAMPLES = [pytest.param(prim, xs, params, id=f"{name}-{i}") for name, prim in TABLE.items()
           for i, (xs, params) in enumerate(prim.samples(np.random.default_rng(0)))]
HOSTILE = ["<b>&\"x'", "a|b", "w_1", "p.q.weight", "`tick`", "100%_{x}", "α", "größe", "重み",
           "layers[0]", "#$~^\\", "δ₁", "ŷ", "x y"]
KNOWN = set(re.findall(r"[a-zA-Z]+", """
    documentclass usepackage allowdisplaybreaks setlength parindent begin end section subsection
    par medskip textbf texttt nopagebreak quad qquad text mathrm mathtt operatorname left right
    frac partial sqrt odot cdot top sum prod infty ldots cdots times bmod mathbin land lor lnot ne
    le ge sim lfloor rfloor lceil rceil hat Bigl Bigr surd to char textless textgreater textbar
    textasciicircum textasciitilde textbackslash textasciigrave exp log sin cos tan sinh cosh tanh
    max min alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau
    phi chi psi omega"""))


def applied(prim: Any, xs: Any, params: Any) -> tuple[Any, dict[str, Any]]:
    leaves, operands = {}, []
    for name, x in zip("abcdefgh", xs, strict=False):
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            x = leaves[name] = cr.tensor(np.array(x), requires_grad=True)
        operands.append(x)
    y = prim(*operands, **params)
    if not isinstance(y, cr.Tensor) or y.grad_fn is None:
        pytest.skip("no gradient flows through this row")
    weights = cr.tensor(np.random.default_rng(3).uniform(0.5, 1.5, y.shape), dtype=y.dtype)
    return (y * weights).sum(), leaves


def two_layers() -> Explanation:
    rng = np.random.default_rng(0)
    x, t = cr.tensor(rng.normal(size=(4, 3))), cr.tensor(rng.normal(size=(4, 1)))
    W1 = cr.tensor(rng.normal(size=(3, 2)), requires_grad=True)
    b_1 = cr.tensor(rng.normal(size=2), requires_grad=True)
    W2 = cr.tensor(rng.normal(size=(2, 1)), requires_grad=True)
    hidden_layer = cr.tanh(x @ W1 + b_1)
    y = cr.sigmoid(hidden_layer @ W2)
    loss = ((y - t) ** 2).mean() + 0.1 * (W2 * W2).sum()
    return cr.explain(loss, elements=12, detail="steps",
                      names={"x": x, "t": t, "W1": W1, "b_1": b_1, "W2": W2})


def named(name: str) -> Explanation:
    w = cr.tensor([1.0, -2.0], requires_grad=True)
    return cr.explain((w * w * 3 + w.exp()).sum(), names={name: w})


def kinds(term: Term) -> set[str]:
    return {term.kind}.union(*map(kinds, term.parts))


# ---------------------------------------------------------------- the notation


@pytest.mark.parametrize(("prim", "xs", "params"), SAMPLES)
def test_the_formulas_of_every_row_are_read_and_set(prim: Any, xs: Any, params: Any) -> None:
    """LaTeX comes from the text of the rows: all of it must be understood, not passed through."""
    loss, leaves = applied(prim, xs, params)
    e = cr.explain(loss, names=leaves, detail="steps", elements=30)
    notation = Notation(names_in(e.derivation))
    for step in (*e.forward, *e.backward):
        for text in (step.formula, step.numbers, step.result):
            assert "text" not in kinds(notation.read(text)), f"{prim.name} writes {text!r}"
    check_latex(latex(e.derivation, e.style))
    assert not faults(json.loads(as_json(e.derivation, e.style)))


@pytest.mark.parametrize(("text", "wanted"), [
    ("∂L/∂a ⊙ (1 − a²)", r"\frac{\partial L}{\partial a} \odot (1 - a^{2})"),
    ("(∂L/∂z)ᵀ @ x", r"\left(\frac{\partial L}{\partial z}\right)^\top \, x"),
    ("a·b/c", r"a \cdot \frac{b}{c}"),
    ("(a − b)·c / 2", r"\frac{(a - b) \cdot c}{2}"),
    ("−a/b", r"-\frac{a}{b}"),
    ("Σ a ⊙ b", r"\sum a \odot b"),
    ("exp(−1.5e−5)", r"\exp(-1.5 \cdot 10^{-5})"),
    ("log softmax(a)", r"\log\,\operatorname{softmax}(a)"),
    ("a⁻¹", "a^{-1}"),
    ("[[1, 2], [3, 4]]", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    ("a[1:3, ::2]", r"a[\mathtt{1{:}3,\,{:}{:}2}]"),
    ("[a > 0]·b", r"[a > 0] \cdot b"),
    ("|a|^b", r"\left|a\right|^{b}"),
    ("f32[4,3] @ a", r"\mathrm{f32}[4,3] \, a"),
])
def test_formulas_are_set_as_one_writes_them(text: str, wanted: str) -> None:
    assert formula(text, ["L", "a", "b", "c", "x", "z"]) == wanted


def test_what_is_no_notation_stays_text() -> None:
    assert formula("what; is {this}?") == r"\text{what; is \{this\}?}"
    assert Notation([]).read("a ·").kind == "text"


def test_a_function_is_not_taken_for_a_variable_of_its_name() -> None:
    assert formula("exp(x)·exp", ["exp", "x"]) == r"\exp(x) \cdot \mathrm{exp}"
    assert formula("xs·x", ["x", "xs"]) == r"\mathrm{xs} \cdot x"


def test_matrix_products_are_bracketed_inside_others() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (cr.tensor(rng.normal(size=(2, 2)), requires_grad=True) for _ in range(3))
    leaves = {"a": a, "b": b, "c": c}
    shown = TABLE["matmul"].show(("a ⊙ b", 2), ("c", 9))
    assert shown == ("(a ⊙ b) @ c", 2)
    assert TABLE["mul"].show(("a", 9), ("b @ c", 2)) == ("a·(b @ c)", 2)
    assert TABLE["div"].show(("a @ b", 2), ("c", 9)) == ("(a @ b)/c", 2)
    assert TABLE["matmul"].show(("∂L/∂a", 4), ("b", 9)) == ("∂L/∂a @ b", 2)
    assert [s.formula for s in cr.explain((a @ b @ c).sum(), names=leaves).forward] == [
        "a @ b", "v1 @ c", "Σ v2"]


# ---------------------------------------------------------------- LaTeX


def check_latex(document: str) -> None:
    """Balanced braces and environments, and only commands that amsmath and LaTeX have."""
    bare = re.sub(r"\\[{}\\_#$%&,;! ]|\\/|\\\|", "", document)
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0, "a brace closes that did not open"
    assert depth == 0, f"{depth} braces stay open"
    unknown = set(re.findall(r"\\([a-zA-Z]+)", bare)) - KNOWN
    assert not unknown, f"commands that are not known: {sorted(unknown)}"
    for opening, closing in (("begin", "end"), ("left", "right")):
        count = [len(re.findall(rf"\\{word}(?![a-zA-Z])", bare)) for word in (opening, closing)]
        assert count[0] == count[1], f"{opening} {count[0]}, {closing} {count[1]}"
    assert document.isascii(), "a character that pdfLaTeX may not know"


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_escaped_in_latex(name: str) -> None:
    check_latex(named(name).latex())


def test_latex_of_a_two_layer_network() -> None:
    said = two_layers().latex()
    check_latex(said)
    assert r"\frac{\partial \mathrm{loss}}{\partial W_{1}} &= x^\top" in said
    assert r"\mathrm{hidden\_layer}" in said
    assert "documentclass" not in two_layers().latex(fragment=True)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    parts = [two_layers().latex(fragment=True),
             *(named(name).latex(fragment=True) for name in HOSTILE)]
    document = two_layers().latex()
    head, _, _ = document.partition(r"\begin{document}")
    (tmp_path / "all.tex").write_text(
        f"{head}\\begin{{document}}\n{chr(10).join(parts)}\\end{{document}}\n", "utf-8")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
                          cwd=tmp_path, capture_output=True, text=True, errors="replace",
                          timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-1500:]


# ---------------------------------------------------------------- HTML


class Checked(HTMLParser):
    """Tags in order; every one that opens closes."""

    VOID = ("meta", "br", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"these stay open: {self.open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.said.append(data)


def test_html_is_one_file_with_every_step() -> None:
    e = two_layers()
    page = Checked(e.html())
    steps = [attributes for tag, attributes in page.tags
             if tag == "details" and attributes.get("class") == "cr-step"]
    assert len(steps) == len(e.forward) + len(e.backward)
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not {"src", "href", "onclick", "onload"} & attributes.keys(), tag
    assert not re.search(r"https?:|url\(|@import", e.html())
    said = "".join(page.said)
    for step in (*e.forward, *e.backward):
        assert step.formula in said or step.operation in ("seed", "sum"), step.formula
        assert step.result in said


def test_html_marks_the_step_that_belongs_to_another() -> None:
    e = two_layers()
    page = e.html()
    for step in e.forward:
        assert page.count(f'<details class="cr-step" data-s="{step.number}"') >= 2
        assert f':has([data-s="{step.number}"]:hover)' in page


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_escaped_in_html(name: str) -> None:
    page = Checked(named(name).html())
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "body", "style", "section", "h1", "h2", "h3", "details",
        "summary", "dl", "div", "dt", "dd", "code", "var", "b", "small", "span", "p", "i", "ul",
        "li", "table", "thead", "tbody", "tr", "th", "td"}
    assert "x'" not in name or not [tag for tag, a in page.tags if tag == "b" and a]
    assert name in "".join(page.said)


def test_a_notebook_gets_a_fragment() -> None:
    fragment = two_layers()._repr_html_()
    assert fragment.startswith("<style>") and "<html" not in fragment
    assert "<pre>" in cr.explain(network(), detail="layers")._repr_html_()
    assert as_html(two_layers().derivation, two_layers().style, fragment=True) == fragment


def network() -> Any:
    cr.manual_seed(0)
    model = cr.nn.Sequential(cr.nn.Linear(3, 4), cr.nn.ReLU(), cr.nn.Linear(4, 2))
    return cr.nn.functional.cross_entropy(model(cr.randn(5, 3)), cr.tensor([0, 1, 0, 1, 1]))


# ---------------------------------------------------------------- Markdown, text, terminal


@pytest.mark.parametrize("name", ["a|b", "`tick`", "w_1", "<b>"])
def test_markdown_tables_have_their_columns(name: str) -> None:
    lines = named(name).markdown().splitlines()
    tables = [[]]
    for line in lines:
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    assert len(tables) > 4
    for table in tables[:-1]:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        assert len(widths) == 1, table
        assert re.fullmatch(r"\|( --- \|)+", table[1])


def test_markdown_shows_the_two_factors() -> None:
    said = two_layers().markdown()
    assert "| factor `∂hidden_layer/∂v2` | `1 − hidden_layer²` |" in re.sub(" +", " ", said)
    assert "$" not in said


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    e = two_layers()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in e.in_style("terminal")
    assert "\x1b" not in e.in_style("text")
    assert re.sub(r"\x1b\[[\d;]*m", "", e.in_style("terminal")) == e.in_style("text")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in e.in_style("terminal")


def test_an_unknown_style_names_those_there_are() -> None:
    with pytest.raises(SettingError, match=r"no style 'pdf'\. Write one of text, terminal"):
        writer("pdf")
    assert set(ENDINGS.values()) <= set(STYLES)


# ---------------------------------------------------------------- JSON


def test_json_holds_the_numbers_exactly() -> None:
    e = two_layers()
    document = json.loads(e.json())
    assert not faults(document)
    for said, step in zip(document["backward"], e.backward, strict=True):
        np.testing.assert_array_equal(array_from(said["value"]), step.value)
        assert said["value"]["dtype"] == "float64"
    for said, one in zip(document["gradients"], e.gradients.values(), strict=True):
        np.testing.assert_array_equal(array_from(said["gradient"]), one.gradient)
    assert document["forward"][0]["latex"]["formula"] == r"x \, W_{1}"


def test_json_says_what_is_not_finite() -> None:
    w = cr.tensor([0.0, 1.0, -1.0], requires_grad=True)
    e = cr.explain((w.log() * 2).sum(), names={"w": w})
    said = e.json()
    document = json.loads(said, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert not faults(document)
    values = document["forward"][0]["value"]["data"]
    assert values == ["-Infinity", 0.0, "NaN"]
    np.testing.assert_array_equal(array_from(document["forward"][0]["value"]),
                                  np.array([-np.inf, 0, np.nan], "f4"))


def test_json_of_large_arrays_has_statistics_unless_asked() -> None:
    rng = np.random.default_rng(0)
    w = cr.tensor(rng.normal(size=(40, 50)), requires_grad=True)
    e = cr.explain((w * w).sum(), names={"w": w})
    (gradient,) = as_data(e.derivation, e.style)["gradients"]
    statistics = gradient["gradient"]["statistics"]
    assert statistics["minimum"] == e.gradients["w"].gradient.min()
    assert statistics["norm"] == pytest.approx(np.linalg.norm(e.gradients["w"].gradient))
    assert statistics["zeros"] == statistics["not_finite"] == 0
    whole = json.loads(e.json(most=None))
    np.testing.assert_array_equal(array_from(whole["gradients"][0]["gradient"]),
                                  e.gradients["w"].gradient)
    assert not faults(whole)


def test_the_schema_refuses_what_is_wrong() -> None:
    document = json.loads(two_layers().json())
    assert json.loads(SCHEMA.read_text("utf-8"))["properties"]["version"]["const"] == 1
    wrong = {**document, "version": 2}
    assert faults(wrong) == ["$.version: 2, must be 1"]
    del wrong["forward"]
    wrong["more"] = 1
    assert {"$.forward: missing", "$.more: unknown"} <= set(faults(wrong))
    broken = json.loads(two_layers().json())
    broken["backward"][2]["value"]["shape"] = "4"
    assert faults(broken)
    assert faults([]) == ["$: list, must be object"]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("ending", [".txt", ".md", ".tex", ".html", ".json"])
def test_files_are_written_by_their_ending(ending: str, tmp_path: Path) -> None:
    e = two_layers()
    path = e.save(tmp_path / f"why{ending}")
    assert path.read_text("utf-8").strip() == e.in_style(ENDINGS[ending], 120).strip()
