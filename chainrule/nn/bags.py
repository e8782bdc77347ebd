"""Bags of embeddings: rows of a table looked up and reduced in one go."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.errors import IndexingError, SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.tensor import Tensor

from .display import type_text
from .indices import check_indices, check_whole


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None,
                  max_norm: float | None = None, norm_type: float = 2,
                  scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """The mean, sum or max of the rows of `weight` (n, d) that each bag of integers names: (B, d).

    `input` is (B, N), bags of equal size, or (M,), all bags one after the other, and `offsets`
    (B,) says where each begins (with `include_last_offset` also where the last ends). A bag
    without entries gives zeros. `padding_idx` is left out of the bags. `per_sample_weights`, of the
    input's shape, weigh the rows, with mode 'sum'. Raises `IndexingError` for an index outside
    0 ... n−1.
    """
    check_options("embedding_bag", mode, max_norm, scale_grad_by_freq, sparse)
    check_whole(input, "an embedding looks up")
    if per_sample_weights is not None:
        if mode != "sum":
            raise SettingError("embedding_bag: per_sample_weights are for mode='sum', not "
                               f"{mode!r}")
        if per_sample_weights.shape != input.shape:
            raise ShapeError(f"embedding_bag got input {type_text(input)} and per_sample_weights "
                             f"{type_text(per_sample_weights)}: the shapes must be equal")
    count = weight.shape[0]
    check_indices(input, count, "embedding_bag: index",
                  f"the table has {count} rows, 0 to {count - 1}")
    if input.ndim == 2 and offsets is None:
        inside = None
    elif input.ndim == 1 and offsets is not None:
        places, inside = _parted(input, offsets, include_last_offset)
        input = input[places]
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights[places]
    else:
        raise ShapeError(
            f"embedding_bag got input {type_text(input)} "
            f"{'without' if offsets is None else 'and'} offsets: it needs bags of equal size "
            "(B, N) without offsets, or all bags one after the other (M,) with offsets (B,)")
    if padding_idx is not None:
        if not -count <= padding_idx < count:
            raise SettingError(f"embedding_bag: padding_idx={padding_idx} must be within the "
                               f"table's {count} rows")
        kept = input != padding_idx % count
        inside = kept if inside is None else inside & kept
    return _reduced(weight[input], inside, mode, per_sample_weights)


def _reduced(found: Tensor, inside: Tensor | None, mode: str, weights: Tensor | None) -> Tensor:
    """(B, N, d) to (B, d), of what is inside the bags."""
    if weights is not None:
        found = found * weights.unsqueeze(-1)
    if not found.shape[1]:
        return found.sum(1)
    if inside is None:
        if mode == "max":
            return ops.max(found, 1)[0]  # type: ignore[no-any-return]
        return found.sum(1) if mode == "sum" else found.mean(dim=1)
    seen = inside.unsqueeze(-1)
    if mode == "max":
        largest = ops.max(ops.where(seen, found, float("-inf")), 1)[0]
        return ops.where(seen.any(1), largest, 0.0)  # type: ignore[no-any-return]
    total: Tensor = ops.where(seen, found, 0.0).sum(1)
    if mode == "sum":
        return total
    return total / ops.clamp(seen.sum(1), min=1).to(total.dtype)


def _parted(input: Tensor, offsets: Tensor, include_last: bool) -> tuple[Tensor, Tensor]:
    """For each bag the places of its entries in (M,), and which of them are inside: both (B, N)."""
    check_whole(offsets, "embedding_bag needs offsets that are")
    if offsets.ndim != 1 or (include_last and not offsets.shape[0]):
        raise ShapeError(f"embedding_bag got offsets {type_text(offsets)}: it needs one number for "
                         "each bag" + (", and one for the end of the last" if include_last else ""))
    size = input.shape[0]
    array = offsets._value
    if isinstance(array, np.ndarray):
        _check_offsets(array, size)
        ends = array[1:] if include_last else np.append(array[1:], size)
        starts = array[:-1] if include_last else array
        steps = np.arange((ends - starts).max(initial=0))
        places = starts[:, None] + steps
        inside = places < ends[:, None]
        return new(np.where(inside, places, 0)), new(inside)
    # Where the bags are is not known yet: each looks at all entries.
    place = new(np.arange(size))
    bags = offsets.shape[0] - include_last
    begun = place >= offsets.unsqueeze(-1)
    ended = begun[1:] if include_last else \
        ops.where(new(np.arange(bags) == bags - 1).unsqueeze(-1), False, begun.roll(-1, 0))
    return place.expand(bags, size), begun[:bags] & ended.logical_not()


def _check_offsets(array: Any, size: int) -> None:
    if not array.size:
        return
    if array[0] != 0:
        raise IndexingError(f"embedding_bag: offsets[0] is {array[0]}, and the first bag begins at "
                            "0")
    if (np.diff(array) < 0).any() or array[-1] > size:
        raise IndexingError(f"embedding_bag: offsets {array.tolist()} must not go down, nor beyond "
                            f"the {size} entries of the input")


def check_options(name: str, mode: str, max_norm: float | None, scale_grad_by_freq: bool,
                  sparse: bool) -> None:
    """Raises `SettingError` for a mode that does not exist, and for what is not supported."""
    if mode not in ("mean", "sum", "max"):
        raise SettingError(f"{name}: mode={mode!r} must be 'mean', 'sum' or 'max'")
    refuse_options(name, max_norm, scale_grad_by_freq, sparse)


def refuse_options(name: str, max_norm: float | None, scale_grad_by_freq: bool, sparse: bool
                   ) -> None:
    """Raises `SettingError` for what tables of rows do not support."""
    for option, value in (("max_norm", max_norm), ("scale_grad_by_freq", scale_grad_by_freq),
                          ("sparse", sparse)):
        if value:
            raise SettingError(f"{name}: {option}={value!r} is not supported; leave it out")
