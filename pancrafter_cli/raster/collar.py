"""Undeclared collars: a constant value around the image that nothing declares as nodata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.raster.spec import as_dtype
from pancrafter_cli.raster.windows import all_windows

Bools = NDArray[np.bool_]

# What collars are made of. White (255, 65535) is left out: saturated clouds reach the border too.
_VALUES = (0.0, -9999.0, -32768.0)
_WINDOW = 1024


class Pixels(Protocol):
    """Anything that gives windows of pixels with their validity."""

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.float32], Bools]:
        """Pixels (C, h, w) in DN, 0 where invalid, and which are valid (C, h, w)."""


@dataclass(frozen=True)
class Collar:
    """Where an image begins and ends in each row and each column of its raster.

    `value` is the collar's DN. `rows` (2, height) holds the first column with data and one past the last, `cols`
    (2, width) the same for rows. All else is collar: blank pixels, that is of this value or invalid in all bands,
    from which only blank pixels lead along the row or along the column to the border. So blank areas inside
    the image stay, whatever window is read.
    """

    value: float
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]

    def covers(self, row: int, col: int, height: int, width: int) -> Bools:
        """Which pixels of a window belong to the collar (h, w)."""
        y, x = np.arange(row, row + height)[:, None], np.arange(col, col + width)[None, :]
        left, right = self.rows[:, row : row + height, None]
        top, bottom = self.cols[:, None, col : col + width]
        covered: Bools = (x < left) | (x >= right) | (y < top) | (y >= bottom)
        return covered


def find_collar(source: Pixels, shape: tuple[int, int], dtype: str) -> Collar | None:
    """The collar of a raster of `shape`, None when no corner of it is blank in all bands.

    Reads the raster once, window by window; memory grows with its sides only.
    """
    value = _corner_value(source, shape, dtype)
    if value is None:
        return None
    height, width = shape
    rows = np.stack([np.full(height, width), np.zeros(height, int)])
    cols = np.stack([np.full(width, height), np.zeros(width, int)])
    for window in all_windows(height, width, _WINDOW):
        image, valid = source.read(*window)
        data = (valid & (image != value)).any(axis=0)
        row, col, h, w = window
        _widen(rows[:, row : row + h], data, col)
        _widen(cols[:, col : col + w], data.T, row)
    return Collar(value, rows, cols)


def _corner_value(source: Pixels, shape: tuple[int, int], dtype: str) -> float | None:
    """The value out of `_VALUES` that all bands hold in some corner, None when there is none."""
    height, width = shape
    for value in _VALUES:
        if as_dtype(value, dtype) is None:
            continue
        for row, col in ((0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)):
            pixel, valid = source.read(row, col, 1, 1)
            if (valid & (pixel == value)).all():
                return value
    return None


def _widen(ends: NDArray[np.int64], data: Bools, start: int) -> None:
    """Widen the first and past-last positions (2, n) by the data (n, m) that lies from `start` on."""
    some = data.any(axis=1)
    first = start + data.argmax(axis=1)
    stop = start + data.shape[1] - data[:, ::-1].argmax(axis=1)
    np.minimum(ends[0], first, out=ends[0], where=some)
    np.maximum(ends[1], stop, out=ends[1], where=some)
