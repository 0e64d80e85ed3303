"""Training a model from PAN+MS scenes: one loop, resumable.

Everything random in step n comes from a generator seeded with (seed, n), so a run that was killed goes on from its
checkpoint and ends with the same weights as one that was not. Two things follow the clock instead and differ from
run to run: the learning rate of a run with `minutes`, and when a model is validated.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from pancrafter_cli.data.batches import Skipped, SourcePool, prefetch
from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.gather import gather_sources
from pancrafter_cli.errors import OutputError, UsageError
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.runtime.torch_runner import TorchRunner, pick_device
from pancrafter_cli.tasks.checkpoint import (
    BEST_FILE,
    best_score,
    restore_checkpoint,
    save_checkpoint,
    write_model,
    written_whole,
)
from pancrafter_cli.tasks.course import Course
from pancrafter_cli.tasks.learner import LOSSES, Learner, is_finished, learning_rate, start_learner, take_step
from pancrafter_cli.tasks.run_record import record_run
from pancrafter_cli.tasks.validation import Exam, examine, prepare_exams
from pancrafter_cli.zoo import WEIGHTS_FILE, Model, ModelSpec, file_sha256, read_spec, resolve

Progress = Callable[[int, int, float], None]
Warn = Callable[[str], None]


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
    stop_at: int | None = None,
    progress: Progress = lambda step, steps, loss: None,
    warn: Warn = lambda text: None,
) -> TrainResult:
    """Train `config` in the folder `run`, going on from its checkpoint when there is one.

    device: auto, cpu, cuda or cuda:N. `stop_at` ends this call early, after that many steps in all, with a
    checkpoint. `progress` gets (step, steps, loss), `warn` a sentence for everything that is left out. Raises
    TrainingError for unusable scenes, a checkpoint of another recipe, or a loss that is not finite, and OutputError
    when the run folder cannot be written to.
    """
    if stop_at is not None and stop_at < 1:
        raise UsageError(f"--stop-at {stop_at}: expected a number of steps from 1 up", "leave it out")
    learner = start_learner(config, pick_device(device))
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be made a run folder ({error.strerror})", "choose another --run") from error
    restore_checkpoint(run, config, learner)
    gathered = gather_sources(config)
    exams, no_exams = prepare_exams(config.validation_folders(), matched=config.network.pan == "matched")
    for skipped in (*gathered.skipped, *no_exams):
        warn(f"{skipped.name} is left out: {skipped.reason}")
    held_out = [Path(config.scenes) / exam.name for exam in exams]
    record_run(run, config, gathered, held_out, learner)
    names = tuple(entry.name for entry in gathered.entries)
    training = _Run(config, run, learner, SourcePool(gathered.sources, config), exams, names, progress, warn)
    with Course(run, learner.step) as course:
        training.go(course, config.steps if stop_at is None else min(stop_at, config.steps))
    return training.result((*gathered.skipped, *no_exams))


@dataclass
class _Run:
    """A run on its way: what it learns from, what it is examined on, and when it last saved and validated."""

    config: TrainConfig
    folder: Path
    learner: Learner
    pool: SourcePool
    exams: tuple[Exam, ...]
    scenes: tuple[str, ...]
    progress: Progress
    warn: Warn
    saved: float = field(default_factory=time.monotonic)
    validated: float = field(default_factory=time.monotonic)
    warned: int = 0

    def go(self, course: Course, last: int) -> None:
        """Train up to step `last`, or until the time is over; save and validate in between and at the end."""
        config, learner = self.config, self.learner
        began = time.monotonic() - learner.seconds
        first = last if is_finished(config, learner) else learner.step
        if learner.step == 0:
            (self.folder / BEST_FILE).unlink(missing_ok=True)  # of a run that never came to its first checkpoint
            if self.exams:
                # Should training only make things worse, what it started from remains the best.
                self._validate(course)
        with closing(prefetch(self.pool, first, last)) as batches:
            for batch in batches:
                take_step(learner, batch, config)
                learner.seconds = time.monotonic() - began
                finished = learner.step == last or is_finished(config, learner)
                if finished or learner.step % LOSSES == 0:
                    self._report(course)
                if finished:
                    break
                if self.exams and time.monotonic() - self.validated > config.validate_minutes * 60:
                    self._validate(course)
                if time.monotonic() - self.saved > config.checkpoint_minutes * 60:
                    self._save()
        if self.exams and learner.step > first:
            self._validate(course)
        self._save()

    def result(self, skipped: tuple[Skipped, ...]) -> TrainResult:
        """Where the run is. The best model becomes the model where there was validation."""
        model, best = self.folder / WEIGHTS_FILE, self.folder / BEST_FILE
        loss = self.learner.loss
        skipped += self.pool.skipped
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
        for skipped in self.pool.skipped[self.warned :]:
            self.warn(f"{skipped.name} is left out: {skipped.reason}")
            self.warned += 1

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
            "started_from_sha256": file_sha256(resolve(config.start_from)) if config.start_from else None,
        }
        return ModelSpec(
            name=config.name, config=config.network, ratios=config.sample.ratios, training=training | (facts or {})
        )
