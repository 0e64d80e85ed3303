"""Training sources: real scenes turned into images whose truth is known.

Two kinds come out of every PAN+MS scene:

- "wald": the MS is the truth; PAN is brought to its grid (Wald's protocol). True spectra and true
  texture, at reduced resolution.
- "resynthesised": a fusion of the real scene at full resolution is declared the truth, and PAN is re-derived
  from it by regression. True structure at full resolution, fused spectra.

MS is never stored degraded: every training sample degrades its own window with its own ratio, phase and MTF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import TrainingError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, DEFAULT_PAN_GAIN, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap, GridMap, overlap
from pancrafter_cli.geometry.registration import Shift, measure_shift
from pancrafter_cli.geometry.resample import apply_weights, cubic_weights
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.raster.scene import Scene, open_scene

Float32 = NDArray[np.float32]

MATCH_RATIOS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
_MIN_SHIFT, _MAX_SHIFT = 0.05, 2.0  # MS pixels: below is noise, above is no longer the same scene
_MAX_SPREAD = 0.35


@dataclass(frozen=True)
class Source:
    """One image with known truth. All arrays on one grid, in DN / scale.

    truth: (C, H, W); pans: (2, H, W), a softer and a crisper (or truer) PAN, of which a sample shows a mix;
    gain, offset: (len(MATCH_RATIOS), C), the scene-wide band matching at each degradation ratio.
    """

    name: str
    kind: str
    truth: Float32
    pans: Float32
    gain: Float32
    offset: Float32
    ratio: float

    @property
    def pixels(self) -> int:
        """Pixels of the truth."""
        return int(self.truth.shape[1] * self.truth.shape[2])


def load_sources(folder: Path, kinds: Sequence[str]) -> list[Source]:
    """The sources of the scene in `folder` (pan.tif, ms.tif, and gt.tif where a reference exists).

    Raises TrainingError for invalid pixels or a missing file, RasterError or GeometryError for unusable rasters.
    """
    pan, ms, truth = (folder / name for name in ("pan.tif", "ms.tif", "gt.tif"))
    if truth.exists():
        # The reference lies on the PAN grid already: its own Wald pair, with ratio 1 between the two files.
        return [_referenced_source(folder)] if "wald" in kinds else []
    with open_scene(pan, [ms]) as scene:
        full_pan, pan_valid = scene.read_pan(0, 0, *scene.grid.shape)
        full_ms, ms_valid = scene.read_ms(0, 0, scene.ms_map.rows.src_size, scene.ms_map.cols.src_size)
        if not (pan_valid.all() and ms_valid.all()):
            raise TrainingError(
                f"{folder}: training scenes must not contain invalid pixels",
                "cut the scene to its valid part first",
            )
        relation = _register(scene, full_pan[0], full_ms)
        scale = np.float32(scene.statistics.scale)
    full_pan, full_ms = full_pan / scale, full_ms / scale
    sources = []
    if "wald" in kinds:
        sources.append(_wald_source(folder.name, full_pan[0], full_ms, relation))
    if "resynthesised" in kinds:
        sources.append(_resynthesised_source(folder.name, full_pan[0], full_ms, relation))
    return sources


def match_bands(truth: Float32, pan: Float32, ratio: float, gain: float = DEFAULT_MS_GAIN) -> tuple[Float32, Float32]:
    """Gain and offset (C,) of the regression of every band on PAN, both degraded by `ratio`."""
    rows, cols = (degrade_weights(_coarse_axis(size, ratio), 0, int(size / ratio), gain).matrix for size in pan.shape)
    low_pan = apply_weights(rows, cols, pan).astype(np.float64).ravel()
    low = apply_weights(rows, cols, truth).astype(np.float64).reshape(truth.shape[0], -1)
    variance = low_pan.var()
    centred = low_pan - low_pan.mean()
    slope = (low @ centred) / low_pan.size / variance if variance > 0 else np.zeros(len(low))
    return slope.astype(np.float32), (low.mean(axis=1) - slope * low_pan.mean()).astype(np.float32)


def _coarse_axis(size: int, ratio: float) -> AxisMap:
    return AxisMap(ratio, 0.0, int(size / ratio), size)


def _match_table(truth: Float32, pan: Float32) -> tuple[Float32, Float32]:
    pairs = [match_bands(truth, pan, ratio) for ratio in MATCH_RATIOS]
    return np.stack([g for g, _ in pairs]), np.stack([o for _, o in pairs])


def _source(name: str, kind: str, truth: Float32, pans: Float32, ratio: float) -> Source:
    gain, offset = _match_table(truth, pans.mean(axis=0))
    return Source(name, kind, np.ascontiguousarray(truth), pans, gain, offset, ratio)


def _register(scene: Scene, pan: Float32, ms: Float32) -> GridMap:
    """The scene's PAN-to-MS relation, corrected by the measured shift where one was measured."""
    to_pan = scene.ms_map.inverse()
    (r0, r1), (c0, c1) = overlap(to_pan.rows), overlap(to_pan.cols)
    rows = degrade_weights(to_pan.rows, r0, r1, DEFAULT_MS_GAIN)
    cols = degrade_weights(to_pan.cols, c0, c1, DEFAULT_MS_GAIN)
    low = apply_weights(rows.matrix, cols.matrix, pan[rows.first : rows.stop, cols.first : cols.stop])
    shift = measure_shift(
        low.astype(np.float64), ms[:, r0:r1, c0:c1].astype(np.float64), np.ones(low.shape, dtype=bool)
    )
    return _corrected(scene.ms_map, shift)


def _corrected(relation: GridMap, shift: Shift) -> GridMap:
    size = max(abs(shift.dx), abs(shift.dy))
    if shift.windows < 4 or shift.spread > _MAX_SPREAD or not _MIN_SHIFT <= size <= _MAX_SHIFT:
        return relation
    return GridMap(relation.rows.shifted(shift.dy), relation.cols.shifted(shift.dx))


def _wald_source(name: str, pan: Float32, ms: Float32, relation: GridMap) -> Source:
    to_pan = relation.inverse()
    (r0, r1), (c0, c1) = overlap(to_pan.rows), overlap(to_pan.cols)
    # As soft as a PAN detector's own aperture, and as crisp as an antialiased cubic reduction.
    soft = (
        degrade_weights(to_pan.rows, r0, r1, DEFAULT_PAN_GAIN),
        degrade_weights(to_pan.cols, c0, c1, DEFAULT_PAN_GAIN),
    )
    crisp = cubic_weights(to_pan.rows, r0, r1), cubic_weights(to_pan.cols, c0, c1)
    pans = [
        apply_weights(rows.matrix, cols.matrix, pan[rows.first : rows.stop, cols.first : cols.stop])
        for rows, cols in (soft, crisp)
    ]
    return _source(name, "wald", ms[:, r0:r1, c0:c1], np.stack(pans), relation.ratio)


def _resynthesised_source(name: str, pan: Float32, ms: Float32, relation: GridMap) -> Source:
    """Truth = MTF-GLP fusion lms + g (pan - lpan); PAN = its regression on the truth, and the mean with the real."""
    rows = cubic_weights(relation.rows, 0, relation.rows.dst_size)
    cols = cubic_weights(relation.cols, 0, relation.cols.dst_size)
    lms = apply_weights(rows.matrix, cols.matrix, ms[:, rows.first : rows.stop, cols.first : cols.stop])
    to_pan = relation.inverse()
    down_r = degrade_weights(to_pan.rows, rows.first, rows.stop, DEFAULT_MS_GAIN)
    down_c = degrade_weights(to_pan.cols, cols.first, cols.stop, DEFAULT_MS_GAIN)
    low = apply_weights(down_r.matrix, down_c.matrix, pan[down_r.first : down_r.stop, down_c.first : down_c.stop])
    lpan = apply_weights(rows.matrix, cols.matrix, low)
    centred = (lpan - lpan.mean()).astype(np.float64)
    slope = np.array([(centred * band).mean() / (centred**2).mean() for band in lms], dtype=np.float32)
    truth = lms + slope[:, None, None] * (pan - lpan)
    derived = _regress(pan, truth)
    return _source(name, "resynthesised", truth, np.stack([derived, (derived + pan) / 2]), relation.ratio)


def _regress(pan: Float32, truth: Float32) -> Float32:
    """Least-squares combination of the truth's bands and a constant that comes closest to PAN."""
    design = np.concatenate([truth.reshape(len(truth), -1), np.ones((1, pan.size), np.float32)]).astype(np.float64)
    weights = np.linalg.solve(design @ design.T + 1e-9 * np.eye(len(design)), design @ pan.ravel())
    return (weights @ design).reshape(pan.shape).astype(np.float32)


def _referenced_source(folder: Path) -> Source:
    """The Wald pair of a scene that comes with its own reference on the PAN grid."""
    truth = read_array(folder / "gt.tif")
    with open_scene(folder / "pan.tif", [folder / "ms.tif"]) as scene:
        pan, valid = scene.read_pan(0, 0, *scene.grid.shape)
        ratio = scene.ratio
    if pan.shape[1:] != truth.shape[1:]:
        raise TrainingError(
            f"{folder / 'gt.tif'}: {truth.shape[1:]} rows and columns, but PAN has {pan.shape[1:]}",
            "gt.tif lies on the PAN grid",
        )
    if not (valid.all() and np.isfinite(truth).all()):
        raise TrainingError(f"{folder}: training scenes must not contain invalid pixels", "cut the scene first")
    scale = np.float32(np.percentile(np.abs(truth), 99))
    return _source(folder.name, "wald", truth / scale, np.repeat(pan / scale, 2, axis=0), ratio)
