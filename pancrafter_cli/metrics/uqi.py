"""The universal quality index (Wang & Bovik 2002), in sliding windows and in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import MetricError
from pancrafter_cli.geometry.sums import line_sum
from pancrafter_cli.metrics.windows import BLOCK, FloatArray, Mask, Pair, is_flat, need_side, whole


class SlidingUqi:
    """Q: UQI in windows of 32 x 32 pixels at stride 1, mean over the windows and the bands.

    4 cov mx my / ((vx + vy) (mx^2 + my^2)); 2 mx my / (mx^2 + my^2) where both are constant, 1 where both are 0.
    Only windows that are valid throughout count.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, pair: Pair) -> None:
        """Take in the windows whose upper left pixel lies in the core."""
        need_side(pair.part.shape, BLOCK, "Q")
        where = pair.part.local(0, BLOCK - 1)
        valid = pair.valid[where]
        if min(valid.shape) < BLOCK:
            return
        inside = box_sum(valid.astype(np.float64), BLOCK) == BLOCK**2
        if not inside.any():
            return
        for truth, fused in zip(pair.truth, pair.fused, strict=True):
            values = _sliding(truth[where], fused[where], float(truth[pair.valid].mean()))[inside]
            self._sum += float(values.sum())
            self._count += values.size

    def value(self) -> float:
        """The mean. Raises MetricError when no window is valid throughout."""
        if self._count == 0:
            raise no_valid_block("Q")
        return self._sum / self._count


def q(truth: NDArray[Any], fused: NDArray[Any], valid: Mask | None = None) -> float:
    """Q of two images (C, H, W) in DN, 1 is perfect; `valid` (H, W). See SlidingUqi for the rule of masks."""
    return whole(SlidingUqi(), truth, fused, valid)


def box_sum(image: FloatArray, size: int) -> FloatArray:
    """Sums over all size x size windows of (h, w): (h - size + 1, w - size + 1).

    The size is a power of two.
    """
    return line_sum(line_sum(image, size).T, size).T


def no_valid_block(name: str) -> MetricError:
    """The error of an index that counts whole blocks or windows and finds none."""
    return MetricError(
        f"{name} has no {BLOCK} x {BLOCK} pixels that are valid throughout", "score a part with fewer gaps"
    )


def blocks_of(image: FloatArray) -> FloatArray:
    """Image (C, 32 r, 32 c) as blocks (r c, C, 1024), row by row."""
    bands, height, width = image.shape
    split = image.reshape(bands, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return np.ascontiguousarray(split.transpose(1, 3, 0, 2, 4)).reshape(-1, bands, BLOCK**2)


def full_blocks(valid: Mask) -> Mask:
    """(r, c): which 32 x 32 blocks of a mask (32 r, 32 c) are valid throughout."""
    height, width = valid.shape
    split = valid.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return np.asarray(split.all(axis=(1, 3)))


def block_uqi(blocks: FloatArray) -> FloatArray:
    """UQI of every pair of bands in blocks (n, C, 1024): (n, C, C), NaN where it is 0 / 0.

    4 cov mx my / ((vx + vy) (mx^2 + my^2)): 0 / 0 where both bands are constant, or both have mean 0.
    """
    mean = blocks.mean(axis=2)
    centred = blocks - mean[:, :, None]
    covariance = centred @ centred.transpose(0, 2, 1) / (blocks.shape[2] - 1)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    spread = variance[:, :, None] + variance[:, None, :]
    energy = mean[:, :, None] ** 2 + mean[:, None, :] ** 2
    undefined = is_flat(spread, energy) | (energy == 0)
    product = 4 * covariance * mean[:, :, None] * mean[:, None, :]
    return np.where(undefined, np.nan, product / np.where(undefined, 1.0, spread * energy))


def _sliding(x: FloatArray, y: FloatArray, level: float) -> FloatArray:
    """UQI of every window of two bands (h, w); `level` is subtracted first, to keep digits of the variances."""
    count = BLOCK**2
    dx, dy = x - level, y - level
    sx, sy = box_sum(dx, BLOCK) / count, box_sum(dy, BLOCK) / count
    spread = box_sum(dx * dx + dy * dy, BLOCK) / count - sx * sx - sy * sy
    covariance = box_sum(dx * dy, BLOCK) / count - sx * sy
    mx, my = sx + level, sy + level
    energy = mx * mx + my * my
    flat = is_flat(spread, energy)
    structure = np.where(flat, 1.0, 2 * covariance / np.where(flat, 1.0, spread))
    return np.where(energy == 0, 1.0, structure * 2 * mx * my / np.where(energy == 0, 1.0, energy))
