"""Tiny synthetic GeoTIFF pairs for the tests."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.tasks.confidence import Judge

UTM = "EPSG:32631"
PAN_TRANSFORM = Affine(0.5, 0, 500_000.0, 0, -0.5, 5_700_000.0)


@dataclass
class FileFacts:
    """What a test file says about itself; transform None means no georeferencing."""

    transform: Affine | None = PAN_TRANSFORM
    crs: Any = UTM
    nodata: float | None = None
    colours: list[str] | None = None
    descriptions: list[str] | None = None
    scales: list[float] | None = None
    offsets: list[float] | None = None
    units: list[str] | None = None
    mask: NDArray[np.bool_] | None = None
    options: dict[str, Any] = field(default_factory=dict)


def write_tif(path: Path, image: NDArray[Any], facts: FileFacts | None = None) -> Path:
    """Write an image (C, h, w) in its own dtype."""
    facts = facts or FileFacts()
    place = {} if facts.transform is None else {"transform": facts.transform, "crs": facts.crs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=image.shape[0],
                height=image.shape[1],
                width=image.shape[2],
                dtype=image.dtype.name,
                nodata=facts.nodata,
                photometric="MINISBLACK",
                **place,
                **facts.options,
            ) as file,
        ):
            if facts.colours:
                file.colorinterp = [ColorInterp[name] for name in facts.colours]
            for name in ("descriptions", "scales", "offsets", "units"):
                if getattr(facts, name):
                    setattr(file, name, getattr(facts, name))
            file.write(image)
            if facts.mask is not None:
                file.write_mask(facts.mask)
    return path


def smooth_image(bands: int, height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Band images (C, h, w) of a few waves each, between 100 and 900 DN."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : 1j * height, 0 : 1 : 1j * width]
    image = np.zeros((bands, height, width))
    for band in image:
        for fy, fx, phase in rng.uniform(0.5, 3, (4, 3)):
            band += np.sin(2 * np.pi * (fy * y + fx * x + phase))
    low, high = image.min(), image.max()
    return 100 + 800 * (image - low) / max(high - low, 1e-9)


def ms_transform(ratio: float, shift: tuple[float, float] = (0.0, 0.0), pan: Affine = PAN_TRANSFORM) -> Affine:
    """Transform of an MS whose upper-left corner lies `shift` (x, y) PAN pixels from that of PAN."""
    return pan @ Affine.translation(*shift) @ Affine.scale(ratio)


@dataclass
class Pair:
    """Paths of a pair and what was written to them, (1, H, W) and (C, h, w)."""

    pan: Path
    ms: Path
    pan_image: NDArray[Any]
    ms_image: NDArray[Any]


def write_pair(
    folder: Path,
    *,
    size: tuple[int, int] = (32, 40),
    ratio: int = 4,
    bands: int = 3,
    dtype: str = "uint16",
    pan: FileFacts | None = None,
    ms: FileFacts | None = None,
) -> Pair:
    """A pair of one place: MS of size / ratio pixels, PAN the mean of bands with more detail."""
    height, width = size
    pan_image = smooth_image(1, height, width, 1).astype(dtype)
    ms_image = smooth_image(bands, height // ratio, width // ratio, 2).astype(dtype)
    pan_path = write_tif(folder / "pan.tif", pan_image, pan)
    ms_path = write_tif(folder / "ms.tif", ms_image, ms or FileFacts(transform=ms_transform(ratio)))
    return Pair(pan_path, ms_path, pan_image, ms_image)


def unjudged(scene: Scene) -> Judge:
    """A judge of tiles whose judgement nobody asks for."""
    return Judge(scene, register(scene, "off")[1], layer=False)
