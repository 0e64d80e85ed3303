"""Which windows of a raster to look at, and reading them without holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.fill import FILL_REACH, fill_invalid

Float32 = NDArray[np.float32]
Window = tuple[int, int, int, int]  # row, column, height, width


def all_windows(height: int, width: int, size: int) -> Iterator[Window]:
    """Windows of `size` pixels that cover a raster once, row by row; those at the far edges are smaller."""
    for row in range(0, height, size):
        for col in range(0, width, size):
            yield row, col, min(size, height - row), min(size, width - col)


def spread_windows(height: int, width: int, size: int, most: int) -> list[Window]:
    """At most `most` windows of `size` pixels spread evenly over a raster; all of it when that is no more."""
    down, across = math.ceil(height / size), math.ceil(width / size)
    if down * across <= most:
        return list(all_windows(height, width, size))
    rows = min(down, max(1, round(math.sqrt(most * down / across))))
    cols = min(across, max(1, most // rows))
    rows = min(down, max(1, most // cols))
    return [
        (row, col, min(size, height), min(size, width))
        for row in _starts(height, size, rows)
        for col in _starts(width, size, cols)
    ]


def window_of(rows: tuple[int, int], cols: tuple[int, int]) -> Window:
    """The window of rows and columns [start, stop)."""
    return rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0]


def read_filled(
    read: Callable[[int, int, int, int], tuple[Float32, NDArray[np.bool_]]],
    rows: tuple[int, int],
    cols: tuple[int, int],
    shape: tuple[int, int],
    fallback: NDArray[np.floating],
) -> tuple[Float32, NDArray[np.bool_]]:
    """The window rows x cols, both [start, stop), of a raster of `shape` with its holes filled, and where it had none.

    `read` gives (C, h, w) in DN and validity of (row, column, height, width); it is asked for the margin from which
    holes are filled too. fallback: (C,), for holes with nothing near them.
    """
    y0, y1 = max(0, rows[0] - FILL_REACH), min(shape[0], rows[1] + FILL_REACH)
    x0, x1 = max(0, cols[0] - FILL_REACH), min(shape[1], cols[1] + FILL_REACH)
    image, valid = read(y0, x0, y1 - y0, x1 - x0)
    filled = fill_invalid(image, valid, fallback)
    part = np.s_[:, rows[0] - y0 : rows[1] - y0, cols[0] - x0 : cols[1] - x0]
    return filled[part], valid[part]


def _starts(length: int, size: int, count: int) -> list[int]:
    """`count` starts of windows, the first and last of them touching the ends."""
    room = max(0, length - size)
    if count == 1:
        return [room // 2]
    return [round(k * room / (count - 1)) for k in range(count)]
