"""How a trace sees tensors: the four slots of a Tensor, looked up for the thread that traces.

While some thread runs a function to compile it, reading `tensor._value` (or `_node`, `_grad`,
`_extra`) goes through the functions below. On that thread a tensor from outside is *lifted* when it
is first touched: a shadow takes the place of its slots, and the tensor itself is left alone. So
nothing has to be put back when the run ends, however it ends, and other threads see no difference.
When nobody traces, the slots are read directly, at no cost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chainrule.core import record
from chainrule.core.bind import state
from chainrule.tensor import Tensor

_members = {name: Tensor.__dict__[name] for name in ("_value", "_node", "_grad", "_extra")}

# The slots themselves, whoever traces.
value_of = _members["_value"].__get__
node_of = _members["_node"].__get__
grad_of = _members["_grad"].__get__
extra_of = _members["_extra"].__get__
set_value = _members["_value"].__set__
set_node = _members["_node"].__set__
set_grad = _members["_grad"].__set__
set_extra = _members["_extra"].__set__

_lock = threading.Lock()


def hooks_of(tensor: Any) -> list[Any]:
    """The hooks of a tensor from outside: on its gradient, and after accumulation."""
    node, extra = node_of(tensor), extra_of(tensor)
    found = list(node.hooks.values()) if node is not None and node.hooks else []
    return found + (list(extra.after_grad.values()) if extra is not None and extra.after_grad
                    else [])


class Shadow:
    """What a trace sees in place of the slots of a tensor from outside.

    `array`, `leaf`, `first_grad` are what the tensor held when it was lifted; `start` is the node
    that stands for its value then, `node` for its value now. `input` is None where the value was
    derived from another lifted tensor: a view, or a second handle on its memory.
    """

    __slots__ = ("array", "extra", "first_grad", "grad", "grad_read", "grad_written", "hooks",
                 "input", "leaf", "left", "node", "order_asked", "start", "tensor")

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.array = value_of(tensor)
        self.leaf = node_of(tensor)
        self.first_grad = self.grad = grad_of(tensor)
        self.extra: Any = None
        self.hooks: list[Any] = hooks_of(tensor)
        self.node: Any = None
        self.start: Any = None
        self.input: Any = None
        self.grad_read = False
        self.grad_written = False
        self.order_asked = False         # does the run depend on the order of its elements?
        self.left: Any = None            # the value its memory had when .data was given other


def _get_value(tensor: Any) -> Any:
    capture = state.capture
    if capture is None:
        return value_of(tensor)
    if id(tensor) in capture.shadows:
        return None
    value = value_of(tensor)
    if value is None or id(tensor) in capture.made:
        return value
    capture.lift(tensor)
    return None


def _set_value(tensor: Any, value: Any) -> None:
    capture = state.capture
    if capture is None:
        set_value(tensor, value)
    else:
        capture.set_value(tensor, value)


def _get_node(tensor: Any) -> Any:
    capture = state.capture
    if capture is None:
        return node_of(tensor)
    shadow = capture.shadow_of(tensor)
    return node_of(tensor) if shadow is None else shadow.node


def _set_node(tensor: Any, node: Any) -> None:
    capture = state.capture
    if capture is None:
        set_node(tensor, node)
    else:
        capture.set_node(tensor, node)


def _get_grad(tensor: Any) -> Any:
    capture = state.capture
    if capture is None:
        return grad_of(tensor)
    shadow = capture.shadow_of(tensor)
    return grad_of(tensor) if shadow is None else capture.read_grad(shadow)


def _set_grad(tensor: Any, grad: Any) -> None:
    capture = state.capture
    shadow = None if capture is None else capture.shadow_of(tensor)
    if shadow is None:
        set_grad(tensor, grad)
    else:
        shadow.grad = grad
        shadow.grad_written = True


def _get_extra(tensor: Any) -> Any:
    capture = state.capture
    if capture is None:
        return extra_of(tensor)
    shadow = capture.shadow_of(tensor)
    return extra_of(tensor) if shadow is None else shadow.extra


def _set_extra(tensor: Any, extra: Any) -> None:
    capture = state.capture
    shadow = None if capture is None else capture.shadow_of(tensor)
    if shadow is None:
        set_extra(tensor, extra)
    else:
        shadow.extra = extra


_watched = {"_value": property(_get_value, _set_value), "_node": property(_get_node, _set_node),
            "_grad": property(_get_grad, _set_grad), "_extra": property(_get_extra, _set_extra)}


@contextmanager
def watched() -> Iterator[None]:
    """Within the block, the slots of tensors are looked up for the thread that reads them."""
    with _lock:
        if record.tracers == 0:
            for name, found in _watched.items():
                setattr(Tensor, name, found)
        record.tracers += 1
    try:
        yield
    finally:
        with _lock:
            record.tracers -= 1
            if record.tracers == 0:
                for name, member in _members.items():
                    setattr(Tensor, name, member)
