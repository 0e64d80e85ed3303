"""A scene written while it is computed: tiles are judged, compressed and written by threads, in bounded number.

Reading, the network, compression and the disk each work on a tile of their own. Tiles are compressed in any order and
written in theirs, so that the file does not depend on the threads.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.tiling import Tile
from pancrafter_cli.raster.outputs import Outputs
from pancrafter_cli.raster.writer import Encoded
from pancrafter_cli.tasks.tiles import SharpTile

Progress = Callable[[int, int], None]

_MOST_ENCODERS = 8  # threads that compress; more than any disk takes


@dataclass(frozen=True)
class Total:
    """Shares of a whole scene: valid pixels, and MS pixels that drift and disagree (see `Judge`)."""

    valid: float
    drifting: float
    disagreeing: float


@dataclass(frozen=True)
class _Ready:
    """A tile as the files will hold it, and what it adds to the sums."""

    blocks: tuple[Encoded, ...]
    numbers: Counter[str]


def write_tiles(tiles: Iterable[SharpTile], rows: int, outputs: Outputs, progress: Progress) -> Total:
    """Write the tiles of a whole scene, or of what an earlier run has left of it, and its confidence.

    rows: of tiles in the whole scene. `progress` gets (pixels done, pixels in all). Raises what goes wrong in any
    thread; what was not written by then is not written any more.
    """
    grid = outputs.product.spec.grid
    encoders = min(_MOST_ENCODERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    writing = _Writing(outputs, rows)
    with _pool(encoders, "encode") as encoding, _pool(1, "write") as disk:
        waiting: deque[tuple[Tile, Future[None]]] = deque()

        def settle(most: int) -> None:
            while waiting and (len(waiting) > most or waiting[0][1].done()):
                tile, written = waiting.popleft()
                written.result()
                progress(tile.rows.core[0] * grid.width + _area(tile), grid.width * grid.height)

        for tile in tiles:
            ready = encoding.submit(_encode, tile, outputs)
            waiting.append((tile.tile, disk.submit(writing.write, ready, tile.pending)))
            settle(encoders + 1)
        settle(0)
    return writing.total


class _Writing:
    """Writes tiles in their order, in one thread, and keeps the sums."""

    def __init__(self, outputs: Outputs, rows: int) -> None:
        self._outputs, self._all_rows = outputs, rows
        self._numbers = Counter(outputs.begun.numbers if outputs.begun is not None else {})
        self._rows = outputs.begun.rows if outputs.begun is not None else 0
        self._failed = False

    def write(self, ready: Future[_Ready], pending: NDArray[np.float32] | None) -> None:
        """Write a tile once it is ready; at the end of a row of tiles the run can be gone on with from there."""
        if self._failed:
            return  # no later tile may follow one that is missing
        try:
            done = ready.result()
            for writer, block in zip(self._outputs.writers, done.blocks, strict=True):
                writer.append(block)
            self._numbers += done.numbers
            if pending is not None:
                self._rows += 1
                self._outputs.commit(self._rows, self._all_rows, self._numbers, pending)
        except BaseException:
            self._failed = True
            raise

    @property
    def total(self) -> Total:
        """The sums as shares of the scene."""
        spec, n = self._outputs.product.spec, self._numbers
        counted = max(n["counted"], 1)
        valid = n["valid"] / (len(spec.bands) * spec.grid.width * spec.grid.height)
        return Total(valid, n["drifting"] / counted, n["disagreeing"] / counted)


def _encode(tile: SharpTile, outputs: Outputs) -> _Ready:
    """Judge and compress a tile."""
    judgement = tile.judge()
    row, col = tile.tile.rows.core[0], tile.tile.cols.core[0]
    blocks = [outputs.product.encode(row, col, tile.core, tile.valid)]
    if outputs.layer is not None and judgement.confidence is not None:
        all_valid = np.asarray(tile.valid.all(axis=0, keepdims=True))
        blocks.append(outputs.layer.encode(row, col, judgement.confidence[None], all_valid))
    numbers = Counter(
        valid=int(tile.valid.sum()),
        counted=judgement.counted,
        drifting=judgement.drifting,
        disagreeing=judgement.disagreeing,
    )
    return _Ready(tuple(blocks), numbers)


def _area(tile: Tile) -> int:
    """Pixels of this row of tiles that are done once `tile` is."""
    return (tile.rows.core[1] - tile.rows.core[0]) * tile.cols.core[1]


@contextmanager
def _pool(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that end with the context; on an error what they have not begun is dropped."""
    pool = ThreadPoolExecutor(threads, name)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
