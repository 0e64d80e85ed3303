"""Separable sub-pixel resampling: the ONE place where MS is brought to the PAN grid.

A resampling along one axis is a matrix whose row k holds the weights of the source pixels that make
target pixel k. Any ratio, offset or measured shift is just other weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.grid import AxisMap

FloatArray = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

CUBIC_SUPPORT = 2  # source pixels that the cubic kernel reaches on either side
_CUBIC_A = -0.5
_NOTHING = 1e-6  # weight that is only rounding


@dataclass(frozen=True)
class AxisWeights:
    """Weights that turn source pixels first..first+n-1 into target pixels start..start+m-1.

    `matrix` is (m, n); every row sums to one.
    """

    first: int
    matrix: FloatArray

    @property
    def stop(self) -> int:
        """One past the last source pixel."""
        return self.first + int(self.matrix.shape[1])


def cubic_kernel(distance: FloatArray) -> FloatArray:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981, eq. 15): third-order, interpolating."""
    x = np.abs(distance)
    near = ((_CUBIC_A + 2) * x - (_CUBIC_A + 3)) * x * x + 1
    far = _CUBIC_A * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def gather_weights(
    axis: AxisMap,
    start: int,
    stop: int,
    reach: float,
    kernel: Callable[[FloatArray], FloatArray],
) -> AxisWeights:
    """Weights for target pixels start..stop-1 from a kernel of the distance in source pixels.

    `reach` is the kernel's half-width in source pixels. Where the kernel hangs over the source's edge
    its weight goes to the edge pixel, as if the edge were replicated.
    """
    centres = axis.centres(start, stop) - 0.5
    base = np.floor(centres).astype(np.int64)
    span = math.ceil(reach)
    taps = base[:, None] + np.arange(-span, span + 2)[None, :]
    weights = kernel(taps - centres[:, None])
    taps = np.clip(taps, 0, axis.src_size - 1)
    first, last = int(taps.min()), int(taps.max())
    matrix = np.zeros((stop - start, last - first + 1))
    np.add.at(matrix, (np.arange(stop - start)[:, None], taps - first), weights)
    return AxisWeights(first, matrix / matrix.sum(axis=1, keepdims=True))


def cubic_weights(axis: AxisMap, start: int, stop: int) -> AxisWeights:
    """Cubic resampling weights for target pixels start..stop-1 of `axis`; edges are replicated.

    When the source is finer than the target the kernel is stretched, so that it also removes what the
    target cannot hold.
    """
    stretch = max(1.0, abs(axis.scale))
    return gather_weights(axis, start, stop, CUBIC_SUPPORT * stretch, lambda d: cubic_kernel(d / stretch))


def apply_weights(rows: FloatArray, cols: FloatArray, image: NDArray[Real]) -> NDArray[Real]:
    """Rows (M, h) and columns (N, w) applied to an image (..., h, w): (..., M, N), in the image's dtype."""
    r = rows.astype(image.dtype, copy=False)
    c = cols.astype(image.dtype, copy=False)
    result: NDArray[Real] = np.matmul(np.matmul(r, image), c.T)
    return result


def known_only(rows: FloatArray, cols: FloatArray, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which results of `apply_weights` draw on valid pixels (..., h, w) alone: (..., M, N)."""
    unknown = apply_weights(np.abs(rows), np.abs(cols), (~valid).astype(np.float32))
    return unknown < _NOTHING
