"""Writing the product: streamed, checked, and in place only once it is complete."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import OutputError
from pancrafter_cli.raster.blocks import TILE, compressed, file_head
from pancrafter_cli.raster.encode import encode
from pancrafter_cli.raster.env import GDAL_FAILURES
from pancrafter_cli.raster.finished import check_complete, write_tags
from pancrafter_cli.raster.part import PartFile
from pancrafter_cli.raster.spec import OutputSpec
from pancrafter_cli.raster.targets import as_output_error, beside, check_output, take_name
from pancrafter_cli.raster.tiff import tile_tables

__all__ = ["TILE", "Encoded", "Progress", "SceneWriter", "check_output"]

UInt64 = NDArray[np.uint64]

_BESIDE_PIXELS = (".aux.xml", ".ovr")  # viewers write these at any time, and no pixel is read from them


@dataclass(frozen=True)
class Encoded:
    """A block as the file will hold it: where it lies, and for each image of the file its tiles."""

    row: int
    col: int
    height: int
    width: int
    tiles: list[list[bytes]]


@dataclass(frozen=True)
class Progress:
    """How far a file has come: its bytes, their checksum, and where its tiles lie (images one after the other)."""

    size: int
    checksum: int
    offsets: UInt64
    sizes: UInt64


class SceneWriter:
    """Takes blocks of the sharpened image in any order and makes a GeoTIFF of them, byte for byte in that order.

    `inputs` are files that must neither be overwritten nor change meanwhile, `tags` metadata for the file. A context
    manager: on success the finished and checked file takes its name, on any exception nothing is left. Of two runs
    that write one new file, the one that ends later fails. Blocks start on multiples of TILE, and end there or at the
    border. `encode` may be called in several threads, all else in one at a time. resumable: the unfinished file has a
    name that the next run finds. Raises OutputError when nothing can or should be written at `path`.
    """

    def __init__(
        self,
        path: Path,
        spec: OutputSpec,
        *,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        tags: Mapping[str, str] | None = None,
        resumable: bool = False,
    ) -> None:
        inputs = tuple(inputs)
        target = check_output(path, inputs, overwrite)
        self.spec = spec
        self.target, self._overwrite = target, overwrite
        self._inputs = {p: _state(p) for p in map(Path, inputs) if not p.name.endswith(_BESIDE_PIXELS)}
        self._tags: dict[str, str] = {}
        self._complete = False
        self._part: PartFile | None = None
        try:
            self._head = file_head(spec, tags or {})
            self._tables = tile_tables(self._head)
            self._part = PartFile(target, resumable=resumable)
        except BaseException as error:
            self.discard()
            raise as_output_error(error, target) from error
        self.restart()

    def restart(self) -> None:
        """Forget what was written."""
        self._offsets = np.zeros(sum(t.count for t in self._tables), np.uint64)
        self._sizes = np.zeros_like(self._offsets)
        self._checksum = 0
        self._begun = False

    @property
    def kept(self) -> bool:
        """Whether the next run will find the unfinished file; not where another run writes the same one."""
        return self._file.kept

    def resume(self, progress: Progress) -> bool:
        """Go on from what an earlier run had written; False where the file does not hold it, and nothing is done."""
        start = len(self._head)
        if len(progress.offsets) != len(self._offsets) or not start <= progress.size <= self._file.size:
            return False
        try:
            if self._file.checksum(start, progress.size) != progress.checksum:
                return False
            self._file.truncate(progress.size)
            self._file.write_at(0, self._head)
        except OSError as error:
            raise as_output_error(error, self.target) from error
        self._offsets, self._sizes = progress.offsets.copy(), progress.sizes.copy()
        self._checksum, self._begun = progress.checksum, True
        return True

    def encode(self, row: int, col: int, block: NDArray[np.floating], valid: NDArray[np.bool_]) -> Encoded:
        """A block (C, h, w) in DN and which of its pixels are valid (C, h, w), at row, col of the grid, compressed.

        Raises OutputError when a valid pixel is not finite, ValueError when the block does not lie inside the grid or
        cuts tiles.
        """
        height, width = block.shape[-2:]
        grid = self.spec.grid
        if row < 0 or col < 0 or row + height > grid.height or col + width > grid.width:
            raise ValueError(f"block {(row, col, height, width)} does not lie inside {grid.shape}")
        ends = (row + height) % TILE and row + height < grid.height, (col + width) % TILE and col + width < grid.width
        if row % TILE or col % TILE or any(ends):
            raise ValueError(f"block {(row, col, height, width)} cuts tiles of {TILE} x {TILE}")
        stored = encode(block, valid, self.spec.dtype, self.spec.nodata)
        try:
            mask = np.asarray(valid.any(axis=0)) if self.spec.needs_mask else None
            tiles = compressed(self.spec, stored, mask)
        except GDAL_FAILURES as error:
            raise as_output_error(error, self.target) from error
        return Encoded(row, col, height, width, tiles)

    def append(self, block: Encoded) -> None:
        """Write an encoded block. Raises OutputError when the disk is full."""
        try:
            if not self._begun:
                self._file.truncate(0)
                self._file.append(self._head)
                self._begun = True
            for index, data in self._placed(block):
                self._offsets[index] = self._file.append(data)
                self._sizes[index] = len(data)
                self._checksum = zlib.crc32(data, self._checksum)
        except OSError as error:
            raise as_output_error(error, self.target) from error

    def write(self, row: int, col: int, block: NDArray[np.floating], valid: NDArray[np.bool_]) -> None:
        """Write a block (C, h, w) in DN and which of its pixels are valid (C, h, w), at row, col of the grid.

        Raises as `encode` and `append` do.
        """
        self.append(self.encode(row, col, block, valid))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Add tags that are known only once the pixels are written."""
        self._tags |= tags

    def progress(self) -> Progress:
        """How far the file has come, once all of that is on the disk. Raises OutputError."""
        try:
            self._file.sync()
        except OSError as error:
            raise as_output_error(error, self.target) from error
        return Progress(self._file.size, self._checksum, self._offsets.copy(), self._sizes.copy())

    def complete(self) -> None:
        """Complete the file and check that all of it is on disk; it does not take its name yet.

        Raises OutputError when the disk was too small, blocks are missing, or an input has changed since the writer
        was made.
        """
        try:
            if not self._offsets.all():
                raise OutputError(f"{self.target}: only a part of the image was written", "run it again")
            first = 0
            for table in self._tables:
                own = slice(first, first + table.count)
                for at, data in table.patches(self._offsets[own], self._sizes[own]):
                    self._file.write_at(at, data)
                first += table.count
            if self._tags:
                write_tags(self._file.path, self._tags)
            _flush_to_disk(self._file.path)
            check_complete(self._file.path, self.spec)
            _check_unchanged(self._inputs)
            self._complete = True
        except Exception as error:
            raise as_output_error(error, self.target) from error

    def finish(self) -> None:
        """Complete the file and give it its name; the context's end calls it, and removes the unfinished one.

        Raises OutputError as `complete` does, and where another run has written the file.
        """
        if not self._complete:
            self.complete()
        try:
            take_name(self._file.path, self.target, self._overwrite)
            # Overviews, masks and statistics of an image that had this name would be taken for the new one's.
            for name in beside(self.target):
                if os.path.lexists(name):  # False, too, for names longer than names can be
                    name.unlink()
        except Exception as error:
            raise as_output_error(error, self.target) from error

    def leave(self) -> None:
        """Close the unfinished file for another run to go on with."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self.discard()

    @property
    def _file(self) -> PartFile:
        if self._part is None:
            raise ValueError("the writer could not be made")
        return self._part

    def _placed(self, block: Encoded) -> Iterator[tuple[int, bytes]]:
        """The tiles of a block with their places in the tables of the file."""
        rows, cols = (-(-n // TILE) for n in self.spec.grid.shape)
        high, wide = -(-block.height // TILE), -(-block.width // TILE)
        first = 0
        for table, tiles in zip(self._tables, block.tiles, strict=True):
            for k, data in enumerate(tiles):
                plane, within = divmod(k, high * wide)
                row, col = block.row // TILE + within // wide, block.col // TILE + within % wide
                yield first + (plane * rows + row) * cols + col, data
            first += table.count

    def discard(self) -> None:
        """Close and remove the unfinished file; once it has taken its name, that name stays."""
        if self._part is not None:
            self._part.discard()
            for name in beside(self._part.path):
                with suppress(OSError):
                    name.unlink(missing_ok=True)


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


def _flush_to_disk(path: Path) -> None:
    """Make the system write what it still holds, so that a full disk shows now. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
