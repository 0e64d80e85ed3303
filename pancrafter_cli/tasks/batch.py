"""Many scenes: planned from a manifest, sharpened one after the other; one that fails does not stop the rest."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pancrafter_cli.errors import ModelError, OutputError, PancrafterError, UsageError
from pancrafter_cli.raster.align import SceneOptions
from pancrafter_cli.raster.inputs import open_raster
from pancrafter_cli.raster.outputs import Finished, remove_unfinished
from pancrafter_cli.raster.paths import is_local
from pancrafter_cli.raster.stac import item_path
from pancrafter_cli.raster.targets import GEOTIFF, check_local, is_there
from pancrafter_cli.tasks.finished import State, find_state, input_files
from pancrafter_cli.tasks.fusers import NETWORK, Runner, network_runner
from pancrafter_cli.tasks.manifest import read_manifest
from pancrafter_cli.tasks.pairing import Entry, Remark
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions, SharpenResult, check_asked

if TYPE_CHECKING:
    from pancrafter_cli.runtime.torch_runner import Precision
    from pancrafter_cli.tasks.fusers import Runtime

_ONE_SCENE = threading.Lock()  # held while a process sharpens: its memory is that of one scene, whoever calls
_STALE_HINT = "--overwrite makes it anew; or give another --out"


@dataclass(frozen=True)
class Job:
    """A scene and how to sharpen it; model_sha256: of the weights that its process must use, None without a model."""

    scene: str
    options: SharpenOptions
    model_sha256: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a batch does: scenes to sharpen, in order; those that cannot be; and what belongs to no scene."""

    jobs: tuple[Job, ...]
    broken: tuple[Remark, ...]
    left_out: tuple[Remark, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a scene; "to do" is said of one that was only looked at.

    seconds: of wall time; width, height (pixels), bands: of the product, None without one. error: the kind of a
    failure; traceback: of one that nobody expected, else empty.
    """

    scene: str
    status: Literal["done", "skipped", "failed", "to do"]
    output: Path | None = None
    seconds: float = 0.0
    width: int | None = None
    height: int | None = None
    bands: int | None = None
    message: str = ""
    hint: str = ""
    error: str = ""
    traceback: str = ""
    warnings: tuple[str, ...] = ()


def plan_batch(manifest: Path, out: Path, options: SharpenOptions, *, confidence: bool = False) -> Plan:
    """The jobs of a manifest; `options` says how to sharpen where the manifest does not, its paths are not used.

    Products go to `out`, under the scene's name; confidence: a layer beside each. Raises UsageError for a manifest that
    is none, products of one name, products over inputs, options that no scene could have, and methods or models that do
    not exist; OutputError for a folder that cannot be; RasterError for heights that cannot be read.
    """
    check_asked(options)
    check_local(out)
    if is_there(out) and not out.is_dir():
        raise UsageError(f"--out {out}: is a file", "name the folder for the products; it is made if need be")
    model, digest = _located(options.model) if options.method == NETWORK else (options.model, None)
    options = replace(options, model=model, dem=_readable(options.dem))
    SceneOptions(options.ratio, options.ms_origin, options.nodata, ms_mtf=options.ms_mtf)  # raises what all would
    found = read_manifest(manifest, out)
    jobs = tuple(Job(entry.scene, _options(entry, out, options, confidence), digest) for entry in found.scenes)
    _check_products(jobs)
    products = {path.resolve() for job in jobs for path in _products(job.options)}
    left_out = tuple(item for item in found.left_out if (manifest / item.name).resolve() not in products)
    return Plan(jobs, found.broken, left_out)


def broken_outcomes(plan: Plan) -> list[Outcome]:
    """The failures that are known before anything runs."""
    hint = "complete the scene, or name its files in a CSV manifest"
    return [Outcome(item.name, "failed", message=item.reason, hint=hint, error="RasterError") for item in plan.broken]


def run_batch(plan: Plan) -> Iterator[Outcome]:
    """Sharpen the scenes one after the other in this process; their outcomes as they come.

    Raises ModelError or DeviceError where none could be sharpened.
    """
    if any(job.options.method == NETWORK for job in plan.jobs):
        _runner_of(plan.jobs[0])
    for job in plan.jobs:
        yield run_job(job)


def look_at(job: Job) -> Outcome:
    """What `run_job` would do, as far as opening the files tells; nothing is written."""
    return _guarded(job, _look)


def run_job(job: Job) -> Outcome:
    """Sharpen a scene unless it is finished; what fails is told in the outcome. One at a time in a process."""
    with _ONE_SCENE:
        return _guarded(job, _run)


def _guarded(job: Job, work: Callable[[Job], Outcome]) -> Outcome:
    """The outcome of `work`, with failures in place of exceptions."""
    began = time.monotonic()
    failed = Outcome(job.scene, "failed", job.options.output)
    try:
        outcome = work(job)
    except PancrafterError as error:
        outcome = replace(failed, message=error.message, hint=error.hint, error=type(error).__name__)
    except MemoryError:
        outcome = replace(
            failed, message="there is not enough memory", hint="use a smaller --tile", error="MemoryError"
        )
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        outcome = replace(failed, message=text, error=type(error).__name__, traceback=traceback.format_exc())
    return replace(outcome, seconds=time.monotonic() - began)


def _look(job: Job) -> Outcome:
    state = _state(job)
    if state.kind == "finished" and state.product is not None:
        return _skipped(job, state.product)
    input_files(job.options)
    return Outcome(job.scene, "to do", job.options.output)


def _run(job: Job) -> Outcome:
    options = job.options
    state = _state(job)
    if state.kind == "finished" and state.product is not None:
        return _cleared(_skipped(job, state.product), options)  # its run may have been killed once it had its name
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{options.output.parent}: cannot be made: {error.strerror}", "choose another --out"
        ) from error
    if state.kind == "partial":  # ours, of a run that was killed between its files
        options = replace(options, overwrite=True)
    try:
        result = sharpen_scene(options, runner=_runner_of(job) if options.method == NETWORK else None)
    except OutputError:
        state = _state(job)  # a worker that was taken for lost may have been faster
        if state.kind == "finished" and state.product is not None:
            return _cleared(_skipped(job, state.product), options)
        raise
    return _cleared(_done(job, result), options)


def _cleared(outcome: Outcome, options: SharpenOptions) -> Outcome:
    """The outcome of a scene whose products are there, after what killed runs left of them has been removed."""
    for path in _products(options):
        remove_unfinished(path)
    return outcome


def _state(job: Job) -> State:
    """What is there of the product. Raises OutputError when that is not to be replaced."""
    if job.options.overwrite:
        return State("none")
    state = find_state(job.options, job.model_sha256)
    if state.kind == "stale":
        raise OutputError(f"stale: {state.reason}", _STALE_HINT)
    return state


def _skipped(job: Job, product: Finished) -> Outcome:
    return Outcome(
        job.scene,
        "skipped",
        job.options.output,
        width=product.width,
        height=product.height,
        bands=product.bands,
        message="finished before",
    )


def _done(job: Job, result: SharpenResult) -> Outcome:
    return Outcome(
        job.scene,
        "done",
        result.output,
        width=result.width,
        height=result.height,
        bands=result.bands,
        message="; ".join(result.warnings),
        warnings=result.warnings,
    )


# --- planning


def _options(entry: Entry, out: Path, options: SharpenOptions, confidence: bool) -> SharpenOptions:
    """How to sharpen a scene: paths absolute, so that they mean the same on other machines with the same disks."""
    output = _absolute(out / (entry.output or f"{entry.scene}.tif"))
    return replace(
        options,
        pan=_absolute(entry.pan),
        ms=tuple(map(_absolute, entry.ms)),
        output=output,
        confidence=output.with_name(f"{output.stem}-confidence.tif") if confidence else None,
        **entry.given,
    )


def _readable(dem: Path | None) -> Path | None:
    """Heights for all scenes, if there are any, by an absolute path. Raises RasterError when they cannot be opened."""
    if dem is None:
        return None
    with closing(open_raster(dem)):
        return _absolute(dem)


def _absolute(path: Path) -> Path:
    return path.absolute() if is_local(path) else path


def _products(options: SharpenOptions) -> list[Path]:
    """All files that a scene's run writes."""
    item = item_path(options.output) if options.stac else None
    return [path for path in (options.output, options.confidence, item) if path is not None]


def _check_products(jobs: tuple[Job, ...]) -> None:
    """Raise UsageError for names of no GeoTIFF, one file for two scenes, and the input of another scene."""
    readers = {_key(path): job.scene for job in jobs for path in (job.options.pan, *job.options.ms)}
    writers: dict[str, str] = {}
    for job in jobs:
        if job.options.output.suffix.lower() not in GEOTIFF.suffixes:
            raise UsageError(
                f"{job.options.output}: the product of the scene {job.scene} is {GEOTIFF.name}",
                f"let names in the column `output` end in {' or '.join(GEOTIFF.suffixes)}",
            )
        for path in _products(job.options):
            key = _key(path)
            if key in writers:
                raise UsageError(
                    f"the scenes {writers[key]} and {job.scene} would both be written to {path}",
                    "give them names of their own in the column `output` of a CSV manifest",
                )
            if key in readers:
                raise UsageError(f"{path}: is an input of the scene {readers[key]}", "give another --out")
            writers[key] = job.scene


def _key(path: Path) -> str:
    """The same for two names of one file; case is ignored, as some file systems do."""
    return os.path.realpath(path).casefold()


# --- models


def _located(model: str | None) -> tuple[str, str]:
    """A model as workers in other folders find it, and the hash of its weights. Raises UsageError when there is none.

    A shipped one keeps its name: where a worker's own installation lies is not ours to say.
    """
    from pancrafter_cli.zoo import DEFAULT_MODEL, WEIGHTS_FILE, file_sha256, models_dir, resolve

    name = model or DEFAULT_MODEL
    path = resolve(name)
    shipped = path == models_dir() / name / WEIGHTS_FILE
    return name if shipped else str(path.absolute()), file_sha256(path)


def _runner_of(job: Job) -> Runner:
    """The model of a job, loaded once for all that name the same weights. Raises ModelError when they are others."""
    options = job.options
    _, digest = _located(options.model)
    if digest != job.model_sha256:
        raise ModelError(
            f"the weights of {options.model or 'the default model'} are {digest[:12]}... here, "
            f"{(job.model_sha256 or '')[:12]}... where the batch was started",
            "let all machines have the same model, and leave it alone while a batch runs",
        )
    return _load(options.model, digest, options.device, options.precision, options.runtime)


@lru_cache(maxsize=1)
def _load(model: str | None, digest: str, device: str, precision: Precision, runtime: Runtime | None) -> Runner:
    return network_runner(model, device, precision, runtime)
