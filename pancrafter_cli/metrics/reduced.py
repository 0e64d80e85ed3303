"""Reduced-resolution indices: a fused image against the truth at the same size.

Each index is a class that is fed window by window, and a function that feeds it two arrays in one piece.
All take (C, H, W) in DN and a mask (H, W), and raise MetricError for shapes that disagree and for NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, correlate1d

from pancrafter_cli.errors import MetricError
from pancrafter_cli.metrics.windows import FloatArray, Mask, Pair, need_side, whole

SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


class Sam:
    """SAM (Yuhas et al. 1992): mean angle between the spectra of each valid pixel, in degrees; 0 is perfect.

    Pixels where either spectrum is zero take no part.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, pair: Pair) -> None:
        """Take in the valid pixels of the core."""
        t, f = _spectra(pair)
        norms = np.sqrt((t * t).sum(axis=0) * (f * f).sum(axis=0))
        keep = norms > 0
        cosine = (t * f).sum(axis=0)[keep] / norms[keep]
        self._sum += float(np.arccos(np.clip(cosine, -1.0, 1.0)).sum())
        self._count += cosine.size

    def value(self) -> float:
        """The mean. Raises MetricError when no pixel has two spectra."""
        if self._count == 0:
            raise MetricError("SAM has no pixel where both images are other than zero", "check the order of the images")
        return math.degrees(self._sum / self._count)


class Ergas:
    """ERGAS (Wald 2002): 100 / ratio * sqrt(mean over bands of MSE_b / mean(truth_b)^2); 0 is perfect.

    Valid pixels count.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio, self._count = ratio, 0
        self._squares: FloatArray | float = 0.0
        self._truth: FloatArray | float = 0.0

    def add(self, pair: Pair) -> None:
        """Take in the valid pixels of the core."""
        t, f = _spectra(pair)
        self._squares = self._squares + ((f - t) ** 2).sum(axis=1)
        self._truth = self._truth + t.sum(axis=1)
        self._count += t.shape[1]

    def value(self) -> float:
        """The index. Raises MetricError when a band of the truth has mean 0."""
        means = np.asarray(self._truth) / self._count
        if (means == 0).any():
            band = int(np.argmax(means == 0)) + 1
            raise MetricError(
                f"ERGAS divides by the mean of the truth, which is 0 in band {band}", "leave that band out"
            )
        return float(100.0 / self._ratio * np.sqrt((self._squares / self._count / means**2).mean()))


class Psnr:
    """PSNR in dB: 10 log10(peak^2 / MSE), the MSE over all bands and valid pixels together; infinite when equal."""

    def __init__(self, peak: float) -> None:
        self._peak, self._squares, self._count = peak, 0.0, 0

    def add(self, pair: Pair) -> None:
        """Take in the valid pixels of the core."""
        t, f = _spectra(pair)
        self._squares += float(((f - t) ** 2).sum())
        self._count += t.size

    def value(self) -> float:
        """The index."""
        if self._squares == 0:
            return math.inf
        return 10 * math.log10(self._peak**2 * self._count / self._squares)


class Scc:
    """SCC (after Zhou et al. 1998): cosine between the Sobel magnitudes of both images over all bands; 1 is perfect.

    The valid region is eroded by one pixel (all around each of its pixels; outside the image nothing is
    valid). Both images are zero outside of it, and the magnitudes inside of it count.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(3)

    def add(self, pair: Pair) -> None:
        """Take in the magnitudes of the core."""
        valid = binary_erosion(pair.valid, np.ones((3, 3), dtype=bool))
        # The rim of the window is eroded although its neighbours may be valid; the core's neighbours lie further in.
        where = pair.part.local(1, 1)
        inside = np.zeros_like(valid)
        inside[pair.part.core] = True
        inside = (inside & valid)[where]
        for truth, fused in zip(pair.truth, pair.fused, strict=True):
            t, f = (_sobel(np.where(valid, band, 0.0)[where])[inside] for band in (truth, fused))
            self._sums += (t @ f, t @ t, f @ f)

    def value(self) -> float:
        """The cosine. Raises MetricError when an image has no edges, or nothing is left of the valid region."""
        product, truth, fused = self._sums
        if truth == 0 or fused == 0:
            raise MetricError(
                "SCC compares edges, and an image has none in its valid part", "check that both images hold data there"
            )
        return float(product / math.sqrt(truth * fused))


class Ssim:
    """SSIM (Wang et al. 2004) with Gaussian 11 x 11 windows (sigma 1.5) and range `peak`: mean of all, 1 is perfect.

    Population variances, K1 0.01, K2 0.03, windows inside the image only; those valid throughout count.
    """

    def __init__(self, peak: float) -> None:
        self._c1, self._c2 = (_SSIM_K1 * peak) ** 2, (_SSIM_K2 * peak) ** 2
        self._sum, self._count = 0.0, 0

    def add(self, pair: Pair) -> None:
        """Take in the windows whose upper left pixel lies in the core."""
        need_side(pair.part.shape, SSIM_WINDOW, "SSIM")
        where = pair.part.local(0, SSIM_WINDOW - 1)
        valid = pair.valid[where]
        radius = SSIM_WINDOW // 2
        if min(valid.shape) < SSIM_WINDOW:
            return
        inner = np.s_[radius:-radius, radius:-radius]
        inside = binary_erosion(valid, np.ones((SSIM_WINDOW, SSIM_WINDOW), dtype=bool))[inner]
        for truth, fused in zip(pair.truth, pair.fused, strict=True):
            level = float(truth[pair.valid].mean())
            values = self._map(truth[where], fused[where], level)[inner][inside]
            self._sum += float(values.sum())
            self._count += values.size

    def value(self) -> float:
        """The mean. Raises MetricError when no window is valid throughout."""
        if self._count == 0:
            raise MetricError(
                f"SSIM has no {SSIM_WINDOW} x {SSIM_WINDOW} window that is valid throughout",
                "score a part with fewer gaps",
            )
        return self._sum / self._count

    def _map(self, x: FloatArray, y: FloatArray, level: float) -> FloatArray:
        """SSIM around every pixel of two bands (h, w); `level` is subtracted to keep digits of the variances."""
        dx, dy = x - level, y - level
        mx, my = _blur(dx), _blur(dy)
        spread = _blur(dx * dx + dy * dy) - mx * mx - my * my
        covariance = _blur(dx * dy) - mx * my
        mx, my = mx + level, my + level
        luminance = (2 * mx * my + self._c1) / (mx * mx + my * my + self._c1)
        return luminance * (2 * covariance + self._c2) / (spread + self._c2)


def sam(truth: NDArray[Any], fused: NDArray[Any], valid: Mask | None = None) -> float:
    """Spectral angle in degrees, 0 is perfect; see Sam."""
    return whole(Sam(), truth, fused, valid)


def ergas(truth: NDArray[Any], fused: NDArray[Any], ratio: float, valid: Mask | None = None) -> float:
    """ERGAS at a ratio, 0 is perfect; see Ergas."""
    return whole(Ergas(ratio), truth, fused, valid)


def psnr(truth: NDArray[Any], fused: NDArray[Any], peak: float, valid: Mask | None = None) -> float:
    """PSNR in dB for a peak in DN (2047 for 11 bits); see Psnr."""
    return whole(Psnr(peak), truth, fused, valid)


def scc(truth: NDArray[Any], fused: NDArray[Any], valid: Mask | None = None) -> float:
    """Spatial correlation coefficient, 1 is perfect; see Scc."""
    return whole(Scc(), truth, fused, valid)


def ssim(truth: NDArray[Any], fused: NDArray[Any], peak: float, valid: Mask | None = None) -> float:
    """SSIM for a range in DN (2047 for 11 bits), 1 is perfect; see Ssim."""
    return whole(Ssim(peak), truth, fused, valid)


def _spectra(pair: Pair) -> tuple[FloatArray, FloatArray]:
    """The valid pixels of the core of both images, (C, n)."""
    core = pair.part.core
    valid = pair.valid[core]
    images = (image[:, *core] for image in (pair.truth, pair.fused))
    if valid.all():
        t, f = (image.reshape(len(image), -1) for image in images)
    else:
        t, f = (image[:, valid] for image in images)
    return t, f


def _sobel(band: FloatArray) -> FloatArray:
    """Magnitude of the Sobel gradient of (h, w), zeros outside."""
    smooth, slope = (1.0, 2.0, 1.0), (1.0, 0.0, -1.0)
    gradients = (
        correlate1d(correlate1d(band, slope, axis=axis, mode="constant"), smooth, axis=1 - axis, mode="constant")
        for axis in (0, 1)
    )
    return np.hypot(*gradients)


def _blur(band: FloatArray) -> FloatArray:
    """(h, w) through SSIM's Gaussian; right where the whole window lies inside."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    taps = np.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    taps /= taps.sum()
    return np.asarray(correlate1d(correlate1d(band, taps, axis=0), taps, axis=1))
