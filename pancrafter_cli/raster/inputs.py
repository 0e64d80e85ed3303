"""Opening one input file: what it must be, which of its bands are spectral, which of its pixels are valid."""

from __future__ import annotations

import math
import os
import re
import shlex
import stat
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from pancrafter_cli.errors import GeometryError, RasterError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.raster.collar import Collar, find_collar
from pancrafter_cli.raster.env import GDAL_FAILURES, opening, reading
from pancrafter_cli.raster.folders import unpacking
from pancrafter_cli.raster.landsat import FILL, FILL_BIT, SURFACE_OFFSET, SURFACE_SCALE, landsat_band, quality_file
from pancrafter_cli.raster.paths import gdal_name, in_archive, is_local
from pancrafter_cli.raster.spec import DTYPES, BandFacts, Tags, as_dtype
from pancrafter_cli.raster.vendor import (
    band_names,
    control_points,
    greatest_dn,
    lost_corner,
    orthorectify_command,
    rpc_model,
    tile_notices,
    vendor_nodata,
)
from pancrafter_cli.raster.windows import spread_windows

SENSOR_TAG = "PANCRAFTER_SENSOR"
Nodata = float | Literal["auto", "declared"]  # a value in DN; undeclared collars too; what the files say alone
Block = tuple[NDArray[np.float32], NDArray[np.bool_]]

_MOST_BANDS = 1024  # more than any imager has; all of a tile's are in memory at a time
_ALPHA_WINDOW = 128
_VRT = ".vrt"
_ACQUISITION = "IMAGERY"  # GDAL's domain for sensor, time and clouds
# What else, in no domain, tells of it or of whose it is.
_OF_ACQUISITION = re.compile(
    r"TIFFTAG_(DATETIME|COPYRIGHT)|.*(ACQUI|SENSOR|SENSING|SATELLITE|SPACECRAFT|PLATFORM|CLOUD|COPYRIGHT|LICEN[CS]E"
    r"|SUN_?(AZIM|ELEV|ZENI)).*",
    re.IGNORECASE,
)
_ALPHA_WINDOWS = 64
_OPAQUE = (1.0, 255.0, 32767.0, 65535.0)  # software writes those of other number formats too
# Interpretations that would be wrong or unwritable on a sharpened band.
_NOT_CARRIED = (ColorInterp.alpha, ColorInterp.palette)
_REMEDY = {"int8": "Int16", "uint32": "Float32", "int32": "Float32", "int64": "Float64", "uint64": "Float64"}


class Tellable(Protocol):
    """A raster that can be told which of its pixels hold no data."""

    def assume_nodata(self, value: float) -> None:
        """Treat a value (DN) as nodata from now on."""

    def detect_collar(self) -> None:
        """Treat an undeclared collar as nodata from now on."""


def tell_nodata(raster: Tellable, nodata: Nodata | None) -> None:
    """Apply what the user says of nodata."""
    if nodata == "auto":
        raster.detect_collar()
    elif nodata is not None and nodata != "declared":
        raster.assume_nodata(nodata)


class RasterFile:
    """One open raster: its grid, its spectral bands, and reading them with their validity.

    `nodata` holds one value (DN) or None per spectral band, `masked` tells whether a mask, an alpha band, a collar
    or `quality`, the open quality raster of the same grid, limits what is valid, `mask_by_band` whether bands have
    masks of their own. `tags` is what it says of its acquisition. `peak` is the greatest DN that its
    metadata allow, None when they do not tell. `rpc` are its RPCs, if it has any, and `gcps` its ground control
    points, if it has any and no transform; `notices` is for people; `orthorectify` is the command for a file that RPCs
    or ground control points place and no transform, else None; `expand` that for a file that holds entries of a
    colour table.
    """

    def __init__(self, path: Path, dataset: Any, quality: Any = None) -> None:
        self.path = path
        self._dataset = dataset
        self._quality = quality
        self._collar: Collar | None = None
        self.peak = greatest_dn(dataset)
        self.rpc = rpc_model(dataset)
        self.gcps = control_points(dataset)
        self.orthorectify = orthorectify_command(path, dataset, self.rpc)
        self.alpha = _true_alpha(path, dataset)
        self.indexes = [b for b in dataset.indexes if b != self.alpha]
        self.bands = len(self.indexes)
        self.dtype = _common_dtype(path, [dataset.dtypes[b - 1] for b in self.indexes])
        self.notices = _alpha_notices(path, dataset, self.alpha) + _fill_notices(path, dataset)
        self.notices += tile_notices(path) if is_local(path) else ()
        self.grid = _grid(path, dataset)
        self.expand = _expand_command(path, dataset, self.indexes)
        by_vendor = FILL if _has_landsat_fill(path, dataset) else vendor_nodata(dataset)
        self.nodata = tuple(_nodata(dataset, b, self.dtype, by_vendor) for b in self.indexes)
        flags = [dataset.mask_flag_enums[b - 1] for b in self.indexes]
        self._masked_bands = [_has_own_mask(f) for f in flags]
        self.mask_by_band = any(_has_own_mask(f) and MaskFlags.per_dataset not in f for f in flags)
        self.masked = self.alpha is not None or quality is not None or any(self._masked_bands)
        self.facts = _all_facts(path, dataset, self.indexes)
        self.tags = tuple(
            tag for tag in _tags(dataset, 0, ("", _ACQUISITION)) if tag[0] or _OF_ACQUISITION.fullmatch(tag[1])
        )
        self.metadata = _metadata(dataset)
        self.files = _all_files(dataset) or [path]
        if quality is not None:
            self.files.append(Path(quality.name))

    @property
    def mask_sources(self) -> tuple[str, ...]:
        """The files in which mask, alpha or quality of this one are."""
        own = (str(self.path),) if self.alpha is not None or any(self._masked_bands) else ()
        return own if self._quality is None else (*own, self._quality.name)

    @property
    def georeferenced(self) -> bool:
        """Whether the file says where it lies: a CRS, or a transform that is not the identity."""
        return self.grid.crs_wkt is not None or self.placed

    @property
    def placed(self) -> bool:
        """Whether the file has a transform; one with a CRS alone says in which system it lies, but not where."""
        return not self.grid.transform.almost_equals(Affine.identity())

    def assume_nodata(self, value: float) -> None:
        """Treat `value` (DN) as nodata of every band from now on."""
        stored = as_dtype(value, self.dtype)
        self.nodata = (stored,) * self.bands

    def detect_collar(self) -> None:
        """Treat an undeclared collar as nodata from now on; reads the file once."""
        self._collar = find_collar(self, self.grid.shape, self.dtype)
        self.masked = self.masked or self._collar is not None

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
        if self._collar is not None:
            valid &= ~self._collar.covers(row, col, height, width)
        image[~valid] = 0
        return image, valid

    def _masks(self, window: Window, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Read what mask, alpha and quality bands say, (C, h, w)."""
        valid = np.ones(shape, bool)
        for band, masked in enumerate(self._masked_bands):
            if masked:
                valid[band] &= self._dataset.read_masks(self.indexes[band], window=window) != 0
        if self.alpha is not None:
            valid &= self._dataset.read(self.alpha, window=window) != 0
        if self._quality is not None:
            valid &= self._quality.read(1, window=window) & FILL_BIT == 0
        return valid

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._dataset.close()
        if self._quality is not None:
            self._quality.close()


def open_raster(path: Path) -> RasterFile:
    """Open and check one input: a local file, or whatever else GDAL opens by name (`/vsicurl/`, `s3://`, `GPKG:`).

    A Landsat band brings the QA_PIXEL or BQA file beside it, whose fill counts. Raises RasterError when the input is
    missing, no raster, empty, or of a dtype that is not supported, and GeometryError when its transform is degenerate.
    """
    if is_local(path):
        _check_file(path)
    with ExitStack() as opened:
        dataset = _open(path)
        opened.callback(dataset.close)
        with reading(path):
            quality = _quality(path, dataset)
            if quality is not None:
                opened.callback(quality.close)
            file = RasterFile(path, dataset, quality)
        opened.pop_all()
    return file


def _check_file(path: Path) -> None:
    """Raise RasterError when a local name does not lead to a file that may be read."""
    try:
        os.fspath(path).encode()
        mode = path.stat().st_mode
    except UnicodeEncodeError as error:
        raise RasterError(f"{path}: is not a name in UTF-8, as GDAL expects", "rename the file") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RasterError(f"{path}: no such file", "check the name and the folder") from error
    except OSError as error:
        raise RasterError(f"{path}: cannot be opened: {error.strerror}", "check the name and the folder") from error
    if stat.S_ISDIR(mode):
        raise RasterError(f"{path}: is a folder", "name the PAN and MS files in it, or give the product's folder alone")
    if not stat.S_ISREG(mode):  # GDAL would wait for ever on a pipe
        raise RasterError(
            f"{path}: is not a file", "rasters are read in any order: write what a pipe or a device gives to a file"
        )
    if not os.access(path, os.R_OK):
        raise RasterError(f"{path}: cannot be opened: Permission denied", "ask its owner for the permission to read it")


def _open(path: Path) -> Any:
    """GDAL's dataset. Raises RasterError when there is none or it holds no raster of its own."""
    try:
        with opening():
            dataset = rasterio.open(gdal_name(path))
    except GDAL_FAILURES as error:
        if in_archive(path):
            raise RasterError(
                f"{path}: cannot be opened: {error.__cause__ or error}",
                "check the names of the archive and of the raster in it (/vsizip/ARCHIVE/RASTER), or unpack it",
            ) from error
        if not is_local(path):
            raise RasterError(
                f"{path}: cannot be opened: {error.__cause__ or error}",
                "check the address, the network and, for a bucket, GDAL's credentials (AWS_..., GS_..., AZURE_...)",
            ) from error
        found = "is empty (0 bytes)" if path.is_file() and path.stat().st_size == 0 else "is not a raster"
        command = unpacking(path)
        raise RasterError(
            f"{path}: {found}: {error.__cause__ or error}",
            f"unpack it: {command}" if command else "expected a GeoTIFF or another raster that GDAL reads",
        ) from error
    if not dataset.count:
        parts = list(dataset.subdatasets)
        dataset.close()
        shown = ", ".join(parts[:4]) + (", ..." if len(parts) > 4 else "")
        raise RasterError(
            f"{path}: holds {len(parts)} rasters and none by itself" + (f": {shown}" if parts else ""),
            "name one of them instead of the file",
        )
    if dataset.count > _MOST_BANDS:
        bands = dataset.count
        dataset.close()
        raise RasterError(
            f"{path}: has {bands} bands; expected at most {_MOST_BANDS}",
            "cut out those to sharpen with: gdal_translate -b 1 -b 2 ... IN OUT",
        )
    return dataset


def _quality(path: Path, dataset: Any) -> Any:
    """The open quality raster beside a Landsat band, None when there is none or its grid is another (that of PAN)."""
    beside = quality_file(path) if is_local(path) else None
    if beside is None:
        return None
    quality = _open(beside)
    if quality.shape == dataset.shape and quality.transform.almost_equals(dataset.transform):
        return quality
    quality.close()
    return None


def _true_alpha(path: Path, dataset: Any) -> int | None:
    """Index of a band that is labelled alpha and holds nothing but 0 and full opacity.

    Products are known that carry near infrared under that label, because software writes a fourth 8-bit band
    so; such a band holds other values and is spectral.
    """
    labelled = [b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha]
    if not labelled or dataset.count == 1:
        return None
    alpha = int(labelled[-1])
    seen: set[float] = {0.0}
    for row, col, height, width in spread_windows(dataset.height, dataset.width, _ALPHA_WINDOW, _ALPHA_WINDOWS):
        with reading(path):
            values = dataset.read(alpha, window=Window(col, row, width, height))
        seen |= set(np.unique(values).tolist()) if np.isin(values, (0.0, *_OPAQUE)).all() else {math.nan}
        if len(seen) > 2 or math.nan in seen:
            return None
    return alpha


def _alpha_notices(path: Path, dataset: Any, alpha: int | None) -> tuple[str, ...]:
    """That a band labelled alpha is none, for people to whom it is one."""
    odd = [b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha and b != alpha]
    if not odd or dataset.count == 1:
        return ()
    return (
        f"{path.name}: band {odd[-1]} is labelled alpha, but holds more than 0 and one value of full opacity "
        f"({', '.join(f'{value:g}' for value in _OPAQUE)}) and is taken for a band of MS; "
        "should it be a mask, give it as one (gdal_translate -mask)",
    )


def _has_landsat_fill(path: Path, dataset: Any) -> bool:
    """Whether a file is a Landsat band as delivered: DN, no number of which is declared to be nodata."""
    return landsat_band(path) is not None and np.dtype(dataset.dtypes[0]).kind == "u" and dataset.nodatavals[0] is None


def _fill_notices(path: Path, dataset: Any) -> tuple[str, ...]:
    """That fill of a Landsat scene, the same text for all its bands, is known by its DN alone."""
    band = landsat_band(path)
    if band is None or not is_local(path) or not _has_landsat_fill(path, dataset) or quality_file(path):
        return ()
    return (f"{band.scene}: no QA_PIXEL or BQA file lies beside its bands; DN 0 counts as fill, as Landsat defines it",)


def _expand_command(path: Path, dataset: Any, indexes: list[int]) -> str | None:
    """The command that makes DN of what are entries of a colour table, else None; an even grey ramp changes nothing."""
    tables = []
    for band in indexes:
        if dataset.colorinterp[band - 1] == ColorInterp.palette:
            with suppress(ValueError):  # called so, but without a table
                tables.append(np.array(list(dataset.colormap(band).values()))[:, :3])
    if all(_is_grey(table) and _is_ramp(table[:, 0]) for table in tables):
        return None
    kind = "gray" if all(map(_is_grey, tables)) else "rgb"
    return f"gdal_translate -expand {kind} {shlex.quote(str(path))} OUT"


def _is_grey(table: NDArray[np.int64]) -> bool:
    """Whether a colour table (n, 3) holds greys alone."""
    return bool((table == table[:, :1]).all())


def _is_ramp(greys: NDArray[np.int64]) -> bool:
    """Whether greys rise in equal steps, as those of DN; images of one bit have such a table by themselves."""
    steps = np.diff(greys)
    return bool((steps > 0).all() and (steps == steps[:1]).all())


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
    """Where the file's pixels lie. Raises GeometryError on a transform that maps to no area or to a wrong one."""
    if dataset.width < 1 or dataset.height < 1:
        raise RasterError(f"{path}: has no pixels ({dataset.width} x {dataset.height})")
    transform = Affine(*tuple(dataset.transform)[:6])
    if not all(math.isfinite(v) for v in transform[:6]) or transform.determinant == 0:
        raise GeometryError(
            f"{path}: its geotransform {tuple(transform[:6])} gives pixels without area",
            "assign the right one, for example with gdal_edit.py -a_ullr",
        )
    if lost_corner(dataset):
        raise GeometryError(
            f"{path}: its .IMD file does not say where the image lies (no ULX, ULY)",
            "name the GeoTIFF tiles instead, joined with: gdalbuildvrt OUT.vrt TILES",
        )
    wkt = dataset.crs.to_wkt() if dataset.crs else None
    return Grid(transform, dataset.width, dataset.height, wkt)


def _nodata(dataset: Any, band: int, dtype: str, by_vendor: float | None) -> float | None:
    """Find the band's nodata as its pixels hold it; None when none is declared or no pixel can have it."""
    declared = dataset.nodatavals[band - 1]
    declared = by_vendor if declared is None else declared
    return None if declared is None else as_dtype(declared, dtype)


def _all_files(dataset: Any) -> list[Path]:
    """All files that reading depends on; GDAL lists those of a VRT, but not those of a VRT within it."""
    found = dict.fromkeys(map(Path, dataset.files))
    waiting = [path for path in found if path.suffix.lower() == _VRT and path != Path(dataset.name)]
    while waiting:
        with suppress(*GDAL_FAILURES), opening(), rasterio.open(gdal_name(waiting.pop())) as inner:
            new = [path for path in map(Path, inner.files) if path not in found]
            found |= dict.fromkeys(new)
            waiting += [path for path in new if path.suffix.lower() == _VRT]
    return list(found)


def _metadata(dataset: Any) -> tuple[str, ...]:
    """All texts in which a product may name its sensor: the values of the file's tags in every domain.

    Of our own tags only the sensor counts: the others name files and commands.
    """
    skipped = {"DERIVED_SUBDATASETS", "IMAGE_STRUCTURE"}
    domains = [None, *(name for name in dataset.tag_namespaces() if name not in skipped)]
    tags = ((key, value) for domain in domains for key, value in dataset.tags(ns=domain).items())
    return tuple(str(value) for key, value in tags if key == SENSOR_TAG or not key.startswith("PANCRAFTER_"))


def _has_own_mask(flags: list[MaskFlags]) -> bool:
    """Whether validity comes from a mask band (in the file, beside it, or nodata of all bands at once)."""
    if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
        return False
    return MaskFlags.nodata not in flags or MaskFlags.per_dataset in flags


def _all_facts(path: Path, dataset: Any, indexes: list[int]) -> tuple[BandFacts, ...]:
    """Collect what the file, its vendor's metadata and, for Landsat surface reflectance, the product's guide say."""
    facts = [_facts(dataset, band) for band in indexes]
    names = band_names(dataset)
    if names:
        facts = [replace(f, description=f.description or names[b - 1]) for b, f in zip(indexes, facts, strict=True)]
    band = landsat_band(path)
    if band is not None and band.surface and band.collection >= 2 and (facts[0].scale, facts[0].offset) == (1, 0):
        facts = [replace(f, scale=SURFACE_SCALE, offset=SURFACE_OFFSET) for f in facts]
    return tuple(facts)


def _facts(dataset: Any, band: int) -> BandFacts:
    """Collect what the file says about one band."""
    colour = dataset.colorinterp[band - 1]
    return BandFacts(
        description=dataset.descriptions[band - 1] or None,
        colorinterp="undefined" if colour in _NOT_CARRIED else colour.name,
        scale=dataset.scales[band - 1],
        offset=dataset.offsets[band - 1],
        unit=dataset.units[band - 1] or None,
        tags=_tags(dataset, band, ("", _ACQUISITION)),
    )


def _tags(dataset: Any, band: int, domains: tuple[str, ...]) -> Tags:
    """Texts of a band, of the file for band 0, but for numbers that describe its pixels."""
    texts = ((domain, *item) for domain in domains for item in dataset.tags(band, domain or None).items())
    return tuple((d, key, value) for d, key, value in texts if not key.startswith(("STATISTICS_", "PANCRAFTER_")))
