"""Batches: what a manifest means, what is skipped, what fails, and that the rest goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
import rasterio
from typer.testing import CliRunner

from pancrafter_cli.cli.main import app
from pancrafter_cli.errors import OutputError, PancrafterError, UsageError
from pancrafter_cli.raster.part import PartFile, kept_name
from pancrafter_cli.tasks import batch
from pancrafter_cli.tasks.batch import Job, Outcome, Plan, look_at, plan_batch, run_batch, run_job
from pancrafter_cli.tasks.manifest import read_manifest
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions, SharpenResult
from pancrafter_cli.zoo import DEFAULT_MODEL, WEIGHTS_FILE, file_sha256, resolve
from tests.pairs import write_pair
from tests.rpc_scene import write_dem, write_rpc_scene

RUN = "from pancrafter_cli.cli.main import run; run()"
BROVEY = SharpenOptions(Path(), (), Path(), method="brovey", registration="off")


def pancrafter(*args: object, code: str = RUN) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def write_scenes(folder: Path, count: int, size: int = 64) -> Path:
    """Subfolders s00, s01, ... of one pair each, all different."""
    for n in range(count):
        write_pair(folder / f"s{n:02}", seed=n, pan_size=size, ratio=4, bands=3)
    return folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.scene: outcome.status for outcome in outcomes}


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", 2)


# --- folders


def test_pairs_of_a_folder_are_found_by_name_and_nothing_is_silently_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "Paris_PAN.TIF", "paris_ms.tif")
    touch(tmp_path, "GF2_PMS1_E113.6_N22.5_L1A01-PAN1.tiff", "GF2_PMS1_E113.6_N22.5_L1A01-MSS1.tiff")
    touch(tmp_path, "GF2_PMS2_E113.6_N22.5_L1A01-PAN2.tiff", "GF2_PMS2_E113.6_N22.5_L1A01-MSS2.tiff")
    touch(tmp_path, "pan_of_rome_pan.tif", "pan_of_rome_mul.tif")
    touch(tmp_path, "oslo_pan.tif", "bonn_ms.tif", "nice_pan.tif", "nice_ms.tif", "nice_mul.jp2")
    touch(tmp_path, "dem.tif", "notes.txt", ".hidden_pan.tif", "empty/readme.txt")
    touch(tmp_path, "a/PAN.tif", "a/ms.TIF", "a/gt.tif", "b/x/scene_pan.tif", "out/old.tif")
    found = read_manifest(tmp_path, tmp_path / "out")
    by_name = {entry.scene: (entry.pan.name, *(path.name for path in entry.ms)) for entry in found.scenes}
    assert by_name == {
        "Paris": ("Paris_PAN.TIF", "paris_ms.tif"),
        "GF2_PMS1_E113.6_N22.5_L1A01-1": (
            "GF2_PMS1_E113.6_N22.5_L1A01-PAN1.tiff",
            "GF2_PMS1_E113.6_N22.5_L1A01-MSS1.tiff",
        ),
        "GF2_PMS2_E113.6_N22.5_L1A01-2": (
            "GF2_PMS2_E113.6_N22.5_L1A01-PAN2.tiff",
            "GF2_PMS2_E113.6_N22.5_L1A01-MSS2.tiff",
        ),
        "pan_of_rome": ("pan_of_rome_pan.tif", "pan_of_rome_mul.tif"),
        "a": ("PAN.tif", "ms.TIF"),
        "b": ("b",),
    }
    assert {item.name: item.reason for item in found.broken} == {
        "oslo": "oslo_pan.tif: there is no MS of this name",
        "bonn": "bonn_ms.tif: there is no PAN of this name",
        "nice": "1 PAN and 2 MS files share this name: nice_pan.tif, nice_ms.tif, nice_mul.jp2",
    }
    assert [item.name for item in found.left_out] == ["dem.tif", "empty"]


def test_a_folder_without_scenes_is_refused_with_what_was_seen(tmp_path: Path) -> None:
    touch(tmp_path, "LC08_L1TP_199030_20200101_20200101_02_T1_B8.TIF")
    with pytest.raises(UsageError, match=r"holds no scene; seen: LC08_\w+_B8.TIF"):
        read_manifest(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="neither a CSV file nor a folder"):
        read_manifest(tmp_path / "nothing", tmp_path / "out")


def test_archives_and_previews_are_left_out_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path, "LC08.tar", "packed/LC09.tar.gz", "empty/notes.txt")
    with pytest.raises(UsageError, match=r"empty \(.* within 3 levels\), packed \(.*archive.*LC08\.tar \(an archive"):
        read_manifest(tmp_path, tmp_path / "out")
    touch(tmp_path, "oslo_pan.tif", "oslo_ms.tif", "oslo_pan_preview.tif", "thumb_pan.tif", "thumb_ms.tif")
    found = read_manifest(tmp_path, tmp_path / "out")
    assert ([entry.scene for entry in found.scenes], found.broken) == (["oslo", "thumb"], ())
    assert {item.name: item.reason for item in found.left_out} == {
        "oslo_pan_preview.tif": "a preview by its name",
        "empty": "a folder without rasters within 3 levels",
        "packed": "a folder without rasters within 3 levels, but with an archive: unpack it",
        "LC08.tar": "an archive: unpack it",
    }


def test_products_beside_flat_pairs_are_not_taken_for_strangers(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=3)
    (tmp_path / "pan.tif").rename(tmp_path / "x_pan.tif")
    (tmp_path / "ms.tif").rename(tmp_path / "x_ms.tif")
    for status in ("done", "skipped"):
        plan = plan_batch(tmp_path, tmp_path, BROVEY, confidence=True)
        assert (plan.broken, plan.left_out) == ((), ())
        assert statuses(list(run_batch(plan))) == {"x": status}
    assert (tmp_path / "x.tif").exists()
    assert (tmp_path / "x-confidence.tif").exists()


@pytest.mark.parametrize("out", ["out", "out/deeper/still", "s00/sharp"])
def test_products_of_earlier_batches_are_no_scenes(tmp_path: Path, scenes: Path, out: str) -> None:
    """Whether they lie in --out, however deep, or where another --out has been."""
    (scenes / "s00/pan.tif").rename(scenes / "s00/a.tif")  # not by its name, but as one of two rasters
    for status in ("done", "skipped"):
        plan = plan_batch(scenes, scenes / out, BROVEY, confidence=True)
        assert (plan.broken, plan.left_out) == ((), ())
        assert statuses(list(run_batch(plan))) == {"s00": status, "s01": status}
    other = plan_batch(scenes, scenes / "elsewhere", BROVEY)
    assert [(job.scene, look_at(job).status) for job in other.jobs] == [("s00", "to do"), ("s01", "to do")]
    left_out = {item.name: item.reason for item in other.left_out}
    assert left_out == ({} if out.startswith("s00") else {"out": "holds nothing but products of pancrafter"})


def test_products_of_earlier_batches_beside_flat_pairs_are_no_parts_of_scenes(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=3)
    (tmp_path / "pan.tif").rename(tmp_path / "pan_of_rome_pan.tif")
    (tmp_path / "ms.tif").rename(tmp_path / "pan_of_rome_ms.tif")
    for status in ("done", "skipped"):
        plan = plan_batch(tmp_path, tmp_path, BROVEY)
        assert (plan.broken, plan.left_out) == ((), ())
        assert statuses(list(run_batch(plan))) == {"pan_of_rome": status}
    other = plan_batch(tmp_path, tmp_path / "out", BROVEY)
    assert [(item.name, item.reason) for item in other.left_out] == [("pan_of_rome.tif", "a product of pancrafter")]


# --- CSV


def test_a_csv_says_where_scenes_lie_and_how_they_are_to_be_sharpened(tmp_path: Path) -> None:
    manifest = tmp_path / "list" / "scenes.csv"
    touch(tmp_path, "list/scenes.csv", "list/product/x_B8.TIF")
    manifest.write_text(
        "\ufeffPan, MS ,output,sensor,nodata,registration,ratio,ms_origin\n"
        'paris_pan.tif,paris_b1.tif; paris_b2.tif,town/p.tif,QB,nan,"0.5,-1",4,"1.5,2"\n'
        "\n"
        "product,,,,,,,\n"
        "../rome/pan.tif,/abs/ms.tif,,,auto,off,,\n"
        "s3://bucket/a_pan.tif,https://host/a_ms.tif,,,,,,\n",
        encoding="utf-8",
    )
    base = tmp_path / "list"
    first, product, rome, remote = read_manifest(manifest, tmp_path).scenes
    assert first.scene == "town/p"
    assert (first.pan, first.ms) == (base / "paris_pan.tif", (base / "paris_b1.tif", base / "paris_b2.tif"))
    assert first.output == Path("town/p.tif")
    assert repr(first.given) == repr(
        {
            "sensor": "QB",
            "nodata": float("nan"),
            "registration": (0.5, -1.0),
            "ratio": 4.0,
            "ms_origin": (1.5, 2.0),
        }
    )
    assert (product.scene, product.pan, product.ms) == ("product", base / "product", ())
    assert (rome.scene, rome.ms) == ("rome", (Path("/abs/ms.tif"),))
    assert rome.given == {"nodata": "auto", "registration": "off"}
    assert remote.pan == Path("s3://bucket/a_pan.tif")
    jobs = plan_batch(manifest, tmp_path / "out", replace(BROVEY, sensor="IKONOS", nodata=0)).jobs
    assert [job.options.output for job in jobs][:2] == [tmp_path / "out/town/p.tif", tmp_path / "out/product.tif"]
    assert [job.options.sensor for job in jobs] == ["QB", "IKONOS", "IKONOS", "IKONOS"]
    assert jobs[1].options.nodata == 0
    assert jobs[3].options.ms == (Path("https://host/a_ms.tif"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pan,mss,colour\n", "unknown columns mss, colour"),
        ("pan;ms\na;b\n", "unknown column pan;ms"),
        ("ms\nx.tif\n", "no column pan"),
        ("pan,ms,ms\n", "ms is there twice"),
        ("", "no column pan"),
        ("pan,ms\n", "holds no scene"),
        ("pan,ms\na.tif,b.tif\nc.tif,d.tif,e.tif\n", "line 3: has 3 fields, expected 2"),
        ("pan,ms\n,b.tif\n", "line 2: pan is empty"),
        ("pan,ms,nodata\na.tif,b.tif,black\n", "line 2: nodata: --nodata 'black' is not possible"),
        ("pan,ms,ratio\na.tif,b.tif,four\n", "line 2: ratio 'four' is not possible"),
        ("pan,ms,ms_origin\na.tif,b.tif,4\n", "line 2: ms_origin '4' is not possible"),
        ("pan,ms,registration\na.tif,b.tif,on\n", "line 2: registration: "),
        ('pan,ms\n"a.tif,b.tif\n', "cannot be read as CSV"),
        ("pan,ms\nx/pan.tif,x/ms.tif\ny/x/pan.tif,y/x/ms.tif\n", "the scenes x and x would both be written to"),
        ("pan,ms,output\na.tif,b.tif,sub/x\n", "the product of the scene sub/x is a GeoTIFF"),
        ("pan,ms,output\na.tif,b.tif,c.tif\nd.tif,e.tif,C.TIF\n", "the scenes c and C would both be written to"),
        ("pan,ms,output\na.tif,b.tif,c.tif\nd.tif,e.tif,c-confidence.tif\n", "would both be written to"),
        ("pan,ms,output\na.tif,b.tif,../d.tif\nd.tif,e.tif,\n", "is an input of the scene d"),
        ("pan,ms\na.tif,b.tif\n../pan\0.tif,c.tif\n", "line 3: pan holds a NUL character"),
        ("pan,ms,output\na.tif,b.tif,s3://bucket/c.tif\n", "line 2: output: s3:/bucket/c.tif: outputs are local files"),
    ],
)
def test_a_csv_that_cannot_be_meant_is_refused_before_anything_runs(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "scenes.csv").write_text(text)
    with pytest.raises(UsageError) as raised:
        plan_batch(tmp_path / "scenes.csv", tmp_path / "out", BROVEY, confidence=True)
    assert says in raised.value.message
    assert raised.value.hint
    assert not (tmp_path / "out").exists()


def test_an_output_that_no_file_can_be_called_fails_its_scene_alone(tmp_path: Path, scenes: Path) -> None:
    rows = [f"s00/pan.tif,s00/ms.tif,{'x' * 300}.tif", "s01/pan.tif,s01/ms.tif,b.tif"]
    (scenes / "scenes.csv").write_text("\n".join(["pan,ms,output", *rows]))
    (tmp_path / "out").mkdir()
    plan = plan_batch(scenes / "scenes.csv", tmp_path / "out", BROVEY, confidence=True)
    assert [look_at(job).error for job in plan.jobs] == ["OutputError", ""]
    first, second = run_batch(plan)
    assert (first.error, first.traceback, second.status) == ("OutputError", "", "done")
    assert first.message.endswith("x.tif: cannot be written to: File name too long")
    assert first.hint


def test_products_go_to_local_folders(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("s3://bucket/sharp", "/vsimem/sharp"):
        with pytest.raises(OutputError, match="outputs are local files"):
            plan_batch(scenes, Path(out), BROVEY)
    with pytest.raises(OutputError, match="File name too long"):
        plan_batch(scenes, tmp_path / ("x" * 300), BROVEY)
    assert list(tmp_path.iterdir()) == [scenes]


def test_a_csv_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scenes.csv").write_bytes("pan,ms\nMünchen.tif,b.tif\n".encode("latin-1"))
    with pytest.raises(UsageError, match="cannot be read as CSV"):
        plan_batch(tmp_path / "scenes.csv", tmp_path / "out", BROVEY)


def test_unknown_methods_and_models_are_told_before_anything_runs(tmp_path: Path, scenes: Path) -> None:
    for options in (replace(BROVEY, method="magic"), replace(BROVEY, method="network", model="nothing")):
        with pytest.raises(UsageError, match="unknown"):
            plan_batch(scenes, tmp_path / "out", options)


# --- running, and what is finished


def test_products_are_those_of_single_runs_to_the_byte(tmp_path: Path, scenes: Path) -> None:
    outcomes = list(run_batch(plan_batch(scenes, tmp_path / "out", BROVEY)))
    assert statuses(outcomes) == {"s00": "done", "s01": "done"}
    assert [(o.width, o.height, o.bands) for o in outcomes] == [(64, 64, 3)] * 2
    for name in ("s00", "s01"):
        single = tmp_path / f"{name}.tif"
        folder = scenes / name
        sharpen_scene(replace(BROVEY, pan=folder / "pan.tif", ms=(folder / "ms.tif",), output=single))
        assert single.read_bytes() == (tmp_path / "out" / f"{name}.tif").read_bytes()


def test_finished_scenes_are_skipped_and_stale_ones_kept_unless_told(tmp_path: Path, scenes: Path) -> None:
    out = tmp_path / "out"

    def go(options: SharpenOptions = BROVEY) -> list[Outcome]:
        return list(run_batch(plan_batch(scenes, out, options)))

    go()
    before = (out / "s00.tif").stat().st_mtime_ns
    touch(scenes, "s00/pan.tif.aux.xml")  # as a viewer leaves it
    assert [o.status for o in go()] == ["skipped", "skipped"]
    assert [(o.width, o.height, o.bands) for o in go()] == [(64, 64, 3)] * 2
    assert (out / "s00.tif").stat().st_mtime_ns == before
    write_pair(scenes / "s00", seed=9, pan_size=64, ratio=4, bands=3)
    stale, kept = go()
    assert (stale.status, kept.status) == ("failed", "skipped")
    assert stale.message == "stale: s00.tif exists, made from other contents of pan.tif, ms.tif"
    assert "--overwrite" in stale.hint
    assert (out / "s00.tif").stat().st_mtime_ns == before
    assert [o.status for o in go(replace(BROVEY, overwrite=True))] == ["done", "done"]
    assert [o.status for o in go()] == ["skipped", "skipped"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"method": "gsa"}, "made with method brovey, now gsa"),
        ({"consistency": 2}, "made with consistency 0, now 2"),
        ({"sensor": "QB"}, "made with sensor not given, now QB"),
        ({"registration": (0.5, 0.0)}, "made with registration off, now 0.5,0.0"),
        ({"local_registration": True}, "made with local_registration False, now True"),
        ({"nodata": 0.0}, "made with nodata not given, now 0.0"),
        ({"tile": 256}, "made with tile 512, now 256"),
        ({"halo": 64}, "made with halo 32, now 64"),
        ({"blend": 8}, "made with blend 16, now 8"),
        ({"precision": "fp32"}, "made with precision auto, now fp32"),
        ({"ms_mtf": 0.2}, "made with ms_mtf not given, now 0.2"),
        ({"ratio": 4.0}, "made with ratio not given, now 4.0"),
        ({"ms_origin": (1.5, 2.0)}, "made with ms_origin not given, now 1.5,2.0"),
        ({"dem": Path("dem.tif")}, "made with dem not given, now dem.tif"),
    ],
)
def test_other_options_make_a_product_stale(tmp_path: Path, scenes: Path, changed: dict[str, Any], says: str) -> None:
    options = {"pan": scenes / "s00/pan.tif", "ms": (scenes / "s00/ms.tif",), "output": tmp_path / "o.tif"}
    job = Job("s00", replace(BROVEY, **options))
    assert run_job(job).status == "done"
    same = replace(job, options=replace(job.options, consistency=0, device="cpu", command=("other",)))
    assert look_at(same).status == "skipped"
    outcome = look_at(replace(job, options=replace(job.options, **changed)))
    assert outcome.status == "failed"
    assert says in outcome.message


def test_local_registration_where_it_was_not_asked_for_is_another_request(tmp_path: Path, scenes: Path) -> None:
    options = {"pan": scenes / "s00/pan.tif", "ms": (scenes / "s00/ms.tif",), "output": tmp_path / "o.tif"}
    job = Job("s00", replace(BROVEY, registration="auto", **options))
    assert run_job(job).status == "done"
    assert look_at(job).status == "skipped"
    for asked, now in ((True, "True"), (False, "False")):
        outcome = look_at(replace(job, options=replace(job.options, local_registration=asked)))
        assert f"made with local_registration auto, now {now}" in outcome.message


def test_any_input_that_changed_makes_a_product_stale(tmp_path: Path, scenes: Path) -> None:
    """Inputs of one name, an order of bands, and what GDAL's file beside a raster says of its place."""
    for name in ("PAN", "MUL"):
        (tmp_path / name).mkdir()
    pan, ms = tmp_path / "PAN" / "img.tif", tmp_path / "MUL" / "img.tif"
    shutil.copy(scenes / "s00/pan.tif", pan)
    shutil.copy(scenes / "s00/ms.tif", ms)
    bands = []
    with rasterio.open(ms) as file:
        for k in (1, 2):
            bands.append(tmp_path / f"b{k}.tif")
            with rasterio.open(bands[-1], "w", **file.profile | {"count": 1}) as one:
                one.write(file.read(k), 1)
    whole = Job("whole", replace(BROVEY, pan=pan, ms=(ms,), output=tmp_path / "whole.tif"))
    apart = Job("apart", replace(BROVEY, pan=pan, ms=tuple(bands), output=tmp_path / "apart.tif"))
    assert [run_job(job).status for job in (whole, apart)] == ["done", "done"]
    turned = replace(apart, options=replace(apart.options, ms=tuple(bands[::-1])))
    assert "made from its files in another order" in look_at(turned).message
    beside = ms.with_name("img.tif.aux.xml")
    beside.write_text('<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">5</MDI></Metadata>'
                      "<Histograms><HistItem/></Histograms></PAMRasterBand></PAMDataset>")  # fmt: skip
    assert look_at(whole).status == "skipped"
    beside.write_text("<PAMDataset><GeoTransform>500000.5, 2, 0, 5700000, 0, -2</GeoTransform></PAMDataset>")
    assert "other contents of img.tif.aux.xml" in look_at(whole).message
    beside.unlink()
    with rasterio.open(pan, "r+") as file:
        file.write(file.read() + 1)
    assert "other contents of img.tif" in look_at(whole).message


def test_files_behind_nested_vrts_count(tmp_path: Path, scenes: Path) -> None:
    ms = tmp_path / "ms.tif"
    shutil.copy(scenes / "s00/ms.tif", ms)
    names = [ms, tmp_path / "inner.vrt", tmp_path / "outer.vrt"]
    with rasterio.open(ms) as file:
        facts = f'rasterXSize="{file.width}" rasterYSize="{file.height}"', file.crs.to_wkt(), file.transform.to_gdal()
    for source, vrt in pairwise(names):
        bands = "".join(
            f'<VRTRasterBand dataType="UInt16" band="{b}"><SimpleSource><SourceFilename relativeToVRT="1">{source.name}'
            f"</SourceFilename><SourceBand>{b}</SourceBand></SimpleSource></VRTRasterBand>"
            for b in (1, 2, 3)
        )
        place = f"<SRS>{escape(facts[1])}</SRS><GeoTransform>{str(facts[2])[1:-1]}</GeoTransform>"
        vrt.write_text(f"<VRTDataset {facts[0]}>{place}{bands}</VRTDataset>")
    job = Job("s00", replace(BROVEY, pan=scenes / "s00/pan.tif", ms=(names[-1],), output=tmp_path / "o.tif"))
    assert run_job(job).status == "done"
    assert look_at(job).status == "skipped"
    with pytest.raises(PancrafterError, match="is one of the inputs"):
        sharpen_scene(replace(job.options, output=ms, overwrite=True))
    with rasterio.open(ms, "r+") as file:
        file.write(file.read() + 1)
    assert "other contents of ms.tif" in look_at(job).message


def test_files_that_are_no_product_are_never_replaced_unasked(tmp_path: Path, scenes: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "s00.tif").write_text("mine")
    shutil.copy(scenes / "s01/pan.tif", tmp_path / "out" / "s01.tif")
    first, second = run_batch(plan_batch(scenes, tmp_path / "out", BROVEY))
    assert (first.status, second.status) == ("failed", "failed")
    assert "cannot be read" in first.message
    assert "does not say how it was made" in second.message
    assert (tmp_path / "out" / "s00.tif").read_text() == "mine"


def test_what_a_killed_run_left_is_completed_and_removed(tmp_path: Path, scenes: Path) -> None:
    out = tmp_path / "out"
    plan = plan_batch(scenes, out, replace(BROVEY, stac=True), confidence=True)
    assert [o.status for o in run_batch(plan)] == ["done", "done"]
    files = [out / "s00.tif", out / "s00-confidence.tif", out / "s00.json"]
    touch(out, ".s00.tif.123.0a1b2c.part.tif", ".other.tif.123.0a1b2c.part.tif")
    for lost in files:
        lost.unlink()
        if lost.suffix == ".tif":  # the layer takes its name before the product, and the item comes last
            files[2].unlink(missing_ok=True)
        assert look_at(plan.jobs[0]).status == "to do"
        assert [o.status for o in run_batch(plan)] == ["done", "skipped"]
        assert all(file.exists() for file in files)
    assert sorted(path.name for path in out.glob(".*")) == [".other.tif.123.0a1b2c.part.tif"]


def test_a_scene_that_fails_does_not_stop_the_rest(tmp_path: Path, scenes: Path) -> None:
    write_scenes(scenes, 5)
    (scenes / "s01" / "ms.tif").write_bytes(b"no raster")
    shutil.rmtree(scenes / "s02")
    touch(scenes, "s02/only_pan.tif", "lonely_pan.tif", "dem.tif")
    words = ("batch", scenes, "--out", tmp_path / "out", "--method", "brovey", "--registration", "off")
    looked = pancrafter(*words, "--dry-run")
    assert looked.returncode == 1
    assert looked.stdout.splitlines()[-1] == "3 to do, 3 failed"
    assert not (tmp_path / "out").exists()
    done = pancrafter(*words)
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["scene", "status", "seconds", "size", "message"]
    assert [line.split()[:2] for line in lines[1:7]] == [
        ["s00", "done"],
        ["s01", "failed"],
        ["s02", "failed"],
        ["s03", "done"],
        ["s04", "done"],
        ["lonely", "failed"],
    ]
    assert "64 x 64 x 3" in lines[1]
    assert "there is no MS of this name" in lines[6]
    assert "left out: dem.tif: neither PAN nor MS by its name" in lines
    assert lines[-1] == "3 done, 3 failed"
    facts = json.loads(pancrafter(*words, "--json").stdout)
    assert facts["counts"] == {"done": 0, "skipped": 3, "to do": 0, "failed": 3}
    assert {scene["scene"]: scene["error"] for scene in facts["scenes"] if scene["status"] == "failed"} == {
        "s01": "RasterError",
        "s02": "NoProduct",
        "lonely": "RasterError",
    }
    for name in ("s01", "s02"):
        shutil.rmtree(scenes / name)
    (scenes / "lonely_pan.tif").unlink()
    assert pancrafter(*words).returncode == 0
    with rasterio.open(tmp_path / "out" / "s03.tif") as file:
        assert file.tags()["PANCRAFTER_COMMAND"].startswith("pancrafter batch ")


def test_usage_errors_exit_2_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "scenes.csv").write_text("pan,colour\n")
    done = pancrafter("batch", tmp_path / "scenes.csv", "--out", tmp_path / "out", "--method", "brovey")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/scenes.csv: unknown column colour\nhint: known are pan, ms, ")
    assert pancrafter("batch", tmp_path, "--out", tmp_path / "out", "--tile", "7").returncode == 2


def test_a_file_in_place_of_the_output_folder_is_one_mistake(tmp_path: Path, scenes: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = pancrafter("batch", scenes, "--out", tmp_path / "out", "--method", "exp")
    assert done.returncode == 2
    assert done.stderr.count("out: is a file") == 1
    assert (tmp_path / "out").read_text() == "mine"


def test_scenes_are_sharpened_as_the_flags_say(tmp_path: Path, scenes: Path) -> None:
    flags = ["--ms-mtf", "0.2", "--halo", "64", "--consistency", "1", "--max-memory", "4G"]
    done = pancrafter("batch", scenes, "--out", tmp_path / "out", "--method", "brovey", *flags)
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "out" / "s01.tif") as file:
        asked = json.loads(file.tags()["PANCRAFTER_REQUEST"])
    assert {name: asked[name] for name in ("ms_mtf", "halo", "consistency")} == {
        "ms_mtf": 0.2,
        "halo": 64,
        "consistency": 1,
    }
    unusable = pancrafter("batch", scenes, "--out", tmp_path / "out", "--halo", "some")
    assert unusable.returncode == 2
    assert "--halo some" in unusable.stderr


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # RPCs tell where they lie
def test_scenes_with_rpcs_are_skipped_when_their_heights_have_not_changed(tmp_path: Path) -> None:
    (tmp_path / "scenes" / "rpc").mkdir(parents=True)
    write_rpc_scene(tmp_path / "scenes" / "rpc")
    dem = write_dem(tmp_path / "dem.tif")
    (tmp_path / "scenes.csv").write_text("pan,ms,dem,ms_mtf\nscenes/rpc/pan.tif,scenes/rpc/ms.tif,dem.tif,0.25\n")
    by_flag = tmp_path / "scenes", "--dem", dem
    for args in (by_flag, (tmp_path / "scenes.csv",)):
        command = ["batch", *args, "--out", tmp_path / f"out{len(args)}", "--method", "brovey", "--json"]
        for status in ("done", "skipped"):
            done = pancrafter(*command)
            assert done.returncode == 0, done.stdout + done.stderr
            assert [scene["status"] for scene in json.loads(done.stdout)["scenes"]] == [status]
    write_dem(tmp_path / "dem.tif", half=260)
    assert pancrafter(*command).returncode == 1


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--ms-mtf", "5"), 2, "--ms-mtf 5"),
        (("--tile", "0"), 2, "--tile 0"),
        (("--dem", "nowhere.tif"), 1, "nowhere.tif"),
    ],
)
def test_options_that_no_scene_could_have_are_told_before_anything_runs(
    tmp_path: Path, scenes: Path, flags: tuple[str, str], code: int, says: str
) -> None:
    done = pancrafter("batch", scenes, "--out", tmp_path / "out", "--method", "brovey", *flags)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr.splitlines()[0]
    assert not (tmp_path / "out").exists()


def test_unexpected_failures_keep_their_trace(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(options: SharpenOptions, **_: object) -> SharpenResult:
        if "s00" in str(options.output):
            raise ZeroDivisionError("nobody expected this")
        return sharpen_scene(options)

    monkeypatch.setattr(batch, "sharpen_scene", fails)
    first, second = run_batch(plan_batch(scenes, tmp_path / "out", BROVEY))
    assert (first.status, first.error) == ("failed", "ZeroDivisionError")
    assert first.message == "ZeroDivisionError: nobody expected this"
    assert "in fails" in first.traceback
    assert (second.status, second.traceback) == ("done", "")


def test_ctrl_c_stops_after_telling_what_is_done(tmp_path: Path, scenes: Path) -> None:
    code = (
        "import pancrafter_cli.tasks.batch as b\n"
        "real = b.sharpen_scene\n"
        "def interrupted(options, **more):\n"
        "    if 's01' in str(options.output): raise KeyboardInterrupt\n"
        "    return real(options, **more)\n"
        "b.sharpen_scene = interrupted\n" + RUN
    )
    done = pancrafter("batch", scenes, "--out", tmp_path / "out", "--method", "brovey", code=code)
    assert done.returncode == 130
    assert done.stdout.splitlines()[1].split()[:2] == ["s00", "done"]
    assert done.stdout.splitlines()[-1] == "1 done, 1 not reached"
    assert done.stderr.startswith("error: interrupted")


def test_a_batch_that_is_ended_says_as_json_what_was_not_reached(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(options: SharpenOptions, **_: object) -> SharpenResult:
        if "s01" in str(options.output):
            raise SystemExit(143)
        return sharpen_scene(options)

    monkeypatch.setattr(batch, "sharpen_scene", ended)
    done = CliRunner().invoke(app, ["batch", str(scenes), "--out", str(tmp_path / "out"), "--method", "exp", "--json"])
    assert done.exit_code == 143
    facts = json.loads(done.stdout)
    assert [scene["scene"] for scene in facts["scenes"]] == ["s00"]
    assert facts["not_reached"] == ["s01"]


def test_a_process_sharpens_one_scene_at_a_time(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = [0, 0]

    def counted(options: SharpenOptions, **_: object) -> SharpenResult:
        running[0] += 1
        running[1] = max(running)
        time.sleep(0.1)
        try:
            return sharpen_scene(options)
        finally:
            running[0] -= 1

    monkeypatch.setattr(batch, "sharpen_scene", counted)
    jobs = plan_batch(scenes, tmp_path / "out", BROVEY).jobs
    threads = [threading.Thread(target=run_job, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running == [0, 1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s00.tif", "s01.tif"]


def test_a_product_that_another_worker_has_finished_meanwhile_is_no_failure(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(options: SharpenOptions, **_: object) -> SharpenResult:
        sharpen_scene(options)
        return sharpen_scene(options)  # finds the product of the first

    monkeypatch.setattr(batch, "sharpen_scene", beaten)
    assert run_job(plan_batch(scenes, tmp_path / "out", BROVEY).jobs[0]).status == "skipped"


def test_what_a_run_left_that_was_killed_once_its_product_had_its_name_is_removed(tmp_path: Path, scenes: Path) -> None:
    job = plan_batch(scenes, tmp_path / "out", replace(BROVEY, stac=True)).jobs[0]
    run_job(job)
    out = job.options.output
    kept_name(out).hardlink_to(out)  # a product takes its name by a link; the other name goes next
    out.with_name(f".{out.name}.1.abcdef.part.tif").touch()
    (out.parent / ".s00.json.1.abcdef.part.tif").touch()
    living = PartFile(out, resumable=False)
    assert run_job(job).status == "skipped"
    assert set(out.parent.iterdir()) == {out, out.with_suffix(".json"), living.path}
    living.discard()


# --- networks


def test_the_model_is_loaded_once_and_other_weights_make_products_stale(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []
    real = batch.network_runner
    monkeypatch.setattr(batch, "network_runner", lambda *given: (loaded.append(given), real(*given))[1])
    batch._load.cache_clear()
    options = replace(BROVEY, method="network", device="cpu")
    plan: Plan = plan_batch(scenes, tmp_path / "out", options)
    assert [o.status for o in run_batch(plan)] == ["done", "done"]
    assert len(loaded) == 1
    assert [o.status for o in run_batch(plan)] == ["skipped", "skipped"]
    other = replace(plan.jobs[0], model_sha256="0" * 64)
    assert "made with other weights" in look_at(other).message
    there = run_job(replace(other, options=replace(other.options, overwrite=True)))
    assert (there.status, there.error) == ("failed", "ModelError")
    with pytest.raises(PancrafterError, match="CUDA"):
        list(run_batch(plan_batch(scenes, tmp_path / "other", replace(options, device="cuda:99"))))


def test_a_models_name_means_on_workers_what_it_means_to_sharpen(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder by its name alone, and a file that is called as a shipped model."""
    shipped = resolve(DEFAULT_MODEL)
    (tmp_path / "r0").mkdir()
    own = tmp_path / "r0" / WEIGHTS_FILE
    own.write_bytes(shipped.read_bytes() + b" ")
    (tmp_path / DEFAULT_MODEL).write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    hashes = {"r0": file_sha256(own), f"r0/{WEIGHTS_FILE}": file_sha256(own), DEFAULT_MODEL: file_sha256(shipped)}
    jobs = {
        name: plan_batch(scenes, tmp_path / "out", replace(BROVEY, method="network", model=name)).jobs[0]
        for name in hashes
    }
    monkeypatch.chdir(scenes)
    for name, job in jobs.items():
        assert job.model_sha256 == hashes[name]
        assert file_sha256(resolve(str(job.options.model))) == hashes[name]
    assert jobs[DEFAULT_MODEL].options.model == DEFAULT_MODEL  # where workers keep theirs is their own affair
