"""Sharpening a scene: PAN and MS files in, one sharp multi-band GeoTIFF out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.tiling import STRIDE, Blender, Tile, Tiling
from pancrafter_cli.raster.align import Nodata
from pancrafter_cli.raster.outputs import ProductWriter, check_beside, product_writers
from pancrafter_cli.raster.products import find_product
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.raster.stac import check_item
from pancrafter_cli.raster.writer import TILE, check_output
from pancrafter_cli.tasks.afterwards import Afterwards, add_item, add_scores
from pancrafter_cli.tasks.confidence import Judge, Judgement, Window
from pancrafter_cli.tasks.fusers import (
    NETWORK,
    Fuser,
    FuserFacts,
    Runner,
    Runtime,
    check_method,
    make_fuser,
    network_runner,
)
from pancrafter_cli.tasks.provenance import (
    command_tags,
    hashing,
    input_tags,
    judgement_tags,
    method_tags,
    request_tags,
)
from pancrafter_cli.tasks.register import DEFAULT_REGISTRATION, Choice, Registration, register
from pancrafter_cli.tasks.score import ScoreOptions

if TYPE_CHECKING:
    from pancrafter_cli.runtime.torch_runner import Precision

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
_Read = TypeVar("_Read")

# Tiles are whole blocks of the output (raster.writer.TILE), so that each block is compressed and written once.
DEFAULT_TILE = 512
DEFAULT_HALO = 32
DEFAULT_BLEND = 16
# Fitted to the peak memory of the default model with tiles that read 336, 560 and 592 pixels: 0.71, 0.80 and 0.86 GB.
_BASE_BYTES = 605 << 20
_BYTES_PER_FEATURE = 12
_BYTES_PER_BAND = 68


@dataclass(frozen=True)
class SharpenOptions:
    """What to sharpen and how.

    pan may be the folder of a product, ms is then empty; else ms is one multi-band file or several of one grid.
    method: "network" or a classical one. model: a shipped name or a path, None for the default; device, precision: of
    the network; runtime: "torch" or "onnx", by default as the model's file needs. sensor: whose MTF classical methods
    assume.
    tile, halo, blend: PAN pixels; halo "full" is all that can change a pixel. consistency: back-projections onto MS,
    by default 5 for the network and none for classical methods. registration: "auto" measures how far MS lies off
    PAN and corrects it, "off" does not, (x, y) are MS pixels by which MS content lies further right and down.
    ratio, ms_origin: for files without georeferencing. nodata: DN in place of what the files declare, or "auto" to find
    undeclared collars. band_names: of bands that their files do not name. dem: heights for files with RPCs.
    confidence: where to write the confidence layer, None for nowhere. score: measure HQNR and its parts on the product.
    stac: write a STAC item beside it. command: the command line, for the product's tags.
    """

    pan: Path
    ms: tuple[Path, ...]
    output: Path
    method: str = NETWORK
    model: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    runtime: Runtime | None = None
    tile: int = DEFAULT_TILE
    halo: int | str = DEFAULT_HALO
    blend: int = DEFAULT_BLEND
    consistency: int | None = None
    sensor: str | None = None
    registration: Choice = DEFAULT_REGISTRATION
    ratio: float | None = None
    ms_origin: tuple[float, float] | None = None
    nodata: Nodata | None = None
    band_names: tuple[str, ...] = ()
    dem: Path | None = None
    overwrite: bool = False
    confidence: Path | None = None
    score: bool = False
    stac: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class SharpenResult:
    """What was written and how: sizes in pixels, `seconds` of wall time, `valid` the share of pixels with data.

    layout: what kind of product the files were taken for. drifting: share of the MS pixels from which the product,
    degraded, differs by more than 5 %; disagreeing: share of those where PAN is not what MS predicts, as under clouds
    that only one has seen. scores: full-resolution indices by name, empty if not asked for; warnings: what could not
    be done.
    """

    output: Path
    layout: str
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
    drifting: float
    disagreeing: float
    confidence: Path | None
    stac: Path | None
    scores: Mapping[str, float]
    warnings: tuple[str, ...]


def sharpen_scene(
    options: SharpenOptions, progress: Progress = lambda done, total: None, runner: Runner | None = None
) -> SharpenResult:
    """Sharpen one scene into `options.output`; `progress` gets (pixels done, pixels in all).

    runner: the model that the options name, loaded already, for callers with many scenes.
    Raises UsageError, RasterError, GeometryError, ModelError, DeviceError or OutputError; nothing is written then.
    A finished product that cannot be scored or described is kept, with a warning.
    """
    began = time.monotonic()
    options, layout = resolve_product(options)
    _check_outputs(options)
    check_method(options.method)
    # A wrong model or device is told before a large scene is measured.
    if runner is None and options.method == NETWORK:
        runner = _runner(options)
    with ExitStack() as stack:
        opened = stack.enter_context(open_scene(options.pan, options.ms, _scene_options(options)))
        if options.stac:
            check_item(options.output, opened.grid, overwrite=options.overwrite)
        hashes = stack.enter_context(hashing(opened.files))
        scene, registration = register(opened, options.registration)
        fuser = make_fuser(scene, options.method, runner, sensor=options.sensor, consistency=options.consistency)
        judge = Judge(scene, registration, layer=options.confidence is not None)
        tiling = make_tiling(options.tile, options.halo, options.blend, fuser.reach + judge.reach)
        tags = method_tags(fuser.facts, scene, tiling.tile, tiling.halo) | registration.tags
        tags |= request_tags(options) | command_tags(options.command)
        with product_writers(
            options.output, scene.output, options.confidence, inputs=scene.files, overwrite=options.overwrite
        ) as (writer, layer):
            total = _write_tiles(scene, fuser, judge, tiling, writer, layer, progress)
            tags |= judgement_tags(total.drifting, total.disagreeing) | input_tags(hashes.result())
            writer.tag(tags)
            if layer is not None:
                layer.tag(tags)
        after = _finish(options, scene, registration, tags)
        return SharpenResult(
            output=options.output,
            layout=layout,
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
            valid=total.valid,
            drifting=total.drifting,
            disagreeing=total.disagreeing,
            confidence=options.confidence,
            stac=after.stac,
            scores=after.scores,
            warnings=scene.notices + registration.warnings + after.warnings,
        )


def sharpened_tiles(scene: Scene, fuser: Fuser, tiling: Tiling) -> Iterator[tuple[Tile, Float32, NDArray[np.bool_]]]:
    """The scene's tiles in order: (tile, sharp core (C, h, w) in DN, valid (C, h, w)). The next is read meanwhile."""
    blender = Blender(tiling, scene.bands, scene.grid.shape)

    def read(tile: Tile) -> tuple[Callable[[], Float32], NDArray[np.bool_]]:
        return fuser.read(tile.rows.read, tile.cols.read), scene.valid(*_core(tile))

    with _read_ahead(tiling.tiles(scene.grid.shape), read) as reads:
        for tile, (fuse, valid) in reads:
            yield tile, blender.add(tile, fuse()[:, tile.rows.crop, tile.cols.crop]), valid


def judged_tiles(
    scene: Scene, fuser: Fuser, tiling: Tiling, judge: Judge
) -> Iterator[tuple[Tile, Float32, NDArray[np.bool_], Judgement]]:
    """As `sharpened_tiles`, with what the judge says of each tile's core."""
    blender = Blender(tiling, scene.bands, scene.grid.shape)

    def read(tile: Tile) -> tuple[Callable[[], Float32], Window]:
        return fuser.read(tile.rows.read, tile.cols.read), judge.read(tile.rows.read, tile.cols.read)

    with _read_ahead(tiling.tiles(scene.grid.shape), read) as reads:
        for tile, (fuse, (valid, judgement)) in reads:
            sharp = fuse()
            core = blender.add(tile, sharp[:, tile.rows.crop, tile.cols.crop])
            inner = tuple(
                slice(span.core[0] - span.read[0], span.core[1] - span.read[0]) for span in (tile.rows, tile.cols)
            )
            yield tile, core, valid[:, *inner], judgement(sharp, tile.rows.core, tile.cols.core)


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
    if tile < TILE or tile % TILE:
        raise UsageError(
            f"--tile {tile}: tiles are multiples of {TILE} pixels", f"use {DEFAULT_TILE}, or {TILE} to save memory"
        )
    if not 0 < blend <= tile // 2:
        raise UsageError(f"blend {blend}: expected 1 to {tile // 2} PAN pixels", "leave it out")
    return Tiling(tile, -(-min(halo, reach) // STRIDE) * STRIDE, blend)


def estimate_memory(width: int, side: int, bands: int) -> int:
    """Bytes of memory a run is expected to need with tiles that read side x side pixels, on a CPU in fp32."""
    return _BASE_BYTES + side * side * (width * _BYTES_PER_FEATURE + bands * _BYTES_PER_BAND)


@dataclass(frozen=True)
class _Total:
    """Shares of a whole scene."""

    valid: float
    drifting: float
    disagreeing: float


def _write_tiles(
    scene: Scene,
    fuser: Fuser,
    judge: Judge,
    tiling: Tiling,
    writer: ProductWriter,
    layer: ProductWriter | None,
    progress: Progress,
) -> _Total:
    """Write the whole scene, and its confidence to `layer`."""
    grid = scene.grid
    valid = counted = drifting = disagreeing = 0
    for tile, core, mask, judgement in judged_tiles(scene, fuser, tiling, judge):
        row, col = tile.rows.core[0], tile.cols.core[0]
        writer.write(row, col, core, mask)
        if layer is not None and judgement.confidence is not None:
            layer.write(row, col, judgement.confidence[None], np.asarray(mask.all(axis=0, keepdims=True)))
        valid += int(mask.sum())
        counted += judgement.counted
        drifting += judgement.drifting
        disagreeing += judgement.disagreeing
        progress(row * grid.width + _area(tile), grid.width * grid.height)
    share = 1 / max(counted, 1)
    return _Total(valid / (scene.bands * grid.width * grid.height), drifting * share, disagreeing * share)


def _finish(options: SharpenOptions, scene: Scene, registration: Registration, tags: dict[str, str]) -> Afterwards:
    """What was asked for besides the pixels."""
    found = Afterwards()
    if options.score:
        asked = ScoreOptions(
            fused=options.output,
            pan=options.pan,
            ms=options.ms,
            sensor=options.sensor,
            registration=(registration.dx, registration.dy) if registration.applied else "off",
            scene=_scene_options(options),
        )
        found = add_scores(asked)
    return add_item(found, options.output, scene, tags, options.confidence) if options.stac else found


def _runner(options: SharpenOptions) -> Runner:
    return network_runner(options.model, options.device, options.precision, options.runtime)


def _scene_options(options: SharpenOptions) -> SceneOptions:
    return SceneOptions(options.ratio, options.ms_origin, options.nodata, options.band_names, options.dem)


def resolve_product(options: SharpenOptions) -> tuple[SharpenOptions, str]:
    """The options with the files of the product that was named, and how they were recognised.

    Raises UsageError or RasterError where none is.
    """
    product = find_product([options.pan, *options.ms])
    sensor, names = options.sensor or product.sensor, options.band_names or product.band_names
    return replace(options, pan=product.pan, ms=product.ms, sensor=sensor, band_names=names), product.layout


def _check_outputs(options: SharpenOptions) -> None:
    """Raise OutputError when a file cannot or should not be written."""
    inputs = [options.pan, *options.ms]
    check_output(options.output, inputs, overwrite=options.overwrite)
    if options.confidence is not None:
        check_beside(options.confidence, options.output, inputs, options.overwrite)
    if options.stac:
        check_item(options.output, None, overwrite=options.overwrite)


@contextmanager
def _read_ahead(tiles: Iterator[Tile], read: Callable[[Tile], _Read]) -> Iterator[Iterator[tuple[Tile, _Read]]]:
    """Iterate over tiles with what a thread reads and prepares for them, one tile ahead."""
    with ThreadPoolExecutor(1) as pool:

        def results() -> Iterator[tuple[Tile, _Read]]:
            ahead: tuple[Tile, Future[_Read]] | None = None
            for tile in tiles:
                coming = tile, pool.submit(read, tile)
                if ahead is not None:
                    yield ahead[0], ahead[1].result()
                ahead = coming
            if ahead is not None:
                yield ahead[0], ahead[1].result()

        yield results()


def _core(tile: Tile) -> tuple[int, int, int, int]:
    """(row, column, height, width) of a tile's core."""
    (top, bottom), (left, right) = tile.rows.core, tile.cols.core
    return top, left, bottom - top, right - left


def _area(tile: Tile) -> int:
    """Pixels of this row of tiles that are done once `tile` is."""
    return (tile.rows.core[1] - tile.rows.core[0]) * tile.cols.core[1]
