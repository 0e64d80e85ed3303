"""`pancrafter score`."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import parse_bands, parse_point, print_json, print_table
from pancrafter_cli.errors import UsageError

if TYPE_CHECKING:
    from pancrafter_cli.tasks.score import Measured

EXAMPLES = """Examples:

pancrafter score sharp.tif --reference truth.tif

pancrafter score --full-res sharp.tif --pan pan.tif --ms ms.tif --report report/
"""


class GeometryChoice(StrEnum):
    """Where MS samples lie."""

    AREA = "area"
    TOOLBOX = "toolbox"


def command(
    fused: Path = typer.Argument(..., help="Sharpened product to score."),
    reference: Path | None = typer.Option(None, help="What a perfect product would be, on the same grid."),
    full_res: bool = typer.Option(False, "--full-res", help="Score without a reference, from PAN and MS."),
    pan: Path | None = typer.Option(None, help="PAN the product was made of (--full-res)."),
    ms: list[Path] = typer.Option([], help="MS it was made of; repeat for several files (--full-res)."),
    sensor: opt.Sensor = None,
    ratio: float | None = typer.Option(
        None,
        help="MS over PAN pixel size: of `exp` and ERGAS beside a reference (default: as the product's tags say, else "
        "4), or of files without georeferencing.",
    ),
    ms_origin: opt.MsOrigin = None,
    nodata: str | None = typer.Option(None, help="As given to sharpen (--full-res)."),
    dem: Path | None = typer.Option(None, metavar="FILE", readable=False, help="As given to sharpen (--full-res)."),
    peak: float | None = typer.Option(
        None, help="Greatest possible DN; default: of the sensor, else of the reference."
    ),
    cut: int = typer.Option(0, help="Border left out beside a reference; published tables use 21."),
    geometry: GeometryChoice = typer.Option(
        GeometryChoice.AREA, help="area: pixels are areas; toolbox: MS samples at 4k + 2, as in published tables."
    ),
    registration: str | None = typer.Option(
        None, help="auto, off or DX,DY (--full-res); default: as the product's tags say, else auto."
    ),
    report: Path | None = typer.Option(None, metavar="DIR", help="Write DIR/index.html with pictures and maps."),
    bands: str | None = typer.Option(None, metavar="R,G,B", help="Bands shown in the report, counted from 1."),
    as_json: opt.AsJson = False,
) -> None:
    """Score a product against a reference, or at full resolution from its PAN and MS; `exp` is scored beside it."""
    from pancrafter_cli.raster.align import parse_nodata
    from pancrafter_cli.raster.register import parse_registration
    from pancrafter_cli.raster.scene import SceneOptions
    from pancrafter_cli.raster.targets import check_local
    from pancrafter_cli.report.page import check_folder
    from pancrafter_cli.tasks.score import ScoreOptions, score
    from pancrafter_cli.tasks.score_report import write_score_report

    if full_res == (reference is not None):
        raise UsageError(
            "give either --reference or --full-res" if reference else "nothing to score against",
            "pancrafter score FUSED --reference GT, or pancrafter score --full-res FUSED --pan PAN --ms MS",
        )
    if bands is not None and report is None:
        raise UsageError("--bands chooses what a report shows, and none is asked for", "add --report DIR")
    options = ScoreOptions(
        fused=fused,
        reference=reference,
        pan=pan,
        ms=tuple(ms),
        ratio=ratio,
        sensor=sensor,
        geometry=geometry.value,
        cut=cut,
        peak=peak,
        registration=None if registration is None else parse_registration(registration),
        scene=SceneOptions(
            ratio=ratio if full_res else None,
            ms_origin=parse_point(ms_origin, "--ms-origin"),
            nodata=parse_nodata(nodata),
            dem=dem,
        ),
    )
    shown = parse_bands(bands)
    if report is not None:
        check_local(report)
        check_folder(report)
    page = None
    with ExitStack() as stack:
        measured = score(options, stack)
        try:
            page = write_score_report(measured, report, shown) if report else None
        finally:
            _tell(measured, page, as_json)  # what was measured is told, whatever becomes of the report


def _tell(measured: Measured, page: Path | None, as_json: bool) -> None:
    """The indices, what they depend on, warnings and where the report is; or the result for machines."""
    from pancrafter_cli.tasks.score_report import score_table

    if as_json:
        print_json(measured.result)
        return
    print_table(score_table(measured))
    for name, value in measured.result.settings.items():
        print(f"{name}: {value}")
    for warning in measured.result.warnings:
        print(f"warning: {warning}")
    if page:
        print(f"report: {page}")
