"""Coordinate reference systems compared and transformed by meaning, not by text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from pyproj.transformer import AreaOfInterest, TransformerGroup

from pancrafter_cli.errors import GeometryError

FloatArray = NDArray[np.float64]
_EARTH_RADIUS = 6_371_000.0  # metres, on the mean
_WAYS = 3  # between two datums that are named to people
_WGS84 = CRS.from_epsg(4326).to_wkt()
PointMap = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]


def same_crs(a: str | None, b: str | None) -> bool:
    """Whether two CRS (WKT) mean the same, whatever the order of axes: rasters always have x first."""
    if a is None or b is None or a == b:
        return a == b
    try:
        return bool(CRS.from_wkt(a).equals(CRS.from_wkt(b), ignore_axis_order=True))
    except CRSError:
        return False


def crs_name(wkt: str | None) -> str | None:
    """Short name of a CRS: its EPSG code where it has one, else what it calls itself."""
    if wkt is None:
        return None
    crs = CRS.from_wkt(wkt)
    code = crs.to_epsg()
    return f"EPSG:{code} ({crs.name})" if code else str(crs.name)


def projection_name(wkt: str) -> str:
    """What a CRS calls its projection; empty where it has none."""
    operation = CRS.from_wkt(wkt).coordinate_operation
    return "" if operation is None else str(operation.method_name)


def is_local_crs(wkt: str) -> bool:
    """Whether a CRS is that of a site or a machine, whose place on Earth it does not tell."""
    try:
        return CRS.from_wkt(wkt).is_engineering
    except CRSError:
        return False


def point_map(source: str | None, target: str | None) -> PointMap:
    """Make a function that takes coordinates (x, y) of one CRS (WKT) to another, non-finite where it cannot.

    Raises GeometryError when PROJ knows no way.
    """
    if source is None or target is None or same_crs(source, target):
        return lambda x, y: (x, y)
    transformer = _transformer(source, target)

    def transform(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        out_x, out_y = transformer.transform(x, y)
        return np.asarray(out_x), np.asarray(out_y)

    return transform


def _transformer(source: str, target: str) -> Transformer:
    """PROJ's way between two CRSs (WKT), x first. Raises GeometryError when it knows none."""
    try:
        return Transformer.from_crs(CRS.from_wkt(source), CRS.from_wkt(target), always_xy=True)
    except (CRSError, ProjError) as error:
        local = [wkt for wkt in (source, target) if is_local_crs(wkt)]
        raise GeometryError(
            f"no transformation is known between the CRS of PAN and MS: {error}",
            f"{crs_name(local[0])} lies nowhere on Earth: assign the CRS with gdal_edit.py -a_srs EPSG:... FILE"
            if local
            else "bring MS to the CRS of PAN first, for example with gdalwarp -t_srs",
        ) from error


@dataclass(frozen=True)
class Uncertainty:
    """How far (metres) coordinates may be wrong that PROJ takes from one CRS to another; infinite without a way.

    missing: the grids for better, of each of the ways that PROJ would then choose from.
    """

    metres: float
    missing: tuple[str, ...] = ()


def uncertainty(source: str, target: str, x: float, y: float) -> Uncertainty:
    """Of the way from one CRS (WKT) to another at a point x, y of the source; 0 metres where PROJ does not tell.

    Raises GeometryError when PROJ knows no way.
    """
    first, other = _horizontal(source), _horizontal(target)
    transformer = _transformer(first.to_wkt(), other.to_wkt())
    transformer.transform(x, y)
    try:
        used = transformer.get_last_used_operation()
    except ProjError:  # there was but one to choose from
        used = transformer
    metres = math.inf if "Ballpark" in used.description else used.accuracy
    lon, lat = _transformer(first.to_wkt(), _WGS84).transform(x, y)
    if metres is None or metres <= 0 or not (math.isfinite(lon) and math.isfinite(lat)):
        return Uncertainty(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that grids are missing is what we ask for
        group = TransformerGroup(first, other, always_xy=True, area_of_interest=AreaOfInterest(lon, lat, lon, lat))
    better = [way for way in group.unavailable_operations if 0 <= way.accuracy < metres]
    # Their areas are boxes: the first may be a neighbouring country's.
    ways = (" and ".join(grid.short_name for grid in way.grids if not grid.available) for way in better[:_WAYS])
    return Uncertainty(metres, tuple(dict.fromkeys(ways)))


def metres_per_unit(wkt: str) -> float:
    """Metres in a unit of the axes of a CRS, along a meridian where these are angles."""
    crs = _horizontal(wkt)
    return float(crs.axis_info[0].unit_conversion_factor) * (_EARTH_RADIUS if crs.is_geographic else 1.0)


def _horizontal(wkt: str) -> CRS:
    crs = CRS.from_wkt(wkt)
    return crs.sub_crs_list[0] if crs.is_compound else crs


def apply_affine(transform: Affine, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Apply an affine transform to arrays x, y."""
    t = transform
    with np.errstate(invalid="ignore"):
        return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
