"""Confidence: how far each pixel of a product can be relied on, 0 to 1, from what the scene itself tells.

Without a reference nobody knows a product's error, but five things go along with it. Each is a factor between 0 and 1,
and confidence is their product:

- detail: 2^-(e / 30 %). e estimates the relative error by what is not measured: the detail that was put into MS (the
  mean over the bands of |sharp - lms|, brought to MS resolution), the variation of MS that PAN does not explain (of a
  regression in 3 x 3 MS pixels, the standard deviation that is left), and what MS changes by over the distance by which
  PAN and MS may still be misregistered; all three relative to MS, whose level is the mean of the bands.
- drift: 1 / (1 + (d / 5 %)^2), d being the relative difference of the degraded product and MS in the worst band.
- agreement: 1 / (1 + (a / t)^2), a being the relative difference of PAN, degraded to the MS grid, and of what a robust
  regression over the scene predicts of the MS bands. Clouds, floods and whatever else only one of the two has seen make
  it large. t is 30 %, or six times the scene's median of a where that is more: not every PAN is a sum of the bands.
- saturation: 1/4 where PAN is saturated within half an MS pixel, or MS is; rising to 1 around it as MS is interpolated.
- nodata: from 1/2 beside an invalid pixel to 1 two MS pixels away from it. What a registration has put beside MS
  counts as invalid here.

So a pixel that drifts, or whose PAN and MS disagree beyond the tolerance, has at most 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli.geometry.consistency import (
    DRIFT_FLOOR,
    DRIFT_TOLERANCE,
    ConsistencyPlan,
    degraded,
    drift,
    interpolated,
)
from pancrafter_cli.geometry.normalisation import Normalisation

Float32 = NDArray[np.float32]
FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NODATA_REACH = 2  # MS pixels
AGREEMENT_TOLERANCE = 0.3
_TYPICAL_FACTOR = 6.0
_HALF_AT = 0.3  # the estimated relative error at which confidence is one half
_SATURATED = np.float32(0.25)
_BESIDE_NODATA = np.float32(0.5)
_FLAT = 1e-6  # of the level squared: less variance of PAN than this explains nothing
_TRIMS, _TRIM_AT = 8, 4.0  # rounds of regression; what is further off than so many medians is left out of the next
_PER_UNKNOWN = 4  # samples
_PILED = 16  # saturated pixels that a sample must hold to be seen as such
_TOP_SHARE = 0.01
_OVERSHOOTING = 1e-3
_DARK = 0.1  # of PAN's mean: below it, differences count as if PAN were so bright


@dataclass(frozen=True)
class Relation:
    """What PAN, degraded to the MS grid, is made of: weights (C,) of the bands and an offset, all in DN.

    tolerance: relative difference from it beyond which PAN and MS disagree; level: mean of |PAN|, in DN.
    """

    weights: FloatArray
    offset: float
    tolerance: float
    level: float


@dataclass(frozen=True)
class Tops:
    """The DN at which PAN and each MS band (C,) are saturated; infinite where they never are."""

    pan: float
    ms: FloatArray


@dataclass(frozen=True)
class Evidence:
    """What a window is judged by, but for the product.

    plan: the window and its MS pixels; ms, trusted: (C, h, w), MS normalised; pan: (1, H, W) in DN without holes;
    valid: (H, W), the product's pixels that are valid in all bands; ratio: MS over PAN pixel size.
    """

    plan: ConsistencyPlan
    ms: Float32
    trusted: Mask
    pan: Float32
    valid: Mask
    normalisation: Normalisation
    ratio: float


def fit_relation(pan: FloatArray, ms: FloatArray) -> Relation:
    """Robust regression of PAN samples (n,) at MS resolution on MS samples (C, n), in DN.

    Least squares, repeated without the samples that were more than four medians off: clouds in either image do not
    count. With fewer samples than unknowns nothing is predicted, and nothing disagrees.
    """
    columns = np.vstack([ms, np.ones_like(pan)]).T
    level = (float(np.abs(pan).mean()) if len(pan) else 0.0) or 1.0
    if len(pan) < _PER_UNKNOWN * columns.shape[1]:
        return Relation(np.zeros(len(ms)), 0.0, np.inf, level)
    use = np.ones(len(pan), bool)
    solution = np.zeros(columns.shape[1])
    for _ in range(_TRIMS):
        solution = np.linalg.lstsq(columns[use], pan[use], rcond=1e-8)[0]
        off = np.abs(columns @ solution - pan)
        use = off <= _TRIM_AT * np.median(off)
    typical = float(np.median(_relative(pan, columns @ solution, level)))
    return Relation(solution[:-1], float(solution[-1]), max(AGREEMENT_TOLERANCE, _TYPICAL_FACTOR * typical), level)


def saturation_level(samples: NDArray[np.floating], dtype: str, peak: float | None = None) -> float:
    """The DN at which an image is saturated, from samples (n,) and its number format; infinite when at none.

    Integers end where their format does, or at `peak`, the greatest DN by the metadata, unless more than one sample in
    a thousand is above it (interpolation overshoots a little; more than that refutes the metadata). Before that, the
    greatest value is taken for saturation when 16 samples or more have it, and no fewer than lie in the 1 % of the
    range below it: 11-bit sensors stop at 2047. What has no values but its least and its greatest is a mask.
    """
    end = float(np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else np.inf
    if not samples.size:
        return end
    if peak is not None and (samples > peak).mean() <= _OVERSHOOTING:
        end = min(end, peak)
    top = float(samples.max())
    if not ((samples > samples.min()) & (samples < top)).any():
        return end
    at, below = (samples >= top).sum(), (samples >= top - _TOP_SHARE * abs(top)).sum()
    return min(top, end) if at >= _PILED and at >= below - at else end


def disagreement(evidence: Evidence, relation: Relation) -> Float32:
    """How far PAN, degraded, is from what MS predicts, relative to the larger of the two: (h, w)."""
    low = degraded(evidence.plan, evidence.pan)[0]
    ms = evidence.normalisation.undone(evidence.ms)
    bands = np.tensordot(relation.weights.astype(np.float32), ms, axes=1)
    return _relative(low, bands + np.float32(relation.offset), relation.level).astype(np.float32)


def drifted(evidence: Evidence, sharp: Float32) -> Float32:
    """The relative difference of the degraded product (C, H, W), in DN, and MS; the worst band: (h, w)."""
    low = degraded(evidence.plan, evidence.normalisation.of(sharp))
    return drift(low, evidence.ms, evidence.trusted)


def estimated_error(evidence: Evidence, sharp: Float32, pan_level: float, spread: float) -> Float32:
    """What the relative error goes along with, (h, w): injected detail, unexplained variation, misregistration.

    sharp: (C, H, W) in DN; pan_level: DN, to which PAN's variation is compared; spread: how far PAN and MS may be off
    each other, in MS pixels.
    """
    plan, ms = evidence.plan, evidence.ms
    level = np.maximum(np.abs(ms.mean(axis=0)), DRIFT_FLOOR)
    injected = np.abs(evidence.normalisation.of(sharp) - interpolated(plan, ms)).mean(axis=0, keepdims=True)
    low_pan = degraded(plan, evidence.pan / np.float32(pan_level))
    total = degraded(plan, injected)[0] + _unexplained(ms, low_pan)
    if spread:
        total += np.float32(spread) * _slope(ms)
    result: Float32 = total / level
    return result


def confidence(evidence: Evidence, sharp: Float32, relation: Relation, tops: Tops, spread: float) -> Float32:
    """Confidence (H, W) of a window of the product (C, H, W), in DN: see the module; 0 where nothing is known.

    spread: how far PAN and MS may be off each other, in MS pixels. Pixels that are not valid get a number too.
    """
    low_factors = (
        np.exp2(-estimated_error(evidence, sharp, relation.level, spread) / np.float32(_HALF_AT))
        * _falloff(drifted(evidence, sharp), DRIFT_TOLERANCE)
        * _falloff(disagreement(evidence, relation), relation.tolerance)
    )
    factors = np.clip(interpolated(evidence.plan, low_factors[None])[0], 0, 1)
    result: Float32 = factors * _unsaturated(evidence, tops) * _away_from_nodata(evidence.valid, evidence.ratio)
    return result


def _unsaturated(evidence: Evidence, tops: Tops) -> Float32:
    """The factor of saturation, (H, W)."""
    box = 2 * round(evidence.ratio / 2) + 1
    pan = ndimage.maximum_filter((evidence.pan[0] >= tops.pan).astype(np.float32), size=box, mode="nearest")
    # The tiny slack undoes what normalising did to float32.
    top = evidence.normalisation.of((tops.ms * (1 - 1e-6 * np.sign(tops.ms))).astype(np.float32)[:, None, None])
    ms = np.any((evidence.ms >= top) & evidence.trusted, axis=0).astype(np.float32)
    share = np.maximum(pan, np.clip(interpolated(evidence.plan, ms[None])[0], 0, 1))
    result: Float32 = 1 - (1 - _SATURATED) * share
    return result


def _away_from_nodata(valid: Mask, ratio: float) -> Float32:
    """The factor of invalid pixels nearby, (H, W)."""
    if valid.all():
        return np.ones(valid.shape, np.float32)
    distance = ndimage.distance_transform_edt(valid).astype(np.float32)
    away: Float32 = np.clip((distance - 1) / np.float32(_NODATA_REACH * ratio - 1), 0, 1)
    return _BESIDE_NODATA + (1 - _BESIDE_NODATA) * away


def _unexplained(ms: Float32, pan: Float32) -> Float32:
    """Standard deviation of MS (C, h, w) that PAN (1, h, w) does not explain in 3 x 3 pixels, mean of the bands."""
    if not ms.size:
        return np.zeros(ms.shape[1:], np.float32)
    # Differences of squares lose digits.
    m, p = ms.astype(np.float64), pan.astype(np.float64)
    mean_m, mean_p = _box(m), _box(p)
    variance_p = np.maximum(_box(p * p) - mean_p**2, 0) + _FLAT
    shared = _box(m * p) - mean_m * mean_p
    left = _box(m * m) - mean_m**2 - shared**2 / variance_p
    result: Float32 = np.sqrt(np.maximum(left, 0)).mean(axis=0).astype(np.float32)
    return result


def _slope(ms: Float32) -> Float32:
    """Length of the gradient of MS (C, h, w) per MS pixel, mean of the bands."""
    if min(ms.shape[1:]) < 2:
        return np.zeros(ms.shape[1:], np.float32)
    down, across = np.gradient(ms, axis=(1, 2))
    result: Float32 = np.hypot(down, across).mean(axis=0)
    return result


def _box(image: FloatArray) -> FloatArray:
    """Mean of the 3 x 3 pixels around each one of (C, h, w)."""
    mean: FloatArray = ndimage.uniform_filter(image, size=(1, 3, 3), mode="nearest")
    return mean


def _falloff(value: Float32, half_at: float) -> Float32:
    """From 1 at nothing through 1/2 at `half_at` towards 0."""
    return np.asarray(1 / (1 + (value / np.float32(half_at)) ** 2), np.float32)


def _relative(a: NDArray[np.floating], b: NDArray[np.floating], level: float) -> NDArray[np.floating]:
    """The difference relative to the larger of the two, or to a tenth of the level if that is more."""
    size = np.maximum(np.abs(a), np.abs(b))
    result: NDArray[np.floating] = np.abs(a - b) / np.maximum(size, _DARK * level)
    return result
