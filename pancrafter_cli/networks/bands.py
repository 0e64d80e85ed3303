"""Going through the rows of an image: a band of them for every thread, strips of a band one after another.

Each thread computes alone from the first operation of a block to the last. Sharing out every single operation instead,
as torch does by itself, has all threads wait for each other thousands of times a tile, and where another program
needs a core every one of those waits costs a turn of the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import torch
from torch import Tensor

from pancrafter_cli.networks.strips import Rows, joined_rows

# Of one array of a strip: a few of them stay in the cache, and the rows that neighbours compute twice are few.
_STRIP_BYTES = 2 << 20
_MIN_ROWS = 8


def in_strips(out: Tensor, compute: Callable[[int, int], Tensor], width: int | None = None) -> Tensor:
    """Fill out (1, C, H, W): its rows [start, stop) with `compute(start, stop)`, strip after strip on all threads.

    width: channels of the widest array that is computed on the way, where that is not out.
    """

    def band(first: int, last: int) -> None:
        for start, stop in _strips(out, first, last, width or out.shape[1]):
            out[:, :, start:stop] = compute(start, stop)

    _on_all_threads(out, band)
    return out


def in_place(x: Tensor, halo: int, compute: Callable[[Rows, int, int], Tensor]) -> Tensor:
    """Replace the rows [start, stop) of x (1, C, H, W) by `compute(rows, start, stop)`, as `in_strips`.

    rows: those and, within the image, `halo` <= 8 on both sides, as they were before any was replaced.
    """
    height = x.shape[2]
    # What lies on both sides of the borders of bands, which another thread may have replaced by the time it is needed.
    kept = {edge: x[:, :, max(0, edge - halo) : edge + halo].clone() for edge in _edges(x)}

    def band(first: int, last: int) -> None:
        above, below = kept[first][:, :, : min(halo, first)], kept[last][:, :, halo:]
        for start, stop in _strips(x, first, last, x.shape[1]):
            lo, hi = max(0, start - halo), min(height, stop + halo)
            data = x[:, :, start:stop]
            if halo:
                data = joined_rows([above, x[:, :, start : min(hi, last)], below[:, :, : max(0, hi - last)]])
                above = x[:, :, stop - halo : stop].clone()
            x[:, :, start:stop] = compute(Rows(data, lo, hi, height), start, stop)

    _on_all_threads(x, band)
    return x


def _on_all_threads(x: Tensor, band: Callable[[int, int], None]) -> None:
    edges = _edges(x)
    if len(edges) == 2:
        band(*edges)
        return

    def work(first: int, last: int) -> None:
        with torch.inference_mode():
            band(first, last)

    list(_workers(torch.get_num_threads()).map(work, edges[:-1], edges[1:]))


def _edges(x: Tensor) -> list[int]:
    """Where the bands of an image begin, and where the last one ends: as many bands as threads, if it has the rows."""
    height = x.shape[2]
    count = max(1, min(torch.get_num_threads(), height // _MIN_ROWS))
    return [height * k // count for k in range(count + 1)]


def _strips(x: Tensor, first: int, last: int, width: int) -> Iterator[tuple[int, int]]:
    """[start, stop) of the strips of a band; the last one may be shorter."""
    rows = max(_MIN_ROWS, _STRIP_BYTES // (width * x.shape[3] * x.element_size()))
    for start in range(first, last, rows):
        yield start, min(start + rows, last)


@lru_cache(maxsize=1)
def _workers(count: int) -> ThreadPoolExecutor:
    """Threads that compute alone. Whoever made them keeps the number of threads torch has."""
    pool = ThreadPoolExecutor(count, "pancrafter", _compute_alone)
    everyone = Barrier(count)
    list(pool.map(lambda _: everyone.wait(), range(count)))
    torch.set_num_threads(count)  # setting it in a thread also sets what threads to come begin with
    return pool


def _compute_alone() -> None:
    torch.get_num_threads()  # when it first asks, a thread takes over the general number; what it sets after stays
    torch.set_num_threads(1)
