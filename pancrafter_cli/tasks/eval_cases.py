"""The cases of an evaluation: a scene in a protocol, the files methods work on, and how products are scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.classical.toolbox import classical_toolbox
from pancrafter_cli.data.wald import Pair, h5_pairs, reduce_scene, referenced_pair, toolbox_pair, write_pair
from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.sensors import SensorMtf, expected_peak, mtf_of, sensor_from_metadata
from pancrafter_cli.geometry.toolbox import shrink, upsample23
from pancrafter_cli.metrics.full import full_scores, score_full
from pancrafter_cli.metrics.streaming import score_reduced
from pancrafter_cli.metrics.windows import Read, looks_scaled
from pancrafter_cli.raster.inputs import open_raster
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.raster.register import Choice, register
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.tasks.eval_options import FULL, REDUCED, Contestant, EvalOptions, is_h5, scene_name
from pancrafter_cli.tasks.fusers import NETWORK
from pancrafter_cli.tasks.readers import both, file_mask, file_pixels, scene_lms, scene_mask, scene_pan, scene_pan_low
from pancrafter_cli.tasks.score import FULL_INDICES, REDUCED_INDICES
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions

REFLECTANCE_FACTOR = 10_000.0  # what reflectance is stored with when it is stored in whole numbers
_LOOK = 256  # MS pixels a side from the middle, to see what numbers a scene holds
Files = tuple[Path, tuple[Path, ...], Path | None]


@dataclass(frozen=True)
class Case:
    """One scene in one protocol: a pair in memory, or files at full resolution.

    `factor` turns its numbers into DN; peak: the greatest there can be, None where that is not known.
    """

    name: str
    protocol: str
    mtf: SensorMtf
    pair: Pair | None = None
    folder: Path | None = None
    peak: float | None = None
    factor: float = 1.0
    warnings: tuple[str, ...] = ()


def cases(path: Path, options: EvalOptions) -> Iterator[Case]:
    """The cases of a scene folder or an h5 file."""
    name = scene_name(path)
    if is_h5(path):
        for pair in h5_pairs(path, name):
            yield from _toolbox_cases(pair, options, mtf_of(options.sensor, len(pair.ms)))
        return
    product = scene_in(path)
    if options.geometry == "toolbox":
        pair = toolbox_pair(name, product)  # by convention, whatever the files say of where they lie
        sensor = (
            options.sensor
            or product.sensor
            or sensor_from_metadata((*_metadata(product.pan), *_metadata(product.ms[0])))
        )
        yield from _toolbox_cases(pair, options, mtf_of(sensor, len(pair.ms)))
        return
    with open_scene(product.pan, product.ms, options.scene) as opened:
        scene, _ = register(opened, options.registration, options.local_registration)
        mtf = mtf_of(options.sensor or product.sensor or sensor_from_metadata(scene.metadata), scene.bands)
        if REDUCED in options.protocols:
            if product.reference is not None:
                pair = referenced_pair(name, product, mtf.ms, options.scene.nodata)
            else:
                pair = reduce_scene(scene, name, mtf.ms, options.size)
            peak = expected_peak(mtf, scene.peaks[1], scene.dtype)
            values = pair.truth if pair.truth is not None else pair.ms
            yield _case(values, name, REDUCED, mtf, pair=pair, peak=peak)
        if FULL in options.protocols:
            (row, height), (col, width) = (((n - min(_LOOK, n)) // 2, min(_LOOK, n)) for n in scene.ms_grid.shape)
            looks = scene.read_ms(row, col, height, width)
            yield _case(looks[0][looks[1]], name, FULL, mtf, folder=path)


def _toolbox_cases(pair: Pair, options: EvalOptions, mtf: SensorMtf) -> Iterator[Case]:
    if pair.truth is None and FULL not in options.protocols:
        raise UsageError(
            f"{pair.name}: has no reference, which the reduced protocol needs in the toolbox's geometry",
            "evaluate it with --protocol full, or a scene without --geometry toolbox",
        )
    if REDUCED in options.protocols and pair.truth is not None:
        yield _case(pair.truth, pair.name, REDUCED, mtf, pair=pair, peak=mtf.peak)
    if FULL in options.protocols:
        yield _case(pair.ms, pair.name, FULL, mtf, pair=replace(pair, truth=None))


def _case(
    values: NDArray[np.floating],
    name: str,
    protocol: str,
    mtf: SensorMtf,
    pair: Pair | None = None,
    folder: Path | None = None,
    peak: float | None = None,
) -> Case:
    if not looks_scaled(values):
        return Case(name, protocol, mtf, pair, folder, peak)
    warning = f"{name}: holds fractions, not DN; scored as {REFLECTANCE_FACTOR:g} times its numbers"
    # What the sensor delivers at most is no reflectance.
    return Case(name, protocol, mtf, pair, folder, None, REFLECTANCE_FACTOR, (warning,))


class Scoring:
    """How the products of a case are scored: readers of what they are compared with."""

    def __init__(self, case: Case, options: EvalOptions, files: Files, stack: ExitStack):
        self._case, self._options = case, options
        pan, ms, truth = files
        opened = stack.enter_context(open_scene(pan, ms, _scene_options(case, options)))
        # A made pair lies as it says, unless the curve moved it, and then its truth is what counts.
        self._scene: Scene = opened
        if case.pair is None:
            self._scene, _ = register(opened, options.registration, options.local_registration)
        self._shape = self._scene.grid.shape
        self.pan = scene_pan(self._scene)
        self.reference: Read | None = None
        self._mask = scene_mask(self._scene)
        if truth is not None:
            file = open_raster(truth)
            stack.callback(file.close)
            self.reference, self._mask = file_pixels(file), file_mask(file)
        self.crop = self._middle()

    def score(self, read: Read, mask: Read | None) -> dict[str, float]:
        """The indices of the case's protocol."""
        case, options = self._case, self._options
        valid = self._mask if mask is None else both(self._mask, mask)
        product = _times(read, case.factor)
        toolbox = case.pair is not None and case.pair.origin > 0
        if self.reference is not None and case.pair is not None:
            truth = _times(self.reference, case.factor)
            ratio = case.pair.ratio
            scores = score_reduced(
                truth,
                product,
                valid,
                self._shape,
                ratio,
                peak=options.peak,
                expected_peak=case.peak,
                cut=options.cut,
            )
            return {name: float(getattr(scores, name)) for name in REDUCED_INDICES}
        lms, low = scene_lms(self._scene), scene_pan_low(self._scene)
        if toolbox and case.pair is not None:
            pair = case.pair
            image = pair.pan.astype(np.float64)
            full = full_scores(
                np.asarray(product((0, self._shape[0]), (0, self._shape[1]))),
                upsample23(pair.ms.astype(np.float64), pair.ratio) * case.factor,
                image * case.factor,
                upsample23(shrink(image, pair.ratio), pair.ratio) * case.factor,
                pair.ratio,
                case.mtf.ms,
                geometry="toolbox",
            )
        else:
            lms, pan, low = (_times(r, case.factor) for r in (lms, self.pan, low))
            full = score_full(product, lms, pan, low, valid, self._shape, self._scene.ratio, case.mtf.ms)
        return {name: float(getattr(full, name)) for name in FULL_INDICES}

    def _middle(self) -> tuple[tuple[int, int], tuple[int, int]]:
        rows, cols = ((max(0, n // 2 - 80), min(n, n // 2 + 80)) for n in self._shape)
        return rows, cols


def fused(
    case: Case,
    contestant: Contestant,
    files: Files,
    options: EvalOptions,
    registration: Choice,
    local: bool | None,
    work: Path,
    stack: ExitStack,
) -> tuple[Read, Read | None]:
    """A method's product of a case, and where it is valid."""
    pair = case.pair
    if pair is not None and pair.origin > 0 and contestant.method != NETWORK:
        pan = pair.pan[0].astype(np.float64)
        image = classical_toolbox(
            contestant.method, pair.ms.astype(np.float64), pan, case.mtf.ms, case.mtf.pan, pair.ratio
        )
        return (lambda rows, cols: image[:, slice(*rows), slice(*cols)]), None
    output = work / f"{len(list(work.iterdir()))}.tif"
    scene = _scene_options(case, options)
    sharpen_scene(
        SharpenOptions(
            pan=files[0],
            ms=files[1],
            output=output,
            method=contestant.method,
            model=contestant.model,
            consistency=contestant.consistency,
            device=options.device,
            sensor=case.mtf.name,
            ms_mtf=scene.ms_mtf,
            registration=registration,
            local_registration=local,
            nodata=scene.nodata,
            ratio=scene.ratio,
            ms_origin=scene.ms_origin,
        )
    )
    file = open_raster(output)
    stack.callback(file.close)
    return file_pixels(file), file_mask(file)


def case_files(case: Case, work: Path) -> Files:
    """The case's PAN, MS and reference as files."""
    if case.pair is not None:
        pan, ms, truth = write_pair(case.pair, work)
        return pan, (ms,), truth
    if case.folder is None:
        raise ValueError("a case has a pair or a folder")
    product = scene_in(case.folder)
    return product.pan, product.ms, None


def _metadata(path: Path) -> tuple[str, ...]:
    file = open_raster(path)
    try:
        return file.metadata
    finally:
        file.close()


def _scene_options(case: Case, options: EvalOptions) -> SceneOptions:
    if case.pair is None:
        return options.scene
    # With what gain a made pair was degraded all methods are told, as the classical ones are.
    return SceneOptions(ms_mtf=case.mtf.ms_mean if case.pair.truth is not None else None)


def _times(read: Read, factor: float) -> Read:
    return read if factor == 1 else lambda rows, cols: read(rows, cols) * factor
