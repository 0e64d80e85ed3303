"""Matching one window of MS with the PAN under it, to a fraction of a pixel.

PAN is degraded to the MS grid at an assumed shift and regressed on the MS bands and on its own derivatives by the
shift, whose coefficients correct that shift (Lucas and Kanade 1981, with a regression on all bands in place of one
template: a band whose contrast is opposite to PAN's helps as much as any other). PAN is degraded anew at every step,
so nothing is ever interpolated on the coarse grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.degrade import degrade_weights, mtf_sigma
from pancrafter_cli.geometry.grid import AxisMap, GridMap
from pancrafter_cli.geometry.resample import apply_weights

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SEARCH = 12  # MS pixels: how far away a first match is looked for
WANDER = 2.0  # MS pixels from its start at which a match has lost its way
_GAIN = 0.2  # MTF at the MS Nyquist frequency: a little softer than a sensor's, for MS aliases there
_COVERED_SIGMAS = 2.5  # a degraded pixel whose Gaussian lies inside up to here lacks about 1 % of its weight
_MOST_MISSING = 0.2  # share of a degraded pixel that was filled from its neighbours
_STEPS = 12
_LONGEST_STEP, _CONVERGED = 0.6, 0.004
_DERIVATIVE_STEP = 0.05
_FEWEST_PIXELS = 120
_MIN_FIT = 0.2  # share of PAN's detail that the bands must explain
_MAX_SIGMA = 0.15
_SMOOTH = np.array([1.0, 2.0, 1.0]) / 4
_WIDE = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
_FILTER_REACH = 3


@dataclass(frozen=True)
class WindowShift:
    """Shift (dx right, dy down) of one window, in MS pixels; row, col: its centre on the MS grid.

    sigma: standard error by the residuals of the match; fit: share of PAN's detail that the bands explain there,
    0 where the window could not be matched. common: the greatest such share at any shift that was looked at; texture:
    how much detail the bands share among themselves (`texture`); both NaN where PAN is flat.
    """

    row: float
    col: float
    dy: float = 0.0
    dx: float = 0.0
    sigma: float = math.inf
    fit: float = 0.0
    common: float = math.nan
    texture: float = math.nan

    @property
    def matched(self) -> bool:
        """Whether the shift can be trusted."""
        return self.fit >= _MIN_FIT and self.sigma <= _MAX_SIGMA


@dataclass(frozen=True)
class Sample:
    """A window in memory: PAN (h', w'), MS (C, h, w) with one validity each, and the relations of MS to PAN."""

    pan: FloatArray
    pan_valid: BoolArray
    ms: FloatArray
    ms_valid: BoolArray
    to_pan: GridMap
    centre: tuple[float, float]


def pan_reach(ratio: float) -> float:
    """PAN pixels around an MS pixel that its match draws on."""
    return _COVERED_SIGMAS * mtf_sigma(ratio, _GAIN) + 1


def surface(sample: Sample) -> FloatArray | None:
    """Share of PAN's detail that MS explains at each whole shift (2 S + 1, 2 S + 1); None without enough pixels."""
    height, width = sample.ms_valid.shape
    rows, cols = (
        a.crop_dst(-SEARCH, n + SEARCH) for a, n in ((sample.to_pan.rows, height), (sample.to_pan.cols, width))
    )
    low, covered = _degraded(sample, rows, cols)
    # Where there is no PAN, MS has nothing that could be found or missed.
    use = _eroded(sample.ms_valid) & covered[SEARCH:-SEARCH, SEARCH:-SEARCH]
    if int(use.sum()) < _FEWEST_PIXELS:
        return None
    covered = _eroded(covered)
    detail = _detail(low) * covered
    bands = _detail(sample.ms) * use
    shape = (height + 2 * SEARCH, width + 2 * SEARCH)

    def correlate(image: FloatArray, kernel: FloatArray) -> FloatArray:
        product = np.fft.rfft2(image, shape) * np.conj(np.fft.rfft2(kernel, shape))
        # PAN content at +s of the MS window: MS lies at -s of PAN.
        return np.asarray(np.fft.irfft2(product, shape)[..., 2 * SEARCH :: -1, 2 * SEARCH :: -1])

    cross = correlate(detail, bands)
    power = np.linalg.pinv(np.einsum("ihw,jhw->ij", bands, bands), rcond=1e-6, hermitian=True)
    energy, count = correlate(detail**2, use.astype(float)), correlate(covered.astype(float), use.astype(float))
    covering = count > 0.5 * use.sum()
    # Without PAN where the georeferencing looks for it, what it shows elsewhere is no evidence.
    if not covering[SEARCH, SEARCH]:
        return None
    enough = covering & (energy > 1e-9 * energy.max(initial=0.0))
    explained = np.einsum("iyx,ij,jyx->yx", cross, power, cross)
    return np.where(enough, explained / np.where(enough, energy, 1), 0.0)


def texture(sample: Sample) -> float:
    """How much detail the MS bands have in common, 0 to 1: 0 for noise and for a single band; NaN where PAN is flat.

    That is (m - 1) / (C - 1), m being the greatest eigenvalue of the correlation matrix of the C bands: the mean
    correlation of bands that are all alike, whatever their signs. Noise differs from band to band, the ground does not.
    """
    if not _detail(sample.pan)[sample.pan_valid].any():
        return math.nan
    bands = _detail(sample.ms)[:, _eroded(sample.ms_valid)]
    bands = bands[bands.std(axis=1) > 0]
    if len(bands) < 2:
        return 0.0
    return float((np.linalg.eigvalsh(np.corrcoef(bands))[-1] - 1) / (len(bands) - 1))


def peak(surface: FloatArray) -> tuple[float, float]:
    """The shift (dy, dx) at which a surface is highest."""
    y, x = np.unravel_index(int(surface.argmax()), surface.shape)
    return float(y - SEARCH), float(x - SEARCH)


def match(sample: Sample, start: tuple[float, float]) -> WindowShift:
    """Shift of a window found from a start (dy, dx) nearby; not matched when the steps do not settle."""
    shift = np.array(start)
    bands = _detail(sample.ms)
    lost = WindowShift(*sample.centre)
    for _ in range(_STEPS):
        low, by_dy, by_dx, covered = _degraded_with_derivatives(sample, shift)
        use = _eroded(covered & sample.ms_valid)
        if int(use.sum()) < _FEWEST_PIXELS:
            return lost
        pan = _detail(low)[use]
        design = np.stack([*(b[use] for b in bands), -_detail(by_dy)[use], -_detail(by_dx)[use]])
        design, pan = design - design.mean(axis=1, keepdims=True), pan - pan.mean()
        size = np.sqrt((design**2).sum(axis=1))
        if not (size[-2:] > 0).all() or not pan.any():
            return lost
        design /= np.where(size > 0, size, 1)[:, None]
        inverse = np.linalg.pinv(design @ design.T, rcond=1e-9, hermitian=True)
        weights = inverse @ (design @ pan)
        residual = pan - weights @ design
        step = weights[-2:] / size[-2:]
        shift = shift + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        if np.abs(shift - start).max() > WANDER:
            return lost
        if np.abs(step).max() < _CONVERGED:
            left = float(residual @ residual)
            variance = left / max(len(pan) - len(design) - 1, 1) * np.diag(inverse)[-2:] / size[-2:] ** 2
            fit = 1 - left / float(pan @ pan)
            dy, dx = (float(d) for d in shift)
            return WindowShift(*sample.centre, dy, dx, float(np.sqrt(variance.max())), fit)
    return lost


def _degraded(sample: Sample, rows: AxisMap, cols: AxisMap) -> tuple[FloatArray, BoolArray]:
    """PAN degraded to the MS pixels of the two relations (h, w), and which of those it covers with valid pixels."""
    r, c = (degrade_weights(a, 0, a.dst_size, _GAIN) for a in (rows, cols))
    low = apply_weights(r.matrix, c.matrix, sample.pan[r.first : r.stop, c.first : c.stop])
    covered = _inside(rows)[:, None] & _inside(cols)
    if not sample.pan_valid.all():
        missing = (~sample.pan_valid[r.first : r.stop, c.first : c.stop]).astype(np.float64)
        covered &= apply_weights(r.matrix, c.matrix, missing) < _MOST_MISSING
    return low, covered


def _degraded_with_derivatives(
    sample: Sample, shift: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray]:
    """PAN degraded to the MS grid at a shift (dy, dx), its derivatives by dy and dx, and where PAN covers MS."""

    def at(dy: float, dx: float) -> tuple[AxisMap, AxisMap]:
        # MS content found at x lies at x - d by PAN.
        moved = zip((sample.to_pan.rows, sample.to_pan.cols), (shift[0] + dy, shift[1] + dx), strict=True)
        rows, cols = (AxisMap(a.scale, a.offset - a.scale * d, a.dst_size, a.src_size) for a, d in moved)
        return rows, cols

    e = _DERIVATIVE_STEP
    low, covered = _degraded(sample, *at(0, 0))
    by_dy = (_degraded(sample, *at(e, 0))[0] - _degraded(sample, *at(-e, 0))[0]) / (2 * e)
    by_dx = (_degraded(sample, *at(0, e))[0] - _degraded(sample, *at(0, -e))[0]) / (2 * e)
    return low, by_dy, by_dx, covered


def _inside(axis: AxisMap) -> BoolArray:
    """Which target pixels have all but the tails of their Gaussian inside the source."""
    reach = _COVERED_SIGMAS * mtf_sigma(abs(axis.scale), _GAIN)
    centres = axis.centres(0, axis.dst_size)
    return np.asarray((centres >= reach) & (centres <= axis.src_size - reach))


def _detail(image: FloatArray) -> FloatArray:
    """Band-pass of (..., h, w): without what neighbours share, and without the finest, which is mostly noise."""
    smooth = _convolved(image, _SMOOTH)
    return smooth - _convolved(smooth, _WIDE)


def _convolved(image: FloatArray, kernel: FloatArray) -> FloatArray:
    """Separable convolution of the last two axes; edges are replicated."""
    reach = len(kernel) // 2
    for axis in (-2, -1):
        pad = [(0, 0)] * image.ndim
        pad[axis] = (reach, reach)
        padded = np.moveaxis(np.pad(image, pad, mode="edge"), axis, 0)
        size = image.shape[axis]
        image = np.moveaxis(sum(k * padded[i : i + size] for i, k in enumerate(kernel)), 0, axis)
    return image


def _eroded(valid: BoolArray) -> BoolArray:
    """Where all pixels that `_detail` draws on are valid (h, w); those outside the window are not."""
    for axis in (0, 1):
        padded = np.moveaxis(np.pad(valid, _FILTER_REACH), axis, 0)
        trimmed = padded[:, _FILTER_REACH : padded.shape[1] - _FILTER_REACH]
        size = valid.shape[axis]
        valid = np.moveaxis(
            np.logical_and.reduce([trimmed[i : i + size] for i in range(2 * _FILTER_REACH + 1)]), 0, axis
        )
    return valid
