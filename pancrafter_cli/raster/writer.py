"""Writing the product: streamed, checked, and in place only once it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Compression, Interleaving
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pancrafter_cli.errors import OutputError
from pancrafter_cli.raster.encode import encode
from pancrafter_cli.raster.env import GDAL_FAILURES, gdal_env, opening
from pancrafter_cli.raster.spec import BandFacts, OutputSpec

TILE = 256
# With all bands in one tile a strip of rows completes tiles in one go and viewers get three bands at a time.
# With very many bands such tiles outgrow the cache and a single band costs a read of all.
_MOST_BANDS_PER_TILE = 16
_SIDECARS = (".aux.xml", ".msk", ".ovr")
_BESIDE_PIXELS = (".aux.xml", ".ovr")  # viewers write these at any time, and no pixel is read from them


@dataclass(frozen=True)
class OutputKind:
    """A kind of file, as messages call it, and how its names end."""

    name: str
    suffixes: tuple[str, ...]


GEOTIFF = OutputKind("a GeoTIFF", (".tif", ".tiff"))


def check_output(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False, kind: OutputKind = GEOTIFF) -> Path:
    """Find the place to write to, links followed. Raises OutputError when it cannot or should not be."""
    try:
        os.fspath(path).encode()
        return _checked_output(path, inputs, overwrite, kind)
    except UnicodeEncodeError as error:
        raise OutputError(f"{path}: is not a name in UTF-8, as GDAL expects", "give another name") from error
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written to: {error.strerror or error}", "choose another name or folder"
        ) from error


def _checked_output(path: Path, inputs: Iterable[Path], overwrite: bool, kind: OutputKind) -> Path:
    """As check_output; also raises OSError where the system refuses to tell about a file."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # realpath gives up on those only
        raise OutputError(f"{path}: is a loop of links", "remove it, or give another name")
    if target.suffix.lower() not in kind.suffixes:
        raise OutputError(
            f"{path}: the output is {kind.name}", f"give a name that ends in {' or '.join(kind.suffixes)}"
        )
    if target.is_dir():
        raise OutputError(f"{path}: is a folder", "give the name of a file")
    for source in inputs:
        if _is_same_file(target, source):
            raise OutputError(f"{path}: is one of the inputs ({source})", "write to another name")
    if target.exists() and not overwrite:
        raise OutputError(f"{path}: exists already", "use --overwrite to replace it, or another name")
    if not target.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {target.parent}", "create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {target.parent} cannot be written to", "choose another folder")
    return target


def _is_same_file(target: Path, source: Path) -> bool:
    """Whether both names lead to one file; a source that cannot be looked at is told of when it is opened."""
    if target == Path(os.path.realpath(source)):
        return True
    try:
        return target.samefile(source)
    except OSError:
        return False


class SceneWriter:
    """Takes blocks of the sharpened image in any order and makes a GeoTIFF of them.

    `inputs` are files that must neither be overwritten nor change meanwhile, `tags` metadata for the file. A context
    manager: on success the finished and checked file takes its name, on any exception nothing is left. Of two runs
    that write one new file, the one that ends later fails. Blocks that start and end on multiples of TILE are the
    fastest. Not for several threads at a time. Memory is bounded by GDAL's block cache. Raises OutputError when
    nothing can or should be written at `path`.
    """

    def __init__(
        self,
        path: Path,
        spec: OutputSpec,
        *,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        inputs = tuple(inputs)
        target = check_output(path, inputs, overwrite)
        self.spec = spec
        self._target, self._overwrite = target, overwrite
        self._part = _part_of(target)
        self._inputs = {p: _state(p) for p in map(Path, inputs) if not p.name.endswith(_BESIDE_PIXELS)}
        self._written = 0
        self._file: Any = None
        try:
            self._part.touch(exist_ok=False)
            with opening():
                self._file = rasterio.open(self._part, "w", **_creation(spec))
                _describe(self._file, spec.bands, tags or {})
        except BaseException as error:
            self._discard()
            raise _as_output_error(error, target) from error

    def write(self, row: int, col: int, block: NDArray[np.floating], valid: NDArray[np.bool_]) -> None:
        """Write a block (C, h, w) in DN and which of its pixels are valid (C, h, w), at row, col of the grid.

        Raises OutputError when the disk is full or a valid pixel is not finite, ValueError when the block
        does not lie inside the grid.
        """
        height, width = block.shape[-2:]
        grid = self.spec.grid
        if row < 0 or col < 0 or row + height > grid.height or col + width > grid.width:
            raise ValueError(f"block {(row, col, height, width)} does not lie inside {grid.shape}")
        stored = encode(block, valid, self.spec.dtype, self.spec.nodata)
        window = Window(col, row, width, height)
        try:
            with gdal_env():
                self._file.write(stored, window=window)
                if self.spec.needs_mask:
                    self._file.write_mask(valid.any(axis=0), window=window)
        except GDAL_FAILURES as error:
            raise _as_output_error(error, self._target) from error
        self._written += height * width

    def finish(self) -> None:
        """Close the file, check that all of it is on disk, and give it its name; the context's end calls it.

        Raises OutputError when the disk was too small, blocks are missing, an input has changed since the writer was
        made, or another run has written the file.
        """
        try:
            if self._written < self.spec.grid.height * self.spec.grid.width:
                raise OutputError(f"{self._target}: only a part of the image was written", "run it again")
            with gdal_env():
                self._file.close()
            _flush_to_disk(self._part)
            _check_complete(self._part, self.spec)
            _check_unchanged(self._inputs)
            replaced = self._target.exists()
            _take_name(self._part, self._target, self._overwrite)
        except BaseException as error:
            self._discard()
            raise _as_output_error(error, self._target) from error
        if replaced:  # overviews, masks and statistics of the old image would be taken for the new one's
            for name in _beside(self._target):
                name.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self._discard()

    def _discard(self) -> None:
        """Close and remove the unfinished file."""
        with suppress(Exception), gdal_env():
            if self._file is not None:
                self._file.close()
        for name in (self._part, *_beside(self._part)):
            with suppress(OSError):
                name.unlink(missing_ok=True)


def _part_of(target: Path) -> Path:
    """Name the unfinished file, beside the finished one; names may have 255 bytes."""
    start = target.name.encode()[:80].decode(errors="ignore")
    return target.with_name(f".{start}.{os.getpid()}.{secrets.token_hex(3)}.part.tif")


def _state(source: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None for what is no file of this system."""
    try:
        found = source.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_unchanged(inputs: Mapping[Path, tuple[int, ...] | None]) -> None:
    """Raise OutputError when an input is no longer what it was."""
    for source, before in inputs.items():
        if _state(source) != before:
            raise OutputError(
                f"{source}: has changed while it was read", "run it again once nothing writes to the inputs any more"
            )


def _take_name(part: Path, target: Path, overwrite: bool) -> None:
    """Give the finished file its name, at once. Raises OutputError where there is one that may not be replaced."""
    if not overwrite:
        try:
            os.link(part, target)  # unlike a renaming, this fails where another run has been faster
        except FileExistsError as error:
            raise OutputError(
                f"{target}: another run has written it meanwhile", "use --overwrite to replace it, or another name"
            ) from error
        except OSError:  # a file system without hard links
            pass
        else:
            part.unlink()
            return
    part.replace(target)


def _creation(spec: OutputSpec) -> dict[str, Any]:
    """GDAL's creation options.

    Compression stays in the writing thread: with NUM_THREADS, GDAL writes from threads of its own, and a
    full disk is then noticed by nobody until the file is read.
    """
    many = len(spec.bands) > _MOST_BANDS_PER_TILE
    return {
        "driver": "GTiff",
        "width": spec.grid.width,
        "height": spec.grid.height,
        "count": len(spec.bands),
        "dtype": spec.dtype,
        "crs": CRS.from_wkt(spec.grid.crs_wkt) if spec.grid.crs_wkt else None,
        "transform": spec.grid.transform,
        "nodata": spec.nodata,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "interleave": "band" if many else "pixel",
        "compress": _compression(),
        "predictor": 3 if spec.dtype.startswith("float") else 2,
        "bigtiff": "IF_SAFER",
        # Left alone, GDAL calls four 8-bit bands red, green, blue and alpha. Where the first three are said to
        # be red, green and blue it makes the file RGB by itself; told so here, it would drop what the others are.
        "photometric": "MINISBLACK",
        "alpha": "NO",
    }


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


def _describe(file: Any, bands: tuple[BandFacts, ...], tags: Mapping[str, str]) -> None:
    """Band facts and tags into the open file."""
    file.colorinterp = [_colour(band.colorinterp) for band in bands]
    file.descriptions = [band.description or "" for band in bands]
    if any((band.scale, band.offset) != (1.0, 0.0) for band in bands):
        file.scales = [band.scale for band in bands]
        file.offsets = [band.offset for band in bands]
    if any(band.unit for band in bands):
        file.units = [band.unit or "" for band in bands]
    if tags:
        file.update_tags(**tags)


def _colour(name: str) -> ColorInterp:
    """Look up a colour interpretation by name; never alpha."""
    colour = ColorInterp[name]
    return ColorInterp.undefined if colour == ColorInterp.alpha else colour


def _flush_to_disk(path: Path) -> None:
    """Make the system write what it still holds, so that a full disk shows now. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _check_complete(path: Path, spec: OutputSpec) -> None:
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


def _beside(path: Path) -> list[Path]:
    """Files that GDAL keeps next to one."""
    return [path.with_name(path.name + suffix) for suffix in _SIDECARS]


def _as_output_error(error: BaseException, target: Path) -> BaseException:
    """Choose what to raise: an OutputError that tells the room on the disk, or the error itself."""
    if isinstance(error, OutputError) or not isinstance(error, GDAL_FAILURES):
        return error
    free = ""
    with suppress(OSError):
        free = f"; {shutil.disk_usage(target.parent).free / 1e6:.1f} MB are free there"
    return OutputError(
        f"{target}: cannot be written: {error.__cause__ or error}{free}",
        "make room or write to another disk, and check that the folder can be written to",
    )
