"""PAN that is displaced against MS from place to place, and moved back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli import sharpen
from pancrafter_cli.raster.displacement import Displacement, measure_displacement
from pancrafter_cli.raster.scene import open_scene
from tests.pairs import write_pair

SIZE, RATIO = 512, 4
Image = NDArray[np.float64]


def displace(pan: Path, amount: float) -> Image:
    """Move the content of PAN by up to so many MS pixels, smoothly; returns by how many, down and right (2, H, W)."""
    rows, cols = np.mgrid[:SIZE, :SIZE].astype(float)
    off = amount * np.stack([np.sin(2 * np.pi * cols / 400), np.cos(2 * np.pi * (rows + cols) / 500)])
    with rasterio.open(pan, "r+") as file:
        image = file.read(1).astype(float)
        moved = ndimage.map_coordinates(image, np.stack([rows, cols]) - RATIO * off, order=3, mode="nearest")
        file.write(np.rint(moved).clip(1, None).astype(np.uint16), 1)
    return off


def rmse(path: Path, truth: Image) -> float:
    with rasterio.open(path) as file:
        return float(np.sqrt(((file.read() - truth)[:, 16:-16, 16:-16] ** 2).mean()))


def test_the_displacement_is_found(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    off = displace(tmp_path / "pan.tif", 0.7)
    with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        found = measure_displacement(scene).at(scene.ms_map, (0, SIZE), (0, SIZE)) / RATIO
    # MS lies to the other side of PAN.
    assert np.median(np.abs(found + off)) < 0.08
    assert np.percentile(np.abs(found + off)[:, 32:-32, 32:-32], 95) < 0.25


@pytest.mark.parametrize("method", ["network", "mtf-glp-fs"])
def test_the_product_is_nearer_to_the_truth(tmp_path: Path, method: str) -> None:
    truth = write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif"
    options = {"method": method, "registration": "off", "overwrite": True}
    sharpen(*files, **options)
    best = rmse(files[2], truth)
    displace(files[0], 0.5)
    assert sharpen(*files, **options).displacement is None
    plain = rmse(files[2], truth)
    median, greatest = sharpen(*files, local_registration=True, **options).displacement or (0.0, 0.0)
    assert 0.2 < median < greatest < 0.9
    with rasterio.open(files[2]) as file:
        said = [float(part) for part in file.tags()["PANCRAFTER_DISPLACEMENT"].split(",")]
    assert said == pytest.approx([median, greatest], abs=0.005)
    assert rmse(files[2], truth) - best < 0.5 * (plain - best)


def test_what_lies_right_stays(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        assert measure_displacement(scene).greatest < 0.1


def test_where_nothing_matches_nothing_moves(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    with rasterio.open(tmp_path / "pan.tif", "r+") as file:
        file.write(np.random.default_rng(0).integers(300, 700, (1, SIZE, SIZE)).astype(np.uint16))
    with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        assert measure_displacement(scene).median < 0.02


def test_nodata_stays_where_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    displace(tmp_path / "pan.tif", 0.5)
    with rasterio.open(tmp_path / "pan.tif", "r+") as file:
        image = file.read()
        image[:, 100:180, 200:280] = 0
        file.write(image)
        file.nodata = 0
    sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif", method="brovey", local_registration=True)
    with rasterio.open(tmp_path / "o.tif") as file:
        hole = file.read_masks(1) == 0
    assert hole[100:180, 200:280].all()
    assert hole.sum() == 80 * 80


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(row=st.integers(0, SIZE - 40), col=st.integers(0, SIZE - 40), size=st.integers(1, 40))
def test_windows_are_parts_of_the_whole(tmp_path: Path, row: int, col: int, size: int) -> None:
    if not (tmp_path / "pan.tif").exists():
        write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=2)
        with rasterio.open(tmp_path / "pan.tif", "r+") as file:
            image = file.read()
            image[:, 50:90, 300:] = 0
            file.write(image)
            file.nodata = 0
    shifts = np.random.default_rng(1).uniform(-1.4, 1.4, (16, 16, 2))
    with open_scene(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        moved = scene.with_displacement(Displacement(shifts, (8.0, 8.0)))
        whole, valid = moved.read_pan(0, 0, SIZE, SIZE)
        part, known = moved.read_pan(row, col, size, size)
    assert np.array_equal(known, valid[:, row : row + size, col : col + size])
    np.testing.assert_allclose(part, whole[:, row : row + size, col : col + size], atol=0.05)
