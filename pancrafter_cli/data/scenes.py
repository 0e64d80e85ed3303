"""Real scenes as training sources.

Two kinds come out of every PAN+MS scene:

- "wald": the MS is the truth; PAN is brought to its grid (Wald's protocol). True spectra and true
  texture, at reduced resolution.
- "resynthesised": a fusion of the real scene at full resolution is declared the truth, and PAN is re-derived
  from it by regression. True structure at full resolution, fused spectra.

A scene of up to LARGEST_WHOLE PAN pixels is held in memory as one image. Of a larger one parts are read as they are
drawn, and what holds for the scene as a whole is measured on some of them, so that memory does not grow with it.
Invalid pixels are filled as at inference, and no patch lies on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.scene_parts import Part, Span, parts_of, spread_over
from pancrafter_cli.data.sources import AnySource, Float32, Mask, Matching, Source, measure_matching
from pancrafter_cli.errors import NoProduct, RasterError, TrainingError
from pancrafter_cli.geometry.degrade import DEFAULT_MS_GAIN, DEFAULT_PAN_GAIN, degrade_weights
from pancrafter_cli.geometry.fill import fill_invalid
from pancrafter_cli.geometry.grid import overlap
from pancrafter_cli.geometry.inputs import lowpass, plan_inputs
from pancrafter_cli.geometry.resample import apply_weights, cubic_weights, known_only
from pancrafter_cli.raster.arrays import read_array
from pancrafter_cli.raster.inputs import Nodata
from pancrafter_cli.raster.products import GUESSED, NAMED, ProductFiles, scene_in
from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import Alignment, Scene, SceneOptions, SceneStatistics, open_scene
from pancrafter_cli.raster.windows import read_filled

LARGEST_WHOLE = 1536**2  # PAN pixels
_SMALLEST = 8  # pixels a side: less leaves nothing to match bands on at a ratio of 6
_MEASURED, _MEASURED_PIXELS = 16, 2**21  # parts that stand for a scene, and pixels of them


@dataclass(frozen=True)
class Image:
    """A window of a truth in DN / scale: truth (C, H, W), pans (2, H, W) as in a Source, and which are valid (H, W)."""

    truth: Float32
    pans: Float32
    valid: Mask


@dataclass(frozen=True)
class Layers:
    """What a window is fused from, in DN / scale: pan and lpan (1, H, W), lms (C, H, W), and which are valid (H, W)."""

    pan: Float32
    lpan: Float32
    lms: Float32
    valid: Mask


Seen = TypeVar("Seen", Image, Layers)


@dataclass(frozen=True)
class Kind(Generic[Seen]):
    """How a kind of source comes out of a scene: `read` a part, `fit` what the scene as a whole tells, get an image."""

    name: str
    spans: Callable[[Scene], tuple[Span, Span]]
    read: Callable[[Scene, SceneStatistics, Part], Seen]
    fit: Callable[[Sequence[Seen]], Callable[[Seen], Image]]


@dataclass(frozen=True)
class SceneParts:
    """A scene of which one part at a time is read; what holds for all of it was measured on some parts.

    `alignment` is how its files are registered, `known` what was measured on them, `finish` makes an image of what is
    read. `pixels` are the valid ones, by what was seen; `empty` are the parts seen in which no patch begins. Can be
    pickled, for the processes that draw from it.
    """

    name: str
    of: Kind[Any]
    files: tuple[Path, tuple[Path, ...]]
    nodata: Nodata | None
    alignment: Alignment
    known: SceneStatistics
    finish: Callable[[Any], Image]
    parts: tuple[Part, ...]
    patch: int
    bands: int
    ratio: float
    matching: Matching
    pixels: int
    empty: frozenset[int]

    @property
    def kind(self) -> str:
        """Kind of source."""
        return self.of.name

    @property
    def count(self) -> int:
        """Number of parts."""
        return len(self.parts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of a part."""
        return self.bands, *self.parts[0].shape

    def image(self, index: int) -> Source:
        """One part; where no valid patch begins in it, its `places` are empty. Raises RasterError."""
        part = self.parts[index]
        with open_scene(*self.files, SceneOptions(nodata=self.nodata)) as opened:
            image = self.finish(self.of.read(opened.aligned(self.alignment), self.known, part))
        name = f"{self.name}[{part.rows[0]},{part.cols[0]}]"
        places = part.places(image.valid, self.patch)
        return Source(name, self.kind, image.truth, image.pans, self.matching, self.ratio, places)


def load_sources(
    folder: Path, kinds: Sequence[str], patch: int = _SMALLEST, nodata: Nodata | None = None
) -> list[AnySource]:
    """The sources of the scene in `folder`: pan.tif and ms.tif, gt.tif where a reference exists, or a product.

    Those in which no valid patch of `patch` pixels a side fits are left out. nodata: as of `SceneOptions`. Raises
    TrainingError when none is left, NoProduct when the folder holds no scene, or none that may be taken unasked,
    UsageError when it is no folder, and RasterError or GeometryError for unusable rasters and for PAN and MS that
    `sharpen` refuses too.
    """
    product = found_scene(folder)
    files = product.pan, product.ms
    if product.reference is not None:
        # The reference lies on the PAN grid already: its own Wald pair, with ratio 1 between the two files.
        return [_referenced_source(folder, files, product.reference, patch, nodata)]
    with open_scene(*files, SceneOptions(nodata=nodata)) as opened:
        scene, _ = register(opened)
        fitting = [kind for kind in map(KINDS.__getitem__, kinds) if min(_sizes(kind.spans(scene))) >= patch]
        if not fitting:
            raise _too_small(folder, _sizes(_covered(scene)), scene.grid.shape, patch)
        found = [source for kind in fitting if (source := _load(folder.name, kind, scene, files, patch, nodata))]
    if not found:
        raise _nothing_valid(folder, patch)
    return found


def found_scene(folder: Path) -> ProductFiles:
    """The scene of a folder that was come across, not named. Raises as `load_sources`."""
    product = scene_in(folder)
    if product.layout == GUESSED:
        raise NoProduct(
            f"{folder}: holds two rasters, but neither is named as PAN or MS",
            "name them pan.tif and ms.tif to use them",
        )
    if product.layout != NAMED and product.pan.name.lower() == "pan.tif" and product.pan.parent != folder:
        raise NoProduct(
            f"{folder}: holds a scene in {product.pan.parent.relative_to(folder)}", "move it beside the other scenes"
        )
    return product


def _load(
    name: str,
    kind: Kind[Seen],
    scene: Scene,
    files: tuple[Path, tuple[Path, ...]],
    patch: int,
    nodata: Nodata | None,
) -> AnySource | None:
    """One source of a registered scene, None where no valid patch fits into it."""
    whole = math.prod(scene.grid.shape) <= LARGEST_WHOLE
    parts = [Part.whole(*kind.spans(scene))] if whole else parts_of(*kind.spans(scene), patch)
    known = scene.statistics
    most = max(1, min(_MEASURED, _MEASURED_PIXELS // math.prod(parts[0].shape)))
    seen, empty = [], []
    for index in spread_over(len(parts), most):
        found = kind.read(scene, known, parts[index])
        places = parts[index].places(found.valid, patch)
        if places is None or len(places):
            seen.append(found)
        else:
            empty.append(index)
        if len(seen) + len(empty) >= most and seen:
            break
    if not seen:
        return None
    finish = kind.fit(seen)
    images = [finish(found) for found in seen]
    matching = measure_matching(
        np.stack([image.truth for image in images], axis=1),
        np.stack([image.pans.mean(axis=0) for image in images]),
        np.stack([image.valid for image in images]),
    )
    valid = sum(int(image.valid.sum()) for image in images)
    if whole:
        return Source(name, kind.name, images[0].truth, images[0].pans, matching, scene.ratio, places, valid)
    share = valid / ((len(seen) + len(empty)) * images[0].valid.size)
    return SceneParts(
        name=name,
        of=kind,
        files=files,
        nodata=nodata,
        alignment=scene.alignment,
        known=known,
        finish=finish,
        parts=tuple(parts),
        patch=patch,
        bands=scene.bands,
        ratio=scene.ratio,
        matching=matching,
        pixels=max(1, round(share * math.prod(_sizes(kind.spans(scene))))),
        empty=frozenset(empty),
    )


def _covered(scene: Scene) -> tuple[Span, Span]:
    """Rows and columns of MS under PAN."""
    to_pan = scene.ms_map.inverse()
    return overlap(to_pan.rows), overlap(to_pan.cols)


def _all_of(scene: Scene) -> tuple[Span, Span]:
    """Rows and columns of the output grid."""
    return (0, scene.grid.height), (0, scene.grid.width)


def _sizes(spans: tuple[Span, Span]) -> tuple[int, int]:
    (top, bottom), (left, right) = spans
    return bottom - top, right - left


def _too_small(folder: Path, ms: tuple[int, int], pan: tuple[int, int], patch: int) -> TrainingError:
    return TrainingError(
        f"{folder}: {ms[0]} x {ms[1]} MS pixels over {pan[0]} x {pan[1]} PAN pixels are too small for patches of "
        f"{patch} pixels",
        "use larger scenes, or a recipe with a smaller `patch`",
    )


def _nothing_valid(folder: Path, patch: int) -> TrainingError:
    return TrainingError(
        f"{folder}: nowhere are {patch} x {patch} pixels side by side valid in PAN and in all bands of MS",
        "use scenes with fewer gaps (`pancrafter inspect` shows nodata and masks), or a recipe with a smaller `patch`",
    )


def _read_pan(scene: Scene, known: SceneStatistics, rows: Span, cols: Span) -> tuple[Float32, Mask]:
    """PAN in DN / scale (1, h, w) without holes, and where it had none (1, h, w)."""
    image, valid = read_filled(scene.read_pan, rows, cols, scene.grid.shape, np.array([known.pan_mean]))
    return image / np.float32(known.scale), valid


def _read_ms(scene: Scene, known: SceneStatistics, rows: Span, cols: Span) -> tuple[Float32, Mask]:
    """MS in DN / scale (C, h, w) without holes, and where it had none (C, h, w)."""
    image, valid = read_filled(scene.read_ms, rows, cols, scene.ms_grid.shape, known.ms_mean)
    return image / np.float32(known.scale), valid


def _wald_image(scene: Scene, known: SceneStatistics, part: Part) -> Image:
    """MS, and PAN brought to its grid."""
    to_pan = scene.ms_map.inverse()
    # As soft as a PAN detector's own aperture, and as crisp as an antialiased cubic reduction.
    soft, crisp = (
        tuple(weigh(axis, *span) for axis, span in ((to_pan.rows, part.rows), (to_pan.cols, part.cols)))
        for weigh in (lambda axis, a, b: degrade_weights(axis, a, b, DEFAULT_PAN_GAIN), cubic_weights)
    )
    rows, cols = ((min(a.first, b.first), max(a.stop, b.stop)) for a, b in zip(soft, crisp, strict=True))
    pan, pan_valid = _read_pan(scene, known, rows, cols)
    truth, valid = _read_ms(scene, known, part.rows, part.cols)
    use = np.asarray(valid.all(axis=0))
    pans = []
    for down, across in (soft, crisp):
        under = np.s_[0, down.first - rows[0] : down.stop - rows[0], across.first - cols[0] : across.stop - cols[0]]
        pans.append(apply_weights(down.matrix, across.matrix, pan[under]))
        if not pan_valid.all():
            use = use & known_only(down.matrix, across.matrix, pan_valid[under])
    return Image(truth, np.stack(pans), use)


def _nothing_to_fit(seen: Sequence[Image]) -> Callable[[Image], Image]:
    return _as_it_is


def _as_it_is(image: Image) -> Image:
    return image


def _layers(scene: Scene, known: SceneStatistics, part: Part) -> Layers:
    """PAN, PAN as soft as MS, and MS interpolated."""
    plan = plan_inputs(scene.ms_map, part.rows, part.cols, DEFAULT_MS_GAIN)
    pan, pan_valid = _read_pan(scene, known, plan.rows.pan, plan.cols.pan)
    ms, ms_valid = _read_ms(scene, known, plan.rows.ms, plan.cols.ms)
    lms = apply_weights(plan.rows.up.matrix, plan.cols.up.matrix, ms)
    valid = pan_valid[0, plan.rows.crop, plan.cols.crop]
    if not (pan_valid.all() and ms_valid.all()):
        low = known_only(plan.rows.down.matrix, plan.cols.down.matrix, pan_valid[0, plan.rows.blur, plan.cols.blur])
        both = low & ms_valid.all(axis=0)
        valid = valid & known_only(plan.rows.up.matrix, plan.cols.up.matrix, both)
    return Layers(pan[:, plan.rows.crop, plan.cols.crop], lowpass(plan, pan), lms, valid)


@dataclass(frozen=True)
class Fusion:
    """Truth = MTF-GLP fusion lms + g (pan - lpan); PAN = its regression on the truth, and the mean with the real.

    slope: g (C,); weights (C + 1,): of the truth's bands in PAN, and a constant.
    """

    slope: Float32
    weights: NDArray[np.float64]

    def __call__(self, layers: Layers) -> Image:
        """The resynthesised pair of a window."""
        truth = _injected(layers, self.slope)
        derived = np.tensordot(self.weights[:-1], truth.astype(np.float64), axes=1) + self.weights[-1]
        pan = derived.astype(np.float32)
        return Image(truth, np.stack([pan, (pan + layers.pan[0]) / 2]), layers.valid)


def _fit_fusion(seen: Sequence[Layers]) -> Fusion:
    soft = np.concatenate([layers.lpan[0][layers.valid] for layers in seen])
    bands = np.concatenate([layers.lms[:, layers.valid] for layers in seen], axis=1)
    centred = (soft - soft.mean()).astype(np.float64)
    power = float((centred**2).mean())
    slope = (bands @ centred / len(centred) / power if power > 0 else np.zeros(len(bands))).astype(np.float32)
    truths = np.concatenate([_injected(layers, slope)[:, layers.valid] for layers in seen], axis=1)
    return Fusion(slope, _regression(np.concatenate([layers.pan[0][layers.valid] for layers in seen]), truths))


def _injected(layers: Layers, slope: Float32) -> Float32:
    fused: Float32 = layers.lms + slope[:, None, None] * (layers.pan - layers.lpan)
    return fused


def _regression(pan: Float32, truth: Float32) -> NDArray[np.float64]:
    """Least-squares weights (C + 1,) of the truth's bands (C, N) and a constant that come closest to PAN (N,)."""
    design = np.concatenate([truth, np.ones((1, pan.size), np.float32)]).astype(np.float64)
    weights = np.linalg.solve(design @ design.T + 1e-9 * np.eye(len(design)), design @ pan)
    return weights.astype(np.float64, copy=False)


def _referenced_source(
    folder: Path, files: tuple[Path, tuple[Path, ...]], reference: Path, patch: int, nodata: Nodata | None
) -> Source:
    """The Wald pair of a scene that comes with its own reference on the PAN grid."""
    truth = read_array(reference, nodata)
    with open_scene(*files, SceneOptions(nodata=nodata)) as scene:
        pan, pan_valid = scene.read_pan(0, 0, *scene.grid.shape)
        ratio, bands = scene.ratio, scene.bands
    if len(truth) != bands:
        raise TrainingError(
            f"{reference}: has {len(truth)} bands, but MS has {bands}",
            f"{reference.name} has the bands of MS, in their order",
        )
    if pan.shape[1:] != truth.shape[1:]:
        raise TrainingError(
            f"{reference}: {truth.shape[1:]} rows and columns, but PAN has {pan.shape[1:]}",
            f"{reference.name} lies on the PAN grid",
        )
    if min(truth.shape[1:]) < patch:
        raise _too_small(folder, (truth.shape[1], truth.shape[2]), (pan.shape[1], pan.shape[2]), patch)
    known = np.isfinite(truth)
    valid = pan_valid[0] & known.all(axis=0)
    height, width = valid.shape
    places = Part.whole((0, height), (0, width)).places(valid, patch)
    if places is not None and not len(places):
        raise _nothing_valid(folder, patch)
    scale = np.float32(np.percentile(np.abs(truth[:, valid]), 99))
    if not scale > 0:
        raise RasterError(f"{reference}: is 0 nearly everywhere", "this is no image")
    truth = fill_invalid(truth, known, truth[:, valid].mean(axis=1)) / scale
    pan = fill_invalid(pan, pan_valid, pan[pan_valid].mean(keepdims=True)) / scale
    matching = measure_matching(truth, pan[0], valid)
    return Source(folder.name, "wald", truth, np.repeat(pan, 2, axis=0), matching, ratio, places, int(valid.sum()))


KINDS: dict[str, Kind[Any]] = {
    "wald": Kind("wald", _covered, _wald_image, _nothing_to_fit),
    "resynthesised": Kind("resynthesised", _all_of, _layers, _fit_fusion),
}
