"""Several methods on several scenes: Wald's protocol, full resolution, and how they bear misregistration."""

from __future__ import annotations

import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pancrafter_cli.data.wald import Pair, h5_patches, moved
from pancrafter_cli.errors import GeometryError, MetricError, PancrafterError, RasterError
from pancrafter_cli.raster.products import scene_in
from pancrafter_cli.raster.register import Choice, locally
from pancrafter_cli.tasks.eval_cases import Case, Scoring, case_files, cases, fused
from pancrafter_cli.tasks.eval_options import (
    REDUCED,
    EvalOptions,
    EvalResult,
    EvalRow,
    Failure,
    FloatArray,
    check,
    is_h5,
    scene_name,
    settings,
)
from pancrafter_cli.tasks.fusers import NETWORK, network_runner

Progress = Callable[[str, int, int], None]

_CURVE_REGISTRATIONS: tuple[Choice, ...] = ("off", "auto")
_DIRECTION = (0.8, 0.6)  # x, y, in which MS is moved against PAN


@dataclass(frozen=True)
class _Part:
    """What one step of an evaluation found, pictures by scene and protocol."""

    rows: tuple[EvalRow, ...] = ()
    curve: tuple[EvalRow, ...] = ()
    warnings: tuple[str, ...] = ()
    pictures: Mapping[tuple[str, str], Mapping[str, FloatArray]] = field(default_factory=dict)


def evaluate(options: EvalOptions, progress: Progress = lambda what, done, total: None) -> EvalResult:
    """Run every method on every scene and score it. `progress` gets (what is done next, scenes done, scenes in all).

    A scene that fails does not stop the rest: it is told in the result, which keeps what was scored of it before.
    Raises UsageError for options that do not go together; at once what scenes raise that are none, and models that
    cannot be run; in the end, where not one scene could be scored, what they raised. Errors of a scene name it.
    """
    check(options)
    for path in options.scenes:
        _look_at(path)
    for model in dict.fromkeys(c.model for c in options.contestants if c.method == NETWORK):
        network_runner(model, options.device)  # raises now what every scene would
    parts: list[_Part] = []
    failed: list[Failure] = []
    errors: list[PancrafterError] = []
    unexpected: Exception | None = None
    for done, path in enumerate(options.scenes):
        progress(scene_name(path), done, len(options.scenes))
        try:
            for part in _scene_parts(path, options):
                parts.append(part)
        except Exception as error:
            errors.append(_told(path, error))
            failed.append(_failure(path, error, errors[-1]))
            if failed[-1].traceback:
                unexpected = unexpected or error
    rows = tuple(row for part in parts for row in part.rows)
    if failed and not rows:
        raise unexpected or _all_of(errors)
    return EvalResult(
        rows=rows,
        curve=tuple(row for part in parts for row in part.curve),
        settings=settings(options),
        warnings=tuple(dict.fromkeys(text for part in parts for text in part.warnings)),
        failed=tuple(failed),
        pictures={key: crops for part in parts for key, crops in part.pictures.items()},
    )


def _look_at(path: Path) -> None:
    """Raise what shows at a glance: that there is no scene here."""
    try:
        if is_h5(path):
            h5_patches(path)
        else:
            scene_in(path)
    except PancrafterError as error:
        raise _told(path, error) from error


def _scene_parts(path: Path, options: EvalOptions) -> Iterator[_Part]:
    """What is found of a scene, piece by piece, so that what comes later cannot undo it."""
    for case in cases(path, options):
        rows, crops = _run_case(case, options)
        yield _Part(rows=tuple(rows), warnings=case.warnings, pictures={(case.name, case.protocol): crops})
        if case.protocol == REDUCED and case.pair is not None and options.shifts:
            yield _curve(case, case.pair, options)


def _told(path: Path, error: Exception) -> PancrafterError:
    """What a scene raised, its name first unless the message begins with it or with a path that begins so.

    It is a new error, for the old one holds the memory of where it was raised.
    """
    name = scene_name(path)
    if isinstance(error, MemoryError):
        return PancrafterError(f"{name}: there is not enough memory", "free some, or give a smaller --size")
    if not isinstance(error, PancrafterError):
        return PancrafterError(f"{name}: {type(error).__name__}: {error}")
    begins = f"{re.escape(name)}(-[0-9]+)?: |{re.escape(str(path))}(: |{re.escape(os.sep)})"  # a patch has a number
    message = error.message if re.match(begins, error.message) else f"{name}: {error.message}"
    return type(error)(message, error.hint)


def _failure(path: Path, error: Exception, told: PancrafterError) -> Failure:
    expected = isinstance(error, (PancrafterError, MemoryError))
    trace = "" if expected else "".join(traceback.format_exception(error))
    return Failure(scene_name(path), told.message, told.hint, type(error).__name__, trace)


def _all_of(errors: list[PancrafterError]) -> PancrafterError:
    """One error that says what all say, of the kind of the first."""
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return type(errors[0])("; ".join(error.message for error in errors), "; ".join(hints))


def _run_case(case: Case, options: EvalOptions) -> tuple[list[EvalRow], dict[str, FloatArray]]:
    """All methods on one case: rows, and a crop of each for pictures."""
    rows, crops = [], {}
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        files = case_files(case, Path(work))
        scoring = Scoring(case, options, files, stack)
        registration, local = options.registration, options.local_registration
        if case.pair is not None:
            # The truth of a made pair lies where MS says, and so must what is compared with it: only PAN may move, and
            # of published patches nothing.
            registration, local = "off", case.pair.origin == 0 and locally(registration, local)
        for contestant in options.contestants:
            began = time.monotonic()
            read, mask = fused(case, contestant, files, options, registration, local, Path(work), stack)
            seconds = time.monotonic() - began
            rows.append(EvalRow(case.name, case.protocol, contestant.label, scoring.score(read, mask), seconds))
            crops[contestant.label] = np.asarray(read(*scoring.crop), np.float64)
        if scoring.reference is not None:
            crops["reference"] = np.asarray(scoring.reference(*scoring.crop), np.float64)
        crops["PAN"] = np.asarray(scoring.pan(*scoring.crop), np.float64)
    return rows, crops


def _curve(case: Case, pair: Pair, options: EvalOptions) -> _Part:
    """The methods' scores as MS is moved against PAN, with the tool's registration and without; and warnings.

    Where the registration refuses, as it does beyond some pixels, or too little of the scene is left, there is no point
    and a warning.
    """
    rows: list[EvalRow] = []
    refused: list[str] = []
    for shift in options.shifts:
        for registration in _CURVE_REGISTRATIONS:
            try:
                rows += _curve_point(case, pair, options, shift, registration)
            except (GeometryError, MetricError, RasterError) as error:
                refused.append(f"{case.name}, MS moved by {shift:g} pixels: {error.message}")
            except PancrafterError as error:
                raise type(error)(f"MS moved by {shift:g} pixels: {error.message}", error.hint) from error
    return _Part(curve=tuple(rows), warnings=tuple(refused))


def _curve_point(case: Case, pair: Pair, options: EvalOptions, shift: float, registration: Choice) -> list[EvalRow]:
    """All methods with MS moved by so many pixels.

    Without registration the truth lies where MS says; with it, where PAN says, for that is where the product is put.
    """
    rows: list[EvalRow] = []
    by = shift * _DIRECTION[0], shift * _DIRECTION[1]
    own = replace(case, pair=moved(pair, by, with_truth=registration == "auto"))
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        files = case_files(own, Path(work))
        scoring = Scoring(own, options, files, stack)
        for contestant in options.contestants:
            began = time.monotonic()
            local = options.local_registration
            product = fused(own, contestant, files, options, registration, local, Path(work), stack)
            seconds = time.monotonic() - began
            facts = case.name, REDUCED, contestant.label, scoring.score(*product), seconds
            rows.append(EvalRow(*facts, shift, str(registration)))
    return rows
