"""A tiny recipe and tiny training data, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

from pancrafter_cli.data.batches import Batch
from pancrafter_cli.data.config import TrainConfig
from pancrafter_cli.data.samples import SampleOptions
from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.networks.config import PanCrafterConfig
from pancrafter_cli.runtime.processes import Processes
from tests.pairs import textured, write_pair

ALONE = Processes(torch.device("cpu"))
NETWORK = PanCrafterConfig(bands=2, width=8, depths=(1, 1, 1), heads=2)
CONFIG = TrainConfig(
    name="tiny",
    network=NETWORK,
    sample=SampleOptions(patch=16, bands=2),
    steps=6,
    batch=2,
    lr=1e-3,
    warmup=2,
    bf16=False,
)


def write_scenes(root: Path, names: Sequence[str], *, size: int = 128, bands: int = 3) -> Path:
    """Small scenes in folders of their own; returns `root`."""
    for seed, name in enumerate(names, start=1):
        write_pair(root / name, seed=seed, pan_size=size, ratio=4, bands=bands)
    return root


def write_patches(path: Path, *, count: int = 12, size: int = 32, bands: int = 4) -> Path:
    """A file in PanCollection's layout (float64 sets of N, C, H, W, DN of 11 bits) whose ms and lms are worthless."""
    truth = np.stack([textured(bands, size, seed) for seed in range(count)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["gt"], file["pan"] = truth, truth.mean(axis=1, keepdims=True)
        file["ms"] = np.full((count, bands, size // 4, size // 4), np.nan)
        file["lms"] = np.full(truth.shape, np.nan)
    return path


def recipe(scenes: Path, **changes: object) -> TrainConfig:
    """CONFIG on the scenes of a folder, changed."""
    return replace(CONFIG, scenes=str(scenes), **changes)  # type: ignore[arg-type]


def random_batch(config: TrainConfig, seed: int = 0) -> Batch:
    """What one step is given, of noise."""
    rng = np.random.default_rng(seed)
    shape = (config.samples_per_step, config.network.bands, 16, 16)
    *images, truth = (rng.random(shape, dtype=np.float32) for _ in range(4))
    return Batch(NetworkInputs(*images), truth, tuple(f"s{k}" for k in range(shape[0])))
