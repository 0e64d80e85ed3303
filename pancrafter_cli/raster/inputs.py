"""Opening one input file: what it must be, which of its bands are spectral, which of its pixels are valid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pancrafter_cli.errors import GeometryError, RasterError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.raster.env import opening, reading
from pancrafter_cli.raster.spec import DTYPES, BandFacts, as_dtype
from pancrafter_cli.raster.windows import spread_windows

Block = tuple[NDArray[np.float32], NDArray[np.bool_]]

_ALPHA_WINDOW = 128
_ALPHA_WINDOWS = 64
# Interpretations that would be wrong or unwritable on a sharpened band.
_NOT_CARRIED = (ColorInterp.alpha, ColorInterp.palette)
_REMEDY = {"int8": "Int16", "uint32": "Float32", "int32": "Float32", "int64": "Float64", "uint64": "Float64"}


class RasterFile:
    """One open raster: its grid, its spectral bands, and reading them with their validity.

    `nodata` holds one value (DN) or None per spectral band, `masked` tells whether a mask or an alpha band
    limits what is valid.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
        self.path = path
        self._dataset = dataset
        self.alpha = _true_alpha(path, dataset)
        self.indexes = [b for b in dataset.indexes if b != self.alpha]
        self.bands = len(self.indexes)
        self.dtype = _common_dtype(path, [dataset.dtypes[b - 1] for b in self.indexes])
        self.grid = _grid(path, dataset)
        self.nodata = tuple(_nodata(dataset, b, self.dtype) for b in self.indexes)
        self._masked_bands = [_has_own_mask(dataset.mask_flag_enums[b - 1]) for b in self.indexes]
        self.masked = self.alpha is not None or any(self._masked_bands)
        self.facts = tuple(_facts(dataset, b) for b in self.indexes)
        self.metadata = _metadata(dataset)
        self.files = [Path(name) for name in dataset.files] or [path]

    @property
    def georeferenced(self) -> bool:
        """Whether the file says where it lies: a CRS, or a transform that is not the identity."""
        return self.grid.crs_wkt is not None or not self.grid.transform.almost_equals(Affine.identity())

    def assume_nodata(self, value: float) -> None:
        """Treat `value` (DN) as nodata of every band from now on."""
        stored = as_dtype(value, self.dtype)
        self.nodata = (stored,) * self.bands

    def read(self, row: int, col: int, height: int, width: int) -> Block:
        """Spectral bands (C, h, w) as float32 DN, 0 where invalid, and which are valid (C, h, w).

        Validity is judged on the numbers as stored. float64 keeps 24 bits of its 53: an offset that is ten
        million times the signal drowns it. Raises RasterError when the file cannot be read.
        """
        window = Window(col, row, width, height)
        with reading(self.path):
            stored = self._dataset.read(self.indexes, window=window)
            valid = self._masks(window, stored.shape)
        for band, nodata in enumerate(self.nodata):
            if nodata is not None:
                valid[band] &= stored[band] != stored.dtype.type(nodata)
        with np.errstate(over="ignore", invalid="ignore"):
            image = stored.astype(np.float32)
        if stored.dtype.kind == "f":
            valid &= np.isfinite(image)
        image[~valid] = 0
        return image, valid

    def _masks(self, window: Window, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Read what mask and alpha bands say, (C, h, w)."""
        valid = np.ones(shape, bool)
        for band, masked in enumerate(self._masked_bands):
            if masked:
                valid[band] &= self._dataset.read_masks(self.indexes[band], window=window) != 0
        if self.alpha is not None:
            valid &= self._dataset.read(self.alpha, window=window) != 0
        return valid

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._dataset.close()


def open_raster(path: Path) -> RasterFile:
    """Open and check one input.

    Raises RasterError when it is missing, no raster, empty, or of a dtype that is not supported, and
    GeometryError when its transform is degenerate.
    """
    if not path.exists() and not str(path).startswith("/vsi"):
        raise RasterError(f"{path}: no such file", "check the name and the folder")
    try:
        with opening():
            dataset = rasterio.open(path)
    except (RasterioError, OSError) as error:
        found = "is empty (0 bytes)" if path.is_file() and path.stat().st_size == 0 else "is not a raster"
        raise RasterError(
            f"{path}: {found}: {error.__cause__ or error}",
            "expected a GeoTIFF or another raster that GDAL reads",
        ) from error
    try:
        with reading(path):
            return RasterFile(path, dataset)
    except BaseException:
        dataset.close()
        raise


def _true_alpha(path: Path, dataset: Any) -> int | None:
    """Index of a band that is labelled alpha and holds nothing but 0 and full opacity.

    Products are known that carry near infrared under that label, because software writes a fourth 8-bit band
    so; such a band holds other values and is spectral.
    """
    labelled = [b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha]
    if not labelled or dataset.count == 1:
        return None
    alpha = int(labelled[-1])
    dtype = dataset.dtypes[alpha - 1]
    opaque = 1.0 if np.dtype(dtype).kind in "fc" else float(np.iinfo(dtype).max)
    for row, col, height, width in spread_windows(dataset.height, dataset.width, _ALPHA_WINDOW, _ALPHA_WINDOWS):
        with reading(path):
            values = dataset.read(alpha, window=Window(col, row, width, height))
        if not np.isin(values, (0, opaque)).all():
            return None
    return alpha


def _common_dtype(path: Path, dtypes: list[str]) -> str:
    """Find the one dtype of all bands. Raises RasterError when they differ or it is not supported."""
    dtype = dtypes[0]
    others = sorted(set(dtypes) - {dtype})
    if others:
        raise RasterError(
            f"{path}: its bands differ in dtype: {dtype} and {', '.join(others)}",
            f"bring them to one with: gdal_translate -ot {_gdal_type(dtype)} IN OUT",
        )
    if dtype.startswith("complex"):
        raise RasterError(f"{path}: holds complex numbers ({dtype})", "sharpening needs a detected (real-valued) image")
    if dtype not in DTYPES:
        raise RasterError(
            f"{path}: dtype {dtype} is not supported; expected one of {', '.join(DTYPES)}",
            f"convert it with: gdal_translate -ot {_gdal_type(dtype)} IN OUT",
        )
    return dtype


def _gdal_type(dtype: str) -> str:
    """GDAL's name of the supported dtype that comes closest."""
    names = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float64": "Float64"}
    return _REMEDY.get(dtype) or names.get(dtype, "Float32")


def _grid(path: Path, dataset: Any) -> Grid:
    """Where the file's pixels lie. Raises GeometryError on a transform that maps to no area."""
    if dataset.width < 1 or dataset.height < 1:
        raise RasterError(f"{path}: has no pixels ({dataset.width} x {dataset.height})")
    transform = Affine(*tuple(dataset.transform)[:6])
    if not all(math.isfinite(v) for v in transform[:6]) or transform.determinant == 0:
        raise GeometryError(
            f"{path}: its geotransform {tuple(transform[:6])} gives pixels without area",
            "assign the right one, for example with gdal_edit.py -a_ullr",
        )
    wkt = dataset.crs.to_wkt() if dataset.crs else None
    return Grid(transform, dataset.width, dataset.height, wkt)


def _nodata(dataset: Any, band: int, dtype: str) -> float | None:
    """Find the band's nodata as its pixels hold it; None when none is declared or no pixel can have it."""
    declared = dataset.nodatavals[band - 1]
    return None if declared is None else as_dtype(declared, dtype)


def _metadata(dataset: Any) -> tuple[str, ...]:
    """All texts in which a product may name its sensor: the values of the file's tags in every domain."""
    skipped = {"DERIVED_SUBDATASETS", "IMAGE_STRUCTURE"}
    domains = [None, *(name for name in dataset.tag_namespaces() if name not in skipped)]
    return tuple(str(value) for domain in domains for value in dataset.tags(ns=domain).values())


def _has_own_mask(flags: list[MaskFlags]) -> bool:
    """Whether validity comes from a mask band (in the file, beside it, or nodata of all bands at once)."""
    if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
        return False
    return MaskFlags.nodata not in flags or MaskFlags.per_dataset in flags


def _facts(dataset: Any, band: int) -> BandFacts:
    """Collect what the file says about one band."""
    colour = dataset.colorinterp[band - 1]
    return BandFacts(
        description=dataset.descriptions[band - 1] or None,
        colorinterp="undefined" if colour in _NOT_CARRIED else colour.name,
        scale=dataset.scales[band - 1],
        offset=dataset.offsets[band - 1],
        unit=dataset.units[band - 1] or None,
    )
