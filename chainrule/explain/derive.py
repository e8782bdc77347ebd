"""Walks the recorded graph of a loss into forward and backward steps, as plain data.

The backward walk is `autodiff.reverse` again, node by node in the same order and with the same
rules, only that the rules run on `Sym`s. Rearrangements (broadcast, reshape, cast) are no steps of
their own unless the user named them: they are written inside the step that uses them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from chainrule.autodiff.reverse import reachable
from chainrule.autograd import seed
from chainrule.core.bind import bind
from chainrule.core.errors import FreedGraphError, NotScalarError, OverwrittenError
from chainrule.core.node import Node, Origin, written_after
from chainrule.core.primitive import TABLE
from chainrule.core.record import UNREAD, refuse_number
from chainrule.core.types import ArrayType, type_of
from chainrule.prims.show import Shown, bracket, same

from .naming import Names, condition_text
from .numbers import Style, rounded, strength_of
from .symbol import GRADIENT, Sym, evaluated, written


class Place(NamedTuple):
    """The user's line, and the module that was running there."""

    file: str
    line: int
    source: str
    module: str


@dataclass(frozen=True)
class ForwardStep:
    """name = formula = numbers = result. `value` is None where the tape did not keep it."""

    number: int
    name: str
    operation: str
    formula: str
    numbers: str
    result: str
    value: Any
    shape: tuple[int, ...]
    place: Place


@dataclass(frozen=True)
class Local:
    """The factor by which a step multiplies the upstream gradient: ∂a/∂z = formula = numbers."""

    name: str
    formula: str
    numbers: str
    result: str
    value: Any


@dataclass(frozen=True)
class BackwardStep:
    """∂L/∂x = formula = numbers = result, what flows back through one forward step to one input.

    number    of the forward step it belongs to; 0 for the seed ∂L/∂L = 1
    through   the name of that step's result
    upstream  the gradient that arrives there
    local     the factor that takes it further, where one number belongs to each element
    path      '' if it is the whole gradient; else which of several paths to x this is
    terms     of a sum over paths, the results that are added
    """

    number: int
    of: str
    name: str
    operation: str
    through: str
    formula: str
    numbers: str
    result: str
    value: Any
    shape: tuple[int, ...]
    place: Place
    upstream: Any = None
    local: Local | None = None
    path: str = ""
    terms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gradient:
    """What backpropagation gives for one leaf."""

    name: str
    shape: tuple[int, ...]
    value: Any
    gradient: Any


@dataclass(frozen=True)
class Given:
    """A number the forward pass starts from: a leaf or a constant."""

    name: str
    value: Any
    tracked: bool


@dataclass(frozen=True)
class Derivation:
    """Everything there is to tell about one backward pass."""

    loss: str
    given: tuple[Given, ...]
    forward: tuple[ForwardStep, ...]
    backward: tuple[BackwardStep, ...]
    gradients: tuple[Gradient, ...]
    notes: tuple[str, ...] = field(default=())


def derive(loss: Any, scope: Mapping[str, Any], *, names: Mapping[Any, Any] | None = None,
           model: Any = None, style: Style | None = None) -> Derivation:
    """The steps of the forward and the backward pass of `loss`, with names found in `scope`."""
    if loss._value is None:
        raise refuse_number("explain()")
    if loss._node is not None and loss.numel() != 1:
        raise NotScalarError(
            f"explain() needs one number, the loss, but this tensor is {type_of(loss._value)}, "
            f"made by {loss._node.name} at {loss._node.origin}. Make it one: explain(y.sum()), "
            "explain(y.mean()), or the element that interests you.")
    start = seed(loss, None, False, "explain()")
    return _Walk(loss, Names(names, model, scope), style or Style()).run(start)


class _Walk:
    """The state of one derivation."""

    def __init__(self, loss: Any, names: Names, style: Style) -> None:
        self.root: Node = loss._node
        self.style = style
        self.names = names
        self.latest = reachable([self.root])
        self.order = self.latest[::-1]
        for node in self.latest:
            check_kept(node)
        names.settle(self.order)
        self.values = kept_values(self.latest)
        self.values[self.root] = loss._value
        self.uses = Counter(edge for n in self.latest for edge in edges_of(n))
        self.face: dict[Node, Node] = {}
        self.hidden: set[Node] = set()
        for node in self.latest:
            self._put_name_on_result(node)
        rearranged = {n for n in self.latest if self._is_hidden(n)} - self.hidden
        self.hidden |= rearranged
        self.reshaped = self._reshaped(rearranged)
        self.root = self._visible(self.root)
        self.texts: dict[Node, str] = {}
        self.numbers: dict[Node, int] = {}
        self.constants: dict[str, Any] = {}
        self.nameless = names.unnamed("v")
        self.nameless_constants = names.unnamed("c")
        self.paths = Counter(target for n in self.latest if n not in self.hidden
                             for target in map(self._visible, edges_of(n)))

    def _is_hidden(self, node: Node) -> bool:
        return (node.prim is not None and node.prim.show is same and node is not self.root
                and self.uses[node] == 1 and node not in self.names.of_node)

    def _reshaped(self, rearranged: set[Node]) -> set[Node]:
        """The hidden reshapes that the user wrote, rather than an operation for itself."""
        user = {edge: n for n in self.latest for edge in edges_of(n)}
        result = set()
        for node in rearranged:
            if node.name != "reshape" or node.shape == edges_of(node)[0].shape:
                continue
            after = user.get(node)
            while after is not None and after in self.hidden:
                after = user.get(after)
            if after is not None and place_in_code(node) != place_in_code(after):
                result.add(node)
        return result

    def _put_name_on_result(self, node: Node) -> None:
        """A product of vectors ends in a reshape: the product itself gets its name and shape."""
        if node.name != "reshape" or node in self.hidden:
            return
        between = [node]
        (inner,) = edges_of(node)
        while inner.name == "reshape" and self.uses[inner] == 1 and (
                inner not in self.names.of_node):
            between.append(inner)
            (inner,) = edges_of(inner)
        if (inner.prim is None or inner.prim.show is same or self.uses[inner] > 1
                or place_in_code(inner) != place_in_code(node)
                or inner in self.names.of_node):
            return
        self.hidden.update(between)
        self.face[inner] = node
        if node in self.names.of_node:
            self.names.of_node[inner] = self.names.of_node[node]

    def _facing(self, node: Node, value: Any) -> Any:
        """A value or gradient of `node` in the shape under which the user knows it."""
        face = self.face.get(node, node)
        return value if value is None else np.reshape(value, face.shape)

    def _visible(self, node: Node) -> Node:
        while node in self.hidden:
            (node,) = edges_of(node)
        return node

    # ------------------------------------------------------------ forward

    def run(self, start: Any) -> Derivation:
        forward: list[ForwardStep] = []
        given: list[Given] = []
        for node in self.order:
            if node in self.hidden:
                if self.style.by_hand is not None:
                    xs = self._operands(node)
                    assert node.prim is not None
                    self.values[node] = evaluated(node.prim, xs, node.params, self.style)[0]
                continue
            if node.prim is None or node.plan is UNREAD:
                self.texts[node] = self.names.of_node.get(node) or next(self.nameless)
                given.append(Given(self.texts[node], copied(self.values.get(node)), True))
            else:
                forward.append(self._forward(node, len(forward) + 1))
        given += [Given(name, copied(value), False) for name, value in self.constants.items()]
        backward, gradients = self._backward(start)
        return Derivation(self.texts[self.root], tuple(given), tuple(forward), tuple(backward),
                          tuple(gradients), tuple(self._notes()))

    def _forward(self, node: Node, number: int) -> ForwardStep:
        xs = self._operands(node)
        assert node.prim is not None
        names, numbers = written(node.prim, xs, node.params, self.style)
        value = self.values.get(node)
        if value is None or self.style.by_hand is not None:
            value = evaluated(node.prim, xs, node.params, self.style)[0]
            self.values[node] = value
        if node.name == "reshape":
            names, numbers = reshaped(names, node.shape), reshaped(numbers, node.shape)
        elif node.prim.show is same:
            form = f"{node.name}({{}})"
            names, numbers = (form.format(names[0]), 9), (form.format(numbers[0]), 9)
        name = self.names.of_node.get(node)
        if name is None:
            name = "L" if node is self.root else next(self.nameless)
        self.texts[node] = name
        self.numbers[node] = number
        return ForwardStep(number, name, node.name, names[0], numbers[0], self._text(node, value),
                           self._shown(node, value), self.face.get(node, node).shape,
                           place_of(node, self.names))

    def _text(self, node: Node, value: Any) -> str:
        if value is None:
            return str(self.face.get(node, node).type)
        return self.style.array(self._facing(node, value))

    def _shown(self, node: Node, value: Any) -> Any:
        """A copy of a value or gradient of `node`, in the shape under which the user knows it."""
        return copied(self._facing(node, value))

    def _operands(self, node: Node) -> tuple[Any, ...]:
        """The operands as the rules get them, arrays as Syms."""
        made: dict[Node, Any] = {}
        result: list[Any] = []
        for value, edge in zip(node.saved, node.inputs, strict=True):
            if edge is None and type(value) is np.ndarray:
                result.append(self._constant(node, value))
                continue
            if edge in made:                  # x·x: one operand, written x²
                result.append(made[edge])
                continue
            result.append(self._operand(value, edge))
            if edge is not None:
                made[edge] = result[-1]
        return tuple(result)

    def _operand(self, value: Any, edge: Node | None) -> Any:
        if edge is not None:
            shown = edge
            if edge.name == "broadcast" and getattr(value, "shape", None) != edge.shape:
                (edge,) = edges_of(edge)      # the rules get what NumPy will stretch
            if type(value) is not np.ndarray or self.style.by_hand is not None:
                value = self.values.get(edge)
            return self._sym(shown, value, edge.type)
        if value is None:
            return None
        if not hasattr(value, "shape"):
            return value                      # a Python number: rules look at its class
        if type(value) is not np.ndarray:
            return Sym(("…", 9), None, self.style, type=type_of(value))
        name, known = self.names.constant(value)
        if name is None and value.size > self.style.elements:
            name = next((k for k, v in self.constants.items() if v is value), None) or next(
                self.nameless_constants)
            known = value
        if name is None:
            text = self.style.array(value)
            return Sym((text, strength_of(text)), value, self.style)
        self.constants.setdefault(name.removesuffix("ᵀ"), known)
        text = self.style.array(known if name[-1] != "ᵀ" else value)
        return Sym((name, 4 if name[-1] == "ᵀ" else 9), value, self.style,
                   numbers=(text, strength_of(text)))

    def _constant(self, node: Node, value: Any) -> Any:
        """A comparison was not recorded, since no gradient flows: its text stands in the line."""
        answers = value.dtype == np.bool_ or (
            node.name == "mul" and bool(np.all((value == 0) | (value == 1))))
        if not answers or self.names.constant(value)[0] is not None:
            return self._operand(value, None)
        text = condition_text(node.code, node.lasti)
        return Sym((text, 9), value, self.style) if text else self._operand(value, None)

    def _sym(self, node: Node, value: Any, type_: ArrayType) -> Sym:
        """The result of a node under its name; of a hidden one as its operand is written."""
        if node in self.hidden:
            inner = self._operands(node)[0]
            if node in self.reshaped:
                return Sym(reshaped(inner.names, node.shape), value, self.style, type=type_)
            return Sym(inner.names, value, self.style, type=type_, numbers=inner.numbers)
        return Sym((self.texts[node], 9), value, self.style, type=type_,
                   numbers=self._numbers(node, value))

    def _numbers(self, node: Node, value: Any) -> Shown | None:
        if value is None or node not in self.face:
            return None
        text = self._text(node, value)
        return text, strength_of(text)

    # ------------------------------------------------------------ backward

    def _backward(self, start: Any) -> tuple[list[BackwardStep], list[Gradient]]:
        loss = self.texts[self.root]
        steps = [BackwardStep(0, loss, f"∂{loss}/∂{loss}", "seed", loss, "1", "1", "1",
                              copied(start), self.root.shape, place_of(self.root, self.names))]
        arrived: dict[Node, list[Sym]] = defaultdict(list)
        arrived[self.root].append(Sym(("1", 9), start.reshape(self.root.shape), self.style))
        gradients = []
        guarded: set[Node] = set()
        for node in self.latest:
            terms = arrived.pop(node, None)
            if terms is None:
                continue
            name = f"∂{loss}/∂{self.texts[node]}"
            value: Any = terms[0].value
            for term in terms[1:]:
                value = value + term.value
                if self.style.by_hand is not None:
                    value = rounded(value, self.style.by_hand)
            g = Sym((name, GRADIENT), value, self.style, type=node.type,
                    numbers=self._numbers(node, value))
            if len(terms) > 1:
                steps.append(self._sum(node, name, terms, g))
            if node.prim is None or node.plan is UNREAD:
                gradients.append(Gradient(self.texts[node], node.shape,
                                          copied(self.values.get(node)), copied(value)))
                continue
            for target, term, local, path in self._flow(node, g, guarded):
                arrived[target].append(term)
                several = self.paths[target] > 1
                steps.append(BackwardStep(
                    self.numbers[node], self.texts[target], f"∂{loss}/∂{self.texts[target]}",
                    node.name, self.texts[node], term.names[0], term.numbers[0],
                    self._text(target, term.value), self._shown(target, term.value),
                    self.face.get(target, target).shape, place_of(node, self.names),
                    self._shown(node, value), local, path if several else ""))
        by_name = {one.name: one for one in gradients}
        return steps, [by_name[self.texts[n]] for n in self.order
                       if n.prim is None and self.texts[n] in by_name]

    def _sum(self, node: Node, name: str, terms: list[Sym], g: Sym) -> BackwardStep:
        texts = tuple(self._text(node, term.value) for term in terms)
        shown = [f"({t})" if i and t.startswith("−") else t for i, t in enumerate(texts)]
        return BackwardStep(
            self.numbers.get(node, 0), self.texts[node], name, "sum", "", "sum over the paths",
            " + ".join(shown), self._text(node, g.value), self._shown(node, g.value),
            self.face.get(node, node).shape,
            place_of(node, self.names), terms=texts)

    def _flow(self, node: Node, g: Sym, guarded: set[Node]
              ) -> list[tuple[Node, Sym, Local | None, str]]:
        """What goes from one node to each of its inputs: target, gradient, factor, path."""
        prim = node.prim
        assert prim is not None
        out = self.values.get(node) if node.out is not None or self.style.by_hand else None
        y = Sym((self.texts[node], 9), out, self.style, type=node.type,
                numbers=self._numbers(node, out))
        xs = self._operands(node)
        unit = Sym(("1", 9), np.ones(node.shape, node.dtype), self.style, unit=True)
        found = []
        for i, edge in enumerate(node.inputs):
            pull = prim.pulls[i]
            if edge is None or pull is None:
                continue
            term = pull(g, y, *xs, **node.params)
            if node.name == "reshape":
                term = restored(term, edge.shape)
            if prim.selects:
                guarded.add(edge)
            elif node in guarded:
                guarded.add(edge)
                term = guarded_term(term, g) if prim.kind == "elementwise" else term
            pointwise = prim.kind == "elementwise" or node.shape == ()
            local = pull(unit, y, *xs, **node.params) if pointwise else None
            while edge in self.hidden:
                if edge.name not in ("cast", "identity"):
                    local = None if edge.shape != () else local
                (inner,) = edges_of(edge)
                shape = Sym(("", 9), None, self.style, type=inner.type)
                back: Any = edge.prim.pulls[0] if edge.prim is not None else None
                term = back(term, edge, shape, **edge.params)
                if edge in self.reshaped:
                    term = restored(term, inner.shape)
                if edge in guarded:
                    guarded.add(inner)
                edge = inner
            target = edge
            factor = None if local is None else Local(
                f"∂{self.texts[node]}/∂{self.texts[target]}", local.names[0], local.numbers[0],
                local.result, copied(local.value))
            found.append((target, term, factor, f"via {self.texts[node]}"))
        twice = Counter(target for target, *_ in found)
        seen: Counter[Node] = Counter()
        result = []
        for target, term, factor, path in found:
            seen[target] += 1
            result.append((target, term, factor,
                           f"{path}, {seen[target]}" if twice[target] > 1 else path))
        return result

    def _notes(self) -> list[str]:
        notes = []
        for node in self.order:
            hooks = [key for key in (node.hooks or ()) if key != "retain"]
            if hooks and node in self.texts:
                notes.append(f"{self.texts[node]} has a hook that backward() will run on its "
                             "gradient; it is not run here.")
        return notes


def reshaped(shown: Shown, shape: tuple[int, ...]) -> Shown:
    """`y as 4×3×2`: the same numbers, arranged anew."""
    sizes = "×".join(map(str, shape)) if len(shape) > 1 else (
        f"{shape[0]} number{'' if shape[0] == 1 else 's'}" if shape else "one number")
    return f"{bracket(*shown, 4)} as {sizes}", 0


def restored(term: Sym, shape: tuple[int, ...]) -> Sym:
    """A gradient on its way back through a reshape."""
    return Sym(reshaped(term.names, shape), term.value, term.style, type=term.type,
               numbers=reshaped(term.numbers, shape))


def guarded_term(term: Any, g: Any) -> Any:
    """As in reverse: a zero that a selection sent back stays zero, even times infinity."""
    safe = bind(TABLE["keep"], term, bind(TABLE["ne"], g, 0))
    unchanged: Any = np.equal(safe.value, term.value)
    return term if np.all(unchanged) else safe


# ---------------------------------------------------------------- what the tape kept


def edges_of(node: Node) -> list[Node]:
    """The nodes a gradient goes to from this one."""
    return [] if node.plan is UNREAD else [edge for edge in node.inputs if edge is not None]


def kept_values(latest: list[Node]) -> dict[Node, Any]:
    """The values of nodes, from what they or those who used them saved, and from live leaves."""
    values: dict[Node, Any] = {}
    for node in latest:
        if type(node.out) is np.ndarray:
            values[node] = node.out
        for value, edge in zip(node.saved, node.inputs, strict=True):
            if edge is None or type(value) is not np.ndarray:
                continue
            if edge.name == "broadcast" and value.shape != edge.shape:
                edge = edges_of(edge)[0]
            values.setdefault(edge, value)
    for node in latest:
        if node.prim is None and node not in values and node.out is not None:
            tensor = node.out()
            if tensor is not None and tensor._node is node:
                values[node] = tensor._value
    return values


def check_kept(node: Node) -> None:
    """Raise if numbers the rules need were dropped, or were overwritten since."""
    if node.plan is None or node.plan is UNREAD:
        return
    if node.freed is not None and (len(node.saved) < len(node.inputs) or (
            node.plan.output == 2 and node.out is None)):
        raise FreedGraphError(
            f"explain(): the numbers of {node.name} ({node.type}) at {node.origin} are gone: the "
            f"backward pass at {node.freed} dropped them.\n    {node.origin.source()}\n"
            "Call cr.explain(loss) before loss.backward(), or write backward(retain_graph=True). "
            "Values of at most cr.settings.keep_small elements stay in any case, so one example "
            "instead of a whole batch can also be explained afterwards.")
    for value in node.saved:
        if type(value) is np.ndarray:
            write = written_after(value, node.seq)
            if write is not None:
                raise OverwrittenError(
                    f"explain(): {type_of(value)}, which {node.name} used at {node.origin}, was "
                    f"changed since by {write.what} at {write.origin}.\n"
                    f"    {write.origin.source()}\nThe numbers of that forward pass no longer "
                    "exist. Call cr.explain(loss) before that line (most often: before "
                    "optimizer.step()).")


def place_in_code(node: Node) -> tuple[Any, ...]:
    """The instruction and module call that made the node."""
    return node.code, node.lasti, None if node.scope is None else id(node.scope[1])


def place_of(node: Node, names: Names) -> Place:
    origin: Origin = node.origin
    module = ""
    if node.scope is not None:
        module = names.modules.get(id(node.scope[1])) or origin.module
    return Place(origin.file, origin.line, origin.source() if origin.file else "", module)


def copied(value: Any) -> Any:
    return None if value is None else np.array(value)
