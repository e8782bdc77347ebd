"""A random life of tensors against a naive engine: views, in-place writes, backward, zero, updates.

The reference keeps with each value its whole Jacobian by all leaf elements, as one more axis of an
array of the same layout. NumPy's views then give the meaning of every view and write for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import chainrule as cr
from chainrule.core.errors import FreedGraphError, InPlaceError, OverwrittenError

ROOM = 24                                   # elements of all leaves together

UNARY: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sin": (lambda t: t.sin(), np.sin, np.cos),
    "tanh": (lambda t: t.tanh(), np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "half": (lambda t: t * 0.5, lambda x: x * 0.5, lambda x: 0.5 + 0 * x),
    "shift": (lambda t: 1.5 - t, lambda x: 1.5 - x, lambda x: -1 + 0 * x),
    "clone": (lambda t: t.clone(), lambda x: x + 0, lambda x: 1 + 0 * x),
}
IN_PLACE: dict[str, Callable[[Any], Any]] = {
    "sin": lambda t: t.sin_(), "tanh": lambda t: t.tanh_(), "half": lambda t: t.mul_(0.5),
    "shift": lambda t: t.neg_().add_(1.5),
}
BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "add": (lambda a, b: a + b, lambda a, b: a.add_(b), lambda a, b: (a + b, 1, 1)),
    "mul": (lambda a, b: a * b * 0.5, lambda a, b: a.mul_(b).mul_(0.5),
            lambda a, b: (a * b * 0.5, b * 0.5, a * 0.5)),
    "div": (lambda a, b: a / (b * b + 1), lambda a, b: a.div_(b * b + 1),
            lambda a, b: (a / (b * b + 1), 1 / (b * b + 1), -2 * a * b / (b * b + 1) ** 2)),
}
VIEWS: dict[str, Callable[[Any], Any]] = {
    "first": lambda t: t[0], "last": lambda t: t[-1:], "second on": lambda t: t[1:],
    "every other": lambda t: t[::2], "column": lambda t: t[:, 0], "new axis": lambda t: t[None],
    "part": lambda t: t[..., :2],
}


class Pair:
    """A tensor and what the reference knows: its value and its Jacobian, both maybe views."""

    def __init__(self, tensor: Any, value: np.ndarray, jacobian: np.ndarray,
                 leaf: Any = None) -> None:
        self.tensor, self.value, self.jacobian, self.leaf = tensor, value, jacobian, leaf

    def view(self, take: Callable[[Any], Any]) -> Pair:
        """Taking with a last axis added keeps 0-d results arrays that share memory."""
        value = take_each(self.value[..., None], take).squeeze(-1)
        return Pair(take(self.tensor), value, take_each(self.jacobian, take), self.leaf)


def take_each(jacobian: np.ndarray, take: Callable[[Any], Any]) -> np.ndarray:
    """The view of a Jacobian that belongs to a view of its value: its last axis stays whole."""
    if take is VIEWS["part"]:
        return jacobian[..., :2, :]
    return take(jacobian)


class Life(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.pairs: list[Pair] = []
        self.leaves: list[Pair] = []
        self.gradients: list[np.ndarray | None] = []
        self.used = 0
        self.wrote = False
        self.rng = np.random.default_rng(0)
        for shape in ((3,), (2, 3)):
            self.make(shape=shape, tracked=True)
            leaf = self.pairs[-1]
            self.pairs.append(Pair(leaf.tensor * 1.0, leaf.value.copy(), leaf.jacobian.copy()))

    def pick(self, data: Any, test: Callable[[Pair], bool] = lambda p: True) -> Pair | None:
        found = [p for p in self.pairs[-8:] if test(p)]
        return data.draw(st.sampled_from(found)) if found else None

    @precondition(lambda self: len(self.leaves) < 4)
    @rule(shape=st.sampled_from([(), (2,), (3,), (2, 3), (1, 3)]), tracked=st.booleans())
    def make(self, shape: tuple[int, ...], tracked: bool) -> None:
        size = int(np.prod(shape))
        if tracked and self.used + size > ROOM:
            return
        value = np.asarray(self.rng.uniform(-1, 1, shape))
        jacobian = np.zeros((*shape, ROOM))
        tensor = cr.tensor(value, requires_grad=tracked)
        pair = Pair(tensor, value, jacobian)
        if tracked:
            jacobian.reshape(size, ROOM)[:, self.used:self.used + size] = np.eye(size)
            pair.leaf = (self.used, size, shape)
            self.used += size
            self.leaves.append(pair)
            self.gradients.append(None)
        self.pairs.append(pair)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), name=st.sampled_from(sorted(UNARY)))
    def unary(self, data: Any, name: str) -> None:
        a = self.pick(data)
        ours, value, slope = UNARY[name]
        self.pairs.append(Pair(ours(a.tensor), np.asarray(value(a.value)),
                               a.jacobian * np.asarray(slope(a.value))[..., None]))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), name=st.sampled_from(sorted(BINARY)))
    def binary(self, data: Any, name: str) -> None:
        a = self.pick(data)
        b = self.pick(data, lambda p: fits(a.value, p.value))
        if b is None:
            return
        value, jacobian = combined(name, a, b)
        self.pairs.append(Pair(BINARY[name][0](a.tensor, b.tensor), value, jacobian))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), name=st.sampled_from(sorted(VIEWS)))
    def view(self, data: Any, name: str) -> None:
        rank = 2 if name == "column" else 1
        a = self.pick(data, lambda p: p.value.ndim >= rank and all(p.value.shape))
        if a is not None and a.value.ndim < 4:
            self.pairs.append(a.view(VIEWS[name]))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), name=st.sampled_from(sorted(IN_PLACE)))
    def write(self, data: Any, name: str) -> None:
        a = self.pick(data, computed)
        if a is None:
            return
        _, value, slope = UNARY[name]
        new_value = value(a.value)
        new_jacobian = a.jacobian * np.asarray(slope(a.value))[..., None]
        self.written(a, lambda: IN_PLACE[name](a.tensor), new_value, new_jacobian)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), name=st.sampled_from(sorted(BINARY)))
    def write_two(self, data: Any, name: str) -> None:
        a = self.pick(data, computed)
        b = None if a is None else self.pick(
            data, lambda p: fits(a.value, p.value)
            and np.broadcast_shapes(a.value.shape, p.value.shape) == a.value.shape)
        if b is None:
            return
        value, jacobian = combined(name, a, b)
        self.written(a, lambda: BINARY[name][1](a.tensor, b.tensor), value, jacobian)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), number=st.booleans())
    def set_item(self, data: Any, number: bool) -> None:
        a = self.pick(data, lambda p: computed(p) and p.value.ndim >= 1 and all(p.value.shape))
        if a is None:
            return
        part = a.value[-1]
        b = None if number else self.pick(data, lambda p: fits(part, p.value) and (
            np.broadcast_shapes(part.shape, p.value.shape) == part.shape))

        def act() -> None:
            a.tensor[-1] = 0.25 if b is None else b.tensor

        value, jacobian = a.value.copy(), a.jacobian.copy()
        value[-1] = 0.25 if b is None else b.value
        jacobian[-1] = 0 if b is None else b.jacobian
        self.written(a, act, value, jacobian)

    def written(self, a: Pair, act: Callable[[], Any], value: Any, jacobian: Any) -> None:
        """All that shares memory with a changes."""
        act()
        self.wrote = True
        a.value[...] = value
        a.jacobian[...] = jacobian

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def write_leaf(self, data: Any) -> None:
        """Leaves and their views refuse."""
        a = self.pick(data, lambda p: not computed(p))
        if a is not None:
            with pytest.raises(InPlaceError):
                a.tensor.mul_(2)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), retain=st.sampled_from([True, True, True, False]))
    def backward(self, data: Any, retain: bool) -> None:
        a = self.pick(data, lambda p: p.tensor.requires_grad)
        if a is None:
            return
        weights = self.rng.uniform(0.5, 1.5, a.value.shape)
        total = (a.tensor * cr.tensor(weights)).sum()
        try:
            total.backward(retain_graph=retain)
        except OverwrittenError:
            assert self.wrote
            return
        except FreedGraphError:
            return
        row = np.tensordot(weights, a.jacobian, weights.ndim)
        for i, leaf in enumerate(self.leaves):
            start, size, shape = leaf.leaf
            part = row[start:start + size].reshape(shape)
            if self.gradients[i] is not None:
                self.gradients[i] = self.gradients[i] + part
            elif leaf.tensor.grad is not None:
                self.gradients[i] = part
            else:
                assert not part.any(), "a leaf that matters got no gradient"

    @rule()
    def zero(self) -> None:
        for i, leaf in enumerate(self.leaves):
            leaf.tensor.grad = None
            self.gradients[i] = None

    @precondition(lambda self: self.leaves)
    @rule(data=st.data())
    def update(self, data: Any) -> None:
        """A step of an optimiser: the leaf and its views change, what was computed does not."""
        i = data.draw(st.integers(0, len(self.leaves) - 1))
        leaf = self.leaves[i]
        if self.gradients[i] is not None:
            with cr.no_grad():
                leaf.tensor.sub_(leaf.tensor.grad * 0.1)
            leaf.value[...] -= 0.1 * self.gradients[i]
            self.wrote = True

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def detach(self, data: Any) -> None:
        a = self.pick(data)
        self.pairs.append(Pair(a.tensor.detach().clone(), a.value.copy(), a.jacobian * 0))

    @invariant()
    def same_values(self) -> None:
        for p in self.pairs:
            np.testing.assert_allclose(p.tensor.detach().numpy(), p.value, rtol=1e-10, atol=1e-12)

    @invariant()
    def same_gradients(self) -> None:
        for leaf, g in zip(self.leaves, self.gradients, strict=True):
            assert (leaf.tensor.grad is None) == (g is None)
            if g is not None:
                np.testing.assert_allclose(leaf.tensor.grad.numpy(), g, rtol=1e-8, atol=1e-10)


def computed(p: Pair) -> bool:
    return p.leaf is None


def fits(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return int(np.prod(np.broadcast_shapes(a.shape, b.shape))) <= 18
    except ValueError:
        return False


def combined(name: str, a: Pair, b: Pair) -> tuple[np.ndarray, np.ndarray]:
    value, by_a, by_b = BINARY[name][2](a.value, b.value)
    shape = np.broadcast_shapes(a.value.shape, b.value.shape)
    jacobian = (lifted(a.jacobian, len(shape)) * np.broadcast_to(by_a, shape)[..., None]
                + lifted(b.jacobian, len(shape)) * np.broadcast_to(by_b, shape)[..., None])
    return np.asarray(value), np.broadcast_to(jacobian, (*shape, ROOM)).copy()


def lifted(jacobian: np.ndarray, rank: int) -> np.ndarray:
    return jacobian.reshape((1,) * (rank + 1 - jacobian.ndim) + jacobian.shape)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=max(100, settings.default.max_examples), stateful_step_count=40)
