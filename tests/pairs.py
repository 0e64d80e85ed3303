"""Textured PAN+MS pairs whose sharp truth is known, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from tests.scene_factory import FileFacts, write_tif


def textured(bands: int, size: int, seed: int) -> NDArray[np.float64]:
    """Truth (C, size, size) of about 100 to 900 DN: blocks, fine texture, and bands that share most of both."""
    rng = np.random.default_rng(seed)
    shared = np.kron(rng.uniform(200, 700, (-(-size // 8), -(-size // 8))), np.ones((8, 8)))[:size, :size]
    own = np.stack(
        [np.kron(rng.uniform(-60, 60, (-(-size // 16),) * 2), np.ones((16, 16)))[:size, :size] for _ in range(bands)]
    )
    fine = rng.normal(0, 20, (size, size))
    return np.clip(shared * rng.uniform(0.7, 1.2, (bands, 1, 1)) + own + fine, 1, None)


def write_pair(folder: Path, *, seed: int, pan_size: int, ratio: int, bands: int) -> NDArray[np.float64]:
    """Write uint16 pan.tif and ms.tif with a common corner; returns the truth (C, H, W)."""
    truth = textured(bands, pan_size, seed)
    write_truth(folder, truth, ratio)
    return truth


def write_truth(folder: Path, truth: NDArray[np.float64], ratio: int) -> None:
    """Write uint16 pan.tif and ms.tif that show a truth (C, S, S): its mean, and it degraded with an MTF of 0.3."""
    folder.mkdir(parents=True, exist_ok=True)
    pan_size = truth.shape[1]
    coarse = pan_size // ratio
    down = degrade_weights(AxisMap(ratio, 0.0, coarse, pan_size), 0, coarse, 0.3).matrix
    ms = down @ truth @ down.T
    facts = [FileFacts(transform=Affine(s, 0, 500_000, 0, -s, 5_700_000)) for s in (0.5, 0.5 * ratio)]
    write_tif(folder / "pan.tif", np.rint(truth.mean(axis=0, keepdims=True)).astype(np.uint16), facts[0])
    write_tif(folder / "ms.tif", np.rint(ms).astype(np.uint16), facts[1])


def displace(pan: Path, amount: float, ratio: int = 4) -> NDArray[np.float64]:
    """Move the content of PAN by up to so many MS pixels, smoothly; returns by how many, down and right (2, H, W)."""
    with rasterio.open(pan, "r+") as file:
        image = file.read(1).astype(float)
        rows, cols = np.indices(image.shape).astype(float)
        off = amount * np.stack([np.sin(2 * np.pi * cols / 400), np.cos(2 * np.pi * (rows + cols) / 500)])
        moved = ndimage.map_coordinates(image, np.stack([rows, cols]) - ratio * off, order=3, mode="nearest")
        file.write(np.rint(moved).clip(1, None).astype(np.uint16), 1)
    return np.asarray(off)
