from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.test_sharpen import random_model

resource = pytest.importorskip("resource", reason="peak memory of a process is read the Unix way")

CODE = """
import resource, sys
from pancrafter_cli import sharpen
sharpen(sys.argv[1] + "/pan.tif", sys.argv[1] + "/ms.tif", sys.argv[1] + "/out.tif", model=sys.argv[2], tile=256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(folder: Path, size: int, model: Path) -> int:
    """Peak resident memory, in the system's unit, of sharpening a compressed scene of size x size PAN pixels."""
    folder.mkdir()
    block = np.random.default_rng(0).integers(100, 900, (4, 256, 256), dtype=np.uint16)
    for name, bands, step in (("pan", 1, 1), ("ms", 4, 4)):
        profile = {
            "driver": "GTiff",
            "count": bands,
            "height": size // step,
            "width": size // step,
            "dtype": "uint16",
            "crs": "EPSG:32631",
            "transform": Affine(step, 0, 500_000, 0, -step, 5_400_000),
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
            "compress": "deflate",
        }
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(np.tile(block[:bands], (1, size // step // 256, size // step // 256)))
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder), str(model)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    model = random_model(tmp_path)
    small = peak_memory(tmp_path / "small", 1024, model)
    large = peak_memory(tmp_path / "large", 3072, model)
    assert large < 1.1 * small
