"""Sharpening real files end to end, with networks small and random enough to show mistakes of tiling and geometry."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import rasterio
import safetensors.torch
import torch
from affine import Affine

from pancrafter_cli import sharpen
from pancrafter_cli.errors import (
    DeviceError,
    GeometryError,
    ModelError,
    OutputError,
    PancrafterError,
    RasterError,
    UsageError,
)
from pancrafter_cli.geometry.consistency import consistency_reach
from pancrafter_cli.geometry.degrade import degrade_weights, mtf_sigma
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.tiling import Tiling
from pancrafter_cli.networks.config import PanCrafterConfig, receptive_radius
from pancrafter_cli.networks.pancrafter import PanCrafter
from pancrafter_cli.raster.scene import open_scene
from pancrafter_cli.tasks.fusers import DEFAULT_CONSISTENCY, check_ratio, make_fuser, network_runner
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import _EXPECTED, SharpenOptions
from pancrafter_cli.tasks.tiles import judged_tiles
from pancrafter_cli.zoo import ModelSpec, load_model, save_model
from tests.pairs import write_pair
from tests.scene_factory import FileFacts, ms_transform, unjudged, write_tif
from tests.scene_factory import write_pair as write_scaled_pair


def random_model(folder: Path, bands: int = 4, *, trained: bool = True) -> Path:
    """A model file whose network answers strongly (or, untrained, returns lms)."""
    torch.manual_seed(0)
    config = PanCrafterConfig(bands=bands, width=8, depths=(1, 1, 1), heads=2)
    network = PanCrafter(config)
    if trained:
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.05 * torch.randn_like(p))
    path = folder / "model.safetensors"
    save_model(path, network.state_dict(), ModelSpec("random", config))
    return path


@dataclass
class Case:
    pan: Path
    ms: Path
    out: Path
    model: Path


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write_pair(tmp_path / "scene", seed=3, pan_size=320, ratio=4, bands=4)
    return Case(
        tmp_path / "scene" / "pan.tif", tmp_path / "scene" / "ms.tif", tmp_path / "out.tif", random_model(tmp_path)
    )


def run(case: Case, **options: object) -> np.ndarray:
    sharpen(case.pan, case.ms, case.out, model=str(case.model), overwrite=True, **options)  # type: ignore[arg-type]
    with rasterio.open(case.out) as file:
        return file.read()


def whole(case: Case, tiling: Tiling) -> np.ndarray:
    """The sharpened scene as float32 DN with the given tiling."""
    with open_scene(case.pan, [case.ms]) as scene:
        fuser = make_fuser(scene, runner=network_runner(str(case.model), "cpu", "fp32"))
        out = np.full((scene.bands, *scene.grid.shape), np.nan, np.float32)
        for found in judged_tiles(scene, fuser, tiling, unjudged(scene)):
            out[:, slice(*found.tile.rows.core), slice(*found.tile.cols.core)] = found.core
        return out / scene.statistics.scale


@pytest.mark.parametrize("tile", [64, 128, 192])
def test_tiles_equal_the_whole_image(case: Case, tile: int) -> None:
    reach = receptive_radius(load_model(str(case.model)).spec.config) + consistency_reach(4, DEFAULT_CONSISTENCY)
    halo = -(-reach // 4) * 4
    one = whole(case, Tiling(1024, 0, 16))
    assert np.abs(one).max() < 20
    tiles = whole(case, Tiling(tile, halo, 16))
    # Matrix products round differently in windows of other sizes, and where a pixel is almost dark the back-projection
    # divides by little.
    difference = np.abs(tiles - one)
    assert np.percentile(difference, 99.9) < 2e-5
    assert difference.max() < 6e-4
    # The test would see a halo that is too small.
    assert np.abs(whole(case, Tiling(tile, 0, 4)) - one).max() > 1e-3


def test_product_lies_on_the_pan_grid_and_keeps_what_ms_says(case: Case) -> None:
    with rasterio.open(case.ms, "r+") as file:
        file.descriptions = ("blue", "green", "red", "nir")
    image = run(case)
    with rasterio.open(case.out) as out, rasterio.open(case.pan) as pan, rasterio.open(case.ms) as ms:
        assert out.transform == pan.transform
        assert out.crs == pan.crs
        assert out.shape == pan.shape
        assert out.dtypes == ms.dtypes
        assert out.descriptions == ("blue", "green", "red", "nir")
        assert out.profile["tiled"]
        assert out.compression.value in ("ZSTD", "DEFLATE")
        assert out.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        assert case.out.stat().st_size < 0.9 * image.nbytes
        assert out.tags()["PANCRAFTER_MODEL"] == "random"
    assert image.shape == (4, 320, 320)


@pytest.mark.parametrize("bands", [1, 3, 6, 10])
def test_any_number_of_bands(tmp_path: Path, bands: int) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=bands)
    model = random_model(tmp_path, trained=False)
    sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "out.tif", model=str(model))
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(tmp_path / "ms.tif") as ms:
        assert out.count == bands
        # Whatever group a band went through, it must come back as itself and not as another one.
        down = degrade_weights(AxisMap(4, 0.0, 16, 64), 0, 16, 0.3).matrix
        for b in range(1, bands + 1):
            assert np.abs(down @ out.read(b) @ down.T - ms.read(b)).mean() < 0.1 * ms.read(b).std()


def test_several_files_equal_one(case: Case, tmp_path: Path) -> None:
    together = run(case)
    with rasterio.open(case.ms) as file:
        profile = file.profile | {"count": 1}
        singles = []
        for b in range(1, 5):
            singles.append(tmp_path / f"B{b}.tif")
            with rasterio.open(singles[-1], "w", **profile) as single:
                single.write(file.read(b), 1)
    sharpen(case.pan, singles, tmp_path / "apart.tif", model=str(case.model))
    with rasterio.open(tmp_path / "apart.tif") as file:
        assert np.array_equal(file.read(), together)


def test_nodata_neither_leaks_nor_grows(case: Case) -> None:
    clean = whole(case, Tiling(256, 32, 16))
    with rasterio.open(case.ms, "r+") as file:
        ms = file.read()
        ms[:, 20:40, 30:50] = 0
        file.write(ms)
        file.nodata = 0
    with rasterio.open(case.pan, "r+") as file:
        pan = file.read()
        pan[:, 250:260, 100:110] = 65535
        file.write(pan)
        file.nodata = 65535
    image = run(case)
    hole = np.zeros((320, 320), dtype=bool)
    hole[80:160, 120:200] = True
    hole[250:260, 100:110] = True
    assert np.array_equal(image == 0, np.broadcast_to(hole, image.shape))
    with open_scene(case.pan, [case.ms]) as scene:
        scale = scene.statistics.scale
    # Beside the hole nothing is darkened by its zeros or brightened by PAN's 65535.
    ring = np.zeros_like(hole)
    ring[76:164, 116:204] = True
    ring[246:264, 96:114] = True
    difference = np.abs(image / scale - clean)[:, ring & ~hole]
    assert difference.mean() < 0.1


EDGE_SIZE = 120


@pytest.mark.parametrize("ratio", [2.0, 4.0, 4.015])
@pytest.mark.parametrize("corner", [0.0, 0.5, 1.3])
def test_an_edge_comes_out_where_it_is(tmp_path: Path, ratio: float, corner: float) -> None:
    """The shipped model on a smooth step at a known sub-pixel place; MS's corner is `corner` PAN pixels off PAN's."""
    edge = 57.3
    n = int((EDGE_SIZE - 2) / ratio)

    def step(centres: np.ndarray, blur: float) -> np.ndarray:
        return np.array([0.5 * (1 + math.erf((c - edge) / (blur * 2**0.5))) for c in centres])

    pan = 300 + 500 * step(np.arange(EDGE_SIZE) + 0.5, 0.6)
    assert crossing(pan, 300, 800) == pytest.approx(edge, abs=0.001)  # the measure itself
    # MS sees what PAN sees through a further blur, of MTF gain 0.30 at its Nyquist frequency.
    ms_blur = math.hypot(0.6, mtf_sigma(ratio, 0.3))
    ms = 200 + 400 * step(corner + ratio * (np.arange(n) + 0.5), ms_blur)
    for transpose in (False, True):
        pan_image = np.broadcast_to(pan, (1, EDGE_SIZE, EDGE_SIZE))
        ms_image = np.broadcast_to(ms, (4, n, n))
        if transpose:
            pan_image, ms_image = (i.transpose(0, 2, 1) for i in (pan_image, ms_image))
        for name, image, transform in (
            ("pan.tif", pan_image, Affine(1, 0, 1000, 0, -1, 2000)),
            ("ms.tif", ms_image, Affine(ratio, 0, 1000 + corner, 0, -ratio, 2000 - corner)),
        ):
            write_tif(tmp_path / name, image.astype("float32"), FileFacts(transform=transform))
        sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "out.tif", overwrite=True)
        with rasterio.open(tmp_path / "out.tif") as file:
            out = file.read()
            start = file.transform.c - 1000 if not transpose else 2000 - file.transform.f
        for band in out.transpose(0, 2, 1) if transpose else out:
            for line in band[30:-30:10]:
                assert crossing(line, 200, 600) + start == pytest.approx(edge, abs=0.05)


def crossing(line: np.ndarray, low: float, high: float) -> float:
    """Where a blurred step from `low` to `high` lies, in pixels from the line's outer edge.

    Values are taken back through the normal distribution, in which a Gaussian-blurred step is a straight line; between
    the raw values a straight line would be off by up to 0.05 pixel.
    """
    k = int(np.argmax(line > (low + high) / 2))
    a, b = (NormalDist().inv_cdf(min(max((v - low) / (high - low), 1e-3), 1 - 1e-3)) for v in line[k - 1 : k + 1])
    return k - 0.5 - a / (b - a)


def expect(case: Case, kind: type[PancrafterError], match: str, code: int = 1, **options: object) -> None:
    before = sorted(p.name for p in case.out.parent.iterdir())
    with pytest.raises(kind, match=match) as caught:
        sharpen_scene(
            SharpenOptions(  # type: ignore[arg-type]
                **({"pan": case.pan, "ms": (case.ms,), "output": case.out, "model": str(case.model)} | options)
            )
        )
    assert caught.value.exit_code == code
    assert caught.value.hint
    assert sorted(p.name for p in case.out.parent.iterdir()) == before, "something was left behind"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((name, value) for name in ("overwrite", "score", "stac", "resume") for value in ("no", 1, None)),
        *(("local_registration", value) for value in ("no", 0)),
        *((name, value) for name in ("band_names", "command") for value in ("blue", ("a", 1, "b", "c"))),
        *((name, 5) for name in ("method", "device", "precision", "model", "runtime", "sensor")),
        *((name, value) for name in ("pan", "output", "confidence", "dem") for value in (5, "a\0.tif", b"a.tif")),
        *(("ms", value) for value in (5, None, [5], "a\0.tif", ["a\0.tif"], b"a.tif")),
        *(("registration", value) for value in ("Off", 1.0, ("0", "1"), np.zeros(2))),
        *(("nodata", value) for value in ("0", np.zeros(2), True)),
        *((name, "4") for name in ("ms_origin", "tile", "blend", "consistency", "max_memory", "ratio", "ms_mtf")),
        *(("halo", value) for value in (1.5, None)),
        *(("consistency", value) for value in (-1, 101, 1_000_000)),
    ],
)
def test_callers_are_refused_what_flags_cannot_say(tmp_path: Path, option: str, value: Any) -> None:
    """And what would be taken for something else, as the word "no" for yes."""
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=4)
    out = tmp_path / "out.tif"
    out.write_bytes(b"kept")
    files = {"pan": tmp_path / "pan.tif", "ms": tmp_path / "ms.tif", "output": out}
    given = {"method": "exp", "overwrite": True} | files | {option: value}
    with pytest.raises(UsageError, match=option) as caught:
        sharpen(given.pop("pan"), given.pop("ms"), given.pop("output"), **given)
    assert caught.value.hint
    assert out.read_bytes() == b"kept"


def test_every_option_is_checked() -> None:
    assert sorted(name for names, *_ in _EXPECTED for name in names) == sorted(f.name for f in fields(SharpenOptions))


def test_numbers_of_numpy_and_models_by_paths_are_as_good(case: Case) -> None:
    plain = {"nodata": 0.0, "tile": 256, "halo": 16, "blend": 8, "registration": (0.5, 0.0), "consistency": 1}
    expected = run(case, **plain)
    numbers = {name: np.float32(value) if isinstance(value, float) else value for name, value in plain.items()}
    numbers |= {name: np.int64(plain[name]) for name in ("tile", "halo", "blend", "consistency")}
    numbers["registration"] = (np.float32(0.5), np.float32(0.0))
    assert (run(case, **numbers) == expected).all()
    given: Any = numbers | {"model": case.model}
    sharpen(case.pan, case.ms, case.out, overwrite=True, **given)
    with rasterio.open(case.out) as file:
        assert (file.read() == expected).all()
        assert json.loads(file.tags()["PANCRAFTER_REQUEST"])["tile"] == 256


def test_a_file_that_is_given_twice_is_warned_of(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=64, ratio=4, bands=2)
    (tmp_path / "same.tif").symlink_to("ms.tif")
    pan, ms, out = tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "out.tif"
    assert sharpen(pan, ms, out, method="exp").warnings == ()
    twice = sharpen(pan, [ms, tmp_path / "same.tif"], out, method="exp", overwrite=True)
    assert twice.bands == 4
    assert twice.warnings == ("ms.tif: is given 2 times as MS, and so are its bands in the product",)


def test_unusable_models_devices_and_tiles(case: Case, tmp_path: Path) -> None:
    expect(case, UsageError, "unknown model", 2, model="no-such-model")
    expect(case, UsageError, "no model at", 2, model=str(tmp_path / "none.safetensors"))
    expect(case, UsageError, "unknown device", 2, device="quantum")
    expect(case, UsageError, "multiples of 256", 2, tile=300)
    expect(case, UsageError, "halo", 2, halo="half")
    if not torch.cuda.is_available():
        expect(case, DeviceError, "0 CUDA devices", device="cuda")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(case.model.read_bytes()[:-40])
    expect(case, ModelError, "damaged|readable", model=str(damaged))
    safetensors.torch.save_file({"weight": torch.zeros(2)}, damaged)
    expect(case, ModelError, "no PAN-Crafter model", model=str(damaged))


def test_unusable_outputs(case: Case, tmp_path: Path) -> None:
    expect(case, OutputError, "one of the inputs", output=case.ms)
    expect(case, OutputError, "no folder", output=tmp_path / "none" / "out.tif")
    case.out.write_bytes(b"precious")
    expect(case, OutputError, "exists already")
    assert case.out.read_bytes() == b"precious"


def test_unusable_inputs(case: Case, tmp_path: Path) -> None:
    expect(case, RasterError, "none.tif", pan=tmp_path / "none.tif")
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    expect(case, RasterError, "text.tif", pan=text)
    expect(case, RasterError, "4 bands", pan=case.ms)
    expect(case, GeometryError, "swapped|finer|coarser|ratio", pan=case.pan, ms=(case.pan,))


def test_a_ratio_no_model_knows_is_refused(case: Case, tmp_path: Path) -> None:
    write_pair(tmp_path / "far", seed=1, pan_size=120, ratio=12, bands=2)
    expect(case, GeometryError, "12.00 times", pan=tmp_path / "far" / "pan.tif", ms=(tmp_path / "far" / "ms.tif",))


@pytest.mark.parametrize(("ratio", "known"), [(1.65, False), (1.67, True), (6.1, True), (6.2, False)])
def test_a_ratio_may_be_off_by_rounded_pixel_sizes(tmp_path: Path, ratio: float, known: bool) -> None:
    pair = write_scaled_pair(tmp_path, ms=FileFacts(transform=ms_transform(ratio)))
    spec = ModelSpec("any", PanCrafterConfig(), ratios=(1.7, 6.0))
    with open_scene(pair.pan, [pair.ms]) as scene, nullcontext() if known else pytest.raises(GeometryError):
        check_ratio(scene, spec)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=1, pan_size=2048, ratio=4, bands=4)
    code = (
        "from pancrafter_cli.cli.main import run; import sys; sys.argv = ['pancrafter', 'sharpen', "
        f"'{tmp_path}/pan.tif', '{tmp_path}/ms.tif', '-o', '{tmp_path}/out.tif', '--tile', '256']; run()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.tif*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert list(tmp_path.glob(".out.tif*")), "the run never began to write"
    os.kill(process.pid, signal.SIGINT)
    error = process.communicate(timeout=180)[1]
    assert process.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]
