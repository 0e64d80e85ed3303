"""Scene-wide moments from which every classical method is fitted, gathered window by window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Image = NDArray[np.floating]

# Below this share of its mean square, the variance of a channel is rounding of float32.
_FLAT = 1e-10
# Haze of blue, green, red and NIR as shares of each band's first percentile (Lolli et al. 2017).
_HAZE_SHARES = np.array([0.95, 0.45, 0.40, 0.05])
_HAZE_PERCENTILE = 1.0


@dataclass(frozen=True)
class Moments:
    """Count, mean (K,) and scatter (K, K) of samples of K channels; scatter sums products of deviations from the mean.

    Merging follows Chan, Golub and LeVeque (1979): sums about the mean lose no digits, however large the mean.
    """

    count: int
    mean: FloatArray
    scatter: FloatArray

    @classmethod
    def none(cls, channels: int) -> Moments:
        """The moments of no samples."""
        return cls(0, np.zeros(channels), np.zeros((channels, channels)))

    @classmethod
    def of(cls, samples: Image) -> Moments:
        """The moments of samples (K, n)."""
        if not samples.shape[1]:
            return cls.none(samples.shape[0])
        values = samples.astype(np.float64)
        mean = values.mean(axis=1)
        values -= mean[:, None]
        return cls(samples.shape[1], mean, values @ values.T)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of samples together."""
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, scatter)

    @property
    def covariance(self) -> FloatArray:
        """Covariances (K, K), divided by count - 1."""
        return self.scatter / max(self.count - 1, 1)

    @property
    def products(self) -> FloatArray:
        """Means of the products of channels, not centred (K, K)."""
        return self.scatter / max(self.count, 1) + np.outer(self.mean, self.mean)

    def flat(self) -> NDArray[np.bool_]:
        """Which channels (K,) hold one value only, but for rounding."""
        return is_flat(self.mean, np.diag(self.covariance))


def is_flat(mean: FloatArray, variance: FloatArray) -> NDArray[np.bool_]:
    """Whether quantities of this mean and variance are constant, but for rounding."""
    flat: NDArray[np.bool_] = variance <= _FLAT * (mean * mean + variance) + 1e-30
    return flat


@dataclass(frozen=True)
class SceneMoments:
    """What the methods are fitted to, for a scene of `bands` bands, in DN.

    `fine`, over PAN pixels: PAN, PAN low-passed with the gain of an unknown sensor, lms (C), PAN brought to MS
    resolution with each band's gain and back (C). `coarse`, over MS pixels: PAN low-passed likewise, PAN degraded
    with its own gain, MS (C), MS degraded to one scale below PAN's (C), that image blurred with each band's gain (C).
    `haze`: (C,). `dc`: (C,), what the blur of each band leaves of a constant.
    """

    bands: int
    fine: Moments
    coarse: Moments
    haze: FloatArray
    dc: FloatArray

    @property
    def lms(self) -> slice:
        """Channels of lms in `fine`, and of MS in `coarse`."""
        return slice(2, 2 + self.bands)

    @property
    def low(self) -> slice:
        """Channels of low-passed PAN in `fine`, and of degraded MS in `coarse`."""
        return slice(2 + self.bands, 2 + 2 * self.bands)

    @property
    def blurred(self) -> slice:
        """Channels of blurred degraded MS in `coarse`."""
        return slice(2 + 2 * self.bands, 2 + 3 * self.bands)


PAN, PAN_LOW = 0, 1  # channels of `fine`
PAN_AT_MS, PAN_DEGRADED = 0, 1  # channels of `coarse`


class SceneSampler:
    """Gathers the moments of a scene; windows may come in any order and any number."""

    def __init__(self, bands: int, dc: FloatArray | None = None) -> None:
        self._bands = bands
        self._dc = np.ones(bands) if dc is None else dc
        self._fine = Moments.none(2 + 2 * bands)
        self._coarse = Moments.none(2 + 3 * bands)
        self._lms: list[Image] = []
        self._minima = np.full(bands, np.inf)

    @property
    def counts(self) -> tuple[int, int]:
        """How many PAN pixels and MS pixels were added."""
        return self._fine.count, self._coarse.count

    def add_fine(self, use: NDArray[np.bool_], pan: Image, pan_low: Image, lms: Image, low: Image) -> None:
        """Add the PAN pixels `use` (H, W) of pan and pan_low (1, H, W) and lms and low (C, H, W)."""
        if not use.any():
            return
        samples = np.concatenate([image[:, use] for image in (pan, pan_low, lms, low)])
        self._fine += Moments.of(samples)
        bands = samples[2 : 2 + self._bands]
        self._minima = np.minimum(self._minima, bands.min(axis=1))
        if self._bands == len(_HAZE_SHARES):
            self._lms.append(bands.copy())

    def add_coarse(
        self, use: NDArray[np.bool_], pan: Image, pan_degraded: Image, ms: Image, degraded: Image, blurred: Image
    ) -> None:
        """Add the MS pixels `use` (h, w) of pan and pan_degraded (1, h, w), ms, degraded and blurred (C, h, w)."""
        images = (pan, pan_degraded, ms, degraded, blurred)
        self._coarse += Moments.of(np.concatenate([image[:, use] for image in images]))

    def result(self) -> SceneMoments:
        """The moments of all that was added."""
        return SceneMoments(self._bands, self._fine, self._coarse, self._haze(), self._dc)

    def _haze(self) -> FloatArray:
        """Haze of each band: a share of the first percentile of blue, green, red, NIR; else the smallest value.

        MATLAB's percentiles, sample k of n at (k - 0.5) / n, as in the reference toolbox, which numpy calls "hazen".
        """
        if not self._lms:
            return np.where(np.isfinite(self._minima), self._minima, 0.0)
        values = np.concatenate(self._lms, axis=1)
        percentiles: FloatArray = np.percentile(values, _HAZE_PERCENTILE, axis=1, method="hazen").astype(np.float64)
        return _HAZE_SHARES * percentiles
