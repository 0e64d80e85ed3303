"""What vendors write in their own metadata and GDAL does not pass on: names of bands, nodata, ways to orthorectify."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from affine import Affine
from rasterio.rpc import RPC

from pancrafter_cli.geometry.rpc import COEFFICIENTS, Normalised, RpcModel
from pancrafter_cli.raster.spec import ControlPoints

_IMD_BANDS = {
    "C": "coastal",
    "B": "blue",
    "G": "green",
    "Y": "yellow",
    "R": "red",
    "RE": "red edge",
    "N": "nir",
    "N2": "nir 2",
}
_DIMAP_BANDS = {
    "B0": "blue",
    "B1": "green",
    "B2": "red",
    "B3": "nir",
    "DB": "deep blue",
    "B": "blue",
    "G": "green",
    "R": "red",
    "RE": "red edge",
    "NIR": "nir",
}
_FEWEST_POINTS = 3  # ground control points; one or two fix no scale and rotation of both axes
_TILE = re.compile(r"(.+)_R\d+C\d+(.*)(\.[^.]+)", re.IGNORECASE)  # its groups are the same for all tiles of an image
_DIMAP_CHANNELS = ("RED", "GREEN", "BLUE", "ALPHA")


def band_names(dataset: Any) -> tuple[str, ...]:
    """Names of all bands in their order, from IMD (Maxar) or DIMAP (Airbus) metadata; empty when these do not tell."""
    for ids, names in ((_imd_bands(dataset), _IMD_BANDS), (_dimap_bands(dataset), _DIMAP_BANDS)):
        if len(ids) == dataset.count and all(name in names for name in ids):
            return tuple(names[name] for name in ids)
    return ()


def vendor_nodata(dataset: Any) -> float | None:
    """The DN that DIMAP metadata call NODATA, None when they name none."""
    dimap = _dimap(dataset)
    return None if dimap is None else _special_value(dimap, "NODATA")


def greatest_dn(dataset: Any) -> float | None:
    """The greatest DN the image can hold by its metadata, None when they tell no less than the number format does.

    DIMAP names the DN of saturation or the bits of the product; IMD, TIFF, NITF and JPEG2000 the bits of a pixel.
    """
    dimap = _dimap(dataset)
    saturated = None if dimap is None else _special_value(dimap, "SATURATED")
    if saturated:
        return saturated
    texts = [] if dimap is None else [dimap.findtext(f".//{name}") for name in ("PRODUCT_RANGE", "NBITS")]
    texts += [dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"), dataset.tags(ns="IMD").get("bitsPerPixel")]
    stored = 8 * np.dtype(dataset.dtypes[0]).itemsize
    bits = [int(text) for text in texts if text and text.strip().isdecimal() and 0 < int(text) < stored]
    return float(2 ** bits[0] - 1) if bits else None


def tile_notices(path: Path) -> tuple[str, ...]:
    """That a local file is one of several tiles, by the names of what lies beside it, and which file is the whole."""
    tile = _TILE.fullmatch(path.name)
    if tile is None:
        return ()
    try:
        names = [beside.name for beside in path.parent.iterdir()]
    except OSError:
        return ()
    tiles = [n for n in names if (other := _TILE.fullmatch(n)) and other.groups() == tile.groups()]
    image = f"{tile[1]}{tile[2]}"
    wholes = {f"{image}.til".lower(), f"dim_{re.sub('^img_', '', image.lower())}.xml"}
    whole = next((name for name in sorted(names) if name.lower() in wholes), None)
    if whole is None or len(tiles) == 1:
        return ()
    return (f"{path.name}: is one of {len(tiles)} tiles; the whole image is {whole}",)


def lost_corner(dataset: Any) -> bool:
    """Whether GDAL places a .TIL mosaic at 0, 0 because its .IMD does not hold the corner."""
    return dataset.driver == "TIL" and bool(dataset.crs) and "MAP_PROJECTED_PRODUCT.ULX" not in dataset.tags(ns="IMD")


def rpc_model(dataset: Any) -> RpcModel | None:
    """The RPCs that GDAL finds in a file or beside it; None when there are none, or none that make sense."""
    try:
        rpc = dataset.rpcs
        if rpc is None:
            return None
        parts = [
            Normalised(float(getattr(rpc, f"{name}_off")), float(getattr(rpc, f"{name}_scale")))
            for name in ("line", "samp", "lat", "long", "height")
        ]
        polynomials = [
            tuple(float(c) for c in getattr(rpc, f"{name}_coeff"))
            for name in ("line_num", "line_den", "samp_num", "samp_den")
        ]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None  # numbers that are none
    numbers = [n for part in parts for n in (part.offset, part.scale)] + [c for p in polynomials for c in p]
    sizes = [part.scale for part in parts]
    if not all(map(math.isfinite, numbers)) or 0 in sizes or any(len(p) != COEFFICIENTS for p in polynomials):
        return None
    line, sample, lat, lon, height = parts
    line_num, line_den, sample_num, sample_den = polynomials
    return RpcModel(
        *(line, sample, lat, lon, height, line_num, line_den, sample_num, sample_den),
        bias_error=rpc.err_bias,
        random_error=rpc.err_rand,
    )


def rpc_metadata(model: RpcModel) -> RPC:
    """RPCs as rasterio writes them; the reverse of `rpc_model`."""
    parts = {"line": model.line, "samp": model.sample, "lat": model.lat, "long": model.lon, "height": model.height}
    return RPC(
        **{f"{name}_off": part.offset for name, part in parts.items()},
        **{f"{name}_scale": part.scale for name, part in parts.items()},
        line_num_coeff=list(model.line_num),
        line_den_coeff=list(model.line_den),
        samp_num_coeff=list(model.sample_num),
        samp_den_coeff=list(model.sample_den),
        err_bias=model.bias_error,
        err_rand=model.random_error,
    )


def control_points(dataset: Any) -> ControlPoints | None:
    """The ground control points of a file that has no transform, if they can place it: a GeoTIFF has one of both."""
    if not Affine(*tuple(dataset.transform)[:6]).almost_equals(Affine.identity()):
        return None
    points, crs = dataset.gcps
    if len(points) < _FEWEST_POINTS:
        return None
    return ControlPoints(tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points), crs.to_wkt() if crs else None)


def orthorectify_command(path: Path, dataset: Any, rpc: RpcModel | None) -> str | None:
    """The gdalwarp command for a file whose place is given by its RPCs or ground control points only, else None."""
    if not Affine(*tuple(dataset.transform)[:6]).almost_equals(Affine.identity()):
        return None
    output = f"{path.stem}_ortho.tif"
    if rpc is not None:
        zone = int((rpc.lon.offset + 180) // 6) % 60 + 1
        code = (32600 if rpc.lat.offset >= 0 else 32700) + zone
        return f"gdalwarp -rpc -to RPC_DEM=DEM.tif -t_srs EPSG:{code} -r cubic {path} {output}"
    if len(dataset.gcps[0]) >= _FEWEST_POINTS:
        return f"gdalwarp -tps -r cubic {path} {output}"
    return None


def _special_value(dimap: ElementTree.Element, name: str) -> float | None:
    """The DN to which a DIMAP document gives a special meaning."""
    for special in dimap.iter("Special_Value"):
        count = special.findtext("SPECIAL_VALUE_COUNT") or ""
        if (special.findtext("SPECIAL_VALUE_TEXT") or "").strip().upper() == name and count.strip().isdecimal():
            return float(count)
    return None


def _imd_bands(dataset: Any) -> list[str]:
    """The BAND_x groups of IMD metadata, in their order."""
    groups = [key.split(".")[0] for key in dataset.tags(ns="IMD") if key.startswith("BAND_")]
    return [name.removeprefix("BAND_") for name in dict.fromkeys(groups)]


def _dimap_bands(dataset: Any) -> list[str]:
    """DIMAP's band ids in the order of the file: as listed, else as displayed, which is how they are stored."""
    dimap = _dimap(dataset)
    if dimap is None:
        return []
    listed = {
        (node.findtext("BAND_INDEX") or "").strip(): (node.findtext("BAND_ID") or "").strip()
        for node in dimap.iter("Raster_Index")
    }
    if listed:
        return [listed.get(str(index), "") for index in dataset.indexes]
    shown = next(dimap.iter("Band_Display_Order"), None)
    if shown is None:
        return []
    return [name.strip() for name in (shown.findtext(f"{c}_CHANNEL") for c in _DIMAP_CHANNELS) if name]


def _dimap(dataset: Any) -> ElementTree.Element | None:
    """The DIMAP document of a dataset, None when it has none that can be read."""
    if dataset.driver != "DIMAP":
        return None
    for text in dataset.tags(ns="xml:dimap").values():
        try:
            return ElementTree.fromstring(text)
        except ElementTree.ParseError:
            continue
    return None
