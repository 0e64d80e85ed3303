"""Kill a run at every step it takes in its output folder, go on with it, and compare: `python -m tests.crash_points`.

A process of its own, because it forks: prints how many steps were tried, or fails at the first that goes wrong.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pancrafter_cli.errors import PancrafterError
from pancrafter_cli.raster import outputs, part
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions

_STEPS = ("open", "os.rename", "os.link", "os.remove", "os.truncate")


def main(folder: Path, overwrite: bool, every: int) -> None:
    outputs.JOURNAL_SECONDS = 0.0
    in_a_child(partial(sharpen, folder, "whole", overwrite))
    whole = contents(folder / "whole")
    assert sorted(whole) == ["c.tif", "out.tif"]
    step = 1
    while in_a_child(partial(killed, folder, overwrite, step)) == -signal.SIGKILL:
        assert in_a_child(partial(sharpen, folder, "killed", overwrite)) == 0, f"step {step}: cannot be gone on with"
        assert contents(folder / "killed") == whole, f"step {step}: {sorted(contents(folder / 'killed'))}"
        step += every
    print(f"{step - 1} steps")


def killed(folder: Path, overwrite: bool, step: int) -> None:
    """Sharpen, and be killed when the step of that number begins."""
    left = step
    where = str(folder / "killed")

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def seen(event: str, arguments: tuple[object, ...]) -> None:
        if event in _STEPS and str(arguments[0]).startswith(where):
            count()

    write, sync = part.PartFile.write_at, os.fsync
    part.PartFile.write_at = lambda *a: (count(), write(*a))[1]  # type: ignore[method-assign]
    os.fsync = lambda fd: (count(), sync(fd))[1]
    prepare(folder / "killed", overwrite)
    sys.addaudithook(seen)
    sharpen(folder, "killed", overwrite)


def prepare(output: Path, overwrite: bool) -> None:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    if overwrite:
        for name in ("out.tif", "c.tif"):
            (output / name).write_bytes(b"old")


def sharpen(folder: Path, name: str, overwrite: bool) -> None:
    output = folder / name
    output.mkdir(exist_ok=True)
    options = SharpenOptions(
        folder / "pan.tif",
        (folder / "ms.tif",),
        output / "out.tif",
        method="exp",
        tile=256,
        registration="off",
        confidence=output / "c.tif",
        overwrite=overwrite,
    )
    try:
        sharpen_scene(options)
    except PancrafterError as error:
        if "out.tif: exists already" not in error.message:  # it was killed when all was done
            raise


def in_a_child(task: Callable[[], None]) -> int:
    """The exit code of a function in a process of its own; the number of what killed it, negative."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "overwrite", int(sys.argv[3]))
