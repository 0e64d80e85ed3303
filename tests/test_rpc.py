"""PAN and MS that RPCs place: where the ground ends up in the product."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.transform import RPCTransformer

from pancrafter_cli import sharpen
from pancrafter_cli.errors import GeometryError, RasterError, UsageError
from pancrafter_cli.raster import SceneOptions, open_scene
from pancrafter_cli.raster.vendor import rpc_model
from tests.rpc_scene import EAST, HEIGHT, NORTH, PIXEL, UTM, Camera, brightness, sloped, write_dem, write_rpc_scene
from tests.scene_factory import FileFacts, write_tif

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def shifts(product) -> np.ndarray:
    """How far (x, y, PAN pixels) the first band lies from the ground's truth in 2 x 2 parts and on the whole (5, 2)."""
    with rasterio.open(product) as file:
        image, valid, t = file.read(1).astype(float), file.read_masks(1) > 0, file.transform
        assert file.crs.to_string() == UTM
        x, y = np.meshgrid(np.arange(file.width) + 0.5, np.arange(file.height) + 0.5)
    assert valid.mean() > 0.6
    truth = brightness(t.c + t.a * x, t.f + t.e * y)
    down, across = np.gradient(truth)
    inner = valid.copy()
    inner[[0, -1]], inner[:, [0, -1]] = False, False
    rows, cols = np.array(image.shape) // 2
    parts = [np.s_[:rows, :cols], np.s_[:rows, cols:], np.s_[rows:, :cols], np.s_[rows:, cols:], np.s_[:, :]]
    found = []
    for part in parts:
        use = inner[part]
        design = np.stack([truth[part][use], np.ones(use.sum()), -across[part][use], -down[part][use]], axis=1)
        gain, _, dx, dy = np.linalg.lstsq(design, image[part][use], rcond=None)[0]
        found.append((dx / gain, dy / gain))
    return np.array(found)


def blob(product) -> np.ndarray:
    """East and north of the brightest place."""
    with rasterio.open(product) as file:
        image = file.read(1).astype(float)
        row, col = np.unravel_index(image.argmax(), image.shape)
        window = image[row - 8 : row + 9, col - 8 : col + 9]
        window = np.maximum(window - window.mean(), 0)
        y, x = np.mgrid[row - 8 : row + 9, col - 8 : col + 9] + 0.5
        return np.array(file.transform @ ((x * window).sum() / window.sum(), (y * window).sum() / window.sum()))


def test_our_rpcs_are_those_of_gdal(tmp_path):
    pan, _ = write_rpc_scene(tmp_path)
    rng = np.random.default_rng(0)
    lon, lat, height = (rng.uniform(low, high, 100) for low, high in ((11.57, 11.58), (48.12, 48.13), (200, 900)))
    with rasterio.open(pan) as file, RPCTransformer(file.rpcs) as transformer:
        rows, cols = transformer.rowcol(lon, lat, zs=height, op=np.asarray)
        model = rpc_model(file)
    x, y = model.to_image(lon, lat, height)
    assert np.abs(x - cols).max() < 1e-6
    assert np.abs(y - rows).max() < 1e-6
    back = model.to_ground(x, y, height)
    assert np.abs(np.stack(back) - [lon, lat]).max() < 1e-9  # 0.1 mm
    assert model.to_image(lon + 360, lat, height)[0] == pytest.approx(x, abs=1e-6)


@pytest.mark.parametrize("method", ["exp", "brovey"])
def test_the_ground_lies_where_it_is(tmp_path, method):
    pan, ms = write_rpc_scene(tmp_path)
    result = sharpen(pan, ms, tmp_path / "out.tif", method=method)
    off = shifts(tmp_path / "out.tif")
    assert np.abs(off).max() < 0.1, off
    assert np.abs(blob(tmp_path / "out.tif") - [EAST, NORTH]).max() < 0.1 * PIXEL
    assert result.ratio == 4
    assert "at the height of 520 m that the RPCs name" in result.warnings[0]


def test_relief_is_taken_from_the_dem(tmp_path):
    pan, ms = write_rpc_scene(tmp_path, sloped)
    for name, crs in (("utm.tif", UTM), ("degrees.tif", "EPSG:4326")):
        dem = write_dem(tmp_path / "utm.tif")
        if crs != UTM:
            rasterio.warp.reproject
        result = sharpen(pan, ms, tmp_path / "out.tif", method="brovey", dem=dem, overwrite=True)
        assert np.abs(shifts(tmp_path / "out.tif")).max() < 0.2
    assert "with the heights of utm.tif" in result.warnings[0]
    sharpen(pan, ms, tmp_path / "out.tif", method="brovey", overwrite=True)
    assert np.abs(blob(tmp_path / "out.tif") - [EAST, NORTH]).max() > 10 * PIXEL  # the DEM is what makes it right
