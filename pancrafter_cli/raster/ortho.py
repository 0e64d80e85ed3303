"""PAN and MS that only RPCs place, seen on grids of the ground: orthorectification while reading."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from pyproj import CRS
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info

from pancrafter_cli.errors import GeometryError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.geometry.rpc import RpcModel
from pancrafter_cli.raster.crs import FloatArray, apply_affine, crs_name, point_map
from pancrafter_cli.raster.dem import Dem
from pancrafter_cli.raster.paths import public_name

_CELL = 32.0  # pixels between the points at which RPCs are computed; bilinear between them is good to 0.01
_ITERATIONS = 12  # of the way of sight through the terrain
_EDGE_POINTS = 65
_PROBES = 64  # points an axis in which voids of the DEM are looked for
_MOST_GROWTH = 16  # pixels of the grid over those of the image: any turn needs 2
_NEARLY_WHOLE = 0.02  # of the ratio
_DIGITS = 3  # of PAN's pixel size
_WGS84 = CRS.from_epsg(4326).to_wkt()


@dataclass(frozen=True)
class Ground:
    """The heights (metres above the ellipsoid) that images are projected to: of `dem`, else one for all."""

    height: float
    dem: Dem | None = None


@dataclass(frozen=True)
class SensorImage:
    """An image as its sensor saw it: its RPCs and size in pixels."""

    rpc: RpcModel
    width: int
    height: int


class OrthoMap:
    """The way from pixels of a grid on the ground to pixel coordinates (x, y) of an image."""

    def __init__(self, grid: Grid, rpc: RpcModel, ground: Ground) -> None:
        self._transform, self._rpc, self._ground = grid.transform, rpc, ground
        self._to_degrees = point_map(grid.crs_wkt, _WGS84)

    def __call__(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Map a window of pixel coordinates x, y (M, N), as `meshgrid` gives them; not finite where no height is known.

        Raises RasterError when the DEM cannot be read.
        """
        (cols, across), (rows, down) = _nodes(x[0]), _nodes(y[:, 0])
        lon, lat = self._to_degrees(*apply_affine(self._transform, *np.meshgrid(cols, rows)))

        def spread(nodes: FloatArray) -> FloatArray:
            return np.asarray(down @ nodes @ across.T)

        dem = self._ground.dem
        if dem is None:
            col, row = self._rpc.to_image(lon, lat, self._ground.height)
            return spread(col), spread(row)
        at_x, at_y = dem.locate(lon, lat)
        heights = dem.heights(spread(at_x), spread(at_y))
        known = np.isfinite(heights)
        if not known.any():
            return heights, heights.copy()
        # Over the heights of a window, an image coordinate is a parabola.
        low, high = float(heights[known].min()), max(float(heights[known].max()), float(heights[known].min()) + 1)
        levels = low, (low + high) / 2, high
        images = [self._rpc.to_image(lon, lat, level) for level in levels]
        f = (heights - low) / (high - low)
        weights = np.stack([2 * (f - 0.5) * (f - 1), 4 * f * (1 - f), 2 * f * (f - 0.5)])
        col, row = ((weights * np.stack([spread(image[axis]) for image in images])).sum(axis=0) for axis in (0, 1))
        return col, row


def ortho_grids(pan: SensorImage, ms: SensorImage, ground: Ground) -> tuple[Grid, Grid]:
    """Make the grids of PAN and MS on the ground: UTM, square pixels of their own ground sample distance, parallel.

    PAN's pixel is rounded to three digits; a ratio within 2 % of a whole number is taken for it, so that pixel edges
    of both fall together. Raises GeometryError when RPCs are damaged or the DEM does not cover PAN.
    """
    outlines = [_outline(image, ground) for image in (pan, ms)]
    _check_covered(outlines[0], ground)
    centre = np.array([pan.width / 2]), np.array([pan.height / 2])
    lon, lat = pan.rpc.to_ground(*centre, ground.height)
    crs = _local_crs(float(lon[0]), float(lat[0]))
    to_map = point_map(_WGS84, crs)
    fine, coarse = (_sample_distance(to_map(*_step_ends(image, ground.height))) for image in (pan, ms))
    if not (math.isfinite(fine) and math.isfinite(coarse)) or min(fine, coarse) <= 0:
        raise GeometryError("the RPCs give pixels without size on the ground", "give files that are orthorectified")
    pixel = float(f"{fine:.{_DIGITS}g}")
    ratio = coarse / fine
    if abs(ratio - round(ratio)) < _NEARLY_WHOLE * ratio:
        ratio = float(round(ratio))
    pan_grid, ms_grid = (
        _grid_over(to_map(*outline), size, pixel * max(ratio, 1.0), crs)
        for outline, size in zip(outlines, (pixel, pixel * ratio), strict=True)
    )
    for image, grid in ((pan, pan_grid), (ms, ms_grid)):
        if grid.width * grid.height > _MOST_GROWTH * image.width * image.height:
            raise GeometryError(
                f"the RPCs spread an image of {image.width} x {image.height} pixels over {grid.width} x {grid.height}",
                "they are damaged, or of another image; give files that are orthorectified",
            )
    return pan_grid, ms_grid


def _unknown_share(grid: Grid, dem: Dem) -> float:
    """Share of a grid's points whose height the DEM does not tell. Raises RasterError when it cannot be read."""
    x, y = np.meshgrid(np.linspace(0, grid.width, _PROBES), np.linspace(0, grid.height, _PROBES))
    lon, lat = point_map(grid.crs_wkt, _WGS84)(*apply_affine(grid.transform, x, y))
    return float(np.isnan(dem.heights(*dem.locate(lon, lat))).mean())


def ortho_notices(grid: Grid, ground: Ground) -> tuple[str, ...]:
    """What people should know of how images were put on a grid. Raises GeometryError for a DEM that is void there."""
    pixel = grid.pixel_size[0]
    where = f"PAN and MS are orthorectified by their RPCs onto {crs_name(grid.crs_wkt)}, PAN pixels of {pixel:g} m"
    dem = ground.dem
    if dem is None:
        return (f"{where}, at the height of {ground.height:g} m that the RPCs name; --dem takes relief into account",)
    name = public_name(dem.file.path)
    notices = [f"{where}, with the heights of {name}"]
    missing = _unknown_share(grid, dem)
    if missing == 1:
        raise GeometryError(f"{dem.file.path}: the DEM has no heights where PAN lies", "give a DEM of this place")
    if missing:
        notices.append(f"{name} has no heights in {missing:.1%} of PAN's extent: no pixels there")
    if dem.datum is not None:
        notices.append(f"{name} counts heights by {dem.datum}; they are taken to be above the ellipsoid")
    return tuple(notices)


def _outline(image: SensorImage, ground: Ground) -> tuple[FloatArray, FloatArray]:
    """Longitudes and latitudes of points along the edges of an image, at the height of the ground there."""
    t = np.linspace(0, 1, _EDGE_POINTS)
    x = np.concatenate([t, t, 0 * t, 0 * t + 1]) * image.width
    y = np.concatenate([0 * t, 0 * t + 1, t, t]) * image.height
    lon, lat = image.rpc.to_ground(x, y, ground.height)
    for _ in range(_ITERATIONS if ground.dem is not None else 0):
        assert ground.dem is not None
        heights = ground.dem.heights(*ground.dem.locate(lon, lat))
        lon, lat = image.rpc.to_ground(x, y, np.where(np.isfinite(heights), heights, ground.height))
    return lon, lat


def _check_covered(outline: tuple[FloatArray, FloatArray], ground: Ground) -> None:
    """Raise GeometryError when the DEM does not reach all edges of an image."""
    if ground.dem is None or ground.dem.covers(*ground.dem.locate(*outline)):
        return
    (west, east), (south, north) = ((float(v.min()), float(v.max())) for v in outline)
    raise GeometryError(
        f"{ground.dem.file.path}: the DEM does not cover PAN, which lies at longitude {west:.5f} to {east:.5f}, "
        f"latitude {south:.5f} to {north:.5f}",
        "give a DEM of all of the scene, or none: the mean height that the RPCs name is then taken",
    )


def _step_ends(image: SensorImage, height: float) -> tuple[FloatArray, FloatArray]:
    """Longitudes and latitudes of the ends of a step of one pixel right and one down, in the middle of an image."""
    x, y = image.width / 2 + np.array([-0.5, 0.5, 0, 0]), image.height / 2 + np.array([0, 0, -0.5, 0.5])
    return image.rpc.to_ground(x, y, height)


def _sample_distance(ends: tuple[FloatArray, FloatArray]) -> float:
    """Ground sample distance: the geometric mean of what the two steps measure, in metres."""
    x, y = ends
    return float(np.sqrt(np.hypot(x[1] - x[0], y[1] - y[0]) * np.hypot(x[3] - x[2], y[3] - y[2])))


def _grid_over(outline: tuple[FloatArray, FloatArray], pixel: float, step: float, crs: str) -> Grid:
    """Make the north-up grid over an outline in map coordinates, its upper-left corner on a multiple of `step`."""
    x, y = outline
    left, top = math.floor(x.min() / step) * step, math.ceil(y.max() / step) * step
    width, height = math.ceil((x.max() - left) / pixel), math.ceil((top - y.min()) / pixel)
    return Grid(Affine(pixel, 0, left, 0, -pixel, top), width, height, crs)


def _local_crs(lon: float, lat: float) -> str:
    """The UTM zone of a place (WKT); a polar stereographic projection where UTM has none."""
    lon = (lon + 180) % 360 - 180
    found = query_utm_crs_info("WGS 84", AreaOfInterest(lon, lat, lon, lat))
    code = int(found[0].code) if found else (3413 if lat > 0 else 3031)
    return str(CRS.from_epsg(code).to_wkt())


def _nodes(coordinates: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points (n,) around rising coordinates (m,), and weights (m, n) for linear interpolation between them.

    They are multiples of `_CELL`, so that a pixel is the same in whatever window it is read.
    """
    first, last = math.floor(float(coordinates[0]) / _CELL), math.floor(float(coordinates[-1]) / _CELL) + 1
    nodes = np.arange(first, last + 1, dtype=np.float64) * _CELL
    return nodes, np.maximum(0, 1 - np.abs(coordinates[:, None] - nodes) / _CELL)
