"""A STAC item (SpatioTemporal Asset Catalog 1.0.0) beside a product, for catalogues to find it by place and time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError

from pancrafter_cli.errors import GeometryError, OutputError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.raster.env import opening
from pancrafter_cli.raster.part import PartFile
from pancrafter_cli.raster.paths import gdal_name
from pancrafter_cli.raster.spec import OutputSpec
from pancrafter_cli.raster.targets import is_there

_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "processing/v1.2.0", "eo/v1.1.0")
)
_GEOTIFF = "image/tiff; application=geotiff"
_EDGE_POINTS = 16  # a straight edge of the grid is a curve in longitude and latitude
_HALF_TURN = 179.999  # degrees of longitude in one step of an outline: it goes through a pole, but for millimetres
_DECIMALS = 9  # of a degree: a tenth of a millimetre
# Metadata that name the time of acquisition, the surest first: GDAL's for vendors' products, then the TIFF's own.
_TIMES = (("IMAGERY", "ACQUISITIONDATETIME"), (None, "ACQUISITIONDATETIME"), (None, "TIFFTAG_DATETIME"))
_TIME = re.compile(r"(\d{4})[-:/](\d\d)[-:/](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.\d*)?(?:([+-])(\d\d):?(\d\d)?)?")
_WAVELENGTH = re.compile(r"\s*\([\d.]+ *[a-zµ]*\)$")
_COMMON_NAMES = {
    "coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir08", "nir09", "swir16", "swir22", "pan"
}  # fmt: skip
Ring = list[list[float]]


def item_path(output: Path) -> Path:
    """Where the item of a product lies."""
    return Path(output).with_suffix(".json")


def check_item(output: Path, grid: Grid | None, *, overwrite: bool) -> None:
    """Raise OutputError when there is an item already, and GeometryError when a product cannot be found on Earth.

    grid: None to look at the file's name only.
    """
    path = item_path(output)
    if is_there(path) and not overwrite:
        raise OutputError(f"{path}: exists already", "use --overwrite to replace it, or another name for the output")
    if is_there(path) and not is_own_item(output):
        raise OutputError(
            f"{path}: is no STAC item of {output.name}, and --stac would replace it", "give the output another name"
        )
    if grid is not None and grid.crs_wkt is None:
        raise GeometryError(
            "a STAC item says where on Earth a product lies, but neither PAN nor MS has a CRS",
            "leave out --stac, or assign one to the inputs: gdal_edit.py -a_srs EPSG:... FILE",
        )
    if grid is not None:
        footprint(grid)


def is_own_item(output: Path) -> bool:
    """Whether the file beside a product is the item that was written of it, or of one it has replaced."""
    try:
        item = json.loads(item_path(output).read_bytes())
        own = _href(output, output)
        # Items of earlier versions name the file as it is, with blanks and all.
        described = item["assets"]["data"]["href"] in (own, unquote(own))
        return described and "pancrafter" in item["properties"]["processing:software"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remove_stale_item(output: Path) -> None:
    """Remove the item of a product that has been replaced by one that has none."""
    if is_own_item(output):
        with suppress(OSError):
            item_path(output).unlink()


def stac_item(
    output: Path,
    spec: OutputSpec,
    *,
    version: str,
    acquired: tuple[datetime, str] | None,
    confidence: Path | None = None,
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The item of a product with a CRS. acquired: when, and which metadata say so; else it is dated to now.

    Raises GeometryError when PROJ cannot tell where the product lies in longitude and latitude.
    """
    grid = spec.grid
    now = datetime.now(UTC)
    when, source = acquired or (now, "time of processing; the inputs do not name that of acquisition")
    geometry, bbox = footprint(grid)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": output.stem,
        "bbox": bbox,
        "geometry": geometry,
        "properties": {
            "datetime": _rfc3339(when),
            "created": _rfc3339(now),
            "pancrafter:datetime_source": source,
            **_projection(grid),
            "processing:software": {"pancrafter": version},
            **(properties or {}),
        },
        "links": [],
        "assets": _assets(output, spec, confidence),
    }


def write_item(output: Path, item: Mapping[str, Any]) -> Path:
    """Write the item of a product; it takes its name once it is complete. Raises OutputError."""
    path = item_path(output)
    try:
        part = PartFile(path, resumable=False)
        try:
            part.append((json.dumps(item, indent=2, allow_nan=False) + "\n").encode())
            part.sync()
            part.path.replace(path)
        finally:
            part.discard()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}", "check the folder and the room on the disk") from error
    return path


def acquisition_time(files: Iterable[Path]) -> tuple[datetime, str] | None:
    """When the first of the files that says so was acquired (UTC), and which metadata say it; None when none does."""
    for path in files:
        try:
            with opening(), rasterio.open(gdal_name(path)) as file:
                for domain, key in _TIMES:
                    when = _time(file.tags(ns=domain).get(key, ""))
                    if when is not None:
                        return when, f"{key} of {path.name}"
        except (RasterioError, OSError, ValueError):
            continue  # files beside a raster, such as its metadata, are none themselves
    return None


def _time(text: str) -> datetime | None:
    """The first time in a text; of UTC unless it says how far from that. Raises ValueError for a 13th month."""
    match = _TIME.search(text)
    if match is None:
        return None
    *parts, sign, hours, minutes = match.groups()
    off = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    return datetime(*map(int, parts), tzinfo=timezone(-off if sign == "-" else off))  # type: ignore[misc,arg-type]


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """(GeoJSON geometry, bbox) of a grid in longitude and latitude; cut in two where it crosses the antimeridian.

    Raises GeometryError when the grid has no transform, or PROJ knows no way.
    """
    if grid.transform.almost_equals(Affine.identity()):
        raise GeometryError("nothing says where on Earth the product lies", "leave out --stac")
    steps = np.linspace(0, 1, _EDGE_POINTS, endpoint=False)
    # Counterclockwise, as GeoJSON wants it, for a grid with north up: down the left, along the bottom, up, and back.
    corners = [(0, 0), (0, grid.height), (grid.width, grid.height), (grid.width, 0)]
    points = [
        (x0 + s * (x1 - x0), y0 + s * (y1 - y0))
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True)
        for s in steps
    ]
    x, y = np.array([grid.transform @ p for p in points]).T
    unknown = GeometryError("PROJ cannot tell the longitude and latitude of the product", "leave out --stac")
    try:
        to_degrees = Transformer.from_crs(CRS.from_wkt(grid.crs_wkt or ""), CRS.from_epsg(4326), always_xy=True)
        lon, lat = (np.asarray(v, np.float64) for v in to_degrees.transform(x, y))
    except ProjError as error:  # a CRS of a site or a machine lies nowhere on Earth
        raise unknown from error
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise unknown
    lon, lat = _past_poles(lon, lat)
    turns = _turns(lon)
    if abs(turns.sum()) > 180:
        return _around_pole(lon, lat)
    lon = lon[0] + np.cumsum([0.0, *turns[:-1]])
    lon -= 360 * math.floor((lon.mean() + 180) / 360)
    lon, lat = lon.round(_DECIMALS), lat.round(_DECIMALS)
    ring = [[float(a), float(b)] for a, b in zip(lon, lat, strict=True)]
    if _area(ring) < 0:
        ring.reverse()
    south, north = float(lat.min()), float(lat.max())
    west, east = float(lon.min()), float(lon.max())
    if west >= -180 and east <= 180:
        return {"type": "Polygon", "coordinates": [_closed(ring)]}, [west, south, east, north]
    seam = 180.0 if east > 180 else -180.0
    parts = [_cut(ring, seam, side) for side in (-1, 1)]
    shifted = [[[_wrapped(a, seam, side), b] for a, b in part] for part, side in zip(parts, (-1, 1), strict=True)]
    # RFC 7946: a box across the antimeridian has its west east of its east.
    box = [west if west >= -180 else west + 360, south, east if east <= 180 else east - 360, north]
    return {"type": "MultiPolygon", "coordinates": [[_closed(part)] for part in shifted]}, box


def _past_poles(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An outline with each point at a pole, of no longitude, made two: where it comes from and where it goes on."""
    pole = np.abs(lat) > 90 - 10.0**-_DECIMALS
    alone = pole & ~np.roll(pole, 1) & ~np.roll(pole, -1)  # the edge of a grid in degrees may run along it
    coming, going = np.where(alone, np.roll(lon, 1), lon), np.roll(lon, -1)[alone]
    after = np.flatnonzero(alone) + 1
    return np.insert(coming, after, going), np.insert(lat, after, lat[alone])


def _turns(lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees from each point of an outline to the next, the shorter way; together 360 where a pole lies inside."""
    turns = np.diff([*lon, lon[0]])
    turns -= 360 * np.round(turns / 360)
    half = int(np.abs(turns).argmax())
    # Where a pole lies on the outline both ways are as short, and it is not inside.
    if abs(turns.sum()) > 180 and abs(turns[half]) > _HALF_TURN:
        turns[half] -= math.copysign(360, turns[half])
    return turns


def _around_pole(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[dict[str, Any], list[float]]:
    """Geometry and bbox of an outline that a pole lies in: from edge to edge of the map, and closed over the pole."""
    pole = math.copysign(90.0, float(lat.mean()))
    lon = (lon + 180) % 360 - 180
    seam = float(np.interp(180, lon, lat, period=360))
    order = np.argsort(lon)
    outline = [(-180.0, seam), *zip(lon[order], lat[order], strict=True), (180.0, seam), (180.0, pole), (-180.0, pole)]
    ring = [[round(float(a), _DECIMALS), round(float(b), _DECIMALS)] for a, b in outline]
    if _area(ring) < 0:
        ring.reverse()
    lats = [b for _, b in ring]
    return {"type": "Polygon", "coordinates": [_closed(ring)]}, [-180.0, min(lats), 180.0, max(lats)]


def _projection(grid: Grid) -> dict[str, Any]:
    crs = CRS.from_wkt(grid.crs_wkt or "")
    authority = crs.to_authority()
    t = grid.transform
    named = {"proj:code": ":".join(authority) if authority else None}
    if authority is None:
        named["proj:wkt2"] = crs.to_wkt("WKT2_2019")
    return {**named, "proj:shape": list(grid.shape), "proj:transform": [t.a, t.b, t.c, t.d, t.e, t.f]}


def _assets(output: Path, spec: OutputSpec, confidence: Path | None) -> dict[str, Any]:
    bands = [_band(k, facts.description) for k, facts in enumerate(spec.bands, 1)]
    assets: dict[str, Any] = {
        "data": {
            "href": _href(output, output),
            "type": _GEOTIFF,
            "title": "Sharpened image",
            "roles": ["data"],
            "eo:bands": bands,
        }
    }
    if confidence is not None:
        assets["confidence"] = {
            "href": _href(confidence, output),
            "type": _GEOTIFF,
            "title": "Confidence of each pixel, 0 to 1",
            "roles": ["metadata"],
        }
    return assets


def _band(number: int, description: str | None) -> dict[str, str]:
    # ENVI headers append the wavelength: "blue (480 Nanometers)".
    plain = _WAVELENGTH.sub("", (description or "").lower())
    common = re.sub(r"[\s_-]", "", plain)
    return {"name": description or f"band {number}"} | ({"common_name": common} if common in _COMMON_NAMES else {})


def _href(path: Path, output: Path) -> str:
    """The URL of an asset as seen from the item, which lies beside the product."""
    target, folder = path.resolve(), item_path(output).parent.resolve()
    return f"./{quote(target.relative_to(folder).as_posix())}" if target.is_relative_to(folder) else target.as_uri()


def _rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _closed(ring: Ring) -> Ring:
    return [*ring, ring[0]]


def _area(ring: Ring) -> float:
    """Twice the signed area; positive counterclockwise."""
    x, y = np.array(ring).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _cut(ring: Sequence[Sequence[float]], seam: float, side: int) -> Ring:
    """The part of a ring east (side 1) or west (-1) of a meridian (Sutherland and Hodgman 1974)."""
    part: Ring = []
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if side * (x0 - seam) >= 0:
            part.append([x0, y0])
        if (x0 - seam) * (x1 - seam) < 0:
            part.append([seam, y0 + (y1 - y0) * (seam - x0) / (x1 - x0)])
    return part


def _wrapped(lon: float, seam: float, side: int) -> float:
    """A longitude beyond the antimeridian as its neighbours there count it."""
    beyond = side == math.copysign(1, seam)
    return lon - math.copysign(360, seam) if beyond else lon
