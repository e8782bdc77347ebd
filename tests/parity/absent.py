"""Functions of PyTorch's that rows of the table use and chainrule does not offer.

A test checks that they are absent: whoever adds one takes its name from here, and its rows count.
"""

ABSENT = frozenset(
    """
    conv_transpose2d erfinv functional interpolate linalg multinomial t_ unsqueeze_
    """.split()  # noqa: SIM905 - a list to be edited by hand
)
