"""Data sets, batches and data files.

`Dataset`, `TensorDataset`, `Subset`, `random_split`, `DataLoader` and `default_collate` work as
their namesakes in `torch.utils.data`. `read_examples` reads the files that `chainrule train`
accepts, `load_digits` the handwritten digits that come with the package.
"""

from .dataset import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from .loader import DataLoader, default_collate
from .samplers import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from .sources import load_digits, read_examples, read_for_model
from .table import Column, DataFileError, Examples, Target

__all__ = [
    "BatchSampler",
    "Column",
    "ConcatDataset",
    "DataFileError",
    "DataLoader",
    "Dataset",
    "Examples",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "Target",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "load_digits",
    "random_split",
    "read_examples",
    "read_for_model",
]
