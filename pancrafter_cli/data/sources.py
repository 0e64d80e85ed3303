"""Training sources: real scenes turned into images whose truth is known.

Two kinds come out of every PAN+MS scene:

- "wald": the MS is the truth; PAN is brought to its grid (Wald's protocol). True spectra and true
  texture, at reduced resolution.
- "resynthesised": a fusion of the real scene at full resolution is declared the truth, and PAN is re-derived
  from it by regression. True structure at full resolution, fused spectra.

Patch files and made-up scenes (pancollection.py, synthetic.py) give sources of the same form.

MS is never stored degraded: every training sample degrades its own window with its own ratio, phase and MTF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import TrainingError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, DEFAULT_PAN_GAIN, degrade_weights
from pancrafter_cli.geometry.grid import AxisMap, GridMap, overlap
from pancrafter_cli.geometry.inputs import COARSE, FINE, detail, gain_beyond
from pancrafter_cli.geometry.resample import apply_weights, cubic_weights
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import Scene, open_scene

Float32 = NDArray[np.float32]

MATCH_RATIOS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
_SMALLEST = 8  # pixels a side: less leaves nothing to match bands on at a ratio of 6


@dataclass(frozen=True)
class Source:
    """One image with known truth. All arrays on one grid, in DN / scale.

    truth: (C, H, W); pans: (2, H, W), a softer and a crisper (or truer) PAN, of which a sample shows a mix;
    gain, offset: (len(MATCH_RATIOS), C), the scene-wide band matching at each degradation ratio;
    likeness: (len(MATCH_RATIOS),), correlation of degraded PAN with itself one degraded pixel further on.
    """

    name: str
    kind: str
    truth: Float32
    pans: Float32
    gain: Float32
    offset: Float32
    likeness: Float32
    ratio: float

    @property
    def pixels(self) -> int:
        """Pixels of the truth."""
        return int(self.truth.shape[1] * self.truth.shape[2])

    @cached_property
    def pan_mean(self) -> float:
        """Mean of the softer PAN."""
        return float(self.pans[0].mean())

    @property
    def count(self) -> int:
        """It is one image."""
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns."""
        bands, height, width = self.truth.shape
        return bands, height, width

    def image(self, index: int) -> Source:
        """The image itself."""
        return self


class AnySource(Protocol):
    """What samples are drawn from: `count` images of one `shape` (C, H, W), and `pixels` in all of them."""

    @property
    def name(self) -> str:
        """Name of the scene or file."""

    @property
    def kind(self) -> str:
        """Kind of the source, by which it is weighted."""

    @property
    def count(self) -> int:
        """Number of images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of every image."""

    @property
    def pixels(self) -> int:
        """Pixels of all images."""

    def image(self, index: int) -> Source:
        """One image, read if need be. Raises RasterError when it cannot be read."""


def load_sources(folder: Path, kinds: Sequence[str], smallest: int = _SMALLEST) -> list[Source]:
    """The sources of the scene in `folder` (pan.tif, ms.tif, and gt.tif where a reference exists).

    Those of fewer than `smallest` pixels a side are left out. Raises TrainingError for invalid pixels and when no
    source is left, RasterError or GeometryError for unusable rasters and for PAN and MS that `sharpen` refuses too.
    """
    pan, ms, truth = (folder / name for name in ("pan.tif", "ms.tif", "gt.tif"))
    if truth.exists():
        # The reference lies on the PAN grid already: its own Wald pair, with ratio 1 between the two files.
        return [_referenced_source(folder, smallest)]
    with open_scene(pan, [ms]) as opened:
        scene, _ = register(opened)
        sizes = {"wald": _covered(scene), "resynthesised": scene.grid.shape}
        kinds = [kind for kind in kinds if min(sizes[kind]) >= smallest]
        if not kinds:
            raise _too_small(folder, sizes["wald"], scene.grid.shape, smallest)
        full_pan, pan_valid = scene.read_pan(0, 0, *scene.grid.shape)
        full_ms, ms_valid = scene.read_ms(0, 0, scene.ms_map.rows.src_size, scene.ms_map.cols.src_size)
        if not (pan_valid.all() and ms_valid.all()):
            raise TrainingError(
                f"{folder}: training scenes must not contain invalid pixels",
                "cut the scene to its valid part first",
            )
        relation = scene.ms_map
        scale = np.float32(scene.statistics.scale)
    full_pan, full_ms = full_pan / scale, full_ms / scale
    sources = []
    if "wald" in kinds:
        sources.append(_wald_source(folder.name, full_pan[0], full_ms, relation))
    if "resynthesised" in kinds:
        sources.append(_resynthesised_source(folder.name, full_pan[0], full_ms, relation))
    return sources


def _covered(scene: Scene) -> tuple[int, int]:
    """Rows and columns of MS under PAN."""
    to_pan = scene.ms_map.inverse()
    (r0, r1), (c0, c1) = overlap(to_pan.rows), overlap(to_pan.cols)
    return r1 - r0, c1 - c0


def _too_small(folder: Path, ms: tuple[int, int], pan: tuple[int, int], smallest: int) -> TrainingError:
    return TrainingError(
        f"{folder}: {ms[0]} x {ms[1]} MS pixels over {pan[0]} x {pan[1]} PAN pixels are too small for patches of "
        f"{smallest} pixels",
        "make `patch` smaller, or use larger scenes",
    )


def match_bands(truth: Float32, pan: Float32, ratio: float, gain: float = DEFAULT_MS_GAIN) -> tuple[Float32, Float32]:
    """Gain and offset (C,) that match PAN to every band, from both degraded by `ratio` with the MTF `gain`.

    truth: (C, ..., H, W); pan: (..., H, W), of one image or several.
    """
    rows, cols = _degrade_all(pan.shape[-2:], ratio, gain)
    low_pan = apply_weights(rows, cols, pan).astype(np.float64)
    low = apply_weights(rows, cols, truth).astype(np.float64)
    slope = gain_beyond(*(_slope(_detail(low, sigma), _detail(low_pan, sigma)) for sigma in (COARSE, FINE)))
    mean = low.reshape(len(low), -1).mean(axis=1)
    return slope.astype(np.float32), (mean - slope * low_pan.mean()).astype(np.float32)


def _slope(bands: NDArray[np.float64], pan: NDArray[np.float64]) -> NDArray[np.float64]:
    """Regression of bands (C, ...) on PAN (...), both without their means: (C,)."""
    power = float((pan**2).mean())
    return (bands * pan).reshape(len(bands), -1).mean(axis=1) / power if power > 0 else np.zeros(len(bands))


def _detail(image: NDArray[np.float64], sigma: float = COARSE) -> NDArray[np.float64]:
    return detail(image, np.ones(image.shape, dtype=bool), sigma)


def _degrade_all(
    shape: tuple[int, ...], ratio: float, gain: float = DEFAULT_MS_GAIN
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrices that degrade the rows and columns of a whole image."""
    rows, cols = (degrade_weights(_coarse_axis(size, ratio), 0, int(size / ratio), gain).matrix for size in shape)
    return rows, cols


def _coarse_axis(size: int, ratio: float) -> AxisMap:
    return AxisMap(ratio, 0.0, int(size / ratio), size)


def _match_table(truth: Float32, pan: Float32) -> tuple[Float32, Float32]:
    pairs = [match_bands(truth, pan, ratio) for ratio in MATCH_RATIOS]
    return np.stack([g for g, _ in pairs]), np.stack([o for _, o in pairs])


def measure_tables(truth: Float32, pan: Float32) -> tuple[Float32, Float32, Float32]:
    """The tables `gain`, `offset` and `likeness` of a Source from truth (C, ..., H, W) and PAN (..., H, W)."""
    likeness = np.array([likeness_of_neighbours(pan, r) for r in MATCH_RATIOS], np.float32)
    return *_match_table(truth, pan), likeness


def make_source(name: str, kind: str, truth: Float32, pans: Float32, ratio: float) -> Source:
    """A source from truth (C, H, W) and pans (2, H, W), in DN / scale, with its tables measured."""
    gain, offset, likeness = measure_tables(truth, pans.mean(axis=0))
    return Source(name, kind, np.ascontiguousarray(truth), pans, gain, offset, likeness, ratio)


def likeness_of_neighbours(pan: Float32, ratio: float) -> float:
    """Correlation of the detail of PAN (..., H, W), degraded by `ratio`, with itself a degraded pixel on; flat: 1."""
    rows, cols = _degrade_all(pan.shape[-2:], ratio)
    low = _detail(apply_weights(rows, cols, pan.astype(np.float64)))
    pairs = (low[..., 1:, :], low[..., :-1, :]), (low[..., 1:], low[..., :-1])
    if low.std() <= 1e-6 * np.abs(pan).mean():
        return 1.0
    return float(np.clip(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]), 0.1, 1.0))


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
    return make_source(name, "wald", ms[:, r0:r1, c0:c1], np.stack(pans), relation.ratio)


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
    return make_source(name, "resynthesised", truth, np.stack([derived, (derived + pan) / 2]), relation.ratio)


def _regress(pan: Float32, truth: Float32) -> Float32:
    """Least-squares combination of the truth's bands and a constant that comes closest to PAN."""
    design = np.concatenate([truth.reshape(len(truth), -1), np.ones((1, pan.size), np.float32)]).astype(np.float64)
    weights = np.linalg.solve(design @ design.T + 1e-9 * np.eye(len(design)), design @ pan.ravel())
    return (weights @ design).reshape(pan.shape).astype(np.float32)


def _referenced_source(folder: Path, smallest: int) -> Source:
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
    if min(truth.shape[1:]) < smallest:
        raise _too_small(folder, (truth.shape[1], truth.shape[2]), (pan.shape[1], pan.shape[2]), smallest)
    if not (valid.all() and np.isfinite(truth).all()):
        raise TrainingError(f"{folder}: training scenes must not contain invalid pixels", "cut the scene first")
    scale = np.float32(np.percentile(np.abs(truth), 99))
    return make_source(folder.name, "wald", truth / scale, np.repeat(pan / scale, 2, axis=0), ratio)
