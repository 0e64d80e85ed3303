"""Tiling that cannot be seen: which pixels a tile reads, which it keeps, and how neighbours fade into each other.

A raster axis of n pixels is cut into cores of `tile` pixels. A tile keeps its core and the first `blend` pixels of
the next one, where it fades out while the next tile fades in; it reads `halo` more pixels on each side. With
a halo of at least the network's receptive radius the fading mixes equal values, and tiled output is whole output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

STRIDE = 4  # networks halve images twice: sizes are padded to multiples of this, halos are multiples of it


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels: the core it finishes, what it keeps, and what it reads; [start, stop)."""

    core: tuple[int, int]
    keep: tuple[int, int]
    read: tuple[int, int]

    @property
    def crop(self) -> slice:
        """Where the kept pixels lie within the read ones."""
        return slice(self.keep[0] - self.read[0], self.keep[1] - self.read[0])


@dataclass(frozen=True)
class Tile:
    """A tile: its row span and column span."""

    rows: Span
    cols: Span


@dataclass(frozen=True)
class Tiling:
    """How a raster is cut: core size, pixels of cross-fade, pixels read and dropped around it."""

    tile: int
    halo: int
    blend: int

    def spans(self, length: int) -> list[Span]:
        """The spans of an axis of `length` pixels; cores partition it."""
        spans = []
        for start in range(0, length, self.tile):
            stop = min(start + self.tile, length)
            keep = (start, min(stop + self.blend, length))
            read = (max(0, start - self.halo), min(length, keep[1] + self.halo))
            spans.append(Span((start, stop), keep, read))
        return spans

    def tiles(self, shape: tuple[int, int], first: int = 0) -> Iterator[Tile]:
        """All tiles of a raster of (rows, columns), row by row from the top left, less the `first` rows of tiles."""
        columns = self.spans(shape[1])
        for rows in self.spans(shape[0])[first:]:
            for cols in columns:
                yield Tile(rows, cols)

    def count(self, shape: tuple[int, int]) -> int:
        """Number of tiles."""
        return -(-shape[0] // self.tile) * -(-shape[1] // self.tile)


def fade(span: Span, length: int, blend: int) -> Float32:
    """Weight of each kept pixel along one axis; over all spans of the axis the weights sum to one everywhere."""
    weights = np.ones(span.keep[1] - span.keep[0], dtype=np.float32)
    if span.keep[0] > 0:
        n = min(blend, length - span.keep[0])
        ramp = (np.arange(n, dtype=np.float32) + 0.5) / blend
        weights[:n] = ramp
    over = span.keep[1] - span.core[1]
    if over:
        # The complement of the next span's rise over the same pixels.
        weights[len(weights) - over :] = 1 - (np.arange(over, dtype=np.float32) + 0.5) / blend
    return weights


class Blender:
    """Puts tiles together in the order of `Tiling.tiles`, holding only the overlaps still to come.

    Memory: one tile, plus `blend` rows of the raster's width. pending: what an earlier one held at the end of a row of
    tiles, to go on with the next row.
    """

    def __init__(self, tiling: Tiling, bands: int, shape: tuple[int, int], pending: Float32 | None = None) -> None:
        self.tiling, self.shape = tiling, shape
        self._above = np.zeros((bands, tiling.blend, shape[1]), dtype=np.float32)
        self._below = np.zeros_like(self._above) if pending is None else pending.copy()
        self._left: Float32 | None = None

    def pending(self) -> Float32:
        """At the end of a row of tiles: its share (bands, blend, columns) of the next row's pixels."""
        return self._below.copy()

    def add(self, tile: Tile, kept: Float32) -> Float32:
        """Add a tile's kept pixels (C, h, w); returns its finished core (C, rows, columns)."""
        weights = np.outer(
            fade(tile.rows, self.shape[0], self.tiling.blend), fade(tile.cols, self.shape[1], self.tiling.blend)
        )
        part = kept * weights
        if tile.cols.core[0] > 0 and self._left is not None:
            part[:, :, : self._left.shape[2]] += self._left
        if tile.cols.core[0] == 0:
            self._above, self._below = self._below, self._above
            self._below[:] = 0
        height, width = (span.core[1] - span.core[0] for span in (tile.rows, tile.cols))
        columns = slice(*tile.cols.core)
        over = part.shape[1] - height
        self._left = part[:, :, width:].copy()
        self._below[:, :over, columns] = part[:, height:, :width]
        core = part[:, :height, :width]
        n = min(self.tiling.blend, height)
        core[:, :n] += self._above[:, :n, columns]
        return core
