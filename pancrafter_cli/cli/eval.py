"""`pancrafter eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import parse_point, print_table, step_progress
from pancrafter_cli.cli.score import GeometryChoice
from pancrafter_cli.errors import UsageError

if TYPE_CHECKING:
    from pancrafter_cli.tasks.eval_options import EvalResult

EXAMPLES = """Examples:

pancrafter eval scenes/paris scenes/rome --report report/

pancrafter eval scenes/* --methods exp,gsa,network --protocol reduced --shift 0,0.5,1

pancrafter eval test_wv3.h5 --sensor WV3 --cut 21
"""


def command(
    scenes: list[Path] = typer.Argument(
        ..., help="Folders with pan.tif and ms.tif (gt.tif) or a product, or h5 files."
    ),
    methods: str = typer.Option(
        "exp,brovey,gsa,mtf-glp-fs,mtf-glp-hpm-r,bdsd-pc,network", help="Methods, separated by commas."
    ),
    model: list[str] = typer.Option([], help="Model of the method `network`, name or path; repeat for several."),
    consistency: str | None = typer.Option(
        None, metavar="N,N,...", help="The networks once with each number of back-projections onto MS; 0: without."
    ),
    protocol: str = typer.Option("reduced,full", help="reduced (Wald), full, or both."),
    geometry: GeometryChoice = typer.Option(
        GeometryChoice.AREA, help="area: pixels are areas; toolbox: MS samples at 4k + 2 (always so for h5)."
    ),
    sensor: str | None = typer.Option(None, help="Sensor of all scenes; default: from metadata, else generic MTF."),
    size: int = typer.Option(1024, help="MS pixels a side taken from the middle of larger scenes (reduced)."),
    shift: str | None = typer.Option(None, metavar="S,S,...", help="Move MS by so many MS pixels: robustness curve."),
    registration: opt.Registration = "auto",
    local_registration: opt.LocalRegistration = None,
    cut: int = typer.Option(0, help="Border left out beside a reference; published tables use 21."),
    peak: float | None = typer.Option(None, help="Greatest possible DN; default: of the sensor, else of the truth."),
    device: opt.Device = "auto",
    ratio: opt.Ratio = None,
    ms_origin: opt.MsOrigin = None,
    nodata: opt.Nodata = None,
    report: Path | None = typer.Option(None, metavar="DIR", help="Write eval.md, eval.csv, eval.json and index.html."),
    progress: opt.Progress = None,
    as_json: opt.AsJson = False,
) -> None:
    """Compare methods and models over scenes: reduced and full resolution, and robustness to misregistration.

    A scene that fails does not stop the rest. The exit code is 1 if any scene failed.
    """
    from pancrafter_cli.raster.align import parse_nodata
    from pancrafter_cli.raster.register import parse_registration
    from pancrafter_cli.raster.scene import SceneOptions
    from pancrafter_cli.raster.targets import check_local
    from pancrafter_cli.report.page import check_folder
    from pancrafter_cli.tasks.eval_options import EvalOptions, contestants
    from pancrafter_cli.tasks.eval_report import write_evaluation
    from pancrafter_cli.tasks.evaluate import evaluate

    if "network" not in _parts(methods) and (model or consistency):
        raise UsageError("--model and --consistency are for the method network", f"add it: --methods {methods},network")
    options = EvalOptions(
        scenes=tuple(scenes),
        contestants=contestants(_parts(methods), model, _counts(consistency)),
        protocols=tuple(_parts(protocol)),
        geometry=geometry.value,
        sensor=sensor,
        size=size,
        shifts=_numbers(shift),
        registration=parse_registration(registration),
        local_registration=local_registration,
        cut=cut,
        peak=peak,
        device=device,
        scene=SceneOptions(ratio=ratio, ms_origin=parse_point(ms_origin, "--ms-origin"), nodata=parse_nodata(nodata)),
    )
    if report is not None:
        check_local(report)
        check_folder(report)
    with step_progress(progress) as tell:
        result = evaluate(options, tell)
    files: list[Path] = []
    try:
        files = write_evaluation(result, report) if report else []
    finally:
        _tell(result, files, as_json)  # what was measured is told, whatever becomes of the report
    if result.failed:
        raise typer.Exit(1)


def _tell(result: EvalResult, files: list[Path], as_json: bool) -> None:
    """All tables, warnings, failures and the files of the report; or the numbers for machines."""
    from pancrafter_cli.tasks.eval_report import curve_tables, mean_tables, scene_tables, to_json

    for failure in result.failed:
        if failure.traceback:
            print(f"{failure.scene}:\n{failure.traceback}", file=sys.stderr)
    if as_json:
        print(to_json(result))
        return
    for table in (*(t for _, _, t in scene_tables(result)), *mean_tables(result), *curve_tables(result)):
        print(f"\n{table.title}. {table.caption}".rstrip())
        print_table(table)
    for warning in result.warnings:
        print(f"warning: {warning}")
    for failure in result.failed:
        print(f"failed: {failure.message}")
    for hint in dict.fromkeys(failure.hint for failure in result.failed if failure.hint):
        print(f"hint: {hint}")
    for file in files:
        print(file)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _counts(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _parts(text or ""))
    except ValueError as error:
        raise UsageError(f"--consistency {text}: expected whole numbers", "for example --consistency 0,5") from error


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _parts(text or ""))
    except ValueError as error:
        raise UsageError(f"--shift {text}: expected numbers", "for example --shift 0,0.5,1") from error
