"""Matching small parts of MS with PAN on the MS grid by correlation: from place to place, and without a start."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample

FloatArray = NDArray[np.float64]

NEAR = 2  # MS pixels around 0 in which `correlation_shifts` looks
_APART, _AS_GOOD = 0.6, 0.9  # MS pixels beyond which another shift must not fit so well, as a share of the best
_COARSE = np.arange(-6, 7) / 3  # where it looks at first
_FINER = np.arange(-2, 3) / 9, np.arange(-1, 2) / 27  # then around the best of that, and of those
_LAST = np.arange(-1, 2) / 81  # through which a parabola is laid at the end


def part_shifts(pan: FloatArray, ms: FloatArray, step: int) -> FloatArray:
    """`correlation_shifts` of parts of an image, `step` pixels apart and twice as much a side: (rows, cols, 3).

    pan, ms: detail on one grid, of PAN (C or 1, h + 4, w + 4) with NEAR pixels more on every side than MS (C, h, w).
    Every pixel of MS lies in a part; what its last parts lack is taken for no detail.
    """
    counts = [max(1, math.ceil(size / step) - 1) for size in ms.shape[1:]]
    room = [(0, 0), *((0, (n + 1) * step - size) for n, size in zip(counts, ms.shape[1:], strict=True))]

    def parts(image: FloatArray, side: int) -> FloatArray:
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, room), (side, side), axis=(1, 2))
        apart = windows[:, ::step, ::step].transpose(1, 2, 0, 3, 4)
        return apart.reshape(-1, len(image), side, side)

    return correlation_shifts(parts(pan, 2 * (step + NEAR)), parts(ms, 2 * step)).reshape(*counts, 3)


def correlation_shifts(pan: FloatArray, ms: FloatArray) -> FloatArray:
    """How far MS lies further down and right than PAN in each of N parts, and how well it fits there: (N, 3).

    pan, ms: detail on one grid, of PAN (N, C or 1, h + 4, w + 4), where it depends on the band or not, with NEAR pixels
    more on every side than MS (N, C, h, w). The shift is the one, of up to 2 pixels, at which the squares of the bands'
    correlations with PAN, where positive, add up to most; 0 where no band has any, and where another shift, elsewhere,
    fits nearly as well. How well: the mean of these squares. Coarser than `matching.match`, but needs no start and no
    PAN pixels.
    """
    count, bands, height, width = ms.shape
    # All of MS meets PAN at every shift: were both cut alike, less of them would, and small shifts would seem better.
    cross = _correlation(pan, ms)
    # The square of PAN is twice as fine as PAN. Interpolated from its pixels, it would not be the energy of the moved
    # PAN, and draw the best shift away from where it is.
    halves = resample(resample(pan, 2 * pan.shape[2], axis=2), 2 * pan.shape[3], axis=3)
    pixels = np.zeros((2 * height, 2 * width))
    pixels[::2, ::2] = 1
    energy = _correlation(halves**2, pixels)
    power = (ms**2).sum(axis=(2, 3), keepdims=True)
    least = np.maximum(1e-9 * power * (pan**2).sum(axis=(2, 3), keepdims=True), np.finfo(float).tiny)

    def fits(y: FloatArray, x: FloatArray) -> FloatArray:
        """How well shifts down (N, n) and right (N, m) fit: (N, n, m)."""
        # MS further down shows what PAN shows further up.
        alike = np.maximum(cross(NEAR - y, NEAR - x), 0.0)
        whole = power * energy(2 * (NEAR - y), 2 * (NEAR - x))
        return np.asarray((alike**2 / np.maximum(whole, least)).sum(axis=1))

    every = np.arange(count)
    first = np.broadcast_to(_COARSE, (count, len(_COARSE)))
    coarse = fits(first, first)
    row, col = _highest(coarse)
    y, x, fit = _COARSE[row], _COARSE[col], coarse[every, row, col]
    for steps in _FINER:
        down, right = (np.clip(at[:, None] + steps, -NEAR, NEAR) for at in (y, x))
        fine = fits(down, right)
        row, col = _highest(fine)
        y, x, fit = down[every, row], right[every, col], fine[every, row, col]
    around = fits(y[:, None] + _LAST, x[:, None] + _LAST)
    off = _LAST[2] * np.stack([_top(around[:, :, 1]), _top(around[:, 1])])
    y, x = np.clip(np.stack([y, x]) + off, -NEAR, NEAR)
    # Rows of crops look alike all along them, and again a row further on.
    far = np.maximum(np.abs(first - y[:, None])[:, :, None], np.abs(first - x[:, None])[:, None, :]) > _APART
    unique = np.where(far, coarse, 0.0).max(axis=(1, 2)) < _AS_GOOD * fit
    return np.where((unique & (fit > 0))[:, None], np.stack([y, x, fit / bands], axis=1), 0.0)


def _correlation(image: FloatArray, kernel: FloatArray) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """The sums of an image (N, C, H, W), moved up and left, times a kernel (..., h, w) at its upper left.

    They are a function of how far: of (N, n) up and (N, m) left, in pixels and between them, it makes (N, C, n, m).
    """
    height, width = image.shape[-2:]
    spectrum = np.fft.rfft2(image) * np.conj(np.fft.rfft2(kernel, (height, width))) / (height * width)
    # The half of the spectrum that is left out is the mirror of the other.
    spectrum[..., 1 : (width + 1) // 2] *= 2

    def turns(at: FloatArray, waves: NDArray[np.floating]) -> NDArray[np.complex128]:
        turned = np.exp(2j * np.pi * at[:, None, :, None] * waves)
        # The finest wave that the grid shows has no direction.
        return np.asarray(np.where(np.abs(waves) < 1 / 2, turned, turned.real))

    def moved(up: FloatArray, left: FloatArray) -> FloatArray:
        by_row, by_col = turns(up, np.fft.fftfreq(height)), turns(left, np.fft.rfftfreq(width))
        return np.asarray((by_row @ spectrum @ by_col.swapaxes(-1, -2)).real)

    return moved


def _highest(fits: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column (N,) of the greatest of each of fits (N, n, m)."""
    row, col = np.unravel_index(fits.reshape(len(fits), -1).argmax(axis=1), fits.shape[1:])
    return row, col


def _top(fits: FloatArray) -> FloatArray:
    """Where the parabola through fits (N, 3) at -1, 0 and 1 is highest (N,); at most 1.5 to either side."""
    before, middle, after = fits.T
    bend = np.minimum(before - 2 * middle + after, -1e-12)
    return np.asarray(np.clip((before - after) / 2 / bend, -1.5, 1.5))
