"""Sharpening a scene: PAN and MS files in, one sharp multi-band GeoTIFF out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import GeometryError, UsageError
from pancrafter_cli.geometry.consistency import (
    ConsistencyPlan,
    back_project,
    consistency_reach,
    plan_consistency,
)
from pancrafter_cli.geometry.fill import FILL_REACH, fill_invalid
from pancrafter_cli.geometry.inputs import network_inputs, plan_inputs
from pancrafter_cli.geometry.tiling import Blender, Tile, Tiling
from pancrafter_cli.networks.pancrafter import STRIDE, receptive_radius
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.raster.writer import TILE, SceneWriter, check_output
from pancrafter_cli.runtime.torch_runner import Precision, TorchRunner, pick_device
from pancrafter_cli.version import __version__
from pancrafter_cli.zoo import DEFAULT_MODEL, Model, ModelSpec, load_model

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]

# Tiles are whole blocks of the output (raster.writer.TILE), so that each block is compressed and written once.
DEFAULT_TILE = 512
DEFAULT_HALO = 32
DEFAULT_BLEND = 16
DEFAULT_CONSISTENCY = 5
# Fitted to the peak memory of the default model with tiles of 256, 512 and 768 pixels: 0.75, 1.35 and 2.20 GB.
_RATIO_SLACK = 1.02  # a ratio of 6.01 is 6, written with rounded pixel sizes
_BASE_BYTES = 475 << 20
_BYTES_PER_FEATURE = 68
_BYTES_PER_BAND = 68


@dataclass(frozen=True)
class TileInputs:
    """A window's network inputs (C, H, W), and the MS pixels (C, h, w) centred in it, all in DN / scale."""

    mpan: Float32
    lms: Float32
    lpan: Float32
    ms: Float32
    ms_valid: NDArray[np.bool_]
    consistency: ConsistencyPlan


@dataclass(frozen=True)
class SharpenOptions:
    """What to sharpen and how.

    ms: one multi-band file or several files of one grid. model: a shipped name or a path. tile, halo, blend: PAN
    pixels; halo "full" is all that can change a pixel. consistency: back-projections onto MS. ratio, ms_origin: for
    files without georeferencing.
    """

    pan: Path
    ms: tuple[Path, ...]
    output: Path
    model: str = DEFAULT_MODEL
    device: str = "auto"
    precision: Precision = "auto"
    tile: int = DEFAULT_TILE
    halo: int | str = DEFAULT_HALO
    blend: int = DEFAULT_BLEND
    consistency: int = DEFAULT_CONSISTENCY
    ratio: float | None = None
    ms_origin: tuple[float, float] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class SharpenResult:
    """What was written and how: sizes in pixels, `seconds` of wall time, `valid` the share of pixels with data."""

    output: Path
    width: int
    height: int
    bands: int
    dtype: str
    nodata: float | None
    ratio: float
    model: str
    model_sha256: str
    device: str
    precision: str
    tile: int
    halo: int
    consistency: int
    seconds: float
    valid: float


def sharpen_scene(options: SharpenOptions, progress: Progress = lambda done, total: None) -> SharpenResult:
    """Sharpen one scene into `options.output`; `progress` gets (pixels done, pixels in all).

    Raises UsageError, RasterError, GeometryError, ModelError, DeviceError or OutputError; nothing is written then.
    """
    began = time.monotonic()
    check_output(options.output, [options.pan, *options.ms], overwrite=options.overwrite)
    device = pick_device(options.device)
    model = load_model(options.model)
    scene_options = SceneOptions(ratio=options.ratio, ms_origin=options.ms_origin)
    with open_scene(options.pan, options.ms, scene_options) as scene:
        check_ratio(scene, model.spec)
        tiling = make_tiling(options, model, scene.ratio)
        runner = TorchRunner(model, device, options.precision)
        tags = _provenance(model, runner, scene)
        valid = 0
        writer = SceneWriter(options.output, scene.output, inputs=scene.files, overwrite=options.overwrite, tags=tags)
        with writer:
            for tile, core, mask in sharpened_tiles(scene, runner, tiling, options.consistency):
                writer.write(tile.rows.core[0], tile.cols.core[0], core, mask)
                valid += int(mask.sum())
                progress(tile.rows.core[0] * scene.grid.width + _area(tile), scene.grid.width * scene.grid.height)
        return SharpenResult(
            output=options.output,
            width=scene.grid.width,
            height=scene.grid.height,
            bands=scene.bands,
            dtype=scene.dtype,
            nodata=scene.nodata,
            ratio=scene.ratio,
            model=model.spec.name,
            model_sha256=model.sha256,
            device=str(device),
            precision=runner.precision,
            tile=tiling.tile,
            halo=tiling.halo,
            consistency=options.consistency,
            seconds=time.monotonic() - began,
            valid=valid / (scene.bands * scene.grid.width * scene.grid.height),
        )


def sharpened_tiles(
    scene: Scene, runner: TorchRunner, tiling: Tiling, consistency: int = DEFAULT_CONSISTENCY
) -> Iterator[tuple[Tile, Float32, NDArray[np.bool_]]]:
    """The scene's tiles in order: (tile, sharp core (C, h, w) in DN, valid (C, h, w)). The next is read meanwhile."""
    blender = Blender(tiling, scene.bands, scene.grid.shape)
    scale = np.float32(scene.statistics.scale)
    # Where MS never is negative, neither is what it was made from.
    positive = scene.statistics.ms_min >= 0
    with _read_ahead(scene, tiling, runner.matched) as reads:
        for tile, inputs, valid in reads:
            sharp = runner.sharpen(inputs.mpan, inputs.lms, inputs.lpan)
            sharp = back_project(inputs.consistency, sharp, inputs.ms, inputs.ms_valid, consistency, positive=positive)
            sharp *= scale
            yield tile, blender.add(tile, sharp[:, tile.rows.crop, tile.cols.crop]), valid


def read_inputs(scene: Scene, rows: tuple[int, int], cols: tuple[int, int], *, matched: bool = True) -> TileInputs:
    """What a window of the output grid is made from, in DN / scale; holes are filled from around them.

    `matched` False gives PAN itself, (1, H, W), in place of PAN matched to the bands.
    """
    statistics = scene.statistics
    plan = plan_inputs(scene.ms_map, rows, cols)
    consistency = plan_consistency(scene.ms_map, rows, cols)
    pan_mean = np.array([statistics.pan_mean], dtype=np.float32)
    pan, _ = _read_filled(scene.read_pan, plan.rows.pan, plan.cols.pan, scene.grid.shape, pan_mean)
    ms_mean = statistics.ms_mean.astype(np.float32)
    ms, ms_valid = _read_filled(scene.read_ms, plan.rows.ms, plan.cols.ms, scene.ms_grid.shape, ms_mean)
    gain = statistics.gain if matched else np.ones(1)
    offset = statistics.offset if matched else np.zeros(1)
    # Fill and matching are in DN; the division comes last, so that float32 keeps what small DN differences hold.
    images = network_inputs(plan, pan, ms, gain.astype(np.float32), offset.astype(np.float32))
    scale = np.float32(statistics.scale)
    mpan, lms, lpan = (image / scale for image in images)
    inner = tuple(
        slice(axis.ms[0] - first, axis.ms[1] - first)
        for axis, first in ((consistency.rows, plan.rows.ms[0]), (consistency.cols, plan.cols.ms[0]))
    )
    return TileInputs(mpan, lms, lpan, ms[:, *inner] / scale, ms_valid[:, *inner], consistency)


def make_tiling(options: SharpenOptions, model: Model, ratio: float) -> Tiling:
    """The tiling asked for, made to fit the network's stride and the output's blocks. Raises UsageError."""
    halo = options.halo
    if halo == "full":
        halo = receptive_radius(model.spec.config) + consistency_reach(ratio, options.consistency)
    if not isinstance(halo, int) or halo < 0:
        raise UsageError(f"--halo {halo}: expected a number of PAN pixels or 'full'", "leave it out")
    if not 0 < options.blend <= options.tile // 2:
        raise UsageError(f"blend {options.blend}: expected 1 to {options.tile // 2} PAN pixels", "leave it out")
    if options.consistency < 0:
        raise UsageError(f"--consistency {options.consistency}: expected a number of steps", "0 turns it off")
    if options.tile < TILE or options.tile % TILE:
        raise UsageError(
            f"--tile {options.tile}: tiles are multiples of {TILE} pixels",
            f"use {DEFAULT_TILE}, or {TILE} to save memory",
        )
    return Tiling(options.tile, -(-halo // STRIDE) * STRIDE, options.blend)


def estimate_memory(width: int, side: int, bands: int) -> int:
    """Bytes of memory a run is expected to need with tiles that read side x side pixels, on a CPU in fp32."""
    return _BASE_BYTES + side * side * (width * _BYTES_PER_FEATURE + bands * _BYTES_PER_BAND)


def check_ratio(scene: Scene, spec: ModelSpec) -> None:
    """Raise GeometryError when the scene's ratio lies beyond what the model was trained on."""
    low, high = spec.ratios
    if not low / _RATIO_SLACK <= scene.ratio <= high * _RATIO_SLACK:
        raise GeometryError(
            f"MS pixels are {scene.ratio:.2f} times as large as PAN pixels; model '{spec.name}' "
            f"was trained for ratios {low:g} to {high:g}",
            "choose a model for this ratio with --model, or resample MS nearer to PAN first",
        )


@contextmanager
def _read_ahead(
    scene: Scene, tiling: Tiling, matched: bool
) -> Iterator[Iterator[tuple[Tile, TileInputs, NDArray[np.bool_]]]]:
    """Iterate over tiles whose inputs are read and prepared by a thread, one tile ahead."""

    def read(tile: Tile) -> tuple[Tile, TileInputs, NDArray[np.bool_]]:
        inputs = read_inputs(scene, tile.rows.read, tile.cols.read, matched=matched)
        return tile, inputs, scene.valid(*_window(tile.rows.core, tile.cols.core))

    with ThreadPoolExecutor(1) as pool:

        def results() -> Iterator[tuple[Tile, TileInputs, NDArray[np.bool_]]]:
            ahead: Future[tuple[Tile, TileInputs, NDArray[np.bool_]]] | None = None
            for tile in tiling.tiles(scene.grid.shape):
                coming = pool.submit(read, tile)
                if ahead is not None:
                    yield ahead.result()
                ahead = coming
            if ahead is not None:
                yield ahead.result()

        yield results()


def _read_filled(
    read: Callable[[int, int, int, int], tuple[Float32, NDArray[np.bool_]]],
    rows: tuple[int, int],
    cols: tuple[int, int],
    shape: tuple[int, int],
    fallback: Float32,
) -> tuple[Float32, NDArray[np.bool_]]:
    """A window without holes, read with the margin from which holes are filled, and where it had none."""
    y0, y1 = max(0, rows[0] - FILL_REACH), min(shape[0], rows[1] + FILL_REACH)
    x0, x1 = max(0, cols[0] - FILL_REACH), min(shape[1], cols[1] + FILL_REACH)
    image, valid = read(*_window((y0, y1), (x0, x1)))
    filled = fill_invalid(image, valid, fallback)
    part = np.s_[:, rows[0] - y0 : rows[1] - y0, cols[0] - x0 : cols[1] - x0]
    return filled[part], valid[part]


def _window(rows: tuple[int, int], cols: tuple[int, int]) -> tuple[int, int, int, int]:
    return rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0]


def _area(tile: Tile) -> int:
    """Pixels of this row of tiles that are done once `tile` is."""
    return (tile.rows.core[1] - tile.rows.core[0]) * tile.cols.core[1]


def _provenance(model: Model, runner: TorchRunner, scene: Scene) -> dict[str, str]:
    return {
        "PANCRAFTER_VERSION": __version__,
        "PANCRAFTER_MODEL": model.spec.name,
        "PANCRAFTER_MODEL_SHA256": model.sha256,
        "PANCRAFTER_PRECISION": runner.precision,
        "PANCRAFTER_SCALE": f"{scene.statistics.scale:.9g}",
        "PANCRAFTER_RATIO": f"{scene.ratio:.6g}",
    }
