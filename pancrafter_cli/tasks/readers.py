"""What metrics read of files and scenes: windows (rows, columns), both [start, stop), of the PAN grid, in DN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import MetricError
from pancrafter_cli.geometry.grid import SAME_PLACE, AxisMap, Grid, GridMap, corners_apart
from pancrafter_cli.geometry.inputs import lowpass, plan_inputs
from pancrafter_cli.geometry.resample import AxisWeights, apply_weights, cubic_weights
from pancrafter_cli.metrics.windows import Read
from pancrafter_cli.raster.crs import same_crs
from pancrafter_cli.raster.inputs import RasterFile
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.windows import read_filled, window_of
from pancrafter_cli.tasks.tile_inputs import Span, read_filled_ms, read_filled_pan

_BLOCK = 2048  # a block mean reads about so many pixels a side at once


def file_pixels(file: RasterFile) -> Read:
    """The spectral bands (C, h, w) of a file."""
    return lambda rows, cols: file.read(*window_of(rows, cols))[0]


def file_mask(*files: RasterFile) -> Read:
    """Where all bands of all files are valid, (h, w)."""

    def read(rows: Span, cols: Span) -> NDArray[np.bool_]:
        masks = [file.read(*window_of(rows, cols))[1].all(axis=0) for file in files]
        return np.asarray(np.logical_and.reduce(masks))

    return read


def degraded(file: RasterFile, ratio: float, gains: Sequence[float], means: NDArray[np.floating]) -> Read:
    """A file's bands (C, h, w) degraded to pixels `ratio` times as large and brought back: plain interpolation.

    gains (C,): MTF at the coarse Nyquist frequency; means (C,): DN in place of pixels far from any valid one.
    """
    axes = [AxisMap(1 / ratio, 0.0, n, math.ceil(n / ratio)) for n in file.grid.shape]
    relation = GridMap(*axes)

    def read(rows: Span, cols: Span) -> NDArray[np.float32]:
        plans = {gain: plan_inputs(relation, rows, cols, gain) for gain in gains}
        widest = plans[min(plans)]
        y, x = widest.rows.pan, widest.cols.pan
        image, _ = read_filled(file.read, y, x, file.grid.shape, means)
        bands = []
        for band, gain in zip(image, gains, strict=True):
            (y0, y1), (x0, x1) = plans[gain].rows.pan, plans[gain].cols.pan
            bands.append(lowpass(plans[gain], band[None, y0 - y[0] : y1 - y[0], x0 - x[0] : x1 - x[0]])[0])
        return np.stack(bands)

    return read


def scene_lms(scene: Scene) -> Read:
    """MS brought to the PAN grid (C, h, w)."""

    def read(rows: Span, cols: Span) -> NDArray[np.float32]:
        up = cubic_weights(scene.ms_map.rows, *rows), cubic_weights(scene.ms_map.cols, *cols)
        ms, _ = read_filled_ms(scene, *_spans(up))
        return apply_weights(up[0].matrix, up[1].matrix, ms)

    return read


def scene_pan(scene: Scene) -> Read:
    """PAN (1, h, w)."""
    return lambda rows, cols: scene.read_pan(*window_of(rows, cols))[0]


def scene_pan_low(scene: Scene) -> Read:
    """PAN brought to the MS grid (antialiased cubic) and back as MS is, (1, h, w): what D_S compares lms with."""
    inverse = scene.ms_map.inverse()

    def read(rows: Span, cols: Span) -> NDArray[np.float32]:
        up = cubic_weights(scene.ms_map.rows, *rows), cubic_weights(scene.ms_map.cols, *cols)
        down = tuple(
            cubic_weights(axis, weights.first, weights.stop)
            for axis, weights in zip((inverse.rows, inverse.cols), up, strict=True)
        )
        pan, _ = read_filled_pan(scene, *_spans(down))
        low = apply_weights(down[0].matrix, down[1].matrix, pan)
        return apply_weights(up[0].matrix, up[1].matrix, low)

    return read


def scene_mask(scene: Scene) -> Read:
    """Where PAN and all bands of MS are valid, (h, w)."""
    return lambda rows, cols: np.asarray(scene.valid(*window_of(rows, cols)).all(axis=0))


def both(*masks: Read) -> Read:
    """Where all masks are true, (h, w)."""
    return lambda rows, cols: np.logical_and.reduce([mask(rows, cols) for mask in masks])


def check_same_grid(fused: RasterFile, grid: Grid, name: str, remedy: str) -> None:
    """Raise MetricError when a fused file does not lie on `grid`, that of `name`."""
    own = fused.grid
    if own.shape != grid.shape:
        raise MetricError(
            f"{fused.path}: {own.height} x {own.width} pixels, but {name} has {grid.height} x {grid.width}", remedy
        )
    if own.crs_wkt and grid.crs_wkt and not same_crs(own.crs_wkt, grid.crs_wkt):
        raise MetricError(f"{fused.path}: its coordinate reference system is not that of {name}", remedy)
    away = corners_apart(grid, own)
    if own.crs_wkt and away > SAME_PLACE:
        raise MetricError(f"{fused.path}: lies up to {away:.2f} pixels away from {name}", remedy)


def block_means(read: Read, mask: Read, shape: tuple[int, int], step: int) -> NDArray[np.float32]:
    """Means (C, ceil(h / step), ceil(w / step)) of the valid pixels in blocks of step x step; NaN where there are none.

    Reads a raster of any size a window at a time.
    """
    size = max(step, _BLOCK // step * step)
    out: list[NDArray[np.float32]] = []
    for top in range(0, shape[0], size):
        rows = top, min(top + size, shape[0])
        line = []
        for left in range(0, shape[1], size):
            cols = left, min(left + size, shape[1])
            line.append(_means(np.asarray(read(rows, cols), np.float64), mask(rows, cols), step))
        out.append(np.concatenate(line, axis=2))
    return np.concatenate(out, axis=1)


def _means(image: NDArray[np.float64], valid: NDArray[np.bool_], step: int) -> NDArray[np.float32]:
    starts = [np.arange(0, size, step) for size in valid.shape]

    def totals(values: NDArray[np.float64]) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = np.add.reduceat(np.add.reduceat(values, starts[0], axis=-2), starts[1], axis=-1)
        return summed

    count = totals(valid.astype(np.float64))
    sums = totals(np.where(valid, image, 0.0))
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan).astype(np.float32)


def _spans(weights: tuple[AxisWeights, ...]) -> tuple[Span, Span]:
    return (weights[0].first, weights[0].stop), (weights[1].first, weights[1].stop)
