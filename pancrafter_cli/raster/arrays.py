"""Whole rasters as arrays, for training and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
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
