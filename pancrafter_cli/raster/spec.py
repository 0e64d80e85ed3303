"""What the written product must carry besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.geometry.rpc import RpcModel

Tags = tuple[tuple[str, str, str], ...]

DTYPES = ("uint8", "uint16", "int16", "float32", "float64")

_SHOWN = ("red", "green", "blue")
_UNTOLD = {"gray", "undefined"}  # what GDAL says of the first band and of others that nothing is known of


@dataclass(frozen=True)
class BandFacts:
    """What a file says about one band; `scale` and `offset` turn DN into `unit`.

    tags: the rest, such as wavelengths, as (domain, name, text); the domain is empty for the default one.
    """

    description: str | None = None
    colorinterp: str = "undefined"
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    tags: Tags = ()


@dataclass(frozen=True)
class ControlPoints:
    """Ground control points as (row, column, x, y, z), in pixels from the outer edges and units of their CRS (WKT)."""

    points: tuple[tuple[float, float, float, float, float], ...]
    crs_wkt: str | None

    def window(self, row: int, col: int) -> ControlPoints:
        """Those of the part of the image that starts at this pixel; some may lie outside."""
        return replace(self, points=tuple((r - row, c - col, x, y, z) for r, c, x, y, z in self.points))


@dataclass(frozen=True)
class OutputSpec:
    """Grid, number format and band facts of the product.

    `nodata` is the value (DN) of invalid pixels, None when there is none; `needs_mask` asks for a mask
    inside the file, because validity cannot be told by a value. tags: what MS says of its acquisition, as of a band.
    rpc, gcps: RPCs and ground control points of the product's own pixels, None where it has none.
    """

    grid: Grid
    dtype: str
    bands: tuple[BandFacts, ...]
    nodata: float | None = None
    needs_mask: bool = False
    tags: Tags = ()
    rpc: RpcModel | None = None
    gcps: ControlPoints | None = None


def with_colours(bands: tuple[BandFacts, ...]) -> tuple[BandFacts, ...]:
    """The bands with red, green and blue shown as what they are named, where the file says nothing of its colours."""
    names = [(band.description or "").strip().lower() for band in bands]
    if any(names.count(colour) != 1 for colour in _SHOWN) or {band.colorinterp for band in bands} - _UNTOLD:
        return bands
    colours = [name if name in _SHOWN else "undefined" for name in names]
    return tuple(replace(band, colorinterp=colour) for band, colour in zip(bands, colours, strict=True))


def as_dtype(value: float, dtype: str) -> float | None:
    """`value` as a pixel of `dtype` would hold it, or None when no pixel can."""
    if np.dtype(dtype).kind == "f":
        if not np.isfinite(value):
            return float(value)
        limits = np.finfo(dtype)
        if abs(value) > float(limits.max) * (1 + 1e-6):
            return None
        # Fill values near the largest float are often written with few digits and would round to infinity.
        return float(np.dtype(dtype).type(np.clip(value, float(limits.min), float(limits.max))))
    info = np.iinfo(dtype)
    return float(value) if np.isfinite(value) and value == int(value) and info.min <= value <= info.max else None
