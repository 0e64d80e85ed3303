"""Where a TIFF keeps its tiles: found, read, and filled in, in files that GDAL has laid out.

Layout after the TIFF 6.0 specification, sections 2 and 15, and BigTIFF; only offsets and byte counts of tiles matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]
Buffer = bytes | bytearray | memoryview

_TILE_OFFSETS, _TILE_BYTE_COUNTS = 324, 325
_TYPES = {3: "u2", 4: "u4", 16: "u8"}  # SHORT, LONG, LONG8


@dataclass(frozen=True)
class _Array:
    """Numbers of one tag: where they stand, how many, and their type for NumPy."""

    at: int
    count: int
    dtype: np.dtype[np.unsignedinteger]

    def read(self, data: Buffer) -> UInt64:
        return np.frombuffer(data, self.dtype, self.count, self.at).astype(np.uint64)

    def written(self, numbers: UInt64) -> bytes:
        if len(numbers) != self.count or int(numbers.max(initial=0)) > np.iinfo(self.dtype).max:
            raise ValueError(f"{len(numbers)} numbers up to {numbers.max(initial=0)} do not fit {self}")
        return numbers.astype(self.dtype).tobytes()


@dataclass(frozen=True)
class TileTable:
    """Where one image of a TIFF keeps the offsets and sizes of its tiles; planes of separate bands in a row."""

    _offsets: _Array
    _sizes: _Array

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self._offsets.count

    def offsets(self, data: Buffer) -> UInt64:
        """Offsets of the tiles in the file."""
        return self._offsets.read(data)

    def sizes(self, data: Buffer) -> UInt64:
        """Bytes of each tile."""
        return self._sizes.read(data)

    def patches(self, offsets: UInt64, sizes: UInt64) -> tuple[tuple[int, bytes], ...]:
        """What to write where to fill the table: (offset in the file, bytes). ValueError where it does not fit."""
        return (
            (self._offsets.at, self._offsets.written(offsets)),
            (self._sizes.at, self._sizes.written(sizes)),
        )


def tile_tables(data: Buffer) -> tuple[TileTable, ...]:
    """The tables of all images of a TIFF, which begins with its header; ValueError when it has no tiles."""
    return tuple(_table(entries) for entries in _directories(data))


def _table(entries: dict[int, _Array]) -> TileTable:
    try:
        return TileTable(entries[_TILE_OFFSETS], entries[_TILE_BYTE_COUNTS])
    except KeyError as error:
        raise ValueError("a TIFF without tiles") from error


def _directories(data: Buffer) -> Iterator[dict[int, _Array]]:
    """Tags of whole numbers in each directory."""
    order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count, offset, entry, inline = ("Q", "Q", 20, 8) if big else ("H", "I", 12, 4)
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    while at:
        (entries,) = struct.unpack_from(order + count, data, at)
        at += struct.calcsize(count)
        found = {}
        for place in range(at, at + entries * entry, entry):
            tag, kind = struct.unpack_from(order + "HH", data, place)
            (length,) = struct.unpack_from(order + offset, data, place + 4)
            value = place + entry - inline
            if kind in _TYPES:
                dtype = np.dtype(order + _TYPES[kind])
                if length * dtype.itemsize > inline:
                    (value,) = struct.unpack_from(order + offset, data, value)
                found[tag] = _Array(value, length, dtype)
        yield found
        (at,) = struct.unpack_from(order + offset, data, at + entries * entry)
