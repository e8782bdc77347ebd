"""What a contender hands to the process that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Peer(NamedTuple):
    """One library's training step of one workload, ready to run.

    `step(x, y)` returns the loss and `forward(x, y)` the prediction, each as the library has them:
    perhaps not computed yet. `wait(result)` returns when it is, `number` makes a float of a loss.
    `call(x, y)` is a compiled function that returns x: what a call costs that computes nothing.
    """

    step: Callable[[Any, Any], Any]
    forward: Callable[[Any, Any], Any]
    batches: list[tuple[Any, Any]]
    wait: Callable[[Any], object] = lambda result: None
    number: Callable[[Any], float] = float
    call: Callable[[Any, Any], Any] | None = None


class Unavailable(Exception):
    """This contender cannot run here; the message is what its row says."""
