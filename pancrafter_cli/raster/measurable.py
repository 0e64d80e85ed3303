"""What scene-wide numbers are measured on: windows spread over a scene, with PAN brought to the MS grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import AxisMap, Grid, GridMap
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.inputs import Block
from pancrafter_cli.raster.windows import Window, all_windows, spread_windows

FloatArray = NDArray[np.float64]

WINDOW = 64  # MS pixels
MOST_WINDOWS = 100
_LARGEST_PAN_WINDOW = 2048


class Measurable(Protocol):
    """What of a scene the statistics are taken from."""

    grid: Grid
    ms_map: GridMap
    ratio: float
    bands: int

    def read_pan(self, row: int, col: int, height: int, width: int) -> Block:
        """PAN of an output window and its validity."""

    def read_ms(self, row: int, col: int, height: int, width: int) -> Block:
        """MS of a window of the MS grid and its validity."""

    def valid(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Which pixels of an output window are valid, per band."""

    def ms_window_under(self, row: int, col: int, height: int, width: int) -> Window:
        """The MS window under an output window."""

    def window_over(self, row: int, col: int, height: int, width: int) -> Window:
        """The output window over an MS window."""


def measuring_windows(scene: Measurable) -> tuple[list[Window], Iterator[Window]]:
    """Windows of the MS raster to look at, and all there are; both only where the output grid lies."""
    top, left, height, width = scene.ms_window_under(0, 0, *scene.grid.shape)
    size = max(4, min(WINDOW, int(_LARGEST_PAN_WINDOW / scene.ratio)))

    def shifted(windows: list[Window] | Iterator[Window]) -> Iterator[Window]:
        return ((row + top, col + left, h, w) for row, col, h, w in windows)

    return (
        list(shifted(spread_windows(height, width, size, MOST_WINDOWS))),
        shifted(all_windows(height, width, size)),
    )


def pan_on_ms(
    scene: Measurable, window: Window, gain: float, shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """PAN degraded to a window of MS pixels (1, h, w), and which of those draw on valid PAN pixels only.

    gain: of the blur at the MS Nyquist frequency. shift: (dy, dx), MS pixels by which MS content lies further down and
    right there than the scene says.
    """
    row, col, height, width = window
    dy, dx = shift
    inverse = GridMap(scene.ms_map.rows.shifted(dy), scene.ms_map.cols.shifted(dx)).inverse()
    rows = degrade_weights(inverse.rows, row, row + height, gain)
    cols = degrade_weights(inverse.cols, col, col + width, gain)
    pan, valid = scene.read_pan(rows.first, cols.first, rows.matrix.shape[1], cols.matrix.shape[1])
    low: FloatArray = apply_weights(rows.matrix, cols.matrix, pan.astype(np.float64)).astype(np.float64)
    on_pan = _centres_inside(inverse.rows, row, height)[:, None] & _centres_inside(inverse.cols, col, width)
    if valid.all():
        return low, on_pan[None]
    touched = [(axis.matrix != 0).astype(np.float64) for axis in (rows, cols)]
    gaps = apply_weights(touched[0], touched[1], (~valid).astype(np.float64))
    return low, (gaps < 0.5) & on_pan


def _centres_inside(axis: AxisMap, start: int, size: int) -> NDArray[np.bool_]:
    """Whether the centres of target pixels start..start+size-1 lie inside the source (size,)."""
    centres = axis.scale * (np.arange(start, start + size) + 0.5) + axis.offset
    return (centres > 0) & (centres < axis.src_size)
