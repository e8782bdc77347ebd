"""`Optimizer`: parameter groups, state in PyTorch's layout, and the step over both."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any

import numpy as np

from chainrule.autograd import enable_grad, no_grad
from chainrule.core import lines
from chainrule.core.bind import state as recording
from chainrule.core.changes import WatchedOptions, WatchedStates, changed
from chainrule.core.errors import SettingError
from chainrule.core.events import heard, tell
from chainrule.core.node import PACKAGE
from chainrule.core.places import note_place
from chainrule.core.record import new, refuse_number
from chainrule.tensor import Tensor

from .walk import Walk

Group = dict[str, Any]


class Optimizer:
    """Base of all optimisers.

    A subclass names the arrays it keeps per parameter (`_slots`), its formula (`_formula`), the
    same update in place on bare arrays (`_in_place`) and the numbers that one needs
    (`_constants`). Everything else is here: groups, `state`, `state_dict`, the step.

    `params` is an iterable of tensors, of `(name, tensor)` pairs, or of dicts with the key
    `"params"` and the options of that group.
    """

    counts_steps = True

    # Numbers kept for each parameter besides the step, in float32 as PyTorch keeps them.
    scalars: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(f"{type(self).__name__} got one tensor where it needs an iterable of "
                            "tensors or dicts: put it in a list, [tensor]")
        if callable(params):        # a module, or its method without brackets
            name = "model.parameters" if isinstance(params, MethodType) else "the model"
            raise TypeError(f"{type(self).__name__} got {name} itself: pass model.parameters()")
        if isinstance(params, set | frozenset):
            raise TypeError("parameters in a set have no fixed order from run to run: use a list")
        note_place(self, "made")
        self.defaults: Group = dict(defaults)
        self.state: defaultdict[Tensor, dict[str, Any]] = WatchedStates()
        self.param_groups: list[Group] = []
        self._walks: list[Walk | None] = []
        self._stepped = False
        self._pre_hooks: dict[int, Callable[..., Any]] = {}
        self._post_hooks: dict[int, Callable[..., Any]] = {}
        groups = list(params)
        if not groups:
            raise SettingError(
                f"{type(self).__name__} got no parameters. `model.parameters()` can be walked "
                "once: if it was counted or printed before, call it again. A module that keeps "
                "its layers in a plain list has none: use nn.ModuleList")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # ------------------------------------------------------------ what a subclass says

    def _slots(self, group: Group) -> tuple[str, ...]:
        """Names of the arrays kept for each parameter between steps."""
        raise NotImplementedError

    def _initial(self, group: Group, slot: str) -> float:
        """The value a slot starts from."""
        return 0.0

    def _starts_at_zero(self, group: Group) -> bool:
        """Does the formula do the same on a first step as later, with slots as they start?"""
        return type(self)._formula.__module__.startswith(f"{PACKAGE}.") and not group.get(
            "dampening")

    def _merge_below(self, group: Group) -> int:
        """Parameters of at most this many elements are gathered: the fewer passes the less."""
        return 1024

    def _constants(self, group: Group, step: int) -> tuple[float, ...]:
        """The numbers `_in_place` needs, for the parameter's step number `step` (from 1).

        An optimiser with `scalars` is given these too, as they are after the step.
        """
        raise NotImplementedError

    def _moved(self, group: Group, step: int, *scalars: Any) -> tuple[Any, ...]:
        """What the `scalars` become in step number `step`."""
        return scalars

    @staticmethod
    def _in_place(group: Group, p: Any, g: Any, slots: Any, s: Any, t: Any, c: Any,
                  fresh: bool) -> None:
        """The formula on bare arrays, in place; `s`, `t` are scratch, `c` the constants."""
        raise NotImplementedError

    def _kernel(self, group: Group) -> Any:
        """`_in_place`, or a shorter function that does the same for the options of the group."""
        return self._in_place

    def _formula(self, group: Group, p: Any, g: Any, slots: tuple[Any, ...], step: Any,
                 fresh: bool) -> tuple[Any, tuple[Any, ...]]:
        """The new parameter and slots by the formula, for arrays and tensors alike."""
        raise NotImplementedError

    # ------------------------------------------------------------ groups

    def add_param_group(self, param_group: Group) -> None:
        """Adds a dict with `"params"` and options; options left out take the defaults.

        Raises `SettingError` for no parameters, one that is no leaf, one seen before.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"a parameter group is a dict, not {type(param_group).__name__}")
        group = WatchedOptions(param_group)
        given = group.get("params")
        if isinstance(given, Tensor):
            given = [given]
        elif isinstance(given, set | frozenset):
            raise TypeError("parameters in a set have no fixed order from run to run: use a list")
        named = [pair if isinstance(pair, tuple) else (None, pair) for pair in given or ()]
        group["params"] = [p for _, p in named]
        if not named:
            raise SettingError(f"{type(self).__name__}: parameter group "
                               f"{len(self.param_groups)} has no parameters")
        if all(name is not None for name, _ in named):
            group["param_names"] = [name for name, _ in named]
        elif any(name is not None for name, _ in named):
            raise SettingError("either all parameters of a group carry a name or none does")
        seen = {id(p): place for place, p in self._places()}
        for index, (name, p) in enumerate(named):
            place = f"parameter {index} of group {len(self.param_groups)}"
            if name is not None:
                place += f" ({name!r})"
            self._check(p, place)
            if id(p) in seen:
                raise SettingError(f"{place} is the same tensor as {seen[id(p)]}: it would be "
                                   "updated twice in each step. List it once")
            seen[id(p)] = place
        for key, default in self.defaults.items():
            group.setdefault(key, default)
        self._check_options(group)
        self.param_groups.append(group)
        self._walks.append(None)
        changed(self)

    def _places(self) -> Iterable[tuple[str, Tensor]]:
        for number, group in enumerate(self.param_groups):
            for index, p in enumerate(group["params"]):
                yield f"parameter {index} of group {number}", p

    def _check(self, p: Any, place: str) -> None:
        if not isinstance(p, Tensor):
            raise TypeError(f"{place} is {type(p).__name__}, not a tensor. Pass "
                            "`model.parameters()` or a list of tensors")
        if not p.is_leaf:
            raise SettingError(
                f"{place} is not a leaf but the result of an operation, so it never gets a .grad. "
                "Optimise the tensor it was computed from, or make it one: "
                "x.detach().requires_grad_()")
        if np.dtype(p._value.dtype).kind != "f":
            raise SettingError(f"{place} has dtype {p._value.dtype}: only floating-point "
                               "tensors have gradients")

    def _check_options(self, group: Group) -> None:
        """Raises `SettingError` for an option that is out of range."""
        require_numbers(group)
        for key in ("lr", "weight_decay"):
            if key in group:
                require(group, key, group[key] >= 0, ">= 0")
        if group.get("differentiable"):
            raise SettingError("differentiable=True is not supported: call the formula in "
                               "chainrule.optim.formulas on tensors and differentiate that")

    # ------------------------------------------------------------ the step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops every gradient (or fills it with zeros where `set_to_none` is False)."""
        if "zero_grad" in heard:
            tell("zero_grad", owner=self)
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:       # unread, so that a compiled step need not know what was there
                    p._grad = None
                    continue
                grad = p._grad
                if grad is not None:
                    p._grad = grad.detach()
                    p._grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        `closure`, if given, clears the gradients, computes the loss, calls backward and returns
        the loss, which `step` then returns.
        """
        if recording.capture is not None:
            return recording.capture.optimizer_step(self, closure)
        if self._pre_hooks:
            for hook in list(self._pre_hooks.values()):
                hook(self, (closure,), {})
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if "step" in heard:
            tell("step", optimizer=self)
        walks = self._walks
        if len(walks) != len(self.param_groups):         # a list the user may change
            walks = self._walks = [None] * len(self.param_groups)
        for number, group in enumerate(self.param_groups):
            walk = walks[number]
            names = self._slots(group)
            grads = None if walk is None else walk.gradients(group, self.state, names)
            if grads is None:
                params, plain = _with_gradients(group["params"])
                if plain:
                    walk = walks[number] = Walk(self, group, params)
                    grads = walk.gradients(group, self.state, names)
            if grads is None or walk is None:
                self._step_by_formula(group, params)
            elif grads:
                walk.run(self, group, grads)
        self._stepped = True
        if "stepped" in heard:
            tell("stepped", optimizer=self)
        if self._post_hooks:
            for hook in list(self._post_hooks.values()):
                hook(self, (closure,), {})
        return loss

    def _step_by_formula(self, group: Group, params: list[Tensor]) -> None:
        """The step by the formula, on tensors: what a trace records, and the reference."""
        names = self._slots(group)
        with no_grad():
            for p in params:
                state, fresh = self._state_of(group, p, names)
                if recording.capture is not None:
                    fresh = id(p) in recording.capture.fresh
                step = None
                if self.counts_steps:
                    state["step"].add_(1)
                    step = state["step"].double()    # 1 − β₂ᵗ cancels: float32 is too coarse
                slots = tuple(state[name] for name in (*names, *self.scalars))
                grad = -p.grad if group["maximize"] else p.grad  # type: ignore[operator]
                value, kept = self._formula(group, p.detach(), grad, slots, step, fresh)
                p.copy_(value)
                for old, new in zip(slots, kept, strict=True):
                    old.copy_(new)

    def _state_of(self, group: Group, p: Tensor,
                  names: tuple[str, ...]) -> tuple[dict[str, Any], bool]:
        """The state of `p`, made where it is missing, and whether this is its first step."""
        if not names and not self.counts_steps:
            return {}, True
        state = self.state[p]
        fresh = False
        if self.counts_steps and "step" not in state:
            state["step"] = new(np.zeros((), np.float32))
            fresh = True
        elif self.counts_steps and not isinstance(state["step"], Tensor):    # a number was written
            state["step"] = new(np.array(float(state["step"]), np.float32))
        for name in names:
            if state.get(name) is None:
                value = lines.empty(tuple(p.shape), p.dtype)
                value.fill(self._initial(group, name))
                state[name] = new(value)
                fresh = True
        for name in self.scalars:
            kept = state.get(name)
            if kept is None:
                state[name] = new(np.array(self._initial(group, name), np.float32))
                fresh = True
            elif not isinstance(kept, Tensor):           # a number was written
                state[name] = new(np.array(float(kept), np.float32))
        return state, fresh

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Callable[[], None]:
        """Calls `hook(optimizer, args, kwargs)` before each step; returns what removes it."""
        return _add(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> Callable[[], None]:
        """Calls `hook(optimizer, args, kwargs)` after each step; returns what removes it."""
        return _add(self._post_hooks, hook)

    # ------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {index: ...}, "param_groups": [...]}`, in PyTorch's layout.

        Parameters are numbered across groups in order. Tensors are not copied.
        """
        numbers = {id(p): i for i, (_, p) in enumerate(self._places())}
        groups = []
        for group in self.param_groups:
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {numbers[id(p)]: dict(kept) for p, kept in self.state.items()
                 if kept and id(p) in numbers}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a `state_dict()`, this library's or PyTorch's; arrays are copied.

        Raises `SettingError` when groups or shapes do not match; nothing is changed then.
        """
        if recording.capture is not None:
            raise refuse_number("load_state_dict()")
        name = type(self).__name__
        groups = [dict(group) for group in state_dict["param_groups"]]
        if len(groups) != len(self.param_groups):
            raise SettingError(f"{name} has {len(self.param_groups)} parameter groups, the saved "
                               f"state has {len(groups)}")
        for number, (own, saved) in enumerate(zip(self.param_groups, groups, strict=True)):
            if len(own["params"]) != len(saved["params"]):
                raise SettingError(
                    f"group {number} of {name} has {len(own['params'])} parameters, the saved one "
                    f"has {len(saved['params'])}: it was saved for another model")
        by_number = {i: p for own, saved in zip(self.param_groups, groups, strict=True)
                     for i, p in zip(saved["params"], own["params"], strict=True)}
        state: defaultdict[Tensor, dict[str, Any]] = WatchedStates()
        for key, kept in state_dict["state"].items():
            p = by_number.get(key, by_number.get(int(key)))
            if p is None:
                raise SettingError(f"the saved state has an entry {key}, but there are only "
                                   f"{len(by_number)} parameters")
            state[p] = {slot: self._loaded(value, slot, p, f"parameter {key}")
                        for slot, value in kept.items()}
        for own, saved in zip(self.param_groups, groups, strict=True):
            del saved["params"]
            own.update(copy.deepcopy(saved))
        self.state = state
        changed(self)
        self._walks = [None] * len(self.param_groups)

    def _loaded(self, value: Any, slot: str, p: Tensor, place: str) -> Any:
        """A saved entry as a tensor of its own: numbers as float32, others in the dtype of `p`."""
        if value is None or isinstance(value, str | bool):
            return value
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
        if slot == "step" or slot in self.scalars:
            return new(np.array(array, np.float32).reshape(()))
        if array.shape != tuple(p.shape):
            raise SettingError(f"the saved {slot!r} of {place} has shape {array.shape}, the "
                               f"parameter has {tuple(p.shape)}: it was saved for another model")
        return new(np.array(array, p._value.dtype, order="C"))

    def __getstate__(self) -> dict[str, Any]:
        # Walks hold views into parameters, which a copy must not share: they are made anew.
        return {**self.__dict__, "_walks": [None] * len(self.param_groups)}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group)
                      if key not in ("params", "param_names")]
        return "\n".join(lines) + "\n)"


def _with_gradients(params: list[Tensor]) -> tuple[list[Tensor], bool]:
    """The parameters that have a gradient, and whether all of these are plain arrays."""
    found = [p for p in params if p.grad is not None]
    plain = all(isinstance(p._value, np.ndarray) and isinstance(p._grad._value, np.ndarray)
                for p in found)
    return found, plain


def _add(hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> Callable[[], None]:
    key = max(hooks, default=0) + 1
    hooks[key] = hook
    return lambda: hooks.pop(key, None) and None


def require(group: Group, key: str, holds: Any, rule: str) -> None:
    """Raises `SettingError` naming the option, its value and the rule, unless `holds`."""
    if not bool(holds):
        raise SettingError(f"{key}={group[key]!r} must be {rule}")


def require_betas(group: Group) -> None:
    """Raises `SettingError` unless the betas are two numbers from 0 to below 1."""
    betas = group["betas"]
    require(group, "betas", len(betas) == 2 and all(0 <= b < 1 for b in betas),
            "two numbers, each at least 0 and below 1")


NUMBERS = ("lr", "weight_decay", "eps", "momentum", "dampening", "alpha", "rho", "lr_decay",
           "initial_accumulator_value", "momentum_decay")


def require_numbers(group: Group) -> None:
    """Raises `SettingError` for an option that should be a number, or betas, and is not."""
    for key in NUMBERS:
        if key in group and not _is_number(group[key]):
            raise SettingError(f"{key}={group[key]!r} must be a number")
    betas = group.get("betas", (0.9, 0.999))
    if not isinstance(betas, tuple | list) or len(betas) != 2 or not all(map(_is_number, betas)):
        raise SettingError(f"betas={betas!r} must be two numbers")


def _is_number(x: Any) -> bool:
    if isinstance(x, np.ndarray):
        return x.size == 1
    return isinstance(x, int | float | np.number) or (hasattr(x, "numel") and x.numel() == 1)


def torch_options(foreach: Any, maximize: bool, differentiable: bool, **more: Any) -> Group:
    """The options PyTorch keeps in every group; all but `maximize` choose among its own loops."""
    return {"maximize": maximize, "foreach": foreach, "differentiable": differentiable, **more}
