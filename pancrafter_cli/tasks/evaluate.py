"""Several methods on several scenes: Wald's protocol, full resolution, and how they bear misregistration."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.classical.methods import METHODS
from pancrafter_cli.classical.toolbox import classical_toolbox
from pancrafter_cli.data.wald import Pair, h5_pairs, moved, reduce_scene, referenced_pair, toolbox_pair, write_pair
from pancrafter_cli.errors import MetricError, UsageError
from pancrafter_cli.geometry.sensors import SensorMtf, mtf_of, sensor_from_metadata
from pancrafter_cli.geometry.toolbox import shrink, upsample23
from pancrafter_cli.metrics.full import full_scores, score_full
from pancrafter_cli.metrics.lowpass import Geometry
from pancrafter_cli.metrics.streaming import score_reduced
from pancrafter_cli.metrics.windows import Read, looks_scaled
from pancrafter_cli.raster.inputs import open_raster
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.tasks.fusers import NETWORK
from pancrafter_cli.tasks.readers import both, file_mask, file_pixels, scene_lms, scene_mask, scene_pan, scene_pan_low
from pancrafter_cli.tasks.register import DEFAULT_REGISTRATION, Choice, register
from pancrafter_cli.tasks.score import EXP, FULL_INDICES, REDUCED_INDICES
from pancrafter_cli.tasks.sharpen import SharpenOptions, sharpen_scene

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

REDUCED, FULL = "reduced", "full"
REFLECTANCE_FACTOR = 10_000.0  # what reflectance is stored with when it is stored in whole numbers
_CURVE_REGISTRATIONS: tuple[Choice, ...] = ("off", "auto")
_DIRECTION = (0.8, 0.6)  # x, y, in which MS is moved against PAN


@dataclass(frozen=True)
class Contestant:
    """A method, and for the network its model (name or path; None: the default)."""

    label: str
    method: str
    model: str | None = None


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate.

    scenes: folders (pan.tif, ms.tif, perhaps gt.tif) or h5 files of PanCollection's layout. protocols: "reduced" and
    "full". geometry: "toolbox" takes MS samples to lie at 4k + 2 (always so for h5). sensor: of all scenes, else
    as their metadata say. size: MS pixels a side taken from the middle of a larger scene for the reduced protocol.
    shifts: MS pixels that MS is moved against PAN for the robustness curve. cut, peak: as in `score`.
    """

    scenes: tuple[Path, ...]
    contestants: tuple[Contestant, ...]
    protocols: tuple[str, ...] = (REDUCED, FULL)
    geometry: Geometry = "area"
    sensor: str | None = None
    size: int = 1024
    shifts: tuple[float, ...] = ()
    registration: Choice = DEFAULT_REGISTRATION
    cut: int = 0
    peak: float | None = None
    device: str = "auto"
    scene: SceneOptions = field(default_factory=SceneOptions)


@dataclass(frozen=True)
class EvalRow:
    """Indices by name of one method on one scene; shift in MS pixels and registration: of the robustness curve."""

    scene: str
    protocol: str
    method: str
    scores: Mapping[str, float]
    seconds: float
    shift: float = 0.0
    registration: str = ""


@dataclass(frozen=True)
class EvalResult:
    """All rows, those of the robustness curve apart, and what they depend on."""

    rows: tuple[EvalRow, ...]
    curve: tuple[EvalRow, ...]
    settings: Mapping[str, str]
    warnings: tuple[str, ...]
    pictures: Mapping[tuple[str, str], Mapping[str, FloatArray]] = field(default_factory=dict, repr=False)


def evaluate(options: EvalOptions, progress: Progress = lambda what, done, total: None) -> EvalResult:
    """Run every method on every scene and score it. `progress` gets (what is done next, scenes done, scenes in all).

    Raises UsageError for options that do not go together, and whatever a scene, a method or an index raises,
    with the scene's name in front.
    """
    _check(options)
    rows: list[EvalRow] = []
    curve: list[EvalRow] = []
    warnings: list[str] = []
    pictures: dict[tuple[str, str], Mapping[str, FloatArray]] = {}
    for done, path in enumerate(options.scenes):
        progress(path.name, done, len(options.scenes))
        try:
            for case in _cases(path, options):
                found, crops = _run_case(case, options)
                rows += found
                pictures[case.name, case.protocol] = crops
                warnings += case.warnings
                if case.protocol == REDUCED:
                    curve += _curve(case, options)
        except MetricError as error:
            raise MetricError(f"{path.name}: {error.message}", error.hint) from error
    return EvalResult(tuple(rows), tuple(curve), _settings(options), tuple(dict.fromkeys(warnings)), pictures)


def contestants(methods: Sequence[str], models: Sequence[str] = ()) -> tuple[Contestant, ...]:
    """Methods by name; `network` stands for every one of the models, or for the default one."""
    found: list[Contestant] = []
    for method in methods:
        if method == NETWORK:
            found += [Contestant(Path(m).name, NETWORK, m) for m in models] or [Contestant(NETWORK, NETWORK)]
        else:
            found.append(Contestant(method, method))
    return tuple(found)


def means(rows: Sequence[EvalRow], protocol: str) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Mean and standard deviation (N - 1; None for one scene) over the scenes, by method and index."""
    of = [row for row in rows if row.protocol == protocol]
    result: dict[str, dict[str, tuple[float, float | None]]] = {}
    for method in dict.fromkeys(row.method for row in of):
        own = [row.scores for row in of if row.method == method]
        result[method] = {
            name: (
                statistics.fmean(s[name] for s in own),
                statistics.stdev(s[name] for s in own) if len(own) > 1 else None,
            )
            for name in own[0]
        }
    return result


@dataclass(frozen=True)
class _Case:
    """One scene in one protocol: a pair in memory, or files at full resolution. `factor` turns its numbers into DN."""

    name: str
    protocol: str
    mtf: SensorMtf
    pair: Pair | None = None
    folder: Path | None = None
    factor: float = 1.0
    warnings: tuple[str, ...] = ()


def _cases(path: Path, options: EvalOptions) -> Iterator[_Case]:
    """The cases of a scene folder or an h5 file."""
    if path.suffix in (".h5", ".hdf5"):
        for pair in h5_pairs(path):
            yield from _toolbox_cases(pair, options, mtf_of(options.sensor, len(pair.ms)))
        return
    pan, ms = _scene_files(path)
    if options.geometry == "toolbox":
        pair = toolbox_pair(path)  # by convention, whatever the files say of where they lie
        sensor = options.sensor or sensor_from_metadata((*_metadata(pan), *_metadata(ms)))
        yield from _toolbox_cases(pair, options, mtf_of(sensor, len(pair.ms)))
        return
    with open_scene(pan, [ms], options.scene) as opened:
        scene, _ = register(opened, options.registration)
        mtf = mtf_of(options.sensor or sensor_from_metadata(scene.metadata), scene.bands)
        if REDUCED in options.protocols:
            if (path / "gt.tif").exists():
                pair = referenced_pair(path, mtf.ms)
            else:
                pair = reduce_scene(scene, path.name, mtf.ms, options.size)
            yield _case(pair.truth if pair.truth is not None else pair.ms, path.name, REDUCED, mtf, pair=pair)
        if FULL in options.protocols:
            looks = scene.read_ms(0, 0, *(min(256, n) for n in scene.ms_grid.shape))
            yield _case(looks[0][looks[1]], path.name, FULL, mtf, folder=path)


def _toolbox_cases(pair: Pair, options: EvalOptions, mtf: SensorMtf) -> Iterator[_Case]:
    if REDUCED in options.protocols and pair.truth is not None:
        yield _case(pair.truth, pair.name, REDUCED, mtf, pair=pair)
    if FULL in options.protocols:
        yield _case(pair.ms, pair.name, FULL, mtf, pair=replace(pair, truth=None))


def _case(
    values: NDArray[np.floating],
    name: str,
    protocol: str,
    mtf: SensorMtf,
    pair: Pair | None = None,
    folder: Path | None = None,
) -> _Case:
    if not looks_scaled(values):
        return _Case(name, protocol, mtf, pair, folder)
    warning = f"{name}: holds fractions, not DN; scored as {REFLECTANCE_FACTOR:g} times its numbers"
    return _Case(name, protocol, mtf, pair, folder, REFLECTANCE_FACTOR, (warning,))


def _run_case(case: _Case, options: EvalOptions) -> tuple[list[EvalRow], dict[str, FloatArray]]:
    """All methods on one case: rows, and a crop of each for pictures."""
    rows, crops = [], {}
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        files = _files(case, Path(work))
        scoring = _Scoring(case, options, files, stack)
        # The truth of a made pair lies where MS says, and so must what is compared with it.
        registration: Choice = options.registration if case.pair is None else "off"
        for contestant in options.contestants:
            began = time.monotonic()
            read, mask = _fused(case, contestant, files, options, registration, Path(work), stack)
            seconds = time.monotonic() - began
            rows.append(EvalRow(case.name, case.protocol, contestant.label, scoring.score(read, mask), seconds))
            crops[contestant.label] = np.asarray(read(*scoring.crop), np.float64)
        if scoring.reference is not None:
            crops["reference"] = np.asarray(scoring.reference(*scoring.crop), np.float64)
        crops["PAN"] = np.asarray(scoring.pan(*scoring.crop), np.float64)
    return rows, crops


def _curve(case: _Case, options: EvalOptions) -> list[EvalRow]:
    """The methods' ERGAS and SAM as MS is moved against PAN, with the tool's registration and without.

    Without it the truth lies where MS says; with it, where PAN says, for that is where the product is put.
    """
    rows = []
    for shift in options.shifts:
        for registration in _CURVE_REGISTRATIONS:
            if case.pair is None:
                continue
            pair = moved(case.pair, (shift * _DIRECTION[0], shift * _DIRECTION[1]), with_truth=registration == "auto")
            with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
                own = replace(case, pair=pair)
                files = _files(own, Path(work))
                scoring = _Scoring(own, options, files, stack)
                for contestant in options.contestants:
                    began = time.monotonic()
                    fused = _fused(own, contestant, files, options, registration, Path(work), stack)
                    seconds = time.monotonic() - began
                    scores = scoring.score(*fused)
                    facts = case.name, REDUCED, contestant.label, scores, seconds
                    rows.append(EvalRow(*facts, shift, str(registration)))
    return rows


class _Scoring:
    """How the products of a case are scored: readers of what they are compared with."""

    def __init__(self, case: _Case, options: EvalOptions, files: tuple[Path, Path, Path | None], stack: ExitStack):
        self._case, self._options = case, options
        pan, ms, truth = files
        opened = stack.enter_context(open_scene(pan, [ms], _scene_options(case, options)))
        # A made pair lies as it says, unless the curve moved it, and then its truth is what counts.
        self._scene: Scene = opened if case.pair is not None else register(opened, options.registration)[0]
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
        peak = options.peak if options.peak is not None else case.mtf.peak
        product = _times(read, case.factor)
        toolbox = case.pair is not None and case.pair.origin > 0
        if self.reference is not None and case.pair is not None:
            truth = _times(self.reference, case.factor)
            ratio = case.pair.ratio
            scores = score_reduced(truth, product, valid, self._shape, ratio, peak=peak, cut=options.cut)
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


def _fused(
    case: _Case,
    contestant: Contestant,
    files: tuple[Path, Path, Path | None],
    options: EvalOptions,
    registration: Choice,
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
            ms=(files[1],),
            output=output,
            method=contestant.method,
            model=contestant.model,
            device=options.device,
            sensor=case.mtf.name,
            registration=registration,
            ratio=scene.ratio,
            ms_origin=scene.ms_origin,
        )
    )
    file = open_raster(output)
    stack.callback(file.close)
    return file_pixels(file), file_mask(file)


def _files(case: _Case, work: Path) -> tuple[Path, Path, Path | None]:
    """The case's PAN, MS and reference as files."""
    if case.pair is not None:
        return write_pair(case.pair, work)
    if case.folder is None:
        raise ValueError("a case has a pair or a folder")
    return (*_scene_files(case.folder), None)


def _scene_files(folder: Path) -> tuple[Path, Path]:
    pan, ms = folder / "pan.tif", folder / "ms.tif"
    if not (pan.exists() and ms.exists()):
        raise UsageError(
            f"{folder}: has no pan.tif and ms.tif", "give folders with both, or h5 files in PanCollection's layout"
        )
    return pan, ms


def _metadata(path: Path) -> tuple[str, ...]:
    file = open_raster(path)
    try:
        return file.metadata
    finally:
        file.close()


def _scene_options(case: _Case, options: EvalOptions) -> SceneOptions:
    return SceneOptions() if case.pair is not None else options.scene


def _times(read: Read, factor: float) -> Read:
    return read if factor == 1 else lambda rows, cols: read(rows, cols) * factor


def _check(options: EvalOptions) -> None:
    if not options.scenes:
        raise UsageError("no scene is given", "name folders with pan.tif and ms.tif, or h5 files")
    for contestant in options.contestants:
        if contestant.method not in (NETWORK, *METHODS):
            raise UsageError(f"unknown method '{contestant.method}'", f"use {NETWORK}, {', '.join(METHODS)}")
    if not options.protocols or set(options.protocols) - {REDUCED, FULL}:
        raise UsageError(f"unknown protocol in {', '.join(options.protocols)}", f"use {REDUCED}, {FULL} or both")
    if any(not 0 <= s <= 8 for s in options.shifts):
        raise UsageError("--shift: expected MS pixels from 0 to 8", "for example --shift 0,0.5,1")
    if options.shifts and (REDUCED not in options.protocols or options.geometry == "toolbox"):
        raise UsageError("--shift needs the reduced protocol in the area geometry", "leave out the other flags")


def _settings(options: EvalOptions) -> dict[str, str]:
    return {
        "scenes": str(len(options.scenes)),
        "protocols": ", ".join(options.protocols),
        "geometry": "pixels are areas" if options.geometry == "area" else "MS samples at 4k + 2",
        "MTF": options.sensor or "of the sensor the metadata name, else generic (0.30, PAN 0.15)",
        "registration": str(options.registration),
        "border left out": str(options.cut),
        "blocks": "32 x 32 pixels",
        EXP: "MS brought to the PAN grid, nothing sharpened",
    }
