"""The low-pass of D_lambda: what the MS sensor would have seen of a fused image, still on the PAN grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.ndimage import correlate1d

from pancrafter_cli.geometry.degrade import degrade_reach, mtf_sigma
from pancrafter_cli.geometry.toolbox import KERNEL_RADIUS, correlate_valid, mtf_kernel
from pancrafter_cli.metrics.windows import FloatArray, Mask, Part

Geometry = Literal["area", "toolbox"]


def lowpass_radius(ratio: float, gains: Sequence[float], geometry: Geometry) -> int:
    """PAN pixels around a pixel that its low-passed value draws on."""
    if geometry == "toolbox":
        return KERNEL_RADIUS
    return max((math.floor(degrade_reach(ratio, gain)) for gain in gains), default=0)


def fill_reach(radius: int) -> int:
    """PAN pixels (Euclidean) around a pixel next to a valid one in which the nearest valid one must lie."""
    # A pixel that a valid one draws on is at most radius * sqrt(2) away from it.
    return math.ceil(radius * math.sqrt(2.0))


def lowpass(
    image: FloatArray, valid: Mask, part: Part, ratio: float, gains: Sequence[float], geometry: Geometry
) -> FloatArray:
    """The core of a part of an image (C, h, w), each band low-passed with its gain at the MS Nyquist frequency.

    `area`: a normalised Gaussian of `mtf_sigma`, any ratio. `toolbox`: the 41 x 41 MTF kernel. Pixels that are
    not valid (mask (h, w)) take the value of the nearest valid one, and the raster's borders are replicated: a
    straight edge of the valid region then acts as a border. The window must hold lowpass_radius plus fill_reach
    pixels around the core; where the raster was cut into windows then makes no difference.
    """
    radius = lowpass_radius(ratio, gains, geometry)
    filled = image if valid.all() else fill_nearest(image, valid, fill_reach(radius))
    near = filled[:, *part.local(radius, radius)]
    missing = [
        (max(0, radius - span[0]), max(0, span[1] + radius - size))
        for span, size in zip((part.rows, part.cols), part.shape, strict=True)
    ]
    padded = np.pad(near, [(0, 0), *missing], mode="edge")
    if geometry == "toolbox":
        bands = [correlate_valid(band, mtf_kernel(ratio, gain)) for band, gain in zip(padded, gains, strict=True)]
    else:
        bands = [_gaussian(band, radius, ratio, gain) for band, gain in zip(padded, gains, strict=True)]
    return np.stack(bands)


def fill_nearest(image: FloatArray, valid: Mask, reach: int) -> FloatArray:
    """Image (C, h, w) with each pixel that is not valid (h, w) given the value of the nearest valid one within `reach`.

    Distances are Euclidean; of several nearest ones, that in the nearest column, left before right and upper
    before lower, is taken: the result does not depend on how the image was cut. Pixels further away stay.
    """
    height, width = valid.shape
    rows = np.arange(height)[:, None]
    nowhere = height + reach + 1  # further away than anything that counts
    above = np.maximum.accumulate(np.where(valid, rows, -nowhere), axis=0)
    below = np.minimum.accumulate(np.where(valid, rows, height + nowhere)[::-1], axis=0)[::-1]
    source = np.where(rows - above <= below - rows, above, below)
    squares = (source - rows) ** 2
    best, best_row, best_col = squares.copy(), source.copy(), np.tile(np.arange(width), (height, 1))
    columns = np.arange(width)
    for distance in range(1, min(reach, width - 1) + 1):
        for step in (-distance, distance):
            to, of = (slice(max(0, -step), min(width, width - step)), slice(max(0, step), min(width, width + step)))
            nearer = squares[:, of] + distance**2 < best[:, to]
            best[:, to][nearer] = (squares[:, of] + distance**2)[nearer]
            best_row[:, to][nearer] = source[:, of][nearer]
            best_col[:, to][nearer] = np.broadcast_to(columns[of], nearer.shape)[nearer]
    found = ~valid & (best <= reach**2)
    result = image.copy()
    result[:, found] = image[:, best_row[found], best_col[found]]
    return result


def _gaussian(band: FloatArray, radius: int, ratio: float, gain: float) -> FloatArray:
    """(h, w) through the Gaussian of an MTF gain, where `radius` pixels lie around: (h - 2 radius, w - 2 radius)."""
    reach = math.floor(degrade_reach(ratio, gain))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / mtf_sigma(ratio, gain)) ** 2)
    taps /= taps.sum()
    rows = correlate1d(band, taps, axis=0)[radius : band.shape[0] - radius]
    return np.asarray(correlate1d(rows, taps, axis=1)[:, radius : band.shape[1] - radius])
