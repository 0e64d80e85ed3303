"""Broken and odd inputs, end to end: the right exit code, one message, nothing half-written, in bounded time."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rasterio

from pancrafter_cli.errors import PancrafterError
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from tests import pairs
from tests.bad_inputs import ROWS, SOURCE_ROWS, Case, Ended, Product, Row, blocked, pair, run_limited

pytest.importorskip("resource", reason="limits of processes are a matter of Unix")


def test_the_table_is_long_and_its_names_differ() -> None:
    assert len(ROWS) >= 60
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_sharpen(row: Row, tmp_path: Path) -> None:
    with inside(tmp_path) as folder:
        making = row.make(folder)
        case = next(making)
        before = snapshot(folder)
        ended = run_limited(case.arguments, tmp_path, file_limit=case.file_limit)
        assert ended.code == row.code, ended
        if row.said is None:
            assert ended.err == ""
            assert snapshot(folder) == sorted([*before, describe(case.out, folder)])
            with pytest.raises(StopIteration):
                making.send(product_of(case))
        else:
            check_message(ended, row.said)
            assert ended.out == ""
            assert snapshot(folder) == before, "something was left behind or touched"


@pytest.mark.parametrize("row", SOURCE_ROWS, ids=lambda row: row.name)
def test_inspect(row: Row, tmp_path: Path) -> None:
    with inside(tmp_path) as folder:
        case = next(row.make(folder))
        before = snapshot(folder)
        ended = run_limited(["inspect", *case.sources], tmp_path)
        assert ended.code in (0, 1, row.code), ended
        if ended.code:
            check_message(ended, "")
        else:
            assert ended.err == ""
        assert snapshot(folder) == before, "something was left behind or touched"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_program_itself(tmp_path: Path, encoding: str) -> None:
    """Not a fork of it: codes, streams and names as a shell sees them."""
    folder = tmp_path / "a b \u00fc \u5317"
    folder.mkdir()
    case = pair(folder)
    before = snapshot(folder)
    env = {"PYTHONIOENCODING": encoding}
    missing = program(["sharpen", str(folder / "none.tif"), *case.arguments[2:]], env)
    assert missing.code == 1
    check_message(missing, "none.tif: no such file")
    misused = program([*case.arguments, "--nonsense"], env)
    assert misused.code == 2
    check_message(misused, "--nonsense")
    assert snapshot(folder) == before
    done = program(case.arguments, env)
    assert (done.code, done.err) == (0, "")
    assert "40 x 32 pixels" in done.out
    assert snapshot(folder) == sorted([*before, describe(case.out, folder)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_behind_stdout(tmp_path: Path) -> None:
    case = pair(tmp_path)
    with Path("/dev/full").open("w") as full:
        ended = program(case.arguments, stdout=full)
    assert ended.code == 1
    check_message(ended, "not all could be written: No space left")
    assert case.out.is_file()


@pytest.mark.parametrize("size", ["64k", "200k"])
def test_output_on_a_full_disk(tmp_path: Path, size: str) -> None:
    """A file system of its own in memory; the product takes about 280 kB."""
    case = blocked(tmp_path)
    out = case.out.parent
    script = (
        f'mount -t tmpfs -o size={size} tmpfs "$1" && ls -A "$1" > "$1.before"; shift; "$@"; code=$?\n'
        f'ls -A "{out}" > "{out}.after"; exit $code'
    )
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(out)]
    if shutil.which("unshare") is None or subprocess.run([*shell[:4], "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a file system of their own")
    ended = program(case.arguments, before=shell)
    assert ended.code == 1
    check_message(ended, "cannot be written: .* MB are free")
    assert (tmp_path / "out.before").read_text() == ""
    assert (tmp_path / "out.after").read_text() == "", "something was left behind"


def test_a_terminated_run_leaves_nothing(tmp_path: Path) -> None:
    pairs.write_pair(tmp_path, seed=1, pan_size=2048, ratio=4, bands=4)
    before = snapshot(tmp_path)
    arguments = ["sharpen", str(tmp_path / "pan.tif"), str(tmp_path / "ms.tif"), "-o", str(tmp_path / "out.tif")]
    arguments += ["--method", "gsa", "--tile", "256"]
    process = subprocess.Popen([*PROGRAM, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.tif*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.terminate()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143, error
    check_message(Ended(143, "", error, 0), "terminated")
    assert "train" not in error
    assert snapshot(tmp_path) == before


# ---- While a run is under way


def large_case(folder: Path) -> Case:
    """A pair of 512 x 512 and 128 x 128 pixels, uncompressed: four tiles."""
    case = pair(folder)
    pairs.write_pair(folder, seed=4, pan_size=512, ratio=4, bands=3)
    return case


def sharpen_with(case: Case, meanwhile: Callable[[], None], *, overwrite: bool = False) -> None:
    """Sharpen in this process, and do something once the first tile is written."""
    todo = [meanwhile]

    def progress(done: int, total: int) -> None:
        while todo:
            todo.pop()()

    options = SharpenOptions(case.pan, case.ms, case.out, method="exp", tile=256, overwrite=overwrite)
    sharpen_scene(options, progress)


@pytest.mark.parametrize("which", ["pan", "ms"])
@pytest.mark.parametrize("change", ["cut", "rewritten", "replaced", "removed"])
def test_an_input_that_changes_during_the_run(tmp_path: Path, change: str, which: str) -> None:
    case = large_case(tmp_path)
    path = case.pan if which == "pan" else case.ms[0]
    data = path.read_bytes()

    def meanwhile() -> None:
        if change == "cut":
            os.truncate(path, len(data) // 3)
        elif change == "rewritten":
            time.sleep(0.02)  # of the clock that file systems keep
            with path.open("r+b") as file:
                file.seek(len(data) // 2)
                file.write(bytes(1000))
        else:
            path.unlink()
            if change == "replaced":
                path.write_bytes(data[::-1])

    with pytest.raises(PancrafterError, match=r"cannot be read|has changed while it was read") as caught:
        sharpen_with(case, meanwhile)
    assert caught.value.hint
    assert list(case.out.parent.iterdir()) == []


def test_of_two_runs_to_one_new_file_the_later_fails(tmp_path: Path) -> None:
    case = large_case(tmp_path)
    first: list[bytes] = []

    def other_run() -> None:
        sharpen_with(case, lambda: None)
        first.append(case.out.read_bytes())

    with pytest.raises(PancrafterError, match="another run has written it") as caught:
        sharpen_with(case, other_run)
    assert "--overwrite" in caught.value.hint
    assert case.out.read_bytes() == first[0]
    assert list(case.out.parent.iterdir()) == [case.out]


def test_of_two_runs_that_overwrite_the_later_stays(tmp_path: Path) -> None:
    case = large_case(tmp_path)
    sharpen_with(case, lambda: sharpen_with(case, lambda: None), overwrite=True)
    assert product_of(case).valid.all()
    assert list(case.out.parent.iterdir()) == [case.out]


def test_two_processes_to_one_file(tmp_path: Path) -> None:
    case = large_case(tmp_path)
    logs = [tmp_path / "1", tmp_path / "2"]
    for folder in logs:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda folder: run_limited(case.arguments, folder), logs))
    assert sorted(e.code for e in ended) == [0, 1], ended
    check_message(next(e for e in ended if e.code), "another run has written it|exists already")
    assert product_of(case).valid.all()
    assert list(case.out.parent.iterdir()) == [case.out]


# ---- Tools


PROGRAM = [sys.executable, "-c", "from pancrafter_cli.cli.main import run; run()"]


def program(
    arguments: list[str], env: dict[str, str] | None = None, *, before: list[str] | None = None, stdout: Any = None
) -> Ended:
    """The real program, after the words `before` it."""
    began = time.monotonic()
    done = subprocess.run(
        [*(before or []), *PROGRAM, *arguments],
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        env=os.environ | (env or {}),
    )
    return Ended(done.returncode, done.stdout or "", done.stderr, time.monotonic() - began)


def check_message(ended: Ended, said: str) -> None:
    # libtiff itself prints this one line when the system refuses to write, and leaves nobody a way to prevent it.
    lines = [line for line in ended.err.splitlines() if not line.startswith(("_tiffWriteProc: ", "notice: "))]
    assert len(lines) == 2, ended.err
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert len(lines[1]) > 15
    assert re.search(said, lines[0]), ended.err


def product_of(case: Case) -> Product:
    with rasterio.open(case.out) as file:
        return Product(file.read(), file.read_masks() != 0, file.crs, file.transform, file.nodata)


@contextlib.contextmanager
def inside(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scene"
    folder.mkdir()
    try:
        yield folder
    finally:  # what rows have locked must be opened for pytest to remove it
        for path in (folder, *folder.glob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted(describe(path, folder) for path in folder.rglob("*"))


def describe(path: Path, folder: Path) -> tuple[str, int]:
    status = path.lstat()
    return str(path.relative_to(folder)), 0 if path.is_dir() else status.st_mtime_ns
