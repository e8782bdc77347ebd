"""Connectionist temporal classification: a loss over all alignments of two sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainrule import rows
from chainrule.core.errors import SettingError, ShapeError
from chainrule.core.record import new
from chainrule.functions import ops
from chainrule.functions.shaping import cat, pad, stack
from chainrule.tensor import Tensor

from .display import type_text
from .indices import check_indices, check_whole
from .reduction import check_reduction

Lengths = Tensor | int | Sequence[int]

# The logarithm of a probability of 0: finite, so that its differences are numbers.
NEVER = -1e30


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths,
             blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """−log of the probability of all alignments that read as the target (Graves et al. 2006).

    log_probs (T, N, C) or (T, C), such as `log_softmax` gives; targets (N, S), or all targets one
    after the other (the sum of their lengths,); input_lengths and target_lengths (N,). An
    alignment is a class for each of the T times; it is read by dropping repetitions, then blanks.

    With l the target with a blank before, between and after its classes, and a(0) certain at the
    first place, log a(t, s) = log p(t, l_s) + log(a(t−1, s) + a(t−1, s−1) + a(t−1, s−2)), the last
    term only where l_s is no blank and not l_(s−2). The loss is −log(a(T, −1) + a(T, −2)).
    reduction 'mean' divides each loss by its target's length, then averages over the batch. A
    target that does not fit into its input costs infinity, or 0 with `zero_infinity`, and gives
    no gradient. The gradient is that of this function of log_probs; PyTorch's supposes that they
    come from log_softmax, after which both are the same.
    """
    check_reduction(reduction)
    check_whole(targets, "ctc_loss needs targets that are")
    batched = log_probs.ndim == 3
    if log_probs.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss got log_probs {type_text(log_probs)}: it needs (T, N, C) or "
                         "(T, C)")
    logs = ops.clamp(log_probs if batched else log_probs.unsqueeze(1), min=_never(log_probs))
    times, count, classes = logs.shape
    if not 0 <= blank < classes:
        raise SettingError(f"ctc_loss: blank={blank!r} must be one of the {classes} classes, 0 to "
                           f"{classes - 1}")
    long = _lengths("input_lengths", input_lengths, count)
    short = _lengths("target_lengths", target_lengths, count)
    _check_most("input_lengths", long, times, f"log_probs {type_text(log_probs)} has {times} times")
    labels, named = _labels(targets if batched or targets.ndim > 1 else targets.unsqueeze(0),
                            short, blank)
    check_indices(ops.where(named, labels, 0), classes, "ctc_loss: target class",
                  f"there are {classes} classes, 0 to {classes - 1}")
    losses = _losses(logs, labels, long, short, blank)
    impossible = losses > -0.1 * _never(log_probs)
    losses = ops.where(impossible, 0.0 if zero_infinity else float("inf"), losses)
    if reduction == "mean":
        return (losses / ops.clamp(short, min=1).to(losses.dtype)).mean()  # type: ignore[no-any-return]
    if reduction == "sum":
        return losses.sum()  # type: ignore[no-any-return]
    return losses if batched else losses.squeeze(0)  # type: ignore[no-any-return]


def _losses(logs: Tensor, labels: Tensor, long: Tensor, short: Tensor, blank: int) -> Tensor:
    """The loss of each item, by the recursion over the places of `labels` between blanks."""
    times, count, _ = logs.shape
    none = _never(logs)
    width = labels.shape[1]
    blanks = labels * 0 + blank
    # Blank, class, blank, class, ..., blank.
    places = cat([stack([blanks, labels], -1).reshape(count, 2 * width),
                  new(np.full((count, 1), blank))], 1)
    seen = ops.gather(logs, 2, places.unsqueeze(0).expand(times, count, 2 * width + 1))
    same = places[:, 2:] == places[:, :-2]
    jumps = pad((same | (places[:, 2:] == blank)).logical_not().to(logs.dtype), (2, 0)) > 0
    row = np.full((1, 2 * width + 1), none, logs.dtype)
    row[0, 0] = 0
    reached = new(row).expand(count, 2 * width + 1)
    lengths = long._value
    all_long = isinstance(lengths, np.ndarray) and bool((lengths == times).all())
    for t in range(times):
        before = rows.logaddexp(reached, pad(reached[:, :-1], (1, 0), value=none))
        if width:
            two = ops.where(jumps, pad(reached[:, :-2], (2, 0), value=none), none)
            before = rows.logaddexp(before, two)
        moved = before + seen[t]
        reached = moved if all_long else ops.where((long > t).unsqueeze(-1), moved, reached)
    last = (2 * short).unsqueeze(-1)
    in_blank = ops.gather(reached, 1, last).squeeze(-1)
    in_class = ops.gather(reached, 1, ops.clamp(last - 1, min=0)).squeeze(-1)
    return -rows.logaddexp(in_blank, ops.where(short > 0, in_class, none))


def _never(x: Tensor) -> float:
    return -1e4 if x.dtype == np.float16 else NEVER


def _lengths(name: str, given: Lengths, count: int) -> Tensor:
    """One length for each item."""
    lengths = given if isinstance(given, Tensor) else new(np.asarray(given, np.int64))
    check_whole(lengths, f"ctc_loss needs {name} that are")
    lengths = lengths.reshape(-1).long()
    if tuple(lengths.shape) != (count,):
        raise ShapeError(f"ctc_loss: {name} holds {lengths.shape[0]} numbers for {count} items")
    if isinstance(lengths._value, np.ndarray) and (lengths._value < 0).any():
        raise SettingError(f"ctc_loss: {name} holds {lengths._value.min()}, and no length is "
                           "below 0")
    return lengths


def _check_most(name: str, lengths: Tensor, most: int, why: str) -> None:
    array = lengths._value
    if isinstance(array, np.ndarray) and array.size and array.max() > most:
        raise ShapeError(f"ctc_loss: {name} holds {array.max()}, more than there are: {why}")


def _labels(targets: Tensor, short: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """The targets as (N, S), blanks where they are over, and where they are not."""
    count = short.shape[0]
    lengths = short._value
    if targets.ndim == 1:
        # Where each target begins must be known; a traced length says that it is not.
        known = short.numpy_now("targets one after the other, whose lengths")
        if int(known.sum()) != targets.shape[0]:
            raise ShapeError(f"ctc_loss: target_lengths add up to {int(known.sum())}, and targets "
                             f"{type_text(targets)} has {targets.shape[0]}")
        steps = np.arange(int(known.max(initial=0)))
        starts = np.cumsum(known) - known
        places = np.minimum(starts[:, None] + steps, max(targets.shape[0] - 1, 0))
        labels = targets[new(places)] if targets.shape[0] else new(
            np.zeros((count, 0), targets.dtype))
    elif targets.ndim == 2 and targets.shape[0] == count:
        _check_most("target_lengths", short, targets.shape[1],
                    f"targets {type_text(targets)} has {targets.shape[1]} classes in a row")
        labels = targets
        if isinstance(lengths, np.ndarray) and lengths.size:
            labels = targets[:, :int(lengths.max())]
    else:
        raise ShapeError(f"ctc_loss got targets {type_text(targets)}: it needs ({count}, S), or "
                         "all targets one after the other")
    named = new(np.arange(labels.shape[1])) < short.unsqueeze(-1)
    return ops.where(named, labels, blank).long(), named
