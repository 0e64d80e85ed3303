"""Scoring one fused product: against a reference, or at full resolution against the PAN and MS it was made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pancrafter_cli.errors import GeometryError, MetricError, RasterError, UsageError
from pancrafter_cli.geometry.sensors import SensorMtf, expected_peak, mtf_of, sensor_from_metadata
from pancrafter_cli.geometry.toolbox import shrink, upsample23
from pancrafter_cli.metrics.full import FullScores, score_full
from pancrafter_cli.metrics.lowpass import Geometry
from pancrafter_cli.metrics.streaming import ReducedScores, score_reduced
from pancrafter_cli.metrics.windows import Read, Shape, array_reader, looks_scaled
from pancrafter_cli.raster.inputs import RasterFile, open_raster
from pancrafter_cli.raster.outputs import read_finished
from pancrafter_cli.raster.register import DEFAULT_REGISTRATION, DISPLACEMENT_TAG, SHIFT_TAG, Choice, register
from pancrafter_cli.raster.scene import Scene, SceneOptions, open_scene
from pancrafter_cli.tasks.readers import (
    block_means,
    both,
    check_bands,
    degraded,
    file_mask,
    file_pixels,
    on_grid,
    scene_lms,
    scene_mask,
    scene_pan,
    scene_pan_low,
)

EXP = "exp"
FUSED = "fused"
REDUCED_INDICES = ("q2n", "q", "sam", "ergas", "scc", "ssim", "psnr")
FULL_INDICES = ("d_lambda_k", "d_s", "hqnr", "d_lambda", "qnr")
_TOOLBOX_PIXELS = 4096 * 4096  # the 23-tap interpolation works on the whole image
_RATIO = 4.0
_RATIO_TAG = "PANCRAFTER_RATIO"
_LOOK = 256  # pixels a side from the middle, to see what numbers an image holds


@dataclass(frozen=True)
class ScoreOptions:
    """What to score. Give `reference`, or `pan` and `ms` for full resolution.

    sensor: whose MTF and greatest DN are assumed; by default the one the metadata name, else generic gains.
    ratio: MS over PAN pixel size, for ERGAS and `exp` beside a reference; by default the product's tag says it, else 4.
    geometry: "area", or "toolbox" for data whose MS samples lie at 4k + 2. registration: as the product was made with;
    by default as its tags say, or else "auto".
    cut: border left out beside a reference, 21 in the research toolboxes. peak: greatest DN.
    """

    fused: Path
    reference: Path | None = None
    pan: Path | None = None
    ms: tuple[Path, ...] = ()
    ratio: float | None = None
    sensor: str | None = None
    geometry: Geometry = "area"
    cut: int = 0
    peak: float | None = None
    registration: Choice | None = None
    scene: SceneOptions = field(default_factory=SceneOptions)


@dataclass(frozen=True)
class ScoreResult:
    """Indices by row ("fused", "exp") and name, the settings they depend on, and what to be wary of.

    full: whether at full resolution. shape: rows and columns of the PAN grid; valid: share of pixels scored.
    """

    fused: Path
    full: bool
    shape: Shape
    bands: int
    valid: float
    scores: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """A result with what a report is drawn from: readers of the layers by name, the mask, and the block maps."""

    result: ScoreResult
    layers: Mapping[str, Read]
    mask: Read
    maps: Mapping[str, np.ndarray]
    names: tuple[str | None, ...]


def score(options: ScoreOptions, stack: ExitStack) -> Measured:
    """Score a product; files stay open until `stack` closes, for a report to read from.

    Raises UsageError for options that do not go together, RasterError or GeometryError for unusable files, and
    MetricError when grids or bands disagree or an index has no value.
    """
    check_numbers(options.cut, options.peak)
    fused = _opened(options.fused, stack)
    if options.reference is not None:
        if options.pan is not None or options.ms:
            raise UsageError(
                "a reference and PAN and MS were given", "give --reference, or --full-res with --pan and --ms"
            )
        return _against_reference(options, fused, _opened(options.reference, stack))
    if options.pan is None or not options.ms:
        raise UsageError("nothing to score against", "give --reference GT, or --full-res with --pan PAN and --ms MS")
    if options.cut or options.peak is not None:
        raise UsageError("--cut and --peak are for scores against a reference", "leave them out with --full-res")
    scene = stack.enter_context(open_scene(options.pan, options.ms, options.scene))
    if options.geometry == "toolbox":
        return _at_full_resolution(options, fused, scene, "none, MS lies as published patches have it")
    # Where a product's PAN was moved to MS, it shows what that shows; others lie where PAN lies.
    tags = read_finished(options.fused).tags
    choice = options.registration or _as_made(options.fused, tags)
    scene, registration = register(scene, choice or DEFAULT_REGISTRATION, DISPLACEMENT_TAG in tags)
    said = ", by the product's tags" if options.registration is None and choice is not None else ""
    return _at_full_resolution(options, fused, scene, f"{registration.text}{said}")


def check_numbers(cut: int, peak: float | None) -> None:
    """Raise UsageError for a border or a greatest DN that cannot be."""
    if cut < 0:
        raise UsageError(f"--cut {cut}: expected a number of pixels", "21 is what the research toolboxes use")
    if peak is not None and not 0 < peak < math.inf:
        raise UsageError(f"--peak {peak:g}: expected the greatest DN", "for example 2047 for 11 bits")


def _as_made(path: Path, tags: Mapping[str, str]) -> Choice | None:
    """The shift (dx, dy) that the product's tags say was corrected; None where they say nothing."""
    said = _tagged_numbers(path, tags, SHIFT_TAG, 2, "--registration")
    return (said[0], said[1]) if said else None


def _tagged_numbers(path: Path, tags: Mapping[str, str], name: str, count: int, flag: str) -> tuple[float, ...]:
    """The numbers of a product's tag; none where it has no such tag. Raises RasterError where it has others."""
    if name not in tags:
        return ()
    try:
        numbers = tuple(float(part) for part in tags[name].split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise RasterError(
            f"{path}: its tag {name} is '{tags[name]}', expected {count} number{'s' * (count > 1)}",
            f"give {flag}, or sharpen again",
        )
    return numbers


def _check_for_reference(options: ScoreOptions) -> None:
    """Raise UsageError for what only says how PAN and MS lie or are read."""
    scene = options.scene
    asked = {
        "--geometry": options.geometry != "area",
        "--registration": options.registration is not None,
        "--ms-origin": scene.ms_origin is not None,
        "--nodata": scene.nodata is not None,
        "--dem": scene.dem is not None,
    }
    without = [flag for flag, given in asked.items() if given]
    if without:
        raise UsageError(f"{', '.join(without)}: nothing to do beside a reference", "leave it out, or score --full-res")


def _ratio(options: ScoreOptions) -> tuple[float, str]:
    """The ratio to score with, and where it is from."""
    if options.ratio is not None:
        if not 1 < options.ratio < math.inf:
            raise UsageError(f"--ratio {options.ratio:g}: expected MS over PAN pixel size, above 1", "for example 4")
        return options.ratio, "as given"
    said = _tagged_numbers(options.fused, read_finished(options.fused).tags, _RATIO_TAG, 1, "--ratio")
    if not said:
        return _RATIO, "assumed, see --ratio"
    if not said[0] > 1:
        raise RasterError(
            f"{options.fused}: its tag {_RATIO_TAG} is {said[0]:g}, expected MS over PAN pixel size, above 1",
            "give --ratio, or sharpen again",
        )
    return said[0], "by the product's tags"


def _against_reference(options: ScoreOptions, fused: RasterFile, reference: RasterFile) -> Measured:
    _check_for_reference(options)
    remedy = "bring both onto one grid first (gdalwarp), or score against another reference"
    name = f"the reference {reference.path}"
    product, known = on_grid(fused, reference.grid, name, remedy)
    doubts = check_bands(fused, reference.facts, name)
    ratio, origin = _ratio(options)
    mtf = _mtf(options.sensor, (*fused.metadata, *reference.metadata), fused.bands)
    expected = expected_peak(mtf, reference.peak, reference.dtype)
    shape, truth, truth_known = reference.grid.shape, file_pixels(reference), file_mask(reference)
    mask = both(known, truth_known)
    means = _means(truth, truth_known, shape)
    exp = degraded(reference, ratio, mtf.ms, means)
    scores: dict[str, ReducedScores] = {
        name: score_reduced(truth, read, mask, shape, ratio, peak=options.peak, expected_peak=expected, cut=options.cut)
        for name, read in ((FUSED, product), (EXP, exp))
    }
    result = ScoreResult(
        fused=options.fused,
        full=False,
        shape=shape,
        bands=fused.bands,
        valid=_share(mask, shape),
        scores={name: _chosen(s, REDUCED_INDICES) for name, s in scores.items()},
        settings={
            "reference": str(reference.path),
            "ratio": f"{ratio:g} ({origin})",
            "MTF at MS Nyquist": f"{mtf.name}: {_listed(mtf.ms)}",
            "border left out": f"{max(0, options.cut - 1)} pixels above and left, {options.cut} below and right",
            "peak": f"{scores[FUSED].peak:g} DN"
            + ("" if scores[FUSED].peak in (options.peak, expected) else " (the greatest of the reference)"),
            "blocks of Q and Q2n": "32 x 32 pixels",
            EXP: "the reference degraded by the ratio (MTF) and interpolated back (cubic)",
        },
        warnings=(*doubts, *_warnings({"product": product, "reference": truth}, shape)),
    )
    return Measured(result, {FUSED: product, EXP: exp, "reference": truth}, mask, {}, _names(fused))


def _at_full_resolution(options: ScoreOptions, fused: RasterFile, scene: Scene, registration: str) -> Measured:
    remedy = "score the product with the PAN and MS it was made of; it lies on the PAN grid where both overlap"
    product, known = on_grid(fused, scene.grid, "the overlap of PAN and MS", remedy)
    doubts = check_bands(fused, scene.output.bands, "MS")
    mtf = _mtf(options.sensor, scene.metadata, scene.bands)
    shape, mask = scene.grid.shape, both(scene_mask(scene), known)
    lms, pan, pan_low = _upsampled(scene, options.geometry)
    scores: dict[str, FullScores] = {
        name: score_full(read, lms, pan, pan_low, mask, shape, scene.ratio, mtf.ms, geometry=options.geometry)
        for name, read in ((FUSED, product), (EXP, lms))
    }
    result = ScoreResult(
        fused=options.fused,
        full=True,
        shape=shape,
        bands=fused.bands,
        valid=_share(mask, shape),
        scores={name: _chosen(s, FULL_INDICES) for name, s in scores.items()},
        settings={
            "ratio": f"{scene.ratio:.6g}",
            "geometry": "pixels are areas" if options.geometry == "area" else "MS samples at 4k + 2, 23-tap filter",
            "MTF at MS Nyquist": f"{mtf.name}: {_listed(mtf.ms)}",
            "registration": registration,
            "blocks": f"{scores[FUSED].blocks} of 32 x 32 pixels, valid throughout",
            "constant blocks left out of D_S": str(scores[FUSED].flat_spatial),
            EXP: "MS brought to the PAN grid, nothing sharpened",
        },
        warnings=(*doubts, *_warnings({"product": product, "MS": lms}, shape)),
    )
    maps = {"d_lambda_k": scores[FUSED].spectral_map, "d_s": scores[FUSED].spatial_map}
    return Measured(result, {FUSED: product, EXP: lms, "PAN": pan}, mask, maps, _names(fused))


def _upsampled(scene: Scene, geometry: Geometry) -> tuple[Read, Read, Read]:
    """(lms, PAN, low-passed PAN) on the PAN grid in a geometry."""
    if geometry == "area":
        return scene_lms(scene), scene_pan(scene), scene_pan_low(scene)
    height, width = scene.grid.shape
    ratio = round(scene.ratio)
    if scene.ms_grid.shape != (height // ratio, width // ratio) or height % ratio or width % ratio:
        raise GeometryError(
            f"the toolbox geometry needs MS of {height // ratio} x {width // ratio} pixels under PAN of {height} x "
            f"{width}; it has {scene.ms_grid.height} x {scene.ms_grid.width}",
            "leave out --geometry toolbox for products with their own georeferencing",
        )
    if height * width > _TOOLBOX_PIXELS:
        raise GeometryError(
            f"{height} x {width} pixels are too many for the toolbox geometry, which works on whole images",
            "leave out --geometry toolbox; it is for the patches of published tables",
        )
    pan = scene.read_pan(0, 0, height, width)[0].astype(np.float64)
    ms = scene.read_ms(0, 0, *scene.ms_grid.shape)[0].astype(np.float64)
    low = upsample23(shrink(pan, ratio), ratio)
    return array_reader(upsample23(ms, ratio)), array_reader(pan), array_reader(low)


def _mtf(sensor: str | None, metadata: Sequence[str], bands: int) -> SensorMtf:
    return mtf_of(sensor or sensor_from_metadata(metadata), bands)


def _means(read: Read, mask: Read, shape: Shape) -> np.ndarray:
    """Mean (C,) of the valid pixels, nearly: that of the means of blocks."""
    blocks = block_means(read, mask, shape, max(1, max(shape) // 64))
    known = np.isfinite(blocks[0])
    if not known.any():
        raise MetricError("no pixel is valid", "check the nodata value and the mask: they leave nothing to compare")
    return np.asarray(blocks[:, known].mean(axis=1))


def _share(mask: Read, shape: Shape) -> float:
    """Share of pixels that are valid."""
    step = max(1, max(shape) // 64)
    blocks = block_means(lambda r, c: mask(r, c)[None].astype(np.float32), _all_valid, shape, step)[0]
    rows, cols = (np.minimum(step, n - step * np.arange(blocks.shape[k])) for k, n in enumerate(shape))
    return float((blocks * np.outer(rows, cols)).sum() / math.prod(shape))


def _all_valid(rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
    return np.ones((rows[1] - rows[0], cols[1] - cols[0]), dtype=bool)


def _warnings(images: Mapping[str, Read], shape: Shape) -> tuple[str, ...]:
    """What makes scores doubtful."""
    middle = [(max(0, n // 2 - _LOOK // 2), min(n, n // 2 + _LOOK // 2)) for n in shape]
    return tuple(
        f"the {name} holds fractions between 0 and 1.5, not DN: Q2n and D_lambda round to whole numbers "
        "and mean nothing here; multiply by the scale (for example 10,000 for reflectance) and score again"
        for name, read in images.items()
        if looks_scaled(read(*middle))
    )


def _opened(path: Path, stack: ExitStack) -> RasterFile:
    file = open_raster(path)
    stack.callback(file.close)
    return file


def _names(file: RasterFile) -> tuple[str | None, ...]:
    return tuple(facts.description for facts in file.facts)


def _chosen(scores: ReducedScores | FullScores, names: Sequence[str]) -> dict[str, float]:
    return {name: float(getattr(scores, name)) for name in names}


def _listed(gains: Sequence[float]) -> str:
    return ", ".join(f"{g:g}" for g in gains) if len({*gains}) > 1 else f"{gains[0]:g}"
