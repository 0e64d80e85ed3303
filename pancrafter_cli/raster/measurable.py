"""What scene-wide numbers are measured on: windows spread over a scene, with the PAN under them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.fill import fill_invalid
from pancrafter_cli.geometry.grid import AxisMap, Grid, GridMap
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.inputs import Block
from pancrafter_cli.raster.windows import Window, all_windows, spread_windows

FloatArray = NDArray[np.float64]

WINDOW = 64  # MS pixels
MOST_WINDOWS = 100
_LARGEST_PAN_WINDOW = 2048
# Dead pixels here and there can be told from those around them, up to this share of the weight of the PAN pixels that
# make an MS pixel: they come out smoother than they were. A pixel is one of a hole where more of its 3 x 3 are missing.
_MOST_DEAD, _MOST_TOGETHER = 0.05, 3
_AROUND = np.ones((1, 3, 3), np.uint8)


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


@dataclass(frozen=True)
class PanUnder:
    """PAN (1, h, w) in DN under a window of MS pixels, its gaps filled, which of it is valid, and how it lies there.

    relation: from the grid of MS to that of PAN; first: row and column of the upper left pixel there.
    """

    window: Window
    relation: GridMap
    first: tuple[int, int]
    pan: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def on_ms(self, gain: float) -> tuple[FloatArray, NDArray[np.bool_]]:
        """PAN degraded to the MS pixels (1, h, w), and which of those draw on no hole of PAN.

        gain: of the blur at the MS Nyquist frequency, at least the one that this was read for.
        """
        row, col, height, width = self.window
        axes = (self.relation.rows, row, height), (self.relation.cols, col, width)
        weights = [degrade_weights(axis, start, start + size, gain) for axis, start, size in axes]
        used = tuple(slice(w.first - f, w.stop - f) for w, f in zip(weights, self.first, strict=True))
        low = apply_weights(weights[0].matrix, weights[1].matrix, self.pan[:, *used].astype(np.float64))
        on_pan = np.logical_and.outer(*(_centres_inside(*axis) for axis in axes))
        if self.valid.all():
            return low, on_pan[None]
        sizes = [np.abs(w.matrix) for w in weights]
        touched = [(size > 0).astype(np.float64) for size in sizes]
        missing = ~self.valid[:, *used]
        dead = missing & (ndimage.convolve(missing.astype(np.uint8), _AROUND) <= _MOST_TOGETHER)
        holes = apply_weights(touched[0], touched[1], (missing & ~dead).astype(np.float64))
        share = apply_weights(sizes[0], sizes[1], dead.astype(np.float64))
        return low, (holes < 0.5) & (share <= _MOST_DEAD) & on_pan


def pan_under(scene: Measurable, window: Window, gain: float) -> PanUnder:
    """PAN under a window of MS pixels, as far around as blurs of `gain` or more reach."""
    row, col, height, width = window
    relation = scene.ms_map.inverse()
    rows = degrade_weights(relation.rows, row, row + height, gain)
    cols = degrade_weights(relation.cols, col, col + width, gain)
    stored, valid = scene.read_pan(rows.first, cols.first, rows.matrix.shape[1], cols.matrix.shape[1])
    pan = fill_invalid(stored, valid, stored.sum(axis=(1, 2), dtype=np.float64) / max(int(valid.sum()), 1))
    return PanUnder(window, relation, (rows.first, cols.first), pan, valid)


def _centres_inside(axis: AxisMap, start: int, size: int) -> NDArray[np.bool_]:
    """Whether the centres of target pixels start..start+size-1 lie inside the source (size,)."""
    centres = axis.centres(start, start + size)
    return (centres > 0) & (centres < axis.src_size)
