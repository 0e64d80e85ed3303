"""Grids and the exact relation between two of them.

Pixels are areas. A continuous pixel coordinate x counts from the outer edge of the raster, so pixel k
covers [k, k + 1] and its centre is k + 0.5. Where one raster lies on another follows from their two
transforms and from nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from pancrafter_cli.errors import GeometryError

# A rotation or shear that moves a pixel by less than this over a whole raster is rounding, not geometry.
SAME_PLACE = 0.01  # pixels: grids nearer than that are one
_SHEAR_TOLERANCE_PIXELS = 0.01


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie: transform (pixel edges to CRS units), shape and CRS."""

    transform: Affine
    width: int
    height: int
    crs_wkt: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Length of a pixel's edge along columns and rows (x, y), in CRS units, both positive."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    def window(self, row: int, col: int, height: int, width: int) -> Grid:
        """The grid of a sub-window; row and col may be negative."""
        return Grid(self.transform @ Affine.translation(col, row), width, height, self.crs_wkt)


@dataclass(frozen=True)
class AxisMap:
    """How one axis of a target grid maps to the same axis of a source grid: src = scale * dst + offset.

    Both coordinates count pixels from the outer edge. `scale` is source pixels per target pixel (0.25
    when MS is the source, PAN the target and the ratio 4; negative when the axes run opposite ways).
    """

    scale: float
    offset: float
    dst_size: int
    src_size: int

    def centres(self, start: int, stop: int) -> NDArray[np.float64]:
        """Source coordinates of the centres of target pixels start..stop-1."""
        middles = np.arange(start, stop, dtype=np.float64) + 0.5
        return np.asarray(self.scale * middles + self.offset, dtype=np.float64)

    def inverse(self) -> AxisMap:
        """The same relation with source and target exchanged."""
        return AxisMap(1.0 / self.scale, -self.offset / self.scale, self.src_size, self.dst_size)

    def crop_dst(self, start: int, stop: int) -> AxisMap:
        """The relation seen from target pixels start..stop-1 only."""
        return AxisMap(self.scale, self.scale * start + self.offset, stop - start, self.src_size)

    def shifted(self, src_pixels: float) -> AxisMap:
        """The relation after the source content is found to lie `src_pixels` further along."""
        return AxisMap(self.scale, self.offset + src_pixels, self.dst_size, self.src_size)


@dataclass(frozen=True)
class GridMap:
    """Axis-aligned relation from a target grid to a source grid, one AxisMap for rows and one for columns."""

    rows: AxisMap
    cols: AxisMap

    @property
    def ratio(self) -> float:
        """Source pixel size over target pixel size, geometric mean of both axes."""
        return 1.0 / math.sqrt(abs(self.rows.scale * self.cols.scale))

    def inverse(self) -> GridMap:
        """The same relation with source and target exchanged."""
        return GridMap(self.rows.inverse(), self.cols.inverse())


def is_axis_aligned(target: Grid, source: Grid) -> bool:
    """Whether rows and columns of both grids are parallel to within a hundredth of a source pixel."""
    m = ~source.transform @ target.transform
    moved = abs(float(m.b)) * target.height + abs(float(m.d)) * target.width
    return moved < _SHEAR_TOLERANCE_PIXELS


def corners_apart(first: Grid, other: Grid) -> float:
    """Greatest distance of the corners of `other` from those of `first`, a grid of the same shape, in its pixels."""
    shift = ~first.transform @ other.transform
    corners = ((0, 0), (first.width, 0), (0, first.height), (first.width, first.height))
    return max(math.hypot(x - col, y - row) for col, row in corners for x, y in [shift @ (col, row)])


def grid_map(target: Grid, source: Grid) -> GridMap:
    """Exact relation of two grids in one CRS whose axes are parallel.

    Raises GeometryError when they are rotated or sheared against each other (such a source is warped first), and
    when numbers cannot hold the relation.
    """
    if not is_axis_aligned(target, source):
        raise GeometryError(
            "the two grids are rotated against each other",
            "warp one of them onto axes parallel to the other first",
        )
    m = ~source.transform @ target.transform
    if not all(math.isfinite(v) for v in m[:6]) or m.a * m.e == 0:
        raise GeometryError(
            "the two grids differ so much in size or place that one cannot be counted in pixels of the other",
            "check the geotransforms of both files (gdalinfo shows them)",
        )
    return GridMap(
        rows=AxisMap(m.e, m.f, target.height, source.height),
        cols=AxisMap(m.a, m.c, target.width, source.width),
    )


def overlap(axis: AxisMap) -> tuple[int, int]:
    """Target pixels [start, stop) whose centres fall inside the source; start == stop when there are none."""
    ends = sorted((-axis.offset / axis.scale, (axis.src_size - axis.offset) / axis.scale))
    # Far ends may be infinite.
    low, high = (min(max(end, -1.0), axis.dst_size + 1.0) for end in ends)
    # Pixel k has its centre at k + 0.5; the epsilon keeps exact edges from flipping with rounding.
    start = max(0, math.ceil(low - 0.5 - 1e-9))
    stop = min(axis.dst_size, math.floor(high - 0.5 + 1e-9) + 1)
    return (start, stop) if stop > start else (0, 0)
