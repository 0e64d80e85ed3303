"""Training a model from PAN+MS scenes: one loop, resumable.

Everything random in step n comes from generators seeded with (seed, n, ...), so a run that was killed goes on from its
checkpoint and ends with the same weights as one that was not. Several processes, as `torchrun` starts them, share the
samples of every step; only the first of them validates and writes. Two things follow the clock instead and differ from
run to run: the learning rate of a run with `minutes`, and when a model is validated.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from pancrafter_cli.data.ahead import Drawer, drawn_ahead, lost_drawers_told
from pancrafter_cli.data.batches import Skipped, SourcePool
from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.gather import Gathered, gather_sources
from pancrafter_cli.errors import NotFinite, PancrafterError, TrainingError, UsageError
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.runtime.cpu import usable_cores
from pancrafter_cli.runtime.processes import Processes, joined
from pancrafter_cli.runtime.torch_runner import TorchRunner
from pancrafter_cli.tasks.checkpoint import (
    BEST_FILE,
    CHECKPOINT_FILE,
    best_score,
    restore_checkpoint,
    save_checkpoint,
    write_model,
    written_whole,
)
from pancrafter_cli.tasks.course import Course
from pancrafter_cli.tasks.learner import LOSSES, Learner, is_finished, learning_rate, start_learner, take_step
from pancrafter_cli.tasks.run_folder import check_folder, claimed
from pancrafter_cli.tasks.run_record import record_run
from pancrafter_cli.tasks.validation import Exam, examine, prepare_exams
from pancrafter_cli.zoo import WEIGHTS_FILE, Model, ModelSpec, read_spec, resolve

Progress = Callable[[int, int, float], None]
Warn = Callable[[str], None]
Result = TypeVar("Result")

_MOST_WORKERS = 8


@dataclass(frozen=True)
class TrainResult:
    """Where the run ended: last step, mean loss of the last logged stretch, and the model written.

    skipped: scenes and patches that were left out; with validation, `best_step` is the step the model comes from and
    `relative_ergas` its ERGAS over that of interpolation, the mean over the held-out scenes.
    """

    step: int
    loss: float
    model: Path
    skipped: tuple[Skipped, ...] = ()
    best_step: int | None = None
    relative_ergas: float | None = None


def train(
    config: TrainConfig,
    run: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    stop_at: int | None = None,
    progress: Progress = lambda step, steps, loss: None,
    warn: Warn = lambda text: None,
) -> TrainResult:
    """Train `config` in the folder `run`, going on from its checkpoint when there is one.

    device: auto, cpu, cuda or cuda:N. workers: processes that draw samples, 0 for a thread of this one; by default
    several where the network runs on a GPU. `stop_at` ends this call early, after that many steps in all, with a
    checkpoint. `progress` gets (step, steps, loss), `warn` a sentence for everything that is left out. Raises
    TrainingError for unusable scenes, a checkpoint of another recipe, a start model that changed, a folder in which
    another process trains, or a loss that is not finite, OutputError when the run folder cannot be written to or holds
    what is no run's, and UsageError for a number of processes that cannot share a step's samples.
    """
    if stop_at is not None and stop_at < 1:
        raise UsageError(f"--stop-at {stop_at}: expected a number of steps from 1 up", "leave it out")
    if workers is not None and workers < 0:
        raise UsageError(f"--workers {workers}: expected a number of processes from 0 up", "leave it out")
    last = config.steps if stop_at is None else min(stop_at, config.steps)
    with joined(device) as processes, lost_drawers_told():
        drawing = _workers(processes) if workers is None else workers
        return _train(config, run, processes, drawing, last, progress, warn)


def _workers(processes: Processes) -> int:
    """How many processes draw samples for this one: as many as it has cores, where a GPU leaves them idle."""
    if processes.device.type == "cpu":
        return 0
    return max(1, min(_MOST_WORKERS, usable_cores() // processes.count_here))


def _train(
    config: TrainConfig, folder: Path, processes: Processes, workers: int, last: int, progress: Progress, warn: Warn
) -> TrainResult:
    """What `train` promises, of which processes other than the first do the steps alone."""
    learner = start_learner(config, processes)
    check_folder(folder, resolve(config.start_from) if config.start_from else None)
    with ExitStack() as held:
        _by_the_first(processes, lambda: held.enter_context(claimed(folder, warn)))
        try:
            return _train_in(folder, config, learner, workers, last, progress, warn)
        except NotFinite as error:
            model = folder / WEIGHTS_FILE
            if model.exists() and (folder / CHECKPOINT_FILE).exists():
                error.hint += f"; this run takes no other `lr`: begin a new --run, from nothing or with --from {model}"
            raise


def _train_in(
    folder: Path, config: TrainConfig, learner: Learner, workers: int, last: int, progress: Progress, warn: Warn
) -> TrainResult:
    """Train in a folder that no other run has."""
    processes = learner.processes
    restore_checkpoint(folder, config, learner)
    if processes.agreed(learner.step) != learner.step:
        raise TrainingError(
            f"{folder}: not all processes find the same checkpoint in it",
            "the run folder must be one that all machines share",
        )
    gathered = gather_sources(config)
    if processes.first:
        for setting, patterns in config.idle_patterns(s.name for s in gathered.sources).items():
            warn(f"{setting}: no scene under {config.scenes} matches {', '.join(patterns)}")
    drawer = Drawer(SourcePool(gathered.sources, config), processes.rank, processes.count)
    left_out = _LeftOut(warn)
    began = time.monotonic() - learner.seconds  # the first validation takes of the time, too
    exams = _by_the_first(processes, lambda: _prepare(folder, config, learner, gathered, left_out))
    steps = _steps(config, learner, drawer, workers, last, left_out, began)
    if exams is None:
        for _ in steps:
            pass
        return TrainResult(learner.step, learner.loss, folder / WEIGHTS_FILE, left_out.all)
    names = tuple(entry.name for entry in gathered.entries)
    training = _Run(config, folder, learner, exams, names, drawer.pool.ratios, progress)
    with Course(folder, learner.step) as course:
        training.go(course, steps)
    return training.result(left_out.all)


def _prepare(
    folder: Path, config: TrainConfig, learner: Learner, gathered: Gathered, left_out: _LeftOut
) -> tuple[Exam, ...]:
    """What only the first process does before the first step: it opens the held-out scenes and records the run."""
    exams, no_exams = prepare_exams(
        config.validation_folders(), matched=config.network.pan == "matched", nodata=config.nodata
    )
    left_out.add((*gathered.skipped, *no_exams))
    record_run(folder, config, gathered, [Path(config.scenes) / exam.name for exam in exams], learner)
    return exams


def _by_the_first(processes: Processes, act: Callable[[], Result]) -> Result | None:
    """Have the first process do something; the others get None, and end with it where it fails.

    They would wait for it at the next step, and its failure be hidden among theirs.
    """
    done: Result | None = None
    failure: PancrafterError | None = None
    if processes.first:
        try:
            done = act()
        except PancrafterError as error:
            failure = error
    if processes.agreed(0.0 if failure is None else 1.0):
        raise failure or TrainingError("the first process cannot begin", "its message says why")
    return done


class _LeftOut:
    """Scenes and patches that take no part, in the order they were met, each told of once."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._found: dict[str, Skipped] = {}

    @property
    def all(self) -> tuple[Skipped, ...]:
        return tuple(self._found.values())

    def add(self, found: Iterable[Skipped]) -> None:
        """Tell of those that are new; each of several processes that draw samples finds them for itself."""
        for skipped in found:
            if self._found.setdefault(skipped.name, skipped) is skipped:
                self._warn(f"{skipped.name} is left out: {skipped.reason}")


def _steps(
    config: TrainConfig, learner: Learner, drawer: Drawer, workers: int, last: int, left_out: _LeftOut, began: float
) -> Generator[bool, None, None]:
    """Train up to step `last`, or until the time since `began` is over; after each step, whether it was the last."""
    first = last if is_finished(config, learner) else learner.step
    with closing(drawn_ahead(drawer, first, last, workers)) as batches:
        for batch in batches:
            left_out.add(batch.skipped)
            take_step(learner, batch, config)
            learner.seconds = learner.processes.agreed(time.monotonic() - began)
            finished = learner.step == last or is_finished(config, learner)
            yield finished
            if finished:
                break


@dataclass
class _Run:
    """What the first process does beside training: it examines the network, and writes down and saves where it is.

    exams are on held-out scenes; the names of the others, and the range of ratios that is drawn, are for the model.
    """

    config: TrainConfig
    folder: Path
    learner: Learner
    exams: tuple[Exam, ...]
    scenes: tuple[str, ...]
    ratios: tuple[float, float]
    progress: Progress
    saved: float = field(default_factory=time.monotonic)
    validated: float = field(default_factory=time.monotonic)

    def go(self, course: Course, steps: Generator[bool, None, None]) -> None:
        """Take the steps; save and validate in between and at the end."""
        config, learner = self.config, self.learner
        began_at = learner.step
        if began_at == 0:
            (self.folder / BEST_FILE).unlink(missing_ok=True)  # of a run that never came to its first checkpoint
            if self.exams:
                # Should training only make things worse, what it started from remains the best.
                self._validate(course)
        with closing(steps):
            for finished in steps:
                if finished or learner.step % LOSSES == 0:
                    self._report(course)
                if finished:
                    break
                if self.exams and time.monotonic() - self.validated > config.validate_minutes * 60:
                    self._validate(course)
                if time.monotonic() - self.saved > config.checkpoint_minutes * 60:
                    self._save()
        if self.exams and learner.step > began_at:
            self._validate(course)
        self._save()

    def result(self, skipped: tuple[Skipped, ...]) -> TrainResult:
        """Where the run is. The best model becomes the model where there was validation."""
        model, best = self.folder / WEIGHTS_FILE, self.folder / BEST_FILE
        loss = self.learner.loss
        if not self.exams:
            return TrainResult(self.learner.step, loss, model, skipped)
        with written_whole(model) as part:
            shutil.copyfile(best, part)
        facts = read_spec(best).training
        return TrainResult(self.learner.step, loss, model, skipped, facts["steps"], best_score(self.folder))

    def _report(self, course: Course) -> None:
        learner, loss = self.learner, self.learner.loss
        course.log(learner.step, loss, learning_rate(self.config, learner), learner.seconds)
        self.progress(learner.step, self.config.steps, loss)

    def _validate(self, course: Course) -> None:
        """Score the averaged weights, and keep them if they are the best so far."""
        learner = self.learner
        network = PanCrafter(self.config.network)
        network.load_state_dict(learner.ema)
        report = examine(self.exams, TorchRunner(Model(network, self._spec(), ""), learner.device))
        course.validated(learner.step, learner.seconds, report)
        best = best_score(self.folder)
        if best is None or report.relative_ergas < best:
            facts = {"validation_ergas": report.relative_ergas, "validation_scenes": [e.name for e in self.exams]}
            write_model(self.folder / BEST_FILE, learner, self._spec(facts))
        self.validated = time.monotonic()

    def _save(self) -> None:
        save_checkpoint(self.folder, self.config, self.learner)
        write_model(self.folder / WEIGHTS_FILE, self.learner, self._spec())
        self.saved = time.monotonic()

    def _spec(self, facts: dict[str, object] | None = None) -> ModelSpec:
        config, learner = self.config, self.learner
        recipe = asdict(config) | {"scenes": Path(config.scenes).name, "start_from": Path(config.start_from).name}
        training = {
            "steps": learner.step,
            "of_steps": config.steps,
            "hours": round(learner.seconds / 3600, 2),
            "scenes": sorted(self.scenes),
            "torch": torch.__version__,
            "recipe": recipe,
            "started_from_sha256": learner.started_from,
        }
        return ModelSpec(name=config.name, config=config.network, ratios=self.ratios, training=training | (facts or {}))
