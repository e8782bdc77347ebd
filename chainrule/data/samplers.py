"""Samplers: the order in which a loader asks for rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from chainrule.random import Generator, rand, randint, randperm


class Sampler:
    """Row numbers in some order: write `__iter__`, and `__len__` if the length is known."""

    def __iter__(self) -> Iterator[int]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: write one that yields "
                                  "row numbers")


class SequentialSampler(Sampler):
    """0, 1, 2 ... of a data set.

    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """The rows of a data set in random order; with `replacement`, drawn again and again.

    Raises ValueError for a number of samples that is not positive.
    """

    def __init__(self, data_source: Any, replacement: bool = False,
                 num_samples: int | None = None, generator: Generator | None = None) -> None:
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"RandomSampler: num_samples={num_samples!r} must be 1 or more")
        if num_samples and not len(data_source):
            raise ValueError(f"RandomSampler: {num_samples} rows of a data set without rows")
        self.data_source = data_source
        self.replacement = replacement
        self.num_samples = num_samples
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        count, wanted = len(self.data_source), len(self)
        if self.replacement:
            yield from randint(0, count, (wanted,), generator=self.generator).tolist()
            return
        while wanted > 0:
            yield from randperm(count, generator=self.generator).tolist()[:wanted]
            wanted -= count

    def __len__(self) -> int:
        return len(self.data_source) if self.num_samples is None else self.num_samples


class SubsetRandomSampler(Sampler):
    """The given row numbers in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for place in randperm(len(self.indices), generator=self.generator).tolist():
            yield int(self.indices[place])

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """Row numbers drawn with probabilities proportional to `weights`.

    Without `replacement` each is drawn at most once (by the largest u^(1/w); Efraimidis and
    Spirakis 2006). Raises ValueError for weights that are negative or too few.

    >>> list(WeightedRandomSampler([0.0, 1.0], 3))
    [1, 1, 1]
    """

    def __init__(self, weights: Any, num_samples: int, replacement: bool = True,
                 generator: Generator | None = None) -> None:
        given = weights.tolist() if hasattr(weights, "tolist") else list(weights)
        self.weights = np.asarray(given, np.float64)
        if self.weights.ndim != 1 or not (self.weights >= 0).all() or not self.weights.sum() > 0:
            raise ValueError("WeightedRandomSampler: weights must be numbers of at least 0 in one "
                             f"row, not all 0, got {given!r:.80}")
        if num_samples < 1:
            raise ValueError(f"WeightedRandomSampler: num_samples={num_samples!r} must be 1 or "
                             "more")
        possible = int((self.weights > 0).sum())
        if not replacement and num_samples > possible:
            raise ValueError(f"WeightedRandomSampler: {num_samples} different rows are asked for, "
                             f"but only {possible} have a weight above 0; give replacement=True")
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        weights = self.weights
        if self.replacement:
            ends = np.cumsum(weights)
            u = rand(self.num_samples, generator=self.generator, dtype=np.float64).numpy()
            # The last row that can be drawn bounds the place, should rounding reach the end.
            last = int(np.flatnonzero(weights)[-1])
            chosen = np.minimum(np.searchsorted(ends, u * ends[-1], side="right"), last)
        else:
            u = rand(len(weights), generator=self.generator, dtype=np.float64).numpy()
            with np.errstate(divide="ignore", invalid="ignore"):
                keys = np.where(weights > 0, np.log(u) / weights, -np.inf)
            chosen = np.argsort(-keys, kind="stable")[: self.num_samples]
        return iter(chosen.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of `batch_size` row numbers of another sampler.

    >>> list(BatchSampler(range(5), 2, False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool) -> None:
        if batch_size < 1:
            raise ValueError(f"BatchSampler: batch_size={batch_size!r} must be 1 or more")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[Any]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
