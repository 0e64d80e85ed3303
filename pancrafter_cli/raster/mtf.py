"""How much softer MS is than PAN, measured on the scene.

Sensors' MTFs are published, but products are resampled and sharpened on the ground: at the Nyquist frequency of MS,
real scenes show anything between 0.1 and 0.9 of what PAN shows there. A blur that is off by that much takes away from
PAN what MS has too, or leaves in it what MS never had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN
from pancrafter_cli.geometry.inputs import COARSE, FINE, detail
from pancrafter_cli.raster.measurable import Measurable, pan_on_ms
from pancrafter_cli.raster.windows import Window

FloatArray = NDArray[np.float64]

# What is tried; the answer lies between the first and the last. Beyond, a Gaussian no longer describes what was done.
_GAINS = (0.15, 0.22, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MOST_WINDOWS, _MOST_BANDS = 25, 8
_LEAST_CORRELATION = 0.3  # of the detail of PAN and MS, or of two bands: below it, nothing can be told
_SAME_BAND = 0.9995  # correlation of a band with its copy, which has its noise too


def measure_mtf(scene: Measurable, windows: Sequence[Window]) -> float:
    """Gain at the MS Nyquist frequency of the Gaussian that makes PAN as soft as MS, 0.15 to 0.9.

    With the right one, fine detail of MS is to that of PAN as coarse detail is; of too soft a PAN, more is needed of
    the fine. The detail of MS is what pairs of its bands have in common: noise of each band's own is not, and where
    PAN is displaced locally (relief, moving objects) the bands still lie on each other, so that MS does not look softer
    than it is. Where no two bands are alike, and of a single band, it is what a band has in common with PAN. Where
    PAN explains too little of MS to tell, it is 0.3.
    """
    energy = _Energy.zero(min(scene.bands, _MOST_BANDS))
    for window in windows[:: math.ceil(len(windows) / _MOST_WINDOWS)]:
        energy += _measured(scene, window)
    explained = energy.explained()
    if not explained.any() or explained[explained > 0].mean() < _LEAST_CORRELATION**2:
        return DEFAULT_MS_GAIN
    lacking = energy.of_pairs(explained)
    if lacking is None:
        lacking = energy.of_single_bands(explained)
    if lacking is None:
        return DEFAULT_MS_GAIN
    # It falls as the gain grows; interp asks for rising numbers.
    # Rounded, for all that follows depends on it, and sums differ in their last digits from machine to machine.
    return round(float(np.interp(0.0, lacking[::-1], _GAINS[::-1])), 3)


@dataclass(frozen=True)
class _Energy:
    """Sums over pixels of the products of coarse and fine detail (2), PAN being degraded with each gain (G).

    pan: PAN PAN (G, 2); cross: PAN MS (G, 2, C); ms: MS MS (2, C, C).
    """

    pan: FloatArray
    cross: FloatArray
    ms: FloatArray

    @classmethod
    def zero(cls, bands: int) -> Self:
        tried = len(_GAINS)
        return cls(np.zeros((tried, 2)), np.zeros((tried, 2, bands)), np.zeros((2, bands, bands)))

    def __add__(self, other: _Energy) -> _Energy:
        return _Energy(self.pan + other.pan, self.cross + other.cross, self.ms + other.ms)

    def explained(self) -> FloatArray:
        """Share of each band's detail that PAN explains (C,)."""
        at = _GAINS.index(DEFAULT_MS_GAIN)
        own = np.diagonal(self.ms, axis1=1, axis2=2)
        product = self.pan[at, :, None] * own
        shares = np.where(product > 0, self.cross[at] ** 2 / np.where(product > 0, product, 1), 0.0)
        return np.asarray(shares.mean(axis=0))

    def of_single_bands(self, weight: FloatArray) -> FloatArray | None:
        """Logarithm of how much more of PAN's fine detail than of its coarse is needed, for each gain (G,)."""
        return _mean_log_step(self.cross / self.pan[..., None], weight)

    def of_pairs(self, explained: FloatArray) -> FloatArray | None:
        """The same by what pairs of bands have in common; the more PAN explains of them, the more they count."""
        one, two = np.triu_indices(len(explained), 1)
        own = self.ms[:, one, one] * self.ms[:, two, two]
        alike = (self.ms[:, one, two] ** 2 / np.maximum(own, np.finfo(float).tiny)).min(axis=0)
        alike = np.where((alike >= _LEAST_CORRELATION**2) & (alike < _SAME_BAND**2), alike, 0.0)
        common = self.ms[:, one, two] / self.pan[..., None]
        steps = _mean_log_step(common, explained[one] * explained[two] * alike)
        return None if steps is None else steps / 2  # of energies, not amplitudes


def _mean_log_step(parts: FloatArray, weight: FloatArray) -> FloatArray | None:
    """Weighted mean (G,) of the logarithms of fine over coarse parts (G, 2, n); None where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        step = parts[:, 1] / parts[:, 0]
    usable = (step > 0).all(axis=0) & (weight > 0)
    if not usable.any():
        return None
    mean: FloatArray = np.log(step[:, usable]) @ (weight[usable] / weight[usable].sum())
    return mean


def _measured(scene: Measurable, window: Window) -> _Energy:
    stored, valid = scene.read_ms(*window)
    bands = np.unique(np.linspace(0, scene.bands - 1, min(scene.bands, _MOST_BANDS)).round().astype(int))
    pans, supported = zip(*(pan_on_ms(scene, window, gain) for gain in _GAINS), strict=True)
    there = valid[bands].any(axis=(1, 2), keepdims=True)
    use = np.logical_and.reduce([*supported, (valid[bands] | ~there).all(axis=0, keepdims=True)])
    ms = _centred(stored[bands].astype(np.float64), use)
    pan = _centred(np.concatenate(pans), use)
    kinds = [(detail(pan, use, sigma), detail(ms, use, sigma)) for sigma in (COARSE, FINE)]
    return _Energy(
        np.stack([np.einsum("ghw,ghw->g", p, p) for p, _ in kinds], axis=1),
        np.stack([np.einsum("ghw,chw->gc", p, m) for p, m in kinds], axis=1),
        np.stack([np.einsum("ihw,jhw->ij", m, m) for _, m in kinds]),
    )


def _centred(image: FloatArray, use: NDArray[np.bool_]) -> FloatArray:
    """An image (C, h, w) less its mean over the pixels in use (1, h, w), so that sums keep digits; 0 elsewhere."""
    mean = (image * use).sum(axis=(1, 2), keepdims=True) / np.maximum(use.sum(axis=(1, 2), keepdims=True), 1)
    return np.where(use, image - mean, 0.0)
