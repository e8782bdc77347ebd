"""Runs the pages of the course: each Python block prints what the text block after it shows.

    python docs/course/run.py             compare, and say which page is no longer true
    python docs/course/run.py --write     write what the programs print now into the pages

The blocks of a page are one program, `<page>.py`; `explain` names its lines.
"""

from __future__ import annotations

import difflib
import io
import linecache
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"^```python\n(?P<program>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?",
                   re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return sorted(HERE.glob("[0-9][0-9]-*.md"))


def run(page: Path) -> str:
    """The page with every text block as the program prints it now."""
    text = page.read_text(encoding="utf-8")
    file = page.stem.split("-", 1)[1].replace("-", "_") + ".py"
    variables: dict[str, Any] = {"__name__": "__main__"}
    program = ""
    sys.path.insert(0, str(HERE))

    def replaced(block: re.Match[str]) -> str:
        nonlocal program
        part = block["program"]
        skipped = program.count("\n")
        program += part
        # explain reads the user's lines from here, as a traceback does
        linecache.cache[file] = (len(program), None, program.splitlines(True), file)
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * skipped + part, file, "exec"), variables)
        output = re.sub(r"[ \t]+$", "", printed.getvalue(), flags=re.MULTILINE).strip("\n")
        shown = f"\n```text\n{output}\n```\n" if output else ""
        return f"```python\n{part}```\n{shown}"

    try:
        return BLOCK.sub(replaced, text)
    finally:
        sys.path.remove(str(HERE))


def main() -> int:
    write = "--write" in sys.argv[1:]
    wrong = 0
    for page in pages():
        before, after = page.read_text(encoding="utf-8"), run(page)
        if before == after:
            continue
        wrong += 1
        if write:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{page.name}: written\n")
        else:
            sys.stdout.writelines(difflib.unified_diff(
                before.splitlines(True), after.splitlines(True), page.name, "now"))
    return 0 if write else wrong


if __name__ == "__main__":
    sys.exit(main())
