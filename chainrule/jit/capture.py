"""The one run of a compiled function, without numbers: what it touches and what it changes.

Everything from outside is lifted when touched (see slots.py). Inside, a value is a node and memory
is modelled: a tensor and its views and detached twins are one group, and a write through one of
them gives all of them new values. What PyTorch and the eager engine do to memory without telling
the graph (updates under no_grad, writes through .data) is told here by *bound* nodes: a node that
stands in the graph of gradients where the old one stood, and has another value.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import reachable, second_pass
from chainrule.core.bind import Value, bind, state
from chainrule.core.errors import (
    GradientError,
    LeafError,
    ShapeError,
    TracedValueError,
)
from chainrule.core.node import Node, Origin, here, storage_of
from chainrule.core.primitive import TABLE
from chainrule.core.record import (
    INPUT,
    NO_PARAMS,
    UNREAD,
    extra,
    new,
    refuse_leaked,
)
from chainrule.core.types import SHORT_NAMES, ArrayType, as_dtype, scalar_dtype, type_of

from . import layout, memory, options, slots
from .memory import copied, is_tracked, same_memory, shares_memory
from .numbers import Number, Tape
from .slots import Shadow

Array = np.ndarray[Any, Any]


class Input:
    """A value that each call brings: `kind` says from where.

    kind      "argument" (place: its number), "state" (the tensor), "gradient" (the shadow whose
              .grad it is), "number" (where an option of an optimiser is kept), "key" (a generator),
              "draw" (a generator, an offset and the function that draws), "scalar" (a number the
              evaluation of Python numbers keeps, and its dtype)
    """

    __slots__ = ("kind", "node", "place", "shadow")

    def __init__(self, kind: str, place: Any, node: Any, shadow: Shadow | None = None) -> None:
        self.kind = kind
        self.place = place
        self.node = node
        self.shadow = shadow


class Capture:
    """One run. `arguments` are the leaves of the arguments, `outside` owners of user's arrays,
    `loose` the names of arguments that are numbers of each call.

    shadows    what was lifted, by id; the tensors are kept alive by their shadows
    made       weak references to the tensors with numbers made in the run: constants, unless a
               traced value is written into them
    handles    weak references to the tensors without numbers made in the run
    bound      the value of a node that stands for another in the graph of gradients
    """

    def __init__(self, arguments: Sequence[Any], outside: dict[int, str],
                 loose: Mapping[int, str] = MappingProxyType({})) -> None:
        self.arguments: dict[int, int] = {}
        for number, x in enumerate(arguments):
            if isinstance(x, Value):
                self.arguments.setdefault(id(x), number)
        self.outside = outside
        self.tape = Tape(partial(self.source, "scalar")) if loose else None
        self.refused: Exception | None = None          # a number that was asked for in vain
        self.shadows: dict[int, Shadow] = {}
        self.made: dict[int, Any] = {}
        self.handles: list[Any] = []
        self.bound: dict[Node, Any] = {}
        self.leaves: dict[Node, Shadow] = {}     # the tensors that leaves of the run stand for
        self.origins: dict[Node, Shadow] = {}    # and those of all that came from outside
        self.memory_of: dict[Node, Node] = {}    # after a write: the node that made the memory
        self.layouts: dict[Node, Any] = {}       # see layout.py
        self.inputs: list[Input] = []
        self.owners: dict[int, list[Shadow]] = {}
        self.grad_owner: dict[int, Shadow] = {}
        self.history: set[Node] = set()          # inputs that were computed outside, with a history
        self.consumed: dict[Node, Any] = {}      # what backward passes of the run went through
        self.starts: set[Node] = set()           # where transforms such as func.grad begin
        self.keys: dict[int, tuple[Any, Any, list[int]]] = {}
        self.numbers: dict[tuple[int, Any], Any] = {}
        self.truths: list[tuple[Any, Any, bool]] = []
        self.optimizers: dict[int, Any] = {}
        self.others: list[Any] = []              # optimisers with a step of their own
        self.undo: list[Callable[[], Any]] = []
        self.shared = ""                         # tensors whose memory the graph cannot tell apart
        self.steps = 0                   # of optimisers
        self.once = ""                           # why what was recorded serves this call alone
        self.arrays: list[Any] = []              # arrays of the user that were lifted
        self.frozen: set[int] = set()            # owners of those whose numbers became constants
        self.fresh: set[int] = set()             # parameters whose first step this is
        self.copies: list[tuple[Any, Any]] = []  # a tensor and its contiguous()

    # ------------------------------------------------------------ lifting

    def is_made(self, tensor: Any) -> bool:
        """Was it made in this run?"""
        if id(tensor) in self.made:
            return True
        try:
            return slots.value_of(tensor) is None
        except AttributeError:                   # being made just now
            return True

    def shadow_of(self, tensor: Any) -> Shadow | None:
        """The shadow of a tensor from outside, lifted if it was not; None for one made here."""
        found = self.shadows.get(id(tensor))
        if found is not None:
            return found
        try:
            if slots.value_of(tensor) is None:
                return None
        except AttributeError:                   # being made just now
            return None
        return None if id(tensor) in self.made else self.lift(tensor)

    def lift(self, tensor: Any) -> Shadow:
        """Let a shadow stand for a tensor from outside."""
        shadow = self.shadows[id(tensor)] = Shadow(tensor)
        array = shadow.array
        known = slots.extra_of(tensor)
        parent = None
        place = self.arguments.get(id(tensor))
        if known is not None:
            shadow.extra = copied(known)
            if place is None:
                parent = known.parent
            else:                    # each call brings another: whose view it is does not matter
                shadow.extra.parent, shadow.extra.children = None, []
        if parent is not None and shares_memory(parent, array):
            with self.recorded_as(shadow.leaf is not None):
                prim, params = known.view_of
                view = bind(prim, new(None, parent._node), **params)
            if shadow.leaf is not None and not is_tracked(view._node):
                raise GradientError(
                    f"a view ({type_of(array)}) of a tensor that no longer requires a gradient is "
                    "used in a compiled function. Make the view inside the function.")
            shadow.start = shadow.node = view._node
            return shadow
        owner = id(storage_of(array))
        neighbours = self.owners.setdefault(owner, [])
        twin = None if place is not None else next(
            (other for other in neighbours if not is_argument(other)
             and same_memory(other.array, array)), None)
        if any(other.left is not None and np.may_share_memory(other.array, array)
               for other in neighbours):
            self.shared = f"{type_of(array)} and a tensor that left this memory by .data ="
        neighbours.append(shadow)
        if twin is not None:
            extra(tensor).alias_of = twin.tensor
            extra(twin.tensor).aliases.append(weakref.ref(tensor))
            value = self.untracked(twin.node)
            if shadow.leaf is not None:
                value = self.stand_in(value, self.leaf_of(shadow))
            shadow.start = shadow.node = value
            return shadow
        shadow.start = shadow.node = self.leaf_of(shadow)
        if place is not None:
            shadow.input = Input("argument", place, shadow.node, shadow)
        elif id(tensor) in self.grad_owner:
            shadow.input = Input("gradient", self.grad_owner[id(tensor)], shadow.node, shadow)
        else:
            shadow.input = Input("state", tensor, shadow.node, shadow)
        self.inputs.append(shadow.input)
        return shadow

    def leaf_of(self, shadow: Shadow) -> Node:
        """A fresh start of the graph with the value of a tensor from outside."""
        leaf, array = shadow.leaf, shadow.array
        out: Any = None
        plan = INPUT
        if leaf is not None:
            plan = UNREAD
            if leaf.prim is None:
                out = weakref.ref(shadow.tensor)
        node = self.node(None, (), NO_PARAMS, (), out, plan, array.shape, array.dtype)
        if leaf is not None:
            if leaf.hooks is not None:
                node.hooks = leaf.hooks
            if leaf.prim is not None:
                self.history.add(node)
            self.leaves[node] = shadow
        self.origins[node] = shadow
        return node

    def node(self, prim: Any, inputs: tuple[Any, ...], params: dict[str, Any],
             saved: tuple[Any, ...], out: Any, plan: Any, shape: tuple[int, ...],
             dtype: Any) -> Node:
        """A node at the user's line that is running."""
        code, lasti = here()
        return Node(prim, inputs, params, saved, out, plan, shape, dtype, code, lasti, state.scope)

    def source(self, kind: str, place: Any, type_: ArrayType) -> Any:
        """A tensor for a value that is no tensor outside: a number, a key, a draw."""
        node = self.node(None, (), NO_PARAMS, (), None, INPUT, type_.shape, type_.dtype)
        self.inputs.append(Input(kind, place, node))
        return new(None, node)

    # ------------------------------------------------------------ slots

    def set_value(self, tensor: Any, value: Any) -> None:
        """`tensor._value = value`, which makes a new tensor or replaces a value."""
        shadow = self.shadows.get(id(tensor))
        if shadow is not None:
            if value is not None:
                shadow.node = self.constant(value)
            return
        try:
            before = slots.value_of(tensor)
        except AttributeError:
            slots.set_value(tensor, value)
            if value is None:
                self.handles.append(weakref.ref(tensor))
                return
            self.remember(tensor)
            if id(storage_of(value)) in self.outside:
                self.arrays.append(value)
                del self.made[id(tensor)]
                slots.set_node(tensor, None)
                slots.set_grad(tensor, None)
                slots.set_extra(tensor, None)
                self.lift(tensor)
            return
        if before is None or id(tensor) in self.made:
            slots.set_value(tensor, value)
            return
        self.lift(tensor)
        self.set_value(tensor, value)

    def fill(self, tensor: Any, node: Any) -> None:
        """The slots of a new tensor without numbers."""
        slots.set_value(tensor, None)
        slots.set_node(tensor, node)
        slots.set_grad(tensor, None)
        slots.set_extra(tensor, None)
        self.handles.append(weakref.ref(tensor))

    def remember(self, tensor: Any) -> None:
        key = id(tensor)
        made = self.made
        made[key] = weakref.ref(tensor, lambda _: made.pop(key, None))

    def set_node(self, tensor: Any, node: Any) -> None:
        """`tensor._node = node`."""
        shadow = self.shadow_of(tensor)
        if shadow is not None:
            if node is not None:
                self.in_place_of(shadow.node, node)
                shadow.node = node
            elif is_tracked(shadow.node):
                shadow.node = self.untracked(shadow.node)
                self.in_place_of(shadow.start, shadow.node)
            return
        value = slots.value_of(tensor)
        if value is None or node is None:
            if node is not None:
                with suppress(AttributeError):   # being made just now
                    self.in_place_of(slots.node_of(tensor), node)
            slots.set_node(tensor, node)
        elif node.prim is None:                  # a constant that asks for a gradient
            self.bound[node] = value.copy()
            self.turn_abstract(tensor, node)
        else:
            raise TracedValueError(
                f"{node.name} at {node.origin} was recorded with numbers inside a compiled "
                "function, which cannot be continued without them.")

    def in_place_of(self, old: Any, new: Node) -> None:
        """A tensor gets another value in the same memory."""
        if old is not None and old is not new:
            self.memory_of[new] = self.memory_of.get(old, old)

    def turn_abstract(self, tensor: Any, node: Node) -> None:
        """A constant made in the run becomes a traced value."""
        self.made.pop(id(tensor), None)
        slots.set_value(tensor, None)
        slots.set_node(tensor, node)
        self.handles.append(weakref.ref(tensor))

    def read_grad(self, shadow: Shadow) -> Any:
        """`tensor._grad` of a tensor from outside."""
        if not shadow.grad_written:
            shadow.grad_read = True
            grad = shadow.grad
            if grad is not None and id(grad) not in self.shadows:
                self.grad_owner[id(grad)] = shadow
        return shadow.grad

    def adopt(self, tensor: Any) -> Any:
        """A tensor made in the run counts as one from outside from now on."""
        self.made.pop(id(tensor), None)
        return tensor

    # ------------------------------------------------------------ recording

    def operands(self, prim: Any, xs: tuple[Any, ...],
                 params: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Operands and params of a row; what is of the user's from outside becomes tensors."""
        if self.tape is not None:
            xs, params = self.tape.operands(prim, xs, params)
        if self.outside:
            for x in xs:
                if type(x) is np.ndarray and id(storage_of(x)) in self.outside:
                    return tuple([new(y) if type(y) is np.ndarray and id(
                        storage_of(y)) in self.outside else y for y in xs]), params
        return xs, params

    def number(self, x: Any, dtype: Any) -> Any:
        """A tensor without axes for what stands for a number, or is one; None for others."""
        if type(x) is Number and self.tape is not None:
            return self.tape.scalar(x, dtype)
        if isinstance(x, Value) and x._value is None:  # type: ignore[attr-defined]
            return bind(TABLE["cast"], x, dtype=dtype) if x.dtype != dtype else x
        return None

    def copy_of(self, data: Any, dtype: Any) -> Any:
        """`cr.tensor(data)` for what each call brings anew; None where it is a constant.

        An array of the user from outside may have other numbers in the next call.
        """
        if type(data) is Number:
            value = data._value
            kind = value.dtype if isinstance(value, np.generic) else scalar_dtype(value)
            return self.number(data, as_dtype(dtype) if dtype is not None else kind)
        if isinstance(data, np.ndarray) and data.dtype in SHORT_NAMES and id(
                storage_of(data)) in self.outside:
            x = bind(TABLE["identity"], new(data))
            return x if dtype is None or x.dtype == as_dtype(dtype) else x.to(dtype)
        waiting = [data]
        while waiting:                           # arrays in a list are joined by NumPy
            x = waiting.pop()
            if isinstance(x, (list, tuple)):
                waiting += x
            elif isinstance(x, np.ndarray):
                self.frozen.add(id(storage_of(x)))
        return None

    def recorded(self, prim: Any, edges: tuple[Any, ...], saved: tuple[Any, ...],
                 out: ArrayType) -> tuple[Any, tuple[Any, ...]]:
        """(plan, operands) of a traced node: constants are kept as they are at this moment."""
        refuse_leaked(edges)
        plan: Any = UNREAD
        if state.recording and out.dtype.kind == "f":
            pulls = prim.pulls
            for i, edge in enumerate(edges):
                if edge is not None and is_tracked(edge) and (
                        not pulls or pulls[i] is not None):
                    plan = None
                    break
        kept = []
        for x, edge in zip(saved, edges, strict=True):
            if edge is None and isinstance(x, Value):
                kept.append(slots.value_of(x).copy(order="K"))
            else:
                kept.append(x.copy(order="K") if type(x) is np.ndarray else x)
        return plan, tuple(kept)

    def constant(self, value: Any) -> Node:
        """A node with the value of an array."""
        with self.recorded_as(False):
            array = np.array(value)              # in the order of the value
            node = self.node(TABLE["identity"], (None,), NO_PARAMS, (array,), None, UNREAD,
                             array.shape, array.dtype)
            self.layouts[node] = array
            return node

    def untracked(self, node: Node) -> Node:
        """A node of the same value through which no gradient flows."""
        if node.plan is UNREAD and node.prim is not None:
            return node
        return self.node(TABLE["stop_gradient"], (node,), NO_PARAMS, (new(None, node),), None,
                         UNREAD, node.shape, node.dtype)

    def stand_in(self, value: Node, node: Node) -> Node:
        """`node`, whose value in the program is that of `value`."""
        self.bound[node] = value
        return node

    def replaced(self, tensor: Any, node: Node) -> None:
        """The tensor keeps its value, and is the result of `node` in the graph of gradients."""
        if tensor._value is not None:
            self.turn_abstract(tensor, self.constant(tensor._value))
        tensor._node = self.stand_in(tensor._node, node)

    @contextmanager
    def recorded_as(self, on: bool) -> Iterator[None]:
        before = state.recording
        state.recording = (before or 1) if on else 0
        try:
            yield
        finally:
            state.recording = before

    def depends(self, y: Any) -> bool:
        """Does a gradient flow from y to something that asks for one?"""
        node = y._node
        if node is None:
            return False
        if node.prim is None:
            return node.plan is not INPUT
        return any((n.prim is None and n.plan is not INPUT) or n in self.starts
                   for n in reachable([node]))

    def released(self, y: Any, own: list[Node]) -> Any:
        """A transform's result, cut from its own starts unless it depends on others too."""
        node = y._node
        if y._value is not None or not is_tracked(node) or node in own:
            return y
        mine = set(own)
        if any((n in self.starts and n not in mine) or (n.prim is None and n.plan is not INPUT)
               for n in reachable([node])):
            return y
        return new(None, self.untracked(node))

    def starts_below(self, roots: Sequence[Node]) -> list[Node]:
        """The tracked leaves, in the order they were made, from which gradients can be wanted."""
        found = [n for n in reachable(roots) if n.prim is None and n.plan is not INPUT]
        return found[::-1]

    # ------------------------------------------------------------ gradients

    def before_backward(self, ys: Sequence[Any], wanted: list[Node] | None,
                        retain: bool | None) -> list[Node] | None:
        """The nodes a backward pass stops at; what it goes through is remembered."""
        roots = [y._node for y in ys if y._node is not None]
        below = reachable(roots)
        for node in below:
            if node in self.consumed and reads_values(node):
                node.freed = self.consumed[node]
                raise second_pass(node)
        if not retain:
            self.consumed.update(dict.fromkeys((n for n in below if n.prim is not None), here()))
        if wanted is None:
            return self.starts_below(roots)
        for node in wanted:
            shadow = self.leaves.get(node)
            if shadow is not None and any(n is not node and self.leaves.get(n) is shadow
                                          for n in below):
                raise GradientError(
                    f"the gradient with respect to a tensor ({node.type}) is asked for at "
                    f"{Origin.now()}, but it was changed in place since the result was computed. "
                    "Ask for it before the change.")
        return wanted

    def refuse_history(self, node: Node) -> None:
        """backward() must not leave the function through the history of a tensor from outside."""
        if node in self.history:
            raise GradientError(
                f"backward() at {Origin.now()} inside a compiled function reaches a tensor "
                f"({node.type}) that was computed outside it, and would have to go on there. "
                "Compute it inside the function too, pass x.detach(), or call backward() outside.")

    def accumulate(self, tensor: Any, g: Any, recorded: bool) -> None:
        """tensor.grad += g, in place where there is a gradient already."""
        if not isinstance(g, Value):
            g = new(np.asarray(g))
        if g.dtype != tensor.dtype:
            g = bind(TABLE["cast"], g, dtype=tensor.dtype)
        before = tensor._grad
        if before is None:
            mine = new(g._value.copy()) if g._value is not None else new(
                None, g._node if recorded else self.untracked(g._node))
            tensor._grad = mine
        elif recorded or before.requires_grad:
            with self.recorded_as(True):
                tensor._grad = before + g
        else:
            if before.shape != g.shape:
                raise ShapeError(f"the gradient of a {type_of(tensor)} tensor is {type_of(g)}, but "
                                 f"its .grad holds {type_of(before)} from before its data was "
                                 "replaced; set .grad = None first")
            with self.recorded_as(False):
                self.assign(before, lambda old: old + g, "gradient accumulation")
        mine = tensor._extra
        if mine is not None and mine.after_grad:
            for hook in list(mine.after_grad.values()):
                hook(tensor)

    def require_grad(self, tensor: Any) -> None:
        """`requires_grad_()` on a float tensor."""
        memory.refuse_order(self, tensor, "requires_grad_()")
        if self.shadow_of(tensor) is not None:
            if not tensor.requires_grad:
                where = Origin.now()
                raise LeafError(
                    f"requires_grad_() at {where} on a tensor ({type_of(tensor)}) from outside the "
                    f"compiled function.\n    {where.source()}\nDo it before the call, or take "
                    "x.detach().requires_grad_().")
            return
        if tensor._value is not None:
            node = self.node(None, (), NO_PARAMS, (), weakref.ref(tensor), UNREAD,
                             tuple(tensor.shape), tensor.dtype)
            self.set_node(tensor, node)
        elif not is_tracked(tensor._node):
            old = tensor._node
            leaf = self.node(None, (), NO_PARAMS, (), weakref.ref(tensor), UNREAD, old.shape,
                             old.dtype)
            tensor._node = self.stand_in(old, leaf)

    def forget(self) -> None:
        """Let go of the nodes and arrays of the run; what entries need of shadows stays."""
        for entry in self.inputs:
            entry.node = None
        for shadow in self.shadows.values():
            shadow.node = shadow.start = shadow.left = shadow.leaf = shadow.extra = None
            shadow.array = shadow.grad = shadow.first_grad = None
            if is_argument(shadow):
                shadow.tensor = None

    # ------------------------------------------------------------ what the surface asks for

    def detach(self, tensor: Any) -> Any:
        """`tensor.detach()`."""
        return memory.detach(self, tensor)

    def in_order(self, x: Any) -> Any:
        """`x.contiguous()`."""
        return memory.in_order(self, x)

    def strides(self, x: Any) -> tuple[int, ...]:
        """`x.stride()`, in elements."""
        array = x._value if x._value is not None else layout.like_eager(self, x._node)
        if array is None:
            where = Origin.now()
            raise TracedValueError(
                f"stride() at {where} inside a compiled function, of a tensor ({type_of(x)}) whose "
                f"order in memory cannot be told without its numbers.\n    {where.source()}\n"
                "Ask for its shape instead, or for the strides of a tensor from outside.")
        return tuple([step // array.itemsize for step in array.strides])

    def is_in_order(self, x: Any) -> bool:
        """`x.is_contiguous()`."""
        shadow = self.shadow_of(x)
        if shadow is not None and shadow.left is None:
            shadow.order_asked = True
            return bool(shadow.array.flags.c_contiguous)
        return memory.lies_in_order(self, x._node) is not False

    def cut(self, x: Any) -> None:
        """`x.detach_()`."""
        memory.refuse_order(self, x, "detach_()")
        if x._value is None:
            x._node = self.untracked(x._node)

    def replace_data(self, tensor: Any, value: Any) -> None:
        """`tensor.data = value`."""
        memory.replace_data(self, tensor, value)

    def assign(self, x: Any, make: Callable[[Any], Any], what: str) -> Any:
        """Write make(x) into the memory of x and into its history; returns x."""
        return memory.assign(self, x, make, what)

    def optimizer_step(self, optimizer: Any, closure: Any) -> Any:
        """`optimizer.step(closure)`."""
        self.steps += 1
        return options.optimizer_step(self, optimizer, closure)

    # ------------------------------------------------------------ random numbers

    def key(self, generator: Any, count: int) -> Any:
        """The key of the next `count` random words."""
        tensor, offset = self._position(generator, count)
        if not offset:
            return tensor
        return bind(TABLE["add"], tensor, np.array([0, offset], np.int64))

    def _position(self, generator: Any, count: int) -> tuple[Any, int]:
        found = self.keys.get(id(generator))
        if found is None:
            tensor = self.source("key", generator, ArrayType((2,), np.dtype(np.int64)))
            found = self.keys[id(generator)] = (generator, tensor, [0])
        offset = found[2][0]
        found[2][0] += count
        return found[1], offset

    def drawn(self, generator: Any, count: int, numbers: Callable[[Any], Any]) -> Any:
        """Random numbers that are drawn before each call, with the key they have in their turn."""
        _, offset = self._position(generator, count)
        sample = numbers(np.zeros(2, np.int64))
        return self.source("draw", (generator, offset, numbers),
                           ArrayType(sample.shape, sample.dtype))

def reads_values(node: Node) -> bool:
    """Do the rules of a tracked node read values, which a first backward pass drops?"""
    assert node.prim is not None
    if TABLE.get(node.prim.name) is not node.prim:
        return True                              # a custom function
    return bool(node.prim.reads(tuple(
        edge is not None and is_tracked(edge) for edge in node.inputs)).any)


def is_argument(shadow: Shadow) -> bool:
    return shadow.input is not None and shadow.input.kind == "argument"
