from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import attrs
import numpy as np
import pytest
import rasterio
import rasterio.rpc
from affine import Affine
from rasterio.control import GroundControlPoint

from pancrafter_cli.errors import GeometryError, NoProduct, RasterError, UsageError
from pancrafter_cli.geometry.sensors import sensor_from_metadata
from pancrafter_cli.raster import SceneOptions, open_scene
from pancrafter_cli.raster.finished import VERSION_TAG, write_tags
from pancrafter_cli.raster.folders import holds_rasters, is_raster, unpacking
from pancrafter_cli.raster.inputs import open_raster
from pancrafter_cli.raster.paths import gdal_name, is_local
from pancrafter_cli.raster.products import ProductFiles, find_product
from tests.scene_factory import PAN_TRANSFORM, FileFacts, Pair, ms_transform, smooth_image, write_pair, write_tif
from tests.vendor_layouts import (
    LANDSAT,
    RPCS,
    SURFACE,
    image,
    write_dimap,
    write_gaofen,
    write_landsat,
    write_maxar,
)

LANDSAT_C1 = LANDSAT.replace("_02_T1", "_01_T1")
VISIBLE = ("blue", "green", "red", "nir")


def open_product(folder: Path):
    product = find_product([folder])
    return open_scene(product.pan, product.ms, SceneOptions(band_names=product.band_names))


# --- Landsat


def test_a_landsat_level_1_folder(tmp_path):
    folder = write_landsat(tmp_path / "l1", LANDSAT, list(range(1, 12)))
    found = find_product([folder])
    assert found.pan == folder / f"{LANDSAT}_B8.TIF"
    assert found.ms == tuple(folder / f"{LANDSAT}_B{n}.TIF" for n in (2, 3, 4, 5))
    assert (found.sensor, found.band_names) == ("Landsat-8", VISIBLE)
    assert "B2, B3, B4, B5 as blue, green, red, nir" in found.layout
    with open_product(folder) as scene:
        assert [band.description for band in scene.output.bands] == list(VISIBLE)
        assert scene.ratio == pytest.approx(2)
        # USGS grids share pixel centres: PAN's corner lies half a PAN pixel inside that of MS.
        assert scene.ms_map.cols.centres(0, 1)[0] == pytest.approx(0.5)


def test_landsat_7_counts_its_bands_otherwise(tmp_path):
    scene = "LE07_L1TP_193026_20000101_20200113_02_T1"
    folder = write_landsat(tmp_path / "l7", scene, [1, 2, 3, 4, 5, 7, 8])
    found = find_product([folder])
    assert found.ms == tuple(folder / f"{scene}_B{n}.TIF" for n in (1, 2, 3, 4))
    assert found.sensor == "Landsat-7"


def test_surface_reflectance_needs_the_pan_of_level_1(tmp_path):
    folder = write_landsat(tmp_path / "sr", SURFACE, [1, 2, 3, 4, 5, 6, 7])
    with pytest.raises(RasterError, match="no PAN") as caught:
        find_product([folder])
    assert "LC08_L1TP_193026_20200101_..._B8.TIF" in caught.value.hint
    write_landsat(folder, LANDSAT, [8])
    found = find_product([folder])
    assert found.pan.name == f"{LANDSAT}_B8.TIF"
    assert found.ms[0].name == f"{SURFACE}_SR_B2.TIF"
    with open_product(folder) as scene:
        first = scene.output.bands[0]
        assert (first.scale, first.offset, first.description) == (2.75e-05, -0.2, "blue")


def test_both_levels_in_one_folder_are_ambiguous(tmp_path):
    folder = write_landsat(tmp_path / "both", SURFACE, [2, 3, 4, 5])
    write_landsat(folder, LANDSAT, [2, 3, 4, 5, 8])
    with pytest.raises(RasterError, match=f"both Level-1 and surface.*{LANDSAT}") as caught:
        find_product([folder])
    told = caught.value.hint.split("name PAN and bands: ")[1].split()
    assert told == [f"{LANDSAT}_B8.TIF", *(f"{SURFACE}_SR_B{n}.TIF" for n in (2, 3, 4, 5))]
    assert "give its folder alone" in caught.value.hint


@pytest.mark.parametrize(
    ("scenes", "said"),
    [
        ([LANDSAT, LANDSAT.replace("193026", "193027")], "several"),
        ([LANDSAT, LANDSAT.replace("_T1", "_RT")], "several"),
        ([LANDSAT.replace("LC08", "LT05")], "has no PAN band"),
    ],
)
def test_landsat_folders_that_hold_no_one_scene(tmp_path, scenes, said):
    for scene in scenes:
        write_landsat(tmp_path / "l", scene, [2, 3, 4, 5, 8])
    with pytest.raises(RasterError, match=said):
        find_product([tmp_path / "l"])


def test_a_missing_landsat_band_is_told(tmp_path):
    folder = write_landsat(tmp_path / "l", LANDSAT, [2, 3, 4, 8])
    with pytest.raises(RasterError, match="needed are B2, B3, B4, B5"):
        find_product([folder])


@pytest.mark.parametrize(
    ("scene", "quality"),
    [
        (LANDSAT, "QA_PIXEL.TIF"),
        (LANDSAT, "QA_PIXEL.tif"),
        (LANDSAT_C1, "BQA.TIF"),
        (LANDSAT_C1, "bqa.tiff"),
    ],
)
def test_landsat_fill_becomes_nodata(tmp_path, scene, quality):
    fill = np.zeros((8, 10), bool)
    fill[:3, :4] = True
    folder = write_landsat(tmp_path / "l", scene, [2, 3, 4, 5, 8], fill, quality)
    with open_product(folder) as opened:
        valid = opened.read_ms(0, 0, 8, 10)[1]
        assert np.array_equal(valid, np.broadcast_to(~fill, (4, 8, 10)))
        assert not opened.valid(0, 0, 5, 7).any()
        assert opened.valid(6, 8, 5, 7).all()
        assert folder / f"{scene}_{quality}" in opened.files
        assert opened.notices == ()


def test_landsat_fill_is_zero_where_no_quality_file_tells(tmp_path):
    """Of PAN always: quality is told of the 30 m grid."""
    folder = write_landsat(tmp_path / "l", LANDSAT_C1, [2, 3, 4, 5, 8])
    for name, last in (("B2", (3, 4)), ("B8", (5, 7))):
        with rasterio.open(folder / f"{LANDSAT_C1}_{name}.TIF", "r+") as file:
            pixels = file.read()
            pixels[:, : last[0], : last[1]] = 0
            file.write(pixels)
    with open_product(folder) as scene:
        assert scene.nodata == 0
        assert not scene.read_ms(0, 0, 3, 4)[1][0].any()
        assert scene.read_ms(0, 0, 8, 10)[1].sum() == 4 * 80 - 12
        assert not scene.read_pan(0, 0, 5, 7)[1].any()
        assert scene.read_pan(0, 0, 16, 20)[1].sum() == 16 * 20 - 35
        (notice,) = scene.notices
        assert LANDSAT_C1 in notice
        assert "DN 0 counts as fill" in notice
    with rasterio.open(folder / f"{LANDSAT_C1}_B2.TIF", "r+") as file:
        file.nodata = 7
    with closing(open_raster(folder / f"{LANDSAT_C1}_B2.TIF")) as file:
        assert (file.nodata, file.notices) == ((7,), ())
    floats = write_tif(tmp_path / f"{LANDSAT_C1}_B3.TIF", np.zeros((1, 4, 4), "float32"))  # reflectance: no DN
    with closing(open_raster(floats)) as file:
        assert (file.nodata, file.notices) == ((None,), ())


# --- DIMAP


@pytest.mark.parametrize(("mission", "sensor"), [(("PHR", "1B"), "Pleiades"), (("SPOT", "7"), "SPOT-6/7")])
def test_a_dimap_bundle(tmp_path, mission, sensor):
    name = "PHR1B" if mission[0] == "PHR" else "SPOT7"
    pan = write_dimap(tmp_path / f"IMG_{name}_P_001", f"{name}_P_202001011000000_ORT_1-001", 1, mission)
    ms = write_dimap(tmp_path / f"IMG_{name}_MS_002", f"{name}_MS_202001011000000_ORT_1-002", 4, mission)
    (tmp_path / "VOL_PHR.XML").write_text("<Dimap_Document/>")
    found = find_product([tmp_path])
    assert found == ProductFiles(pan, (ms,), sensor, ("red", "green", "blue", "nir"), "DIMAP")
    with open_product(tmp_path) as scene:
        assert scene.grid.transform.almost_equals(PAN_TRANSFORM)
        assert scene.ratio == pytest.approx(4)
        assert [band.description for band in scene.output.bands] == ["red", "green", "blue", "nir"]
        assert scene.nodata == 0  # DIMAP calls 0 NODATA; GDAL does not pass that on
        assert not scene.valid(0, 0, 4, 4).any()
        assert scene.valid(4, 4, 28, 36).all()


def test_a_dimap_folder_without_pan(tmp_path):
    write_dimap(tmp_path / "ms", "PHR1B_MS_2020_ORT_1-002", 4)
    with pytest.raises(RasterError, match=r"found 0 and 1; seen: DIM_PHR1B_MS"):
        find_product([tmp_path])


# --- Maxar


@pytest.mark.parametrize(
    ("satellite", "sensor", "ids", "names"),
    [
        ("WV02", "WorldView-2", "C B G Y R RE N N2", "coastal,blue,green,yellow,red,red edge,nir,nir 2"),
        ("QB02", "QuickBird", "B G R N", "blue,green,red,nir"),
    ],
)
def test_a_maxar_folder(tmp_path, satellite, sensor, ids, names):
    pan = write_maxar(tmp_path / "050123456010_01_P001_PAN", 1, satellite, "P")
    ms = write_maxar(tmp_path / "050123456010_01_P001_MUL", len(ids.split()), satellite, ids)
    assert find_product([tmp_path]) == ProductFiles(pan, (ms,), sensor, tuple(names.split(",")), "Maxar")
    with open_product(tmp_path) as scene:
        assert scene.grid.transform.almost_equals(PAN_TRANSFORM)
        assert scene.grid.shape == (32, 40)
        assert np.array_equal(scene.read_pan(0, 0, 32, 40)[0], image(1, 32, 40, 1))  # across the tiles
        assert sensor_from_metadata(scene.metadata) == sensor
        assert [band.description for band in scene.output.bands] == names.split(",")


def test_maxar_folders_of_pan_and_ms_apart(tmp_path):
    pan = write_maxar(tmp_path / "x_PAN", 1, "GE01", "P")
    ms = write_maxar(tmp_path / "x_MUL", 4, "GE01", "B G R N")
    assert find_product([ms.parent, pan.parent]).ms == (ms,)
    with pytest.raises(RasterError, match="found 0 and 1"):
        find_product([ms.parent])


def test_a_mosaic_without_its_corner_is_refused(tmp_path):
    pan = write_maxar(tmp_path / "x_PAN", 1, "WV02", "P", corner=False)
    with pytest.raises(GeometryError, match="does not say where the image lies"):
        open_scene(pan, [pan])


# --- GF and others


@pytest.mark.parametrize(("platform", "sensor"), [("GF1", "GF-1"), ("GF2", "GF-2"), ("GF1B", "GF-1")])
def test_a_gaofen_folder(tmp_path, platform, sensor):
    pan, ms = write_gaofen(tmp_path, platform)
    found = find_product([tmp_path])
    assert (found.pan, found.ms, found.sensor, found.band_names) == (pan, (ms,), sensor, VISIBLE)
    shutil.copy(pan, tmp_path / pan.name.replace("PAN1", "PAN2"))
    with pytest.raises(RasterError, match="found 2 and 1"):
        find_product([tmp_path])


@pytest.mark.parametrize(
    ("platform", "kinds", "sensor", "layout"),
    [
        ("GF1B", ("PAN", "MUX"), "GF-1", "GF-1"),
        ("GF6", ("PAN", "MUX"), None, "GF-6"),
        ("GF7", ("BWDPAN", "BWDMUX"), None, "GF-7"),
        ("ZY3", ("NAD", "MUX"), None, "ZY-3"),
        ("ZY302", ("NAD", "MUX"), None, "ZY-3"),
    ],
)
def test_chinese_products_that_call_ms_mux(tmp_path, platform, kinds, sensor, layout):
    pan, ms = write_gaofen(tmp_path, platform, kinds)
    for stereo in ("FWDPAN", "FWD", "BWD"):  # look forward and backward: no PAN of this MS
        shutil.copy(pan, tmp_path / pan.name.replace(f"-{kinds[0]}.", f"-{stereo}."))
    found = find_product([tmp_path])
    assert found == ProductFiles(pan, (ms,), sensor, VISIBLE, layout)


def test_one_gaofen_file_may_be_of_any_other_pair(tmp_path):
    pan, ms = write_gaofen(tmp_path, "GF2")
    named = ms.rename(tmp_path / "ms.tif")
    assert find_product([tmp_path]) == ProductFiles(pan, (named,), layout="pair by name")
    named.rename(tmp_path / "other.tif")
    write_tif(tmp_path / "dem.tif", image(1, 8, 8))
    with pytest.raises(NoProduct, match=rf"no PAN and MS pair.*{pan.name}, dem\.tif, other\.tif"):
        find_product([tmp_path])


@pytest.mark.parametrize("others", [[], ["b"], ["b", "c"]])
def test_a_scene_among_others_is_not_taken_for_all(tmp_path, others):
    """Whichever layout is looked for first: nobody would know that the others were left out."""
    write_gaofen(tmp_path / "a", "GF1")
    assert find_product([tmp_path]).layout == "GF-1"
    (tmp_path / "maps").mkdir()
    write_tif(tmp_path / "maps" / "dem.tif", image(1, 8, 8))
    assert find_product([tmp_path]).layout == "GF-1"  # a raster of something else is no scene
    for name in others:
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name)
    (tmp_path / "notes").mkdir()
    for name in ("a.dat", "b.dat"):
        (tmp_path / "notes" / name).write_text("no rasters")
    if not others:
        assert find_product([tmp_path]).layout == "GF-1"
        return
    with pytest.raises(RasterError, match=r"holds more than one scene: GF-1 in .*a, and pair by name in .*b") as caught:
        find_product([tmp_path])
    assert "batch" in caught.value.hint
    assert find_product([tmp_path / "a"]).layout == "GF-1"


def test_the_folders_of_a_product_may_be_named_from_different_places(tmp_path, monkeypatch):
    pair = write_pair(tmp_path)
    for path in (pair.pan, pair.ms):
        (tmp_path / path.stem).mkdir()
        path.rename(tmp_path / path.stem / path.name)
    monkeypatch.chdir(tmp_path)
    found = find_product([Path("pan"), tmp_path / "ms"])
    assert (found.pan, found.ms) == (Path("pan/pan.tif"), (tmp_path / "ms" / "ms.tif",))


def test_a_folder_with_one_pair(tmp_path):
    pair = write_pair(tmp_path)
    write_tif(tmp_path / "gt.tif", image(3, 32, 40))
    found = find_product([tmp_path])
    assert (found.pan, found.ms, found.sensor) == (pair.pan, (pair.ms,), None)
    (tmp_path / ".hidden").mkdir()
    shutil.copy(pair.pan, tmp_path / ".hidden" / "pan.tif")
    assert find_product([tmp_path]) == found
    shutil.copy(pair.pan, tmp_path / "other_PAN.tif")
    with pytest.raises(RasterError, match=r"found 2 and 1; seen: other_PAN\.tif, pan\.tif, ms\.tif") as caught:
        find_product([tmp_path])
    assert "PAN first" in caught.value.hint


def test_two_rasters_are_told_apart_by_their_bands(tmp_path):
    pair = write_pair(tmp_path)
    pan, ms = pair.pan.rename(tmp_path / "zz.tif"), pair.ms.rename(tmp_path / "aa.tif")
    found = find_product([tmp_path])
    assert (found.pan, found.ms) == (pan, (ms,))


@pytest.mark.parametrize(
    ("pan", "ms", "products"),
    [
        ("a.tif", "b.tif", ["out.tif"]),
        ("a.tif", "b.tif", ["sub/out.tif", "out-confidence.tif"]),
        ("x_pan.tif", "x_ms.tif", ["x_ms_sharp.tif", "x_pan_conf.tif"]),
        ("x_pan.tif", "b.tif", ["x_ms_sharp.tif"]),
        ("x_pan.tif", "x_ms.tif", ["sub/y_ms.tif", "sub/y_pan.tif"]),
    ],
)
def test_products_of_ours_are_no_inputs_unless_named(tmp_path, pan, ms, products):
    pair = write_pair(tmp_path)
    pan, ms = pair.pan.rename(tmp_path / pan), pair.ms.rename(tmp_path / ms)
    for name in products:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(pan if "pan" in name or "conf" in name else ms, tmp_path / name)
        write_tags(tmp_path / name, {VERSION_TAG: "1.0"})
    found = find_product([tmp_path])
    assert (found.pan, found.ms) == (pan, (ms,))
    assert find_product([pan, tmp_path / products[0]]).ms == (tmp_path / products[0],)
    ms.unlink()
    with pytest.raises(RasterError, match=r"is recognised beside products of pancrafter; seen: .*" + pan.name):
        find_product([tmp_path])


def test_folders_that_hold_no_scene(tmp_path):
    with pytest.raises(NoProduct, match="holds no files within 3 levels of folders"):
        find_product([tmp_path])
    deep = tmp_path / "a" / "b" / "c"
    write_pair_in(deep / "d")
    with pytest.raises(NoProduct, match="holds no files within 3 levels of folders"):
        find_product([tmp_path])
    assert find_product([tmp_path / "a"]).pan == deep / "d" / "pan.tif"
    (tmp_path / "readme.txt").write_text("of an order")
    with pytest.raises(NoProduct, match=r"no PAN and MS pair is recognised within 3 levels.*readme\.txt"):
        find_product([tmp_path])
    for name in ("a", "b", "c"):
        write_tif(tmp_path / f"{name}.tif", image(1, 4, 4))
    with pytest.raises(NoProduct, match=r"no PAN and MS pair is recognised; seen: a\.tif, b\.tif, c\.tif$"):
        find_product([tmp_path])


def write_pair_in(folder: Path) -> Pair:
    folder.mkdir(parents=True)
    return write_pair(folder)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".bil", {"driver": "ENVI", "INTERLEAVE": "BIL"}),
        (".bip", {"driver": "ENVI", "INTERLEAVE": "BIP"}),
        (".ers", {"driver": "ERS"}),
        ("", {"driver": "ENVI", "SUFFIX": "ADD"}),
    ],
)
def test_rasters_whose_headers_lie_beside_them(tmp_path, suffix, options):
    pair = write_pair_in(tmp_path / "in")
    folder = tmp_path / "out"
    folder.mkdir()
    for path in (pair.pan, pair.ms):
        copied(path, folder / f"s_0.5m_{path.stem}{suffix}", **options)
    assert holds_rasters(folder)
    found = find_product([folder])
    assert (found.pan, found.ms) == (folder / f"s_0.5m_pan{suffix}", (folder / f"s_0.5m_ms{suffix}",))
    with open_scene(found.pan, found.ms) as scene:
        assert np.array_equal(scene.read_ms(0, 0, 8, 10)[0], pair.ms_image)


@pytest.mark.parametrize("name", ["{}-BROWSE", "{}_preview", "{}_Thumb", "{}_ortho_quicklook1", "{}_ql", "{}_QB"])
def test_previews_are_left_out_where_something_else_remains(tmp_path, name):
    pan, ms = write_gaofen(tmp_path / "gf")
    shutil.copy(ms, ms.with_stem(name.format(ms.stem)))
    shutil.copy(pan, pan.with_stem(name.format(pan.stem)))
    found = find_product([tmp_path / "gf"])
    assert (found.pan, found.ms) == (pan, (ms,))
    pair = write_pair_in(tmp_path / "plain")
    for file in (pair.pan, pair.ms):
        shutil.copy(file, tmp_path / "plain" / f"{name.format(file.stem)}.tif")
    found = find_product([tmp_path / "plain"])
    assert (found.pan, found.ms) == (pair.pan, (pair.ms,))
    alone = write_pair_in(tmp_path / "alone")
    pan, ms = (p.rename(p.with_stem(name.format(p.stem))) for p in (alone.pan, alone.ms))
    found = find_product([tmp_path / "alone"])
    assert (found.pan, found.ms) == (pan, (ms,))


def test_previews_beside_pairs_without_names_and_in_folders_of_their_own(tmp_path):
    pair = write_pair_in(tmp_path / "a")
    pan, ms = pair.pan.rename(tmp_path / "a" / "zz.tif"), pair.ms.rename(tmp_path / "a" / "aa.tif")
    shutil.copy(ms, tmp_path / "a" / "browse.tif")
    found = find_product([tmp_path / "a"])
    assert (found.pan, found.ms) == (pan, (ms,))
    pan, _ = write_gaofen(tmp_path / "b")
    small = write_pair_in(tmp_path / "b" / "small")
    for path in (small.pan, small.ms):
        path.rename(path.with_stem(f"{path.stem}_preview"))
    assert find_product([tmp_path / "b"]).pan == pan


def test_previews_of_maxar(tmp_path):
    pan = write_maxar(tmp_path / "x_PAN", 1, "GE01", "P")
    ms = write_maxar(tmp_path / "x_MUL", 4, "GE01", "B G R N")
    for path in (pan, ms):  # as single files instead of tiles
        with rasterio.open(path) as mosaic:
            write_tif(path.with_suffix(".TIF"), mosaic.read(), FileFacts(mosaic.transform))
        path.unlink()
    write_tif(pan.with_name(f"{pan.stem}-BROWSE.TIF"), image(1, 8, 8), FileFacts(None))
    found = find_product([tmp_path])
    assert (found.pan, found.ms) == (pan.with_suffix(".TIF"), (ms.with_suffix(".TIF"),))


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (("P", "B", "G", "R", "N"), "K3_20200101000000_00000_00000000_L1G_{}"),
        (("pan", "blu", "grn", "red", "nir"), "po_1234_{}_0000000"),
        (("panchromatic", "Blue", "Green", "Red", "NIR"), "{}"),
    ],
)
def test_bands_in_files_of_their_own(tmp_path, names, stem):
    paths = [
        write_tif(tmp_path / f"{stem.format(name)}.tif", image(1, 8, 10, n), FileFacts(ms_transform(4)))
        for n, name in enumerate(names)
    ]
    write_tif(paths[0], image(1, 32, 40))
    for path in paths:
        shutil.copy(path, path.with_stem(f"{path.stem}_browse"))
    found = find_product([tmp_path])
    assert found == ProductFiles(paths[0], tuple(paths[1:]), None, VISIBLE, "bands by name: blue, green, red, nir")
    with open_product(tmp_path) as scene:
        assert [band.description for band in scene.output.bands] == list(VISIBLE)
    write_tif(paths[1], image(3, 8, 10), FileFacts(ms_transform(4)))  # no file of one band
    with pytest.raises(NoProduct, match="no PAN and MS pair") as caught:
        find_product([tmp_path])
    assert "X_pan, X_blue, X_green, X_red, X_nir" in caught.value.hint
    write_tif(paths[1], image(1, 8, 10), FileFacts(ms_transform(4)))
    paths[4].unlink()
    with pytest.raises(NoProduct, match="no PAN and MS pair"):
        find_product([tmp_path])


def test_bands_of_two_scenes_are_not_mixed(tmp_path):
    for scene in ("a", "b"):
        for name in ("pan", "blue", "green", "red", "nir"):
            write_tif(tmp_path / f"{scene}_{name}.tif", image(1, 8, 10))
    with pytest.raises(RasterError, match=r"found 2 and 0|several scenes"):
        find_product([tmp_path])
    (tmp_path / "a_pan.tif").unlink()
    assert find_product([tmp_path]).pan.name == "b_pan.tif"


def test_a_skysat_folder(tmp_path):
    stem = "20200101_100000_ssc1_u0001"
    pan = write_tif(tmp_path / f"{stem}_panchromatic.tif", image(1, 32, 40))
    ms = write_tif(tmp_path / f"{stem}_analytic.tif", image(4, 8, 10), FileFacts(ms_transform(4)))
    write_tif(tmp_path / f"{stem}_pansharpened.tif", image(4, 32, 40))
    write_tif(tmp_path / f"{stem}_analytic_udm2.tif", image(8, 8, 10), FileFacts(ms_transform(4)))
    write_tif(tmp_path / f"{stem}_panchromatic_udm2.tif", image(8, 32, 40))
    found = find_product([tmp_path])
    assert (found.pan, found.ms) == (pan, (ms,))
    named = ms.with_stem(f"{stem}_analytic_ms")  # a word that says more counts first
    shutil.copy(ms, named)
    assert find_product([tmp_path]).ms == (named,)


@pytest.mark.parametrize("name", [".", "/", "x" * 254, "a\0b", ".tar", "/vsis3/bucket/x", "archive"])
def test_any_name_may_be_asked_whether_it_is_a_raster_or_an_archive(name):
    assert not is_raster(Path(name))
    assert (unpacking(Path(name)) is None) == (name != ".tar")


def test_a_command_for_an_archive_can_be_pasted_whatever_its_name():
    assert unpacking(Path("my orders/a b.tar.gz")) == (
        "mkdir -p 'my orders/a b' && tar -xf 'my orders/a b.tar.gz' -C 'my orders/a b'"
    )


# --- tiles given by hand


def test_one_of_several_tiles_is_told_from_the_whole(tmp_path):
    pan = write_maxar(tmp_path / "x_PAN", 1, "GE01", "P")
    ms = write_maxar(tmp_path / "x_MUL", 4, "GE01", "B G R N")
    tiles = [next(path.parent.glob("*_R1C1-*.TIF")) for path in (pan, ms)]
    with open_scene(tiles[0], [tiles[1]]) as scene:
        assert scene.notices == tuple(
            f"{tile.name}: is one of 2 tiles; the whole image is {whole.name}"
            for tile, whole in zip(tiles, (pan, ms), strict=True)
        )
    with open_scene(pan, [ms]) as scene:
        assert scene.notices == ()
    pan.unlink()
    with closing(open_raster(tiles[0])) as file:
        assert file.notices == ()  # the whole is not to be had


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_one_of_several_tiles_of_dimap(tmp_path):
    document = write_dimap(tmp_path / "p", "PHR1B_P_202001011000000_ORT_1-001", 1)
    tile = document.with_name(f"{document.stem.replace('DIM_', 'IMG_')}_R1C1.TIF")
    with closing(open_raster(tile)) as file:
        assert file.notices == ()  # the only one
    shutil.copy(tile, tile.with_name(tile.name.replace("R1C1", "R2C1")))
    with closing(open_raster(tile)) as file:
        assert file.notices == (f"{tile.name}: is one of 2 tiles; the whole image is {document.name}",)
    with closing(open_raster(document)) as file:
        assert file.notices == ()


# --- archives


@pytest.mark.parametrize(
    ("kind", "suffix", "command"),
    [("tar", ".tar", "tar -xf"), ("gztar", ".tar.gz", "tar -xf"), ("zip", ".zip", "unzip")],
)
def test_an_archive_is_to_be_unpacked(tmp_path, kind, suffix, command):
    pair = write_pair_in(tmp_path / "in")
    (tmp_path / "order").mkdir()
    packed = Path(shutil.make_archive(str(tmp_path / "order" / "prod.1"), kind, tmp_path / "in"))
    assert packed.name == f"prod.1{suffix}"
    with pytest.raises(UsageError, match=rf"prod\.1{suffix}: is an archive") as usage:
        find_product([packed])
    assert f"{command} {packed}" in usage.value.hint
    assert f"{tmp_path / 'order' / 'prod.1'} " in f"{usage.value.hint} ".replace(")", " ")  # where it goes to
    with pytest.raises(NoProduct, match=rf"order: holds no rasters, but an archive, prod\.1{suffix}") as none:
        find_product([tmp_path / "order"])
    assert f"{command} {packed}" in none.value.hint
    with pytest.raises(RasterError, match="is not a raster") as data:
        open_scene(pair.pan, [packed])
    assert f"{command} {packed}" in data.value.hint


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_is_not_in_an_archive_is_not_blamed_on_the_network(tmp_path):
    pair = write_pair_in(tmp_path / "in")
    for name in ("a.tif", "b.tif"):
        shutil.copy(pair.ms, tmp_path / "in" / name)
    packed = shutil.make_archive(str(tmp_path / "prod"), "zip", tmp_path / "in")
    for given in (f"/vsizip/{packed}", f"/vsizip/{packed}/none.tif", f"/vsizip/{tmp_path}/none.zip/a.tif"):
        with pytest.raises(RasterError, match="cannot be opened") as caught:
            open_scene(pair.pan, [Path(given)])
        assert "/vsizip/ARCHIVE/RASTER" in caught.value.hint
    with pytest.raises(UsageError, match=r"prod\.zip: is an archive") as usage:
        find_product([Path(f"/vsizip/{packed}")])
    assert f"unzip {packed} -d" in usage.value.hint


def test_files_are_taken_as_given(tmp_path):
    pan, a, b = tmp_path / "p.tif", tmp_path / "a.tif", Path("/vsis3/bucket/b.tif")
    assert find_product([pan, a, b]) == ProductFiles(pan, (a, b))
    for given, said in (([pan], "only"), ([], "no file"), ([pan, tmp_path], "is a folder and")):
        with pytest.raises(UsageError, match=said):
            find_product(given)
    with pytest.raises(UsageError) as caught:
        find_product([tmp_path, tmp_path / "mul" / "x.TIL"])
    assert caught.value.hint == (
        f"give both by their files, PAN and then MS, or both by their folders: {tmp_path} {tmp_path / 'mul'}"
    )
    with pytest.raises(RasterError, match="is a folder"):
        open_scene(tmp_path, [tmp_path])


@pytest.mark.parametrize(
    ("texts", "sensor"),
    [
        (["SPOT", "6"], "SPOT-6/7"),
        (["SPOT 7"], "SPOT-6/7"),
        (["SPOT", "5"], None),
        (["PHR", "1A"], "Pleiades"),
        (["PNEO", "3"], "Pleiades Neo"),
        (['"WV03"'], "WorldView-3"),
        (["GF2_PMS1_E113"], "GF-2"),
        (["GF1D"], "GF-1"),
        (["GF-1"], "GF-1"),
        (["GF10"], None),
        (["LANDSAT_9"], "Landsat-9"),
    ],
)
def test_sensors_as_vendors_name_them(texts, sensor):
    assert sensor_from_metadata(texts) == sensor


# --- bit depth


def test_bit_depth_is_read_from_the_metadata(tmp_path):
    pan, ms = image(1, 32, 40), image(3, 8, 10)
    eleven = write_tif(tmp_path / "pan.tif", pan, FileFacts(options={"NBITS": 11}))
    coarse = write_tif(tmp_path / "ms.tif", ms, FileFacts(ms_transform(4)))
    with open_scene(eleven, [coarse]) as scene:
        assert scene.peaks == (2047, None)
    jp2 = copied(eleven, tmp_path / "pan.jp2", driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY="100", NBITS=12)
    with open_scene(jp2, [coarse]) as scene:
        assert scene.peaks == (4095, None)


def test_vendors_tell_the_greatest_dn(tmp_path):
    write_dimap(tmp_path / "p", "PHR1B_P_202001011000000_ORT_1-001", 1)
    write_dimap(tmp_path / "m", "PHR1B_MS_202001011000000_ORT_1-002", 4)
    with open_product(tmp_path) as scene:
        assert scene.peaks == (4095, 4095)  # SATURATED, though pixels have 16 bits
    document = next((tmp_path / "p").glob("DIM_*"))
    text = document.read_text().replace("SATURATED", "OTHER")
    document.write_text(text.replace("<Raster_Display>", "<x><PRODUCT_RANGE>10</PRODUCT_RANGE></x><Raster_Display>"))
    with open_product(tmp_path) as scene:
        assert scene.peaks == (1023, 4095)


# --- RPCs and ground control points


def rpc_pair(folder: Path, rpcs: rasterio.rpc.RPC = RPCS) -> tuple[Path, Path]:
    paths = []
    for name, bands, size in (("pan", 1, (32, 40)), ("ms", 4, (8, 10))):
        paths.append(write_tif(folder / f"{name}.tif", image(bands, *size), FileFacts(None)))
        with rasterio.open(paths[-1], "r+") as file:
            file.rpcs = rpcs
    return paths[0], paths[1]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("lon", "lat", "epsg"), [(11.5, 48.1, 32632), (11.5, -10, 32732), (-179.9, -10, 32701), (179.9, 48.1, 32660)]
)
def test_rpcs_of_pan_alone_are_refused_with_the_command(tmp_path, lon, lat, epsg):
    """Which names the UTM zone of the place, north or south."""
    pan, ms = rpc_pair(tmp_path, attrs.evolve(RPCS, long_off=lon, lat_off=lat))
    unplaced = write_tif(tmp_path / "unplaced.tif", image(4, 8, 10), FileFacts(None))
    with pytest.raises(GeometryError, match=r"pan\.tif: RPCs tell .*unplaced\.tif has no RPCs") as caught:
        open_scene(pan, [unplaced])
    assert f"gdalwarp -rpc -to RPC_DEM=DEM.tif -t_srs EPSG:{epsg} -r cubic {pan} pan_ortho.tif" in caught.value.hint
    with open_scene(pan, [ms], SceneOptions(ratio=4)) as scene:  # the user knows how they lie
        assert scene.grid.shape == (32, 40)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rpcs_on_one_side_are_refused_whatever_is_told(tmp_path):
    _, ms = rpc_pair(tmp_path)
    pan = write_tif(tmp_path / "ortho.tif", image(1, 32, 40))
    for options in (SceneOptions(), SceneOptions(ratio=4)):
        with pytest.raises(GeometryError, match=r"ms\.tif: RPCs"):
            open_scene(pan, [ms], options)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_alone_are_refused(tmp_path):
    pair = write_pair(tmp_path, pan=FileFacts(None), ms=FileFacts(None))
    points = [GroundControlPoint(r, c, 5e5 + c / 2, 57e5 - r / 2) for r, c in ((0, 0), (0, 40), (32, 0), (32, 40))]
    for number in (4, 3):
        with rasterio.open(pair.pan, "r+") as file:
            file.gcps = points[:number], rasterio.crs.CRS.from_epsg(32631)
        with pytest.raises(GeometryError, match=r"pan\.tif: ground control points tell") as caught:
            open_scene(pair.pan, [pair.ms])
        assert f"gdalwarp -tps -r cubic {pair.pan}" in caught.value.hint
    for number in (2, 1):
        with rasterio.open(pair.pan, "r+") as file:
            file.gcps = points[:number], rasterio.crs.CRS.from_epsg(32631)
        with open_scene(pair.pan, [pair.ms]) as scene:  # one or two points place nothing
            assert scene.ratio == 4


# --- formats


def copied(source: Path, target: Path, **options) -> Path:
    with rasterio.open(source) as file:
        pixels, profile = file.read(), file.profile
    profile = {k: profile[k] for k in ("width", "height", "count", "dtype", "crs", "transform")} | options
    with rasterio.open(target, "w", **profile) as file:
        file.write(pixels)
    return target


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("ntf", {"driver": "NITF", "ICORDS": "N"}),
        ("jp2", {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": "100"}),
        ("img", {"driver": "HFA"}),
        ("tif", {"driver": "COG"}),
    ],
)
def test_other_formats_hold_the_same_scene(tmp_path, suffix, options):
    place = Affine(2, 0, 500_000, 0, -2, 5_700_000)  # NITF keeps corners to the metre
    pair = write_pair(tmp_path, size=(64, 64), pan=FileFacts(place), ms=FileFacts(place @ Affine.scale(4)))
    pan = copied(pair.pan, tmp_path / f"p.{suffix}", **options)
    ms = copied(pair.ms, tmp_path / f"m.{suffix}", **options)
    with open_scene(pan, [ms]) as scene:
        assert scene.grid.transform.almost_equals(place)
        assert np.array_equal(scene.read_pan(0, 0, 64, 64)[0], pair.pan_image)
        assert np.array_equal(scene.read_ms(0, 0, 16, 16)[0], pair.ms_image)


def test_geopackages_and_their_tables(tmp_path):
    pair = write_pair(tmp_path, size=(64, 64), dtype="uint16")
    pan = copied(pair.pan, tmp_path / "p.gpkg", driver="GPKG", RASTER_TABLE="first")
    with open_scene(pan, [pair.ms]) as scene:
        assert scene.bands == 3
        assert np.array_equal(scene.read_pan(0, 0, 64, 64)[0], pair.pan_image)
    copied(pair.pan, pan, driver="GPKG", RASTER_TABLE="second", APPEND_SUBDATASET="YES")
    with pytest.raises(RasterError, match=r"holds 2 rasters and none by itself: GPKG:.*:first, GPKG:.*:second"):
        open_scene(pan, [pair.ms])
    with open_scene(Path(f"GPKG:{pan}:second"), [pair.ms]) as scene:
        assert np.array_equal(scene.read_pan(0, 0, 64, 64)[0], pair.pan_image)


def test_a_vrt_of_bands(tmp_path):
    pair = write_pair(tmp_path)
    t = ", ".join(str(v) for v in ms_transform(4).to_gdal())
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">ms.tif'
        f"</SourceFilename><SourceBand>{source}</SourceBand></SimpleSource></VRTRasterBand>"
        for n, source in ((1, 3), (2, 1))
    )
    vrt = tmp_path / "m.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="10" rasterYSize="8"><SRS>EPSG:32631</SRS><GeoTransform>{t}</GeoTransform>'
        f"{bands}</VRTDataset>"
    )
    with open_scene(pair.pan, [vrt]) as scene:
        assert np.array_equal(scene.read_ms(0, 0, 8, 10)[0], pair.ms_image[[2, 0]])
        assert {vrt, pair.ms} <= set(scene.files)


# --- names that are no local paths


@pytest.mark.parametrize(
    ("given", "opened"),
    [
        ("/vsicurl/https://x.org/a//b.tif", "/vsicurl/https://x.org/a/b.tif"),
        ("https://x.org/a.tif?sig=1%2F2", "/vsicurl/https://x.org/a.tif?sig=1%2F2"),
        ("s3://bucket/key/a.tif", "/vsis3/bucket/key/a.tif"),
        ("gs://bucket/a.tif", "/vsigs/bucket/a.tif"),
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("/vsizip//vsicurl/https://x.org/a.zip/a.tif", "/vsizip//vsicurl/https://x.org/a.zip/a.tif"),
        ("/vsizip//tmp/a.zip/a.tif", "/vsizip//tmp/a.zip/a.tif"),
        ("/vsizip/a.zip/a.tif", "/vsizip/a.zip/a.tif"),
        ("GPKG:/a/b.gpkg:t", "GPKG:/a/b.gpkg:t"),
        ("a/b.tif", "a/b.tif"),
    ],
)
def test_names_survive_being_a_path(given, opened):
    assert gdal_name(Path(given)) == opened
    assert is_local(Path(given)) == (given == "a/b.tif")


def test_a_file_inside_an_archive(tmp_path):
    pair = write_pair(tmp_path)
    shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path, "pan.tif")
    with open_scene(Path(f"/vsizip/{tmp_path}/z.zip/pan.tif"), [pair.ms]) as scene:
        assert np.array_equal(scene.read_pan(0, 0, 32, 40)[0], pair.pan_image)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    command = [sys.executable, str(Path(__file__).with_name("range_server.py")), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def bytes_sent(server: str) -> int:
    with urllib.request.urlopen(f"{server}/sent") as answer:
        return int(answer.read())


def test_a_cloud_optimised_file_is_read_in_part_over_http(tmp_path, server):
    noise = np.random.default_rng(0).integers(0, 60_000, (1, 2048, 2048), dtype="uint16")
    plain = write_tif(tmp_path / "plain.tif", noise)
    names = []
    for name, given in (("a.tif", f"/vsicurl/{server}/a.tif"), ("b.tif", f"{server}/b.tif")):
        copied(plain, tmp_path / name, driver="COG", BLOCKSIZE="256", OVERVIEWS="NONE")
        names.append(given)
    ms = write_tif(tmp_path / "ms.tif", smooth_image(2, 512, 512).astype("uint16"), FileFacts(ms_transform(4)))
    for name in names:
        before = bytes_sent(server)
        with open_scene(Path(name), [ms]) as scene:
            assert np.array_equal(scene.read_pan(1000, 1000, 8, 8)[0], noise[:, 1000:1008, 1000:1008])
        assert 0 < bytes_sent(server) - before < (tmp_path / "a.tif").stat().st_size / 4
    with pytest.raises(RasterError, match="cannot be opened"):
        open_scene(Path(f"{server}/gone.tif"), [ms])
