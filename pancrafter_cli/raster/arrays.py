"""Whole rasters as arrays and back, for training and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from pancrafter_cli.errors import RasterError


def read_array(path: Path) -> NDArray[np.float32]:
    """All bands of a raster, (C, H, W) in DN, NaN where invalid. Raises RasterError when it cannot be read."""
    try:
        with rasterio.open(path) as file:
            array: NDArray[np.float32] = file.read(out_dtype="float32", masked=True).filled(np.nan)
    except rasterio.errors.RasterioError as error:
        raise RasterError(
            f"{path}: cannot be read as a raster ({error})", "give a GeoTIFF or another raster GDAL reads"
        ) from error
    return array


def write_array(
    path: Path, image: NDArray[np.float32], valid: NDArray[np.bool_], transform: Affine, crs: str, nodata: float
) -> Path:
    """Write an image (C, H, W) in DN as a float32 GeoTIFF, `nodata` where not valid (H, W); returns the path."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(image),
        height=image.shape[1],
        width=image.shape[2],
        dtype="float32",
        nodata=None if valid.all() else nodata,
        crs=crs,
        transform=transform,
    ) as file:
        file.write(np.where(valid, image, np.float32(nodata)))
    return path
