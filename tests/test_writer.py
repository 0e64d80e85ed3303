from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError

from pancrafter_cli import sharpen
from pancrafter_cli.errors import GeometryError, OutputError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.raster import writer as writer_module
from pancrafter_cli.raster.blocks import check_crs, file_head
from pancrafter_cli.raster.encode import encode
from pancrafter_cli.raster.part import kept_name
from pancrafter_cli.raster.spec import BandFacts, OutputSpec
from pancrafter_cli.raster.writer import SceneWriter, check_output
from tests.pairs import write_pair
from tests.scene_factory import PAN_TRANSFORM, UTM

WKT = CRS.from_string(UTM).to_wkt()


def make_spec(bands=3, dtype="uint16", shape=(300, 520), **changes) -> OutputSpec:
    facts = changes.pop("facts", (BandFacts(),) * bands)
    return OutputSpec(Grid(PAN_TRANSFORM, shape[1], shape[0], WKT), dtype, facts, **changes)


def write_strips(target: Path, spec: OutputSpec, image, valid, rows=256, **options) -> None:
    with SceneWriter(target, spec, **options) as writer:
        for row in range(0, image.shape[1], rows):
            writer.write(row, 0, image[:, row : row + rows], valid[:, row : row + rows])


def some_image(bands=3, shape=(300, 520), seed=0):
    return np.random.default_rng(seed).uniform(0, 3000, (bands, *shape)).astype(np.float32)


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- what is in the file


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_pixels_come_back_rounded_and_clipped(tmp_path, dtype):
    image = some_image() - 200
    spec = make_spec(dtype=dtype)
    write_strips(tmp_path / "o.tif", spec, image, np.ones(image.shape, bool))
    with rasterio.open(tmp_path / "o.tif") as file:
        stored = file.read()
        assert file.crs == rasterio.crs.CRS.from_string(UTM)
        assert file.transform.almost_equals(PAN_TRANSFORM)
        assert file.block_shapes[0] == (256, 256)
        assert file.compression.value in ("ZSTD", "DEFLATE")
        assert file.interleaving.value == "PIXEL"
    assert stored.dtype == dtype
    if dtype.startswith("float"):
        assert np.array_equal(stored, image.astype(dtype))
    else:
        info = np.iinfo(dtype)
        assert np.array_equal(stored, np.clip(np.rint(image), info.min, info.max).astype(dtype))


def test_blocks_may_come_in_any_order(tmp_path):
    image = some_image()
    valid = np.ones(image.shape, bool)
    with SceneWriter(tmp_path / "o.tif", make_spec(dtype="float32")) as writer:
        for row, col in ((256, 256), (0, 256), (256, 0), (0, 0)):
            part = np.s_[:, row : row + 256, col : (col + 256 if col == 0 else 520)]
            writer.write(row, col, image[part], valid[part])
    with rasterio.open(tmp_path / "o.tif") as file:
        assert np.array_equal(file.read(), image)


@pytest.mark.parametrize(("bands", "interleaving"), [(16, "PIXEL"), (17, "BAND"), (20, "BAND")])
def test_many_bands_are_kept_apart(tmp_path, bands, interleaving):
    image = some_image(bands, (40, 30))
    write_strips(tmp_path / "o.tif", make_spec(bands, "uint16", (40, 30)), image, np.ones(image.shape, bool))
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.interleaving.value == interleaving
        assert np.array_equal(file.read(), np.rint(image).astype("uint16"))


@pytest.mark.parametrize(("side", "magic"), [(300, b"II*\0"), (60_000, b"II+\0")])
def test_files_that_may_outgrow_four_gigabytes_are_bigtiffs(side, magic):
    assert file_head(make_spec(4, shape=(side, side)), {}).startswith(magic)


def test_invalid_pixels_get_nodata_and_valid_ones_never(tmp_path):
    image = np.zeros((2, 20, 30), np.float32)
    valid = np.ones(image.shape, bool)
    valid[0, 3:5, 4:9] = False
    image[0, 3:5, 4:9] = 500
    write_strips(tmp_path / "o.tif", make_spec(2, "uint16", (20, 30), nodata=0.0), image, valid)
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.nodata == 0
        stored = file.read()
        assert np.array_equal(file.read_masks() != 0, valid)
    assert (stored[valid] == 1).all()
    assert (stored[~valid] == 0).all()


def test_nan_as_nodata(tmp_path):
    image, valid = some_image(1, (20, 30)), np.ones((1, 20, 30), bool)
    valid[0, 2, 2] = False
    spec = make_spec(1, "float32", (20, 30), nodata=float("nan"))
    write_strips(tmp_path / "o.tif", spec, image, valid)
    with rasterio.open(tmp_path / "o.tif") as file:
        assert np.isnan(file.nodata)
        assert np.array_equal(np.isnan(file.read()), ~valid)


def test_a_mask_is_written_where_values_cannot_tell(tmp_path):
    image, valid = some_image(2, (300, 30)), np.ones((2, 300, 30), bool)
    valid[0, 7, :] = False
    valid[:, 280, 3] = False
    write_strips(tmp_path / "o.tif", make_spec(2, "uint16", (300, 30), needs_mask=True), image, valid)
    assert leftovers(tmp_path) == ["o.tif"]
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.nodata is None
        assert np.array_equal(file.dataset_mask() != 0, valid.any(axis=0))
        assert (file.read()[~valid] == 0).all()


COLOURS = [
    ("red", "green", "blue", "nir"),
    ("blue", "green", "red", "nir"),
    ("red", "green", "blue", "undefined"),
    ("gray", "undefined", "undefined", "undefined"),
]


@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_band_facts_and_tags_are_written(tmp_path, colours, dtype):
    facts = tuple(BandFacts(f"band {c}", c, 0.5 + n, n - 2.0, "W m-2") for n, c in enumerate(colours))
    image = some_image(4, (20, 30)) / 20
    spec = make_spec(dtype=dtype, shape=(20, 30), facts=facts)
    write_strips(tmp_path / "o.tif", spec, image, np.ones(image.shape, bool), tags={"MADE_BY": "test"})
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.descriptions == tuple(f.description for f in facts)
        assert [c.name for c in file.colorinterp] == list(colours)
        assert file.scales == tuple(f.scale for f in facts)
        assert file.offsets == tuple(f.offset for f in facts)
        assert file.units == tuple(f.unit for f in facts)
        assert file.tags()["MADE_BY"] == "test"
    assert leftovers(tmp_path) == ["o.tif"]


def test_wavelengths_and_acquisition_are_carried_over(tmp_path):
    pan, ms = (tmp_path / f"{name}.tif" for name in ("pan", "ms"))
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=2)
    with rasterio.open(ms, "r+") as file:
        file.update_tags(1, WAVELENGTH="485", STATISTICS_MEAN="7")
        file.update_tags(2, ns="IMAGERY", CENTRAL_WAVELENGTH_UM="0.66")
        file.update_tags(ns="IMAGERY", SATELLITEID="WV02", CLOUDCOVER="0.1")
        file.update_tags(SOFTWARE_OF_MINE="not about the ground", TIFFTAG_SOFTWARE="nor this")
        file.update_tags(TIFFTAG_DATETIME="2020:05:06 10:11:12", satellite="WV02", Cloud_Cover="3", SUN_ELEVATION="41")
    sharpen(pan, ms, tmp_path / "o.tif", method="exp", registration="off")
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.tags(1) == {"WAVELENGTH": "485"}
        assert file.tags(2, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.66"}
        assert file.tags(ns="IMAGERY") == {"SATELLITEID": "WV02", "CLOUDCOVER": "0.1"}
        assert not {"SOFTWARE_OF_MINE", "TIFFTAG_SOFTWARE"} & file.tags().keys()
        assert file.tags()["TIFFTAG_DATETIME"] == "2020:05:06 10:11:12"
        assert {file.tags()[name] for name in ("satellite", "Cloud_Cover", "SUN_ELEVATION")} == {"WV02", "3", "41"}
        assert file.tags()["PANCRAFTER_SENSOR"] == "WorldView-2"


def test_no_band_is_ever_called_alpha(tmp_path):
    facts = tuple(BandFacts(colorinterp=c) for c in ("red", "green", "blue", "alpha"))
    image = some_image(4, (20, 30)) / 20
    spec = make_spec(dtype="uint8", shape=(20, 30), facts=facts)
    write_strips(tmp_path / "o.tif", spec, image, np.ones(image.shape, bool))
    with rasterio.open(tmp_path / "o.tif") as file:
        assert [c.name for c in file.colorinterp] == ["red", "green", "blue", "undefined"]
        assert np.array_equal(file.dataset_mask() != 0, np.ones((20, 30), bool))


CRS_BESIDE_ONLY = {
    "rotated pole": "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39 +lon_0=180 +to_meter=0.0174532925199433",
    "vertical perspective": "+proj=nsper +h=3000000 +lat_0=51 +lon_0=4",
}


@pytest.mark.parametrize("name", CRS_BESIDE_ONLY)
def test_a_crs_that_a_geotiff_cannot_hold_is_refused(tmp_path, name):
    wkt = pyproj.CRS.from_user_input(CRS_BESIDE_ONLY[name]).to_wkt()
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=2)
    pair = tmp_path / "pan.tif", tmp_path / "ms.tif"
    for path in pair:
        with rasterio.open(path, "r+") as file:
            file.crs = CRS.from_wkt(wkt)  # into a file beside
    before = leftovers(tmp_path)
    with pytest.raises(GeometryError, match="a GeoTIFF cannot hold the CRS of PAN") as caught:
        sharpen(*pair, tmp_path / "o.tif", method="exp")
    assert "gdalwarp -t_srs" in caught.value.hint
    assert leftovers(tmp_path) == before
    spec = OutputSpec(Grid(PAN_TRANSFORM, 30, 20, wkt), "uint8", (BandFacts(),))
    with pytest.raises(GeometryError, match="a GeoTIFF cannot hold the CRS"):
        SceneWriter(tmp_path / "o.tif", spec)
    assert leftovers(tmp_path) == before


@pytest.mark.parametrize(
    "crs",
    [
        *("EPSG:32631", "EPSG:4326", "EPSG:4979", "EPSG:2263", "EPSG:3413", "EPSG:5514", "EPSG:8353", "EPSG:2048"),
        *("EPSG:32631+5773", "EPSG:6349", "ESRI:103881", 'LOCAL_CS["site",UNIT["metre",1]]', "+proj=sinu +R=6371007"),
        "+proj=tmerc +lon_0=9 +x_0=3500000 +ellps=bessel +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7",
    ],
)
def test_a_crs_that_comes_back_in_other_words_is_fine(crs):
    wkt = CRS.from_user_input(crs).to_wkt()
    place = Affine(1e-5, 0, 4, 0, -1e-5, 51) if pyproj.CRS.from_wkt(wkt).is_geographic else PAN_TRANSFORM
    check_crs(Grid(place, 30, 20, wkt))


@pytest.mark.filterwarnings("error")
def test_an_output_without_georeferencing_raises_no_warning(tmp_path):
    spec = OutputSpec(Grid(Affine.identity(), 30, 20), "uint8", (BandFacts(),))
    image = some_image(1, (20, 30)) / 20
    write_strips(tmp_path / "o.tif", spec, image, np.ones(image.shape, bool))
    assert leftovers(tmp_path) == ["o.tif"]


# --- numbers


@given(
    dtype=st.sampled_from(["uint8", "uint16", "int16"]),
    nodata=st.sampled_from([0, 255, 7, 65535, -32768, 32767]),
    values=st.lists(st.floats(-40_000, 70_000, width=32), min_size=1, max_size=20),
    invalid=st.booleans(),
)
def test_encoding_keeps_valid_and_invalid_apart(dtype, nodata, values, invalid):
    info = np.iinfo(dtype)
    if not info.min <= nodata <= info.max:
        return
    block = np.array(values, np.float32).reshape(1, 1, -1)
    valid = np.ones(block.shape, bool)
    valid[..., 0] = not invalid
    stored = encode(block, valid, dtype, nodata)
    assert np.array_equal(stored != nodata, valid)
    ideal = np.clip(np.rint(block.astype(np.float64)), info.min, info.max)
    assert np.abs(stored - ideal)[valid].max(initial=0) <= 1


def test_a_collision_moves_to_the_side_it_came_from():
    block = np.array([[[99.6, 100.0, 100.4]]], np.float32)
    assert encode(block, np.ones(block.shape, bool), "uint8", 100).tolist() == [[[99, 101, 101]]]


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", 0.0), ("float32", -3.4028234663852886e38), ("float64", 5.0)])
def test_floats_move_by_the_least_that_survives(dtype, nodata):
    block = np.full((1, 1, 2), nodata, np.float32)
    stored = encode(block, np.array([[[True, False]]]), dtype, nodata)
    assert stored[0, 0, 0] != nodata
    assert stored[0, 0, 0] == pytest.approx(nodata, rel=1e-6, abs=1e-30)
    assert stored[0, 0, 1] == nodata


def test_numbers_that_are_not_finite_are_refused():
    block = np.array([[[np.nan, 1.0]]], np.float32)
    with pytest.raises(OutputError, match="not finite"):
        encode(block, np.ones(block.shape, bool), "uint8", 0)
    assert encode(block, np.array([[[False, True]]]), "uint8", 0).tolist() == [[[0, 1]]]


# --- what is refused before anything happens


def test_an_output_that_is_an_input_is_refused(tmp_path):
    source = tmp_path / "ms.tif"
    source.write_bytes(b"x")
    (tmp_path / "link.tif").symlink_to(source)
    os.link(source, tmp_path / "hard.tif")
    for name in ("ms.tif", "link.tif", "hard.tif", "../" + tmp_path.name + "/ms.tif"):
        with pytest.raises(OutputError, match="one of the inputs"):
            check_output(tmp_path / name, [source], overwrite=True)
    assert source.read_bytes() == b"x"


def test_an_existing_output_needs_overwrite(tmp_path):
    (tmp_path / "o.tif").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists") as caught:
        check_output(tmp_path / "o.tif")
    assert "--overwrite" in caught.value.hint
    assert check_output(tmp_path / "o.tif", overwrite=True) == (tmp_path / "o.tif").resolve()


def test_places_where_nothing_can_be_written(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name, said in (
        ("o.png", "GeoTIFF"),
        ("folder.tif", "is a folder"),
        ("missing/o.tif", "no folder"),
        ("file/o.tif", "no folder"),
    ):
        with pytest.raises(OutputError, match=said):
            check_output(tmp_path / name)


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere, so the answer is made up
    with pytest.raises(OutputError, match="cannot be written to"):
        check_output(tmp_path / "o.tif")


# --- nothing half-done is left


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_nothing(tmp_path, error):
    (tmp_path / "o.tif").write_bytes(b"old")
    image = some_image()

    def interrupted() -> None:
        with SceneWriter(tmp_path / "o.tif", make_spec(), overwrite=True) as writer:
            writer.write(0, 0, image, np.ones(image.shape, bool))
            assert len(leftovers(tmp_path)) == 2
            raise error

    with pytest.raises(error):
        interrupted()
    assert leftovers(tmp_path) == ["o.tif"]
    assert (tmp_path / "o.tif").read_bytes() == b"old"


def test_missing_blocks_are_noticed(tmp_path):
    image = some_image()
    with pytest.raises(OutputError, match="only a part"), SceneWriter(tmp_path / "o.tif", make_spec()) as writer:
        writer.write(0, 0, image[:, :256], np.ones((3, 256, 520), bool))
    assert leftovers(tmp_path) == []


def test_a_block_outside_is_a_bug_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="does not lie inside"), SceneWriter(tmp_path / "o.tif", make_spec()) as w:
        w.write(290, 0, np.zeros((3, 20, 520), np.float32), np.ones((3, 20, 520), bool))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("deleted", [False, True])
def test_what_lay_beside_an_old_image_is_removed(tmp_path, deleted):
    """Also where somebody has deleted that image: GDAL would take its mask for the new one's."""
    image = some_image(1, (20, 30))
    for name in ("o.tif", "o.tif.aux.xml", "o.tif.msk", "o.tif.ovr", "o.tif.txt"):
        (tmp_path / name).write_bytes(b"old")
    if deleted:
        (tmp_path / "o.tif").unlink()
    spec = make_spec(1, shape=(20, 30))
    write_strips(tmp_path / "o.tif", spec, image, np.ones(image.shape, bool), overwrite=not deleted)
    assert leftovers(tmp_path) == ["o.tif", "o.tif.txt"]


def test_a_link_to_another_place_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "o.tif").symlink_to(tmp_path / "real" / "there.tif")
    image = some_image(1, (20, 30))
    write_strips(tmp_path / "o.tif", make_spec(1, shape=(20, 30)), image, np.ones(image.shape, bool))
    assert leftovers(tmp_path / "real") == ["there.tif"]
    assert (tmp_path / "o.tif").is_symlink()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="no file is gone on with here, so none can be foreseen")
def test_a_link_in_place_of_the_unfinished_file_is_not_followed(tmp_path):
    """Its name can be foreseen, so in a folder that others may write to it can be put there beforehand."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    kept_name(tmp_path / "o.tif").symlink_to(victim)
    image = some_image(1, (20, 30))
    with pytest.raises(OutputError, match="cannot be written"):
        write_strips(
            tmp_path / "o.tif", make_spec(1, shape=(20, 30)), image, np.ones(image.shape, bool), resumable=True
        )
    assert victim.read_bytes() == b"mine"
    assert leftovers(tmp_path) == [".o.tif.part.tif", "victim"]


def test_inputs_must_not_change_meanwhile_but_viewers_may_write_beside_them(tmp_path):
    image = some_image(1, (20, 30))
    inputs = [tmp_path / name for name in ("pan.tif", "pan.tif.aux.xml", "pan.tif.ovr")]
    for path in inputs:
        path.write_bytes(b"before")

    def write(name: str, changed: Path) -> None:
        with SceneWriter(tmp_path / name, make_spec(1, shape=(20, 30)), inputs=inputs) as writer:
            writer.write(0, 0, image, np.ones(image.shape, bool))
            changed.write_bytes(b"and after")

    for n, beside in enumerate(inputs[1:]):
        write(f"{n}.tif", beside)
        assert (tmp_path / f"{n}.tif").exists()
    with pytest.raises(OutputError, match="has changed while it was read"):
        write("o.tif", inputs[0])
    assert not (tmp_path / "o.tif").exists()


def test_a_write_error_is_reported_with_the_room_left(tmp_path, monkeypatch):
    image = some_image()

    def full(*_args, **_kwargs):
        raise RasterioIOError("Write failed")

    monkeypatch.setattr(rasterio.io.DatasetWriter, "write", full, raising=False)
    with pytest.raises(OutputError, match="MB are free"):
        write_strips(tmp_path / "o.tif", make_spec(), image, np.ones(image.shape, bool))
    assert leftovers(tmp_path) == []


def test_a_disk_that_is_full_at_the_flush_is_noticed(tmp_path, monkeypatch):
    image = some_image()

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_strips(tmp_path / "o.tif", make_spec(), image, np.ones(image.shape, bool))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.97, 0.9999])
@pytest.mark.parametrize("needs_mask", [False, True])
def test_a_file_that_lost_its_end_never_takes_the_name(tmp_path, monkeypatch, keep, needs_mask):
    image = some_image()
    valid = np.broadcast_to(np.random.default_rng(1).random(image.shape[1:]) > 0.5, image.shape)

    def cut(path):
        os.truncate(path, int(path.stat().st_size * keep))

    monkeypatch.setattr(writer_module, "_flush_to_disk", cut)
    with pytest.raises(OutputError):
        write_strips(tmp_path / "o.tif", make_spec(needs_mask=needs_mask), image, valid)
    assert leftovers(tmp_path) == []


def test_blocks_that_cut_tiles_are_a_bug_of_the_caller(tmp_path):
    for place, size in (((0, 0), (50, 520)), ((10, 0), (256, 520)), ((0, 0), (256, 300)), ((0, 4), (256, 516))):
        block = np.zeros((3, *size), np.float32)
        with pytest.raises(ValueError, match="cuts tiles"), SceneWriter(tmp_path / "o.tif", make_spec()) as writer:
            writer.write(*place, block, np.ones(block.shape, bool))
    assert leftovers(tmp_path) == []


def test_the_order_of_blocks_is_that_of_the_file(tmp_path):
    image = some_image()
    blocks = [np.s_[:, r : r + 256, c : c + 256] for r in (0, 256) for c in (0, 256, 512)]
    for name, order in (("a", blocks), ("b", blocks[::-1]), ("c", blocks)):
        with SceneWriter(tmp_path / f"{name}.tif", make_spec()) as writer:
            for part in order:
                writer.write(part[1].start, part[2].start, image[part], np.ones(image[part].shape, bool))
    a, b, c = ((tmp_path / f"{name}.tif").read_bytes() for name in "abc")
    assert a == c
    assert a != b
    with rasterio.open(tmp_path / "a.tif") as first, rasterio.open(tmp_path / "b.tif") as second:
        assert np.array_equal(first.read(), second.read())
