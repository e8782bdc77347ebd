"""Functions of PyTorch's that rows of the table use and chainrule does not offer.

A test checks that they are absent: whoever adds one takes its name from here, and its rows count.
"""

ABSENT = frozenset(
    """
    functional linalg t_ unsqueeze_
    """.split()  # noqa: SIM905 - a list to be edited by hand
)
