"""The folder of a run: what it may hold before, who may train in it, and what the run in it began from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pancrafter_cli.data.config import TrainConfig, recipe_text
from pancrafter_cli.errors import OutputError, TrainingError
from pancrafter_cli.tasks import run_folder
from pancrafter_cli.tasks.course import Course
from pancrafter_cli.tasks.run_folder import LOCK_FILE, claimed
from pancrafter_cli.tasks.train import train
from pancrafter_cli.zoo import file_sha256, read_spec
from tests.test_training_processes import PROGRAM, train_by
from tests.training_setup import recipe, write_scenes

MOST_SECONDS = 120.0
POSIX_LOCKS = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", ["a", "b"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What is not a run's


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.safetensors", "another's"),
        ("best.safetensors", "another's"),
        ("recipe.toml", "name = 'mine'"),
        ("log.csv", "step,other\n1,2\n900,3\n"),
        ("validation.csv", "1,2\n3,4\n"),
        ("run.json", '{"of": "another program"}'),
        ("run.json", "[1, 2]"),
        ("run.json", "{"),
    ],
)
def test_files_that_no_run_wrote_are_not_replaced(root: Path, tmp_path: Path, name: str, text: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text(text)
    (run / "notes.txt").write_text("beside it")
    before = contents(run)
    with pytest.raises(OutputError, match=f"run holds {name}, but no run") as caught:
        train(recipe(root), run)
    assert "--run" in caught.value.hint
    assert contents(run) == before
    (run / name).unlink()
    assert train(recipe(root, steps=1), run).step == 1


def test_the_model_to_start_from_is_not_replaced(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = train(recipe(root, steps=1), run).model
    (run / "checkpoint.safetensors").unlink()
    before = contents(run)
    for start in (run, model, tmp_path / "scenes" / ".." / "run"):
        with pytest.raises(OutputError, match="holds the model to start from"):
            train(recipe(root, start_from=str(start)), run)
    assert contents(run) == before


def test_a_log_of_other_columns_is_not_cut(tmp_path: Path) -> None:
    text = "a,b\n1,2\n900,6\n"
    for name in ("log.csv", "validation.csv"):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(OutputError, match="not a log that training wrote"):
            Course(tmp_path, 100)
        assert path.read_text() == text
        path.unlink()


def test_a_run_without_its_recipe_goes_on(root: Path, tmp_path: Path) -> None:
    """Killed between the two files that it writes first: no dead end."""
    run = tmp_path / "run"
    train(recipe(root), run, stop_at=1)
    for name in ("recipe.toml", "checkpoint.safetensors", "model.safetensors", "log.csv"):
        (run / name).unlink()
    assert train(recipe(root, steps=1), run).step == 1


# Who trains in it


def start(config: TrainConfig, run: Path, *flags: str) -> subprocess.Popen[str]:
    path = run.with_suffix(".toml")
    path.write_text(recipe_text(config))
    words = [sys.executable, "-c", PROGRAM, "train", str(path), "--run", str(run), "--no-progress", *flags]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < MOST_SECONDS
        time.sleep(0.02)


@POSIX_LOCKS
def test_one_run_alone_trains_in_a_folder(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with claimed(run, print):
        process = start(recipe(root), run)
        assert "another process trains in it" in process.communicate(timeout=MOST_SECONDS)[1]
        assert process.returncode == 1
        several = train_by(2, recipe(root), run)
        assert several.returncode == 1
        assert several.stderr.count("another process trains in it") == 1
        assert "run_folder.py" not in several.stderr  # no traceback but that of torchrun
        assert [p.name for p in run.iterdir()] == [LOCK_FILE]


@POSIX_LOCKS
def test_a_run_that_is_killed_goes_on_at_once(root: Path, tmp_path: Path) -> None:
    """Whatever processes it leaves behind: those that draw samples outlive it by seconds."""
    run = tmp_path / "run"
    config = recipe(root, steps=100_000, checkpoint_minutes=1e-6)
    first = start(config, run, "--workers", "2")
    try:
        wait_for(run / "checkpoint.safetensors", first)
    finally:
        first.kill()
        first.wait()
    assert (run / LOCK_FILE).exists()
    assert train(replace(config, steps=1), run).step >= 1
    assert not (run / LOCK_FILE).exists()


def test_a_claim_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with suppress(KeyError), claimed(tmp_path / "runs" / "x", print):
        assert (tmp_path / "runs" / "x").is_dir()
        raise KeyError
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    with claimed(tmp_path / "kept", print):
        pass
    assert not list((tmp_path / "kept").iterdir())
    with claimed(tmp_path / "runs" / "x", print):
        (tmp_path / "runs" / "x" / "log.csv").touch()
    assert [p.name for p in (tmp_path / "runs" / "x").iterdir()] == ["log.csv"]


@POSIX_LOCKS
def test_a_disk_without_locks_is_told(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*given: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_folder.fcntl, "lockf", none)
    told: list[str] = []
    assert train(recipe(root, steps=1), tmp_path / "run", warn=told.append).step == 1
    assert [text for text in told if "no other process trains in it" in text]


# What it began from


def test_a_start_model_that_changed_is_refused(root: Path, tmp_path: Path) -> None:
    one = train(recipe(root, steps=1), tmp_path / "one").model
    other = train(recipe(root, steps=1, seed=7), tmp_path / "other").model
    shutil.copy(one, tmp_path / "start.safetensors")
    run = tmp_path / "run"
    config = recipe(root, start_from=str(tmp_path / "start.safetensors"))
    train(config, run, stop_at=2)
    shutil.copy(other, tmp_path / "start.safetensors")
    before = contents(run)
    with pytest.raises(TrainingError, match="is not the model the run began with") as caught:
        train(config, run)
    assert file_sha256(one)[:12] in caught.value.message
    assert contents(run) == before
    shutil.copy(one, tmp_path / "start.safetensors")
    model = train(config, run).model
    assert read_spec(model).training["started_from_sha256"] == file_sha256(one)
    assert json.loads((run / "run.json").read_text())["start_from_sha256"] == file_sha256(one)


def test_the_origin_is_what_was_loaded(root: Path, tmp_path: Path) -> None:
    """Even when the file goes while the run is under way."""
    start = train(recipe(root, steps=1), tmp_path / "one").model
    digest = file_sha256(start)

    def gone(*told: object) -> None:
        start.unlink(missing_ok=True)

    model = train(recipe(root, steps=60, start_from=str(start)), tmp_path / "run", progress=gone).model
    assert not start.exists()
    assert read_spec(model).training["started_from_sha256"] == digest
