"""`chainrule train`: read data, train a network on it, show and save what came out."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import chainrule as cr
from chainrule.data import DataLoader, Examples, TensorDataset, read_examples
from chainrule.io import write_atomically

from . import report
from .loop import Job, Progress, train
from .model_file import Description, Saved, free_name, load_model, save_model
from .network import make_loss, make_optimizer, make_schedule
from .preparation import Prepared, count_training_rows, prepare
from .results import Results, as_json, measure
from .screen import Bar, Screen, progress_bar, standard_screen
from .settings import Settings, UsageError, given_settings
from .step import Stepper

REDRAW = 0.05  # seconds between two looks of the bar
MOST_EPOCH_LINES = 50  # without a terminal


@dataclass(frozen=True)
class Run:
    """A training run, ready to start or to go on."""

    settings: Settings
    description: Description
    data: Prepared
    job: Job
    progress: Progress

    @property
    def epochs(self) -> int:
        """How many epochs there are to be in the end."""
        assert self.settings.epochs is not None
        return self.settings.epochs


def run(args: argparse.Namespace) -> int:
    """The command. Returns the exit code: 0, or 128 + the signal that stopped it."""
    screen = standard_screen()
    saved = load_model(Path(args.resume)) if args.resume else None
    settings = resumed(saved, given_settings(args)) if saved else Settings(**given_settings(args))
    require_writable(args)
    examples = read_examples(args.data, settings.target, settings.task, settings.ignore)
    if saved is not None:
        require_same_data(saved, examples)
    this = set_up(examples, settings, saved)
    if this.progress.epoch >= this.epochs:
        screen.line(
            f"{args.resume} has its {this.epochs} epochs already; give a larger --epochs to go on."
        )
        return 0
    shapes = {name: tuple(p.shape) for name, p in this.job.parameters.items()}
    if not args.quiet:
        parameters = sum(int(np.prod(shape)) for shape in shapes.values())
        report.header(screen, this.description, this.settings, this.data, parameters)
        if saved is not None:
            at = f", step {this.progress.totals.steps}" if this.progress.totals.steps else ""
            screen.field("resumed", f"{args.resume}, after epoch {this.progress.epoch}{at}")
            screen.line()
    with stop_at_signal() as stopped, np.errstate(all="ignore"):
        watch_and_train(this, screen, args.quiet, stopped)
        results = measure(this.job, this.data.target, len(this.description.classes), this.progress)
    path = save(this, args)
    if args.json:
        content = as_json(results, this.progress, {
            "chainrule": cr.__version__, "data": args.data, "model": str(path),
            "settings": this.settings.to_json(), "classes": list(this.description.classes),
            "compile": asdict(this.job.stepper.cost),
        })
        write_atomically(args.json, (json.dumps(content, indent=2) + "\n").encode(), args.force)
    show(this, results, screen, args, path, shapes, stopped)
    return 128 + stopped[0] if stopped else 0


def resumed(saved: Saved, given: dict[str, Any]) -> Settings:
    """The settings of a saved run; only --epochs may differ from them."""
    settings = saved.settings
    for name, value in given.items():
        before = getattr(settings, name)
        if name != "epochs" and value != before:
            option = "--" + name.replace("_", "-")
            was = ",".join(map(str, before)) if isinstance(before, tuple) else before
            raise UsageError(
                f"{option} was {was if was not in (None, '') else 'not given'} in the saved run. "
                "--resume continues that run with its own settings (only --epochs may differ): "
                f"leave {option} out, or train anew without --resume."
            )
    return replace(settings, epochs=given.get("epochs", settings.epochs))


def require_same_data(saved: Saved, examples: Examples) -> None:
    """Other rows would be split otherwise, and held-out rows would be trained on."""
    description = saved.description
    if examples.fingerprint() != description.fingerprint:
        raise UsageError(
            f"{examples.source} ({len(examples.inputs):,} rows) is not the data that the saved run "
            f"was trained on ({description.source}, {description.rows:,} rows). Continuing would "
            "mix held-out rows into the training part: train anew without --resume."
        )


def require_writable(args: argparse.Namespace) -> None:
    """Find out before the training, not after it, that a file cannot be written."""
    inputs = {Path(name).resolve() for name in (args.data, args.resume) if name}
    for option, name in (("--save", args.save), ("--json", args.json)):
        if name is None:
            continue
        path = Path(name)
        own = option == "--save" and args.resume and path.resolve() == Path(args.resume).resolve()
        if path.is_dir():
            raise UsageError(f"{option} {name}: this is a folder, the name of a file is needed.")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {name}: there is no folder {path.parent}.")
        if path.exists() and not own:
            if path.resolve() in inputs:
                raise UsageError(f"{option} {name}: this file is read by the same command.")
            if not args.force:
                also = f", --resume {name} to continue its run" if option == "--save" else ""
                raise UsageError(
                    f"{option} {name}: the file exists. Give --force to replace it{also}, or "
                    "another name."
                )


def set_up(examples: Examples, settings: Settings, saved: Saved | None) -> Run:
    """Network, data, optimiser and schedule: new ones, or as they were when the run was saved."""
    assert examples.target is not None
    classes = examples.target.classes
    task = "classify" if classes else "regress"
    settings = settings.for_task(task, count_training_rows(examples, settings.validation))
    loss_function = make_loss(settings, len(classes))
    data = prepare(examples, settings.loss, settings.validation, settings.seed)
    assert settings.dropout is not None
    assert settings.epochs is not None
    description = Description(
        task=task, target=examples.target.name, classes=classes, columns=examples.columns,
        layers=settings.layers, activation=settings.activation, dropout=settings.dropout,
        loss=settings.loss, source=examples.source, rows=len(examples.inputs),
        fingerprint=examples.fingerprint(),
    )
    cr.manual_seed(settings.seed)
    model = description.build()
    optimizer = make_optimizer(settings, model.parameters())
    loader = DataLoader(
        TensorDataset(data.training.x, data.training.y), batch_size=settings.batch, shuffle=True,
        seed=settings.seed,
    )
    total = settings.epochs * len(loader)
    if saved is None:
        progress = Progress()
        schedule = make_schedule(settings, optimizer, total)
    else:
        progress = saved.progress
        model.load_state_dict(saved.state["model"])
        schedule = resume_schedule(settings, saved, optimizer, progress, total, len(loader))
    parameters = dict(model.named_parameters())
    stepper = Stepper(model, loss_function, optimizer, list(parameters.values()), settings.clip,
                      bool(settings.eager))
    job = Job(
        stepper=stepper, model=model, parameters=parameters, loss_function=loss_function,
        optimizer=optimizer, schedule=schedule, loader=loader, training=data.training,
        held_out=data.held_out, seed=settings.seed, clip=settings.clip,
    )
    return Run(settings, description, data, job, progress)


def resume_schedule(
    settings: Settings, saved: Saved, optimizer: Any, progress: Progress, total: int, steps: int
) -> Any:
    """Put optimiser and schedule where they were; other --epochs begin a new schedule."""
    done = progress.epoch * steps + progress.totals.steps
    if settings.epochs == saved.settings.epochs or settings.schedule == "none":
        schedule = make_schedule(settings, optimizer, total - progress.schedule_from)
        optimizer.load_state_dict(saved.state["optimizer"])
        if schedule is not None:
            schedule.load_state_dict(saved.state["schedule"])
        return schedule
    optimizer.load_state_dict(saved.state["optimizer"])
    for group in optimizer.param_groups:
        group["lr"] = settings.lr
        group.pop("initial_lr", None)
    progress.schedule_from = done
    return make_schedule(settings, optimizer, total - done) if total > done else None


@contextmanager
def stop_at_signal() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or termination in a list, to stop between two steps.

    The second one stops at once.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    watched = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, remember) for number in watched]
    try:
        yield received
    finally:
        for number, handler in zip(watched, before, strict=True):
            signal.signal(number, handler)


def watch_and_train(this: Run, screen: Screen, quiet: bool, stopped: list[int]) -> None:
    """Train under a bar, or with a line for each epoch where lines cannot be redrawn."""
    if quiet:
        train(this.job, this.progress, this.epochs, lambda progress: not stopped)
        return
    live = screen.live
    steps = len(this.job.loader)
    done = this.progress.epoch * steps + this.progress.totals.steps
    with progress_bar(screen, done, this.epochs * steps) if live else nullcontext() as bar:
        show_step = redraw(this, bar, screen, steps) if bar else epoch_lines(this, screen)

        def keep_going(progress: Progress) -> bool:
            show_step(progress)
            return not stopped

        train(this.job, this.progress, this.epochs, keep_going)
    if not live:
        show_step(this.progress)
        screen.line()


def redraw(this: Run, bar: Bar, screen: Screen, steps: int) -> Callable[[Progress], None]:
    """Moves the bar, at most twenty times a second."""
    last = 0.0

    def show_step(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REDRAW:
            last = now
            text = report.running_line(progress, this.epochs, this.job.classifies, screen)
            bar.update(progress.epoch * steps + progress.totals.steps, text)

    return show_step


def epoch_lines(this: Run, screen: Screen) -> Callable[[Progress], None]:
    """Prints each new complete epoch, or every second, third, … when there are many."""
    shown = this.progress.epoch
    every = -(-this.epochs // MOST_EPOCH_LINES)

    def show_step(progress: Progress) -> None:
        nonlocal shown
        if progress.epoch > shown:
            shown = progress.epoch
            if shown % every == 0 or shown in (1, this.epochs):
                screen.line(report.epoch_line(progress.history[-1], this.epochs, screen))
                screen.out.flush()

    return show_step


def save(this: Run, args: argparse.Namespace) -> Path:
    """Write the model file, under a name that nothing is lost by."""
    def write(path: Path, over: bool) -> Path:
        save_model(path, this.description, this.settings, this.data.inputs, this.data.target,
                   this.job.model, this.job.optimizer, this.job.schedule, this.progress, over)
        return path

    if args.save or args.resume:
        path = Path(args.save or args.resume)
        own = args.resume is not None and path.resolve() == Path(args.resume).resolve()
        return write(path, own or args.force)
    while True:
        try:
            return write(free_name(stem(args.data)), False)
        except FileExistsError:
            continue  # another run took the name in between


def stem(data: str) -> str:
    """'rows/iris.csv.gz' as 'iris'."""
    name = Path(data).resolve().name
    while Path(name).suffix in {".gz", ".csv", ".tsv", ".txt", ".data", ".npz"}:
        name = Path(name).stem
    return name or "model"


def show(
    this: Run, results: Results, screen: Screen, args: argparse.Namespace, path: Path,
    shapes: dict[str, tuple[int, ...]], stopped: list[int],
) -> None:
    """The report, and the commands that go on from here."""
    if args.quiet:
        screen.line(report.quiet_line(results, str(path)))
        return
    report.show_curve(screen, this.progress)
    report.show_results(screen, results, this.progress, this.description, shapes,
                        this.job.stepper.cost)
    if stopped:
        epoch = min(this.progress.epoch + 1, this.epochs)
        at = f"in epoch {epoch} of {this.epochs}, step {this.progress.totals.steps} of "
        by = "Ctrl-C" if stopped[0] == signal.SIGINT else "a signal"
        screen.field("stopped", screen.style(f"by {by} {at}{len(this.job.loader)}", "yellow"))
    screen.field("saved", f"{path} ({path.stat().st_size / 1000:,.0f} kB)")
    screen.line()
    data, model = shlex.quote(args.data), shlex.quote(str(path))
    commands = [f"chainrule predict {model} {data}", "chainrule explain e1"]
    if stopped:
        commands.insert(0, f"chainrule train {data} --resume {model}")
    screen.field("next", "\n".join(commands))
