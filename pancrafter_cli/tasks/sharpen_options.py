"""What `sharpen` is asked for, and what it answers."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pancrafter_cli.errors import UsageError
from pancrafter_cli.geometry.sensors import sensor_mtf
from pancrafter_cli.raster.inputs import Nodata
from pancrafter_cli.raster.register import DEFAULT_REGISTRATION, Choice, Registration
from pancrafter_cli.raster.statistics import MtfSource
from pancrafter_cli.tasks.fusers import NETWORK, FuserFacts, Runtime, check_consistency, check_method
from pancrafter_cli.tasks.tiles import DEFAULT_BLEND, DEFAULT_HALO
from pancrafter_cli.zoo import DEFAULT_MODEL

if TYPE_CHECKING:
    from pancrafter_cli.runtime.torch_runner import Precision


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)  # a word such as "no" would be taken for yes


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _are_strings(value: object) -> bool:
    return isinstance(value, tuple | list) and all(map(_is_string, value))


def _is_path(value: object) -> bool:
    return isinstance(value, Path) and "\0" not in str(value)


_May = Callable[[object], bool]


def _or_none(may_be: _May) -> _May:
    return lambda value: value is None or may_be(value)


def _word_or(may_be: _May, *words: str) -> _May:
    return lambda value: value in words if isinstance(value, str) else may_be(value)


_EXPECTED: tuple[tuple[tuple[str, ...], _May, str], ...] = (
    (("pan", "output"), _is_path, "a path, without NUL"),
    (("confidence", "dem"), _or_none(_is_path), "a path, without NUL, or None"),
    (("ms",), lambda v: isinstance(v, tuple) and all(map(_is_path, v)), "paths, without NUL"),
    (("overwrite", "score", "stac", "resume"), _is_flag, "True or False"),
    (("local_registration",), _or_none(_is_flag), "True, False or None"),
    (("method", "device", "precision"), _is_string, "a string"),
    (("model", "runtime", "sensor"), _or_none(_is_string), "a string or None"),
    (("band_names", "command"), _are_strings, "a tuple of strings"),
    (("registration",), _word_or(_is_pair, "auto", "off"), '"auto", "off" or two numbers (MS pixels)'),
    (
        ("nodata",),
        _or_none(_word_or(_is_number, "auto", "declared")),
        'a number (DN), "auto", "declared" or None',
    ),
    (("ms_origin",), _or_none(_is_pair), "two numbers (PAN pixels) or None"),
    (("tile",), _or_none(_is_whole), "a whole number (PAN pixels) or None"),
    (("halo",), lambda v: _is_string(v) or _is_whole(v), 'a whole number (PAN pixels) or "full"'),
    (("blend",), _is_whole, "a whole number (PAN pixels)"),
    (("consistency",), _or_none(_is_whole), "a whole number or None"),
    (("max_memory",), _or_none(_is_number), "a number (bytes) or None"),
    (("ratio", "ms_mtf"), _or_none(_is_number), "a number or None"),
)


@dataclass(frozen=True)
class SharpenOptions:
    """What to sharpen and how.

    pan may be the folder of a product, ms is then empty; else ms is one multi-band file or several of one grid.
    method: "network" or a classical one. model: a shipped name or a path, None for the default; device, precision: of
    the network; runtime: "torch" or "onnx", by default as the model's file needs. sensor: whose MTF classical methods
    assume. ms_mtf: gain at the MS Nyquist frequency of the blur that takes PAN to MS, for the network and for
    consistency; by default measured on the scene.
    tile, halo, blend: PAN pixels; tile None is chosen from the memory there is, and max_memory, in bytes, bounds what
    the run is expected to need; halo "full" is all that can change a pixel. consistency: back-projections onto MS,
    by default 2 for the network and none for classical methods. registration: "auto" measures how far MS lies off
    PAN and corrects it, "off" does not, (x, y) are MS pixels by which MS content lies further right and down.
    local_registration: PAN is moved besides, from place to place, to where MS shows the same; by default with "auto".
    ratio, ms_origin: for files without georeferencing. nodata: as of `SceneOptions`. band_names: of bands that their
    files do not name. dem: heights for files with RPCs. confidence: where to write the confidence layer, None for
    nowhere. score: measure HQNR and its parts on the product. stac: write a STAC item beside it. command: the command
    line, for the product's tags. resume: go on with a run that was killed, and leave what this one can be gone on with.
    """

    pan: Path
    ms: tuple[Path, ...]
    output: Path
    method: str = NETWORK
    model: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    runtime: Runtime | None = None
    tile: int | None = None
    max_memory: int | None = None
    halo: int | str = DEFAULT_HALO
    blend: int = DEFAULT_BLEND
    consistency: int | None = None
    sensor: str | None = None
    ms_mtf: float | None = None
    registration: Choice = DEFAULT_REGISTRATION
    local_registration: bool | None = None
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
    resume: bool = True

    def __post_init__(self) -> None:
        """Refuse what the command's flags cannot say, and what would be taken for something else. Raises UsageError."""
        for names, may_be, expected in _EXPECTED:
            for name in names:
                value = getattr(self, name)
                if not may_be(value):
                    raise UsageError(f"{name}={value!r}", f"expected {expected}")


@dataclass(frozen=True)
class SharpenResult:
    """What was written and how: sizes in pixels, `seconds` of wall time, `valid` the share of pixels with data.

    layout: what kind of product the files were taken for. ms_mtf: as asked for, as measured, or assumed. drifting:
    share of the MS pixels from which the product, degraded, differs by more than 5 %; disagreeing: share of those where
    PAN is not what MS predicts, as under clouds that only one has seen. scores: full-resolution indices by name, empty
    if not asked for; notices: what else was said on the way, as that an unfinished run was gone on with; warnings: what
    could not be done.
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
    ms_mtf: float
    ms_mtf_source: MtfSource
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
    notices: tuple[str, ...]
    warnings: tuple[str, ...]


def check_asked(options: SharpenOptions) -> None:
    """Raise UsageError for what no scene could have, and for what only networks have beside another method.

    That is a method or sensor that does not exist, and a number of back-projections that serves nobody.
    """
    check_method(options.method)
    check_consistency(options.consistency)
    if options.sensor is not None:
        sensor_mtf(options.sensor)
    if options.method == NETWORK:
        return
    asked = {
        "--model": options.model not in (None, DEFAULT_MODEL),
        "--device": options.device not in ("auto", "cpu"),
        "--precision": options.precision != "auto",
        "--runtime": options.runtime is not None,
    }
    without = [flag for flag, given in asked.items() if given]
    if without:
        raise UsageError(
            f"{', '.join(without)}: only the method {NETWORK} has that, and {options.method} is asked for",
            f"leave it out, or leave out --method {options.method}",
        )
