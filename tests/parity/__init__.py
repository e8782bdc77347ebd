"""The table of one-liners that are run with PyTorch and with chainrule on the same numbers."""
