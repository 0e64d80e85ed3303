"""Judging a product while it is made: what drifts from MS, where PAN and MS disagree, and the confidence layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.confidence import (
    Evidence,
    Relation,
    Tops,
    confidence,
    disagreement,
    drifted,
    fit_relation,
    saturation_level,
)
from pancrafter_cli.geometry.consistency import DRIFT_TOLERANCE, degraded, plan_consistency
from pancrafter_cli.geometry.degrade import degrade_reach
from pancrafter_cli.geometry.grid import AxisMap, overlap
from pancrafter_cli.geometry.registration import MAX_SPREAD
from pancrafter_cli.geometry.resample import CUBIC_SUPPORT
from pancrafter_cli.geometry.sensors import sensor_from_metadata, sensor_mtf
from pancrafter_cli.raster.register import Registration
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.windows import spread_windows, window_of
from pancrafter_cli.tasks.tile_inputs import Span, read_filled_ms, read_filled_pan, read_observed

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Window = tuple[Mask, Callable[[Float32, Span, Span], "Judgement"]]

_WINDOW, _MOST_WINDOWS = 32, 100  # MS pixels; what the scene-wide numbers are taken from
_MARGIN = 2  # MS pixels at a window's border that draw on PAN beyond it
_SUPPORTED = 0.999  # share of an MS pixel's weight that must fall on valid pixels


@dataclass(frozen=True)
class Judgement:
    """One window: MS pixels that count, that drift, and where PAN and MS disagree; confidence (h, w) if asked for."""

    counted: int
    drifting: int
    disagreeing: int
    confidence: Float32 | None


class Judge:
    """What a scene's product is judged by; `reach`: PAN pixels around a pixel that can change its judgement.

    layer: whether confidence is wanted per pixel.
    """

    def __init__(self, scene: Scene, registration: Registration, *, layer: bool) -> None:
        self._scene, self._layer = scene, layer
        spread = registration.uncertainty
        self._spread = min(spread, MAX_SPREAD) if math.isfinite(spread) else 0.0
        down = degrade_reach(scene.ratio, scene.statistics.ms_mtf)
        # MS is brought up, what differs down, looked at in 3 x 3 pixels, and brought up; without the layer, down only.
        up = (2 * (CUBIC_SUPPORT + 0.5) + 1) * scene.ratio if layer else scene.ratio
        self.reach = math.ceil(down + up)

    @cached_property
    def _numbers(self) -> tuple[Relation, Tops]:
        """What PAN is made of, and where both saturate; measured once, from a bounded part of a large scene."""
        return _measure(self._scene)

    def read(self, rows: Span, cols: Span) -> Window:
        """Read a window of the output grid: which pixels are valid (C, H, W), and a call that judges the product.

        It takes the product (C, H, W) of the window in DN, and the rows and columns to judge.
        """
        relation, tops = self._numbers
        valid = self._scene.valid(*window_of(rows, cols))
        # What a registration has put beside MS is told by MS no better than what lies beside a hole.
        known = valid.all(axis=0) & self._scene.covered(*window_of(rows, cols))
        evidence = _read_evidence(self._scene, rows, cols, np.asarray(known))

        def judge(sharp: Float32, to_rows: Span, to_cols: Span) -> Judgement:
            sharp = _as_written(sharp, self._scene.dtype)
            counted = _counted(self._scene, evidence, to_rows, to_cols)
            layer = None
            if self._layer:
                inner = _inside(to_rows, rows), _inside(to_cols, cols)
                layer = confidence(evidence, sharp, relation, tops, self._spread)[inner]
            return Judgement(
                counted=int(counted.sum()),
                drifting=int((drifted(evidence, sharp) > DRIFT_TOLERANCE)[counted].sum()),
                disagreeing=int((disagreement(evidence, relation) > relation.tolerance)[counted].sum()),
                confidence=layer,
            )

        return valid, judge


def _read_evidence(scene: Scene, rows: Span, cols: Span, valid: Mask) -> Evidence:
    observed = read_observed(scene, rows, cols)
    pan, _ = read_filled_pan(scene, rows, cols)
    normalisation = scene.statistics.normalisation
    return Evidence(observed.plan, observed.ms, observed.valid, pan, valid, normalisation, scene.ratio)


def _counted(scene: Scene, evidence: Evidence, rows: Span, cols: Span) -> Mask:
    """Which MS pixels of the evidence (h, w) are centred in rows x cols and rest on valid pixels only."""
    support = degraded(evidence.plan, evidence.valid[None].astype(np.float32))[0]
    counted: Mask = (support > _SUPPORTED) & evidence.trusted.all(axis=0)
    y, x = (
        _inside(_centred(axis, span), plan.ms)
        for axis, span, plan in (
            (scene.ms_map.rows, rows, evidence.plan.rows),
            (scene.ms_map.cols, cols, evidence.plan.cols),
        )
    )
    inner = np.zeros_like(counted)
    inner[y, x] = counted[y, x]
    return inner


def _centred(axis: AxisMap, span: Span) -> Span:
    """The MS pixels centred in a span of PAN pixels, both [start, stop)."""
    return overlap(axis.crop_dst(*span).inverse())


def _inside(span: Span, outer: Span) -> slice:
    """Where a span lies within one that holds it; an empty one lies at its start."""
    return slice(span[0] - outer[0], span[1] - outer[0]) if span[1] > span[0] else slice(0, 0)


def _as_written(sharp: Float32, dtype: str) -> Float32:
    """The product clipped as its number format will clip it."""
    if np.dtype(dtype).kind not in "iu":
        return sharp
    limits = np.iinfo(dtype)
    return np.clip(sharp, np.float32(limits.min), np.float32(limits.max))


def _measure(scene: Scene) -> tuple[Relation, Tops]:
    """What PAN is made of and where both saturate, from windows spread over the scene."""
    fine: list[Float32] = []
    coarse: list[Float32] = []
    pairs: list[Float32] = []
    inner = np.s_[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    for rows, cols in _sample_windows(scene):
        plan = plan_consistency(scene.ms_map, rows, cols, scene.statistics.ms_mtf)
        pan, pan_valid = read_filled_pan(scene, rows, cols)
        ms, ms_valid = read_filled_ms(scene, plan.rows.ms, plan.cols.ms)
        use = ms_valid.all(axis=0)
        fine.append(pan[pan_valid])
        coarse.append(ms[:, use])
        supported = use & (degraded(plan, pan_valid.astype(np.float32))[0] > _SUPPORTED)
        pairs.append(np.concatenate([degraded(plan, pan), ms])[inner][:, supported[inner]])
    samples = np.concatenate(pairs, axis=1).astype(np.float64)
    pan_peak, ms_peak = _peaks(scene)
    tops = np.array([saturation_level(band, scene.dtype, ms_peak) for band in np.concatenate(coarse, axis=1)])
    top = saturation_level(np.concatenate(fine), scene.pan_dtype, pan_peak)
    return fit_relation(samples[0], samples[1:]), Tops(top, tops)


def _peaks(scene: Scene) -> tuple[float | None, float | None]:
    """The greatest DN of PAN and MS by their metadata, else of the sensor that these name, else None."""
    sensor = sensor_mtf(sensor_from_metadata(scene.metadata)).peak
    pan, ms = (sensor if peak is None else peak for peak in scene.peaks)
    return pan, ms


def _sample_windows(scene: Scene) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of windows of the output grid, spread evenly."""
    size = round(_WINDOW * scene.ratio)
    for row, col, height, width in spread_windows(*scene.grid.shape, size, _MOST_WINDOWS):
        yield (row, row + height), (col, col + width)
