"""The rules that keep the house in order: imports go down only, files stay short, names are told.

    python -m pytest tests/test_structure.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "chainrule"

# The layers. A module may import from its own layer and from those below. The package's own table
# of contents, `chainrule/__init__.py`, stands above what it offers and below the programs.
LAYERS = (
    ("core",),
    ("prims",),
    ("autodiff",),
    ("compiler",),
    (
        "autograd", "device", "func", "function", "functions", "gradcheck", "indexing", "inplace",
        "jit", "random", "rows", "tensor", "tree",
    ),
    ("nn", "optim", "data", "io", "testing", "utils"),
    ("explain", "doctor"),
    ("__init__",),
    ("playground", "cli", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Imported when first needed, inside a function, and each in one module only.
LAZY = {"rich", "safetensors", "llvmlite", "torch", "matplotlib"}

# The one module above the compiler that may know it.
COMPILER_CLIENTS = {"jit"}

PUBLIC = (
    "chainrule",
    "chainrule.nn",
    "chainrule.nn.functional",
    "chainrule.optim",
    "chainrule.func",
    "chainrule.autograd",
    "chainrule.data",
)

MAY_PRINT = ("cli", "doctor", "explain")
LONGEST_FILE = 700


@dataclass(frozen=True)
class Import:
    """One import of `target`, a dotted module name, in the file of `module` at `line`."""

    module: str
    target: str
    line: int
    deferred: bool  # inside a function
    typing_only: bool  # under `if TYPE_CHECKING:`
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"

    @property
    def outside(self) -> str | None:
        """The top name of a package that is neither ours nor Python's nor NumPy."""
        top = self.target.split(".")[0]
        known = top in sys.stdlib_module_names or top in ("chainrule", "numpy")
        return None if known else top


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}


def layer_of(module: str) -> str:
    """The name by which LAYERS knows a module: the part after `chainrule.`"""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(module: str) -> list[Import]:
    """Every import in a module; `from package import submodule` counts as the submodule's."""
    found = []

    def visit(node: ast.AST, deferred: bool, typing_only: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(
                    Import(module, alias.name, child.lineno, deferred, typing_only, ())
                    for alias in child.names
                )
            elif isinstance(child, ast.ImportFrom):
                base = absolute(module, child)
                for alias in child.names:
                    whole = f"{base}.{alias.name}"
                    target, names = (whole, ()) if whole in FILES else (base, (alias.name,))
                    found.append(
                        Import(module, target, child.lineno, deferred, typing_only, names)
                    )
            else:
                checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                visit(child, deferred or inside, typing_only or checking)

    visit(TREES[module], False, False)
    return found


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The dotted name that a `from` import names, relative or not."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    if FILES[module].name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


IMPORTS = [one for module in FILES for one in imports_of(module)]
OURS = [one for one in IMPORTS if one.target.split(".")[0] == "chainrule"]


def test_every_module_has_a_layer() -> None:
    homeless = sorted({layer_of(module) for module in FILES} - set(RANK))
    assert not homeless, f"give these a place in LAYERS: {homeless}"


def test_imports_go_down_only() -> None:
    upwards = [
        f"{one}: {layer_of(one.module)}/ is below {layer_of(one.target)}/"
        for one in OURS
        if RANK[layer_of(one.target)] > RANK[layer_of(one.module)]
    ]
    assert not upwards, "\n".join(upwards)


# The folders of the compiler, in the order of docs/architecture.md; what lies above them is last.
STAGES = ("machine", "workers", "lanes", "arrays", "products", "kernels", "text")


def test_the_stages_of_the_compiler_know_only_those_before_them() -> None:
    def stage(module: str) -> int:
        name = module.removeprefix("chainrule.compiler.").split(".")[0]
        return STAGES.index(name) if name in STAGES else len(STAGES)

    inside = [one for one in OURS if one.module.startswith("chainrule.compiler.")
              and one.target.startswith("chainrule.compiler")]
    assert {stage(one.module) for one in inside} == set(range(len(STAGES) + 1))
    upwards = [str(one) for one in inside if stage(one.target) > stage(one.module)]
    assert not upwards, "\n".join(upwards)


def test_only_jit_knows_the_compiler() -> None:
    curious = [
        str(one)
        for one in OURS
        if layer_of(one.target) == "compiler"
        and layer_of(one.module) not in {"compiler", *COMPILER_CLIENTS}
    ]
    assert not curious, "\n".join(curious)


def test_no_private_name_crosses_modules() -> None:
    borrowed = [
        f"{one}.{name}"
        for one in OURS
        for name in one.names
        if name.startswith("_") and not name.startswith("__")
    ]
    assert not borrowed, "\n".join(borrowed)


def test_no_cycles_between_modules() -> None:
    """Modules can be put into an order in which each imports only earlier ones."""
    waits: dict[str, set[str]] = {module: set() for module in FILES}
    for one in OURS:
        if not one.typing_only and one.target in FILES and one.target != one.module:
            waits[one.module].add(one.target)
    while free := [module for module, targets in waits.items() if not targets & waits.keys()]:
        for module in free:
            del waits[module]
    knot = {module: sorted(targets & waits.keys()) for module, targets in waits.items()}
    assert not knot, "these import one another in a circle:\n" + "\n".join(
        f"{module} -> {', '.join(targets)}" for module, targets in knot.items()
    )


def test_imports_inside_functions_are_the_lazy_ones() -> None:
    hidden = [str(one) for one in IMPORTS if one.deferred and one.outside not in LAZY]
    assert not hidden, "\n".join(hidden)


def test_lazy_packages_are_never_imported_at_the_top() -> None:
    eager = [
        str(one) for one in IMPORTS if one.outside and not one.deferred and not one.typing_only
    ]
    assert not eager, "\n".join(eager)


def test_each_lazy_package_has_one_door() -> None:
    doors: dict[str, set[str]] = defaultdict(set)
    for one in IMPORTS:
        if one.outside and not one.typing_only:
            doors[one.outside].add(one.module)
    crowded = {name: sorted(modules) for name, modules in doors.items() if len(modules) > 1}
    assert not crowded
    assert set(doors) <= LAZY


def test_import_loads_nothing_that_is_not_needed() -> None:
    code = f"import sys, chainrule\nprint(sorted({LAZY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def python_files() -> list[Path]:
    folders = (PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "examples")
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def test_no_file_is_longer_than_a_reader_holds() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in python_files()
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_one_statement_a_line() -> None:
    joined = []
    for path in python_files():
        with path.open("rb") as file:
            joined += [
                f"{path.relative_to(ROOT)}:{token.start[0]}"
                for token in tokenize.tokenize(file.readline)
                if token.type == tokenize.OP and token.string == ";"
            ]
    assert not joined


def test_the_library_does_not_print() -> None:
    loud = [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        if layer_of(module) not in MAY_PRINT
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not loud


def test_no_test_hides_another() -> None:
    hidden = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for scope in ast.walk(tree):
            if isinstance(scope, ast.Module | ast.ClassDef):
                names = Counter(
                    node.name
                    for node in scope.body
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                )
                hidden += [f"{path.name}: {name}" for name, count in names.items() if count > 1]
    assert not hidden


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    assert len(module.__all__) == len(set(module.__all__))
    silent = []
    for public in module.__all__:
        value = getattr(module, public)  # and it exists
        if isinstance(value, type):
            told = vars(value).get("__doc__")  # its own, not its parent's
        elif isinstance(value, ModuleType) or callable(value):
            told = inspect.getdoc(value)
        else:
            continue  # a constant or a dtype
        if not (told or "").strip():
            silent.append(public)
    assert not silent, f"no docstring in {name}: {silent}"
