"""The filters and resampling of the research toolboxes, for PanCollection files and published tables only.

Here MS sample k lies at PAN coordinate ratio * k + ratio // 2 (4k + 2), not where pixel areas put it (4k + 1.5).
Everything is float64 on images (..., H, W). The definitions are those of DLPan-Toolbox (Deng et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.signal import oaconvolve

from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.resample import cubic_kernel

FloatArray = NDArray[np.float64]
Image = NDArray[Any]

KERNEL_RADIUS = 20  # of the MTF kernels, in PAN pixels
_KERNEL_SIZE = 2 * KERNEL_RADIUS + 1
_KAISER_BETA = 0.5
_GAUSS_GAIN = 0.3
# Half of the 23 interpolation taps, from the middle outwards (Aiazzi et al. 2002); doubled, as half the samples are 0.
_HALF_23 = (
    0.5,
    0.305334091185,
    0.0,
    -0.072698593239,
    0.0,
    0.021809577942,
    0.0,
    -0.005192756653,
    0.0,
    0.000807762146,
    0.0,
    -0.000060081482,
)
_TAPS_23 = 2.0 * np.array([*_HALF_23[:0:-1], *_HALF_23])
_BINOMIAL_5 = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0


def mtf_kernel(ratio: float, gain: float) -> FloatArray:
    """(41, 41) kernel whose response at the MS Nyquist frequency is `gain`; its sum is a little below 1.

    A Gaussian in frequency, transformed and multiplied by a radial Kaiser window, not normalised (`genMTF`).
    """
    return _windowed_gaussian((_KERNEL_SIZE - 1) / (2.0 * ratio), gain)


def gauss_kernel(ratio: float) -> FloatArray:
    """(41, 41) kernel of the low-pass with fixed gain 0.3 (`LPfilterGauss`): as `mtf_kernel`, N in place of N - 1."""
    return _windowed_gaussian(_KERNEL_SIZE / (2.0 * ratio), _GAUSS_GAIN)


def correlate(image: Image, kernel: FloatArray) -> FloatArray:
    """Image (..., H, W) correlated with a kernel (odd, odd); borders are replicated, the shape stays."""
    pad = [(0, 0)] * (image.ndim - 2) + [(n // 2, n // 2) for n in kernel.shape]
    padded = np.pad(np.asarray(image, dtype=np.float64), pad, mode="edge")
    return correlate_valid(padded, kernel)


def correlate_valid(image: FloatArray, kernel: FloatArray) -> FloatArray:
    """Image (..., H, W) correlated with a kernel (m, n) where it fits: (..., H - m + 1, W - n + 1)."""
    # The FFT spreads rounding errors of the largest value over all: without the mean they are smaller.
    mean = image.mean(axis=(-2, -1), keepdims=True)
    flipped = kernel[::-1, ::-1].reshape((1,) * (image.ndim - 2) + kernel.shape)
    result = oaconvolve(image - mean, flipped, mode="valid", axes=(-2, -1))
    return np.asarray(result + mean * kernel.sum(), dtype=np.float64)


def decimate(image: Image, ratio: int) -> Image:
    """Every ratio-th pixel of (..., H, W) from ratio // 2 on: 4i + 2 for ratio 4."""
    return image[..., ratio // 2 :: ratio, ratio // 2 :: ratio]


def upsample23(ms: Image, ratio: int) -> FloatArray:
    """MS (..., h, w) interpolated to (..., ratio h, ratio w) with 23 taps and circular borders (`interp23tap`).

    Passes through the samples, which land at 4i + 2 (ratio 4) or 2i + 1 (ratio 2). Raises UsageError for other
    ratios, which the definition does not cover.
    """
    if ratio not in (2, 4):
        raise UsageError(
            f"23-tap interpolation cannot bring MS to PAN at ratio {ratio:g}",
            "it is defined for ratios 2 and 4; use the resampling by pixel areas for others",
        )
    image = _double(np.asarray(ms, dtype=np.float64), 1)
    return image if ratio == 2 else _double(image, 0)


def shrink(image: Image, ratio: int) -> FloatArray:
    """Image (..., H, W) at 1 / ratio of its size, bicubic with antialiasing and mirrored borders (`imresize`)."""
    rows = _shrink_last(np.asarray(image, dtype=np.float64).swapaxes(-1, -2), ratio).swapaxes(-1, -2)
    return _shrink_last(rows, ratio)


def binomial_lowpass(image: Image) -> FloatArray:
    """Image (..., H, W) through GSA's low-pass: two undecimated levels of [1 4 6 4 1] / 16, forth and back.

    Mirrored borders with the edge repeated, added twice by 4 pixels (`LPfilterPlusDec`, without its decimation).
    """
    result = np.asarray(image, dtype=np.float64)
    for axis in (-2, -1):
        for mirrored in (4, 4, 0, 0):
            pad = [(0, 0)] * result.ndim
            pad[axis] = (mirrored, mirrored)
            filtered = correlate1d(np.pad(result, pad, mode="symmetric"), _BINOMIAL_5, axis=axis)
            inner = [slice(None)] * result.ndim
            inner[axis] = slice(2, -2)
            result = filtered[tuple(inner)]
    return result


def mtf_lowpass(image: Image, ratio: float, gains: Sequence[float]) -> FloatArray:
    """Image (C, H, W) with each band correlated with the MTF kernel of its gain (C,); borders are replicated."""
    return np.stack([correlate(band, mtf_kernel(ratio, gain)) for band, gain in zip(image, gains, strict=True)])


def _windowed_gaussian(nyquist_bin: float, gain: float) -> FloatArray:
    """(41, 41) inverse DFT of a Gaussian with value `gain` at bin `nyquist_bin`, times the radial Kaiser window."""
    alpha = nyquist_bin / math.sqrt(-2.0 * math.log(gain))
    steps = np.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1)
    squares = steps[:, None] ** 2 + steps[None, :] ** 2
    response = np.exp(-squares / (2.0 * alpha**2))
    spatial = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(response))).real
    radius = np.sqrt(squares) / KERNEL_RADIUS
    samples = np.kaiser(_KERNEL_SIZE, _KAISER_BETA)
    window = np.interp(radius, steps / KERNEL_RADIUS, samples, right=0.0)
    return np.asarray(spatial * window, dtype=np.float64)


def _double(image: FloatArray, phase: int) -> FloatArray:
    """Twice the size, with the samples at 2i + phase and 23-tap interpolation between them."""
    result: FloatArray = image
    for axis in (-2, -1):
        shape = list(result.shape)
        shape[axis] *= 2
        grid = np.zeros(shape)
        where = [slice(None)] * result.ndim
        where[axis] = slice(phase, None, 2)
        grid[tuple(where)] = result
        result = correlate1d(grid, _TAPS_23, axis=axis, mode="wrap")
    return result


def _shrink_last(image: FloatArray, ratio: int) -> FloatArray:
    """The last axis at 1 / ratio of its length."""
    size = image.shape[-1]
    # 0-based centre of output k among the inputs: (k + 0.5) * ratio - 0.5; the stretched kernel reaches 2 ratio.
    centres = (np.arange(-(-size // ratio)) + 0.5) * ratio - 0.5
    taps = np.floor(centres - 2 * ratio).astype(np.int64)[:, None] + np.arange(4 * ratio + 2)
    weights = cubic_kernel((centres[:, None] - taps) / ratio)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.mod(taps, 2 * size)
    mirrored = np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
    result = np.zeros((*image.shape[:-1], len(centres)))
    for k in range(taps.shape[1]):
        result += image[..., mirrored[:, k]] * weights[:, k]
    return result
