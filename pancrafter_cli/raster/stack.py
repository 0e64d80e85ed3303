"""Several files of one grid read as one multi-band raster."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from pancrafter_cli.errors import RasterError
from pancrafter_cli.geometry.grid import SAME_PLACE, Grid, corners_apart
from pancrafter_cli.raster.collar import Collar, find_collar
from pancrafter_cli.raster.crs import same_crs
from pancrafter_cli.raster.inputs import Block, RasterFile
from pancrafter_cli.raster.paths import public_name
from pancrafter_cli.raster.spec import BandFacts


class Readable(Protocol):
    """Anything that gives windows of pixels with their validity."""

    def read(self, row: int, col: int, height: int, width: int) -> Block:
        """Pixels (C, h, w) in DN, 0 where invalid, and which are valid (C, h, w)."""


class BandStack:
    """MS: the spectral bands of one or more files, in the order given.

    Raises RasterError that names the file when one has another grid or dtype than the first.
    """

    def __init__(self, files: list[RasterFile]) -> None:
        self.sources = files
        first = files[0]
        for other in files[1:]:
            difference = _difference(first, other)
            if difference:
                raise RasterError(
                    f"{other.path}: {difference} (first MS file: {first.path})",
                    "MS files must share grid and dtype; use gdalwarp -tr -te or gdal_translate -ot",
                )
        self.grid: Grid = first.grid
        self.dtype = first.dtype
        self.bands = sum(file.bands for file in files)
        self._collar: Collar | None = None
        self.facts: tuple[BandFacts, ...] = tuple(fact for file in files for fact in _named(file))

    @property
    def path(self) -> Path:
        """The first file, which stands for the stack in messages."""
        return self.sources[0].path

    @property
    def georeferenced(self) -> bool:
        """Whether the files say where they lie."""
        return self.sources[0].georeferenced

    @property
    def placed(self) -> bool:
        """Whether the files have a transform."""
        return self.sources[0].placed

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Nodata of each band (DN) or None."""
        return tuple(value for file in self.sources for value in file.nodata)

    @property
    def masked(self) -> bool:
        """Whether more than a value limits what is valid: a mask, an alpha band, a collar."""
        return self._collar is not None or any(file.masked for file in self.sources)

    @property
    def uneven(self) -> bool:
        """Whether masks can tell a pixel valid in one band and invalid in another."""
        return len({file.mask_sources for file in self.sources}) > 1 or any(f.mask_by_band for f in self.sources)

    @property
    def notices(self) -> tuple[str, ...]:
        """What people should know of the files, and which of them are given more than once."""
        times = Counter(os.path.realpath(file.path) for file in self.sources)
        first = {os.path.realpath(file.path): public_name(file.path) for file in reversed(self.sources)}
        return tuple(text for file in self.sources for text in file.notices) + tuple(
            f"{first[path]}: is given {count} times as MS, and so are its bands in the product"
            for path, count in times.items()
            if count > 1
        )

    def assume_nodata(self, value: float) -> None:
        """Treat `value` (DN) as nodata of every band from now on."""
        for file in self.sources:
            file.assume_nodata(value)

    def detect_collar(self) -> None:
        """Treat an undeclared collar, blank in all bands, as nodata from now on; reads the files once."""
        self._collar = find_collar(self, self.grid.shape, self.dtype)

    def name_bands(self, names: tuple[str, ...]) -> None:
        """Name the bands, but those that their file itself names. Raises RasterError when the number differs."""
        if len(names) != self.bands:
            raise RasterError(
                f"{self.path}: {len(names)} band names for {self.bands} bands", "give one name for each band"
            )
        own = [fact.description for file in self.sources for fact in file.facts]
        self.facts = tuple(
            replace(fact, description=said or name) for fact, said, name in zip(self.facts, own, names, strict=True)
        )

    def read(self, row: int, col: int, height: int, width: int) -> Block:
        """All bands (C, h, w) in DN, 0 where invalid, and which are valid (C, h, w)."""
        blocks = [file.read(row, col, height, width) for file in self.sources]
        image, valid = blocks[0]
        if len(blocks) > 1:
            image, valid = np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])
        if self._collar is not None:
            valid &= ~self._collar.covers(row, col, height, width)
            image[~valid] = 0
        return image, valid


def _named(file: RasterFile) -> tuple[BandFacts, ...]:
    """List the band facts of a file; a single band without description takes the file's name."""
    if file.bands == 1 and file.facts[0].description is None:
        return (replace(file.facts[0], description=file.path.stem),)
    return file.facts


def _difference(first: RasterFile, other: RasterFile) -> str:
    """How `other` fails to fit `first`, in words; empty when it fits."""
    a, b = first.grid, other.grid
    if other.dtype != first.dtype:
        return f"its dtype is {other.dtype}, expected {first.dtype}"
    if a.shape != b.shape:
        return f"it has {b.width} x {b.height} pixels, expected {a.width} x {a.height}"
    if (a.crs_wkt is None) != (b.crs_wkt is None) or not same_crs(a.crs_wkt, b.crs_wkt):
        return "it has another CRS"
    if corners_apart(a, b) > SAME_PLACE:
        return f"its transform is {tuple(b.transform[:6])}, expected {tuple(a.transform[:6])}"
    return ""
