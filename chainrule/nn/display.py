"""How modules print: the tree PyTorch prints, then shapes, once a forward has shown them."""

from __future__ import annotations

from typing import Any, NamedTuple

from chainrule.core.types import type_of
from chainrule.tensor import Tensor


class Shapes(NamedTuple):
    """Types of the first tensors that went in and came out of a module."""

    inputs: str
    outputs: str


def type_text(x: Any) -> str:
    """`f32[32,64]` for a tensor."""
    return str(type_of(x))


def _texts(values: Any) -> str:
    if isinstance(values, Tensor):
        return type_text(values)
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, tuple | list | type({}.values())):
        return ", ".join(text for text in map(_texts, values) if text)
    return ""


def shapes_of(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Shapes | None:
    """The shapes of one call, or None if no tensor came out."""
    outputs = _texts(result)
    return Shapes(_texts([*args, *kwargs.values()]), outputs) if outputs else None


def lines_of(module: Any, tree: Any) -> str:
    """The repr of a module, its shapes lined up at the right; `tree` is Module's own repr."""
    rows = _rows(module, tree)
    width = max(len(text) for text, note in rows if note) if any(n for _, n in rows) else 0
    return "\n".join(f"{text:<{width}}  # {note}" if note else text for text, note in rows)


def _rows(module: Any, tree: Any) -> list[tuple[str, str]]:
    if "_modules" not in vars(module):
        return [(f"{type(module).__name__}(before super().__init__())", "")]
    name, extra = module._get_name(), module.extra_repr().splitlines()
    note = f"{module._shapes.inputs} → {module._shapes.outputs}" if module._shapes else ""
    children = _child_rows(module, tree)
    if not children:
        if len(extra) < 2:
            return [(f"{name}({''.join(extra)})", note)]
        return [(f"{name}(", note), *(("  " + line, "") for line in extra), (")", "")]
    return [(f"{name}(", note), *(("  " + line, "") for line in extra), *children, (")", "")]


def _child_rows(module: Any, tree: Any) -> list[tuple[str, str]]:
    """The indented lines of all children; a ModuleList writes equal neighbours once."""
    rows: list[tuple[str, str]] = []
    blocks: list[tuple[str, str, list[tuple[str, str]]]] = []
    for key, child in module._modules.items():
        if child is None:
            inner = [("None", "")]
        elif type(child).__repr__ is tree:
            inner = _rows(child, tree)
        else:
            inner = [(line, "") for line in repr(child).split("\n")]
        if blocks and getattr(module, "_folds", False) and blocks[-1][2] == inner:
            blocks[-1] = (blocks[-1][0], key, inner)
        else:
            blocks.append((key, key, inner))
    for first, last, inner in blocks:
        label = f"({first})" if first == last else f"({first}-{last})"
        times = "" if first == last else f"{int(last) - int(first) + 1} x "
        head, note = inner[0]
        rows.append((f"  {label}: {times}{head}", note))
        rows += [("  " + text, note) for text, note in inner[1:]]
    return rows


def summary_of(module: Any) -> str:
    """A table: path, type, output, parameters, with totals."""
    table = [("module", "type", "output", "parameters")]
    for path, part in module.named_modules():
        own = sum(p._value.size for p in part._parameters.values() if p is not None)
        output = part._shapes.outputs if part._shapes else "-"
        table.append((path or "(all)", part._get_name(), output, f"{own:,}" if own else "-"))
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines = ["  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]),
                        row[2].ljust(widths[2]), row[3].rjust(widths[3])]) for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    parameters = list(module.parameters())
    total = sum(p._value.size for p in parameters)
    trained = sum(p._value.size for p in parameters if p.requires_grad)
    size = sum(p._value.nbytes for p in parameters)
    lines.append(f"{total:,} parameters, {trained:,} of them trained, {size / 2**20:,.2f} MiB")
    return "\n".join(lines)
