"""The toolbox geometry against reference values of the toolbox itself, and the sensors' table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.sensors import mtf_of, sensor_from_metadata, sensor_mtf
from pancrafter_cli.geometry.toolbox import (
    binomial_lowpass,
    correlate,
    decimate,
    gauss_kernel,
    mtf_kernel,
    mtf_lowpass,
    shrink,
    upsample23,
)
from tests.reference_scene import reference_scene

SENSORS = {8: "WV3", 4: "QB"}


def brute_correlate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    m, n = (size // 2 for size in kernel.shape)
    padded = np.pad(image, ((m, m), (n, n)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.einsum("ijkl,kl->ij", windows, kernel)


@pytest.mark.parametrize(
    ("sensor", "bands", "sums"),
    [
        ("WV3", 8, [0.99882266, 0.99891394, 0.9989284, 0.99889927, 0.99894267, 0.9989284, 0.99885399, 0.99879036]),
        ("QB", 4, [0.9988693, 0.99880664, 0.99873995, 0.99841964]),
    ],
)
def test_kernel_sums(sensor, bands, sums):
    kernels = [mtf_kernel(4, gain) for gain in mtf_of(sensor, bands).ms]
    assert kernels[0].shape == (41, 41)
    np.testing.assert_allclose([kernel.sum() for kernel in kernels], sums, atol=1e-8)


def test_the_fixed_gaussian_has_the_documented_sum_and_width():
    kernel = gauss_kernel(4)
    assert kernel.sum() == pytest.approx(0.99880, abs=5e-6)
    offsets = np.arange(-20, 21)
    middle = kernel[20]
    assert middle[20 + 2] / middle[20] == pytest.approx(np.exp(-4 / (2 * 1.976**2)), abs=1e-3)
    assert np.sqrt((kernel.sum(axis=0) * offsets**2).sum() / kernel.sum()) == pytest.approx(1.976, abs=0.06)


@pytest.mark.parametrize(
    ("bands", "totals", "first", "on_sample", "between"),
    [
        (8, (23383153.505085, 374130455.77906), 795.68941274, 795.68941274, 683.78394285),
        (4, (10381243.63039, 166099897.952026), 795.66599361, 795.66599361, 684.51934968),
    ],
)
def test_wald_protocol(bands, totals, first, on_sample, between):
    truth = reference_scene(bands).truth
    ms = decimate(mtf_lowpass(truth, 4, mtf_of(SENSORS[bands], bands).ms), 4)
    lms = upsample23(ms, 4)
    assert (ms.sum(), lms.sum()) == pytest.approx(totals, rel=3e-12)  # the toolbox's own sums round at 1e-12
    assert ms[0, 0, 0] == pytest.approx(first, abs=1e-7)
    assert lms[0, 2, 2] == pytest.approx(on_sample, abs=1e-7)
    assert lms[1, 99, 99] == pytest.approx(between, abs=1e-7)


@pytest.mark.parametrize(
    ("bands", "pan_total", "totals", "low_total", "corner", "inside"),
    [
        (8, 180885371, (93478212, 1495651390.793374), 180885370.853845, 664.35342851, 613.99045389),
        (4, 162015762, (41495548, 663928767.46355), 162015761.869094, 584.43900997, 500.15297676),
    ],
)
def test_full_resolution_inputs(bands, pan_total, totals, low_total, corner, inside):
    scene = reference_scene(bands, 512)
    ms = np.floor(decimate(mtf_lowpass(scene.truth, 4, mtf_of(SENSORS[bands], bands).ms), 4))
    pan_low = upsample23(shrink(scene.pan, 4), 4)
    assert scene.pan.sum() == pan_total
    assert (ms.sum(), upsample23(ms, 4).sum()) == pytest.approx(totals, rel=3e-12)
    assert pan_low.sum() == pytest.approx(low_total, rel=3e-12)
    assert pan_low[0, 0, 0] == pytest.approx(corner, abs=1e-7)
    assert pan_low[0, 199, 299] == pytest.approx(inside, abs=1e-7)


def test_correlation_is_not_convolution_and_replicates_borders():
    rng = np.random.default_rng(1)
    image, kernel = rng.uniform(0, 65535, (50, 37)), rng.normal(size=(9, 5))
    np.testing.assert_allclose(correlate(image, kernel), brute_correlate(image, kernel), rtol=0, atol=1e-12 * 65535 * 9)


def test_correlation_keeps_digits_on_bright_images():
    rng = np.random.default_rng(2)
    image, kernel = 60000 + rng.normal(size=(2, 300, 260)), mtf_kernel(4, 0.3)
    expected = np.stack([brute_correlate(band, kernel) for band in image])
    np.testing.assert_allclose(correlate(image, kernel), expected, rtol=1e-13)


@pytest.mark.parametrize("ratio", [2, 4])
def test_interpolation_passes_through_the_samples(ratio):
    ms = np.random.default_rng(3).uniform(0, 2047, (2, 13, 40))
    lms = upsample23(ms, ratio)
    assert lms.shape == (2, 13 * ratio, 40 * ratio)
    np.testing.assert_allclose(decimate(lms, ratio), ms, rtol=1e-12)


@pytest.mark.parametrize("ratio", [3, 6, 1, 2.5])
def test_interpolation_refuses_other_ratios(ratio):
    with pytest.raises(UsageError, match=f"ratio {ratio}"):
        upsample23(np.ones((1, 4, 4)), ratio)


def test_interpolation_borders_are_circular():
    ms = np.random.default_rng(4).uniform(0, 1, (20, 30))
    np.testing.assert_allclose(
        upsample23(np.roll(ms, (3, 5), (0, 1)), 4), np.roll(upsample23(ms, 4), (12, 20), (0, 1)), atol=1e-14
    )


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 3, 4, 6]))
def test_shrinking_keeps_constants_and_the_size_rule(h, w, ratio):
    small = shrink(np.full((h, w), 7.0), ratio)
    assert small.shape == (-(-h // ratio), -(-w // ratio))
    np.testing.assert_allclose(small, 7.0, rtol=1e-13)


def test_shrinking_samples_at_the_centre_of_areas():
    ramp = np.arange(64.0)[None, :].repeat(8, 0)
    np.testing.assert_allclose(shrink(ramp, 4)[0, 4:-4], 4 * np.arange(16)[4:-4] + 1.5, rtol=1e-12)


def test_binomial_lowpass_is_the_17_tap_binomial_away_from_borders():
    image = np.random.default_rng(5).uniform(0, 1000, (3, 40, 50))
    taps = np.array([1.0])
    for _ in range(16):
        taps = np.convolve(taps, [0.5, 0.5])
    expected = np.stack([brute_correlate(band, np.outer(taps, taps)) for band in image])
    np.testing.assert_allclose(binomial_lowpass(image)[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], rtol=1e-12)
    np.testing.assert_allclose(binomial_lowpass(np.full((9, 9), 3.0)), 3.0, rtol=1e-14)


def test_binomial_lowpass_mirrors_twice_at_the_border():
    """The border rule spelled out on one line: mirror by 4, filter, mirror the result by 4, filter three times."""
    line = np.random.default_rng(6).uniform(0, 1000, 24)
    taps = np.array([1, 4, 6, 4, 1]) / 16
    once = np.convolve(np.concatenate([line[3::-1], line, line[:-5:-1]]), taps, "valid")
    twice = np.convolve(np.concatenate([once[3::-1], once, once[:-5:-1]]), taps, "valid")
    expected = np.convolve(np.convolve(twice, taps, "valid"), taps, "valid")
    rows = np.ones((24, 1)) * line
    np.testing.assert_allclose(binomial_lowpass(rows), np.ones((24, 1)) * expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["WorldView-3", "wv3", "WV-3", "worldview 3"])
def test_sensor_names_in_any_spelling(name):
    mtf = mtf_of(name, 8)
    assert (mtf.name, mtf.ms[4], mtf.pan, mtf.peak) == ("WorldView-3", 0.365, 0.14, 2047)


@pytest.mark.parametrize("text", ["WV02", "GE01", "QB02", "IKONOS-2", "GF-2", "SPOT 7", "PHR1A", "LANDSAT_8", "PNEO3"])
def test_every_sensor_that_metadata_can_name_has_an_mtf(text):
    name = sensor_from_metadata([text])
    assert name is not None
    assert sensor_mtf(name).name == name


def test_gains_for_other_band_counts():
    assert mtf_of("GE1", 4).ms == (0.23,) * 4
    assert mtf_of("WV2", 4).ms == (0.35,) * 4
    assert mtf_of("WV2", 8).ms == (*(0.35,) * 7, 0.27)
    assert mtf_of("QB", 3).ms == pytest.approx((0.295,) * 3)
    assert mtf_of("IKONOS", 3).ms == pytest.approx((0.2775,) * 3)  # half of the bands have 0.28, and no more
    assert mtf_of("GF2", 4).ms == (0.3,) * 4
    assert mtf_of("GF2", 4).peak == 1023


def test_no_sensor_means_generic_gains():
    assert (mtf_of(None, 3).ms, mtf_of(None, 3).pan, mtf_of(None, 3).peak) == ((0.3,) * 3, 0.15, None)


def test_an_unknown_sensor_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="Sputnik") as caught:
        mtf_of("Sputnik", 4)
    assert "WorldView-3" in caught.value.hint
