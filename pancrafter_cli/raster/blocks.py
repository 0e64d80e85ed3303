"""The pieces of a product's GeoTIFF, made by GDAL in memory: its head without pixels, and compressed blocks.

GDAL itself never writes the large file. What it would write at times of its own choosing, and without a word where the
disk is full, is appended by SceneWriter in a known order; so a file can also be gone on with where a run was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Compression
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pancrafter_cli.errors import GeometryError
from pancrafter_cli.geometry.grid import SAME_PLACE, Grid
from pancrafter_cli.raster.crs import crs_name, is_local_crs, projection_name, same_crs
from pancrafter_cli.raster.env import gdal_env, opening
from pancrafter_cli.raster.spec import OutputSpec
from pancrafter_cli.raster.tiff import tile_tables
from pancrafter_cli.raster.vendor import rpc_metadata
from pancrafter_cli.raster.warp import largest_move

TILE = 256
# With all bands in one tile a strip of rows completes tiles in one go and viewers get three bands at a time.
# With very many bands such tiles outgrow the cache and a single band costs a read of all.
_MOST_BANDS_PER_TILE = 16


def check_crs(grid: Grid) -> None:
    """Raise GeometryError when a GeoTIFF cannot hold the CRS of a grid.

    GDAL would put it into a file beside, which gets lost where a product is renamed or copied.
    """
    if grid.crs_wkt is None or _means(grid, _crs_read_back(grid)):
        return
    raise GeometryError(
        f"a GeoTIFF cannot hold the CRS of PAN: {crs_name(grid.crs_wkt)} ({projection_name(grid.crs_wkt)})",
        "bring PAN to another one first: gdalwarp -t_srs EPSG:... -r cubic PAN OUT; MS is then warped onto it",
    )


def file_head(spec: OutputSpec, tags: Mapping[str, str]) -> bytes:
    """The product's file without its pixels: all that is known of it, and room for where its tiles lie.

    Raises GeometryError as `check_crs` does.
    """
    check_crs(spec.grid)
    with rasterio.MemoryFile() as memory:
        with opening(), memory.open(**_creation(spec, spec.grid.height, spec.grid.width), **_place(spec.grid)) as file:
            _describe(file, spec, tags)
            if spec.needs_mask:  # a directory of its own; an empty corner is not stored
                file.write_mask(np.zeros((1, 1), dtype=bool), window=Window(0, 0, 1, 1))
        return bytes(memory.getbuffer())


def compressed(spec: OutputSpec, stored: NDArray[Any], mask: NDArray[np.bool_] | None) -> list[list[bytes]]:
    """Pixels (C, h, w) in the product's dtype, and their mask (h, w), as the file's tiles: for each image, its tiles.

    Rows of tiles follow each other, planes of separate bands too. Safe in any thread.
    """
    height, width = stored.shape[-2:]
    # Somewhere on Earth, or rasterio warns that it lies nowhere.
    options = _creation(spec, height, width) | {"transform": rasterio.Affine.scale(2.0), "sparse_ok": False}
    with rasterio.MemoryFile() as memory:
        with gdal_env(), memory.open(**options) as file:
            file.write(stored)
            if mask is not None:
                file.write_mask(mask)
        data = memory.getbuffer()
        return [
            [bytes(data[o : o + n]) for o, n in zip(map(int, t.offsets(data)), map(int, t.sizes(data)), strict=True)]
            for t in tile_tables(data)
        ]


def _creation(spec: OutputSpec, height: int, width: int) -> dict[str, Any]:
    """GDAL's creation options."""
    return {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": len(spec.bands),
        "dtype": spec.dtype,
        "nodata": spec.nodata,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "interleave": "band" if len(spec.bands) > _MOST_BANDS_PER_TILE else "pixel",
        "compress": _compression(),
        "predictor": 3 if spec.dtype.startswith("float") else 2,
        "bigtiff": "IF_SAFER",
        "sparse_ok": True,
        # Left alone, GDAL calls four 8-bit bands red, green, blue and alpha. Where the first three are said to
        # be red, green and blue it makes the file RGB by itself; told so here, it would drop what the others are.
        "photometric": "MINISBLACK",
        "alpha": "NO",
    }


def _place(grid: Grid) -> dict[str, Any]:
    return {"crs": CRS.from_wkt(grid.crs_wkt) if grid.crs_wkt else None, "transform": grid.transform}


def _crs_read_back(grid: Grid) -> str | None:
    """The CRS (WKT) of a GeoTIFF with that of the grid, and no file beside it."""
    with rasterio.MemoryFile() as memory:
        with opening(), memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", **_place(grid)):
            pass
        alone = bytes(memory.getbuffer())
    with rasterio.MemoryFile(alone) as memory, opening(), memory.open() as file:
        return file.crs.to_wkt() if file.crs else None


def _means(grid: Grid, found: str | None) -> bool:
    """Whether a CRS (WKT) puts the grid where its own does; the wordings may differ."""
    if found is None or grid.crs_wkt is None:
        return found == grid.crs_wkt
    if same_crs(found, grid.crs_wkt) or (is_local_crs(found) and is_local_crs(grid.crs_wkt)):
        return True
    try:
        return largest_move(grid, replace(grid, crs_wkt=found)) < SAME_PLACE
    except GeometryError:
        return False


@cache
def _compression() -> str:
    """ZSTD where this GDAL was built with it."""
    with gdal_env(), rasterio.MemoryFile() as memory:
        try:
            with memory.open(
                driver="GTiff",
                width=16,
                height=16,
                count=1,
                dtype="uint8",
                compress=Compression.zstd.value,
                transform=rasterio.Affine.scale(2.0),
            ):
                return "ZSTD"
        except (RasterioError, ValueError):
            return "DEFLATE"


def _describe(file: Any, spec: OutputSpec, tags: Mapping[str, str]) -> None:
    """What the spec and the tags say into the open file."""
    bands = spec.bands
    file.colorinterp = [_colour(band.colorinterp) for band in bands]
    file.descriptions = [band.description or "" for band in bands]
    if any((band.scale, band.offset) != (1.0, 0.0) for band in bands):
        file.scales = [band.scale for band in bands]
        file.offsets = [band.offset for band in bands]
    if any(band.unit for band in bands):
        file.units = [band.unit or "" for band in bands]
    for band, own in enumerate((spec.tags, *(facts.tags for facts in bands))):  # band 0 is the file itself
        for domain in dict.fromkeys(name for name, _, _ in own):
            file.update_tags(band, domain or None, **{key: value for name, key, value in own if name == domain})
    if spec.rpc is not None:
        file.rpcs = rpc_metadata(spec.rpc)
    if spec.gcps is not None:
        points = [GroundControlPoint(*point) for point in spec.gcps.points]
        file.gcps = points, CRS.from_wkt(spec.gcps.crs_wkt) if spec.gcps.crs_wkt else None
    if tags:
        file.update_tags(**tags)


def _colour(name: str) -> ColorInterp:
    """Look up a colour interpretation by name; never alpha."""
    colour = ColorInterp[name]
    return ColorInterp.undefined if colour == ColorInterp.alpha else colour
