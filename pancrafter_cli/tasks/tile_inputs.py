"""What a window of the output grid is made from: read, freed of holes, and resampled. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.consistency import ConsistencyPlan, back_project, plan_consistency
from pancrafter_cli.geometry.inputs import InputPlan, NetworkInputs, network_inputs, plan_inputs
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
    ms, ms_valid = read_filled_ms(scene, plan.rows.ms, plan.cols.ms)
    known = None
    if not ms_valid.all():
        plan = plan_inputs(scene.ms_map, rows, cols, statistics.ms_mtf, holes=True)
        known = read_known(scene, plan)
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


def read_known(scene: Scene, plan: InputPlan) -> NDArray[np.bool_]:
    """Where MS has no holes (C, h, w), of the MS pixels that PAN is brought to for a window."""
    return scene.read_ms(*window_of(plan.rows.low, plan.cols.low))[1]


def everywhere_known(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where no band (C, h, w) has a hole: (1, h, w)."""
    return np.asarray(known.all(axis=0, keepdims=True))


def _observed(scene: Scene, ms: Float32, valid: NDArray[np.bool_], plan: ConsistencyPlan) -> Observed:
    return Observed(scene.statistics.normalisation.of(ms), valid, plan)
