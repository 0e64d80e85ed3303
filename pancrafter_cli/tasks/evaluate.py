"""Several methods on several scenes: Wald's protocol, full resolution, and how they bear misregistration."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from pancrafter_cli.data.wald import moved
from pancrafter_cli.errors import GeometryError, PancrafterError
from pancrafter_cli.raster.register import Choice, locally
from pancrafter_cli.tasks.eval_cases import Case, Scoring, case_files, cases, fused
from pancrafter_cli.tasks.eval_options import REDUCED, EvalOptions, EvalResult, EvalRow, FloatArray, check, settings

Progress = Callable[[str, int, int], None]

_CURVE_REGISTRATIONS: tuple[Choice, ...] = ("off", "auto")
_DIRECTION = (0.8, 0.6)  # x, y, in which MS is moved against PAN


def evaluate(options: EvalOptions, progress: Progress = lambda what, done, total: None) -> EvalResult:
    """Run every method on every scene and score it. `progress` gets (what is done next, scenes done, scenes in all).

    Raises UsageError for options that do not go together, and whatever a scene, a method or an index raises, which
    names the scene.
    """
    check(options)
    rows: list[EvalRow] = []
    curve: list[EvalRow] = []
    warnings: list[str] = []
    pictures: dict[tuple[str, str], Mapping[str, FloatArray]] = {}
    for done, path in enumerate(options.scenes):
        progress(path.name, done, len(options.scenes))
        try:
            for case in cases(path, options):
                found, crops = _run_case(case, options)
                rows += found
                pictures[case.name, case.protocol] = crops
                warnings += case.warnings
                if case.protocol == REDUCED:
                    points, notes = _curve(case, options)
                    curve += points
                    warnings += notes
        except PancrafterError as error:
            if path.name in error.message:
                raise
            raise type(error)(f"{path.name}: {error.message}", error.hint) from error
    return EvalResult(tuple(rows), tuple(curve), settings(options), tuple(dict.fromkeys(warnings)), pictures)


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


def _curve(case: Case, options: EvalOptions) -> tuple[list[EvalRow], list[str]]:
    """The methods' ERGAS and SAM as MS is moved against PAN, with the tool's registration and without; and warnings.

    Without it the truth lies where MS says; with it, where PAN says, for that is where the product is put. Where the
    registration refuses, as it does beyond some pixels, there is no product and a warning.
    """
    rows: list[EvalRow] = []
    refused: list[str] = []
    if case.pair is None:
        return rows, refused
    local = options.local_registration if case.pair.origin == 0 else False
    for shift in options.shifts:
        for registration in _CURVE_REGISTRATIONS:
            pair = moved(case.pair, (shift * _DIRECTION[0], shift * _DIRECTION[1]), with_truth=registration == "auto")
            with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
                own = replace(case, pair=pair)
                files = case_files(own, Path(work))
                scoring = Scoring(own, options, files, stack)
                for contestant in options.contestants:
                    began = time.monotonic()
                    try:
                        product = fused(own, contestant, files, options, registration, local, Path(work), stack)
                    except GeometryError as error:
                        if registration == "off":
                            raise
                        refused.append(f"{case.name}, MS moved by {shift:g} pixels: {error.message}")
                        break
                    seconds = time.monotonic() - began
                    scores = scoring.score(*product)
                    facts = case.name, REDUCED, contestant.label, scores, seconds
                    rows.append(EvalRow(*facts, shift, str(registration)))
    return rows, refused
