"""The unit in which networks and back-projections see a scene: DN of each band, from a base on, divided by a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
FloatArray = NDArray[np.float64]

_PERCENTILE = 99.0
_DARKEST, _BRIGHTEST = 0.01, 99.99  # percent: what lies between is the band's range
_MOST_LEVEL = 4.0  # ranges that a band's darkest may lie above 0: 58 real scenes stay below 3.3
# Of the brightest band's scale, the darkest that a band may be: on water and plants real ones are down to a third.
_LEAST_BRIGHT = 0.25
_MOST_BRIGHT = 4.0  # of the unit: what a band that was brightened may reach; an island may be all that is bright in one
_BELOW_DARKEST = 0.25  # ranges: the base of bands that are negative throughout


@dataclass(frozen=True)
class Normalisation:
    """(DN - base) / scale, band by band; base, scale: (C,) in DN; constant: (C,), which bands have one value."""

    base: FloatArray
    scale: FloatArray
    constant: NDArray[np.bool_]

    def of(self, image: Float32) -> Float32:
        """An image (C, h, w) in DN brought to the unit."""
        base, scale = self._columns
        return (image - base) / scale

    def undone(self, image: Float32) -> Float32:
        """An image (C, h, w) in the unit brought back to DN."""
        base, scale = self._columns
        return image * scale + base

    @property
    def _columns(self) -> tuple[Float32, Float32]:
        return self.base.astype(np.float32)[:, None, None], self.scale.astype(np.float32)[:, None, None]

    def for_pan(self, pan_mean: float, ms_mean: FloatArray) -> Normalisation:
        """That of PAN (1, h, w) which is not matched to the bands: their scale, and as far above 0 as they are.

        pan_mean: DN; ms_mean: (C,), DN.
        """
        base = pan_mean - float((ms_mean - self.base).mean()) if self.base.any() else 0.0
        return Normalisation(np.array([base]), np.array([self.scale.max()]), np.zeros(1, bool))


def fit_normalisation(samples: Sequence[NDArray[np.float32]]) -> Normalisation:
    """The normalisation of bands of which samples (n,) in DN are given.

    One scale serves all bands, the 99th percentile of |DN| of all together, so that their spectrum is kept. What a
    network has never seen is taken out: a band that is darker than a quarter of the brightest is made as bright as that
    (its detail would vanish beside what is added to the others), of a level that is more than 4 times the range of the
    values (kelvin, stored offsets) what is beyond is left out, and bands that are negative throughout are raised.
    """
    known = [band if band.size else np.zeros(1, np.float32) for band in samples]
    lows, highs = (np.array([np.percentile(band, p) for band in known], np.float64) for p in (_DARKEST, _BRIGHTEST))
    room = _MOST_LEVEL * (highs - lows)
    base = np.where((room > 0) & (lows > room), lows - room, 0.0)
    base = np.where((room > 0) & (highs < 0), lows - _BELOW_DARKEST * (highs - lows), base)
    sizes = [np.abs(band - np.float32(level)) for band, level in zip(known, base, strict=True)]
    constant = np.array([float(band.min()) == float(band.max()) for band in known])
    own = np.array([np.percentile(size, _PERCENTILE) for size in sizes], np.float64)
    telling = ~constant if not constant.all() else constant
    together = np.concatenate([size for size, tells in zip(sizes, telling, strict=True) if tells])
    scale = float(np.percentile(together, _PERCENTILE)) or float(together.max()) or 1.0
    brightened = scale * own / (_LEAST_BRIGHT * (float(own[telling].max()) or 1.0))
    reached = np.array([size.max() for size in sizes], np.float64) / _MOST_BRIGHT
    varied = np.clip(brightened, reached, None).clip(None, scale)
    # Of a constant band nobody knows what lies between the samples.
    return Normalisation(base, np.where(constant, np.maximum(scale, own), varied), constant)
