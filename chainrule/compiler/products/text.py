"""`Text` writes the LLVM text of one function: names, arithmetic on indices, loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# An index: a number known while the text is written, or the register that will hold it.
Index = int | str


class Text:
    """The body of a function, in order. Arithmetic on known numbers is done here, not emitted."""

    def __init__(self) -> None:
        self.lines: list[str] = ["entry:"]
        self.block = "entry"
        self.count = 0

    def fresh(self, hint: str = "v") -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def do(self, line: str) -> None:
        self.lines.append(" " + line)

    def set(self, expression: str, hint: str = "v") -> str:
        name = "%" + self.fresh(hint)
        self.lines.append(f" {name} = {expression}")
        return name

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    # ------------------------------------------------------------ indices

    def add(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0:
            return b
        return a if b == 0 else self.set(f"add i64 {a}, {b}")

    def sub(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.set(f"sub i64 {a}, {b}")

    def mul(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1:
            return b
        return a if b == 1 else self.set(f"mul i64 {a}, {b}")

    def div(self, a: Index, b: int) -> Index:
        if isinstance(a, int):
            return a // b
        return a if b == 1 else self.set(f"udiv i64 {a}, {b}")

    def split(self, a: Index, b: int) -> tuple[Index, Index]:
        """Quotient and remainder."""
        quotient = self.div(a, b)
        return quotient, self.sub(a, self.mul(quotient, b))

    def least(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.set(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})")

    def at(self, pointer: str, offset: Index) -> str:
        """The address `offset` bytes behind `pointer`."""
        if offset == 0:
            return pointer
        return self.set(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    # ------------------------------------------------------------ control

    @contextmanager
    def loop(self, start: Index, stop: Index, step: int = 1) -> Iterator[Index]:
        """The index of each turn. A loop of one known turn is no loop."""
        if isinstance(start, int) and isinstance(stop, int) and start < stop <= start + step:
            yield start
            return
        tag = self.fresh("loop")
        index, following, more = f"%{tag}.i", f"%{tag}.n", f"%{tag}.m"
        before = self.block
        self.do(f"br label %{tag}")
        self.label(tag)
        self.do(f"{index} = phi i64 [ {start}, %{before} ], [ {following}, %{tag}.next ]")
        self.do(f"{more} = icmp slt i64 {index}, {stop}")
        self.do(f"br i1 {more}, label %{tag}.body, label %{tag}.end")
        self.label(f"{tag}.body")
        yield index
        self.do(f"br label %{tag}.next")
        self.label(f"{tag}.next")
        self.do(f"{following} = add i64 {index}, {step}")
        self.do(f"br label %{tag}")
        self.label(f"{tag}.end")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is written inside runs only if the i1 `condition` holds."""
        tag = self.fresh("when")
        self.do(f"br i1 {condition}, label %{tag}, label %{tag}.end")
        self.label(tag)
        yield
        self.do(f"br label %{tag}.end")
        self.label(f"{tag}.end")

    def function(self, head: str) -> str:
        """The whole function; `head` is what stands between `define` and the brace."""
        return f"define {head} {{\n" + "\n".join(self.lines) + "\n ret void\n}\n"
