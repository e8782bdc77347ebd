"""The script: what was given, the forward pass, the backward pass, and a comparison at the end.

The recorded graph is walked once forwards and once backwards, as `derive.py` does, only that the
rules run on `Code`s. Every statement stands under the formula of the step that explain shows.
"""

from __future__ import annotations

import ast
import keyword
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import affected, edges_of
from chainrule.core.bind import bind
from chainrule.core.errors import SettingError
from chainrule.core.node import Node
from chainrule.core.primitive import TABLE
from chainrule.core.record import UNREAD
from chainrule.core.types import type_of
from chainrule.explain.derive import BackwardStep, Derivation, ForwardStep, Place
from chainrule.explain.numbers import Style
from chainrule.explain.recording import Recording

from .code import Code
from .helpers import fixed
from .rows import Rows
from .source import Unwritable, called, is_builtin, literal, name_of, numpy_name

MOST_INLINE = 4096           # numbers of all arrays together that the script holds as text
SMALL = 64                   # arrays of so many elements are written out in any case
LOADING = "data = np.load(Path(__file__).with_name({0!r}))"
RESERVED = {"np", "data", "rng", "gradients", "expected", "name", "gradient", "difference"}


def numpy_script(derivation: Derivation, style: Style, width: int = 100) -> str:
    """A program that needs NumPy alone and prints the gradients it finds.

    Where the arrays are too many to write out they are drawn at random, between the least and the
    greatest of the real ones, and nothing is compared; `script_and_data` keeps the real ones.
    """
    return _Script(derivation, "").text()


def script_and_data(derivation: Derivation, style: Style, data_file: str
                    ) -> tuple[str, dict[str, Any]]:
    """The script, and the arrays it reads from `data_file` (an .npz beside it); {} if none."""
    script = _Script(derivation, data_file)
    return script.text(), script.stored


def save_script(derivation: Derivation, style: Style, path: Path) -> Path:
    """Write the script, and beside it an .npz with the arrays that are too large for text."""
    data = path.with_suffix(".npz")
    text, arrays = script_and_data(derivation, style, data.name)
    if arrays:
        np.savez(data, **arrays)
    path.write_text(text, encoding="utf-8")
    return path


class _Script:
    def __init__(self, derivation: Derivation, data_file: str) -> None:
        if derivation.recording is None:
            raise SettingError("explain: this explanation was made without the recorded graph, so "
                               "there is no NumPy script of it; explain the loss itself.")
        self.derivation = derivation
        self.recording: Recording = derivation.recording
        self.data_file = data_file
        self.stored: dict[str, Any] = {}
        self.taken: set[str] = set(RESERVED)
        self.lines: list[str] = []
        self.arrays: list[tuple[str, Any, str]] = []
        self.codes: dict[Node, Code] = {}
        self.constants: dict[int, tuple[Any, Code]] = {}
        self.names: dict[str, str] = {}
        for name in dict.fromkeys([*self.recording.texts.values(),
                                   *(one.name for one in derivation.given)]):
            self.names[name] = self.fresh(identifier(name))
        self.rows = Rows(self.taken)
        self.gradients: dict[str, tuple[str, Any]] = {}

    def fresh(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        return name

    def text(self) -> str:
        """All parts together."""
        unusual: list[str] = []
        with np.errstate(all="call", under="ignore", call=lambda kind, _: unusual.append(kind)):
            self.forward()
            self.backward()
        helpers = self.rows.helpers
        whole = sum(value.size for _, value, _ in self.arrays) <= MOST_INLINE
        given = list(self.given(whole))
        real = whole or bool(self.data_file)
        ending = list(self.ending(real, whole))
        head = [f'"""{self.title(real)}"""', "",
                *(f"import {module}" for module in sorted(helpers.imports - {"numpy"})),
                "import numpy as np"]
        if unusual:
            head += ["", 'np.seterr(all="ignore")      # infinities and NaN are values here']
        if self.data_file and not whole:
            head.insert(-1, "from pathlib import Path\n")
        functions = [part for text in helpers.texts.values() for part in (
            *([""] if text.startswith("def") else []), "", text)]
        if functions:
            head += ["", "# ---- functions that NumPy has not", *functions[1:], ""]
        return "\n".join([*head, "", "# ---- what is given", "", *given, *self.lines, *ending, ""])

    def title(self, real: bool) -> str:
        loss = self.derivation.loss
        said = (f"The chain rule for {loss}, forward and backward, by hand in NumPy.\n\n"
                f"d_x is ∂{loss}/∂x. Above each statement stands its formula.\n")
        if not real:
            said += ("The arrays of the program are too large to be written here: they are drawn "
                     "at random\nbetween the least and the greatest of the real ones, so the "
                     "numbers differ.\n")
        return said.replace("\\", "\\\\").replace('"""', "'''")

    # ------------------------------------------------------------ what is given

    def leaf(self, name: str, value: Any, remark: str = "") -> Code:
        """An array of the script."""
        self.arrays.append((name, np.array(value), remark))
        return Code(np.array(value), expr=name_of(name))

    def given(self, whole: bool) -> Iterator[str]:
        if not whole and self.data_file:
            yield LOADING.format(self.data_file)
        elif not whole:
            yield "rng = np.random.default_rng(0)"
        for name, value, remark in self.arrays:
            if remark:
                yield f"# {remark}"
            if whole or value.size <= SMALL:
                yield from array_text(name, value)
            elif self.data_file:
                self.stored[name] = value
                yield f"{name} = data[{name!r}]{' ' * 4}# {type_of(value)}"
            else:
                yield f"{name} = {drawn(value)}"

    # ------------------------------------------------------------ forward

    def forward(self) -> None:
        steps = iter(self.derivation.forward)
        self.section("forward")
        place: Place | None = None
        for node in self.recording.order:
            if node in self.recording.hidden:
                self.codes[node] = self.computed(node)
                continue
            name = self.names[self.recording.texts[node]]
            if node.prim is None or node.plan is UNREAD:
                value = self.recording.values.get(node)
                self.codes[node] = self.unknown(node) if value is None else self.leaf(name, value)
                continue
            step = next(steps)
            place = self.at(step, place)
            self.codes[node] = self.assigned(node, name, step)

    def assigned(self, node: Node, name: str, step: ForwardStep) -> Code:
        """`name = expression`; a value that cannot be computed again is one that is given."""
        code = self.computed(node)
        value = self.recording.values.get(node)
        said = f"{step.number:>3}. {step.name} = {step.formula}"
        if (node.prim is not None and TABLE.get(node.prim.name) is not node.prim) or code.missing:
            if value is None:
                self.lines.append(f"# {said}: not kept by the tape, and not needed below")
                return self.unknown(node)
            why = ("an operation of your own: its result is taken as given"
                   if TABLE.get(node.name) is not node.prim else
                   "an operand was not kept by the tape: the result is taken as given")
            self.lines.append(f"# {said}: {why}")
            return self.leaf(name, value, f"result of {step.operation}, line {step.place.line}")
        self.lines.append(f"# {said}")
        try:
            self.assign(name, code)
        except Unwritable as error:
            if value is None:
                raise SettingError(f"explain: {step.operation} at line {step.place.line} cannot "
                                   f"be written in NumPy alone: {error}") from error
            self.lines.append(f"# cannot be written in NumPy alone ({error}): taken as given")
            return self.leaf(name, value, f"result of {step.operation}, line {step.place.line}")
        return Code(value if value is not None else code.value, expr=name_of(name), type=node.type)

    def assign(self, name: str, code: Code) -> None:
        def keep(wanted: str, expr: ast.expr) -> ast.expr:
            own = self.fresh(f"{wanted}1") if f"{wanted}1" not in self.taken else self.fresh(wanted)
            self.lines.append(f"{own} = {ast.unparse(fixed(expr))}")
            return name_of(own)

        expr = self.rows.express(code, keep)
        self.lines.append(f"{name} = {ast.unparse(fixed(expr))}")

    def computed(self, node: Node) -> Code:
        assert node.prim is not None
        if TABLE.get(node.prim.name) is not node.prim:
            return self.unknown(node)
        xs = self.operands(node)
        first = next((x for x in xs if isinstance(x, Code)), None)
        if first is None:
            return Code(node.prim.eval(*xs, **node.params), prim=node.prim, xs=xs,
                        params=node.params)
        code = first.apply(node.prim, xs, node.params)
        assert isinstance(code, Code)
        return code

    def unknown(self, node: Node) -> Code:
        return Code(self.recording.values.get(node), type=node.type, missing=True)

    def operands(self, node: Node) -> tuple[Any, ...]:
        """The operands as the rules get them: names of the script, numbers, settings."""
        saved = self.recording.saved[node][0]
        found: list[Any] = []
        for value, edge in zip(saved, node.inputs, strict=True):
            if edge is not None:
                if edge.name == "broadcast" and getattr(value, "shape", None) != edge.shape:
                    (edge,) = edges_of(edge)      # the rules get what NumPy will stretch
                found.append(self.codes[edge])
            elif type(value) is np.ndarray:
                found.append(self.constant(value))
            elif hasattr(value, "shape"):
                found.append(Code(None, type=type_of(value), missing=True))
            else:
                found.append(value)
        return tuple(found)

    def constant(self, value: Any) -> Code:
        """An array that no gradient flows to, under the user's name where it has one."""
        found = self.constants.get(id(value))
        if found is not None:
            return found[1]
        name, known = self.recording.names.constant(value)
        if name is None and value.ndim == 0:
            code = Code(value, expr=called(numpy_name("array"), literal(value)))
        elif name is None:
            code = self.leaf(self.nameless(value), value)
        else:
            code = self.view(name.removesuffix("ᵀ"), known, value, name.endswith("ᵀ"))
        self.constants[id(value)] = (value, code)
        return code

    def nameless(self, value: Any) -> str:
        """c1, as the explanation calls this array; a small one has no name there."""
        for one in self.derivation.given:
            own = self.names[one.name]
            if not one.tracked and own not in (name for name, *_ in self.arrays) and (
                    one.value.dtype == value.dtype and np.array_equal(
                        one.value, value, equal_nan=value.dtype.kind == "f")):
                return own
        return self.fresh("constant")

    def view(self, name: str, whole: Any, value: Any, transposed: bool) -> Code:
        """A named array, or the same numbers transposed or in another shape."""
        base = self.constants.get(id(whole))
        if base is None:
            own = self.names.get(name) or self.fresh(identifier(name))
            self.names.setdefault(name, own)
            base = self.constants[id(whole)] = (whole, self.leaf(own, whole))
        expr = base[1].expr
        assert expr is not None
        if transposed:
            expr = ast.Attribute(expr, "T", ast.Load())
        elif whole.shape != value.shape:
            expr = called(ast.Attribute(expr, "reshape", ast.Load()), literal(value.shape))
        return Code(value, expr=expr)

    # ------------------------------------------------------------ backward

    def backward(self) -> None:
        recording = self.recording
        latest = list(recording.order)[::-1]
        live = None if recording.wanted is None else affected(latest, recording.wanted)
        self.section("backward")
        steps: dict[tuple[str, str], list[BackwardStep]] = defaultdict(list)
        for step in self.derivation.backward:
            steps[step.through, step.of].append(step)
        loss = recording.root
        start = Code(np.ones(loss.shape, loss.dtype), expr=name_of(
            self.fresh(f"d_{self.names[recording.texts[loss]]}")))
        ones = called(numpy_name("ones"), literal(loss.shape), literal(loss.dtype))
        assert start.expr is not None
        self.lines += [f"# {self.derivation.backward[0].name} = 1",
                       f"{ast.unparse(start.expr)} = {ast.unparse(fixed(ones))}"]
        arrived: dict[Node, list[Code]] = defaultdict(list)
        arrived[loss].append(start)
        guarded: set[Node] = set()
        place: Place | None = None
        for node in latest:
            terms = arrived.pop(node, None)
            if terms is None:
                continue
            g = self.total(node, terms)
            final = recording.wanted is not None and node in recording.wanted
            if node.prim is None or node.plan is UNREAD or final:
                assert g.expr is not None
                self.gradients[recording.texts[node]] = (ast.unparse(g.expr),
                                                         recording.gradients[node])
                if node.prim is None or node.plan is UNREAD:
                    continue
            by_target: dict[Node, list[Code]] = defaultdict(list)
            for target, term in self.flow(node, g, guarded, live):
                by_target[target].append(term)
            for target, found in by_target.items():
                place = self.arrive(node, target, found, arrived, steps, place)

    def total(self, node: Node, terms: list[Code]) -> Code:
        """The sum over the paths, if there are several."""
        if len(terms) == 1:
            return terms[0]
        code = terms[0]
        for term in terms[1:]:
            code = code + term
        name = self.fresh(f"d_{self.names[self.recording.texts[node]]}")
        of = self.recording.texts[node]
        self.lines.append(f"# ∂{self.derivation.loss}/∂{of}: the sum over the paths")
        self.assign(name, code)
        return Code(code.value, expr=name_of(name), type=code.type)

    def arrive(self, node: Node, target: Node, terms: list[Code],
               arrived: dict[Node, list[Code]], steps: dict[tuple[str, str], list[BackwardStep]],
               place: Place | None) -> Place | None:
        """`d_target = expression`, or one path of several to it."""
        texts = self.recording.texts
        known = steps[texts[node], texts[target]]
        step = known.pop(0) if known else None
        if step is not None:
            place = self.at(step, place)
            path = f" ({step.path})" if step.path else ""
            self.lines.append(f"# {step.number:>3}. {step.name}{path} = {step.formula}")
        code = terms[0]
        for term in terms[1:]:
            code = code + term
        own = f"d_{self.names[texts[target]]}"
        if step is not None and step.path:
            own = f"{own}_via_{self.names[texts[node]]}"
        name = self.fresh(own)
        if TABLE.get(node.prim.name) is not node.prim:  # type: ignore[union-attr]
            self.lines.append(f"# {node.name} is an operation of your own: what its backward "
                              "returned is taken as given")
            arrived[target].append(self.leaf(name, code.value, f"what {node.name}.backward "
                                                               "returned"))
            return place
        try:
            self.assign(name, code)
        except Unwritable as error:
            if code.value is None:
                raise SettingError(f"explain: the backward rule of {node.name} cannot be written "
                                   f"in NumPy alone: {error}") from error
            self.lines.append(f"# cannot be written in NumPy alone ({error}): taken as given")
            arrived[target].append(self.leaf(name, code.value, f"gradient through {node.name}"))
            return place
        arrived[target].append(Code(code.value, expr=name_of(name), type=code.type))
        return place

    def flow(self, node: Node, g: Code, guarded: set[Node], live: Any
             ) -> list[tuple[Node, Code]]:
        """What goes from one node to each of its inputs, through hidden rearrangements."""
        prim = node.prim
        assert prim is not None
        own = TABLE.get(prim.name) is not prim
        y, xs = self.codes[node], self.operands(node)
        if own:
            xs = self.recording.saved[node][0]
        found = []
        for i, edge in enumerate(node.inputs):
            pull = prim.pulls[i]
            if edge is None or pull is None or (live is not None and edge not in live):
                continue
            if own:
                term: Any = Code(np.asarray(pull(g.value, node, *xs, **node.params)))
            else:
                term = pull(g, y, *xs, **node.params)
            if not isinstance(term, Code):            # a rule may answer with bare numbers
                term = self.leaf(self.fresh("c"), term)
            if prim.selects:
                guarded.add(edge)
            elif node in guarded:
                guarded.add(edge)
                term = guarded_term(term, g) if prim.kind == "elementwise" else term
            while edge in self.recording.hidden:
                (inner,) = edges_of(edge)
                assert edge.prim is not None
                back: Any = edge.prim.pulls[0]
                term = back(term, edge, Code(None, type=inner.type), **edge.params)
                if edge in guarded:
                    guarded.add(inner)
                edge = inner
            found.append((edge, term))
        return found

    # ------------------------------------------------------------ comments and the end

    def section(self, title: str) -> None:
        self.lines += ["", f"# ---- {title}"]

    def at(self, step: ForwardStep | BackwardStep, before: Place | None) -> Place:
        """A comment with the user's line, where another one begins."""
        place = step.place
        if place != before:
            where = f"{os.path.basename(place.file)}:{place.line}" if place.file else "?"
            module = f"   in {place.module}" if place.module else ""
            source = place.source if len(place.source) <= 80 else f"{place.source[:79]}…"
            self.lines += ["", f"# {where}   {source}{module}".rstrip()]
        return place

    def ending(self, real: bool, whole: bool) -> Iterator[str]:
        yield from ("", "# ---- the gradients")
        yield from ("", "gradients = {")
        order = [one.name for one in self.derivation.gradients]
        self.gradients = {name: self.gradients[name] for name in order if name in self.gradients}
        for name, (variable, _) in self.gradients.items():
            yield f"    {name!r}: {variable},"
        yield "}"
        if not real:
            yield "for name, gradient in gradients.items():"
            yield ('    print(f"{name}: {np.shape(gradient)}, norm '
                   '{np.linalg.norm(gradient):.6g}")')
            return
        yield "# what explain found"
        total = sum(value.size for _, value in self.gradients.values())
        if whole and total <= MOST_INLINE:
            yield "expected = {"
            for name, (_, value) in self.gradients.items():
                yield f"    {name!r}: {expression_text(value, 15 + len(repr(name)))},"
            yield "}"
        else:
            if self.data_file:
                keys = {}
                for i, (name, (_, value)) in enumerate(self.gradients.items()):
                    keys[name] = f"gradient_{i}"
                    self.stored[keys[name]] = np.array(value)
                if whole:
                    yield LOADING.format(self.data_file)
                yield f"expected = {{name: data[key] for name, key in {keys!r}.items()}}"
            else:
                yield "# (too large to be written here)"
                yield "expected = gradients"
        eps = max((float(np.finfo(v.dtype).eps) for _, v in self.gradients.values()
                   if v.dtype.kind == "f"), default=2e-16)
        tolerance = "1e-12" if eps < 1e-15 else "1e-5" if eps < 1e-6 else "1e-2"
        yield from (
            "for name, gradient in gradients.items():",
            "    difference = np.max(np.abs(gradient - expected[name]), initial=0)",
            "    print(f\"{name}: differs from explain's gradient by {difference:.1e}\")")
        yield (f"    assert np.allclose(gradient, expected[name], {tolerance}, {tolerance}, "
               "equal_nan=True), name")


def guarded_term(term: Code, g: Code) -> Code:
    """As in the backward pass: a zero that a selection sent back stays zero, times infinity too."""
    if term.value is None or g.value is None:
        return term
    safe = bind(TABLE["keep"], term, bind(TABLE["ne"], g, 0))
    same = np.array_equal(safe.value, term.value)
    return term if same else safe


def identifier(name: str) -> str:
    """A name of the user as one of Python: `model.0.weight` as model_0_weight."""
    said = re.sub(r"\W+", "_", name.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))).strip("_")
    if not said or said[0].isdigit():
        said = f"v_{said}" if said else "value"
    said = said if said.isidentifier() else "value"
    return f"{said}_" if keyword.iskeyword(said) or is_builtin(said) else said


def array_text(name: str, value: Any) -> list[str]:
    return f"{name} = {expression_text(value, len(name) + 12)}".split("\n")


def expression_text(value: Any, indent: int = 12) -> str:
    """An array as an expression that gives the same bits again."""
    value = np.asarray(value)
    kind = ast.unparse(fixed(literal(value.dtype)))
    if value.size == 0:
        return f"np.zeros({value.shape}, {kind})"
    with np.printoptions(floatmode="unique", threshold=value.size + 1, linewidth=98,
                         legacy=False):
        body = np.array2string(value, separator=", ", prefix=" " * min(indent, 40))
    body = re.sub(r"\b(inf|nan)\b", r"np.\1", body)
    plain = value.dtype in (np.dtype(float), np.dtype(int), np.dtype(bool))
    return f"np.array({body})" if (plain and "." in body) or (value.dtype.kind in "ib" and plain) \
        else f"np.array({body}, {kind})"


def drawn(value: Any) -> str:
    """A random array like this one: its type, and between its least and its greatest element."""
    kind = ast.unparse(fixed(literal(value.dtype)))
    finite = value[np.isfinite(value)] if value.dtype.kind == "f" else value
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    if value.dtype.kind == "b":
        return f"rng.random({value.shape}) < {float(np.mean(value)):.3g}"
    if value.dtype.kind in "iu":
        return f"rng.integers({int(low)}, {int(high) + 1}, {value.shape}, {kind})"
    if low == high:
        return f"np.full({value.shape}, {float(low)!r}, {kind})"
    made = f"rng.uniform({float(low):.6g}, {float(high):.6g}, {value.shape})"
    return made if value.dtype == np.float64 else f"{made}.astype({kind})"

