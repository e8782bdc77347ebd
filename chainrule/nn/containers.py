"""Containers: modules and parameters in order or by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from chainrule.core.bind import state as recording
from chainrule.core.errors import SettingError
from chainrule.tensor import Tensor

from .display import type_text
from .module import Module
from .parameter import Parameter


def _place(owner: Any, index: int, length: int) -> int:
    """A list index, counted from the end if negative."""
    if not -length <= index < length:
        raise IndexError(f"index {index} is out of range: this {type(owner).__name__} has "
                         f"{length} entries")
    return index % length


class _ModuleSequence(Module):
    """Modules named '0', '1', ... (or as given), with the indexing of a list."""

    def _set_all(self, entries: Iterable[tuple[str, Module]]) -> None:
        for name in list(self._modules):
            delattr(self, name)
        for name, module in entries:
            self.add_module(name, module)

    def _key(self, index: int) -> str:
        return list(self._modules)[_place(self, int(index), len(self._modules))]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __contains__(self, module: object) -> bool:
        return any(module is own for own in self._modules.values())

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        gone = names[index] if isinstance(index, slice) else [self._key(index)]
        kept = [(name, module) for name, module in self._modules.items() if name not in gone]
        if all(name.isdigit() for name in names):
            kept = [(str(i), module) for i, (_, module) in enumerate(kept)]
        self._set_all(kept)  # type: ignore[arg-type]

    def append(self, module: Module) -> Self:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Puts a module before `index`; the names behind move up."""
        modules = list(self)
        modules.insert(index, module)
        self._set_all((str(i), m) for i, m in enumerate(modules))
        return self

    def pop(self, index: int = -1) -> Module:
        """Takes the module at `index` out and returns it."""
        module: Module = self._modules[self._key(index)]  # type: ignore[assignment]
        del self[index]
        return module


class Sequential(_ModuleSequence):
    """Modules called one after the other; given in order, or by name in a dict.

    >>> import chainrule as cr
    >>> net = cr.nn.Sequential(cr.nn.Linear(2, 4), cr.nn.ReLU(), cr.nn.Linear(4, 1))
    >>> net
    Sequential(
      (0): Linear(in_features=2, out_features=4, bias=True)
      (1): ReLU()
      (2): Linear(in_features=4, out_features=1, bias=True)
    )
    >>> tuple(net[0].weight.shape), len(net[:2])
    ((4, 2), 2)
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            self._set_all(args[0].items())
        else:
            for index, module in enumerate(args):
                if not isinstance(module, Module):
                    if isinstance(module, type) and issubclass(module, Module):
                        raise TypeError(f"Sequential: argument {index} is the class "
                                        f"{module.__name__}: write nn.{module.__name__}(), with "
                                        "brackets, to make the layer")
                    raise TypeError(
                        f"Sequential: argument {index} is {type(module).__name__}, not a Module"
                        + (": write Sequential(*layers)" if isinstance(module, list | tuple)
                           else ""))
                self.add_module(str(index), module)

    def forward(self, input: Any) -> Any:
        # As `module(input)`, without the cost of a call where nothing hooks into it.
        scope = recording.scope
        place = None if scope is None else scope[2]
        for module in self._modules.values():
            if module._plain and module._ours:  # type: ignore[union-attr]
                recording.scope = (scope, module, place)
                input = module.forward(input)  # type: ignore[union-attr]
            else:
                recording.scope = scope
                input = module(input)  # type: ignore[misc]
        recording.scope = scope
        return input

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        return self._modules[self._key(index)]

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *other)


class ModuleList(_ModuleSequence):
    """A list of modules that are registered; it has no forward of its own.

    >>> import chainrule as cr
    >>> layers = cr.nn.ModuleList([cr.nn.Linear(2, 2) for _ in range(3)])
    >>> layers
    ModuleList(
      (0-2): 3 x Linear(in_features=2, out_features=2, bias=True)
    )
    """

    _folds = True

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[self._key(index)]

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a ModuleList is not called: loop over it in your forward, or "
                                  "use Sequential")


class ModuleDict(Module):
    """A dict of modules that are registered."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None
                 ) -> None:
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        if key in self._modules:
            setattr(self, key, module)
        else:
            self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        self._modules[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, module)."""
        return self._modules.items()

    def pop(self, key: str) -> Any:
        """Takes a module out and returns it."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Takes all modules out."""
        for key in list(self._modules):
            del self[key]

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds or replaces modules by name."""
        pairs = modules.items() if isinstance(modules, Mapping | ModuleDict) else modules
        for key, module in pairs:
            self[key] = module


class ParameterList(Module):
    """A list of parameters that are registered; tensors are made into parameters."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.extend(values or ())

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parameters.values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._parameters[str(_place(self, index, len(self)))]

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_place(self, index, len(self))), _parameter(value))

    def append(self, value: Any) -> Self:
        """Adds a parameter at the end."""
        setattr(self, str(len(self)), _parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Adds parameters at the end."""
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def __repr__(self) -> str:
        return _parameters_repr(self)


class ParameterDict(Module):
    """A dict of parameters that are registered; tensors are made into parameters."""

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None
                 ) -> None:
        super().__init__()
        self.update(parameters or {})

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self._parameters and hasattr(self, key):
            raise SettingError(f"{key!r} cannot name a parameter here: it is an attribute of "
                               "ParameterDict already")
        setattr(self, key, _parameter(value))

    def __delitem__(self, key: str) -> None:
        self._parameters[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._parameters.keys()

    def values(self) -> Iterable[Any]:
        """The parameters."""
        return self._parameters.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, parameter)."""
        return self._parameters.items()

    def update(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Adds or replaces parameters by name."""
        pairs = parameters.items() if isinstance(parameters, Mapping | ParameterDict) \
            else parameters
        for key, value in pairs:
            self[key] = value

    def __repr__(self) -> str:
        return _parameters_repr(self)


def _parameter(value: Any) -> Parameter:
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Tensor):
        return Parameter(value)
    raise TypeError(f"a parameter is a Tensor, not {type(value).__name__}")


def _parameters_repr(module: Module) -> str:
    lines = [f"    ({name}): Parameter {type_text(p)}"
             for name, p in module._parameters.items() if p is not None]
    name = type(module).__name__
    return f"{name}(\n" + "\n".join(lines) + "\n)" if lines else f"{name}()"
