"""The rules, by what they are about. Importing this package fills the table."""

from . import (  # noqa: F401
    cuts,
    data,
    gradients,
    losses,
    numbers,
    parameters,
    signal,
    standstill,
    stopped,
)
