"""A training run that is killed goes on as if nothing had happened: weights and loss curve, bit for bit."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from pancrafter_cli.data.config import TrainConfig, recipe_text
from pancrafter_cli.tasks.checkpoint import CHECKPOINT_FILE
from tests.training_setup import recipe, write_scenes

KILLS = 3
MOST_SECONDS = 120.0


def start(path: Path, run: Path) -> subprocess.Popen[bytes]:
    command = "from pancrafter_cli.cli.main import run; run()"
    words = [sys.executable, "-c", command, "train", str(path), "--run", str(run), "--no-progress"]
    # As many threads in every life: sums are taken in their order.
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def kill_after_a_checkpoint(path: Path, run: Path, wait: float) -> bool:
    """Start the run and kill it `wait` seconds after its next checkpoint; whether it was still running then."""
    checkpoint, began = run / CHECKPOINT_FILE, time.time()
    process = start(path, run)
    try:
        while process.poll() is None and time.time() - began < MOST_SECONDS:
            if checkpoint.is_file() and checkpoint.stat().st_mtime > began:
                time.sleep(wait)
                break
            time.sleep(0.005)
        return process.poll() is None
    finally:
        process.kill()
        process.wait()


def curve(run: Path) -> list[list[str]]:
    """The log without its clock."""
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    clock = rows[0].index("seconds")
    return [row[:clock] + row[clock + 1 :] for row in rows]


def killable(scenes: Path) -> TrainConfig:
    """A recipe that saves after every step and takes a second or two."""
    return replace(recipe(scenes), steps=30, checkpoint_minutes=1e-6)


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", ["s1", "s2"])
    config = killable(scenes)
    path, run = tmp_path / "recipe.toml", tmp_path / "killed"
    path.write_text(recipe_text(config))
    rng = random.Random(2026)
    killed = sum(kill_after_a_checkpoint(path, run, rng.uniform(0.0, 0.1)) for _ in range(KILLS))
    assert killed >= 1
    assert start(path, run).wait(MOST_SECONDS) == 0
    whole = tmp_path / "whole"
    assert start(path, whole).wait(MOST_SECONDS) == 0
    one, other = (safetensors.torch.load_file(folder / "model.safetensors") for folder in (whole, run))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert curve(run) == curve(whole)
