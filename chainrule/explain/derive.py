"""Walks the recorded graph of a loss into forward and backward steps, as plain data.

The backward walk is `autodiff.reverse` again, node by node in the same order and with the same
rules, only that the rules run on `Sym`s. Rearrangements (broadcast, reshape, cast) are no steps of
their own unless the user named them: they are written inside the step that uses them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from chainrule.autodiff.reverse import affected, edges_of, reachable
from chainrule.autograd import seed
from chainrule.core.bind import bind
from chainrule.core.errors import NotScalarError
from chainrule.core.node import Node, Origin, scope_path
from chainrule.core.primitive import TABLE
from chainrule.core.record import UNREAD, refuse_number
from chainrule.core.types import ArrayType, type_of
from chainrule.prims.show import Shown, bracket, infix, same

from .naming import Names, condition_text, operand_text
from .numbers import Style, rounded, strength_of
from .recording import Kept, Recording, check_kept, kept_values, saved_values
from .symbol import GRADIENT, Sym, evaluated, written
from .wanted import wanted_nodes

MOST_PATHS = 8       # paths from the loss written out where they meet
LONGEST = 64         # characters of a formula that is written inside another one
plus = infix(" + ", 1)


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
class PathProduct:
    """One path from the loss down: ∂L/∂v·∂v/∂w = formula = numbers = result.

    `through` names what lies on it, from the loss to the end.
    """

    through: tuple[str, ...]
    formula: str
    numbers: str
    result: str
    value: Any


@dataclass(frozen=True)
class BackwardStep:
    """∂L/∂x = formula = numbers = result, what flows back through one forward step to one input.

    A step that reads x several times (w·w) sends back one term for each, added up in one line.

    number    of the forward step it belongs to; 0 for the seed ∂L/∂L = 1
    through   the name of that step's result
    upstream  the gradient that arrives there
    local     the factor that takes it further, where one number belongs to each element
    path      '' if it is the whole gradient; else which of several paths to x this is
    terms     of a sum over paths, the results that are added
    products  of a sum over paths, the product along each of them, where those are few numbers
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
    products: tuple[PathProduct, ...] = ()


@dataclass(frozen=True)
class Gradient:
    """What backpropagation gives for one leaf, or for one tensor of `wrt`."""

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
    recording: Recording | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Fold:
    """How a large network is written: which nodes have names, and what their gradients are called.

    A node that is in neither is written inside the formula that uses it, while that stays short.
    With it a derivation is one of formulas and shapes; nothing is computed.
    """

    names: Mapping[Node, str]
    gradients: Mapping[Node, str]


def derive(loss: Any, scope: Mapping[str, Any], *, names: Mapping[Any, Any] | None = None,
           model: Any = None, style: Style | None = None, wrt: Any = None) -> Derivation:
    """The steps of the forward and the backward pass of `loss`, with names found in `scope`.

    `wrt` limits the backward pass to the paths to some tensors.
    """
    if loss._value is None:
        raise refuse_number("explain()")
    if loss._node is not None and loss.numel() != 1:
        raise NotScalarError(
            f"explain() needs one number, the loss, but this tensor is {type_of(loss._value)}, "
            f"made by {loss._node.name} at {loss._node.origin}. Make it one: explain(y.sum()), "
            "explain(y.mean()), or the element that interests you.")
    start = seed(loss, None, False, "explain()")
    walk = _Walk(loss._node, loss._value, Names(names, model, scope), style or Style(), wrt)
    return walk.run(start)


def folded(recording: Recording, fold: Fold, style: Style) -> tuple[Derivation, dict[Node, str]]:
    """The same derivation once more as formulas and shapes, with names for a few nodes only.

    Returns it with the names of the nodes that have one.
    """
    walk = _Walk(recording.root, recording.values[recording.root], recording.names, style,
                 recording.wanted, fold, recording)
    return walk.run(np.ones(recording.root.shape, recording.root.dtype)), walk.texts


class _Walk:
    """The state of one derivation."""

    def __init__(self, root: Node, value: Any, names: Names, style: Style, wrt: Any = None,
                 fold: Fold | None = None, known: Recording | None = None) -> None:
        self.root = root
        self.style = style
        self.fold = fold
        self.names = names
        self.latest = reachable([self.root])
        self.order = self.latest[::-1]
        if known is None:
            for node in self.latest:
                check_kept(node)
            names.settle(self.order)
            self.values = kept_values(self.latest)
            self.values[self.root] = value
            self.saved = saved_values(self.latest, self.values)
        else:
            self.values, self.saved = known.values, known.saved
        self.kept = Kept(self.saved, self.values)
        self.bars: dict[Node, Any] = {}
        self.wanted = wanted_nodes(wrt, names, self.latest)
        self.uses = Counter(edge for n in self.latest for edge in edges_of(n))
        self.face: dict[Node, Node] = {}
        self.hidden: set[Node] = set()
        for node in self.latest:
            self._put_name_on_result(node)
        rearranged = {n for n in self.latest if self._is_hidden(n)} - self.hidden
        self.hidden |= rearranged
        if self.wanted is not None:
            inner = {shown: node for node, shown in self.face.items()}
            self.wanted = frozenset(inner.get(node, node) for node in self.wanted)
        self.reshaped = self._reshaped(rearranged)
        self.root = self._visible(self.root)
        self.texts: dict[Node, str] = {}
        self.inlined: dict[Node, tuple[Shown, Shown]] = {}
        self.numbers: dict[Node, int] = {}
        self.constants: dict[str, Any] = {}
        self.nameless = names.unnamed("v")
        self.nameless_constants = names.unnamed("c")
        self.live = None if self.wanted is None else affected(self.latest, self.wanted)
        self.paths = Counter(target for n in self.latest if n not in self.hidden
                             and (self.live is None or n in self.live)
                             for target in {self._visible(edge) for edge in edges_of(n)})
        # to each node, from which others something flowed back, and by which factor
        self.flows: dict[Node, list[tuple[Node, Local | None]]] = defaultdict(list)

    def _is_hidden(self, node: Node) -> bool:
        return (node.prim is not None and node.prim.show is same and node is not self.root
                and self.uses[node] == 1 and node not in self.names.of_node
                and (self.wanted is None or node not in self.wanted))

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
                name = None if self.fold is None else self.fold.names.get(node)
                self.texts[node] = name or self.names.of_node.get(node) or next(self.nameless)
                given.append(Given(self.texts[node], self.kept(self.values.get(node)), True))
            else:
                step = self._forward(node, len(forward) + 1)
                forward += [] if step is None else [step]
        given += [Given(name, self.kept(value), False) for name, value in self.constants.items()]
        backward, gradients = self._backward(start)
        return Derivation(self.texts[self.root], tuple(given), tuple(forward), tuple(backward),
                          tuple(gradients), tuple(self._notes()), self._recording())

    def _recording(self) -> Recording | None:
        if self.fold is not None:
            return None
        return Recording(self.root, self.order, self.names, self.texts, self.values, self.bars,
                         self.saved, self.wanted, self.hidden, self.face)

    def _forward(self, node: Node, number: int) -> ForwardStep | None:
        xs = self._operands(node)
        assert node.prim is not None
        names, numbers = written(node.prim, xs, node.params, self.style)
        value = self.values.get(node)
        own = TABLE.get(node.prim.name) is not node.prim         # evaluated by the user's forward
        if self.fold is None and not own and (value is None or self.style.by_hand is not None):
            value = evaluated(node.prim, xs, node.params, self.style)[0]
            self.values[node] = value
        if node.name == "reshape":
            names, numbers = reshaped(names, node.shape), reshaped(numbers, node.shape)
        elif node.prim.show is same:
            form = f"{node.name}({{}})"
            names, numbers = (form.format(names[0]), 9), (form.format(numbers[0]), 9)
        if self._inlines(node, names):
            self.inlined[node] = names, numbers
            return None
        name = self.names.of_node.get(node)
        if self.fold is not None:
            name = self.fold.names.get(node, name)
        if name is None:
            name = "L" if node is self.root else next(self.nameless)
        self.texts[node] = name
        self.numbers[node] = number
        return ForwardStep(number, name, node.name, names[0], numbers[0], self._text(node, value),
                           self._shown(node, value), self.face.get(node, node).shape,
                           place_of(node, self.names))

    def _inlines(self, node: Node, names: Shown) -> bool:
        return (self.fold is not None and node not in self.fold.names and node is not self.root
                and self.uses[node] == 1 and len(names[0]) <= LONGEST)

    def _text(self, node: Node, value: Any) -> str:
        if value is None or self.fold is not None:
            return self.style.type(self.face.get(node, node).type)
        return self.style.array(self._facing(node, value))

    def _shown(self, node: Node, value: Any) -> Any:
        """A value or gradient of `node` to keep, in the shape under which the user knows it."""
        return self._facing(node, self.kept(value))

    def _operands(self, node: Node) -> tuple[Any, ...]:
        """The operands as the rules get them, arrays as Syms."""
        made: dict[Node, Any] = {}
        result: list[Any] = []
        for i, (value, edge) in enumerate(zip(self.saved[node][0], node.inputs,
                                                strict=True)):
            if edge is None and type(value) is np.ndarray:
                result.append(self._constant(node, value))
                continue
            lost = value is None and node.prim is not None and node.prim.kind == "elementwise"
            if edge is None and (lost or type(value) is ArrayType):
                result.append(self._lost(node, i, node.type if lost else value))
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
            return self._sym(shown, None if self.fold is not None else value, edge.type)
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

    def _lost(self, node: Node, i: int, type_: ArrayType) -> Sym:
        """A constant that no rule reads was not kept; the user's line still says its name."""
        text = operand_text(node.code, node.lasti, i) or "…"
        numbers = self.style.type(type_)
        return Sym((text, 9), None, self.style, type=type_, numbers=(numbers, 9))

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
            operands = self._operands(node)
            inner = operands[0]
            if value is None and inner.value is not None and node.prim is not None:
                value = evaluated(node.prim, operands, node.params, self.style)[0]
            if node in self.reshaped:
                text = self._text(node, value)
                return Sym(reshaped(inner.names, node.shape), value, self.style, type=type_,
                           numbers=(text, strength_of(text)))
            return Sym(inner.names, value, self.style, type=type_, numbers=inner.numbers)
        if node in self.inlined:
            names, numbers = self.inlined[node]
            return Sym(names, None, self.style, type=type_, numbers=numbers)
        return Sym((self.texts[node], 9), value, self.style, type=type_,
                   numbers=self._numbers(node, value))

    def _numbers(self, node: Node, value: Any) -> Shown | None:
        if self.fold is None and (value is None or node not in self.face):
            return None
        text = self._text(node, value)
        return text, strength_of(text)

    # ------------------------------------------------------------ backward

    def _backward(self, start: Any) -> tuple[list[BackwardStep], list[Gradient]]:
        loss = self.texts[self.root]
        steps = [BackwardStep(0, loss, f"∂{loss}/∂{loss}", "seed", loss, "1", "1", "1",
                              self.kept(start), self.root.shape, place_of(self.root, self.names))]
        arrived: dict[Node, list[_Term]] = defaultdict(list)
        seed_ = Sym(("1", 9), start.reshape(self.root.shape), self.style)
        arrived[self.root].append(_Term(seed_, (seed_.value,)))
        gradients = []
        guarded: set[Node] = set()
        for node in self.latest:
            terms = arrived.pop(node, None)
            if terms is None:
                continue
            g = self._gradient(node, terms)
            value = self.bars[node] = g.value
            if len(terms) > 1:
                steps.append(self._sum(node, self._gradient_name(node), terms, g))
            if node.prim is None or node.plan is UNREAD or (
                    self.wanted is not None and node in self.wanted):
                face = self.face.get(node, node)
                gradients.append(Gradient(self._name(node), face.shape,
                                          self._shown(node, self.values.get(node)),
                                          self._shown(node, value)))
                if node.prim is None or node.plan is UNREAD or (
                        self.live is not None and self.live.isdisjoint(edges_of(node))):
                    continue
            for target, term, local, path in self._flow(node, g, guarded):
                arrived[target].append(term)
                self.flows[target].append((node, local))
                several = self.paths[target] > 1
                sym = term.sym
                steps.append(BackwardStep(
                    self.numbers.get(node, 0), self._name(target), self._gradient_name(target),
                    node.name, self._name(node), sym.names[0], sym.numbers[0],
                    self._text(target, sym.value), self._shown(target, sym.value),
                    self.face.get(target, target).shape, place_of(node, self.names),
                    self._shown(node, value), local, path if several else ""))
        by_name = {one.name: one for one in gradients}
        return steps, [by_name[name] for name in dict.fromkeys(map(self._name, self.order))
                       if name in by_name]

    def _name(self, node: Node) -> str:
        return self.texts.get(node) or (self.inlined[node][0][0] if node in self.inlined else "")

    def _gradient_name(self, node: Node) -> str:
        if self.fold is not None and node in self.fold.gradients:
            return self.fold.gradients[node]
        return f"∂{self.texts[self.root]}/∂{bracket(self._name(node), 9, 9)}"

    def _gradient(self, node: Node, terms: list[_Term]) -> Sym:
        """∂L/∂node: what arrived, added in the order in which the backward pass adds it."""
        if self.fold is not None:
            sym = terms[0].sym if len(terms) == 1 else added(terms)
            if node is self.root:
                return Sym(sym.names, None, self.style, type=node.type, numbers=("1", 9),
                           unit=True)
            if node not in self.fold.gradients and len(sym.names[0]) <= LONGEST:
                return sym
            text = self._text(node, None)
            return Sym((self._gradient_name(node), GRADIENT), None, self.style, type=node.type,
                       numbers=(text, strength_of(text)))
        value: Any = None
        for one in [value for term in terms for value in term.values]:
            value = one if value is None else value + one
            if self.style.by_hand is not None:
                value = rounded(value, self.style.by_hand)
        return Sym((self._gradient_name(node), GRADIENT), value, self.style, type=node.type,
                   numbers=self._numbers(node, value))

    def _sum(self, node: Node, name: str, terms: list[_Term], g: Sym) -> BackwardStep:
        texts = tuple(self._text(node, term.sym.value) for term in terms)
        shown = [f"({t})" if i and t.startswith("−") else t for i, t in enumerate(texts)]
        formula = "sum over the paths" if self.fold is None else added(terms).names[0]
        return BackwardStep(
            self.numbers.get(node, 0), self._name(node), name, "sum", "", formula,
            " + ".join(shown), self._text(node, g.value), self._shown(node, g.value),
            self.face.get(node, node).shape,
            place_of(node, self.names), terms=texts, products=self._products(node))

    def _products(self, node: Node) -> tuple[PathProduct, ...]:
        """The product along each path from the loss to a number, if they are few."""
        if self.fold is not None or self.style.by_hand is not None or node.shape:
            return ()
        done: list[list[tuple[Node, Local]]] = []
        open_: list[tuple[Node, list[tuple[Node, Local]]]] = [(node, [])]
        while open_:
            here, path = open_.pop()
            if here is self.root:
                done.append(path)
                continue
            for before, local in reversed(self.flows[here]):
                if local is None or local.value is None or local.value.ndim:
                    return ()
                open_.append((before, [(here, local), *path]))
            if len(done) + len(open_) > MOST_PATHS:
                return ()
        return tuple(map(self._product, done))

    def _product(self, path: list[tuple[Node, Local]]) -> PathProduct:
        value: Any = 1.0
        numbers: list[str] = []
        for _, local in path:
            value = value * local.value
            text = local.result
            numbers.append(f"({text})" if numbers and text.startswith("−") else text)
        value = np.asarray(value)
        return PathProduct(
            (self.texts[self.root], *(self.texts[node] for node, _ in path)),
            "·".join(local.name for _, local in path), "·".join(numbers),
            self.style.array(value), value)

    def _flow(self, node: Node, g: Sym, guarded: set[Node]
              ) -> list[tuple[Node, _Term, Local | None, str]]:
        """What goes from one node to each of its inputs: target, gradient, factor, path."""
        prim = node.prim
        assert prim is not None
        if node in self.inlined:
            names, numbers = self.inlined[node]
            y = Sym(names, None, self.style, type=node.type, numbers=numbers)
        else:
            read = self.saved[node][1] is not None or self.style.by_hand is not None
            out = self.values.get(node) if read and self.fold is None else None
            y = Sym((self.texts[node], 9), out, self.style, type=node.type,
                    numbers=self._numbers(node, out))
        xs = self._operands(node)
        unit = Sym(("1", 9), np.ones(node.shape, node.dtype), self.style, unit=True)
        found: dict[Node, list[tuple[Sym, Sym | None]]] = {}
        for i, edge in enumerate(node.inputs):
            pull = prim.pulls[i]
            if edge is None or pull is None or (self.live is not None and edge not in self.live):
                continue
            own = TABLE.get(prim.name) is not prim
            term = self._by_user(node, i, g) if own else pull(g, y, *xs, **node.params)
            if node.name == "reshape":
                term = restored(term, edge.shape)
            if prim.selects:
                guarded.add(edge)
            elif node in guarded:
                guarded.add(edge)
                term = guarded_term(term, g) if prim.kind == "elementwise" else term
            pointwise = prim.kind == "elementwise" or node.shape == ()
            pointwise = pointwise and self.fold is None and not own
            local = pull(unit, y, *xs, **node.params) if pointwise else None
            while edge in self.hidden:
                self.bars[edge] = term.value
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
            found.setdefault(edge, []).append((term, local))
        result = []
        for target, pairs in found.items():
            terms = [_Term(term, (term.value,)) for term, _ in pairs]
            locals_ = [_Term(one, (one.value,)) for _, one in pairs if one is not None]
            factor = None
            if len(locals_) == len(pairs):
                one = locals_[0].sym if len(pairs) == 1 else added(locals_)
                factor = Local(f"∂{self.texts[node]}/∂{self.texts[target]}", one.names[0],
                               one.numbers[0], one.result, self.kept(one.value))
            whole = terms[0] if len(pairs) == 1 else _Term(
                added(terms), tuple(value for term in terms for value in term.values))
            result.append((target, whole, factor, f"via {self._name(node)}"))
        return result

    def _by_user(self, node: Node, i: int, g: Sym) -> Sym:
        """What the backward() of a custom function answers: its value is known, not its rule."""
        edge = node.inputs[i]
        assert node.prim is not None and edge is not None
        name = f"{node.name}.backward"
        if g.value is None:
            return Sym((f"{name}({g.names[0]})", 9), None, self.style, type=edge.type)
        pull: Any = node.prim.pulls[i]
        value = pull(g.value, node, *self.saved[node][0], **node.params)
        return Sym((f"{name}({g.names[0]})", 9), value, self.style,
                   numbers=(f"{name}({g.numbers[0]})", 9))

    def _notes(self) -> list[str]:
        notes = []
        for node in self.order:
            hooks = [key for key in (node.hooks or ()) if key != "retain"]
            if hooks and node in self.texts:
                notes.append(f"{self.texts[node]} has a hook that backward() will run on its "
                             "gradient; it is not run here.")
        return notes


class _Term(NamedTuple):
    """What one step sends to one node: as it is written, and the values that are added."""

    sym: Sym
    values: tuple[Any, ...]


def added(terms: Sequence[_Term]) -> Sym:
    """The sum of what several operands send to the same node: ∂L/∂z·w + ∂L/∂z·w."""
    first = terms[0].sym
    names, numbers, value = first.names, first.numbers, first.value
    for term in terms[1:]:
        names, numbers = plus(names, term.sym.names), plus(numbers, term.sym.numbers)
        value = None if value is None else value + term.sym.value
    return Sym(names, value, first.style, numbers=numbers, type=first.type)


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


def place_in_code(node: Node) -> tuple[Any, ...]:
    """The instruction and module call that made the node."""
    return node.code, node.lasti, None if node.scope is None else id(node.scope[1])


def place_of(node: Node, names: Names) -> Place:
    key = (node.code, node.lasti, id(node.scope))
    place = names.places.get(key)
    if place is None:
        origin = Origin.of(node.code, node.lasti, None)
        module = ""
        if node.scope is not None:
            module = names.modules.get(id(node.scope[1])) or scope_path(node.scope)
        place = names.places[key] = Place(
            origin.file, origin.line, origin.source() if origin.file else "", module)
    return place
