"""Filling what a raster does not know, so that resampling near its gaps sees plausible values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.sums import line_sum

FILL_REACH = 16  # pixels around a pixel that its filled value can depend on
_RADII = (1, 2, 4, 8, FILL_REACH)
BESIDE = 2  # pixels beside a valid one: as far as cubic interpolation draws on what is filled


def fill_invalid(
    image: NDArray[np.float32], valid: NDArray[np.bool_], fallback: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Image (C, h, w) with each invalid pixel replaced by the mean of the valid ones nearby, in DN.

    "Nearby" is the smallest of the boxes with radius 1, 2, 4, 8 and 16 pixels that holds a valid pixel of the
    band; where none does, the band's `fallback` (C,) is used. Valid pixels are never changed, and an image
    that is valid everywhere (C, h, w) is returned as it is, not copied. A window cut with FILL_REACH more
    pixels on each side gives bit for bit what the whole image gives.
    """
    if valid.all():
        return image
    filled = image.copy()
    for band in range(image.shape[0]):
        if not valid[band].all():
            filled[band], missing = _fill_band(image[band], valid[band], _RADII)
            filled[band][missing] = fallback[band]
    return filled


def fill_beside(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Image (C, h, w) with the invalid pixels up to BESIDE pixels from valid ones filled as `fill_invalid` does.

    The others stay what they are.
    """
    return np.stack([_fill_band(band, known, _RADII[:BESIDE])[0] for band, known in zip(image, valid, strict=True)])


def _fill_band(
    image: NDArray[np.float32], valid: NDArray[np.bool_], radii: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One band (h, w) filled from ever larger boxes, and where none of them held a valid pixel."""
    filled = image.copy()
    missing = ~valid
    known = np.where(valid, image, 0.0).astype(np.float64)
    weight = valid.astype(np.float64)
    for radius in radii if valid.any() else ():
        count = _box_sum(weight, radius)
        found = missing & (count > 0)
        filled[found] = _box_sum(known, radius)[found] / count[found]
        missing &= ~found
        if not missing.any():
            break
    return filled, missing


def _box_sum(image: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Sum over the (2 radius + 1)^2 box around each pixel of (h, w), zeros outside.

    The radius is a power of two.
    """
    return _line_sum(_line_sum(image, radius).T, radius).T


def _line_sum(image: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Sum over 2 radius + 1 neighbours along the last axis."""
    size = image.shape[-1]
    padded = np.pad(image, [(0, 0), (radius, radius)])
    return line_sum(padded, 2 * radius)[:, :size] + padded[:, 2 * radius : 2 * radius + size]
