"""Whole rasters as arrays and back, for training and evaluation."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from pancrafter_cli.raster.inputs import Nodata, open_raster, tell_nodata


def read_array(path: Path, nodata: Nodata | None = None) -> NDArray[np.float32]:
    """All bands of a raster but alpha, (C, H, W) in DN, NaN where invalid; `nodata` as of `SceneOptions`.

    Raises RasterError when it cannot be read.
    """
    with closing(open_raster(path)) as file:
        tell_nodata(file, nodata)
        image, valid = file.read(0, 0, *file.grid.shape)
    return np.where(valid, image, np.float32(np.nan))


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
