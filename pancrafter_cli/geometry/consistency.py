"""Consistency with MS: a sharp image, degraded to the MS grid, must be MS again.

Iterated back-projection (Irani and Peleg 1991): the difference between MS and the degraded image is brought to the PAN
grid and applied, a little more than once over, for blurred detail comes back at a fraction of its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, degrade_reach, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap, GridMap, overlap
from pancrafter_cli.geometry.resample import CUBIC_SUPPORT, apply_weights, cubic_weights, known_only

Float32 = NDArray[np.float32]

_RELAXATION = np.float32(1.6)  # below 2, where constant areas, which come back whole, would begin to swing
_DARK = np.float32(0.003)  # of the scale: below this, ratios are of noise
_LARGEST_RATIO = np.float32(4.0)

# Sensors of this kind are calibrated to about 5 %: a product that says more or less than that says something else.
DRIFT_TOLERANCE = 0.05
DRIFT_FLOOR = np.float32(0.05)  # of the scale: below it, differences count as if MS were so bright


@dataclass(frozen=True)
class ConsistencyAxis:
    """One axis of a window of the PAN grid: the MS pixels [start, stop) centred in it, and the way down and up."""

    ms: tuple[int, int]
    down: NDArray[np.float64]
    up: NDArray[np.float64]


@dataclass(frozen=True)
class ConsistencyPlan:
    """Rows and columns of a window."""

    rows: ConsistencyAxis
    cols: ConsistencyAxis


def plan_consistency(
    relation: GridMap, rows: tuple[int, int], cols: tuple[int, int], gain: float = DEFAULT_MS_GAIN
) -> ConsistencyPlan:
    """Plan for the PAN-grid window rows x cols, both [start, stop); `relation` maps the PAN grid to MS.

    gain: at the MS Nyquist frequency, of the blur that takes PAN to MS.
    """
    return ConsistencyPlan(_plan_axis(relation.rows, *rows, gain), _plan_axis(relation.cols, *cols, gain))


def back_project(plan: ConsistencyPlan, image: Float32, ms: Float32, trusted: NDArray[np.bool_], steps: int) -> Float32:
    """The image (C, H, W) of the planned window after `steps` back-projections.

    ms, trusted: (C, h, w) of `plan.*.ms`, normalised; MS pixels that are not trusted ask for nothing. The image is
    multiplied by what is missing (as Richardson and Lucy do) and stays positive: bright places take more of it than
    dark ones, which additive steps would pull below zero and ring around. Where it is interpolated from MS that itself
    is negative, what is missing is added.
    """
    if not (steps and ms.size):
        return image
    r, c = plan.rows, plan.cols
    positive = known_only(r.up, c.up, ms >= 0) if ms.min() < 0 else np.True_
    image = np.where(positive, np.maximum(image, 0), image)
    for _ in range(steps):
        low = degraded(plan, image)
        ratio = (ms + _DARK) / (np.maximum(low, 0) + _DARK)
        wanted = trusted * (np.clip(ratio, 1 / _LARGEST_RATIO, _LARGEST_RATIO) - 1)
        multiplied = np.maximum(image * (1 + apply_weights(r.up, c.up, _RELAXATION * wanted)), 0)
        if positive.all():
            image = multiplied
            continue
        added = image + apply_weights(r.up, c.up, _RELAXATION * trusted * (ms - low))
        image = np.where(positive, multiplied, added)
    return image


def degraded(plan: ConsistencyPlan, image: Float32) -> Float32:
    """The image (C, H, W) of the planned window as MS would have seen it: (C, h, w) of `plan.*.ms`."""
    return apply_weights(plan.rows.down, plan.cols.down, image)


def interpolated(plan: ConsistencyPlan, low: Float32) -> Float32:
    """An image (C, h, w) of `plan.*.ms` brought to the planned window (C, H, W)."""
    return apply_weights(plan.rows.up, plan.cols.up, low)


def drift(low: Float32, ms: Float32, trusted: NDArray[np.bool_]) -> Float32:
    """How far a degraded image is from MS, relative to MS: (h, w), the worst band counts.

    low, ms, trusted: (C, h, w), normalised; bands that are not trusted do not count. Where MS is darker than 5 % of
    the scale, noise and rounding would make any difference a large one; it counts as 5 % there. More than
    DRIFT_TOLERANCE is drift.
    """
    relative = np.abs(low - ms) / np.maximum(np.abs(ms), DRIFT_FLOOR)
    worst: Float32 = np.where(trusted, relative, np.float32(0)).max(axis=0)
    return worst


def consistency_reach(ratio: float, steps: int, gain: float = DEFAULT_MS_GAIN) -> int:
    """How far away, in PAN pixels, a pixel can change another one through `steps` back-projections."""
    return math.ceil(steps * ((CUBIC_SUPPORT + 1) * ratio + degrade_reach(ratio, gain)))


def _plan_axis(axis: AxisMap, start: int, stop: int, gain: float) -> ConsistencyAxis:
    window = axis.crop_dst(start, stop)
    first, last = overlap(window.inverse())
    inner = AxisMap(window.scale, window.offset - first, stop - start, last - first)
    if last == first:
        return ConsistencyAxis((0, 0), np.zeros((0, stop - start)), np.zeros((stop - start, 0)))
    down = degrade_weights(inner.inverse(), 0, last - first, gain)
    up = cubic_weights(inner, 0, stop - start)
    return ConsistencyAxis(
        (first, last), _full(down.matrix, down.first, stop - start), _full(up.matrix, up.first, last - first)
    )


def _full(matrix: NDArray[np.float64], first: int, size: int) -> NDArray[np.float64]:
    """Weights on a part of the source as weights on all of it."""
    full = np.zeros((matrix.shape[0], size))
    full[:, first : first + matrix.shape[1]] = matrix
    return full
