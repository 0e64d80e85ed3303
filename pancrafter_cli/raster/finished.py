"""A finished GeoTIFF: whether all of it is there, whether it is a product, and tags that are added to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError

from pancrafter_cli.errors import OutputError
from pancrafter_cli.raster.env import GDAL_FAILURES, opening
from pancrafter_cli.raster.spec import OutputSpec
from pancrafter_cli.raster.targets import GEOTIFF

VERSION_TAG = "PANCRAFTER_VERSION"  # every product has it, and nothing else


def check_complete(path: Path, spec: OutputSpec) -> None:
    """Check that every tile of image and mask lies within the file: closing one on a full disk says nothing.

    Raises OutputError or RasterioError.
    """
    # The mask is the second directory of the TIFF; opened by itself it tells where its tiles are.
    names = [str(path), f"GTIFF_DIR:2:{path}"] if spec.needs_mask else [str(path)]
    for name in names:
        with opening(), rasterio.open(name) as file:
            if file.shape != spec.grid.shape:
                raise OutputError(f"{path}: was not written as asked")
            _check_tiles(file, path.stat().st_size)


def _check_tiles(file: Any, size: int) -> None:
    """Check that all tiles lie within the first `size` bytes. Raises OutputError."""
    height, width = file.block_shapes[0]
    planes = range(1, file.count + 1) if file.interleaving == Interleaving.band else (1,)
    for band in planes:
        for row in range(-(-file.height // height)):
            for col in range(-(-file.width // width)):
                offset, length = (
                    file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=band) for what in ("OFFSET", "SIZE")
                )
                if offset is None or length is None or int(offset) + int(length) > size:
                    raise OutputError(
                        f"the written file lacks its tile at row {row}, column {col}; the disk may be full",
                        "make room or write to another disk",
                    )


def is_product(path: Path) -> bool:
    """Whether a file is a product of this tool, or its confidence layer, as the tags tell; opens GeoTIFFs alone."""
    if path.suffix.lower() not in GEOTIFF.suffixes or not os.path.isfile(path):  # noqa: PTH113 - never raises
        return False
    with suppress(*GDAL_FAILURES), opening(), rasterio.open(path, driver="GTiff") as file:
        return VERSION_TAG in file.tags()
    return False


def add_tags(path: Path, tags: Mapping[str, str]) -> None:
    """Add tags to a finished GeoTIFF. Raises OutputError."""
    try:
        write_tags(path, tags)
    except (RasterioError, OSError) as error:
        raise OutputError(
            f"{path}: its tags cannot be written: {error.__cause__ or error}",
            "make room on the disk, and check that the file can be written to",
        ) from error


def write_tags(path: Path, tags: Mapping[str, str]) -> None:
    """Add tags to a GeoTIFF, and check that they are there: closing one on a full disk says nothing.

    Raises RasterioError or OSError.
    """
    with opening(), rasterio.open(path, "r+") as file:
        file.update_tags(**tags)
    with opening(), rasterio.open(path) as file:
        if not tags.keys() <= file.tags().keys():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
