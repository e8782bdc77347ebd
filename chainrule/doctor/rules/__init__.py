"""The rules, by what they are about. Importing this package fills the table."""

from . import cuts, data, gradients, losses, numbers, parameters, signal  # noqa: F401
