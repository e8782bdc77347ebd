"""Writes the type stubs of what is made from the table: `python -m chainrule.testing.stubs`.

`rows.pyi` types the functions and Tensor methods that rows.py and attach.py make at import;
`__init__.pyi` says where each public name of the package comes from. A test compares both with
what this module writes.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from chainrule import rows
from chainrule.core.primitive import Primitive
from chainrule.functions.attach import ALIASES, IN_PLACE
from chainrule.functions.surface import METHODS
from chainrule.rows import Methods, public_rows

PACKAGE = rows.__name__.partition(".")[0]
ROOT = Path(inspect.getfile(rows)).parent
LIBRARY = ("collections.abc", "typing")

HEAD = '''"""{title}

Written by `python -m chainrule.testing.stubs`: do not edit.
"""

'''

# Operators and item access, which Tensor gets from the table and from attach.py.
SPECIAL = """
    def __getitem__(self, key: Any) -> Tensor: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    @property
    def mT(self) -> Tensor: ...
    @property
    def T(self) -> Tensor: ...
"""
BINARY = ("add", "sub", "mul", "truediv", "pow", "floordiv", "mod", "and", "or", "xor", "matmul")
COMPARING = ("eq", "ne", "lt", "le", "gt", "ge")
ONE_SIDED = ("neg", "pos", "abs", "invert")


class Imports:
    """The imports a stub needs for the names in its annotations."""

    def __init__(self) -> None:
        self.lines: set[str] = set()

    def need(self, annotation: str, function: Callable[..., Any]) -> None:
        """Import each name of an annotation from where the function's module has it."""
        known = inspect.unwrap(function).__globals__
        for node in ast.walk(ast.parse(annotation)):
            if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
                self.add(node.id, known[node.id])

    def add(self, name: str, thing: Any) -> None:
        if isinstance(thing, ModuleType):
            self.lines.add(f"import {thing.__name__} as {name}")
            return
        for module in LIBRARY:
            if hasattr(importlib.import_module(module), name):
                self.lines.add(f"from {module} import {name}")
                return
        self.lines.add(f"from {relative(thing.__module__)} import {name}")

    def text(self) -> str:
        """Python's own, then NumPy, then the package's, as a linter wants them."""
        names: dict[str, set[str]] = {}
        for line in self.lines:
            source, _, name = line.partition(" import ")
            names.setdefault(source, set()).add(name)
        lines = [f"{source} import {', '.join(sorted(found))}" if found != {""} else source
                 for source, found in names.items()]
        groups = [[line for line in sorted(lines) if rank(line) == k] for k in range(3)]
        return "\n\n".join("\n".join(group) for group in groups if group)


def natural(line: str) -> list[Any]:
    """log2 before log10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", line)]


def rank(line: str) -> int:
    return 2 if line.startswith("from .") else int("numpy" in line)


def relative(module: str) -> str:
    return module.removeprefix(PACKAGE) or "."


# ---------------------------------------------------------------- signatures


def parameter(p: inspect.Parameter, imports: Imports, function: Callable[..., Any]) -> str:
    """One parameter as it stands in a stub."""
    stars: dict[Any, str] = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}
    star = stars.get(p.kind, "")
    text = star + p.name
    if p.annotation is not p.empty:
        imports.need(p.annotation, function)
        text += f": {p.annotation}"
    if p.default is not p.empty:
        simple = isinstance(p.default, (int, float, str, tuple, type(None)))
        text += f" = {p.default!r}" if simple else " = ..."
    return text


def signature(name: str, function: Callable[..., Any], imports: Imports, method: bool) -> str:
    """`def name(...) -> ...: ...` of a function with a Python signature."""
    given = inspect.signature(function)
    parts: list[str] = []
    keywords = False
    for i, p in enumerate(given.parameters.values()):
        if p.kind is p.KEYWORD_ONLY and not keywords:
            if not any(q.startswith("*") for q in parts):
                parts.append("*")
            keywords = True
        parts.append("self" if method and i == 0 else parameter(p, imports, function))
    back = "Any" if given.return_annotation is given.empty else str(given.return_annotation)
    imports.need(back, function)
    return f"def {name}({', '.join(parts)}) -> {back}: ..."


def row_signature(name: str, prim: Primitive, method: bool) -> str:
    """The same for a function made from a row: its operands, then its options."""
    kind = "Operand" if len(prim.arguments) > 1 else "Tensor"
    least = min(len(xs) for xs, _ in prim.samples(np.random.default_rng(0)))
    operands = [f"{a}: {kind}" + (" | None = None" if i >= least else "")
                for i, a in enumerate(prim.arguments)]
    options = [f"{o}: {type(v).__name__ if v is not None else 'Any'} = {v!r}"
               for o, v in prim.options.items()]
    first = ["self"] if method else operands[:1]
    return f"def {name}({', '.join([*first, *operands[1:], *options])}) -> Tensor: ..."


def split_long(line: str, indent: str) -> list[str]:
    """The parameters of a long definition, one a line."""
    if len(indent + line) <= 100:
        return [indent + line]
    head, _, rest = line.partition("(")
    inside, _, tail = rest.rpartition(") ->")
    tree = ast.parse(f"def f({inside}): ...").body[0]
    assert isinstance(tree, ast.FunctionDef)
    parts = ast.unparse(tree).splitlines()[0].removeprefix("def f(").removesuffix("):")
    return [f"{indent}{head}(", *[f"{indent}    {p}," for p in top_level(parts)],
            f"{indent}) ->{tail}"]


def top_level(text: str) -> Iterator[str]:
    """The parts between the commas that stand in no bracket."""
    depth, start = 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            yield text[start:i].strip()
            start = i + 1
    yield text[start:].strip()


# ---------------------------------------------------------------- rows.pyi


def method_lines(imports: Imports) -> Iterator[str]:
    """Every method that Tensor inherits from Methods."""
    made = public_rows()
    twins = {f"{n}_" for n in (*made, *IN_PLACE, *ALIASES) if not n.startswith("_")}
    for name in sorted(n for n in vars(Methods) if not n.startswith("_")):
        base = name.removesuffix("_") if name in twins else name
        function = vars(Methods)[name if name not in twins else base]
        if base in made and METHODS.get(base) is None:
            yield row_signature(name, made[base], True)
        elif callable(function):
            yield signature(name, METHODS.get(base, function), imports, True)


def rows_text() -> str:
    """The text of rows.pyi."""
    imports = Imports()
    imports.lines |= {"from collections.abc import Callable", "from typing import Any",
                      "import numpy as np", "from .core.primitive import Primitive",
                      "from .tensor import Tensor"}
    made = public_rows()
    functions = [row_signature(name.lstrip("_"), made[name], False) for name in sorted(made)]
    methods = list(method_lines(imports))
    operators = [f"def __{side}{name}__(self, other: Operand) -> Tensor: ..."
                 for name in BINARY for side in ("", "r", "i") if f"{side}{name}" != "imatmul"]
    operators += [f"def __{name}__(self, other: Operand) -> Tensor: ..."
                  + ("  # type: ignore[override]" if name in ("eq", "ne") else "")
                  for name in COMPARING]
    operators += [f"def __{name}__(self) -> Tensor: ..." for name in ONE_SIDED]
    lines = [
        HEAD.format(title="Types of the functions and methods made from the table.")
        + imports.text(), "",
        "Operand = Tensor | float | np.generic | np.ndarray[Any, Any]", "",
        "def public_rows() -> dict[str, Primitive]: ...",
        "def function_of(prim: Primitive) -> Callable[..., Any]: ...",
        "def attach(name: str, function: Callable[..., Any]) -> None: ...", "",
        *[part for line in functions for part in split_long(line, "")], "",
        "class Methods:",
        *[part for line in methods for part in split_long(line, "    ")],
        SPECIAL.rstrip(),
        *[f"    {line}" for line in operators]]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- __init__.pyi

# Where constants and classes are looked for, in this order.
SOURCES = ("core.config", "core.types", "functions.creation", "random", "autograd", "tensor",
           "rows", "functions.ops", "functions.shaping", "io", "func")
NAMED_TYPES = {"bool": "bool_", "float": "float32", "double": "float64", "half": "float16",
               "long": "int64", "int": "int32"}


def home_of(name: str, package: ModuleType) -> str:
    """The line of `__init__.pyi` that says where a public name comes from."""
    if name in NAMED_TYPES:
        return f"from .core.types import {NAMED_TYPES[name]} as {name}"
    thing = getattr(package, name)
    if isinstance(thing, ModuleType):
        return f"from . import {name} as {name}"
    if isinstance(thing, builtins.float):
        return f"{name}: builtins.float"
    for key, function in vars(rows).items():
        if function is thing:
            return f"from .rows import {key} as {name}"
    module, own = getattr(thing, "__module__", ""), getattr(thing, "__name__", "")
    if module.startswith(f"{PACKAGE}.") and getattr(
            importlib.import_module(module), own, None) is thing:
        return f"from {relative(module)} import {own} as {name}"
    for source in SOURCES:
        if getattr(importlib.import_module(f".{source}", PACKAGE), name, None) is thing:
            return f"from .{source} import {name} as {name}"
    for module_name in sorted(m.stem for m in ROOT.glob("*.py") if m.stem[0] != "_"):
        module_ = importlib.import_module(f".{module_name}", PACKAGE)
        for key, other in vars(module_).items():
            if other is thing and key != "function":
                return f"from .{module_name} import {key} as {name}"
    raise LookupError(f"no module is known to define {PACKAGE}.{name}")


def package_text() -> str:
    """The text of __init__.pyi."""
    package = importlib.import_module(PACKAGE)
    lines = [home_of(name, package) for name in package.__all__]
    constants = ["__version__: str", *[line for line in lines if ":" in line]]
    imports = set()
    for line in lines:
        source, _, alias = line.partition(" as ")
        own = source.rpartition(" ")[2]
        if alias and own != alias:         # only `a as a` is exported from a stub
            constants.append(f"{alias} = _{own}")
            line = f"{source} as _{own}"
        imports.add(line)
    return (HEAD.format(title="Where each public name comes from.") + "import builtins\n\n"
            + "\n".join(sorted((line for line in imports if ":" not in line), key=natural)) + "\n\n"
            + "\n".join(sorted(constants)) + "\n")


def texts() -> dict[Path, str]:
    """What the stub files must hold."""
    return {ROOT / "rows.pyi": rows_text(), ROOT / "__init__.pyi": package_text()}


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, "utf-8")
