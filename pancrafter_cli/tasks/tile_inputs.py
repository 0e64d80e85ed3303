"""What a window of the output grid is made from: read, freed of holes, and resampled. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.consistency import ConsistencyPlan, back_project, plan_consistency
from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.fill import BESIDE, FILL_REACH, fill_invalid
from pancrafter_cli.geometry.inputs import NetworkInputs, network_inputs, plan_inputs
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.windows import read_filled, window_of

Float32 = NDArray[np.float32]
Span = tuple[int, int]

_MOST_MISSING = 0.05  # of the weight of the PAN pixels that make an MS pixel: with more, PAN does not tell it


@dataclass(frozen=True)
class TileInputs:
    """A window's network inputs, normalised, and what consistency needs of it."""

    images: NetworkInputs
    observed: Observed


@dataclass(frozen=True)
class Observed:
    """The MS pixels (C, h, w) centred in a window, normalised, which of them count, and how they lie in it."""

    ms: Float32
    valid: NDArray[np.bool_]
    plan: ConsistencyPlan

    def pull(self, sharp: Float32, steps: int) -> Float32:
        """The sharp window (C, H, W), normalised, after `steps` back-projections onto MS."""
        return back_project(self.plan, sharp, self.ms, self.valid, steps)


def read_inputs(scene: Scene, rows: Span, cols: Span, *, matched: bool = True) -> TileInputs:
    """What a network sees of a window [start, stop) of the output grid; holes are filled from around them.

    `matched` False gives PAN itself, (1, H, W), in place of PAN matched to the bands.
    """
    statistics = scene.statistics
    plan = plan_inputs(scene.ms_map, rows, cols, statistics.ms_mtf)
    ms, ms_valid, known = read_guided_ms(scene, plan.rows.ms, plan.cols.ms)
    if known is not None:
        plan = plan_inputs(scene.ms_map, rows, cols, statistics.ms_mtf, holes=True)
        known = known if matched else everywhere_known(known)
    pan, _ = read_filled_pan(scene, plan.rows.pan, plan.cols.pan)
    gain = statistics.gain if matched else np.ones(1)
    offset = statistics.offset if matched else np.zeros(1)
    # Fill and matching are in DN; normalising comes last, so that float32 keeps what small DN differences hold.
    images = network_inputs(plan, pan, ms, gain.astype(np.float32), offset.astype(np.float32), known)
    consistency = plan_consistency(scene.ms_map, rows, cols, statistics.ms_mtf)
    inner = tuple(
        slice(axis.ms[0] - first, axis.ms[1] - first)
        for axis, first in ((consistency.rows, plan.rows.ms[0]), (consistency.cols, plan.cols.ms[0]))
    )
    observed = _observed(scene, ms[:, *inner], ms_valid[:, *inner], consistency)
    of_pan = statistics.normalisation if matched else statistics.of_pan
    normalised = of_pan.of(images.mpan), statistics.normalisation.of(images.lms), of_pan.of(images.lpan)
    return TileInputs(NetworkInputs(*normalised), observed)


def read_observed(scene: Scene, rows: Span, cols: Span) -> Observed:
    """The MS pixels centred in a window [start, stop) of the output grid."""
    plan = plan_consistency(scene.ms_map, rows, cols, scene.statistics.ms_mtf)
    ms, valid = read_filled_ms(scene, plan.rows.ms, plan.cols.ms)
    return _observed(scene, ms, valid, plan)


def read_filled_pan(scene: Scene, rows: Span, cols: Span) -> tuple[Float32, NDArray[np.bool_]]:
    """PAN (1, h, w) of a window of the output grid, in DN, without holes; and where it had none."""
    return read_filled(scene.read_pan, rows, cols, scene.grid.shape, np.array([scene.statistics.pan_mean]))


def read_filled_ms(scene: Scene, rows: Span, cols: Span) -> tuple[Float32, NDArray[np.bool_]]:
    """MS (C, h, w) of a window of the MS grid, in DN, without holes; and where it had none."""
    return read_filled(scene.read_ms, rows, cols, scene.ms_grid.shape, scene.statistics.ms_mean)


def read_guided_ms(scene: Scene, rows: Span, cols: Span) -> tuple[Float32, NDArray[np.bool_], NDArray[np.bool_] | None]:
    """MS (C, h, w) of a window of the MS grid, in DN, without holes; where it had none; and what is known of it.

    In a hole stands what PAN shows there, made as soft as MS and matched to the band, and as far off it as MS is around
    the hole; where PAN has a hole too, the mean of what is around. Known is the rest, as `lowpass` asks for: of BESIDE
    pixels more on each side, (1, h', w') where all bands have the same holes, else (C, h', w'); None without holes.
    """
    ms, valid = read_filled_ms(scene, rows, cols)
    if valid.all():
        return ms, valid, None
    shape = scene.ms_grid.shape
    # What is filled in the second step is made of what was filled in the first.
    y, x = (_widened(span, 2 * FILL_REACH, size) for span, size in zip((rows, cols), shape, strict=True))
    stored, there = scene.read_ms(*window_of(y, x))
    expected, seen = _matched_low(scene, y, x)
    off = fill_invalid(stored - expected, there & seen, np.zeros(len(stored)))
    known = there | seen
    guided = np.where(there, stored, np.where(seen, expected + off, np.float32(0)))
    filled = fill_invalid(guided, known, scene.statistics.ms_mean)
    known = known[:1] if (known == known[:1]).all() else known
    beside = [_widened(span, BESIDE, size) for span, size in zip((rows, cols), shape, strict=True)]
    return filled[:, *_within((rows, cols), (y, x))], valid, known[:, *_within(beside, (y, x))]


def _matched_low(scene: Scene, rows: Span, cols: Span) -> tuple[Float32, NDArray[np.bool_]]:
    """PAN made as soft as MS on a window of the MS grid and matched to the bands (C, h, w), in DN.

    And where it has no hole (1, h, w).
    """
    statistics, relation = scene.statistics, scene.ms_map.inverse()
    down = [
        degrade_weights(axis, *span, statistics.ms_mtf) for axis, span in ((relation.rows, rows), (relation.cols, cols))
    ]
    pan, valid = read_filled_pan(scene, *((weights.first, weights.stop) for weights in down))
    low = apply_weights(down[0].matrix, down[1].matrix, pan)
    missing = apply_weights(down[0].matrix, down[1].matrix, (~valid).astype(np.float32))
    gain, offset = (numbers.astype(np.float32)[:, None, None] for numbers in (statistics.gain, statistics.offset))
    return gain * low + offset, missing <= _MOST_MISSING


def _widened(span: Span, by: int, size: int) -> Span:
    return max(0, span[0] - by), min(size, span[1] + by)


def _within(spans: Sequence[Span], outer: Sequence[Span]) -> tuple[slice, slice]:
    """Where rows and columns lie among others that hold them."""
    (top, bottom), (left, right) = spans
    return slice(top - outer[0][0], bottom - outer[0][0]), slice(left - outer[1][0], right - outer[1][0])


def everywhere_known(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where no band (C, h, w) has a hole: (1, h, w)."""
    return np.asarray(known.all(axis=0, keepdims=True))


def _observed(scene: Scene, ms: Float32, valid: NDArray[np.bool_], plan: ConsistencyPlan) -> Observed:
    return Observed(scene.statistics.normalisation.of(ms), valid, plan)
