"""The course of a run: loss, learning rate and validation as CSV, and for TensorBoard where it is installed."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pancrafter_cli.errors import OutputError
from pancrafter_cli.tasks.checkpoint import written_whole
from pancrafter_cli.tasks.validation import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.csv"
VALIDATION_FILE = "validation.csv"
_LOG_HEAD = ("step", "loss", "learning_rate", "seconds")
_VALIDATION_HEAD = ("step", "seconds", "scene", "ergas", "sam", "q2n", "exp_ergas", "exp_sam", "exp_q2n")


class Course:
    """Writes down a run in its folder, from `step` on: what an interrupted run wrote beyond that is dropped.

    From step 0 on, that is all of it. A context manager. Raises OutputError when the folder cannot be written to.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._run = run
        for name, head in ((LOG_FILE, _LOG_HEAD), (VALIDATION_FILE, _VALIDATION_HEAD)):
            _drop_after(run / name, head, step or -1)
        self._board = _board(run, step)

    def log(self, step: int, loss: float, rate: float, seconds: float) -> None:
        """Mean loss of the steps since the last entry, and the learning rate of the next."""
        _append(self._run / LOG_FILE, _LOG_HEAD, [(step, f"{loss:.6f}", f"{rate:.3e}", f"{seconds:.0f}")])
        self._show(step, {"loss": loss, "learning_rate": rate})

    def validated(self, step: int, seconds: float, report: Report) -> None:
        """Scores of every held-out scene, and their mean beside the relative ERGAS."""
        rows = [
            (step, f"{seconds:.0f}", name, *_texts(own), *_texts(exp)) for name, (own, exp) in report.scenes.items()
        ]
        mean = (step, f"{seconds:.0f}", "mean", *_texts(report.mean), "", "", "")
        _append(self._run / VALIDATION_FILE, _VALIDATION_HEAD, [*rows, mean])
        facts = {f"validation/{name}": float(value) for name, value in vars(report.mean).items()}
        self._show(step, facts | {"validation/relative_ergas": report.relative_ergas})

    def _show(self, step: int, values: dict[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()


def _board(run: Path, step: int) -> SummaryWriter | None:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)


def _append(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    try:
        new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(head)
            writer.writerows(rows)
    except OSError as error:
        raise _unwritable(path, error) from error


def _drop_after(path: Path, expected: Sequence[str], step: int) -> None:
    """Keep the rows of a CSV file up to a step; what a kill left of one without rows is as good as none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        if head != [*expected]:
            raise ValueError(head)
        kept = [head, *(row for row in rows if row and int(row[0]) <= step)]
        with written_whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(kept)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from error
    except ValueError as error:
        if not path.stat().st_size:
            path.unlink()
            return
        raise OutputError(
            f"{path}: not a log that training wrote", "move it elsewhere, or give another --run"
        ) from error


def _texts(scores: Any) -> list[str]:
    return [f"{value:.4f}" for value in vars(scores).values()]


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror})", "make room on the disk, or give another --run")
