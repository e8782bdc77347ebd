"""How a training run looks in the terminal: header, epochs, curve, tables, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .loop import Progress
from .model_file import Description
from .plot import Series, bar, curves, legend, number
from .preparation import Prepared
from .results import Results, Score
from .screen import FIELD, Screen
from .settings import Settings
from .step import BEFORE, WORTH, Cost

MOST_SHOWN_CLASSES = 20
PAIRS = 8  # of confused classes, when the matrix does not fit
LEVELS = {"healthy": "green", "watch": "yellow", "unwell": "red"}


def percent(share: float) -> str:
    """0.981 as '98.1 %'."""
    return f"{100 * share:.1f} %"


def counted(count: int, word: str) -> str:
    """1 row, 1,797 rows."""
    return f"{count:,} {word}" + ("" if count == 1 else "es" if word.endswith("s") else "s")


def header(
    screen: Screen, description: Description, settings: Settings, data: Prepared, parameters: int
) -> None:
    """What is about to happen: data, network, training."""
    classes = description.classes
    kind = counted(len(classes), "class") if classes else "numbers"
    if 0 < len(classes) <= 10:
        kind += f" ({shortened(classes)})"
    inputs = counted(len(description.columns), "column")
    if description.inputs != len(description.columns):
        inputs += f" as {counted(description.inputs, 'input')}"
    parts = counted(len(data.training), "row") + " to train on"
    parts += f", {len(data.held_out):,} held out" if data.held_out else ", none held out"
    screen.field("data", f"{description.source}: {counted(description.rows, 'row')}, {inputs}\n"
                         f"target '{description.target}': {kind}\n{parts}")
    sizes = " → ".join(map(str, (description.inputs, *description.layers, description.outputs)))
    dropout = f", dropout {settings.dropout:g}" if settings.dropout else ""
    activation = f", {description.activation}" if description.layers else ", linear"
    screen.field("network", f"{sizes}{activation}{dropout}: {counted(parameters, 'parameter')}")
    steps = -(-len(data.training) // settings.batch)
    assert settings.epochs is not None
    screen.field("training", f"{optimizer_text(settings)}, {settings.loss} loss\n"
                             f"{counted(settings.epochs, 'epoch')} of {counted(steps, 'step')} of "
                             f"{counted(settings.batch, 'row')}, seed {settings.seed}")
    screen.line()


def optimizer_text(settings: Settings) -> str:
    """'adam at rate 0.01, one cycle'."""
    schedules = {"onecycle": ", one cycle", "cosine": ", cosine", "step": ", in steps", "none": ""}
    text = f"{settings.optimizer} at rate {settings.lr:g}{schedules[settings.schedule]}"
    if settings.momentum:
        text += f", momentum {settings.momentum:g}"
    if settings.weight_decay:
        text += f", weight decay {settings.weight_decay:g}"
    if settings.clip:
        text += f", gradients clipped at {settings.clip:g}"
    return text


def shortened(names: Sequence[str]) -> str:
    """'0 … 9' for numbers in a row, else the names."""
    if list(names) == [str(index) for index in range(len(names))] and len(names) > 2:
        return f"{names[0]} … {names[-1]}"
    return ", ".join(name if len(name) <= 16 else name[:15] + "…" for name in names)


def epoch_line(line: dict[str, Any], epochs: int, screen: Screen) -> str:
    """One line for a complete epoch."""
    text = f"epoch {line['epoch']:>{len(str(epochs))}}/{epochs}  loss {number(line['loss']):<6}"
    if line["accuracy"] is not None:
        word = "accuracy " if screen.width >= 72 else ""
        text += f"  {word}{percent(line['accuracy']):>7}"
    if "held_out_accuracy" in line:
        text += f"  held out {percent(line['held_out_accuracy']):>7}"
    elif "held_out_loss" in line:
        text += f"  held out {number(line['held_out_loss'])}"
    return text


def running_line(progress: Progress, epochs: int, classifies: bool, screen: Screen) -> str:
    """The same for the epoch under way, with the held-out part as of the last complete one."""
    totals = progress.totals
    last = progress.history[-1] if progress.history else {}
    line = {
        "epoch": min(progress.epoch + 1, epochs),
        "loss": totals.loss / totals.rows if totals.rows else last.get("loss", 0.0),
        "accuracy": None,
    }
    if classifies:
        line["accuracy"] = totals.right / totals.rows if totals.rows else last.get("accuracy", 0.0)
    held_out = {key: value for key, value in last.items() if key.startswith("held_out")}
    return epoch_line({**line, **held_out}, epochs, screen)


def show_curve(screen: Screen, progress: Progress) -> None:
    """Training and held-out loss over the epochs."""
    history = progress.history
    if len(history) < 2:
        return
    series = [Series("training", [line["loss"] for line in history], "blue")]
    if "held_out_loss" in history[0]:
        series.append(Series("held out", [line["held_out_loss"] for line in history], "yellow"))
    screen.field("loss", legend(series, screen))
    for line in curves(series, screen):
        screen.line(line)
    screen.line()


def show_results(
    screen: Screen, results: Results, progress: Progress, description: Description,
    shapes: dict[str, tuple[int, ...]], cost: Cost,
) -> None:
    """Scores, time, confusion, gradient norms, verdict."""
    for name, text in score_fields(results):
        screen.field(name, text)
    seconds = progress.seconds
    if seconds:
        each = sum(seconds) / len(seconds)
        screen.field("time", f"{duration(sum(seconds))}, {duration(each)} per epoch")
    screen.field("compiled", cost_text(cost))
    screen.line()
    if results.confusion is not None:
        show_confusion(screen, results, description.classes)
        screen.line()
    if results.norms:
        show_norms(screen, results.norms, shapes)
        screen.line()
    style = LEVELS[results.verdict.level]
    screen.field("verdict", screen.style(results.verdict.level, style, "bold") + ": "
                 + results.verdict.text)


def score_fields(results: Results) -> list[tuple[str, str]]:
    """The lines of scores: held-out rows first, the training part beside them."""
    shown, training = results.shown, results.training
    where = "held-out rows" if results.held_out else "training rows"
    beside = results.held_out is not None
    loss = f"{number(shown.loss)} on {where}"
    loss += f", {number(training.loss)} on training rows" if beside else ""
    if shown.accuracy is not None and training.accuracy is not None:
        text = f"{percent(shown.accuracy)} of {shown.rows:,} {where} ({shown.right:,} right)"
        text += f", {percent(training.accuracy)} of training rows" if beside else ""
        return [("accuracy", text), ("loss", loss)]
    text = f"{number_fields(shown)} on {shown.rows:,} {where}"
    text += f", {number_fields(training)} on training rows" if beside else ""
    return [("error", text), ("loss", loss)]


def number_fields(score: Score) -> str:
    """'RMSE 2.31, R² 0.91'."""
    assert score.rmse is not None
    r2 = "" if score.r2 is None else f", R² {score.r2:.3f}"
    return f"RMSE {number(score.rmse)}{r2}"


def cost_text(cost: Cost) -> str:
    """What compiling the step cost and brought: '62 µs a step instead of 1.1 ms; ...'."""
    python = "" if cost.python_step is None else duration(cost.python_step)
    if not cost.sizes:
        reason = cost.reason or f"it begins after {BEFORE} steps of a run of at least {WORTH}"
        return f"no, {python} a step: {reason}"
    text = ""
    if cost.compiled_step is not None:
        text = f"{duration(cost.compiled_step)} a step"
        text += (f" instead of {python}" if python else "") + "; "
    batches = f" {cost.sizes} batch sizes" if cost.sizes > 1 else ""
    target = " for NumPy" if cost.mode == "numpy" else ""
    text += f"compiling{batches}{target} took {duration(cost.seconds)}"
    text += ", from the cache" if cost.cached else ""
    return text + (f"\nthen given up: {cost.reason}" if cost.reason else "")


def duration(seconds: float) -> str:
    """A time in a unit that suits it."""
    if seconds < 0.9995:
        value, unit = (1e3 * seconds, "ms") if seconds >= 0.9995e-3 else (1e6 * seconds, "µs")
        return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def show_confusion(screen: Screen, results: Results, classes: Sequence[str]) -> None:
    """Counts of true against predicted classes; only the confused pairs when there are many."""
    confusion = results.confusion
    assert confusion is not None
    cell = max(3, len(str(confusion.max())) + 1)
    longest = max(map(len, classes))
    names = classes if longest < cell else [str(index + 1) for index in range(len(classes))]
    side = max(len(f"{index + 1} {name}") if names is not classes else len(name)
               for index, name in enumerate(classes))
    side = min(side, 24)
    if len(classes) > MOST_SHOWN_CLASSES or FIELD + side + cell * len(classes) > screen.width:
        _show_confused_pairs(screen, confusion, classes)
        return
    screen.field("confusion", screen.style("rows: true class, columns: predicted", "dim"))
    head = "".join(f"{name:>{cell}}" for name in names)
    screen.line(" " * (FIELD + side) + screen.style(head, "dim"))
    for index, name in enumerate(classes):
        label = name if names is classes else f"{index + 1} {name}"
        label = label if len(label) <= side else label[: side - 1] + "…"
        row = "".join(
            _confusion_cell(screen, int(count), index == column, cell)
            for column, count in enumerate(confusion[index])
        )
        screen.line(" " * FIELD + screen.style(f"{label:>{side}}", "dim") + row)


def _confusion_cell(screen: Screen, count: int, right: bool, width: int) -> str:
    text = f"{count or '·':>{width}}"
    if right:
        return screen.style(text, "green")
    return screen.style(text, "red") if count else screen.style(text, "dim")


def _show_confused_pairs(screen: Screen, confusion: Any, classes: Sequence[str]) -> None:
    pairs = sorted(
        ((int(confusion[true, seen]), classes[true], classes[seen])
         for true in range(len(classes)) for seen in range(len(classes))
         if true != seen and confusion[true, seen]),
        key=lambda pair: -pair[0],
    )
    if not pairs:
        screen.field("confusion", "none")
        return
    lines = [f"{count:>4} × {true} taken for {seen}" for count, true, seen in pairs[:PAIRS]]
    if len(pairs) > PAIRS:
        rest = sum(count for count, _, _ in pairs[PAIRS:])
        lines.append(f"{rest:>4} in {len(pairs) - PAIRS} other pairs")
    screen.field("confusion", "\n".join(lines))


def show_norms(
    screen: Screen, norms: dict[str, float], shapes: dict[str, tuple[int, ...]]
) -> None:
    """The mean gradient norm of each parameter over the last epoch, with a bar."""
    screen.field("gradients", screen.style("mean norm over the last epoch", "dim"))
    largest = max(norms.values()) or 1.0
    name_width = max(map(len, norms))
    shape_width = max(len(shape_text(shapes[name])) for name in norms)
    room = screen.width - FIELD - name_width - shape_width - 13
    for name, norm in norms.items():
        drawn = screen.style(bar(norm / largest, min(room, 30)), "blue")
        shape = screen.style(f"{shape_text(shapes[name]):<{shape_width}}", "dim")
        screen.line(f"{'':{FIELD}}{name:<{name_width}}  {shape}  {number(norm):<7}  {drawn}")


def shape_text(shape: tuple[int, ...]) -> str:
    """(64, 10) as '64 × 10'."""
    return " × ".join(map(str, shape))


def quiet_line(results: Results, path: str) -> str:
    """The result in one line."""
    shown = results.shown
    accuracy = shown.accuracy
    score = number_fields(shown) if accuracy is None else f"accuracy {percent(accuracy)}"
    where = "held-out" if results.held_out else "training"
    return f"{score} on {shown.rows:,} {where} rows, saved {path}"
