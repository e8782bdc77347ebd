"""Embedding: a table of vectors looked up by integers."""

from __future__ import annotations

from typing import Any

from chainrule.core.errors import IndexingError, SettingError
from chainrule.tensor import Tensor

from . import functional as F
from . import init
from .linear import empty_parameter, whole
from .module import Module
from .naming import described
from .parameter import Parameter


class Embedding(Module):
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
        whole(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        for name, value in (("max_norm", max_norm), ("scale_grad_by_freq", scale_grad_by_freq),
                            ("sparse", sparse)):
            if value:
                raise SettingError(f"Embedding: {name}={value!r} is not supported; leave it out")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise SettingError(f"Embedding: padding_idx={padding_idx} must be within its "
                                   f"{num_embeddings} rows")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        if _weight is None:
            self.weight = empty_parameter(num_embeddings, embedding_dim, dtype=dtype)
            self.reset_parameters()
        else:
            self.weight = Parameter(_weight, not _freeze)

    def reset_parameters(self) -> None:
        """Draws the rows anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight[self.padding_idx])

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
