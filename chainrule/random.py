"""Random tensors from counter-based generators: a seed and how many numbers were drawn.

The n-th number of a seed is always the same, so eager and compiled code can draw the same ones.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .core.bind import state
from .core.errors import SettingError, ShapeError, TracedValueError
from .core.events import heard, tell
from .core.node import Origin
from .core.primitive import TABLE
from .core.record import new
from .core.types import as_dtype, int64
from .device import require_cpu
from .prims.random import bits, words
from .tensor import Tensor

__all__ = [
    "Generator",
    "bernoulli",
    "default_generator",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "seed",
    "set_rng_state",
]


class Generator:
    """A stream of random numbers: `seed` and `drawn`, nothing else.

    >>> import chainrule as cr
    >>> a, b = (cr.rand(2, generator=cr.Generator().manual_seed(5)) for _ in range(2))
    >>> bool((a == b).all())
    True
    """

    def __init__(self, device: str = "cpu") -> None:
        self._seed = 67280421310721
        self.drawn = 0
        self._lock = threading.Lock()

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of this seed; returns the generator."""
        refuse_while_traced("manual_seed()")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise SettingError(f"a seed is a whole number, not {seed!r}")
        self._seed, self.drawn = int(seed) & 0xFFFFFFFFFFFFFFFF, 0
        return self

    def seed(self) -> int:
        """Start the stream of a seed taken from the system; returns it."""
        seed = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed of the running stream."""
        return self._seed

    def get_state(self) -> Tensor:
        """Seed and position, as an int64 tensor."""
        refuse_while_traced("get_state()")
        return new(np.array([self._seed, self.drawn], np.uint64).view(np.int64))  # type: ignore[no-any-return]

    def set_state(self, value: Tensor) -> Generator:
        """Continue from what `get_state()` gave."""
        refuse_while_traced("set_state()")
        seed, drawn = np.asarray(value.numpy(), np.int64).view(np.uint64)
        self._seed, self.drawn = int(seed), int(drawn)
        return self

    def key(self, count: int) -> Any:
        """The key of the next `count` numbers, which are thereby drawn."""
        refuse_while_traced("key()")
        with self._lock:
            drawn = self.drawn
            self.drawn += count
        return np.array([self._seed, drawn], np.uint64).view(np.int64)

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uniform numbers in [0, 1), as a tensor."""
        count = math.prod(shape)
        key = new(self.key(count)) if state.capture is None else state.capture.key(self, count)
        return bits(key, shape=shape, dtype=dtype)


def refuse_while_traced(what: str) -> None:
    """Generators are not moved by hand inside a compiled function."""
    if state.capture is not None:
        where = Origin.now()
        raise TracedValueError(
            f"{what} of a random generator at {where}: Python runs a compiled function only once, "
            f"so this would happen once and not in each call.\n    {where.source()}\n"
            "Do it before the call. What is drawn inside is the same as without cr.compile.")


def drawn(source: Generator, count: int, numbers: Callable[[Any], Any]) -> Any:
    """`numbers(key)` of the next `count` words as a tensor."""
    if state.capture is not None:
        return state.capture.drawn(source, count, numbers)
    return new(numbers(source.key(count)))


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, from which all random functions draw."""
    if "seed" in heard:
        tell("seed", seed=seed)
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the system."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(value: Tensor) -> None:
    """Continue the default generator from a state."""
    default_generator.set_state(value)


def shape_of(size: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    given = size[0] if len(size) == 1 and not isinstance(size[0], (int, np.integer)) else size
    shape = tuple(int(n) for n in given)
    if any(n < 0 for n in shape):
        raise ShapeError(f"sizes cannot be negative: {list(shape)}")
    return shape


def float_dtype(dtype: Any) -> Any:
    chosen = as_dtype(dtype if dtype is not None else float)
    if chosen.kind != "f":
        raise SettingError(f"random floats of dtype {chosen}: use randint for whole numbers")
    return chosen


def draw(make: Any, shape: tuple[int, ...]) -> Any:
    """make(shape), or as an enclosing vmap says."""
    return state.draws.draw(make, shape) if state.draws is not None else make(shape)


def _uniform(shape: tuple[int, ...], dtype: Any, generator: Generator | None) -> Any:
    source = generator or default_generator
    return draw(lambda s: source.uniform(s, dtype), shape)


def _normal(shape: tuple[int, ...], dtype: Any, generator: Generator | None) -> Any:
    """Box and Muller 1958: √(−2 log u)·(cos 2πv, sin 2πv), u in (0, 1], in float64."""
    def make(s: tuple[int, ...]) -> Any:
        count = math.prod(s)
        half = (count + 1) // 2
        source = generator or default_generator
        if state.capture is not None:
            u = source.uniform((2 * half,), np.dtype(np.float64))
            spread = TABLE["sqrt"](TABLE["log"](1.0 - u[:half]) * -2.0)
            turn = u[half:] * (2.0 * math.pi)
            pair = TABLE["concatenate"](spread * TABLE["cos"](turn), spread * TABLE["sin"](turn),
                                        axis=0)
            return pair[:count].to(dtype).reshape(s)
        flat = (words(source.key(2 * half), 2 * half) >> np.uint64(11)).astype(
            np.float64) * 2.0**-53
        radius = np.sqrt(-2.0 * np.log(1.0 - flat[:half]))
        angle = (2.0 * math.pi) * flat[half:]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return new(both.astype(dtype).reshape(s))
    return draw(make, shape)


def _made(x: Any, requires_grad: bool) -> Tensor:
    return x.requires_grad_() if requires_grad else x  # type: ignore[no-any-return]


def rand(*size: Any, generator: Generator | None = None, dtype: Any = None,
         requires_grad: bool = False, device: Any = None) -> Tensor:
    """Uniform numbers in [0, 1)."""
    require_cpu(device)
    return _made(_uniform(shape_of(size), float_dtype(dtype), generator), requires_grad)


def randn(*size: Any, generator: Generator | None = None, dtype: Any = None,
          requires_grad: bool = False, device: Any = None) -> Tensor:
    """Normal numbers with mean 0 and variance 1."""
    require_cpu(device)
    return _made(_normal(shape_of(size), float_dtype(dtype), generator), requires_grad)


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None,
          device: Any = None) -> Tensor:
    """Uniform numbers in [0, 1) of the shape and dtype of `input`."""
    require_cpu(device)
    return rand(*input.shape, generator=generator, dtype=dtype or input.dtype)


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None,
          device: Any = None) -> Tensor:
    """Normal numbers of the shape and dtype of `input`."""
    require_cpu(device)
    return randn(*input.shape, generator=generator, dtype=dtype or input.dtype)


def randint(low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None,
            dtype: Any = int64, device: Any = None) -> Tensor:
    """Whole numbers in [low, high); `randint(high, size)` starts at 0."""
    require_cpu(device)
    if size is None:
        low, high, size = 0, low, high
    if high <= low:
        raise SettingError(f"randint: there is no whole number in [{low}, {high})")
    span = int(high) - int(low)

    def make(s: tuple[int, ...]) -> Any:
        def numbers(key: Any) -> Any:
            found = words(key, math.prod(s)).reshape(s) % np.uint64(span)
            return (found.astype(np.int64) + low).astype(as_dtype(dtype))
        return drawn(generator or default_generator, math.prod(s), numbers)

    return draw(make, shape_of((size,)))  # type: ignore[no-any-return]


def randint_like(input: Tensor, low: int, high: Any = None, *,
                 generator: Generator | None = None, dtype: Any = None,
                 device: Any = None) -> Tensor:
    """Whole numbers in [low, high), or [0, low), of the shape and dtype of `input`."""
    if high is None:
        low, high = 0, low
    return randint(low, high, tuple(input.shape), generator=generator,
                   dtype=dtype or input.dtype, device=device)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = int64,
          device: Any = None) -> Tensor:
    """The numbers 0 … n − 1 in random order."""
    require_cpu(device)
    if n < 0:
        raise SettingError(f"randperm: n cannot be negative, got {n}")

    def make(s: tuple[int, ...]) -> Any:
        def numbers(key: Any) -> Any:
            found = words(key, math.prod(s)).reshape(s)
            return np.argsort(found, axis=-1, kind="stable").astype(as_dtype(dtype))
        return drawn(generator or default_generator, math.prod(s), numbers)

    return draw(make, (int(n),))  # type: ignore[no-any-return]


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *,
           generator: Generator | None = None) -> Tensor:
    """Normal numbers with the given mean and standard deviation (numbers or tensors)."""
    if not isinstance(std, Tensor) and std < 0:
        raise SettingError(f"normal: the standard deviation cannot be negative, got {std}")
    shape = shape_of((size,)) if size is not None else np.broadcast_shapes(
        *(tuple(x.shape) if isinstance(x, Tensor) else () for x in (mean, std)))
    return randn(*shape, generator=generator) * std + mean  # type: ignore[no-any-return]


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with probability `input`, else 0."""
    if input._value is not None and input.numel() and not (
            input._value.min() >= 0 and input._value.max() <= 1):
        raise SettingError("bernoulli: probabilities lie between 0 and 1, got "
                           f"{float(input._value.min())} to {float(input._value.max())}")
    return (rand_like(input.detach(), generator=generator) < input.detach()).to(input.dtype)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Positions drawn with the probabilities of a vector, or of each row of a matrix.

    The weights need not add up to 1. Without replacement no position is drawn twice, which is done
    by a race: the smallest of E/p, with E exponential (Efraimidis and Spirakis 2006).
    """
    weights = np.atleast_2d(input.numpy_now("multinomial()")).astype(np.float64)
    if input.ndim not in (1, 2) or num_samples <= 0:
        raise ShapeError(f"multinomial: {num_samples} samples from {tuple(input.shape)}: give a "
                         "vector or a matrix of weights and at least 1 sample")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum(1).all()):
        raise SettingError("multinomial: weights must be finite and not negative, and one of each "
                           "row positive")
    if replacement:
        u = rand(len(weights), num_samples, generator=generator, dtype=np.float64)._value
        ends = np.cumsum(weights, 1)
        found = np.stack([np.searchsorted(e, x * e[-1], "right")
                          for e, x in zip(ends, u, strict=True)])
    else:
        if num_samples > (weights > 0).sum(1).min():
            raise ShapeError(f"multinomial: {num_samples} samples without replacement from "
                             f"{int((weights > 0).sum(1).min())} positions of positive weight")
        u = rand(*weights.shape, generator=generator, dtype=np.float64)._value
        with np.errstate(divide="ignore", invalid="ignore"):
            times = np.where(weights > 0, -np.log1p(-u) / weights, np.inf)
        found = np.argsort(times, axis=1, kind="stable")[:, :num_samples]
    return new(found[0] if input.ndim == 1 else found)  # type: ignore[no-any-return]
