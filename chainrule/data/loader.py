"""DataLoader: a data set in batches, shuffled anew for each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any

import numpy as np

from chainrule.functions.creation import from_numpy, tensor
from chainrule.functions.shaping import stack
from chainrule.random import Generator, randperm
from chainrule.tensor import Tensor

from .dataset import Indices, IterableDataset


class DataLoader:
    """Iterate over a data set in batches.

    `dataset` has `__len__` and `__getitem__`. Each pass draws a new order when `shuffle` is
    true; the order comes from `generator`, else from a generator seeded with `seed`, else from
    the global one (`cr.manual_seed`). `sampler` is any iterable of row numbers, `batch_sampler`
    any iterable of lists of them. `drop_last` leaves out a last batch that is too small.
    `collate_fn` makes a batch from a list of rows (default: `default_collate`). With
    `batch_size=None` rows come one by one. Batches are made in this process: `num_workers` and
    `pin_memory` are accepted so that existing programs run, and change nothing.

    Raises ValueError for a batch size below 1 or options that contradict one another.

    >>> import chainrule as cr
    >>> from chainrule.data import DataLoader, TensorDataset
    >>> data = TensorDataset(cr.arange(5), cr.arange(5) * 10)
    >>> for x, y in DataLoader(data, batch_size=2):
    ...     print(x.tolist(), y.tolist())
    [0, 1] [0, 10]
    [2, 3] [20, 30]
    [4] [40]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        *,
        generator: Generator | None = None,
        seed: int | None = None,
    ) -> None:
        streams = isinstance(dataset, IterableDataset)
        if streams and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("DataLoader: the rows of an IterableDataset come in their own order, "
                             "so leave out shuffle, sampler and batch_sampler.")
        if not streams and not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(
                f"DataLoader: {type(dataset).__name__} has no length or cannot be indexed. "
                "A data set needs __len__ and __getitem__; for two tensors write "
                "TensorDataset(x, y)."
            )
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"DataLoader: batch_size is {batch_size}, it must be 1 or more.")
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: a sampler fixes the order, so leave out shuffle=True.")
        if batch_sampler is not None and (
            batch_size != 1 or shuffle or sampler is not None or drop_last
        ):
            raise ValueError(
                "DataLoader: a batch_sampler fixes the batches, so leave out batch_size, "
                "shuffle, sampler and drop_last."
            )
        if generator is not None and seed is not None:
            raise ValueError("DataLoader: give generator or seed, not both.")
        if drop_last and batch_size is None:
            raise ValueError("DataLoader: without batches (batch_size=None) none can be dropped.")
        self.dataset = dataset
        self.batch_size = None if batch_sampler is not None else batch_size
        self.shuffle = bool(shuffle)
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.generator = Generator().manual_seed(seed) if seed is not None else generator
        self.collate_fn = collate_fn

    def __len__(self) -> int:
        """The number of batches in one pass."""
        if self.batch_sampler is not None:
            return _length(self.batch_sampler, "batch_sampler")
        if self.sampler is None and not hasattr(self.dataset, "__len__"):
            raise TypeError(f"len(DataLoader): the data set ({type(self.dataset).__name__}) has no "
                            "length, so the number of batches is not known.")
        rows = len(self.dataset) if self.sampler is None else _length(self.sampler, "sampler")
        if self.batch_size is None:
            return rows
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.dataset, IterableDataset):
            yield from self._stream()
            return
        if self.batch_sampler is not None:
            for indices in self.batch_sampler:
                yield self._batch(np.asarray(indices, dtype=np.int64))
            return
        order = self._order()
        if self.batch_size is None:
            for index in order.tolist():
                row = self.dataset[index]
                yield row if self.collate_fn is None else self.collate_fn(row)
            return
        end = len(order)
        if self.drop_last:
            end -= end % self.batch_size
        for start in range(0, end, self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def _stream(self) -> Iterator[Any]:
        rows = iter(self.dataset)
        collate = default_collate if self.collate_fn is None else self.collate_fn
        if self.batch_size is None:
            yield from rows if self.collate_fn is None else map(collate, rows)
            return
        while batch := list(islice(rows, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield collate(batch)

    def _order(self) -> Indices:
        if self.sampler is not None:
            return np.array([int(index) for index in self.sampler], dtype=np.int64)
        count = len(self.dataset)
        if self.shuffle:
            return randperm(count, generator=self.generator).numpy()
        return np.arange(count)

    def _batch(self, indices: Indices) -> Any:
        if self.collate_fn is None and hasattr(self.dataset, "rows"):
            return self.dataset.rows(indices)
        rows = [self.dataset[index] for index in indices.tolist()]
        return default_collate(rows) if self.collate_fn is None else self.collate_fn(rows)


def _length(sampler: Iterable[Any], name: str) -> int:
    if isinstance(sampler, Sized):
        return len(sampler)
    raise TypeError(
        f"len(DataLoader): the {name} ({type(sampler).__name__}) has no length, so the number "
        f"of batches is not known. Give the {name} a __len__."
    )


def default_collate(rows: list[Any]) -> Any:
    """One batch from a list of rows: tensors and arrays are stacked, numbers become a tensor.

    Tuples, lists and dicts are collated part by part; texts stay a list. Python floats become
    float64 and integers int64, as in PyTorch. Raises ValueError when shapes or lengths differ,
    TypeError for a type it does not know.

    >>> default_collate([(1, "a"), (2, "b")])
    [tensor([1, 2]), ['a', 'b']]
    """
    first = rows[0]
    if isinstance(first, Tensor):
        _require_equal_shapes([tuple(row.shape) for row in rows])
        return stack(rows)
    if isinstance(first, np.ndarray | np.generic):
        _require_equal_shapes([np.shape(row) for row in rows])
        return from_numpy(np.stack(rows))
    if isinstance(first, bool | int):
        return tensor(rows)
    if isinstance(first, float):
        return from_numpy(np.array(rows, dtype=np.float64))
    if isinstance(first, str | bytes):
        return rows
    if isinstance(first, Mapping):
        return {key: default_collate([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple | list):
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise ValueError(
                f"default_collate: rows of {lengths[0]} and of {lengths[-1]} parts in one "
                "batch. Return the same parts for each row, or pass a collate_fn."
            )
        parts = [default_collate(list(column)) for column in zip(*rows, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else parts
    raise TypeError(
        f"default_collate: cannot make a batch of {type(first).__name__}. Return tensors, "
        "NumPy arrays, numbers, texts, tuples, lists or dicts from the data set, or pass a "
        "collate_fn."
    )


def _require_equal_shapes(shapes: list[tuple[int, ...]]) -> None:
    for position, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"default_collate: row 0 of the batch has shape {shapes[0]}, row {position} has "
                f"shape {shape}. Rows are stacked, so their shapes must be equal: pad or crop "
                "them in the data set, or pass a collate_fn."
            )
