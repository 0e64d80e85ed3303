"""Real scenes as training sources: with invalid pixels, and too large to be held in memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.shutil import copy as gdal_copy
from scipy import ndimage
from typer.testing import CliRunner

from pancrafter_cli.cli.main import app
from pancrafter_cli.data import scene_parts, scenes
from pancrafter_cli.data.batches import SourcePool
from pancrafter_cli.data.gather import gather_sources
from pancrafter_cli.data.samples import SampleOptions, draw_sample
from pancrafter_cli.data.scene_parts import Part, parts_of, valid_patches
from pancrafter_cli.data.scenes import SceneParts, load_sources
from pancrafter_cli.data.sources import Matching, Source, likeness_of_neighbours, measure_matching
from pancrafter_cli.errors import RasterError, TrainingError
from pancrafter_cli.raster.scene import Scene, open_scene
from pancrafter_cli.tasks.train import train
from tests.pairs import displace, write_pair
from tests.training_setup import recipe, write_scenes

BOTH = ("wald", "resynthesised")


@contextmanager
def edited(path: Path, nodata: float | None = 0) -> Iterator[np.ndarray]:
    """All bands of a file to be changed in place; `nodata` is declared."""
    with rasterio.open(path, "r+") as file:
        image = file.read()
        yield image
        file.write(image)
        file.nodata = nodata


def collar(folder: Path, share: float = 0.4) -> None:
    """Declare 0 as nodata and let it cover the left of a scene, along a slanted border."""
    for name in ("pan.tif", "ms.tif"):
        with edited(folder / name) as image:
            rows, cols = np.indices(image.shape[1:]) / image.shape[1]
            image[:, cols + 0.2 * rows < share + 0.1] = 0


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes of some hundred pixels are read in parts of some dozen."""
    monkeypatch.setattr(scenes, "LARGEST_WHOLE", 0)
    monkeypatch.setattr(scene_parts, "_CORE", 48)
    monkeypatch.setattr(scene_parts, "_APRON", 16)


@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 8), st.floats(0, 1), st.integers(0, 99))
def test_valid_patches_are_those_without_a_gap(height: int, width: int, patch: int, share: float, seed: int) -> None:
    valid = np.random.default_rng(seed).random((height, width)) < share
    expected = np.zeros_like(valid)
    for row in range(height - patch + 1):
        for col in range(width - patch + 1):
            expected[row, col] = valid[row : row + patch, col : col + patch].all()
    assert np.array_equal(valid_patches(valid, patch), expected)


@given(st.integers(0, 500), st.integers(64, 900), st.integers(64, 900), st.integers(8, 64))
def test_every_patch_begins_in_one_part_that_holds_it(start: int, height: int, width: int, patch: int) -> None:
    rows, cols = (start, start + height), (7, 7 + width)
    parts = parts_of(rows, cols, patch)
    begun = np.zeros((start + height, 7 + width), int)
    for part in parts:
        (y0, y1), (x0, x1) = part.rows, part.cols
        assert part.shape == parts[0].shape
        assert start <= y0
        assert y1 <= rows[1]
        assert x0 >= 7
        assert x1 <= cols[1]
        (top, bottom), (left, right) = part.corners
        begun[top:bottom, left:right] += 1
        # Where the scene goes on, patches see an apron of it.
        assert y0 <= max(start, top - 48)
        assert y1 >= min(rows[1], bottom - 1 + patch + 48)
        assert x0 <= max(7, left - 48)
        assert x1 >= min(cols[1], right - 1 + patch + 48)
        places = part.places(np.ones(part.shape, bool), patch)
        if places is not None:
            assert len(places) == (bottom - top) * (right - left)
            assert (places.min(axis=0) == (top - y0, left - x0)).all()
    assert (begun[start : rows[1] - patch + 1, 7 : cols[1] - patch + 1] == 1).all()
    assert begun.sum() == (height - patch + 1) * (width - patch + 1)


def test_patches_keep_off_invalid_pixels(tmp_path: Path) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    whole = load_sources(tmp_path / "s", BOTH, 16)
    collar(tmp_path / "s")
    with edited(tmp_path / "s" / "ms.tif") as image:
        image[1, 40:43, 50] = 0  # a gap of one band
    for source, before in zip(load_sources(tmp_path / "s", BOTH, 16), whole, strict=True):
        assert isinstance(source, Source)
        assert isinstance(before, Source)
        step = 256 // source.shape[1]
        rows, cols = np.indices(source.shape[1:]) * step / 256
        gap = (cols + 0.2 * rows < 0.5 - 0.02) | (
            (np.abs(rows - 41.5 / 64) < 1 / 64) & (np.abs(cols - 50.5 / 64) < 0.007)
        )
        assert source.places is not None
        assert 50 < len(source.places) < source.pixels < 0.6 * source.truth[0].size
        for row, col in source.places:
            assert not gap[row : row + 16, col : col + 16].any()
        same = ~gap & (cols > 0.6)
        np.testing.assert_allclose(source.truth[:, same], before.truth[:, same], rtol=0.1, atol=0.02)
        assert np.isfinite(source.truth).all()
        assert np.isfinite(source.pans).all()
        samples = [draw_sample(source, np.random.default_rng(k), SampleOptions(patch=16, bands=2)) for k in range(20)]
        assert all(np.isfinite(image).all() for sample in samples for image in (*sample.images, sample.truth))


def test_what_is_not_valid_takes_no_part_in_matching() -> None:
    rng = np.random.default_rng(0)
    pan = rng.random((96, 96), dtype=np.float32) + 1
    truth = np.stack([2 * pan + 0.5, 0.25 * pan])
    valid = np.ones(pan.shape, bool)
    valid[:, :40] = False
    broken = np.where(valid, truth, 3 * rng.random(truth.shape, dtype=np.float32))
    for image, known in ((truth, None), (broken, valid)):
        found = measure_matching(image, pan, known)
        np.testing.assert_allclose(found.gain, np.broadcast_to([2.0, 0.25], found.gain.shape), rtol=1e-3)
        np.testing.assert_allclose(found.offset, np.broadcast_to([0.5, 0.0], found.offset.shape), atol=5e-3)
        assert found.pan_mean == pytest.approx(pan[:, 40:].mean() if known is not None else pan.mean())
    assert measure_matching(broken, pan).gain[3, 0] < 1.8
    rough = np.where(valid, ndimage.gaussian_filter(pan, 3), pan)
    assert likeness_of_neighbours(rough, 2.0, valid) > likeness_of_neighbours(rough, 2.0) + 0.1


@pytest.mark.parametrize("large", [False, True])
def test_the_scenes_gaps_are_told_to_the_matching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    collar(tmp_path / "s")
    monkeypatch.setattr(scenes, "LARGEST_WHOLE", 0 if large else 256 * 256)
    told: list[np.ndarray] = []

    def watched(truth: np.ndarray, pan: np.ndarray, valid: np.ndarray) -> Matching:
        told.append(valid)
        return measure_matching(truth, pan, valid)

    monkeypatch.setattr(scenes, "measure_matching", watched)
    load_sources(tmp_path / "s", BOTH, 16)
    assert len(told) == 2
    assert all(0.2 < valid.mean() < 0.9 for valid in told)


def test_gaps_of_pan_alone_count(tmp_path: Path) -> None:
    truth = write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    with edited(tmp_path / "s" / "pan.tif") as image:
        image[:, 96:128, :] = 0
    for source in load_sources(tmp_path / "s", BOTH, 16):
        places = source.image(0).places
        assert places is not None
        step = 256 // source.shape[1]
        rows = set(places[:, 0] * step)
        assert not rows & set(range(96 - 15 * step, 128))
        assert min(rows) == 0
        assert max(rows) == 256 - 16 * step
    with rasterio.open(tmp_path / "s" / "pan.tif") as pan:
        facts = pan.profile | {"count": 3, "dtype": "float32", "nodata": -1.0}
    with rasterio.open(tmp_path / "s" / "gt.tif", "w", **facts) as file:
        file.write(truth.astype(np.float32))
    (source,) = load_sources(tmp_path / "s", BOTH, 16)
    places = source.image(0).places
    assert places is not None
    assert not set(places[:, 0]) & set(range(96 - 15, 128))


def test_near_a_gap_no_truth_is_made_of_filled_pixels(tmp_path: Path) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    whole = [source.image(0) for source in load_sources(tmp_path / "s", BOTH, 16)]
    with edited(tmp_path / "s" / "ms.tif") as image:
        image[:, 24:32, 24:32] = 0
    for source, before in zip(load_sources(tmp_path / "s", BOTH, 16), whole, strict=True):
        after = source.image(0)
        assert after.places is not None
        shown = np.zeros(after.truth.shape[1:], bool)
        for row, col in after.places:
            shown[row : row + 16, col : col + 16] = True
        worst = np.abs(after.truth - before.truth)[:, shown].max()
        assert worst < 0.02 * before.truth.std()


def test_gaps_everywhere_are_refused_with_the_remedy(tmp_path: Path) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    with edited(tmp_path / "s" / "ms.tif") as image:
        image[:, ::12, ::12] = 0
    assert load_sources(tmp_path / "s", BOTH, 8)
    with pytest.raises(TrainingError, match="nowhere are 48 x 48 pixels side by side valid") as caught:
        load_sources(tmp_path / "s", BOTH, 48)
    assert "patch" in caught.value.hint


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("reference", [False, True])
def test_a_fill_value_that_is_told_counts_as_declared(
    tmp_path: Path, request: pytest.FixtureRequest, large: bool, reference: bool
) -> None:
    if large:
        request.getfixturevalue("small_is_large")
    truth = write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    collar(tmp_path / "s")
    if reference:
        with rasterio.open(tmp_path / "s" / "pan.tif") as pan:
            facts = pan.profile | {"count": 3, "dtype": "float32"}
        truth[:, :, :40] = 0
        with rasterio.open(tmp_path / "s" / "gt.tif", "w", **facts) as file:
            file.write(truth.astype(np.float32))
    silent = shutil.copytree(tmp_path / "s", tmp_path / "silent")
    for path in silent.glob("*.tif"):
        with edited(path, nodata=None):
            pass
    declared, told = load_sources(tmp_path / "s", BOTH, 16), load_sources(silent, BOTH, 16, 0.0)
    for source, before in zip(told, declared, strict=True):
        assert source.pixels == before.pixels
        np.testing.assert_array_equal(source.image(1).places, before.image(1).places)  # type: ignore[arg-type]
        np.testing.assert_array_equal(source.image(1).truth, before.image(1).truth)
    assert load_sources(silent, BOTH, 16)[0].pixels > 1.3 * declared[0].pixels


def test_one_kind_can_be_left(tmp_path: Path) -> None:
    """Where 48 PAN pixels are valid side by side, 48 MS pixels need not be."""
    write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    with edited(tmp_path / "s" / "ms.tif") as image:
        image[:, ::20] = 0
    assert [source.kind for source in load_sources(tmp_path / "s", BOTH, 48)] == ["resynthesised"]


def test_a_reference_with_gaps_serves_where_it_has_none(tmp_path: Path) -> None:
    truth = write_pair(tmp_path / "s", seed=1, pan_size=128, ratio=4, bands=3)
    with rasterio.open(tmp_path / "s" / "pan.tif") as pan:
        facts = pan.profile | {"count": 3, "dtype": "float32", "nodata": -1.0}
    truth[:, :, :40] = -1
    with rasterio.open(tmp_path / "s" / "gt.tif", "w", **facts) as file:
        file.write(truth.astype(np.float32))
    (source,) = load_sources(tmp_path / "s", BOTH, 32)
    places = source.image(0).places
    assert places is not None
    assert places[:, 1].min() == 40
    assert len(places) == (128 - 32 + 1) * (88 - 32 + 1)
    assert source.image(0).truth.min() >= 0


@pytest.mark.usefixtures("small_is_large")
def test_parts_are_what_the_whole_scene_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=256, ratio=4, bands=3)
    collar(tmp_path / "s")
    parts = load_sources(tmp_path / "s", BOTH, 16)
    monkeypatch.setattr(scenes, "LARGEST_WHOLE", 256 * 256)
    for source, whole in zip(parts, load_sources(tmp_path / "s", BOTH, 16), strict=True):
        assert isinstance(source, SceneParts)
        assert isinstance(whole, Source)
        assert whole.places is not None
        # What holds for the scene is measured on a sample of its parts.
        np.testing.assert_allclose(source.matching.gain[3], whole.matching.gain[3], rtol=0.15)
        found = set()
        for index, part in enumerate(source.parts):
            image = source.image(index)
            assert image.shape == source.shape
            assert image.places is not None
            here = np.s_[..., slice(*part.rows), slice(*part.cols)]
            tolerance = 0.0 if source.kind == "wald" else 0.03
            known = np.s_[..., 24:-24, 24:-24]  # what a part's edge fills from, it does not know
            np.testing.assert_allclose(image.truth[known], whole.truth[here][known], atol=tolerance)
            np.testing.assert_allclose(image.pans[known], whole.pans[here][known], atol=tolerance + 1e-6)
            found |= {(int(row) + part.rows[0], int(col) + part.cols[0]) for row, col in image.places}
        assert found == {(int(row), int(col)) for row, col in whole.places}


@pytest.mark.usefixtures("small_is_large")
def test_parts_are_registered_as_the_scene_is(tmp_path: Path) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=512, ratio=4, bands=3)
    with edited(tmp_path / "s" / "pan.tif", None) as image:
        image[:] = np.roll(image, 3, axis=2)
    (source,) = load_sources(tmp_path / "s", ("wald",), 16)
    assert isinstance(source, SceneParts)
    assert source.alignment.shift == pytest.approx((-0.75, 0), abs=0.05)
    image = source.image(source.count // 2)
    likeness = np.corrcoef(image.pans[1].ravel(), image.truth.mean(axis=0).ravel())[0, 1]
    assert likeness > 0.99


@pytest.mark.usefixtures("small_is_large")
def test_parts_are_moved_from_place_to_place_as_the_scene_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path / "s", seed=1, pan_size=768, ratio=4, bands=2)
    displace(tmp_path / "s" / "pan.tif", 0.4)
    (source,) = load_sources(tmp_path / "s", ("wald",), 16)
    monkeypatch.setattr(scenes, "LARGEST_WHOLE", 768 * 768)
    (whole,) = load_sources(tmp_path / "s", ("wald",), 16)
    assert isinstance(source, SceneParts)
    part = source.parts[source.count // 2]
    moved = whole.image(0).pans[..., slice(*part.rows), slice(*part.cols)]
    np.testing.assert_allclose(source.image(source.count // 2).pans, moved, atol=1e-6)
    with open_scene(tmp_path / "s" / "pan.tif", [tmp_path / "s" / "ms.tif"]) as still:
        unmoved = source.of.read(still.with_shift(*source.alignment.shift), source.known, part).pans
    assert np.abs(unmoved - moved).max() > 0.05


@pytest.mark.usefixtures("small_is_large")
def test_few_parts_serve_many_steps_the_same_on_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_scenes(tmp_path / "scenes", ["a", "b"], size=256)
    collar(root / "a")
    config = recipe(root, batch=4)
    read: list[str] = []
    image = SceneParts.image

    def watched(self: SceneParts, index: int) -> Source:
        read.append(f"{self.name} {self.kind} {index}")
        return image(self, index)

    monkeypatch.setattr(SceneParts, "image", watched)
    pool = SourcePool(gather_sources(config).sources, config)
    read.clear()
    batches = [pool.draw(step) for step in range(64)]
    names = {name for batch in batches[:32] for name in batch.names}
    assert 4 < len(names) <= 16
    assert names != {name for batch in batches[32:] for name in batch.names}
    assert 12 < len(read) <= 2 * 16
    again = SourcePool(gather_sources(config).sources, config).draw(40)
    assert again.names == batches[40].names
    assert np.array_equal(again.images.lms, batches[40].images.lms)


@pytest.mark.usefixtures("small_is_large")
def test_parts_without_a_valid_patch_are_not_drawn(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"], size=256)
    collar(root / "a", 0.8)
    config = recipe(root, batch=4)
    sources = gather_sources(config).sources
    pool = SourcePool(sources, config)
    for step in range(0, 96, 32):
        assert np.isfinite(pool.draw(step).truth).all()
    assert not any(pool.draw(step).skipped for step in range(0, 96, 32))
    assert any(np.size(source.image(0).places) == 0 for source in sources)


@pytest.mark.parametrize("large", [False, True])
def test_scenes_are_drawn_by_what_of_them_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    root = write_scenes(tmp_path / "scenes", ["gappy", "whole"], size=512)
    collar(root / "gappy", 0.6)
    monkeypatch.setattr(scenes, "LARGEST_WHOLE", 0 if large else 512 * 512)
    monkeypatch.setattr(scene_parts, "_CORE", 48)
    config = recipe(root, batch=16, weights={"wald": 0.0})
    pool = SourcePool(gather_sources(config).sources, config)
    with rasterio.open(root / "gappy" / "ms.tif") as file:
        valid = (file.read(1) > 0).mean()
    names = [name for step in range(0, 240, 8) for name in pool.draw(step).names]
    share = np.mean([name.startswith("gappy") for name in names])
    assert 0.2 < valid < 0.4
    assert share == pytest.approx(valid / (1 + valid), abs=0.08)


@pytest.mark.usefixtures("small_is_large")
def test_a_scene_that_breaks_off_stops_the_run_by_name(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"], size=256)
    config = recipe(root, batch=4)
    pool = SourcePool(gather_sources(config).sources, config)
    path = root / "a" / "ms.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(TrainingError, match=r"a: \d+ of \d+ images in it cannot be read; the last one: .*ms\.tif"):
        [pool.draw(step) for step in range(0, 320, 32)]


@pytest.mark.usefixtures("small_is_large")
def test_parts_that_break_off_while_the_rest_is_empty_end_the_run(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"], size=256)
    collar(root / "a", 0.75)
    config = recipe(root, batch=4, weights={"wald": 0.0})
    sources = gather_sources(config).sources
    pool = SourcePool(sources, config)
    pool._empty = {(k, i) for k, s in enumerate(sources) for i in range(s.count - 1)}
    (root / "a" / "ms.tif").unlink()
    with pytest.raises(TrainingError, match=r"a: .* no longer be read"):
        pool.draw(0)


@pytest.mark.usefixtures("small_is_large")
def test_training_goes_on_over_scenes_with_collars_as_if_never_stopped(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"], size=256)
    collar(root / "a")
    config = recipe(root, steps=8)
    one = train(config, tmp_path / "one")
    train(config, tmp_path / "two", stop_at=3)
    two = train(config, tmp_path / "two")
    assert one.model.read_bytes()[-1000:] == two.model.read_bytes()[-1000:]


def test_a_landsat_like_collar_does_not_keep_a_scene_from_fine_tuning(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"], size=512, bands=4)
    collar(root / "a")
    words = ["train", "--from", "universal-small", "--scenes", str(root), "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*words, "--stop-at", "2"])
    assert done.exit_code == 0, done.output
    assert "step 2" in done.output
    assert "left out" not in done.output


def test_a_part_reads_no_more_of_a_scene_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "LARGEST_WHOLE", 0)
    write_pair(tmp_path / "s", seed=1, pan_size=960, ratio=4, bands=1)
    source = load_sources(tmp_path / "s", ("resynthesised",), 64)[0]
    assert isinstance(source, SceneParts)
    read: list[int] = []
    read_pan = Scene.read_pan

    def watched(self: Scene, row: int, col: int, height: int, width: int) -> object:
        read.append(height * width)
        return read_pan(self, row, col, height, width)

    monkeypatch.setattr(Scene, "read_pan", watched)
    source.image(12)
    assert sum(read) < 500 * 500
    assert Part.whole((0, 9), (0, 8)).shape == (9, 8)


def landsat(folder: Path, seed: int = 1) -> Path:
    """A scene as the files of a Landsat 8 product, one for each band, in a folder of its own."""
    write_pair(folder, seed=seed, pan_size=256, ratio=2, bands=4)
    start = folder / "LC08_L1TP_199030_20200101_20200101_02_T1"
    (folder / "pan.tif").rename(f"{start}_B8.TIF")
    with rasterio.open(folder / "ms.tif") as ms:
        facts = ms.profile | {"count": 1}
        for band, number in enumerate((2, 3, 4, 5), start=1):
            with rasterio.open(f"{start}_B{number}.TIF", "w", **facts) as file:
                file.write(ms.read(band), 1)
    (folder / "ms.tif").unlink()
    return folder


def test_products_are_trained_on_as_they_are_sharpened(tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    landsat(root / "landsat")
    landsat(root / "held-out", seed=2)
    write_pair(root / "pair", seed=3, pan_size=256, ratio=4, bands=3)
    (root / "pair" / "pan.tif").rename(root / "pair" / "town-pan.tif")
    (root / "pair" / "ms.tif").rename(root / "pair" / "town-ms.tif")
    config = recipe(root, validate=("held-out",), steps=2)
    told: list[str] = []
    result = train(config, tmp_path / "run", warn=told.append)
    assert not told
    assert result.relative_ergas is not None
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [len(scene["files"]) for scene in record["scenes"]] == [5, 2]
    assert record["validation"][0]["files"][0]["name"].endswith("_B8.TIF")


def test_a_change_behind_a_virtual_mosaic_is_noticed_on_resuming(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"], size=256)
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for name in ("pan", "ms"):
        shutil.move(root / "a" / f"{name}.tif", tiles / f"{name}.tif")
        gdal_copy(tiles / f"{name}.tif", root / "a" / f"town-{name}.vrt", driver="VRT")
    train(recipe(root), tmp_path / "run", stop_at=2)
    train(recipe(root), tmp_path / "run", stop_at=3)
    with edited(tiles / "ms.tif", None) as image:
        image //= 2
    with pytest.raises(TrainingError, match="a has changed"):
        train(recipe(root), tmp_path / "run")


def test_what_is_held_out_and_no_scene_does_not_stop_the_run(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a", "held-1", "held-2"])
    (root / "held-2" / "ms.tif").unlink()
    (root / "held-3").mkdir()
    shutil.copy(root / "a" / "pan.tif", root / "held-3" / "dem.tif")
    told: list[str] = []
    train(recipe(root, validate=("held-*",), steps=1), tmp_path / "run", warn=told.append)
    assert [text.split(" is left out")[0] for text in told] == ["held-2", "held-3"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [scene["name"] for scene in record["validation"]] == ["held-1"]


def test_half_a_pair_and_broken_products_are_damaged_scenes(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a", "b", "c"])
    (root / "b" / "ms.tif").unlink()
    for name in ("pan", "ms"):
        (root / "c" / f"{name}.tif").rename(root / "c" / f"town-{name}.tif")
    (root / "c" / "town-pan.tif").write_bytes(b"no raster")
    for number in range(6):
        (root / f"heights-{number}").mkdir()
        shutil.copy(root / "a" / "pan.tif", root / f"heights-{number}" / "dem.tif")
    with pytest.raises(TrainingError, match=r"2 of 3 scenes cannot be used: b: .*has pan\.tif and no ms\.tif; c: "):
        gather_sources(recipe(root))


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_scenes(tmp_path / "scenes", ["a", "b", "c", "d", "e"])
    scandir = os.scandir

    def refused(path: str | Path) -> object:
        if Path(path).name == "c":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in refused(path)])  # type: ignore[attr-defined]
    gathered = gather_sources(recipe(root))
    assert [(skipped.name, skipped.reason.split(": ")[-1]) for skipped in gathered.skipped] == [
        ("c", "cannot be read (Permission denied)")
    ]


def test_only_what_is_named_as_a_scene_is_trained_on_unasked(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"])
    for name in ("maps", "old/held-out"):
        shutil.copytree(root / "a", root / name)
    (root / "maps" / "pan.tif").rename(root / "maps" / "dem.tif")
    (root / "maps" / "ms.tif").rename(root / "maps" / "landcover.tif")
    gathered = gather_sources(recipe(root))
    assert {source.name for source in gathered.sources} == {"a"}
    reasons = {skipped.name: skipped.reason for skipped in gathered.skipped}
    assert "neither is named as PAN or MS" in reasons["maps"]
    assert "holds a scene in held-out" in reasons["old"]


def test_large_folders_of_other_things_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pancrafter_cli.raster.folders._MOST_FILES", 3)
    root = write_scenes(tmp_path / "scenes", ["a"])
    (root / "cache").mkdir()
    for number in range(5):
        (root / "cache" / f"{number}.txt").touch()
    gathered = gather_sources(recipe(root))
    assert not gathered.skipped


def test_names_in_capitals_and_a_reference_beside_them(tmp_path: Path) -> None:
    truth = write_pair(tmp_path / "S", seed=1, pan_size=256, ratio=4, bands=4)
    with rasterio.open(tmp_path / "S" / "pan.tif") as pan:
        facts = pan.profile | {"count": 4, "dtype": "float32"}
    with rasterio.open(tmp_path / "S" / "gt.tif", "w", **facts) as file:
        file.write(truth.astype(np.float32))
    for name in ("pan", "ms", "gt"):
        (tmp_path / "S" / f"{name}.tif").rename(tmp_path / "S" / f"{name.upper()}.TIF")
    (source,) = load_sources(tmp_path / "S", BOTH, 16)
    assert source.shape == (4, 256, 256)
    for geometry in ("area", "toolbox"):
        words = ["eval", str(tmp_path / "S"), "--methods", "exp", "--protocol", "reduced", "--geometry", geometry]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    with edited(tmp_path / "S" / "GT.TIF", None) as image:
        image[:] = 0
    with pytest.raises(RasterError, match=r"GT\.TIF: is 0 nearly everywhere"):
        load_sources(tmp_path / "S", BOTH, 16)


def test_a_folder_of_something_else_is_left_out_and_no_damaged_scene(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", ["a"])
    for name in ("heights", "maps"):
        (root / name).mkdir()
        shutil.copy(root / "a" / "pan.tif", root / name / "dem.tif")
    (root / "notes").mkdir()
    gathered = gather_sources(recipe(root))
    assert {source.name for source in gathered.sources} == {"a"}
    assert [skipped.name for skipped in gathered.skipped] == ["heights", "maps"]
    assert "no PAN and MS pair is recognised; seen: dem.tif" in gathered.skipped[0].reason


def test_products_are_evaluated(tmp_path: Path) -> None:
    folder = landsat(tmp_path / "landsat")
    done = CliRunner().invoke(app, ["eval", str(folder), "--methods", "brovey,exp", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert json.dumps(report).count("landsat") >= 2
