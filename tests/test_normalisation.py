"""The unit networks see: ordinary scenes as ever, and levels and bands that would drown in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from pancrafter_cli import sharpen
from pancrafter_cli.geometry.normalisation import Normalisation, fit_normalisation
from pancrafter_cli.raster.scene import open_scene
from pancrafter_cli.tasks.tile_inputs import read_inputs
from tests.pairs import textured, write_pair
from tests.scene_factory import FileFacts, write_tif

RATIO, SIZE = 4, 128


def bands_of(seed: int, count: int = 3) -> list[np.ndarray]:
    """Samples of 100 to 900 DN."""
    return [band.ravel().astype(np.float32) for band in textured(count, 48, seed)]


@given(seed=st.integers(0, 99))
def test_of_ordinary_bands_it_is_the_99th_percentile_of_all(seed: int) -> None:
    bands = bands_of(seed)
    found = fit_normalisation(bands)
    assert not found.base.any()
    assert not found.constant.any()
    assert found.scale == pytest.approx(np.percentile(np.abs(np.concatenate(bands)), 99))


@given(seed=st.integers(0, 99), level=st.floats(1e4, 1e6), sign=st.sampled_from([-1.0, 1.0]))
def test_what_a_network_sees_does_not_depend_on_a_level_far_beyond_the_range(
    seed: int, level: float, sign: float
) -> None:
    bands = bands_of(seed)
    there = fit_normalisation([band + np.float32(sign * level) for band in bands])
    image = np.stack(bands).reshape(3, 48, 48)
    seen = there.of(image + np.float32(sign * level))
    beyond = fit_normalisation([band + np.float32(sign * 2e5) for band in bands])
    np.testing.assert_allclose(seen, beyond.of(image + np.float32(sign * 2e5)), atol=5e-4)
    assert seen.min() > 0
    assert seen.max() < 1.5
    np.testing.assert_allclose(there.undone(seen), image + np.float32(sign * level), rtol=1e-6)


@given(seed=st.integers(0, 99), dark=st.floats(1e-6, 0.05))
def test_a_band_far_darker_than_the_others_is_seen_at_a_quarter_of_their_size(seed: int, dark: float) -> None:
    bands = bands_of(seed)
    found = fit_normalisation([bands[0] * np.float32(dark), *bands[1:]])
    own = [np.percentile(band, 99) for band in bands]
    assert own[0] * dark / found.scale[0] == pytest.approx(0.25 * max(own[1:]) / found.scale[1], rel=1e-4)


def test_what_is_bright_in_a_dark_band_stays_in_reach() -> None:
    """Water with an island: its 99th percentile says nothing of the island."""
    for dark in (0.0, 1.0, 5.0):
        band = np.random.default_rng(0).poisson(dark, 10_000).astype(np.float32)
        band[:90] = np.linspace(100, 800, 90)
        found = fit_normalisation([*bands_of(1), band])
        assert band.max() / found.scale[3] <= 4.0 + 1e-6
        assert found.scale[3] <= found.scale[0]


def test_bands_that_are_negative_throughout_are_raised(tmp_path: Path) -> None:
    truth = write_pair(tmp_path, seed=1, pan_size=SIZE, ratio=RATIO, bands=4)
    plain = error(product(tmp_path / "pan.tif", tmp_path / "ms.tif"), truth)
    negative = error(product(*rewritten(tmp_path, np.ones(4), -2000.0)), truth - 2000)
    assert (negative < 1.3 * plain).all()


def test_bands_without_pixels_or_of_one_value_do_no_harm() -> None:
    found = fit_normalisation([*bands_of(0), np.zeros(0, np.float32), np.full(50, 7000, np.float32)])
    assert np.isfinite(found.scale).all()
    assert (found.scale > 0).all()
    assert not found.base.any()
    assert found.constant.tolist() == [False, False, False, True, True]
    assert found.scale.tolist() == [found.scale[0]] * 4 + [7000.0]
    assert fit_normalisation([np.zeros(9, np.float32)]).scale == 1.0


def test_pan_that_is_not_matched_stays_beside_ms() -> None:
    high = Normalisation(np.array([59_000.0, 58_000.0]), np.array([2000.0, 1000.0]), np.zeros(2, bool))
    pan = high.for_pan(300.0, np.array([60_000.0, 59_000.0]))
    assert pan.of(np.full((1, 2, 2), 300, np.float32)) == pytest.approx(0.5)
    plain = Normalisation(np.zeros(2), np.array([2000.0, 2000.0]), np.zeros(2, bool))
    assert plain.for_pan(300.0, np.array([500.0, 600.0])).of(np.full((1, 2, 2), 300, np.float32)) == pytest.approx(0.15)


# Products


def rewritten(folder: Path, change: np.ndarray, level: float = 0.0) -> tuple[Path, Path]:
    """The pair with MS bands multiplied by `change` (C,) and raised by a level, as float32."""
    with rasterio.open(folder / "ms.tif") as file:
        image = file.read().astype(np.float64) * change[:, None, None] + level
    facts = FileFacts(transform=Affine(0.5 * RATIO, 0, 500_000, 0, -0.5 * RATIO, 5_700_000))
    return folder / "pan.tif", write_tif(folder / "changed.tif", image.astype(np.float32), facts)


def product(pan: Path, ms: Path, **options: object) -> np.ndarray:
    result = sharpen(pan, ms, ms.with_name(f"{ms.stem}-sharp.tif"), registration="off", **options)  # type: ignore[arg-type]
    with rasterio.open(result.output) as file:
        return np.asarray(file.read().astype(np.float64))


@pytest.fixture
def truth(tmp_path: Path) -> np.ndarray:
    return write_pair(tmp_path, seed=1, pan_size=SIZE, ratio=RATIO, bands=4)


def error(sharp: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(((sharp - truth) ** 2).mean(axis=(1, 2))) / truth.std(axis=(1, 2)))


def test_a_dark_band_is_sharpened_as_well_as_a_bright_one(tmp_path: Path, truth: np.ndarray) -> None:
    """Reflectance beside kelvin: what is added to the bright band must not be added to the dark one."""
    plain = error(product(tmp_path / "pan.tif", tmp_path / "ms.tif"), truth)
    change = np.array([0.01, 1.0, 1.0, 1.0])
    dark = error(product(*rewritten(tmp_path, change)), truth * change[:, None, None])
    assert (dark < 1.3 * plain).all()


def test_a_level_far_beyond_the_range_costs_next_to_nothing(tmp_path: Path, truth: np.ndarray) -> None:
    plain = error(product(tmp_path / "pan.tif", tmp_path / "ms.tif"), truth)
    high = error(product(*rewritten(tmp_path, np.ones(4), 60_000.0)), truth + 60_000)
    assert (high < 1.15 * plain).all()


@pytest.mark.usefixtures("truth")
def test_the_unit_is_told_by_the_product(tmp_path: Path) -> None:
    for change, level in ((np.array([0.01, 1, 1, 1]), 0.0), (np.ones(4), 60_000.0)):
        pan, ms = rewritten(tmp_path, change, level)
        product(pan, ms, overwrite=True)
        with open_scene(pan, [ms]) as scene, rasterio.open(tmp_path / "changed-sharp.tif") as file:
            known, said = scene.statistics.normalisation, file.tags()
        scales = np.array([float(number) for number in said["PANCRAFTER_SCALE"].split(",")])
        assert known.scale == pytest.approx(np.broadcast_to(scales, 4))
        assert ("PANCRAFTER_BASE" in said) == (level > 0) == known.base.any()


@pytest.mark.usefixtures("truth")
def test_a_band_of_one_value_stays_as_it_is(tmp_path: Path) -> None:
    for level in (0.0, 1000.0):
        with rasterio.open(tmp_path / "ms.tif", "r+") as file:
            file.write(np.full(file.shape, level, np.uint16), 3)
        sharp = product(tmp_path / "pan.tif", tmp_path / "ms.tif", overwrite=True)
        assert (sharp[2] == level).all()
        assert sharp[1].std() > 50


@pytest.mark.usefixtures("truth")
def test_a_network_that_sees_pan_itself_sees_it_beside_ms(tmp_path: Path) -> None:
    pan, ms = rewritten(tmp_path, np.ones(4), 60_000.0)
    with open_scene(pan, [ms]) as scene:
        images = read_inputs(scene, (0, SIZE), (0, SIZE), matched=False).images
    assert images.mpan.mean() == pytest.approx(images.lms.mean(), rel=0.05)
    assert images.lpan.mean() == pytest.approx(images.lms.mean(), rel=0.05)
