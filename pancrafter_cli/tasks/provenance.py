"""Provenance: what a product was made of, by what and how, in the tags of its file."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.geometry.sensors import sensor_from_metadata
from pancrafter_cli.geometry.tiling import Tiling
from pancrafter_cli.raster.env import GDAL_VERSION
from pancrafter_cli.raster.finished import VERSION_TAG
from pancrafter_cli.raster.inputs import SENSOR_TAG
from pancrafter_cli.raster.paths import public_name, stored_file
from pancrafter_cli.raster.register import Registration
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.sidecar import AUX, aux_facts
from pancrafter_cli.tasks.fusers import DEFAULT_CONSISTENCY, NETWORK, FuserFacts
from pancrafter_cli.tasks.sharpen_options import SharpenOptions
from pancrafter_cli.tasks.tiles import DEFAULT_TILE
from pancrafter_cli.version import __version__

_BLOCK = 8 << 20  # bytes
_SECRET = re.compile(r"(?<=://)[^/\s'\"@]*@|\?[^\s'\"]*")  # of URLs: user and password, and what signs a request

LAYER_FACT = "confidence layer"  # of `run_facts`: where it lies

# What is asked for that pixels depend on, besides the model (its hash is a tag) and the device.
_REQUEST = (
    *("method", "precision", "tile", "halo", "blend", "sensor", "ms_mtf"),
    *("registration", "local_registration", "ratio", "ms_origin", "nodata"),
)


@dataclass(frozen=True)
class InputFile:
    """A file that was read: name without folder, size in bytes and SHA-256; None where it is no local file.

    Of a file in an archive both are the archive's. facts_sha256: of an .aux.xml, what of it counts (`aux_facts`).
    """

    name: str
    bytes: int | None
    sha256: str | None
    facts_sha256: str | None = None


@contextmanager
def hashing(files: Sequence[Path]) -> Iterator[Future[tuple[InputFile, ...]]]:
    """The input files with their hashes, read by a thread meanwhile; leaving the context stops it."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, "hash") as pool:
        try:
            yield pool.submit(lambda: tuple(input_file(path, stop) for path in dict.fromkeys(files)))
        finally:
            stop.set()


def input_file(path: Path, stop: threading.Event | None = None) -> InputFile:
    """Size and hash of a file, read once from begin to end in small pieces; none when `stop` is set meanwhile."""
    name = public_name(path)
    try:
        stored = stored_file(path)
        if stored is None:
            return InputFile(name, None, None)
        digest = hashlib.sha256()
        with stored.open("rb") as file:
            while block := file.read(_BLOCK):
                if stop is not None and stop.is_set():
                    return InputFile(name, stored.stat().st_size, None)
                digest.update(block)
        facts = _digest(aux_facts(stored.read_bytes())) if name.endswith(AUX) else None
        return InputFile(name, stored.stat().st_size, digest.hexdigest(), facts)
    except OSError:
        return InputFile(name, None, None)  # GDAL could read it, and that is what counts


def _digest(text: str) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def method_tags(facts: FuserFacts, scene: Scene, tile: int, halo: int) -> dict[str, str]:
    """How the product was made: versions, method, model and the numbers it depends on."""
    tags = {
        VERSION_TAG: __version__,
        "PANCRAFTER_METHOD": facts.method,
        "PANCRAFTER_CONSISTENCY": str(facts.consistency),
        "PANCRAFTER_MS_MTF": f"{scene.statistics.ms_mtf:.3f}",
        "PANCRAFTER_SCALE": _numbers(scene.statistics.normalisation.scale),
        "PANCRAFTER_RATIO": f"{scene.ratio:.6g}",
        "PANCRAFTER_TILE": str(tile),
        "PANCRAFTER_HALO": str(halo),
        "PANCRAFTER_DEVICE": facts.device,
        "PANCRAFTER_PRECISION": facts.precision,
    }
    if scene.statistics.normalisation.base.any():
        tags["PANCRAFTER_BASE"] = _numbers(scene.statistics.normalisation.base)
    if scene.notices:
        tags["PANCRAFTER_NOTICES"] = "; ".join(scene.notices)
    of_model = {
        "PANCRAFTER_MODEL": facts.model,
        "PANCRAFTER_MODEL_SHA256": facts.model_sha256,
        "PANCRAFTER_RUNTIME": facts.runtime,
        "PANCRAFTER_ONNX_SHA256": facts.onnx_sha256,
    }
    return tags | {name: value for name, value in of_model.items() if value is not None}


def sensor_tags(sensor: str | None, scene: Scene) -> dict[str, str]:
    """The sensor as asked for, else as the inputs' metadata name it; nothing where they do not."""
    known = sensor or sensor_from_metadata(scene.metadata)
    return {} if known is None else {SENSOR_TAG: known}


def request_tags(options: SharpenOptions) -> dict[str, str]:
    """What was asked for, as JSON: with the same inputs and model, the same request makes the same product."""
    asked = {name: getattr(options, name) for name in _REQUEST}
    asked["dem"] = None if options.dem is None else public_name(options.dem)
    asked["tile"] = options.tile or DEFAULT_TILE
    by_default = DEFAULT_CONSISTENCY if options.method == NETWORK else 0
    asked["consistency"] = by_default if options.consistency is None else options.consistency
    if options.local_registration is None:  # then it depends on what is measured
        asked["local_registration"] = "auto" if options.registration == "auto" else False
    # NumPy's numbers, which callers may have computed theirs with, are no JSON.
    return {"PANCRAFTER_REQUEST": json.dumps(asked, sort_keys=True, default=lambda number: number.item())}


def command_tags(command: Sequence[str]) -> dict[str, str]:
    """The command line, less what URLs in it hold to be let in; nothing when there was none."""
    return {"PANCRAFTER_COMMAND": shlex.join(_SECRET.sub("", word) for word in command)} if command else {}


def input_tags(files: Sequence[InputFile]) -> dict[str, str]:
    """The input files as JSON: a list of objects with name, bytes and sha256, of some with facts_sha256."""
    listed = [{"name": f.name, "bytes": f.bytes, "sha256": f.sha256} for f in files]
    for entry, file in zip(listed, files, strict=True):
        if file.facts_sha256 is not None:
            entry["facts_sha256"] = file.facts_sha256
    return {"PANCRAFTER_INPUTS": json.dumps(listed)}


def judgement_tags(drifting: float, disagreeing: float) -> dict[str, str]:
    """The shares of the product that drift from MS, and where PAN and MS disagree."""
    return {"PANCRAFTER_DRIFTING": f"{drifting:.4g}", "PANCRAFTER_DISAGREEING": f"{disagreeing:.4g}"}


def score_tags(scores: Mapping[str, float]) -> dict[str, str]:
    """Quality indices by name."""
    return {f"PANCRAFTER_{name.upper()}": f"{value:.6g}" for name, value in scores.items()}


def run_facts(
    facts: FuserFacts, scene: Scene, tiling: Tiling, registration: Registration, options: SharpenOptions
) -> dict[str, str]:
    """All that decides the product's bytes, by names for people: two runs in which they agree can share their work.

    Files are known by place, size and time; reading all of a large scene to compare it would take as long as a run.
    """
    return {
        "versions": f"pancrafter {__version__}, GDAL {GDAL_VERSION}, NumPy {np.__version__}",
        "input files": json.dumps([(str(path.absolute()), *_stamp(path)) for path in scene.files]),
        "tile": str(tiling.tile),
        "halo": str(tiling.halo),
        "blend": str(tiling.blend),
        "method or model": repr(replace(facts, precision_reason="")),  # a measured number varies
        "sensor": str(options.sensor),
        "ratio, MS origin or nodata": repr((options.ratio, options.ms_origin, options.nodata)),
        "registration": repr(registration),
        "grid, bands or nodata": repr(scene.output),
        LAYER_FACT: "" if options.confidence is None else str(options.confidence.absolute()),
        "normalisation": repr([values.tolist() for values in vars(scene.statistics.normalisation).values()]),
        "MTF of MS": repr(scene.statistics.ms_mtf),
    }


def _numbers(values: NDArray[np.float64]) -> str:
    """Numbers of the bands; one for all of them where they are equal."""
    texts = [f"{value:.9g}" for value in values]
    return texts[0] if len({*texts}) == 1 else ",".join(texts)


def _stamp(path: Path) -> tuple[int, int] | tuple[()]:
    """Size and time of a file, or of the archive it is in; nothing for what is no local file."""
    try:
        stored = stored_file(path)
        found = stored.stat() if stored is not None else None
    except OSError:
        return ()
    return (found.st_size, found.st_mtime_ns) if found is not None else ()
