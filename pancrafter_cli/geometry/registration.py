"""Measuring how far MS lies from where the transforms say it lies: many windows, one robust shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.fill import fill_invalid
from pancrafter_cli.geometry.grid import AxisMap, GridMap, overlap
from pancrafter_cli.geometry.matching import (
    SEARCH,
    WANDER,
    BoolArray,
    FloatArray,
    Sample,
    WindowShift,
    match,
    pan_reach,
    peak,
    surface,
    texture,
)

Window = tuple[int, int, int, int]  # row, column, height, width
Read = tuple[NDArray[np.float32], BoolArray]

MIN_WINDOWS = 3
MAX_SPREAD = 0.5  # MS pixels
# Of 40 real scenes the least common share was 0.61 as delivered. With MS moved by 18 to 25 MS pixels 65 of 76 stayed
# at or below 0.25; those above had windows that disagree, or an overlap of a few MS pixels.
_UNRELATED = 0.25
_TEXTURED = 0.5
_MAX_ERROR = 0.15
_WINDOW, _SMALL_WINDOW, _SMALLEST_WINDOW = 64, 24, 16  # MS pixels
_LEAST_SEVERAL, _ROOM = 18, 4  # MS pixels: the least window of several, and how much longer the overlap then is
_LARGEST_PAN_WINDOW = 2048
_FEWEST_STARTS, _MOST_STARTS = 3, 8  # windows per axis; those of small scenes overlap
_MOST_BANDS = 12


class Readable(Protocol):
    """A PAN and MS pair that is read by the window."""

    @property
    def ms_map(self) -> GridMap:
        """Relation of PAN pixels to MS pixels."""

    @property
    def ratio(self) -> float:
        """MS pixel size over PAN pixel size."""

    def read_pan(self, row: int, col: int, height: int, width: int) -> Read:
        """PAN (1, h, w) and which of it is valid."""

    def read_ms(self, row: int, col: int, height: int, width: int) -> Read:
        """MS (C, h, w) and which of it is valid."""


@dataclass(frozen=True)
class Shift:
    """How far the content of MS lies from that of PAN, in MS pixels (x right, y down), and how sure that is.

    `spread` is 1.4826 times the median distance from the shift of the windows that could be matched; `windows` says
    how many those were (0: nothing could be measured, dx = dy = 0) of those `looked` at; `error` is the standard
    error that follows. `common` and `texture` are the medians of what `WindowShift` tells, 0 where no window does.
    """

    dx: float
    dy: float
    spread: float
    windows: int
    looked: int
    error: float
    common: float = 0.0
    texture: float = 0.0

    @property
    def textured(self) -> bool:
        """Whether there is detail by which PAN and MS could be matched."""
        return self.looked >= MIN_WINDOWS and self.texture >= _TEXTURED

    @property
    def unrelated(self) -> bool:
        """Whether PAN shows nothing of the detail of MS at any shift that was looked at."""
        return self.textured and self.common < _UNRELATED

    @property
    def disagrees(self) -> bool:
        """Whether windows were matched but tell different shifts."""
        return self.windows >= MIN_WINDOWS and self.spread > MAX_SPREAD

    @property
    def reliable(self) -> bool:
        """Whether enough windows tell one shift."""
        return self.windows >= MIN_WINDOWS and self.spread <= MAX_SPREAD and self.error <= _MAX_ERROR


def window_shifts(pair: Readable) -> list[WindowShift]:
    """The shift in each of at most 64 windows spread over the pair, matched or not; without those that lack pixels.

    Shifts up to 12 MS pixels are found. Memory is that of one window.
    """
    known: dict[Window, tuple[FloatArray, float]] = {}
    for window in _windows(pair):
        sample = _read(pair, window, SEARCH)
        explained = surface(sample)
        if explained is not None:
            known[window] = explained, texture(sample)
    if not known:
        return []
    shared = peak(np.sum([explained for explained, _ in known.values()], axis=0))
    return [
        replace(_window_shift(pair, window, explained, shared), common=_peak_height(explained, detail), texture=detail)
        for window, (explained, detail) in known.items()
    ]


def summarise(shifts: Sequence[WindowShift]) -> Shift:
    """The pseudo-median of matched windows' shifts (median of the means of all pairs) and their scatter around it.

    It resists outliers as the median does, and does not jump where the windows fall into two groups
    (Hodges and Lehmann 1963).
    """
    found = [w for w in shifts if w.matched]
    common, detail = (_median([getattr(w, name) for w in shifts]) for name in ("common", "texture"))
    if not found:
        return Shift(0.0, 0.0, math.inf, 0, len(shifts), math.inf, common, detail)
    points = np.array([(w.dy, w.dx) for w in found])
    first, second = np.triu_indices(len(points))
    dy, dx = np.median((points[first] + points[second]) / 2, axis=0)
    spread = 1.4826 * float(np.median(np.hypot(points[:, 0] - dy, points[:, 1] - dx)))
    sigma = float(np.median([w.sigma for w in found]))
    error = math.hypot(spread, sigma) / math.sqrt(len(found))
    return Shift(float(dx), float(dy), spread, len(found), len(shifts), error, common, detail)


def _peak_height(explained: FloatArray, detail: float) -> float:
    """The greatest share explained at any shift; NaN where PAN is flat, which says nothing."""
    return math.nan if math.isnan(detail) else float(explained.max())


def _median(values: Sequence[float]) -> float:
    """The median of those that are numbers, 0 without any."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.median(known)) if known else 0.0


def _windows(pair: Readable) -> list[Window]:
    """Windows (row, col, height, width) of the MS grid, where it lies on PAN."""
    to_pan = pair.ms_map.inverse()
    (top, bottom), (left, right) = overlap(to_pan.rows), overlap(to_pan.cols)
    height, width = bottom - top, right - left
    if min(height, width) < _SMALLEST_WINDOW:
        return []
    size = min(_WINDOW, max(_SMALL_WINDOW, min(height, width) // 2), max(8, int(_LARGEST_PAN_WINDOW / pair.ratio)))
    # Where a window would fill the overlap, smaller ones, of which there are several, can agree.
    tall, wide = (min(size, length, max(_LEAST_SEVERAL, length - _ROOM)) for length in (height, width))
    return [(top + y, left + x, tall, wide) for y in _starts(height, tall) for x in _starts(width, wide)]


def _window_shift(pair: Readable, window: Window, explained: FloatArray, shared: tuple[float, float]) -> WindowShift:
    """The match of a window, from the start that all windows together point to or else from its own."""

    def match_from(start: tuple[float, float]) -> WindowShift:
        return match(_read(pair, window, max(abs(d) for d in start) + WANDER + 0.5), start)

    own = peak(explained)
    best = match_from(shared)
    if own != shared and best.fit < explained.max():
        best = max(best, match_from(own), key=lambda m: m.fit)
    return best


def _starts(length: int, size: int) -> list[int]:
    """Starts of windows along an axis, the first and last of them touching the ends."""
    count = max(_FEWEST_STARTS, min(_MOST_STARTS, -(-length // size)))
    return sorted({int(s) for s in np.linspace(0, length - size, count)})


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """At most so many of `count` bands, evenly spread, the first and the last among them: their indices (n,)."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)


def _read(pair: Readable, window: Window, margin: float) -> Sample:
    """A window of MS, and the PAN under it and under `margin` MS pixels around it."""
    row, col, height, width = window
    to_pan = pair.ms_map.inverse()
    (top, rows), (left, cols) = _under(to_pan.rows, row, height, margin), _under(to_pan.cols, col, width, margin)
    pan, pan_valid = pair.read_pan(top, left, rows.src_size, cols.src_size)
    ms, ms_valid = pair.read_ms(*window)
    # A band that is valid nowhere in the window says nothing, and must not silence the others.
    bands = np.flatnonzero(ms_valid.any(axis=(1, 2)))
    bands = bands[evenly(len(bands), _MOST_BANDS)]
    valid = np.logical_and.reduce(ms_valid[bands]) if len(bands) else np.zeros((height, width), dtype=bool)
    return Sample(
        # Dead pixels here and there take away next to nothing.
        _centred(fill_invalid(pan, pan_valid, np.zeros(1)), pan_valid[0])[0],
        pan_valid[0],
        _centred(ms[bands], valid),
        valid,
        GridMap(rows, cols),
        (row + height / 2, col + width / 2),
    )


def _under(axis: AxisMap, start: int, size: int, margin: float) -> tuple[int, AxisMap]:
    """First PAN pixel to read for MS pixels start..start+size-1, and the relation of those two windows."""
    reach = pan_reach(abs(axis.scale)) + margin * abs(axis.scale)
    centres = axis.centres(start, start + size)
    first = min(max(0, math.floor(centres.min() - reach)), axis.src_size - 1)
    last = max(min(axis.src_size, math.ceil(centres.max() + reach)), first + 1)
    return first, AxisMap(axis.scale, axis.scale * start + axis.offset - first, size, last - first)


def _centred(image: NDArray[np.float32], valid: BoolArray) -> FloatArray:
    """Image (C, h, w) less its mean over valid (h, w), 0 where invalid."""
    wide = np.where(valid, image, 0).astype(np.float64)
    return np.asarray(np.where(valid, wide - wide.sum(axis=(1, 2), keepdims=True) / max(valid.sum(), 1), 0.0))
