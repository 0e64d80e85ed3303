"""Quality indices: the reference toolbox's values, properties that hold for all images, masks and errors."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pancrafter_cli.errors import MetricError
from pancrafter_cli.geometry.degrade import mtf_sigma
from pancrafter_cli.geometry.sensors import mtf_of
from pancrafter_cli.geometry.toolbox import correlate, decimate, mtf_kernel, mtf_lowpass, shrink, upsample23
from pancrafter_cli.metrics.full import FullScores, full_scores
from pancrafter_cli.metrics.hypercomplex import q2n
from pancrafter_cli.metrics.lowpass import fill_nearest, lowpass
from pancrafter_cli.metrics.reduced import ergas, psnr, sam, scc, ssim
from pancrafter_cli.metrics.streaming import reduced_scores
from pancrafter_cli.metrics.uqi import block_uqi, box_sum, q
from pancrafter_cli.metrics.windows import Part, looks_scaled
from tests.reference_scene import reference_scene

SENSORS = {8: "WV3", 4: "QB"}
REDUCED = ("q", "sam", "ergas", "scc", "q2n")

TOOLBOX_CUT = 21  # the border that published tables leave out


def pair(seed: int, bands: int = 4, size: tuple[int, int] = (48, 70)) -> tuple[np.ndarray, np.ndarray]:
    """Truth and a disturbed copy, integer DN."""
    rng = np.random.default_rng(seed)
    truth = np.cumsum(rng.integers(-40, 41, (bands, *size)), axis=2) + rng.integers(900, 1500, (bands, 1, 1))
    truth = np.clip(truth, 1, 2047).astype(np.float64)
    return truth, np.clip(truth + rng.integers(-60, 61, truth.shape), 1, 2047)


def test_a_border_that_leaves_nothing_is_named() -> None:
    truth, fused = pair(1)
    with pytest.raises(MetricError, match="48 x 70 pixels less a border of 500 are too few") as raised:
        reduced_scores(truth, fused, 4, cut=500)
    assert "--cut" in raised.value.hint
    with pytest.raises(MetricError, match="less a border of 9"):
        reduced_scores(truth, fused, 4, cut=9)
    assert reduced_scores(truth, fused, 4, cut=8).sam > 0


# --- the reference toolbox's tables -----------------------------------------------------------------------------


def test_the_synthetic_scene_is_the_one_of_the_reference_values():
    for bands, totals, last in ((8, (374549254, 45215600, 374543868.68289), 1052), (4, (166315022, 40499629, 0), 987)):
        scene = reference_scene(bands)
        assert (scene.truth.sum(), scene.pan.sum()) == totals[:2]
        assert scene.truth[0, 0, 0] == 650
        assert scene.truth[bands - 1, 100, 57] == last
        assert scene.pan[0, 9, 19] == {8: 668, 4: 401}[bands]
    assert reference_scene(8).fused.sum() == pytest.approx(374543868.68289, abs=1e-3)
    assert reference_scene(4).fused.sum() == pytest.approx(166312995.195327, abs=1e-3)


@pytest.mark.parametrize(
    ("bands", "cut", "expected"),
    [
        (8, TOOLBOX_CUT, (0.997165, 1.09813725, 0.52028501, 0.99839153, 0.99717762)),
        (8, 0, (0.9971608, 1.09903794, 0.52024494, 0.99832274, 0.99718216)),
        (4, TOOLBOX_CUT, (0.99710771, 1.20703794, 0.57579883, 0.9973413, 0.99712327)),
        (4, 0, (0.99709859, 1.21026816, 0.57574232, 0.997203, 0.99712625)),
    ],
)
def test_reduced_resolution_values_of_the_toolbox(bands, cut, expected):
    scene = reference_scene(bands)
    scores = reduced_scores(scene.truth, scene.fused, 4, peak=2047, cut=cut)
    assert [getattr(scores, name) for name in REDUCED] == pytest.approx(expected, abs=2e-8)


@pytest.mark.parametrize(("bands", "expected"), [(8, (0.99459239, 42.999188)), (4, (0.99246469, 42.993753))])
def test_ssim_and_psnr_reference_values(bands, expected):
    scene = reference_scene(bands)
    scores = reduced_scores(scene.truth, scene.fused, 4, peak=2047, cut=TOOLBOX_CUT)
    assert scores.ssim == pytest.approx(expected[0], abs=1e-8)
    assert scores.psnr == pytest.approx(expected[1], abs=1e-6)


@cache
def full_inputs(bands: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """lms, low-passed PAN and gains of the 512 x 512 scene in the toolbox's geometry."""
    scene, gains = reference_scene(bands, 512), mtf_of(SENSORS[bands], bands).ms
    ms = np.floor(decimate(mtf_lowpass(scene.truth, 4, gains), 4))
    return upsample23(ms, 4), upsample23(shrink(scene.pan, 4), 4), gains


@pytest.mark.parametrize(
    ("bands", "fused", "expected"),
    [
        (8, "F", (0.0080171, 0.03695888, 0.95532032)),
        (8, "EXP", (0.05195023, 0.0137317, 0.93503144)),
        (4, "F", (0.00405932, 0.02232845, 0.97370287)),
        (4, "EXP", (0.022223, 0.00688032, 0.97104958)),
    ],
)
def test_full_resolution_values_of_the_toolbox(bands, fused, expected):
    scene = reference_scene(bands, 512)
    lms, pan_low, gains = full_inputs(bands)
    image = scene.fused if fused == "F" else lms
    scores = full_scores(image, lms, scene.pan, pan_low, 4, gains, geometry="toolbox")
    assert (scores.d_lambda_k, scores.d_s, scores.hqnr) == pytest.approx(expected, abs=2e-8)
    assert scores.blocks == 256


def test_qnr_has_a_distortion_of_its_own():
    lms, pan_low, gains = full_inputs(4)
    scene = reference_scene(4, 512)
    scores = full_scores(scene.fused, lms, scene.pan, pan_low, 4, gains, geometry="toolbox")
    assert scores.d_lambda == pytest.approx(0.01690483, abs=2e-8)
    assert scores.qnr == pytest.approx((1 - 0.01690483) * (1 - 0.02232845), abs=3e-8)


# --- properties -------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
@settings(max_examples=20)
def test_an_image_scores_perfectly_against_itself(seed, bands):
    truth, _ = pair(seed, bands)
    scores = reduced_scores(truth, truth, 4)
    assert (scores.ergas, scores.psnr) == (0, np.inf)
    assert scores.sam == pytest.approx(0, abs=2e-6)
    assert [scores.scc, scores.q, scores.q2n, scores.ssim] == pytest.approx([1] * 4, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=20)
def test_transposing_both_images_changes_nothing(seed, bands):
    truth, fused = pair(seed, bands, (40, 52))
    turned = reduced_scores(truth.swapaxes(1, 2), fused.swapaxes(1, 2), 4, peak=2047)
    for name, value in vars(reduced_scores(truth, fused, 4, peak=2047)).items():
        assert getattr(turned, name) == pytest.approx(value, abs=1e-9), name


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20))
@settings(max_examples=20)
def test_indices_that_do_not_know_the_unit(seed, factor):
    """ERGAS, SAM, SCC and Q of both images times a factor stay; SAM and SCC even when only one is scaled."""
    truth, fused = pair(seed)
    for index in (lambda t, f: ergas(t, f, 4), sam, scc, q):
        assert index(factor * truth, factor * fused) == pytest.approx(index(truth, fused), abs=1e-9)
    for index in (sam, scc):
        assert index(truth, factor * fused) == pytest.approx(index(truth, fused), abs=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_symmetric_indices(seed):
    truth, fused = pair(seed)
    for index in (sam, scc, q, lambda t, f: psnr(t, f, 2047), lambda t, f: ssim(t, f, 2047)):
        assert index(fused, truth) == pytest.approx(index(truth, fused), abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
@settings(max_examples=20)
def test_band_order_matters_to_none_but_q2n(seed, bands):
    truth, fused = pair(seed, bands)
    order = np.random.default_rng(seed).permutation(bands)
    for index in (sam, scc, q, lambda t, f: ergas(t, f, 4), lambda t, f: ssim(t, f, 2047)):
        assert index(truth[order], fused[order]) == pytest.approx(index(truth, fused), abs=1e-9)


def test_q2n_of_one_band_is_a_block_uqi_of_normalised_images():
    truth, fused = pair(5, 1, (32, 32))
    mu, sd = truth.mean(), truth.std(ddof=1)
    x, y = ((image - mu) / sd + 1 for image in (truth, fused))
    expected = block_uqi(np.stack([x.ravel(), y.ravel()])[None])[0, 0, 1]
    assert q2n(truth, fused) == pytest.approx(abs(expected), abs=1e-12)


@pytest.mark.parametrize("second", ["as it is", "zero", "constant"])
def test_q2n_of_two_bands_is_a_complex_correlation(second):
    """Two bands are a complex number, and the definition can be written down with complex arithmetic."""
    truth, fused = pair(6, 2, (32, 32))
    if second != "as it is":
        truth[1] = {"zero": 0, "constant": 700}[second]
        fused[1] = truth[1] + np.arange(1024).reshape(32, 32) % 2
    mu, sd = truth.mean(axis=(1, 2), keepdims=True), truth.std(axis=(1, 2), ddof=1, keepdims=True)
    sd[sd == 0] = np.finfo(float).eps
    x, y = ((image - mu) / sd + 1 for image in (truth, fused))
    if second == "zero":
        y[1] = fused[1] + 1
    x, y = x[0] + 1j * x[1], y[0] + 1j * y[1]
    k = 1024 / 1023
    s = k * ((x * y.conj()).mean() - x.mean() * y.mean().conj())
    v = k * ((abs(x) ** 2).mean() - abs(x.mean()) ** 2 + (abs(y) ** 2).mean() - abs(y.mean()) ** 2)
    bias = 2 * abs(x.mean()) * abs(y.mean()) / (abs(x.mean()) ** 2 + abs(y.mean()) ** 2)
    assert q2n(truth, fused) == pytest.approx(abs(s) * 2 / v * bias, abs=1e-12)


def test_q2n_rounds_to_whole_dn_half_up():
    truth, fused = pair(7)
    assert q2n(truth, fused - 0.5) == q2n(truth, fused)
    assert q2n(truth, fused + 0.5) == q2n(truth, fused + 1)
    assert q2n(truth, fused + 0.5) != q2n(truth, fused)


@pytest.mark.parametrize("shift", [10_000, 40_000, 63_000])
def test_q2n_takes_all_that_16_bits_hold(shift):
    """It is of images less the truth's mean, so a shift of both costs nothing; what is brighter is cut."""
    truth, fused = pair(7)
    assert q2n(truth + shift, fused + shift) == pytest.approx(q2n(truth, fused), abs=1e-9)
    assert q2n(truth + shift, fused + 65_535) == q2n(truth + shift, np.full(fused.shape, 65_535.0))


def test_q2n_mirrors_what_is_missing_of_a_block():
    truth, fused = pair(8, 3, (45, 33))
    pad = ((0, 0), (0, 19), (0, 31))
    whole_blocks = (np.pad(image, pad, mode="symmetric") for image in (truth, fused))
    assert q2n(truth, fused) == pytest.approx(q2n(*whole_blocks), abs=1e-12)


def test_a_shift_of_all_dn_costs_q_only_its_luminance():
    truth, _ = pair(9, 1, (32, 32))
    m = truth.mean()
    assert q(truth, truth + 300) == pytest.approx(2 * m * (m + 300) / (m**2 + (m + 300) ** 2), abs=1e-12)


def test_q_of_constant_images_is_their_luminance_and_of_zeros_one():
    ones = np.ones((1, 40, 40))
    assert q(700.1 * ones, 300.3 * ones) == pytest.approx(2 * 700.1 * 300.3 / (700.1**2 + 300.3**2), abs=1e-12)
    assert q(0 * ones, 0 * ones) == 1


def test_q_keeps_its_digits_on_bright_images():
    rng = np.random.default_rng(10)
    x, y = (60000 + rng.normal(size=(32, 32)) for _ in range(2))
    expected = block_uqi(np.stack([x.ravel(), y.ravel()])[None])[0, 0, 1]
    assert q(x[None], y[None]) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_box_sums_are_sums_of_boxes(seed):
    image = np.random.default_rng(seed).uniform(-5, 2047, (40, 50))
    windows = np.lib.stride_tricks.sliding_window_view(image, (32, 32))
    np.testing.assert_allclose(box_sum(image, 32), windows.sum(axis=(2, 3)), rtol=1e-12)


def full_pair(seed: int, bands: int = 3, size: tuple[int, int] = (70, 100)) -> dict[str, np.ndarray]:
    """Inputs of the full-resolution indices."""
    truth, fused = pair(seed, bands, size)
    return {"fused": fused, "lms": truth, "pan": fused.mean(axis=0, keepdims=True), "pan_low": truth[:1].copy()}


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(1.5, 7))
@settings(max_examples=20)
def test_full_resolution_scores_of_an_image_that_is_its_own_ms(seed, bands, ratio):
    """No distortion between bands or against PAN is left when fused is lms and PAN is its own low-pass."""
    images = full_pair(seed, bands)
    gains = (0.3,) * bands
    scores = full_scores(images["lms"], images["lms"], images["pan"], images["pan"], ratio, gains)
    assert (scores.d_lambda, scores.d_s) == (0, 0)
    assert 0 < scores.d_lambda_k < 1
    part = Part((0, 70), (0, 100), (0, 70), (0, 100), (70, 100))
    low = lowpass(images["fused"], np.ones((70, 100), bool), part, ratio, gains, "area")
    perfect = full_scores(images["fused"], low, images["pan"], images["pan"], ratio, gains)
    assert perfect.d_lambda_k == pytest.approx(0, abs=1e-12)


def test_maps_average_to_the_scores():
    images = full_pair(11)
    scores = full_scores(**images, ratio=4, gains=(0.3,) * 3)
    assert scores.blocks == 2 * 3
    assert scores.spectral_map.shape == scores.spatial_map.shape == (2, 3)
    assert scores.spectral_map.mean() == pytest.approx(scores.d_lambda_k, abs=1e-12)
    assert scores.spatial_map.mean() >= scores.d_s  # the mean of amounts is no less than the amount of the mean
    assert scores.hqnr == (1 - scores.d_lambda_k) * (1 - scores.d_s)


def test_area_lowpass_has_the_gain_at_the_ms_nyquist_frequency():
    cols = np.arange(120)
    wave = np.broadcast_to(np.cos(np.pi * cols / 5), (1, 120, 120)).astype(np.float64)  # ratio 5: half the MS sampling
    part = Part((0, 120), (0, 120), (0, 120), (0, 120), (120, 120))
    low = lowpass(wave, np.ones((120, 120), bool), part, 5.0, [0.25], "area")
    assert low[0, 60, 60] / wave[0, 60, 60] == pytest.approx(0.25, abs=2e-3)
    assert mtf_sigma(5, 0.25) > 2


def test_toolbox_lowpass_is_the_mtf_kernel_with_replicated_borders():
    image = full_pair(12)["fused"]
    part = Part((0, 70), (0, 100), (0, 70), (0, 100), (70, 100))
    low = lowpass(image, np.ones((70, 100), bool), part, 4, (0.3, 0.2, 0.35), "toolbox")
    for band, gain, expected in zip(low, (0.3, 0.2, 0.35), image, strict=True):
        np.testing.assert_allclose(band, correlate(expected, mtf_kernel(4, gain)), rtol=1e-12)


# --- masks ------------------------------------------------------------------------------------------------------


def test_a_mask_that_is_the_toolbox_cut_gives_its_values():
    scene = reference_scene(4)
    valid = np.zeros((256, 256), dtype=bool)
    valid[20:-21, 20:-21] = True
    assert sam(scene.truth, scene.fused, valid) == pytest.approx(1.20703794, abs=1e-8)
    assert ergas(scene.truth, scene.fused, 4, valid) == pytest.approx(0.57579883, abs=1e-8)
    assert scc(scene.truth, scene.fused, valid) == pytest.approx(0.9973413, abs=1e-8)
    assert q(scene.truth, scene.fused, valid) == pytest.approx(0.99710771, abs=1e-8)
    assert ssim(scene.truth, scene.fused, 2047, valid) == pytest.approx(0.99246469, abs=1e-8)
    assert psnr(scene.truth, scene.fused, 2047, valid) == pytest.approx(42.993753, abs=1e-6)


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_scene_with_a_third_missing_scores_as_its_valid_part(side):
    """Cut on block borders; the missing pixels hold NaN, and nothing of them may be seen."""
    truth, fused = pair(13, 4, (192, 192))
    keep = {
        "left": np.s_[:, 64:],
        "right": np.s_[:, :128],
        "top": np.s_[64:, :],
        "bottom": np.s_[:128, :],
    }[side]
    valid = np.zeros((192, 192), dtype=bool)
    valid[keep] = True
    holes = [np.where(valid, image, np.nan) for image in (truth, fused)]
    alone = reduced_scores(truth[:, *keep], fused[:, *keep], 4)
    for name, value in vars(reduced_scores(*holes, 4, valid)).items():
        assert value == pytest.approx(getattr(alone, name), abs=1e-9), name
    images = full_pair(14, 4, (192, 192))
    masked = {name: np.where(valid, image, np.nan) for name, image in images.items()}
    part = {name: image[:, *keep] for name, image in images.items()}
    for geometry in ("area", "toolbox"):
        scores = full_scores(**masked, ratio=4, gains=(0.3, 0.28, 0.26, 0.22), valid=valid, geometry=geometry)
        expected = full_scores(**part, ratio=4, gains=(0.3, 0.28, 0.26, 0.22), geometry=geometry)
        assert_same(scores, expected)
        blocks = tuple(slice(None if s.start is None else 2, None if s.stop is None else 4) for s in keep)
        np.testing.assert_allclose(scores.spectral_map[blocks], expected.spectral_map, atol=1e-9)
        assert np.isnan(scores.spatial_map).sum() == 12


def assert_same(scores: FullScores, expected: FullScores) -> None:
    for name in ("d_lambda_k", "d_s", "hqnr", "d_lambda", "qnr"):
        assert getattr(scores, name) == pytest.approx(getattr(expected, name), abs=1e-9), name
    assert (scores.blocks, scores.flat_spatial) == (expected.blocks, expected.flat_spatial)


def test_one_missing_pixel_takes_its_windows_along_but_no_more():
    truth, fused = pair(15, 2, (64, 64))
    valid = np.ones((64, 64), dtype=bool)
    valid[40, 10] = False
    whole_map = [
        q(truth[:, i : i + 32, j : j + 32], fused[:, i : i + 32, j : j + 32]) for i, j in windows_without(valid)
    ]
    assert q(truth, fused, valid) == pytest.approx(np.mean(whole_map), abs=1e-12)
    blocks = [np.s_[:, :32, :32], np.s_[:, :32, 32:], np.s_[:, 32:, 32:]]
    assert q2n(truth, fused, valid) == pytest.approx(np.mean([q2n(truth[b], fused[b]) for b in blocks]), abs=1e-12)


def windows_without(valid: np.ndarray) -> list[tuple[int, int]]:
    starts = range(valid.shape[0] - 31)
    return [(i, j) for i in starts for j in starts if valid[i : i + 32, j : j + 32].all()]


def test_scc_with_a_mask_sees_zeros_past_an_eroded_region():
    truth, fused = pair(16, 2, (40, 40))
    valid = np.random.default_rng(16).random((40, 40)) < 0.99
    eroded = np.zeros_like(valid)
    for i in range(1, 39):
        for j in range(1, 39):
            eroded[i, j] = valid[i - 1 : i + 2, j - 1 : j + 2].all()
    magnitudes = []
    for image in (truth, fused):
        zeroed = np.pad(np.where(eroded, image, 0), ((0, 0), (1, 1), (1, 1)))
        gx = np.zeros((2, 40, 40))
        gy = np.zeros((2, 40, 40))
        for k, weight in ((0, 1), (1, 2), (2, 1)):
            gy += weight * (zeroed[:, :40, k : k + 40] - zeroed[:, 2:, k : k + 40])
            gx += weight * (zeroed[:, k : k + 40, :40] - zeroed[:, k : k + 40, 2:])
        magnitudes.append(np.sqrt(gx**2 + gy**2)[:, eroded].ravel())
    a, b = magnitudes
    assert eroded.sum() < 38 * 38
    assert scc(truth, fused, valid) == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.9), st.integers(1, 12))
@settings(max_examples=30)
def test_missing_pixels_take_the_value_of_a_nearest_valid_one(seed, share, reach):
    rng = np.random.default_rng(seed)
    valid = rng.random((14, 19)) < share
    image = rng.permutation(14 * 19).astype(np.float64).reshape(1, 14, 19)
    filled = fill_nearest(image, valid, reach)[0]
    rows, cols = np.nonzero(valid)
    for r, c in zip(*np.nonzero(~valid), strict=True):
        squares = (rows - r) ** 2 + (cols - c) ** 2
        if len(squares) == 0 or squares.min() > reach**2:
            assert filled[r, c] == image[0, r, c]
        else:
            nearest = squares == squares.min()
            assert filled[r, c] in image[0, rows[nearest], cols[nearest]]
    np.testing.assert_array_equal(filled[valid], image[0][valid])


@pytest.mark.parametrize("geometry", ["area", "toolbox"])
def test_the_lowpass_takes_the_corner_of_the_valid_region_for_a_corner_of_the_image(geometry):
    image = full_pair(27, 2, (64, 80))["fused"]
    valid = np.zeros((64, 80), dtype=bool)
    valid[:40, :50] = True
    part = Part((0, 40), (0, 50), (0, 64), (0, 80), (64, 80))
    alone = Part((0, 40), (0, 50), (0, 40), (0, 50), (40, 50))
    low = lowpass(image * valid, valid, part, 4, (0.3, 0.2), geometry)
    cropped = image[:, :40, :50]
    expected = lowpass(cropped, np.ones((40, 50), bool), alone, 4, (0.3, 0.2), geometry)
    np.testing.assert_allclose(low, expected, rtol=1e-12)


def test_constant_blocks_are_left_out_and_counted():
    images = full_pair(17, 3, (64, 64))
    images["fused"][0, :32, :32] = 812  # a saturated roof: D_S of this block is 0 / 0
    images["pan"][0, :32, :32] = 2047
    scores = full_scores(**images, ratio=4, gains=(0.3,) * 3)
    assert (scores.blocks, scores.flat_spatial, scores.flat_spectral) == (4, 1, 0)
    assert np.isnan(scores.spatial_map[0, 0])
    assert np.isfinite(scores.spectral_map).all()
    high, low = (
        np.concatenate(both)[:, None] for both in ((images["fused"], images["pan"]), (images["lms"], images["pan_low"]))
    )
    expected = []
    for band in range(3):
        values = []
        for stack in (high, low):
            parts = [
                stack[[band, 3], 0, i : i + 32, j : j + 32].reshape(1, 2, -1) for i, j in ((0, 32), (32, 0), (32, 32))
            ]
            values.append(np.mean([block_uqi(part)[0, 0, 1] for part in parts]))
        expected.append(abs(values[0] - values[1]))
    assert scores.d_s == pytest.approx(np.mean(expected), abs=1e-12)


def test_float32_noise_on_a_constant_is_constant_and_one_odd_dn_is_not():
    flat = np.full((1, 2, 1024), 2047.0)
    noisy = flat * (1 + np.random.default_rng(18).uniform(-6e-8, 6e-8, flat.shape))
    assert np.isnan(block_uqi(noisy)).all()
    odd = np.full((1, 2, 1024), 65000.0)
    odd[0, :, 5] += 1
    assert block_uqi(odd)[0, 0, 1] == pytest.approx(1, abs=1e-4)


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_a_valid_pixel_without_a_number_is_named(bad, which):
    images = [image.copy() for image in pair(19, 3)]
    images[which][1, 33, 44] = bad
    name = ("truth", "fused image")[which]
    for score in (
        sam,
        scc,
        q,
        q2n,
        lambda t, f: ergas(t, f, 4),
        lambda t, f: psnr(t, f, 1),
        lambda t, f: ssim(t, f, 1),
    ):
        with pytest.raises(MetricError, match=rf"the {name} has {bad} in a valid pixel: band 2, row 33, column 44"):
            score(*images)
    full = full_pair(19)
    full["pan_low"][0, 1, 2] = bad
    with pytest.raises(MetricError, match=rf"low-passed PAN has {bad} .*row 1, column 2"):
        full_scores(**full, ratio=4, gains=(0.3,) * 3)


def test_everything_masked_is_one_clear_error():
    truth, fused = pair(20)
    nothing = np.zeros(truth.shape[1:], dtype=bool)
    with pytest.raises(MetricError, match="no pixel is valid"):
        reduced_scores(truth, fused, 4, nothing)
    with pytest.raises(MetricError, match="no 32 x 32 pixels that are valid throughout"):
        full_scores(**full_pair(20), ratio=4, gains=(0.3,) * 3, valid=np.zeros((70, 100), bool))


def test_no_whole_window_is_one_clear_error():
    truth, fused = pair(21)
    valid = np.ones(truth.shape[1:], dtype=bool)
    valid[::5, ::5] = False
    for index, name in ((q, "Q"), (q2n, "Q2n")):
        with pytest.raises(MetricError, match=f"{name} has no 32 x 32 pixels"):
            index(truth, fused, valid)
    with pytest.raises(MetricError, match="SSIM has no 11 x 11 window"):
        ssim(truth, fused, 2047, valid)
    valid[::2, ::2] = False
    with pytest.raises(MetricError, match="SCC compares edges"):
        scc(truth, fused, valid)


@pytest.mark.parametrize("size", [(31, 80), (80, 31)])
def test_images_smaller_than_a_block_are_refused(size):
    truth, fused = pair(22, 2, size)
    with pytest.raises(MetricError, match=f"{size[0]} x {size[1]} pixels are too few for Q"):
        reduced_scores(truth, fused, 4)
    with pytest.raises(MetricError, match="too few"):
        full_scores(fused, truth, fused[:1], truth[:1], 4, (0.3, 0.3))
    assert sam(truth, fused) > 0  # needs no block


def test_a_cut_that_leaves_too_little_is_refused():
    with pytest.raises(MetricError, match="70 x 72 pixels less a border of 21 are too few"):
        reduced_scores(*pair(23, 2, (70, 72)), 4, cut=TOOLBOX_CUT)


def test_band_counts_and_shapes_that_disagree_are_refused():
    truth, fused = pair(24)
    with pytest.raises(MetricError, match="truth has 4 bands, the fused image 3"):
        sam(truth, fused[:3])
    with pytest.raises(MetricError, match="do not lie on one grid"):
        sam(truth, fused[:, :-1])
    with pytest.raises(MetricError, match="do not lie on one grid"):
        sam(truth, fused, np.ones((3, 3), dtype=bool))
    with pytest.raises(MetricError, match="do not lie on one grid"):
        sam(truth[0], fused[0])
    images = full_pair(24)
    for change in ({"gains": (0.3,) * 2}, {"fused": images["fused"][:2]}, {"pan": images["lms"]}, {"gains": ()}):
        with pytest.raises(MetricError, match="bands, MS"):
            full_scores(**{**images, "ratio": 4, "gains": (0.3,) * 3} | change)


def test_indices_without_a_value_say_so():
    truth, fused = pair(25)
    dark = truth.copy()
    dark[2] = 0
    with pytest.raises(MetricError, match="mean of the truth, which is 0 in band 3"):
        ergas(dark, fused, 4)
    with pytest.raises(MetricError, match="SAM has no pixel"):
        sam(0 * truth, fused)
    with pytest.raises(MetricError, match="none in its valid part"):
        scc(truth, 0 * fused)
    with pytest.raises(MetricError, match="need a peak"):
        reduced_scores(0 * truth, fused, 4)
    flat = np.ones((2, 64, 64))
    with pytest.raises(MetricError, match="all 4 valid blocks are constant"):
        full_scores(flat, flat, flat[:1], flat[:1], 4, (0.3, 0.3))


def test_scaled_data_is_recognised():
    truth, _ = pair(26)
    assert looks_scaled(truth / 2047)
    assert looks_scaled(truth / 2047 - 0.01)  # reflectance of deep shadow
    assert not looks_scaled(truth)
    assert not looks_scaled(np.array([[[0.0, 1.0]]]))  # a dark image of whole DN
    assert not looks_scaled(np.array([[[np.nan]]]))
