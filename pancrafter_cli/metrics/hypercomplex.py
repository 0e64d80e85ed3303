"""Q2n (Garzelli & Nencini 2009): the UQI of spectra taken as hypercomplex numbers, for any number of bands."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.metrics.uqi import blocks_of, full_blocks, no_valid_block
from pancrafter_cli.metrics.windows import BLOCK, FloatArray, Mask, Pair, need_side, whole

_EPS = float(np.finfo(np.float64).eps)


class Q2n:
    """Q2n: mean over blocks of 32 x 32 pixels, side by side; mirrored at the right and bottom to whole blocks.

    Images are rounded to whole DN in 0..65535, as in the research toolboxes. Only blocks that are valid
    throughout count.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, pair: Pair) -> None:
        """Take in the blocks of the core."""
        need_side(pair.part.shape, BLOCK, "Q2n")
        part = pair.part
        rows = _mirrored(part.rows, part.read_rows[0], part.shape[0])
        cols = _mirrored(part.cols, part.read_cols[0], part.shape[1])
        valid = full_blocks(pair.valid[np.ix_(rows, cols)]).ravel()
        if not valid.any():
            return
        truth, fused = (blocks_of(image[:, rows[:, None], cols])[valid] for image in (pair.truth, pair.fused))
        values = q2n_of_blocks(truth, fused)
        self._sum += float(values.sum())
        self._count += values.size

    def value(self) -> float:
        """The mean. Raises MetricError when no block is valid throughout."""
        if self._count == 0:
            raise no_valid_block("Q2n")
        return self._sum / self._count


def q2n(truth: NDArray[Any], fused: NDArray[Any], valid: Mask | None = None) -> float:
    """Q2n (Q4 with four bands, Q8 with eight) of two images (C, H, W) in DN, 1 is perfect; `valid` (H, W)."""
    return whole(Q2n(), truth, fused, valid)


def q2n_of_blocks(truth: FloatArray, fused: FloatArray) -> FloatArray:
    """Q2n of each of n blocks (n, C, M) in DN: (n,).

    Both are normalised by the mean and standard deviation of the truth. Means and covariances of the bands then
    say everything: the hypercomplex covariance is a signed sum of the real ones.
    """
    x, y = _whole_dn(truth), _whole_dn(fused)
    mean_x, mean_y = x.mean(axis=2), y.mean(axis=2)
    x -= mean_x[:, :, None]
    y -= mean_y[:, :, None]
    free = x.shape[2] - 1
    variance_x, variance_y = (np.einsum("ncm,ncm->nc", a, a) / free for a in (x, y))
    scale_x = np.sqrt(variance_x)
    scale_x[scale_x == 0] = _EPS
    scale_y = np.where(mean_x == 0, 1.0, scale_x)  # the toolbox only shifts the fused band by 1 then
    covariance = x @ y.transpose(0, 2, 1) / free / (scale_x[:, :, None] * scale_y[:, None, :])
    size = 1 << (x.shape[1] - 1).bit_length()  # bands of zeros are added up to a power of two; they become 1
    added = size - x.shape[1]
    modulus_x = np.sqrt(float(size))
    modulus_y = np.sqrt((((mean_y - mean_x) / scale_y + 1) ** 2).sum(axis=1) + added)
    cross = _modulus(np.pad(covariance, [(0, 0), (0, added), (0, added)]))
    spread = (variance_x / scale_x**2 + variance_y / scale_y**2).sum(axis=1)
    bias = 2 * modulus_x * modulus_y / (modulus_x**2 + modulus_y**2)
    values = np.where(spread == 0, bias, bias * 2 * cross / np.where(spread == 0, 1.0, spread))
    return np.asarray(values, dtype=np.float64)


def _mirrored(span: tuple[int, int], first: int, size: int) -> NDArray[np.int64]:
    """Pixels of whole blocks over a span, counted from `first`; past the raster's end they come back."""
    pixels = np.arange(span[0], span[0] + -(-(span[1] - span[0]) // BLOCK) * BLOCK)
    return np.asarray(np.where(pixels < size, pixels, 2 * size - 1 - pixels) - first)


def _whole_dn(image: FloatArray) -> FloatArray:
    """A copy rounded to whole DN, half up, within 0..65535."""
    return np.clip(np.floor(image + 0.5), 0.0, 65535.0)


def _modulus(covariance: FloatArray) -> FloatArray:
    """Modulus of the hypercomplex covariance from the real ones (n, P, P), P a power of two: (n,)."""
    size = covariance.shape[1]
    i = np.arange(size)
    signs = _signs(size)
    total = np.zeros(len(covariance))
    for k in range(size):
        # Units i and j multiply to plus or minus unit i xor j, so these are all the pairs that make unit k.
        total += (covariance[:, i, i ^ k] * signs[i, i ^ k]).sum(axis=1) ** 2
    return np.asarray(np.sqrt(total))


@cache
def _signs(size: int) -> FloatArray:
    """(P, P): the sign of unit i times the conjugate of unit j."""
    units = np.eye(size)
    conjugate = np.concatenate([units[:, :1], -units[:, 1:]], axis=1)
    return np.array([[_product(a, b).sum() for b in conjugate] for a in units])


def _product(x: FloatArray, y: FloatArray) -> FloatArray:
    """Product of x and y, both (P,), by the recursion of the halves that Q2n is defined with."""
    if len(x) == 1:
        return np.asarray(x * y)
    half = len(x) // 2
    a, b, c, d = x[:half], x[half:], y[:half], y[half:]
    if half == 1:
        return np.concatenate([a * c - d * b, a * d + c * b])
    first = _product(a, c) - _product(_conjugate(d), b)
    return np.concatenate([first, _product(_conjugate(a), _conjugate(d)) + _product(c, _conjugate(b))])


def _conjugate(x: FloatArray) -> FloatArray:
    return np.concatenate([x[:1], -x[1:]])
