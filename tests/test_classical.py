"""Classical methods against the reference toolbox's numbers on the synthetic scene, and where they must not break."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from pancrafter_cli.classical.fusion import HazeBrovey, Modulation, Substitution
from pancrafter_cli.classical.methods import METHODS, fit
from pancrafter_cli.classical.moments import Moments, SceneMoments, SceneSampler
from pancrafter_cli.classical.toolbox import classical_toolbox
from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.toolbox import decimate, mtf_lowpass, upsample23
from pancrafter_cli.metrics.hypercomplex import q2n
from pancrafter_cli.metrics.reduced import ergas, sam, scc
from pancrafter_cli.metrics.uqi import q
from tests.pairs import textured
from tests.reference_scene import reference_scene

WV3 = (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), 0.14
QB = (0.34, 0.32, 0.30, 0.22), 0.15
ALL = ("exp", "brovey", "gs", "gsa", "bdsd-pc", "mtf-glp", "mtf-glp-hpm", "mtf-glp-hpm-r", "mtf-glp-fs", "gs2-glp")


def sampled(lms: np.ndarray, pan: np.ndarray) -> SceneMoments:
    """Moments of images of one size, with simple means as low-passes."""
    low = (pan + np.roll(pan, 1, axis=1) + np.roll(pan, 1, axis=2)) / 3
    sampler = SceneSampler(len(lms))
    everywhere = np.ones(pan.shape[1:], dtype=bool)
    lows = np.repeat(low, len(lms), axis=0)
    sampler.add_fine(everywhere, pan, low, lms, lows)
    sampler.add_coarse(everywhere, low, low, lms, lms, np.roll(lms, 1, axis=1))
    return sampler.result()


# Sum of the output, value at row 100, column 57 of the second band; Q2n, Q, SAM, ERGAS and SCC after the 21-pixel cut.
EXPECTED = {
    8: {
        "exp": (374130455.7791, 856.131246, 0.919666, 0.908304, 4.514279, 2.212861, 0.948154),
        "brovey": (374579088.8944, 897.641202, 0.907137, 0.899040, 4.851437, 2.592722, 0.926354),
        "gs": (374130455.7791, 840.277721, 0.908314, 0.899442, 4.695591, 2.440154, 0.941256),
        "gsa": (374130455.7791, 894.313195, 0.907266, 0.898309, 4.931540, 2.649907, 0.924111),
        "bdsd-pc": (375056834.2345, 855.935374, 0.813019, 0.781439, 7.078281, 4.956065, 0.882701),
        "mtf-glp": (374545097.0608, 944.496112, 0.836966, 0.831048, 5.510911, 4.023239, 0.874709),
        "mtf-glp-hpm": (371186998.1967, 943.172744, 0.744971, 0.777073, 6.493464, 89.953590, 0.071785),
        "mtf-glp-hpm-r": (374249267.0091, 900.022470, 0.916396, 0.907305, 4.877162, 2.460709, 0.933033),
        "mtf-glp-fs": (374546982.8900, 887.437050, 0.921901, 0.913422, 4.685001, 2.326726, 0.941774),
        "gs2-glp": (374564172.9480, 892.900930, 0.918183, 0.908897, 4.826479, 2.421839, 0.935462),
    },
    4: {
        "exp": (166099897.9520, 854.343246, 0.965364, 0.963237, 2.870604, 1.781733, 0.971016),
        "brovey": (166311607.0893, 848.108330, 0.956227, 0.955669, 2.919793, 2.069404, 0.954734),
        "gs": (166099897.9520, 821.090892, 0.954616, 0.953288, 3.001999, 2.079944, 0.962385),
        "gsa": (166099897.9520, 850.612260, 0.956406, 0.955235, 3.062615, 2.132996, 0.952985),
        "bdsd-pc": (166347256.3998, 969.787778, 0.859543, 0.842882, 7.140188, 5.075872, 0.919895),
        "mtf-glp": (166311419.5699, 852.446727, 0.922440, 0.921727, 3.087886, 2.999012, 0.921894),
        "mtf-glp-hpm": (164721176.9242, 852.465465, 0.853377, 0.871617, 3.777382, 11.427888, 0.452970),
        "mtf-glp-hpm-r": (166213742.2164, 853.708662, 0.962934, 0.961947, 3.004026, 1.951550, 0.960053),
        "mtf-glp-fs": (166319111.1047, 853.818912, 0.965631, 0.964779, 2.852515, 1.861907, 0.964760),
        "gs2-glp": (166320134.6921, 853.790961, 0.964589, 0.963599, 2.932274, 1.901595, 0.962934),
    },
}


@pytest.mark.parametrize("bands", [8, 4])
@pytest.mark.parametrize("method", ALL)
def test_methods_of_the_reference_toolbox(method: str, bands: int) -> None:
    scene, (gains, pan_gain) = reference_scene(bands), WV3 if bands == 8 else QB
    ms = decimate(mtf_lowpass(scene.truth, 4, gains), 4)
    sharp = classical_toolbox(method, ms, scene.pan[0], gains, pan_gain)
    total, pixel, *scores = EXPECTED[bands][method]
    # Ratios to denominators near zero repeat no rounding: of MTF-GLP-HPM only the size can be compared.
    loose = method == "mtf-glp-hpm"
    assert sharp[1, 100, 57] == pytest.approx(pixel, abs=5e-6)
    assert sharp.sum() == pytest.approx(total, rel=1e-6 if loose else 3e-9)
    cut = scene.truth[:, 20:-21, 20:-21], sharp[:, 20:-21, 20:-21]
    found = [q2n(*cut), q(*cut), sam(*cut), ergas(*cut, 4), scc(*cut)]
    assert found == (pytest.approx(scores, rel=1e-3) if loose else pytest.approx(scores, abs=1e-6))


def test_offered_methods_exist() -> None:
    assert set(METHODS) <= set(ALL)
    with pytest.raises(UsageError, match="no classical method 'ihs'") as caught:
        fit("ihs", sampled(textured(2, 32, 0), textured(1, 32, 1)))
    assert "gsa" in caught.value.hint


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 500.0, 1e7]),
    seed=st.integers(0, 999),
)
def test_moments_of_parts_add_up_to_those_of_the_whole(sizes: list[int], offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [offset + rng.normal(rng.normal(0, 3, (3, 1)), 1, (3, n)) for n in sizes]
    total = sum((Moments.of(part) for part in parts), Moments.none(3))
    whole = np.concatenate(parts, axis=1)
    assert total.count == whole.shape[1]
    if total.count > 1:
        np.testing.assert_allclose(total.mean, whole.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(total.covariance, np.cov(whole), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(total.products, whole @ whole.T / total.count, rtol=1e-12, atol=1e-12)


def test_haze_is_the_toolbox_percentile_for_four_bands_and_the_minimum_for_others() -> None:
    def haze(bands: int) -> np.ndarray:
        lms = np.arange(1.0, 101.0).reshape(1, 10, 10).repeat(bands, axis=0)
        sampler = SceneSampler(bands)
        for half in (np.s_[:, :4], np.s_[:, 4:]):  # windows together
            pan = lms[:1][half]
            sampler.add_fine(np.ones(pan.shape[1:], bool), pan, pan, lms[half], lms[half])
        return sampler.result().haze

    # MATLAB: prctile(1:100, 1) is 1.5.
    np.testing.assert_allclose(haze(4), 1.5 * np.array([0.95, 0.45, 0.40, 0.05]))
    np.testing.assert_allclose(haze(3), 1.0)


def test_bdsd_gains_are_the_constrained_least_squares_of_the_samples() -> None:
    rng = np.random.default_rng(5)
    bands, n = 3, 400
    sampler = SceneSampler(bands)
    fine = textured(2 * bands, 32, 1)
    sampler.add_fine(np.ones((32, 32), bool), fine[:1], fine[1:2], fine[:bands], fine[bands:])
    mixing = rng.normal(size=(2 + 3 * bands, 2 + 3 * bands))
    coarse = (300 + 50 * mixing @ rng.normal(size=(2 + 3 * bands, n))).reshape(-1, 20, 20)
    use = rng.random((20, 20)) > 0.2
    split = np.split(coarse, [1, 2, 2 + bands, 2 + 2 * bands])
    sampler.add_coarse(use, *split)
    fusion = fit("bdsd-pc", sampler.result())
    assert isinstance(fusion, Substitution)
    _, degraded_pan, _, degraded, blurred = (image[:, use] for image in split)
    design = np.concatenate([degraded_pan, blurred]).T
    lower, upper = np.array([0] + [-np.inf] * bands), np.array([np.inf] + [0] * bands)
    free = 0
    for band in range(bands):
        best = lsq_linear(design, degraded[band] - blurred[band], (lower, upper), method="bvls", tol=1e-14).x
        np.testing.assert_allclose([fusion.pan[band], *fusion.mix[band]], best, atol=1e-7)
        free += int((best != 0).sum())
    assert 0 < free < bands * (1 + bands)  # some constraints bind, some do not


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("bands", [1, 2, 4, 8])
@pytest.mark.parametrize("level", [0.0, 700.0])
def test_a_constant_pan_adds_nothing(method: str, bands: int, level: float) -> None:
    ms = textured(bands, 24, 3)
    sharp = classical_toolbox(method, ms, np.full((96, 96), level), [0.3] * bands, 0.15)
    np.testing.assert_allclose(sharp, upsample23(ms, 4), atol=1e-6)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("bands", [2, 4, 8])
@pytest.mark.parametrize("level", [0.0, 321.0])
def test_a_constant_band_stays_constant(method: str, bands: int, level: float) -> None:
    truth = textured(bands, 96, 3)
    ms = decimate(mtf_lowpass(truth, 4, [0.3] * bands), 4).copy()
    ms[1] = level
    with np.errstate(divide="raise", invalid="raise"):
        sharp = classical_toolbox(method, ms, truth[0], [0.3] * bands, 0.15)
    np.testing.assert_allclose(sharp[1], level, atol=1e-5)
    if method != "exp":
        assert np.abs(sharp[0] - upsample23(ms, 4)[0]).mean() > 5  # the others still get their detail


@pytest.mark.parametrize("method", ALL)
def test_bands_that_are_one_band_repeated_stay_alike(method: str) -> None:
    truth = textured(1, 96, 3).repeat(3, axis=0)
    ms = decimate(mtf_lowpass(truth, 4, [0.3] * 3), 4)
    sharp = classical_toolbox(method, ms, truth[0], [0.3] * 3, 0.15)
    assert np.isfinite(sharp).all()
    np.testing.assert_allclose(sharp[1:], sharp[:1].repeat(2, axis=0), rtol=1e-5)


def test_weights_of_bands_that_almost_repeat_stay_small() -> None:
    one = textured(1, 64, 3)
    lms = one + 1e-5 * np.random.default_rng(0).normal(size=(3, 64, 64))
    moments = sampled(lms, textured(1, 64, 4))
    gsa, brovey = fit("gsa", moments), fit("brovey", moments)
    assert isinstance(gsa, Substitution)
    assert np.abs(gsa.mix).max() < 10
    assert isinstance(brovey, HazeBrovey)
    assert np.abs(brovey.weights).max() < 10


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("bands", range(1, 9))
@pytest.mark.parametrize("method", ALL)
def test_any_number_of_bands_in_either_format(method: str, bands: int, kind: type) -> None:
    lms, pan = textured(bands, 32, 1), textured(1, 32, 1)
    fusion = fit(method, sampled(lms, pan))
    low = (pan + np.roll(pan, 1, axis=1) + np.roll(pan, 1, axis=2)) / 3
    sharp = fusion.apply(pan.astype(kind), lms.astype(kind), low.astype(kind))
    assert sharp.shape == lms.shape
    assert sharp.dtype == kind
    assert np.isfinite(sharp).all()
    if method not in ("exp", "mtf-glp-hpm"):
        np.testing.assert_allclose(sharp, fusion.apply(pan, lms, low), rtol=1e-3, atol=0.05)


@given(pan=st.floats(-1e4, 1e4, width=32), lms=st.floats(0, 1e4, width=32), low=st.floats(-1e4, 1e4, width=32))
def test_ratios_near_nothing_stay_bounded(pan: float, lms: float, low: float) -> None:
    one, on = np.ones(1), np.ones(1, dtype=bool)
    images = [np.full((1, 1, 1), value, np.float32) for value in (pan, lms, low)]
    sharp = Modulation(0 * one, 0 * one, on).apply(*images)
    assert 0 <= sharp[0, 0, 0] <= 10 * lms * (1 + 1e-6)
    # Intensity lms - 5000 is as often negative as not.
    sharp = HazeBrovey(one, 5000 * one, 1.0, 0.0, 100.0, on).apply(*images)
    assert sharp[0, 0, 0] <= max(10 * (lms - 5000), 0) + 5001
    if lms < 5100:
        assert sharp[0, 0, 0] >= 4999
