"""The tiles of a scene: how it is cut, and each tile sharp and in order while the next one is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.tiling import STRIDE, Blender, Tile, Tiling
from pancrafter_cli.raster.blocks import TILE
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.tasks.confidence import Judge, Judgement, Window
from pancrafter_cli.tasks.fusers import Fuser

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
_Read = TypeVar("_Read")

# Tiles are whole blocks of the output (raster.blocks.TILE), so that each block is compressed and written once.
DEFAULT_TILE = 512
DEFAULT_HALO = 32
DEFAULT_BLEND = 16


@dataclass(frozen=True)
class SharpTile:
    """A tile's core: sharp (C, h, w) in DN, and where it is valid (C, h, w).

    judge: says of it what drifts and where PAN and MS disagree; safe in any thread. pending: what the Blender holds for
    the next row of tiles, where this tile ends one.
    """

    tile: Tile
    core: Float32
    valid: Mask
    judge: Callable[[], Judgement]
    pending: Float32 | None


def judged_tiles(
    scene: Scene, fuser: Fuser, tiling: Tiling, judge: Judge, first: int = 0, pending: Float32 | None = None
) -> Iterator[SharpTile]:
    """The scene's tiles in order, each with what the judge says of its core. The next is read meanwhile.

    first: rows of tiles to leave out, which an earlier run has done; pending: what it held then.
    """
    blender = Blender(tiling, scene.bands, scene.grid.shape, pending)

    def read(tile: Tile) -> tuple[Callable[[], Float32], Window]:
        return fuser.read(tile.rows.read, tile.cols.read), judge.read(tile.rows.read, tile.cols.read)

    with _read_ahead(tiling.tiles(scene.grid.shape, first), read) as reads:
        for tile, (fuse, (valid, judgement)) in reads:
            sharp = fuse()
            core = blender.add(tile, sharp[:, tile.rows.crop, tile.cols.crop])
            inner = tuple(
                slice(span.core[0] - span.read[0], span.core[1] - span.read[0]) for span in (tile.rows, tile.cols)
            )
            ends = tile.cols.core[1] == scene.grid.width
            yield SharpTile(
                tile,
                core,
                valid[:, *inner],
                partial(judgement, sharp, tile.rows.core, tile.cols.core),
                blender.pending() if ends else None,
            )


def make_tiling(
    tile: int = DEFAULT_TILE, halo: int | str = DEFAULT_HALO, blend: int = DEFAULT_BLEND, reach: int = 0
) -> Tiling:
    """The tiling asked for, made to fit the networks' stride and the output's blocks; halo "full" is `reach`.

    Raises UsageError.
    """
    if halo == "full":
        halo = reach
    if isinstance(halo, str) or halo < 0:
        raise UsageError(f"--halo {halo}: expected a number of PAN pixels or 'full'", "leave it out")
    if tile < TILE or tile % TILE:
        raise UsageError(
            f"--tile {tile}: tiles are multiples of {TILE} pixels", f"use {DEFAULT_TILE}, or {TILE} to save memory"
        )
    if not 0 < blend <= tile // 2:
        raise UsageError(f"blend {blend}: expected 1 to {tile // 2} PAN pixels", "leave it out")
    return Tiling(tile, -(-min(halo, reach) // STRIDE) * STRIDE, blend)


@contextmanager
def _read_ahead(tiles: Iterator[Tile], read: Callable[[Tile], _Read]) -> Iterator[Iterator[tuple[Tile, _Read]]]:
    """Iterate over tiles with what a thread reads and prepares for them, one tile ahead."""
    with ThreadPoolExecutor(1) as pool:

        def results() -> Iterator[tuple[Tile, _Read]]:
            ahead: tuple[Tile, Future[_Read]] | None = None
            for tile in tiles:
                coming = tile, pool.submit(read, tile)
                if ahead is not None:
                    yield ahead[0], ahead[1].result()
                ahead = coming
            if ahead is not None:
                yield ahead[0], ahead[1].result()

        yield results()
