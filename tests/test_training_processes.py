"""Several processes at one run: some draw samples ahead, and some share the samples of every step."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from pancrafter_cli.data import scenes
from pancrafter_cli.data.ahead import Drawer, drawn_ahead, lost_drawers_told
from pancrafter_cli.data.batches import Batch, SourcePool
from pancrafter_cli.data.config import TrainConfig, recipe_text
from pancrafter_cli.data.gather import gather_sources
from pancrafter_cli.errors import DeviceError, TrainingError, UsageError
from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.runtime.processes import Processes, is_first, joined
from pancrafter_cli.tasks import train as training
from pancrafter_cli.tasks.learner import start_learner
from pancrafter_cli.tasks.train import train
from tests.training_setup import ALONE, CONFIG, recipe, write_patches, write_scenes

MOST_SECONDS = 180.0
PROGRAM = "import sys; sys.argv[0] = 'pancrafter'; from pancrafter_cli.cli.main import run; run()"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", ["a", "b"])


def assert_alike(one: Batch, other: Batch) -> None:
    assert one.names == other.names
    for a, b in zip((*one.images, one.truth), (*other.images, other.truth), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_the_step_alone(root: Path, workers: int) -> None:
    config = recipe(root)
    drawer = Drawer(SourcePool(gather_sources(config).sources, config))
    drawn = [drawer.draw(step) for step in range(9)]
    whole = list(drawn_ahead(drawer, 0, 9, workers))
    later = list(drawn_ahead(drawer, 6, 9, workers))
    for one, other in zip([*drawn, *drawn[6:]], [*whole, *later], strict=True):
        assert_alike(one, other)
    assert list(drawn_ahead(drawer, 3, 3, workers)) == []


def test_processes_share_the_samples_of_a_step(root: Path) -> None:
    config = recipe(root, batch=6)
    pool = SourcePool(gather_sources(config).sources, config)
    whole, parts = pool.draw(3), [pool.draw(3, first, 3) for first in range(3)]
    for first, part in enumerate(parts):
        of_it = Batch(NetworkInputs(*(i[first::3] for i in whole.images)), whole.truth[first::3], whole.names[first::3])
        assert_alike(part, of_it)


def test_sources_can_be_sent_to_other_processes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes cannot be forked, as on Windows, the pool is pickled; scenes here are small and large ones."""
    monkeypatch.setattr(scenes, "LARGEST_WHOLE", 150 * 150)
    write_scenes(root, ["large"], size=256)
    config = recipe(root, batch=8)
    pool = SourcePool(gather_sources(config).sources, config)
    assert_alike(pickle.loads(pickle.dumps(pool)).draw(5), pool.draw(5))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_drawing_process_finds_broken_is_told(tmp_path: Path, workers: int) -> None:
    path = write_patches(tmp_path / "train_x.h5", count=40)
    config = recipe(path, batch=24)
    pool = SourcePool(gather_sources(config).sources, config)
    with h5py.File(path, "a") as file:
        file["gt"][4, 0, 3, 3] = np.nan
    told = {s.name for batch in drawn_ahead(Drawer(pool), 0, 10, workers) for s in batch.skipped}
    assert told == {"train_x.h5[4]"}
    path.unlink()
    with pytest.raises(TrainingError, match=r"train_x\.h5: \d+ of 40 images in it cannot be read") as raised:
        list(drawn_ahead(Drawer(pool), 0, 9, workers))
    assert "exclude" in raised.value.hint


def test_a_drawing_process_that_vanishes_ends_the_run(root: Path) -> None:
    config = recipe(root)
    drawer = MortalDrawer(SourcePool(gather_sources(config).sources, config))
    told = r"a process that draws samples has ended: .*worker"
    with pytest.raises(TrainingError, match=told) as raised, lost_drawers_told():
        list(drawn_ahead(drawer, 0, 9, 1))
    assert "--workers" in raised.value.hint


def test_other_failures_of_a_drawing_process_are_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="a bug"), lost_drawers_told():
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0: a bug")


def test_a_drawing_process_that_is_killed_in_the_middle_of_a_step_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killing(*given: object) -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()

    monkeypatch.setattr(training, "take_step", killing)
    with pytest.raises(TrainingError, match="a process that draws samples has ended"):
        train(recipe(root), tmp_path / "run", workers=1)


class MortalDrawer(Drawer):
    """Is killed at the fifth step, as by a system without memory."""

    def draw(self, step: int) -> Batch:
        if step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(step)


def train_by(processes: int, config: TrainConfig, run: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Train in so many processes that torchrun starts."""
    path = run.with_suffix(".toml")
    path.write_text(recipe_text(config))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--no-python", "--"]
    words = [sys.executable, *launcher, sys.executable, "-c", PROGRAM, "train", str(path), "--run", str(run), *flags]
    return subprocess.run(
        words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=MOST_SECONDS
    )


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "model.safetensors")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_processes_learn_what_one_does(root: Path, tmp_path: Path) -> None:
    """Steps in which one process alone has samples in PAN mode, or none has; parts that are not full; validation."""
    write_scenes(root, ["held-out"], size=128)
    config = recipe(root, batch=2, accumulate=3, pan_share=0.2, validate=("held*",), loss="rmse", steps=9)
    alone, two = tmp_path / "alone", tmp_path / "two"
    assert train_by(2, config, two, "--json", "--stop-at", "4").returncode == 0
    done = train_by(2, config, two, "--json")
    assert done.returncode == 0, done.stderr
    result = train(config, alone)
    # Sums are taken in another order, nothing else differs.
    for name, value in weights_of(alone).items():
        torch.testing.assert_close(weights_of(two)[name], value, rtol=1e-3, atol=1e-5)
    # Only the first process writes, and says so once.
    told = json.loads(done.stdout)
    assert told["step"] == 9
    assert told["loss"] == pytest.approx(result.loss, rel=1e-4)
    assert [row["step"] for row in rows_of(two / "log.csv")] == ["4", "9"]
    assert [row["step"] for row in rows_of(two / "validation.csv") if row["scene"] == "mean"] == ["0", "4", "9"]
    assert [start["step"] for start in json.loads((two / "run.json").read_text())["starts"]] == [0, 4]


def test_the_time_is_over_for_all_processes_at_once(root: Path, tmp_path: Path) -> None:
    config = recipe(root, steps=100_000, minutes=0.05)
    done = train_by(2, config, tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["step"] < 100_000


def test_what_only_another_process_meets_ends_the_run(tmp_path: Path) -> None:
    """A patch whose error is infinite, none of those that the scale is measured on: neither waits for the other."""
    path = write_patches(tmp_path / "train_x.h5", count=130)
    with h5py.File(path, "a") as file:
        file["gt"][1] = 3e38
    config = recipe(path, steps=2000)
    done = train_by(2, config, tmp_path / "run")
    assert done.returncode == 1
    assert "TrainingError" not in done.stderr  # but for what torchrun says of it, one message
    assert done.stderr.count("in samples of train_x.h5[1]; nothing") == 1


def test_samples_that_cannot_be_shared_are_refused() -> None:
    three = Processes(torch.device("cpu"), 0, 3, 3)
    with pytest.raises(UsageError, match="3 processes cannot share the 4 samples") as raised:
        start_learner(replace(CONFIG, batch=4), three)
    assert "batch" in raised.value.hint


def test_every_process_takes_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="a device of its own"), joined("cuda:0"):
        pass
    with pytest.raises(DeviceError, match="2 processes for 1 CUDA devices"), joined("auto"):
        pass


def test_processes_that_lack_what_torchrun_says_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match="LOCAL_RANK, LOCAL_WORLD_SIZE is not set"), joined("cpu"):
        pass
    monkeypatch.delenv("WORLD_SIZE")
    assert is_first()  # a rank without others says nothing


def test_processes_that_find_different_checkpoints_are_refused(root: Path, tmp_path: Path) -> None:
    """As on machines that do not share the run folder."""

    class Apart(Processes):
        def agreed(self, value: float) -> float:
            return value / 2

    train(recipe(root), tmp_path / "run", stop_at=2)
    with pytest.raises(TrainingError, match="not all processes find the same checkpoint"):
        training._train(recipe(root), tmp_path / "run", Apart(torch.device("cpu")), 0, 6, lambda *_: None, print)


def test_one_process_has_its_gradients_as_they_are() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.tensor([1.0, 2.0, 3.0])
    ALONE.average_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0, 3.0]
    assert ALONE.agreed(0.1) == 0.1


def test_gpus_have_several_processes_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "usable_cores", lambda: 16)
    gpu = torch.device("cuda")
    found = [training._workers(p) for p in (ALONE, Processes(gpu), Processes(gpu, 1, 8, 4), Processes(gpu, 0, 32, 32))]
    assert found == [0, 8, 4, 1]


def test_a_negative_number_of_workers_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--workers -1"):
        train(recipe(root), tmp_path / "run", workers=-1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_who_draws_changes_nothing(root: Path, tmp_path: Path, workers: int) -> None:
    config = recipe(root)
    one, other = tmp_path / "thread", tmp_path / "processes"
    train(config, one)
    train(config, other, workers=workers)
    assert all(torch.equal(value, weights_of(other)[name]) for name, value in weights_of(one).items())
