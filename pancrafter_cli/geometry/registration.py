"""Measuring how far MS lies from where the transforms say it lies, to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_WINDOW = 64
_SMALLEST_WINDOW = 16
_UPSAMPLE = 50  # the peak of the correlation is located on a grid of 1/50 pixel
_MIN_PEAK = 0.15  # windows whose whitened correlation has a weaker peak hold nothing to match


@dataclass(frozen=True)
class Shift:
    """How far the content of MS lies from that of PAN, in MS pixels (x right, y down), and how sure that is.

    `spread` is 1.4826 times the median absolute deviation over the windows that could be matched;
    `windows` says how many those were (0: nothing could be measured, dx = dy = 0).
    """

    dx: float
    dy: float
    spread: float
    windows: int


def phase_shift(reference: FloatArray, moved: FloatArray) -> tuple[float, float, float]:
    """(dy, dx, peak) by which the content of `moved` lies further down and right than in `reference`.

    Both (h, w), the same size. Phase correlation, low-passed to where both images carry signal, located
    by a matrix-multiply DFT around the coarse peak (Guizar-Sicairos et al. 2008). `peak` is 1 for a pure shift.
    """
    h, w = reference.shape
    taper = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[None, 1:-1]
    spectra = [np.fft.fft2((image - image.mean()) * taper) for image in (reference, moved)]
    cross = np.conj(spectra[0]) * spectra[1]
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :]
    # Beyond 0.35 cycles per pixel MS is mostly aliasing and noise.
    lowpass = np.exp(-0.5 * ((fy**2 + fx**2) / 0.2**2))
    magnitude = np.abs(cross)
    whitened = np.where(magnitude > 0, cross / np.maximum(magnitude, 1e-30), 0) * lowpass
    surface = np.fft.ifft2(whitened).real / lowpass.mean()
    peak_y, peak_x = np.unravel_index(np.argmax(surface), surface.shape)
    y0 = float(peak_y - h if peak_y > h // 2 else peak_y)
    x0 = float(peak_x - w if peak_x > w // 2 else peak_x)
    steps = np.arange(-_UPSAMPLE, _UPSAMPLE + 1) / _UPSAMPLE
    ey = np.exp(2j * np.pi * (y0 + steps)[:, None] * np.fft.fftfreq(h)[None, :])
    ex = np.exp(2j * np.pi * np.fft.fftfreq(w)[:, None] * (x0 + steps)[None, :])
    fine = (ey @ whitened @ ex).real / lowpass.sum()
    iy, ix = np.unravel_index(np.argmax(fine), fine.shape)
    return y0 + float(steps[iy]), x0 + float(steps[ix]), float(fine.max())


def measure_shift(pan_low: FloatArray, ms: FloatArray, valid: NDArray[np.bool_]) -> Shift:
    """Median shift of MS against PAN over windows of 64 pixels and all bands.

    pan_low: (h, w), PAN degraded to the MS grid; ms: (C, h, w); valid: (h, w). Windows with invalid pixels
    are left out. dx, dy in MS pixels: positive when MS content lies further right and down than PAN's.
    """
    return summarise(window_shifts(pan_low, ms, valid))


def window_shifts(pan_low: FloatArray, ms: FloatArray, valid: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """(dy, dx) of every window and band that could be matched; arguments as for `measure_shift`."""
    h, w = pan_low.shape
    size = min(_WINDOW, h, w)
    found: list[tuple[float, float]] = []
    if size < _SMALLEST_WINDOW:
        return found
    for top in _starts(h, size):
        for left in _starts(w, size):
            part = np.s_[top : top + size, left : left + size]
            if not valid[part].all() or pan_low[part].std() == 0:
                continue
            for band in ms:
                dy, dx, peak = phase_shift(pan_low[part], band[part])
                if peak > _MIN_PEAK and max(abs(dx), abs(dy)) < size / 4:
                    found.append((dy, dx))
    return found


def summarise(found: list[tuple[float, float]]) -> Shift:
    """The median of window shifts (dy, dx) and how far they scatter around it."""
    if not found:
        return Shift(0.0, 0.0, float("inf"), 0)
    shifts = np.array(found)
    dy, dx = np.median(shifts, axis=0)
    spread = 1.4826 * float(np.median(np.hypot(shifts[:, 0] - dy, shifts[:, 1] - dx)))
    return Shift(float(dx), float(dy), spread, len(found))


def _starts(length: int, size: int) -> list[int]:
    count = max(1, min(8, length // size))
    return sorted({int(s) for s in np.linspace(0, length - size, count)})
