"""PAN displaced against MS from place to place (relief, jitter, moving things): measured, and PAN without it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN
from pancrafter_cli.geometry.fill import FILL_REACH, fill_invalid
from pancrafter_cli.geometry.grid import GridMap
from pancrafter_cli.geometry.inputs import FINE, detail
from pancrafter_cli.geometry.parts import NEAR, part_shifts
from pancrafter_cli.geometry.registration import evenly
from pancrafter_cli.raster.inputs import Block
from pancrafter_cli.raster.measurable import Measurable, pan_under
from pancrafter_cli.raster.windows import Window, all_windows

FloatArray = NDArray[np.float64]

_STEP = 8  # MS pixels from one node to the next
_PART = 2 * _STEP  # MS pixels: side of what is matched
_BLOCK = 16 * _STEP  # MS pixels a side that are matched at a time
_MARGIN = 4  # MS pixels around them on which their detail depends
_LEAST_FIT = 0.09  # of a node that counts: a mean correlation of the bands of 0.3
_SMOOTH = 0.7  # nodes: sigma of the Gaussian over which shifts are averaged, by how well they fit
_AROUND = 4.0  # nodes: sigma of the Gaussian over which neighbours are asked whether they agree
_STRANGE, _NOISE = 3.0, 0.1  # scatters from its neighbours beyond which a shift is wrong; MS pixels they always have
_SMALLEST = 0.05  # MS pixels that neighbours agree on: less is not worth moving PAN for
_MOST_PROBED = 64  # blocks of a large scene that are looked at before all are
_SPLINE_REACH = 12  # PAN pixels beyond which a cubic spline forgets
MOST_BANDS = 8  # that are looked at


@dataclass(frozen=True)
class Displacement:
    """How far MS content lies further down and right than PAN's (rows, cols, 2), in MS pixels.

    The nodes lie `step` MS pixels apart, the first at row and column `first` of the MS grid.
    """

    shifts: FloatArray
    first: tuple[float, float]
    step: int = _STEP

    @property
    def lengths(self) -> tuple[float, float]:
        """Median and greatest length, in MS pixels."""
        found = np.hypot(self.shifts[..., 0], self.shifts[..., 1])
        return float(np.median(found)), float(found.max())

    def at(self, relation: GridMap, rows: tuple[int, int], cols: tuple[int, int]) -> FloatArray:
        """Down and right (2, h, w), in pixels of the grid that `relation` takes to MS, of its window [start, stop)."""
        axes = (relation.rows, *rows), (relation.cols, *cols)
        nodes = [
            np.clip((axis.centres(start, stop) - first) / self.step, 0, count - 1)
            for (axis, start, stop), first, count in zip(axes, self.first, self.shifts.shape, strict=False)
        ]
        where = np.stack(np.meshgrid(*nodes, indexing="ij"))
        found = [ndimage.map_coordinates(self.shifts[..., k], where, order=1) / axes[k][0].scale for k in (0, 1)]
        return np.stack(found)


def measure_displacement(scene: Measurable) -> Displacement | None:
    """Match MS with PAN at nodes all over the scene, up to 2 MS pixels around where its grids put it.

    Nodes where the two have little in common count little, and take the shift of their neighbours. What parts that do
    not overlap agree on is taken to be real, the rest to be chance: where they agree on less than 0.05 MS pixels, PAN
    stays. None where it stays everywhere; of a large scene that is concluded from blocks spread over it. Memory is that
    of a block, and of a few numbers for every 64 MS pixels. Raises RasterError when a file cannot be read.
    """
    top, left, height, width = scene.ms_window_under(0, 0, *scene.grid.shape)
    found = np.zeros((*(max(1, -(-size // _STEP) - 1) for size in (height, width)), 3))
    blocks = list(all_windows(height, width, _BLOCK))
    stride = _stride(len(blocks), -(-width // _BLOCK))
    for some in (blocks[::stride], [block for n, block in enumerate(blocks) if n % stride]):
        for row, col, tall, wide in some:
            block = top + row, left + col, tall + _PART - _STEP, wide + _PART - _STEP
            nodes = part_shifts(*_details(scene, block, (top + height, left + width)), _STEP)
            into = found[row // _STEP :, col // _STEP :][: nodes.shape[0], : nodes.shape[1]]
            into[:] = nodes[: into.shape[0], : into.shape[1]]
        agreed = Displacement(_agreed(found), (top + _PART / 2, left + _PART / 2))
        if agreed.lengths[1] < _SMALLEST:
            return None
    return agreed


def moved_pan(around: Block, inner: tuple[slice, slice], by: FloatArray) -> Block:
    """PAN of a window less its displacement.

    around: PAN (1, H, W) and its validity around the window, which is `inner` in it; by: (2, h, w) of the window, in
    PAN pixels. What is valid stays so where it is; near holes PAN is filled from its neighbours first.
    """
    pan, valid = around
    filled = fill_invalid(pan, valid, np.zeros(1)).astype(np.float64)
    at = np.indices(by.shape[1:]) + np.array([inner[0].start, inner[1].start])[:, None, None] - by
    moved = ndimage.map_coordinates(filled[0], at, order=3, mode="nearest")[None].astype(np.float32)
    own = valid[:, inner[0], inner[1]]
    return np.where(own, moved, np.float32(0)), own


def displacement_reach(ratio: float) -> int:
    """PAN pixels around a window that PAN without its displacement depends on."""
    return math.ceil(NEAR * ratio) + _SPLINE_REACH + FILL_REACH


def _details(scene: Measurable, block: Window, end: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Fine detail of MS (C, h, w) in a block of MS pixels that is cut at `end`, and of PAN NEAR pixels around it."""
    row, col, height, width = block
    bottom, right = min(row + height, end[0]), min(col + width, end[1])
    reach = _MARGIN + NEAR
    y0, x0 = max(0, row - reach), max(0, col - reach)
    window = y0, x0, min(bottom + reach, end[0]) - y0, min(right + reach, end[1]) - x0
    stored, ms_valid = scene.read_ms(*window)
    bands = evenly(scene.bands, MOST_BANDS)
    low, supported = pan_under(scene, window, DEFAULT_MS_GAIN).on_ms(DEFAULT_MS_GAIN)
    use = ms_valid[bands] & supported
    ms = stored[bands].astype(np.float64)
    under = use if (use != use[0]).any() else use[:1]  # the bands mostly need PAN at the same pixels, and it is one
    pan = np.pad(detail(low - low.mean(), under, FINE), ((0, 0), (NEAR, NEAR), (NEAR, NEAR)))
    pan = pan[:, row - y0 : bottom - y0 + 2 * NEAR, col - x0 : right - x0 + 2 * NEAR]
    return pan, detail(ms - ms.mean(), use, FINE)[:, row - y0 : bottom - y0, col - x0 : right - x0]


def _stride(blocks: int, across: int) -> int:
    """From one probed block to the next, of so many in rows of `across`; it does not keep to the same columns."""
    stride = math.ceil(blocks / _MOST_PROBED)
    while math.gcd(stride, across) > 1:
        stride += 1
    return stride


def _agreed(found: FloatArray) -> FloatArray:
    """The shifts (rows, cols, 2) that neighbours agree on, of shifts and fits (rows, cols, 3)."""
    shifts, fit = found[..., :2], found[..., 2]
    fit = np.where((fit >= _LEAST_FIT) & (np.abs(shifts).max(axis=-1) < NEAR), fit, 0.0)
    fit = np.where(_outlying(shifts, fit), 0.0, fit)
    weight = _near(fit, _SMOOTH)
    sums = np.stack([_near(shifts[..., k] * fit, _SMOOTH) for k in (0, 1)], axis=-1)
    known = weight > _LEAST_FIT / 100
    mean = np.where(known[..., None], sums / np.where(known, weight, 1.0)[..., None], 0.0)
    agreed = _common_power(shifts, fit)
    # What is hardly more than chance hardly counts.
    return mean * np.maximum(0.0, 1 - _SMALLEST**2 / np.maximum(agreed, _SMALLEST**2))[..., None]


def _outlying(shifts: FloatArray, fit: FloatArray) -> NDArray[np.bool_]:
    """Which shifts are nothing like their neighbours': the normalised median test (Westerweel and Scarano 2005)."""
    known = np.where((fit > 0)[..., None], shifts, np.nan).astype(np.float32)
    padded = np.pad(known, ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    rows, cols = fit.shape
    around = np.stack([padded[y : y + rows, x : x + cols] for y in range(3) for x in range(3) if (y, x) != (1, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a shift without neighbours is nothing to doubt
        middle = np.nanmedian(around, axis=0)
        scatter = np.nanmedian(np.abs(around - middle), axis=0)
    strange: NDArray[np.bool_] = (np.abs(known - middle) > _STRANGE * (scatter + _NOISE)).any(axis=-1)
    return strange


def _common_power(shifts: FloatArray, fit: FloatArray) -> FloatArray:
    """Mean square (rows, cols), around each node, of what parts side by side have in common of their shifts.

    That is the mean of the products of their shifts, in which errors, being independent, cancel.
    """
    apart = _PART // _STEP  # nodes from one part to the next that shares no pixel with it
    power, weight = np.zeros(fit.shape), np.zeros(fit.shape)
    for one, other in ((np.s_[apart:], np.s_[:-apart]), (np.s_[:, apart:], np.s_[:, :-apart])):
        both = fit[one] * fit[other]
        product = both * (shifts[one] * shifts[other]).sum(axis=-1)
        for node in (one, other):
            power[node] += product
            weight[node] += both
    weight = _near(weight, _AROUND)
    return np.where(weight > 0, _near(power, _AROUND) / np.where(weight > 0, weight, 1.0), 0.0)


def _near(values: FloatArray, sigma: float) -> FloatArray:
    """The Gaussian mean around each node."""
    mean: FloatArray = ndimage.gaussian_filter(values, sigma, mode="constant")
    return mean
