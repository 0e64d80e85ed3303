"""Heights of the ground: from a digital elevation model (DEM)."""

from __future__ import annotations

import numpy as np
from affine import Affine
from pyproj import CRS
from scipy import ndimage

from pancrafter_cli.errors import GeometryError, RasterError
from pancrafter_cli.raster.crs import FloatArray, apply_affine, point_map
from pancrafter_cli.raster.inputs import RasterFile
from pancrafter_cli.raster.turns import nearest_turn

_MOST_PIXELS = 4 << 20  # of the DEM read at a time


class Dem:
    """A raster of heights in metres above the WGS 84 ellipsoid, as RPCs count them.

    Raises RasterError when the file has more than one band, and GeometryError when it does not say where it lies.
    """

    def __init__(self, file: RasterFile) -> None:
        if file.bands != 1:
            raise RasterError(f"{file.path}: has {file.bands} bands; expected a DEM, which has one", "cut it out")
        if file.grid.crs_wkt is None or file.grid.transform.almost_equals(Affine.identity()):
            raise GeometryError(
                f"{file.path}: the DEM does not say where it lies", "assign its place: gdal_edit.py -a_srs -a_ullr"
            )
        self.file = file
        crs = CRS.from_wkt(file.grid.crs_wkt)
        self.datum = crs.sub_crs_list[1].name if crs.is_compound else None
        self._from_degrees = point_map(CRS.from_epsg(4326).to_wkt(), file.grid.crs_wkt)

    def locate(self, lon: FloatArray, lat: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pixel coordinates (x, y) in the DEM of longitudes and latitudes (degrees)."""
        x, y = self._from_degrees(lon, lat)
        x = nearest_turn(x, self.file.grid)
        return apply_affine(~self.file.grid.transform, x, y)

    def covers(self, x: FloatArray, y: FloatArray) -> bool:
        """Whether all of these pixel coordinates lie in the DEM."""
        with np.errstate(invalid="ignore"):
            return bool(np.all((x >= 0) & (y >= 0) & (x <= self.file.grid.width) & (y <= self.file.grid.height)))

    def heights(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Heights (metres, of the shape of x and y) at pixel coordinates, bilinear; NaN outside and in voids.

        Raises RasterError when the file cannot be read.
        """
        grid = self.file.grid
        with np.errstate(invalid="ignore"):
            inside = (x >= 0) & (y >= 0) & (x <= grid.width) & (y <= grid.height)
        found = np.full(x.shape, np.nan)
        if not inside.any():
            return found
        (left, right), (top, bottom) = _reach(x[inside], grid.width), _reach(y[inside], grid.height)
        if (right - left) * (bottom - top) > _MOST_PIXELS and x.size > 1:
            axis = int(np.argmax(x.shape))
            parts = zip(np.array_split(x, 2, axis), np.array_split(y, 2, axis), strict=True)
            return np.concatenate([self.heights(*part) for part in parts], axis)
        image, valid = self.file.read(top, left, bottom - top, right - left)
        at = np.stack([y[inside] - top - 0.5, x[inside] - left - 0.5])
        weight = ndimage.map_coordinates(valid[0].astype(np.float64), at, order=1, mode="nearest")
        height = ndimage.map_coordinates(image[0].astype(np.float64), at, order=1, mode="nearest")
        found[inside] = np.where(weight > 1e-6, height / np.maximum(weight, 1e-6), np.nan)
        return found


def _reach(coordinates: FloatArray, size: int) -> tuple[int, int]:
    """First and one past the last pixel that bilinear sampling at these coordinates uses."""
    first, last = int(np.floor(coordinates.min() - 0.5)), int(np.floor(coordinates.max() - 0.5)) + 2
    return max(0, first), min(size, last)
