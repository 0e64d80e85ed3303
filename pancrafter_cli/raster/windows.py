"""Which windows of a raster to look at."""

from __future__ import annotations

import math
from collections.abc import Iterator

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


def _starts(length: int, size: int, count: int) -> list[int]:
    """`count` starts of windows, the first and last of them touching the ends."""
    room = max(0, length - size)
    if count == 1:
        return [room // 2]
    return [round(k * room / (count - 1)) for k in range(count)]
