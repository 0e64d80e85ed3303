"""What an evaluation is asked, and what it answers."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pancrafter_cli.classical.methods import METHODS
from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.sensors import sensor_mtf
from pancrafter_cli.metrics.lowpass import Geometry
from pancrafter_cli.raster.register import DEFAULT_REGISTRATION, Choice, locally
from pancrafter_cli.raster.scene import SceneOptions
from pancrafter_cli.tasks.fusers import NETWORK, check_consistency
from pancrafter_cli.tasks.score import EXP, check_numbers

FloatArray = NDArray[np.float64]

REDUCED, FULL = "reduced", "full"
_H5_SUFFIXES = (".h5", ".hdf5")
_SMALLEST = 32  # MS pixels a side: one block of Q and Q2n


@dataclass(frozen=True)
class Contestant:
    """A method, for the network its model (name or path; None: the default), and its back-projections onto MS."""

    label: str
    method: str
    model: str | None = None
    consistency: int | None = None


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate.

    scenes: folders (pan.tif, ms.tif, perhaps gt.tif; or a product) or h5 files of PanCollection's layout. protocols:
    "reduced" and "full". geometry: "toolbox" takes MS samples to lie at 4k + 2 (always so for h5). sensor: of all
    scenes, else as their metadata say. size: MS pixels a side taken from the middle of a larger scene for the reduced
    protocol. shifts: MS pixels that MS is moved against PAN for the robustness curve. cut, peak: as in `score`.
    local_registration: of all methods, as in `sharpen`; by default with the registration "auto".
    """

    scenes: tuple[Path, ...]
    contestants: tuple[Contestant, ...]
    protocols: tuple[str, ...] = (REDUCED, FULL)
    geometry: Geometry = "area"
    sensor: str | None = None
    size: int = 1024
    shifts: tuple[float, ...] = ()
    registration: Choice = DEFAULT_REGISTRATION
    local_registration: bool | None = None
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
class Failure:
    """A scene that could not be evaluated to its end, and why.

    error: the kind of failure; traceback: of one that nobody expected, else empty.
    """

    scene: str
    message: str
    hint: str = ""
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class EvalResult:
    """All rows, those of the robustness curve apart, and what they depend on; `failed` tells what is missing."""

    rows: tuple[EvalRow, ...]
    curve: tuple[EvalRow, ...]
    settings: Mapping[str, str]
    warnings: tuple[str, ...]
    failed: tuple[Failure, ...] = ()
    pictures: Mapping[tuple[str, str], Mapping[str, FloatArray]] = field(default_factory=dict, repr=False)


def is_h5(path: Path) -> bool:
    """Whether a scene is a file of PanCollection's layout, by its name."""
    return path.suffix.lower() in _H5_SUFFIXES


def scene_name(path: Path) -> str:
    """What rows call a scene: its folder's name, of a link that of the link; of an h5 file its name without suffix."""
    name = os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - `..` has a name too, links keep theirs
    return Path(name).stem if is_h5(path) else name


def contestants(
    methods: Sequence[str], models: Sequence[str] = (), consistency: Sequence[int] = ()
) -> tuple[Contestant, ...]:
    """Methods by name; `network` stands for every one of the models, or for the default one.

    consistency: numbers of back-projections; the networks are then there once with each of them.
    """
    short = [Path(m).name for m in models]
    labels = short if len(set(short)) == len(short) else models  # every run's model has the same name
    networks = [Contestant(label, NETWORK, m) for label, m in zip(labels, models, strict=True)]
    networks = networks or [Contestant(NETWORK, NETWORK)]
    if consistency:
        networks = [
            replace(network, label=f"{network.label}/{steps}", consistency=steps)
            for network in networks
            for steps in consistency
        ]
    found: list[Contestant] = []
    for method in methods:
        found += networks if method == NETWORK else [Contestant(method, method)]
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


def check(options: EvalOptions) -> None:
    """Raise UsageError for options that do not go together."""
    if not options.scenes:
        raise UsageError("no scene is given", "name folders with pan.tif and ms.tif or a product, or h5 files")
    if not options.contestants:
        raise UsageError("no method is given", f"use {NETWORK}, {', '.join(METHODS)}")
    _check_scenes(options.scenes)
    labels = [contestant.label for contestant in options.contestants]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)}: given twice", "name every method, model and number of steps once")
    check_numbers(options.cut, options.peak)
    if options.sensor is not None:
        sensor_mtf(options.sensor)
    if options.size < _SMALLEST:
        raise UsageError(f"--size {options.size}: expected {_SMALLEST} MS pixels or more", "the default is 1024")
    for contestant in options.contestants:
        if contestant.method not in (NETWORK, *METHODS):
            raise UsageError(f"unknown method '{contestant.method}'", f"use {NETWORK}, {', '.join(METHODS)}")
        check_consistency(contestant.consistency)
    if not options.protocols or set(options.protocols) - {REDUCED, FULL}:
        raise UsageError(f"unknown protocol in {', '.join(options.protocols)}", f"use {REDUCED}, {FULL} or both")
    if any(not 0 <= s <= 8 for s in options.shifts):
        raise UsageError("--shift: expected MS pixels from 0 to 8", "for example --shift 0,0.5,1")
    if options.shifts and REDUCED not in options.protocols:
        raise UsageError("--shift needs the reduced protocol", "add it, or leave out --protocol")
    asked = {"--local-registration": options.local_registration, "--shift": options.shifts}
    registered = [flag for flag, given in asked.items() if given]
    if registered and any(_lies_by_convention(path, options) for path in options.scenes):
        raise UsageError(
            f"{', '.join(registered)}: not for published patches, whose MS lies by convention", "leave it out for them"
        )


def _check_scenes(scenes: Sequence[Path]) -> None:
    """Raise UsageError for scenes that would be counted as one, or one that would be counted twice."""
    places, names = [path.resolve() for path in scenes], [scene_name(path) for path in scenes]
    files = {name for path, name in zip(scenes, names, strict=True) if is_h5(path)}
    for path, place, name in zip(scenes, places, names, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{path}: given twice", "name every scene once")
        file, _, number = name.rpartition("-")
        if names.count(name) > 1 or (file in files and number.isdecimal()):  # as patches of the file are called
            raise UsageError(f"{path}: another scene is called {name} too", "give them different names")


def _lies_by_convention(path: Path, options: EvalOptions) -> bool:
    """Whether the MS of a scene lies at 4k + 2 whatever its files say; nothing is registered then."""
    return options.geometry == "toolbox" or is_h5(path)


def settings(options: EvalOptions) -> dict[str, str]:
    """What the numbers depend on, for people."""
    patches = [_lies_by_convention(path, options) for path in options.scenes]
    lying = {"registration": "none", "local registration": "none", "geometry": "MS samples at 4k + 2"}
    if not all(patches):
        local = "of all methods" if locally(options.registration, options.local_registration) else "none"
        lying = {
            "registration": str(options.registration),
            "local registration": local,
            "geometry": "pixels are areas",
            **({"h5 files": "not registered, MS samples at 4k + 2"} if any(patches) else {}),
        }
    return {
        "scenes": str(len(options.scenes)),
        "protocols": ", ".join(options.protocols),
        **lying,
        "MTF": options.sensor or "of the sensor the metadata name, else generic (0.30, PAN 0.15)",
        "border left out": str(options.cut),
        "blocks": "32 x 32 pixels",
        EXP: "MS brought to the PAN grid, nothing sharpened",
    }
