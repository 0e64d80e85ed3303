"""The classical methods: coefficients of each from the moments of a scene.

M is lms, P is PAN, L is PAN brought to MS resolution and back, P_L is PAN low-passed. Detail that cannot be told
apart from rounding is not injected: where PAN is constant every method gives lms, and a constant band stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pancrafter_cli.classical.fusion import Fusion, HazeBrovey, Injection, Modulation, Substitution, Unsharpened
from pancrafter_cli.classical.moments import PAN, PAN_AT_MS, PAN_DEGRADED, PAN_LOW, SceneMoments, is_flat
from pancrafter_cli.errors import UsageError

FloatArray = NDArray[np.float64]

# Offered to users: all but MTF-GLP-HPM, whose quotients have no bounds, and which is there for published tables.
METHODS = ("exp", "brovey", "gs", "gsa", "gs2-glp", "mtf-glp", "mtf-glp-fs", "mtf-glp-hpm-r", "bdsd-pc")

_RANK = 1e-12  # eigenvalues of normal equations below this share of the largest are rounding
_DARK = 0.05  # of the mean intensity: below it, ratios to intensity are of noise
_LEAST_CORRELATION = 1e-5  # below it, a gain is the ratio of two roundings


def fit(method: str, moments: SceneMoments) -> Fusion:
    """Fit a method to a scene. Raises UsageError when there is no such method."""
    if method not in _FITS:
        raise UsageError(f"there is no classical method '{method}'", f"choose one of: {', '.join(METHODS)}")
    fine, coarse = moments.fine.flat(), moments.coarse.flat()
    if fine[PAN] or fine[PAN_LOW] or fine[moments.low].any() or coarse[PAN_AT_MS] or coarse[PAN_DEGRADED]:
        return Unsharpened()
    return _FITS[method](moments)


def _fit_brovey(moments: SceneMoments) -> Fusion:
    """Haze-corrected Brovey with regressed intensity, BT-H (Lolli et al. 2017)."""
    fine, lms = moments.fine, moments.lms
    weights = _solve(fine.products[lms, lms], fine.products[lms, PAN_LOW])
    mean, spread = _intensity(moments, weights)
    if is_flat(np.array(mean), np.array(spread**2)):
        return Unsharpened()
    clear = mean - float(weights @ moments.haze)
    gain = spread / math.sqrt(fine.covariance[PAN_LOW, PAN_LOW])
    offset = clear - gain * float(fine.mean[PAN_LOW])
    return HazeBrovey(weights, moments.haze, gain, offset, _DARK * clear, _varied(moments))


def _fit_gs(moments: SceneMoments) -> Fusion:
    """Gram-Schmidt with the mean of the bands as intensity, PAN matched to it (Laben and Brower 2000)."""
    weights = np.full(moments.bands, 1 / moments.bands)
    spread = _intensity(moments, weights)[1]
    return _substitute(moments, weights, spread / math.sqrt(moments.fine.covariance[PAN, PAN]))


def _fit_gsa(moments: SceneMoments) -> Fusion:
    """Gram-Schmidt adaptive: the intensity is the regression of low-passed PAN on MS (Aiazzi et al. 2007)."""
    ms, covariance = moments.lms, moments.coarse.covariance
    return _substitute(moments, _solve(covariance[ms, ms], covariance[ms, PAN_AT_MS]), 1.0)


def _fit_bdsd_pc(moments: SceneMoments) -> Fusion:
    """Band-dependent spatial detail with physical constraints (Vivone 2019): PAN adds detail, MS takes it away.

    For each band min |(G_b - B_b) - [P_D, B] g|^2 with g_P >= 0 and g_MS <= 0, where G is MS one scale down, B is G
    blurred and P_D is PAN degraded. Non-negative least squares need the design only through its normal equations: any
    square root of them has the same distances.
    """
    c = moments.bands
    channels = np.eye(2 + 3 * c)
    design = np.vstack([channels[PAN_DEGRADED], -channels[moments.blurred]])
    detail = channels[moments.low] - channels[moments.blurred]
    rows = np.vstack([design, detail])
    normal = rows @ moments.coarse.products @ rows.T
    size = np.sqrt(np.diag(normal).clip(0))
    size[size == 0] = 1
    values, vectors = np.linalg.eigh(normal / np.outer(size, size))
    root = np.sqrt(values.clip(0))[:, None] * vectors.T
    gains = np.stack([nnls(root[:, : 1 + c], root[:, 1 + c + b])[0] * size[1 + c + b] for b in range(c)])
    gains *= _varied(moments)[:, None] / size[: 1 + c]
    return Substitution(gains[:, 0], -gains[:, 1:], np.zeros(c))


def _fit_mtf_glp(moments: SceneMoments) -> Fusion:
    """MTF-matched generalised Laplacian pyramid, PAN matched to each band (Aiazzi et al. 2006)."""
    gain = _matching(moments)
    # A blur that keeps less than all of a constant leaves some of the mean behind in the detail.
    offset = (moments.fine.mean[moments.lms] - gain * moments.fine.mean[PAN]) * (1 - moments.dc)
    return Injection(gain, offset * _varied(moments))


def _fit_mtf_glp_hpm(moments: SceneMoments) -> Fusion:
    """MTF-GLP with high-pass modulation (Vivone et al. 2014), not guarded against denominators near 0."""
    gain = _matching(moments)
    active = _varied(moments)
    shift = moments.fine.mean[moments.lms] / np.where(active, gain, 1) - moments.fine.mean[PAN]
    return Modulation(shift, shift * moments.dc, active, np.inf)


def _fit_mtf_glp_hpm_r(moments: SceneMoments) -> Fusion:
    """High-pass modulation with the offset of the regression of M on L (Vivone et al. 2018)."""
    gain, correlation = _regression(moments)
    active = (np.abs(correlation) > _LEAST_CORRELATION) & _varied(moments)
    shift = moments.fine.mean[moments.lms] / np.where(active, gain, 1) - moments.fine.mean[PAN]
    return Modulation(shift, shift, active)


def _fit_mtf_glp_fs(moments: SceneMoments) -> Fusion:
    """MTF-GLP with gains as at full scale, cov(M, P) / cov(L, P) (Vivone et al. 2018)."""
    covariance = moments.fine.covariance
    with_pan, of_low = covariance[moments.lms, PAN], covariance[moments.low, PAN]
    usable = of_low > _LEAST_CORRELATION * covariance[PAN, PAN]
    gain = np.where(usable, with_pan / np.where(usable, of_low, 1), 0)
    return Injection(gain, np.zeros(moments.bands))


def _fit_gs2_glp(moments: SceneMoments) -> Fusion:
    """MTF-GLP with the gains of Gram-Schmidt, cov(M, L) / var(L) (Aiazzi et al. 2007)."""
    return Injection(_regression(moments)[0], np.zeros(moments.bands))


_FITS: dict[str, Callable[[SceneMoments], Fusion]] = {
    "exp": lambda moments: Unsharpened(),
    "brovey": _fit_brovey,
    "gs": _fit_gs,
    "gsa": _fit_gsa,
    "bdsd-pc": _fit_bdsd_pc,
    "mtf-glp": _fit_mtf_glp,
    "mtf-glp-hpm": _fit_mtf_glp_hpm,
    "mtf-glp-hpm-r": _fit_mtf_glp_hpm_r,
    "mtf-glp-fs": _fit_mtf_glp_fs,
    "gs2-glp": _fit_gs2_glp,
}


def _substitute(moments: SceneMoments, weights: FloatArray, match: float) -> Fusion:
    """Gram-Schmidt injection of match (P - mean) - (I - mean), I = weights M, with gains cov(I, M) / var(I)."""
    fine, lms = moments.fine, moments.lms
    mean, spread = _intensity(moments, weights)
    if is_flat(np.array(mean), np.array(spread**2)):
        return Unsharpened()
    gain = fine.covariance[lms, lms] @ weights / spread**2
    return Substitution(gain * match, -np.outer(gain, weights), gain * (mean - match * fine.mean[PAN]))


def _intensity(moments: SceneMoments, weights: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation of the intensity, the sum of weights times M."""
    lms = moments.lms
    variance = float(weights @ moments.fine.covariance[lms, lms] @ weights)
    return float(weights @ moments.fine.mean[lms]), math.sqrt(max(variance, 0.0))


def _varied(moments: SceneMoments) -> NDArray[np.bool_]:
    """Which bands (C,) hold more than one value."""
    varied: NDArray[np.bool_] = ~moments.fine.flat()[moments.lms]
    return varied


def _matching(moments: SceneMoments) -> FloatArray:
    """Gains (C,) that give PAN, as low-passed, the standard deviation of each band."""
    variance = np.diag(moments.fine.covariance)
    gain: FloatArray = np.sqrt(variance[moments.lms] / variance[PAN_LOW])
    return gain


def _regression(moments: SceneMoments) -> tuple[FloatArray, FloatArray]:
    """Slopes (C,) of the regression of M on L, and their correlations (C,)."""
    covariance, variance = moments.fine.covariance, np.diag(moments.fine.covariance)
    shared = np.diag(covariance[moments.lms, moments.low])
    own = np.sqrt(variance[moments.lms] * variance[moments.low])
    return shared / variance[moments.low], shared / np.where(own > 0, own, 1)


def _solve(normal: FloatArray, right: FloatArray) -> FloatArray:
    """Least squares from normal equations (C, C) and (C,); bands that repeat others share their weight."""
    size = np.sqrt(np.diag(normal).clip(0))
    size[size == 0] = 1
    weights: FloatArray = np.linalg.lstsq(normal / np.outer(size, size), right / size, rcond=_RANK)[0]
    weights /= size
    return weights
