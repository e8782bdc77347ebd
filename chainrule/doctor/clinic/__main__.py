"""`python -m chainrule.doctor.clinic`: how often the doctor is right, measured and written down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .measure import measure
from .programs import programs

SEEDS = 5
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chainrule.doctor.clinic", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default {SEEDS}")
    parser.add_argument("--only", default="", help="programs whose name or rule contains this")
    parser.add_argument("--write", type=Path, metavar="PAGE.md",
                        help="put the tables between the marks of this page")
    args = parser.parse_args()
    chosen = [p for p in programs() if args.only in p.name or args.only == p.rule]
    text = str(measure(chosen, args.seeds)) + "\n"
    sys.stdout.write(text)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        args.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}",
                              encoding="utf-8")


if __name__ == "__main__":
    main()
