"""Finds what a backward rule reads, by running it on values that only watch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .bind import Value
from .primitive import PROBE, Primitive, Reads, Variadic
from .types import ArrayType, type_of


class Probe(Value):
    """Has a type but no numbers; remembers whether its value or only its shape was asked for."""

    __slots__ = ("level", "probe_type")

    def __init__(self, probe_type: ArrayType) -> None:
        self.probe_type = probe_type
        self.level = 0

    @property
    def shape(self) -> tuple[int, ...]:
        self.level = max(self.level, 1)
        return self.probe_type.shape

    @property
    def dtype(self) -> Any:
        self.level = max(self.level, 1)
        return self.probe_type.dtype

    def apply(self, prim: Primitive, xs: tuple[Any, ...], params: dict[str, Any]) -> Probe:
        types: list[Any] = []
        for x in xs:
            if isinstance(x, Probe):
                x.level = 2
                types.append(x.probe_type)
            else:
                types.append(type_of(x) if hasattr(x, "shape") else None)
        if prim.kind == "elementwise":
            shape = np.broadcast_shapes(*[t.shape for t in types if t is not None])
            types = [None if t is None else ArrayType(shape, t.dtype) for t in types]
        return Probe(prim.infer(*types, **params))


class Blank:
    """Stands in for a random generator where only shapes matter, and costs no import."""

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Any = ()) -> Any:
        return np.ones(size)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = ()) -> Any:
        return np.full(size, (low + high) / 2)

    def integers(self, low: int, high: int, size: Any = ()) -> Any:
        return np.full(size, low)

    def permutation(self, n: int) -> Any:
        return np.arange(n)


def reads_of(prim: Primitive, need: tuple[bool, ...]) -> Reads:
    """The union over the row's samples of what the rules of the needed inputs read."""
    inputs = [0] * len(need)
    output = 0
    variadic = isinstance(prim.pulls, Variadic)
    samples = prim.samples(Blank())
    if not variadic and all(len(xs) != len(need) for xs, _ in samples):
        longest = max((len(xs) for xs, _ in samples if len(xs) < len(need)), default=0)
        if not longest:
            return Reads((2,) * len(need), 2)
        known = prim.reads((*need[:longest],))         # more operands are read as the last one is
        return Reads((*known.inputs, *[known.inputs[-1]] * (len(need) - longest)), known.output)
    for xs, params in samples:
        if len(xs) != len(need) and not variadic:
            continue
        y_type = prim.infer(*[type_of(x) if hasattr(x, "shape") else None for x in xs], **params)
        for i, (x, needed) in enumerate(zip(xs, need, strict=False)):
            if not (needed or variadic) or not hasattr(x, "shape") or x.dtype.kind != "f":
                continue
            rule = prim.pulls[i]
            if rule is None:
                continue
            y = Probe(y_type)
            probes = [Probe(type_of(other)) if hasattr(other, "shape") else other for other in xs]
            rule(Probe(y_type), y, *probes, **params)
            output = max(output, y.level)
            for j, probe in enumerate(probes[: len(inputs)]):
                if isinstance(probe, Probe):
                    inputs[j] = max(inputs[j], probe.level)
    if variadic:
        inputs = [max(inputs)] * len(need)
    return Reads(tuple(inputs), output)


PROBE.append(reads_of)
