"""Sharpening a scene: PAN and MS files in, one sharp multi-band GeoTIFF out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pancrafter_cli.errors import OutOfMemory
from pancrafter_cli.geometry.tiling import Tiling
from pancrafter_cli.raster.blocks import check_crs
from pancrafter_cli.raster.outputs import (
    check_beside,
    confidence_spec,
    product_writers,
    remove_unfinished,
    settle,
    unfinished_facts,
)
from pancrafter_cli.raster.products import find_product
from pancrafter_cli.raster.register import Registration, register
from pancrafter_cli.raster.room import check_room
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.raster.stac import check_item, remove_stale_item
from pancrafter_cli.raster.writer import check_output
from pancrafter_cli.tasks.afterwards import Afterwards, add_item, add_scores
from pancrafter_cli.tasks.confidence import Judge
from pancrafter_cli.tasks.fusers import NETWORK, Fuser, Runner, make_fuser, network_runner
from pancrafter_cli.tasks.memory import estimate_memory, pick_tile, smaller_tile
from pancrafter_cli.tasks.provenance import (
    LAYER_FACT,
    command_tags,
    hashing,
    input_tags,
    judgement_tags,
    method_tags,
    request_tags,
    run_facts,
    sensor_tags,
)
from pancrafter_cli.tasks.score import ScoreOptions
from pancrafter_cli.tasks.sharpen_options import SharpenOptions, SharpenResult, check_asked
from pancrafter_cli.tasks.tiles import judged_tiles, make_tiling
from pancrafter_cli.tasks.writing import Progress, Total, write_tiles

Notice = Callable[[str], None]


def sharpen_scene(
    options: SharpenOptions,
    progress: Progress = lambda done, total: None,
    runner: Runner | None = None,
    notice: Notice = lambda text: None,
) -> SharpenResult:
    """Sharpen one scene into `options.output`.

    `progress` gets (pixels done, pixels in all), `notice` at once what the result's notices say in the end. A run that
    was killed, or interrupted, is gone on with by the same options; the product is what it would have been.
    runner: the model that the options name, loaded already, for callers with many scenes.
    Raises UsageError, RasterError, GeometryError, ModelError, DeviceError or OutputError; nothing is written then.
    A finished product that cannot be scored or described is kept, with a warning.
    """
    began = time.monotonic()
    notices: list[str] = []

    def tell(text: str) -> None:
        notices.append(text)
        notice(text)

    options, layout = resolve_product(options)
    settle(options.output, options.confidence)
    _check_outputs(options)
    check_asked(options)
    # A wrong model or device is told before a large scene is measured.
    if runner is None and options.method == NETWORK:
        runner = _runner(options)
    with ExitStack() as stack:
        opened = stack.enter_context(open_scene(options.pan, options.ms, _scene_options(options)))
        check_crs(opened.grid)
        if options.stac:
            check_item(options.output, opened.grid, overwrite=options.overwrite)
        hashes = stack.enter_context(hashing(opened.files))
        scene, registration = register(opened, options.registration, options.local_registration)
        _check_room(options, scene, tell)  # measures what registering would make worthless
        fuser = make_fuser(scene, options.method, runner, sensor=options.sensor, consistency=options.consistency)
        judge = Judge(scene, registration, layer=options.confidence is not None)
        run = _Run(options, scene, registration, fuser, judge, lambda: input_tags(hashes.result()))
        # Not sooner: a command that is refused must not cost what an earlier one has left to go on from.
        _forget_other_layer(options)
        settle(options.output, options.confidence, discard=not options.resume)
        total, tiling, tags = run.fitted(runner.spec.config.width if runner is not None else 0, progress, tell)
        after = _finish(options, scene, tags)
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
            ms_mtf=scene.statistics.ms_mtf,
            ms_mtf_source=scene.statistics.ms_mtf_source,
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
            notices=tuple(notices),
            warnings=scene.notices + registration.warnings + after.warnings,
        )


@dataclass(frozen=True)
class _Run:
    """A scene ready to be sharpened; `inputs` waits for the tags of the input files."""

    options: SharpenOptions
    scene: Scene
    registration: Registration
    fuser: Fuser
    judge: Judge
    inputs: Callable[[], dict[str, str]]

    def fitted(self, width: int, progress: Progress, notice: Notice) -> tuple[Total, Tiling, dict[str, str]]:
        """Write the product with the tile that fits, or with half of it where it does not after all.

        width: features of the network, 0 without one. Returns what was written, how it was cut, and its tags.
        """
        options = self.options
        tile = pick_tile(partial(self._memory, width), options.tile, options.max_memory)
        earlier = unfinished_facts(options.output).get("tile", "") if options.tile is None else ""
        if earlier.isdecimal() and 0 < int(earlier) < tile:  # what is free varies, and is no reason to start over
            tile = int(earlier)
        smaller = smaller_tile(tile)
        try:
            return self.write(self.tiling(tile), progress, notice)
        except (OutOfMemory, MemoryError):
            if smaller is None:
                raise
        # Not within the exception, which holds on to the memory.
        notice(f"not enough memory for tiles of {tile} pixels: starting again with {smaller}")
        return self.write(self.tiling(smaller), progress, notice)

    def tiling(self, tile: int) -> Tiling:
        """How the scene is cut. Raises UsageError."""
        return make_tiling(tile, self.options.halo, self.options.blend, self.fuser.reach + self.judge.reach)

    def write(self, tiling: Tiling, progress: Progress, notice: Notice) -> tuple[Total, Tiling, dict[str, str]]:
        """Write the product and its confidence layer."""
        options, scene = self.options, self.scene
        facts = run_facts(self.fuser.facts, scene, tiling, self.registration, options)
        tags = method_tags(self.fuser.facts, scene, tiling.tile, tiling.halo) | self.registration.tags
        tags |= sensor_tags(options.sensor, scene) | request_tags(options) | command_tags(options.command)
        with product_writers(
            options.output,
            scene.output,
            options.confidence,
            inputs=scene.files,
            overwrite=options.overwrite,
            facts=facts if options.resume else None,
            notice=notice,
        ) as outputs:
            begun = outputs.begun
            done = (begun.rows, begun.pending) if begun is not None else (0, None)
            tiles = judged_tiles(scene, self.fuser, tiling, self.judge, *done)
            rows = -(-scene.grid.height // tiling.tile)
            total = write_tiles(tiles, rows, outputs, progress)
            tags |= judgement_tags(total.drifting, total.disagreeing) | self.inputs()
            for writer in outputs.writers:
                writer.tag(tags)
        return total, tiling, tags

    def _memory(self, width: int, tile: int) -> int:
        tiling = self.tiling(tile)
        return estimate_memory(width, tile + tiling.blend + 2 * tiling.halo, self.scene.bands)


def _forget_other_layer(options: SharpenOptions) -> None:
    """Remove the confidence layer of an unfinished run that had another one, or this one has none: no run finds it."""
    had = unfinished_facts(options.output).get(LAYER_FACT, "")
    if had and (options.confidence is None or had != str(options.confidence.absolute())):
        remove_unfinished(Path(had))


def _check_room(options: SharpenOptions, scene: Scene, notice: Notice) -> None:
    """Raise OutputError when the files cannot have room."""
    files = {options.output: scene.output}
    if options.confidence is not None:
        files[options.confidence] = confidence_spec(scene.output)
    check_room(files, scene.statistics.valid_fraction, notice)


def _finish(options: SharpenOptions, scene: Scene, tags: dict[str, str]) -> Afterwards:
    """What was asked for besides the pixels."""
    found = Afterwards()
    if options.score:
        asked = ScoreOptions(
            fused=options.output,
            pan=options.pan,
            ms=options.ms,
            sensor=options.sensor,
            scene=_scene_options(options),
        )
        found = add_scores(asked)
    if options.stac:
        return add_item(found, options.output, scene, tags, options.confidence)
    remove_stale_item(options.output)
    return found


def _runner(options: SharpenOptions) -> Runner:
    return network_runner(options.model, options.device, options.precision, options.runtime)


def _scene_options(options: SharpenOptions) -> SceneOptions:
    return SceneOptions(
        options.ratio, options.ms_origin, options.nodata, options.band_names, options.dem, options.ms_mtf
    )


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
