"""Modules as values: with other parameters for the length of a call, and as trees of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chainrule.core.errors import SettingError


@contextmanager
def replaced(module: Any, values: Mapping[str, Any], strict: bool = False) -> Iterator[None]:
    """Within the block, parameters and buffers at the paths of `values` have these values.

    Raises `SettingError` for an unknown path, and with `strict` for one that is left out.
    """
    known = {path: (part, registry, name)
             for before, part in module.named_modules(remove_duplicate=False)
             for registry in ("_parameters", "_buffers")
             for name, value in part.__dict__[registry].items() if value is not None
             for path in [f"{before}.{name}" if before else name]}
    unknown = [path for path in values if path not in known]
    missing = [path for path in known if path not in values] if strict else []
    if unknown or missing:
        raise SettingError(
            f"{type(module).__name__} has no parameter or buffer {', '.join(unknown)}; it has "
            f"{', '.join(known) or 'none'}" if unknown else
            f"strict=True needs a value for every parameter and buffer; missing are "
            f"{', '.join(missing)}")
    # A tensor that several modules share is replaced in all of them.
    new = {id(part.__dict__[name]): values[path]
           for path, (part, _, name) in known.items() if path in values}
    changed = []
    for part, registry, name in known.values():
        old = part.__dict__[name]
        if id(old) in new:
            changed.append((part, registry, name, old))
    try:
        for part, registry, name, old in changed:
            part.__dict__[registry][name] = part.__dict__[name] = new[id(old)]
        yield
    finally:
        for part, registry, name, old in changed:
            part.__dict__[registry][name] = part.__dict__[name] = old


def split(module: Any) -> tuple[list[Any], Any]:
    """The parameters of a module and what `join` needs to put others in their place."""
    named = list(module.named_parameters())
    return [parameter for _, parameter in named], (module, [id(p) for _, p in named])


def join(values: list[Any], data: Any) -> Any:
    """A module of the same structure that holds `values` as its parameters; buffers are shared."""
    module, identities = data
    return _rebuilt(module, dict(zip(identities, values, strict=True)), {})


def _rebuilt(module: Any, values: dict[int, Any], done: dict[int, Any]) -> Any:
    found = done.get(id(module))
    if found is not None:
        return found
    copy = done[id(module)] = object.__new__(type(module))
    own = copy.__dict__
    own.update(module.__dict__)
    for registry in ("_parameters", "_buffers", "_modules"):
        own[registry] = dict(module.__dict__[registry])
    for name, parameter in module._parameters.items():
        if parameter is not None:
            own["_parameters"][name] = own[name] = values[id(parameter)]
    for name, child in module._modules.items():
        if child is not None:
            own["_modules"][name] = own[name] = _rebuilt(child, values, done)
    return copy
