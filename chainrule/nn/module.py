"""`Module`: a piece of a network with parameters, submodules, state and hooks."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np

from chainrule.core.bind import state as recording
from chainrule.core.changes import Watched, changed
from chainrule.core.errors import ChainruleError, SettingError
from chainrule.core.events import heard, tell
from chainrule.core.node import PACKAGE, here, user_frame, wrote
from chainrule.core.places import note_place
from chainrule.core.record import refuse_number
from chainrule.device import refuse_cuda, require_cpu
from chainrule.tensor import Tensor
from chainrule.tree import register as register_tree

from .display import lines_of, shapes_of, summary_of
from .hooks import Hook, RemovableHandle, call_with_hooks, register
from .naming import refuse_tensor
from .parameter import Parameter
from .stateless import join, replaced, split


class StateDictError(ChainruleError, RuntimeError):
    """A state dict whose names or shapes are not those of the module."""


class HiddenModuleWarning(UserWarning):
    """Modules or parameters in a plain list, tuple or dict, which no module registers."""


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it found and did not want."""

    missing_keys: list[str]
    unexpected_keys: list[str]


_REGISTRIES = ("_parameters", "_buffers", "_modules")


class Module:
    """Base of all networks and layers: define `__init__` and `forward`.

    Parameters, buffers and submodules assigned as attributes are registered in order of
    assignment, and stay ordinary attributes that are read at full speed. A plain list or dict of
    modules is *not* registered, as in PyTorch; here that is said aloud (`HiddenModuleWarning`) at
    the first forward or `parameters()`, since the modules in it would silently not be trained.
    Use `ModuleList` or `ModuleDict`, or silence the warning where it is meant.

    >>> import chainrule as cr
    >>> class Net(cr.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = cr.nn.Linear(2, 4)
    ...         self.out = cr.nn.Linear(4, 1)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> net = Net()
    >>> [name for name, _ in net.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    >>> tuple(net(cr.zeros(3, 2)).shape)
    (3, 1)
    """

    training: bool
    _ours = False           # is `forward` code of this package, with no line of the user's in it?
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _forward_hooks: dict[int, Any]
    _forward_pre_hooks: dict[int, Any]
    _backward_hooks: dict[int, Any]
    _backward_pre_hooks: dict[int, Any]
    _plain: bool
    _shapes: Any
    _searched: int

    def __init__(self, *args: Any) -> None:
        if args:
            refuse_tensor(self, *args)
            raise TypeError(f"{type(self).__name__} takes no arguments, and got {len(args)}: "
                            "Module keeps nothing of them")
        vars(self).update(
            training=True, _parameters=Watched(), _buffers=Watched(), _modules=Watched(),
            _non_persistent_buffers_set=set(), _forward_hooks=Watched(),
            _forward_pre_hooks=Watched(), _backward_hooks=Watched(), _backward_pre_hooks=Watched(),
            _plain=False, _shapes=None, _searched=0)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Code run by exec() may belong to no module: then it is None.
        cls._ours = (getattr(cls.forward, "__module__", "") or "").startswith(f"{PACKAGE}.")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the output; every subclass defines it."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward: define `def forward(self, x): ...` in it")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # `_plain` is true once the shapes are known and while there are no hooks.
        outer = recording.scope
        if self._ours:
            place = None if outer is None else outer[2]
            if place is None:
                frame = user_frame(sys._getframe(1))
                place = None if frame is None else (frame.f_code, frame.f_lasti)
        else:
            place = None
        recording.scope = (outer, self, place)
        if "unrecorded" in heard:
            if not recording.recording:
                tell("unrecorded", module=self)
            elif outer is None:                   # whoever listens wants to know who called
                recording.scope = (None, self, place, here())
        try:
            if self._plain:
                return self.forward(*args, **kwargs)
            return self._call_slowly(outer, args, kwargs)
        finally:
            recording.scope = outer

    def _call_slowly(self, outer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if outer is None:
            self._warn_of_hidden(1)
        if (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks
                or self._backward_pre_hooks):
            recording.scope = (outer, self, None)
            result = call_with_hooks(self, args, kwargs)
            plain = False
        else:
            result = self.forward(*args, **kwargs)
            plain = type(self).__call__ is Module.__call__
        if self._shapes is None:
            vars(self)["_shapes"] = shapes_of(args, kwargs, result)
        vars(self)["_plain"] = plain
        return result

    def _call_with(self, values: Mapping[str, Any], args: tuple[Any, ...],
                   kwargs: Mapping[str, Any], strict: bool = False) -> Any:
        """A call with other parameters and buffers, given by path (`func.functional_call`)."""
        with replaced(self, values, strict):
            return self(*args, **kwargs)

    # ------------------------------------------------------------ attributes and registration

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            self._claim(name, "_parameters")[name] = value
            own[name] = value
        elif isinstance(value, Module):
            self._claim(name, "_modules")[name] = value
            own[name] = value
        else:
            for key, what, kinds in (("_parameters", "parameter", "nn.Parameter"),
                                     ("_modules", "module", "nn.Module"),
                                     ("_buffers", "buffer", "Tensor")):
                registry = own.get(key)
                if registry and name in registry:
                    if value is not None and not (key == "_buffers" and isinstance(value, Tensor)):
                        raise TypeError(
                            f"{type(self).__name__}.{name} is a {what}: assign {kinds} or None, "
                            f"not {_kind(value)}")
                    registry[name] = own[name] = value
                    return
            object.__setattr__(self, name, value)
            changed(self)

    def _claim(self, name: str, registry: str) -> dict[str, Any]:
        """The registry that `name` goes to, with the name taken out of the others."""
        own = self.__dict__
        if registry not in own:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() first in "
                                 f"__init__, before assigning {name!r}")
        for other in _REGISTRIES:
            if other != registry:
                own[other].pop(name, None)
        own["_non_persistent_buffers_set"].discard(name)
        found: dict[str, Any] = own[registry]
        return found

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        changed(self)
        for registry in _REGISTRIES:
            self.__dict__[registry].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def _check_name(self, name: str, registry: str, what: str) -> None:
        if registry not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() first in "
                                 f"__init__, before registering {name!r}")
        if not isinstance(name, str):
            raise TypeError(f"the name of a {what} is a string, not {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(f"{name!r} cannot name a {what}: it must not be empty and must not "
                           "contain '.', which separates the levels of a path")
        if hasattr(self, name) and name not in self.__dict__[registry]:
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter, or None to reserve the name for one."""
        self._check_name(name, "_parameters", "parameter")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"{name!r} must be an nn.Parameter or None, not {_kind(param)}")
        self._parameters[name] = self.__dict__[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but not trained; in the state dict if `persistent`."""
        self._check_name(name, "_buffers", "buffer")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"{name!r} must be a Tensor or None, not {_kind(tensor)}")
        self._buffers[name] = self.__dict__[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule under `name`, which may be any string without '.'."""
        self._check_name(name, "_modules", "module")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{name!r} must be an nn.Module or None, not {_kind(module)}")
        self._modules[name] = self.__dict__[name] = module

    register_module = add_module

    def get_submodule(self, target: str) -> Module:
        """The submodule at a path such as `encoder.0`; '' is the module itself."""
        module = self
        for done, name in enumerate(target.split(".") if target else []):
            found = module._modules.get(name)
            if found is None:
                place = ".".join(target.split(".")[:done]) or type(self).__name__
                raise AttributeError(f"{place} has no submodule {name!r}; it has "
                                     f"{list(module._modules) or 'none'}")
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as `encoder.0.weight`."""
        found: Parameter = self._get("_parameters", target)
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path such as `norm.running_mean`."""
        found: Tensor = self._get("_buffers", target)
        return found

    def _get(self, registry: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        found = module.__dict__[registry].get(name)
        if found is None:
            raise AttributeError(f"{path or type(self).__name__} has no {registry[1:-1]} {name!r}; "
                                 f"it has {list(module.__dict__[registry]) or 'none'}")
        return found

    # ------------------------------------------------------------ walks

    def named_modules(self, memo: set[Any] | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(path, module) for this module and all below it, parents first."""
        seen = set() if memo is None else memo
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate:
                if module in seen:
                    continue
                seen.add(module)
            yield path, module
            before = path + "." if path else ""
            stack += [(before + name, child)
                      for name, child in reversed(module._modules.items()) if child is not None]

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once, parents first."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct submodules, each module once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        for _, child in self.named_children():
            yield child

    def _named(self, registry: str, prefix: str, recurse: bool,
               remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen = set()
        walk = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse \
            else [(prefix, self)]
        for path, module in walk:
            for name, value in module.__dict__[registry].items():
                if value is None or (remove_duplicate and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (path + "." if path else "") + name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), in order of registration; a shared parameter comes once."""
        self._warn_of_hidden(2)
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of this module and, with `recurse`, of all below."""
        self._warn_of_hidden(2)
        return (parameter for _, parameter in self._named("_parameters", "", recurse, True))

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer), in order of registration."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of this module and, with `recurse`, of all below."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def _warn_of_hidden(self, occasion: int) -> None:
        """Looks for modules and parameters in plain containers, once on each occasion."""
        if self._searched & occasion:
            return
        self.__dict__["_searched"] |= occasion
        known: set[int] | None = None
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if name in _OWN or not isinstance(value, list | tuple | dict):
                    continue
                items = list(value.values()) if isinstance(value, dict) else value
                found = [x for x in items if isinstance(x, Module | Parameter)]
                if not found:
                    continue
                if known is None:
                    known = {id(m) for m in self.modules()}
                    known |= {id(p) for _, p in self._named("_parameters", "", True, True)}
                hidden = [x for x in found if id(x) not in known and _trains(x)]
                if hidden:
                    _warn_hidden(module, path, name, value, hidden, 5 if occasion == 1 else 4)

    # ------------------------------------------------------------ state dicts

    def state_dict(self, *, destination: dict[str, Any] | None = None, prefix: str = "",
                   keep_vars: bool = False) -> dict[str, Any]:
        """Parameters and persistent buffers by path; they share memory with the module.

        Detached unless `keep_vars`.
        """
        self._warn_of_hidden(4)
        result: dict[str, Any] = {} if destination is None else destination
        for path, value in self._saved(prefix):
            result[path] = value if keep_vars else value.detach()
        return result

    def _saved(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for path, module in self.named_modules(remove_duplicate=False):
            before = prefix + (path + "." if path else "")
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield before + name, parameter
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._non_persistent_buffers_set:
                    yield before + name, buffer

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True,
                        assign: bool = False) -> IncompatibleKeys:
        """Copies values by path into parameters and buffers, converting their dtype.

        Values may be tensors of this library or of PyTorch, or NumPy arrays. Raises
        `StateDictError` naming keys that are missing, unexpected (both only if `strict`) or of
        another shape; nothing is changed then. `assign` takes the tensors themselves over.
        """
        if not isinstance(state_dict, Mapping):
            better = "cr.load(path) first" if isinstance(state_dict, str | os.PathLike) else (
                "give model.state_dict()" if isinstance(state_dict, Module) else
                "a state dict maps names to tensors")
            raise TypeError(f"load_state_dict got a {_kind(state_dict)}: {better}")
        if recording.capture is not None:
            raise refuse_number("load_state_dict()")
        own = dict(self._saved())
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own]
        values = {key: _array(state_dict[key]) for key in own if key in state_dict}
        wrong = [f"{key}: {tuple(value.shape)} given, {tuple(own[key].shape)} needed"
                 for key, value in values.items() if value.shape != tuple(own[key].shape)]
        if wrong or (strict and (missing or unexpected)):
            raise StateDictError(_mismatch(type(self).__name__, missing if strict else [],
                                           unexpected if strict else [], wrong))
        for key, value in values.items():
            if assign and isinstance(state_dict[key], Tensor):
                path, _, name = key.rpartition(".")
                old, new = own[key], state_dict[key]
                if isinstance(old, Parameter) and not isinstance(new, Parameter):
                    new = Parameter(new, old.requires_grad)
                setattr(self.get_submodule(path), name, new)
            else:
                target = own[key]._value
                target[...] = value
                wrote(target)
        return IncompatibleKeys(missing, unexpected)

    # ------------------------------------------------------------ mode, dtype, gradients

    def train(self, mode: bool = True) -> Self:
        """Puts this module and all below it in training mode, which dropout and batch norm read."""
        if not isinstance(mode, bool):
            raise TypeError(f"train(mode) takes True or False, not {_kind(mode)}")
        if not mode:
            note_place(self, "put into evaluation mode")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Puts this module and all below it in evaluation mode."""
        return self.train(False)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Calls `fn(module)` for all modules, children first."""
        for module in reversed(list(self.modules())):
            fn(module)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Converts floating-point parameters and buffers to a dtype, in place.

        Takes a dtype, a tensor to match, or a device, of which there is only the CPU.
        """
        dtype = kwargs.pop("dtype", None)
        for key, value in [*enumerate(args), *kwargs.items()]:
            if key in ("non_blocking", "copy", "memory_format") or isinstance(value, bool):
                continue
            if isinstance(value, Tensor):
                dtype = value.dtype
            elif key == "device" or isinstance(value, str) or hasattr(value, "index"):
                require_cpu(value)
            elif value is not None:
                dtype = value
        if dtype is None:
            return self
        if np.dtype(dtype).kind != "f":
            raise SettingError(f"a module can only be converted to a floating-point dtype, "
                               f"not {np.dtype(dtype)}")
        for module in self.modules():
            for parameter in module._parameters.values():
                if parameter is not None and parameter.dtype.kind == "f":
                    grad = parameter.grad
                    parameter.grad = None
                    parameter.data = parameter.data.to(dtype)
                    if grad is not None:
                        parameter.grad = grad.to(dtype)
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.dtype.kind == "f":
                    module._buffers[name] = module.__dict__[name] = buffer.to(dtype)
        return self

    def float(self) -> Self:
        """Converts to float32."""
        return self.to(np.dtype(np.float32))

    def double(self) -> Self:
        """Converts to float64."""
        return self.to(np.dtype(np.float64))

    def half(self) -> Self:
        """Converts to float16."""
        return self.to(np.dtype(np.float16))

    def cpu(self) -> Self:
        """Returns the module: it is on the CPU already."""
        return self

    def cuda(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: there is no device but the CPU."""
        refuse_cuda("module")

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Says of all parameters whether they want gradients; False freezes them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or fills them with zeros."""
        if "zero_grad" in heard:
            tell("zero_grad", owner=self)
        for parameter in self.parameters():
            if set_to_none:           # unread, so that a compiled step need not know what was there
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = parameter.grad.detach()
                parameter.grad.zero_()

    # ------------------------------------------------------------ hooks

    def register_forward_pre_hook(self, hook: Hook, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """`hook(module, args)` runs before forward; what it returns replaces the arguments."""
        return self._hook("_forward_pre_hooks", (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook: Hook, *, prepend: bool = False,
                              with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """`hook(module, args, output)` runs after forward; what it returns replaces the output."""
        return self._hook("_forward_hooks", (hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_input, grad_output)` runs when both are known in the backward pass.

        Both are tuples; what it returns replaces `grad_input` (of a module with one input).
        """
        return self._hook("_backward_hooks", hook, prepend)

    def register_full_backward_pre_hook(self, hook: Hook,
                                        prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_output)` runs before the module's backward; what it returns
        replaces `grad_output`."""
        return self._hook("_backward_pre_hooks", hook, prepend)

    def _hook(self, kind: str, hook: Any, prepend: bool) -> RemovableHandle:
        vars(self)["_plain"] = False
        return register(self.__dict__[kind], hook, prepend)

    # ------------------------------------------------------------ printing and copying

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr; subclasses define it."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return lines_of(self, Module.__repr__)

    def summary(self) -> str:
        """A table of all modules: path, type, output of the first forward, parameters."""
        return summary_of(self)

    def __dir__(self) -> list[str]:
        return sorted(name for name in object.__dir__(self) if not name[0].isdigit())


# Transformations take modules as trees of their parameters: func.grad(loss)(model) is a module
# whose parameters are the gradients.
register_tree(Module, split, join)

_OWN = frozenset(vars(Module()))


def _kind(value: Any) -> str:
    return type(value).__name__


def _trains(x: Any) -> bool:
    parameters = [x] if isinstance(x, Parameter) else [p for _, p in x._named(
        "_parameters", "", True, True)]
    return any(p.requires_grad for p in parameters)


def _warn_hidden(module: Module, path: str, name: str, value: Any, hidden: list[Any],
                 level: int) -> None:
    kind = _kind(value)
    inside = "Parameter" if isinstance(hidden[0], Parameter) else "Module"
    better = f"nn.{inside}{'Dict' if isinstance(value, dict) else 'List'}"
    owner = f"{type(module).__name__} {path!r}" if path else type(module).__name__
    many = "" if len(hidden) == 1 else "s"
    what = f"parameter{many}" if inside == "Parameter" else f"module{many} with parameters"
    warnings.warn(
        f"{owner}.{name} is a plain {kind} with {len(hidden)} {what} that no module registers: "
        "optimisers, state_dict() and to() do not see them, so they would not be trained or "
        f"saved. Write self.{name} = {better}(...)", HiddenModuleWarning, stacklevel=level)


def _array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._value
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


def _mismatch(name: str, missing: list[str], unexpected: list[str], wrong: list[str]) -> str:
    lines = [f"the state dict does not fit {name}:"]
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong)):
        if keys:
            lines += [f"  {title}:", *(f"    {key}" for key in keys)]
    if missing and unexpected:
        for key in unexpected:
            prefix = key.removesuffix(missing[0])
            if prefix != key and {u.removeprefix(prefix) for u in unexpected} >= set(missing):
                lines.append(f"  The keys carry the prefix {prefix!r}: load "
                             f"{{k.removeprefix({prefix!r}): v for k, v in state.items()}}")
                break
    return "\n".join(lines)
