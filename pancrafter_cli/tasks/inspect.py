"""Looking at a scene the way `sharpen` will, without sharpening it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.degrade import degrade_weights
from pancrafter_cli.geometry.grid import GridMap, overlap
from pancrafter_cli.geometry.inputs import band_groups
from pancrafter_cli.geometry.matching import WindowShift
from pancrafter_cli.geometry.registration import summarise, window_shifts
from pancrafter_cli.geometry.resample import apply_weights
from pancrafter_cli.geometry.sensors import sensor_from_metadata
from pancrafter_cli.geometry.tiling import Tiling
from pancrafter_cli.raster.crs import crs_name
from pancrafter_cli.raster.inputs import Nodata
from pancrafter_cli.raster.products import find_product
from pancrafter_cli.raster.register import Registration, judge, register_locally
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.raster.statistics import MtfSource
from pancrafter_cli.raster.undeclared import check_fill
from pancrafter_cli.tasks.fusers import check_ratio
from pancrafter_cli.tasks.memory import estimate_memory, pick_tile
from pancrafter_cli.tasks.tiles import DEFAULT_BLEND, DEFAULT_HALO
from pancrafter_cli.zoo import DEFAULT_MODEL, read_spec, resolve

_LOOKS = 4  # windows per axis in which the correlation is measured
_LOOK_SIZE = 128  # MS pixels


@dataclass(frozen=True)
class SceneFacts:
    """What the tool sees: shapes as (rows, columns), pixel sizes (x, y) in CRS units, shares from 0 to 1.

    pan_peak, ms_peak: the greatest DN by the metadata, None where these do not tell. shift: of MS against PAN, and what
    `sharpen` makes of it unless told otherwise. displacement: the shift window by window, before anything is
    corrected, None when not asked for.
    ms_mtf: gain at the MS Nyquist frequency of the blur that takes PAN to MS. correlation: of PAN degraded to the MS
    grid with each band, after that correction. passes: how often a tile goes through the network to cover all bands.
    notices: how PAN and MS were placed.
    """

    layout: str
    pan_shape: tuple[int, int]
    pan_dtype: str
    pan_peak: float | None
    pan_pixel: tuple[float, float]
    ms_shape: tuple[int, int]
    ms_pixel: tuple[float, float]
    bands: int
    band_names: tuple[str, ...]
    dtype: str
    ms_peak: float | None
    crs: str | None
    warped: bool
    ratio: float
    output_shape: tuple[int, int]
    overlap: float
    nodata: float | None
    valid: float
    sensor: str | None
    scale: float
    ms_mtf: float
    ms_mtf_source: MtfSource
    correlation: tuple[float, ...]
    shift: Registration
    displacement: tuple[WindowShift, ...] | None
    model: str
    passes: int
    tile: int
    tiles: int
    memory_bytes: int
    notices: tuple[str, ...]


def inspect_scene(
    pan: Path,
    ms: tuple[Path, ...],
    ratio: float | None = None,
    ms_origin: tuple[float, float] | None = None,
    nodata: Nodata | None = None,
    dem: Path | None = None,
    *,
    displacement: bool = False,
) -> SceneFacts:
    """Facts of a scene, or of the product in the folder `pan`; `displacement` asks for the shift of every window.

    Raises RasterError, GeometryError or UsageError where `sharpen` would, but for a shift that `sharpen` refuses.
    """
    product = find_product([pan, *ms])
    options = SceneOptions(ratio, ms_origin, nodata, product.band_names, dem)
    with open_scene(product.pan, product.ms, options) as scene:
        spec = read_spec(resolve(DEFAULT_MODEL))
        check_ratio(scene, spec)

        def memory(tile: int) -> int:
            return estimate_memory(spec.config.width, tile + DEFAULT_BLEND + 2 * DEFAULT_HALO, scene.bands)

        tile = pick_tile(memory, None, None)
        tiling = Tiling(tile, DEFAULT_HALO, DEFAULT_BLEND)
        check_fill(scene)
        windows = window_shifts(scene)
        shift = judge(summarise(windows))
        registered = scene.with_shift(shift.dx, shift.dy) if shift.applied else scene
        registered, shift = register_locally(registered, shift)
        rows, cols = scene.grid.shape
        return SceneFacts(
            layout=product.layout,
            pan_shape=scene.pan_grid.shape,
            pan_dtype=scene.pan_dtype,
            pan_peak=scene.peaks[0],
            pan_pixel=scene.pan_grid.pixel_size,
            ms_shape=scene.ms_grid.shape,
            ms_pixel=scene.ms_grid.pixel_size,
            bands=scene.bands,
            band_names=tuple(b.description or f"band {n}" for n, b in enumerate(scene.output.bands, 1)),
            dtype=scene.dtype,
            ms_peak=scene.peaks[1],
            crs=crs_name(scene.grid.crs_wkt),
            warped=scene.warped,
            ratio=scene.ratio,
            output_shape=scene.grid.shape,
            overlap=rows * cols / (scene.pan_grid.width * scene.pan_grid.height),
            nodata=scene.nodata,
            valid=registered.statistics.valid_fraction,
            sensor=product.sensor or sensor_from_metadata(scene.metadata),
            scale=registered.statistics.scale,
            ms_mtf=registered.statistics.ms_mtf,
            ms_mtf_source=registered.statistics.ms_mtf_source,
            correlation=_correlation(registered),
            shift=shift,
            displacement=tuple(windows) if displacement else None,
            model=spec.name,
            passes=len(band_groups(scene.bands, spec.bands)),
            tile=tile,
            tiles=tiling.count(scene.grid.shape),
            memory_bytes=memory(tile),
            notices=scene.notices,
        )


def _correlation(scene: Scene) -> tuple[float, ...]:
    """Correlation of PAN with each band, from windows spread over the scene."""
    to_pan = scene.ms_map.inverse()
    moments = np.zeros((5, scene.bands))  # sums of p, m, pp, mm, pm over valid pixels
    count = np.zeros(scene.bands)
    for rows in _looks(*overlap(to_pan.rows)):
        for cols in _looks(*overlap(to_pan.cols)):
            low, ms, valid = _pair(scene, to_pan, rows, cols)
            p = low * valid
            m = ms * valid
            moments += np.stack([(a).sum(axis=(1, 2)) for a in (p, m, p * p, m * m, p * m)])
            count += valid.sum(axis=(1, 2))
    p1, m1, p2, m2, pm = moments / np.maximum(count, 1)
    spread = np.sqrt(np.maximum((p2 - p1**2) * (m2 - m1**2), 0))
    correlation = np.where(spread > 0, (pm - p1 * m1) / np.where(spread > 0, spread, 1), 0.0)
    return tuple(float(c) for c in correlation)


def _pair(
    scene: Scene, to_pan: GridMap, rows: tuple[int, int], cols: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """PAN degraded to a window of the MS grid (h, w), MS there (C, h, w), and where both are valid (C, h, w)."""
    r = degrade_weights(to_pan.rows, *rows, scene.statistics.ms_mtf)
    c = degrade_weights(to_pan.cols, *cols, scene.statistics.ms_mtf)
    pan, pan_valid = scene.read_pan(r.first, c.first, r.stop - r.first, c.stop - c.first)
    ms, ms_valid = scene.read_ms(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
    low: NDArray[np.float64] = apply_weights(r.matrix, c.matrix, pan[0].astype(np.float64))
    covered = apply_weights(r.matrix, c.matrix, pan_valid[0].astype(np.float64)) > 1 - 1e-9
    return low, ms.astype(np.float64), ms_valid & covered


def _looks(start: int, stop: int) -> list[tuple[int, int]]:
    """Up to _LOOKS windows [start, stop) along an axis; none where no MS pixel is centred in the overlap."""
    if stop == start:
        return []
    size = min(_LOOK_SIZE, stop - start)
    count = max(1, min(_LOOKS, (stop - start) // size))
    return [(int(s), int(s) + size) for s in np.linspace(start, stop - size, count)]
