"""Classical methods on scenes: fitted once to samples of the whole scene, then fused window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.classical.fusion import Fusion, Unsharpened
from pancrafter_cli.classical.methods import fit
from pancrafter_cli.classical.moments import SceneSampler
from pancrafter_cli.errors import RasterError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, blur_weights, degrade_weights, mtf_sigma
from pancrafter_cli.geometry.grid import AxisMap, overlap
from pancrafter_cli.geometry.inputs import lowpass, plan_inputs
from pancrafter_cli.geometry.resample import AxisWeights, apply_weights
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.windows import Window, all_windows, spread_windows
from pancrafter_cli.tasks.tile_inputs import Span, everywhere_known, read_filled_ms, read_filled_pan, read_guided_ms

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Low = tuple[float, int | None]  # MTF at MS Nyquist with which PAN is blurred, and for which band, None for all

_MOST_SAMPLES = 4_000_000  # PAN pixels
_WINDOW = 64  # MS pixels
_LARGEST_PAN_WINDOW = 1024
_LEAST_PER_BAND = 4  # MS pixels for each unknown of a regression
_SUPPORTED = 0.999  # share of an MS pixel's weight that must fall on valid PAN


@dataclass(frozen=True)
class ClassicalFuser:
    """A classical method fitted to a scene; gains: MTF at MS Nyquist of each band."""

    fusion: Fusion
    gains: tuple[float, ...]

    def fuse(self, scene: Scene, rows: Span, cols: Span) -> Float32:
        """Sharp image (C, h, w) in DN of the output window rows x cols, both [start, stop).

        Holes are filled from around them before resampling. No pixel depends on the window it is computed in.
        """
        lows = [(gain, band) for band, gain in enumerate(self.gains)]
        pan, lms, low = _read_fine(scene, rows, cols, lows if self.fusion.uses_low else ())
        return self.fusion.apply(pan, lms, low if self.fusion.uses_low else pan)


def fit_classical(scene: Scene, method: str, gains: Sequence[float], pan_gain: float) -> ClassicalFuser:
    """Fit a method to a scene: to all of it, or to windows of 4 million PAN pixels in all spread evenly over it.

    gains: MTF at MS Nyquist of each band; pan_gain: that of PAN. Raises UsageError when there is no such method
    and RasterError when too few pixels are valid in PAN and all bands, or their sums overflow.
    """
    if method == "exp":
        return ClassicalFuser(Unsharpened(), tuple(gains))
    sampler = _sampled(scene, _spread(scene), gains, pan_gain)
    least = _LEAST_PER_BAND * (scene.bands + 2)
    if min(sampler.counts) < least:
        # What is valid lies between the windows.
        sampler = _sampled(scene, _everywhere(scene), gains, pan_gain)
    if min(sampler.counts) < least:
        raise RasterError(
            f"only {min(sampler.counts)} pixels of MS are valid in all bands and in PAN; "
            f"'{method}' is fitted to {least} or more",
            "check the nodata values and masks of both (gdalinfo -stats shows them)",
        )
    moments = sampler.result()
    if not (np.isfinite(moments.fine.scatter).all() and np.isfinite(moments.coarse.scatter).all()):
        raise RasterError(
            f"'{method}' cannot be fitted: PAN or MS hold numbers so large that sums of them overflow",
            "declare fill values as nodata, or divide both files by a constant",
        )
    return ClassicalFuser(fit(method, moments), tuple(gains))


def _sampled(scene: Scene, windows: Iterator[Window], gains: Sequence[float], pan_gain: float) -> SceneSampler:
    """Moments of windows of MS pixels, until there are enough."""
    sampler = SceneSampler(scene.bands)
    for window in windows:
        if sampler.counts[0] >= _MOST_SAMPLES:
            break
        over = scene.window_over(*window)
        if not over[2] * over[3]:
            continue
        use = np.all(scene.valid(*over), axis=0)
        if use.any():
            _add_fine(sampler, scene, over, use, gains)
            _add_coarse(sampler, scene, window, gains, pan_gain)
    return sampler


def _add_fine(sampler: SceneSampler, scene: Scene, window: Window, use: Mask, gains: Sequence[float]) -> None:
    """Add the PAN pixels `use` (h, w) of an output window."""
    row, col, height, width = window
    everything = [(DEFAULT_MS_GAIN, None), *((gain, band) for band, gain in enumerate(gains))]
    pan, lms, low = _read_fine(scene, (row, row + height), (col, col + width), everything)
    sampler.add_fine(use, pan, low[:1], lms, low[1:])


def _add_coarse(sampler: SceneSampler, scene: Scene, window: Window, gains: Sequence[float], pan_gain: float) -> None:
    """Add a window of MS pixels. MS takes the place of MS degraded: it has that resolution and is measured."""
    row, col, height, width = window
    low, supported = _pan_at_ms(scene, window, (DEFAULT_MS_GAIN, pan_gain))
    rows, cols = (
        [
            blur_weights(AxisMap(1.0, 0.0, size, size), start, start + length, mtf_sigma(1 / abs(scale), g))
            for g in gains
        ]
        for start, length, size, scale in (
            (row, height, scene.ms_grid.height, scene.ms_map.rows.scale),
            (col, width, scene.ms_grid.width, scene.ms_map.cols.scale),
        )
    )
    y, x = _span(rows), _span(cols)
    wide, valid = read_filled_ms(scene, y, x)
    inner = np.s_[:, row - y[0] : row - y[0] + height, col - x[0] : col - x[0] + width]
    blurred = np.concatenate(
        [_weighted(r, c, wide[b : b + 1], (y[0], x[0])) for b, (r, c) in enumerate(zip(rows, cols, strict=True))]
    )
    ms = wide[inner]
    sampler.add_coarse(np.all(valid[inner], axis=0) & supported, low[:1], low[1:], ms, ms, blurred)


def _read_fine(scene: Scene, rows: Span, cols: Span, lows: Sequence[Low]) -> tuple[Float32, Float32, Float32]:
    """PAN (1, H, W), lms (C, H, W) and PAN brought to MS resolution and back as `lows` says (len(lows), H, W)."""
    gains = {gain for gain, _ in lows} or {DEFAULT_MS_GAIN}
    plans = {gain: plan_inputs(scene.ms_map, rows, cols, gain) for gain in gains}
    any_plan = plans[min(plans)]
    ms, _, known = read_guided_ms(scene, any_plan.rows.ms, any_plan.cols.ms)
    if known is not None:
        plans = {gain: plan_inputs(scene.ms_map, rows, cols, gain, holes=True) for gain in gains}
    by_band = known is not None and len(known) > 1
    widest = plans[min(plans)]  # the lower the gain, the wider the blur
    r, c = widest.rows, widest.cols
    pan, _ = read_filled_pan(scene, r.pan, c.pan)

    @cache  # one blur serves all bands that have its gain and the same holes
    def low_of(gain: float, band: int | None) -> Float32:
        own = plans[gain].rows.pan, plans[gain].cols.pan
        part = tuple(slice(a - s[0], b - s[0]) for (a, b), s in zip(own, (r.pan, c.pan), strict=True))
        if known is None:
            return lowpass(plans[gain], pan[:, *part])
        return lowpass(plans[gain], pan[:, *part], everywhere_known(known) if band is None else known[band : band + 1])

    sharp = pan[:, r.crop, c.crop]
    low = np.concatenate([sharp[:0], *(low_of(gain, band if by_band else None) for gain, band in lows)])
    return sharp, apply_weights(r.up.matrix, c.up.matrix, ms), low


def _pan_at_ms(scene: Scene, window: Window, gains: Sequence[float]) -> tuple[Float32, Mask]:
    """PAN degraded to a window of MS pixels with each gain (len(gains), h, w); which rest on valid PAN (h, w)."""
    row, col, height, width = window
    inverse = scene.ms_map.inverse()
    rows = [degrade_weights(inverse.rows, row, row + height, gain) for gain in gains]
    cols = [degrade_weights(inverse.cols, col, col + width, gain) for gain in gains]
    y, x = _span(rows), _span(cols)
    pan, valid = read_filled_pan(scene, y, x)
    known = valid.astype(np.float32)
    pairs = list(zip(rows, cols, strict=True))
    low = np.concatenate([_weighted(r, c, pan, (y[0], x[0])) for r, c in pairs])
    support = np.concatenate([_weighted(r, c, known, (y[0], x[0])) for r, c in pairs])
    return low, np.all(support > _SUPPORTED, axis=0)


def _weighted(rows: AxisWeights, cols: AxisWeights, image: Float32, origin: tuple[int, int]) -> Float32:
    """Weights applied to an image (..., h, w) whose first pixel is `origin` of the raster they count in."""
    y, x = origin
    part = image[..., rows.first - y : rows.stop - y, cols.first - x : cols.stop - x]
    return apply_weights(rows.matrix, cols.matrix, part)


def _span(weights: Sequence[AxisWeights]) -> Span:
    """The source pixels [start, stop) that any of the weights need."""
    return min(w.first for w in weights), max(w.stop for w in weights)


def _spread(scene: Scene) -> Iterator[Window]:
    """Windows of MS pixels spread over the scene; all of them when it is small."""
    top, left, height, width, size = _extent(scene)
    most = max(1, int(_MOST_SAMPLES / (size * scene.ratio) ** 2))
    if scene.grid.height * scene.grid.width <= _MOST_SAMPLES:
        return _everywhere(scene)
    return ((row + top, col + left, h, w) for row, col, h, w in spread_windows(height, width, size, most))


def _everywhere(scene: Scene) -> Iterator[Window]:
    """Windows that cover the MS pixels centred in the scene."""
    top, left, height, width, size = _extent(scene)
    return ((row + top, col + left, h, w) for row, col, h, w in all_windows(height, width, size))


def _extent(scene: Scene) -> tuple[int, int, int, int, int]:
    """(top, left, height, width) of the MS pixels centred in the scene, and the size of windows."""
    inverse = scene.ms_map.inverse()
    (top, bottom), (left, right) = overlap(inverse.rows), overlap(inverse.cols)
    size = max(4, min(_WINDOW, int(_LARGEST_PAN_WINDOW / scene.ratio)))
    return top, left, bottom - top, right - left, size
