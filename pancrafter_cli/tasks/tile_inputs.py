"""What a window of the output grid is made from: read, freed of holes, and resampled. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.consistency import ConsistencyPlan, back_project, plan_consistency
from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.fill import FILL_REACH, fill_invalid
from pancrafter_cli.geometry.inputs import NetworkInputs, network_inputs, plan_inputs
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.windows import read_filled, window_of

Float32 = NDArray[np.float32]
Span = tuple[int, int]


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
    pan, _ = read_filled_pan(scene, plan.rows.pan, plan.cols.pan)
    ms, ms_valid = read_guided_ms(scene, plan.rows.ms, plan.cols.ms)
    gain = statistics.gain if matched else np.ones(1)
    offset = statistics.offset if matched else np.zeros(1)
    # Fill and matching are in DN; normalising comes last, so that float32 keeps what small DN differences hold.
    images = network_inputs(plan, pan, ms, gain.astype(np.float32), offset.astype(np.float32))
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


def read_guided_ms(scene: Scene, rows: Span, cols: Span) -> tuple[Float32, NDArray[np.bool_]]:
    """MS (C, h, w) of a window of the MS grid, in DN, without holes; and where it had none.

    In a hole stands what PAN shows there, made as soft as MS and matched to the band, and as far off it as MS is around
    the hole. What is interpolated beside one then lacks of PAN's detail what it lacks everywhere; were it a mean of
    what is around, that would be more, and be taken for detail.
    """
    y, x = (
        (max(0, start - FILL_REACH), min(size, stop + FILL_REACH))
        for (start, stop), size in zip((rows, cols), scene.ms_grid.shape, strict=True)
    )
    ms, valid = scene.read_ms(*window_of(y, x))
    inner = np.s_[:, rows[0] - y[0] : rows[1] - y[0], cols[0] - x[0] : cols[1] - x[0]]
    if not valid[inner].all():
        expected = _matched_low(scene, y, x)
        off = fill_invalid(ms - expected, valid, np.zeros(len(ms)))
        ms = np.where(valid, ms, expected + off)
    return ms[inner], valid[inner]


def _matched_low(scene: Scene, rows: Span, cols: Span) -> Float32:
    """PAN made as soft as MS on a window of the MS grid and matched to the bands: (C, h, w) in DN."""
    statistics, relation = scene.statistics, scene.ms_map.inverse()
    down = [
        degrade_weights(axis, *span, statistics.ms_mtf) for axis, span in ((relation.rows, rows), (relation.cols, cols))
    ]
    pan, _ = read_filled_pan(scene, *((weights.first, weights.stop) for weights in down))
    low = apply_weights(down[0].matrix, down[1].matrix, pan)
    gain, offset = (numbers.astype(np.float32)[:, None, None] for numbers in (statistics.gain, statistics.offset))
    return gain * low + offset


def _observed(scene: Scene, ms: Float32, valid: NDArray[np.bool_], plan: ConsistencyPlan) -> Observed:
    return Observed(scene.statistics.normalisation.of(ms), valid, plan)
