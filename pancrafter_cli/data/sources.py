"""Training sources: images whose truth is known, and how PAN relates to their bands.

They come from scenes (scenes.py), from patch files (pancollection.py) or are made up (synthetic.py). MS is never
stored degraded: every training sample degrades its own window with its own ratio, phase and MTF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap
from pancrafter_cli.geometry.inputs import COARSE, FINE, detail, gain_beyond
from pancrafter_cli.geometry.resample import apply_weights, known_only

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

MATCH_RATIOS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0)


@dataclass(frozen=True)
class Matching:
    """How PAN relates to the bands of a scene or file as a whole, normalised, at each of MATCH_RATIOS.

    gain, offset: (len(MATCH_RATIOS), C), the matching of degraded PAN to each degraded band; likeness:
    (len(MATCH_RATIOS),), correlation of degraded PAN with itself one degraded pixel further on; pan_mean: mean of PAN.
    """

    gain: Float32
    offset: Float32
    likeness: Float32
    pan_mean: float


@dataclass(frozen=True)
class Source:
    """One image with known truth. All arrays on one grid, normalised.

    truth: (C, H, W); pans: (2, H, W), a softer and a crisper (or truer) PAN, of which a sample shows a mix; places:
    (N, 2), row and column of the upper left corners that patches may have, None where they may lie anywhere; valid:
    how many pixels of the truth are, None for all.
    """

    name: str
    kind: str
    truth: Float32
    pans: Float32
    matching: Matching
    ratio: float
    places: NDArray[np.int32] | None = None
    valid: int | None = None

    @property
    def pixels(self) -> int:
        """Valid pixels of the truth."""
        return int(self.truth.shape[1] * self.truth.shape[2]) if self.valid is None else self.valid

    @property
    def count(self) -> int:
        """It is one image."""
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns."""
        bands, height, width = self.truth.shape
        return bands, height, width

    def image(self, index: int) -> Source:
        """The image itself."""
        return self


class AnySource(Protocol):
    """What samples are drawn from: `count` images of one `shape` (C, H, W), and `pixels` valid in all of them."""

    @property
    def name(self) -> str:
        """Name of the scene or file."""

    @property
    def kind(self) -> str:
        """Kind of the source, by which it is weighted."""

    @property
    def count(self) -> int:
        """Number of images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of every image."""

    @property
    def pixels(self) -> int:
        """Valid pixels of all images."""

    @property
    def ratio(self) -> float:
        """Size of MS pixels in PAN pixels."""

    def image(self, index: int) -> Source:
        """One image, read if need be. Raises RasterError when it cannot be read."""


def make_source(name: str, kind: str, truth: Float32, pans: Float32, ratio: float) -> Source:
    """A source from truth (C, H, W) and pans (2, H, W), normalised, valid everywhere."""
    matching = measure_matching(truth, pans.mean(axis=0))
    return Source(name, kind, np.ascontiguousarray(truth), pans, matching, ratio)


def measure_matching(truth: Float32, pan: Float32, valid: Mask | None = None) -> Matching:
    """The matching of truth (C, ..., H, W) and PAN (..., H, W), of one image or several; valid: (..., H, W)."""
    pairs = [match_bands(truth, pan, ratio, valid=valid) for ratio in MATCH_RATIOS]
    likeness = np.array([likeness_of_neighbours(pan, r, valid) for r in MATCH_RATIOS], np.float32)
    mean = float(pan.mean() if valid is None else pan[valid].mean())
    return Matching(np.stack([g for g, _ in pairs]), np.stack([o for _, o in pairs]), likeness, mean)


def match_bands(
    truth: Float32, pan: Float32, ratio: float, gain: float = DEFAULT_MS_GAIN, valid: Mask | None = None
) -> tuple[Float32, Float32]:
    """Gain and offset (C,) that match PAN to every band, from both degraded by `ratio` with the MTF `gain`.

    truth: (C, ..., H, W); pan: (..., H, W), of one image or several; valid: (..., H, W), None where all is. Without
    anything to compare the gain is 0.
    """
    rows, cols = _degrade_all(pan.shape[-2:], ratio, gain)
    low_pan = apply_weights(rows, cols, pan).astype(np.float64)
    low = apply_weights(rows, cols, truth).astype(np.float64)
    use = _known(rows, cols, valid, low_pan)
    slope = gain_beyond(*(_slope(_detail(low, use, sigma), _detail(low_pan, use, sigma)) for sigma in (COARSE, FINE)))
    if not use.any():
        use = np.ones_like(use)
    mean = low[:, use].mean(axis=1)
    return slope.astype(np.float32), (mean - slope * low_pan[use].mean()).astype(np.float32)


def likeness_of_neighbours(pan: Float32, ratio: float, valid: Mask | None = None) -> float:
    """Correlation of the detail of PAN (..., H, W), degraded by `ratio`, with itself a degraded pixel on; flat: 1."""
    rows, cols = _degrade_all(pan.shape[-2:], ratio)
    low = apply_weights(rows, cols, pan.astype(np.float64))
    use = _known(rows, cols, valid, low)
    low = _detail(low, use)
    if low.std() <= 1e-6 * np.abs(pan).mean():
        return 1.0
    found = []
    for on, before in ((np.s_[..., 1:, :], np.s_[..., :-1, :]), (np.s_[..., 1:], np.s_[..., :-1])):
        both = use[on] & use[before]
        a, b = low[on][both], low[before][both]
        if len(a) > 1 and a.std() * b.std() > 0:
            found.append(np.corrcoef(a, b)[0, 1])
    return float(np.clip(np.mean(found), 0.1, 1.0)) if found else 1.0


def _slope(bands: NDArray[np.float64], pan: NDArray[np.float64]) -> NDArray[np.float64]:
    """Regression of bands (C, ...) on PAN (...), both without their means: (C,)."""
    power = float((pan**2).mean())
    return (bands * pan).reshape(len(bands), -1).mean(axis=1) / power if power > 0 else np.zeros(len(bands))


def _detail(image: NDArray[np.float64], use: Mask, sigma: float = COARSE) -> NDArray[np.float64]:
    return detail(image, np.broadcast_to(use, image.shape), sigma)


def _known(rows: NDArray[np.float64], cols: NDArray[np.float64], valid: Mask | None, low: NDArray[np.float64]) -> Mask:
    """Which pixels of a degraded image `low` (..., h, w) come of pixels `valid` (..., H, W) alone."""
    return np.ones(low.shape, bool) if valid is None else known_only(rows, cols, valid)


def _degrade_all(
    shape: tuple[int, ...], ratio: float, gain: float = DEFAULT_MS_GAIN
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrices that degrade the rows and columns of a whole image."""
    rows, cols = (degrade_weights(_coarse_axis(size, ratio), 0, int(size / ratio), gain).matrix for size in shape)
    return rows, cols


def _coarse_axis(size: int, ratio: float) -> AxisMap:
    return AxisMap(ratio, 0.0, int(size / ratio), size)
