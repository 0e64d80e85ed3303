"""The folder of a run: whether training may write to it, and that one process alone does."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from pancrafter_cli.errors import OutputError, TrainingError
from pancrafter_cli.raster.targets import check_local
from pancrafter_cli.tasks.checkpoint import BEST_FILE, CHECKPOINT_FILE
from pancrafter_cli.tasks.course import LOG_FILE, VALIDATION_FILE
from pancrafter_cli.tasks.run_record import RECIPE_FILE, RECORD_FILE, is_recorded
from pancrafter_cli.zoo import WEIGHTS_FILE

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".lock"
_WRITTEN = (WEIGHTS_FILE, BEST_FILE, RECIPE_FILE, RECORD_FILE, LOG_FILE, VALIDATION_FILE)
_OTHER_RUN = "choose another --run"


def check_folder(folder: Path, start: Path | None) -> None:
    """Look whether a run can write to a folder; scenes may take long to read. Nothing is written.

    start: the weights that training starts from. Raises OutputError when the folder can neither be used nor made,
    when it holds the model to start from, or when it holds files of a run's names and yet no run.
    """
    check_local(folder)
    # os.path, unlike Path, calls a name that may not be looked at one that does not exist.
    place = next((p for p in (folder, *folder.absolute().parents) if os.path.exists(p)), folder)  # noqa: PTH110
    if not os.path.isdir(place):  # noqa: PTH112
        raise OutputError(f"{folder}: {place} is not a folder", _OTHER_RUN)
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: {place} cannot be written to", _OTHER_RUN)
    if start is not None and start.resolve().parent == folder.resolve():
        raise OutputError(f"{folder} holds the model to start from, which the run would replace", _OTHER_RUN)
    others = [name for name in _WRITTEN if os.path.lexists(folder / name)]
    if others and not (folder / CHECKPOINT_FILE).exists() and not is_recorded(folder):
        raise OutputError(
            f"{folder} holds {', '.join(others)}, but no run: there is neither a {CHECKPOINT_FILE} nor a {RECORD_FILE} "
            "that training wrote",
            f"{_OTHER_RUN}, or move these files elsewhere: a run would replace them",
        )


@contextmanager
def claimed(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Make the folder, and keep other processes from training in it meanwhile; one that stays empty is removed.

    The lock is the process's own: it ends with it, however it ends, and processes forked from it do not hold it on.
    Raises TrainingError when another process trains in the folder, OutputError when it cannot be made.
    """
    lock = folder / LOCK_FILE
    made = [p for p in (folder, *folder.absolute().parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(lock)
    except BlockingIOError as error:
        raise TrainingError(f"{folder}: another process trains in it", f"wait for its end, or {_OTHER_RUN}") from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a run folder ({error.strerror})", _OTHER_RUN) from error
    if file is None:
        warn(f"{folder}: there are no locks here; see to it that no other process trains in it")
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)  # while it is held, so that it is nobody else's
        if file is not None:
            file.close()
        with suppress(OSError):  # that it is not empty, for the most part
            for path in made:
                path.rmdir()


def _locked(path: Path) -> FileIO | None:
    """The file, made and locked for as long as it is open; None where the system has no such locks.

    Raises BlockingIOError when another process has it.
    """
    if sys.platform == "win32":
        return None
    while True:
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass  # the process that held it has just ended and removed it
        except OSError as error:
            file.close()
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BlockingIOError(*error.args) from error
            return None
        file.close()
