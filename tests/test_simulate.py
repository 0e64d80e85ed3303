from __future__ import annotations

import numpy as np
import pytest

from pancrafter_cli.data.landscape.layout import build_landscape
from pancrafter_cli.data.landscape.materials import NAMES
from pancrafter_cli.data.simulate import MAX_DN, MS_GAINS, SimulatedScene, simulate_scene
from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.resample import apply_weights

SIZE, RATIO = 512, 4
BORDER = 4  # MS pixels whose blur would reach past the reference's edge


@pytest.fixture(scope="module")
def scene() -> SimulatedScene:
    return simulate_scene(6, SIZE, RATIO)


def degraded(reference: np.ndarray, gains: tuple[float, ...], shift: float = 0.0) -> np.ndarray:
    """The reference brought to the MS grid, which is taken to lie `shift` PAN pixels further along."""
    axis = AxisMap(float(RATIO), shift, SIZE // RATIO, SIZE)
    bands = []
    for band, gain in zip(reference, gains, strict=True):
        m = degrade_weights(axis, 0, SIZE // RATIO, gain).matrix
        bands.append(apply_weights(m, m, band))
    return np.stack(bands)


def relative_rmse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return np.sqrt(np.mean((a[inner] - b[inner]) ** 2, axis=(1, 2))) / b[inner].mean(axis=(1, 2))


def test_shapes_types_and_names(scene: SimulatedScene) -> None:
    assert scene.pan.shape == (1, SIZE, SIZE)
    assert scene.ms.shape == (4, SIZE // RATIO, SIZE // RATIO)
    assert scene.reference.shape == (4, SIZE, SIZE)
    assert {a.dtype for a in (scene.pan, scene.ms, scene.reference)} == {np.dtype(np.float32)}
    assert scene.bands == ("blue", "green", "red", "nir")


def test_a_seed_gives_the_same_scene_and_another_seed_another_one() -> None:
    first, again, other = (simulate_scene(seed, 128) for seed in (7, 7, 8))
    for name in ("pan", "ms", "reference"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert np.abs(first.pan - other.pan).mean() > 20


def test_values_are_those_of_an_11_bit_sensor(scene: SimulatedScene) -> None:
    for image in (scene.pan, scene.ms, scene.reference):
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= MAX_DN
        assert (image >= MAX_DN).mean() < 1e-3
        assert 20 < np.percentile(image, 1) < np.percentile(image, 99) < 1800
    assert np.array_equal(scene.pan, np.round(scene.pan))
    assert np.array_equal(scene.ms, np.round(scene.ms))


def test_ms_is_the_reference_seen_through_the_ms_sensor(scene: SimulatedScene) -> None:
    # The reference is already blurred a little by PAN's optics, so a nominal MS blur on top of it is a
    # little too much: 0.7 to 1.0 % here. Half a PAN pixel of shift makes 3 to 5 %.
    right = relative_rmse(degraded(scene.reference, MS_GAINS), scene.ms)
    assert (right < 0.02).all()
    for shift in (-0.5, 0.5):
        wrong = relative_rmse(degraded(scene.reference, MS_GAINS, shift), scene.ms)
        assert (wrong > 0.025).all()
        assert (wrong > 2.5 * right).all()


def test_ms_is_the_reference_blurred_by_what_pan_left_over(scene: SimulatedScene) -> None:
    # Gaussians nest: gain_ms at the MS Nyquist frequency is PAN's gain there times what is left.
    pan_gain_there = 0.15 ** (1 / RATIO**2)
    left = tuple(g / pan_gain_there for g in MS_GAINS)
    assert (relative_rmse(degraded(scene.reference, left), scene.ms) < 0.01).all()


def test_pan_is_close_to_a_mixture_of_the_bands_but_not_one(scene: SimulatedScene) -> None:
    pan = scene.pan.ravel().astype(np.float64)
    bands = scene.reference.reshape(4, -1).T.astype(np.float64)
    design = np.column_stack([bands, np.ones(len(bands))])
    fit = design @ np.linalg.lstsq(design, pan, rcond=None)[0]
    expected_noise = np.sqrt(0.035 * pan.mean() + 1.6**2)
    residual = float(np.std(pan - fit))
    assert residual > 2 * expected_noise  # more than noise parts them
    assert np.corrcoef(pan, fit)[0, 1] > 0.97
    assert np.corrcoef(pan, bands[:, :3].mean(axis=1))[0, 1] > 0.8


@pytest.mark.parametrize("seed", [3, 6])
def test_a_landscape_holds_what_a_towns_edge_holds(seed: int) -> None:
    canvas = build_landscape(np.random.default_rng(seed), 2048, 0.25)
    present = {NAMES[i] for i in np.unique(canvas.palette.arrays().material[canvas.label])}
    assert present >= {"asphalt", "pavement", "marking", "lawn", "leaves", "hedge", "water", "turf", "glass"}
    assert present & {"red clay", "brown tile", "grey tile", "dark slate"}
    assert present & {"white metal", "grey metal", "blue metal", "felt", "roof gravel"}
    assert present & {"ripe wheat", "young crop", "maize", "stubble", "soil", "rapeseed", "dry grass"}
    assert present & {"white paint", "silver paint", "black paint"}
    assert canvas.height.min() >= 0
    assert 5 < canvas.height.max() < 30


def test_shadows_fall_away_from_the_sun_and_are_as_long_as_they_should_be() -> None:
    canvas = build_landscape(np.random.default_rng(1), 256, 0.25)
    canvas.height[:] = 0
    canvas.height[120:124, 120:124] = 10.0
    shadow = canvas.shadow() > 0.5
    rows, cols = np.nonzero(shadow)
    run = np.hypot(canvas.sun.x, canvas.sun.y)
    tip = np.hypot(rows - 121.5, cols - 121.5).max() * 0.25
    assert tip == pytest.approx(10.0 * run / canvas.sun.z, abs=1.2)
    away = np.array([rows.mean() - 121.5, cols.mean() - 121.5])
    assert away @ (canvas.sun.y, canvas.sun.x) < 0


@pytest.mark.parametrize(("size", "ratio"), [(0, 4), (130, 4), (64, 0)])
def test_a_size_that_the_ratio_does_not_divide_is_refused(size: int, ratio: int) -> None:
    with pytest.raises(ValueError, match="multiple of ratio"):
        simulate_scene(0, size, ratio)
