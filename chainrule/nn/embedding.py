"""Embedding: a table of vectors looked up by integers, one by one or in bags."""

from __future__ import annotations

from typing import Any

from chainrule.core.errors import IndexingError, SettingError
from chainrule.tensor import Tensor

from . import functional as F
from . import init
from .bags import check_options, refuse_options
from .linear import empty_parameter, whole
from .module import Module
from .naming import described
from .parameter import Parameter


class _Table(Module):
    """A weight of rows, one of which may be for padding."""

    def _fill(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None,
              weight: Any, freeze: bool, dtype: Any) -> None:
        whole(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = _padding(self, padding_idx, num_embeddings)
        if weight is None:
            self.weight = empty_parameter(num_embeddings, embedding_dim, dtype=dtype)
            self.reset_parameters()
        else:
            self.weight = Parameter(weight, not freeze)

    def reset_parameters(self) -> None:
        """Draws the rows anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight[self.padding_idx])


class Embedding(_Table):
    """Rows of `weight` (num_embeddings, embedding_dim) at integers (...): (..., embedding_dim).

    Rows start normal(0, 1); the row `padding_idx` starts at zero and gets no gradient.

    >>> import chainrule as cr
    >>> table = cr.nn.Embedding(10, 3)
    >>> tuple(table(cr.tensor([[1, 2], [2, 9]])).shape)
    (2, 2, 3)
    """

    weight: Parameter

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
                 max_norm: float | None = None, norm_type: float = 2.0,
                 scale_grad_by_freq: bool = False, sparse: bool = False,
                 _weight: Tensor | None = None, _freeze: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        refuse_options("Embedding", max_norm, scale_grad_by_freq, sparse)
        self._fill(num_embeddings, embedding_dim, padding_idx, _weight, _freeze, dtype)

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True,
                        padding_idx: int | None = None) -> Embedding:
        """An embedding with the given rows (n, d), frozen unless told otherwise."""
        count, size = embeddings.shape
        return cls(count, size, padding_idx, _weight=embeddings, _freeze=freeze)

    def forward(self, input: Tensor) -> Tensor:
        try:
            return F.embedding(input, self.weight, self.padding_idx)
        except IndexingError as error:
            raise IndexingError(f"{described(self)}: {error}") from None

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class EmbeddingBag(_Table):
    """The mean, sum or max of the rows of `weight` that each bag of integers names: (B, dim).

    The input is (B, N), bags of equal size, or (M,), all bags one after the other, with offsets
    (B,) that say where each begins (with `include_last_offset` also where the last ends). A bag
    without entries gives zeros. The row `padding_idx` starts at zero and is left out of the bags;
    `per_sample_weights`, of the input's shape, weigh the rows, with mode 'sum'. Rows start
    normal(0, 1).

    >>> import chainrule as cr
    >>> bags = cr.nn.EmbeddingBag(10, 3, mode="sum")
    >>> entries, offsets = cr.tensor([1, 2, 4, 5, 4]), cr.tensor([0, 3])
    >>> tuple(bags(entries, offsets).shape)
    (2, 3)
    """

    weight: Parameter

    def __init__(self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None,
                 norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
                 sparse: bool = False, _weight: Tensor | None = None,
                 include_last_offset: bool = False, padding_idx: int | None = None,
                 device: Any = None, dtype: Any = None, _freeze: bool = False) -> None:
        super().__init__()
        check_options("EmbeddingBag", mode, max_norm, scale_grad_by_freq, sparse)
        self.mode = mode
        self.include_last_offset = include_last_offset
        self._fill(num_embeddings, embedding_dim, padding_idx, _weight, _freeze, dtype)

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True,
                        max_norm: float | None = None, norm_type: float = 2.0,
                        scale_grad_by_freq: bool = False, mode: str = "mean",
                        sparse: bool = False, include_last_offset: bool = False,
                        padding_idx: int | None = None) -> EmbeddingBag:
        """Bags of the given rows (n, d), frozen unless told otherwise."""
        count, size = embeddings.shape
        return cls(count, size, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings,
                   include_last_offset, padding_idx, _freeze=freeze)

    def forward(self, input: Tensor, offsets: Tensor | None = None,
                per_sample_weights: Tensor | None = None) -> Tensor:
        try:
            return F.embedding_bag(
                input, self.weight, offsets, mode=self.mode,
                per_sample_weights=per_sample_weights,
                include_last_offset=self.include_last_offset, padding_idx=self.padding_idx)
        except IndexingError as error:
            raise IndexingError(f"{described(self)}: {error}") from None

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}{padding}"


def _padding(layer: Module, padding_idx: int | None, count: int) -> int | None:
    """The number of the row of padding, counted from the start."""
    if padding_idx is None:
        return None
    if not -count <= padding_idx < count:
        raise SettingError(f"{type(layer).__name__}: padding_idx={padding_idx} must be within its "
                           f"{count} rows")
    return padding_idx % count
