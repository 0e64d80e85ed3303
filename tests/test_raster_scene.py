from __future__ import annotations

import re
import threading
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from pyproj.transformer import TransformerGroup

from pancrafter_cli.errors import GeometryError, RasterError, UsageError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster import SceneOptions, open_scene
from pancrafter_cli.raster.crs import same_crs
from pancrafter_cli.raster.scene import nearest_pixels
from pancrafter_cli.raster.warp import sample_cubic
from pancrafter_cli.raster.windows import all_windows, spread_windows
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from tests.scene_factory import PAN_TRANSFORM, FileFacts, ms_transform, smooth_image, write_pair, write_tif

NO_PLACE = FileFacts(transform=None)


def ms_facts(**changes) -> FileFacts:
    return replace(FileFacts(transform=ms_transform(4)), **changes)


# --- reading a plain pair


def test_a_plain_pair_is_read_as_written(tmp_path):
    pair = write_pair(tmp_path)
    with open_scene(pair.pan, [pair.ms]) as scene:
        assert scene.grid.shape == (32, 40)
        assert scene.grid.transform.almost_equals(PAN_TRANSFORM)
        assert scene.ratio == pytest.approx(4)
        assert (scene.bands, scene.dtype, scene.nodata, scene.needs_mask) == (3, "uint16", None, False)
        pan, pan_valid = scene.read_pan(3, 5, 7, 9)
        ms, ms_valid = scene.read_ms(1, 2, 4, 5)
        assert np.array_equal(pan, pair.pan_image[:, 3:10, 5:14])
        assert np.array_equal(ms, pair.ms_image[:, 1:5, 2:7])
        assert pan.dtype == ms.dtype == np.float32
        assert pan_valid.all()
        assert ms_valid.all()
        assert set(scene.files) == {pair.pan, pair.ms}


@pytest.mark.parametrize("window", [(-1, 0, 4, 4), (0, 0, 33, 4), (0, 38, 2, 4), (0, 0, 0, 3)])
def test_a_window_outside_is_a_bug_of_the_caller(tmp_path, window):
    pair = write_pair(tmp_path)
    with open_scene(pair.pan, [pair.ms]) as scene, pytest.raises(ValueError, match="does not lie inside"):
        scene.read_pan(*window)


def test_threads_may_read_one_scene(tmp_path):
    pair = write_pair(tmp_path, size=(64, 64))
    failures = []
    with open_scene(pair.pan, [pair.ms]) as scene:

        def read() -> None:
            for row in range(60):
                if not np.array_equal(scene.read_pan(row, 0, 4, 64)[0], pair.pan_image[:, row : row + 4]):
                    failures.append(row)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_every_supported_dtype(tmp_path, dtype):
    pan = write_tif(tmp_path / "p.tif", (smooth_image(1, 16, 16) / 8).astype(dtype))
    ms = write_tif(tmp_path / "m.tif", (smooth_image(2, 4, 4) / 8).astype(dtype), ms_facts())
    with open_scene(pan, [ms]) as scene:
        assert scene.dtype == dtype
        assert scene.output.dtype == dtype


# --- overlap and geometry


@pytest.mark.parametrize("shift", [(0, 0), (6, -3), (-5.5, 9.25), (2, 2)])
def test_output_is_the_pan_pixels_whose_centre_lies_in_ms(tmp_path, shift):
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    ms = write_tif(
        tmp_path / "m.tif", smooth_image(2, 8, 10).astype("uint16"), ms_facts(transform=ms_transform(4, shift))
    )
    x, y = np.arange(40) + 0.5, np.arange(32) + 0.5
    columns = np.flatnonzero((x >= shift[0]) & (x <= shift[0] + 40))
    rows = np.flatnonzero((y >= shift[1]) & (y <= shift[1] + 32))
    with open_scene(pan, [ms]) as scene:
        assert scene.grid.shape == (len(rows), len(columns))
        assert scene.grid.transform.almost_equals(
            PAN_TRANSFORM @ Affine.translation(columns[0], rows[0]), precision=1e-6
        )
        # The map leads from a pixel of the output to where the same place lies in MS.
        assert scene.ms_map.cols.centres(3, 4)[0] == pytest.approx((columns[3] + 0.5 - shift[0]) / 4)
        assert scene.ms_map.rows.centres(3, 4)[0] == pytest.approx((rows[3] + 0.5 - shift[1]) / 4)


def test_south_up_files_are_taken_as_they_are(tmp_path):
    south_up = Affine(0.5, 0, 500_000, 0, 0.5, 5_700_000 - 16)
    image = smooth_image(1, 32, 40).astype("uint16")
    pan = write_tif(tmp_path / "p.tif", image[:, ::-1], FileFacts(transform=south_up))
    ms = write_tif(tmp_path / "m.tif", smooth_image(2, 8, 10).astype("uint16"), ms_facts())
    with open_scene(pan, [ms]) as scene:
        assert scene.ms_map.rows.scale == pytest.approx(-0.25)
        assert scene.grid.transform.e > 0
        assert scene.ms_window_under(0, 0, 4, 4) == (7, 0, 1, 1)
        assert scene.window_over(7, 0, 1, 1) == (0, 0, 4, 4)
        assert scene.statistics.valid_fraction == 1.0


def test_pixels_need_not_be_square(tmp_path):
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 24, 24).astype("uint16"), FileFacts(Affine(1, 0, 0, 0, -2, 0)))
    ms = write_tif(tmp_path / "m.tif", smooth_image(1, 12, 8).astype("uint16"), FileFacts(Affine(3, 0, 0, 0, -4, 0)))
    with open_scene(pan, [ms]) as scene:
        assert scene.grid.shape == (24, 24)
        assert scene.ms_map.rows.scale == pytest.approx(1 / 2)
        assert scene.ms_map.cols.scale == pytest.approx(1 / 3)


@settings(max_examples=50)
@given(
    scale=st.sampled_from([0.25, 0.5, 1 / 4.015, -0.25]), offset=st.sampled_from([0.0, 0.25, -0.25, 0.373]),
    size=st.integers(5, 60),
)  # fmt: skip
def test_nearest_pixels_hold_the_centres(scale, offset, size):
    start = offset if scale > 0 else 20 + offset
    axis = AxisMap(scale, start, size, 20)
    nearest = nearest_pixels(axis)
    for k in range(size):
        if 0 < axis.centres(k, k + 1)[0] < 20:
            assert nearest[k] <= axis.centres(k, k + 1)[0] + 1e-6
            assert axis.centres(k, k + 1)[0] <= nearest[k] + 1 + 1e-6


# --- validity


def dotted(shape: tuple[int, ...], *pixels: tuple[int, ...]) -> np.ndarray:
    """True everywhere but at these pixels."""
    valid = np.ones(shape, bool)
    for pixel in pixels:
        valid[pixel] = False
    return valid


def grown(valid: np.ndarray, ratio: int = 4) -> np.ndarray:
    return valid.repeat(ratio, axis=-2).repeat(ratio, axis=-1)


def test_nodata_counts_for_each_band_and_reads_as_zero(tmp_path):
    image = smooth_image(2, 8, 10).astype("uint16")
    image[0, 2, 3] = image[1, 5, 5] = 7
    pan_image = smooth_image(1, 32, 40).astype("uint16")
    pan_image[0, 30, 39] = 99
    pan = write_tif(tmp_path / "p.tif", pan_image, FileFacts(nodata=99))
    ms = write_tif(tmp_path / "m.tif", image, ms_facts(nodata=7))
    with open_scene(pan, [ms]) as scene:
        data, valid = scene.read_ms(0, 0, 8, 10)
        assert np.array_equal(valid, dotted((2, 8, 10), (0, 2, 3), (1, 5, 5)))
        assert data[0, 2, 3] == data[1, 5, 5] == 0
        expected = grown(valid) & dotted((1, 32, 40), (0, 30, 39))
        assert np.array_equal(scene.valid(0, 0, 32, 40), expected)
        assert np.array_equal(scene.valid(5, 7, 20, 30), expected[:, 5:25, 7:37])
        assert (scene.nodata, scene.needs_mask) == (7, False)


def test_ms_nodata_holds_for_a_pan_that_declares_nothing(tmp_path):
    pan_image = np.full((1, 32, 40), 500, np.uint16)
    pan_image[0, :3] = 0
    ms_image = np.full((2, 8, 10), 300, np.uint16)
    pan = write_tif(tmp_path / "p.tif", pan_image)
    ms = write_tif(tmp_path / "m.tif", ms_image, ms_facts(nodata=0))
    with open_scene(pan, [ms]) as scene:
        assert not scene.valid(0, 0, 3, 40).any()
        assert scene.valid(3, 0, 29, 40).all()
    declared = write_tif(tmp_path / "p2.tif", pan_image, FileFacts(nodata=1))
    with open_scene(declared, [ms]) as scene:
        assert scene.valid(0, 0, 32, 40).all()  # PAN says itself what is nodata, and 0 is not


def test_an_internal_mask_counts_and_needs_a_mask_in_integers(tmp_path):
    mask = dotted((8, 10), (0, 0), (4, 4))
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    ms = write_tif(tmp_path / "m.tif", smooth_image(3, 8, 10).astype("uint16"), ms_facts(mask=mask))
    with open_scene(pan, [ms]) as scene:
        assert np.array_equal(scene.valid(0, 0, 32, 40), grown(np.stack([mask] * 3)))
        assert (scene.nodata, scene.needs_mask) == (None, True)


def test_a_mask_file_beside_pan_counts(tmp_path):
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    mask = dotted((32, 40), (9, 9))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(pan, "r+") as file:
        file.write_mask(mask)
    assert (tmp_path / "p.tif.msk").exists()
    ms = write_tif(tmp_path / "m.tif", smooth_image(1, 8, 10).astype("uint16"), ms_facts())
    with open_scene(pan, [ms]) as scene:
        assert np.array_equal(scene.valid(0, 0, 32, 40)[0], mask)
        assert scene.needs_mask


def test_a_true_alpha_band_is_a_mask_and_not_a_band(tmp_path):
    image = smooth_image(4, 8, 10).clip(0, 250).astype("uint8")
    image[3] = 255
    image[3, 2, 2] = 0
    facts = ms_facts(colours=["red", "green", "blue", "alpha"], options={"alpha": "YES"})
    ms = write_tif(tmp_path / "m.tif", image, facts)
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    with open_scene(pan, [ms]) as scene:
        assert scene.bands == 3
        assert np.array_equal(scene.valid(0, 0, 32, 40)[0], grown(dotted((8, 10), (2, 2))))
        assert scene.needs_mask


@pytest.mark.parametrize(
    ("dtype", "opaque", "bands"),
    [
        *(("float32", opaque, bands) for opaque, bands in ((255, 3), (1, 3), (200, 4))),
        *(("uint16", opaque, bands) for opaque, bands in ((255, 3), (1, 3), (65535, 3), (200, 4))),
        ("int16", 255, 3),
    ],
)
def test_alpha_is_opaque_at_the_usual_values_in_any_number_format(tmp_path, dtype, opaque, bands):
    """GDAL's warper writes 255 into the alpha of floats; other values are those of a band, which is told."""
    image = smooth_image(4, 8, 10).astype(dtype)
    image[3] = opaque
    image[3, 2, 2] = 0
    facts = ms_facts(colours=["red", "green", "blue", "alpha"], options={"alpha": "YES"})
    ms = write_tif(tmp_path / "m.tif", image, facts)
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    with open_scene(pan, [ms]) as scene:
        assert scene.bands == bands
        assert np.array_equal(scene.valid(0, 0, 32, 40)[0], grown(dotted((8, 10), (2, 2)))) == (bands == 3)
        told = "more than 0 and one value of full opacity (1, 255, 32767, 65535)"
        assert any(told in notice for notice in scene.notices) == (bands == 4)


def coloured(path, table):
    """A band of 8-bit numbers with a colour table."""
    size = (32, 40) if path.name.startswith("p") else (8, 10)
    facts = FileFacts() if path.name.startswith("p") else ms_facts()
    write_tif(path, (smooth_image(1, *size) / 4).astype("uint8"), facts)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, table)
    return path


RAINBOW = {k: (k, 255 - k, k // 2, 255) for k in range(256)}
INVERSE = {k: (255 - k, 255 - k, 255 - k, 255) for k in range(256)}


@pytest.mark.parametrize(("table", "kind"), [(RAINBOW, "rgb"), (INVERSE, "gray")])
def test_entries_of_a_colour_table_are_no_dn(tmp_path, table, kind):
    plain = write_pair(tmp_path, dtype="uint8")
    pan, ms = coloured(tmp_path / "p.tif", table), coloured(tmp_path / "m.tif", table)
    for pair, named in (((pan, plain.ms), "p"), ((plain.pan, ms), "m")):
        with pytest.raises(RasterError, match=rf"{named}\.tif: its pixels are entries of a colour table") as caught:
            open_scene(pair[0], [pair[1]])
        assert f"gdal_translate -expand {kind}" in caught.value.hint


def test_a_grey_ramp_shows_dn_as_they_are(tmp_path):
    ramp = {k: (k, k, k, 255) for k in range(256)}
    with open_scene(coloured(tmp_path / "p.tif", ramp), [coloured(tmp_path / "m.tif", ramp)]) as scene:
        assert scene.bands == 1


def test_masks_that_differ_from_band_to_band_become_a_value(tmp_path):
    """A GeoTIFF has one mask for all bands: what is invalid in one only would count as 0 DN."""
    files = []
    for k in range(2):
        mask = dotted((8, 10), (k, k))
        files.append(write_tif(tmp_path / f"m{k}.tif", smooth_image(1, 8, 10).astype("int16"), ms_facts(mask=mask)))
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("int16"))
    with open_scene(pan, files) as scene:
        assert (scene.nodata, scene.needs_mask) == (-32768.0, False)
    sharpen_scene(SharpenOptions(pan, tuple(files), tmp_path / "o.tif", method="exp", registration="off"))
    with rasterio.open(tmp_path / "o.tif") as product:
        for k in range(2):
            assert np.array_equal(product.read_masks(k + 1) > 0, grown(dotted((8, 10), (k, k))))
    with open_scene(pan, files[:1]) as scene:
        assert (scene.nodata, scene.needs_mask) == (None, True)


def test_near_infrared_labelled_alpha_is_a_band(tmp_path):
    image = (smooth_image(4, 8, 10) / 5).astype("uint8")
    image[3, 1, 1] = 0  # dark in near infrared, not transparent
    facts = ms_facts(colours=["red", "green", "blue", "alpha"], options={"alpha": "YES"})
    ms = write_tif(tmp_path / "m.tif", image, facts)
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    with open_scene(pan, [ms]) as scene:
        assert scene.bands == 4
        data, valid = scene.read_ms(0, 0, 8, 10)
        assert np.array_equal(data, image)
        assert valid.all()
        assert [b.colorinterp for b in scene.output.bands] == ["red", "green", "blue", "undefined"]
        assert "m.tif: band 4 is labelled alpha" in scene.notices[0]


def test_an_alpha_band_of_pan_is_dropped(tmp_path):
    image = smooth_image(2, 32, 40).astype("uint8")
    image[1] = 255
    pan = write_tif(tmp_path / "p.tif", image, FileFacts(colours=["gray", "alpha"], options={"alpha": "YES"}))
    ms = write_tif(tmp_path / "m.tif", smooth_image(1, 8, 10).astype("uint8"), ms_facts())
    with open_scene(pan, [ms]) as scene:
        assert scene.read_pan(0, 0, 32, 40)[0].shape == (1, 32, 40)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_invalid(tmp_path, hole):
    image = smooth_image(2, 8, 10).astype("float32")
    image[1, 3, 3] = hole
    pan_image = smooth_image(1, 32, 40).astype("float32")
    pan_image[0, 1, 1] = hole
    pan = write_tif(tmp_path / "p.tif", pan_image)
    ms = write_tif(tmp_path / "m.tif", image, ms_facts())
    with open_scene(pan, [ms]) as scene:
        expected = grown(dotted((2, 8, 10), (1, 3, 3))) & dotted((1, 32, 40), (0, 1, 1))
        assert np.array_equal(scene.valid(0, 0, 32, 40), expected)
        assert np.isfinite(scene.read_ms(0, 0, 8, 10)[0]).all()
        assert np.isfinite(scene.statistics.gain).all()
        assert np.isnan(scene.nodata)


def test_nodata_that_float32_cannot_hold_exactly(tmp_path):
    image = smooth_image(1, 8, 10).astype("float64")
    image[0, 0, 0] = -1.7976931348623157e308
    ms = write_tif(tmp_path / "m.tif", image, ms_facts(nodata=-1.7976931348623157e308))
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("float64"))
    with open_scene(pan, [ms]) as scene:
        assert np.array_equal(scene.read_ms(0, 0, 8, 10)[1], dotted((1, 8, 10), (0, 0, 0)))


def nodata_case(tmp_path, dtype, pan_facts, facts, pan_dtype="uint16"):
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype(pan_dtype), pan_facts)
    ms = write_tif(tmp_path / "m.tif", (smooth_image(1, 8, 10) / 4).astype(dtype), facts)
    with open_scene(pan, [ms]) as scene:
        return scene.nodata, scene.needs_mask


def test_which_nodata_the_output_gets(tmp_path):
    assert nodata_case(tmp_path, "uint16", FileFacts(nodata=5), ms_facts(nodata=9)) == (9, False)
    assert nodata_case(tmp_path, "uint16", FileFacts(nodata=5), ms_facts()) == (5, False)
    assert nodata_case(tmp_path, "uint8", FileFacts(nodata=65535), ms_facts()) == (None, True)
    assert nodata_case(tmp_path, "uint16", FileFacts(), ms_facts()) == (None, False)
    assert nodata_case(tmp_path, "uint16", FileFacts(), ms_facts(), "float32") == (None, True)
    assert np.isnan(nodata_case(tmp_path, "float32", FileFacts(), ms_facts())[0])


# --- several MS files


def test_single_band_files_make_a_stack_in_order(tmp_path):
    pair = write_pair(tmp_path)
    images = [smooth_image(1, 8, 10, seed).astype("uint16") for seed in (5, 6)]
    facts = ms_facts(descriptions=["near infrared"])
    paths = [
        write_tif(tmp_path / "SCENE_B4.TIF", images[0], ms_facts()),
        pair.ms,
        write_tif(tmp_path / "SCENE_B5.TIF", images[1], facts),
    ]
    with open_scene(pair.pan, paths) as scene:
        assert scene.bands == 5
        data, _ = scene.read_ms(0, 0, 8, 10)
        assert np.array_equal(data, np.concatenate([images[0], pair.ms_image, images[1]]))
        names = [band.description for band in scene.output.bands]
        assert names == ["SCENE_B4", None, None, None, "near infrared"]


@pytest.mark.parametrize(
    ("size", "dtype", "facts", "said"),
    [
        ((8, 9), "uint16", ms_facts(), "9 x 8 pixels"),
        ((8, 10), "uint8", ms_facts(), "dtype is uint8"),
        ((8, 10), "uint16", ms_facts(crs="EPSG:32632"), "another CRS"),
        ((8, 10), "uint16", ms_facts(transform=ms_transform(4, (0.5, 0))), "transform"),
    ],
)
def test_a_file_that_differs_is_named(tmp_path, size, dtype, facts, said):
    pair = write_pair(tmp_path)
    other = write_tif(tmp_path / "odd.tif", smooth_image(1, *size).astype(dtype), facts)
    with pytest.raises(RasterError, match=r"odd\.tif.*" + said):
        open_scene(pair.pan, [pair.ms, other])


def test_band_facts_are_carried(tmp_path):
    facts = ms_facts(
        descriptions=["blue", "nir"], scales=[0.01, 0.02], offsets=[-1.0, 3.0], units=["W", "sr"],
        colours=["blue", "nir"],
    )  # fmt: skip
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    ms = write_tif(tmp_path / "m.tif", smooth_image(2, 8, 10).astype("uint16"), facts)
    with open_scene(pan, [ms]) as scene:
        first, second = scene.output.bands
    assert (first.description, first.colorinterp, first.scale, first.offset, first.unit) == (
        "blue", "blue", 0.01, -1.0, "W",
    )  # fmt: skip
    assert (second.description, second.colorinterp, second.scale, second.offset, second.unit) == (
        "nir", "nir", 0.02, 3.0, "sr",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "told", "expected"),
    [
        (("blue", "green", "red", "nir"), None, ("blue", "green", "red", "undefined")),
        (("coastal", "Blue", "GREEN", "Red"), None, ("undefined", "blue", "green", "red")),
        (("blue", "green", "red", "nir"), ("gray", "undefined", "red", "undefined"), None),
        (("blue", "green", "red edge", "nir"), None, None),
        (("blue", "green", "red", "red"), None, None),
    ],
)
def test_bands_named_as_colours_are_shown_in_them(tmp_path, names, told, expected):
    """Files of one band each all say gray, and vendors' metadata name bands only."""
    told = told or ("gray", "undefined", "undefined", "undefined")
    facts = ms_facts(descriptions=list(names), colours=list(told))
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"))
    ms = write_tif(tmp_path / "m.tif", smooth_image(4, 8, 10).astype("uint16"), facts)
    sharpen_scene(SharpenOptions(pan, (ms,), tmp_path / "o.tif", method="exp", registration="off"))
    with rasterio.open(tmp_path / "o.tif") as file:
        assert tuple(colour.name for colour in file.colorinterp) == (expected or told)
        assert file.descriptions == names


# --- CRS


def test_one_crs_in_two_wordings_is_the_same():
    wordings = [CRS.from_epsg(32631).to_wkt(v) for v in ("WKT1_ESRI", "WKT1_GDAL", "WKT2_2019")]
    assert len(set(wordings)) == 3
    for a in wordings:
        for b in wordings:
            assert same_crs(a, b)
        assert not same_crs(a, CRS.from_epsg(32632).to_wkt())
        assert not same_crs(a, None)
    assert same_crs(None, None)
    assert same_crs(CRS.from_epsg(4326).to_wkt(), CRS.from_user_input("OGC:CRS84").to_wkt())


def test_two_crs_of_one_place_are_not_warped(tmp_path):
    wording = "+proj=tmerc +lon_0=3 +k=0.9996 +x_0=500000 +ellps=WGS84 +towgs84=0,0,0 +units=m +no_defs"
    pair = write_pair(tmp_path, ms=ms_facts(crs=wording))
    with rasterio.open(pair.pan) as pan, rasterio.open(pair.ms) as ms:
        assert not same_crs(pan.crs.to_wkt(), ms.crs.to_wkt())
    with open_scene(pair.pan, [pair.ms]) as scene:
        assert not scene.warped


@pytest.mark.parametrize("lacking", ["pan", "ms"])
def test_one_side_without_crs_is_refused_by_name(tmp_path, lacking):
    pan_facts, facts = FileFacts(), ms_facts()
    (pan_facts if lacking == "pan" else facts).crs = None
    pair = write_pair(tmp_path, pan=pan_facts, ms=facts)
    with pytest.raises(GeometryError, match=rf"{lacking}\.tif has no CRS") as caught:
        open_scene(pair.pan, [pair.ms])
    assert "gdal_edit.py -a_srs" in caught.value.hint


def degrees(step, size, lon, lat):
    """Transform of `size` (height, width) pixels of `step` metres or so around a place."""
    pixel = step / 111_000
    return Affine(pixel, 0, lon - pixel * size[1] / 2, 0, -pixel, lat + pixel * size[0] / 2)


@pytest.mark.filterwarnings("ignore:Best transformation")
@pytest.mark.parametrize(
    ("pan", "ms", "lon", "lat", "step", "told"),
    [
        (
            "EPSG:4269",
            "EPSG:4267",
            -80,
            40,
            0.5,
            r"14 m only, 7\.0 MS pixels; PROJ lacks us_noaa_\w+\.tif(?: or \S+)*, with",
        ),
        ("EPSG:4269", "EPSG:4267", 10, 45, 0.5, "knows no way between their datums and takes them for one"),
        ("EPSG:4269", "EPSG:4267", -80, 40, 5, None),  # MS pixels of 20 m
        ("EPSG:4326", "EPSG:4258", 4, 51, 0.5, None),  # taken for the same in Europe
        ("EPSG:4326", "EPSG:4258", 4, 51, 0.1, None),
        ("EPSG:4326", "EPSG:9057", 4, 51, 0.1, None),  # a realisation of WGS 84
        ("EPSG:4979", "EPSG:4326", 4, 51, 0.1, None),
    ],
)
def test_datums_that_are_related_roughly_are_told(tmp_path, pan, ms, lon, lat, step, told):
    if told and TransformerGroup(ms, pan).best_available:
        pytest.skip("PROJ has its grids here")
    sizes = (64, 80), (60, 70)
    places = degrees(step, sizes[0], lon, lat), degrees(4 * step, sizes[1], lon, lat)
    pan_file, ms_file = (
        write_tif(tmp_path / f"{name}.tif", smooth_image(1, *size).astype("uint16"), FileFacts(place, crs))
        for name, size, place, crs in zip(("p", "m"), sizes, places, (pan, ms), strict=True)
    )
    with open_scene(pan_file, [ms_file]) as scene:
        if told is None:
            assert scene.notices == ()
        else:
            assert len(scene.notices) == 1
            assert re.fullmatch(rf"PAN is in {pan} \(.*\), MS in {ms} \(.*\): .* {told}.*", scene.notices[0])


@pytest.mark.parametrize("local", ["pan", "ms"])
def test_a_local_crs_has_to_be_replaced(tmp_path, local):
    """No warping helps: it says nothing of where on Earth it is."""
    site = 'LOCAL_CS["my site",UNIT["metre",1]]'
    crs = {"pan": "EPSG:32631", "ms": "EPSG:32631", local: site}
    pair = write_pair(tmp_path, pan=FileFacts(crs=crs["pan"]), ms=ms_facts(crs=crs["ms"]))
    with pytest.raises(GeometryError) as caught:
        open_scene(pair.pan, [pair.ms])
    assert caught.value.hint.startswith("my site lies nowhere on Earth: assign the CRS with gdal_edit.py -a_srs")


def test_both_without_crs_share_a_local_grid(tmp_path):
    pair = write_pair(tmp_path, pan=FileFacts(crs=None), ms=ms_facts(crs=None))
    with open_scene(pair.pan, [pair.ms]) as scene:
        assert scene.grid.crs_wkt is None
        assert scene.ratio == pytest.approx(4)


def place_function(x, y):
    """A smooth image as a function of UTM coordinates."""
    return 500 + 200 * np.sin((x - 500_000) / 90) + 150 * np.cos((y - 5_700_000) / 70)


def centres(transform, height, width):
    col, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    t = transform
    return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f


@pytest.mark.parametrize("angle", [3.0, 90.0, 200.0])
def test_a_rotated_ms_comes_out_where_it_belongs(tmp_path, angle):
    pan_transform = Affine(2, 0, 500_000, 0, -2, 5_700_000)
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 80, 80).astype("float32"), FileFacts(pan_transform))
    middle = Affine.translation(500_080, 5_699_920)
    ms_place = middle @ Affine.rotation(angle) @ Affine.scale(8, -8) @ Affine.translation(-20, -20)
    image = place_function(*centres(ms_place, 40, 40))[None].astype("float32")
    image[0, 20, 20] = -9999
    ms = write_tif(tmp_path / "m.tif", image, FileFacts(ms_place, nodata=-9999))
    with open_scene(pan, [ms]) as scene:
        assert scene.warped
        assert scene.grid.shape == (80, 80)
        assert scene.ratio == pytest.approx(4, rel=1e-6)
        grid = scene.ms_grid
        data, valid = scene.read_ms(0, 0, *grid.shape)
        truth = place_function(*centres(grid.transform, *grid.shape))
        assert 0 < (~valid).sum() < 5  # the one gap, not what a kernel around it reaches
        near = np.abs(data[0] - truth)[valid[0]]
        assert near.max() < 4
        assert np.median(near) < 0.2
        part, part_valid = scene.read_ms(3, 5, 7, 6)
        assert np.array_equal(part, data[:, 3:10, 5:11])
        assert np.array_equal(part_valid, valid[:, 3:10, 5:11])


def test_another_crs_is_warped_to_that_of_pan(tmp_path):
    pan_transform = Affine(2, 0, 500_000, 0, -2, 5_700_000)
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 80, 80).astype("uint16"), FileFacts(pan_transform))
    to_neighbour = Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True)
    x, y = to_neighbour.transform(500_080, 5_699_920)
    ms_place = Affine(8, 0, x - 8 * 20, 0, -8, y + 8 * 20)
    back = Transformer.from_crs("EPSG:32632", "EPSG:32631", always_xy=True)
    image = place_function(*back.transform(*centres(ms_place, 40, 40)))[None].astype("uint16")
    ms = write_tif(tmp_path / "m.tif", image, FileFacts(ms_place, "EPSG:32632"))
    with open_scene(pan, [ms]) as scene:
        assert scene.warped
        assert scene.needs_mask
        assert scene.grid.shape == (80, 80)
        assert scene.ratio == pytest.approx(4, rel=0.01)
        data, valid = scene.read_ms(0, 0, *scene.ms_grid.shape)
        truth = place_function(*centres(scene.ms_grid.transform, *scene.ms_grid.shape))
        assert valid.mean() > 0.9
        assert np.abs(data[0] - truth)[valid[0]].max() < 4


def test_cubic_sampling_keeps_to_valid_neighbours():
    image = np.full((1, 8, 8), 10, np.float32)
    valid = dotted((1, 8, 8), (0, 3, 3))
    image[~valid] = 0  # as readers give it
    y, x = np.meshgrid(np.linspace(2.1, 4.9, 15), np.linspace(2.1, 4.9, 15), indexing="ij")
    sampled, known = sample_cubic(image, valid, y, x)
    assert np.array_equal(known[0], (np.floor(y) != 3) | (np.floor(x) != 3))
    assert np.allclose(sampled[known], 10)


# --- no georeferencing


def test_sizes_tell_the_ratio_when_the_corners_can_be_common(tmp_path):
    pair = write_pair(tmp_path, size=(32, 40), pan=NO_PLACE, ms=NO_PLACE)
    with open_scene(pair.pan, [pair.ms]) as scene:
        assert scene.ratio == 4
        assert scene.grid.shape == (32, 40)
        assert scene.grid.crs_wkt is None
        assert scene.grid.transform == Affine.identity()


def test_a_crs_without_a_transform_places_nothing(tmp_path):
    """As of files cut out of others by tools that carry the one and not the other."""
    nowhere = FileFacts(transform=Affine.identity())
    pair = write_pair(tmp_path, size=(32, 40), pan=nowhere, ms=nowhere)
    with rasterio.open(pair.pan) as file:
        assert file.crs is not None
    with open_scene(pair.pan, [pair.ms]) as scene:
        assert (scene.ratio, scene.grid.shape) == (4, (32, 40))
        assert scene.grid.crs_wkt is not None
    with open_scene(pair.pan, [pair.ms], SceneOptions(ratio=4, ms_origin=(4, 0))) as scene:
        assert scene.grid.shape == (32, 36)
    with pytest.raises(GeometryError, match="where on Earth"):
        sharpen_scene(SharpenOptions(pair.pan, (pair.ms,), tmp_path / "o.tif", method="exp", stac=True))
    other = replace(nowhere, crs="EPSG:3857")
    elsewhere = write_tif(tmp_path / "m.tif", smooth_image(1, 8, 10).astype("uint16"), other)
    with pytest.raises(GeometryError, match="different CRSs"):
        open_scene(pair.pan, [elsewhere])
    with pytest.raises(GeometryError, match=r"not finer than MS|do not overlap|times as long"):
        open_scene(write_pair(tmp_path, pan=nowhere).pan, [pair.ms])


def test_a_size_that_was_rounded_still_has_the_whole_ratio(tmp_path):
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 31, 42).astype("uint16"), NO_PLACE)
    ms = write_tif(tmp_path / "m.tif", smooth_image(1, 8, 10).astype("uint16"), NO_PLACE)
    with open_scene(pan, [ms]) as scene:
        assert scene.ratio == 4
        assert scene.grid.shape == (31, 40)


def test_options_place_an_ungeoreferenced_ms(tmp_path):
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 30, 46).astype("uint16"), NO_PLACE)
    ms = write_tif(tmp_path / "m.tif", smooth_image(1, 28, 44).astype("uint16"), NO_PLACE)
    with pytest.raises(GeometryError, match="neither file") as caught:
        open_scene(pan, [ms])
    assert "--ratio" in caught.value.hint
    assert "--ms-origin" in caught.value.hint
    with open_scene(pan, [ms], SceneOptions(ratio=4, ms_origin=(6.5, -40))) as scene:
        assert scene.ms_map.cols.centres(0, 1)[0] == pytest.approx((6 + 0.5 - 6.5) / 4)  # columns 0 to 5 lie left of MS
        assert scene.ms_map.rows.centres(0, 1)[0] == pytest.approx((0.5 + 40) / 4)
        assert scene.grid.shape == (30, 40)


@pytest.mark.parametrize("ratio", [0.5, 1.0, float("nan"), float("inf"), -4])
def test_impossible_ratios_are_refused(tmp_path, ratio):
    pair = write_pair(tmp_path, pan=NO_PLACE, ms=NO_PLACE)
    with pytest.raises(UsageError, match="--ratio"):
        open_scene(pair.pan, [pair.ms], SceneOptions(ratio=ratio))


def test_options_for_georeferenced_files_are_refused(tmp_path):
    pair = write_pair(tmp_path)
    with pytest.raises(UsageError, match="without georeferencing"):
        open_scene(pair.pan, [pair.ms], SceneOptions(ratio=4))


def test_georeferencing_on_one_side_only_is_refused(tmp_path):
    pair = write_pair(tmp_path, pan=NO_PLACE)
    with pytest.raises(GeometryError, match=r"pan\.tif has no georeferencing"):
        open_scene(pair.pan, [pair.ms])


# --- files that cannot serve


def test_a_missing_file(tmp_path):
    pair = write_pair(tmp_path)
    with pytest.raises(RasterError, match=r"gone\.tif: no such file"):
        open_scene(tmp_path / "gone.tif", [pair.ms])


def test_no_ms_at_all(tmp_path):
    with pytest.raises(UsageError, match="no MS"):
        open_scene(write_pair(tmp_path).pan, [])


@pytest.mark.parametrize(("content", "said"), [(b"hello", "is not a raster"), (b"", "is empty")])
def test_not_a_raster(tmp_path, content, said):
    pair = write_pair(tmp_path)
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(RasterError, match=r"x\.tif: " + said):
        open_scene(pair.pan, [tmp_path / "x.tif"])


def test_pan_with_three_bands(tmp_path):
    pair = write_pair(tmp_path)
    with pytest.raises(RasterError, match=r"ms\.tif: has 3 bands") as caught:
        open_scene(pair.ms, [pair.pan])
    assert "PAN comes first" in caught.value.hint


def test_swapped_and_equal_files(tmp_path):
    pair = write_pair(tmp_path, bands=1)
    for pan, ms in ((pair.ms, pair.pan), (pair.pan, pair.pan)):
        with pytest.raises(GeometryError, match="not finer") as caught:
            open_scene(pan, [ms])
        assert "swapped" in caught.value.hint


@pytest.mark.parametrize("step", [(1, 6), (6, 1), (4, 1)])
def test_a_pan_that_is_coarser_one_way_is_refused(tmp_path, step):
    """On the mean of both axes it may be finer."""
    pan_place = PAN_TRANSFORM @ Affine.scale(*step)
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 32, 40).astype("uint16"), FileFacts(pan_place))
    ms = write_tif(tmp_path / "m.tif", smooth_image(2, 32, 40).astype("uint16"), ms_facts())
    with pytest.raises(GeometryError, match=r"PAN is not finer than MS: the pixel of .*p\.tif is"):
        open_scene(pan, [ms])


def test_no_overlap(tmp_path):
    pair = write_pair(tmp_path, ms=ms_facts(transform=ms_transform(4, (1000, 0))))
    with pytest.raises(GeometryError, match="do not overlap"):
        open_scene(pair.pan, [pair.ms])
    elsewhere = FileFacts(Affine(0.001, 0, 70, 0, -0.001, -30), "EPSG:4326")
    far = write_tif(tmp_path / "far.tif", smooth_image(1, 8, 10).astype("uint16"), elsewhere)
    with pytest.raises(GeometryError):
        open_scene(pair.pan, [far])


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int8"])
def test_other_dtypes_are_refused_with_a_remedy(tmp_path, dtype):
    pan = write_pair(tmp_path).pan
    ms = write_tif(tmp_path / "x.tif", np.ones((1, 8, 10), dtype), ms_facts())
    with pytest.raises(RasterError, match=dtype) as caught:
        open_scene(pan, [ms])
    assert "gdal_translate -ot" in caught.value.hint


def test_complex_numbers_are_refused(tmp_path):
    pan = write_pair(tmp_path).pan
    ms = write_tif(tmp_path / "x.tif", np.ones((1, 8, 10), "complex64"), ms_facts())
    with pytest.raises(RasterError, match="complex"):
        open_scene(pan, [ms])


def test_a_scene_without_a_valid_pixel_says_so(tmp_path):
    pair = write_pair(tmp_path)
    left, right = np.full((1, 8, 10), 5, np.uint16), np.full((1, 32, 40), 5, np.uint16)
    left[:, :, 5:], right[:, :, :20] = 0, 0
    ms = write_tif(tmp_path / "l.tif", left, ms_facts(nodata=0))
    pan = write_tif(tmp_path / "r.tif", right, FileFacts(nodata=0))
    with open_scene(pan, [ms]) as scene, pytest.raises(RasterError, match="no pixel is valid in both"):
        _ = scene.statistics
    assert pair.pan.exists()


def test_a_truncated_file_is_named_and_not_half_read(tmp_path):
    pair = write_pair(tmp_path, size=(256, 256))
    whole = pair.pan.read_bytes()
    pair.pan.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RasterError, match=r"pan\.tif: "), open_scene(pair.pan, [pair.ms]) as scene:
        scene.read_pan(0, 0, 256, 256)


def test_failing_to_open_closes_what_was_opened(tmp_path, monkeypatch):
    pair = write_pair(tmp_path)
    opened = []
    real = rasterio.open

    def remember(*args, **kwargs):
        opened.append(real(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(rasterio, "open", remember)
    with pytest.raises(RasterError):
        open_scene(pair.pan, [pair.ms, tmp_path / "gone.tif"])
    assert len(opened) == 2
    assert all(file.closed for file in opened)


@pytest.mark.filterwarnings("error")
def test_files_without_georeferencing_raise_no_warning(tmp_path):
    pair = write_pair(tmp_path, pan=NO_PLACE, ms=NO_PLACE)
    with open_scene(pair.pan, [pair.ms]) as scene:
        assert scene.statistics.valid_fraction == 1


# --- statistics


def matched_pair(tmp_path, gains, offsets, size=96, ratio=4):
    """MS that is exactly an affine function of PAN as the MS sensor would see it."""
    pan_image = smooth_image(1, size, size, 3).astype("float32")
    axis = AxisMap(ratio, 0.0, size // ratio, size)
    weights = degrade_weights(axis, 0, size // ratio, DEFAULT_MS_GAIN).matrix
    low = apply_weights(weights, weights, pan_image.astype(np.float64))
    ms_image = (np.array(gains)[:, None, None] * low + np.array(offsets)[:, None, None]).astype("float32")
    return pan_image, ms_image


def test_the_regression_is_found_and_nodata_does_not_disturb_it(tmp_path):
    pan_image, ms_image = matched_pair(tmp_path, [0.5, 2.0], [30.0, -100.0])
    clean = ms_image.copy()
    pan_image[0, :20, :20] = -9999
    ms_image[1, 20:, 20:] = -9999
    pan = write_tif(tmp_path / "p.tif", pan_image, FileFacts(nodata=-9999))
    ms = write_tif(tmp_path / "m.tif", ms_image, ms_facts(nodata=-9999))
    with open_scene(pan, [ms]) as scene:
        found = scene.statistics
        assert found is scene.statistics  # measured once
    assert found.gain == pytest.approx([0.5, 2.0], rel=1e-4)
    assert found.offset == pytest.approx([30.0, -100.0], abs=0.1)
    assert found.ms_mean == pytest.approx([clean[0].mean(), ms_image[1][ms_image[1] > -9999].mean()], rel=1e-5)
    valid = ms_image > -9999
    assert found.scale == pytest.approx(np.percentile(np.abs(ms_image[valid]), 99), rel=1e-5)
    assert found.valid_fraction == pytest.approx(1 - 400 / 96**2)


def test_a_constant_pan_has_gain_zero_and_the_mean(tmp_path):
    pair = write_pair(tmp_path)
    pan = write_tif(tmp_path / "flat.tif", np.full((1, 32, 40), 77, np.uint16))
    with open_scene(pan, [pair.ms]) as scene:
        found = scene.statistics
    assert (found.gain == 0).all()
    assert found.offset == pytest.approx(pair.ms_image.mean(axis=(1, 2)))
    assert found.pan_mean == pytest.approx(77)


def test_a_black_ms_has_scale_one(tmp_path):
    pan = write_pair(tmp_path).pan
    ms = write_tif(tmp_path / "black.tif", np.zeros((1, 8, 10), np.uint16), ms_facts())
    with open_scene(pan, [ms]) as scene:
        assert scene.statistics.scale == 1.0


def test_the_scene_is_searched_when_no_sampled_window_is_valid(tmp_path, monkeypatch):
    monkeypatch.setattr("pancrafter_cli.raster.statistics.WINDOW", 4)
    monkeypatch.setattr("pancrafter_cli.raster.statistics.MOST_WINDOWS", 4)
    image = np.zeros((1, 40, 40), np.uint16)
    image[0, 9:11, 29:31] = [[10, 20], [30, 40]]
    ms = write_tif(tmp_path / "m.tif", image, ms_facts(nodata=0))
    pan = write_tif(tmp_path / "p.tif", smooth_image(1, 160, 160).astype("uint16"))
    with open_scene(pan, [ms]) as scene:
        assert scene.statistics.ms_mean == pytest.approx([25.0])


@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 40), most=st.integers(1, 30))
def test_windows_lie_inside_and_are_no_more_than_allowed(height, width, size, most):
    chosen = spread_windows(height, width, size, most)
    assert 1 <= len(chosen) <= most
    assert len(set(chosen)) == len(chosen)
    for row, col, h, w in chosen:
        assert row >= 0
        assert col >= 0
        assert row + h <= height
        assert col + w <= width
        assert h >= 1
        assert w >= 1
    everything = list(all_windows(height, width, size))
    assert sum(h * w for _, _, h, w in everything) == height * width
    if len(everything) <= most:
        assert chosen == everything


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_valid_by_windows_equals_valid_of_the_whole(tmp_path, data):
    target = tmp_path / "p.tif"
    if not target.exists():
        rng = np.random.default_rng(0)
        image = (rng.random((2, 9, 11)) > 0.3).astype("uint16") * 50
        write_tif(target, (rng.random((1, 33, 41)) > 0.1).astype("uint16") * 70, FileFacts(nodata=0))
        write_tif(tmp_path / "m.tif", image, ms_facts(nodata=0, transform=ms_transform(3.7, (-1.3, 2.2))))
    with open_scene(target, [tmp_path / "m.tif"]) as scene:
        height, width = scene.grid.shape
        row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        h, w = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
        whole = scene.valid(0, 0, height, width)
        assert np.array_equal(scene.valid(row, col, h, w), whole[:, row : row + h, col : col + w])
        # No valid pixel is lost and no invalid one leaks: against a plain loop over pixels.
        pan, ms = scene.read_pan(0, 0, height, width)[1], scene.read_ms(0, 0, *scene.ms_grid.shape)[1]
        y, x = row + h // 2, col + w // 2
        under = int(scene.ms_map.rows.centres(y, y + 1)[0]), int(scene.ms_map.cols.centres(x, x + 1)[0])
        assert np.array_equal(whole[:, y, x], pan[0, y, x] & ms[:, under[0], under[1]])
