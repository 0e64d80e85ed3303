"""Scoring a model in training on scenes it never sees, by Wald's protocol and with the indices of `score`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.data.batches import Skipped
from pancrafter_cli.data.scenes import found_scene
from pancrafter_cli.data.wald import Pair, reduce_scene, referenced_pair, write_pair
from pancrafter_cli.errors import PancrafterError, TrainingError
from pancrafter_cli.geometry.inputs import NetworkInputs
from pancrafter_cli.geometry.sensors import mtf_of, sensor_from_metadata
from pancrafter_cli.metrics.hypercomplex import q2n
from pancrafter_cli.metrics.reduced import ergas, sam
from pancrafter_cli.metrics.windows import looks_scaled
from pancrafter_cli.raster.inputs import Nodata
from pancrafter_cli.raster.register import register
from pancrafter_cli.raster.scene import SceneOptions, open_scene
from pancrafter_cli.runtime.torch_runner import TorchRunner
from pancrafter_cli.tasks.eval_cases import REFLECTANCE_FACTOR
from pancrafter_cli.tasks.tile_inputs import read_inputs

Float32 = NDArray[np.float32]

SIZE = 256  # MS pixels a side, from the middle of a scene


@dataclass(frozen=True)
class Scores:
    """ERGAS and SAM (degrees), of which 0 is perfect, and Q2n, of which 1 is."""

    ergas: float
    sam: float
    q2n: float


@dataclass(frozen=True)
class Exam:
    """The middle of a held-out scene: inputs in DN / scale, the truth (C, H, W) in DN, and what `exp` scores.

    `scale` takes what the network makes to the truth's unit.
    """

    name: str
    images: NetworkInputs
    truth: Float32
    valid: NDArray[np.bool_]
    scale: np.float32
    ratio: int
    exp: Scores

    def score(self, sharp: Float32) -> Scores:
        """The indices of a product (C, H, W) in DN / scale."""
        return _scores(self.truth, sharp * self.scale, self.ratio, self.valid)


@dataclass(frozen=True)
class Report:
    """The scores of a model by scene, and its ERGAS relative to that of `exp`, the mean over the scenes."""

    scenes: dict[str, tuple[Scores, Scores]]
    relative_ergas: float

    @property
    def mean(self) -> Scores:
        """The mean over the scenes."""
        own = [scores for scores, _ in self.scenes.values()]
        return Scores(*(statistics.fmean(getattr(s, name) for s in own) for name in ("ergas", "sam", "q2n")))


def prepare_exams(
    folders: Sequence[Path], *, matched: bool, nodata: Nodata | None = None
) -> tuple[tuple[Exam, ...], tuple[Skipped, ...]]:
    """An exam from every scene folder, and the scenes that none could be made from.

    matched: whether the network sees PAN matched to the bands; nodata: as of `SceneOptions`. Raises TrainingError when
    folders are given, but no exam is left.
    """
    exams: list[Exam] = []
    skipped: list[Skipped] = []
    for folder in folders:
        try:
            exams.append(_prepare(folder, matched, nodata))
        except PancrafterError as error:
            skipped.append(Skipped(folder.name, error.message))
    if folders and not exams:
        raise TrainingError(
            f"none of the scenes to validate on can be used; {skipped[0].name}: {skipped[0].reason}",
            "name others in `validate`, or leave it out",
        )
    return tuple(exams), tuple(skipped)


def examine(exams: Sequence[Exam], runner: TorchRunner) -> Report:
    """Score a model on every exam, as it comes from the network, without back-projection."""
    scenes = {}
    for exam in exams:
        scenes[exam.name] = exam.score(runner.sharpen(exam.images)), exam.exp
    # An image that interpolation already gets right has an ERGAS of 0; nothing can be said relative to that.
    relative = statistics.fmean(own.ergas / max(exp.ergas, 1e-9) for own, exp in scenes.values())
    return Report(scenes, relative)


def _prepare(folder: Path, matched: bool, nodata: Nodata | None) -> Exam:
    product = found_scene(folder)
    with open_scene(product.pan, product.ms, SceneOptions(nodata=nodata)) as opened:
        scene, _ = register(opened)
        mtf = mtf_of(product.sensor or sensor_from_metadata(scene.metadata), scene.bands)
        if product.reference is not None:
            pair = _middle(referenced_pair(folder.name, product, mtf.ms, nodata))
        else:
            pair = reduce_scene(scene, folder.name, mtf.ms, SIZE)
    if pair.truth is None:
        raise TrainingError(f"{folder}: has no truth", "validate on scenes with one, or on raw scenes")
    height, width = pair.truth.shape[1:]
    # By way of files, the network is shown exactly what it is shown when a scene is sharpened.
    with TemporaryDirectory() as work:
        pan, ms, _ = write_pair(pair, Path(work))
        with open_scene(pan, [ms], SceneOptions(ms_mtf=mtf.ms_mean)) as reduced:
            reduced, _ = register(reduced, "off", local=True)
            images = read_inputs(reduced, (0, height), (0, width), matched=matched).images
            own_scale = reduced.statistics.scale
    factor = REFLECTANCE_FACTOR if looks_scaled(pair.truth) else 1.0
    truth = pair.truth * np.float32(factor)
    scale = np.float32(own_scale * factor)
    exp = _scores(truth, images.lms * scale, pair.ratio, pair.valid)
    return Exam(folder.name, images, truth, pair.valid, scale, pair.ratio, exp)


def _middle(pair: Pair) -> Pair:
    """The middle SIZE pixels of a pair, whole MS pixels."""
    parts = []
    for size in pair.ms.shape[1:]:
        length = min(size, SIZE // pair.ratio)
        parts.append(((size - length) // 2, (size - length) // 2 + length))
    low = tuple(slice(*part) for part in parts)
    high = tuple(slice(a * pair.ratio, b * pair.ratio) for a, b in parts)
    return replace(
        pair,
        pan=pair.pan[:, *high],
        ms=pair.ms[:, *low],
        truth=None if pair.truth is None else pair.truth[:, *high],
        valid=pair.valid[high],
        ms_valid=pair.ms_valid[low],
    )


def _scores(truth: Float32, sharp: Float32, ratio: int, valid: NDArray[np.bool_]) -> Scores:
    return Scores(ergas(truth, sharp, ratio, valid), sam(truth, sharp, valid), q2n(truth, sharp, valid))
