"""A raster scored window by window gets the numbers it gets in one piece, in memory that does not grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pancrafter_cli.errors import MetricError
from pancrafter_cli.metrics.full import FullScores, score_full
from pancrafter_cli.metrics.streaming import greatest, score_reduced
from pancrafter_cli.metrics.windows import Read, array_reader, parts

WHOLE = 10**6
GAINS = (0.32, 0.3, 0.22)
FULL_INDICES = ("d_lambda_k", "d_s", "hqnr", "d_lambda", "qnr", "blocks", "flat_spatial", "flat_spectral")


def masked_scene(height: int, width: int, seed: int = 0, bands: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, a disturbed copy and a mask with a slanting edge, a hole and single pixels; NaN where not valid."""
    rng = np.random.default_rng(seed)
    i, j = np.arange(height)[:, None], np.arange(width)[None, :]
    truth = np.empty((bands, height, width))
    for band in range(bands):
        waves = np.sin(i / (7 + band)) * np.cos(j / (11 - band)) + 0.4 * ((i // 9 + j // 13) % 2)
        truth[band] = np.floor(600 + 250 * waves + rng.uniform(0, 60, (height, width)))
    fused = truth + rng.normal(0, 15, truth.shape)
    valid = (j > 0.2 * i + width / 9) & ((i - height * 0.7) ** 2 + (j - width * 0.8) ** 2 > (height / 8) ** 2)
    valid.reshape(-1)[rng.integers(0, valid.size, 3)] = False
    for image in (truth, fused):
        image[:, ~valid] = np.nan
    return truth, fused, valid


def reduced(truth: np.ndarray, fused: np.ndarray, valid: np.ndarray, tile: int, cut: int = 0) -> dict[str, float]:
    readers = (array_reader(image) for image in (truth, fused, valid))
    return vars(score_reduced(*readers, valid.shape, 4, cut=cut, tile=tile))


def full(truth: np.ndarray, fused: np.ndarray, valid: np.ndarray, tile: int, geometry: str) -> FullScores:
    pan, low = np.nanmean(fused, axis=0, keepdims=True), truth[1:2] * 0.5 + truth[2:3] * 0.5
    readers = (array_reader(image) for image in (fused, truth, pan, low, valid))
    return score_full(*readers, valid.shape, 4, GAINS, geometry=geometry, tile=tile)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return masked_scene(300, 250)


@pytest.mark.parametrize("tile", [32, 96])
@pytest.mark.parametrize("cut", [0, 21])
def test_reduced_scores_do_not_depend_on_the_windows(scene, tile, cut):
    expected = reduced(*scene, tile=WHOLE, cut=cut)
    for name, value in reduced(*scene, tile=tile, cut=cut).items():
        assert value == pytest.approx(expected[name], abs=1e-9), name
        assert np.isfinite(value)


@pytest.mark.parametrize("tile", [32, 64])
@pytest.mark.parametrize("geometry", ["area", "toolbox"])
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_full_scores_do_not_depend_on_the_windows(scene, tile, geometry):
    expected, scores = (full(*scene, tile=size, geometry=geometry) for size in (WHOLE, tile))
    for name in FULL_INDICES:
        assert getattr(scores, name) == pytest.approx(getattr(expected, name), abs=1e-9), name
    np.testing.assert_allclose(scores.spectral_map, expected.spectral_map, atol=1e-9)
    np.testing.assert_allclose(scores.spatial_map, expected.spatial_map, atol=1e-9)
    assert 0 < scores.blocks < 9 * 7


def test_missing_pixels_beside_a_window_are_filled_from_past_it():
    """The sixth pixel of the gap, the last the low-pass draws on, lies nearer to what is bright past the gap."""
    truth, fused, _ = masked_scene(64, 128)
    truth, fused = np.nan_to_num(truth), np.nan_to_num(fused)
    fused[:, :, 32:] = 65535
    valid = np.ones((64, 128), dtype=bool)
    valid[:, 32 : 32 + 10] = False
    whole, tiled = (full(truth, fused, valid, tile, "area") for tile in (WHOLE, 32))
    assert tiled.d_lambda_k == pytest.approx(whole.d_lambda_k, abs=1e-9)
    dark = np.where(np.arange(128) < 32, fused, 1)
    assert full(truth, dark, valid, 32, "area").spectral_map[0, 0] != tiled.spectral_map[0, 0]


@given(st.integers(0, 2**32 - 1), st.integers(32, 140), st.integers(32, 140))
@settings(max_examples=10)
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_any_size_and_any_mask(seed, height, width):
    truth, fused, _ = masked_scene(height, width, seed)
    valid = np.isfinite(truth[0])
    valid[: height // 2] &= np.random.default_rng(seed).random((height // 2, width)) < 0.999
    scenes = (truth, fused, valid)

    def outcome(score, tile: int) -> object:
        try:
            return score(tile)
        except MetricError as error:
            return error.message

    whole, tiled = (outcome(lambda tile: reduced(*scenes, tile=tile), tile) for tile in (WHOLE, 32))
    assert tiled == (pytest.approx(whole, abs=1e-9) if isinstance(whole, dict) else whole)

    def full_values(tile: int) -> list[float]:
        scores = full(*scenes, tile=tile, geometry="area")
        return [getattr(scores, name) for name in FULL_INDICES]

    whole, tiled = (outcome(full_values, tile) for tile in (WHOLE, 32))
    assert tiled == (pytest.approx(whole, abs=1e-9) if isinstance(whole, list) else whole)


def test_a_large_scene_by_windows_of_two_sizes():
    scene = masked_scene(3000, 2500)
    coarse, fine = (reduced(*scene, tile=tile) for tile in (WHOLE, 512))
    for name, value in fine.items():
        assert value == pytest.approx(coarse[name], abs=1e-9), name


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_large_scene_at_full_resolution():
    scene = masked_scene(3000, 2500)
    coarse, fine = (full(*scene, tile=tile, geometry="area") for tile in (WHOLE, 512))
    for name in FULL_INDICES:
        assert getattr(fine, name) == pytest.approx(getattr(coarse, name), abs=1e-9), name


def bounded(image: np.ndarray, limit: int) -> Read:
    """A reader that fails when asked for a window with more than `limit` pixels per side, or outside the raster."""

    def read(rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        for span, size in zip((rows, cols), image.shape[-2:], strict=True):
            assert 0 <= span[0] < span[1] <= size
            assert span[1] - span[0] <= limit
        return image[..., slice(*rows), slice(*cols)]

    return read


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_no_window_is_larger_than_tile_and_halo(scene):
    truth, fused, valid = scene
    readers = [bounded(image, 64 + 2 * 32) for image in (truth, fused, valid)]
    score_reduced(*readers, valid.shape, 4, tile=64)
    pan = np.nanmean(fused, axis=0, keepdims=True)
    limit = 64 + 2 * (20 + 29)  # the kernel's radius and what a filled pixel on its rim can see
    readers = [bounded(image, limit) for image in (fused, truth, pan, pan, valid)]
    score_full(*readers, valid.shape, 4, GAINS, tile=64, geometry="toolbox")


def test_without_a_peak_the_greatest_valid_value_is_used(scene):
    truth, fused, valid = scene
    bright = truth.copy()
    bright[:, 0, 0] = 1e6  # not valid
    assert not valid[0, 0]
    scores = reduced(bright, fused, valid, tile=64)
    assert scores["peak"] == np.nanmax(truth)
    assert greatest(array_reader(bright), array_reader(valid), valid.shape, 64) == np.nanmax(truth)


def test_an_error_says_where_in_the_raster():
    truth, fused, _ = masked_scene(200, 200)
    truth, fused = np.nan_to_num(truth), np.nan_to_num(fused)
    fused[2, 150, 120] = np.nan
    with pytest.raises(MetricError, match="fused image has nan in a valid pixel: band 3, row 150, column 120"):
        score_reduced(array_reader(truth), array_reader(fused), None, (200, 200), 4, peak=1, tile=64)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100), st.integers(0, 40))
def test_cores_partition_the_raster(height, width, tile, halo):
    seen = np.zeros((height, width), dtype=int)
    for part in parts((height, width), tile, halo):
        seen[slice(*part.rows), slice(*part.cols)] += 1
        inside = np.zeros((part.read_rows[1] - part.read_rows[0], part.read_cols[1] - part.read_cols[0]))
        assert inside[part.core].shape == (part.rows[1] - part.rows[0], part.cols[1] - part.cols[0])
    assert (seen == 1).all()
