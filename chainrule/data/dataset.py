"""Data sets: anything with a length and rows that can be asked for by index."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chainrule.functions.creation import from_numpy
from chainrule.random import Generator, randperm
from chainrule.tensor import Tensor

Indices = npt.NDArray[np.int64]


class Dataset:
    """Rows by index: write `__getitem__(index)` and `__len__()`.

    A data set that can hand over many rows at once may also write `rows(indices)`, which gets
    an int64 array and returns the finished batch; `DataLoader` then skips collating.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 5
    ...     def __getitem__(self, index):
    ...         return index, index**2
    >>> Squares()[3]
    (3, 9)
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__} has no __getitem__: write one that returns row `index`, "
            "for example `return self.inputs[index], self.targets[index]`."
        )


class TensorDataset(Dataset):
    """Rows of one or several tensors with the same first size.

    `dataset[i]` is a tuple with row i of each tensor. Raises ValueError when the first sizes
    differ or a tensor has no first axis.

    >>> import chainrule as cr
    >>> data = TensorDataset(cr.tensor([[1.0], [2.0], [3.0]]), cr.tensor([0, 1, 0]))
    >>> len(data)
    3
    >>> data[1]
    (tensor([2.]), tensor(1))
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ValueError("TensorDataset needs at least one tensor: TensorDataset(x, y).")
        for position, tensor in enumerate(tensors):
            if tensor.ndim == 0:
                raise ValueError(
                    f"TensorDataset: tensor {position} is a single number, shape (); "
                    "its first axis must count the rows."
                )
        lengths = [tensor.shape[0] for tensor in tensors]
        if len(set(lengths)) > 1:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise ValueError(
                f"TensorDataset: the tensors have {' and '.join(map(str, lengths))} rows "
                f"(shapes {shapes}). Row i of each belongs together, so the first sizes must "
                "be equal."
            )
        self.tensors = tensors

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def rows(self, indices: Indices) -> list[Tensor]:
        """The rows named by an int64 array, as one batch per tensor: one NumPy index each."""
        return [
            # A tensor that needs gradients must be indexed by the recorded operation.
            tensor[from_numpy(indices)] if tensor.requires_grad
            else from_numpy(tensor.numpy()[indices])
            for tensor in self.tensors
        ]


class Subset(Dataset):
    """The rows of a data set that `indices` name, in that order.

    >>> import chainrule as cr
    >>> data = TensorDataset(cr.tensor([10.0, 11.0, 12.0]))
    >>> [row.item() for (row,) in Subset(data, [2, 0])]
    [12.0, 10.0]
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | Indices) -> None:
        self.dataset = dataset
        self.indices = indices
        if hasattr(dataset, "rows"):
            self.rows = self._rows

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def _rows(self, indices: Indices) -> Any:
        return self.dataset.rows(np.asarray(self.indices, dtype=np.int64)[indices])


class ConcatDataset(Dataset):
    """The rows of several data sets, one set after the other.

    >>> import chainrule as cr
    >>> a, b = TensorDataset(cr.tensor([10.0])), TensorDataset(cr.tensor([11.0, 12.0]))
    >>> [row.item() for (row,) in ConcatDataset([a, b])]
    [10.0, 11.0, 12.0]
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset needs at least one data set: ConcatDataset([a, b]).")
        for position, dataset in enumerate(self.datasets):
            if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
                raise TypeError(f"ConcatDataset: part {position} ({type(dataset).__name__}) has "
                                "no length, so its rows cannot be numbered.")
        self.cumulative_sizes = np.cumsum([len(dataset) for dataset in self.datasets]).tolist()

    def __len__(self) -> int:
        return int(self.cumulative_sizes[-1])

    def __getitem__(self, index: int) -> Any:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"row {index} of a ConcatDataset of {count} rows")
        index %= count
        part = bisect_right(self.cumulative_sizes, index)
        return self.datasets[part][index - (self.cumulative_sizes[part - 1] if part else 0)]


class IterableDataset(Dataset):
    """Rows that come one after the other, without numbers: write `__iter__`.

    A `DataLoader` of it collates them in the order they come.
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__: write one that yields "
                                  "rows.")


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset]:
    """Cut a data set into disjoint random parts.

    `lengths` are counts that add up to `len(dataset)`, or fractions that add up to 1 (each is
    rounded down, the rows left over go to the first parts, one each). Raises ValueError when
    they do not add up.

    >>> import chainrule as cr
    >>> data = TensorDataset(cr.arange(10))
    >>> train, test = random_split(data, [0.8, 0.2], cr.Generator().manual_seed(0))
    >>> len(train), len(test)
    (8, 2)
    """
    count = len(dataset)
    if any(length < 0 for length in lengths):
        raise ValueError(f"random_split: a part cannot be negative, got {list(lengths)}.")
    if abs(sum(lengths) - 1) < 1e-6 and all(length <= 1 for length in lengths) and not (
        count == 1 and all(isinstance(length, int) for length in lengths)
    ):
        counts = [int(count * length) for length in lengths]
        for position in range(count - sum(counts)):
            counts[position % len(counts)] += 1
    else:
        counts = [int(length) for length in lengths]
    if sum(counts) != count:
        raise ValueError(
            f"random_split: the parts {list(lengths)} add up to {sum(lengths)}, but the data "
            f"set has {count} rows. Give counts that add up to {count}, or fractions that add "
            "up to 1."
        )
    order = randperm(count, generator=generator).numpy()
    ends = np.cumsum(counts)
    return [
        Subset(dataset, order[end - size : end]) for size, end in zip(counts, ends, strict=True)
    ]
