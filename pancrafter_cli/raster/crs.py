"""Coordinate reference systems compared and transformed by meaning, not by text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from pancrafter_cli.errors import GeometryError

FloatArray = NDArray[np.float64]
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
    try:
        transformer = Transformer.from_crs(CRS.from_wkt(source), CRS.from_wkt(target), always_xy=True)
    except (CRSError, ProjError) as error:
        local = [wkt for wkt in (source, target) if is_local_crs(wkt)]
        raise GeometryError(
            f"no transformation is known between the CRS of PAN and MS: {error}",
            f"{crs_name(local[0])} lies nowhere on Earth: assign the CRS with gdal_edit.py -a_srs EPSG:... FILE"
            if local
            else "bring MS to the CRS of PAN first, for example with gdalwarp -t_srs",
        ) from error

    def transform(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        out_x, out_y = transformer.transform(x, y)
        return np.asarray(out_x), np.asarray(out_y)

    return transform


def apply_affine(transform: Affine, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Apply an affine transform to arrays x, y."""
    t = transform
    with np.errstate(invalid="ignore"):
        return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
