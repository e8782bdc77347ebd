"""The command line. `start` is the entry point, `chainrule.cli.main.main` what it runs."""

from __future__ import annotations

import importlib
import sys


def start() -> int:
    """Load the command and run it; Ctrl-C while it is still loading ends it in one line."""
    try:
        return int(importlib.import_module("chainrule.cli.main").main())
    except KeyboardInterrupt:
        print("error: stopped", file=sys.stderr)
        return 130
