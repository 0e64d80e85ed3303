"""What metrics read of files and scenes: windows (rows, columns), both [start, stop), of the PAN grid, in DN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from pancrafter_cli.errors import MetricError
from pancrafter_cli.geometry.grid import SAME_PLACE, AxisMap, Grid, GridMap, corners_apart
from pancrafter_cli.geometry.inputs import lowpass, plan_inputs
from pancrafter_cli.geometry.resample import AxisWeights, apply_weights, cubic_weights
from pancrafter_cli.metrics.windows import Read
from pancrafter_cli.raster.crs import same_crs
from pancrafter_cli.raster.inputs import RasterFile
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.spec import BandFacts
from pancrafter_cli.raster.windows import read_filled, window_of
from pancrafter_cli.tasks.tile_inputs import Span, read_filled_ms, read_filled_pan

_UNSCALED = 1.0, 0.0  # also what is read where nothing is stated
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


def on_grid(fused: RasterFile, grid: Grid, name: str, remedy: str) -> tuple[Read, Read]:
    """The bands (C, h, w) of a fused file and where all are valid (h, w), counted as `grid`, that of `name`, counts.

    Of a file whose rows or columns run the other way, as where south is up, windows are turned over. Raises MetricError
    when it does not lie on the grid.
    """
    own = fused.grid
    if own.shape != grid.shape:
        raise MetricError(
            f"{fused.path}: {own.height} x {own.width} pixels, but {name} has {grid.height} x {grid.width}", remedy
        )
    if own.crs_wkt and grid.crs_wkt and not same_crs(own.crs_wkt, grid.crs_wkt):
        raise MetricError(f"{fused.path}: its coordinate reference system is not that of {name}", remedy)
    if not fused.placed or grid.transform.almost_equals(Affine.identity()):
        return file_pixels(fused), file_mask(fused)
    relation = ~own.transform @ grid.transform
    over = relation.e < 0, relation.a < 0
    away = corners_apart(grid, _turned_over(own, over))
    if away > SAME_PLACE:
        raise MetricError(f"{fused.path}: lies up to {away:.2f} pixels away from {name}", remedy)
    return _turning(file_pixels(fused), own.shape, over), _turning(file_mask(fused), own.shape, over)


def _turned_over(grid: Grid, over: tuple[bool, bool]) -> Grid:
    """The grid counted from its other end, `over` telling of rows and columns."""
    rows, cols = over
    start = Affine.translation(grid.width if cols else 0, grid.height if rows else 0)
    return replace(grid, transform=grid.transform @ start @ Affine.scale(-1 if cols else 1, -1 if rows else 1))


def _turning(read: Read, shape: tuple[int, int], over: tuple[bool, bool]) -> Read:
    """A reader of a raster (..., H, W) that counts from its other end, `over` telling of rows and columns."""
    if not any(over):
        return read
    axes = tuple(axis for axis, turned in zip((-2, -1), over, strict=True) if turned)

    def turning(*spans: Span) -> NDArray[Any]:
        asked = ((n - b, n - a) if turned else (a, b) for (a, b), n, turned in zip(spans, shape, over, strict=True))
        return np.flip(read(*asked), axes)

    return turning


def check_bands(fused: RasterFile, bands: Sequence[BandFacts], name: str) -> tuple[str, ...]:
    """Raise MetricError when the bands of a fused file are not those of `name`; what makes that doubtful, for people.

    Another number or order is refused, and DN of two scales where both state one. Names that differ, and a scale that
    only one of them states, are told: many tools lose both.
    """
    if fused.bands != len(bands):
        raise MetricError(
            f"{fused.path}: has {fused.bands} bands, but {name} has {len(bands)}",
            "score images with the same bands in the same order",
        )
    return (*_check_names(fused, bands, name), *_check_scales(fused, bands, name))


def _check_names(fused: RasterFile, bands: Sequence[BandFacts], name: str) -> tuple[str, ...]:
    own, theirs = ([(facts.description or "").strip().casefold() for facts in each] for each in (fused.facts, bands))
    if own == theirs or not all(own) or not all(theirs):
        return ()
    first = next(k for k, pair in enumerate(zip(own, theirs, strict=True)) if pair[0] != pair[1])
    said = f"band {first + 1} is called {fused.facts[first].description}, that of {name} {bands[first].description}"
    if sorted(own) == sorted(theirs) and len({*own}) == len(own):
        order = " ".join(f"-b {fused.indexes[own.index(wanted)]}" for wanted in theirs)
        raise MetricError(
            f"{fused.path}: {said}: its bands are in another order",
            f"bring them into the same one with: gdal_translate {order} IN OUT",
        )
    return (f"{said}: bands are compared in their order",)


def _check_scales(fused: RasterFile, bands: Sequence[BandFacts], name: str) -> tuple[str, ...]:
    own, theirs = ([(facts.scale, facts.offset) for facts in each] for each in (fused.facts, bands))
    # What was stored in 32 bits is the same number.
    same = np.isclose(own, theirs, rtol=1e-6, atol=0).all(axis=1)
    if same.all():
        return ()
    first = int(np.argmin(same))
    texts = [f"scale {scale:g} and offset {offset:g}" for scale, offset in (own[first], theirs[first])]
    said = f"band {first + 1} has {texts[0]}, that of {name} {texts[1]}"
    if all(any(stated != _UNSCALED for stated in each) for each in (own, theirs)):
        raise MetricError(
            f"{fused.path}: {said}: the same DN would not mean the same",
            "bring both to one scale (gdal_translate -unscale -ot Float32 IN OUT), or correct what is stated wrongly "
            "(gdal_edit.py -scale S -offset O FILE)",
        )
    return (f"{said}: DN are compared as they are stored",)


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
