"""What hooks of modules need: handles that remove them, and calls that run them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from chainrule.core.errors import GradientError
from chainrule.tensor import Tensor

Hook = Callable[..., Any]
_numbers = itertools.count()


class RemovableHandle:
    """Returned where a hook is registered; `remove()`, or leaving a `with`, takes it away."""

    def __init__(self, hooks: dict[int, Any]) -> None:
        self.id = next(_numbers)
        self._hooks = hooks

    def remove(self) -> None:
        """Takes the hook away; a second call does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.remove()


def register(hooks: dict[int, Any], hook: Any, prepend: bool) -> RemovableHandle:
    """Adds `hook` at the end of `hooks`, or in front."""
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        for key in list(hooks)[:-1]:
            hooks[key] = hooks.pop(key)
    return handle


def call_with_hooks(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pre-hooks, forward, hooks, and the tensor hooks that stand for the backward hooks."""
    for hook, with_kwargs in list(module._forward_pre_hooks.values()):
        if with_kwargs:
            changed = hook(module, args, kwargs)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise TypeError("a forward pre-hook with with_kwargs=True returns None or "
                                    f"(args, kwargs), not {type(changed).__name__}")
                args, kwargs = changed
        else:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    inner: BackwardHooks | None = None
    if module._backward_hooks or module._backward_pre_hooks:
        inner = BackwardHooks(module)
        args = inner.watch_inputs(args)
    finished = False
    try:
        result = module.forward(*args, **kwargs)
        for hook, with_kwargs, _ in list(module._forward_hooks.values()):
            changed = hook(module, args, kwargs, result) if with_kwargs \
                else hook(module, args, result)
            if changed is not None:
                result = changed
        finished = True
    finally:
        if not finished:
            for hook, with_kwargs, always in list(module._forward_hooks.values()):
                if always:
                    hook(module, args, kwargs, None) if with_kwargs else hook(module, args, None)
    return result if inner is None else inner.watch_outputs(result)


class BackwardHooks:
    """Gradients of one call: with respect to its outputs and then to its inputs.

    Inputs and outputs pass through an identity, so that what is seen is this call's share even if
    the tensor is used elsewhere too.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.inputs = 0
        self.waiting = 0
        self.grad_inputs: list[Any] = []
        self.grad_outputs: list[Any] = []

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.grad_inputs = [None] * len(args)
        watched = list(args)
        for place, value in enumerate(args):
            if isinstance(value, Tensor) and value.requires_grad:
                watched[place] = value.clone()
                watched[place].register_hook(self._on_input(place))
                self.inputs += 1
        self.waiting = self.inputs
        return tuple(watched)

    def watch_outputs(self, result: Any) -> Any:
        outputs = list(result) if isinstance(result, tuple | list) else [result]
        self.grad_outputs = [None] * len(outputs)
        for place, value in enumerate(outputs):
            if isinstance(value, Tensor) and value.requires_grad:
                outputs[place] = value.clone()
                outputs[place].register_hook(self._on_output(place))
        if not isinstance(result, tuple | list):
            return outputs[0]
        return type(result)(*outputs) if hasattr(result, "_fields") else type(result)(outputs)

    def _on_output(self, place: int) -> Hook:
        def hook(grad: Any) -> Any:
            self.grad_outputs[place] = grad
            for pre_hook in list(self.module._backward_pre_hooks.values()):
                changed = pre_hook(self.module, tuple(self.grad_outputs))
                if changed is not None:
                    changed = changed if isinstance(changed, tuple) else (changed,)
                    self.grad_outputs = list(changed)
            if not self.inputs and all(g is not None for g in self.grad_outputs):
                self._call(None)
            return self.grad_outputs[place]
        return hook

    def _on_input(self, place: int) -> Hook:
        def hook(grad: Any) -> Any:
            self.grad_inputs[place] = grad
            self.waiting -= 1
            if self.waiting:
                return None
            self.waiting = self.inputs
            return self._call(place)
        return hook

    def _call(self, place: int | None) -> Any:
        given = tuple(self.grad_inputs)
        for hook in list(self.module._backward_hooks.values()):
            changed = hook(self.module, given, tuple(self.grad_outputs))
            if changed is None:
                continue
            given = changed if isinstance(changed, tuple) else (changed,)
            if place is None or self.inputs > 1:
                raise GradientError(
                    f"a backward hook of {type(self.module).__name__} returned new gradients, but "
                    f"{self.inputs} of its inputs require one: only with exactly one can they be "
                    "replaced. Use tensor.register_hook on the input instead")
        return None if place is None else given[place]
