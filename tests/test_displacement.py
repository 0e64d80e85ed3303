"""PAN that is displaced against MS from place to place, and moved back."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import resample

from pancrafter_cli import sharpen
from pancrafter_cli.geometry.parts import correlation_shifts, part_shifts
from pancrafter_cli.raster import displacement
from pancrafter_cli.raster import register as register_module
from pancrafter_cli.raster import scene as scene_module
from pancrafter_cli.raster.displacement import Displacement, measure_displacement
from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import Scene, open_scene
from pancrafter_cli.tasks.score import ScoreOptions, score
from tests.pairs import displace, write_pair, write_truth

SIZE, RATIO = 512, 4
Image = NDArray[np.float64]


def rmse(path: Path, truth: Image) -> float:
    with rasterio.open(path) as file:
        return float(np.sqrt(((file.read() - truth)[:, 16:-16, 16:-16] ** 2).mean()))


def lying(folder: Path) -> Scene:
    return open_scene(folder / "pan.tif", [folder / "ms.tif"])


def smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> Image:
    """A texture without what is finer than pixels show."""
    image: Image = ndimage.gaussian_filter(rng.standard_normal(shape), (*(0,) * (len(shape) - 2), 1, 1))
    return image - ndimage.gaussian_filter(image, (*(0,) * (len(shape) - 2), 3, 3))


# --- matching parts


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), y=st.floats(-1.6, 1.6), x=st.floats(-1.6, 1.6), sign=st.sampled_from([1.0, 0.3]))
def test_parts_tell_their_shift(seed: int, y: float, x: float, sign: float) -> None:
    rng = np.random.default_rng(seed)
    scene = smooth(rng, (40, 40))
    there = ndimage.shift(scene, (y, x), order=3)
    inner, around = np.s_[8:32, 8:32], np.s_[6:34, 6:34]
    # A band that shows the opposite takes no part.
    ms = np.stack([sign * there[inner], -there[inner]])[None]
    found = correlation_shifts(np.stack([scene[around]] * 2)[None], ms)[0]
    assert np.abs(found[:2] - (y, x)).max() < 0.06
    assert found[2] == pytest.approx(0.5, abs=0.02)


def test_parts_tell_their_shift_without_bias() -> None:
    rng = np.random.default_rng(5)
    scene = smooth(rng, (60, 40, 40))
    there = ndimage.shift(scene, (0, 0.5, -1.1), order=3)
    found = correlation_shifts(scene[:, None, 10:30, 10:30], there[:, None, 12:28, 12:28])
    assert np.abs(found[:, :2].mean(axis=0) - (0.5, -1.1)).max() < 0.01


def test_parts_that_are_the_same_fit_entirely() -> None:
    part = smooth(np.random.default_rng(1), (3, 2, 19, 20))
    found = correlation_shifts(part, part[..., 2:-2, 2:-2])
    assert found[:, :2] == pytest.approx(0, abs=0.005)
    assert found[:, 2] == pytest.approx(1, abs=1e-9)


@settings(deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(6, 20), sigma=st.floats(0, 2), alike=st.floats(-1, 1))
def test_no_part_fits_more_than_entirely(seed: int, size: int, sigma: float, alike: float) -> None:
    rng = np.random.default_rng(seed)
    pan = ndimage.gaussian_filter(rng.standard_normal((1, 2, size + 4, size + 5)), (0, 0, sigma, sigma))
    other = ndimage.gaussian_filter(rng.standard_normal((1, 2, size, size + 1)), (0, 0, sigma, sigma))
    found = correlation_shifts(pan, alike * pan[..., 1:-3, 3:-1] + (1 - abs(alike)) * other)
    assert 0 <= found[0, 2] <= 1 + 1e-9


def test_no_shift_goes_beyond_what_is_looked_at() -> None:
    scene = smooth(np.random.default_rng(5), (20, 40, 40))
    there = ndimage.shift(scene, (0, 2.3, -2.4), order=3)
    found = correlation_shifts(scene[:, None, 10:30, 10:30], there[:, None, 12:28, 12:28])
    assert np.abs(found[:, :2]).max() <= 2
    assert (found[:, :2] == (2, -2)).all(axis=1).mean() > 0.5


@pytest.mark.parametrize("period", [1.9, 3.1, 40.0])
def test_stripes_tell_no_shift(period: float) -> None:
    """Along them any other fits as well, and so does one a stripe further on."""
    rows, cols = np.mgrid[:20, :20]
    stripes = np.cos(2 * np.pi * (0.8 * rows + 0.6 * cols) / period)[None, None]
    stripes -= stripes.mean()
    assert not correlation_shifts(stripes, stripes[..., 2:-2, 2:-2]).any()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 17)])
def test_between_pixels_pan_is_what_its_waves_make_it(height: int, width: int) -> None:
    """Of PAN that is white to the finest wave, too: MS is PAN half a pixel further up and left."""
    pan = np.random.default_rng(3).standard_normal((1, 1, height + 4, width + 4))
    halves = resample(resample(pan, 2 * (height + 4), axis=2), 2 * (width + 4), axis=3)
    found = correlation_shifts(pan, halves[..., 1::2, 1::2][..., 2 : height + 2, 2 : width + 2])
    assert found[0] == pytest.approx([-0.5, -0.5, 1], abs=0.004)


def test_pan_that_is_one_for_all_bands_is_given_once() -> None:
    rng = np.random.default_rng(4)
    pan, ms = smooth(rng, (3, 1, 24, 24)), smooth(rng, (3, 2, 20, 20))
    assert correlation_shifts(pan, ms) == pytest.approx(correlation_shifts(np.repeat(pan, 2, axis=1), ms))


def test_parts_without_detail_tell_nothing() -> None:
    assert not correlation_shifts(np.zeros((3, 2, 20, 20)), np.ones((3, 2, 16, 16))).any()


@given(height=st.integers(1, 60), width=st.integers(1, 60), step=st.integers(2, 9))
@settings(deadline=None, max_examples=30)
def test_every_pixel_lies_in_a_part(height: int, width: int, step: int) -> None:
    pan = smooth(np.random.default_rng(0), (1, height + 4, width + 4))[:, 2:-2, 2:-2]
    found = part_shifts(np.pad(pan, ((0, 0), (2, 2), (2, 2))), pan, step)
    reach = [(n - 1) * step + 2 * step for n in found.shape[:2]]
    assert reach[0] >= height
    assert reach[1] >= width
    assert all(end - step < max(size, step + 1) for end, size in zip(reach, (height, width), strict=True))
    assert min(height, width, 2 * step) < 12 or np.abs(found[..., :2]).max() < 0.15


# --- all over a scene


def test_the_displacement_is_found(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    off = displace(tmp_path / "pan.tif", 0.7)
    with lying(tmp_path) as scene:
        measured = measure_displacement(scene)
        assert measured is not None
        found = measured.at(scene.ms_map, (0, SIZE), (0, SIZE)) / RATIO
    # MS lies to the other side of PAN.
    assert np.median(np.abs(found + off)) < 0.08
    assert np.percentile(np.abs(found + off)[:, 32:-32, 32:-32], 95) < 0.25


def test_a_band_without_values_hides_nothing_from_the_others(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=3)
    off = displace(tmp_path / "pan.tif", 0.7)
    with rasterio.open(tmp_path / "ms.tif", "r+") as file:
        image = file.read()
        image[0, :, : SIZE // RATIO // 2] = 0
        file.write(image)
        file.nodata = 0
    with lying(tmp_path) as scene:
        measured = measure_displacement(scene)
        assert measured is not None
        found = measured.at(scene.ms_map, (0, SIZE), (0, SIZE)) / RATIO
    assert np.median(np.abs(found + off)[:, :, : SIZE // 2 - 64]) < 0.08


@pytest.mark.parametrize("method", ["network", "mtf-glp-fs"])
def test_the_product_is_nearer_to_the_truth(tmp_path: Path, method: str) -> None:
    truth = write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    files = tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif"
    options = {"method": method, "registration": "off", "overwrite": True}
    sharpen(*files, **options)
    best = rmse(files[2], truth)
    displace(files[0], 0.5)
    assert sharpen(*files, **options).registration.displacement is None
    plain = rmse(files[2], truth)
    found = sharpen(*files, local_registration=True, **options).registration
    median, greatest = found.displacement or (0.0, 0.0)
    assert f"by {median:.2f} in the median and at most {greatest:.2f}" in found.text
    assert 0.2 < median < greatest < 0.9
    with rasterio.open(files[2]) as file:
        said = [float(part) for part in file.tags()["PANCRAFTER_DISPLACEMENT"].split(",")]
    assert said == pytest.approx([median, greatest], abs=0.005)
    assert rmse(files[2], truth) - best < 0.5 * (plain - best)


def test_what_lies_right_stays_whatever_chance_says(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    with rasterio.open(tmp_path / "ms.tif", "r+") as file:
        image = file.read()
        noise = np.random.default_rng(0).normal(0, 150, image.shape)
        file.write((image + noise).clip(1, 65535).astype(np.uint16))
    with lying(tmp_path) as scene:
        assert measure_displacement(scene) is None


def test_what_lies_right_beside_what_does_not_stays(tmp_path: Path) -> None:
    """A small part that moved is corrected in a scene of which all else lies right, to the bit."""
    write_pair(tmp_path, seed=3, pan_size=1024, ratio=RATIO, bands=4)
    with rasterio.open(tmp_path / "pan.tif", "r+") as file:
        image = file.read(1)
        image[:256, :256] = image[:256, 2:258]
        file.write(image, 1)
    with lying(tmp_path) as scene:
        measured = measure_displacement(scene)
        assert measured is not None
        moved, before = scene.with_displacement(measured), scene.read_pan(0, 0, 1024, 1024)[0]
        after = moved.read_pan(0, 0, 1024, 1024)[0]
    by = np.hypot(*measured.at(scene.ms_map, (0, 1024), (0, 1024)))
    assert np.median(by[32:200, 32:200]) == pytest.approx(2, abs=0.3)
    assert np.array_equal(after[:, 640:, 640:], before[:, 640:, 640:])


def write_rows(folder: Path, period: float, degrees: float) -> Image:
    """Rows of crops as four bands see them, PAN and MS in register; returns the truth (C, H, W)."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:SIZE, :SIZE] + 0.5
    across = rows * np.cos(np.radians(degrees)) + cols * np.sin(np.radians(degrees))
    soil = 1 + 0.03 * ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 3) * 10
    field = soil * (1 + 0.25 * np.cos(2 * np.pi * across / period))
    truth = field * np.array([300, 400, 350, 700])[:, None, None] + rng.normal(0, 3, (4, SIZE, SIZE))
    write_truth(folder, truth, RATIO)
    return truth


@pytest.mark.parametrize(("period", "degrees"), [(5.8, 27), (7.7, 44), (10.3, 70), (4.6, 12)])
def test_rows_of_crops_stay_where_they_are(tmp_path: Path, period: float, degrees: float) -> None:
    """All along a row, and a row further on, PAN and MS look alike; that is no displacement, and no softness."""
    truth = write_rows(tmp_path, period, degrees)
    found = sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif", method="mtf-glp-fs")
    median, greatest = found.registration.displacement or (0.0, 0.0)
    assert median < 0.02
    assert greatest < 0.15
    assert found.ms_mtf == pytest.approx(0.3, abs=0.06)
    given = {"registration": "off", "ms_mtf": 0.3}
    sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "told.tif", method="mtf-glp-fs", **given)
    assert rmse(tmp_path / "o.tif", truth) < 1.5 * rmse(tmp_path / "told.tif", truth) + 5


def test_what_makes_the_windows_worse_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    wrong = Displacement(np.random.default_rng(0).uniform(-1, 1, (15, 15, 2)), (8.0, 8.0))
    monkeypatch.setattr(register_module, "measure_displacement", lambda scene: wrong)
    with lying(tmp_path) as scene:
        assert register(scene)[1].displacement is None
        assert register(scene, local=True)[1].displacement == wrong.lengths


def test_windows_too_uncertain_for_one_shift_are_followed_one_by_one(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    displace(tmp_path / "pan.tif", 0.65)
    with lying(tmp_path) as scene:
        _, found = register(scene)
    assert found.outcome == "uncertain"
    assert found.displacement is not None
    assert found.uncertainty < 0.3 * found.spread
    assert found.warnings == ()


def test_where_nothing_matches_nothing_moves(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    with rasterio.open(tmp_path / "pan.tif", "r+") as file:
        file.write(np.random.default_rng(0).integers(300, 700, (1, SIZE, SIZE)).astype(np.uint16))
    with lying(tmp_path) as scene:
        measured = measure_displacement(scene)
    assert measured is None or measured.lengths[0] < 0.02


@pytest.mark.parametrize(("amount", "all_read"), [(0.0, False), (0.5, True)])
def test_of_a_large_scene_some_blocks_tell_whether_the_others_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amount: float, all_read: bool
) -> None:
    monkeypatch.setattr(displacement, "_BLOCK", 32)
    monkeypatch.setattr(displacement, "_MOST_PROBED", 8)
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    if amount:
        displace(tmp_path / "pan.tif", amount)
    with lying(tmp_path) as scene:
        read = []
        original = scene.read_ms
        monkeypatch.setattr(scene, "read_ms", lambda *window: (read.append(window), original(*window))[1])
        found = measure_displacement(scene)
    assert len({row for row, *_ in read}) > 2
    assert len({col for _, col, *_ in read}) > 2
    assert (len(read) == 16) == all_read
    assert (found is not None) == all_read


def test_it_is_part_of_the_automatic_registration(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    displace(tmp_path / "pan.tif", 0.4)
    with lying(tmp_path) as scene:
        whole = register(scene, "auto", local=False)[1]
        assert register(scene)[1].displacement is not None
        assert whole.displacement is None
        assert register(scene, "off")[1].displacement is None
        assert register(scene, (whole.dx, whole.dy))[1].displacement is None
        assert register(scene, (whole.dx, whole.dy), local=True)[1].displacement is not None


def test_nodata_stays_where_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    displace(tmp_path / "pan.tif", 0.5)
    with rasterio.open(tmp_path / "pan.tif", "r+") as file:
        image = file.read()
        image[:, 100:180, 200:280] = 0
        file.write(image)
        file.nodata = 0
    sharpen(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "o.tif", method="brovey")
    with rasterio.open(tmp_path / "o.tif") as file:
        hole = file.read_masks(1) == 0
    assert hole[100:180, 200:280].all()
    assert hole.sum() == 80 * 80


def test_many_pixels_are_moved_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=2)
    shifts = np.random.default_rng(1).uniform(-1.4, 1.4, (16, 16, 2))
    with lying(tmp_path) as scene:
        moved = scene.with_displacement(Displacement(shifts, (8.0, 8.0)))
        whole = moved.read_pan(3, 5, 400, 500)
        monkeypatch.setattr(scene_module, "_MOVED_AT_ONCE", 500 * 70)
        parts = moved.read_pan(3, 5, 400, 500)
    np.testing.assert_allclose(parts[0], whole[0], atol=0.05)
    assert parts[1].all()


def test_what_is_left_is_what_makes_confidence_fall(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    displace(tmp_path / "pan.tif", 0.4)
    with lying(tmp_path) as scene:
        still, found = (register(scene, local=local)[1] for local in (False, True))
    assert still.uncertainty == still.spread == found.spread
    assert found.uncertainty < 0.5 * still.uncertainty
    assert f"spread then {found.left:.2f}" in found.text


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
    with lying(tmp_path) as scene:
        moved = scene.with_displacement(Displacement(shifts, (8.0, 8.0)))
        whole, valid = moved.read_pan(0, 0, SIZE, SIZE)
        part, known = moved.read_pan(row, col, size, size)
    assert np.array_equal(known, valid[:, row : row + size, col : col + size])
    np.testing.assert_allclose(part, whole[:, row : row + size, col : col + size], atol=0.05)


def test_a_product_is_scored_where_its_pan_was_moved_to(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    displace(tmp_path / "pan.tif", 0.5)
    pan, ms, product = (tmp_path / name for name in ("pan.tif", "ms.tif", "o.tif"))
    said = {}
    for local in (True, False):
        sharpen(pan, ms, product, method="mtf-glp-fs", local_registration=local, overwrite=True)
        with ExitStack() as stack:
            said[local] = score(ScoreOptions(product, pan=pan, ms=(ms,)), stack).result
    assert "from place to place" in said[True].settings["registration"]
    assert "from place to place" not in said[False].settings["registration"]
    assert said[True].scores["fused"]["d_s"] < said[False].scores["fused"]["d_s"]


def test_a_product_is_scored_with_ms_where_it_was_put(tmp_path: Path) -> None:
    write_pair(tmp_path, seed=3, pan_size=SIZE, ratio=RATIO, bands=4)
    pan, ms, product = (tmp_path / name for name in ("pan.tif", "ms.tif", "o.tif"))
    sharpen(pan, ms, product, method="brovey", registration=(0.5, -0.25))
    with ExitStack() as stack:
        said, asked = (
            score(ScoreOptions(product, pan=pan, ms=(ms,), registration=choice), stack).result
            for choice in (None, (0.5, -0.25))
        )
    assert said.scores == asked.scores
    assert said.settings["registration"] == "+0.50, -0.25 MS pixels (x, y), as given, by the product's tags"
