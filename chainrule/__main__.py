"""`python -m chainrule` is the command `chainrule`."""

import sys

from chainrule.cli import start

if __name__ == "__main__":
    sys.exit(start())
