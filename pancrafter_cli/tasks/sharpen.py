"""Sharpening a scene: PAN and MS files in, one sharp multi-band GeoTIFF out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.tiling import STRIDE, Blender, Tile, Tiling
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.raster.writer import TILE, SceneWriter, check_output
from pancrafter_cli.tasks.fusers import (
    NETWORK,
    Fuser,
    FuserFacts,
    check_method,
    make_fuser,
    network_runner,
)
from pancrafter_cli.tasks.register import DEFAULT_REGISTRATION, Choice, Registration, register
from pancrafter_cli.version import __version__

if TYPE_CHECKING:
    from pancrafter_cli.runtime.torch_runner import Precision

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
_Read = tuple[Tile, Callable[[], Float32], NDArray[np.bool_]]

# Tiles are whole blocks of the output (raster.writer.TILE), so that each block is compressed and written once.
DEFAULT_TILE = 512
DEFAULT_HALO = 32
DEFAULT_BLEND = 16
# Fitted to the peak memory of the default model with tiles of 256, 512 and 768 pixels: 0.75, 1.35 and 2.20 GB.
_BASE_BYTES = 475 << 20
_BYTES_PER_FEATURE = 68
_BYTES_PER_BAND = 68


@dataclass(frozen=True)
class SharpenOptions:
    """What to sharpen and how.

    ms: one multi-band file or several files of one grid. method: "network" or a classical one. model: a shipped name
    or a path, None for the default; device, precision: of the network. sensor: whose MTF classical methods assume.
    tile, halo, blend: PAN pixels; halo "full" is all that can change a pixel. consistency: back-projections onto MS,
    by default 5 for the network and none for classical methods. registration: "auto" measures how far MS lies off
    PAN and corrects it, "off" does not, (x, y) are MS pixels by which MS content lies further right and down.
    ratio, ms_origin: for files without georeferencing.
    """

    pan: Path
    ms: tuple[Path, ...]
    output: Path
    method: str = NETWORK
    model: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    tile: int = DEFAULT_TILE
    halo: int | str = DEFAULT_HALO
    blend: int = DEFAULT_BLEND
    consistency: int | None = None
    sensor: str | None = None
    registration: Choice = DEFAULT_REGISTRATION
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
    registration: Registration
    fuser: FuserFacts
    tile: int
    halo: int
    seconds: float
    valid: float


def sharpen_scene(options: SharpenOptions, progress: Progress = lambda done, total: None) -> SharpenResult:
    """Sharpen one scene into `options.output`; `progress` gets (pixels done, pixels in all).

    Raises UsageError, RasterError, GeometryError, ModelError, DeviceError or OutputError; nothing is written then.
    """
    began = time.monotonic()
    check_output(options.output, [options.pan, *options.ms], overwrite=options.overwrite)
    check_method(options.method)
    # A wrong model or device is told before a large scene is measured.
    runner = network_runner(options.model, options.device, options.precision) if options.method == NETWORK else None
    scene_options = SceneOptions(ratio=options.ratio, ms_origin=options.ms_origin)
    with open_scene(options.pan, options.ms, scene_options) as opened:
        scene, registration = register(opened, options.registration)
        fuser = make_fuser(scene, options.method, runner, sensor=options.sensor, consistency=options.consistency)
        tiling = make_tiling(options.tile, options.halo, options.blend, fuser.reach)
        tags = _provenance(fuser.facts, scene) | registration.tags
        valid = 0
        writer = SceneWriter(options.output, scene.output, inputs=scene.files, overwrite=options.overwrite, tags=tags)
        with writer:
            for tile, core, mask in sharpened_tiles(scene, fuser, tiling):
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
            registration=registration,
            fuser=fuser.facts,
            tile=tiling.tile,
            halo=tiling.halo,
            seconds=time.monotonic() - began,
            valid=valid / (scene.bands * scene.grid.width * scene.grid.height),
        )


def sharpened_tiles(scene: Scene, fuser: Fuser, tiling: Tiling) -> Iterator[tuple[Tile, Float32, NDArray[np.bool_]]]:
    """The scene's tiles in order: (tile, sharp core (C, h, w) in DN, valid (C, h, w)). The next is read meanwhile."""
    blender = Blender(tiling, scene.bands, scene.grid.shape)
    with _read_ahead(scene, fuser, tiling) as reads:
        for tile, fuse, valid in reads:
            yield tile, blender.add(tile, fuse()[:, tile.rows.crop, tile.cols.crop]), valid


def make_tiling(
    tile: int = DEFAULT_TILE, halo: int | str = DEFAULT_HALO, blend: int = DEFAULT_BLEND, reach: int = 0
) -> Tiling:
    """The tiling asked for, made to fit the networks' stride and the output's blocks; halo "full" is `reach`.

    Raises UsageError.
    """
    if halo == "full":
        halo = reach
    if not isinstance(halo, int) or halo < 0:
        raise UsageError(f"--halo {halo}: expected a number of PAN pixels or 'full'", "leave it out")
    if not 0 < blend <= tile // 2:
        raise UsageError(f"blend {blend}: expected 1 to {tile // 2} PAN pixels", "leave it out")
    if tile < TILE or tile % TILE:
        raise UsageError(
            f"--tile {tile}: tiles are multiples of {TILE} pixels", f"use {DEFAULT_TILE}, or {TILE} to save memory"
        )
    return Tiling(tile, -(-min(halo, reach) // STRIDE) * STRIDE, blend)


def estimate_memory(width: int, side: int, bands: int) -> int:
    """Bytes of memory a run is expected to need with tiles that read side x side pixels, on a CPU in fp32."""
    return _BASE_BYTES + side * side * (width * _BYTES_PER_FEATURE + bands * _BYTES_PER_BAND)


@contextmanager
def _read_ahead(scene: Scene, fuser: Fuser, tiling: Tiling) -> Iterator[Iterator[_Read]]:
    """Iterate over tiles whose inputs are read and prepared by a thread, one tile ahead."""

    def read(tile: Tile) -> _Read:
        return tile, fuser.read(tile.rows.read, tile.cols.read), scene.valid(*_core(tile))

    with ThreadPoolExecutor(1) as pool:

        def results() -> Iterator[_Read]:
            ahead: Future[_Read] | None = None
            for tile in tiling.tiles(scene.grid.shape):
                coming = pool.submit(read, tile)
                if ahead is not None:
                    yield ahead.result()
                ahead = coming
            if ahead is not None:
                yield ahead.result()

        yield results()


def _core(tile: Tile) -> tuple[int, int, int, int]:
    """(row, column, height, width) of a tile's core."""
    (top, bottom), (left, right) = tile.rows.core, tile.cols.core
    return top, left, bottom - top, right - left


def _area(tile: Tile) -> int:
    """Pixels of this row of tiles that are done once `tile` is."""
    return (tile.rows.core[1] - tile.rows.core[0]) * tile.cols.core[1]


def _provenance(facts: FuserFacts, scene: Scene) -> dict[str, str]:
    tags = {
        "PANCRAFTER_VERSION": __version__,
        "PANCRAFTER_METHOD": facts.method,
        "PANCRAFTER_SCALE": f"{scene.statistics.scale:.9g}",
        "PANCRAFTER_RATIO": f"{scene.ratio:.6g}",
    }
    if facts.model is not None and facts.model_sha256 is not None:
        tags |= {
            "PANCRAFTER_MODEL": facts.model,
            "PANCRAFTER_MODEL_SHA256": facts.model_sha256,
            "PANCRAFTER_PRECISION": facts.precision,
        }
    return tags
