"""What a product says of itself: tags, scores and a STAC item."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
import threading
import zipfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from pancrafter_cli import __version__, sharpen
from pancrafter_cli.errors import GeometryError, OutputError, UsageError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.raster.outputs import read_finished
from pancrafter_cli.raster.stac import acquisition_time, footprint
from pancrafter_cli.tasks.provenance import command_tags, hashing, input_file, request_tags
from pancrafter_cli.tasks.score import ScoreOptions, score
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from pancrafter_cli.zoo import load_model
from tests.pairs import write_pair
from tests.scene_factory import FileFacts, write_tif


def tags(path: Path) -> dict[str, str]:
    with rasterio.open(path) as file:
        return dict(file.tags())


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    write_pair(tmp_path, seed=1, pan_size=128, ratio=4, bands=3)
    return tmp_path / "pan.tif", tmp_path / "ms.tif"


# --- tags


def test_the_product_tells_what_it_was_made_of_and_how(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    result = sharpen(*pair, tmp_path / "o.tif", registration=(0.25, -0.5))
    said = tags(tmp_path / "o.tif")
    assert said["PANCRAFTER_VERSION"] == __version__
    assert (said["PANCRAFTER_METHOD"], said["PANCRAFTER_MODEL"]) == ("network", "universal-small")
    assert said["PANCRAFTER_MODEL_SHA256"] == load_model().sha256
    assert json.loads(said["PANCRAFTER_INPUTS"]) == [
        {"name": p.name, "bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for p in pair
    ]
    assert said["PANCRAFTER_SHIFT"] == "0.25,-0.5"
    assert float(said["PANCRAFTER_RATIO"]) == 4
    with rasterio.open(pair[1]) as ms:
        assert float(said["PANCRAFTER_SCALE"]) == pytest.approx(np.percentile(ms.read(), 99), rel=1e-6)
    assert (said["PANCRAFTER_PRECISION"], said["PANCRAFTER_DEVICE"]) == (result.fuser.precision, result.fuser.device)
    assert (said["PANCRAFTER_CONSISTENCY"], said["PANCRAFTER_TILE"], said["PANCRAFTER_HALO"]) == ("2", "512", "32")
    assert float(said["PANCRAFTER_DRIFTING"]) == pytest.approx(result.drifting, abs=1e-4)
    assert "PANCRAFTER_COMMAND" not in said  # nobody typed one
    assert "PANCRAFTER_HQNR" not in said


def test_classical_methods_name_no_model(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    sharpen(*pair, tmp_path / "o.tif", method="gsa", consistency=3)
    said = tags(tmp_path / "o.tif")
    assert (said["PANCRAFTER_METHOD"], said["PANCRAFTER_CONSISTENCY"]) == ("gsa", "3")
    assert "PANCRAFTER_MODEL" not in said


def test_the_command_line_is_kept_and_says_what_was_done(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    words = ["sharpen", *map(str, pair), "-o", str(tmp_path / "a b.tif"), "--method", "exp", "--no-consistency"]
    code = "from pancrafter_cli.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", code, *words, "--score", "--stac"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = tags(tmp_path / "a b.tif")
    assert said["PANCRAFTER_COMMAND"] == f"pancrafter sharpen {pair[0]} {pair[1]} -o '{tmp_path}/a b.tif' " + (
        "--method exp --no-consistency --score --stac"
    )
    assert f"scores: HQNR {float(said['PANCRAFTER_HQNR']):.4f}" in done.stdout
    assert f"also written: {tmp_path}/a b.json" in done.stdout
    (drifting,) = re.findall(r"^drifting: ([\d.]+)% of it", done.stdout, re.MULTILINE)  # plain interpolation does
    assert float(drifting) == pytest.approx(100 * float(said["PANCRAFTER_DRIFTING"]), abs=0.06)
    both = subprocess.run(
        [sys.executable, "-c", code, *words, "--consistency", "3", "--overwrite"], capture_output=True, text=True
    )
    assert both.returncode == 2
    assert "exclude each other" in both.stderr


def test_what_lets_one_in_is_not_kept() -> None:
    command = ["pancrafter", "sharpen", "/vsicurl/https://me:pw@host/pan.tif?X-Sig=abc/d", "https://host/ms.tif", "a b"]
    assert command_tags(command) == {
        "PANCRAFTER_COMMAND": "pancrafter sharpen /vsicurl/https://host/pan.tif https://host/ms.tif 'a b'"
    }
    assert command_tags(()) == {}
    dem = SharpenOptions(Path("p"), (), Path("o"), dem=Path("https://host/x/dem.tif?X-Sig=abc/d"))
    assert json.loads(request_tags(dem)["PANCRAFTER_REQUEST"])["dem"] == "dem.tif"
    assert input_file(Path("/vsicurl/https://host/x/pan.tif?X-Sig=abc/d")).name == "pan.tif"


def test_of_files_inside_archives_the_archive_is_hashed(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(tmp_path / "pair.zip", "w") as archive:
        archive.write(pair[0], "pan.tif")
    sharpen(f"/vsizip/{tmp_path}/pair.zip/pan.tif", pair[1], tmp_path / "o.tif", method="exp")
    pan, ms = json.loads(tags(tmp_path / "o.tif")["PANCRAFTER_INPUTS"])
    whole = (tmp_path / "pair.zip").read_bytes()
    absolute = Path("/vsizip/", str(tmp_path / "pair.zip").lstrip("/"), "pan.tif")  # a Path makes one slash of two
    assert read_finished(absolute).width > 0
    assert pan == {"name": "pan.tif", "bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    assert len(ms["sha256"]) == 64


def test_hashing_streams_and_stops_when_the_run_ends(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(20 << 20)
    assert input_file(large).sha256 == hashlib.sha256(bytes(20 << 20)).hexdigest()
    stopped = threading.Event()
    stopped.set()
    assert input_file(large, stopped).sha256 is None
    with pytest.raises(RuntimeError, match="something else"), hashing([large] * 3):
        raise RuntimeError("something else")
    with hashing([large, large]) as coming:
        assert [f.name for f in coming.result()] == ["large"]


# --- scores


def test_scores_are_those_of_the_score_command(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    result = sharpen(*pair, tmp_path / "o.tif", method="gsa", score=True, registration=(0.0, 0.0))
    with ExitStack() as stack:
        options = ScoreOptions(tmp_path / "o.tif", pan=pair[0], ms=(pair[1],), registration=(0.0, 0.0))
        expected = score(options, stack).result.scores["fused"]
    said = tags(tmp_path / "o.tif")
    assert list(result.scores) == ["hqnr", "d_lambda_k", "d_s"]
    for name, value in result.scores.items():
        assert value == expected[name]
        assert float(said[f"PANCRAFTER_{name.upper()}"]) == pytest.approx(value, rel=1e-5)
    assert said["PANCRAFTER_METHOD"] == "gsa"  # adding tags took none away
    sharpen(*pair, tmp_path / "plain.tif", method="gsa", registration=(0.0, 0.0))
    with rasterio.open(tmp_path / "o.tif") as a, rasterio.open(tmp_path / "plain.tif") as b:
        assert np.array_equal(a.read(), b.read())


def test_the_scores_are_of_the_sensor_that_was_named(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=128, ratio=4, bands=4)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif"
    found = sharpen(*files, tmp_path / "o.tif", method="gsa", score=True, sensor="QB").scores

    def scored(sensor: str | None) -> dict[str, float]:
        with ExitStack() as stack:
            options = ScoreOptions(tmp_path / "o.tif", pan=files[0], ms=(files[1],), sensor=sensor)
            return dict(score(options, stack).result.scores["fused"])

    named, generic = scored("QB"), scored(None)
    assert found == {name: named[name] for name in found}
    assert found != {name: generic[name] for name in found}


def test_the_correction_that_was_made_counts_in_the_scores(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=256, ratio=4, bands=3)
    with rasterio.open(tmp_path / "ms.tif", "r+") as file:
        file.transform = file.transform @ Affine.translation(1.2, 0)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif"
    result = sharpen(*files, tmp_path / "o.tif", method="gsa", score=True)
    assert result.registration.applied
    with rasterio.open(tmp_path / "o.tif") as file:
        told = tuple(map(float, file.tags()["PANCRAFTER_SHIFT"].split(",")))
    assert told == (result.registration.dx, result.registration.dy)  # --registration with the tag does the same

    def scored(registration: tuple[float, float] | str) -> float:
        with ExitStack() as stack:
            options = ScoreOptions(tmp_path / "o.tif", pan=files[0], ms=(files[1],), registration=registration)
            return float(score(options, stack).result.scores["fused"]["hqnr"])

    assert result.scores["hqnr"] == pytest.approx(scored((result.registration.dx, result.registration.dy)), abs=1e-9)
    assert result.scores["hqnr"] != pytest.approx(scored("off"), abs=1e-3)


def test_a_product_too_small_to_be_scored_is_kept(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=16, ratio=4, bands=3)
    result = sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif", method="exp", score=True)
    assert result.scores == {}
    assert "not scored" in result.warnings[0]
    assert "PANCRAFTER_HQNR" not in tags(tmp_path / "o.tif")


# --- STAC


def test_the_item_says_where_and_what(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with rasterio.open(pair[1], "r+") as file:
        file.descriptions = ("Blue", "red-edge", "band of mine")
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2011-05-24 10:52:07.5")
    (tmp_path / "layers").mkdir()
    layer = tmp_path / "layers" / "c.tif"
    result = sharpen(*pair, tmp_path / "o.tif", method="gsa", stac=True, score=True, confidence=layer)
    assert result.stac == tmp_path / "o.json"
    item = json.loads(result.stac.read_text())
    assert (item["type"], item["stac_version"], item["id"], item["links"]) == ("Feature", "1.0.0", "o", [])
    facts = item["properties"]
    assert facts["datetime"] == "2011-05-24T10:52:07Z"
    assert facts["pancrafter:datetime_source"] == "ACQUISITIONDATETIME of ms.tif"
    assert facts["proj:code"] == "EPSG:32631"
    assert facts["proj:shape"] == [128, 128]
    assert facts["proj:transform"] == [0.5, 0, 500_000, 0, -0.5, 5_700_000]
    assert facts["processing:software"] == {"pancrafter": __version__}
    assert float(facts["pancrafter:hqnr"]) == pytest.approx(result.scores["hqnr"], rel=1e-5)
    assert [f["name"] for f in facts["pancrafter:inputs"]] == ["pan.tif", "ms.tif", "ms.tif.aux.xml"][
        : len(facts["pancrafter:inputs"])
    ]
    bands = item["assets"]["data"]["eo:bands"]
    assert bands == [
        {"name": "Blue", "common_name": "blue"},
        {"name": "red-edge", "common_name": "rededge"},
        {"name": "band of mine"},
    ]
    assert {k: a["href"] for k, a in item["assets"].items()} == {"data": "./o.tif", "confidence": "./layers/c.tif"}
    west, south, east, north = item["bbox"]
    middle = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True).transform(500_032, 5_699_968)
    assert west < middle[0] < east
    assert south < middle[1] < north
    assert east - west < 0.001


def test_an_item_is_dated_to_now_when_nobody_knows_better(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    sharpen(*pair, tmp_path / "o.tif", method="exp", stac=True)
    facts = json.loads((tmp_path / "o.json").read_text())["properties"]
    assert facts["datetime"] == facts["created"]
    assert abs(datetime.fromisoformat(facts["datetime"]).timestamp() - (tmp_path / "o.tif").stat().st_mtime) < 60
    assert "do not name" in facts["pancrafter:datetime_source"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024:02:29 23:59:59", "2024-02-29T23:59:59+00:00"),
        ("2020-05-06T12:34:56.7+08:00", "2020-05-06T12:34:56+08:00"),
        ("2020-05-06 12:34:56-0330", "2020-05-06T12:34:56-03:30"),
        ("2020-05-06T12:34:56Z", "2020-05-06T12:34:56+00:00"),
        ("2023:02:29 00:00:00", None),
        ("", None),
    ],
)
def test_times_in_metadata(tmp_path: Path, text: str, expected: str | None) -> None:
    path = write_tif(tmp_path / "a.tif", np.zeros((1, 4, 4), np.uint8))
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME=text)
    found = acquisition_time([tmp_path / "none.imd", path])
    assert (found[0].isoformat() if found else None) == expected


def test_the_surest_of_several_times_counts(tmp_path: Path) -> None:
    """The TIFF's own is often that of the processing."""
    path = write_tif(tmp_path / "a.tif", np.zeros((1, 4, 4), np.uint8))
    for domain, key, year in (
        (None, "TIFFTAG_DATETIME", 2023),
        (None, "ACQUISITIONDATETIME", 2022),
        ("IMAGERY", "ACQUISITIONDATETIME", 2021),
    ):
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns=domain, **{key: f"{year}-05-24 10:52:07"})
        found = acquisition_time([path])
        assert found is not None
        assert (found[0].year, found[1]) == (year, f"{key} of a.tif")


def test_without_a_crs_there_is_no_item_and_nothing_is_written(tmp_path: Path) -> None:
    for name, size, step in (("pan", 64, 1.0), ("ms", 16, 4.0)):
        facts = FileFacts(transform=Affine(step, 0, 9, 0, -step, 9), crs=None)
        image = np.random.default_rng(0).integers(50, 900, (1 if name == "pan" else 3, size, size)).astype(np.uint16)
        write_tif(tmp_path / f"{name}.tif", image, facts)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif"
    with pytest.raises(GeometryError, match="STAC") as caught:
        sharpen(*files, method="exp", stac=True)
    assert "gdal_edit" in caught.value.hint
    assert not files[2].exists()
    sharpen(*files, method="exp")


def test_an_item_is_not_overwritten_unasked(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "o.json").write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        sharpen(*pair, tmp_path / "o.tif", method="exp", stac=True)
    assert (tmp_path / "o.json").read_text() == "precious"
    assert not (tmp_path / "o.tif").exists()
    with pytest.raises(OutputError, match=r"o\.json: is no STAC item of o\.tif"):
        sharpen(*pair, tmp_path / "o.tif", method="exp", stac=True, overwrite=True)
    assert (tmp_path / "o.json").read_text() == "precious"


def test_an_item_goes_with_the_product_it_describes(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    def method() -> str:
        return str(json.loads((tmp_path / "o.json").read_text())["properties"]["pancrafter:method"])

    for name in ("exp", "brovey"):
        sharpen(*pair, tmp_path / "o.tif", method=name, stac=True, overwrite=True)
        assert method() == name
    sharpen(*pair, tmp_path / "o.tif", method="gsa", overwrite=True)
    assert not (tmp_path / "o.json").exists()
    (tmp_path / "o.json").write_text("precious")
    sharpen(*pair, tmp_path / "o.tif", method="exp", overwrite=True)
    assert (tmp_path / "o.json").read_text() == "precious"


def test_the_item_of_another_product_of_that_name_is_left_alone(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    sharpen(*pair, tmp_path / "c.tiff", method="exp", stac=True)
    item = (tmp_path / "c.json").read_bytes()
    sharpen(*pair, tmp_path / "c.tif", method="exp")
    assert (tmp_path / "c.json").read_bytes() == item
    with pytest.raises(OutputError, match=r"c\.json: is no STAC item of c\.tif"):
        sharpen(*pair, tmp_path / "c.tif", method="brovey", stac=True, overwrite=True)
    assert (tmp_path / "c.json").read_bytes() == item


@pytest.mark.parametrize("encoded", [True, False])
def test_assets_are_named_by_urls(tmp_path: Path, pair: tuple[Path, Path], encoded: bool) -> None:
    name = "scene #1 50%25 ö"
    sharpen(*pair, tmp_path / f"{name}.tif", method="exp", stac=True)
    path = tmp_path / f"{name}.json"
    item = json.loads(path.read_text())
    assert item["id"] == name
    assert item["assets"]["data"]["href"] == "./scene%20%231%2050%2525%20%C3%B6.tif"
    if not encoded:  # as earlier versions wrote it
        item["assets"]["data"]["href"] = f"./{name}.tif"
        path.write_text(json.dumps(item))
    sharpen(*pair, tmp_path / f"{name}.tif", method="exp", overwrite=True)
    assert not path.exists()


def test_the_item_beside_a_link_finds_the_product(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "o.tif").symlink_to(tmp_path / "disk" / "real.tif")
    sharpen(*pair, tmp_path / "o.tif", method="exp", stac=True)
    href = json.loads((tmp_path / "o.json").read_text())["assets"]["data"]["href"]
    assert href == "./disk/real.tif"


@pytest.mark.parametrize(
    ("description", "common"),
    [
        ("blue (480 Nanometers)", "blue"),
        ("Red Edge (0.705 Micrometers)", "rededge"),
        ("green (560.000000)", "green"),
        ("nir (of mine)", None),
    ],
)
def test_names_with_wavelengths_are_still_names(
    tmp_path: Path, pair: tuple[Path, Path], description: str, common: str | None
) -> None:
    with rasterio.open(pair[1], "r+") as file:
        file.descriptions = (description, "", "")
    sharpen(*pair, tmp_path / "o.tif", method="exp", stac=True)
    band = json.loads((tmp_path / "o.json").read_text())["assets"]["data"]["eo:bands"][0]
    assert (band["name"], band.get("common_name")) == (description, common)


def test_a_local_crs_lies_nowhere_on_earth() -> None:
    site = Grid(Affine.scale(2.0), 10, 10, 'LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(GeometryError, match="longitude and latitude"):
        footprint(site)


def area(ring: list[list[float]]) -> float:
    x, y = np.array(ring[:-1]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@given(
    lon=st.floats(-179.9, 179.9),
    lat=st.floats(-75, 75),
    size=st.integers(10, 3000),
    up=st.booleans(),
)
def test_footprints_are_rings_within_their_box(lon: float, lat: float, size: int, up: bool) -> None:
    step = 1e-4
    t = Affine(step, 0, lon, 0, step if up else -step, lat)
    geometry, (west, south, east, north) = footprint(Grid(t, size, size // 2 + 1, CRS.from_epsg(4326).to_wkt()))
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    total = 0.0
    for (ring,) in polygons:
        assert ring[0] == ring[-1]
        assert area(ring) > 0  # counterclockwise, as GeoJSON wants it
        total += area(ring)
        assert all(-180 <= x <= 180 and south <= y <= north for x, y in ring)
    assert total == pytest.approx(step * size * step * (size // 2 + 1), rel=1e-3)
    crosses = lon + size * step > 180
    assert (geometry["type"] == "MultiPolygon") == crosses
    assert (west > east) == crosses


@pytest.mark.parametrize(("epsg", "pole"), [(3413, 90.0), (3031, -90.0)])
@pytest.mark.parametrize("off", [0, 7000])
def test_a_footprint_around_a_pole_holds_it(epsg: int, pole: float, off: int) -> None:
    wkt = CRS.from_epsg(epsg).to_wkt()
    geometry, (west, south, east, north) = footprint(
        Grid(Affine(10, 0, -10_000 + off, 0, -10, 10_000), 2000, 2000, wkt)
    )
    assert (west, east) == (-180, 180)
    assert pole in (south, north)
    (ring,) = geometry["coordinates"]
    assert geometry["type"] == "Polygon"
    assert area(ring) > 0
    assert {(-180, pole), (180, pole)} <= {(x, y) for x, y in ring}
    # The corner farthest from the pole, at some 111.7 km a degree.
    farthest = math.hypot(10_000, 10_000 + off) / 111_700
    assert abs(pole) - min(abs(y) for _, y in ring) == pytest.approx(farthest, rel=0.06)
    beside, _ = footprint(Grid(Affine(10, 0, 30_000, 0, -10, 10_000), 2000, 2000, wkt))
    assert all(abs(y) < 90 for _, y in beside["coordinates"][0])


@pytest.mark.parametrize("epsg", [3413, 3031])
@pytest.mark.parametrize("corner", [(-1, 0), (0, 0), (-1, 1), (0, 1)])
@pytest.mark.parametrize("beside", [0.0, 1e-9, -1e-9])
def test_a_pole_on_the_outline_is_not_inside(epsg: int, corner: tuple[int, int], beside: float) -> None:
    """Tiles of polar mosaics meet there."""
    wkt = CRS.from_epsg(epsg).to_wkt()
    to_degrees = Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)
    x, y = 20_000 * corner[0] + beside, 20_000 * corner[1]
    for top, share in ((y, 90), (10_037, 180)):  # at a corner; on an edge, between two of its points
        geometry, (west, south, east, north) = footprint(Grid(Affine(10, 0, x, 0, -10, top), 2000, 2000, wkt))
        rings = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        assert (east - west) % 360 == pytest.approx(share, abs=0.01)
        assert -90 <= south < north <= 90
        middle = to_degrees.transform(x + 10_000, top - 10_000)
        assert (middle[0] - west) % 360 < (east - west) % 360
        assert all(area(ring) > 0 for (ring,) in rings)


def test_a_utm_scene_across_the_antimeridian_is_cut_in_two() -> None:
    wkt = CRS.from_epsg(32601).to_wkt()
    x, y = Transformer.from_crs("EPSG:4326", wkt, always_xy=True).transform(-180.0, 65.0)
    grid = Grid(Affine(10, 0, x - 20_000, 0, -10, y + 10_000), 4000, 2000, wkt)
    geometry, (west, south, east, north) = footprint(grid)
    assert geometry["type"] == "MultiPolygon"
    assert 179 < west < 180
    assert -180 < east < -179
    assert south < 65 < north
    sides = [{x > 0 for x, _ in ring} for (ring,) in geometry["coordinates"]]
    assert sorted(len(s) for s in sides) == [1, 1]
    moved, _ = footprint(replace(grid, transform=Affine(10, 0, x + 20_000, 0, -10, y)))
    assert moved["type"] == "Polygon"


def test_the_time_of_a_file_in_an_archive_is_found(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with rasterio.open(pair[1], "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2020:05:06 10:11:12")
    with zipfile.ZipFile(tmp_path / "pair.zip", "w") as archive:
        archive.write(pair[1], "ms.tif")
    found = acquisition_time([Path("/vsizip/", str(tmp_path / "pair.zip").lstrip("/"), "ms.tif")])
    assert found is not None
    assert found[0].isoformat() == "2020-05-06T10:11:12+00:00"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("registration", "nonsense"),
        ("registration", "0.5,0.25"),
        ("registration", (1.0,)),
        ("nodata", "0"),
        ("max_memory", "2G"),
        ("tile", "512"),
        ("consistency", 1.5),
        ("ratio", "4"),
    ],
)
def test_the_function_refuses_what_no_flag_could_say(
    tmp_path: Path, pair: tuple[Path, Path], name: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=name):
        sharpen(*pair, tmp_path / "o.tif", method="exp", **{name: value})
    assert not (tmp_path / "o.tif").exists()
