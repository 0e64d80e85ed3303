"""PAN and MS that RPCs place: where the ground ends up in the product."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer
from rasterio.vrt import WarpedVRT

from pancrafter_cli import sharpen
from pancrafter_cli.errors import GeometryError, RasterError, UsageError
from pancrafter_cli.raster import SceneOptions, open_scene
from pancrafter_cli.raster.ortho import _local_crs
from pancrafter_cli.raster.vendor import rpc_model
from tests.rpc_scene import EAST, HEIGHT, NORTH, PIXEL, UTM, Camera, brightness, sloped, write_dem, write_rpc_scene
from tests.scene_factory import FileFacts, smooth_image, write_tif

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def flat_scene(tmp_path_factory):
    return write_rpc_scene(tmp_path_factory.mktemp("flat"))


@pytest.fixture(scope="module")
def sloped_scene(tmp_path_factory):
    return write_rpc_scene(tmp_path_factory.mktemp("sloped"), sloped)


def changed(rpcs: RPC, **values) -> RPC:
    return RPC(**(attrs.asdict(rpcs) | values))


def rpc_model_of(path):
    with rasterio.open(path) as file:
        return rpc_model(file)


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


def test_our_rpcs_are_those_of_gdal(flat_scene):
    pan, _ = flat_scene
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
def test_the_ground_lies_where_it_is(tmp_path, flat_scene, method):
    pan, ms = flat_scene
    result = sharpen(pan, ms, tmp_path / "out.tif", method=method)
    off = shifts(tmp_path / "out.tif")
    assert np.abs(off).max() < 0.1, off
    assert np.abs(blob(tmp_path / "out.tif") - [EAST, NORTH]).max() < 0.1 * PIXEL
    assert result.ratio == 4
    assert "at the height of 520 m that the RPCs name" in result.warnings[0]


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_relief_is_taken_from_the_dem(tmp_path, sloped_scene, crs):
    pan, ms = sloped_scene
    dem = write_dem(tmp_path / "dem.tif")
    if crs != UTM:
        with rasterio.open(dem) as file, WarpedVRT(file, crs=crs, resampling=Resampling.bilinear) as turned:
            dem = write_tif(tmp_path / "turned.tif", turned.read(), FileFacts(turned.transform, crs, nodata=0))
    result = sharpen(pan, ms, tmp_path / "out.tif", method="brovey", dem=dem)
    off = shifts(tmp_path / "out.tif")
    assert np.abs(off).max() < 0.2, off
    assert f"with the heights of {dem.name}" in result.warnings[0]
    with rasterio.open(tmp_path / "out.tif") as file:
        assert dem.name in file.tags()["PANCRAFTER_INPUTS"]
        assert dem.name in file.tags()["PANCRAFTER_NOTICES"]


def test_without_the_dem_relief_moves_the_ground(tmp_path, sloped_scene):
    pan, ms = sloped_scene
    sharpen(pan, ms, tmp_path / "out.tif", method="exp")
    moved = blob(tmp_path / "out.tif") - [EAST, NORTH]
    rise = sloped(np.array(EAST), np.array(NORTH)) - HEIGHT
    assert moved == pytest.approx(-rise * np.array(Camera().tilt), abs=PIXEL)


def test_windows_are_parts_of_the_whole(tmp_path, sloped_scene):
    pan, ms = sloped_scene
    with open_scene(pan, [ms], SceneOptions(dem=write_dem(tmp_path / "dem.tif"))) as scene:
        whole, known = scene.read_pan(0, 0, *scene.grid.shape)
        part, also = scene.read_pan(101, 57, 83, 211)
        assert np.array_equal(also, known[:, 101:184, 57:268])
        assert np.array_equal(part, whole[:, 101:184, 57:268])
        assert not scene.valid(0, 0, 4, 4).any()  # outside of what the camera saw


def test_pixel_size_and_extent_follow_from_the_rpcs(flat_scene):
    pan, ms = flat_scene
    with open_scene(pan, [ms]) as scene:
        assert scene.grid.pixel_size == (PIXEL, PIXEL)
        assert scene.ms_grid.pixel_size == (4 * PIXEL, 4 * PIXEL)
        assert scene.grid.transform.c % (4 * PIXEL) == scene.grid.transform.f % (4 * PIXEL) == 0
        # The camera's frame, turned by 12 degrees, is touched on all sides and not far exceeded.
        valid = scene.read_pan(0, 0, *scene.grid.shape)[1][0]
        rows, cols = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
        assert rows[0] < 8
        assert cols[0] < 8
        assert valid.shape[0] - rows[-1] < 9
        assert valid.shape[1] - cols[-1] < 9


def test_a_dem_that_does_not_reach_is_refused(tmp_path, sloped_scene):
    pan, ms = sloped_scene
    with pytest.raises(GeometryError, match=r"small\.tif: the DEM does not cover PAN, which lies at longitude 11\.5"):
        open_scene(pan, [ms], SceneOptions(dem=write_dem(tmp_path / "small.tif", half=60)))
    void = write_tif(
        tmp_path / "void.tif",
        np.full((1, 100, 100), -9999, "float32"),
        FileFacts(Affine(5, 0, EAST - 250, 0, -5, NORTH + 250), UTM, nodata=-9999),
    )
    with pytest.raises(GeometryError, match=r"void\.tif: the DEM has no heights where PAN lies"):
        open_scene(pan, [ms], SceneOptions(dem=void))


def test_voids_of_the_dem_become_nodata_and_are_told(tmp_path, sloped_scene):
    pan, ms = sloped_scene
    dem = write_dem(tmp_path / "dem.tif")
    with rasterio.open(dem, "r+") as file:
        heights = file.read()
        heights[:, 50:60, 50:60] = -9999
        file.nodata = -9999
        file.write(heights)
    with open_scene(pan, [ms], SceneOptions(dem=dem)) as scene:
        assert "has no heights in" in scene.notices[1]
        col, row = ~scene.grid.transform @ (EAST + 25, NORTH - 25)
        assert not scene.valid(int(row), int(col), 4, 4).any()
        assert scene.valid(int(row) - 80, int(col) - 80, 4, 4).all()


def test_dems_that_are_none(tmp_path, flat_scene):
    pan, ms = flat_scene
    with pytest.raises(RasterError, match="no such file"):
        open_scene(pan, [ms], SceneOptions(dem=tmp_path / "gone.tif"))
    (tmp_path / "text.tif").write_text("heights")
    with pytest.raises(RasterError, match="is not a raster"):
        open_scene(pan, [ms], SceneOptions(dem=tmp_path / "text.tif"))
    with pytest.raises(RasterError, match="4 bands; expected a DEM"):
        open_scene(pan, [ms], SceneOptions(dem=ms))
    with pytest.raises(GeometryError, match="the DEM does not say where it lies"):
        open_scene(pan, [ms], SceneOptions(dem=pan))
    with pytest.raises(UsageError, match="exclude each other"):
        open_scene(pan, [ms], SceneOptions(ratio=4, dem=write_dem(tmp_path / "dem.tif")))


def test_a_dem_needs_rpcs_on_both_sides(tmp_path, flat_scene):
    pan, ms = flat_scene
    plain = write_tif(tmp_path / "plain.tif", smooth_image(4, 96, 112).astype("uint16"))
    with pytest.raises(GeometryError, match=r"plain\.tif has no RPCs"):
        open_scene(pan, [plain], SceneOptions(dem=write_dem(tmp_path / "dem.tif")))
    unplaced = write_tif(tmp_path / "unplaced.tif", smooth_image(4, 96, 112).astype("uint16"), FileFacts(None))
    with pytest.raises(GeometryError, match=r"pan\.tif: RPCs tell .* and .*unplaced\.tif has no RPCs") as caught:
        open_scene(pan, [unplaced])
    assert "gdalwarp -rpc -to RPC_DEM=DEM.tif -t_srs EPSG:32632" in caught.value.hint
    assert ms.exists()


def test_a_dem_sets_the_transform_aside(tmp_path, sloped_scene):
    """Ortho-ready products come with a transform for flat ground, and RPCs."""
    pan, ms = (Path(shutil.copy(path, tmp_path)) for path in sloped_scene)
    for path, pixel in ((pan, PIXEL), (ms, 4 * PIXEL)):
        with rasterio.open(path, "r+") as file:
            rpcs = file.rpcs
            file.transform, file.crs = Affine(pixel, 0, EAST - 112, 0, -pixel, NORTH + 96), UTM
            file.rpcs = rpcs
    with open_scene(pan, [ms]) as scene:
        assert not scene.warped
    sharpen(pan, ms, tmp_path / "out.tif", method="brovey", dem=write_dem(tmp_path / "dem.tif"))
    assert np.abs(shifts(tmp_path / "out.tif")).max() < 0.2


@pytest.mark.parametrize("transform", [True, False])
def test_a_part_of_pan_as_it_is_keeps_its_rpcs(tmp_path, flat_scene, transform):
    """Products that were not orthorectified can be, later on."""
    pan, ms = (Path(shutil.copy(path, tmp_path)) for path in flat_scene)
    with rasterio.open(pan, "r+") as file:
        rpcs = changed(file.rpcs, err_bias=0.5, err_rand=0.25)
        if transform:
            file.transform, file.crs = Affine(PIXEL, 0, EAST - 112, 0, -PIXEL, NORTH + 96), UTM
        file.rpcs = rpcs
    top, left = 8, 5  # MS pixels that MS lacks
    with rasterio.open(ms) as file:
        part = file.read()[:, top:, left:]
    place = Affine(4 * PIXEL, 0, EAST - 112 + left * 4 * PIXEL, 0, -4 * PIXEL, NORTH + 96 - top * 4 * PIXEL)
    ms = write_tif(tmp_path / "part.tif", part, FileFacts(place if transform else None, UTM))
    told = {} if transform else {"ratio": 4.0, "ms_origin": (4 * left, 4 * top)}
    layer = tmp_path / "confidence.tif"
    options = {"method": "exp", "registration": "off", "confidence": layer, "score": True}
    result = sharpen(pan, ms, tmp_path / "out.tif", **options, **told)
    assert result.scores
    assert not [text for text in result.warnings if "scored" in text]
    x, y = np.array([0.0, 300, 700]), np.array([0.0, 500, 200])
    model = rpc_model_of(pan)
    for path in (tmp_path / "out.tif", layer):
        own = rpc_model_of(path)
        ground, of_pan = own.to_ground(x, y, HEIGHT), model.to_ground(x + 4 * left, y + 4 * top, HEIGHT)
        assert np.abs(np.array(ground) - of_pan).max() < 1e-9
        assert (own.bias_error, own.random_error) == (0.5, 0.25)
    assert sorted(path.name for path in tmp_path.glob("*.tif*")) == [
        *("confidence.tif", "ms.tif", "out.tif", "pan.tif", "part.tif"),
    ]


@pytest.mark.parametrize("number", [2, 3])
def test_a_part_of_pan_as_it_is_keeps_its_ground_control_points(tmp_path, number):
    """Those that can place it: with fewer, where it lies in PAN is worth more."""
    place = FileFacts(None)
    pan = write_tif(tmp_path / "pan.tif", smooth_image(1, 64, 80).astype("uint16"), place)
    ms = write_tif(tmp_path / "ms.tif", smooth_image(2, 14, 17).astype("uint16"), place)
    points = [(0.0, 0.0, 11.0, 48.1, 500.0), (0.5, 80.0, 11.01, 48.1, 510.0), (64.0, 40.0, 11.005, 48.09, 0.0)][:number]
    with rasterio.open(pan, "r+") as file:
        file.gcps = [GroundControlPoint(*point) for point in points], rasterio.crs.CRS.from_epsg(4326)
    sharpen(pan, ms, tmp_path / "out.tif", method="exp", registration="off", ratio=4.0, ms_origin=(12, 8))
    with rasterio.open(tmp_path / "out.tif") as file:
        kept, crs = file.gcps
        if number < 3:
            assert not kept
            assert file.transform == Affine.translation(12, 8)
            return
        assert [(p.row + 8, p.col + 12, p.x, p.y, p.z) for p in kept] == points
        assert crs.to_epsg() == 4326
        assert file.shape == (56, 68)
        assert file.transform == Affine.identity()
    assert not list(tmp_path.glob("*.xml"))


def test_an_orthorectified_product_has_no_rpcs(tmp_path, flat_scene):
    pan, ms = flat_scene
    sharpen(pan, ms, tmp_path / "out.tif", method="exp", registration="off")
    assert rpc_model_of(tmp_path / "out.tif") is None


def test_damaged_rpcs_are_one_error(tmp_path, flat_scene):
    pan, ms = (Path(shutil.copy(path, tmp_path)) for path in flat_scene)
    for change in ({"samp_num_coeff": [0.0] * 20}, {"line_den_coeff": [0.0] * 20}, {"lat_scale": 80.0}):
        with rasterio.open(pan, "r+") as file:
            file.rpcs = changed(Camera().rpcs(), **change)
        with pytest.raises(GeometryError, match=r"RPCs|orthorectif"):
            open_scene(pan, [ms])


def test_band_files_must_share_their_rpcs(tmp_path, flat_scene):
    pan, ms = flat_scene
    with rasterio.open(ms) as file:
        bands, rpcs = file.read(), file.rpcs
    paths = [write_tif(tmp_path / f"b{i}.tif", bands[i : i + 1], FileFacts(None)) for i in range(2)]
    for path in paths:
        with rasterio.open(path, "r+") as file:
            file.rpcs = rpcs
    with open_scene(pan, paths) as scene:
        assert scene.bands == 2
    with rasterio.open(paths[1], "r+") as file:
        file.rpcs = changed(rpcs, line_off=rpcs.line_off + 3)
    with pytest.raises(GeometryError, match=r"b1\.tif: its RPCs are not those of"):
        open_scene(pan, paths)


@pytest.mark.parametrize(
    ("lon", "lat", "code"), [(11.6, 48.1, 32632), (180.4, -17, 32701), (-70, -55, 32719), (20, 86, 3413)]
)
def test_the_local_crs(lon, lat, code):
    assert CRS.from_wkt(_local_crs(lon, lat)).to_epsg() == code
