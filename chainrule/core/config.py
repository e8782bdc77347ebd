"""The table of switches: name, legal values, default, one sentence. Nothing else is a switch."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Switch:
    """One setting; `read` turns a given value into a legal one or returns None."""

    name: str
    legal: str
    default: Any
    about: str
    read: Callable[[Any], Any]


def _float_dtype(value: Any) -> Any:
    try:
        dtype = np.dtype(value)
    except TypeError:
        return None
    return dtype if dtype in (np.dtype("f2"), np.dtype("f4"), np.dtype("f8")) else None


def _truth(value: Any) -> Any:
    return {"1": True, "true": True, "0": False, "false": False}.get(str(value).lower())


def _count(value: Any) -> Any:
    return int(value) if str(value).isdigit() else None


def _threads(value: Any) -> Any:
    count = _count(value)
    return count if count is not None and count <= 64 else None


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, str | os.PathLike) else None


SHOW_CHANNELS = ("graph", "arrays", "kernels", "memory", "llvm")


def _channels(value: Any) -> Any:
    names = tuple(n for n in (value.split(",") if isinstance(value, str) else value) if n)
    return names if set(names) <= set(SHOW_CHANNELS) else None


SWITCHES = {
    s.name: s
    for s in (
        Switch("default_dtype", "float16, float32, float64", np.dtype("float32"),
               "dtype of new tensors made from Python floats", _float_dtype),
        Switch("verify", "true, false", False,
               "check every graph after it is built or changed", _truth),
        Switch("keep_small", "a whole number", 64,
               "values of at most this many elements stay on the tape, so that explain can show "
               "them", _count),
        Switch("show", ", ".join(SHOW_CHANNELS), (),
               "print what a stage produced, to standard error", _channels),
        Switch("compile", "native, numpy, off", "native",
               "how compiled functions run: as machine code, row by row in NumPy, or by Python",
               lambda v: v if v in ("native", "numpy", "off") else None),
        Switch("num_threads", "a whole number from 1 to 64, or 0 for what the machine offers", 0,
               "how many threads a compiled function uses at first", _threads),
        Switch("cache", "true, false (the directory is set by cache_dir, CHAINRULE_CACHE_DIR)",
               True,
               "keep machine code on disk for the next process", _truth),
        Switch("cache_dir", "a directory, or nothing for the user's cache directory", "",
               "where machine code is kept", _path),
        Switch("cache_size", "a whole number", 256,
               "MiB of machine code to keep at most", _count),
    )
}


class Settings:
    """Current values of the switches; each starts from `CHAINRULE_<NAME>` if that is set.

    >>> settings.verify = "maybe"
    Traceback (most recent call last):
    ...
    chainrule.core.errors.SettingError: verify = 'maybe' is not legal. Legal values: true, false.
    """

    default_dtype: Any
    verify: bool
    keep_small: int
    show: tuple[str, ...]
    compile: str
    num_threads: int
    cache: bool
    cache_dir: str
    cache_size: int

    def __init__(self) -> None:
        for switch in SWITCHES.values():
            variable = f"CHAINRULE_{switch.name.upper()}"
            try:
                setattr(self, switch.name, os.environ.get(variable, switch.default))
            except SettingError as error:
                raise SettingError(f"the environment variable {variable}: {error}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        switch = SWITCHES.get(name)
        if switch is None:
            raise SettingError(f"there is no setting {name!r}. Settings: {', '.join(SWITCHES)}.")
        legal = value if value is switch.default else switch.read(value)
        if legal is None:
            raise SettingError(f"{name} = {value!r} is not legal. Legal values: {switch.legal}.")
        object.__setattr__(self, name, legal)

    @contextmanager
    def using(self, **values: Any) -> Iterator[None]:
        """Change settings for a `with` block."""
        before = {name: getattr(self, name) for name in values if name in SWITCHES}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


settings = Settings()
