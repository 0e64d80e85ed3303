"""Rasters seen on grids that are not parallel to their own: MS in another CRS or rotated, and images placed by RPCs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from pancrafter_cli.errors import GeometryError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.geometry.resample import cubic_kernel
from pancrafter_cli.raster.crs import FloatArray, PointMap, apply_affine, point_map
from pancrafter_cli.raster.inputs import Block
from pancrafter_cli.raster.stack import Readable
from pancrafter_cli.raster.turns import nearest_turn

_BLOCK = 128  # pixels a side that are computed at a time, fewer where there are many bands
_MOST_VALUES = 1 << 20  # in a block; each needs some 100 bytes while it is computed
_KEPT_VALUES = 12 << 20  # in the blocks that are kept; each needs 5 bytes
_MARGIN = 4  # MS pixels kept around PAN, more than any resampling kernel reaches


class Source(Readable, Protocol):
    """A raster to be warped."""

    bands: int
    grid: Grid


class WarpedRaster:
    """Windows of a raster resampled (cubic) onto a grid that is not parallel to its own.

    `to_source` takes pixel coordinates x, y (M, N) of `grid`, as `meshgrid` gives them, to those of the source.

    This is done here and not by GDAL's warper because the warper takes every band labelled alpha for one and
    widens the valid area by what its kernel reaches. Here a pixel is valid when the source pixel under its
    centre is, each band for itself, and invalid pixels have no weight.
    """

    def __init__(self, source: Source, grid: Grid, to_source: PointMap) -> None:
        self._source = source
        self.grid = grid
        self._to_source = to_source
        self._side = _BLOCK
        while self._side > 16 and source.bands * self._side**2 > _MOST_VALUES:
            self._side //= 2
        self._kept = max(4, _KEPT_VALUES // (source.bands * self._side**2))
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()

    def read(self, row: int, col: int, height: int, width: int) -> Block:
        """Bands (C, h, w) in DN, 0 where invalid, and which are valid (C, h, w)."""
        shape = (self._source.bands, height, width)
        image, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
        side = self._side
        for top in range(row // side * side, row + height, side):
            for left in range(col // side * side, col + width, side):
                block = self._block(top, left)
                (y, rows), (x, cols) = (
                    _shared(row, height, top, block[0].shape[1]),
                    _shared(col, width, left, block[0].shape[2]),
                )
                image[:, y, x], valid[:, y, x] = block[0][:, rows, cols], block[1][:, rows, cols]
        return image, valid

    def _block(self, top: int, left: int) -> Block:
        """The block that starts here; tiles overlap and are read several times, so the last ones are kept."""
        if (top, left) not in self._blocks:
            height, width = min(self._side, self.grid.height - top), min(self._side, self.grid.width - left)
            self._blocks[top, left] = self._read(top, left, height, width)
            while len(self._blocks) > self._kept:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end((top, left))
        return self._blocks[top, left]

    def _read(self, row: int, col: int, height: int, width: int) -> Block:
        """As `read`, computed anew."""
        grid = self._source.grid
        x, y = np.meshgrid(np.arange(col, col + width) + 0.5, np.arange(row, row + height) + 0.5)
        x, y = self._to_source(x, y)
        with np.errstate(invalid="ignore"):
            inside = np.isfinite(x) & np.isfinite(y) & (x >= 0) & (y >= 0) & (x < grid.width) & (y < grid.height)
        shape = (self._source.bands, height, width)
        if not inside.any():
            return np.zeros(shape, np.float32), np.zeros(shape, bool)
        top, bottom = _taps(y[inside], grid.height)
        left, right = _taps(x[inside], grid.width)
        image, valid = self._source.read(top, left, bottom - top, right - left)
        centre_y, centre_x = np.where(inside, y, top + 0.5) - top, np.where(inside, x, left + 0.5) - left
        sampled, known = sample_cubic(image, valid, centre_y, centre_x)
        known &= inside
        sampled[~known] = 0
        return sampled, known


def sample_cubic(image: NDArray[np.float32], valid: NDArray[np.bool_], y: FloatArray, x: FloatArray) -> Block:
    """Image (C, h, w), 0 where invalid, at continuous pixel coordinates y, x (M, N), which must lie inside.

    Cubic where all 16 neighbours are valid, else bilinear over the valid ones of the nearest four (positive
    weights, so that a gap cannot make overshoot). Valid (C, M, N) where the pixel underneath is.
    """
    _, h, w = image.shape
    row, col = np.floor(y - 0.5).astype(int), np.floor(x - 0.5).astype(int)
    dy, dx = y - 0.5 - row, x - 0.5 - col
    across, down = ([cubic_kernel(k - d) for k in range(-1, 3)] for d in (dx, dy))
    rows, cols = ([np.clip(first + k, 0, n - 1) for k in range(-1, 3)] for first, n in ((row, h), (col, w)))
    shape = (image.shape[0], *y.shape)
    sampled = np.zeros(shape)
    for j in range(4):
        for i in range(4):
            sampled += down[j] * across[i] * image[:, rows[j], cols[i]]
    if valid.all():
        return sampled.astype(np.float32), np.ones(shape, bool)
    linear, weight, complete = np.zeros(shape), np.zeros(shape), np.ones(shape, bool)
    for j in range(4):
        for i in range(4):
            known = valid[:, rows[j], cols[i]]
            near = np.maximum(0, 1 - np.abs(j - 1 - dy)) * np.maximum(0, 1 - np.abs(i - 1 - dx))
            linear += near * image[:, rows[j], cols[i]]
            weight += near * known
            complete &= known
    sampled = np.where(complete, sampled, linear / np.where(weight > 0, weight, 1))
    under = np.clip(np.floor(y).astype(int), 0, h - 1), np.clip(np.floor(x).astype(int), 0, w - 1)
    return sampled.astype(np.float32), valid[:, under[0], under[1]]


def parallel_grid(pan: Grid, ms: Grid) -> Grid:
    """Make the grid, parallel to the PAN axes and with MS's pixel size, of the part of MS around PAN.

    Raises GeometryError when MS lies elsewhere or cannot be transformed.
    """
    to_ms, to_pan = pixel_map(pan, ms), pixel_map(ms, pan)
    middle = np.array([pan.width / 2, pan.height / 2])
    px, py = to_ms(middle[0] + np.array([0.5, -0.5, 0, 0]), middle[1] + np.array([0, 0, 0.5, -0.5]))
    jacobian = np.array([[px[0] - px[1], px[2] - px[3]], [py[0] - py[1], py[2] - py[3]]])
    outline = np.stack(to_pan(*_outline(ms)))
    if not np.isfinite(jacobian).all() or abs(np.linalg.det(jacobian)) < 1e-12 or not np.isfinite(outline).any():
        raise GeometryError(
            "PAN and MS lie in places that cannot be transformed into each other",
            "check that both files carry the right CRS (gdalinfo shows it)",
        )
    # Edges of one MS pixel in PAN pixels; for any rotation the pixel keeps its size.
    step_x, step_y = np.hypot(*np.linalg.inv(jacobian).T)
    if not np.isfinite(outline).all():  # part of MS has no place in the CRS of PAN
        outline = np.array([[0.0, pan.width], [0.0, pan.height]])
    left = max(outline[0].min(), -_MARGIN * step_x)
    right = min(outline[0].max(), pan.width + _MARGIN * step_x)
    top = max(outline[1].min(), -_MARGIN * step_y)
    bottom = min(outline[1].max(), pan.height + _MARGIN * step_y)
    if right <= left or bottom <= top:
        raise GeometryError("PAN and MS do not overlap", "check that they show the same place (gdalinfo)")
    transform = pan.transform @ Affine.translation(left, top) @ Affine.scale(step_x, step_y)
    width, height = (max(1, int(np.ceil(n - 1e-6))) for n in ((right - left) / step_x, (bottom - top) / step_y))
    return Grid(transform, width, height, pan.crs_wkt)


def largest_move(pan: Grid, ms: Grid) -> float:
    """How far, in PAN pixels, the corners and edges of MS move when its CRS is taken for that of PAN."""
    x, y = _outline(ms)
    true_x, true_y = pixel_map(ms, pan)(x, y)
    taken_x, taken_y = apply_affine(~pan.transform @ ms.transform, x, y)
    move = np.hypot(true_x - taken_x, true_y - taken_y)
    return float(move.max()) if np.isfinite(move).all() else np.inf


def pixel_map(source: Grid, target: Grid) -> PointMap:
    """Make a function from pixel coordinates (x, y) of one grid to those of another.

    PROJ gives longitudes from -180 to 180 degrees; a grid at the antimeridian counts on.
    """
    between = point_map(source.crs_wkt, target.crs_wkt)

    def transform(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        there_x, there_y = between(*apply_affine(source.transform, x, y))
        return apply_affine(~target.transform, nearest_turn(there_x, target), there_y)

    return transform


def _shared(start: int, size: int, block: int, block_size: int) -> tuple[slice, slice]:
    """Where a window and a block overlap along an axis, as slices of both."""
    first, last = max(start, block), min(start + size, block + block_size)
    return slice(first - start, last - start), slice(first - block, last - block)


def _outline(grid: Grid, points: int = 33) -> tuple[FloatArray, FloatArray]:
    """Pixel coordinates of points along the four edges of a grid."""
    t = np.linspace(0, 1, points)
    x = np.concatenate([t, t, 0 * t, 0 * t + 1]) * grid.width
    y = np.concatenate([0 * t, 0 * t + 1, t, t]) * grid.height
    return x, y


def _taps(coordinates: FloatArray, size: int) -> tuple[int, int]:
    """First and one past last source pixel that cubic sampling at these coordinates uses."""
    first, last = int(np.floor(coordinates.min() - 0.5)) - 1, int(np.floor(coordinates.max() - 0.5)) + 2
    return max(0, first), min(size, last + 1)
